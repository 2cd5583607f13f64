//! Asks the user's login shell for its variables (spec C-11).
//!
//! Whether to ask, whom, for how long, and what is taken from the answer is the config's business;
//! here is only the child process: bounded in time and in output, and gone afterwards.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use moltbot_config::SHELL_OUTPUT_LIMIT;

/// Runs a shell and returns what it prints.
///
/// The error is one sentence for a warning; it holds nothing of what the shell printed.
pub(crate) fn output(
    shell: &str,
    args: &[&str],
    env: &[(String, String)],
    timeout: Duration,
) -> Result<Vec<u8>, String> {
    let what = moltbot_core::redact(shell).into_owned();
    let mut child = Command::new(shell)
        .args(args)
        .env_clear()
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("shell import: {what} cannot be started: {error}"))?;
    let mut stdout = child.stdout.take().expect("standard output was asked for as a pipe");
    let (send, receive) = mpsc::channel();
    // Not joined: something that the shell left running may hold the pipe open for ever.
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout
            .by_ref()
            .take(SHELL_OUTPUT_LIMIT as u64 + 1)
            .read_to_end(&mut bytes)
            .map(|_| bytes);
        let _ = send.send(read);
    });
    let started = Instant::now();
    let read = receive.recv_timeout(timeout);
    let left = timeout.saturating_sub(started.elapsed());
    let status = if read.is_ok() { wait(&mut child, left) } else { None };
    if status.is_none() {
        end(&mut child);
    }
    let bytes = match read {
        Err(_) => {
            return Err(format!(
                "shell import: {what} took longer than {} ms",
                timeout.as_millis()
            ));
        }
        Ok(Err(error)) => return Err(format!("shell import: {what} cannot be read: {error}")),
        Ok(Ok(bytes)) => bytes,
    };
    if bytes.len() > SHELL_OUTPUT_LIMIT {
        return Err(format!("shell import: {what} printed more than 2 MiB"));
    }
    if status != Some(true) {
        return Err(format!("shell import: {what} failed"));
    }
    Ok(bytes)
}

/// Waits for the shell's own end, which follows closely on its last output.
fn wait(child: &mut Child, limit: Duration) -> Option<bool> {
    let until = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
            _ => return None,
        }
    }
}

/// Ends the shell and all it started.
fn end(child: &mut Child) {
    if let Some(group) = rustix::process::Pid::from_raw(child.id() as i32) {
        // It may have ended meanwhile, which is as good.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout: Duration) -> Result<Vec<u8>, String> {
        let path = ("PATH".to_string(), std::env::var("PATH").unwrap());
        output("/bin/sh", &["-c", script], &[path, ("X".into(), "FAKE".into())], timeout)
    }

    #[test]
    fn the_output_comes_back_whole() {
        let bytes = sh("printf '%s\\0' \"$X\" ü", Duration::from_secs(20)).unwrap();
        assert_eq!(bytes, "FAKE\0ü\0".as_bytes());
    }

    #[test]
    fn a_shell_that_hangs_fails_or_floods_is_a_sentence() {
        let limit = Duration::from_secs(20);
        let error = sh("sleep 60", Duration::from_millis(50)).unwrap_err();
        assert!(error.ends_with("took longer than 50 ms"), "{error}");
        // What the shell leaves running holds the pipe, not us.
        let error = sh("sleep 60 & echo", Duration::from_millis(50)).unwrap_err();
        assert!(error.ends_with("took longer than 50 ms"), "{error}");
        let error = sh("exit 3", limit).unwrap_err();
        assert!(error.ends_with("failed"), "{error}");
        let error = sh("exec cat /dev/zero", limit).unwrap_err();
        assert!(error.ends_with("printed more than 2 MiB"), "{error}");
        let error = output("/nonexistent", &[], &[], limit).unwrap_err();
        assert!(error.contains("cannot be started"), "{error}");
    }
}
