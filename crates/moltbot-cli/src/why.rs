//! Decision records in words: which model, which credential, why not the others.

use moltbot_core::{Payer, Timestamp};
use moltbot_gateway::{
    AgentPaths, Attempt, ChatError, ChatReply, CredentialChoice, ModelChoice, Outcome, Record,
    RecordLog,
};
use moltbot_profiles::remaining_text;

use crate::Context;
use crate::context::iso;

/// Keeps the record of a request, however it ended, in the agent's log. A log that refuses costs
/// a warning, never the reply.
pub(crate) fn keep(cx: &mut Context, agent: &AgentPaths, ended: &Result<ChatReply, ChatError>) {
    let record = match ended {
        Ok(reply) => Some(&reply.record),
        Err(error) => error.record.as_deref(),
    };
    let log = RecordLog::new(agent.logs());
    if let Some(record) = record
        && let Err(error) = log.append(record)
    {
        let path = cx.shown(log.path());
        cx.out.warn(format!("{path}: the request cannot be recorded: {error}"));
    }
}

/// Returns the model and the credential that would be used first, if any could.
pub(crate) fn first(record: &Record) -> Option<(&ModelChoice, &CredentialChoice)> {
    record.models.iter().filter(|model| model.skipped.is_none()).find_map(|model| {
        let usable = model.candidates.iter().find(|candidate| candidate.skipped.is_none())?;
        Some((model, usable))
    })
}

/// Explains what would happen, line by line.
pub(crate) fn lines(record: &Record, now: Timestamp) -> Vec<String> {
    let mut lines = vec![format!("Agent       : {}", record.agent)];
    match first(record) {
        Some((model, credential)) => {
            lines.push(format!("Model       : {}", model.model));
            lines.push(format!(
                "Credential  : {} ({})",
                credential.source,
                payer(credential.payer)
            ));
            if let Some(origin) = &model.origin {
                lines.push(format!("Destination : {origin}"));
            }
        }
        None => lines.push("Credential  : none is usable".to_string()),
    }
    add_choices(&mut lines, record, now);
    for warning in &record.warnings {
        lines.push(format!("warning: {warning}"));
    }
    lines
}

/// Explains what happened, line by line; times are those of the request.
pub(crate) fn told(record: &Record) -> Vec<String> {
    let mut lines = vec![
        format!("Request     : {}", record.id),
        format!("Time        : {}", iso(record.at)),
        format!("Agent       : {}", record.agent),
    ];
    if let Some(requested) = &record.requested {
        lines.push(format!("Asked for   : {requested}"));
    }
    match &record.outcome {
        Some(Outcome::Answered { model, source }) => {
            lines.push(format!("Answered by : {model}"));
            let payer = credential_of(record, source).map_or(Payer::Unknown, |c| c.payer);
            lines.push(format!("Credential  : {source} ({})", self::payer(payer)));
        }
        Some(Outcome::Failed { code }) => {
            lines.push(format!("Failed      : {code} (`moltbot explain {code}`)"));
        }
        None => {}
    }
    if let Some(usage) = &record.usage {
        let mut tokens = format!("{} in, {} out", usage.all_input(), usage.output.unwrap_or(0));
        for (count, what) in [(usage.cache_read, "from cache"), (usage.cache_write, "into cache")] {
            if let Some(count) = count.filter(|count| *count > 0) {
                tokens.push_str(&format!(", {count} {what}"));
            }
        }
        let cost = record.cost.map(|cost| format!(", ${cost:.4}")).unwrap_or_default();
        lines.push(format!("Tokens      : {tokens}{cost}"));
    }
    lines.push("Considered:".to_string());
    add_choices(&mut lines, record, record.at);
    lines.push(match record.attempts.is_empty() {
        true => "Sent: nothing".to_string(),
        false => "Sent:".to_string(),
    });
    for (at, attempt) in record.attempts.iter().enumerate() {
        lines.push(format!("  {}. {}", at + 1, sent(attempt, record.at)));
    }
    lines.extend(record.changed.iter().map(|what| format!("changed: {what}")));
    lines.extend(record.warnings.iter().map(|what| format!("warning: {what}")));
    lines
}

/// Finds what was known of the credential of that name.
pub(crate) fn credential_of<'r>(record: &'r Record, source: &str) -> Option<&'r CredentialChoice> {
    let all = record.models.iter().flat_map(|model| &model.candidates);
    all.into_iter().find(|candidate| candidate.source == source)
}

fn add_choices(lines: &mut Vec<String>, record: &Record, now: Timestamp) {
    for model in &record.models {
        let note = model.skipped.as_ref().map(|why| format!(" (left out: {why})"));
        lines.push(format!("{}{}", model.model, note.unwrap_or_default()));
        for (at, candidate) in model.candidates.iter().enumerate() {
            lines.push(format!("  {}. {}", at + 1, describe(candidate, now)));
        }
        if model.more > 0 {
            lines.push(format!("  and {} more", model.more));
        }
    }
}

fn sent(attempt: &Attempt, now: Timestamp) -> String {
    let mut text = format!("{} with {}: ", attempt.model, attempt.source);
    text.push_str(attempt.class.as_deref().unwrap_or("answered"));
    if let Some(status) = attempt.status {
        text.push_str(&format!(", HTTP {status}"));
    }
    text.push_str(&format!(", {} ms", attempt.latency_ms));
    if let Some(until) = attempt.until {
        let rest = remaining_text(Some(until.since(now)));
        text.push_str(&format!(", rests for {rest}, until {}", iso(until)));
    }
    if let Some(id) = &attempt.request_id {
        text.push_str(&format!(", {id}"));
    }
    text
}

fn describe(candidate: &CredentialChoice, now: Timestamp) -> String {
    let mut text = format!("{} [{}, {}]", candidate.source, candidate.mode, payer(candidate.payer));
    if candidate.renew {
        text.push_str(", renewed first");
    }
    if let Some(why) = &candidate.skipped {
        text.push_str(&format!(", left out: {why}"));
    }
    if let Some(until) = candidate.until {
        text.push_str(&format!(", for {}", remaining_text(Some(until.since(now)))));
    }
    text
}

/// Says who pays, in one word.
pub(crate) fn payer(payer: Payer) -> &'static str {
    match payer {
        Payer::Metered => "billed per use",
        Payer::Subscription => "subscription",
        Payer::Unknown => "payer unknown",
    }
}
