//! Whom a failure concerns, what is tried next, and the texts (spec 03).

use moltbot_core::{CredentialKind, Failure, FailureKind, Scope};
use moltbot_gateway::*;
use serde_json::json;

use crate::stage::*;

const OPUS: &str = "claude-opus-4-5";

fn two_keys(plan: &str) -> Stage {
    let stage = Stage::new(plan).key("anthropic:default", ONE).key("anthropic:second", TWO);
    stage.change(|profiles| {
        let order = ["anthropic:default", "anthropic:second"].map(String::from).to_vec();
        profiles.set_order("anthropic", order);
    });
    stage
}

#[test]
fn a_limited_key_gives_way_at_once() {
    let stage =
        two_keys("{rules: [{match: {key: 'one'}, fault: {error: 'rate-limit', retryAfter: 2}}]}");
    let reply = stage.chat().0.unwrap();
    assert_eq!(reply.profile.as_deref(), Some("anthropic:second"));
    assert_eq!(stage.clock.slept(), 0, "nobody sleeps while another key is free");
    let keys: Vec<_> = stage.requests().iter().map(key_of).collect();
    assert_eq!(keys, ["one", "two"]);
    assert!(stage.blocked("anthropic:default", OPUS));
    assert!(!stage.blocked("anthropic:default", "claude-haiku-4-5"), "a limit is of the model");
    assert!(reply.record.attempts[0].until.is_some());
    stage.chat().0.unwrap();
    assert_eq!(key_of(&stage.requests()[2]), "two", "the limited one rests");
}

#[test]
fn the_only_key_waits_as_long_as_the_service_says() {
    let stage =
        Stage::new("{rules: [{match: {request: 1}, fault: {error: 'rate-limit', retryAfter: 2}}]}")
            .key("anthropic:default", ONE);
    stage.chat().0.unwrap();
    assert!((1_000..=2_000).contains(&stage.clock.slept()), "{}", stage.clock.slept());
    assert_eq!(stage.requests().len(), 2);
    assert!(!stage.blocked("anthropic:default", OPUS));
}

#[test]
fn a_long_limit_is_not_waited_for() {
    let stage = Stage::new("{rules: [{fault: {error: 'rate-limit', retryAfter: 3600}}]}")
        .key("anthropic:default", ONE);
    let error = stage.chat().0.unwrap_err();
    assert_eq!((stage.requests().len(), stage.clock.slept()), (1, 0));
    assert!(error.message.starts_with("HTTP 429 rate_limit_error: "), "{}", error.message);
    assert!(error.advice.unwrap().contains("rests for"));
    let again = stage.chat().0.unwrap_err();
    assert_eq!(
        again.message,
        "No available auth profile for anthropic (all in cooldown or unavailable)."
    );
    assert_eq!(again.code, "all-cooling");
    assert_eq!(stage.requests().len(), 1, "a resting profile is not asked");
}

#[test]
fn a_short_rest_of_all_profiles_is_waited_for_once() {
    let stage = Stage::new("{}").key("anthropic:default", ONE);
    let failure = Failure {
        kind: FailureKind::RateLimit,
        scope: Scope::Profile,
        reset: Some(stage.clock.now().plus(5_000)),
        account: None,
        code: "rate-limited".into(),
        message: String::new(),
        advice: None,
    };
    let now = stage.clock.now();
    stage.change(|profiles| {
        let rules = Default::default();
        profiles.punish("anthropic:default", Some(OPUS), &failure, &rules, now, now);
    });
    stage.chat().0.unwrap();
    assert!((4_000..=6_000).contains(&stage.clock.slept()), "{}", stage.clock.slept());
    assert!(stage.told().contains("waiting"), "{}", stage.told());
}

#[test]
fn a_refused_key_rests_and_is_not_good() {
    let stage =
        Stage::new("{rules: [{fault: {error: 'invalid-key'}}]}").key("anthropic:default", ONE);
    let error = stage.chat().0.unwrap_err();
    assert!(error.message.contains("invalid x-api-key"), "{}", error.message);
    assert_eq!(stage.requests().len(), 1);
    assert!(stage.blocked("anthropic:default", OPUS));
    assert_eq!(stage.profiles().last_good("anthropic"), None);
}

