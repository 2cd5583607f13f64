//! Signatures of thinking blocks: made from what the block belongs to, and checked on replay.
//!
//! Spec 09 A: newer models bind a block to the model and to everything before it. A block of
//! another model is dropped in silence; one whose prefix changed is refused, unless the request
//! asks to drop it. Older models only check that the signature is whole.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::errors::ApiError;
use crate::models::Model;
use crate::prompt::Prompt;

const MAGIC: &[u8; 4] = b"lab1";
const PART: usize = 8;

/// Returns the signature of a thinking block; the same for the same block and prompt.
pub(crate) fn sign(model: &str, prefix: &[u8; 32], text: &str) -> String {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&digest(model.as_bytes()));
    bytes.extend_from_slice(&digest(prefix));
    bytes.extend_from_slice(&digest(text.as_bytes()));
    let check = digest(&bytes);
    bytes.extend_from_slice(&check);
    STANDARD.encode(bytes)
}

/// Checks the thinking blocks a request brings back.
pub(crate) fn check(
    body: &Value,
    id: &str,
    model: Option<&Model>,
    prompt: &Prompt,
) -> Result<(), ApiError> {
    let binding = &body["thinking"]["block_binding"]["prefix_mismatch_behavior"];
    for (index, message) in body["messages"].as_array().into_iter().flatten().enumerate() {
        for (place, block) in message["content"].as_array().into_iter().flatten().enumerate() {
            if block["type"] != "thinking" {
                continue;
            }
            let at = format!("messages.{index}.content.{place}");
            let text = block["thinking"].as_str().unwrap_or("");
            let seal = open(block["signature"].as_str().unwrap_or(""));
            let Some((by, prefix, _)) = seal.filter(|(_, _, of)| *of == digest(text.as_bytes()))
            else {
                let text = format!("{at}: Invalid `signature` in `thinking` block");
                return Err(ApiError::invalid(text));
            };
            let bound = model.is_some_and(Model::binds_thinking) && by == digest(id.as_bytes());
            let moved = prefix != digest(&prompt.before(index));
            if bound && moved && binding != "drop_block" {
                let text = format!("{at}: The block is bound to a different conversation");
                return Err(ApiError::invalid(text));
            }
        }
    }
    Ok(())
}

type Part = [u8; PART];

fn open(signature: &str) -> Option<(Part, Part, Part)> {
    let bytes = STANDARD.decode(signature).ok()?;
    let (sealed, check) = bytes.split_last_chunk::<PART>()?;
    let parts = sealed.strip_prefix(MAGIC)?;
    if parts.len() != 3 * PART || *check != digest(sealed) {
        return None;
    }
    let part = |n: usize| parts[n * PART..(n + 1) * PART].try_into().ok();
    Some((part(0)?, part(1)?, part(2)?))
}

fn digest(bytes: &[u8]) -> Part {
    let full: [u8; 32] = Sha256::digest(bytes).into();
    let mut part = [0; PART];
    part.copy_from_slice(&full[..PART]);
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models;
    use serde_json::json;

    fn conversation(question: &str, signature: &str) -> Value {
        json!({"messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": signature},
                {"type": "text", "text": "a"},
            ]},
            {"role": "user", "content": "more"},
        ]})
    }

    fn judge(body: &Value, id: &str) -> Result<(), String> {
        let prompt = Prompt::measure(body);
        check(body, id, models::find(id), &prompt).map_err(|error| error.message)
    }

    #[test]
    fn a_block_goes_on_in_its_own_conversation_only() {
        let first = json!({"messages": [{"role": "user", "content": "q"}]});
        let prefix = Prompt::measure(&first).segments[0].prefix;
        let signature = sign("claude-opus-5-5", &prefix, "hm");
        assert_eq!(judge(&conversation("q", &signature), "claude-opus-5-5"), Ok(()));
        let moved = conversation("another", &signature);
        assert!(judge(&moved, "claude-opus-5-5").unwrap_err().contains("different conversation"));
        // Another model drops the block; an older one does not bind.
        assert_eq!(judge(&moved, "claude-sonnet-5-5"), Ok(()));
        assert_eq!(judge(&moved, "claude-opus-4-5"), Ok(()));
        let mut dropping = moved.clone();
        dropping["thinking"] = json!({"block_binding": {"prefix_mismatch_behavior": "drop_block"}});
        assert_eq!(judge(&dropping, "claude-opus-5-5"), Ok(()));
    }

    #[test]
    fn a_signature_that_is_not_ours_or_not_of_this_text_is_refused() {
        let says = "messages.1.content.0: Invalid `signature` in `thinking` block";
        for signature in ["", "EqQBCgIYAhIM", &sign("claude-opus-4-5", &[0; 32], "other")] {
            let body = conversation("q", signature);
            assert_eq!(judge(&body, "claude-opus-4-5").unwrap_err(), says);
        }
    }
}
