//! From a request's head to its handler: who asks, for what, in whose language (spec 06).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use moltbot_core::{FailureKind, Found, Op, RecordId, Span, Text, Timestamp};

use super::access::{
    AGENT_ID, API_KEY, API_VERSION, REQUEST_ID, SESSION_KEY, check, check_content, client, find,
};
use super::agent::{Agent, PINNED, mix};
use super::alarm::Alarm;
use super::autocache;
use super::body::{Capped, DoorBody};
use super::child::is_program;
use super::error::{Refusal, Shape};
use super::forward::{Forward, Job, JobBody, Obtained};
use super::headers::{ClientHeaders, clean_reply};
use super::log::Ticket;
use super::named::Naming;
use super::relay::{Breaking, Relay};
use super::shared::{Shared, State};
use super::upstream::Pool;
use super::written::code_of;
use super::{access, models, openai, own_login};
use crate::scan::{ScanError, ScanOptions, scan};

/// One worker's door.
pub(crate) struct Door {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Arc<Pool>,
    /// Makes the ids of requests differ; nothing depends on nobody guessing them.
    random: AtomicU64,
    naming: Naming,
    nobody: Arc<str>,
}

/// What a path stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Root,
    Health,
    Ready,
    Metrics,
    Messages,
    CountTokens,
    Models,
    Model,
    /// Batches and files.
    Through,
    ChatCompletions,
    Responses,
    Nowhere,
}

impl Place {
    fn of(path: &str) -> Self {
        match path {
            "/" => Self::Root,
            "/healthz" => Self::Health,
            "/readyz" => Self::Ready,
            "/metrics" => Self::Metrics,
            "/v1/messages" => Self::Messages,
            "/v1/messages/count_tokens" => Self::CountTokens,
            "/v1/models" => Self::Models,
            "/v1/messages/batches" | "/v1/files" => Self::Through,
            "/v1/chat/completions" => Self::ChatCompletions,
            "/v1/responses" => Self::Responses,
            _ if path.starts_with("/v1/messages/batches/") || path.starts_with("/v1/files/") => {
                Self::Through
            }
            _ if path.strip_prefix("/v1/models/").is_some_and(|id| !id.is_empty()) => Self::Model,
            _ => Self::Nowhere,
        }
    }

    /// Whether it is what clients come for, hence leaves a record.
    fn is_served(&self) -> bool {
        !matches!(self, Self::Root | Self::Health | Self::Ready | Self::Metrics | Self::Nowhere)
    }

    /// The method it wants, if it wants one.
    fn method(&self) -> Option<&'static str> {
        match self {
            Self::Messages | Self::CountTokens | Self::ChatCompletions | Self::Responses => {
                Some("POST")
            }
            Self::Health | Self::Ready | Self::Metrics | Self::Models | Self::Model => Some("GET"),
            Self::Root => Some("HEAD"),
            Self::Through | Self::Nowhere => None,
        }
    }
}

/// What a client sent for a model.
pub(super) struct Sent {
    op: Op,
    query: String,
    headers: ClientHeaders,
    session: Option<u64>,
    login: Option<HeaderValue>,
    pub(super) pieces: Vec<Bytes>,
    /// Where the body names its model.
    named: Span,
}

/// What is known of a request before its body is read.
pub(crate) struct Asked<'a> {
    pub(crate) state: &'a State,
    pub(crate) token: &'a access::Token,
    pub(crate) agent: Arc<Agent>,
    pub(crate) shape: Shape,
    pub(crate) alarm: &'a Arc<Alarm>,
}

/// A connection of a client.
pub(crate) struct Here {
    pub(super) local: SocketAddr,
    peer: SocketAddr,
    /// How a client names this end of it.
    pub(super) name: String,
    alarm: Arc<Alarm>,
}

impl Here {
    pub(crate) fn new(local: SocketAddr, peer: SocketAddr, alarm: Arc<Alarm>) -> Self {
        Self { local, peer, name: local.to_string(), alarm }
    }
}

impl Door {
    pub(crate) fn new(shared: Arc<Shared>, seed: u64) -> Self {
        Self {
            shared,
            pool: Arc::default(),
            random: AtomicU64::new(seed),
            naming: Naming::default(),
            nobody: "-".into(),
        }
    }

