//! Changes a store, anew if somebody changed it without taking the lock.

use moltbot_profiles::{Profiles, Store, StoreError};

use crate::clock::Clock;

/// How often a change is started anew.
const TRIES: u32 = 5;

/// Changes the contents of a store under its lock and writes them.
pub(crate) async fn update<R>(
    store: &dyn Store,
    clock: &dyn Clock,
    mut change: impl FnMut(&mut Profiles) -> R,
) -> Result<R, StoreError> {
    let mut tries = 1;
    loop {
        let mut locked = store.lock(clock.now()).await?;
        let result = change(&mut locked.profiles);
        match locked.commit().await {
            Err(StoreError::Changed { .. }) if tries < TRIES => tries += 1,
            done => return done.map(|_| result),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moltbot_profiles::FileStore;

    use crate::clock::TestClock;

    /// Changes a profile that somebody else changes too, without the lock, in the first so many
    /// tries. (What does not contradict, the store merges by itself.)
    fn run(edits: u32) -> Result<u32, StoreError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.json");
        let store = FileStore::new(&path);
        let mut calls = 0;
        let clock = TestClock::default();
        let update = update(&store, &clock, |profiles| {
            calls += 1;
            let key = moltbot_core::Secret::new("FAKE-ours");
            profiles.insert("acme:x", moltbot_core::Credential::api_key("acme", key));
            if calls <= edits {
                let profile =
                    format!(r#"{{"type": "api_key", "provider": "acme", "key": "FAKE-{calls}"}}"#);
                let text = format!(r#"{{"profiles": {{"acme:x": {profile}}}}}"#);
                std::fs::write(&path, text).unwrap();
            }
            calls
        });
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(update)
    }

    #[test]
    fn a_change_is_started_anew_a_few_times() {
        assert_eq!(run(0), Ok(1));
        assert_eq!(run(4), Ok(5));
        assert_eq!(run(5).unwrap_err().code(), "store-locked");
    }
}
