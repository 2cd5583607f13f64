//! The link to Claude Code's own login, in its two policies, through the binary: every state that
//! its file is found in, and `fake-claude` renewing it, or failing to.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use moltbot_lab::fingerprint;
use serde_json::{Value, json};

use crate::support::{Sandbox, lab, messages, now, used};

const FAKE_CLAUDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/fake-claude/claude");
const OLD: &str = "sk-ant-oat01-FAKEoldFAKEoldFAKE";
const RENEWED: &str = "sk-ant-oat01-FAKErenewed0001";

/// A sandbox with a link in its store, and `claude` on its path.
fn linked() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write_store(&json!({ "version": 1, "profiles": { "anthropic:claude-cli": {
        "type": "oauth", "provider": "anthropic", "source": "claude-cli" } } }));
    sandbox.link_program("claude", FAKE_CLAUDE);
    sandbox
}

fn file(sandbox: &Sandbox) -> PathBuf {
    sandbox.home().join(".claude/.credentials.json")
}

fn login(expires: i64) -> String {
    json!({ "claudeAiOauth": { "accessToken": OLD, "refreshToken": "sk-ant-ort01-FAKEold",
        "expiresAt": expires, "scopes": ["user:inference"], "subscriptionType": "max" } })
    .to_string()
}

/// What `models status` says of the link.
fn row(sandbox: &Sandbox) -> Value {
    let status = sandbox.run(&["models", "status", "--json"]).exits(0).json();
    status["auth"]["oauth"]["profiles"][0].clone()
}

fn calls(sandbox: &Sandbox) -> Vec<String> {
    let log = std::fs::read_to_string(sandbox.home().join(".claude/fake-claude.log"));
    let runs = log.unwrap_or_default();
    runs.lines().filter(|line| line.starts_with("-p")).map(String::from).collect()
}

fn plan(sandbox: &Sandbox, word: &str) {
    sandbox.write(&sandbox.home().join(".claude/fake-claude.plan"), word);
}

