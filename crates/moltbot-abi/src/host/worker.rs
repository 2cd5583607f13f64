//! A thread that delivers messages one after the other, so that no thread of the host waits for a
//! plugin longer than it has patience.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::LoadError;
use crate::{CarrierError, Packet};

/// Delivers one message. After an error of kind `Gone` it is not called again.
pub(crate) type Deliver = Box<dyn FnMut(&[u8]) -> Result<Packet, CarrierError>>;

/// The host's end of such a thread. Dropping it ends the thread after what it is doing.
pub(crate) struct Worker(Arc<Desk>, bool);

struct Desk {
    state: Mutex<State>,
    /// There is work, or none will come.
    work: Condvar,
    /// Somebody works: the watch begins.
    watch: Condvar,
    patience: Duration,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(Packet, Option<Arc<Slot>>)>,
    /// Since when the thread is busy, and for whom.
    busy: Option<(Instant, Option<Arc<Slot>>)>,
    watched: bool,
    dead: Option<String>,
    closed: bool,
}

/// Where an answer is put and who waits for it.
#[derive(Default)]
struct Slot(Mutex<(Option<Outcome>, Option<Waker>)>);

type Outcome = Result<Packet, CarrierError>;

impl Worker {
    /// Starts the thread and waits until `prepare` made what delivers. Errors: those of `prepare`,
    /// or that it takes longer than `patience`.
    pub(crate) fn start(
        name: &str,
        patience: Duration,
        prepare: impl FnOnce() -> Result<Deliver, LoadError> + Send + 'static,
    ) -> Result<Self, LoadError> {
        let desk = Arc::new(Desk {
            state: Mutex::default(),
            work: Condvar::new(),
            watch: Condvar::new(),
            patience,
        });
        // No channel: waiting on one sets up a thread-local the first time, for which the loader's
        // lock is taken. `prepare` may hold that lock for ever (a library's constructor), and then
        // this thread could never give up.
        let ready = Arc::new((Mutex::new(None), Condvar::new()));
        let (working, readying) = (desk.clone(), ready.clone());
        spawn(name, move || {
            let (deliver, outcome) = match prepare() {
                Ok(deliver) => (Some(deliver), Ok(())),
                Err(error) => (None, Err(error)),
            };
            *readying.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
            readying.1.notify_one();
            drop(readying);
            if let Some(deliver) = deliver {
                working.work(deliver);
            }
        })?;
        let outcome = ready.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut outcome, _) = ready
            .1
            .wait_timeout_while(outcome, patience, |outcome| outcome.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        match outcome.take() {
            Some(outcome) => outcome.map(|()| Self(desk, false)),
            None => {
                desk.lock().closed = true;
                Err(LoadError::Carrier(stuck(patience)))
            }
        }
    }

    /// Ends calls that take too long. For work that cannot watch itself.
    pub(crate) fn watched(self, name: &str) -> Result<Self, LoadError> {
        let watching = self.0.clone();
        spawn(name, move || watching.watch())?;
        Ok(self)
    }

    /// Makes callers wait on their own thread, for those that poll a future only once.
    pub(crate) fn blocking(mut self, blocking: bool) -> Self {
        self.1 = blocking;
        self
    }

    /// Delivers a message and waits for the answer.
    pub(crate) async fn turn(&self, message: Packet) -> Result<Packet, CarrierError> {
        let slot = Arc::new(Slot::default());
        self.0.put(message, Some(slot.clone()))?;
        if self.1 { super::wait(Answer(slot)) } else { Answer(slot).await }
    }

    /// Delivers a message without waiting.
    pub(crate) fn post(&self, message: Packet) {
        let _ = self.0.put(message, None);
    }

