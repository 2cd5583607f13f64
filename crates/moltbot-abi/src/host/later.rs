//! The carrier of a plugin that is known from an earlier start: loaded or spawned when something of
//! it is called.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;

use super::kept::{self, Description};
use super::trust::Summed;
use super::{Kind, Library, LoadError, Pin, Place, Prepared, Process, wait};
use crate::plugin::greet;
use crate::{Carrier, CarrierError, Hello, Packet};

/// A library that is loaded at its first call. The thread that makes the call waits for it, at most
/// as long as the host has patience.
pub(super) struct Later {
    /// Open since its sum was compared; taken when it is loaded.
    file: Mutex<Option<Summed>>,
    hello: Hello,
    allow_abort: bool,
    place: Place,
    /// Tried once: what took the host down in another process, or was changed, stays out.
    library: OnceLock<Result<Arc<Library>, CarrierError>>,
}

/// Tells whether what is kept of a file says enough, and nothing speaks against it now that would
/// have to be said.
pub(super) fn suits(file: &Summed, known: &Description, pin: &Pin) -> bool {
    match pin.kind {
        Kind::Library => known.unwinds || pin.allow_abort,
        Kind::Process => file.executable && !file.script,
    }
}

/// Refuses what would be refused now if it were opened, for other reasons than what is in the file.
pub(super) fn admit(file: &Summed, pin: &Pin, place: &Place) -> Result<(), LoadError> {
    match pin.kind {
        Kind::Library => {
            Library::possible()?;
            Library::harmless(&file.sha256, place)
        }
        Kind::Process => Ok(()),
    }
}

impl Later {
    /// Holds a file that `hello` describes.
    pub(super) fn carrier(
        file: Summed,
        hello: Hello,
        pin: &Pin,
        place: &Place,
    ) -> Arc<dyn Carrier> {
        match pin.kind {
            Kind::Process => Process::idle(file.path, file.sha256, place),
            Kind::Library => Arc::new(Self {
                file: Mutex::new(Some(file)),
                hello,
                allow_abort: pin.allow_abort,
                place: place.clone(),
                library: OnceLock::new(),
            }),
        }
    }

    fn library(&self) -> Result<&Arc<Library>, CarrierError> {
        let load = || {
            self.load().map_err(|error| match error {
                LoadError::Carrier(error) => error,
                error => {
                    let reason = format!("{error}; {}", error.hint());
                    CarrierError::Gone { reason }
                }
            })
        };
        self.library.get_or_init(load).as_ref().map_err(Clone::clone)
    }

    fn load(&self) -> Result<Arc<Library>, LoadError> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        let file = file.expect("it is loaded once").again()?;
        let prepared = Prepared::of(&file, Kind::Library, &self.place)?;
        let library = Library::load(prepared, self.allow_abort, &self.place)?;
        let carrier: Arc<dyn Carrier> = library.clone();
        if !kept::agrees(&self.hello, wait(greet(&carrier))?) {
            // It is not what it should be, the same at every start; the next one asks again.
            kept::forget(&self.place.dir, &file.sha256);
        }
        Ok(library)
    }
}

#[async_trait]
impl Carrier for Later {
    async fn turn(&self, message: Packet) -> Result<Packet, CarrierError> {
        self.library()?.turn(message).await
    }

    fn post(&self, message: Packet) {
        // Without a library there is no task that could be dropped.
        if let Some(Ok(library)) = self.library.get() {
            library.post(message);
        }
    }
}
