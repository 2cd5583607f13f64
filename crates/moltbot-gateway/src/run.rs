//! One chat from its models to its reply (spec 03, decision "Failure scope").

mod kept;
mod tries;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use moltbot_core::{Event, Level, Note, redact};
use moltbot_profiles::{
    Pin, SkipReason, Skipped, TRIES, Wait, all_cooling_message, no_credentials_message,
    no_key_message, not_configured_message, remaining_text, switched_message,
};

use crate::attempt::Looked;
use crate::cache::Cached;
use crate::compose::{Composer, user_turn};
use crate::engine::Engine;
use crate::error::{ChatError, Failed};
use crate::http::Limits;
use crate::model::{Candidates, ModelError, ModelRef};
use crate::record::{ModelChoice, Outcome, Record};
use crate::request::{ChatReply, ChatRequest};
use crate::select::{Planned, ProfileView, Selection, runs_on_a_plan};
use crate::setup::ProviderSetup;
use crate::thinking::ThinkingLevel;
use crate::turn::Turn;
use crate::waiting::Place;
use kept::Kept;
use tries::{Next, Tries};
pub(crate) use tries::{may_pay_for, note_plan, unsent_failed};

/// The smallest context window that is of use (spec T-30), and the one below which is warned.
const MIN_WINDOW: u64 = 16_000;
const SMALL_WINDOW: u64 = 32_000;

/// How long a chat may take without a setting, in seconds (spec T-29).
const USUAL_SECONDS: u32 = 600;

/// How long a chat waits for a resting profile without a setting, in seconds.
pub(crate) const USUAL_WAIT_SECONDS: u32 = 30;

pub(crate) struct Run<'e> {
    engine: &'e Engine,
    request: &'e ChatRequest,
    candidates: Candidates,
    for_images: bool,
    user: Turn,
    turns: Vec<Turn>,
    deadline: Instant,
    /// What of the conversation lies in a prompt cache.
    cached: Option<Cached>,
    record: Kept<'e>,
    notes: Vec<Note>,
    /// The provider whose plan would have paid, once one was considered.
    plan: Option<String>,
}

impl<'e> Run<'e> {
    /// Understands a request. One that cannot be understood leaves a record, too.
    pub(crate) fn new(engine: &'e Engine, request: &'e ChatRequest) -> Result<Self, ChatError> {
        let mut record = kept::begin(engine, request)?;
        Self::with(engine, request, record.clone()).map_err(|error| {
            record.outcome = Some(Outcome::Failed { code: error.code.to_string() });
            ChatError { record: Some(Box::new(record)), ..error }
        })
    }

    fn with(
        engine: &'e Engine,
        request: &'e ChatRequest,
        record: Record,
    ) -> Result<Self, ChatError> {
        let mut candidates = engine.models.candidates(request.model.as_deref())?;
        let blind = |model: &ModelRef| engine.models.info(model).is_some_and(|info| !info.images);
        let for_images = !request.images.is_empty() && candidates.models.first().is_some_and(blind);
        if for_images {
            candidates = engine.models.image_candidates()?;
        }
        let defaults = engine.config.agents.as_ref().and_then(|agents| agents.defaults.as_ref());
        let seconds = defaults.and_then(|defaults| defaults.timeout_seconds);
        let usual = u64::from(seconds.map_or(USUAL_SECONDS, |seconds| seconds.get())) * 1_000;
        let timeout = Duration::from_millis(request.timeout_ms.unwrap_or(usual));
        let user = user_turn(&request.prompt, &request.images);
        if user.content.is_empty() {
            return Err(ChatError::new("input", "There is nothing to send: the message is empty."));
        }
        let mut turns = request.history.clone();
        turns.push(user.clone());
        Ok(Self {
            engine,
            request,
            candidates,
            for_images,
            user,
            turns,
            deadline: Instant::now() + timeout,
            cached: Cached::of(&request.history, request.last_turn),
            record: Kept::new(engine, record),
            notes: Vec::new(),
            plan: None,
        })
    }

