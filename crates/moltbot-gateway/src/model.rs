//! Which models a request may go to, in which order (spec S-1 to S-3, S-22, S-24, C-27). Pure.

use std::fmt;
use std::sync::Arc;

use moltbot_config::{AgentId, Config, ModelChoice, ModelSettings};
use moltbot_core::ModelInfo;
use moltbot_profiles::normalize_provider;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::setup::Providers;

/// A model of a provider.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelRef {
    /// The provider's id.
    pub provider: String,
    /// The model as the provider knows it.
    pub model: String,
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.provider, self.model)
    }
}

/// A model reference, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The model.
    pub model: ModelRef,
    /// The alias it was named by.
    pub alias: Option<String>,
    /// The profile pinned with `@profile`.
    pub profile: Option<String>,
    /// What the user should know about the reference.
    pub warning: Option<String>,
}

/// The models of one request, in the order they are tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// What is tried.
    pub models: Vec<ModelRef>,
    /// What was configured and is left out, with the reason.
    pub skipped: Vec<(ModelRef, String)>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// The profile that the user pinned with the model.
    pub profile: Option<String>,
}

/// A model that the config mentions, for lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The model.
    pub model: ModelRef,
    /// `default`, `fallback#1`, `image`, `img-fallback#1`, `configured`, `alias:x`.
    pub tags: Vec<String>,
}

/// Why a model cannot be used. The texts are those of spec S-3 and S-24.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ModelError {
    /// It is no model reference.
    #[error("invalid model: {raw}")]
    Invalid {
        /// As typed.
        raw: String,
    },
    /// It pins a profile by half of its name.
    #[error("invalid model: {raw}; a profile is pinned by its whole name, as in {pin}")]
    HalfAPin {
        /// As typed.
        raw: String,
        /// What may have been meant.
        pin: String,
    },
    /// It is not on the allowlist.
    #[error("model not allowed: {key}")]
    NotAllowed {
        /// The model.
        key: ModelRef,
    },
    /// Nobody serves it.
    #[error("Unknown model: {key}{}", because(.why.as_deref()))]
    Unknown {
        /// The model.
        key: ModelRef,
        /// Why, if the config names the provider.
        why: Option<String>,
    },
    /// Nothing is configured for images.
    #[error(
        "No image model configured. Set agents.defaults.imageModel.primary or agents.defaults.imageModel.fallbacks."
    )]
    NoImageModel,
}

impl ModelError {
    /// Returns the code for `moltbot explain`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } | Self::HalfAPin { .. } | Self::NoImageModel => "input",
            Self::NotAllowed { .. } => "model-not-allowed",
            Self::Unknown { why: Some(_), .. } => "plugin-missing",
            Self::Unknown { why: None, .. } => "model-not-found",
        }
    }
}

fn because(why: Option<&str>) -> String {
    why.map_or(String::new(), |why| format!(" ({why})"))
}

/// Everything that decides about models, for one agent.
#[derive(Clone)]
pub struct Models {
    providers: Arc<Providers>,
    default: ModelRef,
    primary: Option<String>,
    agent_fallbacks: Option<Vec<String>>,
    fallbacks: Vec<String>,
    image: ModelChoice,
    entries: Vec<(String, ModelSettings)>,
}

impl Models {
    /// Reads the config for one agent.
    pub fn new(providers: Arc<Providers>, config: &Config, agent: &AgentId) -> Self {
        let defaults = config.agents.as_ref().and_then(|agents| agents.defaults.as_ref());
        let common = defaults.and_then(|defaults| defaults.model.clone()).unwrap_or_default();
        let own = config.agent(agent).and_then(|agent| agent.model.clone()).unwrap_or_default();
        let entries = defaults.into_iter().flat_map(|defaults| &defaults.models);
        let default = providers
            .all()
            .iter()
            .filter(|setup| !setup.borrowed && !setup.info.default_model.is_empty())
            // Of equals the first: providers are sorted by id.
            .min_by_key(|setup| std::cmp::Reverse(setup.info.priority))
            .map(|setup| ModelRef {
                provider: setup.id.clone(),
                model: setup.info.default_model.to_string(),
            });
        Self {
            default: default.unwrap_or(ModelRef { provider: String::new(), model: String::new() }),
            primary: own.primary.or(common.primary),
            agent_fallbacks: own.fallbacks,
            fallbacks: common.fallbacks.unwrap_or_default(),
            image: defaults.and_then(|defaults| defaults.image_model.clone()).unwrap_or_default(),
            entries: entries.map(|(key, entry)| (key.clone(), entry.clone())).collect(),
            providers,
        }
    }

