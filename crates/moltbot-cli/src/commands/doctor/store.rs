//! The doctor's look at the stores: file modes, imports, profile ids, cooldowns, ends, and what
//! the auth methods themselves have to say.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use moltbot_config::{AgentId, KeyPath};
use moltbot_core::{CredentialKind, Level, OfferEntry};
use moltbot_gateway::{AgentPaths, Engine};
use moltbot_profiles::{
    BlockKind, Health, Profiles, Unusable, health, remaining_text, suggested_sibling,
};

use super::{Doctor, leftovers};
use crate::commands::agents;
use crate::commands::credentials::prune;
use crate::out::clean;
use crate::{Context, Failure};

/// Checks the stores of all agents.
pub(super) fn check(cx: &mut Context, doctor: &mut Doctor) -> Result<(), Failure> {
    let ids = agents::ids(&*cx.config()?);
    for id in ids {
        let config = cx.config()?;
        let agent = cx.agent_paths(&config, &id);
        let closed = modes(cx, doctor, &agent)?;
        leftovers::check(cx, doctor, &id, &agent)?;
        one(cx, doctor, &id, &agent, closed)?;
    }
    Ok(())
}

fn one(
    cx: &mut Context,
    doctor: &mut Doctor,
    id: &AgentId,
    agent: &AgentPaths,
    closed: bool,
) -> Result<(), Failure> {
    let store = cx.store(agent);
    let loaded = match store.load_blocking() {
        Ok(loaded) => loaded,
        Err(error) => {
            doctor.problem(cx, &clean(&error.to_string()), None);
            return Ok(());
        }
    };
    // The store's own notes are about modes, of which more was said already.
    for note in loaded.notes.iter().filter(|_| closed || !loaded.exists) {
        doctor.warning(cx, note);
    }
    for problem in loaded.profiles.problems() {
        let text = format!("agent {id}: {} is not used: {}", problem.place, problem.reason);
        doctor.warning(cx, &clean(&text));
    }
    if !loaded.imported.is_empty() {
        let names = loaded.imported.join(", ");
        if doctor.fix {
            store.import_blocking(cx.now())?;
            doctor.repaired(cx, &format!("imported old credentials of agent {id}: {names}"));
        } else {
            doctor.repairable(cx, &format!("old credentials of agent {id} wait: {names}"));
        }
    }
    let engine = cx.engine(agent)?;
    // A login that a program keeps is not stored; there is something to check all the same.
    let kept = |entry: &&OfferEntry| {
        let of_program = entry.offer.kind == CredentialKind::None;
        of_program && (engine.is_used(&entry.provider.id) || engine.is_offered(entry.offer))
    };
    let kept: Vec<OfferEntry> = cx.registry.offers().iter().filter(kept).copied().collect();
    if loaded.profiles.is_empty() && kept.is_empty() {
        return Ok(());
    }
    for entry in kept {
        shadowing(cx, doctor, &engine, &entry)?;
    }
    rename(cx, doctor, &engine, &loaded.profiles)?;
    copies(cx, doctor, id, &engine)?;
    leftovers::duplicates(cx, doctor, agent, &engine)?;
    for row in loaded.profiles.unusable(cx.now()) {
        cx.out.line(cooldown(&row));
    }
    ends(cx, doctor, agent, &engine)?;
    let findings = cx.block_on(engine.doctor())??;
    for finding in findings.into_iter().flat_map(|(_, findings)| findings) {
        let text = clean(&finding.text).into_owned();
        let fix = finding.fix.as_deref().map(|fix| clean(fix).into_owned());
        match finding.level {
            Level::Error => doctor.problem(cx, &text, fix.as_deref()),
            Level::Warning => {
                let fix = fix.map(|fix| format!("; {fix}")).unwrap_or_default();
                doctor.warning(cx, &format!("{text}{fix}"));
            }
            Level::Info => {
                let fix = fix.map(|fix| format!("; {fix}")).unwrap_or_default();
                doctor.info(cx, &format!("{text}{fix}"));
            }
        }
    }
    Ok(())
}

