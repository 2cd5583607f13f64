//! The messages themselves. Both directions are JSON objects, told apart by a tag.

use moltbot_core::{
    AuthError, Call, ChatView, Code, Credential, CredentialKind, CredentialView, DecoderMode,
    Effect, Ended, Event, Exposed, Header, HostError, ProviderError, ProviderInfo, RenewReply,
    RenewSettings, Reply, SettingsSpec, Timestamp,
};
use serde::de::DeserializeOwned;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::chunk::Chunk;
use crate::{CarrierError, Packet};

/// What this side understands beyond its version number; sent in both directions with [`Hello`].
pub const FEATURES: &[&str] = &["auth", "provider", "decoder", "join", OFFERS_OF];

/// The feature of a guest that offers to several providers in one call.
pub(crate) const OFFERS_OF: &str = "offersOf";

/// The first message of both sides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The version of `moltbot-core`.
    pub core: String,
    /// Names of what is understood; unknown ones are ignored.
    #[serde(default)]
    pub features: Vec<String>,
    /// The guest's plugins; empty in the host's hello.
    #[serde(default)]
    pub plugins: Vec<Described>,
}

impl Hello {
    /// Makes this side's hello.
    pub fn ours() -> Self {
        Self {
            core: moltbot_core::VERSION.to_string(),
            features: FEATURES.iter().map(ToString::to_string).collect(),
            plugins: Vec::new(),
        }
    }
}

/// One plugin of a guest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Described {
    /// The plugin's id.
    pub id: String,
    /// The plugin's version.
    pub version: String,
    /// The plugin's description.
    #[serde(default)]
    pub about: String,
    /// The ids of its auth methods.
    #[serde(default)]
    pub methods: Vec<String>,
    /// The ids of its providers.
    #[serde(default)]
    pub providers: Vec<String>,
    /// Its pages for `moltbot explain`.
    #[serde(default)]
    pub codes: Vec<Code>,
    /// What each provider says about itself, in the order of `providers`. A guest that leaves this
    /// and the next one out is asked later, one by one.
    #[serde(default)]
    pub infos: Vec<ProviderInfo>,
    /// The settings of each auth method, in the order of `methods`.
    #[serde(default)]
    pub settings: Vec<Option<SettingsSpec>>,
}

/// A message to the guest.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "camelCase")]
pub(crate) enum Message {
    /// The host's hello; judging versions is the host's part.
    Hello {},
    /// Starts a task; answered with its first step.
    Start { call: Box<GuestCall> },
    /// Goes on with a task whose last step was `need`.
    Resume {
        task: u64,
        #[serde(default)]
        replies: Vec<Answer>,
        #[serde(default)]
        chunk: Option<Chunk>,
    },
    /// Ends a task without an answer.
    Drop { task: u64 },
    #[serde(other)]
    Unknown,
}

/// What is called. Credentials arrive in clear; the host writes them through [`HostCall`].
#[derive(Deserialize)]
#[serde(tag = "call", rename_all = "camelCase")]
pub(crate) enum GuestCall {
    Offers {
        method: String,
        provider: ProviderInfo,
    },
    OffersOf {
        method: String,
        providers: Vec<ProviderInfo>,
    },
    Settings {
        method: String,
    },
    Login {
        method: String,
        cx: Call,
    },
    Resolve {
        method: String,
        cx: Call,
        credential: Credential,
    },
    Renew {
        method: String,
        settings: RenewSettings,
        credential: Credential,
        now: Timestamp,
    },
    Renewed {
        method: String,
        credential: Credential,
        reply: RenewReply,
        received_at: Timestamp,
    },
    Refresh {
        method: String,
        cx: Call,
        credential: Credential,
    },
    Doctor {
        method: String,
        cx: Call,
        stored: Vec<Credential>,
    },
    Info {
        provider: String,
    },
    Caps {
        provider: String,
        kind: CredentialKind,
    },
    Request {
        provider: String,
        chat: ChatView<'static>,
        with: CredentialView<'static>,
        now: Timestamp,
    },
    Failure {
        provider: String,
        ended: Ended,
        now: Timestamp,
    },
    Observe {
        provider: String,
        headers: Vec<Header<'static>>,
        now: Timestamp,
    },
    Decoder {
        provider: String,
        mode: DecoderMode,
    },
    #[serde(other)]
    Unknown,
}

