//! What goes over the wire, seen from the other end (spec cases 49 to 57).

use serde_json::{Value, json};

use crate::support::{KEY, Sandbox, lab, messages, token};

fn with_key() -> Sandbox {
    Sandbox::new().env("ANTHROPIC_API_KEY", KEY)
}

fn with_token() -> Sandbox {
    Sandbox::new().env("ANTHROPIC_OAUTH_TOKEN", &token())
}

fn ttl(value: &str) -> Value {
    json!({ "agents": { "defaults": { "models": {
        "anthropic/claude-opus-4-5": { "params": { "cacheControlTtl": value } } } } } })
}

/// Collects every `cache_control` of a body.
fn breakpoints(body: &Value) -> Vec<Value> {
    match body {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| match key.as_str() {
                "cache_control" => vec![value.clone()],
                _ => breakpoints(value),
            })
            .collect(),
        Value::Array(list) => list.iter().flat_map(breakpoints).collect(),
        _ => Vec::new(),
    }
}

/// Case 49.
#[test]
fn a_key_goes_into_its_own_header() {
    let lab = lab("[]");
    let sandbox = with_key();
    sandbox.use_lab(&lab, json!({}));
    sandbox.run(&["agent", "-m", "x"]).exits(0);
    let log = messages(&lab);
    assert!(log[0].header("x-api-key").is_some() && log[0].header("authorization").is_none());
    assert!(log[0].header("user-agent").unwrap().starts_with("moltbot/"));
    assert_eq!(log[0].header("anthropic-version"), Some("2023-06-01"));
    let beta = log[0].header("anthropic-beta").unwrap();
    for flag in [
        "fine-grained-tool-streaming-2025-05-14",
        "interleaved-thinking-2025-05-14",
        "extended-cache-ttl-2025-04-11",
    ] {
        assert!(beta.contains(flag), "{beta}");
    }
    assert_eq!(log[0].body["stream"], true);
}

/// Cases 49 and 50: a token is a bearer and poses as nobody.
#[test]
fn a_token_poses_as_nobody() {
    let lab = lab("[]");
    let sandbox = with_token();
    sandbox.use_lab(&lab, ttl("1h"));
    sandbox.run(&["agent", "-m", "x", "--system", "Be brief."]).exits(0);
    let log = messages(&lab);
    let request = &log[0];
    assert!(request.header("authorization").is_some() && request.header("x-api-key").is_none());
    assert!(request.header("user-agent").unwrap().starts_with("moltbot/"));
    assert!(request.header("x-app").is_none());
    let beta = request.header("anthropic-beta").unwrap();
    assert!(beta.contains("oauth-2025-04-20"), "{beta}");
    assert!(!beta.contains("claude-code") && !beta.contains("extended-cache-ttl"), "{beta}");
    let system = request.body["system"].to_string();
    assert!(system.contains("Be brief.") && !system.contains("Claude Code"), "{system}");
    // Case 52: no lifetime with a token, although the config asks for one.
    let breakpoints = breakpoints(&request.body);
    assert!(!breakpoints.is_empty() && breakpoints.iter().all(|b| b.get("ttl").is_none()));
}

/// Case 51.
#[test]
fn a_cache_lifetime_is_set_when_it_is_a_known_one() {
    let lab = lab("[]");
    for (value, expected) in [("1h", Some("1h")), ("5m", Some("5m")), ("2h", None)] {
        lab.clear_log();
        let sandbox = with_key();
        sandbox.use_lab(&lab, ttl(value));
        let done = sandbox.run(&["agent", "-m", "x", "--system", "s"]);
        if value == "2h" && done.code != 0 {
            // A schema may refuse the value; it must not be sent either way.
            assert!(done.err.contains("cacheControlTtl"), "{}", done.err);
            continue;
        }
        done.exits(0);
        let log = messages(&lab);
        let found = breakpoints(&log[0].body);
        assert!(found.len() >= 2, "{found:?}");
        for breakpoint in found {
            assert_eq!(breakpoint.get("ttl").and_then(Value::as_str), expected, "{breakpoint}");
        }
    }
}

