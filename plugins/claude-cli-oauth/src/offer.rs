//! The offer, its settings and the owner's places and programs, as data.

use moltbot_core::*;
use serde_json::{Value, json};

/// The provider that takes the login.
pub(crate) const PROVIDER: &str = "anthropic";

/// The `source` of a link.
pub(crate) const SOURCE: &str = "claude-cli";

/// The Keychain item of the login.
pub(crate) const KEYCHAIN_ITEM: &str = "Claude Code-credentials";

/// The program that reads the Keychain.
pub(crate) const KEYCHAIN_PROGRAM: &str = "security";

/// The question before it is used.
pub(crate) const KEYCHAIN_FIELD: &str = "keychain";

/// The owner's program.
pub(crate) const PROGRAM: &str = "claude";

/// The policy under which `claude` is never run.
pub(crate) const OFF: &str = "off";

/// What a renewal costs.
pub(crate) const COST: &str = "`claude -p` runs once and asks its smallest model for one word, which counts against the plan's allowance for `claude -p`";

/// What can be done about a login that is gone (spec A-22).
pub(crate) const WAYS_OUT: &str = "run `claude` on the gateway host, paste a setup-token (`moltbot models auth paste-token --provider anthropic`), or use an API key (`moltbot onboard --anthropic-api-key`)";

/// Makes the offer.
pub(crate) fn offer() -> Offer {
    let keychain = Field {
        id: KEYCHAIN_FIELD.into(),
        label: format!(
            "macOS may ask you to allow access to \"{KEYCHAIN_ITEM}\". Look in the Keychain?"
        )
        .into(),
        default: Some("true".into()),
        kind: FieldKind::Confirm {},
        ..Field::default()
    };
    Offer {
        choice: "claude-cli".into(),
        label: "Claude Code login on this machine".into(),
        hint: "read live, never copied".into(),
        profile: format!("{PROVIDER}:claude-cli").into(),
        kind: CredentialKind::Oauth,
        mode: "oauth".into(),
        accepts: vec![CredentialKind::Oauth, CredentialKind::Token],
        migrates_from: vec!["token".into()],
        fields: vec![keychain],
        caps: AuthCaps { refresh: true, external: true, ..AuthCaps::default() },
        needs: Needs {
            files: vec![credential_file()],
            programs: vec![PROGRAM.into(), KEYCHAIN_PROGRAM.into()],
            ..Needs::default()
        },
        policy: Some(Policy {
            line: "Anthropic's consumer terms limit Free, Pro and Max logins to Claude Code and native Anthropic apps; the server may refuse".into(),
            source: "https://code.claude.com/docs/en/legal-and-compliance".into(),
            checked: "2026-08-22".into(),
        }),
        payer: Payer::Subscription,
        ..Offer::default()
    }
}

/// Describes `auth.claudeCli`.
pub(crate) fn settings() -> SettingsSpec {
    SettingsSpec {
        key: "claudeCli".into(),
        schema: json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "refresh": {
                    "description": format!("What to do when the Claude Code login has expired. owner: {COST}. off: fail and say what can be done."),
                    "enum": ["owner", OFF],
                    "default": "owner"
                }
            }
        }),
    }
}

/// Tells whether the user's settings forbid to run `claude`.
pub(crate) fn policy_is_off(settings: &Value) -> bool {
    settings.get("refresh").and_then(Value::as_str) == Some(OFF)
}

/// Names the file of the login (spec W-7).
pub(crate) fn credential_file() -> FileRef {
    FileRef {
        dir_env: Some("CLAUDE_CONFIG_DIR".into()),
        dir: "~/.claude".into(),
        path: ".credentials.json".into(),
    }
}

/// Makes the run that has the owner renew its login.
///
/// Only a request to the model makes `claude` wait for the renewal: `claude auth status` does not
/// renew, and commands that end early can end before the new tokens are written, which loses the
/// login because its refresh token is single-use. So this is the smallest request there is: no
/// tools, servers, settings, session file or default system prompt (about 1 KB instead of 85).
/// `--tools` takes any number of values and therefore stands last, behind the prompt.
pub(crate) fn renewal_run() -> Run {
    let args = [
        "-p",
        "ok",
        "--model",
        "haiku",
        "--system-prompt",
        "Answer with the word ok.",
        "--no-session-persistence",
        "--strict-mcp-config",
        "--setting-sources",
        "",
        "--tools",
        "",
    ];
    Run {
        program: PROGRAM.into(),
        args: args.map(Text::Borrowed).into(),
        env: Vec::new(),
        input: Some(Secret::default()),
        terminal: false,
        timeout_ms: Some(60_000),
    }
}
