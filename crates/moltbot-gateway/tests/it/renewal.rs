//! That a login is renewed once whoever asks, and that no answer of the token endpoint is lost.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use moltbot_config::Env;
use moltbot_core::{Credential, CredentialKind, Generation, RenewReply, Secret, Timestamp};
use moltbot_gateway::*;
use moltbot_profiles::{
    ChangeKind, FileHook, FileStore, Go, JournalHead, JournalState, Profiles, STORE_FILE, Step,
    Store,
};
use serde_json::json;

use crate::stage::*;

const ID: &str = "anthropic:house";

/// A stage with one login, which ends in so many milliseconds.
fn stage(plan: &str, remaining: i64) -> (Stage, Credential) {
    let mut stage = Stage::new(plan);
    let issued = stage.lab.issue_login("mia", Duration::from_secs(8 * 3600));
    let mut login = Credential::new(CredentialKind::Oauth, "anthropic");
    login.access = Some(Secret::new(issued.access_token));
    login.refresh = Some(Secret::new(issued.refresh_token));
    login.expires = Some(stage.clock.now().plus(remaining));
    login.method = Some("house".into());
    stage.config = endpoint(&stage.lab.url());
    (stage.with(ID, login.clone()), login)
}

fn endpoint(lab: &str) -> serde_json::Value {
    let url = format!("{lab}/v1/oauth/token");
    json!({"auth": {"oauth": {"anthropic": {"tokenUrl": url, "clientId": "ours"}}}})
}

fn asked(stage: &Stage) -> usize {
    stage.lab.log().iter().filter(|entry| entry.path() == "/v1/oauth/token").count()
}

fn engine_on(
    dir: &Path,
    config_value: serde_json::Value,
    now: Timestamp,
    store: FileStore,
) -> Engine {
    Engine::new(EngineParts {
        registry: registry(),
        config: Arc::new(config(config_value)),
        env: Env::new(Vec::<(String, String)>::new()),
        home: Some(dir.to_path_buf()),
        agent: AgentPaths {
            id: "main".into(),
            store: dir.join(STORE_FILE),
            sessions: dir.join("sessions"),
            dir: dir.to_path_buf(),
        },
        store: Arc::new(store),
        front: Arc::new(Silent),
        clock: Arc::new(TestClock::at(now)),
        lab_base_url: None,
        limits: Limits::default(),
    })
}

fn refresh_on(stage: &Stage, store: FileStore) -> Result<Refreshed, ChatError> {
    let engine = engine_on(stage.dir.path(), stage.config.clone(), stage.clock.now(), store);
    block_on(engine.refresh(ID, false))
}

fn refresh_token(profiles: &Profiles) -> String {
    profiles.get(ID).unwrap().refresh.as_ref().unwrap().expose().to_string()
}

/// Fails the steps that `chosen` picks.
struct Faulty<F>(F, io::ErrorKind);

impl<F: Fn(&Step<'_>) -> bool + Send + Sync> FileHook for Faulty<F> {
    fn before(&self, step: &Step<'_>) -> io::Result<Go> {
        match (self.0)(step) {
            true => Err(self.1.into()),
            false => Ok(Go::On),
        }
    }
}

fn faulty(
    stage: &Stage,
    kind: io::ErrorKind,
    chosen: impl Fn(&Step<'_>) -> bool + Send + Sync + 'static,
) -> FileStore {
    stage.store().hook(Arc::new(Faulty(chosen, kind)))
}

fn is_journal(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.contains(".renewal-") && !name.ends_with("lock") && !name.contains("failed")
}

fn is_store(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == STORE_FILE)
}

/// Not a test of its own: one of the processes of the next test.
#[test]
fn child() {
    let Ok(dir) = std::env::var("RENEWAL_CHILD_DIR") else { return };
    let dir = PathBuf::from(dir);
    let lab = std::env::var("RENEWAL_CHILD_LAB").unwrap();
    let now: i64 = std::env::var("RENEWAL_CHILD_NOW").unwrap().parse().unwrap();
    let mut store = FileStore::new(dir.join(STORE_FILE)).timeout(Duration::from_secs(60));
    if std::env::var_os("RENEWAL_CHILD_NO_LOCK").is_some() {
        store = store.hook(Arc::new(NoLocks));
    }
    let engine = engine_on(&dir, endpoint(&lab), Timestamp::from_millis(now), store);
    let tasks = block_on(async {
        let engine = Arc::new(engine);
        let tasks: Vec<_> = (0..25)
            .map(|_| {
                let engine = engine.clone();
                tokio::spawn(async move { engine.refresh(ID, false).await })
            })
            .collect();
        let mut done = Vec::new();
        for task in tasks {
            done.push(task.await.unwrap());
        }
        done
    });
    let failed: Vec<_> = tasks.iter().filter_map(|task| task.as_ref().err()).collect();
    assert!(failed.is_empty() || std::env::var_os("RENEWAL_CHILD_NO_LOCK").is_some(), "{failed:?}");
}

