//! What the program says of itself: its version, and with what it is logged in. Nothing of the login
//! is read here; the program is asked.

use moltbot_core::{AuthError, Cx, Ran, Run, Secret};
use serde_json::Value;

use crate::info::PROGRAM;

/// How long it may take to answer, in milliseconds.
const PATIENCE_MS: u64 = 20_000;

/// Switches of the program for a question that must cause nothing else.
pub(crate) const QUIET: [&str; 3] =
    ["DISABLE_AUTOUPDATER", "DISABLE_TELEMETRY", "DISABLE_ERROR_REPORTING"];

/// The program that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Installed {
    /// As it prints it: `2.1.197 (Claude Code)`.
    pub(crate) version: String,
    pub(crate) account: Account,
}

/// With what it is logged in, which decides who pays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Account {
    /// A plan; its name, if it says one.
    Plan(Option<String>),
    /// Something that is billed per use, in its own word.
    Key(String),
    LoggedOut,
    /// It gave no answer that can be read.
    Unknown,
}

impl Installed {
    /// Asks the program.
    ///
    /// # Errors
    /// `NotFound` if there is none; otherwise what went wrong when it was asked for its version.
    pub(crate) async fn look(cx: &Cx<'_>) -> Result<Self, AuthError> {
        let ran = ask(cx, &["--version"]).await?;
        let said = ran.stdout.expose().trim();
        let version = match ran.exit {
            Some(0) => said.lines().next().unwrap_or_default().to_string(),
            exit => {
                let message = format!("`claude --version` ended with {exit:?}");
                return Err(AuthError::Other { message });
            }
        };
        // An older program knows no such question; that it is too old is said elsewhere.
        let account = match ask(cx, &["auth", "status", "--json"]).await {
            Ok(ran) => account(ran.stdout.expose()),
            Err(AuthError::Cancelled {}) => return Err(AuthError::Cancelled {}),
            Err(_) => Account::Unknown,
        };
        Ok(Self { version, account })
    }

    /// Says it in a line: `claude 2.1.197, logged in (max)`.
    pub(crate) fn words(&self) -> String {
        let version: String =
            self.version.split(' ').next().unwrap_or_default().chars().take(32).collect();
        let account = match &self.account {
            Account::Plan(Some(plan)) => format!("logged in with a plan ({plan})"),
            Account::Plan(None) => "logged in with a plan".to_string(),
            Account::Key(method) => format!("logged in with an API key ({method})"),
            Account::LoggedOut => "not logged in".to_string(),
            Account::Unknown => "login not known".to_string(),
        };
        format!("claude {version}, {account}")
    }
}

/// Reads the answer of `claude auth status --json`. Pure.
fn account(said: &str) -> Account {
    let Ok(said) = serde_json::from_str::<Value>(said.trim()) else { return Account::Unknown };
    let word = |name: &str| {
        let text = said[name].as_str()?;
        let plain: String = text.chars().filter(|c| c.is_ascii_graphic()).take(40).collect();
        Some(plain).filter(|plain| !plain.is_empty())
    };
    match (said["loggedIn"].as_bool(), word("authMethod")) {
        (Some(false), _) => Account::LoggedOut,
        (Some(true), Some(method)) if ["claude.ai", "oauth_token"].contains(&method.as_str()) => {
            Account::Plan(word("subscriptionType"))
        }
        (Some(true), Some(method)) => Account::Key(method),
        _ => Account::Unknown,
    }
}

async fn ask(cx: &Cx<'_>, args: &[&'static str]) -> Result<Ran, AuthError> {
    cx.run(Run {
        program: PROGRAM.into(),
        args: args.iter().map(|arg| (*arg).into()).collect(),
        env: QUIET.map(|name| (name.into(), Secret::new("1"))).to_vec(),
        input: None,
        terminal: false,
        timeout_ms: Some(PATIENCE_MS),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_2_1_197() {
        for (said, wanted) in [
            (
                r#"{"loggedIn":true,"authMethod":"claude.ai","apiProvider":"firstParty","email":null,"subscriptionType":"max"}"#,
                Account::Plan(Some("max".into())),
            ),
            (r#"{"loggedIn":true,"authMethod":"oauth_token"}"#, Account::Plan(None)),
            (
                r#"{"loggedIn":true,"authMethod":"api_key","apiKeySource":"ANTHROPIC_API_KEY"}"#,
                Account::Key("api_key".into()),
            ),
            (r#"{"loggedIn":false,"authMethod":"none"}"#, Account::LoggedOut),
            ("", Account::Unknown),
            ("error: unknown command", Account::Unknown),
            ("[]", Account::Unknown),
            (r#"{"loggedIn":"yes"}"#, Account::Unknown),
        ] {
            assert_eq!(account(said), wanted, "{said}");
        }
    }

    #[test]
    fn nothing_odd_gets_into_the_line() {
        let account = account("{\"loggedIn\":true,\"authMethod\":\"x\\u001b[31m y\"}");
        let found = Installed { version: "2.1.197 (Claude Code)".into(), account };
        assert_eq!(found.words(), "claude 2.1.197, logged in with an API key (x[31my)");
    }
}
