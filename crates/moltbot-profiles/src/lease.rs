//! The right to renew a login, and its journal in a file beside the store.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use moltbot_core::{RenewReply, Timestamp};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::files::{Files, directory};
use crate::journal::{MAX_JOURNAL, REPLY_AT, decode};
use crate::lock::{FileLock, beside, sentence, unwritable};
use crate::{FailedRenewal, JournalHead, JournalState, Lease, StoreError};

/// What follows the store's name in the name of a journal.
const JOURNAL: &str = ".renewal-";

/// What follows a journal's name in the name of the file that remembers a failure.
const FAILED: &str = ".failed";

/// The lease of one login in a file store.
pub(crate) struct FileLease {
    /// `None`: the login belongs to another program, which keeps its own books.
    journal: Option<PathBuf>,
    files: Files,
    /// The journal that was opened, and its head.
    opened: Option<(File, JournalHead)>,
    _lock: FileLock,
}

impl FileLease {
    pub(crate) fn new(lock: FileLock, journal: PathBuf, files: Files) -> Self {
        Self { journal: Some(journal), files, opened: None, _lock: lock }
    }

    pub(crate) fn without_journal(lock: FileLock) -> Self {
        Self { journal: None, files: Files::default(), opened: None, _lock: lock }
    }

    fn path(&self) -> io::Result<&Path> {
        self.journal.as_deref().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    fn open_blocking(&mut self, head: &JournalHead) -> io::Result<()> {
        let path = self.path()?.to_path_buf();
        let bytes = head.encode().ok_or(io::ErrorKind::InvalidInput)?;
        self.files.remove(&path)?;
        let file = self.files.create(&path)?;
        let done = self
            .files
            .reserve(&file, &path, MAX_JOURNAL as u64)
            .and_then(|()| self.files.write_at(&file, &path, 0, &bytes))
            .and_then(|()| self.files.sync(&file, &path))
            .and_then(|()| self.files.sync_names(&path));
        if let Err(error) = done {
            // Nothing was sent, so it is of no use; what stays reads as void or as unanswered.
            let _ = self.files.remove(&path);
            return Err(error);
        }
        self.opened = Some((file, head.clone()));
        Ok(())
    }

    fn keep_blocking(&mut self, reply: &RenewReply, received_at: Timestamp) -> io::Result<()> {
        let path = self.path()?;
        let (file, head) = self.opened.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        let bytes = head.encode_reply(reply, received_at).ok_or(io::ErrorKind::FileTooLarge)?;
        self.files.write_at(file, path, REPLY_AT as u64, &bytes)?;
        self.files.sync(file, path)
    }
}

#[async_trait]
impl Lease for FileLease {
    async fn journal(&self) -> Result<JournalState, StoreError> {
        match &self.journal {
            Some(path) => read(path),
            None => Ok(JournalState::None),
        }
    }

    async fn open(&mut self, head: &JournalHead) -> Result<(), StoreError> {
        let shown = self.journal.clone().unwrap_or_default();
        self.open_blocking(head).map_err(|error| {
            let what = format!(
                "{}; the renewal of {} was not sent, as its answer could not be kept",
                sentence(&error),
                head.profile
            );
            StoreError::Unwritable { path: shown, what }
        })
    }

    async fn keep(&mut self, reply: &RenewReply, received_at: Timestamp) -> Result<(), StoreError> {
        let shown = self.journal.clone().unwrap_or_default();
        self.keep_blocking(reply, received_at).map_err(|error| StoreError::Unwritable {
            path: shown,
            what: format!("{}; the answer to the renewal is not on disk", sentence(&error)),
        })
    }

    async fn close(&mut self) -> Result<(), StoreError> {
        self.opened = None;
        let Some(path) = &self.journal else { return Ok(()) };
        self.files.remove(path).map_err(|error| unwritable(path, &error))?;
        // A journal that comes back after a power cut is of another generation, hence discarded.
        let _ = self.files.sync_names(path);
        Ok(())
    }

    async fn last_failure(&self) -> Option<FailedRenewal> {
        let path = beside(self.journal.as_deref()?, FAILED);
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    async fn remember(&mut self, failure: Option<&FailedRenewal>) {
        let Some(journal) = &self.journal else { return };
        let path = beside(journal, FAILED);
        let _ = match failure {
            Some(failure) => {
                let text = serde_json::to_vec(failure).unwrap_or_default();
                self.files.replace(&path, &text).map(drop)
            }
            None if path.exists() => self.files.remove(&path),
            None => Ok(()),
        };
    }
}

/// Returns where the journal of a profile lies: beside the store, named by a hash, as an id may
/// hold anything.
pub(crate) fn journal_path(store: &Path, profile: &str) -> PathBuf {
    let digest = Sha256::digest(profile.as_bytes());
    let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    beside(store, &format!("{JOURNAL}{hash}"))
}

/// Lists the journals that lie beside a store.
pub(crate) fn journals(store: &Path) -> Vec<PathBuf> {
    let name = store.file_name().unwrap_or_default().to_string_lossy();
    let start = format!("{name}{JOURNAL}");
    let Ok(entries) = std::fs::read_dir(directory(store)) else { return Vec::new() };
    let is_one = |name: &str| name.strip_prefix(&start).is_some_and(|hash| !hash.contains('.'));
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_one))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Reads a journal; a missing one is [`JournalState::None`].
pub(crate) fn read(path: &Path) -> Result<JournalState, StoreError> {
    use std::io::Read as _;
    let failed =
        |error: io::Error| StoreError::Unreadable { path: path.into(), what: sentence(&error) };
    let mut options = std::fs::OpenOptions::new();
    options.read(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(JournalState::None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_JOURNAL + 1));
    file.take(MAX_JOURNAL as u64).read_to_end(&mut bytes).map_err(failed)?;
    Ok(decode(&bytes))
}
