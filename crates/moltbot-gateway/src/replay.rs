//! Turns a kept conversation into messages that the service accepts (spec T-14, T-16).

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use crate::turn::{Role, Turn};

/// For whom a conversation is replayed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    /// The model, as `provider/model`; reasoning is only given back to the model that wrote it.
    pub(crate) model: &'a str,
    /// Whether it accepts images.
    pub(crate) images: bool,
}

/// The messages, and what could not be carried over.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Replay {
    pub(crate) messages: Vec<Value>,
    pub(crate) changed: Vec<String>,
}

/// Replays `turns` for `target`. Pure.
pub(crate) fn replay(turns: &[Turn], target: Target<'_>) -> Replay {
    let mut out = Replay::default();
    let mut ids = Ids::default();
    let mut open: Vec<String> = Vec::new();
    for turn in turns.iter().filter(|turn| turn.stop.is_none_or(|stop| stop.is_whole())) {
        match turn.role {
            Role::Assistant => {
                out.answer_open(&mut open);
                let same = turn.model.as_deref() == Some(target.model);
                let blocks = out.assistant_blocks(&turn.content, same, &mut ids);
                if blocks.is_empty() {
                    continue;
                }
                let calls = blocks.iter().filter(|block| block["type"] == "tool_use");
                open = calls.filter_map(|block| block["id"].as_str().map(String::from)).collect();
                out.messages.push(json!({"role": "assistant", "content": blocks}));
            }
            Role::User => out.user(&turn.content, target, &mut ids, &mut open),
        }
    }
    out.answer_open(&mut open);
    out
}

impl Replay {
    fn assistant_blocks(&mut self, content: &[Value], same: bool, ids: &mut Ids) -> Vec<Value> {
        let mut blocks = Vec::with_capacity(content.len());
        for block in content {
            match block["type"].as_str() {
                Some("text") => blocks.extend(text_block(block)),
                Some("thinking") => blocks.extend(self.thinking(block, same)),
                Some("redacted_thinking") if !same => self.note(DROPPED_THINKING),
                Some("tool_use") => {
                    let mut block = block.clone();
                    block["id"] = ids.of(block["id"].as_str().unwrap_or_default()).into();
                    blocks.push(block);
                }
                _ => blocks.push(block.clone()),
            }
        }
        blocks
    }

    fn thinking(&mut self, block: &Value, same: bool) -> Option<Value> {
        let signed = block["signature"].as_str().is_some_and(|signature| !signature.is_empty());
        if same && signed {
            return Some(block.clone());
        }
        let text = block["thinking"].as_str().unwrap_or_default();
        if text.trim().is_empty() {
            self.note(DROPPED_THINKING);
            return None;
        }
        self.note("reasoning of earlier replies is sent as text: another model wrote it");
        Some(json!({"type": "text", "text": clean(text)}))
    }

    /// Adds a turn of the user's: results of tools first, which the service wants right after
    /// their calls and in one message.
    fn user(
        &mut self,
        content: &[Value],
        target: Target<'_>,
        ids: &mut Ids,
        open: &mut Vec<String>,
    ) {
        let (results, rest): (Vec<_>, Vec<_>) =
            content.iter().partition(|block| block["type"] == "tool_result");
        let mut answers = Vec::new();
        for block in results {
            let id = ids.of(block["tool_use_id"].as_str().unwrap_or_default());
            let Some(at) = open.iter().position(|call| *call == id) else {
                self.note("a tool result without its call was left out");
                continue;
            };
            open.remove(at);
            let mut block = block.clone();
            block["tool_use_id"] = id.into();
            self.result_content(&mut block, target.images);
            answers.push(block);
        }
        self.add_results(answers);
        let mut blocks = Vec::new();
        for block in rest {
            match block["type"].as_str() {
                Some("text") => blocks.extend(text_block(block)),
                Some("image") if !target.images => self.note(DROPPED_IMAGES),
                _ => blocks.push(block.clone()),
            }
        }
        if !blocks.is_empty() {
            self.answer_open(open);
            self.messages.push(json!({"role": "user", "content": blocks}));
        }
    }

    /// Adds results to the last message if that holds nothing else.
    fn add_results(&mut self, mut results: Vec<Value>) {
        if results.is_empty() {
            return;
        }
        let last = self.messages.last_mut().filter(|last| last["role"] == "user");
        let held = last.and_then(|last| last["content"].as_array_mut());
        match held.filter(|held| held.iter().all(|block| block["type"] == "tool_result")) {
            Some(held) => held.append(&mut results),
            None => self.messages.push(json!({"role": "user", "content": results})),
        }
    }

