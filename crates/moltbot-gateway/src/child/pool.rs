//! Programs that wait between the turns of their conversations.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use moltbot_core::Generation;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::history::Seen;
use super::process::Process;
use super::watch::Watch;

/// How many programs may wait; each takes some 200 MiB of the machine's memory.
const MOST_IDLE: usize = 8;

/// Everything that must be the same for a warm process to answer.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) agent: String,
    pub(crate) provider: String,
    pub(crate) source: String,
    pub(crate) generation: Generation,
    pub(crate) own: String,
    pub(crate) history: Seen,
}

/// The programs of one engine. Dropping it ends them all.
#[derive(Default)]
pub(crate) struct Children {
    idle: Mutex<Vec<Idle>>,
    watch: Arc<Watch>,
}

/// A program that waits, held by a task of its own; dropping this ends both.
struct Idle {
    key: Key,
    take: oneshot::Sender<oneshot::Sender<Process>>,
}

impl Children {
    /// Takes out a program that is in the state a request needs. Nobody else gets it meanwhile.
    pub(crate) async fn take(&self, key: &Key) -> Option<Process> {
        loop {
            let found = {
                let mut idle = self.idle();
                idle.retain(|idle| !idle.take.is_closed());
                let at = idle.iter().rposition(|idle| idle.key == *key)?;
                idle.remove(at)
            };
            let (to, process) = oneshot::channel();
            // One that ended a moment ago is passed over.
            if found.take.send(to).is_ok()
                && let Ok(process) = process.await
            {
                return Some(process);
            }
        }
    }

    /// Lets a program wait for its next turn, `idle_ms` at most. The one that waited longest is
    /// ended if there are too many.
    pub(crate) fn keep(self: &Arc<Self>, key: Key, process: Option<Process>, idle_ms: u64) {
        let Some(process) = process else { return };
        let (take, taken) = oneshot::channel();
        {
            let mut idle = self.idle();
            idle.retain(|idle| !idle.take.is_closed());
            idle.push(Idle { key, take });
            let over = idle.len().saturating_sub(MOST_IDLE);
            idle.drain(..over);
        }
        let pool = Arc::downgrade(self);
        tokio::spawn(wait(process, taken, Duration::from_millis(idle_ms), pool));
    }

    /// Returns what ends programs after this process is gone.
    pub(crate) fn watch(&self) -> Arc<Watch> {
        self.watch.clone()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn wait(
    mut process: Process,
    taken: oneshot::Receiver<oneshot::Sender<Process>>,
    limit: Duration,
    pool: Weak<Children>,
) {
    let to = tokio::select! {
        to = taken => to.ok(),
        () = process.stirs() => None,
        () = sleep(limit) => None,
    };
    match to {
        // Who asked for it may be gone; then the process ends here.
        Some(to) => drop(to.send(process)),
        None => drop(process),
    }
    if let Some(pool) = pool.upgrade() {
        pool.idle().retain(|idle| !idle.take.is_closed());
    }
}
