//! What undoing changes does: the last one, or all after a number. Pure.
//!
//! A renewal is never undone, and no undo brings back a token that a renewal has spent: where a
//! login was renewed later, its newest generation is meant (decision "Refresh").

use std::collections::{BTreeMap, BTreeSet};

use moltbot_core::Generation;
use thiserror::Error;

use crate::{Change, ChangeKind, Profiles, Removed};

/// What an undo does.
#[derive(Clone, Debug)]
pub struct Undo {
    /// The contents afterwards.
    pub profiles: Profiles,
    /// The groups of changes that are undone, newest first.
    pub groups: Vec<u64>,
    /// What is done, one clause each, in the past tense.
    pub steps: Vec<String>,
}

/// Why nothing can be undone: shown, nothing is changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UndoError {
    /// There is nothing to undo.
    #[error("there is no change to undo")]
    Nothing,
    /// There is nothing to undo after that number.
    #[error("there is no change to undo after number {0}")]
    NothingAfter(u64),
    /// The profile is not what the change made of it.
    #[error("change {number} cannot be undone: {profile} has been changed since by other means")]
    Changed {
        /// Which change.
        number: u64,
        /// Which profile.
        profile: String,
    },
    /// The place is taken.
    #[error(
        "change {number} cannot be undone: there is another {profile} now; rename or remove it first"
    )]
    Taken {
        /// Which change.
        number: u64,
        /// Which profile.
        profile: String,
    },
    /// The login was renewed after it was removed, so its token is spent.
    #[error(
        "change {number} cannot be undone: the login of {profile} has been renewed since, so the removed token is spent; log in again"
    )]
    Spent {
        /// Which change.
        number: u64,
        /// Which profile.
        profile: String,
    },
    /// The secret is gone.
    #[error(
        "change {number} cannot be undone: the secret of {profile} is not kept any more (removed secrets are kept for 7 days); log in again"
    )]
    Gone {
        /// Which change.
        number: u64,
        /// Which profile.
        profile: String,
    },
}

/// Says what undoing the last change does, or all changes after number `to`.
///
/// `log` holds the changes that came true, oldest first; `removed` the secrets that are kept.
pub fn undo(
    log: &[Change],
    profiles: &Profiles,
    removed: &[Removed],
    to: Option<u64>,
) -> Result<Undo, UndoError> {
    let groups = undoable(log, to);
    if groups.is_empty() {
        return Err(to.map_or(UndoError::Nothing, UndoError::NothingAfter));
    }
    let mut work = Work {
        renewals: renewals(log),
        removed,
        original: profiles,
        profiles: profiles.clone(),
        steps: Vec::new(),
    };
    for group in &groups {
        // An order names profiles, so it comes back after they have.
        let of_group = || log.iter().rev().filter(|change| change.group == *group);
        for change in of_group().filter(|change| !is_order(change)) {
            work.revert(change)?;
        }
        for change in of_group().filter(|change| is_order(change)) {
            work.revert_order(change);
        }
    }
    Ok(Undo { profiles: work.profiles, groups, steps: work.steps })
}

/// Lists the groups to undo, newest first.
fn undoable(log: &[Change], to: Option<u64>) -> Vec<u64> {
    use ChangeKind::{Import, Login, Order, Remove, Rename};
    let undone: BTreeSet<u64> = log.iter().flat_map(|change| change.undoes.clone()).collect();
    let by_users =
        |change: &&Change| matches!(change.kind, Login | Remove | Rename | Order | Import);
    let all: BTreeSet<u64> = log
        .iter()
        .filter(by_users)
        .map(|change| change.group)
        .filter(|group| !undone.contains(group))
        .collect();
    let newest_first = all.into_iter().rev();
    match to {
        Some(to) => newest_first.filter(|group| *group > to).collect(),
        None => newest_first.take(1).collect(),
    }
}

/// Maps each spent generation to the one that took its place.
fn renewals(log: &[Change]) -> BTreeMap<String, Generation> {
    let renewed = log.iter().filter(|change| change.kind == ChangeKind::Renewed);
    renewed
        .filter_map(|change| {
            let (before, after) = (change.before.as_ref()?, change.after.as_ref()?);
            Some((before.as_str().to_string(), after.clone()))
        })
        .collect()
}

