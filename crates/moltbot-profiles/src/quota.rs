//! What is known of a profile's limits without asking: the picture that the headers of replies
//! paint (remaining, reset, utilisation). Pure.

use moltbot_core::{Covers, Quota, Timestamp};
use serde::{Deserialize, Serialize};

use crate::punish::MEASURED_CAP_MS;
use crate::stats::SKEW_MS;
use crate::{BlockKind, Blocked, Stats};

/// How many limits one profile remembers; those that reset first are dropped.
pub const MAX_WINDOWS: usize = 64;

/// How long a limit that names no reset is remembered.
const MEMORY_MS: i64 = 86_400_000;

/// One limit of a profile, as a reply last told it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// Which limit, in the service's words: `five_hour`, `input-tokens`.
    pub name: String,
    /// The one model that draws on it; without this and `family` every model does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// A word; the models whose id contains it draw on the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// The used share, 0 to 1, sometimes above.
    pub used: f64,
    /// How much there is in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// How much of it is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<f64>,
    /// When it starts anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<Timestamp>,
    /// Whether nothing is left of it until then: the profile is not tried.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty: bool,
    /// When the reply came.
    pub at: Timestamp,
}

impl Window {
    /// Tells whether a request for `model` draws on it; without a model, whether every one does.
    pub fn covers(&self, model: Option<&str>) -> bool {
        let own = |only: &String| model.is_some_and(|model| model == only);
        let kin = |word: &String| model.is_some_and(|model| model.contains(word.as_str()));
        self.model.as_ref().is_none_or(own) && self.family.as_ref().is_none_or(kin)
    }

    /// Tells whether it says nothing any more: its reset has passed, or it was recorded under a
    /// clock that ran ahead.
    pub fn is_over(&self, now: Timestamp) -> bool {
        let until = self.reset.unwrap_or_else(|| self.at.plus(MEMORY_MS));
        until <= now || self.at.since(now) > SKEW_MS
    }

    fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.model == other.model && self.family == other.family
    }
}

impl Stats {
    /// Takes in what a reply told about limits; `served` says whether the request succeeded.
    ///
    /// Only a reply that succeeded makes a limit count as empty: after a refusal the rest that
    /// [`punish`](crate::punish()) measures decides. A reset is cut to
    /// [`MEASURED_CAP_MS`](crate::MEASURED_CAP_MS), and a limit without one is never empty.
    pub fn observe(&mut self, model: Option<&str>, quotas: &[Quota], served: bool, now: Timestamp) {
        for quota in quotas {
            let (model, family) = match &quota.covers {
                Covers::Everything {} => (None, None),
                Covers::Model {} => match model {
                    Some(model) => (Some(model.to_string()), None),
                    None => continue,
                },
                Covers::Named { word } => (None, Some(word.to_string())),
                _ => continue,
            };
            let reset = quota.reset.filter(|reset| *reset > now);
            let reset = reset.map(|reset| reset.min(now.plus(MEASURED_CAP_MS)));
            let finite = |number: f64| Some(number).filter(|number| number.is_finite());
            let seen = Window {
                name: quota.name.to_string(),
                model,
                family,
                used: finite(quota.used).unwrap_or(0.0).clamp(0.0, 100.0),
                limit: quota.limit.and_then(finite),
                remaining: quota.remaining.and_then(finite),
                reset,
                empty: served && quota.rejected && reset.is_some(),
                at: now,
            };
            match self.quota.iter_mut().find(|known| known.is_same(&seen)) {
                Some(known) => *known = seen,
                None => self.quota.push(seen),
            }
        }
        self.quota.retain(|window| !window.is_over(now));
        if self.quota.len() > MAX_WINDOWS {
            self.quota.sort_by_key(|window| std::cmp::Reverse(window.reset));
            self.quota.truncate(MAX_WINDOWS);
        }
    }

    /// Lists the limits that a request for `model` draws on and that still say something.
    pub fn windows(&self, model: Option<&str>, now: Timestamp) -> impl Iterator<Item = &Window> {
        self.quota.iter().filter(move |window| window.covers(model) && !window.is_over(now))
    }

    /// Returns the limit that is used up furthest.
    pub fn tightest(&self, model: Option<&str>, now: Timestamp) -> Option<&Window> {
        self.windows(model, now).max_by(|a, b| a.used.total_cmp(&b.used))
    }

    /// Returns when the first of the limits starts anew. Limits of one model, which are counted by
    /// the minute, matter only where there are no others.
    pub fn first_reset(&self, model: Option<&str>, now: Timestamp) -> Option<Timestamp> {
        let resets = |whole: bool| {
            let windows = self.windows(model, now);
            windows.filter(move |w| w.model.is_none() == whole).filter_map(|w| w.reset).min()
        };
        resets(true).or_else(|| resets(false))
    }

    /// Returns the block by the empty limit that starts anew last.
    pub(crate) fn emptied(&self, model: Option<&str>, now: Timestamp) -> Option<Blocked> {
        let empty = self.windows(model, now).filter(|window| window.empty);
        let longest = empty.max_by_key(|window| window.reset)?;
        Some(Blocked {
            kind: BlockKind::Empty,
            until: longest.reset?,
            reason: Some(longest.name.clone()),
            model_only: longest.model.is_some() || longest.family.is_some(),
        })
    }