    /// Tries one model after the other.
    pub(crate) async fn answer(
        mut self,
        sink: &mut (dyn FnMut(&Event) + Send),
    ) -> Result<ChatReply, ChatError> {
        for warning in std::mem::take(&mut self.candidates.warnings) {
            self.warn(warning).await;
        }
        self.record_skipped();
        self.engine.budget().request();
        let models = std::mem::take(&mut self.candidates.models);
        let mut failures: Vec<(ModelRef, Failed)> = Vec::new();
        for (index, model) in models.iter().enumerate() {
            let more = index + 1 < models.len();
            match self.model(model, more, sink).await {
                Ok(Next::Reply(mut reply)) => {
                    let (model, source) = (model.to_string(), reply.source.clone());
                    self.record.outcome = Some(Outcome::Answered { model, source });
                    reply.notes = std::mem::take(&mut self.notes);
                    reply.record = self.record.take();
                    return Ok(*reply);
                }
                Ok(Next::Credential(failed) | Next::Model(failed)) => {
                    failures.push((model.clone(), failed));
                }
                Ok(Next::Stop(failed)) | Err(failed) => return Err(self.finish(failed)),
            }
        }
        let failed = self.summary(failures);
        Err(self.finish(failed))
    }

    /// Writes down what [`answer`](Self::answer) would do.
    pub(crate) async fn explain(mut self) -> Result<Record, ChatError> {
        // Nothing is sent, hence nothing to be kept if it is dropped.
        self.record.take();
        self.record.warnings = std::mem::take(&mut self.candidates.warnings);
        self.record_skipped();
        for model in std::mem::take(&mut self.candidates.models) {
            let setup = self.setup(&model).map_err(|failed| self.error(failed))?;
            note_plan(&mut self.plan, &setup.id, runs_on_a_plan(self.engine.registry, setup));
            let selection = self.selection(setup, &model).await.map_err(|f| self.error(f))?;
            note_plan(&mut self.plan, &setup.id, selection.plan_first);
            self.check_pin(&selection, &model).map_err(|failed| self.error(failed))?;
            let mut choice = self.model_choice(setup, &model, &selection);
            let mut planned = selection.planned();
            if planned.is_empty() && !selection.choice.all_cooling() {
                planned = selection.planned_others();
            }
            let params = self.engine.models.params(&model);
            let (chat, changed) = self.composer(&model, &params).compose();
            self.add_changed(changed);
            if let (Some(first), Ok(looked)) =
                (planned.first(), Looked::new(setup, &model, &params, &chat))
            {
                match looked.prepare(&first.credential, self.record.at) {
                    Ok(prepared) => choice.origin = prepared.origin(),
                    Err(unsent) => choice.skipped = Some(unsent_failed(unsent).message),
                }
            }
            for planned in &planned {
                if let Err(refused) = self.may_pay(setup, planned) {
                    let own = choice.candidates.iter_mut().find(|c| c.source == planned.label);
                    if let Some(own) = own {
                        own.skipped = refused.advice;
                    }
                }
            }
            self.record.models.push(choice);
        }
        Ok(self.record.take())
    }

    async fn model(
        &mut self,
        model: &ModelRef,
        more: bool,
        sink: &mut (dyn FnMut(&Event) + Send),
    ) -> Result<Next, Failed> {
        let setup = self.setup(model)?;
        note_plan(&mut self.plan, &setup.id, runs_on_a_plan(self.engine.registry, setup));
        if let Some(failed) = self.pass_over(model, more).await {
            return Ok(Next::Model(failed));
        }
        let params = self.engine.models.params(model);
        let (chat, changed) = self.composer(model, &params).compose();
        self.add_changed(changed);
        let looked = match Looked::new(setup, model, &params, &chat) {
            Ok(looked) => looked,
            Err(unsent) => return Ok(Next::Stop(unsent_failed(unsent))),
        };
        let selection = match self.wait_for_selection(setup, model, more).await? {
            Ok(selection) => selection,
            Err(failed) => return Ok(Next::Model(failed)),
        };
        if let Err(failed) = self.check_pin(&selection, model) {
            return Ok(Next::Stop(failed));
        }
        let mut tries = Tries { left: TRIES, moved_for_load: false, sent: false, more };
        let mut queue: VecDeque<Planned> = selection.planned().into();
        let mut others = Some(selection.planned_others()).filter(|_| !self.is_pinned(model));
        let mut last: Option<Failed> = None;
        loop {
            let Some(planned) = queue.pop_front() else {
                // Variables and the config's key come in when no profile could be used at all.
                match others.take().filter(|others| !tries.sent && !others.is_empty()) {
                    Some(others) => queue.extend(others),
                    None => break,
                }
                continue;
            };
            if let Err(mut refused) = self.pay(setup, &planned).await {
                let considered = self.record.models.last_mut().map(|choice| &mut choice.candidates);
                let own = considered.into_iter().flatten().find(|c| c.source == planned.label);
                if let Some(own) = own {
                    own.skipped = refused.advice.clone();
                }
                if let Some(last) = last.take() {
                    refused.message = last.message;
                }
                last = Some(refused);
                continue;
            }
            let label = planned.label.clone();
            let planned = match self.ready(planned, &selection).await {
                Ok(planned) => planned,
                Err(failed) => {
                    let next = queue.front().or(others.iter().flatten().next());
                    let next = next.map(|next| next.label.clone());
                    let failed_id = label.trim_start_matches("profile:");
                    self.warn(switched_message(failed_id, &failed.message, next.as_deref())).await;
                    last.get_or_insert(failed);
                    continue;
                }
            };
            match self.credential(&looked, planned, queue.is_empty(), &mut tries, sink).await {
                Next::Credential(failed) => last = Some(failed),
                next => return Ok(next),
            }
        }
        Ok(Next::Model(last.unwrap_or_else(|| self.no_key(setup, &selection))))
    }

