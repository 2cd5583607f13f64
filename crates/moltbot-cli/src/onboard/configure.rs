//! `moltbot configure`: one part of the set-up at a time, with a person (spec L-21).

use clap::{Arg, ArgAction, ArgMatches, Command};
use moltbot_config::KeyPath;
use moltbot_core::Registry;
use serde_json::{Value, json};

use super::flags::GatewayFlags;
use super::{headless, settings, wizard};
use crate::commands::health;
use crate::front::Answers;
use crate::login::{announce, env_answers, keep, obtain};
use crate::out::clean;
use crate::prompt::{self, Choice};
use crate::{Context, Exit, Failure, Outcome};

/// The parts of a set-up, and what each is.
const SECTIONS: [(&str, &str); 8] = [
    ("workspace", "the working directory of agents"),
    ("model", "a credential, the default model and the allowlist"),
    ("web", ""),
    ("gateway", "port, address and what the gateway asks for"),
    ("daemon", ""),
    ("channels", ""),
    ("skills", ""),
    ("health", "a look at everything"),
];

/// The flag that names sections, of `configure` and of `config` alone.
pub(crate) fn section_arg() -> Arg {
    Arg::new("section")
        .long("section")
        .value_name("NAME")
        .action(ArgAction::Append)
        .help("Configure only this: workspace, model, gateway or health; may be repeated")
}

/// Describes the command.
pub(crate) fn command(_: &Registry) -> Command {
    Command::new("configure")
        .about("Ask for one part of the set-up after the other")
        .arg(section_arg())
        .after_help(
            "Examples:\n  moltbot configure\n  moltbot configure --section model --section gateway",
        )
}

/// Runs the command.
pub(crate) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let mut wanted = Vec::new();
    for raw in args.get_many::<String>("section").unwrap_or_default() {
        let name = raw.trim().to_ascii_lowercase();
        let known = SECTIONS.iter().find(|(section, _)| *section == name);
        let Some((section, _)) = known else {
            let names: Vec<&str> = SECTIONS.iter().map(|(section, _)| *section).collect();
            return Err(Failure::input(format!(
                "Invalid --section: {}. Expected one of: {}.",
                clean(raw),
                names.join(", ")
            )));
        };
        wanted.push(*section);
    }
    cx.config()?;
    let asks = wanted.is_empty()
        || wanted.iter().any(|section| matches!(*section, "workspace" | "model" | "gateway"));
    if asks && !cx.out.terminal().interactive() {
        return Err(Failure::new("configure needs a terminal to ask its questions")
            .code("not-interactive")
            .hint("without one: moltbot onboard --help, moltbot config set --help"));
    }
    if !wanted.is_empty() {
        for section in wanted {
            one(cx, section)?;
        }
        return Ok(Exit::OK);
    }
    loop {
        let Some(section) = choose()? else { return Ok(Exit::OK) };
        one(cx, section)?;
    }
}

/// Lets a person choose a section; `None` is "done".
fn choose() -> Result<Option<&'static str>, Failure> {
    let offered = SECTIONS.iter().filter(|(_, about)| !about.is_empty());
    let mut choices: Vec<Choice<Option<&'static str>>> = offered
        .map(|(section, about)| Choice {
            value: Some(*section),
            label: (*section).to_string(),
            hint: (*about).to_string(),
        })
        .collect();
    choices.push(Choice { value: None, label: "done".to_string(), hint: String::new() });
    prompt::select("What to configure?", &choices, None).map_err(wizard::stopped)
}

fn one(cx: &mut Context, section: &str) -> Result<(), Failure> {
    match section {
        "workspace" => workspace(cx),
        "model" => model(cx),
        "gateway" => gateway(cx),
        "health" => health::report(cx, false).map(|_| ()),
        "daemon" => {
            cx.out.note("`moltbot gateway install` lets the system start the gateway");
            Ok(())
        }
        other => {
            cx.out.note(format!("moltbot has no {other}; what the config says of it is kept"));
            Ok(())
        }
    }
}

fn workspace(cx: &mut Context) -> Result<(), Failure> {
    let path = KeyPath::keys(["agents", "defaults", "workspace"]);
    let old = path.find(cx.loaded()?.value()).and_then(Value::as_str).map(String::from);
    let usual = old.clone().unwrap_or_else(|| "~/moltbot".to_string());
    let typed = prompt::text("Working directory", Some(&usual)).map_err(wizard::stopped)?;
    let typed = typed.trim();
    if typed.is_empty() || Some(typed) == old.as_deref() {
        return Ok(());
    }
    cx.edit(|editor| Ok(editor.set(&path, &json!(typed))?))
}

/// A credential first, then the default model, then the allowlist (spec L-21, T-32).
fn model(cx: &mut Context) -> Result<(), Failure> {
    let agent = cx.agent_by_id(None)?;
    let _quiet = super::quiet(cx)?;
    let entry = wizard::choose_offer(cx, &agent, true)?;
    if let Some(entry) = entry {
        let env = env_answers(cx, &entry)?;
        let answers = Answers { env, ask: true, ..Answers::default() };
        let login = obtain(cx, &agent, &entry, None, answers)?;
        let model = wizard::choose_model(cx, &agent, &entry)?;
        let kept = keep(cx, &agent, &entry, login)?;
        cx.edit(|editor| kept.record(editor))?;
        if let Some(model) = model {
            super::set_model(cx, &model)?;
        }
        announce(cx, &agent, &kept)?;
    }
    allowlist(cx)
}

