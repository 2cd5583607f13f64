//! What remains of a request: its decision record, its line in the log, its share of the usage.

use std::io::{Read, Write};

use serde_json::{Value, json};

use super::upstream::{Upstream, reply};
use super::{Gate, TOKEN, config, hello, hello_streamed, one_key, two_keys, until};
use crate::support::{KEY, Sandbox};

const USED: &str = r#"{"id":"msg_1","type":"message","role":"assistant","content":[{"type":"text","text":"plum-coloured reply"}],"stop_reason":"end_turn","usage":{"input_tokens":100,"cache_read_input_tokens":800,"cache_creation_input_tokens":100,"output_tokens":10}}"#;
const LIMITED: &str =
    r#"{"type":"error","error":{"type":"rate_limit_error","message":"plum-coloured limit"}}"#;

/// Returns the record of a request once it is written.
fn record(sandbox: &Sandbox, agent: &str, id: &str) -> Value {
    let why = ["models", "why", "--agent", agent, "--json", "--request", id];
    until(|| sandbox.run(&why).code == 0);
    sandbox.run(&why).exits(0).json()["records"][0].clone()
}

/// Decision 10: the id in the reply leads to everything that was decided.
#[test]
fn the_id_in_a_reply_finds_its_record() {
    let upstream = Upstream::start(|request, stream| {
        let more = "retry-after: 600\r\nrequest-id: req_limited\r\n";
        match request.contains(KEY) {
            true => reply(stream, "429 Too Many Requests", more, LIMITED),
            false => reply(stream, "200 OK", "request-id: req_good\r\n", USED),
        }
    });
    let sandbox = two_keys(upstream.url());
    let gate = Gate::start(&sandbox);
    let mut body = hello();
    body["messages"][0]["content"] = "plum-coloured question".into();
    body["model"] = "anthropic/claude-opus-4-5".into();
    let answer = gate.post("/v1/messages", &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-moltbot-changed"), Some("model"));
    let record = record(&sandbox, "main", answer.header("x-moltbot-request-id").unwrap());
    assert_eq!(record["requested"], "anthropic/claude-opus-4-5");
    assert_eq!(record["models"][0]["model"], "anthropic/claude-opus-4-5");
    assert_eq!(record["models"][0]["candidates"][1]["profile"], "anthropic:two");
    assert_eq!(record["changed"], json!(["model"]));
    let attempts = record["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{record}");
    let first = &attempts[0];
    assert_eq!((&first["class"], &first["status"]), (&json!("rate_limit"), &json!(429)));
    assert_eq!(first["requestId"], "req_limited");
    assert!(first["until"].is_i64(), "{first}");
    assert_eq!(attempts[1]["source"], "profile:anthropic:two");
    assert_eq!(record["outcome"]["type"], "answered");
    assert_eq!(record["usage"]["cacheRead"], 800);
    let told = sandbox.run(&["models", "why"]).exits(0).out;
    assert!(told.contains("rate_limit, HTTP 429") && told.contains("req_good"), "{told}");
    let log = std::fs::read_to_string(sandbox.state("agents/main/logs/requests.jsonl")).unwrap();
    for secret in ["plum", KEY, TOKEN] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

/// What was read from the cache, and what that saved, counts for the agent behind the token.
#[test]
fn traffic_counts_in_the_usage_of_its_agent() {
    let upstream = Upstream::start(|_, stream| reply(stream, "200 OK", "", USED));
    let sandbox = Sandbox::new().env("ANTHROPIC_API_KEY", KEY);
    let tokens = json!({ "tokens": { "ci": { "token": "mbg_FAKE_ci", "agent": "work" } } });
    let mut config = config(upstream.url(), tokens);
    config["agents"] = json!({ "list": [{ "id": "main" }, { "id": "work", "workspace": "~/w" }] });
    sandbox.write_config(&config.to_string());
    let gate = Gate::start(&sandbox);
    let headers = [("x-api-key", "mbg_FAKE_ci"), ("content-type", "application/json")];
    for _ in 0..3 {
        let answer = gate.ask("POST", "/v1/messages", &headers, hello().to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let usage = ["models", "usage", "--by", "agent", "--all", "--json"];
    until(|| sandbox.run(&usage).exits(0).json()["total"]["requests"] == 3);
    let usage = sandbox.run(&usage).exits(0).json();
    let row = &usage["rows"][0];
    assert_eq!((&row["key"], &row["cacheRead"]), (&json!("work"), &json!(2_400)));
    assert_eq!((&row["cacheWrite"], &row["output"]), (&json!(300), &json!(30)));
    assert!((row["hitRate"].as_f64().unwrap() - 0.8).abs() < 1e-9, "{row}");
    // 800 at a tenth of 5 dollars a million, 100 at a quarter more, three times.
    let saved = 3.0 * (800.0 * 4.5 - 100.0 * 1.25) / 1e6;
    assert!((row["saved"].as_f64().unwrap() - saved).abs() < 1e-9, "{row}");
    let metrics = gate.get("/metrics").text();
    for line in [
        "moltbot_requests_total{agent=\"work\",status=\"200\"} 3",
        "moltbot_tokens_total{agent=\"work\",kind=\"cache_read\"} 2400",
        "moltbot_cache_saved_dollars{agent=\"work\"} 0.010425",
        "moltbot_attempts_total 3",
    ] {
        assert!(metrics.contains(line), "no {line} in\n{metrics}");
    }
}

/// Nothing is lost: what was refused, what broke off, and who left is recorded with its code.
#[test]
fn every_end_has_a_record() {
    let start =
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{}}}\n\n";
    let upstream = Upstream::start(move |request, stream| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let _ = stream.write_all(format!("{head}{:x}\r\n{start}\r\n", start.len()).as_bytes());
        if request.contains("break") {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        } else {
            let _ = stream.read(&mut [0; 16]);
        }
    });
    let tokens = json!({ "tokens": { "ci": {
        "token": "mbg_FAKE_ci", "agent": "main", "models": ["claude-opus-5-5"] } } });
    let sandbox = one_key(upstream.url(), tokens);
    let gate = Gate::start(&sandbox);
    let failed = |id: &str, code: &str| {
        let record = record(&sandbox, "main", id);
        assert_eq!(record["outcome"], json!({ "type": "failed", "code": code }), "{record}");
    };
    let headers = [("x-api-key", "mbg_FAKE_ci"), ("content-type", "application/json")];
    let refused = gate.ask("POST", "/v1/messages", &headers, hello().to_string().as_bytes());
    assert_eq!(refused.status, 403);
    failed(refused.header("x-moltbot-request-id").unwrap(), "model-not-allowed");

    let mut body = hello_streamed();
    body["messages"][0]["content"] = "break".into();
    let broken = gate.post("/v1/messages", &body);
    assert!(broken.text().contains("event: error"), "{}", broken.text());
    failed(broken.header("x-moltbot-request-id").unwrap(), "upstream");

    let mut client = gate.begin_post(&hello_streamed());
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("message_start") {
        let mut some = [0; 1_024];
        let count = client.read(&mut some).unwrap();
        assert!(count > 0);
        seen.extend_from_slice(&some[..count]);
    }
    drop(client);
    let head = String::from_utf8_lossy(&seen).into_owned();
    let id = head.lines().find_map(|line| line.strip_prefix("x-moltbot-request-id: ")).unwrap();
    failed(id, "cancelled");
}

/// One line per request without any flag; no body, no query, no secret; `--quiet` writes none.
#[test]
fn one_line_per_request() {
    let upstream = Upstream::start(|_, stream| reply(stream, "200 OK", "", USED));
    let sandbox = one_key(upstream.url(), json!({}));
    let path = sandbox.root().join("log");
    let gate = Gate::logged(&sandbox, &path, &[]);
    let mut body = hello();
    body["messages"][0]["content"] = "plum-coloured question".into();
    let answer = gate.post("/v1/messages?beta=true&x=plum", &body);
    assert_eq!(gate.ask("GET", "/v1/models", &[("x-api-key", KEY)], b"").status, 401);
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    let lines = || read().lines().filter(|line| line.starts_with("request ")).count();
    until(|| lines() == 2);
    let log = read();
    let id = answer.header("x-moltbot-request-id").unwrap();
    let line = log.lines().find(|line| line.contains(id)).unwrap();
    for word in [
        "method=POST",
        "path=/v1/messages ",
        "token=owner",
        "agent=main",
        "model=anthropic/claude-opus-4-5",
        "status=200",
        "attempts=1",
        "cache_read=800",
        "cache_write=100",
    ] {
        assert!(line.contains(word), "no {word} in {line}");
    }
    assert!(log.contains("status=401 attempts=0"), "{log}");
    for secret in ["plum", KEY, TOKEN] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    drop(gate);
    let quiet = sandbox.root().join("quiet");
    let mut gate = Gate::logged(&sandbox, &quiet, &["--quiet"]);
    assert_eq!(gate.post("/v1/messages", &hello()).status, 200);
    gate.signal(rustix::process::Signal::TERM);
    assert!(gate.child.wait().unwrap().success());
    let log = std::fs::read_to_string(&quiet).unwrap();
    assert!(!log.contains("request id="), "{log}");
}

/// What is still to be written when the gateway stops is written.
#[test]
fn a_stop_writes_the_last_records() {
    let upstream = Upstream::start(|_, stream| reply(stream, "200 OK", "", USED));
    let sandbox = one_key(upstream.url(), json!({}));
    let mut gate = Gate::start(&sandbox);
    let answer = gate.post("/v1/messages", &hello());
    gate.signal(rustix::process::Signal::TERM);
    assert!(gate.child.wait().unwrap().success());
    let id = answer.header("x-moltbot-request-id").unwrap();
    sandbox.run(&["models", "why", "--request", id]).exits(0);
}

/// A conversation is known again in its record, by a hash that shows nothing of it, and the
/// simulator keeps it on its profile.
#[test]
fn a_record_tells_its_conversation_and_simulations_use_it() {
    let upstream = Upstream::start(|_, stream| reply(stream, "200 OK", "", USED));
    let sandbox = two_keys(upstream.url());
    let gate = Gate::start(&sandbox);
    let turn = |text: &str, more: &[&str]| {
        let mut body = hello();
        body["messages"] = json!([{ "role": "user", "content": text }]);
        for said in more {
            let role = if body["messages"].as_array().unwrap().len() % 2 == 1 {
                "assistant"
            } else {
                "user"
            };
            body["messages"].as_array_mut().unwrap().push(json!({ "role": role, "content": said }));
        }
        let answer = gate.post("/v1/messages", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let id = answer.header("x-moltbot-request-id").unwrap().to_string();
        record(&sandbox, "main", &id)["session"].as_str().unwrap().to_string()
    };
    let one = turn("plum-coloured start", &[]);
    assert!(one.starts_with("door:") && one.len() == 17, "{one}");
    assert_eq!(turn("plum-coloured start", &["yes", "and now?"]), one);
    let two = turn("another start", &[]);
    assert_ne!(two, one);
    let log = std::fs::read_to_string(sandbox.state("agents/main/logs/requests.jsonl")).unwrap();
    assert!(!log.contains("plum"), "{log}");
    // Records of an older version have no session; they load and count as before.
    let old: String = log
        .lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            line.as_object_mut().unwrap().remove("session");
            format!("{line}\n")
        })
        .collect();
    let file = sandbox.root().join("old.jsonl");
    sandbox.write(&file, &old);
    // Where profiles take turns, a conversation that is known stays with its own.
    let mut turns: Value = serde_json::from_str(&sandbox.config()).unwrap();
    turns["auth"]["strategy"] = "round-robin".into();
    let config = sandbox.root().join("turns.json");
    sandbox.write(&config, &turns.to_string());
    let simulated = |of: [&str; 2]| {
        let config = config.display().to_string();
        let line = ["models", "simulate", "--json", of[0], of[1], "--config", &config];
        sandbox.run(&line).exits(0).json()["changed"]["result"].clone()
    };
    let (new, old) =
        (simulated(["--last", "3"]), simulated(["--trace", &file.display().to_string()]));
    assert_eq!((&new["served"], &old["served"]), (&json!(3), &json!(3)), "{new}\n{old}");
    assert_eq!(new["switched"], 0, "{new}");
    assert_ne!(old["switched"], 0, "{old}");
}
