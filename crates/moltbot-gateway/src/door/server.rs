//! Listeners, threads and connections, and the background work: stores read and written.

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use moltbot_profiles::StoreError;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle as Task;

use super::agent::Agent;
use super::alarm::{Alarm, HeadTimer};
use super::child::Programs;
use super::log::Journal;
use super::serve::{Door, Here};
use super::settings::{Settings, Tuning};
use super::shared::{Shared, State};
use crate::engine::Engine;
use crate::record_log::RecordLog;

/// The most bytes that are buffered of one connection. Of header lines 100 are taken, which is what
/// hyper allows by itself: naming the number would cost a buffer that is written twice.
const READ_BUFFER: usize = 128 << 10;

/// How often stores are written, and every how many of these rounds they are read again.
const ROUND_MS: u64 = 1_000;
const ROUNDS_PER_READ: u32 = 5;

/// Every how many rounds logins that end soon are renewed; the first time at once.
const ROUNDS_PER_RENEWAL: u32 = 30;

/// How long the end waits for a renewal under way: a little longer than a token endpoint may take.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(35);

/// How long a connection without any request yet is heard while the gateway stops.
const NEWCOMER: Duration = Duration::from_secs(5);

/// How long the end waits for the last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(3);

/// Why a gateway did not start.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// A store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gives no thread, event loop or socket.
    #[error("The gateway cannot start: {0}")]
    System(#[from] io::Error),
}

/// A running gateway. Dropping it ends every connection; [`drain`](Self::drain) first lets
/// requests end.
pub struct Gateway {
    shared: Arc<Shared>,
    open: Arc<AtomicUsize>,
    stop: watch::Sender<Stop>,
    threads: Vec<JoinHandle<()>>,
    /// Ends after the others, which leave it what is to be written.
    scribe: Option<JoinHandle<()>>,
    addresses: Vec<SocketAddr>,
}

/// How far stopping has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    Running,
    Draining,
    Now,
}

impl Gateway {
    /// Reads the agents' stores and starts to serve on the listeners given. `log` takes one line
    /// per request; `None` writes none.
    ///
    /// # Errors
    /// A store that cannot be read, or what the system refuses; nothing was served then.
    pub fn start(
        listeners: Vec<TcpListener>,
        settings: Settings,
        agents: Vec<Engine>,
        tuning: Tuning,
        log: Option<Box<dyn Write + Send>>,
    ) -> Result<Self, GatewayError> {
        let keeper = runtime()?;
        let hurry = Arc::new(Notify::new());
        let agents = keeper.block_on(open(agents, &hurry, None))?;
        let clock = match agents.first() {
            Some(agent) => agent.engine.host.clock.clone(),
            None => Arc::new(crate::clock::SystemClock),
        };
        let journal = Arc::new(Journal::new(log.is_some()));
        let state = State::new(settings, agents, None);
        let programs = runtime()?;
        let kept = Programs::new(programs.handle().clone());
        let shared = Arc::new(Shared::new(state, clock, journal, tuning, kept, hurry));
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
        let (stop, stopped) = watch::channel(Stop::Running);
        let open = Arc::new(AtomicUsize::new(0));
        let mut gateway = Self { shared, open, stop, threads: Vec::new(), scribe: None, addresses };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = if tuning.workers == 0 { cores.div_ceil(2) } else { tuning.workers };
        let (doors, receivers): (Vec<_>, Vec<_>) =
            (0..count).map(|_| mpsc::unbounded_channel()).unzip();
        let mut listeners = Some(listeners);
        for (number, receiver) in receivers.into_iter().enumerate() {
            let mut seed = [0; 8];
            getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
            let worker = Worker {
                door: Arc::new(Door::new(gateway.shared.clone(), u64::from_le_bytes(seed))),
                open: gateway.open.clone(),
                stopped: stopped.clone(),
            };
            // The first one also accepts, for all.
            let accept = listeners.take().map(|listeners| (listeners, doors.clone()));
            let runtime = runtime()?;
            let accept = match accept {
                Some((listeners, doors)) => {
                    let _inside = runtime.enter();
                    let listeners = listeners.into_iter().map(listen).collect::<io::Result<_>>()?;
                    Some((listeners, doors))
                }
                None => None,
            };
            gateway.spawn(&format!("door-{number}"), move || {
                runtime.block_on(worker.run(receiver, accept));
            })?;
        }
        drop(doors);
        let mut until = stopped.clone();
        // Ending its event loop ends the programs.
        gateway.spawn("programs", move || programs.block_on(reached(&mut until, Stop::Now)))?;
        let shared = gateway.shared.clone();
        gateway.spawn("keeper", move || keeper.block_on(keep(shared, stopped)))?;
        let shared = gateway.shared.clone();
        let write = std::thread::Builder::new().name("scribe".into());
        gateway.scribe = Some(write.spawn(move || scribe(&shared, log))?);
        Ok(gateway)
    }

