//! Renews a login: one renewal at a time among all tasks and processes, re-reading first, storing
//! last, so that no answer of a token endpoint is ever lost (spec, decision
//! "Refresh").
//!
//! [`flight`] joins the tasks of this process, the store's lease the processes, [`steps`] is the
//! order of what happens.

mod early;
mod flight;
mod send;
mod steps;

use moltbot_core::{AuthError, Resolved, Timestamp};
use moltbot_profiles::{
    AuthRules, Profiles, RepairHint, StoreError, refresh_failed_message, suggested_sibling,
};

pub(crate) use self::flight::Flights;
use self::steps::Work;
use crate::engine::Engine;

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

/// Why a renewal is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// If it has expired.
    Due,
    /// The service refused it, although it looks good.
    Refused,
    /// A person asks whether it has expired, and for an interrupted renewal to be finished.
    Asked,
    /// A person wants it.
    Forced,
    /// If it ends soon; `seed` spreads the moment.
    Early {
        /// Differs between processes.
        seed: u64,
    },
}

/// What a login is worth after its renewal, and what was done.
pub(crate) type Renewed = (Resolved, Refreshed);

/// Renews one profile, unless somebody did so meanwhile. Returns what it is worth afterwards.
///
/// Who drops this future gives up waiting; a renewal under way goes on.
pub(crate) async fn renew(
    engine: &Engine,
    id: &str,
    at_hand: Option<&Resolved>,
    how: How,
) -> Result<Renewed, RenewError> {
    loop {
        let work = || {
            let work = Work {
                registry: engine.registry,
                config: engine.config.clone(),
                host: engine.host.clone(),
                store: engine.store.clone(),
                flights: engine.flights().clone(),
                id: id.to_string(),
                at_hand: at_hand.cloned(),
                how,
            };
            work.run()
        };
        let (outcome, started) = engine.flights().join(id, work).await;
        // Somebody else's flight may have had less reason than this one.
        let too_little = matches!(outcome, Ok((_, Refreshed::NotDue { .. })))
            && !matches!(how, How::Due | How::Asked);
        if started || !too_little {
            return outcome;
        }
    }
}