    /// Tells why nothing is delivered any more.
    pub(crate) fn dead(&self) -> Option<String> {
        self.0.lock().dead.clone()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.work.notify_all();
        self.0.watch.notify_all();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), LoadError> {
    let builder = std::thread::Builder::new().name(name.to_string());
    let started = builder.spawn(run).map(drop);
    started.map_err(|error| LoadError::Start { reason: error.to_string() })
}

fn stuck(patience: Duration) -> CarrierError {
    CarrierError::Gone { reason: format!("it did not answer within {} s", patience.as_secs_f32()) }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, message: Packet, slot: Option<Arc<Slot>>) -> Result<(), CarrierError> {
        let mut state = self.lock();
        if let Some(reason) = &state.dead {
            return Err(CarrierError::Gone { reason: reason.clone() });
        }
        state.queue.push_back((message, slot));
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    fn work(&self, mut deliver: Deliver) {
        loop {
            let mut state = self.lock();
            let (message, slot) = loop {
                if state.dead.is_some() {
                    return;
                }
                if let Some(job) = state.queue.pop_front() {
                    break job;
                }
                if state.closed {
                    return;
                }
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            state.busy = Some((Instant::now(), slot.clone()));
            let wake = !state.watched;
            drop(state);
            if wake {
                self.watch.notify_one();
            }
            let outcome = deliver(&message);
            self.lock().busy = None;
            let gone = match &outcome {
                Err(CarrierError::Gone { reason }) => Some(reason.clone()),
                _ => None,
            };
            // Before the answer: whoever asks again because of it must find a new session begun.
            if let Some(reason) = gone {
                self.die(&reason);
            }
            if let Some(slot) = slot {
                slot.fill(outcome);
            }
        }
    }

    /// Looks twice per patience at whether the thread is still busy with the same message; rests
    /// while there is nothing to look at, so that watching costs a call nothing.
    fn watch(&self) {
        let mut state = self.lock();
        loop {
            if state.closed || state.dead.is_some() {
                return;
            }
            let Some((since, _)) = &state.busy else {
                state.watched = false;
                state = self.watch.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if since.elapsed() >= self.patience {
                drop(state);
                let CarrierError::Gone { reason } = stuck(self.patience) else { return };
                return self.die(&reason);
            }
            state.watched = true;
            let (next, _) = self
                .watch
                .wait_timeout(state, self.patience / 2)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
    }

    /// Fails what is under way and everything after it.
    fn die(&self, reason: &str) {
        let mut state = self.lock();
        state.dead.get_or_insert_with(|| reason.to_string());
        let mut slots: Vec<_> = state.queue.drain(..).filter_map(|(_, slot)| slot).collect();
        slots.extend(state.busy.take().and_then(|(_, slot)| slot));
        drop(state);
        for slot in slots {
            slot.fill(Err(CarrierError::Gone { reason: reason.to_string() }));
        }
        self.work.notify_all();
    }
}

impl Slot {
    /// The first outcome counts: a stuck call that ends after all is too late.
    fn fill(&self, outcome: Outcome) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.is_none() {
            state.0 = Some(outcome);
        }
        let waker = state.1.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

struct Answer(Arc<Slot>);

impl Future for Answer {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = state.0.take() {
            return Poll::Ready(outcome);
        }
        state.1 = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::wait;
    use super::*;

    fn packet(text: &str) -> Packet {
        Packet::new(text.as_bytes().to_vec())
    }

    #[test]
    fn messages_are_delivered_in_order() {
        let echo = || -> Result<Deliver, LoadError> {
            let mut seen = 0;
            Ok(Box::new(move |message| {
                seen += 1;
                Ok(packet(&format!("{seen} {}", String::from_utf8_lossy(message))))
            }))
        };
        let worker = Worker::start("echo", Duration::from_secs(5), echo).unwrap();
        worker.post(packet("posted"));
        for n in 2..50 {
            let answer = wait(worker.turn(packet("a"))).unwrap();
            assert_eq!(answer.as_slice(), format!("{n} a").as_bytes());
        }
    }

    #[test]
    fn a_stuck_call_fails_and_so_do_those_behind_it() {
        let (release, held) = mpsc::channel::<()>();
        let hang = move || -> Result<Deliver, LoadError> {
            Ok(Box::new(move |_| {
                let _ = held.recv();
                Ok(packet("late"))
            }))
        };
        let worker = Worker::start("hang", Duration::from_millis(60), hang).unwrap();
        let worker = worker.watched("watch").unwrap();
        worker.post(packet("first"));
        for _ in 0..2 {
            let error = wait(worker.turn(packet("x"))).unwrap_err();
            assert!(error.to_string().contains("did not answer within"), "{error}");
        }
        drop(release);
        assert!(worker.dead().is_some());
    }

    #[test]
    fn preparing_may_fail_or_hang() {
        let fail = || Err(LoadError::Magic {});
        let error = Worker::start("fail", Duration::from_secs(5), fail).err().unwrap();
        assert_eq!(error, LoadError::Magic {});
        let (release, held) = mpsc::channel::<()>();
        let hang = move || {
            let _ = held.recv();
            Err(LoadError::Magic {})
        };
        let error = Worker::start("hang", Duration::from_millis(30), hang).err().unwrap();
        assert!(error.to_string().contains("did not answer"), "{error}");
        drop(release);
    }
}
