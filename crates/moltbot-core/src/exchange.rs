//! What a provider wants sent, and the host's checks before it is.

use serde::{Deserialize, Serialize};

use crate::{Credential, Found, ProviderError, Secret, Text};

/// One exchange with a service: a request, or a program to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
#[non_exhaustive]
pub enum Exchange {
    /// An HTTP request made from the chat's own headers and body.
    Http {
        /// `POST`, `GET`.
        method: Text,
        /// Absolute; the host checks its origin.
        url: String,
        /// Headers to set, replacing those of the same name.
        set: Vec<(Text, Slot)>,
        /// Headers of the chat to leave out.
        drop: Vec<Text>,
        /// Changes to the body: ascending, disjoint.
        splices: Vec<Splice>,
        /// A new body instead; only for `BodyNeed::Whole`, never for a forwarded chat.
        replace: Option<String>,
        /// What was changed of a forwarded request, for the client to read.
        changed: Vec<Text>,
    },
    /// A program that answers on its standard output.
    Run {
        /// Looked up on the user's `PATH`.
        program: Text,
        /// Arguments; never a secret.
        args: Vec<Text>,
        /// Variables to add to an allow-listed environment.
        env: Vec<(Text, Slot)>,
        /// What a fresh process is sent.
        input: String,
        /// How a warm process is found and what it is sent instead.
        reuse: Option<Reuse>,
        /// What ends a turn without ending the process.
        cancel_input: Option<String>,
        /// After how many idle milliseconds a pooled process is ended.
        idle_ms: u64,
    },
    /// An exchange of a newer version; the host refuses it.
    #[serde(other)]
    Unknown,
}

/// How a warm process is found. The host adds profile and generation to the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reuse {
    /// Conversations with different keys never share a process.
    pub key: String,
    /// What a warm process is sent.
    pub input: String,
    /// How a conversation goes on in a fresh process, if the program can keep it on the disk.
    #[serde(default)]
    pub resume: Option<Resume>,
}

/// How a program keeps a conversation itself, so that another process of it can go on. In
/// arguments `{new}` stands for the id of the session that begins, `{old}` for the one gone on
/// with; the host makes ids (version 4 UUIDs) and remembers which belongs to which conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Arguments that come first when a conversation begins.
    pub begin: Vec<Text>,
    /// Arguments that come first when one goes on.
    pub go_on: Vec<Text>,
    /// What a process that goes on is sent.
    pub input: String,
    /// The word in `error` of the last event that says there is no such session any more.
    pub gone: Text,
}

/// A header or environment value; secrets are filled in by the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
#[non_exhaustive]
pub enum Slot {
    /// As it is.
    Literal {
        /// The value.
        text: Text,
    },
    /// A field of the credential.
    Secret {
        /// What stands before it: `Bearer `.
        before: Text,
        /// Which one: `key`, `token`, `access`; never `refresh`, which only its token endpoint sees.
        field: Text,
    },
    /// A value of a newer version; cannot be filled in.
    #[serde(other)]
    Unknown,
}

impl Slot {
    /// Makes a value without a secret.
    pub fn literal(text: impl Into<Text>) -> Self {
        Self::Literal { text: text.into() }
    }

    /// Makes a value that is a field of the credential.
    pub fn secret(before: impl Into<Text>, field: impl Into<Text>) -> Self {
        Self::Secret { before: before.into(), field: field.into() }
    }

    /// Fills in the secret. A missing or blank field is an error, never an empty header.
    pub fn fill(&self, credential: &Credential) -> Result<Secret, ProviderError> {
        match self {
            Self::Literal { text } => Ok(Secret::new(text.as_ref())),
            Self::Secret { before, field } => {
                let sendable = matches!(field.as_ref(), "key" | "token" | "access");
                let secret = credential.secret_field(field).filter(|it| sendable && !it.is_blank());
                let Some(secret) = secret else {
                    let message = format!("the credential has no {field}");
                    return Err(ProviderError::Credential { message });
                };
                Ok(Secret::new(format!("{before}{}", secret.expose().trim())))
            }
            Self::Unknown => {
                let message = "a header is of a kind this version does not know".to_string();
                Err(ProviderError::Plugin { message })
            }
        }
    }
}

