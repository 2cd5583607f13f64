//! `recovery`: a refresh is killed, and the program that finishes it is killed too, at each of its
//! own points; the third one must find everything.

use std::collections::HashSet;
use std::sync::Mutex;

use anyhow::{Result, anyhow};

use super::acme::{Rotation, Rules, Server};
use super::ground::{Ground, now_ms};
use super::kill::LANES;
use super::state::{Run, digest};
use super::subject::{Ended, Subject};
use super::trace::{self, Point};
use super::{Dice, Plan, Tally};

/// How many first kills are followed up.
const FIRST: usize = 60;

/// What one lane did.
struct Share {
    /// Second kills.
    done: usize,
    /// Those among them that left something new, so that the program was started a third time.
    new: usize,
    /// All that there are, in the other parts too.
    all: usize,
    /// What they come after.
    firsts: usize,
}

/// What a first kill left.
struct Left {
    rotation: Rotation,
    ground: Ground,
    /// The generation that the server had given out by then.
    newest: u64,
    kept: bool,
}

/// Kills twice.
pub(super) fn run(plan: &Plan) -> Result<Vec<Tally>> {
    let program = plan.programs.subject()?;
    let until = plan.until(0.2);
    let tally = Mutex::new(Tally::new("second kill in the recovery of a refresh"));
    let firsts = if plan.quick { 6 } else { FIRST };
    let share = Mutex::new(Vec::new());
    let lane = |lane: usize| -> Result<()> {
        let server = Server::start(Rules::default())?;
        let number = server.issue();
        let mut dice = Dice(plan.seed ^ lane as u64);
        let Some(lefts) = lefts(plan, &server, number, firsts / LANES, &mut dice)? else {
            return Ok(());
        };
        let mut pairs: Vec<(usize, Point)> = Vec::new();
        for (index, left) in lefts.iter().enumerate() {
            let seen = again(plan, left, &server, number, None)?.1;
            pairs.extend(seen.points.into_iter().map(|point| (index, point)));
        }
        let all = pairs.len();
        let mut case = 0..;
        pairs.retain(|_| case.next().is_some_and(|case| plan.is_ours(case)));
        if plan.is_careless() {
            pairs.reverse();
        } else {
            dice.shuffle(&mut pairs);
        }
        let mut share_of = Share { done: 0, new: 0, all, firsts: lefts.len() };
        let mut known = HashSet::new();
        for (index, point) in pairs {
            if plan.is_over(until, &*tally.lock().map_err(|_| anyhow!("a lane failed"))?) {
                break;
            }
            let left = &lefts[index];
            let began = now_ms();
            let (ground, seen) = again(plan, left, &server, number, Some(point))?;
            let ended =
                Ended { well: seen.code == Some(0), kept: left.kept || seen.kept, late: seen.late };
            share_of.done += 1;
            // What left the same files, and the same login at the server, ends the same way.
            let files = digest(ground.home(), &Run { pid: seen.pid, began })?;
            let state = (index, server.newest(number), ended.kept, ended.late, files);
            if seen.killed && known.contains(&state) {
                tally.lock().map_err(|_| anyhow!("a lane failed"))?.case(Vec::new());
                continue;
            }
            share_of.new += 1;
            let subject = Subject::Refresh(left.rotation);
            let verdict = subject.check(&ground, program, &server, number, &ended)?;
            if seen.killed && verdict.wrong.is_empty() {
                known.insert(state);
            }
            if seen.killed || !verdict.wrong.is_empty() {
                let wrong = verdict.wrong.into_iter().map(|what| format!("{what} ({point:?})"));
                let mut tally = tally.lock().map_err(|_| anyhow!("a lane failed"))?;
                tally.case(wrong.collect());
            }
        }
        share.lock().map_err(|_| anyhow!("a lane failed"))?.push(share_of);
        Ok(())
    };
    std::thread::scope(|scope| {
        let lane = &lane;
        let lanes: Vec<_> = (0..LANES).map(|n| scope.spawn(move || lane(n))).collect();
        lanes.into_iter().try_for_each(|lane| lane.join().map_err(|_| anyhow!("panic"))?)
    })?;
    let mut tally = tally.into_inner().map_err(|_| anyhow!("a lane failed"))?;
    let share = share.into_inner().map_err(|_| anyhow!("a lane failed"))?;
    let sum = |pick: fn(&Share) -> usize| share.iter().map(pick).sum::<usize>();
    tally.note = match share.is_empty() {
        true => "skipped: needs ptrace on Linux x86-64, and leave to use it".into(),
        false => {
            let (done, all) = (sum(|it| it.done), sum(|it| it.all));
            let (new, firsts) = (sum(|it| it.new), sum(|it| it.firsts));
            format!("{done} of {all} pairs on {firsts} points, {new} left something new")
        }
    };
    Ok(vec![tally])
}

/// Kills refreshes at points spread over all that come after the journal was opened, and keeps
/// what they left; of a strict server only what had not been lost already.
fn lefts(
    plan: &Plan,
    server: &Server,
    number: u64,
    count: usize,
    dice: &mut Dice,
) -> Result<Option<Vec<Left>>> {
    let program = plan.programs.subject()?;
    let mut lefts = Vec::new();
    for (rotation, count) in
        [(Rotation::Repeating, count.div_ceil(2)), (Rotation::Strict, count / 2)]
    {
        let subject = Subject::Refresh(rotation);
        let start = subject.start(plan, program, server, number)?;
        let kill = |at| -> Result<Option<(Ground, trace::Seen)>> {
            subject.reset(server, number);
            let ground = start.copy()?;
            let seen = trace::run(&ground, program, &subject.args(server), "", &plan.careless, at)?;
            Ok(seen.map(|seen| (ground, seen)))
        };
        let Some((_, seen)) = kill(None)? else { return Ok(None) };
        let mut points = seen.points;
        dice.shuffle(&mut points);
        let mut found = 0;
        for point in points {
            if found >= count {
                break;
            }
            let Some((ground, seen)) = kill(Some(point))? else { return Ok(None) };
            let newest = server.newest(number);
            let lost = rotation == Rotation::Strict && newest > 1 && !seen.kept;
            if seen.killed && has_journal(&ground) && !lost {
                found += 1;
                ground.forgive()?;
                lefts.push(Left { rotation, ground, newest, kept: seen.kept });
            }
        }
    }
    Ok(Some(lefts))
}

/// Starts the program on what a first kill left.
fn again(
    plan: &Plan,
    left: &Left,
    server: &Server,
    number: u64,
    at: Option<Point>,
) -> Result<(Ground, trace::Seen)> {
    let subject = Subject::Refresh(left.rotation);
    subject.reset(server, number);
    server.rewind(number, left.newest);
    let ground = left.ground.copy()?;
    let program = plan.programs.subject()?;
    let seen = trace::run(&ground, program, &subject.args(server), "", &plan.careless, at)?;
    Ok((ground, seen.ok_or_else(|| anyhow!("there was a tracer before"))?))
}

fn has_journal(ground: &Ground) -> bool {
    let dir = std::fs::read_dir(ground.agent(""));
    let names = dir.into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.into_iter().any(|name| {
        let name = name.to_string_lossy();
        name.contains(".renewal-") && !name.ends_with("lock") && !name.contains("failed")
    })
}
