//! `moltbot models usage`: requests, tokens, money and what caching saved, from the request log.

use std::collections::BTreeMap;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use moltbot_core::{ModelInfo, Payer, Timestamp, Usage};
use moltbot_gateway::{Engine, ModelRef, Outcome as Ending, Record, RecordLog};
use serde::Serialize;
use serde_json::json;

use crate::commands::{agent_arg, agents, json_arg};
use crate::context::iso;
use crate::{Context, Exit, Failure, Outcome, why};

pub(super) fn command() -> Command {
    Command::new("usage")
        .about("Sum up the logged requests: tokens, cost, and what caching saved")
        .arg(
            Arg::new("by")
                .long("by")
                .value_name("WHAT")
                .value_parser(PossibleValuesParser::new(["profile", "agent", "model", "day"]))
                .default_value("model")
                .help("One row per profile, agent, model or day (UTC)"),
        )
        .arg(agent_arg())
        .arg(
            Arg::new("all")
                .long("all")
                .action(ArgAction::SetTrue)
                .conflicts_with("agent")
                .help("Sum up all agents"),
        )
        .arg(json_arg())
        .after_help(
            "Examples:\n  moltbot models usage\n  moltbot models usage --by day --all --json",
        )
}

/// One row, or the sum of all. Money is in US dollars.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sum {
    requests: u64,
    failures: u64,
    /// Requests that went to a service for them.
    attempts: u64,
    input: u64,
    output: u64,
    cache_read: u64,
    cache_write: u64,
    /// The part of the input that came out of the cache, from 0 to 1; absent without any input.
    #[serde(skip_serializing_if = "Option::is_none")]
    hit_rate: Option<f64>,
    /// What was billed per use, as far as prices are known.
    cost: f64,
    /// What a subscription covered, at the prices per use.
    plan_value: f64,
    /// What the same tokens would have cost more without a cache; negative if less.
    saved: f64,
    /// Replies without a known price.
    unpriced: u64,
}

pub(super) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let by = args.get_one::<String>("by").expect("it has a default").as_str();
    let paths = if args.get_flag("all") {
        let config = cx.config()?;
        agents::ids(&config).iter().map(|id| cx.agent_paths(&config, id)).collect()
    } else {
        vec![cx.agent(args)?]
    };
    let mut rows: BTreeMap<String, Sum> = BTreeMap::new();
    let (mut total, mut since) = (Sum::default(), None::<Timestamp>);
    for agent in &paths {
        let log = RecordLog::new(agent.logs());
        let file = cx.shown(log.path());
        let read = log
            .all()
            .map_err(|error| Failure::new(format!("{file}: the log cannot be read: {error}")))?;
        if read.damaged > 0 {
            let count = read.damaged;
            cx.out.warn(format!("{file}: {count} lines cannot be understood and are left out"));
        }
        if read.records.is_empty() {
            continue;
        }
        let engine = cx.engine(agent)?;
        for record in &read.records {
            let info = model_of(record).and_then(|model| info(&engine, model));
            let sum = Sum::of(record, info);
            total.add(&sum);
            rows.entry(key(record, by)).or_default().add(&sum);
            since = Some(since.map_or(record.at, |since| since.min(record.at)));
        }
    }
    if args.get_flag("json") {
        let rows: Vec<_> = rows.iter().map(|(key, sum)| Keyed { key, sum }).collect();
        let ids: Vec<_> = paths.iter().map(|agent| &agent.id).collect();
        cx.out.json(
            &json!({ "by": by, "agents": ids, "since": since, "rows": rows, "total": total }),
        );
        return Ok(Exit::OK);
    }
    let Some(since) = since else {
        cx.out.line("No request has been sent yet.");
        return Ok(Exit::OK);
    };
    print(cx, by, &rows, &total, since);
    Ok(Exit::OK)
}

#[derive(Serialize)]
struct Keyed<'a> {
    key: &'a str,
    #[serde(flatten)]
    sum: &'a Sum,
}

fn print(cx: &mut Context, by: &str, rows: &BTreeMap<String, Sum>, total: &Sum, since: Timestamp) {
    let first = match by {
        "profile" => "Credential",
        "agent" => "Agent",
        "model" => "Model",
        _ => "Day",
    };
    let heading = [
        first,
        "Requests",
        "Failed",
        "In",
        "Out",
        "Cache read",
        "Cache write",
        "Hit rate",
        "Cost",
        "In plan",
        "Saved",
    ];
    let mut cells: Vec<_> = rows.iter().map(|(key, sum)| sum.cells(key)).collect();
    if rows.len() > 1 {
        cells.push(total.cells("total"));
    }
    cx.out.table(&heading, &cells);
    let mut notes = vec![format!("Since {}, as far as the log reaches.", iso(since))];
    if total.unpriced > 0 {
        let one = total.unpriced == 1;
        let replies = if one { "reply has" } else { "replies have" };
        notes.push(format!("{} {replies} no known price and count as free.", total.unpriced));
    }
    if total.plan_value > 0.0 {
        notes.push("\"In plan\" is what a subscription covered, at the prices per use.".into());
    }
    for note in notes {
        cx.out.line(note);
    }
}

