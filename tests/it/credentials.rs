//! Credentials through the binary: the store, renewals by hand and in the gateway, and what is done
//! to credentials after a login (spec cases 18 to 22 and 28 to 33).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use moltbot_lab::{Lab, fingerprint};
use serde_json::{Value, json};

use crate::support::{KEY, KEY2, Sandbox, lab, messages, now, token, until, used};

const HOUR: i64 = 3_600_000;

fn key(key: &str) -> Value {
    json!({ "type": "api_key", "provider": "anthropic", "key": key })
}

/// A sandbox with a login of the lab's in its store, which the lab also renews.
fn with_login(lab: &Lab, remaining: i64) -> Sandbox {
    let issued = lab.issue_login("mia", Duration::from_secs(8 * 3600));
    let sandbox = Sandbox::new();
    sandbox.write_store(&json!({ "version": 1, "profiles": { "anthropic:login": {
        "type": "oauth", "provider": "anthropic", "access": issued.access_token,
        "refresh": issued.refresh_token, "expires": now() + remaining } } }));
    sandbox.use_lab(lab, endpoint(lab));
    sandbox
}

/// The config's entry that says where logins are renewed.
fn endpoint(lab: &Lab) -> Value {
    let url = format!("{}/v1/oauth/token", lab.url());
    json!({ "auth": { "oauth": { "anthropic": { "tokenUrl": url, "clientId": "ours" } } } })
}

/// How often the token endpoint was asked.
fn renewals(lab: &Lab) -> usize {
    lab.log().iter().filter(|entry| entry.path() == "/v1/oauth/token").count()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn case_18_new_stores_and_directories_are_the_owners_alone() {
    let sandbox = Sandbox::new();
    sandbox.run(&["onboard", "--anthropic-api-key", KEY]).exits(0);
    sandbox.run(&["models", "auth", "remove", "anthropic:default"]).exits(0);
    let dir = sandbox.store_path().parent().unwrap().to_path_buf();
    assert_eq!(mode(&dir), 0o700);
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().unwrap().is_file() {
            assert_eq!(mode(&entry.path()), 0o600, "{:?}", entry.path());
            seen += 1;
        }
    }
    assert!(seen >= 3, "store, log and what was removed");
}

/// A wrong mode is tightened by the next write of a secret, which says so once.
#[test]
fn a_mode_that_lets_others_read_is_tightened_with_one_warning() {
    let sandbox = Sandbox::new();
    sandbox.run(&["onboard", "--anthropic-api-key", KEY]).exits(0);
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(sandbox.store_path(), open).unwrap();
    let done = sandbox.run(&["onboard", "--anthropic-api-key", KEY2]).exits(0);
    let said = "could be read by other users; its mode is now 600";
    assert_eq!(done.err.matches(said).count(), 1, "{}", done.err);
    assert_eq!(mode(&sandbox.store_path()), 0o600);
}

#[test]
fn case_19_unknown_types_are_ignored_and_unknown_fields_kept() {
    let sandbox = Sandbox::new();
    let odd = json!({ "type": "passkey", "provider": "anthropic", "x": 1 });
    let mut good = key(KEY);
    good["note"] = json!({ "deep": [1, null] });
    sandbox.write_store(&json!({ "version": 1, "extra": true,
        "profiles": { "anthropic:odd": odd, "anthropic:good": good } }));
    sandbox
        .run(&["models", "auth", "order", "set", "--provider", "anthropic", "anthropic:good"])
        .exits(0);
    let store = sandbox.store();
    assert_eq!(store["profiles"]["anthropic:odd"], odd);
    assert_eq!(store["profiles"]["anthropic:good"], good);
    assert_eq!(store["extra"], true);
    let status = sandbox.run(&["models", "status", "--json"]).exits(0).json();
    assert_eq!(status["auth"]["providers"][0]["profiles"]["count"], 1);
}

