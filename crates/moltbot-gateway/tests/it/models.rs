//! Model references, allowlists and fallbacks (spec S-1 to S-3, S-22, S-24, C-27).

use std::sync::Arc;

use moltbot_config::AgentId;
use moltbot_gateway::*;
use serde_json::{Value, json};

use crate::stage::*;

fn models(defaults: Value, agent: Value) -> Models {
    let list = if agent.is_null() { json!([]) } else { json!([agent]) };
    let config = config(json!({
        "agents": {"defaults": defaults, "list": list},
        "models": {"providers": {
            "acme": {"baseUrl": "https://acme.example", "api": "anthropic-messages", "models": []},
            "openai": {"baseUrl": "https://openai.example", "api": "openai-completions", "models": []},
        }},
    }));
    let providers = Arc::new(Providers::new(registry(), &config, None));
    Models::new(providers, &config, &AgentId::normalize("main"))
}

fn plain() -> Models {
    models(json!({}), Value::Null)
}

fn names(candidates: &Candidates) -> Vec<String> {
    candidates.models.iter().map(ToString::to_string).collect()
}

#[test]
fn references_are_understood() {
    let models =
        models(json!({"models": {"anthropic/claude-opus-4-5": {"alias": "Best"}}}), Value::Null);
    for (raw, expected) in [
        ("anthropic/claude-haiku-4-5", "anthropic/claude-haiku-4-5"),
        (" Anthropic / claude-haiku-4-5 ", "anthropic/claude-haiku-4-5"),
        ("acme/a/b", "acme/a/b"),
        ("best", "anthropic/claude-opus-4-5"),
        ("opus-4.5", "anthropic/claude-opus-4-5"),
        ("anthropic/sonnet-4.5", "anthropic/claude-sonnet-4-5"),
        ("claude-new-9", "anthropic/claude-new-9"),
        ("acme/opus-4.5", "acme/opus-4.5"),
        ("acme/m@2025", "acme/m@2025"),
        ("acme/m@word", "acme/m@word"),
        ("claude-opus-4-5@20251101", "anthropic/claude-opus-4-5@20251101"),
    ] {
        assert_eq!(models.parse(raw).unwrap().model.to_string(), expected, "{raw}");
    }
    for raw in ["", "  ", "/m", "acme/", "acme/ ", "@acme:x"] {
        let error = models.parse(raw).unwrap_err();
        assert_eq!(error.to_string(), format!("invalid model: {raw}"));
    }
    for raw in ["opus-4.5@work", "best@work", "anthropic/claude-haiku-4-5@work"] {
        let error = models.parse(raw).unwrap_err();
        let (model, _) = raw.split_once('@').unwrap();
        let hint = format!("a profile is pinned by its whole name, as in {model}@anthropic:work");
        assert_eq!(error.to_string(), format!("invalid model: {raw}; {hint}"));
        assert_eq!(error.code(), "input");
    }
    let pinned = models.parse("best@anthropic:work").unwrap();
    assert_eq!(
        (pinned.alias.as_deref(), pinned.profile.as_deref()),
        (Some("Best"), Some("anthropic:work"))
    );
}

#[test]
fn the_primary_comes_from_agent_defaults_or_the_build() {
    assert_eq!(plain().primary().model.to_string(), "anthropic/claude-opus-4-5");
    assert_eq!(plain().primary().warning, None);
    let common = models(json!({"model": {"primary": "acme/a"}}), Value::Null);
    assert_eq!(common.primary().model.to_string(), "acme/a");
    let own = models(json!({"model": "acme/a"}), json!({"id": "main", "model": "acme/b"}));
    assert_eq!(own.primary().model.to_string(), "acme/b");
    let bare = models(json!({"model": "claude-haiku-4-5"}), Value::Null).primary();
    assert_eq!(bare.model.to_string(), "anthropic/claude-haiku-4-5");
    assert!(bare.warning.unwrap().contains("claude-haiku-4-5"));
    let broken = models(json!({"model": "acme/"}), Value::Null).primary();
    assert_eq!(broken.model.to_string(), "anthropic/claude-opus-4-5");
    assert!(broken.warning.is_some());
}

#[test]
fn the_allowlist_binds_requests_and_fallbacks_but_not_the_primary() {
    let models = models(
        json!({
            "model": {"primary": "acme/primary", "fallbacks": ["acme/allowed", "acme/forbidden", "openai/gpt"]},
            "models": {"acme/allowed": {}, "opus-4.5": {}, "openai/gpt": {}},
        }),
        Value::Null,
    );
    assert!(models.requested("acme/allowed").is_ok());
    assert!(models.requested("acme/primary").is_ok());
    assert!(models.requested("anthropic/claude-opus-4-5").is_ok(), "a key without a slash counts");
    let error = models.requested("acme/other").unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.code()),
        ("model not allowed: acme/other", "model-not-allowed")
    );
    let candidates = models.candidates(None).unwrap();
    assert_eq!(names(&candidates), ["acme/primary", "acme/allowed"]);
    assert_eq!(candidates.skipped.len(), 2);
    assert!(candidates.warnings.iter().any(|text| text.contains("acme/forbidden")));
    assert!(candidates.warnings.iter().any(|text| text.contains("openai-completions")));
}

