//! A live link to the profiles of Anthropic's own SDKs and their `ant` command.
//!
//! Those programs keep profiles under `~/.config/anthropic` (or `$ANTHROPIC_CONFIG_DIR`): the name of
//! the one in use in `active_config`, its settings in `configs/NAME.json`, its token in
//! `credentials/NAME.json` (spec 09 F). [`SdkProfile`] reads them each time and writes nothing; who
//! made the login renews it.
//!
//! ```text
//! moltbot onboard --auth-choice sdk-profile                         # follows the active profile
//! moltbot onboard --auth-choice sdk-profile --anthropic-sdk-profile work
//! ```
//!
//! ```
//! use moltbot_core::{AuthMethod, Cx, ProviderInfo};
//! use moltbot_plugin_sdk_profile::SdkProfile;
//! use moltbot_testkit::{ScriptedHost, block_on, call, login, offer};
//!
//! let vendor = ProviderInfo { id: "anthropic".into(), ..ProviderInfo::default() };
//! let call = call(&vendor, &offer(&SdkProfile, &vendor, "sdk-profile"));
//! let host = ScriptedHost::new()
//!     .file("~/.config/anthropic/active_config", "work\n")
//!     .file("~/.config/anthropic/credentials/work.json", r#"{"access_token": "FAKE"}"#);
//! let link = login(&SdkProfile, &host, &call).unwrap().credential;
//! assert!(link.is_link());
//! let resolved = block_on(SdkProfile.resolve(&Cx::new(&host, &call), &link)).unwrap();
//! assert_eq!(resolved.credential.access.unwrap().expose(), "FAKE");
//! ```
//!
//! # Invariants
//!
//! - The owner's files are only read, and nothing of them is cached.
//! - A refresh token never leaves the parser.
//! - A profile that belongs to another service than the provider's is not used.

mod files;

use moltbot_core::*;

use files::Reading;

/// Reads the profiles of the official SDKs.
pub struct SdkProfile;

/// The provider whose SDKs these are.
const PROVIDER: &str = "anthropic";

/// The `source` of a link.
const SOURCE: &str = "sdk-profile";

/// The question for the profile's name, and the member that keeps the answer.
const NAME: &str = "sdk-profile";

#[async_trait]
impl AuthMethod for SdkProfile {
    fn id(&self) -> &str {
        "sdk-profile"
    }

    fn offers(&self, provider: &ProviderInfo) -> Vec<Offer> {
        if provider.id != PROVIDER {
            return Vec::new();
        }
        // An empty default: asked for by flag or variable only.
        let name = Field {
            id: NAME.into(),
            flag: Some("anthropic-sdk-profile".into()),
            env: Some("ANTHROPIC_PROFILE".into()),
            default: Some("".into()),
            label: "Profile of the Anthropic SDKs".into(),
            ..Field::default()
        };
        vec![Offer {
            choice: "sdk-profile".into(),
            label: "Profile of Anthropic's SDKs and `ant`".into(),
            hint: "read live, never copied".into(),
            profile: format!("{PROVIDER}:sdk-profile").into(),
            kind: CredentialKind::Oauth,
            mode: "oauth".into(),
            accepts: vec![CredentialKind::Oauth, CredentialKind::Token],
            fields: vec![name],
            caps: AuthCaps { external: true, ..AuthCaps::default() },
            needs: Needs { files: files::all().into(), ..Needs::default() },
            policy: Some(Policy {
                line: "As the profile's own login: of an organization billed per use, of a plan limited to native Anthropic apps".into(),
                source: "https://code.claude.com/docs/en/legal-and-compliance".into(),
                checked: "2026-08-22".into(),
            }),
            ..Offer::default()
        }]
    }

    async fn login(&self, cx: &Cx<'_>) -> Result<Login, AuthError> {
        let name = |text: &str| match text.trim() {
            "" => Ok(None),
            name if files::is_name(name) => Ok(Some(name.to_string())),
            _ => Err("A profile's name has letters, digits, dots, dashes and underscores".into()),
        };
        let name = cx.ask(NAME, name).await?;
        let reading = files::read(cx, name.as_deref()).await?;
        match reading.state(cx.now) {
            CredentialState::Absent => {
                return Err(AuthError::NotFound { message: reading.words(cx.now) });
            }
            CredentialState::Unreadable => {
                return Err(AuthError::Other { message: reading.words(cx.now) });
            }
            _ => {}
        }
        let mut link = Credential::link(CredentialKind::Oauth, cx.provider.id.clone(), SOURCE);
        if let Some(name) = name {
            link.rest.insert(NAME.into(), name.into());
        }
        let note = |text| Note { level: Level::Warning, text };
        let expired = reading.state(cx.now) == CredentialState::Expired;
        let words = expired.then(|| reading.words(cx.now));
        let notes = words.into_iter().chain(reading.remarks()).map(note).collect();
        Ok(Login { notes, ..Login::new(link) })
    }

    async fn resolve(&self, cx: &Cx<'_>, stored: &Credential) -> Result<Resolved, AuthError> {
        let reading = files::read(cx, name_of(stored)).await?;
        let mut credential = Credential::link(stored.kind.clone(), &*stored.provider, SOURCE);
        credential.method.clone_from(&stored.method);
        credential.rest.clone_from(&stored.rest);
        if let Reading::Login { access, expires, .. } = &reading {
            let secret = Some(access.clone());
            match stored.kind {
                CredentialKind::Token => credential.token = secret,
                _ => credential.access = secret,
            }
            credential.expires = *expires;
        }
        let generation = Generation::of(&credential);
        let state = reading.state(cx.now);
        let why = (state != CredentialState::Ready).then(|| reading.words(cx.now));
        let detail: Vec<String> = why.into_iter().chain(reading.remarks()).collect();
        let detail = (!detail.is_empty()).then(|| detail.join("; "));
        Ok(Resolved { credential, state, generation, detail })
    }

    /// Its owner renews it; what can be done is said.
    fn renew(
        &self,
        _: &RenewSettings,
        old: &Credential,
        now: Timestamp,
    ) -> Result<Renewal, AuthError> {
        if !old.is_expired(now) {
            return Ok(Renewal::NotDue {});
        }
        Err(AuthError::LoginAgain {
            reason: "the login of the Anthropic SDKs has expired".into(),
            hint: "run `ant`, or any program that uses that profile: it renews its own login"
                .into(),
        })
    }

    async fn doctor(&self, cx: &Cx<'_>, stored: &[Credential]) -> Result<Vec<Finding>, AuthError> {
        let mut findings = Vec::new();
        for link in stored {
            let reading = files::read(cx, name_of(link)).await?;
            let why =
                (reading.state(cx.now) != CredentialState::Ready).then(|| reading.words(cx.now));
            let finding = |text| Finding { level: Level::Warning, text, fix: None };
            findings.extend(why.into_iter().chain(reading.remarks()).map(finding));
        }
        Ok(findings)
    }
}

fn name_of(stored: &Credential) -> Option<&str> {
    let name = stored.rest.get(NAME).and_then(|value| value.as_str());
    name.filter(|name| files::is_name(name))
}

moltbot_core::plugin! { auth: [SdkProfile] }
