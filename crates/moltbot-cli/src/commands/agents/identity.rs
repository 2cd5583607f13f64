//! `moltbot agents set-identity`: name, theme, emoji and avatar of an agent (spec L-41).

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};
use moltbot_config::{AgentId, Config, KeyPath, MAIN_AGENT};
use serde_json::{Map, Value, json};

use super::ids;
use crate::commands::json_arg;
use crate::out::clean;
use crate::{Context, Exit, Failure, Outcome};

/// What an identity consists of, in the order of the output.
const FIELDS: [&str; 4] = ["name", "theme", "emoji", "avatar"];

/// The file in a workspace that an agent describes itself in.
const FILE: &str = "IDENTITY.md";

/// The largest identity file that is read, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

pub(super) fn command() -> Command {
    let text = |id: &'static str, name: &'static str, help: &'static str| {
        Arg::new(id).long(id).value_name(name).help(help)
    };
    Command::new("set-identity")
        .about("Set an agent's name, theme, emoji and avatar")
        .arg(text("agent", "ID", "The agent; without it the one of --workspace"))
        .arg(text("workspace", "DIR", "Find the agent by its working directory"))
        .arg(text("identity-file", "FILE", "Read the identity from this file"))
        .arg(
            Arg::new("from-identity")
                .long("from-identity")
                .action(ArgAction::SetTrue)
                .help("Read the identity from IDENTITY.md in the working directory"),
        )
        .arg(text("name", "TEXT", "The name"))
        .arg(text("theme", "TEXT", "The theme"))
        .arg(text("emoji", "TEXT", "The emoji"))
        .arg(text("avatar", "PATH", "The avatar: a file in the workspace, or an address"))
        .arg(json_arg())
        .after_help(
            "Examples:\n  moltbot agents set-identity --agent work --name Otto --emoji 🦊\n  \
             moltbot agents set-identity --workspace ~/work --from-identity",
        )
}

pub(super) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let text = |name: &str| {
        args.get_one::<String>(name).map(|text| text.trim().to_string()).filter(|t| !t.is_empty())
    };
    let config = cx.config()?;
    let workspace = text("workspace");
    let id = match text("agent") {
        Some(raw) => known(&config, &raw)?,
        None => by_workspace(cx, &config, workspace.as_deref())?,
    };
    let workspace = workspace.or_else(|| workspace_of(&config, &id));
    let file = match (text("identity-file"), args.get_flag("from-identity")) {
        (Some(file), _) => Some(cx.cwd().join(file)),
        (None, true) => {
            let dir = workspace.as_ref().ok_or_else(|| {
                Failure::input(format!("Agent \"{id}\" has no workspace to read {FILE} from"))
                    .hint("pass --workspace DIR or --identity-file FILE")
            })?;
            Some(cx.in_home(dir).join(FILE))
        }
        (None, false) => None,
    };
    let mut identity = match &file {
        Some(path) => read(cx, path)?,
        None => Map::new(),
    };
    for field in FIELDS {
        if let Some(value) = text(field) {
            identity.insert(field.to_string(), json!(value));
        }
    }
    if identity.is_empty() {
        let failure = Failure::input("There is nothing to set");
        return Err(match file {
            Some(path) => failure.hint(format!(
                "{} has no line such as \"- Name: Otto\"",
                clean(&path.display().to_string())
            )),
            None => failure.hint("pass --name, --theme, --emoji or --avatar, or --from-identity"),
        });
    }
    let written = cx.edit(|editor| {
        let list = KeyPath::keys(["agents", "list"]);
        let items = editor.get(&list).and_then(|items| items.as_array().cloned());
        let items = items.unwrap_or_default();
        let place = items.iter().position(|item| {
            item["id"].as_str().is_some_and(|other| AgentId::normalize(other) == id)
        });
        let place = match place {
            Some(place) => place,
            // `main` is there without being listed; listed first it stays the default one.
            None if items.is_empty() => {
                editor.set(&list, &json!([{ "id": id.as_str() }]))?;
                0
            }
            None => {
                editor.set(&list.index(items.len()), &json!({ "id": id.as_str() }))?;
                items.len()
            }
        };
        let path = list.index(place).key("identity");
        let mut whole = match editor.get(&path) {
            Some(Value::Object(old)) => old,
            _ => Map::new(),
        };
        whole.extend(identity.clone());
        editor.set(&path, &Value::Object(whole.clone()))?;
        Ok(whole)
    })?;
    if args.get_flag("json") {
        cx.out.json(&json!({
            "agentId": id.as_str(),
            "identity": written,
            "workspace": workspace,
            "identityFile": file,
        }));
        return Ok(Exit::OK);
    }
    cx.out.line(format!("Agent: {id}"));
    for field in FIELDS {
        if let Some(value) = written.get(field).and_then(Value::as_str) {
            cx.out.line(format!("{field}: {}", clean(value)));
        }
    }
    Ok(Exit::OK)
}

fn known(config: &Config, raw: &str) -> Result<AgentId, Failure> {
    let id = AgentId::normalize(raw);
    if id.as_str() != MAIN_AGENT && config.agent(&id).is_none() {
        let failure = Failure::new(format!("Agent \"{}\" not found.", clean(raw)));
        return Err(failure.code("agent-unknown").hint("`moltbot agents list` shows the agents"));
    }
    Ok(id)
}

