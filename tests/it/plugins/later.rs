//! What plugins said about themselves is kept: later starts check every file as the first one did,
//! and load or spawn it when something of it is called.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use moltbot_abi::host::{self, Carried, LoadError, Pin};
use moltbot_core::{CredentialKind, Plugin, ProviderInfo};
use moltbot_testkit::{ScriptedHost, call, login, offer};

use super::fixtures::{Form, acme, copy, descriptions, hostile, list, pinned, place, trusted};
use super::{DEVICE, TOKEN, TRANSCRIPT};
use crate::support::Sandbox;

/// A sandbox with the hostile library, which leaves a trace when it is loaded and offers a login.
struct Traced {
    sandbox: Sandbox,
    plugin: String,
    trace: PathBuf,
}

impl Traced {
    /// Lists the library by hand; nothing of it has run.
    fn new() -> Self {
        let mut sandbox = Sandbox::new();
        let plugin = trusted(&sandbox, hostile(Form::Library), "libhostile.so");
        let trace = sandbox.root().join("trace");
        sandbox.set_env("HOSTILE", Some("offers"));
        sandbox.set_env("HOSTILE_TRACE", trace.to_str());
        list(&sandbox, &plugin, Form::Library);
        Self { sandbox, plugin, trace }
    }

    /// Lists it and starts once, so that its description is kept.
    fn known() -> Self {
        let traced = Self::new();
        assert!(traced.loads(&["plugins", "list"]).contains("used: hostile"));
        assert_eq!(traced.kept().len(), 1);
        traced
    }

    fn kept(&self) -> Vec<PathBuf> {
        descriptions(&self.sandbox.state("plugins"))
    }

    /// Runs a command that must load the library, and returns what it printed.
    #[track_caller]
    fn loads(&self, args: &[&str]) -> String {
        let ran = self.sandbox.run(args).exits(0);
        assert!(std::fs::remove_file(&self.trace).is_ok(), "{args:?} loads nothing: {ran:?}");
        ran.out
    }

    /// Runs a command that must not load it.
    #[track_caller]
    fn does_without(&self, args: &[&str]) -> String {
        let ran = self.sandbox.run(args).exits(0);
        assert!(!self.trace.exists(), "{args:?} loads it: {ran:?}");
        ran.out
    }

    /// Calls it, with another deed; returns what was said and whether it was loaded.
    fn calls(&mut self, deed: &str) -> (String, bool) {
        self.sandbox.set_env("HOSTILE", Some(deed));
        let login = ["onboard", "--non-interactive", "--accept-risk", "--auth-choice"];
        let choice = ["hostile-login", "--hostile-key", "FAKE"];
        let ran = self.sandbox.run(&[&login[..], &choice[..]].concat());
        self.sandbox.set_env("HOSTILE", Some("offers"));
        (ran.err, std::fs::remove_file(&self.trace).is_ok())
    }
}

