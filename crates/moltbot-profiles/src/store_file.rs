//! A store in one file: whole writes, one writer at a time, never a torn or lost content.

use std::fmt;
use std::fs::{File, Metadata, Permissions};
use std::future::Future;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use moltbot_core::{Generation, Revision, Secret, Timestamp};
use zeroize::Zeroizing;

use crate::files::{FileHook, Files, directory, temporaries};
use crate::lease::{FileLease, journal_path};
use crate::lock::{Attempt, FileLock, beside, sentence};
use crate::network::network_file_system;
use crate::read::{self, ParseError};
use crate::store_write::FileGuard;
use crate::{Cause, Lease, LegacyFiles, Loaded, Locked, Profiles, Store, StoreError, legacy};

/// The name of the store in an agent's directory.
pub const STORE_FILE: &str = "auth-profiles.json";

/// The name of its predecessor, in the same directory.
pub const LEGACY_FILE: &str = "auth.json";

/// The name of the shared file of logins of still older versions, in `credentials`.
pub const OAUTH_FILE: &str = "oauth.json";

/// Sleeps without blocking, e.g. `|d| Box::pin(tokio::time::sleep(d))`.
pub type Sleeper = Arc<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// No store comes near this size; a larger file is something else.
const MAX_BYTES: u64 = 64 << 20;

/// How many symbolic links are followed.
const MAX_LINKS: usize = 40;

/// Keeps the profiles of one agent in `auth-profiles.json`.
///
/// A write goes to a temporary file (mode 0600 from birth) in the same directory, to disk, and
/// then takes the place of the old one; where the path is a symbolic link, at its target. New
/// directories get mode 0700. Writers take turns by a lock file, `<store>.moltbot-lock`.
///
/// Reading and writing are done where they are called, as they take milliseconds. Only waiting
/// for the lock may take longer: the async methods then await the [`Sleeper`], the `_blocking`
/// ones put the thread to sleep; where nobody holds it, neither happens. Who must not be held
/// up even by a slow disk calls the `_blocking` methods from a thread of its own; a store is
/// cheap to clone.
#[derive(Clone)]
pub struct FileStore {
    path: PathBuf,
    legacy: LegacyFiles,
    timeout: Duration,
    lease_timeout: Duration,
    sleeper: Sleeper,
    files: Files,
    /// The command that changes are made by, for the log.
    command: Arc<str>,
    /// Whether leftovers have been swept; shared by clones.
    seen: Arc<AtomicBool>,
}

/// The contents of a file store together with its lock; see [`Locked`].
pub struct LockedFile {
    /// The contents, to be changed.
    pub profiles: Profiles,
    /// The profiles that the commit takes over from files of older versions.
    pub imported: Vec<String>,
    /// What the user should know, one sentence each.
    pub notes: Vec<String>,
    guard: FileGuard,
}

