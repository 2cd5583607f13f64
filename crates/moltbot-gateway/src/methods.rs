//! Which auth method serves a profile, and how it is called (decision 14).

use moltbot_config::Config;
use moltbot_core::{
    AuthError, AuthMethod, Call, Credential, CredentialKind, Cx, Field, Needs, OfferEntry,
    Registry, RenewSettings, Renewal, Resolved, Text, Timestamp,
};
use moltbot_profiles::{
    AuthRules, CooldownRules, ProfileRule, ResolvedState, Strategy, standard_method,
};
use serde_json::Value;

use crate::host::{EffectHost, HostParts};
use crate::source::payer;

/// Finds the offer that a stored profile belongs to: by the method it names, else by its id, else
/// by its kind. Fails with a sentence if the method is not in this build.
pub fn offer_of(
    registry: &Registry,
    id: &str,
    stored: &Credential,
) -> Result<Option<OfferEntry>, String> {
    let of_provider = || registry.offers().iter().filter(|e| e.provider.id == stored.provider);
    let kind_fits =
        |e: &OfferEntry| e.offer.kind == stored.kind || e.offer.accepts.contains(&stored.kind);
    if let Some(method) = &stored.method {
        if registry.method(method).is_none() {
            return Err(format!(
                "profile {id} needs plugin {method}, not in this build; \
                 build a binary that has it: `cargo xtask dist --plugins ...,{method}`, or get it \
                 with `moltbot plugins trust <its file>`, which a build to order has with \
                 `--host carriers`"
            ));
        }
        let own = || of_provider().filter(|entry| entry.method.id() == method);
        let found = own().find(|entry| entry.offer.profile == id);
        let found = found.or_else(|| own().find(|entry| kind_fits(entry)));
        return Ok(found.or_else(|| own().next()).copied());
    }
    let by_id = of_provider().find(|entry| entry.offer.profile == id && kind_fits(entry));
    // A link says by itself that somebody else owns it; a plain credential never becomes one.
    let by_kind =
        || of_provider().find(|e| kind_fits(e) && e.offer.caps.external == stored.is_link());
    Ok(by_id.or_else(by_kind).copied())
}

/// Calls methods under one config.
pub(crate) struct Methods<'a> {
    pub(crate) registry: &'static Registry,
    pub(crate) config: &'a Config,
    pub(crate) host: &'a HostParts,
}

impl Methods<'_> {
    /// Says what a stored credential is worth now. Only a login that somebody else owns needs
    /// effects; everything else is judged by itself.
    pub(crate) async fn resolve(
        &self,
        entry: Option<OfferEntry>,
        stored: &Credential,
    ) -> Result<Resolved, AuthError> {
        let now = self.host.clock.now();
        match entry.filter(|entry| entry.offer.caps.external) {
            Some(entry) => {
                let call = self.call(&entry, None);
                let host = EffectHost::of_profile(self.host, &entry.offer.needs, stored);
                entry.method.resolve(&Cx::new(&host, &call), stored).await
            }
            None => Ok(Resolved::judged(stored.clone(), now)),
        }
    }

    /// Makes the circumstances of a call.
    pub(crate) fn call(&self, entry: &OfferEntry, verb: Option<&str>) -> Call {
        let of_verb = verb.and_then(|name| entry.offer.verbs.iter().find(|verb| verb.name == name));
        let fields: &[Field] = of_verb.map_or(&entry.offer.fields, |verb| &verb.fields);
        Call {
            provider: entry.provider.clone(),
            choice: entry.offer.choice.clone(),
            verb: verb.map(|verb| Text::from(verb.to_string())),
            fields: fields.to_vec(),
            now: self.host.clock.now(),
            interactive: self.host.front.interactive(),
            os: std::env::consts::OS.into(),
            settings: self.settings(entry.method),
        }
    }

    /// Makes a host that allows what an offer declares.
    pub(crate) fn host_for<'h>(&'h self, needs: &'h Needs) -> EffectHost<'h> {
        EffectHost::new(self.host, needs)
    }

    /// Returns a method's own settings, `null` without any.
    pub(crate) fn settings(&self, method: &dyn AuthMethod) -> Value {
        let Some(spec) = method.settings() else { return Value::Null };
        let auth = self.config.auth.as_ref();
        let found = auth.and_then(|auth| auth.plugins.get(spec.key.as_ref()));
        found.map_or(Value::Null, |settings| settings.value().clone())
    }

    /// Returns what the user's config says about renewing logins of a provider (decision 5).
    pub(crate) fn renew_settings(
        &self,
        method: &dyn AuthMethod,
        provider: &str,
        force: bool,
    ) -> RenewSettings {
        let auth = self.config.auth.as_ref();
        let endpoint = auth.and_then(|auth| auth.oauth.get(provider));
        RenewSettings {
            token_url: endpoint.map(|endpoint| endpoint.token_url.as_str().to_string()),
            client_id: endpoint.map(|endpoint| endpoint.client_id.as_str().to_string()),
            scope: endpoint.and_then(|endpoint| endpoint.scope.clone()),
            policy: self.settings(method)["refresh"].as_str().map(String::from),
            force,
        }
    }

    /// Tells whether a login could be renewed at all.
    pub(crate) fn is_refreshable(
        &self,
        entry: Option<&OfferEntry>,
        resolved: &Credential,
        now: Timestamp,
    ) -> bool {
        let method = match entry {
            Some(entry) => Some(entry.method).filter(|_| entry.offer.caps.refresh),
            None => standard_method(resolved),
        };
        let Some(method) = method else { return false };
        let settings = self.renew_settings(method, &resolved.provider, true);
        let renewal = method.renew(&settings, resolved, now);
        matches!(renewal, Ok(Renewal::Http { .. } | Renewal::Run {}))
    }

    /// Puts together what the choice must know.
    pub(crate) fn state(
        &self,
        id: &str,
        entry: Option<&OfferEntry>,
        resolved: &Resolved,
        now: Timestamp,
    ) -> ResolvedState {
        let refreshable = self.is_refreshable(entry, &resolved.credential, now);
        let payer = entry
            .map(|entry| entry.offer.payer)
            .unwrap_or_else(|| payer(self.registry, Some(id), &resolved.credential));
        ResolvedState { payer, ..ResolvedState::of(resolved, refreshable) }
    }
}

