//! `moltbot agents list|add|delete|set-identity` (spec L-40, L-41).

mod bindings;
mod identity;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};
use moltbot_config::{AgentId, Config, Editor, KeyPath, MAIN_AGENT};
use moltbot_core::{Field, FieldKind, Registry};
use moltbot_profiles::copy_profiles;
use serde::Serialize;
use serde_json::{Value, json};

use crate::out::clean;
use crate::{Context, Exit, Failure, Outcome};

use super::json_arg;
use bindings::Binding;

/// Describes the command.
pub(crate) fn command(_: &Registry) -> Command {
    let text = |id: &'static str, name: &'static str, help: &'static str| {
        Arg::new(id).long(id).value_name(name).help(help)
    };
    let flag = |id: &'static str, help: &'static str| {
        Arg::new(id).long(id).help(help).action(ArgAction::SetTrue)
    };
    let bindings = || flag("bindings", "Show which channels are bound to each agent");
    Command::new("agents")
        .about("List, add and delete agents")
        .arg(bindings())
        .arg(json_arg())
        .subcommand(
            Command::new("list")
                .about("List the agents")
                .arg(bindings())
                .arg(json_arg())
                .after_help("Example:\n  moltbot agents list --json"),
        )
        .subcommand(
            Command::new("add")
                .about("Add an agent with credentials of its own")
                .arg(Arg::new("name").value_name("NAME").help("Its name; the id follows from it"))
                .arg(text("workspace", "DIR", "Its working directory"))
                .arg(text("model", "MODEL", "Its own model"))
                .arg(text("agent-dir", "DIR", "Where its credentials are kept"))
                .arg(
                    text("bind", "CHANNEL[:ACCOUNT]", "Bind a channel to it; may be repeated")
                        .action(ArgAction::Append),
                )
                .arg(text("copy-auth-from", "ID", "Copy the credentials of this agent once"))
                .arg(flag("non-interactive", "Ask nothing"))
                .arg(json_arg())
                .after_help(
                    "Examples:\n  moltbot agents add work --workspace ~/work\n  \
                     moltbot agents add work --workspace ~/work --copy-auth-from main",
                ),
        )
        .subcommand(
            Command::new("delete")
                .about("Delete an agent; its files are moved aside")
                .arg(Arg::new("id").value_name("ID").required(true).help("The agent"))
                .arg(flag("force", "Do not ask"))
                .arg(json_arg())
                .after_help("Example:\n  moltbot agents delete work --force"),
        )
        .subcommand(identity::command())
        .after_help("Examples:\n  moltbot agents\n  moltbot agents add work --workspace ~/work")
}

/// Runs a subcommand; without one, `list`.
pub(crate) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    match args.subcommand() {
        Some(("add", args)) => add(cx, args),
        Some(("delete", args)) => delete(cx, args),
        Some(("set-identity", args)) => identity::run(cx, args),
        Some((_, args)) => list(cx, args),
        None => list(cx, args),
    }
}

/// Lists the ids of all agents, the default one first if nothing is configured.
pub(crate) fn ids(config: &Config) -> Vec<AgentId> {
    let list = config.agents.as_ref().map(|agents| agents.list.as_slice()).unwrap_or_default();
    match list.is_empty() {
        true => vec![AgentId::main()],
        false => list.iter().map(|agent| agent.agent_id()).collect(),
    }
}

/// One agent, in the shape of the JSON output.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace: Option<String>,
    agent_dir: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    bindings: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    binding_details: Option<Vec<String>>,
    is_default: bool,
}

fn list(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let (json, detailed) = (args.get_flag("json"), args.get_flag("bindings"));
    let loaded = cx.loaded()?;
    let config = &loaded.config;
    let default = config.default_agent();
    let all_bindings = &loaded.value()["bindings"];
    let shared = config.agents.as_ref().and_then(|agents| agents.defaults.as_ref());
    let rows: Vec<Row> = ids(config)
        .into_iter()
        .map(|id| {
            let agent = config.agent(&id);
            let own = agent.and_then(|agent| agent.workspace.clone());
            let model = agent.and_then(|agent| agent.model.as_ref()?.primary.clone());
            let bound = bindings::of_agent(all_bindings, &id);
            Row {
                name: agent.and_then(|agent| agent.name.clone()),
                workspace: own.or_else(|| shared.and_then(|shared| shared.workspace.clone())),
                agent_dir: cx.agent_paths(config, &id).dir,
                model,
                bindings: bound.len(),
                binding_details: detailed.then_some(bound),
                is_default: id == default,
                id: id.to_string(),
            }
        })
        .collect();
    if json {
        cx.out.json(&rows);
        return Ok(Exit::OK);
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let mark = if row.is_default { " (default)" } else { "" };
            let mut cells = vec![
                format!("{}{mark}", row.id),
                row.name.clone().unwrap_or_else(|| "-".to_string()),
                row.model.clone().unwrap_or_else(|| "-".to_string()),
                row.workspace.clone().unwrap_or_else(|| "-".to_string()),
                cx.shown(&row.agent_dir),
            ];
            if let Some(bound) = &row.binding_details {
                cells.push(if bound.is_empty() { "-".to_string() } else { bound.join(", ") });
            }
            cells
        })
        .collect();
    let mut heading = vec!["Agent", "Name", "Model", "Workspace", "Agent dir"];
    if detailed {
        heading.push("Bindings");
    }
    cx.out.table(&heading, &cells);
    Ok(Exit::OK)
}

