//! Turns the bytes of a reply into events: server-sent events, or one JSON object.
//!
//! Which of the two it is shows in the first byte, so that no header has to be trusted.

use std::borrow::Cow;

use moltbot_core::{Decoder, DecoderMode, Event, SseEvent, SseSplitter, Usage, first_event};
use serde::Deserialize;
use serde_json::Value;

use crate::glance;
use crate::message::{self, INCOMPLETE, MALFORMED};

/// The longest event of a stream: a block of a result can be a whole file.
const EVENT_LIMIT: usize = 32 << 20;
/// The longest JSON reply.
const JSON_LIMIT: usize = 64 << 20;
/// A reply that is longer than anything the service sends.
const OVERSIZED: &str = "oversized";

/// Decodes one reply.
pub(crate) struct MessagesDecoder {
    form: Form,
    turn: Turn,
}

/// What the reply turned out to be.
enum Form {
    /// Nothing but white space and byte order marks so far.
    Blank(Vec<u8>),
    Sse(SseSplitter),
    Json(Vec<u8>),
}

impl MessagesDecoder {
    /// Starts before the first byte.
    pub(crate) fn new(mode: DecoderMode) -> Self {
        Self { form: Form::Blank(Vec::new()), turn: Turn::new(mode) }
    }
}

impl Decoder for MessagesDecoder {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) {
        if self.turn.over {
            return;
        }
        match &mut self.form {
            Form::Blank(held) => {
                let is_blank =
                    |byte: &u8| byte.is_ascii_whitespace() || b"\xef\xbb\xbf".contains(byte);
                let Some(first) = bytes.iter().find(|byte| !is_blank(byte)) else {
                    held.extend_from_slice(bytes);
                    return;
                };
                let held = std::mem::take(held);
                self.form = match first {
                    b'{' => Form::Json(Vec::new()),
                    _ => Form::Sse(SseSplitter::new(EVENT_LIMIT)),
                };
                self.push(&held, events);
                self.push(bytes, events);
            }
            Form::Sse(splitter) => {
                let turn = &mut self.turn;
                let mut rest = bytes;
                while turn.mode == DecoderMode::Observe && !rest.is_empty() {
                    // Most of a stream is pieces of blocks, which an observer does not read.
                    let skipped = splitter.skip(rest, b"event: content_block_");
                    if skipped > 0 {
                        turn.at = splitter.seen();
                    }
                    rest = &rest[skipped..];
                    let Some(length) = first_event(rest) else { break };
                    splitter.push(&rest[..length], &mut |event| turn.event(&event, events));
                    rest = &rest[length..];
                }
                splitter.push(rest, &mut |event| turn.event(&event, events));
                if splitter.oversized() > 0 && turn.mode == DecoderMode::Full {
                    let message = "an event of the reply is too large";
                    turn.fail(message::broken(turn.at, OVERSIZED, message), events);
                }
            }
            Form::Json(text) if text.len() + bytes.len() > JSON_LIMIT => {
                text.clear();
                self.turn.fail(message::broken(0, OVERSIZED, "the reply is too large"), events);
            }
            Form::Json(text) => text.extend_from_slice(bytes),
        }
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        if let Form::Sse(splitter) = &mut self.form {
            let turn = &mut self.turn;
            splitter.end(&mut |event| turn.event(&event, events));
        }
        if self.turn.over {
            return;
        }
        self.turn.over = true;
        match &self.form {
            Form::Json(held) => {
                let from = held.iter().position(|byte| *byte == b'{').unwrap_or(0);
                let (text, length) = (&held[from..], held.len() as u64);
                let blocks = self.turn.mode == DecoderMode::Full;
                if blocks || !glance::whole(text, length, events) {
                    message::whole(text, length, blocks, events);
                }
            }
            Form::Blank(_) | Form::Sse(_) => {
                let message = "the reply ended before it was complete";
                events.push(message::broken(self.turn.at, INCOMPLETE, message));
            }
        }
    }
}

/// What is known of the turn so far.
struct Turn {
    mode: DecoderMode,
    /// Bytes up to the end of the last whole event.
    at: u64,
    began: bool,
    over: bool,
    stop: String,
    usage: Usage,
}

/// The member of an event's data that names it, for streams without `event:` lines.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
}

impl Turn {
    fn new(mode: DecoderMode) -> Self {
        Self {
            mode,
            at: 0,
            began: false,
            over: false,
            stop: String::new(),
            usage: Usage::default(),
        }
    }

