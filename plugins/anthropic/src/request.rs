//! From a chat to one HTTP request: route, credential header, betas, and small edits of the body.
//!
//! Headers of three sources meet here. Later ones win, except for `anthropic-beta`, whose lists
//! are united (spec T-8): our defaults for composed chats, the config's, the client's.

use moltbot_core::{
    ChatView, CredentialKind, CredentialView, Exchange, Found, Header, Op, Origin, ProviderError,
    Slot, Span, Splice, Text, VERSION, header,
};
use serde_json::{Map, Value};

#[cfg(feature = "bearer")]
use crate::bearer::{self, is_identity, is_identity_beta};
use crate::info::{CACHE_TTLS, ID};

const BETA: &str = "anthropic-beta";

/// Betas of the chats this program composes (spec T-3).
const COMPOSED_BETAS: [&str; 2] =
    ["fine-grained-tool-streaming-2025-05-14", "interleaved-thinking-2025-05-14"];

/// The beta of one-hour cache entries: generally available by now, still accepted (spec T-19).
const TTL_BETA: &str = "extended-cache-ttl-2025-04-11";

/// How secrets begin that are sent as bearer tokens whatever they were stored as (spec T-2).
const BEARER_PREFIX: &str = "sk-ant-oat";

/// Headers that the config cannot set: credentials, our name, and what frames the message.
const NOT_CONFIGURABLE: [&str; 17] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-api-key",
    "x-app",
];

/// Headers in which a client could have left a credential; the host takes them out, and so do we.
const CREDENTIAL_HEADERS: [&str; 4] =
    ["authorization", "cookie", "proxy-authorization", "x-api-key"];

/// Translates a chat into one exchange. Pure.
///
/// A credential that this build cannot send is a `Credential` error, a path that leaves the base
/// address or a config header with control characters an `Invalid` one.
pub(crate) fn request(
    chat: &ChatView<'_>,
    with: &CredentialView<'_>,
) -> Result<Exchange, ProviderError> {
    let auth = Auth::of(with)?;
    let (method, path) = route(chat)?;
    let mut plan = Plan::new(chat);
    plan.credential(auth);
    plan.composed_defaults(method);
    plan.config(auth)?;
    plan.identity(auth);
    let ttl = cache_ttl(chat, with, auth);
    plan.betas(auth, ttl_beta(chat, with, ttl));
    plan.encoding();
    let splices = plan.body(ttl);
    let Plan { set, drop, changed, .. } = plan;
    let url = url(chat, path)?;
    let method = match method {
        "POST" => "POST".into(),
        "GET" => "GET".into(),
        other => other.to_string().into(),
    };
    Ok(Exchange::Http { method, url, set, drop, splices, replace: None, changed })
}

/// How a credential is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Auth {
    Key,
    #[cfg(feature = "bearer")]
    Bearer {
        field: &'static str,
    },
}

impl Auth {
    /// Decides by the kind; a key that looks like a token is one, because variables and config
    /// entries know no kinds (spec T-2).
    fn of(with: &CredentialView<'_>) -> Result<Self, ProviderError> {
        match &with.kind {
            CredentialKind::ApiKey if with.prefix.starts_with(BEARER_PREFIX) => Self::bearer("key"),
            CredentialKind::ApiKey => Ok(Self::Key),
            CredentialKind::Oauth => Self::bearer("access"),
            CredentialKind::Token => Self::bearer("token"),
            other => {
                let message = format!("a credential of type \"{other}\" cannot be sent to the API");
                Err(ProviderError::Credential { message })
            }
        }
    }

    #[cfg(feature = "bearer")]
    fn bearer(field: &'static str) -> Result<Self, ProviderError> {
        Ok(Self::Bearer { field })
    }

    #[cfg(not(feature = "bearer"))]
    fn bearer(_field: &'static str) -> Result<Self, ProviderError> {
        let message = "this build sends API keys only; it was made without bearer tokens".into();
        Err(ProviderError::Credential { message })
    }

