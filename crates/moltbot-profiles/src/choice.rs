//! Which profiles a request may use, in which order, and why not the others (spec S-4 to S-11).
//! Pure.

use std::collections::HashSet;
use std::fmt;

use moltbot_core::{Credential, CredentialKind, CredentialState, Payer, Resolved, Timestamp};
use serde::Serialize;

use crate::ids::normal;
use crate::{AuthRules, BlockKind, Blocked, Pin, ProfileRule, Profiles, Strategy};

/// How many profiles outside the order are listed by name; the rest is counted.
const LISTED_HIDDEN: usize = 32;

/// Everything a choice depends on.
pub struct ChoiceInput<'a> {
    /// The agent's own store.
    pub profiles: &'a Profiles,
    /// What the config says.
    pub rules: &'a AuthRules,
    /// For which provider, however spelled.
    pub provider: &'a str,
    /// For which model, without its provider; without one only blocks of whole profiles count.
    pub model: Option<&'a str>,
    /// Which profile is wished for.
    pub pin: Pin<'a>,
    /// Credentials of other providers that this one takes too: `ProviderInfo.accepts`.
    pub also: &'a [(String, CredentialKind)],
    /// Logins that are asked for by the program the provider runs; never stored.
    pub owned: &'a [&'a str],
    /// What a stored credential is worth now. Asked once for each profile of the order.
    pub resolved: &'a dyn Fn(&str, &Credential) -> ResolvedState,
    /// The time.
    pub now: Timestamp,
}

impl<'a> ChoiceInput<'a> {
    /// Makes an input with nothing but the necessary.
    pub fn new(
        profiles: &'a Profiles,
        rules: &'a AuthRules,
        provider: &'a str,
        resolved: &'a dyn Fn(&str, &Credential) -> ResolvedState,
        now: Timestamp,
    ) -> Self {
        Self {
            profiles,
            rules,
            provider,
            model: None,
            pin: Pin::None,
            also: &[],
            owned: &[],
            resolved,
            now,
        }
    }
}

/// What the choice must know of a resolved credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedState {
    /// Whether it can be used.
    pub state: CredentialState,
    /// Its kind, which for a link may differ from the stored one.
    pub kind: CredentialKind,
    /// When it stops working.
    pub expires: Option<Timestamp>,
    /// Whether an expired one can be renewed: by its own refresh token or by its owner.
    pub refreshable: bool,
    /// Who pays; passed on to the candidate.
    pub payer: Payer,
}

impl ResolvedState {
    /// Takes what an auth method said.
    pub fn of(resolved: &Resolved, refreshable: bool) -> Self {
        Self {
            state: resolved.state,
            kind: resolved.credential.kind.clone(),
            expires: resolved.credential.expiry(),
            refreshable,
            payer: Payer::Unknown,
        }
    }

    /// Judges a stored credential by its own fields.
    pub fn stored(credential: &Credential, refreshable: bool, now: Timestamp) -> Self {
        let state = if credential.kind == CredentialKind::None {
            CredentialState::Ready
        } else if credential.secret().is_none() {
            // Nothing to send, but a refresh token can get it (spec S-6: access or refresh).
            match &credential.refresh {
                Some(refresh) if refreshable && !refresh.is_blank() => CredentialState::Expired,
                _ => CredentialState::Absent,
            }
        } else if credential.is_expired(now) {
            CredentialState::Expired
        } else {
            CredentialState::Ready
        };
        let expires = credential.expiry();
        Self { state, kind: credential.kind.clone(), expires, refreshable, payer: Payer::Unknown }
    }
}

/// The result of a choice.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Choice {
    /// What may be tried now, first one first. None of them rests, except one the user pinned.
    pub candidates: Vec<Candidate>,
    /// What is not tried, and why: first those that rest, soonest over first.
    pub skipped: Vec<Skipped>,
    /// How many of the provider's profiles outside the order `skipped` leaves out, for there are
    /// many.
    pub hidden: usize,
    /// Where the order comes from.
    pub from: OrderSource,
    /// How equals were arranged.
    pub strategy: Strategy,
    /// The order of S-6 with a pin: candidates, then those that rest; a wished-for one first in
    /// any case. Empty without a pin.
    #[serde(skip)]
    order: Vec<String>,
}

