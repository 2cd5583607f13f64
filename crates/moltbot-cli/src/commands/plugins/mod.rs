//! `moltbot plugins`: what this build is made of, and which plugins from outside it uses.

#[cfg_attr(not(feature = "carriers"), path = "uncarried.rs")]
pub(crate) mod carried;
pub(crate) mod doctor;
pub(crate) mod row;
#[cfg(feature = "carriers")]
mod trust;

use clap::{Arg, ArgMatches, Command};
use moltbot_core::{Offer, Plugin, Registry};
use serde_json::{Value, json};

use crate::text::nearest;
use crate::{Context, Exit, Failure, Outcome};

use super::{json_arg, terms};

/// Describes the command.
pub(crate) fn command(_: &Registry) -> Command {
    let command = Command::new("plugins")
        .about("Show the plugins of this build, and use others from outside")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("list")
                .about("List the plugins")
                .arg(json_arg())
                .after_help("Example:\n  moltbot plugins list --json"),
        )
        .subcommand(
            Command::new("info")
                .about("Show one plugin: what it offers and what it asks the host for")
                .arg(Arg::new("id").value_name("ID").required(true).help("The plugin's id"))
                .arg(json_arg())
                .after_help("Example:\n  moltbot plugins info api-key"),
        )
        .subcommand(
            Command::new("doctor")
                .about("Say what became of the plugins from outside")
                .after_help("Example:\n  moltbot plugins doctor"),
        )
        .after_help("Examples:\n  moltbot plugins list\n  moltbot plugins info <id>");
    #[cfg(feature = "carriers")]
    let command = command.subcommands(trust::commands()).after_help(
        "Examples:\n  moltbot plugins list\n  moltbot plugins info <id>\n  \
         moltbot plugins trust <path>",
    );
    command
}

/// Runs a subcommand.
pub(crate) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    match args.subcommand() {
        Some(("info", args)) => info(cx, args),
        #[cfg(feature = "carriers")]
        Some(("trust", args)) => trust::trust(cx, args),
        #[cfg(feature = "carriers")]
        Some(("untrust", args)) => trust::untrust(cx, args),
        #[cfg(feature = "carriers")]
        Some(("check", args)) => trust::check(cx, args),
        Some(("doctor", _)) => doctor::run(cx),
        Some((_, args)) => list(cx, args),
        None => unreachable!("clap requires a subcommand"),
    }
}

fn list(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let registry = cx.registry;
    if args.get_flag("json") {
        // What this build holds is known whatever the config says.
        let workspace = cx.load().ok().and_then(|loaded| loaded.config.agents?.defaults?.workspace);
        let used = registry.plugins().iter().map(|plugin| summary(cx, registry, plugin));
        let plugins: Vec<_> = used.chain(unused(cx)).collect();
        let list = json!({
            "workspaceDir": workspace,
            "plugins": plugins,
            "diagnostics": diagnostics(cx),
        });
        cx.out.json(&list);
        return Ok(Exit::OK);
    }
    let rows: Vec<Vec<String>> = registry
        .plugins()
        .iter()
        .map(|plugin| {
            let mut brings = Vec::new();
            brings.extend(providers(registry, plugin).map(|id| format!("provider {id}")));
            brings.extend(plugin.auth.iter().map(|method| format!("auth {}", method.id())));
            vec![plugin.id.into(), plugin.version.into(), brings.join(", "), plugin.about.into()]
        })
        .collect();
    cx.out.table(&["Id", "Version", "Brings", "About"], &rows);
    outside(cx);
    Ok(Exit::OK)
}

