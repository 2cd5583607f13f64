//! How a chat becomes a request, and a reply becomes events. A provider translates; it never sends.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::{
    Credential, CredentialKind, Decoder, DecoderMode, Ended, Exchange, Failure, ModelInfo, Span,
    Text, Timestamp,
};

/// Translates between the host's chats and one service: no I/O, no `async`, no retries, no clock.
pub trait Provider: Send + Sync + 'static {
    /// Describes the service. Called once per start; the result is kept.
    fn info(&self) -> ProviderInfo;

    /// Says what a kind of credential can do. Pure.
    fn caps(&self, kind: &CredentialKind) -> ProviderCaps {
        let _ = kind;
        ProviderCaps::default()
    }

    /// Translates a chat into one exchange. Pure; it sees no secret and, unless it asked for it,
    /// no body.
    fn request(
        &self,
        chat: &ChatView<'_>,
        with: &CredentialView<'_>,
        now: Timestamp,
    ) -> Result<Exchange, ProviderError>;

    /// Says what went wrong and whose fault it was. Pure.
    fn failure(&self, ended: &Ended, now: Timestamp) -> Failure;

    /// Reads what a reply's headers tell beside its body. Pure.
    fn observe(&self, headers: &[Header<'_>], now: Timestamp) -> Observed {
        let _ = (headers, now);
        Observed::default()
    }

    /// Starts a decoder for one reply, or for one child process and all its turns.
    fn decoder(&self, mode: DecoderMode) -> Box<dyn Decoder>;
}

/// Describes a provider: plain data, the only place where its name stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProviderInfo {
    /// As in model references and profile ids: `acme`. Lower case.
    pub id: Text,
    /// The name for people.
    pub label: Text,
    /// The API key it takes, if it takes one.
    pub api_key: Option<ApiKeySpec>,
    /// Environment variables that hold a credential, the first wins.
    pub env: Vec<EnvKey>,
    /// Variables that other tools obey and this one ignores; shown in status when set.
    pub ignored_env: Vec<Text>,
    /// Where its requests go without a `baseUrl` of the user's.
    pub base_url: Text,
    /// The origins a credential may be sent to, `https://host[:port]`.
    pub origins: Vec<Text>,
    /// The language it speaks. A provider of the config with the same `api` borrows this plugin.
    pub dialect: Text,
    /// Models that are known.
    pub catalog: Vec<ModelInfo>,
    /// The model without any config.
    pub default_model: Text,
    /// Whose default model is meant when the config names none: the highest's, equals by id. 0
    /// for everybody but the provider that the stock program is made for, so that a plugin from
    /// elsewhere takes over nothing by the spelling of its id.
    pub priority: i32,
    /// The model that the wizard preselects.
    pub recommended_model: Text,
    /// Aliases given to models that the config lists without one: alias and model id.
    pub aliases: Vec<(Text, Text)>,
    /// Short names of models, usable after `provider/` or alone: short name and model id.
    pub short_names: Vec<(Text, Text)>,
    /// Other spellings of `id`.
    pub legacy_ids: Vec<Text>,
    /// Credentials of other providers that it takes too.
    pub accepts: Vec<(Text, CredentialKind)>,
    /// A JSON Schema of the `params` it reads, `null` without any.
    pub params: Value,
    /// Which places of a body it must see, as JSON pointers with `*` for any index.
    pub reads: Vec<Text>,
    /// Whether it must see the body whole.
    pub body: BodyNeed,
}

impl Default for ProviderInfo {
    fn default() -> Self {
        Self {
            id: "".into(),
            label: "".into(),
            api_key: None,
            env: Vec::new(),
            ignored_env: Vec::new(),
            base_url: "".into(),
            origins: Vec::new(),
            dialect: "".into(),
            catalog: Vec::new(),
            default_model: "".into(),
            priority: 0,
            recommended_model: "".into(),
            aliases: Vec::new(),
            short_names: Vec::new(),
            legacy_ids: Vec::new(),
            accepts: Vec::new(),
            params: Value::Null,
            reads: Vec::new(),
            body: BodyNeed::Head,
        }
    }
}

impl ProviderInfo {
    /// Finds a model by any of its ids.
    pub fn model(&self, id: &str) -> Option<&ModelInfo> {
        self.catalog.iter().find(|model| model.id == id || model.also.iter().any(|also| also == id))
    }
}

/// The API key a provider takes; the `api-key` method grows its flag from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ApiKeySpec {
    /// The value of `--auth-choice`.
    pub choice: Text,
    /// The flag without dashes.
    pub flag: Text,
    /// The environment variable.
    pub env: Text,
    /// The wizard's line.
    pub label: Text,
    /// How such keys begin, empty if they have no fixed beginning.
    pub prefix: Text,
    /// What the vendor says about using one.
    pub policy: Option<crate::Policy>,
}

/// An environment variable that holds a credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvKey {
    /// The variable.
    pub name: Text,
    /// What it holds.
    pub kind: CredentialKind,
}

/// How much of a body a provider must see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BodyNeed {
    /// Only what `reads` names.
    #[default]
    Head,
    /// All of it: it speaks another language.
    Whole,
}

/// What a kind of credential can do with a provider; new fields default to nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProviderCaps {
    /// The cache lifetimes it may ask for.
    pub cache_ttl: Vec<Text>,
}

/// What is asked of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Op {
    /// A reply to a conversation.
    Messages,
    /// How many tokens a conversation has.
    CountTokens,
    /// The list of models.
    Models,
    /// Anything else, by path; sent as it is.
    PassThrough,
    /// An operation of a newer version.
    #[serde(other)]
    Unknown,
}

/// Who wrote the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// This program; the provider may add its usual headers.
    Composed,
    /// A client at a door; every byte stays unless it must change.
    Forwarded,
}

