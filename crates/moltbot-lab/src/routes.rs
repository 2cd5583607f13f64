//! A request from its first byte to its reply: log, rule, checks, endpoint, headers.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cache::InputUsage;
use crate::errors::{ApiError, Limits};
use crate::fault::{Fault, Point, ReplySpec};
use crate::keys::KeyKind;
use crate::limits::{Used, rfc3339};
use crate::log::{Arrival, lock};
use crate::plan::{ActivePlan, Seen};
use crate::reply::Reply;
use crate::socket::Control;
use crate::state::{Identity, Prepared, State, json_bytes, raw_credential};
use crate::validate::{Client, Op, content_type};
use crate::wire::{Aborted, LabBody, Payload, Trace};
use crate::{control, models, oauth, sse};

/// The service's limit for a request body.
const BODY_LIMIT: usize = 32 * 1024 * 1024;

/// A reply before a fault has changed it.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) payload: Payload,
    pub(crate) limits: Limits,
    pub(crate) used: Used,
}

impl Answer {
    pub(crate) fn json(status: u16, value: &Value) -> Self {
        Self::bytes(status, Bytes::from(value.to_string()))
    }

    fn bytes(status: u16, bytes: Bytes) -> Self {
        let payload = Payload::Whole(bytes);
        let content_type = "application/json";
        Self { status, content_type, payload, limits: Limits::Absent, used: Used::default() }
    }

    fn error(error: &ApiError, request_id: &str) -> Self {
        let payload = Payload::Whole(Bytes::from(error.body(request_id)));
        let (status, content_type) = (error.status, error.content_type());
        Self { status, content_type, payload, limits: error.limits, used: Used::default() }
    }
}

/// Serves one request.
pub(crate) async fn serve(
    state: Arc<State>,
    control: Arc<Control>,
    request: Request<Incoming>,
) -> Result<Response<LabBody>, Aborted> {
    let (head, body) = request.into_parts();
    if head.uri.path().starts_with("/lab/") {
        return control::serve(&state, &control, &head, body).await;
    }
    let number = state.next_number();
    let request_id = format!("req_lab{number:016}");
    let path = head.uri.path();
    let mut trace = Trace::new(state.options.log.then(|| {
        state.log.open(&Arrival {
            number,
            at: state.clock.now_ms(),
            method: head.method.as_str(),
            target: head.uri.path_and_query().map_or(path, |target| target.as_str()),
            headers: &head.headers,
            request_id: &request_id,
        })
    }));
    let Some(body) = receive(body).await? else {
        let answer = Answer::error(&ApiError::named("too-large"), &request_id);
        return Ok(finish(&state, &head, answer, None, None, &request_id, trace, &control));
    };
    let tokens = path == "/v1/oauth/token";
    if let Some(record) = trace.record() {
        state.log.set_body(record, &body, tokens);
    }
    let plan = state.plan();
    let picked = if plan.plan.rules.is_empty() {
        None
    } else {
        let look = Look::into(&body, tokens, plan.looks_into_bodies());
        let token = look.refresh_token.as_deref().filter(|_| tokens);
        let key = token.or_else(|| raw_credential(&head.headers));
        let stream = look.stream.unwrap_or(false);
        plan.pick(Seen { key, model: look.model.as_deref(), path, stream })
    };
    if let (Some((_, name)), Some(record)) = (&picked, trace.record()) {
        record.set_rule(name);
    }
    let fault = picked.as_ref().map(|(rule, _)| &rule.fault);
    if let Some(fault) = fault {
        if fault.delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
        }
        stop_at(Point::Request, fault, &control, &mut trace).await?;
    }
    let who = state.identify(&head.headers, &plan);
    let answer = match fault {
        Some(Fault { error: Some(error), .. }) => Answer::error(&error.0, &request_id),
        Some(Fault { redirect: Some(_), .. }) => Answer::json(307, &json!({})),
        _ => endpoint(&state, &head, &body, &who, fault, &plan, &request_id)
            .unwrap_or_else(|error| Answer::error(&error, &request_id)),
    };
    if let Some(fault) = fault {
        stop_at(Point::Headers, fault, &control, &mut trace).await?;
    }
    Ok(finish(&state, &head, answer, who.ok().as_ref(), fault, &request_id, trace, &control))
}

