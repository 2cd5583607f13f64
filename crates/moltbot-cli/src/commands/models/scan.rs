//! `moltbot models scan`: which models an account really has, and which of them answer (spec L-28).

mod found;

use std::collections::HashSet;

use clap::{Arg, ArgAction, ArgMatches, Command};
use moltbot_config::ModelSlot;
use moltbot_core::Registry;
use moltbot_gateway::{ChatError, Engine, Offered, ProbeOptions, ProbeTarget};
use serde::Serialize;

use super::probe;
use crate::commands::{agent_arg, json_arg, usual_provider};
use crate::onboard::stopped;
use crate::out::clean;
use crate::prompt::{self, Choice, Spinner};
use crate::{Context, Exit, Failure, Outcome};
use found::{Filters, Row};

pub(super) fn command(registry: &Registry) -> Command {
    let flag = |id: &'static str, help: &'static str| {
        Arg::new(id).long(id).help(help).action(ArgAction::SetTrue)
    };
    let value = |id: &'static str, name: &'static str, help: &'static str| {
        Arg::new(id).long(id).value_name(name).help(help).allow_hyphen_values(true)
    };
    let usual = usual_provider(registry);
    Command::new("scan")
        .about("Ask the providers which models the account has, and try them")
        .arg(value("provider", "ID", "Ask only this provider"))
        .arg(value("max-age-days", "DAYS", "Only models that came out in the last days"))
        .arg(value("min-params", "B", "Only models whose name tells so many billion parameters"))
        .arg(value("max-candidates", "N", "Try so many models [default: 6]"))
        .arg(value("timeout", "MS", "Give up after so many milliseconds each [default: 8000]"))
        .arg(value("concurrency", "N", "Try so many at once [default: 2]"))
        .arg(flag("no-probe", "Only ask which models there are, try none"))
        .arg(flag("yes", "Add every model that answered to the fallbacks, ask nothing"))
        .arg(flag("no-input", "Ask nothing").conflicts_with("yes"))
        .arg(flag("set-default", "Use the first model chosen, or that answered, by default"))
        .arg(flag("set-image", "Use the first of them that takes images for images"))
        .arg(json_arg())
        .arg(agent_arg())
        .after_help(format!(
            "Every try is one tiny request that is billed as any other; nothing is tried with \
             --no-probe.\n\nExamples:\n  moltbot models scan\n  \
             moltbot models scan --provider {usual} --no-probe\n  \
             moltbot models scan --max-age-days 90 --max-candidates 3 --yes\n  \
             moltbot models scan --json --no-probe"
        ))
}

/// What the flags say, in the shape of the JSON output.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Options {
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    #[serde(flatten)]
    filters: Filters,
    max_candidates: usize,
    timeout_ms: u64,
    concurrency: usize,
    probe: bool,
}

/// What a provider said, in the shape of the JSON output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    provider: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// `ok`, `no-list`, or the code of what failed.
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<u64>,
    new: usize,
    known: usize,
    not_offered: usize,
}

/// Everything that was found and done, in the shape of the JSON output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Scan {
    agent_id: String,
    started_at: i64,
    finished_at: i64,
    duration_ms: i64,
    options: Options,
    providers: Vec<Asked>,
    models: Vec<Row>,
    /// What was added to the fallbacks.
    added: Vec<String>,
    /// What was made the default model.
    set_default: Option<String>,
    /// What was made the image model.
    set_image: Option<String>,
}

/// What is to be written into the config.
#[derive(Debug, Default, PartialEq)]
struct Chosen {
    fallbacks: Vec<String>,
    default: Option<String>,
    image: Option<String>,
}

impl Options {
    fn parse(args: &ArgMatches) -> Result<Self, Failure> {
        let number = |name: &str, error: &str| -> Result<Option<f64>, Failure> {
            let Some(raw) = args.get_one::<String>(name) else { return Ok(None) };
            let number = raw.trim().parse::<f64>().ok();
            let number = number.filter(|number| number.is_finite() && *number > 0.0);
            number.map(Some).ok_or_else(|| Failure::input(error))
        };
        // A fraction of one model is one model.
        let count = |name: &str, usual: usize, error: &str| -> Result<usize, Failure> {
            Ok(number(name, error)?.map_or(usual, |number| (number as usize).max(1)))
        };
        let timeout = number("timeout", "--timeout must be a positive number (ms).")?;
        let text = args.get_one::<String>("provider").map(|text| text.trim());
        Ok(Self {
            provider: text.filter(|id| !id.is_empty()).map(String::from),
            filters: Filters {
                max_age_days: number("max-age-days", "--max-age-days must be > 0.")?,
                min_params: number("min-params", "--min-params must be > 0 (billions).")?,
            },
            max_candidates: count("max-candidates", 6, "--max-candidates must be > 0.")?,
            timeout_ms: timeout.map_or(8_000, |ms| (ms as u64).max(1)),
            concurrency: count("concurrency", 2, "--concurrency must be > 0.")?,
            probe: !args.get_flag("no-probe"),
        })
    }
}

