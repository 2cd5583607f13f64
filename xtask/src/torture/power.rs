//! `power`: the power is cut while the store is written. On a file system of our own where that is
//! possible; on a model of one everywhere.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::acme::Rotation;
use super::steps::{self, Case};
use super::subject::{Ended, Subject};
use super::{Dice, Plan, Tally};

/// How often the power is cut on a real file system.
const CUTS: u64 = 300;

pub(super) fn run(plan: &Plan) -> Result<Vec<Tally>> {
    let mut tallies = vec![model(plan)?];
    if plan.is_careless() && tallies[0].losses > 0 {
        return Ok(tallies);
    }
    tallies.push(match plan.quick {
        true => skipped("left out by --quick"),
        false => ext4(plan)?,
    });
    Ok(tallies)
}

fn skipped(why: &str) -> Tally {
    let mut tally = Tally::new("power cut, ext4 on a loop device");
    tally.note = format!("skipped: {why}");
    tally
}

/// Cuts the power at each step that changes a file: what no sync had promised is gone, with and
/// without the names.
fn model(plan: &Plan) -> Result<Tally> {
    let checker = plan.programs.subject()?;
    let subjects = [
        Subject::Refresh(Rotation::Strict),
        Subject::PasteToken,
        Subject::Remove,
        Subject::Undo,
        Subject::Migrate,
    ];
    let mut tally = Tally::new("power cut at every step, model of a disk");
    let ends = ["cut-early", "cut-late"];
    steps::each(plan, plan.until(0.05), &subjects, &ends, &mut tally, |case| {
        let Case { subject, ground, output, server, number, .. } = case;
        // The answer is on disk from the step after the journal's sync on, which the store's own
        // steps tell: by then nothing may be lost.
        let kept = held_in_journal(&ground.agent(""));
        let ended = Ended { well: output.status.success(), kept, late: false };
        Ok(subject.check(ground, checker, server, *number, &ended)?.wrong)
    })?;
    Ok(tally)
}

/// Tells whether a journal holds an answer.
fn held_in_journal(dir: &Path) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_journal = name.contains(".renewal-") && !name.ends_with("lock");
        is_journal
            && std::fs::read(entry.path())
                .is_ok_and(|bytes| bytes.windows(14).any(|part| part == b"\"access_token\""))
    })
}

/// Cuts the power of a real file system at random instants, below a writer that says what it was
/// told is safe.
fn ext4(plan: &Plan) -> Result<Tally> {
    let disk = match Disk::new() {
        Ok(disk) => disk,
        Err(error) => return Ok(skipped(&format!("{error:#}"))),
    };
    let host = plan.programs.host()?;
    let mut dice = Dice(plan.seed);
    let mut tally = Tally::new("power cut, ext4 on a loop device");
    let until = plan.until(0.1);
    while tally.cases < CUTS && !plan.is_over(until, &tally) {
        disk.make()?;
        let pause = Duration::from_micros(2_000 + dice.below(60_000));
        let (acknowledged, store) = disk.cut(host, &plan.careless, pause)?;
        let mut wrong = Vec::new();
        match store.as_deref().map(serde_json::from_slice::<Value>) {
            None if acknowledged == 0 => {}
            None => wrong.push(format!("{acknowledged} acknowledged, and there is no store")),
            Some(Err(error)) => wrong.push(format!("torn store: {error}")),
            Some(Ok(store)) => {
                let token = store["profiles"]["acme:a"]["token"].as_str().unwrap_or_default();
                let held = token.strip_prefix("FAKE-").and_then(|text| text.parse().ok());
                if held.unwrap_or(0) < acknowledged {
                    wrong.push(format!("{acknowledged} acknowledged, {held:?} held"));
                }
            }
        }
        tally.case(wrong);
    }
    tally.note = "noauto_da_alloc,commit=600, shut down without a flush of its log".into();
    Ok(tally)
}

/// A file system in a file.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// Checks that this machine lets us have one.
    fn new() -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "needs root");
        let disk = Self { dir: tempfile::tempdir()? };
        std::fs::create_dir(disk.mount())?;
        disk.make()?;
        disk.up()?;
        let cut = disk.shut();
        disk.down()?;
        cut?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn mount(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    fn make(&self) -> Result<()> {
        let image = std::fs::File::create(self.image())?;
        image.set_len(16 << 20)?;
        quietly(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(self.image()))
    }

    fn up(&self) -> Result<()> {
        let options = "loop,noauto_da_alloc,commit=600";
        quietly(Command::new("mount").args(["-o", options]).arg(self.image()).arg(self.mount()))
    }

    fn down(&self) -> Result<()> {
        quietly(Command::new("umount").arg(self.mount()))
    }

    /// Shuts the file system down as a power cut would (`EXT4_IOC_SHUTDOWN`, no flush of its log).
    fn shut(&self) -> Result<()> {
        // Perl, as a call of the operating system by number is no safe code.
        let script = "open(my $f, '<', $ARGV[0]) or die $!; my $how = pack('L', 2); \
                      ioctl($f, 0x8004587d, $how) or die $!";
        quietly(Command::new("perl").args(["-e", script]).arg(self.mount()))
    }

    /// Lets a writer write and cuts the power; returns what was acknowledged, and the store as the
    /// next start finds it.
    fn cut(&self, host: &Path, careless: &str, pause: Duration) -> Result<(u64, Option<Vec<u8>>)> {
        self.up()?;
        let store = self.mount().join("auth-profiles.json");
        let mut command = Command::new(host);
        command.args(["worker", "writer"]).arg(&store).env("TORTURE_CARELESS", careless);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        // From the first write on, at a random instant.
        let first = lines.next().transpose()?;
        let done = first.context("the writer wrote nothing").and_then(|first| {
            std::thread::sleep(pause);
            self.shut()?;
            Ok(first)
        });
        let mut acknowledged = done.as_ref().map_or(0, |first| first.parse().unwrap_or(0));
        for line in lines.map_while(Result::ok) {
            acknowledged = line.parse().unwrap_or(acknowledged);
        }
        let _ = child.wait();
        self.down()?;
        done?;
        self.up()?;
        let store = std::fs::read(&store).ok();
        self.down()?;
        Ok((acknowledged, store))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Where it is not mounted this says so, to nobody.
        let _ = self.down();
    }
}

fn quietly(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| name.clone())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {}", said.trim());
    Ok(())
}
