//! `moltbot doctor` on credentials, through the binary: each trouble named without `--fix` and with
//! nothing changed, then repaired headless, with exit code 1 as long as something remains.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{KEY, KEY2, Sandbox, lab, now, token};

fn key(key: &str) -> Value {
    json!({ "type": "api_key", "provider": "anthropic", "key": key })
}

fn with(profiles: Value) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write_store(&json!({ "version": 1, "profiles": profiles }));
    let dir = sandbox.store_path().parent().unwrap().to_path_buf();
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    sandbox
}

/// Checks that the doctor names `said` and changes nothing, then that it repairs it headless, and
/// that it has nothing to say afterwards.
#[track_caller]
fn mends(sandbox: &Sandbox, said: &str) {
    let before = sandbox.snapshot();
    let named = sandbox.run(&["doctor", "--non-interactive"]).exits(1).out;
    assert!(named.contains(said) && named.contains("--fix repairs it"), "{named}");
    assert_eq!(sandbox.snapshot(), before, "looking changes nothing");
    let fixed = sandbox.run(&["doctor", "--fix", "--non-interactive"]).exits(0).out;
    assert!(fixed.contains("repaired: "), "{fixed}");
    let after = sandbox.run(&["doctor", "--non-interactive"]).exits(0).out;
    assert!(!after.contains(said), "{after}");
}

/// Checks that the doctor names `said`, cannot repair it, and says so by its exit code.
#[track_caller]
fn remains(sandbox: &Sandbox, said: &str) {
    let before = sandbox.store();
    for line in [&["doctor", "--non-interactive"][..], &["doctor", "--fix", "--non-interactive"]] {
        let out = sandbox.run(line).exits(1).out;
        assert!(out.contains(said) && out.contains("remain"), "{out}");
    }
    assert_eq!(sandbox.store()["profiles"], before["profiles"]);
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn wrong_modes() {
    let sandbox = with(json!({ "anthropic:default": key(KEY) }));
    sandbox.run(&["models", "auth", "rename", "anthropic:default", "anthropic:work"]).exits(0);
    let log = sandbox.store_path().with_file_name("auth-profiles.json.changes.jsonl");
    let side = if log.exists() { log } else { sandbox.store_path() };
    for path in [&sandbox.store_path(), &side] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    mends(&sandbox, "is open to others (mode 644)");
    assert_eq!((mode(&sandbox.store_path()), mode(&side)), (0o600, 0o600));
}

#[test]
fn orphan_temporary_files() {
    let sandbox = with(json!({ "anthropic:default": key(KEY) }));
    let orphan = sandbox.store_path().with_file_name(".auth-profiles.json.99-0.tmp");
    sandbox.write(&orphan, &format!("{{\"half\": \"{KEY}"));
    mends(&sandbox, "was left by a writer that was killed");
    assert!(!orphan.exists());
}

/// A renewal is killed while it waits for its answer: the journal tells, and the doctor finishes it.
#[test]
fn an_unfinished_journal() {
    let plan = "{ tokens: { rotation: 'repeat' }, rules: [
        { match: { path: '/v1/oauth/token' }, times: 1, fault: { delayMs: 60000 } }] }";
    let lab = lab(plan);
    let issued = lab.issue_login("mia", Duration::from_secs(8 * 3600));
    let login = json!({ "type": "oauth", "provider": "anthropic", "access": issued.access_token,
        "refresh": issued.refresh_token, "expires": now() - 1 });
    let sandbox = with(json!({ "anthropic:login": login }));
    let url = format!("{}/v1/oauth/token", lab.url());
    sandbox.use_lab(
        &lab,
        json!({ "auth": { "oauth": { "anthropic": { "tokenUrl": url, "clientId": "ours" } } } }),
    );
    let mut child = sandbox.command(&["models", "auth", "refresh"]).spawn().unwrap();
    crate::support::until(|| lab.log().iter().any(|entry| entry.path() == "/v1/oauth/token"));
    child.kill().unwrap();
    child.wait().unwrap();
    let said = "the renewal of anthropic:login was interrupted";
    let out = sandbox.run(&["doctor", "--non-interactive"]).exits(1).out;
    assert!(out.contains(said), "{out}");
    let out = sandbox.run(&["doctor", "--fix", "--non-interactive"]).exits(0).out;
    assert!(out.contains("repaired: finished the renewal of anthropic:login"), "{out}");
    let profile = &sandbox.store()["profiles"]["anthropic:login"];
    assert!(profile["expires"].as_i64().unwrap() > now(), "{profile}");
    let out = sandbox.run(&["doctor", "--non-interactive"]).exits(0).out;
    assert!(!out.contains(said), "{out}");
}

fn claude_file(sandbox: &Sandbox, text: &str) {
    sandbox.write(&sandbox.home().join(".claude/.credentials.json"), text);
}

