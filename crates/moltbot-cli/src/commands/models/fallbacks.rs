//! `moltbot models fallbacks`, `image-fallbacks`: the models to try next (spec L-27).

use clap::{Arg, ArgMatches, Command};
use moltbot_config::ModelSlot;
use moltbot_core::Registry;
use moltbot_gateway::Engine;
use serde_json::json;

use super::{engine, resolve};
use crate::commands::{json_arg, usual_provider};
use crate::{Context, Exit, Failure, Outcome};

pub(super) fn command(registry: &Registry) -> Command {
    described("fallbacks", "Show or change the models to try when the first one fails", registry)
}

pub(super) fn image_command(registry: &Registry) -> Command {
    described("image-fallbacks", "Show or change the image models to try next", registry)
}

fn described(name: &'static str, about: &'static str, registry: &Registry) -> Command {
    let usual = usual_provider(registry);
    let model =
        || Arg::new("model").value_name("MODEL").required(true).help("An alias or provider/model");
    let line = |verb: &str| format!("Example:\n  moltbot models {name} {verb}");
    Command::new(name)
        .about(about)
        .arg(json_arg())
        .subcommand(
            Command::new("list").about("List them").arg(json_arg()).after_help(line("list --json")),
        )
        .subcommand(
            Command::new("add")
                .about("Add a model at the end")
                .arg(model())
                .after_help(line(&format!("add {usual}/<model>"))),
        )
        .subcommand(
            Command::new("remove")
                .about("Remove a model")
                .arg(model())
                .after_help(line(&format!("remove {usual}/<model>"))),
        )
        .subcommand(Command::new("clear").about("Remove all of them").after_help(line("clear")))
        .after_help(line("list"))
}

pub(super) fn run(cx: &mut Context, args: &ArgMatches, slot: ModelSlot) -> Outcome {
    let model =
        |args: &ArgMatches| args.get_one::<String>("model").expect("clap requires it").clone();
    match args.subcommand() {
        Some(("add", args)) => add(cx, &model(args), slot),
        Some(("remove", args)) => remove(cx, &model(args), slot),
        Some(("clear", _)) => clear(cx, slot),
        Some((_, args)) => list(cx, args.get_flag("json"), slot),
        None => list(cx, args.get_flag("json"), slot),
    }
}

fn list(cx: &mut Context, json: bool, slot: ModelSlot) -> Outcome {
    let engine = engine(cx)?;
    let keys: Vec<String> = written(cx, slot)?.iter().map(|raw| key(&engine, raw)).collect();
    if json {
        cx.out.json(&json!({ "fallbacks": keys }));
    } else {
        print(cx, &keys);
    }
    Ok(Exit::OK)
}

fn add(cx: &mut Context, raw: &str, slot: ModelSlot) -> Outcome {
    let model = resolve(cx, raw)?.to_string();
    let engine = engine(cx)?;
    cx.edit(|editor| {
        // One that stands there under an alias is the same one.
        let known = editor.fallbacks(slot).iter().any(|raw| key(&engine, raw) == model);
        if !known {
            editor.add_fallback(slot, &model)?;
        }
        Ok(())
    })?;
    list(cx, false, slot)
}

fn remove(cx: &mut Context, raw: &str, slot: ModelSlot) -> Outcome {
    let engine = engine(cx)?;
    let model = engine.models().parse(raw)?.model.to_string();
    cx.edit(|editor| {
        let all = editor.fallbacks(slot);
        let Some(found) = all.iter().find(|raw| key(&engine, raw) == model) else {
            return Err(Failure::input(format!("Fallback not found: {model}")));
        };
        editor.remove_fallback(slot, found)?;
        Ok(())
    })?;
    list(cx, false, slot)
}

fn clear(cx: &mut Context, slot: ModelSlot) -> Outcome {
    cx.edit(|editor| Ok(editor.clear_fallbacks(slot)?))?;
    cx.out.line("Fallback list cleared.");
    Ok(Exit::OK)
}

/// Resolves an alias; what cannot be resolved stays as it is.
fn key(engine: &Engine, raw: &str) -> String {
    engine.models().parse(raw).map_or_else(|_| raw.to_string(), |parsed| parsed.model.to_string())
}

/// Returns the fallbacks as they stand in the config.
fn written(cx: &mut Context, slot: ModelSlot) -> Result<Vec<String>, Failure> {
    let config = cx.config()?;
    let defaults = config.agents.as_ref().and_then(|agents| agents.defaults.as_ref());
    let choice = defaults.and_then(|defaults| match slot {
        ModelSlot::Main => defaults.model.as_ref(),
        ModelSlot::Image => defaults.image_model.as_ref(),
    });
    Ok(choice.and_then(|choice| choice.fallbacks.clone()).unwrap_or_default())
}

fn print(cx: &mut Context, keys: &[String]) {
    if keys.is_empty() {
        cx.out.line("Fallbacks (0): none");
        return;
    }
    cx.out.line(format!("Fallbacks ({}):", keys.len()));
    for key in keys {
        cx.out.line(format!("- {}", crate::out::clean(key)));
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    fn list(bench: &Bench, name: &str) -> serde_json::Value {
        let ran = bench.run(&["models", name, "list", "--json"]);
        serde_json::from_str(&ran.stdout).unwrap()
    }

    #[test]
    fn add_remove_clear() {
        for name in ["fallbacks", "image-fallbacks"] {
            let bench = Bench::new();
            bench.config(
                "{ agents: { defaults: { model: 'acme/big-2', imageModel: 'acme/big-2' } } }",
            );
            for model in ["tiny", "acme/tiny", "acme/x"] {
                assert_eq!(bench.run(&["models", name, "add", model]).code, 0);
            }
            assert_eq!(
                list(&bench, name),
                serde_json::json!({ "fallbacks": ["acme/tiny", "acme/x"] })
            );
            assert_eq!(bench.run(&["models", name, "remove", "tiny"]).code, 0);
            assert_eq!(list(&bench, name), serde_json::json!({ "fallbacks": ["acme/x"] }));
            let gone = bench.run(&["models", name, "remove", "tiny"]);
            assert_eq!(gone.code, 1);
            assert!(gone.stderr.starts_with("Error: Fallback not found: acme/tiny\n"));
            assert_eq!(bench.run(&["models", name, "clear"]).stdout, "Fallback list cleared.\n");
            assert_eq!(list(&bench, name), serde_json::json!({ "fallbacks": [] }));
            let text = bench.config_text();
            assert!(text.contains("primary"), "{text}");
        }
    }
}
