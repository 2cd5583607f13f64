//! The rules of choice, one scenario each: a store's text in, the order out.

#![allow(clippy::unwrap_used)] // helpers of tests

use moltbot_core::{Credential, CredentialKind, CredentialState, Timestamp};
use moltbot_profiles::{
    AuthRules, Choice, ChoiceInput, OrderSource, Pin, PinSource, ProfileRule, Profiles,
    ResolvedState, SessionPin, SkipReason, no_credentials_message, order, repin,
};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const HOUR: i64 = 3_600_000;

/// A login, a token and two keys, in an order that no rule would give.
fn store() -> Profiles {
    let hour = NOW.millis() + HOUR;
    Profiles::parse(&format!(
        r#"{{"version": 1, "profiles": {{
            "acme:key": {{"type":"api_key","provider":"acme","key":"FAKE-KEY"}},
            "acme:manual": {{"type":"token","provider":"ACME","token":"FAKE-TOKEN"}},
            "other:default": {{"type":"api_key","provider":"other","key":"FAKE-OTHER"}},
            "acme:key2": {{"type":"api_key","provider":"acme","key":"FAKE-KEY2"}},
            "acme:login": {{"type":"oauth","provider":"acme","access":"FAKE-A","expires":{hour}}}
        }}}}"#
    ))
    .unwrap()
}

fn rules(profiles: &[(&str, &str)]) -> AuthRules {
    let mut rules = AuthRules::default();
    for (id, mode) in profiles {
        let rule = ProfileRule { provider: "acme".into(), mode: (*mode).into(), email: None };
        rules.profiles.insert((*id).into(), rule);
    }
    rules
}

fn choose(profiles: &Profiles, rules: &AuthRules, pin: Pin<'_>) -> Choice {
    let resolved = |_: &str, stored: &Credential| ResolvedState::stored(stored, false, NOW);
    order(&ChoiceInput { pin, ..ChoiceInput::new(profiles, rules, "Acme", &resolved, NOW) })
}

fn ids(choice: &Choice) -> Vec<&str> {
    choice.candidates.iter().map(|candidate| candidate.id.as_str()).collect()
}

fn cool(profiles: &mut Profiles, id: &str, millis: i64) {
    let mut stats = profiles.stats(id).cloned().unwrap_or_default();
    stats.whole.cooldown_until = Some(NOW.plus(millis));
    profiles.set_stats(id, stats);
}

fn used(profiles: &mut Profiles, id: &str, at: i64) {
    let mut stats = profiles.stats(id).cloned().unwrap_or_default();
    stats.whole.last_used = Some(Timestamp::from_millis(at));
    profiles.set_stats(id, stats);
}

#[test]
fn case_34_login_then_token_then_keys() {
    let choice = choose(&store(), &AuthRules::default(), Pin::None);
    assert_eq!(ids(&choice), ["acme:login", "acme:manual", "acme:key", "acme:key2"]);
    assert_eq!(choice.from, OrderSource::Stored);
    assert!(choice.skipped.is_empty());
}

#[test]
fn case_35_the_longest_unused_key_first() {
    let mut profiles = store();
    profiles.remove("acme:login");
    profiles.remove("acme:manual");
    used(&mut profiles, "acme:key", 5);
    used(&mut profiles, "acme:key2", 3);
    let choice = choose(&profiles, &AuthRules::default(), Pin::None);
    assert_eq!(ids(&choice), ["acme:key2", "acme:key"]);
    // Used under a clock that ran ahead: as good as used now, not benched for years.
    used(&mut profiles, "acme:key2", i64::MAX);
    used(&mut profiles, "acme:key", NOW.millis());
    let choice = choose(&profiles, &AuthRules::default(), Pin::None);
    assert_eq!(ids(&choice), ["acme:key", "acme:key2"]);
}