/// A profile to be tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// Which profile.
    pub id: String,
    /// The kind of its resolved credential.
    pub kind: CredentialKind,
    /// Whether it must be renewed before use.
    pub renew: bool,
    /// When it stops working.
    pub expires: Option<Timestamp>,
    /// Who pays.
    pub payer: Payer,
    /// The block that the user's pin overrides.
    pub blocked: Option<Blocked>,
}

/// A profile that is not tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    /// Which profile.
    pub id: String,
    /// Why.
    #[serde(flatten)]
    pub reason: SkipReason,
    /// Until when, if it rests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// Why a profile is not tried; `Display` says it in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum SkipReason {
    /// It rests.
    Cooldown {
        /// Only for this model.
        model_only: bool,
    },
    /// It is out of order.
    Disabled {
        /// `billing`.
        cause: String,
    },
    /// A limit of it is used up, as a reply told.
    Empty {
        /// Which.
        limit: String,
        /// Whether other models are not concerned.
        model_only: bool,
    },
    /// The order or the config names it, the store does not have it.
    NotStored {},
    /// The store has something under that id that cannot be understood.
    Broken {},
    /// It belongs to another provider.
    OtherProvider {
        /// Which.
        provider: String,
    },
    /// The config says another mode than its kind.
    ModeMismatch {
        /// The config's.
        mode: String,
        /// The store's.
        kind: CredentialKind,
    },
    /// It holds no secret.
    Missing {},
    /// Its time is over and it cannot be renewed.
    Expired {},
    /// The owner of the login logged out.
    LoggedOut {},
    /// What it points at cannot be understood.
    Unreadable {},
    /// An explicit order leaves it out.
    NotInOrder {},
    /// The config lists profiles of the provider, and not this one.
    NotInConfig {},
    /// The user pinned another one.
    NotPinned {},
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cooldown { model_only: false } => f.write_str("cooling down"),
            Self::Cooldown { model_only: true } => f.write_str("cooling down for this model"),
            Self::Disabled { cause } => write!(f, "disabled: {cause}"),
            Self::Empty { limit, model_only: false } => write!(f, "used up: {limit}"),
            Self::Empty { limit, model_only: true } => {
                write!(f, "used up for this model: {limit}")
            }
            Self::NotStored {} => f.write_str("not in the store"),
            Self::Broken {} => f.write_str("its entry in the store cannot be understood"),
            Self::OtherProvider { provider } => write!(f, "it is for {provider}"),
            Self::ModeMismatch { mode, kind } => {
                write!(f, "mode mismatch: the config says {mode}, the store has {kind}")
            }
            Self::Missing {} => f.write_str("missing"),
            Self::Expired {} => f.write_str("expired"),
            Self::LoggedOut {} => f.write_str("logged out"),
            Self::Unreadable {} => f.write_str("unreadable"),
            Self::NotInOrder {} => f.write_str("not in the order"),
            Self::NotInConfig {} => f.write_str("not in auth.profiles of the config"),
            Self::NotPinned {} => f.write_str("another profile is pinned"),
        }
    }
}

/// Where an order comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum OrderSource {
    /// `order` of the store.
    Store,
    /// `auth.order` of the config.
    Config,
    /// `auth.profiles` of the config.
    ConfigProfiles,
    /// Whatever is stored.
    Stored,
}

impl Choice {
    /// Returns the order of S-6, with those that rest at its end.
    pub fn order(&self) -> Vec<&str> {
        if !self.order.is_empty() {
            return self.order.iter().map(String::as_str).collect();
        }
        let ready = self.candidates.iter().map(|candidate| candidate.id.as_str());
        let resting = self.skipped.iter().filter(|skipped| skipped.until.is_some());
        ready.chain(resting.map(|skipped| skipped.id.as_str())).collect()
    }

    /// Returns when the first profile that rests can be used again.
    pub fn soonest(&self) -> Option<Timestamp> {
        self.skipped.iter().filter_map(|skipped| skipped.until).min()
    }

