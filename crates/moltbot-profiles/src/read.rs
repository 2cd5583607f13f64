//! Reads a store's text. Sections are read strictly, their members leniently: a member that
//! cannot be understood is kept as text, so that nothing is lost at the next write.

use indexmap::IndexMap;
use indexmap::map::Entry as Slot;
use moltbot_core::{Credential, Secret};
use serde_json::error::Category;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::Stats;
use crate::document::{Entry, Profiles};
use crate::wire::{self, CredentialWire, OrderWire, Pairs, StatsWire};

/// Says where a store's text is wrong, and how, without any of its content.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{line}:{column}: {message}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// A clause without full stop.
    pub message: String,
}

impl Profiles {
    /// Reads the text of a store (spec A-1 to A-3).
    ///
    /// Refused: what is no JSON object, sections that are no objects, a version that is no
    /// number, and anything that stands there twice.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.starts_with('\u{feff}') {
            return Err(at(text, 0, "it starts with a byte order mark, which JSON does not allow"));
        }
        if text.trim().is_empty() {
            return Err(at(text, 0, "the file is empty, where a JSON object should be"));
        }
        match wire::strict(text) {
            Some(document) => Ok(document),
            None => Self::parse_leniently(text),
        }
    }

    /// Reads a store that is not perfect, slower: keeps what cannot be understood, or says what
    /// is wrong. Gives the same as [`wire::strict`] where that succeeds.
    fn parse_leniently(text: &str) -> Result<Self, ParseError> {
        let mut document = Self::default();
        let mut seen: Vec<String> = Vec::new();
        for (name, value) in pairs(text, text, "the store")? {
            if seen.contains(&name) {
                return Err(twice(text, value, &name));
            }
            match name.as_str() {
                "version" if value.get().parse::<f64>().is_err() => {
                    return Err(wrong(text, value, "`version` is not a number"));
                }
                "version" => {}
                "profiles" => document.profiles = section(text, value, &name, profile)?,
                "order" => {
                    document.order = section(text, value, &name, order)?;
                    document.order.retain(|_, entry| entry.known().is_none_or(|o| !o.is_empty()));
                }
                "lastGood" => document.last_good = section(text, value, &name, last_good)?,
                "usageStats" => document.stats = section(text, value, &name, stats)?,
                _ => document.rest.push((name.clone(), Secret::new(value.get()))),
            }
            seen.push(name);
        }
        document.reindex();
        Ok(document)
    }
}

/// Lists the members of an object without reading their values.
pub(crate) fn pairs<'a>(
    whole: &str,
    object: &'a str,
    name: &str,
) -> Result<Vec<(String, &'a RawValue)>, ParseError> {
    match serde_json::from_str::<Pairs<'a>>(object) {
        Ok(Pairs(list)) => Ok(list),
        Err(error) if error.classify() == Category::Data => {
            Err(at(whole, offset(whole, object), &format!("{name} is not a JSON object")))
        }
        Err(error) => {
            let start = offset(whole, object);
            let (line, column) = position(whole, start);
            let (line, column) = match error.line() {
                0 | 1 => (line, column + error.column().saturating_sub(1)),
                more => (line + more - 1, error.column().max(1)),
            };
            Err(ParseError { line, column, message: format!("not valid JSON: {}", plain(&error)) })
        }
    }
}

/// Makes an error at a byte of the text.
pub(crate) fn at(text: &str, offset: usize, message: &str) -> ParseError {
    let (line, column) = position(text, offset);
    ParseError { line, column, message: message.to_string() }
}

/// Reads one credential, or says what is wrong with it.
pub(crate) fn profile(raw: &str) -> Result<Credential, String> {
    let credential = match serde_json::from_str::<CredentialWire>(raw) {
        Ok(wire) => wire.0,
        Err(error) => return Err(why_no_profile(raw, &error)),
    };
    if !wire::is_known(&credential.kind) {
        return Err("its type is none of api_key, oauth, token".into());
    }
    if credential.provider.trim().is_empty() {
        return Err("it has no provider".into());
    }
    Ok(credential)
}

fn wrong(text: &str, value: &RawValue, message: &str) -> ParseError {
    at(text, offset(text, value.get()), message)
}

fn twice(text: &str, value: &RawValue, name: &str) -> ParseError {
    wrong(text, value, &format!("`{}` stands there twice", shown(name)))
}

/// Returns a key as a message may show it.
fn shown(name: &str) -> String {
    let short: String = name.chars().take(64).collect();
    moltbot_core::redact(&short).into_owned()
}

