//! From a file of the config to plugins: checked, then either asked what is in it, or known from an
//! earlier start.

use std::path::PathBuf;
use std::sync::Arc;

use super::copy::{Bytes, Copy};
use super::kept::{self, Description, Origin};
use super::later::{self, Later};
use super::trust::{self, Summed};
use super::{Carried, Checked, Kind, Library, LoadError, Pin, Place, Process, read, wait};
use crate::plugin::greet;
use crate::{Carrier, Hello, PluginHandle};

/// A checked file, and how it becomes known what is in it; nothing of it has run.
pub(super) enum Ready {
    /// It will be asked.
    Ask(Prepared),
    /// It was asked at an earlier start.
    Known(Summed, Description),
}

impl Ready {
    /// Checks a file and does what can be done beside others.
    pub(super) fn of(pin: &Pin, place: &Place) -> Result<Self, LoadError> {
        if !place.fresh && kept::is_there(&place.dir, &pin.sha256) {
            let file = trust::sum(&pin.path, &pin.sha256)?;
            return match kept::read(&place.dir, &file.sha256, pin.kind) {
                Some(known) if later::suits(&file, &known, pin) => {
                    later::admit(&file, pin, place)?;
                    Ok(Self::Known(file, known))
                }
                _ => Ok(Self::Ask(Prepared::of(&file.again()?, pin.kind, place)?)),
            };
        }
        let file = read(&pin.path, Some(&pin.sha256))?;
        Ok(Self::Ask(Prepared::of(&file, pin.kind, place)?))
    }

    /// Returns what is in it.
    pub(super) fn open(self, pin: &Pin, place: &Place) -> Result<Vec<Carried>, LoadError> {
        match self {
            Self::Ask(file) => file.open(pin, place),
            Self::Known(file, known) => {
                let (sha256, hello) = (file.sha256.clone(), known.hello.clone());
                let carrier = Later::carrier(file, hello.clone(), pin, place);
                let (kind, unwinds, kept) = (pin.kind, known.unwinds, Some(known));
                hold(carrier, Origin { sha256, kind, lasting: true, unwinds, hello, kept })
            }
        }
    }
}

/// Makes plugins of what is in a file.
fn hold(carrier: Arc<dyn Carrier>, origin: Origin) -> Result<Vec<Carried>, LoadError> {
    let handles = PluginHandle::described(origin.hello.clone(), carrier);
    let origin = Arc::new(origin);
    handles.into_iter().map(|handle| Carried::new(handle, origin.clone())).collect()
}

/// A checked file with the private copy that will be loaded or spawned; nothing of it has run.
pub(super) struct Prepared {
    pub(super) path: PathBuf,
    pub(super) sha256: String,
    pub(super) copy: PrivateCopy,
    /// Whether what it says about itself depends on this file alone.
    lasting: bool,
}

/// Where the bytes that were summed will run from.
pub(super) enum PrivateCopy {
    /// Sealed memory.
    Memory(Arc<Bytes>),
    /// A file of their own.
    Disk(Copy),
}

impl Prepared {
    /// Looks at the file and says where it will run from.
    pub(super) fn of(file: &Checked, kind: Kind, place: &Place) -> Result<Self, LoadError> {
        match kind {
            Kind::Library => Library::admit(file, place)?,
            Kind::Process => file.runnable()?,
        }
        let copy = match kind {
            Kind::Library if file.bytes.in_memory().is_some() => {
                PrivateCopy::Memory(file.bytes.clone())
            }
            // A script's interpreter opens it by its name, and a program may look at its own.
            _ => PrivateCopy::Disk(file.bytes.on_disk(&place.dir, &file.path)?),
        };
        // What a script answers depends on its interpreter, and on what that reads.
        let lasting = kind == Kind::Library || !file.bytes.starts_with(b"#!");
        Ok(Self { path: file.path.clone(), sha256: file.sha256.clone(), copy, lasting })
    }

    /// Loads or spawns it, as `pin` says, and asks what is in it.
    pub(super) fn open(self, pin: &Pin, place: &Place) -> Result<Vec<Carried>, LoadError> {
        let (sha256, kind, lasting) = (self.sha256.clone(), pin.kind, self.lasting);
        let mut unwinds = true;
        let carrier: Arc<dyn Carrier> = match kind {
            Kind::Library => {
                let library = Library::load(self, pin.allow_abort, place)?;
                unwinds = library.unwinds();
                library
            }
            Kind::Process => Process::spawn(self, place)?,
        };
        let hello: Hello = wait(greet(&carrier))?;
        if hello.plugins.is_empty() {
            let reason = "it holds no plugin; the crate needs `moltbot_core::plugin!`".to_string();
            return Err(LoadError::Unusable { reason });
        }
        hold(carrier, Origin { sha256, kind, lasting, unwinds, hello, kept: None })
    }
}
