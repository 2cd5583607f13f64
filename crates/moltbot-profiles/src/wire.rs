//! The typed shapes of a store's members, read in one pass.

use std::fmt;
use std::marker::PhantomData;

use indexmap::IndexMap;
use moltbot_core::{Credential, CredentialKind, Secret, Timestamp};
use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::document::{Entry, Profiles};
use crate::{Block, Stats, Window};

/// Reads a whole store in one pass, if everything in it is understood.
pub(crate) fn strict(text: &str) -> Option<Profiles> {
    let mut source = serde_json::Deserializer::from_str(text);
    // Growing a map means moving everything in it; a guess that is too high costs little.
    let members = Members { room: (text.len() / 384).min(1 << 16) };
    let document = (&mut source).deserialize_map(members).ok()?;
    source.end().ok()?;
    Some(document)
}

struct Members {
    room: usize,
}

impl<'de> Visitor<'de> for Members {
    type Value = Profiles;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Profiles, A::Error> {
        let mut read = Profiles::default();
        let mut seen: Vec<String> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if seen.contains(&name) {
                return Err(A::Error::custom("twice"));
            }
            match name.as_str() {
                "version" => drop(map.next_value::<f64>()?),
                "profiles" => {
                    read.profiles =
                        map.next_value_seed(Section::<CredentialWire>::new(self.room))?;
                }
                "order" => {
                    read.order = map.next_value_seed(Section::<OrderWire>::new(0))?;
                    let is_filled = |ids: &Vec<String>| !ids.is_empty();
                    read.order.retain(|_, entry| entry.known().is_some_and(is_filled));
                }
                "lastGood" => {
                    read.last_good = map.next_value_seed(Section::<String>::new(0))?;
                }
                "usageStats" => {
                    read.stats = map.next_value_seed(Section::<StatsWire>::new(self.room / 4))?;
                }
                _ => {
                    let raw: &RawValue = map.next_value()?;
                    read.rest.push((name.clone(), Secret::new(raw.get())));
                }
            }
            seen.push(name);
        }
        read.reindex();
        Ok(read)
    }
}

/// Tells whether profiles of that type are used.
pub(crate) fn is_known(kind: &CredentialKind) -> bool {
    matches!(kind, CredentialKind::ApiKey | CredentialKind::Oauth | CredentialKind::Token)
}

/// A member's shape on the wire, and what becomes of it.
trait Wire<'de>: Deserialize<'de> {
    type Out;

    /// Returns the member if it is to be used.
    fn out(self) -> Option<Self::Out>;
}

impl<'de> Wire<'de> for String {
    type Out = Self;

    fn out(self) -> Option<Self> {
        Some(self)
    }
}

impl<'de> Wire<'de> for OrderWire {
    type Out = Vec<String>;

    fn out(self) -> Option<Vec<String>> {
        Some(self.0)
    }
}

impl<'de> Wire<'de> for StatsWire {
    type Out = Stats;

    fn out(self) -> Option<Stats> {
        Some(self.0)
    }
}

impl<'de> Wire<'de> for CredentialWire {
    type Out = Credential;

    fn out(self) -> Option<Credential> {
        Some(self.0).filter(|read| is_known(&read.kind) && !read.provider.trim().is_empty())
    }
}

struct Section<W> {
    room: usize,
    wire: PhantomData<W>,
}

impl<W> Section<W> {
    fn new(room: usize) -> Self {
        Self { room, wire: PhantomData }
    }
}

impl<'de, W: Wire<'de>> DeserializeSeed<'de> for Section<W> {
    type Value = IndexMap<String, Entry<W::Out>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, W: Wire<'de>> Visitor<'de> for Section<W> {
    type Value = IndexMap<String, Entry<W::Out>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a section")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut section = IndexMap::with_capacity(self.room);
        while let Some((key, wire)) = map.next_entry::<String, W>()? {
            let member = wire.out().ok_or_else(|| A::Error::custom("unusable"))?;
            if section.insert(key, Entry::Known(member)).is_some() {
                return Err(A::Error::custom("twice"));
            }
        }
        Ok(section)
    }
}

/// A list of profile ids: trimmed, without what is no text and without blank ones (spec A-3).
pub(crate) struct OrderWire(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for OrderWire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = Vec::<serde_json::Value>::deserialize(deserializer)?;
        let ids = list.iter().filter_map(|id| id.as_str()).map(str::trim);
        Ok(Self(ids.filter(|id| !id.is_empty()).map(str::to_string).collect()))
    }
}

/// The members of an object, their values unread.
pub(crate) struct Pairs<'a>(pub(crate) Vec<(String, &'a RawValue)>);

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
pub(crate) struct CredentialWire(pub(crate) Credential);

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

/// Statistics of a profile.
pub(crate) struct StatsWire(pub(crate) Stats);

impl<'de> Deserialize<'de> for StatsWire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        StatsSeed { inner: false }.deserialize(deserializer).map(Self)
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
                "quota" if !self.inner => {
                    // A picture that cannot be understood is painted anew; it is no reason to
                    // distrust the rest.
                    let told: serde_json::Value = map.next_value()?;
                    let told = told.as_array().into_iter().flatten();
                    read.quota = told.filter_map(|one| Window::deserialize(one).ok()).collect();
                }
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
