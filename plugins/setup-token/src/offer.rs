//! The two offers and their questions, as data.

use moltbot_core::*;

/// The provider whose tokens these are.
pub(crate) const PROVIDER: &str = "anthropic";

/// The program that prints them.
pub(crate) const PROGRAM: &str = "claude";

/// Lists the offers.
pub(crate) fn all() -> Vec<Offer> {
    let shared = Offer {
        profile: format!("{PROVIDER}:manual").into(),
        kind: CredentialKind::Token,
        mode: "token".into(),
        accepts: vec![CredentialKind::Token],
        payer: Payer::Subscription,
        policy: Some(policy()),
        ..Offer::default()
    };
    let paste = Offer {
        choice: "token".into(),
        label: "Anthropic setup-token (paste)".into(),
        hint: "from `claude setup-token` on any machine".into(),
        fields: vec![
            text("token-provider", "Provider of the token", None),
            secret(Some("token")),
            text("token-profile-id", "Profile id, by default anthropic:manual", Some("")),
            expiry("token-expires-in"),
            as_api_key(),
        ],
        verbs: vec![Verb {
            name: "paste-token".into(),
            about: "Paste a setup-token, or pipe it in".into(),
            fields: vec![
                secret(None),
                text("profile-id", "Profile id, by default anthropic:manual", Some("")),
                expiry("expires-in"),
                as_api_key(),
            ],
            terminal: false,
        }],
        ..shared.clone()
    };
    let run = Offer {
        choice: "setup-token".into(),
        aliases: vec!["oauth".into()],
        label: "Anthropic setup-token (run claude setup-token)".into(),
        hint: "needs Claude Code on this machine".into(),
        fields: vec![confirm_run(None), secret(None), as_api_key()],
        verbs: vec![Verb {
            name: "setup-token".into(),
            about: "Run claude setup-token, then paste the token it prints".into(),
            fields: vec![confirm_run(Some("yes")), secret(None), as_api_key()],
            terminal: true,
        }],
        caps: AuthCaps { interactive: true, ..AuthCaps::default() },
        needs: Needs { programs: vec![PROGRAM.into()], ..Needs::default() },
        ..shared
    };
    vec![paste, run]
}

/// What the vendor says (decision 6), as it stood on the day named.
fn policy() -> Policy {
    Policy {
        line: "Anthropic's consumer terms limit Free, Pro and Max logins to Claude Code and native Anthropic apps; the server may refuse".into(),
        source: "https://code.claude.com/docs/en/legal-and-compliance".into(),
        checked: "2026-08-22".into(),
    }
}

fn secret(flag: Option<&'static str>) -> Field {
    Field {
        id: "token".into(),
        flag: flag.map(Text::Borrowed),
        label: "Paste the setup-token".into(),
        kind: FieldKind::Secret {},
        ..Field::default()
    }
}

/// A field whose id is its flag. With a default it is optional.
fn text(flag: &'static str, label: &'static str, default: Option<&'static str>) -> Field {
    Field {
        id: flag.into(),
        flag: Some(flag.into()),
        label: label.into(),
        default: default.map(Text::Borrowed),
        ..Field::default()
    }
}

fn expiry(flag: &'static str) -> Field {
    let label = "Lifetime of the token, e.g. 365d; without it the token never expires";
    Field { kind: FieldKind::Duration {}, ..text(flag, label, Some("")) }
}

fn confirm_run(flag: Option<&'static str>) -> Field {
    Field {
        id: "run".into(),
        flag: flag.map(Text::Borrowed),
        label: "Run `claude setup-token` now? (No: paste a token you have)".into(),
        default: Some("true".into()),
        kind: FieldKind::Confirm {},
        ..Field::default()
    }
}

fn as_api_key() -> Field {
    Field {
        id: "as-api-key".into(),
        label:
            "This is an API key, not a setup-token. Store it as anthropic:default, billed per use?"
                .into(),
        default: Some("true".into()),
        kind: FieldKind::Confirm {},
        ..Field::default()
    }
}
