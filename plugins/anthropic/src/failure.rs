//! Reads an error reply and looks up what it means in the tables of `errors.rs`.

use moltbot_core::{Ended, Failure, FailureKind, Header, NetworkFault, Scope, Timestamp, header};
use serde_json::Value;

use crate::errors::{ANY, Clue, Group, ROWS, Row, SORTS, Verdict, default_of};
use crate::limits::{self, Limits};

/// How much of a reply's own words is kept.
const WORDS: usize = 2000;

/// Says what went wrong, whose fault it was and until when. Pure.
pub(crate) fn failure(ended: &Ended, now: Timestamp) -> Failure {
    match ended {
        Ended::Http { status, headers, body } => {
            let said = Said::parse(body);
            let words = match said.message.trim() {
                "" => format!("HTTP {status}"),
                text => text.to_string(),
            };
            classified(Some(*status), &said, words, headers, now)
        }
        Ended::Event { kind, message, body, headers } => {
            let said =
                Said { kind: kind.clone(), message: message.clone(), code: Said::read(body).code };
            let words = if message.trim().is_empty() { kind.clone() } else { message.clone() };
            classified(None, &said, words, headers, now)
        }
        Ended::Network { what, message } => {
            let (kind, code) = match what {
                NetworkFault::Timeout => (FailureKind::Timeout, "timeout"),
                _ => (FailureKind::Server, "network"),
            };
            upstream(kind, code, message.clone())
        }
        Ended::Child { stderr_tail, .. } => {
            upstream(FailureKind::Unknown, "upstream", stderr_tail.clone())
        }
        _ => upstream(FailureKind::Unknown, "upstream", "the exchange failed".into()),
    }
}

/// What an error body says, as far as it is understood.
#[derive(Debug, Default, PartialEq)]
struct Said {
    kind: String,
    message: String,
    code: String,
}

impl Said {
    /// Reads a body; one that is no JSON is all message.
    fn parse(body: &str) -> Self {
        match serde_json::from_str::<Value>(body) {
            Ok(value @ Value::Object(_)) => Self::read(&value),
            _ => Self { message: body.to_string(), ..Self::default() },
        }
    }

    /// Reads `{"error": {"type", "message", "details": {"error_code"}}}` and the two shorter
    /// forms that proxies and token endpoints use. Whatever is missing stays empty.
    fn read(body: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let error = &body["error"];
        if let Some(word) = error.as_str() {
            return Self {
                kind: word.into(),
                message: text(&body["error_description"]),
                ..Self::default()
            };
        }
        let inner = if error.is_object() { error } else { body };
        Self {
            kind: text(&inner["type"]),
            message: text(&inner["message"]),
            code: text(&inner["details"]["error_code"]),
        }
    }
}

fn classified(
    status: Option<u16>,
    said: &Said,
    words: String,
    headers: &[Header<'_>],
    now: Timestamp,
) -> Failure {
    let limits = Limits::read(headers, now);
    let group = group(status, &said.kind);
    let verdict = match find_row(group, said, &limits) {
        Some(row) => row.verdict,
        None => default_of(group),
    };
    let Verdict { kind, mut scope, code, advice, shared, widens } = verdict;
    if widens && limits.window_of_account_is_spent() {
        scope = Scope::Profile;
    }
    let account = shared.then(|| header(headers, limits::ACCOUNT)).flatten().map(str::to_string);
    let reset = match scope {
        Scope::Request => None,
        _ => limits.reset(now).or_else(|| match kind {
            FailureKind::Billing => limits::date_in_text(&said.message),
            _ => None,
        }),
    };
    let message = words.trim().chars().take(WORDS).collect();
    Failure {
        kind,
        scope,
        reset,
        account,
        code: code.into(),
        message,
        advice: advice.map(Into::into),
    }
}

fn group(status: Option<u16>, kind: &str) -> Group {
    SORTS
        .iter()
        .find(|sort| {
            let fits = match status {
                Some(status) => sort.status.contains(&status),
                None => sort.status == ANY,
            };
            fits && (sort.kind.is_empty() || sort.kind == kind)
        })
        .map_or(Group::Server, |sort| sort.group)
}

fn find_row(group: Group, said: &Said, limits: &Limits) -> Option<&'static Row> {
    let message = said.message.trim().to_lowercase().replace('\u{2019}', "'");
    let start = without_path(&message);
    let fits = |row: &&Row| match row.clue {
        Clue::Starts(text) => message.starts_with(text) || start.starts_with(text),
        Clue::Has(text) => message.contains(text),
        Clue::NoLimits => !limits.any(),
        Clue::Code(_) => false,
    };
    let rows = || ROWS.iter().filter(|row| row.group == group);
    let by_code = |row: &&Row| matches!(row.clue, Clue::Code(code) if code == said.code);
    rows().find(by_code).or_else(|| rows().find(fits))
}

/// Cuts off where in the body the fault is: `messages.3.content.0: `.
fn without_path(message: &str) -> &str {
    match message.split_once(": ") {
        Some((path, rest))
            if path.contains('.')
                && path
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte)) =>
        {
            rest
        }
        _ => message,
    }
}

fn upstream(kind: FailureKind, code: &'static str, message: String) -> Failure {
    Failure {
        kind,
        scope: Scope::Upstream,
        reset: None,
        account: None,
        code: code.into(),
        message,
        advice: None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A row that no known body reaches is either wrong or hidden by one before it.
    #[test]
    fn every_number_of_the_table_has_a_body_that_reaches_it() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/errors");
        let mut reached = Vec::new();
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let text = std::fs::read_to_string(entry.path()).unwrap();
            let fixture: Value = serde_json::from_str(&text).unwrap();
            let status = u16::try_from(fixture["status"].as_u64().unwrap()).unwrap();
            let said = Said::read(&fixture["body"]);
            let group = group(Some(status), &said.kind);
            if let Some(row) = find_row(group, &said, &Limits::default()) {
                let number: u8 = name.get(..2).unwrap().parse().unwrap();
                let same = row.number == number
                    // One text, two places where it was seen; two texts, one meaning.
                    || (row.number, number) == (36, 37)
                    || row.number == 47 && (43..=48).contains(&number);
                assert!(same, "{name} is caught by row {}", row.number);
                reached.push(row.number);
            }
        }
        for row in ROWS {
            assert!(reached.contains(&row.number), "nothing reaches row {}", row.number);
        }
    }

    #[test]
    fn a_path_is_cut_off_but_no_words() {
        assert_eq!(without_path("messages.3.content.0: text"), "text");
        for kept in ["model: x", "a. b: c", "no colon", "temperature: extra"] {
            assert_eq!(without_path(kept), kept);
        }
    }

    #[test]
    fn bodies_of_token_endpoints_are_read_too() {
        let said = Said::parse(r#"{"error":"invalid_grant","error_description":"gone"}"#);
        assert_eq!((said.kind.as_str(), said.message.as_str()), ("invalid_grant", "gone"));
    }
}
