//! `moltbot lab`: serves the Messages API with faults on order.

use std::io::Write;

use clap::{Arg, ArgMatches, Command, value_parser};
use moltbot_core::Registry;
use moltbot_lab::{Lab, LabOptions, parse_plan};

use crate::{Context, Exit, Failure, Outcome};

/// Describes the command.
pub(crate) fn command(_registry: &Registry) -> Command {
    Command::new("lab")
        .about("Serve a stand-in for the Messages API on this machine")
        .arg(
            Arg::new("port")
                .long("port")
                .value_name("N")
                .value_parser(value_parser!(u16))
                .default_value("0")
                .help("Listen on this port of 127.0.0.1; 0 takes any free one"),
        )
        .arg(
            Arg::new("plan")
                .long("plan")
                .value_name("FILE")
                .help("Fail as this fault plan says (JSON5)"),
        )
        .after_help(
            "Examples:\n  moltbot lab --port 8787\n  moltbot lab --plan faults.json5\n  \
             curl http://127.0.0.1:8787/lab/log",
        )
}

/// Runs the command.
pub(crate) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let mut options =
        LabOptions { port: *args.get_one("port").expect("has a default"), ..LabOptions::default() };
    if let Some(path) = args.get_one::<String>("plan") {
        let file = cx.cwd().join(path);
        let text = std::fs::read_to_string(&file).map_err(|error| {
            Failure::new(format!("cannot read {path}: {error}")).code("plan-invalid")
        })?;
        options.plan = parse_plan(&text, path)
            .map_err(|error| Failure::new(error.to_string()).code("plan-invalid"))?;
    }
    let port = options.port;
    // Started inside the wait, so that Ctrl-C is caught before anybody can know of the lab.
    let served = cx.block_on_cancel(async {
        let lab = Lab::start(options).await?;
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "lab: {}", lab.url())?;
        stdout.flush()?;
        eprintln!("Any well-formed key is accepted; GET /lab/log shows what arrived; Ctrl-C stops");
        std::future::pending::<std::io::Result<()>>().await
    });
    match served {
        Err(stopped) if stopped.exit == 130 => Ok(Exit::OK),
        Err(failure) => Err(failure),
        Ok(Ok(())) => Ok(Exit::OK),
        Ok(Err(error)) => Err(Failure::new(format!("cannot listen on 127.0.0.1:{port}: {error}"))
            .hint("choose another --port")),
    }
}
