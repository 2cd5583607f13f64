//! Reads a store's text. Sections are read strictly, their members leniently: a member that
//! cannot be understood is kept as text, so that nothing is lost at the next write.

use std::fmt;

use indexmap::IndexMap;
use indexmap::map::Entry as Slot;
use moltbot_core::{Credential, CredentialKind, Secret, Timestamp};
use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::document::{Entry, Profiles};
use crate::{Block, Stats};

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
    /// Reads the text of a store (spec ).
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
    if matches!(credential.kind, CredentialKind::None | CredentialKind::Other(_)) {
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
    let list: Vec<serde_json::Value> =
        serde_json::from_str(raw).map_err(|_| "it is not a list of profile ids")?;
    let ids = list.iter().filter_map(|id| id.as_str()).map(str::trim);
    Ok(ids.filter(|id| !id.is_empty()).map(str::to_string).collect())
}

fn last_good(raw: &str) -> Result<String, String> {
    serde_json::from_str(raw).map_err(|_| "it is not a profile id".into())
}

fn stats(raw: &str) -> Result<Stats, String> {
    let mut source = serde_json::Deserializer::from_str(raw);
    StatsSeed { inner: false }
        .deserialize(&mut source)
        .map_err(|_| "it has not the shape of statistics".into())
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

struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(member) = map.next_entry()? {
                    list.push(member);
                }
                Ok(list)
            }
        }

        deserializer.deserialize_map(Members).map(Self)
    }
}

/// Reads a [`Credential`] several times faster than its own `Deserialize`, which has to buffer
/// every member for the flattened rest.
struct CredentialWire(Credential);

impl<'de> Deserialize<'de> for CredentialWire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = CredentialWire;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a profile")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut read = Credential::new(CredentialKind::None, "");
                let mut seen = 0_u32;
                let (mut kind, mut provider) = (None, None);
                while let Some(name) = map.next_key::<Key<'de>>()? {
                    let bit = match name.as_str() {
                        "type" => set(&mut kind, &mut map, 0)?,
                        "provider" => set(&mut provider, &mut map, 1)?,
                        "key" => set(&mut read.key, &mut map, 2)?,
                        "token" => set(&mut read.token, &mut map, 3)?,
                        "access" => set(&mut read.access, &mut map, 4)?,
                        "refresh" => set(&mut read.refresh, &mut map, 5)?,
                        "expires" => {
                            let raw: &RawValue = map.next_value()?;
                            read.expires = time(raw.get()).map_err(A::Error::custom)?;
                            1 << 6
                        }
                        "email" => set(&mut read.email, &mut map, 7)?,
                        "method" => set(&mut read.method, &mut map, 8)?,
                        "source" => set(&mut read.source, &mut map, 9)?,
                        other => {
                            let value = map.next_value()?;
                            if read.rest.insert(other.to_string(), value).is_some() {
                                return Err(A::Error::custom("twice"));
                            }
                            0
                        }
                    };
                    if seen & bit != 0 {
                        return Err(A::Error::custom("twice"));
                    }
                    seen |= bit;
                }
                read.kind = kind.ok_or_else(|| A::Error::missing_field("type"))?;
                read.provider = provider.ok_or_else(|| A::Error::missing_field("provider"))?;
                Ok(CredentialWire(read))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// Reads statistics; with `inner`, those of one model.
struct StatsSeed {
    inner: bool,
}

impl<'de> DeserializeSeed<'de> for StatsSeed {
    type Value = Stats;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Stats, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for StatsSeed {
    type Value = Stats;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("statistics")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Stats, A::Error> {
        let mut read = Stats::default();
        while let Some(name) = map.next_key::<Key<'de>>()? {
            let whole: &mut Block = &mut read.whole;
            match name.as_str() {
                "lastUsed" => whole.last_used = map.next_value()?,
                "errorCount" => whole.error_count = map.next_value::<Option<Count>>()?.number(),
                "cooldownUntil" => whole.cooldown_until = map.next_value()?,
                "disabledUntil" => whole.disabled_until = map.next_value()?,
                "disabledReason" => whole.disabled_reason = map.next_value()?,
                "failureCounts" => {
                    let counts: Option<IndexMap<String, Count>> = map.next_value()?;
                    let counts = counts.into_iter().flatten();
                    whole.failure_counts = counts.map(|(name, n)| (name, n.0)).collect();
                }
                "lastFailureAt" => whole.last_failure_at = map.next_value()?,
                "account" if !self.inner => read.account = map.next_value()?,
                "models" if !self.inner => {
                    let models: Option<IndexMap<String, ModelWire>> = map.next_value()?;
                    let models = models.into_iter().flatten();
                    read.models = models.map(|(model, wire)| (model, wire.0)).collect();
                }
                other => {
                    whole.rest.insert(other.to_string(), map.next_value()?);
                }
            }
        }
        Ok(read)
    }
}

struct ModelWire(Block);

impl<'de> Deserialize<'de> for ModelWire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        StatsSeed { inner: true }.deserialize(deserializer).map(|stats| Self(stats.whole))
    }
}

/// A counter: any number, cut to what fits.
struct Count(u32);

trait Number {
    fn number(self) -> u32;
}

impl Number for Option<Count> {
    fn number(self) -> u32 {
        self.map_or(0, |count| count.0)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // `as` saturates at both ends.
        f64::deserialize(deserializer).map(|number| Self(number as u32))
    }
}

/// A member's name, borrowed unless it holds escapes.
enum Key<'a> {
    Borrowed(&'a str),
    Owned(String),
}

impl Key<'_> {
    fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Owned(text) => text,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl<'de> Visitor<'de> for Name {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key::Owned(text.to_string()))
            }
        }

        deserializer.deserialize_str(Name)
    }
}

fn set<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    field: &mut Option<T>,
    map: &mut A,
    bit: u32,
) -> Result<u32, A::Error> {
    *field = map.next_value()?;
    Ok(1 << bit)
}

/// Reads a time; what is too large for a float means never.
fn time(raw: &str) -> Result<Option<Timestamp>, &'static str> {
    if raw == "null" {
        return Ok(None);
    }
    raw.parse::<f64>()
        .map(|millis| Some(Timestamp::from_millis(millis as i64)))
        .map_err(|_| "not a number")
}
