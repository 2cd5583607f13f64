//! What the torture does to a credential store from inside the process: a step that fails, stops
//! or is the last one, and the carelessness of the broken variants.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use moltbot_profiles::{FileHook, Go, STORE_FILE, Step};
use rustix::process::{Signal, getpid, kill_process};

/// Reads `TORTURE_CARELESS`, `TORTURE_AT`, `TORTURE_END` and `TORTURE_STEPS`.
pub(crate) fn from_env() -> Hook {
    let text = |name: &str| std::env::var(name).unwrap_or_default();
    Hook {
        careless: text("TORTURE_CARELESS"),
        at: text("TORTURE_AT").parse().unwrap_or(usize::MAX),
        end: text("TORTURE_END"),
        report: Some(PathBuf::from(text("TORTURE_STEPS"))).filter(|path| path.is_absolute()),
        state: Mutex::default(),
    }
}

/// Counts the steps that change files, and acts at one of them.
pub(crate) struct Hook {
    /// How the program is careless: `no-lock`, `no-sync`, `erase-first`, `write-after-parse`,
    /// `no-reserve`, `no-memory`, or not at all.
    careless: String,
    /// At which step, from 0.
    at: usize,
    /// What happens there: `stop`, `cut-early`, `cut-late`, `once:KIND` or `from:KIND`.
    end: String,
    /// Where the number of steps is written, so that the other side knows when it was the last.
    report: Option<PathBuf>,
    state: Mutex<State>,
}

/// The disk as a power cut would leave it.
#[derive(Default)]
struct State {
    step: usize,
    /// Files whose content is not on disk, and what was there before; `None`: no such file.
    unsynced: BTreeMap<PathBuf, Option<Vec<u8>>>,
    /// Names that are not on disk, oldest first, and what was there before.
    names: Vec<(PathBuf, Option<Vec<u8>>)>,
    /// Files that took their names before their content was on disk.
    torn: Vec<PathBuf>,
}

impl FileHook for Hook {
    fn before(&self, step: &Step<'_>) -> io::Result<Go> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Step::Lock { .. } = step {
            return Ok(if self.is("no-lock") { Go::Skip } else { Go::On });
        }
        let now = state.step;
        state.step += 1;
        if let Some(report) = &self.report {
            fs::write(report, state.step.to_string())?;
        }
        if now == self.at {
            match self.end.as_str() {
                // Whoever stopped us wakes us.
                "stop" => kill_process(getpid(), Signal::STOP)?,
                "cut-early" | "cut-late" => state.cut(&self.end),
                _ => {}
            }
        }
        self.fault(step, now)?;
        match step {
            Step::Create { path } if self.is("erase-first") && is_copy_of(path, STORE_FILE) => {
                let _ = fs::remove_file(path.with_file_name(STORE_FILE));
            }
            Step::Write { path, offset, .. }
                if self.is("write-after-parse") && *offset > 0 && is_journal(path) =>
            {
                return Err(io::Error::other("left out"));
            }
            Step::Create { path } if self.is("no-memory") && name(path).contains(".failed") => {
                return Err(io::Error::other("left out"));
            }
            _ => {}
        }
        Ok(state.note(step, self.is("no-sync")))
    }
}

impl Hook {
    /// Cuts the power after the end of the program, if that was asked for.
    pub(crate) fn after(&self) {
        if self.end.starts_with("cut") {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).lose(&self.end);
        }
    }

    fn is(&self, careless: &str) -> bool {
        self.careless == careless
    }

    fn fault(&self, step: &Step<'_>, now: usize) -> io::Result<()> {
        let Some((which, kind)) = self.end.split_once(':') else { return Ok(()) };
        let hit = if which == "from" { now >= self.at } else { now == self.at };
        // Who reserves nothing learns of a full disk when the answer is there.
        let opens = match step {
            Step::Reserve { path, .. } | Step::Create { path } | Step::Sync { path } => {
                is_journal(path)
            }
            Step::Write { path, offset, .. } => is_journal(path) && *offset == 0,
            Step::SyncDirectory { .. } => true,
            _ => false,
        };
        // Room that was reserved is there when the disk is full.
        let reserved = match step {
            Step::Write { path, offset, .. } => is_journal(path) && *offset > 0,
            _ => false,
        };
        let safe = match self.is("no-reserve") {
            true => opens,
            false => reserved && matches!(kind, "full" | "quota"),
        };
        if !hit || safe {
            return Ok(());
        }
        Err(match kind {
            "full" => io::ErrorKind::StorageFull.into(),
            "quota" => io::ErrorKind::QuotaExceeded.into(),
            "readonly" => io::ErrorKind::ReadOnlyFilesystem.into(),
            _ => io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()),
        })
    }
}

impl State {
    /// Remembers what would be gone if the power were cut now.
    fn note(&mut self, step: &Step<'_>, no_sync: bool) -> Go {
        match step {
            Step::Create { path } => self.names.push((path.to_path_buf(), None)),
            Step::Write { path, .. } => {
                self.unsynced.entry(path.to_path_buf()).or_insert_with(|| fs::read(path).ok());
            }
            Step::Sync { .. } | Step::SyncDirectory { .. } if no_sync => return Go::Skip,
            Step::Sync { path } => {
                self.unsynced.remove(*path);
            }
            Step::Rename { from, to } => {
                self.names.push((to.to_path_buf(), fs::read(to).ok()));
                if self.unsynced.remove(*from).is_some() {
                    self.torn.push(to.to_path_buf());
                }
            }
            Step::Remove { path } => {
                self.names.push((path.to_path_buf(), fs::read(path).ok()));
                self.unsynced.remove(*path);
            }
            Step::SyncDirectory { path } => {
                self.names.retain(|(name, _)| name.parent() != Some(path));
            }
            _ => {}
        }
        Go::On
    }

    /// Cuts the power: this process ends here, without a chance to tidy up.
    fn cut(&mut self, how: &str) {
        self.lose(how);
        let _ = kill_process(getpid(), Signal::KILL);
    }

    /// Takes away what the disk had not promised to keep: `cut-early` loses names as well,
    /// `cut-late` keeps the names and loses contents.
    fn lose(&mut self, how: &str) {
        let put = |path: &Path, content: &Option<Vec<u8>>| match content {
            Some(bytes) => drop(fs::write(path, bytes)),
            None => drop(fs::remove_file(path)),
        };
        if how == "cut-late" {
            for path in &self.torn {
                let _ = fs::write(path, "");
            }
        }
        for (path, content) in &self.unsynced {
            // A new file of which nothing was written yet is empty.
            put(path, &Some(content.clone().unwrap_or_default()));
        }
        if how == "cut-early" {
            for (path, content) in self.names.iter().rev().filter(|(path, _)| !is_lock(path)) {
                put(path, content);
            }
        }
    }
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

fn is_lock(path: &Path) -> bool {
    name(path).ends_with("lock")
}

fn is_copy_of(path: &Path, of: &str) -> bool {
    name(path).starts_with(&format!(".{of}."))
}

/// The journal itself, not its lock and not the memory of a failure.
fn is_journal(path: &Path) -> bool {
    let name = name(path);
    name.contains(".renewal-")
        && !name.starts_with('.')
        && !is_lock(path)
        && !name.contains("failed")
}
