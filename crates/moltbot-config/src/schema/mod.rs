//! The schema: one table of plain data, made from the types that the rest of the program reads.
//!
//! A section of the configuration is declared once, with `section!`. The declaration makes the
//! struct that `serde` fills *and* the [`Shape`] that validation, suggestions and the printed
//! JSON Schema walk, so that the two cannot disagree.

mod agents;
mod auth;
mod check;
mod gateway;
mod models;
mod print;
mod root;
mod scalar;

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};

use moltbot_core::Secret;

pub use agents::{
    Agent, AgentDefaults, Agents, ContextPruning, ModelChoice, ModelSettings, PruningMode,
    ThinkingLevel,
};
pub use auth::{Auth, AuthMode, AuthProfile, Cooldowns, OauthEndpoint, Strategy};
pub use gateway::{
    Bind, ChatCompletions, ControlUi, Endpoints, Gateway, GatewayAuth, GatewayAuthMode,
    GatewayMode, GatewayToken, Http, Reload, ReloadMode, Remote, Responses, Tailscale,
    TailscaleMode, Tls, TokenLimits, Transport,
};
pub use models::{
    CatalogMode, Cost, CredentialUse, Dialect, Modality, ModelEntry, Models, ProviderConfig,
};
pub use root::{
    Config, EnvSection, Load, Meta, PluginEntry, PluginKind, Plugins, ShellEnv, TrustedPlugin,
    UNCHECKED_SECTIONS,
};
pub use scalar::{NonEmpty, Positive, SecureUrl, Sha256, Unchecked};

pub(crate) use check::check;
pub use print::json_schema;

/// What a value must look like.
#[derive(Debug)]
pub(crate) enum Shape {
    /// Anything; kept as it is.
    Any,
    Bool,
    /// Text that follows a rule.
    Text(TextRule),
    /// A whole number from `.0` to `.1`.
    Int(i64, i64),
    /// A finite number, at least or above `.0`.
    Number {
        above: f64,
        inclusive: bool,
    },
    /// One of these words.
    OneOf(&'static [&'static str]),
    List(&'static Shape),
    /// An object with keys of the user's choice.
    Map(&'static Shape),
    Section(&'static Section),
    /// Text, or the section in full.
    TextOr(&'static Section),
    /// The name of a dialect, of ours or of a plugin.
    Dialect,
}

/// Rules for text beyond being text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextRule {
    Free,
    NonEmpty,
    /// `https://`, or `http://` to this machine.
    SecureUrl,
    Sha256,
}

/// An object with known keys.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) fields: &'static [Field],
    pub(crate) rest: Rest,
}

/// What a section makes of keys that it does not list.
#[derive(Debug)]
pub(crate) enum Rest {
    /// They are errors.
    Refused,
    /// These are accepted, kept and not looked at; all others are errors.
    Unchecked(&'static [&'static str]),
    /// They are accepted if they have this shape.
    Each(&'static Shape),
    /// They are settings of plugins, named by the caller.
    PluginSettings,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) required: bool,
    pub(crate) shape: &'static Shape,
}

/// A Rust type that knows what it looks like in the document.
pub(crate) trait Shaped {
    const SHAPE: Shape;
    /// Whether a field of this type must be present.
    const REQUIRED: bool = true;
}

/// Dialects of models that upstream knows besides those that plugins declare (spec C-24).
pub(crate) const FOREIGN_DIALECTS: [&str; 5] = [
    "openai-completions",
    "openai-responses",
    "google-generative-ai",
    "github-copilot",
    "bedrock-converse-stream",
];

/// What plugins add to the schema; known only after the list of plugins has been read.
///
/// `None` stands for "not known yet": then any such key is let through, so that a first load can
/// tell which plugins there are (decision 11).
#[derive(Clone, Debug, Default)]
pub struct Extensions {
    /// Settings of auth methods, each an object at `auth.<key>`.
    pub auth: Option<Vec<PluginSettings>>,
    /// Dialects that the providers speak, for `models.providers.*.api`.
    pub dialects: Option<Vec<String>>,
    /// Rewrites of `auth.profiles.*.mode` that hold on every load (spec C-33).
    pub modes: Vec<ModeMigration>,
}

/// The settings that one plugin reads from `auth.<key>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginSettings {
    /// The key below `auth`, in camel case.
    pub key: String,
    /// What may stand there.
    pub settings: Vec<Setting>,
}

/// One setting of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key.
    pub name: String,
    /// Its type.
    pub kind: SettingKind,
    /// One sentence for the printed schema.
    pub doc: String,
}

