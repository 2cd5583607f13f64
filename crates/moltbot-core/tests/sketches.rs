//! Small plugins, one per shape that the interfaces must carry, each compiled and exercised.
//!
//! They settle the interfaces before the real plugins need them: a pasted key, a link to somebody
//! else's login, a login with its own renewal, forwarding with splices, a pooled child process,
//! failure scopes, a store with two kinds of numbers, record ids and codes. Everything that
//! passes between plugin and host here also passes through JSON.

#![allow(clippy::unwrap_used, reason = "a sketch that fails should stop")]

#[path = "sketches/api_key.rs"]
mod api_key;
#[path = "sketches/failure_scopes.rs"]
mod failure_scopes;
#[path = "sketches/link.rs"]
mod link;
#[path = "sketches/own_refresh.rs"]
mod own_refresh;
#[path = "sketches/pass_through.rs"]
mod pass_through;
#[path = "sketches/pooled_child.rs"]
mod pooled_child;
#[path = "sketches/records.rs"]
mod records;
#[path = "sketches/store.rs"]
mod store;
#[path = "sketches/support.rs"]
mod support;
