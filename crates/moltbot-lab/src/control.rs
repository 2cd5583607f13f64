//! The lab's own endpoints under `/lab/`: read the log, change the plan, move the clock.
//!
//! They ask for no credential, so they refuse any request a web page could have sent.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::errors::error_table;
use crate::oauth::LoginSpec;
use crate::plan::parse_plan;
use crate::socket::Control;
use crate::state::State;
use crate::wire::{Aborted, LabBody, Payload, Trace};

const BODY_LIMIT: usize = 4 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Advance {
    advance_seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    label: String,
}

/// Serves one request under `/lab/`.
pub(crate) async fn serve(
    state: &State,
    control: &Arc<Control>,
    head: &Parts,
    body: Incoming,
) -> Result<Response<LabBody>, Aborted> {
    let collected = Limited::new(body, BODY_LIMIT).collect().await;
    let (status, value) = match collected {
        Ok(body) => answer(state, head, &body.to_bytes()),
        Err(_) => (413, json!({ "error": "the body is too large or was cut off" })),
    };
    let payload = Payload::Whole(value.to_string().into());
    let body = LabBody::new(payload, None, false, Trace::default(), control.clone());
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

fn answer(state: &State, head: &Parts, body: &[u8]) -> (u16, Value) {
    let bad = |text: String| (400, json!({ "error": text }));
    if head.headers.contains_key(ORIGIN) || head.headers.contains_key("sec-fetch-site") {
        return (403, json!({ "error": "the lab's own endpoints are not for web pages" }));
    }
    let Ok(text) = std::str::from_utf8(body) else {
        return bad("the body is not UTF-8".to_owned());
    };
    match (&head.method, head.uri.path()) {
        (&Method::GET, "/lab/log") => (200, json!({ "entries": state.log.entries() })),
        (&Method::GET, "/lab/errors") => {
            let rows: Vec<Value> = error_table()
                .iter()
                .map(|spec| {
                    json!({
                        "number": spec.number, "name": spec.name, "status": spec.status,
                        "type": spec.kind, "message": spec.message, "source": spec.source,
                    })
                })
                .collect();
            (200, json!({ "errors": rows }))
        }
        (&Method::POST, "/lab/plan") => match parse_plan(text, "plan") {
            Ok(plan) => {
                let rules = plan.rules.len();
                state.set_plan(plan);
                (200, json!({ "rules": rules }))
            }
            Err(error) => bad(error.to_string()),
        },
        (&Method::POST, "/lab/reset") => {
            state.reset();
            (200, json!({ "reset": true }))
        }
        (&Method::POST, "/lab/login") => match json5::from_str::<LoginSpec>(text) {
            Ok(spec) => (200, json!(state.issue(&spec))),
            Err(error) => bad(error.to_string()),
        },
        (&Method::POST, "/lab/revoke") => match json5::from_str::<Revoke>(text) {
            Ok(revoke) => {
                let count = crate::log::lock(&state.logins).revoke(&revoke.label);
                (200, json!({ "revoked": count }))
            }
            Err(error) => bad(error.to_string()),
        },
        (&Method::POST, "/lab/clock") => match json5::from_str::<Advance>(text) {
            Ok(advance) => {
                state.clock.advance(Duration::from_secs(advance.advance_seconds));
                (200, json!({ "now": state.clock.now_ms() }))
            }
            Err(error) => bad(error.to_string()),
        },
        _ => {
            let known = "GET /lab/log, GET /lab/errors, POST /lab/plan, /lab/reset, /lab/login, \
                         /lab/revoke, /lab/clock";
            (404, json!({ "error": format!("no such endpoint; the lab has {known}") }))
        }
    }
}
