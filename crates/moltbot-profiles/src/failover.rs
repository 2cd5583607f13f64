//! What follows a failure, and how long to wait when every profile rests. Pure: chats and the
//! simulator ask the same questions here (spec S-11, S-12, T-28, decision "Failure scope").

use moltbot_core::{Failure, FailureKind, Scope, Timestamp};

use crate::{Choice, RetryBudget};

/// How often one model is asked for the same, all causes together (spec T-28).
pub const TRIES: u32 = 3;

/// The longest time a model is passed over because its service is too busy, in milliseconds.
pub const MAX_BUSY_MS: i64 = 10_000;

/// How a request for one model stands when one of its tries has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How many tries are left.
    pub left: u32,
    /// Whether no other credential is left to be tried.
    pub alone: bool,
    /// Whether another model could be tried.
    pub more_models: bool,
    /// Whether another profile was tried already because the service was too busy.
    pub moved: bool,
    /// How long the request may still wait, in milliseconds.
    pub patience_ms: u64,
}

/// What follows a failure of which nothing was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The same, after so many milliseconds.
    After(u64),
    /// The next credential.
    Elsewhere,
    /// The next model.
    OtherModel,
    /// Nothing: it would fail again.
    Never,
}

/// Decides what follows a failure. What would ask a service again that is in trouble itself takes
/// from `budget`; without budget the next model is all that is left.
pub fn next_step(
    failure: &Failure,
    standing: &Standing,
    budget: &mut RetryBudget,
    now: Timestamp,
) -> Next {
    let wish = wished(failure, standing, now);
    let of_profile = matches!(failure.scope, Scope::Profile | Scope::ProfileModel);
    let costs = match wish {
        Next::After(_) => true,
        // Another profile is not another burden, unless the trouble is the service's.
        Next::Elsewhere => !of_profile,
        Next::OtherModel | Next::Never => false,
    };
    if !costs || budget.take() {
        return wish;
    }
    if of_profile { Next::Elsewhere } else { Next::OtherModel }
}

/// Returns until when a model is passed over after its service said that it is too busy.
pub fn busy_until(failure: &Failure, now: Timestamp) -> Timestamp {
    let most = now.plus(MAX_BUSY_MS);
    failure.reset.map_or(most, |reset| reset.min(most))
}

fn wished(failure: &Failure, standing: &Standing, now: Timestamp) -> Next {
    let pause = pause(failure, standing, now).filter(|_| standing.left > 0);
    match (failure.kind, failure.scope) {
        (FailureKind::Overloaded, _) => match pause.filter(|_| !standing.more_models) {
            _ if !standing.alone && !standing.moved && standing.left > 0 => Next::Elsewhere,
            Some(ms) => Next::After(ms),
            None => Next::OtherModel,
        },
        (_, Scope::Request) => Next::Never,
        (_, Scope::Model) => Next::OtherModel,
        // Waiting for a profile makes sense only if there is nothing else to ask.
        (_, Scope::Profile | Scope::ProfileModel) => {
            match pause.filter(|_| standing.alone && !standing.more_models) {
                Some(ms) => Next::After(ms),
                None => Next::Elsewhere,
            }
        }
        // A service that does not answer in time is not asked for as long once more.
        (FailureKind::Timeout, _) => Next::OtherModel,
        _ => pause.map_or(Next::OtherModel, Next::After),
    }
}

/// Says how long to wait before the same is asked once more; `None` if that is too long.
fn pause(failure: &Failure, standing: &Standing, now: Timestamp) -> Option<u64> {
    let again = TRIES.saturating_sub(standing.left).saturating_sub(1).min(16);
    let usual = match failure.kind {
        FailureKind::RateLimit | FailureKind::Overloaded => 2_000_u64,
        FailureKind::Auth | FailureKind::Billing => return None,
        _ => 500,
    } << again;
    let wait = match failure.reset {
        Some(reset) => u64::try_from(reset.since(now)).unwrap_or(0),
        None => usual,
    };
    (wait <= standing.patience_ms).then_some(wait)
}

/// Whether a request waits for a profile that rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// There is something to try, or nothing to wait for.
    No,
    /// Until the first one has rested.
    Until(Timestamp),
    /// No: it rests until then, which is too long.
    TooLong(Timestamp),
}

