//! The renewal of logins that no plugin speaks for: stored with a refresh token by an older version
//! or by hand, renewed at the endpoint of the user's own config, never at another (decision 5, spec
//! A-19 to A-22).

use moltbot_core::{
    AuthError, AuthMethod, Credential, CredentialKind, Cx, HttpRequest, Login, Offer, ProviderInfo,
    RenewReply, RenewSettings, Renewal, Secret, Timestamp, async_trait,
};
use serde_json::{Value, json};

/// How much earlier than the service says a login counts as expired (spec A-19).
const MARGIN_MS: i64 = 300_000;

/// Lives shorter than this keep all of their time.
const SHORT_MS: i64 = 4 * MARGIN_MS;

/// The usual exchange of a refresh token, under a client id that the user was given.
///
/// Its answer is JSON as RFC 6749 section 5 describes it. A missing `refresh_token` keeps the old
/// one; `invalid_grant` means that somebody has to log in again, everything else is transient.
pub struct StandardLogin;

/// Returns the standard renewal if a stored login that belongs to no plugin's offer is one that it
/// can renew: with a refresh token, and of no method by name.
pub fn standard_method(stored: &Credential) -> Option<&'static dyn AuthMethod> {
    let orphan = stored.kind == CredentialKind::Oauth
        && stored.method.is_none()
        && !stored.is_link()
        && stored.refresh.as_ref().is_some_and(|refresh| !refresh.is_blank());
    orphan.then_some(&StandardLogin as &'static dyn AuthMethod)
}

#[async_trait]
impl AuthMethod for StandardLogin {
    fn id(&self) -> &str {
        "standard"
    }

    fn offers(&self, _: &ProviderInfo) -> Vec<Offer> {
        Vec::new()
    }

    async fn login(&self, _: &Cx<'_>) -> Result<Login, AuthError> {
        Err(AuthError::Unsupported { what: "a new login without a plugin".into() })
    }

