//! A streamed Messages reply as chunks of a chat completion, written while it comes.

use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use moltbot_core::{Decoder, Event, Usage};
use serde_json::{Value, json};

use super::reply::{finish, id, usage};
use crate::door::body::BodyError;
use crate::door::relay::Relay;

/// The body of a streamed reply.
pub(crate) struct Stream {
    relay: Box<Relay>,
    writer: Writer,
    over: bool,
}

/// Turns events into lines. Pure.
struct Writer {
    decoder: Box<dyn Decoder>,
    events: Vec<Event>,
    id: String,
    model: String,
    created: i64,
    wants_usage: bool,
    /// The number of each tool call, by its block.
    calls: HashMap<usize, usize>,
    done: bool,
}

impl Stream {
    pub(super) fn new(
        relay: Box<Relay>,
        decoder: Box<dyn Decoder>,
        model: String,
        created: i64,
        wants_usage: bool,
    ) -> Self {
        let writer = Writer {
            decoder,
            events: Vec::new(),
            id: String::new(),
            model,
            created,
            wants_usage,
            calls: HashMap::new(),
            done: false,
        };
        Self { relay, writer, over: false }
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        while !this.over {
            let lines = match ready!(this.relay.poll_next(cx)) {
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    this.writer.push(&data)
                }
                Some(Err(error)) => {
                    this.over = true;
                    this.writer.broke(&error.to_string())
                }
                None => {
                    this.over = true;
                    this.writer.end()
                }
            };
            if !lines.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(lines.into()))));
            }
        }
        Poll::Ready(None)
    }
}

impl Writer {
    fn push(&mut self, bytes: &[u8]) -> String {
        self.decoder.push(bytes, &mut self.events);
        self.take()
    }

    fn end(&mut self) -> String {
        self.decoder.end(&mut self.events);
        self.take()
    }

    fn broke(&mut self, message: &str) -> String {
        let error = json!({ "error": { "message": message, "type": "api_error" } });
        if std::mem::replace(&mut self.done, true) { String::new() } else { line(&error) }
    }

    fn take(&mut self) -> String {
        let mut out = String::new();
        for event in std::mem::take(&mut self.events) {
            if !self.done {
                self.event(event, &mut out);
            }
        }
        out
    }

    fn event(&mut self, event: Event, out: &mut String) {
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
                self.calls.insert(index, number);
                let call = json!({ "index": number, "id": block["id"], "type": "function",
                    "function": { "name": block["name"], "arguments": "" } });
                out.push_str(&self.chunk(json!({ "tool_calls": [call] }), None));
            }
            Event::Input { index, json: piece } => {
                let Some(number) = self.calls.get(&index).filter(|_| !piece.is_empty()) else {
                    return;
                };
                let call = json!({ "index": number, "function": { "arguments": piece } });
                out.push_str(&self.chunk(json!({ "tool_calls": [call] }), None));
            }
            Event::TurnEnd { stop, usage: used, .. } => {
                out.push_str(&self.chunk(json!({}), Some(finish(&stop))));
                if self.wants_usage {
                    out.push_str(&line(&self.usage(&used)));
                }
                out.push_str("data: [DONE]\n\n");
                self.done = true;
            }
            Event::Error { kind, message, .. } => {
                let error = json!({ "error": {
                    "message": message, "type": kind, "param": null, "code": null } });
                out.push_str(&line(&error));
                self.done = true;
            }
            // What keeps the connection awake there does so here.
            Event::Ping { .. } => out.push_str(": ping\n\n"),
            _ => {}
        }
    }

    fn chunk(&self, delta: Value, finish: Option<&str>) -> String {
        line(&json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created,
            "model": self.model,
            "choices": [{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish }],
        }))
    }

    fn usage(&self, used: &Usage) -> Value {
        json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created,
            "model": self.model, "choices": [], "usage": usage(used),
        })
    }
}

fn line(value: &Value) -> String {
    format!("data: {value}\n\n")
}
