//! `moltbot models list`: the configured models, or all that are known (spec L-24).

use clap::{Arg, ArgAction, ArgMatches, Command};
use moltbot_core::{ModelInfo, Price, Registry};
use moltbot_gateway::{Engine, ModelRef};
use moltbot_profiles::{Profiles, normalize_provider};
use serde::Serialize;
use serde_json::json;

use crate::commands::{json_arg, usual_provider};
use crate::{Context, Exit, Failure, Outcome};

pub(super) fn command(registry: &Registry) -> Command {
    let flag = |id: &'static str, help: &'static str| {
        Arg::new(id).long(id).help(help).action(ArgAction::SetTrue)
    };
    Command::new("list")
        .about("List the configured models, or all that are known")
        .arg(flag("all", "List the whole catalog too"))
        .arg(flag("local", "List only models served from this machine"))
        .arg(
            Arg::new("provider")
                .long("provider")
                .value_name("ID")
                .help("List only this provider's models"),
        )
        .arg(json_arg())
        .arg(flag("plain", "Print only the keys").conflicts_with("json"))
        .after_help(format!(
            "Examples:\n  moltbot models list\n  moltbot models list --all --provider {}",
            usual_provider(registry)
        ))
}

/// One row, in the shape of the JSON output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    key: String,
    name: String,
    input: String,
    context_window: Option<u64>,
    local: bool,
    available: bool,
    tags: Vec<String>,
    missing: bool,
    cost: Option<Cost>,
}

/// Prices in US dollars per million tokens.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cost {
    pub(super) input: f64,
    pub(super) output: f64,
    cache_read: f64,
    cache_write: f64,
    cache_write_1h: f64,
}

pub(super) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let rows = rows(cx, args)?;
    if args.get_flag("json") {
        cx.out.json(&json!({ "count": rows.len(), "models": rows }));
        return Ok(Exit::OK);
    }
    if args.get_flag("plain") {
        for row in &rows {
            cx.out.line(crate::out::clean(&row.key));
        }
        return Ok(Exit::OK);
    }
    if rows.is_empty() {
        cx.out.line("No models found.");
        return Ok(Exit::OK);
    }
    let cells: Vec<Vec<String>> = rows.iter().map(Row::cells).collect();
    let heading = ["Model", "Input", "Context", "$/M in", "$/M out", "Local", "Auth", "Tags"];
    cx.out.table(&heading, &cells);
    Ok(Exit::OK)
}

fn rows(cx: &mut Context, args: &ArgMatches) -> Result<Vec<Row>, Failure> {
    let agent = cx.agent_by_id(None)?;
    let engine = cx.engine(&agent)?;
    let profiles = cx.store(&agent).load_blocking()?.profiles;
    let wanted = args.get_one::<String>("provider").map(|raw| {
        let id = normalize_provider(raw);
        cx.registry.provider(&id).map_or(id, |entry| entry.info.id.to_string())
    });
    if let Some(id) = wanted.as_deref().filter(|id| engine.provider(id).is_none()) {
        let id = crate::out::clean(id);
        cx.out.warn(format!("\"{id}\" is no provider of this build or of the config"));
    }
    let mut models: Vec<(ModelRef, Vec<String>)> = Vec::new();
    for listed in engine.models().listed() {
        models.push((listed.model, listed.tags));
    }
    if args.get_flag("all") {
        for setup in engine.providers() {
            for info in &setup.info.catalog {
                let model = ModelRef { provider: setup.id.clone(), model: info.id.to_string() };
                if !models.iter().any(|(known, _)| *known == model) {
                    models.push((model, Vec::new()));
                }
            }
        }
    }
    let mut rows: Vec<Row> = models
        .into_iter()
        .filter(|(model, _)| wanted.as_ref().is_none_or(|id| model.provider == *id))
        .map(|(model, tags)| row(&engine, &profiles, &model, tags))
        .collect();
    rows.retain(|row| row.local || !args.get_flag("local"));
    Ok(rows)
}

