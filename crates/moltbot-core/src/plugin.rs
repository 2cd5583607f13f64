//! What a plugin is, how it registers, and what the host finds.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use thiserror::Error;

use crate::{AuthMethod, Code, Field, Offer, Provider, ProviderInfo, Text};

/// The version of these interfaces, compared when a plugin comes from outside.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One plugin: what its crate registers with [`plugin!`](crate::plugin!).
pub struct Plugin {
    /// The package's name without `moltbot-plugin-`.
    pub id: &'static str,
    /// The package's version.
    pub version: &'static str,
    /// The package's description.
    pub about: &'static str,
    /// The version of `moltbot-core` it was built with.
    pub core: &'static str,
    /// Its auth methods.
    pub auth: &'static [&'static dyn AuthMethod],
    /// Its providers.
    pub providers: &'static [&'static dyn Provider],
    /// Its pages for `moltbot explain`.
    pub codes: &'static [Code],
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plugin({} {})", self.id, self.version)
    }
}

/// A plugin linked into this binary, as `inventory` carries it.
pub struct Linked(pub &'static Plugin);

inventory::collect!(Linked);

/// Registers the auth methods, providers and codes of a crate: once per crate, at its root.
///
/// It makes `pub static PLUGIN`, which the host's `main` names so that the linker keeps the crate,
/// and submits it to `inventory`.
///
/// ```
/// # use moltbot_core::*;
/// struct Nothing;
/// #[async_trait]
/// impl AuthMethod for Nothing {
///     fn id(&self) -> &str { "nothing" }
///     fn offers(&self, _: &ProviderInfo) -> Vec<Offer> { Vec::new() }
///     async fn login(&self, _: &Cx<'_>) -> Result<Login, AuthError> { Err(AuthError::Cancelled {}) }
/// }
/// moltbot_core::plugin! {
///     auth: [Nothing],
///     codes: [Code::new("nothing-there", "There is nothing", "It was taken away.", "Look elsewhere.")],
/// }
/// # fn main() { assert_eq!((PLUGIN.auth.len(), PLUGIN.codes.len()), (1, 1)); }
/// ```
#[macro_export]
macro_rules! plugin {
    ($($section:ident : [$($item:expr),* $(,)?]),* $(,)?) => {
        /// This crate as a plugin.
        pub static PLUGIN: $crate::Plugin = {
            #[allow(unused_mut)]
            let mut plugin = $crate::Plugin {
                id: $crate::plugin_id(env!("CARGO_PKG_NAME")),
                version: env!("CARGO_PKG_VERSION"),
                about: env!("CARGO_PKG_DESCRIPTION"),
                core: $crate::VERSION,
                auth: &[],
                providers: &[],
                codes: &[],
            };
            $($crate::plugin!(@ plugin $section $($item),*);)*
            plugin
        };
        $crate::inventory::submit! { $crate::Linked(&PLUGIN) }
    };
    (@ $plugin:ident auth $($item:expr),*) => { $plugin.auth = &[$(&$item),*]; };
    (@ $plugin:ident providers $($item:expr),*) => { $plugin.providers = &[$(&$item),*]; };
    // Codes own their text, so that a borrowed list of them needs a constant of its own.
    (@ $plugin:ident codes $($item:expr),*) => {{
        const CODES: &[$crate::Code] = &[$($item),*];
        $plugin.codes = CODES;
    }};
}

/// Returns the plugin id of a package name. Used by [`plugin!`](crate::plugin!).
#[doc(hidden)]
pub const fn plugin_id(package: &'static str) -> &'static str {
    const PREFIX: &[u8] = b"moltbot-plugin-";
    let bytes = package.as_bytes();
    if bytes.len() <= PREFIX.len() {
        return package;
    }
    let mut at = 0;
    while at < PREFIX.len() {
        if bytes[at] != PREFIX[at] {
            return package;
        }
        at += 1;
    }
    package.split_at(PREFIX.len()).1
}

/// A provider of this build.
#[derive(Clone, Copy)]
pub struct ProviderEntry {
    /// Who brought it.
    pub plugin: &'static Plugin,
    /// What it is, computed once.
    pub info: &'static ProviderInfo,
    /// How it translates.
    pub provider: &'static dyn Provider,
}

/// A way to authenticate in this build: an offer, for one provider, by one method.
#[derive(Clone, Copy)]
pub struct OfferEntry {
    /// Who brought it.
    pub plugin: &'static Plugin,
    /// Who logs in.
    pub method: &'static dyn AuthMethod,
    /// For whom.
    pub provider: &'static ProviderInfo,
    /// How.
    pub offer: &'static Offer,
}

/// Everything the linked plugins bring, sorted and checked once at start.
pub struct Registry {
    plugins: Vec<&'static Plugin>,
    providers: Vec<ProviderEntry>,
    offers: Vec<OfferEntry>,
    methods: HashMap<&'static str, &'static dyn AuthMethod>,
}

/// Why a set of plugins cannot work together; names both parties.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RegistryError {
    /// Named by `main`, but not registered.
    #[error("plugin {id} is linked but did not register")]
    NotRegistered {
        /// The plugin.
        id: String,
    },
    /// Two of a kind.
    #[error("{what} \"{name}\" is claimed by both {first} and {second}")]
    Twice {
        /// Plugin id, provider id, auth choice, flag, auth method.
        what: &'static str,
        /// The name.
        name: String,
        /// One claimant.
        first: String,
        /// The other.
        second: String,
    },
    /// A flag of the host.
    #[error("flag --{flag} of {plugin} is kept for the host")]
    Reserved {
        /// The flag.
        flag: String,
        /// Who wants it.
        plugin: String,
    },
}

impl Registry {
    /// Collects what is linked, and compares it with what `main` names.
    pub fn linked(
        named: &[&'static Plugin],
        reserved_flags: &[&str],
    ) -> Result<Self, RegistryError> {
        let found: Vec<_> = inventory::iter::<Linked>().map(|linked| linked.0).collect();
        for plugin in named {
            if !found.iter().any(|other| std::ptr::eq(*other, *plugin)) {
                return Err(RegistryError::NotRegistered { id: plugin.id.to_string() });
            }
        }
        Self::new(found, reserved_flags)
    }

    /// Checks and sorts a set of plugins. The small, fixed descriptions live as long as the
    /// process.
    pub fn new(
        mut plugins: Vec<&'static Plugin>,
        reserved_flags: &[&str],
    ) -> Result<Self, RegistryError> {
        plugins.sort_by_key(|plugin| plugin.id);
        let mut claims = Claims::default();
        let mut providers: Vec<ProviderEntry> = Vec::new();
        let mut methods = HashMap::new();
        for plugin in &plugins {
            claims.claim("plugin", plugin.id, plugin.id)?;
            for method in plugin.auth {
                claims.claim("auth method", method.id(), plugin.id)?;
                methods.insert(method.id(), *method);
            }
            for provider in plugin.providers {
                let info: &'static ProviderInfo = Box::leak(Box::new(provider.info()));
                for id in std::iter::once(&info.id).chain(&info.legacy_ids) {
                    claims.claim("provider", id.clone(), plugin.id)?;
                }
                providers.push(ProviderEntry { plugin, info, provider: *provider });
            }
        }
        providers.sort_by(|a, b| a.info.id.cmp(&b.info.id));
        let mut offers = Vec::new();
        for plugin in &plugins {
            for method in plugin.auth {
                for provider in &providers {
                    for offer in method.offers(provider.info) {
                        let offer: &'static Offer = Box::leak(Box::new(offer));
                        claims.offer(offer, &provider.info.id, plugin.id, reserved_flags)?;
                        let (method, provider) = (*method, provider.info);
                        offers.push(OfferEntry { plugin, method, provider, offer });
                    }
                }
            }
        }
        Ok(Self { plugins, providers, offers, methods })
    }

    /// Lists the plugins by id.
    pub fn plugins(&self) -> &[&'static Plugin] {
        &self.plugins
    }

    /// Lists the providers by id.
    pub fn providers(&self) -> &[ProviderEntry] {
        &self.providers
    }

    /// Lists every way to authenticate, by plugin and provider.
    pub fn offers(&self) -> &[OfferEntry] {
        &self.offers
    }

    /// Finds a provider by its id or an older spelling of it.
    pub fn provider(&self, id: &str) -> Option<&ProviderEntry> {
        self.providers
            .iter()
            .find(|entry| entry.info.id == id || entry.info.legacy_ids.iter().any(|old| old == id))
    }

    /// Finds the provider that declares a dialect.
    pub fn dialect(&self, dialect: &str) -> Option<&ProviderEntry> {
        self.providers.iter().find(|entry| entry.info.dialect == dialect)
    }

    /// Finds an offer by its choice or an alias.
    pub fn choice(&self, choice: &str) -> Option<&OfferEntry> {
        self.offers.iter().find(|entry| {
            entry.offer.choice == choice || entry.offer.aliases.iter().any(|a| a == choice)
        })
    }

    /// Finds the auth method of that id.
    pub fn method(&self, id: &str) -> Option<&'static dyn AuthMethod> {
        self.methods.get(id).copied()
    }

    /// Finds the page of a code, among the host's and every plugin's.
    pub fn code(&self, id: &str) -> Option<&'static Code> {
        self.codes().find(|code| code.id == id)
    }

    /// Lists every code, the host's first.
    pub fn codes(&self) -> impl Iterator<Item = &'static Code> + '_ {
        crate::CODES.iter().chain(self.plugins.iter().flat_map(|plugin| plugin.codes.iter()))
    }
}

