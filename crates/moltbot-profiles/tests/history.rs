//! The log of changes and undo on a real file system.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use moltbot_core::{Credential, Generation, Secret, Timestamp};
use moltbot_profiles::{
    Cause, ChangeKind, FileStore, HistoryError, KEEP_REMOVED_MS, Purge, UndoError,
};
use tempfile::TempDir;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

struct Bench {
    _dir: TempDir,
    store: FileStore,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path().join("auth-profiles.json")).command("models auth x");
        Self { _dir: dir, store }
    }

    fn beside(&self, end: &str) -> PathBuf {
        PathBuf::from(format!("{}{end}", self.store.path().display()))
    }

    fn login(&self, id: &str, text: &str) {
        let credential = Credential::token("acme", Secret::new(text), None);
        self.store.update_blocking(NOW, |profiles| profiles.insert(id, credential)).unwrap();
    }

    fn renew(&self, id: &str, text: &str) {
        let mut locked = self.store.lock_blocking(NOW).unwrap();
        locked.profiles.insert(id, Credential::token("acme", Secret::new(text), None));
        locked.commit_for(&Cause::renewed()).unwrap();
    }

    fn remove(&self, id: &str, purge: bool) {
        let mut locked = self.store.lock_blocking(NOW).unwrap();
        locked.profiles.remove(id).unwrap();
        locked.commit_for(&Cause { purge, ..Cause::default() }).unwrap();
    }

    fn secret(&self, id: &str) -> Option<String> {
        let profiles = self.store.load_blocking().unwrap().profiles;
        profiles.get(id).map(|stored| stored.secret().unwrap().expose().to_string())
    }

    fn kinds(&self) -> Vec<ChangeKind> {
        self.store.changes_blocking().unwrap().iter().map(|change| change.kind).collect()
    }
}

