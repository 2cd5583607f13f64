//! When a login is renewed, and what follows when that fails. Pure; the effects are the host's.

use moltbot_core::{Credential, CredentialKind, CredentialState, Resolved, Timestamp};

use crate::ids::normal;
use crate::{AuthRules, Profiles, ResolvedState};

/// How long before its end a login is renewed while it still works, so that nobody waits: 5
/// minutes. The host adds jitter.
pub const EARLY_RENEWAL_MS: i64 = 5 * 60_000;

/// By how much the start of the early renewal is spread, so that logins and processes do not all
/// renew in the same moment: 1 minute.
pub const EARLY_SPREAD_MS: i64 = 60_000;

/// How long a login whose renewal failed is not asked for again: 1 minute.
pub const RENEWAL_PAUSE_MS: i64 = 60_000;

/// Returns from when on a login is renewed early: [`EARLY_RENEWAL_MS`] before its end, and up to
/// [`EARLY_SPREAD_MS`] earlier, by the profile and by `seed`, which differs between processes.
pub fn early_renewal_at(expires: Timestamp, id: &str, seed: u64) -> Timestamp {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ seed;
    for byte in id.bytes().chain(seed.to_le_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let spread = i64::try_from((hash >> 16) % EARLY_SPREAD_MS.unsigned_abs()).unwrap_or(0);
    expires.plus(-(EARLY_RENEWAL_MS + spread))
}

/// What to do about a login before it is used (spec A-19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewPlan {
    /// Use it.
    Fresh,
    /// Use it, and renew it where nobody waits for that.
    Soon {
        /// When it stops working.
        expires: Timestamp,
    },
    /// Renew it, then use it.
    Due {
        /// When it stopped working, if that is known.
        expires: Option<Timestamp>,
    },
    /// It cannot be used and not be renewed.
    Impossible {
        /// Why.
        why: WhyNot,
    },
}

/// Why a login can neither be used nor renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// Expired, and there is no way to renew it.
    Expired,
    /// Its owner logged out.
    LoggedOut,
    /// There is no secret.
    Missing,
    /// It cannot be understood.
    Unreadable,
}

/// Says whether a login must be renewed before use.
pub fn renew_plan(state: &ResolvedState, now: Timestamp) -> RenewPlan {
    match state.state {
        CredentialState::Ready => match state.expires {
            Some(expires) if state.refreshable && expires.since(now) <= EARLY_RENEWAL_MS => {
                RenewPlan::Soon { expires }
            }
            _ => RenewPlan::Fresh,
        },
        CredentialState::Expired if state.refreshable => RenewPlan::Due { expires: state.expires },
        CredentialState::Expired => RenewPlan::Impossible { why: WhyNot::Expired },
        CredentialState::LoggedOut => RenewPlan::Impossible { why: WhyNot::LoggedOut },
        CredentialState::Absent => RenewPlan::Impossible { why: WhyNot::Missing },
        CredentialState::Unreadable => RenewPlan::Impossible { why: WhyNot::Unreadable },
    }
}

/// Tells whether a re-read login replaces the one at hand: usable, with other secrets, and not
/// ending earlier (spec A-20).
pub fn is_newer(at_hand: &Resolved, reread: &Resolved, now: Timestamp) -> bool {
    reread.state == CredentialState::Ready
        && !reread.credential.is_expired(now)
        && reread.generation != at_hand.generation
        && match (at_hand.credential.expiry(), reread.credential.expiry()) {
            (Some(old), Some(new)) => new >= old,
            _ => true,
        }
}

/// What to do after a renewal failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterRefresh {
    /// Somebody else renewed it meanwhile: use what was re-read.
    UseReread,
    /// Use this profile instead.
    UseSibling(String),
    /// Report the failure.
    Fail,
}

