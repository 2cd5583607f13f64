//! `moltbot models aliases`: short names for models (spec L-26).

use clap::{Arg, ArgMatches, Command};
use moltbot_config::AliasAdded;
use moltbot_core::Registry;
use serde_json::{Map, Value, json};

use super::{engine, resolve};
use crate::commands::{json_arg, usual_provider};
use crate::out::clean;
use crate::{Context, Exit, Failure, Outcome};

pub(super) fn command(registry: &Registry) -> Command {
    let alias = || Arg::new("alias").value_name("ALIAS").required(true).help("The short name");
    Command::new("aliases")
        .about("Show or change short names of models")
        .arg(json_arg())
        .subcommand(
            Command::new("list")
                .about("List them")
                .arg(json_arg())
                .after_help("Example:\n  moltbot models aliases list"),
        )
        .subcommand(
            Command::new("add")
                .about("Give a model a short name")
                .arg(alias())
                .arg(Arg::new("model").value_name("MODEL").required(true).help("The model"))
                .after_help(format!(
                    "Example:\n  moltbot models aliases add fast {}/<model>",
                    usual_provider(registry)
                )),
        )
        .subcommand(
            Command::new("remove")
                .about("Take a short name away")
                .arg(alias())
                .after_help("Example:\n  moltbot models aliases remove fast"),
        )
        .after_help("Example:\n  moltbot models aliases list --json")
}

pub(super) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let text = |args: &ArgMatches, name: &str| {
        args.get_one::<String>(name).expect("clap requires it").trim().to_string()
    };
    match args.subcommand() {
        Some(("add", args)) => add(cx, &text(args, "alias"), &text(args, "model")),
        Some(("remove", args)) => remove(cx, &text(args, "alias")),
        Some((_, args)) => list(cx, args.get_flag("json")),
        None => list(cx, args.get_flag("json")),
    }
}

fn list(cx: &mut Context, json: bool) -> Outcome {
    let aliases = engine(cx)?.models().aliases();
    if json {
        let map: Map<String, Value> =
            aliases.into_iter().map(|(alias, model)| (alias, json!(model.to_string()))).collect();
        cx.out.json(&json!({ "aliases": map }));
        return Ok(Exit::OK);
    }
    if aliases.is_empty() {
        cx.out.line("Aliases (0): none");
        return Ok(Exit::OK);
    }
    cx.out.line(format!("Aliases ({}):", aliases.len()));
    for (alias, model) in aliases {
        cx.out.line(format!("- {} -> {}", clean(&alias), clean(&model.to_string())));
    }
    Ok(Exit::OK)
}

fn add(cx: &mut Context, alias: &str, raw: &str) -> Outcome {
    let good = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
    if alias.is_empty() || !alias.chars().all(good) {
        let message = format!("Invalid alias \"{alias}\" (use letters, numbers, \"_.:-\" only)");
        return Err(Failure::input(message));
    }
    let model = resolve(cx, raw)?;
    let engine = engine(cx)?;
    let same = |other: &str| other.eq_ignore_ascii_case(alias);
    let taken = engine.models().aliases().into_iter().find(|(name, _)| same(name));
    if let Some((_, other)) = taken.filter(|(_, other)| *other != model) {
        return Err(Failure::input(format!("Alias {alias} already points to {other}.")));
    }
    let used = engine.models().candidates(None)?.models;
    let added = cx.edit(|editor| {
        let added = editor.add_alias(alias, &model.to_string())?;
        if added == AliasAdded::AddedAndLimited {
            // The list of models is the allowlist too: what is in use has to stand in it, or it
            // would be shut out without a word.
            for model in &used {
                editor.allow_model(&model.to_string())?;
            }
        }
        Ok(added)
    })?;
    if added == AliasAdded::AddedAndLimited {
        cx.out.warn(
            "agents.defaults.models is an allowlist: from now on only the models in it may be used",
        );
    }
    cx.out.line(format!("Alias {alias} -> {model}"));
    Ok(Exit::OK)
}

fn remove(cx: &mut Context, alias: &str) -> Outcome {
    cx.edit(|editor| match editor.remove_alias(alias)? {
        Some(_) => Ok(()),
        None => Err(Failure::input(format!("Alias not found: {alias}"))),
    })?;
    cx.out.line(format!("Removed alias: {alias}"));
    Ok(Exit::OK)
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    fn run(bench: &Bench, args: &[&str]) -> (u8, String, String) {
        let ran = bench.run(&[&["models", "aliases"], args].concat());
        (ran.code, ran.stdout, ran.stderr)
    }

    #[test]
    fn an_alias_is_added_found_and_removed() {
        let bench = Bench::new();
        let (code, stdout, stderr) = run(&bench, &["add", "fast", "tiny"]);
        assert_eq!((code, stdout.as_str()), (0, "Alias fast -> acme/tiny\n"), "{stderr}");
        assert!(stderr.contains("allowlist"), "{stderr}");
        // The model in use is not shut out by the list that begins here.
        let models = &bench.config_value()["agents"]["defaults"]["models"];
        assert!(models["acme/big-1"].is_object() && models["acme/tiny"].is_object(), "{models}");
        let (_, stdout, _) = run(&bench, &["list", "--json"]);
        let list: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(list["aliases"]["fast"], "acme/tiny");
        assert_eq!(run(&bench, &["add", "FAST", "acme/tiny"]).0, 0);
        let taken = run(&bench, &["add", "fast", "acme/big-2"]);
        assert!(
            taken.2.starts_with("Error: Alias fast already points to acme/tiny.\n"),
            "{}",
            taken.2
        );
        assert_eq!(run(&bench, &["remove", "fast"]).0, 0);
        let gone = run(&bench, &["remove", "fast"]);
        assert_eq!(gone.0, 1);
        assert!(gone.2.starts_with("Error: Alias not found: fast\n"), "{}", gone.2);
    }

    #[test]
    fn odd_names_are_refused() {
        let bench = Bench::new();
        for alias in ["a b", "a/b", "ä", ""] {
            assert_eq!(run(&bench, &["add", alias, "tiny"]).0, 1, "{alias}");
        }
        assert!(!bench.config_path().exists());
    }
}
