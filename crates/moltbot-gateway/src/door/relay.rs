//! A reply on its way to the client: passed on piece by piece, looked at in passing, counted at
//! its end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use moltbot_core::{Decoder, Event, Usage};

use super::alarm::Alarm;
use super::body::BodyError;
use super::error::error_event;
use super::log::Ticket;
use super::upstream::Source;
use super::written::code_of;

/// What becomes of a reply that breaks off after its beginning was passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breaking {
    /// The connection ends: the client sees that something is missing.
    Abort,
    /// An error event ends the stream (decision "Failure scope").
    Event,
}

/// The rest of a reply and what was read of it already.
pub(crate) struct Relay {
    held: VecDeque<Bytes>,
    source: Option<Source>,
    watch: Option<Watch>,
    breaking: Breaking,
    idle: Duration,
    alarm: Arc<Alarm>,
    /// When the service has been silent for too long.
    until: u64,
    /// The last two bytes passed on: whether they end an event.
    tail: [u8; 2],
    ticket: Option<Ticket>,
}

/// Reads a reply in passing.
pub(crate) struct Watch {
    decoder: Box<dyn Decoder>,
    events: Vec<Event>,
    pub(crate) usage: Option<Usage>,
    /// What it cost by its author's own reckoning, in US dollars.
    cost: Option<f64>,
    pub(crate) failed: Option<String>,
}

impl Watch {
    pub(crate) fn new(decoder: Box<dyn Decoder>) -> Self {
        Self { decoder, events: Vec::new(), usage: None, cost: None, failed: None }
    }

    /// For a reply at hand, whose tokens are known, and maybe its cost in US dollars.
    pub(crate) fn counted(usage: Usage, cost: Option<f64>) -> Self {
        struct Nothing;
        impl Decoder for Nothing {
            fn push(&mut self, _: &[u8], _: &mut Vec<Event>) {}
            fn end(&mut self, _: &mut Vec<Event>) {}
        }
        Self { usage: Some(usage), cost, ..Self::new(Box::new(Nothing)) }
    }

    /// Takes the next piece and returns what it completed.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> &[Event] {
        self.events.clear();
        self.decoder.push(bytes, &mut self.events);
        self.note();
        &self.events
    }

    fn end(&mut self) {
        self.events.clear();
        self.decoder.end(&mut self.events);
        self.note();
    }

    fn note(&mut self) {
        for event in &self.events {
            match event {
                Event::Began { usage, .. } | Event::TurnEnd { usage, .. } => {
                    self.usage.get_or_insert_default().merge(usage);
                }
                Event::Cost { dollars } => self.cost = Some(*dollars),
                Event::Error { kind, .. } => self.failed = Some(kind.clone()),
                _ => {}
            }
        }
    }
}

impl Relay {
    pub(crate) fn new(
        held: VecDeque<Bytes>,
        source: Option<Source>,
        watch: Option<Watch>,
        breaking: Breaking,
        idle_ms: u64,
        alarm: Arc<Alarm>,
        ticket: Ticket,
    ) -> Self {
        let idle = Duration::from_millis(idle_ms);
        let mut relay = Self {
            held,
            source,
            watch,
            breaking,
            idle,
            until: alarm.after(idle),
            alarm,
            tail: [b'\n'; 2],
            ticket: Some(ticket),
        };
        if relay.source.as_ref().is_some_and(Source::is_over) {
            relay.source = None;
        }
        relay
    }

    pub(crate) fn is_over(&self) -> bool {
        self.held.is_empty() && self.source.is_none()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let held: u64 = self.held.iter().map(|piece| piece.len() as u64).sum();
        match self.source.as_ref().map(Source::size_hint) {
            None => SizeHint::with_exact(held),
            Some(hint) => match hint.exact() {
                Some(rest) if self.breaking == Breaking::Abort => SizeHint::with_exact(held + rest),
                _ => SizeHint::default(),
            },
        }
    }

    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(piece) = self.held.pop_front() {
            return Poll::Ready(Some(Ok(self.passed(piece))));
        }
        let Some(source) = &mut self.source else {
            self.finish(None);
            return Poll::Ready(None);
        };
        match source.poll_next(cx) {
            Poll::Ready(Some(Ok(piece))) => {
                self.until = self.alarm.after(self.idle);
                if source.is_over() {
                    self.source = None;
                }
                if let Some(watch) = &mut self.watch {
                    watch.push(&piece);
                }
                Poll::Ready(Some(Ok(self.passed(piece))))
            }
            Poll::Ready(None) => {
                self.source = None;
                self.finish(None);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(self.broke("api_error", error)),
            Poll::Pending => {
                if self.alarm.is_over(self.until) {
                    let seconds = self.idle.as_secs_f64().ceil();
                    let text = format!("the service sent nothing more for {seconds} s");
                    return Poll::Ready(self.broke("timeout_error", text.into()));
                }
                Poll::Pending
            }
        }
    }

    fn passed(&mut self, piece: Bytes) -> Frame<Bytes> {
        match piece[..] {
            [.., a, b] => self.tail = [a, b],
            [b] => self.tail = [self.tail[1], b],
            [] => {}
        }
        if let Some(ticket) = &mut self.ticket {
            ticket.note.bytes += piece.len() as u64;
        }
        if self.is_over() {
            self.finish(None);
        }
        Frame::data(piece)
    }

    fn broke(&mut self, kind: &str, error: BodyError) -> Option<Result<Frame<Bytes>, BodyError>> {
        self.source = None;
        let text = error.to_string();
        self.finish(Some((kind, &text)));
        match self.breaking {
            Breaking::Abort => Some(Err(error)),
            Breaking::Event => {
                // What the system said is for the log; that nothing came is for the client too.
                let silent = kind == "timeout_error";
                let words = if silent { &text } else { "the stream from the service broke off" };
                let event = error_event(kind, words);
                let inside = !matches!(self.tail, [b'\n', b'\n'] | [b'\r', b'\r'] | [b'\r', b'\n']);
                // What was begun of an event is ended first, so that ours is read as one.
                let before: &[u8] = if inside { b"\n\n" } else { b"" };
                Some(Ok(Frame::data([before, &event].concat().into())))
            }
        }
    }

    fn finish(&mut self, broke: Option<(&str, &str)>) {
        let Some(mut ticket) = self.ticket.take() else { return };
        if let Some(watch) = &mut self.watch {
            watch.end();
            (ticket.note.usage, ticket.note.told_cost) = (watch.usage, watch.cost);
            if let Some(kind) = watch.failed.take() {
                ticket.note.code = Some(code_of(&kind).into());
                ticket.note.trouble = Some(kind);
            }
        }
        if let Some((kind, text)) = broke {
            ticket.note.code = Some(code_of(kind).into());
            ticket.note.trouble = Some(text.to_string());
        }
        ticket.note.done = true;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // The client went away: what was counted so far stands.
        if let (Some(ticket), Some(watch)) = (&mut self.ticket, &self.watch) {
            (ticket.note.usage, ticket.note.told_cost) = (watch.usage, watch.cost);
        }
    }
}
