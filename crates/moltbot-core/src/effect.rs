//! What a plugin may ask of the host: a plugin decides, the host does.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

use crate::{Expose, Exposed, Secret, Timestamp};

/// Text that a plugin usually has as a literal and that is owned after crossing a boundary.
pub type Text = Cow<'static, str>;

/// One question, asked as a flag, an environment variable, a prompt or a form: they are one thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Field {
    /// Names the answer inside its offer: `key`.
    pub id: Text,
    /// The long flag without dashes: `acme-api-key`. Without one the field can only be
    /// prompted for or piped.
    pub flag: Option<Text>,
    /// The environment variable that answers it.
    pub env: Option<Text>,
    /// The answer if nobody gives one. A field with a default never fails as unanswered.
    pub default: Option<Text>,
    /// The prompt, and the flag's help.
    pub label: Text,
    /// What an answer looks like.
    pub kind: FieldKind,
}

impl Default for Field {
    fn default() -> Self {
        Self {
            id: Text::Borrowed(""),
            flag: None,
            env: None,
            default: None,
            label: Text::Borrowed(""),
            kind: FieldKind::Text {},
        }
    }
}

/// Says what an answer looks like, hence how it is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
#[non_exhaustive]
pub enum FieldKind {
    /// Never shown while typed; flags of this kind also take `-` (stdin) and have a `-file` twin.
    Secret {},
    /// A line of text.
    Text {},
    /// A duration such as `365d` (spec L-4).
    Duration {},
    /// Yes or no; answered `true` or `false`.
    Confirm {},
    /// One of several values.
    Select {
        /// What can be chosen, in the order shown.
        options: Vec<SelectOption>,
    },
    /// A kind of a newer version; the host answers `Unsupported`.
    #[serde(other)]
    Unknown,
}

/// One line of a [`FieldKind::Select`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelectOption {
    /// The answer.
    pub value: Text,
    /// The line shown.
    pub label: Text,
}

/// Something that only the host can do. The host refuses what the offer's `needs` do not cover.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "effect", rename_all = "camelCase")]
#[non_exhaustive]
pub enum Effect {
    /// Asks a question; answered with [`Reply::Answer`].
    Ask {
        /// The question.
        field: Field,
        /// Why the previous answer was refused; shown before asking again.
        #[serde(default)]
        refused: Option<Text>,
    },
    /// Sends one HTTP request, without following redirects; answered with [`Reply::Http`].
    Http {
        /// The request.
        request: HttpRequest,
    },
    /// Reads the clock; answered with [`Reply::Now`].
    Now {},
    /// Shows the user a page, in a browser if there is one; answered with [`Reply::Done`].
    Open {
        /// The address.
        url: String,
    },
    /// Reads or writes one entry of the operating system's keyring; answered with
    /// [`Reply::Kept`]. A host without a keyring answers [`HostError::Unsupported`].
    Keyring {
        /// Which entry.
        entry: KeyringEntry,
        /// What to write there; nothing reads it.
        #[serde(default)]
        put: Option<Secret>,
    },
    /// Reads one file of at most 1 MiB; answered with [`Reply::File`], absent files included.
    Read {
        /// Which file.
        file: FileRef,
    },
    /// Runs a program to its end; answered with [`Reply::Ran`].
    Run {
        /// Which program, and how.
        run: Run,
    },
    /// Tells the user something; answered with [`Reply::Done`].
    Tell {
        /// What to say.
        note: Note,
    },
    /// An effect of a newer version; the host answers [`HostError::Unsupported`].
    #[serde(other)]
    Unknown,
}

/// What the host answers to an [`Effect`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "reply", rename_all = "camelCase")]
#[non_exhaustive]
pub enum Reply {
    /// To `Ask`.
    Answer {
        /// The answer, not yet checked by the plugin.
        value: Secret,
        /// Whether a person typed it, so that asking again makes sense.
        #[serde(default)]
        typed: bool,
    },
    /// To `Http`.
    Http {
        /// The response.
        response: HttpReply,
    },
    /// To `Now`.
    Now {
        /// The host's clock.
        now: Timestamp,
    },
    /// To `Read`.
    File {
        /// The file as found.
        file: FileState,
    },
    /// To `Run`.
    Ran {
        /// How it ended.
        ran: Ran,
    },
    /// To `Keyring`.
    Kept {
        /// What the entry holds now; `None` if there is no such entry.
        #[serde(default)]
        secret: Option<Secret>,
    },
    /// To `Open` and `Tell`.
    Done {},
    /// A reply of a newer version.
    #[serde(other)]
    Unknown,
}

/// An HTTP request that a plugin wants sent. Bodies and header values may hold secrets.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct HttpRequest {
    /// `GET`, `POST`, …
    pub method: Text,
    /// Absolute: HTTPS, or HTTP to loopback; anything else is [`HostError::Denied`].
    pub url: String,
    /// Names and values, in order.
    #[serde(default)]
    pub headers: Vec<(Text, Secret)>,
    /// The body, if any.
    #[serde(default)]
    pub body: Option<Secret>,
    /// How long the whole exchange may take, in milliseconds; the host's own limit is 30,000.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// An HTTP response, content-decoded, at most 1 MiB.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct HttpReply {
    /// The status code.
    pub status: u16,
    /// Names in lower case and values, in order.
    #[serde(default)]
    pub headers: Vec<(String, Secret)>,
    /// The body.
    pub body: Secret,
}

