//! Programs as backends: kept warm, never mixed up, ended in time, whatever they do.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use moltbot_config::Env;
use moltbot_core::{Event, Registry};
use moltbot_gateway::*;
use moltbot_profiles::{FileStore, STORE_FILE};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::stage::{block_on, config};

fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let plugins = vec![
            &moltbot_plugin_anthropic::PLUGIN,
            &moltbot_plugin_api_key::PLUGIN,
            &moltbot_plugin_claude_cli::PLUGIN,
        ];
        Registry::new(plugins, &[]).unwrap()
    })
}

/// A config without any fallback.
fn alone() -> Value {
    json!({"agents": {"defaults": {"model": {"primary": "claude-cli/sonnet"}}}})
}

/// A home with a fake program on the path.
struct Home {
    dir: TempDir,
    limits: Limits,
    config: Value,
}

impl Home {
    fn new(plan: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".claude")).unwrap();
        let home = Self { dir, limits: Limits::default(), config: alone() };
        home.plan(plan);
        home
    }

    fn plan(&self, plan: &str) {
        std::fs::write(self.dir.path().join(".claude/fake-stream.plan"), format!("{plan}\n"))
            .unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join(".claude/fake-stream.log")).unwrap_or_default()
    }

    fn engine(&self) -> Engine {
        let dir = self.dir.path().to_path_buf();
        let fake =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/fake-claude-stream");
        let path = format!("{}:/usr/bin:/bin", fake.canonicalize().unwrap().display());
        let env = [
            ("PATH", path.as_str()),
            ("HOME", dir.to_str().unwrap()),
            ("ANTHROPIC_API_KEY", "sk-ant-api03-FAKECANARY0000000000"),
            ("ANTHROPIC_BASE_URL", "http://127.0.0.1:9/FAKECANARY"),
            ("CLAUDE_CODE_USE_BEDROCK", "FAKECANARY"),
            ("CLAUDE_CONFIG_DIR", "/FAKE-CONFIG-DIR"),
        ];
        Engine::new(EngineParts {
            registry: registry(),
            config: Arc::new(config(self.config.clone())),
            env: Env::new(env),
            home: Some(dir.clone()),
            agent: AgentPaths {
                id: "main".into(),
                store: dir.join(STORE_FILE),
                sessions: dir.join("sessions"),
                dir: dir.clone(),
            },
            store: Arc::new(FileStore::new(dir.join(STORE_FILE))),
            front: Arc::new(Silent),
            clock: Arc::new(SystemClock),
            lab_base_url: None,
            limits: self.limits,
        })
    }
}

fn request(prompt: &str, history: &[Turn]) -> ChatRequest {
    ChatRequest {
        model: Some("claude-cli/sonnet".into()),
        prompt: prompt.into(),
        history: history.to_vec(),
        ..ChatRequest::default()
    }
}

async fn say(engine: &Engine, prompt: &str, history: &mut Vec<Turn>) -> (String, u32, String) {
    let reply = engine.chat(request(prompt, history), &mut |_| {}).await.expect("a reply");
    history.extend(reply.turns);
    let mut parts = reply.text.splitn(3, ':').map(String::from);
    let mut part = || parts.next().unwrap_or_default();
    (part(), part().parse().unwrap(), part())
}

fn fails(home: &Home) -> (ChatError, String) {
    let mut shown = String::new();
    let mut sink = |event: &Event| {
        if let Event::Text { text, .. } = event {
            shown.push_str(text);
        }
    };
    let error = block_on(async { home.engine().chat(request("hi", &[]), &mut sink).await });
    (error.expect_err("a failure"), shown)
}

