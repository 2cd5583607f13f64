//! Tries single credentials with a bare request that changes no state (spec L-37, L-38).

use std::time::{Duration, Instant};

use bytes::Bytes;
use moltbot_core::{Credential, FailureKind, Op, redact};
use moltbot_profiles::display_name;
use serde::Serialize;
use serde_json::{Value, json};

use crate::attempt::{Looked, Unsent, perform};
use crate::compose::{Chat, Head, own_headers};
use crate::engine::Engine;
use crate::error::{ChatError, user_text};
use crate::http::Limits;
use crate::model::ModelRef;
use crate::setup::ProviderSetup;
use crate::source::{Source, SourceKind};

/// One credential to try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeTarget {
    /// For which provider.
    pub provider: String,
    /// With which model, as the provider knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The profile, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile_id: Option<String>,
    /// The name for people.
    pub label: String,
    /// `profile`, `env` or `models.json`.
    pub source: String,
    /// The kind of credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Why nothing will be sent.
    #[serde(skip)]
    pub excluded: Option<String>,
}

/// How to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeOptions {
    /// How long one try may take, in milliseconds.
    pub timeout_ms: u64,
    /// How many tokens it asks for.
    pub max_tokens: u64,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self { timeout_ms: 8_000, max_tokens: 8 }
    }
}

/// What came of a try: one element of `auth.probes.results`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeResult {
    /// What was tried.
    #[serde(flatten)]
    pub target: ProbeTarget,
    /// How it ended.
    pub status: ProbeStatus,
    /// In words, if it did not work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long it took; absent if nothing was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
}

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeStatus {
    /// It works.
    Ok,
    /// The credential is refused.
    Auth,
    /// A limit is reached, or the service is too busy.
    RateLimit,
    /// Somebody has to pay first.
    Billing,
    /// It took too long.
    Timeout,
    /// The service found the request wrong.
    Format,
    /// Nobody knows, or nothing was sent.
    Unknown,
    /// There is no model to ask.
    NoModel,
}

impl Engine {
    /// Lists what there is to try: every stored profile of the providers, else their first other
    /// credential. With `profiles` only those.
    pub async fn probe_targets(
        &self,
        provider: Option<&str>,
        profiles: &[String],
    ) -> Result<Vec<ProbeTarget>, ChatError> {
        let store = self.store.load().await?.profiles;
        let mut out = Vec::new();
        for setup in self.providers() {
            let wanted = provider.and_then(|id| self.provider(id));
            if provider.is_some() && wanted.is_none_or(|wanted| wanted.id != setup.id) {
                continue;
            }
            let model = self.usual_model(setup);
            let id = model.as_deref().unwrap_or_default();
            let selection =
                self.select(setup, id, store.clone(), moltbot_profiles::Pin::None).await;
            let order = selection.choice.order();
            let mut any = false;
            for (id, stored) in store.of_provider(&setup.id) {
                any = true;
                if !profiles.is_empty() && !profiles.iter().any(|wanted| wanted == id) {
                    continue;
                }
                let view = selection.views.get(id);
                let usable = view
                    .is_some_and(|view| view.state.state == moltbot_core::CredentialState::Ready);
                let excluded = if !usable {
                    Some("Auth profile credentials are missing or expired.".to_string())
                } else if !order.contains(&id) {
                    Some("Excluded by auth.order for this provider.".to_string())
                } else {
                    None
                };
                let kind = view.map_or(&stored.kind, |view| &view.state.kind);
                out.push(ProbeTarget {
                    provider: setup.id.clone(),
                    model: model.clone(),
                    profile_id: Some(id.to_string()),
                    label: display_name(id, stored.email.as_deref()),
                    source: "profile".into(),
                    mode: Some(kind.as_str().to_string()),
                    excluded,
                });
            }
            if !any && profiles.is_empty() {
                out.extend(selection.others.first().map(|other| target_of(setup, &model, other)));
            }
        }
        Ok(out)
    }

