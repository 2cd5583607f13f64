//! Whether anything outlives a host or a program that is killed in the middle of a turn.

use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::home::{Gate, Home, said};

/// Kills something in the middle of a turn, and tells whether something outlived it.
pub(super) type Kill = fn(&Home) -> Result<bool>;

/// What is killed in the middle of a turn of a program that does not end by itself.
pub(super) const KILLS: [(&str, Kill); 4] = [
    ("left of a killed `agent`", kill_agent),
    ("left of a killed gateway", kill_gateway),
    ("left of a killed program, under `agent`", |home| kill_program(home, home.agent()?)),
    ("left of a killed program, under the gateway", |home| {
        let gate = Gate::start(home)?;
        let asker = gate.ask(&[said("user", "hi")])?;
        let left = kill_program_of(home)?;
        drop((asker, gate));
        Ok(left)
    }),
];

fn kill_agent(home: &Home) -> Result<bool> {
    let mut host = home.agent()?;
    let group = home.hanging()?;
    host.kill()?;
    host.wait()?;
    Ok(outlives(&group))
}

fn kill_gateway(home: &Home) -> Result<bool> {
    let gate = Gate::start(home)?;
    let asker = gate.ask(&[said("user", "hi")])?;
    let group = home.hanging()?;
    // By SIGKILL.
    drop(gate);
    drop(asker);
    Ok(outlives(&group))
}

fn kill_program(home: &Home, mut host: Child) -> Result<bool> {
    let left = kill_program_of(home)?;
    // It may have started another one, which hangs too.
    host.kill()?;
    host.wait()?;
    Ok(left)
}

/// Kills the program that hangs, not what it started.
fn kill_program_of(home: &Home) -> Result<bool> {
    let group = home.hanging()?;
    let pid = rustix::process::Pid::from_raw(group.parse()?).context("a number")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    Ok(outlives(&group))
}

/// Tells whether anything of a process group still runs after a while.
fn outlives(group: &str) -> bool {
    wait(|| (!runs(group)).then_some(())).is_none()
}

fn runs(group: &str) -> bool {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok()).any(|stat| {
        // After the name, which may hold anything: state, parent, group.
        let mut rest = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let (state, own) = (rest.next(), rest.nth(1));
        own == Some(group) && !matches!(state, Some("Z" | "X"))
    })
}

/// Waits until there is something to return, 10 s at most.
pub(super) fn wait<T>(mut so: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        if let Some(found) = so() {
            return Some(found);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}
