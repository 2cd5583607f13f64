//! Which credentials a model may be asked with: the one resolver of chats, status and dry runs.

use std::collections::HashMap;

use moltbot_core::{
    AuthError, Credential, CredentialKind, CredentialState, Offer, OfferEntry, Payer, Registry,
    Resolved, Timestamp, redact,
};
use moltbot_profiles::{
    AuthRules, Choice, ChoiceInput, Pin, Profiles, ResolvedState, SkipReason, Strategy,
    normalize_provider, order,
};

use crate::methods::{Methods, offer_of, worth_renewing};
use crate::record::{CredentialChoice, QuotaSeen};
use crate::setup::ProviderSetup;
use crate::source::{Source, SourceKind, mode_word, other_sources};

/// A stored profile and what it is worth now.
#[derive(Clone)]
pub struct ProfileView {
    /// Its id.
    pub id: String,
    /// What is stored; for a link without any secret.
    pub stored: Credential,
    /// What its auth method made of it.
    pub resolved: Result<Resolved, AuthError>,
    /// What the choice and the health of it depend on.
    pub state: ResolvedState,
    /// The offer it belongs to.
    pub offer: Option<OfferEntry>,
    /// Said if the profile needs a plugin that is not in this build.
    pub missing_plugin: Option<String>,
}

impl ProfileView {
    /// Reads one profile.
    pub(crate) async fn read(methods: &Methods<'_>, id: &str, stored: &Credential) -> Self {
        let now = methods.host.clock.now();
        let (offer, missing_plugin) = match offer_of(methods.registry, id, stored) {
            Ok(offer) => (offer, None),
            Err(why) => (None, Some(why)),
        };
        let resolved = methods.resolve(offer, stored).await;
        let mut state = match &resolved {
            Ok(resolved) => methods.state(id, offer.as_ref(), resolved, now),
            Err(_) => ResolvedState {
                state: CredentialState::Unreadable,
                ..ResolvedState::stored(stored, false, now)
            },
        };
        if missing_plugin.is_some() {
            state.state = CredentialState::Unreadable;
        }
        Self { id: id.to_string(), stored: stored.clone(), resolved, state, offer, missing_plugin }
    }

    /// Says in its method's own words why it is not ready, if those say anything; without secrets,
    /// whatever the method said.
    pub fn detail(&self) -> Option<String> {
        let words = match &self.resolved {
            Ok(resolved) => resolved.detail.clone()?,
            Err(AuthError::Cancelled {}) => return None,
            Err(error) => error.to_string(),
        };
        Some(redact(&words).into_owned())
    }
}

/// A credential to be tried.
#[derive(Clone)]
pub(crate) struct Planned {
    pub(crate) label: String,
    pub(crate) profile: Option<String>,
    pub(crate) payer: Payer,
    pub(crate) credential: Credential,
    /// Set for profiles: what was read, to renew and to compare.
    pub(crate) view: Option<Box<ProfileView>>,
    /// Whether it must be renewed first.
    pub(crate) renew: bool,
}

/// What may be tried for one model, in order, and what may not.
pub(crate) struct Selection {
    pub(crate) profiles: Profiles,
    pub(crate) choice: Choice,
    pub(crate) views: HashMap<String, ProfileView>,
    pub(crate) others: Vec<Source>,
    pub(crate) problems: Vec<String>,
    /// Whether a profile that the user's plan pays for would have come before the first one that
    /// is paid per use.
    pub(crate) plan_first: bool,
    /// For which model it was made, and when.
    model: String,
    at: Timestamp,
}

impl Selection {
    /// Makes the choice for one model.
    pub(crate) async fn make(
        methods: &Methods<'_>,
        rules: &AuthRules,
        env: &moltbot_config::Env,
        setup: &ProviderSetup,
        model: &str,
        profiles: Profiles,
        pin: Pin<'_>,
    ) -> Self {
        let now = methods.host.clock.now();
        let mut views = HashMap::new();
        let also: Vec<(String, CredentialKind)> = setup
            .info
            .accepts
            .iter()
            .map(|(provider, kind)| (provider.to_string(), kind.clone()))
            .collect();
        let foreign = also.iter().flat_map(|(provider, kind)| {
            profiles.of_provider(provider).filter(move |(_, stored)| stored.kind == *kind)
        });
        for (id, stored) in profiles.of_provider(&setup.id).chain(foreign) {
            views.insert(id.to_string(), ProfileView::read(methods, id, stored).await);
        }
        let resolved = |id: &str, stored: &Credential| {
            let state = views.get(id).map(|view| view.state.clone());
            let state = state.unwrap_or_else(|| ResolvedState::stored(stored, false, now));
            ResolvedState { refreshable: worth_renewing(&state), ..state }
        };
        let login = owners_login(methods, setup, now);
        let owned: Vec<&str> = login.iter().map(|view| view.id.as_str()).collect();
        let mut choice = order(&ChoiceInput {
            model: Some(model),
            pin,
            also: &also,
            owned: &owned,
            ..ChoiceInput::new(&profiles, rules, &setup.id, &resolved, now)
        });
        if let Some(view) = login {
            let own = choice.candidates.iter_mut().find(|candidate| candidate.id == view.id);
            own.into_iter().for_each(|candidate| candidate.payer = view.state.payer);
            views.insert(view.id.clone(), view);
        }
        let (others, problems) = other_sources(setup, env, methods.registry);
        let plan_first = plan_comes_first(&choice, &views, rules, &profiles, &setup.id);
        let model = model.to_string();
        Self { profiles, choice, views, others, problems, plan_first, model, at: now }
    }

