//! What a simulation is fed with: requests and faults in time, written by hand or taken from
//! decision records. Pure.

use moltbot_core::{Failure, FailureKind, Payer, Scope, Timestamp};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::ModelRef;
use crate::record::{Attempt, Record};

/// How long a reply takes if the trace does not say.
const USUAL_MS: u64 = 2_000;

/// How long a recorded failure that named no end is met again.
const MOMENT_MS: i64 = 1_000;

/// Requests and faults, in milliseconds from the start of the trace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// The profiles it is about; without any, those of the agent.
    pub profiles: Vec<TraceProfile>,
    /// Requests, by time.
    pub requests: Vec<TraceRequest>,
    /// Faults; the first that fits decides.
    pub faults: Vec<TraceFault>,
    /// When it starts, if it was recorded.
    pub start: Option<Timestamp>,
}

/// A profile that a trace brings along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceProfile {
    /// Its id, `provider:name`.
    pub id: String,
    /// `api_key`, `oauth` or `token`.
    pub kind: String,
    /// Who pays.
    pub payer: Payer,
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceRequest {
    /// When it comes.
    pub at: i64,
    /// The line of the file, from 1; 0 for a record.
    pub line: usize,
    /// The conversation it belongs to.
    pub session: Option<String>,
    /// The model asked for; `None` is the configured one.
    pub model: Option<String>,
    /// Input tokens beside those in the prompt cache.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Input tokens that lie in the prompt cache or are written to it.
    pub cached: u64,
    /// How long the reply takes, in milliseconds.
    pub ms: u64,
}

/// A time in which requests fail.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceFault {
    /// From when on.
    pub from: i64,
    /// Until when; `None` is for ever.
    pub until: Option<i64>,
    /// The line of the file, from 1; 0 for a record.
    pub line: usize,
    /// Only with this profile.
    pub profile: Option<String>,
    /// Only with this model: `provider/model`, or the model alone.
    pub model: Option<String>,
    /// What sort.
    pub kind: FailureKind,
    /// The wait that the service names, in milliseconds.
    pub retry_after: Option<i64>,
}

/// What is wrong with a trace, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{line}:{column}: {message}")]
pub struct TraceError {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What.
    pub message: String,
}

