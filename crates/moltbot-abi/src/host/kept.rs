//! What plugins said about themselves, kept for the next start, which then neither loads nor spawns
//! them until something of them is called.
//!
//! One small file for each plugin file, named after its sum, beside the crash marks. It is a
//! convenience and never more: it is looked at after the plugin's file was found to be the one that
//! the config trusts; whatever is odd about it makes it as good as missing; and it goes through the
//! same checks as what a plugin says now.

use std::collections::BTreeMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use moltbot_core::{Offer, ProviderInfo, redact_shapes};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::trust::hex;
use super::{Carried, Kind, Pin, Place, private_dir};
use crate::wire::encode;
use crate::{ABI, Hello};

/// The most that one description may take, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// How the files of descriptions end.
const SUFFIX: &str = ".described.json";

/// How the files begin that are still being written.
const UNFINISHED: &str = ".describing-";

/// The answers of one method, by the sum of the question.
type Answers = BTreeMap<String, Vec<Offer>>;

/// What is in one file, and what its methods offer to the providers that were asked about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Description {
    /// What one version of the host understands another may not.
    host: Host,
    /// The plugin's file; a description under another name is nobody's.
    sha256: String,
    /// How it ran when it was asked.
    kind: String,
    /// Whether a panic in it can be caught.
    pub(crate) unwinds: bool,
    /// What it said first, with all that it was asked for later.
    pub(crate) hello: Hello,
    /// By the id of the method.
    offers: BTreeMap<String, Answers>,
}

/// The host that asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Host {
    core: String,
    abi: u32,
    features: Vec<String>,
}

impl Host {
    fn this() -> Self {
        let Hello { core, features, .. } = Hello::ours();
        Self { core, abi: ABI, features }
    }
}

/// One file that was opened, or whose description was found.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) sha256: String,
    pub(crate) kind: Kind,
    /// Whether what it says depends on the file alone, so that it may be kept.
    pub(crate) lasting: bool,
    pub(crate) unwinds: bool,
    pub(crate) hello: Hello,
    /// What was kept of it.
    pub(crate) kept: Option<Description>,
}

impl Origin {
    /// Finds what one of its methods is known to offer to a provider.
    pub(crate) fn offers(&self, method: &str, provider: &ProviderInfo) -> Option<Vec<Offer>> {
        let answers = self.kept.as_ref()?.offers.get(method)?;
        answers.get(&question(provider)).cloned()
    }
}

/// Tells whether a guest says what it is known to have said. What it leaves to be asked later is
/// not compared.
pub(crate) fn agrees(known: &Hello, mut said: Hello) -> bool {
    for (said, known) in said.plugins.iter_mut().zip(&known.plugins) {
        if said.infos.is_empty() {
            said.infos.clone_from(&known.infos);
        }
        if said.settings.is_empty() {
            said.settings.clone_from(&known.settings);
        }
    }
    said == *known
}

/// Tells whether there may be a description; [`read`] says whether it can be used.
pub(crate) fn is_there(dir: &Path, sha256: &str) -> bool {
    let digits = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits && name(dir, &sha256.to_ascii_lowercase()).symlink_metadata().is_ok()
}

/// Reads what is kept of a file with this sum, if it can be used.
pub(crate) fn read(dir: &Path, sha256: &str, kind: Kind) -> Option<Description> {
    let me = rustix::process::geteuid().as_raw();
    let text = private_text(dir, &name(dir, sha256), me)?;
    let known: Description = serde_json::from_slice(&text).ok()?;
    let mine = known.host == Host::this() && known.sha256 == sha256 && known.kind == word(kind);
    (mine && !known.hello.plugins.is_empty()).then_some(known)
}

