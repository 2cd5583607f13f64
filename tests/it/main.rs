//! End-to-end tests: the built binary, real files in a temporary home, real sockets on loopback.
//!
//! One binary on purpose: it links once. Each file is one theme; `support` has the sandbox, the
//! pseudo-terminal and the lab.

mod support;
