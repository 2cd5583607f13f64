//! Workload identity: Anthropic's exchange of an OIDC identity token for a short-lived bearer token.
//!
//! A CI job, a Kubernetes pod or a cloud machine proves who it is with a token that its platform
//! issues; no key is kept anywhere. The identity token comes from a file (read anew each time, as
//! platforms rotate it), from a command, or from `ANTHROPIC_IDENTITY_TOKEN`. What comes back lasts
//! up to a day and is exchanged anew before it ends.
//!
//! ```text
//! moltbot onboard --auth-choice workload-identity \
//!     --anthropic-federation-rule-id fdrl_… --anthropic-organization-id … \
//!     --anthropic-service-account-id svac_… \
//!     --anthropic-identity-token-file /var/run/secrets/anthropic/token
//! ```
//!
//! Each flag has the variable of the official SDKs: `ANTHROPIC_FEDERATION_RULE_ID`,
//! `ANTHROPIC_ORGANIZATION_ID`, `ANTHROPIC_SERVICE_ACCOUNT_ID`, `ANTHROPIC_WORKSPACE_ID` and
//! `ANTHROPIC_IDENTITY_TOKEN_FILE`.
//!
//! ```
//! use moltbot_core::{AuthMethod, ProviderInfo};
//! use moltbot_plugin_workload_identity::WorkloadIdentity;
//!
//! let vendor = ProviderInfo { id: "anthropic".into(), ..ProviderInfo::default() };
//! let offer = &WorkloadIdentity.offers(&vendor)[0];
//! assert_eq!((&*offer.choice, &*offer.profile), ("workload-identity", "anthropic:workload-identity"));
//! assert!(WorkloadIdentity.offers(&ProviderInfo::default()).is_empty());
//! ```
//!
//! # Invariants
//!
//! - The identity token is sent to the token endpoint and nowhere else, and never stored.
//! - A refused exchange never spends anything: the next attempt reads the identity token anew.
//! - Only the file, the command and the address that the user named are used.

mod exchange;
mod offer;

use moltbot_core::*;

/// Exchanges identity tokens (spec 09 F).
pub struct WorkloadIdentity;

/// How long before its end a token is exchanged anew if somebody looks, in milliseconds, as the
/// official SDKs do it.
const EARLY: i64 = 120_000;

#[async_trait]
impl AuthMethod for WorkloadIdentity {
    fn id(&self) -> &str {
        "workload-identity"
    }

    fn offers(&self, provider: &ProviderInfo) -> Vec<Offer> {
        // The exchange is this vendor's; a provider that merely speaks its dialect has none.
        if provider.id == offer::PROVIDER { vec![offer::offer(provider)] } else { Vec::new() }
    }

    async fn login(&self, cx: &Cx<'_>) -> Result<Login, AuthError> {
        let mut named = Credential::new(CredentialKind::Token, cx.provider.id.clone());
        for id in [offer::RULE, offer::ORGANIZATION, offer::ACCOUNT] {
            let word = cx.ask(id, |text| word(text).and_then(required)).await?;
            named.rest.insert(id.into(), word.into());
        }
        for id in [offer::WORKSPACE, offer::URL, offer::COMMAND, offer::FILE] {
            let text = cx.ask(id, |text| Ok(text.trim().to_string())).await?;
            let text = if id == offer::FILE && !text.is_empty() { place(&text)? } else { text };
            if !text.is_empty() {
                named.rest.insert(id.into(), text.into());
            }
        }
        let token = match exchange::identity(cx, &named).await? {
            Some(token) => token,
            None => {
                let path = cx.ask(offer::PATH, |text| required(text.trim().to_string()));
                let path = place(&path.await.map_err(no_source)?)?;
                named.rest.insert(offer::PATH.into(), path.into());
                exchange::identity(cx, &named).await?.ok_or_else(|| AuthError::NotFound {
                    message: "The file holds no identity token".into(),
                })?
            }
        };
        Ok(Login::new(exchange::exchange(cx, named, token).await?))
    }

    fn renew(
        &self,
        settings: &RenewSettings,
        old: &Credential,
        now: Timestamp,
    ) -> Result<Renewal, AuthError> {
        if !old.rest.contains_key(offer::RULE) {
            return Err(incomplete());
        }
        let due = settings.force || old.is_expired(now.plus(EARLY));
        Ok(if due { Renewal::Run {} } else { Renewal::NotDue {} })
    }

    async fn refresh(&self, cx: &Cx<'_>, old: &Credential) -> Result<Credential, AuthError> {
        if !old.rest.contains_key(offer::RULE) {
            return Err(incomplete());
        }
        let again = |reason: String| AuthError::Transient { reason };
        let token = match exchange::identity(cx, old).await {
            Ok(Some(token)) => token,
            Ok(None) => return Err(again("there is no identity token".into())),
            Err(AuthError::NotFound { message }) => return Err(again(message)),
            Err(error) => return Err(error),
        };
        match exchange::exchange(cx, old.clone(), token).await {
            Err(AuthError::Denied { reason }) => Err(again(reason)),
            done => done,
        }
    }
}

fn word(text: &str) -> Result<String, String> {
    match text.trim() {
        text if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(text.to_string()),
        _ => Err("An id is one word".into()),
    }
}

fn required(text: String) -> Result<String, String> {
    if text.is_empty() { Err("Required".into()) } else { Ok(text) }
}

/// A relative path would mean another file in every directory.
fn place(path: &str) -> Result<String, AuthError> {
    if path.starts_with('/') || path.starts_with("~/") {
        return Ok(path.to_string());
    }
    let reason = format!("{path} is no absolute path; begin it with / or ~/");
    Err(AuthError::Invalid { field: offer::FILE.into(), reason })
}

fn no_source(error: AuthError) -> AuthError {
    match error {
        AuthError::NotInteractive { .. } => AuthError::NotFound {
            message: "There is no identity token: pass --anthropic-identity-token-file or --anthropic-identity-token-command, or set ANTHROPIC_IDENTITY_TOKEN".into(),
        },
        error => error,
    }
}

fn incomplete() -> AuthError {
    AuthError::LoginAgain {
        reason: "the profile does not say for whom to exchange".into(),
        hint: "`moltbot onboard --auth-choice workload-identity` writes it anew".into(),
    }
}

moltbot_core::plugin! { auth: [WorkloadIdentity] }