#[test]
fn case_20_a_store_that_cannot_be_parsed_is_named_and_left_alone() {
    let sandbox = Sandbox::new();
    sandbox.write(&sandbox.store_path(), "{\"profiles\": {\"a\": ");
    let text = || std::fs::read_to_string(sandbox.store_path()).unwrap();
    let before = text();
    for line in [
        &["models", "status"][..],
        &["agent", "-m", "x"],
        &["onboard", "--anthropic-api-key", KEY],
        &["models", "auth", "refresh"],
        &["models", "auth", "remove", "anthropic:default"],
        &["models", "auth", "undo"],
        &["models", "auth", "rename", "anthropic:a", "anthropic:b"],
        &["models", "auth", "prune", "--yes"],
    ] {
        sandbox.run(line).exits(1).says("auth-profiles.json");
        assert_eq!(text(), before, "{line:?}");
    }
}

#[test]
fn case_21_writers_side_by_side_are_all_counted() {
    // Each of them notes that one model is limited.
    let lab = lab("[{ fault: { error: 39 } }]");
    let sandbox = Sandbox::new();
    sandbox.write_store(&json!({ "version": 1, "profiles": { "anthropic:default": key(KEY) } }));
    sandbox.use_lab(&lab, json!({ "auth": { "maxWaitSeconds": 0 } }));
    // An abandoned lock of the old system; the ages of locks are seen by their modification.
    let old = sandbox.store_path().with_extension("json.lock");
    std::fs::create_dir(&old).unwrap();
    let past = std::time::SystemTime::now() - Duration::from_secs(40);
    std::fs::File::open(&old).unwrap().set_modified(past).unwrap();
    std::thread::scope(|scope| {
        for number in 0..20 {
            let sandbox = &sandbox;
            scope.spawn(move || {
                let model = format!("anthropic/model-{number}@anthropic:default");
                sandbox.run(&["agent", "-m", "x", "--model", &model]).exits(1);
            });
        }
    });
    let stats = sandbox.store()["usageStats"]["anthropic:default"].clone();
    for number in 0..20 {
        let model = &stats["models"][format!("model-{number}")];
        assert!(model["errorCount"].as_i64().unwrap_or(0) > 0, "{number}: {stats}");
    }
}

#[test]
fn case_22_files_of_older_versions_are_taken_over() {
    let sandbox = Sandbox::new();
    let auth = sandbox.state("agents/main/agent/auth.json");
    sandbox.write(&auth, &json!({ "anthropic": { "type": "api_key", "key": KEY } }).to_string());
    let oauth = sandbox.state("credentials/oauth.json");
    let login = json!({ "acme": { "access": "FAKE", "refresh": "FAKE", "expires": 5 } });
    sandbox.write(&oauth, &login.to_string());
    let before = sandbox.snapshot();
    let status = sandbox.run(&["models", "status", "--json"]).exits(0).json();
    assert_eq!(status["auth"]["oauth"]["profiles"].as_array().unwrap().len(), 2);
    assert_eq!(sandbox.snapshot(), before, "reading takes nothing over");
    sandbox.run(&["doctor", "--fix", "--non-interactive"]);
    assert_eq!(sandbox.store()["profiles"]["anthropic:default"]["key"], KEY);
    assert!(!auth.exists() && oauth.exists());
}

/// An owner's file: an access token with a refresh token, which ends in so many milliseconds.
fn write_claude(sandbox: &Sandbox, access: &str, remaining: i64) {
    let login = json!({ "claudeAiOauth": { "accessToken": access,
        "refreshToken": "sk-ant-ort01-FAKEowner", "expiresAt": now() + remaining } });
    sandbox.write(&sandbox.home().join(".claude/.credentials.json"), &login.to_string());
}

/// A store of an older version, with a copy of Claude Code's login.
fn with_copy(remaining: i64) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write_store(&json!({ "version": 1, "profiles": { "anthropic:claude-cli": {
        "type": "oauth", "provider": "anthropic", "access": "sk-ant-oat01-FAKEcopyFAKEcopy",
        "refresh": "sk-ant-ort01-FAKEcopy", "expires": now() + remaining } } }));
    sandbox
}

