//! `moltbot plugins trust|untrust|check`: which plugins from outside are used.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use moltbot_abi::host::{self, Carried, Checked, Kind, Pin};
use moltbot_config::Editor;
use moltbot_core::{Plugin, Registry};
use serde_json::{Value, json};

use super::carried::{self, word};
use crate::out::Tone;
use crate::{Context, Exit, Failure, Outcome, prompt, tree};

/// Describes the commands.
pub(super) fn commands() -> [Command; 3] {
    let path = || {
        let path = Arg::new("path").value_name("PATH").required(true);
        path.value_parser(value_parser!(PathBuf)).help("The plugin's file")
    };
    let kind = || {
        let kind = Arg::new("kind").long("kind").value_name("KIND");
        kind.value_parser(PossibleValuesParser::new(["library", "process"]))
            .help("How to run it, if not as it looks")
    };
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
    };
    [
        Command::new("trust")
            .about("Use a plugin from outside: show what it is, then list it in the config")
            .arg(path())
            .arg(kind())
            .arg(flag("retry", "Try it although it took the program down before"))
            .arg(flag("yes", "Ask nothing"))
            .after_help("Example:\n  moltbot plugins trust ~/plugins/libacme_sso.so"),
        Command::new("untrust")
            .about("Take a plugin from outside off the list")
            .arg(Arg::new("plugin").value_name("ID|PATH").required(true).help("Id or file"))
            .after_help("Example:\n  moltbot plugins untrust acme-sso"),
        Command::new("check")
            .about("Load a file and say what is in it, without using it")
            .arg(path())
            .arg(kind())
            .after_help("Example:\n  moltbot plugins check target/debug/libacme_sso.so"),
    ]
}

/// Lists a plugin in the config after showing it.
pub(super) fn trust(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let (file, pin) = examine(cx, args)?;
    let yes = args.get_flag("yes");
    let shown = cx.shown(&file.path);
    cx.out.line(format!("File: {shown}"));
    cx.out.line(format!("SHA-256: {}", file.sha256));
    cx.out.line(format!("Runs as: {}", word(pin.kind)));
    if pin.kind == Kind::Library {
        // A library can do whatever this program can; that begins with loading it.
        ask(cx, yes, "Its code will run inside this program, with all your rights. Load it?")?;
    }
    let carried = open(cx, &file, &pin, args.get_flag("retry"))?;
    show(cx, &carried)?;
    if pin.kind == Kind::Process || !yes {
        ask(cx, yes, "Use it from now on?")?;
    }
    let entry = json!({
        "path": file.path.display().to_string(),
        "sha256": file.sha256,
        "kind": word(pin.kind),
    });
    let home = cx.home().to_path_buf();
    cx.edit(|editor| put(editor, &entry, &home))?;
    // All of them have just been asked about each other's providers.
    let others = cx.carried().iter().flat_map(|row| row.carried.iter());
    host::keep(others.chain(&carried), &carried::place(cx.paths(), &cx.process_vars()));
    let ids: Vec<_> = carried.iter().map(|one| one.plugin().id).collect();
    cx.out.line(format!("Trusted: {}", ids.join(", ")));
    Ok(Exit::OK)
}

/// Takes a plugin off the list.
pub(super) fn untrust(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let wanted = args.get_one::<String>("plugin").expect("clap requires it").clone();
    let absolute = cx.cwd().join(&wanted);
    let rows = cx.carried().to_vec();
    let found = rows.iter().find(|row| {
        row.path == absolute
            || std::fs::canonicalize(&absolute).is_ok_and(|path| path == row.path)
            || row.plugins.iter().any(|plugin| plugin.id == wanted)
    });
    let Some(row) = found else {
        let failure = Failure::new(format!("No trusted plugin is called {wanted}"));
        return Err(failure.hint("`moltbot plugins list` shows ids and files"));
    };
    let home = cx.home().to_path_buf();
    let removed = cx.edit(|editor| {
        let path = "plugins.trusted".parse().expect("a constant path");
        let mut list = entries(editor);
        let before = list.len();
        list.retain(|entry| expanded(entry, &home).as_ref() != Some(&row.path));
        let removed = before - list.len();
        editor.set(&path, &Value::Array(list))?;
        Ok(removed)
    })?;
    if removed == 0 {
        return Err(Failure::new("The entry is no longer in the config"));
    }
    if let Ok(loaded) = cx.load() {
        let left = carried::pins(&loaded.config.plugins.clone().unwrap_or_default(), &home);
        host::forget_others(&left, &carried::place(cx.paths(), &cx.process_vars()));
    }
    let shown = cx.shown(&row.path);
    cx.out.line(format!("No longer trusted: {shown}"));
    Ok(Exit::OK)
}

