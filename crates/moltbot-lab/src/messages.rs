//! Checks of `system`, `messages` and their blocks: roles, types, required and unknown fields.

use serde_json::{Map, Value};

use crate::errors::ApiError;
use crate::models::Model;
use crate::order::{marks, pairs};
use crate::validate::{Client, extra};

/// Checks everything that lies in blocks.
pub(crate) fn check(
    fields: &Map<String, Value>,
    client: &Client,
    model: Option<&Model>,
) -> Result<(), ApiError> {
    system(fields)?;
    let messages = match fields.get("messages") {
        None => return Err(ApiError::invalid("messages: Field required")),
        Some(Value::Array(messages)) => messages,
        Some(_) => return Err(ApiError::invalid("messages: Input should be a valid list")),
    };
    if messages.is_empty() {
        return Err(ApiError::invalid("messages: at least one message is required"));
    }
    for (index, message) in messages.iter().enumerate() {
        let last = index + 1 == messages.len();
        let before = index.checked_sub(1).map(|before| &messages[before]);
        one(index, message, before, last, client, model)?;
    }
    pairs(messages)?;
    marks(fields)
}

fn system(fields: &Map<String, Value>) -> Result<(), ApiError> {
    let blocks = match fields.get("system") {
        None | Some(Value::Null | Value::String(_)) => return Ok(()),
        Some(Value::Array(blocks)) => blocks,
        Some(_) => return Err(ApiError::invalid("system: Input should be a valid list")),
    };
    for (index, block) in blocks.iter().enumerate() {
        let at = format!("system.{index}");
        if block["type"] != "text" {
            return Err(ApiError::invalid(format!("{at}.type: Input should be 'text'")));
        }
        text_block(block, &at, false)?;
    }
    Ok(())
}

fn one(
    index: usize,
    message: &Value,
    before: Option<&Value>,
    last: bool,
    client: &Client,
    model: Option<&Model>,
) -> Result<(), ApiError> {
    let at = format!("messages.{index}");
    let Some(fields) = message.as_object() else {
        return Err(ApiError::invalid(format!("{at}: Input should be a valid dictionary")));
    };
    // `clear_at`, `output_config` and `id` belong to betas that change a turn mid-conversation.
    let known = ["role", "content", "cache_control"];
    if let Some(name) = fields.keys().find(|name| !known.contains(&name.as_str()))
        && !client.betas.iter().any(|beta| beta.starts_with("mid-conversation-"))
    {
        return Err(extra(&format!("{at}.{name}")));
    }
    let role = match fields.get("role") {
        None => return Err(ApiError::invalid(format!("{at}.role: Field required"))),
        Some(role) => role.as_str().unwrap_or(""),
    };
    let after_user = before.is_some_and(|before| before["role"] == "user");
    match role {
        "user" => {}
        "assistant" if index == 0 => {
            let text = "messages: first message must use the \"user\" role";
            return Err(ApiError::invalid(text));
        }
        "assistant" if last && model.is_some_and(|model| !model.prefill()) => {
            return Err(ApiError::named("prefill"));
        }
        "assistant" => {}
        "system" if index == 0 => {
            let text = "messages.0: role 'system' may not come first; use the top-level `system`";
            return Err(ApiError::invalid(text));
        }
        "system" if !after_user => {
            let text = format!("{at}: role 'system' must follow a user message");
            return Err(ApiError::invalid(text));
        }
        "system" => {}
        _ => {
            let text = format!("{at}.role: Input should be 'user', 'assistant' or 'system'");
            return Err(ApiError::invalid(text));
        }
    }
    match fields.get("content") {
        None => Err(ApiError::invalid(format!("{at}.content: Field required"))),
        Some(Value::String(text)) if text.is_empty() && !(last && role == "assistant") => {
            Err(ApiError::invalid(format!(
                "{at}: all messages must have non-empty content except for the optional final \
                 assistant message"
            )))
        }
        Some(Value::String(_)) => Ok(()),
        Some(Value::Array(blocks)) if blocks.is_empty() && !(last && role == "assistant") => {
            Err(ApiError::invalid(format!(
                "{at}: all messages must have non-empty content except for the optional final \
                 assistant message"
            )))
        }
        Some(Value::Array(blocks)) => blocks.iter().enumerate().try_for_each(|(place, item)| {
            block(item, &format!("{at}.content.{place}"), role, client)
        }),
        Some(_) => Err(ApiError::invalid(format!("{at}.content: Input should be a valid list"))),
    }
}

// Block types of spec 09 B; the last seven are betas.
const BLOCKS: [&str; 24] = [
    "text",
    "image",
    "document",
    "thinking",
    "redacted_thinking",
    "tool_use",
    "tool_result",
    "search_result",
    "tool_reference",
    "server_tool_use",
    "web_search_tool_result",
    "web_fetch_tool_result",
    "code_execution_tool_result",
    "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result",
    "tool_search_tool_result",
    "container_upload",
    "mcp_tool_use",
    "mcp_tool_result",
    "advisor_tool_result",
    "compaction",
    "fallback",
    "tool_addition",
    "tool_removal",
];

