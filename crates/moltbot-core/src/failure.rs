//! What went wrong, whose fault it was and for how long.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Header, Text, Timestamp};

/// How an exchange ended that did not succeed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
#[non_exhaustive]
pub enum Ended {
    /// With an HTTP status other than 2xx.
    Http {
        /// The status.
        status: u16,
        /// The headers.
        headers: Vec<Header<'static>>,
        /// The body, at most 64 KiB of it.
        body: String,
    },
    /// With an error event after a 2xx, or with a reply that broke off (`body` is `null`).
    Event {
        /// The service's word.
        kind: String,
        /// The service's message.
        message: String,
        /// The event as sent.
        body: Value,
        /// The headers of the reply.
        headers: Vec<Header<'static>>,
    },
    /// Before any reply.
    Network {
        /// What failed.
        what: NetworkFault,
        /// In words.
        message: String,
    },
    /// A child process ended or answered an error.
    Child {
        /// Its exit code, if it ended by itself.
        exit: Option<i32>,
        /// The end of what it complained about.
        stderr_tail: String,
        /// The last thing it said.
        last_event: Value,
    },
    /// An end of a newer version.
    #[serde(other)]
    Unknown,
}

/// What failed before any reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NetworkFault {
    /// No connection came about.
    Connect,
    /// It took too long.
    Timeout,
    /// The connection broke.
    Broken,
    /// Anything else.
    #[serde(other)]
    Other,
}

/// A classified failure: what, whose, until when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// What sort.
    pub kind: FailureKind,
    /// Whom it concerns.
    pub scope: Scope,
    /// Until when, if the service said so. The host caps it.
    #[serde(default)]
    pub reset: Option<Timestamp>,
    /// The account, if the limit is shared by all its profiles.
    #[serde(default)]
    pub account: Option<String>,
    /// The stable code for `moltbot explain`.
    pub code: Text,
    /// The service's own words, for people.
    pub message: String,
    /// What the user can do, if the provider knows better than the code.
    #[serde(default)]
    pub advice: Option<Text>,
}

/// What sort of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// The credential is refused.
    Auth,
    /// Somebody has to pay first.
    Billing,
    /// Too much in too short a time, or a limit is used up.
    RateLimit,
    /// The service is too busy, whoever asks.
    Overloaded,
    /// It took too long.
    Timeout,
    /// The service or the way to it is broken.
    Server,
    /// There is no such model, or not for this account.
    ModelNotFound,
    /// The conversation is too long.
    ContextOverflow,
    /// The request is wrong.
    Format,
    /// The request was refused for what it says.
    Refused,
    /// Nobody knows.
    #[serde(other)]
    Unknown,
}

impl FailureKind {
    /// Returns the word of the store's `failureCounts` and of messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Billing => "billing",
            Self::RateLimit => "rate_limit",
            Self::Overloaded => "overloaded",
            Self::Timeout => "timeout",
            Self::Server => "server",
            Self::ModelNotFound => "model_not_found",
            Self::ContextOverflow => "context_overflow",
            Self::Format => "format",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// Whom a failure concerns, hence what is avoided and what is tried next (decision "Failure
/// scope").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Scope {
    /// This request: nothing else would help.
    Request,
    /// The model, for everybody: the next model.
    Model,
    /// The model with this profile: the next profile.
    ProfileModel,
    /// The profile, whatever the model: the next profile.
    Profile,
    /// The service: the next model, nobody is punished.
    #[serde(other)]
    Upstream,
}
