//! A streamed reply as chunks of a chat completion. Pure.

use std::collections::HashMap;

use moltbot_core::{Event, Usage};
use serde_json::{Value, json};

use super::reply::{finish, id, usage};
use super::stream::Lines;

/// Writes the chunks of one completion.
pub(super) struct Chunks {
    id: String,
    model: String,
    created: i64,
    wants_usage: bool,
    /// The calls of tools by their block: the number of each, and whether it has arguments.
    calls: HashMap<usize, (usize, bool)>,
}

impl Chunks {
    /// Begins a completion by a model that the client named so.
    pub(super) fn new(model: String, created: i64, wants_usage: bool) -> Self {
        Self { id: String::new(), model, created, wants_usage, calls: HashMap::new() }
    }

    fn chunk(&self, delta: Value, finish: Option<&str>) -> String {
        line(&json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created,
            "model": self.model,
            "choices": [{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish }],
        }))
    }

    fn arguments(&self, number: usize, piece: &str) -> String {
        let call = json!({ "index": number, "function": { "arguments": piece } });
        self.chunk(json!({ "tool_calls": [call] }), None)
    }

    fn usage(&self, used: &Usage) -> Value {
        json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created,
            "model": self.model, "choices": [], "usage": usage(used),
        })
    }
}

impl Lines for Chunks {
    fn event(&mut self, event: Event, out: &mut String) -> bool {
        match event {
            Event::Began { id: message, .. } => {
                self.id = id(message.as_deref().unwrap_or_default());
                out.push_str(&self.chunk(json!({ "role": "assistant", "content": "" }), None));
            }
            Event::Text { text, .. } => {
                out.push_str(&self.chunk(json!({ "content": text }), None));
            }
            Event::BlockStart { index, block } if block["type"] == "tool_use" => {
                let number = self.calls.len();
                self.calls.insert(index, (number, false));
                let call = json!({ "index": number, "id": block["id"], "type": "function",
                    "function": { "name": block["name"], "arguments": "" } });
                out.push_str(&self.chunk(json!({ "tool_calls": [call] }), None));
            }
            Event::Input { index, json: piece } if !piece.is_empty() => {
                if let Some((number, has)) = self.calls.get_mut(&index) {
                    *has = true;
                    let number = *number;
                    out.push_str(&self.arguments(number, &piece));
                }
            }
            Event::BlockEnd { index } => {
                // A tool without parameters is called with an empty object, not with nothing.
                if let Some((number, false)) = self.calls.get(&index) {
                    out.push_str(&self.arguments(*number, "{}"));
                }
            }
            Event::TurnEnd { stop, usage: used, .. } => {
                out.push_str(&self.chunk(json!({}), Some(finish(&stop))));
                if self.wants_usage {
                    out.push_str(&line(&self.usage(&used)));
                }
                out.push_str("data: [DONE]\n\n");
                return true;
            }
            Event::Error { kind, message, .. } => {
                self.failed(&kind, &message, out);
                return true;
            }
            // What keeps the connection awake there does so here.
            Event::Ping { .. } => out.push_str(": ping\n\n"),
            _ => {}
        }
        false
    }

    fn failed(&mut self, kind: &str, message: &str, out: &mut String) {
        let error = json!({ "error": {
            "message": message, "type": kind, "param": null, "code": null } });
        out.push_str(&line(&error));
    }
}

fn line(value: &Value) -> String {
    format!("data: {value}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_without_arguments_has_an_empty_object() {
        let mut chunks = Chunks::new("m".into(), 7, false);
        let mut out = String::new();
        let tool = |name: &str| json!({ "type": "tool_use", "id": "t", "name": name });
        for event in [
            Event::BlockStart { index: 0, block: tool("none") },
            Event::Input { index: 0, json: String::new() },
            Event::BlockEnd { index: 0 },
            Event::BlockStart { index: 1, block: tool("some") },
            Event::Input { index: 1, json: "{\"a\":".into() },
            Event::Input { index: 1, json: "1}".into() },
            Event::BlockEnd { index: 1 },
        ] {
            assert!(!chunks.event(event, &mut out));
        }
        let mut arguments = [String::new(), String::new()];
        for line in out.split("\n\n").filter_map(|line| line.strip_prefix("data: ")) {
            let chunk: Value = serde_json::from_str(line).unwrap();
            let call = &chunk["choices"][0]["delta"]["tool_calls"][0];
            let number = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            arguments[number] += call["function"]["arguments"].as_str().unwrap();
        }
        assert_eq!(arguments, ["{}", "{\"a\":1}"]);
    }
}
