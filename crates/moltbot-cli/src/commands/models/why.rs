//! `moltbot models why`: what was decided about past requests, or would be about the next one.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use moltbot_core::RecordId;
use moltbot_gateway::{ChatRequest, RecordLog, Records};
use serde_json::json;

use crate::commands::{agent, agent_arg, json_arg};
use crate::front::{self, Answers};
use crate::out::clean;
use crate::{Context, Exit, Failure, Outcome, why};

pub(super) fn command() -> Command {
    Command::new("why")
        .about("Say which model and credential a request got, what was tried, and why")
        .arg(
            Arg::new("last")
                .long("last")
                .value_name("N")
                .allow_negative_numbers(true)
                .value_parser(value_parser!(u32).range(1..))
                .help("Explain the last N requests [default: 1]"),
        )
        .arg(
            Arg::new("request")
                .long("request")
                .value_name("ID")
                .conflicts_with("last")
                .help("Explain the request of this id (mb_...)"),
        )
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .conflicts_with_all(["last", "request"])
                .help("Explain what a request would do now; send nothing"),
        )
        .arg(
            Arg::new("model")
                .long("model")
                .value_name("MODEL")
                .requires("dry-run")
                .help("With --dry-run: ask this model"),
        )
        .arg(agent_arg())
        .arg(json_arg())
        .after_help(
            "Examples:\n  moltbot models why\n  moltbot models why --last 5 --json\n  \
             moltbot models why --dry-run --agent work --model opus",
        )
}

pub(super) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let agent = cx.agent(args)?;
    let json = args.get_flag("json");
    if args.get_flag("dry-run") {
        // Explaining asks nobody anything, as a turn does not.
        cx.set_front(front::with(Answers::default()));
        let engine = cx.engine(&agent)?;
        let model = args.get_one::<String>("model").cloned();
        return agent::dry_run(cx, &engine, &ChatRequest { model, ..Default::default() }, json);
    }
    let log = RecordLog::new(agent.logs());
    let file = cx.shown(log.path());
    let failed = |error| Failure::new(format!("{file}: the log cannot be read: {error}"));
    let Records { records, damaged } = match args.get_one::<String>("request") {
        Some(raw) => {
            let id = RecordId::parse(raw).ok_or_else(|| {
                Failure::input(format!("\"{raw}\" is no request id")).hint(
                    "ids look like mb_ and 20 characters; `moltbot models why --last 5` shows some",
                )
            })?;
            let unknown =
                || Failure::new(format!("Request {id} is not in {file}")).code("record-unknown");
            let record = log.find(&id).map_err(failed)?.ok_or_else(unknown)?;
            Records { records: vec![record], damaged: 0 }
        }
        None => {
            let last = args.get_one::<u32>("last").copied().unwrap_or(1);
            log.last(usize::try_from(last).unwrap_or(usize::MAX)).map_err(failed)?
        }
    };
    if damaged > 0 {
        cx.out.warn(format!("{file}: {damaged} lines cannot be understood and are left out"));
    }
    if json {
        cx.out.json(&json!({ "agentId": agent.id, "log": log.path(), "records": records }));
        return Ok(Exit::OK);
    }
    if records.is_empty() {
        cx.out.line(format!("Agent {} has sent no request yet.", agent.id));
    }
    for (at, record) in records.iter().enumerate() {
        if at > 0 {
            cx.out.line("");
        }
        for line in why::told(record) {
            let indent = if line.starts_with(' ') { 5 } else { 14 };
            cx.out.wrapped(clean(&line), indent);
        }
    }
    Ok(Exit::OK)
}

#[cfg(test)]
mod tests {
    use moltbot_core::{RecordId, Timestamp};
    use serde_json::{Value, json};

    use crate::testing::{Bench, NOW};

