//! Who gets in: the token, and what a browser or a stranger's name for this host gives away
//! (decision "Security defaults", spec G-2).

use std::collections::HashMap;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::{Method, StatusCode, Uri};
use moltbot_core::Timestamp;

use super::error::Refusal;
use super::serve::Here;
use super::settings::{Access, Settings};

/// Wrong tokens from one address within [`FAILURE_WINDOW_MS`] before it has to wait.
const FAILURES: u32 = 20;
const FAILURE_WINDOW_MS: i64 = 60_000;

/// Names of query members in which a token could be meant to stand.
const TOKEN_MEMBERS: [&str; 6] =
    ["access_token", "api_key", "apikey", "auth_token", "password", "token"];

/// Where a client puts the gateway's token whose other headers are taken by its own login.
pub(crate) const TOKEN_HEADER: &str = "x-moltbot-token";

// Names that are looked up at every request, taken apart once.
static TOKEN_NAME: HeaderName = HeaderName::from_static(TOKEN_HEADER);
static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
pub(crate) static API_KEY: HeaderName = HeaderName::from_static("x-api-key");
pub(crate) static API_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
pub(crate) static AGENT_ID: HeaderName = HeaderName::from_static("x-moltbot-agent-id");
pub(crate) static SESSION_KEY: HeaderName = HeaderName::from_static("x-moltbot-session-key");
pub(crate) static REQUEST_ID: HeaderName = HeaderName::from_static("x-moltbot-request-id");

/// A way in, and how much it is used.
pub(crate) struct Token {
    pub(crate) name: Arc<str>,
    pub(crate) access: Access,
    pub(crate) live: Arc<Live>,
}

/// How much a way in is used; survives a change of the config.
#[derive(Default)]
pub(crate) struct Live {
    running: AtomicU32,
    minute: AtomicI64,
    in_minute: AtomicU32,
}

/// A request that was let in; dropping it ends its share of the limits.
pub(crate) struct Admitted(Arc<Live>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Token {
    /// Counts a request in, unless its limits are used up.
    pub(crate) fn admit(&self, now: Timestamp) -> Result<Admitted, Refusal> {
        let limited = |message: String, wait| {
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message)
                .retry_after(wait)
        };
        if let Some(most) = self.access.per_minute {
            let minute = now.millis().div_euclid(60_000);
            if self.live.minute.swap(minute, Ordering::Relaxed) != minute {
                self.live.in_minute.store(0, Ordering::Relaxed);
            }
            if self.live.in_minute.fetch_add(1, Ordering::Relaxed) >= most {
                let left = 60 - now.millis().rem_euclid(60_000) / 1_000;
                let message =
                    format!("this token may make {most} requests per minute on this gateway");
                return Err(limited(message, u64::try_from(left).unwrap_or(60)));
            }
        }
        let running = self.live.running.fetch_add(1, Ordering::Relaxed);
        let admitted = Admitted(self.live.clone());
        match self.access.concurrency {
            Some(most) if running >= most => {
                let message =
                    format!("this token may run {most} requests at the same time on this gateway");
                Err(limited(message, 1))
            }
            _ => Ok(admitted),
        }
    }

    /// Tells whether it may ask for a model, under any of the names given.
    pub(crate) fn allows(&self, names: &[&str]) -> bool {
        let Some(models) = &self.access.models else { return true };
        names.iter().any(|name| models.iter().any(|model| model == name))
    }
}

/// Finds the token that a request proves to know, in any of its headers (spec W-3). All are compared,
/// each in a time that does not depend on where they differ.
pub(crate) fn find<'t>(tokens: &'t [Token], headers: &HeaderMap) -> Option<&'t Token> {
    let bearer = headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, rest) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| rest.trim_ascii())
    });
    let keys = headers.get_all(&API_KEY).iter().chain(headers.get_all(&TOKEN_NAME));
    let keys = keys.map(|value| value.as_bytes().trim_ascii());
    let mut found = None;
    for sent in bearer.chain(keys) {
        for token in tokens {
            let secret = token.access.secret.expose().as_bytes();
            if same(secret, sent) && !secret.is_empty() && found.is_none() {
                found = Some(token);
            }
        }
    }
    found
}

fn same(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let (words, ends) = (left.as_chunks::<8>(), right.as_chunks::<8>());
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    let pairs = words.0.iter().map(word).zip(ends.0.iter().map(word));
    let rest = words.1.iter().zip(ends.1).map(|(a, b)| (u64::from(*a), u64::from(*b)));
    let differ = pairs.chain(rest).fold(0, |differ, (a, b)| black_box(differ | (a ^ b)));
    black_box(differ) == 0
}

/// Refuses what a web page or a foreign name for this host would send.
pub(crate) fn check(
    settings: &Settings,
    here: &Here,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    if uri.authority().is_some() {
        return Err(Refusal::invalid("the request line must name a path, not an address").closing());
    }
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() || !host.is_some_and(|host| is_ours(settings, here, host)) {
        let status = StatusCode::MISDIRECTED_REQUEST;
        let text = "the Host header does not name this gateway";
        return Err(Refusal::new(status, "invalid_request_error", text).closing());
    }
    let cross = headers
        .get(&SEC_FETCH_SITE)
        .is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    let foreign = headers.get_all(ORIGIN).iter().any(|origin| {
        let name = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
        !name.is_some_and(|name| is_ours(settings, here, name))
    });
    if cross || foreign {
        return Err(Refusal::forbidden("this gateway does not answer web pages"));
    }
    let member = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default();
        TOKEN_MEMBERS.iter().any(|known| name.eq_ignore_ascii_case(known))
    };
    if uri.query().is_some_and(|query| query.split('&').any(member)) {
        return Err(Refusal::invalid("a token belongs into a header, never into the address"));
    }
    Ok(())
}

