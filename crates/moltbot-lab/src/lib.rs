//! A Messages-API server with a fault plan, a token endpoint and a log of the truth: for tests,
//! benchmarks, and trying things out without an account.
//!
//! ```
//! use moltbot_lab::{Lab, LabOptions, parse_plan};
//! use std::io::{Read as _, Write as _};
//!
//! let plan = parse_plan("[{match: {request: 1}, fault: {error: 'overloaded'}}]", "example")?;
//! let lab = Lab::start_on_thread(LabOptions { plan, ..LabOptions::default() })?;
//!
//! let mut connection = std::net::TcpStream::connect(lab.addr())?;
//! write!(connection, "GET /v1/models HTTP/1.1\r\nhost: lab\r\nconnection: close\r\n\r\n")?;
//! let mut reply = String::new();
//! connection.read_to_string(&mut reply)?;
//!
//! assert!(reply.starts_with("HTTP/1.1 529 "));
//! assert_eq!(lab.log()[0].rule.as_deref(), Some("rules[0]"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A plan
//!
//! ```json5
//! {
//!   rules: [  // the first that matches decides
//!     {match: {key: "one", request: [1, 2]}, fault: {error: "rate-limit", retryAfter: 2}},
//!     {match: {model: "claude-opus-*", stream: true}, fault: {sse: {error: 51, afterEvents: 4}}},
//!     {name: "lost answer", match: {path: "/v1/oauth/token"}, fault: {reset: "headers"}, times: 1},
//!   ],
//!   reply: {bytes: 4000, events: 60},        // what replies look like
//!   organizations: {"one": "a", "two": "a"}, // credentials of one organization
//!   logins: [{label: "mia", expiresIn: 60}], // OAuth logins from the start
//!   tokens: {rotation: "strict"},            // strict | repeat | keep
//! }
//! ```
//!
//! [`Fault`], [`Match`], [`ReplySpec`] and [`TokenRules`] list every field; [`error_table`] lists
//! every error body with the place where it was seen.
//!
//! **Invariants**
//!
//! - It listens on 127.0.0.1 only and opens no connection, reads no environment and no file but
//!   the plan that [`run`] is given.
//! - No credential is kept in clear: the log shows fingerprints, logins are kept by digest. (A plan
//!   holds what its author wrote into it.)
//! - The same request gets the same reply, except for ids, rate-limit figures and cache usage.
//! - It depends on no other crate of this workspace, so that a client and this server cannot share
//!   a mistake.

mod cache;
mod clock;
mod control;
mod errors;
mod fault;
mod keys;
mod limits;
mod log;
mod messages;
mod models;
mod oauth;
mod order;
mod plan;
mod prompt;
mod reply;
mod routes;
mod server;
mod socket;
mod sse;
mod state;
mod thinking;
mod tools;
mod validate;
mod wire;

pub use errors::{ErrorSpec, Limits, Shape, error_table, find_error};
pub use fault::{
    Drip, ErrorReply, Fault, Literal, Malformed, Numbers, Point, ReplySpec, SseFault, ToolCall,
};
pub use keys::{BothHeaders, KeyKind, Keys, fingerprint};
pub use log::{LogEntry, SeenCredential};
pub use oauth::{Login, LoginSpec, Rotation, TokenRules};
pub use plan::{Match, Plan, PlanError, Rule, parse_plan};
pub use server::{Lab, RunError, RunOptions, run};
pub use state::LabOptions;