#[test]
fn a_bad_request_is_nobodys_fault() {
    let stage =
        two_keys("{rules: [{fault: {error: 'ttl-order', headers: {'request-id': 'req_429429'}}}]}");
    let error = stage.chat().0.unwrap_err();
    assert!(error.message.starts_with("LLM request rejected: messages.0."), "{}", error.message);
    assert_eq!(stage.requests().len(), 1);
    assert!(!stage.blocked("anthropic:default", OPUS));
}

#[test]
fn too_long_is_said_in_the_known_words() {
    let stage = two_keys("{rules: [{fault: {error: 'prompt-too-long'}}]}");
    let error = stage.chat().0.unwrap_err();
    assert_eq!(
        error.message,
        "Context overflow: prompt too large for the model. Try again with less input or a larger-context model."
    );
    assert_eq!((error.code.as_ref(), stage.requests().len()), ("context-overflow", 1));
}

#[test]
fn an_empty_account_is_disabled_and_the_next_one_pays() {
    let stage = two_keys("{rules: [{match: {key: 'one'}, fault: {error: 'credit-balance'}}]}");
    let reply = stage.chat().0.unwrap();
    assert_eq!(reply.profile.as_deref(), Some("anthropic:second"));
    let unusable = stage.profiles().unusable(stage.clock.now());
    assert_eq!(unusable[0].profile_id, "anthropic:default");
    assert_eq!(unusable[0].reason.as_deref(), Some("billing"));
}

#[test]
fn a_broken_service_is_asked_three_times_then_the_next_model() {
    let mut stage =
        Stage::new("{rules: [{match: {model: 'claude-opus-*'}, fault: {error: 'server-error'}}]}")
            .key("anthropic:default", ONE);
    stage.config = fallbacks(&["anthropic/claude-haiku-4-5"]);
    let reply = stage.chat().0.unwrap();
    assert_eq!(reply.model.model, "claude-haiku-4-5");
    assert_eq!(stage.requests().len(), 4);
    assert!(!stage.blocked("anthropic:default", OPUS));
}

#[test]
fn an_overloaded_model_gets_one_other_profile_and_nobody_rests() {
    let stage = two_keys("{rules: [{fault: {error: 'overloaded'}}]}");
    let error = stage.chat().0.unwrap_err();
    assert_eq!(
        error.message,
        "The AI service is temporarily overloaded. Please try again in a moment."
    );
    let keys: Vec<_> = stage.requests().iter().map(key_of).collect();
    assert_eq!(keys, ["one", "two", "two"], "three tries in all, one other profile");
    for id in ["anthropic:default", "anthropic:second"] {
        assert!(!stage.blocked(id, OPUS), "{id}");
    }
}

#[test]
fn an_overloaded_model_is_passed_over_for_a_moment() {
    let mut stage =
        Stage::new("{rules: [{match: {model: 'claude-opus-*'}, fault: {error: 'overloaded'}}]}")
            .key("anthropic:default", ONE);
    stage.config = fallbacks(&["anthropic/claude-haiku-4-5"]);
    let engine = stage.engine();
    let ask = || {
        let request = ChatRequest { prompt: "hi".into(), ..ChatRequest::default() };
        let reply = block_on(engine.chat(request, &mut |_: &moltbot_core::Event| {}));
        reply.unwrap().model.model
    };
    assert_eq!(ask(), "claude-haiku-4-5");
    assert_eq!(stage.requests().len(), 2, "with another model nobody waits");
    ask();
    assert_eq!(stage.requests().len(), 3);
    stage.clock.advance(10_001);
    ask();
    assert_eq!(stage.requests().len(), 5, "ten seconds later it is asked again");
}

