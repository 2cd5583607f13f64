//! What the config says about profiles, as plain data.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use moltbot_core::{CredentialKind, Offer};
use serde::{Deserialize, Serialize};

use crate::ids::normal;

/// The part of the config that choice and punishment need (spec C-19, C-20).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuthRules {
    /// `auth.profiles`, in the order of the config.
    pub profiles: IndexMap<String, ProfileRule>,
    /// `auth.order`: provider, however spelled, to profile ids. An empty list means none.
    pub order: BTreeMap<String, Vec<String>>,
    /// `auth.cooldowns`.
    pub cooldowns: CooldownRules,
    /// Which stored kinds fit which mode, beyond the equal one.
    pub accepts: Vec<Accept>,
    /// `auth.strategy`.
    pub strategy: Strategy,
}

/// How to choose among profiles that can be used (`auth.strategy`).
///
/// All but [`Order`](Self::Order) rearrange equals only: profiles of the same kind and payer, in
/// an explicit order neighbours of the same kind and payer. So no strategy changes whose wallet
/// comes first. A session stays with its profile under every one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// As an explicit order lists them, else by kind, then the one used longest ago first.
    #[default]
    Order,
    /// In turns: the one used longest ago first, also within an explicit order.
    RoundRobin,
    /// The one of whose limits one starts anew first, so that nothing of it is left over.
    Drain,
    /// The one whose tightest limit is used least; what is unknown counts as unused.
    LeastUsed,
}

impl Strategy {
    /// Returns the config's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::RoundRobin => "round-robin",
            Self::Drain => "drain",
            Self::LeastUsed => "least-used",
        }
    }
}

/// One entry of `auth.profiles`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProfileRule {
    /// The provider.
    pub provider: String,
    /// `api_key`, `oauth` or `token`.
    pub mode: String,
    /// The account's e-mail address.
    pub email: Option<String>,
}

/// Says which stored kinds a profile of one mode may have; comes from an [`Offer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// The provider, normalised.
    pub provider: String,
    /// The mode that the config records.
    pub mode: String,
    /// The kinds that fit.
    pub kinds: Vec<CredentialKind>,
}

/// How long failures block (spec C-20, S-14); every number above zero.
#[derive(Clone, Debug, PartialEq)]
pub struct CooldownRules {
    /// `billingBackoffHours`: the first block after a billing failure; it doubles.
    pub billing_backoff_hours: f64,
    /// `billingBackoffHoursByProvider`.
    pub billing_backoff_hours_by_provider: BTreeMap<String, f64>,
    /// `billingMaxHours`: where doubling ends.
    pub billing_max_hours: f64,
    /// `failureWindowHours`: counters restart after so long without failure.
    pub failure_window_hours: f64,
}

impl Default for CooldownRules {
    fn default() -> Self {
        Self {
            billing_backoff_hours: 5.0,
            billing_backoff_hours_by_provider: BTreeMap::new(),
            billing_max_hours: 24.0,
            failure_window_hours: 24.0,
        }
    }
}

impl AuthRules {
    /// Adds what the offers of a provider accept.
    pub fn accept_offers(&mut self, provider: &str, offers: &[Offer]) {
        for offer in offers.iter().filter(|offer| !offer.accepts.is_empty()) {
            self.accepts.push(Accept {
                provider: normal(provider).into_owned(),
                mode: offer.mode.to_string(),
                kinds: offer.accepts.clone(),
            });
        }
    }

    /// Tells whether a stored credential of `kind` fits a profile of `mode` (spec S-5): an equal
    /// one does, a token fits `oauth`, and what an offer accepts.
    pub fn fits(&self, provider: &str, mode: &str, kind: &CredentialKind) -> bool {
        if mode == kind.as_str() || (mode == "oauth" && *kind == CredentialKind::Token) {
            return true;
        }
        let provider = normal(provider);
        self.accepts.iter().any(|accept| {
            accept.provider == provider && accept.mode == mode && accept.kinds.contains(kind)
        })
    }

    /// Returns the config's order for a provider, however its key is spelled.
    pub(crate) fn order_of(&self, provider: &str) -> Option<&[String]> {
        let list = self.order.get(provider).or_else(|| {
            self.order.iter().find(|(key, _)| normal(key) == provider).map(|(_, ids)| ids)
        });
        list.map(Vec::as_slice)
    }
}

impl CooldownRules {
    /// Returns the first billing block of a provider and the longest, in milliseconds.
    pub(crate) fn billing_ms(&self, provider: &str) -> (i64, i64) {
        let by_provider = &self.billing_backoff_hours_by_provider;
        let own = by_provider.get(provider).or_else(|| {
            let wanted = normal(provider);
            by_provider.iter().find(|(key, _)| normal(key) == wanted).map(|(_, hours)| hours)
        });
        let base = own.copied().filter(|hours| usable(*hours));
        let base = base.or(Some(self.billing_backoff_hours).filter(|hours| usable(*hours)));
        let base = hours_ms(base.unwrap_or(5.0)).max(60_000);
        let max = Some(self.billing_max_hours).filter(|hours| usable(*hours)).unwrap_or(24.0);
        (base, hours_ms(max).max(base))
    }

    /// Returns the failure window in milliseconds.
    pub(crate) fn window_ms(&self) -> i64 {
        let hours = Some(self.failure_window_hours).filter(|hours| usable(*hours));
        hours_ms(hours.unwrap_or(24.0))
    }
}

fn usable(hours: f64) -> bool {
    hours.is_finite() && hours > 0.0
}

fn hours_ms(hours: f64) -> i64 {
    // `as` saturates.
    (hours * 3_600_000.0) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use moltbot_core::CredentialKind::{ApiKey, Oauth, Token};

    #[test]
    fn case_38_modes_and_kinds() {
        let mut rules = AuthRules::default();
        for (mode, kind, fits) in [
            ("api_key", ApiKey, true),
            ("oauth", Oauth, true),
            ("token", Token, true),
            ("oauth", Token, true),
            ("token", Oauth, false),
            ("api_key", Token, false),
            ("api_key", Oauth, false),
        ] {
            assert_eq!(rules.fits("acme", mode, &kind), fits, "{mode} {kind}");
        }
        let offer = Offer { mode: "token".into(), accepts: vec![Oauth], ..Offer::default() };
        rules.accept_offers("Acme", &[offer]);
        assert!(rules.fits("acme", "token", &Oauth));
        assert!(!rules.fits("other", "token", &Oauth));
    }

    #[test]
    fn numbers_that_make_no_sense_fall_back() {
        let mut rules = CooldownRules::default();
        assert_eq!(rules.billing_ms("acme"), (5 * 3_600_000, 24 * 3_600_000));
        rules.billing_backoff_hours = f64::NAN;
        rules.billing_max_hours = -1.0;
        rules.failure_window_hours = 0.0;
        assert_eq!(rules.billing_ms("acme"), (5 * 3_600_000, 24 * 3_600_000));
        assert_eq!(rules.window_ms(), 24 * 3_600_000);
        rules.billing_backoff_hours_by_provider.insert("Acme".into(), 1e-9);
        assert_eq!(rules.billing_ms("acme").0, 60_000);
        rules.billing_backoff_hours_by_provider.insert("Acme".into(), 30.0);
        assert_eq!(rules.billing_ms("acme").1, 30 * 3_600_000);
    }
}
