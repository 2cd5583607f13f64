//! A reply as server-sent events, and the ways a plan spoils the stream.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::cache::InputUsage;
use crate::fault::{Malformed, SseFault};
use crate::reply::{Block, Reply, floor_boundary};

/// Writes a reply as the events the service sends, in its order.
pub(crate) fn events(reply: &Reply, input: InputUsage) -> Vec<Bytes> {
    let mut out = Vec::new();
    let mut message = reply.to_json(input.to_json(1, None));
    message["content"] = json!([]);
    message["stop_reason"] = Value::Null;
    message["stop_sequence"] = Value::Null;
    out.push(event("message_start", &json!({ "type": "message_start", "message": message })));
    for (index, block) in reply.blocks.iter().enumerate() {
        let start = |empty: Value| {
            let data =
                json!({ "type": "content_block_start", "index": index, "content_block": empty });
            event("content_block_start", &data)
        };
        let delta = |delta: Value| {
            let data = json!({ "type": "content_block_delta", "index": index, "delta": delta });
            event("content_block_delta", &data)
        };
        match block {
            Block::Thinking { text, signature } => {
                out.push(start(json!({ "type": "thinking", "thinking": "", "signature": "" })));
                out.extend(
                    pieces(text, None)
                        .map(|piece| delta(json!({ "type": "thinking_delta", "thinking": piece }))),
                );
                out.push(delta(json!({ "type": "signature_delta", "signature": signature })));
            }
            Block::Text(text) => {
                out.push(start(json!({ "type": "text", "text": "" })));
                out.extend(
                    pieces(text, reply.deltas)
                        .map(|piece| delta(json!({ "type": "text_delta", "text": piece }))),
                );
            }
            Block::ToolUse { id, name, input } => {
                out.push(start(json!({ "type": "tool_use", "id": id, "name": name, "input": {} })));
                out.push(delta(json!({ "type": "input_json_delta", "partial_json": "" })));
                out.extend(pieces(&input.to_string(), None).map(|piece| {
                    delta(json!({ "type": "input_json_delta", "partial_json": piece }))
                }));
            }
        }
        if index == 0 {
            out.insert(2, ping());
        }
        let stop = json!({ "type": "content_block_stop", "index": index });
        out.push(event("content_block_stop", &stop));
    }
    let ended = json!({
        "type": "message_delta",
        "delta": { "stop_reason": reply.stop_reason, "stop_sequence": reply.stop_sequence },
        "usage": input.to_json(reply.output_tokens, reply.thinking_tokens),
    });
    out.push(event("message_delta", &ended));
    out.push(event("message_stop", &json!({ "type": "message_stop" })));
    out
}

/// Applies a plan's changes to a stream.
pub(crate) fn spoil(events: Vec<Bytes>, fault: &SseFault, request_id: &str) -> Vec<Bytes> {
    let mut out: Vec<Bytes> = (0..fault.pings).map(|_| ping()).collect();
    let ends = fault.error.is_some() || fault.end;
    let kept = if ends { fault.after_events.min(events.len()) } else { events.len() };
    for (index, known) in events.into_iter().take(kept).enumerate() {
        if fault.unknown_events {
            out.push(event("lab_unknown", &json!({ "type": "lab_unknown", "index": index })));
            let inside = known.starts_with(b"event: content_block_delta");
            let block = inside.then(|| data_of(&known)).flatten();
            if let Some(data) = block {
                let delta = json!({ "type": "lab_unknown_delta", "lab": index });
                out.push(event(
                    "content_block_delta",
                    &json!({
                        "type": "content_block_delta", "index": data["index"], "delta": delta
                    }),
                ));
            }
        }
        out.push(known);
    }
    if let Some(error) = &fault.error {
        let body = error.0.body(request_id);
        out.push(Bytes::from(format!("event: error\ndata: {body}\n\n")));
    }
    match fault.malformed {
        Some(Malformed::Unterminated) => {
            if let Some(last) = out.last_mut() {
                last.truncate(last.len() - 1);
            }
        }
        Some(kind) => {
            let third = out.len().min(3);
            if let Some(broken) = third.checked_sub(1).and_then(|at| out.get_mut(at)) {
                *broken = Bytes::from_static(match kind {
                    Malformed::Json => b"event: content_block_delta\ndata: {\"type\":\"con\n\n",
                    Malformed::NoData => b"event: content_block_delta\n\n",
                    _ => b"event: ping\ndata: {\"type\":\"ping\",\"lab\":\"\xff\xfe\"}\n\n",
                });
            }
        }
        None => {}
    }
    if fault.crlf {
        for item in &mut out {
            let mut wide = Vec::with_capacity(item.len() + 4);
            for byte in item.iter() {
                if *byte == b'\n' {
                    wide.push(b'\r');
                }
                wide.push(*byte);
            }
            *item = Bytes::from(wide);
        }
    }
    out
}

