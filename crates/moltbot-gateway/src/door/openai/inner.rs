//! The Messages request that both dialects of OpenAI's clients become: what they share. Pure.

use moltbot_core::ModelInfo;
use serde_json::{Map, Value, json};

/// Tokens of a whole reply, and of a streamed one, that nobody limited.
const USUAL_TOKENS: u64 = 8_192;
const USUAL_STREAMED: u64 = 32_000;

/// What a client wants.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The Messages request.
    pub(super) body: Value,
    /// Whether the reply shall be streamed.
    pub(super) stream: bool,
    /// What the client calls its conversation.
    pub(super) session: Option<String>,
}

/// A Messages request that is being written.
pub(super) struct Inner<'a> {
    info: Option<&'a ModelInfo>,
    most: u64,
    stream: bool,
    thinks: bool,
    pub(super) talk: Talk,
    body: Map<String, Value>,
    output: Map<String, Value>,
}

impl<'a> Inner<'a> {
    /// Begins one; `most` is the client's limit for the reply, in tokens.
    pub(super) fn new(
        model: &str,
        info: Option<&'a ModelInfo>,
        most: Option<u64>,
        stream: bool,
    ) -> Self {
        let usual = if stream { USUAL_STREAMED } else { USUAL_TOKENS };
        let room = info.map_or(USUAL_TOKENS, |info| info.max_output).max(1);
        let most = most.unwrap_or(room.min(usual)).max(1);
        let mut body = Map::new();
        body.insert("model".into(), model.into());
        body.insert("max_tokens".into(), most.into());
        let (talk, output) = (Talk::default(), Map::new());
        Self { info, most, stream, thinks: false, talk, body, output }
    }

    /// Asks for a format of the reply; `schema` is the one that the format names.
    pub(super) fn format(
        &mut self,
        name: &str,
        format: &Value,
        schema: &Value,
    ) -> Result<(), String> {
        match format["type"].as_str() {
            None | Some("text") => {}
            Some("json_object") => {
                let text = "Answer with one JSON object and nothing else.";
                self.talk.system.push(json!({ "type": "text", "text": text }));
            }
            Some("json_schema") => {
                if !schema.is_object() {
                    return Err(format!("{name} has no schema"));
                }
                let format = json!({ "type": "json_schema", "schema": schema });
                self.output.insert("format".into(), format);
            }
            Some(other) => return Err(format!("{name}: the type \"{other}\" is not known")),
        }
        Ok(())
    }

    /// Says how much the model shall think, after the conversation is written; `shown` asks for
    /// what it thought.
    pub(super) fn effort(&mut self, effort: &Value, shown: bool) {
        let Some(word) = effort.as_str() else { return };
        let mode = |mode: &str| self.info.is_some_and(|info| info.thinking.has(mode));
        let level = match word {
            "minimal" | "low" => "low",
            "max" | "xhigh" | "high" => "high",
            "medium" => "medium",
            "none" if mode("disabled") => {
                self.body.insert("thinking".into(), json!({ "type": "disabled" }));
                return;
            }
            _ => return,
        };
        if mode("adaptive") {
            let mut thinking = json!({ "type": "adaptive" });
            if shown {
                thinking["display"] = "summarized".into();
            }
            self.body.insert("thinking".into(), thinking);
            self.output.insert("effort".into(), level.into());
            self.thinks = true;
            return;
        }
        let budget = match level {
            "low" => 2_048,
            "medium" => 8_192,
            _ => 16_384,
        };
        let budget = std::cmp::min(budget, self.most.saturating_sub(1));
        // Without the thoughts that led to a tool's call, its result is not thought about.
        if !mode("enabled") || budget < 1_024 || self.talk.goes_on_without_thoughts() {
            return;
        }
        let thinking = json!({ "type": "enabled", "budget_tokens": budget });
        self.body.insert("thinking".into(), thinking);
        self.thinks = true;
    }

    /// Takes over what steers the choice of words, where the model lets it be steered.
    pub(super) fn sampling(&mut self, sent: &Value) {
        if self.thinks {
            return;
        }
        if let Some(temperature) = sent["temperature"].as_f64() {
            // Their scale goes to 2, the inner one to 1.
            self.body.insert("temperature".into(), json!(temperature.clamp(0.0, 1.0)));
        }
        // 1 is what holds anyway, and some models take one of the two only.
        if let Some(top_p) = sent["top_p"].as_f64().filter(|top_p| *top_p < 1.0) {
            self.body.insert("top_p".into(), json!(top_p));
        }
    }

    /// Names whoever asks.
    pub(super) fn user(&mut self, user: &Value) {
        if let Some(user) = user.as_str() {
            self.body.insert("metadata".into(), json!({ "user_id": user }));
        }
    }

    /// Takes over any other member.
    pub(super) fn set(&mut self, name: &str, value: Value) {
        self.body.insert(name.into(), value);
    }