#[test]
fn all_models_are_listed_when_all_fail() {
    let mut stage = Stage::new("{rules: [{match: {model: 'claude-opus-*'}, fault: {error: 'model-not-found'}}, {fault: {error: 'invalid-key'}}]}")
        .key("anthropic:default", ONE);
    stage.config = fallbacks(&["anthropic/claude-haiku-4-5"]);
    let error = stage.chat().0.unwrap_err();
    assert_eq!(error.code, "all-models-failed");
    assert!(
        error.message.starts_with("All models failed (2): anthropic/claude-opus-4-5: "),
        "{}",
        error.message
    );
    assert!(
        error.message.contains(" (model_not_found) | anthropic/claude-haiku-4-5: "),
        "{}",
        error.message
    );
    assert!(error.message.ends_with(" (auth)"), "{}", error.message);
    assert_eq!(error.record.unwrap().attempts.len(), 2);
}

#[test]
fn a_fallback_of_another_provider_is_tried_without_an_allowlist() {
    let mut stage = Stage::new(
        "{rules: [{match: {model: 'claude-*'}, fault: {error: 'rate-limit', retryAfter: 1}}]}",
    )
    .env("ANTHROPIC_API_KEY", ONE);
    stage.config = json!({
        "agents": {"defaults": {"model": {"primary": "anthropic/claude-opus-4-5", "fallbacks": ["acme/gpt-5.2"]}}},
        "models": {"providers": {"acme": {"baseUrl": stage.lab.url(), "api": "anthropic-messages", "apiKey": TWO, "models": []}}},
    });
    let reply = stage.chat().0.unwrap();
    assert_eq!(reply.model.to_string(), "acme/gpt-5.2");
    assert_eq!(reply.source, "models.json");
    let keys: Vec<_> = stage.requests().iter().map(key_of).collect();
    assert_eq!(keys, ["one", "two"]);
    assert_eq!(stage.clock.slept(), 0);
    assert!(!stage.requests()[1].body.to_string().contains("ttl"));
}

#[test]
fn a_login_for_another_product_is_told_and_not_tried_again() {
    let token =
        moltbot_core::Credential::token("anthropic", moltbot_core::Secret::new(TOKEN), None);
    let stage = Stage::new("{rules: [{fault: {error: 'claude-code-only'}}]}")
        .with("anthropic:manual", token);
    let error = stage.chat().0.unwrap_err();
    assert!(
        error.message.contains("only authorized for use with Claude Code"),
        "{}",
        error.message
    );
    assert!(error.advice.unwrap().contains("API key"));
    assert_eq!(stage.requests().len(), 1);
    let failures = stage.profiles().stats("anthropic:manual").unwrap().clone();
    assert!(failures.whole.failure_counts.contains_key("auth"), "{failures:?}");
}

#[test]
fn a_users_pin_is_locked_even_while_it_rests() {
    let stage = two_keys(
        "{rules: [{match: {key: 'one', request: 1}, fault: {error: 'rate-limit', retryAfter: 3600}}]}",
    );
    stage.chat().0.unwrap();
    assert!(stage.blocked("anthropic:default", OPUS));
    let pinned = |id: &str| ChatRequest { profile: Some(id.into()), ..ChatRequest::default() };
    let reply = stage.say(pinned("anthropic:default")).0.unwrap();
    assert_eq!(reply.profile.as_deref(), Some("anthropic:default"));
    let by_model = ChatRequest {
        model: Some("anthropic/claude-haiku-4-5@anthropic:second".into()),
        ..ChatRequest::default()
    };
    assert_eq!(stage.say(by_model).0.unwrap().profile.as_deref(), Some("anthropic:second"));
    let missing = stage.say(pinned("anthropic:nobody")).0.unwrap_err();
    assert!(
        missing.message.starts_with("No credentials found for profile \"anthropic:nobody\"."),
        "{}",
        missing.message
    );
    let third = moltbot_core::Credential::api_key("anthropic", moltbot_core::Secret::new(ONE));
    let stage = stage.with("anthropic:third", third);
    let outside = stage.say(pinned("anthropic:third")).0.unwrap_err();
    assert_eq!(
        outside.message,
        "Auth profile \"anthropic:third\" is not configured for anthropic."
    );
}

