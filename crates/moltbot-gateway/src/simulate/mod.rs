//! What other settings would have done: requests and faults of a trace against a config, with a
//! virtual clock.
//!
//! Choice, cooldown, the step after a failure, the retry budget, waiting and the price of a switch
//! are the functions that chats use. What a trace cannot know is left out: how long a failure takes
//! (no time), and renewals (a login that can be renewed is taken for fresh).

mod trace;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};

use moltbot_core::{
    Credential, CredentialKind, CredentialState, FailureKind, Payer, Resolved, Scope, Secret,
    Timestamp, Usage,
};
use moltbot_profiles::{
    Choice, ChoiceInput, Next, Pin, Profiles, ResolvedState, RetryBudget, Standing, TRIES, Wait,
    busy_until, next_step, order,
};
use serde::Serialize;

pub use trace::{Trace, TraceError, TraceFault, TraceProfile, TraceRequest};

use crate::cache::Cached;
use crate::engine::Engine;
use crate::methods::offer_of;
use crate::model::{ModelError, ModelRef};
use crate::run::{may_pay_for, note_plan};
use crate::select::runs_on_a_plan;
use crate::setup::ProviderSetup;

/// What came of a trace.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Simulation {
    /// Requests of clients.
    pub requests: u64,
    /// Those that were answered.
    pub served: u64,
    /// Those that were not.
    pub failed: u64,
    /// Why not, by code.
    pub failures: BTreeMap<String, u64>,
    /// Those that waited, for a rest to end or before asking again.
    pub waited: u64,
    /// How long all of them waited, in milliseconds.
    pub waited_ms: u64,
    /// How long one of them waited at most, in milliseconds.
    pub longest_wait_ms: u64,
    /// How often a conversation went to another profile or model.
    pub switched: u64,
    /// Requests sent to services.
    pub sent: u64,
    /// US dollars, as far as prices are known.
    pub cost: f64,
    /// Tokens that had to be written to a prompt cache again because of a switch.
    pub cache_rewritten: u64,
    /// The same by credential.
    pub profiles: BTreeMap<String, SimulatedProfile>,
}

/// What one credential did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SimulatedProfile {
    /// Requests it was sent.
    pub sent: u64,
    /// Those it answered.
    pub served: u64,
    /// US dollars.
    pub cost: f64,
    /// Tokens written again.
    pub cache_rewritten: u64,
}

impl Engine {
    /// Replays a trace under this engine's config and `profiles`, whose statistics are not looked
    /// at. Reads no link, sends nothing, changes nothing; deterministic.
    ///
    /// # Errors
    ///
    /// A line of the trace that names a profile or a model that cannot be.
    pub fn simulate(&self, trace: &Trace, profiles: &Profiles) -> Result<Simulation, TraceError> {
        let mut profiles =
            if trace.profiles.is_empty() { profiles.clone() } else { brought(trace) };
        let ids: Vec<String> = profiles.all_stats().map(|(id, _)| id.to_string()).collect();
        ids.iter().for_each(|id| profiles.set_stats(id, Default::default()));
        for fault in trace.faults.iter().filter(|fault| fault.line > 0) {
            if let Some(id) = fault.profile.as_deref().filter(|id| !profiles.contains(id)) {
                let message = format!("there is no profile \"{id}\"");
                return Err(TraceError { line: fault.line, column: 1, message });
            }
        }
        let start = trace.start.unwrap_or_else(|| self.now());
        let auth = self.config.auth.as_ref();
        let seconds = auth.and_then(|auth| auth.max_wait_seconds);
        let mut world = World {
            engine: self,
            trace,
            profiles,
            start,
            max_wait_ms: u64::from(seconds.unwrap_or(crate::run::USUAL_WAIT_SECONDS)) * 1_000,
            allow_paid: auth.and_then(|auth| auth.allow_paid_fallback),
            budget: RetryBudget::default(),
            busy: HashMap::new(),
            sessions: HashMap::new(),
            events: BinaryHeap::new(),
            pending: HashMap::new(),
            next: 0,
            out: Simulation::default(),
        };
        for (number, request) in trace.requests.iter().enumerate() {
            let asked = self.models.candidates(request.model.as_deref());
            let (models, profile) = match asked {
                Ok(candidates) => (candidates.models, candidates.profile),
                Err(error @ ModelError::Invalid { .. }) if request.line > 0 => {
                    let message = error.to_string();
                    return Err(TraceError { line: request.line, column: 1, message });
                }
                Err(error) => {
                    world.out.requests += 1;
                    world.fail(error.code());
                    continue;
                }
            };
            world.schedule(request.at, Event::Go(Box::new(Asked::new(number, models, profile))));
        }
        world.run();
        Ok(world.out)
    }
}