#[test]
fn case_36_explicit_orders() {
    let mut profiles = store();
    let mut rules = AuthRules::default();
    rules.order.insert(" ACME ".into(), vec!["acme:manual".into(), "acme:key".into()]);
    cool(&mut profiles, "acme:manual", 60_000);
    let choice = choose(&profiles, &rules, Pin::None);
    assert_eq!(choice.order(), ["acme:key", "acme:manual"]);
    assert_eq!(ids(&choice), ["acme:key"]);
    assert_eq!(choice.from, OrderSource::Config);
    assert_eq!(choice.why_not("acme:login"), Some(&SkipReason::NotInOrder {}));
    let first = &choice.skipped[0];
    assert_eq!((first.id.as_str(), first.until), ("acme:manual", Some(NOW.plus(60_000))));
    profiles.set_order("acme", vec!["acme:key".into()]);
    let choice = choose(&profiles, &rules, Pin::None);
    assert_eq!(choice.order(), ["acme:key"]);
    assert_eq!(choice.from, OrderSource::Store);
}

#[test]
fn an_empty_order_in_the_config_means_none() {
    let mut rules = AuthRules::default();
    rules.order.insert("acme".into(), Vec::new());
    let choice = choose(&store(), &rules, Pin::None);
    assert!(choice.candidates.is_empty() && !choice.all_cooling());
    assert_eq!(choice.skipped.len(), 4);
}

#[test]
fn case_37_the_config_hides_what_it_does_not_list() {
    let choice = choose(&store(), &rules(&[("acme:key", "api_key")]), Pin::None);
    assert_eq!(ids(&choice), ["acme:key"]);
    assert_eq!(choice.why_not("acme:manual"), Some(&SkipReason::NotInConfig {}));
    assert_eq!(choice.from, OrderSource::ConfigProfiles);
}

#[test]
fn case_38_config_mode_and_stored_kind() {
    let listed = [("acme:manual", "oauth"), ("acme:key", "api_key"), ("acme:login", "token")];
    let choice = choose(&store(), &rules(&listed), Pin::None);
    assert_eq!(ids(&choice), ["acme:manual", "acme:key"]);
    let mismatch = SkipReason::ModeMismatch { mode: "token".into(), kind: CredentialKind::Oauth };
    assert_eq!(choice.why_not("acme:login"), Some(&mismatch));
    let choice = choose(&store(), &rules(&[("acme:manual", "api_key")]), Pin::None);
    assert!(choice.candidates.is_empty());
}

#[test]
fn case_39_an_expired_token_is_skipped_and_named_when_pinned() {
    let mut profiles = store();
    let mut token = profiles.get("acme:manual").unwrap().clone();
    token.expires = Some(NOW);
    profiles.insert("acme:manual", token);
    let choice = choose(&profiles, &AuthRules::default(), Pin::None);
    assert_eq!(choice.why_not("acme:manual"), Some(&SkipReason::Expired {}));
    let pinned = choose(&profiles, &AuthRules::default(), Pin::User("acme:manual"));
    assert!(pinned.candidates.is_empty());
    assert_eq!(
        no_credentials_message("acme:manual", pinned.why_not("acme:manual")),
        "No credentials found for profile \"acme:manual\". Cause: expired."
    );
}

#[test]
fn case_43_all_cooling_soonest_first() {
    let mut profiles = store();
    for (id, millis) in
        [("acme:key", 400), ("acme:manual", 300), ("acme:key2", 100), ("acme:login", 200)]
    {
        cool(&mut profiles, id, millis);
    }
    let choice = choose(&profiles, &AuthRules::default(), Pin::None);
    assert!(choice.all_cooling());
    assert_eq!(choice.soonest(), Some(NOW.plus(100)));
    assert_eq!(choice.order(), ["acme:key2", "acme:login", "acme:manual", "acme:key"]);
    let listed: Vec<_> = choice.skipped.iter().map(|skipped| skipped.id.as_str()).collect();
    assert_eq!(listed, choice.order());
}

