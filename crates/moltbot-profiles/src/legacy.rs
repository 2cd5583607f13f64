//! Reads the files in which older versions kept credentials (spec A-8, A-9).

use std::path::PathBuf;

use indexmap::IndexMap;
use moltbot_core::CredentialKind;
use serde_json::value::RawValue;

use crate::document::Profiles;
use crate::ids::{normal, profile_id};
use crate::read::{self, ParseError};

/// Where older versions kept credentials; used only while there is no store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegacyFiles {
    /// The agent's `auth.json`: deleted once the store is written.
    pub auth: Option<PathBuf>,
    /// The shared `oauth.json`: never deleted.
    pub oauth: Option<PathBuf>,
}

impl Profiles {
    /// Reads the texts of older versions' files as the first write takes them over, and says what
    /// was skipped.
    ///
    /// # Errors
    /// A text that is not JSON, or no object.
    pub fn from_legacy(
        auth: Option<&str>,
        oauth: Option<&str>,
    ) -> Result<(Self, Vec<String>), ParseError> {
        let (mut profiles, mut notes) = (Self::default(), Vec::new());
        if let Some(text) = auth {
            import_auth(text, &mut profiles, &mut notes)?;
        }
        if let Some(text) = oauth {
            import_oauth(text, &mut profiles, &mut notes)?;
        }
        Ok((profiles, notes))
    }
}

/// Adds the entries of an `auth.json`, `<provider>: {type, ...}`, as `<provider>:default`.
/// Entries that cannot be understood are skipped and named in `notes`.
pub(crate) fn import_auth(
    text: &str,
    into: &mut Profiles,
    notes: &mut Vec<String>,
) -> Result<(), ParseError> {
    for (provider, raw) in read::pairs(text, text, "the file")? {
        add(&provider, raw, None, into, notes);
    }
    Ok(())
}

/// Adds the logins of an `oauth.json`, `<provider>: {access, refresh, expires}`, as
/// `<provider>:default` where that id is free.
pub(crate) fn import_oauth(
    text: &str,
    into: &mut Profiles,
    notes: &mut Vec<String>,
) -> Result<(), ParseError> {
    for (provider, raw) in read::pairs(text, text, "the file")? {
        if !into.contains(&profile_id(&normal(&provider), "default")) {
            add(&provider, raw, Some(CredentialKind::Oauth), into, notes);
        }
    }
    Ok(())
}

fn add(
    provider: &str,
    raw: &RawValue,
    kind: Option<CredentialKind>,
    into: &mut Profiles,
    notes: &mut Vec<String>,
) {
    let provider = normal(provider).into_owned();
    let id = profile_id(&provider, "default");
    match entry(raw.get(), &provider, kind) {
        Ok(credential) => {
            into.insert(id, credential);
        }
        Err(reason) => {
            let note = format!("{id} was not imported: {reason}");
            notes.push(moltbot_core::redact(&note).into_owned());
        }
    }
}

/// Reads one entry as a profile: the provider comes from its key, the type from the file.
fn entry(
    raw: &str,
    provider: &str,
    kind: Option<CredentialKind>,
) -> Result<moltbot_core::Credential, String> {
    let mut members: IndexMap<String, Box<RawValue>> =
        serde_json::from_str(raw).map_err(|_| "it is not a JSON object")?;
    let text = |value: &str| serde_json::value::to_raw_value(value).map_err(|e| e.to_string());
    members.insert("provider".into(), text(provider)?);
    if let Some(kind) = kind {
        members.insert("type".into(), text(kind.as_str())?);
    }
    let whole =
        zeroize::Zeroizing::new(serde_json::to_string(&members).map_err(|e| e.to_string())?);
    let credential = read::profile(&whole)?;
    if credential.secret().is_none() && credential.refresh.is_none() {
        return Err("it holds no secret".into());
    }
    Ok(credential)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_22_legacy_files_become_default_profiles() {
        let (mut profiles, mut notes) = (Profiles::default(), Vec::new());
        let auth = r#"{"Acme": {"type": "api_key", "key": "FAKE"}, "bad": {"type": 5}, "x": 7,
                       "empty": {"type": "api_key"}}"#;
        import_auth(auth, &mut profiles, &mut notes).unwrap();
        let oauth = r#"{"acme": {"access": "A", "refresh": "R", "expires": 5},
                        "other": {"access": "A", "refresh": "R", "expires": 5, "accountId": "n"}}"#;
        import_oauth(oauth, &mut profiles, &mut notes).unwrap();
        let ids: Vec<_> = profiles.iter().map(|(id, stored)| (id, stored.kind.as_str())).collect();
        assert_eq!(ids, [("acme:default", "api_key"), ("other:default", "oauth")]);
        let other = profiles.get("other:default").unwrap();
        assert_eq!((other.provider.as_str(), &other.rest["accountId"]), ("other", &"n".into()));
        assert_eq!(notes.len(), 3, "{notes:?}");
        assert!(import_auth("[]", &mut profiles, &mut notes).is_err());
    }
}
