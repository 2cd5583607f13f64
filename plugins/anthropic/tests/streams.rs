//! Replies as events: every sample, split at every byte, in both modes (spec cases 55 and 57).

#![allow(clippy::unwrap_used)] // helpers of tests, not only tests

use std::path::PathBuf;

use moltbot_core::{DecoderMode, Event, Provider, Usage};
use moltbot_plugin_anthropic::Anthropic;
use proptest::prelude::*;
use serde_json::{Value, json};

use DecoderMode::{Full, Observe};

fn sample(name: &str) -> Vec<u8> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sse");
    std::fs::read(directory.join(name)).unwrap()
}

fn samples() -> Vec<(String, Vec<u8>)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sse");
    let entries = std::fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.map(|name| (name.clone(), sample(&name))).collect()
}

fn decode(mode: DecoderMode, pieces: &[&[u8]]) -> Vec<Event> {
    let mut decoder = Anthropic.decoder(mode);
    let mut events = Vec::new();
    for piece in pieces {
        decoder.push(piece, &mut events);
    }
    decoder.end(&mut events);
    events
}

fn full(name: &str) -> Vec<Event> {
    decode(Full, &[&sample(name)])
}

/// What a conversation keeps of a reply: its blocks, put together.
fn blocks(events: &[Event]) -> Vec<Value> {
    let mut blocks: Vec<Value> = Vec::new();
    let mut inputs: Vec<String> = Vec::new();
    fn append(block: &mut Value, name: &str, more: &str) {
        let text = format!("{}{more}", block[name].as_str().unwrap_or_default());
        block[name] = text.into();
    }
    for event in events {
        match event {
            Event::BlockStart { index, block } => {
                assert_eq!(*index, blocks.len());
                blocks.push(block.clone());
                inputs.push(String::new());
            }
            Event::Text { index, text } => append(&mut blocks[*index], "text", text),
            Event::Thinking { index, text } => append(&mut blocks[*index], "thinking", text),
            Event::Input { index, json } => inputs[*index].push_str(json),
            Event::Delta { index, delta } => {
                if let Some(signature) = delta["signature"].as_str() {
                    append(&mut blocks[*index], "signature", signature);
                } else if !delta["citation"].is_null() {
                    let list = blocks[*index]["citations"].as_array_mut().unwrap();
                    list.push(delta["citation"].clone());
                }
            }
            _ => {}
        }
    }
    for (block, input) in blocks.iter_mut().zip(inputs) {
        if !input.is_empty() {
            block["input"] = serde_json::from_str(&input).unwrap();
        }
    }
    blocks
}

fn end(events: &[Event]) -> (&str, Usage) {
    match events.last() {
        Some(Event::TurnEnd { stop, usage, .. }) => (stop, *usage),
        other => panic!("no end of turn but {other:?}"),
    }
}

#[test]
fn a_text_reply() {
    let events = full("text.sse");
    assert_eq!(blocks(&events), [json!({"type": "text", "text": "Grüß dich, 世界 🌍"})]);
    let Event::Began { id, model, usage, .. } = &events[0] else { panic!("{:?}", events[0]) };
    assert_eq!(id.as_deref(), Some("msg_01FAKE"));
    assert_eq!(model.as_deref(), Some("claude-opus-4-5-20251101"));
    assert_eq!(usage.output, Some(1));
}

/// Case 55: what a later message does not mention stays as it was.
#[test]
fn usage_keeps_what_was_said_first() {
    let events = full("text.sse");
    let expected = Usage {
        input: Some(12),
        output: Some(15),
        cache_read: Some(40),
        cache_write: Some(300),
        cache_write_5m: Some(100),
        cache_write_1h: Some(200),
    };
    assert_eq!(end(&events), ("end_turn", expected));
    let model = Anthropic.info().model("claude-opus-4-5").unwrap().clone();
    let cost = model.cost(&expected).unwrap();
    let by_hand = (12.0 * 5.0 + 15.0 * 25.0 + 40.0 * 0.5 + 100.0 * 6.25 + 200.0 * 10.0) / 1e6;
    assert!((cost - by_hand).abs() < 1e-12);
}

