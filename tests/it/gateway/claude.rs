//! The user's own `claude` behind both HTTP doors: a fake one for turns, faults and ends, the real
//! one of `MOLTBOT_CLIENTS/claude` and the official SDK with the lab as upstream.

mod kept;
mod limits;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Answer, Gate, TOKEN, config};
use crate::claude_backend::{CANARY, SETUP_TOKEN, fake, log, plan, real, runs};
use crate::support::{Sandbox, lab, messages, used};

/// A home with a fake program that acts by the word `plan`, and a gateway before it.
fn backed(word: &str) -> (Sandbox, Gate) {
    let mut sandbox = fake(word);
    sandbox.set_env("ANTHROPIC_API_KEY", Some(CANARY));
    // Nobody listens there: whatever went to the service instead would fail.
    sandbox.write_config(&served("http://127.0.0.1:9", json!({})).to_string());
    let gate = Gate::start(&sandbox);
    (sandbox, gate)
}

/// A config in which one model keeps its name and is answered by the program.
fn served(url: &str, gateway: Value) -> Value {
    let mut config = config(url, gateway);
    config["agents"] = json!({ "defaults": { "models": {
        "anthropic/claude-opus-4-5": { "runtime": "claude-cli" },
        "claude-cli/sonnet": {}, "claude-cli/opus": {} } } });
    config
}

fn said(texts: &[&str]) -> Value {
    let message = |(at, text): (usize, &&str)| json!({ "role": if at % 2 == 0 { "user" } else { "assistant" }, "content": text });
    let messages: Vec<Value> = texts.iter().enumerate().map(message).collect();
    json!({ "model": "claude-cli/sonnet", "max_tokens": 50, "messages": messages })
}

fn streamed(mut body: Value) -> Value {
    body["stream"] = true.into();
    body
}

#[track_caller]
fn text(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["content"][0]["text"].as_str().expect("a text").to_string()
}

/// Names and data of a stream of events.
fn events(answer: &Answer) -> Vec<Value> {
    let text = answer.text();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}

