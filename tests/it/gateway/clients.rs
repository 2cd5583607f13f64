//! Other people's clients through the gateway: both vendors' packages for Python and JavaScript,
//! the `claude` program, and what the README says about pointing tools at the gateway.
//!
//! They live in the directory that `MOLTBOT_CLIENTS` names; what is missing there is skipped,
//! loudly.

use std::path::{Path, PathBuf};
use std::process::Command;

use moltbot_lab::Lab;
use serde_json::json;

use super::{Gate, TOKEN, one_key};
use crate::support::{KEY, Sandbox, lab, messages};

/// Finds something in the directory of clients, or says that it is not there.
fn client(path: &str) -> Option<PathBuf> {
    if path == "claude/claude" {
        return crate::claude_backend::real();
    }
    let found = std::env::var_os("MOLTBOT_CLIENTS")
        .map(|dir| PathBuf::from(dir).join(path))
        .filter(|path| path.exists());
    if found.is_none() {
        eprintln!("SKIPPED: no {path} in MOLTBOT_CLIENTS, that client was not run");
    }
    found
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

fn start() -> (Lab, Sandbox, Gate) {
    let lab = lab("[]");
    let sandbox = one_key(&lab.url(), json!({}));
    let gate = Gate::start(&sandbox);
    (lab, sandbox, gate)
}

fn passes(command: &mut Command) {
    let (lab, _sandbox, gate) = start();
    let output = command
        .env("GATEWAY_URL", format!("http://{}", gate.addr))
        .env("GATEWAY_TOKEN", TOKEN)
        .env("LAB_URL", lab.url())
        .output()
        .expect("the client starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    for line in text.lines().filter(|line| line.starts_with("SKIPPED")) {
        eprintln!("{line}");
    }
    assert!(output.status.success(), "{text}\n{error}");
    assert!(text.contains("passed, 0 failed"), "{text}\n{error}");
    let log = format!("{:?}", lab.log());
    assert!(!log.contains(TOKEN), "the gateway's token went on");
}

#[test]
fn the_python_packages_of_both_vendors_are_content() {
    let Some(python) = client("python/bin/python") else { return };
    passes(Command::new(python).arg(script("gateway_python.py")));
}

#[test]
fn the_node_packages_of_both_vendors_are_content() {
    if client("node_modules").is_some() {
        passes(Command::new("node").arg(script("gateway_node.mjs")));
    }
}

/// Runs commands as a user would, with the gateway's variables and nothing of the real home.
fn shell(sandbox: &Sandbox, commands: &str) -> std::process::Output {
    let program = sandbox.command(&[]).get_program().to_owned();
    let link = sandbox.root().join("bin/moltbot");
    if !link.exists() {
        std::os::unix::fs::symlink(program, link).expect("a link");
    }
    let mut command = Command::new("sh");
    command.args(["-euc", commands]).env_clear().current_dir(sandbox.cwd());
    let path = std::env::var("PATH").unwrap_or_default();
    let own = sandbox.root().join("bin");
    command.env("PATH", format!("{}:{path}", own.display())).env("HOME", sandbox.home());
    for (name, value) in [
        ("DISABLE_TELEMETRY", "1"),
        ("DISABLE_ERROR_REPORTING", "1"),
        ("DISABLE_AUTOUPDATER", "1"),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    ] {
        command.env(name, value);
    }
    command.output().expect("a shell")
}

/// The whole way of Claude Code: its program, our door, the lab; body and headers as it sent them
/// (spec W-1 to W-4, 09 C).
#[test]
fn claude_code_works_through_the_gateway() {
    let Some(claude) = client("claude/claude") else { return };
    let (lab, sandbox, _gate) = start();
    sandbox.link_program("claude", claude.to_str().expect("a path"));
    let exec = "moltbot gateway exec -- claude -p --model claude-opus-4-5";
    let done = shell(&sandbox, &format!("{exec} 'say hello' </dev/null"));
    let text = String::from_utf8_lossy(&done.stdout);
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{text}\n{error}");
    assert!(text.contains("Hello from the lab. You said:"), "{text}\n{error}");
    let seen = messages(&lab);
    let entry = seen.last().expect("a request");
    assert_eq!(entry.credentials.len(), 1);
    assert_eq!(entry.credentials[0].sha256, moltbot_lab::fingerprint(KEY));
    let header = |name: &str| {
        let own = entry.headers.iter().find(|(key, _)| key == name);
        own.map(|(_, value)| value.as_str()).unwrap_or_default()
    };
    assert!(header("anthropic-beta").split(',').count() >= 3, "{:?}", entry.headers);
    assert!(header("user-agent").starts_with("claude-cli/"), "{:?}", entry.headers);
    assert!(entry.body["system"].is_array() && entry.body["tools"].is_array());
    assert!(seen.iter().all(|entry| entry.status == 200), "{seen:?}");
}

fn runs(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// Takes the commands out of the README's section, comments included.
fn commands_of_the_readme() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(path).expect("the README");
    let start = readme.find("## Point other tools at it").expect("the section");
    let section = &readme[start + 2..];
    let section = &section[..section.find("\n## ").expect("another section")];
    let mut commands: Vec<String> = Vec::new();
    for line in section.lines().filter(|line| line.starts_with("    ")) {
        // What is set in further goes on with the command before.
        match line.strip_prefix("        ") {
            Some(more) => {
                let last = commands.last_mut().expect("a command");
                *last += &format!("\n{more}");
            }
            None => commands.push(line.trim_start().to_string()),
        }
    }
    commands
}

/// What the README says about other tools, command by command, as it stands there.
#[test]
fn the_readme_points_tools_at_the_gateway() {
    let lab = lab("[]");
    let sandbox = Sandbox::new()
        .env("ANTHROPIC_API_KEY", KEY)
        // The one thing that differs: a port that is free for certain.
        .env("MOLTBOT_GATEWAY_PORT", "0");
    sandbox.use_lab(&lab, json!({ "gateway": { "mode": "local" } }));
    let mut commands = commands_of_the_readme().into_iter();
    let first = commands.next().expect("a command");
    let words: Vec<_> = first.split(" #").next().unwrap().split_whitespace().collect();
    assert_eq!(words[0], "moltbot");
    let gate = Gate::serving(
        sandbox
            .command(&words[1..])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the gateway starts"),
    );
    let setup = commands.next().expect("a command");
    assert!(setup.starts_with("eval "), "{setup}");
    let mut path = String::new();
    if let Some(dir) = std::env::var_os("MOLTBOT_CLIENTS") {
        let dir = PathBuf::from(dir);
        path = format!(
            "export PATH={0}/python/bin:$PATH:{0}/claude NODE_PATH={0}/node_modules\n",
            dir.display()
        );
    }
    let needs = [
        ("import anthropic", "python/bin/python"),
        ("import openai", "python/bin/python"),
        ("node ", "node_modules/@anthropic-ai/sdk"),
        ("claude -p", "claude/claude"),
    ];
    let mut answered = 0;
    for command in commands {
        let need = needs.iter().find(|(words, _)| command.contains(words));
        if let Some((words, need)) = need {
            let Some(found) = client(need) else { continue };
            let import = ["-c", *words];
            if words.starts_with("import") && !runs(Command::new(found).args(import)) {
                eprintln!("SKIPPED: {words} fails, that client was not run");
                continue;
            }
        }
        let done = shell(&sandbox, &format!("{path}{setup}\n{command} </dev/null"));
        let text = String::from_utf8_lossy(&done.stdout);
        let error = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{command}\n{text}\n{error}");
        match command.starts_with("moltbot gateway status") {
            true => assert!(text.contains(&gate.addr) && text.contains("ready"), "{text}"),
            false => {
                assert!(text.contains("Hello from the lab. You said: hi"), "{command}\n{text}");
                answered += 1;
            }
        }
    }
    assert!(answered >= 1, "curl at least");
    let seen = messages(&lab);
    assert!(seen.len() >= answered && seen.iter().all(|entry| entry.status == 200), "{seen:?}");
}
