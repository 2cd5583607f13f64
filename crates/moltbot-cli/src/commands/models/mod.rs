//! `moltbot models`: which models are configured, and which credentials they would use.

mod aliases;
mod facts;
mod fallbacks;
mod glance;
mod list;
mod probe;
mod report;
mod scan;
mod set;
mod simulate;
mod status;
mod status_text;
mod usage;
mod why;
pub(crate) mod windows;

use clap::{Arg, ArgAction, ArgMatches, Command};
use moltbot_config::ModelSlot;
use moltbot_core::Registry;
use moltbot_gateway::{Engine, ModelError, ModelRef};

use crate::{Context, Failure, Outcome};

use super::{auth, cooldown, order};
pub(crate) use glance::{Glance, deep, glance};

/// A subcommand: its name, and how it is described.
type Subcommand = (&'static str, fn(&Registry) -> Command);

/// Every subcommand, in the order of the help.
const SUBCOMMANDS: &[Subcommand] = &[
    ("status", |_| status::command()),
    ("list", list::command),
    ("set", set::command),
    ("set-image", set::image_command),
    ("aliases", aliases::command),
    ("fallbacks", fallbacks::command),
    ("image-fallbacks", fallbacks::image_command),
    ("scan", scan::command),
    ("auth", |registry| {
        let auth = auth::command(registry);
        auth.subcommand(order::command(registry)).subcommand(cooldown::command(registry))
    }),
    ("why", |_| why::command()),
    ("simulate", |_| simulate::command()),
    ("usage", |_| usage::command()),
];

/// Describes the command.
pub(crate) fn command(registry: &Registry) -> Command {
    bare().subcommands(SUBCOMMANDS.iter().map(|(_, describe)| describe(registry)))
}

/// Describes the command with one subcommand alone, if there is one of that name.
pub(crate) fn twig(registry: &Registry, name: &str) -> Option<Command> {
    let (_, describe) = SUBCOMMANDS.iter().find(|(known, _)| *known == name)?;
    Some(bare().subcommand(describe(registry)))
}

fn bare() -> Command {
    let flag = |id: &'static str, help: &'static str| {
        Arg::new(id).long(id).help(help).action(ArgAction::SetTrue)
    };
    Command::new("models")
        .about("Show and change the models in use and the credentials behind them")
        .args_conflicts_with_subcommands(true)
        .args(status::args())
        .arg(flag("status-json", "The same as `models status --json`").conflicts_with("json"))
        .arg(flag("status-plain", "The same as `models status --plain`"))
        .after_help(
            "Examples:\n  moltbot models\n  moltbot models status --json\n  \
             moltbot models list --all\n  moltbot models set <model>",
        )
}

/// Runs a subcommand; without one, `status`.
pub(crate) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    match args.subcommand() {
        None | Some(("status", _)) => {
            let args = args.subcommand_matches("status").unwrap_or(args);
            status::run(cx, args)
        }
        Some(("list", args)) => list::run(cx, args),
        Some(("set", args)) => set::run(cx, args, ModelSlot::Main),
        Some(("set-image", args)) => set::run(cx, args, ModelSlot::Image),
        Some(("aliases", args)) => aliases::run(cx, args),
        Some(("fallbacks", args)) => fallbacks::run(cx, args, ModelSlot::Main),
        Some(("image-fallbacks", args)) => fallbacks::run(cx, args, ModelSlot::Image),
        Some(("scan", args)) => scan::run(cx, args),
        Some(("why", args)) => why::run(cx, args),
        Some(("simulate", args)) => simulate::run(cx, args),
        Some(("usage", args)) => usage::run(cx, args),
        Some((_, args)) => match args.subcommand() {
            Some(("cooldown", args)) => cooldown::run(cx, args),
            Some(("order", args)) => order::run(cx, args),
            _ => auth::run(cx, args),
        },
    }
}

/// Makes the engine of the default agent, to resolve names with; it does nothing by itself.
fn engine(cx: &mut Context) -> Result<Engine, Failure> {
    let agent = cx.agent_by_id(None)?;
    cx.engine(&agent)
}

/// Resolves a name to a model, and warns where it is probably not meant.
pub(crate) fn resolve(cx: &mut Context, raw: &str) -> Result<ModelRef, Failure> {
    let engine = engine(cx)?;
    let parsed = engine.models().parse(raw)?;
    if let Some(warning) = &parsed.warning {
        cx.out.warn(warning);
    }
    if engine.provider(&parsed.model.provider).is_none() {
        let unknown = ModelError::Unknown { key: parsed.model, why: None };
        return Err(Failure::from(unknown).hint("`moltbot models list --all` shows the models"));
    }
    if engine.models().info(&parsed.model).is_none() {
        cx.out.warn(format!("{} is not in the catalog; it will be sent as it is", parsed.model));
    }
    Ok(parsed.model)
}
