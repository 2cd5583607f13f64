//! Turns the events of a reply into the message to keep: every block, unknown ones included.

use std::collections::BTreeMap;

use moltbot_core::{Event, Usage};
use serde_json::{Value, json};

use crate::turn::StopReason;

/// A reply as far as it has come. Pure; feed it every event.
///
/// ```
/// use moltbot_core::Event;
/// use moltbot_gateway::Transcript;
/// use serde_json::json;
/// let mut transcript = Transcript::default();
/// transcript.push(&Event::BlockStart { index: 0, block: json!({"type": "text", "text": ""}) });
/// transcript.push(&Event::Text { index: 0, text: "Hello".into() });
/// transcript.push(&Event::BlockEnd { index: 0 });
/// assert_eq!(transcript.text(), "Hello");
/// ```
#[derive(Debug, Default)]
pub struct Transcript {
    blocks: BTreeMap<usize, Block>,
    usage: Usage,
    stop: Option<String>,
    cost: Option<f64>,
    error: Option<(String, String)>,
}

#[derive(Debug)]
struct Block {
    value: Value,
    /// The pieces of a tool's input.
    input: String,
    ended: bool,
    /// Why the tool's input cannot be used.
    broken: Option<String>,
}

impl Transcript {
    /// Takes in one event.
    pub fn push(&mut self, event: &Event) {
        match event {
            Event::Began { usage, .. } => self.usage.merge(usage),
            Event::BlockStart { index, block } => {
                let block = Block {
                    value: block.clone(),
                    input: String::new(),
                    ended: false,
                    broken: None,
                };
                self.blocks.insert(*index, block);
            }
            Event::Text { index, text } => self.extend(*index, "text", text),
            Event::Thinking { index, text } => self.extend(*index, "thinking", text),
            Event::Input { index, json } => {
                if let Some(block) = self.blocks.get_mut(index) {
                    block.input.push_str(json);
                }
            }
            Event::Delta { index, delta } => self.delta(*index, delta),
            Event::BlockEnd { index } => {
                if let Some(block) = self.blocks.get_mut(index) {
                    block.end();
                }
            }
            Event::TurnEnd { stop, usage, .. } => {
                self.usage.merge(usage);
                self.stop = Some(stop.clone());
            }
            Event::Cost { dollars } => self.cost = Some(*dollars),
            Event::Error { kind, message, .. } => {
                self.error = Some((kind.clone(), message.clone()));
            }
            _ => {}
        }
    }

    /// Joins the text blocks.
    pub fn text(&self) -> String {
        let texts = self.blocks.values().filter(|block| block.value["type"] == "text");
        texts.filter_map(|block| block.value["text"].as_str()).collect()
    }

    /// Returns the blocks of the message, in order. Of a reply that broke off, a tool's unfinished
    /// input is left out: half of it means nothing.
    pub fn content(&self) -> Vec<Value> {
        let whole = |block: &&Block| block.ended || block.value["type"] != "tool_use";
        self.blocks.values().filter(whole).map(|block| block.value.clone()).collect()
    }

    /// Returns error results for the tools whose input was no JSON (spec T-23), to be sent instead
    /// of running them.
    pub fn tool_errors(&self) -> Vec<Value> {
        let broken = |block: &Block| {
            let reason = block.broken.as_ref()?;
            Some(json!({
                "type": "tool_result",
                "tool_use_id": block.value["id"],
                "is_error": true,
                "content": format!("The input of this tool was not valid JSON: {reason}"),
            }))
        };
        self.blocks.values().filter_map(broken).collect()
    }

    /// Returns the tokens known so far.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Returns how it ended; `None` while it goes on or if it broke off.
    pub fn stop(&self) -> Option<StopReason> {
        self.stop.as_deref().map(StopReason::of)
    }

    /// Returns what the reply cost by its author's own reckoning, in US dollars.
    pub fn cost(&self) -> Option<f64> {
        self.cost
    }

    /// Returns the service's word for the end.
    pub fn stop_word(&self) -> Option<&str> {
        self.stop.as_deref()
    }

    /// Returns kind and message of an error event.
    pub fn error(&self) -> Option<(&str, &str)> {
        self.error.as_ref().map(|(kind, message)| (kind.as_str(), message.as_str()))
    }

    /// Tells whether anything of the message has arrived.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    fn extend(&mut self, index: usize, member: &str, text: &str) {
        let Some(block) = self.blocks.get_mut(&index) else { return };
        match &mut block.value[member] {
            Value::String(held) => held.push_str(text),
            held => *held = Value::String(text.to_string()),
        }
    }

    fn delta(&mut self, index: usize, delta: &Value) {
        match delta["type"].as_str() {
            Some("signature_delta") => {
                self.extend(index, "signature", delta["signature"].as_str().unwrap_or_default());
            }
            Some("citations_delta") => {
                let Some(block) = self.blocks.get_mut(&index) else { return };
                match &mut block.value["citations"] {
                    Value::Array(held) => held.push(delta["citation"].clone()),
                    held => *held = json!([delta["citation"]]),
                }
            }
            // A delta of a newer service: the block keeps what it began with.
            _ => {}
        }
    }
}

