//! Auth methods as the host calls them, wherever they run.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;

use moltbot_core::{
    AuthError, AuthMethod, Credential, Cx, Effect, Exposed, Finding, Host, HostError, Login, Offer,
    ProviderInfo, RenewReply, RenewSettings, Renewal, Reply, Resolved, SettingsSpec, Timestamp,
};
use serde::de::DeserializeOwned;

use crate::wire::{Answer, CallError, HostCall, HostMessage, Needed, Step, decode, encode};
use crate::{Carrier, CarrierError, Packet};

/// How many steps one call may take; a login asks a few dozen times at most.
const MAX_STEPS: usize = 10_000;

/// For how many providers a method's offers are kept.
const KEPT: usize = 256;

/// An auth method: linked into this binary, or on the other side of a carrier.
///
/// Every call is `async`, so that no thread of the host ever waits for a plugin.
#[derive(Clone)]
pub enum MethodHandle {
    /// In this binary; called directly.
    Linked(&'static dyn AuthMethod),
    /// Behind a carrier.
    Carried(Arc<CarriedMethod>),
}

/// An auth method behind a carrier.
///
/// Offers and settings depend on nothing but the arguments, so that the same question is asked
/// once; an answer that failed is not kept.
pub struct CarriedMethod {
    id: String,
    carrier: Arc<dyn Carrier>,
    offers: Mutex<Vec<(ProviderInfo, Vec<Offer>)>>,
    settings: OnceLock<Option<SettingsSpec>>,
    /// Whether it offers to several providers in one call.
    together: bool,
}

impl CarriedMethod {
    pub(crate) fn new(
        id: String,
        carrier: Arc<dyn Carrier>,
        settings: Option<Option<SettingsSpec>>,
        together: bool,
    ) -> Self {
        let settings = settings.map_or_else(OnceLock::new, OnceLock::from);
        Self { id, carrier, offers: Mutex::default(), settings, together }
    }

    /// Names the method.
    #[cfg(feature = "host")]
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    async fn offers(&self, provider: &ProviderInfo) -> Result<Vec<Offer>, AuthError> {
        if let Some((_, offers)) = self.known().iter().find(|(known, _)| known == provider) {
            return Ok(offers.clone());
        }
        let call = HostCall::Offers { method: &self.id, provider };
        let answer: Result<Vec<Offer>, AuthError> = plain(&self.carrier, call).await;
        let offers = answer?;
        self.keep([(provider.clone(), offers.clone())]);
        Ok(offers)
    }

    /// Asks at once for what it offers to each of these providers, and keeps it. What fails is asked
    /// again one by one, and fails then where it is.
    async fn foresee(&self, providers: &[&ProviderInfo]) {
        let providers = &self.unknown(providers)[..];
        if !self.together || providers.is_empty() {
            return;
        }
        let call = HostCall::OffersOf { method: &self.id, providers };
        let answer: Result<Vec<Vec<Offer>>, AuthError> = plain(&self.carrier, call).await;
        if let Ok(offers) = answer
            && offers.len() == providers.len()
        {
            let providers = providers.iter().map(|provider| (*provider).clone());
            self.keep(providers.zip(offers));
        }
    }

    /// Returns its settings if they are known.
    #[cfg(feature = "host")]
    pub(crate) fn known_settings(&self) -> Option<&Option<SettingsSpec>> {
        self.settings.get()
    }

    /// Lends the answers that are known.
    pub(crate) fn known(&self) -> MutexGuard<'_, Vec<(ProviderInfo, Vec<Offer>)>> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Picks the providers about which it was not asked yet.
    pub(crate) fn unknown<'p>(&self, providers: &[&'p ProviderInfo]) -> Vec<&'p ProviderInfo> {
        let known = self.known();
        let new = |provider: &&&ProviderInfo| known.iter().all(|(one, _)| one != **provider);
        providers.iter().filter(new).copied().collect()
    }

    /// Keeps answers, so that nobody has to ask.
    pub(crate) fn keep(&self, more: impl IntoIterator<Item = (ProviderInfo, Vec<Offer>)>) {
        let mut kept = self.known();
        for one in more {
            if kept.len() == KEPT {
                kept.clear();
            }
            kept.push(one);
        }
    }

    async fn settings(&self) -> Result<Option<SettingsSpec>, AuthError> {
        if let Some(settings) = self.settings.get() {
            return Ok(settings.clone());
        }
        let call = HostCall::Settings { method: &self.id };
        let answer: Result<Option<SettingsSpec>, AuthError> = plain(&self.carrier, call).await;
        let settings = answer?;
        Ok(self.settings.get_or_init(|| settings).clone())
    }
}