#[test]
fn every_state_of_the_owners_file_is_told_apart() {
    let sandbox = linked();
    let no = json!(false);
    let yes = json!(true);
    let logged_out = json!({ "claudeAiOauth": {
        "accessToken": "", "refreshToken": "", "expiresAt": 0 } });
    let whole = login(now() + 3_600_000);
    let mut said = Vec::new();
    for (content, present, valid, usable, words) in [
        (None, &no, &no, &no, "there is no ~/.claude/.credentials.json"),
        (Some("{}".into()), &no, &no, &no, "holds no Claude Code login"),
        (Some(whole[..40].to_string()), &yes, &no, &no, "is cut off or no JSON"),
        (Some(String::new()), &yes, &no, &no, "is cut off or no JSON"),
        (Some("[1]".into()), &yes, &no, &no, "is not as Claude Code writes it"),
        (Some(logged_out.to_string()), &yes, &no, &no, "Claude Code is logged out"),
        (Some(login(now() - 1)), &yes, &yes, &no, "expired 1 min ago"),
        (Some(whole.clone()), &yes, &yes, &yes, ""),
    ] {
        match &content {
            Some(content) => sandbox.write(&file(&sandbox), content),
            None => assert!(!file(&sandbox).exists()),
        }
        let row = row(&sandbox);
        let login = &row["login"];
        let found = (&login["present"], &login["valid"], &login["usable"]);
        assert_eq!(found, (present, valid, usable), "{content:?}: {row}");
        let detail = login["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(words), "{content:?}: {row}");
        let text = sandbox.run(&["models", "status"]).exits(0).out;
        assert!(text.contains(words) && !text.contains("FAKEold"), "{text}");
        assert_eq!(text.contains("usable now: no"), usable == &no, "{text}");
        let check = sandbox.run(&["models", "status", "--check"]).code;
        assert!(usable == &no || check == 0, "a login with hours left is fine");
        // `ok` is said of nothing that a request could not use.
        assert_eq!(row["status"] == "ok", usable == &yes, "{row}");
        said.push(detail.to_string());
    }
    assert!(calls(&sandbox).is_empty(), "looking runs nothing");
    let elsewhere = sandbox.home().join("elsewhere.json");
    sandbox.write(&elsewhere, &whole);
    std::fs::remove_file(file(&sandbox)).unwrap();
    symlink(&elsewhere, file(&sandbox)).unwrap();
    let row = row(&sandbox);
    assert_eq!(row["login"]["usable"], true, "{row}");
    assert!(row["login"]["detail"].as_str().unwrap().contains("is a symbolic link"), "{row}");
}

/// Policy `owner`: the expired login is renewed by its owner, once, and used.
#[test]
fn an_expired_login_is_renewed_by_its_owner() {
    let lab = lab("[]");
    let sandbox = linked();
    sandbox.use_lab(&lab, json!({}));
    sandbox.write(&file(&sandbox), &login(now() - 1_000));
    sandbox.run(&["agent", "-m", "x"]).exits(0);
    assert_eq!(used(&messages(&lab)[0]), fingerprint(RENEWED));
    assert_eq!(calls(&sandbox).len(), 1);
    sandbox.run(&["agent", "-m", "x"]).exits(0);
    assert_eq!(calls(&sandbox).len(), 1, "what is fresh is not renewed");
    let store = sandbox.store().to_string();
    assert!(!store.contains("FAKErenewed") && !store.contains("FAKEold"), "{store}");
    assert!(lab.log().iter().all(|entry| entry.path() != "/v1/oauth/token"));
}

/// Policy `off`: nobody renews; the error names the three ways out.
#[test]
fn with_the_policy_off_the_ways_out_are_named() {
    let lab = lab("[]");
    let sandbox = linked();
    sandbox.use_lab(&lab, json!({ "auth": { "claudeCli": { "refresh": "off" } } }));
    sandbox.write(&file(&sandbox), &login(now() - 1_000));
    sandbox
        .run(&["agent", "-m", "x"])
        .exits(1)
        .says("OAuth token refresh failed for anthropic: ")
        .says("auth.claudeCli.refresh is \"off\"")
        .says("run `claude` on the gateway host")
        .says("paste-token")
        .says("--anthropic-api-key");
    sandbox.run(&["models", "auth", "refresh", "--force"]);
    assert!(calls(&sandbox).is_empty() && messages(&lab).is_empty());
    // A login that works is used all the same.
    sandbox.write(&file(&sandbox), &login(now() + 3_600_000));
    sandbox.run(&["agent", "-m", "x"]).exits(0);
    assert_eq!(used(&messages(&lab)[0]), fingerprint(OLD));
}

/// The owner's program is killed in the middle of its renewal, gives up, or does nothing.
#[test]
fn an_owner_that_fails_is_quoted_and_nothing_is_written() {
    for (word, said) in [
        ("die", "`claude` was killed while renewing it"),
        ("noop", "`claude` ran without renewing it"),
        ("revoked", "Claude Code logged out when it tried to renew its login"),
    ] {
        let lab = lab("[]");
        let sandbox = linked();
        sandbox.use_lab(&lab, json!({}));
        sandbox.write(&file(&sandbox), &login(now() - 1_000));
        plan(&sandbox, word);
        let store = sandbox.store();
        sandbox
            .run(&["agent", "-m", "x"])
            .exits(1)
            .says("OAuth token refresh failed for anthropic: ")
            .says(said);
        assert_eq!(sandbox.store()["profiles"], store["profiles"], "{word}");
        assert_ne!(row(&sandbox)["status"], "ok", "{word}");
        assert!(messages(&lab).is_empty());
        if word == "die" {
            // Once the dead program's locks are gone and it works again, so does everything.
            for lock in [".claude/.oauth_refresh.lock", ".claude.lock"] {
                std::fs::remove_dir(sandbox.home().join(lock)).unwrap();
            }
            plan(&sandbox, "");
            sandbox.run(&["models", "auth", "refresh", "--force"]).exits(0);
            assert_eq!(row(&sandbox)["status"], "ok");
            sandbox.run(&["agent", "-m", "x"]).exits(0);
        }
    }
}
