//! What the method asks, in which order, and the exact texts.

use moltbot_core::*;
use moltbot_plugin_setup_token::SetupToken;
use moltbot_testkit::{NOW, ScriptedHost, call, fake, headless, leaks, login, offer, verb_call};

fn vendor() -> ProviderInfo {
    ProviderInfo {
        id: "anthropic".into(),
        label: "Anthropic".into(),
        api_key: Some(ApiKeySpec { flag: "anthropic-api-key".into(), ..ApiKeySpec::default() }),
        ..ProviderInfo::default()
    }
}

fn choice(choice: &str) -> Call {
    call(&vendor(), &offer(&SetupToken, &vendor(), choice))
}

fn paste_token() -> Call {
    verb_call(&vendor(), &offer(&SetupToken, &vendor(), "token"), "paste-token")
}

fn setup_token() -> Call {
    verb_call(&vendor(), &offer(&SetupToken, &vendor(), "setup-token"), "setup-token")
}

fn token() -> String {
    fake("sk-ant-oat01-")
}

fn flags(pairs: &[(&str, &str)]) -> ScriptedHost {
    pairs.iter().fold(ScriptedHost::new(), |host, (id, value)| host.answer_flag(id, *value))
}

fn ended(exit: Option<i32>) -> Ran {
    Ran { exit, stdout: Secret::default(), stderr: Secret::default() }
}

fn stored(login: &Login) -> &str {
    login.credential.token.as_ref().expect("a token").expose()
}

#[test]
fn two_offers_write_one_profile() {
    for offer in SetupToken.offers(&vendor()) {
        assert_eq!((&*offer.profile, &*offer.mode), ("anthropic:manual", "token"));
        assert_eq!((&offer.kind, offer.payer), (&CredentialKind::Token, Payer::Subscription));
        let policy = offer.policy.expect("a subscription has a policy line");
        assert!(policy.line.contains("Claude Code and native Anthropic apps"));
    }
    assert_eq!(offer(&SetupToken, &vendor(), "setup-token").aliases, ["oauth"]);
    let borrowed = ProviderInfo { id: "proxy".into(), ..vendor() };
    assert!(SetupToken.offers(&borrowed).is_empty());
}

/// Spec L-13, L-2; acceptance case 60.
#[test]
fn headless_onboarding_says_exactly_what_is_wrong() {
    let short = format!("sk-ant-oat01-{}", "F".repeat(66));
    let (token, key) = (token(), fake("sk-ant-api03-"));
    for (given, text) in [
        (vec![], "Missing --token-provider for --auth-choice token."),
        (vec![("token-provider", " ")], "Missing --token-provider for --auth-choice token."),
        (
            vec![("token-provider", "openai"), ("token", &*token)],
            "Only --token-provider anthropic is supported for --auth-choice token.",
        ),
        (vec![("token-provider", "anthropic")], "Missing --token for --auth-choice token."),
        (
            vec![("token-provider", "anthropic"), ("token", "")],
            "Missing --token for --auth-choice token.",
        ),
        (
            vec![("token-provider", "anthropic"), ("token", &*key)],
            "Expected token starting with sk-ant-oat01-",
        ),
        (
            vec![("token-provider", "anthropic"), ("token", &*short)],
            "Token looks too short; paste the full setup-token",
        ),
        (
            vec![
                ("token-provider", "anthropic"),
                ("token", &*token),
                ("token-expires-in", "5 weeks"),
            ],
            "Invalid --token-expires-in: invalid duration: 5 weeks",
        ),
        (
            vec![
                ("token-provider", "anthropic"),
                ("token", &*token),
                ("token-profile-id", "openai:x"),
            ],
            "Expected a profile id starting with anthropic:",
        ),
    ] {
        let error = login(&SetupToken, &flags(&given), &headless(choice("token"))).unwrap_err();
        assert_eq!(error.to_string(), text);
    }
}

/// Acceptance case 61.
#[test]
fn headless_onboarding_stores_a_token_with_its_expiry() {
    let token = token();
    let host = flags(&[
        ("token-provider", " Anthropic "),
        ("token", &token),
        ("token-expires-in", "365d"),
    ]);
    let login = login(&SetupToken, &host, &headless(choice("token"))).unwrap();
    assert_eq!(stored(&login), token);
    assert_eq!(login.credential.expires, Some(NOW.plus(365 * 86_400_000)));
    assert_eq!(login.profile, None, "the offer's own: anthropic:manual");
    assert_eq!(host.asked(), ["token-provider", "token", "token-profile-id", "token-expires-in"]);
}

#[test]
fn a_profile_may_be_named() {
    let host = flags(&[
        ("token-provider", "anthropic"),
        ("token", &token()),
        ("token-profile-id", "Work Laptop"),
    ]);
    let login = login(&SetupToken, &host, &headless(choice("token"))).unwrap();
    assert_eq!(login.profile.as_deref(), Some("anthropic:work-laptop"));
    assert_eq!(login.credential.expires, None);
}

/// Spec L-15 as 27J has it, L-30; acceptance case 62.
#[test]
fn running_the_command_needs_a_person() {
    let host = ScriptedHost::new();
    let error = login(&SetupToken, &host, &headless(choice("setup-token"))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Auth choice \"setup-token\" requires interactive mode.\nUse \"--auth-choice token\" with --token and --token-provider anthropic."
    );
    let error = login(&SetupToken, &host, &headless(setup_token())).unwrap_err();
    assert_eq!(error.to_string(), "setup-token requires an interactive TTY.");
    assert_eq!(host.count(), 0);
}

