//! How much a model shall reason, and what that means for the request (spec T-10 to T-12).

use std::fmt;
use std::str::FromStr;

use moltbot_core::ModelInfo;
use serde_json::{Map, Value, json};

/// The highest `max_tokens` that is asked for without anybody wanting more.
const USUAL_MAX_TOKENS: u64 = 32_000;

/// The smallest budget the service accepts.
const MIN_BUDGET: u64 = 1_024;

/// How much a model shall reason before it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ThinkingLevel {
    /// Not at all, if the model can be told so.
    Off,
    /// As little as possible.
    Minimal,
    /// A little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
    /// As much as the model knows.
    XHigh,
}

impl ThinkingLevel {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::XHigh => "xhigh",
        }
    }

    /// Returns the tokens set aside for it, for models that take a budget.
    fn budget(self) -> u64 {
        match self {
            Self::Off => 0,
            Self::Minimal => 1_024,
            Self::Low => 2_048,
            Self::Medium => 8_192,
            Self::High | Self::XHigh => 16_384,
        }
    }

    /// Returns the word of `output_config.effort`, for models that decide themselves.
    fn effort(self, budgets_too: bool) -> &'static str {
        match self {
            Self::Off | Self::Minimal | Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            // Models that still take budgets know no effort above `high` but `max`.
            Self::XHigh if budgets_too => "high",
            Self::XHigh => "xhigh",
        }
    }
}

impl fmt::Display for ThinkingLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ThinkingLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.trim().to_lowercase().as_str() {
            "off" | "none" => Self::Off,
            "minimal" | "min" | "think" => Self::Minimal,
            "low" | "on" => Self::Low,
            "medium" | "mid" | "med" => Self::Medium,
            "high" | "max" | "ultra" => Self::High,
            "xhigh" => Self::XHigh,
            _ => {
                return Err(format!(
                    "\"{text}\" is no thinking level; use off, minimal, low, medium, high or xhigh"
                ));
            }
        })
    }
}

/// What a request says about reasoning and length.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Room {
    /// `max_tokens`.
    pub(crate) max_tokens: u64,
    /// `thinking`, if anything has to be said.
    pub(crate) thinking: Option<Value>,
    /// `output_config.effort`, if the model has one.
    pub(crate) effort: Option<&'static str>,
    /// Whether the model will reason, so that `temperature` has to stay away.
    pub(crate) reasons: bool,
    /// What was asked for and cannot be had.
    pub(crate) note: Option<String>,
}

impl Room {
    /// Decides for one model; `info` is absent for models the catalog does not know.
    pub(crate) fn of(
        info: Option<&ModelInfo>,
        level: Option<ThinkingLevel>,
        max_tokens: Option<u64>,
    ) -> Self {
        let most = info.map(|info| info.max_output).filter(|most| *most > 0).unwrap_or(u64::MAX);
        let max_tokens = max_tokens.unwrap_or(most.min(USUAL_MAX_TOKENS));
        let plain = Self { max_tokens, ..Self::default() };
        let Some(info) = info.filter(|info| info.thinking.reasons()) else {
            let wanted = level.is_some_and(|level| level != ThinkingLevel::Off);
            let note =
                wanted.then(|| "thinking was left out: the model is not known to reason".into());
            return Self { note, ..plain };
        };
        let modes = &info.thinking;
        let level = level.unwrap_or(ThinkingLevel::Low);
        if level == ThinkingLevel::Off && modes.has("enabled") {
            return plain;
        }
        if level == ThinkingLevel::Off && modes.has("disabled") {
            return Self { thinking: Some(json!({"type": "disabled"})), ..plain };
        }
        if modes.has("adaptive") {
            let has_effort = modes.default_effort.is_some();
            let effort = has_effort.then(|| level.effort(modes.has("enabled")));
            let off = level == ThinkingLevel::Off;
            return Self {
                thinking: (!off).then(|| json!({"type": "adaptive"})),
                effort,
                reasons: true,
                note: off.then(|| "thinking cannot be turned off for this model".into()),
                ..plain
            };
        }
        if !modes.has("enabled") {
            return Self { reasons: true, ..plain };
        }
        let mut budget = level.budget();
        let max_tokens = max_tokens.saturating_add(budget).min(most);
        if max_tokens <= budget {
            budget = max_tokens.saturating_sub(1_024);
        }
        if budget < MIN_BUDGET {
            let note = Some("thinking was left out: max_tokens leaves no room for it".into());
            return Self { max_tokens, note, ..plain };
        }
        let thinking = Some(json!({"type": "enabled", "budget_tokens": budget}));
        Self { max_tokens, thinking, reasons: true, ..plain }
    }