    /// Answers one request.
    pub(crate) async fn serve(
        &self,
        here: &Here,
        head: &mut Parts,
        body: Incoming,
    ) -> Response<DoorBody> {
        // A body without a length ends the connection, so that two readings of its end cannot
        // make one request of it and another of what follows.
        let unsized_body = head.headers.contains_key(TRANSFER_ENCODING);
        let mut response = self.answer(here, head, body).await;
        if unsized_body || self.shared.is_draining() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn answer(&self, here: &Here, head: &mut Parts, body: Incoming) -> Response<DoorBody> {
        let place = Place::of(head.uri.path());
        if place == Place::Health && head.method == Method::GET {
            return json_response(Bytes::from_static(b"{\"ok\":true}"));
        }
        let now = self.shared.clock.now();
        let random = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let letters = RecordId::letters(now, random >> 12);
        let id = std::str::from_utf8(&letters).expect("letters of ASCII");
        let is_ours =
            || [&API_VERSION, &API_KEY].iter().any(|name| head.headers.contains_key(*name));
        let shape = match place {
            Place::ChatCompletions | Place::Responses => Shape::OpenAi,
            Place::Nowhere if head.uri.path().starts_with("/v1/responses/") => Shape::OpenAi,
            Place::Models | Place::Model if !is_ours() => Shape::OpenAi,
            _ => Shape::Messages,
        };
        let journal = self.shared.journal.clone();
        let mut ticket = Some(Ticket::new(journal, id, now, head, &self.nobody));
        let state = self.shared.state();
        let answered = match self.admit(&state, here, &place, head, shape, now, &mut ticket) {
            Ok(asked) => self.handle(&asked, place, head, body, &mut ticket).await,
            Err(refusal) => Err(refusal),
        };
        let mut response = answered.unwrap_or_else(|refusal| {
            if let Some(ticket) = &mut ticket {
                let code = refusal.code.unwrap_or_else(|| code_of(refusal.kind));
                ticket.note.code.get_or_insert(code.into());
                ticket.note.trouble = Some(refusal.kind.to_string());
            }
            refusal.response(shape, Some(id))
        });
        if let Some(mut ticket) = ticket {
            ticket.note.status = response.status().as_u16();
            ticket.note.done = true;
        }
        if let Ok(value) = HeaderValue::from_bytes(&letters) {
            response.headers_mut().insert(REQUEST_ID.clone(), value);
        }
        response
    }

    #[expect(clippy::too_many_arguments, reason = "everything a request's head consists of")]
    fn admit<'s>(
        &self,
        state: &'s State,
        here: &'s Here,
        place: &Place,
        head: &Parts,
        shape: Shape,
        now: Timestamp,
        ticket: &mut Option<Ticket>,
    ) -> Result<Asked<'s>, Refusal> {
        check(&state.settings, here, &head.uri, &head.headers)?;
        let hidden = match place {
            Place::ChatCompletions => !state.settings.chat_completions,
            Place::Responses => state.settings.responses.is_none(),
            _ => false,
        };
        if hidden {
            return Err(nowhere(head.uri.path()));
        }
        let wait = |message| {
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message).retry_after(60)
        };
        let client = client(&state.settings.trusted_proxies, here.peer.ip(), &head.headers);
        if self.shared.failures.is_barred(client, now) {
            return Err(wait("too many wrong tokens from this address"));
        }
        let Some(token) = find(&state.tokens, &head.headers) else {
            if self.shared.failures.note(client, now) {
                return Err(wait("too many wrong tokens from this address"));
            }
            return Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "authentication_error",
                "invalid gateway token; `moltbot gateway env` prints what a client needs",
            ));
        };
        let wanted = head.headers.get(&AGENT_ID);
        let wanted = wanted.map(|name| name.to_str().unwrap_or_default());
        let agent = state.agent(token, wanted)?;
        if let Some(ticket) = ticket {
            ticket.note.token = token.name.clone();
            ticket.note.agent = agent.name.clone();
            ticket.note.recorded = place.is_served();
            ticket.admitted = Some(token.admit(now)?);
        }
        if *place == Place::Nowhere {
            return Err(nowhere(head.uri.path()));
        }
        let get = *place == Place::Root && head.method == Method::GET;
        if let Some(method) = place.method()
            && head.method.as_str() != method
            && !get
        {
            let text = format!("{} takes {method} only", head.uri.path());
            let mut refusal =
                Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", text);
            refusal.allow = Some(method);
            return Err(refusal);
        }
        Ok(Asked { state, token, agent, shape, alarm: &here.alarm })
    }

    async fn handle(
        &self,
        asked: &Asked<'_>,
        place: Place,
        head: &mut Parts,
        body: Incoming,
        ticket: &mut Option<Ticket>,
    ) -> Result<Response<DoorBody>, Refusal> {
        match place {
            Place::Root => Ok(Response::new(DoorBody::full(Bytes::new()))),
            Place::Ready => match asked.agent.is_ready(&asked.state.settings).await {
                true => Ok(json_response(Bytes::from_static(b"{\"ready\":true}"))),
                false => {
                    let text = format!("agent {} has no usable credential", asked.agent.name);
                    let status = StatusCode::SERVICE_UNAVAILABLE;
                    Err(Refusal::new(status, "api_error", text).retry_after(5))
                }
            },
            Place::Metrics => {
                let text = Bytes::from(self.shared.journal.metrics());
                let mut response = Response::new(DoorBody::full(text));
                let kind = HeaderValue::from_static("text/plain; version=0.0.4");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                Ok(response)
            }
            Place::Messages => self.messages(asked, Op::Messages, head, body, ticket).await,
            Place::CountTokens => self.messages(asked, Op::CountTokens, head, body, ticket).await,
            Place::Models | Place::Model
                if asked.shape == Shape::OpenAi
                    || asked.token.access.models.is_some()
                    || asked.agent.has_program() =>
            {
                models::answer(asked, head.uri.path()).map(json_response)
            }
            Place::Models => Box::pin(self.through(asked, Op::Models, head, None, ticket)).await,
            Place::Model => {
                Box::pin(self.through(asked, Op::PassThrough, head, None, ticket)).await
            }
            Place::Through => {
                if asked.token.access.models.is_some() {
                    return Err(Refusal::forbidden(
                        "this token is limited to some models, hence has no batches and files",
                    ));
                }
                let multipart = head.uri.path() == "/v1/files" && head.method == Method::POST;
                check_content(&head.method, &head.headers, multipart, !body.is_end_stream())?;
                let most = self.shared.tuning.max_upload;
                if length(head).is_some_and(|length| length > most) {
                    return Err(too_large(most));
                }
                let body = Capped::new(body, most);
                Box::pin(self.through(asked, Op::PassThrough, head, Some(body), ticket)).await
            }
            // The rarer ways stay out of the size that every request has.
            Place::ChatCompletions | Place::Responses => {
                let dialect = match asked.state.settings.responses {
                    Some(most) if place == Place::Responses => openai::Dialect::Responses(most),
                    _ => openai::Dialect::Chat,
                };
                Box::pin(openai::answer(dialect, self, asked, head, body, ticket)).await
            }
            Place::Health | Place::Nowhere => Err(nowhere(head.uri.path())),
        }
    }

    /// The Messages API itself: bytes in, bytes out.
    async fn messages(
        &self,
        asked: &Asked<'_>,
        op: Op,
        head: &mut Parts,
        body: Incoming,
        ticket: &mut Option<Ticket>,
    ) -> Result<Response<DoorBody>, Refusal> {
        check_content(&head.method, &head.headers, false, true)?;
        let pieces = self.receive(asked.alarm, head, body).await?;
        self.forward_body(asked, op, head, pieces, ticket).await?.into_response(asked, ticket)
    }

    /// Sends a Messages body on, whoever wrote it.
    ///
    /// Where the config allows it, another model may answer instead of the one asked for.
    pub(crate) async fn forward_body(
        &self,
        asked: &Asked<'_>,
        op: Op,
        head: &mut Parts,
        mut pieces: Vec<Bytes>,
        ticket: &mut Option<Ticket>,
    ) -> Result<Box<Obtained>, Refusal> {
        let ticket = ticket.as_mut().expect("handed over only with a reply");
        let (raw, named) = match self.naming.model_of(&pieces) {
            Some(found) => found,
            None => {
                join(&mut pieces);
                self.naming.model_or_why(&pieces, head)?
            }
        };
        let session = head.headers.get(&SESSION_KEY).map(|key| mix(1, key.as_bytes()));
        let login = own_login::find(asked, &head.headers);
        let headers = ClientHeaders::new(std::mem::take(&mut head.headers));
        let query = head.uri.query().unwrap_or_default().to_string();
        let mut sent = Sent { op, query, headers, session, login, pieces, named };
        if !asked.state.settings.model_fallback || op != Op::Messages || sent.login.is_some() {
            return self.ask_model(asked, &raw, &mut sent, None, ticket).await.0;
        }
        Box::pin(self.ask_models(asked, &raw, sent, ticket)).await
    }

    /// Sends a body on to one model. With `instead` that model stands in for another one.
    pub(super) async fn ask_model(
        &self,
        asked: &Asked<'_>,
        raw: &str,
        sent: &mut Sent,
        instead: Option<Text>,
        ticket: &mut Ticket,
    ) -> (Result<Box<Obtained>, Refusal>, Option<FailureKind>) {
        let mut failure = None;
        let answer = self.ask(asked, raw, sent, instead, ticket, &mut failure).await;
        (answer, failure)
    }

    async fn ask(
        &self,
        asked: &Asked<'_>,
        raw: &str,
        sent: &mut Sent,
        instead: Option<Text>,
        ticket: &mut Ticket,
        failure: &mut Option<FailureKind>,
    ) -> Result<Box<Obtained>, Refusal> {
        let Sent { op, session, pieces, named, .. } = sent;
        let limited = asked.token.access.models.is_some();
        let route = asked.agent.route(raw, &asked.state.settings).await;
        let mut route = route.map_err(Refusal::not_found)?;
        if !asked.token.allows(&[raw, &route.label, &route.model.model]) {
            let text = format!("this token may not ask for the model {raw}");
            return Err(Refusal::forbidden(text));
        }
        let mut changed: Vec<Text> = instead.into_iter().collect();
        let login = sent.login.clone().filter(|_| !is_program(asked.agent.setup(&route)));
        if login.is_some() {
            route = own_login::route(&route);
        }
        let several = route.credentials.len() > 1;
        let whole = route.rules || limited || (several && session.is_none());
        if whole {
            join(pieces);
        }
        if route.auto_cache
            && *op == Op::Messages
            && let Some(body) = pieces.first()
            && let Some(body) = autocache::place(body).map_err(not_usable)?
        {
            *pieces = vec![body];
            changed.push("cache_control".into());
        }
        let first = pieces.first().cloned().unwrap_or_default();
        let named = *named;
        let (scanned, alone);
        let found: &[Found<'_>] = if whole {
            let options = ScanOptions {
                refuse_duplicates: route.rules || limited,
                stop_early: !route.rules && !limited,
                ..ScanOptions::default()
            };
            scanned = scan(&first, &route.patterns, options).map_err(not_usable)?;
            &scanned
        } else {
            // It was read already, and nothing else of the body is.
            let value = first.get(named.start..named.end).unwrap_or_default();
            let value = String::from_utf8_lossy(value);
            alone = [Found { path: "/model".into(), span: named, value }];
            &alone
        };
        let conversation = session.or_else(|| several.then(|| conversation(found)));
        ticket.note.session = conversation;
        let again = asked.state.settings.model_fallback;
        let mut job = Job {
            op: *op,
            method: Method::POST,
            path: String::new(),
            query: sent.query.clone(),
            headers: if again { sent.headers.clone() } else { std::mem::take(&mut sent.headers) },
            body: JobBody::Pieces(if again { pieces.clone() } else { std::mem::take(pieces) }),
            conversation,
            login,
            changed,
            last: false,
            failure: None,
        };
        ticket.goes(&route);
        let (settings, pool) = (&asked.state.settings, &self.pool);
        let programs = &self.shared.programs;
        let forward = Forward { agent: &asked.agent, settings, pool, programs, alarm: asked.alarm };
        let answer = forward.obtain(route, raw, &mut job, found, ticket).await;
        *failure = job.failure;
        answer
    }

    /// Lists, batches and files: as they are, with one credential that does not change.
    async fn through(
        &self,
        asked: &Asked<'_>,
        op: Op,
        head: &mut Parts,
        body: Option<Capped>,
        ticket: &mut Option<Ticket>,
    ) -> Result<Response<DoorBody>, Refusal> {
        let raw = if body.is_some() { PINNED } else { "" };
        let route = asked.agent.route(raw, &asked.state.settings).await;
        let mut route = route.map_err(Refusal::not_found)?;
        let login = own_login::find(asked, &head.headers);
        if login.is_some() {
            route = own_login::route(&route);
        }
        let headers = ClientHeaders::new(std::mem::take(&mut head.headers));
        let upload = body.as_ref().map(Capped::upload);
        let path = match op {
            Op::PassThrough => format!("{} {}", head.method, head.uri.path()),
            _ => String::new(),
        };
        let mut job = Job {
            op,
            method: head.method.clone(),
            path,
            query: head.uri.query().unwrap_or_default().to_string(),
            headers,
            body: match body {
                Some(body) => JobBody::Stream(Some(body)),
                None => JobBody::Pieces(Vec::new()),
            },
            conversation: None,
            login,
            changed: Vec::new(),
            last: false,
            failure: None,
        };
        let sent = ticket.as_mut().expect("handed over only with a reply");
        let (settings, pool) = (&asked.state.settings, &self.pool);
        let programs = &self.shared.programs;
        let forward = Forward { agent: &asked.agent, settings, pool, programs, alarm: asked.alarm };
        sent.goes(&route);
        let obtained = forward.obtain(route, raw, &mut job, &[], sent).await;
        if upload.is_some_and(|upload| upload.over.load(Ordering::Relaxed)) {
            return Err(too_large(self.shared.tuning.max_upload));
        }
        obtained?.into_response(asked, ticket)
    }

    /// Reads a body whole, as the pieces it came in.
    pub(crate) async fn receive(
        &self,
        alarm: &Alarm,
        head: &Parts,
        mut body: Incoming,
    ) -> Result<Vec<Bytes>, Refusal> {
        let most = self.shared.tuning.max_body;
        if length(head).is_some_and(|length| length > most as u64) {
            return Err(too_large(most as u64));
        }
        let idle = Duration::from_millis(self.shared.tuning.body_idle_ms);
        let mut pieces = Vec::new();
        let mut read = 0;
        loop {
            let frame = match alarm.limit(idle, body.frame()).await {
                Some(Some(Ok(frame))) => frame,
                Some(None) => return Ok(pieces),
                Some(Some(Err(_))) => {
                    return Err(Refusal::invalid("the body of the request broke off").closing());
                }
                None => {
                    let text = "the body of the request did not arrive in time";
                    let status = StatusCode::REQUEST_TIMEOUT;
                    return Err(Refusal::new(status, "timeout_error", text).closing());
                }
            };
            if let Ok(piece) = frame.into_data() {
                read += piece.len();
                if read > most {
                    return Err(too_large(most as u64));
                }
                pieces.push(piece);
            }
            if body.is_end_stream() {
                return Ok(pieces);
            }
        }
    }
}

