//! The file store on a real file system: modes, links, locks, writers side by side, bad paths.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use moltbot_core::{Credential, CredentialKind, Failure, FailureKind, Scope, Secret, Timestamp};
use moltbot_profiles::{
    CooldownRules, FileStore, LegacyFiles, Profiles, STORE_FILE, Store, StoreError,
};
use tempfile::TempDir;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn store(dir: &TempDir) -> FileStore {
    FileStore::new(dir.path().join(STORE_FILE)).timeout(Duration::from_secs(60))
}

fn key(text: &str) -> Credential {
    Credential::api_key("acme", Secret::new(text))
}

fn add(store: &FileStore, id: &str) -> Result<(), StoreError> {
    store.update_blocking(NOW, |profiles| {
        profiles.insert(id, key("FAKE"));
    })
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn case_18_modes_of_new_files_and_directories() {
    let dir = dir();
    let agent = dir.path().join("agents/main/agent");
    let store = FileStore::new(agent.join(STORE_FILE));
    add(&store, "acme:default").unwrap();
    assert_eq!(mode(&agent.join(STORE_FILE)), 0o600);
    for part in ["agents", "agents/main", "agents/main/agent"] {
        assert_eq!(mode(&dir.path().join(part)), 0o700, "{part}");
    }
    let beside = ["auth-profiles.json.changes.jsonl", "auth-profiles.json.moltbot-lock"];
    assert_eq!(names(&agent), [STORE_FILE, beside[0], beside[1]]);
    for name in beside {
        assert_eq!(mode(&agent.join(name)), 0o600, "{name}");
    }
}

#[test]
fn case_16_the_exact_shape_of_a_new_store() {
    let dir = dir();
    add(&store(&dir), "acme:default").unwrap();
    let text = fs::read_to_string(dir.path().join(STORE_FILE)).unwrap();
    let wanted = r#"{
  "version": 1,
  "profiles": {
    "acme:default": {
      "type": "api_key",
      "provider": "acme",
      "key": "FAKE"
    }
  }
}
"#;
    assert_eq!(text, wanted);
}

#[test]
fn wrong_modes_are_tightened_by_a_writer_and_named_to_a_reader() {
    let dir = dir();
    let store = store(&dir);
    add(&store, "acme:default").unwrap();
    fs::set_permissions(store.path(), Permissions::from_mode(0o644)).unwrap();
    let loaded = store.load_blocking().unwrap();
    assert!(loaded.notes[0].contains("mode 644"), "{:?}", loaded.notes);
    assert_eq!(mode(store.path()), 0o644, "a reader changes nothing");
    let locked = store.lock_blocking(NOW).unwrap();
    assert!(locked.notes[0].contains("is now 600"), "{:?}", locked.notes);
    assert_eq!(mode(store.path()), 0o600);
    drop(locked);
    assert!(store.load_blocking().unwrap().notes.is_empty());
}

#[test]
fn case_19_unknown_parts_survive_a_write() {
    let dir = dir();
    let store = store(&dir);
    let text = r#"{"version": 7, "extra": {"n": 1e400, "big": 123456789012345678901234567890},
        "profiles": {
            "acme:good": {"type":"api_key","provider":"acme","key":"FAKE","team":{"a":[1,null]}},
            "acme:strange": {"type":"passkey","provider":"acme","secret":"FAKE2"},
            "acme:wrong": {"type":"token","provider":"acme","token":5},
            "acme:none": "FAKE3"},
        "usageStats": {"acme:good": {"lastUsed": 1.5, "mood": "fine"}, "acme:wrong": []}}"#;
    fs::write(store.path(), text).unwrap();
    let loaded = store.load_blocking().unwrap().profiles;
    assert_eq!(loaded.iter().map(|(id, _)| id).collect::<Vec<_>>(), ["acme:good"]);
    let problems: Vec<String> =
        loaded.problems().iter().map(|p| format!("{}: {}", p.place, p.reason)).collect();
    assert_eq!(
        problems,
        [
            "profiles.acme:strange: its type is none of api_key, oauth, token",
            "profiles.acme:wrong: its `token` is not a text",
            "profiles.acme:none: it is not a JSON object",
            "usageStats.acme:wrong: it has not the shape of statistics",
        ]
    );
    add(&store, "acme:new").unwrap();
    let written = fs::read_to_string(store.path()).unwrap();
    for part in [
        "\"version\": 1,",
        "\"n\": 1e400",
        "123456789012345678901234567890",
        "\"team\": {",
        r#""acme:strange": {"type":"passkey","provider":"acme","secret":"FAKE2"}"#,
        r#""acme:wrong": {"type":"token","provider":"acme","token":5}"#,
        r#""acme:none": "FAKE3""#,
        "\"mood\": \"fine\"",
        "\"lastUsed\": 1,",
    ] {
        assert!(written.contains(part), "{part} not in {written}");
    }
    assert!(written.find("acme:strange").unwrap() < written.find("acme:new").unwrap());
}

