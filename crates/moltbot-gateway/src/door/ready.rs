//! What a provider made of a request is used again for the next one that is the same but for its
//! body: clients send the same headers every time.

use std::sync::{Arc, Mutex, Weak};

use hyper::header::{HeaderMap, HeaderValue};
use moltbot_core::{Found, Op, Text, Timestamp};

use super::agent::{Access, Route};
use super::headers::ClientHeaders;
use super::upstream::Target;

/// How many are kept, and how many are made anew within one second: clients that never send the same
/// twice must not cost more than they would without.
const MOST: usize = 8;
const MOST_PER_SECOND: usize = 32;

/// One worker's prepared requests.
#[derive(Default)]
pub(crate) struct Ready(Mutex<Shelf>);

#[derive(Default)]
struct Shelf {
    kept: Vec<Kept>,
    second: i64,
    made: usize,
}

/// All that a provider sees of a request whose body it does not change.
pub(crate) struct Seen<'a> {
    pub(crate) op: Op,
    pub(crate) route: &'a Arc<Route>,
    pub(crate) access: &'a Arc<Access>,
    pub(crate) query: &'a str,
    /// The model as the body names it.
    pub(crate) named: &'a Found<'a>,
    /// The time goes by seconds: a provider may write it into a request.
    pub(crate) now: Timestamp,
}

/// What was made of it.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) target: Arc<Target>,
    pub(crate) headers: HeaderMap,
    pub(crate) changed: Vec<Text>,
}

struct Kept {
    op: Op,
    route: Weak<Route>,
    access: Weak<Access>,
    query: String,
    named: Found<'static>,
    /// What was forwarded of the client's headers.
    lines: HeaderMap,
    made: Made,
}

impl Ready {
    /// Finds what was made of the same request within this second.
    pub(crate) fn find(&self, seen: &Seen<'_>, headers: &ClientHeaders) -> Option<Made> {
        let shelf = super::locked(&self.0);
        if shelf.second != second(seen.now) {
            return None;
        }
        let found = shelf.kept.iter().find(|kept| kept.is(seen) && headers.forwards(&kept.lines));
        found.map(|kept| kept.made.clone())
    }

    /// Keeps what was made, of a client's lines that are forwarded.
    pub(crate) fn keep(&self, seen: &Seen<'_>, lines: &HeaderMap, made: &Made) {
        let mut shelf = super::locked(&self.0);
        if shelf.second != second(seen.now) {
            // The rest is of no use any more, nor are the credentials in it.
            shelf.kept.clear();
            (shelf.second, shelf.made) = (second(seen.now), 0);
        }
        if shelf.made >= MOST_PER_SECOND {
            return;
        }
        let kept = Kept {
            op: seen.op,
            route: Arc::downgrade(seen.route),
            access: Arc::downgrade(seen.access),
            query: seen.query.into(),
            named: Found {
                path: seen.named.path.to_string().into(),
                span: seen.named.span,
                value: seen.named.value.to_string().into(),
            },
            lines: copied(lines),
            made: Made { headers: copied(&made.headers), ..made.clone() },
        };
        let place = shelf.made % MOST;
        shelf.made += 1;
        match shelf.kept.get_mut(place) {
            Some(old) => *old = kept,
            None => shelf.kept.push(kept),
        }
    }
}

impl Kept {
    fn is(&self, seen: &Seen<'_>) -> bool {
        // What a weak reference points to is not given to another as long as it is there.
        self.route.as_ptr() == Arc::as_ptr(seen.route)
            && self.access.as_ptr() == Arc::as_ptr(seen.access)
            && self.op == seen.op
            && self.query == seen.query
            && self.named == *seen.named
    }
}

fn second(at: Timestamp) -> i64 {
    at.millis().div_euclid(1_000)
}

/// Copies values, which else would keep the buffers they were read into.
fn copied(headers: &HeaderMap) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(headers.keys_len());
    for (name, value) in headers {
        // What was a value is one.
        let Ok(mut copy) = HeaderValue::from_bytes(value.as_bytes()) else { continue };
        copy.set_sensitive(value.is_sensitive());
        out.append(name.clone(), copy);
    }
    out
}
