//! `moltbot config`: read, change and check the config file (spec L-22).

use clap::{Arg, ArgAction, ArgMatches, Command};
use moltbot_config::{KeyPath, json_schema, mask_value};
use moltbot_core::Registry;
use serde_json::{Value, json};

use crate::out::clean;
use crate::{Context, Exit, Failure, Outcome};

use super::json_arg;

/// Describes the command.
pub(crate) fn command(_: &Registry) -> Command {
    let path = || {
        Arg::new("path")
            .value_name("PATH")
            .required(true)
            .help("Keys joined by dots; [n] for list items, backslash before a dot in a key")
    };
    Command::new("config")
        .about("Read, change and check the config file; alone, ask what to configure")
        .args_conflicts_with_subcommands(true)
        .arg(crate::onboard::configure::section_arg())
        .subcommand(
            Command::new("get")
                .about("Print a value; secrets are masked")
                .arg(path().help("Keys joined by dots; a single dot for everything"))
                .arg(json_arg())
                .arg(
                    Arg::new("show-secrets")
                        .long("show-secrets")
                        .help("Print secrets in clear")
                        .action(ArgAction::SetTrue),
                )
                .after_help(
                    "Examples:\n  moltbot config get agents.defaults.model\n  \
                     moltbot config get 'agents.list[0].id'\n  moltbot config get . --json",
                ),
        )
        .subcommand(
            Command::new("set")
                .about("Set a value, keeping comments and order")
                .arg(path())
                .arg(
                    Arg::new("value")
                        .value_name("VALUE")
                        .required(true)
                        .allow_hyphen_values(true)
                        .help("JSON5, or a plain text"),
                )
                .arg(json_arg().help("Refuse a value that is not JSON5"))
                .after_help(
                    "Examples:\n  moltbot config set agents.defaults.timeoutSeconds 300\n  \
                     moltbot config set auth.allowPaidFallback false",
                ),
        )
        .subcommand(
            Command::new("unset")
                .about("Remove a value")
                .arg(path())
                .after_help("Example:\n  moltbot config unset agents.defaults.timeoutSeconds"),
        )
        .subcommand(
            Command::new("path")
                .about("Print where the config file is")
                .after_help("Example:\n  moltbot config path"),
        )
        .subcommand(
            Command::new("schema")
                .about("Print every key as a JSON Schema")
                .after_help("Example:\n  moltbot config schema > moltbot.schema.json"),
        )
        .subcommand(
            Command::new("validate")
                .about("Check the config and name every problem with its place")
                .arg(json_arg())
                .after_help("Example:\n  moltbot config validate --json"),
        )
        .after_help(
            "Examples:\n  moltbot config get agents.defaults.model\n  moltbot config validate",
        )
}

/// Runs a subcommand.
pub(crate) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    match args.subcommand() {
        None => crate::onboard::configure::run(cx, args),
        Some(("get", args)) => get(cx, args),
        Some(("set", args)) => set(cx, args),
        Some(("unset", args)) => unset(cx, args),
        Some(("path", _)) => {
            let path = cx.paths().config_file().display().to_string();
            cx.out.line(clean(&path));
            Ok(Exit::OK)
        }
        Some(("schema", _)) => {
            let schema = json_schema(cx.extensions());
            cx.out.json(&schema);
            Ok(Exit::OK)
        }
        Some((_, args)) => validate(cx, args.get_flag("json")),
    }
}

fn get(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let raw = args.get_one::<String>("path").expect("clap requires it");
    let path = if raw.trim() == "." { KeyPath::root() } else { parse(raw)? };
    let loaded = cx.loaded()?;
    let value = path.find(loaded.source_value()).ok_or_else(|| not_found(raw))?;
    let value = match args.get_flag("show-secrets") {
        true => value.clone(),
        false => mask_value(&path, value),
    };
    match value {
        Value::String(text) if !args.get_flag("json") => cx.out.line(visible(&text)),
        value => cx.out.json(&value),
    }
    Ok(Exit::OK)
}

fn set(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let raw = args.get_one::<String>("path").expect("clap requires it");
    let path = parse(raw)?;
    let text = args.get_one::<String>("value").expect("clap requires it");
    let value = match json5::from_str::<Value>(text) {
        Ok(value) => value,
        Err(_) if !args.get_flag("json") => Value::String(text.clone()),
        Err(error) => {
            // The parser's own message may quote the value.
            let place = error
                .position()
                .map(|at| format!("line {}, column {}", at.line + 1, at.column + 1));
            let place = place.unwrap_or_else(|| "its end".to_string());
            let message = format!("Failed to parse JSON5 value: something is wrong at {place}");
            return Err(Failure::input(message));
        }
    };
    cx.edit(|editor| Ok(editor.set(&path, &value)?))?;
    cx.out.line(format!("Updated {}. Restart the gateway to apply.", clean(raw)));
    Ok(Exit::OK)
}

fn unset(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let raw = args.get_one::<String>("path").expect("clap requires it");
    let path = parse(raw)?;
    cx.edit(|editor| match editor.unset(&path)? {
        true => Ok(()),
        false => Err(not_found(raw)),
    })?;
    cx.out.line(format!("Removed {}. Restart the gateway to apply.", clean(raw)));
    Ok(Exit::OK)
}

fn validate(cx: &mut Context, json: bool) -> Outcome {
    let shown = cx.shown(cx.paths().config_file());
    match cx.load() {
        Ok(loaded) => {
            let notes: Vec<&String> = loaded.notes.iter().map(|note| &note.message).collect();
            if json {
                let file = cx.paths().config_file().to_path_buf();
                cx.out.json(&json!({ "valid": true, "file": file, "issues": [], "notes": notes }));
            } else {
                for note in notes {
                    cx.out.note(note);
                }
                cx.out.line(format!("Config valid: {shown}"));
            }
            Ok(Exit::OK)
        }
        Err(error) if json => {
            cx.out.json(&error.to_json());
            Ok(Exit::NO)
        }
        Err(error) => Err(error.into()),
    }
}