impl Choice {
    /// Says whether a request that arrived at `arrived` waits: only if every profile rests, and
    /// never longer than `most_ms` in all.
    pub fn wait(&self, arrived: Timestamp, now: Timestamp, most_ms: u64) -> Wait {
        let Some(soonest) = self.soonest().filter(|_| self.all_cooling()) else { return Wait::No };
        // A clock that was set back must not make anybody wait longer.
        let in_all = soonest.since(arrived.min(now));
        match in_all <= i64::try_from(most_ms).unwrap_or(i64::MAX) {
            true => Wait::Until(soonest),
            false => Wait::TooLong(soonest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn failure(kind: FailureKind, scope: Scope, reset: Option<i64>) -> Failure {
        Failure {
            kind,
            scope,
            reset: reset.map(|ms| NOW.plus(ms)),
            account: None,
            code: "x".into(),
            message: String::new(),
            advice: None,
        }
    }

    fn standing() -> Standing {
        Standing { left: 2, alone: true, more_models: false, moved: false, patience_ms: 30_000 }
    }

    fn step(failure: &Failure, standing: Standing) -> Next {
        next_step(failure, &standing, &mut RetryBudget::default(), NOW)
    }

    #[test]
    fn whom_it_concerns_decides() {
        use FailureKind as K;
        let two = Standing { alone: false, ..standing() };
        for (kind, scope, reset, at, expected) in [
            (K::RateLimit, Scope::ProfileModel, None, two, Next::Elsewhere),
            (K::RateLimit, Scope::ProfileModel, Some(2_000), standing(), Next::After(2_000)),
            (K::RateLimit, Scope::ProfileModel, Some(31_000), standing(), Next::Elsewhere),
            (K::Auth, Scope::Profile, None, standing(), Next::Elsewhere),
            (K::Billing, Scope::Profile, None, two, Next::Elsewhere),
            (K::Overloaded, Scope::Upstream, None, two, Next::Elsewhere),
            (
                K::Overloaded,
                Scope::Model,
                None,
                Standing { moved: true, ..two },
                Next::After(2_000),
            ),
            (
                K::Overloaded,
                Scope::Model,
                None,
                Standing { more_models: true, ..standing() },
                Next::OtherModel,
            ),
            (K::Server, Scope::Upstream, None, two, Next::After(500)),
            (K::Server, Scope::Upstream, None, Standing { left: 0, ..two }, Next::OtherModel),
            (K::Timeout, Scope::Upstream, None, two, Next::OtherModel),
            (K::ModelNotFound, Scope::Model, None, two, Next::OtherModel),
            (K::ContextOverflow, Scope::Request, None, two, Next::Never),
            (K::Format, Scope::Request, None, two, Next::Never),
        ] {
            assert_eq!(step(&failure(kind, scope, reset), at), expected, "{kind:?} {scope:?}");
        }
    }

    #[test]
    fn without_budget_only_what_burdens_nobody_is_left() {
        let mut spent = RetryBudget::default();
        while spent.take() {}
        let two = Standing { alone: false, ..standing() };
        let mut ask = |failure: &Failure, at| next_step(failure, &at, &mut spent, NOW);
        let busy = failure(FailureKind::Overloaded, Scope::Upstream, None);
        assert_eq!(ask(&busy, two), Next::OtherModel);
        assert_eq!(ask(&busy, standing()), Next::OtherModel);
        let limited = failure(FailureKind::RateLimit, Scope::ProfileModel, Some(1_000));
        assert_eq!(ask(&limited, two), Next::Elsewhere, "another account is no burden");
        assert_eq!(ask(&limited, standing()), Next::Elsewhere, "nobody asks the same again");
    }

    #[test]
    fn a_busy_model_is_passed_over_for_ten_seconds_at_most() {
        let busy = |reset| busy_until(&failure(FailureKind::Overloaded, Scope::Model, reset), NOW);
        assert_eq!(busy(None), NOW.plus(MAX_BUSY_MS));
        assert_eq!(busy(Some(3_000)), NOW.plus(3_000));
        assert_eq!(busy(Some(i64::MAX / 4)), NOW.plus(MAX_BUSY_MS));
    }
}
