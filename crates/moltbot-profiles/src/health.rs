//! How a profile looks in `models status`: health, label, name. Pure.

use moltbot_core::{Credential, CredentialKind, CredentialState, Timestamp, mask};
use serde::Serialize;

use crate::{BlockKind, ResolvedState, Stats, remaining_text};

/// How long before its end a credential that nobody can renew counts as expiring: 24 hours.
pub const WARN_MS: i64 = 24 * 3_600_000;

/// The same for one that is renewed by itself: 10 minutes.
pub const WARN_REFRESHABLE_MS: i64 = 10 * 60_000;

/// How a credential is doing (spec L-35).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It does not expire.
    Static,
    /// It works and will for a while.
    Ok,
    /// It will soon stop working.
    Expiring,
    /// It is not there, or cannot be judged.
    Missing,
    /// It stopped working.
    Expired,
}

/// Judges one profile by its resolved credential (spec L-35).
pub fn health(state: &ResolvedState, now: Timestamp) -> Health {
    match state.state {
        CredentialState::Absent | CredentialState::LoggedOut | CredentialState::Unreadable => {
            return Health::Missing;
        }
        CredentialState::Expired => return Health::Expired,
        CredentialState::Ready => {}
    }
    let Some(expires) = state.expires.filter(|_| state.kind != CredentialKind::ApiKey) else {
        return match state.kind {
            CredentialKind::Oauth => Health::Missing,
            _ => Health::Static,
        };
    };
    let warn = if state.refreshable { WARN_REFRESHABLE_MS } else { WARN_MS };
    match expires.since(now) {
        remaining if remaining <= 0 => Health::Expired,
        remaining if remaining <= warn => Health::Expiring,
        _ => Health::Ok,
    }
}

/// Judges a provider by the profiles in its order: the worst login or token, where missing counts
/// as expired; keys alone are static; nothing at all is missing (spec L-35).
pub fn provider_health<'a>(
    profiles: impl IntoIterator<Item = (Health, &'a CredentialKind)>,
) -> Health {
    let (mut worst, mut any) = (None, false);
    for (health, kind) in profiles {
        any = true;
        if matches!(kind, CredentialKind::Oauth | CredentialKind::Token) {
            let health = if health == Health::Missing { Health::Expired } else { health };
            worst = worst.max(Some(health));
        }
    }
    match (worst, any) {
        (Some(worst), _) => worst,
        (None, true) => Health::Static,
        (None, false) => Health::Missing,
    }
}

/// Returns the label of a profile in `models status` (spec L-36): what it holds, masked, and its
/// block if one holds. `credential` is the resolved one.
pub fn label(id: &str, credential: &Credential, stats: Option<&Stats>, now: Timestamp) -> String {
    let held = match (&credential.kind, credential.secret()) {
        (CredentialKind::Oauth, _) => "OAuth".to_string(),
        (CredentialKind::Token, Some(token)) => format!("token:{}", mask(token.expose())),
        (_, Some(key)) => mask(key.expose()),
        (CredentialKind::None, None) => "login".to_string(),
        (_, None) => "missing".to_string(),
    };
    format!("{id}={held}{}", suffix(stats, now))
}

/// Returns a profile id with the account's address, if one is known (spec A-4).
pub fn display_name(id: &str, email: Option<&str>) -> String {
    match email.map(str::trim).filter(|email| !email.is_empty()) {
        Some(email) => format!("{id} ({email})"),
        None => id.to_string(),
    }
}

