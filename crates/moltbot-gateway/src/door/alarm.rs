//! The time limits of one connection. A timer of the event loop is set, moved and taken away at
//! some cost, and a request has four limits; here a connection has one timer, which is set anew
//! only when it rings or when a limit ends before it would.
//!
//! All that belongs to a connection is polled by its one task: the heads of its requests, their
//! handlers, the bodies of the replies. Whoever waits with a limit asks at every poll whether it
//! is over, and says when to be polled again.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use tokio::task::unconstrained;

/// The time limits of one connection. Times are microseconds since it was made.
pub(crate) struct Alarm {
    start: Instant,
    /// The last look at the clock: once per poll of the connection.
    now: AtomicU64,
    /// For when the timer is wanted.
    wanted: AtomicU64,
    /// When it last rang: what ends before that is over.
    rang: AtomicU64,
}

impl Alarm {
    pub(crate) fn new() -> Self {
        let never = || AtomicU64::new(u64::MAX);
        Self {
            start: Instant::now(),
            now: AtomicU64::new(0),
            wanted: never(),
            rang: AtomicU64::new(0),
        }
    }

    /// Returns the end of a limit that begins now.
    pub(crate) fn after(&self, wait: Duration) -> u64 {
        self.now.load(Ordering::Relaxed).saturating_add(micros(wait))
    }

    /// Tells whether a limit is over; if not, its end is waited for.
    pub(crate) fn is_over(&self, until: u64) -> bool {
        let over = self.rang.load(Ordering::Relaxed) >= until;
        if !over {
            self.wanted.fetch_min(until, Ordering::Relaxed);
        }
        over
    }

    /// Waits for a future; `None` if that takes longer than `wait`.
    pub(crate) fn limit<F: Future + Unpin>(&self, wait: Duration, future: F) -> Limit<'_, F> {
        Limit { alarm: self, until: self.after(wait), future }
    }

    /// Runs what belongs to a connection, until it ends (`Some`) or `stop` does (`None`).
    pub(crate) async fn run<F: Future>(
        &self,
        mut connection: Pin<&mut F>,
        stop: impl Future<Output = ()>,
    ) -> Option<F::Output> {
        let mut timer = pin!(tokio::time::sleep_until(self.start.into()));
        let mut stop = pin!(stop);
        let mut gate: Option<Arc<Gate>> = None;
        let mut set = u64::MAX;
        poll_fn(move |cx| {
            let now = micros(self.start.elapsed());
            self.now.store(now, Ordering::Relaxed);
            // The timer's word counts too: it does not ring twice.
            if now >= set || (set != u64::MAX && timer.is_elapsed()) {
                self.rang.store(now.max(set), Ordering::Relaxed);
                self.wanted.store(u64::MAX, Ordering::Relaxed);
                set = u64::MAX;
            }
            if let Poll::Ready(out) = connection.as_mut().poll(cx) {
                return Poll::Ready(Some(out));
            }
            let wanted = self.wanted.load(Ordering::Relaxed);
            if wanted < set {
                set = wanted;
                timer.as_mut().reset((self.start + Duration::from_micros(wanted)).into());
                // Whatever else this task has done, the timer must learn whom to wake.
                if pin!(unconstrained(timer.as_mut())).poll(cx).is_ready() {
                    cx.waker().wake_by_ref();
                }
            }
            match Gate::of(&mut gate, cx).poll(stop.as_mut()) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

/// A future that is waited for until a time. By hand: an `async fn` would keep it twice, and it is
/// a part of what every request keeps.
pub(crate) struct Limit<'a, F> {
    alarm: &'a Alarm,
    until: u64,
    future: F,
}

impl<F: Future + Unpin> Future for Limit<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match Pin::new(&mut self.future).poll(cx) {
            Poll::Ready(out) => Poll::Ready(Some(out)),
            Poll::Pending if self.alarm.is_over(self.until) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Lets a future be polled only after it asked for that, whatever else wakes its task.
struct Gate {
    asked: AtomicBool,
    task: Waker,
}

impl Gate {
    fn of<'g>(gate: &'g mut Option<Arc<Self>>, cx: &Context<'_>) -> &'g Arc<Self> {
        if gate.as_ref().is_none_or(|gate| !gate.task.will_wake(cx.waker())) {
            *gate = None;
        }
        gate.get_or_insert_with(|| {
            Arc::new(Self { asked: AtomicBool::new(true), task: cx.waker().clone() })
        })
    }

    fn poll<T>(self: &Arc<Self>, future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        if !self.asked.load(Ordering::Acquire) || !self.asked.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        future.poll(&mut Context::from_waker(&Waker::from(self.clone())))
    }
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.asked.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

/// The alarm in the form in which hyper wants a timer.
pub(crate) struct HeadTimer(pub(crate) Arc<Alarm>);

struct HeadLimit {
    alarm: Arc<Alarm>,
    until: u64,
}

impl Timer for HeadTimer {
    fn sleep(&self, wait: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(HeadLimit { until: self.0.after(wait), alarm: self.0.clone() })
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let until = micros(deadline.saturating_duration_since(self.0.start));
        Box::pin(HeadLimit { until, alarm: self.0.clone() })
    }

    fn now(&self) -> Instant {
        self.0.start + Duration::from_micros(self.0.now.load(Ordering::Relaxed))
    }
}

impl Sleep for HeadLimit {}

impl Future for HeadLimit {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.alarm.is_over(self.until) { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(future)
    }

    const SHORT: Duration = Duration::from_millis(5);
    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn a_limit_ends_what_never_ends() {
        block(async {
            let alarm = Alarm::new();
            let never = std::future::pending::<()>;
            // The second one is shorter than what the timer is set for then.
            let work = pin!(async {
                let both = alarm.limit(LONG, alarm.limit(SHORT, never()));
                assert_eq!(both.await, Some(None));
                assert_eq!(alarm.limit(SHORT, never()).await, None);
                assert_eq!(alarm.limit(LONG, pin!(async { 7 })).await, Some(7));
                8
            });
            assert_eq!(alarm.run(work, never()).await, Some(8));
        });
    }

    #[test]
    fn nothing_is_over_before_its_time() {
        block(async {
            let alarm = Alarm::new();
            let work = pin!(async {
                for _ in 0..5 {
                    let until = alarm.after(SHORT);
                    assert_eq!(alarm.limit(SHORT, std::future::pending::<()>()).await, None);
                    // The timer counts in milliseconds.
                    assert!(alarm.now.load(Ordering::Relaxed) + 1_000 >= until);
                }
            });
            assert_eq!(alarm.run(work, std::future::pending()).await, Some(()));
        });
    }

    #[test]
    fn a_stop_is_heard_while_nothing_else_happens() {
        block(async {
            let alarm = Alarm::new();
            let (say, heard) = tokio::sync::oneshot::channel::<()>();
            let stop = async { drop(heard.await) };
            tokio::spawn(async move {
                tokio::time::sleep(SHORT).await;
                let _ = say.send(());
            });
            let work = pin!(std::future::pending::<()>());
            assert_eq!(alarm.run(work, stop).await, None);
        });
    }

    #[test]
    fn a_head_that_does_not_come_is_waited_for_so_long_only() {
        block(async {
            let alarm = Arc::new(Alarm::new());
            let timer = HeadTimer(alarm.clone());
            let work = pin!(async {
                timer.sleep_until(timer.now() + SHORT).await;
                timer.sleep(SHORT).await;
            });
            assert_eq!(alarm.run(work, std::future::pending()).await, Some(()));
        });
    }
}
