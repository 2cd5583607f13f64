//! `moltbot models simulate`: what other settings would have done with recorded or written traffic.

use std::path::Path;

use clap::{Arg, ArgGroup, ArgMatches, Command, value_parser};
use moltbot_gateway::{Engine, RecordLog, Simulation, Trace};
use moltbot_profiles::Profiles;
use serde_json::json;

use crate::commands::{agent_arg, json_arg};
use crate::{Context, Exit, Failure, Outcome};

const ABOUT_TRACES: &str = "\
A trace holds one JSON object per line; # starts a comment. Times are seconds from its start.
  {\"profile\": {\"id\": \"acme:one\", \"type\": \"api_key\"}}
      a profile to simulate with (api_key, oauth or token); without any: those of the agent
  {\"at\": 0, \"request\": {\"session\": \"s1\", \"model\": \"opus\", \"input\": 500, \"cached\": 20000, \"output\": 300, \"ms\": 4000}}
      a request; everything in it may be left out
  {\"at\": 30, \"fault\": {\"class\": \"rate_limit\", \"profile\": \"acme:one\", \"for\": 600, \"retryAfter\": 600}}
      requests fail from then on: rate_limit, auth, billing, overloaded, timeout, server,
      model_not_found, context_overflow, format, refused or unknown; with one profile or model only,
      for so many seconds, with the wait that the service names
Lines of a request log (agents/<id>/logs/requests.jsonl) are understood as well.

Examples:
  moltbot models simulate --trace noon.jsonl
  moltbot models simulate --last 500 --config changed.json5 --json";

pub(super) fn command() -> Command {
    Command::new("simulate")
        .about("Replay traffic and faults against a config, with a virtual clock; sends nothing")
        .arg(
            Arg::new("trace")
                .long("trace")
                .value_name("FILE")
                .help("Replay this trace (see below)"),
        )
        .arg(
            Arg::new("last")
                .long("last")
                .value_name("N")
                .value_parser(value_parser!(u32).range(1..))
                .help("Replay the last N requests of the agent, with the faults they met"),
        )
        .group(ArgGroup::new("source").args(["trace", "last"]).required(true))
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .help("Compare with this config file"),
        )
        .arg(agent_arg())
        .arg(json_arg())
        .after_help(ABOUT_TRACES)
}

pub(super) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let agent = cx.agent(args)?;
    let text = |name: &str| args.get_one::<String>(name).cloned();
    let (trace, source) = match text("trace") {
        Some(file) => (read(cx, &file)?, file),
        None => {
            let count = args.get_one::<u32>("last").copied().unwrap_or(1);
            let log = RecordLog::new(agent.logs());
            let shown = cx.shown(log.path());
            let records = log.last(usize::try_from(count).unwrap_or(usize::MAX));
            let records = records.map_err(|error| {
                Failure::new(format!("{shown}: the log cannot be read: {error}"))
            })?;
            (Trace::of_records(&records.records), shown)
        }
    };
    if trace.requests.is_empty() {
        return Err(Failure::input(format!("{source}: there is no request in it"))
            .hint("`moltbot models simulate --help` shows what a trace looks like"));
    }
    let profiles = cx.store(&agent).load_blocking()?.profiles;
    let engine = cx.engine(&agent)?;
    let now = simulate(&engine, &trace, &profiles, &source)?;
    let other = match text("config") {
        Some(file) => {
            let path = cx.cwd().join(&file);
            if !path.is_file() {
                return Err(Failure::input(format!("{file}: there is no such file")));
            }
            let engine = cx.engine_under(&agent, &path)?;
            Some((file, simulate(&engine, &trace, &profiles, &source)?))
        }
        None => None,
    };
    if args.get_flag("json") {
        let mut value = json!({ "agentId": agent.id, "source": source, "config": now });
        if let Some((file, other)) = &other {
            value["changed"] = json!({ "file": file, "result": other });
        }
        cx.out.json(&value);
        return Ok(Exit::OK);
    }
    print(cx, &now, other.as_ref());
    Ok(Exit::OK)
}

fn read(cx: &Context, file: &str) -> Result<Trace, Failure> {
    let path = cx.cwd().join(Path::new(file));
    let bytes = std::fs::read(&path)
        .map_err(|error| Failure::input(format!("cannot read {file}: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        Failure::input(format!("{file}:{line}:{column}: this is no UTF-8 text"))
    })?;
    Trace::parse(&text).map_err(|error| malformed(file, &error))
}

fn malformed(file: &str, error: &moltbot_gateway::TraceError) -> Failure {
    Failure::input(format!("{file}:{error}"))
        .hint("`moltbot models simulate --help` shows what a trace looks like")
}

fn simulate(
    engine: &Engine,
    trace: &Trace,
    profiles: &Profiles,
    source: &str,
) -> Result<Simulation, Failure> {
    engine.simulate(trace, profiles).map_err(|error| malformed(source, &error))
}

/// Lists the figures of a simulation, in the order of the table.
fn figures(result: &Simulation) -> Vec<(&'static str, String)> {
    let failures: Vec<String> =
        result.failures.iter().map(|(code, count)| format!("{count} {code}")).collect();
    let failed = match failures.is_empty() {
        true => result.failed.to_string(),
        false => format!("{} ({})", result.failed, failures.join(", ")),
    };
    let longest = result.longest_wait_ms as f64 / 1e3;
    vec![
        ("Requests", result.requests.to_string()),
        ("Served", result.served.to_string()),
        ("Failed", failed),
        ("Waited", format!("{} (longest {longest:.1} s)", result.waited)),
        ("Switched", result.switched.to_string()),
        ("Sent", result.sent.to_string()),
        ("Cost", format!("${:.4}", result.cost)),
        ("Cache tokens written again", result.cache_rewritten.to_string()),
    ]
}

fn print(cx: &mut Context, now: &Simulation, other: Option<&(String, Simulation)>) {
    let mut rows: Vec<Vec<String>> =
        figures(now).into_iter().map(|(name, value)| vec![name.to_string(), value]).collect();
    match other {
        Some((file, other)) => {
            for (row, (_, value)) in rows.iter_mut().zip(figures(other)) {
                row.push(value);
            }
            cx.out.table(&["", "Config", file.as_str()], &rows);
        }
        None => cx.out.table(&["", "Config"], &rows),
    }
    cx.out.line("");
    let mut names: Vec<&String> = now.profiles.keys().collect();
    names.extend(other.iter().flat_map(|(_, other)| other.profiles.keys()));
    names.sort();
    names.dedup();
    let cells = |result: &Simulation, name: &str| {
        let own = result.profiles.get(name).cloned().unwrap_or_default();
        [format!("{} of {}", own.served, own.sent), format!("${:.4}", own.cost)]
    };
    let rows: Vec<Vec<String>> = names
        .into_iter()
        .map(|name| {
            let mut row = vec![name.clone()];
            row.extend(cells(now, name));
            row.extend(other.iter().flat_map(|(_, other)| cells(other, name)));
            row
        })
        .collect();
    match other {
        Some(_) => {
            cx.out.table(&["Credential", "Served", "Cost", "Served then", "Cost then"], &rows);
        }
        None => cx.out.table(&["Credential", "Served", "Cost"], &rows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_help_is_right_about_traces() {
        let lines = ABOUT_TRACES.lines().map(str::trim).filter(|line| line.starts_with('{'));
        let text: Vec<&str> = lines.collect();
        let trace = Trace::parse(&text.join("\n")).unwrap();
        let counts = (trace.profiles.len(), trace.requests.len(), trace.faults.len());
        assert_eq!(counts, (1, 1, 1));
    }

    #[test]
    fn every_figure_has_a_name_in_the_json() {
        let value = serde_json::to_value(Simulation::default()).unwrap();
        let Value::Object(members) = value else { panic!("an object") };
        assert_eq!(members.len(), figures(&Simulation::default()).len() + 4);
    }
}
