//! Secrets that were removed or replaced, kept for some days so that it can be undone.

use moltbot_core::{Credential, Expose, Exposed, Generation, Secret, Timestamp};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

/// How long removed secrets are kept: 7 days (decision "Refresh").
pub const KEEP_REMOVED_MS: i64 = 7 * 24 * 3_600_000;

/// A credential that was removed or replaced.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Removed {
    /// When.
    pub at: Timestamp,
    /// Which profile it was.
    pub profile: String,
    /// What it was.
    pub credential: Credential,
}

impl Removed {
    /// Tells whether its days are over. One from the future was written under a wrong clock, and
    /// is kept until that future has passed.
    pub fn is_over(&self, now: Timestamp) -> bool {
        now.since(self.at) > KEEP_REMOVED_MS
    }

    /// Returns which login it was.
    pub fn generation(&self) -> Generation {
        Generation::of(&self.credential)
    }
}

impl Expose for Removed {
    fn expose_to<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("at", &self.at)?;
        map.serialize_entry("profile", &self.profile)?;
        map.serialize_entry("credential", &Exposed(&self.credential))?;
        map.end()
    }
}

#[derive(Deserialize)]
struct Document {
    removed: Vec<Removed>,
}

struct DocumentRef<'a>(&'a Vec<Removed>);

impl Serialize for DocumentRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("version", &1)?;
        map.serialize_entry("removed", &Exposed(self.0))?;
        map.end()
    }
}

/// Reads the file's text; the error is a place and says nothing of the content.
pub(crate) fn parse(text: &str) -> Result<Vec<Removed>, (usize, usize)> {
    serde_json::from_str::<Document>(text)
        .map(|document| document.removed)
        .map_err(|error| (error.line(), error.column()))
}

/// Returns the file's text.
pub(crate) fn to_json(removed: &Vec<Removed>) -> Secret {
    let mut text = serde_json::to_string_pretty(&DocumentRef(removed))
        .expect("keys are texts, and a String takes every character");
    text.push('\n');
    Secret::new(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_and_ends() {
        let at = Timestamp::from_millis(1_790_000_000_000);
        let credential = Credential::api_key("acme", Secret::new("FAKE"));
        let removed = vec![Removed { at, profile: "acme:a".into(), credential }];
        let text = to_json(&removed);
        assert_eq!(parse(text.expose()).unwrap(), removed);
        assert!(!removed[0].is_over(at.plus(KEEP_REMOVED_MS)));
        assert!(removed[0].is_over(at.plus(KEEP_REMOVED_MS + 1)));
        assert!(!format!("{removed:?}").contains("FAKE"));
        assert_eq!(parse("{\"removed\": [\n5]}").unwrap_err().0, 2);
    }
}