    fn answer_open(&mut self, open: &mut Vec<String>) {
        let missing = open.drain(..).map(|id| {
            json!({"type": "tool_result", "tool_use_id": id, "is_error": true, "content": "No result provided"})
        });
        self.add_results(missing.collect());
    }

    fn result_content(&mut self, block: &mut Value, images: bool) {
        if let Some(text) = block["content"].as_str() {
            block["content"] = clean(text).into();
        }
        let Some(parts) = block["content"].as_array_mut() else { return };
        let shows_text =
            |part: &Value| part["text"].as_str().is_some_and(|text| !text.trim().is_empty());
        let had_images = parts.iter().any(|part| part["type"] == "image");
        let had_text = parts.iter().any(shows_text);
        parts.retain(|part| match part["type"].as_str() {
            Some("text") => shows_text(part),
            Some("image") => images,
            _ => true,
        });
        for part in parts.iter_mut() {
            if let Some(text) = part["text"].as_str() {
                part["text"] = clean(text).into();
            }
        }
        if had_images && !had_text {
            parts.insert(0, json!({"type": "text", "text": "(see attached image)"}));
        }
        if had_images && !images {
            self.note(DROPPED_IMAGES);
        }
    }

    fn note(&mut self, what: &str) {
        if !self.changed.iter().any(|known| known == what) {
            self.changed.push(what.to_string());
        }
    }
}

/// Returns a text block ready to be sent, `None` if there is nothing in it: the service refuses
/// blank text.
pub(crate) fn text_block(block: &Value) -> Option<Value> {
    let text = block["text"].as_str().unwrap_or_default();
    if text.trim().is_empty() {
        return None;
    }
    let mut block = block.clone();
    block["text"] = clean(text).into();
    Some(block)
}

/// Takes the sting out of the word that makes the service refuse on purpose (spec T-16), so that a
/// page that mentions it does not end the conversation.
pub(crate) fn clean(text: &str) -> String {
    text.replace("MAGIC_STRING_TRIGGER_REFUSAL", "MAGIC STRING TRIGGER REFUSAL (redacted)")
}

const DROPPED_THINKING: &str = "reasoning of earlier replies was left out: another model wrote it";
const DROPPED_IMAGES: &str = "images were left out: the model does not accept any";

/// Tool call ids of any origin, mapped to what the service accepts: `[A-Za-z0-9_-]{1,64}`.
#[derive(Default)]
struct Ids {
    known: HashMap<String, String>,
    used: HashSet<String>,
}

