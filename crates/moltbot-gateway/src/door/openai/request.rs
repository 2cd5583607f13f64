//! A chat completion request as a Messages request. Pure.

use moltbot_core::ModelInfo;
use serde_json::{Map, Value, json};

/// Tokens of a reply that nobody limited.
const USUAL_TOKENS: u64 = 8_192;

/// What a client wants.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The Messages request.
    pub(super) body: Value,
    /// Whether the reply shall be streamed.
    pub(super) stream: bool,
    /// Whether a stream shall end with its usage.
    pub(super) usage: bool,
}

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
    let mut talk = Talk::default();
    let messages = sent["messages"].as_array().ok_or("messages is missing")?;
    for message in messages {
        talk.add(message)?;
    }
    if !talk.messages.iter().any(|message| message["role"] == "user") {
        return Err("Missing user message in `messages`.".into());
    }
    let most = sent["max_completion_tokens"].as_u64().or_else(|| sent["max_tokens"].as_u64());
    let room = info.map_or(USUAL_TOKENS, |info| info.max_output).max(1);
    let most = most.unwrap_or(room.min(USUAL_TOKENS)).max(1);
    let stream = sent["stream"] == true;
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    body.insert("max_tokens".into(), most.into());
    let mut output = Map::new();
    format(&sent["response_format"], &mut talk, &mut output)?;
    let thinks = effort(sent, info, most, &mut body, &mut output);
    if !talk.system.is_empty() {
        body.insert("system".into(), talk.system.into());
    }
    body.insert("messages".into(), talk.messages.into());
    if let Some(temperature) = sent["temperature"].as_f64().filter(|_| !thinks) {
        // Their scale goes to 2, the inner one to 1.
        body.insert("temperature".into(), json!(temperature.clamp(0.0, 1.0)));
    }
    if let Some(top_p) = sent["top_p"].as_f64().filter(|_| !thinks) {
        body.insert("top_p".into(), json!(top_p));
    }
    match &sent["stop"] {
        Value::String(stop) => {
            body.insert("stop_sequences".into(), json!([stop]));
        }
        stops @ Value::Array(_) => {
            body.insert("stop_sequences".into(), stops.clone());
        }
        _ => {}
    }
    if let Some(user) = sent["user"].as_str() {
        body.insert("metadata".into(), json!({ "user_id": user }));
    }
    tools(sent, &mut body)?;
    if !output.is_empty() {
        body.insert("output_config".into(), output.into());
    }
    if stream {
        body.insert("stream".into(), true.into());
    }
    let usage = sent["stream_options"]["include_usage"] == true;
    Ok(Wanted { body: body.into(), stream, usage })
}

#[derive(Default)]
struct Talk {
    system: Vec<Value>,
    messages: Vec<Value>,
}

impl Talk {
    fn add(&mut self, message: &Value) -> Result<(), String> {
        let role = message["role"].as_str().unwrap_or_default();
        match role {
            "system" | "developer" => {
                self.system.extend(blocks(&message["content"])?);
                Ok(())
            }
            "user" => {
                let blocks = blocks(&message["content"])?;
                self.say("user", blocks);
                Ok(())
            }
            "assistant" => {
                let mut said = blocks(&message["content"])?;
                for call in message["tool_calls"].as_array().into_iter().flatten() {
                    said.push(tool_use(call)?);
                }
                self.say("assistant", said);
                Ok(())
            }
            "tool" => {
                let id = message["tool_call_id"].as_str().ok_or("a tool message has no id")?;
                let content = blocks(&message["content"])?;
                let result =
                    json!({ "type": "tool_result", "tool_use_id": id, "content": content });
                self.say("user", vec![result]);
                Ok(())
            }
            other => Err(format!("messages: the role \"{other}\" is not known")),
        }
    }

    /// Adds to the last message if it is of the same role: results of tools must stand together.
    fn say(&mut self, role: &str, blocks: Vec<Value>) {
        if blocks.is_empty() {
            return;
        }
        if let Some(last) = self.messages.last_mut()
            && last["role"] == role
            && let Some(content) = last["content"].as_array_mut()
        {
            content.extend(blocks);
            return;
        }
        self.messages.push(json!({ "role": role, "content": blocks }));
    }
}

fn blocks(content: &Value) -> Result<Vec<Value>, String> {
    let text = |text: &str| json!({ "type": "text", "text": text });
    match content {
        Value::Null => Ok(Vec::new()),
        Value::String(said) if said.trim().is_empty() => Ok(Vec::new()),
        Value::String(said) => Ok(vec![text(said)]),
        Value::Array(parts) => {
            let mut out = Vec::with_capacity(parts.len());
            for part in parts {
                match part["type"].as_str().unwrap_or_default() {
                    "text" | "refusal" => {
                        let said = part["text"].as_str().or_else(|| part["refusal"].as_str());
                        let said = said.unwrap_or_default();
                        if !said.trim().is_empty() {
                            out.push(text(said));
                        }
                    }
                    "image_url" => out.push(image(&part["image_url"])?),
                    other => return Err(format!("content of type \"{other}\" is not served here")),
                }
            }
            Ok(out)
        }
        _ => Err("the content of a message is neither text nor a list".into()),
    }
}

