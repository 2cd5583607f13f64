//! Providers and decoders as the host calls them, wherever they run.

use std::sync::Arc;

use moltbot_core::{
    ChatView, CredentialKind, CredentialView, Decoder, DecoderMode, Ended, Event, Exchange,
    Failure, Header, Observed, Provider, ProviderCaps, ProviderError, ProviderInfo, Timestamp,
};

use crate::Carrier;
use crate::chunk::{Chunk, Chunker};
use crate::method::{OpenTask, plain, session, turn};
use crate::wire::{CallError, HostCall, HostMessage, Step, encode};

/// A provider: linked into this binary, or on the other side of a carrier.
#[derive(Clone)]
pub enum ProviderHandle {
    /// In this binary; called directly.
    Linked(&'static dyn Provider),
    /// Behind a carrier.
    Carried(Arc<CarriedProvider>),
}

/// A provider behind a carrier.
pub struct CarriedProvider {
    id: String,
    carrier: Arc<dyn Carrier>,
    /// What it said about itself in its hello.
    info: Option<ProviderInfo>,
}

impl CarriedProvider {
    pub(crate) fn new(id: String, carrier: Arc<dyn Carrier>, info: Option<ProviderInfo>) -> Self {
        Self { id, carrier, info }
    }
}

impl ProviderHandle {
    /// Describes the service.
    pub async fn info(&self) -> Result<ProviderInfo, ProviderError> {
        match self {
            Self::Linked(provider) => Ok(provider.info()),
            Self::Carried(it) => match &it.info {
                Some(info) => Ok(info.clone()),
                None => plain(&it.carrier, HostCall::Info { provider: &it.id }).await,
            },
        }
    }

    /// Says what a kind of credential can do.
    pub async fn caps(&self, kind: &CredentialKind) -> Result<ProviderCaps, ProviderError> {
        match self {
            Self::Linked(provider) => Ok(provider.caps(kind)),
            Self::Carried(it) => {
                plain(&it.carrier, HostCall::Caps { provider: &it.id, kind }).await
            }
        }
    }

    /// Translates a chat into one exchange.
    pub async fn request(
        &self,
        chat: &ChatView<'_>,
        with: &CredentialView<'_>,
        now: Timestamp,
    ) -> Result<Exchange, ProviderError> {
        match self {
            Self::Linked(provider) => provider.request(chat, with, now),
            Self::Carried(it) => {
                let call = HostCall::Request { provider: &it.id, chat, with, now };
                plain(&it.carrier, call).await
            }
        }
    }

    /// Says what went wrong and whose fault it was.
    pub async fn failure(&self, ended: &Ended, now: Timestamp) -> Result<Failure, ProviderError> {
        match self {
            Self::Linked(provider) => Ok(provider.failure(ended, now)),
            Self::Carried(it) => {
                plain(&it.carrier, HostCall::Failure { provider: &it.id, ended, now }).await
            }
        }
    }

    /// Reads what a reply's headers tell.
    pub async fn observe(
        &self,
        headers: &[Header<'_>],
        now: Timestamp,
    ) -> Result<Observed, ProviderError> {
        match self {
            Self::Linked(provider) => Ok(provider.observe(headers, now)),
            Self::Carried(it) => {
                plain(&it.carrier, HostCall::Observe { provider: &it.id, headers, now }).await
            }
        }
    }

    /// Starts a decoder.
    pub async fn decoder(&self, mode: DecoderMode) -> Result<DecoderHandle, ProviderError> {
        match self {
            Self::Linked(provider) => Ok(DecoderHandle::Linked(provider.decoder(mode))),
            Self::Carried(it) => {
                let call = HostCall::Decoder { provider: &it.id, mode };
                let message = encode(&HostMessage::Start { call });
                let carrier = session(&it.carrier)?;
                match turn::<Vec<Event>, ProviderError>(&carrier, message).await? {
                    Step::Need { task, .. } => Ok(DecoderHandle::Carried(CarriedDecoder {
                        carrier,
                        task: Some(task),
                        chunker: Chunker::default(),
                    })),
                    Step::Fail { error } => Err(error),
                    Step::Done { .. } | Step::Unknown => {
                        Err(ProviderError::plugin("its decoder did not start"))
                    }
                }
            }
        }
    }
}

/// A decoder at work. After an error nothing more can be decoded.
pub enum DecoderHandle {
    /// In this binary.
    Linked(Box<dyn Decoder>),
    /// Behind a carrier.
    Carried(CarriedDecoder),
}

/// A decoder behind a carrier; dropping it ends it there.
pub struct CarriedDecoder {
    carrier: Arc<dyn Carrier>,
    task: Option<u64>,
    chunker: Chunker,
}

impl DecoderHandle {
    /// Takes the next bytes and appends the events they complete. A carried decoder may see the
    /// last three bytes with the next call, when they begin a character.
    pub async fn push(
        &mut self,
        bytes: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), ProviderError> {
        match self {
            Self::Linked(decoder) => {
                decoder.push(bytes, events);
                Ok(())
            }
            Self::Carried(decoder) => match decoder.chunker.push(bytes) {
                Some(chunk) => decoder.feed(&chunk, events).await,
                None => Ok(()),
            },
        }
    }

    /// Says that no more bytes come.
    pub async fn end(&mut self, events: &mut Vec<Event>) -> Result<(), ProviderError> {
        match self {
            Self::Linked(decoder) => {
                decoder.end(events);
                Ok(())
            }
            Self::Carried(decoder) => {
                if let Some(chunk) = decoder.chunker.rest() {
                    decoder.feed(&chunk, events).await?;
                }
                decoder.feed(&Chunk::End {}, events).await
            }
        }
    }
}

impl CarriedDecoder {
    async fn feed(&mut self, chunk: &Chunk, events: &mut Vec<Event>) -> Result<(), ProviderError> {
        let Some(task) = self.task.take() else {
            return Err(ProviderError::plugin("its decoder has ended"));
        };
        // Until the answer is there the task is not known to be alive; dropping this future then
        // must still end it.
        let mut open = OpenTask { carrier: &self.carrier, task: Some(task) };
        let message = HostMessage::Resume { task, replies: &[], chunk: Some(chunk) };
        let step = turn::<Vec<Event>, ProviderError>(&self.carrier, encode(&message)).await?;
        match step {
            Step::Need { task, events: more, .. } => {
                open.task = None;
                self.task = Some(task);
                events.extend(more);
                Ok(())
            }
            Step::Done { value } => {
                open.task = None;
                events.extend(value);
                Ok(())
            }
            Step::Fail { error } => {
                open.task = None;
                Err(error)
            }
            Step::Unknown => {
                Err(ProviderError::plugin("its step is of a kind this version does not know"))
            }
        }
    }
}

impl Drop for CarriedDecoder {
    fn drop(&mut self) {
        drop(OpenTask { carrier: &self.carrier, task: self.task.take() });
    }
}
