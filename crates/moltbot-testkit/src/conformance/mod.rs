//! The suite that every plugin has to pass, linked and through the wire.

mod auth;
mod login;
mod provider;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use moltbot_abi::{Memory, PluginHandle};
use moltbot_core::{Credential, Plugin, ProviderInfo, RenewSettings};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{ScriptedHost, block_on, sample_provider};

type MakeHost = Arc<dyn Fn() -> ScriptedHost>;

/// The suite for one plugin: what to try, then [`run`](Self::run) or [`check`](Self::check).
///
/// Without anything added it offers a sample provider and the plugin's own ones, lets nobody
/// answer, then answers every question with a sample.
pub struct Conformance {
    plugin: &'static Plugin,
    providers: Vec<ProviderInfo>,
    scenes: Vec<Scene>,
    stored: Vec<Arc<dyn Fn() -> Credential>>,
    renew: Vec<RenewSettings>,
    bodies: Vec<String>,
    replies: Vec<Vec<u8>>,
}

#[derive(Clone)]
struct Scene {
    name: String,
    only: Option<String>,
    host: MakeHost,
}

/// One rule that a plugin breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The rule: what is expected.
    pub rule: &'static str,
    /// Where: method or provider, choice, scene.
    pub place: String,
    /// What was found instead.
    pub found: String,
    /// What to change.
    pub fix: &'static str,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, place, found, fix } = self;
        write!(f, "{rule}\n    where: {place}\n    found: {found}\n    fix:   {fix}")
    }
}

impl Conformance {
    /// Prepares the suite for a plugin.
    pub fn of(plugin: &'static Plugin) -> Self {
        let mut providers = vec![sample_provider()];
        for provider in plugin.providers {
            // A panic here is reported by the provider's own checks.
            if let Ok(info) = catch_unwind(AssertUnwindSafe(|| provider.info())) {
                providers.push(info);
            }
        }
        Self {
            plugin,
            providers,
            scenes: Vec::new(),
            stored: Vec::new(),
            renew: vec![RenewSettings::default()],
            bodies: Vec::new(),
            replies: Vec::new(),
        }
    }

    /// Adds a provider for which the methods are asked what they offer.
    pub fn provider(mut self, info: ProviderInfo) -> Self {
        self.providers.push(info);
        self
    }

    /// Adds a scene: a host in whose world a login should succeed. It is tried with every choice
    /// and verb.
    pub fn scene(self, name: &str, host: impl Fn() -> ScriptedHost + 'static) -> Self {
        self.add_scene(name, None, host)
    }

    /// Adds a scene for one choice or verb.
    pub fn scene_for(
        self,
        choice_or_verb: &str,
        name: &str,
        host: impl Fn() -> ScriptedHost + 'static,
    ) -> Self {
        self.add_scene(name, Some(choice_or_verb.to_string()), host)
    }

    /// Adds a stored credential that the methods resolve, renew, refresh and examine.
    pub fn stored(mut self, credential: impl Fn() -> Credential + 'static) -> Self {
        self.stored.push(Arc::new(credential));
        self
    }

    /// Adds settings under which the methods renew.
    pub fn renew_settings(mut self, settings: RenewSettings) -> Self {
        self.renew.push(settings);
        self
    }

    /// Adds a body that the providers translate.
    pub fn chat(mut self, body: &str) -> Self {
        self.bodies.push(body.to_string());
        self
    }

    /// Adds a reply that the providers decode, in every split.
    pub fn reply(mut self, bytes: &[u8]) -> Self {
        self.replies.push(bytes.to_vec());
        self
    }

    /// Runs every check and returns what was found, empty if all is well.
    pub fn run(&self) -> Vec<Breach> {
        let mut report = Report::default();
        let memory = Memory::carrying(&[self.plugin]);
        let carried = match block_on(PluginHandle::connect(memory.clone())) {
            Ok(mut plugins) if plugins.len() == 1 => plugins.remove(0),
            other => {
                report.add(
                    "a plugin can be carried",
                    self.plugin.id,
                    format!("{other:?}"),
                    "make `id` and `info` of methods and providers plain and free of panics",
                );
                return report.breaches;
            }
        };
        let linked = PluginHandle::linked(self.plugin);
        let sides = Sides { memory: &memory };
        auth::check(self, &linked, &carried, &sides, &mut report);
        provider::check(self, &linked, &carried, &mut report);
        let open = memory.guest().open_tasks();
        if open > 0 {
            report.add(
                "nothing is left behind",
                self.plugin.id,
                format!("{open} open tasks after the suite"),
                "report it: the guest should have ended them",
            );
        }
        report.breaches
    }

    /// Runs every check; panics with the whole list if a rule is broken.
    pub fn check(&self) {
        let breaches = self.run();
        let list: String = breaches.iter().map(|breach| format!("\n- {breach}")).collect();
        assert!(breaches.is_empty(), "{} breaks {} rules:{list}", self.plugin.id, breaches.len());
    }

    fn add_scene(
        mut self,
        name: &str,
        only: Option<String>,
        host: impl Fn() -> ScriptedHost + 'static,
    ) -> Self {
        self.scenes.push(Scene { name: name.to_string(), only, host: Arc::new(host) });
        self
    }
}

/// What both runs of a check share.
struct Sides<'a> {
    memory: &'a Arc<Memory>,
}

/// What was found so far: each rule once per place.
#[derive(Default)]
struct Report {
    breaches: Vec<Breach>,
}

impl Report {
    fn add(
        &mut self,
        rule: &'static str,
        place: impl Into<String>,
        found: impl Into<String>,
        fix: &'static str,
    ) {
        let breach = Breach { rule, place: place.into(), found: found.into(), fix };
        let same = |old: &&Breach| old.rule == rule && old.place == breach.place;
        if self.breaches.iter().find(same).is_none() {
            self.breaches.push(breach);
        }
    }

    /// Runs the plugin's code; a panic becomes a breach.
    fn calm<T>(&mut self, place: &str, call: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(value) => Some(value),
            Err(panic) => {
                let text = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
                    .unwrap_or_else(|| "a panic".to_string());
                self.add(
                    "no input makes a plugin panic or wait for anything but the host",
                    place,
                    text,
                    "return an error instead; await only what `Cx` offers",
                );
                None
            }
        }
    }

    /// Checks that a value survives JSON.
    fn round_trip<T>(&mut self, what: &str, place: &str, value: &T)
    where
        T: Serialize + DeserializeOwned + PartialEq + fmt::Debug,
    {
        let back = serde_json::to_string(value)
            .map_err(|error| error.to_string())
            .and_then(|text| serde_json::from_str::<T>(&text).map_err(|error| error.to_string()));
        if back.as_ref() != Ok(value) {
            self.add(
                "offers, infos, exchanges and events survive a round trip through JSON",
                format!("{place}, {what}"),
                format!("{back:?} instead of {value:?}"),
                "use only values that JSON can hold: no NaN, no `Unknown` variant",
            );
        }
    }
}
