//! Where things are in the workspace.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Returns the workspace's root.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask lies in the workspace's root").to_path_buf()
}

/// Returns where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Lists the plugins of the workspace at `root`, the names of the directories under `plugins/`,
/// sorted.
pub(crate) fn plugins(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root.join("plugins")).context("reading plugins/")? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Lists the plugins that the stock binary links: all but those whose manifest says
/// `[package.metadata.moltbot] stock = false`.
pub(crate) fn stock_plugins(root: &Path) -> Result<Vec<String>> {
    let mut names = plugins(root)?;
    let mut wrong = None;
    names.retain(|name| {
        let file = root.join("plugins").join(name).join("Cargo.toml");
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let manifest = text.parse::<toml::Table>();
        let stock = manifest.as_ref().ok().and_then(|manifest| {
            manifest.get("package")?.get("metadata")?.get("moltbot")?.get("stock")?.as_bool()
        });
        if let Err(error) = manifest {
            wrong = Some(anyhow::anyhow!("{}: {error}", file.display()));
        }
        stock != Some(false)
    });
    wrong.map_or(Ok(names), Err)
}

/// Lists the files below `dir` with that ending, sorted, build output left out.
pub(crate) fn files(dir: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') && name != "node_modules" {
                    open.push(path);
                }
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Copies the directory `from` to `to`, without build output, hidden files and whatever `skip`
/// names directly in it.
pub(crate) fn copy_tree(from: &Path, to: &Path, skip: &[&str]) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || ["target", "node_modules"].contains(&name.as_str()) {
            continue;
        }
        if skip.contains(&name.as_str()) {
            continue;
        }
        let copy = to.join(&name);
        if path.is_dir() {
            copy_tree(&path, &copy, &[])?;
        } else {
            let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
            // A new file, not a copy with its old date: cargo compares dates.
            std::fs::write(&copy, text).with_context(|| copy.display().to_string())?;
        }
    }
    Ok(())
}

/// Returns the cargo command of this toolchain, run from the root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(cargo_path());
    command.current_dir(root());
    command
}

/// Returns the cargo program of this toolchain.
pub(crate) fn cargo_path() -> PathBuf {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()).into()
}

/// Runs a command to its end and fails if it fails.
pub(crate) fn must(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed with {status}");
    }
    Ok(())
}

/// Runs a command to its end and returns its standard output; fails with its complaints.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{:?} failed with {}:\n{}", command.get_program(), output.status, complaint.trim());
    }
    String::from_utf8(output.stdout).context("output that is not UTF-8")
}
