//! The pipeline from files to a checked configuration (spec C-12).
//!
//! JSON5 > `$include` > `${NAME}` > legacy keys > strict schema > agents > `~`. Syntax and include
//! problems end it; all later steps report together.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::document::{Document, Overlay};
use crate::env::{Env, ShellImport};
use crate::issue::{ConfigError, Issue, IssueCode};
use crate::keypath::{KeyPath, Step};
use crate::paths::{AgentId, Paths, expand_tilde};
use crate::schema::{self, Config, Extensions, ModeMigration, Shaped as _, UNCHECKED_SECTIONS};
use crate::tree::{Node, Span, What};
use crate::{legacy, subst};

/// Everything that loading depends on besides the files themselves.
#[derive(Clone, Copy)]
pub struct LoadInput<'a> {
    /// Where the configuration and the agents are.
    pub paths: &'a Paths,
    /// The environment without a layer for the configuration, which loading adds.
    pub env: &'a Env,
    /// What plugins add to the schema.
    pub extensions: &'a Extensions,
    /// The version of this program, for the warning about newer files.
    pub version: &'a str,
}

/// A configuration that passed every check.
#[derive(Clone)]
#[non_exhaustive]
pub struct Loaded {
    /// The typed form, with secrets wrapped.
    pub config: Config,
    /// The environment with the variables that the configuration sets.
    pub env: Env,
    /// What is worth saying and no error.
    pub notes: Vec<Note>,
    /// The files it consists of, the main one first; empty if there is none.
    pub files: Vec<PathBuf>,
    value: Value,
    source: Value,
    tree: Node,
    document: std::sync::Arc<Document>,
    pub(crate) pending: Vec<ModeMigration>,
}

/// Something about a valid configuration that its owner may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What kind of note.
    pub kind: NoteKind,
    /// One sentence.
    pub message: String,
}

/// The kind of a [`Note`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NoteKind {
    /// Sections that this program does not use.
    UncheckedSections,
    /// `plugins.load.paths` is for plugins of the original program.
    IgnoredPluginPaths,
    /// A newer version wrote the file.
    NewerVersion,
    /// A mode was rewritten in memory; the next write keeps it.
    RewrittenMode,
    /// A variable is unset in a section that is not used.
    UnsetVariable,
    /// A key has moved, in a section that is not used.
    Legacy,
}

/// Loads the configuration; a missing file is an empty configuration.
///
/// # Errors
///
/// A [`ConfigError`] lists every problem with file, line, column and key path.
pub fn load(input: &LoadInput<'_>) -> Result<Loaded, ConfigError> {
    load_with(input, &Overlay::new())
}

/// Tells whether the login shell should be asked for variables before loading (spec C-11).
///
/// It looks at the environment and at `env.shellEnv` only; whatever else is wrong with the file is
/// left to [`load`].
pub fn shell_import(input: &LoadInput<'_>) -> Option<ShellImport> {
    let file = input.paths.config_file();
    let document = may_say(file, b"shellEnv")
        .then(|| Document::read(file, input.paths.home(), &Overlay::new()).ok())
        .flatten();
    let setting = |name: &str| {
        let path = KeyPath::keys(["env", "shellEnv", name]);
        document.as_ref()?.merged.find(&path).map(|node| node.to_value())
    };
    let enabled = setting("enabled").and_then(|value| value.as_bool());
    let timeout = setting("timeoutMs").and_then(|value| u32::try_from(value.as_u64()?).ok());
    ShellImport::wanted(input.env, enabled, timeout)
}

/// Tells whether a file may have a key of that name, in itself or in what it includes; a look at
/// the text is much quicker than to read it.
fn may_say(file: &Path, key: &[u8]) -> bool {
    let text = std::fs::read(file).unwrap_or_default();
    let has = |word: &[u8]| text.windows(word.len()).any(|window| window == word);
    has(key) || has(b"$include") || has(b"\\")
}

pub(crate) fn load_with(input: &LoadInput<'_>, overlay: &Overlay) -> Result<Loaded, ConfigError> {
    let main = input.paths.config_file();
    let document = Document::read(main, input.paths.home(), overlay)?;
    let mut run = Run { input, document: &document, issues: Vec::new(), notes: Vec::new() };

    let source = document.merged.to_value();
    let env = subst::with_config_layer(input.env, &document.merged);
    let mut tree = document.merged.clone();
    run.substitute(&mut tree, &env);
    let legacy = run.legacy(&tree);
    let pending = run.rewrite_modes(&mut tree);
    let strict = legacy::without(&tree, &legacy);
    for problem in schema::check(&strict, &Config::SHAPE, input.extensions) {
        let mut issue = Issue::new(problem.code, problem.path, problem.message);
        issue.suggestion = problem.suggestion;
        run.report(issue, problem.span);
    }
    run.agents(&strict);
    run.notes(&strict);
    expand_paths(&mut tree, input.paths.home());
    let Run { issues, notes, .. } = run;
    if !issues.is_empty() {
        return Err(ConfigError::invalid(main, in_text_order(issues)));
    }
    let value = tree.to_value();
    // A test keeps table and types together, so this cannot fail; if it did, a sentence is better
    // than a panic, and the message of `serde` names types, not values.
    let config = serde_json::from_value(value.clone()).map_err(|_| {
        let message = "the checked configuration could not be read; please report this";
        ConfigError::invalid(main, vec![Issue::new(IssueCode::WrongType, KeyPath::root(), message)])
    })?;
    let files = if document.exists {
        document.sources.iter().map(|source| source.path.clone()).collect()
    } else {
        Vec::new()
    };
    let document = std::sync::Arc::new(document);
    Ok(Loaded { config, env, notes, files, value, source, tree, document, pending })
}

