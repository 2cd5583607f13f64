//! The clock as a value, so that no test sleeps.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use moltbot_core::{Timestamp, async_trait};

/// Tells the time and waits.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Returns the time.
    fn now(&self) -> Timestamp;

    /// Waits so many milliseconds.
    async fn sleep(&self, ms: u64);
}

/// The machine's clock; needs a runtime with time to sleep.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    async fn sleep(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// A clock that stands still until it is moved; sleeping moves it and returns at once.
///
/// ```
/// use moltbot_core::Timestamp;
/// use moltbot_gateway::{Clock, TestClock};
/// let clock = TestClock::at(Timestamp::from_millis(1_000));
/// clock.advance(500);
/// assert_eq!(clock.now().millis(), 1_500);
/// ```
#[derive(Debug, Default)]
pub struct TestClock {
    now: AtomicI64,
    slept: AtomicU64,
}

impl TestClock {
    /// Makes a clock that shows `now`.
    pub fn at(now: Timestamp) -> Self {
        Self { now: AtomicI64::new(now.millis()), slept: AtomicU64::new(0) }
    }

    /// Sets the time, also backwards.
    pub fn set(&self, now: Timestamp) {
        self.now.store(now.millis(), Ordering::SeqCst);
    }

    /// Moves the time on by so many milliseconds.
    pub fn advance(&self, ms: u64) {
        self.now.fetch_add(i64::try_from(ms).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Returns how many milliseconds were slept in all.
    pub fn slept(&self) -> u64 {
        self.slept.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now.load(Ordering::SeqCst))
    }

    async fn sleep(&self, ms: u64) {
        self.advance(ms);
        self.slept.fetch_add(ms, Ordering::SeqCst);
        tokio::task::yield_now().await;
    }
}
