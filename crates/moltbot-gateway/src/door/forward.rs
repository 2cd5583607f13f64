//! One request from the door to a reply of a service: credential after credential, until one
//! answers or none is left (decision "Failure scope").

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::http::response::Parts;
use hyper::{Method, StatusCode};
use moltbot_core::{
    ChatView, DecoderMode, Ended, Event, Exchange, Failure, FailureKind, Found, Header,
    NetworkFault, Op, Origin, ProviderError, Scope, Slot, Splice, Text, Timestamp, redact,
};
use moltbot_profiles::remaining_text;
use tokio::time::{Instant, timeout_at};

use super::agent::{Access, Agent, Route};
use super::alarm::Alarm;
use super::body::{Capped, OutBody};
use super::child::{self, Programs};
use super::error::Refusal;
use super::headers::ClientHeaders;
use super::log::Ticket;
use super::own_login;
use super::ready::{Made, Seen};
use super::relay::Watch;
use super::settings::Settings;
use super::upstream::{Lost, Outgoing, Pool, Source};
use crate::attempt::Unsent;
use crate::http::Limits;
use crate::waiting::Place;

/// Credentials asked for one request.
const MOST_ATTEMPTS: usize = 8;

/// How much of a stream is held back while nothing of it can be told from a sign of life.
const MOST_HELD: usize = 64 << 10;

/// How much of an error is read before it is classified.
const ERROR_BODY: usize = 64 << 10;
const ERROR_BODY_MS: u64 = 10_000;

/// A request to be sent on.
pub(crate) struct Job {
    pub(crate) op: Op,
    pub(crate) method: Method,
    /// The path a client used, for what is passed through.
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: ClientHeaders,
    pub(crate) body: JobBody,
    /// What tells its conversation from others.
    pub(crate) conversation: Option<u64>,
    /// The client's own login, sent as it is in the place of any credential.
    pub(crate) login: Option<HeaderValue>,
    /// What was changed at the door already.
    pub(crate) changed: Vec<Text>,
    /// Whether no other credential will be asked, so that the headers need not be kept.
    pub(crate) last: bool,
    /// What kept the last credential from answering.
    pub(crate) failure: Option<FailureKind>,
}

/// The body of a request.
pub(crate) enum JobBody {
    /// At hand, hence sent again if need be.
    Pieces(Vec<Bytes>),
    /// Sent while it comes, hence once.
    Stream(Option<Capped>),
}

/// What a service answered.
pub(crate) struct Obtained {
    pub(crate) parts: Parts,
    pub(crate) held: VecDeque<Bytes>,
    pub(crate) source: Option<Source>,
    pub(crate) watch: Option<Watch>,
    pub(crate) stream: bool,
    pub(crate) changed: Vec<Text>,
}

/// Sends requests on for one agent.
pub(crate) struct Forward<'a> {
    pub(crate) agent: &'a Arc<Agent>,
    pub(crate) settings: &'a Settings,
    pub(crate) pool: &'a Arc<Pool>,
    pub(crate) programs: &'a Programs,
    pub(crate) alarm: &'a Alarm,
}

/// What came of one credential.
pub(super) enum Tried {
    Answered(Box<Obtained>),
    Failed(Failure, Option<Box<Obtained>>, Option<Lost>),
    Unsent(Unsent),
}

