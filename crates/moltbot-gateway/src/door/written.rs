//! One request in writing: as a line of the log, and as a decision record. Pure.

use std::io::Write as _;
use std::sync::Arc;

use moltbot_core::{Timestamp, plain_text, redact};
use serde::Serialize;

use super::log::{Note, Tried};
use crate::record::ModelChoice;

/// The code of a request whose client left.
const LEFT: &str = "cancelled";

/// Writes the line of the log: one request, words of the form `name=value`.
pub(crate) fn line(note: &Note, out: &mut Vec<u8>) {
    // Put together by hand: it is done for every request.
    for (name, value) in [("request id=", note.id.as_str()), (" method=", note.method.as_str())] {
        put(name, out);
        put(value, out);
    }
    for (name, value) in [
        (" path=", note.path.as_str()),
        (" token=", &note.token),
        (" agent=", &note.agent),
        (" model=", &note.model),
        (" source=", &note.source),
    ] {
        put(name, out);
        plain(value, out);
    }
    for (name, value) in [
        (" status=", note.status.into()),
        (" attempts=", note.tries.len() as u64),
        (" bytes=", note.bytes),
    ] {
        named(name, value, out);
    }
    let tenths = (note.ms * 10.0).round() as u64;
    named(" ms=", tenths / 10, out);
    named(".", tenths % 10, out);
    if let Some(usage) = &note.usage {
        for (name, value) in [
            (" in=", usage.all_input()),
            (" out=", usage.output.unwrap_or(0)),
            (" cache_read=", usage.cache_read.unwrap_or(0)),
            (" cache_write=", usage.cache_write.unwrap_or(0)),
        ] {
            named(name, value, out);
        }
    }
    if !note.done {
        put(" ended=client-left", out);
    } else if let Some(trouble) = &note.trouble {
        put(" ended=", out);
        plain(&redact(trouble), out);
    }
    out.push(b'\n');
}

/// Writes the decision record as one line of JSON, in the form of [`Record`](crate::Record). `cost`
/// is the note's.
pub(crate) fn record(
    note: &Note,
    cost: Option<f64>,
    considered: &mut Considered,
    out: &mut Vec<u8>,
) {
    // Put together by hand too; the tests read it back.
    put("{\"id\":", out);
    quoted(&note.id, out);
    time(",\"at\":", note.at, out);
    put(",\"agent\":", out);
    quoted(&note.agent, out);
    if let Some(requested) = note.requested.as_deref().filter(|asked| !asked.is_empty()) {
        put(",\"requested\":", out);
        quoted(requested, out);
    }
    put(",\"models\":", out);
    out.extend_from_slice(considered.json(&note.considered));
    put(",\"attempts\":[", out);
    for (number, tried) in note.tries.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        attempt(tried, out);
    }
    put("],\"changed\":", out);
    list(&note.changed, out);
    put(",\"warnings\":", out);
    list(&note.warnings, out);
    outcome(note, out);
    if let Some(usage) = &note.usage {
        put(",\"usage\":", out);
        json(usage, out);
    }
    if let Some(cost) = cost {
        put(",\"cost\":", out);
        json(&cost, out);
    }
    if let Some(cache) = &note.cache {
        put(",\"cache\":", out);
        json(cache, out);
    }
    if let Some(hash) = note.session {
        // Short: it tells the conversations of one agent apart, and what it was made of cannot be
        // read out of it.
        let session = format!("door:{:012x}", hash >> 16);
        put(",\"session\":", out);
        quoted(&session, out);
    }
    put("}\n", out);
}

fn attempt(tried: &Tried, out: &mut Vec<u8>) {
    put("{\"model\":", out);
    quoted(&tried.model, out);
    put(",\"source\":", out);
    quoted(&tried.source, out);
    if let Some(class) = tried.class {
        put(",\"class\":", out);
        quoted(class, out);
    }
    if let Some(status) = tried.status {
        named(",\"status\":", status.into(), out);
    }
    if let Some(id) = &tried.request_id {
        put(",\"requestId\":", out);
        quoted(id, out);
    }
    named(",\"latencyMs\":", tried.ms, out);
    if let Some(until) = tried.until {
        time(",\"until\":", until, out);
    }
    out.push(b'}');
}

