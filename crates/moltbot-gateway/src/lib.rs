//! Takes a chat from its door to a reply: model, profile, credential, provider, HTTP, and back.
//!
//! The engine chooses, renews, sends, fails over and says why; plugins only decide. Doors (the
//! command line today, HTTP later) call [`Engine::chat`] and get events as they come.
//!
//! What would happen can be asked without network, disk writes or a runtime of one's own:
//!
//! ```
//! use std::sync::Arc;
//! use moltbot_config::{Config, Env};
//! use moltbot_core::Registry;
//! use moltbot_gateway::*;
//! use moltbot_profiles::FileStore;
//!
//! # let dir = std::env::temp_dir().join("moltbot-no-such-agent");
//! # let registry: &'static Registry = Box::leak(Box::new(Registry::new(Vec::new(), &[])?));
//! let engine = Engine::new(EngineParts {
//!     registry,
//!     config: Arc::new(Config::default()),
//!     env: Env::new([("PATH", "/usr/bin")]),
//!     home: None,
//!     agent: AgentPaths {
//!         id: "main".into(),
//!         store: dir.join("auth-profiles.json"),
//!         sessions: dir.join("sessions"),
//!         dir: dir.clone(),
//!     },
//!     store: Arc::new(FileStore::new(dir.join("auth-profiles.json"))),
//!     front: Arc::new(Silent),
//!     clock: Arc::new(SystemClock),
//!     lab_base_url: None,
//!     limits: Limits::default(),
//! });
//! // A build without plugins serves no model, and says so by name.
//! let error = engine.models().requested("acme/large").unwrap_err();
//! assert_eq!(error.to_string(), "Unknown model: acme/large");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Invariants
//!
//! - It names no vendor and no plugin: names come from `ProviderInfo` and `Offer`.
//! - A credential goes to the origins of its own provider, to this machine, or to the `baseUrl` of
//!   the user's config; plain HTTP only to this machine; redirects are never followed.
//! - A plugin's effect that its offer does not declare is refused.
//! - Nothing is spliced: once something was shown, no other credential or model takes over.
//! - A request is punished at most once for a profile, and only if the provider says that the
//!   profile is at fault. Dropping a chat punishes nobody.
//! - A failed renewal changes no store; a link is never stored with a secret.
//! - A program that a provider runs is never shared between conversations, and outlives neither
//!   its engine nor this process, however that ends.
//! - Time, environment, home and paths come in as values; only the HTTP doors make
//!   runtimes. HTTP, programs and waiting need the caller's tokio runtime otherwise; reading small
//!   files does not.
//! - Deliberately absent: the journal of renewals and the lease between
//!   processes.

#![forbid(unsafe_code)]

mod attempt;
mod cache;
mod child;
mod clock;
mod compose;
mod door;
mod engine;
mod error;
mod front;
mod host;
mod http;
mod keyring;
mod methods;
mod model;
mod offered;
mod owner;
mod probe;
mod record;
mod record_log;
mod relink;
mod renew;
mod replay;
mod request;
mod run;
mod scan;
mod select;
mod send;
mod session;
mod setup;
mod simulate;
mod source;
mod survey;
mod thinking;
mod transcript;
mod turn;
mod update;
mod waiting;

pub use cache::{CacheEffect, Cached};
pub use clock::{Clock, SystemClock, TestClock};
pub use compose::{Chat, Composer, Head, Image, user_turn};
pub use door::{Access, Gateway, GatewayError, IN_THE_WAY, Settings, Tuning, client_env};
pub use engine::{AgentPaths, Engine, EngineParts};
pub use error::ChatError;
pub use front::{Answer, Front, Silent, TerminalRun};
pub use host::{EffectHost, HostParts};
pub use http::{Limits, Vars};
pub use keyring::{Keyring, OsKeyring};
pub use methods::{auth_rules, offer_of};
pub use model::{Candidates, Listed, ModelError, ModelRef, Models, Parsed};
pub use offered::{Offered, OfferedModel};
pub use probe::{ProbeOptions, ProbeResult, ProbeStatus, ProbeTarget};
pub use record::{Attempt, CredentialChoice, ModelChoice, Outcome, QuotaSeen, Record};
pub use record_log::{RecordLog, Records};
pub use renew::Refreshed;
pub use request::{ChatReply, ChatRequest};
pub use scan::{Patterns, ScanError, ScanOptions, scan};
pub use select::ProfileView;
pub use send::SendError;
pub use session::{Session, SessionError, SessionInfo, Sessions};
pub use setup::{ProviderSetup, Providers};
pub use simulate::{
    SimulatedProfile, Simulation, Trace, TraceError, TraceFault, TraceProfile, TraceRequest,
};
pub use source::{Source, SourceKind, other_sources, payer};
pub use survey::Survey;
pub use thinking::ThinkingLevel;
pub use transcript::Transcript;
pub use turn::{Role, StopReason, Turn};
