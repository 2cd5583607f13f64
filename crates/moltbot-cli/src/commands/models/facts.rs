//! What `models status` tells people beside its JSON: addresses, ignored variables, retirements,
//! parameters without effect.

use moltbot_core::Timestamp;
use moltbot_gateway::{Engine, ProfileView, ProviderSetup};
use moltbot_profiles::normalize_provider;

use crate::out::clean;
use crate::{Context, Failure};

/// How long before a model's retirement it is mentioned, in days (decision 12).
const RETIREMENT_DAYS: i64 = 60;

/// Collects the facts, each with its label.
pub(super) fn gather(
    cx: &mut Context,
    engine: &Engine,
    views: &[ProfileView],
) -> Result<Vec<(&'static str, String)>, Failure> {
    let env = cx.env()?;
    let mut facts = Vec::new();
    for setup in engine.providers() {
        if setup.own_base_url {
            let place = format!("models.providers.{}.baseUrl", setup.id);
            facts.push(("Base URL", format!("{} {} ({place})", setup.id, clean(&setup.base_url))));
        }
        for name in &setup.info.ignored_env {
            if setup.borrowed || env.get(name).is_none() {
                continue;
            }
            let used = |other: &&ProviderSetup| other.info.env.iter().any(|key| key.name == *name);
            let fact = match engine.providers().iter().find(used) {
                // One provider's key is kept from another's program, where it would pay instead.
                Some(_) if !engine.is_used(&setup.id) => continue,
                Some(other) => {
                    ("Kept back", format!("{name} is for {}; {} never gets it", other.id, setup.id))
                }
                None => ("Ignored", format!("{name} is set, but moltbot does not use it")),
            };
            if !facts.contains(&fact) {
                facts.push(fact);
            }
        }
    }
    for listed in engine.models().listed() {
        let retires = engine.models().info(&listed.model).and_then(|info| info.retires.as_deref());
        if let Some(text) = retires.and_then(|day| retirement(day, cx.now())) {
            facts.push(("Retires", format!("{} {text}", listed.model)));
        }
        let params = engine.models().params(&listed.model);
        if let Some(text) = ttl_without_effect(engine, views, &listed.model.provider, &params) {
            facts.push(("No effect", format!("{}: {text}", listed.model)));
        }
    }
    Ok(facts)
}

/// Says when a model stops answering, if that is near or past.
fn retirement(day: &str, now: Timestamp) -> Option<String> {
    let day: jiff::civil::Date = day.parse().ok()?;
    let today = jiff::Timestamp::from_millisecond(now.millis()).ok()?;
    let today = today.to_zoned(jiff::tz::TimeZone::UTC).date();
    let days = i64::from(today.until(day).ok()?.get_days());
    match days {
        ..0 => Some(format!("was retired on {day}")),
        0 => Some("is retired today".to_string()),
        1..=RETIREMENT_DAYS => Some(format!("on {day}, in {days} days")),
        _ => None,
    }
}

/// Says where a cache lifetime is set that no profile of the provider may ask for.
fn ttl_without_effect(
    engine: &Engine,
    views: &[ProfileView],
    provider: &str,
    params: &serde_json::Value,
) -> Option<String> {
    let ttl = params.get("cacheControlTtl")?.as_str()?;
    let setup = engine.provider(provider)?;
    let without: Vec<&str> = views
        .iter()
        .filter(|view| normalize_provider(&view.stored.provider) == provider)
        .filter(|view| {
            let caps = setup.entry.provider.caps(&view.stored.kind);
            !caps.cache_ttl.iter().any(|known| known == ttl)
        })
        .map(|view| view.id.as_str())
        .collect();
    let ids = without.join(", ");
    (!without.is_empty()).then(|| format!("cacheControlTtl {} with {ids}", clean(ttl)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retirements_near_and_past() {
        // 2026-09-21T14:13:20Z
        let now = Timestamp::from_millis(1_790_000_000_000);
        let on = |day| retirement(day, now);
        assert_eq!(on("2026-09-20").unwrap(), "was retired on 2026-09-20");
        assert_eq!(on("2026-09-21").unwrap(), "is retired today");
        assert_eq!(on("2026-11-20").unwrap(), "on 2026-11-20, in 60 days");
        assert_eq!(on("2026-11-21"), None);
        assert_eq!(on("soon"), None);
    }
}
