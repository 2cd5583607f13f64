//! A writer that is killed, or whose disk fails, at each of its steps; and careless variants of
//! the writer, on which the same checks must fail.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use moltbot_core::{Credential, Secret, Timestamp};
use moltbot_profiles::{FileHook, FileStore, Go, STORE_FILE, Step};

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

/// How a writer is careless.
#[derive(Clone, Copy, PartialEq)]
enum Careless {
    No,
    /// It does not wait for the disk.
    NoSync,
    /// It removes the old store before the new one is there.
    EraseFirst,
}

/// What happens at the chosen step.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// That step fails, the others do not.
    Fails(io::ErrorKind),
    /// The process is killed: nothing happens from that step on.
    Killed,
    /// The power is cut: the same, and what was not on disk is gone.
    PowerCut,
}

struct Disk {
    store: PathBuf,
    at: usize,
    end: End,
    careless: Careless,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    step: usize,
    /// Files whose content may not be on disk.
    unsynced: BTreeMap<PathBuf, ()>,
    /// What a file held before something unsynced took its place.
    torn: Vec<PathBuf>,
}

impl FileHook for Disk {
    fn before(&self, step: &Step<'_>) -> io::Result<Go> {
        let mut state = self.state.lock().unwrap();
        if matches!(step, Step::Lock { .. }) || is_lock(step) {
            return Ok(Go::On);
        }
        state.step += 1;
        let reached = state.step > self.at;
        match self.end {
            End::Fails(kind) if state.step == self.at + 1 => return Err(kind.into()),
            End::Killed | End::PowerCut if reached => return Err(io::Error::other("killed")),
            _ => {}
        }
        let mut go = Go::On;
        match step {
            Step::Create { path }
                if self.careless == Careless::EraseFirst
                    && path.to_string_lossy().ends_with(".tmp") =>
            {
                let _ = fs::remove_file(&self.store);
            }
            Step::Write { path, .. } => {
                state.unsynced.insert(path.to_path_buf(), ());
            }
            Step::Sync { path } => {
                if self.careless == Careless::NoSync {
                    go = Go::Skip;
                } else {
                    state.unsynced.remove(*path);
                }
            }
            Step::Rename { from, to } if state.unsynced.remove(*from).is_some() => {
                state.torn.push(to.to_path_buf());
            }
            _ => {}
        }
        Ok(go)
    }
}

fn is_lock(step: &Step<'_>) -> bool {
    let lock = |path: &Path| path.to_string_lossy().ends_with("lock");
    matches!(step, Step::Create { path } if lock(path))
}

fn token(text: &str) -> Credential {
    Credential::token("acme", Secret::new(text), None)
}

/// Replaces one login and removes another, with the given end; returns whether that was
/// acknowledged, what is wrong afterwards, and whether the end was reached at all.
fn act(at: usize, end: End, careless: Careless) -> (bool, Vec<String>, bool) {
    let dir = tempfile::tempdir().unwrap();
    let plain = FileStore::new(dir.path().join(STORE_FILE));
    plain
        .update_blocking(NOW, |profiles| {
            profiles.insert("acme:a", token("A1"));
            profiles.insert("acme:b", token("B1"));
        })
        .unwrap();
    let old = fs::read(plain.path()).unwrap();
    let state = Mutex::new(State::default());
    let disk = Arc::new(Disk { store: plain.path().into(), at, end, careless, state });
    let store = plain.clone().hook(disk.clone());
    let done = store.update_blocking(NOW, |profiles| {
        profiles.insert("acme:a", token("A2"));
        profiles.remove("acme:b");
    });
    let state = disk.state.lock().unwrap();
    if end == End::PowerCut {
        for path in &state.torn {
            // The name was on disk before the content.
            fs::write(path, "").unwrap();
        }
    }
    let mut wrong = Vec::new();
    match plain.load_blocking() {
        Err(error) => wrong.push(format!("unreadable: {error}")),
        Ok(loaded) => {
            let secret = |id: &str| {
                loaded.profiles.get(id).map(|c| c.secret().unwrap().expose().to_string())
            };
            let found = (secret("acme:a"), secret("acme:b"));
            let is_old = found == (Some("A1".into()), Some("B1".into()));
            let is_new = found == (Some("A2".into()), None);
            if !is_old && !is_new {
                wrong.push(format!("neither old nor new: {found:?}"));
            }
            if done.is_ok() && !is_new {
                wrong.push("acknowledged and lost".into());
            }
            if is_old && fs::read(plain.path()).unwrap() != old {
                wrong.push("the old store is not what it was".into());
            }
            let logged = plain.changes_blocking().unwrap().len();
            if logged != if is_new { 4 } else { 2 } {
                wrong.push(format!("{logged} changes are logged, new: {is_new}"));
            }
            if is_new && plain.undo_blocking(NOW, None).is_err() {
                wrong.push("it cannot be undone".into());
            }
            if plain.update_blocking(NOW, |p| p.insert("acme:z", token("Z"))).is_err() {
                wrong.push("the next write fails".into());
            }
            if !FileStore::new(plain.path()).inspect().unwrap().temporaries.is_empty() {
                let again = FileStore::new(plain.path());
                again.tidy_blocking(NOW).unwrap();
                if !again.inspect().unwrap().temporaries.is_empty() {
                    wrong.push("leftovers stay".into());
                }
            }
        }
    }
    (done.is_ok(), wrong, state.step > at)
}

/// Goes through all steps; returns how many there are and what went wrong.
fn all(end: End, careless: Careless) -> (usize, Vec<String>) {
    let mut wrong = Vec::new();
    for at in 0.. {
        let (_, found, reached) = act(at, end, careless);
        wrong.extend(found.into_iter().map(|what| format!("step {at}: {what}")));
        if !reached {
            return (at, wrong);
        }
    }
    unreachable!("the steps end")
}

#[test]
fn whatever_step_fails_or_is_the_last_one_nothing_is_lost() {
    use io::ErrorKind::{Other, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let mut ends = vec![End::Killed, End::PowerCut];
    ends.extend([Other, QuotaExceeded, ReadOnlyFilesystem, StorageFull].map(End::Fails));
    for end in ends {
        let (steps, wrong) = all(end, Careless::No);
        assert!(steps >= 10, "{steps}");
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

#[test]
fn the_check_notices_a_writer_that_does_not_wait_for_the_disk() {
    let (_, wrong) = all(End::PowerCut, Careless::NoSync);
    assert!(wrong.iter().any(|what| what.contains("unreadable")), "{wrong:#?}");
}

#[test]
fn the_check_notices_a_writer_that_erases_first() {
    let (_, wrong) = all(End::Killed, Careless::EraseFirst);
    assert!(!wrong.is_empty());
}
