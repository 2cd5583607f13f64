//! Plugins from outside: those that the config trusts, checked before the command line is read,
//! because flags and choices are grown from them.
//!
//! Each ends as a [`Row`]. Nothing that a plugin is or does keeps the program from starting. What it
//! offers is known from an earlier start, or asked now; it is loaded or spawned when it is asked, or
//! when a command calls it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use clap::Command;
use moltbot_abi::host::{self, Carried, Kind, LoadError, Pin, Place};
use moltbot_config::{Paths, PluginKind, Plugins, TrustedPlugin};
use moltbot_core::{Plugin, Registry};

use super::row::{Extended, Problem, Row, listed, located};
use crate::tree;

impl From<LoadError> for Problem {
    fn from(error: LoadError) -> Self {
        Self { reason: error.to_string(), hint: error.hint().to_string() }
    }
}

/// Checks what the config trusts and finds out what it offers. Costs one look at the config's text if
/// it trusts nothing. `fresh` loads and asks everything, whatever is known of it.
pub(crate) fn extend(
    linked: &'static Registry,
    process: &[(String, String)],
    paths: &Paths,
    fresh: bool,
) -> Extended {
    let mut extended = Extended { registry: linked, rows: Vec::new() };
    let Some(plugins) = listed(linked, process, paths) else { return extended };
    let off = plugins.enabled == Some(false);
    let place = Place { fresh, ..place(paths, process) };
    let pins = pins(&plugins, paths.home());
    let opened: Vec<Result<Vec<Carried>, Problem>> = if off {
        let problem = || Problem {
            reason: "the config switches plugins off".to_string(),
            hint: "moltbot config set plugins.enabled true".to_string(),
        };
        pins.iter().map(|_| Err(problem())).collect()
    } else {
        host::open_all(&pins, &place, |_, opened| opened.map_err(Problem::from))
    };
    let together = extended.take_all(&opened, &plugins);
    for (pin, opened) in pins.iter().zip(opened) {
        let row = match opened {
            Ok(carried) => {
                let row = extended.add(pin, &carried, &plugins, together);
                Row { carried: carried.into(), ..row }
            }
            Err(problem) => row(pin, Some(problem)),
        };
        extended.rows.push(row);
    }
    host::keep(extended.rows.iter().flat_map(|row| row.carried.iter()), &place);
    extended
}

/// Where copies and marks are kept, and what child processes see of the environment.
pub(crate) fn place(paths: &Paths, process: &[(String, String)]) -> Place {
    let place = Place::new(paths.state_dir().join("plugins"), process);
    Place { hung: end, ..place }
}

/// Says how two sets of plugins clash, if they do.
///
/// `registry` holds both; what it does not know about are the commands of the program.
pub(crate) fn clash(registry: &Registry) -> Option<String> {
    fn walk(command: &Command) -> Option<String> {
        let mut seen = HashSet::new();
        for name in command.get_subcommands().map(Command::get_name) {
            if !seen.insert(name.to_string()) {
                return Some(format!("`{name}` is already a command of {}", command.get_name()));
            }
        }
        let mut seen = HashSet::new();
        for long in command.get_arguments().filter_map(|arg| arg.get_long()) {
            if !seen.insert(long) {
                return Some(format!("--{long} is already a flag of {}", command.get_name()));
            }
        }
        command.get_subcommands().find_map(walk)
    }
    walk(&tree::command(registry))
}

/// Ends the program, which could not even exit any more. The plugin is skipped from then on.
fn end(error: &LoadError) {
    eprintln!("Error: a plugin hangs: {error}; the next start leaves it out");
    std::process::abort();
}

impl Extended {
    /// Takes everything that was opened at once, if it all goes together; nearly always it does,
    /// and looking at each alone costs more with every plugin there is. Returns whether it took it.
    fn take_all(&mut self, opened: &[Result<Vec<Carried>, Problem>], rules: &Plugins) -> bool {
        let all = opened.iter().flatten().flatten();
        let all: Vec<_> = all.filter(|one| refusal(rules, one.plugin().id).is_none()).collect();
        let plugins = || all.iter().map(|one| one.plugin());
        // The registry is going to ask each of them about each provider.
        let own: Vec<_> =
            plugins().flat_map(|plugin| plugin.providers).map(|it| it.info()).collect();
        let linked = self.registry.providers().iter().map(|entry| entry.info);
        let providers: Vec<_> = linked.chain(&own).collect();
        all.iter().for_each(|one| one.foresee(&providers));
        all.is_empty() || self.take(plugins().collect()).is_none()
    }

