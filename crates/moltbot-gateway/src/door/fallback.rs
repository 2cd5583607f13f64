//! Another model instead of the one asked for (`gateway.modelFallback`): only where every credential
//! of the first one failed, never with signed thinking in the conversation, and always named in
//! `x-moltbot-changed` (decision "Failure scope").

use bytes::Bytes;
use moltbot_core::FailureKind;

use super::agent::Agent;
use super::child::is_program;
use super::error::Refusal;
use super::forward::Obtained;
use super::log::Ticket;
use super::serve::{Asked, Door, Sent, join};
use crate::model::ModelRef;
use crate::scan::{Patterns, ScanOptions, scan};

impl Door {
    /// Asks for a model, then for the configured ones that may stand in for it. If none can, the
    /// first one's answer stands.
    pub(super) async fn ask_models(
        &self,
        asked: &Asked<'_>,
        raw: &str,
        mut sent: Sent,
        ticket: &mut Ticket,
    ) -> Result<Box<Obtained>, Refusal> {
        let (first, failure) = self.ask_model(asked, raw, &mut sent, None, ticket).await;
        let none = matches!(&first, Err(refusal) if refusal.is_for_want_of_credentials());
        if !none && !failure.is_some_and(may_help) {
            return first;
        }
        join(&mut sent.pieces);
        if has_thinking(&sent.pieces) {
            let note = "no other model was asked: the conversation holds signed thinking";
            ticket.note.warnings.push(note.into());
            return first;
        }
        let told = (ticket.note.code.clone(), ticket.note.trouble.clone());
        for model in asked.agent.stand_ins(raw) {
            let name = model.to_string();
            let change = format!("model={name}").into();
            let (answer, failure) =
                self.ask_model(asked, &name, &mut sent, Some(change), ticket).await;
            if let (Ok(answer), None) = (answer, failure) {
                return Ok(answer);
            }
        }
        (ticket.note.code, ticket.note.trouble) = told;
        first
    }
}

/// Tells whether another model could fare better.
fn may_help(failure: FailureKind) -> bool {
    !matches!(failure, FailureKind::Format | FailureKind::ContextOverflow | FailureKind::Refused)
}

/// Looks for thinking in what was said so far: another model could not take it back.
fn has_thinking(pieces: &[Bytes]) -> bool {
    let Some(body) = pieces.first() else { return false };
    let patterns = Patterns::new(&["/messages/*/content/*/type"]);
    let found = scan(body, &patterns, ScanOptions::default()).unwrap_or_default();
    found.iter().any(|kind| {
        let kind: Option<String> = serde_json::from_str(&kind.value).ok();
        kind.is_some_and(|kind| kind.contains("thinking"))
    })
}

impl Agent {
    /// Lists the configured models that may answer instead of one. A program and a service do not
    /// stand in for each other: somebody else would pay.
    fn stand_ins(&self, raw: &str) -> Vec<ModelRef> {
        let models = self.engine.models();
        let own = models.parse(raw).map(|parsed| parsed.model).ok();
        // The config's allowlist is no matter of the doors.
        let all = models.candidates(Some(raw)).or_else(|_| models.candidates(None));
        let all = all.map(|all| all.models).unwrap_or_default();
        let runs = |model: &ModelRef| {
            let by = models.runtime(model).unwrap_or(&model.provider);
            self.engine.provider(by).map(is_program)
        };
        let first = own.as_ref().and_then(runs);
        all.into_iter().filter(|m| Some(m) != own.as_ref() && runs(m) == first).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinking_is_found_wherever_it_stands() {
        let has = |body: &'static str| has_thinking(&[Bytes::from_static(body.as_bytes())]);
        assert!(has(r#"{"messages":[{"content":[{"type":"text"},{"type":"thinking"}]}]}"#));
        assert!(has(r#"{"messages":[{"content":[{"\u0074ype":"redacted_th\u0069nking"}]}]}"#));
        assert!(!has(r#"{"thinking":{"type":"adaptive"},"messages":[{"content":"thinking"}]}"#));
        assert!(!has_thinking(&[]));
    }
}
