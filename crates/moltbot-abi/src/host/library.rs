//! The carrier for libraries: loaded into this process, called on a thread of its own.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::marker::{self, Marker};
use super::worker::{Deliver, Worker};
use super::{Checked, LoadError, Place, Prepared, PrivateCopy, image};
use crate::dl::Image;
use crate::{Carrier, CarrierError, Packet, compatible};

/// A loaded library. What it does to memory it does to the host; a panic, an answer that cannot
/// be read and a call that does not end fail that call only.
pub struct Library {
    worker: Worker,
    unwinds: bool,
}

/// Held while a library is loaded: of several that are called for the first time at once only the one
/// that hangs may be marked as running.
static LOADING: Mutex<()> = Mutex::new(());

impl Library {
    /// Refuses what cannot be loaded at all: what does not look like a plugin, and what took the
    /// host down before. Runs nothing of it.
    pub(super) fn admit(file: &Checked, place: &Place) -> Result<(), LoadError> {
        Self::possible()?;
        image::check(&file.bytes)?;
        Self::harmless(&file.sha256, place)
    }

    /// Refuses where no library can be loaded.
    pub(super) fn possible() -> Result<(), LoadError> {
        if cfg!(target_feature = "crt-static") { Err(LoadError::Static {}) } else { Ok(()) }
    }

    /// Refuses what took the host down before.
    pub(super) fn harmless(sha256: &str, place: &Place) -> Result<(), LoadError> {
        match marker::survived(&place.dir, sha256) {
            Some(_) => Err(LoadError::Crashed {}),
            None => Ok(()),
        }
    }

    /// Tells whether a panic in it can be caught.
    pub(super) fn unwinds(&self) -> bool {
        self.unwinds
    }

    /// Loads the private copy of a checked file.
    pub(super) fn load(
        file: Prepared,
        allow_abort: bool,
        place: &Place,
    ) -> Result<Arc<Self>, LoadError> {
        let Prepared { path, sha256, copy, .. } = file;
        let _alone = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
        let marker = Marker::new(&place.dir, &sha256).map_err(|error| {
            let path = place.dir.display().to_string();
            LoadError::Unreadable { path, reason: error.to_string() }
        })?;
        let dir = place.dir.clone();
        let unwinds = Arc::new(AtomicBool::new(false));
        let known = unwinds.clone();
        let prepare = move || {
            let running = marker.run();
            let image = image_of(copy, &dir, &path)?;
            if !image.unwinds() && !allow_abort {
                return Err(LoadError::Abort {});
            }
            known.store(image.unwinds(), Ordering::Relaxed);
            let ours = moltbot_core::VERSION;
            if !compatible(ours, image.core()) {
                let (theirs, ours) = (image.core().to_string(), ours.to_string());
                return Err(CarrierError::Incompatible { theirs, ours }.into());
            }
            drop(running);
            Ok(Box::new(move |message: &[u8]| {
                let _running = marker.run();
                image.turn(message)
            }) as Deliver)
        };
        let patience = place.patience;
        let worker = Worker::start("plugin", patience, prepare).map_err(|error| match error {
            LoadError::Carrier(CarrierError::Gone { .. }) => {
                let hung = LoadError::Hung { patience };
                (place.hung)(&hung);
                hung
            }
            other => other,
        })?;
        let worker = worker.watched("plugin-watch")?.blocking(place.blocking);
        // The worker is ready, so that this is known.
        let unwinds = unwinds.load(Ordering::Relaxed);
        Ok(Arc::new(Self { worker, unwinds }))
    }
}

/// Loads a private copy. A file goes afterwards, what is mapped of it stays.
fn image_of(copy: PrivateCopy, dir: &Path, name: &Path) -> Result<Image, LoadError> {
    let bytes = match copy {
        PrivateCopy::Disk(copy) => return Image::load(&copy.path),
        PrivateCopy::Memory(bytes) => bytes,
    };
    if let Some((sealed, path)) = bytes.in_memory() {
        // For ever: to the system's loader the same name is the same library, and the number in it
        // would be given to the next file.
        std::mem::forget(sealed.file().clone());
        match Image::load(&path) {
            // Some systems run no code but that of files.
            Err(LoadError::Loader { .. }) => {}
            loaded => return loaded,
        }
    }
    Image::load(&bytes.on_disk(dir, name)?.path)
}

#[async_trait]
impl Carrier for Library {
    async fn turn(&self, message: Packet) -> Result<Packet, CarrierError> {
        self.worker.turn(message).await
    }

    fn post(&self, message: Packet) {
        self.worker.post(message);
    }
}
