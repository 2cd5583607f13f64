//! What plugins cost, by how they are carried: the stranger's crate of the tests, optimised.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use moltbot_abi::host::{self, Carried, Kind, Pin, Place};
use moltbot_core::{AuthMethod, Offer, ProviderInfo};
use serde_json::json;

use super::{figure, middle};
use crate::workspace::{cargo, must, root, target_dir};

/// How many calls make one sample of something that takes microseconds.
const CALLS: u32 = 1_000;

/// How many plugins the host starts with.
const MANY: usize = 10;

/// Prints all figures about plugins.
pub(super) fn print(binary: &Path, runs: usize) -> Result<()> {
    let (library, process) = build()?;
    let dir = tempfile::tempdir()?;

    let linked = &moltbot_plugin_api_key::ApiKey;
    let info = provider();
    let micros = per_call(runs, || linked.offers(&info));
    figure("an offer of a linked plugin", micros, "us", "1");

    let carried = open(&library, Kind::Library, dir.path())?;
    let plugin = carried.plugin();
    let own = plugin.providers[0].info();
    let method = plugin.auth[0];
    ensure!(!method.offers(&own).is_empty(), "the library offers nothing");
    figure(
        "an offer of a carried plugin (library)",
        per_call(runs, || method.offers(&own)),
        "us",
        "10",
    );

    let mut spawned = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        let carried = open(&process, Kind::Process, dir.path())?;
        spawned.push(start.elapsed().as_secs_f64() * 1e3);
        drop(carried);
    }
    figure("a process spawned and described", middle(spawned), "ms", "10");

    let home = tempfile::tempdir()?;
    let none = starts(binary, home.path(), runs)?;
    trust_many(&library, home.path())?;
    let list = listed(binary, home.path())?;
    ensure!(list == MANY, "{list} of {MANY} libraries are used");
    let all = starts(binary, home.path(), runs)?;
    figure("start of the program without plugins from outside", none, "ms", "");
    figure("start of the program with 10 libraries", all, "ms", "20");
    Ok(())
}

/// Builds the stranger's crate, optimised, with the versions of the workspace.
fn build() -> Result<(PathBuf, PathBuf)> {
    let dir = root().join("tests/fixtures/acme-sso");
    let target = target_dir().join("fixtures");
    std::fs::copy(root().join("Cargo.lock"), dir.join("Cargo.lock"))?;
    must(
        cargo()
            .current_dir(&dir)
            .args(["build", "--release", "--quiet"])
            .env("CARGO_TARGET_DIR", &target),
    )?;
    let name = format!(
        "{}moltbot_plugin_acme_sso{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    );
    Ok((target.join("release").join(name), target.join("release/moltbot-plugin-acme-sso")))
}

fn provider() -> ProviderInfo {
    let api_key = moltbot_core::ApiKeySpec { flag: "acme-key".into(), ..Default::default() };
    ProviderInfo { id: "acme".into(), api_key: Some(api_key), ..ProviderInfo::default() }
}

fn open(file: &Path, kind: Kind, dir: &Path) -> Result<Carried> {
    let found = host::read(file, None)?;
    let pin =
        Pin { path: found.path.clone(), sha256: found.sha256.clone(), kind, allow_abort: false };
    let mut place = Place::new(dir.join("state"), &[]);
    place.blocking = true;
    host::open(&found, &pin, &place, false)?.pop().context("a file without a plugin")
}

/// Returns the median of the time that one call takes, in microseconds.
fn per_call(runs: usize, call: impl Fn() -> Vec<Offer>) -> f64 {
    let sample = |_| {
        let start = Instant::now();
        for _ in 0..CALLS {
            std::hint::black_box(call());
        }
        start.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS)
    };
    middle((0..runs).map(sample).collect())
}

/// Lists ten copies of the library in a config, each under a name of its own.
fn trust_many(library: &Path, home: &Path) -> Result<()> {
    let dir = home.join("plugins");
    std::fs::create_dir_all(&dir)?;
    let bytes = std::fs::read(library)?;
    let mut trusted = Vec::new();
    for n in 0..MANY {
        // Ids, flags and choices begin with the maker's name; a text of the same length keeps the
        // file in shape.
        let own = renamed(&bytes, b"acme", format!("ac{n:02}").as_bytes());
        let file = dir.join(format!("lib{n}.so"));
        std::fs::write(&file, own)?;
        let found = host::read(&file, None)?;
        trusted.push(json!({ "path": found.path, "sha256": found.sha256, "kind": "library" }));
    }
    let config = home.join(".moltbot/moltbot.json");
    std::fs::create_dir_all(config.parent().context("a directory")?)?;
    std::fs::write(config, json!({ "plugins": { "trusted": trusted } }).to_string())?;
    Ok(())
}

fn renamed(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while at + from.len() <= bytes.len() {
        if &bytes[at..at + from.len()] == from {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
        at += 1;
    }
    bytes
}

fn list(binary: &Path, home: &Path) -> Result<String> {
    let mut command = Command::new(binary);
    command.args(["plugins", "list", "--json"]).env_clear().env("HOME", home).stdin(Stdio::null());
    let output = command.output()?;
    if !output.status.success() {
        bail!("plugins list: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Counts the libraries that are used.
fn listed(binary: &Path, home: &Path) -> Result<usize> {
    let list: serde_json::Value = serde_json::from_str(&list(binary, home)?)?;
    let plugins = list["plugins"].as_array().context("a list")?;
    Ok(plugins.iter().filter(|plugin| plugin["origin"] == "library").count())
}

/// Returns the median of the time that the program takes to list its plugins, in milliseconds.
fn starts(binary: &Path, home: &Path, runs: usize) -> Result<f64> {
    let mut samples = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        list(binary, home)?;
        samples.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(middle(samples))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_replaced_everywhere_and_nothing_moves() {
        assert_eq!(renamed(b"acme-sso.acm.xacmeacme", b"acme", b"ac07"), b"ac07-sso.acm.xac07ac07");
    }
}