fn image(image: &Value) -> Result<Value, String> {
    let url = image["url"].as_str().or_else(|| image.as_str()).unwrap_or_default();
    if let Some(data) = url.strip_prefix("data:") {
        let (kind, data) = data.split_once(";base64,").ok_or("an image is not base64")?;
        let source = json!({ "type": "base64", "media_type": kind, "data": data });
        return Ok(json!({ "type": "image", "source": source }));
    }
    if url.starts_with("https://") || url.starts_with("http://") {
        return Ok(json!({ "type": "image", "source": { "type": "url", "url": url } }));
    }
    Err("an image has neither a data: nor an http address".into())
}

fn tool_use(call: &Value) -> Result<Value, String> {
    let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
    let input: Value = match arguments.trim() {
        "" => json!({}),
        text => serde_json::from_str(text)
            .map_err(|error| format!("the arguments of a tool call are no JSON: {error}"))?,
    };
    Ok(json!({
        "type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": input }))
}

fn tools(sent: &Value, body: &mut Map<String, Value>) -> Result<(), String> {
    let Some(tools) = sent["tools"].as_array().filter(|tools| !tools.is_empty()) else {
        return Ok(());
    };
    let mut out = Vec::with_capacity(tools.len());
    for tool in tools {
        let function = &tool["function"];
        if tool["type"] != "function" || !function["name"].is_string() {
            return Err("a tool is no function with a name".into());
        }
        let schema = match &function["parameters"] {
            Value::Null => json!({ "type": "object", "properties": {} }),
            schema => schema.clone(),
        };
        let mut one = Map::new();
        one.insert("name".into(), function["name"].clone());
        if function["description"].is_string() {
            one.insert("description".into(), function["description"].clone());
        }
        one.insert("input_schema".into(), schema);
        out.push(Value::Object(one));
    }
    body.insert("tools".into(), out.into());
    let mut choice = match &sent["tool_choice"] {
        Value::Null => json!({ "type": "auto" }),
        Value::String(word) => match word.as_str() {
            "none" => json!({ "type": "none" }),
            "required" => json!({ "type": "any" }),
            _ => json!({ "type": "auto" }),
        },
        named => json!({ "type": "tool", "name": named["function"]["name"] }),
    };
    let single = sent["parallel_tool_calls"] == false && choice["type"] != "none";
    if single {
        choice["disable_parallel_tool_use"] = true.into();
    }
    if single || !sent["tool_choice"].is_null() {
        body.insert("tool_choice".into(), choice);
    }
    Ok(())
}

fn format(format: &Value, talk: &mut Talk, output: &mut Map<String, Value>) -> Result<(), String> {
    match format["type"].as_str() {
        None | Some("text") => {}
        Some("json_object") => {
            let text = "Answer with one JSON object and nothing else.";
            talk.system.push(json!({ "type": "text", "text": text }));
        }
        Some("json_schema") => {
            let schema = &format["json_schema"]["schema"];
            if !schema.is_object() {
                return Err("response_format.json_schema.schema is missing".into());
            }
            output.insert("format".into(), json!({ "type": "json_schema", "schema": schema }));
        }
        Some(other) => return Err(format!("response_format \"{other}\" is not known")),
    }
    Ok(())
}

/// Writes down how much the model shall think; `true` if it does.
fn effort(
    sent: &Value,
    info: Option<&ModelInfo>,
    most: u64,
    body: &mut Map<String, Value>,
    output: &mut Map<String, Value>,
) -> bool {
    let Some(word) = sent["reasoning_effort"].as_str() else { return false };
    let mode = |mode: &str| info.is_some_and(|info| info.thinking.modes.iter().any(|m| m == mode));
    let level = match word {
        "minimal" | "low" => "low",
        "xhigh" | "high" => "high",
        "medium" => "medium",
        _ => return false,
    };
    if mode("adaptive") {
        body.insert("thinking".into(), json!({ "type": "adaptive" }));
        output.insert("effort".into(), level.into());
        return true;
    }
    let budget = match level {
        "low" => 2_048,
        "medium" => 8_192,
        _ => 16_384,
    };
    let budget = std::cmp::min(budget, most.saturating_sub(1));
    if !mode("enabled") || budget < 1_024 {
        return false;
    }
    body.insert("thinking".into(), json!({ "type": "enabled", "budget_tokens": budget }));
    true
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
