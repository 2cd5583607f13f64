//! A streamed Messages reply as a stream of another dialect, written while it comes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use moltbot_core::{Decoder, Event};

use crate::door::body::BodyError;
use crate::door::relay::Relay;

/// Writes what happens in a reply as lines of a dialect. Pure.
pub(super) trait Lines: Send {
    /// Writes an event; `true` if nothing may follow.
    fn event(&mut self, event: Event, out: &mut String) -> bool;

    /// Writes that the reply failed, with the service's word for it.
    fn failed(&mut self, kind: &str, message: &str, out: &mut String);
}

/// The body of a streamed reply.
pub(crate) struct Stream {
    relay: Box<Relay>,
    decoder: Box<dyn Decoder>,
    lines: Box<dyn Lines>,
    events: Vec<Event>,
    /// Whether the dialect has had its last line.
    done: bool,
    /// Whether the reply has come to its end.
    over: bool,
}

impl Stream {
    pub(super) fn new(relay: Box<Relay>, decoder: Box<dyn Decoder>, lines: Box<dyn Lines>) -> Self {
        Self { relay, decoder, lines, events: Vec::new(), done: false, over: false }
    }

    fn write(&mut self, out: &mut String) {
        for event in self.events.drain(..) {
            if !self.done {
                self.done = self.lines.event(event, out);
            }
        }
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        while !this.over {
            let mut lines = String::new();
            match ready!(this.relay.poll_next(cx)) {
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    this.decoder.push(&data, &mut this.events);
                }
                Some(Err(error)) => {
                    this.over = true;
                    if !std::mem::replace(&mut this.done, true) {
                        this.lines.failed("api_error", &error.to_string(), &mut lines);
                    }
                }
                None => {
                    this.over = true;
                    this.decoder.end(&mut this.events);
                }
            }
            this.write(&mut lines);
            if !lines.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(lines.into()))));
            }
        }
        Poll::Ready(None)
    }
}
