//! `models auth undo`: takes back what users did to credentials, never what a renewal did.

use clap::{Arg, ArgMatches, Command, value_parser};
use moltbot_core::Registry;
use moltbot_profiles::HistoryError;

use super::{forget, record, say_next};
use crate::commands::agent_arg;
use crate::out::clean;
use crate::{Context, Exit, Failure, Outcome};

pub(super) fn command(_: &Registry) -> Command {
    Command::new("undo")
        .about("Take back the last login, removal, rename or order")
        .arg(
            Arg::new("to")
                .long("to")
                .value_name("NUMBER")
                .value_parser(value_parser!(u64))
                .help("Take back everything after this number of `models auth log`"),
        )
        .arg(agent_arg())
        .after_help("Examples:\n  moltbot models auth undo\n  moltbot models auth undo --to 4")
}

pub(super) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    // The config is changed too, so it must be sound before anything is.
    cx.config()?;
    let agent = cx.agent(args)?;
    let store = cx.store(&agent);
    let before = store.load_blocking()?.profiles;
    let to = args.get_one::<u64>("to").copied();
    let undone = store.undo_blocking(cx.now(), to).map_err(|error| match error {
        HistoryError::Store(error) => Failure::from(error),
        error => Failure::input(clean(&capital(&error.to_string())))
            .hint("`moltbot models auth log` lists the changes"),
    })?;
    let ids = |one: &moltbot_profiles::Profiles, other: &moltbot_profiles::Profiles| {
        let only = one.iter().map(|(id, _)| id).filter(|id| !other.contains(id));
        only.map(str::to_string).collect::<Vec<String>>()
    };
    let (back, gone) = (ids(&undone.profiles, &before), ids(&before, &undone.profiles));
    record(cx, &undone.profiles, &back)?;
    forget(cx, &agent, &gone)?;
    for step in &undone.steps {
        cx.out.line(clean(&capital(step)));
    }
    if undone.steps.is_empty() {
        cx.out.line("Nothing was left to take back.");
    }
    say_next(cx, &agent)?;
    Ok(Exit::OK)
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    #[test]
    fn a_removed_profile_comes_back_to_store_and_config() {
        let bench = Bench::new();
        bench.key_and_token();
        bench.config(
            r#"{"auth": {"profiles": {"acme:default": {"provider": "acme", "mode": "api_key"},
                "acme:manual": {"provider": "acme", "mode": "token"}}}}"#,
        );
        let ran = bench.run(&["models", "auth", "remove", "acme:manual"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(bench.config_value()["auth"]["profiles"]["acme:manual"].is_null());
        let ran = bench.run(&["models", "auth", "undo"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "Brought back acme:manual\n"));
        assert!(ran.stderr.contains("Next request: "), "{}", ran.stderr);
        assert_eq!(bench.config_value()["auth"]["profiles"]["acme:manual"]["mode"], "token");
        let ran = bench.run(&["models", "auth", "undo"]);
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.contains("Error: There is no change to undo"), "{}", ran.stderr);
        let ran = bench.run(&["models", "auth", "undo", "--to", "99"]);
        assert!(ran.stderr.contains("no change to undo after number 99"), "{}", ran.stderr);
    }
}
