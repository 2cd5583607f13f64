//! One agent behind the door: its credentials in memory, the routes made from them, and what is
//! still to be written to its store.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use hyper::header::{HeaderName, HeaderValue};
use moltbot_core::{
    Credential, CredentialKind, CredentialView, Failure, Header, ModelInfo, Observed, Payer, Quota,
    Revision, Scope, Secret, Slot, Text, Timestamp, redact,
};
use moltbot_profiles::{Pin, Profiles, StoreError};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::child::is_program;
use super::held;
use super::settings::Settings;
use crate::cache::Cached;
use crate::engine::Engine;
use crate::model::ModelRef;
use crate::record::ModelChoice;
use crate::record_log::MAX_CANDIDATES;
use crate::scan::Patterns;
use crate::select::{Planned, Selection};
use crate::setup::ProviderSetup;
use crate::update::update;

/// Stands in the place of a model for what belongs to one account: batches and files.
pub(crate) const PINNED: &str = "\0pinned";

/// Routes kept per agent; a client that asks for ever new models must not fill the memory.
const MOST_ROUTES: usize = 1_024;

/// The longest rest that may be lost in a crash, hence wait for its turn to be written.
const PATIENCE_MS: i64 = 60_000;

/// The one dialect these doors forward.
const DIALECT: &str = "anthropic-messages";

/// An agent, ready to serve.
pub(crate) struct Agent {
    pub(crate) engine: Engine,
    pub(crate) name: Arc<str>,
    pub(super) book: Mutex<Book>,
    routes: Mutex<Routes>,
    uses: Mutex<HashMap<(String, String), Arc<Use>>>,
    sticky: Mutex<HashMap<u64, Arc<str>>>,
    pub(super) held: Mutex<HashMap<u64, Cached>>,
    pub(super) turn: AtomicUsize,
    /// Wakes who writes, for what must not wait.
    hurry: Arc<Notify>,
}

#[derive(Default)]
struct Routes {
    /// Changes whenever routes become stale; a route made from older contents is not kept.
    edition: u64,
    ready: HashMap<String, Arc<Route>>,
}

/// The contents of the store, ahead of the file by what is in `unwritten`.
pub(super) struct Book {
    pub(super) profiles: Profiles,
    revision: Revision,
    unwritten: Vec<Punishment>,
    /// How many logins the store had when its file went away, as long as it is away.
    vanished: Option<usize>,
}

#[derive(Clone)]
struct Punishment {
    profile: String,
    model: String,
    failure: Failure,
    /// What the refusal told about limits.
    quotas: Vec<Quota>,
    at: Timestamp,
    started: Timestamp,
}

/// Successes of a profile with a model that were not written yet; 0 without any.
#[derive(Default)]
pub(crate) struct Use {
    at: AtomicI64,
    started: AtomicI64,
    account: Mutex<Option<String>>,
    /// What the last reply told about limits, and when.
    pub(super) told: Mutex<Option<(Vec<Quota>, Timestamp)>>,
    seen: AtomicU64,
}

/// Where requests for one model go, as long as nothing changes.
#[derive(Clone)]
pub(crate) struct Route {
    setup: usize,
    pub(crate) model: ModelRef,
    pub(crate) label: Arc<str>,
    pub(crate) info: Option<Arc<ModelInfo>>,
    pub(crate) params: Value,
    pub(crate) extra: Vec<Header<'static>>,
    /// Whether a rule of the config changes bodies, so that they are read to their end.
    pub(crate) rules: bool,
    /// Whether breakpoints are placed for clients that place none.
    pub(crate) auto_cache: bool,
    /// The model as it was asked for, masked.
    pub(crate) requested: Arc<str>,
    /// What was considered, for records.
    pub(crate) considered: Arc<ModelChoice>,
    /// What of a body is looked at beside its model.
    pub(crate) patterns: Patterns,
    pub(crate) credentials: Vec<Arc<Access>>,
    /// Whether the order was laid down by the user, hence is no matter of balance.
    pub(crate) ordered: bool,
    /// Set if every profile rests: which is first, and until when.
    pub(crate) resting: Option<(String, Timestamp)>,
    /// Why nothing can be used, if nothing can.
    pub(crate) why: String,
    until: Option<Timestamp>,
}

