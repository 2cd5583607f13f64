//! `models auth log`: what became of which credential, when, by whom, by which command.

use clap::{Arg, ArgMatches, Command};
use moltbot_core::Registry;
use moltbot_profiles::{Change, ChangeKind};
use serde_json::json;

use crate::commands::{agent_arg, json_arg};
use crate::context::iso;
use crate::out::clean;
use crate::{Context, Exit, Outcome};

pub(super) fn command(_: &Registry) -> Command {
    Command::new("log")
        .about("Show the changes of an agent's credentials, oldest first")
        .arg(Arg::new("profile").long("profile").value_name("ID").help("Only this profile"))
        .args([agent_arg(), json_arg()])
        .after_help(
            "Examples:\n  moltbot models auth log\n  \
             moltbot models auth log --profile <id> --json",
        )
}

pub(super) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let agent = cx.agent(args)?;
    let mut changes = cx.store(&agent).changes_blocking()?;
    if let Some(id) = args.get_one::<String>("profile") {
        let id = id.trim();
        changes.retain(|change| change.profile == id || change.to.as_deref() == Some(id));
    }
    if args.get_flag("json") {
        cx.out.json(&json!({ "agentId": agent.id, "changes": changes }));
        return Ok(Exit::OK);
    }
    if changes.is_empty() {
        cx.out.line("No changes are logged.");
        return Ok(Exit::OK);
    }
    let rows: Vec<Vec<String>> = changes.iter().map(row).collect();
    cx.out.table(&["#", "When", "What", "Login", "By"], &rows);
    Ok(Exit::OK)
}

fn row(change: &Change) -> Vec<String> {
    let generation = |generation: &Option<moltbot_core::Generation>| {
        generation.as_ref().map_or("-".to_string(), |it| it.as_str()[..8].to_string())
    };
    let login = match (&change.before, &change.after) {
        (None, None) => String::new(),
        (before, after) if before == after => generation(after),
        (before, after) => format!("{} > {}", generation(before), generation(after)),
    };
    vec![
        change.number.to_string(),
        iso(change.at),
        clean(&what(change)).into_owned(),
        login,
        clean(&by(change)).into_owned(),
    ]
}

/// Says which command it was, and whose: `models auth remove (user 1000, process 4711)`.
fn by(change: &Change) -> String {
    let command = &change.command;
    match change.who {
        Some(who) => {
            format!("{command} (user {}, process {})", who.uid, who.pid).trim().to_string()
        }
        None => command.clone(),
    }
}

/// Says what a change was.
fn what(change: &Change) -> String {
    let profile = &change.profile;
    let is_order = change.order_before.is_some() || change.order_after.is_some();
    let text = match (is_order, &change.to, &change.before, &change.after) {
        (true, ..) => match &change.order_after {
            Some(ids) => format!("order of {profile}: {}", ids.join(", ")),
            None => format!("order of {profile} cleared"),
        },
        (_, Some(to), ..) => format!("{profile} renamed to {to}"),
        (.., Some(_), None) => format!("{profile} removed"),
        (.., None, Some(_)) => match change.kind {
            ChangeKind::Import => format!("{profile} imported"),
            _ => format!("{profile} added"),
        },
        _ => match change.kind {
            ChangeKind::Renewed => format!("{profile} renewed"),
            ChangeKind::Spent => format!("{profile} refused by the service: log in again"),
            _ => format!("{profile} replaced"),
        },
    };
    match change.kind {
        ChangeKind::Undo => {
            let numbers: Vec<String> = change.undoes.iter().map(u64::to_string).collect();
            format!("{text} (undo of {})", numbers.join(", "))
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, KEY, TOKEN};

    #[test]
    fn changes_are_listed_without_secrets() {
        let bench = Bench::new();
        let ran = bench.run(&["models", "auth", "log"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "No changes are logged.\n"));
        bench.key_and_token();
        assert_eq!(bench.run(&["models", "auth", "rename", "acme:manual", "acme:work"]).code, 0);
        assert_eq!(bench.run(&["models", "auth", "remove", "acme:work"]).code, 0);
        assert_eq!(bench.run(&["models", "auth", "undo"]).code, 0);
        let ran = bench.run(&["models", "auth", "log"]);
        let uid = rustix::process::getuid().as_raw();
        for part in [
            "acme:manual renamed to acme:work",
            "acme:work removed",
            "acme:work added (undo of 2)",
            &format!("models auth remove (user {uid}, process {})", std::process::id()),
            "2026-09-21T14:13:20",
        ] {
            assert!(ran.stdout.contains(part), "{part} not in {}", ran.stdout);
        }
        let json = bench.run(&["models", "auth", "log", "--profile", "acme:manual", "--json"]);
        let value: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!(value["changes"].as_array().unwrap().len(), 1);
        assert_eq!(value["changes"][0]["kind"], "rename");
        for secret in [KEY, TOKEN] {
            assert!(!ran.stdout.contains(secret) && !json.stdout.contains(secret));
        }
    }
}
