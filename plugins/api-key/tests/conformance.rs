//! The suite that every plugin passes.

use moltbot_core::ProviderInfo;
use moltbot_testkit::{ScriptedHost, sample_provider};

moltbot_testkit::conformance!(moltbot_plugin_api_key::PLUGIN, |suite| suite
    .provider(ProviderInfo { id: "keyless".into(), api_key: None, ..sample_provider() })
    .scene("typed", || ScriptedHost::new().answer("key", "acme-FAKEFAKEFAKEFAKE"))
    .scene("flag", || ScriptedHost::new().answer_flag("key", "acme-FAKEFAKEFAKEFAKE")));
