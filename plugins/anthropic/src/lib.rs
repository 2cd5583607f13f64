//! The Anthropic Messages API as a provider: requests by kind of credential, replies as events,
//! failures as data, models with prices.
//!
//! ```
//! use moltbot_core::{CredentialKind, Provider};
//! use moltbot_plugin_anthropic::Anthropic;
//!
//! let info = Anthropic.info();
//! assert_eq!(info.model("claude-opus-4-5-20251101").unwrap().id, "claude-opus-4-5");
//! assert_eq!(Anthropic.caps(&CredentialKind::ApiKey).cache_ttl, ["5m", "1h"]);
//! ```
//!
//! # Invariants
//!
//! - One credential header per request: `x-api-key` for keys, `authorization` for logins and
//!   tokens, never both; whatever else a client sent as a credential is dropped.
//! - A forwarded request keeps every byte except: credential, model id, cache lifetimes asked for
//!   in the config, betas that the credential needs, the accepted encoding, and, with a login or
//!   token, headers that name the client. Each of these is listed in `changed`.
//! - No request poses as another product (decision 4).
//! - A failure is classified by status and `error.type`, then by the *message field* of the reply;
//!   request ids, quoted text and model names decide nothing. The tables are data: `errors.rs`.
//! - Everything about logins and subscription tokens stands in `bearer.rs`, behind the feature
//!   `bearer`; without it such credentials are refused here.
//! - Deliberately absent: sending, retrying, composing bodies (the host's), renewing (auth
//!   methods').

#[cfg(feature = "bearer")]
mod bearer;
mod catalog;
mod codes;
mod decoder;
mod errors;
mod failure;
mod glance;
mod info;
mod limits;
mod message;
mod request;

use moltbot_core::{
    ChatView, CredentialKind, CredentialView, Decoder, DecoderMode, Ended, Exchange, Failure,
    Header, Observed, Provider, ProviderCaps, ProviderError, ProviderInfo, Timestamp,
};

/// Translates between chats and the Messages API of Anthropic, or of anybody who speaks it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anthropic;

moltbot_core::plugin! { providers: [Anthropic], codes: [
    codes::BETA_REFUSED,
    codes::CACHE_BREAKPOINTS,
    codes::CLIENT_TOO_OLD,
    codes::CONTENT_FILTER,
    codes::EDGE_REFUSED,
    codes::EXTRA_USAGE,
    codes::ORGANIZATION_DISABLED,
    codes::PARAMETER_REFUSED,
    codes::SPEND_LIMIT,
    codes::THINKING_BLOCKS,
    codes::THIRD_PARTY_REFUSED,
    codes::THROTTLED,
    codes::TOKEN_EXPIRED,
    codes::TOKEN_SCOPE,
    codes::USAGE_CREDITS,
] }

impl Provider for Anthropic {
    fn info(&self) -> ProviderInfo {
        info::info()
    }

    fn caps(&self, kind: &CredentialKind) -> ProviderCaps {
        match kind {
            CredentialKind::ApiKey => {
                ProviderCaps { cache_ttl: info::CACHE_TTLS.map(Into::into).to_vec() }
            }
            _ => ProviderCaps::default(),
        }
    }

    fn request(
        &self,
        chat: &ChatView<'_>,
        with: &CredentialView<'_>,
        _now: Timestamp,
    ) -> Result<Exchange, ProviderError> {
        request::request(chat, with)
    }

    fn failure(&self, ended: &Ended, now: Timestamp) -> Failure {
        failure::failure(ended, now)
    }

    fn observe(&self, headers: &[Header<'_>], now: Timestamp) -> Observed {
        limits::observe(headers, now)
    }

    fn decoder(&self, mode: DecoderMode) -> Box<dyn Decoder> {
        Box::new(decoder::MessagesDecoder::new(mode))
    }
}
