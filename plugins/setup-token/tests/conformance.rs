//! The suite that every plugin passes.

use moltbot_core::{ApiKeySpec, ProviderInfo, Ran};
use moltbot_testkit::{Breach, Conformance, ScriptedHost, fake, sample_provider};

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

/// An API key pasted by mistake becomes a profile of its own, `anthropic:default`, once the user
/// agreed (spec L-31); the suite's rule on kinds is about the offer's own profile.
fn is_the_agreed_api_key(breach: &Breach) -> bool {
    breach.rule == "a login has the kind that was offered" && breach.found == "kind api_key"
}

#[test]
fn conforms() {
    let breaches = Conformance::of(&moltbot_plugin_setup_token::PLUGIN)
        .provider(vendor())
        .scene("pasted", || host().answer("token", fake("sk-ant-oat01-")))
        .scene("flags", || host().answer_flag("token", fake("sk-ant-oat01-")))
        .scene("an API key", || host().answer("token", fake("sk-ant-api03-")))
        .run();
    let real: Vec<String> = breaches
        .iter()
        .filter(|breach| !is_the_agreed_api_key(breach))
        .map(ToString::to_string)
        .collect();
    assert!(real.is_empty(), "{}", real.join("\n"));
}