#[test]
fn case_45_a_users_pin_ignores_cooldown_an_automatic_one_does_not() {
    let mut profiles = store();
    cool(&mut profiles, "acme:key", 60_000);
    let pinned = choose(&profiles, &AuthRules::default(), Pin::User("acme:key"));
    assert_eq!(ids(&pinned), ["acme:key"]);
    assert!(pinned.candidates[0].blocked.is_some());
    assert_eq!(pinned.why_not("acme:login"), Some(&SkipReason::NotPinned {}));
    let auto = choose(&profiles, &AuthRules::default(), Pin::Auto("acme:key"));
    assert_eq!(ids(&auto)[0], "acme:login");
    assert_eq!(auto.order()[0], "acme:key", "a wished-for one is first in the order");
    let auto = choose(&profiles, &AuthRules::default(), Pin::Auto("acme:key2"));
    assert_eq!(ids(&auto), ["acme:key2", "acme:login", "acme:manual"]);
}

#[test]
fn sessions_hold_on_to_a_profile() {
    let mut profiles = store();
    let auto = |profile: &str, compactions| SessionPin {
        profile: profile.into(),
        source: PinSource::Auto,
        compactions,
    };
    let user = SessionPin { source: PinSource::User, ..auto("acme:key", 0) };
    let choice = choose(&profiles, &AuthRules::default(), Pin::None);
    let pin = |old: Option<&SessionPin>, choice: &Choice, new, compactions| {
        repin(old, choice, new, compactions).map(|pin| pin.profile)
    };
    let profile = |id: &str| Some(id.to_string());
    assert_eq!(pin(None, &choice, false, 0), profile("acme:login"), "first use");
    let held = auto("acme:manual", 1);
    assert_eq!(pin(Some(&held), &choice, false, 1), profile("acme:manual"), "kept");
    assert_eq!(pin(Some(&held), &choice, true, 1), profile("acme:key"), "new session: next");
    assert_eq!(pin(Some(&held), &choice, false, 2), profile("acme:key"), "compaction: next");
    assert_eq!(pin(Some(&auto("acme:key2", 0)), &choice, true, 0), profile("acme:login"), "circle");
    assert_eq!(pin(Some(&user), &choice, false, 9), profile("acme:key"), "a user's pin stays");
    let gone = auto("acme:gone", 0);
    assert_eq!(pin(Some(&gone), &choice, false, 0), profile("acme:login"), "gone");
    cool(&mut profiles, "acme:manual", 60_000);
    cool(&mut profiles, "acme:key", 60_000);
    let choice = choose(&profiles, &AuthRules::default(), Pin::None);
    assert_eq!(pin(Some(&held), &choice, false, 1), profile("acme:login"), "resting: again");
    assert_eq!(pin(Some(&user), &choice, false, 0), profile("acme:key"), "the user's, resting");
    let text = serde_json::to_string(&user).unwrap();
    assert_eq!(
        text,
        r#"{"authProfileOverride":"acme:key","authProfileOverrideSource":"user","authProfileOverrideCompactionCount":0}"#
    );
}

#[test]
fn a_block_for_one_model_leaves_the_others() {
    let mut profiles = store();
    let mut stats = profiles.stats("acme:login").cloned().unwrap_or_default();
    let block = moltbot_profiles::Block {
        cooldown_until: Some(NOW.plus(HOUR)),
        ..moltbot_profiles::Block::default()
    };
    stats.models.insert("big".into(), block);
    profiles.set_stats("acme:login", stats);
    let resolved = |_: &str, stored: &Credential| ResolvedState::stored(stored, false, NOW);
    let rules = AuthRules::default();
    let input = ChoiceInput::new(&profiles, &rules, "acme", &resolved, NOW);
    let big = order(&ChoiceInput { model: Some("big"), ..input });
    assert_eq!(ids(&big)[0], "acme:manual");
    assert_eq!(big.why_not("acme:login"), Some(&SkipReason::Cooldown { model_only: true }));
    let input = ChoiceInput::new(&profiles, &rules, "acme", &resolved, NOW);
    let small = order(&ChoiceInput { model: Some("small"), ..input });
    assert_eq!(ids(&small)[0], "acme:login");
}

