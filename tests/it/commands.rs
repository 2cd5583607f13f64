//! Failures that name everything, requests that were stopped, tables on narrow screens, and what
//! is typed wrong (issue "the right credential, and says why", items 5, 8 and 9).

use moltbot_lab::fingerprint;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{KEY, KEY2, Sandbox, Terminal, lab, messages, until, used};

const NOON: &str = "2026-11-22T12:00:00Z";

fn key(key: &str) -> Value {
    json!({ "type": "api_key", "provider": "anthropic", "key": key })
}

fn two_keys(lab: &moltbot_lab::Lab) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write_store(&json!({ "version": 1,
        "profiles": { "anthropic:one": key(KEY), "anthropic:two": key(KEY2) },
        "order": { "anthropic": ["anthropic:one", "anthropic:two"] } }));
    sandbox.use_lab(lab, json!({}));
    sandbox
}

fn last_record(sandbox: &Sandbox) -> Value {
    let why = sandbox.run(&["models", "why", "--json"]).exits(0).json();
    why["records"][0].clone()
}

/// Profile, model, cause, until when, the command that mends it, and a code.
#[test]
fn a_failure_names_everything() {
    let lab = lab("[{ fault: { error: 'rate-limit', retryAfter: 3600 } }]");
    let mut sandbox = two_keys(&lab);
    sandbox.set_env("MOLTBOT_LAB_CLOCK", Some(NOON));
    let failed = sandbox.run(&["agent", "-m", "x"]).exits(1);
    for part in [
        "anthropic/claude-opus-4-5 with profile:anthropic:one: rate_limit, HTTP 429",
        "anthropic/claude-opus-4-5 with profile:anthropic:two: rate_limit, HTTP 429",
        "rests for 1h, until 2026-11-22T13:00:00Z",
        "hint: moltbot models auth cooldown list",
        "hint: moltbot explain ",
    ] {
        assert!(failed.err.contains(part), "no {part:?} in\n{}", failed.err);
    }
    // And when nothing can be sent at all.
    let failed = sandbox.run(&["agent", "-m", "x"]).exits(1);
    for part in [
        "No available auth profile for anthropic (all in cooldown or unavailable).",
        "anthropic/claude-opus-4-5 with profile:anthropic:one",
        "left out: cooling down",
        "until 2026-11-22T13:00:00Z",
        "hint: moltbot models auth cooldown list",
        "hint: moltbot explain all-cooling",
    ] {
        assert!(failed.err.contains(part), "no {part:?} in\n{}", failed.err);
    }
    // The same for programs.
    let error =
        sandbox.run(&["agent", "-m", "x", "--json"]).exits(1).json()["meta"]["error"].clone();
    assert_eq!(error["code"], "all-cooling");
    assert_eq!(error["mend"], "moltbot models auth cooldown list");
}

/// A model that cannot be asked, refused before anything is tried, is in the log too.
#[test]
fn a_request_that_failed_early_is_explained() {
    let lab = lab("[]");
    let sandbox = two_keys(&lab);
    sandbox
        .write_config("{ agents: { defaults: { models: { 'anthropic/claude-opus-4-5': {} } } } }");
    sandbox
        .run(&["agent", "-m", "x", "--model", "anthropic/claude-sonnet-4-5"])
        .exits(1)
        .says("model not allowed: anthropic/claude-sonnet-4-5")
        .says("hint: moltbot models aliases add <alias> anthropic/claude-sonnet-4-5");
    let record = last_record(&sandbox);
    assert_eq!(record["outcome"], json!({ "type": "failed", "code": "model-not-allowed" }));
    assert_eq!(record["requested"], "anthropic/claude-sonnet-4-5");
    // A key typed in the model's place is not kept.
    sandbox.run(&["agent", "-m", "x", "--model", KEY]).exits(1);
    let log = std::fs::read_to_string(sandbox.state("agents/main/logs/requests.jsonl")).unwrap();
    assert!(!log.contains(&KEY[14..]), "{log}");
    assert!(messages(&lab).is_empty());
}