    /// Makes the choice; if every profile rests only for a moment, waits in order of arrival and
    /// makes it again.
    async fn wait_for_selection(
        &mut self,
        setup: &ProviderSetup,
        model: &ModelRef,
        more: bool,
    ) -> Result<Result<Selection, Failed>, Failed> {
        // Held until the choice is made; then the next one in the queue makes its own.
        let mut place: Option<Place> = None;
        loop {
            let selection = self.selection(setup, model).await?;
            note_plan(&mut self.plan, &setup.id, selection.plan_first);
            let now = self.engine.now();
            let wait = selection.choice.wait(self.record.at, now, self.max_wait_ms());
            let (until, mut too_long) = match wait {
                Wait::Until(until) if !self.is_pinned(model) => (until, more),
                Wait::TooLong(until) if !self.is_pinned(model) => (until, true),
                _ => {
                    let choice = self.model_choice(setup, model, &selection);
                    self.record.models.push(choice);
                    return Ok(Ok(selection));
                }
            };
            let left = u64::try_from(until.since(now)).unwrap_or(0);
            too_long |= self.remaining().as_millis() < left.into();
            if !too_long && place.is_none() {
                let patience = Duration::from_millis(self.max_wait_ms()).min(self.remaining());
                place = self.engine.waiting.queue(&model.to_string(), patience).await;
                too_long = place.is_none();
                if !too_long {
                    // It may be another choice when one's turn comes.
                    continue;
                }
            }
            let id = selection.soonest().map_or_else(String::new, |(id, _)| id.to_string());
            if too_long {
                let rest = remaining_text(Some(until.since(self.engine.now())));
                let advice = format!("the soonest is {id}, in {rest}");
                let choice = self.model_choice(setup, model, &selection);
                self.record.models.push(choice);
                let message = all_cooling_message(&setup.id);
                return Ok(Err(Failed::new("all-cooling", message, "rate_limit").advice(advice)));
            }
            let text = format!("every profile rests; waiting {} s for {id}", left.div_ceil(1_000));
            self.note(Level::Info, text).await;
            self.engine.host.clock.sleep(left).await;
        }
    }

    async fn selection(
        &self,
        setup: &ProviderSetup,
        model: &ModelRef,
    ) -> Result<Selection, Failed> {
        let profiles = self.engine.store.load().await?.profiles;
        Ok(self.engine.select(setup, &model.model, profiles, self.pin(model)).await)
    }

