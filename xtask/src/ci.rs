//! The checks that the compiler does not make. One function per step; `cargo xtask ci STEP` runs
//! one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use cargo_metadata::MetadataCommand;

use crate::workspace::{cargo, files, must, root};

type Step = (&'static str, fn() -> Result<()>);

const STEPS: &[Step] = &[
    ("fmt", fmt),
    ("layers", layers),
    ("names", names),
    ("files", tidy_files),
    ("sync", || crate::sync::run(&root(), true)),
    ("twice", twice),
    ("unsafe", unsafe_lines),
    ("clippy", clippy),
    ("docs", docs),
    ("scaffold", crate::scaffold::run),
    ("valgrind", crate::valgrind::run),
    ("dist", crate::dist::ci::run),
];

/// Steps that are a part of others and run only when they are named.
const PARTS: &[Step] = &[("dist-short", crate::dist::ci::run_short)];

/// Lists the steps.
pub(crate) fn steps() -> Vec<&'static str> {
    STEPS.iter().chain(PARTS).map(|(name, _)| *name).collect()
}

/// Runs one step, or all of them in order.
pub(crate) fn run(only: Option<&str>) -> Result<()> {
    for (name, step) in PARTS.iter().filter(|(name, _)| only == Some(name)).chain(STEPS) {
        if only.is_none_or(|only| only == *name) {
            eprintln!("ci: {name}");
            step().with_context(|| format!("step {name}"))?;
        }
    }
    Ok(())
}

