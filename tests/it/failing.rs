//! What failures cost and what follows them, by a clock that the tests set: cooldowns, pins, model
//! fallback (spec cases 41 to 43, 45, 48; S-3, S-21 to S-24).

use moltbot_lab::{Lab, fingerprint};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{Done, KEY, KEY2, Sandbox, lab, messages, now, until, used};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// A limit that names no time.
const LIMITED: &str = r#"{"status":429,"body":"{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"slow down\"}}"}"#;

fn key(key: &str) -> Value {
    json!({ "type": "api_key", "provider": "anthropic", "key": key })
}

/// A home with one key, whose requests go to a lab with this plan.
fn one_key(plan: &str, more: Value) -> (Sandbox, Lab) {
    let lab = lab(plan);
    let sandbox = Sandbox::new();
    let profiles = json!({ "anthropic:default": key(KEY) });
    sandbox.write_store(&json!({ "version": 1, "profiles": profiles }));
    sandbox.use_lab(&lab, more);
    (sandbox, lab)
}

/// Runs a command at a time.
fn at(sandbox: &mut Sandbox, time: i64, args: &[&str]) -> Done {
    sandbox.set_env("MOLTBOT_LAB_CLOCK", Some(&time.to_string()));
    sandbox.run(args)
}

fn stats(sandbox: &Sandbox) -> Value {
    sandbox.store()["usageStats"]["anthropic:default"].clone()
}

/// Cases 41 and 42: 1, 5, 25, 60, 60 minutes; after a day without failure from the start again; a
/// success clears the counters.
#[test]
fn cooldowns_grow_and_end() {
    let plan = format!("[{{ match: {{ request: [1, 2, 3, 4, 5, 6] }}, fault: {LIMITED} }}]");
    // Nobody waits, so that each run is one request.
    let (mut sandbox, lab) = one_key(&plan, json!({ "auth": { "maxWaitSeconds": 0 } }));
    let mut time = now();
    for (n, minutes) in [1, 5, 25, 60, 60].into_iter().enumerate() {
        at(&mut sandbox, time, &["agent", "-m", "x"]).exits(1).says("rests for");
        let of_model = stats(&sandbox)["models"]["claude-opus-4-5"].clone();
        let rest = of_model["cooldownUntil"].as_i64().unwrap();
        let failed = of_model["lastFailureAt"].as_i64().unwrap();
        assert_eq!(rest - failed, minutes * MINUTE, "failure {}: {of_model}", n + 1);
        assert_eq!(of_model["failureCounts"]["rate_limit"], n + 1);
        time = rest;
    }
    time += 25 * HOUR;
    at(&mut sandbox, time, &["agent", "-m", "x"]).exits(1);
    let of_model = stats(&sandbox)["models"]["claude-opus-4-5"].clone();
    let rest = of_model["cooldownUntil"].as_i64().unwrap();
    assert_eq!(rest - of_model["lastFailureAt"].as_i64().unwrap(), MINUTE, "{of_model}");
    at(&mut sandbox, rest + HOUR, &["agent", "-m", "x"]).exits(0);
    let stats = stats(&sandbox);
    assert!(stats["models"].get("claude-opus-4-5").is_none(), "{stats}");
    assert_eq!(sandbox.store()["lastGood"]["anthropic"], "anthropic:default");
    assert_eq!(messages(&lab).len(), 7);
}

/// Case 41: billing 5, 10, 20, 24 hours; 2 by provider gives 2.
#[test]
fn unpaid_accounts_rest_for_hours() {
    let (mut sandbox, _lab) = one_key("[{ fault: { error: 1 } }]", json!({}));
    let pinned = ["agent", "-m", "x", "--model", "anthropic/claude-opus-4-5@anthropic:default"];
    let mut time = now();
    for hours in [5, 10, 20, 24] {
        at(&mut sandbox, time, &pinned).exits(1);
        let stats = stats(&sandbox);
        assert_eq!(stats["disabledReason"], "billing", "{stats}");
        assert_eq!(stats["disabledUntil"].as_i64().unwrap() - time, hours * HOUR, "{stats}");
        time += HOUR;
    }
    let own =
        json!({ "auth": { "cooldowns": { "billingBackoffHoursByProvider": { "anthropic": 2 } } } });
    let (mut sandbox, _lab) = one_key("[{ fault: { error: 1 } }]", own);
    at(&mut sandbox, time, &["agent", "-m", "x"]).exits(1);
    assert_eq!(stats(&sandbox)["disabledUntil"].as_i64().unwrap() - time, 2 * HOUR);
}

