//! Changing the configuration in its source text (spec C-29 to C-33).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cst;
use crate::document::{Document, Overlay};
use crate::issue::{ConfigError, Issue, IssueCode};
use crate::keypath::{KeyPath, Step};
use crate::legacy::{self, Move};
use crate::load::{LoadInput, Loaded, load_with};
use crate::locate::{Spot, Unclear};
use crate::source::io_sentence;
use crate::tree::What;
use crate::write::{self, Lock};

/// A change in progress. It holds the lock; dropping it changes nothing.
///
/// The files are edited as text: comments, order, quotes, includes and `${NAME}` survive. A key
/// that stands in an included file is changed there. Nothing is written before the whole result
/// has passed every check.
pub struct Editor<'a> {
    input: LoadInput<'a>,
    document: Document,
    overlay: Overlay,
    original: BTreeMap<PathBuf, Option<Vec<u8>>>,
    changes: Vec<String>,
    _lock: Lock,
}

/// What a commit did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Changed {
    /// The files that were written; empty if there was nothing to change.
    pub files: Vec<PathBuf>,
    /// Changes beyond those asked for, each a sentence to print.
    pub changes: Vec<String>,
    /// The configuration as it is now.
    pub loaded: Loaded,
}

/// Marks who wrote a file and when; the caller has the clock and the version.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// For `meta.lastTouchedVersion`.
    pub version: &'a str,
    /// For `meta.lastTouchedAt`, as ISO 8601.
    pub now: &'a str,
}

impl<'a> Editor<'a> {
    /// Takes the lock, waiting up to `timeout_ms`, and reads the files.
    ///
    /// The configuration may break the schema, so that `doctor` can repair it, but it must parse.
    ///
    /// # Errors
    ///
    /// Code `config-busy` if another process holds the lock, `config-io` if a file cannot be
    /// reached, else what is wrong with the text.
    pub fn open(input: LoadInput<'a>, timeout_ms: u64) -> Result<Self, ConfigError> {
        let main = input.paths.config_file();
        let target = write::real_target(main)
            .map_err(|error| ConfigError::io(main, io_sentence("write", main, &error)))?;
        let lock = Lock::acquire(&target, timeout_ms)?;
        let document = Document::read(main, input.paths.home(), &Overlay::new())?;
        let original = document
            .real
            .iter()
            .zip(&document.sources)
            .enumerate()
            .map(|(file, (real, source))| {
                let exists = file > 0 || document.exists;
                (real.clone(), exists.then(|| bytes(source.bom, &source.text)))
            })
            .collect();
        let overlay = Overlay::new();
        Ok(Self { input, document, overlay, original, changes: Vec::new(), _lock: lock })
    }

    /// Returns a value as it is written, includes followed and `${NAME}` kept.
    pub fn get(&self, path: &KeyPath) -> Option<Value> {
        self.document.merged.find(path).map(|node| node.to_value())
    }

    /// Sets a value, making the objects on the way to it.
    ///
    /// # Errors
    ///
    /// Code `config-edit` if the value is made up of several files, or if something that is not an
    /// object stands on the way.
    pub fn set(&mut self, path: &KeyPath, value: &Value) -> Result<(), ConfigError> {
        if path.steps().is_empty() {
            return Err(self.refuse(path, "the whole document cannot be set at once".into()));
        }
        if self.get(path).as_ref() == Some(value) {
            return Ok(());
        }
        let scalar = !(value.is_object() || value.is_array());
        let spot = self.document.place_to_write(path, scalar).map_err(|u| self.unclear(path, u))?;
        let text = cst::set(&self.document.sources[spot.file].text, &spot.steps, value);
        self.apply(path, spot.file, text)
    }

    /// Puts a value in front of the others of an array.
    ///
    /// # Errors
    ///
    /// As [`Editor::set`].
    pub fn prepend(&mut self, path: &KeyPath, value: &Value) -> Result<(), ConfigError> {
        let spot = self.document.place_to_write(path, false).map_err(|u| self.unclear(path, u))?;
        let text = cst::prepend(&self.document.sources[spot.file].text, &spot.steps, value);
        self.apply(path, spot.file, text)
    }