/// The broken variant: locks are claimed, not taken.
struct NoLocks;

impl FileHook for NoLocks {
    fn before(&self, step: &Step<'_>) -> io::Result<Go> {
        Ok(if matches!(step, Step::Lock { .. }) { Go::Skip } else { Go::On })
    }
}

fn processes(count: usize, locks: bool) -> (usize, Stage, Credential) {
    let plan = "{rules: [{match: {path: '/v1/oauth/token'}, fault: {delayMs: 300}}]}";
    let (stage, old) = stage(plan, -1);
    let children: Vec<_> = (0..count)
        .map(|_| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "renewal::child"]).stdout(Stdio::null());
            command.env("RENEWAL_CHILD_DIR", stage.dir.path());
            command.env("RENEWAL_CHILD_LAB", stage.lab.url());
            command.env("RENEWAL_CHILD_NOW", stage.clock.now().millis().to_string());
            if !locks {
                command.env("RENEWAL_CHILD_NO_LOCK", "1").stderr(Stdio::null());
            }
            command.spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    (asked(&stage), stage, old)
}

#[test]
fn sixteen_processes_of_many_tasks_renew_once() {
    let (requests, stage, old) = processes(16, true);
    assert_eq!(requests, 1);
    assert_ne!(Some(refresh_token(&stage.profiles())), old.refresh.map(|s| s.expose().to_string()));
}

#[test]
fn without_locks_that_would_not_hold() {
    assert!(processes(6, false).0 > 1, "the test above would not notice a missing lock");
}

#[test]
fn an_answer_that_was_kept_is_adopted_without_asking_again() {
    let (stage, old) = stage("{}", -1);
    let full = faulty(
        &stage,
        io::ErrorKind::StorageFull,
        |step| matches!(step, Step::Rename { to, .. } if is_store(to)),
    );
    let before = std::fs::read(stage.store().path()).unwrap();
    let error = refresh_on(&stage, full).unwrap_err();
    assert_eq!(error.code, "store-unwritable");
    assert!(error.message.contains("no space is left"), "{}", error.message);
    assert_eq!(std::fs::read(stage.store().path()).unwrap(), before, "the store is as it was");
    let pending = stage.store().inspect().unwrap().renewals;
    assert_eq!((pending[0].profile.as_deref(), pending[0].answered), (Some(ID), true));
    assert_eq!(asked(&stage), 1);

    let done = refresh_on(&stage, stage.store()).unwrap();
    assert!(matches!(done, Refreshed::Renewed { .. }), "{done:?}");
    assert_eq!(asked(&stage), 1, "the answer was there");
    assert_ne!(stage.profiles().get(ID).unwrap().refresh, old.refresh);
    assert!(stage.store().inspect().unwrap().renewals.is_empty());
    let changes = stage.store().changes_blocking().unwrap();
    assert_eq!(changes.last().unwrap().kind, ChangeKind::Renewed);
}

#[test]
fn what_could_not_be_kept_is_not_asked_for() {
    type Chosen = fn(&Step<'_>) -> bool;
    let steps: [(&str, Chosen); 5] = [
        ("create", |step| matches!(step, Step::Create { path } if is_journal(path))),
        ("reserve", |step| matches!(step, Step::Reserve { path, .. } if is_journal(path))),
        ("write", |step| matches!(step, Step::Write { path, .. } if is_journal(path))),
        ("sync", |step| matches!(step, Step::Sync { path } if is_journal(path))),
        ("sync names", |step| matches!(step, Step::SyncDirectory { .. })),
    ];
    let (stage, old) = stage("{}", -1);
    let before = std::fs::read(stage.store().path()).unwrap();
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other, io::ErrorKind::QuotaExceeded] {
        for (name, chosen) in steps {
            let error = refresh_on(&stage, faulty(&stage, kind, chosen)).unwrap_err();
            assert_eq!(error.code, "store-unwritable", "{name}");
            assert!(error.message.contains("was not sent"), "{name}: {}", error.message);
            assert_eq!(std::fs::read(stage.store().path()).unwrap(), before, "{name}");
            assert_eq!(asked(&stage), 0, "{name}");
        }
    }
    refresh_on(&stage, stage.store()).unwrap();
    assert_ne!(stage.profiles().get(ID).unwrap().refresh, old.refresh);
}

