//! The part of the suite about providers: requests, failures, headers, decoders.

use std::borrow::Cow;

use moltbot_abi::{DecoderHandle, PluginHandle, ProviderHandle};
use moltbot_core::{
    BodyNeed, CODES, ChatView, Credential, CredentialKind, CredentialView, DecoderMode, Ended,
    Event, Exchange, Header, NetworkFault, Op, Origin, Plugin, Provider, ProviderError,
    ProviderInfo, Secret, Slot, splice,
};
use serde_json::{Value, json};

use super::login::host_of;
use super::{Conformance, Report};
use crate::{NOW, block_on, chat, decode, decode_pieces, fake, leaks};

pub(super) fn check(
    suite: &Conformance,
    linked: &PluginHandle,
    carried: &PluginHandle,
    report: &mut Report,
) {
    for (n, provider) in suite.plugin.providers.iter().enumerate() {
        let place = format!("provider {n}");
        let Some(info) = report.calm(&place, || provider.info()) else { continue };
        let place = format!("provider {}", info.id);
        debug_assert!(matches!(linked.providers[n], ProviderHandle::Linked(_)));
        let carried = &carried.providers[n];
        let check = ProviderCheck { suite, provider: *provider, info, carried, place };
        check.info(report);
        check.requests(report);
        check.failures(report);
        check.headers(report);
        check.decoders(report);
    }
}

struct ProviderCheck<'a> {
    suite: &'a Conformance,
    provider: &'a dyn Provider,
    info: ProviderInfo,
    carried: &'a ProviderHandle,
    place: String,
}

