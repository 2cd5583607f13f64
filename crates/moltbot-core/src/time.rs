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

    /// Reads a time of RFC 3339, such as `2026-11-22T12:00:00Z`: of the years 0 to 9999, with any
    /// offset and fraction. A space may stand for the `T`, the seconds may be missing, and a leap
    /// second is the one before it. `None` if it is no such time.
    ///
    /// ```
    /// use moltbot_core::Timestamp;
    ///
    /// let noon = Timestamp::from_rfc3339("2026-11-22T13:00:00.5+01:00").unwrap();
    /// assert_eq!(noon.to_rfc3339(), "2026-11-22T12:00:00.5Z");
    /// assert_eq!(Timestamp::from_rfc3339("2026-02-29T12:00:00Z"), None);
    /// ```
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let (date, rest) = text.split_at_checked(10)?;
        let rest = rest.strip_prefix(['T', 't', ' '])?;
        let (clock, zone) = rest.split_at(rest.find(['Z', 'z', '+', '-'])?);
        let (clock, fraction) = match clock.split_once('.') {
            Some((clock, digits)) => (clock, thousandths(digits)?),
            None => (clock, 0),
        };
        let seconds = day_number(date)? * DAY + seconds_of(clock)? - offset(zone)?;
        Some(Self(seconds * 1000 + fraction))
    }

    /// Writes the time in RFC 3339 and UTC, with a fraction if it has one; outside of the years 0
    /// to 9999 as the number that it is.
    pub fn to_rfc3339(self) -> String {
        let (seconds, fraction) = (self.0.div_euclid(1000), self.0.rem_euclid(1000));
        let (year, month, day) = civil(seconds.div_euclid(DAY));
        if !(0..=9999).contains(&year) {
            return self.0.to_string();
        }
        let clock = seconds.rem_euclid(DAY);
        let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
        let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        if fraction > 0 {
            let digits = format!(".{fraction:03}");
            text.push_str(digits.trim_end_matches('0'));
        }
        text.push('Z');
        text
    }
}

/// Seconds of a day.
const DAY: i64 = 86_400;

/// Returns the days from 1970-01-01 to a date such as `2026-11-22`, if there is such a day.
fn day_number(date: &str) -> Option<i64> {
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let (year, month, day) = (digits(year, 4)?, digits(month, 2)?, digits(day, 2)?);
    // The year begins in March, so that the day that is not always there is its last one.
    let (from_march, year_of_it) =
        if month > 2 { (month - 3, year) } else { (month + 9, year - 1) };
    let leap_days =
        year_of_it.div_euclid(4) - year_of_it.div_euclid(100) + year_of_it.div_euclid(400);
    let number = 365 * year_of_it + leap_days + (153 * from_march + 2) / 5 + day - 1 - EPOCH;
    (parts.next().is_none() && civil(number) == (year, month, day)).then_some(number)
}

/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: i64 = 719_468;

/// Returns year, month and day of a number of days since 1970-01-01.
fn civil(number: i64) -> (i64, i64, i64) {
    const CENTURIES: i64 = 146_097;
    let days = number + EPOCH;
    let (era, day) = (days.div_euclid(CENTURIES), days.rem_euclid(CENTURIES));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, turn) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + turn, month, day)
}

/// Reads `12:00:00` or `12:00` as seconds of the day.
fn seconds_of(clock: &str) -> Option<i64> {
    let mut parts = clock.split(':');
    let (hour, minute) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let second = parts.next().map_or(Some(0), |text| digits(text, 2))?;
    let real = hour < 24 && minute < 60 && second <= 60 && parts.next().is_none();
    real.then_some(hour * 3600 + minute * 60 + second.min(59))
}

