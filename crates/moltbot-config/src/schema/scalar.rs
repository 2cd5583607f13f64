//! Scalars with a rule: a value of these types has passed it.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::{Shape, Shaped, TextRule};

/// Text with at least one character.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NonEmpty(String);

/// A URL that no one on the way can read: `https://`, or `http://` to this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecureUrl(String);

/// A SHA-256 sum: 64 hexadecimal digits, kept in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sha256(String);

/// A number above 0.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Positive(f64);

/// A value that is kept and not looked at. `Debug` does not show it: it may hold anything.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Unchecked(Value);

impl TextRule {
    /// Returns what is wrong with `text`, without repeating it.
    pub(crate) fn complaint(self, text: &str) -> Option<&'static str> {
        let fine = match self {
            Self::Free => true,
            Self::NonEmpty => !text.trim().is_empty(),
            Self::SecureUrl => is_secure_url(text),
            Self::Sha256 => text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        };
        let complaint = match self {
            Self::Free => "expected text",
            Self::NonEmpty => "expected text that is not empty",
            Self::SecureUrl => "expected an https:// URL (http:// only to this machine)",
            Self::Sha256 => "expected a SHA-256 sum: 64 hexadecimal digits",
        };
        (!fine).then_some(complaint)
    }
}

fn is_secure_url(text: &str) -> bool {
    let host_of = |rest: &str| -> Option<String> {
        let authority = rest.split(['/', '?', '#']).next()?;
        // A user name could make another host look like this machine.
        if authority.is_empty() || authority.contains(['@', '\\', ' ']) {
            return None;
        }
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next()?,
            None => authority.split(':').next()?,
        };
        (!host.is_empty()).then(|| host.to_ascii_lowercase())
    };
    if let Some(rest) = text.strip_prefix("https://") {
        return host_of(rest).is_some();
    }
    text.strip_prefix("http://").and_then(host_of).is_some_and(|host| {
        host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

macro_rules! text_scalar {
    ($name:ident, $rule:expr, |$text:ident| $normal:expr) => {
        impl $name {
            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let $text = String::deserialize(deserializer)?;
                match $rule.complaint(&$text) {
                    Some(complaint) => Err(de::Error::custom(complaint)),
                    None => Ok(Self($normal)),
                }
            }
        }

        impl Shaped for $name {
            const SHAPE: Shape = Shape::Text($rule);
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_scalar!(NonEmpty, TextRule::NonEmpty, |text| text);
text_scalar!(SecureUrl, TextRule::SecureUrl, |text| text);
text_scalar!(Sha256, TextRule::Sha256, |text| text.to_ascii_lowercase());

impl Positive {
    /// Returns the number.
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Positive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match f64::deserialize(deserializer)? {
            number if number > 0.0 => Ok(Self(number)),
            _ => Err(de::Error::custom("expected a number above 0")),
        }
    }
}

impl Shaped for Positive {
    const SHAPE: Shape = Shape::Number { above: 0.0, inclusive: false };
}

/// A number that is not negative.
impl Shaped for f64 {
    const SHAPE: Shape = Shape::Number { above: 0.0, inclusive: true };
}

impl Unchecked {
    /// Returns the value as it stands, `${NAME}` replaced where the variable is set.
    pub fn value(&self) -> &Value {
        &self.0
    }
}

impl fmt::Debug for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unchecked(..)")
    }
}

impl<'de> Deserialize<'de> for Unchecked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self)
    }
}

impl Shaped for Unchecked {
    const SHAPE: Shape = Shape::Any;
    const REQUIRED: bool = false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_may_be_spoken_to_in_clear() {
        for url in [
            "https://a.example/x",
            "http://127.0.0.1:8080/t",
            "http://localhost",
            "http://[::1]:1/",
        ] {
            assert!(is_secure_url(url), "{url}");
        }
        for url in [
            "http://a.example",
            "http://localhost@a.example/",
            "http://localhost.a.example",
            "http://127.0.0.1.a.example",
            "https://",
            "ftp://localhost",
            "localhost",
            "",
        ] {
            assert!(!is_secure_url(url), "{url}");
        }
    }
}
