//! One renewal at a time in this process, whoever waits for it.
//!
//! The renewal runs as a task of its own, so that a waiter who gives up ends nothing but its own
//! waiting: a request that was sent is always heard out.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};

use moltbot_core::{AuthError, Generation, Timestamp};
use moltbot_profiles::{EARLY_RENEWAL_MS, FailedRenewal};
use tokio::sync::watch;

use super::{RenewError, Renewed};

type Outcome = Result<Renewed, RenewError>;
type Waiting = watch::Receiver<Option<Outcome>>;

/// The renewals under way in this process, and those that failed lately, by profile.
#[derive(Clone, Default)]
pub(crate) struct Flights(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    under_way: HashMap<String, Waiting>,
    failed: HashMap<String, FailedRenewal>,
    /// When a login was last renewed before its end.
    early: HashMap<String, Timestamp>,
}

impl Flights {
    /// Joins the renewal of a profile that is under way, or starts `work`. Says whether it was
    /// started here.
    pub(super) async fn join<F>(&self, id: &str, work: impl FnOnce() -> F) -> (Outcome, bool)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let (mut waiting, started) = self.enter(id, work);
        let lost = || {
            let message = "the renewal ended without a result".to_string();
            Err(RenewError::Auth(AuthError::Other { message }))
        };
        let outcome = match waiting.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(lost),
            Err(_) => lost(),
        };
        (outcome, started)
    }

    fn enter<F>(&self, id: &str, work: impl FnOnce() -> F) -> (Waiting, bool)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut inner = self.inner();
        if let Some(waiting) = inner.under_way.get(id) {
            return (waiting.clone(), false);
        }
        let (tell, waiting) = watch::channel(None);
        inner.under_way.insert(id.to_string(), waiting.clone());
        let landing = Landing { flights: self.clone(), id: id.to_string() };
        let work = work();
        tokio::spawn(async move {
            let outcome = work.await;
            // First off the list, then told: who comes now starts anew.
            drop(landing);
            tell.send_replace(Some(outcome));
        });
        (waiting, true)
    }

    /// Returns the failure for which a login rests now.
    pub(super) fn resting(
        &self,
        id: &str,
        generation: &Generation,
        now: Timestamp,
    ) -> Option<FailedRenewal> {
        let failed = self.inner().failed.get(id).cloned();
        failed.filter(|failed| failed.rests_until(generation, now).is_some())
    }

    /// Remembers that the last attempt failed, or that it did not.
    pub(super) fn remember(&self, id: &str, failure: Option<FailedRenewal>) {
        let mut inner = self.inner();
        match failure {
            Some(failure) => inner.failed.insert(id.to_string(), failure),
            None => inner.failed.remove(id),
        };
    }

    /// Tells whether a login was renewed early not long ago: one that never lives longer than the
    /// early window would be renewed all the time.
    pub(super) fn early_lately(&self, id: &str, now: Timestamp) -> bool {
        let at = self.inner().early.get(id).copied();
        at.is_some_and(|at| (0..EARLY_RENEWAL_MS).contains(&now.since(at)))
    }

    /// Remembers that a login was renewed early.
    pub(super) fn set_early(&self, id: &str, now: Timestamp) {
        self.inner().early.insert(id.to_string(), now);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Takes a renewal off the list when its task ends, however it ends.
struct Landing {
    flights: Flights,
    id: String,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.flights.inner().under_way.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Notify;

    fn gone() -> Outcome {
        Err(RenewError::Gone)
    }

    #[tokio::test]
    async fn a_first_waiter_who_gives_up_ends_nothing() {
        let flights = Flights::default();
        let (count, go) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let work = || {
            let (count, go) = (count.clone(), go.clone());
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                go.notified().await;
                gone()
            }
        };
        let first = flights.join("a", work);
        assert!(tokio::time::timeout(std::time::Duration::ZERO, first).await.is_err());
        let second = flights.join("a", work);
        let third = flights.join("a", work);
        go.notify_one();
        let (second, third) = tokio::join!(second, third);
        assert_eq!((second, third), ((gone(), false), (gone(), false)));
        assert_eq!(count.load(Ordering::SeqCst), 1);
        go.notify_one();
        assert_eq!(flights.join("a", work).await, (gone(), true), "the next one starts anew");
    }

    #[tokio::test]
    async fn a_renewal_that_panics_is_no_end_to_waiting() {
        let flights = Flights::default();
        let broken = flights.join("a", || async { panic!("on purpose") }).await.0;
        assert!(matches!(broken, Err(RenewError::Auth(AuthError::Other { .. }))));
        assert_eq!(flights.join("a", || async { gone() }).await, (gone(), true));
    }
}
