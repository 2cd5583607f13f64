//! Where credentials come from, how logins are renewed, and that none goes astray.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use moltbot_core::{Credential, CredentialKind, Payer, Secret, Timestamp};
use moltbot_gateway::*;
use serde_json::json;

use crate::stage::*;

fn login(stage: &Stage, label: &str, remaining: i64) -> Credential {
    let issued = stage.lab.issue_login(label, Duration::from_secs(8 * 3600));
    let mut login = Credential::new(CredentialKind::Oauth, "anthropic");
    login.access = Some(Secret::new(issued.access_token));
    login.refresh = Some(Secret::new(issued.refresh_token));
    login.expires = Some(stage.clock.now().plus(remaining));
    login.method = Some("house".into());
    login.rest.insert("kept".into(), json!(1));
    login
}

fn endpoint(stage: &Stage) -> serde_json::Value {
    let url = format!("{}/v1/oauth/token", stage.lab.url());
    json!({"auth": {"oauth": {"anthropic": {"tokenUrl": url, "clientId": "ours"}}}})
}

fn renewals(stage: &Stage) -> usize {
    stage.lab.log().iter().filter(|entry| entry.path() == "/v1/oauth/token").count()
}

#[test]
fn an_expired_login_is_renewed_once_and_kept() {
    let mut stage = Stage::new("{}");
    let old = login(&stage, "mia", -1);
    stage.config = endpoint(&stage);
    let stage = stage.with("anthropic:house", old.clone());
    let (one, two) = block_on(async {
        let engine = stage.engine();
        let ask = || ChatRequest { prompt: "hi".into(), ..ChatRequest::default() };
        let (mut a, mut b) = (|_: &moltbot_core::Event| {}, |_: &moltbot_core::Event| {});
        tokio::join!(engine.chat(ask(), &mut a), engine.chat(ask(), &mut b))
    });
    assert_eq!(one.unwrap().profile.as_deref(), Some("anthropic:house"));
    two.unwrap();
    assert_eq!(renewals(&stage), 1, "two at once are one renewal");
    let profiles = stage.profiles();
    let kept = profiles.get("anthropic:house").unwrap();
    assert_ne!(kept.access, old.access);
    assert_ne!(kept.refresh, old.refresh);
    assert!(kept.expires > old.expires);
    assert_eq!(kept.rest["kept"], 1);
    stage.chat().0.unwrap();
    assert_eq!(renewals(&stage), 1);
}

#[test]
fn a_login_that_cannot_be_renewed_gives_way_with_a_warning() {
    let stage = Stage::new("{}");
    let old = login(&stage, "mia", -1);
    let stage = stage.with("anthropic:house", old).key("anthropic:default", ONE);
    let reply = stage.chat().0.unwrap();
    assert_eq!(reply.profile.as_deref(), Some("anthropic:default"));
    assert_eq!(renewals(&stage), 0, "no endpoint, no request");
    let told = stage.told();
    assert!(told.contains("anthropic:house") && told.contains("no token endpoint"), "{told}");
}

#[test]
fn with_nothing_else_the_true_cause_is_told() {
    let mut stage = Stage::new("{}");
    let old = login(&stage, "mia", -1);
    let secret = old.refresh.clone().unwrap();
    let stage_config = endpoint(&stage);
    stage.lab.revoke_login("mia");
    stage.config = stage_config;
    let stage = stage.with("anthropic:house", old);
    let before = stage.profiles().to_json(stage.clock.now());
    let error = stage.chat().0.unwrap_err();
    assert!(
        error
            .message
            .starts_with("OAuth token refresh failed for anthropic: HTTP 400 invalid_grant"),
        "{}",
        error.message
    );
    assert!(error.message.ends_with("Please try again or re-authenticate."), "{}", error.message);
    assert!(!error.message.contains(secret.expose()));
    assert_eq!(error.code, "login-needed");
    assert!(stage.requests().is_empty());
    assert_eq!(stage.profiles().to_json(stage.clock.now()), before, "a failure changes nothing");
    let again = block_on(stage.engine().refresh("anthropic:house", false)).unwrap_err();
    assert_eq!(again.code, "login-needed");
    let unknown = block_on(stage.engine().refresh("anthropic:x", false)).unwrap_err();
    assert_eq!(unknown.code, "profile-unknown");
}