/// Two keys, of which these rest from `time` on for so many minutes.
fn resting(time: i64, minutes: [i64; 2]) -> (Sandbox, Lab) {
    let lab = lab("[]");
    let sandbox = Sandbox::new();
    let rest = |minutes: i64| match minutes {
        0 => json!({}),
        minutes => json!({ "cooldownUntil": time + minutes * MINUTE, "lastFailureAt": time - 1 }),
    };
    sandbox.write_store(&json!({ "version": 1,
        "profiles": { "anthropic:a": key(KEY), "anthropic:b": key(KEY2) },
        "order": { "anthropic": ["anthropic:a", "anthropic:b"] },
        "usageStats": { "anthropic:a": rest(minutes[0]), "anthropic:b": rest(minutes[1]) } }));
    sandbox.use_lab(&lab, json!({}));
    (sandbox, lab)
}

/// Case 43.
#[test]
fn all_cooling_is_said_and_listed_soonest_first() {
    let time = now();
    let (mut sandbox, lab) = resting(time, [9, 4]);
    at(&mut sandbox, time, &["agent", "-m", "x"])
        .exits(1)
        .says("No available auth profile for anthropic (all in cooldown or unavailable).")
        .says("anthropic:b");
    assert!(messages(&lab).is_empty());
    let status = at(&mut sandbox, time, &["models", "status", "--json"]).exits(0).json();
    let rows = status["auth"]["unusableProfiles"].as_array().unwrap();
    let ids: Vec<&str> = rows.iter().map(|row| row["profileId"].as_str().unwrap()).collect();
    assert_eq!(ids, ["anthropic:b", "anthropic:a"]);
    assert_eq!(rows[0]["remainingMs"], 4 * MINUTE);
}

/// Case 45.
#[test]
fn pins_of_users_hold_and_automatic_ones_give_way() {
    let time = now();
    let (mut sandbox, lab) = resting(time, [9, 0]);
    let pinned = ["agent", "-m", "x", "--model", "anthropic/claude-opus-4-5@anthropic:a"];
    at(&mut sandbox, time, &pinned).exits(0);
    assert_eq!(used(&messages(&lab)[0]), fingerprint(KEY), "a user's pin is used while it rests");

    let (mut sandbox, lab) = resting(time, [0, 0]);
    at(&mut sandbox, time, &["agent", "-m", "x"]).exits(0);
    let mut store = sandbox.store();
    store["usageStats"]["anthropic:a"]["cooldownUntil"] = json!(time + HOUR);
    store["usageStats"]["anthropic:a"]["lastFailureAt"] = json!(time);
    sandbox.write_store(&store);
    at(&mut sandbox, time + 1, &["agent", "-m", "y", "--continue"]).exits(0);
    let log = messages(&lab);
    assert_eq!((used(&log[0]), used(&log[1])), (&*fingerprint(KEY), &*fingerprint(KEY2)));
}

fn models(primary: &str, fallbacks: &[&str]) -> Value {
    json!({ "agents": { "defaults": { "model": { "primary": primary, "fallbacks": fallbacks } } } })
}

/// S-22, S-23: an agent's own empty list means none; one attempt is rethrown as it is.
#[test]
fn an_agents_own_list_of_fallbacks_counts_even_if_empty() {
    let mut config = models("anthropic/claude-opus-4-5", &["anthropic/claude-sonnet-4-5"]);
    config["agents"]["list"] = json!([{ "id": "main", "default": true,
        "model": { "primary": "anthropic/claude-opus-4-5", "fallbacks": [] } }]);
    let (sandbox, lab) = one_key("[{ fault: { error: 27 } }]", config);
    let done = sandbox.run(&["agent", "-m", "x"]).exits(1).says("invalid x-api-key");
    assert!(!done.err.contains("All models failed"), "{}", done.err);
    assert_eq!(messages(&lab).len(), 1);
}

