//! The token endpoint and the logins it serves: refresh tokens that rotate and work once.
//!
//! Facts of spec 09 F: JSON in and out, `invalid_grant` for a spent or unknown refresh token, no
//! `refresh_token` in the answer means "keep the old". Nothing here keeps a token in clear: tokens
//! are remembered by their digest.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::errors::ApiError;
use crate::keys::{hex, uuid_from};

/// How the token endpoint treats refresh tokens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TokenRules {
    /// What happens to a refresh token that was used.
    pub rotation: Rotation,
    /// In `repeat` mode: how long the same answer is given again, in seconds.
    pub window_seconds: u64,
    /// How long an access token lives, in seconds.
    pub access_seconds: u64,
    /// Whether using a spent refresh token ends the whole login.
    pub revoke_on_reuse: bool,
}

impl Default for TokenRules {
    fn default() -> Self {
        Self {
            rotation: Rotation::Strict,
            window_seconds: 30,
            access_seconds: 8 * 3600,
            revoke_on_reuse: false,
        }
    }
}

/// What happens to a refresh token that was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rotation {
    /// It is spent: `invalid_grant` from then on.
    #[default]
    Strict,
    /// Within the window it gives the same answer again; then it is spent.
    Repeat,
    /// It stays good, and the answer holds no refresh token.
    Keep,
}

/// A login that a plan or a test asks for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoginSpec {
    /// The end of every token of this login, so that rules can name it across rotations.
    pub label: String,
    /// How long the first access token lives, in seconds; 0 is one that has expired already.
    pub expires_in: u64,
    /// The first access token, if it must have this text.
    #[serde(default)]
    pub access_token: Option<String>,
    /// The first refresh token, if it must have this text.
    #[serde(default)]
    pub refresh_token: Option<String>,
}

/// The tokens of a login the lab issued.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Login {
    /// `sk-ant-oat01-..`
    pub access_token: String,
    /// `sk-ant-ort01-..`
    pub refresh_token: String,
    /// When the access token ends, in milliseconds since the epoch of the lab's clock.
    pub expires_at: i64,
    /// The organization its replies carry.
    pub organization: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// What an access token is to the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Access {
    /// Not of a login the lab issued.
    Foreign,
    Valid {
        organization: String,
        account: String,
    },
    Expired,
    Revoked,
}

const SCOPE: &str = "user:inference user:profile";

#[derive(Debug, Default)]
pub(crate) struct Logins {
    families: Vec<Family>,
    access: HashMap<[u8; 32], (usize, i64)>,
    refresh: HashMap<[u8; 32], Grant>,
    issued: u64,
}

#[derive(Debug)]
struct Family {
    label: String,
    organization: String,
    account: String,
    revoked: bool,
}

#[derive(Debug)]
struct Grant {
    family: usize,
    used_at: Option<i64>,
    // The answer's tokens are derived from this number, so that it can be given again.
    serial: u64,
}

impl Logins {
    /// Makes a login.
    pub(crate) fn issue(&mut self, spec: &LoginSpec, now_ms: i64) -> Login {
        let family = self.families.len();
        let organization = uuid_from(&format!("login {family} {}", spec.label));
        self.families.push(Family {
            label: spec.label.clone(),
            account: uuid_from(&format!("account {family}")),
            organization: organization.clone(),
            revoked: false,
        });
        self.issued += 1;
        let (access, refresh) = self.tokens(family, self.issued);
        let access_token = spec.access_token.clone().unwrap_or(access);
        let refresh_token = spec.refresh_token.clone().unwrap_or(refresh);
        let expires_at = now_ms.saturating_add_unsigned(spec.expires_in.saturating_mul(1000));
        self.remember(&access_token, Some(&refresh_token), family, expires_at);
        Login { access_token, refresh_token, expires_at, organization }
    }

