//! The tree of commands, and how a command line is taken apart.

use std::mem::ManuallyDrop;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};
use moltbot_core::Registry;

use crate::{Context, Failure, Outcome, commands};

/// One command: how it is described and who runs it.
struct Entry {
    name: &'static str,
    command: fn(&Registry) -> Command,
    run: fn(&mut Context, &ArgMatches) -> Outcome,
}

/// Every command, in the order of the help.
const ENTRIES: &[Entry] = &[
    entry("onboard", crate::onboard::command, crate::onboard::run),
    entry("agent", commands::agent::command, commands::agent::run),
    entry("chat", commands::chat::command, commands::chat::run),
    entry("models", commands::models::command, commands::models::run),
    entry("gateway", commands::gateway::command, commands::gateway::run),
    entry("agents", commands::agents::command, commands::agents::run),
    entry("config", commands::config::command, commands::config::run),
    entry("configure", crate::onboard::configure::command, crate::onboard::configure::run),
    entry("status", commands::status::command, commands::status::run),
    entry("health", commands::health::command, commands::health::run),
    entry("channels", commands::channels::command, commands::channels::run),
    entry("doctor", commands::doctor::command, commands::doctor::run),
    entry("plugins", commands::plugins::command, commands::plugins::run),
    entry("explain", commands::explain::command, commands::explain::run),
    #[cfg(feature = "lab")]
    entry("lab", commands::lab::command, commands::lab::run),
    entry("completions", commands::completions::command, commands::completions::run),
];

/// The names of all commands.
pub(crate) const NAMES: [&str; ENTRIES.len()] = {
    let mut names = [""; ENTRIES.len()];
    let mut at = 0;
    while at < ENTRIES.len() {
        names[at] = ENTRIES[at].name;
        at += 1;
    }
    names
};

/// Long flags that no plugin may claim: those of the commands that plugins add flags to.
pub(crate) const RESERVED_FLAGS: &[&str] = &[
    "accept-risk",
    "agent",
    "auth-choice",
    "daemon-runtime",
    "dev",
    "flow",
    "gateway-auth",
    "gateway-bind",
    "gateway-password",
    "gateway-port",
    "gateway-token",
    "help",
    "install-daemon",
    "json",
    "lab",
    "method",
    "mode",
    "model",
    "no-color",
    "no-install-daemon",
    "node-manager",
    "non-interactive",
    "profile",
    "provider",
    "remote-token",
    "remote-url",
    "reset",
    "set-default",
    "skip-channels",
    "skip-daemon",
    "skip-health",
    "skip-skills",
    "skip-ui",
    "tailscale",
    "tailscale-reset-on-exit",
    "version",
    "workspace",
    "yes",
];

const fn entry(
    name: &'static str,
    command: fn(&Registry) -> Command,
    run: fn(&mut Context, &ArgMatches) -> Outcome,
) -> Entry {
    Entry { name, command, run }
}

/// Builds the whole tree, as help and completions need it.
pub(crate) fn command(registry: &Registry) -> Command {
    root().subcommands(ENTRIES.iter().map(|entry| (entry.command)(registry)))
}

/// Builds only the branch that a command line leads into, which is all that running it needs.
fn branch(registry: &Registry, args: &[String]) -> Command {
    let name = args.iter().find(|arg| !arg.starts_with('-'));
    match ENTRIES.iter().find(|entry| Some(entry.name) == name.map(String::as_str)) {
        Some(entry) => root().subcommand((entry.command)(registry)),
        None => command(registry),
    }
}

/// Builds one twig of the largest branch, if the command line begins with its two words: most of
/// what the shortest commands did was to build its neighbours and to take them apart again. What
/// is wrong with a command line is said by the whole branch.
fn twig(registry: &Registry, args: &[String]) -> Option<Command> {
    let (first, second) = (args.first()?, args.get(1)?);
    let models = commands::models::twig(registry, second).filter(|_| first == "models")?;
    Some(root().subcommand(models))
}

fn root() -> Command {
    let global = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    Command::new("moltbot")
        .about("Hold model credentials per agent and pick the right one for every request")
        .disable_version_flag(true)
        .disable_help_subcommand(false)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .arg(global("dev").help("Use the profile `dev`: its own state directory and port 19001"))
        .arg(
            Arg::new("profile")
                .long("profile")
                .value_name("NAME")
                .help("Use a state directory of that name"),
        )
        .arg(global("no-color").help("Print without colours"))
        .arg(global("version").short('V').help("Print the version"))
        .after_help(
            "Examples:\n  moltbot models status\n  moltbot models set <model>\n  \
             moltbot config get agents.defaults.model\n  moltbot doctor --fix",
        )
}

/// What a command line asks for.
pub(crate) enum Parsed {
    /// To run a command.
    Run(ArgMatches),
    /// To show a help page.
    Help(String),
}

