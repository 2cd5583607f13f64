//! The contents of one store: profiles, explicit orders, last good ones, statistics.

use std::collections::HashMap;
use std::fmt;

use indexmap::IndexMap;
use moltbot_core::{Credential, Failure, Quota, Secret, Timestamp};

use crate::ids::normal;
use crate::{CooldownRules, Stats, Unusable};

/// The contents of `auth-profiles.json` (spec ).
///
/// Profiles stay in file order. What cannot be understood is kept as it came, written back, and
/// listed by [`problems`](Self::problems), but never handed out.
#[derive(Clone, Default)]
pub struct Profiles {
    pub(crate) profiles: IndexMap<String, Entry<Credential>>,
    pub(crate) order: IndexMap<String, Entry<Vec<String>>>,
    pub(crate) last_good: IndexMap<String, Entry<String>>,
    pub(crate) stats: IndexMap<String, Entry<Stats>>,
    /// Members of the document that this version does not know, as JSON text.
    pub(crate) rest: Vec<(String, Secret)>,
    /// Normalised provider to positions in `profiles`, in file order.
    pub(crate) by_provider: HashMap<String, Vec<usize>>,
}

/// Something in the store that is kept but not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key path: `profiles.acme:default`.
    pub place: String,
    /// What is wrong with it, without any of its content.
    pub reason: String,
}

/// A member of a section: understood, or kept as it came.
#[derive(Clone, PartialEq)]
pub(crate) enum Entry<T> {
    Known(T),
    Kept { raw: Secret, reason: String },
}

impl<T> Entry<T> {
    pub(crate) fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Kept { .. } => None,
        }
    }
}

impl Profiles {
    /// Counts the usable profiles.
    pub fn len(&self) -> usize {
        self.by_provider.values().map(Vec::len).sum()
    }

    /// Tells whether there is no usable profile.
    pub fn is_empty(&self) -> bool {
        self.by_provider.is_empty()
    }

    /// Tells whether a usable profile of that id is stored.
    pub fn contains(&self, id: &str) -> bool {
        self.get(id).is_some()
    }

    /// Returns a stored credential.
    pub fn get(&self, id: &str) -> Option<&Credential> {
        self.profiles.get(id).and_then(Entry::known)
    }

    /// Tells whether something is stored under that id which cannot be understood.
    pub fn is_kept_only(&self, id: &str) -> bool {
        matches!(self.profiles.get(id), Some(Entry::Kept { .. }))
    }

