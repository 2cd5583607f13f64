//! What the lab answers: the same reply for the same request, made from the last user turn.

use serde_json::{Map, Value, json};

use crate::fault::ReplySpec;
use crate::keys::hex;
use crate::models::{Model, Thinking};
use crate::prompt::{Prompt, text_tokens};
use crate::thinking::sign;

/// A reply without its usage.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    pub(crate) id: String,
    pub(crate) model: String,
    pub(crate) blocks: Vec<Block>,
    pub(crate) stop_reason: String,
    pub(crate) stop_sequence: Option<String>,
    pub(crate) output_tokens: u64,
    pub(crate) thinking_tokens: Option<u64>,
    /// How many deltas the text comes in, where a plan says so.
    pub(crate) deltas: Option<usize>,
}

/// One content block of a reply.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Block {
    Thinking { text: String, signature: String },
    Text(String),
    ToolUse { id: String, name: String, input: Value },
}

impl Reply {
    /// Makes the reply to a request that was found valid.
    pub(crate) fn make(
        body: &Value,
        prompt: &Prompt,
        model: Option<&Model>,
        spec: Option<&ReplySpec>,
    ) -> Self {
        let none = ReplySpec::default();
        let spec = spec.unwrap_or(&none);
        let id = body["model"].as_str().unwrap_or("");
        let prefix = prompt.segments.last().map_or([0; 32], |last| last.prefix);
        let seed = hex(&prefix[..12]);
        let asked = Asked::read(body);
        let mut blocks = Vec::new();
        let mut thinking_tokens = None;
        if thinks(body, model) || spec.thinking.is_some() {
            let made = format!("The user said {:?}. A short answer is enough.", asked.short());
            let thought = spec.thinking.clone().unwrap_or(made);
            let display = &body["thinking"]["display"];
            let omit = display == "omitted"
                || (display.is_null() && model.is_some_and(Model::omits_thinking));
            thinking_tokens = Some(text_tokens(&thought));
            let text = if omit { String::new() } else { thought };
            let signature = sign(id, &prefix, &text);
            blocks.push(Block::Thinking { text, signature });
        }
        let call = match &spec.tool {
            Some(tool) => Some((tool.name.clone(), object(tool.input.clone()))),
            None if spec.text.is_some() || spec.bytes.is_some() => None,
            None => wanted_tool(body, &asked),
        };
        let mut text = match (&spec.text, &call) {
            (Some(text), _) => text.clone(),
            (None, Some((name, _))) => format!("I will use {name}."),
            (None, None) => asked.answer(body),
        };
        if let Some(bytes) = spec.bytes {
            text = fill(&text, bytes);
        }
        let room = body["max_tokens"].as_u64().unwrap_or(u64::MAX);
        let mut reply = Self {
            id: format!("msg_lab{seed}"),
            model: spec.model.clone().unwrap_or_else(|| id.to_owned()),
            blocks,
            stop_reason: "end_turn".to_owned(),
            stop_sequence: None,
            output_tokens: thinking_tokens.unwrap_or(0),
            thinking_tokens,
            deltas: spec.events,
        };
        reply.finish(body, text, call, room, &seed);
        if let Some(reason) = &spec.stop_reason {
            reply.stop_reason.clone_from(reason);
        }
        reply
    }

    /// Returns the reply as the JSON of a message.
    pub(crate) fn to_json(&self, usage: Value) -> Value {
        let content: Vec<Value> = self.blocks.iter().map(Block::to_json).collect();
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": self.stop_reason,
            "stop_sequence": self.stop_sequence,
            "usage": usage,
        })
    }

    fn finish(
        &mut self,
        body: &Value,
        mut text: String,
        call: Option<(String, Value)>,
        room: u64,
        seed: &str,
    ) {
        let stops = body["stop_sequences"].as_array().into_iter().flatten();
        let first = stops
            .filter_map(Value::as_str)
            .filter_map(|stop| Some((text.find(stop)?, stop)))
            .min_by_key(|(at, _)| *at);
        if let Some((at, stop)) = first {
            text.truncate(at);
            self.stop_reason = "stop_sequence".to_owned();
            self.stop_sequence = Some(stop.to_owned());
        }
        let left = room.saturating_sub(self.output_tokens);
        if room == 0 || text_tokens(&text) > left {
            let bytes = usize::try_from(left.saturating_mul(4)).unwrap_or(usize::MAX);
            text.truncate(floor_boundary(&text, bytes));
            self.stop_reason = "max_tokens".to_owned();
            self.stop_sequence = None;
            self.output_tokens = self.output_tokens.min(room);
        }
        self.output_tokens += text_tokens(&text);
        let whole = self.stop_reason == "end_turn";
        if room == 0 {
            self.blocks.clear();
            self.thinking_tokens = None;
        } else if !text.is_empty() {
            self.blocks.push(Block::Text(text));
        }
        if let Some((name, input)) = call.filter(|_| whole) {
            self.output_tokens += text_tokens(&input.to_string());
            let id = format!("toolu_lab{seed}");
            self.blocks.push(Block::ToolUse { id, name, input });
            self.stop_reason = "tool_use".to_owned();
        }
    }
}

