//! The control of `bench gateway`: the least that hyper needs to pass requests on. No credential,
//! no limit, no error handling; what a gateway costs above this is its own doing.

use std::cell::RefCell;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use anyhow::Result;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

type Sender = SendRequest<Incoming>;
type Pool = Rc<RefCell<Vec<Sender>>>;

/// Passes everything on to `upstream`, from a free port that is printed, until killed.
pub(crate) fn serve(upstream: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("{}", listener.local_addr()?);
        std::io::stdout().flush()?;
        let pool = Pool::default();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let pool = pool.clone();
            tokio::task::spawn_local(async move {
                let service = service_fn(|request| pass(request, pool.clone(), upstream));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                // The load generator hangs up when it has enough.
                let _ = connection.await;
            });
        }
    })
}

async fn pass(
    request: Request<Incoming>,
    pool: Pool,
    upstream: SocketAddr,
) -> Result<Response<Reply>> {
    let kept = || pool.borrow_mut().pop();
    let mut sender = None;
    while let Some(mut one) = kept() {
        if one.ready().await.is_ok() {
            sender = Some(one);
            break;
        }
    }
    let mut sender = match sender {
        Some(sender) => sender,
        None => connect(upstream).await?,
    };
    let response = sender.send_request(request).await?;
    Ok(response.map(|body| Reply { body, sender: Some(sender), pool }))
}

async fn connect(upstream: SocketAddr) -> Result<Sender> {
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

/// A reply that gives its connection back at its end.
struct Reply {
    body: Incoming,
    sender: Option<Sender>,
    pool: Pool,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if (frame.is_none() || self.body.is_end_stream())
            && let Some(sender) = self.sender.take()
        {
            self.pool.borrow_mut().push(sender);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