#[test]
fn line_ends_and_missing_names_change_nothing() {
    let plain = full("text.sse");
    for name in ["text-crlf.sse", "unnamed.sse"] {
        let events = full(name);
        assert_eq!(blocks(&events), blocks(&plain), "{name}");
        assert_eq!(end(&events), end(&plain), "{name}");
        assert_eq!(events.len(), plain.len(), "{name}");
    }
}

#[test]
fn thinking_tools_and_citations() {
    let events = full("tools.sse");
    let expected = [
        json!({"type": "thinking", "thinking": "Let me look. A file.", "signature": "RkFLRQ=="}),
        json!({"type": "redacted_thinking", "data": "RkFLRURBVEE="}),
        json!({"type": "text", "text": "I read it.", "citations":
            [{"type": "char_location", "cited_text": "x", "document_index": 0}]}),
        json!({"type": "tool_use", "id": "toolu_01FAKE", "name": "read", "input": {"path": "/etc/hosts"}}),
    ];
    assert_eq!(blocks(&events), expected);
    let usage = Usage { input: Some(50), output: Some(88), ..Usage::default() };
    assert_eq!(end(&events), ("tool_use", usage));
    assert_eq!(events.iter().filter(|e| matches!(e, Event::BlockEnd { .. })).count(), 4);
}

/// A reply without a stream means the same (spec W-5: clients ask again that way).
#[test]
fn one_json_object_gives_the_same_reply() {
    let (stream, whole) = (full("tools.sse"), full("tools.json"));
    assert_eq!(blocks(&whole), blocks(&stream));
    assert_eq!(end(&whole), end(&stream));
    let length = sample("tools.json").len() as u64;
    assert!(matches!(&whole[0], Event::Began { at, .. } if *at == length));
    let counted = full("count.json");
    assert_eq!(end(&counted).1.input, Some(2095));
}

/// Case 57, first half.
#[test]
fn unknown_events_are_ignored_and_unknown_blocks_relayed() {
    let events = full("unknown.sse");
    assert_eq!(blocks(&events), [json!({"type": "hologram", "shape": "cube"})]);
    let deltas: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Delta { delta, .. } => delta["type"].as_str(),
            _ => None,
        })
        .collect();
    assert_eq!(deltas, ["hologram_delta", "compaction_delta"]);
    assert_eq!(end(&events).0, "pause_turn");
    assert_eq!(end(&events).1.output, Some(4), "nothing counts after the end");
}

