//! `/v1/messages`, `count_tokens` and `/v1/models` over a socket: replies, checks, cache, headers.

#![allow(clippy::unwrap_used)] // Helpers here are tests too.

mod common;

use std::time::Duration;

use common::{KEY, KEY_TWO, TOKEN, exchange, hello, lab, message, message_as, post};
use serde_json::{Value, json};

#[test]
fn a_reply_echoes_and_is_the_same_each_time() {
    let lab = lab("[]");
    let (first, second) = (message(&lab, &hello()), message(&lab, &hello()));
    assert_eq!(first.status, 200);
    assert_eq!(first.json()["content"][0]["text"], "Hello from the lab. You said: hello there");
    assert_eq!(first.json(), second.json());
    assert_ne!(first.header("request-id"), second.header("request-id"));
    assert_eq!(first.json()["stop_reason"], "end_turn");
    assert_eq!(first.json()["usage"]["input_tokens"], 6);
}

#[test]
fn a_stream_carries_the_same_text_and_usage() {
    let lab = lab("[]");
    let mut body = hello();
    let whole = message(&lab, &body).json();
    body["stream"] = json!(true);
    let reply = message(&lab, &body);
    assert!(reply.whole);
    assert_eq!(reply.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let events = reply.events();
    let text: String = events.iter().filter_map(|e| e["delta"]["text"].as_str()).collect();
    assert_eq!(whole["content"][0]["text"], text);
    let ended = events.iter().find(|event| event["type"] == "message_delta").unwrap();
    assert_eq!(ended["usage"], whole["usage"]);
    assert_eq!(ended["delta"]["stop_reason"], "end_turn");
}

#[test]
fn tools_thinking_stops_and_limits() {
    let lab = lab("[]");
    let mut body = hello();
    body["tools"] = json!([{"name": "weather", "input_schema": {"type": "object", "properties": {
        "city": {"type": "string"}, "days": {"type": "integer", "minimum": 3},
        "unit": {"enum": ["c", "f"]},
    }}}]);
    body["messages"][0]["content"] = json!("use tool weather please");
    let called = message(&lab, &body).json();
    assert_eq!(called["stop_reason"], "tool_use");
    let call = &called["content"][1];
    assert_eq!(call["input"], json!({"city": "lab", "days": 3, "unit": "c"}));
    // The conversation goes on with the tool's result.
    let mut turns = body["messages"].as_array().unwrap().clone();
    turns.push(json!({"role": "assistant", "content": called["content"]}));
    turns.push(json!({"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": call["id"], "content": "sunny"}]}));
    body["messages"] = json!(turns);
    let after = message(&lab, &body).json();
    assert_eq!(after["content"][0]["text"], "Hello from the lab. The tool said: sunny");

    let mut body = hello();
    body["max_tokens"] = json!(2000);
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 1024});
    let thought = message(&lab, &body).json();
    assert_eq!(thought["content"][0]["type"], "thinking");
    assert!(thought["usage"]["output_tokens_details"]["thinking_tokens"].as_u64().unwrap() > 0);

    let mut body = hello();
    body["max_tokens"] = json!(2);
    let cut = message(&lab, &body).json();
    assert_eq!(
        (&cut["stop_reason"], &cut["content"][0]["text"]),
        (&json!("max_tokens"), &json!("Hello fr"))
    );
    body["max_tokens"] = json!(100);
    body["stop_sequences"] = json!(["lab"]);
    let stopped = message(&lab, &body).json();
    assert_eq!(stopped["stop_sequence"], "lab");
    assert_eq!(stopped["content"][0]["text"], "Hello from the ");
}