/// Names an entry of the operating system's keyring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyringEntry {
    /// Who keeps it there; what `needs` declares.
    pub service: Text,
    /// Which of its secrets.
    pub account: Text,
}

/// Names a file relative to a directory that only the host knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// The environment variable that may name the directory.
    #[serde(default)]
    pub dir_env: Option<Text>,
    /// The directory without that variable; a leading `~` is the user's home.
    pub dir: Text,
    /// The file inside the directory; no `..`.
    pub path: Text,
}

/// What was found where a [`FileRef`] points.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct FileState {
    /// The path for people, the home directory written as `~`.
    pub shown: String,
    /// The text; `None` if absent or unreadable.
    #[serde(default)]
    pub content: Option<Secret>,
    /// Why there is no text.
    #[serde(default)]
    pub problem: Option<FileProblem>,
    /// Whether the path is a symbolic link.
    #[serde(default)]
    pub symlink: bool,
    /// Whether others than the owner may read it.
    #[serde(default)]
    pub exposed: bool,
    /// When it was last written.
    #[serde(default)]
    pub modified: Option<Timestamp>,
}

/// Says why a file has no text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
#[non_exhaustive]
pub enum FileProblem {
    /// There is no such file.
    Absent {},
    /// It is there and cannot be read, is no file, is not UTF-8 or too large.
    Unreadable {
        /// The operating system's words.
        reason: String,
    },
    /// A problem of a newer version.
    #[serde(other)]
    Unknown,
}

/// A program to run. It gets an allow-listed environment and what `env` adds to it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Run {
    /// Looked up on the user's `PATH`.
    pub program: Text,
    /// Arguments; never a secret, they are visible to other users.
    #[serde(default)]
    pub args: Vec<Text>,
    /// Variables to add. The host refuses a secret in one that `needs` does not name.
    #[serde(default)]
    pub env: Vec<(Text, Secret)>,
    /// What is written to its standard input, which is then closed.
    #[serde(default)]
    pub input: Option<Secret>,
    /// Whether the user talks to it on the terminal; its output is then not captured.
    #[serde(default)]
    pub terminal: bool,
    /// After how many milliseconds it is ended; the host's own limit is 120,000 without a
    /// terminal.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Ran {
    /// The exit code; `None` if a signal ended it.
    pub exit: Option<i32>,
    /// What it printed, at most 1 MiB; empty for terminal runs.
    #[serde(default)]
    pub stdout: Secret,
    /// What it complained about, at most 64 KiB.
    #[serde(default)]
    pub stderr: Secret,
}

/// Something to tell the user. The host redacts it all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// How much it matters.
    pub level: Level,
    /// One sentence, without a full stop.
    pub text: String,
}

/// How much a note or finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    /// Good to know.
    Info,
    /// Works, but not for long or not as expected.
    Warning,
    /// Does not work; also a level of a newer version.
    #[serde(other)]
    Error,
}

/// Why the host did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "camelCase")]
#[non_exhaustive]
pub enum HostError {
    /// The user stopped; the host ends the login, stores nothing and exits with 130.
    #[error("cancelled")]
    Cancelled {},
    /// The effect is not covered by the offer's `needs` or is never allowed.
    #[error("not allowed: {reason}")]
    Denied {
        /// What was refused and why.
        reason: String,
    },
    /// The program is not there.
    #[error("{what} not found")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// Nobody is there to answer.
    #[error("{}", not_interactive(.label, .flag.as_deref(), .env.as_deref()))]
    NotInteractive {
        /// The question.
        label: String,
        /// The flag that would have answered it.
        flag: Option<String>,
        /// The variable that would have answered it.
        env: Option<String>,
    },
    /// It took longer than allowed.
    #[error("timed out after {ms} ms")]
    Timeout {
        /// The limit in milliseconds.
        ms: u64,
    },
    /// The network failed before a whole response was there.
    #[error("{message}")]
    Network {
        /// What failed, without any secret.
        message: String,
    },
    /// This host cannot do that.
    #[error("{what} is not supported here")]
    Unsupported {
        /// The effect.
        what: String,
    },
    /// Anything else, also errors of a newer version.
    #[error("{message}")]
    Other {
        /// What failed.
        message: String,
    },
    /// An error of a newer version.
    #[error("an error this version does not know")]
    #[serde(other)]
    Unknown,
}

/// Says how to answer a question without a terminal.
pub(crate) fn not_interactive(label: &str, flag: Option<&str>, env: Option<&str>) -> String {
    match (flag, env) {
        (Some(flag), Some(env)) => format!("{label} is missing: pass --{flag} or set {env}"),
        (Some(flag), None) => format!("{label} is missing: pass --{flag}"),
        (None, Some(env)) => format!("{label} is missing: set {env}"),
        (None, None) => format!("{label} is missing: run this in a terminal"),
    }
}

