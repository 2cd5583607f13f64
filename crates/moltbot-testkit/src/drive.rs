//! Drives a future without a runtime.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Drives a future to its end.
///
/// Panics instead of hanging when the future waits and nothing woke it: it then waits for
/// something that is not the host, and a carried plugin would fail.
///
/// ```
/// assert_eq!(moltbot_testkit::block_on(async { 1 + 1 }), 2);
/// ```
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(flag.clone());
    let mut context = Context::from_waker(&waker);
    for _ in 0..10_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        assert!(
            flag.0.swap(false, Ordering::Relaxed),
            "the future waits for something that is not the host"
        );
    }
    panic!("the future wakes itself again and again and never ends");
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "not the host")]
    fn a_foreign_wait_is_reported() {
        block_on(std::future::pending::<()>());
    }

    #[test]
    fn a_future_that_yields_goes_on() {
        let mut left = 3;
        block_on(std::future::poll_fn(|context| {
            left -= 1;
            context.waker().wake_by_ref();
            if left == 0 { Poll::Ready(()) } else { Poll::Pending }
        }));
    }
}
