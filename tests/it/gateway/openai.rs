//! OpenAI's dialect at the door.

use serde_json::{Value, json};

use super::{Gate, TOKEN, one_key};
use crate::support::{lab, messages};

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

/// Tools, images, stops, formats and effort, whole and streamed, in the words of the other side.
#[test]
fn everything_a_client_says_is_translated() {
    let lab = lab("[]");
    let gate = Gate::start(&one_key(&lab.url(), json!({})));
    let schema = json!({ "type": "object", "properties": { "city": { "type": "string" } },
        "required": ["city"] });
    let mut ask = json!({ "model": "claude-opus-4-5",
        "messages": [{ "role": "user", "content": "use tool weather" }],
        "tools": [{ "type": "function",
            "function": { "name": "weather", "parameters": schema } }] });
    let whole = post(&gate, &ask).json();
    let choice = &whole["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    let call = &choice["message"]["tool_calls"][0];
    let arguments = call["function"]["arguments"].as_str().unwrap().to_string();
    assert_eq!(arguments, "{\"city\":\"lab\"}");
    ask["stream"] = true.into();
    let streamed = post(&gate, &ask).text();
    let pieces: String = streamed
        .split("\n\n")
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .filter_map(|chunk| {
            let call = &chunk["choices"][0]["delta"]["tool_calls"][0];
            call["function"]["arguments"].as_str().map(String::from)
        })
        .collect();
    assert_eq!(pieces, arguments, "{streamed}");
    ask["stream"] = false.into();
    let turns = ask["messages"].as_array_mut().unwrap();
    turns.push(choice["message"].clone());
    turns.push(json!({ "role": "tool", "tool_call_id": call["id"], "content": "sunny" }));
    let said = post(&gate, &ask).json()["choices"][0]["message"]["content"].clone();
    assert_eq!(said, "Hello from the lab. The tool said: sunny");

    let rich = json!({ "model": "claude-opus-5-5", "stop": ["END"], "reasoning_effort": "high",
        "max_completion_tokens": 77, "user": "u",
        "response_format": { "type": "json_schema",
            "json_schema": { "name": "weather", "schema": schema } },
        "messages": [{ "role": "developer", "content": "Be brief." }, { "role": "user", "content": [
            { "type": "text", "text": "look" },
            { "type": "image_url", "image_url": { "url": "data:image/png;base64,iVBORw0KGgo=" } } ] }] });
    let answer = post(&gate, &rich);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sent = messages(&lab).pop().unwrap().body;
    assert_eq!(sent["system"][0]["text"], "Be brief.");
    assert_eq!(sent["messages"][0]["content"][1]["source"]["data"], "iVBORw0KGgo=");
    assert_eq!((&sent["stop_sequences"], &sent["max_tokens"]), (&json!(["END"]), &json!(77)));
    assert_eq!(sent["thinking"]["type"], "adaptive");
    assert_eq!(sent["output_config"]["effort"], "high");
    assert_eq!(sent["output_config"]["format"]["schema"], schema);
    assert_eq!(sent["metadata"]["user_id"], "u");
}

/// A stream that fails after its beginning says so in its own words, and does not pretend an end.
#[test]
fn a_failing_stream_is_an_error_chunk() {
    let lab = lab("[{ fault: { sse: { error: 'overloaded', afterEvents: 4 } } }]");
    let gate = Gate::start(&one_key(&lab.url(), json!({})));
    let mut streamed = hello();
    streamed["stream"] = true.into();
    let text = post(&gate, &streamed).text();
    assert!(text.contains("\"error\":{") && text.contains("Overloaded"), "{text}");
    assert!(!text.contains("[DONE]"), "{text}");
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
