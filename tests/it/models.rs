//! `models`, `agents`, `config`, `doctor` and their kin (spec cases 64 to 71).

use serde_json::{Value, json};

use crate::support::{KEY, KEY2, Sandbox, lab, messages, now, token};

/// Case 64.
#[test]
fn plain_status_is_one_line() {
    let sandbox = Sandbox::new();
    let done = sandbox.run(&["models", "status", "--plain"]).exits(0);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("anthropic/claude-opus-4-5\n", ""));
    sandbox
        .run(&["models", "status", "--json", "--plain"])
        .exits(1)
        .says("Choose either --json or --plain, not both.");
}

fn check(profiles: Value) -> i32 {
    let sandbox = Sandbox::new();
    sandbox.write_store(&json!({ "version": 1, "profiles": profiles }));
    sandbox.run(&["models", "status", "--check"]).code
}

/// Case 65.
#[test]
fn check_tells_by_its_exit_code() {
    let token = |expires: i64| {
        json!({ "a:t": {}, "anthropic:manual": {
            "type": "token", "provider": "anthropic", "token": token(), "expires": expires } })
    };
    assert_eq!(check(json!({})), 1);
    assert_eq!(check(token(now() - 1000)), 1);
    assert_eq!(check(token(now() + 3 * 3_600_000)), 2);
    assert_eq!(
        check(json!({ "anthropic:default": {
        "type": "api_key", "provider": "anthropic", "key": KEY } })),
        0
    );
    // A link that its owner renews is fine with hours left.
    let sandbox = Sandbox::new();
    let login = json!({ "claudeAiOauth": { "accessToken": "sk-ant-oat01-FAKEFAKEFAKE",
        "refreshToken": "sk-ant-ort01-FAKE", "expiresAt": now() + 3 * 3_600_000 } });
    sandbox.write(&sandbox.home().join(".claude/.credentials.json"), &login.to_string());
    sandbox.run(&["onboard", "--auth-choice", "claude-cli"]).exits(0);
    assert_eq!(sandbox.run(&["models", "status", "--check"]).code, 0);
}

/// Case 66: every key of spec L-36, only JSON on standard output, no secret in it.
#[test]
fn status_json_has_its_keys_and_no_secret() {
    let short = "sk-ant-api03-FAK";
    let sandbox = Sandbox::new().env("ANTHROPIC_API_KEY", KEY);
    sandbox.write_config("{ agents: { defaults: { model: { primary: 'opus' }, models: { 'anthropic/claude-opus-4-5': {} } } } }");
    sandbox.write_store(&json!({ "version": 1,
        "profiles": {
            "anthropic:default": { "type": "api_key", "provider": "anthropic", "key": short },
            "anthropic:login": { "type": "oauth", "provider": "anthropic", "access": "sk-ant-oat01-FAKEaccess", "refresh": "sk-ant-ort01-FAKErefresh", "expires": now() + 28_800_000 },
            "anthropic:manual": { "type": "token", "provider": "anthropic", "token": token() } },
        "usageStats": { "anthropic:default": { "cooldownUntil": now() + 60_000, "errorCount": 1 },
            "anthropic:manual": { "disabledUntil": now() + 18_000_000, "disabledReason": "billing" } } }));
    let done = sandbox.run(&["models", "status", "--json"]).exits(0);
    let status = done.json();
    for key in [
        "configPath",
        "agentDir",
        "defaultModel",
        "resolvedDefault",
        "fallbacks",
        "imageModel",
        "imageFallbacks",
        "aliases",
        "allowed",
        "auth",
    ] {
        assert!(status.get(key).is_some(), "no {key}");
    }
    assert_eq!(status["defaultModel"], "opus");
    assert_eq!(status["resolvedDefault"], "anthropic/claude-opus-4-5");
    assert_eq!(status["aliases"], json!({ "opus": "anthropic/claude-opus-4-5" }));
    assert_eq!(status["allowed"], json!(["anthropic/claude-opus-4-5"]));
    let auth = &status["auth"];
    for key in [
        "storePath",
        "shellEnvFallback",
        "providersWithOAuth",
        "missingProvidersInUse",
        "providers",
        "unusableProfiles",
        "oauth",
    ] {
        assert!(auth.get(key).is_some(), "no auth.{key}");
    }
    assert_eq!(auth["providersWithOAuth"], json!(["anthropic (2)"]));
    let provider = &auth["providers"][0];
    assert_eq!(provider["effective"]["kind"], "profiles");
    let counts = &provider["profiles"];
    assert_eq!(
        (&counts["count"], &counts["oauth"], &counts["token"], &counts["apiKey"]),
        (&json!(3), &json!(1), &json!(1), &json!(1))
    );
    let labels = counts["labels"].to_string();
    assert!(
        labels.contains("[cooldown 1m]") && labels.contains("anthropic:login=OAuth"),
        "{labels}"
    );
    assert!(labels.contains("[disabled:billing 5h]"), "{labels}");
    let unusable = auth["unusableProfiles"].as_array().unwrap();
    let rows: Vec<_> = unusable
        .iter()
        .map(|row| (row["profileId"].as_str().unwrap(), row["kind"].as_str().unwrap()))
        .collect();
    assert_eq!(rows, [("anthropic:default", "cooldown"), ("anthropic:manual", "disabled")]);
    assert_eq!(unusable[1]["reason"], "billing");
    assert!(unusable[0]["remainingMs"].as_i64().unwrap() <= 60_000);
    let profiles = auth["oauth"]["profiles"].as_array().unwrap();
    assert_eq!(profiles.len(), 3);
    let by_id = |id: &str| profiles.iter().find(|p| p["profileId"] == id).unwrap().clone();
    assert_eq!(by_id("anthropic:default")["status"], "static");
    assert_eq!(by_id("anthropic:login")["status"], "expiring");
    for secret in [short, KEY, "FAKEaccess", "FAKErefresh", "QZXJ7QZXJ7"] {
        assert!(!done.out.contains(secret), "{secret} in {}", done.out);
    }
}