#[test]
fn every_change_of_a_credential_is_logged_without_its_secret() {
    use ChangeKind::{Login, Order, Remove, Rename, Renewed};
    let bench = Bench::new();
    bench.login("acme:a", "SECRET1");
    bench.renew("acme:a", "SECRET2");
    bench.store.update_blocking(NOW, |profiles| profiles.rename("acme:a", "acme:b")).unwrap();
    let order = |profiles: &mut moltbot_profiles::Profiles| {
        profiles.set_order("acme", vec!["acme:b".into()]);
    };
    bench.store.update_blocking(NOW, order).unwrap();
    bench.store.update_blocking(NOW, |p| p.reward("acme:b", None, NOW, NOW)).unwrap();
    bench.remove("acme:b", false);
    assert_eq!(bench.kinds(), [Login, Renewed, Rename, Order, Remove, Order]);
    let changes = bench.store.changes_blocking().unwrap();
    assert_eq!(changes[4].group, changes[5].group, "one write, one group");
    assert_eq!(changes[4].command, "models auth x");
    let uid = rustix::process::getuid().as_raw();
    let own = moltbot_profiles::Who { uid, pid: std::process::id() };
    assert!(changes.iter().all(|change| change.who == Some(own)), "{changes:?}");
    let log = fs::read_to_string(bench.beside(".changes.jsonl")).unwrap();
    assert!(!log.contains("SECRET"), "{log}");
    assert_eq!(log.lines().filter(|line| line.contains("settled")).count(), 5);
    for end in [".changes.jsonl", ".removed.json"] {
        let mode = fs::metadata(bench.beside(end)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{end}");
    }
}

#[test]
fn undo_brings_back_what_is_kept_and_not_what_is_spent() {
    let bench = Bench::new();
    bench.login("acme:a", "T1");
    bench.login("acme:a", "T2");
    bench.store.undo_blocking(NOW, None).unwrap();
    assert_eq!(bench.secret("acme:a").as_deref(), Some("T1"));
    bench.renew("acme:a", "T3");
    bench.remove("acme:a", false);
    let undone = bench.store.undo_blocking(NOW, None).unwrap();
    assert_eq!(undone.steps, ["brought back acme:a"]);
    assert_eq!(bench.secret("acme:a").as_deref(), Some("T3"));
    let undone = bench.store.undo_blocking(NOW, Some(0)).unwrap();
    assert_eq!(undone.steps, ["removed acme:a"], "T1 was renewed into T3: one login");
    let nothing = bench.store.undo_blocking(NOW, None).unwrap_err();
    assert_eq!(nothing, HistoryError::Undo(UndoError::Nothing));
}

#[test]
fn removed_secrets_go_after_seven_days_or_at_once() {
    let bench = Bench::new();
    bench.login("acme:a", "T1");
    bench.remove("acme:a", false);
    assert_eq!(bench.store.removed_blocking().unwrap().len(), 1);
    assert_eq!(bench.store.purge_removed_blocking(NOW, Purge::Over), Ok(0));
    let later = NOW.plus(KEEP_REMOVED_MS + 1);
    let error = bench.store.undo_blocking(later, None).unwrap_err();
    assert!(matches!(error, HistoryError::Undo(UndoError::Gone { .. })), "{error}");
    assert_eq!(bench.store.purge_removed_blocking(later, Purge::Over), Ok(1));
    assert!(!bench.beside(".removed.json").exists(), "nothing is left of it");

    bench.login("acme:b", "T2");
    bench.login("acme:b", "T3");
    bench.remove("acme:b", true);
    assert!(!bench.beside(".removed.json").exists(), "older ones of the profile go as well");
    bench.login("acme:c", "T4");
    bench.remove("acme:c", false);
    assert_eq!(bench.store.purge_removed_blocking(NOW, Purge::Profile("acme:x")), Ok(0));
    assert_eq!(bench.store.purge_removed_blocking(NOW, Purge::All), Ok(1));
}

#[test]
fn a_log_that_cannot_be_written_stops_all_but_a_renewal() {
    let bench = Bench::new();
    bench.login("acme:a", "T1");
    let log = bench.beside(".changes.jsonl");
    fs::remove_file(&log).unwrap();
    std::os::unix::fs::symlink("elsewhere", &log).unwrap();
    let before = fs::read(bench.store.path()).unwrap();
    let error = bench.store.update_blocking(NOW, |p| p.remove("acme:a")).unwrap_err();
    assert_eq!(error.code(), "store-unwritable");
    assert!(error.to_string().contains("symbolic link"), "{error}");
    assert_eq!(fs::read(bench.store.path()).unwrap(), before);
    bench.renew("acme:a", "T2");
    assert_eq!(bench.secret("acme:a").as_deref(), Some("T2"));
    assert!(!bench.store.path().with_file_name("elsewhere").exists());
}

#[test]
fn a_broken_list_of_removed_secrets_is_left_alone() {
    let bench = Bench::new();
    bench.login("acme:a", "T1");
    fs::write(bench.beside(".removed.json"), "{\n").unwrap();
    let error = bench.store.update_blocking(NOW, |p| p.remove("acme:a")).unwrap_err().to_string();
    assert!(error.contains(".removed.json:2:0: "), "{error}");
    assert_eq!(bench.secret("acme:a").as_deref(), Some("T1"));
    assert_eq!(fs::read_to_string(bench.beside(".removed.json")).unwrap(), "{\n");
}

#[test]
fn a_spent_login_is_recorded_and_changes_nothing() {
    use moltbot_profiles::Store as _;
    let bench = Bench::new();
    bench.login("acme:a", "T1");
    let before = fs::read(bench.store.path()).unwrap();
    let credential = Credential::token("acme", Secret::new("T1"), None);
    let generation = Generation::of(&credential);
    let record = bench.store.record_spent("acme:a", &generation, NOW);
    block_on(record).unwrap();
    assert_eq!(bench.kinds(), [ChangeKind::Login, ChangeKind::Spent]);
    assert_eq!(fs::read(bench.store.path()).unwrap(), before);
    assert_eq!(bench.store.undo_blocking(NOW, None).unwrap().steps, ["removed acme:a"]);
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_failed_renewal_is_remembered_for_all_processes_and_for_a_minute() {
    use moltbot_core::AuthError;
    use moltbot_profiles::{FailedRenewal, RENEWAL_PAUSE_MS, Store as _};
    let bench = Bench::new();
    let of = |text: &str| Generation::of(&Credential::token("acme", Secret::new(text), None));
    let error = AuthError::Transient { reason: "HTTP 503".into() };
    let failure = FailedRenewal { generation: of("T1"), at: NOW, error };
    let lease = || block_on(bench.store.lease("acme:a", None, NOW)).unwrap();
    assert_eq!(block_on(lease().last_failure()), None);
    block_on(lease().remember(Some(&failure)));
    let read = block_on(lease().last_failure()).unwrap();
    assert_eq!(read, failure);
    let until = NOW.plus(RENEWAL_PAUSE_MS);
    assert_eq!(read.rests_until(&of("T1"), NOW), Some(until));
    assert_eq!(read.rests_until(&of("T1"), until), None);
    assert_eq!(read.rests_until(&of("T2"), NOW), None, "another login");
    assert_eq!(read.rests_until(&of("T1"), NOW.plus(-1)), None, "a clock that was set back");
    assert!(bench.store.inspect().unwrap().renewals.is_empty());
    block_on(lease().remember(None));
    assert_eq!(block_on(lease().last_failure()), None);
}