    fn renew(
        &self,
        settings: &RenewSettings,
        old: &Credential,
        now: Timestamp,
    ) -> Result<Renewal, AuthError> {
        if !old.is_expired(now) && !settings.force {
            return Ok(Renewal::NotDue {});
        }
        let provider = &old.provider;
        let (Some(url), Some(client)) = (&settings.token_url, &settings.client_id) else {
            return Err(AuthError::LoginAgain {
                reason: format!(
                    "the login has expired, and auth.oauth.{provider} with tokenUrl and clientId, \
                     which would renew it, is not in the config"
                ),
                hint: "add it, or log in again".into(),
            });
        };
        let Some(refresh) = &old.refresh else { return Err(again("it has no refresh token")) };
        let mut body = json!({
            "grant_type": "refresh_token",
            "client_id": client,
            "refresh_token": refresh.expose(),
        });
        if let Some(scope) = &settings.scope {
            body["scope"] = scope.as_str().into();
        }
        let request = HttpRequest {
            method: "POST".into(),
            url: url.clone(),
            headers: vec![
                ("content-type".into(), Secret::new("application/json")),
                ("accept".into(), Secret::new("application/json")),
            ],
            body: Some(Secret::new(body.to_string())),
            timeout_ms: None,
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
        let status = reply.status;
        let text = |name: &str| body[name].as_str().filter(|text| !text.trim().is_empty());
        if !(200..300).contains(&status) {
            let code = error_code(&body);
            let reason = match &code {
                Some(code) => format!("the token endpoint answered HTTP {status} {code}"),
                None => format!("the token endpoint answered HTTP {status}"),
            };
            return Err(match code.as_deref() {
                Some("invalid_grant") => again(reason),
                _ => AuthError::Transient { reason },
            });
        }
        let Some(access) = text("access_token") else {
            let reason = format!("the token endpoint answered HTTP {status} without a token");
            return Err(AuthError::Transient { reason });
        };
        let mut new = old.clone();
        new.access = Some(Secret::new(access));
        if let Some(refresh) = text("refresh_token") {
            new.refresh = Some(Secret::new(refresh));
        }
        new.expires = lifetime(&body).map(|life| {
            let margin = if life < SHORT_MS { 0 } else { MARGIN_MS };
            received_at.plus(life - margin)
        });
        Ok(new)
    }
}

fn again(reason: impl Into<String>) -> AuthError {
    AuthError::LoginAgain { reason: reason.into(), hint: "log in again".into() }
}

/// Returns the code of an error, if it looks like one: whatever else stands there is not shown.
fn error_code(body: &Value) -> Option<String> {
    let code = body["error"].as_str().or_else(|| body["error"]["type"].as_str())?;
    let plain = |c: char| c.is_ascii_lowercase() || c == '_';
    (!code.is_empty() && code.len() <= 40 && code.chars().all(plain)).then(|| code.to_string())
}

/// Returns for how many milliseconds a login is good; some services write the number as text.
fn lifetime(body: &Value) -> Option<i64> {
    let expires = &body["expires_in"];
    let seconds = expires.as_f64().or_else(|| expires.as_str()?.trim().parse().ok())?;
    // A hundred years is as good as for ever, and nothing overflows.
    Some((seconds.clamp(0.0, 3.2e9) * 1_000.0) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn login() -> Credential {
        let mut login = Credential::new(CredentialKind::Oauth, "acme");
        login.access = Some(Secret::new("FAKEaccess"));
        login.refresh = Some(Secret::new("FAKErefresh"));
        login.expires = Some(NOW.plus(-1));
        login
    }

    fn renewed(status: u16, body: &str) -> Result<Credential, AuthError> {
        StandardLogin.renewed(&login(), &RenewReply { status, body: Secret::new(body) }, NOW)
    }

    #[test]
    fn only_a_login_that_nobody_speaks_for_is_renewed_like_this() {
        assert!(standard_method(&login()).is_some());
        let with = |change: fn(&mut Credential)| {
            let mut login = login();
            change(&mut login);
            standard_method(&login).is_none()
        };
        assert!(with(|login| login.method = Some("house".into())));
        assert!(with(|login| login.refresh = None));
        assert!(with(|login| login.kind = CredentialKind::Token));
        assert!(
            standard_method(&Credential::link(CredentialKind::Oauth, "acme", "owner")).is_none()
        );
    }

    #[test]
    fn without_an_endpoint_nothing_is_sent_and_the_key_is_named() {
        let error = StandardLogin.renew(&RenewSettings::default(), &login(), NOW).unwrap_err();
        assert!(error.to_string().contains("auth.oauth.acme"), "{error}");
        let settings = RenewSettings {
            token_url: Some("https://id.example/token".into()),
            client_id: Some("ours".into()),
            scope: Some("a b".into()),
            ..RenewSettings::default()
        };
        let Ok(Renewal::Http { request }) = StandardLogin.renew(&settings, &login(), NOW) else {
            panic!("no request")
        };
        let body: Value = serde_json::from_str(request.body.unwrap().expose()).unwrap();
        let wanted = json!({ "grant_type": "refresh_token", "client_id": "ours",
            "refresh_token": "FAKErefresh", "scope": "a b" });
        assert_eq!(body, wanted);
        let due = StandardLogin.renew(&settings, &login(), NOW.plus(-2));
        assert_eq!(due, Ok(Renewal::NotDue {}));
    }

    #[test]
    fn answers_are_read_with_care() {
        let new = renewed(200, r#"{"access_token":"FAKEnew","expires_in":28800}"#).unwrap();
        assert_eq!(new.refresh, login().refresh, "an absent one keeps the old one");
        assert_eq!(new.expires, Some(NOW.plus(28_800_000 - MARGIN_MS)));
        let new = renewed(200, r#"{"access_token":"a","refresh_token":"b","expires_in":"60"}"#);
        assert_eq!(new.unwrap().expires, Some(NOW.plus(60_000)));
        for body in [r#"{"access_token":"a","expires_in":1e300}"#, r#"{"access_token":"a"}"#] {
            assert!(!renewed(200, body).unwrap().is_expired(NOW));
        }
        for (status, body, again, said) in [
            (400, r#"{"error":"invalid_grant"}"#, true, "HTTP 400 invalid_grant"),
            (400, r#"{"error":"invalid_request"}"#, false, "HTTP 400 invalid_request"),
            (400, r#"{"error":{"type":"invalid_grant"}}"#, true, "invalid_grant"),
            (500, "<html>", false, "HTTP 500"),
            (400, r#"{"error":"sk-ant-ort01-FAKE"}"#, false, "HTTP 400"),
            (200, r#"{"access_token":" "}"#, false, "without a token"),
            (200, "null", false, "without a token"),
        ] {
            let error = renewed(status, body).unwrap_err();
            assert_eq!(matches!(error, AuthError::LoginAgain { .. }), again, "{body}");
            let text = error.to_string();
            assert!(text.contains(said) && !text.contains("FAKE"), "{text}");
        }
    }
}
