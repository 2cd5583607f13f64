//! Many requests through the gateway: the retry budget, what `retry-after` may say, and agents that
//! never get each other's keys.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use moltbot_lab::fingerprint;
use serde_json::{Value, json};

use super::upstream::{Upstream, reply};
use super::{Gate, TOKEN, config, two_keys, until};
use crate::support::{Sandbox, lab, messages};

/// A client that keeps its connection.
struct Client<'g> {
    gate: &'g Gate,
    stream: Option<BufReader<std::net::TcpStream>>,
}

impl<'g> Client<'g> {
    fn new(gate: &'g Gate) -> Self {
        Self { gate, stream: None }
    }

    /// Posts a message and returns the status; 0 if the connection broke, as some faults do.
    fn post(&mut self, token: &str, body: &Value) -> u16 {
        let body = body.to_string();
        let head = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: {}\r\nx-api-key: {token}\r\n\
             anthropic-version: 2023-06-01\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.gate.addr,
            body.len()
        );
        let stream = self.stream.get_or_insert_with(|| BufReader::new(self.gate.connect()));
        let status = stream.get_mut().write_all(head.as_bytes()).ok().and_then(|()| answer(stream));
        if status.is_none() {
            self.stream = None;
        }
        status.unwrap_or(0)
    }
}

/// Reads one answer with a length to its end.
fn answer(stream: &mut BufReader<std::net::TcpStream>) -> Option<u16> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let mut length = None;
    loop {
        line.clear();
        stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<usize>().ok();
        }
    }
    let mut body = vec![0; length?];
    stream.read_exact(&mut body).ok()?;
    Some(status)
}

fn message(text: &str) -> Value {
    json!({ "model": "claude-opus-4-5", "max_tokens": 5,
        "messages": [{ "role": "user", "content": text }] })
}

/// At 529 for everybody the service gets at most a tenth more than the client sent.
///
/// 1,000 requests over sockets. The same with 10,000 is in `simulate.rs`, with the engine's rules
/// and a virtual clock, and for the budget itself in `moltbot-profiles/src/budget.rs`: over sockets
/// they take a debug build too long on a loaded machine.
#[test]
fn an_overloaded_service_is_asked_a_tenth_more_at_most() {
    const COUNT: usize = 1_000;
    const CLIENTS: usize = 4;
    let asked = std::sync::Arc::new(AtomicUsize::new(0));
    let body = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let upstream = {
        let asked = asked.clone();
        Upstream::start(move |_, stream| {
            asked.fetch_add(1, Ordering::Relaxed);
            reply(stream, "529 Overloaded", "", body);
        })
    };
    let gate = Gate::start(&two_keys(upstream.url()));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client::new(&gate);
                for _ in 0..COUNT / CLIENTS {
                    assert_eq!(client.post(TOKEN, &message("hi")), 529);
                }
            });
        }
    });
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked * 100 <= COUNT * 110, "{asked} requests upstream for {COUNT}");
}

/// `retry-after` is honoured up to seven days, or ignored where it makes no sense: then the table
/// decides, which begins with a minute.
#[test]
fn every_retry_after_is_honoured_or_ignored() {
    const SECOND: i64 = 1_000;
    // 2099-01-01, beyond every cap; and long past.
    let rows: [(&str, i64); 9] = [
        ("retry-after: 0\r\n", 60 * SECOND),
        ("retry-after: -5\r\n", 60 * SECOND),
        ("retry-after: 300\r\n", 300 * SECOND),
        ("retry-after: 1e300\r\n", 7 * 86_400 * SECOND),
        ("retry-after: Thu, 01 Jan 2099 00:00:00 GMT\r\n", 7 * 86_400 * SECOND),
        ("retry-after: Thu, 01 Jan 1998 00:00:00 GMT\r\n", 60 * SECOND),
        ("retry-after: soon\r\n", 60 * SECOND),
        ("", 60 * SECOND),
        ("retry-after: 5\r\nretry-after: 120\r\n", 120 * SECOND),
    ];
    let body = r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}"#;
    let upstream = Upstream::start(move |request, stream| {
        let row = rows.iter().enumerate().find(|(n, _)| request.contains(&format!("row-{n}\"")));
        reply(stream, "429 Too Many Requests", row.map_or("", |(_, (header, _))| header), body);
    });
    let sandbox = two_keys(upstream.url());
    let gate = Gate::start(&sandbox);
    let mut client = Client::new(&gate);
    for n in 0..rows.len() {
        let mut body = message("hi");
        body["model"] = format!("row-{n}").into();
        assert_eq!(client.post(TOKEN, &body), 429);
    }
    let stats = |n: usize| {
        sandbox.store()["usageStats"]["anthropic:one"]["models"][format!("row-{n}")].clone()
    };
    until(|| (0..rows.len()).all(|n| stats(n).is_object()));
    for (n, (header, expected)) in rows.iter().enumerate() {
        let stats = stats(n);
        let rests =
            stats["cooldownUntil"].as_i64().unwrap() - stats["lastFailureAt"].as_i64().unwrap();
        assert!((rests - expected).abs() <= SECOND, "{header:?}: {rests} instead of {expected}");
    }
}

