//! What the door does beside passing on: pinned accounts, a client's own login, other models,
//! breakpoints, and conversations that stay where they are.

use std::io::Write;

use serde_json::{Value, json};

use super::upstream::{Upstream, reply};
use super::{Gate, TOKEN, config, hello, one_key, until};
use crate::support::{KEY, KEY2, Sandbox, token};

const OK: &str = r#"{"id":"msg_1","type":"message","role":"assistant","content":[],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#;
const BUSY: &str = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
const LOGIN: &str = "sk-ant-oat01-FAKEclientFAKEclientFAKEclientFAKE";

/// A home with two keys in no order.
fn two_equal_keys(url: &str, gateway: Value, more: Value) -> Sandbox {
    let sandbox = Sandbox::new();
    let mut config = config(url, gateway);
    if let (Value::Object(config), Value::Object(more)) = (&mut config, more) {
        config.extend(more);
    }
    sandbox.write_config(&config.to_string());
    let key = |key: &str| json!({ "type": "api_key", "provider": "anthropic", "key": key });
    sandbox.write_store(&json!({ "version": 1,
        "profiles": { "anthropic:b": key(KEY), "anthropic:a": key(KEY2) } }));
    sandbox
}

fn body_of(request: &str) -> Value {
    serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn key_of(request: &str) -> &'static str {
    match (request.contains(KEY), request.contains(KEY2)) {
        (true, false) => "b",
        (false, true) => "a",
        both => panic!("{both:?}: {request}"),
    }
}

/// Batches and files are seen by the account that made them: always the same one, by name,
/// whatever its health, and nobody else is asked.
#[test]
fn batches_and_files_stay_with_one_account() {
    let refused =
        r#"{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}"#;
    let upstream = Upstream::start(move |request, stream| match request.contains("file_bad") {
        true => reply(stream, "401 Unauthorized", "", refused),
        false => reply(stream, "200 OK", "", "{\"data\":[]}"),
    });
    let sandbox = two_equal_keys(upstream.url(), json!({}), json!({}));
    let mut store = sandbox.store();
    store["order"] = json!({ "anthropic": ["anthropic:b", "anthropic:a"] });
    sandbox.write_store(&store);
    let gate = Gate::start(&sandbox);
    assert_eq!(gate.post("/v1/messages/batches", &json!({ "requests": [] })).status, 200);
    assert_eq!(gate.get("/v1/messages/batches/msgbatch_1/results?x=1").status, 200);
    let deleted = gate.ask("DELETE", "/v1/files/file_1", &[("x-api-key", TOKEN)], b"");
    assert_eq!(deleted.status, 200);
    // A refusal passes as it came; the account rests for chats, and still keeps its files.
    let bad = gate.get("/v1/files/file_bad");
    assert_eq!((bad.status, bad.text().as_str()), (401, refused));
    assert_eq!(gate.get("/v1/files").status, 200);
    let seen = upstream.seen();
    let used: Vec<_> = seen.iter().map(|request| key_of(request)).collect();
    assert_eq!(used, ["a"; 5]);
    assert!(seen[1].starts_with("GET /v1/messages/batches/msgbatch_1/results?x=1 HTTP/1.1\r\n"));
    assert!(seen[2].starts_with("DELETE /v1/files/file_1 HTTP/1.1\r\n"));
}

/// An upload passes while it comes, longer than a chat may be, byte by byte.
#[test]
fn an_upload_is_not_held() {
    let upstream = Upstream::start(|request, stream| {
        let length = request.split_once("\r\n\r\n").unwrap().1.len();
        reply(stream, "200 OK", "", &format!("{{\"length\":{length}}}"));
    });
    let gate = Gate::start(&one_key(upstream.url(), json!({})));
    let head = |length: u64| {
        format!(
            "POST /v1/files HTTP/1.1\r\nhost: {}\r\nx-api-key: {TOKEN}\r\nconnection: close\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: {length}\r\n\r\n",
            gate.addr
        )
    };
    let piece = vec![b'x'; 1 << 20];
    let mut client = gate.connect();
    client.write_all(head(40 << 20).as_bytes()).unwrap();
    for _ in 0..40 {
        client.write_all(&piece).unwrap();
    }
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut client, &mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains(&format!("\"length\":{}", 40 << 20)), "{answer}");
    let mut client = gate.connect();
    client.write_all(head((500 << 20) + 1).as_bytes()).unwrap();
    let mut long = String::new();
    std::io::Read::read_to_string(&mut client, &mut long).unwrap();
    assert!(long.starts_with("HTTP/1.1 413") && long.contains("500 MiB"), "{long}");
}

