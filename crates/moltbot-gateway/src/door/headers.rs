//! Which headers of a client and of a service go on, and which concern one connection only.

use hyper::header::{CONNECTION, HeaderMap, HeaderName};

use super::access::TOKEN_HEADER;

/// The headers a client sent. What is not forwarded is taken out when they are first needed, which
/// for most requests is never: what was made of the same ones before is used again.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientHeaders {
    map: HeaderMap,
    is_clean: bool,
}

impl ClientHeaders {
    pub(crate) fn new(map: HeaderMap) -> Self {
        Self { map, is_clean: false }
    }

    /// Returns what is forwarded of them.
    pub(crate) fn forwarded(&mut self) -> &mut HeaderMap {
        if !self.is_clean {
            clean(&mut self.map);
            self.is_clean = true;
        }
        &mut self.map
    }

    /// Tells whether what is forwarded of them are exactly these lines in this order. `false` may
    /// also mean that it is not easy to tell.
    pub(crate) fn forwards(&self, lines: &HeaderMap) -> bool {
        let mut wanted = lines.iter();
        let mut next = wanted.next();
        for (name, value) in &self.map {
            match next {
                Some((known, line)) if name == known && value.as_bytes() == line.as_bytes() => {
                    next = wanted.next();
                }
                // It can name others that stay here.
                _ if name == CONNECTION && !self.names_none(value.as_bytes()) => return false,
                _ if stays_here(name.as_str()) => {}
                _ => return false,
            }
        }
        next.is_none()
    }

    /// Tells whether what is said of the connection is what most clients say, which names no header
    /// that would be forwarded.
    fn names_none(&self, connection: &[u8]) -> bool {
        connection.eq_ignore_ascii_case(b"keep-alive")
            || (connection.eq_ignore_ascii_case(b"close") && !self.map.contains_key("close"))
    }
}

/// Tells whether a client's header concerns one connection only (RFC 9110, 7.6.1), frames the body,
/// holds a credential, or is meant for this gateway.
fn stays_here(name: &str) -> bool {
    is_hop_by_hop(name)
        || matches!(
            name,
            "authorization"
                | "content-length"
                | "cookie"
                | "expect"
                | "host"
                | "proxy-authorization"
                | "x-api-key"
                | "x-moltbot-agent-id"
                | "x-moltbot-session-key"
                | TOKEN_HEADER
        )
}

/// Tells whether a header frames a message on its connection (RFC 9110, 7.6.1).
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Takes out of a client's headers what is not forwarded; the rest keeps its order.
fn clean(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    let all = std::mem::take(headers);
    headers.reserve(all.keys_len());
    let mut current = None;
    for (name, value) in all {
        // Further values of a name come without it.
        current = name.or(current);
        if let Some(name) = current.as_ref()
            && !stays_here(name.as_str())
            && !listed.contains(name)
        {
            headers.append(name.clone(), value);
        }
    }
}

/// Takes out of a reply's headers what frames it on that connection.
pub(crate) fn clean_reply(headers: &mut HeaderMap) {
    remove_if(headers, is_hop_by_hop);
}

/// Takes out the headers whose name is meant. Looks at those that are there only: a request has
/// fewer than could be.
fn remove_if(headers: &mut HeaderMap, is_meant: impl Fn(&str) -> bool) {
    while let Some(name) = headers.keys().find(|name| is_meant(name.as_str())).cloned() {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn credentials_and_framing_are_not_forwarded() {
        let mut sent = ClientHeaders::new(headers(&[
            ("authorization", "Bearer FAKE"),
            ("x-api-key", "FAKE"),
            ("cookie", "a=b"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("content-length", "4"),
            ("anthropic-beta", "b,a"),
            ("x-stainless-lang", "js"),
            ("x-unknown", "kept"),
        ]));
        let mut left: Vec<_> = sent.forwarded().keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["anthropic-beta", "x-stainless-lang", "x-unknown"]);
    }

    #[test]
    fn the_same_lines_are_known_again_and_no_others() {
        let lines = headers(&[("x-a", "1"), ("x-b", "2")]);
        let same = [
            vec![("x-a", "1"), ("x-b", "2")],
            vec![("host", "h"), ("x-a", "1"), ("content-length", "7"), ("x-b", "2"), ("te", "x")],
            vec![("connection", "Keep-Alive"), ("x-a", "1"), ("keep-alive", "5"), ("x-b", "2")],
            vec![("x-a", "1"), ("connection", "close"), ("x-b", "2")],
        ];
        let others = [
            vec![("x-a", "1")],
            vec![("x-a", "1"), ("x-b", "3")],
            vec![("x-b", "2"), ("x-a", "1")],
            vec![("x-a", "1"), ("x-b", "2"), ("x-b", "2")],
            vec![("x-a", "1"), ("x-b", "2"), ("x-c", "3")],
            // What `connection` names stays here: these forward one of the two.
            vec![("connection", "x-b"), ("x-a", "1"), ("x-b", "2")],
            vec![("x-a", "1"), ("x-b", "2"), ("connection", "x-b")],
        ];
        for (sent, expected) in
            same.iter().map(|one| (one, true)).chain(others.iter().map(|one| (one, false)))
        {
            let mut sent = ClientHeaders::new(headers(sent));
            assert_eq!(sent.forwards(&lines), expected, "{sent:?}");
            let order: Vec<_> = lines.iter().collect();
            assert_eq!(sent.forwarded().iter().collect::<Vec<_>>() == order, expected, "{sent:?}");
        }
    }
}
