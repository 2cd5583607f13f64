//! The models that answer today, with limits, prices and how they think (spec 09 A).
//!
//! Only models that a cited source lists and that are not retired. Prices are US dollars per
//! million tokens: input, output, cache read, cache write for five minutes, for an hour. A price
//! known only from a third party is left out whole, because a cost with one class missing would
//! look like a low cost. An id that is not here is sent as it is; the config can add or correct any.

use moltbot_core::{ModelInfo, Price, Text, Thinking};

/// Lists of ids and thinking modes: the official TypeScript SDK's own types.
const SDK: &str = "npm @anthropic-ai/sdk 1.12.0 (2026-11-20)";
/// Where prices stand beside it.
const PRICED: &str = "npm @anthropic-ai/sdk 1.12.0 (2026-11-20); prices: platform.claude.com/docs pricing (2026-08-22), litellm 1.106.2";

const MILLION: u64 = 1_000_000;

const ADAPTIVE: &[&str] = &["adaptive"];
const ADAPTIVE_OR_BETWEEN: &[&str] = &["adaptive", "between_tools"];
const ADAPTIVE_OR_OFF: &[&str] = &["adaptive", "disabled"];
const ADAPTIVE_OR_BUDGET: &[&str] = &["adaptive", "enabled", "disabled"];
const BUDGET: &[&str] = &["enabled", "disabled"];

/// Lists the catalog, newest generation first.
pub(crate) fn models() -> Vec<ModelInfo> {
    let fable = Price::new(10.0, 50.0, 1.0, 12.5, 20.0);
    let fable_1 = Price { cache_read: 0.25, ..fable };
    let opus = Price::new(5.0, 25.0, 0.5, 6.25, 10.0);
    let sonnet = Price::new(3.0, 15.0, 0.3, 3.75, 6.0);
    let haiku = Price::new(0.1, 0.5, 0.01, 0.125, 0.2);
    let haiku_long = Price::new(0.5, 2.5, 0.05, 0.625, 1.0);
    let unknown = Price::default();
    vec![
        ModelInfo {
            source: SDK.into(),
            ..new("claude-fable-5-2", "Claude Fable 5.2", ADAPTIVE, "", unknown, 0)
        },
        ModelInfo {
            source: SDK.into(),
            ..new("claude-mythos-5-2", "Claude Mythos 5.2", ADAPTIVE, "", unknown, 0)
        },
        new(
            "claude-opus-5-5",
            "Claude Opus 5.5",
            ADAPTIVE,
            "medium",
            Price::new(4.0, 20.0, 0.2, 5.0, 8.0),
            512,
        ),
        new(
            "claude-sonnet-5-5",
            "Claude Sonnet 5.5",
            ADAPTIVE_OR_BETWEEN,
            "high",
            Price::new(2.0, 10.0, 0.1, 2.5, 4.0),
            512,
        ),
        ModelInfo {
            price_above: Some((100_000, haiku_long)),
            ..new("claude-haiku-5-5", "Claude Haiku 5.5", ADAPTIVE_OR_OFF, "medium", haiku, 512)
        },
        new("claude-fable-5-1", "Claude Fable 5.1", ADAPTIVE, "high", fable_1, 512),
        new("claude-mythos-5-1", "Claude Mythos 5.1", ADAPTIVE, "high", fable_1, 512),
        new("claude-fable-5", "Claude Fable 5", ADAPTIVE, "high", fable, 512),
        new("claude-mythos-5", "Claude Mythos 5", ADAPTIVE, "high", fable, 512),
        new("claude-opus-5", "Claude Opus 5", ADAPTIVE_OR_OFF, "high", opus, 512),
        new(
            "claude-sonnet-5",
            "Claude Sonnet 5",
            ADAPTIVE_OR_OFF,
            "high",
            Price::new(2.0, 10.0, 0.2, 2.5, 4.0),
            1024,
        ),
        new("claude-opus-4-8", "Claude Opus 4.8", ADAPTIVE_OR_OFF, "", opus, 1024),
        new("claude-opus-4-7", "Claude Opus 4.7", ADAPTIVE_OR_OFF, "", opus, 2048),
        ModelInfo {
            fixed_sampling: false,
            ..new("claude-opus-4-6", "Claude Opus 4.6", ADAPTIVE_OR_BUDGET, "", opus, 4096)
        },
        ModelInfo {
            fixed_sampling: false,
            ..new("claude-sonnet-4-6", "Claude Sonnet 4.6", ADAPTIVE_OR_BUDGET, "", sonnet, 1024)
        },
        older("claude-opus-4-5", "claude-opus-4-5-20251101", "Claude Opus 4.5", opus, 4096),
        ModelInfo {
            retires: Some("2026-11-30".into()),
            ..older(
                "claude-sonnet-4-5",
                "claude-sonnet-4-5-20250929",
                "Claude Sonnet 4.5",
                sonnet,
                1024,
            )
        },
        older(
            "claude-haiku-4-5",
            "claude-haiku-4-5-20251001",
            "Claude Haiku 4.5",
            Price::new(1.0, 5.0, 0.1, 1.25, 2.0),
            4096,
        ),
    ]
}

