//! The log of changes: what became of which credential, when, by whom, by which command. It holds no
//! secret; who a login was is told by its generation.
//!
//! A batch of changes is written and on disk before the store is, under the same lock. The store
//! taking its place is what makes it true; a batch that its store never followed is recognised by
//! the store's contents, and passed over.

use std::collections::BTreeSet;

use moltbot_core::{Generation, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Profiles;

/// What sort of change it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ChangeKind {
    /// A credential was added or replaced.
    Login,
    /// A credential was removed.
    Remove,
    /// A profile got another id.
    Rename,
    /// The order of a provider's profiles was set or cleared.
    Order,
    /// A login was renewed; the generation before it is spent.
    Renewed,
    /// A credential was taken over from a file of an older version.
    Import,
    /// Earlier changes were undone.
    Undo,
    /// The service said that a login is spent; nothing was changed.
    Spent,
    /// A kind of a newer version.
    #[serde(other)]
    Unknown,
}

/// One change of one credential, or of one order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Counts the changes of a store, from 1.
    pub number: u64,
    /// The number of the first change of the same write; they are undone together.
    pub group: u64,
    /// When.
    pub at: Timestamp,
    /// By which command; empty if unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub command: String,
    /// By whom; unknown in logs of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<Who>,
    /// What sort.
    pub kind: ChangeKind,
    /// Which profile; for an order, of which provider.
    pub profile: String,
    /// The profile's new id, if it got one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The login before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Generation>,
    /// The login afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Generation>,
    /// The order before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_before: Option<Vec<String>>,
    /// The order afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_after: Option<Vec<String>>,
    /// The groups that it undid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undoes: Vec<u64>,
}

/// Who made a change, as the system knows it and nobody can forge it by a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The number of the user.
    pub uid: u32,
    /// The number of the process.
    pub pid: u32,
}

impl Who {
    /// Names this process.
    pub(crate) fn this_process() -> Self {
        Self { uid: rustix::process::getuid().as_raw(), pid: std::process::id() }
    }
}

/// What the log notes about a write beyond what the contents tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// By which command; without it, the one the store was made for.
    pub command: Option<String>,
    /// What the changes of credentials are, if not what the contents suggest.
    pub kind: Option<ChangeKind>,
    /// The groups that it undoes.
    pub undoes: Vec<u64>,
    /// Whether the secrets that it removes are gone at once, not kept for some days.
    pub purge: bool,
}

impl Cause {
    /// Makes the cause of a renewal.
    pub fn renewed() -> Self {
        Self { kind: Some(ChangeKind::Renewed), ..Self::default() }
    }
}

/// A line of the log.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    change: Option<Change>,
    /// Every change up to this number has come true, if not said otherwise before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settled: Option<u64>,
    /// The change of this number and those after it, up to here, never came true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    void: Option<u64>,
}

/// What was read of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    /// The changes that came true.
    pub(crate) settled: Vec<Change>,
    /// The last batch, of which the log does not say whether it came true.
    pub(crate) open: Vec<Change>,
    /// The highest number used.
    pub(crate) last: u64,
}

impl Log {
    /// Reads a log; lines that cannot be understood, such as a torn last one, are passed over.
    pub(crate) fn parse(text: &str) -> Self {
        let mut log = Self::default();
        for line in text.lines() {
            let Ok(line) = serde_json::from_str::<Line>(line) else { continue };
            if let Some(change) = line.change {
                // A new batch: who wrote it has judged the one before.
                if log.open.first().is_some_and(|open| open.group != change.group) {
                    log.settled.append(&mut log.open);
                }
                log.last = log.last.max(change.number);
                log.open.push(change);
            }
            if let Some(void) = line.void {
                log.open.retain(|change| change.number < void);
            }
            if line.settled.is_some() {
                log.settled.append(&mut log.open);
            }
        }
        log
    }