impl Loaded {
    /// Returns the whole document with variables replaced and paths expanded, secrets in clear.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Returns the whole document with includes followed and `${NAME}` as it was written.
    pub fn source_value(&self) -> &Value {
        &self.source
    }

    /// Makes an issue that points at a key, for checks that other crates do; the file, line and
    /// excerpt are filled in. Where the key is absent it points at the object around it.
    pub fn issue(&self, code: IssueCode, path: KeyPath, message: impl Into<String>) -> Issue {
        let mut span = self.tree.caret();
        let mut node = &self.tree;
        for step in path.steps() {
            let Some(next) = node.step(step) else { break };
            span = next.caret();
            node = next;
        }
        self.document.issue(Issue::new(code, path, message), span)
    }
}

/// Shows no value: the document holds secrets.
impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("files", &self.files)
            .field("notes", &self.notes)
            .field("env", &self.env)
            .finish_non_exhaustive()
    }
}

/// One pass through the pipeline, collecting what it finds.
struct Run<'a> {
    input: &'a LoadInput<'a>,
    document: &'a Document,
    issues: Vec<Issue>,
    notes: Vec<Note>,
}

impl Run<'_> {
    fn report(&mut self, issue: Issue, span: Span) {
        let issue = self.document.issue(issue, span);
        self.issues.push(issue);
    }

    fn note(&mut self, kind: NoteKind, message: String) {
        // A note may name keys, and a key may be a credential in the wrong place.
        let message = moltbot_core::redact_shapes(&message).into_owned();
        self.notes.push(Note { kind, message });
    }

    fn substitute(&mut self, tree: &mut Node, env: &Env) {
        let mut unused: Vec<String> = Vec::new();
        for missing in subst::substitute_all(tree, env) {
            let section = missing.path.steps().first();
            if matches!(section, Some(Step::Key(k)) if UNCHECKED_SECTIONS.contains(&k.as_str())) {
                unused.push(format!("{} at {}", missing.name, missing.path));
                continue;
            }
            let message = format!(
                "Missing env var \"{}\" referenced at config path: {}",
                missing.name, missing.path
            );
            // The sentence holds the path already.
            let mut issue = Issue::new(IssueCode::MissingVariable, missing.path, message);
            issue.suggestion = Some(format!(
                "set {name}, or write $${{{name}}} to mean the text itself",
                name = missing.name
            ));
            self.report(issue, missing.span);
        }
        if !unused.is_empty() {
            let message = format!("variables that are not set: {}", unused.join(", "));
            self.note(NoteKind::UnsetVariable, message);
        }
    }

    fn legacy(&mut self, tree: &Node) -> Vec<legacy::Legacy> {
        let found = legacy::find(tree);
        for legacy in &found {
            if legacy.unchecked {
                let message =
                    format!("{}: {}; `doctor --fix` moves it", legacy.path, legacy.message);
                self.note(NoteKind::Legacy, message);
                continue;
            }
            let message = format!("legacy key, {}", legacy.message);
            let issue = Issue::new(IssueCode::LegacyKey, legacy.path.clone(), message)
                .with_suggestion("`doctor --fix` moves it");
            self.report(issue, legacy.span);
        }
        found
    }

    /// Rewrites modes that plugins call outdated (spec C-33), in memory.
    fn rewrite_modes(&mut self, tree: &mut Node) -> Vec<ModeMigration> {
        let mut pending = Vec::new();
        for migration in &self.input.extensions.modes {
            let keys = ["auth", "profiles", migration.profile.as_str(), "mode"];
            let Some(node) = find_mut(tree, &keys) else { continue };
            if node.text() == Some(&migration.from) && migration.from != migration.to {
                node.what = What::Text(migration.to.clone());
                pending.push(migration.clone());
            }
        }
        for migration in &pending {
            self.note(NoteKind::RewrittenMode, migration.change());
        }
        pending
    }

    /// Two agents must not share an id or a directory (spec C-6).
    fn agents(&mut self, tree: &Node) {
        let list = KeyPath::keys(["agents", "list"]);
        let Some(What::List(items)) = tree.find(&list).map(|node| &node.what) else { return };
        let mut ids: HashMap<AgentId, usize> = HashMap::new();
        let mut dirs: HashMap<PathBuf, usize> = HashMap::new();
        for (at, item) in items.iter().enumerate() {
            let Some(id_node) = item.get("id") else { continue };
            let Some(id) = id_node.text().filter(|text| !text.trim().is_empty()) else { continue };
            let id = AgentId::normalize(id);
            if let Some(first) = ids.get(&id) {
                let message = format!("agent \"{id}\" stands already at {}", list.index(*first));
                let path = list.index(at).key("id");
                self.report(Issue::new(IssueCode::AgentConflict, path, message), id_node.span);
                continue;
            }
            let configured = item.get("agentDir");
            let text = configured.and_then(Node::text);
            let dir = self.input.paths.agent_dir(&id, text.filter(|text| !text.trim().is_empty()));
            if let Some(first) = dirs.get(&dir) {
                let message = format!(
                    "agent \"{id}\" would share its directory {} with {}",
                    self.input.paths.display(&dir),
                    list.index(*first)
                );
                let path = list.index(at).key(if configured.is_some() { "agentDir" } else { "id" });
                let span = configured.unwrap_or(id_node).span;
                let issue = Issue::new(IssueCode::AgentConflict, path, message)
                    .with_suggestion("give each agent an `agentDir` of its own");
                self.report(issue, span);
                continue;
            }
            ids.insert(id, at);
            dirs.insert(dir, at);
        }
    }

    fn notes(&mut self, tree: &Node) {
        let What::Map(members) = &tree.what else { return };
        let unused: Vec<&str> = members
            .iter()
            .map(|member| member.name.as_str())
            .filter(|name| UNCHECKED_SECTIONS.contains(name) && *name != "$schema")
            .collect();
        if !unused.is_empty() {
            let message = format!("kept, but not used by moltbot: {}", unused.join(", "));
            self.note(NoteKind::UncheckedSections, message);
        }
        if tree.find(&KeyPath::keys(["plugins", "load", "paths"])).is_some() {
            let message = "plugins.load.paths is ignored: it names plugins of the original \
                           program; see `plugins.trusted`";
            self.note(NoteKind::IgnoredPluginPaths, message.to_string());
        }
        let written = tree.find(&KeyPath::keys(["meta", "lastTouchedVersion"]));
        if let Some(version) = written.and_then(Node::text)
            && is_newer(version, self.input.version)
        {
            let message = format!(
                "the configuration was written by moltbot {}, which is newer than this one ({})",
                version.escape_debug(),
                self.input.version
            );
            self.note(NoteKind::NewerVersion, message);
        }
    }
}

