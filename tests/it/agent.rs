//! Conversations: streaming, sessions, images, JSON, the lab.

use serde_json::json;

use crate::support::{KEY, Sandbox, lab, messages};

fn at_lab(lab: &moltbot_lab::Lab) -> Sandbox {
    let sandbox = Sandbox::new().env("ANTHROPIC_API_KEY", KEY);
    sandbox.use_lab(lab, json!({}));
    sandbox
}

/// The README's first command: nothing of the user's is read, nothing is left.
#[test]
fn the_lab_needs_nothing_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    sandbox.write_config("{ this is not valid");
    let before = sandbox.snapshot();
    let done = sandbox.run(&["agent", "--lab", "-m", "Hello"]).exits(0);
    assert!(done.out.contains("Hello"), "{}", done.out);
    assert_eq!(done.err, "lab: no request leaves this machine\n");
    assert_eq!(sandbox.snapshot(), before);
}

#[test]
fn a_conversation_goes_on() {
    let lab = lab("[]");
    let sandbox = at_lab(&lab);
    let first = sandbox.run(&["agent", "-m", "one", "--json"]).exits(0).json();
    let id = first["meta"]["agentMeta"]["sessionId"].as_str().unwrap().to_string();
    sandbox.run(&["agent", "-m", "two", "--continue"]).exits(0);
    sandbox.run(&["agent", "-m", "three", "--session-id", &id]).exits(0);
    sandbox.run(&["agent", "-m", "four"]).exits(0);
    let turns: Vec<usize> = messages(&lab)
        .iter()
        .map(|entry| entry.body["messages"].as_array().unwrap().len())
        .collect();
    assert_eq!(turns, [1, 3, 5, 1]);
    let third = &messages(&lab)[2].body["messages"];
    assert_eq!(third[1]["role"], "assistant");
    assert!(third[0].to_string().contains("one") && third[2].to_string().contains("two"));
    sandbox
        .run(&["agent", "-m", "x", "--session-id", "nope"])
        .exits(1)
        .says("moltbot explain session-unknown");
}

#[test]
fn a_torn_session_file_is_still_a_session() {
    let lab = lab("[]");
    let sandbox = at_lab(&lab);
    let first = sandbox.run(&["agent", "-m", "one", "--json"]).exits(0).json();
    let id = first["meta"]["agentMeta"]["sessionId"].as_str().unwrap().to_string();
    let file = sandbox.state(&format!("agents/main/sessions/{id}.jsonl"));
    let mut text = std::fs::read_to_string(&file).unwrap();
    text.push_str("{\"type\":\"mess");
    sandbox.write(&file, &text);
    sandbox.run(&["agent", "-m", "two", "--session-id", &id]).exits(0);
    assert_eq!(messages(&lab)[1].body["messages"].as_array().unwrap().len(), 3);
    sandbox.run(&["agent", "-m", "three", "--session-id", &id]).exits(0);
    assert_eq!(messages(&lab)[2].body["messages"].as_array().unwrap().len(), 5);
}

#[test]
fn the_message_comes_from_flag_pipe_or_file() {
    let lab = lab("[]");
    let sandbox = at_lab(&lab);
    sandbox.run_with_input(&["agent", "-m", "-"], "from a pipe").exits(0);
    sandbox.write(&sandbox.cwd().join("q.txt"), "from a file");
    sandbox.run(&["agent", "--file", "q.txt"]).exits(0);
    let log = messages(&lab);
    assert!(log[0].body["messages"].to_string().contains("from a pipe"));
    assert!(log[1].body["messages"].to_string().contains("from a file"));
    for bad in [
        &["agent"][..],
        &["agent", "-m", "  "],
        &["agent", "--file", "none.txt"],
        &["agent", "-m", "x", "--thinking", "hard"],
        &["agent", "-m", "x", "--max-tokens", "0"],
        &["agent", "-m", "x", "--timeout", "-1"],
    ] {
        let done = sandbox.run(bad).exits(1);
        assert!(done.out.is_empty() && done.err.starts_with("Error: "), "{bad:?}: {}", done.err);
    }
    assert_eq!(messages(&lab).len(), 2);
}