    /// Removes a value; returns whether there was one.
    ///
    /// # Errors
    ///
    /// Code `config-edit` if several files define it.
    pub fn unset(&mut self, path: &KeyPath) -> Result<bool, ConfigError> {
        if path.steps().is_empty() {
            return Err(self.refuse(path, "the whole document cannot be removed".into()));
        }
        let place = self.document.place_to_remove(path).map_err(|u| self.unclear(path, u))?;
        let Some(spot) = place else { return Ok(false) };
        if spot.steps.is_empty() {
            let file = self.shown(spot.file);
            let message = format!("it is the whole of {file}; remove the `$include` instead");
            return Err(self.refuse(path, message));
        }
        let text = cst::unset(&self.document.sources[spot.file].text, &spot.steps);
        self.apply(path, spot.file, text)?;
        Ok(true)
    }

    /// Moves keys of older versions to where they stand today; returns what was done, one sentence
    /// each. What has no place today, or whose place is taken, stays.
    ///
    /// # Errors
    ///
    /// As [`Editor::set`].
    pub fn migrate(&mut self) -> Result<Vec<String>, ConfigError> {
        let mut done = Vec::new();
        for legacy in legacy::find(&self.document.merged) {
            for step in legacy.moves {
                match self.make_move(step) {
                    Ok(sentences) => done.extend(sentences),
                    // The new place is taken or spread over files: the old key stays and is
                    // reported when the result is checked.
                    Err(error) if error.issues().iter().all(|i| i.code == IssueCode::Edit) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(done)
    }

    /// Repairs what can be repaired without asking: moves legacy keys and removes unknown ones.
    /// Returns what was done, one sentence each; the rest shows when committing.
    ///
    /// # Errors
    ///
    /// As [`Editor::set`].
    pub fn repair(&mut self) -> Result<Vec<String>, ConfigError> {
        let mut done = self.migrate()?;
        // Removing a key can bring no new unknown one, but an array element moves its neighbours.
        while let Err(error) = load_with(&self.input, &self.overlay) {
            let unknown = error.issues().iter().rev().find(|i| i.code == IssueCode::UnknownKey);
            let Some(path) = unknown.map(|issue| issue.path.clone()) else { break };
            if !self.unset(&path)? {
                break;
            }
            done.push(format!("Removed {path}."));
        }
        Ok(done)
    }

    /// Checks the result and writes every changed file: backups rotated, new contents put in place
    /// in one step each, mode 0600. Without a change nothing is written.
    ///
    /// # Errors
    ///
    /// Whatever [`crate::load()`] finds wrong with the result; `config-busy` if a file changed on
    /// disk meanwhile; `config-io` if it cannot be written.
    pub fn commit(mut self, stamp: Stamp<'_>) -> Result<Changed, ConfigError> {
        let main = self.input.paths.config_file().to_path_buf();
        let rejected = |error: ConfigError| ConfigError::rejected(&main, error.issues().to_vec());
        if self.overlay.is_empty() {
            let loaded = load_with(&self.input, &self.overlay).map_err(rejected)?;
            return Ok(Changed { files: Vec::new(), changes: Vec::new(), loaded });
        }
        let loaded = load_with(&self.input, &self.overlay).map_err(rejected)?;
        for migration in &loaded.pending {
            let path = KeyPath::keys(["auth", "profiles", migration.profile.as_str(), "mode"]);
            self.set(&path, &Value::from(migration.to.as_str()))?;
            self.changes.push(migration.change());
        }
        let meta = KeyPath::keys(["meta"]);
        self.set(&meta.key("lastTouchedVersion"), &Value::from(stamp.version))?;
        self.set(&meta.key("lastTouchedAt"), &Value::from(stamp.now))?;
        let loaded = load_with(&self.input, &self.overlay).map_err(rejected)?;
        let files = self.write()?;
        Ok(Changed { files, changes: self.changes, loaded })
    }

    fn write(&self) -> Result<Vec<PathBuf>, ConfigError> {
        let main = self.input.paths.config_file();
        let fail = |path: &Path, error: &std::io::Error| {
            ConfigError::io(main, io_sentence("write", path, error))
        };
        let mut staged = Vec::new();
        for (file, real) in self.document.real.iter().enumerate() {
            let Some(text) = self.overlay.get(real) else { continue };
            let previous = self.original.get(real).cloned().flatten();
            let on_disk = match std::fs::read(real) {
                Ok(bytes) => Some(bytes),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => return Err(fail(real, &error)),
            };
            if on_disk != previous {
                let message = format!("{} was changed by someone else meanwhile", real.display());
                let issue = Issue::new(IssueCode::Busy, KeyPath::root(), message)
                    .with_suggestion("run the command again");
                return Err(ConfigError::unchanged(main, issue));
            }
            let contents = bytes(self.document.sources[file].bom, text);
            let stage = write::stage(real, &contents, previous.as_deref());
            staged.push((real.clone(), stage.map_err(|error| fail(real, &error))?));
        }
        let mut files = Vec::new();
        for (real, stage) in staged {
            stage.commit().map_err(|error| fail(&real, &error))?;
            files.push(real);
        }
        Ok(files)
    }

    fn make_move(&mut self, step: Move) -> Result<Vec<String>, ConfigError> {
        let mut done = Vec::new();
        match step {
            Move::Value { from, to } => {
                if self.get(&to).is_none() && self.relocate(&from, &to)? {
                    done.push(format!("Moved {from} → {to}."));
                }
            }
            Move::Turn { from, to } => {
                for (to, value) in &to {
                    if self.get(to).is_none() {
                        self.set(to, value)?;
                        done.push(format!("Moved {from} → {to}."));
                    }
                }
                self.unset(&from)?;
            }
            Move::Drop { from } => {
                let empty = |value: Value| value.as_object().is_some_and(|map| map.is_empty());
                if self.get(&from).is_some_and(empty) {
                    self.unset(&from)?;
                }
            }
        }
        Ok(done)
    }

    /// Moves a value within its file as it is written, else as a value.
    fn relocate(&mut self, from: &KeyPath, to: &KeyPath) -> Result<bool, ConfigError> {
        let Some(value) = self.get(from) else { return Ok(false) };
        let source = self.document.place_to_remove(from).map_err(|u| self.unclear(from, u))?;
        let Some(source) = source else { return Ok(false) };
        let scalar = !(value.is_object() || value.is_array());
        let target = self.document.place_to_write(to, scalar).map_err(|u| self.unclear(to, u))?;
        let in_property = matches!(source.steps.last(), Some(Step::Key(_)));
        if target.file == source.file && in_property && !self.holds_includes(&source) {
            let text = &self.document.sources[source.file].text;
            let text = cst::relocate(text, &source.steps, &target.steps);
            self.apply(to, source.file, text)?;
        } else {
            self.set(to, &value)?;
            self.unset(from)?;
        }
        Ok(true)
    }

    /// A moved `$include` keeps its meaning only in the same directory, which it is: same file.
    /// But an object that is spread over files cannot be moved as text.
    fn holds_includes(&self, spot: &Spot) -> bool {
        let path = KeyPath::from(spot.steps.clone());
        let node = self.document.trees[spot.file].find(&path);
        node.is_some_and(
            |node| matches!(&node.what, What::Map(m) if m.iter().any(|m| m.name == "$include")),
        )
    }

    fn apply(
        &mut self,
        path: &KeyPath,
        file: usize,
        text: Result<String, String>,
    ) -> Result<(), ConfigError> {
        let text = text.map_err(|message| self.refuse(path, message))?;
        if text == self.document.sources[file].text {
            return Ok(());
        }
        let real = self.document.real[file].clone();
        self.overlay.insert(real, text);
        let main = self.input.paths.config_file();
        let mut document = Document::read(main, self.input.paths.home(), &self.overlay)?;
        for (file, source) in document.sources.iter_mut().enumerate() {
            // An unsaved text has no byte order mark; the file on disk may.
            let original = self.original.get(&document.real[file]).cloned().flatten();
            source.bom |= original.is_some_and(|bytes| bytes.starts_with("\u{feff}".as_bytes()));
        }
        self.document = document;
        Ok(())
    }

    fn refuse(&self, path: &KeyPath, message: String) -> ConfigError {
        self.unchanged(Issue::new(IssueCode::Edit, path.clone(), message))
    }

    pub(crate) fn unchanged(&self, issue: Issue) -> ConfigError {
        ConfigError::unchanged(self.input.paths.config_file(), issue)
    }

    fn unclear(&self, path: &KeyPath, unclear: Unclear) -> ConfigError {
        let message = match unclear {
            Unclear::Several(files) => {
                let files: Vec<String> = files.into_iter().map(|file| self.shown(file)).collect();
                format!("several files make up this value: {}; edit them by hand", files.join(", "))
            }
            Unclear::Blocked(file) => {
                format!("a value that is not an object stands on the way, in {}", self.shown(file))
            }
        };
        self.refuse(path, message)
    }

    fn shown(&self, file: usize) -> String {
        self.document.sources[file].path.display().to_string()
    }
}

fn bytes(bom: bool, text: &str) -> Vec<u8> {
    let mark = if bom { "\u{feff}" } else { "" };
    [mark.as_bytes(), text.as_bytes()].concat()
}
