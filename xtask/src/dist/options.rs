//! What to build: flags, or the same words in a `dist.toml`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command};
use semver::VersionReq;
use serde::Deserialize;

use super::stage::PACKAGE;

/// What to build.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Options {
    /// The binary's name.
    pub(crate) name: String,
    /// Plugins of the workspace.
    pub(crate) plugins: Vec<String>,
    /// Plugins from elsewhere.
    pub(crate) with: Vec<With>,
    /// The target triple, if it is not this machine's.
    pub(crate) target: Option<String>,
    /// The lock file to start from, if it is not the workspace's.
    pub(crate) lock: Option<PathBuf>,
    /// Whether to make a loadable bundle instead of a program.
    pub(crate) cdylib: bool,
    /// Whether to build a second time elsewhere and compare.
    pub(crate) verify: bool,
    /// Whether to keep `moltbot lab` and `--lab`.
    pub(crate) lab: bool,
    /// Parts of the program itself that are kept, of [`HOST_PARTS`].
    pub(crate) host: Vec<String>,
    /// Whether a panic ends one task instead of the program, for a fifth more bytes.
    pub(crate) unwind: bool,
    /// Whether to compare with the stock binary, building it if need be.
    pub(crate) stock: bool,
}

/// What the program can do without: features of `moltbot-cli`.
pub(crate) const HOST_PARTS: [&str; 2] = ["carriers", "http2"];

/// A plugin that is not of this workspace.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct With {
    /// The package's name.
    pub(crate) package: String,
    /// Where it comes from.
    pub(crate) source: Source,
}

/// Where a package comes from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    /// A directory.
    Path(PathBuf),
    /// The registry.
    Registry(VersionReq),
}

/// Describes the chore.
pub(crate) fn command() -> Command {
    let list = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).help(help).value_delimiter(',').action(ArgAction::Append)
    };
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
    };
    Command::new("dist")
        .about("Build a binary with the plugins you choose, and say what is in it")
        .arg(list("plugins", "Plugins of this workspace, or `all`").value_name("A,B"))
        .arg(
            Arg::new("with")
                .long("with")
                .value_name("NAME@REQ|NAME=PATH")
                .help("A plugin package of the registry, or in a directory; repeatable")
                .action(ArgAction::Append),
        )
        .arg(text("name", "NAME", "The binary's name; without it, moltbot"))
        .arg(text("target", "TRIPLE", "Build for another platform"))
        .arg(text("lock", "FILE", "Start from this lock file instead of the workspace's"))
        .arg(flag("cdylib", "Make a loadable bundle of the plugins instead of a program"))
        .arg(flag("verify", "Build again in another directory and compare"))
        .arg(flag("lab", "Keep `moltbot lab` and `--lab`"))
        .arg(
            list("host", "Keep parts of the program: carriers (plugins from outside), http2")
                .value_name("PART,..")
                .value_parser(HOST_PARTS),
        )
        .arg(flag("unwind", "Let a panic end one request instead of the program; a fifth larger"))
        .arg(flag("no-stock", "Do not compare with the stock binary"))
        .arg(text("file", "FILE", "Read these words from a file; without --plugins, ./dist.toml"))
        .after_help(
            "Examples:\n  cargo xtask dist --plugins anthropic,api-key --name mybot\n  \
             cargo xtask dist --plugins all --with moltbot-plugin-acme@1.2 --name mybot --verify\n\n\
             The result lies in target/dist/NAME: the binary, NAME.json (what is in it), NAME.lock,\n\
             NAME.cdx.json (bill of materials), source/ (what it was built from).",
        )
}

/// The same words in a file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    plugins: Vec<String>,
    with: Vec<String>,
    name: Option<String>,
    target: Option<String>,
    lock: Option<PathBuf>,
    cdylib: bool,
    verify: bool,
    lab: bool,
    host: Vec<String>,
    unwind: bool,
    no_stock: bool,
}