    /// Tries one credential. Neither a success nor a failure changes the store.
    pub async fn probe(&self, target: &ProbeTarget, options: &ProbeOptions) -> ProbeResult {
        let result = |status, error: Option<String>, latency_ms| {
            let error = error.map(|error| redact(&error).into_owned());
            ProbeResult { target: target.clone(), status, error, latency_ms }
        };
        if let Some(why) = &target.excluded {
            return result(ProbeStatus::Unknown, Some(why.clone()), None);
        }
        let Some(model) = &target.model else {
            let why = "No model available for probe".to_string();
            return result(ProbeStatus::NoModel, Some(why), None);
        };
        let found = self.probe_credential(target).await;
        let (Some(setup), Some(credential)) = (self.provider(&target.provider), found) else {
            let why = "Auth profile credentials are missing or expired.".to_string();
            return result(ProbeStatus::Unknown, Some(why), None);
        };
        let model = ModelRef { provider: setup.id.clone(), model: model.clone() };
        let chat = bare_chat(&model.model, options.max_tokens);
        let prepared = Looked::new(setup, &model, &Value::Null, &chat)
            .and_then(|looked| looked.prepare(&credential, self.now()));
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(unsent) => {
                let (status, why) = match unsent {
                    Unsent::Credential(why) => (ProbeStatus::Auth, why),
                    Unsent::Invalid(why) => (ProbeStatus::Format, why),
                    Unsent::Origin(why) | Unsent::Plugin(why) => (ProbeStatus::Unknown, why),
                };
                return result(status, Some(why), None);
            }
        };
        let began = Instant::now();
        let limits = || Limits { first_byte_ms: options.timeout_ms, ..self.limits };
        let now = || self.now();
        let mut ignore = |_: &moltbot_core::Event| {};
        let shop = self.workshop(&target.label);
        let asked = perform(&shop, setup, prepared, &limits, &now, &mut ignore);
        let asked = tokio::time::timeout(Duration::from_millis(options.timeout_ms), asked).await;
        let latency = Some(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        match asked {
            Ok(Ok(_)) => result(ProbeStatus::Ok, None, latency),
            Ok(Err(trouble)) => {
                let failure = setup.entry.provider.failure(&trouble.ended, self.now());
                let id = trouble.observed.request_id.as_deref();
                let text = user_text(&failure, &trouble.ended, id);
                result(ProbeStatus::of(failure.kind), Some(text), latency)
            }
            Err(_) => {
                let text = format!("no whole reply within {} ms", options.timeout_ms);
                result(ProbeStatus::Timeout, Some(text), latency)
            }
        }
    }

    pub(crate) fn usual_model(&self, setup: &ProviderSetup) -> Option<String> {
        let listed = self.models().listed();
        let configured = listed.into_iter().map(|listed| listed.model);
        let configured = configured.filter(|model| model.provider == setup.id).map(|m| m.model);
        let known = setup.info.catalog.first().map(|model| model.id.to_string());
        configured.into_iter().next().or(known)
    }

    async fn probe_credential(&self, target: &ProbeTarget) -> Option<Credential> {
        let Some(id) = &target.profile_id else {
            let (sources, _) = self.other_sources(&target.provider);
            let own = sources.into_iter().find(|source| source.label == target.label);
            return own.map(|source| source.credential);
        };
        let views = self.resolve_profiles(Some(&target.provider)).await.ok()?;
        let view = views.into_iter().find(|view| view.id == *id)?;
        view.resolved.ok().map(|resolved| resolved.credential)
    }
}

impl ProbeStatus {
    fn of(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Auth => Self::Auth,
            FailureKind::Billing => Self::Billing,
            FailureKind::RateLimit | FailureKind::Overloaded => Self::RateLimit,
            FailureKind::Timeout => Self::Timeout,
            FailureKind::Format | FailureKind::ContextOverflow | FailureKind::ModelNotFound => {
                Self::Format
            }
            _ => Self::Unknown,
        }
    }
}

pub(crate) fn target_of(
    setup: &ProviderSetup,
    model: &Option<String>,
    source: &Source,
) -> ProbeTarget {
    let place = match source.kind {
        SourceKind::Config => "models.json",
        _ => "env",
    };
    ProbeTarget {
        provider: setup.id.clone(),
        model: model.clone(),
        profile_id: None,
        label: source.label.clone(),
        source: place.into(),
        mode: Some(source.credential.kind.as_str().to_string()),
        excluded: None,
    }
}

/// The smallest chat there is: no tools, no system prompt, no reasoning.
fn bare_chat(model: &str, max_tokens: u64) -> Chat {
    let body = json!({
        "model": model,
        "max_tokens": max_tokens,
        "stream": true,
        "messages": [{"role": "user", "content": "Reply with OK."}],
    });
    Chat {
        op: Op::Messages,
        query: String::new(),
        headers: own_headers(),
        body: Bytes::from(body.to_string()),
        head: Head { model: model.to_string(), stream: true, max_tokens },
    }
}
