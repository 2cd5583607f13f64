//! What a door asks of the engine, and what it gets.

use moltbot_core::{Note, Timestamp, Usage};
use serde_json::Value;

use crate::compose::Image;
use crate::model::ModelRef;
use crate::record::Record;
use crate::thinking::ThinkingLevel;
use crate::turn::{StopReason, Turn};

/// One turn of the user's, and how it shall be answered.
#[derive(Clone, Debug, Default)]
pub struct ChatRequest {
    /// The model: an alias, `provider/model`, either with `@profile`; `None` is the configured one.
    pub model: Option<String>,
    /// The profile that the user insists on (spec S-10).
    pub profile: Option<String>,
    /// The profile that the session has used so far (spec S-9).
    pub prefer: Option<String>,
    /// The id of the conversation, for its record.
    pub session: Option<String>,
    /// When the last turn of `history` came, for what is known of its prompt cache.
    pub last_turn: Option<Timestamp>,
    /// The system prompt.
    pub system: Option<String>,
    /// Everything said so far.
    pub history: Vec<Turn>,
    /// What the user says now.
    pub prompt: String,
    /// What the user shows now.
    pub images: Vec<Image>,
    /// Tools: `{name, description, input_schema}` each.
    pub tools: Vec<Value>,
    /// How much the model shall reason.
    pub thinking: Option<ThinkingLevel>,
    /// The most tokens of the reply.
    pub max_tokens: Option<u64>,
    /// How much chance.
    pub temperature: Option<f64>,
    /// How long all may take, in milliseconds; `None` is the config's, else ten minutes.
    pub timeout_ms: Option<u64>,
}

/// A whole reply.
#[derive(Clone, Debug)]
pub struct ChatReply {
    /// The text.
    pub text: String,
    /// The turns to keep: the user's, the model's, and, if a tool's input was no JSON, its error.
    pub turns: Vec<Turn>,
    /// Why it ended.
    pub stop: StopReason,
    /// Which model answered.
    pub model: ModelRef,
    /// Which credential was used: `profile:<id>`, `env: NAME`, …
    pub source: String,
    /// The profile, if it was one.
    pub profile: Option<String>,
    /// The tokens it took.
    pub usage: Usage,
    /// What it cost, in US dollars, if prices are known.
    pub cost: Option<f64>,
    /// Warnings that were told already.
    pub notes: Vec<Note>,
    /// What was decided and tried.
    pub record: Record,
}
