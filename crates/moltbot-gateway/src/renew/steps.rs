//! The steps of a renewal, in the order of decision "Refresh" and no other: lease, re-read, what an
//! interrupted renewal left, is it due, journal, send, keep the answer, read it, store it, remove
//! the journal.

use std::path::PathBuf;
use std::sync::Arc;

use moltbot_config::Config;
use moltbot_core::{
    AuthError, AuthMethod, Credential, CredentialState, Cx, Generation, HttpRequest, OfferEntry,
    Registry, RenewSettings, Renewal, Resolved, Timestamp, redact,
};
use moltbot_profiles::{
    Cause, FailedRenewal, JournalHead, Lease, Recovery, Store, StoreError, early_renewal_at,
    is_newer, recovery, standard_method,
};

use super::flight::Flights;
use super::send::{Unanswered, send};
use super::{How, Refreshed, RenewError, Renewed};
use crate::host::{EffectHost, HostParts};
use crate::methods::Methods;
use crate::select::ProfileView;

/// How often a commit is started anew when somebody edits the store by hand.
const COMMITS: u32 = 5;

/// How often a login is looked at: a journal may hold an answer that has expired since.
const LOOKS: u32 = 3;

/// A renewal that needs nothing of its caller any more.
pub(super) struct Work {
    pub(super) registry: &'static Registry,
    pub(super) config: Arc<Config>,
    pub(super) host: HostParts,
    pub(super) store: Arc<dyn Store>,
    pub(super) flights: Flights,
    pub(super) id: String,
    pub(super) at_hand: Option<Resolved>,
    pub(super) how: How,
}

/// What was read of the login.
struct Read {
    stored: Credential,
    resolved: Resolved,
    entry: Option<OfferEntry>,
}

impl Read {
    /// Returns who renews it: the method it belongs to, else the standard one if that may.
    fn method(&self) -> Option<&'static dyn AuthMethod> {
        self.entry.map(|entry| entry.method).or_else(|| standard_method(&self.stored))
    }
}

impl Work {
    /// Goes through all steps. A failure never changes the store.
    pub(super) async fn run(self) -> Result<Renewed, RenewError> {
        let before = self.read().await?;
        let at_hand = self.at_hand.clone().unwrap_or_else(|| before.resolved.clone());
        // Who asks by hand wants an interrupted renewal to be finished as well.
        if self.how != How::Asked
            && let Some(done) = self.nothing_to_do(&before, &at_hand)
        {
            return Ok(done);
        }
        let external = self.external(before.entry)?;
        let mut lease = self.store.lease(&self.id, external.as_deref(), self.now()).await?;
        for _ in 0..LOOKS {
            let read = self.read().await?;
            if is_newer(&at_hand, &read.resolved, self.now()) {
                return Ok(adopted(read.resolved));
            }
            match self.recover(&mut *lease, &read).await? {
                Recovered::Nothing { retry } => {
                    return self.renew(&mut *lease, read, &at_hand, retry).await;
                }
                Recovered::Login(credential) => {
                    let resolved = Resolved::judged(*credential, self.now());
                    if resolved.state == CredentialState::Ready {
                        return Ok(renewed(resolved));
                    }
                }
                Recovered::Superseded => {}
            }
        }
        let reason = "the login keeps changing while it is renewed".to_string();
        Err(AuthError::Transient { reason }.into())
    }

    /// Finishes or discards what an interrupted renewal left.
    async fn recover(&self, lease: &mut dyn Lease, read: &Read) -> Result<Recovered, RenewError> {
        let journal = lease.journal().await?;
        let speaker = read.method();
        let method = speaker.map_or("", |speaker| speaker.id());
        let generation = Generation::of(&read.stored);
        match (recovery(&journal, &generation, method), speaker) {
            (Recovery::Nothing, _) => Ok(Recovered::Nothing { retry: false }),
            (Recovery::Retry, _) => Ok(Recovered::Nothing { retry: true }),
            (Recovery::Discard, _) => {
                lease.close().await?;
                Ok(Recovered::Nothing { retry: false })
            }
            (Recovery::Adopt { reply, received_at }, Some(speaker)) => {
                match speaker.renewed(&read.stored, &reply, received_at) {
                    Ok(credential) => self.store_login(lease, &generation, credential).await,
                    Err(error @ AuthError::LoginAgain { .. }) => {
                        self.record_spent(lease, &generation, &error).await?;
                        Err(error.into())
                    }
                    Err(_) => {
                        lease.close().await?;
                        Ok(Recovered::Nothing { retry: false })
                    }
                }
            }
            (Recovery::Adopt { .. }, None) | (Recovery::Foreign { .. }, _) => {
                let name = match recovery(&journal, &generation, method) {
                    Recovery::Foreign { method } => method,
                    _ => "that began it".into(),
                };
                let what = format!(
                    "finishing the interrupted renewal of {} without the method {name}",
                    self.id
                );
                Err(AuthError::Unsupported { what }.into())
            }
        }
    }

