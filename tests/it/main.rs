//! End-to-end tests: the built binary, real files in a temporary home, real sockets on loopback.
//!
//! One binary on purpose: it links once. Each file is one theme; `support` has the sandbox, the
//! pseudo-terminal and the lab.

// A test that cannot go on says where.
#![allow(clippy::unwrap_used)]

mod support;

mod agent;
mod bad_input;
mod brought;
mod chat;
mod choice;
mod claude_backend;
mod clients;
mod codes;
mod commands;
mod credentials;
mod failing;
mod fuzz;
mod gateway;
mod json;
mod keyring;
mod link;
mod models;
#[cfg(target_os = "linux")]
mod network;
mod onboard;
mod plugins;
mod readme;
mod repair;
mod scan;
mod scenario;
mod secrets;
mod simulate;
mod state;
mod torture;
mod transport;
mod why;
mod wizard;
