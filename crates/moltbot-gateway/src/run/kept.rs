//! The record of a chat that is still going on. A chat that is dropped before its end (Ctrl-C, a
//! client that went away) leaves its record with the engine, so that it can be explained too.

use std::ops::{Deref, DerefMut};
use std::time::Instant;

use moltbot_core::{RecordId, redact};

use crate::engine::Engine;
use crate::error::ChatError;
use crate::record::{Attempt, Outcome, Record};
use crate::request::ChatRequest;

/// The code of a chat that was dropped.
const CANCELLED: &str = "cancelled";

/// A record that nobody has taken over yet.
pub(super) struct Kept<'e> {
    engine: &'e Engine,
    record: Record,
    /// The request that is on its way, and when it left.
    open: Option<(Attempt, Instant)>,
    taken: bool,
}

/// Begins the record of a chat.
pub(super) fn begin(engine: &Engine, request: &ChatRequest) -> Result<Record, ChatError> {
    let started = engine.now();
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| {
        ChatError::new("internal", format!("The system gives no random numbers: {error}"))
    })?;
    Ok(Record {
        id: RecordId::new(started, u64::from_le_bytes(random)),
        at: started,
        agent: engine.agent.id.clone(),
        // A secret that was typed in the wrong place must not be kept.
        requested: request.model.as_deref().map(|model| redact(model).into_owned()),
        models: Vec::new(),
        attempts: Vec::new(),
        changed: Vec::new(),
        warnings: Vec::new(),
        outcome: None,
        usage: None,
        cost: None,
        cache: None,
        session: request.session.clone(),
    })
}

impl<'e> Kept<'e> {
    pub(super) fn new(engine: &'e Engine, record: Record) -> Self {
        Self { engine, record, open: None, taken: false }
    }

    /// Hands the record over; from now on a drop leaves nothing behind.
    pub(super) fn take(&mut self) -> Record {
        self.taken = true;
        self.record.clone()
    }

    /// Notes that a request leaves now.
    pub(super) fn leaves(&mut self, attempt: Attempt) {
        self.open = Some((attempt, Instant::now()));
    }

    /// Notes that it has ended.
    pub(super) fn arrived(&mut self) {
        self.open = None;
    }
}

impl Deref for Kept<'_> {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.record
    }
}

impl DerefMut for Kept<'_> {
    fn deref_mut(&mut self) -> &mut Record {
        &mut self.record
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        if let Some((attempt, began)) = self.open.take() {
            let latency_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.record.attempts.push(Attempt {
                class: Some(CANCELLED.into()),
                latency_ms,
                ..attempt
            });
        }
        self.record.outcome = Some(Outcome::Failed { code: CANCELLED.into() });
        self.engine.set_dropped(self.record.clone());
    }
}