#[test]
fn case_28_a_copy_becomes_a_link_when_the_owners_login_is_at_least_as_new() {
    let lab = lab("[]");
    // The owner's login is older, has no login at all, or is newer.
    for (owner, linked) in [(Some(-1), false), (None, false), (Some(2 * HOUR), true)] {
        let sandbox = with_copy(HOUR);
        if let Some(remaining) = owner {
            write_claude(&sandbox, &token(), remaining);
        }
        sandbox.use_lab(&lab, json!({}));
        let before = sandbox.store();
        sandbox.run(&["models", "status"]).exits(0);
        assert_eq!(sandbox.store(), before, "status writes nothing");
        sandbox.run(&["agent", "-m", "x"]).exits(0);
        let profile = sandbox.store()["profiles"]["anthropic:claude-cli"].clone();
        assert_eq!(profile["source"] == "claude-cli", linked, "{owner:?}: {profile}");
        let sent = messages(&lab).pop().unwrap();
        let copy = "sk-ant-oat01-FAKEcopyFAKEcopy".to_string();
        assert_eq!(used(&sent), fingerprint(&if linked { token() } else { copy }));
        if linked {
            let text = sandbox.snapshot();
            let holds = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("FAKEcopy");
            assert!(!text.values().any(|bytes| holds(bytes)), "the copy is kept nowhere");
        } else {
            assert_eq!(profile["access"], before["profiles"]["anthropic:claude-cli"]["access"]);
        }
    }
}

#[test]
fn case_29_a_login_made_after_an_earlier_read_is_seen_by_the_same_process() {
    let lab = lab("[]");
    let sandbox = Sandbox::new();
    sandbox.write_store(&json!({ "version": 1, "profiles": { "anthropic:claude-cli": {
        "type": "oauth", "provider": "anthropic", "source": "claude-cli" } } }));
    let token = "mbg_FAKEgatewayTOKENfakeGATEWAYtoken";
    sandbox.use_lab(
        &lab,
        json!({ "gateway": { "mode": "local", "allowSubscription": true,
            "auth": { "mode": "token", "token": token } } }),
    );
    let gate = crate::gateway::Gate::start(&sandbox);
    let hello = json!({ "model": "claude-opus-4-5", "max_tokens": 5,
        "messages": [{ "role": "user", "content": "hi" }] });
    let status = || gate.post("/v1/messages", &hello).status;
    assert_ne!(status(), 200, "there is no login yet");
    for access in ["sk-ant-oat01-FAKEfirst", "sk-ant-oat01-FAKEsecond"] {
        write_claude(&sandbox, access, HOUR);
        until(|| {
            status() == 200
                && messages(&lab).last().is_some_and(|sent| used(sent) == fingerprint(access))
        });
    }
}

#[test]
fn case_30_nobody_is_asked_for_a_token_without_an_endpoint_of_the_users_own() {
    let lab = lab("[]");
    let sandbox = with_login(&lab, -1);
    sandbox.use_lab(&lab, json!({ "models": {} }));
    sandbox
        .run(&["agent", "-m", "x"])
        .exits(1)
        .says("Error: OAuth token refresh failed for anthropic: ")
        .says("auth.oauth.anthropic")
        .says("Please try again or re-authenticate.");
    sandbox
        .run(&["models", "auth", "refresh", "--profile", "anthropic:login"])
        .exits(1)
        .says("OAuth token refresh failed for anthropic: ");
    assert_eq!((renewals(&lab), messages(&lab).len()), (0, 0));
}

