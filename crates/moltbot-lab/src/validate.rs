//! Request checks at the top level: headers, the body's fields, and what the model takes.
//!
//! Wording: spec 09 E where it has the body (8, 9, 17 to 23, 26); elsewhere the pattern of those,
//! path first (`Field required`, `Input should be ..`, `Extra inputs are not permitted`). Clients
//! must not depend on the latter. Messages and blocks are in `messages.rs` and `order.rs`.

use hyper::HeaderMap;
use serde_json::{Map, Value};

use crate::errors::ApiError;
use crate::messages;
use crate::models::{Model, Thinking};
use crate::tools;

/// Which endpoint a body is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Messages,
    CountTokens,
}

/// What the request headers say about how to read the body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Client {
    /// Whether `anthropic-version` is 2026-10-21 (or later) and not 2023-06-01.
    pub(crate) new_version: bool,
    /// The values of `anthropic-beta`.
    pub(crate) betas: Vec<String>,
}

impl Client {
    /// Reads the version and beta headers.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, ApiError> {
        let version = headers.get("anthropic-version").map(|value| value.to_str().unwrap_or(""));
        let new_version = match version {
            Some("2023-06-01") => false,
            Some("2026-10-21") => true,
            Some(other) => {
                let text = format!("anthropic-version: {other:?} is not a valid version");
                return Err(ApiError::invalid(text));
            }
            None => return Err(ApiError::invalid("anthropic-version: header is required")),
        };
        let betas = headers
            .get_all("anthropic-beta")
            .iter()
            .flat_map(|value| value.to_str().unwrap_or("").split(','))
            .map(|beta| beta.trim().to_owned())
            .filter(|beta| !beta.is_empty())
            .collect();
        Ok(Self { new_version, betas })
    }

    fn has(&self, prefix: &str) -> bool {
        self.betas.iter().any(|beta| beta.starts_with(prefix))
    }
}

/// Checks the content type of a request with a JSON body.
pub(crate) fn content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let value = headers.get("content-type").and_then(|value| value.to_str().ok());
    let essence = value.map(|text| text.split(';').next().unwrap_or("").trim());
    if essence.is_some_and(|text| text.eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(ApiError::invalid("content-type: header must be application/json"))
}

/// Checks a body and returns its model id.
pub(crate) fn body(
    body: &Value,
    client: &Client,
    op: Op,
    model: impl Fn(&str) -> Option<&'static Model>,
) -> Result<(), ApiError> {
    let Some(fields) = body.as_object() else {
        return Err(ApiError::invalid("Input should be a valid dictionary"));
    };
    known_fields(fields, client, op)?;
    let id = match fields.get("model") {
        None => return Err(ApiError::invalid("model: Field required")),
        Some(Value::String(id)) if !id.is_empty() => id.as_str(),
        Some(Value::String(_)) => {
            return Err(ApiError::invalid("model: String should have at least 1 character"));
        }
        Some(_) => return Err(ApiError::invalid("model: Input should be a valid string")),
    };
    let model = model(id);
    if op == Op::Messages {
        max_tokens(fields, model)?;
    }
    scalar_types(fields)?;
    sampling(fields, client, model)?;
    thinking(fields, client, model)?;
    tools::check(fields, model)?;
    messages::check(fields, client, model)
}

// Field, the beta it needs ("" = none, "*" = any beta header). Spec 09 B.
const FIELDS: [(&str, &str); 28] = [
    ("model", ""),
    ("messages", ""),
    ("max_tokens", ""),
    ("system", ""),
    ("metadata", ""),
    ("stop_sequences", ""),
    ("stream", ""),
    ("temperature", ""),
    ("top_k", ""),
    ("top_p", ""),
    ("tools", ""),
    ("tool_choice", ""),
    ("thinking", ""),
    ("output_config", ""),
    ("cache_control", ""),
    ("container", ""),
    ("diagnostics", ""),
    ("inference_geo", ""),
    ("service_tier", ""),
    ("speed", ""),
    ("context_management", "*"),
    ("compaction", "compact-"),
    ("thread", "*"),
    ("fallbacks", "server-side-fallback-"),
    ("fallback_credit_token", "fallback-credit-"),
    ("mcp_servers", "mcp-client-"),
    ("billing_policy", "*"),
    ("output_format", "structured-outputs-"),
];

