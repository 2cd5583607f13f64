//! The suite that every plugin passes.

use moltbot_core::{ApiKeySpec, ProviderInfo, Ran};
use moltbot_testkit::{ScriptedHost, fake, sample_provider};

fn vendor() -> ProviderInfo {
    let api_key = Some(ApiKeySpec {
        choice: "apiKey".into(),
        flag: "anthropic-api-key".into(),
        env: "ANTHROPIC_API_KEY".into(),
        label: "Anthropic API key".into(),
        prefix: "sk-ant-api".into(),
        policy: None,
    });
    ProviderInfo { id: "anthropic".into(), api_key, ..sample_provider() }
}

fn host() -> ScriptedHost {
    ScriptedHost::new()
        .answer_flag("token-provider", "anthropic")
        .answer_flag("run", "true")
        .program("claude", |_| {
            Ok(Ran { exit: Some(0), stdout: Default::default(), stderr: Default::default() })
        })
}

moltbot_testkit::conformance!(moltbot_plugin_setup_token::PLUGIN, |suite| suite
    .provider(vendor())
    .scene("pasted", || host().answer("token", fake("sk-ant-oat01-")))
    .scene("flags", || host().answer_flag("token", fake("sk-ant-oat01-")))
    .scene("an API key", || host().answer("token", fake("sk-ant-api03-"))));