/// Refuses a body that a web page could send without being asked for (a form, plain text).
pub(crate) fn check_content(
    method: &Method,
    headers: &HeaderMap,
    multipart: bool,
    has_body: bool,
) -> Result<(), Refusal> {
    if method != Method::POST || !has_body {
        return Ok(());
    }
    let kind = headers.get(CONTENT_TYPE);
    // What nearly all clients say.
    if !multipart && kind.is_some_and(|kind| kind == "application/json") {
        return Ok(());
    }
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let wanted = if multipart { "multipart/form-data" } else { "application/json" };
    if kind.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    let message = format!("the content type must be {wanted}");
    Err(Refusal::new(status, "invalid_request_error", message))
}

fn is_ours(settings: &Settings, here: &Here, host: &str) -> bool {
    // What nearly all clients say.
    if host == here.name {
        return true;
    }
    let local = here.local;
    let port = local.port();
    // Port 80 is what a client leaves out.
    let (name, asked) = match host.rsplit_once(':') {
        Some((name, digits)) if !digits.contains(']') => (name, digits.parse().ok()),
        _ => (host, Some(80)),
    };
    // The parser would take a sign and leading zeros.
    let plain = host.len() == name.len() || host[name.len()..] == format!(":{port}");
    if asked != Some(port) || !plain {
        return false;
    }
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let address = match bare {
        Some(inner) => inner.parse::<IpAddr>().ok().filter(IpAddr::is_ipv6),
        None => name.parse::<IpAddr>().ok().filter(IpAddr::is_ipv4),
    };
    match address {
        Some(address) => address == local.ip().to_canonical() || address == local.ip(),
        None => {
            let local_name = name.eq_ignore_ascii_case("localhost") && local.ip().is_loopback();
            local_name || settings.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
        }
    }
}

/// Finds the address a request comes from: the connection's, unless that is a proxy the config
/// trusts; then the last one that no trusted proxy wrote down for another (spec G-5).
pub(crate) fn client(trusted: &[IpAddr], peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let trusts = |address: IpAddr| {
        let address = address.to_canonical();
        trusted.iter().any(|known| known.to_canonical() == address)
    };
    if !trusts(peer) {
        return peer;
    }
    let mut hops = Vec::new();
    for line in headers.get_all("x-forwarded-for") {
        hops.extend(line.to_str().unwrap_or_default().split(',').map(str::trim));
    }
    if hops.is_empty() {
        hops.extend(headers.get("x-real-ip").and_then(|line| line.to_str().ok()).map(str::trim));
    }
    let mut client = peer;
    for hop in hops.iter().rev() {
        let Ok(address) = hop.parse::<IpAddr>() else { break };
        client = address;
        if !trusts(address) {
            break;
        }
    }
    client
}

/// Counts wrong tokens per address.
#[derive(Default)]
pub(crate) struct Failures(Mutex<HashMap<IpAddr, (i64, u32)>>);

impl Failures {
    /// Notes a wrong token; `true` once there were too many.
    pub(crate) fn note(&self, peer: IpAddr, now: Timestamp) -> bool {
        let mut seen = super::locked(&self.0);
        if seen.len() > 10_000 {
            seen.retain(|_, (since, _)| now.millis() - *since < FAILURE_WINDOW_MS);
        }
        let (since, count) = seen.entry(peer).or_insert((now.millis(), 0));
        if now.millis() - *since >= FAILURE_WINDOW_MS {
            (*since, *count) = (now.millis(), 0);
        }
        *count += 1;
        *count > FAILURES
    }

    /// Tells whether an address from elsewhere has to wait, whatever it sends. This machine's own
    /// is shared by every program on it, hence never locked out.
    pub(crate) fn is_barred(&self, peer: IpAddr, now: Timestamp) -> bool {
        if peer.is_loopback() {
            return false;
        }
        let seen = super::locked(&self.0);
        seen.get(&peer).is_some_and(|(since, count)| {
            *count > FAILURES && now.millis() - *since < FAILURE_WINDOW_MS
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn tokens_are_the_same_in_every_byte() {
        for length in [0, 1, 7, 8, 9, 43] {
            let token = vec![b't'; length];
            assert!(same(&token, &token));
            assert!(!same(&token, &[&token[..], b"t"].concat()));
            for at in 0..length {
                let mut other = token.clone();
                other[at] ^= 0x80;
                assert!(!same(&token, &other), "{at} of {length}");
            }
        }
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let trusted = [ip("127.0.0.1"), ip("10.0.0.7")];
        let from = |peer: &str, lines: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, HeaderValue::from_static(value));
            }
            client(&trusted, ip(peer), &headers)
        };
        let said = ("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.0.0.7");
        assert_eq!(from("198.51.100.2", &[said]), ip("198.51.100.2"), "a stranger's word");
        assert_eq!(from("127.0.0.1", &[said]), ip("203.0.113.9"), "the first is a forger's");
        assert_eq!(from("::ffff:127.0.0.1", &[said]), ip("203.0.113.9"));
        assert_eq!(from("127.0.0.1", &[("x-real-ip", "203.0.113.9")]), ip("203.0.113.9"));
        assert_eq!(from("127.0.0.1", &[("x-forwarded-for", "nonsense")]), ip("127.0.0.1"));
        assert_eq!(from("10.0.0.7", &[]), ip("10.0.0.7"));
    }
}