impl Obtained {
    /// Passes a service's reply on.
    pub(crate) fn into_response(
        self: Box<Self>,
        asked: &Asked<'_>,
        ticket: &mut Option<Ticket>,
    ) -> Result<Response<DoorBody>, Refusal> {
        let Self { mut parts, held, source, watch, stream, changed } = *self;
        let mut ticket = ticket.take().expect("handed over once");
        clean_reply(&mut parts.headers);
        parts.extensions.clear();
        ticket.note.status = parts.status.as_u16();
        ticket.note.changed.clone_from(&changed);
        if !changed.is_empty()
            && let Ok(value) = HeaderValue::from_str(&changed.join(", "))
        {
            parts.headers.insert("x-moltbot-changed", value);
        }
        // A stream of known length cannot grow by an error event.
        let grows = stream && !parts.headers.contains_key(CONTENT_LENGTH);
        let breaking = if grows { Breaking::Event } else { Breaking::Abort };
        let idle_ms = asked.agent.engine.limits.idle_ms;
        let relay = Relay::new(held, source, watch, breaking, idle_ms, asked.alarm.clone(), ticket);
        Ok(Response::from_parts(parts, DoorBody::Relay(Box::new(relay))))
    }
}

fn not_usable(error: ScanError) -> Refusal {
    Refusal::invalid(error.to_string())
}