/// Who claimed which name first, and for a flag with what meaning.
#[derive(Default)]
struct Claims(HashMap<(&'static str, Text), (&'static str, Option<&'static Field>)>);

impl Claims {
    fn claim(
        &mut self,
        what: &'static str,
        name: impl Into<Text>,
        by: &'static str,
    ) -> Result<(), RegistryError> {
        self.claim_same(what, name.into(), by, None)
    }

    /// Claims a name; claiming it again with an equal field is allowed.
    fn claim_same(
        &mut self,
        what: &'static str,
        name: Text,
        by: &'static str,
        field: Option<&'static Field>,
    ) -> Result<(), RegistryError> {
        match self.0.entry((what, name)) {
            Entry::Occupied(held) => match (held.get().1, field) {
                (Some(held), Some(field)) if held == field => Ok(()),
                _ => Err(RegistryError::Twice {
                    what,
                    name: held.key().1.to_string(),
                    first: held.get().0.to_string(),
                    second: by.to_string(),
                }),
            },
            Entry::Vacant(free) => {
                free.insert((by, field));
                Ok(())
            }
        }
    }

    fn offer(
        &mut self,
        offer: &'static Offer,
        provider: &str,
        by: &'static str,
        reserved: &[&str],
    ) -> Result<(), RegistryError> {
        for choice in std::iter::once(&offer.choice).chain(&offer.aliases) {
            self.claim("auth choice", choice.clone(), by)?;
        }
        for verb in &offer.verbs {
            // `models auth VERB --provider P`: two providers may share a verb.
            self.claim("auth verb", format!("{} --provider {provider}", verb.name), by)?;
        }
        for field in &offer.fields {
            let Some(flag) = &field.flag else { continue };
            if reserved.contains(&flag.as_ref()) {
                let (flag, plugin) = (flag.to_string(), by.to_string());
                return Err(RegistryError::Reserved { flag, plugin });
            }
            self.claim_same("flag", flag.clone(), by, Some(field))?;
        }
        Ok(())
    }
}