impl FileStore {
    /// Makes a store at a path; touches nothing.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            legacy: LegacyFiles::default(),
            timeout: Duration::from_secs(10),
            lease_timeout: Duration::from_secs(45),
            files: Files::default(),
            command: "".into(),
            seen: Arc::default(),
            sleeper: Arc::new(|pause| Box::pin(ThreadSleep::new(pause))),
        }
    }

    /// Names the files of older versions, which are read while there is no store.
    #[must_use]
    pub fn legacy(mut self, files: LegacyFiles) -> Self {
        self.legacy = files;
        self
    }

    /// Names the command that makes the changes, for the log of changes: `models auth add`.
    #[must_use]
    pub fn command(mut self, command: &str) -> Self {
        self.command = command.into();
        self
    }

    /// Sets how long to wait for the lock; 10 seconds without.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how long to wait for somebody else's renewal of the same login; 45 seconds without,
    /// as a token endpoint may take 30.
    #[must_use]
    pub fn lease_timeout(mut self, timeout: Duration) -> Self {
        self.lease_timeout = timeout;
        self
    }

    /// Asks `hook` before every change of the file system; for tests and torture.
    #[must_use]
    pub fn hook(mut self, hook: Arc<dyn FileHook>) -> Self {
        self.files = Files::hooked(hook);
        self
    }

    /// Sets how the async methods sleep; without one a thread is started for each pause.
    #[must_use]
    pub fn sleeper(mut self, sleeper: Sleeper) -> Self {
        self.sleeper = sleeper;
        self
    }

    /// Returns the path as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the contents; a missing store is empty. Never writes.
    pub fn load_blocking(&self) -> Result<Loaded, StoreError> {
        self.read(&resolve(&self.path)?).map(|(loaded, _, _)| loaded)
    }

    /// Waits for the lock on this thread, then reads the contents under it.
    pub fn lock_blocking(&self, now: Timestamp) -> Result<LockedFile, StoreError> {
        let real = resolve(&self.path)?;
        let lock = self.only_lock_blocking(&real, now)?;
        self.under(lock, real, now)
    }

    /// Waits for the lock on this thread, and reads nothing.
    pub(crate) fn only_lock_blocking(
        &self,
        real: &Path,
        now: Timestamp,
    ) -> Result<FileLock, StoreError> {
        let mut attempt = self.attempt(real, now);
        loop {
            match attempt.poll()? {
                Some(lock) => return Ok(lock),
                None => std::thread::sleep(attempt.pause()?),
            }
        }
    }

    /// Takes the lease of a journal if nobody holds it.
    pub(crate) fn try_lease(
        &self,
        journal: &Path,
        now: Timestamp,
    ) -> Result<Option<FileLock>, StoreError> {
        let path = beside(journal, ".moltbot-lock");
        Attempt::lease(path, "", now, Duration::ZERO, self.files.clone()).poll()
    }

    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    /// Returns the present revision if it is another than `seen`.
    pub fn watch_blocking(&self, seen: Revision) -> Result<Option<Revision>, StoreError> {
        let real = resolve(&self.path)?;
        let present = revision(stat(&real)?.as_ref());
        Ok((present != seen).then_some(present))
    }

    /// Changes the contents under the lock and writes them.
    pub fn update_blocking<R>(
        &self,
        now: Timestamp,
        change: impl FnOnce(&mut Profiles) -> R,
    ) -> Result<R, StoreError> {
        let mut locked = self.lock_blocking(now)?;
        let result = change(&mut locked.profiles);
        locked.commit()?;
        Ok(result)
    }

    /// Takes over the files of older versions if there is no store yet, and returns the ids of
    /// the profiles; without anything to take over nothing is written.
    pub fn import_blocking(&self, now: Timestamp) -> Result<Vec<String>, StoreError> {
        if self.load_blocking()?.imported.is_empty() {
            return Ok(Vec::new());
        }
        let locked = self.lock_blocking(now)?;
        let imported = locked.imported.clone();
        locked.commit()?;
        Ok(imported)
    }

    fn attempt(&self, real: &Path, now: Timestamp) -> Attempt {
        Attempt::store(real, now, self.timeout, self.files.clone())
    }

    /// Waits for a lock without holding up the thread.
    async fn wait(&self, mut attempt: Attempt) -> Result<FileLock, StoreError> {
        loop {
            match attempt.poll()? {
                Some(lock) => return Ok(lock),
                None => {
                    let pause = attempt.pause()?;
                    (self.sleeper)(pause).await;
                }
            }
        }
    }

    fn read(&self, real: &Path) -> Result<(Loaded, Option<Secret>, bool), StoreError> {
        let mut loaded = Loaded {
            profiles: Profiles::default(),
            revision: revision(None),
            exists: false,
            imported: Vec::new(),
            notes: Vec::new(),
        };
        if let Some((text, metadata)) = read_text(real)? {
            loaded.profiles =
                Profiles::parse(text.expose()).map_err(|error| invalid(real, &error))?;
            loaded.revision = revision(Some(&metadata));
            loaded.exists = true;
            if is_open_to_others(&metadata) {
                loaded.notes.push(format!(
                    "{} can be read by other users (mode {:o}); the next write makes it 600",
                    real.display(),
                    metadata.mode() & 0o777
                ));
            }
            return Ok((loaded, Some(text), false));
        }
        let mut from_auth = false;
        if let Some(path) = &self.legacy.auth
            && let Some((text, _)) = read_text(path)?
        {
            legacy::import_auth(text.expose(), &mut loaded.profiles, &mut loaded.notes)
                .map_err(|error| invalid(path, &error))?;
            // A file of which something could not be taken over stays.
            from_auth = loaded.notes.is_empty() && !loaded.profiles.is_empty();
        }
        if let Some(path) = &self.legacy.oauth
            && let Some((text, _)) = read_text(path)?
        {
            legacy::import_oauth(text.expose(), &mut loaded.profiles, &mut loaded.notes)
                .map_err(|error| invalid(path, &error))?;
        }
        loaded.imported = loaded.profiles.iter().map(|(id, _)| id.to_string()).collect();
        Ok((loaded, None, from_auth))
    }

    fn under(
        &self,
        lock: FileLock,
        real: PathBuf,
        now: Timestamp,
    ) -> Result<LockedFile, StoreError> {
        let (mut loaded, text, from_auth) = self.read(&real)?;
        if loaded.exists && !loaded.notes.is_empty() {
            let mode = Permissions::from_mode(0o600);
            // Where that is not allowed, the note stays true and the commit does it.
            if std::fs::set_permissions(&real, mode).is_ok() {
                loaded.notes = vec![format!(
                    "{} could be read by other users; its mode is now 600",
                    real.display()
                )];
            }
        }
        if !self.seen.swap(true, Ordering::Relaxed) {
            for orphan in temporaries(&real) {
                // What cannot be removed is named by `inspect`.
                let _ = self.files.remove(&orphan);
            }
            loaded.notes.extend(network_file_system(&self.files, &real).map(|kind| {
                format!(
                    "{} lies on {kind}: its locks and writes may not be safe when several \
                     machines use it",
                    real.display()
                )
            }));
        }
        let spent = self.legacy.auth.clone().filter(|_| from_auth);
        let Loaded { profiles, revision, imported, notes, .. } = loaded;
        let guard = FileGuard {
            real,
            text,
            revision,
            spent,
            imported: imported.clone(),
            command: self.command.clone(),
            now,
            files: self.files.clone(),
            lock,
        };
        Ok(LockedFile { profiles, imported, notes, guard })
    }
}

