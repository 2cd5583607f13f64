//! Plugins from outside, as the host sees them: checked, loaded or spawned, and then held like the
//! linked ones.
//!
//! The order is fixed: [`read`] checks owner and mode of a file, makes a private copy and checks its
//! sum; [`open`] loads or spawns that copy, asks what is in it and returns it as plugins that a
//! [`Registry`](moltbot_core::Registry) takes. [`open_all`] does both for several files.
//!
//! What a plugin says about itself depends on nothing but its file, so that [`open_all`] asks once
//! and [`keep`] keeps it. At later starts each file is checked and summed as ever, and is copied,
//! loaded or spawned when something of it is called. A file that changes in between fails that call;
//! one that was replaced does not, because it stays open.

mod adapt;
mod copy;
mod image;
mod kept;
mod later;
mod library;
mod marker;
mod process;
mod ready;
mod sandbox;
mod trust;
mod wait;
mod worker;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;

pub use adapt::Carried;
pub use kept::{forget_others, keep};
pub use library::Library;
pub use marker::Crash;
pub use process::Process;
pub use trust::{Checked, read};
pub use wait::wait;

use ready::{Prepared, PrivateCopy, Ready};

use crate::CarrierError;

/// How many files are prepared at once, beside the one that is opened.
const SIDE_BY_SIDE: usize = 3;

/// How a plugin from outside is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Loaded into this process.
    Library,
    /// As a process of its own.
    Process,
}

/// One plugin that the config lists.
#[derive(Clone, Debug)]
pub struct Pin {
    /// The file.
    pub path: PathBuf,
    /// The sum it must have, as hexadecimal digits.
    pub sha256: String,
    /// How it is run.
    pub kind: Kind,
    /// Whether a library in which a panic aborts is accepted.
    pub allow_abort: bool,
}

/// What loading depends on beside the plugin itself.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where private copies and crash marks are kept; made with mode 0700.
    pub dir: PathBuf,
    /// The environment of child processes; nothing else is passed on.
    pub env: Vec<(String, String)>,
    /// How long a plugin may take for one message, and for being loaded.
    pub patience: Duration,
    /// Whether a call waits on its thread for the plugin instead of yielding, for callers without
    /// a runtime that poll only once.
    pub blocking: bool,
    /// A process that ends is started again at most three times within this time.
    pub window: Duration,
    /// Whether every plugin is loaded or spawned and asked what it is, whatever is kept of it.
    pub fresh: bool,
    /// What to do when a library hangs in the loader ([`LoadError::Hung`]): nothing, or, in a program
    /// that cannot go on like that, end it.
    pub hung: fn(&LoadError),
}

impl Place {
    /// Uses a directory, an environment from which only what every program needs is passed on, and
    /// five seconds.
    pub fn new(dir: PathBuf, env: &[(String, String)]) -> Self {
        const PASSED: &[&str] = &["PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ"];
        let passed = env.iter().filter(|(name, _)| PASSED.contains(&name.as_str()));
        Self {
            dir,
            env: passed.cloned().collect(),
            patience: Duration::from_secs(5),
            blocking: false,
            window: Duration::from_secs(60),
            fresh: false,
            hung: |_| {},
        }
    }
}

/// Why a plugin is not there; each is a row in `moltbot plugins list`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// It cannot be read.
    #[error("{path} cannot be read: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// The operating system's words.
        reason: String,
    },
    /// Somebody else could change it.
    #[error("{path} can be changed by others: {reason}")]
    Exposed {
        /// The file or one of the directories above it.
        path: String,
        /// Owner or mode.
        reason: String,
    },
    /// It is not the file that was trusted.
    #[error("its sha256 is {found}, trusted is {expected}")]
    WrongSum {
        /// The config's.
        expected: String,
        /// The file's.
        found: String,
    },
    /// It took the host down before.
    #[error("it took the host down while it was loaded or called")]
    Crashed {},
    /// It is no shared library, or not all of one.
    #[error("it is not a whole shared library: {reason}")]
    NotALibrary {
        /// What is wrong.
        reason: String,
    },
    /// The library is something else than a plugin.
    #[error("it exports no {}; the crate needs `moltbot_abi::export_plugin!()`", crate::SYMBOL)]
    NoSymbol {},
    /// The symbol is there, but no descriptor.
    #[error("its descriptor does not begin with the plugin mark")]
    Magic {},
    /// The descriptor has another layout.
    #[error("{reason}")]
    Layout {
        /// What differs.
        reason: String,
    },
    /// A panic in it would end the host.
    #[error("it was built with panic=abort, so that a panic would end this program")]
    Abort {},
    /// The loader's refusal.
    #[error("it cannot be loaded: {reason}")]
    Loader {
        /// The loader's words.
        reason: String,
    },
    /// A constructor of it does not end. The loader's lock is held for ever, so that this process
    /// can neither load anything else nor exit in order: its caller has to end it.
    #[error("it did not finish loading within {} s, and this program cannot go on with it", patience.as_secs_f32())]
    Hung {
        /// How long it had.
        patience: Duration,
    },
    /// This program cannot load libraries at all.
    #[error("this program is linked statically and cannot load libraries; use a process")]
    Static {},
    /// It could not be started.
    #[error("it cannot be started: {reason}")]
    Start {
        /// The operating system's words.
        reason: String,
    },
    /// It was there and did not behave.
    #[error("{0}")]
    Carrier(#[from] CarrierError),
    /// What it says about itself cannot be used.
    #[error("{reason}")]
    Unusable {
        /// What is wrong with it.
        reason: String,
    },
}

