//! Models that a program of the user's own answers: one run of it, as a Messages reply
//! (decisions 3, 7, 16).
//!
//! It stands in the place of a request to a service; who is asked, what a failure costs and who is
//! asked next is decided where it is decided for those.

mod wire;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::http::response::Parts;
use hyper::{Response, StatusCode};
use moltbot_core::{
    BodyNeed, ChatView, Decoder, Event, Failure, FailureKind, Header, Origin, ProviderError, redact,
};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::agent::{Access, Agent, Route};
use super::error::error_event;
use super::forward::{Forward, Job, JobBody, Obtained, Tried};
use super::relay::Watch;
use super::upstream::Source;
use crate::attempt::{Answer, Trouble, Unsent};
use crate::child::{PreparedRun, perform};
use crate::compose::{Chat, Head};
use crate::setup::ProviderSetup;
pub(crate) use wire::Reader;
use wire::Writer;

/// Tells whether a provider is a program that is run, rather than a service.
pub(crate) fn is_program(setup: &ProviderSetup) -> bool {
    setup.info.body == BodyNeed::Whole
}

/// What a turn cost by the program's own reckoning, in US dollars; known before its end is told.
type Cost = Arc<OnceLock<f64>>;

/// What became of a run, once it is known.
type Outcome = Result<(Answer, Writer), Box<Failure>>;

/// Asks the program with one credential.
pub(super) async fn attempt(
    forward: &Forward<'_>,
    route: &Arc<Route>,
    access: &Arc<Access>,
    job: &Job,
) -> Tried {
    let agent = forward.agent;
    let run = match prepare(agent, route, access, job) {
        Ok(run) => run,
        Err(unsent) => return Tried::Unsent(unsent),
    };
    let stream = job.op == moltbot_core::Op::Messages && run.1;
    let (pieces, mut coming) = mpsc::unbounded_channel();
    let (done, outcome) = oneshot::channel();
    let cost = Cost::default();
    // A program belongs to the thread that keeps programs; the one that serves only listens.
    forward.programs.spawn(go(
        agent.clone(),
        route.clone(),
        access.clone(),
        run.0,
        cost.clone(),
        pieces,
        done,
    ));
    if !stream {
        return match outcome.await {
            Ok(Ok((answer, writer))) => {
                let transcript = answer.transcript;
                let stop = transcript.stop_word().map_or(Value::Null, Value::from);
                let (content, usage) = (transcript.content(), transcript.usage());
                let body = writer.message(&content, stop, &usage, &route.model.model);
                let mut whole = obtained(StatusCode::OK, &body, agent.setup(route));
                whole.watch = Some(Watch::counted(usage, transcript.cost()));
                Tried::Answered(Box::new(whole))
            }
            Ok(Err(failure)) => failed(*failure, agent, route),
            Err(_) => Tried::Unsent(Unsent::Plugin("the run was ended".into())),
        };
    }
    let Some(first) = coming.recv().await else {
        return match outcome.await {
            Ok(Err(failure)) => failed(*failure, agent, route),
            _ => Tried::Unsent(Unsent::Plugin("the run was ended".into())),
        };
    };
    let mut watch = Watch::new(Box::new(Reader::new(cost)));
    watch.push(&first);
    let mut parts = head(StatusCode::OK, agent.setup(route));
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    parts.headers.insert("cache-control", HeaderValue::from_static("no-cache"));
    Tried::Answered(Box::new(Obtained {
        parts,
        held: VecDeque::from([first]),
        source: Some(Source::Made(coming)),
        watch: Some(watch),
        stream: true,
        changed: changed(agent.setup(route)),
    }))
}

/// Runs to the end of the turn, or until nobody listens any more.
async fn go(
    agent: Arc<Agent>,
    route: Arc<Route>,
    access: Arc<Access>,
    run: PreparedRun,
    cost: Cost,
    pieces: mpsc::UnboundedSender<Bytes>,
    done: oneshot::Sender<Outcome>,
) {
    let engine = &agent.engine;
    let started = engine.now();
    let shop = engine.workshop(&access.label);
    let limits = || engine.limits;
    let mut writer = Writer::default();
    let mut shown = false;
    let sink_pieces = pieces.clone();
    let mut sink = |event: &Event| {
        if let Event::Cost { dollars } = event {
            // It is told once; the stream has no place for it.
            let _ = cost.set(*dollars);
        }
        let piece = writer.write(event, &route.model.model);
        if !piece.is_empty() {
            shown = true;
            // Nobody may listen; then the run is ended below.
            let _ = sink_pieces.send(piece);
        }
    };
    let ended = tokio::select! {
        ended = perform(&shop, agent.setup(&route), run, &limits, &mut sink) => ended,
        () = pieces.closed() => return,
    };
    let outcome = match ended {
        Ok(answer) => Ok((answer, writer)),
        Err(Trouble { ended, .. }) => {
            let failure = agent.setup(&route).entry.provider.failure(&ended, engine.now());
            if shown {
                // The client has the beginning: it learns the end the same way.
                agent.punish(&route, &access, &failure, Vec::new(), started);
                let (_, kind) = shape(failure.kind);
                let _ = pieces.send(error_event(kind, &words(&failure)));
            }
            Err(Box::new(failure))
        }
    };
    let _ = done.send(outcome);
}