fn outcome(note: &Note, out: &mut Vec<u8>) {
    let answered = note.done && note.code.is_none() && (200..300).contains(&note.status);
    if answered {
        // Without a request it was answered out of what is known here.
        let last = note.tries.last();
        put(",\"outcome\":{\"type\":\"answered\",\"model\":", out);
        quoted(last.map_or("-", |last| &last.model), out);
        put(",\"source\":", out);
        quoted(last.map_or("-", |last| &last.source), out);
    } else {
        let code = if note.done { note.code.as_deref().unwrap_or("upstream") } else { LEFT };
        put(",\"outcome\":{\"type\":\"failed\",\"code\":", out);
        quoted(code, out);
    }
    out.push(b'}');
}

fn list(texts: &[impl AsRef<str>], out: &mut Vec<u8>) {
    out.push(b'[');
    for (number, text) in texts.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        quoted(text.as_ref(), out);
    }
    out.push(b']');
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

/// Writes a value so that it stays one word and cannot pretend to be another line.
fn plain(value: &str, out: &mut Vec<u8>) {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'=';
    // Quoted, these stay what they are.
    let is_easy = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    if value.is_empty() {
        out.push(b'-');
    } else if value.bytes().all(is_plain) {
        put(value, out);
    } else if value.len() <= 200 && value.bytes().all(is_easy) {
        out.push(b'"');
        put(value, out);
        out.push(b'"');
    } else {
        // Writing into memory does not fail.
        let _ = write!(out, "{:?}", value.chars().take(200).collect::<String>());
    }
}

/// Writes a text as JSON has it.
fn quoted(text: &str, out: &mut Vec<u8>) {
    if plain_text(text.as_bytes()) == text.len() {
        out.push(b'"');
        put(text, out);
        out.push(b'"');
    } else {
        json(text, out);
    }
}

fn json<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect(KEYS);
}

fn time(name: &str, at: Timestamp, out: &mut Vec<u8>) {
    match u64::try_from(at.millis()) {
        Ok(millis) => named(name, millis, out),
        Err(_) => {
            put(name, out);
            json(&at, out);
        }
    }
}

fn put(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(text.as_bytes());
}

fn named(name: &str, mut value: u64, out: &mut Vec<u8>) {
    put(name, out);
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
    out.extend_from_slice(&digits[at..]);
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
    use moltbot_core::{Failure, FailureKind, RecordId, Scope, Usage};

    use super::super::log::{Journal, Ticket};
    use super::*;
    use crate::record::{Outcome, Record};

    fn ticket() -> Ticket {
        let head = hyper::Request::post("/v1/messages?secret=no").body(()).unwrap().into_parts().0;
        let at = Timestamp::from_millis(1_790_000_000_000);
        let id = RecordId::new(at, 7).to_string();
        let mut ticket = Ticket::new(Arc::new(Journal::new(true)), &id, at, &head, &"-".into());
        ticket.note.recorded = true;
        ticket.note.agent = "main".into();
        ticket
    }

    fn parsed(note: &Note) -> Record {
        let mut out = Vec::new();
        record(note, note.cost(), &mut Considered::default(), &mut out);
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
            record(&ticket.note, None, &mut considered, &mut out);
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
        let mut out = Vec::new();
        line(note, &mut out);
        let out = String::from_utf8(out).unwrap();
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
        let mut out = Vec::new();
        line(&ticket.note, &mut out);
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out.lines().count(), 1);
        assert!(out.contains("attempts=1") && out.ends_with("ended=client-left\n"), "{out}");
        assert!(!out.contains("secret=no"), "{out}");
    }
}
