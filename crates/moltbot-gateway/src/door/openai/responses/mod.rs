//! `POST /v1/responses`: the newer of OpenAI's two dialects (spec G-8). Nothing is stored between
//! two requests, so each brings its whole conversation along; signed thoughts travel in it as
//! `encrypted_content`.

mod request;
mod writer;

pub(super) use request::translate;
pub(super) use writer::Writer;

use serde_json::Value;

/// Names a function of a namespace as the service knows it.
fn inner_name(namespace: &Value, name: &Value) -> Value {
    match (namespace.as_str(), name.as_str()) {
        (Some(namespace), Some(name)) => format!("{namespace}__{name}").into(),
        _ => name.clone(),
    }
}

/// What the text of a reasoning item begins with if it is a block of ours.
const OURS: &str = "moltbot:";

/// Wraps a thinking block as what a client carries unread.
fn sealed(block: &Value) -> String {
    format!("{OURS}{block}")
}

/// Unwraps a thinking block; `None` if it is somebody else's.
fn unsealed(text: &str) -> Option<Value> {
    let block: Value = serde_json::from_str(text.strip_prefix(OURS)?).ok()?;
    matches!(block["type"].as_str(), Some("thinking" | "redacted_thinking")).then_some(block)
}
