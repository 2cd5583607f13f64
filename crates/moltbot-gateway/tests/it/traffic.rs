//! Much traffic at once: the retry budget, what replies tell about limits, the price of a switch,
//! and waiting in order of arrival.

use std::sync::Arc;

use moltbot_core::{Event, Usage};
use moltbot_gateway::*;
use moltbot_profiles::BlockKind;
use serde_json::{Value, json};

use crate::stage::*;

const OPUS: &str = "claude-opus-4-5";

fn hi() -> ChatRequest {
    ChatRequest { prompt: "hi".into(), ..ChatRequest::default() }
}

fn two_keys(plan: &str) -> Stage {
    Stage::new(plan).key("anthropic:default", ONE).key("anthropic:second", TWO)
}

fn ordered(stage: &Stage) {
    let order = ["anthropic:default", "anthropic:second"].map(String::from).to_vec();
    stage.change(|profiles| profiles.set_order("anthropic", order));
}

/// A service that is too busy for everybody gets at most a tenth more requests than there are.
#[test]
fn all_overloaded_costs_a_tenth_more_at_most() {
    let stage = two_keys("{rules: [{fault: {error: 'overloaded'}}]}");
    let engine = stage.engine();
    let count = 600;
    block_on(async {
        for _ in 0..count {
            let error = engine.chat(hi(), &mut |_: &Event| {}).await.unwrap_err();
            assert_eq!(error.code, "overloaded");
        }
    });
    let sent = stage.requests().len();
    assert!(sent > count, "with budget somebody asks again");
    assert!(sent * 100 <= count * 110, "{sent} requests for {count}");
}

/// Requests that fail for reasons of a profile are not held back: the next account may serve.
#[test]
fn a_refused_key_never_runs_out_of_budget() {
    let stage = two_keys("{rules: [{match: {key: 'one'}, fault: {error: 'invalid-key'}}]}");
    let engine = stage.engine();
    for _ in 0..20 {
        stage.change(|profiles| {
            profiles.clear_cooldowns(None, stage.clock.now());
        });
        let reply = block_on(engine.chat(hi(), &mut |_: &Event| {})).unwrap();
        assert_eq!(reply.profile.as_deref(), Some("anthropic:second"));
    }
}

/// Replies tell the limits; the picture is kept with the statistics, decides, and is explained.
#[test]
fn what_a_reply_tells_decides_about_the_next_request() {
    let reset = SystemClock.now().plus(3_600_000).millis() / 1_000;
    let headers = json!({
        "anthropic-ratelimit-input-tokens-limit": "1000",
        "anthropic-ratelimit-input-tokens-remaining": "0",
        "anthropic-ratelimit-input-tokens-reset": reset.to_string(),
    });
    let plan = json!({ "rules": [{ "match": { "key": "one" }, "fault": { "headers": headers } }] });
    let stage = two_keys(&plan.to_string());
    ordered(&stage);
    let first = stage.chat().0.unwrap();
    assert_eq!(first.profile.as_deref(), Some("anthropic:default"), "a success is a success");
    let profiles = stage.profiles();
    let stats = profiles.stats("anthropic:default").unwrap();
    let blocked = stats.blocked(Some(OPUS), stage.clock.now()).unwrap();
    assert_eq!((blocked.kind, blocked.until.millis() / 1_000), (BlockKind::Empty, reset));
    assert_eq!(stats.whole.error_count, 0, "nobody is punished for it");

    let second = stage.chat().0.unwrap();
    assert_eq!(second.profile.as_deref(), Some("anthropic:second"));
    let candidates = &second.record.models[0].candidates;
    let empty = candidates.iter().find(|one| one.profile == first.profile).unwrap();
    assert_eq!(empty.skipped.as_deref(), Some("used up for this model: input-tokens"));
    assert_eq!(empty.until, Some(blocked.until));
    let quota = empty.quota.as_ref().unwrap();
    assert_eq!(
        (quota.limit.as_str(), quota.used, quota.remaining),
        ("input-tokens", 1.0, Some(0.0))
    );
    // Another model has a limit of its own.
    let small = ChatRequest { model: Some("anthropic/claude-haiku-4-5".into()), ..hi() };
    assert_eq!(stage.say(small).0.unwrap().profile, first.profile);
    // After the reset it is tried again.
    stage.clock.advance(3_700_000);
    assert_eq!(stage.chat().0.unwrap().profile, first.profile);
}