    fn is_key(self) -> bool {
        self == Self::Key
    }

    fn is_identity(self, name: &str) -> bool {
        !self.is_key() && is_identity(name)
    }

    /// Tells whether a beta must not be sent with this credential.
    fn refuses_beta(self, beta: &str, by_config: bool) -> bool {
        let ttl = by_config && beta.eq_ignore_ascii_case(TTL_BETA);
        !self.is_key() && (ttl || is_identity_beta(beta))
    }
}

/// Without bearer tokens there is nothing to hide: every request carries a key.
#[cfg(not(feature = "bearer"))]
fn is_identity(_name: &str) -> bool {
    false
}

#[cfg(not(feature = "bearer"))]
fn is_identity_beta(_beta: &str) -> bool {
    false
}

/// Returns method and path, without the query.
fn route<'c>(chat: &'c ChatView<'_>) -> Result<(&'c str, &'c str), ProviderError> {
    let (method, path) = match chat.op {
        Op::Messages => ("POST", "/v1/messages"),
        Op::CountTokens => ("POST", "/v1/messages/count_tokens"),
        Op::Models => ("GET", "/v1/models"),
        Op::PassThrough => chat.path.split_once(' ').unwrap_or(("POST", &chat.path)),
        Op::Unknown => return Err(invalid("this operation is newer than this plugin")),
    };
    let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    // `//host` and a path without its slash could change where the request goes.
    let stays = path.starts_with('/') && !path.starts_with("//") && !path.contains('\\');
    let climbs = path.split('/').any(|part| {
        // Nothing that is longer, even written as `%2e%2e`, climbs: most parts cost no copy.
        part.len() <= 6
            && part.contains(['.', '%'])
            && matches!(&*part.replace("%2e", ".").replace("%2E", "."), "." | "..")
    });
    if !is_method || !stays || climbs || !is_clean(path) || path.contains('?') {
        return Err(invalid("the path of the request is not usable"));
    }
    Ok((method, path))
}

/// Puts the address together; the query goes on as it came (spec W-14).
fn url(chat: &ChatView<'_>, path: &str) -> Result<String, ProviderError> {
    if !is_clean(&chat.query) {
        return Err(invalid("the query of the request is not usable"));
    }
    let base = chat.base_url.trim_end_matches('/');
    let mark = if chat.query.is_empty() { "" } else { "?" };
    Ok([base, path, mark, &chat.query].concat())
}

fn is_clean(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

fn invalid(message: &str) -> ProviderError {
    ProviderError::Invalid { message: message.into() }
}

/// Tells whether the rules of spec T-18 and T-19 hold: for the vendor's own API, and for its
/// models behind the one reseller that takes the same fields. Others could refuse them.
fn cache_rules_apply(chat: &ChatView<'_>, with: &CredentialView<'_>) -> bool {
    let asks = matches!(chat.op, Op::Messages | Op::CountTokens);
    let reseller = with.provider == "openrouter" && chat.model.starts_with("anthropic/");
    asks && (with.provider == ID || reseller)
}

/// Returns the lifetime to write into every breakpoint: only with an API key, only if the config
/// says one of the two values (spec T-18).
fn cache_ttl(chat: &ChatView<'_>, with: &CredentialView<'_>, auth: Auth) -> Option<&'static str> {
    let asked = chat.params.get("cacheControlTtl")?.as_str()?;
    let ttl = CACHE_TTLS.into_iter().find(|ttl| *ttl == asked)?;
    (auth.is_key() && cache_rules_apply(chat, with)).then_some(ttl)
}

/// Tells whether the beta of lifetimes goes along: with every chat of our own (spec T-19), and with
/// a client's only where a lifetime is written into its breakpoints; else its list stays its own.
fn ttl_beta(chat: &ChatView<'_>, with: &CredentialView<'_>, ttl: Option<&str>) -> bool {
    match chat.origin {
        Origin::Composed => cache_rules_apply(chat, with),
        _ => ttl.is_some() && chat.found.iter().any(|found| is_breakpoint(&found.path)),
    }
}

