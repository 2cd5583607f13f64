//! Writes the stock binary, `crates/moltbot`, from what lies under `plugins/`.

use anyhow::{Context, Result, bail};

use crate::workspace::{plugins, root};

/// Writes `crates/moltbot/{Cargo.toml, src/main.rs}`, or with `check` fails if they are stale.
pub(crate) fn run(check: bool) -> Result<()> {
    let plugins = plugins()?;
    for (path, text) in [("Cargo.toml", manifest(&plugins)), ("src/main.rs", main_rs(&plugins))] {
        let file = root().join("crates/moltbot").join(path);
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

/// Writes the manifest that depends on these plugins.
fn manifest(plugins: &[String]) -> String {
    let mut text = String::from(
        "# Written by `cargo xtask sync`; do not edit.\n\
         [package]\n\
         name = \"moltbot\"\n\
         description = \"Holds Anthropic credentials per agent and picks the right one for every request.\"\n\
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
        text.push_str(&format!(
            "moltbot-plugin-{name} = {{ path = \"../../plugins/{name}\" }}\n"
        ));
    }
    text
}

/// Writes the program that names these plugins.
fn main_rs(plugins: &[String]) -> String {
    let mut text = String::from(
        "// Written by `cargo xtask sync`; do not edit.\n\
         //! The stock binary: the command line with every plugin of this workspace.\n\
         \n\
         fn main() -> std::process::ExitCode {\n    moltbot_cli::run(&[\n",
    );
    for name in plugins {
        let module = name.replace('-', "_");
        text.push_str(&format!("        &moltbot_plugin_{module}::PLUGIN,\n"));
    }
    text.push_str("    ])\n}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn main_names_every_plugin() {
        let text = main_rs(&["a-b".to_string(), "c".to_string()]);
        assert!(text.contains("&moltbot_plugin_a_b::PLUGIN,\n        &moltbot_plugin_c::PLUGIN,"));
    }

    #[test]
    fn the_stock_binary_is_not_stale() {
        run(true).expect("crates/moltbot is what sync writes");
    }
}