/// Says what follows a failed renewal (spec A-24).
pub fn after_failed_refresh(
    reread: &ResolvedState,
    id: &str,
    profiles: &Profiles,
    rules: &AuthRules,
    now: Timestamp,
) -> AfterRefresh {
    let fresh = reread.state == CredentialState::Ready
        && reread.expires.is_none_or(|expires| now < expires);
    if fresh {
        return AfterRefresh::UseReread;
    }
    match suggested_sibling(profiles, rules, id) {
        Some(sibling) => AfterRefresh::UseSibling(sibling),
        None => AfterRefresh::Fail,
    }
}

/// Suggests the profile that took the place of an old `<provider>:default` login (spec S-20):
/// the login with the configured e-mail, else the last good one, else the only other, else the
/// only one named by an e-mail address.
pub fn suggested_sibling(profiles: &Profiles, rules: &AuthRules, id: &str) -> Option<String> {
    let provider = id.strip_suffix(":default")?;
    let rule = rules.profiles.get(id);
    if rule.is_some_and(|rule| rule.mode != "oauth" || normal(&rule.provider) != normal(provider)) {
        return None;
    }
    let is_login = |stored: &Credential| stored.kind == CredentialKind::Oauth;
    let logins: Vec<(&str, &Credential)> = profiles
        .of_provider(provider)
        .filter(|(other, stored)| *other != id && is_login(stored))
        .collect();
    if let Some(email) = rule.and_then(|rule| rule.email.as_deref()) {
        let same = |text: &str| text.trim().eq_ignore_ascii_case(email.trim());
        let named = logins.iter().find(|(other, stored)| {
            stored.email.as_deref().is_some_and(same)
                || other.split_once(':').is_some_and(|(_, name)| same(name))
        });
        if let Some((other, _)) = named {
            return Some((*other).to_string());
        }
    }
    let good = profiles.last_good(provider);
    if let Some((other, _)) = logins.iter().find(|(other, _)| Some(*other) == good) {
        return Some((*other).to_string());
    }
    if let [(only, _)] = logins[..] {
        return Some(only.to_string());
    }
    let mut by_email = logins.iter().filter(|(other, _)| other.contains('@'));
    match (by_email.next(), by_email.next()) {
        (Some((only, _)), None) => Some((*only).to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProfileRule;
    use moltbot_core::{Payer, Secret};

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn state(state: CredentialState, remaining: Option<i64>, refreshable: bool) -> ResolvedState {
        let expires = remaining.map(|ms| NOW.plus(ms));
        ResolvedState {
            state,
            kind: CredentialKind::Oauth,
            expires,
            refreshable,
            payer: Payer::Unknown,
        }
    }

    fn login(access: &str, remaining: i64) -> Credential {
        let mut login = Credential::new(CredentialKind::Oauth, "acme");
        login.access = Some(Secret::new(access));
        login.expires = Some(NOW.plus(remaining));
        login
    }

    #[test]
    fn a_login_is_renewed_when_due() {
        use CredentialState::{Expired, LoggedOut, Ready};
        let hour = 3_600_000;
        assert_eq!(renew_plan(&state(Ready, Some(hour), true), NOW), RenewPlan::Fresh);
        assert_eq!(renew_plan(&state(Ready, None, true), NOW), RenewPlan::Fresh);
        assert_eq!(renew_plan(&state(Ready, Some(1), false), NOW), RenewPlan::Fresh);
        let soon = renew_plan(&state(Ready, Some(EARLY_RENEWAL_MS), true), NOW);
        assert_eq!(soon, RenewPlan::Soon { expires: NOW.plus(EARLY_RENEWAL_MS) });
        let due = renew_plan(&state(Expired, Some(-1), true), NOW);
        assert_eq!(due, RenewPlan::Due { expires: Some(NOW.plus(-1)) });
        for (is, why) in [(Expired, WhyNot::Expired), (LoggedOut, WhyNot::LoggedOut)] {
            assert_eq!(renew_plan(&state(is, None, false), NOW), RenewPlan::Impossible { why });
        }
    }

    #[test]
    fn only_a_newer_login_is_adopted() {
        let judged = |access, remaining| Resolved::judged(login(access, remaining), NOW);
        let old = judged("A", -1);
        assert!(is_newer(&old, &judged("B", 1_000), NOW));
        assert!(!is_newer(&old, &judged("A", -1), NOW), "the same");
        assert!(!is_newer(&old, &judged("B", -1), NOW), "expired too");
        assert!(!is_newer(&judged("A", 2_000), &judged("B", 1_000), NOW), "ends earlier");
    }

    #[test]
    fn early_renewals_are_spread_over_a_minute() {
        let times: Vec<i64> = (0..200)
            .map(|seed| NOW.since(early_renewal_at(NOW, "acme:a", seed)) - EARLY_RENEWAL_MS)
            .collect();
        assert!(times.iter().all(|ms| (0..EARLY_SPREAD_MS).contains(ms)));
        for quarter in 0..4 {
            let within = quarter * 15_000..(quarter + 1) * 15_000;
            let count = times.iter().filter(|ms| within.contains(*ms)).count();
            assert!((20..80).contains(&count), "{count} of 200 in {within:?}");
        }
        assert_eq!(early_renewal_at(NOW, "acme:a", 7), early_renewal_at(NOW, "acme:a", 7));
        assert_ne!(early_renewal_at(NOW, "acme:a", 7), early_renewal_at(NOW, "acme:b", 7));
    }

    fn store(logins: &[&str]) -> Profiles {
        let mut profiles = Profiles::default();
        for id in logins {
            profiles.insert(*id, login("FAKE", 1));
        }
        profiles.insert("acme:key", Credential::api_key("acme", Secret::new("FAKE")));
        profiles
    }

    fn rules(mode: &str, email: Option<&str>) -> AuthRules {
        let mut rules = AuthRules::default();
        let email = email.map(str::to_string);
        let rule = ProfileRule { provider: "acme".into(), mode: mode.into(), email };
        rules.profiles.insert("acme:default".into(), rule);
        rules
    }

    #[test]
    fn a_sibling_is_suggested_for_an_old_default_only() {
        let none = AuthRules::default();
        let find = |profiles: &Profiles, rules: &AuthRules| {
            suggested_sibling(profiles, rules, "acme:default")
        };
        let two = store(&["acme:default", "acme:a@x.org", "acme:work"]);
        assert_eq!(find(&two, &none).as_deref(), Some("acme:a@x.org"), "the only e-mail name");
        let mut good = two.clone();
        good.set_last_good("acme", "acme:work");
        assert_eq!(find(&good, &none).as_deref(), Some("acme:work"), "the last good one");
        let by_email = rules("oauth", Some("A@X.org"));
        assert_eq!(find(&good, &by_email).as_deref(), Some("acme:a@x.org"), "the configured one");
        assert_eq!(find(&two, &rules("token", None)), None, "another mode");
        assert_eq!(find(&store(&["acme:work"]), &none).as_deref(), Some("acme:work"), "the only");
        assert_eq!(find(&store(&["acme:w", "acme:v"]), &none), None, "unclear");
        assert_eq!(find(&store(&[]), &none), None);
        assert_eq!(suggested_sibling(&two, &none, "acme:work"), None);
    }

    #[test]
    fn after_a_failure_the_reread_login_comes_first() {
        let (profiles, rules) = (store(&["acme:work"]), AuthRules::default());
        let after = |reread: ResolvedState, id: &str| {
            after_failed_refresh(&reread, id, &profiles, &rules, NOW)
        };
        let fresh = state(CredentialState::Ready, Some(1), true);
        let expired = || state(CredentialState::Expired, Some(-1), true);
        assert_eq!(after(fresh, "acme:default"), AfterRefresh::UseReread);
        let sibling = AfterRefresh::UseSibling("acme:work".into());
        assert_eq!(after(expired(), "acme:default"), sibling);
        assert_eq!(after(expired(), "acme:work"), AfterRefresh::Fail);
    }
}