/// Case 57, second half: what came stays, and the end is an error.
#[test]
fn a_connection_that_drops_is_an_error() {
    let events = full("cut.sse");
    assert_eq!(blocks(&events), [json!({"type": "text", "text": "Half a"})]);
    let Some(Event::Error { at, kind, body, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!((kind.as_str(), body), ("incomplete", &Value::Null));
    let whole = &sample("cut.sse")[..usize::try_from(*at).unwrap()];
    assert!(whole.ends_with(b"\n\n"), "`at` stands after the last whole event");
    for bytes in [&b""[..], b"\n", b": hello\n\n", &sample("cut.json")] {
        let events = decode(Full, &[bytes]);
        assert!(
            matches!(&events[..], [Event::Error { at: 0 | 9, kind, .. }] if kind == "incomplete"),
            "{events:?}"
        );
    }
}

#[test]
fn an_error_event_ends_the_reply_and_stands_before_its_bytes() {
    for mode in [Full, Observe] {
        let events = decode(mode, &[&sample("error.sse")]);
        let Some(Event::Error { at, kind, message, body }) = events.last() else {
            panic!("{events:?}")
        };
        assert_eq!((kind.as_str(), message.as_str()), ("overloaded_error", "Overloaded"));
        assert_eq!(body["request_id"], "req_01FAKE");
        let rest = &sample("error.sse")[usize::try_from(*at).unwrap()..];
        assert!(rest.starts_with(b"event: error"));
        let first = decode(mode, &[&sample("error-first.sse")]);
        assert!(matches!(&first[..], [Event::Ping { .. }, Event::Error { .. }]), "{first:?}");
        let whole = decode(mode, &[&sample("error.json")]);
        assert!(matches!(&whole[..], [Event::Error { at: 0, .. }]), "{whole:?}");
    }
}

#[test]
fn what_nobody_can_read_is_an_error() {
    for bytes in [
        &b"event: message_start\ndata: {nonsense\n\n"[..],
        b"event: error\ndata: \n\n",
        b"{\"unexpected\":true}",
        b"{]",
    ] {
        let events = decode(Full, &[bytes]);
        assert!(
            matches!(&events[..], [Event::Error { kind, .. }] if kind == "malformed"),
            "{events:?}"
        );
    }
    // Other words of a proxy end like any reply without an end.
    let html = decode(Full, &[b"<html>502</html>"]);
    assert!(matches!(&html[..], [Event::Error { kind, .. }] if kind == "incomplete"), "{html:?}");
}

/// `Observe` says the same as `Full`, less the content.
#[test]
fn observing_leaves_out_the_content_only() {
    for (name, bytes) in samples() {
        let outline = |events: Vec<Event>| -> Vec<Event> {
            let keep = |event: &Event| {
                matches!(
                    event,
                    Event::Began { .. }
                        | Event::Ping { .. }
                        | Event::Error { .. }
                        | Event::TurnEnd { .. }
                )
            };
            events.into_iter().filter(keep).collect()
        };
        let observed = decode(Observe, &[&bytes]);
        assert_eq!(outline(observed.clone()), observed, "{name}");
        assert_eq!(outline(decode(Full, &[&bytes])), observed, "{name}");
    }
}

#[test]
fn every_split_of_every_sample_gives_the_same_events() {
    for (name, bytes) in samples() {
        for mode in [Full, Observe] {
            let whole = decode(mode, &[&bytes]);
            for at in 0..=bytes.len() {
                let (head, tail) = bytes.split_at(at);
                assert_eq!(decode(mode, &[head, tail]), whole, "{name} split at {at}");
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(decode(mode, &single), whole, "{name} byte by byte");
        }
    }
}

/// The positions only grow, and each stands where an event ends.
#[test]
fn positions_stand_between_events() {
    for (name, bytes) in samples() {
        let mut last = 0;
        for event in decode(Full, &[&bytes]) {
            let (Event::Began { at, .. }
            | Event::Ping { at }
            | Event::Error { at, .. }
            | Event::TurnEnd { at, .. }) = event
            else {
                continue;
            };
            assert!(at >= last && at <= bytes.len() as u64, "{name}");
            let before = &bytes[..usize::try_from(at).unwrap()];
            let between = before.is_empty()
                || before.ends_with(b"\n\n")
                || before.ends_with(b"\r\n\r\n")
                || at == bytes.len() as u64;
            assert!(between, "{name} at {at}");
            last = at;
        }
    }
}

/// Pieces of streams, whole and broken, in any order.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(samples()).prop_map(|(_, bytes)| bytes),
        prop::collection::vec(any::<u8>(), 0..40),
        prop::sample::select(vec![
            "event: content_block_delta\n",
            "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":[]}\n\n",
            "data: {\"index\":1,\"type\":\"content_block_start\"}\n\n",
            "event: message_delta\ndata: 5\n\n",
            "event: error\ndata: []\n\n",
            "event: message_stop\ndata: {}\n\n",
            "event: ping\r\ndata\r\r",
            "\u{feff}",
            "{\"type\":\"message\",\"content\":[5,{\"type\":\"text\"}]}",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_pieces_end_once_and_alike(
        bytes in stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&bytes[from..cut]);
            from = cut;
        }
        pieces.push(&bytes[from..]);
        for mode in [Full, Observe] {
            let whole = decode(mode, &[&bytes]);
            prop_assert_eq!(&decode(mode, &pieces), &whole);
            let ends: Vec<usize> = whole
                .iter()
                .enumerate()
                .filter(|(_, event)| matches!(event, Event::Error { .. } | Event::TurnEnd { .. }))
                .map(|(index, _)| index)
                .collect();
            prop_assert_eq!(ends, vec![whole.len() - 1]);
        }
    }
}
