//! OpenAI's dialect at the door.

use serde_json::{Value, json};

use super::{Gate, TOKEN, one_key};
use crate::support::lab;

fn post(gate: &Gate, body: &Value) -> super::Answer {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    gate.ask("POST", "/v1/chat/completions", &headers, body.to_string().as_bytes())
}

fn hello() -> Value {
    json!({ "model": "claude-opus-4-5", "messages": [{ "role": "user", "content": "hi" }] })
}

#[test]
fn a_completion_whole_and_streamed() {
    let lab = lab("[]");
    let gate = Gate::start(&one_key(&lab.url(), json!({})));
    let whole = post(&gate, &hello());
    assert_eq!(whole.status, 200, "{}", whole.text());
    let whole = whole.json();
    let said = whole["choices"][0]["message"]["content"].as_str().unwrap().to_string();
    assert!(said.contains("hi"));
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    assert!(whole["usage"]["total_tokens"].as_u64().unwrap() > 0);
    let mut streamed = hello();
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({ "include_usage": true });
    let text = post(&gate, &streamed).text();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let chunks: Vec<Value> = text
        .split("\n\n")
        .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
        .collect();
    let deltas: String =
        chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(deltas, said);
    assert_eq!(chunks.last().unwrap()["usage"], whole["usage"]);
    let models =
        gate.ask("GET", "/v1/models", &[("authorization", &format!("Bearer {TOKEN}"))], b"");
    assert_eq!(models.json()["object"], "list");
}

#[test]
fn errors_are_in_its_shape() {
    let lab = lab("{strictModels: true}");
    let gate = Gate::start(&one_key(&lab.url(), json!({})));
    let empty = post(&gate, &json!({ "model": "claude-opus-4-5", "messages": [] }));
    assert_eq!(empty.status, 400);
    assert_eq!(empty.json()["error"]["message"], "Missing user message in `messages`.");
    assert_eq!(empty.json()["error"]["type"], "invalid_request_error");
    let mut unknown = hello();
    unknown["model"] = "claude-nonsense".into();
    let unknown = post(&gate, &unknown);
    assert_eq!(unknown.status, 404, "{}", unknown.text());
    assert!(unknown.json()["error"]["message"].is_string());
}

/// Spec case 74.
#[test]
fn it_can_be_switched_off_and_wants_a_bearer_and_a_post() {
    let lab = lab("[]");
    let off = json!({ "http": { "endpoints": { "chatCompletions": { "enabled": false } } } });
    let gate = Gate::start(&one_key(&lab.url(), off));
    assert_eq!(post(&gate, &hello()).status, 404);
    drop(gate);
    let gate = Gate::start(&one_key(&lab.url(), json!({})));
    let nobody = gate.ask(
        "POST",
        "/v1/chat/completions",
        &[("content-type", "application/json")],
        hello().to_string().as_bytes(),
    );
    let body = r#"{"error":{"message":"Unauthorized","type":"unauthorized"}}"#;
    assert_eq!((nobody.status, nobody.text().as_str()), (401, body));
    let get = gate.get("/v1/chat/completions");
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
}
