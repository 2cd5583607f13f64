//! Connections to the services: plain ones to this machine straight over hyper and kept per
//! worker, all others (TLS, proxies, HTTP/2) through the client that chats use too.

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::http::response::Parts;
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use moltbot_core::{Ended, NetworkFault};
use reqwest::Url;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::alarm::Alarm;
use super::body::{BodyError, OutBody, Upload};
use super::ready::Ready;
use crate::http::{Http, Limits, explain, is_loopback, origin};
use crate::send::{SendError, check_origin};

/// Idle connections kept per service and worker.
const MOST_IDLE: usize = 512;

/// Addresses remembered per worker.
const MOST_TARGETS: usize = 256;

/// Where a request goes, looked up once per address.
pub(crate) struct Target {
    url: Url,
    /// Path and query.
    uri: Uri,
    host: HeaderValue,
    /// For a plain connection to this machine.
    near: Option<Arc<Kept>>,
    origin: String,
}

impl Target {
    /// Returns the header that names it, which a plain connection needs; others write their own.
    pub(crate) fn host(&self) -> Option<HeaderValue> {
        self.near.as_ref().map(|_| self.host.clone())
    }
}

/// The idle connections to one address of this machine.
struct Kept {
    /// `host:port`
    address: String,
    idle: Mutex<Vec<SendRequest<OutBody>>>,
}

/// One worker's connections.
#[derive(Default)]
pub(crate) struct Pool {
    pub(crate) ready: Ready,
    kept: Mutex<HashMap<String, Arc<Kept>>>,
    targets: Mutex<HashMap<String, Arc<Target>>>,
}

/// A request, ready to be sent.
pub(crate) struct Outgoing {
    target: Arc<Target>,
    request: Request<OutBody>,
}

impl Outgoing {
    pub(crate) fn new(
        method: Method,
        target: Arc<Target>,
        headers: HeaderMap,
        body: OutBody,
    ) -> Self {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = target.uri.clone();
        *request.headers_mut() = headers;
        Self { target, request }
    }
}

/// Why nothing came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) fault: NetworkFault,
    pub(crate) message: String,
}

impl Lost {
    fn new(fault: NetworkFault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into() }
    }

    pub(crate) fn ended(&self) -> Ended {
        Ended::Network { what: self.fault, message: self.message.clone() }
    }
}

impl Pool {
    /// Checks an address against the origins a credential may be sent to; remembered.
    pub(crate) fn target(&self, url: &str, origins: &[String]) -> Result<Arc<Target>, SendError> {
        let known = super::locked(&self.targets).get(url).cloned();
        if let Some(target) = known.filter(|target| origins.contains(&target.origin)) {
            return Ok(target);
        }
        let checked = check_origin(url, origins)?;
        let odd = || SendError::Plugin("the address of the service is not usable".into());
        let host = checked.host_str().ok_or_else(odd)?;
        let host = match checked.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        let near = checked.scheme() == "http" && is_loopback(&checked);
        let port = checked.port_or_known_default().unwrap_or(80);
        let near = near.then(|| {
            let bare = checked.host_str().unwrap_or_default();
            self.kept(format!("{bare}:{port}"))
        });
        let path = match checked.query() {
            Some(query) => format!("{}?{query}", checked.path()),
            None => checked.path().to_string(),
        };
        let target = Arc::new(Target {
            uri: path.parse().map_err(|_| odd())?,
            host: HeaderValue::from_str(&host).map_err(|_| odd())?,
            near,
            origin: origin(&checked),
            url: checked,
        });
        let mut targets = super::locked(&self.targets);
        if targets.len() >= MOST_TARGETS {
            targets.clear();
        }
        targets.insert(url.to_string(), target.clone());
        Ok(target)
    }

