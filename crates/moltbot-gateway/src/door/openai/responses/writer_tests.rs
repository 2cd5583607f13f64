//! Tables of what replies become.

use super::*;

/// Writes events and returns what was said, by name, beside the text of it.
fn written(sent: &Value, events: Vec<Event>) -> Vec<(String, Value)> {
    let mut writer = Writer::new(sent, "m", 7);
    let mut out = String::new();
    let mut over = false;
    for event in events {
        assert!(!over, "something follows the end");
        over = writer.event(event, &mut out);
    }
    let mut said = Vec::new();
    for (number, event) in out.split_terminator("\n\n").filter(|e| *e != ": ping").enumerate() {
        let (name, data) = event.split_once('\n').expect("two lines");
        let name = name.strip_prefix("event: ").expect("a name");
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!((&data["type"], &data["sequence_number"]), (&json!(name), &json!(number)));
        said.push((name.to_string(), data));
    }
    said
}

fn began() -> Event {
    let usage = Usage { input: Some(3), cache_read: Some(4), ..Usage::default() };
    Event::Began { at: 0, id: Some("msg_1".into()), model: None, usage }
}

fn ended(stop: &str) -> Event {
    let usage = Usage {
        input: Some(3),
        cache_read: Some(4),
        cache_write: Some(1),
        output: Some(5),
        ..Usage::default()
    };
    Event::TurnEnd { at: 0, stop: stop.into(), usage }
}

fn start(index: usize, block: Value) -> Event {
    Event::BlockStart { index, block }
}

fn text(index: usize, text: &str) -> Event {
    Event::Text { index, text: text.into() }
}

/// The documented sequence, to the letter.
#[test]
fn a_text_is_a_message_with_one_part() {
    let block = json!({ "type": "text", "text": "" });
    let said = written(
        &json!({ "input": "hi" }),
        vec![
            began(),
            Event::Ping { at: 0 },
            start(0, block),
            text(0, "Good "),
            text(0, "morning"),
            Event::BlockEnd { index: 0 },
            ended("end_turn"),
        ],
    );
    let names: Vec<&str> = said.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let first = &said[0].1["response"];
    assert_eq!((&first["id"], &first["status"]), (&json!("resp_1"), &json!("in_progress")));
    assert_eq!((&first["output"], &first["usage"]), (&json!([]), &Value::Null));
    for (_, event) in &said[3..8] {
        assert_eq!((&event["item_id"], &event["output_index"]), (&json!("msg_1_0"), &json!(0)));
        assert_eq!(event["content_index"], 0);
    }
    assert_eq!(said[5].1["delta"], "morning");
    assert_eq!(said[6].1["text"], "Good morning");
    assert_eq!(said[7].1["part"]["text"], "Good morning");
    let last = &said[9].1["response"];
    assert_eq!((&last["status"], &last["store"]), (&json!("completed"), &json!(false)));
    assert_eq!(last["output"], json!([said[8].1["item"]]));
    assert_eq!(last["output"][0]["content"][0]["text"], "Good morning");
    assert_eq!(last["output"][0]["status"], "completed");
    let usage = json!({ "input_tokens": 8, "output_tokens": 5, "total_tokens": 13,
        "input_tokens_details": { "cached_tokens": 4, "cache_write_tokens": 1 },
        "output_tokens_details": { "reasoning_tokens": 0 } });
    assert_eq!(last["usage"], usage);
}