#[test]
fn expired_logins_count_if_they_can_be_renewed() {
    let profiles = store();
    let judge = |state, refreshable| {
        let resolved = move |_: &str, stored: &Credential| ResolvedState {
            state: if stored.kind == CredentialKind::Oauth {
                state
            } else {
                CredentialState::Ready
            },
            ..ResolvedState::stored(stored, refreshable, NOW)
        };
        order(&ChoiceInput::new(&profiles, &AuthRules::default(), "acme", &resolved, NOW))
    };
    let choice = judge(CredentialState::Expired, true);
    assert!(choice.candidates[0].id == "acme:login" && choice.candidates[0].renew);
    for (state, why) in [
        (CredentialState::Expired, SkipReason::Expired {}),
        (CredentialState::LoggedOut, SkipReason::LoggedOut {}),
        (CredentialState::Absent, SkipReason::Missing {}),
        (CredentialState::Unreadable, SkipReason::Unreadable {}),
    ] {
        assert_eq!(judge(state, false).why_not("acme:login"), Some(&why));
    }
}

#[test]
fn everything_unusable_has_its_reason() {
    let mut profiles = Profiles::parse(
        r#"{"profiles": {
            "acme:broken": {"type":"passkey","provider":"acme"},
            "acme:blank": {"type":"api_key","provider":"acme","key":"  "},
            "other:x": {"type":"api_key","provider":"other","key":"FAKE"}}}"#,
    )
    .unwrap();
    let listed = ["acme:broken", "acme:none", "acme:blank", "other:x", " acme:none "];
    profiles.set_order("acme", listed.iter().map(|id| (*id).to_string()).collect());
    let choice = choose(&profiles, &AuthRules::default(), Pin::None);
    let reasons: Vec<_> =
        choice.skipped.iter().map(|skipped| (skipped.id.as_str(), &skipped.reason)).collect();
    assert_eq!(
        reasons,
        [
            ("acme:broken", &SkipReason::Broken {}),
            ("acme:none", &SkipReason::NotStored {}),
            ("acme:blank", &SkipReason::Missing {}),
            ("other:x", &SkipReason::OtherProvider { provider: "other".into() }),
        ]
    );
    let json = serde_json::to_value(&choice.skipped[3]).unwrap();
    assert_eq!(
        json,
        serde_json::json!({"id": "other:x", "reason": "otherProvider", "provider": "other"})
    );
}

#[test]
fn other_providers_credentials_and_owned_logins() {
    let profiles = store();
    let resolved = |_: &str, stored: &Credential| ResolvedState::stored(stored, false, NOW);
    let rules = AuthRules::default();
    let also = [("acme".to_string(), CredentialKind::Oauth)];
    let choice = order(&ChoiceInput {
        also: &also,
        owned: &["runner:login"],
        ..ChoiceInput::new(&profiles, &rules, "runner", &resolved, NOW)
    });
    assert_eq!(ids(&choice), ["acme:login", "runner:login"]);
    assert_eq!(choice.candidates[1].kind, CredentialKind::None);
}