    /// Judges the last batch by the contents of the store.
    pub(crate) fn judge(mut self, profiles: &Profiles) -> Vec<Change> {
        if came_true(&self.open, profiles) {
            self.settled.append(&mut self.open);
        }
        self.settled
    }

    /// Returns the line that settles the last batch, if it is open.
    pub(crate) fn settling(&self, profiles: &Profiles) -> Option<String> {
        let first = self.open.first()?.number;
        Some(match came_true(&self.open, profiles) {
            true => settled_line(self.last),
            false => text_of(&Line { change: None, settled: None, void: Some(first) }),
        })
    }
}

/// Returns the text of a batch.
pub(crate) fn batch_text(batch: &[Change]) -> String {
    let line = |change: &Change| {
        text_of(&Line { change: Some(change.clone()), settled: None, void: None })
    };
    batch.iter().map(line).collect()
}

/// Returns the line that says that everything up to a number has come true.
pub(crate) fn settled_line(number: u64) -> String {
    text_of(&Line { change: None, settled: Some(number), void: None })
}

/// Finds out what a write changes; the numbers count on from `last`.
pub(crate) fn differences(
    base: &Profiles,
    new: &Profiles,
    imported: &[String],
    cause: &Cause,
    command: &str,
    at: Timestamp,
    last: u64,
) -> Vec<Change> {
    let command = cause.command.clone().unwrap_or_else(|| command.to_string());
    let blank = |kind: ChangeKind, profile: &str| Change {
        number: 0,
        group: last + 1,
        at,
        command: command.clone(),
        who: None,
        kind: cause.kind.unwrap_or(kind),
        profile: profile.to_string(),
        to: None,
        before: None,
        after: None,
        order_before: None,
        order_after: None,
        undoes: cause.undoes.clone(),
    };
    let of = |profiles: &Profiles, id: &str| profiles.get(id).map(Generation::of);
    let mut found = Vec::new();
    let mut renamed: BTreeSet<&str> = BTreeSet::new();
    for (id, _) in base.iter().filter(|(id, _)| !new.contains(id)) {
        let before = of(base, id);
        let to = new
            .iter()
            .map(|(to, _)| to)
            .find(|to| !base.contains(to) && !renamed.contains(to) && of(new, to) == before);
        let change = match to {
            Some(to) => {
                renamed.insert(to);
                let to = Some(to.to_string());
                Change { to, after: before.clone(), before, ..blank(ChangeKind::Rename, id) }
            }
            None => Change { before, ..blank(ChangeKind::Remove, id) },
        };
        found.push(change);
    }
    for (id, _) in new.iter().filter(|(id, _)| !renamed.contains(id)) {
        let (before, after) = (of(base, id), of(new, id));
        if before != after {
            let is_import = imported.iter().any(|imported| imported == id);
            let kind = if is_import { ChangeKind::Import } else { ChangeKind::Login };
            found.push(Change { before, after, ..blank(kind, id) });
        }
    }
    let providers: BTreeSet<&str> =
        base.orders().chain(new.orders()).map(|(provider, _)| provider).collect();
    for provider in providers {
        let order = |profiles: &Profiles| profiles.order(provider).map(<[String]>::to_vec);
        let (order_before, order_after) = (order(base), order(new));
        if order_before != order_after {
            let mut change = blank(ChangeKind::Order, provider);
            if cause.kind != Some(ChangeKind::Undo) {
                change.kind = ChangeKind::Order;
            }
            found.push(Change { order_before, order_after, ..change });
        }
    }
    for (change, number) in found.iter_mut().zip(last + 1..) {
        change.number = number;
    }
    found
}

/// Tells whether the contents are what a batch makes of them.
fn came_true(batch: &[Change], profiles: &Profiles) -> bool {
    batch.iter().all(|change| {
        let stored = |id: &str| profiles.get(id).map(Generation::of);
        let is_order = change.order_before.is_some() || change.order_after.is_some();
        match (&change.to, is_order, change.kind) {
            (_, true, _) => profiles.order(&change.profile) == change.order_after.as_deref(),
            (_, _, ChangeKind::Spent) => true,
            (Some(to), ..) => !profiles.contains(&change.profile) && stored(to) == change.after,
            (None, ..) => stored(&change.profile) == change.after,
        }
    })
}

