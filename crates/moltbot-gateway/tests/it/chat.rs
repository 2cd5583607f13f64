//! A chat that works, and replies that break.

use std::time::Duration;

use moltbot_core::Event;
use moltbot_gateway::*;
use serde_json::json;

use crate::stage::*;

#[test]
fn a_key_in_the_environment_is_enough() {
    let stage = Stage::new("{reply: {text: 'Hello there'}}").env("ANTHROPIC_API_KEY", ONE);
    let (reply, shown) = stage.chat();
    let reply = reply.unwrap();
    assert_eq!((reply.text.as_str(), shown.as_str()), ("Hello there", "Hello there"));
    assert_eq!(reply.model.to_string(), "anthropic/claude-opus-4-5");
    assert_eq!((reply.source.as_str(), reply.profile), ("env: ANTHROPIC_API_KEY", None));
    assert_eq!(reply.stop, StopReason::Stop);
    assert!(reply.cost.is_some_and(|cost| cost > 0.0));
    let seen = &stage.requests()[0];
    assert_eq!(key_of(seen), "one");
    assert!(seen.header("x-api-key").is_some() && seen.header("authorization").is_none());
    assert!(seen.header("user-agent").unwrap().starts_with("moltbot/"));
    assert_eq!(seen.body["stream"], true);
    assert_eq!(reply.record.attempts.len(), 1);
    assert_eq!(reply.record.attempts[0].status, Some(200));
    let text = serde_json::to_string(&reply.record).unwrap();
    assert!(!text.contains("FAKE") && !text.contains("Hello"), "{text}");
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), reply.record);
}

