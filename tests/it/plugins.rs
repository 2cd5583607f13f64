//! Plugins from outside: a stranger's login over both carriers, the list of the trusted, and a
//! pack of plugins that do everything wrong.

mod fixtures;
mod hostile_library;
mod hostile_process;
mod identity;

use moltbot_abi::host;
use moltbot_core::{AuthError, ProviderInfo};
use moltbot_testkit::{Conformance, ScriptedHost, call, login, offer};

use crate::support::Sandbox;
use fixtures::{Form, acme, pinned, place, trusted};

const DEVICE: &str = include_str!("../fixtures/acme-sso/tests/device.json");
const TOKEN: &str = include_str!("../fixtures/acme-sso/tests/token.json");
const TRANSCRIPT: &str = include_str!("../fixtures/acme-sso/tests/login.txt");

/// Opens acme-sso over one carrier.
fn acme_plugin(form: Form, dir: &std::path::Path) -> &'static moltbot_core::Plugin {
    let (file, pin) = pinned(acme(form), form);
    let mut carried = host::open(&file, &pin, &place(dir), false).unwrap();
    assert_eq!(carried.len(), 1);
    carried.remove(0).plugin()
}

fn confirmed() -> ScriptedHost {
    ScriptedHost::new().http_reply(200, DEVICE).http_reply(200, TOKEN)
}

/// The linked and in-memory side of the same suite and the same transcript is the fixture's own
/// test.
#[test]
fn a_strangers_plugin_behaves_the_same_over_every_carrier() {
    let dir = tempfile::tempdir().unwrap();
    for form in [Form::Library, Form::Process] {
        let plugin = acme_plugin(form, dir.path());
        assert_eq!((plugin.id, plugin.version), ("acme-sso", "0.3.1"));
        let info = plugin.providers[0].info();
        let method = plugin.auth[0];
        let host = confirmed();
        let offer = offer(method, &info, "acme-sso");
        let done = login(method, &host, &call(&info, &offer)).unwrap();
        assert_eq!(host.transcript(), TRANSCRIPT, "{form:?}");
        assert_eq!(done.credential.provider, "acme");
        Conformance::of(plugin)
            .scene("confirmed", confirmed)
            .chat(r#"{"model":"anvil-1","messages":[]}"#)
            .reply(b"Hello \xc3\xa9\nworld\n\n")
            .check();
    }
}

#[test]
fn the_fixture_passes_its_own_tests() {
    fixtures::test_acme();
}

#[test]
fn an_abandoned_login_ends_on_the_other_side() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = acme_plugin(Form::Process, dir.path());
    let info = plugin.providers[0].info();
    let offer = offer(plugin.auth[0], &info, "acme-sso");
    for n in 0..4 {
        let host = confirmed().cancel_at(n);
        let error = login(plugin.auth[0], &host, &call(&info, &offer)).unwrap_err();
        assert_eq!(error, AuthError::Cancelled {});
    }
    assert!(plugin.auth[0].offers(&ProviderInfo::default()).is_empty(), "it still answers");
}

#[test]
fn a_stranger_logs_in_from_the_command_line() {
    for form in [Form::Library, Form::Process] {
        let server = identity::start();
        let sandbox = Sandbox::new();
        let plugin = trusted(&sandbox, acme(form), "libacme");
        let ran = sandbox.run(&["plugins", "trust", &plugin, "--yes"]).exits(0);
        assert!(ran.out.contains("acme-sso 0.3.1"), "{}", ran.out);
        assert!(ran.out.contains("sso.acme.example"), "its needs are shown: {}", ran.out);
        let list = sandbox.run(&["plugins", "list", "--json"]).exits(0).json();
        let row = list["plugins"].as_array().unwrap().iter().find(|row| row["id"] == "acme-sso");
        assert_eq!(row.unwrap()["origin"], form.word());
        let help = sandbox.run(&["onboard", "--help"]).exits(0).out;
        assert!(help.contains("--acme-issuer"), "{help}");

        let login = ["onboard", "--non-interactive", "--accept-risk", "--auth-choice", "acme-sso"];
        let issuer = ["--acme-issuer", server.as_str()];
        let ran = sandbox.run(&[&login[..], &issuer[..]].concat()).exits(0);
        assert!(!ran.out.contains("FAKE") && !ran.err.contains("FAKE"), "{ran:?}");
        let stored = &sandbox.store()["profiles"]["acme:sso"];
        assert_eq!(stored["access"], "FAKE-access-token-0001");
        assert_eq!(stored["method"], "acme-sso");

        sandbox.run(&["plugins", "untrust", "acme-sso"]).exits(0);
        let list = sandbox.run(&["plugins", "list"]).exits(0).out;
        assert!(!list.contains("acme-sso"), "{list}");
        assert!(!sandbox.run(&["onboard", "--help"]).exits(0).out.contains("--acme-issuer"));
    }
}

#[test]
fn a_changed_file_is_a_row_and_nothing_else() {
    let sandbox = Sandbox::new();
    let plugin = trusted(&sandbox, acme(Form::Process), "acme");
    sandbox.run(&["plugins", "trust", &plugin, "--yes"]).exits(0);
    sandbox.run(&["plugins", "doctor"]).exits(0);
    let script = "#!/bin/sh\ntouch \"$0.ran\"\n";
    sandbox.write(plugin.as_ref(), script);
    let ran = sandbox.run(&["plugins", "doctor"]).exits(1);
    assert!(ran.out.contains("its sha256 is") && ran.out.contains("trust it again"), "{}", ran.out);
    let status = sandbox.run(&["status"]).exits(0);
    assert!(status.err.contains("is not used: its sha256 is"), "{}", status.err);
    std::fs::remove_file(&plugin).unwrap();
    let ran = sandbox.run(&["plugins", "list"]).exits(0);
    assert!(ran.out.contains("cannot be read"), "{}", ran.out);
    sandbox.run(&["plugins", "untrust", &plugin]).exits(0);
    sandbox.run(&["plugins", "doctor"]).exits(0);
}

#[test]
fn nobody_is_trusted_without_an_answer() {
    let sandbox = Sandbox::new();
    let plugin = trusted(&sandbox, acme(Form::Library), "libacme.so");
    sandbox.run(&["plugins", "trust", &plugin]).exits(1).says("needs an answer").says("--yes");
    assert!(!sandbox.config().contains("trusted"));
    let ran = sandbox.run(&["plugins", "check", &plugin]).exits(0);
    assert!(ran.out.contains("It can be used.") && !sandbox.config().contains("trusted"));
}