/// A header line. Names are compared without case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header<'a> {
    /// The name as it came.
    pub name: Cow<'a, str>,
    /// The value as it came.
    pub value: Cow<'a, str>,
}

impl<'a> Header<'a> {
    /// Makes a header line.
    pub fn new(name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

/// Finds the first header of that name.
pub fn header<'h>(headers: &'h [Header<'_>], name: &str) -> Option<&'h str> {
    headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value.as_ref())
}

/// A chat as a provider sees it. The host keeps the body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatView<'a> {
    /// What is asked.
    pub op: Op,
    /// Who wrote it.
    pub origin: Origin,
    /// Where to: no slash at the end.
    pub base_url: Cow<'a, str>,
    /// The method and path a client used, for [`Op::PassThrough`]; else empty.
    pub path: Cow<'a, str>,
    /// What followed `?`, without it.
    pub query: Cow<'a, str>,
    /// The client's headers without any credential.
    pub headers: Cow<'a, [Header<'a>]>,
    /// Headers of the config for this provider and model.
    pub extra: Cow<'a, [Header<'a>]>,
    /// The model to ask, as the service knows it.
    pub model: Cow<'a, str>,
    /// The config's `params` for this model.
    pub params: Cow<'a, Value>,
    /// What stands at the places that `ProviderInfo::reads` names, in order of appearance.
    pub found: Cow<'a, [Found<'a>]>,
    /// The body, only for [`BodyNeed::Whole`].
    pub body: Option<Cow<'a, str>>,
}

/// A place of the body that a provider asked to see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found<'a> {
    /// Where, as a JSON pointer: `/system/0/cache_control`.
    pub path: Cow<'a, str>,
    /// Which bytes.
    pub span: Span,
    /// The bytes: one JSON value.
    pub value: Cow<'a, str>,
}

/// A credential as a provider sees it: no secret, only that there is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CredentialView<'a> {
    /// What sort.
    pub kind: CredentialKind,
    /// Whose it is.
    pub provider: Cow<'a, str>,
    /// Which secret fields are there: `key`, `token`, `access`.
    pub has: Vec<Text>,
    /// What the secret looks like, for services that tell kinds apart by it: the characters up to
    /// the last `-` of the first 14.
    pub prefix: Text,
}

impl<'a> CredentialView<'a> {
    /// Shows a credential without its secrets.
    pub fn of(credential: &'a Credential) -> Self {
        let has = ["key", "token", "access"]
            .into_iter()
            .filter(|name| credential.secret_field(name).is_some_and(|secret| !secret.is_blank()))
            .map(Text::Borrowed)
            .collect();
        let prefix = credential.secret().map_or(String::new(), |secret| {
            let head: String = secret.expose().trim().chars().take(14).collect();
            head.rfind('-').map_or(String::new(), |at| head[..=at].to_string())
        });
        Self {
            kind: credential.kind.clone(),
            provider: Cow::Borrowed(&credential.provider),
            has,
            prefix: prefix.into(),
        }
    }
}

/// What a reply's headers tell beside its body.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Observed {
    /// The service's own id of the request.
    pub request_id: Option<String>,
    /// The account behind the credential; profiles with the same one share their limits.
    pub account: Option<String>,
    /// What is left of each limit.
    pub quotas: Vec<Quota>,
}

/// What is left of one limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quota {
    /// Which limit, in the service's words: `input-tokens`, `five_hour`.
    pub name: Text,
    /// The used share, 0 to 1, sometimes above.
    pub used: f64,
    /// Whether the service refuses until the reset.
    pub rejected: bool,
    /// When it starts anew.
    pub reset: Option<Timestamp>,
    /// How much there is in all, if the service counts.
    #[serde(default)]
    pub limit: Option<f64>,
    /// How much of it is left.
    #[serde(default)]
    pub remaining: Option<f64>,
    /// Which models draw on it.
    #[serde(default)]
    pub covers: Covers,
}

/// Says which models of an account draw on a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
#[non_exhaustive]
pub enum Covers {
    /// All of them.
    Everything {},
    /// The model that was asked, and no other.
    Model {},
    /// Those whose id contains this word.
    Named {
        /// The word.
        word: Text,
    },
    /// A reach of a newer version; the limit is shown and decides nothing.
    #[serde(other)]
    Unknown,
}

impl Default for Covers {
    fn default() -> Self {
        Self::Everything {}
    }
}

/// Why a chat cannot be translated; the request fails, no profile is punished.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "camelCase")]
#[non_exhaustive]
pub enum ProviderError {
    /// The chat holds something this service cannot do; shown as the API's `invalid_request_error`.
    #[error("{message}")]
    Invalid {
        /// What.
        message: String,
    },
    /// The credential cannot be used here; the next profile is tried.
    #[error("{message}")]
    Credential {
        /// Why.
        message: String,
    },
    /// The plugin broke its contract.
    #[error("the plugin failed: {message}")]
    Plugin {
        /// How.
        message: String,
    },
    /// An error of a newer version.
    #[error("an error this version does not know")]
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    #[test]
    fn a_view_shows_a_prefix_and_no_secret() {
        let credential = Credential::api_key("p", Secret::new("sk-ant-api03-FAKEFAKE"));
        let view = CredentialView::of(&credential);
        assert_eq!(view.prefix, "sk-ant-api03-");
        assert_eq!(view.has, ["key"]);
        let odd = Credential::api_key("p", Secret::new("abcdefghijklmnop"));
        assert_eq!(CredentialView::of(&odd).prefix, "");
    }

    #[test]
    fn headers_are_found_without_case() {
        let headers = [Header::new("Request-Id", "1")];
        assert_eq!(header(&headers, "request-id"), Some("1"));
    }
}
