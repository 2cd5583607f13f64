//! One request in writing: as a line of the log, and as a decision record. Pure.

use std::fmt::{self, Write as _};

use moltbot_core::{Text, Timestamp, Usage, redact};
use serde::Serialize;

use super::log::{Note, Tried};
use crate::cache::CacheEffect;
use crate::record::{ModelChoice, Outcome};

/// The code of a request whose client left.
const LEFT: &str = "cancelled";

/// Writes the line of the log: one request, words of the form `name=value`.
pub(crate) fn line(note: &Note, out: &mut String) {
    let _ = write!(
        out,
        "request id={} method={} path={} token={} agent={} model={} source={} status={} \
         attempts={} bytes={} ms={:.1}",
        note.id,
        note.method,
        Plain(&note.path),
        Plain(&note.token),
        Plain(&note.agent),
        Plain(&note.model),
        Plain(&note.source),
        note.status,
        note.tries.len(),
        note.bytes,
        note.ms,
    );
    if let Some(usage) = &note.usage {
        let (input, output) = (usage.all_input(), usage.output.unwrap_or(0));
        let (read, write) = (usage.cache_read.unwrap_or(0), usage.cache_write.unwrap_or(0));
        let _ = write!(out, " in={input} out={output} cache_read={read} cache_write={write}");
    }
    if !note.done {
        out.push_str(" ended=client-left");
    } else if let Some(trouble) = &note.trouble {
        let _ = write!(out, " ended={}", Plain(&redact(trouble)));
    }
    out.push('\n');
}

/// Writes the decision record as one line of JSON, in the form of [`Record`](crate::Record).
pub(crate) fn record(note: &Note, out: &mut Vec<u8>) {
    let answered = note.done && note.code.is_none() && (200..300).contains(&note.status);
    let outcome = match note.tries.last() {
        Some(last) if answered => {
            Outcome::Answered { model: last.model.to_string(), source: last.source.to_string() }
        }
        // Answered out of what is known here.
        None if answered => Outcome::Answered { model: "-".into(), source: "-".into() },
        _ if !note.done => Outcome::Failed { code: LEFT.into() },
        _ => Outcome::Failed { code: note.code.as_deref().unwrap_or("upstream").into() },
    };
    let line = Line {
        id: &note.id,
        at: note.at,
        agent: &note.agent,
        requested: note.requested.as_deref().filter(|asked| !asked.is_empty()),
        models: note.considered.iter().map(AsRef::as_ref).collect(),
        attempts: note.tries.iter().map(Attempt::of).collect(),
        changed: &note.changed,
        warnings: &note.warnings,
        outcome,
        usage: note.usage.as_ref(),
        cost: note.cost(),
        cache: note.cache.as_ref(),
        // Short: it tells the conversations of one agent apart, and what it was made of cannot be
        // read out of it.
        session: note.session.map(|hash| format!("door:{:012x}", hash >> 16)),
    };
    serde_json::to_writer(&mut *out, &line).expect("a record has text keys only");
    out.push(b'\n');
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    at: Timestamp,
    agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    requested: Option<&'a str>,
    models: Vec<&'a ModelChoice>,
    attempts: Vec<Attempt<'a>>,
    changed: &'a [Text],
    warnings: &'a [String],
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<&'a Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<&'a CacheEffect>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Attempt<'a> {
    model: &'a str,
    source: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    latency_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

impl<'a> Attempt<'a> {
    fn of(tried: &'a Tried) -> Self {
        Self {
            model: &tried.model,
            source: &tried.source,
            class: tried.class,
            status: tried.status,
            // Written by a service: kept only as long as an id is.
            request_id: tried
                .request_id
                .as_ref()
                .and_then(|id| id.to_str().ok())
                .filter(|id| id.len() <= 200),
            latency_ms: tried.ms,
            until: tried.until,
        }
    }
}

/// Writes a value so that it stays one word and cannot pretend to be another line.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        let plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '=';
        if self.0.chars().all(plain) {
            return f.write_str(self.0);
        }
        write!(f, "{:?}", self.0.chars().take(200).collect::<String>())
    }
}