fn row(engine: &Engine, profiles: &Profiles, model: &ModelRef, mut tags: Vec<String>) -> Row {
    let info = engine.models().info(model);
    let setup = engine.provider(&model.provider);
    let missing = info.is_none();
    if missing {
        tags.push("missing".to_string());
    }
    let available = setup.is_some()
        && (profiles.of_provider(&model.provider).next().is_some()
            || !engine.other_sources(&model.provider).0.is_empty());
    Row {
        key: model.to_string(),
        name: info.map_or_else(|| model.model.clone(), |info| info.name.to_string()),
        input: input(info).to_string(),
        context_window: info.map(|info| info.context_window).filter(|size| *size > 0),
        local: setup.is_some_and(|setup| is_local(&setup.base_url)),
        available,
        tags,
        missing,
        cost: info.map(|info| info.price).filter(Price::is_known).map(Cost::from),
    }
}

fn input(info: Option<&ModelInfo>) -> &'static str {
    match info {
        Some(info) if info.images => "text+image",
        Some(_) => "text",
        None => "-",
    }
}

/// Tells whether an address is on this machine.
fn is_local(url: &str) -> bool {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = host.split(['/', '?']).next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl From<Price> for Cost {
    fn from(price: Price) -> Self {
        Self {
            input: price.input,
            output: price.output,
            cache_read: price.cache_read,
            cache_write: price.cache_write_5m,
            cache_write_1h: price.cache_write_1h,
        }
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let context = match self.context_window {
            Some(size) => format!("{}k", size.div_ceil(1000)),
            None => "-".to_string(),
        };
        let price = |pick: fn(&Cost) -> f64| match &self.cost {
            Some(cost) => format!("{:.2}", pick(cost)),
            None => "-".to_string(),
        };
        let word = |yes: bool| if yes { "yes" } else { "no" }.to_string();
        vec![
            self.key.clone(),
            self.input.clone(),
            context,
            price(|cost| cost.input),
            price(|cost| cost.output),
            word(self.local),
            word(self.available),
            self.tags.join(","),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::testing::Bench;

    fn json(bench: &Bench, args: &[&str]) -> Value {
        let ran = bench.run(&[&["models", "list", "--json"], args].concat());
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}{}", ran.stdout, ran.stderr))
    }

    #[test]
    fn configured_models_with_their_tags() {
        let bench = Bench::new();
        bench.key_and_token();
        bench.config(
            "{ agents: { defaults: { model: { primary: 'big', fallbacks: ['acme/gone-1'] } } } }",
        );
        let list = json(&bench, &[]);
        assert_eq!(list["count"], 2);
        let first = &list["models"][0];
        let keys: Vec<_> = first.as_object().unwrap().keys().cloned().collect();
        let wanted = [
            "key",
            "name",
            "input",
            "contextWindow",
            "local",
            "available",
            "tags",
            "missing",
            "cost",
        ];
        assert_eq!(keys, wanted);
        assert_eq!((&first["key"], &first["tags"][0]), (&"acme/big-2".into(), &"default".into()));
        assert_eq!((&first["available"], &first["cost"]["input"]), (&true.into(), &5.0.into()));
        let second = &list["models"][1];
        assert_eq!(second["missing"], true);
        assert!(second["tags"].to_string().contains("fallback#1"), "{second}");
    }

    #[test]
    fn the_whole_catalog_and_nothing() {
        let bench = Bench::new();
        let all = bench.run(&["models", "list", "--all", "--plain"]).stdout;
        assert!(all.lines().any(|line| line == "acme/tiny"), "{all}");
        assert_eq!(json(&bench, &["--local"]), serde_json::json!({ "count": 0, "models": [] }));
        let none = bench.run(&["models", "list", "--provider", "nobody"]);
        assert_eq!((none.code, none.stdout.as_str()), (0, "No models found.\n"));
    }

    #[test]
    fn local_addresses() {
        for url in ["http://localhost:1/v1", "http://127.0.0.1", "http://[::1]:80/x"] {
            assert!(is_local(url), "{url}");
        }
        for url in ["https://api.acme.test", "https://localhost.acme.test", "http://10.0.0.1:80"] {
            assert!(!is_local(url), "{url}");
        }
    }
}