fn add(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let text = |name: &str| {
        args.get_one::<String>(name).map(|text| text.trim().to_string()).filter(|t| !t.is_empty())
    };
    let json = args.get_flag("json");
    let flagged = json
        || args.get_flag("non-interactive")
        || ["model", "agent-dir", "copy-auth-from", "bind"]
            .iter()
            .any(|name| args.contains_id(name));
    let wanted: Vec<Binding> = args
        .get_many::<String>("bind")
        .unwrap_or_default()
        .map(|raw| Binding::parse(raw))
        .collect::<Result<_, _>>()?;
    let (given, mut workspace) = (text("name"), text("workspace"));
    let asking = workspace.is_none();
    if asking && (flagged || !cx.front().interactive()) {
        let message = "Non-interactive mode requires --workspace. Re-run without flags to use the \
                       wizard.";
        return Err(Failure::input(message));
    }
    let name = match given {
        Some(name) => name,
        None if asking => ask(cx, "name", "Name of the agent", FieldKind::Text {}, None)?,
        None => return Err(Failure::input("An agent needs a name: moltbot agents add <name>")),
    };
    let id = AgentId::normalize(&name);
    let config = cx.config()?;
    if id.as_str() == MAIN_AGENT {
        return Err(Failure::input(format!("\"{MAIN_AGENT}\" is reserved. Choose another name.")));
    }
    if config.agent(&id).is_some() {
        let message = format!("Agent \"{id}\" already exists.");
        return Err(Failure::new(message).code("agent-exists"));
    }
    if id.as_str() != name {
        cx.out.note(format!("The agent's id is \"{id}\""));
    }
    let mut copy_from = text("copy-auth-from");
    if asking {
        let default = format!("~/moltbot-{id}");
        workspace =
            Some(ask(cx, "workspace", "Working directory", FieldKind::Text {}, Some(default))?);
        let from = config.default_agent();
        let label = format!("Copy auth profiles from \"{from}\"?");
        let answer = ask(cx, "copy", &label, FieldKind::Confirm {}, Some("false".to_string()))?;
        if matches!(answer.trim(), "true" | "yes" | "y") {
            copy_from = Some(from.to_string());
        }
    }
    let workspace = workspace.expect("given or asked for");
    let source = match &copy_from {
        Some(from) => {
            let paths = cx.agent_by_id(Some(from))?;
            Some(cx.store(&paths).load_blocking()?.profiles)
        }
        None => None,
    };
    let model = match text("model") {
        Some(raw) => Some(super::models::resolve(cx, &raw)?.to_string()),
        None => None,
    };
    let mut entry = json!({ "id": id.as_str(), "workspace": workspace });
    if id.as_str() != name {
        entry["name"] = json!(name);
    }
    if let Some(model) = &model {
        entry["model"] = json!(model);
    }
    if let Some(dir) = text("agent-dir") {
        entry["agentDir"] = json!(dir);
    }
    cx.edit(|editor| {
        append(editor, &entry)?;
        bindings::add(editor, &id, &wanted)
    })?;
    let config = cx.config()?;
    let paths = cx.agent_paths(&config, &id);
    let dir = config.agent(&id).and_then(|agent| agent.workspace.clone()).unwrap_or(workspace);
    let dir = cx.cwd().join(dir);
    make_dir(&dir)?;
    if let Some(source) = source {
        let now = cx.now();
        let copied =
            cx.store(&paths).update_blocking(now, |own| copy_profiles(&source, own, None))?;
        for warning in &copied.warnings {
            cx.out.warn(warning);
        }
        cx.out.note(format!("Copied {} auth profiles", copied.copied.len()));
    }
    if json {
        let mut value = json!({
            "agentId": id.as_str(), "name": name, "workspace": dir, "agentDir": paths.dir,
        });
        if let Some(model) = model {
            value["model"] = json!(model);
        }
        let bound: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        value["bindings"] = json!(bound);
        cx.out.json(&value);
    } else {
        cx.out.line(format!("Agent: {id}"));
        cx.out.line(format!("Workspace: {}", cx.shown(&dir)));
        cx.out.line(format!("Agent dir: {}", cx.shown(&paths.dir)));
        if copy_from.is_none() {
            cx.out.hint(format!(
                "agents inherit no credentials; `moltbot models status --agent {id}` shows its own"
            ));
        }
    }
    Ok(Exit::OK)
}

