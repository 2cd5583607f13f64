//! Fault plans over a socket: every error body, broken connections, slow and spoiled streams.

#![allow(clippy::unwrap_used)] // Helpers here are tests too.

mod common;

use std::time::{Duration, Instant};

use common::{End, KEY, KEY_TWO, hello, lab, message, message_as, open, post, read};
use moltbot_lab::{Lab, Shape, error_table, parse_plan};
use serde_json::{Value, json};

fn streamed() -> Value {
    let mut body = hello();
    body["stream"] = json!(true);
    body
}

fn plan(lab: &Lab, text: &str) {
    lab.set_plan(parse_plan(text, "test").unwrap());
}

#[test]
fn every_known_error_is_served_with_its_status_and_shape() {
    let lab = lab("[]");
    for spec in error_table() {
        plan(&lab, &format!("[{{fault: {{error: '{}'}}}}]", spec.name));
        let reply = message(&lab, &hello());
        assert_eq!(reply.status, spec.status, "{}", spec.name);
        match spec.shape {
            Shape::Text => assert_eq!(reply.text(), spec.message),
            shape => {
                let body = reply.json();
                assert_eq!(body["error"]["type"], spec.kind, "{}", spec.name);
                assert_eq!(body["error"]["message"], spec.message);
                assert_eq!(body.get("type").is_none(), shape == Shape::Bare);
            }
        }
    }
}

#[test]
fn rules_are_keyed_by_credential_model_and_number() {
    let lab =
        lab("[{match: {key: 'one', request: 2}, fault: {error: 'rate-limit', retryAfter: '7999'}},
          {match: {key: 'two', model: 'claude-opus-*'}, fault: {error: 51}, times: 1}]");
    let status = |key: &str| message_as(&lab, key, &hello()).status;
    assert_eq!([status(KEY), status(KEY), status(KEY)], [200, 429, 200]);
    assert_eq!([status(KEY_TWO), status(KEY_TWO)], [529, 200]);
    let log = lab.log();
    let rules: Vec<_> = log.iter().map(|entry| entry.rule.as_deref()).collect();
    assert_eq!(rules, [None, Some("rules[0]"), None, Some("rules[1]"), None]);
}

#[test]
fn headers_can_be_added_replaced_and_removed() {
    let lab = lab(
        "[{fault: {error: 'rate-limit', retryAfter: 'soon', headers: {
            'x-should-retry': 'false', 'anthropic-organization-id': null, 'request-id': 'req_x'}}}]",
    );
    let reply = message(&lab, &hello());
    assert_eq!(reply.header("retry-after"), Some("soon"));
    assert_eq!(reply.header("x-should-retry"), Some("false"));
    assert_eq!(reply.header("anthropic-organization-id"), None);
    assert_eq!(reply.header("request-id"), Some("req_x"));
    assert_eq!(reply.header("anthropic-ratelimit-tokens-remaining"), Some("0"));
    plan(&lab, "[{fault: {redirect: 'http://127.0.0.1:1/'}}]");
    let reply = message(&lab, &hello());
    assert_eq!((reply.status, reply.header("location")), (307, Some("http://127.0.0.1:1/")));
    plan(&lab, "[{fault: {status: 200, body: '<html>'}}]");
    assert_eq!(message(&lab, &hello()).text(), "<html>");
}

#[test]
fn connections_are_reset_stalled_and_cut_where_planned() {
    let lab = lab("[{fault: {reset: 'headers'}}]");
    let reply = message(&lab, &hello());
    assert_eq!((reply.status, reply.end), (0, End::Reset));

    for body in [hello(), streamed()] {
        plan(&lab, "[]");
        let whole = message(&lab, &body).body;
        for at in [0, 1, 57, whole.len() - 1] {
            plan(&lab, &format!("[{{fault: {{cutAt: {at}}}}}]"));
            let cut = message(&lab, &body);
            assert_eq!((cut.status, cut.whole, cut.end), (200, false, End::Closed), "at {at}");
            assert_eq!(cut.body, whole[..at]);
        }
        for at in [0, 57] {
            plan(&lab, &format!("[{{fault: {{stall: {{afterBytes: {at}}}}}}}]"));
            let stalled = message(&lab, &body);
            assert_eq!((stalled.whole, stalled.end), (false, End::Open), "at {at}");
            assert_eq!(stalled.body, whole[..at]);
        }
        plan(&lab, "[{fault: {reset: {afterBytes: 40}}}]");
        assert_eq!(message(&lab, &body).end, End::Reset);
    }
}

#[test]
fn the_log_tells_a_client_that_left_from_a_reply_that_was_cut() {
    let lab = lab("[{match: {request: 1}, fault: {stall: 'headers'}}, {fault: {cutAt: 5}}]");
    let headers = [
        ("content-type", "application/json"),
        ("anthropic-version", "2023-06-01"),
        ("x-api-key", KEY),
    ];
    let connection = open(&lab, "POST", "/v1/messages", &headers, hello().to_string().as_bytes());
    until(|| !lab.log().is_empty() && !lab.log()[0].body.is_null());
    assert!(!lab.log()[0].disconnected);
    drop(connection);
    until(|| lab.log()[0].disconnected);
    message(&lab, &hello());
    let cut = &lab.log()[1];
    assert_eq!((cut.status, cut.sent, cut.complete, cut.disconnected), (200, 5, false, false));
}

