//! Counters of use, written behind: gathered in memory, taken to the store in groups.
//!
//! A hot loop of requests changes statistics all the time, and statistics share their file with
//! secrets (spec A-1). Gathering them means that the file is rewritten at most once a second, and
//! that a crash loses at most that second, but no rest longer than a minute: such a one is
//! written at once (decision "Refresh").

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use moltbot_core::{Failure, Timestamp};

use crate::{CooldownRules, FileStore, Profiles, Stats, Store, StoreError, punish};

/// How long counters may wait: 1 second.
pub const USAGE_DELAY_MS: i64 = 1_000;

/// The longest rest that may wait with them: 1 minute.
pub const USAGE_PATIENCE_MS: i64 = 60_000;

/// Something that was noticed about the use of a profile.
#[derive(Clone, Debug, PartialEq)]
pub enum Use {
    /// A request of it failed.
    Failed {
        /// Which profile.
        id: String,
        /// With which model.
        model: Option<String>,
        /// How.
        failure: Failure,
        /// When.
        at: Timestamp,
        /// When the request had started.
        started: Timestamp,
    },
    /// A request of it succeeded.
    Served {
        /// Which profile.
        id: String,
        /// With which model.
        model: Option<String>,
        /// The account behind it, if the service named it.
        account: Option<String>,
        /// When.
        at: Timestamp,
        /// When the request had started.
        started: Timestamp,
    },
}

/// When gathered uses are to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Now: call [`UsageWriter::flush`].
    Now,
    /// At this time, together with what comes until then.
    At(Timestamp),
}

/// Gathers uses and writes them in groups. What was not written is written when it is dropped.
pub struct UsageWriter {
    store: FileStore,
    rules: CooldownRules,
    gathered: Mutex<Gathered>,
}

#[derive(Default)]
struct Gathered {
    uses: Vec<Use>,
    /// When the first of them came.
    since: Option<Timestamp>,
    /// When the last of them came.
    last: Timestamp,
    /// The statistics after the last write, by which the length of a rest is foreseen.
    known: HashMap<String, Stats>,
}

impl UsageWriter {
    /// Makes a writer for a store; touches nothing.
    pub fn new(store: FileStore, rules: CooldownRules) -> Self {
        Self { store, rules, gathered: Mutex::default() }
    }

    /// Takes a use in and says when it is to be written.
    pub fn note(&self, noted: Use) -> Flush {
        let mut gathered = self.gathered();
        let at = noted.at();
        let urgent = match &noted {
            Use::Served { .. } => false,
            Use::Failed { id, model, failure, at, started } => {
                // Other processes may have counted as well, so that an unknown past is not trusted.
                let known = gathered.known.get(id).cloned();
                let provider = id.split_once(':').map_or(id.as_str(), |(head, _)| head);
                let before = known.clone().unwrap_or_default();
                let model = model.as_deref();
                let after = punish(&before, provider, model, failure, &self.rules, *at, *started);
                let rest = after.blocked(model, *at).map_or(0, |blocked| blocked.until.since(*at));
                gathered.known.insert(id.clone(), after);
                known.is_none() || rest > USAGE_PATIENCE_MS
            }
        };
        match (&noted, gathered.uses.last_mut()) {
            // Of successes in a row the last one tells everything.
            (
                Use::Served { id, model, account, .. },
                Some(Use::Served { id: i, model: m, account: a, at: last, started: s }),
            ) if id == i && model == m && (account == a || account.is_none()) => {
                *last = (*last).max(at);
                *s = (*s).max(noted.started());
            }
            _ => gathered.uses.push(noted),
        }
        gathered.last = gathered.last.max(at);
        let since = *gathered.since.get_or_insert(at);
        let due = since.plus(USAGE_DELAY_MS);
        // A clock that was set back must not keep uses waiting.
        match urgent || at >= due || at < since {
            true => Flush::Now,
            false => Flush::At(due),
        }
    }

    /// Returns when what was gathered is to be written; `None` if there is nothing.
    pub fn due(&self) -> Option<Timestamp> {
        self.gathered().since.map(|since| since.plus(USAGE_DELAY_MS))
    }

    /// Applies what is gathered, so that a reader sees every rest at once. What is being written at
    /// this moment is in the store a moment later.
    pub fn overlay(&self, profiles: &mut Profiles) {
        apply(&self.gathered().uses, &self.rules, profiles);
    }

    /// Writes what was gathered, in one go; what cannot be written stays gathered.
    pub async fn flush(&self, now: Timestamp) -> Result<(), StoreError> {
        let Some(uses) = self.take() else { return Ok(()) };
        let written = async {
            let mut locked = self.store.lock(now).await?;
            apply(&uses, &self.rules, &mut locked.profiles);
            let profiles = locked.profiles.clone();
            locked.commit().await.map(|_| profiles)
        };
        let written = written.await;
        self.settle(uses, written, now)
    }

    /// Does the same as [`flush`](Self::flush) on this thread.
    pub fn flush_blocking(&self, now: Timestamp) -> Result<(), StoreError> {
        let Some(uses) = self.take() else { return Ok(()) };
        let written = self.store.update_blocking(now, |profiles| {
            apply(&uses, &self.rules, profiles);
            profiles.clone()
        });
        self.settle(uses, written, now)
    }

    fn take(&self) -> Option<Vec<Use>> {
        let mut gathered = self.gathered();
        gathered.since = None;
        Some(std::mem::take(&mut gathered.uses)).filter(|uses| !uses.is_empty())
    }