/// Appends an entry to the list of agents. The first one brings `main` with it, because the first
/// of the list is the default agent.
fn append(editor: &mut Editor<'_>, entry: &Value) -> Result<(), Failure> {
    let path = KeyPath::keys(["agents", "list"]);
    match editor.get(&path) {
        Some(Value::Array(items)) if !items.is_empty() => {
            editor.set(&path.index(items.len()), entry)?;
        }
        _ => editor.set(&path, &json!([{ "id": MAIN_AGENT }, entry]))?,
    }
    Ok(())
}

fn delete(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let raw = args.get_one::<String>("id").expect("clap requires it");
    let id = AgentId::normalize(raw);
    if id.as_str() == MAIN_AGENT {
        return Err(Failure::input(format!("\"{MAIN_AGENT}\" cannot be deleted.")));
    }
    let config = cx.config()?;
    let Some(agent) = config.agent(&id) else {
        let failure = Failure::new(format!("Agent \"{}\" not found.", clean(raw)));
        return Err(failure.code("agent-unknown"));
    };
    let workspace = agent.workspace.clone();
    if !args.get_flag("force") {
        if !cx.front().interactive() {
            return Err(Failure::input("Non-interactive session. Re-run with --force."));
        }
        let label = format!("Delete agent \"{id}\" and move its files aside?");
        let answer = ask(cx, "delete", &label, FieldKind::Confirm {}, Some("false".to_string()))?;
        if !matches!(answer.trim(), "true" | "yes" | "y") {
            return Err(Failure::cancelled());
        }
    }
    let paths = cx.agent_paths(&config, &id);
    cx.edit(|editor| {
        let list = KeyPath::keys(["agents", "list"]);
        let items = editor.get(&list).and_then(|items| items.as_array().cloned());
        let place = items.into_iter().flatten().position(|item| {
            item["id"].as_str().is_some_and(|other| AgentId::normalize(other) == id)
        });
        let place = place.ok_or_else(|| {
            Failure::new(format!("Agent \"{id}\" is not in agents.list")).code("agent-unknown")
        })?;
        editor.unset(&list.index(place))?;
        bindings::remove(editor, &id)
    })?;
    // Renamed, not erased: what was deleted by mistake can be moved back.
    let home = cx.paths().state_dir().join("agents").join(id.as_str());
    let stamp = cx.now().millis();
    let mut moved = Vec::new();
    for dir in [home, paths.dir.clone()] {
        if let Some(aside) = move_aside(&dir, stamp)? {
            moved.push(aside);
        }
    }
    if args.get_flag("json") {
        cx.out.json(&json!({
            "agentId": id.as_str(),
            "workspace": workspace,
            "agentDir": paths.dir,
            "sessionsDir": paths.sessions,
            "movedTo": moved,
        }));
        return Ok(Exit::OK);
    }
    cx.out.line(format!("Deleted agent: {id}"));
    for path in moved {
        cx.out.line(format!("Moved to: {}", cx.shown(&path)));
    }
    if let Some(workspace) = workspace {
        cx.out.note(format!("Its workspace stays: {}", clean(&workspace)));
    }
    Ok(Exit::OK)
}

/// Renames a directory to a name nobody uses; `None` if there is no such directory.
fn move_aside(dir: &Path, stamp: i64) -> Result<Option<PathBuf>, Failure> {
    if !dir.exists() {
        return Ok(None);
    }
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let aside = dir.with_file_name(format!(".{name}.deleted-{stamp}"));
    fs::rename(dir, &aside)
        .map_err(|error| Failure::new(format!("{} cannot be moved: {error}", dir.display())))?;
    Ok(Some(aside))
}

