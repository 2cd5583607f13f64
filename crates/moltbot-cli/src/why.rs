//! Decision records in words: which model, which credential, why not the others.

use moltbot_config::MAIN_AGENT;
use moltbot_core::{Payer, Timestamp};
use moltbot_gateway::{
    AgentPaths, Attempt, ChatError, CredentialChoice, ModelChoice, Outcome, Record, RecordLog,
};
use moltbot_profiles::remaining_text;

use crate::context::iso;
use crate::{Context, Failure};

/// How many lines a failure says about single credentials.
const DETAILS: usize = 8;

/// Keeps the record of a request, however it ended, in the agent's log. A log that refuses costs
/// a warning, never the reply.
pub(crate) fn keep(cx: &mut Context, agent: &AgentPaths, record: &Record) {
    let log = RecordLog::new(agent.logs());
    if let Err(error) = log.append(record) {
        let path = cx.shown(log.path());
        cx.out.warn(format!("{path}: the request cannot be recorded: {error}"));
    }
}

/// Returns the command that tells all about a request.
pub(crate) fn command(record: &Record) -> String {
    format!("moltbot models why --request {}{}", record.id, agent_flag(&record.agent))
}

/// Makes the failure of a request: the words for it, then what became of which model and
/// credential and until when, and the command that mends it.
pub(crate) fn failure(error: &ChatError) -> Failure {
    let mut failure = Failure::new(&error.message).code(error.code.clone());
    failure.hint = error.advice.clone();
    if let Some(record) = &error.record {
        failure.details = details(record).into();
        failure.mend = Some(mend(&error.code, record));
    }
    failure
}

fn details(record: &Record) -> Vec<String> {
    let mut lines: Vec<String> =
        record.attempts.iter().map(|attempt| sent(attempt, record.at)).collect();
    if lines.is_empty() {
        for model in &record.models {
            if let Some(why) = &model.skipped {
                lines.push(format!("{}: left out: {why}", model.model));
            }
            let left_out = model.candidates.iter().filter(|one| one.skipped.is_some());
            let describe = |one| format!("{} with {}", model.model, describe(one, record.at));
            lines.extend(left_out.map(describe));
        }
    }
    if lines.len() > DETAILS {
        let more = lines.len() - DETAILS + 1;
        lines.truncate(DETAILS - 1);
        lines.push(format!("and {more} more"));
    }
    lines
}

/// Names the command that mends what made a request fail.
fn mend(code: &str, record: &Record) -> String {
    let agent = agent_flag(&record.agent);
    let last = record.attempts.last();
    let class = last.and_then(|attempt| attempt.class.as_deref()).unwrap_or_default();
    let first = record.models.first().map(|choice| choice.model.as_str());
    let model = last.map(|attempt| attempt.model.as_str()).or(first).unwrap_or_default();
    let provider = model.split('/').next().unwrap_or_default();
    let requested = record.requested.as_deref().unwrap_or(model);
    match (code, class) {
        ("no-credential", _) => format!("moltbot onboard{agent}"),
        ("profile-unknown", _) => format!("moltbot models status{agent}"),
        ("paid-fallback", _) => "moltbot config set auth.allowPaidFallback true".to_string(),
        ("model-not-found" | "input", _) => "moltbot models list --all".to_string(),
        ("context-overflow", _) => "moltbot models list --all".to_string(),
        ("model-not-allowed", _) => format!("moltbot models aliases add <alias> {requested}"),
        ("plugin-missing" | "plugin-failed", _) => "moltbot plugins list".to_string(),
        ("origin-refused", _) => {
            format!("moltbot config get models.providers.{provider}.baseUrl")
        }
        ("all-cooling", _) | (_, "rate_limit") => {
            format!("moltbot models auth cooldown list{agent}")
        }
        (_, "auth") => format!("moltbot models auth add{agent}"),
        (_, "billing") => {
            format!("moltbot models auth order set --provider {provider}{agent} <profiles>")
        }
        (_, "overloaded" | "server" | "timeout") => {
            "moltbot models fallbacks add <model>".to_string()
        }
        (code, _) if code.starts_with("store-") => "moltbot doctor".to_string(),
        _ => command(record),
    }
}

fn agent_flag(agent: &str) -> String {
    if agent == MAIN_AGENT { String::new() } else { format!(" --agent {agent}") }
}

/// Returns the model and the credential that would be used first, if any could.
pub(crate) fn first(record: &Record) -> Option<(&ModelChoice, &CredentialChoice)> {
    record.models.iter().filter(|model| model.skipped.is_none()).find_map(|model| {
        let usable = model.candidates.iter().find(|candidate| candidate.skipped.is_none())?;
        Some((model, usable))
    })
}

/// Says in a few words why the first credential is used, and what becomes of a profile that was
/// just stored.
pub(crate) fn reason(record: &Record, stored: Option<&str>) -> String {
    let Some((model, used)) = first(record) else { return String::new() };
    let stored = stored.map(|id| format!("profile:{id}")).filter(|source| *source != used.source);
    if let Some(source) = stored {
        return match model.candidates.iter().find(|candidate| candidate.source == source) {
            Some(CredentialChoice { skipped: Some(why), .. }) => {
                format!("; {source} is left out: {why}")
            }
            Some(_) => {
                format!("; {source} comes after it, `moltbot models auth order` changes that")
            }
            None => format!("; {source} is not for this model"),
        };
    }
    match model.candidates.iter().filter(|candidate| candidate.skipped.is_none()).count() {
        1 => ", the only one that can be used".to_string(),
        count => format!(", the first of {count} in the order"),
    }
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
    if let Some(moved) = &record.cache {
        let cost = moved.cost.map(|cost| format!(", ${cost:.4} more")).unwrap_or_default();
        let (tokens, from, to) = (moved.tokens, &moved.from, &moved.to);
        lines.push(format!("Cache       : {tokens} tokens written again{cost} ({from} to {to})"));
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
        let by = model.strategy.as_ref().map(|word| format!(" (strategy {word})"));
        lines.push(format!(
            "{}{}{}",
            model.model,
            note.unwrap_or_default(),
            by.unwrap_or_default()
        ));
        for (at, candidate) in model.candidates.iter().enumerate() {
            lines.push(format!("  {}. {}", at + 1, describe(candidate, now)));
        }
        if model.more > 0 {
            lines.push(format!("  and {} more", model.more));
        }
    }
}

fn sent(attempt: &Attempt, now: Timestamp) -> String {
    // After a variable's name a colon would look like its value and be masked.
    let mark = if attempt.source.starts_with("profile:") { ":" } else { "," };
    let mut text = format!("{} with {}{mark} ", attempt.model, attempt.source);
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
        let rest = remaining_text(Some(until.since(now)));
        text.push_str(&format!(", for {rest}, until {}", iso(until)));
    }
    if let Some(quota) = &candidate.quota {
        text.push_str(&format!(", {:.0} % of {} used", quota.used * 100.0, quota.limit));
        if let Some(reset) = quota.reset.filter(|reset| *reset > now) {
            let rest = remaining_text(Some(reset.since(now)));
            text.push_str(&format!(", anew in {rest}"));
        }
    }
    if candidate.rewrite > 0 {
        text.push_str(&format!(", {} tokens of cache to write again", candidate.rewrite));
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