impl Forward<'_> {
    /// Asks one credential after the other.
    pub(crate) async fn obtain(
        &self,
        mut route: Arc<Route>,
        raw: &str,
        job: &mut Job,
        found: &[Found<'_>],
        ticket: &mut Ticket,
    ) -> Result<Box<Obtained>, Refusal> {
        if ticket.note.tries.is_empty() {
            self.agent.engine.budget().request();
        }
        let mut place = None;
        if route.credentials.is_empty() && route.resting.is_some() {
            (route, place) = Box::pin(self.wait(route, raw)).await?;
        }
        if route.credentials.is_empty() {
            return Err(none(&route, self.agent.engine.now()));
        }
        let mut queue: VecDeque<Arc<Access>> = match job.conversation {
            Some(conversation) => self.agent.arrange(&route, conversation).into(),
            None => self.agent.next_turn(&route).into(),
        };
        let (mut moved, mut reread) = (false, false);
        let mut last: Option<Box<Obtained>> = None;
        let mut words = String::new();
        let mut fault = None;
        while let Some(access) = queue.pop_front() {
            let access = match access.renew {
                true => Box::pin(self.renewed(&access, raw, false)).await.unwrap_or(access),
                false => access,
            };
            ticket.leaves(&route.label, &access.label);
            let started = self.agent.engine.now();
            let tried = match child::is_program(self.agent.setup(&route)) {
                true => Box::pin(child::attempt(self, &route, &access, job)).await,
                false => {
                    job.last = queue.is_empty() && !access.rereads;
                    self.attempt(&route, &access, job, found, started).await
                }
            };
            // Whoever waited shows the others whether the rest is over.
            drop(place.take());
            let (failure, answer, lost) = match tried {
                Tried::Answered(obtained) => {
                    ticket.heard(&obtained.parts);
                    ticket.succeeded();
                    job.failure = None;
                    let provider = self.agent.setup(&route).entry.provider;
                    let now = self.agent.engine.now();
                    let observed = provider.observe(&view(&obtained.parts.headers), now);
                    self.agent.reward(&route, &access, observed, started);
                    if let Some(conversation) = job.conversation {
                        ticket.note.cache = self.agent.moved(&route, conversation, &access);
                        let profile = access.profile.clone();
                        ticket.holds = profile.map(|id| (self.agent.clone(), conversation, id));
                    }
                    if let Some(conversation) = job.conversation
                        && let Some(before) = self.agent.stick(conversation, &access)
                    {
                        ticket.note.warnings.push(format!(
                            "the conversation moved from {before} to {}: signed thinking of its \
                             earlier turns may be dropped",
                            access.label
                        ));
                    }
                    return Ok(obtained.telling(&job.changed));
                }
                Tried::Unsent(Unsent::Invalid(message)) => return Err(Refusal::invalid(message)),
                Tried::Unsent(
                    Unsent::Credential(why) | Unsent::Origin(why) | Unsent::Plugin(why),
                ) => {
                    words = redact(&why).into_owned();
                    continue;
                }
                Tried::Failed(failure, answer, lost) => (failure, answer, lost),
            };
            let mut quotas = Vec::new();
            if let Some(answer) = answer {
                ticket.heard(&answer.parts);
                let provider = self.agent.setup(&route).entry.provider;
                quotas = provider.observe(&view(&answer.parts.headers), started).quotas;
                last = Some(answer);
            }
            if let Some(lost) = lost {
                words = lost.message;
                fault = Some(lost.fault);
            }
            let of_login = failure.kind == FailureKind::Auth && access.rereads;
            if of_login
                && !std::mem::replace(&mut reread, true)
                && let Some(fresh) = Box::pin(self.renewed(&access, raw, true)).await
            {
                ticket.failed(&failure, None);
                queue.push_front(fresh);
                continue;
            }
            job.failure = Some(failure.kind);
            let until = self.agent.punish(&route, &access, &failure, quotas, started);
            ticket.failed(&failure, until);
            if matches!(job.body, JobBody::Stream(_)) || ticket.note.tries.len() >= MOST_ATTEMPTS {
                break;
            }
            let of_profile = matches!(failure.scope, Scope::Profile | Scope::ProfileModel);
            match failure.scope {
                Scope::Profile | Scope::ProfileModel => {}
                Scope::Model if failure.kind == FailureKind::Overloaded && !moved => moved = true,
                Scope::Request | Scope::Model => break,
                // Another account may be served by another part of the service: worth one try,
                // unless there was no way there, or it has cost a client's patience already.
                _ if moved || fault.is_some() => break,
                _ => moved = true,
            }
            // A service in trouble is asked again by a tenth of all requests only.
            if !of_profile && (queue.is_empty() || !self.agent.engine.budget().take()) {
                break;
            }
        }
        if let Some(answer) = last {
            return Ok(answer.telling(&job.changed));
        }
        match fault {
            Some(NetworkFault::Timeout) => {
                Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, "timeout_error", words))
            }
            _ => Err(Refusal::upstream(words)),
        }
    }

    /// Waits until the first profile has rested, if that is soon: in order of arrival, and never
    /// longer in all than the config says. The place is held until its request was answered.
    async fn wait(
        &self,
        mut route: Arc<Route>,
        raw: &str,
    ) -> Result<(Arc<Route>, Option<Place>), Refusal> {
        let most = Duration::from_millis(self.settings.max_wait_ms);
        let came = Instant::now();
        let mut place = None;
        while let Some((_, until)) = &route.resting
            && route.credentials.is_empty()
        {
            let left = u64::try_from(until.since(self.agent.engine.now())).unwrap_or(0);
            let patience = most.saturating_sub(came.elapsed());
            if Duration::from_millis(left) > patience {
                return Ok((route, None));
            }
            if place.is_none() {
                place = self.agent.engine.waiting.queue(&route.label, patience).await;
                if place.is_none() {
                    return Ok((route, None));
                }
            } else {
                tokio::time::sleep(Duration::from_millis(left + 1)).await;
            }
            route = self.agent.route(raw, self.settings).await.map_err(Refusal::not_found)?;
        }
        Ok((route, place))
    }

    /// Renews a login and returns what it is now, if it is another.
    async fn renewed(&self, access: &Access, raw: &str, force: bool) -> Option<Arc<Access>> {
        if !self.agent.renew(access, force).await {
            return None;
        }
        let route = self.agent.route(raw, self.settings).await.ok()?;
        let fresh = route.credentials.iter().find(|fresh| fresh.label == access.label)?;
        let differs = fresh.credential.secret() != access.credential.secret();
        differs.then(|| fresh.clone())
    }

    async fn attempt(
        &self,
        route: &Arc<Route>,
        access: &Arc<Access>,
        job: &mut Job,
        found: &[Found<'_>],
        now: Timestamp,
    ) -> Tried {
        let engine = &self.agent.engine;
        let (out, changed) = match self.prepare(route, access, job, found, now) {
            Ok(ready) => ready,
            Err(unsent) => return Tried::Unsent(unsent),
        };
        let provider = self.agent.setup(route).entry.provider;
        let limits = engine.limits;
        let (parts, source) = match self.pool.send(&engine.host.http, self.alarm, out, limits).await
        {
            Ok(reply) => reply,
            Err(lost) => {
                let failure = provider.failure(&lost.ended(), engine.now());
                return Tried::Failed(failure, None, Some(lost));
            }
        };
        let kind = parts.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let stream = kind.len() >= 17 && kind[..17].eq_ignore_ascii_case(b"text/event-stream");
        let readable = parts.headers.get(CONTENT_ENCODING).is_none_or(|e| e == "identity");
        let watched = readable && job.op == Op::Messages;
        let good = parts.status.is_success();
        let watch = (watched && good).then(|| Watch::new(provider.decoder(DecoderMode::Observe)));
        let (held, source) = (VecDeque::new(), Some(source));
        let mut obtained = Box::new(Obtained { parts, held, source, watch, stream, changed });
        let ended = match () {
            () if obtained.parts.status.is_redirection() => {
                // Followed by the client it would carry the gateway's token to somebody else.
                let message = "the service answered with a redirect, which is not followed".into();
                let lost = Lost { fault: NetworkFault::Other, message };
                let failure = provider.failure(&lost.ended(), engine.now());
                return Tried::Failed(failure, None, Some(lost));
            }
            () if !good => Some(Box::pin(obtained.refusal()).await),
            () if stream && obtained.watch.is_some() => {
                match obtained.begin(self.alarm, limits).await {
                    Ok(ended) => ended,
                    Err(lost) => {
                        let failure = provider.failure(&lost.ended(), engine.now());
                        return Tried::Failed(failure, None, Some(lost));
                    }
                }
            }
            () => None,
        };
        match ended {
            None => Tried::Answered(obtained),
            Some(ended) => {
                let failure = provider.failure(&ended, engine.now());
                Tried::Failed(failure, Some(obtained), None)
            }
        }
    }

    /// Makes a request to the service out of a client's, or takes what was made of its like.
    fn prepare(
        &self,
        route: &Arc<Route>,
        access: &Arc<Access>,
        job: &mut Job,
        found: &[Found<'_>],
        now: Timestamp,
    ) -> Result<(Outgoing, Vec<Text>), Unsent> {
        let (op, query) = (job.op, job.query.as_str());
        let seen = match (found, &job.body, &job.login) {
            ([named], JobBody::Pieces(_), None) => {
                Some(Seen { op, route, access, query, named, now })
            }
            _ => None,
        };
        if let (Some(seen), JobBody::Pieces(pieces)) = (&seen, &job.body)
            && let Some(made) = self.pool.ready.find(seen, &job.headers)
        {
            let Made { target, headers, changed } = made;
            let body = OutBody::pieces(pieces.iter().cloned());
            return Ok((Outgoing::new(job.method.clone(), target, headers, body), changed));
        }
        let setup = self.agent.setup(route);
        let lines = job.headers.forwarded();
        let sent = view(lines);
        let chat = ChatView {
            op,
            origin: Origin::Forwarded,
            base_url: setup.base_url.as_str().into(),
            path: job.path.as_str().into(),
            query: query.into(),
            headers: sent.as_slice().into(),
            extra: route.extra.as_slice().into(),
            model: route.model.model.as_str().into(),
            params: std::borrow::Cow::Borrowed(&route.params),
            found: found.into(),
            body: None,
        };
        let exchange = setup.entry.provider.request(&chat, &access.view, now)?;
        let Exchange::Http { url, set, drop, splices, replace: None, changed, .. } = exchange
        else {
            return Err(Unsent::Plugin("it wants more than a request that is forwarded".into()));
        };
        let target = self.pool.target(&url, &setup.origins)?;
        if let Some(login) = &job.login {
            // Only the address is the provider's: of the rest nothing is changed.
            let (lines, login) = (lines.clone(), login.clone());
            return own_login::outgoing(job, target, lines, login);
        }
        let seen = seen.filter(|_| splices.is_empty());
        let last = job.last && seen.is_none();
        let mut headers = if last { std::mem::take(lines) } else { lines.clone() };
        for name in &drop {
            headers.remove(name.as_ref());
        }
        for (name, slot) in set {
            let (name, value) = access.header(name, slot)?;
            headers.insert(name, value);
        }
        for (name, value) in &access.headers {
            insert(&mut headers, name, value.expose())?;
        }
        if let Some(host) = target.host() {
            headers.insert(HOST, host);
        }
        let made = Made { target, headers, changed };
        if let Some(seen) = seen {
            self.pool.ready.keep(&seen, lines, &made);
        }
        let Made { target, headers, changed } = made;
        let body = match &mut job.body {
            JobBody::Stream(stream) => match stream.take() {
                Some(stream) => OutBody::Stream(stream),
                None => OutBody::pieces([]),
            },
            JobBody::Pieces(pieces) if splices.is_empty() => {
                OutBody::pieces(pieces.iter().cloned())
            }
            JobBody::Pieces(pieces) => OutBody::pieces(cut(pieces, &splices, found)?),
        };
        Ok((Outgoing::new(job.method.clone(), target, headers, body), changed))
    }
}

impl Obtained {
    /// Adds what was changed before a provider saw the request.
    fn telling(mut self: Box<Self>, changed: &[Text]) -> Box<Self> {
        let model = changed.iter().any(|what| what.starts_with("model="));
        let told = |what: &Text| changed.contains(what) || (model && what == "model");
        self.changed.retain(|what| !told(what));
        self.changed.splice(0..0, changed.iter().cloned());
        self
    }

    /// Reads what tells why the service refused; the rest, if it is long, is passed on unread.
    async fn refusal(&mut self) -> Ended {
        let mut read = 0;
        let until = Instant::now() + Duration::from_millis(ERROR_BODY_MS);
        while let Some(source) = self.source.as_mut().filter(|_| read < ERROR_BODY) {
            match timeout_at(until, source.next()).await {
                Ok(Some(Ok(piece))) => {
                    read += piece.len();
                    self.held.push_back(piece);
                }
                // What broke off is passed on as far as it came: the status is known.
                Ok(Some(Err(_)) | None) | Err(_) => {
                    self.parts.headers.remove("content-length");
                    self.source = None;
                }
            }
        }
        let mut body = Vec::with_capacity(read);
        self.held.iter().for_each(|piece| body.extend_from_slice(piece));
        body.truncate(ERROR_BODY);
        let headers = owned(&self.parts.headers);
        let body = String::from_utf8_lossy(&body).into_owned();
        Ended::Http { status: self.parts.status.as_u16(), headers, body }
    }

    /// Holds a stream back until its first event that is more than a sign of life; an error there
    /// is an end that somebody else may still make good.
    async fn begin(&mut self, alarm: &Alarm, limits: Limits) -> Result<Option<Ended>, Lost> {
        let mut read = 0;
        let patience = Duration::from_millis(limits.first_byte_ms);
        let until = Instant::now() + patience;
        while let (Some(source), Some(watch)) = (&mut self.source, &mut self.watch) {
            let idle = Duration::from_millis(limits.idle_ms);
            let piece = match alarm.limit(idle, source.next()).await {
                Some(Some(Ok(piece))) => piece,
                Some(Some(Err(error))) => {
                    let message = format!("the stream broke off before it began: {error}");
                    return Err(Lost { fault: NetworkFault::Broken, message });
                }
                Some(None) => {
                    self.source = None;
                    break;
                }
                None => {
                    let message = "the service began a stream and sent nothing".into();
                    return Err(Lost { fault: NetworkFault::Timeout, message });
                }
            };
            read += piece.len();
            let mut verdict = None;
            for event in watch.push(&piece) {
                match event {
                    Event::Ping { .. } => {}
                    Event::Error { kind, message, body, .. } => {
                        let headers = owned(&self.parts.headers);
                        let (kind, message) = (kind.clone(), message.clone());
                        let body = body.clone();
                        verdict = Some(Some(Ended::Event { kind, message, body, headers }));
                        break;
                    }
                    _ => {
                        verdict = Some(None);
                        break;
                    }
                }
            }
            self.held.push_back(piece);
            if let Some(verdict) = verdict {
                return Ok(verdict);
            }
            // A client must hear something in the end: from here on its reply is this one.
            if read > MOST_HELD || Instant::now() > until {
                break;
            }
        }
        Ok(None)
    }
}

impl Access {
    /// Makes a header of what a provider asked for. The one with the credential, which nearly every
    /// request has, is made once.
    fn header(&self, name: Text, slot: Slot) -> Result<(HeaderName, HeaderValue), Unsent> {
        let odd = || Unsent::Credential(format!("the value for the header {name} cannot be sent"));
        let key = || HeaderName::from_bytes(name.as_bytes()).map_err(|_| odd());
        if let Slot::Literal { text } = slot {
            let value = match text {
                Text::Borrowed(text) => Bytes::from_static(text.as_bytes()),
                Text::Owned(text) => Bytes::from(text),
            };
            return Ok((key()?, HeaderValue::from_maybe_shared(value).map_err(|_| odd())?));
        }
        if let Some((known, of, key, value)) = self.sent.get()
            && *known == name
            && *of == slot
        {
            return Ok((key.clone(), value.clone()));
        }
        let value = slot.fill(&self.credential).map_err(|error| match error {
            ProviderError::Credential { message } => Unsent::Credential(message),
            other => Unsent::Plugin(other.to_string()),
        })?;
        let mut value = HeaderValue::from_str(value.expose()).map_err(|_| odd())?;
        value.set_sensitive(true);
        let key = key()?;
        // Another thread may have been first, with the same.
        let _ = self.sent.set((name, slot, key.clone(), value.clone()));
        Ok((key, value))
    }
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), Unsent> {
    let odd = || Unsent::Credential(format!("the value for the header {name} cannot be sent"));
    let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| odd())?;
    headers.insert(key, HeaderValue::from_str(value).map_err(|_| odd())?);
    Ok(())
}

