//! The lab held against the official SDKs, so that it is not only what our own client believes.
//!
//! They live in the directory that `MOLTBOT_CLIENTS` names (`python/` a virtual environment,
//! `node_modules/`); without it these tests are skipped and say so.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::lab;

fn clients() -> Option<PathBuf> {
    let dir = std::env::var_os("MOLTBOT_CLIENTS").map(PathBuf::from);
    if dir.is_none() {
        eprintln!("SKIPPED: MOLTBOT_CLIENTS is not set, the official SDKs were not run");
    }
    dir
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

fn passes(command: &mut Command) {
    let lab = lab("[]");
    let output = command.env("LAB_URL", lab.url()).output().expect("the client starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{error}");
    assert!(text.contains("passed, 0 failed"), "{text}\n{error}");
}

#[test]
fn the_python_sdk_is_content_with_the_lab() {
    let Some(dir) = clients() else { return };
    let python = dir.join("python/bin/python");
    if !python.exists() {
        eprintln!("SKIPPED: no Python in MOLTBOT_CLIENTS");
        return;
    }
    passes(Command::new(python).arg(script("python_sdk.py")));
}

#[test]
fn the_node_sdk_is_content_with_the_lab() {
    let Some(dir) = clients() else { return };
    if !dir.join("node_modules/@anthropic-ai/sdk").exists() {
        eprintln!("SKIPPED: no Node SDK in MOLTBOT_CLIENTS");
        return;
    }
    passes(Command::new("node").arg(script("node_sdk.mjs")));
}
