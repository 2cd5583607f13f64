//! The JSON5 configuration document: load, diagnose, migrate, edit in place.
//!
//! ```
//! use moltbot_config::{Editor, Env, Extensions, KeyPath, LoadInput, Paths, PathsInput, Stamp, load};
//!
//! let home = tempfile::tempdir().unwrap();
//! let file = home.path().join(".moltbot/moltbot.json");
//! std::fs::create_dir(home.path().join(".moltbot")).unwrap();
//! std::fs::write(&file, "{\n  // local only\n  gateway: { mode: 'local', port: 18789 },\n}\n").unwrap();
//!
//! let env = Env::default();
//! let paths = Paths::resolve(&PathsInput {
//!     env: &env,
//!     home: home.path(),
//!     cwd: home.path(),
//!     profile: None,
//!     exists: &|path| path.exists(),
//! });
//! let extensions = Extensions::default();
//! let input = LoadInput { paths: &paths, env: &env, extensions: &extensions, version: "0.1.0" };
//! let port = load(&input).unwrap().config.gateway.unwrap().port;
//! assert_eq!(port.unwrap().get(), 18789);
//!
//! let mut editor = Editor::open(input, 1_000).unwrap();
//! editor.set(&"gateway.port".parse().unwrap(), &19000.into()).unwrap();
//! editor.commit(Stamp { version: "0.1.0", now: "2026-01-27T00:00:00Z" }).unwrap();
//! assert!(std::fs::read_to_string(&file).unwrap().contains("// local only"));
//!
//! std::fs::write(&file, "{ gateway: { prot: 1 } }").unwrap();
//! let error = load(&input).unwrap_err();
//! assert_eq!(error.issues()[0].suggestion.as_deref(), Some("did you mean `port`?"));
//! ```
//!
//! # Invariants
//!
//! - Nothing here reads the process environment, the home directory or the clock, runs a program
//!   or names a plugin: all of that comes in as values ([`Env`], [`Paths`], [`Extensions`],
//!   [`Stamp`]). Files are touched only at the paths that are passed in and those they include.
//! - The table that validation walks and the structs that the program reads are one declaration.
//! - There are no hidden defaults: what [`Config`] does not hold was not said (spec C-28).
//! - No value of the file is repeated in an error, an excerpt or a `Debug` output.
//! - Nothing is written unless the whole result was checked, under a lock, with the old contents
//!   kept as a backup; every file is replaced in one step.
//! - Deliberately absent: writing back a *resolved* configuration. Includes and `${NAME}` are
//!   never flattened (spec C-30).

#![forbid(unsafe_code)]

mod cst;
mod document;
mod edit;
mod edits;
mod env;
mod issue;
mod keypath;
mod legacy;
mod lex;
mod load;
mod locate;
mod mask;
mod paths;
mod schema;
mod source;
mod subst;
mod tree;
mod write;

pub use edit::{Changed, Editor, Stamp};
pub use edits::{AliasAdded, ModelSlot, ProfileRecord};
pub use env::{Env, SHELL_OUTPUT_LIMIT, ShellImport, Source, is_truthy, parse_dotenv};
pub use issue::{ConfigError, Issue, IssueCode};
pub use keypath::{KeyPath, KeyPathError, Step};
pub use load::{LoadInput, Loaded, Note, NoteKind, load, shell_import};
pub use mask::{is_secret_path, mask_value};
pub use paths::{AgentId, Instance, InstanceError, MAIN_AGENT, Paths, PathsInput, state_move};
pub use schema::{
    Agent, AgentDefaults, Agents, Auth, AuthMode, AuthProfile, Bind, CatalogMode, ChatCompletions,
    Config, ContextPruning, ControlUi, Cooldowns, Cost, CredentialUse, Dialect, Endpoints,
    EnvSection, Extensions, Gateway, GatewayAuth, GatewayAuthMode, GatewayMode, GatewayToken, Http,
    Load, Meta, Modality, ModeMigration, ModelChoice, ModelEntry, ModelSettings, Models, NonEmpty,
    OauthEndpoint, PluginEntry, PluginKind, PluginSettings, Plugins, Positive, ProviderConfig,
    PruningMode, Reload, ReloadMode, Remote, Responses, SecureUrl, Setting, SettingKind, Sha256,
    ShellEnv, Strategy, Tailscale, TailscaleMode, ThinkingLevel, Tls, TokenLimits, Transport,
    TrustedPlugin, UNCHECKED_SECTIONS, Unchecked, json_schema,
};
