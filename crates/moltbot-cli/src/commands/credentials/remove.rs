//! `models auth remove`: takes a profile out of the store and the config.

use clap::{Arg, ArgAction, ArgMatches, Command};
use moltbot_core::Registry;
use moltbot_profiles::Cause;

use super::{forget, say_next, unknown};
use crate::commands::{agent_arg, usual_provider};
use crate::out::clean;
use crate::{Context, Exit, Failure, Outcome};

pub(super) fn command(registry: &Registry) -> Command {
    let usual = usual_provider(registry);
    Command::new("remove")
        .about("Remove a profile; its secret is kept for 7 days, for undo")
        .arg(Arg::new("profile").value_name("PROFILE").required(true).help("The profile's id"))
        .arg(
            Arg::new("purge")
                .long("purge")
                .action(ArgAction::SetTrue)
                .help("Erase the secret now; this cannot be undone"),
        )
        .arg(
            Arg::new("yes")
                .long("yes")
                .short('y')
                .action(ArgAction::SetTrue)
                .help("Do what cannot be undone"),
        )
        .arg(agent_arg())
        .after_help(format!(
            "Examples:\n  moltbot models auth remove {usual}:manual\n  \
             moltbot models auth remove {usual}:manual --purge --yes"
        ))
}

pub(super) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let id = args.get_one::<String>("profile").expect("clap requires it").trim().to_string();
    let purge = args.get_flag("purge");
    cx.config()?;
    let agent = cx.agent(args)?;
    let now = cx.now();
    let store = cx.store(&agent);
    let profiles = store.load_blocking()?.profiles;
    let broken = profiles.is_kept_only(&id);
    let kept = store.removed_blocking()?.iter().any(|removed| removed.profile == id);
    let there = profiles.contains(&id) || broken || (purge && kept);
    if !there {
        return Err(unknown(&profiles, &agent, &id));
    }
    if (purge || broken) && !args.get_flag("yes") {
        let message = format!("Removing {} like this cannot be undone", clean(&id));
        return Err(Failure::input(message).hint("add --yes to do so"));
    }
    let mut locked = store.lock_blocking(now)?;
    locked.profiles.remove(&id);
    locked.commit_for(&Cause { purge, ..Cause::default() })?;
    if purge {
        store.purge_removed_blocking(now, moltbot_profiles::Purge::Profile(&id))?;
    }
    forget(cx, &agent, std::slice::from_ref(&id))?;
    let id = clean(&id);
    cx.out.line(match purge || broken {
        true => format!("Removed {id} for good"),
        false => format!("Removed {id}; `moltbot models auth undo` brings it back for 7 days"),
    });
    say_next(cx, &agent)?;
    Ok(Exit::OK)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, TOKEN};

    fn holds_token(bench: &Bench) -> Vec<String> {
        let holds = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(TOKEN);
        bench
            .files()
            .into_iter()
            .filter(|(_, bytes)| holds(bytes))
            .map(|(path, _)| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn purging_asks_for_yes_and_leaves_no_trace() {
        let bench = Bench::new();
        bench.key_and_token();
        let before = bench.files();
        let ran = bench.run(&["models", "auth", "remove", "acme:manual", "--purge"]);
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.contains("cannot be undone"), "{}", ran.stderr);
        assert_eq!(bench.files(), before);
        let ran = bench.run(&["models", "auth", "remove", "acme:manual", "--purge", "--yes"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "Removed acme:manual for good\n"));
        assert!(holds_token(&bench).is_empty(), "{:?}", holds_token(&bench));
    }

    #[test]
    fn what_was_removed_is_kept_and_may_be_purged_later() {
        let bench = Bench::new();
        bench.key_and_token();
        let ran = bench.run(&["models", "auth", "remove", "acme:manual"]);
        let said = "Removed acme:manual; `moltbot models auth undo` brings it back for 7 days\n";
        assert_eq!((ran.code, ran.stdout.as_str()), (0, said));
        assert_eq!(holds_token(&bench), ["auth-profiles.json.removed.json"]);
        let ran = bench.run(&["models", "auth", "remove", "acme:manual"]);
        assert!(ran.stderr.contains("not found"), "{}", ran.stderr);
        let ran = bench.run(&["models", "auth", "remove", "acme:manual", "--purge", "--yes"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(holds_token(&bench).is_empty());
    }
}
