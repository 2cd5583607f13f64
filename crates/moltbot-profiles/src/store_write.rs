//! The write of a file store, step by step: log of changes, removed secrets, store, and what to do
//! when somebody edited it by hand meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use moltbot_core::{Generation, Revision, Secret, Timestamp};

use crate::changes::{Change, ChangeKind, Log, Who, batch_text, differences, settled_line};
use crate::files::Files;
use crate::lock::{FileLock, beside, sentence, unwritable};
use crate::removed::{self, Removed};
use crate::store_file::{invalid, read_text, revision, stat};
use crate::{Cause, Guard, Profiles, StoreError, merge};

/// What follows the store's name in the name of its log of changes.
pub(crate) const CHANGES: &str = ".changes.jsonl";

/// What follows the store's name in the name of the file of removed secrets.
pub(crate) const REMOVED: &str = ".removed.json";

/// The lock of a file store, and what was read under it.
pub(crate) struct FileGuard {
    /// The file itself, with links resolved.
    pub(crate) real: PathBuf,
    /// What it held.
    pub(crate) text: Option<Secret>,
    pub(crate) revision: Revision,
    /// The file of an older version that the commit makes superfluous.
    pub(crate) spent: Option<PathBuf>,
    /// The profiles that the commit takes over from such files.
    pub(crate) imported: Vec<String>,
    pub(crate) command: Arc<str>,
    pub(crate) now: Timestamp,
    pub(crate) files: Files,
    /// Held until the guard is gone.
    #[expect(dead_code, reason = "dropping it gives the lock back")]
    pub(crate) lock: FileLock,
}

#[async_trait]
impl Guard for FileGuard {
    async fn commit(self: Box<Self>, profiles: Profiles) -> Result<Revision, StoreError> {
        self.write(&profiles, &Cause::default())
    }

    async fn commit_for(
        self: Box<Self>,
        profiles: Profiles,
        cause: Cause,
    ) -> Result<Revision, StoreError> {
        self.write(&profiles, &cause)
    }
}

impl FileGuard {
    /// Writes the contents, unless they are what they were.
    ///
    /// The store taking its place is the one step that counts: before it, nothing has changed;
    /// after it, everything has.
    pub(crate) fn write(self, profiles: &Profiles, cause: &Cause) -> Result<Revision, StoreError> {
        let mut text = profiles.to_json(self.now);
        if self.text.as_ref() == Some(&text) {
            return Ok(self.revision);
        }
        let mut base = self.parsed(self.text.as_ref())?;
        let mut merged = None;
        if revision(stat(&self.real)?.as_ref()) != self.revision {
            let theirs = self.parsed(read_text(&self.real)?.map(|(text, _)| text).as_ref())?;
            let Some(both) = merge::merge(&base, profiles, &theirs) else {
                return Err(StoreError::Changed { path: self.real });
            };
            text = both.to_json(self.now);
            base = theirs;
            merged = Some(both);
        }
        let new = merged.as_ref().unwrap_or(profiles);
        let batch = self.note(&base, new, cause)?;
        let metadata = match self.files.replace(&self.real, text.expose().as_bytes()) {
            Ok(metadata) => metadata,
            Err(error) => return Err(unwritable(&self.real, &error)),
        };
        if let Err(error) = self.files.sync_names(&self.real) {
            let what =
                format!("{}; it is written, but may be lost in a power cut", sentence(&error));
            return Err(StoreError::Unwritable { path: self.real, what });
        }
        self.settle(&batch, cause);
        Ok(revision(Some(&metadata)))
    }

    /// Records that a login is spent, which changes nothing.
    pub(crate) fn record_spent(
        self,
        profile: &str,
        generation: &Generation,
    ) -> Result<(), StoreError> {
        let base = self.parsed(self.text.as_ref())?;
        let log = self.log()?;
        let number = log.0.last + 1;
        let change = Change {
            number,
            group: number,
            at: self.now,
            command: self.command.to_string(),
            who: Some(Who::this_process()),
            kind: ChangeKind::Spent,
            profile: profile.to_string(),
            to: None,
            before: Some(generation.clone()),
            after: Some(generation.clone()),
            order_before: None,
            order_after: None,
            undoes: Vec::new(),
        };
        self.append(&log, &base, &[change])?;
        self.add_line(&settled_line(number));
        Ok(())
    }

    /// Reads the removed secrets.
    pub(crate) fn removed(&self) -> Result<Vec<Removed>, StoreError> {
        read_removed(&self.real)
    }

    /// Writes the removed secrets; without any, there is no file.
    pub(crate) fn write_removed(&self, removed: &Vec<Removed>) -> Result<(), StoreError> {
        let path = beside(&self.real, REMOVED);
        let done = if removed.is_empty() {
            match path.exists() {
                true => self.files.remove(&path),
                false => return Ok(()),
            }
        } else {
            let text = removed::to_json(removed);
            self.files.replace(&path, text.expose().as_bytes()).map(drop)
        };
        done.and_then(|()| self.files.sync_names(&path)).map_err(|error| unwritable(&path, &error))
    }