fn block(item: &Value, at: &str, role: &str, client: &Client) -> Result<(), ApiError> {
    let Some(fields) = item.as_object() else {
        return Err(ApiError::invalid(format!("{at}: Input should be a valid dictionary")));
    };
    let kind = match fields.get("type") {
        None => return Err(ApiError::invalid(format!("{at}.type: Field required"))),
        Some(kind) => kind.as_str().unwrap_or(""),
    };
    if !BLOCKS.contains(&kind) {
        let tags: Vec<_> = BLOCKS[..17].iter().map(|tag| format!("'{tag}'")).collect();
        return Err(ApiError::invalid(format!(
            "{at}: Input tag '{kind}' found using 'type' does not match any of the expected tags: \
             {}",
            tags.join(", ")
        )));
    }
    let only_user = ["image", "tool_result"];
    let only_assistant = ["tool_use", "thinking", "redacted_thinking", "server_tool_use"];
    if (role == "assistant" && only_user.contains(&kind))
        || (role != "assistant" && only_assistant.contains(&kind))
    {
        let text = format!("{at}: `{kind}` blocks may not be in a message of role '{role}'");
        return Err(ApiError::invalid(text));
    }
    match kind {
        "text" => text_block(item, at, client.new_version && role == "user"),
        "document" if role == "assistant" && client.new_version => Err(ApiError::invalid(format!(
            "{at}: `document` blocks may not be in a message of role 'assistant'"
        ))),
        "image" | "document" => source(item, at, kind),
        "thinking" => {
            required(fields, at, kind, &["thinking", "signature"])?;
            no_others(fields, at, kind, &["thinking", "signature"])
        }
        "redacted_thinking" => required(fields, at, kind, &["data"]),
        "tool_use" => {
            required(fields, at, kind, &["id", "name"])?;
            let id = fields["id"].as_str().unwrap_or("");
            if !id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
                return Err(ApiError::invalid(format!(
                    "{at}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
                )));
            }
            match fields.get("input") {
                None => Err(ApiError::invalid(format!("{at}.tool_use.input: Field required"))),
                Some(input) if !input.is_object() => Err(ApiError::invalid(format!(
                    "{at}.tool_use.input: Input should be a valid dictionary"
                ))),
                Some(_) => {
                    no_others(fields, at, kind, &["id", "name", "input", "cache_control", "caller"])
                }
            }
        }
        "tool_result" => {
            required(fields, at, kind, &["tool_use_id"])?;
            no_others(fields, at, kind, &["tool_use_id", "content", "is_error", "cache_control"])?;
            match fields.get("content") {
                None | Some(Value::Null | Value::String(_)) => Ok(()),
                Some(Value::Array(parts)) => parts.iter().enumerate().try_for_each(|(n, part)| {
                    block(part, &format!("{at}.tool_result.content.{n}"), "user", client)
                }),
                Some(_) => Err(ApiError::invalid(format!(
                    "{at}.tool_result.content: Input should be a valid list"
                ))),
            }
        }
        _ => Ok(()),
    }
}

fn text_block(block: &Value, at: &str, no_citations: bool) -> Result<(), ApiError> {
    let Some(fields) = block.as_object() else {
        return Err(ApiError::invalid(format!("{at}: Input should be a valid dictionary")));
    };
    match fields.get("text") {
        None => return Err(ApiError::invalid(format!("{at}.text.text: Field required"))),
        Some(Value::String(text)) if text.is_empty() => {
            let text = "messages: text content blocks must be non-empty";
            return Err(ApiError::invalid(text));
        }
        Some(Value::String(_)) => {}
        Some(_) => {
            let text = format!("{at}.text.text: Input should be a valid string");
            return Err(ApiError::invalid(text));
        }
    }
    if no_citations && fields.get("citations").is_some_and(|value| !value.is_null()) {
        return Err(extra(&format!("{at}.text.citations")));
    }
    no_others(fields, at, "text", &["text", "cache_control", "citations"])
}