/// Loads a file and shows it.
pub(super) fn check(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let (file, pin) = examine(cx, args)?;
    let carried = open(cx, &file, &pin, false)?;
    cx.out.line(format!("SHA-256: {}", file.sha256));
    cx.out.line(format!("Runs as: {}", word(pin.kind)));
    show(cx, &carried)?;
    let text = cx.out.paint(Tone::Good, "It can be used.");
    cx.out.line(text);
    Ok(Exit::OK)
}

fn examine(cx: &mut Context, args: &ArgMatches) -> Result<(Checked, Pin), Failure> {
    let path = args.get_one::<PathBuf>("path").expect("clap requires it");
    let file = host::read(&cx.cwd().join(path), None).map_err(failure)?;
    let kind = match args.get_one::<String>("kind").map(String::as_str) {
        Some("library") => Kind::Library,
        Some(_) => Kind::Process,
        None => host::kind_of(&file),
    };
    // Only the config's owner can accept a library in which a panic is the program's end.
    let plugins = cx.load().ok().and_then(|loaded| loaded.config.plugins).unwrap_or_default();
    let listed = plugins.trusted.iter().map(|entry| carried::pin(entry, cx.home()));
    let allow_abort = listed.into_iter().any(|pin| pin.path == file.path && pin.allow_abort);
    let (path, sha256) = (file.path.clone(), file.sha256.clone());
    Ok((file, Pin { path, sha256, kind, allow_abort }))
}

fn open(cx: &Context, file: &Checked, pin: &Pin, retry: bool) -> Result<Vec<Carried>, Failure> {
    let place = carried::place(cx.paths(), &cx.process_vars());
    host::open(file, pin, &place, retry).map_err(failure)
}

fn failure(error: host::LoadError) -> Failure {
    let hint = error.hint();
    Failure::new(format!("This plugin cannot be used: {error}")).hint(hint)
}

/// Shows what a file brings, and refuses what would not go with this build.
fn show(cx: &mut Context, carried: &[Carried]) -> Result<(), Failure> {
    let mine: Vec<&'static Plugin> = carried.iter().map(Carried::plugin).collect();
    // Whatever was loaded before under the same ids is this plugin, too.
    let new = |plugin: &&&'static Plugin| mine.iter().all(|one| one.id != plugin.id);
    let outside = cx.carried().iter().flat_map(|row| &row.plugins);
    let replaced: Vec<_> = outside.map(|plugin| plugin.id).collect();
    let others = cx.registry.plugins().iter();
    let mut all: Vec<&'static Plugin> =
        others.filter(|plugin| new(plugin) || !replaced.contains(&plugin.id)).copied().collect();
    all.extend(&mine);
    let registry = Registry::new(all, tree::RESERVED_FLAGS);
    let registry = registry.map_err(|error| Failure::new(error.to_string()))?;
    for plugin in &mine {
        cx.out.line("");
        super::describe_plugin(cx, &registry, plugin);
    }
    if let Some(clash) = carried::clash(&registry) {
        return Err(Failure::new(format!("This plugin cannot be used: {clash}")));
    }
    // As at every start, so that what is wrong with them is said now.
    mine.iter().flat_map(|plugin| plugin.auth).for_each(|method| drop(method.settings()));
    for complaint in carried.iter().flat_map(Carried::complaints) {
        cx.out.warn(complaint);
    }
    Ok(())
}

fn ask(cx: &Context, yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !cx.out.terminal().interactive() {
        let failure = Failure::new("Trusting a plugin needs an answer").code("not-interactive");
        return Err(failure.hint("pass --yes, or run this in a terminal"));
    }
    match prompt::confirm(question, false) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::cancelled()),
        Err(_) => Err(Failure::cancelled()),
    }
}

fn entries(editor: &Editor<'_>) -> Vec<Value> {
    let path = "plugins.trusted".parse().expect("a constant path");
    editor.get(&path).and_then(|value| value.as_array().cloned()).unwrap_or_default()
}

fn expanded(entry: &Value, home: &std::path::Path) -> Option<PathBuf> {
    let path = entry["path"].as_str()?;
    Some(path.strip_prefix("~/").map_or_else(|| PathBuf::from(path), |rest| home.join(rest)))
}

/// Adds an entry, or renews the one of the same file.
fn put(editor: &mut Editor<'_>, entry: &Value, home: &std::path::Path) -> Result<(), Failure> {
    let path = "plugins.trusted".parse().expect("a constant path");
    let mut list = entries(editor);
    let same = |old: &&mut Value| expanded(old, home) == expanded(entry, home);
    match list.iter_mut().find(same) {
        Some(old) => {
            for key in ["sha256", "kind"] {
                old[key] = entry[key].clone();
            }
        }
        None => list.push(entry.clone()),
    }
    editor.set(&path, &Value::Array(list))?;
    Ok(())
}
