//! `models auth refresh`: renews logins now, in the same steps as a request would.

use clap::{Arg, ArgAction, ArgMatches, Command};
use moltbot_core::{Registry, Timestamp};
use moltbot_gateway::{ChatError, Refreshed};
use moltbot_profiles::remaining_text;
use serde_json::{Value, json};

use super::unknown;
use crate::commands::{agent_arg, json_arg};
use crate::context::iso;
use crate::out::clean;
use crate::{Context, Exit, Failure, Outcome};

pub(super) fn command(_: &Registry) -> Command {
    Command::new("refresh")
        .about("Renew logins that have expired")
        .arg(Arg::new("profile").long("profile").value_name("ID").help("Only this profile"))
        .arg(
            Arg::new("force")
                .long("force")
                .action(ArgAction::SetTrue)
                .help("Renew a login that still works, or that failed a moment ago"),
        )
        .args([agent_arg(), json_arg()])
        .after_help(
            "Examples:\n  moltbot models auth refresh\n  \
             moltbot models auth refresh --profile <id> --force --json",
        )
}

pub(super) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let (force, as_json) = (args.get_flag("force"), args.get_flag("json"));
    let agent = cx.agent(args)?;
    let engine = cx.engine(&agent)?;
    let ids = match args.get_one::<String>("profile") {
        Some(id) => {
            let profiles = cx.store(&agent).load_blocking()?.profiles;
            if !profiles.contains(id.trim()) {
                return Err(unknown(&profiles, &agent, id.trim()));
            }
            vec![id.trim().to_string()]
        }
        None => {
            let views = cx.block_on(engine.resolve_profiles(None))??;
            let can = |view: &&moltbot_gateway::ProfileView| view.state.refreshable;
            views.iter().filter(can).map(|view| view.id.clone()).collect()
        }
    };
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for id in ids {
        let result = cx.block_on_cancel(engine.refresh(&id, force))?;
        rows.push(row(&id, &result));
        match result {
            Ok(done) if !as_json => {
                let line = line(&id, &done, cx.now());
                cx.out.line(clean(&line));
            }
            Ok(_) => {}
            Err(error) => failures.push(error),
        }
    }
    if as_json {
        cx.out.json(&json!({ "agentId": agent.id, "profiles": rows }));
    } else if rows.is_empty() {
        cx.out.line("No login here can be renewed.");
    }
    match (failures.pop(), as_json) {
        (None, _) => Ok(Exit::OK),
        (Some(_), true) => Ok(Exit::NO),
        (Some(last), false) => {
            for error in failures {
                cx.out.warn(clean(&error.message));
            }
            Err(Failure::from(last))
        }
    }
}

fn row(id: &str, result: &Result<Refreshed, ChatError>) -> Value {
    let (word, expires) = match result {
        Ok(Refreshed::NotDue { expires }) => ("notDue", expires),
        Ok(Refreshed::Adopted { expires }) => ("adopted", expires),
        Ok(Refreshed::Renewed { expires }) => ("renewed", expires),
        Err(error) => {
            let message = clean(&error.message).into_owned();
            return json!({
                "profileId": id, "result": "failed", "code": error.code, "error": message,
            });
        }
    };
    json!({ "profileId": id, "result": word, "expires": expires, "expiresAt": expires.map(iso) })
}

fn line(id: &str, done: &Refreshed, now: Timestamp) -> String {
    let until = |expires: &Option<Timestamp>| match expires {
        Some(at) => format!("good for {}", remaining_text(Some(at.since(now)))),
        None => "without an end".to_string(),
    };
    match done {
        Refreshed::Renewed { expires } => format!("{id} was renewed, {}", until(expires)),
        Refreshed::Adopted { expires } => {
            format!("{id} was renewed by somebody else meanwhile, {}", until(expires))
        }
        Refreshed::NotDue { expires } => {
            format!("{id} is not due, {}; --force renews it now", until(expires))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, NOW};

    #[test]
    fn what_cannot_be_renewed_is_said() {
        let bench = Bench::new();
        bench.key_and_token();
        let ran = bench.run(&["models", "auth", "refresh"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "No login here can be renewed.\n"));
        let ran = bench.run(&["models", "auth", "refresh", "--profile", "acme:manul"]);
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.contains("Auth profile \"acme:manul\" not found"), "{}", ran.stderr);
        assert!(ran.stderr.contains("did you mean acme:manual?"), "{}", ran.stderr);
        let ran = bench.run(&["models", "auth", "refresh", "--json"]);
        assert_eq!(ran.stdout, "{\n  \"agentId\": \"main\",\n  \"profiles\": []\n}\n");
    }

    #[test]
    fn the_lines_name_profile_and_time() {
        use super::*;
        let now = Timestamp::from_millis(NOW);
        let expires = Some(now.plus(2 * 3_600_000));
        let say = |done: &Refreshed| line("acme:a", done, now);
        let renewed = say(&Refreshed::Renewed { expires });
        assert_eq!(
            renewed,
            format!("acme:a was renewed, good for {}", remaining_text(Some(7_200_000)))
        );
        assert!(say(&Refreshed::NotDue { expires: None }).contains("--force renews it now"));
        let error = ChatError::new("login-needed", "OAuth token refresh failed");
        assert_eq!(row("acme:a", &Err(error))["code"], "login-needed");
        assert_eq!(row("acme:a", &Ok(Refreshed::Adopted { expires }))["result"], "adopted");
    }
}