fn fmt() -> Result<()> {
    must(cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    must(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    // What the stock binary lacks or cannot be without is looked at too.
    let part = |package: &'static str, features: &'static [&'static str]| {
        let mut command = cargo();
        command.args(["clippy", "--package", package]).args(features);
        must(command.args(["--", "-D", "warnings"]))
    };
    part("moltbot-cli", &["--no-default-features"])?;
    part("moltbot-gateway", &["--features", "keyring"])
}

fn docs() -> Result<()> {
    must(
        cargo()
            .args(["doc", "--workspace", "--no-deps", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"),
    )
}

/// Who may depend on whom, `plugins/*` as `plugin`. Dev-dependencies are free.
const LAYERS: &[(&str, &[&str])] = &[
    ("moltbot-core", &[]),
    ("moltbot-abi", &["moltbot-core"]),
    ("moltbot-testkit", &["moltbot-core", "moltbot-abi"]),
    ("moltbot-config", &["moltbot-core"]),
    ("moltbot-profiles", &["moltbot-core", "moltbot-config"]),
    ("moltbot-gateway", &["moltbot-core", "moltbot-config", "moltbot-profiles", "moltbot-sys"]),
    (
        "moltbot-cli",
        &[
            "moltbot-abi",
            "moltbot-config",
            "moltbot-core",
            "moltbot-gateway",
            "moltbot-lab",
            "moltbot-profiles",
            "moltbot-sys",
        ],
    ),
    ("moltbot-lab", &[]),
    ("moltbot-sys", &[]),
    ("moltbot", &["moltbot-cli", "plugin"]),
    ("plugin", &["moltbot-core", "moltbot-abi"]),
];

fn layers() -> Result<()> {
    let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec()?;
    let allowed: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    let layer = |name: &str| match name.strip_prefix("moltbot-plugin-") {
        Some(_) => "plugin".to_string(),
        None => name.to_string(),
    };
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let name = package.name.to_string();
        let Some(allowed) = allowed.get(layer(&name).as_str()) else {
            if matches!(name.as_str(), "xtask" | "moltbot-tests") {
                continue;
            }
            bail!("{name} has no place in the layer table of xtask/src/ci.rs");
        };
        for dependency in &package.dependencies {
            let ours = dependency.name.starts_with("moltbot");
            let normal = dependency.kind == cargo_metadata::DependencyKind::Normal;
            if ours && normal && !allowed.contains(&layer(&dependency.name).as_str()) {
                wrong.push(format!("{name} must not depend on {}", dependency.name));
            }
        }
    }
    report(wrong)
}

/// Words that name a plugin or its vendor. The host learns them from plugins only.
const NAMES: &[&str] = &["anthropic", "claude", "setup-token"];

fn names() -> Result<()> {
    let mut wrong = Vec::new();
    for file in files(&root().join("crates"), ".rs")? {
        let path = relative(&file);
        let exempt = ["crates/moltbot-lab/", "crates/moltbot/", "crates/moltbot-gateway/src/door/"]
            .iter()
            .any(|dir| path.starts_with(dir))
            || path.contains("/tests/")
            || path.contains("/examples/")
            || path.ends_with("tests.rs");
        if exempt {
            continue;
        }
        let text = std::fs::read_to_string(&file)?;
        for (number, line) in code_lines(&text) {
            // A format that other programs ask for by this word.
            let lower = line.to_lowercase().replace("claude-helper", "");
            if let Some(name) = NAMES.iter().find(|name| lower.contains(**name)) {
                wrong.push(format!("{path}:{number}: the host names {name}: {}", line.trim()));
            }
        }
    }
    report(wrong)
}

/// Lists the numbered lines of a file that are neither comments nor in its test module.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| line.trim_start() != "#[cfg(test)]")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(at, line)| (at + 1, line))
}

/// The longest file.
const MOST_LINES: usize = 700;

fn tidy_files() -> Result<()> {
    let mut wrong = Vec::new();
    for file in files(&root(), ".rs")? {
        let path = relative(&file);
        let text = std::fs::read_to_string(&file)?;
        let lines = text.lines().count();
        if lines > MOST_LINES {
            wrong.push(format!("{path} has {lines} lines; the limit is {MOST_LINES}"));
        }
        if !path.starts_with("xtask/") {
            for word in ["TODO", "FIXME", "todo!(", "unimplemented!("] {
                if text.contains(word) {
                    wrong.push(format!("{path} contains {word}"));
                }
            }
        }
        if !text.trim_start_matches(|c| c != '\n').contains("//!") && !text.starts_with("//!") {
            wrong.push(format!("{path} does not say what it is for (//!)"));
        }
        let has_unsafe = code_lines(&text).any(|(_, line)| holds_unsafe(line));
        // The fixtures are other people's crates, outside the workspace.
        let may = ["crates/moltbot-abi/", "crates/moltbot-sys/", "tests/fixtures/", "xtask/"];
        if has_unsafe && !may.iter().any(|dir| path.starts_with(dir)) {
            wrong.push(format!("{path} contains unsafe code"));
        }
    }
    report(wrong)
}

/// The most lines that the files with unsafe code may have, tests and comments left out.
const UNSAFE: &[(&str, usize)] = &[("crates/moltbot-abi/", 700), ("crates/moltbot-sys/", 200)];

/// Counts the lines of the files in which there is any unsafe code.
fn unsafe_lines() -> Result<()> {
    let mut wrong = Vec::new();
    for (dir, most) in UNSAFE {
        let mut lines = 0;
        for file in files(&root().join(dir).join("src"), ".rs")? {
            let text = std::fs::read_to_string(&file)?;
            if code_lines(&text).any(|(_, line)| holds_unsafe(line)) {
                lines += code_lines(&text).filter(|(_, line)| !line.trim().is_empty()).count();
            }
        }
        eprintln!("  {dir}: {lines} lines in files with unsafe code, at most {most}");
        if lines > *most {
            wrong.push(format!("{dir} has {lines} lines with unsafe code; the limit is {most}"));
        }
    }
    report(wrong)
}

fn holds_unsafe(line: &str) -> bool {
    ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe("]
        .iter()
        .any(|word| line.contains(word))
}

/// Dependencies that may stand twice in the lock file, each with the reason.
const MAY_BE_TWICE: &[(&str, &str)] = &[
    ("getrandom", "ring is still at 0.2"),
    ("syn", "the derive macro of zeroize is still at 2; it builds, it does not ship"),
];

fn twice() -> Result<()> {
    let metadata = MetadataCommand::new().current_dir(root()).exec()?;
    let resolve = metadata.resolve.as_ref().context("cargo metadata without a resolution")?;
    // Only what the stock binary is made of counts: build scripts of tests do not ship.
    let start = metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == "moltbot")
        .context("no package moltbot")?;
    let mut seen = BTreeSet::new();
    let mut open = vec![start.id.clone()];
    while let Some(id) = open.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let node = resolve.nodes.iter().find(|node| node.id == id).context("a node")?;
        for dependency in &node.deps {
            let normal = dependency.dep_kinds.iter().any(|kind| {
                kind.kind == cargo_metadata::DependencyKind::Normal && on_this_platform(kind)
            });
            if normal {
                open.push(dependency.pkg.clone());
            }
        }
    }
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in metadata.packages.iter().filter(|package| seen.contains(&package.id)) {
        versions.entry(package.name.to_string()).or_default().insert(package.version.to_string());
    }
    let wrong = versions
        .iter()
        .filter(|(name, found)| {
            found.len() > 1 && !MAY_BE_TWICE.iter().any(|(known, _)| known == name)
        })
        .map(|(name, found)| format!("{name} is there in versions {found:?}"))
        .collect();
    report(wrong)
}

fn on_this_platform(kind: &cargo_metadata::DepKindInfo) -> bool {
    let Some(target) = &kind.target else { return true };
    let target = target.to_string();
    !["windows", "wasm", "macos", "android", "apple", "ios"]
        .iter()
        .any(|other| target.contains(other))
        || target.contains("not(")
        || target.contains("unix")
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn report(wrong: Vec<String>) -> Result<()> {
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("\n  {}", wrong.join("\n  "))
}