#[test]
fn thoughts_and_calls_are_items_of_their_own() {
    let events = || {
        vec![
            began(),
            start(0, json!({ "type": "thinking", "thinking": "", "signature": "" })),
            Event::Thinking { index: 0, text: "Hm".into() },
            Event::Delta { index: 0, delta: json!({"type": "signature_delta", "signature": "s"}) },
            Event::BlockEnd { index: 0 },
            start(1, json!({ "type": "tool_use", "id": "t1", "name": "f", "input": {} })),
            Event::Input { index: 1, json: "{\"a\":".into() },
            Event::Input { index: 1, json: "1}".into() },
            Event::BlockEnd { index: 1 },
            start(2, json!({ "type": "tool_use", "id": "t2", "name": "g", "input": {} })),
            Event::Input { index: 2, json: String::new() },
            Event::BlockEnd { index: 2 },
            ended("tool_use"),
        ]
    };
    let said = written(&json!({ "reasoning": { "summary": "auto" } }), events());
    let names: Vec<&str> =
        said.iter().map(|(name, _)| name.trim_start_matches("response.")).collect();
    assert_eq!(
        names[2..],
        [
            "output_item.added",
            "reasoning_summary_part.added",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ]
    );
    let output = &said.last().unwrap().1["response"]["output"];
    let thought = json!({ "type": "thinking", "thinking": "Hm", "signature": "s" });
    assert_eq!(output[0]["type"], "reasoning");
    assert_eq!(output[0]["summary"], json!([{ "type": "summary_text", "text": "Hm" }]));
    let carried = output[0]["encrypted_content"].as_str().unwrap();
    assert_eq!(super::super::unsealed(carried), Some(thought));
    let call = |place: usize| (&output[place]["call_id"], &output[place]["arguments"]);
    assert_eq!(call(1), (&json!("t1"), &json!("{\"a\":1}")));
    assert_eq!(call(2), (&json!("t2"), &json!("{}")));
    // Who did not ask for it is not told what was thought, but carries it all the same.
    let said = written(&json!({}), events());
    assert!(said.iter().all(|(name, _)| !name.contains("summary")), "{said:?}");
    let item = &said.last().unwrap().1["response"]["output"][0];
    assert_eq!((&item["summary"], item["encrypted_content"].is_string()), (&json!([]), true));
}

#[test]
fn a_call_names_its_namespace() {
    let part = json!({ "type": "function", "name": "run" });
    let sent =
        json!({ "tools": [part, { "type": "namespace", "name": "agents", "tools": [part] }] });
    let call = |index: usize, name: &str| {
        start(index, json!({ "type": "tool_use", "id": "t", "name": name, "input": {} }))
    };
    let said =
        written(&sent, vec![began(), call(0, "agents__run"), call(1, "run"), ended("tool_use")]);
    let output = &said.last().unwrap().1["response"]["output"];
    let named = |place: usize| (&output[place]["namespace"], &output[place]["name"]);
    assert_eq!(named(0), (&json!("agents"), &json!("run")));
    assert_eq!(named(1), (&Value::Null, &json!("run")));
}

#[test]
fn every_end_has_its_word() {
    for (stop, kind, details) in [
        ("end_turn", "completed", Value::Null),
        ("pause_turn", "completed", Value::Null),
        ("max_tokens", "incomplete", json!({ "reason": "max_output_tokens" })),
        ("model_context_window_exceeded", "incomplete", json!({ "reason": "max_output_tokens" })),
        ("refusal", "incomplete", json!({ "reason": "content_filter" })),
    ] {
        // An item that the service forgot to end is ended with the rest.
        let said = written(&json!({}), vec![began(), text(0, "x"), ended(stop)]);
        let (name, last) = said.last().unwrap();
        assert_eq!(name, &format!("response.{kind}"), "{stop}");
        assert_eq!(last["response"]["incomplete_details"], details, "{stop}");
        assert_eq!(last["response"]["output"][0]["content"][0]["text"], "x");
    }
    for (kind, code) in [
        ("overloaded_error", "server_error"),
        ("rate_limit_error", "rate_limit_exceeded"),
        ("invalid_request_error", "invalid_prompt"),
    ] {
        let error =
            || Event::Error { at: 0, kind: kind.into(), message: "no".into(), body: Value::Null };
        let said = written(&json!({}), vec![began(), text(0, "x"), error()]);
        let (name, last) = said.last().unwrap();
        assert_eq!(name, "response.failed");
        assert_eq!(last["response"]["error"], json!({ "code": code, "message": "no" }));
        assert_eq!(last["response"]["output"][0]["status"], "incomplete");
        // One that comes first is told to whoever waits for the beginning.
        let said = written(&json!({}), vec![error()]);
        assert_eq!((said.len(), said[0].0.as_str()), (3, "response.created"));
    }
}

#[test]
fn a_thought_that_was_cut_off_is_not_carried() {
    let block = json!({ "type": "thinking", "thinking": "", "signature": "" });
    let hidden = json!({ "type": "redacted_thinking", "data": "xx" });
    let events = vec![
        began(),
        start(0, hidden.clone()),
        Event::BlockEnd { index: 0 },
        start(1, block),
        Event::Thinking { index: 1, text: "H".into() },
        ended("max_tokens"),
    ];
    let said = written(&json!({}), events);
    let output = &said.last().unwrap().1["response"]["output"];
    let carried = output[0]["encrypted_content"].as_str().unwrap();
    assert_eq!(super::super::unsealed(carried), Some(hidden));
    assert_eq!(output[1]["encrypted_content"], Value::Null);
}
