//! The log of the truth: what the lab received and sent, without any credential in clear.
//!
//! A credential is replaced by its fingerprint before anything is kept: in headers by name, and
//! anywhere else by its `sk-ant-` prefix or by the field that holds it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::HeaderMap;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::keys::{KeyKind, fingerprint, hex};

/// Bodies up to this many bytes are kept whole.
const WHOLE_BODY: usize = 256 * 1024;

/// At most so many entries, and so many bytes of bodies, are kept; the oldest go first.
const ENTRIES: usize = 10_000;
const BODIES: usize = 64 * 1024 * 1024;

/// One request as the lab saw it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogEntry {
    /// The request's number since the lab started, from 1.
    pub number: u64,
    /// When it came, in milliseconds since the epoch of the lab's clock.
    pub at: i64,
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The headers in the order they came, names in lower case, credentials replaced.
    pub headers: Vec<(String, String)>,
    /// The credentials that came, one per header that carried one.
    pub credentials: Vec<SeenCredential>,
    /// The body: as JSON if it is that, as text, or `{"length": N, "sha256": ".."}` when large.
    pub body: Value,
    /// The rule of the plan that fired.
    pub rule: Option<String>,
    /// The status sent; 0 while none was.
    pub status: u16,
    /// The `request-id` of the reply.
    pub request_id: String,
    /// Bytes of the reply's body handed to the connection.
    pub sent: u64,
    /// Whether the reply was sent to its end.
    pub complete: bool,
    /// Whether the client went away before the reply's end.
    pub disconnected: bool,
}

impl LogEntry {
    /// Returns the first header called `name` (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the path without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or("")
    }
}

/// A credential as the log shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeenCredential {
    /// The header that carried it.
    pub header: String,
    /// Its kind by prefix.
    pub kind: KeyKind,
    /// Its fingerprint, see [`fingerprint`].
    pub sha256: String,
}

/// A request being logged; counters go on while the reply is sent.
#[derive(Debug, Default)]
pub(crate) struct Record {
    number: u64,
    at: i64,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    credentials: Vec<SeenCredential>,
    body: Mutex<Bytes>,
    rule: Mutex<Option<String>>,
    request_id: String,
    status: AtomicU16,
    sent: AtomicU64,
    complete: AtomicBool,
    disconnected: AtomicBool,
}

impl Record {
    pub(crate) fn set_rule(&self, rule: &str) {
        *lock(&self.rule) = Some(rule.to_owned());
    }

    pub(crate) fn set_status(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    pub(crate) fn add_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn set_complete(&self) {
        self.complete.store(true, Ordering::Relaxed);
    }

    pub(crate) fn set_disconnected(&self) {
        self.disconnected.store(true, Ordering::Relaxed);
    }

    fn snapshot(&self) -> LogEntry {
        let body = lock(&self.body);
        let body = if body.is_empty() {
            Value::Null
        } else {
            let mut value = serde_json::from_slice(&body)
                .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&body)));
            // Once more: an escape (`\u0073k-ant-`) hides from the search in the raw text.
            clean_value(&mut value);
            value
        };
        LogEntry {
            number: self.number,
            at: self.at,
            method: self.method.clone(),
            target: self.target.clone(),
            headers: self.headers.clone(),
            credentials: self.credentials.clone(),
            body,
            rule: lock(&self.rule).clone(),
            status: self.status.load(Ordering::Relaxed),
            request_id: self.request_id.clone(),
            sent: self.sent.load(Ordering::Relaxed),
            complete: self.complete.load(Ordering::Relaxed),
            disconnected: self.disconnected.load(Ordering::Relaxed),
        }
    }
}

/// What a record starts with.
pub(crate) struct Arrival<'a> {
    pub(crate) number: u64,
    pub(crate) at: i64,
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) request_id: &'a str,
}

/// The bounded list of records.
#[derive(Debug, Default)]
pub(crate) struct Log {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    records: VecDeque<Arc<Record>>,
    bodies: usize,
}

