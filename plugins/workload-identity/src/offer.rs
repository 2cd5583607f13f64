//! The offer and its questions, as data.

use moltbot_core::*;

/// The provider whose exchange it is.
pub(crate) const PROVIDER: &str = "anthropic";

// The questions; the profile keeps each answer in a member of the same name.
pub(crate) const RULE: &str = "federation-rule-id";
pub(crate) const ORGANIZATION: &str = "organization-id";
pub(crate) const ACCOUNT: &str = "service-account-id";
pub(crate) const WORKSPACE: &str = "workspace-id";
pub(crate) const URL: &str = "token-url";
pub(crate) const COMMAND: &str = "token-command";
pub(crate) const FILE: &str = "token-file";
pub(crate) const PATH: &str = "token-path";

/// The variable that holds an identity token itself.
pub(crate) const VARIABLE: &str = "ANTHROPIC_IDENTITY_TOKEN";

/// Makes the offer.
pub(crate) fn offer(provider: &ProviderInfo) -> Offer {
    let id = |id: &'static str, flag: &'static str, env: &'static str, label: &'static str| Field {
        id: id.into(),
        flag: Some(flag.into()),
        env: Some(env.into()),
        label: label.into(),
        ..Field::default()
    };
    // An empty default: asked for by flag or variable only.
    let option = |id: &'static str, flag: &'static str, label: &'static str| Field {
        id: id.into(),
        flag: Some(flag.into()),
        default: Some("".into()),
        label: label.into(),
        ..Field::default()
    };
    let variable = |field: Field, env: &'static str| Field { env: Some(env.into()), ..field };
    let fields = vec![
        id(
            RULE,
            "anthropic-federation-rule-id",
            "ANTHROPIC_FEDERATION_RULE_ID",
            "Federation rule id",
        ),
        id(
            ORGANIZATION,
            "anthropic-organization-id",
            "ANTHROPIC_ORGANIZATION_ID",
            "Organization id",
        ),
        id(
            ACCOUNT,
            "anthropic-service-account-id",
            "ANTHROPIC_SERVICE_ACCOUNT_ID",
            "Service account id",
        ),
        variable(
            option(WORKSPACE, "anthropic-workspace-id", "Workspace id"),
            "ANTHROPIC_WORKSPACE_ID",
        ),
        option(URL, "anthropic-token-url", "Address of the token endpoint"),
        option(
            COMMAND,
            "anthropic-identity-token-command",
            "Command that prints the identity token",
        ),
        variable(
            option(FILE, "anthropic-identity-token-file", "File that holds the identity token"),
            "ANTHROPIC_IDENTITY_TOKEN_FILE",
        ),
        Field {
            id: PATH.into(),
            label: "File that holds the identity token".into(),
            ..Field::default()
        },
    ];
    let hosts = provider.origins.iter().filter_map(|origin| origin.strip_prefix("https://"));
    Offer {
        choice: "workload-identity".into(),
        label: "Workload identity".into(),
        hint: "an OIDC token of this machine, no key; billed per use".into(),
        profile: format!("{PROVIDER}:workload-identity").into(),
        kind: CredentialKind::Token,
        mode: "token".into(),
        accepts: vec![CredentialKind::Token],
        fields,
        caps: AuthCaps { refresh: true, ..AuthCaps::default() },
        needs: Needs {
            hosts: hosts.map(|host| host.to_string().into()).collect(),
            programs: vec!["sh".into(), "printenv".into()],
            secret_env: vec![VARIABLE.into()],
            answers: vec![URL.into(), FILE.into(), PATH.into()],
            ..Needs::default()
        },
        policy: Some(Policy {
            line: "Billed per use to the organization; meant for machines and services".into(),
            source: "https://platform.claude.com/docs/en/api/workload-identity-federation".into(),
            checked: "2026-11-22".into(),
        }),
        payer: Payer::Metered,
        ..Offer::default()
    }
}
