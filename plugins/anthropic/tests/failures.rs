//! Every known error body gets its class, and nothing but status, type and message decides.

#![allow(clippy::unwrap_used)] // helpers of tests, not only tests

use std::collections::BTreeSet;
use std::path::PathBuf;

use moltbot_core::{Ended, Failure, FailureKind, Header, NetworkFault, Provider, Scope, Timestamp};
use moltbot_plugin_anthropic::Anthropic;
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

/// One body as seen in the wild, and what it should mean.
struct Fixture {
    name: String,
    status: u16,
    headers: Vec<Header<'static>>,
    body: Value,
    expect: Value,
}

fn fixtures() -> Vec<Fixture> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/errors");
    let mut fixtures: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let text = std::fs::read_to_string(entry.path()).unwrap();
            let value: Value = serde_json::from_str(&text).unwrap();
            assert!(value["source"].as_str().is_some_and(|s| !s.is_empty()), "{name}: no source");
            let headers: Vec<(String, String)> =
                serde_json::from_value(value["headers"].clone()).unwrap();
            Fixture {
                name,
                status: u16::try_from(value["status"].as_u64().unwrap()).unwrap(),
                headers: headers
                    .into_iter()
                    .map(|(name, value)| Header::new(name, value))
                    .collect(),
                body: value["body"].clone(),
                expect: value["expect"].clone(),
            }
        })
        .collect();
    fixtures.sort_by(|a, b| a.name.cmp(&b.name));
    fixtures
}

impl Fixture {
    fn text(&self) -> String {
        match &self.body {
            Value::String(text) => text.clone(),
            body => body.to_string(),
        }
    }

    fn failure(&self) -> Failure {
        http(self.status, self.headers.clone(), &self.text())
    }
}

fn http(status: u16, headers: Vec<Header<'static>>, body: &str) -> Failure {
    Anthropic.failure(&Ended::Http { status, headers, body: body.into() }, NOW)
}

fn api(kind: &str, message: &str) -> String {
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"})
        .to_string()
}

fn class(failure: &Failure) -> (FailureKind, Scope, &str) {
    (failure.kind, failure.scope, &failure.code)
}

#[test]
fn every_body_gets_its_class() {
    for fixture in fixtures() {
        let failure = fixture.failure();
        let seen = json!({
            "kind": failure.kind,
            "scope": failure.scope,
            "code": failure.code,
        });
        let name = &fixture.name;
        for key in ["kind", "scope", "code"] {
            assert_eq!(seen[key], fixture.expect[key], "{name}: {key}");
        }
        assert_eq!(failure.account.as_deref(), fixture.expect["account"].as_str(), "{name}");
        let reset = failure.reset.map(Timestamp::millis);
        assert_eq!(reset, fixture.expect["reset"].as_i64(), "{name}: reset");
        if let Some(part) = fixture.expect["advice"].as_str() {
            assert!(failure.advice.as_deref().is_some_and(|a| a.contains(part)), "{name}: advice");
        }
        let words = fixture.body["error"]["message"].as_str().or(fixture.body.as_str());
        assert_eq!(Some(failure.message.as_str()), words, "{name}: its own words");
    }
}

#[test]
fn all_51_bodies_are_there() {
    let numbers: BTreeSet<u32> = fixtures()
        .iter()
        .filter_map(|fixture| fixture.name.get(..2)?.parse().ok())
        .filter(|number| *number <= 51)
        .collect();
    assert_eq!(numbers, (1..=51).collect());
}

/// The same error after a 200 means the same, as far as the type tells.
#[test]
fn an_error_inside_a_stream_means_what_it_means_outside() {
    for fixture in fixtures() {
        let error = &fixture.body["error"];
        let (Some(kind), Some(message)) = (error["type"].as_str(), error["message"].as_str())
        else {
            continue;
        };
        // The edge answers before there is a stream; the server's `conflict_error` has only a status.
        if ["forbidden", "conflict_error"].contains(&kind) {
            continue;
        }
        let ended = Ended::Event {
            kind: kind.into(),
            message: message.into(),
            body: fixture.body.clone(),
            headers: fixture.headers.clone(),
        };
        assert_eq!(Anthropic.failure(&ended, NOW), fixture.failure(), "{}", fixture.name);
    }
}

/// Spec case 46: what is quoted, and what ids and names look like, decides nothing.
#[test]
fn quoted_text_ids_and_names_change_nothing() {
    let plain = http(400, Vec::new(), &api("invalid_request_error", "messages: field required"));
    assert_eq!(class(&plain), (FailureKind::Format, Scope::Request, "format"));
    for quoted in [
        "429",
        "timeout",
        "billing",
        "rate_limit_error",
        "Your credit balance is too low",
        "This credential is only authorized for use with Claude Code",
        "You have reached your specified API usage limits",
        "invalid x-api-key",
        "overloaded_error",
    ] {
        let message = format!("messages.3.content.0.text: unexpected value '{quoted}'");
        let body = json!({
            "type": "error",
            "error": {"type": "invalid_request_error", "message": message},
            "request_id": format!("req_{quoted}"),
            "message": quoted,
        });
        let headers = vec![Header::new("request-id", format!("req_{quoted}"))];
        let failure = http(400, headers, &body.to_string());
        assert_eq!(class(&failure), class(&plain), "{quoted}");
        assert_eq!((failure.reset, failure.account), (None, None), "{quoted}");

        let model = http(404, Vec::new(), &api("not_found_error", &format!("model: {quoted}")));
        let expected = (FailureKind::ModelNotFound, Scope::Model, "model-not-found");
        assert_eq!(class(&model), expected, "{quoted}");
    }
}

