//! What a failure costs a profile, and what a success gives back. Pure.

use moltbot_core::{Failure, FailureKind, Scope, Timestamp};

use crate::{Block, CooldownRules, Stats};

/// The longest block that a service may ask for, 7 days: the longest window any plan is known to
/// have. A later reset is cut to it.
pub const MEASURED_CAP_MS: i64 = 7 * 86_400_000;

/// The longest block that is guessed without the service having named a time, 60 minutes.
/// Billing has its own limit in [`CooldownRules`].
pub const GUESSED_CAP_MS: i64 = 60 * 60_000;

/// Returns the statistics after a failure (spec S-14, decision "Failure scope").
///
/// A failure of the profile blocks it for every model, one of the profile with the model for
/// `model` only; the rest (model, service, request) costs nothing, nor does a request that was
/// wrong in itself. A time named by the service beats the table up to [`MEASURED_CAP_MS`];
/// without one a block lasts 1, 5, 25, then 60 minutes, for billing 5, 10, 20, then 24 hours.
///
/// A request that began before the last failure was recorded saw the same trouble: it does not
/// count again, so that a burst of requests is one failure.
pub fn punish(
    stats: &Stats,
    provider: &str,
    model: Option<&str>,
    failure: &Failure,
    rules: &CooldownRules,
    now: Timestamp,
    request_started: Timestamp,
) -> Stats {
    let mut stats = stats.clone();
    let own_fault = matches!(
        failure.kind,
        FailureKind::Format | FailureKind::Refused | FailureKind::ContextOverflow
    );
    if own_fault {
        return stats;
    }
    let block = match (failure.scope, model) {
        (Scope::ProfileModel, Some(model)) => stats.models.entry(model.to_string()).or_default(),
        (Scope::Profile, _) | (Scope::ProfileModel, None) => &mut stats.whole,
        _ => return stats,
    };
    extend(block, provider, failure, rules, now, request_started);
    stats
}

/// Returns the statistics after a success: what was recorded before the request started is
/// cleared, for the profile and for `model`; later failures stay (spec S-13).
pub fn reward(
    stats: &Stats,
    model: Option<&str>,
    now: Timestamp,
    request_started: Timestamp,
) -> Stats {
    let mut stats = stats.clone();
    let is_older = |block: &Block| {
        block.last_failure_at.is_none_or(|at| at <= request_started)
            || block.is_from_the_future(now)
    };
    if is_older(&stats.whole) {
        stats.whole.clear();
    }
    if let Some(model) = model
        && stats.models.get(model).is_some_and(is_older)
    {
        stats.models.remove(model);
    }
    stats.refill(model, request_started);
    stats.whole.last_used = Some(now);
    stats
}

fn extend(
    block: &mut Block,
    provider: &str,
    failure: &Failure,
    rules: &CooldownRules,
    now: Timestamp,
    request_started: Timestamp,
) {
    if block.is_from_the_future(now) {
        block.clear();
    }
    let measured = failure
        .reset
        .filter(|reset| *reset > now)
        .map(|reset| reset.min(now.plus(MEASURED_CAP_MS)));
    let billing = failure.kind == FailureKind::Billing;
    let again = block.last_failure_at.is_some_and(|at| request_started < at);
    if again && block.blocked(now).is_some() {
        let until = if billing { &mut block.disabled_until } else { &mut block.cooldown_until };
        *until = (*until).max(measured);
        if billing && measured.is_some() {
            block.disabled_reason.get_or_insert_with(|| "billing".into());
        }
        return;
    }
    let idle = block.last_failure_at.is_some_and(|at| now.since(at) > rules.window_ms());
    if idle {
        block.error_count = 0;
        block.failure_counts.clear();
    }
    block.error_count = block.error_count.saturating_add(1);
    let count = block.failure_counts.entry(failure.kind.as_str().to_string()).or_default();
    *count = count.saturating_add(1);
    let count = *count;
    block.last_failure_at = Some(now);
    if billing {
        let (base, max) = rules.billing_ms(provider);
        let doubled = base.saturating_mul(1 << (count.clamp(1, 11) - 1));
        let guessed = now.plus(doubled.min(max));
        block.disabled_until = measured.or(longest(guessed, block.disabled_until, now));
        block.disabled_reason = Some("billing".into());
    } else {
        let minutes = 5_i64.pow(block.error_count.clamp(1, 4) - 1);
        let guessed = now.plus((minutes * 60_000).min(GUESSED_CAP_MS));
        block.cooldown_until = measured.or(longest(guessed, block.cooldown_until, now));
    }
}

