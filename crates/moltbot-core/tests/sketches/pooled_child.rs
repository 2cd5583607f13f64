//! A provider that is a program: the host starts, pools and ends it; the decoder reads its lines
//! over many turns and may answer it.

use std::collections::HashMap;

use moltbot_core::*;
use serde_json::{Value, json};

use crate::support::{NOW, provider, wire};

struct Tool;

impl Provider for Tool {
    fn info(&self) -> ProviderInfo {
        ProviderInfo { body: BodyNeed::Whole, ..provider() }
    }

    fn request(
        &self,
        chat: &ChatView<'_>,
        with: &CredentialView<'_>,
        _: Timestamp,
    ) -> Result<Exchange, ProviderError> {
        let body: Value = serde_json::from_str(chat.body.as_deref().unwrap_or_default())
            .map_err(|error| ProviderError::Invalid { message: error.to_string() })?;
        let turns = body["messages"].as_array().cloned().unwrap_or_default();
        let Some((last, before)) = turns.split_last() else {
            return Err(ProviderError::Invalid { message: "messages: at least one".into() });
        };
        let mut env = vec![("TOOL_QUIET".into(), Slot::literal("1"))];
        if with.kind == CredentialKind::Token {
            env.push(("TOOL_TOKEN".into(), Slot::secret("", "token")));
        }
        let fresh: Vec<_> = turns.iter().map(|turn| turn.to_string() + "\n").collect();
        Ok(Exchange::Run {
            program: "acme-tool".into(),
            args: vec!["--model".into(), chat.model.to_string().into()],
            env,
            input: fresh.concat(),
            reuse: Some(Reuse {
                key: format!("{} after {}", chat.model, Value::from(before)),
                input: format!("{last}\n"),
                resume: None,
            }),
            cancel_input: Some("{\"stop\":true}\n".into()),
            idle_ms: 300_000,
        })
    }

    fn failure(&self, ended: &Ended, _: Timestamp) -> Failure {
        let (kind, scope, code, message) = match ended {
            Ended::Child { last_event, .. } if last_event["error"] == "limit" => {
                (FailureKind::RateLimit, Scope::Profile, "rate-limited", "limit".to_string())
            }
            Ended::Child { exit, stderr_tail, .. } => {
                let message = format!("acme-tool ended with {exit:?}: {stderr_tail}");
                (FailureKind::Server, Scope::Upstream, "upstream", message)
            }
            other => (FailureKind::Unknown, Scope::Request, "upstream", format!("{other:?}")),
        };
        let code = code.into();
        Failure { kind, scope, reset: None, account: None, code, message, advice: None }
    }

    fn decoder(&self, mode: DecoderMode) -> Box<dyn Decoder> {
        Box::new(Lines { mode, line: Vec::new(), at: 0, in_turn: false })
    }
}

/// One child and all its turns: a JSON object per line.
struct Lines {
    mode: DecoderMode,
    line: Vec<u8>,
    at: u64,
    in_turn: bool,
}

impl Lines {
    fn line(&mut self, events: &mut Vec<Event>) {
        let said: Value = serde_json::from_slice(&self.line).unwrap_or_default();
        let at = self.at;
        if !self.in_turn {
            self.in_turn = true;
            events.push(Event::Began { at, id: None, model: None, usage: Usage::default() });
        }
        if let Some(permission) = said.get("may_i") {
            events.push(Event::Write { text: json!({"no": permission}).to_string() + "\n" });
        } else if let Some(text) = said["text"].as_str() {
            if self.mode == DecoderMode::Full {
                events.push(Event::Text { index: 0, text: text.to_string() });
            }
        } else if let Some(stop) = said["stop"].as_str() {
            self.in_turn = false;
            let usage = Usage { output: said["tokens"].as_u64(), ..Usage::default() };
            events.push(Event::TurnEnd { at, stop: stop.to_string(), usage });
        }
    }
}

impl Decoder for Lines {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) {
        for byte in bytes {
            self.at += 1;
            if *byte == b'\n' {
                self.line(events);
                self.line.clear();
            } else {
                self.line.push(*byte);
            }
        }
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        if self.in_turn {
            let (kind, message) = ("ended".to_string(), "the child ended in a turn".to_string());
            events.push(Event::Error { at: self.at, kind, message, body: Value::Null });
        }
    }
}

fn ask(messages: &Value) -> Exchange {
    let token = Credential::token("acme", Secret::new("FAKE"), None);
    let body = json!({"messages": messages}).to_string();
    let view = wire(ChatView {
        op: Op::Messages,
        origin: Origin::Composed,
        base_url: "".into(),
        path: "".into(),
        query: "".into(),
        headers: Vec::new().into(),
        extra: Vec::new().into(),
        model: "acme-1".into(),
        params: std::borrow::Cow::Owned(Value::Null),
        found: Vec::new().into(),
        body: Some(body.into()),
    });
    wire(Tool.request(&view, &CredentialView::of(&token), NOW).unwrap())
}

