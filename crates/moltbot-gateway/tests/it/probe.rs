//! Probes say what is so and change nothing (spec L-38, case 67).

use moltbot_core::{Credential, Secret};
use moltbot_gateway::*;
use serde_json::json;

use crate::stage::*;

fn probe(stage: &Stage, options: ProbeOptions) -> Vec<ProbeResult> {
    block_on(async {
        let engine = stage.engine();
        let mut results = Vec::new();
        for target in engine.probe_targets(None, &[]).await.unwrap() {
            results.push(engine.probe(&target, &options).await);
        }
        results
    })
}

#[test]
fn every_answer_has_its_word_and_the_store_stays() {
    for (fault, expected) in [
        ("{}", ProbeStatus::Ok),
        ("{error: 'invalid-key'}", ProbeStatus::Auth),
        ("{error: 'billing'}", ProbeStatus::Billing),
        ("{error: 'credit-balance'}", ProbeStatus::Billing),
        ("{error: 'rate-limit'}", ProbeStatus::RateLimit),
        ("{error: 'overloaded'}", ProbeStatus::RateLimit),
        ("{error: 'temperature'}", ProbeStatus::Format),
        ("{error: 'server-error'}", ProbeStatus::Unknown),
        ("{stall: 'headers'}", ProbeStatus::Timeout),
        ("{stall: {afterBytes: 50}}", ProbeStatus::Timeout),
    ] {
        let plan = format!("{{rules: [{{fault: {fault}}}]}}");
        let stage = Stage::new(&plan).key("anthropic:default", ONE);
        let before = stage.profiles().to_json(stage.clock.now());
        let timeout_ms = if expected == ProbeStatus::Timeout { 1_000 } else { 60_000 };
        let results = probe(&stage, ProbeOptions { timeout_ms, max_tokens: 8 });
        assert_eq!(results[0].status, expected, "{fault}: {:?}", results[0].error);
        assert_eq!(results[0].error.is_none(), expected == ProbeStatus::Ok);
        assert!(results[0].latency_ms.is_some());
        assert_eq!(stage.requests().len(), 1, "{fault}: one request");
        assert_eq!(stage.profiles().to_json(stage.clock.now()), before, "{fault}");
    }
}

#[test]
fn what_cannot_be_used_is_not_sent() {
    let expired = Credential::token(
        "anthropic",
        Secret::new(TOKEN),
        Some(moltbot_core::Timestamp::from_millis(1)),
    );
    let mut stage = Stage::new("{}")
        .key("anthropic:default", ONE)
        .key("anthropic:other", TWO)
        .with("anthropic:manual", expired);
    stage.config =
        json!({"auth": {"order": {"anthropic": ["anthropic:default", "anthropic:manual"]}}});
    let results = probe(&stage, ProbeOptions::default());
    let of =
        |id: &str| results.iter().find(|r| r.target.profile_id.as_deref() == Some(id)).unwrap();
    assert_eq!(of("anthropic:default").status, ProbeStatus::Ok);
    assert_eq!(
        of("anthropic:other").error.as_deref(),
        Some("Excluded by auth.order for this provider.")
    );
    assert_eq!(
        of("anthropic:manual").error.as_deref(),
        Some("Auth profile credentials are missing or expired.")
    );
    assert_eq!(of("anthropic:manual").status, ProbeStatus::Unknown);
    assert_eq!(stage.requests().len(), 1);
    let seen = &stage.requests()[0];
    assert_eq!((&seen.body["max_tokens"], seen.body.get("tools")), (&json!(8), None));
}

#[test]
fn without_profiles_one_other_credential_is_tried() {
    let stage = Stage::new("{}").env("ANTHROPIC_API_KEY", ONE);
    let results = probe(&stage, ProbeOptions::default());
    assert_eq!(results.len(), 1);
    let json = serde_json::to_value(&results[0]).unwrap();
    assert_eq!(json["source"], "env");
    assert_eq!(json["status"], "ok");
    assert_eq!(json["model"], "claude-opus-4-5");
    assert!(json.get("excluded").is_none() && json.get("error").is_none());
}
