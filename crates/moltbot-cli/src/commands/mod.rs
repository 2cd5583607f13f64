//! The commands, one file each: `command` describes it, `run` does it.

use clap::{Arg, ArgAction};
use moltbot_core::{Offer, Payer, ProviderInfo, Registry};

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