#[test]
fn unknown_providers_are_told_apart_from_missing_plugins() {
    let error = plain().requested("nobody/m").unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.code()),
        ("Unknown model: nobody/m", "model-not-found")
    );
    let error = plain().requested("openai/m").unwrap_err();
    assert!(error.to_string().contains("speaks \"openai-completions\""), "{error}");
    assert_eq!(error.code(), "plugin-missing");
}

#[test]
fn candidates_end_with_the_primary_unless_the_agent_has_a_list() {
    let defaults =
        json!({"model": {"primary": "acme/p", "fallbacks": ["acme/f", "acme/p", "acme/f"]}});
    let common = models(defaults.clone(), Value::Null);
    assert_eq!(names(&common.candidates(Some("acme/x")).unwrap()), ["acme/x", "acme/f", "acme/p"]);
    assert_eq!(names(&common.candidates(None).unwrap()), ["acme/p", "acme/f"]);
    let none = models(defaults.clone(), json!({"id": "main", "model": {"fallbacks": []}}));
    assert_eq!(names(&none.candidates(Some("acme/x")).unwrap()), ["acme/x"]);
    assert_eq!(names(&none.candidates(None).unwrap()), ["acme/p"]);
    let own = models(
        defaults,
        json!({"id": "main", "model": {"primary": "acme/q", "fallbacks": ["acme/g"]}}),
    );
    assert_eq!(names(&own.candidates(Some("acme/x")).unwrap()), ["acme/x", "acme/g"]);
    let other = models(
        json!({"model": {"fallbacks": ["acme/f"]}}),
        json!({"id": "work", "model": "acme/w"}),
    );
    assert_eq!(
        names(&other.candidates(None).unwrap())[0],
        "anthropic/claude-opus-4-5",
        "another agent's model is not ours"
    );
}

#[test]
fn built_in_aliases_are_for_listed_models_without_one() {
    assert!(plain().aliases().is_empty());
    let models = models(
        json!({"models": {"anthropic/claude-opus-4-5": {}, "anthropic/claude-sonnet-4-5": {"alias": "s"}, "acme/m": {"alias": "opus"}}}),
        Value::Null,
    );
    let aliases: Vec<_> = models.aliases().into_iter().map(|(a, m)| format!("{a}={m}")).collect();
    assert_eq!(aliases, ["opus=acme/m", "s=anthropic/claude-sonnet-4-5"], "the user's alias wins");
}

#[test]
fn image_models_have_their_own_list() {
    let error = plain().image_candidates().unwrap_err();
    assert_eq!(
        error.to_string(),
        "No image model configured. Set agents.defaults.imageModel.primary or agents.defaults.imageModel.fallbacks."
    );
    let models = models(
        json!({"imageModel": {"primary": "acme/i", "fallbacks": ["acme/j", "acme/i"]}}),
        Value::Null,
    );
    assert_eq!(names(&models.image_candidates().unwrap()), ["acme/i", "acme/j"]);
}

#[test]
fn everything_the_config_mentions_is_listed_once() {
    let models = models(
        json!({
            "model": {"primary": "acme/p", "fallbacks": ["acme/f"]},
            "imageModel": "acme/f",
            "models": {"acme/p": {"alias": "pp"}, "acme/c": {}, "acme/f": {}},
        }),
        Value::Null,
    );
    let listed: Vec<_> =
        models.listed().into_iter().map(|l| format!("{} {}", l.model, l.tags.join(","))).collect();
    assert_eq!(
        listed,
        [
            "acme/p default,configured,alias:pp",
            "acme/f fallback#1,image,configured",
            "acme/c configured"
        ]
    );
}

#[test]
fn the_config_corrects_and_extends_the_catalog() {
    let config = config(json!({"models": {"providers": {
        "anthropic": {"models": [
            {"id": "claude-opus-4-5", "name": "Mine", "cost": {"input": 1}},
            {"id": "claude-next", "reasoning": true, "input": ["text", "image"], "contextWindow": 50000},
        ]},
        "acme": {"baseUrl": "https://acme.example/", "api": "anthropic-messages", "models": [{"id": "small", "contextWindow": 4000}]},
    }}}));
    let providers = Providers::new(registry(), &config, None);
    let anthropic = &providers.get("anthropic").unwrap().info;
    let opus = anthropic.model("claude-opus-4-5").unwrap();
    assert_eq!((opus.name.as_ref(), opus.price.input, opus.price.output), ("Mine", 1.0, 25.0));
    assert!(opus.thinking.reasons(), "what the config does not say stays");
    let next = anthropic.model("claude-next").unwrap();
    assert!(next.images && next.thinking.has("enabled"));
    assert_eq!((next.context_window, next.max_output), (50_000, 8_192));
    assert!(anthropic.model("claude-haiku-4-5").is_some());
    let acme = providers.get("acme").unwrap();
    assert_eq!(
        (acme.base_url.as_str(), acme.origins.as_slice()),
        ("https://acme.example", &["https://acme.example".to_string()][..])
    );
    assert!(acme.info.env.is_empty() && acme.borrowed);
    assert_eq!(acme.info.model("small").unwrap().max_output, 4_000);
}