/// Makes the profiles that a trace brings along.
fn brought(trace: &Trace) -> Profiles {
    let mut profiles = Profiles::default();
    for profile in &trace.profiles {
        let provider = profile.id.split(':').next().unwrap_or_default();
        let secret = Secret::new("simulated");
        let credential = match profile.kind.as_str() {
            "api_key" => Credential::api_key(provider, secret),
            "token" => Credential::token(provider, secret, None),
            _ => {
                let mut login = Credential::new(CredentialKind::Oauth, provider);
                login.access = Some(secret);
                login
            }
        };
        profiles.insert(&profile.id, credential);
    }
    profiles
}

/// A request on its way through the models and credentials.
struct Asked {
    number: usize,
    models: Vec<ModelRef>,
    pinned: Option<String>,
    at: usize,
    queue: Option<VecDeque<Candidate>>,
    left: u32,
    moved: bool,
    waited_ms: u64,
    /// The provider whose plan would have paid, once one was considered.
    plan: Option<String>,
    code: String,
    begun: bool,
}

#[derive(Clone)]
struct Candidate {
    label: String,
    profile: Option<String>,
    payer: Payer,
}

enum Event {
    Go(Box<Asked>),
    Done { asked: Box<Asked>, with: Candidate, started: Timestamp },
}

struct World<'a> {
    engine: &'a Engine,
    trace: &'a Trace,
    profiles: Profiles,
    start: Timestamp,
    max_wait_ms: u64,
    allow_paid: Option<bool>,
    budget: RetryBudget,
    busy: HashMap<ModelRef, Timestamp>,
    sessions: HashMap<String, Cached>,
    /// Times and numbers of what comes, the first one first, in order of arrival.
    events: BinaryHeap<Reverse<(i64, u64)>>,
    pending: HashMap<u64, Event>,
    next: u64,
    out: Simulation,
}

impl Asked {
    fn new(number: usize, models: Vec<ModelRef>, pinned: Option<String>) -> Self {
        Self {
            number,
            models,
            pinned,
            at: 0,
            queue: None,
            left: TRIES,
            moved: false,
            waited_ms: 0,
            plan: None,
            code: "no-credential".into(),
            begun: false,
        }
    }

    /// Gives up on the present model.
    fn next_model(&mut self) {
        self.at += 1;
        (self.queue, self.left, self.moved) = (None, TRIES, false);
    }
}

impl<'a> World<'a> {
    fn schedule(&mut self, at: i64, event: Event) {
        self.next += 1;
        self.events.push(Reverse((at, self.next)));
        self.pending.insert(self.next, event);
    }

    fn run(&mut self) {
        while let Some(Reverse((at, number))) = self.events.pop() {
            match self.pending.remove(&number) {
                Some(Event::Go(asked)) => self.go(asked, at),
                Some(Event::Done { asked, with, started }) => self.done(*asked, &with, started, at),
                None => {}
            }
        }
    }

