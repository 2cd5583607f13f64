//! Sends the request of a renewal and hears the answer out.

use std::time::Duration;

use moltbot_core::{AuthError, HostError, HttpRequest, RenewReply, Secret};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::http::{Http, explain, origin, safe_url};

/// How long a token endpoint may take (spec A-22).
const RENEW_MS: u64 = 30_000;

/// How much of an answer is read: no more than a journal can hold.
const MAX_ANSWER: usize = 56 << 10;

/// Why there is no answer.
pub(super) struct Unanswered {
    pub(super) error: AuthError,
    /// Whether the service may have heard the request.
    pub(super) sent: bool,
}

/// Checks that a renewal goes to the endpoint of the user's own config, and nowhere else.
pub(super) fn destination(
    request: &HttpRequest,
    token_url: Option<&str>,
) -> Result<reqwest::Url, AuthError> {
    let denied = |reason: String| AuthError::Denied {
        reason: format!("the renewal was not sent: {reason}"),
    };
    let url = safe_url(&request.url).map_err(denied)?;
    let configured = token_url.and_then(|text| safe_url(text).ok());
    if configured.is_none_or(|configured| origin(&configured) != origin(&url)) {
        return Err(denied("its address is not the one of auth.oauth in the config".into()));
    }
    Ok(url)
}

/// The connection that brought an answer; dropped once the answer is on disk.
pub(super) struct Connection {
    _response: reqwest::Response,
}

/// Sends a request and hears its answer out.
pub(super) async fn send(
    http: &Http,
    url: reqwest::Url,
    request: &HttpRequest,
) -> Result<(RenewReply, Connection), Unanswered> {
    let host = url.host_str().unwrap_or_default().to_string();
    let network = |sent: bool, message: String| Unanswered {
        error: HostError::Network { message: format!("{host}: {message}") }.into(),
        sent,
    };
    let method = reqwest::Method::from_bytes(request.method.as_bytes())
        .map_err(|_| network(false, format!("{} is no method", request.method)))?;
    let mut builder =
        http.client(&url).map_err(|error| network(false, error))?.request(method, url);
    for (name, value) in &request.headers {
        builder = builder.header(name.as_ref(), value.expose());
    }
    if let Some(body) = &request.body {
        builder = builder.body(body.expose().to_string());
    }
    let limit = request.timeout_ms.unwrap_or(RENEW_MS).min(RENEW_MS);
    let heard = timeout(Duration::from_millis(limit), async {
        let mut response =
            builder.send().await.map_err(|error| network(!error.is_connect(), explain(&error)))?;
        let status = response.status().as_u16();
        let mut body = Zeroizing::new(Vec::new());
        loop {
            match response.chunk().await {
                Ok(Some(piece)) if body.len() + piece.len() <= MAX_ANSWER => {
                    body.extend_from_slice(&piece);
                }
                Ok(Some(_)) => {
                    let what = format!("the answer is larger than {} KiB", MAX_ANSWER >> 10);
                    return Err(network(true, what));
                }
                Ok(None) => break,
                Err(error) => return Err(network(true, explain(&error))),
            }
        }
        let body = Secret::new(String::from_utf8_lossy(&body));
        Ok((RenewReply { status, body }, Connection { _response: response }))
    });
    match heard.await {
        Ok(heard) => heard,
        Err(_) => {
            let error = HostError::Timeout { ms: limit }.into();
            Err(Unanswered { error, sent: true })
        }
    }
}
