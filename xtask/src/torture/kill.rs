//! `kill`: `kill -9` before every system call of every thread of every command that changes
//! credentials; then the program is started again.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Result, anyhow};

use super::acme::{Rotation, Rules, Server};
use super::subject::{Ended, SUBJECTS, Subject};
use super::trace::{self, Point};
use super::{Dice, Plan, Tally};

/// How many programs are killed at once.
pub(super) const LANES: usize = 2;

/// Goes through all points in random order, again and again until the time is over.
pub(super) fn run(plan: &Plan) -> Result<Vec<Tally>> {
    let program = plan.programs.subject()?;
    let until = plan.until(0.45);
    let tallies = Mutex::new(SUBJECTS.iter().map(|subject| Tally::new(subject.name())).collect());
    let listed = list(plan)?;
    let Some(listed) = listed else {
        let mut skipped = Tally::new("kill -9");
        skipped.note = "skipped: needs ptrace on Linux x86-64, and leave to use it".into();
        return Ok(vec![skipped]);
    };
    let mut dice = Dice(plan.seed);
    loop {
        let mut points = listed.clone();
        if plan.is_careless() {
            // What matters comes late; and only a renewal has an answer to keep.
            points.reverse();
            points.retain(|(which, _)| {
                plan.careless != "write-after-parse"
                    || SUBJECTS[*which] == Subject::Refresh(Rotation::Strict)
            });
        } else {
            dice.shuffle(&mut points);
        }
        let next = Mutex::new(points.into_iter());
        let lane = || -> Result<()> {
            let server = Server::start(Rules::default())?;
            let number = server.issue();
            let starts = SUBJECTS.iter().map(|one| one.start(plan, program, &server, number));
            let starts = starts.collect::<Result<Vec<_>>>()?;
            loop {
                let point = next.lock().map_err(|_| anyhow!("a lane failed"))?.next();
                let Some((which, point)) = point else { return Ok(()) };
                let over = {
                    let tallies: std::sync::MutexGuard<'_, Vec<Tally>> =
                        tallies.lock().map_err(|_| anyhow!("a lane failed"))?;
                    tallies.iter().any(|tally| plan.is_over(until, tally))
                };
                if over {
                    return Ok(());
                }
                let subject = SUBJECTS[which];
                subject.reset(&server, number);
                let ground = starts[which].copy()?;
                // The address of the server stands in the config, not in the login.
                let args = subject.args(&server);
                let (input, careless) = (subject.input(), &plan.careless);
                let seen = trace::run(&ground, program, &args, input, careless, Some(point))?;
                let Some(seen) = seen else { return Ok(()) };
                let ended = Ended { well: seen.code == Some(0), kept: seen.kept, late: seen.late };
                let verdict = subject.check(&ground, program, &server, number, &ended)?;
                if seen.killed || !verdict.wrong.is_empty() {
                    let wrong = verdict.wrong.into_iter().map(|what| format!("{what} ({point:?})"));
                    let mut tallies: std::sync::MutexGuard<'_, Vec<Tally>> =
                        tallies.lock().map_err(|_| anyhow!("a lane failed"))?;
                    tallies[which].case(wrong.collect());
                    tallies[which].window += u64::from(verdict.window);
                }
            }
        };
        std::thread::scope(|scope| {
            let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
            lanes.into_iter().try_for_each(|lane| lane.join().map_err(|_| anyhow!("panic"))?)
        })?;
        if plan.is_careless() || Instant::now() >= until {
            break;
        }
    }
    let mut tallies: Vec<Tally> = tallies.into_inner().map_err(|_| anyhow!("a lane failed"))?;
    for (which, tally) in tallies.iter_mut().enumerate() {
        let count = listed.iter().filter(|(other, _)| *other == which).count();
        tally.note = format!("{count} points in a run");
        if SUBJECTS[which] == Subject::Refresh(Rotation::Strict) {
            tally.note += &format!(", {} in the window of a strict server", tally.window);
        }
    }
    Ok(tallies)
}

/// Lists the points of all subjects: of two runs each, as threads take turns differently.
fn list(plan: &Plan) -> Result<Option<Vec<(usize, Point)>>> {
    let program = plan.programs.subject()?;
    let server = Server::start(Rules::default())?;
    let number = server.issue();
    let mut listed = Vec::new();
    for (which, subject) in SUBJECTS.iter().enumerate() {
        let start = subject.start(plan, program, &server, number)?;
        for _ in 0..2 {
            subject.reset(&server, number);
            let seen = once(*subject, &start.copy()?, plan, &server)?;
            let Some(points) = seen else { return Ok(None) };
            listed.extend(points.into_iter().map(|point| (which, point)));
        }
    }
    let mut seen = HashSet::new();
    listed.retain(|point| seen.insert(*point));
    Ok(Some(listed))
}

fn once(
    subject: Subject,
    ground: &super::ground::Ground,
    plan: &Plan,
    server: &Server,
) -> Result<Option<Vec<Point>>> {
    let program = plan.programs.subject()?;
    let (input, careless) = (subject.input(), &plan.careless);
    let seen = trace::run(ground, program, &subject.args(server), input, careless, None)?;
    let Some(seen) = seen else { return Ok(None) };
    let expected = if subject == Subject::Cooldown { 1 } else { 0 };
    anyhow::ensure!(
        seen.code == Some(expected),
        "{} ended with {:?} although nobody disturbed it",
        subject.name(),
        seen.code
    );
    Ok(Some(seen.points))
}