#[test]
fn case_31_a_refusal_is_quoted_with_its_status_and_code_and_no_token() {
    let lab = lab("[]");
    let sandbox = with_login(&lab, -1);
    let mut store = sandbox.store();
    let spent = "sk-ant-ort01-FAKEspentFAKEspentFAKE";
    store["profiles"]["anthropic:login"]["refresh"] = spent.into();
    sandbox.write_store(&store);
    let before = sandbox.store();
    for line in [
        &["agent", "-m", "x"][..],
        &["models", "auth", "refresh", "--force"],
        &["models", "auth", "refresh", "--force", "--json"],
    ] {
        let done = sandbox.run(line).exits(1);
        let said = format!("{}{}", done.out, done.err);
        assert!(said.contains("OAuth token refresh failed for anthropic: "), "{said}");
        assert!(said.contains("HTTP 400 invalid_grant"), "{said}");
        assert!(!said.contains("FAKEspent") && !said.contains("sk-ant-oat01-LAB"), "{said}");
    }
    assert_eq!(sandbox.store()["profiles"], before["profiles"], "a failure changes no login");
    let log = sandbox.run(&["models", "auth", "log"]).exits(0).out;
    assert!(log.contains("anthropic:login refused by the service"), "{log}");
}

#[test]
fn case_32_processes_that_renew_at_once_ask_once() {
    let lab = lab("[{ match: { path: '/v1/oauth/token' }, fault: { delayMs: 500 } }]");
    let sandbox = with_login(&lab, -1);
    let old = sandbox.store()["profiles"]["anthropic:login"].clone();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| sandbox.run(&["agent", "-m", "x"]).exits(0));
            scope.spawn(|| sandbox.run(&["models", "auth", "refresh"]).exits(0));
        }
    });
    assert_eq!(renewals(&lab), 1);
    let new = sandbox.store()["profiles"]["anthropic:login"].clone();
    assert!(new["refresh"] != old["refresh"] && new["expires"].as_i64().unwrap() > now(), "{new}");
    let sent: Vec<_> = messages(&lab).iter().map(|entry| used(entry).to_string()).collect();
    let fresh = fingerprint(new["access"].as_str().unwrap());
    assert_eq!(sent, [fresh.clone(), fresh]);
}

#[test]
fn case_33_the_key_behind_a_failed_login_is_used_and_the_login_named() {
    let lab = lab("[{ match: { path: '/v1/oauth/token' }, fault: { error: 49 } }]");
    let sandbox = with_login(&lab, -1);
    let mut store = sandbox.store();
    store["profiles"]["anthropic:default"] = key(KEY);
    sandbox.write_store(&store);
    sandbox.run(&["agent", "-m", "x"]).exits(0).says("anthropic:login").says("HTTP 500");
    assert_eq!(used(&messages(&lab)[0]), fingerprint(KEY));
    // A failure is followed by a minute in which nobody asks again.
    sandbox.run(&["agent", "-m", "x"]).exits(0).says("will be asked again in");
    assert_eq!(renewals(&lab), 1);
}

#[test]
fn a_login_is_renewed_by_hand() {
    let lab = lab("[]");
    let sandbox = with_login(&lab, HOUR);
    let line = ["models", "auth", "refresh", "--profile", "anthropic:login", "--json"];
    let done = sandbox.run(&line).exits(0).json();
    assert_eq!((&done["profiles"][0]["result"], renewals(&lab)), (&json!("notDue"), 0));
    let done = sandbox.run(&["models", "auth", "refresh", "--force"]).exits(0).out;
    assert!(done.starts_with("anthropic:login was renewed, good for "), "{done}");
    assert_eq!(renewals(&lab), 1);
    let log = sandbox.run(&["models", "auth", "log", "--profile", "anthropic:login"]).exits(0).out;
    assert!(log.contains("renewed") && log.contains("models auth refresh"), "{log}");
    // A renewal is no act of the user's: there is nothing to take back.
    sandbox.run(&["models", "auth", "undo"]).exits(1).says("There is no change to undo");
}