/// A credential of a route.
pub(crate) struct Access {
    pub(crate) label: Arc<str>,
    pub(crate) profile: Option<String>,
    pub(crate) credential: Credential,
    pub(crate) view: CredentialView<'static>,
    pub(crate) headers: Vec<(String, Secret)>,
    pub(crate) renew: bool,
    /// Whether a refusal may mean that the login changed since it was read.
    pub(crate) rereads: bool,
    pub(crate) payer: Payer,
    pub(crate) used: Option<Arc<Use>>,
    /// The header with the credential, as it was last made: name and value asked for, and both
    /// ready to be sent.
    pub(crate) sent: OnceLock<(Text, Slot, HeaderName, HeaderValue)>,
}

impl Agent {
    /// Reads the store. `hurry` is notified when something must be written at once.
    pub(crate) async fn open(engine: Engine, hurry: Arc<Notify>) -> Result<Self, StoreError> {
        let loaded = engine.store.load().await?;
        let (profiles, revision) = (loaded.profiles, loaded.revision);
        Ok(Self {
            name: engine.agent().id.as_str().into(),
            book: Mutex::new(Book { profiles, revision, unwritten: Vec::new(), vanished: None }),
            routes: Mutex::default(),
            uses: Mutex::default(),
            sticky: Mutex::default(),
            held: Mutex::default(),
            turn: AtomicUsize::default(),
            hurry,
            engine,
        })
    }

    /// Takes over what was not written when the config changed.
    pub(crate) fn inherit(&self, before: &Self) {
        let unwritten = std::mem::take(&mut super::locked(&before.book).unwritten);
        let mut book = super::locked(&self.book);
        for punishment in unwritten {
            self.apply(&mut book.profiles, &punishment);
            book.unwritten.push(punishment);
        }
        drop(book);
        *super::locked(&self.uses) = super::locked(&before.uses).clone();
        *super::locked(&self.sticky) = super::locked(&before.sticky).clone();
        *super::locked(&self.held) = super::locked(&before.held).clone();
    }

    pub(crate) fn setup(&self, route: &Route) -> &ProviderSetup {
        &self.engine.providers()[route.setup]
    }

    /// Returns where requests for a model go; from memory, unless something changed. `Err` says
    /// why no service here knows such a model.
    pub(crate) async fn route(
        self: &Arc<Self>,
        raw: &str,
        settings: &Settings,
    ) -> Result<Arc<Route>, String> {
        let now = self.engine.now();
        let edition = {
            let routes = super::locked(&self.routes);
            if let Some(route) = routes.ready.get(raw)
                && route.until.is_none_or(|until| now < until)
            {
                return Ok(route.clone());
            }
            routes.edition
        };
        // Links are files of other programs: they are not read on the thread that serves.
        let (agent, model, settings) = (self.clone(), raw.to_string(), settings.clone());
        let route =
            aside(move |handle| handle.block_on(agent.make(&model, &settings, now))).await?;
        let route = Arc::new(route);
        let mut routes = super::locked(&self.routes);
        if routes.edition == edition {
            if routes.ready.len() >= MOST_ROUTES {
                routes.ready.clear();
            }
            routes.ready.insert(raw.to_string(), route.clone());
        }
        Ok(route)
    }

