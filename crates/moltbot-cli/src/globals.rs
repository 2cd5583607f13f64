//! The flags that stand before the command: `--dev`, `--profile`, `--no-color`, `--version`.
//!
//! They are read before `clap` sees anything, because they decide which state directory and which
//! config the rest of the command line is about (spec C-7).

use std::ffi::OsString;

use moltbot_config::Instance;

use crate::Failure;

/// What the flags before the command say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Globals {
    /// Which instance is meant, and every other argument.
    pub instance: Instance,
    /// Whether colours are switched off.
    pub no_color: bool,
    /// Whether only the version is wanted.
    pub version: bool,
}

impl Globals {
    /// Takes the global flags out of the arguments (without the program's name).
    ///
    /// They count only before the first argument that is no flag; everything else stays in
    /// `instance.rest`. A wrong use of `--profile` or `--dev` is a failure with exit code 2.
    pub fn take(args: Vec<OsString>) -> Result<Self, Failure> {
        let args = args
            .into_iter()
            .map(|arg| arg.into_string())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Failure::input("An argument is not valid UTF-8"))?;
        let mut instance =
            Instance::parse(args).map_err(|error| Failure::input(error.to_string()).exit(2))?;
        let mut globals = Self::default();
        let mut before = true;
        instance.rest.retain(|arg| {
            before = before && arg.starts_with('-') && arg != "-" && arg != "--";
            match arg.as_str() {
                "--no-color" if before => globals.no_color = true,
                "--version" | "-V" | "-v" if before => globals.version = true,
                _ => return true,
            }
            false
        });
        globals.instance = instance;
        Ok(globals)
    }

    /// Returns the flags that a printed command must repeat, with a leading space.
    pub fn repeated(&self) -> String {
        match (&self.instance.profile, self.instance.dev) {
            (_, true) => " --dev".to_string(),
            (Some(name), false) => format!(" --profile {name}"),
            (None, false) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(line: &str) -> Result<Globals, Failure> {
        Globals::take(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn flags_count_only_before_the_command() {
        let globals = take("--profile x --no-color models status --profile y -v").unwrap();
        assert_eq!(globals.instance.profile.as_deref(), Some("x"));
        assert!(globals.no_color && !globals.version);
        assert_eq!(globals.instance.rest, ["models", "status", "--profile", "y", "-v"]);
        assert_eq!(take("-- --no-color").unwrap().instance.rest, ["--", "--no-color"]);
        assert_eq!(take("--bogus --no-color").unwrap().instance.rest, ["--bogus"]);
    }

    #[test]
    fn printed_commands_repeat_them() {
        assert_eq!(take("--profile x a").unwrap().repeated(), " --profile x");
        assert_eq!(take("--dev a").unwrap().repeated(), " --dev");
        assert_eq!(take("a").unwrap().repeated(), "");
    }

    #[test]
    fn wrong_uses_exit_with_two() {
        for (line, message) in [
            ("--dev --profile y", "Cannot combine --dev with --profile"),
            ("--profile", "--profile requires a value"),
            ("--profile=../z a", "Invalid --profile (use letters, numbers, \"_\", \"-\" only)"),
        ] {
            let failure = take(line).unwrap_err();
            assert_eq!((failure.message.as_str(), failure.exit), (message, 2));
        }
    }

    #[test]
    fn the_version_is_asked_for_in_three_ways() {
        for line in ["--version", "-V", "-v", "--no-color -v"] {
            assert!(take(line).unwrap().version, "{line}");
        }
    }
}
