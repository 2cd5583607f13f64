//! Onboarding without a question: flags, environment, what is stored already.

use clap::ArgMatches;
use moltbot_core::{CredentialKind, Login, OfferEntry, Secret, Text};
use moltbot_gateway::AgentPaths;
use serde_json::{Value, json};

use super::flags::{Chosen, Flags};
use super::{Plan, settings};
use crate::front::Answers;
use crate::login::{Kept, announce, env_answers, obtain};
use crate::out::clean;
use crate::{Context, Exit, Failure, Outcome};

/// Runs it.
pub(super) fn run(cx: &mut Context, args: &ArgMatches, flags: &Flags) -> Outcome {
    if flags.remote() {
        return remote(cx, flags);
    }
    let agent = cx.agent(args)?;
    let login = match &flags.choice {
        Some(Chosen::Offer(entry, given)) => {
            if let Some(policy) = &entry.offer.policy
                && entry.offer.kind == CredentialKind::None
            {
                // In a script too: whose plan is used, and under which terms, is never silent.
                cx.out.note(clean(&policy.line));
                let source = format!("{} (checked {})", policy.source, policy.checked);
                cx.out.note(clean(&source));
            }
            Some((*entry, log_in(cx, &agent, entry, given)?))
        }
        Some(Chosen::Skip) | None => None,
    };
    let model = flags.model.as_deref().map(|model| known_model(cx, &agent, model)).transpose()?;
    let gateway = settings::gateway(&flags.gateway, &gateway_config(cx)?, random()?)?;
    let (reset, workspace) = (flags.reset, flags.workspace.as_deref());
    let hint = try_it(login.as_ref(), model.as_deref());
    let (kept, gateway) =
        Plan { agent: &agent, login, model, workspace, gateway, reset }.write(cx)?;
    report(cx, &agent, flags, kept.as_ref(), &gateway, &hint)
}

/// Says what to type next: with a login of another provider's than the default model's, that
/// needs its model's name.
pub(super) fn try_it(login: Option<&(OfferEntry, Login)>, model: Option<&str>) -> String {
    let own = login.filter(|_| model.is_none()).and_then(|(_, login)| login.model.as_ref());
    match own {
        Some(own) => format!("try it: moltbot agent --model {own} -m \"Hello\""),
        None => "try it: moltbot agent -m \"Hello\"".to_string(),
    }
}

fn remote(cx: &mut Context, flags: &Flags) -> Outcome {
    settings::write_remote(cx, flags)?;
    if flags.json {
        let auth = if flags.remote_token.is_some() { "token" } else { "none" };
        cx.out.json(&json!({ "mode": "remote", "remoteUrl": flags.remote_url, "auth": auth }));
    } else {
        cx.out.line("The gateway is remote");
    }
    Ok(Exit::OK)
}

/// Obtains a credential; an API key that nobody gave is taken from the store (spec L-12).
fn log_in(
    cx: &mut Context,
    agent: &AgentPaths,
    entry: &OfferEntry,
    given: &[(Text, Secret)],
) -> Result<Login, Failure> {
    let env = env_answers(cx, entry)?;
    let given = given.to_vec();
    let nothing = given.is_empty() && env.is_empty();
    let answers = Answers { given, env, ..Answers::default() };
    match obtain(cx, agent, entry, None, answers) {
        Err(failure) if nothing && entry.offer.kind == CredentialKind::ApiKey => {
            stored_key(cx, agent, entry)?.ok_or(failure)
        }
        ended => ended,
    }
}

fn stored_key(
    cx: &mut Context,
    agent: &AgentPaths,
    entry: &OfferEntry,
) -> Result<Option<Login>, Failure> {
    let store = cx.store(agent);
    let loaded = store.load_blocking()?;
    let found = loaded
        .profiles
        .of_provider(&entry.provider.id)
        .find(|(_, stored)| stored.kind == CredentialKind::ApiKey && stored.secret().is_some());
    Ok(found.map(|(id, stored)| Login {
        profile: Some(id.to_string()),
        existing: true,
        ..Login::new(stored.clone())
    }))
}

/// Checks `--model` before anything is written.
pub(super) fn known_model(
    cx: &mut Context,
    agent: &AgentPaths,
    raw: &str,
) -> Result<String, Failure> {
    let engine = cx.engine(agent)?;
    let parsed = engine
        .models()
        .parse(raw)
        .map_err(|error| Failure::input(error.to_string()).hint("see moltbot models list --all"))?;
    if engine.models().info(&parsed.model).is_none() {
        let text = format!("{} is not in the catalog; it is used as written", parsed.model);
        cx.out.warn(crate::out::clean(&text));
    }
    Ok(parsed.model.to_string())
}

/// Returns the `gateway` section as it stands.
pub(super) fn gateway_config(cx: &mut Context) -> Result<Value, Failure> {
    Ok(cx.loaded()?.value().get("gateway").cloned().unwrap_or(Value::Null))
}

/// Draws the bytes of a new token.
pub(super) fn random() -> Result<[u8; 24], Failure> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(format!("no random numbers to be had: {error}")))?;
    Ok(bytes)
}

fn report(
    cx: &mut Context,
    agent: &AgentPaths,
    flags: &Flags,
    kept: Option<&Kept>,
    gateway: &settings::Gateway,
    hint: &str,
) -> Outcome {
    let choice = match &flags.choice {
        Some(Chosen::Offer(entry, _)) => entry.offer.choice.as_ref(),
        _ => "skip",
    };
    if flags.json {
        let workspace = cx.loaded()?.value().pointer("/agents/defaults/workspace").cloned();
        cx.out.json(&json!({
            "mode": "local",
            "workspace": workspace,
            "authChoice": choice,
            "gateway": {
                "port": gateway.port,
                "bind": gateway.bind,
                "authMode": gateway.auth,
                "tailscaleMode": gateway.tailscale,
            },
            "installDaemon": flags.install_daemon,
            "daemonRuntime": flags.daemon_runtime,
            "skipSkills": flags.skip_skills,
            "skipHealth": flags.skip_health,
        }));
        return Ok(Exit::OK);
    }
    if let Some(kept) = kept {
        announce(cx, agent, kept)?;
    }
    cx.out.hint(hint);
    Ok(Exit::OK)
}