    /// Returns the addresses it listens on.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Takes over another config. Requests under way end under the old one; if a store cannot be
    /// read, everything stays as it is.
    ///
    /// # Errors
    /// Says which store cannot be read.
    pub fn replace(&self, settings: Settings, agents: Vec<Engine>) -> Result<(), GatewayError> {
        let before = self.shared.state();
        let agents = runtime()?.block_on(open(agents, &self.shared.hurry, Some(&before)))?;
        let state = State::new(settings, agents, Some(&self.shared.state()));
        self.shared.replace(state);
        Ok(())
    }

    /// Accepts nothing more, lets requests end for as long as `patience`, writes what is left to
    /// be written, and ends. Returns how many connections had to be cut.
    pub fn drain(mut self, patience: Duration) -> usize {
        self.shared.drain();
        // Nobody listening any more is what it is about.
        let _ = self.stop.send(Stop::Draining);
        let until = Instant::now() + patience;
        while self.open.load(Ordering::Acquire) > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        let cut = self.open.load(Ordering::Acquire);
        self.end();
        cut
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name.into()).spawn(run)?);
        Ok(())
    }

    fn end(&mut self) {
        let _ = self.stop.send(Stop::Now);
        for thread in self.threads.drain(..) {
            // A panic there was printed there.
            let _ = thread.join();
        }
        self.shared.journal.close();
        let Some(scribe) = self.scribe.take() else { return };
        // Whoever reads the log may have stopped reading: that must not keep the gateway alive.
        let until = Instant::now() + LAST_LINES;
        while !scribe.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.end();
    }
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn listen(listener: TcpListener) -> io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

async fn open(
    engines: Vec<Engine>,
    hurry: &Arc<Notify>,
    before: Option<&State>,
) -> Result<Vec<Agent>, StoreError> {
    let mut agents = Vec::with_capacity(engines.len());
    // One budget of retries over the traffic of all agents, and it outlives a change of config.
    let known = before.and_then(|state| state.agents.values().next());
    let known = known.map(|agent| agent.engine.budget.clone());
    let budget = known.or_else(|| engines.first().map(|engine| engine.budget.clone()));
    for mut engine in engines {
        engine.budget = budget.clone().unwrap_or_default();
        if let Some(agent) = before.and_then(|state| state.agents.get(&engine.agent().id)) {
            engine.keep_programs(&agent.engine);
        }
        agents.push(Agent::open(engine, hurry.clone()).await?);
    }
    Ok(agents)
}

type Accepted = (std::net::TcpStream, SocketAddr);

/// One thread with an event loop of its own.
struct Worker {
    door: Arc<Door>,
    open: Arc<AtomicUsize>,
    stopped: watch::Receiver<Stop>,
}