pub(super) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let options = Options::parse(args)?;
    let json = args.get_flag("json");
    let agent = cx.agent(args)?;
    let engine = cx.engine(&agent)?;
    if let Some(id) = &options.provider {
        probe::known_provider(&engine, id)?;
    }
    let started = cx.now();
    let spinner =
        (cx.out.terminal().stderr && !json).then(|| Spinner::start("Asking for the models"));
    let (mut providers, offered) = ask(cx, &engine, &options)?;
    let mut models = Vec::new();
    for (asked, offered) in providers.iter_mut().zip(&offered) {
        let Some(offered) = offered else { continue };
        let rows = found::rows(&engine, &asked.provider, offered);
        let count = |status| rows.iter().filter(|row| row.status == status).count();
        asked.new = count(found::Status::New);
        asked.known = count(found::Status::Known);
        asked.not_offered = count(found::Status::NotOffered);
        models.extend(rows);
    }
    let unsized_names = options.filters.apply(&mut models, started)?;
    let tried = candidates(&models, &options);
    if options.probe {
        try_all(cx, &engine, &options, &offered, &tried, &mut models)?;
    }
    drop(spinner);
    let finished = cx.now();
    if !json {
        print(cx, &providers, &models, unsized_names);
    }
    let works: Vec<&Row> = tried.iter().map(|at| &models[*at]).filter(|row| row.works()).collect();
    let chosen = choose(cx, args, &engine, &works)?;
    apply(cx, &chosen)?;
    if json {
        cx.out.json(&Scan {
            agent_id: agent.id,
            started_at: started.millis(),
            finished_at: finished.millis(),
            duration_ms: finished.since(started),
            options,
            providers,
            models,
            added: chosen.fallbacks,
            set_default: chosen.default,
            set_image: chosen.image,
        });
        return Ok(Exit::OK);
    }
    for key in &chosen.fallbacks {
        cx.out.line(format!("Added fallback: {key}"));
    }
    for (label, key) in [("Default model", &chosen.default), ("Image model", &chosen.image)] {
        if let Some(key) = key {
            cx.out.line(format!("{label}: {key}"));
        }
    }
    Ok(Exit::OK)
}

/// Asks every provider that has a credential, or the one that was named.
fn ask(
    cx: &mut Context,
    engine: &Engine,
    options: &Options,
) -> Result<(Vec<Asked>, Vec<Option<Offered>>), Failure> {
    let named = options.provider.as_deref().and_then(|id| engine.provider(id));
    let ids: Vec<String> = engine
        .providers()
        .iter()
        .filter(|setup| named.is_none_or(|named| named.id == setup.id))
        .map(|setup| setup.id.clone())
        .collect();
    let (mut providers, mut lists, mut errors) = (Vec::new(), Vec::new(), Vec::<ChatError>::new());
    for id in ids {
        let answer = cx.block_on_cancel(engine.offered_models(&id, options.timeout_ms))?;
        let mut asked = Asked {
            provider: id,
            source: None,
            status: "ok".into(),
            error: None,
            latency_ms: None,
            new: 0,
            known: 0,
            not_offered: 0,
        };
        match &answer {
            Ok(Some(offered)) => {
                asked.source = Some(offered.target.label.clone());
                asked.latency_ms = Some(offered.latency_ms);
            }
            Ok(None) => {
                asked.status = "no-list".into();
                asked.error = Some("it has no list of models to ask for".into());
            }
            Err(error) => {
                asked.status = error.code.to_string();
                asked.error = Some(clean(&error.message).into_owned());
            }
        }
        providers.push(asked);
        lists.push(answer.unwrap_or_else(|error| {
            errors.push(error);
            None
        }));
    }
    if lists.iter().any(Option::is_some) {
        return Ok((providers, lists));
    }
    // What was refused tells more than what was never set up.
    errors.sort_by_key(|error| error.code == "no-credential");
    Err(match errors.into_iter().next() {
        Some(error) => {
            let mend =
                if error.code == "no-credential" { "onboard" } else { "models status --probe" };
            Failure::from(error).mend(format!("moltbot {mend}"))
        }
        None => {
            let names: Vec<&str> = providers.iter().map(|asked| asked.provider.as_str()).collect();
            let message = format!("{} has no list of models to ask for", names.join(", "));
            Failure::input(message).hint("`moltbot models list --all` shows the known ones")
        }
    })
}

