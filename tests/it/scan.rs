//! `models scan`: which models an account really has, which of them answer, and what is done with
//! them (spec L-28).

use moltbot_lab::Lab;
use serde_json::{Value, json};

use crate::support::{KEY, Sandbox, Terminal, lab, messages, used};

fn sandbox(lab: &Lab, more: Value) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write_store(&json!({ "version": 1, "profiles": {
        "anthropic:default": { "type": "api_key", "provider": "anthropic", "key": KEY } } }));
    sandbox.use_lab(lab, more);
    sandbox
}

fn row<'a>(scan: &'a Value, key: &str) -> &'a Value {
    let rows = scan["models"].as_array().unwrap();
    rows.iter().find(|row| row["key"] == key).unwrap_or_else(|| panic!("no {key} in {scan}"))
}

/// A model that only the config knows, beside the catalog.
fn own_model() -> Value {
    json!({ "models": { "providers": { "anthropic": { "models": [
        { "id": "claude-house-1", "name": "House" }] } } } })
}

/// The service's list beside the catalog, the newest tried, and not a byte changed.
#[test]
fn what_is_offered_is_shown_and_tried_and_nothing_changes() {
    let lab = lab("[{ match: { model: 'claude-mythos-5-2' }, fault: { error: 'rate-limit' } }]");
    let sandbox = sandbox(&lab, own_model());
    let before = sandbox.snapshot();
    let scan = sandbox.run(&["models", "scan", "--json", "--max-candidates", "3"]).exits(0).json();
    assert_eq!(sandbox.snapshot(), before);
    let provider = &scan["providers"][0];
    assert_eq!((&provider["provider"], &provider["status"]), (&json!("anthropic"), &json!("ok")));
    assert_eq!(provider["source"], "anthropic:default");
    assert_eq!((&provider["new"], &provider["notOffered"]), (&json!(0), &json!(1)));
    assert_eq!(row(&scan, "anthropic/claude-house-1")["status"], "not_offered");
    // The dated id of the service is the catalog's model.
    let opus = row(&scan, "anthropic/claude-opus-4-5");
    assert_eq!((&opus["status"], &opus["cost"]["input"]), (&json!("known"), &json!(5.0)));
    assert_eq!(opus["tags"], json!(["default"]));
    assert!(opus["createdAt"].is_i64() && opus.get("probe").is_none(), "{opus}");
    let tried: Vec<_> = messages(&lab).iter().map(|sent| sent.body["model"].clone()).collect();
    assert_eq!(tried.len(), 3, "{tried:?}");
    let works = row(&scan, "anthropic/claude-fable-5-2");
    assert_eq!(works["probe"]["status"], "ok");
    assert!(works["probe"]["latencyMs"].is_u64());
    let limited = row(&scan, "anthropic/claude-mythos-5-2");
    assert_eq!(limited["probe"]["status"], "rate_limit");
    assert_eq!((&scan["added"], &scan["setDefault"]), (&json!([]), &Value::Null));
    for key in ["agentId", "startedAt", "finishedAt", "durationMs", "options", "setImage"] {
        assert!(scan.get(key).is_some(), "no {key}");
    }
    let list = lab.log().into_iter().find(|sent| sent.path() == "/v1/models").unwrap();
    assert_eq!(used(&list), used(&messages(&lab)[0]));
}

/// Beside a catalog of one's own everything is new; nothing is tried with `--no-probe`.
#[test]
fn a_model_that_nobody_knew_is_new() {
    let lab = lab("[]");
    let mut config = own_model();
    config["models"]["mode"] = "replace".into();
    let sandbox = sandbox(&lab, config);
    let line = ["models", "scan", "--no-probe", "--provider", "anthropic"];
    let told = sandbox.run(&line).exits(0).out;
    assert!(told.contains("0 known), 1 in the catalog but not offered"), "{told}");
    let opus = told.lines().find(|line| line.contains("claude-opus-5-5")).unwrap();
    assert!(
        opus.contains("new") && opus.contains("2026-09-22") && opus.contains("1000k"),
        "{opus}"
    );
    assert!(messages(&lab).is_empty());
    // The age is that of the service; what it does not offer has none.
    let young = |days: &str| {
        let line = ["models", "scan", "--no-probe", "--json", "--max-age-days", days];
        sandbox.run(&line).exits(0).json()["models"].as_array().unwrap().len()
    };
    assert_eq!(young("100000"), told.lines().filter(|line| line.contains(" new ")).count());
}

