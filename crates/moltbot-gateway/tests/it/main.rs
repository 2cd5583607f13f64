//! The gateway against the lab: one test binary.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helpers")]

mod chat;
mod children;
mod codes;
mod credentials;
mod effects;
mod failover;
mod limits;
mod models;
mod patience;
mod probe;
mod renewal;
mod stage;
mod traffic;
