//! Makes a carried plugin look like a linked one: the same traits, and a `&'static Plugin` that a
//! registry takes. What it says about itself is looked at first, because flags, choices and
//! profiles are grown from it.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use moltbot_core::{
    AuthError, AuthMethod, ChatView, Credential, CredentialKind, CredentialView, Cx, Decoder,
    DecoderMode, Ended, Event, Exchange, Failure, FailureKind, Finding, Header, Login, Observed,
    Offer, Plugin, Provider, ProviderCaps, ProviderError, ProviderInfo, RenewReply, RenewSettings,
    Renewal, Resolved, Scope, SettingsSpec, Timestamp,
};
use serde_json::Value;

use super::kept::Origin;
use super::{LoadError, wait};
use crate::{CarriedMethod, DecoderHandle, MethodHandle, PluginHandle, ProviderHandle};

/// The longest name that a plugin may give to anything, in bytes.
const MAX_NAME: usize = 64;

/// A carried plugin, ready for a registry.
pub struct Carried {
    plugin: &'static Plugin,
    methods: Vec<Arc<CarriedMethod>>,
    complaints: Complaints,
    origin: Arc<Origin>,
    /// How many answers came from what is kept.
    recalled: AtomicUsize,
}

/// What a plugin did wrong while it was asked what nobody may fail at.
#[derive(Clone, Default)]
struct Complaints(Arc<Mutex<Vec<String>>>);

impl Carried {
    /// Looks at a plugin and adapts it. Its description lives as long as the process; so does its
    /// carrier.
    pub(crate) fn new(handle: PluginHandle, origin: Arc<Origin>) -> Result<Self, LoadError> {
        let unusable = |reason: String| LoadError::Unusable { reason };
        name("plugin id", &handle.id).map_err(unusable)?;
        let complaints = Complaints::default();
        let carried = |method: &MethodHandle| match method {
            MethodHandle::Carried(carried) => Some(carried.clone()),
            MethodHandle::Linked(_) => None,
        };
        let methods = handle.methods.iter().filter_map(carried).collect();
        let mut auth: Vec<&'static dyn AuthMethod> = Vec::new();
        for method in handle.methods {
            name("auth method", method.id()).map_err(unusable)?;
            let complaints = complaints.clone();
            auth.push(Box::leak(Box::new(Method { handle: method, complaints })));
        }
        let mut providers: Vec<&'static dyn Provider> = Vec::new();
        for provider in handle.providers {
            let info = wait(provider.info()).map_err(|error| unusable(error.to_string()))?;
            for id in std::iter::once(&info.id).chain(&info.legacy_ids) {
                name("provider", id).map_err(unusable)?;
            }
            let complaints = complaints.clone();
            providers.push(Box::leak(Box::new(Translator { handle: provider, info, complaints })));
        }
        let plugin = Plugin {
            id: handle.id.leak(),
            version: handle.version.leak(),
            about: handle.about.leak(),
            core: handle.core.leak(),
            auth: auth.leak(),
            providers: providers.leak(),
            codes: handle.codes.leak(),
        };
        let plugin = Box::leak(Box::new(plugin));
        Ok(Self { plugin, methods, complaints, origin, recalled: AtomicUsize::new(0) })
    }

