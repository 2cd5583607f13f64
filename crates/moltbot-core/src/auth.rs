//! How credentials are obtained, read and renewed.

use std::ops::Deref;

use async_trait::async_trait;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use thiserror::Error;

use crate::effect::not_interactive;
use crate::{
    Credential, CredentialKind, Effect, Expose, Exposed, Field, FileRef, FileState, Generation,
    HostError, HttpRequest, KeyringEntry, Level, Needs, Note, ProviderInfo, Ran, Reply, Run,
    Secret, Text, Timestamp,
};

/// Obtains, reads and renews credentials of one kind. It decides; the host acts.
///
/// A method keeps no state and stores nothing: the host keeps what is returned, or nothing at all.
/// Methods that need no effect are pure: same arguments, same result.
#[async_trait]
pub trait AuthMethod: Send + Sync + 'static {
    /// Names the method; equal to the plugin's id unless a plugin has several.
    fn id(&self) -> &str;

    /// Lists what this method offers for a provider; empty if nothing. Pure and cheap.
    fn offers(&self, provider: &ProviderInfo) -> Vec<Offer>;

    /// Names this method's own place under `auth` in the config, if it has one. Pure.
    fn settings(&self) -> Option<SettingsSpec> {
        None
    }

    /// Obtains a credential for the offer `cx.choice`, asking any number of times.
    async fn login(&self, cx: &Cx<'_>) -> Result<Login, AuthError>;

    /// Says what a stored credential is worth now. A link reads its owner's login here.
    ///
    /// The host judges choice, health and status by the *resolved* credential, which for a link
    /// holds no refresh token.
    async fn resolve(&self, cx: &Cx<'_>, stored: &Credential) -> Result<Resolved, AuthError> {
        Ok(Resolved::judged(stored.clone(), cx.now))
    }

    /// Says how `old` would be renewed, if it is due. Pure; the host holds the login's lease.
    fn renew(
        &self,
        settings: &RenewSettings,
        old: &Credential,
        now: Timestamp,
    ) -> Result<Renewal, AuthError> {
        let _ = (settings, old, now);
        Err(AuthError::Unsupported { what: format!("renewing with {}", self.id()) })
    }

    /// Reads the answer to a [`Renewal::Http`]. Pure: the host has already journaled the reply,
    /// and calls this again with the same reply after a crash.
    ///
    /// A missing `refresh_token` keeps the old one; unknown fields of `old` are kept.
    fn renewed(
        &self,
        old: &Credential,
        reply: &RenewReply,
        received_at: Timestamp,
    ) -> Result<Credential, AuthError> {
        let _ = (old, reply, received_at);
        Err(AuthError::Unsupported { what: format!("renewing with {}", self.id()) })
    }

    /// Renews by effects, after [`Renewal::Run`]; for a link, makes the owner renew.
    async fn refresh(&self, cx: &Cx<'_>, old: &Credential) -> Result<Credential, AuthError> {
        let _ = (cx, old);
        Err(AuthError::Unsupported { what: format!("renewing with {}", self.id()) })
    }

    /// Checks what only this method knows about; for `moltbot doctor`.
    async fn doctor(&self, cx: &Cx<'_>, stored: &[Credential]) -> Result<Vec<Finding>, AuthError> {
        let _ = (cx, stored);
        Ok(Vec::new())
    }
}

/// The host as a plugin sees it.
#[async_trait]
pub trait Host: Send + Sync {
    /// Performs one effect. Dropping the future abandons the effect.
    async fn perform(&self, effect: Effect) -> Result<Reply, HostError>;
}

/// The circumstances of one call, as plain data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Which provider the credential is for.
    pub provider: ProviderInfo,
    /// Which offer was chosen.
    pub choice: Text,
    /// Which verb of `models auth` was typed, if any.
    #[serde(default)]
    pub verb: Option<Text>,
    /// The questions that may be asked in this call: the verb's, else the offer's.
    #[serde(default)]
    pub fields: Vec<Field>,
    /// The start of the call; [`Effect::Now`] is the running clock.
    pub now: Timestamp,
    /// Whether a person is there to answer.
    #[serde(default)]
    pub interactive: bool,
    /// The operating system: `linux`, `macos`.
    #[serde(default)]
    pub os: Text,
    /// This method's own settings from the config, `null` without any.
    #[serde(default)]
    pub settings: Value,
}

/// The circumstances of one call, and the host to ask.
pub struct Cx<'a> {
    /// Performs effects.
    pub host: &'a dyn Host,
    /// Everything else.
    pub call: &'a Call,
}

impl Deref for Cx<'_> {
    type Target = Call;

    fn deref(&self) -> &Call {
        self.call
    }
}