/// The classes a fault may have, and whom each concerns.
const CLASSES: [(&str, FailureKind, Scope); 11] = [
    ("rate_limit", FailureKind::RateLimit, Scope::ProfileModel),
    ("auth", FailureKind::Auth, Scope::Profile),
    ("billing", FailureKind::Billing, Scope::Profile),
    ("overloaded", FailureKind::Overloaded, Scope::Model),
    ("timeout", FailureKind::Timeout, Scope::Upstream),
    ("server", FailureKind::Server, Scope::Upstream),
    ("model_not_found", FailureKind::ModelNotFound, Scope::Model),
    ("context_overflow", FailureKind::ContextOverflow, Scope::Request),
    ("format", FailureKind::Format, Scope::Request),
    ("refused", FailureKind::Refused, Scope::Request),
    ("unknown", FailureKind::Unknown, Scope::Request),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    at: Option<Seconds>,
    request: Option<RequestLine>,
    fault: Option<FaultLine>,
    profile: Option<ProfileLine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestLine {
    session: Option<String>,
    model: Option<String>,
    #[serde(default)]
    input: u64,
    #[serde(default)]
    output: u64,
    #[serde(default)]
    cached: u64,
    ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FaultLine {
    class: Class,
    profile: Option<String>,
    model: Option<String>,
    r#for: Option<Seconds>,
    retry_after: Option<Seconds>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileLine {
    id: String,
    r#type: ProfileKind,
    payer: Option<Payer>,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum ProfileKind {
    ApiKey,
    Oauth,
    Token,
}

/// Seconds as milliseconds, none of them negative.
struct Seconds(i64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        if !(0.0..=1e12).contains(&seconds) {
            return Err(D::Error::custom("seconds must be 0 or more, and less than 1e12"));
        }
        Ok(Self((seconds * 1_000.0) as i64))
    }
}

struct Class(FailureKind);

impl<'de> Deserialize<'de> for Class {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        let known = CLASSES.iter().find(|(name, ..)| *name == word);
        known.map(|(_, kind, _)| Self(*kind)).ok_or_else(|| {
            let names: Vec<&str> = CLASSES.iter().map(|(name, ..)| *name).collect();
            D::Error::custom(format!("no class \"{word}\"; there are {}", names.join(", ")))
        })
    }
}

impl Trace {
    /// Reads a trace: one JSON object per line, blank lines and lines that start with `#` aside.
    /// Lines of a request log are understood as well.
    ///
    /// # Errors
    ///
    /// Says the line and column of the first thing that cannot be understood.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let mut trace = Self::default();
        let mut records = Vec::new();
        for (at, text) in text.lines().enumerate() {
            let line = at + 1;
            let text = text.trim_end();
            if text.trim_start().is_empty() || text.trim_start().starts_with('#') {
                continue;
            }
            let fail = |column: usize, message: String| TraceError { line, column, message };
            let bad = |error: serde_json::Error| {
                let shown = error.to_string();
                let place = format!(" at line {} column {}", error.line(), error.column());
                let message = shown.strip_suffix(&place).unwrap_or(&shown);
                fail(error.column().max(1), moltbot_core::redact(message).into_owned())
            };
            if text.contains("\"attempts\"") {
                records.push(serde_json::from_str::<Record>(text).map_err(bad)?);
                continue;
            }
            let read: Line = serde_json::from_str(text).map_err(bad)?;
            trace.take(read, line).map_err(|message| fail(1, message))?;
        }
        trace.add_records(&records);
        trace.requests.sort_by_key(|request| request.at);
        Ok(trace)
    }

    /// Makes a trace of what was recorded.
    pub fn of_records(records: &[Record]) -> Self {
        let mut trace = Self::default();
        trace.add_records(records);
        trace.requests.sort_by_key(|request| request.at);
        trace
    }

    fn take(&mut self, read: Line, line: usize) -> Result<(), String> {
        let at = read.at.map(|at| at.0);
        let time = || at.ok_or_else(|| "\"at\" is missing: seconds from the start".to_string());
        match (read.request, read.fault, read.profile) {
            (Some(request), None, None) => self.requests.push(TraceRequest {
                at: time()?,
                line,
                session: request.session,
                model: request.model,
                input: request.input,
                output: request.output,
                cached: request.cached,
                ms: request.ms.unwrap_or(USUAL_MS),
            }),
            (None, Some(fault), None) => self.faults.push(TraceFault {
                from: time()?,
                until: fault.r#for.map(|length| time().map(|at| at + length.0)).transpose()?,
                line,
                profile: fault.profile,
                model: fault.model,
                kind: fault.class.0,
                retry_after: fault.retry_after.map(|wait| wait.0),
            }),
            (None, None, Some(profile)) => {
                if !profile.id.split_once(':').is_some_and(|(p, n)| !p.is_empty() && !n.is_empty())
                {
                    return Err(format!("\"{}\" is no profile id: provider:name", profile.id));
                }
                let kind = match profile.r#type {
                    ProfileKind::ApiKey => "api_key",
                    ProfileKind::Oauth => "oauth",
                    ProfileKind::Token => "token",
                };
                let usual = if kind == "api_key" { Payer::Metered } else { Payer::Subscription };
                let payer = profile.payer.unwrap_or(usual);
                self.profiles.push(TraceProfile { id: profile.id, kind: kind.into(), payer });
            }
            _ => return Err("a line holds one of \"request\", \"fault\", \"profile\"".into()),
        }
        Ok(())
    }

    fn add_records(&mut self, records: &[Record]) {
        let Some(start) = records.iter().map(|record| record.at).min() else { return };
        self.start = Some(start);
        for record in records {
            let at = record.at.since(start);
            let usage = record.usage.unwrap_or_default();
            let ms = record.attempts.last().map_or(USUAL_MS, |last| last.latency_ms);
            self.requests.push(TraceRequest {
                at,
                line: 0,
                session: record.session.clone(),
                model: record.requested.clone(),
                input: usage.input.unwrap_or(0),
                output: usage.output.unwrap_or(0),
                cached: usage
                    .cache_read
                    .unwrap_or(0)
                    .saturating_add(usage.cache_write.unwrap_or(0)),
                ms,
            });
            let failed =
                record.attempts.iter().filter_map(|attempt| recorded(attempt, record, at, start));
            self.faults.extend(failed);
        }
    }

    /// Returns the fault that a request meets.
    pub(super) fn fault(
        &self,
        at: i64,
        profile: Option<&str>,
        model: &ModelRef,
    ) -> Option<&TraceFault> {
        self.faults.iter().find(|fault| {
            fault.from <= at
                && fault.until.is_none_or(|until| at < until)
                && fault.profile.as_deref().is_none_or(|only| Some(only) == profile)
                && fault
                    .model
                    .as_deref()
                    .is_none_or(|only| only == model.model || only == model.to_string())
        })
    }
}