/// Reads `Z`, `+01:00`, `+0100` or `+01` as seconds.
fn offset(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes() {
        b"Z" | b"z" => return Some(0),
        [b'+', ..] => 1,
        _ => -1,
    };
    let (hours, minutes) = zone.get(1..)?.split_at_checked(2)?;
    let minutes = match minutes.strip_prefix(':').unwrap_or(minutes) {
        "" if minutes.is_empty() => 0,
        minutes => digits(minutes, 2)?,
    };
    let hours = digits(hours, 2)?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Reads a number of exactly that many digits.
fn digits(text: &str, count: usize) -> Option<i64> {
    let good = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    good.then(|| text.parse().ok())?
}

/// Reads the digits of a fraction, cut off behind the third.
fn thousandths(text: &str) -> Option<i64> {
    let good = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    good.then(|| format!("{text:0<3}")[..3].parse().ok())?
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

    /// Some 20,000 times of the years 0 to 9999, uneven ones, the first, and the last that the
    /// other calendar knows.
    fn times() -> impl Iterator<Item = i64> {
        let (first, last) = (-62_167_219_200_000, 253_402_207_200_000);
        (first..last).step_by(15_778_475_123).chain([first, last, -1, 0, 999])
    }

    #[test]
    fn times_are_written_and_read_as_a_calendar_does() {
        for millis in times() {
            let text = Timestamp::from_millis(millis).to_rfc3339();
            let other = jiff::Timestamp::from_millisecond(millis).unwrap();
            assert_eq!(text, other.to_string());
            assert_eq!(Timestamp::from_rfc3339(&text), Some(Timestamp(millis)), "{text}");
            // Every day is a day, and the one that is missing is none.
            let day = millis.div_euclid(1000 * DAY);
            assert_eq!(day_number(&text[..10]), Some(day), "{text}");
        }
        for year in 0..=9999 {
            let leap = jiff::civil::Date::new(year, 2, 29).is_ok();
            assert_eq!(day_number(&format!("{year:04}-02-29")).is_some(), leap, "{year}");
        }
        let last = "9999-12-31T23:59:59.999Z";
        assert_eq!(Timestamp::from_rfc3339(last).unwrap().to_rfc3339(), last);
        for far in [i64::MIN, -62_167_219_200_001, 253_402_300_800_000, i64::MAX] {
            assert_eq!(Timestamp(far).to_rfc3339(), far.to_string());
        }
    }

    #[test]
    fn a_time_may_be_written_in_several_ways() {
        let noon = Timestamp::from_rfc3339("2026-11-22T12:00:00Z").unwrap();
        for text in [
            "2026-11-22 12:00:00z",
            "2026-11-22t12:00Z",
            "2026-11-22T12:00:00.000999999Z",
            "2026-11-22T13:30:00+01:30",
            "2026-11-22T07:00:00-0500",
            "2026-11-23T00:00:00.0+12",
        ] {
            assert_eq!(Timestamp::from_rfc3339(text), Some(noon), "{text}");
            let other: jiff::Timestamp = text.parse().unwrap();
            assert_eq!(other.as_millisecond(), noon.millis(), "{text}");
        }
        let leap = Timestamp::from_rfc3339("2016-12-31T23:59:60Z").unwrap();
        assert_eq!(leap.to_rfc3339(), "2016-12-31T23:59:59Z");
        assert_eq!(Timestamp::from_rfc3339("2026-11-22T12:00:00.25Z"), Some(noon.plus(250)));
    }

    #[test]
    fn what_is_no_time_is_not_read() {
        for text in [
            "",
            "2026-11-22",
            "2026-11-22T12:00:00",
            "2026-11-22T12:00:00Z ",
            "2026-11-22T24:00:00Z",
            "2026-11-22T12:60:00Z",
            "2026-11-22T12:00:61Z",
            "2026-11-22T12:00:00:00Z",
            "2026-11-22T12Z",
            "2026-11-22T12:00:00.Z",
            "2026-11-22T12:00:00.1.2Z",
            "2026-11-22T12:00:00+1",
            "2026-11-22T12:00:00+01:",
            "2026-11-22T12:00:00+24:00",
            "2026-11-22T12:00:00Z+01:00",
            "2026-13-22T12:00:00Z",
            "2026-00-22T12:00:00Z",
            "2026-11-00T12:00:00Z",
            "2026-11-31T12:00:00Z",
            "+026-11-22T12:00:00Z",
            "2026-1-222T12:00:00Z",
            "2026-11-2é12:00:00Z",
            "tomorrow",
        ] {
            assert_eq!(Timestamp::from_rfc3339(text), None, "{text}");
        }
    }
}