impl MethodHandle {
    /// Names the method.
    pub fn id(&self) -> &str {
        match self {
            Self::Linked(method) => method.id(),
            Self::Carried(method) => &method.id,
        }
    }

    /// Lists what it offers for a provider.
    pub async fn offers(&self, provider: &ProviderInfo) -> Result<Vec<Offer>, AuthError> {
        match self {
            Self::Linked(method) => Ok(method.offers(provider)),
            Self::Carried(it) => it.offers(provider).await,
        }
    }

    /// Prepares for being asked what it offers for these providers. Costs one call where asking costs
    /// one for each, and nothing for a linked one.
    pub async fn foresee(&self, providers: &[&ProviderInfo]) {
        if let Self::Carried(it) = self {
            it.foresee(providers).await;
        }
    }

    /// Names its place under `auth` in the config.
    pub async fn settings(&self) -> Result<Option<SettingsSpec>, AuthError> {
        match self {
            Self::Linked(method) => Ok(method.settings()),
            Self::Carried(it) => it.settings().await,
        }
    }

    /// Obtains a credential. Dropping the future abandons the login on both sides.
    pub async fn login(&self, cx: &Cx<'_>) -> Result<Login, AuthError> {
        match self {
            Self::Linked(method) => method.login(cx).await,
            Self::Carried(it) => {
                drive(&it.carrier, HostCall::Login { method: &it.id, cx: cx.call }, Some(cx.host))
                    .await
            }
        }
    }

    /// Says what a stored credential is worth now.
    pub async fn resolve(&self, cx: &Cx<'_>, stored: &Credential) -> Result<Resolved, AuthError> {
        match self {
            Self::Linked(method) => method.resolve(cx, stored).await,
            Self::Carried(it) => {
                let credential = Exposed(stored);
                let call = HostCall::Resolve { method: &it.id, cx: cx.call, credential };
                drive(&it.carrier, call, Some(cx.host)).await
            }
        }
    }

    /// Says how `old` would be renewed, if it is due.
    pub async fn renew(
        &self,
        settings: &RenewSettings,
        old: &Credential,
        now: Timestamp,
    ) -> Result<Renewal, AuthError> {
        match self {
            Self::Linked(method) => method.renew(settings, old, now),
            Self::Carried(it) => {
                let credential = Exposed(old);
                let call = HostCall::Renew { method: &it.id, settings, credential, now };
                plain(&it.carrier, call).await
            }
        }
    }

    /// Reads the answer to a renewal.
    pub async fn renewed(
        &self,
        old: &Credential,
        reply: &RenewReply,
        received_at: Timestamp,
    ) -> Result<Credential, AuthError> {
        match self {
            Self::Linked(method) => method.renewed(old, reply, received_at),
            Self::Carried(it) => {
                let (credential, reply) = (Exposed(old), Exposed(reply));
                let call = HostCall::Renewed { method: &it.id, credential, reply, received_at };
                plain(&it.carrier, call).await
            }
        }
    }

    /// Renews by effects.
    pub async fn refresh(&self, cx: &Cx<'_>, old: &Credential) -> Result<Credential, AuthError> {
        match self {
            Self::Linked(method) => method.refresh(cx, old).await,
            Self::Carried(it) => {
                let credential = Exposed(old);
                let call = HostCall::Refresh { method: &it.id, cx: cx.call, credential };
                drive(&it.carrier, call, Some(cx.host)).await
            }
        }
    }

    /// Checks what only this method knows about.
    pub async fn doctor(
        &self,
        cx: &Cx<'_>,
        stored: &[Credential],
    ) -> Result<Vec<Finding>, AuthError> {
        match self {
            Self::Linked(method) => method.doctor(cx, stored).await,
            Self::Carried(it) => {
                let stored = stored.iter().map(Exposed).collect();
                let call = HostCall::Doctor { method: &it.id, cx: cx.call, stored };
                drive(&it.carrier, call, Some(cx.host)).await
            }
        }
    }
}