#[test]
fn both_doors_answer_through_the_program_warm_and_without_any_key() {
    let (sandbox, gate) = backed("ok");
    let first = gate.post_slowly("/v1/messages", &said(&["hi"]));
    let answered = text(&first);
    assert!(answered.ends_with(":1:hi"), "{answered}");
    assert_eq!(first.header("x-moltbot-changed"), Some("runtime=claude-cli"));
    let body = first.json();
    assert_eq!((&body["type"], &body["role"]), (&json!("message"), &json!("assistant")));
    assert_eq!(body["stop_reason"], "end_turn");
    assert_eq!(body["usage"]["output_tokens"], 7);

    // The same conversation goes on in the same process.
    let next = streamed(said(&["hi", &answered, "and?"]));
    let answer = gate.post_slowly("/v1/messages", &next);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"), "{}", answer.text());
    let kinds: Vec<String> =
        events(&answer).iter().map(|e| e["type"].as_str().unwrap().to_string()).collect();
    assert_eq!(kinds.first().map(String::as_str), Some("message_start"));
    assert_eq!(kinds[kinds.len() - 2..], ["message_delta", "message_stop"]);
    let pid = answered.split(':').next().unwrap();
    let text: String = events(&answer).iter().filter_map(|e| e["delta"]["text"].as_str()).collect();
    assert_eq!(text, format!("{pid}:2:and?"));

    // A model that keeps its name, and the other dialect, streamed and whole.
    let mut named = said(&["named"]);
    named["model"] = "claude-opus-4-5".into();
    assert!(self::text(&gate.post_slowly("/v1/messages", &named)).ends_with(":named"));
    for model in ["claude-cli/sonnet", "anthropic/claude-opus-4-5"] {
        let body = json!({ "model": model, "messages": [{ "role": "user", "content": "oa" }] });
        let whole = gate.post_slowly("/v1/chat/completions", &body).json();
        let content = whole["choices"][0]["message"]["content"].as_str().unwrap_or_default();
        assert!(content.ends_with(":1:oa"), "{whole}");
        assert_eq!(whole["usage"]["completion_tokens"], 7, "{whole}");
        let chunks = gate.post_slowly("/v1/chat/completions", &streamed(body));
        assert!(chunks.text().trim_end().ends_with("data: [DONE]"), "{}", chunks.text());
        let text: String = events(&chunks)
            .iter()
            .filter_map(|e| e["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert!(text.ends_with(":1:oa"), "{text}");
    }
    let log = log(&sandbox);
    assert!(!log.contains("FAKECANARY") && !log.contains(TOKEN), "{log}");
    assert!(log.contains("--no-session-persistence") && !log.contains("--session-id"), "{log}");
}

/// Nothing of a request is dropped in silence.
#[test]
fn what_the_program_cannot_do_is_an_invalid_request() {
    let (sandbox, gate) = backed("ok");
    let with = |name: &str, value: Value| {
        let mut body = said(&["hi"]);
        body[name] = value;
        body
    };
    let shown = |block: Value| {
        let mut body = said(&["hi"]);
        body["messages"][0]["content"] = json!([block, { "type": "text", "text": "hi" }]);
        body
    };
    let tool = json!([{ "name": "f", "input_schema": { "type": "object" } }]);
    for (body, named) in [
        (with("tools", tool.clone()), "tools"),
        (with("tool_choice", json!({ "type": "auto" })), "tool_choice"),
        (with("temperature", json!(0.5)), "temperature"),
        (with("top_p", json!(0.5)), "top_p"),
        (with("top_k", json!(5)), "top_k"),
        (with("stop_sequences", json!(["x"])), "stop_sequences"),
        (with("metadata", json!({ "user_id": "u" })), "metadata"),
        (with("service_tier", json!("auto")), "service_tier"),
        (with("odd_new_thing", json!(1)), "odd_new_thing"),
        (said(&["hi", "prefilled"]), "last message"),
        (shown(json!({ "type": "tool_result", "tool_use_id": "t" })), "tool_result"),
        (shown(json!({ "type": "image", "source": { "type": "file", "file_id": "f" } })), "files"),
    ] {
        for body in [body.clone(), streamed(body)] {
            let answer = gate.post_slowly("/v1/messages", &body);
            assert_eq!(answer.status, 400, "{named}: {}", answer.text());
            let error = &answer.json()["error"];
            assert_eq!(error["type"], "invalid_request_error", "{named}");
            let message = error["message"].as_str().unwrap_or_default();
            assert!(message.contains(named), "{named}: {message}");
        }
    }
    let counted = gate.post_slowly("/v1/messages/count_tokens", &said(&["hi"]));
    assert_eq!(counted.status, 400, "{}", counted.text());
    assert!(counted.text().contains("cannot count tokens"), "{}", counted.text());
    let beta = gate.ask(
        "POST",
        "/v1/messages",
        &[
            ("x-api-key", TOKEN),
            ("content-type", "application/json"),
            ("anthropic-beta", "context-1m-2025-08-07"),
        ],
        said(&["hi"]).to_string().as_bytes(),
    );
    assert_eq!(beta.status, 400, "{}", beta.text());
    assert!(beta.text().contains("anthropic-beta"), "{}", beta.text());
    let body = json!({ "model": "claude-cli/sonnet", "temperature": 0.1,
        "messages": [{ "role": "user", "content": "hi" }] });
    let other = gate.post_slowly("/v1/chat/completions", &body);
    assert_eq!(
        (other.status, &other.json()["error"]["type"]),
        (400, &json!("invalid_request_error"))
    );
    assert!(other.text().contains("temperature"), "{}", other.text());
    assert_eq!(log(&sandbox), "", "nothing was started");
}

/// Each way in which the program fails has its class, and the client its word.
#[test]
fn every_fault_is_an_error_of_its_class() {
    let (sandbox, gate) = backed("ok");
    drop(gate);
    for (word, status, kind, named) in [
        ("before", 502, "api_error", "cannot open the terminal"),
        ("middle", 502, "api_error", "exit code 4"),
        ("garbage", 502, "api_error", "no JSON"),
        ("half", 502, "api_error", "ended"),
        ("old", 502, "api_error", "2.1.197 or later"),
        ("login", 401, "authentication_error", "run `claude`"),
        ("expired", 401, "authentication_error", "expired"),
        ("model", 404, "not_found_error", "plan"),
        ("busy", 529, "overloaded_error", "Overloaded"),
    ] {
        plan(&sandbox, word);
        // A fault of the login rests the login; each is met with a fresh one.
        std::fs::remove_file(sandbox.store_path()).ok();
        let gate = Gate::start(&sandbox);
        let answer = gate.post_slowly("/v1/messages", &said(&[word]));
        assert_eq!(answer.status, status, "{word}: {}", answer.text());
        let error = &answer.json()["error"];
        assert_eq!(error["type"], kind, "{word}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains(named), "{word}: {message}");
    }
    let gate = Gate::start(&sandbox);
    // A long line and a chatty program are no faults.
    for word in ["large", "flood", "after", "ok"] {
        plan(&sandbox, word);
        assert!(text(&gate.post_slowly("/v1/messages", &said(&[word]))).ends_with(word), "{word}");
    }
    plan(&sandbox, "cut");
    let answer = gate.post_slowly("/v1/messages", &streamed(said(&["cut"])));
    assert_eq!(answer.status, 200);
    let last = events(&answer).pop().expect("an event");
    assert_eq!((&last["type"], &last["error"]["type"]), (&json!("error"), &json!("api_error")));
}

/// A spent limit says when it ends, rests the login until then, and is met at once next time.
#[test]
fn a_spent_limit_rests_until_its_reset() {
    let (sandbox, gate) = backed("limit");
    let answer = gate.post_slowly("/v1/messages", &said(&["hi"]));
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
    let wait: u64 = answer.header("retry-after").expect("a time").parse().expect("seconds");
    assert!(wait > 3_600, "{wait}");
    let before = log(&sandbox).matches("pid ").count();
    let again = gate.post_slowly("/v1/messages", &said(&["hi"]));
    assert_eq!(again.status, 429, "{}", again.text());
    assert!(again.text().contains("claude-cli:login"), "{}", again.text());
    assert_eq!(log(&sandbox).matches("pid ").count(), before, "it was asked again");
}

#[test]
fn a_missing_program_is_told_to_the_client() {
    let sandbox = Sandbox::new();
    sandbox.write_config(&served("http://127.0.0.1:9", json!({})).to_string());
    let gate = Gate::start(&sandbox);
    let answer = gate.post_slowly("/v1/messages", &said(&["hi"]));
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(answer.text().contains("not installed"), "{}", answer.text());
}

/// A killed program costs its own turn and no other.
#[test]
fn a_killed_program_costs_its_own_turn() {
    let (sandbox, gate) = backed("ok");
    let log = || log(&sandbox);
    plan(&sandbox, "hang");
    let killed = std::thread::scope(|scope| {
        let asked = scope.spawn(|| gate.post_slowly("/v1/messages", &said(&["kill me"])));
        wait("the program to hang", || log().contains("kill me"));
        let turns = log();
        let turn = turns.lines().find(|line| line.contains("kill me")).unwrap().to_string();
        let pid: i32 = turn.split(' ').nth(1).unwrap().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        asked.join().unwrap()
    });
    assert_eq!(killed.status, 502, "{}", killed.text());
    plan(&sandbox, "ok");
    assert!(
        text(&gate.post_slowly("/v1/messages", &said(&["still here"]))).ends_with("still here")
    );
}

/// Nobody pays for an answer that nobody reads: the turn of a client that left is ended.
#[test]
fn a_client_that_leaves_ends_its_turn() {
    let (sandbox, gate) = backed("hang");
    let pid = |name: &str| -> Option<String> {
        let log = log(&sandbox);
        let turn = log.lines().find(|line| line.contains(name))?;
        turn.split(' ').nth(1).map(String::from)
    };
    for (name, body) in [("whole", said(&["whole"])), ("stream", streamed(said(&["stream"])))] {
        let stream = gate.begin_post(&body);
        wait("the program to hang", || pid(name).is_some());
        drop(stream);
        let pid = pid(name).unwrap();
        wait("the program to end", || !runs(&pid));
    }
    plan(&sandbox, "ok");
    assert!(text(&gate.post_slowly("/v1/messages", &said(&["after"]))).ends_with("after"));
}

#[track_caller]
fn wait(what: &str, so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// No program outlives the gateway, however it ends.
#[test]
fn no_program_outlives_the_gateway() {
    for signal in [Signal::KILL, Signal::TERM] {
        let (sandbox, mut gate) = backed("ok");
        for number in 0..3 {
            text(&gate.post_slowly("/v1/messages", &said(&[&format!("idle {number}")])));
        }
        plan(&sandbox, "hang");
        let pids = || -> BTreeSet<String> {
            log(&sandbox).lines().filter_map(|l| l.strip_prefix("pid ")).map(String::from).collect()
        };
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut stream = gate.begin_post(&said(&["hang"]));
                    // Held open until the gateway is gone.
                    let _ = std::io::Read::read(&mut stream, &mut [0; 1]);
                });
            }
            wait("six programs", || pids().len() == 6);
            wait("three of them to hang", || log(&sandbox).matches("hang\n").count() >= 3);
            gate.signal(signal);
            if signal == Signal::TERM {
                // A second one ends the patience with requests under way.
                std::thread::sleep(Duration::from_millis(200));
                gate.signal(signal);
                std::thread::sleep(Duration::from_millis(500));
                let _ = rustix::process::kill_process(
                    rustix::process::Pid::from_child(&gate.child),
                    Signal::KILL,
                );
            }
        });
        gate.child.wait().expect("it is gone");
        for pid in pids() {
            wait(&format!("the end of {pid}"), || !runs(&pid));
        }
    }
}

