//! The model that a body names: read at a glance where clients write it, found by a scan elsewhere.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::http::request::Parts;
use moltbot_core::Span;

use super::error::Refusal;
use crate::scan::{Patterns, ScanOptions, scan};

/// Finds the model of a body, and where it stands there.
pub(crate) struct Naming(Patterns);

impl Default for Naming {
    fn default() -> Self {
        Self(Patterns::new(&["/model"]))
    }
}

/// A scan that ends at the model.
fn to_the_model() -> ScanOptions {
    ScanOptions { stop_early: true, ..ScanOptions::default() }
}

impl Naming {
    /// Looks into the first piece only; `None` if the model does not stand there.
    pub(crate) fn model_of(&self, pieces: &[Bytes]) -> Option<(String, Span)> {
        let body = pieces.first()?;
        if let Some((name, span)) = in_front(body) {
            return Some((name.to_string(), span));
        }
        let found = scan(body, &self.0, to_the_model()).ok()?;
        let found = found.first()?;
        Some((serde_json::from_str(&found.value).ok()?, found.span))
    }

    /// Looks into a whole body, and says why there is no model in it.
    pub(crate) fn model_or_why(
        &self,
        pieces: &[Bytes],
        head: &Parts,
    ) -> Result<(String, Span), Refusal> {
        if let Some(encoding) = head.headers.get("content-encoding") {
            let text = format!("a body encoded as {encoding:?} is not read; send it as it is");
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Refusal::new(status, "invalid_request_error", text));
        }
        let body = pieces.first().map_or(&b""[..], |body| body);
        let found = scan(body, &self.0, to_the_model())
            .map_err(|error| Refusal::invalid(error.to_string()))?;
        let missing = || Refusal::invalid("model: Field required");
        let found = found.first().ok_or_else(missing)?;
        let name = serde_json::from_str(&found.value)
            .map_err(|_| Refusal::invalid("model: Input should be a valid string"))?;
        Ok((name, found.span))
    }
}

/// Reads the model where nearly every client writes it: first, in plain letters.
fn in_front(body: &[u8]) -> Option<(&str, Span)> {
    let rest = body.strip_prefix(b"{\"model\":")?;
    let rest = rest.strip_prefix(b" ").unwrap_or(rest).strip_prefix(b"\"")?;
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    let length = rest.iter().position(|byte| !is_plain(byte)).filter(|at| rest[*at] == b'"')?;
    let start = body.len() - rest.len();
    Some((std::str::from_utf8(&rest[..length]).ok()?, Span::new(start - 1, start + length + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_in_front_is_what_a_scan_finds() {
        for (body, is_front) in [
            ("{\"model\":\"m-1\",\"x\":1}", true),
            ("{\"model\": \"a/b c\"", true),
            ("{\"model\":\"\"}", true),
            ("{\"model\":\"m\\u0041\"}", false),
            ("{\"model\":\"\u{e9}\"}", false),
            ("{\"x\":1,\"model\":\"m\"}", false),
        ] {
            let found = scan(body.as_bytes(), &Naming::default().0, to_the_model()).unwrap();
            let name: String = serde_json::from_str(&found[0].value).unwrap();
            let expected = is_front.then_some((name.as_str(), found[0].span));
            assert_eq!(in_front(body.as_bytes()), expected, "{body}");
        }
        for odd in ["{\"model\":7}", "{\"model\":\"m", "{\"model\":\"a\nb\"}", ""] {
            assert_eq!(in_front(odd.as_bytes()), None, "{odd}");
        }
    }
}
