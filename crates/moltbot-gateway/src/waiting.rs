//! Who waits for a resting profile, in order of arrival and not too many at once.
//!
//! One lane per model of a provider. Whoever is first in it waits and then asks; the others follow
//! in the order in which they came. So a rest that ends is tried by one request and not by all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

/// How many requests wait in one lane; more are refused at once.
pub(crate) const MOST_WAITING: usize = 256;

/// All lanes of an engine.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    lanes: Mutex<HashMap<String, Arc<Lane>>>,
}

#[derive(Debug, Default)]
struct Lane {
    /// Fair: handed on in the order in which it was asked for.
    first: Arc<tokio::sync::Mutex<()>>,
    count: AtomicUsize,
}

/// The first place of a lane. The next one moves up when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _first: OwnedMutexGuard<()>,
    _counted: Counted,
}

#[derive(Debug)]
struct Counted(Arc<Lane>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Waiting {
    /// Queues up; `None` if the lane is full or the first place is not reached within `patience`.
    pub(crate) async fn queue(&self, lane: &str, patience: Duration) -> Option<Place> {
        let lane = {
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            // Lanes in which nobody is are not kept.
            lanes.retain(|name, known| name == lane || known.count.load(Ordering::Acquire) > 0);
            lanes.entry(lane.to_string()).or_default().clone()
        };
        if lane.count.fetch_add(1, Ordering::AcqRel) >= MOST_WAITING {
            lane.count.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        let counted = Counted(lane.clone());
        let first = timeout(patience, lane.first.clone().lock_owned()).await.ok()?;
        Some(Place { _first: first, _counted: counted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn places_are_handed_on_in_order_of_arrival() {
        run(async {
            let waiting = Arc::new(Waiting::default());
            let order = Arc::new(Mutex::new(Vec::new()));
            let first = waiting.queue("a", LONG).await.unwrap();
            let mut tasks = Vec::new();
            for n in 0..50 {
                let (waiting, order) = (waiting.clone(), order.clone());
                tasks.push(tokio::spawn(async move {
                    let _place = waiting.queue("a", LONG).await.unwrap();
                    order.lock().unwrap().push(n);
                }));
                tokio::task::yield_now().await;
            }
            assert!(order.lock().unwrap().is_empty());
            // Another lane is another matter.
            assert!(waiting.queue("b", LONG).await.is_some());
            drop(first);
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!(*order.lock().unwrap(), (0..50).collect::<Vec<_>>());
        });
    }

    #[test]
    fn a_lane_is_bounded_and_nobody_waits_for_ever() {
        run(async {
            let waiting = Arc::new(Waiting::default());
            let first = waiting.queue("a", LONG).await.unwrap();
            let mut tasks = Vec::new();
            for _ in 1..MOST_WAITING {
                let waiting = waiting.clone();
                tasks.push(tokio::spawn(async move { waiting.queue("a", LONG).await.is_some() }));
            }
            // One turn of the runtime polls some of the tasks, not all.
            for _ in 0..MOST_WAITING {
                tokio::task::yield_now().await;
            }
            assert!(waiting.queue("a", LONG).await.is_none(), "full");
            drop(first);
            for task in tasks {
                assert!(task.await.unwrap());
            }
            let _held = waiting.queue("a", LONG).await.unwrap();
            assert!(waiting.queue("a", Duration::ZERO).await.is_none(), "too long");
        });
    }
}
