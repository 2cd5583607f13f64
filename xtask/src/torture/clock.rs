//! `clock`: the clock is wrong, by an hour, by ten years, forwards and backwards, while a token
//! server refuses and while a login rests.

use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use super::acme::{Rules, Server};
use super::ground::{Ground, LOGIN, expired, login, now_ms, said};
use super::{Dice, Plan, Tally};

const HOUR: i64 = 3_600_000;
const YEAR: i64 = 365 * 24 * HOUR;

/// The longest rest that anything may cause, and a minute for the run itself.
const CAP: i64 = 7 * 24 * HOUR + 60_000;

/// The jumps of the issue.
const JUMPS: &[i64] = &[0, HOUR, -HOUR, 10 * YEAR, -10 * YEAR];

pub(super) fn run(plan: &Plan) -> Result<Vec<Tally>> {
    let storm = storm(plan)?;
    if plan.is_careless() {
        return Ok(vec![storm]);
    }
    Ok(vec![storm, rest(plan)?])
}

fn run_at(plan: &Plan, ground: &Ground, clock: i64, line: &str) -> Result<std::process::Output> {
    let env =
        vec![("TORTURE_CARELESS", plan.careless.clone()), ("TORTURE_CLOCK", clock.to_string())];
    let args: Vec<&str> = line.split_whitespace().collect();
    ground.run(plan.programs.host()?, &args, &env, "")
}

/// Asks again and again for a login that the server refuses to renew, while the clock jumps from
/// one time to another: at most one request per jump.
fn storm(plan: &Plan) -> Result<Tally> {
    let server = Server::start(Rules { refuse: Some(503), ..Rules::default() })?;
    let mut tally = Tally::new("refused refresh while the clock jumps");
    let mut dice = Dice(plan.seed);
    let mut pairs: Vec<(i64, i64)> =
        JUMPS.iter().flat_map(|from| JUMPS.iter().map(move |to| (*from, *to))).collect();
    dice.shuffle(&mut pairs);
    let until = plan.until(0.02);
    for (from, to) in pairs {
        if plan.is_over(until, &tally) {
            break;
        }
        let number = server.issue();
        let ground = Ground::with_config(plan, &server)?;
        let mut old = expired(number);
        // Expired whatever the clock says.
        old["expires"] = json!(now_ms() - 30 * YEAR);
        ground.put_store(&json!({ LOGIN: old }))?;
        let before = std::fs::read(ground.store_path())?;
        let (mut wrong, start) = (Vec::new(), Instant::now());
        for clock in [from, to] {
            for _ in 0..3 {
                let output = run_at(plan, &ground, clock, "models auth refresh")?;
                if output.status.code() != Some(1) {
                    let status = output.status;
                    wrong.push(format!("a refused refresh ends with {status}: {}", said(&output)));
                }
            }
        }
        // A machine so slow that the minute is over may ask again.
        let minutes = start.elapsed().as_secs() / 60;
        let (asked, allowed) = (server.asked(number), 1 + u64::from(from != to) + minutes);
        if asked > allowed || asked == 0 {
            wrong.push(format!("{asked} requests where {allowed} are allowed"));
        }
        if std::fs::read(ground.store_path())? != before {
            wrong.push("a failed refresh changed the store".into());
        }
        let jump = format!("{} h to {} h", from / HOUR, to / HOUR);
        tally.case(wrong.into_iter().map(|what| format!("{what} ({jump})")).collect());
    }
    tally.note = "no storm: at most one request per time".into();
    Ok(tally)
}

/// Makes a login rest under one clock and uses it under another.
fn rest(plan: &Plan) -> Result<Tally> {
    let server = Server::start(Rules { chat: 429, ..Rules::default() })?;
    let mut tally = Tally::new("a rest, begun by one clock, seen by another");
    tally.note = "no rest above its cap of 7 days".into();
    let until = plan.until(0.02);
    for from in JUMPS {
        for to in JUMPS {
            if plan.is_over(until, &tally) {
                return Ok(tally);
            }
            let number = server.issue();
            let ground = Ground::with_config(plan, &server)?;
            let mut good = login(number, 1, 0);
            // Good whatever the clock says.
            good["expires"] = json!(now_ms() + 30 * YEAR);
            ground.put_store(&json!({ LOGIN: good }))?;
            let mut wrong = Vec::new();
            for clock in [from, to] {
                let chat = run_at(plan, &ground, *clock, "agent -m hi --model acme/anvil-1")?;
                if chat.status.code() != Some(1) {
                    wrong.push(format!("a chat ends with {}: {}", chat.status, said(&chat)));
                }
            }
            let status = run_at(plan, &ground, *to, "models status --json")?;
            if !status.status.success() {
                wrong.push(format!("status fails: {}", said(&status)));
            }
            let now = now_ms() + to;
            let until = serde_json::from_slice(&status.stdout)
                .map(|json| longest(&json))
                .unwrap_or_default();
            if until - now > CAP {
                wrong.push(format!("it rests for {} h", (until - now) / HOUR));
            }
            let jump = format!("{} h to {} h", from / HOUR, to / HOUR);
            tally.case(wrong.into_iter().map(|what| format!("{what} ({jump})")).collect());
        }
    }
    Ok(tally)
}

/// Finds the latest end of a rest that `models status --json` shows.
fn longest(status: &serde_json::Value) -> i64 {
    let unusable = &status["auth"]["unusableProfiles"];
    let ends =
        unusable.as_array().into_iter().flatten().filter_map(|entry| entry["until"].as_i64());
    ends.max().unwrap_or_default()
}
