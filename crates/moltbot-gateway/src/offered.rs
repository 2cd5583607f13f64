//! Asks a provider which models an account really has (spec L-28). Changes no state: nothing is
//! renewed, nobody is punished, nothing is recorded.

use std::time::{Duration, Instant};

use bytes::Bytes;
use moltbot_core::{Ended, Header, Op};
use moltbot_profiles::{Pin, display_name, no_key_message};
use serde::Deserialize;
use serde_json::Value;

use crate::attempt::{Looked, Ready, Unsent};
use crate::compose::{Chat, Head, own_headers};
use crate::engine::Engine;
use crate::error::{ChatError, Failed};
use crate::http::Limits;
use crate::model::ModelRef;
use crate::probe::{ProbeTarget, target_of};
use crate::run::unsent_failed;
use crate::select::Planned;
use crate::send::send;
use crate::setup::ProviderSetup;

/// How many models are asked for at once, the most that services allow.
const PAGE: usize = 1_000;

/// How many pages are read, so that a service that never ends its list ends here.
const PAGES: usize = 20;

/// How much of one page is read.
const MAX_PAGE: usize = 8 << 20;

/// The longest id that is believed to be one.
const MAX_ID: usize = 200;

/// The models a service offers to one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// With which credential it was asked; with a `model`, what [`Engine::probe`] takes.
    pub target: ProbeTarget,
    /// In the service's order, which is newest first where services keep one.
    pub models: Vec<OfferedModel>,
    /// How long the answer took.
    pub latency_ms: u64,
}

/// One model of a service's list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct OfferedModel {
    /// As the service knows it.
    pub id: String,
    /// The name for people.
    #[serde(rename = "display_name", default)]
    pub name: Option<String>,
    /// When it came out, ISO 8601.
    #[serde(default)]
    pub created_at: Option<String>,
    /// Tokens of input it takes.
    #[serde(rename = "max_input_tokens", default)]
    pub context_window: Option<u64>,
    /// What the service says it can do.
    #[serde(default)]
    capabilities: Value,
}

impl OfferedModel {
    /// Tells whether it takes images; `None` if the service does not say.
    pub fn images(&self) -> Option<bool> {
        self.capabilities["image_input"]["supported"].as_bool()
    }
}

/// One page of the list, in the inner language's form.
#[derive(Deserialize)]
struct Page {
    data: Vec<Value>,
    #[serde(default)]
    has_more: bool,
    #[serde(default)]
    last_id: Option<String>,
}

impl Engine {
    /// Asks a provider for its models with the credential that a chat would use first; `None` if
    /// it has no list to ask for. A login that would have to be renewed first is passed over.
    ///
    /// # Errors
    ///
    /// As a chat's: no credential, a refusal, an address that is not allowed, no answer within
    /// `timeout_ms`, an answer that is no list.
    pub async fn offered_models(
        &self,
        provider: &str,
        timeout_ms: u64,
    ) -> Result<Option<Offered>, ChatError> {
        let Some(setup) = self.provider(provider) else {
            let message = format!("Unknown provider \"{provider}\"");
            return Err(ChatError::new("input", message));
        };
        let (planned, target) = self.first_credential(setup).await?;
        let began = Instant::now();
        let limits = Limits { first_byte_ms: timeout_ms, idle_ms: timeout_ms, ..self.limits };
        let asked = self.pages(setup, &planned, limits);
        let models = match tokio::time::timeout(Duration::from_millis(timeout_ms), asked).await {
            Ok(models) => models?,
            Err(_) => {
                let message = format!("{}: no whole list within {timeout_ms} ms", setup.id);
                return Err(ChatError::new("timeout", message));
            }
        };
        let latency_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(models.map(|models| Offered { target, models, latency_ms }))
    }

    /// Finds the credential that a chat would use first, as long as it is good as it stands.
    async fn first_credential(
        &self,
        setup: &ProviderSetup,
    ) -> Result<(Planned, ProbeTarget), ChatError> {
        let store = self.store.load().await?.profiles;
        let model = self.usual_model(setup).unwrap_or_default();
        let selection = self.select(setup, &model, store, Pin::None).await;
        let planned = selection.planned();
        let stale = planned.iter().find(|planned| planned.renew).map(|p| p.label.clone());
        let resting = selection.resting();
        let no_profile = planned.is_empty() && resting.is_empty();
        let good = planned.into_iter().find(|planned| !planned.renew);
        if let Some(planned) = good.or_else(|| resting.into_iter().next()) {
            let id = planned.profile.clone().unwrap_or_default();
            let email = planned.view.as_ref().and_then(|view| view.stored.email.as_deref());
            let target = ProbeTarget {
                provider: setup.id.clone(),
                model: None,
                label: display_name(&id, email),
                profile_id: planned.profile.clone(),
                source: "profile".into(),
                mode: Some(planned.credential.kind.as_str().to_string()),
                excluded: None,
            };
            return Ok((planned, target));
        }
        let other = selection.planned_others().into_iter().zip(&selection.others).next();
        if let Some((planned, source)) = other.filter(|_| no_profile) {
            return Ok((planned, target_of(setup, &None, source)));
        }
        if let Some(label) = stale {
            let message = format!("{label} has expired, and a scan renews nothing");
            return Err(ChatError::new("login-needed", message)
                .advice("`moltbot models auth refresh` renews it"));
        }
        let message = no_key_message(&setup.id, &self.agent.store, &self.agent.dir);
        Err(ChatError::new("no-credential", message))
    }

