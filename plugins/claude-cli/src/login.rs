//! The virtual profile: Claude Code's own login, of which nothing is stored.

use moltbot_core::{
    AuthError, AuthMethod, Credential, CredentialKind, Cx, FileRef, Finding, Level, Login, Needs,
    Note, Offer, Payer, Policy, ProviderInfo, Run, async_trait,
};

use crate::info::{ID, PROGRAM};
use crate::version;

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
        let version = installed(cx).await?;
        if let Some(why) = version::too_old(&version) {
            return Err(AuthError::Other { message: format!("{why}; run `claude update`") });
        }
        let login = Login::new(Credential::new(CredentialKind::None, cx.provider.id.clone()));
        let text = "Claude Code keeps its login; if it has none yet, run `claude` and log in there";
        Ok(Login {
            existing: true,
            model: Some(format!("{ID}/sonnet")),
            notes: vec![Note { level: Level::Info, text: text.into() }],
            ..login
        })
    }

    async fn doctor(&self, cx: &Cx<'_>, _stored: &[Credential]) -> Result<Vec<Finding>, AuthError> {
        let finding =
            |level, text: String, fix: &str| Finding { level, text, fix: Some(fix.into()) };
        let version = match installed(cx).await {
            Ok(version) => version,
            // Who has no such program does not use it.
            Err(AuthError::NotFound { .. }) => return Ok(Vec::new()),
            Err(AuthError::Cancelled {}) => return Err(AuthError::Cancelled {}),
            Err(error) => {
                let text = format!("claude cannot be asked for its version: {error}");
                return Ok(vec![finding(Level::Warning, text, "type `claude --version`")]);
            }
        };
        Ok(version::too_old(&version)
            .map(|why| finding(Level::Warning, why, "run `claude update`"))
            .into_iter()
            .collect())
    }
}

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

/// Asks the program for its version.
async fn installed(cx: &Cx<'_>) -> Result<String, AuthError> {
    let ran = cx
        .run(Run {
            program: PROGRAM.into(),
            args: vec!["--version".into()],
            env: Vec::new(),
            input: None,
            terminal: false,
            timeout_ms: Some(10_000),
        })
        .await?;
    let said = ran.stdout.expose().trim();
    match ran.exit {
        Some(0) => Ok(said.lines().next().unwrap_or_default().to_string()),
        exit => {
            let message = format!("`claude --version` ended with {exit:?}");
            Err(AuthError::Other { message })
        }
    }
}
