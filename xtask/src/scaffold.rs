//! The check that the templates of `new-plugin` have not rotted: one plugin of each kind is made in
//! a copy of the workspace, tested, and found in the copy's stock binary.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use toml::Table;

use crate::new_plugin::{Kind, create};
use crate::workspace::{cargo_path, copy_tree, files, must, root, target_dir};

/// Makes, tests and runs.
pub(crate) fn run() -> Result<()> {
    let dir = tempfile::Builder::new().prefix("moltbot-scaffold-").tempdir()?;
    let copy = dir.path().join(COPY);
    for group in ["crates", "plugins"] {
        copy_tree(&root().join(group), &copy.join(group), &[])?;
    }
    let manifest: Table = fs::read_to_string(root().join("Cargo.toml"))?.parse()?;
    fs::write(dir.path().join("Cargo.toml"), shifted(manifest)?.to_string())?;
    fs::copy(root().join("Cargo.lock"), dir.path().join("Cargo.lock"))?;

    let before = contents(&copy)?;
    let plugins = [("scaffold-auth", Kind::Auth), ("scaffold-provider", Kind::Provider)];
    for (name, kind) in plugins {
        create(&copy, name, kind)?;
    }
    only_generated(&before, &contents(&copy)?)?;
    let lines = fs::read_to_string(copy.join("plugins/scaffold-auth/src/lib.rs"))?.lines().count();
    ensure!(lines < 70, "the auth template has {lines} lines; the limit is 70");

    // Another name, so that the workspace's own binary stays in its place.
    let stock = copy.join("crates/moltbot/Cargo.toml");
    let text = fs::read_to_string(&stock)?;
    fs::write(&stock, text + "\n[[bin]]\nname = \"moltbot-scaffolded\"\npath = \"src/main.rs\"\n")?;

    let packages = plugins.map(|(name, _)| format!("--package=moltbot-plugin-{name}"));
    must(
        cargo(dir.path())
            .args(["clippy", "--quiet", "--tests"])
            .args(&packages)
            .args(["--", "-D", "warnings"]),
    )?;
    must(cargo(dir.path()).args(["test", "--quiet"]).args(&packages))?;
    must(cargo(dir.path()).args(["build", "--quiet", "--package=moltbot"]))?;
    let list = crate::dist::ask(
        &target_dir().join("debug/moltbot-scaffolded"),
        &["plugins", "list", "--json"],
    )?;
    for (name, what) in [("scaffold-auth", "auth"), ("scaffold-provider", "providers")] {
        ensure!(
            brings(&list, name, what)?,
            "`plugins list` does not show what {name} brings: {list}"
        );
    }
    Ok(())
}

/// Where the copy lies in its workspace. One level deeper than the original, so that cargo takes
/// its packages for others and never mixes up what it built from either, while everything from
/// the registry is shared.
const COPY: &str = "copy";

/// Returns the manifest of a workspace whose directories lie one level deeper.
fn shifted(mut manifest: Table) -> Result<Table> {
    let workspace = manifest.get_mut("workspace").and_then(toml::Value::as_table_mut);
    let workspace = workspace.context("Cargo.toml without [workspace]")?;
    workspace.remove("default-members");
    let members = ["crates/*", "plugins/*"].map(|group| format!("{COPY}/{group}"));
    workspace.insert("members".into(), members.to_vec().into());
    let shared = workspace.get_mut("dependencies").and_then(toml::Value::as_table_mut);
    for (_, dependency) in shared.into_iter().flatten() {
        if let Some(toml::Value::String(path)) = dependency.get_mut("path") {
            *path = format!("{COPY}/{path}");
        }
    }
    Ok(manifest)
}

fn cargo(dir: &Path) -> Command {
    let mut command = Command::new(cargo_path());
    command.current_dir(dir).env("CARGO_TARGET_DIR", target_dir()).env("CARGO_INCREMENTAL", "0");
    command
}

fn contents(dir: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let read = |file: PathBuf| {
        let text = fs::read(&file)?;
        Ok((file.strip_prefix(dir)?.to_path_buf(), text))
    };
    files(dir, "")?.into_iter().map(read).collect()
}

/// Fails if anything but the plugins' own directories and the stock binary has changed.
fn only_generated(
    before: &BTreeMap<PathBuf, Vec<u8>>,
    after: &BTreeMap<PathBuf, Vec<u8>>,
) -> Result<()> {
    let free = ["plugins/scaffold-auth", "plugins/scaffold-provider", "crates/moltbot"];
    let changed = after.iter().filter(|(file, text)| before.get(*file) != Some(*text));
    for (file, _) in changed {
        let expected = free.iter().any(|dir| file.starts_with(dir));
        ensure!(expected, "new-plugin changed {}", file.display());
    }
    let gone = before.keys().find(|file| !after.contains_key(*file));
    ensure!(gone.is_none(), "new-plugin removed {gone:?}");
    Ok(())
}

fn brings(list: &str, id: &str, what: &str) -> Result<bool> {
    let list: Value =
        serde_json::from_str(list).context("`plugins list --json` printed no JSON")?;
    let plugins = list["plugins"].as_array().context("no plugins")?;
    let found = plugins.iter().find(|plugin| plugin["id"] == id);
    Ok(found.is_some_and(|plugin| plugin[what].as_array().is_some_and(|list| !list.is_empty())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_lies_one_level_deeper() {
        let manifest: Table = "[workspace]\nmembers = [\"crates/*\", \"xtask\"]\n\
            default-members = [\"crates/moltbot\"]\n[workspace.dependencies]\n\
            ours = { path = \"crates/ours\" }\nserde = \"1\"\n[profile.dev]\ndebug = 1\n"
            .parse()
            .unwrap();
        let expected: Table = "[workspace]\nmembers = [\"copy/crates/*\", \"copy/plugins/*\"]\n\
            [workspace.dependencies]\nours = { path = \"copy/crates/ours\" }\nserde = \"1\"\n\
            [profile.dev]\ndebug = 1\n"
            .parse()
            .unwrap();
        assert_eq!(shifted(manifest).unwrap(), expected);
    }

    #[test]
    fn nothing_else_may_change() {
        let tree = |files: &[(&str, &str)]| -> BTreeMap<PathBuf, Vec<u8>> {
            files.iter().map(|(path, text)| (path.into(), text.as_bytes().to_vec())).collect()
        };
        let before = tree(&[("crates/moltbot/src/main.rs", "1"), ("crates/other/src/lib.rs", "1")]);
        let mut after = before.clone();
        after
            .extend(tree(&[("crates/moltbot/src/main.rs", "2"), ("plugins/scaffold-auth/x", "1")]));
        only_generated(&before, &after).unwrap();
        after.insert("crates/other/src/lib.rs".into(), b"2".to_vec());
        let error = only_generated(&before, &after).unwrap_err().to_string();
        assert_eq!(error, "new-plugin changed crates/other/src/lib.rs");
        assert!(only_generated(&before, &tree(&[])).is_err());
    }

    #[test]
    fn a_plugin_is_shown_with_what_it_brings() {
        let list = r#"{"plugins":[{"id":"a","auth":["a"],"providers":[]}]}"#;
        assert!(brings(list, "a", "auth").unwrap());
        assert!(!brings(list, "a", "providers").unwrap() && !brings(list, "b", "auth").unwrap());
    }
}