/// Reads a request's body; `None` if it is too large.
///
/// What is too large is still read, within reason: closing on a client that is sending would cost
/// it the reply.
async fn receive(mut body: Incoming) -> Result<Option<Bytes>, Aborted> {
    let (mut first, mut rest, mut length) = (Bytes::new(), BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Aborted)?.into_data() else { continue };
        length += data.len();
        if length > 4 * BODY_LIMIT {
            break;
        } else if length > BODY_LIMIT {
            (first, rest) = (Bytes::new(), BytesMut::new());
        } else if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok((length <= BODY_LIMIT).then(|| if rest.is_empty() { first } else { rest.freeze() }))
}

/// What a rule needs to see of a body.
#[derive(Default, Deserialize)]
struct Look {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    refresh_token: Option<String>,
}

impl Look {
    fn into(body: &[u8], tokens: bool, needed: bool) -> Self {
        if !tokens && !needed {
            return Self::default();
        }
        serde_json::from_slice(body).unwrap_or_default()
    }
}

async fn stop_at(
    point: Point,
    fault: &Fault,
    control: &Control,
    trace: &mut Trace,
) -> Result<(), Aborted> {
    if fault.reset == Some(point) {
        trace.stop();
        control.reset();
        return Err(Aborted);
    }
    if fault.stall == Some(point) {
        std::future::pending::<()>().await;
    }
    Ok(())
}

type Who = Result<Identity, ApiError>;

fn endpoint(
    state: &State,
    head: &Parts,
    body: &Bytes,
    who: &Who,
    fault: Option<&Fault>,
    plan: &ActivePlan,
    request_id: &str,
) -> Result<Answer, ApiError> {
    let path = head.uri.path();
    let wrong = || Err(ApiError::new(405, "invalid_request_error", "Method Not Allowed"));
    let get = head.method == Method::GET || head.method == Method::HEAD;
    let post = head.method == Method::POST;
    let known = |who: &Who| who.clone();
    match path {
        "/" if head.method == Method::HEAD => Ok(Answer::json(200, &json!({}))),
        "/v1/messages" | "/v1/messages/count_tokens" | "/v1/oauth/token" if !post => wrong(),
        "/v1/messages" => {
            let who = known(who)?;
            let prepared = prepare(state, head, body, Op::Messages, plan)?;
            Ok(message(state, &who, &prepared, fault, plan, request_id))
        }
        "/v1/messages/count_tokens" => {
            known(who)?;
            let prepared = prepare(state, head, body, Op::CountTokens, plan)?;
            let mut answer =
                Answer::json(200, &json!({ "input_tokens": prepared.prompt.tokens() }));
            answer.limits = Limits::Usual;
            Ok(answer)
        }
        "/v1/oauth/token" => {
            let now = state.clock.now_ms();
            let (status, value) = lock(&state.logins).token(body, &plan.plan.tokens, now);
            Ok(Answer::json(status, &value))
        }
        "/v1/models" | "/api/oauth/profile" | "/api/oauth/usage" if !get => wrong(),
        "/v1/models" => {
            known(who)?;
            Client::read(&head.headers)?;
            let page = models::list(head.uri.query().unwrap_or("")).map_err(ApiError::invalid)?;
            Ok(Answer::json(200, &page))
        }
        "/api/oauth/profile" => Ok(Answer::json(200, &oauth::profile(&bearer(who)?.access)?)),
        "/api/oauth/usage" => {
            let resets = rfc3339(state.clock.now_ms() + 3_600_000);
            Ok(Answer::json(200, &oauth::usage(&bearer(who)?.access, &resets)?))
        }
        _ => match path.strip_prefix("/v1/models/") {
            Some(_) if !get => wrong(),
            Some(id) => {
                known(who)?;
                Client::read(&head.headers)?;
                let model =
                    models::find(id).ok_or_else(|| ApiError::not_found(format!("model: {id}")))?;
                Ok(Answer::json(200, &model.record(id)))
            }
            None => Err(ApiError::not_found("Not Found")),
        },
    }
}

fn bearer(who: &Who) -> Result<Identity, ApiError> {
    let who = who.clone()?;
    if who.kind != KeyKind::Oauth {
        return Err(ApiError::named("invalid-credentials"));
    }
    Ok(who)
}

fn prepare(
    state: &State,
    head: &Parts,
    body: &Bytes,
    op: Op,
    plan: &ActivePlan,
) -> Result<Arc<Prepared>, ApiError> {
    let client = Client::read(&head.headers)?;
    content_type(&head.headers)?;
    state.prepare(body, client, op, plan)
}

