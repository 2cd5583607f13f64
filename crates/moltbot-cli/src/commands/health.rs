//! `moltbot health`: whether requests could be served now (spec L-44). Changes nothing and asks no
//! service; exit code 1 if something is wrong.

use clap::{ArgMatches, Command};
use moltbot_core::Registry;
use serde_json::json;

use super::{agents, gateway, json_arg, models};
use crate::out::Tone;
use crate::{Context, Exit, Outcome};

/// Describes the command.
pub(crate) fn command(_: &Registry) -> Command {
    Command::new("health")
        .about("Say whether config, credentials and gateway are in order")
        .arg(json_arg())
        .after_help("Example:\n  moltbot health --json")
}

/// Runs the command.
pub(crate) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    report(cx, args.get_flag("json"))
}

/// Looks at everything and prints what was found.
pub(crate) fn report(cx: &mut Context, json: bool) -> Outcome {
    let began = cx.now();
    let config = cx.config()?;
    let mut rows = Vec::new();
    for id in agents::ids(&config) {
        let agent = cx.agent_paths(&config, &id);
        rows.push((id.to_string(), models::glance(cx, &agent)?));
    }
    let gateway = gateway::glance(cx)?;
    // Without any agent in order nothing can be served; an agent that was never given a credential
    // does not spoil the others.
    let ok = rows.iter().any(|(_, glance)| glance.is_ok());
    let exit = if ok { Exit::OK } else { Exit::NO };
    if json {
        let path = cx.paths().config_file().to_path_buf();
        let agents: Vec<_> = rows.iter().map(|(id, glance)| glance.json(id)).collect();
        cx.out.json(&json!({
            "ok": ok,
            "ts": began,
            "durationMs": cx.now().since(began).max(0),
            "config": { "path": path, "valid": true },
            "gateway": { "running": gateway.running, "ready": gateway.ready },
            "agents": agents,
        }));
        return Ok(exit);
    }
    let word = match (gateway.running, gateway.ready) {
        (false, _) => "does not run",
        (true, true) => "runs and is ready",
        (true, false) => "runs, but has no usable credential",
    };
    cx.out.line("Config    : valid");
    cx.out.line(format!("Gateway   : {word}"));
    for (id, glance) in &rows {
        let tone = if glance.is_ok() { Tone::Good } else { Tone::Bad };
        let word = cx.out.paint(tone, glance.word());
        cx.out.line(format!("Agent     : {id}: {word}"));
        for line in glance.lines() {
            cx.out.line(format!("  {line}"));
        }
    }
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{Bench, NOW, TOKEN};

    #[test]
    fn health_is_a_yes_or_a_no_with_reasons() {
        let bench = Bench::new();
        let ran = bench.run(&["health", "--json"]);
        let value: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!((ran.code, &value["ok"]), (1, &json!(false)));
        assert_eq!(value["agents"][0]["missingProvidersInUse"], json!(["acme"]));
        assert_eq!(value["gateway"]["running"], false);
        let text = bench.run(&["health"]).stdout;
        assert!(text.contains("no credential for acme: moltbot onboard"), "{text}");
        bench.key_and_token();
        let before = bench.files();
        assert_eq!(bench.run(&["health"]).code, 0);
        assert_eq!(bench.files(), before);
        bench.store(
            &json!({ "version": 1, "profiles": { "acme:manual": {
                "type": "token", "provider": "acme", "token": TOKEN, "expires": NOW - 1 } } })
            .to_string(),
        );
        let ran = bench.run(&["health"]);
        assert_eq!(ran.code, 1);
        assert!(ran.stdout.contains("acme:manual is expired"), "{}", ran.stdout);
    }
}
