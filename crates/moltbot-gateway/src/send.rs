//! Sends one exchange: fills in the credential, checks where it goes, streams the reply.

use std::time::Duration;

use bytes::Bytes;
use moltbot_core::{
    Credential, Ended, Exchange, Found, Header, NetworkFault, ProviderError, Secret, Slot, redact,
    splice,
};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use thiserror::Error;
use tokio::time::timeout;

use crate::compose::Chat;
use crate::http::{Http, Limits, explain, origin, safe_url};

/// How much of an error's body is kept.
const MAX_ERROR_BODY: usize = 64 << 10;

/// How long an error's body may take.
const ERROR_BODY_MS: u64 = 10_000;

/// Why an exchange is not sent at all; nobody is punished for it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// The address is not one this credential may be sent to.
    #[error("{0}")]
    Origin(String),
    /// The credential cannot be put into a header.
    #[error("{0}")]
    Credential(String),
    /// The plugin asks for something that is not allowed.
    #[error("the plugin failed: {0}")]
    Plugin(String),
}

/// A request, ready to be sent.
#[derive(Debug)]
pub(crate) struct Prepared {
    method: Method,
    pub(crate) url: Url,
    headers: HeaderMap,
    body: Bytes,
}

/// Puts a provider's exchange, the chat and the credential together. Pure.
///
/// `origins` are the only ones the credential may be sent to.
pub(crate) fn prepare(
    chat: &Chat,
    found: &[Found<'_>],
    exchange: &Exchange,
    credential: &Credential,
    origins: &[String],
) -> Result<Prepared, SendError> {
    let Exchange::Http { method, url, set, drop, splices, replace, .. } = exchange else {
        return Err(SendError::Plugin(
            "it wants a program run, which this host does not do".into(),
        ));
    };
    let url = check_origin(url, origins)?;
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| SendError::Plugin(format!("{method} is no method")))?;
    let mut headers = HeaderMap::new();
    for Header { name, value } in &chat.headers {
        if !drop.iter().any(|dropped| dropped.eq_ignore_ascii_case(name)) {
            headers.append(header_name(name)?, header_value(value, name, false)?);
        }
    }
    for (name, slot) in set {
        let secret = slot.fill(credential).map_err(|error| match error {
            ProviderError::Credential { message } => SendError::Credential(message),
            other => SendError::Plugin(other.to_string()),
        })?;
        let sensitive = matches!(slot, Slot::Secret { .. });
        headers.insert(header_name(name)?, header_value(secret.expose(), name, sensitive)?);
    }
    let body = match replace {
        Some(body) => Bytes::from(body.clone()),
        None if splices.is_empty() => chat.body.clone(),
        None => splice(&chat.body, splices, found)
            .map_err(|error| SendError::Plugin(error.to_string()))?
            .into(),
    };
    Ok(Prepared { method, url, headers, body })
}

impl Prepared {
    /// Sets headers of the user's own config that carry a credential.
    pub(crate) fn with_headers(mut self, own: &[(String, Secret)]) -> Result<Self, SendError> {
        for (name, value) in own {
            self.headers.insert(header_name(name)?, header_value(value.expose(), name, true)?);
        }
        Ok(self)
    }
}

/// Checks that an address is safe and of one of `origins`.
pub(crate) fn check_origin(url: &str, origins: &[String]) -> Result<Url, SendError> {
    let shown = redact(url);
    let checked = safe_url(url).map_err(|reason| {
        SendError::Origin(format!("the address {shown} is not used: {reason}"))
    })?;
    let wanted = origin(&checked);
    let known = |text: &String| Url::parse(text).is_ok_and(|url| origin(&url) == wanted);
    if !origins.iter().any(known) {
        let allowed = origins.join(", ");
        return Err(SendError::Origin(format!(
            "the credential is not sent to {wanted}, only to {allowed}"
        )));
    }
    Ok(checked)
}

/// A reply with a good status, whose body is still coming.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) headers: Vec<Header<'static>>,
    pub(crate) status: u16,
    response: Response,
}

/// Sends a request and waits for the head of the reply. Anything but a 2xx is an [`Ended`].
pub(crate) async fn send(http: &Http, prepared: Prepared, limits: Limits) -> Result<Live, Ended> {
    let Prepared { method, url, headers, body } = prepared;
    let other = |message| Ended::Network { what: NetworkFault::Other, message };
    let client = http.client(&url).map_err(other)?;
    let request = client.request(method, url).headers(headers).body(body).send();
    let Ok(sent) = timeout(Duration::from_millis(limits.first_byte_ms), request).await else {
        return Err(timed_out("no reply", limits.first_byte_ms));
    };
    let response = sent.map_err(|error| broken(&error))?;
    let headers = response_headers(&response);
    let status = response.status();
    if status.is_success() {
        return Ok(Live { headers, status: status.as_u16(), response });
    }
    Err(refusal(status, headers, response).await)
}

impl Live {
    /// Waits for the next piece of the body; `None` at its end.
    pub(crate) async fn chunk(&mut self, limits: Limits) -> Result<Option<Bytes>, Ended> {
        match timeout(Duration::from_millis(limits.idle_ms), self.response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(broken(&error)),
            Err(_) => Err(timed_out("nothing more came", limits.idle_ms)),
        }
    }
}