/// The host's pool: the plugin's key, the profile, the login's generation.
type Pool = HashMap<(String, String, Generation), u32>;

fn pid(pool: &mut Pool, exchange: &Exchange, profile: &str, login: &Credential) -> (u32, String) {
    let Exchange::Run { input, reuse: Some(reuse), .. } = exchange else { panic!("{exchange:?}") };
    let key = (reuse.key.clone(), profile.to_string(), Generation::of(login));
    match pool.get(&key) {
        Some(pid) => (*pid, reuse.input.clone()),
        None => {
            let pid = u32::try_from(pool.len()).unwrap() + 1;
            pool.insert(key, pid);
            (pid, input.clone())
        }
    }
}

#[test]
fn a_warm_child_gets_the_last_turn_only_and_nobody_elses() {
    let exchange = ask(&json!(["a", "b", "c"]));
    let mut login = Credential::token("acme", Secret::new("FAKE"), None);
    let mut pool = Pool::new();
    let cold = pid(&mut pool, &exchange, "acme:one", &login);
    assert_eq!(cold, (1, "\"a\"\n\"b\"\n\"c\"\n".to_string()));
    assert_eq!(pid(&mut pool, &exchange, "acme:one", &login), (1, "\"c\"\n".to_string()));
    assert_eq!(pid(&mut pool, &exchange, "acme:two", &login).0, 2, "another profile");
    assert_eq!(pid(&mut pool, &ask(&json!(["a", "x", "c"])), "acme:one", &login).0, 3);
    login.token = Some(Secret::new("FAKE2"));
    assert_eq!(pid(&mut pool, &exchange, "acme:one", &login).0, 4, "another generation");
}

#[test]
fn a_secret_reaches_the_child_only_by_its_environment() {
    let exchange = ask(&json!(["a"]));
    assert!(!serde_json::to_string(&exchange).unwrap().contains("FAKE"));
    let Exchange::Run { env, cancel_input, .. } = exchange else { panic!() };
    let login = Credential::token("acme", Secret::new("FAKE"), None);
    assert_eq!(env[1].0, "TOOL_TOKEN");
    assert_eq!(env[1].1.fill(&login).unwrap(), Secret::new("FAKE"));
    assert_eq!(cancel_input.as_deref(), Some("{\"stop\":true}\n"), "a turn ends, the child stays");
}

const TURNS: &[u8] = b"{\"text\":\"\xc3\xa9\"}\n{\"may_i\":7}\n{\"stop\":\"end\",\"tokens\":2}\n{\"text\":\"2\"}\n{\"stop\":\"cancelled\"}\n";

fn decode(mode: DecoderMode, pieces: &[&[u8]]) -> Vec<Event> {
    let mut decoder = Tool.decoder(mode);
    let mut events = Vec::new();
    pieces.iter().for_each(|piece| decoder.push(piece, &mut events));
    decoder.end(&mut events);
    wire(events)
}

#[test]
fn one_decoder_reads_all_turns_and_answers_between() {
    let events = decode(DecoderMode::Full, &[TURNS]);
    let turns = events.iter().filter(|event| matches!(event, Event::TurnEnd { .. })).count();
    let Some(Event::Write { text }) = events.get(2) else { panic!("{events:?}") };
    assert_eq!((turns, text.as_str()), (2, "{\"no\":7}\n"));
    for at in 0..TURNS.len() {
        assert_eq!(decode(DecoderMode::Full, &[&TURNS[..at], &TURNS[at..]]), events, "cut at {at}");
    }
    let seen = decode(DecoderMode::Observe, &[TURNS]);
    assert_eq!(seen.len(), events.len() - 2, "both texts are left out, the answer is not");
}

#[test]
fn a_child_that_dies_in_a_turn_is_an_error() {
    let events = decode(DecoderMode::Full, &[&TURNS[..20]]);
    assert!(matches!(events.last(), Some(Event::Error { .. })), "{events:?}");
    let died = |exit, last_event| {
        let stderr_tail = "out of memory".to_string();
        wire(Tool.failure(&wire(Ended::Child { exit, stderr_tail, last_event }), NOW))
    };
    let failure = died(Some(137), Value::Null);
    assert_eq!((failure.kind, failure.scope), (FailureKind::Server, Scope::Upstream));
    let failure = died(None, json!({"error": "limit"}));
    assert_eq!((failure.kind, failure.scope), (FailureKind::RateLimit, Scope::Profile));
}