/// Case 53.
#[test]
fn the_configs_betas_join_ours() {
    let lab = lab("[]");
    let sandbox = with_key();
    let headers = json!({ "Anthropic-Beta": "my-beta", "X-Api-Key": "sk-ant-api03-FAKEother" });
    sandbox.use_lab(
        &lab,
        json!({ "models": { "providers": { "anthropic": { "headers": headers } } } }),
    );
    sandbox.run(&["agent", "-m", "x"]).exits(0);
    let log = messages(&lab);
    let betas: Vec<_> =
        log[0].headers.iter().filter(|(name, _)| name == "anthropic-beta").collect();
    assert_eq!(betas.len(), 1, "{betas:?}");
    let flags: Vec<&str> = betas[0].1.split(',').map(str::trim).collect();
    assert_eq!(flags.iter().filter(|flag| **flag == "my-beta").count(), 1);
    assert!(flags.contains(&"extended-cache-ttl-2025-04-11"));
    assert_eq!(log[0].credentials.len(), 1);
    assert_eq!(log[0].credentials[0].sha256, moltbot_lab::fingerprint(KEY));
}

/// Case 54.
#[test]
fn thinking_has_its_budget() {
    let lab = lab("[]");
    let sandbox = with_key();
    sandbox.use_lab(&lab, json!({}));
    sandbox.run(&["agent", "-m", "x", "--thinking", "medium"]).exits(0);
    sandbox.run(&["agent", "-m", "x", "--thinking", "off"]).exits(0);
    let log = messages(&lab);
    assert_eq!(log[0].body["thinking"], json!({ "type": "enabled", "budget_tokens": 8192 }));
    assert_eq!(log[0].body["max_tokens"], 40192);
    assert!(log[1].body.get("thinking").is_none());
    assert_eq!(log[1].body["max_tokens"], 32000);
}

/// Case 56: refused as somebody else's credential; the text stays, the advice is a way out, and
/// nothing is tried in disguise.
#[test]
fn a_refused_subscription_is_explained_and_not_disguised() {
    let lab = lab("[{ fault: { error: 2 } }]");
    let sandbox = with_token();
    sandbox.use_lab(&lab, json!({}));
    let done = sandbox
        .run(&["agent", "-m", "x"])
        .exits(1)
        .says("This credential is only authorized for use with Claude Code");
    assert!(done.err.contains("API key"), "{}", done.err);
    assert_eq!(messages(&lab).len(), 1);
}

/// Case 57, first half.
#[test]
fn unknown_events_are_ignored() {
    let lab = lab("[{ fault: { sse: { unknownEvents: true } } }]");
    let sandbox = with_key();
    sandbox.use_lab(&lab, json!({}));
    let done = sandbox.run(&["agent", "-m", "x"]).exits(0);
    assert!(done.out.contains("x"), "{}", done.out);
}

/// Case 57, second half: what came before the break is kept, and it is an error.
#[test]
fn a_broken_stream_is_an_error_with_its_beginning() {
    let lab = lab(
        "[{ fault: { reply: { text: 'one two three four five six', events: 6 }, cutAt: 1100 } }]",
    );
    let sandbox = with_key();
    sandbox.use_lab(&lab, json!({}));
    let done = sandbox.run(&["agent", "-m", "x", "--thinking", "off"]).exits(1);
    assert!(done.out.starts_with("one"), "{}", done.out);
    assert!(!done.out.contains("six"), "{}", done.out);
}

/// Case 55, the second half at the command's own output.
#[test]
fn usage_and_cost_are_reported() {
    let lab = lab("[]");
    let sandbox = with_key();
    sandbox.use_lab(&lab, json!({}));
    let done = sandbox.run(&["agent", "-m", "x", "--json"]).exits(0).json();
    let meta = &done["meta"]["agentMeta"];
    let (input, output) =
        (meta["usage"]["input"].as_u64().unwrap(), meta["usage"]["output"].as_u64().unwrap());
    assert!(input > 0 && output > 0, "{meta}");
    let cost = (input as f64 * 5.0 + output as f64 * 25.0) / 1e6;
    assert!((meta["cost"].as_f64().unwrap() - cost).abs() < 1e-9, "{meta}");
    assert_eq!(done["payloads"][0]["mediaUrl"], Value::Null);
    assert_eq!(done["isError"], false);
}