fn text_of(line: &Line) -> String {
    let mut text = serde_json::to_string(line).expect("texts and numbers");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use moltbot_core::{Credential, Secret};

    const AT: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn with(entries: &[(&str, &str)]) -> Profiles {
        let mut profiles = Profiles::default();
        for (id, text) in entries {
            profiles.insert(*id, Credential::api_key("acme", Secret::new(*text)));
        }
        profiles
    }

    fn kinds(base: &Profiles, new: &Profiles) -> Vec<(ChangeKind, String, Option<String>)> {
        let found = differences(base, new, &[], &Cause::default(), "test", AT, 6);
        assert!(found.iter().zip(7..).all(|(change, n)| change.number == n && change.group == 7));
        found.into_iter().map(|change| (change.kind, change.profile, change.to)).collect()
    }

    #[test]
    fn differences_are_named() {
        use ChangeKind::{Login, Order, Remove, Rename};
        let base = with(&[("a:1", "A"), ("a:2", "B"), ("a:3", "C")]);
        let mut new = with(&[("a:1", "A"), ("a:9", "B"), ("a:4", "D")]);
        new.set_order("a", vec!["a:1".into()]);
        let wanted = [
            (Rename, "a:2".to_string(), Some("a:9".to_string())),
            (Remove, "a:3".into(), None),
            (Login, "a:4".into(), None),
            (Order, "a".into(), None),
        ];
        assert_eq!(kinds(&base, &new), wanted);
        assert!(kinds(&new, &new).is_empty());
        let replaced = with(&[("a:1", "A2"), ("a:2", "B"), ("a:3", "C")]);
        assert_eq!(kinds(&base, &replaced), [(Login, "a:1".into(), None)]);
        let mut used = base.clone();
        used.reward("a:1", None, AT, AT);
        assert!(kinds(&base, &used).is_empty(), "use is no change of a credential");
    }

    #[test]
    fn a_log_holds_no_secret_and_reads_back() {
        let base = with(&[("a:1", "SECRETA")]);
        let new = with(&[("a:1", "SECRETB"), ("a:2", "SECRETC")]);
        let batch = differences(&base, &new, &[], &Cause::default(), "models auth add", AT, 0);
        let text = batch_text(&batch);
        assert!(!text.contains("SECRET"), "{text}");
        assert!(text.contains("\"command\":\"models auth add\",\"kind\":\"login\""), "{text}");
        let log = Log::parse(&text);
        assert_eq!((log.open.clone(), log.last), (batch.clone(), 2));
        assert_eq!(log.clone().judge(&new), batch);
        assert!(log.clone().judge(&base).is_empty(), "its store never came");
        let settled = format!("{text}{}", log.settling(&new).unwrap());
        assert_eq!(Log::parse(&settled).judge(&base), batch, "settled for good");
        let void = format!("{text}{}", log.settling(&base).unwrap());
        assert!(Log::parse(&void).judge(&new).is_empty(), "void for good");
        assert_eq!(Log::parse(&void).last, 2, "numbers are not used again");
    }

    #[test]
    fn torn_and_foreign_lines_are_passed_over() {
        let batch = differences(
            &Profiles::default(),
            &with(&[("a:1", "A")]),
            &["a:1".into()],
            &Cause::default(),
            "",
            AT,
            0,
        );
        assert_eq!(batch[0].kind, ChangeKind::Import);
        let text = batch_text(&batch);
        let torn = format!("{{\"number\":\n\nnot json\n{text}{}", &text[..20]);
        assert_eq!(Log::parse(&torn).open, batch);
        let newer = text.replace("\"import\"", "\"teleport\"");
        assert_eq!(Log::parse(&newer).open[0].kind, ChangeKind::Unknown);
    }
}
