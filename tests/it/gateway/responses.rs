//! The newer of OpenAI's dialects at the door: `POST /v1/responses` (spec G-8).

use serde_json::{Value, json};

use super::upstream::{Upstream, reply};
use super::{Answer, Gate, TOKEN, one_key, two_keys};
use crate::support::{KEY, KEY2, Sandbox, lab, messages};

fn post(gate: &Gate, body: &Value) -> Answer {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    gate.ask("POST", "/v1/responses", &headers, body.to_string().as_bytes())
}

/// Asks with what was sent and `more`.
fn with(body: &Value, more: Value) -> Value {
    let mut body = body.clone();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// The events of a stream, each with its name.
fn events(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.header("content-type"), Some("text/event-stream"), "{}", answer.text());
    let text = answer.text();
    let mut events = Vec::new();
    for event in text.split_terminator("\n\n").filter(|event| !event.starts_with(':')) {
        let (name, data) = event.split_once("\ndata: ").expect("a name and data");
        let data: Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(name, format!("event: {}", data["type"].as_str().unwrap()));
        assert_eq!(data["sequence_number"], events.len(), "{text}");
        events.push(data);
    }
    events
}

/// What tells two answers to the same question apart.
fn alike(response: &Value) -> Value {
    let mut response = response.clone();
    response["created_at"] = Value::Null;
    response
}

