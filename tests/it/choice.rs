//! Which credential a request uses, and what happens when it fails (spec cases 15, 33 to 40, 44).

use moltbot_lab::fingerprint;
use serde_json::{Value, json};

use crate::support::{KEY, KEY2, Sandbox, lab, messages, now, token, used};

fn key(key: &str) -> Value {
    json!({ "type": "api_key", "provider": "anthropic", "key": key })
}

fn token_profile(expires: Option<i64>) -> Value {
    let mut profile = json!({ "type": "token", "provider": "anthropic", "token": token() });
    if let Some(expires) = expires {
        profile["expires"] = json!(expires);
    }
    profile
}

fn oauth(expires: i64) -> Value {
    json!({ "type": "oauth", "provider": "anthropic", "access": "sk-ant-oat01-FAKEaccessFAKE",
        "refresh": "sk-ant-ort01-FAKE", "expires": expires })
}

/// The sources that a dry run would try, in order, and why it leaves out the rest.
fn candidates(sandbox: &Sandbox) -> (Vec<String>, Vec<String>) {
    let record = sandbox.run(&["agent", "-m", "x", "--dry-run", "--json"]).exits(0).json();
    let all = record["models"][0]["candidates"].as_array().unwrap().clone();
    let (out, used): (Vec<_>, Vec<_>) = all.into_iter().partition(|c| c.get("skipped").is_some());
    let names =
        |list: Vec<Value>| list.iter().map(|c| c["source"].as_str().unwrap().to_string()).collect();
    (names(used), names(out))
}

fn with_profiles(profiles: Value) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write_store(&json!({ "version": 1, "profiles": profiles }));
    sandbox
}

/// Case 34.
#[test]
fn logins_before_tokens_before_keys() {
    let sandbox = with_profiles(json!({
        "anthropic:default": key(KEY),
        "anthropic:manual": token_profile(None),
        "anthropic:login": oauth(now() + 3_600_000),
    }));
    let (used, _) = candidates(&sandbox);
    assert_eq!(
        used,
        ["profile:anthropic:login", "profile:anthropic:manual", "profile:anthropic:default"]
    );
}

/// Case 35.
#[test]
fn the_one_that_rested_longest_comes_first() {
    let sandbox = Sandbox::new();
    sandbox.write_store(&json!({ "version": 1,
        "profiles": { "anthropic:a": key(KEY), "anthropic:b": key(KEY2) },
        "usageStats": { "anthropic:a": { "lastUsed": 5 }, "anthropic:b": { "lastUsed": 3 } } }));
    assert_eq!(candidates(&sandbox).0, ["profile:anthropic:b", "profile:anthropic:a"]);
}

/// Case 36.
#[test]
fn an_order_is_kept_but_for_those_that_cool() {
    let sandbox = Sandbox::new();
    let store = |order: Value| {
        let mut store = json!({ "version": 1,
            "profiles": { "anthropic:t": token_profile(None), "anthropic:k": key(KEY) },
            "usageStats": { "anthropic:t": { "cooldownUntil": now() + 60_000 } } });
        if !order.is_null() {
            store["order"] = json!({ "anthropic": order });
        }
        store
    };
    sandbox.write_config("{ auth: { order: { anthropic: ['anthropic:t', 'anthropic:k'] } } }");
    sandbox.write_store(&store(Value::Null));
    let (used, cooling) = candidates(&sandbox);
    assert_eq!(
        (used, cooling),
        (vec!["profile:anthropic:k".into()], vec!["profile:anthropic:t".into()])
    );
    sandbox.write_store(&store(json!(["anthropic:k"])));
    assert_eq!(candidates(&sandbox).0, ["profile:anthropic:k"]);
}

/// Case 37.
#[test]
fn the_configs_list_hides_what_it_does_not_name() {
    let sandbox = with_profiles(json!({
        "anthropic:default": key(KEY), "anthropic:manual": token_profile(None) }));
    sandbox.write_config(
        "{ auth: { profiles: { 'anthropic:default': { provider: 'anthropic', mode: 'api_key' } } } }",
    );
    assert_eq!(candidates(&sandbox).0, ["profile:anthropic:default"]);
}

