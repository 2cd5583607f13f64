//! What one running lab holds: options, plan, clock, cache, logins, log.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use serde_json::Value;

use crate::cache::{InputUsage, PrefixCache};
use crate::clock::Clock;
use crate::errors::ApiError;
use crate::keys::{BothHeaders, KeyKind, Keys, check, presented, uuid_from};
use crate::limits::Meters;
use crate::log::{Log, lock};
use crate::models::{self, Model};
use crate::oauth::{Access, Login, LoginSpec, Logins};
use crate::plan::{ActivePlan, Plan};
use crate::prompt::Prompt;
use crate::reply::Reply;
use crate::validate::{self, Client, Op};
use crate::{sse, thinking};

/// How a lab is started.
#[derive(Debug, Clone, PartialEq)]
pub struct LabOptions {
    /// The port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// The fault plan.
    pub plan: Plan,
    /// Which credentials are accepted.
    pub keys: Keys,
    /// What happens when both credential headers come with different values.
    pub both_headers: BothHeaders,
    /// Whether a model id the lab does not know is 404.
    pub strict_models: bool,
    /// A time at which the lab's clock stands, in milliseconds since 1970; `None` for the
    /// system's time.
    pub stands_at: Option<i64>,
    /// Whether requests are logged. Off makes the lab a faster upstream for benchmarks.
    pub log: bool,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            port: 0,
            plan: Plan::default(),
            keys: Keys::Any,
            both_headers: BothHeaders::Refuse,
            strict_models: false,
            stands_at: None,
            log: true,
        }
    }
}

/// Requests whose checked form is kept, so that a benchmark's one body is checked once.
const PREPARED: usize = 8;

pub(crate) struct State {
    pub(crate) options: LabOptions,
    pub(crate) clock: Clock,
    pub(crate) log: Log,
    pub(crate) cache: Mutex<PrefixCache>,
    pub(crate) meters: Mutex<Meters>,
    pub(crate) logins: Mutex<Logins>,
    plan: RwLock<Arc<ActivePlan>>,
    prepared: Mutex<VecDeque<Arc<Prepared>>>,
    requests: AtomicU64,
}

/// Who sends a request.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) kind: KeyKind,
    pub(crate) organization: String,
    pub(crate) access: Access,
}

/// A body that was checked and measured, and the reply it gets where no rule says otherwise.
pub(crate) struct Prepared {
    key: (Bytes, Client, Op),
    pub(crate) body: Value,
    pub(crate) stream: bool,
    pub(crate) id: String,
    pub(crate) model: Option<&'static Model>,
    pub(crate) prompt: Prompt,
    pub(crate) reply: Reply,
    sent: Mutex<Option<(InputUsage, Bytes)>>,
}