#[test]
fn case_20_a_store_that_is_no_store_is_left_alone() {
    let dir = dir();
    let store = store(&dir);
    fs::write(store.path(), "{\"profiles\": {\n  oops").unwrap();
    for result in [store.load_blocking().map(|_| ()), add(&store, "acme:x")] {
        let error = result.unwrap_err();
        assert_eq!(error.code(), "store-invalid");
        let start = format!("{}:2:3: not valid JSON: ", store.path().display());
        assert!(error.to_string().starts_with(&start), "{error}");
    }
    assert_eq!(fs::read_to_string(store.path()).unwrap(), "{\"profiles\": {\n  oops");
}

#[test]
fn cases_23_27_reading_never_writes() {
    let dir = dir();
    let store = store(&dir);
    assert!(store.load_blocking().unwrap().profiles.is_empty());
    assert!(names(dir.path()).is_empty());
    let text = r#"{"profiles":{"acme:a":{"type":"api_key","provider":"acme","key":"FAKE"}}}"#;
    fs::write(store.path(), text).unwrap();
    let before = fs::metadata(store.path()).unwrap().modified().unwrap();
    store.load_blocking().unwrap();
    assert_eq!(fs::read_to_string(store.path()).unwrap(), text);
    assert_eq!(fs::metadata(store.path()).unwrap().modified().unwrap(), before);
    assert_eq!(names(dir.path()), [STORE_FILE]);
}

#[test]
fn a_dropped_lock_and_an_unchanged_content_write_nothing() {
    let dir = dir();
    let store = store(&dir);
    let mut locked = store.lock_blocking(NOW).unwrap();
    locked.profiles.insert("acme:x", key("FAKE"));
    drop(locked);
    assert!(!store.path().exists());
    add(&store, "acme:x").unwrap();
    let revision = store.load_blocking().unwrap().revision;
    assert_eq!(store.lock_blocking(NOW).unwrap().commit().unwrap(), revision);
    assert_eq!(store.watch_blocking(revision).unwrap(), None);
    add(&store, "acme:y").unwrap();
    let next = store.watch_blocking(revision).unwrap().unwrap();
    assert_eq!(store.load_blocking().unwrap().revision, next);
}

#[test]
fn a_change_by_hand_in_the_middle_is_merged_or_reported() {
    let dir = dir();
    let store = store(&dir);
    add(&store, "acme:a").unwrap();
    let mut locked = store.lock_blocking(NOW).unwrap();
    locked.profiles.insert("acme:x", key("FAKE"));
    let by_hand = r#"{"profiles": {
        "acme:a": {"type":"api_key","provider":"acme","key":"HAND"},
        "acme:h": {"type":"api_key","provider":"acme","key":"FAKE"}}, "by": "hand"}"#;
    fs::write(store.path(), by_hand).unwrap();
    let revision = locked.commit().unwrap();
    let loaded = store.load_blocking().unwrap();
    assert_eq!(loaded.revision, revision);
    let ids: Vec<&str> = loaded.profiles.iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["acme:a", "acme:h", "acme:x"]);
    let text = fs::read_to_string(store.path()).unwrap();
    assert!(text.contains("HAND") && text.contains("\"by\": \"hand\""), "{text}");

    let mut locked = store.lock_blocking(NOW).unwrap();
    locked.profiles.insert("acme:a", key("OURS"));
    let other = text.replace("HAND", "HAND2");
    fs::write(store.path(), &other).unwrap();
    let error = locked.commit().unwrap_err();
    assert!(matches!(error, StoreError::Changed { .. }), "{error}");
    assert_eq!(fs::read_to_string(store.path()).unwrap(), other);

    let mut locked = store.lock_blocking(NOW).unwrap();
    locked.profiles.insert("acme:b", key("OURS"));
    fs::write(store.path(), "{ half").unwrap();
    assert_eq!(locked.commit().unwrap_err().code(), "store-invalid");
    assert_eq!(fs::read_to_string(store.path()).unwrap(), "{ half");
}

