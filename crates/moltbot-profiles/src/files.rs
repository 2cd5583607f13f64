//! Every change that this crate makes to the file system, one function per step, so that a test
//! can refuse, drop or record each of them.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lock::make_parents;

/// The end of the names of temporary files.
const TEMPORARY: &str = ".tmp";

/// A change of the file system that is about to happen.
#[non_exhaustive]
pub enum Step<'a> {
    /// A lock is taken.
    Lock {
        /// The lock file, or the directory that stands for somebody else's file.
        path: &'a Path,
    },
    /// A file of mode 0600 is made; it must not exist.
    Create {
        /// Which.
        path: &'a Path,
    },
    /// Bytes are written.
    Write {
        /// To which file.
        path: &'a Path,
        /// From which byte on.
        offset: u64,
        /// What; may hold secrets.
        bytes: &'a [u8],
    },
    /// Room is reserved, so that later writes cannot run out of it.
    Reserve {
        /// For which file.
        path: &'a Path,
        /// How many bytes from its start on.
        length: u64,
    },
    /// A file's content goes to disk.
    Sync {
        /// Which.
        path: &'a Path,
    },
    /// A file takes the place of another.
    Rename {
        /// Which.
        from: &'a Path,
        /// Of which.
        to: &'a Path,
    },
    /// A file is removed.
    Remove {
        /// Which.
        path: &'a Path,
    },
    /// The names in a directory go to disk.
    SyncDirectory {
        /// Which.
        path: &'a Path,
    },
}

/// What a hook makes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// It happens.
    On,
    /// It is claimed to have happened. Heeded for locks and syncs only, the steps that a careless
    /// program leaves out; this is how tests build the broken variants on which they must fail.
    Skip,
}

/// Watches and refuses changes of the file system; for tests and torture.
///
/// An error is reported as if the operating system had given it.
pub trait FileHook: Send + Sync {
    /// Is asked before each step, on the thread that makes it.
    fn before(&self, step: &Step<'_>) -> io::Result<Go>;

    /// Says on what a directory is to be taken to lie: the magic number that statfs(2) would give,
    /// and the type in the table of mounts. `None`: on what it lies.
    fn file_system(&self, _directory: &Path) -> Option<(u32, String)> {
        None
    }
}

/// The way to the file system.
#[derive(Clone, Default)]
pub(crate) struct Files {
    hook: Option<Arc<dyn FileHook>>,
}

impl Files {
    pub(crate) fn hooked(hook: Arc<dyn FileHook>) -> Self {
        Self { hook: Some(hook) }
    }

    /// Asks on what a directory is to be taken to lie.
    pub(crate) fn file_system(&self, directory: &Path) -> Option<(u32, String)> {
        self.hook.as_ref()?.file_system(directory)
    }

    /// Asks whether a lock is to be taken at all.
    pub(crate) fn may_lock(&self, path: &Path) -> io::Result<bool> {
        self.goes(&Step::Lock { path })
    }

    /// Makes a new file of mode 0600; never follows a link.
    pub(crate) fn create(&self, path: &Path) -> io::Result<File> {
        self.goes(&Step::Create { path })?;
        options().create_new(true).open(path)
    }

    /// Opens a file that may exist, for adding to its end or for writing into it.
    pub(crate) fn open(&self, path: &Path) -> io::Result<File> {
        if !path.exists() {
            self.goes(&Step::Create { path })?;
        }
        options().create(true).truncate(false).open(path)
    }

