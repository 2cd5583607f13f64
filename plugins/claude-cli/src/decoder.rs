//! Reads what the program says: one JSON object per line, over all turns of one process.
//!
//! The lines of type `stream_event` hold the service's own events. A turn is over with the line of
//! type `result`, after which the process waits for the next one. Lines and members that are not
//! known here are ignored.

use moltbot_core::{Decoder, DecoderMode, Event, Usage};
use serde_json::{Value, json};

use crate::version;

/// The longest line: a message with a large block comes whole.
const LINE_LIMIT: usize = 32 << 20;

/// How much of a message is kept for people, in characters.
const WORDS: usize = 1_000;

/// The word for a session that was to be gone on with and is not there.
pub(crate) const NO_SESSION: &str = "no_session";

/// Decodes one process and all its turns.
pub(crate) struct Lines {
    mode: DecoderMode,
    line: Vec<u8>,
    /// Bytes up to the end of the last whole line.
    at: u64,
    /// Set after an error: nothing follows it.
    over: bool,
    /// Whether a turn has ended and none has begun since.
    idle: bool,
    turn: Turn,
    /// What all turns so far would have cost, in US dollars.
    paid: f64,
}

/// What is known of one turn. With tools of the program it has several messages.
#[derive(Default)]
struct Turn {
    began: bool,
    in_message: bool,
    /// The number of the current message's first block.
    base: usize,
    /// The number of the next block that has not been used.
    next: usize,
    /// Blocks of the current message that are the program's own business.
    hidden: Vec<u64>,
    stop: String,
    usage: Usage,
    /// The program's word for what went wrong.
    error: Option<String>,
    limit: Value,
}

impl Lines {
    pub(crate) fn new(mode: DecoderMode) -> Self {
        let turn = Turn::default();
        Self { mode, line: Vec::new(), at: 0, over: false, idle: false, turn, paid: 0.0 }
    }

    fn fail(&mut self, at: u64, kind: &str, message: &str, body: Value, events: &mut Vec<Event>) {
        self.over = true;
        self.line = Vec::new();
        let message = message.chars().take(WORDS).collect();
        events.push(Event::Error { at, kind: kind.into(), message, body });
    }

    fn take_line(&mut self, events: &mut Vec<Event>) {
        let before = self.at;
        self.at += self.line.len() as u64 + 1;
        let line = std::mem::take(&mut self.line);
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let said: Value = match serde_json::from_slice(&line) {
            Ok(said @ Value::Object(_)) => said,
            _ => {
                let message = "claude wrote a line that is no JSON object";
                self.fail(before, "malformed", message, Value::Null, events);
                return;
            }
        };
        match said["type"].as_str().unwrap_or_default() {
            "stream_event" if said["parent_tool_use_id"].is_null() => {
                self.stream(before, said, events);
            }
            "system" if said["subtype"] == "init" => {
                let version = said["claude_code_version"].as_str().unwrap_or("of no version");
                if let Some(why) = version::too_old(version) {
                    let body = json!({"error": "version", "message": why});
                    self.fail(before, "version", &why, body, events);
                }
            }
            "assistant" if said["parent_tool_use_id"].is_null() => {
                if let Some(error) = said["error"].as_str() {
                    self.turn.error = Some(error.to_string());
                }
            }
            "rate_limit_event" => self.turn.limit = said["rate_limit_info"].clone(),
            "control_request" => answer(&said, events),
            "result" => self.result(before, &said, events),
            _ => {}
        }
    }

    fn stream(&mut self, before: u64, mut said: Value, events: &mut Vec<Event>) {
        self.idle = false;
        let full = self.mode == DecoderMode::Full;
        let event = said["event"].take();
        let turn = &mut self.turn;
        let kind = event["type"].as_str().unwrap_or_default().to_string();
        match kind.as_str() {
            "message_start" => {
                if turn.in_message && turn.next > turn.base {
                    let message = "claude began the reply anew after a part of it";
                    self.fail(before, "restarted", message, Value::Null, events);
                    return;
                }
                turn.in_message = true;
                turn.base = turn.next;
                turn.hidden.clear();
                let message = &event["message"];
                turn.usage.merge(&usage(&message["usage"]));
                if !std::mem::replace(&mut turn.began, true) {
                    let text = |name: &str| message[name].as_str().map(str::to_string);
                    let (id, model, usage) = (text("id"), text("model"), turn.usage);
                    events.push(Event::Began { at: self.at, id, model, usage });
                }
            }
            "message_delta" => {
                turn.usage.merge(&usage(&event["usage"]));
                if let Some(stop) = event["delta"]["stop_reason"].as_str() {
                    turn.stop = stop.to_string();
                }
            }
            "message_stop" => turn.in_message = false,
            "ping" => events.push(Event::Ping { at: self.at }),
            kind => {
                if let Some(event) = turn.block(kind, event).filter(|_| full) {
                    events.push(event);
                }
            }
        }
    }

