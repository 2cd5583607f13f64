//! A reply as a response: the events of a stream, and the object that they add up to. Pure.

use std::collections::BTreeMap;

use moltbot_core::{Decoder, Event, Usage};
use serde_json::{Map, Value, json};

use super::request::is_shown;
use super::{inner_name, sealed};
use crate::door::error::Refusal;
use crate::door::openai::reply::short_id;
use crate::door::openai::stream::Lines;

/// Writes one response.
pub(in super::super) struct Writer {
    /// What of the response is known from its request.
    shell: Map<String, Value>,
    /// The id of the message behind it.
    id: String,
    began: bool,
    /// Whether thoughts are shown.
    shown: bool,
    /// Namespaces and names of their functions, by what the service calls them.
    names: BTreeMap<String, (Value, Value)>,
    /// The number of the next event.
    number: u64,
    /// The items of the response, in order.
    items: Vec<Value>,
    /// The items that go on, by their block.
    open: BTreeMap<usize, Open>,
    usage: Usage,
}

/// An item that goes on.
struct Open {
    /// Its place among the items.
    place: usize,
    kind: Kind,
    text: String,
    /// For thoughts: the block as the service needs it back.
    block: Value,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Message,
    Call,
    Thought,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Message => "msg",
            Self::Call => "fc",
            Self::Thought => "rs",
        }
    }
}

impl Writer {
    /// Begins a response to a request, by a model that the client named so.
    pub(in super::super) fn new(sent: &Value, model: &str, created: i64) -> Self {
        Self {
            shell: shell(sent, model, created),
            id: String::new(),
            began: false,
            shown: is_shown(sent),
            names: names(sent),
            number: 0,
            items: Vec::new(),
            open: BTreeMap::new(),
            usage: Usage::default(),
        }
    }

    /// Turns a whole reply into the response.
    pub(in super::super) fn whole(
        mut self,
        reply: &[u8],
        mut decoder: Box<dyn Decoder>,
    ) -> Result<Value, Refusal> {
        let mut events = Vec::new();
        decoder.push(reply, &mut events);
        decoder.end(&mut events);
        let mut lines = String::new();
        for event in events {
            match event {
                Event::Error { message, .. } => return Err(Refusal::upstream(message)),
                Event::TurnEnd { stop, usage, .. } => {
                    return Ok(self.end(&stop, &usage, &mut lines));
                }
                event => {
                    self.event(event, &mut lines);
                }
            }
            lines.clear();
        }
        Err(Refusal::upstream("the service answered something that is no message"))
    }

    fn say(&mut self, kind: &str, mut event: Value, out: &mut String) {
        event["type"] = kind.into();
        event["sequence_number"] = self.number.into();
        self.number += 1;
        out.push_str(&format!("event: {kind}\ndata: {event}\n\n"));
    }

    fn begin(&mut self, id: Option<&str>, out: &mut String) {
        if std::mem::replace(&mut self.began, true) {
            return;
        }
        self.id = short_id(id.unwrap_or_default()).to_string();
        let response = self.object("in_progress");
        self.say("response.created", json!({ "response": response }), out);
        self.say("response.in_progress", json!({ "response": response }), out);
    }

    /// Begins an item and says so; a thought of its own is a block.
    fn start(&mut self, index: usize, kind: Kind, block: Value, out: &mut String) {
        let place = self.items.len();
        let id = format!("{}_{}_{place}", kind.prefix(), self.id);
        let item = match kind {
            Kind::Message => json!({ "id": id, "type": "message", "status": "in_progress",
                "role": "assistant", "content": [] }),
            Kind::Call => {
                let mut item = json!({ "id": id, "type": "function_call",
                    "status": "in_progress", "call_id": block["id"], "name": block["name"],
                    "arguments": "" });
                let known = block["name"].as_str().and_then(|name| self.names.get(name));
                if let Some((namespace, name)) = known {
                    (item["namespace"], item["name"]) = (namespace.clone(), name.clone());
                }
                item
            }
            Kind::Thought => json!({ "id": id, "type": "reasoning", "summary": [] }),
        };
        self.say("response.output_item.added", json!({ "output_index": place, "item": item }), out);
        self.items.push(item);
        self.open.insert(index, Open { place, kind, text: String::new(), block });
        if kind == Kind::Message {
            let part = json!({ "content_index": 0, "part": part("") });
            self.of(place, "response.content_part.added", part, out);
        }
    }