impl<'a> Cx<'a> {
    /// Puts a call and its host together.
    pub fn new(host: &'a dyn Host, call: &'a Call) -> Self {
        Self { host, call }
    }

    /// Returns the field of that id; an empty question without flag if the call declares none.
    pub fn field(&self, id: &str) -> Field {
        self.fields.iter().find(|field| field.id == id).cloned().unwrap_or_else(|| Field {
            id: id.to_string().into(),
            label: id.to_string().into(),
            ..Field::default()
        })
    }

    /// Asks a field until `check` accepts the answer: at most three times, and again only if a
    /// person answered.
    pub async fn ask<T>(
        &self,
        id: &str,
        check: impl Fn(&str) -> Result<T, String> + Send,
    ) -> Result<T, AuthError> {
        let field = self.field(id);
        let mut refused = None;
        for attempt in 1..=3 {
            let effect = Effect::Ask { field: field.clone(), refused: refused.take() };
            let (value, typed) = match self.host.perform(effect).await? {
                Reply::Answer { value, typed } => (value, typed),
                other => return Err(unexpected("Ask", &other)),
            };
            match check(value.expose()) {
                Ok(accepted) => return Ok(accepted),
                Err(reason) if typed && attempt < 3 => refused = Some(reason.into()),
                Err(reason) => {
                    return Err(AuthError::Invalid { field: field.id.to_string(), reason });
                }
            }
        }
        unreachable!("the third attempt returns")
    }

    /// Asks yes or no.
    pub async fn confirm(&self, id: &str) -> Result<bool, AuthError> {
        self.ask(id, |answer| Ok(matches!(answer.trim(), "true" | "yes" | "y"))).await
    }

    /// Sends one HTTP request.
    pub async fn http(&self, request: HttpRequest) -> Result<crate::HttpReply, AuthError> {
        match self.host.perform(Effect::Http { request }).await? {
            Reply::Http { response } => Ok(response),
            other => Err(unexpected("Http", &other)),
        }
    }

    /// Reads one file.
    pub async fn read(&self, file: FileRef) -> Result<FileState, AuthError> {
        match self.host.perform(Effect::Read { file }).await? {
            Reply::File { file } => Ok(file),
            other => Err(unexpected("Read", &other)),
        }
    }

    /// Runs one program to its end.
    pub async fn run(&self, run: Run) -> Result<Ran, AuthError> {
        match self.host.perform(Effect::Run { run }).await? {
            Reply::Ran { ran } => Ok(ran),
            other => Err(unexpected("Run", &other)),
        }
    }

    /// Reads one entry of the operating system's keyring, or writes it first.
    pub async fn keyring(
        &self,
        entry: KeyringEntry,
        put: Option<Secret>,
    ) -> Result<Option<Secret>, AuthError> {
        match self.host.perform(Effect::Keyring { entry, put }).await? {
            Reply::Kept { secret } => Ok(secret),
            other => Err(unexpected("Keyring", &other)),
        }
    }

    /// Reads the running clock.
    pub async fn clock(&self) -> Result<Timestamp, AuthError> {
        match self.host.perform(Effect::Now {}).await? {
            Reply::Now { now } => Ok(now),
            other => Err(unexpected("Now", &other)),
        }
    }

    /// Tells the user something.
    pub async fn tell(&self, level: Level, text: impl Into<String>) -> Result<(), AuthError> {
        let note = Note { level, text: text.into() };
        self.host.perform(Effect::Tell { note }).await?;
        Ok(())
    }

    /// Shows the user a page.
    pub async fn open(&self, url: impl Into<String>) -> Result<(), AuthError> {
        self.host.perform(Effect::Open { url: url.into() }).await?;
        Ok(())
    }
}

fn unexpected(asked: &str, _got: &Reply) -> AuthError {
    AuthError::Plugin { message: format!("the host answered {asked} with something else") }
}

/// One way to authenticate with one provider: plain data, from which the host grows flags,
/// wizard lines, verbs and status rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Offer {
    /// The value of `--auth-choice`: `apiKey`. Unique in a build.
    pub choice: Text,
    /// Other values with the same meaning.
    pub aliases: Vec<Text>,
    /// The wizard's line.
    pub label: Text,
    /// What the line does not say.
    pub hint: Text,
    /// The profile it writes unless told otherwise: `acme:default`.
    pub profile: Text,
    /// The kind it writes.
    pub kind: CredentialKind,
    /// The `mode` that the config records; usually the kind's word.
    pub mode: Text,
    /// The stored kinds that this profile may have under that mode.
    pub accepts: Vec<CredentialKind>,
    /// Modes of older versions, rewritten to `mode` on every load, for `profile` only.
    pub migrates_from: Vec<Text>,
    /// Every question it may ask in `onboard`.
    pub fields: Vec<Field>,
    /// Subcommands of `models auth`.
    pub verbs: Vec<Verb>,
    /// What it can do.
    pub caps: AuthCaps,
    /// What it will ask the host for; anything else is refused.
    pub needs: Needs,
    /// What the vendor says about using this credential here.
    pub policy: Option<Policy>,
    /// Who pays.
    pub payer: Payer,
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            choice: "".into(),
            aliases: Vec::new(),
            label: "".into(),
            hint: "".into(),
            profile: "".into(),
            kind: CredentialKind::None,
            mode: "".into(),
            accepts: Vec::new(),
            migrates_from: Vec::new(),
            fields: Vec::new(),
            verbs: Vec::new(),
            caps: AuthCaps::default(),
            needs: Needs::default(),
            policy: None,
            payer: Payer::Unknown,
        }
    }
}

