//! Events as a Messages reply, streamed or whole, and such a stream as events again. Pure.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use moltbot_core::{Decoder, Event, SseSplitter, Usage};
use serde_json::{Value, json};

/// The longest event that is read back.
const MOST_EVENT: usize = 64 << 20;

/// The id of a message that its author gave none.
const NO_ID: &str = "msg_local";

/// Writes the events of one reply as server-sent events.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    id: Option<String>,
    model: Option<String>,
    /// The places of the blocks as their author counts them: some are its own business, and
    /// clients count without gaps.
    places: Vec<usize>,
}

impl Writer {
    /// Writes one event; empty if a client has no use for it. `asked` is the model's name if the
    /// reply says none.
    pub(crate) fn write(&mut self, event: &Event, asked: &str) -> Bytes {
        let mut out = String::new();
        match event {
            Event::Began { id, model, usage, .. } => {
                self.id = id.clone();
                self.model = model.clone();
                let message = self.message(&[], Value::Null, usage, asked);
                push(&mut out, "message_start", &json!({ "message": message }));
            }
            Event::BlockStart { index, block } => {
                let index = self.place(*index);
                let data = json!({ "index": index, "content_block": block });
                push(&mut out, "content_block_start", &data);
            }
            Event::Text { index, text } => {
                self.delta(*index, json!({ "type": "text_delta", "text": text }), &mut out);
            }
            Event::Thinking { index, text } => {
                self.delta(*index, json!({ "type": "thinking_delta", "thinking": text }), &mut out);
            }
            Event::Input { index, json } => {
                let delta = json!({ "type": "input_json_delta", "partial_json": json });
                self.delta(*index, delta, &mut out);
            }
            Event::Delta { index, delta } => self.delta(*index, delta.clone(), &mut out),
            Event::BlockEnd { index } => {
                let index = self.place(*index);
                push(&mut out, "content_block_stop", &json!({ "index": index }));
            }
            Event::Ping { .. } => push(&mut out, "ping", &json!({})),
            Event::TurnEnd { stop, usage, .. } => {
                let delta = json!({ "stop_reason": stop, "stop_sequence": null });
                let data = json!({ "delta": delta, "usage": written(usage) });
                push(&mut out, "message_delta", &data);
                push(&mut out, "message_stop", &json!({}));
            }
            _ => {}
        }
        out.into()
    }

    /// Writes the whole message.
    pub(crate) fn message(
        &self,
        content: &[Value],
        stop: Value,
        usage: &Usage,
        asked: &str,
    ) -> Value {
        json!({
            "id": self.id.as_deref().unwrap_or(NO_ID),
            "type": "message",
            "role": "assistant",
            "model": self.model.as_deref().unwrap_or(asked),
            "content": content,
            "stop_reason": stop,
            "stop_sequence": null,
            "usage": written(usage),
        })
    }

    fn delta(&mut self, index: usize, delta: Value, out: &mut String) {
        let index = self.place(index);
        push(out, "content_block_delta", &json!({ "index": index, "delta": delta }));
    }

    fn place(&mut self, index: usize) -> usize {
        let known = self.places.iter().position(|place| *place == index);
        known.unwrap_or_else(|| {
            self.places.push(index);
            self.places.len() - 1
        })
    }
}

fn push(out: &mut String, name: &str, data: &Value) {
    // The type stands first, as the service writes it.
    let members = data.to_string();
    let rest = members.trim_start_matches('{');
    let comma = if rest == "}" { "" } else { "," };
    *out += &format!("event: {name}\ndata: {{\"type\":\"{name}\"{comma}{rest}\n\n");
}

fn written(usage: &Usage) -> Value {
    let mut out = json!({
        "input_tokens": usage.input.unwrap_or(0),
        "cache_creation_input_tokens": usage.cache_write.unwrap_or(0),
        "cache_read_input_tokens": usage.cache_read.unwrap_or(0),
        "output_tokens": usage.output.unwrap_or(0),
    });
    if usage.cache_write_5m.is_some() || usage.cache_write_1h.is_some() {
        out["cache_creation"] = json!({
            "ephemeral_5m_input_tokens": usage.cache_write_5m.unwrap_or(0),
            "ephemeral_1h_input_tokens": usage.cache_write_1h.unwrap_or(0),
        });
    }
    out
}

fn read(usage: &Value) -> Usage {
    let split = &usage["cache_creation"];
    Usage {
        input: usage["input_tokens"].as_u64(),
        output: usage["output_tokens"].as_u64(),
        cache_read: usage["cache_read_input_tokens"].as_u64(),
        cache_write: usage["cache_creation_input_tokens"].as_u64(),
        cache_write_5m: split["ephemeral_5m_input_tokens"].as_u64(),
        cache_write_1h: split["ephemeral_1h_input_tokens"].as_u64(),
    }
}

/// Reads what [`Writer`] wrote; for those who count tokens or translate further.
pub(crate) struct Reader {
    splitter: SseSplitter,
    stop: String,
    usage: Usage,
    cost: Arc<OnceLock<f64>>,
    over: bool,
}

impl Reader {
    /// `cost` is told beside the stream, in US dollars, before its end.
    pub(crate) fn new(cost: Arc<OnceLock<f64>>) -> Self {
        let splitter = SseSplitter::new(MOST_EVENT);
        Self { splitter, stop: String::new(), usage: Usage::default(), cost, over: false }
    }

