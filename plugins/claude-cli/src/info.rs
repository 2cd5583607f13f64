//! What the host must know of this provider, as data.

use moltbot_core::{BodyNeed, CredentialKind, ModelInfo, ProviderInfo, Text, Thinking};
use serde_json::{Value, json};

/// The provider's id.
pub(crate) const ID: &str = "claude-cli";

/// The vendor whose stored tokens it takes.
pub(crate) const VENDOR: &str = "anthropic";

/// Where the program's requests go unless it is told otherwise.
pub(crate) const SERVICE: &str = "https://api.anthropic.com";

/// The program.
pub(crate) const PROGRAM: &str = "claude";

const SOURCE: &str = "https://code.claude.com/docs/en/model-config";

/// Describes the provider. Pure; called once per start.
pub(crate) fn info() -> ProviderInfo {
    ProviderInfo {
        id: ID.into(),
        label: "Claude Code (your own claude program)".into(),
        // They would beat the plan's login inside the program, hence never reach it.
        ignored_env: [
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_AUTH_TOKEN",
            "ANTHROPIC_BASE_URL",
            "CLAUDE_CODE_USE_BEDROCK",
            "CLAUDE_CODE_USE_VERTEX",
        ]
        .map(Text::from)
        .to_vec(),
        base_url: SERVICE.into(),
        origins: vec![SERVICE.into()],
        dialect: "claude-stream-json".into(),
        recommended_model: "sonnet".into(),
        catalog: ["opus", "sonnet", "haiku"].into_iter().map(model).collect(),
        accepts: vec![(VENDOR.into(), CredentialKind::Token), (ID.into(), CredentialKind::None)],
        params: params(),
        body: BodyNeed::Whole,
        ..ProviderInfo::default()
    }
}

/// A name that the program itself resolves to its latest model. No price: the plan pays.
fn model(id: &'static str) -> ModelInfo {
    ModelInfo {
        id: id.into(),
        name: format!("Claude {id} by Claude Code").into(),
        images: true,
        thinking: Thinking {
            modes: vec!["adaptive".into(), "disabled".into()],
            default_effort: Some("high".into()),
        },
        context_window: 200_000,
        max_output: 64_000,
        subscription: true,
        source: SOURCE.into(),
        ..ModelInfo::default()
    }
}

fn params() -> Value {
    json!({
        "type": "object",
        "properties": {
            "tools": {
                "type": "array", "items": {"type": "string"}, "default": [],
                "description": "Claude Code's own tools that may run on this machine without a question, such as [\"WebSearch\"]; none by default."
            },
            "maxTokens": {
                "type": "integer", "minimum": 1,
                "description": "The most tokens of a reply."
            },
            "thinking": {
                "type": "string",
                "description": "How much the model thinks: off, minimal, low, medium, high."
            }
        }
    })
}
