//! Checks of `tools` and `tool_choice`.

use serde_json::{Map, Value};

use crate::errors::ApiError;
use crate::models::Model;
use crate::validate::list;

/// Checks the tools and that the choice is one the tools and the model allow.
pub(crate) fn check(fields: &Map<String, Value>, model: Option<&Model>) -> Result<(), ApiError> {
    let mut names = Vec::new();
    for (index, tool) in list(fields, "tools").iter().enumerate() {
        let at = format!("tools.{index}");
        let Some(map) = tool.as_object() else {
            return Err(ApiError::invalid(format!("{at}: Input should be a valid dictionary")));
        };
        // Tools of the service's own kinds have a dated type and fields of their own.
        let custom = matches!(map.get("type"), None | Some(Value::Null))
            || map.get("type").is_some_and(|kind| kind == "custom");
        let name = map.get("name").and_then(Value::as_str).unwrap_or("");
        if custom {
            let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if !map.contains_key("name") {
                return Err(ApiError::invalid(format!("{at}.custom.name: Field required")));
            }
            if name.is_empty() || name.len() > 128 || !name.chars().all(good) {
                return Err(ApiError::invalid(format!(
                    "{at}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
                )));
            }
            match map.get("input_schema") {
                None => {
                    let text = format!("{at}.custom.input_schema: Field required");
                    return Err(ApiError::invalid(text));
                }
                Some(schema) if schema["type"] != "object" => {
                    let text = format!("{at}.custom.input_schema.type: Input should be 'object'");
                    return Err(ApiError::invalid(text));
                }
                Some(_) => {}
            }
        }
        if !name.is_empty() && names.contains(&name) {
            return Err(ApiError::invalid("tools: Tool names must be unique."));
        }
        names.push(name);
    }
    let Some(choice) = fields.get("tool_choice").and_then(Value::as_object) else {
        return Ok(());
    };
    let kind = choice.get("type").and_then(Value::as_str).unwrap_or("");
    match kind {
        "auto" | "none" => Ok(()),
        "any" | "tool" if model.is_some_and(|model| !model.forces_tools()) => {
            Err(ApiError::named("tool-choice"))
        }
        "any" | "tool" if names.is_empty() => Err(ApiError::invalid(format!(
            "tool_choice.{kind}: may only be specified while providing `tools`"
        ))),
        "any" => Ok(()),
        "tool" => match choice.get("name").and_then(Value::as_str) {
            None => Err(ApiError::invalid("tool_choice.tool.name: Field required")),
            Some(name) if names.contains(&name) => Ok(()),
            Some(name) => {
                let text = format!("Tool '{name}' not found in provided tools");
                Err(ApiError::invalid(text))
            }
        },
        _ => Err(ApiError::invalid(format!(
            "tool_choice: Input tag '{kind}' found using 'type' does not match any of the \
             expected tags: 'any', 'auto', 'none', 'tool'"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judge(body: &Value) -> Result<(), String> {
        check(body.as_object().unwrap(), None).map_err(|error| error.message)
    }

    #[test]
    fn names_are_unique_and_plain_and_schemas_are_objects() {
        let tool = |name: &str| json!({"name": name, "input_schema": {"type": "object"}});
        assert_eq!(judge(&json!({"tools": [tool("a"), tool("b-1")]})), Ok(()));
        assert!(judge(&json!({"tools": [tool("a"), tool("a")]})).unwrap_err().contains("unique"));
        assert!(judge(&json!({"tools": [tool("a b")]})).unwrap_err().contains("pattern"));
        let wrong = json!({"tools": [{"name": "a", "input_schema": {"type": "string"}}]});
        assert!(judge(&wrong).unwrap_err().contains("Input should be 'object'"));
        // The service's own tools need neither.
        assert_eq!(judge(&json!({"tools": [{"type": "bash_20250124", "name": "bash"}]})), Ok(()));
    }

    #[test]
    fn a_choice_needs_tools() {
        let body = |kind: &str| json!({"tool_choice": {"type": kind}});
        assert_eq!(judge(&body("auto")), Ok(()));
        assert!(judge(&body("any")).unwrap_err().contains("while providing `tools`"));
        assert!(judge(&body("some")).unwrap_err().contains("expected tags"));
    }
}