/// The strategies, by what the headers of replies told.
#[test]
fn strategies_follow_the_headers_of_replies() {
    let window = |used: &str, hours: i64| -> Value {
        let reset = SystemClock.now().plus(hours * 3_600_000).millis() / 1_000;
        json!({ "anthropic-ratelimit-unified-status": "allowed",
            "anthropic-ratelimit-unified-5h-status": "allowed",
            "anthropic-ratelimit-unified-5h-utilization": used,
            "anthropic-ratelimit-unified-5h-reset": reset.to_string() })
    };
    let plan = json!({ "rules": [
        { "match": { "key": "one" }, "fault": { "headers": window("0.9", 1) } },
        { "match": { "key": "two" }, "fault": { "headers": window("0.2", 4) } },
    ] });
    let mut stage = two_keys(&plan.to_string());
    ordered(&stage);
    let ask = |stage: &Stage, profile: Option<&str>| {
        let profile = profile.map(String::from);
        let reply = stage.say(ChatRequest { profile, ..hi() }).0.unwrap();
        stage.clock.advance(1_000);
        reply.profile.unwrap()
    };
    for id in ["anthropic:default", "anthropic:second"] {
        ask(&stage, Some(id));
    }
    for (strategy, expected) in [
        ("order", ["anthropic:default", "anthropic:default"]),
        ("drain", ["anthropic:default", "anthropic:default"]),
        ("least-used", ["anthropic:second", "anthropic:second"]),
        ("round-robin", ["anthropic:default", "anthropic:second"]),
    ] {
        stage.config = json!({ "auth": { "strategy": strategy } });
        assert_eq!([ask(&stage, None), ask(&stage, None)], expected, "{strategy}");
    }
    stage.config = json!({ "auth": { "strategy": "drain" } });
    let record = block_on(stage.engine().explain(None, None)).unwrap();
    assert_eq!(record.models[0].strategy.as_deref(), Some("drain"));
    let used: Vec<_> =
        record.models[0].candidates.iter().map(|c| c.quota.clone().unwrap().used).collect();
    assert_eq!(used, [0.9, 0.2]);
}

/// What a switch costs is computed before it and recorded after it.
#[test]
fn a_switch_of_profile_is_priced_in_tokens() {
    let stage =
        two_keys("{rules: [{match: {key: 'two'}, fault: {error: 'rate-limit', retryAfter: 600}}]}");
    let usage = Usage { cache_read: Some(80_000), cache_write: Some(20_000), ..Usage::default() };
    let before = Turn {
        role: Role::Assistant,
        model: Some(format!("anthropic/{OPUS}")),
        profile: Some("anthropic:second".into()),
        usage: Some(usage),
        stop: Some(StopReason::Stop),
        ..Turn::user(vec![json!({ "type": "text", "text": "hello" })])
    };
    let history = vec![Turn::user(vec![json!({ "type": "text", "text": "hi" })]), before];
    let goes_on = |last_turn| ChatRequest {
        prefer: Some("anthropic:second".into()),
        history: history.clone(),
        last_turn,
        ..hi()
    };
    let reply = stage.say(goes_on(Some(stage.clock.now()))).0.unwrap();
    assert_eq!(reply.profile.as_deref(), Some("anthropic:default"));
    let moved = reply.record.cache.unwrap();
    assert_eq!(moved.tokens, 100_000);
    assert_eq!(moved.from, format!("anthropic/{OPUS}@anthropic:second"));
    // Written at 6.25 instead of read at 0.50 dollars per million.
    assert!((moved.cost.unwrap() - 0.575).abs() < 1e-9, "{moved:?}");
    let candidates = &reply.record.models[0].candidates;
    let rewrites: Vec<_> =
        candidates.iter().map(|c| (c.profile.as_deref().unwrap(), c.rewrite)).collect();
    assert_eq!(rewrites, [("anthropic:second", 0), ("anthropic:default", 100_000)]);
    // A cache that is over cannot be lost.
    let late = stage.say(goes_on(Some(stage.clock.now().plus(-301_000)))).0.unwrap();
    assert_eq!(late.record.cache, None);
}

/// Requests that find every profile resting are served in the order in which they came.
#[test]
fn waiting_is_in_order_of_arrival() {
    let stage = Stage::new("{}").key("anthropic:default", ONE);
    let now = stage.clock.now();
    stage.change(|profiles| {
        let mut stats = profiles.stats("anthropic:default").cloned().unwrap_or_default();
        stats.whole.cooldown_until = Some(now.plus(20_000));
        profiles.set_stats("anthropic:default", stats);
    });
    let engine = Arc::new(stage.engine());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let order = local.block_on(&runtime, async {
        let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
        for n in 0..30 {
            let (engine, sender) = (engine.clone(), sender.clone());
            tokio::task::spawn_local(async move {
                let request = ChatRequest { prompt: format!("number {n}"), ..hi() };
                let reply = engine.chat(request, &mut |_: &Event| {}).await;
                let _ = sender.send((n, reply.is_ok()));
            });
            tokio::task::yield_now().await;
        }
        drop(sender);
        let mut seen = Vec::new();
        while let Some(one) = order.recv().await {
            seen.push(one);
        }
        seen
    });
    assert_eq!(order.len(), 30);
    assert!(order.iter().all(|(_, served)| *served), "{order:?}");
    let asked: Vec<String> = stage.requests().iter().map(|entry| entry.body.to_string()).collect();
    assert_eq!(asked.len(), 30);
    // They were let through one after the other; how fast each then runs is its own matter.
    assert!(asked[0].contains("number 0"), "{}", asked[0]);
    assert!(stage.clock.slept() < 30_000, "one of them waits, not each: {}", stage.clock.slept());
}