    async fn renew(
        &self,
        lease: &mut dyn Lease,
        read: Read,
        at_hand: &Resolved,
        retry: bool,
    ) -> Result<Renewed, RenewError> {
        if let Some(done) = self.nothing_to_do(&read, at_hand) {
            return Ok(done);
        }
        let Some(method) = read.method() else {
            let what = format!("renewing {}", self.id);
            return Err(AuthError::Unsupported { what }.into());
        };
        let methods = self.methods();
        let force = !matches!(self.how, How::Due | How::Asked);
        let settings = methods.renew_settings(method, &read.stored.provider, force);
        let renewal = method.renew(&settings, &read.resolved.credential, self.now())?;
        if let Renewal::NotDue {} = renewal {
            return Ok(not_due(read.resolved));
        }
        self.check_pause(lease, &read.resolved.generation).await?;
        let done = match (renewal, read.entry) {
            (Renewal::Http { request }, _) => {
                self.by_request(lease, &read, method, &settings, request, retry).await
            }
            (Renewal::Run {}, Some(entry)) => self.by_run(lease, &read, entry).await,
            _ => {
                let what = format!("this way of renewing {}", self.id);
                return Err(AuthError::Unsupported { what }.into());
            }
        };
        if done.is_ok() {
            self.flights.remember(&self.id, None);
            lease.remember(None).await;
        }
        done
    }

    /// Renews by one request, whose answer is on disk before anybody looks at it.
    async fn by_request(
        &self,
        lease: &mut dyn Lease,
        read: &Read,
        method: &'static dyn AuthMethod,
        settings: &RenewSettings,
        request: HttpRequest,
        retry: bool,
    ) -> Result<Renewed, RenewError> {
        let generation = Generation::of(&read.stored);
        let url = super::send::destination(&request, settings.token_url.as_deref())?;
        let head = JournalHead {
            profile: self.id.clone(),
            method: method.id().to_string(),
            method_version: read
                .entry
                .map_or(env!("CARGO_PKG_VERSION").to_string(), |it| it.plugin.version.to_string()),
            generation: generation.clone(),
            opened_at: self.now(),
            retry,
        };
        lease.open(&head).await?;
        let (reply, connection) = match send(&self.host.http, url, &request).await {
            Ok(heard) => heard,
            Err(Unanswered { error, sent }) => {
                // What was sent may have been heard: the journal stays and says so.
                if !sent && !retry {
                    lease.close().await?;
                }
                return Err(self.failed(lease, generation, error).await);
            }
        };
        let received_at = self.now();
        let kept = lease.keep(&reply, received_at).await;
        drop(connection);
        match method.renewed(&read.stored, &reply, received_at) {
            Ok(credential) => {
                // Even an answer that is not in the journal is worth storing.
                match self.store_login(lease, &generation, credential).await? {
                    Recovered::Login(credential) => {
                        let resolved = Resolved::judged(*credential, self.now());
                        if resolved.state == CredentialState::Ready {
                            return Ok(renewed(resolved));
                        }
                        let reason = "the renewed login is not usable".to_string();
                        Err(self.failed(lease, generation, AuthError::Transient { reason }).await)
                    }
                    _ => self.superseded().await,
                }
            }
            Err(AuthError::LoginAgain { reason, hint }) => {
                let now_stored = self.read().await?;
                if Generation::of(&now_stored.stored) != generation {
                    lease.close().await?;
                    return self.superseded().await;
                }
                let reason = match retry {
                    true => format!(
                        "{reason} (the refresh token may be spent by the interrupted renewal)"
                    ),
                    false => reason,
                };
                let error = AuthError::LoginAgain { reason, hint };
                self.record_spent(lease, &generation, &error).await?;
                Err(self.failed(lease, generation, error).await)
            }
            Err(error) => {
                kept?;
                lease.close().await?;
                Err(self.failed(lease, generation, error).await)
            }
        }
    }