    /// Writes by one call of the operating system; a part is an error.
    pub(crate) fn write_at(
        &self,
        file: &File,
        path: &Path,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.goes(&Step::Write { path, offset, bytes })?;
        loop {
            match file.write_at(bytes, offset) {
                Ok(written) if written == bytes.len() => return Ok(()),
                Ok(_) => return Err(io::Error::from(io::ErrorKind::StorageFull)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reserves room on the disk; where the file system cannot, it is filled with zeros.
    pub(crate) fn reserve(&self, file: &File, path: &Path, length: u64) -> io::Result<()> {
        use rustix::io::Errno;
        self.goes(&Step::Reserve { path, length })?;
        match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, length) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                let zeros = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
                file.write_all_at(&zeros, 0)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until a file's content is on disk.
    pub(crate) fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        match self.goes(&Step::Sync { path })? {
            true => file.sync_all(),
            false => Ok(()),
        }
    }

    /// Removes a file; that it is not there is no error.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.goes(&Step::Remove { path })?;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Waits until the names in the directory of `path` are on disk.
    pub(crate) fn sync_names(&self, path: &Path) -> io::Result<()> {
        let path = directory(path);
        if !self.goes(&Step::SyncDirectory { path })? {
            return Ok(());
        }
        match File::open(path).and_then(|directory| directory.sync_all()) {
            // Some file systems cannot do that for a directory.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
                ) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Writes a whole new file, to disk, and puts it in the place of the old one. The new name is
    /// on disk only after [`sync_names`](Self::sync_names). On an error the old file is as it was.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<Metadata> {
        make_parents(path)?;
        let temporary = temporary(path);
        let done = self.replace_by(&temporary, path, bytes);
        if done.is_err() {
            // What cannot be removed now is swept later.
            let _ = self.remove(&temporary);
        }
        done
    }

    fn replace_by(&self, temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<Metadata> {
        let mut file = self.create(temporary)?;
        self.goes(&Step::Write { path: temporary, offset: 0, bytes })?;
        file.write_all(bytes)?;
        self.sync(&file, temporary)?;
        self.goes(&Step::Rename { from: temporary, to: path })?;
        std::fs::rename(temporary, path)?;
        file.metadata()
    }

    fn goes(&self, step: &Step<'_>) -> io::Result<bool> {
        match &self.hook {
            None => Ok(true),
            Some(hook) => Ok(hook.before(step)? == Go::On),
        }
    }
}

/// Lists the temporary files of `path` that lie in its directory. Under the lock of the store they
/// are what killed writers left behind; without it one of them may be in the making.
pub(crate) fn temporaries(path: &Path) -> Vec<PathBuf> {
    let start = temporary_start(path);
    let Ok(entries) = std::fs::read_dir(directory(path)) else { return Vec::new() };
    let is_one = |name: &str| name.starts_with(&start) && name.ends_with(TEMPORARY);
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_one))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Returns the directory of a path.
pub(crate) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    options
}

fn temporary(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{}{}-{count}{TEMPORARY}", temporary_start(path), std::process::id());
    directory(path).join(name)
}

fn temporary_start(path: &Path) -> String {
    format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn files_are_private_from_birth_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::default();
        let path = dir.path().join("one");
        let file = files.create(&path).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(files.create(&path).is_err());
        let link = dir.path().join("link");
        symlink("elsewhere", &link).unwrap();
        assert!(files.open(&link).is_err());
        assert!(files.create(&link).is_err());
        assert!(!dir.path().join("elsewhere").exists());
    }

    #[test]
    fn replacing_leaves_no_temporary_file_and_finds_those_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.json");
        Files::default().replace(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert!(temporaries(&path).is_empty());
        std::fs::write(dir.path().join(".store.json.77-0.tmp"), "half").unwrap();
        std::fs::write(dir.path().join(".other.json.77-0.tmp"), "half").unwrap();
        assert_eq!(temporaries(&path), [dir.path().join(".store.json.77-0.tmp")]);
    }

    #[test]
    fn room_is_reserved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let files = Files::default();
        let file = files.create(&path).unwrap();
        files.reserve(&file, &path, 65_536).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 65_536);
        files.write_at(&file, &path, 4_096, b"reply").unwrap();
        files.sync(&file, &path).unwrap();
        files.remove(&path).unwrap();
        files.remove(&path).unwrap();
    }
}
