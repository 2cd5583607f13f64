//! `moltbot models status`: models in use, credentials, and how they are doing (spec L-33 to L-39).

use clap::{Arg, ArgAction, ArgMatches, Command};
use moltbot_core::CredentialKind;
use moltbot_profiles::Health;

use super::probe::{self, Plan};
use super::report::{self, Report};
use super::status_text;
use crate::commands::{agent_arg, json_arg};
use crate::{Context, Exit, Failure, Outcome};

/// The flags, shared by `models` and `models status`.
pub(super) fn args() -> Vec<Arg> {
    let flag = |id: &'static str, help: &'static str| {
        Arg::new(id).long(id).help(help).action(ArgAction::SetTrue)
    };
    let mut args = vec![
        json_arg(),
        flag("plain", "Print only the model in use"),
        flag("check", "Exit with 1 if a credential is missing or expired, 2 if one is expiring"),
        flag("usage", "Show how far each limit is used up, as the last replies told"),
        agent_arg(),
    ];
    args.extend(probe::args());
    args
}

pub(super) fn command() -> Command {
    Command::new("status")
        .about("Show the models in use and the credentials behind them")
        .args(args())
        .after_help(
            "Examples:\n  moltbot models status\n  moltbot models status --json\n  \
             moltbot models status --check\n  moltbot models status --probe --probe-timeout 3000",
        )
}

pub(super) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let flag = |name: &str| args.try_get_one::<bool>(name).ok().flatten() == Some(&true);
    let json = flag("json") || flag("status-json");
    let plain = flag("plain") || flag("status-plain");
    if json && plain {
        return Err(Failure::input("Choose either --json or --plain, not both."));
    }
    if plain && flag("probe") {
        return Err(Failure::input("--probe cannot be used with --plain output."));
    }
    let plan = Plan::parse(args)?;
    let agent = cx.agent(args)?;
    let engine = cx.engine(&agent)?;
    let primary = engine.models().primary();
    if let Some(warning) = &primary.warning {
        cx.out.warn(warning);
    }
    if plain {
        cx.out.line(primary.model.to_string());
        if !flag("check") {
            return Ok(Exit::OK);
        }
    }
    let mut report = report::gather(cx, &engine, &agent)?;
    if !flag("usage") {
        report.auth.usage = None;
    }
    if flag("probe") {
        report.auth.probes = Some(probe::run(cx, &engine, plan)?);
    }
    if json {
        for (label, text) in &report.facts {
            cx.out.note(format!("{label}: {text}"));
        }
        cx.out.json(&report);
    } else if !plain {
        status_text::print(cx, &report, primary.alias.as_deref());
    }
    Ok(if flag("check") { check(&report) } else { Exit::OK })
}

