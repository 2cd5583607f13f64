//! The check of `dist` itself, with real builds: the smallest useful binary, one with other plugins
//! of which one is a stranger's, and a library of plugins; beside the stock binary as the tests
//! build it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use moltbot_abi::host::{self, Carried, Kind, Pin, Place};

use super::options::{Source, With};
use super::{Options, Report, ask, make};
use crate::workspace::{cargo, must, root, target_dir};

/// What no binary without subscription plugins may contain.
const SUBSCRIPTION: [&str; 4] =
    ["claude-cli", ".credentials.json", "oauth-2025-04-20", "setup-token"];

/// The most bytes the smallest binary may have: 5 MiB.
const MOST_BYTES: u64 = 5 * 1_048_576;

/// Builds, searches and asks; the smallest binary is built twice and compared.
pub(crate) fn run() -> Result<()> {
    check(true)
}

/// The same for every change: of the three only the library, which is quick to build, is built
/// twice and compared.
pub(crate) fn run_short() -> Result<()> {
    check(false)
}

fn check(verify: bool) -> Result<()> {
    library()?;
    let smallest = smallest(verify)?;
    let acme = root().join("tests/fixtures/acme-sso");
    let acme = With { package: "moltbot-plugin-acme-sso".into(), source: Source::Path(acme) };
    let plugins = named(&["anthropic", "command", "sdk-profile"]);
    let name = "moltbot-commands".to_string();
    let other = make(&Options { name, plugins, with: vec![acme], ..Options::default() })?.1;
    compare(&[&smallest, &other])
}

fn named(plugins: &[&str]) -> Vec<String> {
    plugins.iter().map(ToString::to_string).collect()
}

/// Builds two plugins as one library, twice, and loads it.
fn library() -> Result<()> {
    let name = "moltbot-bundle".to_string();
    let plugins = named(&["api-key", "command"]);
    let options = Options { name, plugins, cdylib: true, verify: true, ..Options::default() };
    let (_, file) = make(&options)?;
    // Where only its owner can write, whatever the workspace's mode.
    let dir = tempfile::tempdir()?;
    let copy = dir.path().join("bundle.so");
    std::fs::copy(file, &copy)?;
    std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let found = host::read(&copy, None)?;
    let (path, sha256) = (found.path.clone(), found.sha256.clone());
    let pin = Pin { path, sha256, kind: Kind::Library, allow_abort: false };
    let carried = host::open(&found, &pin, &Place::new(dir.path().join("state"), &[]), false)?;
    let ids: Vec<&str> = carried.iter().map(|one: &Carried| one.plugin().id).collect();
    ensure!(ids == ["api-key", "command"], "the library holds {ids:?}");
    Ok(())
}

fn smallest(verify: bool) -> Result<PathBuf> {
    let (name, plugins) = ("moltbot-smallest".to_string(), named(&["anthropic", "api-key"]));
    let (report, smallest): (Report, PathBuf) =
        make(&Options { name, plugins, verify, ..Options::default() })?;
    eprintln!("{}", report.text());
    let bytes = std::fs::read(&smallest)?;
    let found = contained(&bytes, &SUBSCRIPTION);
    ensure!(found.is_empty(), "the smallest binary contains {}", found.join(", "));
    ensure!(
        report.size <= MOST_BYTES,
        "the smallest binary has {} bytes, more than {MOST_BYTES}",
        report.size
    );

    lacks_by_name(&smallest)?;
    Ok(smallest)
}

/// Asks for a profile whose method the binary does not have.
fn lacks_by_name(binary: &Path) -> Result<()> {
    let home = tempfile::tempdir()?;
    let agent = home.path().join(".moltbot/agents/main/agent");
    std::fs::create_dir_all(&agent)?;
    let store = json!({ "version": 1, "profiles": { "anthropic:command": {
        "type": "api_key", "provider": "anthropic", "key": "sk-ant-api03-FAKEofacommand00",
        "method": "command", "command": "true" } } });
    std::fs::write(agent.join("auth-profiles.json"), store.to_string())?;
    let mut command = Command::new(binary);
    command.args(["agent", "-m", "hi"]).env_clear().env("HOME", home.path());
    let ran = command.current_dir(home.path()).output()?;
    let said = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.code() == Some(1), "it ended with {}: {said}", ran.status);
    // Nor does this build have `plugins trust`.
    let ways = ["cargo xtask dist --plugins ...,command", "--host carriers"];
    for text in ["needs plugin command, not in this build"].iter().chain(&ways) {
        ensure!(said.contains(text), "a missing plugin is not named: {said}");
    }
    Ok(())
}

