//! The suite that every plugin passes, and what only this one knows.

use moltbot_core::{AuthError, ProviderInfo};
use moltbot_plugin_template_name::TemplateName;
use moltbot_testkit::{ScriptedHost, call, fake, headless, login, offer, sample_provider};

moltbot_testkit::conformance!(moltbot_plugin_template_name::PLUGIN, |suite| suite
    .provider(ProviderInfo { id: "keyless".into(), api_key: None, ..sample_provider() })
    .scene("typed", || ScriptedHost::new().answer("key", fake("")))
    .scene("flag", || ScriptedHost::new().answer_flag("key", fake(""))));

#[test]
fn a_key_of_two_words_is_refused() {
    let provider = sample_provider();
    let call = headless(call(&provider, &offer(&TemplateName, &provider, "acme-template-name")));
    let host = ScriptedHost::new().answer_flag("key", "two words");
    let reason = "A key is one word".to_string();
    let refused = AuthError::Invalid { field: "key".to_string(), reason };
    assert_eq!(login(&TemplateName, &host, &call), Err(refused));
}
