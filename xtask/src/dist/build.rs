//! Building a staged tree so that only its contents decide the result: a fixed environment, paths
//! mapped away, symbols read before they are taken out.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::options::Options;
use super::stage::NO_UNWINDING;
use crate::workspace::{cargo_path, must, output, root};

/// The compiler and everything around it that a build may see.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    /// What `rustc -vV` says.
    pub(crate) rustc: String,
    /// This machine's triple.
    pub(crate) host: String,
    /// Where rustc and its tools lie.
    sysroot: PathBuf,
    /// The triple to build for, if it was asked for.
    target: Option<String>,
    /// Where cargo keeps sources of the registry.
    cargo_home: PathBuf,
    /// The date that a build may write down, seconds since 1970.
    pub(crate) epoch: i64,
    /// The allowed variables.
    env: Vec<(OsString, OsString)>,
}

/// Variables that a build may see: where tools, sources and proxies are. Nothing that changes code.
const ALLOWED: &[&str] = &[
    "ALL_PROXY",
    "CARGO_BUILD_JOBS",
    "CARGO_HOME",
    "CARGO_HTTP_CAINFO",
    "CARGO_HTTP_PROXY",
    "CARGO_NET_GIT_FETCH_WITH_CLI",
    "CARGO_NET_OFFLINE",
    "CARGO_TERM_COLOR",
    "DEVELOPER_DIR",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "PATH",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "SDKROOT",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "USER",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

impl Toolchain {
    /// Asks the compiler who it is, and takes what is allowed from the environment.
    pub(crate) fn find(target: Option<&str>) -> Result<Self> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let says = |args: &[&str]| output(Command::new(&rustc).args(args).current_dir(root()));
        let version = says(&["-vV"])?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        let host = host.context("rustc -vV names no host")?.to_string();
        if let Some(target) = target {
            let library = says(&["--print", "target-libdir", "--target", target]);
            let library = library.with_context(|| format!("--target {target}"))?;
            ensure!(
                Path::new(library.trim()).is_dir(),
                "--target {target}: its standard library is not installed: run `rustup target add {target}`"
            );
        }
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
        Ok(Self {
            host,
            sysroot: says(&["--print", "sysroot"])?.trim().into(),
            rustc: version,
            target: target.map(String::from),
            cargo_home: home.context("neither CARGO_HOME nor HOME is set")?,
            epoch: epoch(),
            env: std::env::vars_os()
                .filter(|(name, _)| allowed(&name.to_string_lossy(), target))
                .collect(),
        })
    }

    /// Returns the triple that is built for.
    pub(crate) fn target(&self) -> &str {
        self.target.as_deref().unwrap_or(&self.host)
    }

    /// Tells whether this machine can run the result.
    pub(crate) fn is_native(&self) -> bool {
        self.target() == self.host
    }

    /// Returns a cargo command in `dir` that sees the allowed environment only.
    pub(crate) fn cargo(&self, dir: &Path) -> Command {
        let mut command = Command::new(cargo_path());
        command.current_dir(dir).env_clear().envs(self.env.iter().cloned());
        command.env("CARGO_INCREMENTAL", "0").env("SOURCE_DATE_EPOCH", self.epoch.to_string());
        command.env("LC_ALL", "C").env("TZ", "UTC").env("ZERO_AR_DATE", "1");
        command
    }

    /// Builds the tree in `source` with its symbols; returns where the result lies.
    pub(crate) fn build(&self, source: &Path, build: &Path, options: &Options) -> Result<PathBuf> {
        let mut command = self.cargo(source);
        command
            .args(["build", "--locked", "--profile", PROFILE, "--quiet"])
            // Symbols are needed for the report; `strip` takes them out afterwards.
            .args(["--config", "profile.dist.strip=false"])
            // Named even if it is this machine: so the flags reach what ships, and no build script.
            .args(["--target", self.target(), "--target-dir"])
            .arg(build)
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags(source, build, options.unwinds())?);
        let status = command.status().context("starting cargo")?;
        ensure!(status.success(), "cargo could not build {}; why, it says above", source.display());
        let dir = build.join(self.target()).join(PROFILE);
        let product = dir.join(file_name(options, self.target()));
        ensure!(product.is_file(), "cargo made no {}", product.display());
        Ok(product)
    }

    /// Copies a build's result without its symbols, by the tool that comes with the compiler.
    pub(crate) fn strip(&self, product: &Path, to: &Path, options: &Options) -> Result<()> {
        let tool = self.sysroot.join("lib/rustlib").join(&self.host).join("bin/rust-objcopy");
        let libraries =
            if cfg!(target_os = "macos") { "DYLD_LIBRARY_PATH" } else { "LD_LIBRARY_PATH" };
        // A library keeps the one symbol that it is loaded by.
        let what = if options.cdylib { "--strip-unneeded" } else { "--strip-all" };
        let mut command = Command::new(tool);
        command.env_clear().env(libraries, self.sysroot.join("lib"));
        must(command.arg(what).arg(product).arg(to))
    }

    /// Returns the flags that map every path of this machine to a fixed one; of several that fit,
    /// the compiler takes the last. Where nothing unwinds, the tables for it are left out.
    fn flags(&self, source: &Path, build: &Path, unwinds: bool) -> Result<OsString> {
        let mut maps = vec![(self.cargo_home.clone(), "/cargo".to_string())];
        let registries = self.cargo_home.join("registry/src");
        if registries.is_dir() {
            // Their directories are named after the address of the registry, or of a mirror.
            let mut found = std::fs::read_dir(&registries)?
                .map(|entry| Ok(entry?.path()))
                .collect::<Result<Vec<_>>>()?;
            found.sort();
            maps.extend(found.into_iter().map(|dir| (dir, "/registry".to_string())));
        }
        maps.push((build.to_path_buf(), "/build".to_string()));
        maps.push((source.to_path_buf(), "/source".to_string()));
        let mut flags = OsString::new();
        for (from, to) in maps {
            if !flags.is_empty() {
                flags.push("\x1f");
            }
            flags.push("--remap-path-prefix=");
            flags.push(from);
            flags.push("=");
            flags.push(to);
        }
        if !unwinds {
            for flag in without_unwinding(self.target()) {
                flags.push("\x1f");
                flags.push(flag);
            }
        }
        Ok(flags)
    }
}

