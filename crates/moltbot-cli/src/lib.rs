//! The command line of `moltbot`, grown from the registry of plugins.
//!
//! A binary names its plugins and calls [`run`]; flags, choices, verbs and help follow from what
//! they offer:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     moltbot_cli::run(&[/* &moltbot_plugin_example::PLUGIN */])
//! }
//! ```
//!
//! # Invariants
//!
//! - This crate and the plugins' host below it are the only places that touch terminal,
//!   environment, home directory and clock; all four enter through [`World`], so that a test runs a
//!   whole command in its own process.
//! - Data goes to standard output, everything else to standard error; with `--json`, standard
//!   output is one JSON value.
//! - A command does nothing that it does not need: config, stores, runtime and network client are
//!   made when they are asked for first.
//! - No plugin and no vendor is named here. A command is one file below `commands`: `command`
//!   describes it, `run` does it, `tree` lists it.
//! - Deliberately absent: sending, choosing, storing. Those are the crates below.

#![forbid(unsafe_code)]

pub mod commands;
mod conceal;
mod context;
mod environment;
mod extensions;
mod failure;
pub mod front;
mod globals;
#[cfg(feature = "lab")]
mod lab_clock;
mod lines;
mod logging;
mod login;
mod onboard;
pub mod out;
mod prompt;
#[cfg(feature = "lab")]
mod sandbox;
mod shell;
#[cfg(test)]
mod testing;
pub mod text;
mod tree;
mod why;
mod world;

use std::process::ExitCode;
use std::sync::Arc;

use moltbot_core::{Plugin, Registry};

pub use context::Context;
pub use failure::{Exit, Failure, Outcome};
pub use globals::Globals;
pub use world::World;

/// Runs the command line of this process with the plugins that `main` names.
pub fn run(plugins: &[&'static Plugin]) -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        eprintln!("Error: moltbot failed at {place}\nhint: moltbot explain internal");
        // A build that aborts would leave a core file, and with it every secret in memory.
        #[cfg(panic = "abort")]
        std::process::exit(101);
    }));
    forbid_size_signal();
    let world = World::process();
    let code = match Registry::linked(plugins, tree::RESERVED_FLAGS) {
        Ok(registry) => {
            conceal::conceal(&registry, &world.args);
            run_in(world, Box::leak(Box::new(registry)))
        }
        Err(error) => {
            let mut out = world.out;
            out.failure(&Failure::new(error.to_string()).hint("rebuild the program"));
            1
        }
    };
    ExitCode::from(code)
}

/// Turns the limit for the size of files (`ulimit -f`) from a signal that ends the process into an
/// error of the write that reached it, so that it can be said and nothing is left half done.
fn forbid_size_signal() {
    // A handler that sets a flag nobody reads: the signal is caught, and the write fails. That the
    // program goes on without it where it cannot be set is what happened before.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
}

/// Runs one command line in a world of the caller's and returns its exit code.
pub fn run_in(world: World, registry: &'static Registry) -> u8 {
    let (mut out, result) = Context::start(world, registry);
    let code = match result {
        Ok(exit) => exit.0,
        Err(failure) => {
            out.failure(&failure);
            failure.exit
        }
    };
    match (out.finish(), code) {
        (false, 0) => 1,
        (_, code) => code,
    }
}