/// Shows headers to a provider; those that are no text stay unseen.
fn view(headers: &HeaderMap) -> Vec<Header<'_>> {
    let mut out = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        if let Ok(value) = std::str::from_utf8(value.as_bytes()) {
            out.push(Header::new(name.as_str(), value));
        }
    }
    out
}

fn owned(headers: &HeaderMap) -> Vec<Header<'static>> {
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        Header::new(name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    headers.iter().map(line).collect()
}

/// Applies splices without copying what they leave alone. The same checks as [`splice`]: ascending,
/// disjoint, within what was read.
///
/// [`splice`]: moltbot_core::splice
fn cut(pieces: &[Bytes], splices: &[Splice], found: &[Found<'_>]) -> Result<Vec<Bytes>, Unsent> {
    // Places count from the start of the body; only its first piece was read.
    let Some(body) = pieces.first().cloned() else { return Ok(Vec::new()) };
    let mut out = Vec::with_capacity(splices.len() * 2 + pieces.len());
    let mut done = 0;
    for Splice { span, text } in splices {
        let readable =
            found.iter().any(|found| found.span.start <= span.start && span.end <= found.span.end);
        if span.start < done || span.end < span.start || span.end > body.len() || !readable {
            let message = format!("a change of bytes {}..{} is not allowed", span.start, span.end);
            return Err(Unsent::Plugin(message));
        }
        out.push(body.slice(done..span.start));
        out.push(Bytes::copy_from_slice(text.as_bytes()));
        done = span.end;
    }
    out.push(body.slice(done..));
    out.extend(pieces.iter().skip(1).cloned());
    Ok(out)
}

fn none(route: &Route, now: Timestamp) -> Refusal {
    let Some((_, until)) = &route.resting else {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let text = format!("{} (moltbot explain no-credential)", route.why);
        return Refusal::new(status, "api_error", text).code("no-credential");
    };
    let left = until.since(now);
    let text = format!(
        "{}, usable in {}; `moltbot models auth cooldown list` shows all (moltbot explain all-cooling)",
        route.why,
        remaining_text(Some(left)),
    );
    let wait = u64::try_from(left).unwrap_or(0).div_ceil(1_000);
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", text)
        .code("all-cooling")
        .retry_after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;
    use moltbot_core::Span;

    #[test]
    fn splices_leave_everything_else_in_place() {
        let pieces =
            vec![Bytes::from_static(b"{\"model\":\"a\",\"x\":"), Bytes::from_static(b"1}")];
        let found =
            [Found { path: "/model".into(), span: Span::new(9, 12), value: "\"a\"".into() }];
        let change = |start, end| Splice { span: Span::new(start, end), text: "\"b\"".into() };
        let out = cut(&pieces, &[change(9, 12)], &found).unwrap().concat();
        assert_eq!(out, b"{\"model\":\"b\",\"x\":1}");
        for bad in [change(8, 12), change(9, 99), change(12, 9)] {
            assert!(cut(&pieces, &[bad], &found).is_err());
        }
    }
}