    /// Prepares for being asked what it offers for these providers: from what is kept, else by one
    /// call, which otherwise are one for each of them.
    pub fn foresee(&self, providers: &[&ProviderInfo]) {
        for method in &self.methods {
            if self.origin.kept.is_some() {
                for provider in method.unknown(providers) {
                    if let Some(offers) = self.origin.offers(method.id(), provider) {
                        method.keep([(provider.clone(), offers)]);
                        self.recalled.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            wait(MethodHandle::Carried(method.clone()).foresee(providers));
        }
    }

    /// Returns where it came from.
    pub(crate) fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// Tells whether more is known than was kept.
    pub(crate) fn has_news(&self) -> bool {
        let known: usize = self.methods.iter().map(|method| method.known().len()).sum();
        let described = self.origin.hello.plugins.iter().find(|it| it.id == self.plugin.id);
        let untold = described.is_some_and(|it| it.settings.len() != it.methods.len());
        known != self.recalled.load(Ordering::Relaxed) || untold && self.known_settings().is_some()
    }

    /// Returns the settings of each method, if all are known.
    pub(crate) fn known_settings(&self) -> Option<Vec<Option<SettingsSpec>>> {
        self.methods.iter().map(|method| method.known_settings().cloned()).collect()
    }

    /// Lists all that its methods are known to offer, and to whom.
    pub(crate) fn known_offers(&self) -> Vec<(String, ProviderInfo, Vec<Offer>)> {
        let mut all = Vec::new();
        for method in &self.methods {
            let known = method.known();
            let one = |(provider, offers): &(ProviderInfo, Vec<Offer>)| {
                (method.id().to_string(), provider.clone(), offers.clone())
            };
            all.extend(known.iter().map(one));
        }
        all
    }

    /// Returns the plugin.
    pub fn plugin(&self) -> &'static Plugin {
        self.plugin
    }

    /// Returns what it did wrong so far; empty if nothing.
    ///
    /// Look at it after a registry was made: an offer that cannot be used is left out there and
    /// named here.
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Carried({:?})", self.plugin)
    }
}

impl Complaints {
    fn add(&self, reason: impl fmt::Display) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = reason.to_string();
        // One line each is enough, and a plugin may be asked for ever.
        if list.len() < 16 && !list.contains(&reason) {
            list.push(reason);
        }
    }
}

struct Method {
    handle: MethodHandle,
    complaints: Complaints,
}

#[async_trait]
impl AuthMethod for Method {
    fn id(&self) -> &str {
        self.handle.id()
    }

    fn offers(&self, provider: &ProviderInfo) -> Vec<Offer> {
        let offers = wait(self.handle.offers(provider)).unwrap_or_else(|error| {
            self.complaints.add(error);
            Vec::new()
        });
        let sound = |offer: &Offer| match check(offer) {
            Ok(()) => true,
            Err(reason) => {
                self.complaints.add(reason);
                false
            }
        };
        offers.into_iter().filter(sound).collect()
    }

    fn settings(&self) -> Option<SettingsSpec> {
        wait(self.handle.settings()).unwrap_or_else(|error| {
            self.complaints.add(error);
            None
        })
    }

    async fn login(&self, cx: &Cx<'_>) -> Result<Login, AuthError> {
        self.handle.login(cx).await
    }

    async fn resolve(&self, cx: &Cx<'_>, stored: &Credential) -> Result<Resolved, AuthError> {
        self.handle.resolve(cx, stored).await
    }

    fn renew(
        &self,
        settings: &RenewSettings,
        old: &Credential,
        now: Timestamp,
    ) -> Result<Renewal, AuthError> {
        wait(self.handle.renew(settings, old, now))
    }

    fn renewed(
        &self,
        old: &Credential,
        reply: &RenewReply,
        received_at: Timestamp,
    ) -> Result<Credential, AuthError> {
        wait(self.handle.renewed(old, reply, received_at))
    }

    async fn refresh(&self, cx: &Cx<'_>, old: &Credential) -> Result<Credential, AuthError> {
        self.handle.refresh(cx, old).await
    }

    async fn doctor(&self, cx: &Cx<'_>, stored: &[Credential]) -> Result<Vec<Finding>, AuthError> {
        self.handle.doctor(cx, stored).await
    }
}

struct Translator {
    handle: ProviderHandle,
    info: ProviderInfo,
    complaints: Complaints,
}

impl Provider for Translator {
    fn info(&self) -> ProviderInfo {
        self.info.clone()
    }

    fn caps(&self, kind: &CredentialKind) -> ProviderCaps {
        wait(self.handle.caps(kind)).unwrap_or_else(|error| {
            self.complaints.add(error);
            ProviderCaps::default()
        })
    }

    fn request(
        &self,
        chat: &ChatView<'_>,
        with: &CredentialView<'_>,
        now: Timestamp,
    ) -> Result<Exchange, ProviderError> {
        wait(self.handle.request(chat, with, now))
    }

    fn failure(&self, ended: &Ended, now: Timestamp) -> Failure {
        wait(self.handle.failure(ended, now)).unwrap_or_else(|error| Failure {
            kind: FailureKind::Unknown,
            scope: Scope::Request,
            reset: None,
            account: None,
            code: "plugin-failed".into(),
            message: error.to_string(),
            advice: None,
        })
    }

