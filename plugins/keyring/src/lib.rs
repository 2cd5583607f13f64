//! API keys in the operating system's keyring, for those who want none in a file.
//!
//! The key lies in the Secret Service (GNOME Keyring, KWallet, KeePassXC) or in the macOS Keychain,
//! under the service `moltbot`. The store keeps a link without the key, which is read each time it is
//! used. An entry that is there already is linked as it is.
//!
//! ```text
//! cargo xtask dist --plugins anthropic,api-key,keyring --name moltbot
//! moltbot onboard --anthropic-keyring-key -          # the key from standard input
//! moltbot onboard --auth-choice anthropic-keyring    # or typed, or what is there already
//! ```
//!
//! ```
//! use moltbot_core::{Cx, AuthMethod};
//! use moltbot_plugin_keyring::Keyring;
//! use moltbot_testkit::{ScriptedHost, block_on, call, fake, login, offer, sample_provider};
//!
//! let vendor = sample_provider();
//! let call = call(&vendor, &offer(&Keyring, &vendor, "acme-keyring"));
//! let host = ScriptedHost::new().answer("typed-key", fake("acme-"));
//! let link = login(&Keyring, &host, &call).unwrap().credential;
//! assert!(link.is_link());
//! let resolved = block_on(Keyring.resolve(&Cx::new(&host, &call), &link)).unwrap();
//! assert_eq!(resolved.credential.key.unwrap().expose(), fake("acme-"));
//! ```
//!
//! # Invariants
//!
//! - The profile holds no secret; nothing is cached, so a key changed in the keyring counts at once.
//! - Only entries of the service `moltbot` are touched, and none is deleted.
//! - Without a keyring the login fails with a sentence, and a stored profile is skipped with one.

use moltbot_core::*;

/// Keeps API keys in the operating system's keyring.
pub struct Keyring;

/// The service under which the entries lie, and the `source` of a link.
const SERVICE: &str = "moltbot";
const SOURCE: &str = "keyring";

/// The question for the entry's name, and the profile's member that keeps the answer.
const ACCOUNT: &str = "keyring-account";

#[async_trait]
impl AuthMethod for Keyring {
    fn id(&self) -> &str {
        "keyring"
    }

    fn offers(&self, provider: &ProviderInfo) -> Vec<Offer> {
        let Some(spec) = &provider.api_key else { return Vec::new() };
        let flag = |name: &str| Some(format!("{}-keyring-{name}", provider.id).into());
        // An empty default: asked for by flag only.
        let account = Field {
            id: ACCOUNT.into(),
            flag: flag("account"),
            default: Some("".into()),
            label: "Name of the keyring's entry".into(),
            ..Field::default()
        };
        let key = Field {
            id: "key".into(),
            flag: flag("key"),
            default: Some("".into()),
            label: format!("{} to put into the keyring", spec.label).into(),
            kind: FieldKind::Secret {},
            ..Field::default()
        };
        let typed = Field {
            id: "typed-key".into(),
            label: format!("Enter {}", spec.label).into(),
            kind: FieldKind::Secret {},
            ..Field::default()
        };
        vec![Offer {
            choice: format!("{}-keyring", provider.id).into(),
            label: format!("{} in the keyring of this machine", spec.label).into(),
            hint: "not in a file; billed per use".into(),
            profile: format!("{}:keyring", provider.id).into(),
            kind: CredentialKind::ApiKey,
            mode: "api_key".into(),
            accepts: vec![CredentialKind::ApiKey],
            fields: vec![account, key, typed],
            caps: AuthCaps { external: true, ..AuthCaps::default() },
            needs: Needs { keyring: vec![SERVICE.into()], ..Needs::default() },
            policy: spec.policy.clone(),
            payer: Payer::Metered,
            ..Offer::default()
        }]
    }

    async fn login(&self, cx: &Cx<'_>) -> Result<Login, AuthError> {
        let provider = cx.provider.id.to_string();
        let account = cx.ask(ACCOUNT, |text| Ok(text.trim().to_string())).await?;
        let account = if account.is_empty() { provider.clone() } else { account };
        let entry = KeyringEntry { service: SERVICE.into(), account: account.clone().into() };
        let given = cx
            .ask("key", |text| if text.trim().is_empty() { Ok(None) } else { key(text).map(Some) });
        let put = match given.await? {
            Some(key) => Some(key),
            None if cx.keyring(entry.clone(), None).await?.is_some() => None,
            None => Some(cx.ask("typed-key", key).await.map_err(|error| missing(cx, error))?),
        };
        let kept = cx.keyring(entry, put.clone()).await?;
        if put.is_some() && kept != put {
            let message = "The keyring took the key and does not give it back".to_string();
            return Err(AuthError::Other { message });
        }
        let mut link = Credential::link(CredentialKind::ApiKey, provider, SOURCE);
        link.rest.insert(ACCOUNT.into(), account.into());
        Ok(Login::new(link))
    }

    async fn resolve(&self, cx: &Cx<'_>, stored: &Credential) -> Result<Resolved, AuthError> {
        let account = stored.rest.get(ACCOUNT).and_then(|value| value.as_str());
        let account = account.unwrap_or(&stored.provider).to_string();
        let entry = KeyringEntry { service: SERVICE.into(), account: account.clone().into() };
        let (key, detail, state) = match cx.keyring(entry, None).await {
            Ok(Some(key)) => (Some(key), None, CredentialState::Ready),
            Ok(None) => {
                let detail = format!("the keyring has no entry {account} of {SERVICE}");
                (None, Some(detail), CredentialState::Absent)
            }
            Err(AuthError::Cancelled {}) => return Err(AuthError::Cancelled {}),
            Err(error) => (None, Some(error.to_string()), CredentialState::Unreadable),
        };
        let credential = Credential { key, ..stored.clone() };
        let generation = Generation::of(&credential);
        Ok(Resolved { credential, state, generation, detail })
    }
}

/// Says what is wrong with an answer, for the person who gave it.
fn key(answer: &str) -> Result<Secret, String> {
    match answer.trim() {
        "" => Err("Required".into()),
        key if !key.bytes().all(|byte| byte.is_ascii_graphic()) => Err("A key is one word".into()),
        key => Ok(Secret::new(key)),
    }
}

fn missing(cx: &Cx<'_>, error: AuthError) -> AuthError {
    match error {
        AuthError::NotInteractive { .. } => AuthError::NotFound {
            message: format!(
                "There is no entry of {SERVICE} in the keyring; pass --{}-keyring-key",
                cx.provider.id
            ),
        },
        error => error,
    }
}

moltbot_core::plugin! { auth: [Keyring] }
