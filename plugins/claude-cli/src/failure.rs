//! What the program's errors mean, whose fault they are and until when.

use moltbot_core::{Ended, Failure, FailureKind, NetworkFault, Scope, Timestamp};
use serde_json::Value;

/// How much of a message is kept for people, in characters.
const WORDS: usize = 1_000;

const FAILED: &str = "claude-cli-failed";
const LIMIT: &str = "claude-cli-limit";
const LOGIN: &str = "claude-cli-login";

/// Says what went wrong. Pure.
pub(crate) fn failure(ended: &Ended, now: Timestamp) -> Failure {
    match ended {
        Ended::Child { exit, stderr_tail, last_event } if last_event["error"].is_string() => {
            let _ = (exit, stderr_tail);
            said(last_event, now)
        }
        Ended::Child { exit, stderr_tail, .. } => {
            let how = match exit {
                Some(127) => "claude was not found; install Claude Code".to_string(),
                Some(code) => format!("claude ended with exit code {code}"),
                None => "claude was ended".to_string(),
            };
            let tail = stderr_tail.trim();
            let message = if tail.is_empty() { how } else { format!("{how}: {tail}") };
            new(FailureKind::Server, Scope::Upstream, FAILED, &message)
        }
        Ended::Event { body, .. } if body["error"].is_string() => said(body, now),
        Ended::Event { kind, message, .. } => {
            let message = format!("{message} ({kind})");
            new(FailureKind::Server, Scope::Upstream, FAILED, &message)
        }
        Ended::Network { what: NetworkFault::Timeout, message } => {
            new(FailureKind::Timeout, Scope::Upstream, "timeout", message)
        }
        Ended::Network { message, .. } => {
            new(FailureKind::Server, Scope::Upstream, FAILED, message)
        }
        _ => {
            new(FailureKind::Unknown, Scope::Upstream, FAILED, "claude answered something unknown")
        }
    }
}

/// Classifies by the program's own word and the service's status; the words are for people, and
/// decide only where there is neither.
fn said(said: &Value, now: Timestamp) -> Failure {
    let text = |name: &str| said[name].as_str().unwrap_or_default();
    let (error, message) = (text("error"), text("message"));
    let lower = message.to_lowercase();
    let (kind, scope, code, advice) = match (error, said["status"].as_u64()) {
        ("version", _) => (
            FailureKind::Server,
            Scope::Upstream,
            "claude-cli-version",
            Some("run `claude update`"),
        ),
        ("authentication_failed" | "oauth_org_not_allowed", _) | (_, Some(401)) => {
            (FailureKind::Auth, Scope::Profile, LOGIN, Some("run `claude` and log in there"))
        }
        ("billing_error" | "account_on_hold", _) | (_, Some(402)) => {
            (FailureKind::Billing, Scope::Profile, "billing", None)
        }
        ("rate_limit", _) | (_, Some(429)) if said["limit"]["status"] == "rejected" => {
            (FailureKind::RateLimit, Scope::Profile, LIMIT, None)
        }
        ("rate_limit", _) | (_, Some(429)) => {
            (FailureKind::RateLimit, Scope::ProfileModel, "rate-limited", None)
        }
        ("model_not_found", _) | (_, Some(404)) => {
            (FailureKind::ModelNotFound, Scope::ProfileModel, "model-not-found", None)
        }
        (_, Some(529)) => (FailureKind::Overloaded, Scope::Upstream, "overloaded", None),
        ("overloaded", _) => (FailureKind::Overloaded, Scope::Upstream, "overloaded", None),
        (_, Some(400)) if lower.starts_with("prompt is too long") => {
            (FailureKind::ContextOverflow, Scope::Request, "context-overflow", None)
        }
        (_, Some(403)) => (FailureKind::Auth, Scope::Profile, LOGIN, None),
        (_, Some(400 | 413 | 422)) => (FailureKind::Format, Scope::Request, "format", None),
        _ if lower.contains("overloaded") => {
            (FailureKind::Overloaded, Scope::Upstream, "overloaded", None)
        }
        _ => (FailureKind::Server, Scope::Upstream, FAILED, None),
    };
    let message = if message.is_empty() { error } else { message };
    let reset = match kind {
        FailureKind::RateLimit => reset(&said["limit"]["resetsAt"], now),
        _ => None,
    };
    Failure { reset, advice: advice.map(Into::into), ..new(kind, scope, code, message) }
}

/// Reads a time in seconds; one that is over says nothing.
fn reset(at: &Value, now: Timestamp) -> Option<Timestamp> {
    let at = Timestamp::from_millis(at.as_i64()?.checked_mul(1_000)?);
    (at > now).then_some(at)
}

fn new(kind: FailureKind, scope: Scope, code: &'static str, message: &str) -> Failure {
    Failure {
        kind,
        scope,
        reset: None,
        account: None,
        code: code.into(),
        message: message.trim().chars().take(WORDS).collect(),
        advice: None,
    }
}
