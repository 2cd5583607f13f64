//! Whose fault a failure is decides what is tried next; the provider judges, the host acts.

use moltbot_core::*;
use serde_json::{Value, json};

use crate::support::{NOW, wire};

/// Judges by status and headers, as a service's provider does.
fn judge(ended: &Ended, now: Timestamp) -> Failure {
    use FailureKind as K;
    let make = |kind, scope, code: &'static str, message: &str| Failure {
        kind,
        scope,
        reset: None,
        account: None,
        code: code.into(),
        message: message.into(),
        advice: None,
    };
    match ended {
        Ended::Http { status, headers, body } => {
            let after = header(headers, "retry-after").and_then(|text| text.parse::<i64>().ok());
            let (kind, scope, code) = match status {
                400 => (K::Format, Scope::Request, "format"),
                401 | 403 => (K::Auth, Scope::Profile, "credential-refused"),
                402 => (K::Billing, Scope::Profile, "billing"),
                404 => (K::ModelNotFound, Scope::Model, "model-not-found"),
                429 => (K::RateLimit, Scope::ProfileModel, "rate-limited"),
                529 => (K::Overloaded, Scope::Upstream, "overloaded"),
                500..=599 => (K::Server, Scope::Upstream, "upstream"),
                _ => (K::Unknown, Scope::Request, "upstream"),
            };
            Failure {
                reset: after.map(|seconds| now.plus(seconds * 1000)),
                account: header(headers, "x-account").map(String::from),
                ..make(kind, scope, code, body)
            }
        }
        Ended::Event { kind, message, .. } if kind == "overloaded" => {
            make(K::Overloaded, Scope::Upstream, "overloaded", message)
        }
        Ended::Network { what: NetworkFault::Timeout, message } => {
            make(K::Timeout, Scope::Upstream, "timeout", message)
        }
        Ended::Network { message, .. } => make(K::Server, Scope::Upstream, "network", message),
        _ => make(K::Unknown, Scope::Request, "upstream", "the reply broke off"),
    }
}

/// What a host does about it: whom it cools, and where it goes on.
#[derive(Debug, PartialEq)]
enum Next {
    Nothing,
    Model,
    Profile { cool: Cool },
}

#[derive(Debug, PartialEq)]
enum Cool {
    Profile,
    Pair,
    Account(String),
}

fn act(failure: &Failure) -> Next {
    match failure.scope {
        Scope::Request => Next::Nothing,
        Scope::Model | Scope::Upstream => Next::Model,
        Scope::Profile => Next::Profile { cool: Cool::Profile },
        Scope::ProfileModel => {
            Next::Profile { cool: failure.account.clone().map_or(Cool::Pair, Cool::Account) }
        }
        // A scope of a newer version would arrive as `Upstream`; nobody is punished for it.
        _ => Next::Model,
    }
}

fn http(status: u16, headers: &[(&'static str, &'static str)]) -> Failure {
    let headers = headers.iter().map(|(name, value)| Header::new(*name, *value)).collect();
    wire(judge(&wire(Ended::Http { status, headers, body: "text".into() }), NOW))
}

#[test]
fn each_status_is_somebodys() {
    assert_eq!(act(&http(400, &[])), Next::Nothing);
    assert_eq!(act(&http(401, &[])), Next::Profile { cool: Cool::Profile });
    assert_eq!(act(&http(402, &[])), Next::Profile { cool: Cool::Profile });
    assert_eq!(act(&http(404, &[])), Next::Model);
    assert_eq!(act(&http(429, &[])), Next::Profile { cool: Cool::Pair });
    let account = Cool::Account("org-1".into());
    assert_eq!(act(&http(429, &[("X-Account", "org-1")])), Next::Profile { cool: account });
    assert_eq!(act(&http(500, &[])), Next::Model);
    assert_eq!(act(&http(529, &[])), Next::Model);
}

#[test]
fn a_measured_reset_is_a_time() {
    assert_eq!(http(429, &[("Retry-After", "7")]).reset, Some(NOW.plus(7_000)));
    assert_eq!(http(429, &[("Retry-After", "soon")]).reset, None);
}

#[test]
fn other_ends_cross_as_well() {
    let (kind, message) = ("overloaded".to_string(), "busy".to_string());
    let event = Ended::Event { kind, message, body: json!({"a": 1}), headers: Vec::new() };
    assert_eq!(judge(&wire(event), NOW).kind, FailureKind::Overloaded);
    for what in [NetworkFault::Connect, NetworkFault::Timeout, NetworkFault::Broken] {
        let failure = judge(&wire(Ended::Network { what, message: "m".into() }), NOW);
        assert_eq!(act(&failure), Next::Model, "{what:?} punishes nobody");
    }
    let broken = Ended::Event {
        kind: String::new(),
        message: String::new(),
        body: Value::Null,
        headers: Vec::new(),
    };
    assert_eq!(act(&judge(&wire(broken), NOW)), Next::Nothing);
}

#[test]
fn newer_words_are_read_with_the_mildest_meaning() {
    let text = r#"{"kind":"throttled","scope":"region","code":"upstream","message":"m","mood":1}"#;
    let failure: Failure = serde_json::from_str(text).unwrap();
    assert_eq!((failure.kind, failure.scope), (FailureKind::Unknown, Scope::Upstream));
    assert_eq!(act(&failure), Next::Model);
    let ended: Ended = serde_json::from_str(r#"{"type":"gone","where":"x"}"#).unwrap();
    assert_eq!(act(&judge(&ended, NOW)), Next::Nothing);
}

#[test]
fn a_word_is_the_same_in_store_and_wire() {
    use FailureKind as K;
    for kind in [
        K::Auth,
        K::Billing,
        K::RateLimit,
        K::Overloaded,
        K::Timeout,
        K::Server,
        K::ModelNotFound,
        K::ContextOverflow,
        K::Format,
        K::Refused,
        K::Unknown,
    ] {
        assert_eq!(json!(wire(kind)), json!(kind.as_str()));
    }
}
