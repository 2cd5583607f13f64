//! "Two keys, one subscription, a 429 at noon": the README's transcript is run as it stands, and
//! what is printed must be what the README shows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use moltbot_lab::{Lab, LabOptions, parse_plan};

use crate::support::{KEY, KEY2, Sandbox, token};

/// 2026-11-22T12:00:00Z.
const NOON: i64 = 1_795_348_800_000;

/// With this variable the README is written anew instead of compared.
const UPDATE: &str = "MOLTBOT_UPDATE_README";

/// One command of the transcript.
struct Step {
    /// The time of day, as `# 12:00` says.
    clock: String,
    typed: String,
    command: Vec<String>,
    /// What it prints, as the README has it.
    printed: String,
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")
}

fn readme() -> String {
    std::fs::read_to_string(path()).unwrap()
}

/// Cuts the README's transcript into commands.
fn steps(readme: &str) -> Vec<Step> {
    let section = &readme[readme.find("## Two keys, one subscription").expect("the section")..];
    let block = &section[section.find("```text\n").expect("the transcript") + 8..];
    let block = &block[..block.find("\n```").expect("its end")];
    let (mut clock, mut steps) = (String::new(), Vec::<Step>::new());
    for line in block.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            clock = comment.get(..5).expect("a time of day").to_string();
        } else if let Some(command) = line.strip_prefix("$ moltbot ") {
            steps.push(Step {
                clock: clock.clone(),
                typed: command.to_string(),
                command: words(command),
                printed: String::new(),
            });
        } else if let Some(step) = steps.last_mut() {
            step.printed.push_str(line);
            step.printed.push('\n');
        }
    }
    steps
}

/// Splits a command line at spaces outside of quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('"').enumerate() {
        match at % 2 {
            1 => words.push(part.to_string()),
            _ => words.extend(part.split_whitespace().map(String::from)),
        }
    }
    words
}

/// Replaces what differs from run to run: ids and how long a request took.
fn steady(text: &str) -> String {
    let mut out = Vec::new();
    for line in text.lines() {
        let mut words: Vec<String> = line.split(' ').map(String::from).collect();
        for at in 0..words.len() {
            let digits = !words[at].is_empty() && words[at].bytes().all(|b| b.is_ascii_digit());
            if digits && words.get(at + 1).is_some_and(|next| next.trim_end_matches(',') == "ms") {
                words[at] = "N".into();
            }
            for prefix in ["mb_", "req_", "http://127.0.0.1:"] {
                if words[at].starts_with(prefix) {
                    words[at] = format!("{prefix}...");
                }
            }
        }
        out.push(words.join(" ").trim_end().to_string());
    }
    out.join("\n").trim_end().to_string()
}

#[test]
fn the_readmes_day_is_a_real_one() {
    let token = token();
    let plan = json!([
        { "match": { "key": &token[token.len() - 4..], "request": 1 },
            "fault": { "error": "rate-limit", "retryAfter": 7_200 } },
        { "fault": { "reply": { "text": "Hello! What shall we do?" } } },
    ]);
    let plan = parse_plan(&plan.to_string(), "test").unwrap();
    let options = LabOptions { plan, stands_at: Some(NOON), ..LabOptions::default() };
    let lab = Lab::start_on_thread(options).unwrap();
    let mut sandbox = Sandbox::new();
    sandbox.use_lab(&lab, json!({}));
    let key = |key: &str| json!({ "type": "api_key", "provider": "anthropic", "key": key });
    sandbox.write_store(&json!({ "version": 1, "profiles": {
        "anthropic:manual": { "type": "token", "provider": "anthropic", "token": token },
        "anthropic:work": key(KEY),
        "anthropic:spare": key(KEY2) } }));
    let readme = readme();
    let steps = steps(&readme);
    assert!(steps.len() >= 4, "{}", steps.len());
    let (mut new, mut time) = (readme.clone(), 12 * 60);
    for step in steps {
        sandbox.set_env("MOLTBOT_LAB_CLOCK", Some(&format!("2026-11-22T{}:00Z", step.clock)));
        let (hour, minute) = step.clock.split_once(':').expect("a time of day");
        let now = hour.parse::<u64>().unwrap() * 60 + minute.parse::<u64>().unwrap();
        lab.advance(Duration::from_secs((now - time) * 60));
        time = now;
        let line: Vec<&str> = step.command.iter().map(String::as_str).collect();
        let done = sandbox.run(&line).exits(0);
        if std::env::var_os(UPDATE).is_some() {
            let at = format!("$ moltbot {}\n{}", step.typed, step.printed);
            assert_eq!(new.matches(&at).count(), 1, "{at}");
            new = new.replace(&at, &format!("$ moltbot {}\n{}", step.typed, done.out));
            continue;
        }
        assert_eq!(
            steady(&done.out),
            steady(&step.printed),
            "at {} `moltbot {}` prints\n{}\n{}\n{UPDATE}=1 writes it down",
            step.clock,
            step.typed,
            done.out,
            done.err
        );
    }
    if new != readme {
        std::fs::write(path(), new).unwrap();
    }
}
