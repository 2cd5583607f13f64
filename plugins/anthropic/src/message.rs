//! Reads whole JSON replies, and usage wherever it stands.

use moltbot_core::{Event, Usage};
use serde_json::{Map, Value, json};

/// A reply that broke off.
pub(crate) const INCOMPLETE: &str = "incomplete";
/// A reply that nobody can read.
pub(crate) const MALFORMED: &str = "malformed";

/// Reads a `usage` object. Figures that are missing, null or no count stay unknown.
pub(crate) fn usage(usage: &Value) -> Usage {
    let split = |name: &str| count(&usage["cache_creation"][name]);
    let (write_5m, write_1h) =
        (split("ephemeral_5m_input_tokens"), split("ephemeral_1h_input_tokens"));
    let parts = match (write_5m, write_1h) {
        (None, None) => None,
        (five, hour) => Some(five.unwrap_or(0).saturating_add(hour.unwrap_or(0))),
    };
    Usage {
        input: count(&usage["input_tokens"]),
        output: count(&usage["output_tokens"]),
        cache_read: count(&usage["cache_read_input_tokens"]),
        cache_write: count(&usage["cache_creation_input_tokens"]).or(parts),
        cache_write_5m: write_5m,
        cache_write_1h: write_1h,
    }
}

fn count(value: &Value) -> Option<u64> {
    let whole = |number: &f64| number.is_finite() && *number >= 0.0;
    value.as_u64().or_else(|| value.as_f64().filter(whole).map(|number| number as u64))
}

/// Reads an `error` event or an error body.
pub(crate) fn error(at: u64, body: Value) -> Event {
    let text = |name: &str| body["error"][name].as_str().map(str::to_string);
    let kind = text("type").unwrap_or_else(|| "error".into());
    let message = text("message").unwrap_or_else(|| "the service reported an error".into());
    Event::Error { at, kind, message, body }
}

/// Makes the error of a reply that ended or cannot be read.
pub(crate) fn broken(at: u64, kind: &str, message: &str) -> Event {
    Event::Error { at, kind: kind.into(), message: message.into(), body: Value::Null }
}

/// Turns one JSON reply of `length` bytes into the events of the same reply as a stream.
///
/// Besides messages it knows errors, token counts and lists, which have neither blocks nor a stop
/// reason.
pub(crate) fn whole(text: &[u8], length: u64, blocks: bool, events: &mut Vec<Event>) {
    let reply: Value = match serde_json::from_slice(text) {
        Ok(reply) => reply,
        Err(problem) if problem.is_eof() => {
            events.push(broken(0, INCOMPLETE, "the reply ended before it was complete"));
            return;
        }
        Err(_) => {
            events.push(broken(0, MALFORMED, "the reply is not valid JSON"));
            return;
        }
    };
    if reply["type"] == "error" || reply["error"].is_object() {
        events.push(error(0, reply));
        return;
    }
    let is_message = reply["type"] == "message";
    if !is_message && reply["input_tokens"].is_null() && !reply["data"].is_array() {
        events.push(broken(0, MALFORMED, "the reply is no message"));
        return;
    }
    let usage = usage(if is_message { &reply["usage"] } else { &reply });
    let text = |name: &str| reply[name].as_str().map(str::to_string);
    events.push(Event::Began { at: length, id: text("id"), model: text("model"), usage });
    let stop = text("stop_reason").unwrap_or_default();
    if blocks && is_message {
        let content = match reply {
            Value::Object(mut reply) => reply.remove("content"),
            _ => None,
        };
        if let Some(Value::Array(content)) = content {
            for (index, block) in content.into_iter().enumerate() {
                self::block(index, block, events);
            }
        }
    }
    events.push(Event::TurnEnd { at: length, stop, usage });
}

/// Takes a block apart as a stream would send it: begun empty, then filled.
fn block(index: usize, block: Value, events: &mut Vec<Event>) {
    let Value::Object(mut block) = block else { return };
    let mut filling = Vec::new();
    match block.get("type").and_then(Value::as_str).unwrap_or_default() {
        "text" => {
            for citation in take_array(&mut block, "citations") {
                let delta = json!({"type": "citations_delta", "citation": citation});
                filling.push(Event::Delta { index, delta });
            }
            if let Some(text) = take_text(&mut block, "text") {
                filling.insert(0, Event::Text { index, text });
            }
        }
        "thinking" => {
            if let Some(text) = take_text(&mut block, "thinking") {
                filling.push(Event::Thinking { index, text });
            }
            if let Some(signature) = take_text(&mut block, "signature") {
                let delta = json!({"type": "signature_delta", "signature": signature});
                filling.push(Event::Delta { index, delta });
            }
        }
        "tool_use" | "server_tool_use" | "mcp_tool_use" => {
            if let Some(input) = block.insert("input".into(), json!({})) {
                filling.push(Event::Input { index, json: input.to_string() });
            }
        }
        _ => {}
    }
    events.push(Event::BlockStart { index, block: Value::Object(block) });
    events.append(&mut filling);
    events.push(Event::BlockEnd { index });
}

/// Takes a text out of a block and leaves an empty one; `None` if there is nothing to fill in.
fn take_text(block: &mut Map<String, Value>, name: &str) -> Option<String> {
    match block.get_mut(name) {
        Some(Value::String(text)) => Some(std::mem::take(text)).filter(|text| !text.is_empty()),
        _ => None,
    }
}

fn take_array(block: &mut Map<String, Value>, name: &str) -> Vec<Value> {
    match block.get_mut(name) {
        Some(Value::Array(items)) => std::mem::take(items),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_figures_stay_unknown() {
        let read = usage(&json!({"input_tokens": null, "output_tokens": -1, "cache_creation": 5}));
        assert_eq!(read, Usage::default());
        let read = usage(&json!({"input_tokens": 7.0, "cache_read_input_tokens": "3"}));
        assert_eq!((read.input, read.cache_read), (Some(7), None));
    }

    #[test]
    fn a_split_without_its_sum_is_added_up() {
        let split = json!({"cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}});
        let read = usage(&split);
        assert_eq!(
            (read.cache_write, read.cache_write_5m, read.cache_write_1h),
            (Some(7), Some(3), Some(4))
        );
    }
}