    /// Lists the profiles to be tried.
    pub(crate) fn planned(&self) -> Vec<Planned> {
        let planned = |candidate: &moltbot_profiles::Candidate| {
            let view = self.views.get(&candidate.id)?;
            let resolved = view.resolved.as_ref().ok();
            Some(Planned {
                label: format!("profile:{}", candidate.id),
                profile: Some(candidate.id.clone()),
                payer: candidate.payer,
                credential: resolved.map_or(&view.stored, |r| &r.credential).clone(),
                view: Some(Box::new(view.clone())),
                renew: candidate.renew,
            })
        };
        self.choice.candidates.iter().filter_map(planned).collect()
    }

    /// Lists the profiles that only rest, the soonest first: good for questions that no limit of
    /// theirs is about.
    pub(crate) fn resting(&self) -> Vec<Planned> {
        let mut resting: Vec<_> =
            self.choice.skipped.iter().filter_map(|skip| Some((skip.until?, skip))).collect();
        resting.sort_by_key(|(until, _)| *until);
        let planned = |id: &str| {
            let view = self.views.get(id)?;
            let resolved = view.resolved.as_ref().ok()?;
            (view.state.state == CredentialState::Ready).then(|| Planned {
                label: format!("profile:{id}"),
                profile: Some(id.to_string()),
                payer: view.state.payer,
                credential: resolved.credential.clone(),
                view: Some(Box::new(view.clone())),
                renew: false,
            })
        };
        resting.into_iter().filter_map(|(_, skip)| planned(&skip.id)).collect()
    }

    /// Lists what is tried if no profile can be used.
    pub(crate) fn planned_others(&self) -> Vec<Planned> {
        let planned = |source: &Source| Planned {
            label: source.label.clone(),
            profile: None,
            payer: source.payer,
            credential: source.credential.clone(),
            view: None,
            renew: false,
        };
        self.others.iter().map(planned).collect()
    }

    /// Lists everything considered, for the record.
    pub(crate) fn recorded(&self) -> Vec<CredentialChoice> {
        let mut out: Vec<CredentialChoice> = Vec::new();
        for candidate in &self.choice.candidates {
            out.push(CredentialChoice {
                source: format!("profile:{}", candidate.id),
                profile: Some(candidate.id.clone()),
                mode: mode_word(&candidate.kind).into(),
                payer: candidate.payer,
                renew: candidate.renew,
                skipped: None,
                until: None,
                quota: self.quota(&candidate.id),
                rewrite: 0,
            });
        }
        let instead = (!self.choice.candidates.is_empty() || self.choice.all_cooling())
            .then(|| "profiles come first".to_string());
        let mut others: Vec<_> =
            self.others.iter().map(|other| recorded_other(other, &instead)).collect();
        if instead.is_none() {
            out.append(&mut others);
        }
        for skipped in &self.choice.skipped {
            let view = self.views.get(&skipped.id);
            let missing = view.and_then(|view| view.missing_plugin.clone());
            out.push(CredentialChoice {
                source: format!("profile:{}", skipped.id),
                profile: Some(skipped.id.clone()),
                mode: view.map_or("unknown", |view| mode_word(&view.state.kind)).into(),
                payer: view.map_or(Payer::Unknown, |view| view.state.payer),
                renew: false,
                skipped: Some(missing.unwrap_or_else(|| skipped.reason.to_string())),
                until: skipped.until,
                quota: self.quota(&skipped.id),
                rewrite: 0,
            });
        }
        out.append(&mut others);
        out
    }

    /// Returns the tightest limit of a profile.
    fn quota(&self, id: &str) -> Option<QuotaSeen> {
        let window = self.profiles.stats(id)?.tightest(Some(&self.model), self.at)?;
        Some(QuotaSeen {
            limit: window.name.clone(),
            used: window.used,
            remaining: window.remaining,
            reset: window.reset,
        })
    }

    /// Returns the strategy, unless it is the usual one.
    pub(crate) fn strategy(&self) -> Option<String> {
        let strategy = self.choice.strategy;
        (strategy != Strategy::Order).then(|| strategy.as_str().to_string())
    }

