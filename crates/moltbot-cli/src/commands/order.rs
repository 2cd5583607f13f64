//! `moltbot models auth order get|set|clear`: one agent's own order of profiles (spec L-32).

use clap::{Arg, ArgMatches, Command};
use moltbot_core::Registry;
use moltbot_gateway::AgentPaths;
use moltbot_profiles::{Profiles, StoreError, normalize_provider};
use serde_json::json;

use crate::{Context, Exit, Failure, Outcome};

use super::{agent_arg, json_arg, unknown_profile, usual_provider};

/// Describes the command.
pub(crate) fn command(registry: &Registry) -> Command {
    let usual = usual_provider(registry);
    let provider = || {
        Arg::new("provider")
            .long("provider")
            .value_name("ID")
            .required(true)
            .help("The provider whose profiles are ordered")
    };
    Command::new("order")
        .about("Show or change the order in which an agent's profiles are used")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("get")
                .about("Show the agent's own order")
                .args([provider(), agent_arg(), json_arg()])
                .after_help(format!(
                    "Example:\n  moltbot models auth order get --provider {usual}"
                )),
        )
        .subcommand(
            Command::new("set")
                .about("Use these profiles, in this order")
                .args([provider(), agent_arg()])
                .arg(Arg::new("ids").value_name("PROFILE").num_args(0..).help("Profile ids"))
                .after_help(format!(
                    "Example:\n  moltbot models auth order set --provider {usual} {usual}:manual \
                     {usual}:default"
                )),
        )
        .subcommand(
            Command::new("clear")
                .about("Forget the agent's own order")
                .args([provider(), agent_arg()])
                .after_help(format!(
                    "Example:\n  moltbot models auth order clear --provider {usual}"
                )),
        )
        .after_help(format!("Example:\n  moltbot models auth order get --provider {usual} --json"))
}

/// Runs a subcommand.
pub(crate) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let (name, args) = args.subcommand().expect("clap requires a subcommand");
    let raw = args.get_one::<String>("provider").expect("clap requires it");
    let provider = normalize_provider(raw);
    let provider =
        cx.registry.provider(&provider).map_or(provider, |entry| entry.info.id.to_string());
    let agent = cx.agent(args)?;
    match name {
        "get" => get(cx, &agent, &provider, args.get_flag("json")),
        "set" => {
            let ids = args.get_many::<String>("ids").unwrap_or_default();
            let ids = ids.map(|id| id.trim().to_string()).filter(|id| !id.is_empty()).collect();
            set(cx, &agent, &provider, ids)
        }
        _ => clear(cx, &agent, &provider),
    }
}

fn get(cx: &mut Context, agent: &AgentPaths, provider: &str, json: bool) -> Outcome {
    let loaded = cx.store(agent).load_blocking()?;
    let order = loaded.profiles.order(provider);
    if json {
        cx.out.json(&json!({
            "agentId": agent.id,
            "agentDir": agent.dir,
            "provider": provider,
            "authStorePath": agent.store,
            "order": order,
        }));
    } else {
        print(cx, agent, provider, order);
    }
    Ok(Exit::OK)
}

fn set(cx: &mut Context, agent: &AgentPaths, provider: &str, mut ids: Vec<String>) -> Outcome {
    if ids.is_empty() {
        return Err(Failure::input("Missing profile ids. Provide one or more profile ids."));
    }
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    let now = cx.now();
    let mut locked = cx.store(agent).lock_blocking(now).map_err(failed)?;
    // Checked under the lock: a profile that is removed meanwhile must not be named.
    check(&locked.profiles, agent, provider, &ids)?;
    locked.profiles.set_order(provider, ids.clone());
    locked.commit().map_err(failed)?;
    print(cx, agent, provider, Some(&ids));
    Ok(Exit::OK)
}

fn clear(cx: &mut Context, agent: &AgentPaths, provider: &str) -> Outcome {
    let now = cx.now();
    let store = cx.store(agent);
    // An agent without an order gets no store file for having none.
    if store.load_blocking()?.profiles.order(provider).is_some() {
        let cleared = store.update_blocking(now, |profiles| profiles.clear_order(provider));
        cleared.map_err(failed)?;
    }
    cx.out.line("Cleared per-agent order override.");
    Ok(Exit::OK)
}