    /// Fills the limits that `model` draws on and that were told empty before `request_started`:
    /// a later request was served.
    pub(crate) fn refill(&mut self, model: Option<&str>, request_started: Timestamp) {
        for window in &mut self.quota {
            if window.at <= request_started && window.covers(model) {
                window.empty = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
    const HOUR: i64 = 3_600_000;

    fn quota(name: &'static str, used: f64, reset: Option<i64>, covers: Covers) -> Quota {
        Quota {
            name: name.into(),
            used,
            rejected: used >= 1.0,
            reset: reset.map(|ms| NOW.plus(ms)),
            limit: None,
            remaining: None,
            covers,
        }
    }

    fn seen(quotas: &[Quota]) -> Stats {
        let mut stats = Stats::default();
        stats.observe(Some("big"), quotas, true, NOW);
        stats
    }

    #[test]
    fn an_empty_window_blocks_until_its_reset() {
        let stats = seen(&[quota("five_hour", 1.0, Some(HOUR), Covers::Everything {})]);
        let blocked = stats.blocked(Some("small"), NOW).unwrap();
        assert_eq!((blocked.kind, blocked.until), (BlockKind::Empty, NOW.plus(HOUR)));
        assert_eq!(blocked.reason.as_deref(), Some("five_hour"));
        assert!(stats.blocked(None, NOW.plus(HOUR - 1)).is_some());
        assert_eq!(stats.blocked(None, NOW.plus(HOUR)), None);
    }

    #[test]
    fn a_limit_of_a_model_leaves_the_others() {
        let stats = seen(&[quota("tokens", 1.0, Some(HOUR), Covers::Model {})]);
        assert!(stats.blocked(Some("big"), NOW).unwrap().model_only);
        assert_eq!(stats.blocked(Some("small"), NOW), None);
        assert_eq!(stats.blocked(None, NOW), None);
        let stats = seen(&[quota("week", 1.0, Some(HOUR), Covers::Named { word: "sma".into() })]);
        assert_eq!(stats.blocked(Some("big"), NOW), None);
        assert!(stats.blocked(Some("small"), NOW).is_some());
    }

    #[test]
    fn what_cannot_be_believed_blocks_nobody() {
        for (used, reset) in [(0.99, Some(HOUR)), (1.0, None), (1.0, Some(0)), (1.0, Some(-HOUR))] {
            let stats = seen(&[quota("w", used, reset, Covers::Everything {})]);
            assert_eq!(stats.blocked(None, NOW), None, "{used} {reset:?}");
        }
        let stats = seen(&[quota("w", f64::NAN, Some(HOUR), Covers::Unknown)]);
        assert!(stats.is_empty());
        let far = seen(&[quota("w", 1.0, Some(i64::MAX / 4), Covers::Everything {})]);
        assert_eq!(far.blocked(None, NOW).unwrap().until, NOW.plus(MEASURED_CAP_MS));
        // Recorded by a clock that was an hour ahead.
        let ahead = seen(&[quota("w", 1.0, Some(9 * HOUR), Covers::Everything {})]);
        assert_eq!(ahead.blocked(None, NOW.plus(-HOUR)), None);
    }

    #[test]
    fn a_refusal_paints_the_picture_and_decides_nothing() {
        let mut stats = Stats::default();
        let spent = [quota("five_hour", 1.0, Some(HOUR), Covers::Everything {})];
        stats.observe(None, &spent, false, NOW);
        assert_eq!(stats.blocked(None, NOW), None);
        assert_eq!(stats.tightest(None, NOW).unwrap().used, 1.0);
    }

    #[test]
    fn the_last_word_counts_and_old_ones_are_forgotten() {
        let mut stats = seen(&[quota("five_hour", 1.0, Some(HOUR), Covers::Everything {})]);
        let better = [quota("five_hour", 0.5, Some(HOUR), Covers::Everything {})];
        stats.observe(None, &better, true, NOW.plus(1));
        assert_eq!((stats.quota.len(), stats.blocked(None, NOW.plus(1))), (1, None));
        stats.observe(None, &[], true, NOW.plus(HOUR));
        assert!(stats.quota.is_empty());
    }

    #[test]
    fn a_success_fills_what_was_told_before_it_began() {
        let spent = [quota("five_hour", 1.0, Some(HOUR), Covers::Everything {})];
        let (mut early, mut late) = (seen(&spent), seen(&spent));
        early.refill(None, NOW.plus(-1));
        assert!(early.blocked(None, NOW).is_some(), "it began before");
        late.refill(None, NOW);
        assert_eq!(late.blocked(None, NOW), None);
    }

    #[test]
    fn many_limits_are_bounded() {
        let mut stats = Stats::default();
        for n in 0..200 {
            let one = [quota("tokens", 0.5, Some(HOUR + n), Covers::Model {})];
            stats.observe(Some(&format!("m{n}")), &one, true, NOW);
        }
        assert_eq!(stats.quota.len(), MAX_WINDOWS);
        assert!(stats.windows(Some("m199"), NOW).next().is_some());
        assert!(stats.windows(Some("m0"), NOW).next().is_none());
    }
}