/// Lets the provider translate. `true` beside the run if the client wants a stream.
fn prepare(
    agent: &Agent,
    route: &Route,
    access: &Access,
    job: &Job,
) -> Result<(PreparedRun, bool), Unsent> {
    let JobBody::Pieces(pieces) = &job.body else {
        return Err(Unsent::Invalid("a program takes no uploads".into()));
    };
    let body = match &pieces[..] {
        [whole] => whole.clone(),
        pieces => Bytes::from(pieces.concat()),
    };
    let text = std::str::from_utf8(&body)
        .map_err(|_| Unsent::Invalid("the body is not valid UTF-8".into()))?;
    let setup = agent.setup(route);
    let headers: Vec<Header<'static>> = job
        .headers
        .clone()
        .forwarded()
        .iter()
        .filter_map(|(name, value)| {
            Some(Header::new(name.to_string(), value.to_str().ok()?.to_string()))
        })
        .collect();
    let view = ChatView {
        op: job.op,
        origin: Origin::Forwarded,
        base_url: setup.base_url.as_str().into(),
        path: job.path.as_str().into(),
        query: job.query.as_str().into(),
        headers: headers.as_slice().into(),
        extra: route.extra.as_slice().into(),
        model: route.model.model.as_str().into(),
        params: Cow::Borrowed(&route.params),
        found: Vec::new().into(),
        body: Some(text.into()),
    };
    let exchange = setup.entry.provider.request(&view, &access.view, agent.engine.now());
    let exchange = exchange.map_err(|error| match error {
        // Said as its own service would say it: the sentence is for the client.
        ProviderError::Invalid { message } => Unsent::Invalid(message),
        other => other.into(),
    })?;
    let head = Head { model: route.model.model.clone(), ..Head::default() };
    let query = job.query.clone();
    let chat = Chat { op: job.op, query, headers, body: body.clone(), head };
    let run = PreparedRun::of(&chat, &exchange, &access.credential);
    let run = run.ok_or_else(|| Unsent::Plugin("it wants to send what is to be run".into()))??;
    let stream = serde_json::from_str::<Value>(text).is_ok_and(|body| body["stream"] == true);
    Ok((run, stream))
}

fn failed(failure: Failure, agent: &Agent, route: &Route) -> Tried {
    let (status, kind) = shape(failure.kind);
    let error = json!({ "type": kind, "message": words(&failure) });
    let body = json!({ "type": "error", "error": error });
    let mut answer = obtained(status, &body, agent.setup(route));
    if let Some(reset) = failure.reset {
        let wait = u64::try_from(reset.since(agent.engine.now())).unwrap_or(0).div_ceil(1_000);
        answer.parts.headers.insert(RETRY_AFTER, HeaderValue::from(wait));
    }
    Tried::Failed(failure, Some(Box::new(answer)), None)
}

fn words(failure: &Failure) -> String {
    let message = redact(&failure.message);
    match &failure.advice {
        Some(advice) => format!("{message}; {advice}"),
        None => message.into_owned(),
    }
}

/// Says how the service itself reports such a failure.
fn shape(kind: FailureKind) -> (StatusCode, &'static str) {
    let overloaded = StatusCode::from_u16(529).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    match kind {
        FailureKind::Auth => (StatusCode::UNAUTHORIZED, "authentication_error"),
        FailureKind::Billing => (StatusCode::PAYMENT_REQUIRED, "billing_error"),
        FailureKind::RateLimit => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error"),
        FailureKind::Overloaded => (overloaded, "overloaded_error"),
        FailureKind::Timeout => (StatusCode::GATEWAY_TIMEOUT, "timeout_error"),
        FailureKind::ModelNotFound => (StatusCode::NOT_FOUND, "not_found_error"),
        FailureKind::ContextOverflow | FailureKind::Format => {
            (StatusCode::BAD_REQUEST, "invalid_request_error")
        }
        _ => (StatusCode::BAD_GATEWAY, "api_error"),
    }
}

fn obtained(status: StatusCode, body: &Value, setup: &ProviderSetup) -> Obtained {
    let mut parts = head(status, setup);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Obtained {
        parts,
        held: VecDeque::from([Bytes::from(body.to_string())]),
        source: None,
        watch: None,
        stream: false,
        changed: changed(setup),
    }
}

fn head(status: StatusCode, _: &ProviderSetup) -> Parts {
    let mut parts = Response::new(()).into_parts().0;
    parts.status = status;
    parts.headers = HeaderMap::new();
    parts
}

/// Tells the client that its request was not sent on but put to a program.
fn changed(setup: &ProviderSetup) -> Vec<moltbot_core::Text> {
    vec![format!("runtime={}", setup.id).into()]
}

impl Agent {
    /// Returns who reads the stream that this door sends for a model.
    pub(crate) fn decoder(&self, model: &str) -> Option<Box<dyn Decoder>> {
        let parsed = self.engine.models().parse(model).ok()?;
        let setup = self.setup_of(&parsed.model)?;
        Some(match is_program(setup) {
            true => Box::new(Reader::new(Cost::default())),
            false => setup.entry.provider.decoder(moltbot_core::DecoderMode::Full),
        })
    }

    /// Returns who answers for a model: its provider, or the program the config names for it.
    pub(crate) fn setup_of(&self, model: &crate::model::ModelRef) -> Option<&ProviderSetup> {
        let runtime = self.engine.models().runtime(model);
        self.engine.provider(runtime.unwrap_or(&model.provider))
    }

    /// Tells whether the agent's own model is answered by a program, so that there may be no
    /// service at all.
    pub(crate) fn has_program(&self) -> bool {
        self.setup_of(&self.engine.models().primary().model).is_some_and(is_program)
    }
}

/// The thread that programs belong to; what it runs ends with it.
#[derive(Clone, Debug)]
pub(crate) struct Programs(Handle);

impl Programs {
    pub(crate) fn new(handle: Handle) -> Self {
        Self(handle)
    }

    fn spawn(&self, run: impl Future<Output = ()> + Send + 'static) {
        drop(self.0.spawn(run));
    }
}
