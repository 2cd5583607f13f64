//! One model with one credential after the other: who pays, renewal, retries, and what the store
//! is told (spec S-12 to S-15, T-28, decision 8).

use std::time::{Duration, Instant};

use moltbot_core::{Ended, Event, Failure, FailureKind, Observed, Payer, Scope, Timestamp, redact};
use moltbot_profiles::{
    Next as Step, Standing, all_cooling_message, busy_until, next_step, remaining_text,
};

use super::Run;
use crate::attempt::{Answer, Looked, Trouble, Unsent, perform};
use crate::compose::results_turn;
use crate::error::Failed;
use crate::model::ModelRef;
use crate::record::Attempt;
use crate::relink::link_for;
use crate::renew::{How, renew};
use crate::request::ChatReply;
use crate::select::{Planned, Selection};
use crate::setup::ProviderSetup;
use crate::transcript::Transcript;
use crate::turn::{Role, StopReason, Turn};
use crate::update::update;

/// What follows a try with one credential.
pub(super) enum Next {
    Reply(Box<ChatReply>),
    /// Another credential may help.
    Credential(Failed),
    /// Another model may help.
    Model(Failed),
    /// Nothing would help.
    Stop(Failed),
}

/// How the tries for one model stand.
pub(super) struct Tries {
    pub(super) left: u32,
    /// Whether another profile was tried because the service was too busy.
    pub(super) moved_for_load: bool,
    /// Whether any request was sent.
    pub(super) sent: bool,
    /// Whether another model could be tried.
    pub(super) more: bool,
}

