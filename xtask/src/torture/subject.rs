//! The commands that are killed, what they start from, and what must hold afterwards.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Plan;
use super::acme::{Rotation, Rules, Server, numbers};
use super::ground::{
    BYSTANDER, BYSTANDER_SECRET, Ground, LOGIN, bystander, login, now_ms, said, write,
};

/// A command that changes credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// `models auth refresh` of an expired login, against a server that repeats its answer or not.
    Refresh(Rotation),
    /// `models auth paste-token`
    PasteToken,
    /// `onboard` with the third party's login
    Onboard,
    /// `doctor --fix`, which takes over an old version's file
    Migrate,
    /// `models auth remove`
    Remove,
    /// `models auth undo`
    Undo,
    /// `agent -m`, whose reply makes the login rest
    Cooldown,
}

pub(super) const SUBJECTS: &[Subject] = &[
    Subject::Refresh(Rotation::Repeating),
    Subject::Refresh(Rotation::Strict),
    Subject::PasteToken,
    Subject::Onboard,
    Subject::Migrate,
    Subject::Remove,
    Subject::Undo,
    Subject::Cooldown,
];

/// The token that is pasted.
const PASTED: &str = "sk-ant-oat01-FAKEpasted000000000000000000000000000000000000000000000000\
                      000000000000000000000000";

const HOUR: i64 = 3_600_000;

/// What happened to a run before it is looked at.
pub(super) struct Ended {
    /// It said that all is well.
    pub(super) well: bool,
    /// The answer of the token endpoint was in the journal.
    pub(super) kept: bool,
    /// The answer had come, and something else was done before it was kept.
    pub(super) late: bool,
}

/// What a look at the home found.
#[derive(Default)]
pub(super) struct Verdict {
    /// What is wrong, in words.
    pub(super) wrong: Vec<String>,
    /// The login is lost where nobody can help: a strict server had decided, and its answer had
    /// not reached the journal.
    pub(super) window: bool,
}

impl From<String> for Verdict {
    fn from(wrong: String) -> Self {
        Self { wrong: vec![wrong], window: false }
    }
}

