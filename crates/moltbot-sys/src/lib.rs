//! The operating-system calls that no safe crate offers: wiping a secret from the process's own
//! arguments, which every user of the machine can read (`ps`, `/proc/PID/cmdline`), and starting a
//! program with another limit of open files than one's own.
//!
//! ```
//! // Argument 99 does not exist, so there is nothing to wipe.
//! assert!(!moltbot_sys::wipe_argument(99, 0));
//! ```
//!
//! # Invariants
//!
//! - A leaf: depends on nothing, and stays under 200 lines.
//! - Every `unsafe` block says why it is sound.
//! - Deliberately absent: anything that `rustix`, `nix` or the standard library can do.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};
use std::process::Command;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU8, AtomicU64, Ordering};

/// Overwrites argument `index` (0 is the program) from byte `from` to its end; returns whether
/// there was anything to overwrite.
///
/// The arguments must have been collected before, and no other thread may be reading them: call it
/// first thing in `main`. Where the system does not say where the arguments lie (Linux without
/// glibc), it does nothing and returns `false`.
pub fn wipe_argument(index: usize, from: usize) -> bool {
    let Some(start) = argument(index) else { return false };
    let mut at = 0;
    let mut wiped = false;
    loop {
        // SAFETY: `start` is one of the strings that the kernel laid out for this process; it is
        // readable and writable and ends in a zero byte, which the loop does not pass. Bytes are
        // accessed atomically, so that a racing reader sees old or new bytes and no others.
        let byte = unsafe { AtomicU8::from_ptr(start.add(at).cast()) };
        if byte.load(Ordering::Relaxed) == 0 {
            return wiped;
        }
        if at >= from {
            byte.store(b'x', Ordering::Relaxed);
            wiped = true;
        }
        at += 1;
    }
}

/// How many arguments there are; 0 if unknown.
static COUNT: AtomicI32 = AtomicI32::new(0);

/// Where they are; null if unknown.
static VALUES: AtomicPtr<*mut c_char> = AtomicPtr::new(std::ptr::null_mut());

/// Runs before `main`; glibc hands the arguments to it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[used]
// SAFETY: the section holds functions of exactly this type (System V ABI, as glibc calls them),
// and `remember` neither allocates nor touches anything that is set up later.
#[unsafe(link_section = ".init_array")]
static REMEMBER: extern "C" fn(c_int, *mut *mut c_char, *mut *mut c_char) = remember;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
extern "C" fn remember(count: c_int, values: *mut *mut c_char, _env: *mut *mut c_char) {
    COUNT.store(count, Ordering::Relaxed);
    VALUES.store(values, Ordering::Relaxed);
}

/// Asks the system where the arguments lie.
#[cfg(target_os = "macos")]
fn find() {
    unsafe extern "C" {
        fn _NSGetArgc() -> *mut c_int;
        fn _NSGetArgv() -> *mut *mut *mut c_char;
    }
    // SAFETY: both functions take nothing and return pointers to variables that live as long as
    // the process (crt_externs.h).
    unsafe {
        COUNT.store(*_NSGetArgc(), Ordering::Relaxed);
        VALUES.store(*_NSGetArgv(), Ordering::Relaxed);
    }
}

#[cfg(not(target_os = "macos"))]
fn find() {}

fn argument(index: usize) -> Option<*mut c_char> {
    find();
    let count = usize::try_from(COUNT.load(Ordering::Relaxed)).ok()?;
    let values = VALUES.load(Ordering::Relaxed);
    if values.is_null() || index >= count {
        return None;
    }
    // SAFETY: `values` is the argument vector of this process, which has `count` entries and lives
    // as long as the process.
    let value = unsafe { *values.add(index) };
    (!value.is_null()).then_some(value)
}

/// The soft limit of open files before this process raised its own; 0 if it did not.
static FILES: AtomicU64 = AtomicU64::new(0);

/// Remembers the soft limit of open files that this process had before it raised its own.
pub fn remember_files(soft: u64) {
    FILES.store(soft, Ordering::Relaxed);
}

/// Lets the program that `command` starts have the limit of [`remember_files`], for programs that
/// `select` or that close all they could have inherited. Without one it does nothing.
pub fn restore_files(command: &mut Command) {
    let soft = FILES.load(Ordering::Relaxed);
    if soft > 0 {
        before_exec(command, soft);
    }
}

#[cfg(any(target_os = "macos", all(target_os = "linux", target_pointer_width = "64")))]
fn before_exec(command: &mut Command, soft: u64) {
    use std::os::unix::process::CommandExt as _;

    #[repr(C)]
    struct Limit {
        soft: u64,
        hard: u64,
    }
    unsafe extern "C" {
        fn getrlimit(resource: c_int, limit: *mut Limit) -> c_int;
        fn setrlimit(resource: c_int, limit: *const Limit) -> c_int;
    }
    /// `RLIMIT_NOFILE` (sys/resource.h).
    const NOFILE: c_int = if cfg!(target_os = "macos") { 8 } else { 7 };

    let lower = move || {
        let mut limit = Limit { soft: 0, hard: 0 };
        // SAFETY: both calls get a limit of the system's own layout (two 64-bit numbers there),
        // which lives until they return.
        unsafe {
            if getrlimit(NOFILE, &raw mut limit) == 0 {
                limit.soft = soft.min(limit.hard);
                // A program with a higher limit than it needs is better than none.
                setrlimit(NOFILE, &raw const limit);
            }
        }
        Ok(())
    };
    // SAFETY: in the child, between fork and exec, nothing runs but the two system calls above;
    // they allocate nothing and take no lock.
    unsafe { command.pre_exec(lower) };
}

#[cfg(not(any(target_os = "macos", all(target_os = "linux", target_pointer_width = "64"))))]
fn before_exec(_: &mut Command, _: u64) {}

#[cfg(test)]
mod tests {
    use super::*;

    /// What this process was given is what a program gets, whatever the limit is meanwhile.
    #[test]
    fn a_program_has_the_limit_that_was_remembered() {
        let limit = || {
            let mut command = Command::new("sh");
            command.args(["-c", "ulimit -Sn"]);
            restore_files(&mut command);
            String::from_utf8(command.output().expect("a shell").stdout).expect("a number")
        };
        let before = limit();
        remember_files(77);
        assert_ne!(before.trim(), "77");
        assert_eq!(limit().trim(), "77");
        // None is raised above what is allowed at most.
        remember_files(u64::MAX - 1);
        assert_ne!(limit().trim(), "77");
        remember_files(0);
        assert_eq!(limit(), before);
    }

    /// The end-to-end tests look at `/proc` while a command runs; here the pieces.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn an_argument_is_wiped_from_a_byte_on() {
        let line = || std::fs::read("/proc/self/cmdline").expect("Linux has it");
        let before = line();
        let program = before.split(|byte| *byte == 0).next().expect("a program").to_vec();
        // The program's own path is nobody's secret; the last byte will do.
        assert!(wipe_argument(0, program.len() - 1));
        let after = line();
        assert_eq!(after[program.len() - 1], b'x');
        assert_eq!(after[..program.len() - 1], before[..program.len() - 1]);
        assert!(!wipe_argument(0, program.len()));
    }
}