/// Fifty agents with two keys each and a token each; faults of every sort at random. No request
/// ever carries a key of another agent.
#[test]
fn no_agent_ever_gets_anothers_key() {
    const AGENTS: usize = 50;
    const EACH: usize = 200;
    let key = |agent: usize, n: usize| format!("sk-ant-api03-FAKEcanary{agent:03}{n}FAKEFAKEFAKE");
    let lab = lab(&plan().to_string());
    let sandbox = Sandbox::new();
    let mut tokens = serde_json::Map::new();
    let mut list = Vec::new();
    for agent in 0..AGENTS {
        let id = format!("a{agent:03}");
        tokens.insert(id.clone(), json!({ "token": token(agent), "agent": id }));
        list.push(json!({ "id": id }));
        let profile =
            |n| json!({ "type": "api_key", "provider": "anthropic", "key": key(agent, n) });
        let store = json!({ "version": 1,
            "profiles": { "anthropic:one": profile(1), "anthropic:two": profile(2) } });
        let path = sandbox.state(&format!("agents/{id}/agent/auth-profiles.json"));
        sandbox.write(&path, &store.to_string());
    }
    let mut config = config(&lab.url(), json!({ "tokens": tokens }));
    config["agents"] = json!({ "list": list });
    // Nobody waits for a rest: the point is that the requests come thick and fast.
    config["auth"] = json!({ "maxWaitSeconds": 0 });
    sandbox.write_config(&config.to_string());
    let gate = Gate::start(&sandbox);
    let served = AtomicUsize::new(0);
    let owners: HashMap<String, usize> = (0..AGENTS)
        .flat_map(|agent| [1, 2].map(|n| (fingerprint(&key(agent, n)), agent)))
        .collect();
    let mut agents = [0_usize; AGENTS];
    let mut faults = 0;
    // In two halves: the lab's log holds 10,000 requests, and every one is looked at.
    for half in [0..EACH / 2, EACH / 2..EACH] {
        std::thread::scope(|scope| {
            for thread in 0..5 {
                let (gate, served, rounds) = (&gate, &served, half.clone());
                scope.spawn(move || {
                    let mut client = Client::new(gate);
                    // One connection serves all agents of the thread in turns.
                    for round in rounds {
                        for agent in (thread..AGENTS).step_by(5) {
                            let text = format!("agent {agent:03} round {round}");
                            let status = client.post(&token(agent), &message(&text));
                            served.fetch_add(usize::from(status == 200), Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        for entry in messages(&lab) {
            let text = entry.body["messages"][0]["content"].as_str().unwrap();
            let agent: usize = text[6..9].parse().unwrap();
            assert_eq!(entry.credentials.len(), 1);
            let owner = owners.get(&entry.credentials[0].sha256);
            assert_eq!(owner, Some(&agent), "the key of another agent: {text}");
            agents[agent] += 1;
            faults += usize::from(entry.rule.is_some());
        }
    }
    assert!(agents.iter().all(|count| *count > 0), "{agents:?}");
    assert!(faults > 100, "{faults} faults came");
    let served = served.load(Ordering::Relaxed);
    assert!(served > AGENTS * EACH / 2, "{served} served");
}

fn token(agent: usize) -> String {
    format!("mbg_FAKEtokenOFagent{agent:03}fakeTOKEN")
}

/// Faults spread over the first 10,000 requests by a fixed draw.
fn plan() -> Value {
    let mut state = 7_u64;
    let mut draw = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1 + (state >> 33) % 10_000
    };
    let mut rule = |fault: Value, count: usize| {
        let numbers: Vec<u64> = (0..count).map(|_| draw()).collect();
        json!({ "match": { "request": numbers }, "fault": fault })
    };
    json!([
        rule(json!({ "error": "rate-limit", "retryAfter": 1 }), 120),
        rule(json!({ "error": "overloaded" }), 120),
        rule(json!({ "error": "server-error" }), 120),
        rule(json!({ "reset": "headers" }), 60),
        rule(json!({ "cutAt": 40 }), 60),
    ])
}
