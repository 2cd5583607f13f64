//! The providers as this user has them: what plugins bring, corrected and extended by the config
//! (spec C-24 to C-26, decision 11).

use std::collections::BTreeMap;

use moltbot_config::{CatalogMode, Config, Cost, Modality, ModelEntry, ProviderConfig};
use moltbot_core::{
    ApiKeySpec, Header, ModelInfo, Price, ProviderEntry, ProviderInfo, Registry, Secret, Text,
    Thinking,
};
use moltbot_profiles::normalize_provider;
use reqwest::Url;

use crate::http::origin;
use crate::scan::Patterns;

/// Headers that carry a credential; the config may set them only with `authHeader`.
const CREDENTIAL_HEADERS: [&str; 4] =
    ["authorization", "cookie", "proxy-authorization", "x-api-key"];

/// One provider, ready to be used.
#[derive(Clone)]
pub struct ProviderSetup {
    /// Its id: the plugin's, or the config's own.
    pub id: String,
    /// The plugin that translates.
    pub entry: ProviderEntry,
    /// What it is, with the config's corrections.
    pub info: ProviderInfo,
    /// Where its requests go; no slash at the end.
    pub base_url: String,
    /// Whether that address stands in the user's config.
    pub own_base_url: bool,
    /// Whether the config made it up and only borrows the plugin's language.
    pub borrowed: bool,
    /// The origins its credentials may be sent to.
    pub origins: Vec<String>,
    pub(crate) config: Option<ProviderConfig>,
    pub(crate) patterns: Patterns,
}

/// All providers, and those that this build cannot serve.
#[derive(Clone, Default)]
pub struct Providers {
    ready: Vec<ProviderSetup>,
    missing: BTreeMap<String, String>,
}

impl Providers {
    /// Lays the config over what the plugins bring. With `lab` every provider is asked there and
    /// nowhere else.
    pub fn new(registry: &Registry, config: &Config, lab: Option<&str>) -> Self {
        let models = config.models.as_ref();
        let replace = models.is_some_and(|models| models.mode == Some(CatalogMode::Replace));
        let mut settings: BTreeMap<String, &ProviderConfig> = BTreeMap::new();
        for (id, provider) in models.into_iter().flat_map(|models| &models.providers) {
            let id = normalize_provider(id);
            let known = registry.provider(&id).map(|entry| entry.info.id.to_string());
            settings.insert(known.unwrap_or(id), provider);
        }
        let mut out = Self::default();
        for entry in registry.providers() {
            let own = settings.remove(entry.info.id.as_ref());
            out.ready.push(ProviderSetup::plugins(*entry, own, replace));
        }
        for (id, provider) in settings {
            match ProviderSetup::borrowing(registry, &id, provider, replace) {
                Ok(setup) => out.ready.push(setup),
                Err(why) => {
                    out.missing.insert(id, why);
                }
            }
        }
        if let Some(lab) = lab {
            for setup in &mut out.ready {
                setup.base_url = lab.trim_end_matches('/').to_string();
                setup.origins = origin_of(lab).into_iter().collect();
                setup.own_base_url = false;
            }
        }
        out
    }

    /// Lists the providers that can be used, the plugins' first.
    pub fn all(&self) -> &[ProviderSetup] {
        &self.ready
    }

    /// Finds a provider by its id or an older spelling of it.
    pub fn get(&self, id: &str) -> Option<&ProviderSetup> {
        let id = normalize_provider(id);
        self.ready.iter().find(|setup| {
            setup.id == id
                || (!setup.borrowed && setup.info.legacy_ids.iter().any(|old| *old == id))
        })
    }

    /// Says why a provider of the config cannot be used in this build.
    pub fn missing(&self, id: &str) -> Option<&str> {
        self.missing.get(&normalize_provider(id)).map(String::as_str)
    }
}

impl ProviderSetup {
    fn plugins(entry: ProviderEntry, config: Option<&ProviderConfig>, replace: bool) -> Self {
        let mut info = entry.info.clone();
        let own = config.and_then(|config| config.base_url.as_ref());
        let base_url = own.map_or(info.base_url.as_ref(), |own| own.as_str());
        let base_url = base_url.trim_end_matches('/').to_string();
        let mut origins: Vec<String> = info.origins.iter().map(ToString::to_string).collect();
        if own.is_some() {
            origins.extend(origin_of(&base_url));
        }
        correct(&mut info.catalog, config, replace);
        let patterns = Patterns::new(&info.reads);
        Self {
            id: info.id.to_string(),
            entry,
            info,
            base_url,
            own_base_url: own.is_some(),
            borrowed: false,
            origins,
            config: config.cloned(),
            patterns,
        }
    }

