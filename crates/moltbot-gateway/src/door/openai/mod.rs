//! `POST /v1/chat/completions` and `POST /v1/responses`: OpenAI's two dialects, translated to the
//! inner language and back (spec G-7, G-8, decision 3).

mod chunks;
mod inner;
mod reply;
mod request;
mod responses;
mod stream;

use bytes::{Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response};
use moltbot_core::{Decoder, ModelInfo, Op, VERSION};
use serde_json::Value;

use super::access::{SESSION_KEY, check_content};
use super::body::DoorBody;
use super::error::Refusal;
use super::log::Ticket;
use super::serve::{Asked, Door, json_response, too_large};
use inner::Wanted;
use stream::Lines;
pub(crate) use stream::Stream;

/// The longest reply that is translated whole.
const MOST_REPLY: usize = 64 << 20;

/// The version of the inner language that requests are written in.
const INNER_VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

/// How a client talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/responses`, with the longest body it takes.
    Responses(usize),
}

impl Dialect {
    fn translate(
        self,
        sent: &Value,
        model: &str,
        info: Option<&ModelInfo>,
    ) -> Result<Wanted, String> {
        match self {
            Self::Chat => request::translate(sent, model, info),
            Self::Responses(_) => responses::translate(sent, model, info),
        }
    }

    fn lines(self, sent: &Value, named: &str, created: i64) -> Box<dyn Lines> {
        match self {
            Self::Chat => {
                let usage = sent["stream_options"]["include_usage"] == true;
                Box::new(chunks::Chunks::new(named.to_string(), created, usage))
            }
            Self::Responses(_) => Box::new(responses::Writer::new(sent, named, created)),
        }
    }

    fn whole(
        self,
        reply: &[u8],
        decoder: Option<Box<dyn Decoder>>,
        sent: &Value,
        named: &str,
        created: i64,
    ) -> Result<Value, Refusal> {
        match (self, decoder) {
            (Self::Responses(_), Some(decoder)) => {
                responses::Writer::new(sent, named, created).whole(reply, decoder)
            }
            (Self::Responses(_), None) => Err(Refusal::upstream("the reply cannot be read")),
            (Self::Chat, _) => reply::completion(reply, named, created),
        }
    }
}

/// Answers one request.
pub(crate) async fn answer(
    dialect: Dialect,
    door: &Door,
    asked: &Asked<'_>,
    head: &mut Parts,
    body: Incoming,
    ticket: &mut Option<Ticket>,
) -> Result<Response<DoorBody>, Refusal> {
    check_content(&Method::POST, &head.headers, false, true)?;
    let sent = door.receive(asked.alarm, head, body).await?.concat();
    if let Dialect::Responses(most) = dialect
        && sent.len() > most
    {
        return Err(too_large(most as u64));
    }
    let sent: Value = serde_json::from_slice(&sent)
        .map_err(|error| Refusal::invalid(format!("the body is not usable: {error}")))?;
    let named = sent["model"].as_str().ok_or_else(|| Refusal::invalid("model is missing"))?;
    let agent = agent_in(named);
    let agent = match agent {
        Some(name) => asked.state.agent(asked.token, Some(name))?,
        None => asked.agent.clone(),
    };
    let models = agent.engine.models();
    let model = match agent_in(named) {
        Some(_) => models.primary().model.to_string(),
        None => named.to_string(),
    };
    let info = models.parse(&model).ok().and_then(|parsed| models.info(&parsed.model).cloned());
    let wanted = dialect.translate(&sent, &model, info.as_ref()).map_err(Refusal::invalid)?;
    let asked = Asked { agent, ..*asked };
    if let Some(ticket) = ticket {
        ticket.note.agent = asked.agent.name.clone();
    }
    let headers = inner_headers(&head.headers, wanted.session.as_deref());
    (head.headers, head.uri) = (headers, hyper::Uri::from_static("/v1/messages"));
    let body = vec![Bytes::from(wanted.body.to_string())];
    let obtained = door.forward_body(&asked, Op::Messages, head, body, ticket).await?;
    let code = ticket.as_ref().and_then(|ticket| ticket.note.code.clone());
    let decoder = asked.agent.decoder(&model);
    let good = obtained.parts.status.is_success();
    let event_stream = obtained.stream;
    let mut response = obtained.into_response(&asked, ticket)?;
    let created = door.shared.clock.now().millis() / 1_000;
    let (mut parts, relay) = {
        let (parts, body) = response.into_parts();
        let DoorBody::Relay(relay) = body else { unreachable!("made just above") };
        (parts, relay)
    };
    parts.headers.remove(CONTENT_LENGTH);
    match decoder {
        Some(decoder) if good && wanted.stream && event_stream => {
            parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            let lines = dialect.lines(&sent, named, created);
            let stream = Stream::new(relay, decoder, lines);
            response = Response::from_parts(parts, DoorBody::Made(Box::new(stream)));
        }
        decoder => {
            let whole = whole(relay).await?;
            let translated = match good {
                true => dialect.whole(&whole, decoder, &sent, named, created)?,
                false => reply::error(&whole, code.as_deref()),
            };
            let mut made = json_response(Bytes::from(translated.to_string()));
            *made.status_mut() = parts.status;
            parts.headers.remove(CONTENT_TYPE);
            made.headers_mut().extend(parts.headers);
            response = made;
        }
    }
    Ok(response)
}

/// Makes the headers of the inner request: our own, but for the name of the conversation.
fn inner_headers(sent: &HeaderMap, session: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("anthropic-version", INNER_VERSION);
    let name = format!("moltbot/{VERSION}");
    headers.insert("user-agent", HeaderValue::from_str(&name).expect("a plain word"));
    let named = || HeaderValue::from_str(session?).ok();
    if let Some(key) = sent.get(&SESSION_KEY).cloned().or_else(named) {
        headers.insert(SESSION_KEY.clone(), key);
    }
    headers
}

/// Finds the agent that a model's name stands for (spec G-7).
fn agent_in(model: &str) -> Option<&str> {
    let forms = ["moltbot:", "moltbot/", "agent:"];
    forms.iter().find_map(|form| model.strip_prefix(form)).filter(|name| !name.is_empty())
}

async fn whole(mut relay: Box<super::relay::Relay>) -> Result<Bytes, Refusal> {
    let mut out = BytesMut::new();
    loop {
        match std::future::poll_fn(|cx| relay.poll_next(cx)).await {
            None => return Ok(out.freeze()),
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                if out.len() + data.len() > MOST_REPLY {
                    return Err(Refusal::upstream("the reply of the service is too long"));
                }
                out.extend_from_slice(&data);
                if relay.is_over() {
                    return Ok(out.freeze());
                }
            }
            Some(Err(_)) => return Err(Refusal::upstream("the reply of the service broke off")),
        }
    }
}
