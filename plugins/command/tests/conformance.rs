//! The suite that every plugin passes, and what only this one knows.

use moltbot_core::*;
use moltbot_plugin_command::Command;
use moltbot_testkit::{
    NOW, ScriptedHost, block_on, call, fake, headless, login, offer, sample_provider,
};

const JSON: &str =
    r#"{"version":1,"key":"acme-FAKEfromthehelper0123456789","expiresAt":"2099-01-01T00:00:00Z"}"#;

fn stored() -> Credential {
    let mut old = Credential::api_key("acme", Secret::new(fake("acme-")));
    old.expires = Some(NOW.plus(-1));
    old.rest.insert("command".into(), "pass show acme".into());
    old
}

moltbot_testkit::conformance!(moltbot_plugin_command::PLUGIN, |suite| suite
    .scene("a key alone", || {
        ScriptedHost::new().answer("command", "pass show acme").ran("sh", 0, fake("acme-"))
    })
    .scene("JSON", || ScriptedHost::new().answer_flag("command", "helper").ran("sh", 0, JSON))
    .scene("a locked store", || {
        ScriptedHost::new().answer_flag("command", "helper").ran("sh", 1, "")
    })
    .stored(stored)
    .renew_settings(RenewSettings { force: true, ..RenewSettings::default() }));

fn acme() -> Call {
    let provider = sample_provider();
    headless(call(&provider, &offer(&Command, &provider, "acme-command")))
}

#[test]
fn the_command_is_run_word_for_word_by_the_shell() {
    let host = ScriptedHost::new().answer_flag("command", " a 'b c' | d ").program("sh", |run| {
        assert_eq!(run.args, ["-c", "a 'b c' | d"]);
        Ok(Ran { exit: Some(0), stdout: Secret::new(JSON), stderr: Secret::default() })
    });
    let kept = login(&Command, &host, &acme()).unwrap().credential;
    assert_eq!(kept.expires.map(Timestamp::millis), Some(4_070_908_800_000));
    assert_eq!(kept.rest["command"], "a 'b c' | d");
}

#[test]
fn a_renewal_keeps_the_profile_and_takes_the_new_key() {
    let host = ScriptedHost::new().ran("sh", 0, JSON);
    let call = acme();
    let new = block_on(Command.refresh(&Cx::new(&host, &call), &stored())).unwrap();
    assert_eq!(new.key.as_ref().map(Secret::expose), Some("acme-FAKEfromthehelper0123456789"));
    assert_eq!(new.rest, stored().rest);

    let forced = RenewSettings { force: true, ..RenewSettings::default() };
    let due = |settings: &RenewSettings, now| Command.renew(settings, &stored(), now);
    assert_eq!(due(&RenewSettings::default(), NOW), Ok(Renewal::Run {}));
    assert_eq!(due(&RenewSettings::default(), NOW.plus(-2)), Ok(Renewal::NotDue {}));
    assert_eq!(due(&forced, NOW.plus(-2)), Ok(Renewal::Run {}));
}

#[test]
fn a_failing_command_is_told_with_its_first_line_redacted() {
    let key = fake("sk-ant-api03-");
    let shown = key.clone();
    let host = ScriptedHost::new().answer_flag("command", "helper").program("sh", move |_| {
        let stderr = Secret::new(format!("not signed in as {key}\nmore"));
        Ok(Ran { exit: Some(7), stdout: Secret::default(), stderr })
    });
    let error = login(&Command, &host, &acme()).unwrap_err().to_string();
    assert!(error.starts_with("The key command failed with code 7: not signed in as "), "{error}");
    assert!(!error.contains(&shown) && !error.contains("more"), "{error}");
}