/// Returns what a record is counted under.
fn key(record: &Record, by: &str) -> String {
    let none = || "(none)".to_string();
    match by {
        "agent" => record.agent.clone(),
        "model" => model_of(record).map_or_else(none, String::from),
        "profile" => source_of(record).map_or_else(none, String::from),
        _ => iso(record.at).chars().take(10).collect(),
    }
}

/// Returns the model that answered, else the last one that was asked, else the first one meant.
fn model_of(record: &Record) -> Option<&str> {
    match &record.outcome {
        Some(Ending::Answered { model, .. }) => Some(model),
        _ => {
            let asked = record.attempts.last().map(|attempt| attempt.model.as_str());
            asked.or(record.models.first().map(|choice| choice.model.as_str()))
        }
    }
}

/// Returns the credential of the reply, else the one that was tried last.
fn source_of(record: &Record) -> Option<&str> {
    let source = match &record.outcome {
        Some(Ending::Answered { source, .. }) => source,
        _ => &record.attempts.last()?.source,
    };
    Some(source.strip_prefix("profile:").unwrap_or(source))
}

fn info<'e>(engine: &'e Engine, model: &str) -> Option<&'e ModelInfo> {
    let (provider, model) = model.split_once('/')?;
    engine.models().info(&ModelRef { provider: provider.into(), model: model.into() })
}

impl Sum {
    /// Counts one request. Its cost is the one computed when it was sent, if there is one.
    fn of(record: &Record, info: Option<&ModelInfo>) -> Self {
        let mut sum = Self {
            requests: 1,
            failures: u64::from(!matches!(record.outcome, Some(Ending::Answered { .. }))),
            attempts: record.attempts.len() as u64,
            ..Self::default()
        };
        let Some(usage) = &record.usage else { return sum };
        sum.input = usage.input.unwrap_or(0);
        sum.output = usage.output.unwrap_or(0);
        sum.cache_read = usage.cache_read.unwrap_or(0);
        sum.cache_write = usage.cache_write.unwrap_or(0);
        sum.rate();
        let now = info.and_then(|info| info.cost(usage));
        let Some(cost) = record.cost.or(now) else {
            sum.unpriced = 1;
            return sum;
        };
        let attempt = record.attempts.last();
        let payer = attempt
            .and_then(|attempt| why::credential_of(record, &attempt.source))
            .map(|used| used.payer);
        match payer {
            Some(Payer::Subscription) => sum.plan_value = cost,
            _ => sum.cost = cost,
        }
        let plain =
            Usage { input: Some(usage.all_input()), output: usage.output, ..Usage::default() };
        if let (Some(now), Some(plain)) = (now, info.and_then(|info| info.cost(&plain))) {
            sum.saved = plain - now;
        }
        sum
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failures += other.failures;
        self.attempts += other.attempts;
        self.unpriced += other.unpriced;
        for (mine, theirs) in [
            (&mut self.input, other.input),
            (&mut self.output, other.output),
            (&mut self.cache_read, other.cache_read),
            (&mut self.cache_write, other.cache_write),
        ] {
            *mine = mine.saturating_add(theirs);
        }
        self.rate();
        self.cost += other.cost;
        self.plan_value += other.plan_value;
        self.saved += other.saved;
    }

    fn rate(&mut self) {
        let read = self.cache_read as f64;
        let all = self.input as f64 + read + self.cache_write as f64;
        self.hit_rate = (all > 0.0).then_some(read / all);
    }

    fn cells(&self, key: &str) -> Vec<String> {
        let counts = [
            self.requests,
            self.failures,
            self.input,
            self.output,
            self.cache_read,
            self.cache_write,
        ];
        let money = [self.cost, self.plan_value, self.saved];
        std::iter::once(key.to_string())
            .chain(counts.iter().map(u64::to_string))
            .chain([self.hit_rate.map_or("-".into(), |rate| format!("{:.0}%", rate * 100.0))])
            .chain(money.iter().map(|dollars| dollars_text(*dollars)))
            .collect()
    }
}