impl Subject {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Refresh(Rotation::Repeating) => "refresh, server repeats",
            Self::Refresh(Rotation::Strict) => "refresh, strict server",
            Self::PasteToken => "paste-token",
            Self::Onboard => "onboard",
            Self::Migrate => "migrate",
            Self::Remove => "remove",
            Self::Undo => "undo",
            Self::Cooldown => "cooldown update",
        }
    }

    pub(super) fn args(self, server: &Server) -> Vec<String> {
        let line = match self {
            Self::Refresh(_) => "models auth refresh".to_string(),
            Self::PasteToken => "models auth paste-token --provider anthropic".into(),
            Self::Onboard => format!(
                "onboard --non-interactive --accept-risk --auth-choice acme-oauth \
                 --acme-code FAKE-code --acme-login {}",
                server.url()
            ),
            Self::Migrate => "doctor --fix --non-interactive".into(),
            Self::Remove => format!("models auth remove {LOGIN}"),
            Self::Undo => "models auth undo".into(),
            Self::Cooldown => "agent -m hi --model acme/anvil-1".into(),
        };
        line.split_whitespace().map(String::from).collect()
    }

    pub(super) fn input(self) -> &'static str {
        if self == Self::PasteToken { PASTED } else { "" }
    }

    /// Sets the server's rules and takes its login back to the start.
    pub(super) fn reset(self, server: &Server, number: u64) {
        server.rewind(number, 1);
        server.rule(|rules| {
            let rotation = match self {
                Self::Refresh(rotation) => rotation,
                _ => Rotation::Strict,
            };
            let chat = if self == Self::Cooldown { 429 } else { 200 };
            *rules = Rules { rotation, chat, ..Rules::default() };
        });
    }

    /// Makes the home in which the command starts.
    pub(super) fn start(
        self,
        plan: &Plan,
        program: &Path,
        server: &Server,
        number: u64,
    ) -> Result<Ground> {
        self.reset(server, number);
        let ground = Ground::with_config(plan, server)?;
        let remaining = if matches!(self, Self::Refresh(_)) { -60_000 } else { HOUR };
        let mut profiles = json!({ BYSTANDER: bystander() });
        match self {
            Self::Refresh(_) | Self::Remove | Self::Undo | Self::Cooldown => {
                profiles[LOGIN] = login(number, 1, remaining);
                ground.put_store(&profiles)?;
            }
            Self::PasteToken => {
                let mut other = profiles[BYSTANDER].take();
                other["token"] = json!(BYSTANDER_SECRET);
                let profiles = json!({ "anthropic:other": other, LOGIN: login(number, 1, HOUR) });
                ground.put_store(&profiles)?;
            }
            Self::Onboard => ground.put_store(&profiles)?,
            Self::Migrate => {
                let mut old = login(number, 1, HOUR);
                old.as_object_mut().context("an object")?.remove("method");
                let old = json!({ "acme": old, "anthropic": profiles[BYSTANDER] });
                write(&ground.agent("auth.json"), old.to_string().as_bytes())?;
            }
        }
        // Copies of the plugin and what else every first command does.
        let mut first = vec!["models", "status"];
        if self == Self::Undo {
            first = vec!["models", "auth", "remove", LOGIN];
        }
        let output = ground.run(program, &first, &[], "")?;
        ensure!(output.status.success(), "{}: {}", self.name(), said(&output));
        Ok(ground)
    }

    /// Starts the program again and says what is wrong.
    pub(super) fn check(
        self,
        ground: &Ground,
        program: &Path,
        server: &Server,
        number: u64,
        ended: &Ended,
    ) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        let run = |line: &str| {
            let args: Vec<&str> = line.split_whitespace().collect();
            ground.run(program, &args, &[], "")
        };
        // Nothing may be said to be well that is not.
        let status = run("models status --json")?;
        let said_ok = serde_json::from_slice(&status.stdout).is_ok_and(|json| says_ok(&json));
        ground.forgive()?;
        let store = match ground.store() {
            Err(error) => return Ok(error.into()),
            Ok(store) => store.unwrap_or_default(),
        };
        if !status.status.success() {
            verdict.wrong.push(format!("status fails: {}", said(&status)));
        }
        let present = store["profiles"][LOGIN].clone();
        let dead = || {
            let held = numbers(present["access"].as_str()?, "access")?;
            let lives = held.1 == server.newest(held.0)
                && present["expires"].as_i64().is_some_and(|at| at > now_ms());
            Some(!lives)
        };
        let imported = self == Self::Migrate && store.is_null();
        if said_ok && !imported && dead().unwrap_or(true) {
            verdict.wrong.push("status says ok of a login that is dead".into());
        }
        self.after(&mut verdict, ground, &run, server, number, ended)?;
        let store = match ground.store() {
            Err(error) => return Ok(error.into()),
            Ok(store) => store.unwrap_or_default(),
        };
        let others = match self {
            Self::PasteToken => "anthropic:other",
            Self::Migrate => "anthropic:default",
            _ => BYSTANDER,
        };
        if store["profiles"][others]["token"] != BYSTANDER_SECRET {
            verdict.wrong.push("somebody else's login is gone".into());
        }
        Ok(verdict)
    }

    /// Makes the program finish or repeat what it did, and looks at the result.
    fn after(
        self,
        verdict: &mut Verdict,
        ground: &Ground,
        run: &dyn Fn(&str) -> Result<std::process::Output>,
        server: &Server,
        number: u64,
        ended: &Ended,
    ) -> Result<()> {
        let wrong = &mut verdict.wrong;
        let good = |id: &str| {
            let store = ground.store().ok().flatten().unwrap_or_default();
            let refresh = store["profiles"][id]["refresh"].as_str().map(str::to_string);
            refresh.and_then(|text| numbers(&text, "refresh")) == Some((number, 1))
        };
        match self {
            Self::Refresh(rotation) => {
                let spent = server.newest(number) > 1;
                let again = run("models auth refresh")?;
                let (newest, held) = (server.newest(number), ground.generation());
                let alive = held == Some((number, newest)) && newest > 1;
                // Between the server's decision and the journal's write nobody can help.
                let strict = rotation == Rotation::Strict;
                let early = !ended.kept && !ended.late && !ended.well;
                verdict.window = !alive && strict && spent && early;
                if !alive && !verdict.window {
                    wrong.push(format!(
                        "the login is lost: newest {newest}, held {held:?}: {}",
                        said(&again)
                    ));
                } else if alive && !again.status.success() {
                    wrong.push(format!("a second refresh fails: {}", said(&again)));
                } else if !alive && held.is_none() {
                    wrong.push("the profile of a spent login is gone".into());
                }
            }
            Self::PasteToken => {
                let pasted = |store: &Value| store["profiles"][BYSTANDER]["token"] == PASTED;
                let there = ground.store().ok().flatten().is_some_and(|store| pasted(&store));
                if ended.well && !there {
                    wrong.push("the pasted token was acknowledged and is not there".into());
                }
                if !good(LOGIN) {
                    wrong.push("the login is lost".into());
                }
            }
            Self::Onboard => {
                if ended.well && ground.generation().is_none() {
                    wrong.push("the login was acknowledged and is not there".into());
                }
            }
            Self::Migrate => {
                let again = run("doctor --fix --non-interactive")?;
                if !good("acme:default") {
                    wrong.push(format!("an old login was not taken over: {}", said(&again)));
                }
            }
            Self::Remove | Self::Undo => {
                if ended.well && good(LOGIN) == (self == Self::Remove) {
                    wrong.push("it was acknowledged and did not happen".into());
                }
                if !good(LOGIN) {
                    let undo = run("models auth undo")?;
                    if !good(LOGIN) {
                        wrong.push(format!("the removed login is lost: {}", said(&undo)));
                    }
                }
            }
            Self::Cooldown => {
                let count = |store: &Value| store["usageStats"][LOGIN]["errorCount"].as_i64();
                let counted = ground.store().ok().flatten().and_then(|store| count(&store));
                if counted.unwrap_or(0) > 1 {
                    wrong.push(format!("one failure was counted {counted:?} times"));
                }
                if !good(LOGIN) {
                    wrong.push("the login is lost".into());
                }
            }
        }
        Ok(())
    }
}

/// Tells whether `models status --json` calls the third party's login good.
fn says_ok(status: &Value) -> bool {
    match status {
        Value::Object(map) => {
            let is_it = map.get("profileId").is_some_and(|id| id == LOGIN);
            let ok = map.get("status").is_some_and(|word| word == "ok" || word == "expiring");
            (is_it && ok) || map.values().any(says_ok)
        }
        Value::Array(list) => list.iter().any(says_ok),
        _ => false,
    }
}
