//! Checks that look at several blocks at once: tool pairs and cache marks.

use serde_json::{Map, Value};

use crate::errors::ApiError;
use crate::validate::{extra, list};

/// Checks that every tool call is answered in the next turn, and every answer was asked for.
pub(crate) fn pairs(messages: &[Value]) -> Result<(), ApiError> {
    let ids = |message: Option<&Value>, kind: &str, field: &str| -> Vec<String> {
        let blocks = message.and_then(|message| message["content"].as_array());
        blocks
            .into_iter()
            .flatten()
            .filter(|block| block["type"] == kind)
            .map(|block| block[field].as_str().unwrap_or("").to_owned())
            .collect()
    };
    for (index, message) in messages.iter().enumerate() {
        let asked = ids(Some(message), "tool_use", "id");
        let answered = ids(messages.get(index + 1), "tool_result", "tool_use_id");
        let missing: Vec<_> =
            asked.iter().filter(|id| !answered.contains(id)).map(String::as_str).collect();
        if !missing.is_empty() {
            return Err(ApiError::invalid(format!(
                "messages.{index}: `tool_use` ids were found without `tool_result` blocks \
                 immediately after: {}. Each `tool_use` block must have a corresponding \
                 `tool_result` block in the next message.",
                missing.join(", ")
            )));
        }
        let before = index.checked_sub(1).and_then(|before| messages.get(before));
        let asked_before = ids(before, "tool_use", "id");
        for (place, block) in message["content"].as_array().into_iter().flatten().enumerate() {
            let id = block["tool_use_id"].as_str().unwrap_or("");
            if block["type"] == "tool_result" && !asked_before.iter().any(|asked| asked == id) {
                return Err(ApiError::invalid(format!(
                    "messages.{index}.content.{place}: unexpected `tool_use_id` found in \
                     `tool_result` blocks: {id}. Each `tool_result` block must have a \
                     corresponding `tool_use` block in the previous message."
                )));
            }
        }
    }
    Ok(())
}

/// Checks the cache marks in cache order: at most four, well formed, one hour before five minutes.
pub(crate) fn marks(fields: &Map<String, Value>) -> Result<(), ApiError> {
    let mut found: Vec<(String, &Value)> = Vec::new();
    for (index, tool) in list(fields, "tools").iter().enumerate() {
        collect(&mut found, format!("tools.{index}"), tool);
    }
    for (index, block) in list(fields, "system").iter().enumerate() {
        collect(&mut found, format!("system.{index}"), block);
    }
    for (index, message) in list(fields, "messages").iter().enumerate() {
        for (place, block) in message["content"].as_array().into_iter().flatten().enumerate() {
            let at = format!("messages.{index}.content.{place}");
            for (inner, part) in block["content"].as_array().into_iter().flatten().enumerate() {
                collect(&mut found, format!("{at}.content.{inner}"), part);
            }
            collect(&mut found, at, block);
        }
    }
    if let Some(control) = fields.get("cache_control").filter(|value| !value.is_null()) {
        found.push(("cache_control".to_owned(), control));
    }
    if found.len() > 4 {
        let text = format!(
            "A maximum of 4 blocks with cache_control may be provided. Found {}.",
            found.len()
        );
        return Err(ApiError::invalid(text));
    }
    let mut short = false;
    for (at, control) in found {
        let Some(control) = control.as_object() else {
            return Err(ApiError::invalid(format!("{at}: Input should be a valid dictionary")));
        };
        if control.get("type").is_none_or(|kind| kind != "ephemeral") {
            return Err(ApiError::invalid(format!("{at}.type: Input should be 'ephemeral'")));
        }
        if let Some(name) =
            control.keys().find(|name| !["type", "ttl", "scope"].contains(&name.as_str()))
        {
            return Err(extra(&format!("{at}.{name}")));
        }
        match control.get("ttl") {
            None | Some(Value::Null) => short = true,
            Some(ttl) if ttl == "5m" => short = true,
            Some(ttl) if ttl == "1h" && !short => {}
            Some(ttl) if ttl == "1h" => {
                return Err(ApiError::invalid(format!(
                    "{at}.ttl: a ttl='1h' cache_control block must not come after a ttl='5m' \
                     cache_control block. Note that blocks are processed in the following order: \
                     `tools`, `system`, `messages`."
                )));
            }
            Some(_) => {
                let text = format!("{at}.ttl: Input should be '5m' or '1h'");
                return Err(ApiError::invalid(text));
            }
        }
    }
    Ok(())
}

fn collect<'a>(found: &mut Vec<(String, &'a Value)>, at: String, holder: &'a Value) {
    if let Some(control) = holder.get("cache_control").filter(|value| !value.is_null()) {
        found.push((format!("{at}.cache_control"), control));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judge(body: &Value) -> Result<(), String> {
        let fields = body.as_object().unwrap();
        pairs(list(fields, "messages")).and_then(|()| marks(fields)).map_err(|e| e.message)
    }

    fn turns(asked: &[&str], answered: &[&str]) -> Value {
        let asked: Vec<Value> =
            asked.iter().map(|id| json!({"type": "tool_use", "id": id})).collect();
        let answered: Vec<Value> =
            answered.iter().map(|id| json!({"type": "tool_result", "tool_use_id": id})).collect();
        json!({"messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": asked},
            {"role": "user", "content": answered},
        ]})
    }

    #[test]
    fn every_call_is_answered_and_every_answer_asked_for() {
        assert_eq!(judge(&turns(&["a", "b"], &["b", "a"])), Ok(()));
        let missing = judge(&turns(&["a", "b"], &["a"])).unwrap_err();
        assert!(missing.contains("immediately after: b."), "{missing}");
        let unasked = judge(&turns(&["a"], &["a", "c"])).unwrap_err();
        assert!(unasked.starts_with("messages.2.content.1: unexpected"), "{unasked}");
    }

    #[test]
    fn marks_are_counted_everywhere_and_ordered_tools_first() {
        let mark = |ttl: &str| json!({"type": "ephemeral", "ttl": ttl});
        let body = |tool: &str, system: &str| {
            json!({
                "messages": [{"role": "user", "content": "q"}],
                "system": [{"type": "text", "text": "s", "cache_control": mark(system)}],
                "tools": [{"name": "t", "cache_control": mark(tool)}],
            })
        };
        assert_eq!(judge(&body("1h", "5m")), Ok(()));
        let wrong = judge(&body("5m", "1h")).unwrap_err();
        assert!(wrong.starts_with("system.0.cache_control.ttl: a ttl='1h'"), "{wrong}");
        assert!(judge(&body("2h", "5m")).unwrap_err().contains("'5m' or '1h'"));
        let mut five = body("5m", "5m");
        let part = json!({"type": "text", "text": "x", "cache_control": mark("5m")});
        five["messages"][0]["content"] = json!([part, part]);
        assert_eq!(judge(&five), Ok(()));
        five["cache_control"] = mark("5m");
        assert!(judge(&five).unwrap_err().ends_with("Found 5."));
    }
}
