//! `moltbot chat`: a conversation on a real pseudo-terminal, and one through a pipe.

use moltbot_lab::fingerprint;
use serde_json::json;

use crate::support::{KEY, KEY2, Sandbox, Terminal, lab, messages, until, used};

fn two_keys(lab: &moltbot_lab::Lab) -> Sandbox {
    let sandbox = Sandbox::new();
    let key = |key: &str| json!({ "type": "api_key", "provider": "anthropic", "key": key });
    sandbox.write_store(&json!({ "version": 1,
        "profiles": { "anthropic:one": key(KEY), "anthropic:two": key(KEY2) },
        "order": { "anthropic": ["anthropic:one", "anthropic:two"] } }));
    sandbox.use_lab(lab, json!({}));
    sandbox
}

#[test]
fn a_person_talks_pins_asks_why_and_leaves() {
    let lab = lab("[{ fault: { reply: { text: 'a purple answer' } } }]");
    let sandbox = two_keys(&lab);
    let mut terminal = Terminal::start(&sandbox.command(&["chat"]));
    terminal.waits_for("/help shows");
    terminal.types("hello\r");
    terminal.waits_for("a purple answer");
    terminal.waits_for("profile:anthropic:one");
    terminal.types("/why\r");
    terminal.waits_for("Answered by : anthropic/claude-opus-4-5");

    // A pin holds, and what cannot be meant changes nothing.
    terminal.types("/model anthropic/claude-opus-4-5@anthropic:nobody\r");
    terminal.waits_for("moltbot explain profile-unknown");
    terminal.types("/model anthropic/claude-opus-4-5@anthropic:two\r");
    terminal.waits_for("claude-opus-4-5 with profile:anthropic:two (billed per use)");
    terminal.types("and again\r");
    until(|| messages(&lab).len() == 2);
    let log = messages(&lab);
    assert_eq!((used(&log[0]), used(&log[1])), (&*fingerprint(KEY), &*fingerprint(KEY2)));
    assert_eq!(log[1].body["messages"].as_array().unwrap().len(), 3, "the conversation goes on");
    terminal.waits_until(|screen| screen.matches("a purple answer").count() == 2);

    // A new session forgets what was said and who was pinned.
    terminal.types("/new\r");
    terminal.waits_for("A new session");
    terminal.types("once more\r");
    until(|| messages(&lab).len() == 3);
    let last = messages(&lab).pop().unwrap();
    assert_eq!(last.body["messages"].as_array().unwrap().len(), 1);
    assert_eq!(used(&last), fingerprint(KEY));
    terminal.waits_until(|screen| screen.matches("a purple answer").count() == 3);
    terminal.types("\u{4}");
    assert_eq!(terminal.ends(), 0, "{}", terminal.screen());
}

#[test]
fn ctrl_c_stops_a_reply_and_not_the_chat() {
    let lab = lab("[{ match: { request: 1 }, fault: { delayMs: 60000 } }, \
         { fault: { reply: { text: 'the second one' } } }]");
    let sandbox = two_keys(&lab);
    let mut terminal = Terminal::start(&sandbox.command(&["chat"]));
    terminal.waits_for("/help shows");
    terminal.types("wait for it\r");
    until(|| !messages(&lab).is_empty());
    terminal.types("\u{3}");
    terminal.waits_for("Stopped; this turn is forgotten");
    // Again where nothing is on its way: what was typed is thrown away, and a new line begins.
    let prompts = |screen: &str| screen.lines().filter(|line| line.trim() == ">").count();
    terminal.waits_until(|screen| prompts(screen) == 1);
    terminal.types("\u{3}");
    terminal.waits_until(|screen| prompts(screen) == 2);
    terminal.types("go on\r");
    terminal.waits_for("the second one");
    let last = messages(&lab).pop().unwrap();
    assert_eq!(last.body["messages"].as_array().unwrap().len(), 1, "the stopped turn is gone");
    let resting = sandbox.run(&["models", "auth", "cooldown", "list", "--json"]).exits(0).json();
    assert_eq!(resting["cooldowns"], json!([]), "stopping punishes nobody");
    terminal.types("\u{4}");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn a_pipe_is_a_conversation_too() {
    let lab = lab("[{ fault: { reply: { text: 'yes' } } }]");
    let sandbox = two_keys(&lab);
    let done = sandbox.run_with_input(&["chat"], "one\n\n//two\n").exits(0);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("yes\nyes\n", ""));
    let log = messages(&lab);
    assert_eq!(log.len(), 2);
    assert!(log[1].body["messages"].to_string().contains("/two"));
    let done = sandbox.run_with_input(&["chat"], "/nonsense\nx\n").exits(1).says("/nonsense");
    assert_eq!(done.out, "yes\n");
    sandbox.run(&["chat", "--model", "no/such"]).exits(1).says("no/such");
}
