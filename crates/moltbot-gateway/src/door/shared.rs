//! What all workers share: the present config and agents, replaced as a whole; clock, counters.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Notify;

use super::access::{Failures, Token};
use super::agent::Agent;
use super::child::Programs;
use super::error::Refusal;
use super::log::Journal;
use super::settings::{Settings, Tuning};
use crate::clock::Clock;

/// What all workers share.
pub(crate) struct Shared {
    state: RwLock<Arc<State>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) failures: Failures,
    pub(crate) tuning: Tuning,
    pub(crate) programs: Programs,
    /// Wakes the keeper before its next round.
    pub(crate) hurry: Arc<Notify>,
    draining: AtomicBool,
}

/// The config and the agents as they are now.
pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) tokens: Vec<Token>,
    pub(crate) agents: BTreeMap<String, Arc<Agent>>,
}

impl Shared {
    pub(crate) fn new(
        state: State,
        clock: Arc<dyn Clock>,
        journal: Arc<Journal>,
        tuning: Tuning,
        programs: Programs,
        hurry: Arc<Notify>,
    ) -> Self {
        Self {
            state: RwLock::new(Arc::new(state)),
            clock,
            journal,
            failures: Failures::default(),
            tuning,
            programs,
            hurry,
            draining: AtomicBool::new(false),
        }
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another config in place; requests under way end under the old one.
    pub(crate) fn replace(&self, state: State) {
        let mut place = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for (name, agent) in &state.agents {
            if let Some(before) = place.agents.get(name) {
                agent.inherit(before);
            }
        }
        *place = Arc::new(state);
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

impl State {
    /// Puts a state together; the limits of tokens that were there before go on.
    pub(crate) fn new(settings: Settings, agents: Vec<Agent>, before: Option<&State>) -> Self {
        let known: HashMap<&str, _> = before
            .into_iter()
            .flat_map(|state| &state.tokens)
            .map(|token| (token.access.name.as_str(), token.live.clone()))
            .collect();
        let tokens = settings.access.iter().map(|access| Token {
            name: access.name.as_str().into(),
            live: known.get(access.name.as_str()).cloned().unwrap_or_default(),
            access: access.clone(),
        });
        Self {
            tokens: tokens.collect(),
            agents: agents.into_iter().map(|a| (a.name.to_string(), Arc::new(a))).collect(),
            settings,
        }
    }

    /// Finds the agent a request is for: the token decides, a header can only narrow it.
    pub(crate) fn agent(&self, token: &Token, wanted: Option<&str>) -> Result<Arc<Agent>, Refusal> {
        let own = token.access.agent.as_deref();
        let name = match (own, wanted) {
            (Some(own), Some(wanted)) if own != wanted => {
                return Err(Refusal::forbidden("this token belongs to another agent"));
            }
            (Some(own), _) => own,
            (None, Some(wanted)) => wanted,
            (None, None) => &self.settings.default_agent,
        };
        let unknown = || Refusal::not_found("there is no such agent on this gateway");
        self.agents.get(name).cloned().ok_or_else(unknown)
    }
}
