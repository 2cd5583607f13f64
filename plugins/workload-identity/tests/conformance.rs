//! The suite that every plugin passes, and what only this one knows.

use moltbot_core::*;
use moltbot_plugin_workload_identity::WorkloadIdentity;
use moltbot_testkit::{
    NOW, ScriptedHost, block_on, call, fake, headless, login, offer, sample_provider,
};
use serde_json::{Value, json};

const JWT: &str = "eyJhbGciOiJub25lIn0.FAKE-identity.FAKEsignature";
const FILE: &str = "/var/run/secrets/token";

fn vendor() -> ProviderInfo {
    ProviderInfo {
        id: "anthropic".into(),
        base_url: "https://api.example.com".into(),
        origins: vec!["https://api.example.com".into()],
        ..sample_provider()
    }
}

fn granted() -> String {
    json!({ "access_token": fake("sk-ant-oat01-"), "expires_in": 600, "token_type": "Bearer" })
        .to_string()
}

fn host() -> ScriptedHost {
    ScriptedHost::new()
        .answer_flag("federation-rule-id", "fdrl_1")
        .answer_flag("organization-id", "org_1")
        .answer_flag("service-account-id", "svac_1")
        .secret(JWT)
        .http(|_| {
            let body = Secret::new(granted());
            Ok(HttpReply { status: 200, headers: Vec::new(), body })
        })
}

fn stored() -> Credential {
    let mut old = Credential::token("anthropic", Secret::new(fake("sk-ant-oat01-")), Some(NOW));
    for (id, value) in [("federation-rule-id", "fdrl_1"), ("token-file", FILE)] {
        old.rest.insert(id.into(), value.into());
    }
    old
}

moltbot_testkit::conformance!(moltbot_plugin_workload_identity::PLUGIN, |suite| suite
    .provider(vendor())
    .scene("a file", || host().answer_flag("token-file", FILE).file(FILE, JWT))
    .scene("a typed path", || host().answer("token-path", "~/t").file("~/t", JWT))
    .scene("a command", || host().answer_flag("token-command", "mint").ran("sh", 0, JWT))
    .scene("the variable", || host().ran("printenv", 0, JWT))
    .scene("an endpoint of the user's", || {
        let own = host().answer_flag("token-url", "http://127.0.0.1:9/token");
        own.ran("printenv", 0, JWT)
    })
    .stored(stored)
    .renew_settings(RenewSettings { force: true, ..RenewSettings::default() }));

fn at_now() -> Call {
    headless(call(&vendor(), &offer(&WorkloadIdentity, &vendor(), "workload-identity")))
}

fn sent(host: &ScriptedHost) -> (String, Value) {
    let http = |effect: Effect| match effect {
        Effect::Http { request } => Some(request),
        _ => None,
    };
    let request = host.effects().into_iter().find_map(http).expect("a request");
    let body = serde_json::from_str(request.body.expect("a body").expose()).expect("JSON");
    (request.url, body)
}

#[test]
fn the_exchange_is_as_documented_and_its_end_is_kept() {
    let host = host().answer_flag("token-file", FILE).file(FILE, format!("{JWT}\n"));
    let kept = login(&WorkloadIdentity, &host, &at_now()).unwrap().credential;
    let (url, body) = sent(&host);
    assert_eq!(url, "https://api.example.com/v1/oauth/token");
    let expected = json!({
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "assertion": JWT,
        "federation_rule_id": "fdrl_1",
        "organization_id": "org_1",
        "service_account_id": "svac_1",
    });
    assert_eq!(body, expected);
    assert_eq!(kept.expires, Some(NOW.plus(600_000)));
    assert_eq!(kept.token.as_ref().map(Secret::expose), Some(&*fake("sk-ant-oat01-")));
    assert!(!serde_json::to_string(&Exposed(&kept)).unwrap().contains(JWT));
}

#[test]
fn it_is_exchanged_two_minutes_before_its_end() {
    let at = |now| WorkloadIdentity.renew(&RenewSettings::default(), &stored(), now).unwrap();
    assert_eq!(at(NOW.plus(-120_001)), Renewal::NotDue {});
    assert_eq!(at(NOW.plus(-120_000)), Renewal::Run {});
}

#[test]
fn a_refused_exchange_can_be_tried_again_with_the_next_identity_token() {
    let call = at_now();
    let refresh =
        |host: &ScriptedHost| block_on(WorkloadIdentity.refresh(&Cx::new(host, &call), &stored()));
    let refused = ScriptedHost::new()
        .file(FILE, JWT)
        .http_reply(400, json!({ "error": "invalid_grant", "error_description": JWT }).to_string());
    let reason = "the token endpoint answered the exchange with 400 (invalid_grant)".to_string();
    assert_eq!(refresh(&refused), Err(AuthError::Transient { reason }));

    let gone = ScriptedHost::new();
    let reason = format!("The identity token cannot be read from {FILE}: there is no such file");
    assert_eq!(refresh(&gone), Err(AuthError::Transient { reason }));

    let good = ScriptedHost::new().file(FILE, JWT).http_reply(200, granted());
    assert_eq!(refresh(&good).unwrap().expires, Some(NOW.plus(600_000)));
}

#[test]
fn what_is_missing_is_named() {
    let host = host();
    let error = login(&WorkloadIdentity, &host, &at_now()).unwrap_err().to_string();
    assert!(error.contains("--anthropic-identity-token-file"), "{error}");
    let host = self::host().answer_flag("token-file", "token.jwt");
    let error = login(&WorkloadIdentity, &host, &at_now()).unwrap_err().to_string();
    assert_eq!(error, "token.jwt is no absolute path; begin it with / or ~/");
}