    async fn pages(
        &self,
        setup: &ProviderSetup,
        planned: &Planned,
        limits: Limits,
    ) -> Result<Option<Vec<OfferedModel>>, ChatError> {
        let (mut models, mut after): (Vec<OfferedModel>, String) = (Vec::new(), String::new());
        for _ in 0..PAGES {
            let Some(page) = self.page(setup, planned, limits, &after).await? else {
                return Ok(None);
            };
            for entry in page.data {
                // One that this version cannot read must not hide the others.
                let Ok(model) = serde_json::from_value::<OfferedModel>(entry) else { continue };
                if is_id(&model.id) && !models.iter().any(|known| known.id == model.id) {
                    models.push(model);
                }
            }
            match page.last_id {
                Some(last) if page.has_more && last != after && is_id(&last) => after = last,
                _ => break,
            }
        }
        Ok(Some(models))
    }

    async fn page(
        &self,
        setup: &ProviderSetup,
        planned: &Planned,
        limits: Limits,
        after: &str,
    ) -> Result<Option<Page>, ChatError> {
        let mut query = format!("limit={PAGE}");
        if !after.is_empty() {
            query = format!("{query}&after_id={after}");
        }
        let mut headers = own_headers();
        headers.retain(|header| header.name != "content-type");
        let chat =
            Chat { op: Op::Models, query, headers, body: Bytes::new(), head: Head::default() };
        let model = ModelRef { provider: setup.id.clone(), model: String::new() };
        let looked = Looked::without_body(setup, &model, &Value::Null, &chat);
        let prepared = match looked.prepare(&planned.credential, self.now()) {
            Ok(Ready::Http(prepared)) => *prepared,
            // It cannot say which models there are; that is no failure.
            Ok(Ready::Run(_)) | Err(Unsent::Invalid(_)) => return Ok(None),
            Err(unsent) => return Err(refused(&planned.label, unsent_failed(unsent))),
        };
        let told = |ended: &Ended| {
            let provider = setup.entry.provider;
            let failure = provider.failure(ended, self.now());
            let headers: &[Header<'_>] = match ended {
                Ended::Http { headers, .. } => headers,
                _ => &[],
            };
            let id = provider.observe(headers, self.now()).request_id;
            refused(&planned.label, Failed::of(&failure, ended, id.as_deref()))
        };
        let mut live =
            send(&self.host.http, prepared, limits).await.map_err(|ended| told(&ended))?;
        let mut body = Vec::new();
        while let Some(piece) = live.chunk(limits).await.map_err(|ended| told(&ended))? {
            if body.len() + piece.len() > MAX_PAGE {
                break;
            }
            body.extend_from_slice(&piece);
        }
        serde_json::from_slice(&body).map(Some).map_err(|_| {
            let message = format!("{} did not answer with a list of models", setup.id);
            ChatError::new("upstream", message)
        })
    }
}

/// Tells whether a text can be a model's id: what is printed and written into the config later.
fn is_id(text: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/@+".contains(&byte);
    !text.is_empty() && text.len() <= MAX_ID && text.bytes().all(usual)
}

fn refused(label: &str, failed: Failed) -> ChatError {
    let error = ChatError::new(failed.code, format!("{label}: {}", failed.message));
    match failed.advice {
        Some(advice) => error.advice(advice),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_printable_and_short() {
        for id in ["claude-opus-4-5", "meta/llama-3.1-70b:free", "a@b+c_d"] {
            assert!(is_id(id), "{id}");
        }
        let long = "x".repeat(MAX_ID + 1);
        for id in ["", "a b", "a\u{1b}[2J", "a\n", "ä", "a&limit=0", "a#b", long.as_str()] {
            assert!(!is_id(id), "{id:?}");
        }
    }

    #[test]
    fn a_page_with_more_than_is_known_is_read() {
        let text = r#"{"data":[{"id":"m","created_at":"2026-01-02T00:00:00Z","other":1,
            "capabilities":{"image_input":{"supported":false}}}],"has_more":true,"last_id":"m"}"#;
        let page: Page = serde_json::from_str(text).unwrap();
        let model: OfferedModel = serde_json::from_value(page.data[0].clone()).unwrap();
        assert_eq!((model.images(), page.has_more), (Some(false), true));
        let bare: OfferedModel = serde_json::from_str(r#"{"id":"m"}"#).unwrap();
        assert_eq!((bare.images(), bare.name), (None, None));
    }
}
