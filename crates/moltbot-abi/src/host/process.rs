//! The carrier for processes: lines of JSON on standard input and output.
//!
//! A program is started at its first task and again after it ended, at most three times a minute.
//! A task lives and dies with the child that began it. Each start reads and checks the file anew.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use moltbot_core::redact;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::copy::Copy;
use super::worker::{Deliver, Worker};
use super::{LoadError, Place, Prepared, PrivateCopy, read, sandbox};
use crate::dl::before_exec;
use crate::serve::COOKIE;
use crate::{Carrier, CarrierError, Packet};

/// How often a program is started within [`Place::window`].
const STARTS: usize = 3;

/// The most that one answer may hold, in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// How much of standard error is kept, in bytes.
const KEPT: usize = 4096;

/// A program that is started when it is needed.
pub struct Process {
    path: PathBuf,
    sha256: String,
    place: Place,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Session>>,
    starts: Vec<Instant>,
}

/// One run of the program, and its copy until it has read all of itself. The copy is removed by
/// whoever calls, not by the worker's thread: that one has locked itself out of it.
struct Session(Worker, Mutex<Option<Copy>>);

impl Process {
    /// Starts the program once.
    pub(super) fn spawn(file: Prepared, place: &Place) -> Result<Arc<Self>, LoadError> {
        let Prepared { path, sha256, copy, .. } = file;
        let copy = match copy {
            PrivateCopy::Disk(copy) => copy,
            PrivateCopy::Memory(bytes) => bytes.on_disk(&place.dir, &path)?,
        };
        let first = start(copy, place)?;
        let state = State { current: Some(Arc::new(first)), starts: vec![Instant::now()] };
        Ok(Arc::new(Self { path, sha256, place: place.clone(), state: Mutex::new(state) }))
    }

    /// Waits with the first start until there is a task.
    pub(super) fn idle(path: PathBuf, sha256: String, place: &Place) -> Arc<Self> {
        Arc::new(Self { path, sha256, place: place.clone(), state: Mutex::default() })
    }

    fn current(&self) -> Result<Arc<Session>, CarrierError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = match &state.current {
            Some(session) => match session.0.dead() {
                None => return Ok(session.clone()),
                Some(reason) => reason,
            },
            None => "it could not be started again".to_string(),
        };
        state.starts.retain(|at| at.elapsed() < self.place.window);
        if state.starts.len() >= STARTS {
            let reason = format!(
                "{ended}, the last of {STARTS} times within {} s",
                self.place.window.as_secs()
            );
            return Err(CarrierError::Gone { reason });
        }
        state.starts.push(Instant::now());
        state.current = None;
        let started = read(&self.path, Some(&self.sha256))
            .and_then(|file| {
                let copy = file.bytes.on_disk(&self.place.dir, &self.path)?;
                start(copy, &self.place)
            })
            .map_err(|error| CarrierError::Gone { reason: error.to_string() })?;
        let session = Arc::new(started);
        state.current = Some(session.clone());
        Ok(session)
    }
}

#[async_trait]
impl Carrier for Process {
    fn session(&self) -> Result<Option<Arc<dyn Carrier>>, CarrierError> {
        Ok(Some(self.current()?))
    }

    async fn turn(&self, message: Packet) -> Result<Packet, CarrierError> {
        self.current()?.turn(message).await
    }

    fn post(&self, message: Packet) {
        if let Ok(session) = self.current() {
            session.post(message);
        }
    }
}

#[async_trait]
impl Carrier for Session {
    async fn turn(&self, message: Packet) -> Result<Packet, CarrierError> {
        let answer = self.0.turn(message).await;
        // It has answered, or it will not.
        drop(self.1.lock().unwrap_or_else(PoisonError::into_inner).take());
        answer
    }

    fn post(&self, message: Packet) {
        self.0.post(message);
    }
}

fn start(copy: Copy, place: &Place) -> Result<Session, LoadError> {
    let place = place.clone();
    let (patience, blocking) = (place.patience, place.blocking);
    let file = copy.path.clone();
    // The thread locks itself in, so that the child is born inside.
    let prepare = move || {
        sandbox::lock_in(file.parent().unwrap_or(&file));
        let mut running = Running::new(&file, &place)?;
        Ok(Box::new(move |message: &[u8]| running.exchange(message)) as Deliver)
    };
    let worker = Worker::start("plugin", patience * 2, prepare)?.blocking(blocking);
    Ok(Session(worker, Mutex::new(Some(copy))))
}

/// A child and the pipes to it. Dropping it kills its process group.
struct Running {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: Option<ChildStderr>,
    /// What came after the last answer.
    rest: Packet,
    complaint: Vec<u8>,
    patience: Duration,
}

