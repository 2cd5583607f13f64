//! What a switch of profile or model costs: the tokens of a conversation that lie in the service's
//! prompt cache belong to one account and one model, and are written again elsewhere. Pure.

use moltbot_core::{ModelInfo, Timestamp, Usage};
use serde::{Deserialize, Serialize};

use crate::turn::{Role, Turn};

/// How long a cache lives after its last use.
const FIVE_MINUTES_MS: i64 = 5 * 60_000;
const HOUR_MS: i64 = 60 * 60_000;

/// What of a conversation lies in a cache, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The model, as `provider/model`.
    pub model: String,
    /// The profile whose account it belongs to.
    pub profile: String,
    /// How many tokens.
    pub tokens: u64,
    /// Until when it is kept, if that is known.
    pub until: Option<Timestamp>,
}

/// What a switch did to the cache of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheEffect {
    /// Where the conversation was: `provider/model@profile`.
    pub from: String,
    /// Where it went.
    pub to: String,
    /// Tokens that had to be written again.
    pub tokens: u64,
    /// What that costs more than reading them would have, in US dollars, if prices are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
}

impl Cached {
    /// Returns what the last reply left in the cache: what it read there and what it wrote.
    /// `at` is when the reply came.
    pub fn after(model: &str, profile: &str, usage: &Usage, at: Option<Timestamp>) -> Self {
        let hour = usage.cache_write_1h.unwrap_or(0) > 0;
        let life = if hour { HOUR_MS } else { FIVE_MINUTES_MS };
        Self {
            model: model.to_string(),
            profile: profile.to_string(),
            tokens: usage.cache_read.unwrap_or(0).saturating_add(usage.cache_write.unwrap_or(0)),
            until: at.map(|at| at.plus(life)),
        }
    }

    /// Finds what the last reply of a conversation left.
    pub fn of(history: &[Turn], at: Option<Timestamp>) -> Option<Self> {
        let last = history.iter().rev().find(|turn| turn.role == Role::Assistant)?;
        let (model, profile) = (last.model.as_ref()?, last.profile.as_ref()?);
        let cached = Self::after(model, profile, last.usage.as_ref()?, at);
        (cached.tokens > 0).then_some(cached)
    }

    /// Returns how many tokens would be written again by `model` with `profile`: none where they
    /// are, and none once the cache is over.
    pub fn rewritten(&self, model: &str, profile: Option<&str>, now: Timestamp) -> u64 {
        let over = self.until.is_some_and(|until| until <= now);
        let same = self.model == model && profile == Some(&*self.profile);
        if over || same { 0 } else { self.tokens }
    }

    /// Returns what a move costs; `None` if nothing is written again.
    pub fn moved(
        &self,
        model: &str,
        profile: Option<&str>,
        info: Option<&ModelInfo>,
        now: Timestamp,
    ) -> Option<CacheEffect> {
        let tokens = self.rewritten(model, profile, now);
        let place = |model: &str, profile: &str| format!("{model}@{profile}");
        (tokens > 0).then(|| CacheEffect {
            from: place(&self.model, &self.profile),
            to: profile.map_or_else(|| model.to_string(), |profile| place(model, profile)),
            tokens,
            cost: info.and_then(|info| more(info, tokens)),
        })
    }
}

/// What writing costs more than reading, in US dollars.
fn more(info: &ModelInfo, tokens: u64) -> Option<f64> {
    let write = info.cost(&Usage { cache_write: Some(tokens), ..Usage::default() })?;
    let read = info.cost(&Usage { cache_read: Some(tokens), ..Usage::default() })?;
    Some((write - read).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use moltbot_core::Price;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn turn(read: u64, write: u64) -> Turn {
        let usage = Usage { cache_read: Some(read), cache_write: Some(write), ..Usage::default() };
        Turn {
            role: Role::Assistant,
            model: Some("acme/big".into()),
            profile: Some("acme:a".into()),
            usage: Some(usage),
            ..Turn::user(Vec::new())
        }
    }

    #[test]
    fn a_switch_is_priced_by_what_is_written_again() {
        let history = [turn(9, 9), Turn::user(Vec::new()), turn(900_000, 100_000)];
        let cached = Cached::of(&history, Some(NOW)).unwrap();
        let info =
            ModelInfo { price: Price::new(5.0, 25.0, 0.5, 6.25, 10.0), ..ModelInfo::default() };
        let later = NOW.plus(1_000);
        assert_eq!(cached.moved("acme/big", Some("acme:a"), Some(&info), later), None);
        let moved = cached.moved("acme/big", Some("acme:b"), Some(&info), later).unwrap();
        assert_eq!((moved.tokens, moved.cost), (1_000_000, Some(5.75)));
        assert_eq!(moved.from, "acme/big@acme:a");
        assert_eq!(moved.to, "acme/big@acme:b");
        assert_eq!(cached.rewritten("acme/small", Some("acme:a"), later), 1_000_000);
        assert_eq!(cached.moved("acme/big", None, None, later).unwrap().cost, None);
    }

    #[test]
    fn what_is_over_cannot_be_lost() {
        let cached = Cached::of(&[turn(0, 5)], Some(NOW)).unwrap();
        assert_eq!(cached.rewritten("acme/big", Some("acme:b"), NOW.plus(FIVE_MINUTES_MS - 1)), 5);
        assert_eq!(cached.rewritten("acme/big", Some("acme:b"), NOW.plus(FIVE_MINUTES_MS)), 0);
        let unknown = Cached::of(&[turn(0, 5)], None).unwrap();
        assert_eq!(unknown.rewritten("acme/big", Some("acme:b"), NOW.plus(HOUR_MS)), 5);
        assert_eq!(Cached::of(&[turn(0, 0)], Some(NOW)), None);
        assert_eq!(Cached::of(&[], Some(NOW)), None);
    }
}
