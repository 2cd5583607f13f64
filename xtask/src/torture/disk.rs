//! `disk`: full, over quota, read-only, failing; at every step, by a limit of the process, and by
//! a file system of a few kilobytes.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::acme::{Rotation, Rules, Server};
use super::ground::{Ground, finish};
use super::steps::{self, Case};
use super::subject::{Ended, Subject};
use super::{Plan, Tally};

const WRITERS: &[Subject] =
    &[Subject::Refresh(Rotation::Strict), Subject::PasteToken, Subject::Remove, Subject::Undo];

pub(super) fn run(plan: &Plan) -> Result<Vec<Tally>> {
    let faults = faults(plan)?;
    if plan.is_careless() {
        return Ok(vec![faults]);
    }
    Ok(vec![faults, limit(plan)?, tmpfs(plan)?])
}

/// Fails each step that changes a file, alone or with all that follow.
fn faults(plan: &Plan) -> Result<Tally> {
    let checker = plan.programs.subject()?;
    let mut tally = Tally::new("each write, fsync, rename fails");
    let ends: &[&str] = match plan.quick {
        true => &["from:full", "once:eio"],
        false => {
            &["from:full", "from:quota", "once:full", "once:quota", "once:readonly", "once:eio"]
        }
    };
    steps::each(plan, plan.until(0.06), WRITERS, ends, &mut tally, |case| {
        let Case { subject, start, ground, output, server, number } = case;
        let before = std::fs::read(start.store_path())?;
        judge(*subject, ground, checker, server, *number, &before, output)
    })?;
    tally.note = "refreshes, pastes, removals, undos".into();
    Ok(tally)
}

/// Limits the size of files (`ulimit -f`), of the binary as users have it.
fn limit(plan: &Plan) -> Result<Tally> {
    let program = plan.programs.subject()?;
    let server = Server::start(Rules::default())?;
    let number = server.issue();
    let mut tally = Tally::new("the size of files is limited (RLIMIT_FSIZE)");
    // Blocks of 512 bytes; a journal has 64 KiB.
    let blocks: Vec<usize> = match plan.quick {
        true => vec![0, 1, 2, 3, 64, 127, 128],
        false => (0..=132).collect(),
    };
    for subject in WRITERS {
        let start = subject.start(plan, program, &server, number)?;
        let before = std::fs::read(start.store_path())?;
        for blocks in &blocks {
            subject.reset(&server, number);
            let ground = start.copy()?;
            let mut command = Command::new("/bin/sh");
            ground.place(&mut command);
            command.env("TORTURE_CARELESS", &plan.careless);
            command.args(["-c", "ulimit -f \"$1\" && shift && exec \"$@\"", "sh"]);
            command.arg(blocks.to_string()).arg(program).args(subject.args(&server));
            command.stdin(std::process::Stdio::piped());
            let output = finish(command, subject.input())?;
            let mut wrong = judge(*subject, &ground, program, &server, number, &before, &output)?;
            if output.status.code().is_none() {
                wrong.push(format!("it ended by a signal: {}", output.status));
            }
            let name = subject.name();
            let wrong = wrong.into_iter().map(|what| format!("{what} ({name}, {blocks} blocks)"));
            tally.case(wrong.collect());
        }
    }
    Ok(tally)
}

/// Works on a file system with a few kilobytes left.
fn tmpfs(plan: &Plan) -> Result<Tally> {
    let mut tally = Tally::new("a full tmpfs");
    if plan.quick {
        tally.note = "skipped: left out by --quick".into();
        return Ok(tally);
    }
    let dir = tempfile::tempdir()?;
    if let Err(error) = mount(dir.path()) {
        tally.note = format!("skipped: {error:#}");
        return Ok(tally);
    }
    let done = on_tmpfs(plan, dir.path(), &mut tally);
    let _ = Command::new("umount").arg(dir.path()).status();
    done.map(|()| tally)
}

fn mount(at: &Path) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "needs root");
    let output =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(at).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", said.trim());
    Ok(())
}

fn on_tmpfs(plan: &Plan, dir: &Path, tally: &mut Tally) -> Result<()> {
    let program = plan.programs.subject()?;
    let server = Server::start(Rules::default())?;
    let number = server.issue();
    for subject in WRITERS {
        let start = subject.start(plan, program, &server, number)?;
        let before = std::fs::read(start.store_path())?;
        for pages in 0..24 {
            subject.reset(&server, number);
            let ground = start.copy()?;
            // The agent's directory lies on the small file system.
            let (agent, small) = (ground.agent(""), dir.join("agent"));
            copy_dir(&agent, &small)?;
            std::fs::remove_dir_all(&agent)?;
            std::os::unix::fs::symlink(&small, agent.with_file_name("agent"))?;
            fill(&dir.join("filler"), pages * 4_096)?;
            let output = ground.run(program, &subject.args(&server), &[], subject.input())?;
            std::fs::remove_file(dir.join("filler"))?;
            let wrong = judge(*subject, &ground, program, &server, number, &before, &output)?;
            let name = subject.name();
            let wrong = wrong.into_iter().map(|what| format!("{what} ({name}, {pages} pages)"));
            tally.case(wrong.collect());
            std::fs::remove_dir_all(&small)?;
        }
    }
    Ok(())
}

/// Fills a file system but for so many bytes.
fn fill(path: &Path, leave: usize) -> Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path)?;
    let mut size = 0_u64;
    while file.write_all(&[0; 4_096]).is_ok() {
        size += 4_096;
    }
    file.set_len(size.saturating_sub(leave as u64))?;
    Ok(())
}

fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// What must hold after a command whose disk failed: the old store to the byte, or the new one;
/// and nothing was sent whose answer could not be kept.
fn judge(
    subject: Subject,
    ground: &Ground,
    program: &Path,
    server: &Server,
    number: u64,
    before: &[u8],
    output: &std::process::Output,
) -> Result<Vec<String>> {
    let well = output.status.success();
    let mut wrong = Vec::new();
    let now = std::fs::read(ground.store_path()).unwrap_or_default();
    if subject != Subject::Refresh(Rotation::Strict) && !well && now != before {
        let changed = serde_json::from_slice::<serde_json::Value>(&now).is_ok_and(|new| {
            serde_json::from_slice::<serde_json::Value>(before)
                .is_ok_and(|old| old["profiles"] != new["profiles"])
        });
        // What is written and may be lost in a power cut is written: that it says so is right.
        let says_so = String::from_utf8_lossy(&output.stderr).contains("it is written");
        let excused = after_store(&output.stderr) || (changed && says_so);
        if !excused {
            wrong.push(format!(
                "it failed, and the store is another: {}",
                super::ground::said(output)
            ));
        }
    }
    // A refresh that was sent must be found again by the next one, which `check` makes; the answer
    // counts as kept, so that no loss is excused.
    let ended = Ended { well, kept: true, late: false };
    let verdict = subject.check(ground, program, server, number, &ended)?;
    wrong.extend(verdict.wrong);
    Ok(wrong)
}

/// Tells whether a command failed in what follows the store, such as the config.
fn after_store(said: &[u8]) -> bool {
    String::from_utf8_lossy(said).contains("moltbot.json")
}