#[test]
fn a_later_start_loads_nothing_until_something_is_called() {
    let mut traced = Traced::new();
    let first = traced.loads(&["plugins", "list", "--json"]);
    let kept = traced.kept();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(kept[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(traced.does_without(&["plugins", "list", "--json"]), first);
    assert!(traced.does_without(&["plugins", "info", "hostile"]).contains("--hostile-key"));
    assert!(traced.does_without(&["onboard", "--help"]).contains("--hostile-key"));
    traced.does_without(&["models", "status"]);
    // Its answer to a login is none; that it was asked is what counts here.
    let (said, loaded) = traced.calls("offers");
    assert!(loaded && said.contains("cannot be understood"), "{said}");
    for args in [&["plugins", "doctor"][..], &["plugins", "check", &traced.plugin]] {
        traced.loads(args);
    }
    traced.loads(&["doctor"]);
    assert_eq!(traced.does_without(&["plugins", "list", "--json"]), first);
}

#[test]
fn trusting_a_plugin_is_its_first_start() {
    let mut traced = Traced::new();
    traced.sandbox.write_config("{}");
    let plugin = traced.plugin.clone();
    traced.loads(&["plugins", "trust", &plugin, "--yes"]);
    assert!(traced.does_without(&["plugins", "list"]).contains("used: hostile"));
    // What another plugin adds a provider for is asked while that one is trusted.
    let other = trusted(&traced.sandbox, acme(Form::Library), "libacme.so");
    traced.loads(&["plugins", "trust", &other, "--yes"]);
    let listed = traced.does_without(&["plugins", "list"]);
    assert!(listed.contains("used: hostile") && listed.contains("used: acme-sso"), "{listed}");
    assert_eq!(traced.kept().len(), 2);
    traced.sandbox.run(&["plugins", "untrust", "acme-sso"]).exits(0);
    assert_eq!(traced.kept().len(), 1, "of what is not listed nothing is kept");
    traced.sandbox.set_env("HOSTILE_TRACE", None);
    traced.sandbox.run(&["plugins", "untrust", "hostile"]).exits(0);
    assert_eq!(traced.kept(), Vec::<PathBuf>::new());
}

/// Every check of the file comes before what is kept of it.
#[test]
fn what_is_known_is_checked_as_ever() {
    let traced = Traced::known();
    let plugin = Path::new(&traced.plugin);
    let bytes = std::fs::read(plugin).unwrap();
    let refused = |says: &str| {
        let listed = traced.does_without(&["plugins", "list"]);
        assert!(listed.contains("not used") && listed.contains(says), "{says}: {listed}");
        let ran = traced.sandbox.run(&["status"]).exits(0);
        assert!(ran.err.contains("is not used:") && !traced.trace.exists(), "{ran:?}");
    };
    for path in [plugin, plugin.parent().unwrap()] {
        let mode = |mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        mode(0o777);
        refused("can be changed by others: its mode is 0777");
        mode(0o755);
        traced.does_without(&["plugins", "list"]);
    }
    std::fs::write(plugin, [&bytes[..], b"\0"].concat()).unwrap();
    refused("its sha256 is");
    std::fs::write(plugin, &bytes[..bytes.len() / 2]).unwrap();
    refused("its sha256 is");
    std::fs::remove_file(plugin).unwrap();
    refused("cannot be read");
    std::fs::write(plugin, &bytes).unwrap();
    assert!(traced.does_without(&["plugins", "list"]).contains("used: hostile"));
}

/// What cannot be used is asked again and written anew, without a word.
#[test]
fn what_is_odd_about_a_description_is_nobodys_trouble() {
    let traced = Traced::known();
    let kept = traced.kept().remove(0);
    let sound = std::fs::read_to_string(&kept).unwrap();
    let first = traced.does_without(&["plugins", "list"]);
    let forged = sound.replace("hostile-login", "forged-login");
    assert_ne!(forged, sound);
    for (text, mode) in [
        ("", 0o600),
        ("{\"no\":", 0o600),
        (&sound[..sound.len() / 2], 0o600),
        (&sound.replace("\"core\":\"", "\"core\":\"9"), 0o600),
        (&forged, 0o644),
        (&forged, 0o660),
    ] {
        std::fs::write(&kept, text).unwrap();
        std::fs::set_permissions(&kept, PermissionsExt::from_mode(mode)).unwrap();
        assert_eq!(traced.loads(&["plugins", "list"]), first, "{mode:o}: {text}");
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), sound);
        assert_eq!(kept.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    // What nobody can write either is done without, at every start.
    std::fs::remove_file(&kept).unwrap();
    std::fs::create_dir_all(kept.join("in the way")).unwrap();
    for _ in 0..2 {
        assert_eq!(traced.loads(&["plugins", "list"]), first);
    }
}

#[test]
fn another_version_is_another_description() {
    let traced = Traced::known();
    let before = traced.kept();
    let mut bytes = std::fs::read(&traced.plugin).unwrap();
    for at in 0..bytes.len() - 5 {
        if &bytes[at..at + 5] == b"6.6.6" {
            bytes[at + 4] = b'7';
        }
    }
    std::fs::write(&traced.plugin, bytes).unwrap();
    list(&traced.sandbox, &traced.plugin, Form::Library);
    assert!(traced.loads(&["plugins", "list", "--json"]).contains("6.6.7"));
    assert!(traced.does_without(&["plugins", "list", "--json"]).contains("6.6.7"));
    let kept = traced.kept();
    assert!(kept.len() == 1 && kept != before, "the old one is gone: {kept:?}");
}

/// A library whose tale changes is believed once more at the most.
#[test]
fn a_description_that_is_no_longer_true_is_dropped() {
    let mut traced = Traced::known();
    assert!(traced.calls("fickle").1);
    assert_eq!(traced.kept(), Vec::<PathBuf>::new());
    traced.loads(&["plugins", "list"]);
    assert_eq!(traced.kept().len(), 1);
}

/// It takes the program down when it is called, once; from then on the program serves without it.
fn takes_it_down_once(deed: &str) {
    let mut traced = Traced::known();
    assert!(traced.calls(deed).1, "{deed}");
    for _ in 0..2 {
        let listed = traced.does_without(&["plugins", "list"]);
        assert!(listed.contains("it took the host down"), "{deed}: {listed}");
        traced.sandbox.run(&["status"]).exits(0).says("--retry");
    }
    let (said, loaded) = traced.calls(deed);
    assert!(!loaded && said.contains("hostile"), "{deed}: its choice is gone: {said}");
    let plugin = traced.plugin.clone();
    traced.loads(&["plugins", "trust", &plugin, "--retry", "--yes"]);
    assert!(traced.does_without(&["plugins", "list"]).contains("used: hostile"), "{deed}");
}

#[test]
fn what_ends_the_program_at_its_first_call_ends_it_once() {
    for deed in ["constructor-abort", "constructor-exit", "segfault", "exit"] {
        takes_it_down_once(deed);
    }
}

#[test]
fn what_hangs_in_the_loader_at_its_first_call_ends_the_program_once() {
    takes_it_down_once("constructor-spin");
}

#[test]
fn hosts_may_start_at_once() {
    let traced = Traced::new();
    let start = |_| {
        let mut host = traced.sandbox.command(&["plugins", "list", "--json"]);
        host.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let hosts: Vec<_> = (0..6).map(start).collect();
    let said: Vec<_> = hosts.into_iter().map(|host| host.wait_with_output().unwrap()).collect();
    for output in &said {
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stdout, said[0].stdout);
    }
    std::fs::remove_file(&traced.trace).unwrap();
    assert_eq!(traced.does_without(&["plugins", "list", "--json"]).as_bytes(), said[0].stdout);
    let mut left = std::fs::read_dir(traced.sandbox.state("plugins")).unwrap();
    assert!(left.all(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.ends_with(".described.json") || name.ends_with(".mark")
    }));
}

/// Opens the stranger's plugin as a start does that finds its description.
fn known(path: &Path, form: Form, dir: &Path) -> (&'static Plugin, Pin) {
    let (file, pin) = pinned(path, form);
    let place = place(dir);
    let first = host::open(&file, &pin, &place, false).unwrap();
    let own = first[0].plugin().providers[0].info();
    first[0].foresee(&[&own]);
    host::keep(&first, &place);
    assert_eq!(descriptions(&place.dir).len(), 1);
    let opened = host::open_all(std::slice::from_ref(&pin), &place, |_, opened| opened);
    let later: Vec<Carried> = opened.into_iter().flat_map(Result::unwrap).collect();
    later[0].foresee(&[&own]);
    (later[0].plugin(), pin)
}

/// Says why a call fails; nothing if it does not.
fn complaint(plugin: &Plugin) -> String {
    let info = plugin.providers[0].info();
    let found = offer(plugin.auth[0], &info, "acme-sso");
    let host = ScriptedHost::new().http_reply(200, DEVICE).http_reply(200, TOKEN);
    match login(plugin.auth[0], &host, &call(&info, &found)) {
        Ok(_) => {
            assert_eq!(host.transcript(), TRANSCRIPT);
            String::new()
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_is_opened_later_behaves_the_same() {
    for form in [Form::Library, Form::Process] {
        let dir = tempfile::tempdir().unwrap();
        let (plugin, _) = known(acme(form), form, dir.path());
        assert_eq!((plugin.id, plugin.version), ("acme-sso", "0.3.1"));
        assert_eq!(complaint(plugin), "", "{form:?}");
        assert!(!plugin.providers[0].info().catalog.is_empty());
        drop(plugin.providers[0].caps(&CredentialKind::ApiKey));
        let other = ProviderInfo { id: "other".into(), ..ProviderInfo::default() };
        assert!(plugin.auth[0].offers(&other).is_empty(), "what is not known is asked");
    }
}

/// Between start and call the file may be replaced, as an update does; the one that was checked
/// stays. One that is written over is refused.
#[test]
fn what_becomes_of_the_file_after_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let path = copy(acme(Form::Library), &dir.path().join("replaced.so"));
    let (plugin, _) = known(&path, Form::Library, dir.path());
    std::fs::write(dir.path().join("new"), "an update").unwrap();
    std::fs::rename(dir.path().join("new"), &path).unwrap();
    assert_eq!(complaint(plugin), "");

    let dir = tempfile::tempdir().unwrap();
    let path = copy(acme(Form::Library), &dir.path().join("changed.so"));
    let (plugin, pin) = known(&path, Form::Library, dir.path());
    std::fs::write(&path, "an update").unwrap();
    for _ in 0..2 {
        let said = complaint(plugin);
        assert!(said.contains("its sha256 is") && said.contains(&pin.sha256), "{said}");
    }
}

/// Another process may have been taken down since this one looked for marks.
#[test]
fn what_took_another_host_down_meanwhile_is_not_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let (plugin, pin) = known(acme(Form::Library), Form::Library, dir.path());
    let mark = place(dir.path()).dir.join(format!("{}.1-99.mark", pin.sha256));
    std::fs::write(mark, "!").unwrap();
    let said = complaint(plugin);
    assert!(said.contains("took the host down") && said.contains("--retry"), "{said}");
}

#[test]
fn a_process_that_is_known_is_started_when_it_is_called() {
    let dir = tempfile::tempdir().unwrap();
    let path = copy(acme(Form::Process), &dir.path().join("acme"));
    let (plugin, pin) = known(&path, Form::Process, dir.path());
    let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    mode(0o644);
    let start = || {
        let pins = std::slice::from_ref(&pin);
        host::open_all(pins, &place(dir.path()), |_, opened| opened.err()).remove(0)
    };
    let refused = start();
    assert!(matches!(refused, Some(LoadError::Start { .. })), "{refused:?}");
    mode(0o755);
    assert_eq!(start(), None);
    // Nothing of it ran so far, or this would go well.
    std::fs::remove_file(&path).unwrap();
    let said = complaint(plugin);
    assert!(said.contains("cannot be read"), "{said}");
}

/// What a script answers depends on more than its own text.
#[test]
fn of_a_script_nothing_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("script");
    let hello = r#"{"core":"0.1.0","plugins":[{"id":"script","version":"1.0.0"}]}"#;
    let script = format!("#!/bin/sh\nwhile read -r line; do echo '{hello}'; done\n");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    let (file, pin) = pinned(&path, Form::Process);
    let place = place(dir.path());
    let opened = host::open(&file, &pin, &place, false).unwrap();
    assert_eq!(opened[0].plugin().id, "script");
    host::keep(&opened, &place);
    assert_eq!(descriptions(&place.dir), Vec::<PathBuf>::new());
}