/// Lists the files of the config, what is in them, and why some are not used.
fn outside(cx: &mut Context) {
    let rows: Vec<Vec<String>> = cx
        .carried()
        .iter()
        .map(|row| {
            let (state, why) = match &row.problem {
                None => {
                    let ids: Vec<_> = row.plugins.iter().map(|plugin| plugin.id).collect();
                    (format!("used: {}", ids.join(", ")), row.complaints.join("; "))
                }
                Some(problem) => {
                    ("not used".to_string(), format!("{} ({})", problem.reason, problem.hint))
                }
            };
            vec![cx.shown(&row.path), row.kind.to_string(), state, why]
        })
        .collect();
    if !rows.is_empty() {
        cx.out.line("");
        cx.out.table(&["From outside", "Kind", "State", "Why"], &rows);
    }
}

fn info(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let registry = cx.registry;
    let id = args.get_one::<String>("id").expect("clap requires it");
    let Some(plugin) = registry.plugins().iter().find(|plugin| plugin.id == id) else {
        let failure = Failure::new(format!("Plugin not found: {id}")).code("plugin-missing");
        let known = registry.plugins().iter().map(|plugin| plugin.id);
        return Err(match nearest(id, known) {
            Some(name) => failure.hint(format!("moltbot plugins info {name}")),
            None => failure.hint("`moltbot plugins list` shows what is there"),
        });
    };
    if args.get_flag("json") {
        let mut value = summary(cx, registry, plugin);
        value["offers"] = offers(registry, plugin).map(describe).collect();
        cx.out.json(&value);
        return Ok(Exit::OK);
    }
    describe_plugin(cx, registry, plugin);
    Ok(Exit::OK)
}

/// Shows a plugin with everything it offers and asks for.
fn describe_plugin(cx: &mut Context, registry: &Registry, plugin: &Plugin) {
    cx.out.line(format!("{} {}", plugin.id, plugin.version));
    cx.out.line(plugin.about);
    cx.out.line(format!("Built for core: {}", plugin.core));
    for id in providers(registry, plugin) {
        cx.out.line(format!("Provider: {id}"));
    }
    for offer in offers(registry, plugin) {
        cx.out.line("");
        cx.out.line(format!("--auth-choice {}: {}", offer.choice, offer.label));
        let mut facts = vec![("profile", offer.profile.to_string())];
        let flags: Vec<_> = offer.fields.iter().filter_map(|field| field.flag.as_deref()).collect();
        facts.push((
            "flags",
            flags.iter().map(|flag| format!("--{flag}")).collect::<Vec<_>>().join(", "),
        ));
        let verbs: Vec<_> = offer.verbs.iter().map(|verb| verb.name.to_string()).collect();
        facts.push(("verbs", verbs.join(", ")));
        facts.push(("hosts", offer.needs.hosts.join(", ")));
        facts.push(("programs", offer.needs.programs.join(", ")));
        let files: Vec<_> =
            offer.needs.files.iter().map(|file| format!("{}/{}", file.dir, file.path)).collect();
        facts.push(("files", files.join(", ")));
        facts.push(("keyring", offer.needs.keyring.join(", ")));
        let named = offer.fields.iter().filter(|field| offer.needs.answers.contains(&field.id));
        let named: Vec<_> = named.filter_map(|field| field.flag.as_deref()).collect();
        let named = named.iter().map(|flag| format!("what --{flag} names")).collect::<Vec<_>>();
        facts.push(("also", named.join(", ")));
        facts.push(("terms", terms(offer)));
        for (name, text) in facts.into_iter().filter(|(_, text)| !text.is_empty()) {
            cx.out.line(format!("  {name:<9}{text}"));
        }
    }
}

/// Describes the files that are trusted and not used.
fn unused(cx: &Context) -> impl Iterator<Item = Value> {
    let rows = cx.carried().iter().filter_map(|row| Some((row, row.problem.as_ref()?)));
    rows.map(|(row, problem)| {
        json!({
            "id": null,
            "origin": row.kind,
            "path": row.path.display().to_string(),
            "enabled": true,
            "status": "error",
            "error": problem.reason,
        })
    })
}

