//! Onboarding without a wizard, and what it writes (spec cases 16 to 27, 59 to 63).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{KEY, KEY2, Sandbox, now, token};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn config_mode(sandbox: &Sandbox, profile: &str) -> Value {
    let done = sandbox.run(&["config", "get", "auth.profiles", "--json"]).exits(0);
    done.json()[profile]["mode"].clone()
}

const HEADLESS: [&str; 3] = ["onboard", "--non-interactive", "--accept-risk"];

fn onboard<'a>(more: &[&'a str]) -> Vec<&'a str> {
    HEADLESS.into_iter().chain(more.iter().copied()).collect()
}

/// Cases 16 and 18.
#[test]
fn an_api_key_goes_to_the_store_and_not_into_the_config() {
    let sandbox = Sandbox::new();
    sandbox.run(&onboard(&["--anthropic-api-key", KEY])).exits(0);
    let profile = &sandbox.store()["profiles"]["anthropic:default"];
    assert_eq!(profile["type"], "api_key");
    assert_eq!(profile["provider"], "anthropic");
    assert_eq!(profile["key"], KEY);
    assert_eq!(config_mode(&sandbox, "anthropic:default"), "api_key");
    assert!(!sandbox.config().contains(KEY));
    assert_eq!(mode(&sandbox.store_path()), 0o600);
    assert_eq!(mode(sandbox.store_path().parent().unwrap()), 0o700);
}

/// The seed's own line: the flag alone is enough, and nothing is asked (decision 12).
#[test]
fn the_flag_alone_is_enough() {
    let sandbox = Sandbox::new();
    let done = sandbox.run(&["onboard", "--anthropic-api-key", KEY]).exits(0);
    assert!(
        done.out.contains("Auth profile: anthropic:default (anthropic/api_key)"),
        "{}",
        done.out
    );
}

/// Case 17, and the same for the other doors that a key comes in by.
#[test]
fn a_key_is_cleaned_whichever_way_it_comes_in() {
    let raw = format!("' export ANTHROPIC_API_KEY=\"{KEY}\"; '");
    let quoted = format!(" export ANTHROPIC_API_KEY=\"{KEY}\"; ");
    let stored =
        |sandbox: &Sandbox| sandbox.store()["profiles"]["anthropic:default"]["key"].clone();

    let sandbox = Sandbox::new();
    sandbox.run(&onboard(&["--anthropic-api-key", &quoted])).exits(0);
    assert_eq!(stored(&sandbox), KEY);

    let sandbox = Sandbox::new();
    sandbox
        .run_with_input(&onboard(&["--anthropic-api-key", "-"]), &format!("{quoted}\n"))
        .exits(0);
    assert_eq!(stored(&sandbox), KEY);

    let sandbox = Sandbox::new();
    let file = sandbox.cwd().join("key.txt");
    sandbox.write(&file, &quoted);
    sandbox.run(&onboard(&["--anthropic-api-key-file", "key.txt"])).exits(0);
    assert_eq!(stored(&sandbox), KEY);

    let sandbox = Sandbox::new().env("ANTHROPIC_API_KEY", KEY);
    sandbox.run(&onboard(&["--auth-choice", "apiKey"])).exits(0);
    assert_eq!(stored(&sandbox), KEY);
    drop(raw);
}

/// Spec L-12: no key anywhere.
#[test]
fn a_missing_key_is_said_exactly() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    sandbox.run(&onboard(&["--auth-choice", "apiKey"])).exits(1).says(
        "Missing --anthropic-api-key (or ANTHROPIC_API_KEY in env, or existing anthropic API-key profile).",
    );
    assert_eq!(sandbox.snapshot(), before);
}

/// Spec L-12: a stored key will do.
#[test]
fn a_stored_key_is_found_again() {
    let sandbox = Sandbox::new();
    sandbox.write_store(&json!({ "version": 1, "profiles": {
        "anthropic:work": { "type": "api_key", "provider": "anthropic", "key": KEY } } }));
    sandbox.run(&onboard(&["--auth-choice", "apiKey"])).exits(0);
    assert_eq!(config_mode(&sandbox, "anthropic:work"), "api_key");
    assert!(sandbox.store()["profiles"].get("anthropic:default").is_none());
}

/// Cases 19 and 20.
#[test]
fn what_is_not_understood_is_kept() {
    let sandbox = Sandbox::new();
    sandbox.write_store(&json!({ "version": 1, "extra": [1], "profiles": {
        "anthropic:odd": { "type": "passkey", "provider": "anthropic", "x": 1 },
        "anthropic:work": { "type": "api_key", "provider": "anthropic", "key": KEY2, "note": "mine" } } }));
    sandbox.run(&onboard(&["--anthropic-api-key", KEY])).exits(0);
    let store = sandbox.store();
    assert_eq!(store["profiles"]["anthropic:work"]["note"], "mine");
    assert_eq!(
        store["profiles"]["anthropic:odd"],
        json!({ "type": "passkey", "provider": "anthropic", "x": 1 })
    );
    assert_eq!(store["extra"], json!([1]));

    let sandbox = Sandbox::new();
    sandbox.write(&sandbox.store_path(), "{\"profiles\": {\"a\": ");
    let before = sandbox.snapshot();
    for command in [&["models", "status"][..], &onboard(&["--anthropic-api-key", KEY])] {
        sandbox.run(command).exits(1).says("auth-profiles.json");
        assert_eq!(sandbox.snapshot(), before);
    }
}

