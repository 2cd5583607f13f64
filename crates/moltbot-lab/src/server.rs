//! The running server: listener, connections, and the handle that tests hold.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};

use crate::log::{LogEntry, lock};
use crate::oauth::{self, Login};
use crate::plan::{Plan, PlanError, parse_plan};
use crate::routes;
use crate::socket::{Control, Socket};
use crate::state::{LabOptions, State};

/// A running lab. Dropping it closes the port and ends every connection.
pub struct Lab {
    addr: SocketAddr,
    state: Arc<State>,
    _stop: Stop,
}

enum Stop {
    Task(AbortHandle),
    Thread(Option<oneshot::Sender<Infallible>>, Option<JoinHandle<()>>),
}

impl Drop for Stop {
    fn drop(&mut self) {
        match self {
            Stop::Task(task) => task.abort(),
            Stop::Thread(stop, thread) => {
                drop(stop.take());
                if let Some(thread) = thread.take() {
                    // A panic there was printed there; there is nobody to tell twice.
                    let _ = thread.join();
                }
            }
        }
    }
}

impl Lab {
    /// Starts a lab on 127.0.0.1 and the current tokio runtime.
    ///
    /// # Errors
    /// Returns the error of the system when the port cannot be taken.
    pub async fn start(options: LabOptions) -> io::Result<Lab> {
        let listener = listen(options.port)?;
        let addr = listener.local_addr()?;
        let state = Arc::new(State::new(options));
        let task = tokio::spawn(accept(listener, state.clone()));
        Ok(Lab { addr, state, _stop: Stop::Task(task.abort_handle()) })
    }

    /// Starts a lab on a thread and a runtime of its own, for callers without one.
    ///
    /// # Errors
    /// Returns the error of the system when port, thread or runtime cannot be had.
    pub fn start_on_thread(options: LabOptions) -> io::Result<Lab> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            listen(options.port)?
        };
        let addr = listener.local_addr()?;
        let state = Arc::new(State::new(options));
        let (stop, stopped) = oneshot::channel::<Infallible>();
        let served = state.clone();
        let thread = std::thread::Builder::new().name("lab".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, served) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Lab { addr, state, _stop: Stop::Thread(Some(stop), Some(thread)) })
    }

    /// Returns the address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the base URL, `http://127.0.0.1:PORT`, without a final slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Returns what it received so far, oldest first.
    pub fn log(&self) -> Vec<LogEntry> {
        self.state.log.entries()
    }

    /// Forgets what it received so far.
    pub fn clear_log(&self) {
        self.state.log.clear();
    }

    /// Replaces the plan; the counts of its rules start anew.
    pub fn set_plan(&self, plan: Plan) {
        self.state.set_plan(plan);
    }

    /// Makes an OAuth login whose tokens end in `-label` across all rotations and whose first
    /// access token lives for `valid_for` (whole seconds; zero is one that has expired).
    pub fn issue_login(&self, label: &str, valid_for: Duration) -> Login {
        self.state.issue(&oauth::spec(label, valid_for))
    }

    /// Revokes the logins with this label; returns how many there were.
    pub fn revoke_login(&self, label: &str) -> usize {
        lock(&self.state.logins).revoke(label)
    }

    /// Moves the lab's clock forward: caches, tokens and rate-limit windows age, nothing waits.
    pub fn advance(&self, by: Duration) {
        self.state.clock.advance(by);
    }

    /// Returns to the state after the start: its plan, no log, no logins, no cached prefix.
    pub fn reset(&self) {
        self.state.reset();
    }
}

impl std::fmt::Debug for Lab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lab").field("addr", &self.addr).finish_non_exhaustive()
    }
}

/// What `moltbot lab` was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// The port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// A file with a plan.
    pub plan: Option<PathBuf>,
}

/// Why the lab could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The plan's file could not be read.
    #[error("cannot read the plan {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The plan's text is no plan.
    #[error("{0}")]
    Plan(#[from] PlanError),
    /// The port could not be taken.
    #[error("cannot listen on 127.0.0.1:{port}: {error}")]
    Listen {
        /// The port asked for.
        port: u16,
        /// What the system says.
        error: io::Error,
    },
}

/// Runs a lab until `stop` is done. Prints nothing: `ready` is called once with the address.
///
/// # Errors
/// Returns what kept it from starting; `ready` was not called then.
pub async fn run(
    options: RunOptions,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let RunOptions { port, plan } = options;
    let plan = match plan {
        None => Plan::default(),
        Some(path) => match std::fs::read_to_string(&path) {
            Ok(text) => parse_plan(&text, &path.to_string_lossy())?,
            Err(error) => return Err(RunError::Read { path, error }),
        },
    };
    let options = LabOptions { port, plan, ..LabOptions::default() };
    let lab = Lab::start(options).await.map_err(|error| RunError::Listen { port, error })?;
    ready(lab.addr());
    stop.await;
    Ok(())
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    socket.listen(1024)
}

// Connections live in the set: dropping this future ends them.
async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, state.clone()));
                }
                // Out of file descriptors, most likely: let some connections end.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, state: Arc<State>) {
    // Without it a reply may wait for the client's delayed acknowledgement; it still arrives.
    let _ = stream.set_nodelay(true);
    let control = Arc::new(Control::default());
    let socket = Socket::new(stream, control.clone());
    let service = service_fn(move |request| routes::serve(state.clone(), control.clone(), request));
    // An error is the client gone or a planned end: the log has both.
    let _ = http1::Builder::new().serve_connection(socket, service).await;
}