impl LoadError {
    /// Returns what to type or do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "put the file back, or take it off the list with untrust",
            Self::Exposed { .. } => "chmod go-w, and keep it where only you can write",
            Self::WrongSum { .. } => "if you replaced it yourself, trust it again",
            Self::Crashed {} => "moltbot plugins trust PATH --retry",
            Self::Abort {} => "build it with panic=unwind, or set allowAbort: true",
            Self::Carrier(CarrierError::Incompatible { .. }) => "build it for this version",
            Self::Static {} => "moltbot plugins trust PATH --kind process",
            _ => "ask its author",
        }
    }
}

/// Loads or spawns a checked file and returns what is in it. `retry` forgets an earlier crash.
pub fn open(
    file: &Checked,
    pin: &Pin,
    place: &Place,
    retry: bool,
) -> Result<Vec<Carried>, LoadError> {
    if retry {
        marker::forget(&place.dir, &file.sha256);
    }
    Prepared::of(file, pin.kind, place)?.open(pin, place)
}

/// Opens the files of `pins`, hands each result to `each`, and returns what that makes of them, in
/// order.
///
/// Reading, checking and copying is most of the work, and done ahead of opening, side by side.
/// Opened they are one after the other: of a library that takes the host down, or hangs in the
/// loader, only its own mark may say that it was running.
///
/// A file of which a description is [kept](keep) is checked in the same way, and opened when
/// something of it is called.
pub fn open_all<T>(
    pins: &[Pin],
    place: &Place,
    mut each: impl FnMut(&Pin, Result<Vec<Carried>, LoadError>) -> T,
) -> Vec<T> {
    if pins.is_empty() {
        return Vec::new();
    }
    copy::sweep(&place.dir);
    forget_others(pins, place);
    let next = AtomicUsize::new(0);
    let (prepared, ready) = (Mutex::new(BTreeMap::new()), Condvar::new());
    let work = || {
        while let Some((n, pin)) = pins.iter().enumerate().nth(next.fetch_add(1, Ordering::Relaxed))
        {
            let prepare = || Ready::of(pin, place);
            // Whoever waits for this file must get something.
            let file = catch_unwind(AssertUnwindSafe(prepare)).unwrap_or_else(|_| {
                let reason = "looking at it failed".to_string();
                Err(LoadError::Unusable { reason })
            });
            prepared.lock().unwrap_or_else(PoisonError::into_inner).insert(n, file);
            ready.notify_one();
        }
    };
    std::thread::scope(|scope| {
        let start = |_: &usize| std::thread::Builder::new().spawn_scoped(scope, work).is_ok();
        if (0..pins.len().min(SIDE_BY_SIDE)).filter(start).count() == 0 {
            // Without a thread this one does it all.
            work();
        }
        let open = |(n, pin)| {
            let mut prepared = prepared.lock().unwrap_or_else(PoisonError::into_inner);
            let file = loop {
                match prepared.remove(&n) {
                    Some(file) => break file,
                    None => {
                        prepared = ready.wait(prepared).unwrap_or_else(PoisonError::into_inner);
                    }
                }
            };
            drop(prepared);
            each(pin, file.and_then(|file: Ready| file.open(pin, place)))
        };
        pins.iter().enumerate().map(open).collect()
    })
}

/// Tells how a file wants to be run: a library that exports a plugin is loaded, anything else is a
/// program.
pub fn kind_of(file: &Checked) -> Kind {
    match image::check(&file.bytes) {
        Ok(()) | Err(LoadError::Layout { .. }) => Kind::Library,
        Err(_) => Kind::Process,
    }
}

/// Says whether this file took the host down before.
pub fn crashed(place: &Place, sha256: &str) -> Option<Crash> {
    marker::survived(&place.dir, sha256)
}

/// Tells whether this system keeps the process of a plugin from files and connections that it was
/// not given. Where it does not, the process still lacks the host's memory and environment.
pub fn confines() -> bool {
    // A thread of its own: what locks itself in stays so.
    let inside = std::thread::spawn(|| sandbox::lock_in(Path::new("/usr")));
    inside.join().unwrap_or(false)
}

/// Tells whether this system refuses the process of a plugin calls such as `socket` and `ptrace`.
pub fn refuses_calls() -> bool {
    let inside = std::thread::spawn(sandbox::lock_calls);
    inside.join().unwrap_or(false)
}

/// Makes a directory that only its owner can enter.
fn private_dir(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
}