impl State {
    pub(crate) fn new(options: LabOptions) -> Self {
        let state = Self {
            clock: Clock::new(options.stands_at),
            log: Log::default(),
            cache: Mutex::default(),
            meters: Mutex::default(),
            logins: Mutex::default(),
            plan: RwLock::default(),
            prepared: Mutex::default(),
            requests: AtomicU64::new(0),
            options,
        };
        state.set_plan(state.options.plan.clone());
        state
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn plan(&self) -> Arc<ActivePlan> {
        self.plan.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a new plan: its counts start at nothing, its logins are issued.
    pub(crate) fn set_plan(&self, plan: Plan) {
        let now = self.clock.now_ms();
        for login in &plan.logins {
            lock(&self.logins).issue(login, now);
        }
        let active = Arc::new(ActivePlan::new(plan));
        *self.plan.write().unwrap_or_else(PoisonError::into_inner) = active;
        lock(&self.prepared).clear();
    }

    /// Returns to the state after the start.
    pub(crate) fn reset(&self) {
        self.clock.reset();
        self.log.clear();
        lock(&self.cache).clear();
        lock(&self.meters).clear();
        *lock(&self.logins) = Logins::default();
        self.set_plan(self.options.plan.clone());
    }

    pub(crate) fn issue(&self, spec: &LoginSpec) -> Login {
        lock(&self.logins).issue(spec, self.clock.now_ms())
    }

    /// Finds out who sends a request, or how to refuse it.
    pub(crate) fn identify(
        &self,
        headers: &HeaderMap,
        plan: &ActivePlan,
    ) -> Result<Identity, ApiError> {
        let (value, carrier) = presented(headers, self.options.both_headers)?;
        let access = lock(&self.logins).access(value, self.clock.now_ms());
        let bearer = carrier == crate::keys::Carrier::Bearer;
        let organization = match &access {
            Access::Expired if bearer => return Err(ApiError::named("token-expired")),
            Access::Revoked if bearer => return Err(ApiError::named("token-revoked")),
            Access::Valid { organization, .. } if bearer => Some(organization.clone()),
            _ => None,
        };
        let kind = match organization {
            Some(_) => KeyKind::Oauth,
            None => {
                let listed = plan.plan.keys.clone().map(Keys::Only);
                check(value, carrier, listed.as_ref().unwrap_or(&self.options.keys))?
            }
        };
        let named = plan.organization(value).map(|name| uuid_from(&format!("org {name}")));
        let organization =
            named.or(organization).unwrap_or_else(|| uuid_from(&format!("key {value}")));
        Ok(Identity { kind, organization, access })
    }

    /// Returns the checked form of a body.
    pub(crate) fn prepare(
        &self,
        body: &Bytes,
        client: Client,
        op: Op,
        plan: &ActivePlan,
    ) -> Result<Arc<Prepared>, ApiError> {
        let key = (body.clone(), client, op);
        if let Some(known) = lock(&self.prepared).iter().find(|known| known.key == key) {
            return Ok(known.clone());
        }
        let strict = plan.plan.strict_models.unwrap_or(self.options.strict_models);
        let made = Arc::new(Prepared::make(key, strict, plan)?);
        let mut prepared = lock(&self.prepared);
        if prepared.len() == PREPARED {
            prepared.pop_front();
        }
        prepared.push_back(made.clone());
        Ok(made)
    }
}

impl Prepared {
    fn make(key: (Bytes, Client, Op), strict: bool, plan: &ActivePlan) -> Result<Self, ApiError> {
        let (bytes, client, op) = &key;
        let body: Value = serde_json::from_slice(bytes).map_err(|error| {
            ApiError::invalid(format!("The request body is not valid JSON: {error}"))
        })?;
        validate::body(&body, client, *op, models::find)?;
        let id = body["model"].as_str().unwrap_or("").to_owned();
        let model = models::find(&id);
        if model.is_none() && strict {
            return Err(ApiError::not_found(format!("model: {id}")));
        }
        let prompt = Prompt::measure(&body);
        thinking::check(&body, &id, model, &prompt)?;
        if let (Op::Messages, Some(model)) = (op, model) {
            let (tokens, context) = (prompt.tokens(), model.context);
            let room = body["max_tokens"].as_u64().unwrap_or(0);
            if tokens > context {
                let text = format!("prompt is too long: {tokens} tokens > {context} maximum");
                return Err(ApiError::invalid(text));
            }
            if tokens + room > context {
                return Err(ApiError::invalid(format!(
                    "input length and `max_tokens` exceed context limit: {tokens} + {room} > \
                     {context}, decrease input length or `max_tokens` and try again"
                )));
            }
        }
        let reply = Reply::make(&body, &prompt, model, plan.plan.reply.as_ref());
        let stream = body["stream"] == true;
        Ok(Self { body, stream, id, model, prompt, reply, sent: Mutex::default(), key })
    }

    /// Returns the bytes of the unchanged reply with this input.
    pub(crate) fn bytes(&self, input: InputUsage) -> Bytes {
        let mut sent = lock(&self.sent);
        if let Some((_, bytes)) = sent.as_ref().filter(|(known, _)| *known == input) {
            return bytes.clone();
        }
        let bytes = if self.stream {
            Bytes::from(sse::events(&self.reply, input).concat())
        } else {
            json_bytes(&self.reply, input)
        };
        *sent = Some((input, bytes.clone()));
        bytes
    }
}

/// Returns a reply as the bytes of a JSON message.
pub(crate) fn json_bytes(reply: &Reply, input: InputUsage) -> Bytes {
    let usage = input.to_json(reply.output_tokens, reply.thinking_tokens);
    Bytes::from(reply.to_json(usage).to_string())
}

/// Returns the credential a rule may be keyed by, as it came, judged by nobody.
pub(crate) fn raw_credential(headers: &HeaderMap) -> Option<&str> {
    let key = headers.get("x-api-key").and_then(|value| value.to_str().ok());
    key.or_else(|| {
        headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ').map(|(_, v)| v.trim())
    })
}
