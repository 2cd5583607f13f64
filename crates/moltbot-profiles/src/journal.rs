//! The journal of a renewal: what was asked, and the answer before anybody has looked at it
//! (decision "Refresh"). Its format, and what to do about one that an interrupted renewal left.

use moltbot_core::{Generation, RenewReply, Secret, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// How large a journal can become; reserved on disk before the request is sent.
pub const MAX_JOURNAL: usize = 64 << 10;

/// Where the answer starts; a block of its own, so that writing it cannot harm the head.
pub(crate) const REPLY_AT: usize = 4 << 10;

/// What is renewed, written before the request is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalHead {
    /// Which profile.
    pub profile: String,
    /// The auth method that can read the answer.
    pub method: String,
    /// The version of that method, for people.
    pub method_version: String,
    /// The login that is renewed; the answer is worth nothing to another one.
    pub generation: Generation,
    /// When the journal was opened.
    pub opened_at: Timestamp,
    /// Whether an earlier renewal of the same login was interrupted before its answer was kept.
    pub retry: bool,
}

/// What a journal holds.
#[derive(Clone, Debug, PartialEq)]
pub enum JournalState {
    /// There is none: no renewal was interrupted.
    None,
    /// It was not complete when its writer ended; nothing was sent.
    Void,
    /// The request may have been sent, its answer was not kept.
    Unanswered {
        /// What was asked.
        head: JournalHead,
    },
    /// The answer is there.
    Answered {
        /// What was asked.
        head: JournalHead,
        /// The answer, as it came.
        reply: RenewReply,
        /// When it came.
        received_at: Timestamp,
    },
}

/// What to do about a journal before a login is renewed.
#[derive(Clone, Debug, PartialEq)]
pub enum Recovery {
    /// There is none; go on.
    Nothing,
    /// It is of no use: remove it, then go on.
    Discard,
    /// Finish the renewal with the answer that it holds.
    Adopt {
        /// The answer, as it came.
        reply: RenewReply,
        /// When it came.
        received_at: Timestamp,
    },
    /// Ask again with the old token, which the service may take for spent.
    Retry,
    /// Another method wrote it; leave it alone and say so.
    Foreign {
        /// Which method.
        method: String,
    },
}

/// Says what to do about a journal, given the login that is stored now and its method. Pure.
pub fn recovery(state: &JournalState, current: &Generation, method: &str) -> Recovery {
    match state {
        JournalState::None => Recovery::Nothing,
        JournalState::Void => Recovery::Discard,
        JournalState::Unanswered { head } | JournalState::Answered { head, .. }
            if head.generation != *current =>
        {
            Recovery::Discard
        }
        JournalState::Unanswered { .. } => Recovery::Retry,
        JournalState::Answered { head, .. } if head.method != method => {
            Recovery::Foreign { method: head.method.clone() }
        }
        JournalState::Answered { reply, received_at, .. } => {
            Recovery::Adopt { reply: reply.clone(), received_at: *received_at }
        }
    }
}

/// What stands before the answer.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReplyHead {
    received_at: Timestamp,
    status: u16,
    length: usize,
    checksum: String,
}