/// Case 67: a probe says what it got, and changes nothing.
#[test]
fn a_probe_tells_the_truth_and_changes_nothing() {
    let cases = [(27, "auth"), (1, "billing"), (39, "rate_limit")];
    for (error, expected) in cases {
        let lab = lab(&format!("[{{ fault: {{ error: {error} }} }}]"));
        let sandbox = Sandbox::new();
        sandbox.write_store(&json!({ "version": 1, "profiles": {
            "anthropic:default": { "type": "api_key", "provider": "anthropic", "key": KEY } } }));
        sandbox.use_lab(&lab, json!({}));
        let before = sandbox.snapshot();
        let done = sandbox.run(&["models", "status", "--json", "--probe"]).exits(0).json();
        let result = &done["auth"]["probes"]["results"][0];
        assert_eq!(result["status"], expected, "{result}");
        assert_eq!(sandbox.snapshot(), before);
        let request = &messages(&lab)[0];
        assert_eq!(request.body["max_tokens"], 8);
        assert!(request.body.get("tools").is_none());
    }

    let lab = lab("[{ fault: { stall: 'headers' } }]");
    let sandbox = Sandbox::new().env("ANTHROPIC_API_KEY", KEY);
    sandbox.use_lab(&lab, json!({}));
    let line = ["models", "status", "--json", "--probe", "--probe-timeout", "300"];
    let done = sandbox.run(&line).exits(0).json();
    assert_eq!(done["auth"]["probes"]["results"][0]["status"], "timeout");
    assert_eq!(done["auth"]["probes"]["options"]["timeoutMs"], 300);
}

/// Case 67, last part.
#[test]
fn an_excluded_profile_is_not_probed() {
    let lab = lab("[]");
    let sandbox = Sandbox::new();
    sandbox.write_store(&json!({ "version": 1, "profiles": {
        "anthropic:a": { "type": "api_key", "provider": "anthropic", "key": KEY },
        "anthropic:b": { "type": "api_key", "provider": "anthropic", "key": KEY2 } },
        "order": { "anthropic": ["anthropic:a"] } }));
    sandbox.use_lab(&lab, json!({}));
    let done = sandbox.run(&["models", "status", "--json", "--probe"]).exits(0).json();
    let results = done["auth"]["probes"]["results"].as_array().unwrap().clone();
    let of = |id: &str| results.iter().find(|r| r["profileId"] == id).unwrap().clone();
    assert_eq!(of("anthropic:a")["status"], "ok");
    assert_eq!(of("anthropic:b")["status"], "unknown");
    assert_eq!(of("anthropic:b")["error"], "Excluded by auth.order for this provider.");
    assert_eq!(messages(&lab).len(), 1);
}

/// Case 68.
#[test]
fn an_order_names_profiles_that_exist() {
    let sandbox = Sandbox::new();
    sandbox.write_store(&json!({ "version": 1, "profiles": {
        "anthropic:a": { "type": "api_key", "provider": "anthropic", "key": KEY } } }));
    let order = |more: &[&str]| sandbox.run(&[&["models", "auth", "order"], more].concat());
    order(&["set", "--provider", "anthropic", "x"])
        .exits(1)
        .says("Auth profile \"x\" not found in ");
    let got = order(&["get", "--provider", "anthropic", "--json"]).exits(0).json();
    assert_eq!(got["order"], Value::Null);
    order(&["set", "--provider", "anthropic", "anthropic:a"]).exits(0);
    let got = order(&["get", "--provider", "anthropic", "--json"]).exits(0).json();
    assert_eq!(got["order"], json!(["anthropic:a"]));
    order(&["clear", "--provider", "anthropic"]).exits(0);
    assert!(sandbox.store().get("order").is_none());
}