#[test]
fn a_session_stays_with_its_profile_and_a_switch_is_recorded() {
    let stage = two_keys(
        "{rules: [{match: {key: 'two', request: 2}, fault: {error: 'rate-limit', retryAfter: 60}}]}",
    );
    let stays =
        || ChatRequest { prefer: Some("anthropic:second".into()), ..ChatRequest::default() };
    assert_eq!(stage.say(stays()).0.unwrap().profile.as_deref(), Some("anthropic:second"));
    let moved = stage.say(stays()).0.unwrap();
    assert_eq!(moved.profile.as_deref(), Some("anthropic:default"));
    assert!(
        moved.record.changed.iter().any(|what| what.contains("moved from")),
        "{:?}",
        moved.record.changed
    );
}

#[test]
fn nothing_to_send_with_names_store_and_agent() {
    let stage = Stage::new("{}");
    let error = stage.chat().0.unwrap_err();
    assert_eq!(error.code, "no-credential");
    let dir = stage.dir.path().display();
    let start = format!(
        "No API key found for provider \"anthropic\". Auth store: {dir}/auth-profiles.json (agentDir: {dir})."
    );
    assert!(error.message.starts_with(&start), "{}", error.message);
    let expired = moltbot_core::Credential::token(
        "anthropic",
        moltbot_core::Secret::new(TOKEN),
        Some(stage.clock.now().plus(-1)),
    );
    assert_eq!(expired.kind, CredentialKind::Token);
    let stage = stage.with("anthropic:manual", expired);
    let error = stage.chat().0.unwrap_err();
    assert!(error.message.starts_with("No API key found"), "{}", error.message);
    assert!(error.advice.unwrap().contains("anthropic:manual: expired"));
}

#[test]
fn a_subscription_gives_way_to_a_paid_key_only_if_allowed() {
    let plan = "{rules: [{match: {key: 'token'}, fault: {error: 'subscription-limit', retryAfter: 3600}}]}";
    for (allowed, works) in [(json!(null), true), (json!(true), true), (json!(false), false)] {
        let mut token =
            moltbot_core::Credential::token("anthropic", moltbot_core::Secret::new(TOKEN), None);
        token.method = Some("house".into());
        let mut stage =
            Stage::new(plan).with("anthropic:house", token).key("anthropic:default", ONE);
        if !allowed.is_null() {
            stage.config = json!({"auth": {"allowPaidFallback": allowed}});
        }
        // The second time the token rests already, which must not let the key slip in.
        for turn in 1..=2 {
            let (reply, _) = stage.chat();
            if works {
                assert_eq!(reply.unwrap().profile.as_deref(), Some("anthropic:default"));
                assert!(stage.told().contains("paid per use"), "{}", stage.told());
            } else {
                let error = reply.unwrap_err();
                assert_eq!(error.code, "paid-fallback", "turn {turn}");
                assert!(stage.requests().iter().all(|seen| key_of(seen) == "token"), "turn {turn}");
            }
        }
    }
}

#[test]
fn a_paid_provider_behind_a_subscription_needs_an_explicit_yes() {
    let plan = "{rules: [{match: {key: 'token'}, fault: {error: 'server-error'}}]}";
    for (allowed, works) in [(json!(null), false), (json!(true), true)] {
        let mut token =
            moltbot_core::Credential::token("anthropic", moltbot_core::Secret::new(TOKEN), None);
        token.method = Some("house".into());
        let mut stage = Stage::new(plan).with("anthropic:house", token);
        stage.config = json!({
            "agents": {"defaults": {"model": {"fallbacks": ["acme/m"]}}},
            "models": {"providers": {"acme": {"baseUrl": stage.lab.url(), "api": "anthropic-messages", "apiKey": ONE, "models": []}}},
        });
        if !allowed.is_null() {
            stage.config["auth"] = json!({"allowPaidFallback": allowed});
        }
        let (reply, _) = stage.chat();
        assert_eq!(reply.is_ok(), works, "{reply:?}");
    }
}