impl JournalHead {
    /// Returns the bytes of the head; `None` if it is too long for its block.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self).expect("texts, numbers and a flag");
        bytes.push(b'\n');
        (bytes.len() <= REPLY_AT).then_some(bytes)
    }

    /// Returns the bytes of the answer; `None` if it is too long for a journal.
    pub(crate) fn encode_reply(
        &self,
        reply: &RenewReply,
        received_at: Timestamp,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let body = reply.body.expose().as_bytes();
        let (status, length) = (reply.status, body.len());
        let checksum = self.checksum(received_at, status, body);
        let head = ReplyHead { received_at, status, length, checksum };
        let head = serde_json::to_vec(&head).expect("numbers and a text");
        let mut bytes = Zeroizing::new(Vec::with_capacity(head.len() + 1 + length));
        bytes.extend_from_slice(&head);
        bytes.push(b'\n');
        bytes.extend_from_slice(body);
        (REPLY_AT + bytes.len() <= MAX_JOURNAL).then_some(bytes)
    }

    fn checksum(&self, received_at: Timestamp, status: u16, body: &[u8]) -> String {
        let mut hash = Sha256::new();
        hash.update(self.encode().unwrap_or_default());
        hash.update(received_at.millis().to_le_bytes());
        hash.update(status.to_le_bytes());
        hash.update(body);
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Reads a journal's bytes; whatever they are, one of the four states describes them.
pub(crate) fn decode(bytes: &[u8]) -> JournalState {
    let block = &bytes[..bytes.len().min(REPLY_AT)];
    let Some(head) = line(block).and_then(|(line, _)| serde_json::from_slice(line).ok()) else {
        return JournalState::Void;
    };
    let answer = bytes.get(REPLY_AT..).and_then(|bytes| decode_reply(&head, bytes));
    match answer {
        Some((reply, received_at)) => JournalState::Answered { head, reply, received_at },
        None => JournalState::Unanswered { head },
    }
}

fn decode_reply(head: &JournalHead, bytes: &[u8]) -> Option<(RenewReply, Timestamp)> {
    let (first, rest) = line(bytes)?;
    let ReplyHead { received_at, status, length, checksum } = serde_json::from_slice(first).ok()?;
    let body = rest.get(..length)?;
    if head.checksum(received_at, status, body) != checksum {
        return None;
    }
    let body = Secret::new(std::str::from_utf8(body).ok()?);
    Some((RenewReply { status, body }, received_at))
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use moltbot_core::Credential;
    use proptest::prelude::*;

    const AT: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn generation(text: &str) -> Generation {
        Generation::of(&Credential::api_key("acme", Secret::new(text)))
    }

    fn head() -> JournalHead {
        JournalHead {
            profile: "acme:default".into(),
            method: "acme-login".into(),
            method_version: "1.0".into(),
            generation: generation("A"),
            opened_at: AT,
            retry: false,
        }
    }

    fn whole(reply: Option<&RenewReply>) -> Vec<u8> {
        let mut bytes = head().encode().unwrap();
        bytes.resize(MAX_JOURNAL, 0);
        if let Some(reply) = reply {
            let answer = head().encode_reply(reply, AT).unwrap();
            bytes[REPLY_AT..REPLY_AT + answer.len()].copy_from_slice(&answer);
        }
        bytes
    }

    fn reply() -> RenewReply {
        RenewReply { status: 200, body: Secret::new("{\"access_token\": \"FAKE\"}\n\0x") }
    }

    #[test]
    fn a_journal_reads_back() {
        assert_eq!(decode(b""), JournalState::Void);
        assert_eq!(decode(&[0; 70_000]), JournalState::Void);
        assert_eq!(decode(&whole(None)), JournalState::Unanswered { head: head() });
        let answered = JournalState::Answered { head: head(), reply: reply(), received_at: AT };
        assert_eq!(decode(&whole(Some(&reply()))), answered);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let long = JournalHead { profile: "x".repeat(REPLY_AT), ..head() };
        assert!(long.encode().is_none());
        let large = RenewReply { status: 200, body: Secret::new("x".repeat(MAX_JOURNAL)) };
        assert!(head().encode_reply(&large, AT).is_none());
        let body = Secret::new("x".repeat(50 << 10));
        assert!(head().encode_reply(&RenewReply { status: 200, body }, AT).is_some());
    }

    #[test]
    fn recovery_follows_the_decision() {
        let answered = JournalState::Answered { head: head(), reply: reply(), received_at: AT };
        let unanswered = JournalState::Unanswered { head: head() };
        let (same, other) = (generation("A"), generation("B"));
        let adopt = Recovery::Adopt { reply: reply(), received_at: AT };
        let foreign = Recovery::Foreign { method: "acme-login".into() };
        for (state, current, method, wanted) in [
            (&JournalState::None, &same, "acme-login", Recovery::Nothing),
            (&JournalState::Void, &same, "acme-login", Recovery::Discard),
            (&unanswered, &same, "acme-login", Recovery::Retry),
            (&unanswered, &other, "acme-login", Recovery::Discard),
            (&answered, &same, "acme-login", adopt),
            (&answered, &same, "another", foreign),
            (&answered, &other, "acme-login", Recovery::Discard),
        ] {
            assert_eq!(recovery(state, current, method), wanted, "{state:?}");
        }
    }

    proptest! {
        /// Whatever is damaged in the answer, it is never taken for another one.
        #[test]
        fn a_damaged_answer_is_none(at in REPLY_AT..REPLY_AT + 160, bit in 0_u8..8) {
            let good = whole(Some(&reply()));
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            match decode(&bytes) {
                JournalState::Answered { reply: read, .. } => prop_assert_eq!(read, reply()),
                state => prop_assert_eq!(state, JournalState::Unanswered { head: head() }),
            }
        }

        /// A cut at any byte leaves a journal that is understood.
        #[test]
        fn a_cut_journal_is_void_or_unanswered(cut in 0_usize..REPLY_AT + 100) {
            let state = decode(&whole(Some(&reply()))[..cut]);
            let head_there = cut >= head().encode().unwrap().len();
            prop_assert_eq!(state == JournalState::Void, !head_there);
        }

        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..8_000)) {
            decode(&bytes);
        }
    }
}
