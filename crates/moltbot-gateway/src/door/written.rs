//! One request in writing: as a line of the log, and as a decision record. Pure.

use std::fmt::Write as _;
use std::sync::Arc;

use moltbot_core::{Text, Timestamp, Usage, redact};
use serde::Serialize;

use super::log::{Note, Tried};
use crate::cache::CacheEffect;
use crate::record::{ModelChoice, Outcome};

/// The code of a request whose client left.
const LEFT: &str = "cancelled";

/// Writes the line of the log: one request, words of the form `name=value`.
pub(crate) fn line(note: &Note, out: &mut String) {
    // Put together by hand: it is done for every request.
    for (name, value) in [("request id=", note.id.as_str()), (" method=", note.method.as_str())] {
        out.push_str(name);
        out.push_str(value);
    }
    for (name, value) in [
        (" path=", note.path.as_str()),
        (" token=", &note.token),
        (" agent=", &note.agent),
        (" model=", &note.model),
        (" source=", &note.source),
    ] {
        out.push_str(name);
        plain(value, out);
    }
    for (name, value) in [
        (" status=", note.status.into()),
        (" attempts=", note.tries.len() as u64),
        (" bytes=", note.bytes),
    ] {
        out.push_str(name);
        number(value, out);
    }
    let tenths = (note.ms * 10.0).round() as u64;
    out.push_str(" ms=");
    number(tenths / 10, out);
    out.push('.');
    number(tenths % 10, out);
    if let Some(usage) = &note.usage {
        for (name, value) in [
            (" in=", usage.all_input()),
            (" out=", usage.output.unwrap_or(0)),
            (" cache_read=", usage.cache_read.unwrap_or(0)),
            (" cache_write=", usage.cache_write.unwrap_or(0)),
        ] {
            out.push_str(name);
            number(value, out);
        }
    }
    if !note.done {
        out.push_str(" ended=client-left");
    } else if let Some(trouble) = &note.trouble {
        out.push_str(" ended=");
        plain(&redact(trouble), out);
    }
    out.push('\n');
}

/// Writes the decision record as one line of JSON, in the form of [`Record`](crate::Record).
pub(crate) fn record(note: &Note, considered: &mut Considered, out: &mut Vec<u8>) {
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
    let front = Front {
        id: &note.id,
        at: note.at,
        agent: &note.agent,
        requested: note.requested.as_deref().filter(|asked| !asked.is_empty()),
    };
    let back = Back {
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
    // One object of three pieces, of which the middle one is ready.
    serde_json::to_writer(&mut *out, &front).expect(KEYS);
    out.pop();
    out.extend_from_slice(b",\"models\":");
    out.extend_from_slice(considered.json(&note.considered));
    let seam = out.len();
    serde_json::to_writer(&mut *out, &back).expect(KEYS);
    out[seam] = b',';
    out.push(b'\n');
}

/// Why a record can always be written.
const KEYS: &str = "a record has text keys only";

/// The models of the last record as they were written: those of the next one are mostly the same.
#[derive(Default)]
pub(crate) struct Considered {
    choices: Vec<Arc<ModelChoice>>,
    json: Vec<u8>,
}

impl Considered {
    fn json(&mut self, choices: &[Arc<ModelChoice>]) -> &[u8] {
        let same = self.choices.len() == choices.len()
            && self.choices.iter().zip(choices).all(|(known, one)| Arc::ptr_eq(known, one));
        if !same || self.json.is_empty() {
            self.choices = choices.to_vec();
            self.json.clear();
            let all: Vec<&ModelChoice> = choices.iter().map(AsRef::as_ref).collect();
            serde_json::to_writer(&mut self.json, &all).expect(KEYS);
        }
        &self.json
    }
}

#[derive(Serialize)]
struct Front<'a> {
    id: &'a str,
    at: Timestamp,
    agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    requested: Option<&'a str>,
}

#[derive(Serialize)]
struct Back<'a> {
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
fn plain(value: &str, out: &mut String) {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'=';
    if value.is_empty() {
        out.push('-');
    } else if value.bytes().fold(true, |all, byte| all & is_plain(byte)) {
        out.push_str(value);
    } else {
        // Writing into a text does not fail.
        let _ = write!(out, "{:?}", value.chars().take(200).collect::<String>());
    }
}

fn number(mut value: u64, out: &mut String) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend(digits[at..].iter().map(|digit| char::from(*digit)));
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
        record(note, &mut Considered::default(), &mut out);
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
    fn models_are_written_as_they_were_considered() {
        let choice = |name: &str| {
            Arc::new(ModelChoice {
                model: name.into(),
                skipped: None,
                origin: None,
                candidates: Vec::new(),
                strategy: None,
                more: 0,
            })
        };
        let (one, two) = (choice("acme/one"), choice("acme/two"));
        let mut considered = Considered::default();
        for choices in [vec![], vec![&one], vec![&one], vec![&one, &two], vec![&two], vec![]] {
            let mut ticket = ticket();
            ticket.note.considered = choices.iter().map(|choice| Arc::clone(choice)).collect();
            let mut out = Vec::new();
            record(&ticket.note, &mut considered, &mut out);
            let read: Record = serde_json::from_slice(&out).unwrap();
            let expected: Vec<ModelChoice> = choices.iter().map(|one| (***one).clone()).collect();
            assert_eq!(read.models, expected);
        }
    }

    #[test]
    fn a_line_has_all_its_words() {
        let mut ticket = ticket();
        let note = &mut ticket.note;
        (note.status, note.bytes, note.ms, note.done) = (200, u64::MAX, 12.34, true);
        note.usage = Some(Usage { input: Some(3), cache_read: Some(9), ..Usage::default() });
        let mut out = String::new();
        line(note, &mut out);
        let words = format!(
            "request id={} method=POST path=/v1/messages token=- agent=main model=- source=- \
             status=200 attempts=0 bytes=18446744073709551615 ms=12.3 in=12 out=0 cache_read=9 \
             cache_write=0\n",
            note.id
        );
        assert_eq!(out, words);
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