#[test]
fn another_address_is_allowed_only_beside_the_providers_own() {
    let config = config(
        json!({"models": {"providers": {"anthropic": {"baseUrl": "https://proxy.example/x/", "models": []}}}}),
    );
    let providers = Providers::new(registry(), &config, None);
    let setup = providers.get("anthropic").unwrap();
    assert!(setup.own_base_url);
    assert_eq!(setup.base_url, "https://proxy.example/x");
    assert!(setup.origins.contains(&"https://proxy.example".to_string()));
    let lab = Providers::new(registry(), &config, Some("http://127.0.0.1:9/"));
    let setup = lab.get("anthropic").unwrap();
    assert_eq!((setup.base_url.as_str(), setup.origins.len()), ("http://127.0.0.1:9", 1));
}

#[test]
fn a_model_that_is_too_small_or_blind_is_told() {
    let lab_model = |entry: Value| {
        let mut stage = Stage::new("{}").key("anthropic:default", ONE);
        stage.config = json!({
            "agents": {"defaults": {"model": "anthropic/mine"}},
            "models": {"providers": {"anthropic": {"models": [entry]}}},
        });
        stage
    };
    let small = lab_model(json!({"id": "mine", "contextWindow": 8000}));
    let error = small.chat().0.unwrap_err();
    assert_eq!(error.message, "Model context window too small (8000 tokens). Minimum is 16000.");
    let mut blind = lab_model(json!({"id": "mine", "input": ["text"]}));
    let image = || ChatRequest {
        images: vec![Image::new(b"GIF89a".to_vec()).unwrap()],
        ..ChatRequest::default()
    };
    let error = blind.say(image()).0.unwrap_err();
    assert!(error.message.starts_with("No image model configured."), "{}", error.message);
    blind.config["agents"]["defaults"]["imageModel"] = json!("anthropic/claude-haiku-4-5");
    assert_eq!(blind.say(image()).0.unwrap().model.model, "claude-haiku-4-5");
}

/// A third party's provider whose id sorts first, with a default model of its own.
struct Aardvark;

impl moltbot_core::Provider for Aardvark {
    fn info(&self) -> moltbot_core::ProviderInfo {
        moltbot_core::ProviderInfo {
            id: "aardvark".into(),
            dialect: "aardvark-chat".into(),
            base_url: "https://aardvark.example".into(),
            default_model: "ant-1".into(),
            recommended_model: "ant-1".into(),
            ..moltbot_core::ProviderInfo::default()
        }
    }

    fn request(
        &self,
        _: &moltbot_core::ChatView<'_>,
        _: &moltbot_core::CredentialView<'_>,
        _: moltbot_core::Timestamp,
    ) -> Result<moltbot_core::Exchange, moltbot_core::ProviderError> {
        unreachable!("nothing is sent")
    }

    fn failure(
        &self,
        _: &moltbot_core::Ended,
        _: moltbot_core::Timestamp,
    ) -> moltbot_core::Failure {
        unreachable!("nothing is sent")
    }

    fn decoder(&self, _: moltbot_core::DecoderMode) -> Box<dyn moltbot_core::Decoder> {
        unreachable!("nothing is sent")
    }
}

static AARDVARK: moltbot_core::Plugin = moltbot_core::Plugin {
    id: "aardvark",
    version: "0",
    about: "",
    core: moltbot_core::VERSION,
    auth: &[],
    providers: &[&Aardvark],
    codes: &[],
};

#[test]
fn a_plugin_takes_nothing_over_by_the_spelling_of_its_id() {
    let plugins = vec![&moltbot_plugin_anthropic::PLUGIN, &AARDVARK];
    let both = moltbot_core::Registry::new(plugins, &[]).unwrap();
    assert_eq!(both.providers()[0].info.id, "aardvark", "it is the first in the registry");
    let config = config(json!({}));
    let main = AgentId::normalize("main");
    let primary = |registry: &moltbot_core::Registry| {
        let providers = Arc::new(Providers::new(registry, &config, None));
        Models::new(providers, &config, &main).primary().model.to_string()
    };
    assert_eq!(primary(&both), "anthropic/claude-opus-4-5");
    let alone = moltbot_core::Registry::new(vec![&AARDVARK], &[]).unwrap();
    assert_eq!(primary(&alone), "aardvark/ant-1");
}