    /// Writes a log of records as the `agent` command leaves them.
    fn log(bench: &Bench, count: u64) -> Vec<String> {
        let dir = bench.home().join(".moltbot/agents/main/logs");
        std::fs::create_dir_all(&dir).unwrap();
        let ids: Vec<String> = (0..count)
            .map(|n| RecordId::new(Timestamp::from_millis(NOW + n as i64), n).to_string())
            .collect();
        let lines: String = ids.iter().map(|id| format!("{}\n", record(id))).collect();
        std::fs::write(dir.join("requests.jsonl"), lines).unwrap();
        ids
    }

    fn record(id: &str) -> Value {
        json!({ "id": id, "at": NOW, "agent": "main", "requested": "big",
            "models": [{ "model": "acme/big-2", "candidates": [
                { "source": "profile:acme:a", "profile": "acme:a", "mode": "api-key",
                    "payer": "metered" },
                { "source": "profile:acme:b", "profile": "acme:b", "mode": "api-key",
                    "payer": "metered", "skipped": "cooling down", "until": NOW + 60_000 }] }],
            "attempts": [
                { "model": "acme/big-2", "source": "profile:acme:a", "class": "rate_limit",
                    "status": 429, "latencyMs": 12, "until": NOW + 300_000, "requestId": "req_1" }],
            "outcome": { "type": "failed", "code": "rate-limited" } })
    }

    #[test]
    fn the_last_request_is_told_in_full() {
        let bench = Bench::new();
        let ids = log(&bench, 3);
        let ran = bench.run(&["models", "why"]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        let expected = format!(
            "Request     : {}\nTime        : 2026-09-21T14:13:20Z\nAgent       : main\n\
             Asked for   : big\nFailed      : rate-limited (`moltbot explain rate-limited`)\n\
             Considered:\nacme/big-2\n  1. profile:acme:a [api-key, billed per use]\n  \
             2. profile:acme:b [api-key, billed per use], left out: cooling down, for 1m, until 2026-09-21T14:14:20Z\n\
             Sent:\n  1. acme/big-2 with profile:acme:a: rate_limit, HTTP 429, 12 ms, rests for \
             5m, until 2026-09-21T14:18:20Z, req_1\n",
            ids[2]
        );
        assert_eq!(ran.stdout, expected);
    }

    #[test]
    fn requests_are_found_by_number_and_by_id() {
        let bench = Bench::new();
        let ids = log(&bench, 5);
        let listed = |args: &[&str]| -> Vec<String> {
            let ran = bench.run(&[&["models", "why", "--json"], args].concat());
            assert_eq!(ran.code, 0, "{}", ran.stderr);
            let value: Value = serde_json::from_str(&ran.stdout).unwrap();
            let records = value["records"].as_array().unwrap().iter();
            records.map(|record| record["id"].as_str().unwrap().to_string()).collect()
        };
        assert_eq!(listed(&["--last", "2"]), ids[3..]);
        assert_eq!(listed(&["--last", "99"]), ids);
        assert_eq!(listed(&["--request", &ids[1]]), ids[1..2]);
    }

    #[test]
    fn nothing_and_nonsense() {
        let bench = Bench::new();
        let ran = bench.run(&["models", "why"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "Agent main has sent no request yet.\n"));
        for (args, code) in [
            (["--request", "mb_../../x"], "input"),
            (["--request", "mb_01m2m5pr000000000007"], "record-unknown"),
        ] {
            let ran = bench.run(&[&["models", "why"][..], &args].concat());
            assert_eq!(ran.code, 1);
            assert!(ran.stderr.contains(&format!("moltbot explain {code}")), "{}", ran.stderr);
        }
        assert_eq!(bench.run(&["models", "why", "--last", "0"]).code, 1);
        assert_eq!(bench.run(&["models", "why", "--model", "big"]).code, 1, "needs --dry-run");
    }

    #[test]
    fn a_dry_run_is_that_of_agent() {
        let bench = Bench::new();
        bench.key_and_token();
        let why = bench.run(&["models", "why", "--dry-run", "--model", "big"]);
        let agent = bench.run(&["agent", "-m", "x", "--dry-run", "--model", "big"]);
        assert_eq!((why.code, &why.stdout), (agent.code, &agent.stdout));
        assert!(why.stdout.contains("acme/big-2"), "{}", why.stdout);
    }
}
