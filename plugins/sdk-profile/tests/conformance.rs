//! The suite that every plugin passes, and what only this one knows.

use moltbot_core::*;
use moltbot_plugin_sdk_profile::SdkProfile;
use moltbot_testkit::{
    NOW, ScriptedHost, block_on, call, fake, headless, login, offer, sample_provider,
};
use serde_json::json;

const DIR: &str = "~/.config/anthropic";

fn vendor() -> ProviderInfo {
    ProviderInfo {
        id: "anthropic".into(),
        origins: vec!["https://api.example.com".into()],
        ..sample_provider()
    }
}

fn tokens(expires_at: i64) -> String {
    let (access, refresh) = (fake("sk-ant-oat01-"), fake("sk-ant-ort01-"));
    json!({ "access_token": access, "expires_at": expires_at, "refresh_token": refresh })
        .to_string()
}

/// A host with the profile `name`, whose login ends in an hour.
fn host(name: &str) -> ScriptedHost {
    let config = json!({ "authentication": { "type": "user_oauth" } }).to_string();
    ScriptedHost::new()
        .file(&format!("{DIR}/active_config"), format!("{name}\n"))
        .file(&format!("{DIR}/configs/{name}.json"), config)
        .file(&format!("{DIR}/credentials/{name}.json"), tokens(NOW.millis() / 1_000 + 3_600))
}

fn link() -> Credential {
    Credential::link(CredentialKind::Oauth, "anthropic", "sdk-profile")
}

moltbot_testkit::conformance!(moltbot_plugin_sdk_profile::PLUGIN, |suite| suite
    .provider(vendor())
    .scene("the active one", || host("work"))
    .scene("a named one", || host("work").answer_flag("sdk-profile", "work"))
    .stored(link));

fn at(now: Timestamp) -> Call {
    Call { now, ..headless(call(&vendor(), &offer(&SdkProfile, &vendor(), "sdk-profile"))) }
}

fn resolve(host: &ScriptedHost, stored: &Credential, now: Timestamp) -> Resolved {
    block_on(SdkProfile.resolve(&Cx::new(host, &at(now)), stored))
        .expect("the scripted host answers")
}

#[test]
fn the_active_profile_is_followed_and_a_named_one_is_kept() {
    let both = || {
        let home = format!("{DIR}/credentials/home.json");
        host("work").file(&home, r#"{"access_token":"sk-ant-oat01-FAKEofhome0123456789"}"#)
    };
    let active = login(&SdkProfile, &both(), &at(NOW)).unwrap().credential;
    assert!(active.is_link() && active.rest.is_empty());
    let read = resolve(&both(), &active, NOW);
    assert_eq!(read.state, CredentialState::Ready);
    assert_eq!(
        read.credential.expires,
        Some(Timestamp::from_millis((NOW.millis() / 1_000 + 3_600) * 1_000))
    );
    assert!(read.credential.refresh.is_none());

    let host = both().answer_flag("sdk-profile", "home");
    let named = login(&SdkProfile, &host, &at(NOW)).unwrap().credential;
    assert_eq!(named.rest["sdk-profile"], "home");
    let read = resolve(&host, &named, NOW);
    assert_eq!(read.credential.access.unwrap().expose(), "sk-ant-oat01-FAKEofhome0123456789");
}

#[test]
fn an_expired_login_is_its_owners_to_renew() {
    let later = NOW.plus(3_700_000);
    let read = resolve(&host("work"), &link(), later);
    assert_eq!(read.state, CredentialState::Expired);
    let renewal = SdkProfile.renew(&RenewSettings::default(), &read.credential, later);
    assert!(matches!(renewal, Err(AuthError::LoginAgain { .. })), "{renewal:?}");
}

#[test]
fn what_cannot_be_used_is_said() {
    let state = |host: &ScriptedHost| {
        let read = resolve(host, &link(), NOW);
        assert!(read.credential.secret().is_none());
        (read.state, read.detail.unwrap())
    };
    let (nothing, words) = state(&ScriptedHost::new());
    assert_eq!(nothing, CredentialState::Absent);
    assert!(words.contains(&format!("{DIR}/credentials/default.json")), "{words}");

    let config = json!({ "base_url": "https://elsewhere.example.com" }).to_string();
    let elsewhere = host("work").file(&format!("{DIR}/configs/work.json"), config);
    let (unusable, words) = state(&elsewhere);
    assert_eq!(unusable, CredentialState::Unreadable);
    assert!(words.contains("is for https://elsewhere.example.com"), "{words}");

    let torn = host("work").file(&format!("{DIR}/credentials/work.json"), r#"{"access_tok"#);
    assert_eq!(state(&torn).0, CredentialState::Unreadable);
    let escape = ScriptedHost::new().file(&format!("{DIR}/active_config"), "../../secret");
    assert_eq!(state(&escape).0, CredentialState::Unreadable);
}
