//! `moltbot models auth`: obtains credentials. The verbs come from the plugins' offers.

use clap::{Arg, ArgAction, ArgMatches, Command};
use moltbot_core::{OfferEntry, Registry, Verb};

use crate::commands::{agent_arg, credentials, fields};
use crate::front::Answers;
use crate::login::{announce, env_answers, keep, obtain};
use crate::{Context, Exit, Failure, Outcome};

/// Describes the command.
pub(crate) fn command(registry: &Registry) -> Command {
    let mut command = Command::new("auth")
        .about("Add, renew and order credentials")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(
            "Examples:\n  moltbot models auth add\n  moltbot models auth order get --provider <id>",
        )
        .subcommand(
            Command::new("add")
                .about("Choose a way to authenticate and go through it")
                .arg(agent_arg())
                .after_help("Example:\n  moltbot models auth add --agent work"),
        )
        .subcommand(login_command())
        .subcommands(credentials::commands(registry));
    let mut seen: Vec<&str> = Vec::new();
    for (entry, verb) in verbs(registry) {
        if !seen.contains(&verb.name.as_ref()) {
            seen.push(&verb.name);
            command = command.subcommand(verb_command(entry, verb));
        }
    }
    command
}

/// Runs the command.
pub(crate) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    match args.subcommand() {
        Some(("add", args)) => add(cx, args),
        Some(("login", args)) => login(cx, args),
        Some((name, args)) => {
            credentials::run(cx, name, args).unwrap_or_else(|| verb(cx, name, args))
        }
        None => Err(Failure::input("a subcommand is required")),
    }
}

fn login_command() -> Command {
    Command::new("login")
        .about("Log in with a method of a plugin")
        .arg(Arg::new("provider").long("provider").value_name("ID").help("For which provider"))
        .arg(
            Arg::new("method")
                .long("method")
                .value_name("CHOICE")
                .help("Which way to authenticate"),
        )
        .arg(
            Arg::new("set-default")
                .long("set-default")
                .action(ArgAction::SetTrue)
                .help("Make the method's model the default"),
        )
        .arg(agent_arg())
        .after_help("Example:\n  moltbot models auth login --method apiKey")
}

fn verbs(registry: &Registry) -> impl Iterator<Item = (OfferEntry, &'static Verb)> {
    registry.offers().iter().flat_map(|entry| {
        let entry = *entry;
        entry.offer.verbs.iter().map(move |verb| (entry, verb))
    })
}

fn verb_command(entry: OfferEntry, verb: &'static Verb) -> Command {
    let provider: &'static str = entry.provider.id.as_ref();
    let name: &'static str = verb.name.as_ref();
    Command::new(name)
        .about(verb.about.as_ref())
        .arg(
            Arg::new("provider")
                .long("provider")
                .value_name("ID")
                .help("For which provider")
                .default_value(provider),
        )
        .args(fields::args(&verb.fields))
        .arg(agent_arg())
        .after_help(format!("Example:\n  moltbot models auth {name} --provider {provider}"))
}

fn verb(cx: &mut Context, name: &str, args: &ArgMatches) -> Outcome {
    let provider = args.get_one::<String>("provider").expect("has a default").clone();
    let provider = moltbot_profiles::normalize_provider(&provider);
    let mut known: Vec<&str> = Vec::new();
    let mut found = None;
    for (entry, verb) in verbs(cx.registry).filter(|(_, verb)| verb.name == name) {
        known.push(&entry.provider.id);
        if entry.provider.id == provider {
            found = Some((entry, verb));
        }
    }
    let Some((entry, verb)) = found else {
        let known = known.join(", ");
        return Err(Failure::input(format!("Only --provider {known} is supported for {name}")));
    };
    let terminal = cx.out.terminal();
    if verb.terminal && !terminal.interactive() {
        return Err(Failure::new(format!("{name} requires an interactive TTY"))
            .code("not-interactive")
            .hint(other_way(cx, entry, name)));
    }
    // The config must be sound before anybody types a secret.
    cx.config()?;
    let agent = cx.agent(args)?;
    let given = fields::answers(cx, args, &verb.fields)?;
    let wants_secret = verb.fields.iter().any(|field| {
        matches!(field.kind, moltbot_core::FieldKind::Secret {})
            && !given.iter().any(|(id, _)| *id == field.id)
    });
    let piped = match wants_secret && !terminal.stdin {
        true => Some(cx.read_stdin()?).filter(|text| !text.is_blank()),
        false => None,
    };
    let env = env_answers(cx, &entry)?;
    let ask = terminal.interactive();
    let _quiet = if ask { Some(crate::onboard::quiet(cx)?) } else { None };
    let answers = Answers { given, env, piped, ask };
    let login = obtain(cx, &agent, &entry, Some(name), answers)?;
    let kept = keep(cx, &agent, &entry, login)?;
    cx.edit(|editor| kept.record(editor))?;
    announce(cx, &agent, &kept)?;
    Ok(Exit::OK)
}

