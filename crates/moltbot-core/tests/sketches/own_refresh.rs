//! A login with its own renewal: one request, whose reply is journaled before anybody reads it.

use moltbot_core::*;
use serde_json::Value;

use crate::support::{NOW, exposed_wire, wire};

struct Login7;

#[async_trait]
impl AuthMethod for Login7 {
    fn id(&self) -> &str {
        "login7"
    }

    fn offers(&self, _: &ProviderInfo) -> Vec<Offer> {
        Vec::new()
    }

    async fn login(&self, _: &Cx<'_>) -> Result<Login, AuthError> {
        Err(AuthError::Unsupported { what: "a new login".into() })
    }

    fn renew(
        &self,
        settings: &RenewSettings,
        old: &Credential,
        now: Timestamp,
    ) -> Result<Renewal, AuthError> {
        if !settings.force && !old.is_expired(now.plus(60_000)) {
            return Ok(Renewal::NotDue {});
        }
        let (Some(url), Some(client)) = (&settings.token_url, &settings.client_id) else {
            return Err(AuthError::Unsupported {
                what: "renewing without `auth.oauth.acme`".into(),
            });
        };
        let Some(refresh) = &old.refresh else { return Err(again("there is no refresh token")) };
        let body = serde_json::json!({
            "grant_type": "refresh_token", "client_id": client, "refresh_token": refresh.expose(),
        });
        let request = HttpRequest {
            method: "POST".into(),
            url: url.clone(),
            headers: vec![("content-type".into(), Secret::new("application/json"))],
            body: Some(Secret::new(body.to_string())),
            timeout_ms: Some(15_000),
        };
        Ok(Renewal::Http { request })
    }

    fn renewed(
        &self,
        old: &Credential,
        reply: &RenewReply,
        received_at: Timestamp,
    ) -> Result<Credential, AuthError> {
        let body: Value = serde_json::from_str(reply.body.expose()).unwrap_or_default();
        if body["error"] == "invalid_grant" {
            return Err(again("the service no longer knows the refresh token"));
        }
        let access = body["access_token"].as_str().filter(|text| !text.is_empty());
        let (200..300, Some(access)) = (reply.status, access) else {
            let reason = format!("the token endpoint answered {}", reply.status);
            return Err(AuthError::Transient { reason });
        };
        let mut new = old.clone();
        new.access = Some(Secret::new(access));
        if let Some(refresh) = body["refresh_token"].as_str().filter(|text| !text.is_empty()) {
            new.refresh = Some(Secret::new(refresh));
        }
        new.expires = body["expires_in"].as_i64().map(|s| received_at.plus(s.saturating_mul(1000)));
        Ok(new)
    }
}

fn again(reason: &str) -> AuthError {
    let hint = "log in again with `moltbot models auth login`".to_string();
    AuthError::LoginAgain { reason: reason.into(), hint }
}

fn old() -> Credential {
    let text = r#"{"type":"oauth","provider":"acme","access":"FAKE-A","refresh":"FAKE-R","expires":1790000000000.5,"scopes":["a"]}"#;
    exposed_wire(serde_json::from_str(text).unwrap())
}

fn settings() -> RenewSettings {
    wire(RenewSettings {
        token_url: Some("https://id.acme.example/token".into()),
        client_id: Some("c".into()),
        ..RenewSettings::default()
    })
}

fn reply(status: u16, body: &str) -> RenewReply {
    exposed_wire(RenewReply { status, body: Secret::new(body) })
}

#[test]
fn a_login_is_renewed_when_due_or_forced() {
    let early = NOW.plus(-3_600_000);
    assert_eq!(Login7.renew(&settings(), &old(), early), Ok(Renewal::NotDue {}));
    let forced = RenewSettings { force: true, ..settings() };
    for (settings, now) in [(settings(), NOW), (forced, early)] {
        let renewal = exposed_wire(Login7.renew(&settings, &old(), now).unwrap());
        let Renewal::Http { request } = renewal else { panic!("{renewal:?}") };
        assert!(!format!("{request:?}").contains("FAKE"), "no secret in Debug");
        assert!(request.body.unwrap().expose().contains("FAKE-R"));
    }
    let unset = Login7.renew(&RenewSettings::default(), &old(), NOW).unwrap_err();
    assert!(matches!(wire(unset), AuthError::Unsupported { .. }));
}

#[test]
fn a_reply_is_read_the_same_way_after_a_crash() {
    let answer = reply(200, r#"{"access_token":"FAKE-B","expires_in":3600}"#);
    let journal = serde_json::to_vec(&Exposed(&answer)).unwrap();
    let new = Login7.renewed(&old(), &answer, NOW).unwrap();
    let recovered: RenewReply = serde_json::from_slice(&journal).unwrap();
    assert_eq!(Login7.renewed(&old(), &recovered, NOW), Ok(new.clone()));
    assert_eq!(new.refresh, old().refresh, "a missing refresh token keeps the old one");
    assert_eq!((new.expires, new.rest), (Some(NOW.plus(3_600_000)), old().rest));
}

#[test]
fn only_invalid_grant_means_log_in_again() {
    let spent = reply(400, r#"{"error":"invalid_grant"}"#);
    let error = wire(Login7.renewed(&old(), &spent, NOW).unwrap_err());
    assert!(matches!(error, AuthError::LoginAgain { .. }));
    for (status, body) in [(500, ""), (429, "{}"), (200, "{}"), (200, "<html>"), (400, "FAKE")] {
        let error = wire(Login7.renewed(&old(), &reply(status, body), NOW).unwrap_err());
        assert!(matches!(error, AuthError::Transient { .. }), "{status} {body}: {error}");
    }
}