    /// Tells whether there are profiles and every one rests (spec S-11).
    pub fn all_cooling(&self) -> bool {
        self.candidates.is_empty() && self.soonest().is_some()
    }

    /// Returns why a profile is not tried.
    pub fn why_not(&self, id: &str) -> Option<&SkipReason> {
        self.skipped.iter().find(|skipped| skipped.id == id).map(|skipped| &skipped.reason)
    }
}

/// Chooses: eligible profiles in order, every other one with its reason (spec S-5 to S-11).
///
/// Deterministic. The cost depends on the profiles of this provider and of the order, not on
/// those of others.
pub fn order(input: &ChoiceInput<'_>) -> Choice {
    let provider = normal(input.provider);
    let (from, base) = base(input, &provider);
    let explicit = matches!(from, OrderSource::Store | OrderSource::Config);
    // As a rule nearly all can be used.
    let mut ready: Vec<Eligible> = Vec::with_capacity(base.len());
    let mut cooling = Vec::new();
    let (mut skipped, mut seen) = (Vec::new(), HashSet::new());
    for (id, stored) in base {
        // What is stored is there once and leaves nobody out: nothing to remember.
        if from != OrderSource::Stored && !seen.insert(id) {
            continue;
        }
        match judge(input, &provider, id, stored) {
            Ok((rank, candidate)) if candidate.blocked.is_some() => cooling.push((rank, candidate)),
            Ok(eligible) => ready.push(eligible),
            Err(reason) => skipped.push(Skipped { id: id.to_string(), reason, until: None }),
        }
    }
    let strategy = input.rules.strategy;
    match (explicit, strategy) {
        (true, Strategy::Order) => {}
        (false, _) => ready.sort_by_key(|(rank, _)| *rank),
        (true, _) => {
            let equal = |a: &Eligible, b: &Eligible| a.0.group() == b.0.group();
            ready.chunk_by_mut(equal).for_each(|run| run.sort_by_key(|(rank, _)| *rank));
        }
    }
    cooling.sort_by_key(|(_, candidate)| candidate.blocked.as_ref().map(|blocked| blocked.until));
    let hidden = hide(input, &provider, from, &seen, &mut skipped);
    let mut candidates: Vec<Candidate> =
        ready.into_iter().map(|(_, candidate)| candidate).collect();
    let mut cooling: Vec<Candidate> = cooling.into_iter().map(|(_, candidate)| candidate).collect();
    if let Pin::Auto(id) = input.pin {
        to_front(&mut candidates, id);
    }
    // Without a pin the order can be read off the result.
    let mut order: Vec<String> = Vec::new();
    if let Pin::Auto(id) | Pin::User(id) = input.pin {
        order.extend(candidates.iter().chain(&cooling).map(|candidate| candidate.id.clone()));
        if let Some(at) = order.iter().position(|listed| listed == id) {
            order[..=at].rotate_right(1);
        }
    }
    if let Pin::User(id) = input.pin {
        let (pinned, others): (Vec<_>, Vec<_>) =
            candidates.into_iter().chain(cooling).partition(|candidate| candidate.id == id);
        let others = others.into_iter().map(|candidate| Skipped {
            id: candidate.id,
            reason: SkipReason::NotPinned {},
            until: None,
        });
        skipped.splice(0..0, others);
        return Choice { candidates: pinned, skipped, hidden, from, strategy, order };
    }
    skipped.splice(0..0, cooling.drain(..).filter_map(resting));
    Choice { candidates, skipped, hidden, from, strategy, order }
}

/// A profile to be looked at, with what is stored if that was at hand.
type Listed<'a> = (&'a str, Option<&'a Credential>);

