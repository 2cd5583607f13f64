//! `moltbot completions SHELL`: a completion script for the user's shell.

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;
use moltbot_core::Registry;

use crate::{Context, Exit, Outcome, tree};

/// Describes the command.
pub(crate) fn command(_: &Registry) -> Command {
    Command::new("completions")
        .about("Print a completion script for a shell")
        .arg(Arg::new("shell").value_name("SHELL").required(true).value_parser(value_parser!(Shell)))
        .after_help(
            "Examples:\n  moltbot completions bash > ~/.local/share/bash-completion/completions/moltbot\n  \
             moltbot completions zsh > ~/.zfunc/_moltbot\n  \
             moltbot completions fish > ~/.config/fish/completions/moltbot.fish",
        )
}

/// Prints the script.
pub(crate) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let shell = *args.get_one::<Shell>("shell").expect("clap requires it");
    let mut command = tree::command(cx.registry);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "moltbot", &mut script);
    cx.out.raw(&String::from_utf8_lossy(&script));
    Ok(Exit::OK)
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    #[test]
    fn scripts_know_the_commands() {
        let bench = Bench::new();
        for shell in ["bash", "zsh", "fish"] {
            let ran = bench.run(&["completions", shell]);
            assert_eq!(ran.code, 0, "{shell}: {}", ran.stderr);
            for word in ["image-fallbacks", "explain", "no-color"] {
                assert!(ran.stdout.contains(word), "{shell} lacks {word}");
            }
        }
        assert_eq!(bench.run(&["completions", "tcsh"]).code, 1);
    }
}
