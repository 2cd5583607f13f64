//! Carries one plugin across a boundary: wire messages, the guest that holds it, the host's proxy.
//!
//! A call is `start(call) -> (task, step)`, then `resume(task, replies) -> step` until the step is
//! `done` or `fail`, or `drop(task)`. A step that is `need` names the effects the plugin waits for.
//! The guest polls the plugin's future, the host performs the effects; so neither runtime, thread
//! nor async type crosses, and dropping the host's future drops the plugin's.
//!
//! ```
//! use moltbot_abi::{Memory, PluginHandle};
//! use moltbot_core::*;
//!
//! struct Nothing;
//! #[async_trait]
//! impl AuthMethod for Nothing {
//!     fn id(&self) -> &str { "nothing" }
//!     fn offers(&self, _: &ProviderInfo) -> Vec<Offer> { Vec::new() }
//!     async fn login(&self, _: &Cx<'_>) -> Result<Login, AuthError> { Err(AuthError::Cancelled {}) }
//! }
//! moltbot_core::plugin! { auth: [Nothing] }
//!
//! # fn main() {
//! # let mut page = std::pin::pin!(async {
//! let carried = PluginHandle::connect(Memory::carrying(&[&PLUGIN])).await.unwrap();
//! assert_eq!(carried[0].methods[0].id(), "nothing");
//! let linked = PluginHandle::linked(&PLUGIN);
//! let info = ProviderInfo::default();
//! assert_eq!(carried[0].methods[0].offers(&info).await, linked.methods[0].offers(&info).await);
//! # });
//! # let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
//! # assert!(page.as_mut().poll(&mut cx).is_ready());
//! # }
//! ```
//!
//! The same crate is loaded as a library after [`export_plugin!`], and spawned as a process by a
//! `main` that calls [`serve()`]. With the feature `host` the other side is here too, in `host`:
//! checking, loading and spawning.
//!
//! # What the host knows without loading
//!
//! What a plugin says about itself, its hello and what its methods offer to a provider, is a pure
//! function of its file and the question. So `host::open_all` asks a file that is new to it, and
//! `host::keep` keeps the answers below the state directory: one small file per sum, 0600, replaced
//! whole, bound to the version of this host, gone with the entry of the config. A later start sums
//! the plugin's file where it lies, in the same order of checks and with the same refusals, and takes
//! the answers from there; the copy, the loader, its crash mark and its threads wait for the first
//! real call, which reads the file (still open since it was checked) once more, sums the copy, and
//! asks whether the description still holds. A call is anything but an offer, a setting and what the
//! hello said.
//!
//! The kept file decides nothing. It is not looked at before the sum was found right, its content
//! passes the same checks as an answer, and one that is missing, foreign, readable by others, cut off
//! or of another host is no error: the plugin is asked. Of scripts nothing is kept, because their
//! answer depends on an interpreter; `Place::fresh` ignores all of it, for those who look for faults.
//!
//! # Invariants
//!
//! - Payloads are JSON; secrets cross in clear, in buffers that are wiped when dropped.
//! - A carried plugin may await only the host; anything else fails at once.
//! - A panic in a plugin fails that call, drops its task, and its words do not cross.
//! - An effect or call of a newer version is answered `Unsupported`, never guessed.
//! - All `unsafe` is in `dl`. A loaded library is never unloaded.
//! - Nothing is loaded or spawned but a private copy of bytes whose sum was compared before.
//! - What is kept of a plugin never runs, trusts or excuses anything; without it all is as with it.
//! - Deliberately absent here: finding plugins, and deciding whom to trust.

mod carrier;
mod chunk;
mod dl;
mod guest;
#[cfg(feature = "host")]
pub mod host;
mod method;
mod plugin;
mod provider;
mod serve;
mod wire;

pub use carrier::{Carrier, CarrierError, Memory, Packet};
pub use dl::{
    ABI, Buf, Call, Descriptor, FLAG_UNWIND, Free, MAGIC, MOLTBOT_PLUGIN_V1, OP_TURN, SYMBOL,
};
pub use guest::Guest;
pub use method::{CarriedMethod, MethodHandle};
pub use plugin::{PluginHandle, compatible};
pub use provider::{CarriedDecoder, CarriedProvider, DecoderHandle, ProviderHandle};
pub use serve::{COOKIE, serve};
pub use wire::{Described, FEATURES, Hello};