/// Case 38.
#[test]
fn modes_must_fit() {
    let config = |mode: &str| {
        format!(
            "{{ auth: {{ profiles: {{ 'anthropic:x': {{ provider: 'anthropic', mode: '{mode}' }} }} }} }}"
        )
    };
    let sandbox = with_profiles(json!({ "anthropic:x": token_profile(None) }));
    sandbox.write_config(&config("oauth"));
    assert_eq!(candidates(&sandbox).0, ["profile:anthropic:x"]);
    sandbox.write_config(&config("api_key"));
    let done = sandbox.run(&["agent", "-m", "x"]).exits(1);
    done.says("No API key found for provider \"anthropic\"");
}

/// Case 39.
#[test]
fn an_expired_token_is_no_credential() {
    let sandbox = with_profiles(json!({ "anthropic:manual": token_profile(Some(now() - 1000)) }));
    sandbox.run(&["agent", "-m", "x"]).exits(1).says("No API key found for provider \"anthropic\"");
    sandbox
        .run(&["agent", "-m", "x", "--model", "anthropic/claude-opus-4-5@anthropic:manual"])
        .exits(1)
        .says("No credentials found for profile \"anthropic:manual\".");
}

/// Case 40.
#[test]
fn the_environments_token_beats_its_key() {
    let lab = lab("[]");
    let token = token();
    let sandbox = Sandbox::new().env("ANTHROPIC_OAUTH_TOKEN", &token).env("ANTHROPIC_API_KEY", KEY);
    sandbox.use_lab(&lab, json!({}));
    sandbox.run(&["agent", "-m", "x"]).exits(0);
    let log = messages(&lab);
    assert_eq!(used(&log[0]), fingerprint(&token));
    assert_eq!(log[0].credentials[0].header, "authorization");
}

/// The promise: a key in the environment and nothing else.
#[test]
fn a_key_in_the_environment_is_all_it_takes() {
    let sandbox = Sandbox::new().env("ANTHROPIC_API_KEY", KEY);
    let before = sandbox.snapshot();
    let done = sandbox.run(&["agent", "-m", "hi", "--dry-run"]).exits(0);
    for part in ["anthropic/claude-opus-4-5", "env: ANTHROPIC_API_KEY", "https://api.anthropic.com"]
    {
        assert!(done.out.contains(part), "no {part} in\n{}", done.out);
    }
    assert_eq!(sandbox.snapshot(), before);
}

/// Case 33: an expired login that cannot be renewed does not stop the key behind it, and is named.
#[test]
fn a_failed_renewal_falls_to_the_next_profile_with_a_warning() {
    let lab = lab("[]");
    let sandbox = with_profiles(json!({
        "anthropic:login": oauth(now() - 1000), "anthropic:default": key(KEY) }));
    sandbox.use_lab(&lab, json!({}));
    let done = sandbox.run(&["agent", "-m", "x"]).exits(0).says("anthropic:login");
    assert!(!done.out.is_empty());
    assert_eq!(used(&messages(&lab)[0]), fingerprint(KEY));
    // Case 30: nobody was asked for a new token.
    assert!(lab.log().iter().all(|entry| entry.path() != "/v1/oauth/token"));
}

/// Case 30: alone, the expired login is the error.
#[test]
fn an_expired_login_alone_is_said_so() {
    let sandbox = with_profiles(json!({ "anthropic:login": oauth(now() - 1000) }));
    sandbox
        .run(&["agent", "-m", "x"])
        .exits(1)
        .says("OAuth token refresh failed for anthropic: ")
        .says("Please try again or re-authenticate.");
}

