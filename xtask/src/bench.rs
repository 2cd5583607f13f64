//! The figures that the README quotes, measured on this machine: medians of 20 runs.

mod bare;
mod claude;
mod gateway;
mod plugins;
mod servers;
mod streams;
mod wrk;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use moltbot_core::Timestamp;
use moltbot_lab::{Lab, LabOptions};
use moltbot_profiles::{AuthRules, ChoiceInput, FileStore, ResolvedState, order};
use serde_json::{Value, json};

use crate::workspace::{cargo, must, target_dir};

pub(crate) use bare::serve as bare_proxy;
pub(crate) use claude::{bench as claude, command as claude_command, relay as measure_turn};
pub(crate) use gateway::bench as gateway;
pub(crate) use plugins::measure_plugins;

/// A well-formed key that no service knows.
const KEY: &str = "sk-ant-api03-BENCHbenchBENCHbenchBENCHbench01";

/// How often each figure is taken.
const RUNS: usize = 20;

/// Prints all figures.
pub(crate) fn run(quick: bool) -> Result<()> {
    let runs = RUNS;
    let binary = prepare()?;
    let home = tempfile::tempdir()?;

    let status =
        samples(runs, || spawn(home.path(), &binary, &["models", "status", "--json"], &[]))?;
    figure("models status --json, wall", median(&status, "wallMs")?, "ms", "5");
    figure("models status --json, peak memory", median(&status, "peakMiB")?, "MiB", "12");

    let lab = Lab::start_on_thread(LabOptions::default())?;
    write_config(home.path(), &lab.url())?;
    let env = [("ANTHROPIC_API_KEY", KEY)];
    let agent = samples(runs, || spawn(home.path(), &binary, &["agent", "-m", "hi"], &env))?;
    let direct = middle((0..runs).map(|_| direct(&lab)).collect::<Result<Vec<_>>>()?);
    let agent_ms = median(&agent, "wallMs")?;
    figure("agent -m hi against the lab, wall", agent_ms, "ms", "");
    figure("the same request by a bare socket", direct, "ms", "");
    figure("added by moltbot, its start included", agent_ms - direct, "ms", "5");

    let store = [output(Command::new(target_dir().join("release/xtask")).arg("measure-store"))?];
    let (load, first) = (median(&store, "loadMs")?, median(&store, "firstUs")?);
    figure("store of 10,000 profiles, loaded and one picked", load + first / 1e3, "ms", "15");
    figure("the choice itself, among 100 of its provider", median(&store, "pickUs")?, "us", "20");
    let alone = median(&store, "pickAloneUs")?;
    figure("the same in a store without the other 9,900", alone, "us", "20");
    figure("the first choice after loading all 10,000", first, "us", "");
    figure("the first after loading the 100", median(&store, "firstAloneUs")?, "us", "");

    plugins::print(&binary, runs)?;

    let size = std::fs::metadata(&binary)?.len() as f64 / 1048576.0;
    figure("release binary", size, "MiB", "8");
    if !quick {
        figure("clean release build", clean_build()?, "s", "");
    }
    Ok(())
}

/// Prints the figures about plugins.
pub(crate) fn plugins() -> Result<()> {
    plugins::print(&prepare()?, RUNS)
}

/// Says where this is, builds what is measured and returns the program.
fn prepare() -> Result<PathBuf> {
    println!("machine: {}", machine());
    println!("runs: {RUNS}, medians\n");
    // This program too: what it measures inside itself must be optimised.
    must(cargo().args([
        "build",
        "--release",
        "--quiet",
        "--package",
        "moltbot",
        "--package",
        "xtask",
    ]))?;
    Ok(target_dir().join("release/moltbot"))
}

/// Runs one command and prints its wall time and peak memory as JSON. A process of its own, so
/// that the kernel's account of children holds only this one.
pub(crate) fn measure(command: impl Iterator<Item = String>) -> Result<()> {
    let words: Vec<String> = command.collect();
    let (program, args) = words.split_first().context("a command")?;
    let start = Instant::now();
    let output = Command::new(program).args(args).stdin(Stdio::null()).output()?;
    let wall = start.elapsed().as_secs_f64() * 1e3;
    if !output.status.success() {
        bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?;
    let unit = if cfg!(target_os = "macos") { 1048576.0 } else { 1024.0 };
    println!("{}", json!({ "wallMs": wall, "peakMiB": usage.max_rss() as f64 / unit }));
    Ok(())
}

fn figure(name: &str, value: f64, unit: &str, aim: &str) {
    let aim = if aim.is_empty() { String::new() } else { format!("  (aim: under {aim})") };
    println!("{name:<50} {value:>9.2} {unit:<4}{aim}");
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim())
        })
        .unwrap_or("unknown processor")
        .to_string();
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
    format!("{model}, {cores} cores, {} {}", std::env::consts::OS, std::env::consts::ARCH)
}

