//! One request with one credential: from the chat to the end of the reply.

use moltbot_core::{
    BodyNeed, ChatView, Credential, CredentialView, DecoderMode, Ended, Event, Exchange, Found,
    Header, Observed, Origin, ProviderError, Timestamp,
};
use serde_json::Value;

use crate::child::{PreparedRun, Workshop};
use crate::compose::Chat;
use crate::http::{Http, Limits};
use crate::model::ModelRef;
use crate::scan::{ScanOptions, scan};
use crate::send::{Prepared, SendError, prepare, send};
use crate::setup::ProviderSetup;
use crate::transcript::Transcript;

/// An exchange, ready to be performed.
#[derive(Debug)]
pub(crate) enum Ready {
    Http(Box<Prepared>),
    Run(Box<PreparedRun>),
}

impl Ready {
    /// Returns where it goes, as `https://host`; `None` for a program.
    pub(crate) fn origin(&self) -> Option<String> {
        match self {
            Self::Http(prepared) => Some(crate::http::origin(&prepared.url)),
            Self::Run(_) => None,
        }
    }
}

/// A composed chat, looked at once for its provider.
pub(crate) struct Looked<'a> {
    pub(crate) setup: &'a ProviderSetup,
    pub(crate) model: &'a ModelRef,
    pub(crate) params: &'a Value,
    pub(crate) chat: &'a Chat,
    found: Vec<Found<'a>>,
    extra: Vec<Header<'static>>,
}

/// Why a request was not sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Unsent {
    /// This credential cannot be used; another one may.
    Credential(String),
    /// The chat holds something the service cannot do.
    Invalid(String),
    /// The address is not allowed.
    Origin(String),
    /// The plugin broke its contract.
    Plugin(String),
}

impl From<SendError> for Unsent {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Origin(message) => Self::Origin(message),
            SendError::Credential(message) => Self::Credential(message),
            SendError::Plugin(message) => Self::Plugin(message),
        }
    }
}

impl From<ProviderError> for Unsent {
    fn from(error: ProviderError) -> Self {
        match error {
            ProviderError::Invalid { message } => Self::Invalid(message),
            ProviderError::Credential { message } => Self::Credential(message),
            other => Self::Plugin(other.to_string()),
        }
    }
}

impl<'a> Looked<'a> {
    /// Finds what the provider wants to see of the chat.
    pub(crate) fn new(
        setup: &'a ProviderSetup,
        model: &'a ModelRef,
        params: &'a Value,
        chat: &'a Chat,
    ) -> Result<Self, Unsent> {
        let found = scan(&chat.body, &setup.patterns, ScanOptions::default())
            .map_err(|error| Unsent::Invalid(error.to_string()))?;
        let extra = setup.extra_headers(&model.model);
        Ok(Self { setup, model, params, chat, found, extra })
    }

    /// Takes a chat that has no body, hence nothing to be found in one.
    pub(crate) fn without_body(
        setup: &'a ProviderSetup,
        model: &'a ModelRef,
        params: &'a Value,
        chat: &'a Chat,
    ) -> Self {
        let extra = setup.extra_headers(&model.model);
        Self { setup, model, params, chat, found: Vec::new(), extra }
    }

    /// Lets the provider translate, and puts the credential in. Pure.
    pub(crate) fn prepare(&self, credential: &Credential, now: Timestamp) -> Result<Ready, Unsent> {
        let exchange = self.exchange(credential, now)?;
        if let Some(run) = PreparedRun::of(self.chat, &exchange, credential) {
            return Ok(Ready::Run(Box::new(run?)));
        }
        let own = self.setup.credential_headers(&self.model.model);
        let prepared = prepare(self.chat, &self.found, &exchange, credential, &self.setup.origins)?;
        Ok(Ready::Http(Box::new(prepared.with_headers(&own)?)))
    }

    fn exchange(&self, credential: &Credential, now: Timestamp) -> Result<Exchange, ProviderError> {
        let whole = self.setup.info.body == BodyNeed::Whole;
        let body = whole.then(|| String::from_utf8_lossy(&self.chat.body));
        let view = ChatView {
            op: self.chat.op,
            origin: Origin::Composed,
            base_url: self.setup.base_url.as_str().into(),
            path: "".into(),
            query: self.chat.query.as_str().into(),
            headers: self.chat.headers.as_slice().into(),
            extra: self.extra.as_slice().into(),
            model: self.model.model.as_str().into(),
            params: std::borrow::Cow::Borrowed(self.params),
            found: self.found.as_slice().into(),
            body,
        };
        self.setup.entry.provider.request(&view, &CredentialView::of(credential), now)
    }
}

/// A whole reply.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) transcript: Transcript,
    pub(crate) observed: Observed,
    pub(crate) status: u16,
}