/// Case 22.
#[test]
fn older_stores_are_imported() {
    let sandbox = Sandbox::new();
    let old = sandbox.state("agents/main/agent/auth.json");
    sandbox.write(&old, &json!({ "anthropic": { "type": "api_key", "key": KEY } }).to_string());
    let oauth = sandbox.state("credentials/oauth.json");
    sandbox.write(
        &oauth,
        &json!({ "acme": { "access": "FAKE", "refresh": "FAKE", "expires": 5 } }).to_string(),
    );
    sandbox.run(&onboard(&["--auth-choice", "apiKey"])).exits(0);
    let store = sandbox.store();
    assert_eq!(store["profiles"]["anthropic:default"]["key"], KEY);
    assert_eq!(store["profiles"]["acme:default"]["type"], "oauth");
    assert!(!old.exists() && oauth.exists());
}

/// Case 23.
#[test]
fn a_new_agent_inherits_nothing() {
    let sandbox = Sandbox::new();
    sandbox.run(&onboard(&["--anthropic-api-key", KEY])).exits(0);
    sandbox.run(&["agents", "add", "w", "--workspace", "d"]).exits(0);
    sandbox
        .run(&["agent", "-m", "hi", "--agent", "w"])
        .exits(1)
        .says("No API key found for provider \"anthropic\". Auth store: ")
        .says("Configure auth for this agent (moltbot agents add <id>)");
    assert!(!sandbox.state("agents/w/agent/auth-profiles.json").exists());
}

fn claude_login(sandbox: &Sandbox, login: Value) {
    let file = sandbox.home().join(".claude/.credentials.json");
    sandbox.write(&file, &json!({ "claudeAiOauth": login }).to_string());
}

fn in_an_hour() -> i64 {
    now() + 3_600_000
}

/// Case 24: a link, no copy (decision 5).
#[test]
fn a_claude_code_login_is_linked() {
    let sandbox = Sandbox::new();
    let login = json!({ "accessToken": token(), "refreshToken": "sk-ant-ort01-FAKE", "expiresAt": in_an_hour() });
    claude_login(&sandbox, login);
    sandbox.run(&onboard(&["--auth-choice", "claude-cli"])).exits(0);
    assert_eq!(config_mode(&sandbox, "anthropic:claude-cli"), "oauth");
    let profile = sandbox.store()["profiles"]["anthropic:claude-cli"].clone();
    assert_eq!((&profile["type"], &profile["source"]), (&json!("oauth"), &json!("claude-cli")));
    for secret in ["access", "refresh", "expires"] {
        assert!(profile.get(secret).is_none(), "{profile}");
    }
    let status = sandbox.run(&["models", "status", "--json"]).exits(0).json();
    let row = &status["auth"]["oauth"]["profiles"][0];
    assert_eq!((&row["status"], &row["source"]), (&json!("ok"), &json!("claude-cli")));
}

/// Case 25.
#[test]
fn a_claude_login_without_refresh_token_is_a_token() {
    let sandbox = Sandbox::new();
    let expires = in_an_hour();
    claude_login(&sandbox, json!({ "accessToken": token(), "expiresAt": expires }));
    sandbox.run(&onboard(&["--auth-choice", "claude-cli"])).exits(0);
    let status = sandbox.run(&["models", "status", "--json"]).exits(0).json();
    let row = &status["auth"]["oauth"]["profiles"][0];
    assert_eq!((&row["type"], &row["expiresAt"]), (&json!("token"), &json!(expires)));
}

/// Case 26, as on Linux.
#[cfg(target_os = "linux")]
#[test]
fn without_a_claude_login_nothing_changes() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    sandbox
        .run(&onboard(&["--auth-choice", "claude-cli"]))
        .exits(1)
        .says("No Claude Code CLI credentials found at ~/.claude/.credentials.json");
    assert_eq!(sandbox.snapshot(), before);
}

/// Case 27.
#[test]
fn a_claude_login_that_nobody_chose_is_left_alone() {
    let sandbox = Sandbox::new();
    claude_login(
        &sandbox,
        json!({ "accessToken": token(), "refreshToken": "x", "expiresAt": in_an_hour() }),
    );
    sandbox.run(&onboard(&["--anthropic-api-key", KEY])).exits(0);
    let before = sandbox.snapshot();
    sandbox.run(&["models", "status"]).exits(0);
    assert_eq!(sandbox.snapshot(), before);
    assert_eq!(sandbox.store()["profiles"].as_object().unwrap().len(), 1);
}