#[test]
fn a_link_is_written_through() {
    let dir = dir();
    let real = dir.path().join("real");
    fs::create_dir(&real).unwrap();
    let link = dir.path().join("link.json");
    symlink("real/one.json", dir.path().join("middle.json")).unwrap();
    symlink("middle.json", &link).unwrap();
    add(&FileStore::new(&link), "acme:a").unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    add(&FileStore::new(real.join("one.json")), "acme:b").unwrap();
    assert_eq!(FileStore::new(&link).load_blocking().unwrap().profiles.len(), 2);
    let beside = ["one.json", "one.json.changes.jsonl", "one.json.moltbot-lock"];
    assert_eq!(names(&real), beside, "one lock and one log for both names");
}

/// Lies on NFS, whatever it lies on.
struct Nfs;

impl moltbot_profiles::FileHook for Nfs {
    fn before(&self, _: &moltbot_profiles::Step<'_>) -> std::io::Result<moltbot_profiles::Go> {
        Ok(moltbot_profiles::Go::On)
    }

    fn file_system(&self, _: &Path) -> Option<(u32, String)> {
        Some((0x6969, "nfs4".into()))
    }
}

#[test]
fn a_writer_is_told_once_that_other_machines_may_write_too() {
    let dir = dir();
    let store =
        FileStore::new(dir.path().join("new/auth-profiles.json")).hook(std::sync::Arc::new(Nfs));
    let notes = || store.lock_blocking(NOW).unwrap().notes;
    let told = notes();
    assert!(told.len() == 1 && told[0].contains("lies on NFS: its locks and writes"), "{told:?}");
    assert!(notes().is_empty());
    assert_eq!(store.inspect().unwrap().network, Some("NFS"));
}

#[test]
fn case_22_legacy_files_are_taken_over_by_the_first_write() {
    let dir = dir();
    let auth = dir.path().join("auth.json");
    let oauth = dir.path().join("oauth.json");
    fs::write(&auth, r#"{"acme": {"type": "api_key", "key": "FAKE"}}"#).unwrap();
    fs::write(&oauth, r#"{"other": {"access": "FAKE", "refresh": "FAKE", "expires": 5}}"#).unwrap();
    let files = LegacyFiles { auth: Some(auth.clone()), oauth: Some(oauth.clone()) };
    let store = store(&dir).legacy(files);
    let loaded = store.load_blocking().unwrap();
    assert_eq!(loaded.imported, ["acme:default", "other:default"]);
    assert!(auth.exists() && !store.path().exists(), "reading takes nothing over");
    assert_eq!(store.import_blocking(NOW).unwrap(), ["acme:default", "other:default"]);
    assert!(!auth.exists() && oauth.exists());
    let loaded = store.load_blocking().unwrap();
    assert_eq!(loaded.profiles.get("other:default").unwrap().kind, CredentialKind::Oauth);
    assert!(loaded.imported.is_empty());
    assert!(store.import_blocking(NOW).unwrap().is_empty());
    fs::write(&auth, "{").unwrap();
    assert!(store.load_blocking().is_ok(), "with a store the old files are not looked at");
}

#[test]
fn legacy_files_that_cannot_be_taken_over_stay() {
    let dir = dir();
    let auth = dir.path().join("auth.json");
    let files = LegacyFiles { auth: Some(auth.clone()), oauth: None };
    let store = store(&dir).legacy(files);
    fs::write(&auth, r#"{"acme": {"type": "api_key", "key": "FAKE"}, "x": {"type": 1}}"#).unwrap();
    assert_eq!(store.import_blocking(NOW).unwrap(), ["acme:default"]);
    assert!(auth.exists());
    fs::remove_file(store.path()).unwrap();
    fs::write(&auth, "{\"acme\":").unwrap();
    let error = add(&store, "acme:x").unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}:1:", auth.display())), "{error}");
    assert!(!store.path().exists());
}

#[test]
fn case_21_writers_side_by_side_lose_nothing() {
    let dir = dir();
    let store = store(&dir);
    let failure = Failure {
        kind: FailureKind::RateLimit,
        scope: Scope::Profile,
        reset: None,
        account: None,
        code: "rate-limited".into(),
        message: String::new(),
        advice: None,
    };
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                for _ in 0..5 {
                    store
                        .update_blocking(NOW, |profiles| {
                            let rules = CooldownRules::default();
                            profiles.punish("acme:x", None, &failure, &rules, NOW, NOW);
                        })
                        .unwrap();
                    store.load_blocking().unwrap();
                }
            });
        }
    });
    let profiles = store.load_blocking().unwrap().profiles;
    let stats = profiles.stats("acme:x").unwrap();
    assert_eq!(stats.whole.error_count, 100);
    assert_eq!(stats.whole.failure_counts["rate_limit"], 100);
}

