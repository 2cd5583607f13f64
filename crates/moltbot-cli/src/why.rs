//! Decision records in words: which model, which credential, why not the others.

use moltbot_core::{Payer, Timestamp};
use moltbot_gateway::{CredentialChoice, ModelChoice, Record};
use moltbot_profiles::remaining_text;

/// Returns the model and the credential that would be used first, if any could.
pub(crate) fn first(record: &Record) -> Option<(&ModelChoice, &CredentialChoice)> {
    record.models.iter().filter(|model| model.skipped.is_none()).find_map(|model| {
        let usable = model.candidates.iter().find(|candidate| candidate.skipped.is_none())?;
        Some((model, usable))
    })
}

/// Explains a record, line by line.
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
    for model in &record.models {
        let note = model.skipped.as_ref().map(|why| format!(" (left out: {why})"));
        lines.push(format!("{}{}", model.model, note.unwrap_or_default()));
        for (at, candidate) in model.candidates.iter().enumerate() {
            lines.push(format!("  {}. {}", at + 1, describe(candidate, now)));
        }
    }
    for warning in &record.warnings {
        lines.push(format!("warning: {warning}"));
    }
    lines
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
