//! Marks that survive a crash: what took the host down once is not loaded again.
//!
//! Each process that holds a library keeps one small file for it, locked for as long as it lives.
//! Its one byte says whether the library's code is running. A file that nobody locks and that says
//! so belongs to a process that ended inside the library.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use super::private_dir;

const RUNNING: &[u8] = b"!";
const IDLE: &[u8] = b"-";

/// A process that ended while a plugin's code was running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// The mark that it left.
    pub mark: PathBuf,
}

/// This process's mark for one library.
pub(crate) struct Marker {
    file: File,
    path: PathBuf,
    running: Mutex<u32>,
}

impl Marker {
    /// Makes the mark; idle.
    pub(crate) fn new(dir: &Path, sha256: &str) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        private_dir(dir)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("{sha256}.{}-{number}.mark", std::process::id()));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = file.open(&path)?;
        file.lock()?;
        file.write_all_at(IDLE, 0)?;
        Ok(Self { file, path, running: Mutex::new(0) })
    }

    /// Says that the library's code runs, until the guard is dropped.
    pub(crate) fn run(&self) -> Running<'_> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        if *running == 1 {
            // Without the mark the crash would not be remembered; the call itself is not worse.
            let _ = self.file.write_all_at(RUNNING, 0);
        }
        Running(self)
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        // Only an idle mark goes away: a stuck library is remembered.
        if *self.running.lock().unwrap_or_else(PoisonError::into_inner) == 0 {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The time in which the library's code runs.
pub(crate) struct Running<'a>(&'a Marker);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        *running -= 1;
        if *running == 0 {
            let _ = self.0.file.write_all_at(IDLE, 0);
        }
    }
}

/// Looks for a mark of a process that ended inside the library, and removes those of processes
/// that ended well.
pub(crate) fn survived(dir: &Path, sha256: &str) -> Option<Crash> {
    let mut crash = None;
    for path in marks(dir, sha256) {
        let Some(running) = left_behind(&path) else { continue };
        if running {
            crash = Some(Crash { mark: path });
        } else {
            let _ = std::fs::remove_file(&path);
        }
    }
    crash
}

/// Removes every mark that no living process holds.
pub(crate) fn forget(dir: &Path, sha256: &str) {
    for path in marks(dir, sha256) {
        if left_behind(&path).is_some() {
            let _ = std::fs::remove_file(&path);
        }
    }
}

fn marks(dir: &Path, sha256: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mine = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(sha256) && name.ends_with(".mark")
    };
    entries.flatten().map(|entry| entry.path()).filter(mine).collect()
}

/// Tells what the mark of an ended process says; `None` if its process lives.
fn left_behind(path: &Path) -> Option<bool> {
    let mut file = File::open(path).ok()?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return None,
    }
    let mut byte = Vec::new();
    file.read_to_end(&mut byte).ok()?;
    Some(byte == RUNNING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_tells_how_its_process_ended() {
        let dir = tempfile::tempdir().unwrap();
        let marker = Marker::new(dir.path(), "ab").unwrap();
        let running = marker.run();
        assert_eq!(survived(dir.path(), "ab"), None, "its process lives");
        drop(running);
        drop(marker);
        assert_eq!(marks(dir.path(), "ab").len(), 0);

        std::fs::write(dir.path().join("ab.1-0.mark"), IDLE).unwrap();
        assert_eq!(survived(dir.path(), "ab"), None);
        assert_eq!(marks(dir.path(), "ab").len(), 0, "swept");

        std::fs::write(dir.path().join("ab.1-0.mark"), RUNNING).unwrap();
        assert!(survived(dir.path(), "ab").is_some());
        assert!(survived(dir.path(), "ab").is_some(), "until it is forgotten");
        assert_eq!(survived(dir.path(), "cd"), None);
        forget(dir.path(), "ab");
        assert_eq!(survived(dir.path(), "ab"), None);
    }

    #[test]
    fn two_calls_at_once_are_one_time_of_running() {
        let dir = tempfile::tempdir().unwrap();
        let marker = Marker::new(dir.path(), "ab").unwrap();
        let says = || std::fs::read(&marker.path).unwrap();
        let (one, two) = (marker.run(), marker.run());
        drop(one);
        assert_eq!(says(), RUNNING);
        drop(two);
        assert_eq!(says(), IDLE);
    }
}