    fn result(&mut self, before: u64, said: &Value, events: &mut Vec<Event>) {
        let words = said["result"].as_str().or(said["errors"][0].as_str()).unwrap_or_default();
        if said["is_error"] == true || said["subtype"] != "success" {
            let kind = match (&self.turn.error, said["subtype"].as_str()) {
                _ if words.starts_with("No conversation found") => NO_SESSION.to_string(),
                (Some(error), _) => error.clone(),
                (None, Some(subtype)) if subtype != "success" => subtype.to_string(),
                _ => "unknown".to_string(),
            };
            let body = json!({
                "error": kind,
                "status": said["api_error_status"],
                "message": words.chars().take(WORDS).collect::<String>(),
                "limit": self.turn.limit,
            });
            let words = if words.is_empty() { "claude reported an error" } else { words };
            self.fail(before, &kind, words, body, events);
            return;
        }
        let mut turn = std::mem::take(&mut self.turn);
        if !turn.began {
            // Answered by the program itself, without a request.
            events.push(Event::Began {
                at: self.at,
                id: None,
                model: None,
                usage: Usage::default(),
            });
            if self.mode == DecoderMode::Full && !words.is_empty() {
                let block = json!({"type": "text", "text": ""});
                events.push(Event::BlockStart { index: 0, block });
                events.push(Event::Text { index: 0, text: words.to_string() });
                events.push(Event::BlockEnd { index: 0 });
            }
        }
        turn.usage.merge(&usage(&said["usage"]));
        let stop = said["stop_reason"].as_str().map_or(turn.stop, str::to_string);
        if let Some(total) = said["total_cost_usd"].as_f64() {
            // It counts from the start of the process.
            let dollars = (total - self.paid).max(0.0);
            self.paid = total;
            events.push(Event::Cost { dollars });
        }
        self.idle = true;
        events.push(Event::TurnEnd { at: self.at, stop, usage: turn.usage });
    }
}

impl Turn {
    /// Translates an event of a block; `None` if it is the program's own business or has no place.
    fn block(&mut self, kind: &str, mut event: Value) -> Option<Event> {
        let place = event["index"].as_u64()?;
        let index = self.base.checked_add(usize::try_from(place).ok()?)?;
        match kind {
            "content_block_start" => {
                self.next = self.next.max(index.saturating_add(1));
                let block = event["content_block"].take();
                // The program runs its tools itself; nobody else may answer them.
                if block["type"] == "tool_use" {
                    self.hidden.push(place);
                    return None;
                }
                Some(Event::BlockStart { index, block })
            }
            _ if self.hidden.contains(&place) => None,
            "content_block_delta" => Some(delta(index, event["delta"].take())),
            "content_block_stop" => Some(Event::BlockEnd { index }),
            _ => None,
        }
    }
}

impl Decoder for Lines {
    fn push(&mut self, mut bytes: &[u8], events: &mut Vec<Event>) {
        while !self.over {
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                self.line.extend_from_slice(bytes);
                if self.line.len() > LINE_LIMIT {
                    let message = "claude wrote a line longer than 32 MiB";
                    self.fail(self.at, "oversized", message, Value::Null, events);
                }
                return;
            };
            if self.line.len() + end > LINE_LIMIT {
                let message = "claude wrote a line longer than 32 MiB";
                self.fail(self.at, "oversized", message, Value::Null, events);
                return;
            }
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.take_line(events);
        }
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        if self.over || (self.idle && self.line.is_empty()) {
            return;
        }
        let message = "claude ended before its answer was complete";
        self.fail(self.at, "incomplete", message, Value::Null, events);
    }
}

/// Answers what the program asks: no. Whatever it may do was said when it was started.
fn answer(said: &Value, events: &mut Vec<Event>) {
    let Some(id) = said["request_id"].as_str() else { return };
    let response = match said["request"]["subtype"].as_str() {
        Some("can_use_tool") => json!({
            "subtype": "success", "request_id": id,
            "response": {"behavior": "deny", "message": "not allowed by the configuration"},
        }),
        _ => json!({"subtype": "error", "request_id": id, "error": "not supported"}),
    };
    let answer = json!({"type": "control_response", "response": response});
    events.push(Event::Write { text: format!("{answer}\n") });
}

fn delta(index: usize, mut delta: Value) -> Event {
    let field = match delta["type"].as_str() {
        Some("text_delta") => "text",
        Some("thinking_delta") => "thinking",
        Some("input_json_delta") => "partial_json",
        _ => return Event::Delta { index, delta },
    };
    match delta.get_mut(field).map(Value::take) {
        Some(Value::String(text)) => match field {
            "text" => Event::Text { index, text },
            "thinking" => Event::Thinking { index, text },
            _ => Event::Input { index, json: text },
        },
        _ => Event::Delta { index, delta },
    }
}

/// Reads a `usage` object. Figures that are missing or no count stay unknown.
fn usage(usage: &Value) -> Usage {
    let count = |name: &str| usage[name].as_u64();
    let split = |name: &str| usage["cache_creation"][name].as_u64();
    Usage {
        input: count("input_tokens"),
        output: count("output_tokens"),
        cache_read: count("cache_read_input_tokens"),
        cache_write: count("cache_creation_input_tokens"),
        cache_write_5m: split("ephemeral_5m_input_tokens"),
        cache_write_1h: split("ephemeral_1h_input_tokens"),
    }
}
