//! The way from a chat to a reply, for one agent: what every door calls.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use moltbot_config::{AgentId, Config, Env};
use moltbot_core::{
    AuthError, Credential, CredentialKind, Cx, Event, Finding, Login, OfferEntry, Registry,
    Timestamp,
};
use moltbot_profiles::{AuthRules, Choice, MAX_BUSY_MS, Pin, Profiles, RetryBudget, Store};

use crate::child::{Children, Workshop};
use crate::clock::Clock;
use crate::error::ChatError;
use crate::front::Front;
use crate::host::HostParts;
use crate::http::{Http, Limits, Vars};
use crate::methods::{Methods, auth_rules};
use crate::model::{ModelRef, Models};
use crate::record::Record;
use crate::renew::{Flights, How, Refreshed, renew};
use crate::request::{ChatReply, ChatRequest};
use crate::run::Run;
use crate::select::{ProfileView, Selection};
use crate::setup::{ProviderSetup, Providers};
use crate::source::{Source, other_sources};
use crate::waiting::Waiting;

/// Everything an engine is made of.
pub struct EngineParts {
    /// What this build can do.
    pub registry: &'static Registry,
    /// The checked config.
    pub config: Arc<Config>,
    /// The environment, its layers in order.
    pub env: Env,
    /// The user's home directory, for `~`.
    pub home: Option<PathBuf>,
    /// For which agent.
    pub agent: AgentPaths,
    /// That agent's own store.
    pub store: Arc<dyn Store>,
    /// Where a person may be.
    pub front: Arc<dyn Front>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// With it every provider is asked at this address, which must be on this machine.
    pub lab_base_url: Option<String>,
    /// Time limits.
    pub limits: Limits,
}

/// Where an agent keeps what is its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPaths {
    /// Its id.
    pub id: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Its credentials.
    pub store: PathBuf,
    /// Its conversations.
    pub sessions: PathBuf,
}

/// Chooses credentials, renews them, sends chats, fails over, and says why.
///
/// Making one touches no disk, network or clock.
pub struct Engine {
    pub(crate) registry: &'static Registry,
    pub(crate) config: Arc<Config>,
    pub(crate) env: Env,
    pub(crate) agent: AgentPaths,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) host: HostParts,
    pub(crate) limits: Limits,
    pub(crate) providers: Arc<Providers>,
    pub(crate) models: Models,
    pub(crate) rules: AuthRules,
    flights: Flights,
    pub(crate) children: Arc<Children>,
    /// Models that a service was too busy for, and until when they are passed over.
    busy: Mutex<HashMap<ModelRef, Timestamp>>,
    /// How often trouble may be answered by asking again; one for all engines of a gateway.
    pub(crate) budget: Arc<Mutex<RetryBudget>>,
    /// Who waits for a resting profile.
    pub(crate) waiting: Waiting,
    /// The record of the chat that was dropped last.
    dropped: Mutex<Option<Box<Record>>>,
}

impl Engine {
    /// Puts an engine together.
    pub fn new(parts: EngineParts) -> Self {
        let EngineParts { registry, config, env, home, agent, store, front, clock, .. } = parts;
        let lab = parts.lab_base_url.as_deref();
        let providers = Arc::new(Providers::new(registry, &config, lab));
        let id = AgentId::normalize(&agent.id);
        let models = Models::new(providers.clone(), &config, &id);
        let rules = auth_rules(&config, registry);
        let variables = env.clone();
        let vars: Vars =
            Arc::new(move |name| variables.get(name).map(|(value, _)| value.to_string()));
        let http = Arc::new(Http::new(vars.clone(), parts.limits.connect_ms));
        let keyring = Arc::new(crate::OsKeyring);
        let host = HostParts { http, vars, home, front, clock, keyring };
        Self {
            registry,
            config,
            env,
            agent,
            store,
            host,
            limits: parts.limits,
            providers,
            models,
            rules,
            flights: Flights::default(),
            children: Arc::default(),
            busy: Mutex::default(),
            budget: Arc::default(),
            waiting: Waiting::default(),
            dropped: Mutex::default(),
        }
    }

