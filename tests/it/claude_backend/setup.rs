//! Onboarding with the user's own `claude`, what status and doctor say of it, who may pay when its
//! plan is spent, and conversations that another process goes on with.

use serde_json::json;

use super::{CANARY, SETUP_TOKEN, fake, log, plan, real};
use crate::support::{KEY, Sandbox, Terminal, lab};

const DOWN: &str = "\u{1b}[B";
const ENTER: &str = "\r";
const CHOICE: [&str; 5] =
    ["onboard", "--non-interactive", "--accept-risk", "--auth-choice", "claude-cli-backend"];

#[test]
fn a_script_sets_it_up_and_is_told_the_terms() {
    let mut sandbox = fake("ok");
    sandbox.set_env("ANTHROPIC_API_KEY", Some(CANARY));
    // Where only listed models may be asked for, the new one is listed too.
    sandbox.write_config(
        r#"{ agents: { defaults: { models: { "anthropic/claude-opus-4-5": {} } } } }"#,
    );
    let done = sandbox.run(&CHOICE).exits(0);
    let terms: Vec<&str> = done.err.lines().take(2).collect();
    assert!(terms[0].contains("Free, Pro and Max") && terms[0].contains("may change"), "{done:?}");
    assert!(terms[1].contains("https://code.claude.com/docs/en/legal"), "{done:?}");
    assert!(done.err.contains("claude 2.1.197, logged in with a plan (max)"), "{done:?}");
    assert!(done.err.contains("--model claude-cli/sonnet"), "{done:?}");
    let done = sandbox.run(&["agent", "--model", "claude-cli/sonnet", "-m", "hi"]).exits(0);
    assert!(done.out.trim_end().ends_with(":1:hi"), "{done:?}");
    let text = sandbox.config() + &sandbox.store().to_string() + &log(&sandbox);
    assert!(!text.contains("FAKECANARY"), "{text}");
}

#[test]
fn a_person_chooses_it_and_the_model() {
    let sandbox = fake("ok");
    let mut terminal = Terminal::start(&sandbox.command(&["onboard"]));
    terminal.waits_for("Go on?");
    terminal.types("y");
    terminal.waits_for("How do you want to authenticate?");
    let line = "through your own claude program";
    for _ in 0..20 {
        let marked = |screen: &str| screen.lines().any(|l| l.contains('●') && l.contains(line));
        if marked(&terminal.screen()) {
            break;
        }
        let before = terminal.screen();
        terminal.types(DOWN);
        terminal.waits_until(|screen| screen != before);
    }
    terminal.types(ENTER);
    terminal.waits_for("What the vendor says");
    terminal.waits_for("Which model by default?");
    terminal.types(ENTER);
    assert_eq!(terminal.ends(), 0, "{}", terminal.screen());
    let model = sandbox.run(&["models", "status", "--plain"]).exits(0).out;
    assert_eq!(model.trim(), "claude-cli/sonnet");
    assert!(sandbox.run(&["agent", "-m", "hi"]).exits(0).out.contains(":1:hi"));
}

#[test]
fn it_is_not_offered_without_the_program() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::start(&sandbox.command(&["onboard"]));
    terminal.waits_for("Go on?");
    terminal.types("y");
    terminal.waits_for("How do you want to authenticate?");
    assert!(!terminal.screen().contains("your own claude program"), "{}", terminal.screen());
    drop(terminal);
    sandbox.run(&CHOICE).exits(1).says("claude");
}