fn message(
    state: &State,
    who: &Identity,
    prepared: &Prepared,
    fault: Option<&Fault>,
    plan: &ActivePlan,
    request_id: &str,
) -> Answer {
    let minimum = prepared.model.map_or(1024, |model| model.min_cache);
    // Dated and undated ids share a cache.
    let id = prepared.model.map_or(prepared.id.as_str(), |model| model.id);
    let marked = prepared.prompt.segments.iter().any(|segment| segment.mark.is_some());
    let input = if marked {
        let now = state.clock.now_ms();
        lock(&state.cache).charge(&who.organization, id, minimum, &prepared.prompt, now)
    } else {
        InputUsage { uncached: prepared.prompt.tokens(), ..InputUsage::default() }
    };
    // Reads do not count to the input limit (spec 09 C).
    let counted = input.uncached + input.written_5m + input.written_1h;
    let own = fault.and_then(|fault| fault.reply.as_ref());
    let made;
    let reply = match own {
        None => &prepared.reply,
        Some(spec) => {
            made = Reply::make(&prepared.body, &prepared.prompt, prepared.model, Some(spec));
            &made
        }
    };
    let used = Used { input: counted, output: reply.output_tokens };
    let spec = own.or(plan.plan.reply.as_ref());
    let payload = if prepared.stream {
        stream(prepared, reply, input, fault, spec, request_id)
    } else if own.is_some() {
        Payload::Whole(json_bytes(reply, input))
    } else {
        Payload::Whole(prepared.bytes(input))
    };
    let content_type =
        if prepared.stream { "text/event-stream; charset=utf-8" } else { "application/json" };
    Answer { status: 200, content_type, payload, limits: Limits::Usual, used }
}

fn stream(
    prepared: &Prepared,
    reply: &Reply,
    input: InputUsage,
    fault: Option<&Fault>,
    spec: Option<&ReplySpec>,
    request_id: &str,
) -> Payload {
    let delay = spec.map_or(0, |spec| spec.delay_ms);
    let drip = fault.and_then(|fault| fault.drip?.event_delay_ms);
    let wait = Duration::from_millis(drip.unwrap_or(delay));
    let spoil = fault.and_then(|fault| fault.sse.as_ref());
    let own = fault.is_some_and(|fault| fault.reply.is_some());
    if wait.is_zero() && spoil.is_none() && !own {
        return Payload::Stream(prepared.bytes(input));
    }
    let mut events = sse::events(reply, input);
    if let Some(spoil) = spoil {
        events = sse::spoil(events, spoil, request_id);
    }
    Payload::Events(events, wait)
}

#[allow(clippy::too_many_arguments)]
fn finish(
    state: &State,
    head: &Parts,
    answer: Answer,
    who: Option<&Identity>,
    fault: Option<&Fault>,
    request_id: &str,
    trace: Trace,
    control: &Arc<Control>,
) -> Response<LabBody> {
    let mut headers = HeaderMap::with_capacity(24);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    insert(&mut headers, "request-id", request_id);
    if let Some(who) = who {
        insert(&mut headers, "anthropic-organization-id", &who.organization);
        let now = state.clock.now_ms();
        let mut meters = lock(&state.meters);
        let (limits, used) = (answer.limits, answer.used);
        meters.write(&mut headers, &who.organization, who.kind, limits, used, now);
    }
    let mut status = answer.status;
    let mut payload = answer.payload;
    if let Some(fault) = fault {
        status = fault.status.unwrap_or(status);
        if let Some(body) = &fault.body {
            payload = Payload::Whole(Bytes::from(body.clone()));
        }
        if let Some(value) = fault.retry_after.as_ref().and_then(|v| v.0.parse().ok()) {
            headers.insert(RETRY_AFTER, value);
        }
        if let Some(value) = fault.redirect.as_ref().and_then(|v| v.parse().ok()) {
            headers.insert(LOCATION, value);
        }
        for (name, value) in &fault.headers {
            let Ok(name) = HeaderName::try_from(name.as_str()) else { continue };
            match value.as_ref().map(|value| value.parse()) {
                None => drop(headers.remove(name)),
                Some(Ok(value)) => drop(headers.insert(name, value)),
                Some(Err(_)) => {}
            }
        }
    }
    if head.method == Method::HEAD {
        payload = Payload::Whole(Bytes::new());
    }
    if let Some(record) = trace.record() {
        record.set_status(status);
    }
    let flush = fault.and_then(|fault| fault.sse.as_ref()).is_some_and(|sse| sse.flush_events);
    let body = LabBody::new(payload, fault, flush, trace, control.clone());
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    *response.headers_mut() = headers;
    response
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}