    async fn make(&self, raw: &str, settings: &Settings, now: Timestamp) -> Result<Route, String> {
        let engine = &self.engine;
        let pinned = raw == PINNED;
        // Without a model it is about the provider: lists, uploads, batches.
        let raw = if pinned { "" } else { raw };
        let parsed = match raw {
            "" => engine.models().primary(),
            raw => engine.models().parse(raw).map_err(|error| error.to_string())?,
        };
        let model = match raw {
            "" => ModelRef { provider: parsed.model.provider.clone(), model: String::new() },
            _ => parsed.model.clone(),
        };
        let setups = engine.providers();
        let unknown = || format!("no provider of this gateway serves the model {raw}");
        // The config may name a program that answers for a model; it keeps its name.
        let runtime = engine.models().runtime(&model).filter(|_| !raw.is_empty());
        let server = runtime.unwrap_or(&model.provider);
        let at = setups.iter().position(|s| s.id == server).ok_or_else(unknown)?;
        let setup = &setups[at];
        if setup.info.dialect != DIALECT && !is_program(setup) {
            return Err(unknown());
        }
        let profiles = super::locked(&self.book).profiles.clone();
        let pin = parsed.profile.as_deref().filter(|_| !raw.is_empty());
        let pin = pin.map_or(Pin::None, Pin::User);
        let mut selection = engine.select(setup, &model.model, profiles, pin).await;
        if pinned && let Some(id) = pinned_profile(&selection, settings) {
            let profiles = std::mem::take(&mut selection.profiles);
            selection = engine.select(setup, &model.model, profiles, Pin::User(&id)).await;
        }
        let ordered = matches!(
            selection.choice.from,
            moltbot_profiles::OrderSource::Store | moltbot_profiles::OrderSource::Config
        );
        let mut planned = selection.planned();
        let before = planned.len();
        planned.retain(|one| settings.allow_subscription || !is_subscription(one));
        let mut held_back = before - planned.len();
        if planned.is_empty() && !selection.choice.all_cooling() && matches!(pin, Pin::None) {
            planned = selection.planned_others();
            let before = planned.len();
            planned.retain(|one| settings.allow_subscription || !is_subscription(one));
            held_back += before - planned.len();
        }
        if selection.plan_first && settings.allow_subscription && !settings.allow_paid_fallback {
            planned.retain(|one| one.payer != Payer::Metered);
        }
        if pinned {
            planned.truncate(1);
        }
        let params = engine.models().params(&model);
        let auto_cache = params.get("autoCache").and_then(Value::as_bool) == Some(true);
        let rules = params.get("cacheControlTtl").is_some() || auto_cache;
        let info = engine.models().info(&model).cloned();
        let expires = planned.iter().filter_map(|one| one.credential.expires);
        let until = selection.choice.soonest().into_iter().chain(expires).filter(|at| *at > now);
        let until = until.min();
        let resting = selection.soonest().filter(|_| planned.is_empty());
        let requested = redact(raw).as_ref().into();
        let considered = Arc::new(considered(setup, &model, &selection, settings));
        let why = why(&considered.model, &selection, held_back);
        Ok(Route {
            setup: at,
            label: considered.model.as_str().into(),
            info: info.map(Arc::new),
            extra: setup.extra_headers(&model.model),
            patterns: patterns(setup, rules),
            rules,
            auto_cache,
            params,
            requested,
            considered,
            resting: resting.map(|(id, until)| (id.to_string(), until)),
            why,
            credentials: planned.into_iter().map(|one| self.access(setup, &model, one)).collect(),
            ordered,
            model,
            until,
        })
    }

    fn access(&self, setup: &ProviderSetup, model: &ModelRef, planned: Planned) -> Arc<Access> {
        let view = CredentialView::of(&planned.credential);
        let provider = view.provider.to_string().into();
        let view = CredentialView {
            kind: view.kind.clone(),
            provider,
            has: view.has.clone(),
            prefix: view.prefix.clone(),
        };
        let external = planned.view.as_ref().is_some_and(|view| {
            view.state.refreshable || view.offer.is_some_and(|entry| entry.offer.caps.external)
        });
        let used = planned.profile.as_ref().map(|profile| {
            let key = (profile.clone(), model.model.clone());
            super::locked(&self.uses).entry(key).or_default().clone()
        });
        Arc::new(Access {
            label: planned.label.as_str().into(),
            headers: setup.credential_headers(&model.model),
            profile: planned.profile,
            view,
            renew: planned.renew,
            rereads: external,
            payer: planned.payer,
            used,
            sent: OnceLock::new(),
            credential: planned.credential,
        })
    }

    /// Forgets every route, because something they were made from changed.
    pub(crate) fn stale(&self) {
        let mut routes = super::locked(&self.routes);
        routes.edition += 1;
        routes.ready.clear();
    }