fn parse(raw: &str) -> Result<KeyPath, Failure> {
    raw.parse().map_err(|error: moltbot_config::KeyPathError| {
        Failure::input(format!("{} is no config path: {error}", clean(raw)))
    })
}

fn not_found(raw: &str) -> Failure {
    Failure::new(format!("Config path not found: {raw}")).code("config-path")
}

/// Makes control characters visible; unlike [`clean`] it leaves words alone, which are masked.
fn visible(text: &str) -> String {
    let odd = |c: char| c.is_control() && c != '\n' && c != '\t';
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if odd(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::testing::Bench;

    #[test]
    fn scalars_are_printed_raw_and_the_rest_as_json() {
        let bench = Bench::new();
        bench.config("{ agents: { defaults: { model: 'acme/big-2', timeoutSeconds: 5 } } }");
        let get = |path: &str| bench.run(&["config", "get", path]).stdout;
        assert_eq!(get("agents.defaults.model"), "acme/big-2\n");
        assert_eq!(get("agents.defaults.timeoutSeconds"), "5\n");
        let all: Value = serde_json::from_str(&get(".")).unwrap();
        assert_eq!(all["agents"]["defaults"]["model"], "acme/big-2");
        let json = bench.run(&["config", "get", "agents.defaults.model", "--json"]).stdout;
        assert_eq!(json, "\"acme/big-2\"\n");
    }

    #[test]
    fn secrets_are_masked_unless_asked_for() {
        let bench = Bench::new();
        bench.config("{ env: { ACME_API_KEY: 'acme-FAKE-0123456789-key' } }");
        let masked = bench.run(&["config", "get", "env.ACME_API_KEY"]);
        assert_eq!(masked.stdout, "acme...-key\n");
        let clear = bench.run(&["config", "get", "env.ACME_API_KEY", "--show-secrets"]);
        assert_eq!(clear.stdout, "acme-FAKE-0123456789-key\n");
        let missing = bench.run(&["config", "get", "env.OTHER"]);
        assert_eq!(missing.code, 1);
        assert!(missing.stderr.starts_with("Error: Config path not found: env.OTHER\n"));
    }

    #[test]
    fn set_reads_json5_or_text_and_unset_removes() {
        let bench = Bench::new();
        let ran = bench.run(&["config", "set", "agents.defaults.timeoutSeconds", "300"]);
        assert_eq!(
            ran.stdout, "Updated agents.defaults.timeoutSeconds. Restart the gateway to apply.\n",
            "{}",
            ran.stderr
        );
        assert_eq!(bench.run(&["config", "set", "agents.defaults.model", "acme/tiny"]).code, 0);
        assert_eq!(bench.config_value()["agents"]["defaults"]["timeoutSeconds"], 300);
        assert_eq!(bench.config_value()["agents"]["defaults"]["model"], "acme/tiny");
        let wrong = bench.run(&["config", "set", "agents.defaults.model", "--json", "{FAKE"]);
        assert_eq!(wrong.code, 1);
        assert!(
            wrong.stderr.starts_with("Error: Failed to parse JSON5 value: "),
            "{}",
            wrong.stderr
        );
        assert!(wrong.stderr.contains(" at line 1, column "), "{}", wrong.stderr);
        assert!(!wrong.stderr.contains("FAKE"));
        let ran = bench.run(&["config", "unset", "agents.defaults.timeoutSeconds"]);
        assert!(
            ran.stdout.starts_with("Removed agents.defaults.timeoutSeconds."),
            "{}",
            ran.stderr
        );
        assert_eq!(bench.run(&["config", "unset", "agents.defaults.timeoutSeconds"]).code, 1);
    }

    #[test]
    fn a_value_that_breaks_the_schema_changes_nothing() {
        let bench = Bench::new();
        bench.config("{ // mine\n}");
        let ran = bench.run(&["config", "set", "agents.defaults.timeoutSeconds", "soon"]);
        assert_eq!(ran.code, 1);
        assert!(
            ran.stderr.contains("Config validation failed: agents.defaults.timeoutSeconds"),
            "{}",
            ran.stderr
        );
        assert_eq!(bench.config_text(), "{ // mine\n}");
    }

    #[test]
    fn an_invalid_config_stops_commands_and_can_be_mended_here() {
        let bench = Bench::new();
        bench.config("{ auth: { foo: 1 } }");
        let ran = bench.run(&["models", "list"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
        assert!(ran.stderr.starts_with("Config invalid: "), "{}", ran.stderr);
        assert!(
            ran.stderr.contains("auth.foo") && ran.stderr.contains("doctor --fix"),
            "{}",
            ran.stderr
        );
        let checked = bench.run(&["config", "validate", "--json"]);
        let value: Value = serde_json::from_str(&checked.stdout).unwrap();
        assert_eq!((checked.code, &value["valid"]), (1, &false.into()));
        assert_eq!(bench.run(&["config", "unset", "auth.foo"]).code, 0);
        assert!(bench.run(&["config", "validate"]).stdout.starts_with("Config valid: ~/.moltbot/"));
    }

    #[test]
    fn path_and_schema() {
        let bench = Bench::new();
        let path = bench.run(&["config", "path"]).stdout;
        assert_eq!(path.trim_end(), bench.config_path().display().to_string());
        let schema: Value = serde_json::from_str(&bench.run(&["config", "schema"]).stdout).unwrap();
        assert!(schema["properties"]["agents"].is_object());
    }
}