impl Options {
    /// Tells whether a panic unwinds. In a library it always does: it must not end the program
    /// that loaded it.
    pub(crate) fn unwinds(&self) -> bool {
        self.unwind || self.cdylib
    }

    /// Reads the flags, and the file that they or nobody names; flags win. `known` are the
    /// workspace's plugins, `here` is the working directory.
    pub(crate) fn read(args: &ArgMatches, known: &[String], here: &Path) -> Result<Self> {
        let given = |name: &str| args.get_one::<String>(name).cloned();
        let several = |name: &str| -> Vec<String> {
            args.get_many::<String>(name).into_iter().flatten().cloned().collect()
        };
        let file = match (given("file"), several("plugins").is_empty()) {
            (Some(file), _) => Some(here.join(file)),
            (None, true) => Some(here.join("dist.toml")).filter(|file| file.is_file()),
            (None, false) => None,
        };
        let mut words = File::default();
        let mut base = here.to_path_buf();
        if let Some(file) = file {
            let shown = file.display().to_string();
            let text = std::fs::read_to_string(&file).with_context(|| shown.clone())?;
            words = toml::from_str(&text).with_context(|| shown)?;
            base = file.parent().unwrap_or(here).to_path_buf();
        }
        let mut with = Vec::new();
        for (texts, base) in [(&words.with, base.as_path()), (&several("with"), here)] {
            for text in texts {
                with.push(With::parse(text, base)?);
            }
        }
        let mut plugins = several("plugins");
        if plugins.is_empty() {
            plugins = words.plugins;
        }
        let mut host = several("host");
        if host.is_empty() {
            host = words.host;
        }
        host.sort();
        host.dedup();
        let flag = |name: &str, word: bool| args.get_flag(name) || word;
        let options = Self {
            name: given("name").or(words.name).unwrap_or_else(|| PACKAGE.into()),
            plugins: chosen(plugins, known)?,
            with,
            target: given("target").or(words.target),
            lock: given("lock")
                .map(|lock| here.join(lock))
                .or(words.lock.map(|lock| base.join(lock))),
            cdylib: flag("cdylib", words.cdylib),
            verify: flag("verify", words.verify),
            lab: flag("lab", words.lab),
            host,
            unwind: flag("unwind", words.unwind),
            stock: !flag("no-stock", words.no_stock),
        };
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<()> {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let starts = self.name.starts_with(|c: char| c.is_ascii_alphabetic());
        ensure!(
            starts && self.name.len() <= 64 && self.name.chars().all(good),
            "the name {:?} is not usable: take letters, digits, - and _, at most 64",
            self.name
        );
        ensure!(
            !["build", "deps", "examples", "incremental", "source"].contains(&self.name.as_str()),
            "the name {:?} is taken by a directory of the build",
            self.name
        );
        if let Some(part) = self.host.iter().find(|part| !HOST_PARTS.contains(&part.as_str())) {
            bail!("the program has no part {part:?}; there are: {}", HOST_PARTS.join(", "));
        }
        if self.plugins.is_empty() && self.with.is_empty() {
            bail!("no plugin is chosen: pass --plugins A,B or --plugins all");
        }
        Ok(())
    }
}

impl With {
    /// Reads `NAME@REQ` or `NAME=PATH`.
    fn parse(text: &str, base: &Path) -> Result<Self> {
        let split =
            text.find(['@', '=']).map(|at| (&text[..at], text.as_bytes()[at], &text[at + 1..]));
        let Some((name, sign, rest)) =
            split.filter(|(name, _, rest)| !name.is_empty() && !rest.is_empty())
        else {
            bail!(
                "--with {text}: write NAME@REQ for a package of the registry, NAME=PATH for a directory"
            );
        };
        let source = match sign {
            b'@' => {
                Source::Registry(VersionReq::parse(rest).with_context(|| format!("--with {text}"))?)
            }
            _ => Source::Path(base.join(rest)),
        };
        Ok(Self { package: name.to_string(), source })
    }
}

/// Sorts the chosen plugins and refuses unknown ones.
fn chosen(mut names: Vec<String>, known: &[String]) -> Result<Vec<String>> {
    if names == ["all"] {
        return Ok(known.to_vec());
    }
    names.sort();
    names.dedup();
    if let Some(name) = names.iter().find(|name| !known.contains(name)) {
        bail!(
            "there is no plugin {name:?} in this workspace; there are: {}. \
             One from elsewhere is named by --with",
            known.join(", ")
        );
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str], here: &Path) -> Result<Options> {
        let matches = command().try_get_matches_from(["dist"].iter().chain(args))?;
        Options::read(&matches, &["a".to_string(), "b-c".to_string()], here)
    }