    /// Returns what decides about models.
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// Returns what config and offers say about profiles.
    pub fn rules(&self) -> &AuthRules {
        &self.rules
    }

    /// Returns the agent.
    pub fn agent(&self) -> &AgentPaths {
        &self.agent
    }

    /// Lists the providers as this user has them.
    pub fn providers(&self) -> &[ProviderSetup] {
        self.providers.all()
    }

    /// Finds a provider by its id or an older spelling of it.
    pub fn provider(&self, id: &str) -> Option<&ProviderSetup> {
        self.providers.get(id)
    }

    /// Lists the credentials of a provider that are no profiles, in the order they are tried, and
    /// what of them cannot be used.
    pub fn other_sources(&self, provider: &str) -> (Vec<Source>, Vec<String>) {
        match self.providers.get(provider) {
            Some(setup) => other_sources(setup, &self.env, self.registry),
            None => (Vec::new(), Vec::new()),
        }
    }

    /// Sends one chat and returns its reply. Events arrive at `sink` from the first one on that
    /// shows something; before it, other credentials and models may be tried (spec 03).
    ///
    /// Dropping the future abandons the chat: nobody is punished, nothing else is tried, and
    /// [`take_dropped`](Self::take_dropped) returns its record.
    pub async fn chat(
        &self,
        request: ChatRequest,
        sink: &mut (dyn FnMut(&Event) + Send),
    ) -> Result<ChatReply, ChatError> {
        Run::new(self, &request)?.answer(sink).await
    }

    /// Returns the record of the chat that was dropped last before its end, once.
    pub fn take_dropped(&self) -> Option<Box<Record>> {
        self.dropped.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
    }

    pub(crate) fn set_dropped(&self, record: Record) {
        let mut dropped = self.dropped.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *dropped = Some(Box::new(record));
    }

    /// Says what [`chat`](Self::chat) would do now: reads the store and the logins it points at,
    /// sends nothing, changes nothing.
    pub async fn explain(
        &self,
        model: Option<&str>,
        profile: Option<&str>,
    ) -> Result<Record, ChatError> {
        let request = ChatRequest {
            model: model.map(String::from),
            profile: profile.map(String::from),
            prompt: "hi".into(),
            ..ChatRequest::default()
        };
        Run::new(self, &request)?.explain().await
    }

    /// Reads every stored profile, of one provider or of all, and says what each is worth now.
    pub async fn resolve_profiles(
        &self,
        provider: Option<&str>,
    ) -> Result<Vec<ProfileView>, ChatError> {
        let profiles = self.store.load().await?.profiles;
        let methods = self.methods();
        let mut views = Vec::new();
        let wanted: Vec<(&str, &Credential)> = match provider {
            Some(provider) => profiles.of_provider(provider).collect(),
            None => profiles.iter().collect(),
        };
        for (id, stored) in wanted {
            views.push(ProfileView::read(&methods, id, stored).await);
        }
        Ok(views)
    }

    /// Makes the choice that a chat of this provider would make now; `None` for a provider that
    /// this build cannot serve.
    pub async fn choice(&self, provider: &str, model: &str, profiles: Profiles) -> Option<Choice> {
        let setup = self.providers.get(provider)?;
        Some(self.select(setup, model, profiles, Pin::None).await.choice)
    }

    /// Runs an auth method for an offer. Stores nothing.
    pub async fn login(&self, entry: &OfferEntry, verb: Option<&str>) -> Result<Login, AuthError> {
        let methods = self.methods();
        let call = methods.call(entry, verb);
        let host = methods.host_for(&entry.offer.needs);
        let mut login = entry.method.login(&Cx::new(&host, &call)).await?;
        host.check_named(&login.credential)?;
        if login.credential.method.is_none() {
            login.credential.method = Some(entry.method.id().to_string());
        }
        Ok(login)
    }

