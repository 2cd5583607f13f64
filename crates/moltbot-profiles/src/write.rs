//! Writes a store's text, in upstream's shape (spec ).

use indexmap::IndexMap;
use moltbot_core::{Credential, Expose, Secret, Timestamp};
use serde::ser::{Error as _, SerializeMap};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::document::{Entry, Profiles};
use crate::{Block, Stats};

impl Profiles {
    /// Returns the text of the store: two spaces, a newline at the end, version 1, no empty
    /// section. Statistics of models that are over at `now` are left out.
    pub fn to_json(&self, now: Timestamp) -> Secret {
        // Large enough that a growing buffer seldom leaves copies of secrets behind.
        let mut buffer = Vec::with_capacity(4_096 + self.profiles.len() * 640);
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"  ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut buffer, formatter);
        Document { profiles: self, now }
            .serialize(&mut serializer)
            .expect("keys are texts, kept parts are JSON, and a Vec takes every byte");
        buffer.push(b'\n');
        Secret::new(String::from_utf8(buffer).expect("serde_json writes UTF-8"))
    }
}

struct Document<'a> {
    profiles: &'a Profiles,
    now: Timestamp,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Profiles { profiles, order, last_good, stats, rest, .. } = self.profiles;
        let now = self.now;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("version", &1)?;
        map.serialize_entry("profiles", &Section(profiles, now))?;
        if !order.is_empty() {
            map.serialize_entry("order", &Section(order, now))?;
        }
        if !last_good.is_empty() {
            map.serialize_entry("lastGood", &Section(last_good, now))?;
        }
        if !stats.is_empty() {
            map.serialize_entry("usageStats", &Section(stats, now))?;
        }
        for (name, raw) in rest {
            map.serialize_entry(name, &Raw(raw))?;
        }
        map.end()
    }
}

/// What a section can hold; `now` decides what of it is still worth writing.
trait Member {
    fn write<S: Serializer>(&self, serializer: S, now: Timestamp) -> Result<S::Ok, S::Error>;
}

impl Member for Credential {
    fn write<S: Serializer>(&self, serializer: S, _: Timestamp) -> Result<S::Ok, S::Error> {
        self.expose_to(serializer)
    }
}

impl Member for String {
    fn write<S: Serializer>(&self, serializer: S, _: Timestamp) -> Result<S::Ok, S::Error> {
        self.serialize(serializer)
    }
}

impl Member for Vec<String> {
    fn write<S: Serializer>(&self, serializer: S, _: Timestamp) -> Result<S::Ok, S::Error> {
        self.serialize(serializer)
    }
}

impl Member for Stats {
    fn write<S: Serializer>(&self, serializer: S, now: Timestamp) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write_block(&mut map, &self.whole)?;
        if let Some(account) = &self.account {
            map.serialize_entry("account", account)?;
        }
        let quota: Vec<_> = self.quota.iter().filter(|window| !window.is_over(now)).collect();
        if !quota.is_empty() {
            map.serialize_entry("quota", &quota)?;
        }
        let models = self.kept_models(now);
        if !models.is_empty() {
            map.serialize_entry("models", &Models(&models))?;
        }
        map.end()
    }
}

struct Section<'a, T>(&'a IndexMap<String, Entry<T>>, Timestamp);

impl<T: Member> Serialize for Section<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, entry) in self.0 {
            match entry {
                Entry::Known(member) => map.serialize_entry(key, &One(member, self.1))?,
                Entry::Kept { raw, .. } => map.serialize_entry(key, &Raw(raw))?,
            }
        }
        map.end()
    }
}

struct One<'a, T>(&'a T, Timestamp);

impl<T: Member> Serialize for One<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(serializer, self.1)
    }
}

/// Something kept as it came.
struct Raw<'a>(&'a Secret);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(self.0.expose())
            .map_err(|_| S::Error::custom("a kept part is no JSON"))?;
        raw.serialize(serializer)
    }
}

struct Models<'a>(&'a [(&'a String, &'a Block)]);

impl Serialize for Models<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(model, block)| (model, Model(block))))
    }
}

struct Model<'a>(&'a Block);

impl Serialize for Model<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write_block(&mut map, self.0)?;
        map.end()
    }
}

fn write_block<M: SerializeMap>(map: &mut M, block: &Block) -> Result<(), M::Error> {
    if let Some(at) = block.last_used {
        map.serialize_entry("lastUsed", &at)?;
    }
    map.serialize_entry("errorCount", &block.error_count)?;
    if let Some(at) = block.cooldown_until {
        map.serialize_entry("cooldownUntil", &at)?;
    }
    if let Some(at) = block.disabled_until {
        map.serialize_entry("disabledUntil", &at)?;
    }
    if let Some(reason) = &block.disabled_reason {
        map.serialize_entry("disabledReason", reason)?;
    }
    if !block.failure_counts.is_empty() {
        map.serialize_entry("failureCounts", &block.failure_counts)?;
    }
    if let Some(at) = block.last_failure_at {
        map.serialize_entry("lastFailureAt", &at)?;
    }
    for (name, value) in &block.rest {
        map.serialize_entry(name, value)?;
    }
    Ok(())
}