    /// Says something of an item.
    fn of(&mut self, place: usize, kind: &str, mut event: Value, out: &mut String) {
        event["item_id"] = self.items[place]["id"].clone();
        event["output_index"] = place.into();
        self.say(kind, event, out);
    }

    fn more(&mut self, index: usize, piece: &str, out: &mut String) {
        let Some(open) = self.open.get_mut(&index).filter(|_| !piece.is_empty()) else { return };
        let (first, place) = (open.text.is_empty(), open.place);
        open.text.push_str(piece);
        match open.kind {
            Kind::Message => {
                let event = json!({ "content_index": 0, "delta": piece, "logprobs": [] });
                self.of(place, "response.output_text.delta", event, out);
            }
            Kind::Call => {
                let event = json!({ "delta": piece });
                self.of(place, "response.function_call_arguments.delta", event, out);
            }
            Kind::Thought if self.shown => {
                if first {
                    let part = json!({ "summary_index": 0, "part": summary("") });
                    self.of(place, "response.reasoning_summary_part.added", part, out);
                }
                let event = json!({ "summary_index": 0, "delta": piece });
                self.of(place, "response.reasoning_summary_text.delta", event, out);
            }
            Kind::Thought => {}
        }
    }

    /// Ends an item and says so.
    fn finish(&mut self, index: usize, out: &mut String) {
        if self.open.get(&index).is_some_and(|o| o.kind == Kind::Call && o.text.is_empty()) {
            // A tool without parameters is called with an empty object, not with nothing.
            self.more(index, "{}", out);
        }
        let Some(open) = self.open.remove(&index) else { return };
        let (place, kind, text) = (open.place, open.kind, open.text.clone());
        self.fill(open, "completed");
        match kind {
            Kind::Message => {
                let event = json!({ "content_index": 0, "text": text, "logprobs": [] });
                self.of(place, "response.output_text.done", event, out);
                let event = json!({ "content_index": 0, "part": part(&text) });
                self.of(place, "response.content_part.done", event, out);
            }
            Kind::Call => {
                let event = json!({ "arguments": text });
                self.of(place, "response.function_call_arguments.done", event, out);
            }
            Kind::Thought if self.shown && !text.is_empty() => {
                let event = json!({ "summary_index": 0, "text": text });
                self.of(place, "response.reasoning_summary_text.done", event, out);
                let event = json!({ "summary_index": 0, "part": summary(&text) });
                self.of(place, "response.reasoning_summary_part.done", event, out);
            }
            Kind::Thought => {}
        }
        let event = json!({ "output_index": place, "item": self.items[place] });
        self.say("response.output_item.done", event, out);
    }

    /// Writes into an item what has come of it.
    fn fill(&mut self, open: Open, status: &str) {
        let Open { place, kind, text, mut block } = open;
        let item = &mut self.items[place];
        match kind {
            Kind::Message => {
                item["content"] = json!([part(&text)]);
                item["status"] = status.into();
            }
            Kind::Call => {
                item["arguments"] = text.into();
                item["status"] = status.into();
            }
            Kind::Thought => {
                if self.shown && !text.is_empty() {
                    item["summary"] = json!([summary(&text)]);
                }
                if block["type"] == "thinking" {
                    block["thinking"] = text.into();
                }
                // One that was cut off has no signature, so that it is of no use to the service.
                let whole = block["type"] != "thinking" || block["signature"].is_string();
                item["encrypted_content"] = if whole { sealed(&block).into() } else { Value::Null };
            }
        }
    }

    /// Ends the response and returns it.
    fn end(&mut self, stop: &str, usage: &Usage, out: &mut String) -> Value {
        self.begin(None, out);
        self.usage = *usage;
        let left: Vec<usize> = self.open.keys().copied().collect();
        for index in left {
            self.finish(index, out);
        }
        let reason = match stop {
            "max_tokens" | "model_context_window_exceeded" => Some("max_output_tokens"),
            "refusal" => Some("content_filter"),
            _ => None,
        };
        let status = if reason.is_some() { "incomplete" } else { "completed" };
        let mut response = self.object(status);
        response["usage"] = self::usage(&self.usage);
        if let Some(reason) = reason {
            response["incomplete_details"] = json!({ "reason": reason });
        }
        let kind = format!("response.{status}");
        self.say(&kind, json!({ "response": response }), out);
        response
    }

    fn object(&self, status: &str) -> Value {
        let mut object = self.shell.clone();
        object.insert("id".into(), format!("resp_{}", self.id).into());
        object.insert("status".into(), status.into());
        object.insert("output".into(), self.items.clone().into());
        object.into()
    }
}

