//! Binaries to order: the plugins you choose and no others, from a staged copy of the sources,
//! the same bytes wherever it is built, with a report of what is in it.
//!
//! The result lies in `target/dist/NAME`: the binary, `NAME.json`, `NAME.lock`, `NAME.cdx.json`,
//! and `source/`, the tree it was built from, which `cargo build --profile dist --locked` builds
//! anywhere.

mod build;
pub(crate) mod ci;
mod manifest;
mod options;
mod report;
mod resolve;
mod sbom;
mod sizes;
mod stage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use cargo_metadata::Metadata;
use clap::ArgMatches;

pub(crate) use options::{HOST_PARTS, Options, command};
pub(crate) use report::Report;

use build::{Toolchain, file_name, git};
use report::{PluginReport, listed};
use resolve::{additions, sha256};
use stage::{Features, PACKAGE, Plan};

use crate::workspace::{copy_tree, files, output, plugins, root, stock_plugins, target_dir};

/// Builds what the flags say, and prints the report.
pub(crate) fn run(args: &ArgMatches) -> Result<()> {
    let options = Options::read(args, &plugins(&root())?, &std::env::current_dir()?)?;
    let (report, file) = make(&options)?;
    println!("{}\n  file     {}", report.text(), file.display());
    Ok(())
}

/// Builds a binary; returns its report and where it lies.
pub(crate) fn make(options: &Options) -> Result<(Report, PathBuf)> {
    let dist = target_dir().join("dist");
    fs::create_dir_all(&dist)?;
    // One at a time: all builds share a directory for what they have in common.
    let lock = fs::File::create(dist.join(".lock"))?;
    lock.lock().context("waiting for another dist")?;
    make_in(options, &dist, &dist.join(&options.name))
}

fn make_in(options: &Options, dist: &Path, out: &Path) -> Result<(Report, PathBuf)> {
    let toolchain = Toolchain::find(options.target.as_deref())?;
    let build = dist.join(".build");
    // One place for all, because the flags name it: with the same flags, what two builds have in
    // common is compiled once.
    let source = dist.join(".source");
    fs::create_dir_all(out)?;
    let say = |step: &str| eprintln!("dist {}: {step}", options.name);

    say("stage");
    let plan = Plan::make(&root(), options)?;
    if source.exists() {
        fs::remove_dir_all(&source)?;
    }
    plan.write(&source, options, &Features::new())?;

    say("lock");
    let seed = options.lock.clone().unwrap_or_else(|| root().join("Cargo.lock"));
    let seed = fs::read_to_string(&seed).with_context(|| seed.display().to_string())?;
    let (metadata, features) = resolve(options, &plan, &source, &seed, &toolchain)?;
    let lock = fs::read_to_string(source.join("Cargo.lock"))?;
    fs::write(out.join(format!("{}.lock", options.name)), &lock)?;

    let kept = out.join("source");
    if kept.exists() {
        fs::remove_dir_all(&kept)?;
    }
    copy_tree(&source, &kept, &[])?;

    say("check");
    resolve::check(&metadata, &plan)?;
    let added = additions(&seed, &lock)?;
    ensure!(
        added.is_empty() || !options.with.is_empty(),
        "the lock file does not fit the sources, it lacks {}: run `cargo metadata` in the workspace first",
        added.join(", ")
    );

    say("build");
    let product = toolchain.build(&source, &build, options)?;
    let file = out.join(file_name(options, toolchain.target()));
    toolchain.strip(&product, &file, options)?;
    let bytes = fs::read(&file)?;

    let version = |plugin: &stage::Chosen| resolve::version(&metadata, plugin);
    let ran = toolchain.is_native() && !options.cdylib;
    if ran {
        say("run");
        listed(&ask(&file, &["plugins", "list", "--json"])?, &plan, &version)?;
    }

    let mut reproduced = None;
    if options.verify {
        say("verify");
        same_elsewhere(options, &source, &toolchain, &sha256(&bytes))?;
        reproduced = Some(true);
    }

    say("report");
    let crates: Vec<String> = plan.plugins.iter().map(stage::Chosen::crate_name).collect();
    let sizes = sizes::by_crate(&fs::read(&product)?, &crates)?;
    let mut plugins = Vec::new();
    for plugin in &plan.plugins {
        plugins.push(PluginReport {
            id: plugin.id().to_string(),
            package: plugin.package.clone(),
            version: version(plugin)?,
            origin: plugin.origin.to_string(),
            features: features.get(plugin.id()).into_iter().flatten().cloned().collect(),
            bytes: sizes[&plugin.crate_name()],
        });
    }
    plugins.sort_by(|a, b| a.id.cmp(&b.id));
    let changed =
        git(&["status", "--porcelain", "--", "Cargo.toml", "Cargo.lock", "crates", "plugins"]);
    let mut report = Report {
        name: options.name.clone(),
        file: file_name(options, toolchain.target()),
        version: resolve::package(&metadata, PACKAGE)?.version.to_string(),
        target: toolchain.target().to_string(),
        plugins,
        lab: options.lab,
        host: options.host.clone(),
        unwind: options.unwinds(),
        size: bytes.len() as u64,
        sha256: sha256(&bytes),
        lock_sha256: sha256(lock.as_bytes()),
        added,
        workspace_sha256: workspace_sum()?,
        rustc: toolchain.rustc.lines().next().unwrap_or_default().to_string(),
        commit: git(&["rev-parse", "HEAD"]),
        dirty: changed.is_some_and(|list| !list.is_empty()),
        source_date_epoch: toolchain.epoch,
        ran,
        reproduced,
        stock: None,
    };
    if options.stock && ran {
        report.compare(&stock(&report, dist)?);
    }
    let bill = sbom::bill(&options.name, &metadata, &lock, &report.sha256, toolchain.epoch)?;
    for (ending, text) in [
        ("json", serde_json::to_string_pretty(&report)?),
        ("cdx.json", serde_json::to_string_pretty(&bill)?),
    ] {
        fs::write(out.join(format!("{}.{ending}", options.name)), text + "\n")?;
    }
    Ok((report, file))
}