impl fmt::Debug for LockedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockedFile").field("profiles", &self.profiles).finish_non_exhaustive()
    }
}

impl LockedFile {
    /// Returns the revision that was read.
    pub fn revision(&self) -> Revision {
        self.guard.revision
    }

    pub(crate) fn guard(&self) -> &FileGuard {
        &self.guard
    }

    /// Writes the contents and gives the lock back; on an error nothing has changed. Contents
    /// that are what they were are not written.
    ///
    /// What somebody changed without the lock in the meantime is merged; see [`Locked::commit`].
    pub fn commit(self) -> Result<Revision, StoreError> {
        self.commit_for(&Cause::default())
    }

    /// Does the same as [`commit`](Self::commit), and tells the log of changes about it.
    pub fn commit_for(self, cause: &Cause) -> Result<Revision, StoreError> {
        self.guard.write(&self.profiles, cause)
    }
}

#[async_trait]
impl Store for FileStore {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    async fn load(&self) -> Result<Loaded, StoreError> {
        self.load_blocking()
    }

    async fn lock(&self, now: Timestamp) -> Result<Locked, StoreError> {
        let real = resolve(&self.path)?;
        let lock = self.wait(self.attempt(&real, now)).await?;
        let LockedFile { profiles, imported, notes, guard } = self.under(lock, real, now)?;
        let revision = guard.revision;
        let loaded = Loaded { profiles, revision, exists: guard.text.is_some(), imported, notes };
        Ok(Locked::new(loaded, Box::new(guard)))
    }

    async fn watch(&self, seen: Revision) -> Result<Option<Revision>, StoreError> {
        self.watch_blocking(seen)
    }

    async fn record_spent(
        &self,
        profile: &str,
        generation: &Generation,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let real = resolve(&self.path)?;
        let lock = self.wait(self.attempt(&real, now)).await?;
        self.under(lock, real, now)?.guard.record_spent(profile, generation)
    }

    async fn lease(
        &self,
        profile: &str,
        external: Option<&Path>,
        now: Timestamp,
    ) -> Result<Box<dyn Lease>, StoreError> {
        let real = resolve(&self.path)?;
        let (timeout, files) = (self.lease_timeout, self.files.clone());
        if let Some(file) = external {
            let directory = directory(file).to_path_buf();
            let attempt = Attempt::directory(directory, profile, now, timeout, files.clone());
            let lock = self.wait(attempt).await?;
            return Ok(Box::new(FileLease::without_journal(lock)));
        }
        let journal = journal_path(&real, profile);
        let path = beside(&journal, ".moltbot-lock");
        let attempt = Attempt::lease(path, profile, now, timeout, files.clone());
        let lock = self.wait(attempt).await?;
        Ok(Box::new(FileLease::new(lock, journal, files)))
    }
}

