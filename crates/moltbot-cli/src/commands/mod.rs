//! The commands, one file each: `command` describes it, `run` does it.

use clap::{Arg, ArgAction};
use moltbot_core::{Offer, Payer, ProviderInfo, Registry};
use moltbot_gateway::AgentPaths;
use moltbot_profiles::Profiles;

use crate::Failure;
use crate::out::clean;
use crate::text::nearest;

pub(crate) mod agent;
pub(crate) mod agents;
pub(crate) mod auth;
pub(crate) mod channels;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod cooldown;
pub(crate) mod credentials;
pub(crate) mod doctor;
pub(crate) mod explain;
pub mod fields;
pub(crate) mod gateway;
pub(crate) mod health;
#[cfg(feature = "lab")]
pub(crate) mod lab;
pub(crate) mod models;
pub(crate) mod order;
pub(crate) mod plugins;
pub(crate) mod status;
mod talk;

/// The flag `--json`.
pub fn json_arg() -> Arg {
    Arg::new("json").long("json").help("Print JSON").action(ArgAction::SetTrue)
}

/// The flag `--agent`.
pub fn agent_arg() -> Arg {
    Arg::new("agent").long("agent").value_name("ID").help("Use this agent, not the default one")
}

/// Refuses a profile that an agent does not have, and says which one was probably meant.
pub(crate) fn unknown_profile(agent: &AgentPaths, profiles: &Profiles, id: &str) -> Failure {
    let message = format!("Auth profile \"{}\" not found in {}.", clean(id), agent.dir.display());
    let failure = Failure::new(message).code("profile-unknown");
    let known = || profiles.iter().map(|(known, _)| known);
    let short = known().find(|known| known.split_once(':').is_some_and(|(_, name)| name == id));
    match short.or_else(|| nearest(id, known())) {
        Some(near) => failure.hint(format!("did you mean {near}?")),
        None => failure.hint("`moltbot models status` shows the profiles"),
    }
}

/// The provider that examples and defaults use: the one whose offer is recommended, else the
/// first.
pub fn usual_provider(registry: &Registry) -> &'static str {
    let offers = registry.offers().iter().filter(|entry| entry.offer.caps.recommended);
    let mut recommended = offers.map(|entry| entry.provider);
    let mut all = registry.providers().iter().map(|entry| entry.info);
    let first = |infos: &mut dyn Iterator<Item = &'static ProviderInfo>| {
        infos.min_by_key(|info| std::cmp::Reverse(info.priority))
    };
    first(&mut recommended).or_else(|| first(&mut all)).map_or("provider", |info| info.id.as_ref())
}

/// Says in one line who pays for a credential and what the vendor says about it (decision 6).
pub fn terms(offer: &Offer) -> String {
    let payer = match offer.payer {
        Payer::Metered => "paid per use",
        Payer::Subscription => "from a subscription",
        Payer::Unknown => "payer unknown",
    };
    match &offer.policy {
        Some(policy) => {
            format!("[{payer}] {} ({}, read {})", policy.line, policy.source, policy.checked)
        }
        None => format!("[{payer}]"),
    }
}
