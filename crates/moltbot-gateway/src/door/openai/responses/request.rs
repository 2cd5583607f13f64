//! A request for a response as a Messages request. Pure.

use moltbot_core::ModelInfo;
use serde_json::Value;

use super::super::inner::{Inner, Talk, Wanted};
use super::{inner_name, unsealed};

/// What only a service that stores or runs things could do, and what to do instead.
const NOT_SERVED: [(&str, &str); 7] = [
    ("previous_response_id", "nothing is stored, so send the whole conversation in `input`"),
    ("conversation", "nothing is stored, so send the whole conversation in `input`"),
    ("prompt", "nothing is stored, so send `instructions` and `input`"),
    ("background", "ask for a stream instead"),
    ("context_management", "shorten `input` instead"),
    ("moderation", "leave it out"),
    ("top_logprobs", "leave it out"),
];

/// Translates a request; fails with a sentence for the client.
pub(in super::super) fn translate(
    sent: &Value,
    model: &str,
    info: Option<&ModelInfo>,
) -> Result<Wanted, String> {
    for (field, instead) in NOT_SERVED {
        let unset = match &sent[field] {
            Value::Null | Value::Bool(false) => true,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        if !unset {
            return Err(format!("{field} is not served here; {instead}"));
        }
    }
    let most = sent["max_output_tokens"].as_u64();
    let mut inner = Inner::new(model, info, most, sent["stream"] == true);
    inner.talk.add("system", &sent["instructions"]).map_err(|e| format!("instructions: {e}"))?;
    match &sent["input"] {
        text @ Value::String(_) => inner.talk.add("user", text)?,
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                let added = add(&mut inner.talk, item);
                added.map_err(|error| format!("input[{place}]: {error}"))?;
            }
        }
        Value::Null => return Err("input is missing".into()),
        _ => return Err("input is neither text nor a list".into()),
    }
    if !inner.talk.is_asked() {
        return Err("Missing user message in `input`.".into());
    }
    let format = &sent["text"]["format"];
    inner.format("text.format", format, &format["schema"])?;
    let reasoning = &sent["reasoning"];
    let shown = is_shown(sent);
    inner.effort(&reasoning["effort"], shown);
    inner.sampling(sent);
    let user = if sent["safety_identifier"].is_string() { "safety_identifier" } else { "user" };
    inner.user(&sent[user]);
    inner.tools(sent, &functions(sent)?)?;
    let session = sent["prompt_cache_key"].as_str().filter(|key| !key.is_empty());
    Ok(inner.finish(session.map(String::from)))
}

/// Tells whether a client wants to see what the model thought.
pub(super) fn is_shown(sent: &Value) -> bool {
    let reasoning = &sent["reasoning"];
    ["summary", "generate_summary"].iter().any(|name| reasoning[name].is_string())
}

/// Lists the functions among the tools; those of a namespace get its name before theirs.
fn functions(sent: &Value) -> Result<Vec<Value>, String> {
    let mut functions = Vec::new();
    for tool in sent["tools"].as_array().into_iter().flatten() {
        if tool["type"] != "namespace" {
            functions.push(function(tool)?.clone());
            continue;
        }
        for part in tool["tools"].as_array().into_iter().flatten() {
            let mut part = function(part)?.clone();
            part["name"] = inner_name(&tool["name"], &part["name"]);
            functions.push(part);
        }
    }
    Ok(functions)
}

fn function(tool: &Value) -> Result<&Value, String> {
    match (tool["type"].as_str().unwrap_or_default(), tool["name"].as_str()) {
        ("function", Some(_)) => Ok(tool),
        ("function", None) => Err("a function among the tools has no name".into()),
        (kind, Some(name)) => Err(format!(
            "the tool \"{name}\" of type \"{kind}\" is not served here, only functions are"
        )),
        (kind, None) => Err(format!("the tool \"{kind}\" is not served here, only functions are")),
    }
}