const PROFILE: &str = "dist";

/// Returns the flags for a program in which nothing unwinds.
fn without_unwinding(target: &str) -> Vec<String> {
    let mut flags = vec!["-Cforce-unwind-tables=no".to_string()];
    // The start files that come with the compiler for musl read the tables.
    if target.contains("linux-gnu") {
        // Cargo runs the compiler, and that the linker, where the root manifest lies.
        flags.push(format!("-Clink-arg=-Wl,-T,{NO_UNWINDING}"));
        flags.push("-Clink-arg=-Wl,--no-eh-frame-hdr".to_string());
    }
    if target.starts_with("x86_64") {
        // What several functions have in common is written once. Other targets do so by themselves
        // where code is to be small.
        flags.push("-Cllvm-args=-enable-machine-outliner=always".to_string());
    }
    if target == "x86_64-unknown-linux-gnu" {
        // The linker that comes with the compiler for this target writes equal functions once.
        flags.push("-Clink-arg=-Wl,--icf=all".to_string());
    }
    flags
}

/// Returns the name of the file that a build makes.
pub(crate) fn file_name(options: &Options, target: &str) -> String {
    match (options.cdylib, target.contains("apple")) {
        (false, _) => options.name.clone(),
        (true, false) => format!("lib{}.so", options.name.replace('-', "_")),
        (true, true) => format!("lib{}.dylib", options.name.replace('-', "_")),
    }
}

/// Tells whether a build for `target` may see a variable: those above, and the names of the cross
/// compiler for exactly this target.
fn allowed(name: &str, target: Option<&str>) -> bool {
    let cross = target.is_some_and(|target| {
        let under = target.replace('-', "_");
        let linker = format!("CARGO_TARGET_{}_LINKER", under.to_uppercase());
        name == linker || ["CC", "AR"].iter().any(|tool| name == format!("{tool}_{under}"))
    });
    cross || ALLOWED.contains(&name)
}

/// Returns the date of the sources: `SOURCE_DATE_EPOCH`, else the commit's, else 1980 (the
/// earliest that every archive format can write).
fn epoch() -> i64 {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok();
    given
        .or_else(|| git(&["log", "-1", "--format=%ct"]))
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(315_532_800)
}

/// Asks git about the workspace; nothing if it is not a clone.
pub(crate) fn git(args: &[&str]) -> Option<String> {
    let text = output(Command::new("git").args(args).current_dir(root())).ok()?;
    Some(text.trim().to_string())
}

