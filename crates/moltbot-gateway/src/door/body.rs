//! The bodies of replies, and of requests on their way on.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::openai::Stream;
use super::relay::Relay;

/// Why a reply breaks off: the connection ends with it, which is what tells the client.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a reply.
pub(crate) enum DoorBody {
    /// At hand.
    Full(Option<Bytes>),
    /// Passed on as it comes.
    Relay(Box<Relay>),
    /// Written here, out of what comes.
    Made(Box<Stream>),
}

impl DoorBody {
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self::Full(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl Body for DoorBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Relay(relay) => relay.poll_next(cx),
            Self::Made(made) => Pin::new(made.as_mut()).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Relay(relay) => relay.is_over(),
            Self::Made(made) => made.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Relay(relay) => relay.size_hint(),
            Self::Made(made) => made.size_hint(),
        }
    }
}

/// The body of a request on its way on: pieces at hand, or the client's own as it comes.
pub(crate) enum OutBody {
    /// What nearly every request has.
    One(Option<Bytes>),
    Pieces {
        left: VecDeque<Bytes>,
        bytes: u64,
    },
    Stream(Capped),
}

impl OutBody {
    pub(crate) fn pieces(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let mut pieces = pieces.into_iter().filter(|piece| !piece.is_empty());
        let (first, second) = (pieces.next(), pieces.next());
        if second.is_none() {
            return Self::One(first);
        }
        let left: VecDeque<Bytes> = first.into_iter().chain(second).chain(pieces).collect();
        let bytes = left.iter().map(|piece| piece.len() as u64).sum();
        Self::Pieces { left, bytes }
    }
}

impl OutBody {
    /// Returns the upload behind it, if it is one.
    pub(crate) fn upload(&self) -> Option<Arc<Upload>> {
        match self {
            Self::One(_) | Self::Pieces { .. } => None,
            Self::Stream(capped) => Some(capped.upload()),
        }
    }
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::One(piece) => Poll::Ready(piece.take().map(|piece| Ok(Frame::data(piece)))),
            Self::Pieces { left, bytes } => Poll::Ready(left.pop_front().map(|piece| {
                *bytes -= piece.len() as u64;
                Ok(Frame::data(piece))
            })),
            Self::Stream(capped) => Pin::new(capped).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::One(piece) => piece.is_none(),
            Self::Pieces { left, .. } => left.is_empty(),
            Self::Stream(capped) => capped.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::One(piece) => {
                SizeHint::with_exact(piece.as_ref().map_or(0, |piece| piece.len() as u64))
            }
            Self::Pieces { bytes, .. } => SizeHint::with_exact(*bytes),
            Self::Stream(capped) => capped.inner.size_hint(),
        }
    }
}

/// A client's body that breaks off when it grows too long.
pub(crate) struct Capped {
    inner: Incoming,
    left: u64,
    upload: Arc<Upload>,
}

/// How an upload goes, for those who wait for its end.
#[derive(Default)]
pub(crate) struct Upload {
    /// Bytes that were taken on.
    pub(crate) moved: AtomicU64,
    /// Whether it grew too long, hence was broken off.
    pub(crate) over: AtomicBool,
}

impl Capped {
    pub(crate) fn new(inner: Incoming, most: u64) -> Self {
        Self { inner, left: most, upload: Arc::default() }
    }

    /// Returns what can be watched while it is sent.
    pub(crate) fn upload(&self) -> Arc<Upload> {
        self.upload.clone()
    }

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = match std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        let long = frame.data_ref().map_or(0, |data| data.len() as u64);
        match this.left.checked_sub(long) {
            Some(left) => {
                this.left = left;
                this.upload.moved.fetch_add(long, Ordering::Relaxed);
            }
            None => {
                this.upload.over.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err("the upload is too long".into())));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }
}