    /// Understands a model reference (spec S-1): `provider/model`, an alias, or a model of the
    /// default provider; `@profile` at the end pins a profile.
    pub fn parse(&self, raw: &str) -> Result<Parsed, ModelError> {
        let invalid = || ModelError::Invalid { raw: raw.to_string() };
        let (text, profile) = split_pin(raw.trim());
        if text.is_empty() {
            return Err(invalid());
        }
        if let Some(error) = self.half_a_pin(text) {
            return Err(error);
        }
        let found = |model, alias| Parsed { model, alias, profile: profile.clone(), warning: None };
        if let Some((provider, model)) = text.split_once('/') {
            let (provider, model) = (provider.trim(), model.trim());
            if provider.is_empty() || model.is_empty() || looks_like_a_secret(text) {
                return Err(invalid());
            }
            return Ok(found(self.reference(provider, model), None));
        }
        let alias = self.aliases().into_iter().find(|(alias, _)| alias.eq_ignore_ascii_case(text));
        if let Some((alias, model)) = alias {
            return Ok(found(model, Some(alias)));
        }
        if self.default.provider.is_empty() || looks_like_a_secret(text) {
            return Err(invalid());
        }
        // The provider's own aliases work without being configured; a configured one wins.
        let own = self.providers.get(&self.default.provider).and_then(|setup| {
            setup.info.aliases.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(text))
        });
        if let Some((alias, model)) = own {
            let model = self.reference(&self.default.provider, model);
            return Ok(found(model, Some(alias.to_string())));
        }
        Ok(found(self.reference(&self.default.provider, text), None))
    }

    /// Finds a known model with a word behind it that pins nothing: `opus@work`. Dates may stand
    /// there; they belong to the ids of some services.
    fn half_a_pin(&self, text: &str) -> Option<ModelError> {
        let (model, name) = text.rsplit_once('@')?;
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let known = self.parse(model).ok()?.model;
        self.info(&known)?;
        let pin = format!("{model}@{}:{name}", known.provider);
        Some(ModelError::HalfAPin { raw: text.to_string(), pin })
    }

    /// Returns the configured model (spec S-2), the one without any config included.
    pub fn primary(&self) -> Parsed {
        let parsed = self.primary.as_deref().and_then(|raw| Some((raw, self.parse(raw).ok()?)));
        let Some((raw, mut parsed)) = parsed else {
            let model = self.default.clone();
            let warning = self.primary.as_ref().map(|raw| {
                format!("the configured model \"{raw}\" is no model reference; {model} is used")
            });
            return Parsed { model, alias: None, profile: None, warning };
        };
        if parsed.alias.is_none() && !raw.contains('/') {
            parsed.warning = Some(format!(
                "the model \"{raw}\" is neither an alias nor provider/model; {} is used, write it in full",
                parsed.model
            ));
        }
        parsed
    }

    /// Returns the configured model as it is written, or the built-in one.
    pub fn primary_raw(&self) -> String {
        self.primary.clone().unwrap_or_else(|| self.default.to_string())
    }

    /// Understands a model that somebody asks for, under the allowlist (spec S-3).
    pub fn requested(&self, raw: &str) -> Result<Parsed, ModelError> {
        let parsed = self.parse(raw)?;
        if !self.is_allowed(&parsed.model) && parsed.model != self.primary().model {
            return Err(ModelError::NotAllowed { key: parsed.model });
        }
        self.known(&parsed.model)?;
        Ok(parsed)
    }

    /// Lists what one request tries (spec S-22): the model asked for, the fallbacks, and, unless
    /// the agent has fallbacks of its own, the configured model. Duplicates count once.
    pub fn candidates(&self, requested: Option<&str>) -> Result<Candidates, ModelError> {
        let primary = self.primary();
        let first = match requested {
            Some(raw) => self.requested(raw)?,
            None => primary.clone(),
        };
        self.known(&first.model)?;
        let mut out = Candidates { profile: first.profile.clone(), ..Candidates::default() };
        out.warnings.extend(first.warning);
        out.models.push(first.model);
        for raw in self.agent_fallbacks.as_ref().unwrap_or(&self.fallbacks) {
            self.add_fallback(&mut out, raw, true);
        }
        if self.agent_fallbacks.is_none() && !out.models.contains(&primary.model) {
            out.models.push(primary.model);
        }
        Ok(out)
    }

    /// Lists what a request with images tries if the model asked for does not take any (S-24).
    pub fn image_candidates(&self) -> Result<Candidates, ModelError> {
        let mut out = Candidates::default();
        let fallbacks = self.image.fallbacks.iter().flatten();
        for raw in self.image.primary.iter().chain(fallbacks) {
            self.add_fallback(&mut out, raw, false);
        }
        if out.models.is_empty() { Err(ModelError::NoImageModel) } else { Ok(out) }
    }

    fn add_fallback(&self, out: &mut Candidates, raw: &str, limited: bool) {
        let Ok(Parsed { model, .. }) = self.parse(raw) else {
            out.warnings.push(format!("the fallback \"{raw}\" is no model reference"));
            return;
        };
        let seen = out.models.contains(&model) || out.skipped.iter().any(|(m, _)| *m == model);
        if seen {
            return;
        }
        if limited && !self.is_allowed(&model) {
            out.warnings.push(format!(
                "the fallback {model} is left out: it is not in agents.defaults.models"
            ));
            out.skipped.push((model, "not on the allowlist".into()));
            return;
        }
        match self.known(&model) {
            Ok(()) => out.models.push(model),
            Err(error) => {
                out.warnings.push(format!("the fallback {model} is left out: {error}"));
                out.skipped.push((model, error.to_string()));
            }
        }
    }

    /// Returns what is known of a model: the catalog, corrected by the config.
    pub fn info(&self, model: &ModelRef) -> Option<&ModelInfo> {
        self.providers.get(&model.provider)?.info.model(&model.model)
    }

    /// Returns the config's `params` for a model.
    pub fn params(&self, model: &ModelRef) -> Value {
        let entry = self.entries.iter().find(|(key, _)| self.key(key).as_ref() == Some(model));
        let params = entry.into_iter().flat_map(|(_, settings)| &settings.params);
        let params: Map<_, _> = params.map(|(k, v)| (k.clone(), v.value().clone())).collect();
        if params.is_empty() { Value::Null } else { Value::Object(params) }
    }

    /// Returns the provider whose program runs a model, if the config names one (`runtime`).
    pub fn runtime(&self, model: &ModelRef) -> Option<&str> {
        let own = |(key, _): &&(String, _)| self.key(key).as_ref() == Some(model);
        let entry = self.entries.iter().find(own);
        entry.and_then(|(_, settings)| settings.runtime.as_ref()).map(|runtime| runtime.as_str())
    }

    /// Lists the aliases: the config's, and the built-in ones of entries without any (C-27).
    pub fn aliases(&self) -> Vec<(String, ModelRef)> {
        let mut out: Vec<(String, ModelRef)> = Vec::new();
        let mut bare = Vec::new();
        for (key, entry) in &self.entries {
            let Some(model) = self.key(key) else { continue };
            match &entry.alias {
                Some(alias) if !alias.trim().is_empty() => {
                    out.push((alias.trim().to_string(), model));
                }
                Some(_) => {}
                None => bare.push(model),
            }
        }
        for model in bare {
            let Some(setup) = self.providers.get(&model.provider) else { continue };
            let built_in = setup.info.aliases.iter().filter(|(_, id)| *id == model.model);
            for (alias, _) in built_in {
                if !out.iter().any(|(known, _)| known.eq_ignore_ascii_case(alias)) {
                    out.push((alias.to_string(), model.clone()));
                }
            }
        }
        out
    }

    /// Returns the allowlist, if there is one: the keys of `agents.defaults.models`.
    pub fn allowlist(&self) -> Option<Vec<ModelRef>> {
        let keys: Vec<_> = self.entries.iter().filter_map(|(key, _)| self.key(key)).collect();
        (!self.entries.is_empty()).then_some(keys)
    }

    /// Lists every model that the config mentions, in the order default, fallbacks, image model,
    /// image fallbacks, others.
    pub fn listed(&self) -> Vec<Listed> {
        let mut out: Vec<Listed> = Vec::new();
        let mut add = |model: ModelRef, tag: String| match out
            .iter_mut()
            .find(|listed| listed.model == model)
        {
            Some(listed) => listed.tags.push(tag),
            None => out.push(Listed { model, tags: vec![tag] }),
        };
        let parsed = |raw: &String| self.parse(raw).ok().map(|parsed| parsed.model);
        add(self.primary().model, "default".into());
        let fallbacks = self.agent_fallbacks.as_ref().unwrap_or(&self.fallbacks);
        for (model, number) in fallbacks.iter().filter_map(parsed).zip(1..) {
            add(model, format!("fallback#{number}"));
        }
        if let Some(model) = self.image.primary.as_ref().and_then(parsed) {
            add(model, "image".into());
        }
        for (model, number) in self.image.fallbacks.iter().flatten().filter_map(parsed).zip(1..) {
            add(model, format!("img-fallback#{number}"));
        }
        for model in self.allowlist().into_iter().flatten() {
            add(model, "configured".into());
        }
        for (alias, model) in self.aliases() {
            add(model, format!("alias:{alias}"));
        }
        out
    }

    fn is_allowed(&self, model: &ModelRef) -> bool {
        self.allowlist().is_none_or(|allowed| allowed.contains(model))
    }

    fn known(&self, model: &ModelRef) -> Result<(), ModelError> {
        if self.providers.get(&model.provider).is_some() {
            return Ok(());
        }
        let why = self.providers.missing(&model.provider).map(String::from);
        Err(ModelError::Unknown { key: model.clone(), why })
    }

    /// Understands a key of `agents.defaults.models`; aliases are not looked at.
    fn key(&self, key: &str) -> Option<ModelRef> {
        match key.split_once('/') {
            Some((provider, model)) if !provider.trim().is_empty() && !model.trim().is_empty() => {
                Some(self.reference(provider.trim(), model.trim()))
            }
            Some(_) => None,
            None if key.trim().is_empty() => None,
            None => Some(self.reference(&self.default.provider, key.trim())),
        }
    }

    fn reference(&self, provider: &str, model: &str) -> ModelRef {
        let Some(setup) = self.providers.get(provider) else {
            let provider = normalize_provider(provider);
            return ModelRef { provider, model: model.to_string() };
        };
        let short =
            setup.info.short_names.iter().find(|(name, _)| name.eq_ignore_ascii_case(model));
        let model = short.map_or(model, |(_, id)| id.as_ref()).to_string();
        ModelRef { provider: setup.id.clone(), model }
    }
}

/// Tells whether a credential was typed where a model belongs; it must not get into a config.
fn looks_like_a_secret(text: &str) -> bool {
    moltbot_core::redact(text) != text
}

/// Splits `model@provider:name`. A model id may hold an `@`, a profile id always holds a `:`.
fn split_pin(text: &str) -> (&str, Option<String>) {
    match text.rsplit_once('@') {
        Some((model, profile)) if profile.contains(':') => {
            (model.trim_end(), Some(profile.trim().to_string()))
        }
        _ => (text, None),
    }
}
