//! What passes through the Messages door, and what takes over when a credential fails.

use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::upstream::{Upstream, reply};
use super::{Gate, TOKEN, hello, hello_streamed, one_key, two_keys, until};
use crate::support::{KEY, KEY2, lab, messages};

const OK: &str = r#"{"id":"msg_1","type":"message","role":"assistant","content":[],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#;

/// Spec W-2, W-4, W-11, W-14: bytes, order of betas, query and unknown headers stay; the client's
/// credential does not.
#[test]
fn a_request_passes_unchanged_but_for_its_credential() {
    let upstream = Upstream::start(|_, stream| reply(stream, "200 OK", "request-id: r1\r\n", OK));
    let gate = Gate::start(&one_key(upstream.url(), json!({})));
    let body = r#"{"model":"claude-opus-4-5", "system":[{"type":"text","text":"é\u00e9"}],"messages":[{"role":"user","content":"x"},{"role":"system","content":"later"}],"unknown":{"b":1,"a":[ ]},"max_tokens":5}"#;
    let betas = "z-2026-01-01,claude-code-20250219,a-2025-01-01,extended-cache-ttl-2025-04-11";
    let answer = gate.ask(
        "POST",
        "/v1/messages?beta=true",
        &[
            ("x-api-key", TOKEN),
            ("authorization", "Bearer something-else-FAKE"),
            ("cookie", "session=FAKE"),
            ("content-type", "application/json"),
            ("anthropic-version", "2026-10-21"),
            ("anthropic-beta", betas),
            ("anthropic-dangerous-direct-browser-access", "true"),
            ("x-stainless-lang", "js"),
            ("x-unknown", "kept"),
            ("user-agent", "some-client/9"),
            ("accept-encoding", "gzip, br"),
        ],
        body.as_bytes(),
    );
    assert_eq!((answer.status, answer.text().as_str()), (200, OK));
    assert_eq!(answer.header("request-id"), Some("r1"));
    assert_eq!(answer.header("x-moltbot-changed"), Some("accept-encoding"));
    assert!(answer.header("x-moltbot-request-id").unwrap().starts_with("mb_"));
    let seen = upstream.seen();
    let (head, sent) = seen[0].split_once("\r\n\r\n").unwrap();
    assert_eq!(sent, body);
    assert!(head.starts_with("POST /v1/messages?beta=true HTTP/1.1\r\n"), "{head}");
    let lines: Vec<String> = head.lines().map(str::to_lowercase).collect();
    for line in [
        &format!("anthropic-beta: {betas}"),
        "anthropic-version: 2026-10-21",
        "anthropic-dangerous-direct-browser-access: true",
        "x-stainless-lang: js",
        "x-unknown: kept",
        "user-agent: some-client/9",
        "accept-encoding: identity",
        &format!("x-api-key: {}", KEY.to_lowercase()),
    ] {
        assert!(lines.iter().any(|sent| sent == line), "{line}\n{head}");
    }
    let lower = head.to_lowercase();
    assert!(!lower.contains("authorization") && !lower.contains("cookie"), "{head}");
    assert!(!head.contains(TOKEN), "{head}");
}

/// Every byte of a stream arrives, however it was cut, a multi-byte character across two pieces
/// and unknown events included.
#[test]
fn a_stream_arrives_byte_by_byte() {
    let mut stream = String::from(
        "event: ping\ndata: {\"type\": \"ping\"}\n\nevent: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{}}}\n\n",
    );
    for number in 0..200 {
        stream += &format!("event: odd_{number}\r\ndata: {{\"é\":{number}}}\r\n\r\n");
    }
    stream += "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let sent = stream.clone();
    let upstream = Upstream::start(move |_, socket| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let _ = socket.write_all(head.as_bytes());
        for piece in sent.as_bytes().chunks(37) {
            let _ = socket.write_all(format!("{:x}\r\n", piece.len()).as_bytes());
            let _ = socket.write_all(piece);
            let _ = socket.write_all(b"\r\n");
        }
        let _ = socket.write_all(b"0\r\n\r\n");
    });
    let gate = Gate::start(&one_key(upstream.url(), json!({})));
    let answer = gate.post("/v1/messages", &hello_streamed());
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.text(), stream);
}

