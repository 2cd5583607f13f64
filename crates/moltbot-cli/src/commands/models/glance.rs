//! The short form of `models status`, for `health` and `status`: is an agent in order?

use moltbot_gateway::AgentPaths;
use moltbot_profiles::{Health, remaining_text};
use serde_json::{Value, json};

use super::{probe, report, status, status_text};
use crate::{Context, Exit, Failure};

/// How one agent is doing.
pub(crate) struct Glance {
    report: report::Report,
}

/// Looks at an agent; changes nothing and asks no service.
pub(crate) fn glance(cx: &mut Context, agent: &AgentPaths) -> Result<Glance, Failure> {
    let engine = cx.engine(agent)?;
    Ok(Glance { report: report::gather(cx, &engine, agent)? })
}

/// Asks the service with every credential of an agent, changing nothing, and prints the answers;
/// returns them for JSON.
pub(crate) fn deep(
    cx: &mut Context,
    agent: &AgentPaths,
    timeout_ms: u64,
    print: bool,
) -> Result<Value, Failure> {
    let engine = cx.engine(agent)?;
    let probes = probe::run(cx, &engine, probe::Plan::usual(timeout_ms))?;
    if print {
        status_text::probes(cx, &probes);
    }
    Ok(json!(probes))
}

impl Glance {
    /// Tells whether a request would find a credential that is not expired.
    pub(crate) fn is_ok(&self) -> bool {
        status::check(&self.report) != Exit(1)
    }

    /// Says it in a word.
    pub(crate) fn word(&self) -> &'static str {
        match status::check(&self.report).0 {
            0 => "ok",
            2 => "ok, but a login or token ends soon",
            _ => "not in order",
        }
    }

    /// Returns the model that is used without being asked for.
    pub(crate) fn model(&self) -> &str {
        &self.report.resolved_default
    }

    /// Says what is wrong, line by line.
    pub(crate) fn lines(&self) -> Vec<String> {
        let auth = &self.report.auth;
        let missing = auth.missing_providers_in_use.iter();
        let mut lines: Vec<String> =
            missing.map(|id| format!("no credential for {id}: moltbot onboard")).collect();
        for row in auth.oauth.profiles.iter().filter(|row| row.counts) {
            let id = &row.profile_id;
            lines.extend(match row.status {
                Health::Expired => Some(format!("{id} is expired: moltbot models auth add")),
                Health::Missing => Some(format!("{id} is missing: moltbot models auth add")),
                Health::Expiring => {
                    Some(format!("{id} ends in {}", remaining_text(row.remaining_ms)))
                }
                Health::Ok | Health::Static => None,
            });
        }
        for row in &auth.unusable_profiles {
            let left = remaining_text(Some(row.remaining_ms));
            lines.push(format!("{} rests for {left}", row.profile_id));
        }
        lines
    }

    /// Says it for programs.
    pub(crate) fn json(&self, id: &str) -> Value {
        let auth = &self.report.auth;
        json!({
            "agentId": id,
            "ok": self.is_ok(),
            "check": status::check(&self.report).0,
            "model": self.report.resolved_default,
            "authStorePath": auth.store_path,
            "missingProvidersInUse": auth.missing_providers_in_use,
            "unusableProfiles": auth.unusable_profiles,
            "oauth": auth.oauth.providers.iter()
                .map(|row| json!({ "provider": row.provider, "status": row.status }))
                .collect::<Vec<_>>(),
        })
    }
}
