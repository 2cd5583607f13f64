//! The torture: tries in many ways to make the program lose a login, and counts how often it does.
//!
//! `kill` and `recovery` work on the stock binary, with a third party's login loaded into it (the
//! fixture `acme-oauth`); where the program must be careless, frozen or short of disk from the
//! inside, the subject is `tests/torture/host.rs`, the same command line with a hook. A variant
//! that is careless on purpose (`--careless`) must lose something: a test sees to it that every
//! step notices.

#[path = "../../../tests/fixtures/acme-oauth/src/server.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod acme;
mod clock;
mod crowd;
mod disk;
mod frozen;
mod ground;
mod kill;
mod power;
mod programs;
mod recovery;
mod state;
mod steps;
mod subject;
mod trace;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use self::programs::Programs;

/// What a step found.
#[derive(Default)]
struct Tally {
    /// What was tried, for the table.
    what: String,
    /// How often.
    cases: u64,
    /// How often something was lost.
    losses: u64,
    /// The first few losses, in words.
    samples: Vec<String>,
    /// Logins that were lost where nobody can help, which is no loss of ours.
    window: u64,
    /// What else is worth knowing.
    note: String,
}

impl Tally {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), ..Self::default() }
    }

    /// Counts a case and what was wrong with it.
    fn case(&mut self, wrong: Vec<String>) {
        self.cases += 1;
        self.losses += u64::from(!wrong.is_empty());
        if self.samples.len() < 5 {
            self.samples.extend(wrong.into_iter().next());
        }
    }
}

/// What all steps know.
struct Plan {
    seed: u64,
    /// Under three minutes in all.
    quick: bool,
    /// How long the steps may take that could go on for ever.
    minutes: f64,
    /// What all of the time is in shares: of a single step only its own.
    shares: f64,
    /// Which part of the cases, from 0, and of how many parts.
    shard: (usize, usize),
    /// How long the others wait for a frozen one, in milliseconds.
    patience_ms: u64,
    /// The broken variant to work on; empty: none.
    careless: String,
    programs: Programs,
}

impl Plan {
    /// Returns when a step has to end that may take `share` of the time.
    fn until(&self, share: f64) -> Instant {
        Instant::now() + Duration::from_secs_f64(self.minutes * 60.0 * share / self.shares)
    }

    /// Tells whether a case belongs to the part that is to be tried.
    fn is_ours(&self, case: usize) -> bool {
        case % self.shard.1 == self.shard.0
    }

    /// Tells whether a step has done enough. On a variant that must lose something it goes on
    /// until it does, so that a slow machine finds it too.
    fn is_over(&self, until: Instant, tally: &Tally) -> bool {
        if self.is_careless() { tally.losses > 0 } else { Instant::now() >= until }
    }

    fn is_careless(&self) -> bool {
        !self.careless.is_empty()
    }
}