/// Not a test of its own: what a child process of the next tests does.
#[test]
fn child() {
    let Ok(path) = std::env::var("PROFILES_TEST_STORE") else { return };
    let store = FileStore::new(path).timeout(Duration::from_secs(60));
    if std::env::var_os("PROFILES_TEST_HOLD").is_some() {
        let _held = store.lock_blocking(NOW).unwrap();
        fs::write(store.path().with_extension("held"), "").unwrap();
        std::thread::sleep(Duration::from_secs(600));
    }
    for _ in 0..10 {
        store
            .update_blocking(NOW, |profiles| {
                let mut stats = profiles.stats("acme:x").cloned().unwrap_or_default();
                stats.whole.error_count += 1;
                profiles.set_stats("acme:x", stats);
            })
            .unwrap();
    }
}

fn child_process(store: &FileStore, hold: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child"]).env("PROFILES_TEST_STORE", store.path());
    if hold {
        command.env("PROFILES_TEST_HOLD", "1");
    }
    command.stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn case_21_processes_side_by_side_lose_nothing() {
    let dir = dir();
    let store = store(&dir);
    let children: Vec<Child> = (0..20).map(|_| child_process(&store, false)).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let profiles = store.load_blocking().unwrap().profiles;
    assert_eq!(profiles.stats("acme:x").unwrap().whole.error_count, 200);
}

#[test]
fn a_lock_dies_with_its_process_and_is_never_stolen() {
    let dir = dir();
    let store = store(&dir);
    let mut holder = child_process(&store, true);
    let held = store.path().with_extension("held");
    let start = Instant::now();
    while !held.exists() {
        assert!(start.elapsed() < Duration::from_secs(30), "the holder did not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    let hasty = store.clone().timeout(Duration::from_millis(60));
    let error = hasty.lock_blocking(NOW.plus(40_000)).map(|_| ()).unwrap_err();
    assert_eq!(error.code(), "store-locked");
    assert_eq!(
        error.to_string(),
        format!(
            "the credential store is in use: {}.moltbot-lock has been held by process {} for 40 s \
             and was not free within 60 ms",
            store.path().display(),
            holder.id()
        )
    );
    holder.kill().unwrap();
    holder.wait().unwrap();
    add(&hasty, "acme:x").unwrap();
}

#[test]
fn case_21_the_old_systems_lock_counts_for_30_seconds() {
    let dir = dir();
    let store = store(&dir).timeout(Duration::from_millis(60));
    let old = dir.path().join("auth-profiles.json.lock");
    fs::create_dir(&old).unwrap();
    let error = add(&store, "acme:x").unwrap_err().to_string();
    assert!(error.contains("auth-profiles.json.lock has been held by another process"), "{error}");
    let touched = std::time::SystemTime::now() - Duration::from_secs(40);
    File::open(&old).unwrap().set_modified(touched).unwrap();
    add(&store, "acme:x").unwrap();
    fs::remove_dir(&old).unwrap();
    fs::write(&old, "").unwrap();
    assert!(add(&store, "acme:y").is_err());
}

#[test]
fn tasks_wait_by_the_sleeper_they_were_given() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let dir = dir();
    let slept = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&slept);
    let held = store(&dir).lock_blocking(NOW).unwrap();
    let held = std::sync::Mutex::new(Some(held));
    let store = store(&dir).sleeper(Arc::new(move |_| {
        if counter.fetch_add(1, Ordering::Relaxed) == 3 {
            held.lock().unwrap().take();
        }
        Box::pin(std::future::ready(()))
    }));
    let store: Arc<dyn Store> = Arc::new(store);
    let mut locked = block_on(store.lock(NOW)).unwrap();
    assert_eq!(slept.load(Ordering::Relaxed), 4);
    locked.profiles.insert("acme:x", key("FAKE"));
    let revision = block_on(locked.commit()).unwrap();
    assert_eq!(block_on(store.watch(revision)).unwrap(), None);
    assert!(block_on(store.load()).unwrap().profiles.contains("acme:x"));
    // Nobody holds it now, so nobody sleeps.
    drop(block_on(store.lock(NOW)).unwrap());
    assert_eq!(slept.load(Ordering::Relaxed), 4);
}

#[test]
fn without_a_sleeper_a_task_is_woken_all_the_same() {
    let dir = dir();
    let held = store(&dir).lock_blocking(NOW).unwrap();
    let release = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        drop(held);
    });
    drop(block_on(Store::lock(&store(&dir), NOW)).unwrap());
    release.join().unwrap();
}