    /// Sends a request and waits for the head of the reply.
    #[expect(clippy::manual_async_fn, reason = "it would keep its arguments twice while it waits")]
    pub(crate) fn send<'a>(
        &'a self,
        http: &'a Http,
        alarm: &'a Alarm,
        out: Outgoing,
        limits: Limits,
    ) -> impl Future<Output = Result<(Parts, Source), Lost>> + 'a {
        async move {
            let Some(near) = out.target.near.clone() else {
                return Box::pin(far(http, alarm, out, limits)).await;
            };
            let Some(mut sender) = near.take().await else {
                return Box::pin(near.send_anew(alarm, out.request, limits)).await;
            };
            let wait = Duration::from_millis(limits.first_byte_ms);
            let upload = out.request.body().upload();
            let reply = pin!(sender.try_send_request(out.request));
            let again = match patient(alarm, wait, upload.as_deref(), reply).await {
                Some(Ok(response)) => return Ok(near.replied(sender, response)),
                // The service had closed the kept connection; nothing of the request was sent.
                Some(Err(mut failed)) => match failed.take_message() {
                    Some(request) => near.send_anew(alarm, request, limits),
                    None => return Err(broken(&failed.into_error())),
                },
                None => return Err(no_reply(limits.first_byte_ms)),
            };
            Box::pin(again).await
        }
    }

    fn kept(&self, address: String) -> Arc<Kept> {
        let mut all = super::locked(&self.kept);
        if let Some(kept) = all.get(&address) {
            return kept.clone();
        }
        let kept = Arc::new(Kept { address: address.clone(), idle: Mutex::default() });
        all.insert(address, kept.clone());
        kept
    }
}

impl Kept {
    /// Takes a connection that can be used at once. One that was given back a moment ago may need
    /// its turn first; one that stays busy, because the service answered before it had read the
    /// whole request, is nobody's to wait for.
    async fn take(&self) -> Option<SendRequest<OutBody>> {
        for second in [false, true] {
            {
                let mut idle = super::locked(&self.idle);
                if idle.is_empty() {
                    return None;
                }
                if second {
                    idle.retain(|sender| !sender.is_closed());
                }
                // The one used last is the warmest.
                if let Some(at) = idle.iter().rposition(SendRequest::is_ready) {
                    return Some(idle.swap_remove(at));
                }
            }
            if !second {
                tokio::task::yield_now().await;
            }
        }
        None
    }

    /// Sends a request over a connection of its own.
    async fn send_anew(
        self: Arc<Self>,
        alarm: &Alarm,
        request: Request<OutBody>,
        limits: Limits,
    ) -> Result<(Parts, Source), Lost> {
        let mut sender = connect(&self.address, limits.connect_ms).await?;
        let wait = Duration::from_millis(limits.first_byte_ms);
        let upload = request.body().upload();
        let reply = pin!(sender.send_request(request));
        match patient(alarm, wait, upload.as_deref(), reply).await {
            Some(Ok(response)) => Ok(self.replied(sender, response)),
            Some(Err(error)) => Err(broken(&error)),
            None => Err(no_reply(limits.first_byte_ms)),
        }
    }

    fn replied(
        self: Arc<Self>,
        sender: SendRequest<OutBody>,
        response: Response<Incoming>,
    ) -> (Parts, Source) {
        let (parts, body) = response.into_parts();
        (parts, Source::Near(Near { body, sender: Some(sender), kept: self }))
    }

    fn give_back(&self, sender: SendRequest<OutBody>) {
        if sender.is_closed() {
            return;
        }
        let mut idle = super::locked(&self.idle);
        if idle.len() >= MOST_IDLE {
            idle.retain(|sender| !sender.is_closed());
        }
        if idle.len() < MOST_IDLE {
            idle.push(sender);
        }
    }
}

async fn connect(key: &str, connect_ms: u64) -> Result<SendRequest<OutBody>, Lost> {
    let failed = |what: String| Lost::new(NetworkFault::Connect, what);
    let wait = Duration::from_millis(connect_ms);
    let stream = match timeout(wait, TcpStream::connect(key)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(failed(format!("no connection to the service: {error}"))),
        Err(_) => {
            let text =
                format!("no connection to the service within {} s", connect_ms.div_ceil(1000));
            return Err(Lost::new(NetworkFault::Timeout, text));
        }
    };
    // Without it a short request may wait for an acknowledgement; it still arrives.
    let _ = stream.set_nodelay(true);
    let (sender, connection) = http1::Builder::new()
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(format!("no connection to the service: {error}")))?;
    // It ends with the connection; its errors are seen where the reply is awaited.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// Waits for a reply; an upload that moves on has not been waited for yet.
