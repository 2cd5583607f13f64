//! What a rule of a plan does to a request: the fault's fields and how each may be written.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::errors::{ApiError, Limits, Shape, error_table, find_error};

/// What happens to a request that a rule matched. Fields combine: an error body can be dripped,
/// an event stream delayed and then cut.
///
/// The order is: `delayMs`, the stops at `"request"`, the reply (the request's own, or `error`,
/// or `redirect`), `status`, `headers`, then the stops further on.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default, remote = "Self")]
pub struct Fault {
    /// Answers with a known error body (by number or name) or a literal one.
    pub error: Option<ErrorReply>,
    /// Answers with another status than the reply's own.
    pub status: Option<u16>,
    /// Answers with this text as the whole body.
    pub body: Option<String>,
    /// Adds these response headers, or replaces those of the same name; `null` removes one.
    pub headers: BTreeMap<String, Option<String>>,
    /// Sends this `retry-after`, whatever it says.
    pub retry_after: Option<Literal>,
    /// Answers 307 with this `location`.
    pub redirect: Option<String>,
    /// Waits so many milliseconds before anything else.
    pub delay_ms: u64,
    /// Stops answering at this point and keeps the connection open.
    pub stall: Option<Point>,
    /// Resets the connection (TCP RST) at this point.
    pub reset: Option<Point>,
    /// Closes the connection after so many bytes of the body.
    pub cut_at: Option<u64>,
    /// Sends the body slowly.
    pub drip: Option<Drip>,
    /// Changes to an event stream; no effect on other replies.
    pub sse: Option<SseFault>,
    /// Replaces parts of the reply to a message.
    pub reply: Option<ReplySpec>,
}

/// An error reply by reference or in full.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorReply(pub(crate) ApiError);

/// A point in the life of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The request was received; nothing was done with it.
    Request,
    /// The request took effect (a token was rotated); no byte of the reply was sent.
    Headers,
    /// So many bytes of the body were sent.
    Bytes(u64),
}

/// How slowly a body is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Drip {
    /// At most so many bytes in a second.
    pub bytes_per_second: Option<u64>,
    /// A wait before each event of a stream.
    pub event_delay_ms: Option<u64>,
}

/// Changes to an event stream.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SseFault {
    /// Ends the stream with an `error` event of this body.
    pub error: Option<ErrorReply>,
    /// After how many events the error comes, or the stream stops if `end` is set.
    pub after_events: usize,
    /// Ends the stream cleanly after `after_events`, without its last events.
    pub end: bool,
    /// Puts an event of an unknown type before each known one, and an unknown delta into a block.
    pub unknown_events: bool,
    /// Breaks the framing or the JSON of one event.
    pub malformed: Option<Malformed>,
    /// Sends so many `ping` events before the first event.
    pub pings: usize,
    /// Sends every event as a chunk of its own.
    pub flush_events: bool,
    /// Separates lines by CR LF instead of LF.
    pub crlf: bool,
}

/// One way to break an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Malformed {
    /// The third event's data is not JSON.
    Json,
    /// The third event has no data line.
    NoData,
    /// The third event's data holds bytes that are not UTF-8.
    Utf8,
    /// The last event lacks its empty line.
    Unterminated,
}

/// A reply to a message as a plan describes it. What is absent the lab makes up.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReplySpec {
    /// The text.
    pub text: Option<String>,
    /// Fills the text up to so many bytes.
    pub bytes: Option<usize>,
    /// Sends the text in so many deltas.
    pub events: Option<usize>,
    /// Waits so many milliseconds before each event.
    pub delay_ms: u64,
    /// The text of a thinking block put first.
    pub thinking: Option<String>,
    /// A tool call put last.
    pub tool: Option<ToolCall>,
    /// The reason for stopping, as it is.
    pub stop_reason: Option<String>,
    /// The model named in the reply.
    pub model: Option<String>,
}

/// A tool call of a planned reply.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// The tool's name.
    pub name: String,
    /// The input, as it is.
    #[serde(default)]
    pub input: Value,
}

/// A header value written as text or number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Literal(pub String);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LiteralError {
    status: u16,
    #[serde(rename = "type")]
    kind: String,
    message: String,
    #[serde(default)]
    details: Option<Value>,
    #[serde(default)]
    null_request_id: bool,
    #[serde(default)]
    rate_limit_headers: Option<bool>,
}

impl<'de> Deserialize<'de> for Fault {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // With `remote`, the derived function is inherent and this one adds the checks.
        let fault = Self::deserialize(deserializer)?;
        match contradiction(&fault) {
            Some(problem) => Err(de::Error::custom(problem)),
            None => Ok(fault),
        }
    }
}

/// Returns what two fields of a fault cannot mean together.
fn contradiction(fault: &Fault) -> Option<&'static str> {
    let bad_name = |name: &String| hyper::header::HeaderName::try_from(name.as_str()).is_err();
    let bad_value = |value: &str| hyper::header::HeaderValue::from_str(value).is_err();
    if fault.status.is_some_and(|status| !(200..=599).contains(&status)) {
        return Some("`status` is 200 to 599");
    }
    if fault.headers.keys().any(bad_name)
        || fault.headers.values().flatten().any(|value| bad_value(value))
        || fault.retry_after.as_ref().is_some_and(|value| bad_value(&value.0))
        || fault.redirect.as_deref().is_some_and(bad_value)
    {
        return Some("a header's name or value cannot be sent");
    }
    if fault.drip.is_some_and(|drip| drip.bytes_per_second == Some(0)) {
        return Some("`drip.bytesPerSecond` is at least 1; use `stall` to send nothing");
    }
    if fault.error.is_some() && fault.redirect.is_some() {
        return Some("`error` and `redirect` exclude each other");
    }
    None
}