#[test]
fn a_response_whole_and_streamed_is_the_same() {
    let lab = lab("[]");
    let gate = Gate::start(&one_key(&lab.url(), json!({})));
    let ask = json!({ "model": "claude-opus-4-5", "instructions": "Be brief.", "input": "hi" });
    let whole = post(&gate, &ask);
    assert_eq!(whole.status, 200, "{}", whole.text());
    assert!(whole.header("x-moltbot-request-id").is_some());
    let whole = whole.json();
    assert_eq!((&whole["object"], &whole["status"]), (&json!("response"), &json!("completed")));
    assert_eq!(whole["store"], false, "nothing is stored");
    assert_eq!(whole["output"][0]["content"][0]["text"], "Hello from the lab. You said: hi");
    let usage = &whole["usage"];
    let sum = usage["input_tokens"].as_u64().unwrap() + usage["output_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], sum);
    let said = events(&post(&gate, &with(&ask, json!({ "stream": true }))));
    assert_eq!(said[0]["type"], "response.created");
    let last = said.last().unwrap();
    assert_eq!(last["type"], "response.completed");
    assert_eq!(alike(&last["response"]), alike(&whole));
    let pieces: String = said
        .iter()
        .filter(|event| event["type"] == "response.output_text.delta")
        .map(|event| event["delta"].as_str().unwrap())
        .collect();
    assert_eq!(pieces, "Hello from the lab. You said: hi");
    let sent = messages(&lab).pop().unwrap().body;
    assert_eq!(sent["system"][0]["text"], "Be brief.");
}

/// A whole turn of an agent: thought, call, result, answer; the thought goes back as it came, to a
/// model that refuses any other.
#[test]
fn an_agents_loop_carries_its_thoughts() {
    let lab = lab("{strictModels: true}");
    let gate = Gate::start(&one_key(&lab.url(), json!({})));
    let tool = json!({ "type": "function", "name": "weather", "strict": false, "parameters": {
        "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] } });
    let ask = json!({ "model": "claude-opus-5-5", "tools": [tool], "store": false,
        "instructions": "Be brief.", "reasoning": { "effort": "high", "summary": "auto" },
        "include": ["reasoning.encrypted_content"], "prompt_cache_key": "thread-1",
        "input": [{ "role": "user", "content": "use tool weather" }] });
    for stream in [false, true] {
        let answer = post(&gate, &with(&ask, json!({ "stream": stream })));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let first = match stream {
            true => events(&answer).pop().unwrap()["response"].clone(),
            false => answer.json(),
        };
        let items = first["output"].as_array().unwrap();
        let kinds: Vec<_> = items.iter().map(|item| item["type"].as_str().unwrap()).collect();
        assert_eq!(kinds.first(), Some(&"reasoning"), "{first}");
        assert!(items[0]["summary"][0]["text"].is_string(), "{first}");
        let call = items.last().unwrap();
        assert_eq!((&call["type"], &call["name"]), (&json!("function_call"), &json!("weather")));
        assert_eq!(call["arguments"], "{\"city\":\"lab\"}");
        let mut turns = ask["input"].as_array().unwrap().clone();
        turns.extend(items.iter().cloned());
        turns.push(json!({ "type": "function_call_output", "call_id": call["call_id"],
            "output": "sunny" }));
        let answer = post(&gate, &with(&ask, json!({ "input": turns })));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let output = answer.json()["output"].clone();
        let text = &output.as_array().unwrap().last().unwrap()["content"][0]["text"];
        assert_eq!(text, "Hello from the lab. The tool said: sunny");
        let sent = messages(&lab).pop().unwrap().body;
        assert_eq!(sent["messages"][1]["content"][0]["type"], "thinking");
        assert!(sent["messages"][1]["content"][0]["signature"].is_string());
    }
}

/// What is known before a reply begins decides about its status.
#[test]
fn failures_are_told_in_its_words() {
    let lab = lab("{strictModels: true}");
    let gate = Gate::start(&one_key(&lab.url(), json!({})));
    let ask = json!({ "model": "claude-opus-4-5", "input": "hi" });
    for (more, words) in [
        (json!({ "previous_response_id": "resp_1" }), "nothing is stored"),
        (json!({ "tools": [{ "type": "web_search" }] }), "the tool \"web_search\""),
        (json!({ "input": [] }), "Missing user message in `input`."),
    ] {
        let refused = post(&gate, &with(&ask, more));
        assert_eq!(refused.status, 400);
        let error = refused.json()["error"].clone();
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error["message"].as_str().unwrap().contains(words), "{error}");
    }
    assert!(messages(&lab).is_empty(), "nothing of it went out");
    let unknown = post(&gate, &with(&ask, json!({ "model": "claude-nonsense" })));
    assert_eq!(unknown.status, 404, "{}", unknown.text());
    assert_eq!(unknown.json()["error"]["code"], "model_not_found");
    let nobody = gate.ask("POST", "/v1/responses", &[], b"{}");
    let body = r#"{"error":{"message":"Unauthorized","type":"unauthorized"}}"#;
    assert_eq!((nobody.status, nobody.text().as_str()), (401, body));
    let get = gate.get("/v1/responses");
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    let stored = gate.get("/v1/responses/resp_1");
    assert_eq!((stored.status, &stored.json()["error"]["type"]), (404, &json!("not_found_error")));
}

/// A stream that fails after its beginning ends with that, and does not pretend to be complete.
#[test]
fn a_failing_stream_says_so() {
    let lab = lab("[{ fault: { sse: { error: 'overloaded', afterEvents: 4 } } }]");
    let gate = Gate::start(&one_key(&lab.url(), json!({})));
    let ask = json!({ "model": "claude-opus-4-5", "input": "hi", "stream": true });
    let said = events(&post(&gate, &ask));
    let last = said.last().unwrap();
    assert_eq!(last["type"], "response.failed");
    assert_eq!(last["response"]["status"], "failed");
    assert_eq!(last["response"]["error"]["message"], "Overloaded");
}

/// A reply that its limit cut off is incomplete, not complete.
#[test]
fn a_limit_makes_it_incomplete() {
    let body = r#"{"id":"msg_1","type":"message","role":"assistant","content":[{"type":"text","text":"Go"}],"stop_reason":"max_tokens","usage":{"input_tokens":1,"output_tokens":2}}"#;
    let upstream = Upstream::start(move |_, stream| reply(stream, "200 OK", "", body));
    let gate = Gate::start(&one_key(upstream.url(), json!({})));
    let ask = json!({ "model": "claude-opus-4-5", "input": "hi", "max_output_tokens": 2 });
    let cut = post(&gate, &ask).json();
    assert_eq!(cut["status"], "incomplete", "{cut}");
    assert_eq!(cut["incomplete_details"], json!({ "reason": "max_output_tokens" }));
    assert_eq!((&cut["id"], &cut["max_output_tokens"]), (&json!("resp_1"), &json!(2)));
}

/// What a client calls its conversation keeps it on one profile, as the gateway's own header does.
#[test]
fn a_named_conversation_stays_on_its_profile() {
    let used = r#"{"id":"msg_1","type":"message","role":"assistant","content":[],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#;
    let upstream = Upstream::start(move |_, stream| reply(stream, "200 OK", "", used));
    let sandbox = two_keys(upstream.url());
    let mut turns: Value = serde_json::from_str(&sandbox.config()).unwrap();
    turns["auth"]["strategy"] = "round-robin".into();
    sandbox.write_config(&turns.to_string());
    let gate = Gate::start(&sandbox);
    let mut seen = 0;
    let mut key = |name: &str, text: &str| {
        let ask = json!({ "model": "claude-opus-4-5", "input": text, "prompt_cache_key": name });
        assert_eq!(post(&gate, &ask).status, 200);
        seen += 1;
        let request = upstream.seen()[seen - 1].clone();
        if request.contains(KEY2) { KEY2 } else { KEY }
    };
    let one = key("one", "first");
    for text in ["second", "third", "fourth"] {
        assert_eq!(key("one", text), one);
    }
    assert!((0..20).any(|number| key(&format!("other {number}"), "first") != one));
}

#[test]
fn it_can_be_switched_off_and_limited() {
    let lab = lab("[]");
    let start = |responses: Value| -> (Sandbox, Gate) {
        let sandbox =
            one_key(&lab.url(), json!({ "http": { "endpoints": { "responses": responses } } }));
        let gate = Gate::start(&sandbox);
        (sandbox, gate)
    };
    let ask = json!({ "model": "claude-opus-4-5", "input": "hi" });
    let (_off, gate) = start(json!({ "enabled": false }));
    assert_eq!(post(&gate, &ask).status, 404);
    drop(gate);
    let (_small, gate) = start(json!({ "maxBodyBytes": 100 }));
    assert_eq!(post(&gate, &ask).status, 200);
    let long = with(&ask, json!({ "instructions": "x".repeat(100) }));
    assert_eq!(post(&gate, &long).status, 413);
}