macro_rules! expose_fields {
    ($name:ident { $($plain:ident),* ; $($secret:ident),* }) => {
        impl Expose for $name {
            fn expose_to<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap;
                let mut map = serializer.serialize_map(None)?;
                $(map.serialize_entry(stringify!($plain), &self.$plain)?;)*
                $(map.serialize_entry(stringify!($secret), &Exposed(&self.$secret))?;)*
                map.end()
            }
        }
    };
}

expose_fields!(HttpRequest { method, url, timeout_ms ; headers, body });
expose_fields!(HttpReply { status ; headers, body });
expose_fields!(FileState { shown, problem, symlink, exposed, modified ; content });
expose_fields!(Run { program, args, terminal, timeout_ms ; env, input });
expose_fields!(Ran { exit ; stdout, stderr });

impl<K: Serialize> Expose for (K, Secret) {
    fn expose_to<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.0, Exposed(&self.1)).serialize(serializer)
    }
}

impl Expose for Effect {
    fn expose_to<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(tag = "effect", rename_all = "camelCase")]
        enum Wire<'a> {
            Ask { field: &'a Field, refused: &'a Option<Text> },
            Http { request: Exposed<'a, HttpRequest> },
            Keyring { entry: &'a KeyringEntry, put: Exposed<'a, Option<Secret>> },
            Now {},
            Open { url: &'a str },
            Read { file: &'a FileRef },
            Run { run: Exposed<'a, Run> },
            Tell { note: &'a Note },
            Unknown {},
        }
        match self {
            Self::Ask { field, refused } => Wire::Ask { field, refused },
            Self::Http { request } => Wire::Http { request: Exposed(request) },
            Self::Keyring { entry, put } => Wire::Keyring { entry, put: Exposed(put) },
            Self::Now {} => Wire::Now {},
            Self::Open { url } => Wire::Open { url },
            Self::Read { file } => Wire::Read { file },
            Self::Run { run } => Wire::Run { run: Exposed(run) },
            Self::Tell { note } => Wire::Tell { note },
            Self::Unknown => Wire::Unknown {},
        }
        .serialize(serializer)
    }
}

impl Expose for Reply {
    fn expose_to<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(tag = "reply", rename_all = "camelCase")]
        enum Wire<'a> {
            Answer { value: Exposed<'a, Secret>, typed: bool },
            Http { response: Exposed<'a, HttpReply> },
            Now { now: Timestamp },
            File { file: Exposed<'a, FileState> },
            Ran { ran: Exposed<'a, Ran> },
            Kept { secret: Exposed<'a, Option<Secret>> },
            Done {},
            Unknown {},
        }
        match self {
            Self::Answer { value, typed } => Wire::Answer { value: Exposed(value), typed: *typed },
            Self::Http { response } => Wire::Http { response: Exposed(response) },
            Self::Now { now } => Wire::Now { now: *now },
            Self::File { file } => Wire::File { file: Exposed(file) },
            Self::Ran { ran } => Wire::Ran { ran: Exposed(ran) },
            Self::Kept { secret } => Wire::Kept { secret: Exposed(secret) },
            Self::Done {} => Wire::Done {},
            Self::Unknown => Wire::Unknown {},
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_and_replies_cross_the_wire_whole() {
        let effects = [
            Effect::Ask { field: Field::default(), refused: Some("too short".into()) },
            Effect::Http {
                request: HttpRequest {
                    method: "POST".into(),
                    url: "https://example.com/".into(),
                    headers: vec![("x-api-key".into(), Secret::new("FAKE"))],
                    body: Some(Secret::new("{}")),
                    timeout_ms: None,
                },
            },
            Effect::Keyring {
                entry: KeyringEntry { service: "tool".into(), account: "me".into() },
                put: Some(Secret::new("FAKE")),
            },
            Effect::Now {},
            Effect::Unknown,
        ];
        for effect in effects {
            let text = serde_json::to_string(&Exposed(&effect)).unwrap();
            assert_eq!(serde_json::from_str::<Effect>(&text).unwrap(), effect, "{text}");
        }
        let reply = Reply::Ran {
            ran: Ran { exit: Some(1), stdout: "a".to_string().into(), stderr: Secret::default() },
        };
        let text = serde_json::to_string(&Exposed(&reply)).unwrap();
        assert_eq!(serde_json::from_str::<Reply>(&text).unwrap(), reply, "{text}");
    }

    #[test]
    fn newer_peers_are_understood_as_unknown() {
        let effect: Effect = serde_json::from_str(r#"{"effect":"beam","target":{"x":1}}"#).unwrap();
        assert_eq!(effect, Effect::Unknown);
        let error: HostError = serde_json::from_str(r#"{"error":"melted","heat":1}"#).unwrap();
        assert_eq!(error, HostError::Unknown);
        assert_eq!(serde_json::from_str::<Level>(r#""fatal""#).unwrap(), Level::Error);
        let state: crate::CredentialState = serde_json::from_str(r#""revoked""#).unwrap();
        assert_eq!(state, crate::CredentialState::Unreadable);
    }
}
