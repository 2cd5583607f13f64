//! The user's own `claude` as a backend: a fake one for what happens to the host, and the real one
//! of `MOLTBOT_CLIENTS/claude` with the lab as its upstream.

mod canaries;
mod setup;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Sandbox, lab, messages, used};

/// A well-formed, obviously fake setup-token.
pub(crate) const SETUP_TOKEN: &str = "sk-ant-oat01-FAKE000000000000000000000000000000000000000000000000000000000000000000000000000000";
/// A key that must reach no program and no service.
pub(crate) const CANARY: &str = "sk-ant-api03-FAKECANARY000000000000000000000000";

/// A sandbox with a fake program; `word` is what it acts by.
pub(crate) fn fake(word: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/fake-claude-stream/claude");
    sandbox.link_program("claude", fake.to_str().expect("a path"));
    plan(&sandbox, word);
    sandbox
}

/// Changes the word the fake program acts by.
pub(crate) fn plan(sandbox: &Sandbox, word: &str) {
    sandbox.write(&sandbox.home().join(".claude/fake-stream.plan"), &format!("{word}\n"));
}

/// Reads what the fake program has logged.
pub(crate) fn log(sandbox: &Sandbox) -> String {
    std::fs::read_to_string(sandbox.home().join(".claude/fake-stream.log")).unwrap_or_default()
}

/// Whether a process runs, and is not only waited for.
pub(crate) fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(PathBuf::from("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

#[test]
fn a_chat_streams_through_the_program_without_any_credential_here() {
    let mut sandbox = fake("ok");
    sandbox.set_env("ANTHROPIC_API_KEY", Some(CANARY));
    let done = sandbox.run(&["agent", "--model", "claude-cli/sonnet", "-m", "hi"]).exits(0);
    assert!(done.out.trim_end().ends_with(":1:hi"), "{done:?}");
    let log = log(&sandbox);
    assert!(!log.contains("FAKECANARY"), "{log}");
    assert!(log.contains("--session-id"));
    assert!(!log.contains("dangerously"));
    assert!(!sandbox.store().to_string().contains("\"type\""), "no profile is stored");
}

#[test]
fn what_claude_cannot_do_is_refused_by_name() {
    let sandbox = fake("ok");
    sandbox.write_config(
        &json!({"agents": {"defaults": {"models": {"claude-cli/sonnet": {"params": {"tools": ["--bad"]}}}}}})
            .to_string(),
    );
    let done = sandbox.run(&["agent", "--model", "claude-cli/sonnet", "-m", "hi"]).exits(1);
    assert!(done.err.contains("params.tools"), "{done:?}");
    assert_eq!(log(&sandbox), "", "nothing was started");
}

#[test]
fn a_missing_program_is_told() {
    let sandbox = Sandbox::new();
    let done = sandbox.run(&["agent", "--model", "claude-cli/sonnet", "-m", "hi"]).exits(1);
    assert!(done.err.contains("claude"), "{done:?}");
}

/// Even a program that hangs ends when the host is killed.
#[test]
fn no_program_outlives_a_killed_host() {
    let sandbox = fake("hang");
    let mut host = sandbox
        .command(&["agent", "--model", "claude-cli/sonnet", "-m", "hi"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let until = Instant::now() + Duration::from_secs(60);
    let pid = loop {
        let log = log(&sandbox);
        if let Some(pid) = log.lines().find_map(|line| line.strip_prefix("pid ")) {
            break pid.to_string();
        }
        assert!(Instant::now() < until, "the program was not started");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(runs(&pid));
    host.kill().expect("SIGKILL");
    host.wait().expect("it is gone");
    let until = Instant::now() + Duration::from_secs(60);
    while runs(&pid) {
        assert!(Instant::now() < until, "{pid} is an orphan");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the real program, if there is one for tests. `MOLTBOT_CLAUDE_LATER` leaves it for
/// another run of them, in a network of its own (`.ci/run`).
pub(crate) fn real() -> Option<PathBuf> {
    if std::env::var_os("MOLTBOT_CLAUDE_LATER").is_some_and(|value| !value.is_empty()) {
        eprintln!("LEFT for a run in a network of its own: the real program was not run");
        return None;
    }
    let dir = std::env::var_os("MOLTBOT_CLIENTS").map(PathBuf::from);
    let program = dir.map(|dir| dir.join("claude/claude")).filter(|program| program.exists());
    if program.is_none() {
        eprintln!("SKIPPED: no claude/claude in MOLTBOT_CLIENTS, the real program was not run");
    }
    program
}

#[test]
fn the_real_program_streams_from_the_lab() {
    let Some(program) = real() else { return };
    let lab = lab("[]");
    let mut sandbox = Sandbox::new();
    sandbox.link_program("claude", program.to_str().expect("a path"));
    sandbox.set_env("ANTHROPIC_API_KEY", Some(CANARY));
    sandbox.write_config(
        &json!({
            "models": {"providers": {"claude-cli": {"baseUrl": lab.url(), "models": []}}},
            "agents": {"defaults": {"models": {
                "claude-cli/sonnet": {}, "anthropic/claude-sonnet-4-5": {"runtime": "claude-cli"},
            }}},
        })
        .to_string(),
    );
    sandbox.write_store(&json!({"version": 1, "profiles": {
        "anthropic:manual": {"type": "token", "provider": "anthropic", "token": SETUP_TOKEN},
    }}));
    for (model, asked) in [
        ("claude-cli/sonnet", "claude-sonnet"),
        ("anthropic/claude-sonnet-4-5", "claude-sonnet-4-5"),
    ] {
        let mut child = sandbox
            .command(&["agent", "--model", model, "-m", "hi"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let text: Vec<String> = out.lines().map_while(Result::ok).collect();
        assert!(child.wait().expect("it ends").success());
        assert_eq!(text.join("\n").trim(), "Hello from the lab. You said: hi");
        let seen = messages(&lab);
        let entry = seen.last().expect("a request");
        assert!(entry.body["model"].as_str().is_some_and(|model| model.starts_with(asked)));
        assert_eq!(used(entry), moltbot_lab::fingerprint(SETUP_TOKEN), "the token, and no key");
        assert_eq!(entry.credentials.len(), 1);
    }
}
