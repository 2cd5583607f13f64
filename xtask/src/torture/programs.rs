//! Builds what is tortured: the stock binary, the host with its hook, the third party's plugin.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::workspace::{cargo, must, root, target_dir};

/// Where the programs are.
pub(super) struct Programs {
    stock: OnceLock<PathBuf>,
    host: OnceLock<PathBuf>,
    /// The library of the fixture, in a directory that only its owner can change.
    pub(super) plugin: PathBuf,
    /// Its sum, as the config names it.
    pub(super) sum: String,
    /// Whether the host stands for the stock binary, because it is to be careless.
    careless: bool,
    _dir: TempDir,
}

impl Programs {
    /// Builds the plugin; the others are built when they are asked for.
    pub(super) fn build(binary: Option<PathBuf>, careless: bool) -> Result<Self> {
        let fixture = root().join("tests/fixtures/acme-oauth");
        // The versions of the workspace, so that nothing has to be fetched.
        std::fs::copy(root().join("Cargo.lock"), fixture.join("Cargo.lock"))?;
        let target = target_dir().join("fixtures");
        must(
            cargo()
                .args(["build", "--release", "--quiet", "--lib"])
                .current_dir(&fixture)
                .env("CARGO_TARGET_DIR", &target),
        )?;
        let (before, after) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        let name = format!("{before}moltbot_plugin_acme_oauth{after}");
        let dir = tempfile::Builder::new().prefix("moltbot-torture-").tempdir()?;
        let plugin = dir.path().join(&name);
        let bytes = std::fs::read(target.join("release").join(&name)).context("the plugin")?;
        std::fs::write(&plugin, &bytes)?;
        let sum = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let plugin = plugin.canonicalize()?;
        let binary = binary.map(|path| path.canonicalize().context("the program")).transpose()?;
        let stock = binary.map_or_else(OnceLock::new, OnceLock::from);
        let host = OnceLock::new();
        Ok(Self { stock, host, plugin, sum, careless, _dir: dir })
    }

    /// Returns the binary that is to be killed.
    pub(super) fn subject(&self) -> Result<&Path> {
        if self.careless { self.host() } else { self.stock() }
    }

    /// Returns the stock binary, as users have it.
    pub(super) fn stock(&self) -> Result<&Path> {
        if self.stock.get().is_none() {
            must(cargo().args(["build", "--release", "--quiet", "--package", "moltbot"]))?;
        }
        Ok(self.stock.get_or_init(|| target_dir().join("release/moltbot")))
    }

    /// Returns the host with its hook and its workers: the one that `MOLTBOT_TORTURE_HOST` names,
    /// because `cargo test` has just built it, or a new one.
    pub(super) fn host(&self) -> Result<&Path> {
        if let Some(built) = std::env::var_os("MOLTBOT_TORTURE_HOST") {
            return Ok(self.host.get_or_init(|| root().join(built)));
        }
        if self.host.get().is_none() {
            let package = ["--package", "moltbot-tests", "--example", "torture-host"];
            must(cargo().args(["build", "--quiet"]).args(package))?;
        }
        Ok(self.host.get_or_init(|| target_dir().join("debug/examples/torture-host")))
    }
}
