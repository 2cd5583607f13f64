//! Credentials as the lab sees them: kinds by prefix, what is accepted, fingerprints for the log.
//!
//! Prefixes are those of spec 09 F; the header rules are W-11 (an API key may come as a bearer
//! token) and 09 F (an `oat` token in `x-api-key` is refused).

use std::fmt::Write as _;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::errors::ApiError;

/// Which credentials the lab accepts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Keys {
    /// Any well-formed `sk-ant-api03-` or `sk-ant-oat01-` value.
    #[default]
    Any,
    /// These values only, and the tokens of logins the lab issued.
    Only(Vec<String>),
}

/// What the lab does when both credential headers come with different values.
///
/// Reports about the service disagree (spec 09 B). Two equal values are always accepted, as a
/// client with a key helper sends them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BothHeaders {
    /// Refuses the request with 401.
    #[default]
    Refuse,
    /// Uses `x-api-key` and ignores the other.
    KeyWins,
}

/// The kind of a credential, by its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyKind {
    /// `sk-ant-api03-`
    ApiKey,
    /// `sk-ant-oat01-`
    Oauth,
    /// `sk-ant-ort01-`
    Refresh,
    /// Anything else.
    Unknown,
}

impl KeyKind {
    /// Tells the kind of `credential`.
    pub fn of(credential: &str) -> Self {
        const PREFIXES: [(&str, KeyKind); 3] = [
            ("sk-ant-api03-", KeyKind::ApiKey),
            ("sk-ant-oat01-", KeyKind::Oauth),
            ("sk-ant-ort01-", KeyKind::Refresh),
        ];
        let found = PREFIXES.iter().find_map(|(prefix, kind)| {
            let rest = credential.strip_prefix(prefix)?;
            let good = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
            (rest.len() >= 4 && rest.bytes().all(good)).then_some(*kind)
        });
        found.unwrap_or(KeyKind::Unknown)
    }

    /// Returns the name used in the log.
    pub fn name(self) -> &'static str {
        match self {
            KeyKind::ApiKey => "api-key",
            KeyKind::Oauth => "oauth",
            KeyKind::Refresh => "refresh",
            KeyKind::Unknown => "unknown",
        }
    }
}

/// Returns `sha256:` and the first 12 hexadecimal digits of the credential's digest, the form in
/// which the log shows it.
pub fn fingerprint(credential: &str) -> String {
    let mut text = hex(&Sha256::digest(credential.as_bytes())[..6]);
    text.insert_str(0, "sha256:");
    text
}

/// Where a request's credential was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    XApiKey,
    Bearer,
}

/// Reads the credential of a request: the value and the header that carried it.
///
/// Says nothing about whether the value is accepted.
pub(crate) fn presented(
    headers: &HeaderMap,
    both: BothHeaders,
) -> Result<(&str, Carrier), ApiError> {
    let key = headers.get("x-api-key").map(|v| v.to_str().unwrap_or("").trim());
    let bearer = headers.get(AUTHORIZATION).map(|v| bearer_of(v.to_str().unwrap_or("")));
    match (key, bearer) {
        (Some(key), Some(Some(bearer))) if key == bearer => Ok((key, Carrier::XApiKey)),
        (Some(key), Some(_)) if both == BothHeaders::KeyWins => Ok((key, Carrier::XApiKey)),
        (Some(_), Some(_)) => Err(ApiError::new(
            401,
            "authentication_error",
            "x-api-key and authorization headers carry different credentials",
        )),
        (Some(key), None) => Ok((key, Carrier::XApiKey)),
        (None, Some(Some(bearer))) => Ok((bearer, Carrier::Bearer)),
        (None, Some(None)) => Err(ApiError::named("invalid-bearer")),
        (None, None) => {
            Err(ApiError::new(401, "authentication_error", "x-api-key header is required"))
        }
    }
}