fn diagnostics(cx: &Context) -> Vec<Value> {
    let said = |level: &str, path: &std::path::Path, message: &str, hint: Option<&str>| {
        let path = path.display().to_string();
        json!({ "level": level, "path": path, "message": message, "hint": hint })
    };
    let mut list = Vec::new();
    for row in cx.carried() {
        let problem = row.problem.as_ref();
        list.extend(problem.map(|it| said("error", &row.path, &it.reason, Some(it.hint.as_str()))));
        list.extend(row.complaints.iter().map(|it| said("warn", &row.path, it, None)));
    }
    list
}

fn summary(cx: &Context, registry: &Registry, plugin: &Plugin) -> Value {
    let row = cx.carried().iter().find(|row| row.plugins.iter().any(|one| one.id == plugin.id));
    json!({
        "id": plugin.id,
        "version": plugin.version,
        "description": plugin.about,
        "core": plugin.core,
        "origin": row.map_or("linked", |row| row.kind),
        "path": row.map(|row| row.path.display().to_string()),
        "enabled": true,
        "status": "loaded",
        "providers": providers(registry, plugin).collect::<Vec<_>>(),
        "auth": plugin.auth.iter().map(|method| method.id()).collect::<Vec<_>>(),
        "choices": offers(registry, plugin).map(|offer| &offer.choice).collect::<Vec<_>>(),
        "codes": plugin.codes.iter().map(|code| &code.id).collect::<Vec<_>>(),
    })
}

fn describe(offer: &Offer) -> Value {
    json!({
        "choice": offer.choice,
        "aliases": offer.aliases,
        "label": offer.label,
        "profile": offer.profile,
        "kind": offer.kind,
        "flags": offer.fields.iter().filter_map(|field| field.flag.clone()).collect::<Vec<_>>(),
        "verbs": offer.verbs.iter().map(|verb| &verb.name).collect::<Vec<_>>(),
        "needs": offer.needs,
        "policy": offer.policy,
        "payer": offer.payer,
    })
}

fn providers<'r>(registry: &'r Registry, plugin: &Plugin) -> impl Iterator<Item = &'r str> {
    let id = plugin.id;
    let entries = registry.providers().iter().filter(move |entry| entry.plugin.id == id);
    entries.map(|entry| entry.info.id.as_ref())
}

fn offers(registry: &Registry, plugin: &Plugin) -> impl Iterator<Item = &'static Offer> {
    let id = plugin.id;
    let entries = registry.offers().iter().filter(move |entry| entry.plugin.id == id);
    entries.map(|entry| entry.offer)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::testing::Bench;

    #[test]
    fn the_list_names_every_plugin() {
        let bench = Bench::new();
        let list: Value =
            serde_json::from_str(&bench.run(&["plugins", "list", "--json"]).stdout).unwrap();
        let keys: Vec<_> = list.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["workspaceDir", "plugins", "diagnostics"]);
        assert_eq!(list["plugins"][0]["id"], "acme");
        assert_eq!(list["plugins"][0]["providers"][0], "acme");
        assert!(bench.run(&["plugins", "list"]).stdout.contains("provider acme"));
    }

    #[test]
    fn a_plugin_shows_its_offers_and_needs() {
        let bench = Bench::new();
        let text = bench.run(&["plugins", "info", "acme"]).stdout;
        assert!(
            text.contains("--auth-choice acmeKey") && text.contains("--acme-api-key"),
            "{text}"
        );
        assert!(text.contains("[paid per use]"), "{text}");
        let ran = bench.run(&["plugins", "info", "acne"]);
        assert_eq!(
            (ran.code, ran.stderr.as_str()),
            (
                1,
                "Error: Plugin not found: acne\nhint: moltbot plugins info acme\n\
                 hint: moltbot explain plugin-missing\n"
            )
        );
    }

    #[test]
    fn an_invalid_config_does_not_hide_the_build() {
        let bench = Bench::new();
        bench.config("{ nonsense: 1 }");
        assert_eq!(bench.run(&["plugins", "list", "--json"]).code, 0);
    }
}
