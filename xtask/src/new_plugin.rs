//! A new plugin from a template: a crate that builds, passes the conformance suite and is in the
//! stock binary, with no other file edited by hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use anyhow::{Context, Result, ensure};
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};

use crate::sync;
use crate::workspace::{files, plugins, root};

/// What a plugin brings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// A way to log in.
    Auth,
    /// A service to ask.
    Provider,
}

/// Describes the chore.
pub(crate) fn command() -> Command {
    let kind = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    Command::new("new-plugin")
        .about("Start a plugin from a template and add it to the stock binary")
        .arg(
            Arg::new("name")
                .value_name("NAME")
                .required(true)
                .help("Its id, in kebab-case: acme-sso"),
        )
        .arg(kind("auth", "A way to log in"))
        .arg(kind("provider", "A service to ask"))
        .group(ArgGroup::new("kind").args(["auth", "provider"]).required(true))
        .after_help("Example:\n  cargo xtask new-plugin acme-sso --auth")
}

/// Makes what the flags say.
pub(crate) fn run(args: &ArgMatches) -> Result<()> {
    let name = args.get_one::<String>("name").context("clap requires a name")?;
    let kind = if args.get_flag("auth") { Kind::Auth } else { Kind::Provider };
    let dir = create(&root(), name, kind)?;
    println!("wrote {}", dir.strip_prefix(root()).unwrap_or(&dir).display());
    println!("next: cargo test -p moltbot-plugin-{name}, cargo run -- plugins info {name}");
    Ok(())
}

/// Makes the plugin in the workspace at `root` and writes its stock binary anew; returns the
/// plugin's directory.
pub(crate) fn create(root: &Path, name: &str, kind: Kind) -> Result<PathBuf> {
    check(root, name)?;
    let dir = root.join("plugins").join(name);
    // Written aside and moved, so that there is no half of it.
    let aside = tempfile::Builder::new().prefix(".new-").tempdir_in(root.join("plugins"))?;
    for file in files(&template(kind), "")? {
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let to = aside.path().join(file.strip_prefix(template(kind))?);
        fs::create_dir_all(to.parent().unwrap_or(aside.path()))?;
        fs::write(&to, filled_in(&text, name))?;
    }
    format(aside.path())?;
    fs::set_permissions(aside.path(), fs::metadata(root.join("plugins"))?.permissions())?;
    fs::rename(aside.keep(), &dir).with_context(|| dir.display().to_string())?;
    sync::run(root, false)?;
    Ok(dir)
}

/// Names that the templates' code uses for something else.
const TAKEN: &[&str] = &[
    "Box", "Err", "Kind", "Lines", "None", "Ok", "Option", "Result", "Self", "Some", "State",
    "String", "Value", "Vec",
];

fn check(root: &Path, name: &str) -> Result<()> {
    let word = |word: &str| {
        !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    ensure!(
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.split('-').all(word)
            && name.len() <= 40,
        "a plugin is named in kebab-case, at most 40 characters: acme-sso, not {name:?}"
    );
    let known = plugins(root)?;
    ensure!(
        !known.iter().any(|plugin| plugin == name) && !root.join("plugins").join(name).exists(),
        "there is a plugin {name:?} already; there are: {}",
        known.join(", ")
    );
    let core = root.join("crates/moltbot-core/src/lib.rs");
    let core = fs::read_to_string(&core).with_context(|| core.display().to_string())?;
    let pascal = pascal(name);
    let exported = core
        .lines()
        .skip_while(|line| !line.starts_with("pub use"))
        .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .any(|word| word == pascal);
    ensure!(
        !exported && !TAKEN.contains(&pascal.as_str()),
        "its type would be called {pascal}, which means something else to plugins: add a word to {name:?}"
    );
    Ok(())
}

fn template(kind: Kind) -> PathBuf {
    let name = match kind {
        Kind::Auth => "plugin-auth",
        Kind::Provider => "plugin-provider",
    };
    Path::new(env!("CARGO_MANIFEST_DIR")).join("templates").join(name)
}

/// Replaces the template's name in each of its spellings.
fn filled_in(text: &str, name: &str) -> String {
    let snake = name.replace('-', "_");
    text.replace("template-name", name)
        .replace("template_name", &snake)
        .replace("TEMPLATE_NAME", &snake.to_uppercase())
        .replace("TemplateName", &pascal(name))
}

fn pascal(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters
            .next()
            .map(|first| first.to_ascii_uppercase())
            .into_iter()
            .chain(letters)
            .collect::<String>()
    };
    name.split('-').map(word).collect()
}

