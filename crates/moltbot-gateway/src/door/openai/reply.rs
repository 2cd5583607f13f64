//! A Messages reply as a chat completion, and an error as OpenAI words it. Pure.

use moltbot_core::Usage;
use serde_json::{Value, json};

use crate::door::error::{Refusal, openai_code};

/// Translates a whole reply.
pub(super) fn completion(body: &[u8], model: &str, created: i64) -> Result<Value, Refusal> {
    let reply: Value = serde_json::from_slice(body)
        .map_err(|_| Refusal::upstream("the service answered something that is no JSON"))?;
    let blocks = reply["content"].as_array().map_or(&[][..], Vec::as_slice);
    let text: String =
        blocks.iter().filter(|b| b["type"] == "text").filter_map(|b| b["text"].as_str()).collect();
    let calls: Vec<Value> = blocks
        .iter()
        .filter(|block| block["type"] == "tool_use")
        .map(|block| {
            json!({ "id": block["id"], "type": "function", "function": {
                "name": block["name"], "arguments": block["input"].to_string() } })
        })
        .collect();
    let content = if text.is_empty() && !calls.is_empty() { Value::Null } else { text.into() };
    let mut message = json!({ "role": "assistant", "content": content, "refusal": null });
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    let stop = reply["stop_reason"].as_str().unwrap_or_default();
    let number = |name: &str| reply["usage"][name].as_u64();
    let used = Usage {
        input: number("input_tokens"),
        output: number("output_tokens"),
        cache_read: number("cache_read_input_tokens"),
        cache_write: number("cache_creation_input_tokens"),
        ..Usage::default()
    };
    Ok(json!({
        "id": id(reply["id"].as_str().unwrap_or_default()),
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{
            "index": 0, "message": message, "logprobs": null, "finish_reason": finish(stop) }],
        "usage": usage(&used),
    }))
}

/// Words an error of the service; `code` is ours for it.
pub(super) fn error(body: &[u8], code: Option<&str>) -> Value {
    let parsed: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let message = match parsed["error"]["message"].as_str() {
        Some(message) => message.to_string(),
        None => String::from_utf8_lossy(&body[..body.len().min(2_000)]).into_owned(),
    };
    let kind = parsed["error"]["type"].as_str().unwrap_or("api_error");
    let code = code.and_then(openai_code);
    json!({ "error": { "message": message, "type": kind, "param": null, "code": code } })
}

pub(super) fn id(message: &str) -> String {
    format!("chatcmpl-{}", short_id(message))
}

/// What tells a message of the service from others.
pub(super) fn short_id(message: &str) -> &str {
    message.trim_start_matches("msg_")
}

/// Words why a reply ended.
pub(super) fn finish(stop: &str) -> &'static str {
    match stop {
        "max_tokens" | "model_context_window_exceeded" => "length",
        "tool_use" => "tool_calls",
        "refusal" => "content_filter",
        _ => "stop",
    }
}

pub(super) fn usage(used: &Usage) -> Value {
    json!({
        "prompt_tokens": used.all_input(),
        "completion_tokens": used.output.unwrap_or(0),
        "total_tokens": used.total(),
        "prompt_tokens_details": { "cached_tokens": used.cache_read.unwrap_or(0) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_with_a_tool_call() {
        let body = br#"{"id":"msg_1","content":[{"type":"thinking","thinking":"x"},{"type":"tool_use","id":"t","name":"f","input":{"a":1}}],"stop_reason":"tool_use","usage":{"input_tokens":3,"cache_read_input_tokens":4,"output_tokens":5}}"#;
        let made = completion(body, "m", 7).unwrap();
        let choice = &made["choices"][0];
        assert_eq!(choice["message"]["content"], Value::Null);
        assert_eq!(choice["message"]["tool_calls"][0]["function"]["arguments"], "{\"a\":1}");
        assert_eq!(choice["finish_reason"], "tool_calls");
        assert_eq!(made["usage"]["total_tokens"], 12);
        assert_eq!(made["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
    }

    #[test]
    fn an_error_keeps_its_words() {
        let made = error(
            br#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            Some("overloaded"),
        );
        assert_eq!(made["error"]["message"], "Overloaded");
        assert_eq!(made["error"]["type"], "overloaded_error");
        assert_eq!(made["error"]["code"], Value::Null);
        let made = error(b"upstream connect error", Some("context-overflow"));
        assert_eq!(made["error"]["message"], "upstream connect error");
        assert_eq!(made["error"]["code"], "context_length_exceeded");
    }
}