    fn complaint(args: &[&str]) -> String {
        format!("{:#}", read(args, Path::new("/nowhere")).unwrap_err())
    }

    #[test]
    fn flags_say_everything() {
        let args = "--plugins b-c,a --name x --with acme@1.2 --with own=sub/own --lock l --verify";
        let options = read(&args.split(' ').collect::<Vec<_>>(), Path::new("/here")).unwrap();
        assert_eq!(options.plugins, ["a", "b-c"]);
        let registry = Source::Registry(VersionReq::parse("1.2").unwrap());
        let path = Source::Path("/here/sub/own".into());
        assert_eq!(options.with[0], With { package: "acme".into(), source: registry });
        assert_eq!(options.with[1], With { package: "own".into(), source: path });
        assert_eq!(options.lock, Some("/here/l".into()));
        assert!(options.verify && options.stock && !options.lab && !options.cdylib);
        let all = read(&["--plugins", "all", "--name", "x"], Path::new("/")).unwrap();
        assert_eq!(all.plugins, ["a", "b-c"]);
    }

    #[test]
    fn a_file_says_the_same_and_flags_win() {
        let dir = tempfile::tempdir().unwrap();
        let text = "plugins = [\"a\"]\nname = \"f\"\nwith = [\"own=own\"]\nhost = [\"http2\"]\nlab = true\nno-stock = true";
        std::fs::write(dir.path().join("dist.toml"), text).unwrap();
        let options = read(&[], dir.path()).unwrap();
        assert_eq!(
            (options.name.as_str(), options.plugins.as_slice()),
            ("f", &["a".to_string()][..])
        );
        assert_eq!(options.with[0].source, Source::Path(dir.path().join("own")));
        assert!(options.lab && !options.stock && options.host == ["http2"]);
        let flags = read(&["--host", "http2,carriers"], dir.path()).unwrap();
        assert_eq!(flags.host, ["carriers", "http2"]);
        assert!(read(&["--host", "kitchen"], dir.path()).is_err());
        assert_eq!(read(&["--name", "g"], dir.path()).unwrap().name, "g");
        assert_eq!(read(&["--plugins", "a"], Path::new("/")).unwrap().name, "moltbot");

        std::fs::write(dir.path().join("dist.toml"), "plugin = [\"a\"]").unwrap();
        let error = format!("{:#}", read(&[], dir.path()).unwrap_err());
        assert!(error.contains("dist.toml") && error.contains("unknown field `plugin`"), "{error}");
    }

    #[test]
    fn what_cannot_be_built_is_said() {
        for (args, text) in [
            (&["--name", "x"][..], "no plugin is chosen: pass --plugins A,B or --plugins all"),
            (
                &["--plugins", "z", "--name", "x"],
                "there is no plugin \"z\" in this workspace; there are: a, b-c.",
            ),
            (&["--plugins", "a", "--name", "../x"], "the name \"../x\" is not usable"),
            (&["--plugins", "a", "--name", "deps"], "the name \"deps\" is taken"),
            (&["--plugins", "a", "--name", "x", "--with", "y"], "--with y: write NAME@REQ"),
            (&["--plugins", "a", "--name", "x", "--with", "y@one"], "--with y@one: unexpected"),
        ] {
            let found = complaint(args);
            assert!(found.starts_with(text), "{found}");
        }
    }
}
