//! The locks: of a store file, and of the renewal of one login. The operating system's advisory lock on a file of its own, released
//! by the kernel when its holder ends, however it ends.

use std::fs::{DirBuilder, File, Metadata, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use moltbot_core::Timestamp;

use crate::StoreError;
use crate::files::Files;

/// How long the old system's lock counts without being touched.
const OLD_LOCK_MS: i64 = 30_000;

/// The pauses between two tries, in milliseconds; the last one repeats.
const PAUSES_MS: &[u64] = &[1, 1, 2, 3, 5, 8, 13, 20];

/// A lock that is held; dropping it gives it back.
pub(crate) struct FileLock {
    /// Closing it ends the lock.
    _file: File,
}

/// What is locked, and how that looks on disk.
enum Target {
    /// A store: a lock file, and the old system's lock beside it.
    Store { old: PathBuf },
    /// The renewal of this profile: a lock file.
    Lease { profile: String },
    /// The renewal of this profile by its owner: the directory of the owner's file, which is
    /// opened but never written.
    Directory { profile: String },
}

/// The way to a lock: `poll` until it is there, sleeping for `pause` in between.
///
/// Both are short and never wait, so that the same steps serve a thread and a task. Time is
/// counted by the pauses, not by a clock.
pub(crate) struct Attempt {
    path: PathBuf,
    target: Target,
    files: Files,
    now: Timestamp,
    timeout: Duration,
    waited: Duration,
    tries: usize,
    file: Option<File>,
    held: bool,
}

impl Attempt {
    /// Makes an attempt for the lock of the store at `store`, with links resolved.
    pub(crate) fn store(store: &Path, now: Timestamp, timeout: Duration, files: Files) -> Self {
        let target = Target::Store { old: beside(store, ".lock") };
        Self::new(beside(store, ".moltbot-lock"), target, now, timeout, files)
    }

    /// Makes an attempt for the lease of a login, by its lock file.
    pub(crate) fn lease(
        path: PathBuf,
        profile: &str,
        now: Timestamp,
        timeout: Duration,
        files: Files,
    ) -> Self {
        let target = Target::Lease { profile: profile.into() };
        Self::new(path, target, now, timeout, files)
    }

    /// Makes an attempt for the lease of a login that lies in `directory` and belongs to another
    /// program; nothing is written there.
    pub(crate) fn directory(
        directory: PathBuf,
        profile: &str,
        now: Timestamp,
        timeout: Duration,
        files: Files,
    ) -> Self {
        let target = Target::Directory { profile: profile.into() };
        Self::new(directory, target, now, timeout, files)
    }

    fn new(path: PathBuf, target: Target, now: Timestamp, timeout: Duration, files: Files) -> Self {
        let waited = Duration::ZERO;
        Self { path, target, files, now, timeout, waited, tries: 0, file: None, held: false }
    }

    /// Tries once; `None` means that somebody else holds it.
    pub(crate) fn poll(&mut self) -> Result<Option<FileLock>, StoreError> {
        if !self.held && !self.try_own().map_err(|error| unwritable(&self.path, &error))? {
            return Ok(None);
        }
        self.sign().map_err(|error| unwritable(&self.path, &error))?;
        if self.is_held_by_old_system().map_err(|error| unwritable(&self.path, &error))? {
            return Ok(None);
        }
        Ok(self.file.take().map(|file| FileLock { _file: file }))
    }

    /// Returns how long to sleep before the next try, or that it took too long.
    pub(crate) fn pause(&mut self) -> Result<Duration, StoreError> {
        if self.waited >= self.timeout {
            return Err(self.too_long());
        }
        let base = PAUSES_MS[self.tries.min(PAUSES_MS.len() - 1)];
        // Processes that started together must not keep trying together.
        let spread = (u64::from(std::process::id()) * 7 + self.tries as u64 * 5) % (base + 1);
        self.tries += 1;
        let pause = Duration::from_millis(base + spread).min(self.timeout - self.waited);
        self.waited += pause;
        Ok(pause)
    }

    fn try_own(&mut self) -> io::Result<bool> {
        let file = match self.file.take() {
            Some(file) => file,
            None if matches!(self.target, Target::Directory { .. }) => File::open(&self.path)?,
            None => {
                make_parents(&self.path)?;
                self.files.open(&self.path)?
            }
        };
        if !self.files.may_lock(&self.path)? {
            self.file = Some(file);
            self.held = true;
            return Ok(true);
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                self.file = Some(file);
                return Ok(false);
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Somebody may have removed the file while we opened it; then others lock another one.
        let same = std::fs::metadata(&self.path)
            .is_ok_and(|there| file.metadata().is_ok_and(|own| is_same(&own, &there)));
        if !same {
            return Ok(false);
        }
        self.file = Some(file);
        self.held = true;
        Ok(true)
    }

    /// Writes into the lock file who holds it since when.
    fn sign(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        if matches!(self.target, Target::Directory { .. }) {
            return Ok(());
        }
        let since = self.now.plus(self.waited.as_millis() as i64);
        let text = format!("{} {}\n", std::process::id(), since.millis());
        file.rewind()?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)
    }

    /// Tells whether the lock of the old system stands there and was touched lately. Ages are
    /// read off the file system's own clock: our lock file has just been written.
    fn is_held_by_old_system(&mut self) -> io::Result<bool> {
        let (Some(file), Target::Store { old }) = (&self.file, &self.target) else {
            return Ok(false);
        };
        match std::fs::symlink_metadata(old) {
            Ok(old) => Ok(modified_ms(&file.metadata()?) - modified_ms(&old) < OLD_LOCK_MS),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn too_long(&mut self) -> StoreError {
        let waited_ms = self.waited.as_millis() as u64;
        let mut text = String::new();
        if let (false, Some(file)) = (self.held, &mut self.file)
            && !matches!(self.target, Target::Directory { .. })
            && file.rewind().and_then(|()| file.read_to_string(&mut text)).is_err()
        {
            text.clear();
        }
        let mut words = text.split_whitespace();
        let pid = words.next().and_then(|word| word.parse().ok());
        let since = words.next().and_then(|word| word.parse().ok()).map(Timestamp::from_millis);
        let age_ms = since.map(|since| self.now.since(since).saturating_add(waited_ms as i64));
        match &self.target {
            Target::Store { old } => {
                let path = if self.held { old.clone() } else { self.path.clone() };
                StoreError::Locked { path, pid, age_ms, waited_ms }
            }
            Target::Lease { profile } | Target::Directory { profile } => StoreError::Leased {
                profile: profile.clone(),
                path: self.path.clone(),
                pid,
                age_ms,
                waited_ms,
            },
        }
    }
}

/// Makes missing directories, readable by their owner only.
pub(crate) fn make_parents(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)
        }
        _ => Ok(()),
    }
}

/// Returns the path with something added to its file name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// Says that a path cannot be written and that nothing has happened yet.
pub(crate) fn unwritable(path: &Path, error: &io::Error) -> StoreError {
    let what = format!("{}; nothing has been changed", sentence(error));
    StoreError::Unwritable { path: path.to_path_buf(), what }
}

/// Puts an error of the operating system into words.
pub(crate) fn sentence(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".into(),
        io::ErrorKind::StorageFull => "no space is left".into(),
        io::ErrorKind::QuotaExceeded => "the disk quota is used up".into(),
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "a part of the path is not a directory".into()
        }
        io::ErrorKind::NotFound => "no such file or directory".into(),
        io::ErrorKind::IsADirectory => "it is a directory".into(),
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            "a symbolic link stands where a file should be".into()
        }
        io::ErrorKind::FileTooLarge => "the limit for the size of files is reached".into(),
        io::ErrorKind::Unsupported => "the file system has no locks".into(),
        _ => {
            let text = error.to_string();
            text.split_once(" (os error").map_or(text.as_str(), |(text, _)| text).to_lowercase()
        }
    }
}

fn is_same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

fn modified_ms(metadata: &Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000).saturating_add(metadata.mtime_nsec() / 1_000_000)
}