impl ProviderCheck<'_> {
    fn info(&self, report: &mut Report) {
        let again = self.provider.info();
        let carried = block_on(self.carried.info());
        if again != self.info || carried.as_ref() != Ok(&self.info) {
            report.add(
                "an info is the same twice, linked and carried",
                &*self.place,
                "another info",
                "compute it from constants",
            );
        }
        report.round_trip("the info", &self.place, &self.info);
        let info = &self.info;
        let spelled =
            info.id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        let origin = info.origins.iter().any(|it| host_of(it) == host_of(&info.base_url));
        let default = info.default_model.is_empty() || info.model(&info.default_model).is_some();
        let sourced = info.catalog.iter().find(|model| model.source.is_empty());
        let rules = [
            (
                spelled && !info.id.is_empty(),
                "the id is not lower case",
                "spell `id` in lower-case kebab",
            ),
            (!info.label.is_empty(), "no label", "fill in `label`"),
            (
                info.base_url.is_empty() || origin,
                "`base_url` is not in `origins`",
                "add its origin",
            ),
            (
                default,
                "`default_model` is not in the catalog",
                "add the model, or name one that is",
            ),
            (sourced.is_none(), "a model without `source`", "cite the page its figures come from"),
            (
                info.params.is_null() || info.params.is_object(),
                "`params` is no schema",
                "make it a JSON Schema of an object, or null",
            ),
            (
                info.reads.iter().all(|read| read.starts_with('/')),
                "`reads` names no JSON pointer",
                "begin each with `/`",
            ),
        ];
        for (good, found, fix) in rules {
            if !good {
                report.add("an info is complete and consistent", &*self.place, found, fix);
            }
        }
        for kind in kinds() {
            let caps = report.calm(&self.place, || self.provider.caps(&kind));
            let carried = block_on(self.carried.caps(&kind)).ok();
            self.same("caps", caps == carried, report);
        }
    }

    fn requests(&self, report: &mut Report) {
        let mut bodies = self.suite.bodies.clone();
        bodies.extend(sample_bodies(&self.info));
        for body in &bodies {
            for view in self.views(body) {
                for kind in kinds() {
                    let credential = self.credential(&kind);
                    let place = format!(
                        "{}, request {:?} {:?} with {kind}, body {}",
                        self.place,
                        view.op,
                        view.origin,
                        body.chars().take(60).collect::<String>()
                    );
                    self.request(&view, &credential, body, &place, report);
                }
            }
        }
    }

    fn request(
        &self,
        view: &ChatView<'_>,
        credential: &Credential,
        body: &str,
        place: &str,
        report: &mut Report,
    ) {
        let with = CredentialView::of(credential);
        let ask = || self.provider.request(view, &with, NOW);
        let Some(once) = report.calm(place, ask) else { return };
        let again = report.calm(place, ask);
        let carried = block_on(self.carried.request(view, &with, NOW));
        if again.as_ref() != Some(&once) || carried != once {
            report.add(
                "a request is translated purely: the same twice, linked and carried",
                place,
                format!("{once:?}, then {again:?}, carried {carried:?}"),
                "translate from the arguments alone; `now` is one of them",
            );
        }
        match &once {
            Ok(exchange) => {
                report.round_trip("the exchange", place, exchange);
                self.exchange(exchange, view, &with, credential, body, place, report);
            }
            Err(ProviderError::Plugin { message }) => report.add(
                "a plugin keeps its contract",
                place,
                message.clone(),
                "answer `Invalid` or `Credential`, which say what the user can do",
            ),
            Err(_) => {}
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one exchange and everything it came from")]
    fn exchange(
        &self,
        exchange: &Exchange,
        view: &ChatView<'_>,
        with: &CredentialView<'_>,
        credential: &Credential,
        body: &str,
        place: &str,
        report: &mut Report,
    ) {
        let mut rule = |good: bool, rule: &'static str, found: String, fix: &'static str| {
            if !good {
                report.add(rule, place, found, fix);
            }
        };
        let secret = credential.secret().map_or("", Secret::expose);
        rule(
            secret.is_empty() || !leaks(&format!("{exchange:?}"), secret),
            "no secret is in an exchange",
            "a piece of the credential".to_string(),
            "use `Slot::secret(before, field)`",
        );
        let slots: &[(_, Slot)] = match exchange {
            Exchange::Http { url, set, splices, replace, .. } => {
                rule(
                    host_of(url) == host_of(&view.base_url),
                    "a request goes where the chat says",
                    format!("the address {url}"),
                    "build it from `chat.base_url`",
                );
                rule(
                    replace.is_none()
                        || (self.info.body == BodyNeed::Whole && view.origin == Origin::Composed),
                    "only a composed chat of a provider that sees bodies whole is replaced",
                    "`replace` is set".to_string(),
                    "use splices",
                );
                let spliced = splice(body.as_bytes(), splices, &view.found);
                let json = spliced.as_ref().map(|bytes| serde_json::from_slice::<Value>(bytes));
                rule(
                    matches!(json, Ok(Ok(_))),
                    "splices stay inside what was read, ascend, and leave JSON",
                    format!("{splices:?}"),
                    "splice only spans of `chat.found`, in order, each once",
                );
                set
            }
            Exchange::Run { program, args, env, .. } => {
                rule(
                    !program.is_empty() && !args.iter().any(|arg| arg.contains('\0')),
                    "a program can be started",
                    format!("{program} {args:?}"),
                    "name it, and keep NUL out of its arguments",
                );
                env
            }
            _ => {
                rule(
                    false,
                    "an exchange is of a known kind",
                    "Unknown".into(),
                    "return Http or Run",
                );
                &[]
            }
        };
        for (n, (name, slot)) in slots.iter().enumerate() {
            let twice = slots[..n].iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
            rule(
                !twice && is_token(name),
                "names are set once",
                format!("\"{name}\""),
                "set it once",
            );
            match slot {
                Slot::Literal { text } => rule(
                    !text.contains(['\r', '\n', '\0']),
                    "values have no control characters",
                    format!("{name}: {text:?}"),
                    "leave out what came from a client and holds one",
                ),
                Slot::Secret { field, .. } => rule(
                    with.has.contains(field),
                    "only secrets that are there are sent",
                    format!("{name} wants \"{field}\" of {:?}", with.has),
                    "answer `ProviderError::Credential` when `with.has` lacks it",
                ),
                _ => rule(
                    false,
                    "a slot is of a known kind",
                    name.to_string(),
                    "use Literal or Secret",
                ),
            }
        }
    }

    fn views(&self, body: &str) -> Vec<ChatView<'static>> {
        let base = chat(&self.info, body);
        let mut views = Vec::new();
        for op in [Op::Messages, Op::CountTokens, Op::Models, Op::PassThrough] {
            for origin in [Origin::Composed, Origin::Forwarded] {
                for params in [Value::Null, json!({}), json!({"cacheControlTtl": "1h", "x": [1]})] {
                    let path = if op == Op::PassThrough { "POST /v1/other" } else { "" };
                    let query = if origin == Origin::Forwarded { "beta=true" } else { "" };
                    let headers = match origin {
                        Origin::Composed => Vec::new(),
                        Origin::Forwarded => sample_headers(),
                    };
                    views.push(ChatView {
                        op,
                        origin,
                        path: path.into(),
                        query: query.into(),
                        headers: Cow::Owned(headers),
                        params: Cow::Owned(params),
                        ..base.clone()
                    });
                }
            }
        }
        views
    }

    fn credential(&self, kind: &CredentialKind) -> Credential {
        let mut credential = Credential::new(kind.clone(), self.info.id.as_ref());
        let prefix = self.info.api_key.as_ref().map_or("", |spec| spec.prefix.as_ref());
        match kind {
            CredentialKind::ApiKey => credential.key = Some(Secret::new(fake(prefix))),
            CredentialKind::Token => credential.token = Some(Secret::new(fake("tok-"))),
            CredentialKind::Oauth => credential.access = Some(Secret::new(fake("acc-"))),
            CredentialKind::None | CredentialKind::Other(_) => {}
        }
        credential
    }

    fn failures(&self, report: &mut Report) {
        for ended in sample_ends() {
            let place = format!("{}, failure of {}", self.place, brief(&ended));
            let judge = || self.provider.failure(&ended, NOW);
            let Some(failure) = report.calm(&place, judge) else { continue };
            let again = report.calm(&place, judge);
            self.same(&place, again.as_ref() == Some(&failure), report);
            match block_on(self.carried.failure(&ended, NOW)) {
                Ok(carried) => self.same(&place, carried == failure, report),
                // A body nested deeper than the wire allows is refused there, and nowhere else.
                Err(_) => self.same(&place, false, report),
            }
            report.round_trip("the failure", &place, &failure);
            let own: &Plugin = self.suite.plugin;
            let known = CODES.iter().chain(own.codes).any(|code| code.id == failure.code);
            if !known || failure.message.is_empty() {
                report.add(
                    "a failure has a message and a code that `explain` knows",
                    &*place,
                    format!("code \"{}\", message \"{}\"", failure.code, failure.message),
                    "use a code of moltbot_core::CODES, or add one with `plugin! { codes: [..] }`",
                );
            }
        }
    }

    fn headers(&self, report: &mut Report) {
        for value in ["", "0", "-1", "1e400", "NaN", "soon", "2026-09-21T00:00:00Z", "é\u{202e}"] {
            let mut headers = sample_headers();
            headers.iter_mut().for_each(|header| header.value = Cow::Borrowed(value));
            let observe = || self.provider.observe(&headers, NOW);
            let once = report.calm(&self.place, observe);
            let carried = block_on(self.carried.observe(&headers, NOW)).ok();
            self.same(&format!("{}, headers \"{value}\"", self.place), once == carried, report);
        }
    }

    fn decoders(&self, report: &mut Report) {
        let garbage: [&[u8]; 6] = [
            b"",
            b"\xff\xfe\0\r\r\n\n{\"",
            b"data: {}\n\ndata: [DONE]\n\n",
            b"event: error\ndata: not json\n\nevent: message_stop\ndata: null\n\n",
            b"{\"type\":\"message\"}\n{\"type\":\"result\"}\n",
            "event: é\ndata: \u{1f600}\n\n".as_bytes(),
        ];
        let own = self.suite.replies.iter().map(Vec::as_slice);
        for (n, bytes) in own.chain(garbage).enumerate() {
            let full = self.decoder(DecoderMode::Full, bytes, n, report);
            let observed = self.decoder(DecoderMode::Observe, bytes, n, report);
            if let (Some(full), Some(observed)) = (full, observed) {
                let place = format!("{}, reply {n}", self.place);
                let milestones: Vec<_> = full.iter().filter(|it| is_milestone(it)).collect();
                if milestones != observed.iter().collect::<Vec<_>>() {
                    report.add(
                        "observing gives the same Began, Ping, Error, TurnEnd and Write events, no others",
                        &*place,
                        format!("{observed:?} instead of {milestones:?}"),
                        "derive both modes from one state machine",
                    );
                }
                self.cut_short(bytes, &full, &place, report);
            }
        }
    }

    fn decoder(
        &self,
        mode: DecoderMode,
        bytes: &[u8],
        n: usize,
        report: &mut Report,
    ) -> Option<Vec<Event>> {
        let place = format!("{}, reply {n}, {mode:?}", self.place);
        let whole = report.calm(&place, || decode(self.provider, mode, bytes))?;
        for event in &whole {
            report.round_trip("an event", &place, event);
        }
        let at = positions(&whole);
        if !at.is_sorted() || at.last().is_some_and(|last| *last > bytes.len() as u64) {
            report.add(
                "`at` counts the bytes of the reply and never goes back",
                &*place,
                format!("{at:?} of {} bytes", bytes.len()),
                "use the end of the event as the splitter reports it",
            );
        }
        if let Some(error) = whole.iter().position(|it| matches!(it, Event::Error { .. }))
            && error + 1 != whole.len()
        {
            report.add(
                "nothing follows an Error event",
                &*place,
                format!("{:?}", &whole[error + 1..]),
                "ignore every byte after it, also in `end`",
            );
        }
        let mut splits: Vec<Vec<&[u8]>> =
            cuts(bytes.len(), 2_000).map(|cut| vec![&bytes[..cut], &bytes[cut..]]).collect();
        splits.push(bytes.chunks(1).collect());
        for pieces in &splits {
            let split = report.calm(&place, || decode_pieces(self.provider, mode, pieces))?;
            if split != whole {
                report.add(
                    "a decoder gives the same events for every split of the same bytes",
                    &*place,
                    format!("cut at byte {}: {split:?} instead of {whole:?}", pieces[0].len()),
                    "keep unfinished lines in the decoder; `SseSplitter` does",
                );
                break;
            }
        }
        let step = (splits.len() / 200).max(1);
        for pieces in splits.iter().rev().step_by(step) {
            let carried = block_on(decode_carried(self.carried, mode, pieces));
            self.same(&place, carried.as_ref() == Ok(&whole), report);
        }
        Some(whole)
    }

    /// A reply that breaks off before its turn ends is an error.
    fn cut_short(&self, bytes: &[u8], full: &[Event], place: &str, report: &mut Report) {
        let Some(Event::TurnEnd { at, .. }) = full.last() else { return };
        let end = usize::try_from(*at).unwrap_or(bytes.len()).min(bytes.len());
        for cut in cuts(end, 500) {
            // Up to four bytes may be the line end that the turn's last event does not need.
            if cut + 4 >= end {
                continue;
            }
            let part =
                report.calm(place, || decode(self.provider, DecoderMode::Full, &bytes[..cut]));
            let failed =
                part.as_ref().is_none_or(|it| matches!(it.last(), Some(Event::Error { .. })));
            if !failed {
                report.add(
                    "a reply that breaks off ends with an Error event",
                    place,
                    format!(
                        "{} of {} bytes: {:?}",
                        cut,
                        bytes.len(),
                        part.and_then(|it| it.last().cloned())
                    ),
                    "report an Error in `end` unless a TurnEnd or Error was reported",
                );
                return;
            }
        }
    }

    fn same(&self, place: &str, same: bool, report: &mut Report) {
        if !same {
            report.add(
                "a plugin does the same linked and through the wire",
                place,
                "another result",
                "return only plain data, computed from the arguments",
            );
        }
    }
}