/// Follows symbolic links to the file itself, which need not exist.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    let mut real = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        match std::fs::read_link(&real) {
            Ok(target) => real = directory(&real).join(target),
            Err(error) => {
                return match error.kind() {
                    // No link, or nothing there.
                    io::ErrorKind::InvalidInput | io::ErrorKind::NotFound => Ok(real),
                    _ => Err(unreadable(path, sentence(&error))),
                };
            }
        }
    }
    Err(unreadable(path, "its symbolic links lead in a circle; remove the link".into()))
}

pub(crate) fn stat(real: &Path) -> Result<Option<Metadata>, StoreError> {
    match std::fs::metadata(real) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(real, sentence(&error))),
    }
}

/// Reads a whole file, again if somebody wrote into it meanwhile; a missing one is `None`.
pub(crate) fn read_text(path: &Path) -> Result<Option<(Secret, Metadata)>, StoreError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            unreadable(path, "permission denied; make it readable for this user".into())
        }
        _ => unreadable(path, sentence(&error)),
    };
    let Some(metadata) = stat(path)? else { return Ok(None) };
    if metadata.is_dir() {
        return Err(unreadable(
            path,
            "it is a directory where a file should be; move it away".into(),
        ));
    }
    if !metadata.is_file() {
        return Err(unreadable(path, "it is not a regular file; move it away".into()));
    }
    for _ in 0..5 {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let before = file.metadata().map_err(failed)?;
        if before.len() > MAX_BYTES {
            let what =
                format!("it is larger than {} MiB, no store is; move it away", MAX_BYTES >> 20);
            return Err(unreadable(path, what));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(before.len() as usize + 1));
        file.read_to_end(&mut bytes).map_err(failed)?;
        let after = file.metadata().map_err(failed)?;
        if revision(Some(&before)) != revision(Some(&after)) {
            continue;
        }
        let text = String::from_utf8(std::mem::take(&mut *bytes)).map_err(|error| {
            let end = error.utf8_error().valid_up_to();
            let bytes = Zeroizing::new(error.into_bytes());
            let good = Zeroizing::new(String::from_utf8_lossy(&bytes[..end]).into_owned());
            invalid(path, &read::at(&good, good.len(), "the text is not UTF-8"))
        })?;
        return Ok(Some((Secret::new(text), after)));
    }
    Err(unreadable(path, "it is being written all the time; try again".into()))
}

/// Condenses what changes when a file is written or replaced. A missing file has revision 0.
pub(crate) fn revision(metadata: Option<&Metadata>) -> Revision {
    let Some(metadata) = metadata else { return Revision(0) };
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let seconds = metadata.mtime() as u64;
    let parts =
        [metadata.dev(), metadata.ino(), seconds, metadata.mtime_nsec() as u64, metadata.len()];
    for byte in parts.iter().flat_map(|part| part.to_le_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    Revision(hash.max(1))
}

fn is_open_to_others(metadata: &Metadata) -> bool {
    metadata.mode() & 0o077 != 0
}

pub(crate) fn invalid(path: &Path, error: &ParseError) -> StoreError {
    let place = format!("{}:{}:{}", path.display(), error.line, error.column);
    StoreError::Invalid { place, what: error.message.clone() }
}

fn unreadable(path: &Path, what: String) -> StoreError {
    StoreError::Unreadable { path: path.to_path_buf(), what }
}

/// Sleeps on a thread of its own; for those who gave no [`Sleeper`].
struct ThreadSleep {
    pause: Option<Duration>,
    state: Arc<Mutex<(bool, Option<Waker>)>>,
}

impl ThreadSleep {
    fn new(pause: Duration) -> Self {
        Self { pause: Some(pause), state: Arc::default() }
    }
}

impl Future for ThreadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.0 {
                return Poll::Ready(());
            }
            state.1 = Some(cx.waker().clone());
        }
        if let Some(pause) = self.pause.take() {
            let state = Arc::clone(&self.state);
            std::thread::spawn(move || {
                std::thread::sleep(pause);
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                state.0 = true;
                if let Some(waker) = state.1.take() {
                    waker.wake();
                }
            });
        }
        Poll::Pending
    }
}