/// Lists the profiles to be looked at, and where the list comes from (spec S-6, 1).
fn base<'a>(input: &ChoiceInput<'a>, provider: &str) -> (OrderSource, Vec<Listed<'a>>) {
    fn listed(ids: &[String]) -> Vec<Listed<'_>> {
        ids.iter().map(|id| id.trim()).filter(|id| !id.is_empty()).map(|id| (id, None)).collect()
    }
    if let Some(ids) = input.profiles.order(provider) {
        return (OrderSource::Store, listed(ids));
    }
    if let Some(ids) = input.rules.order_of(provider) {
        return (OrderSource::Config, listed(ids));
    }
    let rules = || input.rules.profiles.iter();
    if !rules().any(|(_, rule)| takes(input, provider, &rule.provider, None)) {
        return (OrderSource::Stored, stored(input, provider).collect());
    }
    let configured = rules().filter(|(_, rule)| is_for(input, provider, rule));
    let mut configured: Vec<Listed<'_>> = configured.map(|(id, _)| (id.as_str(), None)).collect();
    // An owner's login is in no file, so that no config leaves it out by naming others.
    configured.extend(input.owned.iter().map(|id| (*id, None)));
    (OrderSource::ConfigProfiles, configured)
}

/// Tells whether a profile of the config is one that the provider can use: its own, or of a kind
/// that it takes of another.
fn is_for(input: &ChoiceInput<'_>, provider: &str, rule: &ProfileRule) -> bool {
    let is_key = rule.mode == CredentialKind::ApiKey.as_str();
    normal(&rule.provider) == provider
        || input.also.iter().any(|(taken, kind)| {
            normal(taken) == normal(&rule.provider) && is_key == (*kind == CredentialKind::ApiKey)
        })
}

/// Lists everything stored that the provider could take, then the owned logins.
fn stored<'a>(input: &ChoiceInput<'a>, provider: &str) -> impl Iterator<Item = Listed<'a>> {
    let own = input.profiles.of_provider(provider).map(|(id, stored)| (id, Some(stored)));
    let profiles = input.profiles;
    let also = input.also.iter().flat_map(move |(other, kind)| {
        profiles
            .of_provider(other)
            .filter(move |(_, stored)| stored.kind == *kind)
            .map(|(id, stored)| (id, Some(stored)))
    });
    own.chain(also).chain(input.owned.iter().map(|id| (*id, None)))
}

/// Tells whether the provider takes credentials of `other`.
fn takes(
    input: &ChoiceInput<'_>,
    provider: &str,
    other: &str,
    kind: Option<&CredentialKind>,
) -> bool {
    let other = normal(other);
    other == provider
        || input.also.iter().any(|(taken, taken_kind)| {
            normal(taken) == other && kind.is_none_or(|kind| kind == taken_kind)
        })
}

/// Sorts by type, then by the strategy, then by the longest rest since last use (spec S-6, 4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    kind: u8,
    payer: u8,
    by_strategy: i64,
    used: Timestamp,
}

impl Rank {
    /// Returns what is the same for profiles that a strategy may rearrange.
    fn group(&self) -> (u8, u8) {
        (self.kind, self.payer)
    }
}

type Eligible = (Rank, Candidate);

