//! The private copy of a checked file: what was summed is what runs, whatever becomes of the file.
//!
//! On Linux it lies in memory and is sealed before it is summed: nobody can change it, nothing of
//! it is on the disk, and a host that is killed leaves none behind. A program, and a library where
//! the system refuses that, is written to a directory of its own. Its host keeps the directory
//! locked; one that nobody locks belongs to a host that is gone, and the next one removes it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{LoadError, private_dir};
#[cfg(target_os = "linux")]
use crate::dl::Sealed;

/// The most that a plugin's file may hold, in bytes.
pub(crate) const MAX_BYTES: u64 = 256 << 20;

/// How the directories of copies begin.
const PREFIX: &str = ".copy-";

/// How often a directory is made anew because somebody swept it before it was locked.
const TRIES: usize = 100;

/// What a file held when it was read.
pub(crate) enum Bytes {
    /// Where nobody can change it, with a name that the system's loader understands.
    Sealed(Sealed),
    /// In this process's memory.
    Plain(Vec<u8>),
}

impl Bytes {
    /// Reads a file of `len` bytes to its end, which may have moved.
    pub(crate) fn of(mut file: File, len: u64) -> io::Result<Self> {
        let bytes = match sealed(&file) {
            Ok(sealed) => Self::Sealed(sealed),
            Err(_) => {
                file.rewind()?;
                // One byte more than there should be, so that the end is seen without growing.
                let mut bytes = Vec::with_capacity(len.min(MAX_BYTES) as usize + 1);
                file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
                Self::Plain(bytes)
            }
        };
        if bytes.len() as u64 > MAX_BYTES {
            return Err(too_long());
        }
        Ok(bytes)
    }

    /// Returns the sealed bytes under a name that opens them; nothing where they are not sealed or
    /// the system does not show its open files (`/proc`).
    pub(crate) fn in_memory(&self) -> Option<(&Sealed, PathBuf)> {
        let Self::Sealed(sealed) = self else { return None };
        let path = PathBuf::from(format!("/proc/self/fd/{}", sealed.file().as_raw_fd()));
        let (there, own) = (std::fs::metadata(&path).ok()?, sealed.file().metadata().ok()?);
        let same = (there.dev(), there.ino()) == (own.dev(), own.ino());
        same.then_some((sealed, path))
    }

    /// Writes them to a directory of their own, under a name.
    pub(crate) fn on_disk(&self, below: &Path, name: &Path) -> Result<Copy, LoadError> {
        let write = || {
            private_dir(below)?;
            let (dir, lock) = own_dir(below)?;
            let path = dir.path().join(name.file_name().unwrap_or("plugin".as_ref()));
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path)?;
            file.write_all(self)?;
            file.set_permissions(std::fs::Permissions::from_mode(0o500))?;
            Ok(Copy { path, _dir: dir, _lock: lock })
        };
        write().map_err(|error: io::Error| LoadError::Unreadable {
            path: below.display().to_string(),
            reason: format!("no private copy can be written there: {error}"),
        })
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Sealed(sealed) => sealed.bytes(),
            Self::Plain(bytes) => bytes,
        }
    }
}

/// Says that a file holds more than [`MAX_BYTES`].
pub(crate) fn too_long() -> io::Error {
    io::Error::other("it holds more than 256 MiB")
}

/// Copies a file into memory that is then sealed.
#[cfg(target_os = "linux")]
fn sealed(file: &File) -> io::Result<Sealed> {
    use rustix::fs::{MemfdFlags, memfd_create};
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let make = |flags| memfd_create("moltbot-plugin", flags);
    // It is mapped and never run as a program; kernels before 6.3 cannot be told so.
    let memory = match make(flags | MemfdFlags::NOEXEC_SEAL) {
        Err(rustix::io::Errno::INVAL) => make(flags)?,
        other => other?,
    };
    let mut memory = File::from(memory);
    io::copy(&mut file.take(MAX_BYTES + 1), &mut memory)?;
    Sealed::new(memory)
}

/// Refuses: this system has no such memory.
#[cfg(not(target_os = "linux"))]
fn sealed(_: &File) -> io::Result<Sealed> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Nothing is sealed here.
#[cfg(not(target_os = "linux"))]
pub(crate) enum Sealed {}

