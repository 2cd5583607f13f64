//! Plugins from outside: a stranger's login over both carriers, the list of the trusted, and a
//! pack of plugins that do everything wrong.

mod everyone;
mod fixtures;
mod hostile_library;
mod hostile_process;
mod identity;
mod later;

use moltbot_abi::host;
use moltbot_core::{AuthError, ProviderInfo};
use moltbot_testkit::{Conformance, ScriptedHost, call, login, offer};

use crate::support::Sandbox;
use fixtures::{Form, acme, hostile, pinned, place, trusted};

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
fn several_are_opened_at_once_and_each_keeps_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let [library, process] = [Form::Library, Form::Process].map(|form| pinned(acme(form), form).1);
    let wrong = host::Pin { sha256: "0".repeat(64), ..library.clone() };
    let text = dir.path().join("text");
    std::fs::write(&text, "no library").unwrap();
    let (_, text) = pinned(&text, Form::Library);
    let pins = [wrong, library, text, process];
    let all = ["another sum", "acme-sso", "no library", "acme-sso"];
    for (pins, expected) in [(&pins[..], &all[..]), (&pins[1..2], &all[1..2]), (&[], &[])] {
        let place = place(dir.path());
        let opened = host::open_all(pins, &place, |_, opened| match opened {
            Ok(carried) => carried[0].plugin().id,
            Err(host::LoadError::WrongSum { .. }) => "another sum",
            Err(host::LoadError::NotALibrary { .. }) => "no library",
            Err(error) => panic!("{error}"),
        });
        assert_eq!(opened, expected);
    }
}

#[test]
fn no_private_copy_is_left_behind() {
    for form in [Form::Library, Form::Process] {
        let dir = tempfile::tempdir().unwrap();
        let plugin = acme_plugin(form, dir.path());
        assert!(!plugin.auth[0].offers(&plugin.providers[0].info()).is_empty());
        let left = std::fs::read_dir(dir.path().join("state")).unwrap();
        let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left: Vec<_> = left.filter(|name| !name.ends_with(".mark")).collect();
        assert!(left.is_empty(), "{form:?}: {left:?}");
    }
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

/// Spec case 76 in our form: a plugin whose settings have no schema, and a second provider of an id
/// that is taken. Both are diagnostics of `plugins doctor`; what came first is kept.
#[test]
fn case_76_settings_without_a_schema_and_a_provider_id_that_is_taken() {
    let sandbox = Sandbox::new();
    let odd = trusted(&sandbox, hostile(Form::Process), "no-schema");
    sandbox.run(&["plugins", "trust", &odd, "--yes"]);
    let entry = format!("{{\"path\":\"{odd}\"");
    if !sandbox.config().replace([' ', '\n'], "").contains(&entry) {
        // It was refused at once, which is a diagnostic too; listed by hand it is one of the doctor.
        let sum = host::read(odd.as_ref(), None).unwrap().sha256;
        let listed = serde_json::json!([{ "path": odd, "sha256": sum, "kind": "process" }]);
        sandbox.run(&["config", "set", "plugins.trusted", &listed.to_string(), "--json"]).exits(0);
    }
    let said = sandbox.run(&["plugins", "doctor"]).exits(1).out;
    assert!(said.contains("no-schema") && said.contains("cannot be understood"), "{said}");
    let all = sandbox.run(&["doctor"]);
    assert!(all.out.contains("no-schema"), "{}", all.out);

    let sandbox = Sandbox::new();
    let first = trusted(&sandbox, acme(Form::Library), "first.so");
    // The same provider in a plugin of another name: a text of the same length keeps the file in
    // shape.
    let second = trusted(&sandbox, acme(Form::Library), "second.so");
    let mut bytes = std::fs::read(&second).unwrap();
    for at in 0..bytes.len() - 8 {
        if &bytes[at..at + 8] == b"acme-sso" {
            bytes[at + 7] = b'2';
        }
    }
    std::fs::write(&second, bytes).unwrap();
    let list: Vec<_> = [&first, &second]
        .map(|path| {
            let sum = host::read(path.as_ref(), None).unwrap().sha256;
            serde_json::json!({ "path": path, "sha256": sum, "kind": "library" })
        })
        .into();
    let list = serde_json::Value::from(list).to_string();
    sandbox.run(&["config", "set", "plugins.trusted", &list, "--json"]).exits(0);
    let said = sandbox.run(&["plugins", "doctor"]).exits(1).out;
    assert!(said.contains("used: acme-sso 0.3.1 from"), "{said}");
    assert!(said.contains("provider \"acme\" is claimed by both"), "{said}");
    let list = sandbox.run(&["plugins", "list", "--json"]).exits(0).json();
    let rows = list["plugins"].as_array().unwrap();
    assert!(rows.iter().any(|row| row["id"] == "acme-sso"), "the first is kept: {rows:?}");
}

/// `plugins.allow`, `deny` and `entries` (spec P-3) hold for plugins from outside.
#[test]
fn the_config_may_keep_a_trusted_plugin_from_running() {
    let sandbox = Sandbox::new();
    let plugin = trusted(&sandbox, acme(Form::Process), "acme");
    sandbox.run(&["plugins", "trust", &plugin, "--yes"]).exits(0);
    let doctor = sandbox.run(&["doctor"]).exits(0).out;
    assert!(doctor.contains("info: plugin acme-sso 0.3.1 from"), "{doctor}");
    for (key, value, says) in [
        ("plugins.deny", r#"["acme-sso"]"#, "plugins.deny names acme-sso"),
        ("plugins.allow", r#"["api-key"]"#, "plugins.allow does not name acme-sso"),
        ("plugins.entries", r#"{"acme-sso":{"enabled":false}}"#, "enabled is false"),
    ] {
        sandbox.run(&["config", "set", key, value, "--json"]).exits(0);
        let said = sandbox.run(&["plugins", "doctor"]).exits(1).out;
        assert!(said.contains(says), "{key}: {said}");
        assert!(
            !sandbox.run(&["onboard", "--help"]).exits(0).out.contains("--acme-issuer"),
            "{key}"
        );
        sandbox.run(&["config", "unset", key]).exits(0);
    }
    sandbox.run(&["plugins", "doctor"]).exits(0);
}
