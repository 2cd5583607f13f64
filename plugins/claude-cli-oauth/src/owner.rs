//! Looks where Claude Code keeps its login, and says in words what is there.

use moltbot_core::{AuthError, Credential, CredentialState, Cx, FileProblem, Run, Timestamp};

use crate::login_file::LoginFile;
use crate::offer;

/// What was found, and where.
pub(crate) struct Reading {
    pub(crate) file: LoginFile,
    /// Where `file` came from, for people.
    pub(crate) place: String,
    /// The path of the credential file, for people, wherever the login came from.
    pub(crate) path: String,
    /// Whether that file is a symbolic link.
    pub(crate) symlink: bool,
    /// Whether others may read that file.
    pub(crate) exposed: bool,
    /// Whether the Keychain might hold a login that was not asked for.
    pub(crate) keychain_skipped: bool,
}

/// Tells whether a question by the Keychain would find somebody to answer it (spec A-14).
pub(crate) fn may_ask_keychain(cx: &Cx<'_>) -> bool {
    cx.os == "macos" && cx.interactive
}

/// Reads the owner's login: the Keychain if allowed, else or without a login there the file.
pub(crate) async fn read(cx: &Cx<'_>, keychain: bool) -> Result<Reading, AuthError> {
    let kept = if keychain { read_keychain(cx).await? } else { LoginFile::Absent };
    let state = cx.read(offer::credential_file()).await?;
    let on_disk = match (&state.content, &state.problem) {
        (Some(content), _) => LoginFile::parse(content.expose()),
        (None, Some(FileProblem::Unreadable { reason })) => {
            LoginFile::Unreadable { reason: reason.clone() }
        }
        (None, _) => LoginFile::Absent,
    };
    let in_keychain = matches!(kept, LoginFile::Login(_))
        || (on_disk == LoginFile::Absent && kept != LoginFile::Absent);
    let (file, place) = if in_keychain {
        (kept, format!("the Keychain item \"{}\"", offer::KEYCHAIN_ITEM))
    } else {
        (on_disk, state.shown.clone())
    };
    Ok(Reading {
        file,
        place,
        path: state.shown,
        symlink: state.symlink,
        exposed: state.exposed,
        keychain_skipped: cx.os == "macos" && !keychain,
    })
}

/// Asks the macOS Keychain. Whatever goes wrong there, the file may still have the login.
async fn read_keychain(cx: &Cx<'_>) -> Result<LoginFile, AuthError> {
    let run = Run {
        program: offer::KEYCHAIN_PROGRAM.into(),
        args: ["find-generic-password", "-s", offer::KEYCHAIN_ITEM, "-w"].map(Into::into).into(),
        env: Vec::new(),
        input: None,
        terminal: false,
        timeout_ms: Some(5_000),
    };
    match cx.run(run).await {
        Ok(ran) if ran.exit == Some(0) && !ran.stdout.is_blank() => {
            Ok(LoginFile::parse(ran.stdout.expose().trim()))
        }
        Err(AuthError::Cancelled {}) => Err(AuthError::Cancelled {}),
        _ => Ok(LoginFile::Absent),
    }
}

impl Reading {
    /// Says whether it can be used now.
    pub(crate) fn state(&self, now: Timestamp) -> CredentialState {
        match &self.file {
            LoginFile::Login(login) if login.is_expired(now) => CredentialState::Expired,
            LoginFile::Login(_) => CredentialState::Ready,
            LoginFile::LoggedOut => CredentialState::LoggedOut,
            LoginFile::Stub | LoginFile::Absent => CredentialState::Absent,
            LoginFile::Torn { .. } | LoginFile::Foreign { .. } | LoginFile::Unreadable { .. } => {
                CredentialState::Unreadable
            }
        }
    }

    /// Says what is there, in one clause.
    pub(crate) fn words(&self, now: Timestamp) -> String {
        let place = &self.place;
        match &self.file {
            LoginFile::Login(login) if !login.is_expired(now) => {
                format!(
                    "the Claude Code login in {place} is good for another {}",
                    span(login.expires.since(now))
                )
            }
            LoginFile::Login(login) => {
                let since = span(now.since(login.expires));
                let lacking = if login.renewable { "" } else { " and has no refresh token" };
                format!("the Claude Code login in {place} expired {since} ago{lacking}")
            }
            LoginFile::LoggedOut => {
                format!("Claude Code is logged out: {place} holds empty tokens")
            }
            LoginFile::Stub => format!("{place} holds no Claude Code login"),
            LoginFile::Absent if self.keychain_skipped => format!(
                "there is no {place}, and the Keychain was not asked because nobody is there to approve it"
            ),
            LoginFile::Absent => format!("there is no {place}"),
            LoginFile::Torn { line, column } => {
                format!("{place} is cut off or no JSON (line {line}, column {column})")
            }
            LoginFile::Foreign { what } => {
                format!("{place} is not as Claude Code writes it: {what}")
            }
            LoginFile::Unreadable { reason } => format!("{place} cannot be read: {reason}"),
        }
    }

    /// Words the error of a login that found nothing (spec L-14).
    pub(crate) fn missing(&self, cx: &Cx<'_>) -> String {
        let subject = "No Claude Code CLI credentials found";
        match &self.file {
            LoginFile::Absent if cx.os == "macos" && !cx.interactive => format!(
                "{subject}. Run interactive onboarding to approve Keychain access for \"{}\".",
                offer::KEYCHAIN_ITEM
            ),
            LoginFile::Absent => format!("{subject} at {}", self.path),
            _ => format!("{subject} at {}: {}", self.path, self.words(cx.now)),
        }
    }

    /// Lists what is odd about the file, whatever is in it.
    pub(crate) fn remarks(&self) -> impl Iterator<Item = String> {
        let symlink = self.symlink.then(|| format!("{} is a symbolic link", self.path));
        let exposed = self.exposed.then(|| format!("{} can be read by other users", self.path));
        symlink.into_iter().chain(exposed)
    }

    /// Tells whether the owner's login is at least as new as a stored copy (decision 5).
    pub(crate) fn supersedes(&self, copy: &Credential) -> bool {
        match &self.file {
            LoginFile::Login(login) => copy.expiry().is_none_or(|expires| login.expires >= expires),
            _ => false,
        }
    }

    /// Says why a stored copy is not replaced.
    pub(crate) fn why_not_newer(&self, now: Timestamp) -> String {
        match &self.file {
            LoginFile::Login(_) => format!("the login in {} is older", self.place),
            _ => self.words(now),
        }
    }
}

/// Writes a time span with one unit, rounded down and at least one minute.
fn span(ms: i64) -> String {
    match ms / 60_000 {
        minutes if minutes < 60 => format!("{} min", minutes.max(1)),
        minutes if minutes < 48 * 60 => format!("{} h", minutes / 60),
        minutes => format!("{} days", minutes / (24 * 60)),
    }
}