    fn observe(&self, headers: &[Header<'_>], now: Timestamp) -> Observed {
        wait(self.handle.observe(headers, now)).unwrap_or_else(|error| {
            self.complaints.add(error);
            Observed::default()
        })
    }

    fn decoder(&self, mode: DecoderMode) -> Box<dyn Decoder> {
        Box::new(Decoding { state: wait(self.handle.decoder(mode)).map_err(Some), at: 0 })
    }
}

/// A decoder whose failure is the reply's.
struct Decoding {
    /// The error waits here until there is somewhere to say it.
    state: Result<DecoderHandle, Option<ProviderError>>,
    /// The last place that an event named.
    at: u64,
}

impl Decoding {
    fn step(&mut self, bytes: Option<&[u8]>, events: &mut Vec<Event>) {
        let known = events.len();
        let outcome = match (&mut self.state, bytes) {
            (Ok(decoder), Some(bytes)) => wait(decoder.push(bytes, events)),
            (Ok(decoder), None) => wait(decoder.end(events)),
            (Err(error), _) => error.take().map_or(Ok(()), Err),
        };
        for event in &events[known..] {
            if let Event::Began { at, .. }
            | Event::Ping { at }
            | Event::Error { at, .. }
            | Event::TurnEnd { at, .. } = event
            {
                self.at = *at;
            }
        }
        if let Err(error) = outcome {
            self.state = Err(None);
            let (kind, message) = ("plugin_error".to_string(), error.to_string());
            events.push(Event::Error { at: self.at, kind, message, body: Value::Null });
        }
    }
}

impl Decoder for Decoding {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) {
        self.step(Some(bytes), events);
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        self.step(None, events);
    }
}

/// Refuses an offer from which no sound command line can be grown.
fn check(offer: &Offer) -> Result<(), String> {
    for choice in std::iter::once(&offer.choice).chain(&offer.aliases) {
        name("auth choice", choice)?;
    }
    let Some((provider, rest)) = offer.profile.split_once(':') else {
        return Err(format!("the profile of {} is not of the form provider:name", offer.choice));
    };
    name("provider", provider)?;
    name("profile", rest)?;
    let verbs = offer.verbs.iter();
    for verb in verbs.clone() {
        name("verb", &verb.name)?;
    }
    for field in offer.fields.iter().chain(verbs.flat_map(|verb| &verb.fields)) {
        name("field", &field.id)?;
        if let Some(flag) = &field.flag {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if !flag.chars().all(plain) {
                return Err(format!("the flag {flag:?} is not of lower-case letters"));
            }
            name("flag", flag)?;
        }
    }
    Ok(())
}

/// Refuses a name that could not be typed, shown or stored as it is.
fn name(what: &str, text: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | '+');
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && text.len() <= MAX_NAME && text.chars().all(plain) {
        return Ok(());
    }
    let shown: String = text.chars().take(MAX_NAME).collect();
    Err(format!("its {what} {shown:?} is no plain name of at most {MAX_NAME} characters"))
}

#[cfg(test)]
mod tests {
    use moltbot_core::{Field, Verb};

    use super::*;

    fn offer() -> Offer {
        Offer { choice: "acme".into(), profile: "acme:default".into(), ..Offer::default() }
    }

    #[test]
    fn only_offers_that_can_be_typed_are_taken() {
        check(&offer()).unwrap();
        let flag = |flag: &'static str| {
            let field = Field { id: "key".into(), flag: Some(flag.into()), ..Field::default() };
            Offer { fields: vec![field], ..offer() }
        };
        check(&flag("acme-key")).unwrap();
        let verb = Verb { name: "two words".into(), ..Verb::default() };
        let wrong = [
            Offer { choice: "".into(), ..offer() },
            Offer { choice: "--yes".into(), ..offer() },
            Offer { choice: "a\u{1b}[2J".into(), ..offer() },
            Offer { aliases: vec!["x".repeat(65).into()], ..offer() },
            Offer { profile: "acme".into(), ..offer() },
            Offer { profile: "../x:default".into(), ..offer() },
            flag("Acme"),
            flag(""),
            flag("-x"),
            Offer { verbs: vec![verb], ..offer() },
        ];
        for offer in wrong {
            let reason = check(&offer).unwrap_err();
            assert!(!reason.contains('\u{1b}'), "{reason}");
        }
    }
}