fn known_fields(fields: &Map<String, Value>, client: &Client, op: Op) -> Result<(), ApiError> {
    const NOT_COUNTED: [&str; 8] = [
        "max_tokens",
        "metadata",
        "stop_sequences",
        "stream",
        "temperature",
        "top_k",
        "top_p",
        "service_tier",
    ];
    for name in fields.keys() {
        let known = FIELDS.iter().find(|(field, _)| field == name);
        let allowed = known.is_some_and(|(_, beta)| match *beta {
            "" => true,
            "*" => !client.betas.is_empty(),
            prefix => client.has(prefix),
        });
        if !allowed || (op == Op::CountTokens && NOT_COUNTED.contains(&name.as_str())) {
            return Err(extra(name));
        }
    }
    Ok(())
}

pub(crate) fn extra(path: &str) -> ApiError {
    ApiError::invalid(format!("{path}: Extra inputs are not permitted"))
}

fn max_tokens(fields: &Map<String, Value>, model: Option<&Model>) -> Result<(), ApiError> {
    let Some(value) = fields.get("max_tokens") else {
        return Err(ApiError::invalid("max_tokens: Field required"));
    };
    let Some(number) = value.as_i64() else {
        return Err(ApiError::invalid("max_tokens: Input should be a valid integer"));
    };
    if number < 0 {
        let text = "max_tokens: Input should be greater than or equal to 0";
        return Err(ApiError::invalid(text));
    }
    match model {
        Some(model) if number.unsigned_abs() > model.max_output => Err(ApiError::invalid(format!(
            "max_tokens: {number} > {}, which is the maximum allowed number of output tokens \
                 for {}",
            model.max_output, model.id
        ))),
        _ => Ok(()),
    }
}

fn scalar_types(fields: &Map<String, Value>) -> Result<(), ApiError> {
    let wrong = |name: &str, what: &str| {
        Err(ApiError::invalid(format!("{name}: Input should be a valid {what}")))
    };
    for (name, value) in fields {
        let good = match name.as_str() {
            _ if value.is_null() => true,
            "stream" if !value.is_boolean() => return wrong(name, "boolean"),
            "metadata" | "thinking" | "output_config" | "tool_choice" | "cache_control"
            | "diagnostics" | "context_management" | "compaction"
                if !value.is_object() =>
            {
                return wrong(name, "dictionary");
            }
            "tools" | "stop_sequences" | "mcp_servers" if !value.is_array() => {
                return wrong(name, "list");
            }
            "temperature" | "top_p" if !value.is_number() => return wrong(name, "number"),
            "top_k" if value.as_u64().is_none() => return wrong(name, "integer"),
            "service_tier" => value == "auto" || value == "standard_only",
            "speed" => value == "standard" || value == "fast",
            "temperature" | "top_p" => {
                value.as_f64().is_some_and(|number| (0.0..=1.0).contains(&number))
            }
            _ => true,
        };
        if !good {
            return Err(ApiError::invalid(format!("{name}: Input is outside what is allowed")));
        }
    }
    for (index, text) in list(fields, "stop_sequences").iter().enumerate() {
        match text.as_str() {
            None => return wrong(&format!("stop_sequences.{index}"), "string"),
            Some(text) if text.trim().is_empty() => {
                let message = "stop_sequences: each stop sequence must contain non-whitespace";
                return Err(ApiError::invalid(message));
            }
            Some(_) => {}
        }
    }
    if let Some(user) = fields.get("metadata").and_then(|metadata| metadata.get("user_id"))
        && !user.is_string()
        && !user.is_null()
    {
        return wrong("metadata.user_id", "string");
    }
    Ok(())
}