    fn fail(&mut self, error: Event, events: &mut Vec<Event>) {
        if !self.over {
            self.over = true;
            events.push(error);
        }
    }

    /// Takes one event. Unknown ones are ignored (spec T-22); nothing follows an end or an error.
    fn event(&mut self, event: &SseEvent, events: &mut Vec<Event>) {
        if self.over {
            return;
        }
        let before = std::mem::replace(&mut self.at, event.end);
        let name = match event.name.as_str() {
            "" => match serde_json::from_str::<Named<'_>>(&event.data) {
                Ok(named) => named.kind,
                Err(_) => return,
            },
            name => Cow::Borrowed(name),
        };
        match name.as_ref() {
            "ping" => events.push(Event::Ping { at: self.at }),
            "message_stop" => self.stopped(events),
            "message_start" | "message_delta" | "error" => {
                self.parsed(&name, before, &event.data, events);
            }
            "content_block_start" | "content_block_delta" | "content_block_stop"
                if self.mode == DecoderMode::Full =>
            {
                self.parsed(&name, before, &event.data, events);
            }
            _ => {}
        }
    }

    fn stopped(&mut self, events: &mut Vec<Event>) {
        self.over = true;
        let stop = std::mem::take(&mut self.stop);
        events.push(Event::TurnEnd { at: self.at, stop, usage: self.usage });
    }

    fn parsed(&mut self, name: &str, before: u64, data: &str, events: &mut Vec<Event>) {
        if name == "message_start"
            && let Some(started) = glance::started(data)
        {
            self.usage.merge(&started.usage);
            self.said(started.id, started.model, events);
            return;
        }
        if name == "message_delta"
            && let Some(change) = glance::change(data)
        {
            self.usage.merge(&change.usage);
            self.stop = change.stop.unwrap_or_else(|| std::mem::take(&mut self.stop));
            return;
        }
        let data: Value = match serde_json::from_str(data) {
            Ok(data) => data,
            // A client at a door judges for itself; an error is one even without a readable body.
            Err(_) if self.mode == DecoderMode::Observe && name != "error" => return,
            Err(_) => {
                let message = format!("the service sent an unreadable {name} event");
                self.fail(message::broken(before, MALFORMED, &message), events);
                return;
            }
        };
        match name {
            "message_start" => self.began(&data["message"], events),
            "message_delta" => {
                self.usage.merge(&message::usage(&data["usage"]));
                if let Some(stop) = data["delta"]["stop_reason"].as_str() {
                    self.stop = stop.to_string();
                }
            }
            "error" => self.fail(message::error(before, data), events),
            _ => block(name, data, events),
        }
    }

    fn began(&mut self, message: &Value, events: &mut Vec<Event>) {
        self.usage.merge(&message::usage(&message["usage"]));
        let text = |name: &str| message[name].as_str().map(str::to_string);
        self.said(text("id"), text("model"), events);
    }

    /// Reports the beginning, once.
    fn said(&mut self, id: Option<String>, model: Option<String>, events: &mut Vec<Event>) {
        if std::mem::replace(&mut self.began, true) {
            return;
        }
        events.push(Event::Began { at: self.at, id, model, usage: self.usage });
    }
}

/// Takes an event of one block; one without a place is ignored.
fn block(name: &str, mut data: Value, events: &mut Vec<Event>) {
    let Some(index) = data["index"].as_u64().and_then(|index| usize::try_from(index).ok()) else {
        return;
    };
    match name {
        "content_block_start" => {
            let block = data["content_block"].take();
            events.push(Event::BlockStart { index, block });
        }
        "content_block_delta" => events.push(delta(index, data["delta"].take())),
        _ => events.push(Event::BlockEnd { index }),
    }
}

fn delta(index: usize, mut delta: Value) -> Event {
    let field = match delta["type"].as_str() {
        Some("text_delta") => "text",
        Some("thinking_delta") => "thinking",
        Some("input_json_delta") => "partial_json",
        _ => return Event::Delta { index, delta },
    };
    // Indexing to write would panic on anything but an object; `type` above proves that it is one.
    match delta.get_mut(field).map(Value::take) {
        Some(Value::String(text)) => match field {
            "text" => Event::Text { index, text },
            "thinking" => Event::Thinking { index, text },
            _ => Event::Input { index, json: text },
        },
        _ => Event::Delta { index, delta },
    }
}