/// A request that was sent and did not succeed.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) ended: Ended,
    pub(crate) observed: Observed,
    /// Set if something was forwarded already: then nothing else may be tried.
    pub(crate) forwarded: Option<Transcript>,
}

/// Performs an exchange and takes in the reply. Events go to `sink` from the first one on that
/// shows something; until then another credential or model may still take over unnoticed.
pub(crate) async fn perform(
    shop: &Workshop<'_>,
    setup: &ProviderSetup,
    ready: Ready,
    limits: &(dyn Fn() -> Limits + Send + Sync),
    now: &(dyn Fn() -> Timestamp + Send + Sync),
    sink: &mut (dyn FnMut(&Event) + Send),
) -> Result<Answer, Trouble> {
    match ready {
        Ready::Http(prepared) => {
            perform_http(&shop.host.http, setup, *prepared, limits, now, sink).await
        }
        Ready::Run(run) => crate::child::perform(shop, setup, *run, limits, sink).await,
    }
}

async fn perform_http(
    http: &Http,
    setup: &ProviderSetup,
    prepared: Prepared,
    limits: &(dyn Fn() -> Limits + Send + Sync),
    now: &(dyn Fn() -> Timestamp + Send + Sync),
    sink: &mut (dyn FnMut(&Event) + Send),
) -> Result<Answer, Trouble> {
    let provider = setup.entry.provider;
    let mut live = match send(http, prepared, limits()).await {
        Ok(live) => live,
        Err(ended) => {
            let observed = match &ended {
                Ended::Http { headers, .. } => provider.observe(headers, now()),
                _ => Observed::default(),
            };
            return Err(Trouble { ended, observed, forwarded: None });
        }
    };
    let observed = provider.observe(&live.headers, now());
    let mut decoder = provider.decoder(DecoderMode::Full);
    let mut stream = Stream::default();
    let mut events = Vec::new();
    let ended = loop {
        let (fault, over) = match live.chunk(limits()).await {
            Ok(Some(bytes)) => {
                decoder.push(&bytes, &mut events);
                (None, false)
            }
            Ok(None) => {
                decoder.end(&mut events);
                (None, true)
            }
            Err(ended) => (Some(ended), true),
        };
        match stream.take(&mut events, &live.headers, sink) {
            Step::Done => {
                // One more look, so that the connection is whole again for the next request.
                let short = Limits { idle_ms: 20, ..limits() };
                let _ = live.chunk(short).await;
                let (transcript, status) = (stream.transcript, live.status);
                return Ok(Answer { transcript, observed, status });
            }
            Step::Failed(ended) => break ended,
            Step::More if over => {
                break fault.unwrap_or_else(|| Ended::Event {
                    kind: "incomplete".into(),
                    message: "the reply broke off".into(),
                    body: Value::Null,
                    headers: live.headers.clone(),
                });
            }
            Step::More => {}
        }
    };
    let forwarded = stream.shown.then_some(stream.transcript);
    Err(Trouble { ended, observed, forwarded })
}

#[derive(Default)]
pub(crate) struct Stream {
    transcript: Transcript,
    /// Events that show nothing yet.
    held: Vec<Event>,
    shown: bool,
}

pub(crate) enum Step {
    More,
    Done,
    Failed(Ended),
}

impl Stream {
    /// Returns what came, and whether any of it was shown.
    pub(crate) fn into_parts(self) -> (Transcript, bool) {
        (self.transcript, self.shown)
    }

    /// Takes events in, and hands them on once one of them shows something.
    pub(crate) fn take(
        &mut self,
        events: &mut Vec<Event>,
        headers: &[Header<'static>],
        sink: &mut (dyn FnMut(&Event) + Send),
    ) -> Step {
        for event in events.drain(..) {
            self.transcript.push(&event);
            if let Event::Error { kind, message, body, .. } = event {
                return Step::Failed(Ended::Event {
                    kind,
                    message,
                    body,
                    headers: headers.to_vec(),
                });
            }
            let done = matches!(event, Event::TurnEnd { .. });
            if self.shown {
                sink(&event);
            } else {
                self.shown = shows(&event);
                self.held.push(event);
                if self.shown {
                    self.held.drain(..).for_each(|event| sink(&event));
                }
            }
            if done {
                return Step::Done;
            }
        }
        Step::More
    }
}

/// Tells whether an event shows the user something that cannot be taken back.
fn shows(event: &Event) -> bool {
    match event {
        Event::Text { text, .. } | Event::Thinking { text, .. } => !text.is_empty(),
        Event::BlockStart { block, .. } => {
            ["text", "thinking"].iter().any(|m| block[m].as_str().is_some_and(|t| !t.is_empty()))
        }
        Event::Input { .. } | Event::BlockEnd { .. } | Event::TurnEnd { .. } => true,
        _ => false,
    }
}
