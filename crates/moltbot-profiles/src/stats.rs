//! What is remembered of a profile's use: upstream's fields, and the same per model.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use moltbot_core::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::Window;

/// How many models one profile remembers; the least important are dropped at a write.
pub const MAX_MODELS: usize = 64;

/// How long a model's counters outlive its cooldown: as long as the default failure window, so
/// that the next failure still finds them.
pub const MODEL_MEMORY_MS: i64 = 24 * 3_600_000;

/// How far in the future a record may be before it counts as written under a wrong clock.
pub(crate) const SKEW_MS: i64 = 60_000;

/// What is remembered of one profile's use (spec A-1 `usageStats`, decision "Failure scope").
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// For all models.
    pub whole: Block,
    /// For one model each, by its id without the provider.
    pub models: BTreeMap<String, Block>,
    /// The account behind the profile, as the service names it; limits may be shared by it.
    pub account: Option<String>,
    /// What replies told about its limits; see [`observe`](Stats::observe).
    pub quota: Vec<Window>,
}

/// Counters and blocks of a profile, or of a profile with one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    /// When it last served a request.
    pub last_used: Option<Timestamp>,
    /// How many failures in a row.
    pub error_count: u32,
    /// Until when it rests.
    pub cooldown_until: Option<Timestamp>,
    /// Until when it is out of order, for a reason that waiting alone seldom mends.
    pub disabled_until: Option<Timestamp>,
    /// Why it is out of order: `billing`.
    pub disabled_reason: Option<String>,
    /// How many failures of each sort.
    pub failure_counts: BTreeMap<String, u32>,
    /// When the last failure was recorded.
    pub last_failure_at: Option<Timestamp>,
    /// Members unknown to this version, written back as they came.
    pub rest: Map<String, Value>,
}

/// Says whether a profile rests or is out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockKind {
    /// It rests and comes back.
    Cooldown,
    /// It is out of order until somebody does something, e.g. pays.
    Disabled,
    /// A limit of it is known to be used up until it starts anew.
    Empty,
}

/// A block that holds now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blocked {
    /// Which sort.
    pub kind: BlockKind,
    /// Until when.
    pub until: Timestamp,
    /// Why it is out of order, or which limit is used up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether only the model asked about is blocked.
    pub model_only: bool,
}

/// One row of `auth.unusableProfiles` (spec L-36).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unusable {
    /// Which profile.
    pub profile_id: String,
    /// Its provider, if the profile is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Which sort.
    pub kind: BlockKind,
    /// Until when.
    pub until: Timestamp,
    /// How long that is from now, in milliseconds.
    pub remaining_ms: i64,
    /// Why it is out of order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The models concerned; none means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
}

impl Stats {
    /// Returns the block that keeps `model` (or, without one, every model) from being used now.
    ///
    /// A block recorded in the future was written under a wrong clock and does not count.
    pub fn blocked(&self, model: Option<&str>, now: Timestamp) -> Option<Blocked> {
        let whole = self.whole.blocked(now);
        let single = model
            .and_then(|model| self.models.get(model))
            .and_then(|block| block.blocked(now))
            .map(|blocked| Blocked { model_only: true, ..blocked });
        let failed = match (whole, single) {
            (Some(whole), Some(single)) if single.until > whole.until => {
                Some(Blocked { model_only: false, ..single })
            }
            (Some(whole), _) => Some(whole),
            (None, single) => single,
        };
        match (failed, self.emptied(model, now)) {
            (Some(failed), Some(empty)) if empty.until <= failed.until => Some(failed),
            (failed, None) => failed,
            (_, empty) => empty,
        }
    }

    /// Lists the blocks that hold now: the whole profile's, then those of models that last
    /// longer, models with the same block together.
    pub fn blocks(&self, now: Timestamp) -> Vec<(Blocked, Vec<String>)> {
        let whole = self.whole.blocked(now);
        let covered = whole.as_ref().map_or(now, |blocked| blocked.until);
        let mut list: Vec<(Blocked, Vec<String>)> =
            whole.into_iter().map(|blocked| (blocked, Vec::new())).collect();
        for (model, block) in &self.models {
            let Some(blocked) = block.blocked(now).filter(|blocked| blocked.until > covered) else {
                continue;
            };
            let blocked = Blocked { model_only: true, ..blocked };
            match list.iter_mut().find(|(other, _)| *other == blocked) {
                Some((_, models)) => models.push(model.clone()),
                None => list.push((blocked, vec![model.clone()])),
            }
        }
        for window in self.quota.iter().filter(|window| window.empty && !window.is_over(now)) {
            let reach = window.model.as_ref().or(window.family.as_ref());
            let Some(until) = window.reset.filter(|until| *until > covered) else { continue };
            let blocked = Blocked {
                kind: BlockKind::Empty,
                until,
                reason: Some(window.name.clone()),
                model_only: reach.is_some(),
            };
            list.push((blocked, reach.into_iter().cloned().collect()));
        }
        list
    }

    /// Tells whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// Ends every block and forgets the failures; tells whether there was a block (spec S-16).
    pub fn clear(&mut self, now: Timestamp) -> bool {
        let had = !self.blocks(now).is_empty();
        self.whole.clear();
        self.models.clear();
        self.quota.iter_mut().for_each(|window| window.empty = false);
        had
    }