impl Block {
    pub(crate) fn to_json(&self) -> Value {
        match self {
            Block::Thinking { text, signature } => {
                json!({ "type": "thinking", "thinking": text, "signature": signature })
            }
            Block::Text(text) => json!({ "type": "text", "text": text }),
            Block::ToolUse { id, name, input } => {
                json!({ "type": "tool_use", "id": id, "name": name, "input": input })
            }
        }
    }
}

/// What the last user turn holds.
struct Asked {
    text: String,
    tool_result: Option<String>,
    images: usize,
}

impl Asked {
    fn read(body: &Value) -> Self {
        let mut asked = Self { text: String::new(), tool_result: None, images: 0 };
        let messages = body["messages"].as_array().map_or(&[][..], Vec::as_slice);
        let Some(turn) = messages.iter().rev().find(|message| message["role"] == "user") else {
            return asked;
        };
        match &turn["content"] {
            Value::String(text) => asked.text.clone_from(text),
            content => {
                for block in content.as_array().into_iter().flatten() {
                    match block["type"].as_str() {
                        Some("text") => {
                            block["text"].as_str().unwrap_or("").clone_into(&mut asked.text)
                        }
                        Some("tool_result") => asked.tool_result = Some(result_text(block)),
                        Some("image") => asked.images += 1,
                        _ => {}
                    }
                }
            }
        }
        asked
    }

    fn short(&self) -> &str {
        let text = self.text.trim();
        &text[..floor_boundary(text, 200)]
    }

    fn answer(&self, body: &Value) -> String {
        let format = &body["output_config"]["format"];
        let format = if format.is_null() { &body["output_format"] } else { format };
        if format["type"] == "json_schema" {
            return sample(&format["schema"], &format["schema"], 0).to_string();
        }
        if let Some(result) = &self.tool_result {
            return format!("Hello from the lab. The tool said: {result}");
        }
        let images = match self.images {
            0 => String::new(),
            1 => " You sent an image.".to_owned(),
            n => format!(" You sent {n} images."),
        };
        format!("Hello from the lab.{images} You said: {}", self.short())
    }
}

fn result_text(block: &Value) -> String {
    let parts = block["content"].as_array().into_iter().flatten();
    let joined: String = parts.filter_map(|part| part["text"].as_str()).collect();
    let text = block["content"].as_str().unwrap_or(&joined);
    text[..floor_boundary(text, 200)].to_owned()
}

fn thinks(body: &Value, model: Option<&Model>) -> bool {
    match body["thinking"]["type"].as_str() {
        Some("enabled" | "adaptive") => true,
        Some(_) => false,
        None => model.is_some_and(|model| model.thinking == Thinking::Always),
    }
}

// A tool is called when the choice forces one or the user's text says `use tool NAME`.
fn wanted_tool(body: &Value, asked: &Asked) -> Option<(String, Value)> {
    let tools = body["tools"].as_array()?;
    let choice = &body["tool_choice"];
    let named = match choice["type"].as_str() {
        Some("none") => return None,
        Some("tool") => choice["name"].as_str(),
        _ => asked.text.split_once("use tool ").map(|(_, rest)| {
            let end = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-');
            rest.split(end).next().unwrap_or("")
        }),
    };
    let tool = match named {
        Some(name) => tools.iter().find(|tool| tool["name"] == name)?,
        None if choice["type"] == "any" => tools.first()?,
        None => return None,
    };
    let schema = &tool["input_schema"];
    Some((tool["name"].as_str()?.to_owned(), object(sample(schema, schema, 0))))
}

fn object(value: Value) -> Value {
    if value.is_object() { value } else { json!({}) }
}