/// Decision 7: a client's own login goes on untouched, and nothing of the agent's is used.
#[test]
fn a_clients_own_login_passes_through() {
    let upstream = Upstream::start(|_, stream| reply(stream, "429 Too Many Requests", "", BUSY));
    let sandbox = one_key(upstream.url(), json!({ "passthroughLogin": true }));
    let mut gate = Gate::start(&sandbox);
    let bearer = format!("Bearer {LOGIN}");
    let ask = |header: &str| {
        let headers = [
            (header, TOKEN),
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            ("anthropic-beta", "oauth-2025-04-20,claude-code-20250219"),
            ("x-app", "cli"),
            ("user-agent", "some-client/9"),
        ];
        gate.ask("POST", "/v1/messages", &headers, hello().to_string().as_bytes())
    };
    for header in ["x-moltbot-token", "x-api-key"] {
        let answer = ask(header);
        assert_eq!((answer.status, answer.text().as_str()), (429, BUSY), "one try, as it came");
        assert_eq!(answer.header("x-moltbot-changed"), None);
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2);
    for request in &seen {
        let lower = request.to_lowercase();
        for line in [
            format!("authorization: bearer {}", LOGIN.to_lowercase()),
            "anthropic-beta: oauth-2025-04-20,claude-code-20250219".into(),
            "x-app: cli".into(),
            "user-agent: some-client/9".into(),
        ] {
            assert!(lower.contains(&format!("\r\n{line}\r\n")), "{line}\n{request}");
        }
        assert!(!request.contains(TOKEN) && !request.contains(KEY), "{request}");
        assert_eq!(body_of(request), hello());
    }
    // The login alone is no way in, and the gateway's token as a bearer is no login.
    let alone = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    assert_eq!(gate.ask("POST", "/v1/messages", &alone, b"{}").status, 401);
    let token = format!("Bearer {TOKEN}");
    let own = [("authorization", token.as_str()), ("content-type", "application/json")];
    gate.ask("POST", "/v1/messages", &own, hello().to_string().as_bytes());
    assert!(upstream.seen()[2].contains(KEY));
    // Nothing of it is stored, and the records name it without it.
    gate.signal(rustix::process::Signal::TERM);
    assert!(gate.child.wait().unwrap().success());
    let log = sandbox.state("agents/main/logs/requests.jsonl");
    assert!(std::fs::read_to_string(&log).unwrap().contains("\"client login\""));
    for file in files_below(&sandbox.home().join(".moltbot")) {
        let text = std::fs::read(&file).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains(LOGIN), "{}", file.display());
    }
}

fn files_below(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => all.extend(files_below(&entry.path())),
            false => all.push(entry.path()),
        }
    }
    all
}

/// Off, a client's other bearer is dropped, as any credential of a client is.
#[test]
fn without_the_setting_a_clients_login_goes_nowhere() {
    let upstream = Upstream::start(|_, stream| reply(stream, "200 OK", "", OK));
    let gate = Gate::start(&one_key(upstream.url(), json!({})));
    let bearer = format!("Bearer {LOGIN}");
    let headers =
        [("x-api-key", TOKEN), ("authorization", &bearer), ("content-type", "application/json")];
    gate.ask("POST", "/v1/messages", &headers, hello().to_string().as_bytes());
    let seen = upstream.seen();
    assert!(seen[0].contains(KEY) && !seen[0].contains(LOGIN), "{}", seen[0]);
}

