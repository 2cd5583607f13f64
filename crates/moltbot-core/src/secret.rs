//! Text that must not leak, and the two ways to let it out on purpose.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// Holds a secret: wiped from memory when dropped, never shown by `Debug`, without `Display` and
/// without `Serialize`.
///
/// ```
/// let key = moltbot_core::Secret::new("sk-ant-api03-FAKE".to_string());
/// assert_eq!(format!("{key:?}"), "Secret(..)");
/// assert_eq!(key.expose(), "sk-ant-api03-FAKE");
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes ownership of `text`, which is wiped when the secret is dropped.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// Lends the text. Every use is a place to look at in a review; the name is made for `grep`.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Tells whether nothing but white space is held.
    pub fn is_blank(&self) -> bool {
        // From one end only: asked for every profile of a choice.
        self.0.chars().all(char::is_whitespace)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// Writes out a value together with its secrets; implemented by every type that holds one.
///
/// Such types have no `Serialize` of their own, so that a secret can only be written where
/// somebody typed [`Exposed`]: in the store and on the wire to a plugin.
pub trait Expose {
    /// Serializes the value, secrets included.
    fn expose_to<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
}

/// Lends a value to `serde` with its secrets in clear.
///
/// ```
/// use moltbot_core::{Exposed, Secret};
/// let key = Secret::new("FAKE");
/// assert_eq!(serde_json::to_string(&Exposed(&key)).unwrap(), "\"FAKE\"");
/// ```
pub struct Exposed<'a, T: ?Sized>(pub &'a T);

impl<T: Expose + ?Sized> Serialize for Exposed<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.expose_to(serializer)
    }
}

impl Expose for Secret {
    fn expose_to<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<T: Expose> Expose for Option<T> {
    fn expose_to<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Some(value) => serializer.serialize_some(&Exposed(value)),
            None => serializer.serialize_none(),
        }
    }
}

impl<T: Expose> Expose for Vec<T> {
    fn expose_to<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Exposed))
    }
}

/// Shows enough of a secret to recognise it: at most four characters at each end and never more
/// than half of it.
///
/// ```
/// # use moltbot_core::mask;
/// assert_eq!(mask("sk-ant-api03-FAKEFAKEFAKE"), "sk-a...FAKE");
/// assert_eq!(mask("12345678"), "12...78");
/// assert_eq!(mask("abc"), "...");
/// ```
pub fn mask(text: &str) -> String {
    let characters: Vec<char> = text.trim().chars().collect();
    let shown = (characters.len() / 4).min(4);
    let head: String = characters[..shown].iter().collect();
    let tail: String = characters[characters.len() - shown..].iter().collect();
    format!("{head}...{tail}")
}

/// Replaces everything in `text` that looks like a credential, and makes control and
/// direction-changing characters visible, so that text from outside can be printed.
///
/// Known shapes: `sk-…` keys, bearer values, and what follows `key`, `token`, `secret` or
/// `password` and `=` or `:` (spec A-27).
///
/// ```
/// # use moltbot_core::redact;
/// assert_eq!(redact("bad key sk-ant-api03-FAKEFAKE!"), "bad key sk-...!");
/// assert_eq!(redact("authorization: Bearer abc.def"), "authorization: Bearer ...");
/// assert_eq!(redact("token=12345 next"), "token=... next");
/// assert_eq!(redact("a\u{1b}[31mb"), "a\\u{1b}[31mb");
/// ```
pub fn redact(text: &str) -> Cow<'_, str> {
    if !may_need_redaction(text) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(replace(text, secret_at))
}

/// Replaces only what is a credential by its own shape, an `sk-…` key or a bearer value, wherever
/// it stands and whatever it is glued to.
///
/// For text that names settings, where `token: expected text` is a sentence and no assignment.
///
/// ```
/// # use moltbot_core::redact_shapes;
/// assert_eq!(redact_shapes("auth.token: expected text"), "auth.token: expected text");
/// assert_eq!(redact_shapes("auth.\"xsk-ant-api03-FAKEFAKE: unknown"), "auth.\"xsk-...: unknown");
/// ```
pub fn redact_shapes(text: &str) -> Cow<'_, str> {
    let lower = text.to_ascii_lowercase();
    if !text.chars().any(is_unprintable) && !lower.contains("sk-") && !lower.contains("bearer ") {
        return Cow::Borrowed(text);
    }
    Cow::Owned(replace(text, shape_at))
}

/// Copies `text` without what `find` finds: a function of the rest and of whether a word begins.
fn replace(text: &str, find: impl Fn(&str, bool) -> Option<(usize, usize)>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let at_word = !out.chars().next_back().is_some_and(|c| c.is_alphanumeric());
        if let Some((keep, skip)) = find(rest, at_word) {
            out.push_str(&rest[..keep]);
            out.push_str("...");
            rest = &rest[skip..];
            continue;
        }
        if is_unprintable(first) {
            out.extend(first.escape_unicode());
        } else {
            out.push(first);
        }
        rest = &rest[first.len_utf8()..];
    }
    out
}