/// Whether a process with this number runs, and is not only waited for.
fn runs(pid: &str) -> bool {
    let status = std::fs::read_to_string(PathBuf::from("/proc").join(pid).join("stat"));
    status.is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

fn ends(pid: &str) -> bool {
    let until = Instant::now() + Duration::from_secs(60);
    while runs(pid) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    !runs(pid)
}

fn pid_of(log: &str) -> String {
    let line = log.lines().rfind(|line| line.starts_with("pid ")).expect("it was started");
    line.trim_start_matches("pid ").to_string()
}

#[test]
fn a_conversation_keeps_its_process_and_nobody_elses() {
    let home = Home::new("ok");
    block_on(async {
        let engine = home.engine();
        let (mut one, mut two) = (Vec::new(), Vec::new());
        let (first, turn, text) = say(&engine, "hi", &mut one).await;
        assert_eq!((turn, text.as_str()), (1, "hi"));
        let (same, turn, _) = say(&engine, "more", &mut one).await;
        assert_eq!((&same, turn), (&first, 2), "warm");
        // Same words, another conversation.
        let (other, turn, _) = say(&engine, "hi", &mut two).await;
        assert!(other != first && turn == 1);
        // A conversation that was changed elsewhere is not continued by who does not know it.
        let mut changed = one.clone();
        changed[1].content = vec![json!({"type": "text", "text": "something else"})];
        let (fresh, turn, _) = say(&engine, "so", &mut changed).await;
        assert!(fresh != first && turn == 1);
        assert_eq!(say(&engine, "on", &mut one).await.1, 3);
        drop(engine);
    });
    assert!(home.log().lines().filter(|line| line.starts_with("pid ")).count() == 3);
    assert!(ends(&pid_of(&home.log())), "no program outlives its engine");
}

#[test]
fn a_thousand_turns_of_twenty_conversations_are_not_mixed_up() {
    let home = Home::new("ok");
    block_on(async {
        let engine = home.engine();
        let talk = |n: usize| {
            let engine = &engine;
            async move {
                let mut history = Vec::new();
                for turn in 0..50 {
                    let words = format!("conversation {n} turn {turn}");
                    let (_, _, text) = say(engine, &words, &mut history).await;
                    assert_eq!(text, words);
                }
            }
        };
        // Twenty at once are more than may wait, so that some start anew in between.
        join_all((0..20).map(talk)).await;
    });
}

#[test]
fn fifty_turns_at_once_have_fifty_programs() {
    let home = Home::new("ok");
    block_on(async {
        let engine = home.engine();
        let turns = (0..50).map(|n| {
            let engine = &engine;
            async move {
                let words = format!("number {n}");
                let (pid, _, text) = say(engine, &words, &mut Vec::new()).await;
                assert_eq!(text, words);
                pid
            }
        });
        let mut pids = join_all(turns).await;
        pids.sort();
        pids.dedup();
        assert_eq!(pids.len(), 50);
    });
}

/// Polls futures side by side and returns their results in order.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(move |cx| {
        let mut pending = false;
        for (future, result) in &mut futures {
            if result.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *result = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(futures.iter_mut().filter_map(|(_, result)| result.take()).collect())
    })
    .await
}

#[test]
fn whatever_a_program_does_is_told_in_words() {
    for (plan, code, words) in [
        ("before", "claude-cli-failed", "cannot open the terminal"),
        ("middle", "claude-cli-failed", "exit code 4"),
        ("garbage", "claude-cli-failed", "no JSON"),
        ("half", "claude-cli-failed", "exit code 0"),
        ("old", "claude-cli-version", "2.1.197"),
        ("login", "claude-cli-login", ""),
        ("limit", "all-cooling", ""),
    ] {
        let home = Home::new(plan);
        let (error, shown) = fails(&home);
        let seen = error.record.as_ref().and_then(|record| record.attempts.last()?.message.clone());
        let all = format!("{} {seen:?} {:?}", error.message, error.advice);
        if plan != "limit" {
            assert_eq!(error.code, code, "{plan}: {error:?}");
        }
        assert!(all.contains(words), "{plan}: {all}");
        assert_eq!(shown, "", "{plan}");
        assert!(ends(&pid_of(&home.log())), "{plan}");
    }
}

#[test]
fn a_spent_limit_rests_the_virtual_profile() {
    let home = Home::new("limit");
    let _ = fails(&home);
    let store = FileStore::new(home.dir.path().join(STORE_FILE));
    let profiles = store.load_blocking().unwrap().profiles;
    let stats = profiles.stats("claude-cli:login").expect("statistics");
    assert!(stats.blocked(Some("sonnet"), SystemClock.now()).is_some(), "{stats:?}");
    assert_eq!(profiles.iter().count(), 0, "nothing but the statistics is stored");
}