#[cfg(not(target_os = "linux"))]
impl Sealed {
    pub(crate) fn bytes(&self) -> &[u8] {
        match *self {}
    }

    pub(crate) fn file(&self) -> &std::sync::Arc<File> {
        match *self {}
    }
}

/// A copy on the disk that only this user can reach; gone when dropped.
pub(crate) struct Copy {
    /// The copy.
    pub(crate) path: PathBuf,
    // In this order: it is removed while it is still locked.
    _dir: tempfile::TempDir,
    _lock: File,
}

/// Makes a directory and locks it for as long as this process keeps it.
fn own_dir(below: &Path) -> io::Result<(tempfile::TempDir, File)> {
    let only_mine = std::fs::Permissions::from_mode(0o700);
    for _ in 0..TRIES {
        let mut dir = tempfile::Builder::new();
        let dir = dir.prefix(PREFIX).permissions(only_mine.clone()).tempdir_in(below)?;
        // Until it is locked it looks like one that was left behind, and may be swept.
        let Ok(lock) = File::open(dir.path()) else { continue };
        match lock.try_lock() {
            // Without locks in this file system nobody else can take it for his own either.
            Ok(()) | Err(TryLockError::Error(_)) => {}
            Err(TryLockError::WouldBlock) => continue,
        }
        if dir.path().exists() {
            return Ok((dir, lock));
        }
    }
    Err(io::Error::other("it is swept all the time"))
}

/// Removes the copies of hosts that are gone; what cannot be removed stays.
pub(crate) fn sweep(below: &Path) {
    let Ok(entries) = std::fs::read_dir(below) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let path = entry.path();
        // Locked until it is gone, so that its maker notices if it lives after all.
        let Ok(lock) = File::open(&path) else { continue };
        if lock.try_lock().is_ok() {
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(dir: &Path) -> Bytes {
        std::fs::write(dir.join("a"), "FAKE").unwrap();
        Bytes::of(File::open(dir.join("a")).unwrap(), 4).unwrap()
    }

    fn copies(below: &Path) -> usize {
        let names = std::fs::read_dir(below).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with(PREFIX)).count()
    }

    #[test]
    fn a_copy_is_private_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let copy = bytes(dir.path()).on_disk(&dir.path().join("run"), Path::new("/x/a")).unwrap();
        let parent = copy.path.parent().unwrap().to_path_buf();
        assert_eq!(parent.metadata().unwrap().mode() & 0o777, 0o700);
        assert_eq!(copy.path.metadata().unwrap().mode() & 0o777, 0o500);
        assert_eq!(std::fs::read(&copy.path).unwrap(), b"FAKE");
        drop(copy);
        assert!(!parent.exists());
    }

    #[test]
    fn only_what_nobody_holds_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let kept = bytes(dir.path()).on_disk(dir.path(), Path::new("a")).unwrap();
        // What a host that was killed leaves behind: the directory, and nobody who locks it.
        let left = dir.path().join(".copy-left");
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("a"), "FAKE").unwrap();
        std::fs::create_dir(dir.path().join("other")).unwrap();
        sweep(dir.path());
        assert_eq!(copies(dir.path()), 1);
        assert!(kept.path.exists() && !left.exists() && dir.path().join("other").exists());
    }

    /// The moment between making a directory and locking it belongs to whoever sweeps.
    #[test]
    fn copies_are_made_while_others_sweep() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = bytes(dir.path());
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    sweep(dir.path());
                }
            });
            for _ in 0..200 {
                let copy = bytes.on_disk(dir.path(), Path::new("a")).unwrap();
                assert_eq!(std::fs::read(&copy.path).unwrap(), b"FAKE");
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(copies(dir.path()), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_was_read_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = bytes(dir.path());
        std::fs::write(dir.path().join("a"), "other").unwrap();
        let Some((_, path)) = bytes.in_memory() else {
            eprintln!("SKIPPED: this system has no sealed memory (memfd), or shows no open files");
            return;
        };
        assert_eq!(std::fs::read(&path).unwrap(), b"FAKE");
        for change in [
            OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write_all(b"X")),
            OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(b"X")),
            OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(0)),
        ] {
            assert!(change.is_err(), "{change:?}");
        }
        assert_eq!(&*bytes, b"FAKE");
    }
}