/// Makes a call that needs no effect.
pub(crate) async fn plain<T, E>(carrier: &Arc<dyn Carrier>, call: HostCall<'_, '_>) -> Result<T, E>
where
    T: DeserializeOwned + Send,
    E: CallError + Send,
{
    drive(carrier, call, None).await
}

/// Makes a call and performs the effects it needs, several at once if the plugin joined them.
async fn drive<T, E>(
    carrier: &Arc<dyn Carrier>,
    call: HostCall<'_, '_>,
    host: Option<&dyn Host>,
) -> Result<T, E>
where
    T: DeserializeOwned + Send,
    E: CallError + Send,
{
    let carrier = &session(carrier)?;
    let mut step: Step<T, E> = turn(carrier, encode(&HostMessage::Start { call })).await?;
    let mut open = OpenTask { carrier, task: None };
    let mut performing = Performing { host, pending: Vec::new() };
    for _ in 0..MAX_STEPS {
        match step {
            Step::Done { value } => {
                open.task = None;
                return Ok(value);
            }
            Step::Fail { error } => {
                open.task = None;
                return Err(error);
            }
            Step::Need { task, effects, waiting, events: _ } => {
                open.task = Some(task);
                performing.update(effects, &waiting);
                if performing.pending.is_empty() {
                    return Err(E::plugin("it waits, and asks for nothing"));
                }
                let replies = performing.some().await;
                let message = HostMessage::Resume { task, replies: &replies, chunk: None };
                step = turn(carrier, encode(&message)).await?;
            }
            Step::Unknown => {
                return Err(E::plugin("its step is of a kind this version does not know"));
            }
        }
    }
    Err(E::plugin("it asks the host without end"))
}

/// Returns what a task goes over, whatever becomes of the carrier's guest meanwhile.
pub(crate) fn session<E: CallError>(carrier: &Arc<dyn Carrier>) -> Result<Arc<dyn Carrier>, E> {
    match carrier.session() {
        Ok(session) => Ok(session.unwrap_or_else(|| carrier.clone())),
        Err(error) => Err(E::plugin(error.to_string())),
    }
}

pub(crate) async fn turn<T, E>(carrier: &Arc<dyn Carrier>, message: Packet) -> Result<Step<T, E>, E>
where
    T: DeserializeOwned,
    E: CallError,
{
    let failed = |error: CarrierError| E::plugin(error.to_string());
    let answer = carrier.turn(message).await.map_err(failed)?;
    decode(&answer).map_err(failed)
}

/// A task of the guest that has to be told when nobody waits for it any more.
pub(crate) struct OpenTask<'a> {
    pub(crate) carrier: &'a Arc<dyn Carrier>,
    pub(crate) task: Option<u64>,
}

impl Drop for OpenTask<'_> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            self.carrier.post(encode(&HostMessage::Drop { task }));
        }
    }
}

type Effecting<'a> = Pin<Box<dyn Future<Output = Result<Reply, HostError>> + Send + 'a>>;

/// The effects under way for one task.
struct Performing<'a> {
    host: Option<&'a dyn Host>,
    pending: Vec<(u64, Effecting<'a>)>,
}

impl Performing<'_> {
    /// Abandons what the plugin no longer waits for, and starts what is new.
    fn update(&mut self, effects: Vec<Needed>, waiting: &[u64]) {
        self.pending.retain(|(n, _)| waiting.contains(n));
        for Needed { n, effect } in effects {
            let host = self.host;
            self.pending.push((n, Box::pin(perform(host, effect))));
        }
    }

    /// Waits until at least one effect is over; returns all that are.
    async fn some(&mut self) -> Vec<Answer> {
        std::future::poll_fn(|context| {
            let mut answers = Vec::new();
            self.pending.retain_mut(|(n, effect)| match effect.as_mut().poll(context) {
                Poll::Ready(outcome) => {
                    answers.push(Answer::new(*n, outcome));
                    false
                }
                Poll::Pending => true,
            });
            if answers.is_empty() { Poll::Pending } else { Poll::Ready(answers) }
        })
        .await
    }
}

async fn perform(host: Option<&dyn Host>, effect: Effect) -> Result<Reply, HostError> {
    match (host, effect) {
        (_, Effect::Unknown) => {
            Err(HostError::Unsupported { what: "an effect of a newer version".to_string() })
        }
        (Some(host), effect) => host.perform(effect).await,
        (None, _) => Err(HostError::Denied { reason: "this call may ask for nothing".to_string() }),
    }
}
