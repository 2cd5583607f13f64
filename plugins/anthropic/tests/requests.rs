//! What goes out, by kind of credential and by who wrote the chat (spec cases 40 and 49 to 53).

#![allow(clippy::unwrap_used)] // helpers of tests, not only tests

use std::borrow::Cow;

use moltbot_core::{
    ChatView, Credential, CredentialKind, CredentialView, Exchange, Found, Header, Op, Origin,
    Provider, ProviderError, Secret, Slot, Span, Timestamp, splice,
};
use moltbot_plugin_anthropic::Anthropic;
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const TTL_BETA: &str = "extended-cache-ttl-2025-04-11";
const BODY: &str = r#"{"model":"claude-opus-4-5","tools":[{"name":"read","cache_control":{"type":"ephemeral"}}],"system":[{"type":"text","text":"hi","cache_control": { "type" : "ephemeral" } }],"messages":[{"role":"user","content":[{"type":"text","text":"x","cache_control":{"ttl":"5m","type":"ephemeral"}}]}]}"#;

fn key() -> Credential {
    Credential::api_key("anthropic", Secret::new("sk-ant-api03-FAKEFAKEFAKE"))
}

#[cfg(feature = "bearer")]
fn token() -> Credential {
    Credential::token("anthropic", Secret::new("sk-ant-oat01-FAKEFAKEFAKE"), None)
}

#[cfg(feature = "bearer")]
fn login() -> Credential {
    let access = Some(Secret::new("sk-ant-oat01-FAKEFAKEFAKE"));
    Credential { access, ..Credential::new(CredentialKind::Oauth, "anthropic") }
}

/// Finds the model and every `cache_control` of [`BODY`]-like texts: good enough for tests,
/// because no string in them holds these words.
fn find(body: &str) -> Vec<Found<'_>> {
    let mut found = Vec::new();
    for (name, path) in
        [("\"model\":", "/model"), ("\"cache_control\":", "/system/0/cache_control")]
    {
        for (at, _) in body.match_indices(name) {
            let after = &body[at + name.len()..];
            let start = at + name.len() + (after.len() - after.trim_start().len());
            let mut values =
                serde_json::Deserializer::from_str(&body[start..]).into_iter::<Value>();
            values.next().unwrap().unwrap();
            let end = start + values.byte_offset();
            found.push(Found {
                path: path.into(),
                span: Span::new(start, end),
                value: body[start..end].into(),
            });
        }
    }
    found.sort_by_key(|found| found.span.start);
    found
}

fn composed(body: &str) -> ChatView<'_> {
    ChatView {
        op: Op::Messages,
        origin: Origin::Composed,
        base_url: "https://api.anthropic.com".into(),
        path: "".into(),
        query: "".into(),
        headers: Cow::Borrowed(&[]),
        extra: Cow::Borrowed(&[]),
        model: "claude-opus-4-5".into(),
        params: Cow::Owned(json!({})),
        found: find(body).into(),
        body: None,
    }
}

fn forwarded<'a>(body: &'a str, headers: &[(&'a str, &'a str)]) -> ChatView<'a> {
    let headers: Vec<_> = headers.iter().map(|(name, value)| Header::new(*name, *value)).collect();
    ChatView { origin: Origin::Forwarded, headers: headers.into(), ..composed(body) }
}

/// What would be sent.
#[derive(Debug)]
struct Sent {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: String,
    changed: Vec<String>,
}

impl Sent {
    fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is sent twice: {:?}", self.headers);
        value
    }

    fn betas(&self) -> Vec<&str> {
        let lists = self.headers.iter().filter(|(name, _)| name == "anthropic-beta");
        lists.flat_map(|(_, list)| list.split(',')).collect()
    }
}

