//! Breakpoints of the prompt cache for clients that place none (`params.autoCache`): on the last
//! tool, the system prompt and the last message. Pure.

use bytes::Bytes;
use moltbot_core::{Found, Span};
use serde_json::Value;

use crate::scan::{Patterns, ScanError, ScanOptions, scan};

/// Where breakpoints are, and where they could be.
const PLACES: [&str; 13] = [
    "/cache_control",
    "/tools/*",
    "/tools/*/cache_control",
    "/tools/*/defer_loading",
    "/system",
    "/system/*",
    "/system/*/cache_control",
    "/messages/*/cache_control",
    "/messages/*/content",
    "/messages/*/content/*",
    "/messages/*/content/*/cache_control",
    "/messages/*/content/*/content/*/cache_control",
    "/tools/*/function/cache_control",
];

const BREAKPOINT: &str = "\"cache_control\":{\"type\":\"ephemeral\"}";

/// Returns the body with breakpoints, every other byte as it was; `None` if the client placed one
/// itself or there is no place for any.
pub(crate) fn place(body: &[u8]) -> Result<Option<Bytes>, ScanError> {
    let options = ScanOptions { refuse_duplicates: true, ..ScanOptions::default() };
    let found = scan(body, &Patterns::new(&PLACES), options)?;
    if found.iter().any(|place| place.path.ends_with("/cache_control")) {
        return Ok(None);
    }
    let mut edits: Vec<(Span, String)> = [
        last(&found, "/tools/", 1).filter(|tool| is_loaded(&found, tool)).and_then(into_object),
        prompt(&found, "/system"),
        last_message(&found),
    ]
    .into_iter()
    .flatten()
    .collect();
    if edits.is_empty() {
        return Ok(None);
    }
    edits.sort_by_key(|(span, _)| span.start);
    let more: usize = edits.iter().map(|(_, text)| text.len()).sum();
    let mut out = Vec::with_capacity(body.len() + more);
    let mut done = 0;
    for (span, text) in &edits {
        out.extend_from_slice(&body[done..span.start]);
        out.extend_from_slice(text.as_bytes());
        done = span.end;
    }
    out.extend_from_slice(&body[done..]);
    Ok(Some(out.into()))
}

/// The last value below `start` that is `deep` steps further down.
fn last<'f, 'a>(found: &'f [Found<'a>], start: &str, deep: usize) -> Option<&'f Found<'a>> {
    let is =
        |path: &str| path.strip_prefix(start).is_some_and(|rest| rest.split('/').count() == deep);
    found.iter().rev().find(|place| is(&place.path))
}

/// A tool that is loaded later stands outside the prompt, hence holds no breakpoint.
fn is_loaded(found: &[Found<'_>], tool: &Found<'_>) -> bool {
    let path = format!("{}/defer_loading", tool.path);
    !found.iter().any(|place| place.path == path && place.value == "true")
}

fn last_message(found: &[Found<'_>]) -> Option<(Span, String)> {
    let content = last(found, "/messages/", 2).filter(|place| place.path.ends_with("/content"))?;
    prompt(found, &content.path)
}

/// Text, or a list of blocks of which the last one gets it.
fn prompt(found: &[Found<'_>], path: &str) -> Option<(Span, String)> {
    let place = found.iter().rev().find(|place| place.path == path)?;
    if place.value.starts_with('"') {
        let said: String = serde_json::from_str(&place.value).ok()?;
        let block = format!("[{{\"type\":\"text\",\"text\":{},{BREAKPOINT}}}]", place.value);
        return (!said.trim().is_empty()).then_some((place.span, block));
    }
    let block = last(found, &format!("{path}/"), 1)?;
    let value: Value = serde_json::from_str(&block.value).ok()?;
    let refused = match value["type"].as_str() {
        // The service refuses breakpoints there.
        Some("thinking" | "redacted_thinking") => true,
        Some("text") => value["text"].as_str().is_none_or(|text| text.trim().is_empty()),
        _ => false,
    };
    if refused { None } else { into_object(block) }
}

/// An insertion before the closing brace.
fn into_object(object: &Found<'_>) -> Option<(Span, String)> {
    if !object.value.starts_with('{') {
        return None;
    }
    let brace = object.span.end.checked_sub(1)?;
    let is_empty = object.value[1..object.value.len() - 1].trim().is_empty();
    let comma = if is_empty { "" } else { "," };
    Some((Span::new(brace, brace), format!("{comma}{BREAKPOINT}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn placed(body: &str) -> Option<String> {
        let out = place(body.as_bytes()).unwrap()?;
        Some(String::from_utf8(out.to_vec()).unwrap())
    }

    #[test]
    fn texts_become_blocks_and_every_other_byte_stays() {
        let body = r#"{"model":"m", "tools":[{"name":"a"},{"name":"b" }],"system":"S\u00e9","messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"},{"role":"user", "content":"z"}],"x":1}"#;
        let expected = body
            .replace(r#"{"name":"b" }"#, &format!(r#"{{"name":"b" ,{BREAKPOINT}}}"#))
            .replace(
                r#""S\u00e9""#,
                &format!(r#"[{{"type":"text","text":"S\u00e9",{BREAKPOINT}}}]"#),
            )
            .replace(r#""z""#, &format!(r#"[{{"type":"text","text":"z",{BREAKPOINT}}}]"#));
        assert_eq!(placed(body).unwrap(), expected);
    }

    #[test]
    fn blocks_get_it_on_the_last_one() {
        let body = json!({ "messages": [
            { "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "image" }] } ],
            "system": [{ "type": "text", "text": "s" }, { "type": "text", "text": "t" }] });
        let out: Value = serde_json::from_str(&placed(&body.to_string()).unwrap()).unwrap();
        let ephemeral = json!({ "type": "ephemeral" });
        assert_eq!(out["messages"][0]["content"][1]["cache_control"], ephemeral);
        assert_eq!(out["messages"][0]["content"][0]["cache_control"], Value::Null);
        assert_eq!(out["system"][1]["cache_control"], ephemeral);
        assert_eq!(out["system"][0]["cache_control"], Value::Null);
    }

    #[test]
    fn a_client_that_places_one_is_left_alone() {
        for own in [
            json!({ "cache_control": { "type": "ephemeral" }, "system": "s" }),
            json!({ "tools": [{ "name": "a", "cache_control": {} }, { "name": "b" }] }),
            json!({ "messages": [{ "role": "user", "content": [
                { "type": "tool_result", "content": [{ "cache_control": null }] }] }] }),
        ] {
            assert_eq!(placed(&own.to_string()), None, "{own}");
        }
    }

    #[test]
    fn nothing_is_placed_where_the_service_refuses_it() {
        for odd in [
            json!({ "system": "", "messages": [] }),
            json!({ "system": [{ "type": "text", "text": "" }] }),
            json!({ "messages": [{ "content": [{ "type": "thinking", "thinking": "x" }] }] }),
            json!({ "tools": [{ "name": "a", "defer_loading": true }], "system": [] }),
            json!({ "messages": "x", "tools": [1], "system": 5 }),
        ] {
            assert_eq!(placed(&odd.to_string()), None, "{odd}");
        }
        assert!(place(br#"{"system":"a","system":"b"}"#).is_err());
        assert!(place(b"{").is_err());
    }
}