/// Who pays, the login and the version are known before anything is asked.
#[test]
fn status_and_doctor_know_the_program() {
    let mut sandbox = fake("ok");
    sandbox.set_env("ANTHROPIC_API_KEY", Some(CANARY));
    sandbox.write_config(r#"{ agents: { defaults: { model: "claude-cli/sonnet" } } }"#);
    let shown = sandbox.run(&["models", "status"]).exits(0).out;
    for text in [
        "claude-cli effective=login:claude-cli:login",
        "claude-cli:login: claude 2.1.197, logged in with a plan (max)",
        "[from a subscription] Anthropic's consumer terms",
        "ANTHROPIC_API_KEY is for anthropic; claude-cli never gets it",
    ] {
        assert!(shown.contains(text), "{text}\n---\n{shown}");
    }
    let status = sandbox.run(&["models", "status", "--json"]).exits(0).json();
    assert_eq!(status["auth"]["missingProvidersInUse"], json!([]));
    let row = &status["auth"]["oauth"]["profiles"][0];
    assert_eq!((&row["profileId"], &row["status"]), (&json!("claude-cli:login"), &json!("static")));
    let doctor = sandbox.run(&["doctor"]).exits(0).out;
    assert!(doctor.contains("unset ANTHROPIC_API_KEY"), "{doctor}");
    assert!(doctor.contains("claude 2.1.197, logged in with a plan (max)"), "{doctor}");

    for (word, said, typed) in [
        ("login", "claude 2.1.197, not logged in", "run `claude`"),
        ("old", "claude 1.0.0 (Claude Code) is too old", "claude update"),
    ] {
        plan(&sandbox, word);
        let status = sandbox.run(&["models", "status"]).out;
        assert!(status.contains("Missing auth") && status.contains(said), "{status}");
        let doctor = sandbox.run(&["doctor"]).exits(1).out;
        assert!(doctor.contains(said) && doctor.contains(typed), "{doctor}");
    }
    plan(&sandbox, "key");
    let doctor = sandbox.run(&["doctor"]).exits(0).out;
    assert!(doctor.contains("billed per use"), "{doctor}");
    std::fs::remove_file(sandbox.root().join("bin/claude")).unwrap();
    let doctor = sandbox.run(&["doctor"]).exits(1).out;
    assert!(doctor.contains("not installed") && doctor.contains("install Claude Code"), "{doctor}");
}

/// Decision 8: a spent plan is followed by a key only if the config says so, and `models why` tells.
#[test]
fn a_key_pays_instead_of_the_plan_only_when_allowed() {
    for allowed in [None, Some(false), Some(true)] {
        let lab = lab("[]");
        let mut sandbox = fake("limit");
        sandbox.set_env("ANTHROPIC_API_KEY", Some(KEY));
        sandbox.use_lab(
            &lab,
            json!({
                "auth": allowed.map_or(json!({}), |allowed| json!({ "allowPaidFallback": allowed })),
                "agents": { "defaults": { "model": { "primary": "claude-cli/opus",
                    "fallbacks": ["anthropic/claude-opus-4-5"] } } },
            }),
        );
        let done = sandbox.run(&["agent", "-m", "hi"]);
        let why = sandbox.run(&["models", "why"]).exits(0).out;
        assert!(why.contains("claude-cli/opus") && why.contains("claude-cli:login"), "{why}");
        if allowed == Some(true) {
            assert_eq!((done.code, done.out.trim()), (0, "Hello from the lab. You said: hi"));
            assert!(done.err.contains("is paid per use"), "{done:?}");
            assert!(why.contains("anthropic/claude-opus-4-5"), "{why}");
        } else {
            assert_eq!(done.code, 1, "{done:?}");
            assert!(done.err.contains("allowPaidFallback"), "{done:?}");
            assert!(lab.log().is_empty(), "the key was used");
        }
    }
}

/// A key that was onboarded first neither hides the program nor pays for it in silence: not when the
/// plan is spent, not while it rests, not when the program is gone.
#[test]
fn a_key_that_was_there_first_leaves_the_program_alone() {
    let lab = lab("[]");
    let sandbox = fake("ok");
    sandbox.use_lab(&lab, json!({}));
    sandbox.run(&["onboard", "--anthropic-api-key", KEY]).exits(0);
    sandbox.run(&CHOICE).exits(0);
    let line = ["agent", "--model", "claude-cli/sonnet", "-m", "hi"];
    assert!(sandbox.run(&line).exits(0).out.trim_end().ends_with(":1:hi"));
    let gone = sandbox.root().join("bin/claude");
    let program = std::fs::read_link(&gone).unwrap();
    std::fs::remove_file(&gone).unwrap();
    let done = sandbox.run(&line).exits(1);
    assert!(done.err.contains("allowPaidFallback") && done.err.contains("claude"), "{done:?}");
    std::os::unix::fs::symlink(program, &gone).unwrap();
    plan(&sandbox, "limit");
    for turn in 1..=2 {
        let done = sandbox.run(&line).exits(1);
        assert!(done.err.contains("allowPaidFallback"), "{turn}: {done:?}");
    }
    assert!(lab.log().is_empty(), "the key was used");
    // Asked for by its own name it answers.
    sandbox.run(&["agent", "--model", "anthropic/claude-opus-4-5", "-m", "hi"]).exits(0);
    sandbox.run(&["config", "set", "auth.allowPaidFallback", "true"]).exits(0);
    let done = sandbox.run(&line).exits(0).says("is paid per use");
    assert_eq!(done.out.trim(), "Hello from the lab. You said: hi");
}

/// Another process goes on where the first one ended, by the program's own session.
#[test]
fn a_conversation_goes_on_in_another_process() {
    let sandbox = fake("ok");
    let say = |text: &str, more: &[&str]| {
        let line = [&["agent", "--model", "claude-cli/sonnet", "-m", text], more].concat();
        sandbox.run(&line).exits(0).out.trim().to_string()
    };
    assert!(say("one", &[]).ends_with(":1:one"));
    assert!(say("two", &["--continue"]).ends_with(":2:two"));
    let sessions = sandbox.home().join(".claude");
    for file in std::fs::read_dir(&sessions).unwrap().flatten() {
        if file.file_name().to_string_lossy().starts_with("session-") {
            std::fs::remove_file(file.path()).unwrap();
        }
    }
    // What the program has forgotten is told to it from the beginning.
    assert!(say("three", &["--continue"]).ends_with(":1:three"));
    let log = log(&sandbox);
    assert_eq!(log.matches("--resume ").count(), 2, "{log}");
    assert!(say("other", &[]).ends_with(":1:other"), "another conversation is another session");
}

#[test]
fn the_real_program_is_set_up_and_remembers() {
    let Some(program) = real() else { return };
    let lab = lab("[]");
    let sandbox = Sandbox::new();
    sandbox.link_program("claude", program.to_str().expect("a path"));
    sandbox.write_config(
        &json!({ "models": { "providers": { "claude-cli": { "baseUrl": lab.url(), "models": [] } } } })
            .to_string(),
    );
    let done = sandbox.run(&CHOICE).exits(0);
    assert!(done.err.contains("claude 2.1.") && done.err.contains("not logged in"), "{done:?}");
    sandbox.write_store(&json!({"version": 1, "profiles": {
        "anthropic:manual": {"type": "token", "provider": "anthropic", "token": SETUP_TOKEN},
    }}));
    let line = ["agent", "--model", "claude-cli/sonnet", "-m"];
    let done = sandbox.run(&[&line[..], &["hi"]].concat()).exits(0);
    assert_eq!(done.out.trim(), "Hello from the lab. You said: hi");
    let done = sandbox.run(&[&line[..], &["and now", "--continue"]].concat()).exits(0);
    assert_eq!(done.out.trim(), "Hello from the lab. You said: and now");
    let seen = crate::support::messages(&lab);
    let roles: Vec<&str> = seen.last().expect("a request").body["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .filter_map(|message| message["role"].as_str())
        .collect();
    assert_eq!(roles, ["user", "assistant", "user"], "it was told as turns, not as text");
}
