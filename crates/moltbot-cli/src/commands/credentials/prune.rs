//! `models auth prune`: clears away credentials that are of no more use.

use clap::{Arg, ArgAction, ArgMatches, Command};
use moltbot_core::{CredentialState, Registry};
use moltbot_gateway::{AgentPaths, ProfileView};
use moltbot_profiles::Purge;

use super::{forget, say_next};
use crate::commands::agent_arg;
use crate::out::clean;
use crate::{Context, Exit, Failure, Outcome};

pub(super) fn command(_: &Registry) -> Command {
    Command::new("prune")
        .about("Remove profiles that cannot be used any more, and removed secrets after 7 days")
        .arg(
            Arg::new("yes")
                .long("yes")
                .short('y')
                .action(ArgAction::SetTrue)
                .help("Remove the profiles, not only list them"),
        )
        .arg(agent_arg())
        .after_help("Examples:\n  moltbot models auth prune\n  moltbot models auth prune --yes")
}

pub(super) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    cx.config()?;
    let agent = cx.agent(args)?;
    let now = cx.now();
    let store = cx.store(&agent);
    let engine = cx.engine(&agent)?;
    let views = cx.block_on(engine.resolve_profiles(None))??;
    let useless: Vec<(String, &str)> =
        views.iter().filter_map(|view| Some((view.id.clone(), useless(view)?))).collect();
    let erased = store.purge_removed_blocking(now, Purge::Over)?;
    if erased > 0 {
        let word = if erased == 1 { "secret" } else { "secrets" };
        cx.out.line(format!("Erased {erased} {word} removed more than 7 days ago"));
    }
    if useless.is_empty() {
        cx.out.line("Every profile can be used or renewed.");
        return Ok(Exit::OK);
    }
    if !args.get_flag("yes") {
        for (id, why) in &useless {
            cx.out.line(clean(&format!("{id} {why}")));
        }
        cx.out.hint("`moltbot models auth prune --yes` removes them");
        return Ok(Exit::OK);
    }
    let ids: Vec<String> = useless.iter().map(|(id, _)| id.clone()).collect();
    let gone = remove_seen(cx, &agent, &views, ids)?;
    for id in &gone {
        cx.out.line(clean(&format!("Removed {id}")));
    }
    cx.out.note("`moltbot models auth undo` brings them back for 7 days");
    say_next(cx, &agent)?;
    Ok(Exit::OK)
}

/// Removes profiles that are still what was seen, from the store and the config; returns which.
pub(crate) fn remove_seen(
    cx: &mut Context,
    agent: &AgentPaths,
    seen: &[ProfileView],
    ids: Vec<String>,
) -> Result<Vec<String>, Failure> {
    let store = cx.store(agent);
    store.update_blocking(cx.now(), |profiles| {
        for view in seen.iter().filter(|view| ids.contains(&view.id)) {
            // Somebody may have logged in again since it was judged.
            if profiles.get(&view.id) == Some(&view.stored) {
                profiles.remove(&view.id);
            }
        }
    })?;
    let left = store.load_blocking()?.profiles;
    let gone: Vec<String> = ids.into_iter().filter(|id| !left.contains(id)).collect();
    forget(cx, agent, &gone)?;
    Ok(gone)
}

/// Says why a profile is of no more use; a link is its owner's affair.
pub(crate) fn useless(view: &ProfileView) -> Option<&'static str> {
    if view.stored.is_link() || view.missing_plugin.is_some() || view.resolved.is_err() {
        return None;
    }
    match view.state.state {
        CredentialState::Expired if view.stored.refresh.is_none() => {
            Some("has expired and cannot be renewed")
        }
        CredentialState::Absent => Some("holds no secret"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, KEY, TOKEN};
    use serde_json::json;

    #[test]
    fn only_what_is_of_no_use_is_removed_and_only_when_told_to() {
        let bench = Bench::new();
        let store = json!({ "profiles": {
            "acme:default": { "type": "api_key", "provider": "acme", "key": KEY },
            "acme:old": { "type": "token", "provider": "acme", "token": TOKEN, "expires": 5 },
            "acme:login": { "type": "oauth", "provider": "acme", "access": TOKEN, "refresh": "FAKE", "expires": 5 },
            "acme:empty": { "type": "api_key", "provider": "acme" } } });
        bench.store(&store.to_string());
        let before = bench.files();
        let ran = bench.run(&["models", "auth", "prune"]);
        let listed = "acme:old has expired and cannot be renewed\nacme:empty holds no secret\n";
        assert_eq!((ran.code, ran.stdout.as_str()), (0, listed));
        assert_eq!(bench.files(), before, "nothing was removed");
        let ran = bench.run(&["models", "auth", "prune", "--yes"]);
        assert_eq!(ran.stdout, "Removed acme:old\nRemoved acme:empty\n", "{}", ran.stderr);
        let ran = bench.run(&["models", "auth", "prune"]);
        assert_eq!(ran.stdout, "Every profile can be used or renewed.\n");
        let ran = bench.run(&["models", "auth", "undo"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(ran.stdout.contains("Brought back acme:old"), "{}", ran.stdout);
    }
}