    /// Notes a failure: at once in memory, soon in the store; a rest that must survive a crash is
    /// written without waiting for the next round.
    pub(crate) fn punish(
        &self,
        route: &Route,
        access: &Access,
        failure: &Failure,
        quotas: Vec<Quota>,
        started: Timestamp,
    ) -> Option<Timestamp> {
        if !matches!(failure.scope, Scope::Profile | Scope::ProfileModel) {
            return None;
        }
        let profile = access.profile.clone()?;
        let punishment = Punishment {
            profile,
            model: route.model.model.clone(),
            failure: failure.clone(),
            quotas,
            at: self.engine.now(),
            started,
        };
        let mut book = super::locked(&self.book);
        self.apply(&mut book.profiles, &punishment);
        let (stats, at) = (book.profiles.stats(&punishment.profile), punishment.at);
        let rest = stats.and_then(|stats| stats.blocked(Some(&punishment.model), at));
        let until = rest.map(|rest| rest.until);
        let urgent = until.is_some_and(|until| until.since(at) > PATIENCE_MS);
        book.unwritten.push(punishment);
        drop(book);
        self.stale();
        if urgent {
            self.hurry.notify_one();
        }
        until
    }

    fn apply(&self, profiles: &mut Profiles, one: &Punishment) {
        let rules = &self.engine.rules().cooldowns;
        let model = Some(one.model.as_str()).filter(|model| !model.is_empty());
        profiles.punish(&one.profile, model, &one.failure, rules, one.at, one.started);
        profiles.observe(&one.profile, model, &one.quotas, false, one.at);
    }

    /// Notes a success; written soon.
    ///
    /// The account is noted once in a while only: it hardly ever changes.
    pub(crate) fn reward(
        &self,
        route: &Route,
        access: &Access,
        mut observed: Observed,
        started: Timestamp,
    ) {
        let Some(used) = &access.used else { return };
        used.started.fetch_max(started.millis(), Ordering::Relaxed);
        used.at.store(self.engine.now().millis(), Ordering::Relaxed);
        if used.seen.fetch_add(1, Ordering::Relaxed) % 1_024 == 0 {
            *super::locked(&used.account) = observed.account.take();
        }
        self.tell(route, access, observed);
    }

    /// Writes what has come together since the last time: one lock, one commit.
    pub(crate) async fn write(&self) -> Result<(), StoreError> {
        let seen = super::locked(&self.book).revision;
        if self.engine.store.watch(seen).await?.is_some() {
            self.reload().await?;
        }
        if self.vanished().is_some() {
            // Counts alone make no store: who puts the old one back must not find another there.
            return Ok(());
        }
        let punished = super::locked(&self.book).unwritten.clone();
        let mut rewarded = Vec::new();
        for ((profile, model), used) in super::locked(&self.uses).iter() {
            let at = used.at.swap(0, Ordering::Relaxed);
            if at != 0 {
                let started = Timestamp::from_millis(used.started.load(Ordering::Relaxed));
                let account = super::locked(&used.account).take();
                let key = (profile.clone(), model.clone());
                let told = used.take_told();
                rewarded.push((key, Timestamp::from_millis(at), started, account, told));
            }
        }
        if punished.is_empty() && rewarded.is_empty() {
            return Ok(());
        }
        let engine = &self.engine;
        let change = |profiles: &mut Profiles| {
            for one in &punished {
                self.apply(profiles, one);
            }
            for ((profile, model), at, started, account, told) in &rewarded {
                let model = Some(model.as_str()).filter(|model| !model.is_empty());
                profiles.reward(profile, model, *at, *started);
                if let Some(account) = account {
                    profiles.set_account(profile, account);
                }
                if let Some(told) = told {
                    held::note(profiles, profile, model, told);
                }
            }
        };
        if let Err(error) = update(&*engine.store, &*engine.host.clock, change).await {
            // Kept for the next time.
            for ((profile, model), at, _, _, told) in rewarded {
                if let Some(used) = super::locked(&self.uses).get(&(profile, model)) {
                    used.at.fetch_max(at.millis(), Ordering::Relaxed);
                    let mut newer = super::locked(&used.told);
                    *newer = newer.take().or(told);
                }
            }
            return Err(error);
        }
        super::locked(&self.book).unwritten.drain(..punished.len());
        self.reload().await
    }

