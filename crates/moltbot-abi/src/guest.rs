//! The plugin's side: holds its futures, polls them once per message, turns effects into needs.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use moltbot_core::{
    AuthError, AuthMethod, Cx, Decoder, Effect, Event, Expose, Exposed, Host, HostError, Linked,
    Plugin, Provider, ProviderError, Reply, async_trait, inventory,
};
use serde::Serialize;

use crate::Packet;
use crate::chunk::Chunk;
use crate::wire::{Answer, Described, GuestCall, Hello, Message, Needed, Step, decode, encode};

/// How often a future that woke itself is polled again in one turn, e.g. one that yields.
const SELF_WAKES: usize = 64;

/// The plugins of one image and their open tasks. Messages in, messages out; it never waits.
pub struct Guest {
    plugins: Vec<&'static Plugin>,
    tasks: Mutex<BTreeMap<u64, Task>>,
    next: AtomicU64,
}

enum Task {
    Future(Running),
    Decoder(Box<dyn Decoder>),
}

struct Running {
    host: Arc<GuestHost>,
    future: Pin<Box<dyn Future<Output = Packet> + Send>>,
}

impl Guest {
    /// Holds these plugins.
    pub fn new(plugins: Vec<&'static Plugin>) -> Self {
        Self { plugins, tasks: Mutex::default(), next: AtomicU64::new(1) }
    }

    /// Holds every plugin linked into this image, by id.
    pub fn linked() -> Self {
        let mut plugins: Vec<_> = inventory::iter::<Linked>().map(|linked| linked.0).collect();
        plugins.sort_by_key(|plugin| plugin.id);
        Self::new(plugins)
    }

    /// Returns how many tasks are neither finished nor dropped.
    pub fn open_tasks(&self) -> usize {
        lock(&self.tasks).len()
    }

    /// Takes one message and returns its answer; a `drop` is answered with an empty object.
    pub fn turn(&self, message: &[u8]) -> Packet {
        let message = match decode::<Message>(message) {
            Ok(message) => message,
            Err(error) => return failed(format!("the host sent what cannot be read: {error}")),
        };
        match message {
            Message::Hello {} => encode(&self.hello()),
            Message::Start { call } => guarded(|| self.start(*call)),
            Message::Resume { task, replies, chunk } => self.resume(task, replies, chunk),
            Message::Drop { task } => {
                let task = lock(&self.tasks).remove(&task);
                // A destructor is the plugin's code, too.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(task)));
                encode(&serde_json::Map::new())
            }
            Message::Unknown => failed("a message of a kind this version does not know"),
        }
    }

