//! TemplateName as a provider: one request per chat, a stream of JSON lines of text back.
//!
//! # Invariants
//!
//! - Translates only: no socket, no clock, no retry, and no secret, which the host fills in.
//! - A chat's body is passed on as it is; another language needs `ProviderInfo::body`.

mod decoder;

use moltbot_core::*;

/// Translates between chats and TemplateName.
pub struct TemplateName;

impl Provider for TemplateName {
    fn info(&self) -> ProviderInfo {
        ProviderInfo {
            id: "template-name".into(),
            label: "TemplateName".into(),
            api_key: Some(ApiKeySpec {
                choice: "template-name-key".into(),
                flag: "template-name-api-key".into(),
                env: "TEMPLATE_NAME_API_KEY".into(),
                label: "TemplateName API key".into(),
                ..ApiKeySpec::default()
            }),
            env: vec![EnvKey {
                name: "TEMPLATE_NAME_API_KEY".into(),
                kind: CredentialKind::ApiKey,
            }],
            base_url: "https://api.template-name.example".into(),
            origins: vec!["https://api.template-name.example".into()],
            dialect: "template-name-chat".into(),
            // Unknown models are sent as they are; the catalog adds limits and prices.
            catalog: Vec::new(),
            ..ProviderInfo::default()
        }
    }

    fn request(
        &self,
        chat: &ChatView<'_>,
        with: &CredentialView<'_>,
        _now: Timestamp,
    ) -> Result<Exchange, ProviderError> {
        if chat.op != Op::Messages {
            let message = format!("TemplateName has no {:?}", chat.op);
            return Err(ProviderError::Invalid { message });
        }
        if with.kind != CredentialKind::ApiKey || !with.has.iter().any(|field| field == "key") {
            let message = "TemplateName takes API keys only".to_string();
            return Err(ProviderError::Credential { message });
        }
        Ok(Exchange::Http {
            method: "POST".into(),
            url: format!("{}/v1/chat", chat.base_url),
            set: vec![
                ("authorization".into(), Slot::secret("Bearer ", "key")),
                ("content-type".into(), Slot::literal("application/json")),
            ],
            drop: vec!["x-api-key".into()],
            splices: Vec::new(),
            replace: None,
            changed: Vec::new(),
        })
    }

    fn failure(&self, ended: &Ended, _now: Timestamp) -> Failure {
        use FailureKind as Kind;
        use Scope::{Model, Profile, ProfileModel, Request, Upstream};
        let (kind, scope, code) = match ended {
            Ended::Http { status: 400, .. } => (Kind::Format, Request, "format"),
            Ended::Http { status: 401 | 403, .. } => (Kind::Auth, Profile, "credential-refused"),
            Ended::Http { status: 404, .. } => (Kind::ModelNotFound, Model, "model-not-found"),
            Ended::Http { status: 429, .. } => (Kind::RateLimit, ProfileModel, "rate-limited"),
            Ended::Network { what: NetworkFault::Timeout, .. } => {
                (Kind::Timeout, Upstream, "timeout")
            }
            _ => (Kind::Server, Upstream, "upstream"),
        };
        let message = match ended {
            Ended::Http { status, .. } => format!("TemplateName answered HTTP {status}"),
            Ended::Network { message, .. } | Ended::Event { message, .. }
                if !message.is_empty() =>
            {
                message.clone()
            }
            _ => "TemplateName did not answer".to_string(),
        };
        Failure { kind, scope, reset: None, account: None, code: code.into(), message, advice: None }
    }

    fn decoder(&self, mode: DecoderMode) -> Box<dyn Decoder> {
        Box::new(decoder::Lines::new(mode))
    }
}

moltbot_core::plugin! { providers: [TemplateName] }
moltbot_abi::export_plugin!();