/// The same for every known body: whatever its request id and a header look like.
#[test]
fn an_id_changes_no_known_error() {
    for fixture in fixtures() {
        for word in ["429", "timeout", "billing", "overloaded_error", "credit balance"] {
            let mut body = fixture.body.clone();
            if body.is_object() {
                body["request_id"] = json!(format!("req_{word}"));
                body["model"] = json!(format!("claude-{word}-9"));
            }
            let text = match &body {
                Value::String(text) => text.clone(),
                body => body.to_string(),
            };
            let mut headers = fixture.headers.clone();
            headers.push(Header::new("request-id", format!("req_{word}")));
            headers.push(Header::new("cf-ray", word));
            let failure = http(fixture.status, headers, &text);
            assert_eq!(failure, fixture.failure(), "{} with {word}", fixture.name);
        }
    }
}

/// Spec case 56.
#[test]
fn a_credential_for_claude_code_only_keeps_the_text_and_names_the_way_out() {
    let text = "This credential is only authorized for use with Claude Code and cannot be used for other API requests.";
    let failure = http(400, Vec::new(), &api("invalid_request_error", text));
    assert_eq!(class(&failure), (FailureKind::Auth, Scope::Profile, "third-party-refused"));
    assert_eq!(failure.message, text);
    let advice = failure.advice.unwrap();
    assert!(advice.contains("API key"), "{advice}");
    assert_eq!(cfg!(feature = "bearer"), advice.contains("claude-cli/"), "{advice}");
}

#[test]
fn a_429_without_any_figure_is_a_throttle() {
    let body = api("rate_limit_error", "This request would exceed your account's rate limit.");
    assert_eq!(http(429, Vec::new(), &body).code, "throttled");
    let limited = http(429, vec![Header::new("retry-after", "2")], &body);
    assert_eq!(class(&limited), (FailureKind::RateLimit, Scope::ProfileModel, "rate-limited"));
    assert_eq!(limited.reset, Some(NOW.plus(2000)));
}

#[test]
fn a_window_of_one_model_leaves_the_profile_to_the_others() {
    let headers = |claim: &'static str| {
        vec![
            Header::new("anthropic-ratelimit-unified-status", "rejected"),
            Header::new("anthropic-ratelimit-unified-representative-claim", claim),
            Header::new("anthropic-ratelimit-unified-reset", "1790003600"),
        ]
    };
    let body = api("rate_limit_error", "Rate limited");
    for (claim, scope) in [
        ("five_hour", Scope::Profile),
        ("seven_day", Scope::Profile),
        ("seven_day_opus", Scope::ProfileModel),
    ] {
        let failure = http(429, headers(claim), &body);
        assert_eq!((failure.scope, failure.reset), (scope, Some(NOW.plus(3_600_000))), "{claim}");
    }
}

#[test]
fn a_status_decides_where_a_body_does_not() {
    use FailureKind as K;
    for (status, kind, scope) in [
        (400, K::Format, Scope::Request),
        (401, K::Auth, Scope::Profile),
        (402, K::Billing, Scope::Profile),
        (403, K::Auth, Scope::Profile),
        (404, K::Format, Scope::Request),
        (408, K::Timeout, Scope::Upstream),
        (413, K::ContextOverflow, Scope::Request),
        (418, K::Format, Scope::Request),
        (429, K::RateLimit, Scope::ProfileModel),
        (301, K::Server, Scope::Upstream),
        (500, K::Server, Scope::Upstream),
        (502, K::Server, Scope::Upstream),
        (504, K::Timeout, Scope::Upstream),
        (529, K::Overloaded, Scope::Model),
    ] {
        for body in ["", "<html>429 timeout billing</html>", "null", "[]", "{\"error\":5}", "{"] {
            let failure = http(status, Vec::new(), body);
            assert_eq!((failure.kind, failure.scope), (kind, scope), "{status} {body}");
            assert!(!failure.message.is_empty(), "{status} {body}");
        }
    }
}

#[test]
fn what_never_got_a_reply_punishes_nobody() {
    for (what, kind, code) in [
        (NetworkFault::Connect, FailureKind::Server, "network"),
        (NetworkFault::Broken, FailureKind::Server, "network"),
        (NetworkFault::Timeout, FailureKind::Timeout, "timeout"),
    ] {
        let ended = Ended::Network { what, message: "429 billing".into() };
        let failure = Anthropic.failure(&ended, NOW);
        assert_eq!(class(&failure), (kind, Scope::Upstream, code));
    }
    let broke_off = Ended::Event {
        kind: "incomplete".into(),
        message: "the reply ended before it was complete".into(),
        body: Value::Null,
        headers: vec![Header::new("anthropic-ratelimit-requests-remaining", "0")],
    };
    let failure = Anthropic.failure(&broke_off, NOW);
    assert_eq!(class(&failure), (FailureKind::Server, Scope::Upstream, "upstream"));
}

/// Bodies of the network's own making are cut, not kept whole.
#[test]
fn long_bodies_are_cut() {
    let failure = http(500, Vec::new(), &"ä".repeat(70_000));
    assert_eq!(failure.message.chars().count(), 2000);
}