    /// A provider that only the config knows: own id, origin and profiles; of the plugin only the
    /// language.
    fn borrowing(
        registry: &Registry,
        id: &str,
        config: &ProviderConfig,
        replace: bool,
    ) -> Result<Self, String> {
        let Some(dialect) = &config.api else {
            return Err(format!(
                "no plugin of this build serves \"{id}\", and models.providers.{id}.api names no dialect"
            ));
        };
        let Some(entry) = registry.dialect(dialect.as_str()) else {
            return Err(format!("no plugin of this build speaks \"{}\"", dialect.as_str()));
        };
        let Some(base_url) = &config.base_url else {
            return Err(format!("models.providers.{id}.baseUrl is missing"));
        };
        let base_url = base_url.as_str().trim_end_matches('/').to_string();
        let lender = entry.info;
        let mut info = ProviderInfo {
            id: id.to_string().into(),
            label: id.to_string().into(),
            api_key: Some(ApiKeySpec {
                label: format!("{id} API key").into(),
                ..ApiKeySpec::default()
            }),
            base_url: base_url.clone().into(),
            origins: origin_of(&base_url).into_iter().map(Text::from).collect(),
            dialect: lender.dialect.clone(),
            params: lender.params.clone(),
            reads: lender.reads.clone(),
            body: lender.body,
            ..ProviderInfo::default()
        };
        correct(&mut info.catalog, Some(config), replace);
        Ok(Self {
            id: id.to_string(),
            entry: *entry,
            base_url,
            own_base_url: true,
            borrowed: true,
            origins: info.origins.iter().map(ToString::to_string).collect(),
            patterns: Patterns::new(&info.reads),
            info,
            config: Some(config.clone()),
        })
    }

    /// Headers of the config for a model: the provider's, then the model's own. None of them
    /// carries a credential.
    pub(crate) fn extra_headers(&self, model: &str) -> Vec<Header<'static>> {
        let plain = |(name, value): (&String, &Secret)| {
            Header::new(name.clone(), value.expose().to_string())
        };
        self.config_headers(model).filter(|(name, _)| !is_credential(name)).map(plain).collect()
    }

    /// Headers of the config that carry a credential, if `authHeader` allows them.
    pub(crate) fn credential_headers(&self, model: &str) -> Vec<(String, Secret)> {
        if self.config.as_ref().and_then(|config| config.auth_header) != Some(true) {
            return Vec::new();
        }
        let own = |(name, value): (&String, &Secret)| (name.to_lowercase(), value.clone());
        self.config_headers(model).filter(|(name, _)| is_credential(name)).map(own).collect()
    }

    fn config_headers(&self, model: &str) -> impl Iterator<Item = (&String, &Secret)> {
        let config = self.config.as_ref();
        let models = config.into_iter().flat_map(|config| &config.models);
        let of_model = models.filter(move |entry| entry.id.as_str() == model);
        let general = config.into_iter().flat_map(|config| &config.headers);
        general.chain(of_model.flat_map(|entry| &entry.headers))
    }
}

fn is_credential(name: &str) -> bool {
    CREDENTIAL_HEADERS.iter().any(|known| name.eq_ignore_ascii_case(known))
}

fn origin_of(url: &str) -> Option<String> {
    Url::parse(url).ok().map(|url| origin(&url))
}

/// Lays the config's models over a catalog: known ones are corrected where the config says
/// something, others are added.
fn correct(catalog: &mut Vec<ModelInfo>, config: Option<&ProviderConfig>, replace: bool) {
    let Some(config) = config.filter(|config| !config.models.is_empty()) else { return };
    let before = if replace { std::mem::take(catalog) } else { catalog.clone() };
    for entry in &config.models {
        let id = entry.id.as_str();
        let known =
            before.iter().find(|model| model.id == id || model.also.iter().any(|a| a == id));
        let corrected = model_info(entry, known);
        match catalog.iter_mut().find(|model| model.id == corrected.id) {
            Some(place) => *place = corrected,
            None => catalog.push(corrected),
        }
    }
}

fn model_info(entry: &ModelEntry, known: Option<&ModelInfo>) -> ModelInfo {
    let mut info = known.cloned().unwrap_or_else(|| ModelInfo {
        id: entry.id.as_str().to_string().into(),
        name: entry.id.as_str().to_string().into(),
        context_window: 200_000,
        source: "config".into(),
        ..ModelInfo::default()
    });
    if let Some(name) = &entry.name {
        info.name = name.clone().into();
    }
    if let Some(window) = entry.context_window {
        info.context_window = window.get().into();
    }
    if let Some(most) = entry.max_tokens {
        info.max_output = most.get().into();
    } else if known.is_none() {
        info.max_output = info.context_window.min(8_192);
    }
    match entry.reasoning {
        Some(false) => info.thinking = Thinking::default(),
        Some(true) if !info.thinking.reasons() => {
            info.thinking = Thinking { modes: vec!["enabled".into()], default_effort: None };
        }
        _ => {}
    }
    if let Some(input) = &entry.input {
        info.images = input.contains(&Modality::Image);
    }
    if let Some(cost) = &entry.cost {
        info.price = price(cost, &info.price);
        info.price_above = None;
    }
    info
}

fn price(cost: &Cost, known: &Price) -> Price {
    let write = cost.cache_write.unwrap_or(known.cache_write_5m);
    let hour = cost.cache_write_1h.or(cost.cache_write).unwrap_or(known.cache_write_1h);
    Price::new(
        cost.input.unwrap_or(known.input),
        cost.output.unwrap_or(known.output),
        cost.cache_read.unwrap_or(known.cache_read),
        write,
        hour,
    )
}