    fn parsed(&self, text: Option<&Secret>) -> Result<Profiles, StoreError> {
        let Some(text) = text else { return Ok(Profiles::default()) };
        Profiles::parse(text.expose()).map_err(|error| invalid(&self.real, &error))
    }

    /// Keeps what will be gone and logs what will change, on disk, before it does.
    fn note(
        &self,
        base: &Profiles,
        new: &Profiles,
        cause: &Cause,
    ) -> Result<Vec<Change>, StoreError> {
        let changes = |last| {
            let (imported, now) = (&self.imported, self.now);
            let mut found = differences(base, new, imported, cause, &self.command, now, last);
            found.iter_mut().for_each(|change| change.who = Some(Who::this_process()));
            found
        };
        if changes(0).is_empty() {
            return Ok(Vec::new());
        }
        if cause.kind == Some(ChangeKind::Renewed) {
            // A renewed login must be stored even if the log cannot be written: the old one is
            // spent.
            let noted = self.log().and_then(|log| {
                let batch = changes(log.0.last);
                self.append(&log, base, &batch).map(|()| batch)
            });
            return Ok(noted.unwrap_or_default());
        }
        let log = self.log()?;
        let batch = changes(log.0.last);
        if !cause.purge {
            self.keep(&batch, base, new)?;
        }
        self.append(&log, base, &batch)?;
        Ok(batch)
    }

    /// Keeps the credentials that a batch takes out of the store.
    fn keep(&self, batch: &[Change], base: &Profiles, new: &Profiles) -> Result<(), StoreError> {
        let stays = |generation: &Generation| {
            new.iter().any(|(_, stored)| Generation::of(stored) == *generation)
        };
        let gone: Vec<Removed> = batch
            .iter()
            .filter(|change| change.before.as_ref().is_some_and(|before| !stays(before)))
            .filter_map(|change| {
                let credential = base.get(&change.profile)?.clone();
                Some(Removed { at: self.now, profile: change.profile.clone(), credential })
            })
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        let mut removed = self.removed()?;
        removed.retain(|removed| !removed.is_over(self.now));
        removed.extend(gone);
        self.write_removed(&removed)
    }

    /// Reads the log and whether its last line is whole.
    fn log(&self) -> Result<(Log, bool), StoreError> {
        let text = read_text(&beside(&self.real, CHANGES))?.map(|(text, _)| text);
        let text = text.as_ref().map_or("", Secret::expose);
        Ok((Log::parse(text), text.is_empty() || text.ends_with('\n')))
    }

    /// Adds a batch to the log, and what became of the batch before it.
    fn append(
        &self,
        (log, whole): &(Log, bool),
        base: &Profiles,
        batch: &[Change],
    ) -> Result<(), StoreError> {
        let newline = if *whole { "" } else { "\n" };
        let settling = log.settling(base).unwrap_or_default();
        let text = format!("{newline}{settling}{}", batch_text(batch));
        let path = beside(&self.real, CHANGES);
        self.append_text(&path, &text).map_err(|error| unwritable(&path, &error))
    }

    fn append_text(&self, path: &Path, text: &str) -> std::io::Result<()> {
        crate::lock::make_parents(path)?;
        let is_new = !path.exists();
        let file = self.files.open(path)?;
        let end = file.metadata()?.len();
        self.files.write_at(&file, path, end, text.as_bytes())?;
        self.files.sync(&file, path)?;
        match is_new {
            true => self.files.sync_names(path),
            false => Ok(()),
        }
    }

    /// Cleans up after the store has taken its place; what fails here is made good later.
    fn settle(&self, batch: &[Change], cause: &Cause) {
        if let Some(last) = batch.last() {
            self.add_line(&settled_line(last.number));
        }
        if cause.purge
            && let Ok(mut removed) = self.removed()
        {
            removed.retain(|removed| !batch.iter().any(|gone| gone.profile == removed.profile));
            let _ = self.write_removed(&removed);
        }
        if let Some(spent) = &self.spent {
            // It stays if it cannot be removed; it is not read again, as there is a store now.
            let _ = self.files.remove(spent);
        }
    }

    /// Adds a line whose loss does no harm.
    fn add_line(&self, line: &str) {
        let path = beside(&self.real, CHANGES);
        let added = self.files.open(&path).and_then(|file| {
            let end = file.metadata()?.len();
            self.files.write_at(&file, &path, end, line.as_bytes())
        });
        drop(added);
    }
}

/// Reads the removed secrets beside a store.
pub(crate) fn read_removed(real: &Path) -> Result<Vec<Removed>, StoreError> {
    let path = beside(real, REMOVED);
    let Some((text, _)) = read_text(&path)? else { return Ok(Vec::new()) };
    removed::parse(text.expose()).map_err(|(line, column)| {
        let place = format!("{}:{line}:{column}", path.display());
        StoreError::Invalid { place, what: "this is no list of removed credentials".into() }
    })
}

/// Reads the changes that came true, oldest first.
pub(crate) fn read_changes(real: &Path, profiles: &Profiles) -> Result<Vec<Change>, StoreError> {
    let text = read_text(&beside(real, CHANGES))?.map(|(text, _)| text);
    Ok(Log::parse(text.as_ref().map_or("", Secret::expose)).judge(profiles))
}