async fn patient<F: Future>(
    alarm: &Alarm,
    wait: Duration,
    upload: Option<&Upload>,
    mut reply: Pin<&mut F>,
) -> Option<F::Output> {
    let Some(upload) = upload else { return alarm.limit(wait, reply).await };
    let mut before = 0;
    loop {
        if let Some(reply) = alarm.limit(wait, reply.as_mut()).await {
            return Some(reply);
        }
        let moved = upload.moved.load(Ordering::Relaxed);
        if moved == before {
            return None;
        }
        before = moved;
    }
}

async fn far(
    http: &Http,
    alarm: &Alarm,
    out: Outgoing,
    limits: Limits,
) -> Result<(Parts, Source), Lost> {
    let Outgoing { target, request } = out;
    let (head, body) = request.into_parts();
    let client = http.client(&target.url).map_err(|text| Lost::new(NetworkFault::Other, text))?;
    let upload = body.upload();
    let body = match body {
        OutBody::One(piece) => piece.unwrap_or_default().into(),
        body => reqwest::Body::wrap(body),
    };
    let request =
        client.request(head.method, target.url.clone()).headers(head.headers).body(body).send();
    let request = pin!(request);
    let wait = Duration::from_millis(limits.first_byte_ms);
    let Some(sent) = patient(alarm, wait, upload.as_deref(), request).await else {
        return Err(no_reply(limits.first_byte_ms));
    };
    let response = sent.map_err(|error| {
        let fault = match () {
            () if error.is_timeout() => NetworkFault::Timeout,
            () if error.is_connect() => NetworkFault::Connect,
            () => NetworkFault::Broken,
        };
        Lost::new(fault, explain(&error))
    })?;
    let (mut parts, body) = hyper::Response::<reqwest::Body>::from(response).into_parts();
    // What framed it there says nothing about how it is framed here.
    parts.version = hyper::Version::HTTP_11;
    Ok((parts, Source::Far(Box::new(body))))
}

fn broken(error: &hyper::Error) -> Lost {
    Lost::new(NetworkFault::Broken, format!("the connection to the service broke: {error}"))
}

fn no_reply(ms: u64) -> Lost {
    let text = format!("the service did not answer within {} s", ms.div_ceil(1000));
    Lost::new(NetworkFault::Timeout, text)
}

/// The body of a reply as it comes.
pub(crate) enum Source {
    Near(Near),
    Far(Box<reqwest::Body>),
    /// Written in this process.
    Made(mpsc::UnboundedReceiver<Bytes>),
}

/// A reply on a connection that is kept once the reply has been read to its end.
pub(crate) struct Near {
    body: Incoming,
    sender: Option<SendRequest<OutBody>>,
    kept: Arc<Kept>,
}

impl Near {
    fn done(&mut self) {
        if let Some(sender) = self.sender.take() {
            self.kept.give_back(sender);
        }
    }
}

impl Source {
    /// Waits for the next piece; `None` at the end.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            let frame: Option<Result<Frame<Bytes>, BodyError>> = match self {
                Self::Near(near) => {
                    let frame = std::task::ready!(Pin::new(&mut near.body).poll_frame(cx));
                    if frame.is_none() || near.body.is_end_stream() {
                        near.done();
                    }
                    frame.map(|frame| frame.map_err(Into::into))
                }
                Self::Far(body) => {
                    let frame = std::task::ready!(Pin::new(body.as_mut()).poll_frame(cx));
                    frame.map(|frame| frame.map_err(|error| explain(&error).into()))
                }
                Self::Made(pieces) => {
                    std::task::ready!(pieces.poll_recv(cx)).map(|piece| Ok(Frame::data(piece)))
                }
            };
            return Poll::Ready(match frame {
                None => None,
                Some(Err(error)) => Some(Err(error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Some(Ok(data)),
                    // Trailers are not passed on.
                    Err(_) => continue,
                },
            });
        }
    }

    pub(crate) fn next(&mut self) -> impl Future<Output = Option<Result<Bytes, BodyError>>> {
        std::future::poll_fn(|cx| self.poll_next(cx))
    }

    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Near(near) => near.body.is_end_stream(),
            Self::Far(body) => body.is_end_stream(),
            Self::Made(pieces) => pieces.is_closed() && pieces.is_empty(),
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Near(near) => near.body.size_hint(),
            Self::Far(body) => body.size_hint(),
            Self::Made(_) => SizeHint::default(),
        }
    }
}