/// Picks the rows to try: what is offered, the newest first, as the service lists them.
fn candidates(models: &[Row], options: &Options) -> Vec<usize> {
    let mut offered: Vec<usize> =
        (0..models.len()).filter(|at| models[*at].status != found::Status::NotOffered).collect();
    offered.sort_by_key(|at| std::cmp::Reverse(models[*at].created));
    offered.truncate(options.max_candidates);
    offered
}

/// Tries the candidates, several at once.
fn try_all(
    cx: &mut Context,
    engine: &Engine,
    options: &Options,
    offered: &[Option<Offered>],
    tried: &[usize],
    models: &mut [Row],
) -> Result<(), Failure> {
    let target = |row: &Row| {
        let offered = offered.iter().flatten().find(|o| o.target.provider == row.provider)?;
        Some(ProbeTarget { model: Some(row.model.clone()), ..offered.target.clone() })
    };
    let targets: Vec<ProbeTarget> = tried.iter().filter_map(|at| target(&models[*at])).collect();
    let each = ProbeOptions { timeout_ms: options.timeout_ms, ..ProbeOptions::default() };
    let probes = probe::all(engine, &targets, &each, options.concurrency);
    for (at, result) in tried.iter().zip(cx.block_on_cancel(probes)?) {
        models[*at].probe = Some(result.into());
    }
    Ok(())
}

fn print(cx: &mut Context, providers: &[Asked], models: &[Row], unsized_names: usize) {
    for asked in providers {
        let Asked { provider, source, new, known, not_offered, .. } = asked;
        match (&source, &asked.error) {
            (Some(source), _) => {
                let text = format!(
                    "{provider}: {} models offered to {} ({new} new, {known} known), \
                     {not_offered} in the catalog but not offered",
                    new + known,
                    clean(source),
                );
                cx.out.wrapped(text, 2);
            }
            // Nobody set it up, or it never has a list: nothing went wrong.
            (None, Some(_)) if matches!(&*asked.status, "no-credential" | "no-list") => {}
            (None, why) => {
                let why = why.as_deref().unwrap_or_default();
                cx.out.warn(format!("{provider} was not asked: {why}"));
            }
        }
    }
    if unsized_names > 0 {
        cx.out.note(format!("{unsized_names} models tell no size in their names, left out"));
    }
    if models.is_empty() {
        cx.out.line("No models found.");
        return;
    }
    cx.out.line("");
    let heading = ["Model", "State", "Created", "Context", "$/M in", "$/M out", "Try", "Tags"];
    let cells: Vec<Vec<String>> = models.iter().map(Row::cells).collect();
    cx.out.table(&heading, &cells);
    for row in models {
        if let Some(why) = row.probe.as_ref().and_then(|probe| probe.error.as_deref()) {
            cx.out.wrapped(format!("{}: {}", row.key, clean(why)), 2);
        }
    }
}