#[cfg(test)]
impl Toolchain {
    /// Lets cargo look for its configuration, and with it the registry, in this directory.
    pub(crate) fn at_home(mut self, home: &Path) -> Self {
        self.env.retain(|(name, _)| name != "CARGO_HOME");
        self.env.push(("CARGO_HOME".into(), home.into()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toolchain(home: &Path) -> Toolchain {
        Toolchain {
            rustc: String::new(),
            host: "x86_64-unknown-linux-gnu".into(),
            sysroot: "/s".into(),
            target: None,
            cargo_home: home.into(),
            epoch: 7,
            env: vec![("PATH".into(), "/bin".into())],
        }
    }

    #[test]
    fn a_build_sees_only_what_is_allowed() {
        for name in ["PATH", "HOME", "https_proxy", "CARGO_HOME"] {
            assert!(allowed(name, None), "{name}");
        }
        for name in ["RUSTFLAGS", "CFLAGS", "CC", "ANTHROPIC_API_KEY", "CARGO_PROFILE_DIST_LTO"] {
            assert!(!allowed(name, Some("aarch64-apple-darwin")), "{name}");
        }
        for name in ["CC_aarch64_apple_darwin", "CARGO_TARGET_AARCH64_APPLE_DARWIN_LINKER"] {
            assert!(allowed(name, Some("aarch64-apple-darwin")) && !allowed(name, None), "{name}");
        }
        let command = toolchain(Path::new("/c")).cargo(Path::new("/"));
        let names: Vec<_> = command.get_envs().map(|(name, _)| name.to_string_lossy()).collect();
        assert_eq!(
            names,
            ["CARGO_INCREMENTAL", "LC_ALL", "PATH", "SOURCE_DATE_EPOCH", "TZ", "ZERO_AR_DATE"]
        );
    }

    #[test]
    fn a_target_that_cannot_be_built_for_is_said_before_anything_is() {
        // No library comes with the compiler for the second one, whatever is installed.
        for (target, text) in [
            ("no-such-target", "\"no-such-target\""),
            ("x86_64-unknown-l4re-uclibc", "run `rustup target add x86_64-unknown-l4re-uclibc`"),
        ] {
            let error = format!("{:#}", Toolchain::find(Some(target)).unwrap_err());
            assert!(error.starts_with(&format!("--target {target}: ")), "{error}");
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn no_path_of_this_machine_stays() {
        let home = tempfile::tempdir().unwrap();
        let mirror = home.path().join("registry/src/mirror-0123");
        std::fs::create_dir_all(&mirror).unwrap();
        let toolchain = toolchain(home.path());
        let flags = |unwinds| {
            let flags = toolchain.flags(Path::new("/a/source"), Path::new("/b"), unwinds);
            flags.unwrap().into_string().unwrap()
        };
        let abort = flags(false);
        let more = abort.strip_prefix(&flags(true)).unwrap();
        assert!(more.starts_with("\x1f-Cforce-unwind-tables=no\x1f"), "{more}");
        assert!(
            more.contains("-T,no-unwinding.ld") && !more.contains(&*home.path().to_string_lossy())
        );
        let outlined =
            |target| without_unwinding(target).iter().any(|flag| flag.contains("machine-outliner"));
        assert!(outlined("x86_64-unknown-linux-musl") && !outlined("aarch64-apple-darwin"));
        let of_musl = without_unwinding("x86_64-unknown-linux-musl").join(" ");
        assert!(!of_musl.contains("link-arg"), "{of_musl}");
        let flags = flags(true);
        let flags: Vec<&str> = flags
            .split('\x1f')
            .map(|flag| flag.strip_prefix("--remap-path-prefix=").unwrap())
            .collect();
        let home = home.path().display();
        assert_eq!(
            flags,
            [
                format!("{home}=/cargo"),
                format!("{}=/registry", mirror.display()),
                "/b=/build".to_string(),
                "/a/source=/source".to_string()
            ]
        );
    }

    #[test]
    fn products_are_called_as_the_platform_calls_them() {
        let mut options = Options { name: "a-b".into(), ..Options::default() };
        assert_eq!(file_name(&options, "x86_64-unknown-linux-gnu"), "a-b");
        options.cdylib = true;
        assert_eq!(file_name(&options, "x86_64-unknown-linux-gnu"), "liba_b.so");
        assert_eq!(file_name(&options, "aarch64-apple-darwin"), "liba_b.dylib");
    }
}