impl Log {
    /// Starts a record for a request whose head has come.
    pub(crate) fn open(&self, arrival: &Arrival<'_>) -> Arc<Record> {
        let (headers, credentials) = clean_headers(arrival.headers);
        let record = Arc::new(Record {
            number: arrival.number,
            at: arrival.at,
            method: arrival.method.to_owned(),
            target: clean_text(arrival.target),
            headers,
            credentials,
            request_id: arrival.request_id.to_owned(),
            ..Record::default()
        });
        let mut kept = lock(&self.kept);
        kept.records.push_back(record.clone());
        kept.trim();
        record
    }

    /// Adds the body to a record.
    pub(crate) fn set_body(&self, record: &Record, body: &Bytes, holds_tokens: bool) {
        let cleaned = if body.len() > WHOLE_BODY {
            let sha256 = hex(&Sha256::digest(body));
            Bytes::from(json!({ "length": body.len(), "sha256": sha256 }).to_string())
        } else {
            clean_body(body, holds_tokens)
        };
        let size = cleaned.len();
        *lock(&record.body) = cleaned;
        let mut kept = lock(&self.kept);
        kept.bodies += size;
        kept.trim();
    }

    /// Returns everything kept, oldest first.
    pub(crate) fn entries(&self) -> Vec<LogEntry> {
        let records: Vec<_> = lock(&self.kept).records.iter().cloned().collect();
        records.iter().map(|record| record.snapshot()).collect()
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        *lock(&self.kept) = Kept::default();
    }
}

impl Kept {
    fn trim(&mut self) {
        while self.records.len() > ENTRIES || (self.bodies > BODIES && self.records.len() > 1) {
            if let Some(old) = self.records.pop_front() {
                self.bodies = self.bodies.saturating_sub(lock(&old.body).len());
            }
        }
    }
}

fn clean_headers(headers: &HeaderMap) -> (Vec<(String, String)>, Vec<SeenCredential>) {
    let mut seen = Vec::new();
    let mut shown = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let text = String::from_utf8_lossy(value.as_bytes());
        let name = name.as_str();
        let secret =
            matches!(name, "authorization" | "x-api-key" | "proxy-authorization" | "cookie");
        let value = if secret {
            let (scheme, credential) = match text.split_once(' ') {
                Some((scheme, credential)) if name != "x-api-key" => (scheme, credential.trim()),
                _ => ("", text.trim()),
            };
            let kind = KeyKind::of(credential);
            let sha256 = fingerprint(credential);
            let before = if scheme.is_empty() { String::new() } else { format!("{scheme} ") };
            let value = format!("{before}{sha256} ({})", kind.name());
            seen.push(SeenCredential { header: name.to_owned(), kind, sha256 });
            value
        } else {
            clean_text(&text)
        };
        shown.push((name.to_owned(), value));
    }
    (shown, seen)
}

/// Replaces everything that looks like a credential by its fingerprint.
pub(crate) fn clean_text(text: &str) -> String {
    const MARK: &str = "sk-ant-";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(MARK) {
        out.push_str(&rest[..at]);
        let tail = &rest[at..];
        let odd = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_');
        let end = tail.find(odd).unwrap_or(tail.len());
        out.push_str(&fingerprint(&tail[..end]));
        rest = &tail[end..];
    }
    out.push_str(rest);
    out
}

fn clean_body(body: &Bytes, holds_tokens: bool) -> Bytes {
    if holds_tokens {
        return match serde_json::from_slice::<Value>(body) {
            Ok(mut value) => {
                clean_fields(&mut value);
                Bytes::from(value.to_string())
            }
            // A form or a broken body: what it holds cannot be told from a token.
            Err(_) => Bytes::from(
                json!({ "length": body.len(), "sha256": hex(&Sha256::digest(body)) }).to_string(),
            ),
        };
    }
    let text = String::from_utf8_lossy(body);
    if !text.contains("sk-ant-") {
        return body.clone();
    }
    Bytes::from(clean_text(&text))
}

