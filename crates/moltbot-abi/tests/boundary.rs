//! One plugin that behaves in every way a plugin can, called through encoded bytes.

#![allow(clippy::unwrap_used, reason = "a test that fails should stop")]

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use moltbot_abi::{
    Carrier, CarrierError, Guest, Memory, MethodHandle, Packet, PluginHandle, ProviderHandle,
};
use moltbot_core::*;
use serde_json::{Value, json};

/// What it does is the choice of the call.
struct Odd;

type Asking<'a> = Pin<Box<dyn Future<Output = Result<Timestamp, AuthError>> + Send + 'a>>;

async fn join(mut one: Asking<'_>, mut two: Asking<'_>) -> Result<(), AuthError> {
    let mut results = (None, None);
    poll_fn(|context| {
        for (result, future) in [(&mut results.0, &mut one), (&mut results.1, &mut two)] {
            if result.is_none()
                && let Poll::Ready(output) = future.as_mut().poll(context)
            {
                *result = Some(output);
            }
        }
        if results.0.is_some() && results.1.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    results.0.unwrap().and(results.1.unwrap()).map(drop)
}

/// Takes the first that is ready and abandons the other.
async fn race(mut one: Asking<'_>, mut two: Asking<'_>) -> Result<(), AuthError> {
    poll_fn(|context| match one.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(output),
        Poll::Pending => two.as_mut().poll(context),
    })
    .await
    .map(drop)
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("dropped FAKE-SECRET");
    }
}

#[async_trait]
impl AuthMethod for Odd {
    fn id(&self) -> &str {
        "odd"
    }

    fn offers(&self, provider: &ProviderInfo) -> Vec<Offer> {
        assert!(provider.id != "panic", "FAKE-SECRET");
        vec![Offer { choice: provider.id.clone(), ..Offer::default() }]
    }

    fn settings(&self) -> Option<SettingsSpec> {
        Some(SettingsSpec { key: "odd".into(), schema: json!({"type": "object"}) })
    }

