//! What is wrong with a configuration, as data, as text and as JSON.

use std::fmt;
use std::path::{Path, PathBuf};

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use moltbot_core::redact_shapes;
use serde_json::{Value, json};

use crate::keypath::{KeyPath, Step, is_deceptive};
use crate::source::{Source, looks_secret};

/// How many issues are kept; a file that is all wrong needs no more to say so.
const MAX_ISSUES: usize = 50;

/// Says what kind of problem an [`Issue`] is. The text of a code never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum IssueCode {
    /// The text is not JSON5.
    Syntax,
    /// A file cannot be read or written.
    Io,
    /// One key stands twice in one object.
    DuplicateKey,
    /// An `$include` is missing, circular, too deep or of the wrong type.
    Include,
    /// A `${NAME}` names a variable that is unset or empty.
    MissingVariable,
    /// A key is not in the schema.
    UnknownKey,
    /// A value has the wrong type.
    WrongType,
    /// A value has the right type but is out of range or not one of the choices.
    BadValue,
    /// A required key is missing.
    MissingKey,
    /// A key has moved since an older version; `doctor --fix` moves it.
    LegacyKey,
    /// Two agents share an id or a directory.
    AgentConflict,
    /// An edit cannot be made where the value stands.
    Edit,
    /// Another process holds the lock or changed the file.
    Busy,
}

impl IssueCode {
    /// All codes, for `explain`.
    pub const ALL: [Self; 13] = [
        Self::Syntax,
        Self::Io,
        Self::DuplicateKey,
        Self::Include,
        Self::MissingVariable,
        Self::UnknownKey,
        Self::WrongType,
        Self::BadValue,
        Self::MissingKey,
        Self::LegacyKey,
        Self::AgentConflict,
        Self::Edit,
        Self::Busy,
    ];

    /// Returns the stable name of the code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "config-syntax",
            Self::Io => "config-io",
            Self::DuplicateKey => "config-duplicate-key",
            Self::Include => "config-include",
            Self::MissingVariable => "config-missing-variable",
            Self::UnknownKey => "config-unknown-key",
            Self::WrongType => "config-wrong-type",
            Self::BadValue => "config-bad-value",
            Self::MissingKey => "config-missing-key",
            Self::LegacyKey => "config-legacy-key",
            Self::AgentConflict => "config-agent-conflict",
            Self::Edit => "config-edit",
            Self::Busy => "config-busy",
        }
    }

    /// Explains the code in a few sentences: what happened and what to do.
    pub const fn explain(self) -> &'static str {
        match self {
            Self::Syntax => {
                "The configuration is not valid JSON5. The position points at the first character \
                 that does not fit; the cause is often just before it: a missing comma, quote or \
                 bracket. Text must be in quotes, keys may go without."
            }
            Self::Io => {
                "A file of the configuration could not be read or written. The message names it \
                 and says why. Nothing was changed."
            }
            Self::DuplicateKey => {
                "One object has the same key twice, so that one of the two values would be lost \
                 without a word. Remove one of them."
            }
            Self::Include => {
                "An `$include` could not be followed. It takes a path, or a list of paths, \
                 relative to the file it stands in; files may include files up to ten deep, but \
                 never themselves."
            }
            Self::MissingVariable => {
                "A value says `${NAME}`, but no variable NAME is set in the environment, in .env \
                 or under `env` in the configuration. Set it, or write `$${NAME}` to mean the \
                 text itself."
            }
            Self::UnknownKey => {
                "A key is not part of the schema, so it would do nothing. Correct its spelling or \
                 remove it; `config schema` lists every key, `doctor --fix` removes unknown ones."
            }
            Self::WrongType => {
                "A value has another type than the schema asks for, for example text where a \
                 number is expected. `config schema` lists every key with its type."
            }
            Self::BadValue => {
                "A value has the right type but is not allowed: out of range, or not one of the \
                 choices that the message lists."
            }
            Self::MissingKey => "An object lacks a key that it must have. Add it.",
            Self::LegacyKey => {
                "A key comes from an older version and stands elsewhere today. `doctor --fix` \
                 moves it and keeps comments; the old file stays beside it as a backup."
            }
            Self::AgentConflict => {
                "Two agents have the same id or would keep their credentials in the same \
                 directory. Each agent needs its own."
            }
            Self::Edit => {
                "A change could not be made in the source text: the value comes from several \
                 files at once, or the path leads through something that is not an object. The \
                 message names the files; nothing was written."
            }
            Self::Busy => {
                "Another process is changing the configuration, or changed it meanwhile. Nothing \
                 was written; run the command again."
            }
        }
    }
}