impl Run<'_> {
    /// Asks one model with one credential, again where that may help.
    pub(super) async fn credential(
        &mut self,
        looked: &Looked<'_>,
        mut planned: Planned,
        alone: bool,
        tries: &mut Tries,
        sink: &mut (dyn FnMut(&Event) + Send),
    ) -> Next {
        let provider = looked.setup.entry.provider;
        let mut reread = false;
        loop {
            let started = self.engine.now();
            let prepared = match looked.prepare(&planned.credential, started) {
                Ok(prepared) => prepared,
                Err(Unsent::Credential(why)) => {
                    let message = format!("{}: {}", planned.label, redact(&why));
                    return Next::Credential(Failed::new("credential-refused", message, "auth"));
                }
                Err(unsent) => return Next::Stop(unsent_failed(unsent)),
            };
            tries.left = tries.left.saturating_sub(1);
            tries.sent = true;
            let began = Instant::now();
            let (limits, clock) = (self.limits(), self.engine.host.clock.clone());
            let now = || clock.now();
            let shop = self.engine.workshop(&planned.label);
            let open = self.attempt(looked, &planned, Duration::ZERO, &Observed::default());
            self.record.leaves(open);
            let done = perform(&shop, looked.setup, prepared, &limits, &now, sink).await;
            let latency = began.elapsed();
            self.record.arrived();
            let trouble = match done {
                Ok(answer) => {
                    let attempt = self.attempt(looked, &planned, latency, &answer.observed);
                    self.record.attempts.push(Attempt { status: Some(answer.status), ..attempt });
                    self.reward(looked, &planned, &answer.observed, started).await;
                    return self.reply(looked.model, &planned, answer);
                }
                Err(trouble) => trouble,
            };
            let Trouble { ended, observed, forwarded } = trouble;
            let failure = provider.failure(&ended, self.engine.now());
            let mut failed = Failed::of(&failure, &ended, observed.request_id.as_deref());
            let attempt = self.attempt(looked, &planned, latency, &observed);
            self.record.attempts.push(Attempt {
                class: Some(failure.kind.as_str().into()),
                status: status(&ended),
                message: Some(redact(&failure.message).into_owned()),
                until: failure.reset,
                ..attempt
            });
            let of_profile = matches!(failure.scope, Scope::Profile | Scope::ProfileModel);
            let over = self.remaining() == Duration::ZERO;
            if let Some(transcript) = forwarded {
                // Something was shown: the rest of it can come from nobody else.
                self.punish(looked, &planned, &failure, &observed, started).await;
                let partial = self.partial(looked.model, &planned, &transcript);
                (self.record.usage, self.record.cost) = (partial.usage, partial.cost);
                failed.partial = Some(Box::new(partial));
                return Next::Stop(failed);
            }
            if over {
                return Next::Stop(Failed::new("timeout", "LLM request timed out.", "timeout"));
            }
            let unread = !std::mem::replace(&mut reread, true);
            if failure.kind == FailureKind::Auth
                && of_profile
                && unread
                && let Some(fresh) = self.read_again(&planned).await
            {
                planned = fresh;
                continue;
            }
            match self.again(looked.model, &failure, alone, tries) {
                Step::After(ms) => self.engine.host.clock.sleep(ms).await,
                Step::Elsewhere => {
                    let until = self.punish(looked, &planned, &failure, &observed, started).await;
                    if let Some(attempt) = self.record.attempts.last_mut() {
                        attempt.until = until.or(attempt.until);
                    }
                    if let Some(until) = until {
                        let rest = remaining_text(Some(until.since(self.engine.now())));
                        let rests = || format!("{} rests for {rest}", planned.label);
                        failed.advice = Some(failed.advice.unwrap_or_else(rests));
                    }
                    return Next::Credential(failed);
                }
                Step::OtherModel => return Next::Model(failed),
                Step::Never => return Next::Stop(failed),
            }
        }
    }

    /// Decides what follows a failure of which nothing was shown (decision "Failure scope").
    fn again(&self, model: &ModelRef, failure: &Failure, alone: bool, tries: &mut Tries) -> Step {
        let now = self.engine.now();
        let remaining = u64::try_from(self.remaining().as_millis()).unwrap_or(u64::MAX);
        let standing = Standing {
            left: tries.left,
            alone,
            more_models: tries.more,
            moved: tries.moved_for_load,
            patience_ms: self.max_wait_ms().min(remaining),
        };
        if failure.kind == FailureKind::Overloaded {
            self.engine.set_busy(model, busy_until(failure, now));
            tries.moved_for_load = true;
        }
        next_step(failure, &standing, &mut self.engine.budget(), now)
    }

    /// Renews a login before its use.
    pub(super) async fn ready(
        &mut self,
        planned: Planned,
        selection: &Selection,
    ) -> Result<Planned, Failed> {
        let (Some(id), true) = (planned.profile.clone(), planned.renew) else { return Ok(planned) };
        let at_hand = planned.view.as_ref().and_then(|view| view.resolved.as_ref().ok());
        let engine = self.engine;
        let renewed = renew(engine, &id, at_hand, How::Due).await;
        match renewed {
            Ok((resolved, _)) => {
                Ok(Planned { credential: resolved.credential, renew: false, ..planned })
            }
            Err(error) => {
                let provider = &planned.credential.provider;
                let message = error.message(&id, provider, &selection.profiles, &engine.rules);
                Err(Failed::new(error.code(), message, "auth"))
            }
        }
    }

    /// Looks, after a refusal, whether the login has changed since it was read, or can be renewed.
    async fn read_again(&self, planned: &Planned) -> Option<Planned> {
        let (id, view) = (planned.profile.as_ref()?, planned.view.as_ref()?);
        let before = view.resolved.as_ref().ok()?;
        if !view.state.refreshable && !view.offer.is_some_and(|entry| entry.offer.caps.external) {
            return None;
        }
        let engine = self.engine;
        let renewed = renew(engine, id, Some(before), How::Refused);
        let (resolved, _) = renewed.await.ok()?;
        let changed = resolved.credential.secret() != planned.credential.secret();
        changed.then(|| Planned { credential: resolved.credential, ..planned.clone() })
    }

    /// Checks who pays (decision 8) and warns if that is not the plan.
    pub(super) async fn pay(
        &mut self,
        setup: &ProviderSetup,
        planned: &Planned,
    ) -> Result<(), Failed> {
        let before = self.plan.is_some();
        self.may_pay(setup, planned)?;
        if before && planned.payer == Payer::Metered {
            let text =
                format!("{} is paid per use; the subscription cannot be used now", planned.label);
            if !self.record.warnings.contains(&text) {
                self.warn(text).await;
            }
        }
        Ok(())
    }

    pub(super) fn may_pay(
        &mut self,
        setup: &ProviderSetup,
        planned: &Planned,
    ) -> Result<(), Failed> {
        let auth = self.engine.config.auth.as_ref();
        let allowed = auth.and_then(|auth| auth.allow_paid_fallback);
        if may_pay_for(&mut self.plan, &setup.id, planned.payer, allowed) {
            return Ok(());
        }
        let advice = format!(
            "{} would be paid per use, which auth.allowPaidFallback does not allow",
            planned.label
        );
        // Nothing of this provider rests if it was another's plan that could not pay.
        let message = match self.plan.as_deref() {
            Some(plan) if plan != setup.id => advice.clone(),
            _ => all_cooling_message(&setup.id),
        };
        Err(Failed::new("paid-fallback", message, "billing").advice(advice))
    }

    fn reply(&mut self, model: &ModelRef, planned: &Planned, answer: Answer) -> Next {
        let transcript = answer.transcript;
        let stop = transcript.stop().unwrap_or(StopReason::Stop);
        let turn = self.turn(model, planned, &transcript, stop);
        self.record.usage = turn.usage;
        self.record.cost = turn.cost;
        if stop == StopReason::Refusal {
            let mut failed = Failed::new("refused", "The model refused to answer.", "refused");
            failed.partial = Some(Box::new(turn));
            return Next::Stop(failed);
        }
        if let (Some(before), Some(now)) = (&self.request.prefer, &planned.profile)
            && before != now
        {
            self.add_changed(vec![format!(
                "the session moved from {before} to {now}: its prompt cache starts anew, and reasoning bound to the account may be dropped"
            )]);
        }
        if let Some(cached) = &self.cached {
            let (key, info) = (model.to_string(), self.engine.models.info(model));
            self.record.cache =
                cached.moved(&key, planned.profile.as_deref(), info, self.record.at);
        }
        let (usage, cost) = (transcript.usage(), turn.cost);
        let mut turns = vec![self.user.clone(), turn];
        turns.extend(results_turn(transcript.tool_errors()));
        Next::Reply(Box::new(ChatReply {
            text: transcript.text(),
            turns,
            stop,
            model: model.clone(),
            source: planned.label.clone(),
            profile: planned.profile.clone(),
            usage,
            cost,
            notes: Vec::new(),
            record: self.record.clone(),
        }))
    }

    fn partial(&self, model: &ModelRef, planned: &Planned, transcript: &Transcript) -> Turn {
        self.turn(model, planned, transcript, StopReason::Error)
    }

    fn turn(
        &self,
        model: &ModelRef,
        planned: &Planned,
        transcript: &Transcript,
        stop: StopReason,
    ) -> Turn {
        let usage = transcript.usage();
        Turn {
            role: Role::Assistant,
            content: transcript.content(),
            model: Some(model.to_string()),
            profile: planned.profile.clone(),
            stop: Some(stop),
            usage: Some(usage),
            cost: transcript
                .cost()
                .or_else(|| self.engine.models.info(model).and_then(|info| info.cost(&usage))),
            record: Some(self.record.id.clone()),
        }
    }

    /// Notes a failure in the store; returns until when the profile rests.
    async fn punish(
        &mut self,
        looked: &Looked<'_>,
        planned: &Planned,
        failure: &Failure,
        observed: &Observed,
        started: Timestamp,
    ) -> Option<Timestamp> {
        if !matches!(failure.scope, Scope::Profile | Scope::ProfileModel) {
            return None;
        }
        let id = planned.profile.as_ref()?;
        let (model, now) = (Some(looked.model.model.as_str()), self.engine.now());
        let engine = self.engine;
        let noted = update(&*engine.store, &*engine.host.clock, |profiles| {
            profiles.punish(id, model, failure, &engine.rules.cooldowns, now, started);
            profiles.observe(id, model, &observed.quotas, false, now);
            profiles.stats(id).and_then(|stats| stats.blocked(model, now)).map(|b| b.until)
        });
        match noted.await {
            Ok(until) => until,
            Err(error) => {
                self.warn(format!("the failure of {id} could not be noted: {error}")).await;
                None
            }
        }
    }

    /// Notes a success in the store.
    async fn reward(
        &mut self,
        looked: &Looked<'_>,
        planned: &Planned,
        observed: &Observed,
        started: Timestamp,
    ) {
        let Some(id) = &planned.profile else { return };
        let (engine, now) = (self.engine, self.engine.now());
        let noted = update(&*engine.store, &*engine.host.clock, |profiles| {
            profiles.reward(id, Some(&looked.model.model), now, started);
            profiles.observe(id, Some(&looked.model.model), &observed.quotas, true, now);
            if let Some(account) = &observed.account {
                profiles.set_account(id, account);
            }
        });
        if let Err(error) = noted.await {
            self.warn(format!("the use of {id} could not be noted: {error}")).await;
        }
        // A copy of somebody else's login becomes a link with the next write, which is this one.
        if planned.view.as_ref().is_some_and(|view| link_for(view).is_some()) {
            let _ = engine.relink().await;
        }
    }

    fn attempt(
        &self,
        looked: &Looked<'_>,
        planned: &Planned,
        latency: Duration,
        observed: &Observed,
    ) -> Attempt {
        Attempt {
            model: looked.model.to_string(),
            source: planned.label.clone(),
            class: None,
            status: None,
            request_id: observed.request_id.clone(),
            latency_ms: u64::try_from(latency.as_millis()).unwrap_or(u64::MAX),
            message: None,
            until: None,
        }
    }
}

