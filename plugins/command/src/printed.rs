//! What a command printed: a key alone, or a JSON object with its end. Pure.

use moltbot_core::{Secret, Timestamp};
use serde::Deserialize;
use serde_json::Value;

/// How long a key is kept whose command does not say how long it is good, in milliseconds.
const KEPT: i64 = 5 * 60_000;

/// A key, and when to ask for it again.
#[derive(Debug)]
pub struct Printed {
    /// The key.
    pub key: Secret,
    /// When it ends; always later than the moment it was read.
    pub expires: Timestamp,
}

#[derive(Deserialize)]
struct Object {
    #[serde(default, alias = "Version")]
    version: Option<Value>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default, alias = "apiKey", alias = "api_key")]
    key: Option<Secret>,
    #[serde(default, rename = "expiresAt", alias = "expires_at", alias = "Expiration")]
    expires_at: Option<Value>,
}

/// Reads the output of a command; fails with one sentence, without any of the output.
///
/// ```
/// use moltbot_core::{Secret, Timestamp};
/// use moltbot_plugin_command::read;
///
/// let now = Timestamp::from_millis(0);
/// let read = |text: &str| read(&Secret::new(text), now);
/// let json = r#"{"version": 1, "key": "FAKE-key", "expiresAt": "1970-01-01T01:00:00Z"}"#;
/// assert_eq!(read(json).unwrap().expires.millis(), 3_600_000);
/// assert_eq!(read("FAKE-key\n").unwrap().key.expose(), "FAKE-key");
/// assert_eq!(read(" ").unwrap_err(), "The key command printed nothing");
/// ```
pub fn read(output: &Secret, now: Timestamp) -> Result<Printed, String> {
    let text = output.expose().trim();
    if text.is_empty() {
        return Err("The key command printed nothing".into());
    }
    if !text.starts_with('{') {
        return Ok(Printed { key: one_word(text)?, expires: now.plus(KEPT) });
    }
    // The parser's own words could hold a piece of what it read.
    let object: Object = serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("The key command printed no usable JSON object (line {line}, column {column})")
    })?;
    if object.version.is_some_and(|version| version != 1) {
        return Err("The key command printed another version than 1".into());
    }
    if object.kind.is_some_and(|kind| kind != "api_key") {
        return Err("The key command printed something else than an API key".into());
    }
    let Some(key) = object.key else {
        return Err("The key command printed a JSON object without \"key\"".into());
    };
    let expires = match object.expires_at {
        None | Some(Value::Null) => now.plus(KEPT),
        Some(at) => moment(&at).ok_or(
            "The key command printed an \"expiresAt\" that is neither an RFC 3339 time nor milliseconds",
        )?,
    };
    if expires <= now {
        return Err("The key command printed a key that has expired".into());
    }
    Ok(Printed { key: one_word(key.expose())?, expires })
}

fn one_word(text: &str) -> Result<Secret, String> {
    let text = text.trim();
    let good = !text.is_empty() && text.len() <= 4096 && text.bytes().all(|b| b.is_ascii_graphic());
    match good {
        true => Ok(Secret::new(text)),
        false => Err("The key command printed something else than one word".into()),
    }
}

fn moment(at: &Value) -> Option<Timestamp> {
    match at {
        Value::String(text) => {
            let at: jiff::Timestamp = text.parse().ok()?;
            Some(Timestamp::from_millis(at.as_millisecond()))
        }
        at => at.as_i64().map(Timestamp::from_millis),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    #[test]
    fn what_a_command_may_print() {
        let read = |text: &str| read(&Secret::new(text), NOW).map(|it| it.expires.millis());
        assert_eq!(read("\nFAKE\n"), Ok(1_000_000 + 300_000));
        assert_eq!(read(r#"{"key":"FAKE"}"#), Ok(1_000_000 + 300_000));
        assert_eq!(read(r#"{"Version":1,"apiKey":"FAKE","Expiration":2000000}"#), Ok(2_000_000));
        assert_eq!(
            read(r#"{"type":"api_key","key":"FAKE","expiresAt":"1970-01-01T00:20:00.5+00:00"}"#),
            Ok(1_200_500)
        );
    }

    #[test]
    fn anything_else_is_refused_without_being_shown() {
        for (text, error) in [
            ("", "printed nothing"),
            ("FAKE one two", "something else than one word"),
            ("FAKE\u{7f}", "something else than one word"),
            ("{\"key\":", "no usable JSON object (line 1, column 7)"),
            (r#"{"key":["FAKE"]}"#, "no usable JSON object"),
            (r#"{"version":2,"key":"FAKE"}"#, "another version than 1"),
            (r#"{"type":"token","token":"FAKE"}"#, "something else than an API key"),
            (r#"{"token":"FAKE"}"#, "without \"key\""),
            (r#"{"key":"FAKE","expiresAt":"FAKE"}"#, "neither an RFC 3339 time"),
            (r#"{"key":"FAKE","expiresAt":1000000}"#, "has expired"),
        ] {
            let said = read(&Secret::new(text), NOW).unwrap_err();
            assert!(said.contains(error) && !said.contains("FAKE"), "{text}: {said}");
        }
    }
}