/// Keeps what these plugins said about themselves, where that is more than is kept already. Call it
/// when they were asked what the program wants to know at every start.
///
/// Nothing depends on it: what cannot be written is asked again.
pub fn keep<'a>(all: impl IntoIterator<Item = &'a Carried>, place: &Place) {
    let mut origins: Vec<(&Arc<Origin>, Vec<&Carried>)> = Vec::new();
    for one in all {
        match origins.iter_mut().find(|(origin, _)| Arc::ptr_eq(origin, one.origin())) {
            Some((_, plugins)) => plugins.push(one),
            None => origins.push((one.origin(), vec![one])),
        }
    }
    for (origin, plugins) in origins {
        let nothing_new = origin.kept.is_some() && !plugins.iter().any(|plugin| plugin.has_news());
        if !origin.lasting || nothing_new {
            continue;
        }
        let now = describe(origin, &plugins);
        if origin.kept.as_ref() != Some(&now) {
            let _ = write(&place.dir, &now);
        }
    }
}

/// Removes what is kept of files that are not among `pins`, and what killed hosts left of it.
pub fn forget_others(pins: &[Pin], place: &Place) {
    let Ok(entries) = std::fs::read_dir(&place.dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(text) = name.to_str() else { continue };
        let listed = |sum: &str| pins.iter().any(|pin| pin.sha256.eq_ignore_ascii_case(sum));
        let other = text.strip_suffix(SUFFIX).is_some_and(|sum| !listed(sum));
        if other || text.starts_with(UNFINISHED) && nobody_writes(&entry.path()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Removes what is kept of one file.
pub(crate) fn forget(dir: &Path, sha256: &str) {
    let _ = std::fs::remove_file(name(dir, sha256));
}

/// Puts together what is known by now. Answers of earlier starts that nobody asked for this time
/// are left out, so that it does not grow for ever.
fn describe(origin: &Origin, plugins: &[&Carried]) -> Description {
    let mut hello = origin.hello.clone();
    for described in &mut hello.plugins {
        let Some(plugin) = plugins.iter().find(|one| one.plugin().id == described.id) else {
            continue;
        };
        if described.infos.len() != described.providers.len() {
            described.infos = plugin.plugin().providers.iter().map(|it| it.info()).collect();
        }
        if described.settings.len() != described.methods.len() {
            described.settings = plugin.known_settings().unwrap_or_default();
        }
    }
    let mut offers: BTreeMap<String, Answers> = BTreeMap::new();
    for (method, provider, answer) in plugins.iter().flat_map(|plugin| plugin.known_offers()) {
        offers.entry(method).or_default().insert(question(&provider), answer);
    }
    Description {
        host: Host::this(),
        sha256: origin.sha256.clone(),
        kind: word(origin.kind).to_string(),
        unwinds: origin.unwinds,
        hello,
        offers,
    }
}

/// Writes a description, whole or not at all.
fn write(dir: &Path, description: &Description) -> io::Result<()> {
    let text = serde_json::to_string(description)?;
    // Nobody gives a plugin a secret when it describes itself, but a library could have looked for
    // one. Without blanks, because the word after "bearer" in a label is none.
    let words = text.replace(' ', "\n");
    if text.len() as u64 > MAX_BYTES || redact_shapes(&words) != words {
        return Ok(());
    }
    private_dir(dir)?;
    let only_mine = std::fs::Permissions::from_mode(0o600);
    let mut file = tempfile::Builder::new();
    let mut file = file.prefix(UNFINISHED).permissions(only_mine).tempfile_in(dir)?;
    // Without locks in this file system it may be taken for a dead host's, and is written next time.
    let _ = file.as_file().try_lock();
    file.write_all(text.as_bytes())?;
    file.persist(name(dir, &description.sha256))?;
    Ok(())
}

/// Reads a file that nobody but `me` can have written.
fn private_text(dir: &Path, path: &Path, me: u32) -> Option<Vec<u8>> {
    let above = dir.symlink_metadata().ok()?;
    if !above.is_dir() || above.uid() != me || above.mode() & 0o022 != 0 {
        return None;
    }
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path).ok()?;
    let found = file.metadata().ok()?;
    // A second name may be one that somebody else gave to another file of this user. There is none
    // if it was just replaced.
    let private = |found: &Metadata| found.uid() == me && found.mode() & 0o077 == 0;
    if !found.is_file() || !private(&found) || found.nlink() > 1 || found.len() > MAX_BYTES {
        return None;
    }
    let mut text = Vec::with_capacity(found.len() as usize + 1);
    file.take(MAX_BYTES).read_to_end(&mut text).ok()?;
    Some(text)
}

fn nobody_writes(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock().is_ok())
}

fn name(dir: &Path, sha256: &str) -> PathBuf {
    dir.join(format!("{sha256}{SUFFIX}"))
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Library => "library",
        Kind::Process => "process",
    }
}