    /// Lets every auth method check what only it knows about.
    pub async fn doctor(&self) -> Result<Vec<(String, Vec<Finding>)>, ChatError> {
        let profiles = self.store.load().await?.profiles;
        let methods = self.methods();
        let mut out: Vec<(String, Vec<Finding>)> = Vec::new();
        for entry in self.registry.offers() {
            let id = entry.method.id();
            if out.iter().any(|(known, _)| known == id) {
                continue;
            }
            let own = |stored: &Credential, profile: &str| {
                let offer = crate::methods::offer_of(self.registry, profile, stored);
                offer.ok().flatten().is_some_and(|offer| offer.method.id() == id)
            };
            let mut stored: Vec<Credential> = profiles
                .iter()
                .filter(|(profile, stored)| own(stored, profile))
                .map(|(_, stored)| stored.clone())
                .collect();
            // A login that its program keeps is nowhere stored; it counts if a model needs it.
            if entry.offer.kind == CredentialKind::None && self.is_used(&entry.provider.id) {
                let provider = entry.provider.id.clone();
                stored.push(Credential::new(CredentialKind::None, provider));
            }
            let call = methods.call(entry, None);
            let host = methods.host_for(&entry.offer.needs);
            let findings = entry.method.doctor(&Cx::new(&host, &call), &stored).await;
            let findings = findings.unwrap_or_else(|error| {
                let text = moltbot_core::redact(&error.to_string()).into_owned();
                vec![Finding { level: moltbot_core::Level::Warning, text, fix: None }]
            });
            out.push((id.to_string(), findings));
        }
        Ok(out)
    }

    /// Renews one profile if it is due, or if `force` says so, and finishes a renewal that was
    /// interrupted after its answer had come.
    pub async fn refresh(&self, profile: &str, force: bool) -> Result<Refreshed, ChatError> {
        let profiles = self.store.load().await?.profiles;
        let Some(stored) = profiles.get(profile) else {
            let message = format!("There is no profile \"{profile}\" in {}.", self.store.name());
            return Err(ChatError::new("profile-unknown", message));
        };
        let how = if force { How::Forced } else { How::Asked };
        let result = renew(self, profile, None, how).await;
        result.map(|(_, refreshed)| refreshed).map_err(|error| {
            let message = error.message(profile, &stored.provider, &profiles, &self.rules);
            ChatError::new(error.code(), message)
        })
    }

    pub(crate) fn methods(&self) -> Methods<'_> {
        Methods { registry: self.registry, config: &self.config, host: &self.host }
    }

    pub(crate) fn flights(&self) -> &Flights {
        &self.flights
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.host.clock.now()
    }

    pub(crate) async fn select(
        &self,
        setup: &ProviderSetup,
        model: &str,
        profiles: Profiles,
        pin: Pin<'_>,
    ) -> Selection {
        let methods = self.methods();
        Selection::make(&methods, &self.rules, &self.env, setup, model, profiles, pin).await
    }

    /// Goes on with the programs that wait for the conversations of `before`, which this engine
    /// replaces, if it would start them where and as they were started. What else a program
    /// depends on is part of what it is found by.
    pub(crate) fn keep_programs(&mut self, before: &Self) {
        let same = |engine: &Self| (engine.agent.clone(), engine.host.home.clone());
        if same(self) == same(before) && self.env == before.env {
            self.children = before.children.clone();
        }
    }

    /// Returns what exchanges are performed with.
    pub(crate) fn workshop<'a>(&'a self, source: &'a str) -> Workshop<'a> {
        Workshop {
            children: &self.children,
            host: &self.host,
            registry: self.registry,
            agent: &self.agent.id,
            directory: self.agent.dir.join("programs"),
            source,
        }
    }

    /// Passes a model over for a moment, because its service is too busy.
    pub(crate) fn set_busy(&self, model: &ModelRef, until: Timestamp) {
        let mut busy = self.busy.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        busy.insert(model.clone(), until);
    }

    pub(crate) fn budget(&self) -> MutexGuard<'_, RetryBudget> {
        self.budget.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn busy_until(&self, model: &ModelRef) -> Option<Timestamp> {
        let mut busy = self.busy.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let now = self.now();
        // A clock that was set back must not keep a model out for longer than it ever was.
        busy.retain(|_, until| now < *until && until.since(now) <= MAX_BUSY_MS);
        busy.get(model).copied()
    }
}