    fn settle(
        &self,
        mut uses: Vec<Use>,
        written: Result<Profiles, StoreError>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut gathered = self.gathered();
        match written {
            Ok(profiles) => {
                let known = profiles.all_stats();
                gathered.known = known.map(|(id, stats)| (id.to_string(), stats.clone())).collect();
                Ok(())
            }
            Err(error) => {
                uses.append(&mut gathered.uses);
                gathered.uses = uses;
                gathered.since = Some(now);
                Err(error)
            }
        }
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for UsageWriter {
    fn drop(&mut self) {
        let last = self.gathered().last;
        // Nobody is left to hear of an error; counters are all that is lost.
        let _ = self.flush_blocking(last);
    }
}

impl Use {
    fn at(&self) -> Timestamp {
        match self {
            Self::Failed { at, .. } | Self::Served { at, .. } => *at,
        }
    }

    fn started(&self) -> Timestamp {
        match self {
            Self::Failed { started, .. } | Self::Served { started, .. } => *started,
        }
    }
}

fn apply(uses: &[Use], rules: &CooldownRules, profiles: &mut Profiles) {
    for noted in uses {
        match noted {
            Use::Failed { id, model, failure, at, started } => {
                profiles.punish(id, model.as_deref(), failure, rules, *at, *started);
            }
            Use::Served { id, model, account, at, started } => {
                profiles.reward(id, model.as_deref(), *at, *started);
                if let Some(account) = account {
                    profiles.set_account(id, account);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moltbot_core::{FailureKind, Scope};

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn failed(at: Timestamp) -> Use {
        let failure = Failure {
            kind: FailureKind::RateLimit,
            scope: Scope::Profile,
            reset: None,
            account: None,
            code: "rate-limited".into(),
            message: String::new(),
            advice: None,
        };
        Use::Failed { id: "acme:x".into(), model: None, failure, at, started: at }
    }

    fn served(at: Timestamp) -> Use {
        let (id, model) = ("acme:x".to_string(), Some("m".to_string()));
        Use::Served { id, model, account: None, at, started: at }
    }

    fn bench() -> (tempfile::TempDir, FileStore, UsageWriter) {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path().join("auth-profiles.json"))
            .timeout(std::time::Duration::from_secs(60));
        let writer = UsageWriter::new(store.clone(), CooldownRules::default());
        (dir, store, writer)
    }

    #[test]
    fn successes_wait_for_a_second_and_are_written_once() {
        let (_dir, store, writer) = bench();
        for ms in 0..900 {
            assert_eq!(writer.note(served(NOW.plus(ms))), Flush::At(NOW.plus(USAGE_DELAY_MS)));
        }
        assert!(!store.path().exists());
        let mut seen = Profiles::default();
        writer.overlay(&mut seen);
        assert_eq!(seen.stats("acme:x").unwrap().whole.last_used, Some(NOW.plus(899)));
        assert_eq!(writer.note(served(NOW.plus(1_000))), Flush::Now);
        assert_eq!(writer.due(), Some(NOW.plus(1_000)));
        writer.flush_blocking(NOW.plus(1_000)).unwrap();
        let profiles = store.load_blocking().unwrap().profiles;
        assert_eq!(profiles.stats("acme:x").unwrap().whole.last_used, Some(NOW.plus(1_000)));
        assert_eq!((writer.due(), profiles.last_good("acme")), (None, Some("acme:x")));
        writer.flush_blocking(NOW).unwrap();
        assert_eq!(writer.note(served(NOW)), Flush::At(NOW.plus(1_000)));
        assert_eq!(writer.note(served(NOW.plus(-5_000))), Flush::Now, "the clock was set back");
    }

    #[test]
    fn a_long_rest_is_written_at_once() {
        let (_dir, store, writer) = bench();
        assert_eq!(writer.note(failed(NOW)), Flush::Now, "its past is unknown");
        writer.flush_blocking(NOW).unwrap();
        let later = NOW.plus(70_000);
        assert_eq!(writer.note(failed(later)), Flush::Now, "the second rest is longer");
        writer.flush_blocking(later).unwrap();
        let profiles = store.load_blocking().unwrap().profiles;
        let blocked = profiles.stats("acme:x").unwrap().blocked(None, later).unwrap();
        assert!(blocked.until.since(later) > USAGE_PATIENCE_MS);
    }

    #[test]
    fn what_cannot_be_written_waits_and_dropping_writes_the_rest() {
        let (dir, store, writer) = bench();
        std::fs::write(store.path(), "{ half").unwrap();
        writer.note(served(NOW));
        assert!(writer.flush_blocking(NOW).is_err());
        writer.note(failed(NOW.plus(1)));
        std::fs::remove_file(store.path()).unwrap();
        drop(writer);
        let profiles = store.load_blocking().unwrap().profiles;
        let stats = profiles.stats("acme:x").unwrap();
        assert_eq!((stats.whole.last_used, stats.whole.error_count), (Some(NOW), 1));
        drop(dir);
    }

    #[test]
    fn writers_side_by_side_lose_no_count() {
        let (_dir, store, _) = bench();
        std::thread::scope(|scope| {
            for thread in 0..16 {
                let store = store.clone();
                scope.spawn(move || {
                    let writer = UsageWriter::new(store, CooldownRules::default());
                    for n in 0..100 {
                        writer.note(failed(NOW));
                        if n % 25 == thread {
                            writer.flush_blocking(NOW).unwrap();
                        }
                    }
                });
            }
        });
        let profiles = store.load_blocking().unwrap().profiles;
        assert_eq!(profiles.stats("acme:x").unwrap().whole.error_count, 1_600);
    }

    #[test]
    fn tasks_flush_too() {
        let (_dir, store, writer) = bench();
        writer.note(served(NOW));
        crate::testing::block_on(writer.flush(NOW)).unwrap();
        assert!(store.load_blocking().unwrap().profiles.stats("acme:x").is_some());
    }
}