fn event(name: &str, data: &Value) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

fn ping() -> Bytes {
    Bytes::from_static(b"event: ping\ndata: {\"type\": \"ping\"}\n\n")
}

fn data_of(event: &Bytes) -> Option<Value> {
    let text = std::str::from_utf8(event).ok()?;
    serde_json::from_str(text.lines().find_map(|line| line.strip_prefix("data: "))?).ok()
}

// Cuts a text at character boundaries into `count` pieces of like size, none of them empty.
fn pieces(text: &str, count: Option<usize>) -> impl Iterator<Item = &str> {
    let count = count.unwrap_or_else(|| text.len().div_ceil(DELTA)).max(1);
    let cut = move |n: usize| floor_boundary(text, text.len().saturating_mul(n) / count);
    (0..count).map(move |n| &text[cut(n)..cut(n + 1)]).filter(|piece| !piece.is_empty())
}

/// Bytes in one delta where a plan does not say how many deltas there are.
const DELTA: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::ReplySpec;
    use crate::prompt::Prompt;

    fn stream(body: &Value, spec: &ReplySpec) -> Vec<Bytes> {
        let reply = Reply::make(body, &Prompt::measure(body), None, Some(spec));
        events(&reply, InputUsage { uncached: 7, ..InputUsage::default() })
    }

    fn names(events: &[Bytes]) -> Vec<String> {
        events
            .iter()
            .map(|event| data_of(event).unwrap()["type"].as_str().unwrap().to_owned())
            .collect()
    }

    fn hello() -> Value {
        json!({"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hi ✓"}]})
    }

    #[test]
    fn the_order_is_the_services_and_the_pieces_make_the_whole() {
        let out =
            stream(&hello(), &ReplySpec { thinking: Some("hm".into()), ..Default::default() });
        let names = names(&out);
        assert_eq!(names[..3], ["message_start", "content_block_start", "ping"]);
        assert_eq!(names[names.len() - 2..], ["message_delta", "message_stop"]);
        let text: String = out
            .iter()
            .filter_map(data_of)
            .filter_map(|data| Some(data["delta"]["text"].as_str()?.to_owned()))
            .collect();
        assert_eq!(text, "Hello from the lab. You said: hi ✓");
    }

    #[test]
    fn a_plan_sets_the_number_of_deltas() {
        let spec = ReplySpec { bytes: Some(600), events: Some(60), ..Default::default() };
        let out = stream(&hello(), &spec);
        let deltas = names(&out).iter().filter(|name| *name == "content_block_delta").count();
        assert_eq!(deltas, 60);
    }

    #[test]
    fn a_stream_is_spoiled_as_planned() {
        let whole = stream(&hello(), &ReplySpec::default());
        let spoiled = |text: &str| spoil(whole.clone(), &json5::from_str(text).unwrap(), "req_1");
        let first = spoiled("{error: 51}");
        assert_eq!(first.len(), 1);
        assert!(first[0].starts_with(b"event: error\ndata: {\"type\":\"error\""));
        assert_eq!(spoiled("{error: 51, afterEvents: 3}").len(), 4);
        assert_eq!(names(&spoiled("{end: true, afterEvents: 2}")).len(), 2);
        assert!(spoiled("{unknownEvents: true}").len() > 2 * whole.len());
        assert!(data_of(&spoiled("{malformed: 'json'}")[2]).is_none());
        assert!(std::str::from_utf8(&spoiled("{malformed: 'utf8'}")[2]).is_err());
        assert!(!spoiled("{malformed: 'unterminated'}").last().unwrap().ends_with(b"\n\n"));
        assert!(spoiled("{crlf: true}")[0].ends_with(b"\r\n\r\n"));
        assert_eq!(names(&spoiled("{pings: 2}"))[..2], ["ping", "ping"]);
    }
}
