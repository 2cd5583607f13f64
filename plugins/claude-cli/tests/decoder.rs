//! What the real program wrote, read as events and failures. Recorded with version 2.1.197 against
//! a lab on this machine; lists of commands and the like are left out.

#![allow(clippy::unwrap_used)] // helpers of tests, not only tests

use moltbot_core::{DecoderMode, Ended, Event, Failure, FailureKind, Provider, Scope, Timestamp};
use moltbot_plugin_claude_cli::ClaudeCli;
use moltbot_testkit::decode;
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::from_millis(1_795_370_000_000);

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/stream/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

fn events(name: &str) -> Vec<Event> {
    decode(&ClaudeCli, DecoderMode::Full, &fixture(name))
}

fn lines(lines: &[Value]) -> Vec<Event> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    decode(&ClaudeCli, DecoderMode::Full, text.as_bytes())
}

fn text(events: &[Event]) -> String {
    let texts = events.iter().filter_map(|event| match event {
        Event::Text { text, .. } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

fn failure(events: &[Event]) -> Failure {
    let Some(Event::Error { body, .. }) = events.last() else { panic!("{events:?}") };
    let stderr_tail = String::new();
    ClaudeCli.failure(&Ended::Child { exit: None, stderr_tail, last_event: body.clone() }, NOW)
}

#[test]
fn a_reply_streams_piece_by_piece() {
    let events = events("text");
    let pieces = events.iter().filter(|event| matches!(event, Event::Text { .. })).count();
    assert!(pieces > 1, "{events:?}");
    assert_eq!(text(&events), "Hello from the lab. You said: hi");
    assert!(
        matches!(&events[0], Event::Began { model: Some(model), .. } if model.starts_with("claude-"))
    );
    let Some(Event::TurnEnd { stop, usage, at }) = events.last() else { panic!("{events:?}") };
    assert_eq!((stop.as_str(), usage.output), ("end_turn", Some(20)));
    assert_eq!(*at, fixture("text").len() as u64);
}

#[test]
fn one_decoder_reads_every_turn_of_a_process() {
    let events = events("two-turns");
    let turns = events.iter().filter(|event| matches!(event, Event::TurnEnd { .. })).count();
    assert_eq!(turns, 2);
    assert!(text(&events).ends_with("You said: second"), "{}", text(&events));
    let first = events.iter().position(|event| matches!(event, Event::TurnEnd { .. })).unwrap();
    let later = &events[first + 1..];
    assert!(matches!(later[0], Event::Began { .. }));
    assert!(matches!(later[1], Event::BlockStart { index: 0, .. }), "numbers start anew");
}

#[test]
fn what_the_program_reports_gets_its_class() {
    use FailureKind::*;
    for (name, kind, scope, code) in [
        ("not-logged-in", Auth, Scope::Profile, "claude-cli-login"),
        ("expired", Auth, Scope::Profile, "claude-cli-login"),
        ("limit", RateLimit, Scope::Profile, "claude-cli-limit"),
        ("credit", Billing, Scope::Profile, "billing"),
        ("model", ModelNotFound, Scope::ProfileModel, "model-not-found"),
        ("overloaded", Overloaded, Scope::Upstream, "overloaded"),
        ("mid", Overloaded, Scope::Upstream, "overloaded"),
        ("server", Server, Scope::Upstream, "claude-cli-failed"),
        ("too-long", ContextOverflow, Scope::Request, "context-overflow"),
        ("bad-request", Format, Scope::Request, "format"),
    ] {
        let failure = failure(&events(name));
        assert_eq!((failure.kind, failure.scope), (kind, scope), "{name}: {failure:?}");
        assert_eq!(failure.code, code, "{name}");
        assert!(!failure.message.is_empty(), "{name}");
    }
}

#[test]
fn a_spent_limit_says_when_it_starts_anew() {
    let failure = failure(&events("limit"));
    assert_eq!(failure.reset, Some(Timestamp::from_millis(1_795_374_000_000)));
    assert!(failure.message.contains("session limit"), "{}", failure.message);
}

#[test]
fn a_turn_that_was_stopped_is_no_reply() {
    assert!(matches!(events("interrupted").last(), Some(Event::Error { .. })));
}

#[test]
fn an_old_version_is_refused_before_anything_is_shown() {
    let init = json!({"type": "system", "subtype": "init", "claude_code_version": "1.0.3"});
    let events = lines(&[init]);
    let failure = failure(&events);
    assert_eq!(events.len(), 1);
    assert_eq!(failure.code, "claude-cli-version");
    assert!(failure.message.contains("2.1.197"), "{}", failure.message);
}

#[test]
fn what_the_program_asks_is_denied() {
    let request = json!({"subtype": "can_use_tool", "tool_name": "Bash", "input": {}});
    let asks = json!({"type": "control_request", "request_id": "7", "request": request});
    let events = lines(&[asks]);
    let Event::Write { text } = &events[0] else { panic!("{events:?}") };
    let answer: Value = serde_json::from_str(text).unwrap();
    assert_eq!(answer["response"]["response"]["behavior"], "deny");
    assert_eq!(answer["response"]["request_id"], "7");
}

#[test]
fn its_own_tools_stay_its_own() {
    let event = |event: Value| json!({"type": "stream_event", "event": event});
    let start = |index, block: Value| {
        event(json!({"type": "content_block_start", "index": index, "content_block": block}))
    };
    let delta = |index, delta: Value| {
        event(json!({"type": "content_block_delta", "index": index, "delta": delta}))
    };
    let stop = |index| event(json!({"type": "content_block_stop", "index": index}));
    let message = || event(json!({"type": "message_start", "message": {"id": "m", "usage": {}}}));
    let over = || event(json!({"type": "message_stop"}));
    let events = lines(&[
        message(),
        start(0, json!({"type": "tool_use", "name": "WebSearch"})),
        delta(0, json!({"type": "input_json_delta", "partial_json": "{}"})),
        stop(0),
        over(),
        message(),
        start(0, json!({"type": "text", "text": ""})),
        delta(0, json!({"type": "text_delta", "text": "found"})),
        stop(0),
        over(),
        json!({"type": "result", "subtype": "success", "stop_reason": "end_turn"}),
    ]);
    let kinds: Vec<bool> =
        events.iter().map(|event| matches!(event, Event::Began { .. })).collect();
    assert_eq!(kinds.iter().filter(|began| **began).count(), 1, "{events:?}");
    assert_eq!(text(&events), "found");
    assert!(!events.iter().any(|event| matches!(event, Event::Input { .. })));
}

#[test]
fn garbage_half_lines_and_endless_lines_are_errors() {
    let decode = |bytes: &[u8]| decode(&ClaudeCli, DecoderMode::Full, bytes);
    for (bytes, kind) in [
        (&b"Segmentation fault\n"[..], "malformed"),
        (b"[1]\n", "malformed"),
        (b"\xff\xfe\n", "malformed"),
        (b"{\"type\":\"sys", "incomplete"),
        (b"", "incomplete"),
    ] {
        let events = decode(bytes);
        assert!(
            matches!(&events[..], [Event::Error { kind: seen, .. }] if seen == kind),
            "{events:?}"
        );
    }
    let endless = vec![b'x'; (32 << 20) + 1];
    assert!(matches!(&decode(&endless)[..], [Event::Error { kind, .. }] if kind == "oversized"));
    let mut large = b"{\"type\":\"user\",\"x\":\"".to_vec();
    large.extend(std::iter::repeat_n(b'x', 10 << 20));
    large.extend(b"\"}\n");
    large.extend(fixture("text"));
    assert_eq!(text(&decode(&large)), "Hello from the lab. You said: hi", "10 MB are no problem");
}

#[test]
fn a_program_that_dies_is_nobodys_fault() {
    let died = |exit, tail: &str| {
        let stderr_tail = tail.to_string();
        ClaudeCli.failure(&Ended::Child { exit, stderr_tail, last_event: Value::Null }, NOW)
    };
    let failure = died(Some(127), "");
    assert_eq!((failure.kind, failure.scope), (FailureKind::Server, Scope::Upstream));
    assert!(failure.message.contains("install"), "{}", failure.message);
    assert!(died(None, "out of memory").message.ends_with("out of memory"));
}