#[test]
fn a_login_says_what_is_used_next_and_why() {
    let sandbox = Sandbox::new();
    let next = "Next request: anthropic/claude-opus-4-5 with profile:";
    sandbox
        .run(&["onboard", "--anthropic-api-key", KEY])
        .exits(0)
        .says(&format!("{next}anthropic:default, the only one that can be used"));
    let paste = ["models", "auth", "paste-token", "--provider", "anthropic"];
    sandbox
        .run_with_input(&paste, &token())
        .exits(0)
        .says(&format!("{next}anthropic:manual, the first of 2 in the order"));
    sandbox
        .run(&["onboard", "--anthropic-api-key", KEY2])
        .exits(0)
        .says(&format!("{next}anthropic:manual; profile:anthropic:default comes after it"));
}

#[test]
fn the_gateway_renews_before_anybody_has_to_wait() {
    let lab = lab("[]");
    let sandbox = with_login(&lab, 4 * 60_000);
    let old = sandbox.store()["profiles"]["anthropic:login"]["refresh"].clone();
    gateway_config(&sandbox, &lab);
    let gate = crate::gateway::Gate::start(&sandbox);
    until(|| sandbox.store()["profiles"]["anthropic:login"]["refresh"] != old);
    assert_eq!(renewals(&lab), 1);
    drop(gate);
}

#[test]
fn a_login_that_cannot_be_renewed_early_is_not_asked_for_again_and_again() {
    let lab = lab("[{ match: { path: '/v1/oauth/token' }, fault: { error: 49 } }]");
    let sandbox = with_login(&lab, 4 * 60_000);
    gateway_config(&sandbox, &lab);
    let before = sandbox.store();
    let gate = crate::gateway::Gate::start(&sandbox);
    until(|| renewals(&lab) == 1);
    // Requests that come meanwhile use the login that still works, and ask for no other.
    let hello = json!({ "model": "claude-opus-4-5", "max_tokens": 5,
        "messages": [{ "role": "user", "content": "hi" }] });
    for _ in 0..20 {
        assert_eq!(gate.post("/v1/messages", &hello).status, 200);
    }
    assert_eq!(renewals(&lab), 1);
    assert_eq!(sandbox.store()["profiles"], before["profiles"]);
}

fn gateway_config(sandbox: &Sandbox, lab: &Lab) {
    let mut config = endpoint(lab);
    let token = "mbg_FAKEgatewayTOKENfakeGATEWAYtoken";
    config["gateway"] = json!({ "mode": "local", "allowSubscription": true,
        "auth": { "mode": "token", "token": token } });
    sandbox.use_lab(lab, config);
}

/// What stands in the store while the gateway runs is merged with what the gateway knows.
#[test]
fn edits_by_hand_and_the_gateways_counters_are_both_kept() {
    let lab = lab("[]");
    let sandbox = Sandbox::new();
    sandbox.write_store(&json!({ "version": 1, "profiles": { "anthropic:default": key(KEY) } }));
    gateway_config(&sandbox, &lab);
    let gate = crate::gateway::Gate::start(&sandbox);
    let hello = json!({ "model": "claude-opus-4-5", "max_tokens": 5,
        "messages": [{ "role": "user", "content": "hi" }] });
    let ask = || assert_eq!(gate.post("/v1/messages", &hello).status, 200);
    ask();
    let last_used = || sandbox.store()["usageStats"]["anthropic:default"]["lastUsed"].clone();
    until(|| last_used().is_number());
    // By hand, without any lock: another key, and a note.
    let mut store = sandbox.store();
    store["profiles"]["anthropic:default"]["key"] = KEY2.into();
    store["profiles"]["anthropic:default"]["note"] = "mine".into();
    sandbox.write_store(&store);
    let before = last_used();
    until(|| {
        ask();
        messages(&lab).last().is_some_and(|sent| used(sent) == fingerprint(KEY2))
    });
    until(|| last_used().as_i64() > before.as_i64());
    let profile = &sandbox.store()["profiles"]["anthropic:default"];
    assert_eq!((&profile["key"], &profile["note"]), (&json!(KEY2), &json!("mine")));
}