/// A model of today: a million tokens of context, 128,000 of output, its own sampling.
fn new(
    id: &'static str,
    name: &'static str,
    modes: &[&'static str],
    effort: &'static str,
    price: Price,
    min_cache_tokens: u64,
) -> ModelInfo {
    ModelInfo {
        id: id.into(),
        name: name.into(),
        thinking: Thinking {
            modes: modes.iter().map(|mode| Text::Borrowed(mode)).collect(),
            default_effort: (!effort.is_empty()).then_some(effort.into()),
        },
        images: true,
        context_window: MILLION,
        max_output: 128_000,
        price,
        min_cache_tokens,
        fixed_sampling: true,
        source: PRICED.into(),
        ..ModelInfo::default()
    }
}

/// A model of the 4.5 generation: 200,000 tokens, 64,000 of output, thinking by budget; the ones
/// that holders of a subscription are offered (spec T-32).
fn older(
    id: &'static str,
    dated: &'static str,
    name: &'static str,
    price: Price,
    min_cache_tokens: u64,
) -> ModelInfo {
    ModelInfo {
        also: vec![dated.into()],
        context_window: 200_000,
        max_output: 64_000,
        fixed_sampling: false,
        subscription: true,
        ..new(id, name, BUDGET, "", price, min_cache_tokens)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use moltbot_core::Usage;

    use super::*;

    fn model(id: &str) -> ModelInfo {
        models().into_iter().find(|model| model.id == id).unwrap()
    }

    #[test]
    fn every_entry_is_whole_and_no_id_is_twice() {
        let mut seen = HashSet::new();
        for model in models() {
            assert!(!model.source.is_empty() && model.thinking.reasons(), "{}", model.id);
            assert!(model.max_output < model.context_window, "{}", model.id);
            for id in std::iter::once(&model.id).chain(&model.also) {
                assert!(seen.insert(id.clone()), "{id} is twice");
            }
        }
    }

    #[test]
    fn hour_writes_cost_twice_the_input_and_five_minutes_a_quarter_more() {
        for model in models().iter().filter(|model| model.price.is_known()) {
            let tiers = [Some(model.price), model.price_above.map(|(_, price)| price)];
            for price in tiers.into_iter().flatten() {
                assert!((price.cache_write_1h - 2.0 * price.input).abs() < 1e-9, "{}", model.id);
                assert!((price.cache_write_5m - 1.25 * price.input).abs() < 1e-9, "{}", model.id);
                assert!(price.cache_read <= price.input / 10.0 + 1e-9, "{}", model.id);
            }
        }
    }

    /// Spec case 55, second half.
    #[test]
    fn a_million_input_tokens_on_the_default_model_cost_five_dollars() {
        let usage = Usage { input: Some(1_000_000), ..Usage::default() };
        assert_eq!(model("claude-opus-4-5").cost(&usage), Some(5.0));
    }

    #[test]
    fn a_long_prompt_reprices_the_whole_request() {
        let haiku = model("claude-haiku-5-5");
        let cost = |input| haiku.cost(&Usage { input: Some(input), ..Usage::default() }).unwrap();
        assert!((cost(100_000) - 0.01).abs() < 1e-12);
        assert!((cost(100_001) - 0.050_000_5).abs() < 1e-12);
    }

    #[test]
    fn a_price_of_third_parties_is_no_price() {
        let usage = Usage { input: Some(1), ..Usage::default() };
        assert_eq!(model("claude-fable-5-2").cost(&usage), None);
    }

    #[test]
    fn subscriptions_are_offered_the_three_of_the_spec() {
        let offered: Vec<_> =
            models().into_iter().filter(|model| model.subscription).map(|model| model.id).collect();
        assert_eq!(offered, ["claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5"]);
    }
}
