//! A store as decision 18 wants it: asynchronous, committed under its lock, watched; with a
//! revision of the file and a generation of each login, never mixed.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use moltbot_core::*;

use crate::support::{block_on, exposed_wire, wire};

/// What a store of one agent holds.
#[derive(Clone, Debug, Default, PartialEq)]
struct Document {
    profiles: BTreeMap<String, Credential>,
    last_used: BTreeMap<String, Timestamp>,
}

/// The trait in the shape that a file and a database can both serve: no path, no lock type of
/// their own leaks out; a commit takes the lock by value, so that none happens without it.
#[async_trait]
trait Store: Send + Sync {
    async fn load(&self) -> (Revision, Document);
    async fn lock(&self) -> Result<Box<dyn Locked + '_>, String>;
    async fn changed_since(&self, seen: Revision) -> Option<Revision>;
}

#[async_trait]
trait Locked: Send {
    fn document(&mut self) -> &mut Document;
    async fn commit(self: Box<Self>) -> Result<Revision, String>;
}

#[derive(Default)]
struct Memory {
    file: Mutex<(Revision, Document)>,
    held: Mutex<bool>,
}

struct Held<'a> {
    store: &'a Memory,
    draft: Document,
}

impl Memory {
    fn file(&self) -> MutexGuard<'_, (Revision, Document)> {
        self.file.lock().unwrap()
    }
}

#[async_trait]
impl Store for Memory {
    async fn load(&self) -> (Revision, Document) {
        self.file().clone()
    }

    async fn lock(&self) -> Result<Box<dyn Locked + '_>, String> {
        if std::mem::replace(&mut *self.held.lock().unwrap(), true) {
            return Err("another process is using the credential store".to_string());
        }
        let draft = self.file().1.clone();
        Ok(Box::new(Held { store: self, draft }))
    }

    async fn changed_since(&self, seen: Revision) -> Option<Revision> {
        let now = self.file().0;
        (now != seen).then_some(now)
    }
}

#[async_trait]
impl Locked for Held<'_> {
    fn document(&mut self) -> &mut Document {
        &mut self.draft
    }

    async fn commit(mut self: Box<Self>) -> Result<Revision, String> {
        let mut file = self.store.file();
        file.0 = Revision(file.0.0 + 1);
        file.1 = std::mem::take(&mut self.draft);
        Ok(file.0)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *self.store.held.lock().unwrap() = false;
    }
}

fn login(refresh: &str) -> Credential {
    let mut login = Credential::new(CredentialKind::Oauth, "acme");
    login.access = Some(Secret::new("FAKE-A"));
    login.refresh = Some(Secret::new(refresh));
    login
}

fn change(store: &dyn Store, edit: impl FnOnce(&mut Document)) -> Revision {
    block_on(async {
        let mut held = store.lock().await.unwrap();
        edit(held.document());
        held.commit().await.unwrap()
    })
}

#[test]
fn usage_changes_the_revision_and_a_renewal_the_generation() {
    let store = Memory::default();
    let first = change(&store, |document| {
        document.profiles.insert("acme:a".into(), login("FAKE-1"));
    });
    let generation = |store: &Memory| Generation::of(&store.file().1.profiles["acme:a"]);
    let before = wire(generation(&store));
    let second = change(&store, |document| {
        document.last_used.insert("acme:a".into(), Timestamp::from_millis(1));
    });
    assert!(wire(second) > first);
    assert_eq!(generation(&store), before, "usage is no new login");
    change(&store, |document| {
        document.profiles.insert("acme:a".into(), login("FAKE-2"));
    });
    assert_ne!(generation(&store), before);
    assert!(!format!("{before:?}").contains("FAKE") && before.as_str().len() == 16);
}

#[test]
fn a_journal_is_adopted_only_by_the_login_it_was_written_for() {
    let adopt = |journal: &Generation, stored: &Credential| *journal == Generation::of(stored);
    let journal = wire(Generation::of(&login("FAKE-1")));
    let mut stored = exposed_wire(login("FAKE-1"));
    stored.email = Some("a@example.com".into());
    assert!(adopt(&journal, &stored), "a label is no secret");
    stored.refresh = Some(Secret::new("FAKE-2"));
    assert!(!adopt(&journal, &stored), "somebody logged in anew");
    // The same text in another field is another login.
    let key = Credential::api_key("acme", Secret::new("FAKE"));
    let token = Credential::token("acme", Secret::new("FAKE"), None);
    assert_ne!(Generation::of(&key), Generation::of(&token));
}

#[test]
fn a_second_writer_is_refused_and_a_dropped_one_commits_nothing() {
    let store = Memory::default();
    block_on(async {
        let mut held = store.lock().await.unwrap();
        held.document().profiles.insert("acme:a".into(), login("FAKE"));
        assert!(store.lock().await.is_err());
        drop(held);
        assert!(store.changed_since(Revision::default()).await.is_none());
        assert_eq!(store.load().await, (Revision(0), Document::default()));
        assert!(store.lock().await.is_ok());
    });
    let revision = change(&store, |_| ());
    assert_eq!(block_on(store.changed_since(Revision(0))), Some(revision));
}