/// Decision 7: subscriptions serve nobody here unless the config says so; then nothing names the
/// client, and the reply says what was taken out.
#[test]
fn a_subscription_serves_only_where_it_is_allowed() {
    let upstream = Upstream::start(|_, stream| reply(stream, "200 OK", "", OK));
    for allowed in [false, true] {
        let sandbox = Sandbox::new();
        let gateway = json!({ "allowSubscription": allowed });
        sandbox.write_config(&config(upstream.url(), gateway).to_string());
        sandbox.write_store(&json!({ "version": 1, "profiles": { "anthropic:manual": {
            "type": "token", "provider": "anthropic", "token": token() } } }));
        let gate = Gate::start(&sandbox);
        let headers = [
            ("x-api-key", TOKEN),
            ("content-type", "application/json"),
            ("x-app", "cli"),
            ("user-agent", "some-client/9"),
        ];
        let answer = gate.ask("POST", "/v1/messages", &headers, hello().to_string().as_bytes());
        if !allowed {
            assert_eq!(answer.status, 503);
            assert!(answer.text().contains("gateway.allowSubscription"), "{}", answer.text());
            continue;
        }
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-moltbot-changed"), Some("x-app, user-agent, anthropic-beta"));
        let sent = upstream.seen()[0].to_lowercase();
        assert!(sent.contains("user-agent: moltbot/") && !sent.contains("x-app"), "{sent}");
        assert!(sent.contains("anthropic-beta: oauth-2025-04-20\r\n"), "{sent}");
    }
}

fn with_fallback(url: &str, on: bool) -> Sandbox {
    let sandbox = Sandbox::new().env("ANTHROPIC_API_KEY", KEY);
    let mut config = config(url, json!({ "modelFallback": on }));
    config["agents"]["defaults"]["model"] = json!({
        "primary": "anthropic/claude-opus-4-5",
        "fallbacks": ["anthropic/claude-haiku-4-5", "anthropic/claude-sonnet-4-5"] });
    sandbox.write_config(&config.to_string());
    sandbox
}

/// Decision "Failure scope": only where the config says so, never with thinking in the history,
/// and named in the reply.
#[test]
fn another_model_answers_only_where_it_may() {
    let upstream = Upstream::start(|request, stream| match &body_of(request)["model"] {
        model if model == "claude-sonnet-4-5" => reply(stream, "200 OK", "", OK),
        _ => reply(stream, "529 Overloaded", "", BUSY),
    });
    let models = |from: usize| -> Vec<String> {
        let seen = upstream.seen();
        let named = seen[from..].iter().map(|request| body_of(request)["model"].clone());
        named.map(|model| model.as_str().unwrap().to_string()).collect()
    };
    let gate = Gate::start(&with_fallback(upstream.url(), false));
    let answer = gate.post("/v1/messages", &hello());
    assert_eq!((answer.status, answer.text().as_str()), (529, BUSY));
    assert_eq!(models(0), ["claude-opus-4-5"]);
    drop(gate);

    let sandbox = with_fallback(upstream.url(), true);
    let gate = Gate::start(&sandbox);
    let answer = gate.post("/v1/messages", &hello());
    assert_eq!((answer.status, answer.text().as_str()), (200, OK));
    let changed = answer.header("x-moltbot-changed").unwrap();
    assert_eq!(changed, "model=anthropic/claude-sonnet-4-5");
    assert_eq!(models(1), ["claude-opus-4-5", "claude-haiku-4-5", "claude-sonnet-4-5"]);
    let id = answer.header("x-moltbot-request-id").unwrap();
    until(|| sandbox.run(&["models", "why", "--request", id]).code == 0);
    let told = sandbox.run(&["models", "why", "--request", id]).exits(0).out;
    assert!(told.contains("Answered by : anthropic/claude-sonnet-4-5"), "{told}");

    let mut thought = hello();
    thought["messages"] = json!([
        { "role": "user", "content": "hi" },
        { "role": "assistant", "content": [
            { "type": "thinking", "thinking": "", "signature": "FAKE" },
            { "type": "text", "text": "ho" } ] },
        { "role": "user", "content": "and?" } ]);
    let answer = gate.post("/v1/messages", &thought);
    assert_eq!((answer.status, answer.text().as_str()), (529, BUSY));
    assert_eq!(models(4), ["claude-opus-4-5"]);

    // A request that is wrong is wrong for every model.
    let refused =
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"messages: odd"}}"#;
    let strict = Upstream::start(move |_, stream| reply(stream, "400 Bad Request", "", refused));
    let gate = Gate::start(&with_fallback(strict.url(), true));
    assert_eq!(gate.post("/v1/messages", &hello()).text(), refused);
    assert_eq!(strict.seen().len(), 1);
}

