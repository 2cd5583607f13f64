//! Renews a login: once per process at a time, re-reading first, storing last (spec,
//! decision "Refresh").
//!
//! The lease between processes and the journal of the reply have their places marked by the order
//! of the steps in [`renew`]: the lease is taken where the flight is, the journal is written where
//! [`RenewReply`] is made, before anybody parses it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use moltbot_core::{
    AuthError, Credential, CredentialState, Cx, Generation, HttpRequest, RenewReply, Renewal,
    Resolved, Timestamp,
};
use moltbot_profiles::{
    AuthRules, Profiles, RepairHint, Store, StoreError, is_newer, refresh_failed_message,
    suggested_sibling,
};

use crate::clock::Clock;
use crate::host::exchange;
use crate::http::{origin, safe_url};
use crate::methods::Methods;
use crate::select::ProfileView;
use crate::update::update;

/// How long a token endpoint may take (spec A-22).
const RENEW_MS: u64 = 30_000;

/// What a renewal came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Refreshed {
    /// It is good for some time yet; nothing was done.
    NotDue {
        /// Until when.
        expires: Option<Timestamp>,
    },
    /// Somebody else had renewed it meanwhile.
    Adopted {
        /// Until when it is good now.
        expires: Option<Timestamp>,
    },
    /// It was renewed.
    Renewed {
        /// Until when it is good now.
        expires: Option<Timestamp>,
    },
}

/// Why a login could not be renewed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RenewError {
    /// The method, the service or its owner says so.
    Auth(AuthError),
    /// The store cannot be read or written.
    Store(StoreError),
    /// The profile has gone.
    Gone,
}

impl From<AuthError> for RenewError {
    fn from(error: AuthError) -> Self {
        Self::Auth(error)
    }
}

impl From<StoreError> for RenewError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl RenewError {
    /// Returns the code for `moltbot explain`.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Auth(AuthError::LoginAgain { .. }) => "login-needed",
            Self::Auth(AuthError::Cancelled {}) => "cancelled",
            Self::Auth(_) => "refresh-failed",
            Self::Store(error) => error.code(),
            Self::Gone => "profile-unknown",
        }
    }

    /// Says the true cause, without any secret.
    pub(crate) fn cause(&self) -> String {
        match self {
            Self::Auth(error) => moltbot_core::redact(&error.to_string()).into_owned(),
            Self::Store(error) => error.to_string(),
            Self::Gone => "the profile is not in the store any more".into(),
        }
    }

    /// Makes the whole message of spec A-25.
    pub(crate) fn message(
        &self,
        id: &str,
        provider: &str,
        profiles: &Profiles,
        rules: &AuthRules,
    ) -> String {
        let hint = suggested_sibling(profiles, rules, id).map(|suggested| RepairHint {
            config_id: id.to_string(),
            oauth_ids: profiles
                .of_provider(provider)
                .filter(|(_, stored)| stored.kind == moltbot_core::CredentialKind::Oauth)
                .map(|(id, _)| id.to_string())
                .collect(),
            suggested,
        });
        refresh_failed_message(provider, &self.cause(), hint.as_ref())
    }
}

/// Renewals under way in this process, by profile.
#[derive(Default)]
pub(crate) struct Flights(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Flights {
    fn of(&self, id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        flights.retain(|known, flight| known == id || Arc::strong_count(flight) > 1);
        flights.entry(id.to_string()).or_default().clone()
    }
}

/// Renews one profile, unless somebody did so meanwhile. Returns what it is worth afterwards.
///
/// A failure never changes the store.
pub(crate) async fn renew(
    methods: &Methods<'_>,
    store: &dyn Store,
    flights: &Flights,
    id: &str,
    at_hand: Option<&Resolved>,
    force: bool,
) -> Result<(Resolved, Refreshed), RenewError> {
    let flight = flights.of(id);
    let _alone = flight.lock().await;
    let profiles = store.load().await?.profiles;
    let stored = profiles.get(id).ok_or(RenewError::Gone)?;
    let view = ProfileView::read(methods, id, stored).await;
    if let Some(why) = view.missing_plugin {
        return Err(AuthError::Other { message: why }.into());
    }
    let now = methods.host.clock.now();
    let reread = view.resolved?;
    let expires = reread.credential.expiry();
    if at_hand.is_some_and(|old| is_newer(old, &reread, now)) {
        return Ok((reread, Refreshed::Adopted { expires }));
    }
    if reread.state == CredentialState::Ready && !force {
        return Ok((reread, Refreshed::NotDue { expires }));
    }
    let Some(entry) = view.offer else {
        let what = format!("renewing {id}");
        return Err(AuthError::Unsupported { what }.into());
    };
    let settings = methods.renew_settings(entry.method, &stored.provider, force);
    let external = entry.offer.caps.external;
    let renewed = match entry.method.renew(&settings, &reread.credential, now)? {
        Renewal::NotDue {} => return Ok((reread, Refreshed::NotDue { expires })),
        Renewal::Http { request } => {
            let reply = ask(methods, request, settings.token_url.as_deref()).await?;
            let received_at = methods.host.clock.now();
            entry.method.renewed(stored, &reply, received_at)?
        }
        Renewal::Run {} => {
            let call = methods.call(&entry, None);
            let host = methods.host_for(&entry.offer.needs);
            entry.method.refresh(&Cx::new(&host, &call), &reread.credential).await?
        }
        _ => {
            let what = format!("this way of renewing {id}");
            return Err(AuthError::Unsupported { what }.into());
        }
    };
    if !external {
        keep(store, &*methods.host.clock, id, &Generation::of(stored), &renewed).await?;
    }
    let resolved = Resolved::judged(renewed, methods.host.clock.now());
    let expires = resolved.credential.expiry();
    if resolved.state != CredentialState::Ready {
        let reason = "the renewed login is not usable".to_string();
        return Err(AuthError::Transient { reason }.into());
    }
    Ok((resolved, Refreshed::Renewed { expires }))
}

/// Sends the renewal to the endpoint of the user's own config, and nowhere else.
async fn ask(
    methods: &Methods<'_>,
    request: HttpRequest,
    token_url: Option<&str>,
) -> Result<RenewReply, AuthError> {
    let denied = |reason: String| AuthError::Denied {
        reason: format!("the renewal was not sent: {reason}"),
    };
    let url = safe_url(&request.url).map_err(denied)?;
    let configured = token_url.and_then(|text| safe_url(text).ok());
    if configured.is_none_or(|configured| origin(&configured) != origin(&url)) {
        return Err(denied("its address is not the one of auth.oauth in the config".into()));
    }
    let limit = request.timeout_ms.unwrap_or(RENEW_MS).min(RENEW_MS);
    let reply = exchange(&methods.host.http, url, &request, limit).await?;
    Ok(RenewReply { status: reply.status, body: reply.body })
}

/// Stores a renewed login, unless another one took its place meanwhile: the newest wins.
async fn keep(
    store: &dyn Store,
    clock: &dyn Clock,
    id: &str,
    before: &Generation,
    renewed: &Credential,
) -> Result<(), RenewError> {
    let kept = update(store, clock, |profiles| {
        let current = profiles.get(id).ok_or(RenewError::Gone)?;
        if Generation::of(current) == *before {
            profiles.insert(id, renewed.clone());
        }
        Ok(())
    });
    kept.await?
}