/// A subcommand of `moltbot models auth`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verb {
    /// As typed: `paste-token`.
    pub name: Text,
    /// One line of help, imperative, no full stop.
    pub about: Text,
    /// The questions it may ask; they replace the offer's.
    pub fields: Vec<Field>,
    /// Whether it makes no sense without a terminal.
    pub terminal: bool,
}

/// What an auth method can do; new fields default to `false`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthCaps {
    /// Cannot log in without a person.
    pub interactive: bool,
    /// Can renew an expired credential.
    pub refresh: bool,
    /// Somebody else owns the login; the profile is a link.
    pub external: bool,
    /// The choice that a newcomer should take.
    pub recommended: bool,
}

/// What the vendor says about using a credential here (decision 6); data, shown in one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// One line.
    pub line: Text,
    /// Where the vendor says so.
    pub source: Text,
    /// When that page was read, `YYYY-MM-DD`.
    pub checked: Text,
}

/// Who pays for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Payer {
    /// Billed per use to the key's account.
    Metered,
    /// Drawn from a plan with a fixed price.
    Subscription,
    /// Nobody can tell.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A method's own object under `auth` in the config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SettingsSpec {
    /// The key: `auth.<key>`.
    pub key: Text,
    /// A JSON Schema of an object; unknown members are errors.
    pub schema: Value,
}

/// The result of a login.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Login {
    /// What to store.
    pub credential: Credential,
    /// Under which name, if not the offer's.
    #[serde(default)]
    pub profile: Option<String>,
    /// The model to offer as default.
    #[serde(default)]
    pub model: Option<String>,
    /// Set if the credential came from this stored profile and need not be written again.
    #[serde(default)]
    pub existing: bool,
    /// What to tell the user after it was stored.
    #[serde(default)]
    pub notes: Vec<Note>,
}

impl Login {
    /// Makes a login with nothing but its credential.
    pub fn new(credential: Credential) -> Self {
        Self { credential, profile: None, model: None, existing: false, notes: Vec::new() }
    }
}

impl Expose for Login {
    fn expose_to<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(5))?;
        map.serialize_entry("credential", &Exposed(&self.credential))?;
        map.serialize_entry("profile", &self.profile)?;
        map.serialize_entry("model", &self.model)?;
        map.serialize_entry("existing", &self.existing)?;
        map.serialize_entry("notes", &self.notes)?;
        map.end()
    }
}

/// What a stored credential is worth now.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Resolved {
    /// The credential to use and to judge by.
    pub credential: Credential,
    /// Whether it can be used.
    pub state: CredentialState,
    /// Identifies its secrets.
    pub generation: Generation,
    /// Why it is not ready, in words, without any secret.
    #[serde(default)]
    pub detail: Option<String>,
}

impl Resolved {
    /// Judges a credential by its own fields at `now`.
    pub fn judged(credential: Credential, now: Timestamp) -> Self {
        let state = if credential.kind == CredentialKind::None {
            CredentialState::Ready
        } else if credential.secret().is_none() {
            CredentialState::Absent
        } else if credential.is_expired(now) {
            CredentialState::Expired
        } else {
            CredentialState::Ready
        };
        let generation = Generation::of(&credential);
        Self { credential, state, generation, detail: None }
    }
}

impl Expose for Resolved {
    fn expose_to<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("credential", &Exposed(&self.credential))?;
        map.serialize_entry("state", &self.state)?;
        map.serialize_entry("generation", &self.generation)?;
        map.serialize_entry("detail", &self.detail)?;
        map.end()
    }
}

/// Whether a credential can be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CredentialState {
    /// It can.
    Ready,
    /// Its time is over; the host renews it if it can.
    Expired,
    /// The owner of the login logged out.
    LoggedOut,
    /// There is none.
    Absent,
    /// There is something that cannot be understood; also a state of a newer version.
    #[serde(other)]
    Unreadable,
}