/// 1,000 turns over 20 conversations: each is answered in its own words, and no process ever hears
/// of two.
#[test]
fn a_thousand_turns_of_twenty_conversations_never_mix() {
    let (sandbox, gate) = backed("ok");
    let cold = Mutex::new(0);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (gate, cold) = (&gate, &cold);
            scope.spawn(move || {
                let mut talks: Vec<Vec<String>> = vec![Vec::new(); 5];
                for round in 0..5 {
                    for (at, talk) in talks.iter_mut().enumerate() {
                        for turn in 0..10 {
                            let own = format!("c{worker}{at}-{round}-{turn}");
                            talk.push(own.clone());
                            let texts: Vec<&str> = talk.iter().map(String::as_str).collect();
                            let answer = text(&gate.post_slowly("/v1/messages", &said(&texts)));
                            let mut parts = answer.splitn(3, ':');
                            let (_, count) = (parts.next(), parts.next());
                            assert_eq!(parts.next(), Some(own.as_str()), "{answer}");
                            *cold.lock().unwrap() += i32::from(count == Some("1"));
                            talk.push(answer);
                        }
                    }
                }
            });
        }
    });
    let log = log(&sandbox);
    let mut heard: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut turns = 0;
    for line in log.lines() {
        let Some((pid, text)) = line.strip_prefix("turn ").and_then(|l| l.split_once(' ')) else {
            continue;
        };
        turns += 1;
        heard.entry(pid).or_default().insert(&text[..3]);
    }
    assert_eq!(turns, 1_000);
    for (pid, talks) in &heard {
        assert_eq!(talks.len(), 1, "{pid} heard of {talks:?}");
    }
    let cold = *cold.lock().unwrap();
    assert!(cold <= 500, "{cold} of 1,000 turns began a process");
}

