//! What became of each plugin from outside that the config trusts, in builds with and without the
//! carriers.

use std::path::{Path, PathBuf};

use moltbot_config::{Extensions, LoadInput, Paths, Plugins, TrustedPlugin};
use moltbot_core::{Plugin, Registry, VERSION};

use crate::environment::Outside;

/// What became of one entry of `plugins.trusted`.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The file, as the config names it.
    pub(crate) path: PathBuf,
    /// How it is run, in the config's word: `library` or `process`.
    pub(crate) kind: &'static str,
    /// The plugins in it; empty if it is not used.
    pub(crate) plugins: Vec<&'static Plugin>,
    /// Why it is not used.
    pub(crate) problem: Option<Problem>,
    /// What it did wrong without being refused for it.
    pub(crate) complaints: Vec<String>,
    /// The plugins in it, used or not.
    #[cfg(feature = "carriers")]
    pub(crate) carried: std::sync::Arc<[moltbot_abi::host::Carried]>,
}

/// Why a plugin is not used, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// One clause.
    pub(crate) reason: String,
    /// What to type or do.
    pub(crate) hint: String,
}

/// The registry of the linked plugins and of those from outside that go with them.
pub(crate) struct Extended {
    pub(crate) registry: &'static Registry,
    pub(crate) rows: Vec<Row>,
}

/// Reads what the config trusts. Costs one look at the config's text if it trusts nothing.
pub(super) fn listed(
    linked: &'static Registry,
    process: &[(String, String)],
    paths: &Paths,
) -> Option<Plugins> {
    if !may_trust(paths.config_file()) {
        return None;
    }
    // Which settings there are is not known before the plugins are.
    let extensions = Extensions::default();
    let (env, _) = Outside { process, paths, extensions: &extensions, registry: linked }.read();
    let input = LoadInput { paths, env: &env, extensions: &extensions, version: VERSION };
    // A config that is invalid trusts nobody; whoever reads it next says what is wrong with it.
    moltbot_config::load(&input).ok()?.config.plugins
}

/// Returns the file of an entry of the config.
pub(super) fn located(trusted: &TrustedPlugin, home: &Path) -> PathBuf {
    match trusted.path.as_str().strip_prefix("~/") {
        Some(rest) => home.join(rest),
        None => PathBuf::from(trusted.path.as_str()),
    }
}

/// Looks for the word without which nothing is trusted, also in files that are included.
fn may_trust(config: &Path) -> bool {
    let text = std::fs::read(config).unwrap_or_default();
    let has = |word: &[u8]| text.windows(word.len()).any(|window| window == word);
    has(b"trusted") || has(b"$include") || has(b"\\u")
}