/// Does what the host does: the chat's headers without `drop`, `set` in their place, splices.
fn send(chat: &ChatView<'_>, with: &Credential, body: &str) -> Result<Sent, ProviderError> {
    let exchange = Anthropic.request(chat, &CredentialView::of(with), NOW)?;
    let Exchange::Http { method, url, set, drop, splices, replace, changed } = exchange else {
        panic!("not HTTP");
    };
    assert_eq!(replace, None);
    let is_set = |name: &str| set.iter().any(|(set, _)| set.eq_ignore_ascii_case(name));
    let is_dropped = |name: &str| drop.iter().any(|dropped| dropped.eq_ignore_ascii_case(name));
    let mut headers: Vec<(String, String)> = chat
        .headers
        .iter()
        .filter(|header| !is_set(&header.name) && !is_dropped(&header.name))
        .map(|header| (header.name.to_string(), header.value.to_string()))
        .collect();
    for (name, slot) in &set {
        headers.push((name.to_string(), slot.fill(with)?.expose().to_string()));
        let secret = matches!(slot, Slot::Secret { .. });
        assert_eq!(secret, ["x-api-key", "authorization"].contains(&name.as_ref()), "{name}");
    }
    let body = splice(body.as_bytes(), &splices, &chat.found)?;
    let body = String::from_utf8(body).unwrap();
    let changed = changed.iter().map(ToString::to_string).collect();
    Ok(Sent { method: method.into(), url, headers, body, changed })
}

/// Case 49, the key.
#[test]
fn a_key_goes_into_its_own_header() {
    let sent = send(&composed(BODY), &key(), BODY).unwrap();
    assert_eq!(sent.url, "https://api.anthropic.com/v1/messages");
    assert_eq!(sent.header("x-api-key"), Some("sk-ant-api03-FAKEFAKEFAKE"));
    assert_eq!(sent.header("authorization"), None);
    assert!(sent.header("user-agent").unwrap().starts_with("moltbot/"));
    assert_eq!(sent.header("anthropic-version"), Some("2023-06-01"));
    assert_eq!(sent.header("accept-encoding"), Some("identity"));
    assert_eq!(sent.header("content-type"), Some("application/json"));
    assert_eq!(sent.header("anthropic-dangerous-direct-browser-access"), None);
    assert_eq!(sent.body, BODY);
    assert!(sent.changed.is_empty(), "{:?}", sent.changed);
}

/// Cases 49, 50 and 40: a bearer token under our own name.
#[cfg(feature = "bearer")]
#[test]
fn a_token_goes_out_as_a_bearer_under_our_name() {
    for credential in [token(), login()] {
        let sent = send(&composed(BODY), &credential, BODY).unwrap();
        assert_eq!(sent.header("authorization"), Some("Bearer sk-ant-oat01-FAKEFAKEFAKE"));
        assert_eq!(sent.header("x-api-key"), None);
        assert!(sent.header("user-agent").unwrap().starts_with("moltbot/"));
        assert_eq!(sent.header("x-app"), None);
        assert!(sent.betas().contains(&"oauth-2025-04-20"));
        assert!(!sent.betas().contains(&"claude-code-20250219"));
        assert!(!sent.betas().contains(&TTL_BETA));
        assert_eq!(sent.body, BODY, "no system text and no tool name changes");
    }
}

/// Spec T-2: variables and config entries know no kinds.
#[cfg(feature = "bearer")]
#[test]
fn a_key_that_looks_like_a_token_is_one() {
    let odd = Credential::api_key("anthropic", Secret::new("sk-ant-oat01-FAKEFAKEFAKE"));
    let sent = send(&composed(BODY), &odd, BODY).unwrap();
    assert_eq!(sent.header("authorization"), Some("Bearer sk-ant-oat01-FAKEFAKEFAKE"));
    assert_eq!(sent.header("x-api-key"), None);
}

#[cfg(not(feature = "bearer"))]
#[test]
fn without_the_feature_tokens_are_refused() {
    let secret = || Secret::new("sk-ant-oat01-FAKEFAKEFAKE");
    for credential in
        [Credential::token("anthropic", secret(), None), Credential::api_key("anthropic", secret())]
    {
        let refused = send(&composed(BODY), &credential, BODY).unwrap_err();
        assert!(matches!(refused, ProviderError::Credential { .. }), "{refused}");
    }
}

#[test]
fn other_kinds_are_refused() {
    for kind in [CredentialKind::None, CredentialKind::Other("passkey".into())] {
        let credential = Credential::new(kind, "anthropic");
        let refused = send(&composed(BODY), &credential, BODY).unwrap_err();
        assert!(matches!(refused, ProviderError::Credential { .. }), "{refused}");
    }
}

fn ttls(body: &str) -> Vec<Option<String>> {
    find(body)
        .iter()
        .filter(|found| found.path != "/model")
        .map(|found| serde_json::from_str::<Value>(&found.value).unwrap())
        .map(|object| {
            assert_eq!(object["type"], "ephemeral");
            object["ttl"].as_str().map(str::to_string)
        })
        .collect()
}