/// Names a verb of the same method that works without a terminal.
fn other_way(cx: &Context, entry: OfferEntry, name: &str) -> String {
    let other = verbs(cx.registry)
        .find(|(other, verb)| {
            other.provider.id == entry.provider.id && verb.name != name && !verb.terminal
        })
        .map(|(_, verb)| verb.name.as_ref());
    match other {
        Some(other) => format!(
            "without a terminal: moltbot models auth {other} --provider {} < FILE",
            entry.provider.id
        ),
        None => "run it in a terminal".to_string(),
    }
}

fn add(cx: &mut Context, args: &ArgMatches) -> Outcome {
    if !cx.out.terminal().interactive() {
        return Err(Failure::new("models auth add requires an interactive TTY")
            .code("not-interactive")
            .hint("without a terminal: moltbot onboard --auth-choice <choice>"));
    }
    cx.config()?;
    let agent = cx.agent(args)?;
    let _quiet = crate::onboard::quiet(cx)?;
    let Some(entry) = crate::onboard::choose_offer(cx, &agent, false)? else {
        return Ok(Exit::OK);
    };
    through(cx, args, entry).map(|_| Exit::OK)
}

fn login(cx: &mut Context, args: &ArgMatches) -> Outcome {
    if cx.registry.offers().is_empty() {
        return Err(Failure::new(
            "No provider plugins found. Install one via `moltbot plugins install`.",
        ));
    }
    if !cx.out.terminal().interactive() {
        return Err(Failure::new("models auth login requires an interactive TTY.")
            .code("not-interactive")
            .hint("without a terminal: moltbot onboard --auth-choice <choice>"));
    }
    cx.config()?;
    let provider =
        args.get_one::<String>("provider").map(|id| moltbot_profiles::normalize_provider(id));
    let entry = match args.get_one::<String>("method") {
        Some(method) => crate::onboard::offer(cx, method)?,
        None => {
            let agent = cx.agent(args)?;
            match crate::onboard::choose_offer(cx, &agent, false)? {
                Some(entry) => entry,
                None => return Ok(Exit::OK),
            }
        }
    };
    if let Some(provider) = provider.filter(|provider| *provider != entry.provider.id) {
        let message = format!("{} does not serve provider {provider}", entry.offer.choice);
        return Err(Failure::input(message));
    }
    let model = through(cx, args, entry)?;
    if let Some(model) = model {
        if args.get_flag("set-default") {
            crate::onboard::set_model(cx, &model)?;
            cx.out.line(format!("Default model: {model}"));
        } else {
            cx.out.note(format!("Default model available: {model} (use --set-default to apply)"));
        }
    }
    Ok(Exit::OK)
}

/// Goes through one offer and keeps the result; returns the model it suggests.
fn through(
    cx: &mut Context,
    args: &ArgMatches,
    entry: OfferEntry,
) -> Result<Option<String>, Failure> {
    let agent = cx.agent(args)?;
    let env = env_answers(cx, &entry)?;
    let answers = Answers { env, ask: true, ..Answers::default() };
    let login = obtain(cx, &agent, &entry, None, answers)?;
    let model = login.model.clone();
    let kept = keep(cx, &agent, &entry, login)?;
    cx.edit(|editor| kept.record(editor))?;
    announce(cx, &agent, &kept)?;
    Ok(model)
}
