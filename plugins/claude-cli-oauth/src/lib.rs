//! A live link to the Claude Code login on this machine: read when it is needed, never copied.
//!
//! Claude Code owns its login. The store keeps a link without any secret; [`ClaudeCliOauth`]
//! reads the owner's file (on macOS the Keychain first) each time it resolves it, and when the login
//! has expired lets the owner renew it, by running `claude` once, or says what else can be done.
//!
//! ```
//! use moltbot_core::{AuthMethod, ProviderInfo};
//! use moltbot_plugin_claude_cli_oauth::ClaudeCliOauth;
//!
//! let vendor = ProviderInfo { id: "anthropic".into(), ..ProviderInfo::default() };
//! let offer = &ClaudeCliOauth.offers(&vendor)[0];
//! assert_eq!((&*offer.choice, &*offer.profile), ("claude-cli", "anthropic:claude-cli"));
//! assert!(offer.caps.external);
//! ```
//!
//! # Invariants
//!
//! - The owner's refresh token leaves the parser in no form, and is wiped there.
//! - The owner's files are only read. Nothing is cached, so a login made a moment ago is seen.
//! - Deliberately absent: a request to a token endpoint, and the owner's client id.

mod doctor;
mod login_file;
mod offer;
mod owner;

use moltbot_core::*;

pub use login_file::{LoginFile, OwnerLogin};

use owner::Reading;

/// Reads the login that Claude Code owns (spec A-13 to A-18, decision 5).
pub struct ClaudeCliOauth;

#[async_trait]
impl AuthMethod for ClaudeCliOauth {
    fn id(&self) -> &str {
        "claude-cli-oauth"
    }

    fn offers(&self, provider: &ProviderInfo) -> Vec<Offer> {
        // The login is good at one service only, whoever else speaks its dialect.
        if provider.id == offer::PROVIDER { vec![offer::offer()] } else { Vec::new() }
    }

    fn settings(&self) -> Option<SettingsSpec> {
        Some(offer::settings())
    }

    async fn login(&self, cx: &Cx<'_>) -> Result<Login, AuthError> {
        let keychain = owner::may_ask_keychain(cx) && cx.confirm(offer::KEYCHAIN_FIELD).await?;
        let reading = owner::read(cx, keychain).await?;
        let login = match &reading.file {
            LoginFile::Login(login) => login,
            LoginFile::Torn { .. } | LoginFile::Foreign { .. } | LoginFile::Unreadable { .. } => {
                let message = format!("{}; run `claude` to log in again", reading.words(cx.now));
                return Err(AuthError::Other { message });
            }
            _ => return Err(AuthError::NotFound { message: reading.missing(cx) }),
        };
        if login.is_expired(cx.now) && !login.renewable {
            return Err(login_again(reading.words(cx.now)));
        }
        let mut notes: Vec<Note> =
            reading.remarks().map(|text| Note { level: Level::Warning, text }).collect();
        if login.is_expired(cx.now) {
            let text =
                format!("{}; the next use renews it: {}", reading.words(cx.now), offer::COST);
            notes.push(Note { level: Level::Info, text });
        }
        let link = Credential::link(login.kind(), cx.provider.id.clone(), offer::SOURCE);
        Ok(Login { notes, ..Login::new(link) })
    }

    async fn resolve(&self, cx: &Cx<'_>, stored: &Credential) -> Result<Resolved, AuthError> {
        let reading = owner::read(cx, owner::may_ask_keychain(cx)).await?;
        if is_copy(stored) && !reading.supersedes(stored) {
            let detail = format!(
                "an old copy of a Claude Code login, judged by itself because {}",
                reading.why_not_newer(cx.now)
            );
            return Ok(Resolved {
                detail: Some(detail),
                ..Resolved::judged(stored.clone(), cx.now)
            });
        }
        Ok(resolved(&reading, stored, cx.now))
    }

    fn renew(
        &self,
        settings: &RenewSettings,
        old: &Credential,
        now: Timestamp,
    ) -> Result<Renewal, AuthError> {
        let expired = old.is_expired(now);
        if !expired && !settings.force {
            return Ok(Renewal::NotDue {});
        }
        let may_run = settings.policy.as_deref() != Some(offer::OFF);
        match (may_run, &old.kind) {
            (true, CredentialKind::Oauth) => Ok(Renewal::Run {}),
            _ if !expired => Ok(Renewal::NotDue {}),
            (false, _) => Err(login_again(SWITCHED_OFF)),
            (true, _) => Err(login_again(NOT_RENEWABLE)),
        }
    }

