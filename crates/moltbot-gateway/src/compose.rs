//! Writes the body of our own chats: a Messages request with system, tools, images, reasoning and
//! cache breakpoints (spec T-9 to T-17).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use moltbot_core::{Header, ModelInfo, Op, VERSION};
use serde_json::{Map, Value, json};

use crate::replay::{Target, clean, replay, text_block};
use crate::thinking::{Room, ThinkingLevel};
use crate::turn::{Role, Turn};

/// A request in the inner language: the bytes, and a head parsed once (decision 3).
#[derive(Clone, Debug, PartialEq)]
pub struct Chat {
    /// What is asked.
    pub op: Op,
    /// What follows `?`, without it.
    pub query: String,
    /// Headers without any credential.
    pub headers: Vec<Header<'static>>,
    /// The body.
    pub body: Bytes,
    /// What the host itself needs of it.
    pub head: Head,
}

/// What the host needs of a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The model asked for, as the service knows it.
    pub model: String,
    /// Whether the reply shall be streamed.
    pub stream: bool,
    /// The highest number of tokens of the reply.
    pub max_tokens: u64,
}

/// An image to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    media_type: &'static str,
    data: Vec<u8>,
}

impl Image {
    /// Takes an image; its format is told by its first bytes. Fails with a sentence on anything
    /// but PNG, JPEG, GIF and WebP.
    pub fn new(data: Vec<u8>) -> Result<Self, String> {
        let media_type = match data.as_slice() {
            [0x89, b'P', b'N', b'G', ..] => "image/png",
            [0xff, 0xd8, 0xff, ..] => "image/jpeg",
            [b'G', b'I', b'F', b'8', ..] => "image/gif",
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
            _ => return Err("the image is neither PNG, JPEG, GIF nor WebP".into()),
        };
        Ok(Self { media_type, data })
    }

    fn block(&self) -> Value {
        let data = STANDARD.encode(&self.data);
        json!({"type": "image", "source": {"type": "base64", "media_type": self.media_type, "data": data}})
    }
}

/// Everything a request of ours is made of.
#[derive(Clone, Copy, Debug)]
pub struct Composer<'a> {
    /// The model, as `provider/model`.
    pub model: &'a str,
    /// The model as the service knows it.
    pub model_id: &'a str,
    /// What is known of it.
    pub info: Option<&'a ModelInfo>,
    /// The config's `params` for it: `temperature`, `maxTokens`; others are the provider's.
    pub params: &'a Value,
    /// The system prompt.
    pub system: Option<&'a str>,
    /// Everything said so far, the new turn included.
    pub turns: &'a [Turn],
    /// Tools: `{name, description, input_schema}` each, kept as they are.
    pub tools: &'a [Value],
    /// How much the model shall reason; `None` is the usual.
    pub thinking: Option<ThinkingLevel>,
    /// The caller's limit.
    pub max_tokens: Option<u64>,
    /// The caller's temperature.
    pub temperature: Option<f64>,
}

impl Composer<'_> {
    /// Writes the request. The second value says, in words, what of the wishes and of the
    /// conversation could not be kept.
    pub fn compose(&self) -> (Chat, Vec<String>) {
        let images = self.info.is_none_or(|info| info.images);
        let mut replayed = replay(self.turns, Target { model: self.model, images });
        let mut changed = std::mem::take(&mut replayed.changed);
        mark_last(&mut replayed.messages);
        let max_tokens = self.max_tokens.or_else(|| self.params["maxTokens"].as_u64());
        let room = Room::of(self.info, self.thinking, max_tokens);
        changed.extend(room.note.clone());
        let mut body = Map::new();
        body.insert("model".into(), self.model_id.into());
        room.write(&mut body);
        body.insert("stream".into(), true.into());
        if let Some(system) = self.system.filter(|system| !system.trim().is_empty()) {
            let block = json!({"type": "text", "text": clean(system), "cache_control": {"type": "ephemeral"}});
            body.insert("system".into(), json!([block]));
        }
        if !self.tools.is_empty() {
            body.insert("tools".into(), self.tools.into());
        }
        if let Some(temperature) = self.temperature.or_else(|| self.params["temperature"].as_f64())
        {
            if room.reasons {
                changed.push("temperature was left out: the model reasons".into());
            } else if self.info.is_some_and(|info| info.fixed_sampling) {
                changed.push("temperature was left out: the model does not take one".into());
            } else {
                body.insert("temperature".into(), json!(temperature));
            }
        }
        body.insert("messages".into(), replayed.messages.into());
        let head = Head { model: self.model_id.into(), stream: true, max_tokens: room.max_tokens };
        let chat = Chat {
            op: Op::Messages,
            query: String::new(),
            headers: own_headers(),
            body: Value::Object(body).to_string().into(),
            head,
        };
        (chat, changed)
    }
}

/// Makes the user's new turn: images first, as the service recommends, then the text.
pub fn user_turn(prompt: &str, images: &[Image]) -> Turn {
    let mut content: Vec<Value> = images.iter().map(Image::block).collect();
    content.extend(text_block(&json!({"type": "text", "text": prompt})));
    Turn::user(content)
}

