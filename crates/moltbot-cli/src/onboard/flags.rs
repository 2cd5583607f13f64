//! The flags of `onboard`: the host's own, and those of every offer.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use moltbot_core::{Field, Offer, OfferEntry, Registry, Secret, Text};

use crate::commands::{agent_arg, fields, json_arg};
use crate::{Context, Failure};

/// Describes the command.
pub(crate) fn command(registry: &Registry) -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let value = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let one_of = |name: &'static str, values: &[&'static str], help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("VALUE")
            .value_parser(PossibleValuesParser::new(values.to_vec()))
            .help(help)
    };
    // Accepted because scripts of the older system pass them; they concern parts that are not here.
    let accepted =
        |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).hide(true);
    let choices: Vec<&str> =
        registry.offers().iter().map(|entry| entry.offer.choice.as_ref()).collect();
    Command::new("onboard")
        .about("Set up the first credential, the default model and the gateway")
        .arg(flag("non-interactive", "Ask nothing; needs --accept-risk"))
        .arg(flag("accept-risk", "Say that you know what an agent may do with your account"))
        .arg(
            value("auth-choice", "CHOICE", "How to authenticate")
                .long_help(format!("How to authenticate: {}, skip", choices.join(", "))),
        )
        .args(fields::args(all_fields(registry)))
        .arg(value("model", "MODEL", "Make this the default model"))
        .arg(agent_arg())
        .arg(value("workspace", "DIR", "The agent's working directory"))
        .arg(flag("reset", "Move config, credentials and sessions aside first"))
        .arg(one_of("flow", &["quickstart", "advanced", "manual"], "How much the wizard asks"))
        .arg(one_of("mode", &["local", "remote"], "Whether the gateway runs here"))
        .arg(value("gateway-port", "PORT", "The gateway's port [default: 18789]"))
        .arg(one_of(
            "gateway-bind",
            &["loopback", "lan", "tailnet", "auto", "custom"],
            "Where the gateway listens",
        ))
        .arg(one_of("gateway-auth", &["off", "token", "password"], "What the gateway asks for"))
        .arg(
            value("gateway-token", "SECRET", "The gateway's token; - reads standard input")
                .allow_hyphen_values(true),
        )
        .arg(
            value("gateway-password", "SECRET", "The gateway's password; - reads standard input")
                .allow_hyphen_values(true),
        )
        .arg(value("remote-url", "URL", "The remote gateway"))
        .arg(
            value("remote-token", "SECRET", "The remote gateway's token; - reads standard input")
                .allow_hyphen_values(true),
        )
        .arg(one_of(
            "tailscale",
            &["off", "serve", "funnel"],
            "Whether Tailscale publishes the gateway",
        ))
        .arg(
            flag("tailscale-reset-on-exit", "Withdraw it from Tailscale when the gateway stops")
                .value_parser(value_parser!(bool)),
        )
        .args(
            [
                "install-daemon",
                "no-install-daemon",
                "skip-daemon",
                "skip-channels",
                "skip-skills",
                "skip-health",
                "skip-ui",
            ]
            .map(accepted),
        )
        .args(
            ["daemon-runtime", "node-manager"]
                .map(|name| Arg::new(name).long(name).value_name("NAME").hide(true)),
        )
        .arg(json_arg())
        .after_help(examples(registry))
}

fn examples(registry: &Registry) -> String {
    let mut text = String::from("Examples:\n  moltbot onboard");
    for entry in registry.offers() {
        let key = entry.offer.fields.iter().find(|field| field.env.is_some());
        if let Some((flag, env)) =
            key.and_then(|field| Some((field.flag.as_ref()?, field.env.as_ref()?)))
        {
            text.push_str(&format!("\n  moltbot onboard --{flag} \"${env}\""));
        } else {
            text.push_str(&format!("\n  moltbot onboard --auth-choice {}", entry.offer.choice));
        }
    }
    text
}

fn all_fields(registry: &Registry) -> impl Iterator<Item = &'static Field> {
    registry.offers().iter().flat_map(|entry| {
        let offer: &'static Offer = entry.offer;
        &offer.fields
    })
}