/// Closes what others could read (spec A-1): the store is the owner's alone. Returns whether it
/// is closed now.
fn modes(cx: &mut Context, doctor: &mut Doctor, agent: &AgentPaths) -> Result<bool, Failure> {
    let mut closed = true;
    for (path, wanted) in [(&agent.dir, 0o700), (&agent.store, 0o600)] {
        let Ok(data) = fs::metadata(path) else { continue };
        let found = data.permissions().mode() & 0o777;
        if found & 0o077 == 0 {
            continue;
        }
        let shown = cx.shown(path);
        if !doctor.fix {
            doctor.repairable(cx, &format!("{shown} is open to others (mode {found:03o})"));
            closed = false;
            continue;
        }
        close(path, wanted)?;
        doctor.repaired(cx, &format!("closed {shown} (mode {found:03o} → {wanted:03o})"));
    }
    Ok(closed)
}

fn close(path: &Path, mode: u32) -> Result<(), Failure> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|error| Failure::new(format!("{} cannot be closed: {error}", path.display())))
}

/// Renames a config entry whose login is stored under a better id (spec S-20).
fn rename(
    cx: &mut Context,
    doctor: &mut Doctor,
    engine: &Engine,
    profiles: &Profiles,
) -> Result<(), Failure> {
    let rules = engine.rules();
    let config = cx.config()?;
    let listed = config.auth.as_ref().map(|auth| &auth.profiles);
    let renames: Vec<(String, String)> = listed
        .into_iter()
        .flatten()
        .filter(|(id, _)| profiles.get(id).is_none())
        .filter_map(|(id, _)| Some((id.clone(), suggested_sibling(profiles, rules, id)?)))
        .collect();
    for (old, new) in renames {
        let text = format!("Auth: migrate {old} → {new} (OAuth profile id)");
        if !doctor.fix {
            doctor.repairable(cx, &text);
            continue;
        }
        cx.edit(|editor| {
            let all = KeyPath::keys(["auth", "profiles"]);
            if let Some(entry) = editor.get(&all.key(old.as_str())) {
                if editor.get(&all.key(new.as_str())).is_none() {
                    editor.set(&all.key(new.as_str()), &entry)?;
                }
                editor.unset(&all.key(old.as_str()))?;
            }
            let orders = KeyPath::keys(["auth", "order"]);
            let listed = editor.get(&orders).and_then(|orders| orders.as_object().cloned());
            for (provider, ids) in listed.into_iter().flatten() {
                for (at, _) in ids
                    .as_array()
                    .into_iter()
                    .flatten()
                    .enumerate()
                    .filter(|(_, id)| id.as_str() == Some(&old))
                {
                    let place = orders.key(provider.as_str()).index(at);
                    editor.set(&place, &serde_json::json!(new))?;
                }
            }
            Ok(())
        })?;
        doctor.repaired(cx, &text);
    }
    Ok(())
}

/// Names the variables that would beat the login which a program keeps, if it ever saw them.
fn shadowing(
    cx: &mut Context,
    doctor: &mut Doctor,
    engine: &Engine,
    entry: &OfferEntry,
) -> Result<(), Failure> {
    let env = cx.env()?;
    let set: Vec<&str> = entry
        .provider
        .ignored_env
        .iter()
        .map(AsRef::as_ref)
        .filter(|n| env.get(n).is_some())
        .collect();
    if set.is_empty() || !engine.is_used(&entry.provider.id) {
        return Ok(());
    }
    let program = entry.offer.needs.programs.first().map_or("", AsRef::as_ref);
    let text = format!(
        "{} in the environment would beat the login of {program}; moltbot keeps it from {program}, \
         but in your shell it counts: type `unset {}` before you start {program} there",
        set.join(", "),
        set.join(" "),
    );
    doctor.warning(cx, &clean(&text));
    Ok(())
}