fn add(talk: &mut Talk, item: &Value) -> Result<(), String> {
    match item["type"].as_str() {
        None | Some("message") => {
            let role = match item["role"].as_str().unwrap_or_default() {
                // What is told on the way stays there: a beginning that changes would cost the
                // prompt cache, and the thoughts that are bound to it.
                "system" | "developer" if talk.has_begun() => "user",
                role => role,
            };
            talk.add(role, &item["content"])
        }
        Some("function_call") => {
            let name = inner_name(&item["namespace"], &item["name"]);
            talk.call(&item["call_id"], &name, &item["arguments"])
        }
        Some("function_call_output") => {
            let id = item["call_id"].as_str().ok_or("a function_call_output has no call_id")?;
            talk.result(id, &item["output"])
        }
        Some("reasoning") => {
            // What another service thought cannot be thought on here.
            let text = item["encrypted_content"].as_str().unwrap_or_default();
            talk.say("assistant", unsealed(text).into_iter().collect());
            Ok(())
        }
        Some("item_reference") => {
            Err("an item_reference is not served here; nothing is stored, so send the item".into())
        }
        Some(other) => Err(format!("an item of type \"{other}\" is not served here")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sealed;
    use super::*;
    use serde_json::json;

    fn body(sent: &Value) -> Value {
        translate(sent, "m", None).unwrap().body
    }

    fn model(mode: &str) -> ModelInfo {
        let mut info = ModelInfo { max_output: 64_000, ..ModelInfo::default() };
        info.thinking.modes = vec![mode.to_string().into()];
        info
    }

    #[test]
    fn a_text_is_a_question() {
        let made = translate(&json!({ "input": "hi", "prompt_cache_key": "k" }), "m", None);
        let made = made.unwrap();
        let said = json!([{ "role": "user", "content": [{ "type": "text", "text": "hi" }] }]);
        assert_eq!(made.body["messages"], said);
        assert_eq!(made.body["max_tokens"], 8_192);
        assert!(made.body.get("system").is_none() && !made.stream);
        assert_eq!(made.session.as_deref(), Some("k"));
    }

    #[test]
    fn items_become_a_conversation() {
        let thought = json!({ "type": "thinking", "thinking": "Hm", "signature": "s" });
        let sent = json!({
            "instructions": "Be brief.", "max_output_tokens": 5, "temperature": 2, "top_p": 1,
            "user": "u", "stream": true, "parallel_tool_calls": false,
            "tool_choice": { "type": "function", "name": "f" },
            "tools": [{ "type": "function", "name": "f", "description": "d", "strict": true,
                "parameters": { "type": "object" } }],
            "text": { "format": { "type": "json_schema", "name": "n", "schema": { "a": 1 } } },
            "input": [
                { "role": "developer", "content": "In French." },
                { "type": "message", "role": "user", "content": [
                    { "type": "input_text", "text": "look" },
                    { "type": "input_image", "image_url": "data:image/png;base64,AAAA" },
                    { "type": "input_file", "filename": "a.pdf",
                        "file_data": "data:application/pdf;base64,BBBB" } ] },
                { "type": "reasoning", "id": "rs_1", "summary": [],
                    "encrypted_content": sealed(&thought) },
                { "type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "gAAAA" },
                { "type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
                    "content": [{ "type": "output_text", "text": "I see.", "annotations": [] }] },
                { "type": "function_call", "call_id": "t1", "name": "f", "arguments": "{\"a\":1}" },
                { "type": "function_call", "call_id": "t2", "name": "f", "arguments": "" },
                { "type": "function_call_output", "call_id": "t1", "output": "one" },
                { "type": "function_call_output", "call_id": "t2", "output": [
                    { "type": "input_text", "text": "two" } ] },
                { "role": "user", "content": "go on" } ],
        });
        let body = body(&sent);
        let texts: Vec<_> = body["system"].as_array().unwrap().iter().map(|b| &b["text"]).collect();
        assert_eq!(texts, ["Be brief.", "In French."]);
        let said = body["messages"].as_array().unwrap();
        assert_eq!(said.len(), 3);
        assert_eq!(said[0]["content"][1]["source"]["media_type"], "image/png");
        let file = &said[0]["content"][2];
        assert_eq!((&file["type"], &file["title"]), (&json!("document"), &json!("a.pdf")));
        let answered = said[1]["content"].as_array().unwrap();
        assert_eq!(answered[0], thought);
        assert_eq!((answered.len(), &answered[1]["text"]), (4, &json!("I see.")));
        assert_eq!((&answered[2]["input"], &answered[3]["input"]), (&json!({"a": 1}), &json!({})));
        assert_eq!(said[2]["content"][1]["content"][0]["text"], "two");
        assert_eq!(said[2]["content"][2]["text"], "go on");
        assert_eq!((&body["max_tokens"], &body["temperature"]), (&json!(5), &json!(1.0)));
        assert_eq!(body["metadata"]["user_id"], "u");
        assert_eq!(body["stream"], true);
        let choice = json!({ "type": "tool", "name": "f", "disable_parallel_tool_use": true });
        assert_eq!(body["tool_choice"], choice);
        assert_eq!(body["tools"][0]["input_schema"], json!({ "type": "object" }));
        assert_eq!(body["output_config"]["format"]["schema"], json!({ "a": 1 }));
        assert!(body.get("top_p").is_none() && body.get("store").is_none());
    }

    /// Codex groups its functions, and tells things on the way.
    #[test]
    fn namespaces_and_late_instructions_have_a_place() {
        let sent = json!({
            "tools": [
                { "type": "function", "name": "run", "parameters": {} },
                { "type": "namespace", "name": "agents", "description": "d", "tools": [
                    { "type": "function", "name": "run", "parameters": {} } ] } ],
            "input": [
                { "role": "developer", "content": "first" },
                { "role": "user", "content": "go" },
                { "type": "function_call", "call_id": "t1", "namespace": "agents", "name": "run",
                    "arguments": "" },
                { "type": "function_call", "call_id": "t2", "name": "run", "arguments": "" },
                { "role": "developer", "content": "late" },
                { "type": "function_call_output", "call_id": "t1", "output": "one" },
                { "type": "function_call_output", "call_id": "t2", "output": "two" } ],
        });
        let body = body(&sent);
        let tools: Vec<_> = body["tools"].as_array().unwrap().iter().map(|t| &t["name"]).collect();
        assert_eq!(tools, ["run", "agents__run"]);
        assert_eq!(body["system"], json!([{ "type": "text", "text": "first" }]));
        let said = body["messages"].as_array().unwrap();
        assert_eq!(said[1]["content"][0]["name"], "agents__run");
        assert_eq!(said[1]["content"][1]["name"], "run");
        let last = said[2]["content"].as_array().unwrap();
        let kinds: Vec<_> = last.iter().map(|block| &block["type"]).collect();
        assert_eq!(kinds, ["tool_result", "tool_result", "text"], "{last:?}");
        assert_eq!((&last[0]["tool_use_id"], &last[2]["text"]), (&json!("t1"), &json!("late")));
    }

    #[test]
    fn effort_becomes_what_the_model_understands() {
        let mut sent = json!({ "input": "x", "temperature": 0.5,
            "reasoning": { "effort": "high", "summary": "auto" } });
        let of = |sent: &Value, mode: &str| translate(sent, "m", Some(&model(mode))).unwrap().body;
        let adaptive = of(&sent, "adaptive");
        assert_eq!(adaptive["thinking"], json!({ "type": "adaptive", "display": "summarized" }));
        assert_eq!(adaptive["output_config"]["effort"], "high");
        assert!(adaptive.get("temperature").is_none());
        assert_eq!(of(&sent, "enabled")["thinking"]["budget_tokens"], 8_191);
        sent["reasoning"] = json!({ "effort": "none" });
        assert_eq!(of(&sent, "disabled")["thinking"], json!({ "type": "disabled" }));
        assert_eq!(of(&sent, "enabled")["temperature"], 0.5);
    }

    /// A model with a budget refuses to think about a tool's result without its earlier thoughts.
    #[test]
    fn a_lost_thought_ends_thinking_where_it_must() {
        let thought = sealed(&json!({ "type": "thinking", "thinking": "", "signature": "s" }));
        let mut sent = json!({ "reasoning": { "effort": "low" }, "input": [
            { "role": "user", "content": "x" },
            { "type": "reasoning", "encrypted_content": thought },
            { "type": "function_call", "call_id": "t", "name": "f", "arguments": "" },
            { "type": "function_call_output", "call_id": "t", "output": "one" } ] });
        let of = |sent: &Value, mode: &str| translate(sent, "m", Some(&model(mode))).unwrap().body;
        assert_eq!(of(&sent, "enabled")["thinking"]["type"], "enabled");
        sent["input"].as_array_mut().unwrap().remove(1);
        assert!(of(&sent, "enabled").get("thinking").is_none());
        assert_eq!(of(&sent, "adaptive")["thinking"]["type"], "adaptive");
    }

    #[test]
    fn what_is_not_served_is_said() {
        let ask = |more: Value| {
            let mut sent = json!({ "input": "x" });
            sent.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            sent
        };
        let item = |item: Value| json!({ "input": [{ "role": "user", "content": "x" }, item] });
        for (sent, words) in [
            (json!({}), "input is missing"),
            (json!({ "input": 7 }), "neither text nor a list"),
            (json!({ "input": [] }), "Missing user message in `input`."),
            (ask(json!({ "previous_response_id": "resp_1" })), "nothing is stored"),
            (ask(json!({ "conversation": { "id": "c" } })), "conversation is not served"),
            (ask(json!({ "background": true })), "background is not served"),
            (ask(json!({ "tools": [{ "type": "web_search" }] })), "the tool \"web_search\""),
            (
                ask(json!({ "tools": [{ "type": "custom", "name": "patch" }] })),
                "the tool \"patch\" of type \"custom\"",
            ),
            (
                ask(json!({ "tools": [{ "type": "namespace", "name": "n",
                    "tools": [{ "type": "custom", "name": "patch" }] }] })),
                "the tool \"patch\" of type \"custom\"",
            ),
            (ask(json!({ "tools": [{ "type": "function" }] })), "has no name"),
            (ask(json!({ "text": { "format": { "type": "xml" } } })), "\"xml\" is not known"),
            (ask(json!({ "text": { "format": { "type": "json_schema" } } })), "has no schema"),
            (item(json!({ "type": "item_reference", "id": "x" })), "input[1]: an item_reference"),
            (item(json!({ "type": "mcp_call" })), "input[1]: an item of type \"mcp_call\""),
            (item(json!({ "role": "x" })), "input[1]: the role \"x\""),
            (item(json!({ "type": "function_call_output", "output": "" })), "has no call_id"),
            (item(json!({ "type": "function_call", "call_id": "t", "arguments": "{" })), "no JSON"),
            (
                item(json!({ "role": "user", "content": [{ "type": "input_image" }] })),
                "an image has neither",
            ),
        ] {
            let error = translate(&sent, "m", None).unwrap_err();
            assert!(error.contains(words), "{sent}: {error}");
        }
        let fine = ask(json!({ "background": false, "store": true, "top_logprobs": 0,
            "include": ["reasoning.encrypted_content"], "previous_response_id": null,
            "text": { "verbosity": "low" }, "truncation": "auto", "service_tier": "auto" }));
        assert!(translate(&fine, "m", None).is_ok());
    }
}