/// Makes a fault of a request that failed: it is met again for as long as it lasted.
fn recorded(attempt: &Attempt, record: &Record, at: i64, start: Timestamp) -> Option<TraceFault> {
    let class = attempt.class.as_deref()?;
    let (_, kind, scope) = CLASSES.iter().find(|(name, ..)| *name == class)?;
    let until = attempt.until.filter(|until| *until > record.at);
    let of_profile = matches!(scope, Scope::Profile | Scope::ProfileModel);
    let profile = attempt.source.strip_prefix("profile:").filter(|_| of_profile);
    Some(TraceFault {
        from: at,
        until: Some(until.map_or(at + MOMENT_MS, |until| until.since(start))),
        line: 0,
        profile: profile.map(String::from),
        model: (*scope != Scope::Profile).then(|| attempt.model.clone()),
        kind: *kind,
        retry_after: until.map(|until| until.since(record.at)),
    })
}

impl TraceFault {
    /// Returns the failure that a provider would make of it.
    pub(super) fn failure(&self, now: Timestamp) -> Failure {
        let known = CLASSES.iter().find(|(_, kind, _)| *kind == self.kind);
        Failure {
            kind: self.kind,
            scope: known.map_or(Scope::Request, |(_, _, scope)| *scope),
            reset: self.retry_after.map(|wait| now.plus(wait)),
            account: None,
            code: self.kind.as_str().into(),
            message: String::new(),
            advice: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_trace_is_read() {
        let trace = Trace::parse(
            "# noon\n\n{\"profile\":{\"id\":\"acme:a\",\"type\":\"api_key\"}}\n\
             {\"at\":5,\"request\":{\"session\":\"s\",\"input\":7,\"cached\":9,\"output\":1}}\n\
             {\"at\":1.5,\"request\":{}}\n\
             {\"at\":2,\"fault\":{\"class\":\"rate_limit\",\"profile\":\"acme:a\",\"for\":60,\"retryAfter\":30}}\n",
        )
        .unwrap();
        assert_eq!(trace.profiles[0].payer, Payer::Metered);
        assert_eq!(
            trace.requests.iter().map(|r| (r.at, r.line)).collect::<Vec<_>>(),
            [(1_500, 5), (5_000, 4)]
        );
        let fault = &trace.faults[0];
        assert_eq!(
            (fault.from, fault.until, fault.retry_after),
            (2_000, Some(62_000), Some(30_000))
        );
        let model = ModelRef { provider: "acme".into(), model: "big".into() };
        assert!(trace.fault(2_000, Some("acme:a"), &model).is_some());
        assert!(trace.fault(62_000, Some("acme:a"), &model).is_none());
        assert!(trace.fault(2_000, Some("acme:b"), &model).is_none());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, line, column, part) in [
            ("{\"at\":0,\"request\":{}}\n{\"at\":-1,\"request\":{}}", 2, 8, "0 or more"),
            ("{\"at\":0,\"request\":{\"input\":-5}}", 1, 29, "-5"),
            ("{\"at\":0,\"request\":{\"inputs\":5}}", 1, 27, "inputs"),
            ("{\"at\":0,\"fault\":{\"class\":\"429\"}}", 1, 31, "no class \"429\""),
            ("{\"request\":{}}", 1, 1, "\"at\" is missing"),
            ("{\"at\":3}", 1, 1, "one of"),
            ("{\"profile\":{\"id\":\"x\",\"type\":\"api_key\"}}", 1, 1, "no profile id"),
            ("\n\n{nonsense", 3, 2, "key must be a string"),
        ] {
            let error = Trace::parse(text).unwrap_err();
            assert!(error.message.contains(part), "{error}");
            assert_eq!((error.line, error.column), (line, column), "{error}");
        }
    }

    #[test]
    fn records_bring_their_faults_along() {
        let record = serde_json::json!({ "id": "mb_01m2m5pr000000000007", "at": 1_790_000_000_000_i64,
            "agent": "main", "models": [], "session": "s1",
            "attempts": [
                { "model": "acme/big", "source": "profile:acme:a", "class": "rate_limit",
                  "status": 429, "latencyMs": 5, "until": 1_790_000_060_000_i64 },
                { "model": "acme/big", "source": "profile:acme:b", "status": 200, "latencyMs": 900 }],
            "usage": { "input": 3, "output": 4, "cacheRead": 10, "cacheWrite": 5 } });
        let trace = Trace::parse(&record.to_string()).unwrap();
        let request = &trace.requests[0];
        assert_eq!((request.cached, request.ms, request.session.as_deref()), (15, 900, Some("s1")));
        let fault = &trace.faults[0];
        assert_eq!((fault.profile.as_deref(), fault.until), (Some("acme:a"), Some(60_000)));
        assert_eq!(trace.start.unwrap().millis(), 1_790_000_000_000);
    }
}
