//! What a profile holds, in the shape of the store.

use std::fmt;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{Expose, Exposed, Secret, Timestamp};

/// Says what sort of credential this is: the `type` of the store, and with [`mode`](Self::as_str)
/// the word the config uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CredentialKind {
    /// A key that is billed per use and does not expire.
    ApiKey,
    /// A login: an access token with an expiry, usually with a refresh token.
    Oauth,
    /// A bearer token without a refresh token.
    Token,
    /// Nothing: the owner of the login is asked by the program that the provider runs.
    None,
    /// A kind of a newer version; kept as text and never used.
    Other(String),
}

impl CredentialKind {
    /// Returns the word used in the store and in the config.
    pub fn as_str(&self) -> &str {
        match self {
            Self::ApiKey => "api_key",
            Self::Oauth => "oauth",
            Self::Token => "token",
            Self::None => "none",
            Self::Other(text) => text,
        }
    }
}

impl From<&str> for CredentialKind {
    fn from(text: &str) -> Self {
        match text {
            "api_key" => Self::ApiKey,
            "oauth" => Self::Oauth,
            "token" => Self::Token,
            "none" => Self::None,
            other => Self::Other(other.to_string()),
        }
    }
}

impl fmt::Display for CredentialKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for CredentialKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for CredentialKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::from(text.as_str()))
    }
}

/// A credential as stored: the fields known here, and all others untouched (spec A-1, A-2).
///
/// It has no `Serialize`; see [`Exposed`].
#[derive(Clone, PartialEq, Deserialize)]
pub struct Credential {
    /// The `type` of the store.
    #[serde(rename = "type")]
    pub kind: CredentialKind,
    /// The provider this credential belongs to, e.g. `acme`.
    pub provider: String,
    /// The key of an [`ApiKey`](CredentialKind::ApiKey).
    #[serde(default)]
    pub key: Option<Secret>,
    /// The token of a [`Token`](CredentialKind::Token).
    #[serde(default)]
    pub token: Option<Secret>,
    /// The access token of an [`Oauth`](CredentialKind::Oauth) login.
    #[serde(default)]
    pub access: Option<Secret>,
    /// The refresh token of an [`Oauth`](CredentialKind::Oauth) login; single use with most
    /// services.
    #[serde(default)]
    pub refresh: Option<Secret>,
    /// When it stops working. Absent or not above zero: never, for tokens; unknown, for logins.
    #[serde(default)]
    pub expires: Option<Timestamp>,
    /// The account's e-mail address, for labels.
    #[serde(default)]
    pub email: Option<String>,
    /// The plugin that wrote the profile and will resolve and renew it.
    #[serde(default)]
    pub method: Option<String>,
    /// Set on a *link*: who owns the login that is read live.
    #[serde(default)]
    pub source: Option<String>,
    /// Members unknown to this version, written back as they came. They may hold secrets.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Credential {
    /// Makes a credential without any field.
    pub fn new(kind: CredentialKind, provider: impl Into<String>) -> Self {
        Self {
            kind,
            provider: provider.into(),
            key: None,
            token: None,
            access: None,
            refresh: None,
            expires: None,
            email: None,
            method: None,
            source: None,
            rest: Map::new(),
        }
    }

    /// Makes an API key.
    pub fn api_key(provider: impl Into<String>, key: Secret) -> Self {
        Self { key: Some(key), ..Self::new(CredentialKind::ApiKey, provider) }
    }

    /// Makes a token; without `expires` it never expires.
    pub fn token(provider: impl Into<String>, token: Secret, expires: Option<Timestamp>) -> Self {
        Self { token: Some(token), expires, ..Self::new(CredentialKind::Token, provider) }
    }

    /// Makes a link to a login that `source` owns: no secret inside, read live by the method.
    pub fn link(
        kind: CredentialKind,
        provider: impl Into<String>,
        source: impl Into<String>,
    ) -> Self {
        Self { source: Some(source.into()), ..Self::new(kind, provider) }
    }

    /// Returns the field that is sent: key, token or access token; `None` if absent or blank.
    pub fn secret(&self) -> Option<&Secret> {
        let field = match self.kind {
            CredentialKind::ApiKey => &self.key,
            CredentialKind::Token => &self.token,
            CredentialKind::Oauth => &self.access,
            CredentialKind::None | CredentialKind::Other(_) => &None,
        };
        field.as_ref().filter(|secret| !secret.is_blank())
    }