/// Returns a value that fits a simple JSON schema.
fn sample(schema: &Value, root: &Value, depth: usize) -> Value {
    if depth > 8 {
        return Value::Null;
    }
    let next = |schema: &Value| sample(schema, root, depth + 1);
    if let Some(target) =
        schema["$ref"].as_str().and_then(|path| root.pointer(path.strip_prefix('#')?))
    {
        return next(target);
    }
    for fixed in [&schema["const"], &schema["default"], &schema["enum"][0]] {
        if !fixed.is_null() {
            return fixed.clone();
        }
    }
    for either in ["anyOf", "oneOf", "allOf"] {
        if !schema[either][0].is_null() {
            return next(&schema[either][0]);
        }
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    match kind {
        Some("string") => {
            let least = schema["minLength"].as_u64().unwrap_or(0) as usize;
            let most = schema["maxLength"].as_u64().map_or(usize::MAX, |n| n as usize);
            let text = match schema["format"].as_str() {
                Some("date") => "2026-01-01".to_owned(),
                Some("date-time") => "2026-01-01T00:00:00Z".to_owned(),
                Some("uri") => "https://lab.invalid/".to_owned(),
                Some("email") => "lab@lab.invalid".to_owned(),
                _ => fill("lab", least.clamp(3, 4096)),
            };
            Value::from(&text[..text.len().min(most)])
        }
        Some("integer") => schema["minimum"].as_i64().map_or_else(|| json!(1), |n| json!(n)),
        Some("number") => schema["minimum"].as_f64().map_or_else(|| json!(1), |n| json!(n)),
        Some("boolean") => Value::Bool(true),
        Some("null") => Value::Null,
        Some("array") => {
            let least = schema["minItems"].as_u64().unwrap_or(1).min(16);
            (0..least).map(|_| next(&schema["items"])).collect()
        }
        None if !schema["properties"].is_object() => Value::from("lab"),
        _ => {
            // What is optional is left out; where nothing is required, everything is given.
            let required = schema["required"].as_array().filter(|names| !names.is_empty());
            let wanted =
                |name: &String| required.is_none_or(|names| names.iter().any(|n| n == name));
            let properties = schema["properties"].as_object();
            let made: Map<String, Value> = properties
                .into_iter()
                .flatten()
                .filter(|(name, _)| wanted(name))
                .map(|(name, schema)| (name.clone(), next(schema)))
                .collect();
            Value::Object(made)
        }
    }
}

// Repeats the text to exactly `bytes` bytes (fewer when a character would be cut).
fn fill(text: &str, bytes: usize) -> String {
    let unit = if text.is_empty() { "lab " } else { text };
    let mut filled = unit.repeat(bytes.div_ceil(unit.len()));
    filled.truncate(floor_boundary(&filled, bytes));
    filled
}

/// Returns the greatest character boundary at or before `at`.
pub(crate) fn floor_boundary(text: &str, at: usize) -> usize {
    if at >= text.len() {
        return text.len();
    }
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(body: &Value, spec: Option<&ReplySpec>) -> Reply {
        let model = crate::models::find(body["model"].as_str().unwrap_or(""));
        Reply::make(body, &Prompt::measure(body), model, spec)
    }

    fn ask(text: &str) -> Value {
        json!({"model": "claude-opus-4-5", "max_tokens": 1000,
               "messages": [{"role": "user", "content": text}]})
    }

    #[test]
    fn inputs_fit_their_schema() {
        let schema = json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 5, "maxLength": 6},
                "when": {"type": "string", "format": "date"},
                "count": {"type": ["integer", "null"], "minimum": -2},
                "list": {"type": "array", "items": {"$ref": "#/$defs/item"}, "minItems": 2},
                "either": {"anyOf": [{"const": 7}, {"type": "string"}]},
            },
            "$defs": {"item": {"type": "object", "properties": {"on": {"type": "boolean"}}}},
        });
        assert_eq!(
            sample(&schema, &schema, 0),
            json!({"name": "labla", "when": "2026-01-01", "count": -2,
                   "list": [{"on": true}, {"on": true}], "either": 7})
        );
        let picky = json!({"type": "object", "required": ["a"],
                           "properties": {"a": {"type": "null"}, "b": {"type": "null"}}});
        assert_eq!(sample(&picky, &picky, 0), json!({"a": null}));
        let endless = json!({"type": "object", "properties": {"next": {"$ref": "#"}}});
        assert!(sample(&endless, &endless, 0).is_object());
    }

    #[test]
    fn a_model_that_always_thinks_omits_the_text_but_signs() {
        let mut body = ask("hi");
        body["model"] = json!("claude-opus-5-5");
        let Block::Thinking { text, signature } = &reply(&body, None).blocks[0] else {
            panic!("no thinking block");
        };
        assert!(text.is_empty() && !signature.is_empty());
        body["thinking"] = json!({"type": "adaptive", "display": "summarized"});
        let Block::Thinking { text, .. } = &reply(&body, None).blocks[0] else {
            panic!("no thinking block");
        };
        assert!(text.contains("hi"));
        assert_eq!(reply(&ask("hi"), None).blocks.len(), 1);
    }

    #[test]
    fn nothing_is_said_without_room_and_characters_stay_whole() {
        let mut body = ask("✓✓✓");
        body["max_tokens"] = json!(0);
        let warmed = reply(&body, None);
        assert!(warmed.blocks.is_empty());
        assert_eq!((warmed.stop_reason.as_str(), warmed.output_tokens), ("max_tokens", 0));
        let spec = ReplySpec { text: Some("✓".into()), bytes: Some(10), ..Default::default() };
        assert_eq!(reply(&ask("q"), Some(&spec)).blocks, [Block::Text("✓✓✓".into())]);
    }

    #[test]
    fn a_schema_for_the_output_is_followed() {
        let mut body = ask("q");
        body["output_config"] = json!({"format": {"type": "json_schema", "schema":
            {"type": "object", "properties": {"n": {"type": "integer"}}}}});
        assert_eq!(reply(&body, None).blocks, [Block::Text("{\"n\":1}".into())]);
    }
}