fn sampling(
    fields: &Map<String, Value>,
    client: &Client,
    model: Option<&Model>,
) -> Result<(), ApiError> {
    for name in ["temperature", "top_p", "top_k"] {
        let Some(value) = fields.get(name).filter(|value| !value.is_null()) else { continue };
        if client.new_version {
            return Err(extra(name));
        }
        let default = name != "top_k" && value.as_f64() == Some(1.0);
        if !default && model.is_some_and(|model| !model.sampling()) {
            return Err(ApiError::invalid(format!("`{name}` is deprecated for this model.")));
        }
        let thinks = fields.get("thinking").is_some_and(|t| t["type"] == "enabled");
        if thinks && name == "temperature" && !default {
            let text = "`temperature` may only be set to 1 when thinking is enabled.";
            return Err(ApiError::invalid(text));
        }
    }
    Ok(())
}

fn thinking(
    fields: &Map<String, Value>,
    client: &Client,
    model: Option<&Model>,
) -> Result<(), ApiError> {
    let effort = fields.get("output_config").map_or(&Value::Null, |config| &config["effort"]);
    if !effort.is_null() {
        let known = ["low", "medium", "high", "xhigh", "max"];
        if !known.iter().any(|level| effort == level) {
            let text = "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or \
                        'max'";
            return Err(ApiError::invalid(text));
        }
    }
    let Some(thinking) = fields.get("thinking").and_then(Value::as_object) else { return Ok(()) };
    let kind = thinking.get("type").and_then(Value::as_str).unwrap_or("");
    let allowed: &[&str] = match kind {
        "enabled" => &["type", "budget_tokens", "display", "block_binding"],
        "adaptive" => &["type", "display", "block_binding"],
        "disabled" | "between_tools" => &["type"],
        _ => {
            return Err(ApiError::invalid(format!(
                "thinking: Input tag '{kind}' found using 'type' does not match any of the \
                 expected tags: 'adaptive', 'between_tools', 'disabled', 'enabled'"
            )));
        }
    };
    for name in thinking.keys() {
        let bound = name == "block_binding" && !client.has("thinking-binding-controls-");
        if bound || !allowed.contains(&name.as_str()) {
            return Err(extra(&format!("thinking.{kind}.{name}")));
        }
    }
    if kind == "enabled" {
        let Some(budget) = thinking.get("budget_tokens").and_then(Value::as_i64) else {
            let text = "thinking.enabled.budget_tokens: Field required";
            return Err(ApiError::invalid(text));
        };
        if budget < 1024 {
            let text = "thinking.enabled.budget_tokens: Input should be greater than or equal to \
                        1024";
            return Err(ApiError::invalid(text));
        }
        let max = fields.get("max_tokens").and_then(Value::as_i64).unwrap_or(i64::MAX);
        if max <= budget {
            let text = "`max_tokens` must be greater than `thinking.budget_tokens`.";
            return Err(ApiError::invalid(text));
        }
    }
    let Some(model) = model else { return Ok(()) };
    let strained = effort == "xhigh" || effort == "max";
    if kind == "disabled" && strained && model.thinking == Thinking::AdaptiveUnlessHigh {
        let text = "\"thinking.type.disabled\" is not supported with this effort";
        return Err(ApiError::invalid(text));
    }
    if !model.takes(kind) {
        let text = format!("\"thinking.type.{kind}\" is not supported for this model");
        return Err(ApiError::invalid(text));
    }
    Ok(())
}

