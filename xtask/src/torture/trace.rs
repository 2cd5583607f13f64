//! Runs a program, lists the system calls of each of its threads, and kills it right before a
//! chosen one. Linux on x86-64 only; elsewhere the steps that need it say so.

/// A system call of a run: the `nth` call of that number by the `thread`th thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Point {
    /// In the order in which they were made; 0 is the first.
    pub(super) thread: u32,
    /// The number of the call.
    pub(super) call: u64,
    /// From 0.
    pub(super) nth: u32,
}

/// What was seen of a run.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// All calls, in the order in which they were made.
    pub(super) points: Vec<Point>,
    /// Whether the chosen one was reached, so that the program was killed there.
    pub(super) killed: bool,
    /// Whether the answer of a token endpoint had been written into a journal by then.
    pub(super) kept: bool,
    /// Whether an answer came from the network.
    pub(super) received: bool,
    /// Whether an answer came from the network, and files were touched before it was kept.
    pub(super) late: bool,
    /// With which code it ended by itself.
    pub(super) code: Option<i32>,
    /// The number of its process.
    pub(super) pid: i32,
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(super) use linux::run;

/// Says that there is no tracer here.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub(super) fn run(
    _ground: &super::ground::Ground,
    _program: &std::path::Path,
    _args: &[String],
    _input: &str,
    _careless: &str,
    _at: Option<Point>,
) -> anyhow::Result<Option<Seen>> {
    Ok(None)
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux {
    use std::collections::HashMap;
    use std::io::Write as _;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use anyhow::{Context as _, Result, bail};
    use nix::errno::Errno;
    use nix::libc::{PTRACE_EVENT_EXEC, user_regs_struct};
    use nix::sys::ptrace::{self, Options};
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::Pid;

    use super::{Point, Seen};
    use crate::torture::ground::Ground;

    /// `pwrite64`, by which a journal takes an answer.
    const PWRITE: u64 = 18;

    /// `recvfrom`, by which an answer comes.
    const RECEIVE: u64 = 45;

    /// What a program does to files: flock, fsync, fdatasync, rename, unlink, openat, renameat2.
    const FILES: &[u64] = &[73, 74, 75, 82, 87, 257, 316];

    /// What is known of a thread.
    struct Thread {
        ordinal: u32,
        /// Whether it is inside a call, and whether that call writes an answer into a journal.
        inside: bool,
        keeps: bool,
        receives: bool,
        counts: HashMap<u64, u32>,
    }

    impl Thread {
        fn new(ordinal: u32, inside: bool) -> Self {
            Self { ordinal, inside, keeps: false, receives: false, counts: HashMap::new() }
        }
    }

    /// Runs a program to its end, or to the chosen call.
    pub(in super::super) fn run(
        ground: &Ground,
        program: &Path,
        args: &[String],
        input: &str,
        careless: &str,
        at: Option<Point>,
    ) -> Result<Option<Seen>> {
        // A process cannot let itself be traced without unsafe code, but it can stop and wait for
        // somebody who traces it.
        let mut command = Command::new("/bin/sh");
        ground.place(&mut command);
        command.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]).arg(program).args(args);
        command.env("TORTURE_CARELESS", careless);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().context("starting /bin/sh")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        let leader = Pid::from_raw(i32::try_from(child.id())?);
        match waitpid(leader, Some(WaitPidFlag::WUNTRACED))? {
            WaitStatus::Stopped(_, Signal::SIGSTOP) => {}
            other => bail!("the shell did not stop: {other:?}"),
        }
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        if ptrace::seize(leader, options).is_err() {
            // A container may forbid it.
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        kill(leader, Signal::SIGCONT)?;
        follow(leader, at).map(Some)
    }

    fn follow(leader: Pid, at: Option<Point>) -> Result<Seen> {
        let mut seen = Seen { pid: leader.as_raw(), ..Seen::default() };
        let mut threads: HashMap<Pid, Thread> = HashMap::new();
        let (mut live, mut made) = (false, 0);
        loop {
            // Only the children of this thread: others trace other programs.
            let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            let status = match waitpid(Pid::from_raw(-1), Some(flags)) {
                Err(Errno::ECHILD) => return Ok(seen),
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            let (pid, signal) = match status {
                WaitStatus::Exited(pid, code) if pid == leader => {
                    seen.code = Some(code);
                    return Ok(seen);
                }
                WaitStatus::Signaled(pid, _, _) if pid == leader => return Ok(seen),
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _) => {
                    threads.remove(&pid);
                    continue;
                }
                WaitStatus::PtraceEvent(pid, _, PTRACE_EVENT_EXEC) => {
                    live = true;
                    threads.insert(pid, Thread::new(0, true));
                    made = 1;
                    (pid, None)
                }
                WaitStatus::PtraceSyscall(pid) => {
                    let thread = threads.entry(pid).or_insert_with(|| {
                        made += 1;
                        Thread::new(made - 1, false)
                    });
                    // A killed one is gone between two questions.
                    let Ok(registers) = ptrace::getregs(pid) else { continue };
                    let point = step(thread, pid, &registers, &mut seen);
                    if point.is_some() && point == at && !seen.killed {
                        seen.killed = true;
                        kill(leader, Signal::SIGKILL)?;
                    }
                    (pid, None)
                }
                WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
                WaitStatus::PtraceEvent(pid, _, _) => (pid, None),
                _ => continue,
            };
            let _ = match live {
                true => ptrace::syscall(pid, signal),
                false => ptrace::cont(pid, signal),
            };
        }
    }

    /// Notes that a thread enters or leaves a call; returns the call it enters.
    fn step(
        thread: &mut Thread,
        pid: Pid,
        registers: &user_regs_struct,
        seen: &mut Seen,
    ) -> Option<Point> {
        let result = registers.rax as i64;
        if thread.inside {
            thread.inside = false;
            seen.kept |= thread.keeps && result > 0;
            seen.received |= thread.receives && result > 0;
            (thread.keeps, thread.receives) = (false, false);
            return None;
        }
        // What the kernel shows of a call that has not been made yet.
        if result != -i64::from(nix::libc::ENOSYS) {
            return None;
        }
        thread.inside = true;
        let call = registers.orig_rax;
        let nth = thread.counts.entry(call).or_default();
        let point = Point { thread: thread.ordinal, call, nth: *nth };
        *nth += 1;
        seen.points.push(point);
        thread.receives = call == RECEIVE;
        seen.late |= seen.received && !seen.kept && FILES.contains(&call);
        if call == PWRITE && registers.r10 > 0 {
            let link = std::fs::read_link(format!("/proc/{pid}/fd/{}", registers.rdi));
            thread.keeps = link.is_ok_and(|path| path.to_string_lossy().contains(".renewal-"));
        }
        Some(point)
    }
}
