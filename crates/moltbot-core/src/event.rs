//! What a reply consists of, once decoded.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Usage;

/// Turns the bytes of a reply into events. One per HTTP reply, or per child process and all its
/// turns. Pure: any split of the same bytes gives the same events.
pub trait Decoder: Send {
    /// Takes the next bytes and appends the events they complete.
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>);

    /// Says that no more bytes come. A reply that ends early becomes an [`Event::Error`].
    fn end(&mut self, events: &mut Vec<Event>);
}

/// How much of a reply is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DecoderMode {
    /// Every event.
    Full,
    /// Only `Began`, `Ping`, `Error` and `TurnEnd`: the bytes are forwarded as they came.
    Observe,
}

/// One event of a reply. `at` counts the bytes up to the end of the event, from the start of the
/// reply, so that a door knows what may be forwarded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
#[non_exhaustive]
pub enum Event {
    /// The reply has begun.
    Began {
        /// Bytes so far.
        at: u64,
        /// The service's id of the message.
        id: Option<String>,
        /// The model that answers.
        model: Option<String>,
        /// What is known so far.
        usage: Usage,
    },
    /// A block begins.
    BlockStart {
        /// Its place in the message.
        index: usize,
        /// The block as sent: unknown ones are relayed.
        block: Value,
    },
    /// More text of a block.
    Text {
        /// Which block.
        index: usize,
        /// The text.
        text: String,
    },
    /// More reasoning of a block.
    Thinking {
        /// Which block.
        index: usize,
        /// The text.
        text: String,
    },
    /// More of a tool's input: a piece of JSON.
    Input {
        /// Which block.
        index: usize,
        /// The piece.
        json: String,
    },
    /// Any other change of a block, as sent.
    Delta {
        /// Which block.
        index: usize,
        /// The delta.
        delta: Value,
    },
    /// A block ends.
    BlockEnd {
        /// Which block.
        index: usize,
    },
    /// Nothing but a sign of life.
    Ping {
        /// Bytes so far.
        at: u64,
    },
    /// The reply failed; nothing follows.
    Error {
        /// Bytes before this event.
        at: u64,
        /// The service's word: `overloaded_error`.
        kind: String,
        /// The service's message.
        message: String,
        /// The event as sent, for classification; `null` if the reply broke off.
        body: Value,
    },
    /// The turn is over.
    TurnEnd {
        /// Bytes so far.
        at: u64,
        /// Why, in the service's word: `end_turn`.
        stop: String,
        /// All tokens of the turn.
        usage: Usage,
    },
    /// What the turn cost by its author's own reckoning; comes before its end.
    Cost {
        /// In US dollars.
        dollars: f64,
    },
    /// Something to write to the child process.
    Write {
        /// What.
        text: String,
    },
    /// An event of a newer version; ignored.
    #[serde(other)]
    Unknown,
}