fn with_params(url: &str, params: Value) -> Sandbox {
    let sandbox = Sandbox::new().env("ANTHROPIC_API_KEY", KEY);
    let mut config = config(url, json!({}));
    config["agents"]["defaults"]["models"] =
        json!({ "anthropic/claude-opus-4-5": { "params": params } });
    sandbox.write_config(&config.to_string());
    sandbox
}

/// `params.autoCache`: breakpoints for clients that place none, with the configured lifetime; a
/// client that places its own keeps them.
#[test]
fn breakpoints_are_placed_for_clients_without() {
    let upstream = Upstream::start(|_, stream| reply(stream, "200 OK", "", OK));
    let ephemeral = json!({ "type": "ephemeral" });
    let hour = json!({ "type": "ephemeral", "ttl": "1h" });
    let plain = json!({ "model": "claude-opus-4-5", "max_tokens": 5, "system": "Be brief.",
        "tools": [{ "name": "a", "input_schema": {} }, { "name": "b", "input_schema": {} }],
        "messages": [{ "role": "user", "content": [{ "type": "text", "text": "hi" }] }] });
    let mut own = plain.clone();
    own["system"] = json!([{ "type": "text", "text": "Be brief.", "cache_control": ephemeral }]);

    // Off by default.
    let gate = Gate::start(&with_params(upstream.url(), json!({ "maxTokens": 5 })));
    assert_eq!(gate.post("/v1/messages", &plain).header("x-moltbot-changed"), None);
    assert_eq!(body_of(&upstream.seen()[0]), plain);
    drop(gate);

    let gate = Gate::start(&with_params(upstream.url(), json!({ "autoCache": true })));
    let answer = gate.post("/v1/messages", &plain);
    assert_eq!(answer.header("x-moltbot-changed"), Some("cache_control"));
    let sent = body_of(&upstream.seen()[1]);
    assert_eq!(sent["tools"][1]["cache_control"], ephemeral);
    assert_eq!(sent["tools"][0].get("cache_control"), None);
    assert_eq!(sent["system"][0]["cache_control"], ephemeral);
    assert_eq!(sent["messages"][0]["content"][0]["cache_control"], ephemeral);
    assert!(!upstream.seen()[1].to_lowercase().contains("anthropic-beta"));
    assert_eq!(gate.post("/v1/messages", &own).header("x-moltbot-changed"), None);
    assert_eq!(body_of(&upstream.seen()[2]), own);
    drop(gate);

    let params = json!({ "autoCache": true, "cacheControlTtl": "1h" });
    let gate = Gate::start(&with_params(upstream.url(), params));
    let answer = gate.post("/v1/messages", &plain);
    assert_eq!(
        answer.header("x-moltbot-changed"),
        Some("cache_control, anthropic-beta, cache_control.ttl")
    );
    let sent = &upstream.seen()[3];
    assert_eq!(body_of(sent)["system"][0]["cache_control"], hour);
    assert!(sent.to_lowercase().contains("anthropic-beta: extended-cache-ttl-2025-04-11\r\n"));
    assert_eq!(
        gate.post("/v1/messages", &own).header("x-moltbot-changed"),
        Some("anthropic-beta, cache_control.ttl")
    );
    assert_eq!(body_of(&upstream.seen()[4])["system"][0]["cache_control"], hour);
}

