//! What every store can do, whatever it is made of.

use std::fmt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use moltbot_core::{AuthError, Generation, RenewReply, Revision, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Cause, JournalHead, JournalState, Profiles, RENEWAL_PAUSE_MS, remaining_text};

/// Keeps the profiles of one agent. A file today; a database for several hosts would do.
///
/// Who wants to write takes the lock, gets the contents *and* the lock as one token, changes the
/// contents and commits the token. There is no other way to write, so that no write can start
/// from stale contents.
#[async_trait]
pub trait Store: Send + Sync {
    /// Names the store for people, e.g. its path.
    fn name(&self) -> String;

    /// Reads the contents; a missing store is empty. Never writes.
    async fn load(&self) -> Result<Loaded, StoreError>;

    /// Waits for the lock, then reads the contents under it. `now` is recorded with the lock and
    /// decides at the commit which statistics are over.
    async fn lock(&self, now: Timestamp) -> Result<Locked, StoreError>;

    /// Returns the present revision if it is another than `seen`. Cheap.
    async fn watch(&self, seen: Revision) -> Result<Option<Revision>, StoreError>;

    /// Waits for the right to renew one login, alone among all processes. It is taken before the
    /// store's lock, never while that is held, and may be kept for as long as a network takes.
    ///
    /// `external` names the file in which another program keeps the login; who shares that file
    /// shares the lease. Such a lease has no journal. A store that does not say otherwise grants
    /// no leases, hence its logins are not renewed.
    async fn lease(
        &self,
        profile: &str,
        _external: Option<&Path>,
        _now: Timestamp,
    ) -> Result<Box<dyn Lease>, StoreError> {
        let what = format!("the login {profile} is not renewed, as this store grants no leases");
        Err(StoreError::Unwritable { path: self.name().into(), what })
    }

    /// Records that the service called this login spent; changes nothing else. A store without a
    /// log of changes records nothing.
    async fn record_spent(
        &self,
        _profile: &str,
        _generation: &Generation,
        _now: Timestamp,
    ) -> Result<(), StoreError> {
        Ok(())
    }
}

/// The right to renew one login, held until dropped, and the journal of that renewal.
///
/// The order is [`open`](Self::open), send, [`keep`](Self::keep) before anybody looks at the
/// answer, store, [`close`](Self::close). A process that ends in between leaves the journal to
/// the next holder, whom [`recovery`](crate::recovery) tells what to do.
#[async_trait]
pub trait Lease: Send + Sync {
    /// Reads what an interrupted renewal left.
    async fn journal(&self) -> Result<JournalState, StoreError>;

    /// Writes down what will be asked and reserves room for the answer, on disk. On an error the
    /// request must not be sent, as its answer could not be kept.
    async fn open(&mut self, head: &JournalHead) -> Result<(), StoreError>;

    /// Writes the answer down by one write, then waits until it is on disk.
    async fn keep(&mut self, reply: &RenewReply, received_at: Timestamp) -> Result<(), StoreError>;

    /// Removes the journal; after what it holds is stored, or of no use.
    async fn close(&mut self) -> Result<(), StoreError>;

    /// Returns the last attempt, of whatever process, if it failed.
    async fn last_failure(&self) -> Option<FailedRenewal>;

    /// Remembers that the attempt failed, or with `None` that it did not. Losing that in a crash
    /// does no harm, so errors are swallowed.
    async fn remember(&mut self, failure: Option<&FailedRenewal>);
}

/// A renewal that failed; kept so that several processes do not all ask again at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRenewal {
    /// Of which login.
    pub generation: Generation,
    /// When.
    pub at: Timestamp,
    /// Why; without any secret, which is for the caller to see to.
    pub error: AuthError,
}

impl FailedRenewal {
    /// Returns until when the same login is not asked for again: a minute. A failure from the
    /// future was recorded under a wrong clock and does not count.
    pub fn rests_until(&self, generation: &Generation, now: Timestamp) -> Option<Timestamp> {
        let until = self.at.plus(RENEWAL_PAUSE_MS);
        (self.generation == *generation && self.at <= now && now < until).then_some(until)
    }
}

/// The lock of a store, held until dropped or committed.
#[async_trait]
pub trait Guard: Send {
    /// Writes the contents as a whole and gives the lock back.
    async fn commit(self: Box<Self>, profiles: Profiles) -> Result<Revision, StoreError>;

    /// Does the same, and tells the log of changes about it; without a log, just the same.
    async fn commit_for(
        self: Box<Self>,
        profiles: Profiles,
        _cause: Cause,
    ) -> Result<Revision, StoreError> {
        self.commit(profiles).await
    }
}

/// What was read from a store.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The contents.
    pub profiles: Profiles,
    /// Changes with every write.
    pub revision: Revision,
    /// Whether the store exists.
    pub exists: bool,
    /// The profiles that come from files of older versions and are not yet in the store.
    pub imported: Vec<String>,
    /// What the user should know, one sentence each.
    pub notes: Vec<String>,
}