#[test]
fn the_command_runs_on_the_terminal_and_its_token_is_pasted() {
    for call in [choice("setup-token"), setup_token()] {
        let token = token();
        let host = ScriptedHost::new()
            .answer("run", "true")
            .program("claude", |run| {
                assert!(run.terminal);
                assert_eq!(run.args, ["setup-token"]);
                Ok(ended(Some(0)))
            })
            .answer("token", &token);
        let login = login(&SetupToken, &host, &call).unwrap();
        assert_eq!(stored(&login), token);
        assert_eq!(login.profile, None);
        assert!(host.told().is_empty());
        assert!(!leaks(&host.transcript(), &token));
    }
}

#[test]
fn the_command_may_be_skipped() {
    let host = ScriptedHost::new().answer("run", "false").answer("token", token());
    login(&SetupToken, &host, &setup_token()).unwrap();
    assert_eq!(host.asked(), ["run", "token"]);
}

#[test]
fn a_failing_command_still_lets_one_paste() {
    for (outcome, words) in [
        (Ok(ended(Some(1))), "it ended with code 1"),
        (Ok(ended(None)), "it was killed"),
        (Err(HostError::NotFound { what: "claude".into() }), "it is not installed here"),
    ] {
        let host = ScriptedHost::new()
            .answer("run", "true")
            .program("claude", move |_| outcome.clone())
            .answer("token", token());
        login(&SetupToken, &host, &setup_token()).unwrap();
        assert_eq!(host.told().len(), 1);
        assert!(host.told()[0].contains(words), "{:?}", host.told());
    }
    let host = ScriptedHost::new()
        .answer("run", "true")
        .program("claude", |_| Err(HostError::Cancelled {}));
    assert_eq!(login(&SetupToken, &host, &setup_token()), Err(AuthError::Cancelled {}));
}

/// Acceptance case 63.
#[test]
fn paste_token_takes_standard_input() {
    let token = token();
    let host =
        flags(&[("token", &format!("{token}\n")), ("profile-id", "ci"), ("expires-in", "12h")]);
    let login = login(&SetupToken, &host, &headless(paste_token())).unwrap();
    assert_eq!(stored(&login), token);
    assert_eq!(login.profile.as_deref(), Some("anthropic:ci"));
    assert_eq!(login.credential.expires, Some(NOW.plus(12 * 3_600_000)));
}

#[test]
fn paste_token_without_any_input() {
    let error = login(&SetupToken, &ScriptedHost::new(), &headless(paste_token())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "No token given; paste it in a terminal, or pipe it into `moltbot models auth paste-token --provider anthropic`"
    );
    let host = flags(&[("token", &token()), ("expires-in", "1y")]);
    let error = login(&SetupToken, &host, &headless(paste_token())).unwrap_err();
    assert_eq!(error.to_string(), "Invalid --expires-in: invalid duration: 1y");
}

#[test]
fn a_person_may_try_again() {
    let host =
        ScriptedHost::new().answer("token", "").answer("token", "x").answer("token", token());
    login(&SetupToken, &host, &paste_token()).unwrap();
    let host = ScriptedHost::new().answer("token", "").answer("token", "x").answer("token", "y");
    let error = login(&SetupToken, &host, &paste_token()).unwrap_err();
    assert_eq!(error.to_string(), "Expected token starting with sk-ant-oat01-");
}

/// Spec L-31.
#[test]
fn an_api_key_is_offered_as_what_it_is() {
    let key = fake("sk-ant-api03-");
    for call in [paste_token(), setup_token(), choice("token")] {
        let host = ScriptedHost::new()
            .answer("run", "false")
            .answer("token", &key)
            .answer("as-api-key", "true");
        let login = login(&SetupToken, &host, &call).unwrap();
        assert_eq!(login.credential.kind, CredentialKind::ApiKey);
        assert_eq!(login.profile.as_deref(), Some("anthropic:default"));
    }
    let refused = "This is an API key, not a setup-token; store it with `moltbot onboard --anthropic-api-key`";
    let host = ScriptedHost::new().answer("token", &key).answer("as-api-key", "false");
    assert_eq!(login(&SetupToken, &host, &paste_token()).unwrap_err().to_string(), refused);
    let host = flags(&[("token", &key)]);
    let error = login(&SetupToken, &host, &headless(paste_token())).unwrap_err();
    assert_eq!(error.to_string(), refused);
    assert_eq!(host.asked(), ["token"], "nobody is asked to confirm");
}

#[test]
fn cancelling_anywhere_stores_nothing() {
    let host = || {
        ScriptedHost::new()
            .answer("run", "true")
            .program("claude", |_| Ok(ended(Some(2))))
            .answer("token", fake("sk-ant-api03-"))
            .answer("as-api-key", "true")
    };
    let whole = host();
    login(&SetupToken, &whole, &setup_token()).unwrap();
    assert_eq!(whole.count(), 5);
    for at in 0..whole.count() {
        let result = login(&SetupToken, &host().cancel_at(at), &setup_token());
        assert_eq!(result, Err(AuthError::Cancelled {}), "at effect {at}");
    }
}
