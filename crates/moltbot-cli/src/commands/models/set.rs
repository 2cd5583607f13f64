//! `moltbot models set`, `set-image`: the model to use first (spec L-25).

use clap::{Arg, ArgMatches, Command};
use moltbot_config::ModelSlot;
use moltbot_core::Registry;

use super::resolve;
use crate::commands::usual_provider;
use crate::{Context, Exit, Outcome};

pub(super) fn command(registry: &Registry) -> Command {
    described("set", "Use a model by default", registry)
}

pub(super) fn image_command(registry: &Registry) -> Command {
    described("set-image", "Use a model for images", registry)
}

fn described(name: &'static str, about: &'static str, registry: &Registry) -> Command {
    let usual = usual_provider(registry);
    let model = registry.provider(usual).map(|entry| entry.info.recommended_model.as_ref());
    let example = format!("{usual}/{}", model.unwrap_or("model"));
    Command::new(name)
        .about(about)
        .arg(
            Arg::new("model")
                .value_name("MODEL")
                .required(true)
                .help("An alias, a model of the default provider, or provider/model"),
        )
        .after_help(format!("Example:\n  moltbot models {name} {example}"))
}

pub(super) fn run(cx: &mut Context, args: &ArgMatches, slot: ModelSlot) -> Outcome {
    let raw = args.get_one::<String>("model").expect("clap requires it");
    let key = resolve(cx, raw)?.to_string();
    cx.edit(|editor| Ok(editor.set_model(slot, &key)?))?;
    let label = if slot == ModelSlot::Main { "Default model" } else { "Image model" };
    cx.out.line(format!("{label}: {key}"));
    Ok(Exit::OK)
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    #[test]
    fn the_primary_is_set_and_the_rest_of_the_file_stays() {
        let bench = Bench::new();
        bench
            .config("{ // mine\n  agents: { defaults: { model: { fallbacks: ['acme/tiny'] } } } }");
        let ran = bench.run(&["models", "set", "big"]);
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (0, "Default model: acme/big-2\n"),
            "{}",
            ran.stderr
        );
        let text = bench.config_text();
        assert!(text.contains("// mine") && text.contains("acme/tiny"), "{text}");
        assert!(!text.contains("models:") && !text.contains("\"models\""), "{text}");
    }

    #[test]
    fn an_allowlist_grows_and_a_short_form_stays_short() {
        let bench = Bench::new();
        bench.config(
            "{ agents: { defaults: { model: 'acme/tiny', models: { 'acme/tiny': {} } } } }",
        );
        bench.run(&["models", "set", "acme/big-2"]);
        let value = bench.config_value();
        assert_eq!(value["agents"]["defaults"]["model"], "acme/big-2");
        assert!(value["agents"]["defaults"]["models"]["acme/big-2"].is_object());
    }

    #[test]
    fn an_unknown_model_is_set_with_a_warning() {
        let bench = Bench::new();
        let ran = bench.run(&["models", "set-image", "acme/new-9"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "Image model: acme/new-9\n"));
        assert!(ran.stderr.contains("warning: acme/new-9 is not in the catalog"), "{}", ran.stderr);
        assert_eq!(bench.run(&["models", "set", "acme/"]).code, 1);
    }
}