#[test]
fn an_image_goes_along() {
    let lab = lab("[]");
    let sandbox = at_lab(&lab);
    let png: Vec<u8> = [&b"\x89PNG\r\n\x1a\n"[..], &[0; 32]].concat();
    std::fs::write(sandbox.cwd().join("a.png"), &png).unwrap();
    sandbox.run(&["agent", "-m", "what is it", "--image", "a.png"]).exits(0);
    let content = messages(&lab)[0].body["messages"][0]["content"].clone();
    let image = content.as_array().unwrap().iter().find(|block| block["type"] == "image").unwrap();
    assert_eq!(image["source"]["media_type"], "image/png");
    std::fs::write(sandbox.cwd().join("a.txt"), "no image").unwrap();
    sandbox.run(&["agent", "-m", "x", "--image", "a.txt"]).exits(1).says("a.txt");
}

#[test]
fn standard_output_is_only_the_reply() {
    let lab = lab("[{ fault: { reply: { text: 'just this' } } }]");
    let sandbox = at_lab(&lab);
    let done = sandbox.run(&["agent", "-m", "x"]).exits(0);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("just this\n", ""));
}

#[test]
fn a_failure_is_json_too_and_exits_with_one() {
    let lab = lab("[{ fault: { error: 27 } }]");
    let sandbox = at_lab(&lab);
    let done = sandbox.run(&["agent", "-m", "x", "--json"]).exits(1);
    let value = done.json();
    assert_eq!(value["isError"], true);
    assert_eq!(value["meta"]["error"]["code"], "credential-refused");
    assert!(done.err.contains("hint: moltbot explain credential-refused"), "{}", done.err);
}

#[test]
fn a_refusal_is_said_as_one() {
    let lab = lab("[{ fault: { reply: { text: 'No.', stopReason: 'refusal' } } }]");
    let sandbox = at_lab(&lab);
    sandbox.run(&["agent", "-m", "x"]).exits(1).says("refused to answer");
}

#[test]
fn a_hanging_service_is_a_timeout() {
    let lab = lab("[{ fault: { stall: 'headers' } }]");
    let sandbox = at_lab(&lab);
    sandbox.run(&["agent", "-m", "x", "--timeout", "1"]).exits(1).says("LLM request timed out.");
}

#[test]
fn a_service_that_is_not_there_is_said_so() {
    let sandbox = Sandbox::new().env("ANTHROPIC_API_KEY", KEY);
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    sandbox.write_config(&format!(
        "{{ models: {{ providers: {{ anthropic: {{ baseUrl: 'http://127.0.0.1:{port}', models: [] }} }} }} }}"
    ));
    let done = sandbox.run(&["agent", "-m", "x"]).exits(1);
    assert!(
        done.err.contains("explain network") || done.err.contains("explain upstream"),
        "{}",
        done.err
    );
    assert!(!done.err.contains(KEY));
}

/// A credential goes to its own provider, over HTTPS or to loopback (decision "Security defaults").
#[test]
fn a_key_is_not_sent_in_clear_over_a_network() {
    let sandbox = Sandbox::new().env("ANTHROPIC_API_KEY", KEY);
    sandbox.write_config(
        "{ models: { providers: { anthropic: { baseUrl: 'http://192.0.2.1', models: [] } } } }",
    );
    sandbox.run(&["agent", "-m", "x"]).exits(1).says("explain origin-refused");
}

#[test]
fn redirects_are_not_followed() {
    let elsewhere = lab("[]");
    let plan = format!("[{{ fault: {{ redirect: '{}/v1/messages' }} }}]", elsewhere.url());
    let lab = lab(&plan);
    let sandbox = at_lab(&lab);
    sandbox.run(&["agent", "-m", "x"]).exits(1);
    assert!(elsewhere.log().is_empty());
}

#[test]
fn an_agent_has_its_own_credentials() {
    let lab = lab("[]");
    let sandbox = Sandbox::new();
    sandbox.use_lab(&lab, json!({}));
    sandbox.run(&["agents", "add", "w", "--workspace", "d"]).exits(0);
    sandbox.run(&["onboard", "--anthropic-api-key", KEY, "--agent", "w"]).exits(0);
    assert!(!sandbox.store_path().exists());
    sandbox.run(&["agent", "-m", "x", "--agent", "w"]).exits(0);
    sandbox.run(&["agent", "-m", "x"]).exits(1).says("No API key found");
    sandbox
        .run(&["agent", "-m", "x", "--agent", "nobody"])
        .exits(1)
        .says("Unknown agent id \"nobody\". Use \"moltbot agents list\" to see configured agents.");
}