/// Lets a person choose the models that may be used at all. Entries that stay keep what stands in
/// them.
fn allowlist(cx: &mut Context) -> Result<(), Failure> {
    let agent = cx.agent_by_id(None)?;
    let engine = cx.engine(&agent)?;
    let path = KeyPath::keys(["agents", "defaults", "models"]);
    let old: Vec<String> = path
        .find(cx.loaded()?.value())
        .and_then(Value::as_object)
        .map(|models| models.keys().cloned().collect())
        .unwrap_or_default();
    let mut keys = old.clone();
    let primary = engine.models().primary().model;
    let setup = engine.provider(&primary.provider);
    for info in setup.into_iter().flat_map(|setup| &setup.info.catalog) {
        let key = format!("{}/{}", primary.provider, info.id);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let choices: Vec<Choice<String>> = keys
        .iter()
        .map(|key| Choice { value: key.clone(), label: key.clone(), hint: String::new() })
        .collect();
    let label = "Which models may be used? (space marks, none marked means all)";
    let chosen = prompt::several(label, &choices, old.clone()).map_err(wizard::stopped)?;
    if chosen == old {
        return Ok(());
    }
    cx.edit(|editor| {
        for key in old.iter().filter(|key| !chosen.contains(key)) {
            editor.unset(&path.key(key.as_str()))?;
        }
        for key in chosen.iter().filter(|key| !old.contains(key)) {
            editor.set(&path.key(key.as_str()), &json!({}))?;
        }
        Ok(())
    })
}

fn gateway(cx: &mut Context) -> Result<(), Failure> {
    let old = headless::gateway_config(cx)?;
    let text = |path: &str| old.pointer(path).and_then(Value::as_str).map(String::from);
    let usual = old.get("port").and_then(Value::as_u64).unwrap_or(18_789).to_string();
    let port = prompt::text("Port of the gateway", Some(&usual)).map_err(wizard::stopped)?;
    let port = port.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| Failure::input("Invalid --gateway-port"))?;
    let one_of = |label: &str, known: &[(&'static str, &str)], old: Option<String>| {
        let choices: Vec<Choice<&'static str>> = known
            .iter()
            .map(|(value, hint)| Choice {
                value: *value,
                label: (*value).to_string(),
                hint: (*hint).to_string(),
            })
            .collect();
        let initial =
            known.iter().map(|(value, _)| *value).find(|value| old.as_deref() == Some(value));
        prompt::select(label, &choices, initial.as_ref()).map_err(wizard::stopped)
    };
    let places = [
        ("loopback", "programs on this machine only"),
        ("lan", "every network this machine is in"),
        ("tailnet", "the tailnet"),
        ("auto", "the tailnet if there is one, else this machine"),
    ];
    let bind = one_of("Where does it listen?", &places, text("/bind"))?;
    let proofs = [("token", "a token, made if there is none"), ("password", "a password")];
    let auth = one_of("What does it ask for?", &proofs, text("/auth/mode"))?;
    let mut flags = GatewayFlags {
        port: Some(port),
        bind: Some(bind.to_string()),
        auth: Some(auth.to_string()),
        ..GatewayFlags::default()
    };
    if auth == "password" && text("/auth/password").is_none() {
        let typed = prompt::secret("Password of the gateway").map_err(wizard::stopped)?;
        flags.password = Some(moltbot_core::Secret::new(typed)).filter(|typed| !typed.is_blank());
    }
    let made = settings::gateway(&flags, &old, headless::random()?)?;
    cx.edit(|editor| made.write(editor))
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    #[test]
    fn sections_are_checked_first_and_a_terminal_is_needed_to_ask() {
        let bench = Bench::new();
        for command in ["configure", "config"] {
            let ran = bench.run(&[command, "--section", "model", "--section", "hats"]);
            assert_eq!(ran.code, 1);
            let text = "Error: Invalid --section: hats. Expected one of: workspace, model, web, \
                        gateway, daemon, channels, skills, health.\n";
            assert!(ran.stderr.starts_with(text), "{}", ran.stderr);
            let ran = bench.run(&[command]);
            assert_eq!(ran.code, 1);
            assert!(ran.stderr.contains("explain not-interactive"), "{}", ran.stderr);
        }
        assert!(bench.files().is_empty());
    }

    #[test]
    fn what_asks_nothing_needs_no_terminal() {
        let bench = Bench::new();
        bench.key_and_token();
        let ran = bench.run(&["configure", "--section", "skills", "--section", "health"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(ran.stderr.contains("moltbot has no skills"), "{}", ran.stderr);
        assert!(ran.stdout.contains("Agent     : main: ok"), "{}", ran.stdout);
    }
}