/// S-3, S-22: the allowlist binds what is asked for and the fallbacks, not the configured model.
#[test]
fn the_allowlist_binds_requests_and_fallbacks() {
    let mut config = models("anthropic/claude-opus-4-5", &["anthropic/claude-haiku-4-5"]);
    config["agents"]["defaults"]["models"] = json!({ "anthropic/claude-sonnet-4-5": {} });
    let (sandbox, lab) = one_key("[{ fault: { error: 27 } }]", config);
    sandbox
        .run(&["agent", "-m", "x", "--model", "anthropic/claude-haiku-4-5"])
        .exits(1)
        .says("model not allowed: anthropic/claude-haiku-4-5");
    assert!(messages(&lab).is_empty());
    sandbox.run(&["agent", "-m", "x"]).exits(1).says("anthropic/claude-haiku-4-5 is left out");
    assert_eq!(messages(&lab).len(), 1, "the configured model is asked, the fallback is not");
    sandbox.run(&["agent", "-m", "x", "--model", "/"]).exits(1).says("invalid model: /");
    sandbox.run(&["agent", "-m", "x", "--model", "no/such"]).exits(1);
}

/// S-21: a prompt that is too long is nobody's fault, and no other model is asked.
#[test]
fn a_context_overflow_moves_nobody() {
    let config = models("anthropic/claude-opus-4-5", &["anthropic/claude-sonnet-4-5"]);
    let (sandbox, lab) = one_key("[{ fault: { error: 'prompt-too-long' } }]", config);
    sandbox.run(&["agent", "-m", "x"]).exits(1).says(
        "Context overflow: prompt too large for the model. Try again with less input or a \
         larger-context model.",
    );
    assert_eq!(messages(&lab).len(), 1);
    assert!(stats(&sandbox).get("cooldownUntil").is_none());
}

/// Case 48: who stops a request wants no other model.
#[test]
fn an_abort_falls_back_to_nobody() {
    let config = models("anthropic/claude-opus-4-5", &["anthropic/claude-sonnet-4-5"]);
    let (sandbox, lab) = one_key("[{ fault: { stall: 'headers' } }]", config);
    let mut child = sandbox
        .command(&["agent", "-m", "x"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until(|| !messages(&lab).is_empty());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(messages(&lab).len(), 1);
    assert!(stats(&sandbox).is_null(), "nobody is punished");
}

/// S-24: images go to models that see them.
#[test]
fn images_have_models_of_their_own() {
    let blind = json!({ "models": { "providers": { "anthropic": {
        "models": [{ "id": "blind", "name": "Blind", "input": ["text"] }] } } } });
    let mut config = models("anthropic/blind", &[]);
    config["models"] = blind["models"].clone();
    let (sandbox, lab) = one_key("[{ fault: { error: 27 } }]", config.clone());
    let png: Vec<u8> = [&b"\x89PNG\r\n\x1a\n"[..], &[0; 32]].concat();
    std::fs::write(sandbox.cwd().join("a.png"), png).unwrap();
    let ask = ["agent", "-m", "what is it", "--image", "a.png"];
    sandbox.run(&ask).exits(1).says(
        "No image model configured. Set agents.defaults.imageModel.primary or \
         agents.defaults.imageModel.fallbacks.",
    );
    assert!(messages(&lab).is_empty());
    config["agents"]["defaults"]["imageModel"] = json!({
        "primary": "anthropic/claude-sonnet-4-5", "fallbacks": ["anthropic/claude-haiku-4-5"] });
    sandbox.use_lab(&lab, config);
    sandbox.run(&ask).exits(1).says("All image models failed (2): anthropic/claude-sonnet-4-5: ");
}