/// Spec W-15: what concerns one account moves on to the next, at once and without a word.
#[test]
fn another_account_takes_over() {
    // By number: 429 of an account, empty credit, 401, 403, 529, 500.
    for error in [39, 1, 27, 33, 51, 49] {
        let label = KEY.rsplit('-').next().unwrap();
        let plan = json!([{ "match": { "key": label }, "fault": { "error": error } }]);
        let lab = lab(&plan.to_string());
        let gate = Gate::start(&two_keys(&lab.url()));
        for body in [hello(), hello_streamed()] {
            let answer = gate.post("/v1/messages", &body);
            assert_eq!(answer.status, 200, "{error}: {}", answer.text());
        }
        assert!(messages(&lab).iter().any(|entry| entry.rule.is_some()), "{error}");
    }
}

/// An error that nobody else could answer better is passed on as it came, and costs one request.
#[test]
fn an_error_passes_unmodified_and_a_bad_request_moves_nobody() {
    let body = r#"{"type":"error","error":{"type":"invalid_request_error","message":"messages: too odd"},"request_id":"req_9"}"#;
    let upstream = Upstream::start(move |_, stream| {
        reply(stream, "400 Bad Request", "x-should-retry: false\r\n", body)
    });
    let gate = Gate::start(&two_keys(upstream.url()));
    let answer = gate.post("/v1/messages", &hello());
    assert_eq!((answer.status, answer.text().as_str()), (400, body));
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    assert_eq!(upstream.seen().len(), 1);
}

/// A resting account is not asked again, and the client learns when to come back.
#[test]
fn a_limited_account_rests() {
    let body = r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}"#;
    let upstream = Upstream::start(move |_, stream| {
        reply(stream, "429 Too Many Requests", "retry-after: 120\r\n", body);
    });
    let sandbox = two_keys(upstream.url());
    let gate = Gate::start(&sandbox);
    assert_eq!(gate.post("/v1/messages", &hello()).text(), body);
    assert_eq!(upstream.seen().len(), 2);
    let second = gate.post("/v1/messages", &hello());
    assert_eq!(second.status, 429);
    assert_eq!(second.json()["error"]["type"], "rate_limit_error");
    // Model, profile, cause, until when, the command that shows more, and the code.
    let text = second.json()["error"]["message"].as_str().unwrap().to_string();
    for part in [
        "anthropic/claude-opus-4-5",
        "the soonest is anthropic:",
        "cooling down",
        "usable in ",
        "`moltbot models auth cooldown list`",
        "moltbot explain all-cooling",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let wait: u64 = second.header("retry-after").unwrap().parse().unwrap();
    assert!((60..=120).contains(&wait), "{wait}");
    assert_eq!(upstream.seen().len(), 2);
    // Written behind, within about a second.
    until(|| {
        let stats = &sandbox.store()["usageStats"];
        stats["anthropic:one"].is_object() && stats["anthropic:two"].is_object()
    });
}

/// An error event before anything else counts as an error; after the beginning it is passed on.
#[test]
fn a_stream_that_begins_with_an_error_is_tried_elsewhere() {
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    let start =
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{}}}\n\n";
    let upstream = Upstream::start(move |request, stream| {
        let first = request.contains(KEY);
        let body = if first {
            format!("event: ping\ndata: {{}}\n\n{error}")
        } else {
            format!("{start}{error}")
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(head.as_bytes());
    });
    let gate = Gate::start(&two_keys(upstream.url()));
    let answer = gate.post("/v1/messages", &hello_streamed());
    assert_eq!(answer.text(), format!("{start}{error}"));
    let seen = upstream.seen();
    assert!(seen.len() == 2 && seen[1].contains(KEY2));
}

/// A stream that breaks off after its beginning ends with an error event, never with silence.
#[test]
fn a_broken_stream_ends_with_an_error_event() {
    let upstream = Upstream::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        let piece = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{}}}\n\nevent: content_bl";
        let _ = stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    let gate = Gate::start(&one_key(upstream.url(), json!({})));
    let text = gate.post("/v1/messages", &hello_streamed()).text();
    let (_, last) = text.rsplit_once("\n\nevent: error\ndata: ").expect("an error event");
    let last: Value = serde_json::from_str(last.trim()).unwrap();
    assert_eq!(last["error"]["type"], "api_error");
}

