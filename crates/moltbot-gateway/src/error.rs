//! What a chat fails with: the exact text for the user, a code, and what helps (spec S-28).

use moltbot_core::{Ended, Failure, FailureKind, Text, redact};
use moltbot_profiles::StoreError;
use serde_json::Value;
use thiserror::Error;

use crate::model::ModelError;
use crate::record::Record;
use crate::turn::Turn;

/// Why there is no answer, or only a part of one.
#[derive(Clone, Debug, Error)]
#[error("{message}")]
pub struct ChatError {
    /// The page of `moltbot explain`.
    pub code: Text,
    /// The whole text for the user, without any secret.
    pub message: String,
    /// What the user can do, if more is known than the code's page says.
    pub advice: Option<String>,
    /// The turn as far as it came before it broke off; its text was forwarded already.
    pub partial: Option<Box<Turn>>,
    /// What was decided and tried.
    pub record: Option<Box<Record>>,
}

impl ChatError {
    /// Makes an error without a record.
    pub fn new(code: impl Into<Text>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            advice: None,
            partial: None,
            record: None,
        }
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl From<StoreError> for ChatError {
    fn from(error: StoreError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<ModelError> for ChatError {
    fn from(error: ModelError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// Why one model gave no answer.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) code: Text,
    /// The exact text for the user.
    pub(crate) message: String,
    /// The class in one word, for the list of spec S-23.
    pub(crate) reason: &'static str,
    pub(crate) advice: Option<String>,
    /// The turn as far as it was forwarded.
    pub(crate) partial: Option<Box<Turn>>,
}

impl Failed {
    pub(crate) fn new(
        code: impl Into<Text>,
        message: impl Into<String>,
        reason: &'static str,
    ) -> Self {
        let (code, message) = (code.into(), message.into());
        Self { code, message, reason, advice: None, partial: None }
    }

    pub(crate) fn of(failure: &Failure, ended: &Ended, request_id: Option<&str>) -> Self {
        let message = user_text(failure, ended, request_id);
        let advice = failure.advice.as_ref().map(|advice| advice.to_string());
        Self { advice, ..Self::new(failure.code.clone(), message, failure.kind.as_str()) }
    }

    pub(crate) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::new(error.code(), error.to_string(), "store")
    }
}

/// Says in the words of spec S-28 what the service answered.
pub(crate) fn user_text(failure: &Failure, ended: &Ended, request_id: Option<&str>) -> String {
    let message = redact(failure.message.trim()).into_owned();
    match failure.kind {
        FailureKind::Overloaded => {
            "The AI service is temporarily overloaded. Please try again in a moment.".into()
        }
        FailureKind::ContextOverflow => {
            "Context overflow: prompt too large for the model. Try again with less input or a larger-context model.".into()
        }
        FailureKind::Format if !message.is_empty() => format!("LLM request rejected: {message}"),
        FailureKind::Timeout => "LLM request timed out.".into(),
        kind => match ended {
            Ended::Http { status, body, .. } => http_text(*status, body, &message, request_id),
            Ended::Event { kind, .. } if !message.is_empty() && !kind.is_empty() => {
                format!("{}: {message}", redact(kind))
            }
            _ if !message.is_empty() => format!("LLM request failed: {message}"),
            _ => plain_text(kind).into(),
        },
    }
}

/// `HTTP <code> <type>: <message> (request_id: <id>)`, as far as each is known.
fn http_text(status: u16, body: &str, message: &str, request_id: Option<&str>) -> String {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let mut text = format!("HTTP {status}");
    if let Some(word) = body["error"]["type"].as_str() {
        text = format!("{text} {}", redact(word));
    }
    if !message.is_empty() {
        text = format!("{text}: {message}");
    }
    match request_id.or_else(|| body["request_id"].as_str()) {
        Some(id) => format!("{text} (request_id: {})", redact(id)),
        None => text,
    }
}

fn plain_text(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::RateLimit => "LLM request rate limited.",
        FailureKind::Auth => "LLM request unauthorized.",
        FailureKind::Unknown => "LLM request failed with an unknown error.",
        _ => "LLM request failed.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moltbot_core::{NetworkFault, Scope};

    fn failure(kind: FailureKind, message: &str) -> Failure {
        Failure {
            kind,
            scope: Scope::Request,
            reset: None,
            account: None,
            code: "x".into(),
            message: message.into(),
            advice: None,
        }
    }

    fn http(status: u16, body: &str) -> Ended {
        Ended::Http { status, headers: Vec::new(), body: body.into() }
    }

    #[test]
    fn the_texts_of_the_specification() {
        let body = r#"{"type":"error","error":{"type":"authentication_error","message":"m"},"request_id":"req_1"}"#;
        let network =
            Ended::Network { what: NetworkFault::Connect, message: "no connection".into() };
        let event = Ended::Event {
            kind: "api_error".into(),
            message: "oops".into(),
            body: Value::Null,
            headers: Vec::new(),
        };
        for (kind, message, ended, expected) in [
            (
                FailureKind::Overloaded,
                "x",
                http(529, ""),
                "The AI service is temporarily overloaded. Please try again in a moment.",
            ),
            (FailureKind::Format, "bad ttl", http(400, ""), "LLM request rejected: bad ttl"),
            (FailureKind::Timeout, "", network.clone(), "LLM request timed out."),
            (
                FailureKind::Auth,
                "invalid key",
                http(401, body),
                "HTTP 401 authentication_error: invalid key (request_id: req_1)",
            ),
            (FailureKind::Server, "", http(503, "upstream connect error"), "HTTP 503"),
            (FailureKind::Server, "oops", event, "api_error: oops"),
            (
                FailureKind::Server,
                "no connection",
                network.clone(),
                "LLM request failed: no connection",
            ),
            (FailureKind::RateLimit, "", network.clone(), "LLM request rate limited."),
            (FailureKind::Auth, "", network.clone(), "LLM request unauthorized."),
            (FailureKind::Unknown, "", network, "LLM request failed with an unknown error."),
        ] {
            assert_eq!(user_text(&failure(kind, message), &ended, None), expected);
        }
    }

    #[test]
    fn what_the_service_says_is_redacted() {
        let text = user_text(
            &failure(FailureKind::Auth, "bad key sk-ant-api03-FAKEFAKE\u{1b}[31m"),
            &http(401, r#"{"error":{"type":"e\u001b"}}"#),
            Some("req"),
        );
        assert!(!text.contains("FAKEFAKE") && !text.contains('\u{1b}'), "{text}");
    }
}