/// Finds the one agent that works in a directory; without a directory, the default agent.
fn by_workspace(cx: &Context, config: &Config, dir: Option<&str>) -> Result<AgentId, Failure> {
    let Some(dir) = dir else { return Ok(config.default_agent()) };
    let wanted = cx.in_home(dir);
    let own = |id: &AgentId| config.agent(id).and_then(|agent| agent.workspace.clone());
    let mut found: Vec<AgentId> = ids(config)
        .into_iter()
        .filter(|id| own(id).is_some_and(|dir| cx.in_home(&dir) == wanted))
        .collect();
    let shown = clean(dir).into_owned();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Failure::new(format!("No agent works in {shown}"))
            .code("agent-unknown")
            .hint("name it with --agent; `moltbot agents list` shows the agents")),
        _ => {
            let names: Vec<&str> = found.iter().map(AgentId::as_str).collect();
            Err(Failure::input(format!("Several agents work in {shown}: {}", names.join(", ")))
                .hint("name one with --agent"))
        }
    }
}

fn workspace_of(config: &Config, id: &AgentId) -> Option<String> {
    let own = config.agent(id).and_then(|agent| agent.workspace.clone());
    let shared = config.agents.as_ref().and_then(|agents| agents.defaults.as_ref());
    own.or_else(|| shared.and_then(|shared| shared.workspace.clone()))
}

/// Reads the lines `- Name: Otto` of an identity file.
fn read(cx: &Context, path: &Path) -> Result<Map<String, Value>, Failure> {
    use std::io::Read as _;
    let shown = cx.shown(path);
    let failed = |error: std::io::Error| Failure::input(format!("{shown} cannot be read: {error}"));
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Map<String, Value> {
    let mut identity = Map::new();
    for line in text.lines() {
        let line = line.trim().trim_start_matches(['-', '*']).replace("**", "");
        let Some((label, value)) = line.split_once(':') else { continue };
        let label = label.trim().trim_matches(['*', '_']).to_ascii_lowercase();
        let value = value.trim().trim_matches(['*', '_']).trim();
        // Placeholders of a template that nobody filled in are in brackets.
        let blank = value.is_empty() || value.starts_with(['(', '[', '<']);
        if let Some(field) = FIELDS.iter().find(|field| **field == label).filter(|_| !blank) {
            identity.entry(*field).or_insert_with(|| json!(value));
        }
    }
    identity
}

impl Context {
    /// Makes a path of the config or the command line whole: `~` is home, anything else that is
    /// relative starts at the working directory.
    fn in_home(&self, path: &str) -> PathBuf {
        let joined = match path.strip_prefix("~/") {
            Some(rest) => self.home().join(rest),
            None if path == "~" => self.home().to_path_buf(),
            None => self.cwd().join(path),
        };
        joined.components().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;

    #[test]
    fn a_file_of_an_agent_is_understood() {
        let text =
            "# Me\n- **Name:** Otto\n* Emoji: 🦊\n- Theme: (pick one)\n- Creature: fox\nName: Two";
        assert_eq!(Value::Object(parse(text)), json!({ "name": "Otto", "emoji": "🦊" }));
    }

    #[test]
    fn main_gets_an_entry_and_stays_the_default() {
        let bench = Bench::new();
        let ran = bench.run(&["agents", "set-identity", "--name", "Otto", "--json"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let value: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(value["identity"], json!({ "name": "Otto" }));
        assert_eq!(bench.config_value()["agents"]["list"][0]["identity"]["name"], "Otto");
        bench.run(&["agents", "set-identity", "--agent", "main", "--emoji", "🦊"]);
        let identity = &bench.config_value()["agents"]["list"][0]["identity"];
        assert_eq!(*identity, json!({ "name": "Otto", "emoji": "🦊" }));
        assert_eq!(bench.run(&["models", "status", "--plain"]).code, 0);
    }

    #[test]
    fn the_workspace_names_the_agent_and_holds_its_file() {
        let bench = Bench::new();
        bench.config(
            "{ agents: { list: [{ id: 'main' }, { id: 'work', workspace: '~/w' }, \
             { id: 'a', workspace: '~/x' }, { id: 'b', workspace: '~/x/' }] } }",
        );
        std::fs::create_dir_all(bench.home().join("w")).unwrap();
        std::fs::write(bench.home().join("w/IDENTITY.md"), "- Name: Otto\n").unwrap();
        let set = |args: &[&str]| bench.run(&[&["agents", "set-identity"], args].concat());
        assert_eq!(set(&["--workspace", "~/w", "--from-identity"]).code, 0);
        assert_eq!(bench.config_value()["agents"]["list"][1]["identity"]["name"], "Otto");
        let before = bench.files();
        for (args, part) in [
            (&["--workspace", "~/x", "--name", "y"][..], "Several agents work in ~/x: a, b"),
            (&["--workspace", "~/z", "--name", "y"], "No agent works in ~/z"),
            (&["--agent", "nobody", "--name", "y"], "Agent \"nobody\" not found."),
            (&["--agent", "work"], "There is nothing to set"),
            (&["--agent", "main", "--from-identity"], "has no workspace"),
            (&["--identity-file", "none.md"], "none.md cannot be read"),
        ] {
            let ran = set(args);
            assert_eq!(ran.code, 1, "{args:?}");
            assert!(ran.stderr.contains(part), "{args:?}: {}", ran.stderr);
        }
        assert_eq!(bench.files(), before);
    }
}
