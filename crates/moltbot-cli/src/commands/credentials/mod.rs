//! `models auth refresh|log|print|undo|remove|rename|prune`: what is done to credentials after a login.

mod log;
mod print;
pub(crate) mod prune;
mod refresh;
mod remove;
mod rename;
mod undo;

use clap::{ArgMatches, Command};
use moltbot_config::{AuthMode, ProfileRecord};
use moltbot_core::{Credential, Registry};
use moltbot_gateway::{AgentPaths, offer_of};
use moltbot_profiles::Profiles;

use crate::commands::agents;
use crate::out::clean;
use crate::{Context, Failure, Outcome, why};

/// Describes the commands.
pub(crate) fn commands(registry: &Registry) -> Vec<Command> {
    vec![
        refresh::command(registry),
        log::command(registry),
        print::command(registry),
        undo::command(registry),
        remove::command(registry),
        rename::command(registry),
        prune::command(registry),
    ]
}

/// Runs a command if it is one of these.
pub(crate) fn run(cx: &mut Context, name: &str, args: &ArgMatches) -> Option<Outcome> {
    Some(match name {
        "refresh" => refresh::run(cx, args),
        "log" => log::run(cx, args),
        "print" => print::run(cx, args),
        "undo" => undo::run(cx, args),
        "remove" => remove::run(cx, args),
        "rename" => rename::run(cx, args),
        "prune" => prune::run(cx, args),
        _ => return None,
    })
}

/// Makes the failure of a profile that is not there, with the one that may have been meant.
fn unknown(profiles: &Profiles, agent: &AgentPaths, id: &str) -> Failure {
    super::unknown_profile(agent, profiles, id)
}

/// Tells whether an agent other than this one stores a profile; the config's entry serves both.
fn others_store(cx: &mut Context, agent: &AgentPaths, id: &str) -> Result<bool, Failure> {
    let config = cx.config()?;
    for other in agents::ids(&config) {
        let paths = cx.agent_paths(&config, &other);
        if paths.store != agent.store
            && let Ok(loaded) = cx.store(&paths).load_blocking()
            && (loaded.profiles.contains(id) || loaded.profiles.is_kept_only(id))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes profiles out of the config that no agent stores any more.
fn forget(cx: &mut Context, agent: &AgentPaths, ids: &[String]) -> Result<(), Failure> {
    let mut gone = Vec::new();
    for id in ids {
        if is_configured(cx, id)? && !others_store(cx, agent, id)? {
            gone.push(id.clone());
        }
    }
    if gone.is_empty() {
        return Ok(());
    }
    cx.edit(|editor| {
        for id in &gone {
            editor.forget_profile(id)?;
        }
        Ok(())
    })
}

/// Records profiles in the config that are not there.
fn record(cx: &mut Context, profiles: &Profiles, ids: &[String]) -> Result<(), Failure> {
    let mut records: Vec<(&str, &Credential, AuthMode)> = Vec::new();
    for id in ids {
        if let Some(stored) = profiles.get(id)
            && !is_configured(cx, id)?
        {
            let offer = offer_of(cx.registry, id, stored).ok().flatten();
            let mode = match offer.map_or(stored.kind.as_str(), |entry| &entry.offer.mode) {
                "oauth" => AuthMode::Oauth,
                "token" => AuthMode::Token,
                _ => AuthMode::ApiKey,
            };
            records.push((id, stored, mode));
        }
    }
    if records.is_empty() {
        return Ok(());
    }
    cx.edit(|editor| {
        for (id, stored, mode) in records {
            let (provider, email) = (stored.provider.as_str(), stored.email.as_deref());
            editor.record_profile(&ProfileRecord { id, provider, mode, email })?;
        }
        Ok(())
    })
}

fn is_configured(cx: &mut Context, id: &str) -> Result<bool, Failure> {
    let config = cx.config()?;
    let Some(auth) = &config.auth else { return Ok(false) };
    let ordered = auth.order.values().flatten().any(|listed| listed == id);
    Ok(ordered || auth.profiles.contains_key(id))
}

/// Says which credential the agent's next request would use.
fn say_next(cx: &mut Context, agent: &AgentPaths) -> Result<(), Failure> {
    let engine = cx.engine(agent)?;
    // Copies of other programs' logins become links with the next write; what fails stays a copy.
    let _ = cx.block_on(engine.relink())?;
    if let Ok(record) = cx.block_on_cancel(engine.explain(None, None))? {
        let text = match why::first(&record) {
            Some((model, credential)) => {
                let why = why::reason(&record, None);
                format!("Next request: {} with {}{why}", model.model, credential.source)
            }
            None => "Next request: no credential is usable".to_string(),
        };
        cx.out.note(clean(&text));
    }
    Ok(())
}