impl Block {
    fn end(&mut self) {
        self.ended = true;
        if self.input.trim().is_empty() {
            return;
        }
        let parsed = serde_json::from_str::<Value>(&without_lone_surrogates(&self.input));
        self.value["input"] = match parsed {
            Ok(input @ Value::Object(_)) => input,
            Ok(_) => {
                self.broken = Some("it is no object".into());
                json!({})
            }
            Err(error) => {
                self.broken = Some(error.to_string());
                json!({})
            }
        };
    }
}

/// Removes `\uD8xx` escapes without their other half from JSON text: no string can hold them.
fn without_lone_surrogates(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match (escaped_unit(rest), rest.get(6..).and_then(escaped_unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                rest = &rest[6..];
                continue;
            }
            (Some(_), _) => 6,
            // The backslash and whatever follows it, which may be another backslash.
            (None, _) => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
        };
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    out.push_str(rest);
    out
}

/// Reads a `\uXXXX` at the start of `text`.
fn escaped_unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(pieces: &[&str]) -> Transcript {
        let mut transcript = Transcript::default();
        let block = json!({"type": "tool_use", "id": "toolu_1", "name": "read", "input": {}});
        transcript.push(&Event::BlockStart { index: 0, block });
        for piece in pieces {
            transcript.push(&Event::Input { index: 0, json: (*piece).into() });
        }
        transcript
    }

    #[test]
    fn signatures_and_citations_are_kept() {
        let mut transcript = Transcript::default();
        let events = [
            Event::BlockStart { index: 0, block: json!({"type": "thinking", "thinking": ""}) },
            Event::Thinking { index: 0, text: "Hm".into() },
            Event::Delta {
                index: 0,
                delta: json!({"type": "signature_delta", "signature": "c2ln"}),
            },
            Event::Delta { index: 0, delta: json!({"type": "brand_new", "x": 1}) },
            Event::BlockEnd { index: 0 },
            Event::BlockStart { index: 1, block: json!({"type": "text", "text": ""}) },
            Event::Text { index: 1, text: "A".into() },
            Event::Delta {
                index: 1,
                delta: json!({"type": "citations_delta", "citation": {"cited_text": "q"}}),
            },
            Event::BlockStart { index: 2, block: json!({"type": "hologram", "data": [1]}) },
            Event::BlockEnd { index: 2 },
            Event::Text { index: 9, text: "of no block".into() },
        ];
        events.iter().for_each(|event| transcript.push(event));
        assert_eq!(
            Value::from(transcript.content()),
            json!([
                {"type": "thinking", "thinking": "Hm", "signature": "c2ln"},
                {"type": "text", "text": "A", "citations": [{"cited_text": "q"}]},
                {"type": "hologram", "data": [1]},
            ])
        );
        assert_eq!(transcript.text(), "A");
    }

    #[test]
    fn tool_input_is_parsed_at_the_end_of_its_block() {
        let mut transcript = tool(&["{\"path\":", "\"a\\ud83d\"}"]);
        assert!(transcript.content().is_empty(), "half a tool call is none");
        transcript.push(&Event::BlockEnd { index: 0 });
        assert_eq!(transcript.content()[0]["input"], json!({"path": "a"}));
        assert!(transcript.tool_errors().is_empty());
    }

    #[test]
    fn broken_tool_input_becomes_an_error_result() {
        for pieces in [&["{\"path\":"][..], &["[1]"], &["{\"a\":1} x"]] {
            let mut transcript = tool(pieces);
            transcript.push(&Event::BlockEnd { index: 0 });
            assert_eq!(transcript.content()[0]["input"], json!({}), "{pieces:?}");
            let errors = transcript.tool_errors();
            assert_eq!(
                (&errors[0]["tool_use_id"], &errors[0]["is_error"]),
                (&json!("toolu_1"), &json!(true))
            );
        }
        let mut empty = tool(&["", " "]);
        empty.push(&Event::BlockEnd { index: 0 });
        assert!(empty.tool_errors().is_empty(), "no input is an empty object");
    }

    #[test]
    fn a_missing_figure_keeps_the_first_one() {
        let mut transcript = Transcript::default();
        let usage = Usage { input: Some(10), output: Some(1), ..Usage::default() };
        transcript.push(&Event::Began { at: 0, id: None, model: None, usage });
        let usage = Usage { output: Some(7), ..Usage::default() };
        transcript.push(&Event::TurnEnd { at: 0, stop: "end_turn".into(), usage });
        assert_eq!((transcript.usage().input, transcript.usage().output), (Some(10), Some(7)));
        assert_eq!(transcript.stop(), Some(StopReason::Stop));
    }

    #[test]
    fn lone_surrogates_go_and_pairs_stay() {
        for (from, to) in [
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""a\ud83db""#, r#""ab""#),
            (r#""\ude00\ud83d""#, r#""""#),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\n\u0041""#, r#""\n\u0041""#),
            (r"\", r"\"),
        ] {
            assert_eq!(without_lone_surrogates(from), to);
        }
    }
}
