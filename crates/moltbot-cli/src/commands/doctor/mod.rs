//! `moltbot doctor`: finds what is wrong with config and stores, and repairs it (spec L-43).
//!
//! Without `--fix` nothing is changed. Exit code 1 as long as a problem remains.

mod config;
mod leftovers;
mod plugins;
mod state;
mod store;

use clap::{Arg, ArgAction, ArgMatches, Command};
use moltbot_core::Registry;

use super::{agents, gateway, models};
use crate::out::{Tone, clean};
use crate::{Context, Exit, Failure, Outcome};

/// How long one question to a service may take, in milliseconds.
const PROBE_MS: u64 = 8_000;

/// Describes the command.
pub(crate) fn command(_: &Registry) -> Command {
    let flag = |id: &'static str, help: &'static str| {
        Arg::new(id).long(id).help(help).action(ArgAction::SetTrue)
    };
    Command::new("doctor")
        .about("Find what is wrong with config and credentials, and repair it")
        .arg(flag("fix", "Repair what can be repaired").visible_alias("repair"))
        .arg(flag("yes", "The same as --fix"))
        .arg(flag("force", "Accepted for compatibility").hide(true))
        .arg(flag("non-interactive", "Ask nothing; the doctor never does").hide(true))
        .arg(flag("deep", "Ask the service too whether each credential works, changing nothing"))
        .arg(flag("generate-gateway-token", "Make a token for the gateway if it has none"))
        .arg(flag("no-workspace-suggestions", "Accepted for compatibility").hide(true))
        .after_help("Examples:\n  moltbot doctor\n  moltbot doctor --fix")
}

/// Runs every check, from the outside in.
pub(crate) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let fix = args.get_flag("fix") || args.get_flag("yes");
    let mut doctor = Doctor { fix, problems: 0, repairable: 0 };
    state::check(cx, &mut doctor)?;
    plugins::check(cx, &mut doctor);
    if config::check(cx, &mut doctor) {
        state::check_old_agent(cx, &mut doctor)?;
        store::check(cx, &mut doctor)?;
        if args.get_flag("generate-gateway-token") && gateway::ensure_token(cx)? {
            doctor.repaired(cx, "made a token for the gateway; `moltbot gateway token` prints it");
        }
        if args.get_flag("deep") {
            deep(cx, &mut doctor)?;
        }
    } else {
        cx.out.note("Credentials are not checked while the config is invalid");
    }
    if doctor.problems == 0 {
        let text = cx.out.paint(Tone::Good, "No problems found.");
        cx.out.line(text);
        return Ok(Exit::OK);
    }
    let word = if doctor.problems == 1 { "problem remains" } else { "problems remain" };
    let text = cx.out.paint(Tone::Bad, &format!("{} {word}.", doctor.problems));
    cx.out.line(text);
    if doctor.repairable > 0 && !fix {
        cx.out.hint("`moltbot doctor --fix` repairs what is marked so");
    }
    Ok(Exit::NO)
}

/// Asks the service with every credential of every agent; what it refuses is a problem.
fn deep(cx: &mut Context, doctor: &mut Doctor) -> Result<(), Failure> {
    let config = cx.config()?;
    for id in agents::ids(&config) {
        let agent = cx.agent_paths(&config, &id);
        let probes = models::deep(cx, &agent, PROBE_MS, false)?;
        for result in probes["results"].as_array().into_iter().flatten() {
            let text = |key: &str| clean(result[key].as_str().unwrap_or_default()).into_owned();
            let line = format!("agent {id}: {}: {}", text("label"), text("error"));
            match result["status"].as_str().unwrap_or_default() {
                "ok" => doctor.info(cx, &format!("agent {id}: {} works", text("label"))),
                "auth" => doctor.problem(cx, &line, Some("moltbot models auth add replaces it")),
                "billing" => {
                    let fix = "top up, or `moltbot models auth order set` another profile";
                    doctor.problem(cx, &line, Some(fix));
                }
                _ => doctor.warning(cx, &line),
            }
        }
    }
    Ok(())
}

/// Whether to repair, and what was found so far.
struct Doctor {
    fix: bool,
    problems: usize,
    repairable: usize,
}