#[test]
fn a_large_reply_is_cut_at_the_byte_even_for_a_slow_reader() {
    let lab = lab("{reply: {bytes: 240000}, rules: [{fault: {cutAt: 239000}}]}");
    let mut body = hello();
    body["max_tokens"] = json!(64_000);
    let headers = [
        ("content-type", "application/json"),
        ("anthropic-version", "2023-06-01"),
        ("x-api-key", KEY),
    ];
    let mut connection = open(&lab, "POST", "/v1/messages", &headers, body.to_string().as_bytes());
    until(|| lab.log().last().is_some_and(|entry| entry.sent > 0));
    let reply = read(&mut connection);
    assert_eq!((reply.body.len(), reply.whole), (239_000, false));
}

#[test]
fn streams_are_spoiled_as_planned() {
    let lab = lab("[{fault: {sse: {error: 'overloaded', afterEvents: 3}}}]");
    let events = message(&lab, &streamed()).events();
    assert_eq!(events.len(), 4);
    assert_eq!(events[3]["error"]["type"], "overloaded_error");
    plan(&lab, "[{fault: {sse: {error: 25}}}]");
    assert_eq!(message(&lab, &streamed()).events()[0]["type"], "error");
    plan(&lab, "[{fault: {sse: {unknownEvents: true}}}]");
    let events = message(&lab, &streamed()).events();
    assert!(events.iter().any(|event| event["type"] == "lab_unknown"));
    assert!(events.iter().any(|event| event["delta"]["type"] == "lab_unknown_delta"));
    assert_eq!(events.last().unwrap()["type"], "message_stop");
}

#[test]
fn slow_replies_take_their_time_and_arrive_whole() {
    let lab = lab("[{fault: {drip: {bytesPerSecond: 2000}}}]");
    let start = Instant::now();
    let reply = message(&lab, &hello());
    assert!(reply.whole && reply.json()["type"] == "message");
    let least = Duration::from_secs_f64(reply.body.len() as f64 / 2000.0);
    assert!(start.elapsed() >= least, "{:?} < {least:?}", start.elapsed());
    plan(&lab, "[{fault: {drip: {eventDelayMs: 5}, sse: {flushEvents: true}, delayMs: 20}}]");
    let start = Instant::now();
    let reply = message(&lab, &streamed());
    let least = Duration::from_millis(20 + 5 * reply.events().len() as u64);
    assert!(reply.whole && start.elapsed() >= least);
}

#[test]
fn a_planned_reply_has_its_text_size_and_events() {
    let lab = lab("{reply: {bytes: 1000, events: 60}}");
    let mut body = streamed();
    body["max_tokens"] = json!(1000);
    let events = message(&lab, &body).events();
    let deltas: Vec<_> = events.iter().filter_map(|e| e["delta"]["text"].as_str()).collect();
    assert_eq!((deltas.len(), deltas.concat().len()), (60, 1000));
    plan(
        &lab,
        "[{fault: {reply: {text: 'ok', thinking: 'hm', tool: {name: 't', input: {a: 1}},
           stopReason: 'refusal', model: 'other'}}}]",
    );
    let reply = message(&lab, &hello()).json();
    let kinds: Vec<_> =
        reply["content"].as_array().unwrap().iter().map(|b| b["type"].clone()).collect();
    assert_eq!(kinds, ["thinking", "text", "tool_use"]);
    assert_eq!((&reply["stop_reason"], &reply["model"]), (&json!("refusal"), &json!("other")));
}

#[test]
fn plans_are_installed_over_http_but_not_by_a_web_page() {
    let lab = lab("[]");
    let sent = post(&lab, "/lab/plan", &[], &json!([{"fault": {"error": 49}}]));
    assert_eq!((sent.status, sent.json()), (200, json!({"rules": 1})));
    assert_eq!(message(&lab, &hello()).status, 500);
    let bad = post(&lab, "/lab/plan", &[], &json!([{"fault": {"eror": 49}}]));
    assert_eq!(bad.status, 400);
    assert!(bad.json()["error"].as_str().unwrap().starts_with("plan:1:"), "{}", bad.text());
    assert_eq!(message(&lab, &hello()).status, 500);
    let page = post(&lab, "/lab/reset", &[("origin", "http://evil.example")], &json!({}));
    assert_eq!(page.status, 403);
    assert_eq!(post(&lab, "/lab/reset", &[], &json!({})).status, 200);
    assert_eq!(message(&lab, &hello()).status, 200);
    assert_eq!(lab.log().len(), 1);
}

/// Waits for something that another thread is about to do.
fn until(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "it never came");
        std::thread::yield_now();
    }
}
