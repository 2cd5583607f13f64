//! One running program: its pipes, its decoder, and how it ends.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moltbot_core::{Decoder, Ended, Event, NetworkFault, Secret, redact};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::history::Seen;
use super::memory;
use super::sessions::Session;
use super::watch::Watch;
use crate::attempt::Step;
use crate::http::Limits;

/// How much of what a program complains about is kept: the end of it.
const TAIL: usize = 8 << 10;

/// How long a program may take to stop after it was told to.
const CANCEL: Duration = Duration::from_secs(2);

/// How long a program that closed its output may take to end.
const EXIT: Duration = Duration::from_secs(2);

/// How often it is looked whether the program still is while it says nothing.
const LOOK: Duration = Duration::from_millis(250);

/// Everything a program is started with.
pub(crate) struct Start {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, Secret)>,
    pub(crate) directory: PathBuf,
    pub(crate) decoder: Box<dyn Decoder>,
    pub(crate) watch: Arc<Watch>,
    /// The program's own session that it is in, if it keeps one.
    pub(crate) session: Option<Session>,
}

/// A program that waits for its next turn. Dropping it kills it and everything it started.
pub(crate) struct Process {
    child: Child,
    /// Closed while it is asked to end.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    decoder: Box<dyn Decoder>,
    tail: Arc<Mutex<Vec<u8>>>,
    complaints: JoinHandle<()>,
    group: u32,
    watch: Arc<Watch>,
    session: Option<Session>,
}

impl Process {
    /// Starts a program in a process group of its own.
    pub(crate) fn start(start: Start) -> std::io::Result<Self> {
        let Start { program, args, env, directory, decoder, watch, session } = start;
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .envs(env.iter().map(|(name, value)| (name, value.expose())))
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        moltbot_sys::restore_files(command.as_std_mut());
        let mut child = command.spawn()?;
        let missing = || std::io::Error::other("a pipe is missing");
        let group = child.id().ok_or_else(missing)?;
        watch.add(group);
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let tail = Arc::new(Mutex::new(Vec::new()));
        let complaints = tokio::spawn(listen(stderr, tail.clone()));
        let stdin = Some(stdin);
        Ok(Self { child, stdin, stdout, decoder, tail, complaints, group, watch, session })
    }

    /// Begins a turn.
    pub(crate) fn begin(self, cancel_input: Option<String>) -> Running {
        Running { process: Some(self), cancel_input }
    }

    /// Waits until the program says something or ends; between turns it should do neither.
    pub(crate) async fn stirs(&mut self) {
        let _ = self.stdout.read_u8().await;
    }

