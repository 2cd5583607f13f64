//! Where a person may be: what the host cannot do without knowing how it talks to its user.

use std::path::PathBuf;

use moltbot_core::{Field, HostError, Note, Secret, async_trait};

/// Asks, tells and shows; a terminal, a web page or nobody at all.
#[async_trait]
pub trait Front: Send + Sync {
    /// Tells whether a person is there to answer.
    fn interactive(&self) -> bool;

    /// Answers a question from a flag, a variable, a prompt or the field's default. `refused` says
    /// why the previous answer was not accepted.
    async fn ask(&self, field: &Field, refused: Option<&str>) -> Result<Answer, HostError>;

    /// Shows a note, already redacted.
    async fn tell(&self, note: &Note) -> Result<(), HostError>;

    /// Shows a page, HTTPS or on this machine.
    async fn open(&self, url: &str) -> Result<(), HostError>;

    /// Lets the user talk to a program; returns its exit code, `None` if a signal ended it.
    async fn run_on_terminal(&self, run: TerminalRun) -> Result<Option<i32>, HostError>;
}

/// An answer to a [`Field`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What was answered.
    pub value: Secret,
    /// Whether a person typed it.
    pub typed: bool,
}

/// A program to run with the terminal as its standard input and output.
#[derive(Clone, Debug)]
pub struct TerminalRun {
    /// Its absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment: the inherited one has to be cleared.
    pub env: Vec<(String, Secret)>,
    /// After how many milliseconds it is ended; `None` as long as it likes.
    pub timeout_ms: Option<u64>,
}

/// Nobody: questions fail, notes are dropped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

#[async_trait]
impl Front for Silent {
    fn interactive(&self) -> bool {
        false
    }

    async fn ask(&self, field: &Field, _refused: Option<&str>) -> Result<Answer, HostError> {
        if let Some(default) = &field.default {
            return Ok(Answer { value: Secret::new(default.as_ref()), typed: false });
        }
        Err(HostError::NotInteractive {
            label: field.label.to_string(),
            flag: field.flag.as_ref().map(ToString::to_string),
            env: field.env.as_ref().map(ToString::to_string),
        })
    }

    async fn tell(&self, _note: &Note) -> Result<(), HostError> {
        Ok(())
    }

    async fn open(&self, _url: &str) -> Result<(), HostError> {
        Err(HostError::Unsupported { what: "showing a page".into() })
    }

    async fn run_on_terminal(&self, _run: TerminalRun) -> Result<Option<i32>, HostError> {
        Err(HostError::Unsupported { what: "a terminal".into() })
    }
}