/// Names the question what is offered to a provider: all that the answer may depend on.
fn question(provider: &ProviderInfo) -> String {
    hex(&Sha256::digest(&*encode(provider)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Described;

    fn sum() -> String {
        "ab".repeat(32)
    }

    fn description(about: &str) -> Description {
        let plugin = Described {
            id: "acme".into(),
            version: "1.0.0".into(),
            about: about.into(),
            methods: vec!["acme".into()],
            ..Described::default()
        };
        let offer = Offer { choice: "acme".into(), ..Offer::default() };
        let answers = Answers::from([(question(&ProviderInfo::default()), vec![offer])]);
        Description {
            host: Host::this(),
            sha256: sum(),
            kind: "library".into(),
            unwinds: true,
            hello: Hello { plugins: vec![plugin], ..Hello::ours() },
            offers: [("acme".to_string(), answers)].into(),
        }
    }

    fn change(path: &Path, mode: u32, change: impl Fn(&mut serde_json::Value)) {
        let mut value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        change(&mut value);
        std::fs::write(path, value.to_string()).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_written_is_read_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let dir = &dir.path().join("state");
        assert!(!is_there(dir, &sum()));
        write(dir, &description("first")).unwrap();
        write(dir, &description("second")).unwrap();
        assert!(is_there(dir, &sum().to_uppercase()));
        assert_eq!(read(dir, &sum(), Kind::Library), Some(description("second")));
        assert_eq!(name(dir, &sum()).metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1, "nothing unfinished is left");
        assert_eq!(read(dir, &sum(), Kind::Process), None, "it ran in another way");
    }

    #[test]
    fn a_sum_of_the_config_names_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        let dir = &dir.path().join("state");
        write(dir, &description("")).unwrap();
        for odd in ["", "../state/", "ab", &format!("../state/{}", sum()), &"é".repeat(32)] {
            assert!(!is_there(dir, odd), "{odd}");
        }
    }

    /// Whatever is odd about it, it is as good as missing.
    #[test]
    fn what_is_odd_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("state");
        let path = name(&dir, &sum());
        let used = || read(&dir, &sum(), Kind::Library).is_some();
        let fresh = || write(&dir, &description("")).unwrap();
        fresh();
        change(&path, 0o600, |_| {});
        assert!(used(), "the same words written by somebody else are the same");
        for mode in [0o640, 0o604, 0o666] {
            change(&path, 0o600, |_| {});
            change(&path, mode, |_| {});
            assert!(!used(), "{mode:o}");
            std::fs::remove_file(&path).unwrap();
            fresh();
        }
        type Change = fn(&mut serde_json::Value);
        let changes: [Change; 8] = [
            |value| value["host"]["core"] = "9.9.9".into(),
            |value| value["host"]["abi"] = 2.into(),
            |value| value["host"]["features"] = serde_json::json!(["auth"]),
            |value| value["sha256"] = "cd".repeat(32).into(),
            |value| value["kind"] = "process".into(),
            |value| value["hello"]["plugins"] = serde_json::json!([]),
            |value| value["hello"]["plugins"][0]["id"] = 7.into(),
            |value| *value = serde_json::json!([]),
        ];
        for (n, odd) in changes.into_iter().enumerate() {
            change(&path, 0o600, odd);
            assert!(!used(), "change {n}");
            fresh();
        }
        let text = std::fs::read(&path).unwrap();
        for garbage in
            [&b""[..], b"{", &text[..text.len() / 2], &vec![b' '; MAX_BYTES as usize + 1]]
        {
            std::fs::write(&path, garbage).unwrap();
            assert!(!used(), "{} bytes", garbage.len());
        }
        fresh();
        std::fs::hard_link(&path, dir.join("other")).unwrap();
        assert!(!used(), "somebody gave it a second name");
        std::fs::remove_file(dir.join("other")).unwrap();
        assert!(used());
        std::fs::rename(&path, dir.join("other")).unwrap();
        std::os::unix::fs::symlink(dir.join("other"), &path).unwrap();
        assert!(!used(), "a link");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(!used(), "a directory");
    }

    #[test]
    fn what_others_could_have_written_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let dir = &dir.path().join("state");
        write(dir, &description("")).unwrap();
        let me = rustix::process::geteuid().as_raw();
        let text = |me| private_text(dir, &name(dir, &sum()), me);
        assert!(text(me).is_some());
        assert!(text(me + 1).is_none(), "it belongs to somebody else");
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o770)).unwrap();
        assert!(text(me).is_none(), "the directory is not this user's alone");
        write(dir, &description("")).unwrap();
        assert!(text(me).is_some(), "whoever writes takes it back");
    }

    #[test]
    fn what_looks_like_a_secret_or_has_no_end_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        for about in ["sk-ant-api03-FAKEFAKEFAKEFAKE", &"x".repeat(MAX_BYTES as usize)] {
            write(dir.path(), &description(about)).unwrap();
            assert!(!is_there(dir.path(), &sum()));
        }
        write(dir.path(), &description("a bearer token, or a key that begins with sk-ant-"))
            .unwrap();
        assert!(is_there(dir.path(), &sum()));
    }

    #[test]
    fn only_what_is_listed_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path().to_path_buf(), &[]);
        write(&place.dir, &description("")).unwrap();
        let left = dir.path().join(format!("{UNFINISHED}left"));
        std::fs::write(&left, "{").unwrap();
        let writing = dir.path().join(format!("{UNFINISHED}now"));
        let held = File::create(&writing).unwrap();
        held.lock().unwrap();
        let pin = Pin {
            path: "/x".into(),
            sha256: sum().to_uppercase(),
            kind: Kind::Library,
            allow_abort: false,
        };
        forget_others(&[pin], &place);
        assert!(is_there(&place.dir, &sum()) && !left.exists() && writing.exists());
        forget_others(&[], &place);
        assert!(!is_there(&place.dir, &sum()));
    }

    #[test]
    fn a_guest_agrees_with_what_it_left_to_be_asked() {
        let known = description("").hello;
        let mut filled = known.clone();
        filled.plugins[0].infos = vec![ProviderInfo::default()];
        filled.plugins[0].settings = vec![None];
        assert!(agrees(&filled, known.clone()) && agrees(&filled, filled.clone()));
        let other = description("other").hello;
        assert!(!agrees(&known, other));
        assert!(!agrees(&known, Hello { plugins: Vec::new(), ..known.clone() }));
    }

    /// Writers and readers at once: every reader finds one whole description or another.
    #[test]
    fn hosts_that_start_at_once_do_not_disturb_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path().join("state"), &[]);
        write(&place.dir, &description("0")).unwrap();
        std::thread::scope(|scope| {
            for n in 0..4 {
                let place = &place;
                scope.spawn(move || {
                    for _ in 0..50 {
                        // Another one may sweep the unfinished file; then it is not written.
                        let _ = write(&place.dir, &description(&n.to_string()));
                        let found = read(&place.dir, &sum(), Kind::Library);
                        assert_eq!(found.map(|it| it.hello.plugins.len()), Some(1));
                        let pin = Pin {
                            path: "/x".into(),
                            sha256: sum(),
                            kind: Kind::Library,
                            allow_abort: false,
                        };
                        forget_others(&[pin], place);
                    }
                });
            }
        });
        let left = std::fs::read_dir(&place.dir).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}