    /// Answers `POST /v1/oauth/token` with status and body.
    pub(crate) fn token(&mut self, body: &[u8], rules: &TokenRules, now_ms: i64) -> (u16, Value) {
        let refused =
            |error: &str, why: &str| (400, json!({ "error": error, "error_description": why }));
        let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
            return refused("invalid_request", "The request body must be a JSON object");
        };
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or("");
        match text("grant_type") {
            "refresh_token" if text("refresh_token").is_empty() => {
                refused("invalid_request", "refresh_token: Field required")
            }
            "refresh_token" => match self.rotate(text("refresh_token"), rules, now_ms) {
                Some(answer) => (200, answer),
                None => refused("invalid_grant", "Refresh token not found or invalid"),
            },
            "urn:ietf:params:oauth:grant-type:jwt-bearer" => {
                for name in ["assertion", "federation_rule_id", "organization_id"] {
                    if text(name).is_empty() {
                        return refused("invalid_request", &format!("{name}: Field required"));
                    }
                }
                let label = format!("wif-{}", text("federation_rule_id"));
                let seconds = 3600;
                let spec = LoginSpec {
                    label,
                    expires_in: seconds,
                    access_token: None,
                    refresh_token: None,
                };
                let login = self.issue(&spec, now_ms);
                // A federated identity has no refresh token: the one just made is forgotten.
                self.refresh.remove(&digest(&login.refresh_token));
                let answer = json!({
                    "access_token": login.access_token,
                    "expires_in": seconds,
                    "token_type": "Bearer",
                });
                (200, answer)
            }
            "" => refused("invalid_request", "grant_type: Field required"),
            _ => refused("unsupported_grant_type", "The grant type is not supported"),
        }
    }

    /// Tells what an access token is.
    pub(crate) fn access(&self, token: &str, now_ms: i64) -> Access {
        if self.access.is_empty() {
            return Access::Foreign;
        }
        let Some((family, expires)) = self.access.get(&digest(token)) else {
            return Access::Foreign;
        };
        let family = &self.families[*family];
        match (family.revoked, *expires > now_ms) {
            (true, _) => Access::Revoked,
            (false, false) => Access::Expired,
            (false, true) => Access::Valid {
                organization: family.organization.clone(),
                account: family.account.clone(),
            },
        }
    }

    /// Revokes every login whose label is `label`; returns how many there were.
    pub(crate) fn revoke(&mut self, label: &str) -> usize {
        let named = self.families.iter_mut().filter(|family| family.label == label);
        named.map(|family| family.revoked = true).count()
    }

    fn rotate(&mut self, token: &str, rules: &TokenRules, now_ms: i64) -> Option<Value> {
        let serial = self.issued + 1;
        let grant = self.refresh.get_mut(&digest(token))?;
        let family = grant.family;
        if self.families[family].revoked {
            return None;
        }
        let window = i64::try_from(rules.window_seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
        let serial = match grant.used_at {
            None => {
                if rules.rotation != Rotation::Keep {
                    grant.used_at = Some(now_ms);
                    grant.serial = serial;
                }
                self.issued = serial;
                serial
            }
            Some(at)
                if rules.rotation == Rotation::Repeat && now_ms < at.saturating_add(window) =>
            {
                grant.serial
            }
            Some(_) => {
                self.families[family].revoked |= rules.revoke_on_reuse;
                return None;
            }
        };
        let (access, refresh) = self.tokens(family, serial);
        let seconds = rules.access_seconds;
        let expires = now_ms.saturating_add_unsigned(seconds.saturating_mul(1000));
        let keeps = rules.rotation == Rotation::Keep;
        let known = self.refresh.contains_key(&digest(&refresh));
        self.remember(&access, (!keeps && !known).then_some(&refresh), family, expires);
        let organization = &self.families[family].organization;
        let mut answer = json!({
            "token_type": "Bearer",
            "access_token": access,
            "expires_in": seconds,
            "scope": SCOPE,
            "organization": { "uuid": organization, "name": "Lab" },
            "account": { "uuid": self.families[family].account, "email_address": "lab@lab.invalid" },
        });
        if !keeps {
            answer["refresh_token"] = Value::from(refresh);
        }
        Some(answer)
    }

    fn tokens(&self, family: usize, serial: u64) -> (String, String) {
        let label = &self.families[family].label;
        let body = |kind: &str| {
            let seed = Sha256::digest(format!("lab {kind} {family} {serial}").as_bytes());
            format!("LAB{}{}", hex(&seed), hex(&seed[..12]))
        };
        let access = format!("sk-ant-oat01-{}-{label}", body("access"));
        (access, format!("sk-ant-ort01-{}-{label}", body("refresh")))
    }

    fn remember(&mut self, access: &str, refresh: Option<&String>, family: usize, expires: i64) {
        self.access.insert(digest(access), (family, expires));
        if let Some(refresh) = refresh {
            let grant = Grant { family, used_at: None, serial: 0 };
            self.refresh.insert(digest(refresh), grant);
        }
    }
}

/// Answers `GET /api/oauth/profile` for a login's access token.
///
/// # Errors
/// A token that is no login of the lab is taken for a setup token, which lacks the scope.
pub(crate) fn profile(access: &Access) -> Result<Value, ApiError> {
    let Access::Valid { organization, account } = access else {
        return Err(ApiError::named("token-scope"));
    };
    Ok(json!({
        "account": {
            "uuid": account,
            "full_name": "Lab User",
            "display_name": "Lab",
            "email": "lab@lab.invalid",
            "has_claude_max": true,
            "has_claude_pro": false,
        },
        "organization": {
            "uuid": organization,
            "name": "Lab",
            "organization_type": "claude_max",
            "rate_limit_tier": "default_claude_max_5x",
        },
    }))
}