/// The type of a [`Setting`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettingKind {
    /// `true` or `false`.
    Flag,
    /// A number that is not negative.
    Number,
    /// One of these words.
    OneOf(Vec<String>),
    /// Any text.
    Text,
}

/// Says that one profile, recorded with mode `from`, belongs to mode `to` today.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeMigration {
    /// The id of the profile; no other is touched.
    pub profile: String,
    /// The recorded mode that is rewritten.
    pub from: String,
    /// The mode that takes its place.
    pub to: String,
}

/// Declares a section: the struct that is read and the shape that is checked.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $(#[derive($($derive:ident),+)])?
        $name:ident { $(
            $(#[doc = $doc:literal])+
            $(#[serde($($serde:tt)+)])?
            $field:ident $key:literal: $kind:ty,
        )* }
        $(and $rest:expr $(, $(#[doc = $rest_doc:literal])+ $rest_field:ident: $rest_kind:ty)?)?
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, serde::Deserialize)]
        $(#[derive($($derive),+)])?
        #[non_exhaustive]
        #[allow(unreachable_pub, reason = "the long form of a short value stays inside")]
        pub struct $name {
            $(
                $(#[doc = $doc])+
                #[serde(rename = $key)]
                $(#[serde($($serde)+)])?
                pub $field: $kind,
            )*
            $($(
                $(#[doc = $rest_doc])+
                #[serde(flatten)]
                pub $rest_field: $rest_kind,
            )?)?
        }

        impl $name {
            pub(crate) const SECTION: crate::schema::Section = crate::schema::Section {
                fields: &[$(
                    crate::schema::Field {
                        name: $key,
                        doc: concat!($($doc),+),
                        required: <$kind as crate::schema::Shaped>::REQUIRED,
                        shape: &<$kind as crate::schema::Shaped>::SHAPE,
                    },
                )*],
                rest: crate::schema::section!(@rest $($rest)?),
            };
        }

        impl crate::schema::Shaped for $name {
            const SHAPE: crate::schema::Shape = crate::schema::Shape::Section(&$name::SECTION);
        }
    };
    (@rest) => { crate::schema::Rest::Refused };
    (@rest $rest:expr) => { $rest };
}

/// Declares a choice between words: the enum that is read and the words that are accepted.
macro_rules! choice {
    (
        $(#[doc = $about:literal])+
        $name:ident { $( $(#[doc = $doc:literal])+ $variant:ident $word:literal, )+ }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
        #[non_exhaustive]
        pub enum $name { $( $(#[doc = $doc])+ #[serde(rename = $word)] $variant, )+ }

        impl $name {
            /// Returns the word that stands in the configuration.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }
        }

        impl crate::schema::Shaped for $name {
            const SHAPE: crate::schema::Shape = crate::schema::Shape::OneOf(&[$($word),+]);
        }
    };
}

pub(crate) use {choice, section};

/// Tells whether a word is a key of the schema (used to decide what an excerpt may show).
pub(crate) fn is_known_name(word: &str) -> bool {
    fn within(shape: &Shape, word: &str) -> bool {
        match shape {
            Shape::List(inner) | Shape::Map(inner) => within(inner, word),
            Shape::Section(section) | Shape::TextOr(section) => {
                let rest = match section.rest {
                    Rest::Unchecked(names) => names.contains(&word),
                    Rest::Each(shape) => within(shape, word),
                    Rest::Refused | Rest::PluginSettings => false,
                };
                rest || section.fields.iter().any(|f| f.name == word || within(f.shape, word))
            }
            _ => false,
        }
    }
    word == "$include" || within(&Config::SHAPE, word)
}

impl Shaped for bool {
    const SHAPE: Shape = Shape::Bool;
}

impl Shaped for String {
    const SHAPE: Shape = Shape::Text(TextRule::Free);
}

impl Shaped for Secret {
    const SHAPE: Shape = Shape::Text(TextRule::Free);
}

impl Shaped for u32 {
    const SHAPE: Shape = Shape::Int(0, u32::MAX as i64);
}

impl Shaped for NonZeroU32 {
    const SHAPE: Shape = Shape::Int(1, u32::MAX as i64);
}

impl Shaped for NonZeroU16 {
    const SHAPE: Shape = Shape::Int(1, u16::MAX as i64);
}

impl<T: Shaped> Shaped for Option<T> {
    const SHAPE: Shape = T::SHAPE;
    const REQUIRED: bool = false;
}

impl<T: Shaped> Shaped for Vec<T> {
    const SHAPE: Shape = Shape::List(&T::SHAPE);
    const REQUIRED: bool = false;
}

impl<T: Shaped> Shaped for BTreeMap<String, T> {
    const SHAPE: Shape = Shape::Map(&T::SHAPE);
    const REQUIRED: bool = false;
}
