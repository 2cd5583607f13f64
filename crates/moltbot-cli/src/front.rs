//! Answers the questions of auth methods: from flags, the environment, standard input, or a person.

use std::io::{self, IsTerminal};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use moltbot_core::{Field, FieldKind, HostError, Level, Note, Secret, Text, async_trait, mask};
use moltbot_gateway::{Answer, Front, TerminalRun};

use crate::out::clean;
use crate::prompt::{self, Choice, Quiet};

/// What is known before the first question, and who may be asked.
#[derive(Default)]
pub(crate) struct Answers {
    /// Answers of flags, by field id.
    pub(crate) given: Vec<(Text, Secret)>,
    /// Values of the variables that fields name.
    pub(crate) env: Vec<(String, Secret)>,
    /// What was piped in: the answer of the first secret field that has no other.
    pub(crate) piped: Option<Secret>,
    /// Whether a person is there and may be asked.
    pub(crate) ask: bool,
}

/// The front of the command line.
struct TerminalFront {
    answers: Answers,
    piped: Mutex<Option<Secret>>,
}

/// Makes a front that knows no answer, and asks a person if there is one.
pub fn terminal() -> Arc<dyn Front> {
    let ask = io::stdin().is_terminal() && io::stderr().is_terminal();
    with(Answers { ask, ..Answers::default() })
}

/// Makes a front that knows these answers.
pub(crate) fn with(mut answers: Answers) -> Arc<dyn Front> {
    let piped = Mutex::new(answers.piped.take());
    Arc::new(TerminalFront { answers, piped })
}

#[async_trait]
impl Front for TerminalFront {
    fn interactive(&self) -> bool {
        self.answers.ask
    }

    async fn ask(&self, field: &Field, refused: Option<&str>) -> Result<Answer, HostError> {
        if refused.is_none()
            && let Some(value) = self.known(field)?
        {
            return Ok(Answer { value, typed: false });
        }
        // An empty default marks a question that only a flag answers.
        let optional = field.default.as_deref() == Some("");
        if !self.answers.ask || optional {
            return match &field.default {
                Some(default) => Ok(Answer { value: Secret::new(default.as_ref()), typed: false }),
                None => Err(HostError::NotInteractive {
                    label: field.label.to_string(),
                    flag: field.flag.as_ref().map(ToString::to_string),
                    env: field.env.as_ref().map(ToString::to_string),
                }),
            };
        }
        if let Some(refused) = refused {
            prompt::error(&clean(refused)).map_err(from_io)?;
        }
        let value = ask_person(field).map_err(from_io)?;
        Ok(Answer { value, typed: true })
    }

    async fn tell(&self, note: &Note) -> Result<(), HostError> {
        let text = clean(&note.text);
        match note.level {
            Level::Info => eprintln!("{text}"),
            Level::Warning => eprintln!("warning: {text}"),
            Level::Error => eprintln!("error: {text}"),
        }
        Ok(())
    }

    async fn open(&self, url: &str) -> Result<(), HostError> {
        eprintln!("Open this page: {}", clean(url));
        if !self.answers.ask {
            return Ok(());
        }
        let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
        // Without a browser the printed address is enough.
        let _ = tokio::process::Command::new(opener)
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Ok(())
    }

    async fn run_on_terminal(&self, run: TerminalRun) -> Result<Option<i32>, HostError> {
        if !self.answers.ask {
            return Err(HostError::Unsupported { what: "a program on the terminal".to_string() });
        }
        Quiet::aloud(run_program(run)).await
    }
}

/// Runs a program that shares the terminal, to its end.
async fn run_program(run: TerminalRun) -> Result<Option<i32>, HostError> {
    let shown = run.program.display().to_string();
    let mut child = tokio::process::Command::new(&run.program)
        .args(&run.args)
        .env_clear()
        .envs(run.env.iter().map(|(name, value)| (name, value.expose())))
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => HostError::NotFound { what: shown.clone() },
            _ => HostError::Other { message: format!("{shown} cannot be started: {error}") },
        })?;
    let ended = match run.timeout_ms {
        Some(ms) => tokio::time::timeout(Duration::from_millis(ms), child.wait())
            .await
            .map_err(|_| HostError::Timeout { ms })?,
        None => child.wait().await,
    };
    match ended {
        Ok(status) => Ok(status.code()),
        Err(error) => Err(HostError::Other { message: format!("{shown} is lost: {error}") }),
    }
}