/// Case 69.
#[test]
fn main_is_reserved() {
    let sandbox = Sandbox::new();
    sandbox.run(&["agents", "delete", "main"]).exits(1).says("\"main\" cannot be deleted.");
    sandbox
        .run(&["agents", "add", "main", "--workspace", "d"])
        .exits(1)
        .says("\"main\" is reserved. Choose another name.");
    sandbox
        .run(&["agents", "add", "x", "--model", "opus"])
        .exits(1)
        .says("Non-interactive mode requires --workspace.");
    let done = sandbox.run(&["agents", "add", "X y", "--workspace", "d", "--json"]).exits(0).json();
    assert_eq!(done["agentId"], "x-y");
    sandbox.run(&["agents", "add", "x-y", "--workspace", "d"]).exits(1).says("already exists");
    sandbox.run(&["agents", "delete", "x-y"]).exits(1).says("Re-run with --force");
    sandbox.run(&["agents", "delete", "x-y", "--force"]).exits(0);
    assert!(!sandbox.run(&["agents", "list"]).exits(0).out.contains("x-y"));
}

/// Case 70.
#[test]
fn the_doctor_repairs_without_a_terminal_or_says_what_is_left() {
    let sandbox = Sandbox::new();
    sandbox.write_config("{ agent: { model: 'opus' }, nonsense: 1 }");
    sandbox.run(&["doctor", "--non-interactive"]).exits(1);
    sandbox.run(&["doctor", "--fix", "--non-interactive"]).exits(0);
    let status = sandbox.run(&["models", "status", "--json"]).exits(0).json();
    assert_eq!(status["defaultModel"], "opus");

    sandbox.write_config("{ models: { providers: { p: { baseUrl: 5, models: [] } } } }");
    sandbox.run(&["doctor", "--fix", "--non-interactive"]).exits(1);
}

/// Case 71.
#[test]
fn config_get_masks_secrets() {
    let sandbox = Sandbox::new();
    sandbox.write_config(&format!("{{ env: {{ ANTHROPIC_API_KEY: '{KEY}' }} }}"));
    let done = sandbox.run(&["config", "get", "env.ANTHROPIC_API_KEY"]).exits(0);
    assert_eq!(done.out.trim(), "sk-a...E001");
    let done = sandbox.run(&["config", "get", "env.ANTHROPIC_API_KEY", "--show-secrets"]).exits(0);
    assert_eq!(done.out.trim(), KEY);
    sandbox.run(&["config", "get", "no.such"]).exits(1).says("Config path not found: no.such");
}

#[test]
fn lists_aliases_and_fallbacks_are_kept() {
    let sandbox = Sandbox::new();
    sandbox.run(&["models", "set", "anthropic/claude-sonnet-5-5"]).exits(0);
    sandbox.run(&["models", "fallbacks", "add", "anthropic/claude-haiku-5-5"]).exits(0);
    let done = sandbox.run(&["models", "fallbacks", "list", "--json"]).exits(0).json();
    assert_eq!(done, json!({ "fallbacks": ["anthropic/claude-haiku-5-5"] }));
    sandbox.run(&["models", "aliases", "add", "quick", "anthropic/claude-haiku-5-5"]).exits(0);
    let done = sandbox.run(&["models", "aliases", "list", "--json"]).exits(0).json();
    assert_eq!(done["aliases"]["quick"], "anthropic/claude-haiku-5-5");
    sandbox.run(&["models", "aliases", "remove", "nope"]).exits(1).says("Alias not found: nope");
    sandbox.run(&["models", "fallbacks", "clear"]).exits(0);
    let all = sandbox.run(&["models", "list", "--all", "--json"]).exits(0).json();
    assert!(all["count"].as_u64().unwrap() >= 10, "{all}");
    let plain = sandbox.run(&["models", "list", "--all", "--plain"]).exits(0).out;
    assert!(plain.lines().any(|line| line == "anthropic/claude-opus-5-5"), "{plain}");
}

#[test]
fn every_code_is_explained() {
    let sandbox = Sandbox::new();
    let list = sandbox.run(&["explain", "--json"]).exits(0).json();
    let codes = list["codes"].as_array().unwrap();
    assert!(codes.len() > 30);
    for code in codes {
        let id = code["code"].as_str().unwrap();
        let page = sandbox.run(&["explain", id]).exits(0).out;
        assert!(page.contains(id) && page.lines().count() > 2, "{id}: {page}");
    }
    sandbox.run(&["explain", "no-credentail"]).exits(1).says("no-credential");
}

#[test]
fn plugins_are_those_of_the_tree() {
    let plugins = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins");
    let mut expected: Vec<String> = std::fs::read_dir(plugins)
        .unwrap()
        .flatten()
        .filter(|entry| {
            // One that stays out of the stock binary says so itself.
            let manifest = std::fs::read_to_string(entry.path().join("Cargo.toml"));
            manifest.is_ok_and(|text| !text.contains("\nstock = false"))
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    expected.sort();
    let done = Sandbox::new().run(&["plugins", "list", "--json"]).exits(0).json();
    let mut found: Vec<String> = done["plugins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|plugin| plugin["id"].as_str().unwrap().to_string())
        .collect();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn completions_exist_for_the_usual_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let out = Sandbox::new().run(&["completions", shell]).exits(0).out;
        assert!(out.contains("moltbot") && out.contains("anthropic-api-key"), "{shell}");
    }
}
