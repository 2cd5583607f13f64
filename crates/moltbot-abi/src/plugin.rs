//! A plugin as the host holds it, and the rule by which two versions get along.

use std::fmt;
use std::sync::Arc;

use moltbot_core::semver::{Op, Version, VersionReq};
use moltbot_core::{Code, Plugin, VERSION};

use crate::wire::{Described, Hello, HostMessage, OFFERS_OF, decode, encode};
use crate::{CarriedMethod, CarriedProvider, Carrier, CarrierError, MethodHandle, ProviderHandle};

/// One plugin, linked or carried, with handles to everything it brings.
#[derive(Clone)]
pub struct PluginHandle {
    /// The plugin's id.
    pub id: String,
    /// The plugin's version.
    pub version: String,
    /// The plugin's description.
    pub about: String,
    /// The version of `moltbot-core` it was built with.
    pub core: String,
    /// What the other side understands beyond its version; ours for a linked plugin.
    pub features: Vec<String>,
    /// Its auth methods.
    pub methods: Vec<MethodHandle>,
    /// Its providers, in the order of their ids in [`Described`].
    pub providers: Vec<ProviderHandle>,
    /// Its pages for `moltbot explain`.
    pub codes: Vec<Code>,
}

impl PluginHandle {
    /// Holds a plugin of this binary.
    pub fn linked(plugin: &'static Plugin) -> Self {
        Self {
            id: plugin.id.to_string(),
            version: plugin.version.to_string(),
            about: plugin.about.to_string(),
            core: plugin.core.to_string(),
            features: Hello::ours().features,
            methods: plugin.auth.iter().map(|it| MethodHandle::Linked(*it)).collect(),
            providers: plugin.providers.iter().map(|it| ProviderHandle::Linked(*it)).collect(),
            codes: plugin.codes.to_vec(),
        }
    }

    /// Says hello to a guest and holds its plugins. Errors: the carrier's, or
    /// [`CarrierError::Incompatible`].
    pub async fn connect(carrier: Arc<dyn Carrier>) -> Result<Vec<Self>, CarrierError> {
        Ok(Self::described(greet(&carrier).await?, carrier))
    }

    /// Holds the plugins that a guest described, now or earlier.
    pub(crate) fn described(theirs: Hello, carrier: Arc<dyn Carrier>) -> Vec<Self> {
        let (core, features) = (theirs.core, theirs.features);
        let hold = |plugin: Described| {
            let mut infos = said(plugin.infos, plugin.providers.len());
            let mut settings = said(plugin.settings, plugin.methods.len());
            let together = features.iter().any(|name| name == OFFERS_OF);
            let method = |id| {
                let carrier = carrier.clone();
                let method = CarriedMethod::new(id, carrier, settings.next().flatten(), together);
                MethodHandle::Carried(Arc::new(method))
            };
            let methods = plugin.methods.into_iter().map(method).collect();
            let provider = |id| {
                let provider = CarriedProvider::new(id, carrier.clone(), infos.next().flatten());
                ProviderHandle::Carried(Arc::new(provider))
            };
            Self {
                id: plugin.id,
                version: plugin.version,
                about: plugin.about,
                core: core.clone(),
                features: features.clone(),
                methods,
                providers: plugin.providers.into_iter().map(provider).collect(),
                codes: plugin.codes,
            }
        };
        theirs.plugins.into_iter().map(hold).collect()
    }
}

/// Says hello to a guest and judges its version.
pub(crate) async fn greet(carrier: &Arc<dyn Carrier>) -> Result<Hello, CarrierError> {
    let ours = Hello::ours();
    let answer = carrier.turn(encode(&HostMessage::Hello { hello: &ours })).await?;
    let theirs: Hello = decode(&answer)?;
    if !compatible(VERSION, &theirs.core) {
        let (theirs, ours) = (theirs.core, ours.core);
        return Err(CarrierError::Incompatible { theirs, ours });
    }
    Ok(theirs)
}

/// Hands out what a guest said of each of its `count` parts; nothing unless it spoke of them all.
fn said<T>(all: Vec<T>, count: usize) -> impl Iterator<Item = Option<T>> {
    let all = if all.len() == count { all } else { Vec::new() };
    all.into_iter().map(Some).chain(std::iter::repeat_with(|| None))
}

impl fmt::Debug for PluginHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PluginHandle({} {})", self.id, self.version)
    }
}

/// Tells whether two versions of `moltbot-core` understand each other: the higher has to satisfy
/// `^lower`. What is no version is compatible with nothing.
///
/// ```
/// use moltbot_abi::compatible;
/// assert!(compatible("1.2.0", "1.9.3") && compatible("1.9.3", "1.2.0"));
/// assert!(!compatible("1.2.0", "2.0.0"));
/// assert!(!compatible("0.1.0", "0.2.0"), "below 1.0 a minor version is a break");
/// ```
pub fn compatible(one: &str, other: &str) -> bool {
    let (Ok(one), Ok(other)) = (Version::parse(one), Version::parse(other)) else { return false };
    let (lower, higher) = if one <= other { (one, other) } else { (other, one) };
    let caret = moltbot_core::semver::Comparator {
        op: Op::Caret,
        major: lower.major,
        minor: Some(lower.minor),
        patch: Some(lower.patch),
        pre: lower.pre,
    };
    VersionReq { comparators: vec![caret] }.matches(&higher)
}
