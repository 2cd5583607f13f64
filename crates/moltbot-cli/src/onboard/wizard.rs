//! Onboarding with a person at the terminal.

use std::io;

use clap::ArgMatches;
use moltbot_core::{OfferEntry, Payer};
use moltbot_gateway::AgentPaths;

use super::flags::Flags;
use super::{Plan, headless, settings};
use crate::front::Answers;
use crate::login::{announce, env_answers, obtain};
use crate::prompt::{self, Choice};
use crate::{Context, Exit, Failure, Outcome};

/// Runs it: asks everything, then writes everything.
pub(super) fn run(cx: &mut Context, args: &ArgMatches, flags: &Flags) -> Outcome {
    let agent = cx.agent(args)?;
    let _quiet = quiet(cx)?;
    prompt::intro("moltbot").map_err(stopped)?;
    prompt::note(
        "Before you start",
        "An agent acts with the rights of the account that runs it.\n\
         Credentials are kept on this machine, per agent, readable by you alone.",
    )
    .map_err(stopped)?;
    if !flags.accept_risk && !prompt::confirm("Go on?", true).map_err(stopped)? {
        return Err(Failure::cancelled());
    }

    let entry = choose_offer(cx, &agent, true)?;
    let login = match entry {
        Some(entry) => {
            let env = env_answers(cx, &entry)?;
            let answers = Answers { env, ask: true, ..Answers::default() };
            Some((entry, obtain(cx, &agent, &entry, None, answers)?))
        }
        None => None,
    };
    let model = match &flags.model {
        Some(model) => Some(headless::known_model(cx, &agent, model)?),
        None => entry.map(|entry| choose_model(cx, &agent, &entry)).transpose()?.flatten(),
    };
    let gateway =
        settings::gateway(&flags.gateway, &headless::gateway_config(cx)?, headless::random()?)?;
    let (reset, workspace) = (flags.reset, flags.workspace.as_deref());
    let hint = headless::try_it(login.as_ref(), model.as_deref());
    let (kept, _) = Plan { agent: &agent, login, model, workspace, gateway, reset }.write(cx)?;
    prompt::outro("Ready").map_err(stopped)?;
    if let Some(kept) = &kept {
        announce(cx, &agent, kept)?;
    }
    cx.out.hint(hint);
    Ok(Exit::OK)
}

/// Keeps everything typed off the screen for the rest of the command. Ctrl-C is caught from here
/// on, so that it never ends the program with the terminal left silent.
pub(crate) fn quiet(cx: &mut Context) -> Result<prompt::Quiet, Failure> {
    cx.block_on_cancel(std::future::ready(()))?;
    Ok(prompt::Quiet::start())
}

/// Lets a person choose a way to authenticate; `None` is "later".
pub(crate) fn choose_offer(
    cx: &mut Context,
    agent: &AgentPaths,
    may_skip: bool,
) -> Result<Option<OfferEntry>, Failure> {
    let registry = cx.registry;
    let mut offers: Vec<OfferEntry> = registry.offers().to_vec();
    let engine = cx.engine(agent)?;
    offers.retain(|entry| engine.is_offered(entry.offer));
    offers.sort_by_key(|entry| {
        (entry.provider.id.clone(), !entry.offer.caps.recommended, entry.offer.choice.clone())
    });
    let several = registry.providers().len() > 1;
    let mut choices: Vec<Choice<Option<usize>>> = offers
        .iter()
        .enumerate()
        .map(|(at, entry)| Choice {
            value: Some(at),
            label: line(entry, several),
            hint: entry.offer.hint.to_string(),
        })
        .collect();
    if choices.is_empty() {
        return Err(Failure::new("This build has no way to authenticate").code("plugin-missing"));
    }
    if may_skip {
        choices.push(Choice { value: None, label: "Skip for now".into(), hint: String::new() });
    }
    let chosen =
        prompt::select("How do you want to authenticate?", &choices, None).map_err(stopped)?;
    let Some(entry) = chosen.map(|at| offers[at]) else { return Ok(None) };
    if let Some(policy) = &entry.offer.policy {
        let text = format!("{}\n{} (checked {})", policy.line, policy.source, policy.checked);
        prompt::note("What the vendor says", &text).map_err(stopped)?;
    }
    Ok(Some(entry))
}

fn line(entry: &OfferEntry, several: bool) -> String {
    let mut line = match several {
        true => format!("{}: {}", entry.provider.label, entry.offer.label),
        false => entry.offer.label.to_string(),
    };
    if entry.offer.caps.recommended {
        line.push_str(" (recommended)");
    }
    line
}

/// Lets a person choose the default model; `None` keeps what the config says.
pub(super) fn choose_model(
    cx: &mut Context,
    agent: &AgentPaths,
    entry: &OfferEntry,
) -> Result<Option<String>, Failure> {
    let engine = cx.engine(agent)?;
    let current = engine.models().primary().model.to_string();
    let info = entry.provider;
    let plan = entry.offer.payer == Payer::Subscription;
    let mut choices =
        vec![Choice { value: None, label: format!("Keep {current}"), hint: String::new() }];
    for model in info.catalog.iter().filter(|model| !plan || model.subscription) {
        let mut hint = match model.price.is_known() {
            true => format!("${}/${} per million tokens", model.price.input, model.price.output),
            false => String::new(),
        };
        if let Some(retires) = &model.retires {
            hint.push_str(&format!(", retires {retires}"));
        }
        choices.push(Choice {
            value: Some(format!("{}/{}", info.id, model.id)),
            label: format!("{} ({})", model.name, model.id),
            hint,
        });
    }
    let recommended = Some(format!("{}/{}", info.id, info.recommended_model));
    prompt::select("Which model by default?", &choices, Some(&recommended)).map_err(stopped)
}

/// Turns Ctrl-C at a prompt into exit code 130.
pub(crate) fn stopped(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::Interrupted => Failure::cancelled(),
        _ => Failure::new(format!("the terminal failed: {error}")),
    }
}
