//! The decision record: what was considered for one request, what was tried, and why.

use moltbot_core::{Payer, RecordId, Timestamp, Usage};
use serde::{Deserialize, Serialize};

use crate::cache::CacheEffect;

/// Everything that was decided about one request. Holds no secret and no text of the conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Names the request.
    pub id: RecordId,
    /// When it began.
    pub at: Timestamp,
    /// For which agent.
    pub agent: String,
    /// The model as asked for; absent if the configured one was meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,
    /// The models in the order they would be tried.
    pub models: Vec<ModelChoice>,
    /// Requests that were sent, in order.
    #[serde(default)]
    pub attempts: Vec<Attempt>,
    /// What was changed of what the user asked for, in words.
    #[serde(default)]
    pub changed: Vec<String>,
    /// Warnings the user was given.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// How it ended; absent for a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// All tokens of the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What it cost, in US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// The conversation it belongs to, if it has an id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// What a switch of profile or model did to the prompt cache; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheEffect>,
}

/// One model and the credentials considered for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelChoice {
    /// The model, as `provider/model`.
    pub model: String,
    /// Why the model was not considered at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// Where a request would go: `https://host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The credentials in the order they would be tried, those left out at the end.
    #[serde(default)]
    pub candidates: Vec<CredentialChoice>,
    /// How equals were arranged (`auth.strategy`), unless by the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// How many more there were that are not listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: usize,
}

/// One credential and what spoke for or against it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialChoice {
    /// Where it comes from: `profile:<id>`, `env: NAME`, `shell env: NAME`, `models.json`.
    pub source: String,
    /// The profile, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// How it authenticates: `api-key`, `oauth`, `token`.
    pub mode: String,
    /// Who pays.
    pub payer: Payer,
    /// Whether it has to be renewed first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renew: bool,
    /// Why it was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Its tightest limit, as the last reply told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaSeen>,
    /// Tokens of the conversation that would have to be written into its prompt cache again.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub rewrite: u64,
}

/// How far a limit is used up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuotaSeen {
    /// Which limit, in the service's words.
    pub limit: String,
    /// The used share, 0 to 1, sometimes above.
    pub used: f64,
    /// How much is left, if the service counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<f64>,
    /// When it starts anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<Timestamp>,
}

fn is_nothing(tokens: &u64) -> bool {
    *tokens == 0
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// One request that was sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// The model, as `provider/model`.
    pub model: String,
    /// The credential's source.
    pub source: String,
    /// The class of the failure; absent if it worked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The HTTP status, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The service's id of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// From sending to the end, in milliseconds.
    pub latency_ms: u64,
    /// The service's message, redacted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Until when the credential rests because of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Outcome {
    /// With a reply.
    Answered {
        /// By which model.
        model: String,
        /// With which credential.
        source: String,
    },
    /// With an error.
    Failed {
        /// Its code.
        code: String,
    },
}