    /// Returns the owner's login once it is fresh, for use and not for the store: what is stored
    /// stays a link.
    async fn refresh(&self, cx: &Cx<'_>, old: &Credential) -> Result<Credential, AuthError> {
        let before = owner::read(cx, owner::may_ask_keychain(cx)).await?;
        let now = cx.clock().await?;
        match &before.file {
            LoginFile::Login(login) if !login.is_expired(now) => {
                return Ok(resolved(&before, old, now).credential);
            }
            LoginFile::Login(login) if !login.renewable => return Err(login_again(NOT_RENEWABLE)),
            LoginFile::Login(_) if offer::policy_is_off(&cx.settings) => {
                return Err(login_again(SWITCHED_OFF));
            }
            LoginFile::Login(_) => {}
            LoginFile::Torn { .. } | LoginFile::Foreign { .. } | LoginFile::Unreadable { .. } => {
                return Err(AuthError::Transient { reason: before.words(now) });
            }
            _ => return Err(login_again(before.words(now))),
        }
        // Whatever the owner's program says, what counts is the login it leaves behind.
        let run = cx.run(offer::renewal_run()).await;
        if matches!(run, Err(AuthError::Cancelled {})) {
            return Err(AuthError::Cancelled {});
        }
        let after = owner::read(cx, owner::may_ask_keychain(cx)).await?;
        let now = cx.clock().await?;
        match &after.file {
            LoginFile::Login(login) if !login.is_expired(now) => {
                Ok(resolved(&after, old, now).credential)
            }
            LoginFile::Login(_) => Err(not_renewed(run, &after.words(now))),
            LoginFile::LoggedOut => Err(login_again(
                "Claude Code logged out when it tried to renew its login: its refresh token is not accepted any more",
            )),
            _ => Err(AuthError::Transient { reason: after.words(now) }),
        }
    }

    async fn doctor(&self, cx: &Cx<'_>, stored: &[Credential]) -> Result<Vec<Finding>, AuthError> {
        doctor::check(cx, stored).await
    }
}

const SWITCHED_OFF: &str =
    "the Claude Code login has expired and auth.claudeCli.refresh is \"off\"";

const NOT_RENEWABLE: &str = "the Claude Code login has expired and has no refresh token";

/// Tells whether a stored profile holds secrets of its own: a store of an older version.
fn is_copy(stored: &Credential) -> bool {
    !stored.is_link() && (stored.secret().is_some() || stored.refresh.is_some())
}

/// Shows what the owner has in the place of what is stored. Nothing else of the owner's file
/// comes along.
fn resolved(reading: &Reading, stored: &Credential, now: Timestamp) -> Resolved {
    let mut credential = Credential::link(stored.kind.clone(), &*stored.provider, offer::SOURCE);
    credential.email.clone_from(&stored.email);
    credential.method.clone_from(&stored.method);
    if let LoginFile::Login(login) = &reading.file {
        credential.kind = login.kind();
        credential.expires = Some(login.expires);
        let secret = Some(login.access.clone());
        if login.renewable { credential.access = secret } else { credential.token = secret }
    }
    let generation = Generation::of(&credential);
    let state = reading.state(now);
    let why_not = (state != CredentialState::Ready).then(|| reading.words(now));
    let detail: Vec<String> = why_not.into_iter().chain(reading.remarks()).collect();
    let detail = (!detail.is_empty()).then(|| detail.join("; "));
    Resolved { credential, state, generation, detail }
}

/// Says why a run left an expired login behind. The program's own output is not shown: nobody
/// knows what is in it.
fn not_renewed(run: Result<Ran, AuthError>, words: &str) -> AuthError {
    match run {
        Ok(Ran { exit: Some(0), .. }) => {
            login_again(format!("{words}, and `claude` ran without renewing it"))
        }
        Ok(Ran { exit: Some(code), .. }) => {
            login_again(format!("{words}, and `claude` failed to renew it (exit code {code})"))
        }
        Ok(Ran { exit: None, .. }) => AuthError::Transient {
            reason: format!("{words}, and `claude` was killed while renewing it"),
        },
        Err(AuthError::NotFound { .. }) => login_again(format!(
            "{words}, and `claude`, which could renew it, is not installed here"
        )),
        Err(AuthError::Transient { reason }) => AuthError::Transient {
            reason: format!("{words}, and `claude` did not renew it: {reason}"),
        },
        Err(error) => error,
    }
}

/// The three ways out of A-22.
fn login_again(reason: impl Into<String>) -> AuthError {
    AuthError::LoginAgain { reason: reason.into(), hint: offer::WAYS_OUT.into() }
}

moltbot_core::plugin! { auth: [ClaudeCliOauth] }
