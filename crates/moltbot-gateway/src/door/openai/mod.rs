//! `POST /v1/chat/completions`: OpenAI's dialect, translated to the inner language and back
//! (spec G-7, decision 3).

mod reply;
mod request;
mod stream;

use bytes::{Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response};
use moltbot_core::{Op, VERSION};
use serde_json::Value;

use super::access::check_content;
use super::body::DoorBody;
use super::error::Refusal;
use super::log::Ticket;
use super::serve::{Asked, Door, json_response};
use request::{Wanted, translate};
pub(crate) use stream::Stream;

/// The longest reply that is translated whole.
const MOST_REPLY: usize = 64 << 20;

/// The version of the inner language that requests are written in.
const INNER_VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

/// Answers one request.
pub(crate) async fn chat(
    door: &Door,
    asked: &Asked<'_>,
    head: &mut Parts,
    body: Incoming,
    ticket: &mut Option<Ticket>,
) -> Result<Response<DoorBody>, Refusal> {
    check_content(&Method::POST, &head.headers, false, true)?;
    let pieces = door.receive(asked.alarm, head, body).await?;
    let sent: Value = serde_json::from_slice(&pieces.concat())
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
    let wanted = translate(&sent, &model, info.as_ref()).map_err(Refusal::invalid)?;
    let asked = Asked { agent, ..*asked };
    if let Some(ticket) = ticket {
        ticket.note.agent = asked.agent.name.clone();
    }
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("anthropic-version", INNER_VERSION);
    let name = format!("moltbot/{VERSION}");
    headers.insert("user-agent", HeaderValue::from_str(&name).expect("a plain word"));
    if let Some(key) = head.headers.get("x-moltbot-session-key") {
        headers.insert("x-moltbot-session-key", key.clone());
    }
    (head.headers, head.uri) = (headers, hyper::Uri::from_static("/v1/messages"));
    let body = vec![Bytes::from(wanted.body.to_string())];
    let obtained = door.forward_body(&asked, Op::Messages, head, body, ticket).await?;
    let decoder = asked.agent.decoder(&model);
    let Wanted { stream, usage, .. } = wanted;
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
        Some(decoder) if good && stream && event_stream => {
            parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            let stream = Stream::new(relay, decoder, named.to_string(), created, usage);
            response = Response::from_parts(parts, DoorBody::Made(Box::new(stream)));
        }
        _ => {
            let whole = whole(relay).await?;
            let translated = match good {
                true => reply::completion(&whole, named, created)?,
                false => reply::error(&whole),
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