/// Puts results before the first block of the next user turn, where the service wants them.
pub(crate) fn results_turn(results: Vec<Value>) -> Option<Turn> {
    (!results.is_empty()).then(|| Turn { role: Role::User, ..Turn::user(results) })
}

/// The headers of every request that we write ourselves.
pub(crate) fn own_headers() -> Vec<Header<'static>> {
    vec![
        Header::new("accept", "application/json"),
        Header::new("accept-encoding", "identity"),
        Header::new("content-type", "application/json"),
        Header::new("user-agent", format!("moltbot/{VERSION}")),
    ]
}

/// Sets the second breakpoint: the last block of a last message of the user's.
fn mark_last(messages: &mut [Value]) {
    let last = messages.last_mut().filter(|last| last["role"] == "user");
    let block = last.and_then(|last| last["content"].as_array_mut()).and_then(|all| all.last_mut());
    if let Some(block) = block
        && matches!(block["type"].as_str(), Some("text" | "image" | "tool_result"))
    {
        block["cache_control"] = json!({"type": "ephemeral"});
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moltbot_core::Thinking;

    fn opus() -> ModelInfo {
        ModelInfo {
            images: true,
            max_output: 64_000,
            thinking: Thinking { modes: vec!["enabled".into()], default_effort: None },
            ..ModelInfo::default()
        }
    }

    fn compose(composer: Composer<'_>) -> (Value, Vec<String>) {
        let (chat, changed) = composer.compose();
        (serde_json::from_slice(&chat.body).unwrap(), changed)
    }

    fn composer<'a>(info: Option<&'a ModelInfo>, turns: &'a [Turn]) -> Composer<'a> {
        Composer {
            model: "p/m",
            model_id: "m",
            info,
            params: &Value::Null,
            system: None,
            turns,
            tools: &[],
            thinking: Some(ThinkingLevel::Off),
            max_tokens: None,
            temperature: None,
        }
    }

    #[test]
    fn the_smallest_request() {
        let (info, turns) = (opus(), [user_turn("hi", &[])]);
        let (body, changed) = compose(composer(Some(&info), &turns));
        let text = json!({"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}});
        let expected = json!({"model": "m", "max_tokens": 32000, "stream": true, "messages": [{"role": "user", "content": [text]}]});
        assert_eq!(body, expected);
        assert!(changed.is_empty());
    }

    #[test]
    fn system_tools_and_schema_stay_whole() {
        let (info, turns) = (opus(), [user_turn("hi", &[])]);
        let tools = [
            json!({"name": "t", "input_schema": {"type": "object", "$defs": {}, "additionalProperties": false}}),
        ];
        let (body, _) = compose(Composer {
            system: Some("be brief"),
            tools: &tools,
            ..composer(Some(&info), &turns)
        });
        assert_eq!(body["tools"], json!(tools));
        assert_eq!(body["system"][0]["cache_control"], json!({"type": "ephemeral"}));
    }

    #[test]
    fn a_temperature_is_sent_only_where_it_is_taken() {
        let (info, turns) = (opus(), [user_turn("hi", &[])]);
        let params = json!({"temperature": 0.5, "maxTokens": 100});
        let base = Composer { params: &params, ..composer(Some(&info), &turns) };
        let (body, _) = compose(base);
        assert_eq!((&body["temperature"], &body["max_tokens"]), (&json!(0.5), &json!(100)));
        let (body, changed) = compose(Composer {
            thinking: Some(ThinkingLevel::Medium),
            temperature: Some(1.0),
            ..base
        });
        assert_eq!(body.get("temperature"), None);
        assert_eq!(changed.len(), 1);
        let fixed = ModelInfo { fixed_sampling: true, thinking: Thinking::default(), ..opus() };
        let (body, changed) = compose(Composer { info: Some(&fixed), ..base });
        assert_eq!(body.get("temperature"), None);
        assert!(changed[0].contains("does not take one"));
    }

    #[test]
    fn the_breakpoint_is_on_a_users_last_block_only() {
        let turns = [user_turn("hi", &[Image::new(b"\x89PNG....".to_vec()).unwrap()])];
        let (body, _) = compose(composer(None, &turns));
        assert_eq!(body["messages"][0]["content"][0]["source"]["data"], "iVBORy4uLi4=");
        assert_eq!(body["messages"][0]["content"][0].get("cache_control"), None);
        assert!(body["messages"][0]["content"][1].get("cache_control").is_some());
    }

    #[test]
    fn images_are_told_by_their_first_bytes() {
        for (bytes, kind) in [
            (&b"\x89PNG\r\n"[..], Ok("image/png")),
            (b"\xff\xd8\xff\xe0", Ok("image/jpeg")),
            (b"GIF89a", Ok("image/gif")),
            (b"RIFF....WEBPVP8 ", Ok("image/webp")),
            (b"BM", Err(())),
            (b"", Err(())),
        ] {
            let image = Image::new(bytes.to_vec());
            assert_eq!(image.map(|image| image.media_type).map_err(drop), kind);
        }
    }

    #[test]
    fn we_say_who_we_are() {
        let agent = own_headers().into_iter().find(|header| header.name == "user-agent");
        assert_eq!(agent.unwrap().value, format!("moltbot/{VERSION}"));
    }
}
