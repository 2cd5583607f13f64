//! `moltbot models auth cooldown list|clear`: which profiles rest, and an early end to it
//! (spec S-16).

use clap::{Arg, ArgMatches, Command};
use moltbot_core::{Registry, Timestamp};
use moltbot_gateway::AgentPaths;
use moltbot_profiles::{BlockKind, Profiles, Unusable, normalize_provider, remaining_text};
use serde_json::json;

use crate::context::iso;
use crate::{Context, Exit, Failure, Outcome};

use super::{agent_arg, json_arg, unknown_profile, usual_provider};

/// Describes the command.
pub(crate) fn command(registry: &Registry) -> Command {
    let usual = usual_provider(registry);
    let args = || {
        let text = |name: &'static str, help: &'static str| {
            Arg::new(name).long(name).value_name("ID").help(help)
        };
        let profile = text("profile", "Only this profile");
        let provider = text("provider", "Only the profiles of this provider");
        [profile, provider, agent_arg(), json_arg()]
    };
    Command::new("cooldown")
        .about("Show which profiles rest after a failure, or use them again at once")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("list")
                .about("Show the profiles that rest, for how long, and for which models")
                .args(args())
                .after_help("Example:\n  moltbot models auth cooldown list --json"),
        )
        .subcommand(
            Command::new("clear")
                .about("Forget failures and rests, of one profile or of all")
                .args(args())
                .after_help(format!(
                    "Example:\n  moltbot models auth cooldown clear --profile {usual}:default"
                )),
        )
        .after_help("Example:\n  moltbot models auth cooldown list")
}

/// Runs a subcommand.
pub(crate) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let (name, args) = args.subcommand().expect("clap requires a subcommand");
    let provider = args.get_one::<String>("provider").map(|raw| {
        let id = normalize_provider(raw);
        cx.registry.provider(&id).map_or(id, |entry| normalize_provider(&entry.info.id))
    });
    let profile = args.get_one::<String>("profile").map(|id| id.trim().to_string());
    let agent = cx.agent(args)?;
    let wanted = Wanted { profile, provider };
    match name {
        "list" => list(cx, &agent, &wanted, args.get_flag("json")),
        _ => clear(cx, &agent, &wanted, args.get_flag("json")),
    }
}

/// Which profiles are meant.
struct Wanted {
    profile: Option<String>,
    provider: Option<String>,
}

impl Wanted {
    /// Refuses a profile that is neither stored nor remembered, and one of another provider.
    fn check(&self, profiles: &Profiles, agent: &AgentPaths) -> Result<(), Failure> {
        let Some(id) = &self.profile else { return Ok(()) };
        if !profiles.contains(id) && profiles.stats(id).is_none() {
            return Err(unknown_profile(agent, profiles, id));
        }
        let owner = provider_of(profiles, id);
        match &self.provider {
            Some(provider) if *provider != owner => {
                let message = format!("Auth profile \"{id}\" is for {owner}, not {provider}.");
                Err(Failure::new(message).code("profile-unknown"))
            }
            _ => Ok(()),
        }
    }

    fn takes(&self, profiles: &Profiles, id: &str) -> bool {
        self.profile.as_deref().is_none_or(|wanted| wanted == id)
            && self.provider.as_ref().is_none_or(|wanted| *wanted == provider_of(profiles, id))
    }

    fn resting(&self, profiles: &Profiles, now: Timestamp) -> Vec<Unusable> {
        let mut resting = profiles.unusable(now);
        resting.retain(|row| self.takes(profiles, &row.profile_id));
        resting
    }
}

/// Returns whose a profile is; a login that is not stored is named after its provider.
fn provider_of(profiles: &Profiles, id: &str) -> String {
    let stored = profiles.get(id).map(|stored| stored.provider.as_str());
    normalize_provider(stored.unwrap_or_else(|| id.split(':').next().unwrap_or(id)))
}

fn list(cx: &mut Context, agent: &AgentPaths, wanted: &Wanted, json: bool) -> Outcome {
    let profiles = cx.store(agent).load_blocking()?.profiles;
    wanted.check(&profiles, agent)?;
    let resting = wanted.resting(&profiles, cx.now());
    if json {
        cx.out.json(&json!({
            "agentId": agent.id,
            "agentDir": agent.dir,
            "authStorePath": agent.store,
            "cooldowns": resting,
        }));
    } else if resting.is_empty() {
        cx.out.line("No profile is cooling down.");
    } else {
        let rows: Vec<_> = resting.iter().map(row).collect();
        cx.out.table(&["Profile", "State", "Models", "Left", "Until"], &rows);
    }
    Ok(Exit::OK)
}

fn row(resting: &Unusable) -> Vec<String> {
    let state = match (resting.kind, &resting.reason) {
        (BlockKind::Cooldown, _) => "cooldown".to_string(),
        (BlockKind::Disabled, None) => "disabled".to_string(),
        (BlockKind::Disabled, Some(reason)) => format!("disabled: {reason}"),
        (BlockKind::Empty, limit) => format!("empty: {}", limit.as_deref().unwrap_or("limit")),
    };
    let models =
        if resting.models.is_empty() { "all".to_string() } else { resting.models.join(", ") };
    let left = remaining_text(Some(resting.remaining_ms));
    vec![resting.profile_id.clone(), state, models, left, iso(resting.until)]
}

