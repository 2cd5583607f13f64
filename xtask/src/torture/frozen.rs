//! `frozen`: whoever renews a login is stopped in the middle; the others wait, give up and say whom
//! they waited for. Then it goes on, or is killed.

use std::io::Write as _;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::acme::{Rotation, Rules, Server};
use super::crowd::tasks_worker;
use super::ground::{Ground, LOGIN, expired, said};
use super::steps::{count, switches};
use super::{Dice, Plan, Tally};

/// How soon another takes over from a killed one.
const TAKEOVER: Duration = Duration::from_secs(1);

/// No refresh makes so many steps; past the last one nothing is frozen any more.
const STEPS: usize = 40;

pub(super) fn run(plan: &Plan) -> Result<Vec<Tally>> {
    let server = Server::start(Rules { rotation: Rotation::Repeating, ..Rules::default() })?;
    let mut thawed = Tally::new("frozen at every step of a refresh, then thawed");
    let mut killed = Tally::new("frozen at every step of a refresh, then killed");
    let mut slowest = Duration::ZERO;
    let until = plan.until(0.05);
    let mut steps: Vec<usize> = (0..STEPS).collect();
    Dice(plan.seed).shuffle(&mut steps);
    let mut last = STEPS;
    for at in steps {
        if plan.is_over(until, &thawed) || plan.is_over(until, &killed) {
            break;
        }
        if at <= last && thaw(plan, &server, at, &mut thawed)? {
            last = last.min(at);
        }
        if at <= last {
            slowest = slowest.max(bury(plan, &server, at, &mut killed)?);
        }
    }
    killed.note = format!("the next one took over within {} ms", slowest.as_millis());
    Ok(vec![thawed, killed])
}

/// Starts a renewal that stops itself at a step; `None` if it came to its end.
fn freeze(plan: &Plan, ground: &Ground, server: &Server, at: usize) -> Result<(Child, bool)> {
    let mut command = ground.command(plan.programs.host()?);
    command
        .args(["worker", "tasks"])
        .arg(ground.store_path())
        .arg(format!("{}/token", server.url()))
        .arg(&plan.programs.plugin)
        .args(["1", "60000"])
        .envs(switches(plan, ground, at, "stop"))
        .stdin(std::process::Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.as_mut().context("a pipe")?.write_all(b"go\n")?;
    // It counts a step before it stops there.
    let stopped = loop {
        if child.try_wait()?.is_some() {
            break false;
        }
        if count(ground) > at {
            std::thread::sleep(Duration::from_millis(20));
            break true;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Ok((child, stopped))
}

/// Lets another one try while the first is frozen; returns what it said.
fn other(plan: &Plan, ground: &Ground, server: &Server, patience: u64) -> Result<String> {
    let mut child = tasks_worker(plan, ground, server, 1, patience)?;
    child.stdin.as_mut().context("a pipe")?.write_all(b"go\n")?;
    let output = child.wait_with_output()?;
    let said = format!("{} {}", String::from_utf8_lossy(&output.stdout).trim(), said(&output));
    Ok(said.trim().to_string())
}

fn ground(server: &Server) -> Result<(Ground, u64)> {
    let number = server.issue();
    let ground = Ground::new()?;
    ground.put_store(&json!({ LOGIN: expired(number) }))?;
    Ok((ground, number))
}

/// Freezes, lets others wait, thaws; returns whether the step was past the last one.
fn thaw(plan: &Plan, server: &Server, at: usize, tally: &mut Tally) -> Result<bool> {
    let (ground, number) = ground(server)?;
    let (mut child, stopped) = freeze(plan, &ground, server, at)?;
    let pid = child.id();
    let mut wrong = Vec::new();
    if stopped {
        for _ in 0..2 {
            let said = other(plan, &ground, server, plan.patience_ms)?;
            // Either it is good, or somebody is named for whom was waited.
            if said != "1" && !said.contains(&format!("process {pid}")) {
                wrong.push(format!("the other one says {said:?} of process {pid}"));
            }
        }
        // More than once, as it may have counted its step and not stopped yet.
        while child.try_wait()?.is_none() {
            kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGCONT)?;
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let output = child.wait_with_output()?;
    let told = String::from_utf8_lossy(&output.stdout).trim().to_string();
    if told != "1" {
        wrong.push(format!("the thawed one says {told:?} {}", said(&output)));
    }
    let (asked, newest) = (server.asked(number), server.newest(number));
    if (asked, newest) != (1, 2) || ground.generation() != Some((number, 2)) {
        let held = ground.generation();
        wrong.push(format!("{asked} requests, newest {newest}, held {held:?}"));
    }
    let last = !stopped && at >= count(&ground);
    tally.case(wrong.into_iter().map(|what| format!("{what} (step {at})")).collect());
    Ok(last)
}

/// Freezes and kills; returns how long the next one took.
fn bury(plan: &Plan, server: &Server, at: usize, tally: &mut Tally) -> Result<Duration> {
    let (ground, number) = ground(server)?;
    let (mut child, stopped) = freeze(plan, &ground, server, at)?;
    let mut wrong = Vec::new();
    let waiting = tasks_worker(plan, &ground, server, 1, 30_000);
    let mut waiting = waiting?;
    // It is there and has loaded the plugin before the other one dies.
    std::thread::sleep(Duration::from_millis(if plan.quick { 100 } else { 300 }));
    waiting.stdin.as_mut().context("a pipe")?.write_all(b"go\n")?;
    std::thread::sleep(Duration::from_millis(50));
    if stopped {
        child.kill()?;
    }
    child.wait()?;
    let start = Instant::now();
    let output = waiting.wait_with_output()?;
    let took = start.elapsed();
    let told = String::from_utf8_lossy(&output.stdout).trim().to_string();
    if told != "1" {
        wrong.push(format!("the next one says {told:?} {}", said(&output)));
    }
    let newest = server.newest(number);
    if newest != 2 || ground.generation() != Some((number, 2)) {
        wrong.push(format!("newest {newest}, held {:?}", ground.generation()));
    }
    // On a machine that has something else to do a second is short.
    let limit = if plan.quick { TAKEOVER * 20 } else { TAKEOVER };
    if took > limit {
        wrong.push(format!("the next one took {} ms", took.as_millis()));
    }
    tally.case(wrong.into_iter().map(|what| format!("{what} (step {at})")).collect());
    Ok(took)
}