/// Remembers the first provider whose plan would have paid, also where nothing of it is tried.
pub(crate) fn note_plan(plan: &mut Option<String>, provider: &str, would_pay: bool) {
    if would_pay {
        plan.get_or_insert_with(|| provider.to_string());
    }
}

/// Tells whether a credential may be used that is paid per use although a plan would have paid
/// (decision 8); `plan` is that of [`note_plan`].
pub(crate) fn may_pay_for(
    plan: &mut Option<String>,
    provider: &str,
    payer: Payer,
    allowed: Option<bool>,
) -> bool {
    note_plan(plan, provider, payer == Payer::Subscription);
    match plan.as_ref().filter(|_| payer == Payer::Metered) {
        Some(plan) => allowed.unwrap_or(plan == provider),
        None => true,
    }
}

pub(crate) fn unsent_failed(unsent: Unsent) -> Failed {
    match unsent {
        Unsent::Credential(why) => Failed::new("credential-refused", why, "auth"),
        Unsent::Invalid(why) => {
            Failed::new("format", format!("LLM request rejected: {why}"), "format")
        }
        Unsent::Origin(why) => Failed::new("origin-refused", why, "format"),
        Unsent::Plugin(why) => Failed::new("plugin-failed", why, "unknown"),
    }
}

fn status(ended: &Ended) -> Option<u16> {
    match ended {
        Ended::Http { status, .. } => Some(*status),
        _ => None,
    }
}