    async fn login(&self, cx: &Cx<'_>) -> Result<Login, AuthError> {
        match cx.choice.as_ref() {
            "join" => join(Box::pin(cx.clock()), Box::pin(cx.clock())).await?,
            "race" => {
                race(Box::pin(cx.clock()), Box::pin(cx.clock())).await?;
                cx.clock().await?;
            }
            "foreign" => std::future::pending().await,
            "yield" => {
                let mut left = 3;
                poll_fn(|context| {
                    left -= 1;
                    context.waker().wake_by_ref();
                    if left == 0 { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
            "spin" => {
                poll_fn(|context| {
                    context.waker().wake_by_ref();
                    Poll::<()>::Pending
                })
                .await;
            }
            "panic" => {
                cx.clock().await?;
                panic!("FAKE-SECRET");
            }
            "bad-drop" => {
                let _bomb = PanicsWhenDropped;
                cx.clock().await?;
            }
            "newer" => drop(cx.host.perform(Effect::Unknown).await?),
            _ => {
                let key = cx.ask("key", |text| Ok(Secret::new(text))).await?;
                return Ok(Login::new(Credential::api_key("p", key)));
            }
        }
        Ok(Login::new(Credential::new(CredentialKind::None, "p")))
    }

    fn renew(
        &self,
        _: &RenewSettings,
        old: &Credential,
        now: Timestamp,
    ) -> Result<Renewal, AuthError> {
        if !old.is_expired(now) {
            return Ok(Renewal::NotDue {});
        }
        let body = old.refresh.clone();
        let (method, url) = ("POST".into(), "https://id.example/token".to_string());
        Ok(Renewal::Http {
            request: HttpRequest { method, url, headers: vec![], body, timeout_ms: None },
        })
    }

    fn renewed(
        &self,
        old: &Credential,
        reply: &RenewReply,
        at: Timestamp,
    ) -> Result<Credential, AuthError> {
        let (access, expires) = (Some(reply.body.clone()), Some(at.plus(1)));
        Ok(Credential { access, expires, ..old.clone() })
    }

    async fn refresh(&self, cx: &Cx<'_>, old: &Credential) -> Result<Credential, AuthError> {
        Ok(Credential { expires: Some(cx.clock().await?), ..old.clone() })
    }

    async fn doctor(&self, cx: &Cx<'_>, stored: &[Credential]) -> Result<Vec<Finding>, AuthError> {
        cx.tell(Level::Info, "looking").await?;
        let text = format!("{} stored", stored.len());
        Ok(vec![Finding { level: Level::Warning, text, fix: None }])
    }
}

/// Counts bytes, and gives every finished line as text.
struct Lines(Vec<u8>, u64);

impl Decoder for Lines {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) {
        for byte in bytes {
            self.1 += 1;
            if *byte == b'!' {
                panic!("FAKE-SECRET");
            } else if *byte == b'\n' {
                let text = String::from_utf8_lossy(&self.0).into_owned();
                self.0.clear();
                events.push(Event::Text { index: 0, text });
                events.push(Event::Ping { at: self.1 });
            } else {
                self.0.push(*byte);
            }
        }
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        let text = format!("{} left", self.0.len());
        events.push(Event::Write { text });
    }
}

impl Provider for Odd {
    fn info(&self) -> ProviderInfo {
        ProviderInfo {
            id: "odd-service".into(),
            reads: vec!["/model".into()],
            ..ProviderInfo::default()
        }
    }

    fn caps(&self, kind: &CredentialKind) -> ProviderCaps {
        ProviderCaps { cache_ttl: vec![kind.to_string().into()] }
    }

    fn request(
        &self,
        chat: &ChatView<'_>,
        with: &CredentialView<'_>,
        _: Timestamp,
    ) -> Result<Exchange, ProviderError> {
        if with.has.is_empty() {
            return Err(ProviderError::Credential { message: "there is no key".into() });
        }
        let splices =
            chat.found.iter().map(|it| Splice { span: it.span, text: chat.model.to_string() });
        Ok(Exchange::Http {
            method: "POST".into(),
            url: chat.base_url.to_string(),
            set: vec![("x-key".into(), Slot::secret("", "key"))],
            drop: vec![],
            splices: splices.collect(),
            replace: None,
            changed: vec![],
        })
    }

    fn failure(&self, ended: &Ended, now: Timestamp) -> Failure {
        let status = if let Ended::Http { status, .. } = ended { *status } else { 0 };
        Failure {
            kind: FailureKind::Server,
            scope: Scope::Upstream,
            reset: Some(now),
            account: None,
            code: "upstream".into(),
            message: status.to_string(),
            advice: None,
        }
    }

    fn observe(&self, headers: &[Header<'_>], _: Timestamp) -> Observed {
        Observed { request_id: header(headers, "id").map(String::from), ..Observed::default() }
    }

    fn decoder(&self, _: DecoderMode) -> Box<dyn Decoder> {
        Box::new(Lines(Vec::new(), 0))
    }
}

static ODD: Plugin = Plugin {
    id: "odd",
    version: "1.2.3",
    about: "behaves in every way",
    core: VERSION,
    auth: &[&Odd],
    providers: &[&Odd],
    codes: &[],
};

/// Answers at once, or never if it is asked to wait.
#[derive(Default)]
struct Desk {
    waits: bool,
    seen: Mutex<Vec<Effect>>,
}

#[async_trait]
impl Host for Desk {
    async fn perform(&self, effect: Effect) -> Result<Reply, HostError> {
        self.seen.lock().unwrap().push(effect.clone());
        if self.waits {
            std::future::pending::<()>().await;
        }
        match effect {
            Effect::Now {} => Ok(Reply::Now { now: NOW }),
            Effect::Tell { .. } => Ok(Reply::Done {}),
            Effect::Ask { .. } => Ok(Reply::Answer { value: Secret::new("FAKE-KEY"), typed: true }),
            other => panic!("{other:?}"),
        }
    }
}

/// Keeps every message of a carrier in memory.
struct Recorder(Arc<Memory>, Mutex<Vec<Value>>);

#[async_trait]
impl Carrier for Recorder {
    async fn turn(&self, message: Packet) -> Result<Packet, CarrierError> {
        let answer = self.0.turn(message.clone()).await?;
        for packet in [&message, &answer] {
            self.1.lock().unwrap().push(serde_json::from_slice(packet).unwrap());
        }
        Ok(answer)
    }

    fn post(&self, message: Packet) {
        self.0.post(message);
    }
}

/// Says the same whatever it is asked, after an honest hello.
struct Parrot(&'static str);

#[async_trait]
impl Carrier for Parrot {
    async fn turn(&self, message: Packet) -> Result<Packet, CarrierError> {
        if message.starts_with(br#"{"op":"hello""#) {
            return Ok(Guest::new(vec![&ODD]).turn(&message));
        }
        Ok(Packet::new(self.0.as_bytes().to_vec()))
    }

    fn post(&self, _: Packet) {}
}

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn block_on<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the call waits"),
    }
}

fn connect(carrier: Arc<dyn Carrier>) -> (MethodHandle, ProviderHandle) {
    let plugin = block_on(PluginHandle::connect(carrier)).unwrap().remove(0);
    assert_eq!((plugin.id.as_str(), plugin.version.as_str()), ("odd", "1.2.3"));
    (plugin.methods[0].clone(), plugin.providers[0].clone())
}

/// Offers and settings depend on their arguments alone; a failure is nobody's answer for ever.
#[test]
fn the_same_question_is_asked_once() {
    let recorder = Arc::new(Recorder(Memory::carrying(&[&ODD]), Mutex::default()));
    let (method, _) = connect(recorder.clone());
    let asked = || recorder.1.lock().unwrap().len() / 2 - 1;
    let of = |id: &'static str| ProviderInfo { id: id.into(), ..ProviderInfo::default() };
    for _ in 0..3 {
        for id in ["one", "two"] {
            assert_eq!(block_on(method.offers(&of(id))).unwrap()[0].choice, id);
        }
        assert!(block_on(method.settings()).unwrap().is_some());
    }
    assert_eq!(asked(), 2, "settings came with the hello");
    let changed = ProviderInfo { label: "One".into(), ..of("one") };
    block_on(method.offers(&changed)).unwrap();
    assert_eq!(asked(), 3, "another description is another question");
    for n in [4, 5] {
        block_on(method.offers(&of("panic"))).unwrap_err();
        assert_eq!(asked(), n);
    }
}

/// What is offered to all of them takes one call; a panic about one is no answer about the others.
#[test]
fn several_providers_are_asked_about_at_once() {
    let recorder = Arc::new(Recorder(Memory::carrying(&[&ODD]), Mutex::default()));
    let (method, _) = connect(recorder.clone());
    let asked = || recorder.1.lock().unwrap().len() / 2 - 1;
    let of = |id: &'static str| ProviderInfo { id: id.into(), ..ProviderInfo::default() };
    let [one, two, other, panic] = ["one", "two", "other", "panic"].map(of);
    block_on(method.foresee(&[&one, &two]));
    for info in [&one, &two] {
        assert_eq!(block_on(method.offers(info)).unwrap()[0].choice, info.id);
    }
    assert_eq!(asked(), 1);
    block_on(method.foresee(&[&other, &panic]));
    assert_eq!(block_on(method.offers(&other)).unwrap()[0].choice, other.id);
    block_on(method.offers(&panic)).unwrap_err();
    assert_eq!(asked(), 4);
}

/// Says no more in its hello than the first version did.
struct Older(Arc<Memory>);

#[async_trait]
impl Carrier for Older {
    async fn turn(&self, message: Packet) -> Result<Packet, CarrierError> {
        let answer = self.0.turn(message).await?;
        let mut answer: Value = serde_json::from_slice(&answer).unwrap();
        if let Some(plugins) = answer["plugins"].as_array_mut() {
            for member in ["infos", "settings"] {
                plugins[0].as_object_mut().unwrap().remove(member).unwrap();
            }
            answer["features"] = json!(["auth", "provider"]);
        }
        Ok(Packet::new(answer.to_string().into_bytes()))
    }

    fn post(&self, _: Packet) {}
}

#[test]
fn an_older_guest_is_asked_one_by_one() {
    let recorder = Arc::new(Recorder(Memory::carrying(&[&ODD]), Mutex::default()));
    let (newer, provider) = connect(recorder);
    let (older, same) = connect(Arc::new(Older(Memory::carrying(&[&ODD]))));
    assert_eq!(block_on(same.info()), block_on(provider.info()));
    assert_eq!(block_on(older.settings()), block_on(newer.settings()));
    let info = ProviderInfo { id: "one".into(), ..ProviderInfo::default() };
    block_on(older.foresee(&[&info]));
    assert_eq!(block_on(older.offers(&info)), block_on(newer.offers(&info)));
}

fn call(choice: &str) -> Call {
    Call {
        provider: ProviderInfo::default(),
        choice: choice.to_string().into(),
        verb: None,
        fields: Vec::new(),
        now: NOW,
        interactive: false,
        os: "linux".into(),
        settings: Value::Null,
    }
}

fn login(choice: &str) -> (Result<Login, AuthError>, usize) {
    let memory = Memory::carrying(&[&ODD]);
    let (method, _) = connect(memory.clone());
    let (host, call) = (Desk::default(), call(choice));
    let outcome = block_on(method.login(&Cx::new(&host, &call)));
    (outcome, memory.guest().open_tasks())
}

fn broken(choice: &str) -> String {
    let (outcome, open) = login(choice);
    assert_eq!(open, 0, "the task is gone");
    match outcome {
        Err(AuthError::Plugin { message }) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_login_crosses_with_its_secret() {
    let (outcome, open) = login("key");
    assert_eq!(outcome.unwrap().credential, Credential::api_key("p", Secret::new("FAKE-KEY")));
    assert_eq!(open, 0);
}

#[test]
fn every_other_call_of_a_method_crosses() {
    let (method, _) = connect(Memory::carrying(&[&ODD]));
    let linked = MethodHandle::Linked(&Odd);
    let (host, call) = (Desk::default(), call("x"));
    let cx = Cx::new(&host, &call);
    let mut old = Credential::new(CredentialKind::Oauth, "p");
    old.refresh = Some(Secret::new("FAKE"));
    old.expires = Some(NOW);
    old.rest.insert("kept".into(), json!([1]));
    let reply = RenewReply { status: 200, body: Secret::new("FAKE-2") };
    let settings = RenewSettings { force: true, ..RenewSettings::default() };
    block_on(async {
        let info = ProviderInfo { id: "acme".into(), ..ProviderInfo::default() };
        assert_eq!(method.offers(&info).await, linked.offers(&info).await);
        assert_eq!(method.settings().await, linked.settings().await);
        assert_eq!(method.resolve(&cx, &old).await, linked.resolve(&cx, &old).await);
        for now in [NOW, NOW.plus(-1)] {
            let carried = method.renew(&settings, &old, now).await;
            assert_eq!(carried, linked.renew(&settings, &old, now).await);
        }
        let renewed = method.renewed(&old, &reply, NOW).await;
        assert_eq!(renewed, linked.renewed(&old, &reply, NOW).await);
        assert_eq!(method.refresh(&cx, &old).await, linked.refresh(&cx, &old).await);
        let stored = [old.clone(), old];
        assert_eq!(method.doctor(&cx, &stored).await.unwrap()[0].text, "2 stored");
    });
}

#[test]
fn dropping_the_call_drops_the_plugins_future() {
    let memory = Memory::carrying(&[&ODD]);
    let (method, _) = connect(memory.clone());
    let (host, call) = (Desk { waits: true, ..Desk::default() }, call("key"));
    let cx = Cx::new(&host, &call);
    {
        let mut future = pin!(method.login(&cx));
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(memory.guest().open_tasks(), 1);
    }
    assert_eq!(memory.guest().open_tasks(), 0);
}

#[test]
fn joined_effects_are_one_need() {
    let recorder = Arc::new(Recorder(Memory::carrying(&[&ODD]), Mutex::default()));
    let (method, _) = connect(recorder.clone());
    let (host, call) = (Desk::default(), call("join"));
    block_on(method.login(&Cx::new(&host, &call))).unwrap();
    let messages = recorder.1.lock().unwrap();
    let steps: Vec<_> = messages.iter().filter(|it| !it["step"].is_null()).collect();
    let effects = [
        json!({"n": 1, "effect": {"effect": "now"}}),
        json!({"n": 2, "effect": {"effect": "now"}}),
    ];
    assert_eq!(steps[0]["effects"], json!(effects));
    assert_eq!((steps.len(), &steps[1]["step"]), (2, &json!("done")));
}

#[test]
fn an_abandoned_effect_is_forgotten_on_both_sides() {
    let recorder = Arc::new(Recorder(Memory::carrying(&[&ODD]), Mutex::default()));
    let (method, _) = connect(recorder.clone());
    let (host, call) = (Desk::default(), call("race"));
    block_on(method.login(&Cx::new(&host, &call))).unwrap();
    let messages = recorder.1.lock().unwrap();
    let steps: Vec<_> = messages.iter().filter(|it| !it["step"].is_null()).collect();
    let third = json!([{"n": 3, "effect": {"effect": "now"}}]);
    assert_eq!((&steps[1]["effects"], &steps[1]["waiting"]), (&third, &json!([])));
}

#[test]
fn a_panic_fails_its_call_and_its_words_stay_behind() {
    assert_eq!(broken("panic"), "it panicked");
    let (method, _) = connect(Memory::carrying(&[&ODD]));
    let info = ProviderInfo { id: "panic".into(), ..ProviderInfo::default() };
    let error = block_on(method.offers(&info)).unwrap_err();
    assert_eq!(error.to_string(), "the plugin failed: it panicked");
    assert!(block_on(method.settings()).is_ok(), "the next call works");
}

#[test]
fn a_destructor_that_panics_is_survived() {
    assert_eq!(broken("bad-drop"), "it panicked");
    let memory = Memory::carrying(&[&ODD]);
    let (method, _) = connect(memory.clone());
    let (host, call) = (Desk { waits: true, ..Desk::default() }, call("bad-drop"));
    let cx = Cx::new(&host, &call);
    {
        let mut future = pin!(method.login(&cx));
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert_eq!(memory.guest().open_tasks(), 0);
}

#[test]
fn waiting_for_anything_but_the_host_fails_at_once() {
    assert_eq!(broken("foreign"), "it waited for something that is not the host");
    assert_eq!(broken("spin"), "it waited for something that is not the host");
    assert!(login("yield").0.is_ok(), "a future that wakes itself is polled again");
}

#[test]
fn what_is_newer_is_answered_unsupported() {
    let what = "an effect of a newer version".to_string();
    assert_eq!(login("newer").0, Err(AuthError::Unsupported { what }));
    let guest = Guest::new(vec![&ODD]);
    let turn = |text: &str| serde_json::from_slice::<Value>(&guest.turn(text.as_bytes())).unwrap();
    let step = turn(r#"{"op":"start","call":{"call":"logout","method":"odd"}}"#);
    assert_eq!(step["error"]["error"], "unsupported");
    for text in [
        r#"{"op":"pause"}"#,
        "",
        "{",
        r#"{"op":"resume","task":99}"#,
        r#"{"op":"start","call":{"call":"settings","method":"x"}}"#,
    ] {
        assert_eq!(turn(text)["error"]["error"], "plugin", "{text}");
    }
    let asks = r#"{"op":"start","call":{"call":"login","method":"odd","cx":{"provider":{"mood":1},"choice":"key","now":1,"weather":"fine"}}}"#;
    let step = turn(asks);
    assert_eq!(step["step"], "need", "unknown members are ignored: {step}");
    let late = json!({"op": "resume", "task": step["task"], "replies": [{"n": 7, "reply": {"reply": "done"}}]});
    assert_eq!(turn(&late.to_string())["waiting"], json!([1]), "a reply to nothing is nobody's");
    let newer = json!({"op": "resume", "task": step["task"], "replies": [{"n": 1, "reply": {"reply": "hologram"}}]});
    assert_eq!(turn(&newer.to_string())["error"]["error"], "plugin");
    assert_eq!(guest.open_tasks(), 0);
}

#[test]
fn a_guest_that_talks_nonsense_fails_the_call_only() {
    for (answer, part) in [
        ("", "cannot be understood"),
        (r#"{"step":"done","value":[{"FAKE":1}]}"#, "cannot be understood"),
        (r#"{"step":"later"}"#, "does not know"),
        (r#"{"step":"need","task":1}"#, "asks for nothing"),
        (r#"{"step":"fail","error":{"error":"tired"}}"#, "does not know"),
    ] {
        let (method, provider) = connect(Arc::new(Parrot(answer)));
        let (host, call) = (Desk::default(), call("key"));
        let error = block_on(method.login(&Cx::new(&host, &call))).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains("FAKE"), "{answer}: {error}");
        assert!(block_on(provider.caps(&CredentialKind::ApiKey)).is_err(), "{answer}");
    }
}

#[test]
fn versions_that_do_not_match_are_told_apart() {
    struct Old;
    #[async_trait]
    impl Carrier for Old {
        async fn turn(&self, _: Packet) -> Result<Packet, CarrierError> {
            Ok(Packet::new(br#"{"core":"9.0.0","plugins":[]}"#.to_vec()))
        }
        fn post(&self, _: Packet) {}
    }
    let error = block_on(PluginHandle::connect(Arc::new(Old))).unwrap_err();
    let expected = format!("the plugin was built for moltbot-core 9.0.0, this is {VERSION}");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn every_call_of_a_provider_crosses() {
    let (_, provider) = connect(Memory::carrying(&[&ODD]));
    let linked = ProviderHandle::Linked(&Odd);
    let found = Found { path: "/model".into(), span: Span::new(9, 12), value: "\"é\"".into() };
    let chat = ChatView {
        op: Op::Messages,
        origin: Origin::Forwarded,
        base_url: "https://x.example".into(),
        path: "".into(),
        query: "a=b".into(),
        headers: vec![Header::new("A", "b")].into(),
        extra: Vec::new().into(),
        model: "m".into(),
        params: std::borrow::Cow::Owned(json!({"a": 1})),
        found: vec![found].into(),
        body: None,
    };
    let key = Credential::api_key("p", Secret::new("FAKE"));
    let none = Credential::new(CredentialKind::Other("odd".into()), "p");
    let ended =
        Ended::Http { status: 503, headers: vec![Header::new("a", "b")], body: "é".into() };
    block_on(async {
        assert_eq!(provider.info().await, linked.info().await);
        for credential in [&key, &none] {
            assert_eq!(provider.caps(&credential.kind).await, linked.caps(&credential.kind).await);
            let with = CredentialView::of(credential);
            let carried = provider.request(&chat, &with, NOW).await;
            assert_eq!(carried, linked.request(&chat, &with, NOW).await);
        }
        assert_eq!(provider.failure(&ended, NOW).await, linked.failure(&ended, NOW).await);
        let headers = [Header::new("ID", "7")];
        assert_eq!(provider.observe(&headers, NOW).await, linked.observe(&headers, NOW).await);
    });
}

async fn decode(provider: &ProviderHandle, pieces: &[&[u8]]) -> Result<Vec<Event>, ProviderError> {
    let mut decoder = provider.decoder(DecoderMode::Full).await?;
    let mut events = Vec::new();
    for piece in pieces {
        decoder.push(piece, &mut events).await?;
    }
    decoder.end(&mut events).await?;
    Ok(events)
}

#[test]
fn a_decoder_gives_the_same_events_however_it_is_split() {
    let memory = Memory::carrying(&[&ODD]);
    let (_, provider) = connect(memory.clone());
    let bytes = b"\xc3\xa9\n\xf0\x9f\x98\x80\n\xff\xfe\n\nend\xc3";
    let linked = block_on(decode(&ProviderHandle::Linked(&Odd), &[bytes])).unwrap();
    for at in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(at);
        assert_eq!(block_on(decode(&provider, &[head, tail])).unwrap(), linked, "cut at {at}");
    }
    let single: Vec<_> = bytes.chunks(1).collect();
    assert_eq!(block_on(decode(&provider, &single)).unwrap(), linked);
    assert_eq!(memory.guest().open_tasks(), 0);
}

#[test]
fn a_decoder_that_is_dropped_or_panics_is_gone() {
    let memory = Memory::carrying(&[&ODD]);
    let (_, provider) = connect(memory.clone());
    let decoder = block_on(provider.decoder(DecoderMode::Observe)).unwrap();
    assert_eq!(memory.guest().open_tasks(), 1);
    drop(decoder);
    assert_eq!(memory.guest().open_tasks(), 0);
    let mut decoder = block_on(provider.decoder(DecoderMode::Full)).unwrap();
    let error = block_on(decoder.push(b"a\n!", &mut Vec::new())).unwrap_err();
    assert_eq!(error, ProviderError::Plugin { message: "it panicked".into() });
    assert_eq!(memory.guest().open_tasks(), 0);
    let ended = block_on(decoder.end(&mut Vec::new())).unwrap_err();
    assert_eq!(ended.to_string(), "the plugin failed: its decoder has ended");
}