/// Returns ` [cooldown 1m]`, ` [disabled:billing 5h]` or ` [cooldown 1m: model, model]`.
fn suffix(stats: Option<&Stats>, now: Timestamp) -> String {
    let blocks = stats.map(|stats| stats.blocks(now)).unwrap_or_default();
    let mut text = String::new();
    for (blocked, models) in &blocks {
        let kind = match (blocked.kind, &blocked.reason) {
            (BlockKind::Cooldown, _) => "cooldown".to_string(),
            (BlockKind::Disabled, Some(reason)) => format!("disabled:{reason}"),
            (BlockKind::Disabled, None) => "disabled".to_string(),
            (BlockKind::Empty, reason) => {
                format!("empty:{}", reason.as_deref().unwrap_or("limit"))
            }
        };
        let remaining = remaining_text(Some(blocked.until.since(now)));
        let models = match models.is_empty() {
            true => String::new(),
            false => format!(": {}", models.join(", ")),
        };
        text.push_str(&format!(" [{kind} {remaining}{models}]"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Block;
    use moltbot_core::{Payer, Secret};

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
    const HOUR: i64 = 3_600_000;

    fn state(kind: CredentialKind, remaining: Option<i64>, refreshable: bool) -> ResolvedState {
        let expires = remaining.map(|ms| NOW.plus(ms));
        let state = match remaining {
            Some(ms) if ms <= 0 => CredentialState::Expired,
            _ => CredentialState::Ready,
        };
        ResolvedState { state, kind, expires, refreshable, payer: Payer::Unknown }
    }

    #[test]
    fn case_65_health_follows_the_way_it_is_renewed() {
        use CredentialKind::{ApiKey, Oauth, Token};
        for (kind, remaining, refreshable, is) in [
            (ApiKey, None, false, Health::Static),
            (Token, None, false, Health::Static),
            (Token, Some(-HOUR), false, Health::Expired),
            (Token, Some(3 * HOUR), false, Health::Expiring),
            (Token, Some(25 * HOUR), false, Health::Ok),
            (Oauth, Some(3 * HOUR), true, Health::Ok),
            (Oauth, Some(WARN_REFRESHABLE_MS), true, Health::Expiring),
            (Oauth, Some(3 * HOUR), false, Health::Expiring),
            (Oauth, None, true, Health::Missing),
        ] {
            let state = state(kind, remaining, refreshable);
            assert_eq!(health(&state, NOW), is, "{state:?}");
        }
    }

    #[test]
    fn a_provider_is_as_well_as_its_worst_login() {
        use CredentialKind::{ApiKey, Oauth, Token};
        let judge = |list: &[(Health, CredentialKind)]| {
            provider_health(list.iter().map(|(health, kind)| (*health, kind)))
        };
        assert_eq!(judge(&[(Health::Static, ApiKey)]), Health::Static);
        assert_eq!(judge(&[(Health::Static, ApiKey), (Health::Ok, Oauth)]), Health::Ok);
        assert_eq!(judge(&[(Health::Ok, Oauth), (Health::Expiring, Token)]), Health::Expiring);
        assert_eq!(judge(&[(Health::Missing, Oauth), (Health::Expiring, Token)]), Health::Expired);
        assert_eq!(judge(&[]), Health::Missing);
    }

    #[test]
    fn labels_mask_and_name_the_block() {
        let key = Credential::api_key("acme", Secret::new("sk-a-FAKEFAKEFAKE-DDDD"));
        let token = Credential::token("acme", Secret::new("tok-FAKEFAKEFAKE-ZZZZ"), None);
        let login = Credential::link(CredentialKind::Oauth, "acme", "somebody");
        assert_eq!(label("acme:a", &key, None, NOW), "acme:a=sk-a...DDDD");
        assert_eq!(label("acme:t", &token, None, NOW), "acme:t=token:tok-...ZZZZ");
        assert_eq!(label("acme:l", &login, None, NOW), "acme:l=OAuth");
        let cooling = |ms| Block { cooldown_until: Some(NOW.plus(ms)), ..Block::default() };
        let stats = Stats { whole: cooling(58_289), ..Stats::default() };
        assert_eq!(label("acme:l", &login, Some(&stats), NOW), "acme:l=OAuth [cooldown 1m]");
        let models = [("opus-4-5".to_string(), cooling(60_000))].into();
        let stats = Stats { models, ..Stats::default() };
        assert_eq!(
            label("acme:l", &login, Some(&stats), NOW),
            "acme:l=OAuth [cooldown 1m: opus-4-5]"
        );
        let whole = Block {
            disabled_until: Some(NOW.plus(5 * HOUR)),
            disabled_reason: Some("billing".into()),
            ..Block::default()
        };
        let stats = Stats { whole, ..Stats::default() };
        assert_eq!(
            label("acme:l", &login, Some(&stats), NOW),
            "acme:l=OAuth [disabled:billing 5h]"
        );
        assert_eq!(display_name("acme:l", Some("a@x.org")), "acme:l (a@x.org)");
        assert_eq!(display_name("acme:l", Some(" ")), "acme:l");
    }
}