async fn decode_carried(
    provider: &ProviderHandle,
    mode: DecoderMode,
    pieces: &[&[u8]],
) -> Result<Vec<Event>, ProviderError> {
    let mut decoder: DecoderHandle = provider.decoder(mode).await?;
    let mut events = Vec::new();
    for piece in pieces {
        decoder.push(piece, &mut events).await?;
    }
    decoder.end(&mut events).await?;
    Ok(events)
}

fn kinds() -> [CredentialKind; 5] {
    let other = CredentialKind::Other("passkey".to_string());
    use CredentialKind::{ApiKey, None, Oauth, Token};
    [ApiKey, Oauth, Token, None, other]
}

fn is_milestone(event: &Event) -> bool {
    matches!(
        event,
        Event::Began { .. }
            | Event::Ping { .. }
            | Event::Error { .. }
            | Event::TurnEnd { .. }
            | Event::Cost { .. }
            | Event::Write { .. }
    )
}

fn positions(events: &[Event]) -> Vec<u64> {
    let at = |event: &Event| match event {
        Event::Began { at, .. }
        | Event::Ping { at }
        | Event::Error { at, .. }
        | Event::TurnEnd { at, .. } => Some(*at),
        _ => None,
    };
    events.iter().filter_map(at).collect()
}

/// Every place to cut, or `most` of them, spread evenly.
fn cuts(length: usize, most: usize) -> impl Iterator<Item = usize> {
    (0..=length).step_by((length / most).max(1))
}

