//! What an agent behind the door remembers from one request to the next: what lies in which prompt
//! cache, what replies told about limits, and whose turn it is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use moltbot_core::{Observed, Quota, Timestamp, Usage};
use moltbot_profiles::{Profiles, Strategy};

use super::agent::{Access, Agent, Route, Use};
use crate::cache::{CacheEffect, Cached};

/// Conversations of which the prompt cache is remembered.
const MOST_HELD: usize = 10_000;

impl Agent {
    /// Notes what a reply left in the prompt cache of its conversation.
    pub(super) fn hold(&self, conversation: u64, model: &str, profile: &str, usage: &Usage) {
        let cached = Cached::after(model, profile, usage, Some(self.engine.now()));
        let mut held = super::locked(&self.held);
        if cached.tokens == 0 {
            held.remove(&conversation);
            return;
        }
        if held.len() >= MOST_HELD && !held.contains_key(&conversation) {
            held.clear();
        }
        held.insert(conversation, cached);
    }

    /// Says what it cost that a conversation went to this credential.
    pub(super) fn moved(
        &self,
        route: &Route,
        conversation: u64,
        access: &Access,
    ) -> Option<CacheEffect> {
        let held = super::locked(&self.held);
        let (info, now) = (route.info.as_deref(), self.engine.now());
        held.get(&conversation)?.moved(&route.label, access.profile.as_deref(), info, now)
    }

    /// Lists the credentials for a request that belongs to no conversation.
    pub(super) fn next_turn(&self, route: &Route) -> Vec<Arc<Access>> {
        let mut all = route.credentials.clone();
        let first = self.turn(&all);
        if first > 0 {
            all[..=first].rotate_right(1);
        }
        all
    }

    /// Tells whether a strategy arranges equals, so that nothing else may.
    pub(super) fn is_arranged(&self) -> bool {
        self.engine.rules().strategy != Strategy::Order
    }

    /// Says whose turn it is: with `round-robin` everybody's among equals, else the first one's.
    /// Routes are made anew once a second, requests come faster: hence a counter.
    pub(super) fn turn(&self, all: &[Arc<Access>]) -> usize {
        let Some(first) =
            all.first().filter(|_| self.engine.rules().strategy == Strategy::RoundRobin)
        else {
            return 0;
        };
        let equal =
            |one: &&Arc<Access>| one.view.kind == first.view.kind && one.payer == first.payer;
        let equals = all.iter().take_while(equal).count().max(1);
        self.turn.fetch_add(1, Ordering::Relaxed) % equals
    }

    /// Takes in what a reply told about limits: an empty one counts at once, the rest with the
    /// next writing of the store.
    pub(super) fn tell(&self, route: &Route, access: &Access, observed: Observed) {
        let (Some(used), Some(profile)) = (&access.used, &access.profile) else { return };
        if observed.quotas.is_empty() {
            return;
        }
        let now = self.engine.now();
        let empty = |quota: &Quota| quota.rejected && quota.reset.is_some_and(|at| at > now);
        if observed.quotas.iter().any(empty) {
            let model = Some(route.model.model.as_str()).filter(|model| !model.is_empty());
            let mut book = super::locked(&self.book);
            book.profiles.observe(profile, model, &observed.quotas, true, now);
            drop(book);
            self.stale();
        }
        *super::locked(&used.told) = Some((observed.quotas, now));
    }
}

/// Writes what was told into a store's contents.
pub(super) fn note(
    profiles: &mut Profiles,
    profile: &str,
    model: Option<&str>,
    told: &(Vec<Quota>, Timestamp),
) {
    profiles.observe(profile, model, &told.0, true, told.1);
}

impl Use {
    /// Takes what is not written yet.
    pub(super) fn take_told(&self) -> Option<(Vec<Quota>, Timestamp)> {
        super::locked(&self.told).take()
    }
}
