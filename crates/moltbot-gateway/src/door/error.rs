//! What a client gets when the door itself answers: errors in the shape its own service uses.

use bytes::Bytes;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::body::DoorBody;

/// In whose language an error is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `{"type":"error","error":{"type","message"},"request_id"}`.
    Messages,
    /// `{"error":{"message","type","param","code"}}`.
    OpenAi,
}

/// An answer of the door's own that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// The word for the sort of error, as both services use it.
    pub(crate) kind: &'static str,
    pub(crate) message: String,
    /// After how many seconds it is worth another try.
    pub(crate) retry_after: Option<u64>,
    /// For 405.
    pub(crate) allow: Option<&'static str>,
    /// The code for `moltbot explain`, if the sort does not tell it.
    pub(crate) code: Option<&'static str>,
    /// Whether the connection ends with this answer.
    pub(crate) close: bool,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, kind, message, retry_after: None, allow: None, code: None, close: false }
    }

    /// The request is wrong.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// The bearer may not do this.
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", message)
    }

    /// There is no such thing here.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found_error", message)
    }

    /// The service behind, or the way to it, is at fault.
    pub(crate) fn upstream(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "api_error", message)
    }

    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(crate) fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// Tells whether there was nobody to ask with.
    pub(crate) fn is_for_want_of_credentials(&self) -> bool {
        matches!(self.code, Some("all-cooling" | "no-credential"))
    }

    pub(crate) fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// Writes it down for a client.
    pub(crate) fn response(self, shape: Shape, id: Option<&str>) -> Response<DoorBody> {
        let body = self.body(shape, id).to_string();
        let mut response = Response::new(DoorBody::full(Bytes::from(body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn body(&self, shape: Shape, id: Option<&str>) -> Value {
        match shape {
            // The body of spec G-2, exactly.
            Shape::OpenAi if self.status == StatusCode::UNAUTHORIZED => {
                json!({ "error": { "message": "Unauthorized", "type": "unauthorized" } })
            }
            Shape::OpenAi => json!({ "error": {
                "message": self.message, "type": self.kind, "param": null,
                "code": self.code.and_then(openai_code) } }),
            Shape::Messages => json!({
                "type": "error",
                "error": { "type": self.kind, "message": self.message },
                "request_id": id,
            }),
        }
    }
}

/// Says in OpenAI's words what its clients tell errors apart by.
pub(crate) fn openai_code(code: &str) -> Option<&'static str> {
    Some(match code {
        "all-cooling" | "rate-limited" => "rate_limit_exceeded",
        "billing" => "insufficient_quota",
        "context-overflow" => "context_length_exceeded",
        "credential-refused" => "invalid_api_key",
        "model-not-found" => "model_not_found",
        _ => return None,
    })
}

/// Writes an error as the event that ends a stream of the Messages API.
pub(crate) fn error_event(kind: &str, message: &str) -> Bytes {
    let data = json!({ "type": "error", "error": { "type": kind, "message": message } });
    Bytes::from(format!("event: error\ndata: {data}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shape_is_its_services() {
        let refusal = Refusal::invalid("no");
        assert_eq!(
            refusal.body(Shape::Messages, Some("mb_1")).to_string(),
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"no"},"request_id":"mb_1"}"#
        );
        assert_eq!(refusal.body(Shape::OpenAi, None)["error"]["type"], "invalid_request_error");
        let unauthorized = Refusal::new(StatusCode::UNAUTHORIZED, "authentication_error", "x");
        assert_eq!(
            unauthorized.body(Shape::OpenAi, None).to_string(),
            r#"{"error":{"message":"Unauthorized","type":"unauthorized"}}"#
        );
    }
}