impl Doctor {
    /// Reports what only a person can mend.
    fn problem(&mut self, cx: &mut Context, text: &str, fix: Option<&str>) {
        self.problems += 1;
        let mark = cx.out.paint(Tone::Bad, "problem:");
        cx.out.line(format!("{mark} {text}"));
        if let Some(fix) = fix {
            cx.out.line(format!("  {fix}"));
        }
    }

    /// Reports what `--fix` would repair.
    fn repairable(&mut self, cx: &mut Context, text: &str) {
        self.repairable += 1;
        self.problem(cx, text, Some("--fix repairs it"));
    }

    /// Reports a repair.
    fn repaired(&mut self, cx: &mut Context, text: &str) {
        let mark = cx.out.paint(Tone::Good, "repaired:");
        cx.out.line(format!("{mark} {text}"));
    }

    /// Reports what is no problem yet.
    fn warning(&mut self, cx: &mut Context, text: &str) {
        let mark = cx.out.paint(Tone::Warn, "warning:");
        cx.out.line(format!("{mark} {text}"));
    }

    /// Reports what is good to know.
    fn info(&mut self, cx: &mut Context, text: &str) {
        cx.out.line(format!("info: {text}"));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use crate::testing::{Bench, KEY, NOW, TOKEN};

    fn mode(path: &std::path::Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_healthy_home_is_healthy_and_stays_untouched() {
        let bench = Bench::new();
        let ran = bench.run(&["doctor"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "No problems found.\n"), "{}", ran.stderr);
        assert!(bench.files().is_empty());
        bench.key_and_token();
        bench.config("{ // mine\n  agents: { defaults: { model: 'big' } },\n  channels: {} }");
        let before = bench.files();
        let ran = bench.run(&["doctor", "--fix", "--non-interactive"]);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        assert!(
            ran.stdout.contains("info: kept, but not used by moltbot: channels"),
            "{}",
            ran.stdout
        );
        assert_eq!(bench.files(), before);
    }

    #[test]
    fn unknown_and_old_keys_are_repaired_only_when_told() {
        let bench = Bench::new();
        let text = "{ // mine\n  auth: { foo: 1 },\n  agent: { model: 'acme/tiny' },\n}";
        bench.config(text);
        let ran = bench.run(&["doctor"]);
        assert_eq!(ran.code, 1);
        assert!(ran.stdout.contains("auth.foo") && ran.stdout.contains("--fix"), "{}", ran.stdout);
        assert_eq!(bench.config_text(), text);
        let ran = bench.run(&["doctor", "--fix", "--non-interactive"]);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains("repaired: Removed auth.foo."), "{}", ran.stdout);
        assert!(bench.config_text().contains("// mine"));
        assert_eq!(bench.run(&["models", "status", "--plain"]).stdout, "acme/tiny\n");
    }

    #[test]
    fn what_cannot_be_repaired_remains_a_problem() {
        let bench = Bench::new();
        let text = "{ auth: { foo: 1, profiles: { 'acme:x': { provider: 5 } } } }";
        bench.config(text);
        let ran = bench.run(&["doctor", "--fix", "--non-interactive"]);
        assert_eq!(ran.code, 1);
        assert!(ran.stdout.contains("auth.profiles"), "{}", ran.stdout);
        assert_eq!(bench.config_text(), text);
        let broken = Bench::new();
        broken.config("{ auth: ");
        assert_eq!(broken.run(&["doctor", "--fix"]).code, 1);
        assert_eq!(broken.config_text(), "{ auth: ");
    }

    #[test]
    fn an_outdated_mode_is_written_back() {
        let bench = Bench::new();
        bench.config(
            "{ auth: { profiles: { 'acme:login': { provider: 'acme', mode: 'token' } } } }",
        );
        let ran = bench.run(&["doctor"]);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains("info: --fix writes down: "), "{}", ran.stdout);
        let ran = bench.run(&["doctor", "--fix"]);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        assert!(
            ran.stdout.contains("Updated auth.profiles[\"acme:login\"].mode"),
            "{}",
            ran.stdout
        );
        assert_eq!(bench.config_value()["auth"]["profiles"]["acme:login"]["mode"], "oauth");
    }

