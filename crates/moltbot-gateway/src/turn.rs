//! One turn of a conversation, as a session keeps it and the next request replays it.

use moltbot_core::{RecordId, Usage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Who spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The person, or the results of tools.
    User,
    /// The model.
    Assistant,
}

/// One turn: blocks of the Messages API as sent or received, and how they came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Turn {
    /// Who spoke.
    pub role: Role,
    /// What was said: content blocks, unknown ones included.
    pub content: Vec<Value>,
    /// Which model answered, as `provider/model`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Which profile paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Why the answer ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopReason>,
    /// The tokens it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What it cost, in US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// The decision record of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordId>,
}

impl Turn {
    /// Makes a turn of the user's.
    pub fn user(content: Vec<Value>) -> Self {
        Self {
            role: Role::User,
            content,
            model: None,
            profile: None,
            stop: None,
            usage: None,
            cost: None,
            record: None,
        }
    }

    /// Joins the text blocks.
    pub fn text(&self) -> String {
        let texts = self.content.iter().filter(|block| block["type"] == "text");
        texts.filter_map(|block| block["text"].as_str()).collect()
    }
}

/// Why an answer ended (spec T-24).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StopReason {
    /// The model was done, or paused a long turn.
    Stop,
    /// The limit of tokens, or the context window, was reached.
    Length,
    /// It wants a tool to be run.
    ToolUse,
    /// It refused.
    Refusal,
    /// The reply broke off with an error; such a turn is never replayed.
    Error,
    /// The user stopped it; such a turn is never replayed.
    Aborted,
}

impl StopReason {
    /// Reads the service's word; unknown words count as a normal end.
    pub fn of(word: &str) -> Self {
        match word {
            "max_tokens" | "model_context_window_exceeded" => Self::Length,
            "tool_use" => Self::ToolUse,
            "refusal" => Self::Refusal,
            _ => Self::Stop,
        }
    }

    /// Tells whether the turn came to its end and may be replayed.
    pub fn is_whole(self) -> bool {
        !matches!(self, Self::Error | Self::Aborted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stop_reason_of_the_service_is_mapped() {
        for (word, reason) in [
            ("end_turn", StopReason::Stop),
            ("stop_sequence", StopReason::Stop),
            ("pause_turn", StopReason::Stop),
            ("max_tokens", StopReason::Length),
            ("model_context_window_exceeded", StopReason::Length),
            ("tool_use", StopReason::ToolUse),
            ("refusal", StopReason::Refusal),
            ("something_new", StopReason::Stop),
        ] {
            assert_eq!(StopReason::of(word), reason, "{word}");
        }
    }
}
