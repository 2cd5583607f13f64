//! Points in time as the store writes them.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z; saturates instead of overflowing.
///
/// Reading accepts any JSON number, fractions cut off (other tools write them).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Makes a time from milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Returns milliseconds since the epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Adds milliseconds, which may be negative.
    #[must_use]
    pub const fn plus(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Returns the milliseconds from `earlier` to `self`; negative if `earlier` is later.
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyNumber)
    }
}

/// Reads whole numbers exactly, so that a time survives a round trip, and cuts off fractions.
struct AnyNumber;

impl Visitor<'_> for AnyNumber {
    type Value = Timestamp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of milliseconds")
    }

    fn visit_i64<E: de::Error>(self, millis: i64) -> Result<Timestamp, E> {
        Ok(Timestamp(millis))
    }

    fn visit_u64<E: de::Error>(self, millis: u64) -> Result<Timestamp, E> {
        Ok(Timestamp(i64::try_from(millis).unwrap_or(i64::MAX)))
    }

    fn visit_f64<E: de::Error>(self, millis: f64) -> Result<Timestamp, E> {
        // `as` saturates and maps NaN to 0, which readers take for "never".
        Ok(Timestamp(millis as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_is_read() {
        for (text, millis) in
            [("1790000000000", 1_790_000_000_000), ("1.9", 1), ("-5", -5), ("1e300", i64::MAX)]
        {
            let time: Timestamp = serde_json::from_str(text).unwrap();
            assert_eq!(time.millis(), millis, "{text}");
        }
        assert!(serde_json::from_str::<Timestamp>("\"1\"").is_err());
        for time in [i64::MIN, -1, 0, (1 << 53) + 1, i64::MAX].map(Timestamp::from_millis) {
            let text = serde_json::to_string(&time).unwrap();
            assert_eq!(serde_json::from_str::<Timestamp>(&text).unwrap(), time);
        }
    }
}
