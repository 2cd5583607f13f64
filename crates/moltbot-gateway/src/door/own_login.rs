//! A client's own login, sent on untouched (`gateway.passthroughLogin`, decision 7): nothing is
//! picked, stored, changed or tried again. The gateway's token then stands in another header.

use std::sync::{Arc, OnceLock};

use hyper::header::{ACCEPT_ENCODING, AUTHORIZATION, HOST, HeaderMap, HeaderValue};
use moltbot_core::{Credential, CredentialKind, CredentialView, Payer, Text};

use super::access;
use super::agent::{Access, Route};
use super::body::OutBody;
use super::forward::{Job, JobBody};
use super::serve::Asked;
use super::upstream::{Outgoing, Target};
use crate::attempt::Unsent;
use crate::record::{CredentialChoice, ModelChoice};

/// What logs and records call it.
const LABEL: &str = "client login";

/// Finds the login of a client, if it is to be used: one bearer that is no token of this gateway.
pub(super) fn find(asked: &Asked<'_>, headers: &HeaderMap) -> Option<HeaderValue> {
    if !asked.state.settings.passthrough_login {
        return None;
    }
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let login = all.next()?;
    let scheme = login.as_bytes().get(..7)?;
    if all.next().is_some() || !scheme.eq_ignore_ascii_case(b"bearer ") {
        return None;
    }
    let mut alone = HeaderMap::new();
    alone.insert(AUTHORIZATION, login.clone());
    let foreign = access::find(&asked.state.tokens, &alone).is_none();
    let mut login = login.clone();
    login.set_sensitive(true);
    foreign.then_some(login)
}

/// The same route without any credential of the agent's, and without rules that change a body.
pub(super) fn route(route: &Route) -> Arc<Route> {
    let provider = route.model.provider.clone();
    let credential = Credential::new(CredentialKind::ApiKey, provider.clone());
    let access = Access {
        label: LABEL.into(),
        profile: None,
        view: CredentialView {
            kind: CredentialKind::ApiKey,
            provider: provider.into(),
            has: Vec::new(),
            prefix: "".into(),
        },
        credential,
        headers: Vec::new(),
        renew: false,
        rereads: false,
        payer: Payer::Subscription,
        used: None,
        sent: OnceLock::new(),
    };
    let candidate = CredentialChoice {
        source: LABEL.into(),
        profile: None,
        mode: "client".into(),
        payer: Payer::Subscription,
        renew: false,
        skipped: None,
        until: None,
        quota: None,
        rewrite: 0,
    };
    let considered = ModelChoice {
        candidates: vec![candidate],
        more: 0,
        ..ModelChoice::clone(&route.considered)
    };
    let mut own = route.clone();
    own.credentials = vec![Arc::new(access)];
    own.considered = Arc::new(considered);
    own.resting = None;
    (own.rules, own.auto_cache) = (false, false);
    Arc::new(own)
}

/// Puts the request together: the client's, with its login.
pub(super) fn outgoing(
    job: &mut Job,
    target: Arc<Target>,
    mut headers: HeaderMap,
    login: HeaderValue,
) -> Result<(Outgoing, Vec<Text>), Unsent> {
    headers.insert(AUTHORIZATION, login);
    if let Some(host) = target.host() {
        headers.insert(HOST, host);
    }
    // Replies are observed as they pass, hence not compressed.
    let plain = HeaderValue::from_static("identity");
    let before = headers.insert(ACCEPT_ENCODING, plain.clone());
    let changed = before.filter(|before| *before != plain).map(|_| "accept-encoding".into());
    let body = match &mut job.body {
        JobBody::Stream(stream) => {
            stream.take().map_or_else(|| OutBody::pieces([]), OutBody::Stream)
        }
        JobBody::Pieces(pieces) => OutBody::pieces(pieces.iter().cloned()),
    };
    let out = Outgoing::new(job.method.clone(), target, headers, body);
    Ok((out, changed.into_iter().collect()))
}
