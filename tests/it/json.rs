//! `--json` means: one JSON value on standard output and nothing else, in every command that has
//! the flag, whether it succeeds or not.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{KEY, KEY2, Sandbox, lab};

/// A line for every command with `--json`; the walk below finds one that is missing.
const LINES: &[&[&str]] = &[
    &["agent", "-m", "hi", "--json"],
    &["agent", "-m", "hi", "--dry-run", "--json"],
    &["agent", "-m", "hi", "--model", "no/such", "--json"],
    &["models", "--json"],
    &["models", "status", "--json"],
    &["models", "status", "--json", "--check", "--usage"],
    &["models", "status", "--json", "--probe"],
    &["models", "list", "--json"],
    &["models", "list", "--json", "--all"],
    &["models", "scan", "--json", "--no-probe"],
    &["models", "aliases", "--json"],
    &["models", "aliases", "list", "--json"],
    &["models", "fallbacks", "--json"],
    &["models", "fallbacks", "list", "--json"],
    &["models", "image-fallbacks", "--json"],
    &["models", "image-fallbacks", "list", "--json"],
    &["models", "simulate", "--last", "3", "--json"],
    &["models", "why", "--json"],
    &["models", "why", "--json", "--dry-run"],
    &["models", "usage", "--json"],
    &["models", "usage", "--json", "--all", "--by", "day"],
    &["models", "auth", "order", "get", "--provider", "anthropic", "--json"],
    &["models", "auth", "cooldown", "list", "--json"],
    &["models", "auth", "cooldown", "clear", "--json"],
    &["models", "auth", "log", "--json"],
    &["models", "auth", "refresh", "--json"],
    &["agents", "--json"],
    &["agents", "list", "--json", "--bindings"],
    &["agents", "add", "w", "--workspace", "w", "--json"],
    &["agents", "set-identity", "--name", "Otto", "--json"],
    &["agents", "delete", "w", "--force", "--json"],
    &["config", "get", ".", "--json"],
    &["config", "validate", "--json"],
    &["status", "--json"],
    &["status", "--json", "--all", "--usage", "--deep"],
    &["health", "--json"],
    &["channels", "--json"],
    &["channels", "list", "--json"],
    &["plugins", "list", "--json"],
    &["plugins", "info", "anthropic", "--json"],
    &["explain", "--json"],
    &["explain", "input", "--json"],
    &["gateway", "status", "--json"],
    &["onboard", "--non-interactive", "--accept-risk", "--anthropic-api-key", KEY2, "--json"],
];

/// Commands where the flag is about the input, and those that are not run here.
const OTHER: &[&str] = &["config set"];

/// Lists the commands whose help shows `--json`.
fn with_json(sandbox: &Sandbox) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let words: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let help = sandbox.run(&words).exits(0).out;
        if help.lines().any(|line| line.trim_start().starts_with("--json")) {
            found.insert(path.join(" "));
        }
        let list = help.split("Commands:\n").nth(1).unwrap_or_default();
        for line in list.lines().take_while(|line| line.starts_with("  ")) {
            let name = line.split_whitespace().next().unwrap_or_default();
            // A wrapped line of a description is indented further.
            let is_name = line.starts_with("  ") && !line.starts_with("   ") && name != "help";
            if is_name && !name.is_empty() {
                open.push(path.iter().cloned().chain([name.to_string()]).collect());
            }
        }
    }
    found
}

#[test]
fn no_command_with_json_is_forgotten() {
    let all = with_json(&Sandbox::new());
    let covered = |command: &str| {
        let words: Vec<&str> = command.split(' ').collect();
        LINES.iter().any(|line| {
            let own: Vec<&str> = line.iter().take(words.len()).copied().collect();
            let next = line.get(words.len()).copied().unwrap_or("--");
            // What follows is the command's own argument, or makes it another command.
            own == words && !all.contains(&format!("{command} {next}"))
        })
    };
    assert!(all.len() > 20, "{all:?}");
    for command in &all {
        let other = OTHER.contains(&command.as_str());
        assert!(other || covered(command), "`moltbot {command} --json` is not tried");
    }
}

#[track_caller]
fn parses(sandbox: &Sandbox, line: &[&str]) -> Value {
    let done = sandbox.run(line);
    assert!(!done.err.contains("panicked"), "{line:?}: {}", done.err);
    serde_json::from_str(&done.out)
        .unwrap_or_else(|error| panic!("{line:?}: {error}\n{}\n{}", done.out, done.err))
}

#[test]
fn standard_output_is_one_json_value() {
    let lab = lab("[]");
    let full = Sandbox::new();
    full.use_lab(
        &lab,
        // A warning or two, so that there is something that could get in between.
        json!({ "agents": { "defaults": { "model": { "primary": "claude-opus-4-5" } } },
            "channels": {}, "env": { "NOTHING": "x" } }),
    );
    full.write_store(&json!({ "version": 1, "profiles": {
        "anthropic:default": { "type": "api_key", "provider": "anthropic", "key": KEY },
        "anthropic:odd": { "type": "smoke-signal", "provider": "anthropic" } } }));
    for line in LINES {
        parses(&full, line);
    }
    // With nothing at all: what cannot answer says so on standard error and leaves the other
    // stream empty, never half a value.
    let empty = Sandbox::new();
    for line in LINES.iter().filter(|line| line[0] != "agents" && line[0] != "onboard") {
        let done = empty.run(line);
        let whole = done.out.is_empty() && done.code != 0
            || serde_json::from_str::<Value>(&done.out).is_ok();
        assert!(whole, "{line:?}: {}\n{}", done.out, done.err);
    }
}
