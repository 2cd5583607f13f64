//! Strategies, the quota forecast, and bounded waiting.

#![allow(clippy::unwrap_used)] // helpers of tests

use moltbot_core::{Covers, Credential, Quota, Timestamp};
use moltbot_profiles::{
    AuthRules, Choice, ChoiceInput, Pin, Profiles, ResolvedState, Strategy, Wait, order,
};

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const HOUR: i64 = 3_600_000;
const KEY: &str = r#"{"type":"api_key","provider":"acme","key":"FAKE"}"#;

fn choose(profiles: &Profiles, rules: &AuthRules, pin: Pin<'_>) -> Choice {
    let resolved = |_: &str, stored: &Credential| ResolvedState::stored(stored, false, NOW);
    order(&ChoiceInput { pin, ..ChoiceInput::new(profiles, rules, "acme", &resolved, NOW) })
}

fn ids(choice: &Choice) -> Vec<&str> {
    choice.candidates.iter().map(|candidate| candidate.id.as_str()).collect()
}

fn used(profiles: &mut Profiles, id: &str, at: i64) {
    let mut stats = profiles.stats(id).cloned().unwrap_or_default();
    stats.whole.last_used = Some(Timestamp::from_millis(at));
    profiles.set_stats(id, stats);
}

/// Makes a store of keys, the first one used last, whose window `w` is used and resets so.
fn windowed(keys: &[(f64, i64)]) -> Profiles {
    let mut profiles = Profiles::default();
    for (n, (share, reset)) in keys.iter().enumerate() {
        let id = format!("acme:{n}");
        profiles.insert(&id, serde_json::from_str(KEY).unwrap());
        used(&mut profiles, &id, 100 - n as i64);
        let quota = Quota {
            name: "w".into(),
            used: *share,
            rejected: *share >= 1.0,
            reset: Some(NOW.plus(*reset)),
            limit: None,
            remaining: None,
            covers: Covers::Everything {},
        };
        profiles.observe(&id, Some("m"), &[quota], true, NOW);
    }
    profiles
}

#[test]
fn strategies_arrange_equals() {
    let mut profiles = windowed(&[(0.2, 3 * HOUR), (0.9, HOUR), (0.1, 2 * HOUR)]);
    let all: Vec<String> = (0..3).map(|n| format!("acme:{n}")).collect();
    for explicit in [false, true] {
        if explicit {
            profiles.set_order("acme", all.clone());
        }
        for (strategy, expected) in [
            (Strategy::Order, if explicit { [0, 1, 2] } else { [2, 1, 0] }),
            (Strategy::RoundRobin, [2, 1, 0]),
            (Strategy::Drain, [1, 2, 0]),
            (Strategy::LeastUsed, [2, 0, 1]),
        ] {
            let rules = AuthRules { strategy, ..AuthRules::default() };
            let choice = choose(&profiles, &rules, Pin::None);
            let expected: Vec<String> = expected.iter().map(|n| format!("acme:{n}")).collect();
            assert_eq!(ids(&choice), expected, "{strategy:?} {explicit}");
            assert_eq!(choice.strategy, strategy);
            // A session stays where it is, whatever the strategy.
            let stays = choose(&profiles, &rules, Pin::Auto("acme:1"));
            assert_eq!(ids(&stays)[0], "acme:1", "{strategy:?}");
        }
    }
}

#[test]
fn no_strategy_puts_another_wallet_first() {
    let mut profiles = windowed(&[(0.0, HOUR), (0.0, HOUR)]);
    for id in ["acme:plan", "acme:plan2"] {
        let token = r#"{"type":"token","provider":"acme","token":"FAKE"}"#;
        profiles.insert(id, serde_json::from_str(token).unwrap());
        used(&mut profiles, id, 1_000);
    }
    for strategy in [Strategy::RoundRobin, Strategy::Drain, Strategy::LeastUsed] {
        let rules = AuthRules { strategy, ..AuthRules::default() };
        let choice = choose(&profiles, &rules, Pin::None);
        assert_eq!(ids(&choice)[..2], ["acme:plan", "acme:plan2"], "{strategy:?}");
        let mut listed = profiles.clone();
        let order = ["acme:0", "acme:plan", "acme:plan2", "acme:1"].map(String::from);
        listed.set_order("acme", order.to_vec());
        let choice = choose(&listed, &rules, Pin::None);
        assert_eq!(ids(&choice), order, "{strategy:?}: neighbours of one kind only");
    }
}

#[test]
fn an_empty_profile_is_not_tried_before_its_reset() {
    let profiles = windowed(&[(0.5, HOUR), (1.0, 2 * HOUR)]);
    let choice = choose(&profiles, &AuthRules::default(), Pin::None);
    assert_eq!(ids(&choice), ["acme:0"]);
    assert_eq!(
        (choice.skipped[0].id.as_str(), choice.soonest()),
        ("acme:1", Some(NOW.plus(2 * HOUR)))
    );
    assert_eq!(choice.skipped[0].reason.to_string(), "used up: w");
    let rows = serde_json::to_value(profiles.unusable(NOW)).unwrap();
    assert_eq!(rows[0]["kind"], "empty");
    // What was told is in the store, and another process reads it.
    let again = Profiles::parse(profiles.to_json(NOW).expose()).unwrap();
    assert_eq!(choose(&again, &AuthRules::default(), Pin::None), choice);
    // A user's pin is a user's pin.
    assert_eq!(ids(&choose(&profiles, &AuthRules::default(), Pin::User("acme:1"))), ["acme:1"]);
}

#[test]
fn a_picture_that_cannot_be_understood_costs_nothing_else() {
    let text = format!(
        r#"{{"profiles":{{"acme:a":{KEY}}},"usageStats":{{"acme:a":{{"lastUsed":7,
            "quota":[{{"name":5}},"x",{{"name":"w","used":0.5,"at":{}}}]}}}}}}"#,
        NOW.millis()
    );
    let profiles = Profiles::parse(&text).unwrap();
    let stats = profiles.stats("acme:a").unwrap();
    assert_eq!((stats.quota.len(), stats.whole.last_used.unwrap().millis()), (1, 7));
}

#[test]
fn waiting_is_bounded_by_when_a_request_came() {
    let profiles = windowed(&[(1.0, 10_000), (1.0, 20_000)]);
    let choice = choose(&profiles, &AuthRules::default(), Pin::None);
    let until = NOW.plus(10_000);
    assert_eq!(choice.wait(NOW, NOW, 10_000), Wait::Until(until));
    assert_eq!(choice.wait(NOW, NOW, 9_999), Wait::TooLong(until));
    assert_eq!(choice.wait(NOW.plus(-25_000), NOW, 30_000), Wait::TooLong(until));
    assert_eq!(choice.wait(NOW.plus(HOUR), NOW, 30_000), Wait::Until(until), "the clock went back");
    let free = choose(&windowed(&[(0.0, HOUR)]), &AuthRules::default(), Pin::None);
    assert_eq!(free.wait(NOW, NOW, 0), Wait::No);
}