/// Checks a presented value against `keys`, without regard to logins the lab issued.
pub(crate) fn check(value: &str, carrier: Carrier, keys: &Keys) -> Result<KeyKind, ApiError> {
    let kind = KeyKind::of(value);
    let listed = match keys {
        Keys::Any => true,
        Keys::Only(values) => values.iter().any(|known| known == value),
    };
    match (carrier, kind) {
        (_, KeyKind::ApiKey) | (Carrier::Bearer, KeyKind::Oauth) if listed => Ok(kind),
        (Carrier::XApiKey, _) => Err(ApiError::named("invalid-key")),
        (Carrier::Bearer, _) => Err(ApiError::named("invalid-bearer")),
    }
}

/// Returns whether a rule's `key` names this credential: the whole text, or its end.
pub(crate) fn labelled(credential: &str, label: &str) -> bool {
    !label.is_empty() && credential.ends_with(label)
}

/// Returns an identifier shaped like a UUID, always the same for one seed.
pub(crate) fn uuid_from(seed: &str) -> String {
    let digest = hex(&Sha256::digest(seed.as_bytes())[..16]);
    format!(
        "{}-{}-4{}-8{}-{}",
        &digest[..8],
        &digest[8..12],
        &digest[13..16],
        &digest[17..20],
        &digest[20..32]
    )
}

/// Formats bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn bearer_of(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-ant-api03-FAKE-one";
    const OAT: &str = "sk-ant-oat01-FAKE-two";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect()
    }

    fn judge(pairs: &[(&'static str, &str)]) -> Result<KeyKind, String> {
        let headers = headers(pairs);
        presented(&headers, BothHeaders::Refuse)
            .and_then(|(value, carrier)| check(value, carrier, &Keys::Any))
            .map_err(|error| error.message)
    }

    #[test]
    fn a_key_is_accepted_in_either_header_and_a_token_only_as_bearer() {
        let bearer = |value: &str| format!("Bearer {value}");
        assert_eq!(judge(&[("x-api-key", KEY)]), Ok(KeyKind::ApiKey));
        assert_eq!(judge(&[("authorization", &bearer(KEY))]), Ok(KeyKind::ApiKey));
        assert_eq!(judge(&[("authorization", &bearer(OAT))]), Ok(KeyKind::Oauth));
        assert_eq!(judge(&[("x-api-key", OAT)]), Err("invalid x-api-key".into()));
        assert_eq!(judge(&[("authorization", "Bearer nope")]), Err("Invalid bearer token".into()));
        assert_eq!(judge(&[("authorization", "Basic abc")]), Err("Invalid bearer token".into()));
        assert_eq!(judge(&[("x-api-key", "sk-ant-api03-")]), Err("invalid x-api-key".into()));
        assert_eq!(judge(&[]), Err("x-api-key header is required".into()));
    }

    #[test]
    fn two_headers_must_agree_unless_the_key_wins() {
        let same = [("x-api-key", KEY), ("authorization", "Bearer sk-ant-api03-FAKE-one")];
        assert_eq!(judge(&same), Ok(KeyKind::ApiKey));
        let differ = [("x-api-key", KEY), ("authorization", "Bearer sk-ant-oat01-FAKE-two")];
        assert!(judge(&differ).unwrap_err().contains("different credentials"));
        let map = headers(&differ);
        let (value, carrier) = presented(&map, BothHeaders::KeyWins).unwrap();
        assert_eq!((value, carrier), (KEY, Carrier::XApiKey));
    }

    #[test]
    fn a_list_of_keys_refuses_all_others() {
        let keys = Keys::Only(vec![KEY.to_owned()]);
        assert!(check(KEY, Carrier::Bearer, &keys).is_ok());
        assert!(check("sk-ant-api03-FAKE-other", Carrier::XApiKey, &keys).is_err());
    }

    #[test]
    fn fingerprints_and_organizations_are_stable_and_hide_the_value() {
        assert_eq!(fingerprint(KEY), fingerprint(KEY));
        assert_eq!(fingerprint(KEY).len(), "sha256:".len() + 12);
        assert_ne!(fingerprint(KEY), fingerprint(OAT));
        assert_eq!(uuid_from("x").len(), 36);
        assert!(labelled(KEY, "one") && labelled(KEY, KEY) && !labelled(KEY, ""));
    }
}