/// One problem, with everything needed to find it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Issue {
    /// Kind of problem.
    pub code: IssueCode,
    /// Where in the document; empty for the whole.
    pub path: KeyPath,
    /// One sentence without a full stop and without any value from the file.
    pub message: String,
    /// The file it stands in: the main file or an included one.
    pub file: Option<PathBuf>,
    /// Line, from 1.
    pub line: Option<usize>,
    /// Column in characters, from 1.
    pub column: Option<usize>,
    /// The line with a caret below; every string value in it is masked.
    pub excerpt: Option<String>,
    /// What to do about it, for example the nearest known name.
    pub suggestion: Option<String>,
}

impl Issue {
    /// Makes an issue that stands in no file.
    pub fn new(code: IssueCode, path: KeyPath, message: impl Into<String>) -> Self {
        Self {
            code,
            path,
            message: message.into(),
            file: None,
            line: None,
            column: None,
            excerpt: None,
            suggestion: None,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_suggestion(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// Fills in file, line, column and excerpt for a span of `source`.
    pub(crate) fn stands_in(mut self, source: &Source, span: std::ops::Range<usize>) -> Self {
        let (line, column) = source.place(span.start);
        let (text, mut shown) = source.masked_line(span);
        shown.end = shown.end.max(shown.start);
        let title = Level::ERROR.primary_title("x").element(
            Snippet::source(text)
                .line_start(line)
                .fold(false)
                .annotation(AnnotationKind::Primary.span(shown)),
        );
        let rendered = Renderer::plain().decor_style(DecorStyle::Ascii).render(&[title]);
        // Keep the numbered line and the caret; title and position are ours to write.
        let body: Vec<&str> = rendered.lines().skip(1).collect();
        self.excerpt = Some(body.join("\n").trim_end().to_string());
        self.file = Some(source.path.clone());
        self.line = Some(line);
        self.column = Some(column);
        self
    }

    fn headline(&self) -> String {
        let (path, message) = (self.shown_path(), printable(&self.message));
        // Some fixed sentences end with the path already.
        if path.is_empty() || message.ends_with(&path) {
            message
        } else {
            format!("{path}: {message}")
        }
    }

    /// The path, without a key that is, or holds, a credential.
    fn shown_path(&self) -> String {
        let steps = self.path.steps().iter().map(|step| match step {
            Step::Key(key) if looks_secret(key) => Step::Key("sk-***".to_string()),
            step => step.clone(),
        });
        KeyPath::from(steps.collect::<Vec<_>>()).to_string()
    }

    fn json(&self) -> Value {
        json!({
            "path": self.shown_path(),
            "message": redact_shapes(&self.message),
            "code": self.code.as_str(),
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "suggestion": self.suggestion.as_deref().map(redact_shapes),
        })
    }
}

impl fmt::Display for Issue {
    /// Writes the headline, the position, the excerpt and the suggestion, without a line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.code.as_str(), self.headline())?;
        if let Some(file) = &self.file {
            write!(f, "\n --> {}", printable(&file.display().to_string()))?;
            if let (Some(line), Some(column)) = (self.line, self.column) {
                write!(f, ":{line}:{column}")?;
            }
        }
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n{}", redact_shapes(excerpt))?;
        }
        if let Some(suggestion) = &self.suggestion {
            write!(f, "\nhelp: {}", printable(suggestion))?;
        }
        Ok(())
    }
}

/// Says that a configuration cannot be used or cannot be changed; nothing was written.
///
/// Commands print it and exit with 1; only `doctor` and the commands that need no configuration go
/// on (spec C-16).
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigError {
    headline: String,
    file: PathBuf,
    issues: Vec<Issue>,
    left_out: usize,
}

impl ConfigError {
    /// Makes an error from issues found by someone else, such as a check of a plugin.
    pub fn invalid(file: &Path, issues: Vec<Issue>) -> Self {
        Self::with_headline(format!("Config invalid: {}", file.display()), file, issues)
    }