fn is_breakpoint(path: &str) -> bool {
    path.ends_with("/cache_control")
}

/// The request as it grows.
struct Plan<'c, 'd> {
    chat: &'c ChatView<'d>,
    set: Vec<(Text, Slot)>,
    drop: Vec<Text>,
    changed: Vec<Text>,
}

impl<'c, 'd> Plan<'c, 'd> {
    fn new(chat: &'c ChatView<'d>) -> Self {
        Self { chat, set: Vec::with_capacity(4), drop: Vec::new(), changed: Vec::new() }
    }

    fn is_forwarded(&self) -> bool {
        self.chat.origin == Origin::Forwarded
    }

    fn client(&self, name: &str) -> Option<&'c str> {
        header(&self.chat.headers, name)
    }

    /// Tells whether a client's header of that name wins over ours or the config's.
    fn client_wins(&self, name: &str) -> bool {
        self.is_forwarded() && self.client(name).is_some()
    }

    /// Sets a header; a later call for the same name wins.
    fn put(&mut self, name: &str, value: impl Into<Text>) {
        let value = value.into();
        if self.client(name) != Some(value.as_ref()) {
            self.note(name);
        }
        self.set.retain(|(set, _)| set != name);
        self.set.push((name.to_string().into(), Slot::literal(value)));
    }

    fn leave_out(&mut self, name: &str) {
        let name = name.to_ascii_lowercase();
        if !self.drop.iter().any(|dropped| *dropped == name) {
            self.drop.push(name.into());
        }
    }

    /// Notes what the client should know was changed.
    fn note(&mut self, what: &str) {
        if self.is_forwarded() && !self.changed.iter().any(|noted| noted == what) {
            self.changed.push(what.to_string().into());
        }
    }

    fn credential(&mut self, auth: Auth) {
        let (name, slot) = match auth {
            Auth::Key => ("x-api-key", Slot::secret("", "key")),
            #[cfg(feature = "bearer")]
            Auth::Bearer { field } => ("authorization", Slot::secret("Bearer ", field)),
        };
        for other in CREDENTIAL_HEADERS {
            if other != name && self.client(other).is_some() {
                self.leave_out(other);
            }
        }
        self.set.push((name.into(), slot));
    }

    fn composed_defaults(&mut self, method: &str) {
        if self.is_forwarded() {
            return;
        }
        self.put("user-agent", format!("moltbot/{VERSION}"));
        self.put("anthropic-version", "2023-06-01");
        self.put("accept", "application/json");
        if method == "POST" {
            self.put("content-type", "application/json");
        }
    }

    fn config(&mut self, auth: Auth) -> Result<(), ProviderError> {
        for Header { name, value } in self.chat.extra.iter() {
            let name = name.trim().to_ascii_lowercase();
            let is_token =
                |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_token) || value.chars().any(char::is_control)
            {
                return Err(invalid(
                    "a header in the config has a name or value that cannot be sent",
                ));
            }
            let refused = NOT_CONFIGURABLE.contains(&name.as_str()) || auth.is_identity(&name);
            if !refused && name != BETA && !self.client_wins(&name) {
                self.put(&name, value.to_string());
            }
        }
        Ok(())
    }

    /// With a login or token, a forwarded request goes out under our name (decision 7).
    fn identity(&mut self, auth: Auth) {
        if auth.is_key() {
            return;
        }
        for Header { name, .. } in self.chat.headers.iter() {
            if auth.is_identity(name) {
                let name = name.to_ascii_lowercase();
                self.leave_out(&name);
                self.note(&name);
            }
        }
        self.put("user-agent", format!("moltbot/{VERSION}"));
    }

    /// Unites the lists of betas: the client's in its order, the config's, ours.
    fn betas(&mut self, auth: Auth, ttl_beta: bool) {
        let asks = matches!(self.chat.op, Op::Messages | Op::CountTokens);
        let mut betas: Vec<&str> = Vec::new();
        let mut differs = false;
        for beta in listed(&self.chat.headers) {
            if auth.refuses_beta(beta, false) {
                differs = true;
            } else if !contains(&betas, beta) {
                betas.push(beta);
            }
        }
        let sent = betas.len();
        let config = listed(&self.chat.extra).filter(|beta| !auth.refuses_beta(beta, true));
        let composed = if self.is_forwarded() || !asks { &[][..] } else { &COMPOSED_BETAS[..] };
        let needed: &[&str] = match auth {
            Auth::Key if ttl_beta => &[TTL_BETA],
            Auth::Key => &[],
            #[cfg(feature = "bearer")]
            Auth::Bearer { .. } => &[bearer::BETA],
        };
        for beta in config.chain(composed.iter().copied()).chain(needed.iter().copied()) {
            if !contains(&betas, beta) {
                betas.push(beta);
            }
        }
        if differs || betas.len() > sent {
            self.put(BETA, betas.join(","));
        }
    }

    /// Replies are observed as they pass, hence not compressed.
    fn encoding(&mut self) {
        let value = "identity";
        if self.client("accept-encoding").is_some_and(|sent| sent != value) {
            self.note("accept-encoding");
        }
        self.set.push(("accept-encoding".into(), Slot::literal(value)));
    }

    /// Edits the model id and the cache breakpoints, nothing else.
    fn body(&mut self, ttl: Option<&str>) -> Vec<Splice> {
        if !matches!(self.chat.op, Op::Messages | Op::CountTokens) {
            return Vec::new();
        }
        let mut splices = Vec::new();
        for found in self.chat.found.iter() {
            let (what, splice) = if found.path == "/model" {
                ("model", model_splice(found, &self.chat.model))
            } else if is_breakpoint(&found.path) {
                ("cache_control.ttl", ttl.and_then(|ttl| ttl_splice(found, ttl)))
            } else {
                continue;
            };
            if let Some(splice) = splice {
                self.note(what);
                splices.push(splice);
            }
        }
        splices.sort_by_key(|splice| splice.span.start);
        splices
    }
}