#[test]
fn an_answer_is_stored_even_if_it_cannot_be_journaled() {
    let (stage, old) = stage("{}", -1);
    let broken = faulty(
        &stage,
        io::ErrorKind::Other,
        |step| matches!(step, Step::Write { path, offset, .. } if is_journal(path) && *offset > 0),
    );
    refresh_on(&stage, broken).unwrap();
    assert_ne!(stage.profiles().get(ID).unwrap().refresh, old.refresh);
    assert!(stage.store().inspect().unwrap().renewals.is_empty());
}

fn head(stage: &Stage, login: &Credential) -> JournalHead {
    JournalHead {
        profile: ID.into(),
        method: "house".into(),
        method_version: "0".into(),
        generation: Generation::of(login),
        opened_at: stage.clock.now(),
        retry: false,
    }
}

/// Leaves what a process leaves that is killed in the middle of a renewal.
fn interrupted(stage: &Stage, head: &JournalHead, reply: Option<&RenewReply>) {
    block_on(async {
        let now = stage.clock.now();
        let mut lease = stage.store().lease(ID, None, now).await.unwrap();
        lease.open(head).await.unwrap();
        if let Some(reply) = reply {
            lease.keep(reply, now).await.unwrap();
        }
    });
}

#[test]
fn after_a_lost_answer_the_old_token_is_tried_once_more() {
    let lost = "{rules: [{match: {path: '/v1/oauth/token'}, fault: {reset: 'headers'}, times: 1}],\
                tokens: {rotation: 'repeat'}}";
    let (stage, old) = stage(lost, -1);
    let error = refresh_on(&stage, stage.store()).unwrap_err();
    assert_eq!(error.code, "refresh-failed");
    assert_eq!(stage.profiles().get(ID).unwrap().refresh, old.refresh, "never erased first");
    assert!(!stage.store().inspect().unwrap().renewals[0].answered);
    stage.clock.advance(61_000);
    refresh_on(&stage, stage.store()).unwrap();
    assert_eq!(asked(&stage), 2);
    assert_ne!(stage.profiles().get(ID).unwrap().refresh, old.refresh);
}

#[test]
fn a_strict_service_is_quoted_with_the_true_reason() {
    let strict =
        "{rules: [{match: {path: '/v1/oauth/token'}, fault: {reset: 'headers'}, times: 1}]}";
    let (stage, _) = stage(strict, -1);
    refresh_on(&stage, stage.store()).unwrap_err();
    stage.clock.advance(61_000);
    let error = refresh_on(&stage, stage.store()).unwrap_err();
    assert_eq!(error.code, "login-needed");
    let start = "OAuth token refresh failed for anthropic: HTTP 400 invalid_grant (the refresh \
                 token may be spent by the interrupted renewal)";
    assert!(error.message.starts_with(start), "{}", error.message);
    assert!(stage.store().inspect().unwrap().renewals.is_empty());
    let changes = stage.store().changes_blocking().unwrap();
    assert_eq!(changes.last().unwrap().kind, ChangeKind::Spent);
}

#[test]
fn a_journal_of_another_login_is_discarded() {
    let (stage, mut old) = stage("{}", -1);
    let current = refresh_token(&stage.profiles());
    old.refresh = Some(Secret::new("sk-ant-ort01-FAKEearlier"));
    let body = json!({"access_token": "FAKEx", "refresh_token": "FAKEy", "expires_in": 9_999_999});
    let reply = RenewReply { status: 200, body: Secret::new(body.to_string()) };
    interrupted(&stage, &head(&stage, &old), Some(&reply));
    refresh_on(&stage, stage.store()).unwrap();
    assert_eq!(asked(&stage), 1, "it was asked, with the token that is stored");
    let kept = refresh_token(&stage.profiles());
    assert!(kept != "FAKEy" && kept != current);
}