fn is_order(change: &Change) -> bool {
    change.order_before.is_some() || change.order_after.is_some()
}

struct Work<'a> {
    renewals: BTreeMap<String, Generation>,
    removed: &'a [Removed],
    original: &'a Profiles,
    profiles: Profiles,
    steps: Vec<String>,
}

impl Work<'_> {
    fn revert(&mut self, change: &Change) -> Result<(), UndoError> {
        let (number, profile) = (change.number, change.profile.clone());
        if let Some(to) = &change.to {
            self.expect(change, to)?;
            if !self.profiles.rename(to, &profile) {
                return Err(UndoError::Taken { number, profile });
            }
            self.steps.push(format!("renamed {to} back to {profile}"));
            return Ok(());
        }
        match &change.after {
            Some(_) => self.expect(change, &profile)?,
            None if self.profiles.contains(&profile) => {
                return Err(UndoError::Taken { number, profile });
            }
            None => {}
        }
        match &change.before {
            Some(before) => {
                let credential = self.find(change, before)?;
                self.profiles.insert(profile.clone(), credential);
                self.steps.push(format!("brought back {profile}"));
            }
            None => {
                self.profiles.remove(&profile);
                self.steps.push(format!("removed {profile}"));
            }
        }
        Ok(())
    }

    fn revert_order(&mut self, change: &Change) {
        let provider = &change.profile;
        let mut ids = change.order_before.clone().unwrap_or_default();
        ids.retain(|id| self.profiles.contains(id));
        let step = match ids.is_empty() {
            true => format!("cleared the order of {provider}"),
            false => format!("set the order of {provider} back to {}", ids.join(", ")),
        };
        if self.profiles.order(provider).unwrap_or_default() != ids {
            self.steps.push(step);
        }
        self.profiles.set_order(provider, ids);
    }

    /// Checks that `id` is what the change made of it, or has been renewed since.
    fn expect(&self, change: &Change, id: &str) -> Result<(), UndoError> {
        let current = self.profiles.get(id).map(Generation::of);
        let wanted = change.after.as_ref().map(|after| self.newest(after));
        match current == wanted {
            true => Ok(()),
            false => Err(UndoError::Changed { number: change.number, profile: id.to_string() }),
        }
    }

    /// Finds a credential that was removed, in its newest generation.
    fn find(
        &self,
        change: &Change,
        before: &Generation,
    ) -> Result<moltbot_core::Credential, UndoError> {
        let (number, profile) = (change.number, change.profile.clone());
        let newest = self.newest(before);
        let kept = self.removed.iter().rev().find(|removed| removed.generation() == newest);
        // What this very undo takes out is in the store still.
        let stored = || {
            let mut stored = self.original.iter().map(|(_, stored)| stored);
            stored.find(|stored| Generation::of(stored) == newest).cloned()
        };
        match kept.map(|removed| removed.credential.clone()).or_else(stored) {
            Some(credential) => Ok(credential),
            None if newest == *before => Err(UndoError::Gone { number, profile }),
            None => Err(UndoError::Spent { number, profile }),
        }
    }

    /// Follows the renewals of a login to its newest generation.
    fn newest(&self, generation: &Generation) -> Generation {
        let mut newest = generation;
        for _ in 0..=self.renewals.len() {
            match self.renewals.get(newest.as_str()) {
                Some(next) => newest = next,
                None => break,
            }
        }
        newest.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cause;
    use crate::changes::differences;
    use moltbot_core::{Credential, Secret, Timestamp};
    use proptest::prelude::*;

    const AT: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    /// A store with its log, and a service that knows which tokens are spent.
    #[derive(Default)]
    struct World {
        profiles: Profiles,
        log: Vec<Change>,
        removed: Vec<Removed>,
        spent: BTreeSet<String>,
        issued: u32,
    }

    impl World {
        fn commit(&mut self, new: Profiles, cause: &Cause) {
            let last = self.log.last().map_or(0, |change| change.number);
            let found = differences(&self.profiles, &new, &[], cause, "test", AT, last);
            if cause.kind != Some(ChangeKind::Renewed) {
                for change in &found {
                    let stays = |credential: &Credential| {
                        new.iter()
                            .any(|(_, other)| Generation::of(other) == Generation::of(credential))
                    };
                    if let Some(old) = self.profiles.get(&change.profile)
                        && change.before != change.after
                        && !stays(old)
                    {
                        let profile = change.profile.clone();
                        self.removed.push(Removed { at: AT, profile, credential: old.clone() });
                    }
                }
            }
            self.log.extend(found);
            self.profiles = new;
        }

        fn token(&mut self) -> Credential {
            self.issued += 1;
            Credential::token("acme", Secret::new(format!("T{}", self.issued)), None)
        }

        fn login(&mut self, id: &str) {
            let (token, mut new) = (self.token(), self.profiles.clone());
            new.insert(id, token);
            self.commit(new, &Cause::default());
        }

        fn renew(&mut self, id: &str) {
            let Some(old) = self.profiles.get(id).cloned() else { return };
            self.spent.insert(old.secret().unwrap().expose().to_string());
            let (token, mut new) = (self.token(), self.profiles.clone());
            new.insert(id, token);
            self.commit(new, &Cause::renewed());
        }

        fn change(&mut self, change: impl FnOnce(&mut Profiles)) {
            let mut new = self.profiles.clone();
            change(&mut new);
            self.commit(new, &Cause::default());
        }

        fn undo(&mut self, to: Option<u64>) -> Result<Vec<String>, UndoError> {
            let undo = undo(&self.log, &self.profiles, &self.removed, to)?;
            let kind = Some(ChangeKind::Undo);
            let cause = Cause { kind, undoes: undo.groups, ..Cause::default() };
            self.commit(undo.profiles, &cause);
            Ok(undo.steps)
        }

        fn shown(&self) -> Vec<(String, String)> {
            let text = |stored: &Credential| stored.secret().unwrap().expose().to_string();
            let mut list: Vec<_> =
                self.profiles.iter().map(|(id, stored)| (id.to_string(), text(stored))).collect();
            list.sort();
            list
        }

        fn has(&self, wanted: &[(&str, &str)]) -> bool {
            let wanted: Vec<_> =
                wanted.iter().map(|(id, text)| (id.to_string(), text.to_string())).collect();
            self.shown() == wanted
        }
    }

    #[test]
    fn the_last_change_of_each_sort_is_undone() {
        let mut world = World::default();
        world.login("acme:a");
        world.login("acme:a");
        assert_eq!(world.undo(None).unwrap(), ["brought back acme:a"]);
        assert!(world.has(&[("acme:a", "T1")]));
        assert_eq!(world.undo(None).unwrap(), ["removed acme:a"]);
        assert_eq!(world.undo(None), Err(UndoError::Nothing));
        world.login("acme:a");
        world.change(|profiles| profiles.set_order("acme", vec!["acme:a".into()]));
        world.change(|profiles| drop(profiles.remove("acme:a")));
        let steps = world.undo(None).unwrap();
        assert_eq!(steps, ["brought back acme:a", "set the order of acme back to acme:a"]);
        world.change(|profiles| {
            profiles.rename("acme:a", "acme:b");
        });
        assert_eq!(world.undo(None).unwrap(), ["renamed acme:b back to acme:a"]);
        assert_eq!(world.undo(None).unwrap(), ["cleared the order of acme"]);
        assert!(world.has(&[("acme:a", "T3")]));
    }

    #[test]
    fn case_undo_never_brings_back_a_spent_token() {
        let mut world = World::default();
        world.login("acme:a");
        world.renew("acme:a");
        world.login("acme:a");
        assert_eq!(world.undo(None).unwrap(), ["brought back acme:a"]);
        assert!(world.has(&[("acme:a", "T2")]), "the renewed one: {:?}", world.shown());
        world.renew("acme:a");
        assert_eq!(world.undo(None).unwrap(), ["removed acme:a"], "renewed, yet the same login");

        let mut world = World::default();
        world.login("acme:a");
        world.change(|profiles| drop(profiles.remove("acme:a")));
        world.undo(None).unwrap();
        world.renew("acme:a");
        world.change(|profiles| drop(profiles.remove("acme:a")));
        world.undo(None).unwrap();
        assert!(world.has(&[("acme:a", "T2")]));
    }

    #[test]
    fn undo_to_a_number_takes_back_everything_after_it() {
        let mut world = World::default();
        world.login("acme:a");
        let first = world.log.last().unwrap().number;
        world.change(|profiles| {
            profiles.rename("acme:a", "acme:b");
        });
        world.renew("acme:b");
        world.login("acme:c");
        world.change(|profiles| drop(profiles.remove("acme:b")));
        let steps = world.undo(Some(first)).unwrap();
        assert_eq!(
            steps,
            ["brought back acme:b", "removed acme:c", "renamed acme:b back to acme:a"]
        );
        assert!(world.has(&[("acme:a", "T2")]));
        assert_eq!(world.undo(Some(first)), Err(UndoError::NothingAfter(first)));
    }

    #[test]
    fn what_cannot_be_undone_is_said() {
        let mut world = World::default();
        world.login("acme:a");
        world.profiles.insert("acme:a", Credential::token("acme", Secret::new("HAND"), None));
        let profile = "acme:a".to_string();
        assert_eq!(
            world.undo(None),
            Err(UndoError::Changed { number: 1, profile: profile.clone() })
        );
        let mut world = World::default();
        world.login("acme:a");
        world.change(|profiles| drop(profiles.remove("acme:a")));
        let kept = std::mem::take(&mut world.removed);
        assert_eq!(world.undo(None), Err(UndoError::Gone { number: 2, profile: profile.clone() }));
        world.removed = kept;
        world.profiles.insert("acme:a", Credential::token("acme", Secret::new("HAND"), None));
        assert_eq!(world.undo(None), Err(UndoError::Taken { number: 2, profile }));
    }

    #[derive(Clone, Debug)]
    enum Act {
        Login(u8),
        Renew(u8),
        Remove(u8),
        Rename(u8, u8),
        Order(u8),
        Undo,
        UndoTo(u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        let id = || 0_u8..3;
        prop_oneof![
            3 => id().prop_map(Act::Login),
            3 => id().prop_map(Act::Renew),
            2 => id().prop_map(Act::Remove),
            2 => (id(), id()).prop_map(|(from, to)| Act::Rename(from, to)),
            1 => id().prop_map(Act::Order),
            3 => Just(Act::Undo),
            1 => (0_u64..12).prop_map(Act::UndoTo),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        /// Whatever users do in whatever order, no spent token comes back, and the undo of a
        /// change that was just made restores what was there.
        #[test]
        fn no_spent_token_ever_comes_back(acts in proptest::collection::vec(act(), 1..24)) {
            let id = |n: u8| format!("acme:{n}");
            let mut world = World::default();
            for act in acts {
                let (before, length) = (world.shown(), world.log.len());
                let mut plain = true;
                match act {
                    Act::Login(n) => world.login(&id(n)),
                    Act::Renew(n) => {
                        world.renew(&id(n));
                        plain = false;
                    }
                    Act::Remove(n) => world.change(|profiles| drop(profiles.remove(&id(n)))),
                    Act::Rename(a, b) => {
                        world.change(|profiles| {
            profiles.rename(&id(a), &id(b));
        });
                    }
                    Act::Order(n) => world.change(|profiles| {
                        profiles.set_order("acme", vec![id(n)]);
                    }),
                    Act::Undo => {
                        let _ = world.undo(None);
                        plain = false;
                    }
                    Act::UndoTo(to) => {
                        let _ = world.undo(Some(to));
                        plain = false;
                    }
                }
                for (id, token) in world.shown() {
                    prop_assert!(!world.spent.contains(&token), "{id} is back at {token}");
                }
                if plain && world.log.len() > length {
                    let (profiles, log) = (world.profiles.clone(), world.log.clone());
                    let removed = world.removed.clone();
                    world.undo(None).unwrap();
                    prop_assert_eq!(world.shown(), before);
                    (world.profiles, world.log, world.removed) = (profiles, log, removed);
                }
            }
        }
    }
}