    pub(crate) fn rejected(file: &Path, issues: Vec<Issue>) -> Self {
        let first = issues.first().map(Issue::headline).unwrap_or_default();
        Self::with_headline(format!("Config validation failed: {first}"), file, issues)
    }

    pub(crate) fn unchanged(file: &Path, issue: Issue) -> Self {
        let headline = format!("Config not changed: {}", file.display());
        Self::with_headline(headline, file, vec![issue])
    }

    pub(crate) fn io(file: &Path, message: String) -> Self {
        Self::unchanged(file, Issue::new(IssueCode::Io, KeyPath::root(), message))
    }

    fn with_headline(headline: String, file: &Path, mut issues: Vec<Issue>) -> Self {
        let left_out = issues.len().saturating_sub(MAX_ISSUES);
        issues.truncate(MAX_ISSUES);
        Self { headline, file: file.to_path_buf(), issues, left_out }
    }

    /// Returns the main configuration file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns what is wrong, at least one issue, in the order of the text.
    pub fn issues(&self) -> &[Issue] {
        &self.issues
    }

    /// Tells whether every issue is one that `doctor --fix` repairs.
    pub fn is_repairable(&self) -> bool {
        let repairable = |code| matches!(code, IssueCode::LegacyKey | IssueCode::UnknownKey);
        self.left_out == 0 && self.issues.iter().all(|issue| repairable(issue.code))
    }

    /// Returns the machine-readable form: `{valid, file, issues: [{path, message, code, ...}]}`.
    pub fn to_json(&self) -> Value {
        json!({
            "valid": false,
            "file": self.file,
            "issues": self.issues.iter().map(Issue::json).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.headline))?;
        for issue in &self.issues {
            write!(f, "\n\n{issue}")?;
        }
        if self.left_out > 0 {
            write!(f, "\n\nand {} more", self.left_out)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Makes characters visible that could move or recolour what a terminal shows,
/// and hides what is shaped like a credential, whichever way it came into the sentence.
fn printable(text: &str) -> String {
    let text = redact_shapes(text);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_deceptive(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_explained() {
        let mut names: Vec<_> = IssueCode::ALL.iter().map(|code| code.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), IssueCode::ALL.len());
        assert!(IssueCode::ALL.iter().all(|code| code.explain().ends_with('.')));
    }

    #[test]
    fn text_and_json() {
        let source = Source {
            path: "/h/moltbot.json".into(),
            text: "{\n  auth: { order: 'FAKE' },\n}".into(),
            bom: false,
            parsed: true,
        };
        let at = source.text.find('\'').unwrap();
        let path = KeyPath::keys(["auth", "order"]);
        let issue = Issue::new(IssueCode::WrongType, path, "expected an object, got a string")
            .stands_in(&source, at..at + 6)
            .with_suggestion("x\u{1b}[31m");
        let error = ConfigError::invalid(Path::new("/h/moltbot.json"), vec![issue]);
        let text = "Config invalid: /h/moltbot.json\n\n\
             error[config-wrong-type]: auth.order: expected an object, got a string\n \
             --> /h/moltbot.json:2:18\n  \
             |\n2 |   auth: { order: '***' },\n  |                  ^^^^^\n\
             help: x\\u{1b}[31m";
        assert_eq!(error.to_string(), text);
        assert_eq!(error.to_json()["issues"][0]["line"], 2);
    }

    #[test]
    fn very_many_issues_are_cut() {
        let issue = Issue::new(IssueCode::UnknownKey, KeyPath::keys(["a"]), "unknown key");
        let error = ConfigError::invalid(Path::new("x"), vec![issue; 60]);
        assert!(error.to_string().ends_with("and 10 more"));
        assert!(!error.is_repairable());
    }
}
