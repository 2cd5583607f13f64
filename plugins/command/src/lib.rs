//! API keys that a command prints: `op read`, `vault kv get`, `pass`, or a script of your own.
//!
//! The command is run by `sh -c`, without a terminal, as Claude Code runs its `apiKeyHelper` and
//! AWS its `credential_process`. It prints either the key alone, which is then asked for again
//! after five minutes or once the service refuses it, or one JSON object that says how long the key is
//! good: `{"version": 1, "key": "…", "expiresAt": "2026-11-22T12:00:00Z"}`. Between two runs the key
//! stays in the agent's store, for all processes.
//!
//! ```text
//! moltbot onboard --anthropic-key-command 'op read op://Private/Anthropic/key'
//! moltbot onboard --anthropic-key-command 'vault kv get -field=key secret/anthropic'
//! moltbot onboard --anthropic-key-command 'pass show anthropic | head -n 1'
//! ```
//!
//! ```
//! use moltbot_core::{AuthMethod, ProviderInfo};
//! use moltbot_plugin_command::Command;
//! use moltbot_testkit::{ScriptedHost, call, fake, login, offer, sample_provider};
//!
//! let vendor = sample_provider();
//! let call = call(&vendor, &offer(&Command, &vendor, "acme-command"));
//! let host = ScriptedHost::new().answer("command", "pass show acme").ran("sh", 0, fake("acme-"));
//! let kept = login(&Command, &host, &call).unwrap().credential;
//! assert_eq!(kept.rest["command"], "pass show acme");
//! assert!(kept.expires > Some(call.now));
//! ```
//!
//! # Invariants
//!
//! - The command is the user's, word for word; nothing is put into it.
//! - What it prints shows nowhere; of its complaints the first line is told, redacted.
//! - Deliberately absent: tokens of subscriptions. A plan's login is not for handing around.

mod printed;

use moltbot_core::*;

pub use printed::{Printed, read};

/// Runs a command that prints an API key.
pub struct Command;

/// The member of the profile that holds the command.
const COMMAND: &str = "command";

/// What helpers of the usual password stores need to know; passed on if it is set.
const ENVIRONMENT: [&str; 14] = [
    "BW_SESSION",
    "DBUS_SESSION_BUS_ADDRESS",
    "GNUPGHOME",
    "GPG_TTY",
    "OP_ACCOUNT",
    "OP_CONNECT_HOST",
    "OP_CONNECT_TOKEN",
    "OP_SERVICE_ACCOUNT_TOKEN",
    "PASSWORD_STORE_DIR",
    "SSH_AUTH_SOCK",
    "VAULT_ADDR",
    "VAULT_CACERT",
    "VAULT_NAMESPACE",
    "VAULT_TOKEN",
];

#[async_trait]
impl AuthMethod for Command {
    fn id(&self) -> &str {
        "command"
    }

    fn offers(&self, provider: &ProviderInfo) -> Vec<Offer> {
        let Some(spec) = &provider.api_key else { return Vec::new() };
        let command = Field {
            id: COMMAND.into(),
            flag: Some(format!("{}-key-command", provider.id).into()),
            label: format!("Command that prints the {}", spec.label).into(),
            ..Field::default()
        };
        vec![Offer {
            choice: format!("{}-command", provider.id).into(),
            label: format!("{} from a command", spec.label).into(),
            hint: "op read, vault kv get, pass; billed per use".into(),
            profile: format!("{}:command", provider.id).into(),
            kind: CredentialKind::ApiKey,
            mode: "api_key".into(),
            accepts: vec![CredentialKind::ApiKey],
            fields: vec![command],
            caps: AuthCaps { refresh: true, ..AuthCaps::default() },
            needs: Needs {
                programs: vec!["sh".into()],
                secret_env: ENVIRONMENT.map(Text::Borrowed).into(),
                ..Needs::default()
            },
            policy: spec.policy.clone(),
            payer: Payer::Metered,
            ..Offer::default()
        }]
    }

    async fn login(&self, cx: &Cx<'_>) -> Result<Login, AuthError> {
        let command = |text: &str| match text.trim() {
            "" => Err("Required".to_string()),
            command => Ok(command.to_string()),
        };
        let command = cx.ask(COMMAND, command).await?;
        let printed = run(cx, &command).await?.map_err(|message| AuthError::Other { message })?;
        let mut credential = Credential::api_key(cx.provider.id.clone(), printed.key);
        credential.expires = Some(printed.expires);
        credential.rest.insert(COMMAND.into(), command.into());
        Ok(Login::new(credential))
    }

    fn renew(
        &self,
        settings: &RenewSettings,
        old: &Credential,
        now: Timestamp,
    ) -> Result<Renewal, AuthError> {
        command_of(old)?;
        let due = settings.force || old.is_expired(now);
        Ok(if due { Renewal::Run {} } else { Renewal::NotDue {} })
    }

    async fn refresh(&self, cx: &Cx<'_>, old: &Credential) -> Result<Credential, AuthError> {
        let printed = run(cx, command_of(old)?).await?;
        // A password store that is locked today may be open tomorrow.
        let printed = printed.map_err(|reason| AuthError::Transient { reason })?;
        Ok(Credential { key: Some(printed.key), expires: Some(printed.expires), ..old.clone() })
    }
}

/// Runs the command; the inner error is a sentence about what it did.
async fn run(cx: &Cx<'_>, command: &str) -> Result<Result<Printed, String>, AuthError> {
    let run = Run {
        program: "sh".into(),
        args: vec!["-c".into(), command.to_string().into()],
        env: Vec::new(),
        input: None,
        terminal: false,
        timeout_ms: Some(60_000),
    };
    let ran = match cx.run(run).await {
        Ok(ran) => ran,
        Err(AuthError::Transient { reason }) => {
            return Ok(Err(format!("The key command did not end: {reason}")));
        }
        Err(error) => return Err(error),
    };
    let complaint = redact(ran.stderr.expose().trim().lines().next().unwrap_or_default())
        .chars()
        .filter(|c| !c.is_control())
        .take(160)
        .collect::<String>();
    let colon = if complaint.is_empty() { "" } else { ": " };
    Ok(match ran.exit {
        Some(0) => printed::read(&ran.stdout, cx.now),
        Some(code) => Err(format!("The key command failed with code {code}{colon}{complaint}")),
        None => Err(format!("The key command was killed{colon}{complaint}")),
    })
}

fn command_of(stored: &Credential) -> Result<&str, AuthError> {
    let found = stored.rest.get(COMMAND).and_then(|value| value.as_str());
    found.filter(|text| !text.trim().is_empty()).ok_or_else(|| AuthError::LoginAgain {
        reason: "the profile names no command".into(),
        hint: format!("set it with `moltbot onboard --{}-key-command`", stored.provider),
    })
}

moltbot_core::plugin! { auth: [Command] }