#[test]
fn fifty_turns_at_the_same_time() {
    let (sandbox, gate) = backed("wait");
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..50)
            .map(|number| {
                let gate = &gate;
                scope.spawn(move || {
                    let own = format!("at once {number}.");
                    let answer = gate.post_slowly("/v1/messages", &said(&[&own]));
                    assert!(text(&answer).ends_with(&own), "{}", answer.text());
                })
            })
            .collect();
        wait("fifty turns under way", || log(&sandbox).matches("turn ").count() == 50);
        sandbox.write(&sandbox.home().join(".claude/fake-stream.go"), "");
        for one in asked {
            one.join().expect("answered");
        }
    });
}

/// The real program, asked over raw HTTP and by the official SDK; the service sees the stored token
/// and no key.
#[test]
fn the_real_program_serves_the_gateway() {
    let Some(program) = real() else { return };
    let lab = lab("[]");
    let mut sandbox = Sandbox::new();
    sandbox.link_program("claude", program.to_str().expect("a path"));
    sandbox.set_env("ANTHROPIC_API_KEY", Some(CANARY));
    let mut config = served("http://127.0.0.1:9", json!({ "allowSubscription": true }));
    config["models"]["providers"]["claude-cli"] = json!({ "baseUrl": lab.url(), "models": [] });
    sandbox.write_config(&config.to_string());
    sandbox.write_store(&json!({ "version": 1, "profiles": {
        "anthropic:manual": { "type": "token", "provider": "anthropic", "token": SETUP_TOKEN },
    } }));
    let gate = Gate::start(&sandbox);
    let wanted = "Hello from the lab. You said: hi";
    let first = gate.post_slowly("/v1/messages", &said(&["hi"]));
    assert!(
        first.json()["content"]
            .as_array()
            .is_some_and(|blocks| { blocks.iter().any(|block| block["text"] == wanted) }),
        "{}",
        first.text()
    );
    let stream = gate.post_slowly("/v1/messages", &streamed(said(&["hi"])));
    let text: String = events(&stream).iter().filter_map(|e| e["delta"]["text"].as_str()).collect();
    assert_eq!(text, wanted, "{}", stream.text());
    let body =
        json!({ "model": "claude-cli/sonnet", "messages": [{ "role": "user", "content": "hi" }] });
    let other = gate.post_slowly("/v1/chat/completions", &body).json();
    assert_eq!(other["choices"][0]["message"]["content"], wanted, "{other}");
    let dir = std::env::var_os("MOLTBOT_CLIENTS").expect("looked at by real()");
    let python = Path::new(&dir).join("python/bin/python");
    if python.exists() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/claude_gateway.py");
        let url = format!("http://{}", gate.addr);
        let done = Command::new(python).arg(script).args([&url, TOKEN]).output().expect("it runs");
        let text = String::from_utf8_lossy(&done.stdout);
        let error = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && text.contains("passed"), "{text}\n{error}");
    } else {
        eprintln!("SKIPPED: no Python in MOLTBOT_CLIENTS, its SDK was not run");
    }
    for entry in messages(&lab) {
        assert_eq!(entry.credentials.len(), 1);
        assert_eq!(used(&entry), moltbot_lab::fingerprint(SETUP_TOKEN), "the token, and no key");
    }
}

impl Gate {
    /// Posts to a program that takes its time to start.
    fn post_slowly(&self, path: &str, body: &Value) -> Answer {
        let headers =
            [("x-api-key", TOKEN), ("content-type", "application/json"), ("connection", "close")];
        let mut stream = self.send("POST", path, &headers, body.to_string().as_bytes());
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a socket");
        let mut reply = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut reply).expect("a reply in time");
        super::parse(&reply)
    }
}