#[test]
fn a_reply_that_was_begun_is_kept_in_parts() {
    let (error, shown) = fails(&Home::new("cut"));
    assert!(shown.ends_with(":1:"), "{shown}");
    assert!(error.partial.is_some());
}

#[test]
fn noise_is_survived() {
    for plan in ["large", "flood"] {
        let home = Home::new(plan);
        block_on(async {
            let engine = home.engine();
            assert_eq!(say(&engine, "hi", &mut Vec::new()).await.2, "hi", "{plan}");
        });
    }
}

#[test]
fn who_ends_or_speaks_between_turns_is_replaced() {
    for plan in ["after", "chatty"] {
        let home = Home::new(plan);
        block_on(async {
            let engine = home.engine();
            let mut history = Vec::new();
            let (first, ..) = say(&engine, "hi", &mut history).await;
            assert!(tokio::task::spawn_blocking(move || ends(&first)).await.unwrap(), "{plan}");
            let (_, turn, text) = say(&engine, "more", &mut history).await;
            assert_eq!((turn, text.as_str()), (1, "more"), "{plan}");
        });
    }
}

#[test]
fn a_program_that_hangs_is_ended() {
    let mut home = Home::new("hang");
    home.limits = Limits { first_byte_ms: 3_000, idle_ms: 3_000, ..Limits::default() };
    let (error, _) = fails(&home);
    assert_eq!(error.code, "timeout", "{error:?}");
    assert!(ends(&pid_of(&home.log())));
}

/// Waits until a program other than `warm` has started.
async fn started(home: &Home, warm: &str) {
    while pid_of(&home.log()) == warm {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn cancelling_ends_the_turn_and_not_the_pool() {
    for plan in ["slow", "deaf"] {
        let home = Home::new("ok");
        block_on(async {
            let engine = home.engine();
            let mut history = Vec::new();
            let (warm, ..) = say(&engine, "hi", &mut history).await;
            home.plan(plan);
            let mut ignore = |_: &Event| {};
            let turn = engine.chat(request("slow", &[]), &mut ignore);
            tokio::select! {
                ended = turn => panic!("it was answered: {ended:?}"),
                () = started(&home, &warm) => {}
            }
            let slow = pid_of(&home.log());
            assert!(tokio::task::spawn_blocking(move || ends(&slow)).await.unwrap(), "{plan}");
            assert_eq!(say(&engine, "more", &mut history).await.0, warm, "{plan}");
        });
    }
}

#[test]
fn the_environment_is_an_allow_list() {
    let home = Home::new("ok");
    block_on(async { say(&home.engine(), "hi", &mut Vec::new()).await });
    let log = home.log();
    assert!(!log.contains("FAKECANARY"), "{log}");
    assert!(log.contains("CLAUDE_CONFIG_DIR=/FAKE-CONFIG-DIR"), "where the login is: {log}");
    assert!(log.contains(&format!("{}/programs", home.dir.path().display())), "{log}");
}

#[test]
fn a_paid_fallback_needs_a_word() {
    let fallback = |allowed: Option<bool>| {
        let mut home = Home::new("limit");
        home.config = json!({
            "agents": {"defaults": {"model": {
                "primary": "claude-cli/sonnet", "fallbacks": ["anthropic/claude-opus-4-5"],
            }}},
        });
        if let Some(allowed) = allowed {
            home.config["auth"] = json!({ "allowPaidFallback": allowed });
        }
        let engine = home.engine();
        block_on(async {
            let mut records = Vec::new();
            // The second time the plan rests, and is not asked at all.
            for _ in 0..2 {
                let reply = engine.chat(request("hi", &[]), &mut |_| {}).await;
                records.push(reply.expect_err("nobody answers").record.expect("a record"));
            }
            records
        })
    };
    let refused = fallback(None);
    let tried = |records: &[Box<Record>]| {
        records.iter().map(|record| record.attempts.len()).collect::<Vec<_>>()
    };
    assert_eq!(tried(&refused), [1, 0], "the key is not even tried: {refused:?}");
    assert_eq!(tried(&fallback(Some(false))), [1, 0]);
}