impl<'de> Deserialize<'de> for ErrorReply {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reference;
        impl<'de> Visitor<'de> for Reference {
            type Value = ErrorReply;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an error's number, its name, or {status, type, message}")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<ErrorReply, E> {
                find_error(&number.to_string())
                    .map(|spec| ErrorReply(ApiError::from_spec(spec)))
                    .ok_or_else(|| E::custom(format!("no error {number}; numbers are 1 to 51")))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<ErrorReply, E> {
                self.visit_u64(u64::try_from(number).unwrap_or(0))
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<ErrorReply, E> {
                find_error(name).map(|spec| ErrorReply(ApiError::from_spec(spec))).ok_or_else(
                    || {
                        let known: Vec<_> = error_table().iter().map(|spec| spec.name).collect();
                        E::custom(format!(
                            "no error {name:?}; known names are {}",
                            known.join(", ")
                        ))
                    },
                )
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ErrorReply, A::Error> {
                let wire = LiteralError::deserialize(MapAccessDeserializer::new(map))?;
                if !(400..=599).contains(&wire.status) {
                    return Err(de::Error::custom("an error's status is 400 to 599"));
                }
                let mut error = ApiError::new(wire.status, &wire.kind, wire.message);
                error.details = wire.details.map(Box::new);
                if wire.null_request_id {
                    error.shape = Shape::NullId;
                }
                if wire.rate_limit_headers == Some(false) {
                    error.limits = Limits::Absent;
                }
                Ok(ErrorReply(error))
            }
        }
        deserializer.deserialize_any(Reference)
    }
}

impl<'de> Deserialize<'de> for Point {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct After {
            after_bytes: u64,
        }
        struct At;
        impl<'de> Visitor<'de> for At {
            type Value = Point;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"request\", \"headers\" or {afterBytes: N}")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Point, E> {
                match text {
                    "request" => Ok(Point::Request),
                    "headers" => Ok(Point::Headers),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Point, A::Error> {
                let after = After::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Point::Bytes(after.after_bytes))
            }
        }
        deserializer.deserialize_any(At)
    }
}

impl<'de> Deserialize<'de> for Literal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Literal;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a number")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Literal, E> {
                Ok(Literal(text.to_owned()))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Literal, E> {
                Ok(Literal(number.to_string()))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Literal, E> {
                Ok(Literal(number.to_string()))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Literal, E> {
                Ok(Literal(number.to_string()))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// Request numbers of a rule: `3`, `[1, 2]` or `"every"`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Numbers {
    /// Every request.
    #[default]
    Every,
    /// These requests, counted from 1.
    Only(Vec<u64>),
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Which;
        impl<'de> Visitor<'de> for Which {
            type Value = Numbers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a request number from 1, a list of them, or \"every\"")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Numbers, E> {
                if number == 0 {
                    return Err(E::invalid_value(de::Unexpected::Unsigned(0), &self));
                }
                Ok(Numbers::Only(vec![number]))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Numbers, E> {
                self.visit_u64(u64::try_from(number).unwrap_or(0))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Numbers, E> {
                if text == "every" {
                    return Ok(Numbers::Every);
                }
                Err(E::invalid_value(de::Unexpected::Str(text), &self))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Numbers, A::Error> {
                let mut numbers = Vec::new();
                while let Some(number) = seq.next_element::<u64>()? {
                    if number == 0 {
                        return Err(de::Error::custom("request numbers count from 1"));
                    }
                    numbers.push(number);
                }
                Ok(Numbers::Only(numbers))
            }
        }
        deserializer.deserialize_any(Which)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Result<Fault, String> {
        json5::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn errors_are_named_numbered_or_written_out() {
        let by_number = fault("{error: 51}").unwrap();
        assert_eq!(by_number, fault("{error: 'overloaded'}").unwrap());
        let literal = fault("{error: {status: 418, type: 'teapot', message: 'short'}}").unwrap();
        let reply = literal.error.unwrap().0;
        assert_eq!((reply.status, reply.kind.as_str()), (418, "teapot"));
        assert!(fault("{error: 52}").unwrap_err().contains("numbers are 1 to 51"));
        assert!(fault("{error: 'nope'}").unwrap_err().contains("known names are credit-balance"));
        assert!(fault("{error: {status: 200, type: 'x', message: ''}}").is_err());
    }

    #[test]
    fn points_numbers_and_literals_have_short_forms() {
        let read = fault("{stall: 'headers', reset: {afterBytes: 9}, retryAfter: 2}").unwrap();
        assert_eq!(read.stall, Some(Point::Headers));
        assert_eq!(read.reset, Some(Point::Bytes(9)));
        assert_eq!(read.retry_after, Some(Literal("2".into())));
        assert!(fault("{stall: 'later'}").unwrap_err().contains("afterBytes"));
        assert_eq!(json5::from_str::<Numbers>("[1, 4]").unwrap(), Numbers::Only(vec![1, 4]));
        assert_eq!(json5::from_str::<Numbers>("'every'").unwrap(), Numbers::Every);
        assert!(json5::from_str::<Numbers>("0").is_err());
    }
}
