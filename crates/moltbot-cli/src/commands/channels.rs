//! `moltbot channels list`: there are no chat channels here; the list of credentials is what is
//! left of the command (spec L-44).

use clap::{ArgMatches, Command};
use moltbot_core::Registry;
use serde_json::json;

use super::json_arg;
use crate::{Context, Exit, Outcome};

/// Describes the command.
pub(crate) fn command(_: &Registry) -> Command {
    Command::new("channels")
        .about("List what agents can be reached by; moltbot serves no chat channels")
        .arg(json_arg())
        .subcommand(
            Command::new("list")
                .about("List channels, of which there are none, and credentials")
                .arg(json_arg())
                .after_help("Example:\n  moltbot channels list --json"),
        )
        .after_help("Example:\n  moltbot channels list --json")
}

/// Lists the profiles of the default agent.
pub(crate) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let json = args.subcommand_matches("list").unwrap_or(args).get_flag("json");
    let agent = cx.agent_by_id(None)?;
    let profiles = cx.store(&agent).load_blocking()?.profiles;
    let rows: Vec<_> = profiles
        .iter()
        .map(|(id, stored)| {
            json!({
                "id": id,
                "provider": stored.provider,
                "type": stored.kind,
                "isExternal": stored.is_link(),
            })
        })
        .collect();
    if json {
        cx.out.json(&json!({ "chat": {}, "auth": rows }));
        return Ok(Exit::OK);
    }
    cx.out.line("Chat channels: none, moltbot serves no chat");
    let word = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap_or("-").to_string();
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let owner = if row["isExternal"] == true { "another program" } else { "moltbot" };
            vec![word(row, "id"), word(row, "provider"), word(row, "type"), owner.to_string()]
        })
        .collect();
    cx.out.table(&["Profile", "Provider", "Type", "Kept by"], &cells);
    Ok(Exit::OK)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::Bench;

    #[test]
    fn credentials_are_listed_without_their_secrets() {
        let bench = Bench::new();
        bench.key_and_token();
        let ran = bench.run(&["channels", "list", "--json"]);
        let value: Value = serde_json::from_str(&ran.stdout).unwrap();
        let first = json!({ "id": "acme:default", "provider": "acme", "type": "api_key",
            "isExternal": false });
        assert_eq!(value["auth"][0], first);
        let text = bench.run(&["channels"]).stdout;
        assert!(text.contains("acme:manual") && !text.contains("FAKE"), "{text}");
    }
}
