//! `moltbot onboard`: the first credential, the default model and the gateway's settings.
//!
//! With an authentication flag, or with `--non-interactive`, nothing is asked (`headless`); else a
//! person is led through it (`wizard`). Either way everything is decided before anything is
//! written, so that Ctrl-C leaves nothing behind.

pub(crate) mod configure;
mod flags;
mod headless;
mod reset;
mod settings;
mod wizard;

use clap::ArgMatches;
use moltbot_config::{KeyPath, ModelSlot};
use moltbot_core::{Login, OfferEntry};
use moltbot_gateway::AgentPaths;
use serde_json::{Value, json};

use crate::login::{Kept, keep};
use crate::{Context, Failure, Outcome};

pub(crate) use flags::command;
pub(crate) use wizard::{choose_offer, quiet, stopped};

use flags::Flags;

/// Runs the command.
pub(crate) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let flags = Flags::read(cx, args)?;
    if flags.non_interactive && !flags.accept_risk {
        let message = "Non-interactive setup requires explicit risk acknowledgement: an agent acts \
                       with the rights of the account that runs it. Re-run with --accept-risk";
        return Err(Failure::input(message)
            .hint("moltbot onboard --non-interactive --accept-risk --auth-choice <choice>"));
    }
    if !flags.reset && cx.config().is_err() {
        let message = "Config invalid. Run `moltbot doctor` to repair it, then re-run onboarding.";
        return Err(Failure::new(message).code("config-invalid"));
    }
    let asks = flags.choice.is_none() && !flags.non_interactive && !flags.remote();
    if asks && !cx.out.terminal().interactive() {
        return Err(Failure::new("onboard needs a terminal to ask its questions")
            .code("not-interactive")
            .hint("without one, pass --auth-choice with its flags, see moltbot onboard --help"));
    }
    if asks { wizard::run(cx, args, &flags) } else { headless::run(cx, args, &flags) }
}

/// Finds the offer behind a value of `--auth-choice`.
pub(crate) fn offer(cx: &Context, choice: &str) -> Result<OfferEntry, Failure> {
    cx.registry.choice(choice).copied().ok_or_else(|| {
        let known: Vec<&str> =
            cx.registry.offers().iter().map(|entry| entry.offer.choice.as_ref()).collect();
        Failure::input(format!("Unknown --auth-choice \"{}\"", crate::out::clean(choice)))
            .hint(format!("choose one of: {}, skip", known.join(", ")))
    })
}

/// Makes a model the default one.
pub(crate) fn set_model(cx: &mut Context, model: &str) -> Result<(), Failure> {
    cx.edit(|editor| Ok(editor.set_model(ModelSlot::Main, model)?))
}

/// Everything that onboarding writes, decided beforehand.
struct Plan<'a> {
    agent: &'a AgentPaths,
    login: Option<(OfferEntry, Login)>,
    model: Option<String>,
    workspace: Option<&'a str>,
    gateway: settings::Gateway,
    reset: bool,
}

impl Plan<'_> {
    /// Writes it: the store first, then the config in one edit.
    fn write(self, cx: &mut Context) -> Result<(Option<Kept>, settings::Gateway), Failure> {
        if self.reset {
            reset::run(cx)?;
        }
        let own_model = self.login.as_ref().and_then(|(_, login)| login.model.clone());
        let kept = match self.login {
            Some((entry, login)) => Some(keep(cx, self.agent, &entry, login)?),
            None => None,
        };
        cx.edit(|editor| {
            if let Some(kept) = &kept {
                kept.record(editor)?;
            }
            if let Some(model) = &self.model {
                editor.set_model(ModelSlot::Main, model)?;
            }
            // Where only listed models may be asked for, the one that was just set up is listed.
            let listed = KeyPath::keys(["agents", "defaults", "models"]);
            if let Some(own) = &own_model
                && let Some(Value::Object(models)) = editor.get(&listed)
                && !models.is_empty()
                && !models.contains_key(own)
            {
                editor.set(&listed.key(own.as_str()), &json!({}))?;
            }
            if let Some(workspace) = self.workspace {
                editor
                    .set(&KeyPath::keys(["agents", "defaults", "workspace"]), &json!(workspace))?;
            }
            self.gateway.write(editor)
        })?;
        Ok((kept, self.gateway))
    }
}
