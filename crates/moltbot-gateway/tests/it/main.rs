//! The gateway against the lab: one test binary.

mod chat;
mod codes;
mod credentials;
mod effects;
mod failover;
mod models;
mod probe;
mod stage;
