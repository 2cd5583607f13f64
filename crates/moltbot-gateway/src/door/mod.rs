//! The HTTP doors: the Messages API passed on byte by byte with a healthy credential, and OpenAI's
//! dialect translated to it (spec 06, decisions 2, 3, 7, "Hot path", "Security defaults").
//!
//! This is one of the written exceptions to the rule that `crates/` names no vendor: a door is the
//! language it speaks.
//!
//! Requests read memory only: the contents of every store are kept here, read again when they
//! change, and what is learnt (successes, failures) is applied at once and written at most once a
//! second.

mod access;
mod agent;
mod alarm;
mod autocache;
mod body;
mod child;
mod error;
mod fallback;
mod forward;
mod headers;
mod held;
mod log;
mod models;
mod named;
mod openai;
mod own_login;
mod ready;
mod relay;
mod serve;
mod server;
mod settings;
mod shared;
mod upstream;
mod written;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use server::{Gateway, GatewayError};
pub use settings::{Access, IN_THE_WAY, Settings, Tuning, client_env};

/// Locks what no panic can leave half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
