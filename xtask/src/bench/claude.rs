//! `cargo xtask bench claude`: what the host adds to the user's own `claude`, with a lab as its
//! service: per turn, per start and in memory; and whether anything outlives a killed host.

mod home;
mod left;
mod relay;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Arg, ArgMatches};
use moltbot_lab::{Lab, LabOptions};

use self::home::{Gate, Home, Own};
use self::left::KILLS;
use super::{figure, machine, middle};
use crate::workspace::{cargo, must, root, target_dir};

pub(crate) use self::relay::run as relay;

/// How many idle sessions memory is divided by; the pool keeps as many.
const IDLE: usize = 8;

/// How long a program that was started or ended goes on with its own affairs.
const PAUSE: Duration = Duration::from_millis(700);

/// Describes the chore.
pub(crate) fn command() -> clap::Command {
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .default_value(default)
            .value_parser(clap::value_parser!(usize))
            .help(help)
    };
    clap::Command::new("claude")
        .about("Measure what the host adds to the user's own claude program")
        .arg(
            Arg::new("program")
                .long("program")
                .required(true)
                .value_parser(clap::value_parser!(PathBuf))
                .help("The claude program; it only ever talks to a lab on this machine"),
        )
        .arg(number("turns", "40", "Warm turns each way"))
        .arg(number("starts", "20", "Pairs of first turns"))
        .arg(number("kills", "200", "Kills, each with a fake program that hangs"))
        .arg(
            Arg::new("binary")
                .long("binary")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Measure this host; without it the release build of this tree"),
        )
}

/// Prints the figures.
pub(crate) fn bench(args: &ArgMatches) -> Result<()> {
    let program: &PathBuf = args.get_one("program").context("a program")?;
    let program = std::fs::canonicalize(program)?;
    let number = |name: &str| args.get_one::<usize>(name).copied().unwrap_or_default();
    let (turns, starts, kills) = (number("turns"), number("starts"), number("kills"));
    println!("machine: {}", machine());
    let host = match args.get_one::<PathBuf>("binary") {
        Some(binary) => std::fs::canonicalize(binary)?,
        None => {
            must(cargo().args(["build", "--release", "--quiet", "--package", "moltbot"]))?;
            target_dir().join("release/moltbot")
        }
    };
    let lab = Lab::start_on_thread(LabOptions::default())?;

    first_turns(&Home::new(&host, &program, Some(&lab.url()), true)?, &lab, starts)?;
    warm_turns(&Home::new(&host, &program, Some(&lab.url()), false)?, &lab, turns)?;

    let fake = root().join("tests/fixtures/fake-claude-stream/claude");
    let home = Home::new(&host, &fake, None, false)?;
    figure("host memory per idle session", memory(&home)?, "KiB", "200");
    std::fs::write(home.path(".claude/fake-stream.plan"), "hang\n")?;
    for (what, kill) in KILLS {
        let count = kills / KILLS.len();
        let mut left = 0;
        for _ in 0..count {
            left += usize::from(kill(&home)?);
        }
        println!("{what:<50} {left:>9} of {count} (aim: 0)");
    }
    Ok(())
}

/// A first turn, in milliseconds.
struct First {
    whole: f64,
    /// Of it, before the program began and after its result.
    outside: f64,
}

/// Prints what a first turn takes, pair by pair: whatever else the machine does meets both, each of
/// the two comes first as often, and neither meets what the one before still does.
fn first_turns(home: &Home, lab: &Lab, starts: usize) -> Result<()> {
    let gate = Gate::start(home)?;
    let first = |whole: f64| Ok(First { whole, outside: whole - home.inside()? });
    let own = || -> Result<First> {
        std::thread::sleep(PAUSE);
        first(Own::start(home, &lab.url())?.1)
    };
    let ours = || -> Result<First> {
        std::thread::sleep(PAUSE);
        first(gate.turn(&mut vec![])?)
    };
    // What the first of all finds cold does not count.
    own()?;
    ours()?;
    let mut pairs: Vec<(First, First)> = Vec::new();
    for pair in 0..starts.max(1) {
        pairs.push(match pair % 2 {
            0 => (own()?, ours()?),
            _ => {
                let ours = ours()?;
                (own()?, ours)
            }
        });
    }
    let (alone, through): (Vec<First>, Vec<First>) = pairs.into_iter().unzip();
    let whole = |turns: &[First]| turns.iter().map(|turn| turn.whole).collect::<Vec<_>>();
    let outside = |turns: &[First]| middle(turns.iter().map(|turn| turn.outside).collect());
    figure("first turn of the program by itself", middle(whole(&alone)), "ms", "");
    figure("first turn through the gateway", middle(whole(&through)), "ms", "");
    let mut added: Vec<f64> =
        whole(&through).iter().zip(whole(&alone)).map(|(ours, own)| ours - own).collect();
    added.sort_by(f64::total_cmp);
    figure("first turn, added, median of the pairs", middle(added.clone()), "ms", "20");
    let (low, high) = (added[added.len() / 4], added[added.len() * 3 / 4]);
    println!("{:<50} {low:>9.2} to {high:.2} ms", "half of the pairs lie within");
    figure("of it outside of the program", outside(&through) - outside(&alone), "ms", "20");
    Ok(())
}

/// Prints what a turn of a running program takes.
fn warm_turns(home: &Home, lab: &Lab, turns: usize) -> Result<()> {
    let gate = Gate::start(home)?;
    let (mut own, _) = Own::start(home, &lab.url())?;
    let mut talk = Vec::new();
    gate.turn(&mut talk)?;
    let (mut own_warm, mut our_warm) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        own_warm.push(own.turn("more")?);
        our_warm.push(gate.turn(&mut talk)?);
    }
    let (own, ours) = (middle(own_warm), middle(our_warm));
    figure("warm turn of the program by itself", own, "ms", "");
    figure("warm turn through the gateway", ours, "ms", "");
    figure("warm turn, added", ours - own, "ms", "5");
    Ok(())
}

/// Measures what a session that waits takes of the gateway's memory, in KiB.
fn memory(home: &Home) -> Result<f64> {
    let gate = Gate::start(home)?;
    let resident = || -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gate.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Ok(line.context("a size")?.trim().trim_end_matches(" kB").parse()?)
    };
    gate.turn(&mut vec![])?;
    let before = resident()?;
    for _ in 1..IDLE {
        gate.turn(&mut vec![])?;
    }
    Ok((resident()? - before) / (IDLE - 1) as f64)
}
