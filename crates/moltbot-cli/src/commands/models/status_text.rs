//! `models status` for people (spec L-39).

use moltbot_core::CredentialKind;
use moltbot_gateway::ProbeResult;
use moltbot_profiles::{Health, remaining_text};

use super::probe::Probes;
use super::report::{Profile, Provider, Report};
use crate::Context;
use crate::out::{Tone, clean};

pub(super) fn print(cx: &mut Context, report: &Report, alias: Option<&str>) {
    models(cx, report, alias);
    overview(cx, report);
    let logins: Vec<&Profile> = report
        .auth
        .oauth
        .profiles
        .iter()
        .filter(|row| matches!(row.kind, CredentialKind::Oauth | CredentialKind::Token))
        .collect();
    if !logins.is_empty() {
        heading(cx, "OAuth/token status");
        for row in logins {
            let line = login(cx, row);
            cx.out.wrapped(line, 2);
        }
    }
    if !report.terms.is_empty() {
        heading(cx, "Who pays");
        for (name, text) in &report.terms {
            cx.out.wrapped(format!("- {}: {}", clean(name), text), 2);
        }
    }
    if let Some(known) = &report.auth.usage {
        heading(cx, "Limits");
        super::windows::print(cx, known);
    }
    if let Some(found) = &report.auth.probes {
        heading(cx, "Auth probes");
        probes(cx, found);
    }
}

/// Prints what came of probes.
pub(super) fn probes(cx: &mut Context, probes: &Probes) {
    let rows: Vec<Vec<String>> = probes.results.iter().map(probe).collect();
    cx.out.table(&["Model", "Profile", "Status", "Time", "Error"], &rows);
    if rows.is_empty() {
        cx.out.line("nothing to probe");
    }
}

fn models(cx: &mut Context, report: &Report, alias: Option<&str>) {
    let default = match alias {
        Some(alias) => format!("{} (from {alias})", report.resolved_default),
        None => report.resolved_default.clone(),
    };
    let config = cx.shown(&report.config_path);
    let agent = cx.shown(&report.agent_dir);
    let aliases: Vec<String> =
        report.aliases.iter().map(|(alias, key)| format!("{alias} -> {key}")).collect();
    let allowed = match report.allowed.is_empty() {
        true => "all".to_string(),
        false => report.allowed.join(", "),
    };
    let lines = [
        ("Config".to_string(), config),
        ("Agent dir".to_string(), agent),
        ("Default".to_string(), default),
        ("Next request".to_string(), report.next.clone()),
        (format!("Fallbacks ({})", report.fallbacks.len()), list(&report.fallbacks)),
        ("Image model".to_string(), report.image_model.clone().unwrap_or_else(|| "-".into())),
        (
            format!("Image fallbacks ({})", report.image_fallbacks.len()),
            list(&report.image_fallbacks),
        ),
        (format!("Aliases ({})", aliases.len()), list(&aliases)),
        (format!("Configured models ({})", report.allowed.len()), allowed),
    ];
    for (label, text) in lines {
        row(cx, &label, &text);
    }
    for (label, text) in &report.facts {
        row(cx, label, text);
    }
}

fn overview(cx: &mut Context, report: &Report) {
    let auth = &report.auth;
    heading(cx, "Auth overview");
    let store = cx.shown(&auth.store_path);
    row(cx, "Auth store", &store);
    let shell = match (auth.shell_env_fallback.enabled, &auth.shell_env_fallback.applied_keys) {
        (false, _) => "off".to_string(),
        (true, keys) if keys.is_empty() => "on".to_string(),
        (true, keys) => format!("on ({})", keys.join(", ")),
    };
    row(cx, "Shell env", &shell);
    let label = format!("Providers w/ OAuth/tokens ({})", auth.providers_with_oauth.len());
    row(cx, &label, &list(&auth.providers_with_oauth));
    for provider in &auth.providers {
        cx.out.wrapped(overview_line(provider), 2);
    }
    for row in &auth.unusable_profiles {
        let reason = row.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        let left = remaining_text(Some(row.remaining_ms));
        let line = format!("- {} rests for {left}{reason}", clean(&row.profile_id));
        cx.out.wrapped(line, 2);
    }
    if !auth.missing_providers_in_use.is_empty() {
        heading(cx, "Missing auth");
        for provider in &auth.missing_providers_in_use {
            let line =
                format!("- {}: run `moltbot onboard`{}", clean(provider), or_set(cx, provider));
            let line = cx.out.paint(Tone::Bad, &line);
            cx.out.wrapped(line, 2);
        }
    }
}

/// Names the variable that would do instead, where the provider takes a key.
fn or_set(cx: &Context, provider: &str) -> String {
    let key = cx.registry.provider(provider).and_then(|entry| entry.info.api_key.as_ref());
    let name = key.map(|key| key.env.as_ref()).filter(|name| !name.is_empty());
    name.map(|name| format!(" or set {name}")).unwrap_or_default()
}

fn overview_line(provider: &Provider) -> String {
    let counts = &provider.profiles;
    let mut parts = vec![format!(
        "- {} effective={}:{}",
        clean(&provider.provider),
        provider.effective.kind,
        provider.effective.detail
    )];
    if counts.count > 0 {
        parts.push(format!(
            "profiles={} (oauth={}, token={}, api_key={})",
            counts.count, counts.oauth, counts.token, counts.api_key
        ));
        parts.push(counts.labels.join(", "));
    }
    if let Some(env) = &provider.env {
        parts.push(format!("env={} | source={}", env.value, env.source));
    }
    if let Some(config) = &provider.models_json {
        parts.push(format!("models.json={} | source={}", config.value, config.source));
    }
    parts.join(" | ")
}

fn login(cx: &Context, row: &Profile) -> String {
    let (word, tone) = match row.status {
        Health::Static => ("static", Tone::Good),
        Health::Ok => ("ok", Tone::Good),
        Health::Expiring => ("expiring", Tone::Warn),
        Health::Missing => ("missing", Tone::Bad),
        Health::Expired => ("expired", Tone::Bad),
    };
    let mut line = format!("- {} {}", clean(&row.label), cx.out.paint(tone, word));
    if row.expires_at.is_some() && row.status != Health::Expired {
        line.push_str(&format!(" expires in {}", remaining_text(row.remaining_ms)));
    }
    if row.source != "store" {
        line.push_str(&format!(" ({})", clean(&row.source)));
    }
    if let Some(login) = row.login.as_ref().filter(|login| !login.usable) {
        let word = |yes| if yes { "yes" } else { "no" };
        let (present, valid) = (word(login.present), word(login.valid));
        line.push_str(&format!(" present: {present}, valid: {valid}, usable now: no"));
    }
    if let Some(detail) = &row.detail {
        line.push_str(&format!(": {}", clean(detail)));
    }
    line
}

fn probe(result: &ProbeResult) -> Vec<String> {
    let target = &result.target;
    vec![
        target.model.clone().unwrap_or_else(|| target.provider.clone()),
        target.label.clone(),
        // The word of the JSON output.
        serde_json::json!(result.status).as_str().unwrap_or_default().to_string(),
        result.latency_ms.map_or_else(|| "-".to_string(), |ms| format!("{ms} ms")),
        result.error.clone().unwrap_or_default(),
    ]
}

fn row(cx: &mut Context, label: &str, text: &str) {
    cx.out.wrapped(format!("{label:<25}: {text}"), 27);
}

fn heading(cx: &mut Context, text: &str) {
    let text = cx.out.paint(Tone::Strong, text);
    cx.out.line("");
    cx.out.line(text);
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "-".to_string() } else { items.join(", ") }
}
