//! The wizard in a real pseudo-terminal: keys, a pasted token, Ctrl-C at every step.

use crate::support::{KEY, Sandbox, Terminal, token};

const DOWN: &str = "\u{1b}[B";
const ENTER: &str = "\r";
const CTRL_C: &str = "\u{3}";
const ENTER_KEY: &str = "Enter Anthropic API key";

/// Moves the mark of a list down until it stands on `line`.
#[track_caller]
fn choose(terminal: &mut Terminal, question: &str, line: &str) {
    terminal.waits_for(question);
    for _ in 0..20 {
        let marked = |screen: &str| screen.lines().any(|l| l.contains('●') && l.contains(line));
        if marked(&terminal.screen()) {
            terminal.types(ENTER);
            return;
        }
        let before = terminal.screen();
        terminal.types(DOWN);
        terminal.waits_until(|screen| screen != before);
    }
    panic!("no {line:?} in\n{}", terminal.screen());
}

/// Whatever else is asked has a default; returns the exit code.
#[track_caller]
fn takes_defaults(terminal: &mut Terminal) -> i32 {
    for _ in 0..1_000 {
        if terminal.has_ended() {
            break;
        }
        terminal.types(ENTER);
        terminal.waits_a_moment();
    }
    terminal.ends()
}

#[test]
fn a_key_is_typed_and_a_model_chosen() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::start(&sandbox.command(&["onboard"]));
    terminal.waits_for("Go on?");
    terminal.types("y");
    choose(&mut terminal, "How do you want to authenticate?", "API key");
    terminal.waits_for(ENTER_KEY);
    terminal.types(KEY);
    terminal.types(ENTER);
    choose(&mut terminal, "Which model by default?", "claude-sonnet-5-5");
    assert_eq!(terminal.ends(), 0, "{}", terminal.screen());
    assert!(!terminal.raw().contains(&KEY[14..]), "the key was shown");
    assert_eq!(sandbox.store()["profiles"]["anthropic:default"]["key"], KEY);
    let model = sandbox.run(&["models", "status", "--plain"]).exits(0).out;
    assert_eq!(model.trim(), "anthropic/claude-sonnet-5-5");
}

/// A paste arrives at once; no character of it may be echoed, not even between two reads.
#[test]
fn a_pasted_token_is_never_on_the_screen() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::start(&sandbox.command(&[
        "models",
        "auth",
        "paste-token",
        "--provider",
        "anthropic",
    ]));
    let token = token();
    assert_eq!(token.len(), 108);
    terminal.waits_for("Paste the setup-token");
    terminal.types(&token);
    terminal.types(ENTER);
    assert_eq!(takes_defaults(&mut terminal), 0, "{}", terminal.screen());
    let raw = terminal.raw();
    for piece in ["QZX", "ZXJ", "XJ7", "J7Q"] {
        assert!(!raw.contains(piece), "{piece} of the token was shown:\n{raw}");
    }
    assert_eq!(sandbox.store()["profiles"]["anthropic:manual"]["token"], token);
}

/// Runs the wizard up to a step, presses Ctrl-C there, and expects nothing to be left.
fn stops_at(step: usize) {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    let mut terminal = Terminal::start(&sandbox.command(&["onboard"]));
    let steps: [&dyn Fn(&mut Terminal); 3] = [
        &|terminal| {
            terminal.waits_for("Go on?");
            terminal.types("y");
        },
        &|terminal| choose(terminal, "How do you want to authenticate?", "API key"),
        &|terminal| {
            terminal.waits_for(ENTER_KEY);
            terminal.types(KEY);
            terminal.types(ENTER);
        },
    ];
    let waits =
        ["Go on?", "How do you want to authenticate?", ENTER_KEY, "Which model by default?"];
    for step in &steps[..step] {
        step(&mut terminal);
    }
    terminal.waits_for(waits[step]);
    terminal.types(CTRL_C);
    assert_eq!(terminal.ends(), 130, "step {step}:\n{}", terminal.screen());
    assert_eq!(sandbox.snapshot(), before, "step {step} left something behind");
}

#[test]
fn ctrl_c_leaves_nothing_behind_at_any_step() {
    for step in 0..=3 {
        stops_at(step);
    }
}

/// Between two questions no key is read and Ctrl-C comes as a signal; the next question ends it.
#[test]
fn ctrl_c_between_two_questions_is_not_lost() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    let mut terminal = Terminal::start(&sandbox.command(&["onboard"]));
    terminal.waits_for("Go on?");
    terminal.signals(rustix::process::Signal::INT);
    terminal.types("y");
    assert_eq!(terminal.ends(), 130, "{}", terminal.screen());
    assert!(!terminal.screen().contains("How do you want"), "{}", terminal.screen());
    assert_eq!(sandbox.snapshot(), before);
}

/// A reply that is on its way stops at once, and the half turn is not kept.
#[test]
fn ctrl_c_stops_a_reply() {
    let lab = crate::support::lab("[{ fault: { stall: 'headers' } }]");
    let sandbox = Sandbox::new().env("ANTHROPIC_API_KEY", KEY);
    sandbox.use_lab(&lab, serde_json::json!({}));
    let mut terminal = Terminal::start(&sandbox.command(&["agent", "-m", "hi"]));
    terminal.waits_for("Waiting");
    crate::support::until(|| lab.log().len() == 1);
    terminal.types(CTRL_C);
    assert_eq!(terminal.ends(), 130);
    assert!(!sandbox.state("agents/main/sessions").exists());
}

/// `claude setup-token` runs on the user's own terminal, then the token is pasted.
#[test]
fn the_setup_token_command_runs_on_the_terminal() {
    let sandbox = Sandbox::new();
    sandbox.link_program(
        "claude",
        concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/fake-claude/claude"),
    );
    let line = ["models", "auth", "setup-token", "--provider", "anthropic", "--yes"];
    let mut terminal = Terminal::start(&sandbox.command(&line));
    terminal.waits_for("Your OAuth token");
    terminal.waits_for("Paste the setup-token");
    let token = token();
    terminal.types(&token);
    terminal.types(ENTER);
    assert_eq!(takes_defaults(&mut terminal), 0, "{}", terminal.screen());
    assert_eq!(sandbox.store()["profiles"]["anthropic:manual"]["token"], token);
}
