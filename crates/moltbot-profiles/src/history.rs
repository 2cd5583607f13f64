//! Reading the log of changes, undoing changes, and erasing what was kept for that.

use moltbot_core::Timestamp;
use thiserror::Error;

use crate::store_file::resolve;
use crate::store_write::{read_changes, read_removed};
use crate::{Cause, Change, ChangeKind, FileStore, Removed, StoreError, Undo, UndoError, undo};

/// Why changes could not be undone.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The changes cannot be undone.
    #[error(transparent)]
    Undo(#[from] UndoError),
}

/// Which removed secrets are erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purge<'a> {
    /// Those that were kept for long enough.
    Over,
    /// Those of one profile.
    Profile(&'a str),
    /// All.
    All,
}

impl FileStore {
    /// Lists the changes of credentials and orders, oldest first.
    pub fn changes_blocking(&self) -> Result<Vec<Change>, StoreError> {
        let profiles = self.load_blocking()?.profiles;
        read_changes(&resolve(self.path())?, &profiles)
    }

    /// Lists the removed and replaced credentials that are kept.
    pub fn removed_blocking(&self) -> Result<Vec<Removed>, StoreError> {
        read_removed(&resolve(self.path())?)
    }

    /// Undoes the last change that a user made, or all of them after number `to`; see [`undo()`].
    pub fn undo_blocking(&self, now: Timestamp, to: Option<u64>) -> Result<Undo, HistoryError> {
        let mut locked = self.lock_blocking(now)?;
        let log = read_changes(&resolve(self.path())?, &locked.profiles)?;
        let mut removed = self.removed_blocking()?;
        removed.retain(|removed| !removed.is_over(now));
        let undone = undo(&log, &locked.profiles, &removed, to)?;
        locked.profiles = undone.profiles.clone();
        let kind = Some(ChangeKind::Undo);
        locked.commit_for(&Cause { kind, undoes: undone.groups.clone(), ..Cause::default() })?;
        Ok(undone)
    }

    /// Erases removed secrets and returns how many.
    pub fn purge_removed_blocking(
        &self,
        now: Timestamp,
        which: Purge<'_>,
    ) -> Result<usize, StoreError> {
        if self.removed_blocking()?.is_empty() {
            return Ok(0);
        }
        let locked = self.lock_blocking(now)?;
        let mut removed = locked.guard().removed()?;
        let before = removed.len();
        removed.retain(|removed| match which {
            Purge::Over => !removed.is_over(now),
            Purge::Profile(profile) => removed.profile != profile,
            Purge::All => false,
        });
        if removed.len() < before {
            locked.guard().write_removed(&removed)?;
        }
        Ok(before - removed.len())
    }
}
