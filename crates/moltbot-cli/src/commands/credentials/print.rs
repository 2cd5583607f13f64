//! `models auth print`: hands a credential to another program, the way back from the plugin that
//! runs a command.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use moltbot_core::{Credential, CredentialKind, CredentialState, Payer, Registry};
use serde_json::{Map, Value};

use super::unknown;
use crate::commands::{agent_arg, usual_provider};
use crate::context::iso;
use crate::out::clean;
use crate::{Context, Exit, Failure, Outcome, prompt};

pub(super) fn command(registry: &Registry) -> Command {
    let usual = usual_provider(registry);
    Command::new("print")
        .about("Print the secret of a profile, for another program")
        .arg(
            Arg::new("profile")
                .long("profile")
                .value_name("ID")
                .required(true)
                .help("Which profile"),
        )
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .value_parser(PossibleValuesParser::new(["raw", "claude-helper", "credential-process"]))
                .default_value("raw")
                .help("raw: the secret alone; claude-helper: as a line; credential-process: JSON"),
        )
        .arg(
            Arg::new("yes").long("yes").short('y').action(ArgAction::SetTrue).help("Ask nothing"),
        )
        .arg(agent_arg())
        .after_help(format!(
            "Examples:\n  moltbot models auth print --profile {usual}:default\n  \
             moltbot models auth print --profile {usual}:default --format credential-process --yes\n\n\
             As the apiKeyHelper of another program:\n  \
             moltbot models auth print --profile {usual}:default --format claude-helper --yes"
        ))
}

pub(super) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let id = args.get_one::<String>("profile").expect("clap requires it").trim().to_string();
    let format = args.get_one::<String>("format").expect("has a default").clone();
    let agent = cx.agent(args)?;
    let profiles = cx.store(&agent).load_blocking()?.profiles;
    if !profiles.contains(&id) {
        return Err(unknown(&profiles, &agent, &id));
    }
    let engine = cx.engine(&agent)?;
    let find = |views: Vec<moltbot_gateway::ProfileView>| {
        views
            .into_iter()
            .find(|view| view.id == id)
            .ok_or_else(|| Failure::new(format!("{} is of no provider in this build", clean(&id))))
    };
    let mut view = find(cx.block_on(engine.resolve_profiles(None))??)?;
    if let Some(missing) = &view.missing_plugin {
        return Err(Failure::new(clean(missing)));
    }
    refuse_plan(&id, &view.state.kind, view.state.payer)?;
    if !args.get_flag("yes") {
        let question = format!("Print the secret of {} where others may see it?", clean(&id));
        if !cx.out.terminal().interactive() {
            return Err(Failure::input(format!(
                "Printing the secret of {} needs an answer",
                clean(&id)
            ))
            .hint("add --yes"));
        }
        if !prompt::confirm(&question, false).map_err(|error| Failure::new(error.to_string()))? {
            return Err(Failure::cancelled());
        }
    }
    if view.state.state == CredentialState::Expired && view.state.refreshable {
        cx.block_on_cancel(engine.refresh(&id, false))??;
        view = find(cx.block_on(engine.resolve_profiles(None))??)?;
        refuse_plan(&id, &view.state.kind, view.state.payer)?;
    }
    let resolved = view.resolved.map_err(|error| Failure::new(clean(&error.to_string())))?;
    let secret = match (resolved.state, resolved.credential.secret()) {
        (CredentialState::Ready, Some(secret)) => secret,
        (state, _) => {
            let why = resolved.detail.unwrap_or_else(|| match state {
                CredentialState::Expired => "it has expired".to_string(),
                _ => "it holds no secret".to_string(),
            });
            let message = format!("{} cannot be used: {why}", clean(&id));
            return Err(Failure::new(clean(&message)).code("no-credential"));
        }
    };
    // As it is: the masks that guard every other line would spoil it.
    match format.as_str() {
        "raw" => cx.out.raw(secret.expose()),
        "claude-helper" => cx.out.raw(&format!("{}\n", secret.expose())),
        _ => cx.out.json(&process(&resolved.credential, secret.expose())),
    }
    Ok(Exit::OK)
}

/// Refuses what is paid by somebody's plan: it is for the program that it was made for.
fn refuse_plan(id: &str, kind: &CredentialKind, payer: Payer) -> Result<(), Failure> {
    let metered = *kind == CredentialKind::ApiKey || payer == Payer::Metered;
    if metered && payer != Payer::Subscription {
        return Ok(());
    }
    let message = format!("{} is the login of a subscription and is not handed out", clean(id));
    Err(Failure::input(message).hint("API keys and tokens billed per use can be printed"))
}

/// The object that a `credential_process` prints, and that the plugin `command` reads.
fn process(credential: &Credential, secret: &str) -> Value {
    let member = if credential.kind == CredentialKind::ApiKey { "key" } else { "token" };
    let mut object = Map::new();
    object.insert("version".into(), 1.into());
    object.insert("type".into(), credential.kind.as_str().into());
    object.insert(member.into(), secret.into());
    if let Some(at) = credential.expiry() {
        object.insert("expiresAt".into(), iso(at).into());
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use moltbot_core::Payer;

    use super::refuse_plan;
    use crate::testing::{Bench, KEY, TOKEN};

    fn print(bench: &Bench, profile: &str, more: &[&str]) -> crate::testing::Ran {
        bench.run(&[&["models", "auth", "print", "--profile", profile], more].concat())
    }

    #[test]
    fn a_key_is_printed_in_each_form_once_somebody_says_yes() {
        let bench = Bench::new();
        bench.key_and_token();
        let ran = print(&bench, "acme:default", &[]);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
        assert!(
            ran.stderr.contains("needs an answer") && ran.stderr.contains("--yes"),
            "{}",
            ran.stderr
        );
        for (format, text) in [
            ("raw", KEY.to_string()),
            ("claude-helper", format!("{KEY}\n")),
            (
                "credential-process",
                format!(
                    "{{\n  \"version\": 1,\n  \"type\": \"api_key\",\n  \"key\": \"{KEY}\"\n}}\n"
                ),
            ),
        ] {
            let ran = print(&bench, "acme:default", &["--format", format, "--yes"]);
            assert_eq!((ran.code, ran.stdout), (0, text), "{}", ran.stderr);
        }
    }

    #[test]
    fn a_subscription_is_refused_whatever_is_answered() {
        let bench = Bench::new();
        bench.key_and_token();
        let ran = print(&bench, "acme:manual", &["--yes"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{}", ran.stderr);
        assert!(!ran.stderr.contains(TOKEN), "{}", ran.stderr);
        assert!(refuse_plan("a:b", &"token".into(), Payer::Metered).is_ok());
        for (kind, payer) in [
            ("api_key", Payer::Subscription),
            ("token", Payer::Unknown),
            ("oauth", Payer::Subscription),
        ] {
            assert!(refuse_plan("a:b", &kind.into(), payer).is_err(), "{kind}");
        }
    }

    #[test]
    fn an_unknown_profile_is_said() {
        let bench = Bench::new();
        bench.key_and_token();
        let ran = print(&bench, "acme:defalt", &["--yes"]);
        assert!(ran.stderr.contains("did you mean acme:default?"), "{}", ran.stderr);
    }
}