    /// Lists the usable profiles in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Credential)> {
        self.profiles.iter().filter_map(|(id, entry)| Some((id.as_str(), entry.known()?)))
    }

    /// Lists the usable profiles of a provider in file order, without looking at others.
    pub fn of_provider(&self, provider: &str) -> impl Iterator<Item = (&str, &Credential)> {
        let positions = self.by_provider.get(normal(provider).as_ref());
        positions.into_iter().flatten().filter_map(|position| {
            let (id, entry) = self.profiles.get_index(*position)?;
            Some((id.as_str(), entry.known()?))
        })
    }

    /// Counts the usable profiles of a provider.
    pub fn count_of_provider(&self, provider: &str) -> usize {
        self.by_provider.get(normal(provider).as_ref()).map_or(0, Vec::len)
    }

    /// Lists the providers that have profiles, normalised and sorted.
    pub fn providers(&self) -> Vec<&str> {
        let mut list: Vec<&str> = self.by_provider.keys().map(String::as_str).collect();
        list.sort_unstable();
        list
    }

    /// Lists what is kept but not used, in the order of the file.
    pub fn problems(&self) -> Vec<Problem> {
        fn of<T>(section: &str, entries: &IndexMap<String, Entry<T>>, into: &mut Vec<Problem>) {
            for (key, entry) in entries {
                if let Entry::Kept { reason, .. } = entry {
                    let place = moltbot_core::redact(&format!("{section}.{key}")).into_owned();
                    into.push(Problem { place, reason: reason.clone() });
                }
            }
        }
        let mut list = Vec::new();
        of("profiles", &self.profiles, &mut list);
        of("order", &self.order, &mut list);
        of("lastGood", &self.last_good, &mut list);
        of("usageStats", &self.stats, &mut list);
        list
    }

    /// Stores a credential and returns the one it replaces; a known id keeps its position.
    pub fn insert(&mut self, id: impl Into<String>, credential: Credential) -> Option<Credential> {
        let old = self.profiles.insert(id.into(), Entry::Known(credential));
        self.reindex();
        match old {
            Some(Entry::Known(old)) => Some(old),
            Some(Entry::Kept { .. }) | None => None,
        }
    }

    /// Removes a profile, its statistics, and its mentions in `order` and `lastGood`.
    pub fn remove(&mut self, id: &str) -> Option<Credential> {
        let old = self.profiles.shift_remove(id)?;
        self.reindex();
        self.stats.shift_remove(id);
        self.last_good.retain(|_, entry| entry.known().is_none_or(|good| good != id));
        for entry in self.order.values_mut() {
            if let Entry::Known(ids) = entry {
                ids.retain(|listed| listed != id);
            }
        }
        self.order.retain(|_, entry| entry.known().is_none_or(|ids| !ids.is_empty()));
        match old {
            Entry::Known(old) => Some(old),
            Entry::Kept { .. } => None,
        }
    }

    /// Gives a profile another id, in its place, with its statistics and mentions; tells whether
    /// it did, which takes that `from` is stored and `to` is free.
    pub fn rename(&mut self, from: &str, to: &str) -> bool {
        if !self.profiles.contains_key(from) || self.profiles.contains_key(to) {
            return false;
        }
        fn renamed<T>(map: &mut IndexMap<String, T>, from: &str, to: &str) {
            let old = std::mem::take(map);
            let name = |id: String| if id == from { to.to_string() } else { id };
            *map = old.into_iter().map(|(id, entry)| (name(id), entry)).collect();
        }
        renamed(&mut self.profiles, from, to);
        self.stats.shift_remove(to);
        renamed(&mut self.stats, from, to);
        for entry in self.last_good.values_mut() {
            match entry {
                Entry::Known(id) if id == from => *id = to.to_string(),
                Entry::Known(_) | Entry::Kept { .. } => {}
            }
        }
        for entry in self.order.values_mut() {
            let Entry::Known(ids) = entry else { continue };
            ids.retain(|id| id != to);
            for id in ids.iter_mut().filter(|id| *id == from) {
                *id = to.to_string();
            }
        }
        self.reindex();
        true
    }

    /// Lists the explicit orders that are understood, by provider as spelled in the store.
    pub fn orders(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.order.iter().filter_map(|(key, ids)| Some((key.as_str(), ids.known()?.as_slice())))
    }

    /// Returns the store's own order for a provider; never an empty one.
    pub fn order(&self, provider: &str) -> Option<&[String]> {
        find(&self.order, provider).and_then(|(_, ids)| ids.known()).map(Vec::as_slice)
    }

    /// Sets the order for a provider: blank ids and repetitions are dropped; an empty list clears.
    pub fn set_order(&mut self, provider: &str, ids: Vec<String>) {
        let mut clean: Vec<String> = Vec::new();
        for id in ids.iter().map(|id| id.trim()).filter(|id| !id.is_empty()) {
            if !clean.iter().any(|seen| seen == id) {
                clean.push(id.to_string());
            }
        }
        let key = key_of(&self.order, provider);
        if clean.is_empty() {
            self.order.shift_remove(&key);
        } else {
            self.order.insert(key, Entry::Known(clean));
        }
    }

    /// Removes the order for a provider; tells whether there was one.
    pub fn clear_order(&mut self, provider: &str) -> bool {
        let key = key_of(&self.order, provider);
        self.order.shift_remove(&key).is_some()
    }

    /// Returns the profile that last served a provider.
    pub fn last_good(&self, provider: &str) -> Option<&str> {
        find(&self.last_good, provider).and_then(|(_, id)| id.known()).map(String::as_str)
    }

    /// Records the profile that last served a provider.
    pub fn set_last_good(&mut self, provider: &str, id: &str) {
        let key = key_of(&self.last_good, provider);
        self.last_good.insert(key, Entry::Known(id.to_string()));
    }

    /// Returns the statistics of a profile.
    pub fn stats(&self, id: &str) -> Option<&Stats> {
        self.stats.get(id).and_then(Entry::known)
    }

    /// Lists all statistics, also those of profiles that are not stored.
    pub fn all_stats(&self) -> impl Iterator<Item = (&str, &Stats)> {
        self.stats.iter().filter_map(|(id, entry)| Some((id.as_str(), entry.known()?)))
    }

    /// Sets the statistics of a profile, which need not be stored (an owner's login is not);
    /// empty ones are removed.
    pub fn set_stats(&mut self, id: &str, stats: Stats) {
        if stats.is_empty() {
            self.stats.shift_remove(id);
        } else {
            self.stats.insert(id.to_string(), Entry::Known(stats));
        }
    }

    /// Lists the profiles of a provider that are known to belong to one account.
    pub fn same_account(&self, account: &str, provider: &str) -> Vec<&str> {
        self.of_provider(provider)
            .map(|(id, _)| id)
            .filter(|id| self.stats(id).is_some_and(|s| s.account.as_deref() == Some(account)))
            .collect()
    }

    /// Notes the account behind a profile; tells whether that is news.
    pub fn set_account(&mut self, id: &str, account: &str) -> bool {
        let mut stats = self.stats(id).cloned().unwrap_or_default();
        if stats.account.as_deref() == Some(account) {
            return false;
        }
        stats.account = Some(account.to_string());
        self.set_stats(id, stats);
        true
    }

    /// Takes in what a reply told about the limits of a profile; see [`Stats::observe`].
    pub fn observe(
        &mut self,
        id: &str,
        model: Option<&str>,
        quotas: &[Quota],
        served: bool,
        now: Timestamp,
    ) {
        if quotas.is_empty() {
            return;
        }
        let mut stats = self.stats(id).cloned().unwrap_or_default();
        stats.observe(model, quotas, served, now);
        self.set_stats(id, stats);
    }

    /// Records a failure of a profile, and of every profile of the same account if the failure
    /// names one; see [`punish`](crate::punish()).
    pub fn punish(
        &mut self,
        id: &str,
        model: Option<&str>,
        failure: &Failure,
        rules: &CooldownRules,
        now: Timestamp,
        request_started: Timestamp,
    ) {
        let provider = self.provider_of(id).to_string();
        let mut ids = vec![id.to_string()];
        if let Some(account) = &failure.account {
            self.set_account(id, account);
            let others = self.same_account(account, &provider);
            ids.extend(others.into_iter().filter(|other| *other != id).map(str::to_string));
        }
        for id in ids {
            let old = self.stats(&id).cloned().unwrap_or_default();
            let new = crate::punish(&old, &provider, model, failure, rules, now, request_started);
            self.set_stats(&id, new);
        }
    }

    /// Records a success of a profile, and that it is the last good one of its provider; see
    /// [`reward`](crate::reward).
    pub fn reward(
        &mut self,
        id: &str,
        model: Option<&str>,
        now: Timestamp,
        request_started: Timestamp,
    ) {
        let old = self.stats(id).cloned().unwrap_or_default();
        self.set_stats(id, crate::reward(&old, model, now, request_started));
        let provider = self.provider_of(id).to_string();
        self.set_last_good(&provider, id);
    }

    /// Ends the blocks of one profile or of all, and returns the ids that had one (spec S-16).
    pub fn clear_cooldowns(&mut self, id: Option<&str>, now: Timestamp) -> Vec<String> {
        let mut cleared = Vec::new();
        for (owner, entry) in &mut self.stats {
            if let Entry::Known(stats) = entry
                && id.is_none_or(|id| id == owner)
                && stats.clear(now)
            {
                cleared.push(owner.clone());
            }
        }
        cleared
    }

    /// Lists the blocks that hold now, soonest over first: `auth.unusableProfiles` (spec L-36).
    pub fn unusable(&self, now: Timestamp) -> Vec<Unusable> {
        let mut list = Vec::new();
        for (id, stats) in self.all_stats() {
            let provider = self.get(id).map(|stored| stored.provider.clone());
            for (blocked, models) in stats.blocks(now) {
                list.push(Unusable {
                    profile_id: id.to_string(),
                    provider: provider.clone(),
                    kind: blocked.kind,
                    until: blocked.until,
                    remaining_ms: blocked.until.since(now),
                    reason: blocked.reason,
                    models,
                });
            }
        }
        list.sort_by(|a, b| {
            (a.remaining_ms, &a.profile_id, &a.models).cmp(&(
                b.remaining_ms,
                &b.profile_id,
                &b.models,
            ))
        });
        list
    }

    /// Returns the provider of a stored profile, else what stands before the colon of its id.
    fn provider_of<'a>(&'a self, id: &'a str) -> &'a str {
        match self.get(id) {
            Some(stored) => &stored.provider,
            None => id.split_once(':').map_or(id, |(provider, _)| provider),
        }
    }

    pub(crate) fn reindex(&mut self) {
        self.by_provider.clear();
        for (position, entry) in self.profiles.values().enumerate() {
            let Entry::Known(credential) = entry else { continue };
            let provider = normal(&credential.provider);
            match self.by_provider.get_mut(provider.as_ref()) {
                Some(positions) => positions.push(position),
                None => {
                    self.by_provider.insert(provider.into_owned(), vec![position]);
                }
            }
        }
    }
}

