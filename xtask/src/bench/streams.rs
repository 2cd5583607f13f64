//! Many streams at once: a paced service, a client that counts every byte, and the memory between.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::servers::{Server, TOKEN};

/// Events of one stream, and how far apart they are sent.
const EVENTS: usize = 200;
const PACE: Duration = Duration::from_millis(25);

/// How long all streams may take, and how long idle ones are looked at.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_secs(3);

/// How streams of the paced service behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// All events, then the end.
    Whole,
    /// The first event, then silence.
    Idle,
}

/// A service in this process.
pub(crate) struct Paced {
    pub(crate) addr: SocketAddr,
    /// Connections on which a client's end was seen, in microseconds since `epoch`.
    gone: Arc<AtomicU64>,
    open: Arc<AtomicUsize>,
    epoch: Instant,
    // Dropping it ends the thread.
    _stop: oneshot::Sender<()>,
}

/// What the thousand streams came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    pub(crate) equal: usize,
    pub(crate) lost: usize,
    pub(crate) kib_per_stream: f64,
    pub(crate) seconds: f64,
}

impl Paced {
    /// Starts the service on a thread of its own. `idle` streams never go on.
    pub(crate) fn start(idle: bool) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let addr = listener.local_addr()?;
        // As many as come at once: a refused one would be counted against the gateway.
        rustix::net::listen(&listener, 16_384)?;
        let (stop, stopped) = oneshot::channel();
        let (gone, open) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
        let epoch = Instant::now();
        let mode = if idle { Mode::Idle } else { Mode::Whole };
        let paced = Self { addr, gone: gone.clone(), open: open.clone(), epoch, _stop: stop };
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let accept = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        let (gone, open) = (gone.clone(), open.clone());
                        tokio::spawn(async move {
                            open.fetch_add(1, Ordering::AcqRel);
                            // An error is the gateway gone, which the client counts.
                            let _ = serve(stream, mode).await;
                            let at = u64::try_from(epoch.elapsed().as_micros()).unwrap_or(0);
                            gone.store(at, Ordering::Release);
                            open.fetch_sub(1, Ordering::AcqRel);
                        });
                    }
                };
                tokio::select! {
                    () = accept => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(paced)
    }
}

/// Answers requests on one connection until it ends.
async fn serve(mut stream: TcpStream, mode: Mode) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = Vec::new();
    while read_request(&mut stream, &mut bytes).await? {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        ).await?;
        for number in 0..EVENTS {
            let event = event(number);
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            stream.write_all(chunk.as_bytes()).await?;
            if mode == Mode::Idle {
                // Silence until the other side leaves.
                let mut rest = [0; 1];
                let _left = stream.read(&mut rest).await?;
                return Ok(());
            }
            tokio::time::sleep(PACE).await;
        }
        stream.write_all(b"0\r\n\r\n").await?;
    }
    Ok(())
}

/// Reads one request; `false` at the end of the connection.
async fn read_request(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> std::io::Result<bool> {
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length = length.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            let whole = end + 4 + length;
            if bytes.len() >= whole {
                bytes.drain(..whole);
                return Ok(true);
            }
        }
        if stream.read_buf(bytes).await? == 0 {
            return Ok(false);
        }
    }
}

fn event(number: usize) -> String {
    match number {
        0 => "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\
              \"type\":\"message\",\"role\":\"assistant\",\"content\":[],\"usage\":{\"input_tokens\":9,\
              \"output_tokens\":1}}}\n\n"
            .into(),
        _ if number + 1 == EVENTS => "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n".into(),
        _ => format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\
             \"delta\":{{\"type\":\"text_delta\",\"text\":\"piece {number} of a reply \"}}}}\n\n"
        ),
    }
}

