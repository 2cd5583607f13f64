//! A scripted host and the conformance suite: everything a plugin's tests need, without a runtime.
//!
//! A test is a script of effects: what the user answers, which files are there, what programs and
//! services say. The transcript of a run is a snapshot for people, secrets masked.
//!
//! ```
//! use moltbot_core::*;
//! use moltbot_testkit::{ScriptedHost, call, fake, login, offer, sample_provider};
//!
//! struct Paste;
//! #[async_trait]
//! impl AuthMethod for Paste {
//!     fn id(&self) -> &str { "paste" }
//!     fn offers(&self, _: &ProviderInfo) -> Vec<Offer> {
//!         let key = Field { id: "key".into(), label: "Key".into(), kind: FieldKind::Secret {}, ..Field::default() };
//!         vec![Offer { choice: "paste".into(), fields: vec![key], ..Offer::default() }]
//!     }
//!     async fn login(&self, cx: &Cx<'_>) -> Result<Login, AuthError> {
//!         let key = cx.ask("key", |text| Ok(Secret::new(text))).await?;
//!         Ok(Login::new(Credential::api_key(cx.provider.id.clone(), key)))
//!     }
//! }
//!
//! let provider = sample_provider();
//! let host = ScriptedHost::new().answer("key", fake("acme-"));
//! let call = call(&provider, &offer(&Paste, &provider, "paste"));
//! assert!(login(&Paste, &host, &call).is_ok());
//! assert_eq!(host.transcript(), "ask key (secret) \"Key\"\n  -> <secret 108>, typed\n");
//! ```
//!
//! The whole suite for a plugin is one line in its `tests/conformance.rs`; see [`conformance!`].
//!
//! # Invariants
//!
//! - No I/O, no clock, no runtime: a future that waits for anything but the host is an error.
//! - A transcript never holds a secret.
//! - Every breach says what was expected, what was found and what to change.

#![forbid(unsafe_code)]

mod body;
mod conformance;
mod drive;
mod host;
mod leak;
mod sample;
mod transcript;

pub use body::{chat, decode, decode_pieces, find};
pub use conformance::{Breach, Conformance};
pub use drive::block_on;
pub use host::ScriptedHost;
pub use leak::{canaries_in, leaks};
pub use sample::{
    NOW, call, fake, headless, login, offer, sample_answer, sample_provider, verb_call,
};

/// Makes a test that runs the whole conformance suite on a plugin.
///
/// ```
/// # use moltbot_core::*;
/// # struct Nothing;
/// # #[async_trait]
/// # impl AuthMethod for Nothing {
/// #     fn id(&self) -> &str { "nothing" }
/// #     fn offers(&self, _: &ProviderInfo) -> Vec<Offer> { Vec::new() }
/// #     async fn login(&self, _: &Cx<'_>) -> Result<Login, AuthError> { Err(AuthError::Cancelled {}) }
/// # }
/// # moltbot_core::plugin! { auth: [Nothing] }
/// moltbot_testkit::conformance!(PLUGIN, |suite| suite
///     .scene("a pasted key", || moltbot_testkit::ScriptedHost::new().answer("key", "FAKE")));
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! conformance {
    ($plugin:expr) => {
        $crate::conformance!($plugin, |suite| suite);
    };
    ($plugin:expr, $configure:expr) => {
        #[test]
        fn conforms() {
            let configure: fn($crate::Conformance) -> $crate::Conformance = $configure;
            configure($crate::Conformance::of(&$plugin)).check();
        }
    };
}