/// Answers `GET /api/oauth/usage`.
pub(crate) fn usage(access: &Access, resets_at: &str) -> Result<Value, ApiError> {
    profile(access)?;
    let window = |utilization: f64| json!({ "utilization": utilization, "resets_at": resets_at });
    Ok(json!({ "five_hour": window(12.0), "seven_day": window(34.0), "seven_day_opus": null }))
}

/// Returns a spec for a login with made-up tokens.
pub(crate) fn spec(label: &str, valid_for: Duration) -> LoginSpec {
    LoginSpec {
        label: label.to_owned(),
        expires_in: valid_for.as_secs(),
        access_token: None,
        refresh_token: None,
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refresh(logins: &mut Logins, token: &str, rules: &TokenRules, now: i64) -> (u16, Value) {
        let body = json!({"grant_type": "refresh_token", "refresh_token": token});
        logins.token(body.to_string().as_bytes(), rules, now)
    }

    #[test]
    fn a_refresh_token_works_once_and_its_successor_once() {
        let (mut logins, rules) = (Logins::default(), TokenRules::default());
        let login = logins.issue(&spec("mia", Duration::from_secs(60)), 0);
        assert!(matches!(logins.access(&login.access_token, 59_999), Access::Valid { .. }));
        assert_eq!(logins.access(&login.access_token, 60_000), Access::Expired);
        let (status, first) = refresh(&mut logins, &login.refresh_token, &rules, 0);
        assert_eq!(status, 200);
        let next = first["refresh_token"].as_str().unwrap();
        assert_ne!(next, login.refresh_token);
        assert!(next.ends_with("-mia"));
        let (status, again) = refresh(&mut logins, &login.refresh_token, &rules, 1);
        assert_eq!((status, again["error"].as_str()), (400, Some("invalid_grant")));
        assert_eq!(refresh(&mut logins, next, &rules, 2).0, 200);
        let access = first["access_token"].as_str().unwrap();
        assert!(matches!(logins.access(access, 1), Access::Valid { .. }));
    }

    #[test]
    fn repeat_mode_gives_the_same_answer_within_its_window() {
        let rules = TokenRules { rotation: Rotation::Repeat, ..TokenRules::default() };
        let mut logins = Logins::default();
        let login = logins.issue(&spec("a", Duration::ZERO), 0);
        let first = refresh(&mut logins, &login.refresh_token, &rules, 0);
        assert_eq!(first, refresh(&mut logins, &login.refresh_token, &rules, 29_999));
        assert_eq!(refresh(&mut logins, &login.refresh_token, &rules, 30_000).0, 400);
        // Repeating must not make the successor usable twice.
        let next = first.1["refresh_token"].as_str().unwrap();
        assert_eq!(refresh(&mut logins, next, &TokenRules::default(), 30_001).0, 200);
        assert_eq!(refresh(&mut logins, next, &TokenRules::default(), 30_002).0, 400);
    }

    #[test]
    fn keep_mode_sends_no_refresh_token() {
        let rules = TokenRules { rotation: Rotation::Keep, ..TokenRules::default() };
        let mut logins = Logins::default();
        let login = logins.issue(&spec("a", Duration::ZERO), 0);
        for now in 0..2 {
            let (status, answer) = refresh(&mut logins, &login.refresh_token, &rules, now);
            assert_eq!((status, answer.get("refresh_token")), (200, None));
        }
    }

    #[test]
    fn reuse_can_end_the_login_and_a_revoked_login_stays_dead() {
        let rules = TokenRules { revoke_on_reuse: true, ..TokenRules::default() };
        let mut logins = Logins::default();
        let login = logins.issue(&spec("a", Duration::from_secs(9)), 0);
        let (_, first) = refresh(&mut logins, &login.refresh_token, &rules, 0);
        refresh(&mut logins, &login.refresh_token, &rules, 1);
        let next = first["refresh_token"].as_str().unwrap();
        assert_eq!(refresh(&mut logins, next, &rules, 2).0, 400);
        assert_eq!(logins.access(&login.access_token, 1), Access::Revoked);
    }

    #[test]
    fn bad_requests_are_named() {
        let (mut logins, rules) = (Logins::default(), TokenRules::default());
        let mut ask = |body: &str| logins.token(body.as_bytes(), &rules, 0).1["error"].clone();
        assert_eq!(ask("grant_type=refresh_token"), "invalid_request");
        assert_eq!(ask("{}"), "invalid_request");
        assert_eq!(ask(r#"{"grant_type":"password"}"#), "unsupported_grant_type");
        assert_eq!(ask(r#"{"grant_type":"refresh_token","refresh_token":"x"}"#), "invalid_grant");
    }
}