    fn hello(&self) -> Hello {
        let describe = |plugin: &&'static Plugin| {
            let infos: Vec<_> = plugin.providers.iter().map(|it| it.info()).collect();
            // One that panics does so when it is asked for alone, and fails alone.
            let settings = || plugin.auth.iter().map(|method| method.settings()).collect();
            Described {
                id: plugin.id.to_string(),
                version: plugin.version.to_string(),
                about: plugin.about.to_string(),
                methods: plugin.auth.iter().map(|method| method.id().to_string()).collect(),
                providers: infos.iter().map(|info| info.id.to_string()).collect(),
                codes: plugin.codes.to_vec(),
                infos,
                settings: catch_unwind(AssertUnwindSafe(settings)).unwrap_or_default(),
            }
        };
        let plugins =
            catch_unwind(AssertUnwindSafe(|| self.plugins.iter().map(describe).collect()));
        Hello { plugins: plugins.unwrap_or_default(), ..Hello::ours() }
    }

    fn start(&self, call: GuestCall) -> Packet {
        match call {
            GuestCall::Offers { method, provider } => {
                self.auth(&method, |it| done(&it.offers(&provider)))
            }
            GuestCall::OffersOf { method, providers } => self.auth(&method, |it| {
                done(&providers.iter().map(|provider| it.offers(provider)).collect::<Vec<_>>())
            }),
            GuestCall::Settings { method } => self.auth(&method, |it| done(&it.settings())),
            GuestCall::Renew { method, settings, credential, now } => {
                self.auth(&method, |it| exposed(it.renew(&settings, &credential, now)))
            }
            GuestCall::Renewed { method, credential, reply, received_at } => {
                self.auth(&method, |it| exposed(it.renewed(&credential, &reply, received_at)))
            }
            GuestCall::Login { method, cx } => self.run(&method, |it, host| async move {
                exposed(it.login(&Cx::new(&*host, &cx)).await)
            }),
            GuestCall::Resolve { method, cx, credential } => self
                .run(&method, |it, host| async move {
                    exposed(it.resolve(&Cx::new(&*host, &cx), &credential).await)
                }),
            GuestCall::Refresh { method, cx, credential } => self
                .run(&method, |it, host| async move {
                    exposed(it.refresh(&Cx::new(&*host, &cx), &credential).await)
                }),
            GuestCall::Doctor { method, cx, stored } => self.run(&method, |it, host| async move {
                match it.doctor(&Cx::new(&*host, &cx), &stored).await {
                    Ok(findings) => done(&findings),
                    Err(error) => fail(error),
                }
            }),
            GuestCall::Info { provider } => self.provider(&provider, |it| done(&it.info())),
            GuestCall::Caps { provider, kind } => {
                self.provider(&provider, |it| done(&it.caps(&kind)))
            }
            GuestCall::Request { provider, chat, with, now } => {
                self.provider(&provider, |it| match it.request(&chat, &with, now) {
                    Ok(exchange) => done(&exchange),
                    Err(error) => encode(&Step::<(), ProviderError>::Fail { error }),
                })
            }
            GuestCall::Failure { provider, ended, now } => {
                self.provider(&provider, |it| done(&it.failure(&ended, now)))
            }
            GuestCall::Observe { provider, headers, now } => {
                self.provider(&provider, |it| done(&it.observe(&headers, now)))
            }
            GuestCall::Decoder { provider, mode } => self.provider(&provider, |it| {
                let decoder = it.decoder(mode);
                self.open(Task::Decoder(decoder), Vec::new())
            }),
            GuestCall::Unknown => {
                let what = "a call of a newer version".to_string();
                fail(AuthError::Unsupported { what })
            }
        }
    }

    fn auth(&self, id: &str, call: impl FnOnce(&'static dyn AuthMethod) -> Packet) -> Packet {
        let methods = self.plugins.iter().flat_map(|plugin| plugin.auth);
        match methods.copied().find(|method| method.id() == id) {
            Some(method) => call(method),
            None => failed(format!("it has no auth method \"{id}\"")),
        }
    }

    fn provider(&self, id: &str, call: impl FnOnce(&'static dyn Provider) -> Packet) -> Packet {
        let providers = self.plugins.iter().flat_map(|plugin| plugin.providers);
        match providers.copied().find(|provider| provider.info().id == id) {
            Some(provider) => call(provider),
            None => failed(format!("it has no provider \"{id}\"")),
        }
    }

    /// Starts a future and polls it for the first time.
    fn run<F>(
        &self,
        id: &str,
        call: impl FnOnce(&'static dyn AuthMethod, Arc<GuestHost>) -> F,
    ) -> Packet
    where
        F: Future<Output = Packet> + Send + 'static,
    {
        self.auth(id, |method| {
            let host = Arc::new(GuestHost::default());
            let future = Box::pin(call(method, host.clone()));
            self.go_on(self.next.fetch_add(1, Ordering::Relaxed), Running { host, future })
        })
    }

    fn open(&self, task: Task, events: Vec<Event>) -> Packet {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.tasks).insert(number, task);
        need(number, Vec::new(), Vec::new(), events)
    }

    fn resume(&self, number: u64, replies: Vec<Answer>, chunk: Option<Chunk>) -> Packet {
        // The task is taken out, so that a panic drops it and no lock is held over its code.
        let task = lock(&self.tasks).remove(&number);
        match task {
            Some(Task::Future(running)) => {
                running.host.deliver(replies);
                guarded(|| self.go_on(number, running))
            }
            Some(Task::Decoder(decoder)) => guarded(|| self.feed(number, decoder, chunk)),
            None => failed("the task is over"),
        }
    }

    fn go_on(&self, number: u64, mut running: Running) -> Packet {
        let flag = Arc::new(Woken::default());
        let waker = Waker::from(flag.clone());
        let mut context = Context::from_waker(&waker);
        for _ in 0..SELF_WAKES {
            flag.0.store(false, Ordering::Relaxed);
            if let Poll::Ready(packet) = running.future.as_mut().poll(&mut context) {
                return packet;
            }
            if !flag.0.load(Ordering::Relaxed) {
                break;
            }
        }
        let (effects, waiting) = running.host.outstanding();
        if effects.is_empty() && waiting.is_empty() {
            return failed("it waited for something that is not the host");
        }
        lock(&self.tasks).insert(number, Task::Future(running));
        need(number, effects, waiting, Vec::new())
    }

    fn feed(&self, number: u64, mut decoder: Box<dyn Decoder>, chunk: Option<Chunk>) -> Packet {
        let mut events = Vec::new();
        match chunk.unwrap_or(Chunk::Unknown).bytes() {
            Ok(Some(bytes)) => decoder.push(&bytes, &mut events),
            Ok(None) => {
                decoder.end(&mut events);
                return done(&events);
            }
            Err(message) => return failed(message),
        }
        lock(&self.tasks).insert(number, Task::Decoder(decoder));
        need(number, Vec::new(), Vec::new(), events)
    }
}

/// The host as a carried plugin sees it: keeps every effect until its reply is delivered.
#[derive(Default)]
struct GuestHost(Mutex<Desk>);

#[derive(Default)]
struct Desk {
    next: u64,
    /// Asked for since the last step.
    new: Vec<Needed>,
    /// Told to the host, not yet answered.
    sent: BTreeSet<u64>,
    answered: BTreeMap<u64, Result<Reply, HostError>>,
    wakers: BTreeMap<u64, Waker>,
}

impl GuestHost {
    fn deliver(&self, replies: Vec<Answer>) {
        let mut wakers = Vec::new();
        let mut desk = lock(&self.0);
        for answer in replies {
            // A late reply to an abandoned effect is nobody's.
            if desk.sent.remove(&answer.n) {
                wakers.extend(desk.wakers.remove(&answer.n));
                desk.answered.insert(answer.n, answer.into_outcome());
            }
        }
        drop(desk);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Returns the new effects and the numbers of the old ones, and counts all as old.
    fn outstanding(&self) -> (Vec<Needed>, Vec<u64>) {
        let mut desk = lock(&self.0);
        let effects = std::mem::take(&mut desk.new);
        let waiting = desk.sent.iter().copied().collect();
        desk.sent.extend(effects.iter().map(|needed| needed.n));
        (effects, waiting)
    }
}

#[async_trait]
impl Host for GuestHost {
    async fn perform(&self, effect: Effect) -> Result<Reply, HostError> {
        Performing { host: self, effect: Some(effect), n: 0 }.await
    }
}

/// Waits for one effect; abandons it when dropped.
struct Performing<'a> {
    host: &'a GuestHost,
    effect: Option<Effect>,
    n: u64,
}

impl Future for Performing<'_> {
    type Output = Result<Reply, HostError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut desk = lock(&self.host.0);
        if let Some(effect) = self.effect.take() {
            desk.next += 1;
            self.n = desk.next;
            desk.new.push(Needed { n: self.n, effect });
        }
        if let Some(outcome) = desk.answered.remove(&self.n) {
            return Poll::Ready(outcome);
        }
        desk.wakers.insert(self.n, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Performing<'_> {
    fn drop(&mut self) {
        let mut desk = lock(&self.host.0);
        desk.new.retain(|needed| needed.n != self.n);
        desk.sent.remove(&self.n);
        desk.answered.remove(&self.n);
        desk.wakers.remove(&self.n);
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs the plugin's code; its panic becomes a failure of this call. The panic's own words may
/// hold anything and stay behind.
fn guarded(call: impl FnOnce() -> Packet) -> Packet {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| failed("it panicked"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn done<T: Serialize>(value: &T) -> Packet {
    encode(&Step::<&T, ()>::Done { value })
}

fn fail(error: AuthError) -> Packet {
    encode(&Step::<(), AuthError>::Fail { error })
}

fn failed(message: impl Into<String>) -> Packet {
    fail(AuthError::Plugin { message: message.into() })
}

fn exposed<T: Expose>(outcome: Result<T, AuthError>) -> Packet {
    match outcome {
        Ok(value) => done(&Exposed(&value)),
        Err(error) => fail(error),
    }
}

fn need(task: u64, effects: Vec<Needed>, waiting: Vec<u64>, events: Vec<Event>) -> Packet {
    encode(&Step::<(), ()>::Need { task, effects, waiting, events })
}