#[test]
fn bad_requests_get_the_services_words() {
    let lab = lab("{strictModels: true}");
    type Change = fn(&mut Value);
    let cases: Vec<(Change, &str)> = vec![
        (|b| drop(b.as_object_mut().unwrap().remove("max_tokens")), "max_tokens: Field required"),
        (|b| b["max_tokens"] = json!("7"), "max_tokens: Input should be a valid integer"),
        (|b| b["max_tokens"] = json!(64001), "max_tokens: 64001 > 64000, which is the maximum"),
        (|b| drop(b.as_object_mut().unwrap().remove("model")), "model: Field required"),
        (|b| b["model"] = json!("claude-nope"), "model: claude-nope"),
        (|b| b["messages"] = json!([]), "messages: at least one message is required"),
        (|b| b["messages"] = json!("hi"), "messages: Input should be a valid list"),
        (|b| b["colour"] = json!(1), "colour: Extra inputs are not permitted"),
        (|b| b["context_management"] = json!({}), "context_management: Extra inputs"),
        (|b| b["temperature"] = json!("hot"), "temperature: Input should be a valid number"),
        (|b| b["messages"][0]["role"] = json!("tool"), "messages.0.role: Input should be"),
        (|b| b["messages"][0]["role"] = json!("system"), "messages.0: role 'system' may not"),
        (
            |b| b["messages"][0]["content"] = json!([{"type": "video"}]),
            "messages.0.content.0: Input tag 'video'",
        ),
        (
            |b| b["messages"][0]["content"] = json!([{"type": "text"}]),
            "messages.0.content.0.text.text: Field",
        ),
        (
            |b| b["messages"][0]["content"] = json!([{"type": "text", "text": ""}]),
            "messages: text content blocks must be non-empty",
        ),
        (
            |b| b["thinking"] = json!({"type": "adaptive"}),
            "\"thinking.type.adaptive\" is not supported",
        ),
        (|b| b["tool_choice"] = json!({"type": "any"}), "tool_choice.any: may only be"),
        (|b| b["tools"] = json!([{"name": "a"}]), "tools.0.custom.input_schema: Field required"),
        (
            |b| {
                b["model"] = json!("claude-opus-5-5");
                b["temperature"] = json!(0.5)
            },
            "`temperature` is deprecated for this model.",
        ),
        (
            |b| {
                b["model"] = json!("claude-opus-4-6");
                b["messages"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"role": "assistant", "content": "{"}))
            },
            "This model does not support assistant message prefill.",
        ),
        (
            |b| {
                b["messages"].as_array_mut().unwrap().push(json!({"role": "assistant", "content": [
            {"type": "tool_use", "id": "toolu_1", "name": "x", "input": {}}]}))
            },
            "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: toolu_1.",
        ),
        (
            |b| {
                b["messages"][0]["content"] =
                    json!([{"type": "tool_result", "tool_use_id": "toolu_9"}])
            },
            "messages.0.content.0: unexpected `tool_use_id` found in `tool_result` blocks: toolu_9.",
        ),
        (
            |b| {
                b["system"] = json!(vec![
                    json!({"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}});
                    5
                ])
            },
            "A maximum of 4 blocks with cache_control may be provided. Found 5.",
        ),
        (
            |b| {
                b["system"] =
                    json!([{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]);
                b["messages"][0]["content"] = json!([{"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": "1h"}}])
            },
            "messages.0.content.0.cache_control.ttl: a ttl='1h' cache_control block must not come after a ttl='5m'",
        ),
    ];
    for (change, says) in cases {
        let mut body = hello();
        change(&mut body);
        let reply = message(&lab, &body);
        let message = reply.message();
        assert!(message.starts_with(says), "expected {says:?}, got {message:?} for {body}");
        assert_eq!(reply.status, if says == "model: claude-nope" { 404 } else { 400 });
        assert_eq!(reply.json()["request_id"], reply.header("request-id").unwrap());
    }
}

#[test]
fn headers_are_checked() {
    let lab = lab("[]");
    let json = ("content-type", "application/json");
    let version = ("anthropic-version", "2023-06-01");
    let key = ("x-api-key", KEY);
    let send = |headers: &[(&str, &str)], body: &str| {
        let reply = exchange(&lab, "POST", "/v1/messages", headers, body.as_bytes());
        (reply.status, if reply.status == 200 { String::new() } else { reply.message() })
    };
    let body = hello().to_string();
    let bearer = format!("Bearer {KEY}");
    assert_eq!(send(&[json, version, key], &body).0, 200);
    assert_eq!(
        send(&[json, ("anthropic-version", "2026-10-21"), ("authorization", &bearer)], &body).0,
        200
    );
    assert_eq!(send(&[json, version], &body), (401, "x-api-key header is required".into()));
    assert_eq!(
        send(&[json, version, ("x-api-key", TOKEN)], &body),
        (401, "invalid x-api-key".into())
    );
    assert_eq!(
        send(&[json, version, ("authorization", "Bearer x")], &body),
        (401, "Invalid bearer token".into())
    );
    assert_eq!(
        send(&[json, version, key, ("authorization", &format!("Bearer {TOKEN}"))], &body).0,
        401
    );
    assert_eq!(send(&[json, key], &body), (400, "anthropic-version: header is required".into()));
    assert!(
        send(&[json, key, ("anthropic-version", "1999")], &body).1.contains("not a valid version")
    );
    assert!(send(&[version, key], &body).1.starts_with("content-type"));
    assert!(send(&[json, version, key], "{").1.starts_with("The request body is not valid JSON"));
    // The new version refuses sampling fields even at their default.
    let mut sampled = hello();
    sampled["temperature"] = json!(1.0);
    let sampled = sampled.to_string();
    assert_eq!(send(&[json, version, key], &sampled).0, 200);
    assert_eq!(
        send(&[json, ("anthropic-version", "2026-10-21"), key], &sampled).1,
        "temperature: Extra inputs are not permitted"
    );
    // Field and beta header travel together.
    let mut managed = hello();
    managed["context_management"] = json!({"edits": []});
    let beta = ("anthropic-beta", "context-management-2025-06-27");
    assert_eq!(send(&[json, version, key, beta], &managed.to_string()).0, 200);
}