    /// Returns the first profile that rests, and until when.
    pub(crate) fn soonest(&self) -> Option<(&str, Timestamp)> {
        let resting = self.choice.skipped.iter();
        resting
            .filter_map(|skipped| Some((skipped.id.as_str(), skipped.until?)))
            .min_by_key(|p| p.1)
    }
}

/// Tells whether the provider is a program that its owner's plan pays for, so that nobody else pays
/// in its place without a word of the user's (decision 8).
pub(crate) fn runs_on_a_plan(registry: &Registry, setup: &ProviderSetup) -> bool {
    let by_plan = |entry: &OfferEntry| {
        let Offer { kind, payer, .. } = entry.offer;
        entry.provider.id == setup.id
            && *kind == CredentialKind::None
            && *payer == Payer::Subscription
    };
    registry.offers().iter().any(by_plan)
}

/// Returns the login that the provider's own program is asked with, if it has one: a virtual
/// profile, of which nothing but the statistics is stored (decision 16).
pub(crate) fn owners_login(
    methods: &Methods<'_>,
    setup: &ProviderSetup,
    now: Timestamp,
) -> Option<ProfileView> {
    let takes = |(provider, kind): &(moltbot_core::Text, CredentialKind)| {
        *kind == CredentialKind::None && *provider == setup.id
    };
    if !setup.info.accepts.iter().any(takes) {
        return None;
    }
    let mut offers = methods.registry.offers().iter();
    let offer =
        offers.find(|e| e.provider.id == setup.id && e.offer.kind == CredentialKind::None).copied();
    let id = offer.map_or(format!("{}:login", setup.id), |entry| entry.offer.profile.to_string());
    let stored = Credential::new(CredentialKind::None, setup.id.clone());
    let resolved = Resolved::judged(stored.clone(), now);
    let state = methods.state(&id, offer.as_ref(), &resolved, now);
    Some(ProfileView { id, stored, resolved: Ok(resolved), state, offer, missing_plugin: None })
}

fn recorded_other(source: &Source, instead: &Option<String>) -> CredentialChoice {
    debug_assert!(source.kind != SourceKind::Profile);
    CredentialChoice {
        source: source.label.clone(),
        profile: None,
        mode: source.mode().into(),
        payer: source.payer,
        renew: false,
        skipped: instead.clone(),
        until: None,
        quota: None,
        rewrite: 0,
    }
}

/// Tells whether the user's plan would have paid if a profile did not rest or had not expired.
fn plan_comes_first(
    choice: &Choice,
    views: &HashMap<String, ProfileView>,
    rules: &AuthRules,
    profiles: &Profiles,
    provider: &str,
) -> bool {
    let plan = |id: &str| views.get(id).is_some_and(|v| v.state.payer == Payer::Subscription);
    let first_paid = choice.candidates.iter().find(|c| c.payer == Payer::Metered);
    if let Some(first) = choice.candidates.first()
        && first.payer == Payer::Subscription
    {
        return true;
    }
    let explicit = profiles.order(provider).or_else(|| {
        let same = |key: &str| normalize_provider(key) == normalize_provider(provider);
        rules.order.iter().find(|(key, _)| same(key)).map(|(_, ids)| ids.as_slice())
    });
    let place = |id: &str| explicit.and_then(|ids| ids.iter().position(|listed| listed == id));
    choice.skipped.iter().any(|skipped| {
        let unusable_now = skipped.until.is_some()
            || matches!(skipped.reason, SkipReason::Expired {} | SkipReason::LoggedOut {});
        let before = match (explicit, first_paid) {
            (Some(_), Some(paid)) => place(&skipped.id) < place(&paid.id),
            // Without an explicit order logins come before keys (spec S-6).
            _ => true,
        };
        unusable_now && plan(&skipped.id) && before
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_cannot_tell_a_secret() {
        let at = Timestamp::from_millis(0);
        let stored = Credential::new(CredentialKind::ApiKey, "acme");
        let mut resolved = Resolved::judged(stored.clone(), at);
        let mut view = ProfileView {
            id: "acme:a".into(),
            state: ResolvedState::stored(&stored, false, at),
            stored,
            resolved: Ok(resolved.clone()),
            offer: None,
            missing_plugin: None,
        };
        assert_eq!(view.detail(), None);
        resolved.detail = Some("no keyring; sk-ant-api03-FAKEFAKEFAKEFAKEFAKE".into());
        view.resolved = Ok(resolved);
        let said = view.detail().unwrap();
        assert!(said.starts_with("no keyring") && !said.contains("FAKEFAKE"), "{said}");
        view.resolved = Err(AuthError::Cancelled {});
        assert_eq!(view.detail(), None);
    }
}