    /// Renews by effects: mostly, the owner's program renews its own login.
    async fn by_run(
        &self,
        lease: &mut dyn Lease,
        read: &Read,
        entry: OfferEntry,
    ) -> Result<Renewed, RenewError> {
        let methods = self.methods();
        let call = methods.call(&entry, None);
        let host = EffectHost::of_profile(&self.host, &entry.offer.needs, &read.stored);
        let cx = Cx::new(&host, &call);
        let generation = read.resolved.generation.clone();
        let refreshed = entry.method.refresh(&cx, &read.resolved.credential).await;
        let checked = refreshed.and_then(|made| {
            host.check_named(&made)?;
            Ok(made)
        });
        let credential = match checked {
            Ok(credential) => credential,
            Err(error) => return Err(self.failed(lease, generation, error).await),
        };
        if !entry.offer.caps.external {
            let stored = Generation::of(&read.stored);
            if !self.commit(&stored, &credential).await? {
                return self.superseded().await;
            }
        }
        let resolved = Resolved::judged(credential, self.now());
        if resolved.state != CredentialState::Ready {
            let reason = "the renewed login is not usable".to_string();
            return Err(self.failed(lease, generation, AuthError::Transient { reason }).await);
        }
        Ok(renewed(resolved))
    }

    /// Stores a renewed login and removes the journal that holds it.
    async fn store_login(
        &self,
        lease: &mut dyn Lease,
        before: &Generation,
        credential: Credential,
    ) -> Result<Recovered, RenewError> {
        let stored = self.commit(before, &credential).await?;
        // A journal that stays is of another generation now, hence discarded by the next one.
        let _ = lease.close().await;
        Ok(if stored { Recovered::Login(Box::new(credential)) } else { Recovered::Superseded })
    }

    /// Writes a renewed login, unless another one took its place meanwhile: the newest wins.
    async fn commit(
        &self,
        before: &Generation,
        credential: &Credential,
    ) -> Result<bool, RenewError> {
        let mut tries = 1;
        loop {
            let mut locked = self.store.lock(self.now()).await?;
            match locked.profiles.get(&self.id) {
                Some(current) if Generation::of(current) != *before => return Ok(false),
                Some(_) => {}
                // Who removes a login leaves a store without it. Without any store, this is the
                // only copy of a login that nobody gave up.
                None if locked.is_new() => {}
                None => return Err(RenewError::Gone),
            }
            locked.profiles.insert(self.id.clone(), credential.clone());
            match locked.commit_for(Cause::renewed()).await {
                Err(StoreError::Changed { .. }) if tries < COMMITS => tries += 1,
                done => return Ok(done.map(|_| true)?),
            }
        }
    }

    /// Records what the service said of a login, then gives its journal up.
    async fn record_spent(
        &self,
        lease: &mut dyn Lease,
        generation: &Generation,
        error: &AuthError,
    ) -> Result<(), RenewError> {
        let now = self.now();
        let failure =
            FailedRenewal { generation: generation.clone(), at: now, error: redacted(error) };
        lease.remember(Some(&failure)).await;
        // A log that cannot be written must not hide the true cause.
        let _ = self.store.record_spent(&self.id, generation, now).await;
        lease.close().await?;
        Ok(())
    }

    /// Remembers a failed attempt, for a minute and for every process.
    async fn failed(
        &self,
        lease: &mut dyn Lease,
        generation: Generation,
        error: AuthError,
    ) -> RenewError {
        if !matches!(error, AuthError::Cancelled {}) {
            let failure = FailedRenewal { generation, at: self.now(), error: redacted(&error) };
            lease.remember(Some(&failure)).await;
            self.flights.remember(&self.id, Some(failure));
        }
        error.into()
    }

