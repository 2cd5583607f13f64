//! What the host must know of this provider, as data.

use moltbot_core::{ApiKeySpec, BodyNeed, CredentialKind, EnvKey, Policy, ProviderInfo, Text};
use serde_json::{Value, json};

use crate::catalog;

/// The lifetimes a cache breakpoint may ask for, with an API key (spec T-18).
pub(crate) const CACHE_TTLS: [&str; 2] = ["5m", "1h"];

/// The provider id to which the cache rules of spec T-18 apply.
pub(crate) const ID: &str = "anthropic";

const ORIGIN: &str = "https://api.anthropic.com";

/// The variable of a bearer token; it comes before the key (spec S-4).
const TOKEN_VARIABLE: &str = "ANTHROPIC_OAUTH_TOKEN";
const KEY_VARIABLE: &str = "ANTHROPIC_API_KEY";

/// Describes the provider. Pure; called once per start.
pub(crate) fn info() -> ProviderInfo {
    let mut env = Vec::new();
    // Variables of the official tools; obeying them here would send a key to somewhere that a
    // parent process chose (decision 12).
    let mut ignored_env = vec![Text::from("ANTHROPIC_AUTH_TOKEN"), "ANTHROPIC_BASE_URL".into()];
    if cfg!(feature = "bearer") {
        env.push(EnvKey { name: TOKEN_VARIABLE.into(), kind: CredentialKind::Token });
    } else {
        ignored_env.push(TOKEN_VARIABLE.into());
    }
    env.push(EnvKey { name: KEY_VARIABLE.into(), kind: CredentialKind::ApiKey });
    ProviderInfo {
        id: ID.into(),
        label: "Anthropic".into(),
        priority: 100,
        api_key: Some(api_key()),
        env,
        ignored_env,
        base_url: ORIGIN.into(),
        origins: vec![ORIGIN.into()],
        dialect: "anthropic-messages".into(),
        catalog: catalog::models(),
        default_model: "claude-opus-4-5".into(),
        recommended_model: "claude-opus-5-5".into(),
        aliases: pairs(&[("opus", "claude-opus-4-5"), ("sonnet", "claude-sonnet-4-5")]),
        short_names: pairs(&[("opus-4.5", "claude-opus-4-5"), ("sonnet-4.5", "claude-sonnet-4-5")]),
        legacy_ids: Vec::new(),
        accepts: Vec::new(),
        params: params(),
        reads: [
            "/model",
            "/cache_control",
            "/tools/*/cache_control",
            "/system/*/cache_control",
            "/messages/*/content/*/cache_control",
            "/messages/*/content/*/content/*/cache_control",
        ]
        .map(Text::from)
        .to_vec(),
        body: BodyNeed::Head,
    }
}

fn api_key() -> ApiKeySpec {
    ApiKeySpec {
        choice: "apiKey".into(),
        flag: "anthropic-api-key".into(),
        env: KEY_VARIABLE.into(),
        label: "Anthropic API key".into(),
        prefix: "sk-ant-api".into(),
        policy: Some(Policy {
            line: "Billed per use under Anthropic's Commercial Terms; meant for programs like this one".into(),
            source: "https://code.claude.com/docs/en/legal-and-compliance".into(),
            checked: "2026-08-22".into(),
        }),
    }
}

fn pairs(pairs: &[(&'static str, &'static str)]) -> Vec<(Text, Text)> {
    pairs.iter().map(|(name, model)| ((*name).into(), (*model).into())).collect()
}

/// Describes the `params` of a model entry. Unknown ones are accepted, because users' files hold
/// those of other versions (spec C-15); a `cacheControlTtl` outside the two values is ignored, not
/// refused (spec T-18), hence without a type.
fn params() -> Value {
    json!({
        "type": "object",
        "properties": {
            "temperature": {
                "type": "number", "minimum": 0, "maximum": 1,
                "description": "Sampling temperature; newer models accept none."
            },
            "maxTokens": {
                "type": "integer", "minimum": 1,
                "description": "The most tokens of a reply."
            },
            "thinking": {
                "type": "string",
                "description": "How much the model thinks: off, minimal, low, medium, high."
            },
            "cacheControlTtl": {
                "description": "How long cached prompts live, \"5m\" or \"1h\"; only with an API key, other values are ignored.",
                "examples": CACHE_TTLS
            },
            "autoCache": {
                "type": "boolean", "default": false,
                "description": "At the gateway: place cache breakpoints (tools, system, last message) for clients that place none."
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_to_a_known_model() {
        let info = info();
        let named = info.aliases.iter().chain(&info.short_names).map(|(_, model)| model);
        for model in named.chain([&info.default_model, &info.recommended_model]) {
            assert!(info.model(model).is_some(), "{model}");
        }
    }

    #[cfg(feature = "bearer")]
    #[test]
    fn the_token_variable_comes_first() {
        let names: Vec<_> = info().env.into_iter().map(|key| key.name).collect();
        assert_eq!(names, ["ANTHROPIC_OAUTH_TOKEN", "ANTHROPIC_API_KEY"]);
    }
}
