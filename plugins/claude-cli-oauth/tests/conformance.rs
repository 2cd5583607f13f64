//! The suite that every plugin passes, with the owner's file, with the Keychain's answer, and
//! with a stored copy of an older version.

use moltbot_core::{Credential, CredentialKind, ProviderInfo, Ran, RenewSettings, Secret};
use moltbot_testkit::{NOW, ScriptedHost, fake, sample_provider};

const FILE: &str = "~/.claude/.credentials.json";
const LOGIN: &str = include_str!("fixtures/login.json");

fn with_file() -> ScriptedHost {
    ScriptedHost::new().file(FILE, LOGIN).program("claude", |_| {
        Ok(Ran { exit: Some(0), stdout: Secret::default(), stderr: Secret::default() })
    })
}

moltbot_testkit::conformance!(moltbot_plugin_claude_cli_oauth::PLUGIN, |suite| suite
    .provider(ProviderInfo { id: "anthropic".into(), ..sample_provider() })
    .scene("a login", with_file)
    .scene("others' members beside it", || {
        ScriptedHost::new().file(FILE, include_str!("fixtures/others-too.json"))
    })
    .stored(|| Credential::link(CredentialKind::Oauth, "anthropic", "claude-cli"))
    .stored(|| Credential {
        access: Some(Secret::new(fake("sk-ant-oat01-"))),
        refresh: Some(Secret::new(fake("sk-ant-ort01-"))),
        expires: Some(NOW.plus(-1)),
        ..Credential::new(CredentialKind::Oauth, "anthropic")
    })
    .renew_settings(RenewSettings { policy: Some("owner".into()), ..RenewSettings::default() }));