/// What the user's config says about renewing logins of one provider (decision 5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RenewSettings {
    /// Where: HTTPS or loopback.
    pub token_url: Option<String>,
    /// As whom.
    pub client_id: Option<String>,
    /// For what.
    pub scope: Option<String>,
    /// The method's own `refresh` setting, e.g. `owner` or `off`.
    pub policy: Option<String>,
    /// Whether the user asked for it although it is not due.
    pub force: bool,
}

/// How a credential is renewed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "renewal", rename_all = "camelCase")]
#[non_exhaustive]
pub enum Renewal {
    /// Not yet.
    NotDue {},
    /// By one request, which the host journals, sends, and whose reply it hands to `renewed`.
    Http {
        /// The request.
        request: HttpRequest,
    },
    /// By effects; the host calls `refresh`.
    Run {},
    /// A way of a newer version; the host treats it as unsupported.
    #[serde(other)]
    Unknown,
}

impl Expose for Renewal {
    fn expose_to<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(tag = "renewal", rename_all = "camelCase")]
        enum Wire<'a> {
            NotDue {},
            Http { request: Exposed<'a, HttpRequest> },
            Run {},
            Unknown {},
        }
        match self {
            Self::NotDue {} => Wire::NotDue {},
            Self::Http { request } => Wire::Http { request: Exposed(request) },
            Self::Run {} => Wire::Run {},
            Self::Unknown => Wire::Unknown {},
        }
        .serialize(serializer)
    }
}

/// A token endpoint's answer: content-decoded, without headers, so that it can be journaled whole.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RenewReply {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Secret,
}

impl Expose for RenewReply {
    fn expose_to<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("status", &self.status)?;
        map.serialize_entry("body", &Exposed(&self.body))?;
        map.end()
    }
}

/// Something `moltbot doctor` should say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// What is the matter, with what.
    pub text: String,
    /// What to type or do.
    #[serde(default)]
    pub fix: Option<String>,
}

/// Why a credential could not be obtained, read or renewed. The doc of each variant says what the
/// host does.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "camelCase")]
#[non_exhaustive]
pub enum AuthError {
    /// The user stopped: nothing is stored, exit code 130.
    #[error("cancelled")]
    Cancelled {},
    /// The service or the host refused: shown, exit code 1.
    #[error("{reason}")]
    Denied {
        /// Who refused what.
        reason: String,
    },
    /// The stored login is spent. During a choice the next profile is taken; alone, shown with
    /// the hint.
    #[error("{reason}; {hint}")]
    LoginAgain {
        /// What the service said.
        reason: String,
        /// What to type.
        hint: String,
    },
    /// It may work later: the store is not changed and nobody is asked to log in.
    #[error("{reason}")]
    Transient {
        /// What failed.
        reason: String,
    },
    /// An answer was refused: shown, exit code 1.
    #[error("{reason}")]
    Invalid {
        /// Which field.
        field: String,
        /// What is wrong with it; the whole message.
        reason: String,
    },
    /// Nothing to log in with was found: shown, exit code 1.
    #[error("{message}")]
    NotFound {
        /// What was looked for, where.
        message: String,
    },
    /// A question had no answer and nobody was there: exit code 1.
    #[error("{}", not_interactive(.label, .flag.as_deref(), .env.as_deref()))]
    NotInteractive {
        /// The question.
        label: String,
        /// The flag that would have answered it.
        flag: Option<String>,
        /// The variable that would have answered it.
        env: Option<String>,
    },
    /// The plugin broke its contract; the call fails, the host goes on.
    #[error("the plugin failed: {message}")]
    Plugin {
        /// How.
        message: String,
    },
    /// The method cannot do that; the host does not try again.
    #[error("{what} is not supported")]
    Unsupported {
        /// What.
        what: String,
    },
    /// Anything else: shown.
    #[error("{message}")]
    Other {
        /// What happened.
        message: String,
    },
    /// An error of a newer version; treated as `Other`.
    #[error("an error this version does not know")]
    #[serde(other)]
    Unknown,
}

impl From<HostError> for AuthError {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Cancelled {} => Self::Cancelled {},
            HostError::Denied { .. } => Self::Denied { reason: error.to_string() },
            HostError::NotFound { .. } => Self::NotFound { message: error.to_string() },
            HostError::NotInteractive { label, flag, env } => {
                Self::NotInteractive { label, flag, env }
            }
            HostError::Timeout { .. } | HostError::Network { .. } => {
                Self::Transient { reason: error.to_string() }
            }
            HostError::Unsupported { what } => Self::Unsupported { what },
            HostError::Other { message } => Self::Other { message },
            HostError::Unknown => Self::Unknown,
        }
    }
}