    /// Returns a secret by the name of its field: `key`, `token`, `access` or `refresh`.
    pub fn secret_field(&self, name: &str) -> Option<&Secret> {
        match name {
            "key" => self.key.as_ref(),
            "token" => self.token.as_ref(),
            "access" => self.access.as_ref(),
            "refresh" => self.refresh.as_ref(),
            _ => None,
        }
    }

    /// Returns the expiry if one is set (spec A-2: zero and below mean none).
    pub fn expiry(&self) -> Option<Timestamp> {
        self.expires.filter(|at| at.millis() > 0)
    }

    /// Tells whether an expiry is set and reached.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expiry().is_some_and(|at| now >= at)
    }

    /// Tells whether this profile only points at a login that somebody else owns.
    pub fn is_link(&self) -> bool {
        self.source.is_some() && self.secret().is_none()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("kind", &self.kind)
            .field("provider", &self.provider)
            .field("expires", &self.expires)
            .field("method", &self.method)
            .field("source", &self.source)
            .field("rest", &self.rest.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Expose for Credential {
    fn expose_to<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &self.kind)?;
        map.serialize_entry("provider", &self.provider)?;
        for (name, secret) in [
            ("key", &self.key),
            ("token", &self.token),
            ("access", &self.access),
            ("refresh", &self.refresh),
        ] {
            if let Some(secret) = secret {
                map.serialize_entry(name, &Exposed(secret))?;
            }
        }
        if let Some(expires) = self.expires {
            map.serialize_entry("expires", &expires)?;
        }
        for (name, text) in
            [("email", &self.email), ("method", &self.method), ("source", &self.source)]
        {
            if let Some(text) = text {
                map.serialize_entry(name, text)?;
            }
        }
        for (name, value) in &self.rest {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Counts the commits of one store file; changes with every write (decision 18).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Revision(pub u64);

/// Identifies the secrets of one login: equal as long as none of them changes, whatever else the
/// store records (decision 18). The journal of renewals and the pool of processes use it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Generation(String);

impl Generation {
    /// Computes the generation: 16 hex digits of a hash over the secret fields.
    pub fn of(credential: &Credential) -> Self {
        let mut hash = Sha256::new();
        for name in ["key", "token", "access", "refresh"] {
            hash.update(name);
            hash.update([0]);
            if let Some(secret) = credential.secret_field(name) {
                hash.update(secret.expose());
            }
            hash.update([0xff]);
        }
        let digest = hash.finalize();
        Self(digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }

    /// Returns the 16 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_members_survive_and_debug_is_silent() {
        let text = r#"{"type":"token","provider":"anthropic","token":"FAKE","expires":5,"x":{"idToken":"DEEP"}}"#;
        let credential: Credential = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&Exposed(&credential)).unwrap(), text);
        let debug = format!("{credential:?}");
        assert!(!debug.contains("FAKE") && !debug.contains("DEEP"), "{debug}");
    }

    #[test]
    fn unknown_kinds_are_kept_as_text() {
        let text = r#"{"type":"passkey","provider":"acme"}"#;
        let credential: Credential = serde_json::from_str(text).unwrap();
        assert_eq!(credential.kind, CredentialKind::Other("passkey".into()));
        assert_eq!(serde_json::to_string(&Exposed(&credential)).unwrap(), text);
        assert!(credential.secret().is_none());
    }

    #[test]
    fn a_generation_changes_with_the_secret_only() {
        let mut credential = Credential::api_key("p", Secret::new("FAKE"));
        let first = Generation::of(&credential);
        credential.email = Some("a@example.com".into());
        assert_eq!(Generation::of(&credential), first);
        credential.key = Some(Secret::new("FAKE2"));
        assert_ne!(Generation::of(&credential), first);
    }

    #[test]
    fn zero_never_expires() {
        let now = Timestamp::from_millis(10);
        let token = |at| Credential::token("p", Secret::new("FAKE"), at);
        assert!(!token(None).is_expired(now));
        assert!(!token(Some(Timestamp::from_millis(0))).is_expired(now));
        assert!(token(Some(Timestamp::from_millis(10))).is_expired(now));
        assert!(!token(Some(Timestamp::from_millis(11))).is_expired(now));
    }
}
