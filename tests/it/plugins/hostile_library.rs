//! Libraries that misbehave: refused before their code runs where that can be known; else they
//! take the program down at most once.

use std::path::Path;

use moltbot_abi::Descriptor;
use moltbot_abi::host::{self, LoadError};

use super::fixtures::{Form, copies, copy, hostile, list, pinned, place, trusted};
use crate::support::Sandbox;

/// Opens a changed copy of the library in this process.
fn open_changed(change: impl FnOnce(&mut Vec<u8>)) -> Result<(), LoadError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plugin.so");
    let mut bytes = std::fs::read(hostile(Form::Library)).unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    let (file, pin) = pinned(&path, Form::Library);
    host::open(&file, &pin, &place(dir.path()), false).map(drop)
}

/// Finds the descriptor in the library's bytes.
fn descriptor(bytes: &[u8]) -> usize {
    let abi_and_size = [1_u32.to_ne_bytes(), (size_of::<Descriptor>() as u32).to_ne_bytes()];
    let head = [&b"MOLTBOT\x01"[..], &abi_and_size.concat()].concat();
    bytes.windows(head.len()).position(|window| window == head).expect("a descriptor")
}

fn rename_symbol(bytes: &mut [u8]) {
    let name = b"MOLTBOT_PLUGIN_V1";
    for at in 0..bytes.len() - name.len() {
        if &bytes[at..at + name.len()] == name {
            bytes[at + name.len() - 1] = b'9';
        }
    }
}

#[test]
fn what_can_be_known_before_is_refused_before() {
    let set = |offset: usize, value: u32| {
        move |bytes: &mut Vec<u8>| {
            let at = descriptor(bytes) + offset;
            bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
    };
    assert_eq!(open_changed(|_| {}), Ok(()));
    assert_eq!(open_changed(set(0, 7)), Err(LoadError::Magic {}));
    assert!(matches!(open_changed(set(8, 2)), Err(LoadError::Layout { .. })));
    assert!(matches!(open_changed(set(12, 16)), Err(LoadError::Layout { .. })));
    assert_eq!(open_changed(set(16, 0)), Err(LoadError::Abort {}));
    let short = open_changed(set(32, 3)).unwrap_err().to_string();
    assert!(short.contains("built for moltbot-core 0.1, this is"), "{short}");
    assert_eq!(open_changed(|bytes| rename_symbol(bytes)), Err(LoadError::NoSymbol {}));
    let not_one = |error| matches!(error, Err(LoadError::NotALibrary { .. }));
    assert!(not_one(open_changed(|bytes| bytes.truncate(bytes.len() / 2))));
    assert!(not_one(open_changed(|bytes| bytes.truncate(4096))));
    assert!(not_one(open_changed(|bytes| *bytes = b"just text".to_vec())));
    assert!(not_one(open_changed(Vec::clear)));
}

/// Lists the library, of which nothing is known yet, so that every start asks it.
fn listed() -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    let plugin = trusted(&sandbox, hostile(Form::Library), "libhostile.so");
    list(&sandbox, &plugin, Form::Library);
    (sandbox, plugin)
}

/// The program goes on, and the list says what is wrong.
fn fails_alone(deed: &str, says: &str) {
    let (mut sandbox, _) = listed();
    sandbox.set_env("HOSTILE", Some(deed));
    let ran = sandbox.run(&["plugins", "list", "--json"]).exits(0);
    let said = ran.json()["diagnostics"].to_string();
    assert!(said.contains(says), "{deed}: {said}");
    sandbox.run(&["status"]).exits(0);
}