    /// Reads the store again if it changed; the links in it are read again in any case.
    pub(crate) async fn refresh(&self) -> Result<(), StoreError> {
        let seen = super::locked(&self.book).revision;
        match self.engine.store.watch(seen).await? {
            Some(_) => self.reload().await,
            None => {
                if self.has_links() {
                    self.stale();
                }
                Ok(())
            }
        }
    }

    /// Reads the store again.
    pub(crate) async fn reload(&self) -> Result<(), StoreError> {
        let loaded = self.engine.store.load().await?;
        let mut book = super::locked(&self.book);
        let mut profiles = loaded.profiles;
        for one in &book.unwritten {
            self.apply(&mut profiles, one);
        }
        book.vanished = match (loaded.exists, book.vanished) {
            (true, _) => None,
            (false, None) => Some(book.profiles.iter().count()).filter(|count| *count > 0),
            (false, known) => known,
        };
        (book.profiles, book.revision) = (profiles, loaded.revision);
        drop(book);
        self.stale();
        Ok(())
    }

    /// Says that the store's file is gone, which had logins: whoever took it away may not have
    /// meant to.
    pub(crate) fn vanished(&self) -> Option<String> {
        let count = super::locked(&self.book).vanished?;
        let logins = if count == 1 { "login" } else { "logins" };
        Some(format!(
            "agent={} the store {} is gone, and {count} {logins} with it: put it back, or log in \
             again",
            self.name,
            self.engine.store.name()
        ))
    }

    fn has_links(&self) -> bool {
        super::locked(&self.book).profiles.iter().any(|(_, stored)| stored.is_link())
    }

    /// Renews a login, or finds that somebody did; `true` if its secret is another now.
    pub(crate) async fn renew(self: &Arc<Self>, access: &Access, force: bool) -> bool {
        let Some(id) = access.profile.clone() else { return false };
        let agent = self.clone();
        let renewed = aside(move |handle| {
            handle.block_on(async {
                let done = agent.engine.refresh(&id, force).await;
                let read = agent.reload().await;
                (done.is_ok() && read.is_ok()).then_some(()).ok_or_else(String::new)
            })
        });
        renewed.await.is_ok()
    }

    /// Puts first the profile that a conversation was with, or the one that its hash points at.
    pub(crate) fn arrange(&self, route: &Route, conversation: u64) -> Vec<Arc<Access>> {
        let mut all = route.credentials.clone();
        if all.len() < 2 {
            return all;
        }
        let known = super::locked(&self.sticky).get(&conversation).cloned();
        let position = |label: &str| all.iter().position(|access| &*access.label == label);
        let first = match known.and_then(|label| position(&label)) {
            Some(at) => at,
            None if route.ordered || self.is_arranged() => self.turn(&all),
            None => {
                // Only among equals: what comes first by its sort stays first.
                let (kind, payer) = (&all[0].view.kind, all[0].payer);
                let equal = all.iter().take_while(|a| a.view.kind == *kind && a.payer == payer);
                let weigh = |access: &Access| mix(conversation, access.label.as_bytes());
                let best = equal.enumerate().max_by_key(|(_, access)| weigh(access));
                best.map_or(0, |(at, _)| at)
            }
        };
        all[..=first].rotate_right(1);
        all
    }

    /// Remembers with which profile a conversation is, and returns the one it was with before, if
    /// that was another.
    pub(crate) fn stick(&self, conversation: u64, access: &Access) -> Option<Arc<str>> {
        let mut sticky = super::locked(&self.sticky);
        if sticky.get(&conversation).is_some_and(|label| *label == access.label) {
            return None;
        }
        if sticky.len() >= 10_000 {
            sticky.clear();
        }
        sticky.insert(conversation, access.label.clone())
    }

    /// Tells whether a request could be answered now.
    pub(crate) async fn is_ready(self: &Arc<Self>, settings: &Settings) -> bool {
        let own = self.engine.models().primary().model.to_string();
        let raw = if self.has_program() { own.as_str() } else { "" };
        let route = self.route(raw, settings).await;
        route.is_ok_and(|route| !route.credentials.is_empty())
    }
}