    #[test]
    fn open_modes_are_closed() {
        let bench = Bench::new();
        bench.key_and_token();
        fs::set_permissions(bench.store_path(), fs::Permissions::from_mode(0o644)).unwrap();
        let dir = bench.store_path().parent().unwrap().to_path_buf();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let ran = bench.run(&["doctor"]);
        assert_eq!((ran.code, mode(&bench.store_path())), (1, 0o644), "{}", ran.stdout);
        assert_eq!(bench.run(&["doctor", "--repair"]).code, 0);
        assert_eq!((mode(&bench.store_path()), mode(&dir)), (0o600, 0o700));
    }

    #[test]
    fn cooldowns_and_ends_are_told() {
        let bench = Bench::new();
        let stats = |field: &str, left: i64| json!({ field: NOW + left, "errorCount": 1, "lastFailureAt": NOW - 1, "disabledReason": "billing" });
        bench.store(
            &json!({ "version": 1, "profiles": {
                "acme:default": { "type": "api_key", "provider": "acme", "key": KEY },
                "acme:other": { "type": "api_key", "provider": "acme", "key": format!("{KEY}2") },
                "acme:manual": { "type": "token", "provider": "acme", "token": TOKEN, "expires": NOW + 3_600_000 },
            }, "usageStats": {
                "acme:default": stats("cooldownUntil", 60_000),
                "acme:other": stats("disabledUntil", 18_000_000),
            } })
            .to_string(),
        );
        let ran = bench.run(&["doctor"]);
        for line in [
            "- acme:default: cooldown (1m) — Wait for cooldown or switch provider.",
            "- acme:other: disabled:billing (5h) — Top up credits (provider billing) or switch provider.",
            "warning: acme:manual expires in 1h",
        ] {
            assert!(ran.stdout.contains(line), "{line}\n---\n{}{}", ran.stdout, ran.stderr);
        }
        assert_eq!(ran.code, 0);
    }

    #[test]
    fn a_broken_store_is_a_problem_and_stays_as_it_is() {
        let bench = Bench::new();
        bench.store("{ not json");
        let ran = bench.run(&["doctor", "--fix"]);
        assert_eq!(ran.code, 1);
        assert!(ran.stdout.contains("auth-profiles.json"), "{}", ran.stdout);
        assert_eq!(fs::read_to_string(bench.store_path()).unwrap(), "{ not json");
    }

    #[test]
    fn the_methods_have_their_say() {
        let bench = Bench::new();
        bench.store(
            &json!({ "version": 1, "profiles": { "acme:login": { "type": "oauth", "provider": "acme",
                "access": "FAKE-A", "refresh": "FAKE-R", "expires": NOW + 90_000_000, "email": "broken@acme.test" } } })
            .to_string(),
        );
        let ran = bench.run(&["doctor"]);
        assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
        assert!(
            ran.stdout.contains("problem: The Acme login is broken\n  Ask Acme\n"),
            "{}",
            ran.stdout
        );
    }

    #[test]
    fn the_old_state_directory_is_moved_and_linked() {
        let bench = Bench::new();
        fs::create_dir_all(bench.home().join(".clawdbot")).unwrap();
        fs::write(
            bench.home().join(".clawdbot/clawdbot.json"),
            "{ agents: { defaults: { model: 'tiny' } } }",
        )
        .unwrap();
        bench.run(&["doctor"]);
        assert!(!bench.home().join(".moltbot").exists());
        let ran = bench.run(&["doctor", "--fix"]);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        assert!(bench.home().join(".moltbot/clawdbot.json").exists());
        assert!(fs::symlink_metadata(bench.home().join(".clawdbot")).unwrap().is_symlink());
        assert_eq!(bench.run(&["models", "--status-plain"]).stdout, "acme/tiny\n");
    }

    #[test]
    fn old_agent_files_and_old_credentials_find_their_place() {
        let bench = Bench::new();
        let state = bench.home().join(".moltbot");
        fs::create_dir_all(state.join("agent")).unwrap();
        let old = json!({ "acme": { "type": "api_key", "key": KEY } });
        fs::write(state.join("agent/auth.json"), old.to_string()).unwrap();
        let ran = bench.run(&["doctor", "--fix"]);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        assert!(bench.store_path().exists(), "{}", ran.stdout);
        assert!(!state.join("agent").exists());
        assert_eq!(bench.run(&["models", "status", "--check"]).code, 0);
    }
}
