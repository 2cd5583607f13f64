//! The prompt cache: which prefixes an organization has written, and what a request reads.
//!
//! Rules of spec 09 C: a lookup goes back at most 20 blocks from each mark, a prefix below the
//! model's minimum is not cached (no error), a read renews the entry's life.

use std::collections::HashMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::prompt::{Prompt, Ttl};

/// How far before a mark a written prefix is still found, in blocks.
const LOOKBACK: usize = 20;

/// Entries kept before the dead ones are swept.
const CAPACITY: usize = 100_000;

/// The input side of a reply's usage, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct InputUsage {
    pub(crate) uncached: u64,
    pub(crate) read: u64,
    pub(crate) written_5m: u64,
    pub(crate) written_1h: u64,
}

impl InputUsage {
    /// Returns the usage object of a reply with this input.
    pub(crate) fn to_json(self, output_tokens: u64, thinking_tokens: Option<u64>) -> Value {
        let mut usage = json!({
            "input_tokens": self.uncached,
            "cache_creation_input_tokens": self.written_5m + self.written_1h,
            "cache_read_input_tokens": self.read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": self.written_5m,
                "ephemeral_1h_input_tokens": self.written_1h,
            },
            "output_tokens": output_tokens,
            "service_tier": "standard",
        });
        if let Some(tokens) = thinking_tokens {
            usage["output_tokens_details"] = json!({ "thinking_tokens": tokens });
        }
        usage
    }
}

/// The prefixes that were written and when they end.
#[derive(Debug, Default)]
pub(crate) struct PrefixCache {
    entries: HashMap<[u8; 32], Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    ends_ms: i64,
    ttl: Ttl,
}

impl PrefixCache {
    /// Reads and writes the prefixes a request marks; returns what that makes of its input.
    pub(crate) fn charge(
        &mut self,
        organization: &str,
        model: &str,
        minimum: u64,
        prompt: &Prompt,
        now_ms: i64,
    ) -> InputUsage {
        let segments = &prompt.segments;
        let marks: Vec<(usize, Ttl)> =
            segments.iter().enumerate().filter_map(|(i, s)| Some((i, s.mark?))).collect();
        let total = prompt.tokens();
        if marks.is_empty() || total < minimum {
            return InputUsage { uncached: total, ..InputUsage::default() };
        }
        let key = |index: usize| -> [u8; 32] {
            let segment = &segments[index];
            let mut hash = Sha256::new();
            hash.update(organization.as_bytes());
            hash.update([0]);
            hash.update(model.as_bytes());
            hash.update([0]);
            hash.update(segment.prefix);
            if segment.message.is_some() {
                hash.update(prompt.settings);
            }
            hash.finalize().into()
        };
        let mut found = None;
        for &(mark, _) in marks.iter().rev() {
            let near = (mark.saturating_sub(LOOKBACK)..=mark).rev();
            let hit = near
                .take_while(|index| segments[*index].tokens >= minimum)
                .find(|index| self.renew(&key(*index), now_ms));
            found = found.max(hit);
        }
        let read = found.map_or(0, |index| segments[index].tokens);
        let mut usage = InputUsage { read, ..InputUsage::default() };
        let mut reached = read;
        for (mark, ttl) in marks {
            let upto = segments[mark].tokens;
            if upto < minimum || found.is_some_and(|index| mark <= index) {
                continue;
            }
            match ttl {
                Ttl::FiveMinutes => usage.written_5m += upto - reached,
                Ttl::OneHour => usage.written_1h += upto - reached,
            }
            reached = upto;
            self.entries.insert(key(mark), Entry { ends_ms: now_ms + ttl.ms(), ttl });
        }
        if self.entries.len() > CAPACITY {
            self.entries.retain(|_, entry| entry.ends_ms > now_ms);
            // All alive: forgetting them only costs a later reader a write.
            if self.entries.len() > CAPACITY {
                self.entries.clear();
            }
        }
        usage.uncached = total - reached;
        usage
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    fn renew(&mut self, key: &[u8; 32], now_ms: i64) -> bool {
        match self.entries.get_mut(key) {
            Some(entry) if entry.ends_ms > now_ms => {
                entry.ends_ms = now_ms + entry.ttl.ms();
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(system: &str, ttl: &str, turns: usize) -> Prompt {
        let mut messages = Vec::new();
        for turn in 0..turns {
            let role = if turn % 2 == 0 { "user" } else { "assistant" };
            messages.push(json!({"role": role, "content": format!("turn {turn}")}));
        }
        Prompt::measure(&json!({
            "system": [{"type": "text", "text": system,
                        "cache_control": {"type": "ephemeral", "ttl": ttl}}],
            "messages": messages,
        }))
    }

    #[test]
    fn writes_then_reads_until_the_entry_ends() {
        let mut cache = PrefixCache::default();
        let asked = prompt(&"s".repeat(4000), "5m", 1);
        let first = cache.charge("org", "m", 512, &asked, 0);
        assert_eq!((first.written_5m, first.read, first.uncached), (1000, 0, 5));
        let second = cache.charge("org", "m", 512, &asked, 299_999);
        assert_eq!((second.written_5m, second.read, second.uncached), (0, 1000, 5));
        // The read renewed it; five minutes after the read it is gone.
        assert_eq!(cache.charge("org", "m", 512, &asked, 500_000).read, 1000);
        assert_eq!(cache.charge("org", "m", 512, &asked, 800_000).written_5m, 1000);
    }

    #[test]
    fn organizations_models_and_lifetimes_are_apart() {
        let mut cache = PrefixCache::default();
        let asked = prompt(&"s".repeat(4000), "1h", 1);
        assert_eq!(cache.charge("a", "m", 512, &asked, 0).written_1h, 1000);
        assert_eq!(cache.charge("b", "m", 512, &asked, 1).written_1h, 1000);
        assert_eq!(cache.charge("a", "n", 512, &asked, 1).written_1h, 1000);
        assert_eq!(cache.charge("a", "m", 512, &asked, 3_599_999).read, 1000);
    }

    #[test]
    fn short_prefixes_are_not_cached() {
        let mut cache = PrefixCache::default();
        let asked = prompt("short", "5m", 1);
        for _ in 0..2 {
            let usage = cache.charge("a", "m", 512, &asked, 0);
            assert_eq!(usage, InputUsage { uncached: asked.tokens(), ..InputUsage::default() });
        }
    }

    #[test]
    fn a_longer_conversation_reads_what_an_earlier_turn_wrote_within_20_blocks() {
        let body = |blocks: usize| {
            let mut content: Vec<Value> = (0..blocks)
                .map(|i| json!({"type": "text", "text": format!("{i}{}", "x".repeat(400))}))
                .collect();
            content[blocks - 1]["cache_control"] = json!({"type": "ephemeral"});
            Prompt::measure(&json!({"messages": [{"role": "user", "content": content}]}))
        };
        let mut cache = PrefixCache::default();
        let first = cache.charge("a", "m", 100, &body(10), 0);
        assert_eq!(cache.charge("a", "m", 100, &body(30), 1).read, first.written_5m);
        let mut cache = PrefixCache::default();
        cache.charge("a", "m", 100, &body(10), 0);
        assert_eq!(cache.charge("a", "m", 100, &body(31), 1).read, 0);
    }
}