/// Runs one command in an empty home, measured by a child of this program.
fn spawn(home: &Path, binary: &Path, args: &[&str], env: &[(&str, &str)]) -> Result<Value> {
    output(
        Command::new(std::env::current_exe()?)
            .args(["measure", "--"])
            .arg(binary)
            .args(args)
            .env_clear()
            .env("HOME", home)
            .env("PATH", "/usr/bin:/bin")
            .envs(env.iter().copied())
            .current_dir(home),
    )
}

/// Runs a command to its end and reads its standard output as JSON.
fn output(command: &mut Command) -> Result<Value> {
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Takes a warm-up and then `runs` samples.
fn samples(runs: usize, mut sample: impl FnMut() -> Result<Value>) -> Result<Vec<Value>> {
    sample()?;
    (0..runs).map(|_| sample()).collect()
}

fn median(samples: &[Value], key: &str) -> Result<f64> {
    let values: Option<Vec<f64>> = samples.iter().map(|sample| sample[key].as_f64()).collect();
    values.map(middle).with_context(|| format!("a sample without {key}"))
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Writes a config whose provider lives at the lab.
fn write_config(home: &Path, url: &str) -> Result<()> {
    let dir = home.join(".moltbot");
    std::fs::create_dir_all(&dir)?;
    let config =
        json!({ "models": { "providers": { "anthropic": { "baseUrl": url, "models": [] } } } });
    std::fs::write(dir.join("moltbot.json"), config.to_string())?;
    Ok(())
}

/// Sends the same request by hand; returns milliseconds.
fn direct(lab: &Lab) -> Result<f64> {
    let body = json!({
        "model": "claude-opus-4-5", "max_tokens": 32000, "stream": true,
        "messages": [{ "role": "user", "content": "hi" }],
    })
    .to_string();
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
         anthropic-version: 2023-06-01\r\nx-api-key: {KEY}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        lab.addr(),
        body.len()
    );
    let start = Instant::now();
    let mut socket = TcpStream::connect(lab.addr())?;
    socket.set_nodelay(true)?;
    socket.write_all((head + &body).as_bytes())?;
    let mut reply = String::new();
    socket.read_to_string(&mut reply)?;
    ensure!(reply.contains("message_stop"), "the lab answered: {reply}");
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Loads a store of 10,000 profiles of 100 providers and picks one, then the same with the 100
/// profiles of that provider alone; prints medians of 20 runs as JSON. Run by the optimised build
/// of this program.
pub(crate) fn measure_store() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let crowded = write_store(&dir.path().join("crowded.json"), |_| true)?;
    let alone = write_store(&dir.path().join("alone.json"), |n| n % 100 == 7)?;
    let (load, first, again) = pick(&crowded)?;
    let (_, first_alone, again_alone) = pick(&alone)?;
    println!(
        "{}",
        json!({
            "loadMs": load, "firstUs": first, "pickUs": again,
            "firstAloneUs": first_alone, "pickAloneUs": again_alone,
        })
    );
    Ok(())
}

/// Writes a store of those of 10,000 profiles that are wanted, a hundred of each provider.
fn write_store(path: &Path, wanted: impl Fn(usize) -> bool) -> Result<FileStore> {
    let profiles: BTreeMap<String, Value> = (0..10_000)
        .filter(|n| wanted(*n))
        .map(|n| {
            let provider = format!("provider{}", n % 100);
            let key = format!("{KEY}{n:05}");
            let value = json!({ "type": "api_key", "provider": provider, "key": key });
            (format!("{provider}:key{n}"), value)
        })
        .collect();
    let text = serde_json::to_string_pretty(&json!({ "version": 1, "profiles": profiles }))?;
    std::fs::write(path, text)?;
    Ok(FileStore::new(path))
}

/// Returns how long loading takes in milliseconds, the first choice after it, whose profiles may
/// lie in no cache yet, and one of the next in microseconds.
fn pick(store: &FileStore) -> Result<(f64, f64, f64)> {
    let now = Timestamp::from_millis(1_790_000_000_000);
    let rules = AuthRules::default();
    let resolved =
        |_: &str, stored: &moltbot_core::Credential| ResolvedState::stored(stored, false, now);
    let (mut loads, mut firsts, mut nexts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let start = Instant::now();
        let loaded = store.load_blocking()?;
        loads.push(start.elapsed().as_secs_f64() * 1e3);
        for at in 0..=RUNS {
            let start = Instant::now();
            let input = ChoiceInput::new(&loaded.profiles, &rules, "provider7", &resolved, now);
            let choice = order(&input);
            let micros = start.elapsed().as_secs_f64() * 1e6;
            if at == 0 { &mut firsts } else { &mut nexts }.push(micros);
            ensure!(choice.candidates.len() == 100, "{} candidates", choice.candidates.len());
        }
    }
    Ok((middle(loads), middle(firsts), middle(nexts)))
}

/// Builds everything anew in a directory of its own; returns seconds.
fn clean_build() -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let start = Instant::now();
    must(
        cargo()
            .args(["build", "--release", "--quiet", "--package", "moltbot", "--target-dir"])
            .arg(dir.path()),
    )?;
    Ok(start.elapsed().as_secs_f64())
}