#[test]
fn an_environment_key_comes_in_when_no_profile_resolves() {
    let stage = Stage::new("{}");
    let old = login(&stage, "mia", -1);
    let stage = stage.with("anthropic:house", old).env("ANTHROPIC_API_KEY", ONE);
    let reply = stage.chat().0.unwrap();
    assert_eq!(reply.source, "env: ANTHROPIC_API_KEY");
    assert!(stage.told().contains("anthropic:house"), "{}", stage.told());
}

#[test]
fn the_renewal_goes_to_the_configured_endpoint_by_hand_too() {
    let mut stage = Stage::new("{}");
    let fresh = login(&stage, "mia", 3_600_000);
    stage.config = endpoint(&stage);
    let stage = stage.with("anthropic:house", fresh);
    let engine = stage.engine();
    let not_due = block_on(engine.refresh("anthropic:house", false)).unwrap();
    assert!(matches!(not_due, Refreshed::NotDue { expires: Some(_) }));
    assert_eq!(renewals(&stage), 0);
    let renewed = block_on(engine.refresh("anthropic:house", true)).unwrap();
    assert!(matches!(renewed, Refreshed::Renewed { expires: Some(_) }));
    assert_eq!(renewals(&stage), 1);
}

fn owner(stage: &Stage, script: &str) {
    let path = stage.write("bin/owner", &format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn linked(plan: &str) -> Stage {
    let mut link = Credential::link(CredentialKind::Oauth, "anthropic", "owner");
    link.method = Some("link".into());
    let stage = Stage::new(plan).with("anthropic:link", link);
    let bin = stage.dir.path().join("bin");
    stage.env("PATH", &format!("{}:/usr/bin:/bin", bin.display())).env("SECRET_OF_OURS", ONE)
}

#[test]
fn a_link_is_read_live_and_never_copied() {
    let stage = linked("{}");
    let before = stage.profiles().get("anthropic:link").cloned();
    stage.write(".owner/login", TOKEN);
    let reply = stage.chat().0.unwrap();
    assert_eq!(reply.profile.as_deref(), Some("anthropic:link"));
    assert_eq!(key_of(&stage.requests()[0]), "token");
    assert_eq!(stage.profiles().get("anthropic:link").cloned(), before);
    let views = block_on(stage.engine().resolve_profiles(None)).unwrap();
    assert_eq!(
        views[0].resolved.as_ref().unwrap().credential.access.as_ref().unwrap().expose(),
        TOKEN
    );
    assert!(views[0].state.refreshable);
    assert_eq!(views[0].state.payer, Payer::Subscription);
}

#[test]
fn an_expired_link_lets_its_owner_renew_it() {
    let stage = linked("{}");
    let past = stage.clock.now().plus(-1).millis();
    let file = stage.write(".owner/login", &format!("sk-ant-oat01-FAKEold {past}"));
    owner(
        &stage,
        &format!("test -z \"$SECRET_OF_OURS\" || exit 9\necho {TOKEN} > {}", file.display()),
    );
    stage.chat().0.unwrap();
    assert_eq!(key_of(&stage.requests()[0]), "token");
    assert_eq!(stage.profiles().get("anthropic:link").unwrap().access, None);
}

#[test]
fn an_owner_that_fails_is_named() {
    let stage = linked("{}");
    let past = stage.clock.now().plus(-1).millis();
    stage.write(".owner/login", &format!("sk-ant-oat01-FAKEold {past}"));
    owner(&stage, "exit 3");
    let error = stage.chat().0.unwrap_err();
    assert!(
        error.message.starts_with(
            "OAuth token refresh failed for anthropic: the owner's program ended with Some(3)."
        ),
        "{}",
        error.message
    );
    assert_eq!(error.code, "refresh-failed");
}

#[test]
fn a_refused_link_is_read_again_before_anybody_is_punished() {
    let stage = linked("{rules: [{match: {key: 'old'}, fault: {error: 'invalid-bearer'}}]}");
    let file = stage.write(".owner/login", "sk-ant-oat01-FAKE0000000old");
    owner(&stage, &format!("echo {TOKEN} > {}", file.display()));
    stage.chat().0.unwrap();
    assert_eq!(stage.requests().len(), 2);
    assert!(!stage.blocked("anthropic:link", "claude-opus-4-5"));
}

#[test]
fn a_dry_run_names_key_and_origin_without_any_request() {
    let mut stage = Stage::new("{}").env("ANTHROPIC_API_KEY", ONE);
    stage.at_lab = false;
    let record = block_on(stage.engine().explain(None, None)).unwrap();
    assert_eq!(record.models[0].model, "anthropic/claude-opus-4-5");
    assert_eq!(record.models[0].origin.as_deref(), Some("https://api.anthropic.com"));
    assert_eq!(record.models[0].candidates[0].source, "env: ANTHROPIC_API_KEY");
    assert_eq!(record.models[0].candidates[0].payer, Payer::Metered);
    assert!(record.attempts.is_empty() && record.outcome.is_none());
    assert!(stage.lab.log().is_empty());
    assert!(!stage.dir.path().join("auth-profiles.json").exists(), "a dry run writes nothing");
}

#[test]
fn the_token_variable_comes_before_the_key() {
    let stage = Stage::new("{}").env("ANTHROPIC_API_KEY", ONE).env("ANTHROPIC_OAUTH_TOKEN", TOKEN);
    assert_eq!(stage.chat().0.unwrap().source, "env: ANTHROPIC_OAUTH_TOKEN");
    let seen = &stage.requests()[0];
    assert!(seen.header("authorization").is_some() && seen.header("x-api-key").is_none());
}

#[test]
fn a_key_of_the_config_may_name_a_variable_and_never_runs_a_command() {
    let with = |key: &str| {
        let mut stage = Stage::new("{}").env("MY_KEY", TWO);
        stage.config =
            json!({"models": {"providers": {"anthropic": {"apiKey": key, "models": []}}}});
        stage
    };
    assert_eq!(
        key_of(&{
            let stage = with("MY_KEY");
            stage.chat().0.unwrap();
            stage.requests().remove(0)
        }),
        "two"
    );
    assert_eq!(
        key_of(&{
            let stage = with(ONE);
            stage.chat().0.unwrap();
            stage.requests().remove(0)
        }),
        "one"
    );
    let stage = with("!touch ran");
    let error = stage.chat().0.unwrap_err();
    assert_eq!(error.code, "no-credential");
    assert!(error.advice.unwrap().contains("commands in the config are not run"));
    assert!(stage.requests().is_empty());
}

#[test]
fn a_borrowed_provider_has_its_own_origin_and_credentials() {
    let mut stage = Stage::new("{}").env("ANTHROPIC_API_KEY", ONE).key("anthropic:default", ONE);
    stage.at_lab = false;
    let url = stage.lab.url();
    stage.config = json!({
        "agents": {"defaults": {"model": "acme/m"}},
        "models": {"providers": {"acme": {"baseUrl": format!("{url}/"), "api": "anthropic-messages", "headers": {"x-team": "a", "x-api-key": "FAKE"}, "models": []}}},
    });
    let error = stage.chat().0.unwrap_err();
    assert!(error.message.contains("No API key found for provider \"acme\""), "{}", error.message);
    let stage = stage.with("acme:default", Credential::api_key("acme", Secret::new(TWO)));
    stage.chat().0.unwrap();
    let seen = &stage.requests()[0];
    assert_eq!((key_of(seen), seen.header("x-team")), ("two", Some("a")));
}

#[test]
fn a_profile_of_a_missing_plugin_is_named() {
    let mut key = Credential::api_key("anthropic", Secret::new(ONE));
    key.method = Some("vault".into());
    let stage = Stage::new("{}").with("anthropic:vault", key);
    let error = stage.chat().0.unwrap_err();
    assert!(
        error
            .advice
            .unwrap()
            .contains("profile anthropic:vault needs plugin vault, not in this build")
    );
}

#[test]
fn a_login_is_signed_by_its_method_and_not_stored() {
    let stage = Stage::new("{}");
    let entry = registry().choice("house").unwrap();
    let login = block_on(stage.engine().login(entry, None)).unwrap();
    assert_eq!(login.credential.method.as_deref(), Some("house"));
    assert!(stage.profiles().is_empty());
}

#[test]
fn the_clock_of_an_expiry_is_ours() {
    let stage = Stage::new("{}");
    let mut old = login(&stage, "mia", 0);
    old.expires = Some(Timestamp::from_millis(stage.clock.now().millis() + 10_000));
    let stage = stage.with("anthropic:house", old);
    stage.chat().0.unwrap();
    stage.clock.advance(10_000);
    assert_eq!(stage.chat().0.unwrap_err().code, "login-needed");
}
