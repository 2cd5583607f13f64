//! `moltbot gateway`: serves clients of this machine with a healthy credential, and what its owner
//! does about it.

mod client;
mod listen;
mod place;
mod run;
mod unit;

use clap::{Arg, ArgAction, ArgMatches, Command};
use moltbot_core::Registry;

use crate::{Context, Outcome};

pub(crate) use client::{ensure_token, glance};

/// Describes the command.
pub(crate) fn command(_registry: &Registry) -> Command {
    run_flags(Command::new("gateway"))
        .about("Serve clients on this machine with a healthy credential")
        .subcommand(
            run_flags(Command::new("run"))
                .about("Serve until stopped; the same as no subcommand")
                .after_help("Examples:\n  moltbot gateway run --port 18789"),
        )
        .subcommand(
            Command::new("status")
                .about("Say whether the gateway runs, where, and whether it is ready")
                .arg(super::json_arg())
                .after_help("Examples:\n  moltbot gateway status --json"),
        )
        .subcommand(
            Command::new("stop")
                .about("Let requests end, then stop the gateway")
                .after_help("Examples:\n  moltbot gateway stop"),
        )
        .subcommand(
            Command::new("token")
                .about("Print the token that clients need")
                .arg(
                    Arg::new("rotate")
                        .long("rotate")
                        .action(ArgAction::SetTrue)
                        .help("Make a new one; the old one is refused from then on"),
                )
                .after_help("Examples:\n  moltbot gateway token\n  moltbot gateway token --rotate"),
        )
        .subcommand(
            Command::new("env")
                .about("Print the variables that point a client at the gateway")
                .arg(
                    Arg::new("shell")
                        .long("shell")
                        .action(ArgAction::SetTrue)
                        .help("Print them as commands for a shell"),
                )
                .after_help(
                    "Examples:\n  moltbot gateway env\n  eval \"$(moltbot gateway env --shell)\"",
                ),
        )
        .subcommand(
            Command::new("exec")
                .about("Run a program with the variables that point it at the gateway")
                .arg(
                    Arg::new("command")
                        .value_name("COMMAND")
                        .num_args(1..)
                        .required(true)
                        .trailing_var_arg(true)
                        .allow_hyphen_values(true)
                        .help("The program and its arguments"),
                )
                .after_help("Examples:\n  moltbot gateway exec -- python my_agent.py"),
        )
        .subcommand(
            Command::new("install")
                .about("Let systemd start the gateway with your session")
                .arg(
                    Arg::new("socket")
                        .long("socket")
                        .action(ArgAction::SetTrue)
                        .help("Let systemd hold the socket: a restart refuses nobody"),
                )
                .after_help(
                    "Examples:\n  moltbot gateway install\n  moltbot gateway install --socket",
                ),
        )
        .subcommand(
            Command::new("uninstall")
                .about("Stop the gateway and let systemd forget it")
                .after_help("Examples:\n  moltbot gateway uninstall"),
        )
        .after_help(
            "Examples:\n  moltbot gateway\n  moltbot gateway --port 18790 --quiet\n  \
             moltbot gateway exec -- python my_agent.py",
        )
}

fn run_flags(command: Command) -> Command {
    let value = |name: &'static str, word: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(word).help(help)
    };
    let flag =
        |name: &'static str, help| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    command
        .arg(value(
            "port",
            "N",
            "Listen on this port, not the configured one or 18789; 0 takes any free one",
        ))
        .arg(
            value("bind", "WHERE", "Listen there; without it on this machine only")
                .value_parser(["loopback", "lan", "tailnet", "auto", "custom"]),
        )
        .arg(
            value("auth", "MODE", "How clients prove themselves")
                .value_parser(["token", "password"]),
        )
        .arg(value("token", "TOKEN", "The token clients need; - reads it from standard input"))
        .arg(value("password", "WORD", "The password clients need; - reads it from standard input"))
        .arg(
            value("tailscale", "MODE", "Publish through Tailscale; only \"off\" is served")
                .value_parser(["off", "serve", "funnel"]),
        )
        .arg(flag("allow-unconfigured", "Start without gateway.mode=local in the config"))
        .arg(flag("verbose", "Say more on standard error, as MOLTBOT_LOG=debug does"))
        .arg(flag("quiet", "Write no line per request to standard error"))
        .arg(
            value("workers", "N", "Threads that serve requests; without it one per two cores")
                .value_parser(clap::value_parser!(u16).range(1..=64)),
        )
        .arg(value("lab", "URL", "Ask a lab on this machine instead of the services").hide(true))
}

/// Runs the command.
pub(crate) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    match args.subcommand() {
        None => run::run(cx, args),
        Some(("run", args)) => run::run(cx, args),
        Some(("status", args)) => client::status(cx, args.get_flag("json")),
        Some(("stop", _)) => client::stop(cx),
        Some(("token", args)) => client::token(cx, args.get_flag("rotate")),
        Some(("env", args)) => client::env(cx, args.get_flag("shell")),
        Some(("exec", args)) => {
            client::exec(cx, args.get_many::<String>("command").expect("required").cloned())
        }
        Some(("install", args)) => unit::install(cx, args.get_flag("socket")),
        Some(("uninstall", _)) => unit::uninstall(cx),
        Some(_) => unreachable!("clap knows only these"),
    }
}
