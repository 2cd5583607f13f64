//! The reply: server-sent events whose data is `{"text": "..."}`, and at last `{"stop": "..."}`.

use moltbot_core::{Decoder, DecoderMode, Event, SseEvent, SseSplitter, Usage};
use serde_json::{Value, json};

/// The longest event that is kept, in bytes.
const LIMIT: usize = 1 << 20;

/// Decodes one reply.
pub(crate) struct Lines {
    mode: DecoderMode,
    splitter: SseSplitter,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Waiting,
    Talking,
    Over,
}

impl Lines {
    /// Starts a decoder.
    pub(crate) fn new(mode: DecoderMode) -> Self {
        Self { mode, splitter: SseSplitter::new(LIMIT), state: State::Waiting }
    }

    fn events(&mut self, found: Vec<SseEvent>, events: &mut Vec<Event>) {
        for SseEvent { data, end: at, .. } in found {
            // What is not understood is skipped: a newer service may say more.
            let Ok(value) = serde_json::from_str::<Value>(&data) else { continue };
            if self.state == State::Over {
                return;
            }
            let full = self.mode == DecoderMode::Full;
            if let Some(text) = value["text"].as_str() {
                if self.state == State::Waiting {
                    self.state = State::Talking;
                    events.push(Event::Began { at, id: None, model: None, usage: Usage::default() });
                    if full {
                        let block = json!({ "type": "text", "text": "" });
                        events.push(Event::BlockStart { index: 0, block });
                    }
                }
                if full {
                    events.push(Event::Text { index: 0, text: text.to_string() });
                }
            }
            if let Some(stop) = value["stop"].as_str() {
                if full && self.state == State::Talking {
                    events.push(Event::BlockEnd { index: 0 });
                }
                self.state = State::Over;
                events.push(Event::TurnEnd { at, stop: stop.to_string(), usage: Usage::default() });
            }
        }
    }
}

impl Decoder for Lines {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) {
        let mut found = Vec::new();
        self.splitter.push(bytes, &mut |event| found.push(event));
        self.events(found, events);
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        let mut found = Vec::new();
        self.splitter.end(&mut |event| found.push(event));
        self.events(found, events);
        if self.state != State::Over {
            self.state = State::Over;
            events.push(Event::Error {
                at: self.splitter.seen(),
                kind: "incomplete".to_string(),
                message: "the reply broke off".to_string(),
                body: Value::Null,
            });
        }
    }
}
