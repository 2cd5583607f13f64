//! `models`: providers and models beyond, or instead of, the built-in catalog.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use moltbot_core::Secret;
use serde::Deserialize;

use super::{NonEmpty, Rest, Shape, Shaped, choice, section};

section! {
    /// What stands under `models`.
    #[derive(Default)]
    Models {
        /// Whether this adds to the generated catalog of an agent or takes its place; unset: merge.
        mode "mode": Option<CatalogMode>,
        /// Providers by id.
        #[serde(default)]
        providers "providers": BTreeMap<String, ProviderConfig>,
    } and Rest::Unchecked(&["bedrockDiscovery"])
}

choice! {
    /// Whether configured providers add to the catalog or take its place.
    CatalogMode {
        /// They are laid over it.
        Merge "merge",
        /// There are no others.
        Replace "replace",
    }
}

section! {
    /// One entry of `models.providers`.
    #[derive(Default)]
    ProviderConfig {
        /// Where requests go; unset: the provider's own address, if a plugin serves this id.
        base_url "baseUrl": Option<NonEmpty>,
        /// A key, or the name of a variable that holds one. Better kept in a profile.
        api_key "apiKey": Option<Secret>,
        /// Which kind of credential is used.
        auth "auth": Option<CredentialUse>,
        /// The dialect that the provider speaks.
        api "api": Option<Dialect>,
        /// Headers sent with every request.
        #[serde(default)]
        headers "headers": BTreeMap<String, Secret>,
        /// Whether `headers` may set the credential itself.
        auth_header "authHeader": Option<bool>,
        /// Its models; an empty list keeps the built-in ones.
        #[serde(default)]
        models "models": Vec<ModelEntry>,
    }
}

choice! {
    /// Which kind of credential a provider uses.
    CredentialUse {
        /// An API key.
        ApiKey "api-key",
        /// What the cloud's own library finds.
        AwsSdk "aws-sdk",
        /// An OAuth login.
        Oauth "oauth",
        /// A bearer token.
        Token "token",
    }
}

section! {
    /// One entry of a provider's `models`.
    ModelEntry {
        /// The id that is sent.
        id "id": NonEmpty,
        /// A name for display; unset: the id.
        name "name": Option<String>,
        /// The dialect, if it differs from the provider's.
        api "api": Option<Dialect>,
        /// Whether the model can think; unset: false.
        reasoning "reasoning": Option<bool>,
        /// What it takes; unset: text.
        input "input": Option<Vec<Modality>>,
        /// Prices; unset: as the catalog says, else 0.
        cost "cost": Option<Cost>,
        /// Tokens of context; unset: 200000.
        context_window "contextWindow": Option<NonZeroU32>,
        /// Longest reply in tokens; unset: the smaller of 8192 and the context.
        max_tokens "maxTokens": Option<NonZeroU32>,
        /// Headers sent with every request to this model.
        #[serde(default)]
        headers "headers": BTreeMap<String, Secret>,
    } and Rest::Unchecked(&["compat"])
}

choice! {
    /// A kind of input.
    Modality {
        /// Text.
        Text "text",
        /// Images.
        Image "image",
    }
}

section! {
    /// Prices in US dollars for a million tokens.
    #[derive(Default)]
    Cost {
        /// Input that is not cached.
        input "input": Option<f64>,
        /// Output.
        output "output": Option<f64>,
        /// Input read from the cache.
        cache_read "cacheRead": Option<f64>,
        /// Input written to the cache for five minutes.
        cache_write "cacheWrite": Option<f64>,
        /// Input written to the cache for an hour; unset: as `cacheWrite`.
        cache_write_1h "cacheWrite1h": Option<f64>,
    }
}

/// The name of a dialect, checked against those that exist.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Dialect(String);

impl Dialect {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Shaped for Dialect {
    const SHAPE: Shape = Shape::Dialect;
}
