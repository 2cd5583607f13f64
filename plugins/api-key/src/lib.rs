//! API keys: one auth method for every provider that declares a key.
//!
//! ```
//! use moltbot_plugin_api_key::normalize_key;
//!
//! let pasted = r#" export ACME_API_KEY="acme-FAKE"; "#;
//! assert_eq!(normalize_key(pasted, "").unwrap().expose(), "acme-FAKE");
//! ```
//!
//! # Invariants
//!
//! - Names no vendor: choice, flag, variable, label and prefix come from the provider.
//! - Prompt, flag, variable and standard input pass the same check.

mod input;

use moltbot_core::*;

pub use input::normalize_key;

/// Asks for an API key (spec L-1, L-12).
pub struct ApiKey;

#[async_trait]
impl AuthMethod for ApiKey {
    fn id(&self) -> &str {
        "api-key"
    }

    fn offers(&self, provider: &ProviderInfo) -> Vec<Offer> {
        let Some(spec) = &provider.api_key else { return Vec::new() };
        let key = Field {
            id: "key".into(),
            flag: Some(spec.flag.clone()),
            env: Some(spec.env.clone()),
            label: format!("Enter {}", spec.label).into(),
            kind: FieldKind::Secret {},
            ..Field::default()
        };
        vec![Offer {
            choice: spec.choice.clone(),
            label: spec.label.clone(),
            hint: "billed per use".into(),
            profile: format!("{}:default", provider.id).into(),
            kind: CredentialKind::ApiKey,
            mode: "api_key".into(),
            accepts: vec![CredentialKind::ApiKey],
            fields: vec![key],
            caps: AuthCaps { recommended: true, ..AuthCaps::default() },
            policy: spec.policy.clone(),
            payer: Payer::Metered,
            ..Offer::default()
        }]
    }

    async fn login(&self, cx: &Cx<'_>) -> Result<Login, AuthError> {
        let provider = &cx.provider.id;
        let prefix = cx.provider.api_key.as_ref().map_or("", |spec| &spec.prefix);
        let key = cx.ask("key", |text| normalize_key(text, prefix)).await;
        let key = key.map_err(|error| match error {
            AuthError::NotInteractive { flag: Some(flag), env: Some(env), .. } => {
                let message = format!(
                    "Missing --{flag} (or {env} in env, or existing {provider} API-key profile)."
                );
                AuthError::NotFound { message }
            }
            other => other,
        })?;
        Ok(Login::new(Credential::api_key(provider.clone(), key)))
    }
}

moltbot_core::plugin! { auth: [ApiKey] }