fn make_dir(dir: &Path) -> Result<(), Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| {
        Failure::new(format!("The workspace {} cannot be made: {error}", dir.display()))
    })
}

fn ask(
    cx: &mut Context,
    id: &'static str,
    label: &str,
    kind: FieldKind,
    default: Option<String>,
) -> Result<String, Failure> {
    let field = Field {
        id: id.into(),
        label: label.to_string().into(),
        default: default.map(Into::into),
        kind,
        ..Field::default()
    };
    let front = cx.front();
    let answer = cx.block_on(front.ask(&field, None))?;
    let answer = answer.map_err(|error| Failure::from(moltbot_core::AuthError::from(error)))?;
    let text = answer.value.expose().trim().to_string();
    if text.is_empty() { Err(Failure::input(format!("{label}: required"))) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::testing::Bench;

    fn json(bench: &Bench, args: &[&str]) -> Value {
        let ran = bench.run(args);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}{}", ran.stdout, ran.stderr))
    }

    #[test]
    fn main_is_always_there_and_stays_the_default() {
        let bench = Bench::new();
        bench.key_and_token();
        assert_eq!(json(&bench, &["agents", "--json"])[0]["id"], "main");
        let added = json(
            &bench,
            &["agents", "add", "My Work", "--workspace", "~/w", "--model", "tiny", "--json"],
        );
        let keys: Vec<_> = added.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["agentId", "name", "workspace", "agentDir", "model", "bindings"]);
        assert_eq!((&added["agentId"], &added["model"]), (&"my-work".into(), &"acme/tiny".into()));
        assert!(bench.home().join("w").is_dir());
        let list = json(&bench, &["agents", "list", "--json"]);
        assert_eq!(list[0]["isDefault"], true);
        assert_eq!((&list[1]["id"], &list[1]["name"]), (&"my-work".into(), &"My Work".into()));
        // Nothing is inherited: there is no store, hence no credential.
        assert!(!bench.home().join(".moltbot/agents/my-work").exists());
        let status = json(&bench, &["models", "status", "--json", "--agent", "my-work"]);
        assert_eq!(status["auth"]["missingProvidersInUse"][0], "acme");
    }

    #[test]
    fn credentials_are_copied_only_when_told() {
        let bench = Bench::new();
        bench.key_and_token();
        let args = ["agents", "add", "w", "--workspace", "d", "--copy-auth-from", "main"];
        let ran = bench.run(&args);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(ran.stderr.contains("Copied 2 auth profiles"), "{}", ran.stderr);
        assert!(bench.home().join(".moltbot/agents/w/agent/auth-profiles.json").exists());
    }

    #[test]
    fn what_is_refused() {
        let bench = Bench::new();
        bench.config("{ agents: { list: [{ id: 'main' }, { id: 'w' }] } }");
        let before = bench.files();
        for (args, message) in [
            (
                &["add", "Main", "--workspace", "d"][..],
                "\"main\" is reserved. Choose another name.",
            ),
            (&["add", "W", "--workspace", "d"], "Agent \"w\" already exists."),
            (
                &["add", "x", "--non-interactive"],
                "Non-interactive mode requires --workspace. Re-run without flags to use the wizard.",
            ),
            (&["add", "x", "--workspace", "d", "--copy-auth-from", "y"], "Unknown agent id \"y\"."),
            (&["delete", "main"], "\"main\" cannot be deleted."),
            (&["delete", "y"], "Agent \"y\" not found."),
            (&["delete", "w"], "Non-interactive session. Re-run with --force."),
        ] {
            let ran = bench.run(&[&["agents"], args].concat());
            assert_eq!(ran.code, 1, "{args:?}");
            assert!(
                ran.stderr.starts_with(&format!("Error: {message}")),
                "{args:?}: {}",
                ran.stderr
            );
        }
        assert_eq!(bench.files(), before);
    }

    #[test]
    fn deleting_moves_aside() {
        let bench = Bench::new();
        bench.key_and_token();
        bench.run(&["agents", "add", "w", "--workspace", "d", "--copy-auth-from", "main"]);
        let gone = json(&bench, &["agents", "delete", "w", "--force", "--json"]);
        assert_eq!(gone["agentId"], "w");
        assert!(!bench.home().join(".moltbot/agents/w").exists());
        let aside = std::path::PathBuf::from(gone["movedTo"][0].as_str().unwrap());
        assert!(aside.join("agent/auth-profiles.json").exists());
        assert_eq!(json(&bench, &["agents", "--json"]).as_array().unwrap().len(), 1);
    }
}