/// Settles versions and features: what plugins ask of each other is known only once they are
/// resolved, and may change what is needed.
fn resolve(
    options: &Options,
    plan: &Plan,
    source: &Path,
    seed: &str,
    toolchain: &Toolchain,
) -> Result<(Metadata, Features)> {
    let metadata = resolve::lock(source, Some(seed), toolchain)?;
    let features = resolve::features(&metadata, plan)?;
    if features.is_empty() {
        return Ok((metadata, features));
    }
    plan.write_manifest(source, options, &features)?;
    Ok((resolve::lock(source, None, toolchain)?, features))
}

/// Runs a binary in an empty home and returns what it prints.
pub(crate) fn ask(binary: &Path, args: &[&str]) -> Result<String> {
    let home = tempfile::tempdir()?;
    output(
        Command::new(binary)
            .args(args)
            .env_clear()
            .env("HOME", home.path())
            .current_dir(home.path()),
    )
}

/// Builds a copy of the staged tree in a directory with another name, and compares. A copy of the
/// tree, not of the workspace, where somebody may have gone on working.
fn same_elsewhere(
    options: &Options,
    source: &Path,
    toolchain: &Toolchain,
    sum: &str,
) -> Result<()> {
    let mut elsewhere = tempfile::Builder::new().prefix("moltbot-dist-").tempdir()?;
    let copy = elsewhere.path().join("another place/source");
    copy_tree(source, &copy, &[])?;
    let product = toolchain.build(&copy, &elsewhere.path().join("another build"), options)?;
    let file = elsewhere.path().join("product");
    toolchain.strip(&product, &file, options)?;
    let found = sha256(&fs::read(&file)?);
    if found != sum {
        elsewhere.disable_cleanup(true);
        anyhow::bail!(
            "the same sources gave other bytes elsewhere: {sum} here, {found} in {}",
            file.display()
        );
    }
    Ok(())
}

/// Returns the report of the stock binary for the same sources and compiler, building it if there
/// is none.
fn stock(report: &Report, dist: &Path) -> Result<Report> {
    let everything = stock_plugins(&root())?;
    let whole = report.lab && report.host == HOST_PARTS;
    let same = whole && report.plugins.iter().map(|plugin| &plugin.id).eq(&everything);
    if same {
        return Ok(report.clone());
    }
    let out = dist.join(".stock");
    let old = fs::read_to_string(out.join("moltbot.json")).ok();
    let old = old.and_then(|text| serde_json::from_str::<Report>(&text).ok());
    let fits = |old: &Report| {
        let of = |report: &Report| {
            (report.workspace_sha256.clone(), report.rustc.clone(), report.unwind)
        };
        of(old) == of(report)
    };
    if let Some(old) = old.filter(fits) {
        return Ok(old);
    }
    let options = Options {
        name: PACKAGE.into(),
        plugins: everything,
        lab: true,
        host: HOST_PARTS.map(String::from).to_vec(),
        unwind: report.unwind,
        ..Options::default()
    };
    Ok(make_in(&options, dist, &out)?.0)
}

/// Sums up every file that a build could be made from.
fn workspace_sum() -> Result<String> {
    let mut list = vec![root().join("Cargo.toml"), root().join("Cargo.lock")];
    for group in ["crates", "plugins"] {
        list.extend(files(&root().join(group), "")?);
    }
    let mut sums = String::new();
    for file in list {
        sums.push_str(&format!(
            "{} {}\n",
            sha256(&fs::read(&file)?),
            file.strip_prefix(root())?.display()
        ));
    }
    Ok(sha256(sums.as_bytes()))
}
