//! The name of a decision record.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// No `i`, `l`, `o`, `u`: what is read aloud is typed right.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Names one request and the record of every decision about it: `mb_` and 20 characters that sort
/// by time.
///
/// ```
/// use moltbot_core::{RecordId, Timestamp};
/// let id = RecordId::new(Timestamp::from_millis(1_790_000_000_000), 7);
/// assert_eq!(id.to_string().len(), 23);
/// assert!(id < RecordId::new(Timestamp::from_millis(1_790_000_000_001), 0));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordId(String);

impl RecordId {
    /// Makes an id from the start of the request and 52 random bits (higher ones are ignored).
    pub fn new(start: Timestamp, random: u64) -> Self {
        Self(String::from_utf8_lossy(&Self::letters(start, random)).into_owned())
    }

    /// Returns the text of the id that [`new`](Self::new) makes, without allocating: all of it is
    /// ASCII.
    ///
    /// ```
    /// use moltbot_core::{RecordId, Timestamp};
    /// let start = Timestamp::from_millis(1_790_000_000_000);
    /// assert_eq!(RecordId::new(start, 7).as_str().as_bytes(), RecordId::letters(start, 7));
    /// ```
    pub fn letters(start: Timestamp, random: u64) -> [u8; 23] {
        let millis = u64::try_from(start.millis().max(0)).unwrap_or(0) & ((1 << 48) - 1);
        let random = random & ((1 << 52) - 1);
        // A hundred bits, as two halves of ten letters each.
        let halves = [(millis << 2) | (random >> 50), random & ((1 << 50) - 1)];
        let mut text = *b"mb_00000000000000000000";
        for (part, bits) in text[3..].chunks_exact_mut(10).zip(halves) {
            for (letter, place) in part.iter_mut().zip((0..10).rev()) {
                *letter = DIGITS[(bits >> (place * 5)) as usize & 31];
            }
        }
        text
    }

    /// Reads an id that a user typed; `None` if it has not the form of one.
    ///
    /// ```
    /// use moltbot_core::RecordId;
    /// let id = RecordId::parse(" mb_01m2m5pr000000000007 ").unwrap();
    /// assert_eq!(RecordId::parse(id.as_str()), Some(id));
    /// assert_eq!(RecordId::parse("mb_../../etc/passwd"), None);
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let digits = text.strip_prefix("mb_")?;
        let good = digits.len() == 20 && digits.bytes().all(|digit| DIGITS.contains(&digit));
        good.then(|| Self(text.to_string()))
    }

    /// Returns the text of the id, taken out of it.
    pub fn into_string(self) -> String {
        self.0
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