/// Returns the items of an array field, none if it is absent or null.
pub(crate) fn list<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a [Value] {
    fields.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models;
    use serde_json::json;

    fn judge(body_: &Value, betas: &[&str], op: Op) -> Result<(), String> {
        let betas = betas.iter().map(|beta| (*beta).to_owned()).collect();
        let client = Client { new_version: false, betas };
        body(body_, &client, op, models::find).map_err(|error| error.message)
    }

    /// The fields a coding agent sends today (spec 08 W-2).
    fn agent() -> Value {
        json!({
            "model": "claude-sonnet-5-5",
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "q", "cache_control":
                    {"type": "ephemeral", "ttl": "1h"}}]},
                {"role": "system", "content": "reminder"},
            ],
            "system": [{"type": "text", "text": "s"}],
            "tools": [{"name": "Read", "description": "d", "input_schema": {"type": "object"}},
                      {"type": "web_search_20260101", "name": "web_search", "max_uses": 3}],
            "metadata": {"user_id": "{\"device_id\":\"d\"}"},
            "max_tokens": 32000,
            "thinking": {"type": "adaptive"},
            "context_management": {"edits": []},
            "output_config": {"effort": "medium"},
            "stream": true,
        })
    }

    #[test]
    fn an_agents_request_passes_with_its_betas_only() {
        let beta = ["context-management-2025-06-27", "lab-unheard-of-2030-01-01"];
        assert_eq!(judge(&agent(), &beta, Op::Messages), Ok(()));
        let lost = judge(&agent(), &[], Op::Messages).unwrap_err();
        assert_eq!(lost, "context_management: Extra inputs are not permitted");
        let bound = json!({"type": "adaptive", "block_binding": {}});
        let mut body = agent();
        body["thinking"] = bound;
        let lost = judge(&body, &beta, Op::Messages).unwrap_err();
        assert_eq!(lost, "thinking.adaptive.block_binding: Extra inputs are not permitted");
        let controls = [beta[0], "thinking-binding-controls-2026-08-01"];
        assert_eq!(judge(&body, &controls, Op::Messages), Ok(()));
    }

    #[test]
    fn counting_takes_no_sampling_or_length() {
        let mut body = agent();
        let fields = body.as_object_mut().unwrap();
        for name in ["metadata", "max_tokens", "stream"] {
            fields.remove(name);
        }
        let beta = ["context-management-2025-06-27"];
        assert_eq!(judge(&body, &beta, Op::CountTokens), Ok(()));
        body["max_tokens"] = json!(1);
        assert!(judge(&body, &beta, Op::CountTokens).is_err());
    }

    #[test]
    fn models_take_their_own_thinking_and_tool_choice() {
        let with = |model: &str, field: &str, value: Value| {
            let mut body = json!({"model": model, "max_tokens": 4000,
                "tools": [{"name": "t", "input_schema": {"type": "object"}}],
                "messages": [{"role": "user", "content": "q"}]});
            body[field] = value;
            judge(&body, &[], Op::Messages)
        };
        let budget = |n: i64| json!({"type": "enabled", "budget_tokens": n});
        assert_eq!(with("claude-opus-4-5", "thinking", budget(1024)), Ok(()));
        assert!(with("claude-opus-4-5", "thinking", budget(1023)).unwrap_err().contains("1024"));
        assert!(with("claude-opus-4-5", "thinking", budget(4000)).unwrap_err().contains("greater"));
        let refused = with("claude-opus-5-5", "thinking", budget(1024)).unwrap_err();
        assert_eq!(refused, "\"thinking.type.enabled\" is not supported for this model");
        assert_eq!(with("unknown-model", "thinking", budget(1024)), Ok(()));
        let forced = json!({"type": "tool", "name": "t"});
        assert_eq!(with("claude-opus-5", "tool_choice", forced.clone()), Ok(()));
        assert!(with("claude-opus-5-5", "tool_choice", forced).is_err());
        let other = json!({"type": "tool", "name": "u"});
        assert!(with("claude-opus-5", "tool_choice", other).unwrap_err().contains("'u' not found"));
    }
}