/// Tells conversations apart: by the user the client names, else by what stays the same in it.
fn conversation(found: &[Found<'_>]) -> u64 {
    let user = found.iter().find(|place| place.path == "/metadata/user_id");
    if let Some(user) = user {
        return mix(2, user.value.as_bytes());
    }
    let stable = ["/system", "/tools", "/messages/0"];
    let stable = found.iter().filter(|place| stable.contains(&place.path.as_ref()));
    stable.fold(3, |hash, place| mix(hash, place.value.as_bytes()))
}

pub(super) fn join(pieces: &mut Vec<Bytes>) {
    if pieces.len() < 2 {
        return;
    }
    let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
    *pieces = vec![whole.freeze()];
}

fn length(head: &Parts) -> Option<u64> {
    head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

pub(super) fn too_large(most: u64) -> Refusal {
    let text = format!("the body is longer than {} MiB", most >> 20);
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", text).closing()
}

fn nowhere(path: &str) -> Refusal {
    let path: String = path.chars().take(200).collect();
    Refusal::not_found(format!("there is no {path} on this gateway"))
}

pub(crate) fn json_response(body: Bytes) -> Response<DoorBody> {
    let mut response = Response::new(DoorBody::full(body));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a request keeps while it waits is touched by every request, and there may be thousands.
    #[test]
    fn a_request_keeps_little() {
        fn kept<'a, F, R>(_: F) -> usize
        where
            F: FnOnce(&'a Door, &'a Here, &'a mut Parts, Incoming) -> R,
        {
            size_of::<R>()
        }
        let bytes = kept(Door::serve);
        assert!(bytes <= 3_400, "{bytes} bytes");
    }
}