/// Decides what is written: by flags, or by asking.
fn choose(
    cx: &mut Context,
    args: &ArgMatches,
    engine: &Engine,
    works: &[&Row],
) -> Result<Chosen, Failure> {
    let flag = |name: &str| args.get_flag(name);
    let primary = engine.models().primary().model.to_string();
    let fallback = |row: &&&Row| row.key != primary && !row.is_fallback();
    let asks =
        cx.out.terminal().interactive() && !["json", "yes", "no-input"].into_iter().any(flag);
    let mut first: Vec<&Row> = works.to_vec();
    let mut fallbacks: Vec<&Row> = Vec::new();
    if flag("yes") {
        fallbacks = works.iter().filter(fallback).copied().collect();
    } else if asks && !works.is_empty() {
        let wanted = |row: &&&Row| flag("set-default") || flag("set-image") || fallback(row);
        let rows: Vec<&Row> = works.iter().filter(wanted).copied().collect();
        let chosen = if rows.is_empty() { HashSet::new() } else { pick(&rows)? };
        let mut rows = rows;
        rows.retain(|row| chosen.contains(&row.key));
        fallbacks = rows.iter().filter(fallback).copied().collect();
        first = rows;
    }
    let mut chosen = Chosen::default();
    if flag("set-default") {
        let Some(row) = first.first() else { return Err(nothing(works, "default")) };
        chosen.default = Some(row.key.clone());
    }
    if flag("set-image") {
        let Some(row) = first.iter().find(|row| row.images) else {
            return Err(nothing(works, "image"));
        };
        chosen.image = Some(row.key.clone());
    }
    // A model that answers first needs not stand among those that answer for it.
    fallbacks.retain(|row| chosen.default.as_ref() != Some(&row.key));
    chosen.fallbacks = fallbacks.into_iter().map(|row| row.key.clone()).collect();
    Ok(chosen)
}

fn nothing(works: &[&Row], what: &str) -> Failure {
    let why = match works.is_empty() {
        true => "no model that was tried answered",
        false => "no model that fits was chosen",
    };
    Failure::new(format!("The {what} model was not changed: {why}"))
        .code("model-not-found")
        .mend("moltbot models scan --max-candidates 20")
}

fn pick(rows: &[&Row]) -> Result<HashSet<String>, Failure> {
    let choice =
        |row: &&Row| Choice { value: row.key.clone(), label: row.key.clone(), hint: row.hint() };
    let choices: Vec<Choice<String>> = rows.iter().map(choice).collect();
    let label = "Which models shall answer when the first one fails? (space marks)";
    Ok(prompt::several(label, &choices, Vec::new()).map_err(stopped)?.into_iter().collect())
}

fn apply(cx: &mut Context, chosen: &Chosen) -> Result<(), Failure> {
    if *chosen == Chosen::default() {
        return Ok(());
    }
    cx.edit(|editor| {
        if let Some(key) = &chosen.default {
            editor.set_model(ModelSlot::Main, key)?;
        }
        if let Some(key) = &chosen.image {
            editor.set_model(ModelSlot::Image, key)?;
        }
        for key in &chosen.fallbacks {
            editor.add_fallback(ModelSlot::Main, key)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;

    fn options(line: &str) -> Result<Options, String> {
        let bench = Bench::new();
        let words = std::iter::once("scan").chain(line.split_whitespace());
        let args = command(bench.registry).try_get_matches_from(words).unwrap();
        Options::parse(&args).map_err(|failure| failure.message)
    }

    #[test]
    fn flags_and_their_complaints() {
        let usual = options("").unwrap();
        assert_eq!(
            (usual.max_candidates, usual.timeout_ms, usual.concurrency, usual.probe),
            (6, 8_000, 2, true)
        );
        for raw in ["0", "-1", "x", "NaN", "inf"] {
            for (flag, text) in [
                ("--max-candidates", "--max-candidates must be > 0."),
                ("--concurrency", "--concurrency must be > 0."),
                ("--timeout", "--timeout must be a positive number (ms)."),
                ("--max-age-days", "--max-age-days must be > 0."),
                ("--min-params", "--min-params must be > 0 (billions)."),
            ] {
                assert_eq!(options(&format!("{flag} {raw}")).unwrap_err(), text, "{raw}");
            }
        }
    }

    #[test]
    fn without_a_credential_and_without_a_list() {
        let bench = Bench::new();
        let none = bench.run(&["models", "scan", "--json"]);
        assert_eq!((none.code, none.stdout.as_str()), (1, ""));
        assert!(none.stderr.contains("No API key found for provider \"acme\""), "{}", none.stderr);
        assert!(none.stderr.contains("hint: moltbot onboard"), "{}", none.stderr);
        bench.key_and_token();
        let before = bench.files();
        // The made-up provider can say nothing about models.
        let mute = bench.run(&["models", "scan"]);
        assert_eq!(mute.code, 1);
        let text = "Error: acme has no list of models to ask for\n";
        assert!(mute.stderr.starts_with(text), "{}", mute.stderr);
        let unknown = bench.run(&["models", "scan", "--provider", "nobody"]);
        assert!(unknown.stderr.starts_with("Error: Unknown provider \"nobody\"\n"));
        assert_eq!(bench.files(), before);
    }
}
