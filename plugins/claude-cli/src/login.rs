//! The virtual profile: Claude Code's own login, of which nothing is stored.

use moltbot_core::{
    AuthError, AuthMethod, Credential, CredentialKind, CredentialState, Cx, FileRef, Finding,
    Level, Login, Needs, Note, Offer, Payer, Policy, ProviderInfo, Resolved, async_trait,
};

use crate::info::{ID, PROGRAM};
use crate::installed::{Account, Installed, QUIET};
use crate::version;

const INSTALL: &str = "install Claude Code (https://code.claude.com), then run `claude` and log in";
const LOG_IN: &str =
    "run `claude` and log in there, or `moltbot models auth setup-token --provider anthropic`";

/// The login that Claude Code owns, as an offer of this provider.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClaudeCliLogin;

#[async_trait]
impl AuthMethod for ClaudeCliLogin {
    fn id(&self) -> &str {
        ID
    }

    fn offers(&self, provider: &ProviderInfo) -> Vec<Offer> {
        if provider.id == ID { vec![offer()] } else { Vec::new() }
    }

    async fn login(&self, cx: &Cx<'_>) -> Result<Login, AuthError> {
        let found = Installed::look(cx).await?;
        if let Some(why) = version::too_old(&found.version) {
            return Err(AuthError::Other { message: format!("{why}; run `claude update`") });
        }
        let note = |level, text: String| Note { level, text };
        let mut notes =
            vec![note(Level::Info, format!("{}; its login stays with it", found.words()))];
        match &found.account {
            Account::LoggedOut => {
                notes.push(note(Level::Warning, format!("not logged in yet: {LOG_IN}")))
            }
            Account::Key(_) => notes.push(note(Level::Warning, KEY_PAYS.into())),
            Account::Plan(_) | Account::Unknown => {}
        }
        let login = Login::new(Credential::new(CredentialKind::None, cx.provider.id.clone()));
        Ok(Login { existing: true, model: Some(format!("{ID}/sonnet")), notes, ..login })
    }

    async fn resolve(&self, cx: &Cx<'_>, stored: &Credential) -> Result<Resolved, AuthError> {
        let judged = Resolved::judged(stored.clone(), cx.now);
        let (state, words) = match Installed::look(cx).await {
            Ok(found) => match version::too_old(&found.version) {
                Some(why) => (CredentialState::Unreadable, format!("{why}; run `claude update`")),
                None if found.account == Account::LoggedOut => {
                    (CredentialState::LoggedOut, format!("{}; {LOG_IN}", found.words()))
                }
                None => (CredentialState::Ready, found.words()),
            },
            Err(AuthError::NotFound { .. }) => {
                (CredentialState::Absent, format!("claude is not installed; {INSTALL}"))
            }
            Err(error) => return Err(error),
        };
        Ok(Resolved { state, detail: Some(words), ..judged })
    }

    async fn doctor(&self, cx: &Cx<'_>, stored: &[Credential]) -> Result<Vec<Finding>, AuthError> {
        let finding =
            |level, text: String, fix: &str| Finding { level, text, fix: Some(fix.into()) };
        // The host names the login only if a model of the config is answered with it.
        let used = !stored.is_empty();
        let found = match Installed::look(cx).await {
            Ok(found) => found,
            Err(AuthError::NotFound { .. }) if used => {
                let text = "the config wants models from claude, which is not installed".into();
                return Ok(vec![finding(Level::Error, text, INSTALL)]);
            }
            // Who has no such program does not use it.
            Err(AuthError::NotFound { .. }) => return Ok(Vec::new()),
            Err(AuthError::Cancelled {}) => return Err(AuthError::Cancelled {}),
            Err(error) => {
                let text = format!("claude cannot be asked for its version: {error}");
                return Ok(vec![finding(Level::Warning, text, "type `claude --version`")]);
            }
        };
        if let Some(why) = version::too_old(&found.version) {
            let level = if used { Level::Error } else { Level::Warning };
            return Ok(vec![finding(level, why, "run `claude update`")]);
        }
        Ok(match &found.account {
            Account::LoggedOut if used => {
                vec![finding(Level::Error, found.words(), LOG_IN)]
            }
            Account::LoggedOut => {
                vec![finding(Level::Info, found.words(), "run `claude` and log in there to use it")]
            }
            Account::Key(_) if used => {
                let fix = "run `claude`, then /logout and /login with your plan";
                vec![finding(Level::Warning, format!("{}: {KEY_PAYS}", found.words()), fix)]
            }
            _ => {
                let fix = "try it: `moltbot agent --model claude-cli/sonnet -m hi`";
                vec![finding(Level::Info, found.words(), fix)]
            }
        })
    }
}

/// Said of a program that was logged in with a key.
const KEY_PAYS: &str = "claude is logged in with an API key of its own, so requests are billed per use and not by a plan";

fn offer() -> Offer {
    Offer {
        choice: "claude-cli-backend".into(),
        label: "Claude subscription through your own claude program".into(),
        hint: "runs the installed Claude Code; its login stays with it".into(),
        profile: format!("{ID}:login").into(),
        kind: CredentialKind::None,
        mode: "none".into(),
        needs: Needs {
            files: vec![FileRef {
                dir: "~/.claude".into(),
                dir_env: Some("CLAUDE_CONFIG_DIR".into()),
                path: ".credentials.json".into(),
            }],
            programs: vec![PROGRAM.into()],
            secret_env: QUIET.map(Into::into).to_vec(),
            ..Needs::default()
        },
        policy: Some(Policy {
            line: "Anthropic's consumer terms keep Free, Pro and Max logins for Claude Code and native Anthropic apps; here Claude Code itself is run, and Anthropic may change what it allows".into(),
            source: "https://code.claude.com/docs/en/legal-and-compliance".into(),
            checked: "2026-08-22".into(),
        }),
        payer: Payer::Subscription,
        ..Offer::default()
    }
}