/// A client that leaves ends what it asked for.
#[test]
fn a_client_that_leaves_closes_the_service_connection() {
    let (left, noticed) = mpsc::channel();
    let upstream = Upstream::start(move |_, stream| {
        let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{}}}\n\n";
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let _ = stream.write_all(format!("{head}{:x}\r\n{start}\r\n", start.len()).as_bytes());
        let mut rest = [0; 1];
        let _ = stream.read(&mut rest);
        let _ = left.send(Instant::now());
    });
    let gate = Gate::start(&one_key(upstream.url(), json!({})));
    let leave = || {
        let mut client = gate.begin_post(&hello_streamed());
        let mut some = [0; 64];
        assert!(client.read(&mut some).unwrap() > 0);
        let gone = Instant::now();
        drop(client);
        let closed = noticed.recv_timeout(Duration::from_secs(60)).expect("the service notices");
        closed.duration_since(gone)
    };
    // What the machine does meanwhile makes one of them late, but not each.
    assert!((0..20).any(|_| leave() < Duration::from_millis(250)));
}

/// Nothing carries a credential, or the gateway's token, to where a service points.
#[test]
fn redirects_are_neither_followed_nor_passed_on() {
    for status in [301, 302, 303, 307, 308] {
        let third = Upstream::start(|_, stream| reply(stream, "200 OK", "", OK));
        let place = third.url().to_string();
        let upstream = Upstream::start(move |_, stream| {
            reply(stream, &format!("{status} Odd"), &format!("location: {place}/x\r\n"), "{}");
        });
        let gate = Gate::start(&one_key(upstream.url(), json!({})));
        let answer = gate.post("/v1/messages", &hello());
        assert_eq!((answer.status, answer.header("location")), (502, None));
        assert!(third.seen().is_empty());
    }
}

/// Models, files and batches pass; a token with a list of models has neither.
#[test]
fn other_endpoints_pass_to_one_account() {
    let upstream = Upstream::start(|_, stream| reply(stream, "200 OK", "", "{\"data\":[]}"));
    let tokens = json!({ "tokens": { "ci": {
        "token": "mbg_FAKE_ci", "agent": "main", "models": ["claude-opus-4-5"],
        "limits": { "requestsPerMinute": 4 } } } });
    let gate = Gate::start(&one_key(upstream.url(), tokens));
    assert_eq!(gate.get("/v1/models?limit=3").status, 200);
    assert_eq!(gate.get("/v1/files/file_1/content").status, 200);
    let batch = gate.post("/v1/messages/batches", &json!({ "requests": [] }));
    assert_eq!(batch.status, 200);
    let form = [("x-api-key", TOKEN), ("content-type", "multipart/form-data; boundary=b")];
    assert_eq!(gate.ask("POST", "/v1/files", &form, b"--b--\r\n").status, 200);
    let firsts: Vec<String> =
        upstream.seen().iter().map(|r| r.lines().next().unwrap().to_string()).collect();
    assert_eq!(
        firsts,
        [
            "GET /v1/models?limit=3 HTTP/1.1",
            "GET /v1/files/file_1/content HTTP/1.1",
            "POST /v1/messages/batches HTTP/1.1",
            "POST /v1/files HTTP/1.1",
        ]
    );
    let ci = |method: &str, path: &str, body: &str| {
        let headers = [
            ("authorization", "Bearer mbg_FAKE_ci"),
            ("anthropic-version", "2023-06-01"),
            ("content-type", "application/json"),
        ];
        gate.ask(method, path, &headers, body.as_bytes())
    };
    assert_eq!(ci("GET", "/v1/files", "").status, 403);
    let twice = r#"{"model":"claude-opus-4-5","messages":[],"mod\u0065l":"claude-opus-5-5"}"#;
    assert_eq!(ci("POST", "/v1/messages", twice).status, 400);
    assert_eq!(ci("POST", "/v1/messages", r#"{"model":"claude-opus-5-5"}"#).status, 403);
    assert_eq!(ci("POST", "/v1/messages", &hello().to_string()).status, 200);
    let spent = ci("POST", "/v1/messages", &hello().to_string());
    assert_eq!(spent.status, 429);
    assert!(spent.header("retry-after").is_some());
}

/// A stop lets a running stream end, then exits with 0.
#[test]
fn a_stop_drains() {
    let lab = lab("{reply: {bytes: 400, events: 20}, rules: [{fault: {delayMs: 300}}]}");
    let sandbox = one_key(&lab.url(), json!({}));
    let mut gate = Gate::start(&sandbox);
    let addr = gate.addr.clone();
    let mut stream = gate.begin_post(&hello_streamed());
    let client = std::thread::spawn(move || {
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    });
    until(|| !messages(&lab).is_empty());
    gate.signal(Signal::TERM);
    assert!(client.join().unwrap().contains("message_stop"));
    assert_eq!(gate.child.wait().unwrap().code(), Some(0));
    assert!(std::net::TcpStream::connect(&addr).is_err());
}
