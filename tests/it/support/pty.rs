//! A real pseudo-terminal: what a person types and what a person sees.

use std::io::{Read, Write};
use std::num::NonZero;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A program on a terminal of 40 lines, and of 100 columns unless said otherwise.
pub(crate) struct Terminal {
    child: Child,
    writer: pty_process::blocking::Pty,
    seen: Arc<Mutex<Seen>>,
    /// Set once everything that was written has been read.
    over: Arc<AtomicBool>,
}

struct Seen {
    raw: Vec<u8>,
    screen: vt100::Parser,
}

/// How long a person waits before giving up.
const PATIENCE: Duration = Duration::from_secs(60);

impl Terminal {
    /// Starts a prepared command on a terminal.
    pub(crate) fn start(prepared: &Command) -> Self {
        Self::start_with(prepared, 100)
    }

    /// Starts a prepared command on a terminal of so many columns.
    pub(crate) fn start_with(prepared: &Command, columns: u16) -> Self {
        let (pty, pts) = pty_process::blocking::open().expect("a pseudo-terminal");
        pty.resize(pty_process::Size::new(40, columns)).expect("a size");
        let mut command = pty_process::blocking::Command::new(prepared.get_program());
        command = command.args(prepared.get_args()).env_clear().env("TERM", "xterm-256color");
        for (name, value) in prepared.get_envs() {
            if let Some(value) = value {
                command = command.env(name, value);
            }
        }
        if let Some(dir) = prepared.get_current_dir() {
            command = command.current_dir(dir);
        }
        let child = command.spawn(pts).expect("the program starts");
        let mut reader = duplicate(&pty);
        let size = |cells| NonZero::new(cells).expect("not zero");
        let screen = vt100::Parser::new(size(40), size(columns), 1000);
        let seen = Arc::new(Mutex::new(Seen { raw: Vec::new(), screen }));
        let over = Arc::new(AtomicBool::new(false));
        let (shared, ended) = (Arc::clone(&seen), Arc::clone(&over));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Reading fails once the program has ended; that is the end of the output.
            while let Ok(count) = reader.read(&mut buffer) {
                if count == 0 {
                    break;
                }
                let mut seen = shared.lock().expect("not poisoned");
                seen.raw.extend_from_slice(&buffer[..count]);
                seen.screen.process(&buffer[..count]);
            }
            ended.store(true, Ordering::Release);
        });
        Self { child, writer: pty, seen, over }
    }

    /// Types text, or keys as a terminal sends them.
    pub(crate) fn types(&mut self, keys: &str) {
        self.writer.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Sends a signal to the program.
    pub(crate) fn signals(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the program runs");
    }

    /// Waits until the screen shows `text`.
    #[track_caller]
    pub(crate) fn waits_for(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.screen().contains(text) {
            assert!(Instant::now() < until, "no {text:?} on the screen:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the screen is as wanted.
    #[track_caller]
    pub(crate) fn waits_until(&mut self, wanted: impl Fn(&str) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !wanted(&self.screen()) {
            assert!(Instant::now() < until, "the screen stays:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Gives the program 50 ms.
    pub(crate) fn waits_a_moment(&self) {
        std::thread::sleep(Duration::from_millis(50));
    }

    /// Tells whether the program has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Returns the screen as text.
    pub(crate) fn screen(&self) -> String {
        self.seen.lock().expect("not poisoned").screen.screen().contents()
    }

    /// Returns every byte written to the terminal so far.
    pub(crate) fn raw(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().expect("not poisoned").raw).into_owned()
    }

    /// Waits for the end of the program, which must have gone well, and returns every byte that it
    /// wrote.
    #[track_caller]
    pub(crate) fn all(&mut self) -> String {
        assert_eq!(self.ends(), 0, "{}", self.screen());
        until(|| self.over.load(Ordering::Acquire));
        self.raw()
    }

    /// Waits for the end of the program and returns its exit code.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> i32 {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < until, "still running:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens the terminal a second time, for reading.
fn duplicate(pty: &pty_process::blocking::Pty) -> std::fs::File {
    use std::os::fd::AsFd;
    std::fs::File::from(pty.as_fd().try_clone_to_owned().expect("a descriptor"))
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn until(so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "it did not come about");
        std::thread::sleep(Duration::from_millis(10));
    }
}
