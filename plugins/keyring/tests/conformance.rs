//! The suite that every plugin passes, and what only this one knows.

use moltbot_core::*;
use moltbot_plugin_keyring::Keyring;
use moltbot_testkit::{
    ScriptedHost, block_on, call, fake, headless, login, offer, sample_provider,
};

fn link() -> Credential {
    Credential::link(CredentialKind::ApiKey, "acme", "keyring")
}

moltbot_testkit::conformance!(moltbot_plugin_keyring::PLUGIN, |suite| suite
    .scene("typed", || ScriptedHost::new().answer("typed-key", fake("acme-")))
    .scene("flag", || ScriptedHost::new().answer_flag("key", fake("acme-")))
    .scene("there already", || ScriptedHost::new().keyring("moltbot", "acme", fake("acme-")))
    .scene("no keyring", || {
        ScriptedHost::new().without_keyring().answer_flag("key", fake("acme-"))
    })
    .stored(link));

fn acme() -> Call {
    let provider = sample_provider();
    headless(call(&provider, &offer(&Keyring, &provider, "acme-keyring")))
}

fn resolve(host: &ScriptedHost, stored: &Credential) -> Resolved {
    block_on(Keyring.resolve(&Cx::new(host, &acme()), stored)).expect("the scripted host answers")
}

#[test]
fn the_store_gets_a_link_and_the_keyring_the_key() {
    let host = ScriptedHost::new()
        .answer_flag("key", fake("acme-"))
        .answer_flag("keyring-account", "work");
    let link = login(&Keyring, &host, &acme()).unwrap().credential;
    assert!(link.is_link() && link.secret().is_none());
    assert_eq!(link.rest["keyring-account"], "work");
    let resolved = resolve(&host, &link);
    assert_eq!(resolved.state, CredentialState::Ready);
    assert_eq!(resolved.credential.secret().map(Secret::expose), Some(&*fake("acme-")));
}

#[test]
fn an_entry_that_is_there_is_linked_without_a_question() {
    let host = ScriptedHost::new().keyring("moltbot", "acme", fake("acme-"));
    assert!(login(&Keyring, &host, &acme()).unwrap().credential.is_link());
    assert_eq!(host.asked(), ["keyring-account", "key"]);
}

#[test]
fn what_is_missing_is_said() {
    let nothing = ScriptedHost::new();
    let error = login(&Keyring, &nothing, &acme()).unwrap_err().to_string();
    assert_eq!(error, "There is no entry of moltbot in the keyring; pass --acme-keyring-key");
    let absent = resolve(&nothing, &link());
    assert_eq!(absent.state, CredentialState::Absent);
    assert_eq!(absent.detail.as_deref(), Some("the keyring has no entry acme of moltbot"));

    let none = ScriptedHost::new().without_keyring();
    let unreadable = resolve(&none, &link());
    assert_eq!(unreadable.state, CredentialState::Unreadable);
    assert_eq!(unreadable.detail.as_deref(), Some("the keyring is not supported"));
}