impl Ids {
    fn of(&mut self, id: &str) -> String {
        if let Some(known) = self.known.get(id) {
            return known.clone();
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let mut base: String = id.chars().map(|c| if fits(c) { c } else { '_' }).take(64).collect();
        if base.is_empty() {
            base.push_str("call");
        }
        let mut mapped = base.clone();
        for number in 2.. {
            if self.used.insert(mapped.clone()) {
                break;
            }
            let suffix = format!("_{number}");
            mapped = base.chars().take(64 - suffix.len()).collect::<String>() + &suffix;
        }
        self.known.insert(id.to_string(), mapped.clone());
        mapped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::StopReason;

    const HERE: Target<'static> = Target { model: "p/m", images: true };

    fn assistant(content: Value, model: &str) -> Turn {
        let content = content.as_array().unwrap().clone();
        let user = Turn::user(content);
        let stop = Some(StopReason::Stop);
        Turn { role: Role::Assistant, model: Some(model.into()), stop, ..user }
    }

    fn user(content: Value) -> Turn {
        Turn::user(content.as_array().unwrap().clone())
    }

    fn messages(turns: &[Turn]) -> Value {
        Value::from(replay(turns, HERE).messages)
    }

    fn call(id: &str) -> Value {
        json!({"type": "tool_use", "id": id, "name": "t", "input": {}})
    }

    fn result(id: &str) -> Value {
        json!({"type": "tool_result", "tool_use_id": id, "content": "ok"})
    }

    #[test]
    fn thinking_goes_back_to_its_own_model_only() {
        let thought = json!({"type": "thinking", "thinking": "Hm", "signature": "s"});
        let hidden = json!({"type": "thinking", "thinking": "", "signature": "s"});
        let unsigned = json!({"type": "thinking", "thinking": "Hm", "signature": ""});
        let redacted = json!({"type": "redacted_thinking", "data": "x"});
        let all = json!([thought, hidden, unsigned, redacted]);
        let text = json!({"type": "text", "text": "Hm"});
        let same = messages(&[assistant(all.clone(), "p/m")]);
        assert_eq!(same[0]["content"], json!([thought, hidden, text, redacted]));
        let other = replay(&[assistant(all, "p/other")], HERE);
        assert_eq!(other.messages[0]["content"], json!([text, text]));
        assert_eq!(other.changed.len(), 2, "{:?}", other.changed);
    }

    #[test]
    fn failed_turns_and_blank_text_are_left_out() {
        let failed = Turn { stop: Some(StopReason::Error), ..assistant(json!([call("1")]), "p/m") };
        let turns = [
            user(json!([{"type": "text", "text": "a"}, {"type": "text", "text": " \n"}])),
            failed,
            user(json!([result("1")])),
            assistant(json!([{"type": "text", "text": ""}]), "p/m"),
        ];
        assert_eq!(
            messages(&turns),
            json!([{"role": "user", "content": [{"type": "text", "text": "a"}]}])
        );
    }

    #[test]
    fn every_call_has_exactly_one_result_right_after_it() {
        let turns = [
            assistant(json!([call("1"), call("2"), call("3")]), "p/m"),
            user(json!([result("2"), {"type": "text", "text": "and"}])),
            user(json!([result("1"), result("9")])),
        ];
        let missing = |id: &str| json!({"type": "tool_result", "tool_use_id": id, "is_error": true, "content": "No result provided"});
        assert_eq!(
            messages(&turns),
            json!([
                {"role": "assistant", "content": [call("1"), call("2"), call("3")]},
                {"role": "user", "content": [result("2"), missing("1"), missing("3")]},
                {"role": "user", "content": [{"type": "text", "text": "and"}]},
            ])
        );
    }

    #[test]
    fn consecutive_results_share_a_message() {
        let turns = [
            assistant(json!([call("1"), call("2")]), "p/m"),
            user(json!([result("1")])),
            user(json!([result("2")])),
        ];
        assert_eq!(messages(&turns)[1]["content"], json!([result("1"), result("2")]));
    }

    #[test]
    fn foreign_ids_are_mapped_and_stay_distinct() {
        let (long, odd, same) = ("x".repeat(80), "a|b", "a:b");
        let turns = [
            assistant(json!([call(&long), call(odd), call(same)]), "p/m"),
            user(json!([result(same), result(odd), result(&long)])),
        ];
        let out = messages(&turns);
        let id =
            |message: usize, block: usize, name: &str| out[message]["content"][block][name].clone();
        assert_eq!(id(0, 0, "id").as_str().unwrap().len(), 64);
        assert_eq!((id(0, 1, "id"), id(0, 2, "id")), (json!("a_b"), json!("a_b_2")));
        assert_eq!(
            (id(1, 0, "tool_use_id"), id(1, 1, "tool_use_id")),
            (json!("a_b_2"), json!("a_b"))
        );
    }

    #[test]
    fn images_need_a_model_that_sees_them() {
        let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}});
        let result = json!({"type": "tool_result", "tool_use_id": "1", "content": [image]});
        let turns = [
            assistant(json!([call("1")]), "p/m"),
            user(json!([result])),
            user(json!([image, {"type": "text", "text": "see"}])),
        ];
        let seeing = messages(&turns);
        let note = json!({"type": "text", "text": "(see attached image)"});
        assert_eq!(seeing[1]["content"][0]["content"], json!([note, image]));
        let blind = replay(&turns, Target { images: false, ..HERE });
        assert_eq!(blind.messages[1]["content"][0]["content"], json!([note]));
        assert_eq!(blind.messages[2]["content"].as_array().unwrap().len(), 1);
        assert_eq!(blind.changed, [DROPPED_IMAGES]);
    }

    #[test]
    fn the_refusal_word_is_rewritten() {
        let turns =
            [user(json!([{"type": "text", "text": "say X_MAGIC_STRING_TRIGGER_REFUSAL_1"}]))];
        let out = messages(&turns).to_string();
        assert!(!out.contains("MAGIC_STRING") && out.contains("(redacted)"), "{out}");
    }
}