impl Worker {
    async fn run(
        mut self,
        mut accepted: mpsc::UnboundedReceiver<Accepted>,
        accept: Option<(Vec<tokio::net::TcpListener>, Vec<mpsc::UnboundedSender<Accepted>>)>,
    ) {
        if let Some((listeners, doors)) = accept {
            let next = Arc::new(AtomicUsize::new(0));
            let count = listeners.len();
            for listener in listeners {
                let (open, most) = (self.open.clone(), self.door.shared.tuning.connections);
                let (doors, next, stopped) = (doors.clone(), next.clone(), self.stopped.clone());
                // An acceptor counts as open, so that what it has just taken is never overlooked.
                let most = most.saturating_add(count);
                let own = Accepting::new(open);
                tokio::spawn(accept_all(listener, doors, next, own, most, stopped));
            }
        }
        loop {
            tokio::select! {
                Some((stream, peer)) = accepted.recv() => self.connection(stream, peer),
                () = reached(&mut self.stopped, Stop::Now) => return,
            }
        }
    }

    fn connection(&self, stream: std::net::TcpStream, peer: SocketAddr) {
        let guard = Open::new(&self.open, &self.door);
        let door = self.door.clone();
        let mut stopped = self.stopped.clone();
        tokio::spawn(async move {
            let _guard = guard;
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            let Ok(local) = stream.local_addr() else { return };
            // Without it a reply may wait for an acknowledgement; it still arrives.
            let _ = stream.set_nodelay(true);
            let tuning = door.shared.tuning;
            let alarm = Arc::new(Alarm::new());
            let here = Arc::new(Here::new(local, peer, alarm.clone()));
            let asked = Arc::new(AtomicBool::new(false));
            let begun = asked.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                begun.store(true, Ordering::Relaxed);
                let (door, here) = (door.clone(), here.clone());
                // Taken apart out here, where the parts are kept once.
                let (mut head, body) = request.into_parts();
                async move { Ok::<_, Infallible>(door.serve(&here, &mut head, body).await) }
            });
            let connection = http1::Builder::new()
                .timer(HeadTimer(alarm.clone()))
                .header_read_timeout(Duration::from_millis(tuning.head_ms))
                .max_buf_size(READ_BUFFER)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            // An error is the client gone, or no HTTP: it was answered, or nobody is there.
            let stop = reached(&mut stopped, Stop::Draining);
            if alarm.run(connection.as_mut(), stop).await.is_some() {
                return;
            }
            // One that was accepted a moment ago is owed an answer: its request is on the way. The
            // answer then ends the connection.
            if !asked.load(Ordering::Relaxed)
                && alarm.run(connection.as_mut(), tokio::time::sleep(NEWCOMER)).await.is_some()
            {
                return;
            }
            connection.as_mut().graceful_shutdown();
            let _ = alarm.run(connection, std::future::pending()).await;
        });
    }
}

/// Counts an acceptor among what is open for as long as it accepts.
struct Accepting(Arc<AtomicUsize>);