/// The same calls, borrowed, as the host writes them. A view is invariant, hence the second lifetime.
#[derive(Serialize)]
#[serde(tag = "call", rename_all = "camelCase")]
pub(crate) enum HostCall<'a, 'c> {
    Offers {
        method: &'a str,
        provider: &'a ProviderInfo,
    },
    OffersOf {
        method: &'a str,
        providers: &'a [&'a ProviderInfo],
    },
    Settings {
        method: &'a str,
    },
    Login {
        method: &'a str,
        cx: &'a Call,
    },
    Resolve {
        method: &'a str,
        cx: &'a Call,
        credential: Exposed<'a, Credential>,
    },
    Renew {
        method: &'a str,
        settings: &'a RenewSettings,
        credential: Exposed<'a, Credential>,
        now: Timestamp,
    },
    Renewed {
        method: &'a str,
        credential: Exposed<'a, Credential>,
        reply: Exposed<'a, RenewReply>,
        received_at: Timestamp,
    },
    Refresh {
        method: &'a str,
        cx: &'a Call,
        credential: Exposed<'a, Credential>,
    },
    Doctor {
        method: &'a str,
        cx: &'a Call,
        stored: Vec<Exposed<'a, Credential>>,
    },
    Info {
        provider: &'a str,
    },
    Caps {
        provider: &'a str,
        kind: &'a CredentialKind,
    },
    Request {
        provider: &'a str,
        chat: &'a ChatView<'c>,
        with: &'a CredentialView<'a>,
        now: Timestamp,
    },
    Failure {
        provider: &'a str,
        ended: &'a Ended,
        now: Timestamp,
    },
    Observe {
        provider: &'a str,
        headers: &'a [Header<'a>],
        now: Timestamp,
    },
    Decoder {
        provider: &'a str,
        mode: DecoderMode,
    },
}

/// The host's messages, borrowed.
#[derive(Serialize)]
#[serde(tag = "op", rename_all = "camelCase")]
pub(crate) enum HostMessage<'a, 'c> {
    Hello { hello: &'a Hello },
    Start { call: HostCall<'a, 'c> },
    Resume { task: u64, replies: &'a [Answer], chunk: Option<&'a Chunk> },
    Drop { task: u64 },
}

/// The outcome of one effect.
#[derive(Deserialize)]
pub(crate) struct Answer {
    pub(crate) n: u64,
    #[serde(default)]
    pub(crate) reply: Option<Reply>,
    #[serde(default)]
    pub(crate) error: Option<HostError>,
}

impl Answer {
    pub(crate) fn new(n: u64, outcome: Result<Reply, HostError>) -> Self {
        match outcome {
            Ok(reply) => Self { n, reply: Some(reply), error: None },
            Err(error) => Self { n, reply: None, error: Some(error) },
        }
    }

    pub(crate) fn into_outcome(self) -> Result<Reply, HostError> {
        match (self.reply, self.error) {
            (Some(reply), _) => Ok(reply),
            (None, Some(error)) => Err(error),
            (None, None) => Err(HostError::Unknown),
        }
    }
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("n", &self.n)?;
        if let Some(reply) = &self.reply {
            map.serialize_entry("reply", &Exposed(reply))?;
        }
        if let Some(error) = &self.error {
            map.serialize_entry("error", error)?;
        }
        map.end()
    }
}

/// One effect that a task waits for.
#[derive(Deserialize)]
pub(crate) struct Needed {
    pub(crate) n: u64,
    pub(crate) effect: Effect,
}

