//! A build without the carriers: what the config trusts is listed as not used, nothing is loaded.

use moltbot_config::{Paths, PluginKind};
use moltbot_core::Registry;

use super::row::{Extended, Problem, Row, listed, located};

/// Lists what the config trusts.
pub(crate) fn extend(
    linked: &'static Registry,
    process: &[(String, String)],
    paths: &Paths,
    _fresh: bool,
) -> Extended {
    let trusted = listed(linked, process, paths).map(|plugins| plugins.trusted).unwrap_or_default();
    let row = |entry| Row {
        path: located(entry, paths.home()),
        kind: if entry.kind == PluginKind::Library { "library" } else { "process" },
        plugins: Vec::new(),
        problem: Some(Problem {
            reason: "this build uses no plugins from outside".to_string(),
            hint:
                "build one that does: cargo xtask dist --host carriers, or link the plugin: --with"
                    .to_string(),
        }),
        complaints: Vec::new(),
    };
    Extended { registry: linked, rows: trusted.iter().map(row).collect() }
}
