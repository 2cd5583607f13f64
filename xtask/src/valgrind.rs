//! `cargo xtask ci valgrind`: every byte that crosses between host and plugin, watched by valgrind:
//! guest, wire and host proxy in memory by the tests of `moltbot-abi`, and the loader with a real
//! library. A process has a memory of its own.
//!
//! Without valgrind it says so and passes: it is no part of a clean clone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cargo_metadata::Message;

use crate::workspace::{cargo, must, root, target_dir};

/// The crate that is carried.
const FIXTURE: &str = "tests/fixtures/acme-sso";

/// Runs both, or says loudly that it cannot.
pub(crate) fn run() -> Result<()> {
    let there = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        eprintln!("!! valgrind is not installed: the carriers are NOT checked for memory errors");
        return Ok(());
    }
    // One thread: valgrind has no more, and would only change between them.
    let leaks =
        ["--leak-check=full", "--errors-for-leak-kinds=definite", "--show-leak-kinds=definite"];
    watched(&leaks, &boundary()?, &["--test-threads=1".as_ref()])?;
    // Plugins are never unloaded, so that what they hold is lost on purpose.
    let library = fixture()?;
    let args = ["measure-plugins".as_ref(), library.as_path()];
    watched(&["--leak-check=no"], &std::env::current_exe()?, &args)
}

fn watched(flags: &[&str], program: &Path, args: &[&Path]) -> Result<()> {
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--error-exitcode=9", "--fair-sched=yes"]).args(flags);
    must(command.arg(program).args(args).current_dir(root()).stdout(Stdio::null()))
}

/// Builds the tests of the wire; returns the program.
fn boundary() -> Result<PathBuf> {
    let build = ["test", "--package", "moltbot-abi", "--test", "boundary", "--no-run"];
    let built = cargo()
        .args(build)
        .args(["--quiet", "--message-format=json"])
        .stderr(Stdio::inherit())
        .output()?;
    if !built.status.success() {
        bail!("the tests of moltbot-abi do not build");
    }
    let messages = Message::parse_stream(built.stdout.as_slice());
    let found = messages.filter_map(|message| match message {
        Ok(Message::CompilerArtifact(artifact)) if artifact.target.name == "boundary" => {
            artifact.executable
        }
        _ => None,
    });
    found.last().map(PathBuf::from).context("cargo named no test program")
}

/// Builds the stranger's crate as the tests do; returns the library.
fn fixture() -> Result<PathBuf> {
    let (dir, target) = (root().join(FIXTURE), target_dir().join("fixtures"));
    // The versions of the workspace, so that nothing has to be fetched.
    std::fs::copy(root().join("Cargo.lock"), dir.join("Cargo.lock"))?;
    must(cargo().args(["build", "--quiet"]).current_dir(dir).env("CARGO_TARGET_DIR", &target))?;
    let (before, after) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    Ok(target.join(format!("debug/{before}moltbot_plugin_acme_sso{after}")))
}