/// A guess never shortens what the service once named, unless that is beyond every cap.
fn longest(guessed: Timestamp, standing: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    standing.filter(|until| *until <= now.plus(MEASURED_CAP_MS)).max(Some(guessed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
    const MINUTE: i64 = 60_000;
    const HOUR: i64 = 60 * MINUTE;

    fn failure(kind: FailureKind, scope: Scope, reset: Option<Timestamp>) -> Failure {
        Failure {
            kind,
            scope,
            reset,
            account: None,
            code: "x".into(),
            message: String::new(),
            advice: None,
        }
    }

    fn limited(reset: Option<i64>) -> Failure {
        failure(FailureKind::RateLimit, Scope::Profile, reset.map(|ms| NOW.plus(ms)))
    }

    /// Punishes as a request would that began just now.
    fn hit(stats: &Stats, failure: &Failure, now: Timestamp) -> Stats {
        punish(stats, "acme", Some("m"), failure, &CooldownRules::default(), now, now)
    }

    #[test]
    fn case_41_cooldowns_grow() {
        let (mut stats, mut now) = (Stats::default(), NOW);
        for (n, minutes) in [1, 5, 25, 60, 60].into_iter().enumerate() {
            stats = hit(&stats, &limited(None), now);
            let until = stats.whole.cooldown_until.unwrap();
            assert_eq!(until.since(now), minutes * MINUTE, "failure {}", n + 1);
            now = until;
        }
        assert_eq!(stats.whole.error_count, 5);
        assert_eq!(stats.whole.failure_counts["rate_limit"], 5);
    }

    #[test]
    fn case_41_billing_doubles() {
        let billing = failure(FailureKind::Billing, Scope::Profile, None);
        let (mut stats, mut now) = (Stats::default(), NOW);
        for hours in [5, 10, 20, 24] {
            stats = hit(&stats, &billing, now);
            let until = stats.whole.disabled_until.unwrap();
            assert_eq!(until.since(now), hours * HOUR);
            assert_eq!(stats.whole.disabled_reason.as_deref(), Some("billing"));
            assert_eq!(stats.whole.cooldown_until, None);
            now = now.plus(HOUR);
        }
        let by_provider = [("acme".to_string(), 2.0)].into();
        let rules = CooldownRules {
            billing_backoff_hours_by_provider: by_provider,
            ..CooldownRules::default()
        };
        let stats = punish(&Stats::default(), "acme", None, &billing, &rules, NOW, NOW);
        assert_eq!(stats.whole.disabled_until.unwrap().since(NOW), 2 * HOUR);
    }

    #[test]
    fn case_42_counters_restart_and_success_clears() {
        let mut stats = hit(&Stats::default(), &limited(None), NOW);
        stats = hit(&stats, &limited(None), NOW.plus(MINUTE));
        let later = NOW.plus(25 * HOUR);
        let restarted = hit(&stats, &limited(None), later);
        assert_eq!(restarted.whole.cooldown_until.unwrap().since(later), MINUTE);
        assert_eq!(restarted.whole.error_count, 1);
        let rewarded = reward(&stats, Some("m"), later, later);
        assert_eq!(rewarded.whole, Block { last_used: Some(later), ..Block::default() });
    }

    #[test]
    fn a_late_success_clears_only_what_is_older() {
        let stats = hit(&Stats::default(), &limited(None), NOW);
        let late = reward(&stats, None, NOW.plus(5), NOW.plus(-1));
        assert_eq!(late.whole.cooldown_until, stats.whole.cooldown_until);
        assert_eq!(late.whole.error_count, 1);
        assert_eq!(late.whole.last_used, Some(NOW.plus(5)));
        let fresh = reward(&stats, None, NOW.plus(5), NOW.plus(1));
        assert_eq!(fresh.whole.cooldown_until, None);
    }

    #[test]
    fn a_success_with_one_model_says_nothing_of_another() {
        let one = failure(FailureKind::RateLimit, Scope::ProfileModel, None);
        let rules = CooldownRules::default();
        let stats = punish(&Stats::default(), "acme", Some("a"), &one, &rules, NOW, NOW);
        assert_eq!(stats.whole, Block::default(), "other models are not touched");
        let now = NOW.plus(1);
        assert!(reward(&stats, Some("b"), now, now).blocked(Some("a"), now).is_some());
        assert!(reward(&stats, Some("a"), now, now).blocked(Some("a"), now).is_none());
    }

    #[test]
    fn a_measured_reset_beats_the_table_up_to_the_cap() {
        for (reset, lasts) in [
            (10_000, 10_000),
            (5 * HOUR, 5 * HOUR),
            (30 * 24 * HOUR, MEASURED_CAP_MS),
            (i64::MAX, MEASURED_CAP_MS),
            (0, MINUTE),
            (-5, MINUTE),
        ] {
            let stats = hit(&Stats::default(), &limited(Some(reset)), NOW);
            assert_eq!(stats.whole.cooldown_until.unwrap().since(NOW), lasts, "{reset}");
        }
        let named = hit(&Stats::default(), &limited(Some(3 * HOUR)), NOW);
        let pinned = hit(&named, &limited(None), NOW.plus(1));
        assert_eq!(pinned.whole.cooldown_until, named.whole.cooldown_until, "a guess shortened it");
    }

    #[test]
    fn cases_46_47_nobody_is_punished_for_what_is_not_the_profiles_fault() {
        for (kind, scope) in [
            (FailureKind::Format, Scope::Profile),
            (FailureKind::Refused, Scope::ProfileModel),
            (FailureKind::ContextOverflow, Scope::Profile),
            (FailureKind::Server, Scope::Upstream),
            (FailureKind::Overloaded, Scope::Upstream),
            (FailureKind::ModelNotFound, Scope::Model),
            (FailureKind::Unknown, Scope::Request),
        ] {
            let stats = hit(&Stats::default(), &failure(kind, scope, Some(NOW.plus(HOUR))), NOW);
            assert!(stats.is_empty(), "{kind:?}");
        }
    }

    #[test]
    fn case_44_a_refused_credential_cools() {
        let stats = hit(&Stats::default(), &failure(FailureKind::Auth, Scope::Profile, None), NOW);
        assert!(stats.blocked(None, NOW).is_some());
        assert_eq!(stats.whole.last_used, None);
    }

    #[test]
    fn a_burst_is_one_failure() {
        let rules = CooldownRules::default();
        let mut stats = Stats::default();
        for n in 0..20 {
            let now = NOW.plus(100 + n);
            stats = punish(&stats, "acme", None, &limited(None), &rules, now, NOW);
        }
        assert_eq!(stats.whole.error_count, 1);
        assert_eq!(stats.whole.cooldown_until, Some(NOW.plus(100 + MINUTE)));
        let reset = limited(Some(HOUR));
        stats = punish(&stats, "acme", None, &reset, &rules, NOW.plus(130), NOW);
        assert_eq!(stats.whole.cooldown_until, Some(NOW.plus(HOUR)));
    }

    #[test]
    fn a_clock_set_back_starts_afresh() {
        let ahead = NOW.plus(10 * 365 * 24 * HOUR);
        let stats = hit(&Stats::default(), &limited(None), ahead);
        assert_eq!(stats.blocked(None, NOW), None);
        let stats = hit(&stats, &limited(None), NOW);
        assert_eq!(stats.whole.cooldown_until.unwrap().since(NOW), MINUTE);
    }

    proptest! {
        #[test]
        fn blocks_only_grow_and_never_beyond_the_cap(
            steps in prop::collection::vec((0_u8..4, 0_i64..40 * HOUR, prop::option::of(-HOUR..400 * HOUR)), 1..40)
        ) {
            let (mut stats, mut now) = (Stats::default(), NOW);
            for (kind, pause, reset) in steps {
                now = now.plus(pause);
                let (kind, scope) = [
                    (FailureKind::RateLimit, Scope::ProfileModel),
                    (FailureKind::Billing, Scope::Profile),
                    (FailureKind::Auth, Scope::Profile),
                    (FailureKind::Server, Scope::Upstream),
                ][usize::from(kind)];
                let failure = failure(kind, scope, reset.map(|ms| now.plus(ms)));
                let before = stats.blocked(Some("m"), now);
                stats = punish(&stats, "acme", Some("m"), &failure, &CooldownRules::default(), now, now);
                let after = stats.blocked(Some("m"), now);
                if scope == Scope::Upstream {
                    prop_assert_eq!(&before, &after);
                } else {
                    prop_assert!(after.is_some());
                }
                if let Some(after) = after {
                    prop_assert!(after.until.since(now) <= MEASURED_CAP_MS);
                    // Only a time the service named may shorten a block.
                    if let (Some(before), None) = (before, failure.reset) {
                        prop_assert!(after.until >= before.until);
                    }
                }
            }
        }
    }
}
