//! Chores of the workspace, run as `cargo xtask CHORE`. One file per chore.

mod alone;
mod bench;
mod ci;
mod dist;
mod new_plugin;
mod scaffold;
mod sync;
mod torture;
mod valgrind;
mod workspace;

use std::process::ExitCode;

use clap::{Arg, ArgAction, Command};

fn main() -> ExitCode {
    let matches = command().get_matches();
    let done = match matches.subcommand() {
        Some(("ci", args)) => ci::run(args.get_one::<String>("step").map(String::as_str)),
        Some(("sync", args)) => sync::run(&workspace::root(), args.get_flag("check")),
        Some(("dist", args)) => dist::run(args),
        Some(("new-plugin", args)) => new_plugin::run(args),
        Some(("torture", args)) => torture::run(args),
        Some(("alone", args)) => alone::run(args),
        Some(("bench", args)) => match args.subcommand() {
            Some(("claude", args)) => bench::claude(args),
            Some(("plugins", _)) => bench::plugins(),
            Some((_, args)) => bench::gateway(args),
            None => bench::run(args.get_flag("quick")),
        },
        Some(("bare-proxy", args)) => {
            bench::bare_proxy(*args.get_one("upstream").expect("required"))
        }
        Some(("measure", args)) => {
            bench::measure(args.get_many::<String>("command").expect("required").cloned())
        }
        Some(("measure-store", _)) => bench::measure_store(),
        Some(("measure-turn", args)) => {
            let notes: &std::path::PathBuf = args.get_one("notes").expect("required");
            let command = args.get_many::<String>("command").expect("required");
            bench::measure_turn(notes, &command.cloned().collect::<Vec<_>>())
        }
        Some(("measure-plugins", args)) => {
            let file = |name: &str| args.get_one::<std::path::PathBuf>(name);
            let (library, process) = (file("library").expect("required"), file("process"));
            bench::measure_plugins(library, process.map(|path| path.as_path()))
        }
        _ => unreachable!("a chore is required"),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command() -> Command {
    Command::new("xtask")
        .about("Chores of the workspace")
        .bin_name("cargo xtask")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("ci")
                .about("Check what the compiler does not: format, lints, docs, layers, names")
                .arg(Arg::new("step").help("Run only this step").value_parser(ci::steps())),
        )
        .subcommand(
            Command::new("sync")
                .about("Write crates/moltbot from the directories under plugins/")
                .arg(
                    Arg::new("check")
                        .long("check")
                        .action(ArgAction::SetTrue)
                        .help("Fail instead of writing if it is stale"),
                ),
        )
        .subcommand(dist::command())
        .subcommand(new_plugin::command())
        .subcommand(torture::command())
        .subcommand(alone::command())
        .subcommand(
            Command::new("bench")
                .about("Print the figures that the README quotes")
                .arg(
                    Arg::new("quick")
                        .long("quick")
                        .action(ArgAction::SetTrue)
                        .help("Leave out the clean build"),
                )
                .subcommand(bench_gateway())
                .subcommand(bench::claude_command())
                .subcommand(Command::new("plugins").about("Print those about plugins only")),
        )
        .subcommand(
            Command::new("bare-proxy")
                .about("Pass HTTP on as plainly as hyper can; the control of `bench gateway`")
                .hide(true)
                .arg(
                    Arg::new("upstream")
                        .required(true)
                        .value_parser(clap::value_parser!(std::net::SocketAddr)),
                ),
        )
        .subcommand(
            Command::new("measure-store")
                .about("Load a large store and pick a profile; print the times as JSON")
                .hide(true),
        )
        .subcommand(
            Command::new("measure-plugins")
                .about("Ask a plugin over each carrier; print the times as JSON")
                .long_about("Without a process every call is made once and nothing is printed.")
                .hide(true)
                .args([("library", true), ("process", false)].map(|(name, required)| {
                    let file = clap::value_parser!(std::path::PathBuf);
                    Arg::new(name).required(required).value_parser(file)
                })),
        )
        .subcommand(
            Command::new("measure-turn")
                .about("Run a program and note how long its first turn took")
                .hide(true)
                .arg(
                    Arg::new("notes")
                        .required(true)
                        .value_parser(clap::value_parser!(std::path::PathBuf)),
                )
                .arg(Arg::new("command").num_args(1..).required(true).last(true)),
        )
        .subcommand(
            Command::new("measure")
                .about("Run one command and print its wall time and peak memory as JSON")
                .hide(true)
                .arg(Arg::new("command").num_args(1..).required(true).last(true)),
        )
}

fn bench_gateway() -> Command {
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .default_value(default)
            .value_parser(clap::value_parser!(u32))
            .help(help)
    };
    Command::new("gateway")
        .about("Compare the gateway with nginx and a bare hyper proxy; needs nginx and wrk")
        .arg(number("seconds", "1", "Seconds per run of wrk"))
        .arg(number("rounds", "3", "Rounds per cell; the median counts"))
        .arg(number("growth", "30", "Seconds of load while memory is watched; 0 for none"))
        .arg(
            Arg::new("only")
                .long("only")
                .action(ArgAction::Append)
                .value_parser(["table", "streams", "memory"])
                .help("Run only this part; may be repeated"),
        )
        .arg(
            Arg::new("block")
                .long("block")
                .action(ArgAction::Append)
                .value_parser(["latency", "json", "sse", "bodies"])
                .help("Run only this block of the table; may be repeated"),
        )
        .arg(
            Arg::new("quick")
                .long("quick")
                .action(ArgAction::SetTrue)
                .help("Only the short bodies"),
        )
        .arg(
            Arg::new("binary")
                .long("binary")
                .value_name("PATH")
                .help("Measure this program; without it the release build of this tree"),
        )
}