/// Case 44.
#[test]
fn a_refused_key_cools_and_is_not_the_last_good_one() {
    let lab = lab("[{ fault: { error: 27 } }]");
    let sandbox = with_profiles(json!({ "anthropic:default": key(KEY) }));
    sandbox.use_lab(&lab, json!({}));
    sandbox.run(&["agent", "-m", "x"]).exits(1).says("invalid x-api-key");
    let store = sandbox.store();
    let stats = &store["usageStats"]["anthropic:default"];
    assert!(stats["cooldownUntil"].as_i64().unwrap() > now(), "{stats}");
    assert_eq!(stats["failureCounts"]["auth"], 1);
    assert!(store.get("lastGood").is_none());
    // And now it is left alone, with the reason.
    sandbox
        .run(&["agent", "-m", "x"])
        .exits(1)
        .says("No available auth profile for anthropic (all in cooldown or unavailable).");
    assert_eq!(messages(&lab).len(), 1);
}

/// Case 58 in its first form: a limit of one profile sends the request to the next.
#[test]
fn a_limited_profile_hands_over() {
    let plan = "[{ match: { key: 'E001' }, fault: { error: 39, retryAfter: 120 } }]";
    let lab = lab(plan);
    let sandbox = with_profiles(json!({ "anthropic:a": key(KEY), "anthropic:b": key(KEY2) }));
    sandbox.use_lab(&lab, json!({}));
    sandbox.run(&["agent", "-m", "x"]).exits(0);
    let log = messages(&lab);
    assert_eq!((used(&log[0]), used(&log[1])), (&*fingerprint(KEY), &*fingerprint(KEY2)));
    let store = sandbox.store();
    let limited = &store["usageStats"]["anthropic:a"]["models"]["claude-opus-4-5"];
    let until = limited["cooldownUntil"].as_i64().unwrap();
    assert!((until - now() - 120_000).abs() < 10_000, "{limited}");
    assert_eq!(store["lastGood"]["anthropic"], "anthropic:b");
    let status = sandbox.run(&["models", "status", "--json"]).exits(0).json();
    let row = &status["auth"]["unusableProfiles"][0];
    assert_eq!(
        (&row["profileId"], &row["models"]),
        (&json!("anthropic:a"), &json!(["claude-opus-4-5"]))
    );
}

/// Cases 15 and 47: the next model answers when the first cannot, and nobody is punished for it.
#[test]
fn another_model_answers_when_the_service_fails() {
    let lab = lab("[{ match: { model: 'claude-opus-*' }, fault: { error: 49 } }]");
    let sandbox = with_profiles(json!({ "anthropic:default": key(KEY) }));
    let model = json!({ "primary": "anthropic/claude-opus-4-5", "fallbacks": ["anthropic/claude-sonnet-4-5"] });
    sandbox.use_lab(&lab, json!({ "agents": { "defaults": { "model": model } } }));
    let done = sandbox.run(&["agent", "-m", "x", "--json"]).exits(0).json();
    assert_eq!(done["meta"]["agentMeta"]["model"], "claude-sonnet-4-5");
    let status = sandbox.run(&["models", "status", "--json"]).exits(0).json();
    assert_eq!(status["auth"]["unusableProfiles"], json!([]));
}

/// Case 15: a provider of the config that speaks the same dialect, after a 429.
#[test]
fn a_provider_of_the_config_is_a_fallback() {
    let lab = lab("[{ match: { key: 'E001' }, fault: { error: 39 } }]");
    let sandbox = Sandbox::new().env("ANTHROPIC_API_KEY", KEY);
    sandbox.use_lab(
        &lab,
        json!({
            "models": { "providers": { "proxy": {
                "baseUrl": lab.url(), "api": "anthropic-messages", "apiKey": KEY2,
                "models": [{ "id": "big", "name": "Big" }] } } },
            "agents": { "defaults": { "model": {
                "primary": "anthropic/claude-opus-4-5", "fallbacks": ["proxy/big"] } } },
        }),
    );
    let done = sandbox.run(&["agent", "-m", "x", "--json"]).exits(0).json();
    assert_eq!(done["meta"]["agentMeta"]["provider"], "proxy");
    let log = messages(&lab);
    let last = log.last().unwrap();
    assert_eq!((used(last), &last.body["model"]), (&*fingerprint(KEY2), &json!("big")));
    assert!(last.body.to_string().find("ttl").is_none());
}

