//! Flags that plugins declare: from [`Field`] to `clap` and back to answers.

use std::path::Path;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches};
use moltbot_core::{Field, FieldKind, Secret, Text};

use crate::{Context, Failure};

/// Makes the flags of several fields, each flag once. A secret has a `-file` twin.
pub fn args(fields: impl IntoIterator<Item = &'static Field>) -> Vec<Arg> {
    let mut seen: Vec<&str> = Vec::new();
    let mut args = Vec::new();
    for field in fields {
        let Some(flag) = field.flag.as_deref().filter(|flag| !seen.contains(flag)) else {
            continue;
        };
        seen.push(flag);
        let help = match &field.env {
            Some(env) => format!("{} [or set {env}]", field.label),
            None => field.label.to_string(),
        };
        let arg = Arg::new(flag).long(flag);
        match &field.kind {
            FieldKind::Confirm {} => {
                args.push(arg.help(help).action(ArgAction::SetTrue));
            }
            FieldKind::Select { options } => {
                let values: Vec<&'static str> =
                    options.iter().map(|option| option.value.as_ref()).collect();
                args.push(
                    arg.help(help)
                        .value_name("VALUE")
                        .value_parser(PossibleValuesParser::new(values)),
                );
            }
            FieldKind::Secret {} => {
                let twin = twin(flag);
                args.push(
                    arg.help(format!("{help}; - reads standard input"))
                        .value_name("SECRET")
                        .allow_hyphen_values(true),
                );
                args.push(
                    Arg::new(twin)
                        .long(twin)
                        .value_name("FILE")
                        .help(format!("Read it from a file instead of --{flag}"))
                        .conflicts_with(flag),
                );
            }
            FieldKind::Duration {} => {
                args.push(arg.help(help).value_name("DURATION"));
            }
            _ => args.push(arg.help(help).value_name("TEXT")),
        }
    }
    args
}

/// Collects what the flags of these fields answer, by field id. Variables and defaults are left
/// to whoever asks.
pub fn answers(
    cx: &mut Context,
    matches: &ArgMatches,
    fields: impl IntoIterator<Item = &'static Field>,
) -> Result<Vec<(Text, Secret)>, Failure> {
    let mut answers: Vec<(Text, Secret)> = Vec::new();
    for field in fields {
        let Some(flag) = field.flag.as_deref() else { continue };
        if answers.iter().any(|(id, _)| *id == field.id) {
            continue;
        }
        let answer = match &field.kind {
            FieldKind::Confirm {} => matches
                .try_get_one::<bool>(flag)
                .ok()
                .flatten()
                .filter(|set| **set)
                .map(|_| Secret::new("true")),
            FieldKind::Secret {} => secret(cx, matches, flag)?,
            _ => given(matches, flag).map(Secret::new),
        };
        if let Some(answer) = answer {
            answers.push((field.id.clone(), answer));
        }
    }
    Ok(answers)
}

fn secret(
    cx: &mut Context,
    matches: &ArgMatches,
    flag: &'static str,
) -> Result<Option<Secret>, Failure> {
    if let Some(raw) = given(matches, flag) {
        return cx.secret_flag(raw).map(Some);
    }
    let Some(file) = given(matches, twin(flag)) else { return Ok(None) };
    cx.secret_file(Path::new(file)).map(Some)
}

fn given<'m>(matches: &'m ArgMatches, flag: &str) -> Option<&'m str> {
    matches.try_get_one::<String>(flag).ok().flatten().map(String::as_str)
}

/// Names the twin of a secret's flag. Flags are few and live as long as the process.
fn twin(flag: &'static str) -> &'static str {
    use std::collections::HashMap;
    use std::sync::{LazyLock, Mutex, PoisonError};
    static TWINS: LazyLock<Mutex<HashMap<&'static str, &'static str>>> =
        LazyLock::new(Mutex::default);
    let mut twins = TWINS.lock().unwrap_or_else(PoisonError::into_inner);
    twins.entry(flag).or_insert_with(|| format!("{flag}-file").leak())
}
