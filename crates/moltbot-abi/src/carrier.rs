//! What brings a message to the guest and its answer back.

use std::sync::Arc;

use async_trait::async_trait;
use moltbot_core::Plugin;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::Guest;

/// One encoded message; wiped when dropped, because it may hold secrets.
pub type Packet = Zeroizing<Vec<u8>>;

/// Brings messages to one guest.
#[async_trait]
pub trait Carrier: Send + Sync + 'static {
    /// Returns what one task goes over from its start to its end; `None` for this carrier itself.
    ///
    /// A task is known only to the guest that began it. A carrier that starts its guest anew
    /// returns the present one, so that a task never reaches another.
    fn session(&self) -> Result<Option<Arc<dyn Carrier>>, CarrierError> {
        Ok(None)
    }

    /// Delivers a message and waits for its answer. Several calls may be under way at once.
    async fn turn(&self, message: Packet) -> Result<Packet, CarrierError>;

    /// Delivers a message that has no answer, without waiting: it may be called while a future is
    /// being dropped.
    fn post(&self, message: Packet);
}

/// Why a message was not answered; the call fails, the host goes on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CarrierError {
    /// The other side is gone.
    #[error("the plugin is gone: {reason}")]
    Gone {
        /// What happened to it.
        reason: String,
    },
    /// The other side's interfaces are too old or too new.
    #[error("the plugin was built for moltbot-core {theirs}, this is {ours}")]
    Incompatible {
        /// The guest's version.
        theirs: String,
        /// This side's version.
        ours: String,
    },
    /// The answer is no message of this wire.
    #[error("the plugin answered what cannot be understood: {reason}")]
    Garbled {
        /// What is wrong, without any content.
        reason: String,
    },
}

/// The carrier without distance: the guest lives in this process, but everything is encoded.
pub struct Memory {
    guest: Guest,
}

impl Memory {
    /// Puts plugins behind the wire.
    pub fn carrying(plugins: &[&'static Plugin]) -> Arc<Self> {
        Arc::new(Self { guest: Guest::new(plugins.to_vec()) })
    }

    /// Lends the guest, to look at its open tasks.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }
}

#[async_trait]
impl Carrier for Memory {
    async fn turn(&self, message: Packet) -> Result<Packet, CarrierError> {
        Ok(self.guest.turn(&message))
    }

    fn post(&self, message: Packet) {
        self.guest.turn(&message);
    }
}
