//! The models the lab knows: limits, what each accepts, and the records of `/v1/models`.
//!
//! Figures and rules are those of spec 09 A. A model that is not here is served without its rules,
//! unless the lab is told to be strict.

use serde_json::{Value, json};

/// What one model is and accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) id: &'static str,
    /// The dated form, which the service accepts as well.
    pub(crate) dated: Option<&'static str>,
    pub(crate) name: &'static str,
    /// `YYYY-MM-DD`.
    pub(crate) released: &'static str,
    pub(crate) context: u64,
    pub(crate) max_output: u64,
    /// The shortest prefix that is cached, in tokens.
    pub(crate) min_cache: u64,
    pub(crate) thinking: Thinking,
    pub(crate) line: &'static str,
    pub(crate) retires: Option<&'static str>,
}

/// Which `thinking.type` values a model takes, and what holds without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thinking {
    /// `enabled` with a budget, or `disabled`; off by default.
    Budget,
    /// `adaptive`, `enabled` (deprecated) or `disabled`; off by default.
    AdaptiveOrBudget,
    /// `adaptive` or `disabled`; off by default.
    AdaptiveOff,
    /// `adaptive` or `disabled`; adaptive by default.
    Adaptive,
    /// `adaptive`, or `disabled` with an effort of at most high.
    AdaptiveUnlessHigh,
    /// `adaptive` or `between_tools`.
    BetweenTools,
    /// `adaptive` only, and always on.
    Always,
}

impl Model {
    /// Returns whether a request may end with an assistant turn.
    pub(crate) fn prefill(&self) -> bool {
        self.thinking == Thinking::Budget
    }

    /// Returns whether sampling fields other than their defaults are accepted.
    pub(crate) fn sampling(&self) -> bool {
        matches!(self.thinking, Thinking::Budget | Thinking::AdaptiveOrBudget)
    }

    /// Returns whether `tool_choice` may force a tool.
    pub(crate) fn forces_tools(&self) -> bool {
        !(self.id.contains("fable-5-")
            || self.id.contains("mythos-5-")
            || matches!(self.id, "claude-opus-5-5" | "claude-sonnet-5-5"))
    }

    /// Returns whether thinking blocks are bound to model and prefix.
    pub(crate) fn binds_thinking(&self) -> bool {
        self.id.contains("fable-5-") || self.id.contains("mythos-5-") || self.id.ends_with("-5-5")
    }

    /// Returns whether thinking text is omitted unless asked for.
    pub(crate) fn omits_thinking(&self) -> bool {
        !matches!(self.thinking, Thinking::Budget | Thinking::AdaptiveOrBudget)
    }

    /// Returns whether `thinking.type: kind` is accepted.
    pub(crate) fn takes(&self, kind: &str) -> bool {
        use Thinking::*;
        match kind {
            "enabled" => matches!(self.thinking, Budget | AdaptiveOrBudget),
            "adaptive" => self.thinking != Budget,
            "disabled" => !matches!(self.thinking, Always | BetweenTools),
            "between_tools" => self.thinking == BetweenTools,
            _ => false,
        }
    }

    /// Returns the record `/v1/models` shows.
    pub(crate) fn record(&self, id: &str) -> Value {
        let yes = |supported: bool| json!({ "supported": supported });
        let new = self.thinking != Thinking::Budget;
        json!({
            "type": "model",
            "id": id,
            "display_name": self.name,
            "created_at": format!("{}T00:00:00Z", self.released),
            "lifecycle": if self.retires.is_some() { "deprecated" } else { "active" },
            "deprecated_at": null,
            "retires_at": self.retires.map(|day| format!("{day}T00:00:00Z")),
            "line": self.line,
            "max_input_tokens": self.context,
            "max_tokens": self.max_output,
            "capabilities": {
                "batch": yes(true),
                "citations": yes(true),
                "code_execution": yes(true),
                "context_management": {
                    "supported": true,
                    "clear_thinking_20251015": yes(true),
                    "clear_tool_uses_20250919": yes(true),
                    "compact_20260112": yes(new),
                },
                "effort": {
                    "supported": new,
                    "low": yes(new), "medium": yes(new), "high": yes(new), "xhigh": yes(new),
                    "max": yes(new),
                },
                "image_input": yes(true),
                "pdf_input": yes(true),
                "server_tools": {
                    "supported": true,
                    "code_execution": yes(true),
                    "web_search": yes(true),
                },
                "structured_outputs": yes(true),
                "thinking": {
                    "supported": true,
                    "types": {
                        "adaptive": yes(self.takes("adaptive")),
                        "between_tools": yes(self.takes("between_tools")),
                        "disabled": yes(self.takes("disabled")),
                        "enabled": yes(self.takes("enabled")),
                    },
                },
            },
        })
    }
}

/// Finds a model by id or dated id.
pub(crate) fn find(id: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.id == id || model.dated == Some(id))
}