    fn take(&mut self, mut data: Value, at: u64) -> Option<Event> {
        let index = data["index"].as_u64().and_then(|at| usize::try_from(at).ok());
        match data["type"].as_str()? {
            "message_start" => {
                let message = &data["message"];
                self.usage.merge(&read(&message["usage"]));
                let text = |name: &str| message[name].as_str().map(String::from);
                let (id, model, usage) = (text("id"), text("model"), self.usage);
                Some(Event::Began { at, id, model, usage })
            }
            "content_block_start" => {
                Some(Event::BlockStart { index: index?, block: data["content_block"].take() })
            }
            "content_block_delta" => {
                let (index, delta) = (index?, data["delta"].take());
                let text = |name: &str| delta[name].as_str().unwrap_or_default().to_string();
                Some(match delta["type"].as_str()? {
                    "text_delta" => Event::Text { index, text: text("text") },
                    "thinking_delta" => Event::Thinking { index, text: text("thinking") },
                    "input_json_delta" => Event::Input { index, json: text("partial_json") },
                    _ => Event::Delta { index, delta },
                })
            }
            "content_block_stop" => Some(Event::BlockEnd { index: index? }),
            "ping" => Some(Event::Ping { at }),
            "message_delta" => {
                self.usage.merge(&read(&data["usage"]));
                self.stop = data["delta"]["stop_reason"].as_str().unwrap_or_default().into();
                None
            }
            "message_stop" => {
                self.over = true;
                let stop = std::mem::take(&mut self.stop);
                Some(Event::TurnEnd { at, stop, usage: self.usage })
            }
            "error" => {
                self.over = true;
                let text = |name: &str| data["error"][name].as_str().unwrap_or_default().into();
                let (kind, message) = (text("type"), text("message"));
                Some(Event::Error { at, kind, message, body: data })
            }
            _ => None,
        }
    }
}

impl Decoder for Reader {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) {
        let mut found = Vec::new();
        self.splitter.push(bytes, &mut |event| found.push(event));
        for event in found {
            if let Ok(data) = serde_json::from_str(&event.data)
                && !self.over
                && let Some(event) = self.take(data, event.end)
            {
                if let (Event::TurnEnd { .. }, Some(dollars)) = (&event, self.cost.get()) {
                    events.push(Event::Cost { dollars: *dollars });
                }
                events.push(event);
            }
        }
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.over, true) {
            events.push(Event::Error {
                at: self.splitter.seen(),
                kind: "incomplete".into(),
                message: "the reply broke off".into(),
                body: Value::Null,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> Vec<Event> {
        let usage = Usage { input: Some(3), output: Some(1), ..Usage::default() };
        let end = Usage { output: Some(9), cache_write: Some(4), cache_write_5m: Some(4), ..usage };
        vec![
            Event::Began { at: 0, id: Some("msg_1".into()), model: Some("m".into()), usage },
            Event::BlockStart { index: 0, block: json!({"type": "thinking", "thinking": ""}) },
            Event::Thinking { index: 0, text: "hm".into() },
            Event::Delta { index: 0, delta: json!({"type": "signature_delta", "signature": "x"}) },
            Event::BlockEnd { index: 0 },
            Event::Ping { at: 0 },
            // The block between was a tool of the program's own.
            Event::BlockStart { index: 2, block: json!({"type": "text", "text": ""}) },
            Event::Text { index: 2, text: "é \"{\n".into() },
            Event::BlockEnd { index: 2 },
            Event::TurnEnd { at: 0, stop: "end_turn".into(), usage: end },
        ]
    }

    #[test]
    fn what_is_written_reads_back_without_gaps_however_it_is_cut() {
        let mut writer = Writer::default();
        let wire: Vec<u8> =
            reply().iter().flat_map(|event| writer.write(event, "asked").to_vec()).collect();
        let text = String::from_utf8(wire.clone()).unwrap();
        assert!(text.starts_with("event: message_start\ndata: {\"type\":\"message_start\",\"mess"));
        assert!(text.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
        for cut in 0..=wire.len() {
            let (mut reader, mut back) = (Reader::new(Arc::default()), Vec::new());
            reader.push(&wire[..cut], &mut back);
            reader.push(&wire[cut..], &mut back);
            reader.end(&mut back);
            assert_eq!(back.len(), reply().len(), "{back:?}");
            assert!(matches!(&back[7], Event::Text { index: 1, text } if text == "é \"{\n"));
            let Some(Event::TurnEnd { stop, usage, .. }) = back.last() else { panic!("{back:?}") };
            assert_eq!((stop.as_str(), usage.output, usage.input), ("end_turn", Some(9), Some(3)));
            assert_eq!(usage.cache_write_5m, Some(4));
        }
    }

    #[test]
    fn a_stream_that_breaks_off_is_an_error() {
        let mut writer = Writer::default();
        let (mut reader, mut back) = (Reader::new(Arc::default()), Vec::new());
        reader.push(&writer.write(&reply()[0], "m"), &mut back);
        reader.end(&mut back);
        assert!(matches!(back.last(), Some(Event::Error { kind, .. }) if kind == "incomplete"));
    }
}