impl Lines for Writer {
    fn event(&mut self, event: Event, out: &mut String) -> bool {
        match event {
            Event::Began { id, .. } => self.begin(id.as_deref(), out),
            Event::BlockStart { index, mut block } => match block["type"].as_str() {
                Some("tool_use") => self.start(index, Kind::Call, block, out),
                Some("thinking" | "redacted_thinking") => {
                    // An empty one is none: the signature comes last.
                    if block["signature"] == "" {
                        block.as_object_mut().map(|block| block.remove("signature"));
                    }
                    self.start(index, Kind::Thought, block, out);
                }
                _ => {}
            },
            Event::Text { index, text } if !text.is_empty() => {
                if !self.open.contains_key(&index) {
                    self.start(index, Kind::Message, Value::Null, out);
                }
                self.more(index, &text, out);
            }
            Event::Thinking { index, text } => self.more(index, &text, out),
            Event::Input { index, json } => self.more(index, &json, out),
            Event::Delta { index, delta } if delta["type"] == "signature_delta" => {
                if let Some(open) = self.open.get_mut(&index) {
                    let before = open.block["signature"].as_str().unwrap_or_default();
                    let more = delta["signature"].as_str().unwrap_or_default();
                    open.block["signature"] = format!("{before}{more}").into();
                }
            }
            Event::BlockEnd { index } => self.finish(index, out),
            Event::TurnEnd { stop, usage, .. } => {
                self.end(&stop, &usage, out);
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
        self.begin(None, out);
        for (_, open) in std::mem::take(&mut self.open) {
            self.fill(open, "incomplete");
        }
        let code = match kind {
            "rate_limit_error" => "rate_limit_exceeded",
            "invalid_request_error" => "invalid_prompt",
            _ => "server_error",
        };
        let mut response = self.object("failed");
        response["error"] = json!({ "code": code, "message": message });
        self.say("response.failed", json!({ "response": response }), out);
    }
}

fn names(sent: &Value) -> BTreeMap<String, (Value, Value)> {
    let tools = sent["tools"].as_array().into_iter().flatten();
    let spaces = tools.filter(|tool| tool["type"] == "namespace");
    let named = spaces.flat_map(|space| {
        let parts = space["tools"].as_array().into_iter().flatten();
        parts.filter_map(|part| {
            let inner = inner_name(&space["name"], &part["name"]);
            Some((inner.as_str()?.to_string(), (space["name"].clone(), part["name"].clone())))
        })
    });
    named.collect()
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

fn summary(text: &str) -> Value {
    json!({ "type": "summary_text", "text": text })
}

fn usage(used: &Usage) -> Value {
    json!({
        "input_tokens": used.all_input(),
        "input_tokens_details": {
            "cached_tokens": used.cache_read.unwrap_or(0),
            "cache_write_tokens": used.cache_write.unwrap_or(0),
        },
        "output_tokens": used.output.unwrap_or(0),
        // The service does not tell how many of them were thoughts.
        "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": used.total(),
    })
}

/// Repeats what a client asked for, as the service that it knows does.
fn shell(sent: &Value, model: &str, created: i64) -> Map<String, Value> {
    let or = |name: &str, usual: Value| match &sent[name] {
        Value::Null => usual,
        said => said.clone(),
    };
    let reasoning = json!({
        "effort": sent["reasoning"]["effort"], "summary": sent["reasoning"]["summary"] });
    let shell = json!({
        "id": "", "object": "response", "created_at": created, "status": "in_progress",
        "background": false, "error": null, "incomplete_details": null,
        "instructions": sent["instructions"], "max_output_tokens": sent["max_output_tokens"],
        "max_tool_calls": null, "model": model, "output": [],
        "parallel_tool_calls": or("parallel_tool_calls", true.into()),
        "previous_response_id": null, "prompt_cache_key": sent["prompt_cache_key"],
        "reasoning": reasoning, "safety_identifier": sent["safety_identifier"],
        "service_tier": "default", "store": false, "temperature": or("temperature", json!(1.0)),
        "text": or("text", json!({ "format": { "type": "text" } })),
        "tool_choice": or("tool_choice", "auto".into()), "tools": or("tools", json!([])),
        "top_logprobs": 0, "top_p": or("top_p", json!(1.0)), "truncation": "disabled",
        "usage": null, "user": sent["user"], "metadata": or("metadata", json!({})),
    });
    match shell {
        Value::Object(shell) => shell,
        _ => Map::new(),
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