fn source(block: &Value, at: &str, kind: &str) -> Result<(), ApiError> {
    let Some(source) = block["source"].as_object() else {
        return Err(ApiError::invalid(format!("{at}.{kind}.source: Field required")));
    };
    let form = source.get("type").and_then(Value::as_str).unwrap_or("");
    let at = format!("{at}.{kind}.source.{form}");
    match form {
        "base64" => {
            required_at(source, &at, &["media_type", "data"])?;
            let media = source["media_type"].as_str().unwrap_or("");
            let good = match kind {
                "image" => ["image/jpeg", "image/png", "image/gif", "image/webp"].contains(&media),
                _ => media == "application/pdf",
            };
            if !good {
                let text = format!("{at}.media_type: Input {media:?} is not supported");
                return Err(ApiError::invalid(text));
            }
            let data = source["data"].as_str().unwrap_or("");
            let odd = |c: u8| !(c.is_ascii_alphanumeric() || b"+/=".contains(&c));
            if data.is_empty() || data.len() % 4 != 0 || data.bytes().any(odd) {
                return Err(ApiError::invalid(format!("{at}.data: invalid base64 data")));
            }
            Ok(())
        }
        "url" => required_at(source, &at, &["url"]),
        "file" => required_at(source, &at, &["file_id"]),
        "text" if kind == "document" => required_at(source, &at, &["data"]),
        "content" if kind == "document" => Ok(()),
        _ => Err(ApiError::invalid(format!("{at}: Input tag '{form}' is not an expected tag"))),
    }
}

fn required(
    fields: &Map<String, Value>,
    at: &str,
    kind: &str,
    names: &[&str],
) -> Result<(), ApiError> {
    required_at(fields, &format!("{at}.{kind}"), names)
}

fn required_at(fields: &Map<String, Value>, at: &str, names: &[&str]) -> Result<(), ApiError> {
    for name in names {
        match fields.get(*name) {
            None => return Err(ApiError::invalid(format!("{at}.{name}: Field required"))),
            Some(Value::String(_)) => {}
            Some(_) => {
                let text = format!("{at}.{name}: Input should be a valid string");
                return Err(ApiError::invalid(text));
            }
        }
    }
    Ok(())
}

fn no_others(
    fields: &Map<String, Value>,
    at: &str,
    kind: &str,
    known: &[&str],
) -> Result<(), ApiError> {
    match fields.keys().find(|name| *name != "type" && !known.contains(&name.as_str())) {
        Some(name) => Err(extra(&format!("{at}.{kind}.{name}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models;
    use serde_json::json;

    fn judge(body: &Value, model: &str, client: &Client) -> Result<(), String> {
        let fields = body.as_object().unwrap();
        check(fields, client, models::find(model)).map_err(|error| error.message)
    }

    #[test]
    fn a_system_turn_follows_a_user_turn() {
        let body = |roles: &[&str]| {
            let turns: Vec<Value> =
                roles.iter().map(|role| json!({"role": role, "content": "x"})).collect();
            json!({ "messages": turns })
        };
        let says = |roles: &[&str]| judge(&body(roles), "", &Client::default());
        assert_eq!(says(&["user", "system", "assistant", "user", "system"]), Ok(()));
        assert!(says(&["system", "user"]).unwrap_err().contains("may not come first"));
        let after = says(&["user", "assistant", "system"]).unwrap_err();
        assert!(after.contains("must follow a user message"), "{after}");
        assert!(says(&["assistant"]).unwrap_err().contains("first message"));
    }

    #[test]
    fn prefill_is_the_models_affair() {
        let body = json!({"messages": [{"role": "user", "content": "q"},
                                       {"role": "assistant", "content": "{"}]});
        let says = |model| judge(&body, model, &Client::default());
        assert_eq!(says("claude-opus-4-5"), Ok(()));
        assert_eq!(says("unknown"), Ok(()));
        assert!(says("claude-sonnet-5").unwrap_err().contains("prefill"));
    }

    #[test]
    fn blocks_are_known_by_type_place_and_version() {
        let says = |role: &str, block: Value, new_version: bool| {
            let client = Client { new_version, ..Client::default() };
            let body = json!({"messages": [
                {"role": "user", "content": "q"}, {"role": role, "content": [block]}]});
            judge(&body, "", &client)
        };
        let cited = json!({"type": "text", "text": "x", "citations": []});
        assert_eq!(says("user", cited.clone(), false), Ok(()));
        assert!(
            says("user", cited, true)
                .unwrap_err()
                .ends_with("citations: Extra inputs are not permitted")
        );
        let source = json!({"type": "base64", "media_type": "application/pdf", "data": "AAAA"});
        let file = json!({"type": "document", "source": source});
        assert_eq!(says("assistant", file.clone(), false), Ok(()));
        assert!(says("assistant", file, true).is_err());
        let image = |data: &str| {
            json!({"type": "image", "source":
                {"type": "base64", "media_type": "image/png", "data": data}})
        };
        assert_eq!(says("user", image("AAAA"), true), Ok(()));
        assert!(says("user", image("AAA"), true).unwrap_err().contains("base64"));
        assert!(says("assistant", image("AAAA"), true).unwrap_err().contains("may not be"));
        let extra = json!({"type": "text", "text": "x", "colour": 1});
        let path = "messages.1.content.0.text.colour: Extra inputs are not permitted";
        assert_eq!(says("user", extra, false).unwrap_err(), path);
    }
}
