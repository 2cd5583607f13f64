//! The rate-limit headers of a reply (spec 09 D): per-minute figures for an API key, the
//! subscription windows for a login's token.

use std::collections::HashMap;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use crate::errors::Limits;
use crate::keys::KeyKind;

const MINUTE_MS: i64 = 60_000;
const REQUESTS: u64 = 4_000;
const INPUT: u64 = 2_000_000;
const OUTPUT: u64 = 400_000;

/// How much each organization used in the running minute.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    used: HashMap<String, Meter>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Meter {
    minute: i64,
    requests: u64,
    input: u64,
    output: u64,
}

/// What a reply used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    pub(crate) input: u64,
    pub(crate) output: u64,
}

impl Meters {
    /// Counts a request and writes the headers of its reply.
    pub(crate) fn write(
        &mut self,
        headers: &mut HeaderMap,
        organization: &str,
        kind: KeyKind,
        limits: Limits,
        used: Used,
        now_ms: i64,
    ) {
        if limits == Limits::Absent {
            return;
        }
        if kind == KeyKind::Oauth || limits == Limits::Window {
            unified(headers, limits != Limits::Usual, now_ms);
            return;
        }
        let minute = now_ms.div_euclid(MINUTE_MS);
        if !self.used.contains_key(organization) {
            self.used.insert(organization.to_owned(), Meter::default());
        }
        let Some(meter) = self.used.get_mut(organization) else { return };
        if meter.minute != minute {
            *meter = Meter { minute, ..Meter::default() };
        }
        meter.requests += 1;
        meter.input += used.input;
        meter.output += used.output;
        let spent = limits == Limits::Spent;
        let left = |limit: u64, used: u64| if spent { 0 } else { limit.saturating_sub(used) };
        let reset = text(&rfc3339((minute + 1) * MINUTE_MS));
        let both = meter.input + meter.output;
        for (names, limit, used) in [
            (&KEY_HEADERS[0], REQUESTS, meter.requests),
            (&KEY_HEADERS[1], INPUT + OUTPUT, both),
            (&KEY_HEADERS[2], INPUT, meter.input),
            (&KEY_HEADERS[3], OUTPUT, meter.output),
        ] {
            headers.insert(names[0].clone(), HeaderValue::from(limit));
            headers.insert(names[1].clone(), HeaderValue::from(left(limit, used)));
            headers.insert(names[2].clone(), reset.clone());
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.used.clear();
    }
}

/// Formats milliseconds since the epoch as RFC 3339 in UTC, without fractions.
pub(crate) fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_second(ms.div_euclid(1000))
        .map_or_else(|_| "1970-01-01T00:00:00Z".to_owned(), |time| time.to_string())
}

fn unified(headers: &mut HeaderMap, rejected: bool, now_ms: i64) {
    let (hours, days) = (5 * 3_600_000, 7 * 24 * 3_600_000);
    let end = |length: i64| HeaderValue::from((now_ms.div_euclid(length) + 1) * length / 1000);
    let status = HeaderValue::from_static(if rejected { "rejected" } else { "allowed" });
    let used = HeaderValue::from_static(if rejected { "1.0" } else { "0.12" });
    let word = HeaderValue::from_static;
    for (name, value) in [
        ("anthropic-ratelimit-unified-status", status.clone()),
        ("anthropic-ratelimit-unified-reset", end(hours)),
        ("anthropic-ratelimit-unified-representative-claim", word("five_hour")),
        ("anthropic-ratelimit-unified-5h-status", status),
        ("anthropic-ratelimit-unified-5h-utilization", used),
        ("anthropic-ratelimit-unified-5h-reset", end(hours)),
        ("anthropic-ratelimit-unified-7d-status", word("allowed")),
        ("anthropic-ratelimit-unified-7d-utilization", word("0.34")),
        ("anthropic-ratelimit-unified-7d-reset", end(days)),
        ("anthropic-ratelimit-unified-fallback-percentage", word("0.5")),
        ("anthropic-ratelimit-unified-overage-status", word("rejected")),
        ("anthropic-ratelimit-unified-overage-disabled-reason", word("out_of_credits")),
    ] {
        headers.insert(HeaderName::from_static(name), value);
    }
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static(""))
}

static KEY_HEADERS: [[HeaderName; 3]; 4] = [
    [
        HeaderName::from_static("anthropic-ratelimit-requests-limit"),
        HeaderName::from_static("anthropic-ratelimit-requests-remaining"),
        HeaderName::from_static("anthropic-ratelimit-requests-reset"),
    ],
    [
        HeaderName::from_static("anthropic-ratelimit-tokens-limit"),
        HeaderName::from_static("anthropic-ratelimit-tokens-remaining"),
        HeaderName::from_static("anthropic-ratelimit-tokens-reset"),
    ],
    [
        HeaderName::from_static("anthropic-ratelimit-input-tokens-limit"),
        HeaderName::from_static("anthropic-ratelimit-input-tokens-remaining"),
        HeaderName::from_static("anthropic-ratelimit-input-tokens-reset"),
    ],
    [
        HeaderName::from_static("anthropic-ratelimit-output-tokens-limit"),
        HeaderName::from_static("anthropic-ratelimit-output-tokens-remaining"),
        HeaderName::from_static("anthropic-ratelimit-output-tokens-reset"),
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_sees_its_minute_shrink_and_start_again() {
        let mut meters = Meters::default();
        let mut ask = |now, limits| {
            let mut headers = HeaderMap::new();
            let used = Used { input: 10, output: 5 };
            meters.write(&mut headers, "org", KeyKind::ApiKey, limits, used, now);
            let get = |name: &str| headers[name].to_str().unwrap().to_owned();
            (get("anthropic-ratelimit-requests-remaining"), get("anthropic-ratelimit-tokens-reset"))
        };
        assert_eq!(ask(0, Limits::Usual), ("3999".into(), "1970-01-01T00:01:00Z".into()));
        assert_eq!(ask(59_999, Limits::Usual).0, "3998");
        assert_eq!(ask(60_000, Limits::Usual).0, "3999");
        assert_eq!(ask(60_001, Limits::Spent).0, "0");
    }

    #[test]
    fn a_login_sees_its_windows() {
        let mut headers = HeaderMap::new();
        let mut meters = Meters::default();
        let used = Used::default();
        meters.write(&mut headers, "org", KeyKind::Oauth, Limits::Usual, used, 1);
        assert_eq!(headers["anthropic-ratelimit-unified-status"], "allowed");
        assert_eq!(headers["anthropic-ratelimit-unified-5h-reset"], "18000");
        meters.write(&mut headers, "org", KeyKind::Oauth, Limits::Window, used, 1);
        assert_eq!(headers["anthropic-ratelimit-unified-status"], "rejected");
        assert!(!headers.contains_key("anthropic-ratelimit-tokens-limit"));
    }
}