/// Runs a future on this thread, which is parked while there is nothing to do.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park_timeout(Duration::from_millis(100)),
        }
    }
}

/// Loads and writes, expects the same refusal of both, and returns its sentence.
fn refused(path: &Path) -> String {
    let store = FileStore::new(path).timeout(Duration::from_millis(60));
    let error = store.load_blocking().map(|_| ()).unwrap_err();
    assert_eq!(error.code(), "store-invalid");
    assert!(add(&store, "acme:x").is_err());
    error.to_string()
}

#[test]
fn bad_paths_are_one_clear_sentence() {
    let dir = dir();
    let at = |name: &str| -> PathBuf { dir.path().join(name) };
    fs::create_dir(at("directory")).unwrap();
    symlink("b", at("a")).unwrap();
    symlink("a", at("b")).unwrap();
    fs::write(at("file"), "").unwrap();
    let socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    for (name, what) in [
        ("directory", "it is a directory where a file should be; move it away"),
        ("a", "its symbolic links lead in a circle; remove the link"),
        ("socket", "it is not a regular file; move it away"),
        ("file/store", "a part of the path is not a directory"),
    ] {
        let path = at(name);
        assert_eq!(refused(&path), format!("cannot read {}: {what}", path.display()));
    }
    drop(socket);
}

#[test]
fn what_cannot_be_written_changes_nothing() {
    let store = FileStore::new("/proc/moltbot-test/auth-profiles.json");
    let error = add(&store, "acme:x").unwrap_err();
    assert_eq!(error.code(), "store-unwritable");
    assert!(error.to_string().starts_with("cannot write /proc/moltbot-test/"), "{error}");
    assert!(error.to_string().ends_with("; nothing has been changed"), "{error}");
    let dir = dir();
    let path = dir.path().join(STORE_FILE);
    add(&FileStore::new(&path), "acme:x").unwrap();
    let before = fs::read(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o500)).unwrap();
    // Root may do everything; the refusals are then not to be seen.
    if File::open(&path).is_err() {
        let sentence = refused(&path);
        assert!(sentence.ends_with("permission denied; make it readable for this user"));
    }
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_large_store_round_trips() {
    let mut profiles = Profiles::default();
    for n in 0..200 {
        profiles.insert(format!("acme:{n}"), key(&format!("FAKE-{n}")));
    }
    let text = profiles.to_json(NOW);
    let again = Profiles::parse(text.expose()).unwrap();
    assert_eq!(again.to_json(NOW).expose(), text.expose());
}