/// The contents of a store together with its lock.
///
/// Dropping it gives the lock back without a write.
pub struct Locked {
    /// The contents, to be changed.
    pub profiles: Profiles,
    /// The profiles that the commit takes over from files of older versions.
    pub imported: Vec<String>,
    /// What the user should know, one sentence each.
    pub notes: Vec<String>,
    revision: Revision,
    exists: bool,
    guard: Box<dyn Guard>,
}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locked").field("profiles", &self.profiles).finish_non_exhaustive()
    }
}

impl Locked {
    /// Makes a token; for stores.
    pub fn new(loaded: Loaded, guard: Box<dyn Guard>) -> Self {
        let Loaded { profiles, revision, exists, imported, notes } = loaded;
        Self { profiles, imported, notes, revision, exists, guard }
    }

    /// Returns the revision that was read.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Tells whether a commit makes the store: there was none yet, or there is none any more.
    pub fn is_new(&self) -> bool {
        !self.exists
    }

    /// Writes the contents and gives the lock back; on an error nothing has changed.
    ///
    /// The contents were read under the lock, so that whoever held an older revision before has
    /// lost nothing. What is changed without the lock in the meantime, by hand, is merged;
    /// [`StoreError::Changed`] says that both changed the same thing.
    pub async fn commit(self) -> Result<Revision, StoreError> {
        self.guard.commit(self.profiles).await
    }

    /// Does the same as [`commit`](Self::commit), and tells the log of changes about it.
    pub async fn commit_for(self, cause: Cause) -> Result<Revision, StoreError> {
        self.guard.commit_for(self.profiles, cause).await
    }
}

/// Why a store could not be read or written. Every message is one sentence with the path; none
/// holds any content.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It is not what it should be: shown, nothing is written.
    #[error("{place}: {what}; the file is left as it is, so mend it or move it aside")]
    Invalid {
        /// `path:line:column`.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// It cannot be read: shown, nothing is written.
    #[error("cannot read {}: {what}", .path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why, and what to do.
        what: String,
    },
    /// It cannot be written: shown.
    #[error("cannot write {}: {what}", .path.display())]
    Unwritable {
        /// Which file.
        path: PathBuf,
        /// Why, and what that means for the content.
        what: String,
    },
    /// Somebody else held the lock all the time: shown, nothing is written.
    #[error("{}", locked(.path, *.pid, *.age_ms, *.waited_ms))]
    Locked {
        /// The lock.
        path: PathBuf,
        /// Who holds it, if it says so.
        pid: Option<u32>,
        /// For how long it has been held, if that is known.
        age_ms: Option<i64>,
        /// For how long was waited.
        waited_ms: u64,
    },
    /// Somebody else was renewing the login all the time: nothing is sent or written.
    #[error("{}", leased(.profile, .path, *.pid, *.age_ms, *.waited_ms))]
    Leased {
        /// Which login.
        profile: String,
        /// The lock.
        path: PathBuf,
        /// Who holds it, if it says so.
        pid: Option<u32>,
        /// For how long it has been held, if that is known.
        age_ms: Option<i64>,
        /// For how long was waited.
        waited_ms: u64,
    },
    /// Somebody changed it without taking the lock: nothing is written, the caller may start anew.
    #[error("{} was changed by another program in the middle of a change; try again", .path.display())]
    Changed {
        /// Which file.
        path: PathBuf,
    },
}

impl StoreError {
    /// Returns the code for `moltbot explain`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } | Self::Unreadable { .. } => "store-invalid",
            Self::Unwritable { .. } => "store-unwritable",
            Self::Locked { .. } | Self::Leased { .. } | Self::Changed { .. } => "store-locked",
        }
    }
}

fn locked(path: &Path, pid: Option<u32>, age: Option<i64>, waited_ms: u64) -> String {
    let held = held(path, pid, age, waited_ms);
    format!("the credential store is in use: {held}")
}

fn leased(
    profile: &str,
    path: &Path,
    pid: Option<u32>,
    age: Option<i64>,
    waited_ms: u64,
) -> String {
    let held = held(path, pid, age, waited_ms);
    format!("the login {profile} is being renewed by somebody else: {held}")
}

fn held(path: &Path, pid: Option<u32>, age: Option<i64>, waited_ms: u64) -> String {
    let holder = pid.map_or_else(|| "another process".to_string(), |pid| format!("process {pid}"));
    let age = match age {
        Some(age) if age < 60_000 => format!(" for {} s", age.max(0) / 1_000),
        Some(age) => format!(" for {}", remaining_text(Some(age))),
        None => String::new(),
    };
    let waited = match waited_ms {
        short if short < 1_000 => format!("{short} ms"),
        long => format!("{} s", long / 1_000),
    };
    format!("{} has been held by {holder}{age} and was not free within {waited}", path.display())
}
