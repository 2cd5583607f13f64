//! Why a command ended without success: message, hint, code and exit code.

use moltbot_config::{ConfigError, IssueCode};
use moltbot_core::{AuthError, Text};
use moltbot_gateway::{ChatError, ModelError};
use moltbot_profiles::StoreError;

/// How a command ends that did what it was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exit(pub u8);

impl Exit {
    /// Everything went well.
    pub const OK: Self = Self(0);
    /// It was done, and the answer is "no" (`models status --check`, `doctor`).
    pub const NO: Self = Self(1);
    /// The user stopped it.
    pub const CANCELLED: Self = Self(130);
}

/// What a command returns.
pub type Outcome = Result<Exit, Failure>;

/// A command's failure, printed once, by [`run`](crate::run), on standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// One sentence: what happened, with what. No full stop.
    pub message: String,
    /// What became of each credential or model, one line each: name, cause, until when.
    pub details: Box<[String]>,
    /// What to do about it.
    pub hint: Option<String>,
    /// The command that mends it.
    pub mend: Option<String>,
    /// The page of `moltbot explain`.
    pub code: Option<Text>,
    /// The process's exit code; 1 unless the spec says otherwise.
    pub exit: u8,
    /// Whether the message is complete as it stands: no `Error: ` before it, nothing replaced in
    /// it. For texts composed here, of parts that were masked already.
    pub verbatim: bool,
}

impl Failure {
    /// Makes a failure with exit code 1 and the code `system`: something outside refused. Whoever
    /// knows better says so with [`Failure::code`].
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            details: Box::default(),
            hint: None,
            mend: None,
            code: Some("system".into()),
            exit: 1,
            verbatim: false,
        }
    }

    /// Makes a failure about what the user typed: code `input`.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(message).code("input")
    }

    /// Makes the failure of a user who stopped.
    pub fn cancelled() -> Self {
        Self::new("Cancelled, nothing was changed").code("cancelled").exit(130)
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the page that explains it.
    #[must_use]
    pub fn code(mut self, code: impl Into<Text>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Sets another exit code than 1.
    #[must_use]
    pub fn exit(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// Adds the command that mends it.
    #[must_use]
    pub fn mend(mut self, command: impl Into<String>) -> Self {
        self.mend = Some(command.into());
        self
    }

    /// Prints the message as it stands, without `Error: ` before it and without a page.
    #[must_use]
    pub fn verbatim(mut self) -> Self {
        self.verbatim = true;
        self.code = None;
        self
    }
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        let message = error.to_string();
        match error {
            AuthError::Cancelled {} => Self::cancelled(),
            AuthError::LoginAgain { reason, hint } => {
                Self::new(reason).hint(hint).code("login-needed")
            }
            AuthError::Transient { .. } => Self::new(message).code("network"),
            AuthError::Invalid { .. } => Self::input(message),
            AuthError::NotFound { .. } => Self::new(message).code("no-credential"),
            AuthError::NotInteractive { .. } => Self::new(message).code("not-interactive"),
            AuthError::Plugin { .. } => Self::new(message).code("plugin-failed"),
            _ => Self::new(message).code("plugin-failed"),
        }
    }
}

impl From<ConfigError> for Failure {
    /// The text of spec C-16: the file, the issues with their places, and where to go from here.
    fn from(error: ConfigError) -> Self {
        let failure = Self::new(error.to_string()).verbatim();
        let own = |code| matches!(code, IssueCode::Edit | IssueCode::Busy | IssueCode::Io);
        match error.issues().first() {
            // Nothing is wrong with the text, hence nothing to repair.
            Some(issue) if own(issue.code) => failure.code(issue.code.as_str()),
            _ if error.is_repairable() => {
                failure.hint("`moltbot doctor --fix` repairs all of it").code("config-invalid")
            }
            _ => failure
                .hint(
                    "correct the places shown; `moltbot doctor --fix` repairs old and unknown keys",
                )
                .code("config-invalid"),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let code = error.code();
        Self::new(error.to_string()).code(code)
    }
}

impl From<ChatError> for Failure {
    fn from(error: ChatError) -> Self {
        crate::why::failure(&error)
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        let code = error.code();
        Self::new(error.to_string()).code(code)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auth_errors_keep_their_words_and_codes() {
        let error = AuthError::LoginAgain { reason: "spent".into(), hint: "log in".into() };
        let failure = Failure::from(error);
        assert_eq!(failure.message, "spent");
        assert_eq!(failure.hint.as_deref(), Some("log in"));
        assert_eq!(failure.code.as_deref(), Some("login-needed"));
        assert_eq!(Failure::from(AuthError::Cancelled {}).exit, 130);
    }

    #[test]
    fn every_code_used_here_has_a_page() {
        let errors = [
            AuthError::Cancelled {},
            AuthError::Transient { reason: String::new() },
            AuthError::Invalid { field: String::new(), reason: String::new() },
            AuthError::NotFound { message: String::new() },
            AuthError::NotInteractive { label: String::new(), flag: None, env: None },
            AuthError::Plugin { message: String::new() },
        ];
        for error in errors {
            let code = Failure::from(error).code.unwrap();
            assert!(moltbot_core::CODES.iter().any(|page| page.id == code), "{code}");
        }
    }
}
