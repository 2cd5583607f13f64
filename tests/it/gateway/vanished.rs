//! A store that somebody takes away from a running gateway.

use serde_json::json;

use super::upstream::{Upstream, reply};
use super::{Gate, hello};
use crate::support::{KEY, Sandbox, until};

const OK: &str = r#"{"id":"msg_1","type":"message","role":"assistant","content":[],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#;

/// The gateway says so, writes no other store in its place, and goes on when it is back.
#[test]
fn a_store_that_is_gone_is_told_and_not_replaced() {
    let upstream = Upstream::start(|_, stream| reply(stream, "200 OK", "", OK));
    let sandbox = Sandbox::new();
    sandbox.write_config(&super::config(upstream.url(), json!({})).to_string());
    sandbox.write_store(&json!({ "version": 1, "profiles": {
        "anthropic:default": { "type": "api_key", "provider": "anthropic", "key": KEY },
    } }));
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("log");
    let gate = Gate::logged(&sandbox, &log, &[]);
    assert_eq!(gate.post("/v1/messages", &hello()).status, 200);
    let (store, aside) = (sandbox.store_path(), place.path().join("aside"));
    // Its statistics are written first, so that nothing is under way when it goes.
    until(|| sandbox.store()["usageStats"]["anthropic:default"].is_object());
    std::fs::rename(&store, &aside).unwrap();
    let warned = || std::fs::read_to_string(&log).unwrap_or_default();
    // Whether it is noticed by a request or by itself.
    until(|| {
        gate.post("/v1/messages", &hello());
        warned().contains("is gone, and 1 login with it")
    });
    assert!(warned().contains("auth-profiles.json"), "{}", warned());
    assert!(!store.exists(), "another store was written");
    assert_ne!(gate.post("/v1/messages", &hello()).status, 200);
    std::fs::rename(&aside, &store).unwrap();
    until(|| gate.post("/v1/messages", &hello()).status == 200);
    assert_eq!(sandbox.store()["profiles"]["anthropic:default"]["key"], KEY);
    assert_eq!(warned().matches("is gone").count(), 1, "{}", warned());
}
