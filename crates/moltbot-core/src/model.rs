//! What is known of a provider's models: limits, prices, usage and cost.

use serde::{Deserialize, Serialize};

use crate::Text;

/// One model of a provider's catalog. Unknown models are sent as they are; the catalog only adds
/// limits, prices and warnings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ModelInfo {
    /// The id sent.
    pub id: Text,
    /// The name for people.
    pub name: Text,
    /// Other ids of the same model.
    pub also: Vec<Text>,
    /// How it reasons.
    pub thinking: Thinking,
    /// Whether it accepts images.
    pub images: bool,
    /// Tokens of input and output together.
    pub context_window: u64,
    /// The highest `max_tokens`.
    pub max_output: u64,
    /// Prices.
    pub price: Price,
    /// Prices of the whole request if its input exceeds a number of tokens.
    pub price_above: Option<(u64, Price)>,
    /// The shortest prefix that is cached, in tokens.
    pub min_cache_tokens: u64,
    /// Whether non-default `temperature`, `top_p` and `top_k` are refused.
    pub fixed_sampling: bool,
    /// Whether the wizard offers it to holders of a subscription.
    pub subscription: bool,
    /// The day it stops answering, `YYYY-MM-DD`.
    pub retires: Option<Text>,
    /// Where these figures come from.
    pub source: Text,
}

/// How a model reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Thinking {
    /// Accepted values of `thinking.type`; empty if it does not reason.
    pub modes: Vec<Text>,
    /// The effort without `output_config.effort`, for models that have one.
    pub default_effort: Option<Text>,
}

impl Thinking {
    /// Tells whether the model reasons at all.
    pub fn reasons(&self) -> bool {
        !self.modes.is_empty()
    }

    /// Tells whether `thinking.type` may have this value.
    pub fn has(&self, mode: &str) -> bool {
        self.modes.iter().any(|known| known == mode)
    }
}

/// Prices in US dollars per million tokens; zero means unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Price {
    /// Input that was neither read from nor written to the cache.
    pub input: f64,
    /// Output, thinking included.
    pub output: f64,
    /// Input read from the cache.
    pub cache_read: f64,
    /// Input written to the cache for five minutes.
    pub cache_write_5m: f64,
    /// Input written to the cache for an hour.
    pub cache_write_1h: f64,
}

impl Price {
    /// Makes a price list.
    pub const fn new(input: f64, output: f64, read: f64, write_5m: f64, write_1h: f64) -> Self {
        Self { input, output, cache_read: read, cache_write_5m: write_5m, cache_write_1h: write_1h }
    }

    /// Tells whether any price is known.
    pub fn is_known(&self) -> bool {
        self.input > 0.0 || self.output > 0.0
    }
}

impl ModelInfo {
    /// Computes what `usage` costs, in US dollars; `None` if no price is known.
    pub fn cost(&self, usage: &Usage) -> Option<f64> {
        let price = match &self.price_above {
            Some((limit, above)) if usage.all_input() > *limit => above,
            _ => &self.price,
        };
        price.is_known().then(|| usage.cost(price))
    }
}

/// Tokens of one turn. `None` means that the service has not said; a later message without a
/// figure does not reset it (spec T-26).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Usage {
    /// Input that was neither read from nor written to the cache.
    pub input: Option<u64>,
    /// Output, thinking included.
    pub output: Option<u64>,
    /// Input read from the cache.
    pub cache_read: Option<u64>,
    /// Input written to the cache, both lifetimes together.
    pub cache_write: Option<u64>,
    /// The part of `cache_write` that lives five minutes, if the reply splits it.
    pub cache_write_5m: Option<u64>,
    /// The part of `cache_write` that lives an hour, if the reply splits it.
    pub cache_write_1h: Option<u64>,
}

impl Usage {
    /// Takes over every figure that `later` has.
    pub fn merge(&mut self, later: &Usage) {
        for (mine, theirs) in [
            (&mut self.input, later.input),
            (&mut self.output, later.output),
            (&mut self.cache_read, later.cache_read),
            (&mut self.cache_write, later.cache_write),
            (&mut self.cache_write_5m, later.cache_write_5m),
            (&mut self.cache_write_1h, later.cache_write_1h),
        ] {
            *mine = theirs.or(*mine);
        }
    }

    /// Adds the figures of another turn.
    pub fn add(&mut self, other: &Usage) {
        for (mine, theirs) in [
            (&mut self.input, other.input),
            (&mut self.output, other.output),
            (&mut self.cache_read, other.cache_read),
            (&mut self.cache_write, other.cache_write),
            (&mut self.cache_write_5m, other.cache_write_5m),
            (&mut self.cache_write_1h, other.cache_write_1h),
        ] {
            if let Some(theirs) = theirs {
                *mine = Some(mine.unwrap_or(0).saturating_add(theirs));
            }
        }
    }

    /// Returns all input tokens: fresh, read and written.
    pub fn all_input(&self) -> u64 {
        [self.input, self.cache_read, self.cache_write]
            .into_iter()
            .flatten()
            .fold(0, u64::saturating_add)
    }

    /// Returns all tokens.
    pub fn total(&self) -> u64 {
        self.all_input().saturating_add(self.output.unwrap_or(0))
    }

    /// Computes the cost in US dollars. Cache writes that the reply does not split are priced as
    /// five-minute ones.
    pub fn cost(&self, price: &Price) -> f64 {
        let written = self.cache_write.unwrap_or(0);
        let hour = self.cache_write_1h.unwrap_or(0).min(written);
        let class = |tokens: u64, price: f64| tokens as f64 * price / 1e6;
        class(self.input.unwrap_or(0), price.input)
            + class(self.output.unwrap_or(0), price.output)
            + class(self.cache_read.unwrap_or(0), price.cache_read)
            + class(written - hour, price.cache_write_5m)
            + class(hour, price.cache_write_1h)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opus() -> ModelInfo {
        ModelInfo { price: Price::new(5.0, 25.0, 0.5, 6.25, 10.0), ..ModelInfo::default() }
    }

    #[test]
    fn a_million_input_tokens_cost_the_price() {
        let usage = Usage { input: Some(1_000_000), ..Usage::default() };
        assert_eq!(opus().cost(&usage), Some(5.0));
        assert_eq!(ModelInfo::default().cost(&usage), None);
    }

    #[test]
    fn hour_writes_are_priced_apart() {
        let usage = Usage {
            cache_write: Some(2_000_000),
            cache_write_1h: Some(1_000_000),
            ..Usage::default()
        };
        assert_eq!(opus().cost(&usage), Some(16.25));
    }

    #[test]
    fn a_tier_reprices_the_whole_request() {
        let tier = Price::new(50.0, 0.0, 0.0, 0.0, 0.0);
        let model = ModelInfo { price_above: Some((100, tier)), ..opus() };
        let usage = |input| Usage { input: Some(input), ..Usage::default() };
        assert_eq!(model.cost(&usage(100)), Some(100.0 * 5.0 / 1e6));
        assert_eq!(model.cost(&usage(101)), Some(101.0 * 50.0 / 1e6));
    }

    #[test]
    fn a_missing_figure_keeps_the_last_one() {
        let mut usage = Usage { input: Some(7), output: Some(1), ..Usage::default() };
        usage.merge(&Usage { output: Some(5), ..Usage::default() });
        assert_eq!((usage.input, usage.output), (Some(7), Some(5)));
    }
}