#[test]
fn a_system_turn_after_a_user_turn_is_served() {
    let lab = lab("[]");
    let mut body = hello();
    body["messages"].as_array_mut().unwrap().push(json!({"role": "system", "content": "be short"}));
    assert_eq!(message(&lab, &body).status, 200);
}

#[test]
fn cached_prefixes_show_in_the_usage_and_age_with_the_clock() {
    let lab = lab("{organizations: {'one': 'shared', 'two': 'shared'}}");
    let mut body = hello();
    body["system"] = json!([{"type": "text", "text": "s".repeat(20_000),
                             "cache_control": {"type": "ephemeral", "ttl": "1h"}}]);
    let usage = |key: &str, body: &Value| message_as(&lab, key, body).json()["usage"].clone();
    let first = usage(KEY, &body);
    assert_eq!(first["cache_creation_input_tokens"], 5000);
    assert_eq!(first["cache_creation"]["ephemeral_1h_input_tokens"], 5000);
    assert_eq!(first["input_tokens"], 6);
    // The second key belongs to the same organization; a subscription token does not.
    assert_eq!(usage(KEY_TWO, &body)["cache_read_input_tokens"], 5000);
    lab.advance(Duration::from_secs(3601));
    assert_eq!(usage(KEY, &body)["cache_creation_input_tokens"], 5000);
    let mut counted = body.clone();
    counted.as_object_mut().unwrap().remove("max_tokens");
    let count = post(&lab, "/v1/messages/count_tokens", &[("x-api-key", KEY)], &counted);
    assert_eq!(count.json()["input_tokens"], 5006);
}

#[test]
fn keys_and_tokens_see_their_own_rate_limit_headers() {
    let lab = lab("[]");
    let by_key = message(&lab, &hello());
    for name in ["requests", "tokens", "input-tokens", "output-tokens"] {
        let get =
            |part: &str| by_key.header(&format!("anthropic-ratelimit-{name}-{part}")).unwrap();
        let (limit, left): (u64, u64) =
            (get("limit").parse().unwrap(), get("remaining").parse().unwrap());
        assert!(left < limit);
        assert!(get("reset").ends_with(":00Z"), "{}", get("reset"));
    }
    assert!(by_key.header("anthropic-ratelimit-unified-status").is_none());
    let bearer = format!("Bearer {TOKEN}");
    let by_token = post(&lab, "/v1/messages", &[("authorization", &bearer)], &hello());
    assert_eq!(by_token.header("anthropic-ratelimit-unified-status"), Some("allowed"));
    assert_ne!(
        by_key.header("anthropic-organization-id").unwrap(),
        by_token.header("anthropic-organization-id").unwrap()
    );
    assert_eq!(
        by_key.header("anthropic-organization-id"),
        message(&lab, &hello()).header("anthropic-organization-id")
    );
}

#[test]
fn models_are_listed_and_shown_and_other_paths_are_404() {
    let lab = lab("[]");
    let headers = [("x-api-key", KEY), ("anthropic-version", "2023-06-01")];
    let get = |path: &str| exchange(&lab, "GET", path, &headers, b"");
    let page = get("/v1/models?limit=3").json();
    assert_eq!(page["data"].as_array().unwrap().len(), 3);
    assert_eq!(page["has_more"], true);
    assert_eq!(get("/v1/models/claude-opus-4-5").json()["max_input_tokens"], 200_000);
    assert_eq!(get("/v1/models/nope").message(), "model: nope");
    assert_eq!((get("/v1/nothing").status, get("/v1/messages").status), (404, 405));
    assert_eq!(get("/v1/nothing").json()["error"]["type"], "not_found_error");
    let head = exchange(&lab, "HEAD", "/", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn a_body_over_the_limit_is_413_in_the_edges_shape() {
    let lab = lab("[]");
    let mut body = hello();
    body["messages"][0]["content"] = json!("x".repeat(33 * 1024 * 1024));
    let reply = message(&lab, &body);
    assert_eq!(reply.status, 413);
    assert_eq!(
        reply.json(),
        json!({"error": {"type": "request_too_large", "message": "Request exceeds the maximum size"}})
    );
}
