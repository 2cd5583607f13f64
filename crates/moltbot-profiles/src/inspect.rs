//! What lies around a store: wrong modes, leftovers of killed writers, unfinished renewals.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use moltbot_core::Timestamp;

use crate::files::temporaries;
use crate::lease::{journals, read};
use crate::lock::{beside, unwritable};
use crate::network::network_file_system;
use crate::store_file::resolve;
use crate::store_write::{CHANGES, REMOVED};
use crate::{FileStore, JournalState, StoreError};

/// What was found beside a store; for `doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Files that other users can read, with their modes.
    pub exposed: Vec<(PathBuf, u32)>,
    /// Temporary files; unless somebody is writing right now, a killed writer left them.
    pub temporaries: Vec<PathBuf>,
    /// Renewals that were begun and not finished, or are under way right now.
    pub renewals: Vec<PendingRenewal>,
    /// The network file system on which the store lies: its locks and syncs may promise more than
    /// they keep.
    pub network: Option<&'static str>,
}

/// A renewal whose journal is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRenewal {
    /// The journal.
    pub path: PathBuf,
    /// Which profile; unknown if nothing had been sent yet.
    pub profile: Option<String>,
    /// Whether the answer is there, so that the next renewal finishes it without asking.
    pub answered: bool,
    /// When it was begun.
    pub opened_at: Option<Timestamp>,
}

impl FileStore {
    /// Looks around the store; changes nothing.
    pub fn inspect(&self) -> Result<Inspection, StoreError> {
        let real = resolve(self.path())?;
        let mut found = Inspection {
            temporaries: temporaries(&real),
            network: network_file_system(self.files(), &real),
            ..Inspection::default()
        };
        let journals = journals(&real);
        for path in self.private_files(&real).into_iter().chain(journals.iter().cloned()) {
            if let Ok(metadata) = std::fs::symlink_metadata(&path)
                && metadata.is_file()
                && metadata.mode() & 0o077 != 0
            {
                found.exposed.push((path, metadata.mode() & 0o777));
            }
        }
        for path in journals {
            let (head, answered) = match read(&path)? {
                JournalState::None => continue,
                JournalState::Void => (None, false),
                JournalState::Unanswered { head } => (Some(head), false),
                JournalState::Answered { head, .. } => (Some(head), true),
            };
            let opened_at = head.as_ref().map(|head| head.opened_at);
            let profile = head.map(|head| head.profile);
            found.renewals.push(PendingRenewal { path, profile, answered, opened_at });
        }
        Ok(found)
    }

    /// Takes modes back to 600, removes temporary files and journals of renewals that never got as
    /// far as their request, each under its lock, so that nobody is disturbed; returns what was
    /// mended. Other renewals are finished by the next renewal, not here.
    pub fn tidy_blocking(&self, now: Timestamp) -> Result<Vec<PathBuf>, StoreError> {
        let found = self.inspect()?;
        let mut mended = Vec::new();
        for journal in found.renewals.iter().filter(|renewal| renewal.profile.is_none()) {
            if let Some(_lease) = self.try_lease(&journal.path, now)?
                && read(&journal.path)? == JournalState::Void
            {
                self.files()
                    .remove(&journal.path)
                    .map_err(|error| unwritable(&journal.path, &error))?;
                mended.push(journal.path.clone());
            }
        }
        if found.exposed.is_empty() && found.temporaries.is_empty() {
            return Ok(mended);
        }
        let real = resolve(self.path())?;
        let _lock = self.only_lock_blocking(&real, now)?;
        let still_there = |(path, _): &(PathBuf, u32)| path.exists();
        for (path, _) in found.exposed.into_iter().filter(still_there) {
            std::fs::set_permissions(&path, Permissions::from_mode(0o600))
                .map_err(|error| unwritable(&path, &error))?;
            mended.push(path);
        }
        for path in temporaries(&real) {
            self.files().remove(&path).map_err(|error| unwritable(&path, &error))?;
            mended.push(path);
        }
        Ok(mended)
    }

    /// Lists the files that hold secrets or say who uses what.
    fn private_files(&self, real: &std::path::Path) -> Vec<PathBuf> {
        let mut list = vec![real.to_path_buf()];
        list.extend([".moltbot-lock", CHANGES, REMOVED].map(|end| beside(real, end)));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moltbot_core::{Credential, Generation, RenewReply, Secret};

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    #[test]
    fn leftovers_are_found_and_mended() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path().join("auth-profiles.json"));
        assert_eq!(store.inspect().unwrap(), Inspection::default());
        store.update_blocking(NOW, |profiles| profiles.set_last_good("acme", "acme:a")).unwrap();
        std::fs::set_permissions(store.path(), Permissions::from_mode(0o640)).unwrap();
        let orphan = dir.path().join(".auth-profiles.json.1-2.tmp");
        std::fs::write(&orphan, "half").unwrap();
        let journal = crate::lease::journal_path(store.path(), "acme:a");
        std::fs::write(&journal, "half").unwrap();
        let found = store.inspect().unwrap();
        assert_eq!(found.exposed[0], (store.path().to_path_buf(), 0o640));
        assert_eq!(found.temporaries, std::slice::from_ref(&orphan));
        assert_eq!((found.renewals.len(), found.renewals[0].profile.clone()), (1, None));
        let mended = store.tidy_blocking(NOW).unwrap();
        assert!(mended.contains(&orphan) && mended.contains(&store.path().to_path_buf()));
        let left = store.inspect().unwrap();
        assert!(left.exposed.is_empty() && left.temporaries.is_empty());
        assert!(!journal.exists() && mended.contains(&journal), "nothing was sent for it");
        assert!(store.tidy_blocking(NOW).unwrap().is_empty());
    }

    #[test]
    fn an_interrupted_renewal_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path().join("auth-profiles.json"));
        let generation = Generation::of(&Credential::api_key("acme", Secret::new("FAKE")));
        let head = crate::JournalHead {
            profile: "acme:a".into(),
            method: "m".into(),
            method_version: "1".into(),
            generation,
            opened_at: NOW,
            retry: false,
        };
        let answered = |wanted: bool| {
            let found = store.inspect().unwrap();
            let renewal = &found.renewals[0];
            assert_eq!(renewal.profile.as_deref(), Some("acme:a"));
            assert_eq!((renewal.answered, renewal.opened_at), (wanted, Some(NOW)));
        };
        crate::testing::block_on(async {
            use crate::Store as _;
            let mut lease = store.lease("acme:a", None, NOW).await.unwrap();
            lease.open(&head).await.unwrap();
            answered(false);
            assert!(store.tidy_blocking(NOW).unwrap().is_empty(), "not to be thrown away");
            let reply = RenewReply { status: 200, body: Secret::new("FAKE") };
            lease.keep(&reply, NOW).await.unwrap();
            answered(true);
            lease.close().await.unwrap();
            assert!(store.inspect().unwrap().renewals.is_empty());
        });
    }
}