/// One conversation stays on one profile: by header, else by its user, else by how it begins; and
/// different ones spread.
#[test]
fn a_conversation_stays_on_its_profile() {
    let upstream = Upstream::start(|_, stream| reply(stream, "200 OK", "", OK));
    let gate = Gate::start(&two_equal_keys(upstream.url(), json!({}), json!({})));
    let used = |make: &dyn Fn(usize) -> (Value, String)| -> &'static str {
        let before = upstream.seen().len();
        for turn in 0..4 {
            let (body, session) = make(turn);
            let mut headers = vec![("x-api-key", TOKEN), ("content-type", "application/json")];
            if !session.is_empty() {
                headers.push(("x-moltbot-session-key", &session));
            }
            let answer = gate.ask("POST", "/v1/messages", &headers, body.to_string().as_bytes());
            assert_eq!(answer.status, 200);
        }
        let seen = upstream.seen();
        let mut all: Vec<_> = seen[before..].iter().map(|request| key_of(request)).collect();
        assert_eq!(all.len(), 4);
        assert!(!seen[before..].iter().any(|r| r.to_lowercase().contains("x-moltbot-")));
        all.dedup();
        assert_eq!(all.len(), 1, "{all:?}");
        all[0]
    };
    let turns = |first: &str, turn: usize| {
        let mut body = hello();
        let mut messages = vec![json!({ "role": "user", "content": first })];
        for turn in 0..turn {
            messages.push(json!({ "role": "assistant", "content": format!("{turn}") }));
            messages.push(json!({ "role": "user", "content": format!("more {turn}") }));
        }
        body["messages"] = messages.into();
        body
    };
    let mut kinds = [Vec::new(), Vec::new(), Vec::new()];
    for number in 0..12 {
        // The text differs each time; only the header, or the user, tells.
        kinds[0].push(used(&|turn| (turns(&format!("{turn}"), 0), format!("key-{number}"))));
        kinds[1].push(used(&|turn| {
            let mut body = turns(&format!("{turn}"), 0);
            body["metadata"] = json!({ "user_id": format!("{{\"session_id\":\"{number}\"}}") });
            (body, String::new())
        }));
        kinds[2].push(used(&|turn| (turns(&format!("talk {number}"), turn), String::new())));
    }
    for kind in kinds {
        assert!(kind.contains(&"a") && kind.contains(&"b"), "all on one: {kind:?}");
    }
}

