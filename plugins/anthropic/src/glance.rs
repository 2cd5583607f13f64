//! Reads of a reply only what an observer wants, without a tree of its values. Whatever is not
//! written as the service writes it is left to [`message`](crate::message), which takes anything.

use std::borrow::Cow;

use moltbot_core::{Event, Usage};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// A whole message.
#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    id: Option<String>,
    model: Option<String>,
    stop_reason: Option<String>,
    usage: Option<Figures>,
    error: Option<IgnoredAny>,
}

/// The data of a `message_start` event.
#[derive(Deserialize)]
struct Start {
    message: Started,
}

/// The message of a `message_start` event.
#[derive(Deserialize)]
pub(crate) struct Started {
    pub(crate) id: Option<String>,
    pub(crate) model: Option<String>,
    usage: Option<Figures>,
}

/// The data of a `message_delta` event.
#[derive(Deserialize)]
pub(crate) struct Change {
    delta: Option<Stop>,
    usage: Option<Figures>,
}

#[derive(Deserialize)]
struct Stop {
    stop_reason: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct Figures {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_creation: Option<Split>,
}

#[derive(Clone, Copy, Deserialize)]
struct Split {
    ephemeral_5m_input_tokens: Option<u64>,
    ephemeral_1h_input_tokens: Option<u64>,
}

/// Turns one message of `length` bytes into the events an observer gets; `false`, and no event, if
/// it is anything else.
pub(crate) fn whole(text: &[u8], length: u64, events: &mut Vec<Event>) -> bool {
    // Texts are stepped over, hence checked here.
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let Ok(reply) = serde_json::from_str::<Reply<'_>>(text) else { return false };
    if reply.kind != "message" || reply.error.is_some() {
        return false;
    }
    let usage = reply.usage.unwrap_or_default().usage();
    events.push(Event::Began { at: length, id: reply.id, model: reply.model, usage });
    let stop = reply.stop_reason.unwrap_or_default();
    events.push(Event::TurnEnd { at: length, stop, usage });
    true
}

/// Reads a `message_start` event.
pub(crate) fn started(data: &str) -> Option<Started> {
    serde_json::from_str::<Start>(data).ok().map(|start| start.message)
}

/// Reads a `message_delta` event.
pub(crate) fn change(data: &str) -> Option<Change> {
    serde_json::from_str(data).ok()
}

impl Started {
    pub(crate) fn usage(&self) -> Usage {
        self.usage.unwrap_or_default().usage()
    }
}

impl Change {
    pub(crate) fn usage(&self) -> Usage {
        self.usage.unwrap_or_default().usage()
    }

    pub(crate) fn stop(self) -> Option<String> {
        self.delta?.stop_reason
    }
}

impl Figures {
    fn usage(self) -> Usage {
        let split = self.cache_creation;
        let write_5m = split.and_then(|split| split.ephemeral_5m_input_tokens);
        let write_1h = split.and_then(|split| split.ephemeral_1h_input_tokens);
        let parts = match (write_5m, write_1h) {
            (None, None) => None,
            (five, hour) => Some(five.unwrap_or(0).saturating_add(hour.unwrap_or(0))),
        };
        Usage {
            input: self.input_tokens,
            output: self.output_tokens,
            cache_read: self.cache_read_input_tokens,
            cache_write: self.cache_creation_input_tokens.or(parts),
            cache_write_5m: write_5m,
            cache_write_1h: write_1h,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message;

    /// Usual and odd replies; whatever is read at a glance says the same as the tree does.
    const REPLIES: [&str; 16] = [
        r#"{"type":"message","id":"msg_1","model":"m","content":[{"type":"text","text":"\u00e9"}],"stop_reason":"end_turn","usage":{"input_tokens":12,"output_tokens":14,"cache_creation":{"ephemeral_5m_input_tokens":3}}}"#,
        r#"{"type":"message","stop_reason":null,"usage":{"input_tokens":1,"cache_creation_input_tokens":5,"cache_read_input_tokens":2,"service_tier":"x","server_tool_use":null}}"#,
        r#"{"usage":{"output_tokens":1},"type":"message","error":null}"#,
        r#"{"type":"message","error":{"type":"api_error"}}"#,
        r#"{"type":"message","id":7,"usage":{"input_tokens":3}}"#,
        r#"{"type":"message","usage":{"input_tokens":-3,"output_tokens":7.0}}"#,
        r#"{"type":"message","usage":"none"}"#,
        r#"{"type":"message","usage":{"input_tokens":1},"usage":{"input_tokens":2}}"#,
        r#"{"\u0074ype":"message","usage":{"input_tokens":4}}"#,
        r#"{"type":"message","usage":null}"#,
        r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
        r#"{"input_tokens":9}"#,
        r#"{"data":[]}"#,
        r#"{"type":"message""#,
        r#"{"type":"message"} x"#,
        "[]",
    ];

    #[test]
    fn a_glance_sees_what_a_tree_shows() {
        let mut seen = 0;
        for reply in REPLIES {
            let (mut glance, mut tree) = (Vec::new(), Vec::new());
            message::whole(reply.as_bytes(), 9, false, &mut tree);
            if whole(reply.as_bytes(), 9, &mut glance) {
                assert_eq!(glance, tree, "{reply}");
                seen += 1;
            } else {
                assert!(glance.is_empty(), "{reply}");
            }
        }
        assert_eq!(seen, 5, "usual replies are read at a glance");
        assert!(!whole(b"{\"type\":\"message\",\"id\":\"\xff\"}", 9, &mut Vec::new()));
    }

    #[test]
    fn events_of_a_stream_are_read_at_a_glance() {
        let data = r#"{"type":"message_start","message":{"id":"a","model":"m","usage":{"input_tokens":3,"output_tokens":1}}}"#;
        let started = started(data).unwrap();
        let tree: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(started.usage(), message::usage(&tree["message"]["usage"]));
        assert_eq!((started.id.as_deref(), started.model.as_deref()), (Some("a"), Some("m")));
        let data = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":60}}"#;
        let change = change(data).unwrap();
        let tree: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(change.usage(), message::usage(&tree["usage"]));
        assert_eq!(change.stop().as_deref(), Some("end_turn"));
        assert!(super::change(r#"{"usage":{"output_tokens":"60"}}"#).is_none());
    }
}
