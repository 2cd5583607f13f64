//! Programs that wait between the turns of their conversations.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use moltbot_core::Generation;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::history::Seen;
use super::memory::{MOST_EACH, surplus};
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

impl Key {
    /// Returns a digest of all of it.
    pub(crate) fn digest(&self) -> Seen {
        let generation = serde_json::to_string(&self.generation).unwrap_or_default();
        let parts = [&self.agent, &self.provider, &self.source, &generation, &self.own];
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(self.history);
        hash.finalize().into()
    }
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
    /// What it took when it began to wait, in bytes.
    memory: u64,
    take: oneshot::Sender<oneshot::Sender<Process>>,
    task: Option<JoinHandle<()>>,
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
        let memory = process.memory();
        let limit = match memory > MOST_EACH {
            true => Duration::ZERO,
            false => Duration::from_millis(idle_ms),
        };
        let (take, taken) = oneshot::channel();
        let pool = Arc::downgrade(self);
        let task = tokio::spawn(wait(process, key.digest(), taken, limit, pool));
        let mut idle = self.idle();
        idle.retain(|idle| !idle.take.is_closed());
        idle.push(Idle { key, memory, take, task: Some(task) });
        let taken: Vec<u64> = idle.iter().map(|idle| idle.memory).collect();
        idle.drain(..surplus(&taken, MOST_IDLE));
    }

    /// Ends all programs that wait, each by itself as far as it does so in time.
    pub(crate) async fn end(&self) {
        let all = std::mem::take(&mut *self.idle());
        let mut tasks = Vec::new();
        for Idle { take, task, .. } in all {
            drop(take);
            tasks.extend(task);
        }
        for task in tasks {
            // One that panicked has ended too.
            let _ = task.await;
        }
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
    seen: Seen,
    taken: oneshot::Receiver<oneshot::Sender<Process>>,
    limit: Duration,
    pool: Weak<Children>,
) {
    let mut quiet = true;
    let to = tokio::select! {
        to = taken => to.ok(),
        () = process.stirs() => {
            quiet = false;
            None
        }
        () = sleep(limit) => None,
    };
    match to {
        // Who asked for it may be gone; then the process ends here.
        Some(to) => drop(to.send(process)),
        None if quiet => process.retire(&seen).await,
        None => drop(process),
    }
    if let Some(pool) = pool.upgrade() {
        pool.idle().retain(|idle| !idle.take.is_closed());
    }
}
