//! The lab's clock: the system's time, moved forward by tests instead of by waiting.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The system clock, or a time that stands, plus an offset that only grows.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    stands_at: Option<i64>,
    offset_ms: AtomicI64,
}

impl Clock {
    /// Makes a clock that stands at a time, in milliseconds since the epoch, or the system's.
    pub(crate) fn new(stands_at: Option<i64>) -> Self {
        Self { stands_at, offset_ms: AtomicI64::new(0) }
    }

    /// Returns milliseconds since the epoch.
    pub(crate) fn now_ms(&self) -> i64 {
        let system = || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
        };
        self.stands_at.unwrap_or_else(system).saturating_add(self.offset_ms.load(Ordering::Relaxed))
    }

    /// Moves the clock forward.
    pub(crate) fn advance(&self, by: Duration) {
        let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        let _ = self
            .offset_ms
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| Some(old.saturating_add(ms)));
    }

    /// Returns to the system's time.
    pub(crate) fn reset(&self) {
        self.offset_ms.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advances_without_waiting_and_resets() {
        let clock = Clock::default();
        let before = clock.now_ms();
        clock.advance(Duration::from_secs(3600));
        assert!(clock.now_ms() >= before + 3_600_000);
        clock.reset();
        assert!(clock.now_ms() < before + 3_600_000);
        let clock = Clock::new(Some(7));
        clock.advance(Duration::from_millis(5));
        assert_eq!(clock.now_ms(), 12);
    }
}