    fn pin(&self, model: &ModelRef) -> Pin<'_> {
        if self.is_pinned(model) {
            let pinned = self.request.profile.as_deref().or(self.candidates.profile.as_deref());
            return pinned.map_or(Pin::None, Pin::User);
        }
        self.request.prefer.as_deref().map_or(Pin::None, Pin::Auto)
    }

    /// Tells whether the user insists on a profile of this model's provider.
    fn is_pinned(&self, model: &ModelRef) -> bool {
        let pinned = self.request.profile.as_deref().or(self.candidates.profile.as_deref());
        let provider = pinned.and_then(|id| id.split_once(':')).map(|(provider, _)| provider);
        let setup = provider.and_then(|provider| self.engine.providers.get(provider));
        pinned.is_some() && setup.is_none_or(|setup| setup.id == model.provider)
    }

    fn check_pin(&self, selection: &Selection, model: &ModelRef) -> Result<(), Failed> {
        let Pin::User(id) = self.pin(model) else { return Ok(()) };
        if !selection.choice.candidates.is_empty() {
            return Ok(());
        }
        let why = selection.choice.why_not(id);
        let message = match why {
            Some(SkipReason::NotInOrder {} | SkipReason::NotInConfig {}) => {
                not_configured_message(id, &model.provider)
            }
            Some(why) => no_credentials_message(id, Some(why)),
            None => no_credentials_message(id, Some(&SkipReason::NotStored {})),
        };
        Err(Failed::new("profile-unknown", message, "auth"))
    }

    /// Says why a model is not even tried.
    async fn pass_over(&mut self, model: &ModelRef, more: bool) -> Option<Failed> {
        let window = self.engine.models.info(model).map_or(0, |info| info.context_window);
        let skip = |run: &mut Self, failed: Failed| {
            run.record.models.push(ModelChoice {
                model: model.to_string(),
                skipped: Some(failed.message.clone()),
                origin: None,
                candidates: Vec::new(),
                strategy: None,
                more: 0,
            });
            Some(failed)
        };
        if window > 0 && window < MIN_WINDOW {
            let text = format!(
                "Model context window too small ({window} tokens). Minimum is {MIN_WINDOW}."
            );
            return skip(self, Failed::new("input", text, "format"));
        }
        if more && self.engine.busy_until(model).is_some() {
            let text = "The AI service is temporarily overloaded. Please try again in a moment.";
            return skip(self, Failed::new("overloaded", text, "overloaded"));
        }
        if window > 0 && window < SMALL_WINDOW {
            self.warn(format!("the context window of {model} is small: {window} tokens")).await;
        }
        None
    }

    fn no_key(&self, setup: &ProviderSetup, selection: &Selection) -> Failed {
        let agent = &self.engine.agent;
        let message = no_key_message(&setup.id, &agent.store, &agent.dir);
        let failed = Failed::new("no-credential", message, "auth");
        let profiles = selection.choice.skipped.iter();
        let missing = |id: &str| selection.views.get(id).and_then(|v| v.missing_plugin.clone());
        let own = |skipped: &Skipped| {
            // What its own method says helps more than that it cannot be read.
            let unreadable = skipped.reason == SkipReason::Unreadable {};
            let view = selection.views.get(&skipped.id).filter(|_| unreadable);
            let words = view.and_then(ProfileView::detail);
            format!("{}: {}", skipped.id, words.unwrap_or_else(|| skipped.reason.to_string()))
        };
        let why: Vec<String> = profiles
            .map(|skipped| missing(&skipped.id).unwrap_or_else(|| own(skipped)))
            .chain(selection.problems.iter().cloned())
            .collect();
        if why.is_empty() { failed } else { failed.advice(why.join("; ")) }
    }

    fn composer<'a>(
        &'a self,
        model: &'a ModelRef,
        params: &'a serde_json::Value,
    ) -> ComposerOf<'a> {
        let defaults = self.engine.config.agents.as_ref().and_then(|a| a.defaults.as_ref());
        let configured = defaults.and_then(|defaults| defaults.thinking_default);
        let level = |word: &str| word.parse::<ThinkingLevel>().ok();
        let thinking = self
            .request
            .thinking
            .or_else(|| params["thinking"].as_str().and_then(level))
            .or_else(|| configured.and_then(|word| level(word.as_str())));
        ComposerOf { run: self, model, params, thinking, key: model.to_string() }
    }

    fn setup(&self, model: &ModelRef) -> Result<&'e ProviderSetup, Failed> {
        let runtime = self.engine.models.runtime(model);
        self.engine.providers.get(runtime.unwrap_or(&model.provider)).ok_or_else(|| {
            let why = runtime.map(|runtime| format!("this build has no runtime \"{runtime}\""));
            let error = ModelError::Unknown { key: model.clone(), why };
            Failed::new(error.code(), error.to_string(), "model_not_found")
        })
    }

    fn model_choice(
        &self,
        setup: &ProviderSetup,
        model: &ModelRef,
        selection: &Selection,
    ) -> ModelChoice {
        let base = reqwest::Url::parse(&setup.base_url).ok();
        let mut candidates = selection.recorded();
        if let Some(cached) = &self.cached {
            let (key, now) = (model.to_string(), self.record.at);
            for candidate in &mut candidates {
                candidate.rewrite = cached.rewritten(&key, candidate.profile.as_deref(), now);
            }
        }
        ModelChoice {
            model: model.to_string(),
            skipped: None,
            origin: base.map(|url| crate::http::origin(&url)),
            candidates,
            strategy: selection.strategy(),
            more: selection.choice.hidden,
        }
    }

    fn record_skipped(&mut self) {
        for (model, why) in std::mem::take(&mut self.candidates.skipped) {
            self.record.models.push(ModelChoice {
                model: model.to_string(),
                skipped: Some(why),
                origin: None,
                candidates: Vec::new(),
                strategy: None,
                more: 0,
            });
        }
    }

    fn add_changed(&mut self, changed: Vec<String>) {
        for what in changed {
            if !self.record.changed.contains(&what) {
                self.record.changed.push(what);
            }
        }
    }

    /// Puts the failures of all models into one (spec S-23, S-24).
    fn summary(&self, mut failures: Vec<(ModelRef, Failed)>) -> Failed {
        match failures.len() {
            0 => Failed::new("internal", "No model was tried.", "unknown"),
            1 => failures.remove(0).1,
            count => {
                let each: Vec<String> = failures
                    .iter()
                    .map(|(model, failed)| {
                        format!("{model}: {} ({})", failed.message, failed.reason)
                    })
                    .collect();
                let what = if self.for_images { "image models" } else { "models" };
                let message = format!("All {what} failed ({count}): {}", each.join(" | "));
                let advice = failures.into_iter().find_map(|(_, failed)| failed.advice);
                Failed { advice, ..Failed::new("all-models-failed", message, "unknown") }
            }
        }
    }

    fn finish(mut self, failed: Failed) -> ChatError {
        self.record.outcome = Some(Outcome::Failed { code: failed.code.to_string() });
        self.record.take();
        self.error(failed)
    }

    fn error(&self, failed: Failed) -> ChatError {
        ChatError {
            code: failed.code,
            message: failed.message,
            advice: failed.advice,
            partial: failed.partial,
            record: Some(Box::new(self.record.clone())),
        }
    }

    async fn warn(&mut self, text: String) {
        let text = redact(&text).into_owned();
        self.record.warnings.push(text.clone());
        self.note(Level::Warning, text).await;
    }

    async fn note(&mut self, level: Level, text: String) {
        let note = Note { level, text };
        // A note that cannot be shown must not cost the reply.
        let _ = self.engine.host.front.tell(&note).await;
        self.notes.push(note);
    }

    fn max_wait_ms(&self) -> u64 {
        let auth = self.engine.config.auth.as_ref();
        let seconds = auth.and_then(|auth| auth.max_wait_seconds).unwrap_or(USUAL_WAIT_SECONDS);
        u64::from(seconds) * 1_000
    }

    fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The time limits of the next step: none may outlast the whole.
    fn limits(&self) -> impl Fn() -> Limits + Send + Sync + use<> {
        let (deadline, limits) = (self.deadline, self.engine.limits);
        move || {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            let left = u64::try_from(left).unwrap_or(u64::MAX);
            Limits {
                first_byte_ms: limits.first_byte_ms.min(left),
                idle_ms: limits.idle_ms.min(left),
                ..limits
            }
        }
    }
}

/// A composer together with what it borrows.
struct ComposerOf<'a> {
    run: &'a Run<'a>,
    model: &'a ModelRef,
    params: &'a serde_json::Value,
    thinking: Option<ThinkingLevel>,
    key: String,
}

impl ComposerOf<'_> {
    fn compose(&self) -> (crate::compose::Chat, Vec<String>) {
        let request = self.run.request;
        Composer {
            model: &self.key,
            model_id: &self.model.model,
            info: self.run.engine.models.info(self.model),
            params: self.params,
            system: request.system.as_deref(),
            turns: &self.run.turns,
            tools: &request.tools,
            thinking: self.thinking,
            max_tokens: request.max_tokens,
            temperature: request.temperature,
        }
        .compose()
    }
}
