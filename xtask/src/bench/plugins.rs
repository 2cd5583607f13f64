//! What plugins cost, by how they are carried: the stranger's crate of the tests, optimised, held
//! by the optimised build of this program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use moltbot_abi::host::{self, Carried, Kind, Pin, Place};
use moltbot_core::{AuthMethod, CredentialKind, ProviderInfo};
use serde_json::json;

use super::{figure, median, middle, output};
use crate::workspace::{cargo, must, root, target_dir};

/// How many calls make one sample of something that takes microseconds.
const CALLS: u32 = 1_000;

/// How many plugins the host starts with.
const MANY: usize = 10;

/// Prints all figures about plugins.
pub(super) fn print(binary: &Path, runs: usize) -> Result<()> {
    let (library, process) = build()?;
    let mut inside = Command::new(target_dir().join("release/xtask"));
    let inside = output(inside.arg("measure-plugins").args([&library, &process]))?;
    let inside = |key: &str| median(std::slice::from_ref(&inside), key);
    figure("an offer of a linked plugin", inside("linkedUs")?, "us", "1");
    figure("an offer of a carried plugin (library)", inside("carriedUs")?, "us", "10");
    figure("the same, asked for the first time", inside("firstUs")?, "us", "");
    figure("a call of a library that needs no effect", inside("callUs")?, "us", "");
    figure("a process spawned and described", inside("spawnedMs")?, "ms", "10");

    let home = tempfile::tempdir()?;
    let none = starts(binary, home.path(), runs, || Ok(()))?;
    trust_many(&library, home.path())?;
    let list = listed(binary, home.path())?;
    ensure!(list == MANY, "{list} of {MANY} libraries are used");
    let kept = || descriptions(home.path());
    ensure!(kept()?.len() == MANY, "{} descriptions are kept", kept()?.len());
    let later = starts(binary, home.path(), runs, || Ok(()))?;
    let first = starts(binary, home.path(), runs, || {
        kept()?.iter().try_for_each(|path| Ok(std::fs::remove_file(path)?))
    })?;
    let size = std::fs::metadata(&library)?.len() as f64 / 1048576.0;
    figure("the library", size, "MiB", "");
    figure("start of the program without plugins from outside", none, "ms", "");
    figure("start with 10 libraries", later, "ms", "20");
    figure("the same for the first time: all loaded and asked", first, "ms", "");
    Ok(())
}

/// Takes the figures that this program can take inside itself; prints the medians as JSON. Run by
/// the optimised build of it. Without a process every call is made once and nothing is printed, for
/// whoever watches something else than time.
pub(crate) fn measure_plugins(library: &Path, process: Option<&Path>) -> Result<()> {
    let (runs, calls) = if process.is_none() { (1, 1) } else { (super::RUNS, CALLS) };
    let dir = tempfile::tempdir()?;
    let linked = &moltbot_plugin_api_key::ApiKey;
    let info = provider();
    let linked = per_call(runs, calls, || linked.offers(&info));

    let carried = open(library, Kind::Library, dir.path())?;
    let plugin = carried.plugin();
    let own = plugin.providers[0].info();
    let method = plugin.auth[0];
    ensure!(!method.offers(&own).is_empty(), "the library offers nothing");
    let mut first = Vec::new();
    for n in 0..runs {
        let other = ProviderInfo { id: format!("other{n}").into(), ..own.clone() };
        let start = Instant::now();
        drop(method.offers(&other));
        first.push(start.elapsed().as_secs_f64() * 1e6);
    }
    let offer = per_call(runs, calls, || method.offers(&own));
    let call = per_call(runs, calls, || plugin.providers[0].caps(&CredentialKind::ApiKey));

    let Some(process) = process else { return Ok(()) };
    let mut spawned = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        let carried = open(process, Kind::Process, dir.path())?;
        spawned.push(start.elapsed().as_secs_f64() * 1e3);
        drop(carried);
    }
    let figures = json!({
        "linkedUs": linked, "carriedUs": offer, "firstUs": middle(first), "callUs": call,
        "spawnedMs": middle(spawned),
    });
    println!("{figures}");
    Ok(())
}

/// Builds the stranger's crate, optimised, with the versions of the workspace; the library by itself,
/// as the author's guide has it.
fn build() -> Result<(PathBuf, PathBuf)> {
    let dir = root().join("tests/fixtures/acme-sso");
    let target = target_dir().join("fixtures");
    std::fs::copy(root().join("Cargo.lock"), dir.join("Cargo.lock"))?;
    for args in [&["build", "--bins"][..], &["rustc", "--lib", "--crate-type", "cdylib"]] {
        let mut command = cargo();
        command.current_dir(&dir).args(args).args(["--release", "--quiet"]);
        must(command.env("CARGO_TARGET_DIR", &target))?;
    }
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
fn per_call<T>(runs: usize, calls: u32, call: impl Fn() -> T) -> f64 {
    let sample = |_| {
        let start = Instant::now();
        for _ in 0..calls {
            std::hint::black_box(call());
        }
        start.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
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

/// Lists the files in which the program keeps what plugins said about themselves.
fn descriptions(home: &Path) -> Result<Vec<PathBuf>> {
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(home.join(".moltbot/plugins"))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".described.json") {
            kept.push(path);
        }
    }
    Ok(kept)
}

/// Returns the median of the time that the program takes to list its plugins, in milliseconds;
/// before each start something is put in order.
fn starts(binary: &Path, home: &Path, runs: usize, before: impl Fn() -> Result<()>) -> Result<f64> {
    let mut samples = Vec::new();
    for _ in 0..runs {
        before()?;
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