fn with_ttl<'a>(chat: ChatView<'a>, ttl: Value) -> ChatView<'a> {
    ChatView { params: Cow::Owned(json!({"cacheControlTtl": ttl})), ..chat }
}

/// Case 51.
#[test]
fn a_lifetime_goes_into_every_breakpoint() {
    for ttl in ["1h", "5m"] {
        for chat in [composed(BODY), forwarded(BODY, &[])] {
            let sent = send(&with_ttl(chat, json!(ttl)), &key(), BODY).unwrap();
            assert_eq!(ttls(&sent.body), vec![Some(ttl.to_string()); 3]);
            assert!(sent.betas().contains(&TTL_BETA), "{:?}", sent.headers);
        }
    }
    for other in [json!("2h"), json!("1H"), json!(5), json!(null), json!({"a": 1})] {
        let sent = send(&with_ttl(composed(BODY), other), &key(), BODY).unwrap();
        assert_eq!(sent.body, BODY);
    }
}

/// Bytes around an inserted lifetime stay; one that is already right is not touched.
#[test]
fn a_lifetime_is_a_small_edit() {
    let sent = send(&with_ttl(composed(BODY), json!("5m")), &key(), BODY).unwrap();
    let expected = BODY
        .replace(r#"{"type":"ephemeral"}"#, r#"{"type":"ephemeral","ttl":"5m"}"#)
        .replace(r#"{ "type" : "ephemeral" }"#, r#"{ "type" : "ephemeral" ,"ttl":"5m"}"#);
    assert_eq!(sent.body, expected);
    let sent = send(&with_ttl(forwarded(BODY, &[]), json!("1h")), &key(), BODY).unwrap();
    assert!(sent.body.contains(r#"{"ttl":"1h","type":"ephemeral"}"#), "{}", sent.body);
    assert!(sent.changed.contains(&"cache_control.ttl".to_string()));
    let odd = r#"{"system":[{"cache_control":{}},{"cache_control":null},{"cache_control":"x"}]}"#;
    let sent = send(&with_ttl(composed(odd), json!("1h")), &key(), odd).unwrap();
    let expected = odd.replace("{}", r#"{"ttl":"1h"}"#);
    assert_eq!(sent.body, expected);
}

/// Case 52.
#[cfg(feature = "bearer")]
#[test]
fn a_token_asks_for_no_lifetime() {
    let extra = [Header::new("anthropic-beta", TTL_BETA)];
    for chat in [composed(BODY), forwarded(BODY, &[])] {
        let chat = ChatView { extra: Cow::Borrowed(&extra), ..chat };
        let sent = send(&with_ttl(chat, json!("1h")), &token(), BODY).unwrap();
        assert_eq!(sent.body, BODY);
        assert!(!sent.betas().contains(&TTL_BETA));
    }
}

/// Spec T-18 is about the vendor's own API; a borrowed dialect gets neither field nor beta.
#[test]
fn another_provider_of_the_dialect_gets_no_lifetime() {
    let other = Credential::api_key("acme", Secret::new("acme-FAKEFAKEFAKE"));
    let sent = send(&with_ttl(composed(BODY), json!("1h")), &other, BODY).unwrap();
    assert_eq!(sent.body, BODY);
    assert!(!sent.betas().contains(&TTL_BETA));
    let reseller = Credential::api_key("openrouter", Secret::new("or-FAKEFAKEFAKE"));
    let chat = ChatView { model: "anthropic/claude-opus-4-5".into(), ..composed(BODY) };
    let sent = send(&with_ttl(chat, json!("1h")), &reseller, BODY).unwrap();
    assert_eq!(ttls(&sent.body), vec![Some("1h".to_string()); 3]);
}

/// Case 53.
#[test]
fn betas_are_united_without_case_and_once() {
    let extra = [
        Header::new("Anthropic-Beta", "my-beta, interleaved-thinking-2025-05-14"),
        Header::new("anthropic-BETA", "MY-BETA,other"),
    ];
    let chat = ChatView { extra: Cow::Borrowed(&extra), ..composed(BODY) };
    let sent = send(&chat, &key(), BODY).unwrap();
    let expected = [
        "my-beta",
        "interleaved-thinking-2025-05-14",
        "other",
        "fine-grained-tool-streaming-2025-05-14",
        TTL_BETA,
    ];
    assert_eq!(sent.betas(), expected);
}

#[test]
fn the_config_sets_neither_credential_nor_name_nor_framing() {
    let extra = [
        Header::new("X-Api-Key", "sk-ant-api03-OTHERFAKE"),
        Header::new("Authorization", "Bearer other"),
        Header::new("User-Agent", "someone-else/1.0"),
        Header::new("Content-Length", "1"),
        Header::new("X-Team", "blue"),
        Header::new("anthropic-version", "2026-10-21"),
    ];
    let chat = ChatView { extra: Cow::Borrowed(&extra), ..composed(BODY) };
    let sent = send(&chat, &key(), BODY).unwrap();
    assert_eq!(sent.header("x-api-key"), Some("sk-ant-api03-FAKEFAKEFAKE"));
    assert_eq!(sent.header("authorization"), None);
    assert!(sent.header("user-agent").unwrap().starts_with("moltbot/"));
    assert_eq!(sent.header("content-length"), None);
    assert_eq!(sent.header("x-team"), Some("blue"));
    assert_eq!(sent.header("anthropic-version"), Some("2026-10-21"));
    for bad in [("x-a\r\nb", "1"), ("x-a", "1\r\nx-api-key: 2"), ("", "1"), ("x a", "1")] {
        let extra = [Header::new(bad.0, bad.1)];
        let chat = ChatView { extra: Cow::Borrowed(&extra), ..composed(BODY) };
        assert!(matches!(send(&chat, &key(), BODY), Err(ProviderError::Invalid { .. })), "{bad:?}");
    }
}

const CLIENT: &[(&str, &str)] = &[
    ("User-Agent", "some-client/2.1 (external)"),
    ("X-App", "cli"),
    ("X-Stainless-Lang", "js"),
    ("anthropic-version", "2026-10-21"),
    ("anthropic-beta", "zeta-1,claude-code-20250219,alpha-2"),
    ("anthropic-beta", "context-management-2025-06-27"),
    ("anthropic-dangerous-direct-browser-access", "true"),
    ("Accept-Encoding", "gzip, br, zstd"),
    ("X-Unknown", "kept"),
];

/// Decision 3 and 7, spec W-4 and W-14: with a key everything of the client's passes.
#[test]
fn a_forwarded_request_with_a_key_keeps_the_clients_headers() {
    let chat = ChatView { query: "beta=true".into(), ..forwarded(BODY, CLIENT) };
    let sent = send(&chat, &key(), BODY).unwrap();
    assert_eq!(sent.url, "https://api.anthropic.com/v1/messages?beta=true");
    for name in ["User-Agent", "X-App", "X-Stainless-Lang", "anthropic-version", "X-Unknown"] {
        let before = CLIENT.iter().find(|(n, _)| *n == name).unwrap().1;
        assert_eq!(sent.header(name), Some(before), "{name}");
    }
    assert_eq!(sent.header("anthropic-dangerous-direct-browser-access"), Some("true"));
    // Nothing is written into its body: its own list stays as it is.
    let own = ["zeta-1", "claude-code-20250219", "alpha-2", "context-management-2025-06-27"];
    assert_eq!(sent.betas(), own);
    assert_eq!(sent.body, BODY);
    assert_eq!(sent.changed, ["accept-encoding"]);
    let sent = send(&with_ttl(chat, json!("1h")), &key(), BODY).unwrap();
    let expected =
        ["zeta-1", "claude-code-20250219", "alpha-2", "context-management-2025-06-27", TTL_BETA];
    assert_eq!(sent.betas(), expected);
    assert_eq!(sent.changed, ["anthropic-beta", "accept-encoding", "cache_control.ttl"]);
    let plain = r#"{"model":"claude-opus-4-5"}"#;
    let sent = send(&with_ttl(forwarded(plain, CLIENT), json!("1h")), &key(), plain).unwrap();
    assert!(!sent.betas().contains(&TTL_BETA), "there is no breakpoint");
}

/// Nothing to add: not even the header's spelling changes.
#[test]
fn a_list_of_betas_that_has_everything_is_not_touched() {
    let list = " Extended-Cache-TTL-2025-04-11 ,a,,a";
    let sent = send(&forwarded(BODY, &[("Anthropic-Beta", list)]), &key(), BODY).unwrap();
    assert_eq!(sent.header("anthropic-beta"), Some(list));
    assert!(sent.changed.is_empty(), "{:?}", sent.changed);
}

/// Decision 7: with a login or token nothing names the client, and the reply says so.
#[cfg(feature = "bearer")]
#[test]
fn a_forwarded_request_with_a_token_goes_out_under_our_name() {
    let sent = send(&forwarded(BODY, CLIENT), &token(), BODY).unwrap();
    assert!(sent.header("user-agent").unwrap().starts_with("moltbot/"));
    assert_eq!((sent.header("x-app"), sent.header("x-stainless-lang")), (None, None));
    let expected = ["zeta-1", "alpha-2", "context-management-2025-06-27", "oauth-2025-04-20"];
    assert_eq!(sent.betas(), expected);
    assert_eq!(sent.header("anthropic-version"), Some("2026-10-21"));
    assert_eq!(sent.header("x-unknown"), Some("kept"));
    let expected = ["x-app", "x-stainless-lang", "user-agent", "anthropic-beta", "accept-encoding"];
    assert_eq!(sent.changed, expected);
}

#[test]
fn a_clients_own_credential_never_travels_on() {
    let client = [("Authorization", "Bearer mine"), ("x-api-key", "mine"), ("Cookie", "a=mine")];
    let credentials = [
        key(),
        #[cfg(feature = "bearer")]
        token(),
    ];
    for credential in credentials {
        let sent = send(&forwarded(BODY, &client), &credential, BODY).unwrap();
        assert!(!format!("{sent:?}").contains("mine"), "{sent:?}");
    }
    assert_eq!(send(&composed(BODY), &key(), BODY).unwrap().method, "POST");
}

#[test]
fn the_model_is_replaced_only_where_it_differs() {
    let chat = ChatView { model: "claude-\"x\"".into(), ..forwarded(BODY, &[]) };
    let sent = send(&chat, &key(), BODY).unwrap();
    assert_eq!(sent.body, BODY.replace("claude-opus-4-5", r#"claude-\"x\""#));
    assert!(sent.changed.contains(&"model".to_string()));
    let spelled = BODY.replace("claude-opus", r"claude\u002dopus");
    let sent = send(&forwarded(&spelled, &[]), &key(), &spelled).unwrap();
    assert_eq!(sent.body, spelled, "the same model in other letters");
}

#[test]
fn every_operation_has_its_address() {
    let chat = |op, path: &'static str| ChatView { op, path: path.into(), ..composed(BODY) };
    for (op, path, method, url) in [
        (Op::CountTokens, "", "POST", "/v1/messages/count_tokens"),
        (Op::Models, "", "GET", "/v1/models"),
        (Op::PassThrough, "GET /v1/models/claude-x", "GET", "/v1/models/claude-x"),
        (Op::PassThrough, "DELETE /v1/files/f_1", "DELETE", "/v1/files/f_1"),
        (Op::PassThrough, "/v1/messages/batches", "POST", "/v1/messages/batches"),
    ] {
        let sent = send(&chat(op, path), &key(), BODY).unwrap();
        assert_eq!(
            (sent.method.as_str(), sent.url.clone()),
            (method, format!("https://api.anthropic.com{url}"))
        );
        assert_eq!(sent.header("content-type").is_some(), method == "POST");
    }
    for path in [
        "",
        "GET",
        "GET @evil.example/",
        "GET //evil.example/",
        "GET /v1/../admin",
        "GET /v1/%2e%2E/admin",
        "GET /a b",
        "GET /a?b",
        "GET /a#b",
        "get /a",
        "GET /\\evil",
        "GET /a\r\nx: y",
    ] {
        let refused = send(&chat(Op::PassThrough, path), &key(), BODY);
        assert!(matches!(refused, Err(ProviderError::Invalid { .. })), "{path:?}");
    }
    let query = ChatView { query: "a=1 b".into(), ..composed(BODY) };
    assert!(send(&query, &key(), BODY).is_err());
}

/// Operations beside a conversation get no betas of ours but the one a token needs.
#[test]
fn other_operations_get_no_betas() {
    for op in [Op::Models, Op::PassThrough] {
        let chat = ChatView { op, path: "GET /v1/files".into(), ..composed(BODY) };
        assert!(send(&chat, &key(), BODY).unwrap().betas().is_empty());
        #[cfg(feature = "bearer")]
        assert_eq!(send(&chat, &token(), BODY).unwrap().betas(), ["oauth-2025-04-20"]);
    }
}