fn is_token(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(good)
}

fn brief(ended: &Ended) -> String {
    match ended {
        Ended::Http { status, body, .. } => {
            format!("HTTP {status} {}", body.chars().take(60).collect::<String>())
        }
        other => format!("{other:?}").chars().take(80).collect(),
    }
}

fn sample_headers() -> Vec<Header<'static>> {
    [
        ("User-Agent", "client/1.0"),
        ("content-type", "application/json"),
        ("request-id", "req_1"),
        ("retry-after", "7"),
        ("x-ratelimit-reset", "2026-09-21T00:00:10Z"),
    ]
    .map(|(name, value)| Header::new(name, value))
    .into()
}

fn sample_bodies(info: &ProviderInfo) -> Vec<String> {
    let model = if info.default_model.is_empty() { "a-model" } else { &info.default_model };
    let cached = json!({"type": "text", "text": "é", "cache_control": {"type": "ephemeral"}});
    let plain = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
    let rich = json!({
        "max_tokens": 16, "stream": true, "system": [cached], "unknown": {"model": "no"},
        "messages": [{"role": "user", "content": [cached]}],
        "tools": [{"name": "t", "input_schema": {}, "cache_control": null}], "model": model,
    });
    vec![plain.to_string(), format!("{rich:#}"), "{}".to_string()]
}

