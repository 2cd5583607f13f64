//! `agents`: what all agents share, and the agents themselves.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::{Deserialize, Deserializer};

use super::{NonEmpty, Rest, Shape, Shaped, Unchecked, choice, section};

section! {
    /// What stands under `agents`.
    #[derive(Default)]
    Agents {
        /// What holds for every agent.
        #[serde(default)]
        defaults "defaults": Option<AgentDefaults>,
        /// The agents. Without any there is one, `main`.
        #[serde(default)]
        list "list": Vec<Agent>,
    }
}

section! {
    /// What stands under `agents.defaults`.
    #[derive(Default)]
    AgentDefaults {
        /// The model, and those to fall back on.
        model "model": Option<ModelChoice>,
        /// The model for images, and those to fall back on.
        image_model "imageModel": Option<ModelChoice>,
        /// Settings by model, `provider/model`. If there are any, no other model may be chosen.
        #[serde(default)]
        models "models": BTreeMap<String, ModelSettings>,
        /// The working directory.
        workspace "workspace": Option<String>,
        /// How much a model thinks; unset: low for models that reason.
        thinking_default "thinkingDefault": Option<ThinkingLevel>,
        /// Longest run in seconds; unset: 600.
        timeout_seconds "timeoutSeconds": Option<NonZeroU32>,
        /// What to drop from a long conversation.
        context_pruning "contextPruning": Option<ContextPruning>,
        /// Regular runs without a message.
        heartbeat "heartbeat": Option<Unchecked>,
        /// Programs that serve as models, by provider id.
        #[serde(default)]
        cli_backends "cliBackends": BTreeMap<String, Unchecked>,
    } and Rest::Unchecked(&[
        "blockStreamingBreak",
        "blockStreamingChunk",
        "blockStreamingCoalesce",
        "blockStreamingDefault",
        "bootstrapMaxChars",
        "compaction",
        "contextTokens",
        "elevatedDefault",
        "envelopeElapsed",
        "envelopeTimestamp",
        "envelopeTimezone",
        "humanDelay",
        "maxConcurrent",
        "mediaMaxMb",
        "memorySearch",
        "proxy",
        "repoRoot",
        "sandbox",
        "skipBootstrap",
        "subagents",
        "timeFormat",
        "typingIntervalSeconds",
        "typingMode",
        "userTimezone",
        "verboseDefault",
    ])
}

section! {
    /// One entry of `agents.list`.
    Agent {
        /// The id; it is normalised as spec C-6 says.
        id "id": NonEmpty,
        /// Whether this is the agent that is meant when none is named.
        default "default": Option<bool>,
        /// A name for display.
        name "name": Option<String>,
        /// The working directory.
        workspace "workspace": Option<String>,
        /// Where its credentials are kept; unset: `agents/<id>/agent` in the state directory.
        agent_dir "agentDir": Option<NonEmpty>,
        /// Its own model. An empty list of fallbacks turns the common ones off.
        model "model": Option<ModelChoice>,
    } and Rest::Unchecked(&[
        "groupChat",
        "heartbeat",
        "humanDelay",
        "identity",
        "memorySearch",
        "sandbox",
        "skills",
        "subagents",
        "tools",
    ])
}

section! {
    /// One entry of `agents.defaults.models`.
    #[derive(Default)]
    ModelSettings {
        /// A short name for the model.
        alias "alias": Option<String>,
        /// Parameters for its requests; the provider says which it knows.
        #[serde(default)]
        params "params": BTreeMap<String, Unchecked>,
        /// The plugin that runs the model instead of its own provider.
        runtime "runtime": Option<NonEmpty>,
    }
}

section! {
    /// What stands under `agents.defaults.contextPruning`.
    #[derive(Default)]
    ContextPruning {
        /// Whether to prune, and by what.
        mode "mode": Option<PruningMode>,
        /// How long the prompt cache lives, as a duration such as 1h.
        ttl "ttl": Option<String>,
    } and Rest::Unchecked(&[
        "hardClear",
        "hardClearRatio",
        "keepLastAssistants",
        "minPrunableToolChars",
        "softTrim",
        "softTrimRatio",
        "tools",
    ])
}

choice! {
    /// When a conversation is pruned.
    PruningMode {
        /// Never.
        Off "off",
        /// When the prompt cache has run out.
        CacheTtl "cache-ttl",
    }
}

choice! {
    /// How much a model thinks.
    ThinkingLevel {
        /// Not at all.
        Off "off",
        /// As little as possible.
        Minimal "minimal",
        /// A little.
        Low "low",
        /// More.
        Medium "medium",
        /// Much.
        High "high",
        /// As much as possible.
        Xhigh "xhigh",
    }
}

/// A model and those to fall back on; a plain string is the model alone (spec C-21).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelChoice {
    /// The model: `provider/model`, a model of the default provider, or an alias.
    pub primary: Option<String>,
    /// Models to try after it, in order. `None` and an empty list differ for an agent: the empty
    /// list turns the common fallbacks off (spec C-23).
    pub fallbacks: Option<Vec<String>>,
}

section! {
    /// The long form of a model choice.
    ModelChoiceParts {
        /// The model.
        primary "primary": Option<String>,
        /// Models to try after it, in order.
        fallbacks "fallbacks": Option<Vec<String>>,
    }
}

impl Shaped for ModelChoice {
    const SHAPE: Shape = Shape::TextOr(&ModelChoiceParts::SECTION);
}

impl<'de> Deserialize<'de> for ModelChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Short(String),
            Long(ModelChoiceParts),
        }
        Ok(match Form::deserialize(deserializer)? {
            Form::Short(primary) => Self { primary: Some(primary), fallbacks: None },
            Form::Long(parts) => Self { primary: parts.primary, fallbacks: parts.fallbacks },
        })
    }
}