/// Lists the betas of every `anthropic-beta` line.
fn listed<'h>(headers: &'h [Header<'_>]) -> impl Iterator<Item = &'h str> {
    headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case(BETA))
        .flat_map(|header| header.value.split(','))
        .map(str::trim)
        .filter(|beta| !beta.is_empty())
}

fn contains(betas: &[&str], beta: &str) -> bool {
    betas.iter().any(|known| known.eq_ignore_ascii_case(beta))
}

/// Writes the target model where the body names another.
fn model_splice(found: &Found<'_>, model: &str) -> Option<Splice> {
    let plain = found.value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    if model.is_empty() || (plain == Some(model) && !model.contains('\\')) {
        return None;
    }
    let named: String = serde_json::from_str(&found.value).ok()?;
    if named == model {
        return None;
    }
    Some(Splice { span: found.span, text: Value::from(model).to_string() })
}

/// Writes a lifetime into one `cache_control` object: inserted before its closing brace if it has
/// none, so that every byte stays; written anew if it has another.
fn ttl_splice(found: &Found<'_>, ttl: &str) -> Option<Splice> {
    let mut object: Map<String, Value> = serde_json::from_str(&found.value).ok()?;
    match object.get("ttl") {
        Some(Value::String(there)) if there == ttl => None,
        Some(_) => {
            object.insert("ttl".into(), ttl.into());
            Some(Splice { span: found.span, text: Value::Object(object).to_string() })
        }
        None => {
            // The span ends behind the brace, because the value is exactly one JSON object.
            let brace = found.span.end.checked_sub(1)?;
            let comma = if object.is_empty() { "" } else { "," };
            let text = format!("{comma}\"ttl\":\"{ttl}\"");
            Some(Splice { span: Span::new(brace, brace), text })
        }
    }
}