#[test]
fn a_kept_refusal_is_recorded_and_a_kept_hiccup_forgotten() {
    let (stage, old) = stage("{}", -1);
    let again = RenewReply { status: 400, body: Secret::new(r#"{"error": "invalid_grant"}"#) };
    interrupted(&stage, &head(&stage, &old), Some(&again));
    let error = refresh_on(&stage, stage.store()).unwrap_err();
    assert_eq!((error.code.as_ref(), asked(&stage)), ("login-needed", 0));
    assert!(stage.store().inspect().unwrap().renewals.is_empty());
    assert_eq!(stage.store().changes_blocking().unwrap().last().unwrap().kind, ChangeKind::Spent);

    let foreign = JournalHead { method: "other".into(), ..head(&stage, &old) };
    interrupted(&stage, &foreign, Some(&again));
    let error = refresh_on(&stage, stage.store()).unwrap_err();
    assert!(error.message.contains("without the method other"), "{}", error.message);
    assert!(!stage.store().inspect().unwrap().renewals.is_empty(), "it may hold the only token");
}

#[test]
fn a_failure_is_followed_by_a_minute_of_rest_in_every_process() {
    let down = "{rules: [{match: {path: '/v1/oauth/token'}, fault: {reset: 'request'}}]}";
    let (stage, _) = stage(down, -1);
    let first = refresh_on(&stage, stage.store()).unwrap_err();
    for _ in 0..3 {
        let next = refresh_on(&stage, stage.store()).unwrap_err();
        assert_eq!(next.code, first.code);
    }
    assert_eq!(asked(&stage), 1);
    stage.clock.advance(59_000);
    refresh_on(&stage, stage.store()).unwrap_err();
    assert_eq!(asked(&stage), 1);
    stage.clock.advance(1_000);
    refresh_on(&stage, stage.store()).unwrap_err();
    assert_eq!(asked(&stage), 2);
    stage.clock.set(stage.clock.now().plus(-3_600_000));
    // The login has not expired yet at that time; a person may ask nevertheless.
    let engine =
        engine_on(stage.dir.path(), stage.config.clone(), stage.clock.now(), stage.store());
    block_on(engine.refresh(ID, true)).unwrap_err();
    assert_eq!(asked(&stage), 3);
}

#[test]
fn who_waits_too_long_for_the_lease_is_told_by_whom() {
    let (stage, _) = stage("{}", -1);
    let before = std::fs::read(stage.store().path()).unwrap();
    let held = block_on(stage.store().lease(ID, None, stage.clock.now().plus(-5_000))).unwrap();
    let hasty = stage.store().lease_timeout(Duration::from_millis(50));
    let error = refresh_on(&stage, hasty.clone()).unwrap_err();
    assert_eq!(error.code, "store-locked");
    let holder = format!("has been held by process {} for 5 s", std::process::id());
    assert!(error.message.contains(&holder), "{}", error.message);
    assert!(
        error.message.contains(&format!("the login {ID} is being renewed")),
        "{}",
        error.message
    );
    assert_eq!((asked(&stage), std::fs::read(stage.store().path()).unwrap()), (0, before));
    drop(held);
    refresh_on(&stage, hasty).unwrap();
}

#[test]
fn a_holder_that_thaws_late_does_not_overwrite_a_newer_login() {
    let (stage, _) = stage("{}", -1);
    // While the answer is under way, a person logs in anew.
    let newer = stage.lab.issue_login("zoe", Duration::from_secs(3600));
    let mut login = Credential::new(CredentialKind::Oauth, "anthropic");
    login.access = Some(Secret::new(newer.access_token));
    login.refresh = Some(Secret::new(newer.refresh_token));
    login.expires = Some(stage.clock.now().plus(3_600_000));
    login.method = Some("house".into());
    let (plain, done) = (stage.store(), AtomicBool::new(false));
    let now = stage.clock.now();
    let newest = login.clone();
    let login = Mutex::new(Some(login));
    let meanwhile = faulty(&stage, io::ErrorKind::Other, move |step| {
        let answer =
            matches!(step, Step::Write { path, offset, .. } if is_journal(path) && *offset > 0);
        if answer && !done.swap(true, Ordering::SeqCst) {
            let login = login.lock().unwrap().take().unwrap();
            plain.update_blocking(now, |profiles| profiles.insert(ID, login)).unwrap();
        }
        false
    });
    let result = refresh_on(&stage, meanwhile).unwrap();
    assert!(matches!(result, Refreshed::Adopted { .. }), "{result:?}");
    assert_eq!(stage.profiles().get(ID).unwrap().refresh, newest.refresh);
    assert!(stage.store().inspect().unwrap().renewals.is_empty());
}

/// A file that disappears is no decision against a login: its newest copy is written anew.
#[test]
fn a_store_that_disappears_during_a_renewal_does_not_take_the_login_along() {
    let (stage, old) = stage("{}", -1);
    let (path, done) = (stage.store().path().to_path_buf(), AtomicBool::new(false));
    let meanwhile = faulty(&stage, io::ErrorKind::Other, move |step| {
        let answer =
            matches!(step, Step::Write { path, offset, .. } if is_journal(path) && *offset > 0);
        if answer && !done.swap(true, Ordering::SeqCst) {
            std::fs::remove_file(&path).unwrap();
        }
        false
    });
    let result = refresh_on(&stage, meanwhile).unwrap();
    assert!(matches!(result, Refreshed::Renewed { .. }), "{result:?}");
    let kept = stage.profiles().get(ID).unwrap().clone();
    assert!(kept.refresh.is_some() && kept.refresh != old.refresh);
    assert!(stage.store().inspect().unwrap().renewals.is_empty());

    // One that was removed on purpose stays removed.
    let (stage, _) = self::stage("{}", -1);
    let (plain, done) = (stage.store(), AtomicBool::new(false));
    let now = stage.clock.now();
    let meanwhile = faulty(&stage, io::ErrorKind::Other, move |step| {
        let answer =
            matches!(step, Step::Write { path, offset, .. } if is_journal(path) && *offset > 0);
        if answer && !done.swap(true, Ordering::SeqCst) {
            plain.update_blocking(now, |profiles| profiles.remove(ID)).unwrap();
        }
        false
    });
    refresh_on(&stage, meanwhile).unwrap_err();
    assert!(stage.profiles().get(ID).is_none());
}

#[test]
fn logins_that_end_soon_are_renewed_early_and_others_not() {
    let (near, _) = stage("{}", 4 * 60_000);
    let done = block_on(near.engine().renew_early());
    assert!(matches!(done[..], [(_, Ok(Refreshed::Renewed { .. }))]), "{done:?}");
    assert_eq!(asked(&near), 1);
    assert!(block_on(near.engine().renew_early()).is_empty());
    let (far, _) = stage("{}", 7 * 60_000);
    assert!(block_on(far.engine().renew_early()).is_empty());
    assert_eq!(asked(&far), 0);
}

#[test]
fn who_shares_an_owners_file_waits_for_one_owner() {
    // Two agents with a store each, one file of the owner.
    let link = || {
        let mut link = Credential::link(CredentialKind::Oauth, "anthropic", "owner");
        link.method = Some("link".into());
        link
    };
    let stage = Stage::new("{}").with("anthropic:link", link());
    let other = stage.dir.path().join("other");
    FileStore::new(other.join(STORE_FILE))
        .update_blocking(stage.clock.now(), |profiles| profiles.insert("anthropic:link", link()))
        .unwrap();
    let past = stage.clock.now().plus(-1).millis();
    let file = stage.write(".owner/login", &format!("sk-ant-oat01-FAKEold {past}"));
    let count = stage.dir.path().join("count");
    let script = format!(
        "#!/bin/sh\necho run >> {}\nsleep 0.3\necho {TOKEN} > {}\n",
        count.display(),
        file.display()
    );
    let owner = stage.write("bin/owner", &script);
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(owner, std::fs::Permissions::from_mode(0o755)).unwrap();
    let bin = stage.dir.path().join("bin");
    let engine = |store: PathBuf| {
        Engine::new(EngineParts {
            registry: registry(),
            config: Arc::new(config(json!({}))),
            env: Env::new(vec![("PATH", format!("{}:/usr/bin:/bin", bin.display()))]),
            home: Some(stage.dir.path().to_path_buf()),
            agent: AgentPaths {
                id: "main".into(),
                sessions: store.with_file_name("sessions"),
                dir: store.with_file_name(""),
                store: store.clone(),
            },
            store: Arc::new(FileStore::new(store)),
            front: Arc::new(Silent),
            clock: stage.clock.clone(),
            lab_base_url: None,
            limits: Limits::default(),
        })
    };
    let (one, two) = (engine(stage.store().path().into()), engine(other.join(STORE_FILE)));
    let start = Instant::now();
    let (a, b) = block_on(async {
        tokio::join!(one.refresh("anthropic:link", false), two.refresh("anthropic:link", false))
    });
    assert!(matches!(a, Ok(Refreshed::Renewed { .. } | Refreshed::Adopted { .. })), "{a:?}");
    assert!(matches!(b, Ok(Refreshed::Renewed { .. } | Refreshed::Adopted { .. })), "{b:?}");
    assert_eq!(std::fs::read_to_string(count).unwrap(), "run\n", "{:?}", start.elapsed());
    let names: Vec<_> = std::fs::read_dir(stage.dir.path().join(".owner"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["login"], "nothing of ours lies among the owner's files");
    assert_eq!(
        block_on(async {
            let lease = stage.store().lease("anthropic:link", Some(&file), stage.clock.now()).await;
            lease.unwrap().journal().await.unwrap()
        }),
        JournalState::None
    );
}
