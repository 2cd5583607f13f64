//! A build without the carriers: what the config trusts is listed as not used, nothing is loaded.

use std::path::PathBuf;

use moltbot_config::{Extensions, LoadInput, Paths, PluginKind};
use moltbot_core::{Plugin, Registry, VERSION};

use crate::environment::Outside;

/// How a plugin from outside would be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Loaded into this program.
    Library,
    /// Started beside it.
    Process,
}

/// What became of one entry of `plugins.trusted`.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The file, as the config names it.
    pub(crate) path: PathBuf,
    /// How it would be run.
    pub(crate) kind: Kind,
    /// None.
    pub(crate) plugins: Vec<&'static Plugin>,
    /// Why it is not used.
    pub(crate) problem: Option<Problem>,
    /// None.
    pub(crate) complaints: Vec<String>,
}

/// Why a plugin is not used, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// One clause.
    pub(crate) reason: String,
    /// What to type or do.
    pub(crate) hint: String,
}

/// The registry of the linked plugins.
pub(crate) struct Extended {
    pub(crate) registry: &'static Registry,
    pub(crate) rows: Vec<Row>,
}

/// Lists what the config trusts.
pub(crate) fn extend(
    linked: &'static Registry,
    process: &[(String, String)],
    paths: &Paths,
) -> Extended {
    let mut extended = Extended { registry: linked, rows: Vec::new() };
    let extensions = Extensions::default();
    let (env, _) = Outside { process, paths, extensions: &extensions, registry: linked }.read();
    let input = LoadInput { paths, env: &env, extensions: &extensions, version: VERSION };
    let Ok(loaded) = moltbot_config::load(&input) else { return extended };
    let trusted = loaded.config.plugins.map(|plugins| plugins.trusted).unwrap_or_default();
    extended.rows = trusted
        .iter()
        .map(|entry| Row {
            path: match entry.path.as_str().strip_prefix("~/") {
                Some(rest) => paths.home().join(rest),
                None => PathBuf::from(entry.path.as_str()),
            },
            kind: match entry.kind {
                PluginKind::Library => Kind::Library,
                _ => Kind::Process,
            },
            plugins: Vec::new(),
            problem: Some(Problem {
                reason: "this build uses no plugins from outside".to_string(),
                hint: "build one that does: cargo xtask dist --host carriers, or link the plugin: --with"
                    .to_string(),
            }),
            complaints: Vec::new(),
        })
        .collect();
    extended
}

/// Returns the config's word for a kind.
pub(crate) fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Library => "library",
        Kind::Process => "process",
    }
}