/// The program may end once; afterwards it serves without the plugin, until that is tried again.
fn takes_it_down_once(deed: &str) {
    let (mut sandbox, plugin) = listed();
    sandbox.set_env("HOSTILE", Some(deed));
    let ran = sandbox.run(&["plugins", "list"]);
    assert!(!ran.out.contains("hostile"), "{deed}: {ran:?}");
    for _ in 0..2 {
        let ran = sandbox.run(&["plugins", "list"]).exits(0);
        assert!(ran.out.contains("it took the host down"), "{deed}: {ran:?}");
        assert!(copies(&sandbox).is_empty(), "{deed}: {:?}", copies(&sandbox));
        sandbox.run(&["status"]).exits(0).says("--retry");
    }
    sandbox.set_env("HOSTILE", None);
    let ran = sandbox.run(&["plugins", "trust", &plugin, "--yes"]).exits(1);
    assert!(ran.err.contains("took the host down"), "{ran:?}");
    sandbox.run(&["plugins", "trust", &plugin, "--retry", "--yes"]).exits(0);
    let ran = sandbox.run(&["plugins", "list"]).exits(0);
    assert!(ran.out.contains("used: hostile"), "{deed}: {ran:?}");
}

#[test]
fn a_call_that_goes_wrong_fails_alone() {
    fails_alone("status", "its call returned 9");
    fails_alone("caught-panic", "it panicked");
    fails_alone("null", "its answer is missing");
    fails_alone("bad-json", "cannot be understood");
    fails_alone("not-utf8", "cannot be understood");
    fails_alone("choice", "auth choice \\\"apiKey\\\" is claimed by both api-key and hostile");
}

#[test]
fn a_call_that_never_ends_fails_alone() {
    fails_alone("spin", "it did not answer within");
}

#[test]
fn a_constructor_that_never_ends_ends_the_program_once() {
    takes_it_down_once("constructor-spin");
}

#[test]
fn what_ends_the_program_ends_it_once() {
    for deed in ["abort", "exit", "allocation", "stack-overflow", "segfault", "panic"] {
        takes_it_down_once(deed);
    }
}

#[test]
fn a_constructor_that_ends_the_program_ends_it_once() {
    for deed in ["constructor-abort", "constructor-exit", "constructor-segfault"] {
        takes_it_down_once(deed);
    }
}

#[test]
fn no_constructor_runs_before_the_sum_was_compared() {
    let (mut sandbox, plugin) = listed();
    let trace = sandbox.root().join("trace");
    sandbox.set_env("HOSTILE_TRACE", trace.to_str());
    sandbox.run(&["plugins", "list"]).exits(0);
    assert!(trace.exists(), "it runs when all is well");
    std::fs::remove_file(&trace).unwrap();
    let mut bytes = std::fs::read(&plugin).unwrap();
    bytes.push(0);
    std::fs::write(&plugin, bytes).unwrap();
    let ran = sandbox.run(&["plugins", "list"]).exits(0);
    assert!(ran.out.contains("its sha256 is") && !trace.exists(), "{ran:?}");
}

#[test]
fn what_others_can_change_is_not_loaded() {
    use std::os::unix::fs::PermissionsExt;
    let (sandbox, plugin) = listed();
    let plugin = Path::new(&plugin);
    for path in [plugin, plugin.parent().unwrap()] {
        let mode = |mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(0o777);
        let ran = sandbox.run(&["plugins", "doctor"]).exits(1);
        assert!(ran.out.contains("can be changed by others: its mode is 0777"), "{}", ran.out);
        mode(0o755);
        sandbox.run(&["plugins", "doctor"]).exits(0);
    }
}

#[test]
fn a_link_swapped_meanwhile_never_leads_to_other_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let good = copy(hostile(Form::Library), &dir.path().join("good"));
    let evil = copy(hostile(Form::Process), &dir.path().join("evil"));
    let sum = host::read(&good, None).unwrap().sha256;
    let (link, spare) = (dir.path().join("link"), dir.path().join("spare"));
    std::os::unix::fs::symlink(&good, &link).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for target in [&evil, &good] {
                    std::os::unix::fs::symlink(target, &spare).unwrap();
                    std::fs::rename(&spare, &link).unwrap();
                }
            }
        });
        for _ in 0..100 {
            match host::read(&link, Some(&sum)) {
                Ok(file) => assert_eq!((&file.path, &file.sha256), (&good, &sum)),
                Err(error) => assert!(matches!(error, LoadError::WrongSum { .. }), "{error}"),
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