/// Runs streams to their end, all at once, and compares every byte.
pub(crate) fn whole(gateway: &Server, count: usize) -> Result<Streams> {
    let wanted: [u8; 32] = (0..EVENTS)
        .fold(Sha256::new(), |hash, number| hash.chain_update(event(number)))
        .finalize()
        .into();
    let before = gateway.memory("VmRSS")?;
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let addr = gateway.addr;
    let (sums, highest) = runtime.block_on(async {
        let running: Vec<_> = (0..count).map(|_| tokio::spawn(read_stream(addr))).collect();
        let mut highest = before;
        while running.iter().any(|one| !one.is_finished()) && started.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(100)).await;
            highest = gateway.memory("VmRSS").unwrap_or(highest).max(highest);
        }
        let mut sums = Vec::with_capacity(count);
        for one in running {
            if one.is_finished() {
                sums.push(one.await.ok().and_then(Result::ok));
            } else {
                one.abort();
                sums.push(None);
            }
        }
        (sums, highest)
    });
    let equal = sums.iter().flatten().filter(|sum| **sum == wanted).count();
    Ok(Streams {
        equal,
        lost: sums.iter().filter(|sum| sum.is_none()).count(),
        kib_per_stream: (highest - before) * 1024.0 / count as f64,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Holds idle streams open and returns what the gateway takes for all of them, in MiB.
pub(crate) fn idle(gateway: &Server, service: &Paced, count: usize) -> Result<(usize, f64)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let addr = gateway.addr;
    let held = runtime.block_on(async {
        let mut held = Vec::with_capacity(count);
        for _ in 0..count {
            match tokio::time::timeout(PATIENCE, begin(addr)).await {
                Ok(Ok(stream)) => held.push(stream),
                Ok(Err(error)) => bail!("after {} streams: {error:#}", held.len()),
                Err(_) => bail!("after {} streams: no answer", held.len()),
            }
        }
        tokio::time::sleep(LOOK).await;
        Ok(held)
    })?;
    let memory = gateway.memory("VmRSS")?;
    let open = service.open.load(Ordering::Acquire);
    ensure!(open >= held.len(), "{open} of {} streams are still open", held.len());
    drop(held);
    Ok((count, memory))
}

/// Leaves in the middle of a stream; returns after how many milliseconds the service saw it.
pub(crate) fn leave(gateway: &Server, service: &Paced) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stream = begin(gateway.addr).await?;
        service.gone.store(0, Ordering::Release);
        let left = service.epoch.elapsed();
        drop(stream);
        let until = Instant::now() + PATIENCE;
        loop {
            let gone = service.gone.load(Ordering::Acquire);
            if gone != 0 {
                return Ok((Duration::from_micros(gone).saturating_sub(left)).as_secs_f64() * 1e3);
            }
            ensure!(Instant::now() < until, "the service never saw the client leave");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    })
}

/// Asks for a stream and reads until its first event is there.
async fn begin(addr: SocketAddr) -> Result<TcpStream> {
    let mut stream = ask(addr).await?;
    let mut bytes = Vec::new();
    while !bytes.windows(14).any(|window| window == b"message_start\"") {
        let read = stream.read_buf(&mut bytes).await?;
        ensure!(read > 0, "the stream ended early: {}", String::from_utf8_lossy(&bytes));
    }
    Ok(stream)
}

async fn ask(addr: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let body = "{\"model\":\"claude-opus-4-5\",\"max_tokens\":64,\"stream\":true,\"messages\":[]}";
    let request = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: {addr}\r\nx-api-key: {TOKEN}\r\nanthropic-version: \
         2023-06-01\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

/// Reads one stream to its end and returns the hash of its body.
async fn read_stream(addr: SocketAddr) -> Result<[u8; 32]> {
    let mut stream = ask(addr).await?;
    let mut bytes = Vec::with_capacity(4_096);
    let mut hash = Sha256::new();
    let mut in_body = false;
    loop {
        ensure!(stream.read_buf(&mut bytes).await? > 0, "the stream ended early");
        if !in_body {
            let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            ensure!(bytes.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&bytes));
            bytes.drain(..end + 4);
            in_body = true;
        }
        // Whole chunks only; what is left waits for more.
        while let Some(line) = bytes.windows(2).position(|two| two == b"\r\n") {
            let size = std::str::from_utf8(&bytes[..line]).context("a chunk size")?;
            let size = usize::from_str_radix(size.trim(), 16).context("a chunk size")?;
            if size == 0 {
                return Ok(hash.finalize().into());
            }
            let whole = line + 2 + size + 2;
            if bytes.len() < whole {
                break;
            }
            hash.update(&bytes[line + 2..line + 2 + size]);
            bytes.drain(..whole);
        }
    }
}
