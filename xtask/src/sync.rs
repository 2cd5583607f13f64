//! Writes the stock binary, `crates/moltbot`, from what lies under `plugins/`.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::workspace::stock_plugins;

/// What the binary is, for its manifest.
pub(crate) const DESCRIPTION: &str =
    "Holds Anthropic credentials per agent and picks the right one for every request.";

/// Writes `crates/moltbot/{Cargo.toml, src/main.rs}` of the workspace at `root`, or with `check`
/// fails if they are stale.
pub(crate) fn run(root: &Path, check: bool) -> Result<()> {
    let plugins = stock_plugins(root)?;
    let crates: Vec<String> = plugins.iter().map(|name| crate_name(name)).collect();
    let main = main_rs("cargo xtask sync", STOCK, &crates);
    for (path, text) in [("Cargo.toml", manifest(&plugins)), ("src/main.rs", main)] {
        let file = root.join("crates/moltbot").join(path);
        let old = std::fs::read_to_string(&file).unwrap_or_default();
        if old == text {
            continue;
        }
        if check {
            bail!("crates/moltbot/{path} is stale: run `cargo xtask sync`");
        }
        std::fs::write(&file, text).with_context(|| file.display().to_string())?;
        println!("wrote crates/moltbot/{path}");
    }
    Ok(())
}

const STOCK: &str = "The stock binary: the command line with the plugins of this workspace.";

/// Returns the name that Rust code calls a plugin's crate by.
fn crate_name(plugin: &str) -> String {
    format!("moltbot_plugin_{}", plugin.replace('-', "_"))
}

/// Writes the program that names these plugin crates: the one of the stock binary, and of every
/// binary to order.
pub(crate) fn main_rs(writer: &str, about: &str, crates: &[String]) -> String {
    let mut text = format!(
        "// Written by `{writer}`; do not edit.\n\
         //! {about}\n\
         \n\
         fn main() -> std::process::ExitCode {{\n    moltbot_cli::run(&[\n"
    );
    for name in crates {
        text.push_str(&format!("        &{name}::PLUGIN,\n"));
    }
    text.push_str("    ])\n}\n");
    text
}

/// Writes the manifest that depends on these plugins.
fn manifest(plugins: &[String]) -> String {
    let mut text = format!(
        "# Written by `cargo xtask sync`; do not edit.\n\
         [package]\n\
         name = \"moltbot\"\n\
         description = \"{DESCRIPTION}\"\n\
         version.workspace = true\n\
         edition.workspace = true\n\
         rust-version.workspace = true\n\
         license.workspace = true\n\
         publish.workspace = true\n\
         \n\
         [lints]\n\
         workspace = true\n\
         \n\
         [dependencies]\n\
         moltbot-cli.workspace = true\n",
    );
    for name in plugins {
        text.push_str(&format!("moltbot-plugin-{name} = {{ path = \"../../plugins/{name}\" }}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn main_names_every_plugin() {
        let crates = ["a-b", "c"].map(crate_name);
        let text = main_rs("a test", "A test.", &crates);
        assert!(text.contains("&moltbot_plugin_a_b::PLUGIN,\n        &moltbot_plugin_c::PLUGIN,"));
        assert!(text.starts_with("// Written by `a test`; do not edit.\n//! A test.\n"));
    }

    #[test]
    fn the_stock_binary_is_not_stale() {
        run(&crate::workspace::root(), true).expect("crates/moltbot is what sync writes");
    }
}