impl ModeMigration {
    /// Says what the migration changes (spec C-33).
    pub fn change(&self) -> String {
        format!("Updated auth.profiles[\"{}\"].mode → \"{}\".", self.profile, self.to)
    }
}

fn find_mut<'n>(node: &'n mut Node, keys: &[&str]) -> Option<&'n mut Node> {
    keys.iter().try_fold(node, |node, key| match &mut node.what {
        What::Map(members) => {
            members.iter_mut().find(|member| member.name == *key).map(|member| &mut member.value)
        }
        _ => None,
    })
}

/// Expands `~` in texts whose key says that they are paths.
fn expand_paths(tree: &mut Node, home: &Path) {
    const ENDINGS: [&str; 6] = ["dir", "path", "paths", "file", "root", "workspace"];
    tree.each_text(&KeyPath::root(), &mut |path, _, text| {
        let key = path.steps().iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(key.to_lowercase()),
            Step::Index(_) => None,
        });
        let names_a_path = key.is_some_and(|key| ENDINGS.iter().any(|end| key.ends_with(end)));
        if let Some(expanded) = expand_tilde(text, home).filter(|_| names_a_path) {
            *text = expanded;
        }
    });
}

/// Orders issues as a reader meets them: by file, then by position.
fn in_text_order(mut issues: Vec<Issue>) -> Vec<Issue> {
    let mut files: Vec<PathBuf> = Vec::new();
    for file in issues.iter().filter_map(|issue| issue.file.as_ref()) {
        if !files.contains(file) {
            files.push(file.clone());
        }
    }
    issues.sort_by_key(|issue| {
        let file = issue.file.as_ref().and_then(|file| files.iter().position(|f| f == file));
        (file, issue.line, issue.column)
    });
    issues
}

/// Compares two versions by their numbers. A version that begins with a year belongs to the
/// original program and says nothing about ours.
fn is_newer(theirs: &str, ours: &str) -> bool {
    let numbers = |version: &str| -> Vec<u64> {
        let numeric = version.split(['-', '+']).next().unwrap_or_default();
        numeric.trim_start_matches('v').split('.').map_while(|part| part.parse().ok()).collect()
    };
    let (theirs, ours) = (numbers(theirs), numbers(ours));
    let is_year = |version: &[u64]| version.first().is_some_and(|first| *first >= 2000);
    !theirs.is_empty() && is_year(&theirs) == is_year(&ours) && theirs > ours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert!(is_newer("0.2.0", "0.1.9"));
        assert!(is_newer("v1.0", "0.9.9"));
        assert!(!is_newer("0.1.0", "0.1.0"));
        assert!(!is_newer("2026.1.24-3", "0.1.0"));
        assert!(!is_newer("", "0.1.0"));
        assert!(!is_newer("beta", "0.1.0"));
    }
}