/// Breaks lines anew: names have other lengths than the template's.
fn format(dir: &Path) -> Result<()> {
    let sources = files(dir, ".rs")?;
    let config = root().join("rustfmt.toml");
    let mut rustfmt = Process::new("rustfmt");
    rustfmt.args(["--edition", "2024", "--config-path"]).arg(config).args(sources);
    match rustfmt.status() {
        Ok(status) => ensure!(status.success(), "rustfmt failed with {status}"),
        Err(error) => eprintln!("warning: not formatted, rustfmt cannot be run: {error}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts of a workspace that a new plugin touches or reads.
    fn workspace() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("plugins/one/Cargo.toml", ""),
            ("crates/moltbot/src/main.rs", ""),
            ("crates/moltbot-core/src/lib.rs", "pub use auth::{\n    AuthMethod, Secret,\n};\n"),
        ] {
            let file = dir.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        dir
    }

    #[test]
    fn a_plugin_is_four_files_and_a_line_in_the_stock_binary() {
        let workspace = workspace();
        for (name, kind) in [("acme-sso", Kind::Auth), ("acme-chat", Kind::Provider)] {
            let dir = create(workspace.path(), name, kind).unwrap();
            for file in ["Cargo.toml", "README.md", "src/lib.rs", "tests/conformance.rs"] {
                let text = fs::read_to_string(dir.join(file)).unwrap();
                assert!(
                    !text.to_lowercase().replace(['-', '_'], "").contains("templatename"),
                    "{file}: {text}"
                );
            }
        }
        let lib = fs::read_to_string(workspace.path().join("plugins/acme-sso/src/lib.rs")).unwrap();
        assert!(lib.contains("pub struct AcmeSso;") && lib.contains("\"ACME_SSO_KEY\""), "{lib}");
        assert!(lib.lines().count() < 70, "an auth method is a page: {}", lib.lines().count());
        let main = fs::read_to_string(workspace.path().join("crates/moltbot/src/main.rs")).unwrap();
        for line in [
            "&moltbot_plugin_acme_chat::PLUGIN",
            "&moltbot_plugin_acme_sso::PLUGIN",
            "&moltbot_plugin_one::PLUGIN",
        ] {
            assert!(main.contains(line), "{main}");
        }
        let left: Vec<_> = plugins(workspace.path()).unwrap();
        assert_eq!(left, ["acme-chat", "acme-sso", "one"]);
    }

    #[test]
    fn a_name_that_cannot_work_is_refused_and_nothing_is_written() {
        let workspace = workspace();
        for (name, text) in [
            ("Acme", "kebab-case"),
            ("acme_sso", "kebab-case"),
            ("acme--sso", "kebab-case"),
            ("-acme", "kebab-case"),
            ("../acme", "kebab-case"),
            ("2fa", "kebab-case"),
            ("", "kebab-case"),
            ("one", "there is a plugin \"one\" already; there are: one"),
            ("auth-method", "its type would be called AuthMethod"),
            ("self", "its type would be called Self"),
        ] {
            let error = create(workspace.path(), name, Kind::Auth).unwrap_err().to_string();
            assert!(error.contains(text), "{name}: {error}");
        }
        assert_eq!(fs::read_dir(workspace.path().join("plugins")).unwrap().count(), 1);
    }
}
