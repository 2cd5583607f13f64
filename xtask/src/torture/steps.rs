//! The steps by which a command changes files, as the host's hook counts them: something happens
//! at one of them, and what is left is looked at.

use std::path::PathBuf;
use std::process::Output;
use std::time::Instant;

use anyhow::Result;

use super::acme::{Rules, Server};
use super::ground::Ground;
use super::subject::Subject;
use super::{Plan, Tally};

/// A command to which something happened at one of its steps.
pub(super) struct Case<'a> {
    pub(super) subject: Subject,
    /// What it started from.
    pub(super) start: &'a Ground,
    /// What it left.
    pub(super) ground: Ground,
    pub(super) output: Output,
    pub(super) server: &'a Server,
    /// The number of its login there.
    pub(super) number: u64,
}

/// Lets each of `ends` happen to each subject at each of its steps, until all were tried or the
/// time is over. `judge` says what is wrong with a case.
pub(super) fn each(
    plan: &Plan,
    until: Instant,
    subjects: &[Subject],
    ends: &[&str],
    tally: &mut Tally,
    judge: impl Fn(&Case<'_>) -> Result<Vec<String>>,
) -> Result<()> {
    let host = plan.programs.host()?;
    let server = Server::start(Rules::default())?;
    let number = server.issue();
    for subject in subjects {
        let start = subject.start(plan, host, &server, number)?;
        for end in ends {
            for at in 0.. {
                if plan.is_over(until, tally) {
                    return Ok(());
                }
                subject.reset(&server, number);
                let ground = start.copy()?;
                let env = switches(plan, &ground, at, end);
                let output = ground.run(host, &subject.args(&server), &env, subject.input())?;
                let last = at >= count(&ground);
                let (subject, start, server) = (*subject, &start, &server);
                let wrong = judge(&Case { subject, start, ground, output, server, number })?;
                let name = subject.name();
                let wrong = wrong.into_iter().map(|what| format!("{what} ({name}, {end} {at})"));
                tally.case(wrong.collect());
                if last {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// The switches of the host: at which step what happens, and how it is careless.
pub(super) fn switches(
    plan: &Plan,
    ground: &Ground,
    at: usize,
    end: &str,
) -> Vec<(&'static str, String)> {
    vec![
        ("TORTURE_CARELESS", plan.careless.clone()),
        ("TORTURE_AT", at.to_string()),
        ("TORTURE_END", end.to_string()),
        ("TORTURE_STEPS", steps(ground).display().to_string()),
    ]
}

/// Returns how many steps the last run with these switches made.
pub(super) fn count(ground: &Ground) -> usize {
    let text = std::fs::read_to_string(steps(ground)).unwrap_or_default();
    text.parse().unwrap_or_default()
}

fn steps(ground: &Ground) -> PathBuf {
    ground.home().join("steps")
}