    /// Writes the members of the request.
    pub(crate) fn write(&self, body: &mut Map<String, Value>) {
        body.insert("max_tokens".into(), self.max_tokens.into());
        if let Some(thinking) = &self.thinking {
            body.insert("thinking".into(), thinking.clone());
        }
        if let Some(effort) = self.effort {
            body.insert("output_config".into(), json!({"effort": effort}));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moltbot_core::Thinking;

    fn model(modes: &[&'static str], effort: Option<&'static str>, max_output: u64) -> ModelInfo {
        let modes = modes.iter().map(|mode| (*mode).into()).collect();
        let thinking = Thinking { modes, default_effort: effort.map(Into::into) };
        ModelInfo { thinking, max_output, ..ModelInfo::default() }
    }

    fn room(info: &ModelInfo, level: &str, max: Option<u64>) -> (u64, Value, Value) {
        let room = Room::of(Some(info), level.parse().ok(), max);
        let mut body = Map::new();
        room.write(&mut body);
        let member = |name: &str| body.get(name).cloned().unwrap_or(Value::Null);
        (room.max_tokens, member("thinking"), member("output_config"))
    }

    #[test]
    fn budgets_are_added_to_the_room_for_the_answer() {
        let opus = model(&["enabled"], None, 64_000);
        let budget = |n: u64| json!({"type": "enabled", "budget_tokens": n});
        for (level, max, expected) in [
            ("off", None, (32_000, Value::Null)),
            ("medium", None, (40_192, budget(8_192))),
            ("", None, (34_048, budget(2_048))),
            ("xhigh", None, (48_384, budget(16_384))),
            ("high", Some(60_000), (64_000, budget(16_384))),
            ("minimal", Some(100), (1_124, budget(1_024))),
        ] {
            let (tokens, thinking, effort) = room(&opus, level, max);
            assert_eq!((tokens, thinking), expected, "{level}");
            assert_eq!(effort, Value::Null);
        }
    }

    #[test]
    fn a_small_model_gets_a_smaller_budget_or_none() {
        let small = model(&["enabled"], None, 8_192);
        assert_eq!(room(&small, "high", None).1["budget_tokens"], 7_168);
        let tiny = model(&["enabled"], None, 2_000);
        assert_eq!(room(&tiny, "high", None), (2_000, Value::Null, Value::Null));
    }

    #[test]
    fn adaptive_models_get_an_effort_instead() {
        let adaptive = json!({"type": "adaptive"});
        let effort = |word: &str| json!({"effort": word});
        let new = model(&["adaptive"], Some("medium"), 128_000);
        assert_eq!(room(&new, "medium", None), (32_000, adaptive.clone(), effort("medium")));
        assert_eq!(room(&new, "xhigh", None).2, effort("xhigh"));
        assert_eq!(room(&new, "off", None), (32_000, Value::Null, effort("low")));
        let both = model(&["adaptive", "enabled"], Some("high"), 128_000);
        assert_eq!(room(&both, "xhigh", None).2, effort("high"));
        assert_eq!(room(&both, "off", None), (32_000, Value::Null, Value::Null));
        let switch = model(&["adaptive", "disabled"], Some("high"), 128_000);
        assert_eq!(room(&switch, "off", None).1, json!({"type": "disabled"}));
        let plain = model(&["adaptive"], None, 128_000);
        assert_eq!(room(&plain, "high", None), (32_000, adaptive, Value::Null));
    }

    #[test]
    fn models_that_do_not_reason_are_not_told_to() {
        let old = model(&[], None, 4_096);
        assert_eq!(room(&old, "high", None), (4_096, Value::Null, Value::Null));
        let unknown = Room::of(None, Some(ThinkingLevel::High), None);
        assert_eq!((unknown.max_tokens, unknown.thinking), (32_000, None));
        assert!(unknown.note.is_some());
        assert!(Room::of(None, None, None).note.is_none());
    }

    #[test]
    fn synonyms_are_understood() {
        for (word, level) in [
            ("on", ThinkingLevel::Low),
            (" Max ", ThinkingLevel::High),
            ("ultra", ThinkingLevel::High),
            ("think", ThinkingLevel::Minimal),
            ("med", ThinkingLevel::Medium),
        ] {
            assert_eq!(word.parse(), Ok(level));
        }
        assert!("loud".parse::<ThinkingLevel>().unwrap_err().contains("loud"));
    }
}