fn cooldown(row: &Unusable) -> String {
    let left = remaining_text(Some(row.remaining_ms));
    let id = clean(&row.profile_id);
    let models = match row.models.is_empty() {
        true => String::new(),
        false => format!(" for {}", row.models.join(", ")),
    };
    match row.kind {
        BlockKind::Cooldown => {
            format!("- {id}: cooldown ({left}){models} — Wait for cooldown or switch provider.")
        }
        BlockKind::Disabled => {
            let reason = row.reason.as_deref().map(|r| format!(":{r}")).unwrap_or_default();
            format!(
                "- {id}: disabled{reason} ({left}){models} — Top up credits (provider billing) or \
                 switch provider."
            )
        }
        BlockKind::Empty => {
            let limit = row.reason.as_deref().unwrap_or("a limit");
            format!("- {id}: {limit} is used up ({left}){models} — Wait or switch provider.")
        }
    }
}

/// Puts links in the place of copies of logins that other programs own (decision 5).
fn copies(
    cx: &mut Context,
    doctor: &mut Doctor,
    id: &AgentId,
    engine: &Engine,
) -> Result<(), Failure> {
    if doctor.fix {
        for copy in cx.block_on(engine.relink())?? {
            doctor.repaired(cx, &clean(&format!("{copy} is a link to its owner's login now")));
        }
        return Ok(());
    }
    for copy in cx.block_on(engine.copies())?? {
        let text = format!(
            "agent {id}: {copy} is a copy of a login that another program owns, and that one is \
             at least as new; it should be a link"
        );
        doctor.repairable(cx, &clean(&text));
    }
    Ok(())
}

/// Tells which logins and tokens end soon or have ended; renews or removes the latter.
fn ends(
    cx: &mut Context,
    doctor: &mut Doctor,
    agent: &AgentPaths,
    engine: &Engine,
) -> Result<(), Failure> {
    let views = cx.block_on(engine.resolve_profiles(None))??;
    let now = cx.now();
    for view in &views {
        let id = clean(&view.id).into_owned();
        if let Some(why) = &view.missing_plugin {
            let why = clean(why);
            doctor.problem(cx, &why, Some("`moltbot plugins list` shows what is there"));
            continue;
        }
        if !matches!(view.state.kind, CredentialKind::Oauth | CredentialKind::Token) {
            continue;
        }
        let left = view.state.expires.map(|at| at.since(now));
        match health(&view.state, now) {
            Health::Expiring => {
                let mend = match view.state.refreshable {
                    true => format!("`moltbot models auth refresh --profile {id}` renews it"),
                    false => "log in again: `moltbot models auth add`".to_string(),
                };
                let left = remaining_text(left);
                doctor.warning(cx, &format!("{id} expires in {left}; {mend}"));
            }
            Health::Expired if view.state.refreshable && (!doctor.fix || view.stored.is_link()) => {
                doctor.info(cx, &format!("{id} is expired; its next use renews it"));
            }
            Health::Expired if view.state.refreshable => {
                match cx.block_on(engine.refresh(&view.id, false))? {
                    Ok(_) => doctor.repaired(cx, &format!("renewed {id}, which had expired")),
                    Err(error) => {
                        let cause = clean(&error.message).into_owned();
                        doctor.problem(cx, &format!("{id} is expired"), Some(&cause));
                    }
                }
            }
            Health::Expired if prune::useless(view).is_some() => {
                let text = format!("{id} has expired and cannot be renewed");
                if !doctor.fix {
                    doctor.repairable(cx, &text);
                } else if !prune::remove_seen(cx, agent, &views, vec![view.id.clone()])?.is_empty()
                {
                    let undo = "`moltbot models auth undo` brings it back for 7 days";
                    doctor.repaired(cx, &format!("removed {id}, which had expired; {undo}"));
                }
            }
            Health::Expired => {
                let fix = "Log in again: `moltbot onboard`";
                doctor.problem(cx, &format!("{id} is expired"), Some(fix));
            }
            // Why it is missing is the method's own finding.
            Health::Missing | Health::Ok | Health::Static => {}
        }
    }
    Ok(())
}
