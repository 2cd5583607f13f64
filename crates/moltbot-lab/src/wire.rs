//! The bytes on the way out: a body that can be slow, stop, break or be cut.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::fault::{Fault, Point};
use crate::log::Record;
use crate::socket::Control;

/// The end of a request that a plan broke off.
#[derive(Debug)]
pub(crate) struct Aborted;

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the plan ended this request")
    }
}

impl std::error::Error for Aborted {}

impl From<Infallible> for Aborted {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The log record of a request on its way; notes a client that goes away.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    record: Option<Arc<Record>>,
}

impl Trace {
    pub(crate) fn new(record: Option<Arc<Record>>) -> Self {
        Self { record }
    }

    pub(crate) fn record(&self) -> Option<&Record> {
        self.record.as_deref()
    }

    /// Ends the request by the lab's own doing.
    pub(crate) fn stop(&mut self) {
        self.record = None;
    }

    fn complete(&mut self) {
        if let Some(record) = self.record.take() {
            record.set_complete();
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            record.set_disconnected();
        }
    }
}

/// What a reply's body holds before a fault changes how it is sent.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    /// A body of known length.
    Whole(Bytes),
    /// An event stream in one piece.
    Stream(Bytes),
    /// An event stream event by event, with a wait before each.
    Events(Vec<Bytes>, Duration),
}

#[derive(Debug)]
enum Step {
    Data(Bytes),
    Wait(Duration),
    /// Goes on once everything before was given to the system.
    Flush,
    Stall,
    Cut,
    Reset,
}

/// A reply's body: steps done one after the other.
pub(crate) struct LabBody {
    steps: VecDeque<Step>,
    length: Option<u64>,
    sleep: Option<Pin<Box<Sleep>>>,
    yielded: bool,
    trace: Trace,
    control: Arc<Control>,
}

impl LabBody {
    /// Builds the body of a reply as the fault wants it sent.
    pub(crate) fn new(
        payload: Payload,
        fault: Option<&Fault>,
        flush_events: bool,
        trace: Trace,
        control: Arc<Control>,
    ) -> Self {
        let length = match &payload {
            Payload::Whole(bytes) => Some(bytes.len() as u64),
            _ => None,
        };
        let mut steps = VecDeque::new();
        match payload {
            Payload::Whole(bytes) | Payload::Stream(bytes) => {
                if !bytes.is_empty() {
                    steps.push_back(Step::Data(bytes));
                }
            }
            Payload::Events(events, delay) => {
                for event in events {
                    if !delay.is_zero() {
                        steps.push_back(Step::Wait(delay));
                    }
                    steps.push_back(Step::Data(event));
                    if flush_events {
                        steps.push_back(Step::Flush);
                    }
                }
            }
        }
        if let Some(fault) = fault {
            let stops = [
                (fault.stall.and_then(bytes_of), Step::Stall),
                (fault.reset.and_then(bytes_of), Step::Reset),
                (fault.cut_at, Step::Cut),
            ];
            let first = stops.into_iter().filter_map(|(at, step)| Some((at?, step)));
            if let Some((at, step)) = first.min_by_key(|(at, _)| *at) {
                steps = stop_at(steps, at, step);
            }
            if let Some(rate) = fault.drip.and_then(|drip| drip.bytes_per_second) {
                steps = slow(steps, rate);
            }
        }
        Self { steps, length, sleep: None, yielded: false, trace, control }
    }

    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Pending once lets the connection write; while the socket is full, look again later.
        if !self.yielded {
            self.yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.control.is_blocked() {
            return self.poll_wait(Duration::from_millis(1), cx).map(|()| self.yielded = false);
        }
        self.yielded = false;
        Poll::Ready(())
    }

    fn poll_wait(&mut self, time: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let waiting = self.sleep.get_or_insert_with(|| Box::pin(sleep(time)));
        let poll = waiting.as_mut().poll(cx);
        if poll.is_ready() {
            self.sleep = None;
        }
        poll
    }
}

impl Body for LabBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let this = &mut *self;
        loop {
            match this.steps.front() {
                None => {
                    this.trace.complete();
                    return Poll::Ready(None);
                }
                Some(Step::Data(_)) => {
                    let Some(Step::Data(bytes)) = this.steps.pop_front() else { continue };
                    if let Some(record) = this.trace.record() {
                        record.add_sent(bytes.len());
                    }
                    if this.steps.is_empty() {
                        this.trace.complete();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Step::Wait(time)) => {
                    let time = *time;
                    std::task::ready!(this.poll_wait(time, cx));
                }
                Some(Step::Flush) => {
                    let blocked = this.control.is_blocked();
                    std::task::ready!(this.poll_flushed(cx));
                    if blocked && this.control.is_blocked() {
                        continue;
                    }
                }
                Some(Step::Stall) => return Poll::Pending,
                Some(Step::Cut) => {
                    this.trace.stop();
                    return Poll::Ready(Some(Err(Aborted)));
                }
                Some(Step::Reset) => {
                    this.trace.stop();
                    this.control.reset();
                    return Poll::Ready(Some(Err(Aborted)));
                }
            }
            this.steps.pop_front();
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

fn bytes_of(point: Point) -> Option<u64> {
    if let Point::Bytes(at) = point { Some(at) } else { None }
}

fn stop_at(steps: VecDeque<Step>, at: u64, stop: Step) -> VecDeque<Step> {
    let mut left = usize::try_from(at).unwrap_or(usize::MAX);
    let mut kept = VecDeque::new();
    for step in steps {
        if left == 0 {
            break;
        }
        match step {
            Step::Data(mut bytes) => {
                bytes.truncate(left);
                left -= bytes.len();
                kept.push_back(Step::Data(bytes));
            }
            other => kept.push_back(other),
        }
    }
    kept.push_back(Step::Flush);
    kept.push_back(stop);
    kept
}

fn slow(steps: VecDeque<Step>, rate: u64) -> VecDeque<Step> {
    let size = usize::try_from(rate.div_ceil(20)).unwrap_or(usize::MAX).max(1);
    let mut slowed = VecDeque::new();
    for step in steps {
        match step {
            Step::Data(mut bytes) => {
                while !bytes.is_empty() {
                    let piece = bytes.split_to(size.min(bytes.len()));
                    let wait = Duration::from_secs_f64(piece.len() as f64 / rate as f64);
                    slowed.extend([Step::Wait(wait), Step::Data(piece), Step::Flush]);
                }
            }
            other => slowed.push_back(other),
        }
    }
    slowed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(steps: &VecDeque<Step>) -> Vec<u8> {
        let mut all = Vec::new();
        for step in steps {
            if let Step::Data(bytes) = step {
                all.extend_from_slice(bytes);
            }
        }
        all
    }

    #[test]
    fn a_stop_keeps_exactly_the_bytes_before_it() {
        let steps = || VecDeque::from([Step::Data("abc".into()), Step::Data("def".into())]);
        for at in 0..=6 {
            let cut = stop_at(steps(), at, Step::Cut);
            assert_eq!(data(&cut), b"abcdef"[..at as usize]);
            assert!(matches!(cut.back(), Some(Step::Cut)));
        }
    }

    #[test]
    fn a_drip_waits_in_proportion() {
        let slowed = slow(VecDeque::from([Step::Data(vec![b'x'; 100].into())]), 200);
        let waited: Duration =
            slowed.iter().map(|s| if let Step::Wait(t) = s { *t } else { Duration::ZERO }).sum();
        assert_eq!(waited.as_millis(), 500);
        assert_eq!(data(&slowed).len(), 100);
    }
}