    /// Takes over the functions among the tools, and which of them the model shall call.
    pub(super) fn tools(&mut self, sent: &Value, functions: &[Value]) -> Result<(), String> {
        if functions.is_empty() {
            return Ok(());
        }
        let mut out = Vec::with_capacity(functions.len());
        for function in functions {
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
        self.body.insert("tools".into(), out.into());
        let mut choice = match &sent["tool_choice"] {
            Value::Null => json!({ "type": "auto" }),
            Value::String(word) => match word.as_str() {
                "none" => json!({ "type": "none" }),
                "required" => json!({ "type": "any" }),
                _ => json!({ "type": "auto" }),
            },
            named => {
                let name = named["function"]["name"].as_str().or_else(|| named["name"].as_str());
                let name = name.filter(|_| named["type"] == "function");
                json!({ "type": "tool", "name": name.ok_or("tool_choice names no function")? })
            }
        };
        let single = sent["parallel_tool_calls"] == false && choice["type"] != "none";
        if single {
            choice["disable_parallel_tool_use"] = true.into();
        }
        if single || !sent["tool_choice"].is_null() {
            self.body.insert("tool_choice".into(), choice);
        }
        Ok(())
    }

    /// Ends it.
    pub(super) fn finish(self, session: Option<String>) -> Wanted {
        let Self { mut body, talk, output, stream, .. } = self;
        if !talk.system.is_empty() {
            body.insert("system".into(), talk.system.into());
        }
        body.insert("messages".into(), talk.messages.into());
        if !output.is_empty() {
            body.insert("output_config".into(), output.into());
        }
        if stream {
            body.insert("stream".into(), true.into());
        }
        Wanted { body: body.into(), stream, session }
    }
}

/// A conversation that is being written.
#[derive(Default)]
pub(super) struct Talk {
    system: Vec<Value>,
    messages: Vec<Value>,
}

impl Talk {
    /// Adds a message of somebody who tells, asks or answers in words and images.
    pub(super) fn add(&mut self, role: &str, content: &Value) -> Result<(), String> {
        match role {
            "system" | "developer" => self.system.extend(blocks(content)?),
            "user" | "assistant" => self.say(role, blocks(content)?),
            other => return Err(format!("the role \"{other}\" is not known")),
        }
        Ok(())
    }

    /// Adds the call of a tool, whose arguments are written as JSON.
    pub(super) fn call(
        &mut self,
        id: &Value,
        name: &Value,
        arguments: &Value,
    ) -> Result<(), String> {
        let input: Value = match arguments.as_str().unwrap_or_default().trim() {
            "" => json!({}),
            text => serde_json::from_str(text)
                .map_err(|error| format!("the arguments of a tool call are no JSON: {error}"))?,
        };
        let call = json!({ "type": "tool_use", "id": id, "name": name, "input": input });
        self.say("assistant", vec![call]);
        Ok(())
    }

    /// Adds what a tool answered.
    pub(super) fn result(&mut self, id: &str, content: &Value) -> Result<(), String> {
        let content = blocks(content)?;
        let result = json!({ "type": "tool_result", "tool_use_id": id, "content": content });
        if let Some(last) = self.messages.last_mut()
            && last["role"] == "user"
            && let Some(said) = last["content"].as_array_mut()
        {
            // Results stand before whatever was said meanwhile.
            let first = said.iter().position(|block| block["type"] != "tool_result");
            said.insert(first.unwrap_or(said.len()), result);
        } else {
            self.say("user", vec![result]);
        }
        Ok(())
    }

    /// Adds to the last message if it is of the same role: results of tools must stand together.
    pub(super) fn say(&mut self, role: &str, blocks: Vec<Value>) {
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

    /// Tells whether anything was said besides instructions.
    pub(super) fn has_begun(&self) -> bool {
        !self.messages.is_empty()
    }

    /// Tells whether anybody said anything that can be answered.
    pub(super) fn is_asked(&self) -> bool {
        self.messages.iter().any(|message| message["role"] == "user")
    }

    /// Tells whether it ends with a tool's result whose call came without its thoughts. Models
    /// with a budget then refuse to think.
    fn goes_on_without_thoughts(&self) -> bool {
        let [.., call, result] = &self.messages[..] else { return false };
        let results = |block: &Value| block["type"] == "tool_result";
        let kind = call["content"][0]["type"].as_str().unwrap_or_default();
        result["content"].as_array().is_some_and(|blocks| blocks.iter().any(results))
            && !matches!(kind, "thinking" | "redacted_thinking")
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
                    "text" | "input_text" | "output_text" | "refusal" => {
                        let said = part["text"].as_str().or_else(|| part["refusal"].as_str());
                        let said = said.unwrap_or_default();
                        if !said.trim().is_empty() {
                            out.push(text(said));
                        }
                    }
                    "image_url" | "input_image" => out.push(image(&part["image_url"])?),
                    "file" => out.push(document(&part["file"])?),
                    "input_file" => out.push(document(part)?),
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
    let source = source(url).ok_or("an image has neither a data: nor an http address")??;
    Ok(json!({ "type": "image", "source": source }))
}

fn document(file: &Value) -> Result<Value, String> {
    let url = file["file_data"].as_str().or_else(|| file["file_url"].as_str());
    let source = source(url.unwrap_or_default())
        .ok_or("a file has neither a data: nor an http address; nothing is stored here")??;
    if !matches!(source["media_type"].as_str(), None | Some("application/pdf")) {
        return Err("a file is no PDF".into());
    }
    let mut block = json!({ "type": "document", "source": source });
    if file["filename"].is_string() {
        block["title"] = file["filename"].clone();
    }
    Ok(block)
}

/// Says where bytes come from, if an address says so.
fn source(url: &str) -> Option<Result<Value, String>> {
    if let Some(data) = url.strip_prefix("data:") {
        let Some((kind, data)) = data.split_once(";base64,") else {
            return Some(Err("a data: address is not base64".into()));
        };
        return Some(Ok(json!({ "type": "base64", "media_type": kind, "data": data })));
    }
    let is_web = url.starts_with("https://") || url.starts_with("http://");
    is_web.then(|| Ok(json!({ "type": "url", "url": url })))
}