fn clean_value(value: &mut Value) {
    match value {
        Value::String(text) if text.contains("sk-ant-") => *text = clean_text(text),
        Value::Array(items) => items.iter_mut().for_each(clean_value),
        Value::Object(fields) => {
            fields.values_mut().for_each(clean_value);
            if fields.keys().any(|name| name.contains("sk-ant-")) {
                let old = std::mem::take(fields);
                fields.extend(old.into_iter().map(|(name, value)| (clean_text(&name), value)));
            }
        }
        _ => {}
    }
}

fn clean_fields(value: &mut Value) {
    const OPEN: [&str; 7] = [
        "grant_type",
        "client_id",
        "scope",
        "federation_rule_id",
        "organization_id",
        "service_account_id",
        "workspace_id",
    ];
    if let Value::Object(fields) = value {
        for (name, value) in fields.iter_mut() {
            if let (Value::String(text), false) = (&*value, OPEN.contains(&name.as_str())) {
                *value = Value::from(fingerprint(text));
            } else if let Value::String(text) = value {
                *text = clean_text(text);
            }
        }
    }
}

/// Locks, also after a panic elsewhere: a half-made log entry is better than none.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-ant-api03-FAKEfakeFAKEfake-one";

    fn arrival<'a>(headers: &'a HeaderMap, target: &'a str) -> Arrival<'a> {
        Arrival { number: 1, at: 0, method: "POST", target, headers, request_id: "req_1" }
    }

    #[test]
    fn no_credential_is_kept_in_clear_wherever_it_came() {
        let log = Log::default();
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", KEY.parse().unwrap());
        headers.insert("authorization", format!("Bearer {KEY}").parse().unwrap());
        headers.insert("x-other", format!("a={KEY};").parse().unwrap());
        let target = format!("/v1/messages?key={KEY}");
        let record = log.open(&arrival(&headers, &target));
        log.set_body(&record, &Bytes::from(format!(r#"{{"system":"{KEY} x"}}"#)), false);
        let hidden = log.open(&arrival(&headers, "/v1/messages"));
        let escaped = KEY.replace("sk", "\\u0073k");
        log.set_body(&hidden, &Bytes::from(format!(r#"{{"{escaped}":["{escaped}"]}}"#)), false);
        let token = log.open(&arrival(&headers, "/v1/oauth/token"));
        let body = r#"{"grant_type":"refresh_token","refresh_token":"opaque-FAKE-value"}"#;
        log.set_body(&token, &Bytes::from(body), true);
        let shown = serde_json::to_string(&log.entries()).unwrap();
        assert!(!shown.contains("FAKE"), "{shown}");
        let entry = &log.entries()[0];
        assert_eq!(entry.credentials.len(), 2);
        assert_eq!(entry.credentials[0].sha256, fingerprint(KEY));
        assert_eq!(
            entry.header("authorization").unwrap(),
            format!("Bearer {} (api-key)", fingerprint(KEY))
        );
        assert_eq!(entry.body["system"], format!("{} x", fingerprint(KEY)));
        assert_eq!(log.entries()[2].body["grant_type"], "refresh_token");
    }

    #[test]
    fn the_log_is_bounded_and_large_bodies_are_only_measured() {
        let log = Log::default();
        let headers = HeaderMap::new();
        for _ in 0..=ENTRIES {
            log.open(&arrival(&headers, "/"));
        }
        assert_eq!(log.entries().len(), ENTRIES);
        let record = log.open(&arrival(&headers, "/v1/messages"));
        log.set_body(&record, &Bytes::from(vec![b'x'; WHOLE_BODY + 1]), false);
        assert_eq!(log.entries().last().unwrap().body["length"], WHOLE_BODY + 1);
    }
}