/// A range of bytes of the body, `start` included, `end` not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl Span {
    /// Makes a span.
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }
}

/// Replaces one span of the body; an empty span inserts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Splice {
    /// What to replace.
    pub span: Span,
    /// With what.
    pub text: String,
}

/// Applies `splices` to `body`. Refuses any that are not ascending and disjoint, or that touch
/// bytes the provider had not read.
///
/// ```
/// use moltbot_core::{splice, Found, Span, Splice};
/// let body = r#"{"model":"old"}"#;
/// let found = [Found { path: "/model".into(), span: Span::new(9, 14), value: "\"old\"".into() }];
/// let change = Splice { span: Span::new(9, 14), text: "\"new\"".into() };
/// assert_eq!(splice(body.as_bytes(), &[change], &found).unwrap(), br#"{"model":"new"}"#);
/// ```
pub fn splice(
    body: &[u8],
    splices: &[Splice],
    found: &[Found<'_>],
) -> Result<Vec<u8>, ProviderError> {
    let grown: usize = splices.iter().map(|splice| splice.text.len()).sum();
    let mut out = Vec::with_capacity(body.len() + grown);
    let mut done = 0;
    for Splice { span, text } in splices {
        let readable =
            found.iter().any(|found| found.span.start <= span.start && span.end <= found.span.end);
        if span.start < done || span.end < span.start || span.end > body.len() || !readable {
            let message = format!("a change of bytes {}..{} is not allowed", span.start, span.end);
            return Err(ProviderError::Plugin { message });
        }
        out.extend_from_slice(&body[done..span.start]);
        out.extend_from_slice(text.as_bytes());
        done = span.end;
    }
    out.extend_from_slice(&body[done..]);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(start: usize, end: usize) -> Found<'static> {
        Found { path: "/x".into(), span: Span::new(start, end), value: "".into() }
    }

    fn change(start: usize, end: usize, text: &str) -> Splice {
        Splice { span: Span::new(start, end), text: text.into() }
    }

    #[test]
    fn an_empty_span_inserts() {
        let out = splice(b"abc", &[change(1, 1, "-"), change(2, 3, "")], &[found(0, 3)]).unwrap();
        assert_eq!(out, b"a-b");
    }

    #[test]
    fn what_was_not_read_cannot_be_changed() {
        for splices in [
            vec![change(0, 1, "x")],
            vec![change(3, 2, "x")],
            vec![change(2, 9, "x")],
            vec![change(2, 3, "x"), change(1, 2, "y")],
            vec![change(1, 3, "x"), change(2, 3, "y")],
        ] {
            assert!(splice(b"abcd", &splices, &[found(1, 4)]).is_err(), "{splices:?}");
        }
    }

    #[test]
    fn a_refresh_token_is_never_sent_and_a_newer_value_never_guessed() {
        let mut credential = Credential::new(crate::CredentialKind::Oauth, "p");
        credential.refresh = Some(Secret::new("FAKE"));
        assert!(Slot::secret("", "refresh").fill(&credential).is_err());
        let newer: Slot = serde_json::from_str(r#"{"type":"signed","with":"key"}"#).unwrap();
        assert!(matches!(newer.fill(&credential), Err(ProviderError::Plugin { .. })));
    }

    #[test]
    fn a_missing_secret_is_an_error() {
        let slot = Slot::secret("Bearer ", "token");
        let mut credential = Credential::api_key("p", Secret::new("FAKE"));
        assert!(slot.fill(&credential).is_err());
        credential.token = Some(Secret::new(" "));
        assert!(slot.fill(&credential).is_err());
        credential.token = Some(Secret::new("FAKE\n"));
        assert_eq!(slot.fill(&credential).unwrap().expose(), "Bearer FAKE");
    }
}