    /// Takes plugins if they go with those that are there; else says what clashes.
    fn take(&mut self, plugins: Vec<&'static Plugin>) -> Option<String> {
        let all = self.registry.plugins().iter().copied().chain(plugins).collect();
        match Registry::new(all, tree::RESERVED_FLAGS) {
            Err(error) => Some(error.to_string()),
            Ok(registry) => match clash(&registry) {
                Some(reason) => Some(reason),
                None => {
                    self.registry = Box::leak(Box::new(registry));
                    None
                }
            },
        }
    }

    /// Makes the row of one file, and takes its plugins if they go with those that are there.
    /// `taken` says that they are among those already.
    fn add(&mut self, pin: &Pin, carried: &[Carried], rules: &Plugins, taken: bool) -> Row {
        let (carried, refused): (Vec<_>, Vec<_>) =
            carried.iter().partition(|one| refusal(rules, one.plugin().id).is_none());
        let mut refused = refused.iter().filter_map(|one| refusal(rules, one.plugin().id));
        if carried.is_empty()
            && let Some(problem) = refused.next()
        {
            return row(pin, Some(problem));
        }
        let clashing = |reason: String| Problem {
            reason,
            hint: "only one of the two can be used; `moltbot plugins untrust` takes one off"
                .to_string(),
        };
        let own = || carried.iter().map(|one| one.plugin()).collect();
        let clash = if taken { None } else { self.take(own()) };
        let mut row = row(pin, clash.map(clashing));
        // Its settings are read later; what is wrong with them belongs to this row.
        carried.iter().flat_map(|one| one.plugin().auth).for_each(|method| drop(method.settings()));
        row.complaints = carried.iter().flat_map(|one| one.complaints()).collect();
        row.complaints.extend(refused.map(|problem| problem.reason));
        if row.problem.is_none() {
            row.plugins = own();
        }
        row
    }
}

/// Says which rule of the config keeps a plugin from outside from running, if one does: `deny`
/// beats `allow`, and an `allow` that is not empty names all that run (spec P-3).
fn refusal(rules: &Plugins, id: &str) -> Option<Problem> {
    let named = |list: &[String]| list.iter().any(|name| name == id);
    let (reason, hint) = if named(&rules.deny) {
        (format!("plugins.deny names {id}"), "take it out of plugins.deny".to_string())
    } else if !rules.allow.is_empty() && !named(&rules.allow) {
        (format!("plugins.allow does not name {id}"), "add it to plugins.allow".to_string())
    } else if rules.entries.get(id).is_some_and(|entry| entry.enabled == Some(false)) {
        let reason = format!("plugins.entries.{id}.enabled is false");
        (reason, format!("moltbot config set plugins.entries.{id}.enabled true"))
    } else {
        return None;
    };
    Some(Problem { reason, hint })
}

/// Returns the config's word for a kind.
pub(crate) fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Library => "library",
        Kind::Process => "process",
    }
}

fn row(pin: &Pin, problem: Option<Problem>) -> Row {
    let (path, kind) = (pin.path.clone(), word(pin.kind));
    let carried = Arc::default();
    Row { path, kind, plugins: Vec::new(), problem, complaints: Vec::new(), carried }
}

/// Reads the list of the config.
pub(super) fn pins(plugins: &Plugins, home: &Path) -> Vec<Pin> {
    plugins.trusted.iter().map(|it| pin(it, home)).collect()
}

/// Reads one entry of the config.
pub(super) fn pin(trusted: &TrustedPlugin, home: &Path) -> Pin {
    let kind = match trusted.kind {
        PluginKind::Library => Kind::Library,
        // What is not named a library is never loaded into this process.
        _ => Kind::Process,
    };
    let path = located(trusted, home);
    let allow_abort = trusted.allow_abort.unwrap_or(false);
    Pin { path, sha256: trusted.sha256.as_str().to_string(), kind, allow_abort }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spec P-3.
    #[test]
    fn the_config_says_which_plugins_run() {
        let rules = |text: &str| -> Plugins { serde_json::from_str(text).unwrap() };
        let refused = |text: &str| refusal(&rules(text), "acme").map(|problem| problem.reason);
        assert_eq!(refused("{}"), None);
        assert_eq!(refused(r#"{"allow":["acme"]}"#), None);
        assert_eq!(refused(r#"{"entries":{"acme":{"enabled":true}}}"#), None);
        for (text, reason) in [
            (r#"{"deny":["acme"],"allow":["acme"]}"#, "plugins.deny names acme"),
            (r#"{"allow":["other"]}"#, "plugins.allow does not name acme"),
            (r#"{"entries":{"acme":{"enabled":false}}}"#, "plugins.entries.acme.enabled is false"),
        ] {
            assert_eq!(refused(text).as_deref(), Some(reason));
        }
    }
}