/// Says it in the words of spec A-7 where the lock was the matter.
fn failed(error: StoreError) -> Failure {
    match error {
        StoreError::Locked { .. } => {
            let hint = error.to_string();
            let code = error.code();
            Failure::new("Failed to update auth-profiles.json (lock busy?).").hint(hint).code(code)
        }
        error => error.into(),
    }
}

fn check(
    profiles: &Profiles,
    agent: &AgentPaths,
    provider: &str,
    ids: &[String],
) -> Result<(), Failure> {
    for id in ids {
        let Some(credential) = profiles.get(id) else {
            return Err(unknown_profile(agent, profiles, id));
        };
        let owner = normalize_provider(&credential.provider);
        if owner != provider {
            let message = format!("Auth profile \"{id}\" is for {owner}, not {provider}.");
            return Err(Failure::new(message).code("profile-unknown"));
        }
    }
    Ok(())
}

fn print(cx: &mut Context, agent: &AgentPaths, provider: &str, order: Option<&[String]>) {
    let file = cx.shown(&agent.store);
    cx.out.line(format!("Agent: {}", agent.id));
    cx.out.line(format!("Provider: {provider}"));
    cx.out.line(format!("Auth file: {file}"));
    let order = order.map_or_else(|| "(none)".to_string(), |ids| ids.join(", "));
    cx.out.line(format!("Order override: {order}"));
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::testing::Bench;

    const SET: &[&str] = &["models", "auth", "order", "set", "--provider", "acme"];
    const GET: &[&str] = &["models", "auth", "order", "get", "--provider", "acme"];

    fn json(bench: &Bench) -> Value {
        serde_json::from_str(&bench.run(&[GET, &["--json"]].concat()).stdout).unwrap()
    }

    #[test]
    fn an_order_is_set_shown_and_cleared() {
        let bench = Bench::new();
        bench.key_and_token();
        let ran = bench.run(&[SET, &["acme:manual", "acme:default", "acme:manual"]].concat());
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        assert!(
            ran.stdout.ends_with("Order override: acme:manual, acme:default\n"),
            "{}",
            ran.stdout
        );
        let value = json(&bench);
        let keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["agentId", "agentDir", "provider", "authStorePath", "order"]);
        assert_eq!(value["order"], serde_json::json!(["acme:manual", "acme:default"]));
        let clear = ["models", "auth", "order", "clear", "--provider", "ACME"];
        assert_eq!(bench.run(&clear).stdout, "Cleared per-agent order override.\n");
        assert_eq!(json(&bench)["order"], Value::Null);
        assert!(bench.run(GET).stdout.ends_with("Order override: (none)\n"));
    }

    #[test]
    fn unknown_profiles_are_refused_and_nothing_is_written() {
        let bench = Bench::new();
        let ran = bench.run(&[SET, &["x"]].concat());
        assert_eq!(ran.code, 1);
        assert!(
            ran.stderr.starts_with("Error: Auth profile \"x\" not found in "),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains("hint: `moltbot models status` shows"), "{}", ran.stderr);
        assert_eq!(json(&bench)["order"], Value::Null);
        assert!(!bench.store_path().exists());
        bench.run(&["models", "auth", "order", "clear", "--provider", "acme"]);
        assert!(!bench.store_path().exists());
    }

    #[test]
    fn profiles_of_others_and_no_profiles_are_refused() {
        let bench = Bench::new();
        bench.store(r#"{"version":1,"profiles":{"other:x":{"type":"api_key","provider":"other","key":"FAKE"}}}"#);
        let ran = bench.run(&[SET, &["other:x"]].concat());
        assert!(
            ran.stderr.starts_with("Error: Auth profile \"other:x\" is for other, not acme.\n"),
            "{}",
            ran.stderr
        );
        let text = "Error: Missing profile ids. Provide one or more profile ids.\n";
        assert!(bench.run(SET).stderr.starts_with(text));
    }
}