/// What the config names for one provider neither hides an owner's login of another, nor lets in what
/// that other cannot use.
#[test]
fn the_config_of_another_provider_leaves_an_owned_login_in() {
    let profiles = store();
    let resolved = |_: &str, stored: &Credential| ResolvedState::stored(stored, false, NOW);
    let rule = |mode: &str| ProfileRule { provider: "acme".into(), mode: mode.into(), email: None };
    let also = [("acme".to_string(), CredentialKind::Oauth)];
    let chosen = |rules: &AuthRules| {
        order(&ChoiceInput {
            also: &also,
            owned: &["runner:login"],
            ..ChoiceInput::new(&profiles, rules, "runner", &resolved, NOW)
        })
    };
    let mut rules = AuthRules::default();
    rules.profiles.insert("acme:a".into(), rule("api_key"));
    let choice = chosen(&rules);
    assert_eq!(ids(&choice), ["runner:login"]);
    assert_eq!(choice.why_not("acme:login"), Some(&SkipReason::NotInConfig {}));
    rules.profiles.insert("acme:login".into(), rule("oauth"));
    assert_eq!(ids(&chosen(&rules)), ["acme:login", "runner:login"]);
    rules.order.insert("runner".into(), vec!["acme:login".into()]);
    assert_eq!(ids(&chosen(&rules)), ["acme:login"], "an order does leave it out");
}

#[test]
fn many_profiles_outside_the_order_are_counted_not_listed() {
    let mut profiles = Profiles::default();
    let mut text = String::from(r#"{"profiles": {"#);
    for n in 0..1_000 {
        let comma = if n == 0 { "" } else { "," };
        text.push_str(&format!(
            r#"{comma}"acme:{n}": {{"type":"api_key","provider":"acme","key":"FAKE{n}"}}"#
        ));
    }
    text.push_str("}}");
    profiles.clone_from(&Profiles::parse(&text).unwrap());
    profiles.set_order("acme", vec!["acme:5".into(), "acme:gone".into()]);
    let choice = choose(&profiles, &AuthRules::default(), Pin::None);
    assert_eq!(ids(&choice), ["acme:5"]);
    assert_eq!(choice.skipped.len() + choice.hidden + choice.candidates.len(), 1_001);
}

proptest! {
    #[test]
    fn the_order_is_a_permutation_of_the_eligible(
        kinds in prop::collection::vec(0_u8..6, 0..20),
        used_at in prop::collection::vec(0_i64..5, 20),
        cooling in prop::collection::vec(prop::option::of(1_i64..5), 20),
        wished in 0_usize..20,
    ) {
        let mut profiles = Profiles::default();
        let mut eligible = Vec::new();
        for (n, kind) in kinds.iter().enumerate() {
            let id = format!("acme:{n}");
            let (text, fits) = match kind {
                0 => (r#"{"type":"api_key","provider":"acme","key":"FAKE"}"#, true),
                1 => (r#"{"type":"token","provider":"acme","token":"FAKE"}"#, true),
                2 => (r#"{"type":"oauth","provider":"acme","access":"FAKE"}"#, true),
                3 => (r#"{"type":"token","provider":"acme","token":"FAKE","expires":1}"#, false),
                4 => (r#"{"type":"api_key","provider":"other","key":"FAKE"}"#, false),
                _ => (r#"{"type":"oauth","provider":"acme"}"#, false),
            };
            profiles.insert(&id, serde_json::from_str(text).unwrap());
            used(&mut profiles, &id, used_at[n]);
            if let Some(ms) = cooling[n] {
                cool(&mut profiles, &id, ms);
            }
            if fits {
                eligible.push(id);
            }
        }
        let wish = format!("acme:{wished}");
        for pin in [Pin::None, Pin::Auto(&wish), Pin::User(&wish)] {
            let choice = choose(&profiles, &AuthRules::default(), pin);
            let mut listed: Vec<String> = choice.order().iter().map(|id| id.to_string()).collect();
            listed.sort();
            let mut wanted = eligible.clone();
            wanted.sort();
            prop_assert_eq!(listed, wanted);
            // Another process with the same store, read from its text, decides the same.
            let again = Profiles::parse(profiles.to_json(NOW).expose()).unwrap();
            prop_assert_eq!(choose(&again, &AuthRules::default(), pin), choice);
        }
    }
}