/// Answers `GET /v1/models` with the query's `limit`, `after_id` and `before_id`.
///
/// # Errors
/// Returns what is wrong with the query.
pub(crate) fn list(query: &str) -> Result<Value, String> {
    let ids: Vec<&str> = MODELS.iter().map(|model| model.dated.unwrap_or(model.id)).collect();
    let (mut start, mut end, mut limit, mut last) = (0, ids.len(), 20, false);
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let at = || ids.iter().position(|id| *id == value);
        match name {
            "limit" => {
                limit = value
                    .parse()
                    .ok()
                    .filter(|n| (1..=1000).contains(n))
                    .ok_or("limit: Input should be between 1 and 1000")?;
            }
            "after_id" => start = at().ok_or("after_id: unknown model")? + 1,
            "before_id" => (end, last) = (at().ok_or("before_id: unknown model")?, true),
            _ => {}
        }
    }
    let range = &ids[start.min(end)..end];
    let more = range.len() > limit;
    let cut = range.len().saturating_sub(limit);
    let page = if last { &range[cut..] } else { &range[..range.len().min(limit)] };
    let data: Vec<Value> = page.iter().filter_map(|id| Some(find(id)?.record(id))).collect();
    Ok(json!({
        "data": data,
        "has_more": more,
        "first_id": page.first(),
        "last_id": page.last(),
    }))
}

const fn model(
    id: &'static str,
    name: &'static str,
    released: &'static str,
    min_cache: u64,
    thinking: Thinking,
    line: &'static str,
) -> Model {
    let (context, max_output, dated, retires) = (1_000_000, 128_000, None, None);
    Model { id, dated, name, released, context, max_output, min_cache, thinking, line, retires }
}

const fn small(mut model: Model, dated: &'static str) -> Model {
    model.dated = Some(dated);
    model.context = 200_000;
    model.max_output = 64_000;
    model
}

const fn retiring(mut model: Model, day: &'static str) -> Model {
    model.retires = Some(day);
    model
}

// Newest first, as the service lists them. Release days before 2026 are those in the dated ids; for
// 4-6 to 4-8 no source gives a day, so theirs only keep the order.
#[rustfmt::skip]
const MODELS: &[Model] = &[
    model("claude-fable-5-2", "Claude Fable 5.2", "2026-11-09", 512, Thinking::Always, "fable"),
    model("claude-mythos-5-2", "Claude Mythos 5.2", "2026-11-09", 512, Thinking::Always, "mythos"),
    model("claude-haiku-5-5", "Claude Haiku 5.5", "2026-10-07", 512, Thinking::AdaptiveUnlessHigh, "haiku"),
    model("claude-sonnet-5-5", "Claude Sonnet 5.5", "2026-09-28", 512, Thinking::BetweenTools, "sonnet"),
    model("claude-opus-5-5", "Claude Opus 5.5", "2026-09-22", 512, Thinking::Always, "opus"),
    model("claude-fable-5-1", "Claude Fable 5.1", "2026-09-01", 512, Thinking::Always, "fable"),
    model("claude-mythos-5-1", "Claude Mythos 5.1", "2026-09-01", 512, Thinking::Always, "mythos"),
    model("claude-opus-5", "Claude Opus 5", "2026-07-24", 512, Thinking::AdaptiveUnlessHigh, "opus"),
    model("claude-sonnet-5", "Claude Sonnet 5", "2026-06-30", 1024, Thinking::Adaptive, "sonnet"),
    model("claude-fable-5", "Claude Fable 5", "2026-06-09", 512, Thinking::Always, "fable"),
    model("claude-mythos-5", "Claude Mythos 5", "2026-06-09", 512, Thinking::Always, "mythos"),
    model("claude-opus-4-8", "Claude Opus 4.8", "2026-05-01", 1024, Thinking::AdaptiveOff, "opus"),
    model("claude-opus-4-7", "Claude Opus 4.7", "2026-04-01", 2048, Thinking::AdaptiveOff, "opus"),
    model("claude-opus-4-6", "Claude Opus 4.6", "2026-02-01", 4096, Thinking::AdaptiveOrBudget, "opus"),
    model("claude-sonnet-4-6", "Claude Sonnet 4.6", "2026-02-01", 1024, Thinking::AdaptiveOrBudget, "sonnet"),
    small(model("claude-opus-4-5", "Claude Opus 4.5", "2025-11-01", 4096, Thinking::Budget, "opus"), "claude-opus-4-5-20251101"),
    small(model("claude-haiku-4-5", "Claude Haiku 4.5", "2025-10-01", 4096, Thinking::Budget, "haiku"), "claude-haiku-4-5-20251001"),
    retiring(small(model("claude-sonnet-4-5", "Claude Sonnet 4.5", "2025-09-29", 1024, Thinking::Budget, "sonnet"), "claude-sonnet-4-5-20250929"), "2026-11-30"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other() {
        let all = list("limit=1000").unwrap();
        let data = all["data"].as_array().unwrap();
        assert_eq!((data.len(), &all["has_more"]), (MODELS.len(), &Value::Bool(false)));
        let first = list("limit=5").unwrap();
        assert_eq!(first["has_more"], true);
        let next = list(&format!("limit=5&after_id={}", first["last_id"].as_str().unwrap()));
        assert_eq!(next.unwrap()["data"][0], data[5]);
        let before = list("limit=2&before_id=claude-sonnet-5-5").unwrap();
        assert_eq!(before["data"][0]["id"], "claude-mythos-5-2");
        assert!(list("limit=0").is_err() && list("after_id=x").is_err());
    }

    #[test]
    fn rules_by_model() {
        let opus = find("claude-opus-5-5").unwrap();
        assert!(opus.binds_thinking() && !opus.takes("disabled") && !opus.forces_tools());
        let old = find("claude-opus-4-5-20251101").unwrap();
        assert!(old.takes("enabled") && !old.takes("adaptive") && old.prefill());
        let middle = find("claude-opus-4-6").unwrap();
        assert!(!middle.prefill() && middle.sampling() && !middle.binds_thinking());
    }
}