/// Does something slow on another thread.
async fn aside<T: Send + 'static>(
    work: impl FnOnce(Handle) -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let handle = Handle::current();
    let done = tokio::task::spawn_blocking(move || work(handle)).await;
    done.unwrap_or_else(|_| Err("the gateway failed at this request; its log says more".into()))
}

/// A hash that is the same in every run (FNV-1a).
pub(crate) fn mix(seed: u64, bytes: &[u8]) -> u64 {
    let start = seed ^ 0xcbf2_9ce4_8422_2325;
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Names the profile that batches and files belong to: the first API key by name, whether it rests
/// or not, because they are seen by the account that made them. Without one another credential
/// that may serve here.
fn pinned_profile(selection: &Selection, settings: &Settings) -> Option<String> {
    let ready = selection.choice.candidates.iter().map(|candidate| &candidate.id);
    let resting = selection.choice.skipped.iter().filter(|skipped| skipped.until.is_some());
    let all = ready.chain(resting.map(|skipped| &skipped.id));
    let plain = |id: &&String| {
        let planned = selection.views.get(id.as_str()).map(|view| &view.state);
        let is_key = planned.is_some_and(|state| {
            state.kind == CredentialKind::ApiKey && state.payer != Payer::Subscription
        });
        (!is_key, (*id).clone())
    };
    let (other, first) = all.map(|id| plain(&id)).min()?;
    (!other || settings.allow_subscription).then_some(first)
}

fn is_subscription(planned: &Planned) -> bool {
    // Of a login that its own program keeps and uses nothing is sent anywhere from here.
    if planned.credential.kind == CredentialKind::None {
        return false;
    }
    // A token of which its method does not say that it is billed per use is taken for a plan's.
    let metered = planned.payer == Payer::Metered;
    planned.payer == Payer::Subscription
        || (planned.credential.kind != CredentialKind::ApiKey && !metered)
}

/// Lists what was considered for a model, as records keep it.
fn considered(
    setup: &ProviderSetup,
    model: &ModelRef,
    selection: &Selection,
    settings: &Settings,
) -> ModelChoice {
    let mut candidates = selection.recorded();
    for candidate in candidates.iter_mut().filter(|one| one.skipped.is_none()) {
        if candidate.payer == Payer::Subscription && !settings.allow_subscription {
            candidate.skipped = Some("gateway.allowSubscription does not allow it".into());
        }
    }
    let more = candidates.len().saturating_sub(MAX_CANDIDATES);
    candidates.truncate(MAX_CANDIDATES);
    let name = if model.model.is_empty() { model.provider.clone() } else { model.to_string() };
    let origin = setup.origins.iter().find(|origin| setup.base_url.starts_with(origin.as_str()));
    let (origin, strategy) = (origin.cloned(), selection.strategy());
    ModelChoice { model: name, skipped: None, origin, candidates, strategy, more }
}

/// The places that tell conversations apart, and with rules what the provider wants to see too.
fn patterns(setup: &ProviderSetup, rules: bool) -> Patterns {
    let reads = setup.info.reads.iter().map(AsRef::as_ref).filter(|_| rules);
    let mut all: Vec<&str> = reads.filter(|read| *read != "/model").collect();
    all.extend(["/model", "/metadata/user_id", "/system", "/tools", "/messages/0"]);
    Patterns::new(&all)
}

/// Says why nobody can be asked. For how long is said with each answer: a route outlives it.
fn why(model: &str, selection: &Selection, held_back: usize) -> String {
    if let Some((id, _)) = selection.soonest() {
        let skipped = selection.choice.skipped.iter().find(|skipped| skipped.id == id);
        let cause = skipped.map_or_else(String::new, |skipped| skipped.reason.to_string());
        return format!("every credential for {model} rests; the soonest is {id} ({cause})");
    }
    if held_back > 0 {
        return format!(
            "the credentials for {model} belong to a subscription, which gateway.allowSubscription \
             does not allow here; an API key is needed: `moltbot onboard`"
        );
    }
    format!("there is no usable credential for {model}; `moltbot models status` says why")
}