/// What was typed, read and checked.
pub(crate) struct Flags {
    pub(crate) non_interactive: bool,
    pub(crate) accept_risk: bool,
    /// The offer chosen by `--auth-choice` or by one of its flags; `None` means `skip` or asking.
    pub(crate) choice: Option<Chosen>,
    pub(crate) model: Option<String>,
    pub(crate) workspace: Option<String>,
    pub(crate) reset: bool,
    pub(crate) mode: Option<String>,
    pub(crate) gateway: GatewayFlags,
    pub(crate) remote_url: Option<String>,
    pub(crate) remote_token: Option<Secret>,
    pub(crate) json: bool,
    /// The names that `--json` repeats.
    pub(crate) daemon_runtime: Option<String>,
    pub(crate) install_daemon: bool,
    pub(crate) skip_skills: bool,
    pub(crate) skip_health: bool,
}

/// An authentication choice.
pub(crate) enum Chosen {
    /// None, on purpose.
    Skip,
    /// This offer, with the answers its flags gave.
    Offer(OfferEntry, Vec<(Text, Secret)>),
}

/// The flags that become `gateway.*`.
#[derive(Default)]
pub(crate) struct GatewayFlags {
    pub(crate) port: Option<u16>,
    pub(crate) bind: Option<String>,
    pub(crate) auth: Option<String>,
    pub(crate) token: Option<Secret>,
    pub(crate) password: Option<Secret>,
    pub(crate) tailscale: Option<String>,
    pub(crate) tailscale_reset: bool,
}

impl Flags {
    /// Reads all flags; nothing is asked and nothing is changed.
    pub(crate) fn read(cx: &mut Context, args: &ArgMatches) -> Result<Self, Failure> {
        let text = |name: &str| args.get_one::<String>(name).cloned();
        let mut secret = |name: &str| text(name).map(|raw| cx.secret_flag(&raw)).transpose();
        let remote_token = secret("remote-token")?;
        let gateway = GatewayFlags {
            port: text("gateway-port").map(|raw| port(&raw)).transpose()?,
            bind: text("gateway-bind"),
            auth: text("gateway-auth"),
            token: secret("gateway-token")?,
            password: secret("gateway-password")?,
            tailscale: text("tailscale"),
            tailscale_reset: args.get_flag("tailscale-reset-on-exit"),
        };
        Ok(Self {
            non_interactive: args.get_flag("non-interactive"),
            accept_risk: args.get_flag("accept-risk"),
            choice: chosen(cx, args)?,
            model: text("model"),
            workspace: text("workspace"),
            reset: args.get_flag("reset"),
            mode: text("mode"),
            gateway,
            remote_url: text("remote-url"),
            remote_token,
            json: args.get_flag("json"),
            daemon_runtime: text("daemon-runtime"),
            install_daemon: args.get_flag("install-daemon"),
            skip_skills: args.get_flag("skip-skills"),
            skip_health: args.get_flag("skip-health"),
        })
    }

    /// Tells whether the gateway runs elsewhere.
    pub(crate) fn remote(&self) -> bool {
        self.mode.as_deref() == Some("remote")
    }
}

fn port(raw: &str) -> Result<u16, Failure> {
    raw.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
        Failure::input("Invalid --gateway-port").hint("a port is a number from 1 to 65535")
    })
}

/// Finds the offer: by `--auth-choice`, else by the first of an offer's flags that was given
/// (spec L-11).
fn chosen(cx: &mut Context, args: &ArgMatches) -> Result<Option<Chosen>, Failure> {
    let choice = args.get_one::<String>("auth-choice");
    if choice.is_some_and(|choice| choice == "skip") {
        return Ok(Some(Chosen::Skip));
    }
    if let Some(choice) = choice {
        let entry = super::offer(cx, choice)?;
        let answers = fields::answers(cx, args, &entry.offer.fields)?;
        return Ok(Some(Chosen::Offer(entry, answers)));
    }
    let registry = cx.registry;
    for entry in registry.offers().iter().copied() {
        let given = entry
            .offer
            .fields
            .iter()
            .any(|field| field.flag.as_deref().is_some_and(|flag| was_given(args, flag)));
        if given {
            let answers = fields::answers(cx, args, &entry.offer.fields)?;
            return Ok(Some(Chosen::Offer(entry, answers)));
        }
    }
    Ok(None)
}

fn was_given(args: &ArgMatches, flag: &str) -> bool {
    let typed = |id: &str| {
        args.try_contains_id(id).unwrap_or(false)
            && args.value_source(id) == Some(clap::parser::ValueSource::CommandLine)
    };
    typed(flag) || typed(&format!("{flag}-file"))
}