/// Names the failure that a service's word for a sort of error stands for.
pub(crate) fn code_of(kind: &str) -> &'static str {
    match kind {
        "invalid_request_error" | "request_too_large" => "format",
        "authentication_error" => "credential-refused",
        "billing_error" => "billing",
        "permission_error" => "model-not-allowed",
        "not_found_error" => "model-not-found",
        "rate_limit_error" => "rate-limited",
        "timeout_error" => "timeout",
        "overloaded_error" => "overloaded",
        _ => "upstream",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use hyper::header::HeaderValue;
    use moltbot_core::{Failure, FailureKind, RecordId, Scope};

    use super::super::log::{Journal, Ticket};
    use super::*;
    use crate::record::Record;

    fn ticket() -> Ticket {
        let head = hyper::Request::post("/v1/messages?secret=no").body(()).unwrap().into_parts().0;
        let at = Timestamp::from_millis(1_790_000_000_000);
        let id = RecordId::new(at, 7).to_string();
        let mut ticket = Ticket::new(Arc::new(Journal::new(true)), id, at, &head, &"-".into());
        ticket.note.recorded = true;
        ticket.note.agent = "main".into();
        ticket
    }

    fn parsed(note: &Note) -> Record {
        let mut out = Vec::new();
        record(note, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().count() == 1 && !text.contains("was said"), "{text}");
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_record_is_read_as_any_other() {
        let mut ticket = ticket();
        let (one, two): (Arc<str>, Arc<str>) = ("profile:a".into(), "profile:b".into());
        let model: Arc<str> = "acme/big".into();
        ticket.leaves(&model, &one);
        ticket.arrived(Some(429), Some(&HeaderValue::from_static("req_1")));
        let until = Timestamp::from_millis(1_790_000_060_000);
        let failure = Failure {
            kind: FailureKind::RateLimit,
            scope: Scope::Profile,
            reset: None,
            account: None,
            code: "rate-limited".into(),
            message: "what was said".into(),
            advice: None,
        };
        ticket.failed(&failure, Some(until));
        ticket.leaves(&model, &two);
        ticket.arrived(Some(200), None);
        ticket.succeeded();
        let note = &mut ticket.note;
        (note.done, note.status, note.requested) = (true, 200, Some("big".into()));
        note.usage = Some(Usage { input: Some(3), cache_read: Some(9), ..Usage::default() });
        note.changed.push("model".into());
        let read = parsed(note);
        assert_eq!(read.id.as_str(), note.id);
        assert_eq!((read.agent.as_str(), read.requested.as_deref()), ("main", Some("big")));
        assert_eq!(read.attempts[0].until, Some(until));
        assert_eq!(read.attempts[0].request_id.as_deref(), Some("req_1"));
        assert_eq!(read.attempts[0].class.as_deref(), Some("rate_limit"));
        assert_eq!((read.attempts[1].status, &read.attempts[1].class), (Some(200), &None));
        let (model, source) = ("acme/big".to_string(), "profile:b".to_string());
        assert_eq!(read.outcome, Some(Outcome::Answered { model, source }));
        assert_eq!(read.usage.unwrap().cache_read, Some(9));
        assert_eq!(read.session, None);
        note.session = Some(0x0123_4567_89ab_cdef);
        assert_eq!(parsed(note).session.as_deref(), Some("door:0123456789ab"));
    }

    #[test]
    fn who_leaves_and_what_fails_has_a_code() {
        let mut ticket = ticket();
        ticket.note.status = 200;
        let failed = |code: &str| Some(Outcome::Failed { code: code.into() });
        assert_eq!(parsed(&ticket.note).outcome, failed("cancelled"));
        ticket.note.done = true;
        ticket.note.code = Some("overloaded".into());
        assert_eq!(parsed(&ticket.note).outcome, failed("overloaded"));
        for kind in ["invalid_request_error", "rate_limit_error", "x", "overloaded_error"] {
            let code = code_of(kind);
            assert!(moltbot_core::CODES.iter().any(|known| known.id == code), "{code}");
        }
    }

    #[test]
    fn a_line_stays_one_line_and_holds_no_query() {
        let mut ticket = ticket();
        ticket.note.path = "/v1/x\nrequest id=forged".into();
        ticket.note.tries.push(Tried {
            model: "m".into(),
            source: "s".into(),
            class: None,
            status: None,
            request_id: None,
            began: Instant::now(),
            ms: 0,
            until: None,
        });
        let mut out = String::new();
        line(&ticket.note, &mut out);
        assert_eq!(out.lines().count(), 1);
        assert!(out.contains("attempts=1") && out.ends_with("ended=client-left\n"), "{out}");
        assert!(!out.contains("secret=no"), "{out}");
    }
}
