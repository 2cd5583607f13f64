//! Brings two changes of the same contents together, so that a change made by hand in the middle
//! of ours is not overwritten. Pure.

use indexmap::IndexMap;
use moltbot_core::Secret;

use crate::Profiles;

/// Applies to `theirs` what `ours` changed since `base`; `None` if both changed the same
/// credential, order or unknown part in different ways. Of statistics ours are taken.
pub(crate) fn merge(base: &Profiles, ours: &Profiles, theirs: &Profiles) -> Option<Profiles> {
    let rest = |profiles: &Profiles| profiles.rest.iter().cloned().collect();
    let (rest_base, rest_ours, rest_theirs): (Rest, Rest, Rest) =
        (rest(base), rest(ours), rest(theirs));
    let mut merged = Profiles {
        profiles: section(&base.profiles, &ours.profiles, &theirs.profiles, Conflict::Fail)?,
        order: section(&base.order, &ours.order, &theirs.order, Conflict::Fail)?,
        last_good: section(&base.last_good, &ours.last_good, &theirs.last_good, Conflict::Ours)?,
        stats: section(&base.stats, &ours.stats, &theirs.stats, Conflict::Ours)?,
        rest: section(&rest_base, &rest_ours, &rest_theirs, Conflict::Fail)?.into_iter().collect(),
        by_provider: Default::default(),
    };
    merged.reindex();
    Some(merged)
}

type Rest = IndexMap<String, Secret>;

#[derive(Clone, Copy)]
enum Conflict {
    Fail,
    Ours,
}

fn section<T: Clone + PartialEq>(
    base: &IndexMap<String, T>,
    ours: &IndexMap<String, T>,
    theirs: &IndexMap<String, T>,
    conflict: Conflict,
) -> Option<IndexMap<String, T>> {
    let mut merged = IndexMap::with_capacity(theirs.len());
    let added = ours.keys().filter(|key| !theirs.contains_key(*key));
    for key in theirs.keys().chain(added) {
        let (was, our, their) = (base.get(key), ours.get(key), theirs.get(key));
        let taken = match (our == was, their == was || our == their, conflict) {
            (true, _, _) => their,
            (false, true, _) | (false, false, Conflict::Ours) => our,
            (false, false, Conflict::Fail) => return None,
        };
        if let Some(value) = taken {
            merged.insert(key.clone(), value.clone());
        }
    }
    Some(merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use moltbot_core::{Credential, Timestamp};
    use proptest::prelude::*;

    fn key(text: &str) -> Credential {
        Credential::api_key("acme", Secret::new(text))
    }

    fn with(entries: &[(&str, &str)]) -> Profiles {
        let mut profiles = Profiles::default();
        for (id, text) in entries {
            profiles.insert(*id, key(text));
        }
        profiles
    }

    fn listed(profiles: &Profiles) -> Vec<(String, String)> {
        let text = |stored: &Credential| stored.secret().unwrap().expose().to_string();
        profiles.iter().map(|(id, stored)| (id.to_string(), text(stored))).collect()
    }

    #[test]
    fn both_changes_stay_unless_they_contradict() {
        let base = with(&[("a:1", "A"), ("a:2", "B"), ("a:3", "C")]);
        let mut ours = with(&[("a:1", "A2"), ("a:2", "B"), ("a:4", "D")]);
        let now = Timestamp::from_millis(1_000);
        ours.reward("a:1", None, now, now);
        let theirs = with(&[("a:0", "N"), ("a:1", "A"), ("a:2", "B2"), ("a:3", "C")]);
        let merged = merge(&base, &ours, &theirs).unwrap();
        let wanted = [("a:0", "N"), ("a:1", "A2"), ("a:2", "B2"), ("a:4", "D")];
        assert_eq!(listed(&merged), wanted.map(|(id, text)| (id.into(), text.into())));
        assert_eq!(merged.stats("a:1").unwrap().whole.last_used, Some(now));
        assert_eq!(merged.count_of_provider("acme"), 4);
        let contrary = with(&[("a:1", "A3"), ("a:2", "B"), ("a:3", "C")]);
        assert!(merge(&base, &ours, &contrary).is_none());
        let removed = with(&[("a:2", "B"), ("a:3", "C")]);
        assert!(merge(&base, &ours, &removed).is_none(), "changed here, removed there");
    }

    proptest! {
        /// Each side alone is taken whole, and equal changes are no conflict.
        #[test]
        fn a_single_change_is_taken_whole(
            base in proptest::collection::btree_map("[a-d]", "[xyz]", 0..4),
            other in proptest::collection::btree_map("[a-d]", "[xyz]", 0..4),
        ) {
            let of = |map: &std::collections::BTreeMap<String, String>| {
                let mut profiles = Profiles::default();
                for (id, text) in map {
                    profiles.insert(format!("p:{id}"), key(text));
                }
                profiles
            };
            let sorted = |profiles: &Profiles| {
                let mut list = listed(profiles);
                list.sort();
                list
            };
            let (base, other) = (of(&base), of(&other));
            for (ours, theirs) in [(&base, &other), (&other, &base), (&other, &other)] {
                let merged = merge(&base, ours, theirs).unwrap();
                prop_assert_eq!(sorted(&merged), sorted(&other));
            }
        }
    }
}