/// Takes a command line apart, the global flags being gone already.
pub(crate) fn parse(registry: &Registry, args: &[String], color: bool) -> Result<Parsed, Failure> {
    let words = || std::iter::once("moltbot").chain(args.iter().map(String::as_str));
    // Trees are not taken apart: the process ends soon, and that takes as long as building them.
    let matches = |command: Command| ManuallyDrop::new(command).try_get_matches_from_mut(words());
    if let Some(Ok(matched)) = twig(registry, args).map(matches) {
        return Ok(Parsed::Run(matched));
    }
    match matches(branch(registry, args)) {
        Ok(matches) => Ok(Parsed::Run(matches)),
        Err(error) => {
            let shown = error.render();
            let shown = if color { shown.ansi().to_string() } else { shown.to_string() };
            match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Parsed::Help(shown)),
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                    Err(Failure::new(shown.trim_end()).verbatim())
                }
                _ => Err(rejected(&error.render().to_string())),
            }
        }
    }
}

/// Runs the command that was parsed.
pub(crate) fn run(cx: &mut Context, matches: &ArgMatches) -> Outcome {
    let (name, args) = matches.subcommand().expect("clap requires a subcommand");
    let entry = ENTRIES.iter().find(|entry| entry.name == name).expect("clap knows only these");
    (entry.run)(cx, args)
}

/// Rewrites a complaint of `clap` in our form: exit code 1, whatever it is.
fn rejected(shown: &str) -> Failure {
    let text = shown.trim_end();
    Failure::input(text.strip_prefix("error: ").unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;

    fn walk(command: &Command, path: &str, visit: &mut dyn FnMut(&Command, &str)) {
        visit(command, path);
        for child in command.get_subcommands().filter(|child| child.get_name() != "help") {
            walk(child, &format!("{path} {}", child.get_name()), visit);
        }
    }

    #[test]
    fn the_tree_is_sound() {
        command(Bench::new().registry).debug_assert();
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        let mut seen = 0;
        walk(&command(Bench::new().registry), "moltbot", &mut |command, path| {
            seen += 1;
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.is_empty() && !about.ends_with('.'), "{path}: \"{about}\"");
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                (after.starts_with("Example") || after.contains("\nExample"))
                    && after.contains("  moltbot"),
                "{path}"
            );
        });
        assert!(seen > 30, "{seen}");
    }

    #[test]
    fn every_argument_is_explained() {
        walk(&command(Bench::new().registry), "moltbot", &mut |command, path| {
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                let silent = arg.get_help().is_none() && arg.get_possible_values().is_empty();
                assert!(!silent, "{path} {}", arg.get_id());
            }
        });
    }

    /// Returns the words of a command and what its own arguments are.
    fn leaf(matches: &ArgMatches) -> (Vec<&str>, String) {
        let (mut words, mut at) = (Vec::new(), matches);
        while let Some((name, inner)) = at.subcommand() {
            words.push(name);
            at = inner;
        }
        (words, format!("{at:?}"))
    }

    #[test]
    fn a_twig_reads_what_the_whole_tree_reads() {
        let registry = Bench::new().registry;
        for line in [
            "models status --json --agent a",
            "models list --all",
            "models why --last 3",
            "models scan --json",
            "models auth order get --provider acme",
            "models cooldown",
            "models status --bogus",
            "models status --help",
            "models --json status",
            "models sttaus",
            "models help status",
        ] {
            let args: Vec<String> = line.split(' ').map(String::from).collect();
            let words = || std::iter::once("moltbot").chain(line.split(' '));
            let whole = command(registry).try_get_matches_from(words());
            match (parse(registry, &args, false), whole) {
                (Ok(Parsed::Run(twig)), Ok(whole)) => {
                    assert_eq!(leaf(&twig), leaf(&whole), "{line}");
                }
                (Ok(Parsed::Help(shown)), Err(error)) => assert_eq!(shown, error.to_string()),
                (Err(failure), Err(error)) => {
                    assert!(error.to_string().contains(&failure.message), "{line}");
                }
                _ => panic!("{line}: one reads it, the other does not"),
            }
        }
    }

    #[test]
    fn complaints_exit_with_one() {
        let bench = Bench::new();
        for line in [&["models", "--bogus"][..], &["bogus"], &["--bogus"], &["config", "get"]] {
            let ran = bench.run(line);
            assert_eq!(ran.code, 1, "{line:?}");
            assert!(ran.stderr.starts_with("Error: "), "{line:?}: {}", ran.stderr);
            assert_eq!(ran.stdout, "");
        }
    }

    #[test]
    fn help_goes_to_stdout_and_no_arguments_to_stderr() {
        let bench = Bench::new();
        let help = bench.run(&["--help"]);
        assert_eq!((help.code, help.stderr.as_str()), (0, ""));
        assert!(help.stdout.contains("Usage: moltbot") && !help.stdout.contains('\u{1b}'));
        let nothing = bench.run(&[]);
        assert_eq!((nothing.code, nothing.stdout.as_str()), (1, ""));
        assert!(nothing.stderr.contains("Usage: moltbot"));
        assert_eq!(bench.run(&["help", "models"]).code, 0);
    }

    #[test]
    fn a_secret_that_stands_in_the_wrong_place_is_not_repeated() {
        let ran = Bench::new().run(&["models", "sk-ant-api03-FAKEFAKEFAKE"]);
        assert_eq!(ran.code, 1);
        assert!(!ran.stderr.contains("FAKE"), "{}", ran.stderr);
    }
}