    /// Returns how much of the machine's memory it takes, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        memory::of(self.group).unwrap_or(0)
    }

    /// Lets the program end by itself, so that it writes what it has to write, and then remembers
    /// its session at `seen`. One that does not end in time is killed, and its session forgotten.
    pub(crate) async fn retire(mut self, seen: &Seen) {
        let Some(session) = self.session.take() else { return };
        drop(self.stdin.take());
        let ended = timeout(EXIT, self.child.wait()).await;
        if ended.is_ok_and(|ended| ended.is_ok_and(|status| status.success())) {
            session.sessions.put(seen, &session.id);
        }
    }

    /// Writes `input` and hands on what the program says, until a step ends the turn.
    async fn turn(
        &mut self,
        input: String,
        limits: &(dyn Fn() -> Limits + Send + Sync),
        take: &mut (dyn FnMut(&mut Vec<Event>) -> Step + Send),
    ) -> Result<(), Ended> {
        let mut pending = input.into_bytes();
        let mut written = 0;
        let mut piece = vec![0; 64 << 10];
        let mut events = Vec::new();
        let mut silent = true;
        let mut heard = Instant::now();
        loop {
            let limits = limits();
            let wait = if silent { limits.first_byte_ms } else { limits.idle_ms };
            let until = heard + Duration::from_millis(wait);
            let count = tokio::select! {
                read = timeout_at(until, self.stdout.read(&mut piece)) => match read {
                    Ok(read) => read.unwrap_or(0),
                    Err(_) => {
                        let message = format!("nothing more came within {} s", wait.div_ceil(1000));
                        return Err(Ended::Network { what: NetworkFault::Timeout, message });
                    }
                },
                wrote = write(&mut self.stdin, &pending[written..]), if written < pending.len() => {
                    match wrote {
                        Ok(count @ 1..) => written += count,
                        // It reads no more; why is told by its output and its exit.
                        _ => written = pending.len(),
                    }
                    heard = Instant::now();
                    continue;
                }
                () = sleep(LOOK) => {
                    // What it started may hold its output open for as long as it likes.
                    if self.is_over() {
                        self.end_group();
                    }
                    continue;
                }
            };
            heard = Instant::now();
            silent &= count == 0;
            match count {
                0 => self.decoder.end(&mut events),
                _ => self.decoder.push(&piece[..count], &mut events),
            }
            for text in answers(&mut events) {
                pending.drain(..written);
                written = 0;
                pending.extend_from_slice(text.as_bytes());
            }
            let step = take(&mut events);
            match step {
                Step::Done => return Ok(()),
                Step::Failed(Ended::Event { body, .. }) if !body.is_null() => {
                    return Err(Ended::Child {
                        exit: None,
                        stderr_tail: self.complaint(),
                        last_event: body,
                    });
                }
                Step::Failed(_) | Step::More if count == 0 => return Err(self.ended().await),
                Step::Failed(ended) => return Err(ended),
                Step::More => {}
            }
        }
    }

    /// Tells the program to stop, and waits a moment for it.
    async fn cancel(&mut self, input: String) {
        let limits = || Limits {
            first_byte_ms: CANCEL.as_millis() as u64,
            idle_ms: CANCEL.as_millis() as u64,
            ..Limits::default()
        };
        let mut until_end = |events: &mut Vec<Event>| {
            let over = |event: &Event| matches!(event, Event::TurnEnd { .. } | Event::Error { .. });
            let done = events.drain(..).any(|event| over(&event));
            if done { Step::Done } else { Step::More }
        };
        let _ = timeout(CANCEL, self.turn(input, &limits, &mut until_end)).await;
    }

    /// Tells whether the program has ended. It is not taken leave of: its number stays its own.
    fn is_over(&self) -> bool {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        pid.is_some_and(|pid| matches!(waitid(WaitId::Pid(pid), look), Ok(Some(_))))
    }

    /// Ends the program and all that it started.
    fn end_group(&self) {
        // While it was not waited for, its number belongs to nobody else.
        if self.child.id().is_some()
            && let Some(group) = i32::try_from(self.group).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// Waits for a program that closed its output.
    async fn ended(&mut self) -> Ended {
        let status = timeout(EXIT, self.child.wait()).await;
        let _ = timeout(Duration::from_millis(200), &mut self.complaints).await;
        let exit = status.ok().and_then(Result::ok).and_then(|status| status.code());
        Ended::Child { exit, stderr_tail: self.complaint(), last_event: Value::Null }
    }

    fn complaint(&self) -> String {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        redact(&String::from_utf8_lossy(&tail)).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end_group();
        self.complaints.abort();
        self.watch.remove(self.group);
    }
}

/// A program in the middle of a turn. Dropping it cancels the turn: the program is told to stop,
/// so that nobody pays for an answer nobody reads, and is ended after that.
pub(crate) struct Running {
    process: Option<Process>,
    cancel_input: Option<String>,
}

impl Running {
    /// Lets the program answer; see [`Process::turn`]. After a failure the program is ended.
    pub(crate) async fn turn(
        &mut self,
        input: String,
        limits: &(dyn Fn() -> Limits + Send + Sync),
        take: &mut (dyn FnMut(&mut Vec<Event>) -> Step + Send),
    ) -> Result<(), Ended> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let result = process.turn(input, limits, take).await;
        let timed_out = matches!(result, Err(Ended::Network { .. }));
        if result.is_err() && !timed_out {
            self.process = None;
        }
        result
    }

    /// Returns the program after a whole turn.
    pub(crate) fn finish(mut self) -> Option<Process> {
        self.process.take()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        if let (Some(input), Ok(runtime)) =
            (self.cancel_input.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(async move { process.cancel(input).await });
        }
    }
}

async fn write(stdin: &mut Option<ChildStdin>, bytes: &[u8]) -> std::io::Result<usize> {
    match stdin {
        Some(stdin) => stdin.write(bytes).await,
        None => Ok(0),
    }
}

/// Takes out what the decoder wants written.
fn answers(events: &mut Vec<Event>) -> Vec<String> {
    let mut texts = Vec::new();
    events.retain_mut(|event| match event {
        Event::Write { text } => {
            texts.push(std::mem::take(text));
            false
        }
        _ => true,
    });
    texts
}

/// Reads complaints to their end and keeps the last of them, so that a chatty program never blocks.
async fn listen(mut stderr: ChildStderr, tail: Arc<Mutex<Vec<u8>>>) {
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut piece).await {
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(&piece[..count]);
        let over = tail.len().saturating_sub(TAIL);
        tail.drain(..over);
    }
}
