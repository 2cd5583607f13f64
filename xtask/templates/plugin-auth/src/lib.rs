//! TemplateName as a way to log in: it asks for a key, checks it and hands it to the host.
//!
//! # Invariants
//!
//! - Whatever leaves this program or comes into it passes the host: `cx.ask`, `cx.http`,
//!   `cx.read`, `cx.run`.
//! - A key is a `Secret` from the first byte; no message holds a piece of it.

use moltbot_core::*;

/// Logs in with a key of TemplateName.
pub struct TemplateName;

#[async_trait]
impl AuthMethod for TemplateName {
    fn id(&self) -> &str {
        "template-name"
    }

    fn offers(&self, provider: &ProviderInfo) -> Vec<Offer> {
        // Whom is it for? Here: every provider that takes API keys.
        if provider.api_key.is_none() {
            return Vec::new();
        }
        let key = Field {
            id: "key".into(),
            flag: Some(format!("{}-template-name-key", provider.id).into()),
            env: Some("TEMPLATE_NAME_KEY".into()),
            label: "TemplateName key".into(),
            kind: FieldKind::Secret {},
            ..Field::default()
        };
        vec![Offer {
            choice: format!("{}-template-name", provider.id).into(),
            label: "TemplateName".into(),
            hint: "a key of your own".into(),
            profile: format!("{}:template-name", provider.id).into(),
            kind: CredentialKind::ApiKey,
            mode: "api_key".into(),
            fields: vec![key],
            ..Offer::default()
        }]
    }

    async fn login(&self, cx: &Cx<'_>) -> Result<Login, AuthError> {
        let key = cx.ask("key", check).await?;
        Ok(Login::new(Credential::api_key(cx.provider.id.clone(), key)))
    }
}

/// Says what is wrong with an answer, for the person who gave it.
fn check(answer: &str) -> Result<Secret, String> {
    match answer.trim() {
        "" => Err("Required".to_string()),
        key if key.contains(char::is_whitespace) => Err("A key is one word".to_string()),
        key => Ok(Secret::new(key)),
    }
}

moltbot_core::plugin! { auth: [TemplateName] }
moltbot_abi::export_plugin!();
