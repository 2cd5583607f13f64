//! What the tests share: the vendor, the calls, the owner's file.
#![allow(dead_code, reason = "each test binary uses its part")]

use moltbot_core::*;
use moltbot_plugin_claude_cli_oauth::ClaudeCliOauth;
use moltbot_testkit::{NOW, ScriptedHost, block_on, call, headless, offer};
use serde_json::json;

/// Where the owner keeps its login.
pub(crate) const FILE: &str = "~/.claude/.credentials.json";

/// A login that ends 8 hours after `NOW`.
pub(crate) const LOGIN: &str = include_str!("../fixtures/login.json");

/// The same without a refresh token.
pub(crate) const TOKEN_ONLY: &str = include_str!("../fixtures/token-only.json");

/// What the owner leaves behind when its refresh token is refused.
pub(crate) const LOGGED_OUT: &str = include_str!("../fixtures/logged-out.json");

/// When `LOGIN` ends.
pub(crate) const END: Timestamp = Timestamp::from_millis(1_790_028_800_000);

/// A moment at which `LOGIN` has ended three hours ago.
pub(crate) const LATER: Timestamp = END.plus(3 * 3_600_000);

pub(crate) fn vendor() -> ProviderInfo {
    ProviderInfo { id: "anthropic".into(), label: "Anthropic".into(), ..ProviderInfo::default() }
}

/// A headless call on Linux at `NOW`.
pub(crate) fn at_now() -> Call {
    headless(call(&vendor(), &offer(&ClaudeCliOauth, &vendor(), "claude-cli")))
}

pub(crate) fn at(now: Timestamp) -> Call {
    Call { now, ..at_now() }
}

pub(crate) fn switched_off(now: Timestamp) -> Call {
    Call { settings: json!({ "refresh": "off" }), ..at(now) }
}

pub(crate) fn on_mac(interactive: bool) -> Call {
    Call { os: "macos".into(), interactive, ..at_now() }
}

pub(crate) fn link() -> Credential {
    Credential::link(CredentialKind::Oauth, "anthropic", "claude-cli")
}

/// What an older version stored: the tokens themselves.
pub(crate) fn copy(expires: Timestamp) -> Credential {
    Credential {
        access: Some(Secret::new("sk-ant-oat01-FAKEcopiedaccess00")),
        refresh: Some(Secret::new("sk-ant-ort01-FAKEcopiedrefresh0")),
        expires: Some(expires),
        ..Credential::new(CredentialKind::Oauth, "anthropic")
    }
}

pub(crate) fn with_file(text: &str) -> ScriptedHost {
    ScriptedHost::new().file(FILE, text)
}

pub(crate) fn resolve(host: &ScriptedHost, call: &Call, stored: &Credential) -> Resolved {
    block_on(ClaudeCliOauth.resolve(&Cx::new(host, call), stored)).expect("resolving")
}

pub(crate) fn refresh(host: &ScriptedHost, call: &Call) -> Result<Credential, AuthError> {
    block_on(ClaudeCliOauth.refresh(&Cx::new(host, call), &link()))
}

pub(crate) fn doctor(host: &ScriptedHost, call: &Call, stored: &[Credential]) -> Vec<Finding> {
    block_on(ClaudeCliOauth.doctor(&Cx::new(host, call), stored)).expect("examining")
}

pub(crate) fn ended(exit: Option<i32>) -> Ran {
    Ran { exit, stdout: Secret::default(), stderr: Secret::default() }
}

pub(crate) const THREE_WAYS: &str = "run `claude` on the gateway host, paste a setup-token (`moltbot models auth paste-token --provider anthropic`), or use an API key (`moltbot onboard --anthropic-api-key`)";

const _: () = assert!(NOW.millis() + 8 * 3_600_000 == END.millis());