/// Judges one profile of the base: eligible, with its rank and its block, or not.
fn judge(
    input: &ChoiceInput<'_>,
    provider: &str,
    id: &str,
    at_hand: Option<&Credential>,
) -> Result<Eligible, SkipReason> {
    let resolved = if input.owned.contains(&id) {
        let owned = Credential::new(CredentialKind::None, provider);
        ResolvedState::stored(&owned, false, input.now)
    } else {
        let Some(stored) = at_hand.or_else(|| input.profiles.get(id)) else {
            return Err(match input.profiles.is_kept_only(id) {
                true => SkipReason::Broken {},
                false => SkipReason::NotStored {},
            });
        };
        // What was found by its provider need not be asked for it.
        if at_hand.is_none() && !takes(input, provider, &stored.provider, Some(&stored.kind)) {
            return Err(SkipReason::OtherProvider { provider: stored.provider.clone() });
        }
        let resolved = (input.resolved)(id, stored);
        if let Some(rule) = input.rules.profiles.get(id) {
            if normal(&rule.provider) != normal(&stored.provider) {
                return Err(SkipReason::OtherProvider { provider: rule.provider.clone() });
            }
            if !input.rules.fits(&rule.provider, &rule.mode, &resolved.kind) {
                let (mode, kind) = (rule.mode.clone(), resolved.kind);
                return Err(SkipReason::ModeMismatch { mode, kind });
            }
        }
        resolved
    };
    let renew = match resolved.state {
        CredentialState::Ready => false,
        CredentialState::Expired if resolved.refreshable => true,
        CredentialState::Expired => return Err(SkipReason::Expired {}),
        CredentialState::LoggedOut => return Err(SkipReason::LoggedOut {}),
        CredentialState::Absent => return Err(SkipReason::Missing {}),
        CredentialState::Unreadable => return Err(SkipReason::Unreadable {}),
    };
    let stats = input.profiles.stats(id);
    let kind = match resolved.kind {
        CredentialKind::Oauth => 0,
        CredentialKind::Token => 1,
        CredentialKind::ApiKey => 2,
        CredentialKind::None | CredentialKind::Other(_) => 3,
    };
    // A use in the future was recorded under a wrong clock and must not bench the profile.
    let used = stats.and_then(|stats| stats.whole.last_used).unwrap_or_default().min(input.now);
    let (model, now) = (input.model, input.now);
    let by_strategy = match (input.rules.strategy, stats) {
        (Strategy::Drain, Some(stats)) => {
            stats.first_reset(model, now).map_or(i64::MAX, Timestamp::millis)
        }
        (Strategy::Drain, None) => i64::MAX,
        // In millionths; a share is never that exact.
        (Strategy::LeastUsed, Some(stats)) => {
            stats.tightest(model, now).map_or(0, |window| (window.used * 1e6) as i64)
        }
        _ => 0,
    };
    let payer = match (input.rules.strategy, resolved.payer) {
        (Strategy::Order, _) => 0,
        (_, Payer::Subscription) => 1,
        (_, Payer::Metered) => 2,
        _ => 3,
    };
    let rank = Rank { kind, payer, by_strategy, used };
    let candidate = Candidate {
        id: id.to_string(),
        kind: resolved.kind,
        renew,
        expires: resolved.expires,
        payer: resolved.payer,
        blocked: stats.and_then(|stats| stats.blocked(input.model, input.now)),
    };
    Ok((rank, candidate))
}

/// Adds the stored profiles that the order leaves out, and returns how many more there are.
fn hide(
    input: &ChoiceInput<'_>,
    provider: &str,
    from: OrderSource,
    seen: &HashSet<&str>,
    skipped: &mut Vec<Skipped>,
) -> usize {
    let reason = match from {
        OrderSource::Stored => return 0,
        OrderSource::Store | OrderSource::Config => SkipReason::NotInOrder {},
        OrderSource::ConfigProfiles => SkipReason::NotInConfig {},
    };
    let mut listed = 0;
    let left_out = stored(input, provider).map(|(id, _)| id).filter(|id| !seen.contains(id));
    for id in left_out.take(LISTED_HIDDEN) {
        skipped.push(Skipped { id: id.to_string(), reason: reason.clone(), until: None });
        listed += 1;
    }
    if listed < LISTED_HIDDEN {
        return 0;
    }
    let known = |id: &&&str| {
        input.profiles.get(id).is_some_and(|stored| normal(&stored.provider) == provider)
    };
    let shown = listed + seen.iter().filter(known).count();
    input.profiles.count_of_provider(provider).saturating_sub(shown)
}

fn to_front(candidates: &mut [Candidate], id: &str) {
    if let Some(at) = candidates.iter().position(|candidate| candidate.id == id) {
        candidates[..=at].rotate_right(1);
    }
}

fn resting(candidate: Candidate) -> Option<Skipped> {
    let blocked = candidate.blocked?;
    let reason = match blocked.kind {
        BlockKind::Cooldown => SkipReason::Cooldown { model_only: blocked.model_only },
        BlockKind::Disabled => {
            SkipReason::Disabled { cause: blocked.reason.unwrap_or_else(|| "unknown".into()) }
        }
        BlockKind::Empty => SkipReason::Empty {
            limit: blocked.reason.unwrap_or_else(|| "unknown".into()),
            model_only: blocked.model_only,
        },
    };
    Some(Skipped { id: candidate.id, reason, until: Some(blocked.until) })
}