/// Compares what binaries show with everything that there is.
fn compare(binaries: &[&Path]) -> Result<()> {
    must(cargo().args(["build", "--quiet", "--package", "moltbot"]))?;
    let stock = target_dir().join("debug/moltbot");
    let mut everything = Shown::default();
    let mut shown = Vec::new();
    for binary in binaries.iter().copied().chain([stock.as_path()]) {
        let own = Shown::of(binary)?;
        everything.choices.extend(own.choices.iter().cloned());
        everything.flags.extend(own.flags.iter().cloned());
        shown.push((binary, own));
    }
    for (binary, own) in shown {
        let help = ask(binary, &["onboard", "--help"])?;
        everything.compare(&own, &help).with_context(|| binary.display().to_string())?;
    }
    // The search would find them: they are in the stock binary.
    let found = contained(&std::fs::read(&stock)?, &SUBSCRIPTION);
    ensure!(found.len() == SUBSCRIPTION.len(), "the stock binary contains only {found:?}");
    Ok(())
}

fn contained<'w>(bytes: &[u8], words: &[&'w str]) -> Vec<&'w str> {
    let holds = |word: &&&str| bytes.windows(word.len()).any(|part| part == word.as_bytes());
    words.iter().filter(holds).copied().collect()
}

/// What a binary's plugins offer.
#[derive(Debug, Default)]
struct Shown {
    choices: BTreeSet<String>,
    flags: BTreeSet<String>,
}

impl Shown {
    /// Asks a binary.
    fn of(binary: &Path) -> Result<Self> {
        let mut shown = Self::default();
        let list: Value = serde_json::from_str(&ask(binary, &["plugins", "list", "--json"])?)?;
        for plugin in list["plugins"].as_array().context("a list without plugins")? {
            let id = plugin["id"].as_str().context("a plugin without an id")?;
            let info: Value =
                serde_json::from_str(&ask(binary, &["plugins", "info", id, "--json"])?)?;
            for offer in info["offers"].as_array().into_iter().flatten() {
                shown.choices.extend(offer["choice"].as_str().map(String::from));
                let flags = offer["flags"].as_array().into_iter().flatten();
                shown.flags.extend(flags.filter_map(Value::as_str).map(|flag| format!("--{flag}")));
            }
        }
        ensure!(!shown.choices.is_empty() && !shown.flags.is_empty(), "nothing is offered");
        Ok(shown)
    }

    /// Fails unless `help` shows, of everything there is, exactly what is `own`.
    fn compare(&self, own: &Self, help: &str) -> Result<()> {
        let flags = (&self.flags, &own.flags, words(help));
        // A choice may be an everyday word, so it counts only where choices stand.
        let choices = (&self.choices, &own.choices, words(paragraph(help, "--auth-choice")));
        for (all, own, shown) in [choices, flags] {
            for name in all {
                match (shown.contains(name.as_str()), own.contains(name)) {
                    (true, false) => {
                        bail!("`onboard --help` shows {name}, which is not in this build")
                    }
                    (false, true) => bail!("`onboard --help` does not show {name}"),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Returns what the help says of a flag: from it to the next one.
fn paragraph<'h>(help: &'h str, flag: &str) -> &'h str {
    let after = help.split_once(flag).map_or("", |(_, after)| after);
    after.split("\n      --").next().unwrap_or_default()
}

fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_anywhere() {
        assert_eq!(contained(b"\0setup-token\xff.credentials.jso", &SUBSCRIPTION), ["setup-token"]);
    }

    #[test]
    fn help_must_show_exactly_what_is_there() {
        let shown = |choices: &[&str], flags: &[&str]| Shown {
            choices: choices.iter().map(ToString::to_string).collect(),
            flags: flags.iter().map(ToString::to_string).collect(),
        };
        let all = shown(&["key", "key-token"], &["--key", "--token"]);
        let own = shown(&["key"], &["--key"]);
        let choice = "--auth-choice <CHOICE>\n          [values: ";
        all.compare(&own, &format!("{choice}key]\n      --key <KEY>\n      key-token")).unwrap();
        for (help, text) in [
            ("key, key-token]\n      --key", "shows key-token"),
            ("]\n      --key key", "does not show key"),
            ("key]\n      --key --token", "shows --token"),
            ("key]\n      --keys", "does not show --key"),
        ] {
            let error = all.compare(&own, &format!("{choice}{help}")).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