impl fmt::Debug for Profiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profiles")
            .field("profiles", &self.len())
            .field("problems", &self.problems().len())
            .finish_non_exhaustive()
    }
}

/// Finds the entry of a provider, however its key is spelled.
fn find<'a, T>(map: &'a IndexMap<String, T>, provider: &str) -> Option<(&'a String, &'a T)> {
    map.get_key_value(provider).or_else(|| {
        let wanted = normal(provider);
        map.iter().find(|(key, _)| normal(key) == wanted)
    })
}

/// Returns the key under which a provider stands, or will stand.
fn key_of<T>(map: &IndexMap<String, T>, provider: &str) -> String {
    find(map, provider).map_or_else(|| normal(provider).into_owned(), |(key, _)| key.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use moltbot_core::{FailureKind, Scope};

    fn key(provider: &str) -> Credential {
        Credential::api_key(provider, Secret::new("FAKE"))
    }

    fn three() -> Profiles {
        let mut profiles = Profiles::default();
        for id in ["acme:b", "other:x", "acme:a"] {
            profiles.insert(id, key(id.split(':').next().unwrap()));
        }
        profiles
    }

    fn ids<'a>(list: impl Iterator<Item = (&'a str, &'a Credential)>) -> Vec<&'a str> {
        list.map(|(id, _)| id).collect()
    }

    #[test]
    fn profiles_stay_in_order_and_are_found_by_provider() {
        let mut profiles = three();
        assert_eq!(ids(profiles.iter()), ["acme:b", "other:x", "acme:a"]);
        assert_eq!(ids(profiles.of_provider(" ACME ")), ["acme:b", "acme:a"]);
        assert_eq!(profiles.providers(), ["acme", "other"]);
        assert!(profiles.insert("acme:b", key("acme")).is_some());
        assert_eq!(ids(profiles.iter())[0], "acme:b");
        profiles.remove("acme:b");
        assert_eq!(ids(profiles.of_provider("acme")), ["acme:a"]);
        assert_eq!((profiles.len(), profiles.is_empty()), (2, false));
    }

    #[test]
    fn removing_a_profile_removes_its_traces() {
        let mut profiles = three();
        let now = Timestamp::from_millis(1_000);
        profiles.reward("acme:b", None, now, now);
        profiles.set_order("acme", vec!["acme:b".into()]);
        profiles.set_order("other", vec!["other:x".into()]);
        assert!(profiles.remove("acme:b").is_some());
        assert_eq!(profiles.stats("acme:b"), None);
        assert_eq!(profiles.last_good("acme"), None);
        assert_eq!(profiles.order("acme"), None);
        assert!(profiles.order("other").is_some());
        assert!(profiles.remove("acme:b").is_none());
    }

    #[test]
    fn a_renamed_profile_keeps_its_place_and_its_traces() {
        let mut profiles = three();
        let now = Timestamp::from_millis(1_000);
        profiles.reward("acme:b", None, now, now);
        profiles.set_order("acme", vec!["acme:a".into(), "acme:b".into(), "acme:new".into()]);
        assert!(!profiles.rename("acme:b", "acme:a"), "taken");
        assert!(!profiles.rename("acme:none", "acme:new"));
        assert!(profiles.rename("acme:b", "acme:new"));
        assert_eq!(ids(profiles.iter()), ["acme:new", "other:x", "acme:a"]);
        assert_eq!(ids(profiles.of_provider("acme")), ["acme:new", "acme:a"]);
        assert_eq!(profiles.order("acme").unwrap(), ["acme:a", "acme:new"]);
        assert_eq!(profiles.last_good("acme"), Some("acme:new"));
        assert_eq!(profiles.stats("acme:new").unwrap().whole.last_used, Some(now));
        assert_eq!(profiles.stats("acme:b"), None);
    }

    #[test]
    fn orders_are_cleaned_and_found_by_any_spelling() {
        let mut profiles = Profiles::default();
        profiles.set_order("Z.AI", vec![" a ".into(), "".into(), "b".into(), "a".into()]);
        assert_eq!(profiles.order("zai").unwrap(), ["a", "b"]);
        assert!(profiles.clear_order("z-ai"));
        assert!(!profiles.clear_order("zai"));
        profiles.set_order("zai", vec![" ".into()]);
        assert_eq!(profiles.order("zai"), None);
    }

    #[test]
    fn a_failure_of_the_account_concerns_all_its_profiles() {
        let mut profiles = three();
        let now = Timestamp::from_millis(1_000_000);
        profiles.set_account("acme:a", "org-1");
        let failure = Failure {
            kind: FailureKind::RateLimit,
            scope: Scope::ProfileModel,
            reset: None,
            account: Some("org-1".into()),
            code: "rate-limited".into(),
            message: String::new(),
            advice: None,
        };
        let rules = CooldownRules::default();
        profiles.punish("acme:b", Some("m"), &failure, &rules, now, now);
        for id in ["acme:a", "acme:b"] {
            assert!(profiles.stats(id).unwrap().blocked(Some("m"), now).is_some(), "{id}");
        }
        assert_eq!(profiles.stats("other:x"), None);
        assert_eq!(profiles.clear_cooldowns(Some("acme:a"), now), ["acme:a"]);
        assert_eq!(profiles.clear_cooldowns(None, now), ["acme:b"]);
        assert!(profiles.clear_cooldowns(None, now).is_empty());
    }

    #[test]
    fn case_43_unusable_profiles_soonest_first() {
        let mut profiles = three();
        let now = Timestamp::from_millis(1_000_000);
        let block = |until: i64| crate::Block {
            cooldown_until: Some(Timestamp::from_millis(until)),
            ..Default::default()
        };
        profiles.set_stats("acme:a", Stats { whole: block(1_090_000), ..Stats::default() });
        let models = [("opus-4-5".to_string(), block(1_060_000))].into();
        profiles.set_stats("acme:b", Stats { models, ..Stats::default() });
        let rows = serde_json::to_value(profiles.unusable(now)).unwrap();
        assert_eq!(
            rows,
            serde_json::json!([
                {"profileId": "acme:b", "provider": "acme", "kind": "cooldown",
                 "until": 1_060_000, "remainingMs": 60_000, "models": ["opus-4-5"]},
                {"profileId": "acme:a", "provider": "acme", "kind": "cooldown",
                 "until": 1_090_000, "remainingMs": 90_000},
            ])
        );
    }
}