/// A step: its name, the share of the time that it goes on for, and what it does.
type Step = (&'static str, f64, fn(&Plan) -> Result<Vec<Tally>>);

const STEPS: &[Step] = &[
    ("kill", 0.45, kill::run),
    ("recovery", 0.2, recovery::run),
    ("power", 0.15, power::run),
    ("disk", 0.06, disk::run),
    ("increments", 0.0, crowd::increments),
    ("refresh", 0.05, crowd::refresh),
    ("frozen", 0.05, frozen::run),
    ("clock", 0.04, clock::run),
];

/// The broken variants; see `tests/torture/hook.rs`.
const CARELESS: &[&str] =
    &["no-lock", "no-sync", "erase-first", "write-after-parse", "no-reserve", "no-memory"];

pub(crate) fn command() -> Command {
    Command::new("torture")
        .about("Kill, freeze, starve and crowd the credential store; count what is lost")
        .arg(
            Arg::new("step")
                .num_args(0..)
                .value_parser(STEPS.iter().map(|(name, ..)| *name).collect::<Vec<_>>())
                .help("Only these steps"),
        )
        .arg(
            Arg::new("minutes")
                .long("minutes")
                .value_name("N")
                .value_parser(value_parser!(f64))
                .default_value("10")
                .help("How long to go on, over all the steps that are named"),
        )
        .arg(
            Arg::new("shard")
                .long("shard")
                .value_name("I/N")
                .value_parser(shard)
                .default_value("1/1")
                .help("Of the pairs of `recovery` only the I-th of N parts; all N try each once"),
        )
        .arg(
            Arg::new("patience")
                .long("patience")
                .value_name("MS")
                .value_parser(value_parser!(u64).range(1..=60_000))
                .default_value("400")
                .help("How long the others of `frozen` wait; the stock binary's own is 45000"),
        )
        .arg(
            Arg::new("seed")
                .long("seed")
                .value_name("S")
                .value_parser(value_parser!(u64))
                .help("Choose the same cases again; without it, others each time"),
        )
        .arg(
            Arg::new("quick")
                .long("quick")
                .action(ArgAction::SetTrue)
                .help("Less of everything, in under 3 minutes"),
        )
        .arg(
            Arg::new("binary")
                .long("binary")
                .value_name("PATH")
                .value_parser(value_parser!(std::path::PathBuf))
                .help("Torture this program; without it the release build of this tree"),
        )
        .arg(
            Arg::new("careless")
                .long("careless")
                .value_name("VARIANT")
                .value_parser(CARELESS.to_vec())
                .hide(true)
                .help("Work on a variant that is broken on purpose"),
        )
}

/// Reads `I/N`, which counts from 1.
fn shard(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    match parts {
        Some((index @ 1.., of)) if index <= of => Ok((index - 1, of)),
        _ => Err("wanted: I/N with I from 1 to N, as 2/10".into()),
    }
}

/// Runs the steps and prints the table; fails if anything was lost.
pub(crate) fn run(args: &ArgMatches) -> Result<()> {
    let quick = args.get_flag("quick");
    let minutes = *args.get_one::<f64>("minutes").expect("it has a default");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let seed = args.get_one::<u64>("seed").copied().unwrap_or(now.as_micros() as u64);
    let only: Vec<&String> = args.get_many("step").unwrap_or_default().collect();
    let careless = args.get_one::<String>("careless").cloned().unwrap_or_default();
    let binary = args.get_one::<std::path::PathBuf>("binary").cloned();
    let programs = Programs::build(binary, !careless.is_empty())?;
    let minutes = if quick { 2.0 } else { minutes };
    let shard = *args.get_one::<(usize, usize)>("shard").expect("it has a default");
    let patience_ms = *args.get_one::<u64>("patience").expect("it has a default");
    let is_wanted = |name: &str| only.is_empty() || only.iter().any(|only| *only == name);
    let shares = STEPS.iter().filter(|(name, ..)| is_wanted(name)).map(|(_, share, _)| share);
    let shares = shares.sum::<f64>().max(f64::EPSILON);
    let plan = Plan { seed, quick, minutes, shares, shard, patience_ms, careless, programs };
    let mut rows = Vec::new();
    for (name, _, step) in STEPS {
        if !is_wanted(name) {
            continue;
        }
        let start = Instant::now();
        let tallies = step(&plan)?;
        let seconds = start.elapsed().as_secs_f64();
        for tally in tallies {
            eprintln!("{name}: {}: {} cases, {} losses", tally.what, tally.cases, tally.losses);
            for sample in &tally.samples {
                eprintln!("  lost: {sample}");
            }
            rows.push((*name, tally));
        }
        eprintln!("{name}: {seconds:.0} s");
    }
    println!("{}", table(seed, &rows));
    let losses: u64 = rows.iter().map(|(_, tally)| tally.losses).sum();
    if losses > 0 {
        bail!("something was lost in {losses} cases (--seed {seed})");
    }
    Ok(())
}

fn table(seed: u64, rows: &[(&str, Tally)]) -> String {
    let mut text = format!(
        "seed {seed}\n{:<11} {:<48} {:>8} {:>7}  {}\n",
        "step", "tried", "cases", "losses", "remarks"
    );
    for (name, tally) in rows {
        let Tally { what, cases, losses, note, .. } = tally;
        text += &format!("{name:<11} {what:<48} {cases:>8} {losses:>7}  {note}\n");
    }
    text
}

/// A small generator of numbers that look random (splitmix64), so that a seed gives the same cases.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit.max(1)
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}
