//! Builds the crates below `tests/fixtures`, once, beside the workspace's own artifacts.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use moltbot_abi::host::{self, Checked, Kind, Pin, Place};

use crate::support::Sandbox;

/// Which artifact of a crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Library,
    Process,
}

impl Form {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::Process => "process",
        }
    }
}

/// Returns an artifact of the stranger's plugin.
pub(super) fn acme(form: Form) -> &'static Path {
    static BUILT: OnceLock<[PathBuf; 2]> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        cargo("acme-sso", &["build", "--quiet"]);
        [library("moltbot_plugin_acme_sso"), debug().join("moltbot-plugin-acme-sso")]
    });
    &built[usize::from(form == Form::Process)]
}

/// Returns an artifact of the crate with every plugin of the workspace.
pub(super) fn bundle(form: Form) -> &'static Path {
    static BUILT: OnceLock<[PathBuf; 2]> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        cargo("bundle", &["build", "--quiet"]);
        [library("moltbot_bundle_all"), debug().join("moltbot-bundle-all")]
    });
    &built[usize::from(form == Form::Process)]
}

/// Returns an artifact of the plugin that does everything wrong.
pub(super) fn hostile(form: Form) -> &'static Path {
    static BUILT: OnceLock<[PathBuf; 2]> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        cargo("hostile", &["build", "--quiet"]);
        [library("hostile"), debug().join("hostile-process")]
    });
    &built[usize::from(form == Form::Process)]
}

/// Runs the stranger's own tests.
pub(super) fn test_acme() {
    cargo("acme-sso", &["test", "--quiet", "--test", "conformance"]);
}

/// Copies an artifact to a directory that only its owner can change, below the sandbox.
pub(super) fn trusted(sandbox: &Sandbox, artifact: &Path, name: &str) -> String {
    let dir = sandbox.home().join("plugins");
    std::fs::create_dir_all(&dir).unwrap();
    copy(artifact, &dir.join(name)).display().to_string()
}

/// Lists a file in the config by hand, so that nothing of it has run yet.
pub(super) fn list(sandbox: &Sandbox, path: &str, form: Form) {
    let sum = host::read(path.as_ref(), None).unwrap().sha256;
    let entry = serde_json::json!({ "path": path, "sha256": sum, "kind": form.word() });
    sandbox.write_config(&serde_json::json!({ "plugins": { "trusted": [entry] } }).to_string());
}

/// Copies a file, 0755.
pub(super) fn copy(from: &Path, to: &Path) -> PathBuf {
    std::fs::copy(from, to).unwrap();
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755)).unwrap();
    to.canonicalize().unwrap()
}

/// Lists the private copies that are in a sandbox's state directory.
pub(super) fn copies(sandbox: &Sandbox) -> Vec<String> {
    let entries = std::fs::read_dir(sandbox.state("plugins")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(".copy-")).collect()
}

/// Lists the files in which a directory keeps what plugins said about themselves.
pub(super) fn descriptions(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.to_string_lossy().ends_with(".described.json")).collect()
}

/// Trusts a file as it is.
pub(super) fn pinned(path: &Path, form: Form) -> (Checked, Pin) {
    let file = host::read(path, None).unwrap();
    let kind = match form {
        Form::Library => Kind::Library,
        Form::Process => Kind::Process,
    };
    let (path, sha256) = (file.path.clone(), file.sha256.clone());
    (file, Pin { path, sha256, kind, allow_abort: false })
}

/// Loads below `dir`, with the patience of a slow machine and an environment that holds a secret.
pub(super) fn place(dir: &Path) -> Place {
    let env = [("PATH", "/usr/bin:/bin"), ("HOME", "/root"), ("ACME_KEY", "FAKE")];
    let env: Vec<_> = env.map(|(name, value)| (name.into(), value.into())).into();
    let mut place = Place::new(dir.join("state"), &env);
    place.patience = Duration::from_secs(60);
    place.blocking = true;
    place
}

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).canonicalize().unwrap()
}

fn target() -> PathBuf {
    let own = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    own.unwrap_or_else(|| root().join("target")).join("fixtures")
}

fn debug() -> PathBuf {
    target().join("debug")
}

fn library(name: &str) -> PathBuf {
    let (before, after) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    debug().join(format!("{before}{name}{after}"))
}

fn cargo(fixture: &str, args: &[&str]) {
    let dir = root().join("tests/fixtures").join(fixture);
    // The versions of the workspace, so that nothing has to be fetched.
    std::fs::copy(root().join("Cargo.lock"), dir.join("Cargo.lock")).unwrap();
    let cargo = std::env::var_os("CARGO").expect("tests are run by cargo");
    let output = Command::new(cargo)
        .args(args)
        .current_dir(dir)
        .env("CARGO_TARGET_DIR", target())
        .output()
        .expect("cargo starts");
    let shown = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{fixture}: {}", String::from_utf8_lossy(&shown));
}
