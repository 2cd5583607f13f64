//! Forwarding: every byte of a client's request stays unless it must change.

use moltbot_core::*;
use serde_json::{Value, json};

use crate::support::{NOW, provider, wire};

/// Asks for the model as the service knows it, and takes lifetimes out of `cache_control` for
/// credentials that must not have one.
struct Forward;

impl Provider for Forward {
    fn info(&self) -> ProviderInfo {
        ProviderInfo {
            reads: vec!["/model".into(), "/system/*/cache_control".into()],
            ..provider()
        }
    }

    fn caps(&self, kind: &CredentialKind) -> ProviderCaps {
        match kind {
            CredentialKind::ApiKey => ProviderCaps { cache_ttl: vec!["5m".into(), "1h".into()] },
            _ => ProviderCaps::default(),
        }
    }

    fn request(
        &self,
        chat: &ChatView<'_>,
        with: &CredentialView<'_>,
        _: Timestamp,
    ) -> Result<Exchange, ProviderError> {
        let mut changed = Vec::new();
        let mut splices = Vec::new();
        for Found { path, span, value } in chat.found.iter() {
            let new = if path == "/model" {
                Value::from(chat.model.as_ref()).to_string()
            } else if self.caps(&with.kind).cache_ttl.is_empty() {
                json!({"type": "ephemeral"}).to_string()
            } else {
                continue;
            };
            if new != *value {
                splices.push(Splice { span: *span, text: new });
                changed.push(path.to_string().into());
            }
        }
        let mut set = Vec::new();
        match &with.kind {
            CredentialKind::ApiKey => set.push(("x-key".into(), Slot::secret("", "key"))),
            CredentialKind::Oauth => {
                set.push(("authorization".into(), Slot::secret("Bearer ", "access")));
            }
            // The client's own login: the host puts its header back untouched.
            CredentialKind::None => {}
            other => {
                let message = format!("this service takes no {other}");
                return Err(ProviderError::Credential { message });
            }
        }
        let (method, path) = match chat.op {
            Op::Messages => ("POST", "/v1/chat"),
            Op::PassThrough => chat.path.split_once(' ').ok_or_else(|| ProviderError::Invalid {
                message: format!("no path in {}", chat.path),
            })?,
            other => {
                return Err(ProviderError::Invalid { message: format!("{other:?} is not served") });
            }
        };
        let query = if chat.query.is_empty() { String::new() } else { format!("?{}", chat.query) };
        Ok(Exchange::Http {
            method: method.to_string().into(),
            url: format!("{}{path}{query}", chat.base_url),
            set,
            drop: vec!["x-forwarded-for".into()],
            splices,
            replace: None,
            changed,
        })
    }

    fn failure(&self, _: &Ended, _: Timestamp) -> Failure {
        unreachable!("nothing fails in this sketch")
    }

    fn decoder(&self, _: DecoderMode) -> Box<dyn Decoder> {
        unreachable!("nothing answers in this sketch")
    }
}

const BODY: &str = r#"{ "new_field":1.0e2, "system":[{"text":"é","cache_control":{"type":"ephemeral","ttl":"1h"}}], "model":"alias" }"#;

/// Finds a JSON value by its text, as the host's scanner does by structure.
fn found<'a>(path: &'a str, value: &'a str) -> Found<'a> {
    let start = BODY.find(value).unwrap();
    Found { path: path.into(), span: Span::new(start, start + value.len()), value: value.into() }
}

fn view<'a>(op: Op) -> ChatView<'a> {
    let cache = found("/system/0/cache_control", r#"{"type":"ephemeral","ttl":"1h"}"#);
    wire(ChatView {
        op,
        origin: Origin::Forwarded,
        base_url: "https://api.acme.example".into(),
        path: if op == Op::PassThrough { "GET /v1/files".into() } else { "".into() },
        query: "beta=true".into(),
        headers: vec![Header::new("User-Agent", "client/1"), Header::new("X-Forwarded-For", "::1")]
            .into(),
        extra: Vec::new().into(),
        model: "acme-1".into(),
        params: std::borrow::Cow::Owned(json!({})),
        found: vec![cache, found("/model", "\"alias\"")].into(),
        body: None,
    })
}

fn ask(op: Op, credential: &Credential) -> Exchange {
    let with = wire(CredentialView::of(credential));
    wire(Forward.request(&view(op), &with, NOW).unwrap())
}

#[test]
fn a_key_changes_only_the_model() {
    let key = Credential::api_key("acme", Secret::new("FAKE"));
    let exchange = ask(Op::Messages, &key);
    let Exchange::Http { url, set, splices, changed, .. } = &exchange else { panic!() };
    assert_eq!(url, "https://api.acme.example/v1/chat?beta=true");
    assert_eq!(set[0].1.fill(&key).unwrap(), Secret::new("FAKE"));
    assert_eq!(changed.as_slice(), ["/model"]);
    let sent = splice(BODY.as_bytes(), splices, &view(Op::Messages).found).unwrap();
    assert_eq!(sent, BODY.replace("alias", "acme-1").as_bytes());
    assert!(!format!("{exchange:?}").contains("FAKE"));
}

#[test]
fn a_login_loses_the_lifetime_too() {
    let mut login = Credential::new(CredentialKind::Oauth, "acme");
    login.access = Some(Secret::new("FAKE"));
    let Exchange::Http { splices, set, .. } = ask(Op::Messages, &login) else { panic!() };
    let sent = splice(BODY.as_bytes(), &splices, &view(Op::Messages).found).unwrap();
    let expected = BODY.replace("alias", "acme-1").replace(",\"ttl\":\"1h\"", "");
    assert_eq!(String::from_utf8(sent).unwrap(), expected);
    assert_eq!(set[0].1.fill(&login).unwrap(), Secret::new("Bearer FAKE"));
    login.access = None;
    assert!(set[0].1.fill(&login).is_err(), "never an empty header");
}

#[test]
fn a_clients_own_login_is_not_touched() {
    let none = Credential::new(CredentialKind::None, "acme");
    let exchange = ask(Op::PassThrough, &none);
    let Exchange::Http { method, url, set, .. } = exchange else { panic!() };
    assert_eq!((method.as_ref(), set.len()), ("GET", 0));
    assert_eq!(url, "https://api.acme.example/v1/files?beta=true");
    let resolved = Resolved::judged(none, NOW);
    assert_eq!(resolved.state, CredentialState::Ready, "there is nothing to expire");
}

#[test]
fn what_was_not_read_is_refused_by_the_host() {
    let view = view(Op::Messages);
    let outside = Splice { span: Span::new(2, 13), text: "\"old_field\"".into() };
    assert!(matches!(
        wire(splice(BODY.as_bytes(), &[outside], &view.found).unwrap_err()),
        ProviderError::Plugin { .. }
    ));
    let token = Credential::token("acme", Secret::new("FAKE"), None);
    let refused = Forward.request(&view, &CredentialView::of(&token), NOW).unwrap_err();
    assert_eq!(wire(refused).to_string(), "this service takes no token");
}