/// Case 48: two models fail, both are named.
#[test]
fn every_failure_is_named() {
    let lab = lab("[{ fault: { error: 49 } }]");
    let sandbox = with_profiles(json!({ "anthropic:default": key(KEY) }));
    let model = json!({ "primary": "anthropic/claude-opus-4-5", "fallbacks": ["anthropic/claude-sonnet-4-5"] });
    sandbox.use_lab(&lab, json!({ "agents": { "defaults": { "model": model } } }));
    sandbox
        .run(&["agent", "-m", "x"])
        .exits(1)
        .says("All models failed (2): ")
        .says("anthropic/claude-opus-4-5: ")
        .says("anthropic/claude-sonnet-4-5: ");
}

/// Case 46: a bad request is nobody's fault, whatever digits it contains.
#[test]
fn a_bad_request_cools_nobody() {
    let lab =
        lab("[{ fault: { error: 10, headers: { 'request-id': 'req_429_timeout_billing' } } }]");
    let sandbox = with_profiles(json!({ "anthropic:default": key(KEY) }));
    sandbox.use_lab(&lab, json!({}));
    sandbox.run(&["agent", "-m", "429 billing timeout"]).exits(1).says("LLM request rejected: ");
    assert!(sandbox.store()["usageStats"]["anthropic:default"].get("cooldownUntil").is_none());
    assert_eq!(messages(&lab).len(), 1);
}

/// Two real processes with the same store decide the same, for stores of every sort.
#[test]
fn two_processes_with_the_same_store_choose_the_same() {
    const NOON: &str = "2026-11-22T12:00:00Z";
    let noon = 1_795_348_800_000_i64;
    let mut state = 7_u64;
    let mut below = |most: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % most
    };
    let mut orders = std::collections::BTreeSet::new();
    for number in 0..12 {
        let (mut profiles, mut stats, mut order) = (json!({}), json!({}), Vec::new());
        for name in 0..12 {
            let id = format!("anthropic:p{}-{name}", below(1_000));
            let hours = |count: u64| (count as i64 - 5) * 3_600_000;
            profiles[&id] = match below(3) {
                0 => key(KEY),
                1 => token_profile(Some(noon + hours(below(20)))),
                _ => oauth(noon + hours(below(20))),
            };
            stats[&id] = json!({ "lastUsed": noon - below(10) as i64, "errorCount": 1 });
            if below(4) == 0 {
                stats[&id]["cooldownUntil"] = json!(noon + hours(below(20)));
            }
            if below(2) == 0 {
                order.push(id);
            }
        }
        let mut store = json!({ "version": 1, "profiles": profiles, "usageStats": stats });
        if number % 3 == 0 {
            store["order"] = json!({ "anthropic": order });
        }
        let sandbox = Sandbox::new().env("MOLTBOT_LAB_CLOCK", NOON);
        sandbox.write_store(&store);
        let strategy = ["order", "round-robin", "drain", "least-used"][number % 4];
        sandbox.write_config(&json!({ "auth": { "strategy": strategy } }).to_string());
        let start = || {
            let mut command = sandbox.command(&["models", "why", "--dry-run", "--json"]);
            command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
            command.stderr(std::process::Stdio::null()).spawn().unwrap()
        };
        // Side by side, so that neither sees what the other may have left.
        let both = [start(), start()].map(|child| {
            let output = child.wait_with_output().unwrap();
            let record: Value = serde_json::from_slice(&output.stdout).unwrap();
            record["models"].clone()
        });
        assert_eq!(both[0], both[1], "store {number}");
        assert!(both[0][0]["candidates"].as_array().unwrap().len() >= 6, "{}", both[0]);
        orders.insert(both[0].to_string());
    }
    assert_eq!(orders.len(), 12, "the stores differ, and so do the choices");
}
