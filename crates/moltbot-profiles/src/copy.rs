//! Copies profiles from one agent to another, when a person said so (spec ).

use moltbot_core::CredentialKind;

use crate::Profiles;

/// What [`copy_profiles`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// The profiles copied.
    pub copied: Vec<String>,
    /// The profiles that were there already and stay as they are.
    pub kept: Vec<String>,
    /// The profiles asked for that the source does not have.
    pub missing: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Copies the named profiles, or all of them; never overwrites one, and copies no statistics.
///
/// A copied login means that two agents race for one refresh token; `warnings` says so. A link
/// may be copied: its owner renews it.
pub fn copy_profiles(from: &Profiles, to: &mut Profiles, ids: Option<&[String]>) -> Copied {
    let all: Vec<String> = from.iter().map(|(id, _)| id.to_string()).collect();
    let mut done = Copied::default();
    for id in ids.unwrap_or(&all) {
        let Some(credential) = from.get(id) else {
            done.missing.push(id.clone());
            continue;
        };
        if to.contains(id) || to.is_kept_only(id) {
            done.kept.push(id.clone());
            continue;
        }
        if credential.kind == CredentialKind::Oauth && !credential.is_link() {
            done.warnings.push(format!(
                "Profile \"{id}\" is a login: both agents will renew it with the same refresh \
                 token, and the second one to do so may have to log in again. Log in separately \
                 for each agent to avoid that."
            ));
        }
        to.insert(id.clone(), credential.clone());
        done.copied.push(id.clone());
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use moltbot_core::{Credential, Secret};

    #[test]
    fn copies_what_is_named_and_warns_of_logins() {
        let mut from = Profiles::default();
        let mut login = Credential::new(CredentialKind::Oauth, "acme");
        login.access = Some(Secret::new("FAKE"));
        from.insert("acme:key", Credential::api_key("acme", Secret::new("FAKE1")));
        from.insert("acme:login", login);
        from.insert("acme:link", Credential::link(CredentialKind::Oauth, "acme", "owner"));
        let mut to = Profiles::default();
        to.insert("acme:key", Credential::api_key("acme", Secret::new("FAKE2")));
        let done = copy_profiles(&from, &mut to, None);
        assert_eq!(done.copied, ["acme:login", "acme:link"]);
        assert_eq!(done.kept, ["acme:key"]);
        assert_eq!(to.get("acme:key").unwrap().secret().unwrap().expose(), "FAKE2");
        assert_eq!(done.warnings.len(), 1);
        assert!(done.warnings[0].contains("\"acme:login\""));
        let ids = ["acme:nothing".to_string()];
        assert_eq!(copy_profiles(&from, &mut to, Some(&ids)).missing, ids);
    }
}
