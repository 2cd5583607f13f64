//! Bytes on a wire of text: as UTF-8 where they are, else as base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// A piece of a reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "chunk", rename_all = "camelCase")]
pub(crate) enum Chunk {
    /// Bytes that are UTF-8 by themselves.
    Text {
        /// The text.
        text: String,
    },
    /// Any other bytes.
    Base64 {
        /// The bytes, encoded.
        data: String,
    },
    /// No more bytes come.
    End {},
    /// A piece of a newer version; refused.
    #[serde(other)]
    Unknown,
}

impl Chunk {
    /// Returns the bytes; `None` if there are none to return.
    pub(crate) fn bytes(&self) -> Result<Option<Vec<u8>>, String> {
        match self {
            Self::Text { text } => Ok(Some(text.clone().into_bytes())),
            Self::Base64 { data } => {
                STANDARD.decode(data).map(Some).map_err(|_| "a chunk is not base64".to_string())
            }
            Self::End {} => Ok(None),
            Self::Unknown => Err("a chunk of a kind this version does not know".to_string()),
        }
    }
}

/// Cuts a stream on UTF-8 boundaries: at most three bytes wait for the rest of their character.
#[derive(Debug, Default)]
pub(crate) struct Chunker {
    held: Vec<u8>,
}

impl Chunker {
    /// Takes the next bytes; `None` if all of them have to wait.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Option<Chunk> {
        self.held.extend_from_slice(bytes);
        let cut = match std::str::from_utf8(&self.held) {
            Ok(_) => self.held.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => self.held.len(),
        };
        let rest = self.held.split_off(cut);
        let ready = std::mem::replace(&mut self.held, rest);
        (!ready.is_empty()).then(|| encode(ready))
    }

    /// Returns what still waits at the end of the stream.
    pub(crate) fn rest(&mut self) -> Option<Chunk> {
        let ready = std::mem::take(&mut self.held);
        (!ready.is_empty()).then(|| encode(ready))
    }
}

fn encode(bytes: Vec<u8>) -> Chunk {
    match String::from_utf8(bytes) {
        Ok(text) => Chunk::Text { text },
        Err(error) => Chunk::Base64 { data: STANDARD.encode(error.as_bytes()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_cross_in_any_pieces() {
        let sample = b"a\xc3\xa9\xf0\x9f\x98\x80 \xff\xfe b\xc3";
        for size in 1..=sample.len() {
            let mut chunker = Chunker::default();
            let mut chunks: Vec<_> =
                sample.chunks(size).filter_map(|piece| chunker.push(piece)).collect();
            chunks.extend(chunker.rest());
            let bytes: Vec<u8> = chunks
                .iter()
                .flat_map(|chunk| {
                    let text = serde_json::to_string(chunk).unwrap();
                    let back: Chunk = serde_json::from_str(&text).unwrap();
                    back.bytes().unwrap().unwrap()
                })
                .collect();
            assert_eq!(bytes, sample, "in pieces of {size}");
        }
    }

    #[test]
    fn a_character_is_never_cut() {
        let mut chunker = Chunker::default();
        assert_eq!(chunker.push(b"\xf0\x9f\x98"), None);
        assert_eq!(chunker.push(b"\x80!"), Some(Chunk::Text { text: "😀!".into() }));
        assert_eq!(chunker.rest(), None);
    }
}