    /// Refuses an attempt that follows a failed one too soon; who asks by hand may.
    async fn check_pause(
        &self,
        lease: &dyn Lease,
        generation: &Generation,
    ) -> Result<(), RenewError> {
        if self.how == How::Forced {
            return Ok(());
        }
        let now = self.now();
        let elsewhere = lease.last_failure().await;
        let elsewhere = elsewhere.filter(|failed| failed.rests_until(generation, now).is_some());
        let Some(failed) = self.flights.resting(&self.id, generation, now).or(elsewhere) else {
            return Ok(());
        };
        let until = failed.rests_until(generation, now).unwrap_or(now);
        Err(RenewError::Auth(match failed.error {
            AuthError::Transient { reason } => AuthError::Transient {
                reason: format!(
                    "{reason} (asked {} s ago, will be asked again in {} s)",
                    now.since(failed.at) / 1_000,
                    (until.since(now) + 999) / 1_000
                ),
            },
            error => error,
        }))
    }

    /// Returns what there is if nothing needs to be renewed.
    fn nothing_to_do(&self, read: &Read, at_hand: &Resolved) -> Option<Renewed> {
        let now = self.now();
        if is_newer(at_hand, &read.resolved, now) {
            return Some(adopted(read.resolved.clone()));
        }
        let ready = read.resolved.state == CredentialState::Ready;
        let rests = match self.how {
            How::Forced | How::Refused => false,
            How::Due | How::Asked => ready,
            How::Early { seed } => {
                let expires = read.resolved.credential.expiry();
                ready && expires.is_none_or(|at| now < early_renewal_at(at, &self.id, seed))
            }
        };
        rests.then(|| not_due(read.resolved.clone()))
    }

    /// After somebody else put another login in place: that one is used.
    async fn superseded(&self) -> Result<Renewed, RenewError> {
        let read = self.read().await?;
        match read.resolved.state {
            CredentialState::Ready => Ok(adopted(read.resolved)),
            _ => {
                let reason = "another login took its place, which cannot be used".to_string();
                Err(AuthError::Transient { reason }.into())
            }
        }
    }

    async fn read(&self) -> Result<Read, RenewError> {
        let profiles = self.store.load().await?.profiles;
        let stored = profiles.get(&self.id).ok_or(RenewError::Gone)?.clone();
        let view = ProfileView::read(&self.methods(), &self.id, &stored).await;
        if let Some(message) = view.missing_plugin {
            return Err(AuthError::Other { message }.into());
        }
        Ok(Read { stored, resolved: view.resolved?, entry: view.offer })
    }

    /// Returns the file in which another program keeps the login.
    fn external(&self, entry: Option<OfferEntry>) -> Result<Option<PathBuf>, RenewError> {
        let Some(entry) = entry.filter(|entry| entry.offer.caps.external) else { return Ok(None) };
        let host = EffectHost::new(&self.host, &entry.offer.needs);
        let files = entry.offer.needs.files.iter().filter_map(|file| host.locate(file).ok());
        Ok(files.into_iter().find(|file| file.parent().is_some_and(std::path::Path::is_dir)))
    }

    fn methods(&self) -> Methods<'_> {
        Methods { registry: self.registry, config: &self.config, host: &self.host }
    }

    fn now(&self) -> Timestamp {
        self.host.clock.now()
    }
}

/// What became of an interrupted renewal.
enum Recovered {
    /// There was none, or it is of no use; `retry`: its request may have been sent.
    Nothing { retry: bool },
    /// It is finished.
    Login(Box<Credential>),
    /// Another login is stored now.
    Superseded,
}

/// Takes everything that looks like a secret out of an error, so that it can be written down.
fn redacted(error: &AuthError) -> AuthError {
    let clean = |text: &str| redact(text).into_owned();
    match error {
        AuthError::LoginAgain { reason, hint } => {
            AuthError::LoginAgain { reason: clean(reason), hint: clean(hint) }
        }
        other => AuthError::Transient { reason: clean(&other.to_string()) },
    }
}

fn not_due(resolved: Resolved) -> Renewed {
    let expires = resolved.credential.expiry();
    (resolved, Refreshed::NotDue { expires })
}

fn adopted(resolved: Resolved) -> Renewed {
    let expires = resolved.credential.expiry();
    (resolved, Refreshed::Adopted { expires })
}

fn renewed(resolved: Resolved) -> Renewed {
    let expires = resolved.credential.expiry();
    (resolved, Refreshed::Renewed { expires })
}