fn dollars_text(dollars: f64) -> String {
    let sign = if dollars <= -0.00005 { "-" } else { "" };
    format!("{sign}${:.4}", dollars.abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, NOW};
    use serde_json::Value;

    const DAY: i64 = 86_400_000;

    fn write(bench: &Bench, agent: &str, records: &[Value]) {
        let dir = bench.home().join(format!(".moltbot/agents/{agent}/logs"));
        std::fs::create_dir_all(&dir).unwrap();
        let lines: String = records.iter().map(|record| format!("{record}\n")).collect();
        std::fs::write(dir.join("requests.jsonl"), lines).unwrap();
    }

    fn answered(number: i64, at: i64, profile: &str, payer: &str) -> Value {
        let source = format!("profile:{profile}");
        json!({ "id": format!("mb_{number:020}"), "at": at, "agent": "main",
            "models": [{ "model": "acme/big-2", "candidates": [
                { "source": source, "profile": profile, "mode": "x", "payer": payer }] }],
            "attempts": [{ "model": "acme/big-2", "source": source, "status": 200,
                "latencyMs": 1 }],
            "outcome": { "type": "answered", "model": "acme/big-2", "source": source },
            // At 5, 25, 0.5 and 6.25 dollars per million.
            "usage": { "input": 100_000, "output": 10_000, "cacheRead": 1_000_000,
                "cacheWrite": 0 },
            "cost": 1.25 })
    }

    fn failed(number: i64, at: i64) -> Value {
        json!({ "id": format!("mb_{number:020}"), "at": at, "agent": "main",
            "models": [{ "model": "acme/big-2" }],
            "attempts": [{ "model": "acme/big-2", "source": "profile:acme:key",
                "class": "rate_limit", "status": 429, "latencyMs": 1 }],
            "outcome": { "type": "failed", "code": "rate-limited" } })
    }

    fn rows(bench: &Bench, args: &[&str]) -> Value {
        let ran = bench.run(&[&["models", "usage", "--json"], args].concat());
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        serde_json::from_str(&ran.stdout).unwrap()
    }

    fn bench() -> Bench {
        let bench = Bench::new();
        write(
            &bench,
            "main",
            &[
                answered(1, NOW, "acme:key", "metered"),
                failed(2, NOW + 1),
                answered(3, NOW + DAY, "acme:login", "subscription"),
            ],
        );
        bench
    }

    #[test]
    fn money_is_what_was_billed_and_what_caching_saved() {
        let bench = bench();
        let value = rows(&bench, &["--by", "profile"]);
        let key = &value["rows"][0];
        assert_eq!(
            (&key["key"], &key["requests"], &key["failures"]),
            (&json!("acme:key"), &json!(2), &json!(1))
        );
        assert_eq!((&key["cost"], &key["planValue"]), (&json!(1.25), &json!(0.0)));
        // A million tokens at 5 instead of 0.5 dollars.
        assert!((key["saved"].as_f64().unwrap() - 4.5).abs() < 1e-9, "{key}");
        let login = &value["rows"][1];
        assert_eq!((&login["cost"], &login["planValue"]), (&json!(0.0), &json!(1.25)));
        assert_eq!(value["total"]["requests"], 3);
        assert_eq!(value["total"]["cacheRead"], 2_000_000);
        // A million of 1.1 million each time.
        assert!((value["total"]["hitRate"].as_f64().unwrap() - 10.0 / 11.0).abs() < 1e-9);
        assert_eq!(value["since"], NOW);
    }

    #[test]
    fn rows_are_days_models_or_agents() {
        let bench = bench();
        bench.config("{ agents: { list: [{ id: 'main' }, { id: 'work' }] } }");
        let mut other = failed(4, NOW);
        other["agent"] = json!("work");
        write(&bench, "work", &[other]);
        let keys = |args: &[&str]| -> Vec<String> {
            let value = rows(&bench, args);
            let rows = value["rows"].as_array().unwrap().iter();
            rows.map(|row| row["key"].as_str().unwrap().to_string()).collect()
        };
        assert_eq!(keys(&["--by", "day"]), ["2026-09-21", "2026-09-22"]);
        assert_eq!(keys(&[]), ["acme/big-2"]);
        assert_eq!(keys(&["--by", "agent", "--all"]), ["main", "work"]);
        assert_eq!(keys(&["--by", "agent", "--agent", "work"]), ["work"]);
    }

    #[test]
    fn the_table_has_a_total_and_says_how_far_it_reaches() {
        let bench = bench();
        let text = bench.run(&["models", "usage", "--by", "profile"]).stdout;
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("Credential") && lines[0].ends_with("Saved"), "{text}");
        assert!(lines[3].starts_with("total") && lines[3].ends_with("$9.0000"), "{text}");
        assert!(text.contains("Since 2026-09-21T14:13:20Z"), "{text}");
        assert_eq!(
            Bench::new().run(&["models", "usage"]).stdout,
            "No request has been sent yet.\n"
        );
        assert_eq!(bench.run(&["models", "usage", "--by", "colour"]).code, 1);
    }

    #[test]
    fn an_unknown_price_is_said() {
        let bench = Bench::new();
        let mut record = answered(1, NOW, "acme:key", "metered");
        record["outcome"]["model"] = json!("acme/nobody-knows");
        record["cost"] = Value::Null;
        write(&bench, "main", &[record]);
        let value = rows(&bench, &[]);
        assert_eq!(
            (&value["total"]["unpriced"], &value["total"]["cost"]),
            (&json!(1), &json!(0.0))
        );
        let text = bench.run(&["models", "usage"]).stdout;
        assert!(text.contains("1 reply has no known price"), "{text}");
    }
}
