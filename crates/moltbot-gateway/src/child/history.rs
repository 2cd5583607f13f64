//! What a process has seen of a conversation, as a digest. Pure.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// Identifies a conversation up to some message.
pub(crate) type Seen = [u8; 32];

/// The digests of one request's conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History {
    before: Seen,
    /// The messages written out, from which the digest of a longer conversation can be made.
    asked: Vec<String>,
}

impl History {
    /// Reads the messages of a body. One that cannot be read has a history of its own.
    pub(crate) fn of(body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let asked: Vec<String> = messages
            .iter()
            .map(|message| {
                let content = match &message["content"] {
                    Value::Array(blocks) => written(blocks),
                    Value::String(text) => text.trim().to_string(),
                    _ => String::new(),
                };
                said(message["role"].as_str().unwrap_or_default(), &content)
            })
            .collect();
        let before = asked.split_last().map_or(&[][..], |(_, before)| before);
        Self { before: digest(before), asked }
    }

    /// Everything but the last message: what a warm process must have seen.
    pub(crate) fn before(&self) -> Seen {
        self.before
    }

    /// Everything and the reply: what the process will have seen.
    pub(crate) fn after(&self, reply: &[Value]) -> Seen {
        let mut all = self.asked.clone();
        all.push(said("assistant", &written(reply)));
        digest(&all)
    }
}

fn said(role: &str, content: &str) -> String {
    Value::from(vec![role, content]).to_string()
}

/// Writes blocks so that what a client may add or leave out makes no difference: cache markers,
/// reasoning, and how a text is cut into blocks.
fn written(blocks: &[Value]) -> String {
    let mut out = String::new();
    for block in blocks {
        match block["type"].as_str() {
            Some("thinking" | "redacted_thinking") => {}
            Some("text") => out += block["text"].as_str().unwrap_or_default(),
            _ => {
                let kept = block.as_object().into_iter().flatten();
                let kept: Map<String, Value> = kept
                    .filter(|(name, _)| *name != "cache_control")
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect();
                out += &Value::Object(kept).to_string();
            }
        }
    }
    out.trim().to_string()
}

fn digest(messages: &[String]) -> Seen {
    let mut hash = Sha256::new();
    for message in messages {
        hash.update((message.len() as u64).to_le_bytes());
        hash.update(message);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(messages: Value) -> History {
        History::of(json!({ "messages": messages }).to_string().as_bytes())
    }

    #[test]
    fn the_next_request_follows_from_the_reply() {
        let first = of(json!([{"role": "user", "content": "hi"}]));
        let reply = [
            json!({"type": "thinking", "thinking": "hm", "signature": "FAKE"}),
            json!({"type": "text", "text": "hello"}),
        ];
        let marked = json!({"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}});
        let next = of(json!([
            {"role": "user", "content": [marked]},
            {"role": "assistant", "content": [{"type": "text", "text": "hello"}]},
            {"role": "user", "content": "and?"},
        ]));
        assert_eq!(next.before(), first.after(&reply));
    }

    #[test]
    fn another_conversation_has_another_digest() {
        let hi = json!({"role": "user", "content": "hi"});
        let answer = |text: &str| json!({"role": "assistant", "content": text});
        let before = |messages: Value| of(messages).before();
        let base = before(json!([hi, answer("a"), hi]));
        for other in [
            json!([hi]),
            json!([hi, answer("b"), hi]),
            json!([hi, answer("a"), hi, answer("a"), hi]),
            json!([{"role": "assistant", "content": "hi"}, answer("a"), hi]),
            json!([{"role": "user", "content": [{"type": "image", "source": 1}]}, answer("a"), hi]),
        ] {
            assert_ne!(before(other.clone()), base, "{other}");
        }
        assert_eq!(before(json!([hi, answer("a"), answer("x")])), base, "the last one is new");
    }
}