/// `--yes` adds what answered, `--set-default` and `--set-image` set the first of it.
#[test]
fn what_answers_is_added_on_request() {
    let lab = lab("[{ match: { model: 'claude-mythos-5-2' }, fault: { error: 'rate-limit' } }]");
    let sandbox = sandbox(&lab, json!({}));
    let line = ["models", "scan", "--max-candidates", "3", "--yes", "--set-default", "--set-image"];
    let told = sandbox.run(&line).exits(0).out;
    assert!(told.contains("Default model: anthropic/claude-fable-5-2"), "{told}");
    assert!(told.contains("Image model: anthropic/claude-fable-5-2"), "{told}");
    assert!(told.contains("Added fallback: anthropic/claude-haiku-5-5"), "{told}");
    let status = sandbox.run(&["models", "status", "--json"]).exits(0).json();
    assert_eq!(status["resolvedDefault"], "anthropic/claude-fable-5-2");
    assert_eq!(status["imageModel"], "anthropic/claude-fable-5-2");
    assert_eq!(status["fallbacks"], json!(["anthropic/claude-haiku-5-5"]));
    // A second time nothing is left to add.
    let again = ["models", "scan", "--max-candidates", "3", "--yes", "--json"];
    assert_eq!(sandbox.run(&again).exits(0).json()["added"], json!([]));
}

/// Nothing answers, nothing can be asked, nothing is meant: one sentence, exit 1, no change.
#[test]
fn what_cannot_be_done_changes_nothing() {
    let lab = lab("[{ match: { path: '/v1/messages' }, fault: { error: 'invalid-key' } }]");
    let sandbox = sandbox(&lab, json!({}));
    let before = sandbox.snapshot();
    for (args, text) in [
        (
            &["--set-default", "--yes"][..],
            "The default model was not changed: no model that was tried answered",
        ),
        (&["--min-params", "70"], "--min-params cannot be applied: no model found tells its size"),
        (&["--min-params", "-1"], "--min-params must be > 0 (billions)."),
        (&["--max-candidates", "0"], "--max-candidates must be > 0."),
        (&["--max-age-days", "-3"], "--max-age-days must be > 0."),
        (&["--timeout", "soon"], "--timeout must be a positive number (ms)."),
        (&["--concurrency", "-2"], "--concurrency must be > 0."),
        (&["--provider", "acme"], "Unknown provider \"acme\""),
        (&["--agent", "nobody"], "Unknown agent id \"nobody\""),
        (&["--provider", "claude-cli"], "claude-cli has no list of models to ask for"),
    ] {
        let done = sandbox.run(&[&["models", "scan"], args].concat()).exits(1).says(text);
        assert!(done.err.contains("moltbot explain "), "{args:?}: {}", done.err);
        assert_eq!(sandbox.snapshot(), before, "{args:?}");
    }
}

/// A list that is refused is a failure of its own kind, with the profile and the code.
#[test]
fn a_refused_list_names_the_profile() {
    let lab = lab("[{ match: { path: '/v1/models' }, fault: { error: 'invalid-key' } }]");
    let sandbox = sandbox(&lab, json!({}));
    let done =
        sandbox.run(&["models", "scan", "--json"]).exits(1).says("profile:anthropic:default");
    assert_eq!(done.out, "");
    assert!(done.err.contains("HTTP 401 authentication_error"), "{}", done.err);
    assert!(done.err.contains("hint: moltbot explain credential-refused"), "{}", done.err);
}

/// A person marks what shall answer next.
#[test]
fn a_person_marks_fallbacks() {
    let lab = lab("[]");
    let sandbox = sandbox(&lab, json!({}));
    let mut terminal =
        Terminal::start(&sandbox.command(&["models", "scan", "--max-candidates", "2"]));
    terminal.waits_for("Which models shall answer");
    terminal.types("\u{1b}[B");
    terminal.types(" ");
    terminal.types("\r");
    assert_eq!(terminal.ends(), 0, "{}", terminal.screen());
    let status = sandbox.run(&["models", "status", "--json"]).exits(0).json();
    assert_eq!(status["fallbacks"], json!(["anthropic/claude-mythos-5-2"]));

    let before = sandbox.snapshot();
    let mut terminal = Terminal::start(&sandbox.command(&["models", "scan", "--no-probe"]));
    terminal.waits_for("Which models shall answer");
    terminal.types("\u{3}");
    assert_eq!(terminal.ends(), 130, "{}", terminal.screen());
    assert_eq!(sandbox.snapshot(), before);
}
