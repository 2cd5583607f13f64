//! Points in time as the store writes them.

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
        // `as` saturates and maps NaN to 0, which readers take for "never".
        f64::deserialize(deserializer).map(|millis| Self(millis as i64))
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
    }
}
