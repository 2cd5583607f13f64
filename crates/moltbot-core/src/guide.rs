//! From an empty folder to a login in the wizard in ten minutes; what to know beyond that; and which
//! changes break whom.
//!
//! # Ten minutes
//!
//! The README's section "From an empty folder to a login" has these steps as commands, which a test
//! types.
//!
//! **1. A crate.** Any folder will do; nothing of this repository is edited. The name begins with
//! `moltbot-plugin-`; what follows is the plugin's id.
//!
//! ```toml
//! [package]
//! name = "moltbot-plugin-hello"
//! description = "A key that a friend lent you."
//! version = "0.1.0"
//! edition = "2024"
//!
//! [lib]
//! crate-type = ["rlib", "cdylib"] # to be linked, and to be loaded
//!
//! [dependencies]
//! moltbot-abi = { path = "../moltbot/crates/moltbot-abi" }
//! moltbot-core = { path = "../moltbot/crates/moltbot-core" }
//! ```
//!
//! **2. A method.** It offers itself to every provider that takes API keys, asks one question, and
//! returns a credential. In a crate with `moltbot-abi` the last line is followed by
//! `moltbot_abi::export_plugin!();`, which makes the library loadable.
//!
//! ```
//! use moltbot_core::*;
//!
//! /// Logs in with a key that a friend lent you.
//! pub struct Hello;
//!
//! #[async_trait]
//! impl AuthMethod for Hello {
//!     fn id(&self) -> &str {
//!         "hello"
//!     }
//!
//!     fn offers(&self, provider: &ProviderInfo) -> Vec<Offer> {
//!         if provider.api_key.is_none() {
//!             return Vec::new();
//!         }
//!         let key = Field {
//!             id: "key".into(),
//!             flag: Some(format!("{}-hello-key", provider.id).into()),
//!             label: "The key that your friend lent you".into(),
//!             kind: FieldKind::Secret {},
//!             ..Field::default()
//!         };
//!         vec![Offer {
//!             choice: format!("{}-hello", provider.id).into(),
//!             label: "A friend's key".into(),
//!             profile: format!("{}:hello", provider.id).into(),
//!             kind: CredentialKind::ApiKey,
//!             mode: "api_key".into(),
//!             fields: vec![key],
//!             ..Offer::default()
//!         }]
//!     }
//!
//!     async fn login(&self, cx: &Cx<'_>) -> Result<Login, AuthError> {
//!         let check = |text: &str| match text.trim() {
//!             "" => Err("Required".to_string()),
//!             key => Ok(Secret::new(key)),
//!         };
//!         let key = cx.ask("key", check).await?;
//!         Ok(Login::new(Credential::api_key(cx.provider.id.clone(), key)))
//!     }
//! }
//!
//! moltbot_core::plugin! { auth: [Hello] }
//! # fn main() {}
//! ```
//!
//! **3. Use it.** `cargo build`, then `moltbot plugins trust` the library: it shows what the plugin
//! is and asks for, and writes its path and SHA-256 into the config. From then on
//! `moltbot onboard` has the line "A friend's key", `--auth-choice anthropic-hello` and
//! `--anthropic-hello-key`. After a change the file is another one: trust it again.
//!
//! **4. Test it.** `moltbot_testkit::conformance!(moltbot_plugin_hello::PLUGIN);` in
//! `tests/conformance.rs` runs the suite that every plugin passes: linked and across the wire, with
//! nobody there, stopped and dropped at every effect, looking for secrets in all that is said.
//!
//! **5. Make it small.** The host reads all of a library at every start, so that the one you hand out
//! should hold nothing in vain. With this in `Cargo.toml`,
//! `cargo rustc --release --lib --crate-type cdylib` makes one of under 1 MB, half of what
//! `cargo build --release` makes without it. Leave `panic` as it is: a library that aborts is refused.
//!
//! ```toml
//! [profile.release]
//! opt-level = "s"
//! lto = true # only where nothing but the library is made, hence `--crate-type`
//! codegen-units = 1
//! strip = true
//! ```
//!
//! Inside a clone, `cargo xtask new-plugin NAME --auth` or `--provider` writes all of this, and
//! `cargo xtask dist --cdylib --plugins NAME` builds it so.
//!
//! # What else there is
//!
//! | you want to | look at |
//! | --- | --- |
//! | ask, tell, show a page, send a request, read a file, run a program | the methods of [`Cx`](crate::Cx) |
//! | renew by one request, safe against crashes | [`AuthMethod::renew`](crate::AuthMethod::renew), [`renewed`](crate::AuthMethod::renewed) |
//! | renew by a command or several steps | [`Renewal::Run`](crate::Renewal::Run), [`refresh`](crate::AuthMethod::refresh) |
//! | use a login that another program owns | [`Credential::link`](crate::Credential::link), [`resolve`](crate::AuthMethod::resolve), `caps.external` |
//! | read files or ask hosts | declare them in [`Needs`](crate::Needs); what is not declared is refused |
//! | have settings in the config | [`AuthMethod::settings`](crate::AuthMethod::settings) |
//! | bring another service | [`Provider`](crate::Provider), [`Decoder`](crate::Decoder) |
//!
//! A plugin awaits nothing but the host. One that opens a socket itself works linked, and fails as
//! soon as it is carried; the suite says so.
//!
//! # Linked, loaded or spawned
//!
//! | | linked | library | process |
//! | --- | --- | --- | --- |
//! | made by | `cargo xtask dist --with NAME=PATH` | `crate-type = ["cdylib"]`, `export_plugin!()` | a `main` that calls `moltbot_abi::serve()` |
//! | used after | a build | `moltbot plugins trust FILE` | `moltbot plugins trust FILE` |
//! | runs from | the program | sealed memory, on Linux; else a private copy | a private copy |
//! | what it can reach | everything | everything | on Linux: system files, what it asks for |
//! | if it crashes | with the host | with the host, once; then it is left out | alone |
//!
//! # Versions
//!
//! - *Linked*: cargo resolves one `moltbot-core`; two of them are a type error in the program's
//!   `main`.
//! - *Carried*: each side states its version of `moltbot-core`; they fit if the higher one
//!   satisfies `^lower`. Below 1.0 a minor version is a break, from 1.0 on a major one.
//! - *Minor*: a new effect, field, default method or error. A peer that does not know it reads
//!   `Unknown`, answers `Unsupported`, or ignores the member; so test for success, not for a version.
//! - *Major*: taking away or retyping anything, or a call whose absence changes what happens.
//! - The layout of the C descriptor has a version of its own in its symbol's name.
//! - Compilers need not be the same: only JSON crosses.
