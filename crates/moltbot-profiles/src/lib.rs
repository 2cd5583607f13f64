//! Per-agent credentials: the store, and the pure rules for choosing, resting and renewing them.
//!
//! ```
//! use moltbot_core::{Credential, Secret, Timestamp};
//! use moltbot_profiles::{AuthRules, ChoiceInput, FileStore, ResolvedState, order};
//!
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("auth-profiles.json");
//! let now = Timestamp::from_millis(1_790_000_000_000);
//! let store = FileStore::new(path);
//! store.update_blocking(now, |profiles| {
//!     profiles.insert("acme:default", Credential::api_key("acme", Secret::new("FAKE")));
//! })?;
//!
//! let profiles = store.load_blocking()?.profiles;
//! let rules = AuthRules::default();
//! let resolved = |_: &str, stored: &Credential| ResolvedState::stored(stored, false, now);
//! let choice = order(&ChoiceInput::new(&profiles, &rules, "acme", &resolved, now));
//! assert_eq!(choice.candidates[0].id, "acme:default");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Invariants
//!
//! - No clock, environment, network, home directory or runtime: `now` comes in as a value, and
//!   the only files touched are those whose paths were given, and their lock files. (On Linux the
//!   system's table of mounts is read for a store that FUSE serves.)
//! - Nothing is written but by a token that owns the lock, and a store that cannot be understood
//!   is never written at all. A reader never writes.
//! - What a store holds beyond this version (members, kinds of credentials) is written back.
//! - One agent's store is never read for another agent; [`copy_profiles`] is the one way, and
//!   explicit (spec A-10, A-11).
//! - The rules are pure: two processes with the same store, rules and time decide the same.
//! - A login is renewed under its [`Lease`], which is taken before the store's lock and never
//!   under it; its answer is on disk before anybody looks at it.
//! - Deliberately absent: sending. The gateway drives a lease.

#![forbid(unsafe_code)]

mod budget;
mod changes;
mod choice;
mod copy;
mod document;
mod failover;
mod files;
mod health;
mod history;
mod ids;
mod inspect;
mod journal;
mod lease;
mod legacy;
mod lock;
mod merge;
mod network;
mod pin;
mod punish;
mod quota;
mod read;
mod removed;
mod renew;
mod rules;
mod standard;
mod stats;
mod store;
mod store_file;
mod store_write;
#[cfg(test)]
mod testing;
mod text;
mod undo;
mod wire;
mod write;

pub use budget::RetryBudget;
pub use changes::{Cause, Change, ChangeKind, Who};
pub use choice::{
    Candidate, Choice, ChoiceInput, OrderSource, ResolvedState, SkipReason, Skipped, order,
};
pub use copy::{Copied, copy_profiles};
pub use document::{Problem, Profiles};
pub use failover::{MAX_BUSY_MS, Next, Standing, TRIES, Wait, busy_until, next_step};
pub use files::{FileHook, Go, Step};
pub use health::{
    Health, WARN_MS, WARN_REFRESHABLE_MS, display_name, health, label, provider_health,
};
pub use history::{HistoryError, Purge};
pub use ids::{normalize_provider, profile_id};
pub use inspect::{Inspection, PendingRenewal};
pub use journal::{JournalHead, JournalState, MAX_JOURNAL, Recovery, recovery};
pub use legacy::LegacyFiles;
pub use pin::{Pin, PinSource, SessionPin, repin};
pub use punish::{GUESSED_CAP_MS, MEASURED_CAP_MS, punish, reward};
pub use quota::{MAX_WINDOWS, Window};
pub use read::ParseError;
pub use removed::{KEEP_REMOVED_MS, Removed};
pub use renew::{
    AfterRefresh, EARLY_RENEWAL_MS, EARLY_SPREAD_MS, RENEWAL_PAUSE_MS, RenewPlan, WhyNot,
    after_failed_refresh, early_renewal_at, is_newer, renew_plan, suggested_sibling,
};
pub use rules::{Accept, AuthRules, CooldownRules, ProfileRule, Strategy};
pub use standard::{StandardLogin, standard_method};
pub use stats::{Block, BlockKind, Blocked, MAX_MODELS, MODEL_MEMORY_MS, Stats, Unusable};
pub use store::{FailedRenewal, Guard, Lease, Loaded, Locked, Store, StoreError};
pub use store_file::{FileStore, LEGACY_FILE, LockedFile, OAUTH_FILE, STORE_FILE, Sleeper};
pub use text::{
    RepairHint, all_cooling_message, no_credentials_message, no_key_message,
    no_key_resolved_message, not_configured_message, refresh_failed_message, remaining_text,
    switched_message,
};
pub use undo::{Undo, UndoError, undo};
