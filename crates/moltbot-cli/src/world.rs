//! The process as values: arguments, environment, streams, clock.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::sync::Arc;

use moltbot_gateway::{Clock, Front, SystemClock};
use moltbot_profiles::FileHook;

use crate::out::{Out, Terminal};

/// The process as a command sees it; tests make their own.
pub struct World {
    /// The arguments without the program's name.
    pub args: Vec<OsString>,
    /// The environment; variables that are not UTF-8 are left out.
    pub env: Vec<(String, String)>,
    /// The home directory.
    pub home: Option<PathBuf>,
    /// The working directory.
    pub cwd: PathBuf,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Standard input.
    pub stdin: Box<dyn Read>,
    /// The output streams.
    pub out: Out,
    /// Who answers questions; `None` for the terminal.
    pub front: Option<Arc<dyn Front>>,
    /// Who is asked before every change of a credential store; for tests and torture.
    pub store_hook: Option<Arc<dyn FileHook>>,
}

impl World {
    /// Takes a snapshot of this process.
    pub fn process() -> Self {
        let width = rustix::termios::tcgetwinsize(io::stdout())
            .or_else(|_| rustix::termios::tcgetwinsize(io::stderr()))
            .ok()
            .map(|size| size.ws_col)
            .filter(|columns| *columns > 0);
        let terminal = Terminal {
            stdin: io::stdin().is_terminal(),
            stdout: io::stdout().is_terminal(),
            stderr: io::stderr().is_terminal(),
            width,
        };
        Self {
            args: std::env::args_os().skip(1).collect(),
            env: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            home: std::env::home_dir().filter(|home| !home.as_os_str().is_empty()),
            cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            clock: Arc::new(SystemClock),
            stdin: Box::new(io::stdin()),
            out: Out::new(Box::new(io::stdout()), Box::new(io::stderr()), terminal),
            front: None,
            store_hook: None,
        }
    }
}
