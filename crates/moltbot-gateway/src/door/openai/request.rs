//! A chat completion request as a Messages request. Pure.

use moltbot_core::ModelInfo;
use serde_json::{Value, json};

use super::inner::{Inner, Talk, Wanted};

/// Translates a request; fails with a sentence for the client.
pub(super) fn translate(
    sent: &Value,
    model: &str,
    info: Option<&ModelInfo>,
) -> Result<Wanted, String> {
    for (field, unset) in [("n", json!(1)), ("logprobs", json!(false)), ("audio", Value::Null)] {
        if !sent[field].is_null() && sent[field] != unset {
            return Err(format!("{field} is not served here"));
        }
    }
    let most = sent["max_completion_tokens"].as_u64().or_else(|| sent["max_tokens"].as_u64());
    let mut inner = Inner::new(model, info, most, sent["stream"] == true);
    let messages = sent["messages"].as_array().ok_or("messages is missing or no list")?;
    for message in messages {
        add(&mut inner.talk, message)?;
    }
    if !inner.talk.is_asked() {
        return Err("Missing user message in `messages`.".into());
    }
    let format = &sent["response_format"];
    inner.format("response_format", format, &format["json_schema"]["schema"])?;
    inner.effort(&sent["reasoning_effort"], false);
    inner.sampling(sent);
    match &sent["stop"] {
        Value::String(stop) => inner.set("stop_sequences", json!([stop])),
        stops @ Value::Array(_) => inner.set("stop_sequences", stops.clone()),
        _ => {}
    }
    inner.user(&sent["user"]);
    let mut functions = Vec::new();
    for tool in sent["tools"].as_array().into_iter().flatten() {
        let function = &tool["function"];
        if tool["type"] != "function" || !function["name"].is_string() {
            return Err("a tool is no function with a name".into());
        }
        functions.push(function.clone());
    }
    inner.tools(sent, &functions)?;
    Ok(inner.finish(None))
}

fn add(talk: &mut Talk, message: &Value) -> Result<(), String> {
    let role = message["role"].as_str().unwrap_or_default();
    if role == "tool" {
        let id = message["tool_call_id"].as_str().ok_or("a tool message has no id")?;
        return talk.result(id, &message["content"]);
    }
    talk.add(role, &message["content"]).map_err(|error| format!("messages: {error}"))?;
    if role == "assistant" {
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            let function = &call["function"];
            talk.call(&call["id"], &function["name"], &function["arguments"])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(sent: Value) -> Value {
        translate(&sent, "m", None).unwrap().body
    }

    #[test]
    fn a_conversation_with_tools_and_an_image() {
        let sent = json!({
            "model": "m", "max_tokens": 5, "stop": "END", "user": "u", "temperature": 2,
            "messages": [
                { "role": "system", "content": "Be brief." },
                { "role": "user", "content": [
                    { "type": "text", "text": "look" },
                    { "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA" } } ] },
                { "role": "assistant", "content": null, "tool_calls": [
                    { "id": "t1", "type": "function", "function": { "name": "f", "arguments": "{\"a\":1}" } },
                    { "id": "t2", "type": "function", "function": { "name": "f", "arguments": "" } } ] },
                { "role": "tool", "tool_call_id": "t1", "content": "one" },
                { "role": "tool", "tool_call_id": "t2", "content": "two" },
                { "role": "user", "content": "go on" } ],
            "tools": [{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }],
            "tool_choice": "required", "parallel_tool_calls": false,
        });
        let body = body(sent);
        assert_eq!(body["system"], json!([{ "type": "text", "text": "Be brief." }]));
        assert_eq!(body["messages"].as_array().unwrap().len(), 3);
        assert_eq!(body["messages"][0]["content"][1]["source"]["media_type"], "image/png");
        assert_eq!(body["messages"][1]["content"][0]["input"], json!({ "a": 1 }));
        assert_eq!(body["messages"][1]["content"][1]["input"], json!({}));
        let results = &body["messages"][2]["content"];
        assert_eq!(results[0]["tool_use_id"], "t1");
        assert_eq!(results[1]["content"][0]["text"], "two");
        assert_eq!(results[2]["text"], "go on");
        assert_eq!(body["stop_sequences"], json!(["END"]));
        assert_eq!(body["metadata"]["user_id"], "u");
        assert_eq!(body["temperature"], 1.0);
        assert_eq!(
            body["tool_choice"],
            json!({ "type": "any", "disable_parallel_tool_use": true })
        );
    }

    #[test]
    fn effort_becomes_what_the_model_understands() {
        let sent = |effort: &str| json!({ "messages": [{ "role": "user", "content": "x" }], "reasoning_effort": effort, "temperature": 0.5, "max_tokens": 9000 });
        let model = |mode: &str| {
            let mut info = ModelInfo::default();
            info.thinking.modes = vec![mode.to_string().into()];
            info
        };
        let adaptive = translate(&sent("high"), "m", Some(&model("adaptive"))).unwrap().body;
        assert_eq!(adaptive["thinking"]["type"], "adaptive");
        assert_eq!(adaptive["output_config"]["effort"], "high");
        assert!(adaptive.get("temperature").is_none());
        let budget = translate(&sent("high"), "m", Some(&model("enabled"))).unwrap().body;
        assert_eq!(budget["thinking"]["budget_tokens"], 8999);
        let plain = translate(&sent("high"), "m", None).unwrap().body;
        assert!(plain.get("thinking").is_none());
    }

    #[test]
    fn what_is_not_served_is_said() {
        let hello = json!([{ "role": "user", "content": "x" }]);
        for (sent, words) in [
            (json!({ "messages": [] }), "Missing user message in `messages`."),
            (json!({ "messages": [{ "role": "system", "content": "x" }] }), "Missing user message"),
            (json!({ "messages": hello, "n": 2 }), "n is not served"),
            (json!({ "messages": [{ "role": "x" }] }), "the role \"x\""),
            (json!({}), "messages is missing"),
            (json!({ "messages": hello, "response_format": { "type": "xml" } }), "xml"),
        ] {
            let error = translate(&sent, "m", None).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