async fn refusal(
    status: StatusCode,
    headers: Vec<Header<'static>>,
    mut response: Response,
) -> Ended {
    let mut body = Vec::new();
    let whole = async {
        while body.len() < MAX_ERROR_BODY {
            // What broke off is still worth reading: the status is known.
            let Ok(Some(piece)) = response.chunk().await else { break };
            let room = MAX_ERROR_BODY - body.len();
            body.extend_from_slice(&piece[..piece.len().min(room)]);
        }
    };
    let _ = timeout(Duration::from_millis(ERROR_BODY_MS), whole).await;
    Ended::Http {
        status: status.as_u16(),
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

fn response_headers(response: &Response) -> Vec<Header<'static>> {
    let header = |(name, value): (&HeaderName, &HeaderValue)| {
        Header::new(name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    response.headers().iter().map(header).collect()
}

fn broken(error: &reqwest::Error) -> Ended {
    let what = match () {
        () if error.is_timeout() => NetworkFault::Timeout,
        () if error.is_connect() => NetworkFault::Connect,
        () => NetworkFault::Broken,
    };
    Ended::Network { what, message: explain(error) }
}

fn timed_out(what: &str, ms: u64) -> Ended {
    let message = format!("{what} within {} s", ms.div_ceil(1000));
    Ended::Network { what: NetworkFault::Timeout, message }
}

fn header_name(name: &str) -> Result<HeaderName, SendError> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| SendError::Plugin(format!("{} is no header name", redact(name))))
}

fn header_value(value: &str, name: &str, sensitive: bool) -> Result<HeaderValue, SendError> {
    let mut header = HeaderValue::from_str(value).map_err(|_| {
        let text = format!("the value for the header {name} holds characters that cannot be sent");
        if sensitive { SendError::Credential(text) } else { SendError::Plugin(text) }
    })?;
    header.set_sensitive(sensitive);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use moltbot_core::{Span, Splice};

    use crate::compose::{Head, own_headers};

    const HERE: &str = "https://api.example.com/v1/messages";

    fn chat() -> Chat {
        Chat {
            op: moltbot_core::Op::Messages,
            query: String::new(),
            headers: own_headers(),
            body: Bytes::from_static(br#"{"model":"a"}"#),
            head: Head::default(),
        }
    }

    fn exchange(url: &str, set: Vec<(moltbot_core::Text, Slot)>, splices: Vec<Splice>) -> Exchange {
        Exchange::Http {
            method: "POST".into(),
            url: url.into(),
            set,
            drop: vec!["Accept".into()],
            splices,
            replace: None,
            changed: vec![],
        }
    }

    fn key(text: &str) -> Credential {
        Credential::api_key("p", Secret::new(text))
    }

    fn origins() -> Vec<String> {
        vec!["https://api.example.com".into()]
    }

    #[test]
    fn headers_are_set_dropped_and_filled() {
        let set = vec![
            ("user-agent".into(), Slot::literal("x/1")),
            ("x-api-key".into(), Slot::secret("", "key")),
        ];
        let change = Splice { span: Span::new(9, 12), text: "\"b\"".into() };
        let found =
            [Found { path: "/model".into(), span: Span::new(9, 12), value: "\"a\"".into() }];
        let ready =
            prepare(&chat(), &found, &exchange(HERE, set, vec![change]), &key("FAKE"), &origins());
        let ready = ready.unwrap();
        assert_eq!(ready.headers.get_all("user-agent").iter().count(), 1);
        assert_eq!(ready.headers["user-agent"], "x/1");
        assert_eq!(ready.headers["x-api-key"], "FAKE");
        assert!(ready.headers["x-api-key"].is_sensitive());
        assert!(!ready.headers.contains_key("accept"));
        assert_eq!(ready.body, &br#"{"model":"b"}"#[..]);
        assert!(!format!("{ready:?}").contains("FAKE"));
    }

    #[test]
    fn a_credential_goes_to_its_own_origins_only() {
        for url in [
            "https://evil.example/v1/messages",
            "https://api.example.com.evil.net/",
            "https://api.example.com:8443/",
            "http://api.example.com/",
            "http://127.0.0.1:1/",
            "https://u@api.example.com/",
            "nonsense",
        ] {
            let result =
                prepare(&chat(), &[], &exchange(url, vec![], vec![]), &key("F"), &origins());
            assert!(matches!(result, Err(SendError::Origin(_))), "{url}");
        }
        let local = vec!["http://127.0.0.1:1".to_string()];
        assert!(check_origin("http://127.0.0.1:1/v1", &local).is_ok());
        assert!(check_origin("http://127.0.0.1:2/v1", &local).is_err());
    }

    #[test]
    fn an_unusable_credential_is_told_without_showing_it() {
        let set = vec![("x-api-key".into(), Slot::secret("", "key"))];
        for text in ["FAKE\nx-evil: 1", "FAKE\u{7f}", " "] {
            let exchange = exchange(HERE, set.clone(), vec![]);
            let error = prepare(&chat(), &[], &exchange, &key(text), &origins()).unwrap_err();
            assert!(matches!(error, SendError::Credential(_)), "{error}");
            assert!(!error.to_string().contains("FAKE"));
        }
    }

    #[test]
    fn bytes_that_were_not_read_cannot_be_changed() {
        let change = Splice { span: Span::new(0, 1), text: "[".into() };
        let result =
            prepare(&chat(), &[], &exchange(HERE, vec![], vec![change]), &key("F"), &origins());
        assert!(matches!(result, Err(SendError::Plugin(_))));
        let run = Exchange::Run {
            program: "x".into(),
            args: vec![],
            env: vec![],
            input: String::new(),
            reuse: None,
            cancel_input: None,
            idle_ms: 0,
        };
        assert!(matches!(prepare(&chat(), &[], &run, &key("F"), &[]), Err(SendError::Plugin(_))));
    }
}