    /// Returns the models worth writing: those blocked or failed within [`MODEL_MEMORY_MS`], at
    /// most [`MAX_MODELS`], the longest blocked and then the latest failed first to stay.
    pub(crate) fn kept_models(&self, now: Timestamp) -> Vec<(&String, &Block)> {
        let mut kept: Vec<_> =
            self.models.iter().filter(|(_, block)| !block.is_over(now)).collect();
        if kept.len() > MAX_MODELS {
            kept.sort_by_key(|(_, block)| {
                let until = block.blocked(now).map(|blocked| blocked.until);
                Reverse((until, block.last_failure_at))
            });
            kept.truncate(MAX_MODELS);
            kept.sort_by_key(|(model, _)| *model);
        }
        kept
    }
}

impl Block {
    /// Returns the later of the two blocks, if one holds now (spec S-7).
    pub fn blocked(&self, now: Timestamp) -> Option<Blocked> {
        if self.is_from_the_future(now) {
            return None;
        }
        let holds = |until: Option<Timestamp>| until.filter(|until| now < *until);
        let (cooldown, disabled) = (holds(self.cooldown_until), holds(self.disabled_until));
        let until = cooldown.max(disabled)?;
        Some(match disabled {
            Some(_) => Blocked {
                kind: BlockKind::Disabled,
                until,
                reason: self.disabled_reason.clone(),
                model_only: false,
            },
            None => Blocked { kind: BlockKind::Cooldown, until, reason: None, model_only: false },
        })
    }

    /// Forgets failures and blocks; keeps when it was last used.
    pub(crate) fn clear(&mut self) {
        self.error_count = 0;
        self.cooldown_until = None;
        self.disabled_until = None;
        self.disabled_reason = None;
        self.failure_counts.clear();
        self.last_failure_at = None;
    }

    /// Tells whether the last failure was recorded under a clock that ran ahead.
    pub(crate) fn is_from_the_future(&self, now: Timestamp) -> bool {
        self.last_failure_at.is_some_and(|at| at.since(now) > SKEW_MS)
    }

    fn is_over(&self, now: Timestamp) -> bool {
        let forgotten = self.last_failure_at.is_none_or(|at| now.since(at) > MODEL_MEMORY_MS);
        self.blocked(now).is_none() && (forgotten || self.is_from_the_future(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Option<Timestamp> {
        Some(Timestamp::from_millis(millis))
    }

    fn cooling(until: i64) -> Block {
        Block { cooldown_until: at(until), last_failure_at: at(50), ..Block::default() }
    }

    #[test]
    fn the_later_block_counts_and_ends_on_time() {
        let block = Block {
            disabled_until: at(300),
            disabled_reason: Some("billing".into()),
            ..cooling(200)
        };
        let now = Timestamp::from_millis(100);
        let blocked = block.blocked(now).unwrap();
        assert_eq!(blocked.kind, BlockKind::Disabled);
        assert_eq!(blocked.until.millis(), 300);
        assert!(block.blocked(Timestamp::from_millis(299)).is_some());
        assert_eq!(block.blocked(Timestamp::from_millis(300)), None);
    }

    #[test]
    fn a_model_is_blocked_alone() {
        let stats = Stats { models: [("opus".into(), cooling(200))].into(), ..Stats::default() };
        let now = Timestamp::from_millis(100);
        assert!(stats.blocked(Some("opus"), now).unwrap().model_only);
        assert_eq!(stats.blocked(Some("haiku"), now), None);
        assert_eq!(stats.blocked(None, now), None);
    }

    #[test]
    fn blocks_list_what_the_whole_does_not_cover() {
        let stats = Stats {
            whole: cooling(200),
            models: [
                ("a".into(), cooling(150)),
                ("b".into(), cooling(300)),
                ("c".into(), cooling(300)),
            ]
            .into(),
            ..Stats::default()
        };
        let blocks = stats.blocks(Timestamp::from_millis(100));
        assert_eq!(blocks.len(), 2);
        assert!(blocks[0].1.is_empty());
        assert_eq!(blocks[1].1, ["b", "c"]);
    }

    #[test]
    fn a_block_from_a_wrong_clock_does_not_hold() {
        let year = 365 * 86_400_000;
        let block = Block {
            cooldown_until: at(10 * year + 60_000),
            last_failure_at: at(10 * year),
            ..Block::default()
        };
        assert_eq!(block.blocked(Timestamp::from_millis(1_000)), None);
        assert!(block.blocked(Timestamp::from_millis(10 * year - 1_000)).is_some());
    }

    #[test]
    fn old_models_are_forgotten_and_64_kept() {
        let now = Timestamp::from_millis(10 * MODEL_MEMORY_MS);
        let mut stats = Stats::default();
        for n in 0..100 {
            let block = Block {
                cooldown_until: Some(now.plus(n)),
                last_failure_at: Some(now.plus(-1)),
                ..Block::default()
            };
            stats.models.insert(format!("m{n:03}"), block);
        }
        stats.models.insert("old".into(), cooling(1));
        let kept = stats.kept_models(now);
        assert_eq!(kept.len(), MAX_MODELS);
        assert_eq!(kept[0].0, "m036");
        stats.models.retain(|model, _| model == "old");
        assert!(stats.kept_models(now).is_empty());
    }
}