    fn request(&self, asked: &Asked) -> &'a TraceRequest {
        &self.trace.requests[asked.number]
    }

    fn session(&self, asked: &Asked) -> String {
        // Requests without a session are taken for one conversation per model.
        let request = self.request(asked);
        let model = request.model.clone().unwrap_or_default();
        request.session.clone().unwrap_or_else(|| format!("\n{model}"))
    }

    /// Takes a request on until it waits, is sent, or has failed.
    fn go(&mut self, mut asked: Box<Asked>, at: i64) {
        if !std::mem::replace(&mut asked.begun, true) {
            self.out.requests += 1;
            self.budget.request();
        }
        while let Some(model) = asked.models.get(asked.at).cloned() {
            let more = asked.at + 1 < asked.models.len();
            if asked.queue.is_none() && !self.plan(&mut asked, &model, more, at) {
                if asked.queue.is_none() && asked.at < asked.models.len() {
                    // It waits: the rest is in the events.
                    if let Some(until) = self.waits(&mut asked, &model, at) {
                        self.schedule(until, Event::Go(asked));
                        return;
                    }
                }
                asked.next_model();
                continue;
            }
            match self.try_model(&mut asked, &model, more, at) {
                Tried::Sent(with) => {
                    let ms = i64::try_from(self.request(&asked).ms).unwrap_or(i64::MAX / 4);
                    let started = self.start.plus(at);
                    self.schedule(at.saturating_add(ms), Event::Done { asked, with, started });
                    return;
                }
                Tried::Again(ms) => {
                    asked.waited_ms += ms;
                    let ms = i64::try_from(ms).unwrap_or(i64::MAX / 4);
                    self.schedule(at + ms, Event::Go(asked));
                    return;
                }
                Tried::Stop => break,
                Tried::OtherModel => asked.next_model(),
            }
        }
        self.waited(&asked);
        let code = asked.code.clone();
        self.fail(&code);
    }

    /// Makes the choice for a model; `false` if there is nothing to try now.
    fn plan(&mut self, asked: &mut Asked, model: &ModelRef, more: bool, at: i64) -> bool {
        let now = self.start.plus(at);
        let Some(setup) = self.setup(model) else {
            asked.code = "plugin-missing".into();
            return false;
        };
        note_plan(&mut asked.plan, &setup.id, runs_on_a_plan(self.engine.registry, setup));
        if more && self.busy.get(model).is_some_and(|until| now < *until) {
            asked.code = "overloaded".into();
            return false;
        }
        let choice = self.choose(setup, asked, model, now);
        let states = self.states(setup, now);
        let plan = |id: &str| states.get(id).is_some_and(|s| s.payer == Payer::Subscription);
        // A plan that rests would have paid.
        let resting = choice.skipped.iter().filter(|skipped| skipped.until.is_some());
        let plan_first = choice.candidates.first().is_some_and(|first| plan(&first.id))
            || resting.into_iter().any(|skipped| plan(&skipped.id));
        note_plan(&mut asked.plan, &setup.id, plan_first);
        if choice.candidates.is_empty() && choice.all_cooling() {
            asked.code = "all-cooling".into();
            return false;
        }
        let mut queue: VecDeque<Candidate> = choice
            .candidates
            .iter()
            .map(|candidate| Candidate {
                label: format!("profile:{}", candidate.id),
                profile: Some(candidate.id.clone()),
                payer: candidate.payer,
            })
            .collect();
        if queue.is_empty() && asked.pinned.is_none() {
            queue.extend(self.engine.other_sources(&setup.id).0.into_iter().map(|source| {
                let (label, payer) = (source.label, source.payer);
                Candidate { label, profile: None, payer }
            }));
        }
        if queue.is_empty() {
            asked.code = "no-credential".into();
            return false;
        }
        asked.queue = Some(queue);
        true
    }

    /// Says until when a request waits, if it does.
    fn waits(&mut self, asked: &mut Asked, model: &ModelRef, at: i64) -> Option<i64> {
        if asked.at + 1 < asked.models.len() || asked.pinned.is_some() {
            return None;
        }
        let now = self.start.plus(at);
        let setup = self.setup(model)?;
        let choice = self.choose(setup, asked, model, now);
        let arrived = self.start.plus(self.request(asked).at);
        let Wait::Until(until) = choice.wait(arrived, now, self.max_wait_ms) else { return None };
        asked.waited_ms += u64::try_from(until.since(now)).unwrap_or(0);
        Some(until.since(self.start))
    }

    fn try_model(&mut self, asked: &mut Asked, model: &ModelRef, more: bool, at: i64) -> Tried {
        let now = self.start.plus(at);
        let mut queue = asked.queue.take().unwrap_or_default();
        while let Some(with) = queue.front().cloned() {
            let provider = self.setup(model).map_or(&*model.provider, |setup| &*setup.id);
            if !may_pay_for(&mut asked.plan, provider, with.payer, self.allow_paid) {
                asked.code = "paid-fallback".into();
                queue.pop_front();
                continue;
            }
            self.out.sent += 1;
            self.out.profiles.entry(with.label.clone()).or_default().sent += 1;
            asked.left = asked.left.saturating_sub(1);
            let Some(fault) = self.trace.fault(at, with.profile.as_deref(), model) else {
                asked.queue = Some(queue);
                return Tried::Sent(with);
            };
            let failure = fault.failure(now);
            asked.code = failure.kind.as_str().into();
            let standing = Standing {
                left: asked.left,
                alone: queue.len() == 1,
                more_models: more,
                moved: asked.moved,
                patience_ms: self.max_wait_ms,
            };
            if failure.kind == FailureKind::Overloaded {
                self.busy.insert(model.clone(), busy_until(&failure, now));
                asked.moved = true;
            }
            match next_step(&failure, &standing, &mut self.budget, now) {
                Next::After(ms) => {
                    asked.queue = Some(queue);
                    return Tried::Again(ms);
                }
                Next::Elsewhere => {
                    let of_profile = matches!(failure.scope, Scope::Profile | Scope::ProfileModel);
                    if let Some(id) = with.profile.as_deref().filter(|_| of_profile) {
                        let rules = &self.engine.rules.cooldowns;
                        let model = Some(model.model.as_str());
                        self.profiles.punish(id, model, &failure, rules, now, now);
                    }
                    queue.pop_front();
                }
                Next::OtherModel => return Tried::OtherModel,
                Next::Never => return Tried::Stop,
            }
        }
        Tried::OtherModel
    }

    fn done(&mut self, asked: Asked, with: &Candidate, started: Timestamp, at: i64) {
        let now = self.start.plus(at);
        let model = asked.models[asked.at].clone();
        let key = model.to_string();
        if let Some(id) = &with.profile {
            self.profiles.reward(id, Some(&model.model), now, started);
        }
        let request = self.request(&asked);
        let (session, info) = (self.session(&asked), self.engine.models.info(&model));
        let before = self.sessions.get(&session);
        let place = with.profile.as_deref().unwrap_or(&with.label);
        let (mut read, mut again) = (0, 0);
        if let Some(before) = before {
            let over = before.until.is_some_and(|until| until <= started);
            let same = before.model == key && before.profile == place;
            read = if same && !over { before.tokens.min(request.cached) } else { 0 };
            again = before.rewritten(&key, Some(place), started).min(request.cached);
            self.out.switched += u64::from(!same);
        }
        let usage = Usage {
            input: Some(request.input),
            output: Some(request.output),
            cache_read: Some(read),
            cache_write: Some(request.cached - read),
            ..Usage::default()
        };
        let cost = info.and_then(|info| info.cost(&usage)).unwrap_or(0.0);
        self.sessions.insert(session, Cached::after(&key, place, &usage, Some(now)));
        self.out.served += 1;
        self.out.cost += cost;
        self.out.cache_rewritten += again;
        let own = self.out.profiles.entry(with.label.clone()).or_default();
        own.served += 1;
        own.cost += cost;
        own.cache_rewritten += again;
        self.waited(&asked);
    }

    fn waited(&mut self, asked: &Asked) {
        self.out.waited += u64::from(asked.waited_ms > 0);
        self.out.waited_ms += asked.waited_ms;
        self.out.longest_wait_ms = self.out.longest_wait_ms.max(asked.waited_ms);
    }

    fn fail(&mut self, code: &str) {
        self.out.failed += 1;
        *self.out.failures.entry(code.to_string()).or_default() += 1;
    }

    fn setup(&self, model: &ModelRef) -> Option<&'a ProviderSetup> {
        let runtime = self.engine.models.runtime(model);
        self.engine.providers.get(runtime.unwrap_or(&model.provider))
    }

    fn choose(
        &self,
        setup: &ProviderSetup,
        asked: &Asked,
        model: &ModelRef,
        now: Timestamp,
    ) -> Choice {
        let accepts = setup.info.accepts.iter();
        let also: Vec<(String, CredentialKind)> =
            accepts.map(|(provider, kind)| (provider.to_string(), kind.clone())).collect();
        let states = self.states(setup, now);
        let resolved = |id: &str, stored: &Credential| {
            let known = states.get(id).cloned();
            known.unwrap_or_else(|| ResolvedState::stored(stored, true, now))
        };
        let session = self.session(asked);
        let pin = match (&asked.pinned, self.sessions.get(&session)) {
            (Some(id), _) => Pin::User(id),
            // Only named sessions hold on to a profile.
            (None, Some(held)) if !session.starts_with('\n') => Pin::Auto(&held.profile),
            (None, _) => Pin::None,
        };
        order(&ChoiceInput {
            model: Some(&model.model),
            pin,
            also: &also,
            ..ChoiceInput::new(&self.profiles, &self.engine.rules, &setup.id, &resolved, now)
        })
    }

    /// Says what each profile of a provider is worth at a time.
    fn states(&self, setup: &ProviderSetup, now: Timestamp) -> HashMap<String, ResolvedState> {
        let methods = self.engine.methods();
        let mut states = HashMap::new();
        let accepts = setup.info.accepts.iter().map(|(provider, _)| provider.as_ref());
        let own = std::iter::once(setup.id.as_str()).chain(accepts);
        for (id, stored) in own.flat_map(|provider| self.profiles.of_provider(provider)) {
            let offer = offer_of(self.engine.registry, id, stored).ok().flatten();
            let judged = Resolved::judged(stored.clone(), now);
            let mut state = methods.state(id, offer.as_ref(), &judged, now);
            if let Some(own) = self.trace.profiles.iter().find(|own| own.id == id) {
                state.payer = own.payer;
            }
            if stored.is_link() || (state.refreshable && state.state == CredentialState::Expired) {
                state.state = CredentialState::Ready;
            }
            states.insert(id.to_string(), state);
        }
        states
    }
}

/// What came of asking one model.
enum Tried {
    Sent(Candidate),
    Again(u64),
    OtherModel,
    Stop,
}
