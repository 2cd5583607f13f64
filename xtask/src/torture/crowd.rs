//! `increments` and `refresh`: many processes at once on one store.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};

use super::acme::{Rules, Server};
use super::ground::{Ground, LOGIN, bystander, expired, write};
use super::{Plan, Tally};

/// Adds to one counter from many processes, beside readers and somebody who edits by hand.
pub(super) fn increments(plan: &Plan) -> Result<Vec<Tally>> {
    let host = plan.programs.host()?;
    let (processes, each) = if plan.quick { (16_u64, 50_u64) } else { (64, 1_000) };
    let ground = Ground::new()?;
    ground.put_store(&json!({ "acme:count": bystander() }))?;
    let store = ground.store_path().display().to_string();
    let worker = |args: &[&str]| -> Result<Child> {
        let mut command = Command::new(host);
        command.arg("worker").args(args).env("TORTURE_CARELESS", &plan.careless);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command.spawn()?)
    };
    let readers = (0..4).map(|_| worker(&["reader", &store])).collect::<Result<Vec<_>>>()?;
    let each_text = each.to_string();
    let writers = (0..processes)
        .map(|_| worker(&["increments", &store, &each_text]))
        .collect::<Result<Vec<_>>>()?;
    let mut tally = Tally::new(format!("{processes} processes x {each} increments"));
    let mut hand = Hand::default();
    let mut writers: Vec<Option<Child>> = writers.into_iter().map(Some).collect();
    let mut complaints = Vec::new();
    // A hand is not that quick, unless the whole takes a few seconds only.
    let pause = Duration::from_millis(if plan.quick { 20 } else { 200 });
    while writers.iter().any(Option::is_some) {
        hand.edit(&ground)?;
        std::thread::sleep(pause);
        for slot in &mut writers {
            if let Some(writer) = slot
                && writer.try_wait()?.is_some()
                && let Some(writer) = slot.take()
            {
                let output = writer.wait_with_output()?;
                if !output.status.success() {
                    complaints.push(super::ground::said(&output));
                }
            }
        }
    }
    let (mut reads, mut failed) = (0, 0);
    for mut reader in readers {
        drop(reader.stdin.take());
        let mut text = String::new();
        reader.stdout.take().context("a pipe")?.read_to_string(&mut text)?;
        reader.wait()?;
        let mut numbers = text.split_whitespace().map(|word| word.parse::<u64>().unwrap_or(0));
        reads += numbers.next().unwrap_or(0);
        failed += numbers.next().unwrap_or(0);
    }
    let store = ground.store().map_err(anyhow::Error::msg)?.unwrap_or_default();
    let held = counted(&store);
    let expected = processes * each - hand.overwrote;
    tally.cases = processes * each;
    tally.losses = expected.saturating_sub(held) + failed + hand.torn + complaints.len() as u64;
    if tally.losses > 0 {
        tally.samples.push(format!("{held} of {expected} are there; {failed} failed reads"));
        tally.samples.extend(complaints.into_iter().take(3));
    }
    tally.note = format!(
        "{held} of {expected} there, {reads} reads with {failed} parse errors, {} edits by hand",
        hand.edits
    );
    Ok(vec![tally])
}

fn counted(store: &Value) -> u64 {
    store["usageStats"]["acme:count"]["errorCount"].as_u64().unwrap_or(0)
}

/// Somebody who edits the store by hand: reads it, adds a member, and puts the result in its
/// place, without any lock. What such an edit itself overwrites is no loss of the store; an
/// exchange of the two files shows exactly how much that was.
#[derive(Default)]
struct Hand {
    edits: u64,
    overwrote: u64,
    torn: u64,
}

impl Hand {
    fn edit(&mut self, ground: &Ground) -> Result<()> {
        let path = ground.store_path();
        let text = std::fs::read(&path)?;
        let Ok(mut store) = serde_json::from_slice::<Value>(&text) else {
            self.torn += 1;
            return Ok(());
        };
        let before = counted(&store);
        self.edits += 1;
        store["note"] = json!(format!("edit {}", self.edits));
        let edited = ground.agent("edited");
        write(&edited, (serde_json::to_string_pretty(&store)? + "\n").as_bytes())?;
        // Nobody saves over what he sees has changed.
        if std::fs::read(&path)? != text {
            return Ok(());
        }
        renameat_with(CWD, &edited, CWD, &path, RenameFlags::EXCHANGE)?;
        let replaced = std::fs::read(&edited)?;
        let replaced = serde_json::from_slice::<Value>(&replaced).unwrap_or_default();
        self.overwrote += counted(&replaced).saturating_sub(before);
        Ok(())
    }
}

/// Renews one expired login from many tasks in many processes at once.
pub(super) fn refresh(plan: &Plan) -> Result<Vec<Tally>> {
    let (processes, tasks, rounds) = if plan.quick { (4_u64, 100_u64, 3) } else { (16, 1_000, 20) };
    let rules = Rules { delay: Duration::from_millis(500), ..Rules::default() };
    let server = Server::start(rules)?;
    let mut tally =
        Tally::new(format!("{tasks} tasks x {processes} processes, server takes 500 ms"));
    let until = plan.until(0.05);
    for round in 0..rounds {
        if round > 0 && plan.is_over(until, &tally) {
            break;
        }
        let number = server.issue();
        let ground = Ground::new()?;
        ground.put_store(&json!({ LOGIN: expired(number) }))?;
        let workers = (0..processes)
            .map(|_| tasks_worker(plan, &ground, &server, tasks, 60_000))
            .collect::<Result<Vec<_>>>()?;
        let mut workers = workers;
        for worker in &mut workers {
            worker.stdin.as_mut().context("a pipe")?.write_all(b"go\n")?;
        }
        let mut wrong = Vec::new();
        for worker in workers {
            let output = worker.wait_with_output()?;
            let said = String::from_utf8_lossy(&output.stdout).trim().to_string();
            if said != tasks.to_string() {
                wrong.push(format!("a process says {said:?} {}", super::ground::said(&output)));
            }
        }
        let (asked, newest) = (server.asked(number), server.newest(number));
        if (asked, newest) != (1, 2) || ground.generation() != Some((number, 2)) {
            let held = ground.generation();
            wrong.push(format!("{asked} requests, newest {newest}, held {held:?}"));
        }
        tally.case(wrong);
    }
    tally.note = "one token request per generation in every round".into();
    if tally.losses > 0 {
        tally.note.clear();
    }
    Ok(vec![tally])
}

/// Starts a process that renews the login from so many tasks once it reads a line.
pub(super) fn tasks_worker(
    plan: &Plan,
    ground: &Ground,
    server: &Server,
    tasks: u64,
    patience_ms: u64,
) -> Result<Child> {
    ensure!(plan.programs.plugin.is_file(), "the plugin is gone");
    let mut command = ground.command(plan.programs.host()?);
    command
        .args(["worker", "tasks"])
        .arg(ground.store_path())
        .arg(format!("{}/token", server.url()))
        .arg(&plan.programs.plugin)
        .args([tasks.to_string(), patience_ms.to_string()])
        .env("TORTURE_CARELESS", &plan.careless)
        .stdin(Stdio::piped());
    Ok(command.spawn()?)
}
