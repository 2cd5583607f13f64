//! How a session holds on to a profile (spec S-8 to S-10).

use serde::{Deserialize, Serialize};

use crate::{Choice, SkipReason};

/// Says which profile a request should use, and how firmly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pin<'a> {
    /// Any.
    #[default]
    None,
    /// This one first, others allowed (S-9).
    Auto(&'a str),
    /// This one only, even if it rests (S-10).
    User(&'a str),
}

/// The profile of a session, in the fields of a session file (S-8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPin {
    /// Which profile.
    #[serde(rename = "authProfileOverride")]
    pub profile: String,
    /// Who chose it.
    #[serde(rename = "authProfileOverrideSource", default)]
    pub source: PinSource,
    /// How often the session had been compacted when it was chosen.
    #[serde(rename = "authProfileOverrideCompactionCount", default)]
    pub compactions: u32,
}

/// Says who pinned a profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PinSource {
    /// The choice itself, at first use.
    #[default]
    Auto,
    /// The user, with `@profile`.
    User,
}

impl SessionPin {
    /// Returns the pin as an input of the choice.
    pub fn as_pin(&self) -> Pin<'_> {
        match self.source {
            PinSource::Auto => Pin::Auto(&self.profile),
            PinSource::User => Pin::User(&self.profile),
        }
    }
}

/// Returns the pin of a session for its next request, given a `choice` made without a pin.
///
/// A user's pin stays until a new session, unless its profile is gone or not in the order. An
/// automatic one moves on with a new session or a compaction, and is chosen again when its
/// profile rests.
pub fn repin(
    old: Option<&SessionPin>,
    choice: &Choice,
    new_session: bool,
    compactions: u32,
) -> Option<SessionPin> {
    let held = old.filter(|pin| {
        let listed = choice.order().contains(&pin.profile.as_str());
        let gone = choice.skipped.iter().any(|skipped| {
            skipped.id == pin.profile
                && matches!(
                    skipped.reason,
                    SkipReason::NotStored {} | SkipReason::OtherProvider { .. }
                )
        });
        listed || (choice.order().is_empty() && !gone)
    });
    let auto = |profile: &str| SessionPin {
        profile: profile.to_string(),
        source: PinSource::Auto,
        compactions,
    };
    let first = || {
        let ready = choice.candidates.first().map(|candidate| candidate.id.as_str());
        ready.or_else(|| choice.order().first().copied()).map(auto)
    };
    let Some(pin) = held else { return first() };
    let moves_on = new_session || (pin.source == PinSource::Auto && compactions > pin.compactions);
    if moves_on {
        return next_after(&pin.profile, choice).map(auto).or_else(first);
    }
    let ready = choice.candidates.iter().any(|candidate| candidate.id == pin.profile);
    if pin.source == PinSource::User || ready || choice.candidates.is_empty() {
        return Some(pin.clone());
    }
    first()
}

/// Returns the next profile in the order, in a circle, that can be used now.
fn next_after<'a>(profile: &str, choice: &'a Choice) -> Option<&'a str> {
    let order = choice.order();
    let start = order.iter().position(|id| *id == profile)?;
    (1..=order.len())
        .map(|step| order[(start + step) % order.len()])
        .find(|id| choice.candidates.iter().any(|candidate| candidate.id == *id))
}