impl Running {
    fn new(file: &Path, place: &Place) -> Result<Self, LoadError> {
        let failed = |error: io::Error| LoadError::Start { reason: error.to_string() };
        let mut command = Command::new(file);
        command
            .env_clear()
            .envs(place.env.iter().map(|(name, value)| (name, value)))
            .env(COOKIE, "1")
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        before_exec(&mut command, sandbox::limit);
        let mut child = spawn(&mut command).map_err(failed)?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(failed(io::Error::other("it has no pipes")));
        };
        let (rest, complaint) = (Packet::default(), Vec::new());
        let patience = place.patience;
        let running = Self { child, stdin, stdout, stderr, rest, complaint, patience };
        for pipe in [running.stdin.as_fd(), running.stdout.as_fd()] {
            rustix::io::ioctl_fionbio(pipe, true).map_err(|error| failed(error.into()))?;
        }
        if let Some(stderr) = &running.stderr {
            rustix::io::ioctl_fionbio(stderr, true).map_err(|error| failed(error.into()))?;
        }
        Ok(running)
    }

    /// Writes one line and reads one. Any failure is the child's end.
    fn exchange(&mut self, message: &[u8]) -> Result<Packet, CarrierError> {
        let answer = self.try_exchange(message);
        answer.map_err(|reason| {
            self.hear();
            self.kill();
            let complaint = redact(String::from_utf8_lossy(&self.complaint).trim()).into_owned();
            let last = complaint.lines().last().unwrap_or_default().trim();
            let reason =
                if last.is_empty() { reason } else { format!("{reason}; its last words: {last}") };
            CarrierError::Gone { reason }
        })
    }

    fn try_exchange(&mut self, message: &[u8]) -> Result<Packet, String> {
        let deadline = Instant::now() + self.patience;
        let line = Packet::new([message, b"\n"].concat());
        let mut written = 0;
        let mut answer = std::mem::take(&mut self.rest);
        if !answer.is_empty() {
            return Err("it answered without being asked".to_string());
        }
        let mut searched = 0;
        loop {
            let end = answer[searched..].iter().position(|byte| *byte == b'\n');
            if let Some(end) = end.map(|end| searched + end) {
                self.rest = Packet::new(answer.split_off(end + 1));
                answer.truncate(end);
                if answer.first() != Some(&b'{') {
                    return Err("it printed something else than an answer".to_string());
                }
                return Ok(answer);
            }
            searched = answer.len();
            if answer.len() > MAX_ANSWER {
                return Err("its answer is too long".to_string());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let patience = self.patience.as_secs_f32();
                return Err(format!("it did not answer within {patience} s"));
            }
            self.wait(left, written < line.len())?;
            if written < line.len() {
                match self.stdin.write(&line[written..]) {
                    Ok(count) => written += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return Err(self.ended()),
                }
            }
            let mut chunk = Packet::new(vec![0; 16 << 10]);
            match self.stdout.read(&mut chunk) {
                Ok(0) => return Err(self.ended()),
                Ok(count) => grow(&mut answer, &chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Somebody else may hold the pipe of a child that has ended.
                    if let Ok(Some(status)) = self.child.try_wait() {
                        return Err(ended_with(status));
                    }
                }
                Err(error) => return Err(format!("its answer cannot be read: {error}")),
            }
            self.hear();
        }
    }

    /// Waits until a pipe is ready, at most a tenth of a second: the child may end without one.
    fn wait(&mut self, left: Duration, writing: bool) -> Result<(), String> {
        let slice = left.min(Duration::from_millis(100));
        let mut pipes: Vec<PollFd<'_>> = vec![of(self.stdout.as_fd(), PollFlags::IN)];
        if writing {
            pipes.push(of(self.stdin.as_fd(), PollFlags::OUT));
        }
        if let Some(stderr) = &self.stderr {
            pipes.push(of(stderr.as_fd(), PollFlags::IN));
        }
        let slice = Timespec { tv_sec: 0, tv_nsec: i64::from(slice.subsec_nanos()) };
        match poll(&mut pipes, Some(&slice)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(format!("its pipes cannot be watched: {error}")),
        }
    }

    /// Reads what it complained about and keeps the end of it.
    fn hear(&mut self) {
        let Some(stderr) = &mut self.stderr else { return };
        let mut chunk = [0; 4096];
        // As much as one look finds; a child that never stops complaining has to wait.
        for _ in 0..16 {
            match stderr.read(&mut chunk) {
                Ok(0) => {
                    self.stderr = None;
                    return;
                }
                Ok(count) => {
                    self.complaint.extend_from_slice(&chunk[..count]);
                    let excess = self.complaint.len().saturating_sub(KEPT);
                    self.complaint.drain(..excess);
                }
                Err(_) => return,
            }
        }
    }

    /// Says how it ended; it may take a moment between closing its pipes and ending.
    fn ended(&mut self) -> String {
        for _ in 0..20 {
            if let Ok(Some(status)) = self.child.try_wait() {
                return ended_with(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        "it closed its pipes".to_string()
    }

    fn kill(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(group) = pid {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn of(pipe: BorrowedFd<'_>, flags: PollFlags) -> PollFd<'_> {
    PollFd::from_borrowed_fd(pipe, flags)
}

/// Starts a program that was written a moment ago: a fork of another thread may still hold it open
/// for writing, which the system refuses to run.
fn spawn(command: &mut Command) -> io::Result<Child> {
    for _ in 0..50 {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
    command.spawn()
}

/// Appends without leaving a copy of a secret behind.
fn grow(answer: &mut Packet, bytes: &[u8]) {
    if answer.capacity() - answer.len() < bytes.len() {
        let mut grown = Vec::with_capacity((answer.len() + bytes.len()) * 2);
        grown.extend_from_slice(answer);
        *answer = Packet::new(grown);
    }
    answer.extend_from_slice(bytes);
}

fn ended_with(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with exit code {code}"),
        (_, Some(signal)) => format!("it was ended by signal {signal}"),
        _ => "it ended".to_string(),
    }
}
