//! What the method asks, what it makes of the answers, and the exact texts.

use moltbot_core::*;
use moltbot_plugin_api_key::{ApiKey, normalize_key};
use moltbot_testkit::{ScriptedHost, call, fake, headless, leaks, login, offer};

fn vendor() -> ProviderInfo {
    ProviderInfo {
        id: "anthropic".into(),
        label: "Anthropic".into(),
        api_key: Some(ApiKeySpec {
            choice: "apiKey".into(),
            flag: "anthropic-api-key".into(),
            env: "ANTHROPIC_API_KEY".into(),
            label: "Anthropic API key".into(),
            prefix: "sk-ant-api".into(),
            policy: None,
        }),
        ..ProviderInfo::default()
    }
}

fn the_call() -> Call {
    call(&vendor(), &offer(&ApiKey, &vendor(), "apiKey"))
}

fn stored(login: &Login) -> &str {
    login.credential.key.as_ref().expect("a key").expose()
}

#[test]
fn the_offer_comes_from_the_provider() {
    let offer = offer(&ApiKey, &vendor(), "apiKey");
    assert_eq!((&*offer.profile, &*offer.mode), ("anthropic:default", "api_key"));
    assert_eq!(offer.fields[0].flag.as_deref(), Some("anthropic-api-key"));
    assert_eq!(offer.fields[0].env.as_deref(), Some("ANTHROPIC_API_KEY"));
    assert_eq!(offer.fields[0].label, "Enter Anthropic API key");
    assert!(offer.caps.recommended);
    assert_eq!(offer.payer, Payer::Metered);
    let keyless = ProviderInfo { api_key: None, ..vendor() };
    assert!(ApiKey.offers(&keyless).is_empty());
}

/// Acceptance cases 16 and 17: a flag is treated like a paste.
#[test]
fn a_flag_is_cleaned_like_a_paste() {
    let key = fake("sk-ant-api03-");
    for given in [key.clone(), format!(" export ANTHROPIC_API_KEY=\"{key}\"; ")] {
        let host = ScriptedHost::new().answer_flag("key", &given);
        let login = login(&ApiKey, &host, &headless(the_call())).unwrap();
        assert_eq!(stored(&login), key);
        assert_eq!(login.credential.kind, CredentialKind::ApiKey);
        assert_eq!(login.profile, None);
        assert_eq!(host.asked(), ["key"]);
    }
}

/// Spec L-12.
#[test]
fn nothing_given_and_nobody_there() {
    let error = login(&ApiKey, &ScriptedHost::new(), &headless(the_call())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Missing --anthropic-api-key (or ANTHROPIC_API_KEY in env, or existing anthropic API-key profile)."
    );
}

#[test]
fn a_person_is_asked_again_and_a_flag_is_not() {
    let key = fake("sk-ant-api03-");
    let host = ScriptedHost::new().answer("key", "  ").answer("key", &key);
    assert_eq!(stored(&login(&ApiKey, &host, &the_call()).unwrap()), key);
    assert_eq!(host.asked(), ["key", "key"]);

    let host = ScriptedHost::new().answer_flag("key", "''");
    let error = login(&ApiKey, &host, &headless(the_call())).unwrap_err();
    assert_eq!(error.to_string(), "Required");
    assert_eq!(host.count(), 1);
}

#[test]
fn another_kind_of_credential_is_refused_without_showing_it() {
    for prefix in ["sk-ant-oat01-", "sk-ant-admin01-", "sk-ant-sid01-"] {
        let token = fake(prefix);
        let host = ScriptedHost::new().answer_flag("key", &token);
        let error = login(&ApiKey, &host, &headless(the_call())).unwrap_err().to_string();
        assert_eq!(
            error,
            "Expected an API key starting with sk-ant-api; other kinds of sk-ant- credentials have their own choice in `moltbot onboard`"
        );
        assert!(!leaks(&error, &token) && !leaks(&host.transcript(), &token));
    }
}

#[test]
fn cancelling_stores_nothing() {
    let host = ScriptedHost::new().cancel_at(0);
    assert_eq!(login(&ApiKey, &host, &the_call()), Err(AuthError::Cancelled {}));
}

/// Spec L-1.
#[test]
fn what_is_taken_off_a_paste() {
    for (pasted, key) in [
        ("k", "k"),
        (" k \n", "k"),
        ("NAME=k", "k"),
        ("export NAME=k", "k"),
        ("export   NAME='k'", "k"),
        ("NAME2_X=`k`;", "k"),
        ("\"k\"", "k"),
        ("\"k;\"", "k"),
        ("\"k\";", "k"),
        ("k;", "k"),
        ("abc=def==", "abc=def=="),
        ("Abc=def", "Abc=def"),
        ("2A=def", "2A=def"),
        ("\"k'", "\"k'"),
        ("export", "export"),
    ] {
        assert_eq!(normalize_key(pasted, "").unwrap().expose(), key, "{pasted:?}");
    }
    for blank in ["", " ", "\"\"", "NAME=", "export NAME=\"\";", ";"] {
        assert_eq!(normalize_key(blank, "").unwrap_err(), "Required", "{blank:?}");
    }
    for bad in ["a b", "a\nb", "a\u{0}b", "schlüssel", "\u{202e}abc"] {
        assert_eq!(
            normalize_key(bad, "").unwrap_err(),
            "An API key is one word of printable ASCII characters",
            "{bad:?}"
        );
    }
}

#[test]
fn prefixes_without_a_vendor_part_refuse_nothing() {
    for (prefix, key) in [
        ("", "sk-anything"),
        ("sk-", "sk-anything"),
        ("acme-", "other"),
        ("sk-ant-api03-", "sk-ant-api04-x"),
    ] {
        assert_eq!(normalize_key(key, prefix).unwrap().expose(), key);
    }
}