fn clear(cx: &mut Context, agent: &AgentPaths, wanted: &Wanted, json: bool) -> Outcome {
    let now = cx.now();
    let store = cx.store(agent);
    let profiles = store.load_blocking()?.profiles;
    wanted.check(&profiles, agent)?;
    // A store in which nothing rests is not written.
    let mut cleared = Vec::new();
    if !wanted.resting(&profiles, now).is_empty() {
        cleared = store.update_blocking(now, |profiles| {
            let ids: Vec<String> = profiles
                .all_stats()
                .map(|(id, _)| id.to_string())
                .filter(|id| wanted.takes(profiles, id))
                .collect();
            ids.into_iter().flat_map(|id| profiles.clear_cooldowns(Some(&id), now)).collect()
        })?;
    }
    if json {
        cx.out.json(&json!({
            "agentId": agent.id,
            "agentDir": agent.dir,
            "authStorePath": agent.store,
            "cleared": cleared,
        }));
    } else if cleared.is_empty() {
        cx.out.line("No profile was cooling down.");
    } else {
        cx.out.line(format!("Cleared: {}", cleared.join(", ")));
    }
    Ok(Exit::OK)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{Bench, NOW};

    const LIST: &[&str] = &["models", "auth", "cooldown", "list"];
    const CLEAR: &[&str] = &["models", "auth", "cooldown", "clear"];

    fn bench() -> Bench {
        let bench = Bench::new();
        let key =
            |provider: &str| json!({ "type": "api_key", "provider": provider, "key": "FAKE" });
        let store = json!({ "version": 1,
            "profiles": { "acme:a": key("acme"), "acme:b": key("acme"), "other:x": key("other") },
            "usageStats": {
                "acme:a": { "lastFailureAt": NOW - 1, "errorCount": 1,
                    "cooldownUntil": NOW + 60_000, "lastUsed": 7 },
                "acme:b": { "models": { "big-2": { "lastFailureAt": NOW - 1,
                    "cooldownUntil": NOW + 120_000 } } },
                "other:x": { "lastFailureAt": NOW - 1, "disabledUntil": NOW + 3_600_000,
                    "disabledReason": "billing" },
            } });
        bench.store(&store.to_string());
        bench
    }

    fn ids(bench: &Bench, more: &[&str]) -> Vec<String> {
        let ran = bench.run(&[LIST, &["--json"], more].concat());
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        let value: Value = serde_json::from_str(&ran.stdout).unwrap();
        let rows = value["cooldowns"].as_array().unwrap().iter();
        rows.map(|row| row["profileId"].as_str().unwrap().to_string()).collect()
    }

    #[test]
    fn what_rests_is_listed_soonest_first() {
        let bench = bench();
        assert_eq!(ids(&bench, &[]), ["acme:a", "acme:b", "other:x"]);
        assert_eq!(ids(&bench, &["--provider", "ACME"]), ["acme:a", "acme:b"]);
        assert_eq!(ids(&bench, &["--profile", "acme:b"]), ["acme:b"]);
        let text = bench.run(LIST).stdout;
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[2].contains("big-2") && lines[2].contains("2m"), "{text}");
        assert!(lines[3].contains("disabled: billing") && lines[3].contains("all"), "{text}");
    }

    #[test]
    fn one_profile_is_cleared_and_keeps_when_it_was_used() {
        let bench = bench();
        let ran = bench.run(&[CLEAR, &["--profile", "acme:a"]].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "Cleared: acme:a\n"));
        assert_eq!(ids(&bench, &[]), ["acme:b", "other:x"]);
        let store = std::fs::read_to_string(bench.store_path()).unwrap();
        let store: Value = serde_json::from_str(&store).unwrap();
        assert_eq!(store["usageStats"]["acme:a"]["lastUsed"], 7);
    }

    #[test]
    fn a_provider_or_all_are_cleared() {
        let bench = bench();
        let ran = bench.run(&[CLEAR, &["--provider", "acme", "--json"]].concat());
        let value: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(value["cleared"], json!(["acme:a", "acme:b"]));
        assert_eq!(ids(&bench, &[]), ["other:x"]);
        assert_eq!(bench.run(CLEAR).stdout, "Cleared: other:x\n");
        let before = bench.files();
        assert_eq!(bench.run(CLEAR).stdout, "No profile was cooling down.\n");
        assert_eq!(bench.run(LIST).stdout, "No profile is cooling down.\n");
        assert_eq!(bench.files(), before, "nothing to clear, nothing written");
    }

    #[test]
    fn unknown_and_foreign_profiles_are_refused() {
        let bench = bench();
        let before = bench.files();
        for args in [&["--profile", "acme:c"][..], &["--profile", "acme:a", "--provider", "other"]]
        {
            let ran = bench.run(&[CLEAR, args].concat());
            assert_eq!(ran.code, 1);
            assert!(ran.stderr.contains("hint: moltbot explain profile-unknown"), "{}", ran.stderr);
        }
        assert_eq!(bench.files(), before);
    }
}