/// Case 59.
#[test]
fn risk_has_to_be_accepted() {
    Sandbox::new().run(&["onboard", "--non-interactive"]).exits(1).says("--accept-risk");
}

/// Case 60.
#[test]
fn the_four_ways_to_get_a_token_wrong() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    let short = format!("sk-ant-oat01-{}", "F".repeat(66));
    let long = format!("sk-ant-oat02-{}", "F".repeat(80));
    let with = |more: &[&str]| {
        let line = [&["--auth-choice", "token"], more].concat();
        sandbox.run(&onboard(&line)).exits(1)
    };
    with(&[]).says("Missing --token-provider for --auth-choice token.");
    with(&["--token-provider", "openai", "--token", "x"])
        .says("Only --token-provider anthropic is supported for --auth-choice token.");
    with(&["--token-provider", "anthropic"]).says("Missing --token for --auth-choice token.");
    with(&["--token-provider", "anthropic", "--token", &long])
        .says("Expected token starting with sk-ant-oat01-");
    with(&["--token-provider", "anthropic", "--token", &short])
        .says("Token looks too short; paste the full setup-token");
    with(&["--token-provider", "anthropic", "--token", &token(), "--token-expires-in", "soon"])
        .says("Invalid --token-expires-in: ");
    assert_eq!(sandbox.snapshot(), before);
}

/// Case 61.
#[test]
fn a_token_expires_when_told_and_spares_the_key() {
    let sandbox = Sandbox::new();
    sandbox.run(&onboard(&["--anthropic-api-key", KEY])).exits(0);
    let line =
        ["--auth-choice", "token", "--token-provider", "anthropic", "--token-expires-in", "365d"];
    let token = token();
    let before = in_an_hour() - 3_600_000;
    sandbox.run(&onboard(&[&line[..], &["--token", &token]].concat())).exits(0);
    let store = sandbox.store();
    assert_eq!(store["profiles"]["anthropic:default"]["key"], KEY);
    let manual = &store["profiles"]["anthropic:manual"];
    assert_eq!((&manual["type"], &manual["token"]), (&json!("token"), &json!(token)));
    let year = 365 * 86_400_000;
    let expires = manual["expires"].as_i64().unwrap();
    assert!((before + year..=in_an_hour() + year).contains(&expires), "{expires}");
}

/// Case 62.
#[test]
fn choices_that_cannot_work_fail() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    sandbox
        .run(&onboard(&["--auth-choice", "setup-token"]))
        .exits(1)
        .says("Auth choice \"setup-token\" requires interactive mode.")
        .says("Use \"--auth-choice token\" with --token and --token-provider anthropic.");
    sandbox.run(&onboard(&["--auth-choice", "bogus"])).exits(1).says("bogus");
    assert_eq!(sandbox.snapshot(), before);
}

/// Case 63.
#[test]
fn a_token_is_pasted_from_standard_input() {
    let sandbox = Sandbox::new();
    let line = ["models", "auth", "paste-token", "--provider", "anthropic"];
    let done = sandbox.run_with_input(&line, &format!("{}\n", token())).exits(0);
    assert!(done.out.contains("Auth profile: anthropic:manual (anthropic/token)"), "{}", done.out);
    assert_eq!(sandbox.store()["profiles"]["anthropic:manual"]["token"], token());
    assert_eq!(config_mode(&sandbox, "anthropic:manual"), "token");

    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    sandbox.run_with_input(&line, "").exits(1);
    assert_eq!(sandbox.snapshot(), before);
}

/// Spec L-16.
#[test]
fn an_order_that_exists_gets_the_new_profile_first() {
    let sandbox = Sandbox::new();
    sandbox.write_config("{ auth: { order: { anthropic: ['anthropic:work'] } } }");
    sandbox.run(&onboard(&["--anthropic-api-key", KEY])).exits(0);
    let done = sandbox.run(&["config", "get", "auth.order.anthropic", "--json"]).exits(0);
    assert_eq!(done.json(), json!(["anthropic:default", "anthropic:work"]));
}

/// Spec L-18.
#[test]
fn json_is_only_json() {
    let sandbox = Sandbox::new();
    let done = sandbox.run(&onboard(&["--anthropic-api-key", KEY, "--json"])).exits(0);
    let value = done.json();
    assert_eq!(value["authChoice"], "apiKey");
    assert_eq!(
        value["gateway"],
        json!({ "port": 18789, "bind": "loopback", "authMode": "token", "tailscaleMode": "off" })
    );
    let token =
        sandbox.run(&["config", "get", "gateway.auth.token", "--show-secrets"]).exits(0).out;
    assert_eq!(token.trim().len(), 48, "{token}");
    assert!(token.trim().chars().all(|c| c.is_ascii_hexdigit()));
}
