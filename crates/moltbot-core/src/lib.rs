//! The interfaces that every part of `moltbot` shares: auth methods, providers, effects, credentials.
//!
//! A plugin *decides*, the host *does*. An [`AuthMethod`] asks the [`Host`] for effects and awaits
//! the replies; a [`Provider`] turns a chat into an [`Exchange`] and bytes into [`Event`]s. Neither
//! opens a socket, a file or a terminal, so that one crate can be linked, loaded or spawned
//! without a changed line, and one login flow drives terminal, web page and headless run.
//!
//! A whole plugin that offers a pasted key for any provider which takes one:
//!
//! ```
//! use moltbot_core::*;
//!
//! struct Paste;
//!
//! #[async_trait]
//! impl AuthMethod for Paste {
//!     fn id(&self) -> &str {
//!         "paste"
//!     }
//!
//!     fn offers(&self, provider: &ProviderInfo) -> Vec<Offer> {
//!         let Some(spec) = &provider.api_key else { return Vec::new() };
//!         let flag = Some(format!("{}-pasted-key", provider.id).into());
//!         let key = Field { id: "key".into(), flag, label: spec.label.clone(), kind: FieldKind::Secret {}, ..Field::default() };
//!         vec![Offer {
//!             choice: format!("{}-paste", provider.id).into(),
//!             label: "A key from the clipboard".into(),
//!             profile: format!("{}:pasted", provider.id).into(),
//!             kind: CredentialKind::ApiKey,
//!             mode: "api_key".into(),
//!             fields: vec![key],
//!             ..Offer::default()
//!         }]
//!     }
//!
//!     async fn login(&self, cx: &Cx<'_>) -> Result<Login, AuthError> {
//!         let key = cx.ask("key", |text| match text.trim() {
//!             "" => Err("Required".into()),
//!             key => Ok(Secret::new(key)),
//!         }).await?;
//!         Ok(Login::new(Credential::api_key(cx.provider.id.clone(), key)))
//!     }
//! }
//!
//! moltbot_core::plugin! { auth: [Paste] }
//! # fn main() {}
//! ```
//!
//! # Writing a plugin
//!
//! [`guide`] leads from an empty folder to a login in the wizard in ten minutes, lists what else
//! there is, and says which changes break whom. In short: a method *offers* ([`Offer`]: choice,
//! flags, profile), *logs in* by asking ([`Cx`]), may *resolve* a link, and *renews*; whatever it
//! asks of the world stands in [`Needs`] or is refused. Errors are values that say what to do
//! ([`AuthError`]).
//!
//! # Invariants
//!
//! - No I/O, clock, environment, thread, runtime or `unsafe` in this crate; nothing in it names a
//!   vendor or a plugin.
//! - A [`Secret`] is never shown by `Debug` and has no `Serialize`; [`Exposed`] is the one way out.
//! - Everything a plugin is given or returns is plain data that survives a round trip through
//!   JSON; enums are tagged and end in `Unknown`, so that either side may be newer.
//! - Deliberately absent: sending, retrying, storing, choosing. The host does these, once.

#![forbid(unsafe_code)]

mod auth;
mod code;
mod credential;
mod effect;
mod event;
mod exchange;
mod failure;
pub mod guide;
mod json;
mod model;
mod needs;
mod plugin;
mod provider;
mod record;
mod secret;
mod sse;
mod time;

pub use async_trait::async_trait;
#[doc(hidden)]
pub use inventory;
pub use semver;

pub use auth::{
    AuthCaps, AuthError, AuthMethod, Call, CredentialState, Cx, Finding, Host, Login, Offer, Payer,
    Policy, RenewReply, RenewSettings, Renewal, Resolved, SettingsSpec, Verb,
};
pub use code::{CODES, Code};
pub use credential::{Credential, CredentialKind, Generation, Revision};
pub use effect::{
    Effect, Field, FieldKind, FileProblem, FileRef, FileState, HostError, HttpReply, HttpRequest,
    KeyringEntry, Level, Note, Ran, Reply, Run, SelectOption, Text,
};
pub use event::{Decoder, DecoderMode, Event};
pub use exchange::{Exchange, Resume, Reuse, Slot, Span, Splice, splice};
pub use failure::{Ended, Failure, FailureKind, NetworkFault, Scope};
pub use json::plain_text;
pub use model::{ModelInfo, Price, Thinking, Usage};
pub use needs::Needs;
pub use plugin::{
    Linked, OfferEntry, Plugin, ProviderEntry, Registry, RegistryError, VERSION, plugin_id,
};
pub use provider::{
    ApiKeySpec, BodyNeed, ChatView, Covers, CredentialView, EnvKey, Found, Header, Observed, Op,
    Origin, Provider, ProviderCaps, ProviderError, ProviderInfo, Quota, header,
};
pub use record::RecordId;
pub use secret::{Expose, Exposed, Secret, mask, redact, redact_shapes};
pub use sse::{SseEvent, SseSplitter, first_event};
pub use time::Timestamp;
