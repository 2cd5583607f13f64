//! `moltbot status`: where everything is, at a glance; works with an invalid config too.

use clap::{ArgMatches, Command};
use moltbot_core::{Registry, VERSION};
use serde_json::json;

use crate::{Context, Exit, Outcome};

use super::json_arg;

/// Describes the command.
pub(crate) fn command(_: &Registry) -> Command {
    Command::new("status")
        .about("Show version, places, agents and whether the config is valid")
        .arg(json_arg())
        .after_help("Example:\n  moltbot status --json")
}

/// Prints the overview.
pub(crate) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let state = cx.paths().state_dir().to_path_buf();
    let config = cx.paths().config_file().to_path_buf();
    let loaded = cx.load();
    let agents: Vec<String> = match &loaded {
        Ok(loaded) => super::agents::ids(&loaded.config).iter().map(ToString::to_string).collect(),
        Err(_) => Vec::new(),
    };
    let default = loaded.as_ref().ok().map(|loaded| loaded.config.default_agent().to_string());
    let valid = loaded.is_ok();
    if args.get_flag("json") {
        cx.out.json(&json!({
            "version": VERSION,
            "stateDir": state,
            "config": { "path": config, "exists": config.exists(), "valid": valid },
            "agents": { "default": default, "ids": agents },
            "plugins": cx.registry.plugins().iter().map(|plugin| plugin.id).collect::<Vec<_>>(),
        }));
        return Ok(Exit::OK);
    }
    let word = match (config.exists(), valid) {
        (false, _) => "none yet",
        (true, true) => "valid",
        (true, false) => "invalid, see `moltbot config validate`",
    };
    let lines = [
        ("Version", VERSION.to_string()),
        ("State dir", cx.shown(&state)),
        ("Config", format!("{} ({word})", cx.shown(&config))),
        ("Agents", agents.join(", ")),
    ];
    for (label, text) in lines {
        cx.out.line(format!("{label:<10}: {text}"));
    }
    Ok(Exit::OK)
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    #[test]
    fn it_answers_even_when_the_config_is_broken() {
        let bench = Bench::new();
        let json = |bench: &Bench| -> serde_json::Value {
            serde_json::from_str(&bench.run(&["status", "--json"]).stdout).unwrap()
        };
        assert_eq!(json(&bench)["config"]["exists"], false);
        assert_eq!(json(&bench)["agents"]["ids"][0], "main");
        bench.config("{ nonsense: 1 }");
        assert_eq!(json(&bench)["config"]["valid"], false);
        assert!(bench.run(&["status"]).stdout.contains("invalid"));
    }
}