impl TerminalFront {
    /// Finds an answer that needs nobody: flag, environment (confirmed by a person if there is
    /// one, spec L-12), standard input.
    fn known(&self, field: &Field) -> Result<Option<Secret>, HostError> {
        if let Some((_, value)) = self.answers.given.iter().find(|(id, _)| *id == field.id) {
            return Ok(Some(value.clone()));
        }
        let env = field.env.as_ref().and_then(|name| {
            self.answers.env.iter().find(|(known, value)| known == name && !value.is_blank())
        });
        if let Some((name, value)) = env {
            let preview = mask(value.expose());
            let question = format!("Use existing {name} (env, {preview})?");
            if !self.answers.ask || prompt::confirm(&question, true).map_err(from_io)? {
                return Ok(Some(value.clone()));
            }
        }
        if matches!(field.kind, FieldKind::Secret {}) {
            return Ok(self.piped.lock().expect("no panic while held").take());
        }
        Ok(None)
    }
}

fn ask_person(field: &Field) -> io::Result<Secret> {
    let label = field.label.as_ref();
    let default = field.default.as_deref();
    match &field.kind {
        FieldKind::Secret {} => prompt::secret(label).map(Secret::new),
        FieldKind::Confirm {} => {
            let yes = prompt::confirm(label, default.is_none_or(|text| text == "true"))?;
            Ok(Secret::new(yes.to_string()))
        }
        FieldKind::Select { options } => {
            let choices: Vec<Choice<Text>> = options
                .iter()
                .map(|option| Choice {
                    value: option.value.clone(),
                    label: option.label.to_string(),
                    hint: String::new(),
                })
                .collect();
            let initial = options.iter().map(|o| &o.value).find(|v| Some(v.as_ref()) == default);
            prompt::select(label, &choices, initial).map(|value| Secret::new(value.as_ref()))
        }
        _ => prompt::text(label, default).map(Secret::new),
    }
}

/// Turns Ctrl-C at a prompt into a cancelled login.
fn from_io(error: io::Error) -> HostError {
    match error.kind() {
        io::ErrorKind::Interrupted => HostError::Cancelled {},
        _ => HostError::Other { message: format!("the terminal failed: {error}") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(kind: FieldKind) -> Field {
        Field {
            id: "key".into(),
            flag: Some("acme-key".into()),
            env: Some("ACME_KEY".into()),
            label: "Acme key".into(),
            kind,
            ..Field::default()
        }
    }

    fn ask(answers: Answers, field: &Field, refused: Option<&str>) -> Result<Answer, HostError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(with(answers).ask(field, refused))
    }

    #[test]
    fn flag_beats_env_beats_pipe() {
        let secret = |text: &str| Secret::new(text);
        let all = || Answers {
            given: vec![("key".into(), secret("flag"))],
            env: vec![("ACME_KEY".into(), secret("env"))],
            piped: Some(secret("pipe")),
            ..Answers::default()
        };
        let key = field(FieldKind::Secret {});
        let value = |answers| ask(answers, &key, None).unwrap().value;
        assert_eq!(value(all()).expose(), "flag");
        assert_eq!(value(Answers { given: vec![], ..all() }).expose(), "env");
        let piped = Answers { given: vec![], env: vec![], ..all() };
        assert_eq!(value(piped).expose(), "pipe");
    }

    #[test]
    fn without_anybody_the_error_names_flag_and_variable() {
        let error = ask(Answers::default(), &field(FieldKind::Secret {}), None).err().unwrap();
        assert_eq!(error.to_string(), "Acme key is missing: pass --acme-key or set ACME_KEY");
    }

    #[test]
    fn a_default_answers_when_nobody_can_be_asked() {
        let field = Field { default: Some("365d".into()), ..field(FieldKind::Duration {}) };
        let answer = ask(Answers::default(), &field, None).unwrap();
        assert_eq!((answer.value.expose(), answer.typed), ("365d", false));
    }

    #[test]
    fn a_refused_flag_is_not_offered_again() {
        let given = vec![("key".into(), Secret::new("bad"))];
        let answers = Answers { given, ..Answers::default() };
        assert!(ask(answers, &field(FieldKind::Secret {}), Some("too short")).is_err());
    }
}
