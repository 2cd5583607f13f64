//! Key paths: where a value stands in the document, as typed by a user and as shown to one.

use std::fmt::{self, Write as _};

use serde_json::Value;

/// One step of a [`KeyPath`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// A member of an object.
    Key(String),
    /// An element of an array, counted from 0.
    Index(usize),
}

/// Names one place in the document: `agents.list[0].model`.
///
/// A dot, an opening bracket or a backslash inside a key is written with a backslash before it
/// (spec L-22); [`fmt::Display`] writes the same form, so that what is shown can be typed.
///
/// ```
/// use moltbot_config::KeyPath;
/// let path: KeyPath = r"agents.defaults.models.acme/large-2\.5.alias".parse().unwrap();
/// assert_eq!(path.steps().len(), 5);
/// assert_eq!(path.to_string(), r"agents.defaults.models.acme/large-2\.5.alias");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyPath(Vec<Step>);

/// Says why a text is not a key path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPathError {
    text: String,
    reason: &'static str,
}

impl KeyPath {
    /// Makes the empty path, which names the whole document.
    pub fn root() -> Self {
        Self::default()
    }

    /// Makes a path of object members, none of which needs escaping.
    ///
    /// ```
    /// # use moltbot_config::KeyPath;
    /// assert_eq!(KeyPath::keys(["auth", "order"]).to_string(), "auth.order");
    /// ```
    pub fn keys<I: IntoIterator<Item = S>, S: Into<String>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| Step::Key(key.into())).collect())
    }

    /// Returns the steps from the root.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Returns the path of a member of what this path names.
    #[must_use]
    pub fn key(&self, key: impl Into<String>) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.into()));
        Self(steps)
    }

    /// Returns the path of an element of what this path names.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
    }

    /// Finds the value in a plain JSON value.
    ///
    /// A key made of digits also names an element of an array (`agents.list.0`).
    pub fn find<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(value, |value, step| match (step, value) {
            (Step::Key(key), Value::Object(map)) => map.get(key),
            (Step::Key(key), Value::Array(list)) => list.get(key.parse::<usize>().ok()?),
            (Step::Index(index), Value::Array(list)) => list.get(*index),
            _ => None,
        })
    }
}

impl From<Vec<Step>> for KeyPath {
    fn from(steps: Vec<Step>) -> Self {
        Self(steps)
    }
}

impl std::str::FromStr for KeyPath {
    type Err = KeyPathError;

    fn from_str(text: &str) -> Result<Self, KeyPathError> {
        let fail = |reason| KeyPathError { text: text.to_string(), reason };
        if text.trim().is_empty() {
            return Err(fail("it is empty"));
        }
        let mut steps = Vec::new();
        let mut key = String::new();
        // After `]` a key may be missing; at the start and after `.` it must not.
        let mut key_needed = true;
        let mut chars = text.trim().chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => key.push(chars.next().ok_or_else(|| fail("it ends in a backslash"))?),
                '.' => {
                    if key.is_empty() && key_needed {
                        return Err(fail("there is nothing between two dots"));
                    }
                    push_key(&mut steps, &mut key);
                    key_needed = true;
                    continue;
                }
                '[' => {
                    push_key(&mut steps, &mut key);
                    let inside: String = chars.by_ref().take_while(|c| *c != ']').collect();
                    let quoted = inside
                        .strip_prefix('"')
                        .and_then(|rest| rest.strip_suffix('"'))
                        .or_else(|| inside.strip_prefix('\'')?.strip_suffix('\''));
                    match (quoted, inside.parse::<usize>()) {
                        (Some(quoted), _) => steps.push(Step::Key(quoted.to_string())),
                        (None, Ok(index)) => steps.push(Step::Index(index)),
                        (None, Err(_)) => return Err(fail("`[` needs a number and `]` after it")),
                    }
                }
                c => key.push(c),
            }
            key_needed = false;
        }
        if key_needed {
            return Err(fail("it ends in a dot"));
        }
        push_key(&mut steps, &mut key);
        Ok(Self(steps))
    }
}

fn push_key(steps: &mut Vec<Step>, key: &mut String) {
    if !key.is_empty() {
        steps.push(Step::Key(std::mem::take(key)));
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    if at > 0 {
                        f.write_char('.')?;
                    }
                    for c in key.chars() {
                        match c {
                            '.' | '[' | '\\' => write!(f, "\\{c}")?,
                            c if is_deceptive(c) => write!(f, "{}", c.escape_unicode())?,
                            c => f.write_char(c)?,
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Tells whether a character could change what a terminal shows around it.
pub(crate) fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

impl fmt::Display for KeyPathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a key path: {}", self.text.escape_debug(), self.reason)
    }
}

impl std::error::Error for KeyPathError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<Step> {
        text.parse::<KeyPath>().unwrap().0
    }

    #[test]
    fn dots_indices_and_escapes() {
        let key = |k: &str| Step::Key(k.to_string());
        assert_eq!(parsed("a.b"), [key("a"), key("b")]);
        assert_eq!(parsed("a[0].b"), [key("a"), Step::Index(0), key("b")]);
        assert_eq!(parsed("a[0][1]"), [key("a"), Step::Index(0), Step::Index(1)]);
        assert_eq!(parsed(r"a\.b\[c"), [key("a.b[c")]);
        assert_eq!(parsed(r#"a["x.y"].z"#), [key("a"), key("x.y"), key("z")]);
    }

    #[test]
    fn bad_paths_are_named() {
        for (text, reason) in [
            ("", "it is empty"),
            ("a..b", "there is nothing between two dots"),
            (".a", "there is nothing between two dots"),
            ("a.", "it ends in a dot"),
            ("a\\", "it ends in a backslash"),
            ("a[x]", "`[` needs a number and `]` after it"),
        ] {
            let error = text.parse::<KeyPath>().unwrap_err();
            assert_eq!(error.reason, reason, "{text}");
        }
    }

    #[test]
    fn digits_also_name_an_element() {
        let value = serde_json::json!({"list": [{"id": "a"}]});
        let path: KeyPath = "list.0.id".parse().unwrap();
        assert_eq!(path.find(&value), Some(&Value::from("a")));
        assert_eq!("list[1].id".parse::<KeyPath>().unwrap().find(&value), None);
    }

    proptest::proptest! {
        #[test]
        fn what_is_shown_can_be_typed(keys in proptest::collection::vec("[ -~äß]{1,8}", 1..5)) {
            // Outer white space of the whole text is trimmed, so keep keys from touching the ends.
            let keys: Vec<String> = keys.into_iter().map(|k| format!("k{k}k")).collect();
            let path = KeyPath::keys(keys);
            proptest::prop_assert_eq!(path.to_string().parse::<KeyPath>().unwrap(), path);
        }
    }
}