/// Spec W-1 and W-3: what Claude Code asks first, and every place in which it puts the token.
#[test]
fn the_token_counts_wherever_a_client_puts_it() {
    let upstream = Upstream::start(|_, stream| reply(stream, "200 OK", "", "{\"input_tokens\":1}"));
    let gate = Gate::start(&one_key(upstream.url(), json!({})));
    assert_eq!(gate.ask("HEAD", "/", &[], b"").status, 401);
    let head = gate.ask("HEAD", "/", &[("x-api-key", TOKEN)], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let bearer = format!("Bearer {TOKEN}");
    let lower = format!("bearer {TOKEN}");
    let places: [&[(&str, &str)]; 6] = [
        &[("x-api-key", TOKEN)],
        &[("authorization", &bearer)],
        &[("authorization", &lower)],
        &[("x-api-key", TOKEN), ("authorization", &bearer)],
        &[("x-api-key", "sk-ant-api03-FAKEother"), ("authorization", &bearer)],
        &[("x-api-key", TOKEN), ("authorization", "Bearer sk-ant-oat01-FAKEother")],
    ];
    for place in places {
        let headers = [place, &[("content-type", "application/json")]].concat();
        let body = hello().to_string();
        let path = "/v1/messages/count_tokens?beta=true";
        let answer = gate.ask("POST", path, &headers, body.as_bytes());
        assert_eq!((answer.status, answer.text().as_str()), (200, "{\"input_tokens\":1}"));
        let sent = upstream.seen().pop().unwrap();
        assert!(sent.starts_with(&format!("POST {path} HTTP/1.1\r\n")), "{sent}");
        assert!(sent.contains(&format!("x-api-key: {KEY}\r\n")), "{sent}");
        assert!(!sent.to_lowercase().contains("authorization:"), "{sent}");
        assert!(!sent.contains(TOKEN) && !sent.contains("FAKEother"), "{sent}");
    }
}

/// Spec W-12 and 09 C: where nobody else can answer, status, headers and body are the service's.
#[test]
fn every_error_of_a_lone_key_passes_as_it_came() {
    let error = |kind: &str| {
        format!("{{\"type\":\"error\", \"error\":{{\"message\":\"Words\",\"type\":\"{kind}\"}}}}")
    };
    for (status, body) in [
        ("402 Payment Required", error("billing_error")),
        ("403 Forbidden", error("permission_error")),
        ("404 Not Found", error("not_found_error")),
        ("413 Payload Too Large", error("request_too_large")),
        ("429 Too Many Requests", error("rate_limit_error")),
        ("500 Internal Server Error", error("api_error")),
        ("503 Service Unavailable", "upstream connect error or disconnect/reset".into()),
        ("529 Overloaded", error("overloaded_error")),
    ] {
        let sent = body.clone();
        let upstream = Upstream::start(move |_, stream| {
            reply(stream, status, "x-should-retry: true\r\nrequest-id: req_7\r\n", &sent);
        });
        let gate = Gate::start(&one_key(upstream.url(), json!({})));
        let answer = gate.post("/v1/messages", &hello());
        assert_eq!(answer.text(), body);
        assert!(status.starts_with(&answer.status.to_string()), "{status}");
        assert_eq!(answer.header("x-should-retry"), Some("true"));
        assert_eq!(answer.header("request-id"), Some("req_7"));
        assert!(upstream.seen().len() <= 2, "{status}: {}", upstream.seen().len());
    }
}

/// Most of a request is used again for the next one with the same headers: what is sent on still
/// never depends on what was asked before.
#[test]
fn requests_that_look_alike_are_told_apart() {
    let upstream = Upstream::start(|_, stream| reply(stream, "200 OK", "", OK));
    let gate = Gate::start(&one_key(upstream.url(), json!({})));
    let plain = "/v1/messages";
    let asked = [
        (plain, "one", "claude-opus-4-5", "a"),
        (plain, "one", "claude-opus-4-5", "a longer text"),
        (plain, "two", "claude-opus-4-5", "a"),
        ("/v1/messages?beta=true", "one", "claude-opus-4-5", "a"),
        (plain, "one", "claude-sonnet-4-5", "a"),
        (plain, "one", "opus", "a"),
        ("/v1/messages/count_tokens", "one", "claude-opus-4-5", "a"),
    ];
    for _ in 0..3 {
        for (path, beta, model, text) in asked {
            let body = json!({ "model": model, "system": text, "messages": [] }).to_string();
            let lines = [
                ("x-api-key", TOKEN),
                ("content-type", "application/json"),
                ("anthropic-beta", beta),
                ("cookie", "a=b"),
            ];
            assert_eq!(gate.ask("POST", path, &lines, body.as_bytes()).status, 200);
        }
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), 3 * asked.len());
    let (first, again) = seen.split_at(asked.len());
    for (request, (path, beta, model, text)) in first.iter().zip(asked) {
        assert!(request.starts_with(&format!("POST {path} HTTP/1.1\r\n")), "{request}");
        assert!(request.contains(&format!("\r\nanthropic-beta: {beta}\r\n")), "{request}");
        assert_eq!(request.matches(KEY).count(), 1, "{request}");
        assert!(!request.contains(TOKEN) && !request.contains("cookie"), "{request}");
        let body = body_of(request);
        let alias = model == "opus";
        assert!(alias != (body["model"] == model) && body["system"] == text, "{request}");
    }
    for later in again.chunks(asked.len()) {
        assert_eq!(later, first);
    }
}