/// Tells whether an expired credential is worth an attempt to renew it before it is passed over.
/// An expired login is, even without any way to renew it: the attempt says why, by name.
pub(crate) fn worth_renewing(state: &ResolvedState) -> bool {
    state.refreshable || state.kind == CredentialKind::Oauth
}

/// Collects what the config and the offers say about profiles (spec C-19, C-20, S-5).
pub fn auth_rules(config: &Config, registry: &Registry) -> AuthRules {
    let mut rules = AuthRules::default();
    for provider in registry.providers() {
        let offers = registry.offers().iter();
        let offers: Vec<_> = offers
            .filter(|entry| entry.provider.id == provider.info.id)
            .map(|entry| entry.offer.clone())
            .collect();
        rules.accept_offers(&provider.info.id, &offers);
    }
    let Some(auth) = &config.auth else { return rules };
    for (id, profile) in &auth.profiles {
        let rule = ProfileRule {
            provider: profile.provider.as_str().to_string(),
            mode: profile.mode.as_str().to_string(),
            email: profile.email.clone(),
        };
        rules.profiles.insert(id.clone(), rule);
    }
    rules.order = auth.order.clone();
    rules.strategy = match auth.strategy {
        Some(moltbot_config::Strategy::RoundRobin) => Strategy::RoundRobin,
        Some(moltbot_config::Strategy::Drain) => Strategy::Drain,
        Some(moltbot_config::Strategy::LeastUsed) => Strategy::LeastUsed,
        _ => Strategy::Order,
    };
    if let Some(cooldowns) = &auth.cooldowns {
        let usual = CooldownRules::default();
        let by_provider = cooldowns.billing_backoff_hours_by_provider.iter();
        let hours = |set: Option<moltbot_config::Positive>, usual: f64| {
            set.map_or(usual, moltbot_config::Positive::get)
        };
        rules.cooldowns = CooldownRules {
            billing_backoff_hours: hours(
                cooldowns.billing_backoff_hours,
                usual.billing_backoff_hours,
            ),
            billing_backoff_hours_by_provider: by_provider
                .map(|(provider, hours)| (provider.clone(), hours.get()))
                .collect(),
            billing_max_hours: hours(cooldowns.billing_max_hours, usual.billing_max_hours),
            failure_window_hours: hours(cooldowns.failure_window_hours, usual.failure_window_hours),
        };
    }
    rules
}
