//! Credentials that are no profiles: variables and keys of the config (spec S-4). Pure.

use moltbot_config::{CredentialUse, Env};
use moltbot_core::{Credential, CredentialKind, Payer, Registry, Secret};

use crate::setup::ProviderSetup;

/// Where a credential comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A profile of the agent's store.
    Profile,
    /// An environment variable.
    Env,
    /// `models.providers.<id>.apiKey`.
    Config,
}

/// A credential and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// What sort of place.
    pub kind: SourceKind,
    /// The place for people: `profile:<id>`, `env: NAME`, `shell env: NAME`, `models.json`.
    pub label: String,
    /// The profile, if it is one.
    pub profile: Option<String>,
    /// Who pays.
    pub payer: Payer,
    /// The credential.
    pub credential: Credential,
}

impl Source {
    /// Returns the word of spec S-4 for how it authenticates: `api-key`, `oauth`, `token`.
    pub fn mode(&self) -> &'static str {
        mode_word(&self.credential.kind)
    }
}

/// Returns the word of spec S-4 for a kind of credential.
pub(crate) fn mode_word(kind: &CredentialKind) -> &'static str {
    match kind {
        CredentialKind::ApiKey => "api-key",
        CredentialKind::Oauth => "oauth",
        CredentialKind::Token => "token",
        CredentialKind::None => "none",
        CredentialKind::Other(_) => "unknown",
    }
}

/// Lists the credentials of a provider that are no profiles, in the order they are tried: its
/// variables, then the config's key. The second value says what could not be used and why.
pub fn other_sources(
    setup: &ProviderSetup,
    env: &Env,
    registry: &Registry,
) -> (Vec<Source>, Vec<String>) {
    let mut sources = Vec::new();
    let mut problems = Vec::new();
    for key in &setup.info.env {
        if let Some((value, from)) = env.get(&key.name) {
            let credential = credential(&setup.id, &key.kind, value);
            let label = from.label(&key.name);
            sources.push(source(SourceKind::Env, label, credential, registry));
        }
    }
    let config = setup.config.as_ref();
    if let Some(key) = config.and_then(|config| config.api_key.as_ref())
        && !key.is_blank()
    {
        let text = key.expose().trim();
        if text.starts_with('!') {
            problems.push(format!(
                "models.providers.{}.apiKey is a command; commands in the config are not run",
                setup.id
            ));
        } else {
            let kind = match config.and_then(|config| config.auth) {
                Some(CredentialUse::Oauth | CredentialUse::Token) => CredentialKind::Token,
                _ => CredentialKind::ApiKey,
            };
            let value = env.get(text).map_or(text, |(value, _)| value);
            let credential = credential(&setup.id, &kind, value);
            let label = "models.json".to_string();
            sources.push(source(SourceKind::Config, label, credential, registry));
        }
    }
    (sources, problems)
}

/// Says who pays for a credential: what its offer says, else what an offer of the same kind says.
pub fn payer(registry: &Registry, profile: Option<&str>, credential: &Credential) -> Payer {
    let offers =
        || registry.offers().iter().filter(|entry| entry.provider.id == credential.provider);
    let by_profile = offers().find(|entry| Some(entry.offer.profile.as_ref()) == profile);
    // Of a bearer token that belongs to no profile, nobody can know that it is billed per use.
    let assumed =
        |payer: Payer| credential.kind == CredentialKind::ApiKey || payer == Payer::Subscription;
    let by_kind = || offers().find(|e| e.offer.kind == credential.kind && assumed(e.offer.payer));
    match by_profile.or_else(by_kind) {
        Some(entry) => entry.offer.payer,
        None if credential.kind == CredentialKind::ApiKey => Payer::Metered,
        None => Payer::Unknown,
    }
}

fn source(kind: SourceKind, label: String, credential: Credential, registry: &Registry) -> Source {
    let payer = payer(registry, None, &credential);
    Source { kind, label, profile: None, payer, credential }
}

fn credential(provider: &str, kind: &CredentialKind, value: &str) -> Credential {
    let secret = Secret::new(value.trim());
    match kind {
        CredentialKind::Token => Credential::token(provider, secret, None),
        CredentialKind::Oauth => {
            Credential { access: Some(secret), ..Credential::new(CredentialKind::Oauth, provider) }
        }
        _ => Credential::api_key(provider, secret),
    }
}