/// The words after which, with `=` or `:`, a value is taken for a secret.
const SECRET_WORDS: [&str; 11] = [
    "access_token",
    "refresh_token",
    "client_secret",
    "api_key",
    "api-key",
    "apikey",
    "authorization",
    "password",
    "secret",
    "token",
    "key",
];

fn may_need_redaction(text: &str) -> bool {
    text.chars().any(is_unprintable) || {
        let lower = text.to_ascii_lowercase();
        lower.contains("sk-")
            || lower.contains("bearer")
            || SECRET_WORDS.iter().any(|word| lower.contains(word))
    }
}

/// Finds a credential at the start of `rest`: how many bytes to keep and how many to leave behind.
fn secret_at(rest: &str, at_word: bool) -> Option<(usize, usize)> {
    shape_at(rest, at_word).or_else(|| if at_word { assignment_at(rest) } else { None })
}

/// Finds what is a credential by its own shape. Letters may touch it: a mistake that puts a key
/// into a word, or loses the quote between them, must not show it.
fn shape_at(rest: &str, at_word: bool) -> Option<(usize, usize)> {
    if rest.starts_with("sk-") {
        let end = token_end(rest, 0);
        // A public prefix alone, `sk-…-`, is no secret; messages name it.
        let prefix_only = end <= 16 && rest[..end].ends_with('-');
        let long_enough = if at_word { end >= 8 } else { is_key_inside_a_word(&rest[..end]) };
        return (long_enough && !prefix_only).then_some((3, end));
    }
    if at_word && starts_with_ignore_case(rest, "bearer ") {
        let end = token_end(rest, 7);
        return (end > 7).then_some((7, end));
    }
    None
}

/// Tells a key from the end of an ordinary word, such as `task-list` or `disk-full`.
fn is_key_inside_a_word(token: &str) -> bool {
    let has = |what: fn(&char) -> bool| token.chars().any(|c| what(&c));
    token.starts_with("sk-ant-") && token.len() >= 8
        || token.len() >= 24 && has(char::is_ascii_digit) && has(char::is_ascii_uppercase)
}

/// Finds the value after a word such as `token` and `=` or `:`.
fn assignment_at(rest: &str) -> Option<(usize, usize)> {
    let word = SECRET_WORDS.iter().find(|word| starts_with_ignore_case(rest, word))?;
    let after = rest[word.len()..].trim_start_matches(['"', '\'', ' ']);
    let after = after.strip_prefix(['=', ':'])?;
    let value = after.trim_start_matches([' ', '"', '\'']);
    let start = rest.len() - value.len();
    if starts_with_ignore_case(value, "bearer ") {
        let end = token_end(rest, start + 7);
        return (end > start + 7).then_some((start + 7, end));
    }
    let end = token_end(rest, start);
    (end > start).then_some((start, end))
}

fn starts_with_ignore_case(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

fn token_end(text: &str, from: usize) -> usize {
    let tail = &text[from..];
    from + tail.find(|c: char| !is_token_char(c)).unwrap_or(tail.len())
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | '+' | '/')
}

fn is_unprintable(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_never_shows_more_than_half() {
        for length in 0..40 {
            let text = "x".repeat(length);
            let shown = mask(&text).chars().filter(|c| *c == 'x').count();
            assert!(shown * 2 <= length && shown <= 8, "{length}: {shown}");
        }
    }

    #[test]
    fn redaction_leaves_ordinary_text_alone() {
        for text in [
            "Expected token starting with sk-ant-oat01-",
            "",
            "hello",
            "1 key missing",
            "task-skill",
            "the token is bad",
            "a\nb\tc",
        ] {
            assert_eq!(redact(text), text);
        }
    }

    #[test]
    fn redaction_finds_json_and_header_shapes() {
        let json = redact(r#"{"refresh_token":"FAKE123","x":1}"#);
        assert_eq!(json, r#"{"refresh_token":"...","x":1}"#);
        assert_eq!(redact("x-api-key: abcdef"), "x-api-key: ...");
        assert_eq!(redact("pre-sk-ant-oat01-FAKE"), "pre-sk-...");
    }

    #[test]
    fn a_key_that_touches_other_text_is_found() {
        let key = "sk-ant-api03-Zq8Xw2Lm_N4pRt6Vy-Kd7Fh3Js5Gb";
        for text in [
            format!("\"{key}anthropic:x"),
            format!("anthr{key}opic"),
            format!("5{key}{key}"),
            format!("\\\"{key}\\\""),
            format!("\u{e9}{key}"),
            format!("auth\\.{key}"),
            format!("env.x{}", key.replace("ant-", "proj-")),
        ] {
            for shown in [redact(&text), redact_shapes(&text)] {
                assert!(!shown.contains("Zq8X") && !shown.contains("Js5Gb"), "{shown}");
            }
        }
        for text in ["a task-list of disk-full", "risk-free", "a full task-x", "token: 12, next"] {
            assert_eq!(redact_shapes(text), text);
        }
    }
}