/// A hot loop of requests does not rewrite the file with the secrets in it all the time: once a
/// second, for all that came together.
#[test]
fn the_gateway_writes_counters_in_groups() {
    use std::os::unix::fs::MetadataExt;
    let lab = lab("[]");
    let sandbox = Sandbox::new();
    sandbox.write_store(&json!({ "version": 1, "profiles": { "anthropic:default": key(KEY) } }));
    gateway_config(&sandbox, &lab);
    let gate = crate::gateway::Gate::start(&sandbox);
    let hello = json!({ "model": "claude-opus-4-5", "max_tokens": 5,
        "messages": [{ "role": "user", "content": "hi" }] });
    let start = std::time::Instant::now();
    let file = || std::fs::metadata(sandbox.store_path()).unwrap();
    // A write is another file in the same place.
    let mut last = file().ino();
    let mut writes = 0;
    for _ in 0..150 {
        assert_eq!(gate.post("/v1/messages", &hello).status, 200);
        let now = file().ino();
        writes += u64::from(now != last);
        last = now;
    }
    let seconds = start.elapsed().as_secs();
    assert!(writes <= seconds + 2, "{writes} writes in {seconds} s");
    let asked = now();
    assert_eq!(gate.post("/v1/messages", &hello).status, 200);
    let last_used = || sandbox.store()["usageStats"]["anthropic:default"]["lastUsed"].as_i64();
    until(|| last_used().is_some_and(|at| at >= asked));
}

/// A rest of more than a minute is in the store although the gateway dies at once; what was
/// counted is in the store when it ends as it should.
#[test]
fn a_long_rest_survives_the_gateways_death_and_counters_its_end() {
    let lab = lab("[{ match: { request: 1 }, fault: { error: 1 } }]");
    let sandbox = Sandbox::new();
    sandbox.write_store(&json!({ "version": 1,
        "profiles": { "anthropic:a": key(KEY), "anthropic:b": key(KEY2) },
        "order": { "anthropic": ["anthropic:a", "anthropic:b"] } }));
    gateway_config(&sandbox, &lab);
    let mut gate = crate::gateway::Gate::start(&sandbox);
    let hello = json!({ "model": "claude-opus-4-5", "max_tokens": 5,
        "messages": [{ "role": "user", "content": "hi" }] });
    assert_eq!(gate.post("/v1/messages", &hello).status, 200, "the other account answers");
    let stats = |id: &str| sandbox.store()["usageStats"][id].clone();
    until(|| stats("anthropic:a")["disabledUntil"].as_i64().is_some_and(|at| at > now()));
    gate.signal(rustix::process::Signal::KILL);
    gate.wait();
    assert!(stats("anthropic:a")["disabledUntil"].as_i64().unwrap() > now());
    let mut gate = crate::gateway::Gate::start(&sandbox);
    assert_eq!(gate.post("/v1/messages", &hello).status, 200);
    let at = now();
    gate.signal(rustix::process::Signal::TERM);
    gate.wait();
    let last = stats("anthropic:b")["lastUsed"].as_i64().unwrap();
    assert!(last > at - 30_000, "what was counted is written at the end");
}

/// Who waits for a lock in vain is told which file it is, by whom it is held and for how long.
#[test]
fn a_lock_that_is_held_is_named_with_its_holder() {
    let sandbox = Sandbox::new();
    sandbox.run(&["onboard", "--anthropic-api-key", KEY]).exits(0);
    let path = sandbox.store_path().with_file_name("auth-profiles.json.moltbot-lock");
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.lock().unwrap();
    std::fs::write(&path, format!("{} {}\n", std::process::id(), now() - 5_000)).unwrap();
    let before = sandbox.store();
    let done = sandbox.run(&["models", "auth", "remove", "anthropic:default"]).exits(1);
    let holder = format!("has been held by process {} for ", std::process::id());
    for part in [path.to_str().unwrap(), &holder, " and was not free within 10 s"] {
        assert!(done.err.contains(part), "{part}: {}", done.err);
    }
    assert_eq!(sandbox.store(), before);
    drop(file);
    sandbox.run(&["models", "auth", "remove", "anthropic:default"]).exits(0);
}