#[test]
fn a_request_stopped_with_ctrl_c_is_explained() {
    let lab = lab("[{ fault: { delayMs: 120000 } }]");
    let sandbox = two_keys(&lab);
    let child = sandbox
        .command(&["agent", "-m", "x"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    until(|| !messages(&lab).is_empty());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let record = last_record(&sandbox);
    assert_eq!(record["outcome"], json!({ "type": "failed", "code": "cancelled" }));
    let attempt = &record["attempts"][0];
    assert_eq!(
        (&attempt["source"], &attempt["class"]),
        (&json!("profile:anthropic:one"), &json!("cancelled"))
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let id = record["id"].as_str().unwrap();
    assert!(said.contains(&format!("hint: moltbot models why --request {id}")), "{said}");
    let resting = sandbox.run(&["models", "auth", "cooldown", "list", "--json"]).exits(0).json();
    assert_eq!(resting["cooldowns"], json!([]), "stopping punishes nobody");
}

/// Spec S-8: the pin of a session whose profile is gone is lifted, and that is said.
#[test]
fn a_pin_on_a_profile_that_is_gone_is_lifted() {
    let lab = lab("[]");
    let sandbox = two_keys(&lab);
    let model = "anthropic/claude-opus-4-5@anthropic:two";
    sandbox.run(&["agent", "-m", "one", "--model", model]).exits(0);
    sandbox.run(&["agent", "-m", "two", "--continue"]).exits(0);
    let log = messages(&lab);
    assert_eq!((used(&log[0]), used(&log[1])), (&*fingerprint(KEY2), &*fingerprint(KEY2)));
    let mut store = sandbox.store();
    store["profiles"].as_object_mut().unwrap().remove("anthropic:two");
    store.as_object_mut().unwrap().remove("order");
    sandbox.write_store(&store);
    sandbox
        .run(&["agent", "-m", "three", "--continue"])
        .exits(0)
        .says("the session was pinned to anthropic:two");
    assert_eq!(used(messages(&lab).last().unwrap()), fingerprint(KEY));
}

/// The arrow keys bring back what was said, in this session and before it.
#[test]
fn chat_has_a_history() {
    let lab = lab("[{ fault: { reply: { text: 'an amber reply' } } }]");
    let sandbox = two_keys(&lab);
    sandbox.run(&["agent", "-m", "said before"]).exits(0);
    let mut terminal = Terminal::start(&sandbox.command(&["chat", "--continue"]));
    terminal.waits_for("/help shows");
    terminal.waits_for("> ");
    terminal.types("\u{1b}[A");
    terminal.waits_for("> said before");
    terminal.types(" again\r");
    until(|| messages(&lab).len() == 2);
    let sent =
        |at: usize| messages(&lab)[at].body["messages"].as_array().unwrap().last().unwrap().clone();
    assert!(sent(1).to_string().contains("said before again"), "{}", sent(1));
    terminal.waits_until(|screen| screen.contains("an amber reply"));
    // Editing in the middle of a line, too.
    terminal.waits_until(|screen| screen.trim_end().ends_with('>'));
    terminal.types("\u{1b}[A\u{1b}[A\u{1b}[H\u{1b}[3~S\r");
    until(|| messages(&lab).len() == 3);
    assert!(sent(2).to_string().contains("Said before"), "{}", sent(2));
    terminal.waits_until(|screen| screen.matches("an amber reply").count() == 2);
    terminal.types("\u{4}");
    assert_eq!(terminal.ends(), 0, "{}", terminal.screen());
}

/// What is printed fits the terminal, and nothing is told by colour alone.
#[test]
fn output_fits_the_terminal_and_colour_carries_nothing_alone() {
    let lab = lab("[{ match: { request: 1 }, fault: { error: 'rate-limit', retryAfter: 600 } }]");
    let mut sandbox = two_keys(&lab);
    // So that times read the same in every run.
    sandbox.set_env("MOLTBOT_LAB_CLOCK", Some(NOON));
    sandbox.run(&["agent", "-m", "x"]).exits(0);
    for add in ["sonnet-4.5", "opus-4.5", "claude-haiku-5-5"] {
        sandbox.run(&["models", "aliases", "add", add, "claude-haiku-5-5"]);
    }
    for line in [
        &["models", "status"][..],
        &["models", "status", "--probe", "--usage"],
        &["models", "list", "--all"],
        &["models", "scan", "--no-probe", "--no-input"],
        &["models", "usage", "--by", "profile"],
        &["models", "why"],
        &["models", "why", "--dry-run"],
        &["models", "auth", "cooldown", "list"],
        &["models", "simulate", "--last", "1"],
        &["agents", "list", "--bindings"],
        &["channels", "list"],
        &["status", "--all"],
        &["explain"],
    ] {
        for columns in [60, 80, 120] {
            let mut terminal = Terminal::start_with(&sandbox.command(line), columns);
            let bare = strip(&terminal.all()).replace('\r', "\n");
            assert!(bare.lines().count() > 1, "{line:?}: {bare}");
            let columns = usize::from(columns);
            for row in bare.lines().filter(|row| row.trim_end().chars().count() > columns) {
                // Only a word that finds room nowhere may stand out: an address, a path.
                let indent = row.chars().take_while(|c| *c == ' ').count();
                let words = row.split(' ').map(|word| word.chars().count());
                let longest = words.max().unwrap_or(0);
                assert!(indent + longest > columns, "{line:?} at {columns}: {row}");
            }
        }
    }
    // Without colours every word that had one is still there.
    let colored = Terminal::start(&sandbox.command(&["models", "status"])).all();
    assert!(colored.contains("\u{1b}["), "{colored}");
    let plain = sandbox.run(&["--no-color", "models", "status"]).exits(0).out;
    let words = |text: &str| -> Vec<String> {
        let own = text.lines().filter(|line| !line.starts_with("lab: "));
        own.flat_map(str::split_whitespace).map(String::from).collect()
    };
    assert_eq!(words(&strip(&colored)), words(&plain));
}

/// Removes the terminal's control sequences.
fn strip(raw: &str) -> String {
    let mut out = String::new();
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            out.push(c);
            continue;
        }
        if chars.next() == Some('[') {
            for c in chars.by_ref() {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        }
    }
    out
}

/// Unknown profiles, wrong providers, unknown models, negative limits: one clear sentence, exit
/// code 1, nothing changed.
#[test]
fn what_is_typed_wrong_changes_nothing() {
    let lab = lab("[]");
    let sandbox = two_keys(&lab);
    let order = ["models", "auth", "order", "set", "--provider"];
    let pinned = "anthropic/claude-opus-4-5@anthropic:nobody";
    let before = sandbox.snapshot();
    let lines: &[(&[&str], &str)] = &[
        (
            &[order[0], order[1], order[2], order[3], order[4], "anthropic", "anthropic:nobody"],
            "Auth profile \"anthropic:nobody\" not found in ",
        ),
        (
            &[order[0], order[1], order[2], order[3], order[4], "acme", "anthropic:one"],
            "is for anthropic, not acme",
        ),
        (
            &["models", "auth", "cooldown", "clear", "--profile", "anthropic:nobody"],
            "not found in ",
        ),
        (
            &[
                "models",
                "auth",
                "cooldown",
                "list",
                "--profile",
                "anthropic:one",
                "--provider",
                "acme",
            ],
            "is for anthropic, not acme",
        ),
        (&["models", "auth", "login", "--provider", "acme"], "requires an interactive TTY"),
        (
            &["models", "auth", "setup-token", "--provider", "acme"],
            "Only --provider anthropic is supported for setup-token",
        ),
        (&["models", "auth", "refresh", "--profile", "anthropic:nobody"], "anthropic:nobody"),
        (&["models", "set", "no/"], "invalid model: no/"),
        (&["models", "set", "acme/rocket"], "Unknown model: acme/rocket"),
        (&["models", "fallbacks", "add", "acme/rocket"], "Unknown model: acme/rocket"),
        (
            &["models", "fallbacks", "remove", "opus"],
            "Fallback not found: anthropic/claude-opus-4-5",
        ),
        (&["models", "aliases", "add", "a b", "opus"], "alias"),
        (
            &["models", "status", "--probe-timeout", "-1"],
            "--probe-timeout must be a positive number (ms).",
        ),
        (&["models", "status", "--probe-concurrency", "0"], "--probe-concurrency must be > 0."),
        (&["models", "status", "--probe-max-tokens", "-8"], "--probe-max-tokens must be > 0."),
        (&["models", "status", "--probe", "--probe-provider", "acme"], "Unknown provider \"acme\""),
        (
            &["models", "status", "--probe", "--probe-profile", "anthropic:nobody"],
            "Auth profile \"anthropic:nobody\" not found in ",
        ),
        (&["models", "status", "--agent", "nobody"], "Unknown agent id \"nobody\""),
        (&["models", "why", "--last", "-3"], "--last"),
        (&["models", "why", "--last", "0"], "--last"),
        (&["models", "why", "--request", "nonsense"], "\"nonsense\" is no request id"),
        (&["models", "why", "--dry-run", "--model", "acme/rocket"], "Unknown model: acme/rocket"),
        (&["models", "why", "--dry-run", "--model", pinned], "anthropic:nobody"),
        (&["models", "usage", "--by", "colour"], "colour"),
        (&["agent", "-m", "x", "--max-tokens", "-1"], "--max-tokens"),
        (&["agent", "-m", "x", "--timeout", "0"], "--timeout"),
        (&["agent", "-m", "x", "--thinking", "deep"], "deep"),
        (&["agent", "-m", "x", "--session-id", "../../etc"], "session"),
        (&["agent", "-m", "x", "--agent", "nobody"], "Unknown agent id \"nobody\""),
        (&["status", "--deep", "--timeout", "-5"], "--timeout must be a positive number (ms)."),
        (&["configure", "--section", "hats"], "Invalid --section: hats. Expected one of: "),
        (&["explain", "no-credentail"], "Unknown code \"no-credentail\""),
    ];
    for (line, part) in lines {
        let done = sandbox.run(line);
        assert_eq!(done.code, 1, "{line:?}\n{}{}", done.out, done.err);
        assert!(done.err.contains(part), "{line:?} does not say {part:?}:\n{}", done.err);
        assert!(done.err.contains("hint: moltbot explain "), "{line:?} has no code:\n{}", done.err);
        assert!(done.out.is_empty(), "{line:?}: {}", done.out);
        assert_eq!(sandbox.snapshot(), before, "{line:?} changed something");
    }
    assert!(messages(&lab).is_empty());
}

/// The doctor asks the service when told to, and makes a token for the gateway.
#[test]
fn the_doctor_asks_the_service_and_makes_a_token() {
    let lab = lab("[{ match: { key: 'E002' }, fault: { error: 27 } }]");
    let sandbox = two_keys(&lab);
    // What the sandbox wrote is open to others; that is another matter.
    sandbox.run(&["doctor", "--fix"]).exits(0);
    let before = sandbox.snapshot();
    let done = sandbox.run(&["doctor", "--deep"]).exits(1);
    assert!(done.out.contains("info: agent main: anthropic:one works"), "{}", done.out);
    assert!(done.out.contains("problem: agent main: anthropic:two: "), "{}", done.out);
    assert_eq!(sandbox.snapshot(), before);
    sandbox.run(&["doctor", "--generate-gateway-token"]).exits(0);
    let token = sandbox.run(&["gateway", "token"]).exits(0).out;
    assert!(token.trim().len() > 20);
    sandbox.run(&["doctor", "--generate-gateway-token"]).exits(0);
    assert_eq!(sandbox.run(&["gateway", "token"]).exits(0).out, token);
}

/// `configure`, with a person: the workspace and the gateway, then nothing else.
#[test]
fn configure_asks_for_one_part_at_a_time() {
    let sandbox = Sandbox::new().env("ANTHROPIC_API_KEY", KEY);
    let mut terminal = Terminal::start(&sandbox.command(&["configure", "--section", "workspace"]));
    terminal.waits_for("Working directory");
    terminal.types("~/desk\r");
    assert_eq!(terminal.ends(), 0, "{}", terminal.screen());
    let got = sandbox.run(&["config", "get", "agents.defaults.workspace"]).exits(0).out;
    assert!(got.contains("desk"), "{got}");
    let mut terminal = Terminal::start(&sandbox.command(&["config", "--section", "gateway"]));
    terminal.waits_for("Port of the gateway");
    terminal.types("\u{3}");
    assert_eq!(terminal.ends(), 130, "{}", terminal.screen());
    assert!(!sandbox.config().contains("gateway"), "{}", sandbox.config());
}
