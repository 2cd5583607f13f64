//! The plugin `keyring` from the command line to the request, with the library behind it and a Secret
//! Service: one of our own everywhere, and the desktop's where it is installed.

#![cfg(target_os = "linux")]

mod service;

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::support::{Done, KEY, KEY2, Sandbox, lab, messages, until, used};
use service::SecretService;

/// Returns a binary with the plugin, built once by the cargo that runs the tests. The stock binary
/// does without: the library behind it brings some 70 crates.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").expect("tests are run by cargo");
        let output = Command::new(cargo)
            .args(["build", "--quiet", "--package", "moltbot-tests", "--example", "keyring-host"])
            .args(["--features", "keyring", "--message-format=json"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo starts");
        assert!(output.status.success(), "the binary with a keyring does not build");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|message| message["target"]["name"] == "keyring-host")
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .expect("cargo names the executable")
    })
}

fn run(sandbox: &Sandbox, args: &[&str], input: &str) -> Done {
    sandbox.run_program(binary(), args, input)
}

/// Returns what `models status` tells.
fn status(sandbox: &Sandbox) -> String {
    run(sandbox, &["models", "status", "--json"], "").exits(0).json().to_string()
}

const HEADLESS: [&str; 3] = ["onboard", "--non-interactive", "--accept-risk"];

/// Logs in, asks, changes the key, asks again, links what is there from another home, and hands the
/// key out; `address` is the bus.
fn walk(address: &str) {
    let lab = lab("[]");
    let home = || {
        let sandbox = Sandbox::new().env("DBUS_SESSION_BUS_ADDRESS", address);
        sandbox.use_lab(&lab, json!({}));
        sandbox
    };
    let sandbox = home();
    let login = [&HEADLESS[..], &["--anthropic-keyring-key", "-"]].concat();
    let ask = |sandbox: &Sandbox, key: &str| {
        run(sandbox, &["agent", "-m", "hi"], "").exits(0);
        assert_eq!(used(messages(&lab).last().unwrap()), moltbot_lab::fingerprint(key));
    };
    for key in [KEY, KEY2] {
        let done = run(&sandbox, &login, key).exits(0);
        assert!(done.out.contains("anthropic:keyring"), "{}", done.out);
        assert!(!done.out.contains(key) && !done.err.contains(key), "{done:?}");
        for (file, content) in sandbox.snapshot() {
            let found = content.windows(key.len()).any(|part| part == key.as_bytes());
            assert!(!found, "{} holds the key", file.display());
        }
        ask(&sandbox, key);
    }
    let status = status(&sandbox);
    assert!(status.contains("anthropic:keyring") && !status.contains(KEY2), "{status}");

    // What is in the keyring already is linked without a question.
    let other = home();
    let choose = [&HEADLESS[..], &["--auth-choice", "anthropic-keyring"]].concat();
    run(&other, &choose, "").exits(0);
    ask(&other, KEY2);
    let print = ["models", "auth", "print", "--profile", "anthropic:keyring", "--format", "raw"];
    let printed = run(&other, &[&print[..], &["--yes"]].concat(), "").exits(0);
    assert_eq!(printed.out.trim(), KEY2);

    // Another entry, which nobody has put in.
    let missing = [&choose[..], &["--anthropic-keyring-account", "nobody"]].concat();
    run(&home(), &missing, "").exits(1).says("There is no entry of moltbot in the keyring");
}

#[test]
fn a_key_lies_in_the_keyring_from_the_login_to_the_request() {
    let service = SecretService::start();
    walk(&service.address());
    assert_eq!(service.entries(), [("moltbot".to_string(), "anthropic".to_string())]);
}

#[test]
fn without_a_keyring_it_is_said() {
    let service = SecretService::start();
    let lab = lab("[]");
    let mut sandbox = Sandbox::new().env("DBUS_SESSION_BUS_ADDRESS", &service.address());
    sandbox.use_lab(&lab, json!({}));
    let login = [&HEADLESS[..], &["--anthropic-keyring-key", "-"]].concat();
    run(&sandbox, &login, KEY).exits(0);
    let nowhere = format!("unix:path={}", sandbox.root().join("nowhere").display());
    sandbox.set_env("DBUS_SESSION_BUS_ADDRESS", Some(&nowhere));
    run(&sandbox, &["agent", "-m", "hi"], "")
        .exits(1)
        .says("anthropic:keyring: the keyring of this machine: ");
    let status = status(&sandbox);
    assert!(status.contains("the keyring of this machine: "), "{status}");
    let done = run(&Sandbox::new().env("DBUS_SESSION_BUS_ADDRESS", &nowhere), &login, KEY);
    done.exits(1).says("the keyring of this machine: ");
    assert!(messages(&lab).is_empty());
}

/// The same with the keyring that desktops have.
#[test]
fn the_desktops_keyring_holds_it_too() {
    let dir = tempfile::tempdir().unwrap();
    let Some(desktop) = Desktop::start(dir.path()) else {
        eprintln!("SKIPPED: dbus-daemon and gnome-keyring-daemon are not both here and running");
        return;
    };
    walk(&desktop.address);
}

/// Tells whether somebody keeps secrets on a bus.
fn has_keyring(address: &str) -> bool {
    let ask = || -> zbus::Result<bool> {
        let connection = zbus::blocking::connection::Builder::address(address)?.build()?;
        let bus = zbus::blocking::fdo::DBusProxy::new(&connection)?;
        Ok(bus.name_has_owner("org.freedesktop.secrets".try_into()?)?)
    };
    ask().unwrap_or(false)
}

/// A bus and a keyring of their own, ended with this value.
struct Desktop {
    address: String,
    programs: Vec<Child>,
}

impl Desktop {
    fn start(dir: &Path) -> Option<Self> {
        let mut bus = Command::new("dbus-daemon");
        bus.args(["--session", "--nofork", "--nopidfile", "--print-address=1"])
            .arg(format!("--address=unix:path={}", dir.join("bus").display()))
            // So that it starts no service by itself.
            .env_clear()
            .env("XDG_DATA_DIRS", dir);
        let mut bus = bus.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut address = String::new();
        BufReader::new(bus.stdout.take()?).read_line(&mut address).unwrap();
        let address = address.trim().to_string();
        let mut desktop = Self { address, programs: vec![bus] };
        let mut keyring = Command::new("gnome-keyring-daemon");
        keyring.args(["--foreground", "--unlock", "--components=secrets"]);
        keyring.env_clear().env("HOME", dir).env("XDG_RUNTIME_DIR", dir);
        keyring.env("DBUS_SESSION_BUS_ADDRESS", &desktop.address);
        let keyring = keyring.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut keyring = keyring.spawn().ok()?;
        // One that ends at once reads nothing.
        let _ = keyring.stdin.take()?.write_all(b"FAKE-password");
        let address = desktop.address.clone();
        let (keyring, there) = (RefCell::new(keyring), Cell::new(false));
        until(|| {
            there.set(has_keyring(&address));
            there.get() || keyring.borrow_mut().try_wait().unwrap().is_some()
        });
        desktop.programs.push(keyring.into_inner());
        there.get().then_some(desktop)
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}