impl Accepting {
    fn new(open: Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::AcqRel);
        Self(open)
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Counts an open connection for as long as it lives.
struct Open {
    open: Arc<AtomicUsize>,
    door: Arc<Door>,
}

impl Open {
    fn new(open: &Arc<AtomicUsize>, door: &Arc<Door>) -> Self {
        door.shared.journal.opened();
        Self { open: open.clone(), door: door.clone() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.door.shared.journal.closed();
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn reached(stopped: &mut watch::Receiver<Stop>, how: Stop) {
    // A gateway that is gone is one that stops.
    let _ = stopped.wait_for(|stop| *stop >= how).await;
}

/// Accepts connections and hands them to the workers in turn.
async fn accept_all(
    listener: tokio::net::TcpListener,
    doors: Vec<mpsc::UnboundedSender<Accepted>>,
    next: Arc<AtomicUsize>,
    own: Accepting,
    most: usize,
    mut stopped: watch::Receiver<Stop>,
) {
    let open = &own.0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = reached(&mut stopped, Stop::Draining) => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            // Above the limit a connection is closed at once: a queue would only hide it.
            Ok(_) if open.load(Ordering::Acquire) >= most => continue,
            Ok((stream, peer)) => stream.into_std().map(|stream| (stream, peer)),
            Err(error) => Err(error),
        };
        match stream {
            Ok(stream) => {
                open.fetch_add(1, Ordering::AcqRel);
                let door = &doors[next.fetch_add(1, Ordering::Relaxed) % doors.len()];
                if door.send(stream).is_err() {
                    open.fetch_sub(1, Ordering::AcqRel);
                }
            }
            // Out of file descriptors, most likely: let some connections end.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Writes log lines and decision records, until the end.
fn scribe(shared: &Shared, mut log: Option<Box<dyn Write + Send>>) {
    let mut failing = false;
    loop {
        let more = shared.journal.wait();
        let state = shared.state();
        let mut problem = None;
        let keep = |name: &str, lines: &[u8]| {
            let Some(agent) = state.agents.get(name) else { return };
            let records = RecordLog::new(agent.engine.agent().logs());
            if let Err(error) = records.append_lines(lines) {
                problem = Some(format!("{}: {error}", records.path().display()));
            }
        };
        shared.journal.flush(log.as_mut(), keep);
        if let Some(problem) = problem.as_ref().filter(|_| !failing) {
            shared.journal.say(&format!("warning: requests cannot be recorded: {problem}"));
        }
        failing = problem.is_some();
        if !more {
            return;
        }
    }
}

/// Writes and reads the stores, and renews logins early, until the end.
async fn keep(shared: Arc<Shared>, mut stopped: watch::Receiver<Stop>) {
    let mut round = 0;
    let mut failing = false;
    let mut gone: Vec<String> = Vec::new();
    let mut renewing: Option<Task<()>> = None;
    loop {
        let last = tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(ROUND_MS)) => false,
            () = shared.hurry.notified() => false,
            () = reached(&mut stopped, Stop::Now) => true,
        };
        // Nobody waits for an early renewal, and only one is under way.
        let idle = renewing.as_ref().is_none_or(Task::is_finished);
        if round % ROUNDS_PER_RENEWAL == 0 && idle && !last {
            renewing = Some(tokio::spawn(renew_early(shared.clone())));
        }
        round += 1;
        let state = shared.state();
        let (mut problem, mut missing) = (None, Vec::new());
        for agent in state.agents.values() {
            if let Some(text) = agent.vanished() {
                missing.push(text);
            }
            let written = agent.write().await;
            let read = match round % ROUNDS_PER_READ {
                0 if !last => agent.refresh().await,
                _ => Ok(()),
            };
            problem = problem.or(written.and(read).err());
        }
        // Said once, not every second.
        match (&problem, failing) {
            (Some(error), false) => shared.journal.say(&format!("warning: {error}")),
            (None, true) => shared.journal.say("the stores can be used again"),
            _ => {}
        }
        failing = problem.is_some();
        for text in missing.iter().filter(|text| !gone.contains(*text)) {
            shared.journal.say(&format!("warning: {text}"));
        }
        gone = missing;
        if let Some(renewing) = renewing.take_if(|_| last) {
            // A request that was sent is heard out; after that its journal tells the rest.
            let _ = tokio::time::timeout(RENEWAL_PATIENCE, renewing).await;
        }
        if last {
            return;
        }
    }
}

/// Renews the logins of all agents that end soon, before a request has to wait for it.
async fn renew_early(shared: Arc<Shared>) {
    for agent in shared.state().agents.values() {
        // A store that cannot be written now is reported by who keeps it.
        let linked = agent.engine.relink().await.unwrap_or_default();
        for id in &linked {
            shared.journal.say(&format!("agent={} {id} is a link now, no copy", agent.name));
        }
        let done = agent.engine.renew_early().await;
        for (id, result) in &done {
            let name = &agent.name;
            shared.journal.say(&match result {
                Ok(_) => format!("agent={name} renewed {id} before its end"),
                Err(error) => format!("warning: agent={name} {}", error.message),
            });
        }
        if !linked.is_empty() || done.iter().any(|(_, result)| result.is_ok()) {
            // What cannot be read now is read, or reported, by the next round.
            let _ = agent.reload().await;
        }
    }
}
