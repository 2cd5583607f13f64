//! A request measured: its blocks in cache order, their tokens and the hash of every prefix.
//!
//! The token rule is fixed and simple, so that tests can predict it: a quarter of the bytes of all
//! keys and values of a block, rounded up, without `type`, `text`, `cache_control` and `signature`
//! keys; an image or file counts 1,600; each message adds 3. `count_tokens` uses the same rule.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// How long a cached prefix lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ttl {
    FiveMinutes,
    OneHour,
}

impl Ttl {
    pub(crate) fn ms(self) -> i64 {
        match self {
            Ttl::FiveMinutes => 5 * 60 * 1000,
            Ttl::OneHour => 60 * 60 * 1000,
        }
    }
}

/// One block of the request, with what stands before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The hash of everything up to and including this block, without cache marks.
    pub(crate) prefix: [u8; 32],
    /// The tokens up to and including this block.
    pub(crate) tokens: u64,
    /// The cache mark on this block.
    pub(crate) mark: Option<Ttl>,
    /// Which message it belongs to; `None` for tools and system.
    pub(crate) message: Option<usize>,
}

/// A request's blocks in the order tools, system, messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Prompt {
    pub(crate) segments: Vec<Segment>,
    /// The hash of the settings that belong to cached messages (`thinking`, `tool_choice`).
    pub(crate) settings: [u8; 32],
}

impl Prompt {
    /// Measures a request that was found valid.
    pub(crate) fn measure(body: &Value) -> Self {
        let mut walk = Walk::default();
        for tool in body["tools"].as_array().into_iter().flatten() {
            walk.block(tool, None, 0);
        }
        walk.content(&body["system"], None, 0);
        for (index, message) in body["messages"].as_array().into_iter().flatten().enumerate() {
            walk.hash.update(message["role"].as_str().unwrap_or("").as_bytes());
            walk.content(&message["content"], Some(index), 3);
        }
        let mut segments = walk.segments;
        if let (Some(ttl), Some(last)) = (mark_of(&body["cache_control"]), segments.last_mut()) {
            last.mark = Some(ttl);
        }
        let mut settings = Sha256::new();
        feed(&mut settings, &body["thinking"]);
        feed(&mut settings, &body["tool_choice"]);
        Self { segments, settings: settings.finalize().into() }
    }

    /// Returns the tokens of the whole request.
    pub(crate) fn tokens(&self) -> u64 {
        self.segments.last().map_or(0, |last| last.tokens)
    }

    /// Returns the hash of everything before message `index`.
    pub(crate) fn before(&self, index: usize) -> [u8; 32] {
        let stop = |segment: &&Segment| segment.message.is_none_or(|at| at < index);
        self.segments.iter().take_while(stop).last().map_or([0; 32], |last| last.prefix)
    }
}

/// Returns the tokens of a reply's text.
pub(crate) fn text_tokens(text: &str) -> u64 {
    (text.len() as u64).div_ceil(4)
}

/// Returns the lifetime a `cache_control` value asks for.
pub(crate) fn mark_of(control: &Value) -> Option<Ttl> {
    control.as_object()?;
    Some(if control["ttl"] == "1h" { Ttl::OneHour } else { Ttl::FiveMinutes })
}

#[derive(Default)]
struct Walk {
    hash: Sha256,
    tokens: u64,
    segments: Vec<Segment>,
}

impl Walk {
    fn content(&mut self, content: &Value, message: Option<usize>, extra: u64) {
        match content {
            Value::String(text) => self.text(text, message, extra),
            Value::Array(blocks) => {
                for (index, block) in blocks.iter().enumerate() {
                    self.block(block, message, if index == 0 { extra } else { 0 });
                }
            }
            _ => {}
        }
    }

    // A plain string and the one text block it stands for are the same prefix.
    fn text(&mut self, text: &str, message: Option<usize>, extra: u64) {
        feed_entry(&mut self.hash, "type", &Value::from("text"));
        feed_key(&mut self.hash, "text");
        feed_text(&mut self.hash, text);
        self.close(text_tokens(text) + extra, None, message);
    }

    fn block(&mut self, block: &Value, message: Option<usize>, extra: u64) {
        if let Some(fields) = block.as_object() {
            for (key, value) in fields {
                feed_entry(&mut self.hash, key, value);
            }
        }
        let tokens = weight(block).div_ceil(4) + extra;
        self.close(tokens, inner_mark(block), message);
    }

    fn close(&mut self, tokens: u64, mark: Option<Ttl>, message: Option<usize>) {
        self.tokens += tokens;
        let prefix = self.hash.clone().finalize().into();
        self.segments.push(Segment { prefix, tokens: self.tokens, mark, message });
    }
}

// A mark inside a tool result's content marks the block that holds it.
fn inner_mark(block: &Value) -> Option<Ttl> {
    mark_of(&block["cache_control"]).or_else(|| {
        let inner = block["content"].as_array()?;
        inner.iter().rev().find_map(|part| mark_of(&part["cache_control"]))
    })
}

fn weight(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) => 1,
        Value::Number(_) => 4,
        Value::String(text) => text.len() as u64,
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| match key.as_str() {
                "type" | "cache_control" | "signature" => 0,
                "source" if value.is_object() => 6400,
                "text" => weight(value),
                _ => key.len() as u64 + weight(value),
            })
            .sum(),
    }
}

fn feed(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Null => hash.update([0]),
        Value::Bool(flag) => hash.update([1, u8::from(*flag)]),
        Value::Number(number) => {
            hash.update([2]);
            feed_text(hash, &number.to_string());
        }
        Value::String(text) => {
            hash.update([3]);
            feed_text(hash, text);
        }
        Value::Array(items) => {
            hash.update([4]);
            hash.update((items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| feed(hash, item));
        }
        Value::Object(fields) => {
            hash.update([5]);
            fields.iter().for_each(|(key, value)| feed_entry(hash, key, value));
            hash.update([6]);
        }
    }
}

fn feed_entry(hash: &mut Sha256, key: &str, value: &Value) {
    if key != "cache_control" {
        feed_text(hash, key);
        feed(hash, value);
    }
}

fn feed_key(hash: &mut Sha256, key: &str) {
    feed_text(hash, key);
    hash.update([3]);
}

fn feed_text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_string_is_the_same_prefix_as_its_block_and_marks_do_not_count() {
        let plain = Prompt::measure(&json!({"messages": [{"role": "user", "content": "hello"}]}));
        let block = Prompt::measure(&json!({"messages": [{"role": "user", "content": [
            {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
        ]}]}));
        assert_eq!(plain.segments[0].prefix, block.segments[0].prefix);
        assert_eq!((plain.tokens(), block.tokens()), (5, 5));
        assert_eq!(block.segments[0].mark, Some(Ttl::OneHour));
    }

    #[test]
    fn a_changed_system_changes_every_later_prefix() {
        let body = |system: &str| {
            json!({"system": system, "messages": [
                {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
            ]})
        };
        let (one, two) = (Prompt::measure(&body("x")), Prompt::measure(&body("y")));
        assert!(one.segments.iter().zip(&two.segments).all(|(a, b)| a.prefix != b.prefix));
        assert_eq!(one.before(0), one.segments[0].prefix);
        assert_eq!(one.before(1), one.segments[1].prefix);
    }

    #[test]
    fn a_top_level_mark_is_put_on_the_last_block() {
        let prompt = Prompt::measure(&json!({
            "cache_control": {"type": "ephemeral"},
            "messages": [{"role": "user", "content": "a"}],
        }));
        assert_eq!(prompt.segments.last().unwrap().mark, Some(Ttl::FiveMinutes));
    }
}
