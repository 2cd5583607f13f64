//! What stands in Claude Code's credential file. Pure; every shape seen in the wild has a name.

use moltbot_core::{CredentialKind, Secret, Timestamp};
use serde_json::{Map, Value};

/// What was found where Claude Code keeps its login (spec A-13, W-7, W-10).
#[derive(Clone, Debug, PartialEq)]
pub enum LoginFile {
    /// A login, fresh or expired.
    Login(OwnerLogin),
    /// Emptied tokens or `expiresAt: 0`: the owner logged out, or its refresh token was refused.
    LoggedOut,
    /// JSON without any login in it: `{}`, or only other programs' members.
    Stub,
    /// Nothing there.
    Absent,
    /// No JSON, or cut off.
    Torn {
        /// Where reading stopped, from 1.
        line: usize,
        /// In which column, from 1.
        column: usize,
    },
    /// JSON of another shape.
    Foreign {
        /// What is wrong with which member.
        what: String,
    },
    /// There, but the system does not let it be read.
    Unreadable {
        /// The system's words.
        reason: String,
    },
}

/// A login of Claude Code, without its refresh token.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnerLogin {
    /// The access token.
    pub access: Secret,
    /// When it ends.
    pub expires: Timestamp,
    /// Whether the owner has a refresh token to renew it with.
    pub renewable: bool,
}

impl OwnerLogin {
    /// Returns the kind that the login counts as: without a refresh token it is a token.
    pub fn kind(&self) -> CredentialKind {
        if self.renewable { CredentialKind::Oauth } else { CredentialKind::Token }
    }

    /// Tells whether the login has ended.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.expires
    }
}

impl LoginFile {
    /// Reads the text of the file or of the Keychain item.
    ///
    /// ```
    /// use moltbot_plugin_claude_cli_oauth::LoginFile;
    ///
    /// assert_eq!(LoginFile::parse("{}"), LoginFile::Stub);
    /// assert_eq!(LoginFile::parse("{\"claude"), LoginFile::Torn { line: 1, column: 8 });
    /// ```
    pub fn parse(text: &str) -> Self {
        // The parser's own message may quote the text, so only the position is kept.
        let root: Value = match serde_json::from_str(text) {
            Ok(root) => root,
            Err(error) => return Self::Torn { line: error.line(), column: error.column() },
        };
        let Value::Object(mut root) = root else {
            wipe(root);
            return Self::foreign("it is JSON, but no object");
        };
        let login = root.remove("claudeAiOauth");
        wipe(Value::Object(root));
        match login {
            None | Some(Value::Null) => Self::Stub,
            Some(Value::Object(login)) if login.is_empty() => Self::Stub,
            Some(Value::Object(mut login)) => {
                let found = Self::from_members(&mut login);
                wipe(Value::Object(login));
                found.unwrap_or_else(|what| Self::Foreign { what })
            }
            Some(other) => {
                wipe(other);
                Self::foreign("claudeAiOauth is no object")
            }
        }
    }

    fn from_members(login: &mut Map<String, Value>) -> Result<Self, String> {
        let access = text(login, "accessToken")?.ok_or("claudeAiOauth.accessToken is missing")?;
        let refresh = text(login, "refreshToken")?;
        let expires = match login.remove("expiresAt") {
            Some(Value::Number(number)) => serde_json::from_value(Value::Number(number))
                .map_err(|_| "claudeAiOauth.expiresAt is no time")?,
            Some(other) => {
                wipe(other);
                return Err("claudeAiOauth.expiresAt is no number".into());
            }
            None => return Err("claudeAiOauth.expiresAt is missing".into()),
        };
        if access.is_blank() || expires <= Timestamp::from_millis(0) {
            return Ok(Self::LoggedOut);
        }
        // No header could carry it.
        if !access.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("claudeAiOauth.accessToken is no token".into());
        }
        let renewable = refresh.is_some_and(|refresh| !refresh.is_blank());
        Ok(Self::Login(OwnerLogin { access, expires, renewable }))
    }

    fn foreign(what: &str) -> Self {
        Self::Foreign { what: what.into() }
    }
}

/// Takes a text out of the login, straight into a [`Secret`]. `null` counts as absent.
fn text(login: &mut Map<String, Value>, name: &str) -> Result<Option<Secret>, String> {
    match login.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(Secret::new(text))),
        Some(other) => {
            wipe(other);
            Err(format!("claudeAiOauth.{name} is no text"))
        }
    }
}

/// Wipes every text in a value from memory: other members hold secrets of other programs.
fn wipe(value: Value) {
    match value {
        Value::String(text) => drop(Secret::new(text)),
        Value::Array(items) => items.into_iter().for_each(wipe),
        Value::Object(members) => members.into_iter().for_each(|(_, value)| wipe(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
