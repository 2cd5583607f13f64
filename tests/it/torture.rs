//! That the torture (`cargo xtask torture`) notices: each of its steps must lose something on a
//! variant of the program that is broken on purpose. And what one of its steps found.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::{Sandbox, binary};

/// Each step, and how the program is careless there.
const CARELESS: &[(&str, &str)] = &[
    ("kill", "erase-first"),
    ("kill", "write-after-parse"),
    ("recovery", "write-after-parse"),
    ("power", "no-sync"),
    ("disk", "no-reserve"),
    ("disk", "erase-first"),
    ("increments", "no-lock"),
    ("refresh", "no-lock"),
    ("frozen", "no-lock"),
    ("clock", "no-memory"),
];

/// One after the other: each of them keeps a machine busy by itself.
#[test]
fn every_step_notices_a_program_that_is_careless() {
    for (step, careless) in CARELESS {
        let cargo = std::env::var_os("CARGO").expect("tests are run by cargo");
        let output = Command::new(cargo)
            .args(["run", "--quiet", "--package", "xtask", "--", "torture", "--quick"])
            .args(["--seed", "1", "--careless", careless, step])
            .envs(host().map(|host| ("MOLTBOT_TORTURE_HOST", host)))
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .output()
            .expect("cargo starts");
        let said = String::from_utf8_lossy(&output.stderr);
        if String::from_utf8_lossy(&output.stdout).contains("skipped: needs ptrace") {
            eprintln!("SKIPPED: {step} needs ptrace on Linux x86-64, and leave to use it");
            continue;
        }
        assert_eq!(output.status.code(), Some(1), "{step} {careless}: {said}");
        assert!(said.contains("something was lost in"), "{step} {careless}: {said}");
    }
}

/// Returns the host that this very `cargo test` has built, if it built the examples.
fn host() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let host = own.parent()?.parent()?.join("examples/torture-host");
    host.is_file().then_some(host)
}

#[test]
fn a_limit_of_file_sizes_is_an_error_and_not_the_end() {
    let sandbox = Sandbox::new();
    let key = "sk-ant-api03-FAKE000000000000000000000000limit";
    sandbox.write_store(&json!({ "version": 1, "profiles": {
        "anthropic:default": { "type": "api_key", "provider": "anthropic", "key": key },
    }}));
    let before = std::fs::read(sandbox.store_path()).unwrap();
    let output = Command::new("/bin/sh")
        .args(["-c", "ulimit -f 0 && exec \"$@\"", "sh"])
        .arg(binary())
        .args(["models", "auth", "remove", "anthropic:default"])
        .env_clear()
        .env("HOME", sandbox.home())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{:?} {said}", output.status);
    assert!(said.contains("the limit for the size of files is reached"), "{said}");
    assert_eq!(std::fs::read(sandbox.store_path()).unwrap(), before);
}