/// A stub is its owner's file: it is named with the ways out, never touched.
#[test]
fn a_stub_claude_file() {
    let sandbox = with(json!({ "anthropic:claude-cli": {
        "type": "oauth", "provider": "anthropic", "source": "claude-cli" } }));
    claude_file(&sandbox, "{}");
    remains(&sandbox, "~/.claude/.credentials.json holds no Claude Code login");
    let text = std::fs::read_to_string(sandbox.home().join(".claude/.credentials.json"));
    assert_eq!(text.unwrap(), "{}");
}

#[test]
fn a_copied_claude_login_from_an_older_store() {
    let sandbox = with(json!({ "anthropic:claude-cli": { "type": "oauth",
        "provider": "anthropic", "access": "sk-ant-oat01-FAKEcopy",
        "refresh": "sk-ant-ort01-FAKEcopy", "expires": now() + 3_600_000 } }));
    let out = sandbox.run(&["doctor", "--non-interactive"]).out;
    assert!(out.contains("holds a copy of a Claude Code login and stays one"), "{out}");
    let owner = json!({ "claudeAiOauth": { "accessToken": token(), "refreshToken": "FAKE",
        "expiresAt": now() + 100 * 3_600_000 } });
    claude_file(&sandbox, &owner.to_string());
    mends(&sandbox, "anthropic:claude-cli is a copy of a login that another program owns");
    let profile = sandbox.store()["profiles"]["anthropic:claude-cli"].clone();
    assert_eq!(profile["source"], "claude-cli");
    assert!(profile.get("refresh").is_none() && profile.get("access").is_none(), "{profile}");
    assert_eq!(sandbox.run(&["models", "status", "--check"]).code, 0);
}

#[test]
fn duplicate_accounts() {
    let sandbox = with(json!({ "anthropic:default": key(KEY), "anthropic:other": key(KEY2),
        "anthropic:again": key(KEY) }));
    mends(&sandbox, "anthropic:default and anthropic:again are one and the same login");
    let store = sandbox.store();
    let ids: Vec<&String> = store["profiles"].as_object().unwrap().keys().collect();
    assert_eq!(ids, ["anthropic:default", "anthropic:other"]);
    sandbox.run(&["models", "auth", "undo"]).exits(0);
    assert_eq!(sandbox.store()["profiles"]["anthropic:again"]["key"], KEY);
    // Two keys of one account are both of use: that is only said.
    let sandbox = Sandbox::new();
    sandbox.write_store(&json!({ "version": 1,
        "profiles": { "anthropic:a": key(KEY), "anthropic:b": key(KEY2) },
        "usageStats": { "anthropic:a": { "account": "org" }, "anthropic:b": { "account": "org" } } }));
    let dir = sandbox.store_path().parent().unwrap().to_path_buf();
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    let out = sandbox.run(&["doctor", "--fix", "--non-interactive"]).exits(0).out;
    let said = "anthropic:a and anthropic:b are one account and share its limits";
    assert!(out.contains(said), "{out}");
}

#[test]
fn expired_profiles() {
    let expired = json!({ "type": "token", "provider": "anthropic", "token": token(),
        "expires": now() - 1_000 });
    let sandbox = with(json!({ "anthropic:default": key(KEY), "anthropic:manual": expired }));
    mends(&sandbox, "anthropic:manual has expired and cannot be renewed");
    assert!(sandbox.store()["profiles"].get("anthropic:manual").is_none());
    let out = sandbox.run(&["models", "auth", "undo"]).exits(0).out;
    assert!(out.contains("Brought back anthropic:manual"), "{out}");
    // A login that could be renewed, if only the config said where, is kept.
    let login = json!({ "type": "oauth", "provider": "anthropic", "access": "FAKEaccess",
        "refresh": "FAKErefresh", "expires": now() - 1_000 });
    remains(&with(json!({ "anthropic:login": login })), "anthropic:login is expired");
}

#[test]
fn an_expired_login_is_renewed() {
    let lab = lab("[]");
    let issued = lab.issue_login("mia", Duration::from_secs(8 * 3600));
    let sandbox = with(json!({ "anthropic:login": { "type": "oauth", "provider": "anthropic",
        "access": issued.access_token, "refresh": issued.refresh_token, "expires": now() - 1 } }));
    let url = format!("{}/v1/oauth/token", lab.url());
    sandbox.use_lab(
        &lab,
        json!({ "auth": { "oauth": { "anthropic": { "tokenUrl": url, "clientId": "ours" } } } }),
    );
    let out = sandbox.run(&["doctor", "--fix", "--non-interactive"]).exits(0).out;
    assert!(out.contains("repaired: renewed anthropic:login, which had expired"), "{out}");
    assert!(sandbox.store()["profiles"]["anthropic:login"]["expires"].as_i64().unwrap() > now());
}