fn section<T>(
    text: &str,
    value: &RawValue,
    name: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<IndexMap<String, Entry<T>>, ParseError> {
    let list = pairs(text, value.get(), &format!("`{name}`"))?;
    let mut map = IndexMap::with_capacity(list.len());
    for (key, value) in list {
        let entry = match read(value.get()) {
            Ok(known) => Entry::Known(known),
            Err(reason) => Entry::Kept { raw: Secret::new(value.get()), reason },
        };
        match map.entry(key) {
            Slot::Vacant(slot) => slot.insert(entry),
            Slot::Occupied(slot) => {
                return Err(twice(text, value, &format!("{name}.{}", slot.key())));
            }
        };
    }
    Ok(map)
}

fn order(raw: &str) -> Result<Vec<String>, String> {
    match serde_json::from_str::<OrderWire>(raw) {
        Ok(wire) => Ok(wire.0),
        Err(_) => Err("it is not a list of profile ids".into()),
    }
}

fn last_good(raw: &str) -> Result<String, String> {
    serde_json::from_str(raw).map_err(|_| "it is not a profile id".into())
}

fn stats(raw: &str) -> Result<Stats, String> {
    match serde_json::from_str::<StatsWire>(raw) {
        Ok(wire) => Ok(wire.0),
        Err(_) => Err("it has not the shape of statistics".into()),
    }
}

/// Says what is wrong with a profile that could not be read; slow, for the rare case.
fn why_no_profile(raw: &str, error: &serde_json::Error) -> String {
    let Ok(members) = pairs(raw, raw, "it") else { return "it is not a JSON object".into() };
    let of = |name: &str| {
        let found = members.iter().find(|(key, _)| key == name).map(|(_, value)| value.get());
        found.filter(|text| *text != "null")
    };
    for name in ["type", "provider"] {
        if of(name).is_none() {
            return format!("it has no {name}");
        }
    }
    for name in
        ["type", "provider", "key", "token", "access", "refresh", "email", "method", "source"]
    {
        if of(name).is_some_and(|text| !text.starts_with('"')) {
            return format!("its `{name}` is not a text");
        }
    }
    if of("expires").is_some_and(|text| text.parse::<f64>().is_err()) {
        return "its `expires` is not a number".into();
    }
    for (index, (name, _)) in members.iter().enumerate() {
        if members[..index].iter().any(|(earlier, _)| earlier == name) {
            return format!("its `{}` stands there twice", shown(name));
        }
    }
    match error.classify() {
        Category::Data => "it has not the shape of a profile".into(),
        _ => plain(error),
    }
}

/// Says in words what a syntax error is, without its position; none quotes anything.
fn plain(error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "it ends too early, as if cut off".into();
    }
    let text = error.to_string();
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    match message {
        "key must be a string" => "a name in double quotes is missing",
        "trailing characters" => "something follows the end of the object",
        "trailing comma" => "there is a comma too many",
        "expected value" => "a value is missing or misspelled",
        "recursion limit exceeded" => "it is nested too deeply",
        other if other.starts_with("control character") => "a text holds a control character",
        other => other,
    }
    .to_string()
}

fn offset(text: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize).min(text.len())
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    (line, offset - start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use moltbot_core::Timestamp;
    use proptest::prelude::*;

    proptest! {
        /// The quick way and the lenient one agree wherever the quick one takes a text.
        #[test]
        fn both_ways_read_the_same(
            parts in prop::collection::vec((0_usize..5, 0_usize..12), 0..8)
        ) {
            let sections = ["profiles", "order", "lastGood", "usageStats", "more"];
            let values = [
                r#"{"a:b": {"type":"api_key","provider":"a","key":"FAKE","x":[1,{"y":2}]}}"#,
                r#"{"a:c": {"type":"token","provider":" A ","token":"FAKE","expires":1.5}}"#,
                r#"{"a:d": {"type":"none","provider":"a"}}"#,
                r#"{"a:e": {"type":"oauth","provider":" ","access":"FAKE"}}"#,
                r#"{"a": [" a:b ", "", 5], "b": []}"#,
                r#"{"a": "a:b"}"#,
                r#"{"a:b": {"errorCount": 1.5, "failureCounts": {"x": 2}, "models": {"m": {"models": 1}}}}"#,
                r#"{"a:b": {"lastUsed": null, "models": null, "account": "o", "z": 1}}"#,
                r#"{"a:b": {"errorCount": "x"}}"#,
                r#"{"twice": 1, "twice": 2}"#,
                "7",
                "{}",
            ];
            let members: Vec<String> = parts
                .iter()
                .map(|(section, value)| format!("{:?}: {}", sections[*section], values[*value]))
                .collect();
            let text = format!("{{\"version\": 1{}{}}}",
                if members.is_empty() { "" } else { ", " }, members.join(", "));
            let now = Timestamp::from_millis(5);
            if let Some(strict) = wire::strict(&text) {
                let lenient = Profiles::parse_leniently(&text).expect("the strict one took it");
                prop_assert!(strict.problems().is_empty() && lenient.problems().is_empty());
                let texts = (strict.to_json(now), lenient.to_json(now));
                prop_assert_eq!(texts.0.expose(), texts.1.expose());
                prop_assert_eq!(strict.by_provider, lenient.by_provider);
            }
        }
    }

    #[test]
    fn a_sound_store_is_read_the_quick_way() {
        let text = r#"{"version":1,"profiles":{"a:b":{"type":"api_key","provider":"a","key":"FAKE"}},
            "order":{"a":["a:b"]},"lastGood":{"a":"a:b"},"usageStats":{"a:b":{"lastUsed":1}},"x":[]}"#;
        assert_eq!(wire::strict(text).expect("sound").len(), 1);
    }
}