#[test]
fn thinking_tools_and_images_arrive_as_the_service_wants_them() {
    let stage =
        Stage::new("{reply: {text: 'ok', thinking: 'hm', tool: {name: 't', input: {a: 1}}}}")
            .key("anthropic:default", ONE);
    let request = ChatRequest {
        system: Some("be brief".into()),
        thinking: Some(ThinkingLevel::Medium),
        tools: vec![json!({"name": "t", "description": "d", "input_schema": {"type": "object"}})],
        images: vec![Image::new(b"\x89PNG\r\n\x1a\n".to_vec()).unwrap()],
        ..ChatRequest::default()
    };
    let (reply, _) = stage.say(request);
    let reply = reply.unwrap();
    assert_eq!(reply.stop, StopReason::ToolUse);
    let kinds: Vec<_> =
        reply.turns[1].content.iter().map(|b| b["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["thinking", "text", "tool_use"]);
    assert_eq!(reply.turns[1].content[2]["input"], json!({"a": 1}));
    let body = &stage.requests()[0].body;
    assert_eq!(body["thinking"], json!({"type": "enabled", "budget_tokens": 8192}));
    assert_eq!(body["max_tokens"], 40_192);
    assert_eq!(body["system"][0]["cache_control"], json!({"type": "ephemeral"}));
}

#[test]
fn a_conversation_is_replayed_with_its_signatures() {
    let stage = Stage::new("{reply: {text: 'ok', thinking: 'hm'}}").key("anthropic:default", ONE);
    let thinking = Some(ThinkingLevel::Low);
    let first = stage.say(ChatRequest { thinking, ..ChatRequest::default() }).0.unwrap();
    let request = ChatRequest { thinking, history: first.turns, ..ChatRequest::default() };
    stage.say(request).0.unwrap();
    let messages = stage.requests()[1].body["messages"].clone();
    assert_eq!(messages.as_array().unwrap().len(), 3);
    assert_eq!(messages[1]["content"][0]["type"], "thinking");
    assert!(messages[1]["content"][0]["signature"].as_str().is_some_and(|text| !text.is_empty()));
}

#[test]
fn the_cache_lifetime_goes_with_a_key_only() {
    let config = json!({"agents": {"defaults": {"models": {"anthropic/claude-opus-4-5": {"params": {"cacheControlTtl": "1h"}}}}}});
    let stage = Stage::new("{}").config(config.clone()).key("anthropic:default", ONE);
    stage.chat().0.unwrap();
    let seen = &stage.requests()[0];
    let block = seen.body["messages"][0]["content"][0]["cache_control"].clone();
    assert_eq!(block, json!({"type": "ephemeral", "ttl": "1h"}));
    assert!(seen.header("anthropic-beta").unwrap().contains("extended-cache-ttl-2025-04-11"));
    let stage = Stage::new("{}").config(config).env("ANTHROPIC_OAUTH_TOKEN", TOKEN);
    stage.chat().0.unwrap();
    let seen = &stage.requests()[0];
    let block = seen.body["messages"][0]["content"][0]["cache_control"].clone();
    assert_eq!(block, json!({"type": "ephemeral"}));
    assert!(seen.header("authorization").is_some() && seen.header("x-api-key").is_none());
}

#[test]
fn an_empty_message_is_not_sent() {
    let stage = Stage::new("{}").key("anthropic:default", ONE);
    let error =
        stage.say(ChatRequest { prompt: " \n".into(), ..ChatRequest::default() }).0.unwrap_err();
    assert_eq!(error.code, "input");
    assert!(stage.requests().is_empty());
}

#[test]
fn an_error_before_anything_is_shown_fails_over() {
    let stage = Stage::new(
        "{rules: [{match: {key: 'one'}, fault: {sse: {error: 51, pings: 2, afterEvents: 1}}}]}",
    )
    .key("anthropic:default", ONE)
    .key("anthropic:second", TWO);
    stage.change(|profiles| {
        profiles
            .set_order("anthropic", vec!["anthropic:default".into(), "anthropic:second".into()]);
    });
    let (reply, shown) = stage.chat();
    let reply = reply.unwrap();
    assert_eq!(reply.text, shown, "nothing of the failed reply was shown");
    assert_eq!(reply.profile.as_deref(), Some("anthropic:second"));
    assert_eq!(reply.record.attempts[0].class.as_deref(), Some("overloaded"));
}

#[test]
fn after_the_first_text_nothing_is_spliced() {
    for fault in
        ["sse: {error: 51, afterEvents: 6}", "cutAt: 900", "sse: {end: true, afterEvents: 6}"]
    {
        let plan =
            format!("{{rules: [{{fault: {{{fault}}}}}], reply: {{bytes: 400, events: 20}}}}");
        let mut config = fallbacks(&["anthropic/claude-haiku-4-5"]);
        config["auth"] = json!({});
        let stage =
            Stage::new(&plan).config(config).key("anthropic:default", ONE).key("anthropic:b", TWO);
        let thinking = Some(ThinkingLevel::Off);
        let (reply, shown) = stage.say(ChatRequest { thinking, ..ChatRequest::default() });
        let error = reply.unwrap_err();
        assert!(!shown.is_empty(), "{fault}");
        let partial = error.partial.unwrap();
        assert_eq!(partial.text(), shown, "{fault}");
        assert_eq!(partial.stop, Some(StopReason::Error));
        assert_eq!(stage.requests().len(), 1, "{fault}: no second request");
        assert!(!stage.blocked("anthropic:default", "claude-opus-4-5"), "{fault}");
    }
}

#[test]
fn unknown_events_and_line_ends_change_nothing() {
    let plan = "{rules: [{fault: {sse: {unknownEvents: true, crlf: true, pings: 3, flushEvents: true}}}], reply: {text: 'fine'}}";
    let stage = Stage::new(plan).key("anthropic:default", ONE);
    assert_eq!(stage.chat().0.unwrap().text, "fine");
}

#[test]
fn a_stalled_service_times_out_once() {
    for (point, limits) in [
        ("'headers'", Limits { first_byte_ms: 1_000, ..Limits::default() }),
        ("{afterBytes: 100}", Limits { idle_ms: 1_000, ..Limits::default() }),
    ] {
        let mut stage = Stage::new(&format!("{{rules: [{{fault: {{stall: {point}}}}}]}}"))
            .key("anthropic:default", ONE);
        stage.limits = limits;
        let error = stage.chat().0.unwrap_err();
        assert_eq!(
            (error.code.as_ref(), error.message.as_str()),
            ("timeout", "LLM request timed out."),
            "{point}"
        );
        assert_eq!(stage.requests().len(), 1, "a slow service is not asked twice");
        assert!(!stage.blocked("anthropic:default", "claude-opus-4-5"));
    }
}

#[test]
fn the_whole_chat_has_a_limit() {
    let stage = Stage::new("{rules: [{fault: {stall: 'headers'}}]}").key("anthropic:default", ONE);
    let request = ChatRequest { timeout_ms: Some(60), ..ChatRequest::default() };
    let error = stage.say(request).0.unwrap_err();
    assert_eq!(error.message, "LLM request timed out.");
}

/// Waits until the service was asked.
async fn asked(stage: &Stage) {
    while stage.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_dropped_chat_punishes_nobody_and_tries_nothing_else() {
    let stage = Stage::new("{rules: [{fault: {stall: 'headers'}}]}")
        .config(fallbacks(&["anthropic/claude-haiku-4-5"]))
        .key("anthropic:default", ONE)
        .key("anthropic:second", TWO);
    let before = stage.profiles().to_json(stage.clock.now()).expose().to_string();
    block_on(async {
        let engine = stage.engine();
        let request = ChatRequest { prompt: "hi".into(), ..ChatRequest::default() };
        let mut sink = |_: &Event| {};
        let chat = engine.chat(request, &mut sink);
        tokio::select! {
            ended = chat => panic!("it was answered: {ended:?}"),
            () = asked(&stage) => {}
        }
    });
    assert_eq!(stage.requests().len(), 1);
    assert_eq!(stage.profiles().to_json(stage.clock.now()).expose(), before);
}

#[test]
fn a_refusal_is_said_and_nothing_else_is_tried() {
    let stage = Stage::new("{reply: {text: 'No.', stopReason: 'refusal'}}")
        .config(fallbacks(&["anthropic/claude-haiku-4-5"]))
        .key("anthropic:default", ONE);
    let error = stage.chat().0.unwrap_err();
    assert_eq!(error.code, "refused");
    assert!(error.message.contains("refused"), "{}", error.message);
    assert_eq!(error.partial.unwrap().text(), "No.");
    assert_eq!(stage.requests().len(), 1);
    assert_eq!(stage.profiles().last_good("anthropic"), Some("anthropic:default"));
}

#[test]
fn an_unreachable_service_is_the_networks_fault() {
    let mut stage = Stage::new("{}").key("anthropic:default", ONE);
    stage.at_lab = false;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    stage.config = json!({"models": {"providers": {"anthropic": {"baseUrl": format!("http://127.0.0.1:{port}"), "models": []}}}});
    let error = stage.chat().0.unwrap_err();
    assert_eq!(error.code, "network", "{}", error.message);
    assert!(error.message.contains("no connection"), "{}", error.message);
    assert!(!stage.blocked("anthropic:default", "claude-opus-4-5"));
}
