//! Claude setup-tokens: run `claude setup-token` or paste what it printed.
//!
//! Two offers of one method: `token` takes a token from flags, prompt or standard input;
//! `setup-token` first runs the command on the terminal. Both write `anthropic:manual`.
//!
//! ```
//! use moltbot_core::{AuthMethod, ProviderInfo};
//! use moltbot_plugin_setup_token::SetupToken;
//!
//! let vendor = ProviderInfo { id: "anthropic".into(), ..ProviderInfo::default() };
//! let choices: Vec<_> = SetupToken.offers(&vendor).into_iter().map(|offer| offer.choice).collect();
//! assert_eq!(choices, ["token", "setup-token"]);
//! assert!(SetupToken.offers(&ProviderInfo::default()).is_empty());
//! ```
//!
//! # Invariants
//!
//! - Writes a token only after the whole of spec L-2 held for it.
//! - Writes the profile `<provider>:…` only; which profiles exist is the host's business.
//! - Deliberately absent: renewal. A setup-token has no refresh token; a new one is pasted.

mod input;
mod offer;

use moltbot_core::*;

pub use input::{duration_ms, profile_id, setup_token};

use input::Pasted;

/// Takes a setup-token (spec L-2, L-13, L-15, L-30, L-31).
pub struct SetupToken;

#[async_trait]
impl AuthMethod for SetupToken {
    fn id(&self) -> &str {
        "setup-token"
    }

    fn offers(&self, provider: &ProviderInfo) -> Vec<Offer> {
        // Only this vendor issues such tokens; a provider that merely speaks its dialect does not.
        if provider.id == offer::PROVIDER { offer::all() } else { Vec::new() }
    }

    async fn login(&self, cx: &Cx<'_>) -> Result<Login, AuthError> {
        match (cx.verb.as_deref(), &*cx.choice) {
            (Some("setup-token"), _) if !cx.interactive => {
                Err(needs_a_person("setup-token requires an interactive TTY."))
            }
            (Some("setup-token"), _) => run_then_paste(cx).await,
            (Some(_), _) => pasted(cx, "expires-in").await,
            (None, "token") if cx.interactive => pasted(cx, "token-expires-in").await,
            (None, "token") => from_flags(cx).await,
            (None, _) if !cx.interactive => Err(needs_a_person(format!(
                "Auth choice \"setup-token\" requires interactive mode.\nUse \"--auth-choice token\" with --token and --token-provider {}.",
                cx.provider.id
            ))),
            (None, _) => run_then_paste(cx).await,
        }
    }
}

/// `onboard --auth-choice token` without a person: every answer comes from a flag (spec L-13).
async fn from_flags(cx: &Cx<'_>) -> Result<Login, AuthError> {
    let provider = &*cx.provider.id;
    let missing = |flag: &str| format!("Missing --{flag} for --auth-choice token.");
    let named = |text: &str| match text.trim().to_ascii_lowercase() {
        blank if blank.is_empty() => Err(missing("token-provider")),
        named if named == provider => Ok(()),
        _ => Err(format!("Only --token-provider {provider} is supported for --auth-choice token.")),
    };
    cx.ask("token-provider", named).await.map_err(|e| not_found(e, missing("token-provider")))?;
    let token = |text: &str| match text.trim() {
        "" => Err(missing("token")),
        text => setup_token(text),
    };
    let token = cx.ask("token", token).await.map_err(|e| not_found(e, missing("token")))?;
    finished(cx, token, "token-expires-in").await
}

/// A paste by a person or from standard input.
async fn pasted(cx: &Cx<'_>, expiry: &str) -> Result<Login, AuthError> {
    let nobody = || {
        format!(
            "No token given; paste it in a terminal, or pipe it into `moltbot models auth paste-token --provider {}`",
            cx.provider.id
        )
    };
    let token = match cx.ask("token", Pasted::read).await.map_err(|e| not_found(e, nobody()))? {
        Pasted::Token(token) => token,
        Pasted::ApiKey(key) => return as_api_key(cx, key).await,
    };
    finished(cx, token, expiry).await
}

/// Runs the command that prints a token, unless the user already has one, and takes the paste:
/// the command keeps its token nowhere (spec L-15).
async fn run_then_paste(cx: &Cx<'_>) -> Result<Login, AuthError> {
    if cx.confirm("run").await? {
        let run = Run {
            program: offer::PROGRAM.into(),
            args: vec!["setup-token".into()],
            env: Vec::new(),
            input: None,
            terminal: true,
            timeout_ms: None,
        };
        let trouble = match cx.run(run).await {
            Ok(Ran { exit: Some(0), .. }) => None,
            Ok(Ran { exit: Some(code), .. }) => Some(format!("it ended with code {code}")),
            Ok(Ran { exit: None, .. }) => Some("it was killed".into()),
            Err(AuthError::NotFound { .. }) => Some("it is not installed here".into()),
            Err(error) => return Err(error),
        };
        if let Some(trouble) = trouble {
            let text = format!(
                "`claude setup-token` gave no token: {trouble}; run it elsewhere and paste the token, or press Ctrl-C"
            );
            cx.tell(Level::Warning, text).await?;
        }
    }
    pasted(cx, "expires-in").await
}

/// An API key where a token was expected: stored as what it is, if a person agrees (spec L-31).
async fn as_api_key(cx: &Cx<'_>, key: Secret) -> Result<Login, AuthError> {
    let provider = &cx.provider.id;
    let flag = cx.provider.api_key.as_ref().map_or("", |spec| &spec.flag);
    let refused = || AuthError::Invalid {
        field: "token".into(),
        reason: format!(
            "This is an API key, not a setup-token; store it with `moltbot onboard --{flag}`"
        ),
    };
    if !cx.interactive || !cx.confirm("as-api-key").await? {
        return Err(refused());
    }
    let credential = Credential::api_key(provider.clone(), key);
    Ok(Login { profile: Some(format!("{provider}:default")), ..Login::new(credential) })
}

/// Asks for the rest and puts the credential together.
async fn finished(cx: &Cx<'_>, token: Secret, expiry: &str) -> Result<Login, AuthError> {
    let provider = &*cx.provider.id;
    let name = |text: &str| match text.trim() {
        "" => Ok(None),
        text => profile_id(provider, text).map(Some),
    };
    let profile = match declared(cx, &["profile-id", "token-profile-id"]) {
        Some(field) => cx.ask(&field, name).await?,
        None => None,
    };
    let lifetime = |text: &str| match text.trim() {
        "" => Ok(None),
        text => duration_ms(text).map(Some).map_err(|error| format!("Invalid --{expiry}: {error}")),
    };
    let lifetime = match declared(cx, &[expiry]) {
        Some(field) => cx.ask(&field, lifetime).await?,
        None => None,
    };
    let expires = lifetime.map(|ms| cx.now.plus(ms));
    Ok(Login { profile, ..Login::new(Credential::token(provider, token, expires)) })
}

/// Finds the first of these fields that this call may ask.
fn declared(cx: &Cx<'_>, ids: &[&str]) -> Option<String> {
    ids.iter().find(|id| cx.fields.iter().any(|field| field.id == **id)).map(ToString::to_string)
}

/// Words an unanswered question so that it names the command at hand.
fn not_found(error: AuthError, message: String) -> AuthError {
    match error {
        AuthError::NotInteractive { .. } => AuthError::NotFound { message },
        error => error,
    }
}

/// There is nothing to log in with as long as nobody can talk to the command.
fn needs_a_person(message: impl Into<String>) -> AuthError {
    AuthError::NotFound { message: message.into() }
}

moltbot_core::plugin! { auth: [SetupToken] }