impl Serialize for Needed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("n", &self.n)?;
        map.serialize_entry("effect", &Exposed(&self.effect))?;
        map.end()
    }
}

/// The guest's answer to `start` and `resume`: the task goes on, or is over and forgotten.
#[derive(Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "camelCase")]
pub(crate) enum Step<T, E> {
    /// The result.
    Done { value: T },
    /// The plugin's error, in the error type of what was called.
    Fail { error: E },
    /// Waiting: for effects, or, if it is a decoder, for more bytes.
    Need {
        task: u64,
        /// Effects not seen by the host before.
        #[serde(default)]
        effects: Vec<Needed>,
        /// Effects of earlier steps that are still wanted; others may be abandoned.
        #[serde(default)]
        waiting: Vec<u64>,
        /// What a decoder found so far.
        #[serde(default)]
        events: Vec<Event>,
    },
    #[serde(other)]
    Unknown,
}

/// An error type that can say that the plugin, not the call, failed.
///
/// Both kinds write it as `{"error":"plugin","message":…}`, so that the guest need not know which
/// one the host expects.
pub(crate) trait CallError: DeserializeOwned {
    fn plugin(message: impl Into<String>) -> Self;
}

impl CallError for AuthError {
    fn plugin(message: impl Into<String>) -> Self {
        Self::Plugin { message: message.into() }
    }
}

impl CallError for ProviderError {
    fn plugin(message: impl Into<String>) -> Self {
        Self::Plugin { message: message.into() }
    }
}

/// Encodes a message into a buffer that is wiped.
pub(crate) fn encode(message: &impl Serialize) -> Packet {
    let mut sink = Wiping(Packet::default());
    // Nothing of ours fails to serialise: every key is text and every number is finite or null.
    serde_json::to_writer(&mut sink, message).expect("wire messages are plain data");
    sink.0
}

/// Decodes a message; the error names no content, which may be secret.
pub(crate) fn decode<T: DeserializeOwned>(packet: &[u8]) -> Result<T, CarrierError> {
    serde_json::from_slice(packet).map_err(|error| CarrierError::Garbled {
        reason: format!("{:?} error in column {}", error.classify(), error.column()),
    })
}

/// Grows without leaving copies of a secret behind.
struct Wiping(Packet);

impl std::io::Write for Wiping {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.capacity() - self.0.len() < bytes.len() {
            let mut grown = Vec::with_capacity((self.0.len() + bytes.len()) * 2);
            grown.extend_from_slice(&self.0);
            self.0 = Packet::new(grown);
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_what_the_page_says() {
        let drop = encode(&HostMessage::Drop { task: 7 });
        assert_eq!(drop.as_slice(), br#"{"op":"drop","task":7}"#);
        let call = HostCall::Settings { method: "m" };
        let start = encode(&HostMessage::Start { call });
        assert_eq!(start.as_slice(), br#"{"op":"start","call":{"call":"settings","method":"m"}}"#);
    }

    #[test]
    fn newer_peers_are_read_as_unknown() {
        let message: Message = decode(br#"{"op":"hibernate","x":[1]}"#).unwrap();
        assert!(matches!(message, Message::Unknown));
        let call: GuestCall = decode(br#"{"call":"dance","partner":{}}"#).unwrap();
        assert!(matches!(call, GuestCall::Unknown));
        let step: Step<(), AuthError> = decode(br#"{"step":"later","when":1}"#).unwrap();
        assert!(matches!(step, Step::Unknown));
        let hello: Hello = decode(br#"{"core":"0.1.9","features":["x"],"mood":"good"}"#).unwrap();
        assert_eq!(hello.core, "0.1.9");
    }

    #[test]
    fn a_garbled_message_is_described_without_its_content() {
        let error = decode::<Hello>(br#"{"core":["FAKE-SECRET"]}"#).unwrap_err();
        assert!(!error.to_string().contains("FAKE"), "{error}");
    }
}