fn sample_ends() -> Vec<Ended> {
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let bodies = [
        String::new(),
        "null".to_string(),
        "[]".to_string(),
        "<html>502</html>".to_string(),
        r#"{"error":"text"}"#.to_string(),
        r#"{"error":{"type":5,"message":[]}}"#.to_string(),
        r#"{"type":"error","error":{"type":"a_new_error","message":"m\u001b[31m"}}"#.to_string(),
        "{\"error\":{\"type\":\"x\",\"message\":\"".to_string() + &"é".repeat(40_000),
        deep,
    ];
    let mut ends = Vec::new();
    for status in [0, 200, 304, 400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 503, 529, 999] {
        for body in &bodies {
            if body.len() > 1000 && status != 400 {
                continue;
            }
            let headers = if body.is_empty() { sample_headers() } else { Vec::new() };
            ends.push(Ended::Http { status, headers, body: body.clone() });
        }
    }
    for body in [Value::Null, json!([]), json!({"error": {"type": 1}}), json!({"error": "x"})] {
        let (kind, message) = ("a_new_error".to_string(), "m".to_string());
        ends.push(Ended::Event { kind, message, body: body.clone(), headers: sample_headers() });
        let stderr_tail = "no such thing".to_string();
        ends.push(Ended::Child { exit: Some(1), stderr_tail, last_event: body });
    }
    for what in
        [NetworkFault::Connect, NetworkFault::Timeout, NetworkFault::Broken, NetworkFault::Other]
    {
        ends.push(Ended::Network { what, message: "broken".to_string() });
    }
    ends.push(Ended::Unknown);
    ends
}
