//! Putting files on disk: the lock, the backups, the atomic replacement (spec C-29, C-31).

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::issue::{ConfigError, Issue, IssueCode};
use crate::keypath::KeyPath;
use crate::source::io_sentence;

/// How often a lock that is held is tried again.
const RETRY_MS: u64 = 20;

/// How many symbolic links lead to a file at most.
const MAX_LINKS: usize = 40;

/// Backups besides the newest.
const OLDER_BACKUPS: usize = 4;

/// The lock over a read, a change and a write. The operating system releases it with the process,
/// however that ends; the file itself stays.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock that guards `config`, whose directory is made if it is missing.
    pub(crate) fn acquire(config: &Path, timeout_ms: u64) -> Result<Self, ConfigError> {
        let dir = parent(config);
        let fail = |path: &Path, error: &io::Error| {
            ConfigError::io(config, io_sentence("write", path, error))
        };
        if config.is_dir() {
            return Err(fail(config, &io::ErrorKind::IsADirectory.into()));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| fail(dir, &e))?;
        let path = lock_path(config);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| ConfigError::io(config, io_sentence("write in", dir, &error)))?;
        let mut waited = 0;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if waited < timeout_ms => {
                    std::thread::sleep(Duration::from_millis(RETRY_MS));
                    waited += RETRY_MS;
                }
                Err(TryLockError::WouldBlock) => {
                    let message = format!(
                        "another process has held the lock {} for more than {timeout_ms} ms",
                        path.display()
                    );
                    let issue = Issue::new(IssueCode::Busy, KeyPath::root(), message)
                        .with_suggestion("wait for it to end, then run the command again");
                    return Err(ConfigError::unchanged(config, issue));
                }
                Err(TryLockError::Error(error)) => return Err(fail(&path, &error)),
            }
        }
    }
}

/// Returns the lock's file. Its name differs from the *directory* that the original program locks
/// with, so that neither takes the other's for its own.
fn lock_path(config: &Path) -> PathBuf {
    let name = config.file_name().unwrap_or_default().to_string_lossy();
    parent(config).join(format!(".{name}.guard"))
}

/// A file whose new contents are on disk under another name.
pub(crate) struct Staged {
    target: PathBuf,
    temporary: NamedTempFile,
    backup: Option<NamedTempFile>,
}

/// Writes the new contents beside the target, and a copy of the old ones, both with mode 0600.
pub(crate) fn stage(target: &Path, contents: &[u8], previous: Option<&[u8]>) -> io::Result<Staged> {
    let temporary = temporary(target, contents)?;
    let backup = previous.map(|previous| self::temporary(target, previous)).transpose()?;
    Ok(Staged { target: target.to_path_buf(), temporary, backup })
}

impl Staged {
    /// Rotates the backups and puts the new contents in place.
    pub(crate) fn commit(self) -> io::Result<()> {
        if let Some(backup) = self.backup {
            let name = |n: usize| match n {
                0 => with_suffix(&self.target, ".bak"),
                n => with_suffix(&self.target, &format!(".bak.{n}")),
            };
            for n in (0..OLDER_BACKUPS).rev() {
                match fs::rename(name(n), name(n + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            backup.persist(name(0)).map_err(|error| error.error)?;
        }
        self.temporary.persist(&self.target).map_err(|error| error.error)?;
        // Without this the new name may be lost with the power although the contents are there.
        File::open(parent(&self.target))?.sync_all()
    }
}

/// Follows symbolic links to where the file is or would be, so that a link stays a link.
pub(crate) fn real_target(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&target) {
            Ok(next) => target = parent(&target).join(next),
            // Not a link, or not there at all: this is the place.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::NotFound
                ) =>
            {
                // The directories on the way may be links as well; name the place in one way.
                let name: OsString = target.file_name().unwrap_or_default().to_os_string();
                return Ok(fs::canonicalize(parent(&target)).map_or(target, |dir| dir.join(name)));
            }
            Err(error) => return Err(error),
        }
    }
    fs::metadata(path).map(|_| target)
}

fn temporary(target: &Path, contents: &[u8]) -> io::Result<NamedTempFile> {
    let mut prefix = target.file_name().unwrap_or_default().to_os_string();
    prefix.push(".");
    let mut file =
        tempfile::Builder::new().prefix(&prefix).suffix(".tmp").tempfile_in(parent(target))?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    name.into()
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_held_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("sub/moltbot.json");
        let first = Lock::acquire(&config, 0).unwrap();
        let error = Lock::acquire(&config, 30).unwrap_err();
        assert_eq!(error.issues()[0].code, IssueCode::Busy);
        assert!(error.to_string().contains(".moltbot.json.guard for more than 30 ms"), "{error}");
        drop(first);
        assert!(Lock::acquire(&config, 0).is_ok());
    }

    #[test]
    fn links_are_followed_even_to_what_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(dir.path()).unwrap();
        let link = dir.path().join("link.json");
        std::os::unix::fs::symlink("sub.json", &link).unwrap();
        assert_eq!(real_target(&link).unwrap(), real.join("sub.json"));
        let circle = dir.path().join("circle");
        std::os::unix::fs::symlink("circle", &circle).unwrap();
        assert!(real_target(&circle).is_err());
    }
}
