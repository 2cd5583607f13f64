//! `models auth rename`: gives a profile another id, in the store and in the config.

use clap::{Arg, ArgMatches, Command};
use moltbot_config::KeyPath;
use moltbot_core::Registry;
use moltbot_profiles::normalize_provider;
use serde_json::json;

use super::{others_store, record, unknown};
use crate::commands::{agent_arg, usual_provider};
use crate::out::clean;
use crate::{Context, Exit, Failure, Outcome};

pub(super) fn command(registry: &Registry) -> Command {
    let usual = usual_provider(registry);
    let id = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).value_name(value).required(true).help(help)
    };
    Command::new("rename")
        .about("Give a profile another id")
        .arg(id("from", "PROFILE", "The profile's id"))
        .arg(id("to", "NEW", "The id it gets"))
        .arg(agent_arg())
        .after_help(format!("Example:\n  moltbot models auth rename {usual}:manual {usual}:work"))
}

pub(super) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let text = |name| args.get_one::<String>(name).expect("clap requires it").trim().to_string();
    let (from, to) = (text("from"), text("to"));
    cx.config()?;
    let agent = cx.agent(args)?;
    let now = cx.now();
    let store = cx.store(&agent);
    let mut locked = store.lock_blocking(now)?;
    let Some(stored) = locked.profiles.get(&from) else {
        return Err(unknown(&locked.profiles, &agent, &from));
    };
    let provider = normalize_provider(&stored.provider);
    let fits = to.split_once(':').is_some_and(|(head, name)| {
        normalize_provider(head) == provider
            && !name.is_empty()
            && !name.chars().any(|c| c.is_whitespace() || c.is_control())
    });
    if !fits {
        let message = format!("\"{}\" is no profile id of {provider}", clean(&to));
        let hint = format!("use {provider}:<name>, such as {provider}:work");
        return Err(Failure::input(message).hint(hint));
    }
    if !locked.profiles.rename(&from, &to) {
        let message = format!("There is a profile \"{}\" already", clean(&to));
        return Err(Failure::input(message).hint("rename or remove that one first"));
    }
    let profiles = locked.profiles.clone();
    locked.commit()?;
    let config = cx.config()?;
    let auth = config.auth.as_ref();
    let listed = auth.is_some_and(|auth| auth.profiles.contains_key(&from));
    if others_store(cx, &agent, &from)? {
        // Another agent still goes by the old entry.
        if listed {
            record(cx, &profiles, std::slice::from_ref(&to))?;
        }
    } else {
        move_in_config(cx, &from, &to)?;
    }
    cx.out.line(format!("Renamed {} to {}", clean(&from), clean(&to)));
    Ok(Exit::OK)
}

/// Moves a profile's entry in the config, and its places in the orders.
fn move_in_config(cx: &mut Context, from: &str, to: &str) -> Result<(), Failure> {
    if !super::is_configured(cx, from)? {
        return Ok(());
    }
    cx.edit(|editor| {
        let all = KeyPath::keys(["auth", "profiles"]);
        if let Some(entry) = editor.get(&all.key(from)) {
            editor.set(&all.key(to), &entry)?;
            editor.unset(&all.key(from))?;
        }
        let orders = KeyPath::keys(["auth", "order"]);
        let listed = editor.get(&orders).and_then(|orders| orders.as_object().cloned());
        for (provider, ids) in listed.into_iter().flatten() {
            let ids = ids.as_array().cloned().unwrap_or_default();
            for (at, _) in ids.iter().enumerate().filter(|(_, id)| id.as_str() == Some(from)) {
                editor.set(&orders.key(provider.as_str()).index(at), &json!(to))?;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    #[test]
    fn store_and_config_change_together() {
        let bench = Bench::new();
        bench.key_and_token();
        bench.config(
            r#"{"auth": {"profiles": {"acme:manual": {"provider": "acme", "mode": "token"}},
                "order": {"acme": ["acme:manual", "acme:default"]}}}"#,
        );
        let rename = |from: &str, to: &str| bench.run(&["models", "auth", "rename", from, to]);
        let ran = rename("acme:manual", "acme:work");
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "Renamed acme:manual to acme:work\n"));
        let auth = &bench.config_value()["auth"];
        assert_eq!(auth["profiles"]["acme:work"]["mode"], "token");
        assert!(auth["profiles"]["acme:manual"].is_null());
        assert_eq!(auth["order"]["acme"][0], "acme:work");
        let before = bench.files();
        for (from, to, said) in [
            ("acme:work", "acme:default", "There is a profile \"acme:default\" already"),
            ("acme:work", "other:x", "\"other:x\" is no profile id of acme"),
            ("acme:work", "acme:", "is no profile id"),
            ("acme:gone", "acme:y", "Auth profile \"acme:gone\" not found"),
        ] {
            let ran = rename(from, to);
            assert_eq!(ran.code, 1, "{from} {to}");
            assert!(ran.stderr.contains(said), "{}", ran.stderr);
        }
        assert!(before.iter().all(|entry| {
            entry.0.to_string_lossy().ends_with("lock") || bench.files().contains(entry)
        }));
    }
}
