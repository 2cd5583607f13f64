//! `moltbot status`: where everything is, at a glance; works with an invalid config too.

use clap::{Arg, ArgAction, ArgMatches, Command};
use moltbot_config::AgentId;
use moltbot_core::{Registry, VERSION};
use serde_json::{Map, Value, json};

use super::models::{self, Glance, windows};
use super::{agents, json_arg};
use crate::{Context, Exit, Failure, Outcome};

/// How long a probe may take without `--timeout`, in milliseconds.
const PROBE_MS: u64 = 8_000;

/// Describes the command.
pub(crate) fn command(_: &Registry) -> Command {
    let flag = |id: &'static str, help: &'static str| {
        Arg::new(id).long(id).help(help).action(ArgAction::SetTrue)
    };
    Command::new("status")
        .about("Show version, places, agents and whether the config is valid")
        .arg(flag("all", "Show how every agent is doing, not only the default one"))
        .arg(flag("usage", "Show how far each limit is used up, as the last replies told"))
        .arg(flag("deep", "Ask the service with every credential, changing nothing"))
        .arg(
            Arg::new("timeout")
                .long("timeout")
                .value_name("MS")
                .allow_hyphen_values(true)
                .help("With --deep: give up after so many milliseconds [default: 8000]"),
        )
        .arg(json_arg())
        .after_help("Examples:\n  moltbot status --json\n  moltbot status --all --deep")
}

/// One agent and how it is doing.
struct Row {
    id: AgentId,
    glance: Glance,
    usage: Option<Vec<windows::Windows>>,
    probes: Option<Value>,
}

/// Prints the overview.
pub(crate) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let timeout = timeout(args)?;
    let json = args.get_flag("json");
    let state = cx.paths().state_dir().to_path_buf();
    let config = cx.paths().config_file().to_path_buf();
    let loaded = cx.load();
    let ids: Vec<AgentId> =
        loaded.as_ref().map(|loaded| agents::ids(&loaded.config)).unwrap_or_default();
    let default = loaded.as_ref().ok().map(|loaded| loaded.config.default_agent());
    let valid = loaded.is_ok();
    if !json {
        let word = match (config.exists(), valid) {
            (false, _) => "none yet",
            (true, true) => "valid",
            (true, false) => "invalid, see `moltbot config validate`",
        };
        let names: Vec<&str> = ids.iter().map(AgentId::as_str).collect();
        let lines = [
            ("Version", VERSION.to_string()),
            ("State dir", cx.shown(&state)),
            ("Config", format!("{} ({word})", cx.shown(&config))),
            ("Agents", names.join(", ")),
        ];
        for (label, text) in lines {
            cx.out.wrapped(format!("{label:<10}: {text}"), 12);
        }
    }
    let wanted: Vec<AgentId> = ids
        .iter()
        .filter(|id| args.get_flag("all") || Some(*id) == default.as_ref())
        .cloned()
        .collect();
    let mut rows = Vec::new();
    for id in wanted {
        rows.push(row(cx, id, args, timeout, json)?);
    }
    if json {
        let details: Vec<Value> = rows.iter().map(Row::json).collect();
        let ids: Vec<&str> = ids.iter().map(AgentId::as_str).collect();
        let default = default.map(|id| id.to_string());
        cx.out.json(&json!({
            "version": VERSION,
            "stateDir": state,
            "config": { "path": config, "exists": config.exists(), "valid": valid },
            "agents": { "default": default, "ids": ids, "details": details },
            "plugins": cx.registry.plugins().iter().map(|plugin| plugin.id).collect::<Vec<_>>(),
        }));
    }
    Ok(Exit::OK)
}

fn timeout(args: &ArgMatches) -> Result<u64, Failure> {
    let Some(raw) = args.get_one::<String>("timeout") else { return Ok(PROBE_MS) };
    raw.trim()
        .parse::<u64>()
        .ok()
        .filter(|ms| *ms > 0)
        .ok_or_else(|| Failure::input("--timeout must be a positive number (ms)."))
}

/// Looks at one agent and, for people, prints it at once.
fn row(
    cx: &mut Context,
    id: AgentId,
    args: &ArgMatches,
    timeout: u64,
    json: bool,
) -> Result<Row, Failure> {
    let agent = cx.agent_by_id(Some(id.as_str()))?;
    let glance = models::glance(cx, &agent)?;
    if !json {
        let id = id.as_str();
        cx.out.wrapped(format!("{id:<10}: {}, {}", glance.model(), glance.word()), 12);
        for line in glance.lines() {
            cx.out.wrapped(format!("  {line}"), 4);
        }
    }
    let usage = match args.get_flag("usage") {
        true => Some(windows::of(&cx.store(&agent).load_blocking()?.profiles, cx.now())),
        false => None,
    };
    if let Some(known) = usage.as_ref().filter(|_| !json) {
        windows::print(cx, known);
    }
    let probes = match args.get_flag("deep") {
        true => Some(models::deep(cx, &agent, timeout, !json)?),
        false => None,
    };
    Ok(Row { id, glance, usage, probes })
}

impl Row {
    fn json(&self) -> Value {
        let mut value = self.glance.json(self.id.as_str());
        let mut more = Map::new();
        if let Some(usage) = &self.usage {
            more.insert("usage".to_string(), json!(usage));
        }
        if let Some(probes) = &self.probes {
            more.insert("probes".to_string(), probes.clone());
        }
        if let Value::Object(value) = &mut value {
            value.extend(more);
        }
        value
    }
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