/// Judges the report for `--check` (spec L-34): 1 for expired or missing, 2 for expiring.
pub(super) fn check(report: &Report) -> Exit {
    let logins = || {
        report.auth.oauth.profiles.iter().filter(|row| {
            row.counts && matches!(row.kind, CredentialKind::Oauth | CredentialKind::Token)
        })
    };
    let gone = |health: Health| matches!(health, Health::Expired | Health::Missing);
    if !report.auth.missing_providers_in_use.is_empty() || logins().any(|row| gone(row.status)) {
        Exit(1)
    } else if logins().any(|row| row.status == Health::Expiring) {
        Exit(2)
    } else {
        Exit::OK
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{Bench, KEY, NOW, TOKEN};

    fn status(bench: &Bench, args: &[&str]) -> Value {
        let ran = bench.run(&[&["models", "status", "--json"], args].concat());
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}{}", ran.stdout, ran.stderr))
    }

    #[test]
    fn the_json_is_the_promised_one_key_for_key() {
        let bench = Bench::new();
        bench.config(
            "{ agents: { defaults: { model: 'big', models: { 'acme/big-2': { alias: 'big' } } } } }",
        );
        bench.env("ACME_API_KEY", "acme-FAKE0000000000000000FAKE-env");
        bench.store(
            &json!({
                "version": 1,
                "profiles": {
                    "acme:default": { "type": "api_key", "provider": "acme", "key": KEY },
                    "acme:login": { "type": "oauth", "provider": "acme", "access": "FAKE-ACCESS-0123456789",
                        "refresh": "FAKE-REFRESH-0123456789", "expires": NOW + 28_798_328 },
                    "acme:manual": { "type": "token", "provider": "acme", "token": TOKEN },
                },
                "usageStats": { "acme:default": { "errorCount": 1, "cooldownUntil": NOW + 58_289, "lastFailureAt": NOW - 1 } },
            })
            .to_string(),
        );
        let home = bench.home().display().to_string();
        let login = json!({ "profileId": "acme:login", "provider": "acme", "type": "oauth",
            "status": "expiring", "expiresAt": NOW + 28_798_328, "remainingMs": 28_798_328,
            "source": "store", "label": "acme:login" });
        let key = json!({ "profileId": "acme:default", "provider": "acme", "type": "api_key",
            "status": "static", "source": "store", "label": "acme:default" });
        let token = json!({ "profileId": "acme:manual", "provider": "acme", "type": "token",
            "status": "static", "source": "store", "label": "acme:manual" });
        let wanted = json!({
            "configPath": format!("{home}/.moltbot/moltbot.json"),
            "agentDir": format!("{home}/.moltbot/agents/main/agent"),
            "defaultModel": "big",
            "resolvedDefault": "acme/big-2",
            "fallbacks": [],
            "imageModel": null,
            "imageFallbacks": [],
            "aliases": { "big": "acme/big-2" },
            "allowed": ["acme/big-2"],
            "auth": {
                "storePath": format!("{home}/.moltbot/agents/main/agent/auth-profiles.json"),
                "shellEnvFallback": { "enabled": false, "appliedKeys": [] },
                "providersWithOAuth": ["acme (2)"],
                "missingProvidersInUse": [],
                "providers": [{
                    "provider": "acme",
                    "effective": { "kind": "profiles",
                        "detail": "~/.moltbot/agents/main/agent/auth-profiles.json" },
                    "profiles": { "count": 3, "oauth": 1, "token": 1, "apiKey": 1, "labels": [
                        "acme:default=acme...-key [cooldown 1m]",
                        "acme:login=OAuth",
                        "acme:manual=token:acme...oken",
                    ] },
                    "env": { "value": "acme...-env", "source": "env: ACME_API_KEY" },
                }],
                "unusableProfiles": [{ "profileId": "acme:default", "provider": "acme",
                    "kind": "cooldown", "until": NOW + 58_289, "remainingMs": 58_289 }],
                "oauth": {
                    "warnAfterMs": 86_400_000,
                    "profiles": [key, login, token],
                    "providers": [{ "provider": "acme", "status": "expiring",
                        "profiles": [key, login, token],
                        "expiresAt": NOW + 28_798_328, "remainingMs": 28_798_328 }],
                },
            },
        });
        let ran = bench.run(&["models", "status", "--json"]);
        let wanted = serde_json::to_string_pretty(&wanted).unwrap() + "\n";
        assert_eq!(ran.stdout, wanted, "{}", ran.stderr);
        assert_eq!(bench.run(&["models", "--status-json"]).stdout, wanted);
    }

    #[test]
    fn plain_is_one_line_and_excludes_json() {
        let bench = Bench::new();
        assert_eq!(bench.run(&["models", "status", "--plain"]).stdout, "acme/big-1\n");
        let both = bench.run(&["models", "status", "--json", "--plain"]);
        assert_eq!(both.code, 1);
        assert!(both.stderr.starts_with("Error: Choose either --json or --plain, not both.\n"));
        let probe = bench.run(&["models", "status", "--probe", "--plain"]);
        assert!(probe.stderr.starts_with("Error: --probe cannot be used with --plain output.\n"));
    }

    #[test]
    fn check_has_three_answers() {
        let hour = 3_600_000;
        let oauth = |left: i64, refresh: &str| {
            json!({ "type": "oauth", "provider": "acme", "access": "FAKE-A", "refresh": refresh,
                "expires": NOW + left })
        };
        let token = |left: i64| json!({ "type": "token", "provider": "acme", "token": TOKEN, "expires": NOW + left });
        let key = json!({ "type": "api_key", "provider": "acme", "key": KEY });
        for (profiles, code) in [
            (json!({}), 1),
            (json!({ "acme:manual": token(-hour) }), 1),
            (json!({ "acme:manual": token(3 * hour) }), 2),
            (json!({ "acme:manual": token(25 * hour) }), 0),
            (json!({ "acme:default": key }), 0),
            (json!({ "acme:login": oauth(3 * hour, "FAKE-R") }), 0),
            (json!({ "acme:login": oauth(300_000, "FAKE-R") }), 2),
        ] {
            let bench = Bench::new();
            bench.config("{ auth: { oauth: { acme: { tokenUrl: 'https://id.acme.test/token', clientId: 'us' } } } }");
            bench.store(&json!({ "version": 1, "profiles": profiles }).to_string());
            let ran = bench.run(&["models", "status", "--check", "--plain"]);
            assert_eq!(ran.code, code, "{profiles}: {}", ran.stderr);
            assert_eq!(ran.stdout, "acme/big-1\n");
        }
    }

    #[test]
    fn only_profiles_in_the_order_count() {
        let bench = Bench::new();
        bench.store(
            &json!({ "version": 1, "order": { "acme": ["acme:default"] }, "profiles": {
                "acme:default": { "type": "api_key", "provider": "acme", "key": KEY },
                "acme:manual": { "type": "token", "provider": "acme", "token": TOKEN, "expires": 1 },
            } })
            .to_string(),
        );
        assert_eq!(bench.run(&["models", "status", "--check"]).code, 0);
        assert_eq!(status(&bench, &[])["auth"]["oauth"]["providers"][0]["status"], "static");
    }

    #[test]
    fn nothing_at_all_is_missing_and_a_variable_is_enough() {
        let bench = Bench::new();
        let none = status(&bench, &[]);
        assert_eq!(none["auth"]["missingProvidersInUse"], json!(["acme"]));
        assert_eq!(none["auth"]["providers"], json!([]));
        bench.env("ACME_API_KEY", "0123456789abcdef");
        let ran = bench.run(&["models", "status", "--json"]);
        let value: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(
            value["auth"]["providers"][0]["effective"],
            json!({ "kind": "env", "detail": "0123...cdef" })
        );
        assert!(!(ran.stdout + &ran.stderr).contains("0123456789abcdef"));
        bench.env("ACME_OAUTH_TOKEN", TOKEN);
        assert_eq!(status(&bench, &[])["auth"]["providers"][0]["env"]["value"], "OAuth (env)");
    }

    #[test]
    fn people_are_told_what_json_has_no_key_for() {
        let bench = Bench::new();
        bench.key_and_token();
        bench.config(
            "{ models: { providers: { acme: { baseUrl: 'https://proxy.test/', models: [] } } },
               agents: { defaults: { model: 'acme/old-1' } } }",
        );
        bench.env("ACME_BASE_URL", "https://elsewhere.test");
        let text = bench.run(&["models"]).stdout;
        for line in [
            "Next request             : profile:acme:manual (",
            "Base URL                 : acme https://proxy.test (models.providers.acme.baseUrl)",
            "Ignored                  : ACME_BASE_URL is set, but moltbot does not use it",
            "Retires                  : acme/old-1 on 2026-10-01, in 10 days",
            "acme:default: [paid per use] Keys may be used by anybody (https://acme.test/terms, read 2026-01-02)",
        ] {
            assert!(text.contains(line), "{line}\n---\n{text}");
        }
        let json = bench.run(&["models", "status", "--json"]);
        assert!(json.stderr.contains("Retires: acme/old-1"), "{}", json.stderr);
        assert!(serde_json::from_str::<Value>(&json.stdout).is_ok());
    }

    #[test]
    fn an_unknown_agent_and_another_agent() {
        let bench = Bench::new();
        let ran = bench.run(&["models", "status", "--agent", "nobody"]);
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.starts_with("Error: Unknown agent id \"nobody\"."), "{}", ran.stderr);
        bench.config("{ agents: { list: [{ id: 'main' }, { id: 'Work', model: 'acme/tiny' }] } }");
        let value = status(&bench, &["--agent", "work"]);
        assert!(value["agentDir"].as_str().unwrap().ends_with("/agents/work/agent"));
        assert_eq!(value["resolvedDefault"], "acme/tiny");
    }

    #[test]
    fn status_changes_nothing() {
        let bench = Bench::new();
        bench.key_and_token();
        let before = bench.files();
        bench.run(&["models", "status"]);
        bench.run(&["models", "status", "--json"]);
        bench.run(&["models", "list", "--all"]);
        assert_eq!(bench.files(), before);
    }
}
