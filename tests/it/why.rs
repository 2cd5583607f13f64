//! Every request leaves its reasons behind: the log, `models why`, `models usage`, and cooldowns
//! that can be seen and ended (spec S-16, decision 10).

use std::os::unix::fs::PermissionsExt;

use moltbot_lab::fingerprint;
use serde_json::{Value, json};

use crate::support::{KEY, KEY2, Sandbox, lab, messages, used};

const PROMPT: &str = "plum-coloured zeppelins over Ulm";

/// Two keys in this order, and a lab that limits the first request.
fn two_keys() -> (Sandbox, moltbot_lab::Lab) {
    let plan = "[{ match: { request: 1 }, fault: { error: 'rate-limit', retryAfter: 300 } }]";
    let lab = lab(plan);
    let sandbox = Sandbox::new();
    let key = |key: &str| json!({ "type": "api_key", "provider": "anthropic", "key": key });
    sandbox.write_store(&json!({ "version": 1,
        "profiles": { "anthropic:one": key(KEY), "anthropic:two": key(KEY2) },
        "order": { "anthropic": ["anthropic:one", "anthropic:two"] } }));
    sandbox.use_lab(&lab, json!({}));
    (sandbox, lab)
}

fn records(sandbox: &Sandbox, args: &[&str]) -> Vec<Value> {
    let value = sandbox.run(&[&["models", "why", "--json"], args].concat()).exits(0).json();
    value["records"].as_array().unwrap().clone()
}

#[test]
fn a_switch_is_explained_afterwards() {
    let (sandbox, lab) = two_keys();
    let done = sandbox.run(&["agent", "-m", PROMPT, "--json"]).exits(0).json();
    let id = done["meta"]["agentMeta"]["record"].as_str().unwrap().to_string();

    let record = &records(&sandbox, &["--request", &id])[0];
    let attempts = record["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[0]["source"], "profile:anthropic:one");
    assert_eq!(
        (&attempts[0]["class"], &attempts[0]["status"]),
        (&json!("rate_limit"), &json!(429))
    );
    assert!(attempts[0]["until"].is_i64() && attempts[0]["requestId"].is_string(), "{record}");
    assert_eq!(attempts[1]["source"], "profile:anthropic:two");
    assert_eq!(record["outcome"]["type"], "answered");

    let told = sandbox.run(&["models", "why"]).exits(0).out;
    for part in [
        &id,
        "Answered by : anthropic/claude-opus-4-5",
        "Credential  : profile:anthropic:two (billed per use)",
        "1. anthropic/claude-opus-4-5 with profile:anthropic:one: rate_limit, HTTP 429",
        "rests for 5m",
        "2. anthropic/claude-opus-4-5 with profile:anthropic:two: answered, HTTP 200",
    ] {
        assert!(told.contains(part), "no {part:?} in\n{told}");
    }

    // The next request says why the first key is left out.
    sandbox.run(&["agent", "-m", PROMPT]).exits(0);
    let told = sandbox.run(&["models", "why"]).exits(0).out;
    assert!(told.contains("profile:anthropic:one [api-key, billed per use], left out:"), "{told}");
    assert!(told.contains("cooling down"), "{told}");
    assert_eq!(messages(&lab).len(), 3);
    assert_eq!(records(&sandbox, &["--last", "9"]).len(), 2);
}

#[test]
fn failures_are_kept_and_nothing_that_was_said() {
    // 27 is the body of a refused key.
    let lab = lab("[{ fault: { error: 27 } }]");
    let sandbox = Sandbox::new().env("ANTHROPIC_API_KEY", KEY);
    sandbox.use_lab(&lab, json!({}));
    let done = sandbox.run(&["agent", "-m", PROMPT, "--system", "Speak of cucumbers", "--json"]);
    let id = done.exits(1).json()["meta"]["agentMeta"]["record"].clone();
    let record = &records(&sandbox, &[])[0];
    assert_eq!(record["id"], id);
    assert_eq!(record["outcome"], json!({ "type": "failed", "code": "credential-refused" }));

    let path = sandbox.state("agents/main/logs/requests.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    for secret in ["zeppelins", "cucumbers", &KEY[14..]] {
        assert!(!text.contains(secret), "{secret} is in the log:\n{text}");
    }
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&sandbox.state("agents/main/logs"))), (0o600, 0o700));

    sandbox
        .run(&["models", "why", "--request", "mb_01m2m5pr000000000007"])
        .exits(1)
        .says("hint: moltbot explain record-unknown");
}

#[test]
fn a_log_that_refuses_costs_no_reply() {
    let lab = lab("[]");
    let sandbox = Sandbox::new().env("ANTHROPIC_API_KEY", KEY);
    sandbox.use_lab(&lab, json!({}));
    sandbox.write(&sandbox.state("agents/main/logs"), "a file where a directory should be");
    let done = sandbox.run(&["agent", "-m", "x"]).exits(0).says("cannot be recorded");
    assert!(!done.out.is_empty());
}

#[test]
fn usage_adds_up_what_the_log_holds() {
    let (sandbox, lab) = two_keys();
    let cost = |done: Value| done["meta"]["agentMeta"]["cost"].as_f64().unwrap();
    let first = cost(sandbox.run(&["agent", "-m", PROMPT, "--json"]).exits(0).json());
    let second = cost(sandbox.run(&["agent", "-m", PROMPT, "--json"]).exits(0).json());
    let usage = sandbox.run(&["models", "usage", "--by", "profile", "--json"]).exits(0).json();
    let row = &usage["rows"][0];
    assert_eq!((&row["key"], &row["requests"]), (&json!("anthropic:two"), &json!(2)));
    assert_eq!((&row["failures"], &row["attempts"]), (&json!(0), &json!(3)));
    assert!((row["cost"].as_f64().unwrap() - first - second).abs() < 1e-9, "{usage}");
    assert_eq!(messages(&lab).len(), 3);
}

#[test]
fn a_cooldown_is_listed_ended_and_forgotten() {
    let (sandbox, lab) = two_keys();
    sandbox.run(&["agent", "-m", PROMPT]).exits(0);
    let list = ["models", "auth", "cooldown", "list", "--json"];
    let resting = sandbox.run(&list).exits(0).json()["cooldowns"].clone();
    assert_eq!(resting[0]["profileId"], "anthropic:one");
    let left = resting[0]["remainingMs"].as_i64().unwrap();
    assert!((200_000..=300_000).contains(&left), "{resting}");

    let clear = ["models", "auth", "cooldown", "clear", "--profile", "anthropic:one"];
    assert_eq!(sandbox.run(&clear).exits(0).out, "Cleared: anthropic:one\n");
    assert_eq!(sandbox.run(&list).exits(0).json()["cooldowns"], json!([]));
    sandbox.run(&["agent", "-m", PROMPT]).exits(0);
    assert_eq!(used(messages(&lab).last().unwrap()), fingerprint(KEY));
}
