//! Environment variables as values: five layers, the first that is not blank wins (spec C-8).

use std::collections::BTreeMap;
use std::fmt;

/// Where a variable comes from, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The environment of the process.
    Process,
    /// `.env` in the working directory.
    CwdFile,
    /// `.env` in the state directory.
    StateFile,
    /// The `env` section of the configuration.
    Config,
    /// What the login shell exports.
    Shell,
}

impl Source {
    /// Returns the label that status output shows: `env: NAME` or `shell env: NAME`.
    pub fn label(self, name: &str) -> String {
        match self {
            Self::Shell => format!("shell env: {name}"),
            _ => format!("env: {name}"),
        }
    }
}

/// A snapshot of the environment, passed in by the command line. Nothing in this crate reads the
/// environment of the process, and nothing changes it.
///
/// ```
/// use moltbot_config::{Env, Source};
/// let env = Env::new([("A", "1"), ("B", " ")])
///     .with(Source::StateFile, [("B", "from the file")]);
/// assert_eq!(env.get("A"), Some(("1", Source::Process)));
/// assert_eq!(env.get("B"), Some(("from the file", Source::StateFile)));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Env {
    layers: BTreeMap<Source, BTreeMap<String, String>>,
}

impl Env {
    /// Makes a snapshot that holds the environment of the process and no other layer.
    pub fn new<K: Into<String>, V: Into<String>>(
        process: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        Self::default().with(Source::Process, process)
    }

    /// Sets one layer; what it held before is gone.
    #[must_use]
    pub fn with<K: Into<String>, V: Into<String>>(
        mut self,
        source: Source,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let layer = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        self.layers.insert(source, layer.collect());
        self
    }

    /// Finds a variable: the first layer in which it is not blank.
    pub fn get(&self, name: &str) -> Option<(&str, Source)> {
        self.layers.iter().find_map(|(source, layer)| {
            let value = layer.get(name).filter(|value| !value.trim().is_empty())?;
            Some((value.as_str(), *source))
        })
    }

    /// Finds one of our own variables: `MOLTBOT_X`, else `CLAWDBOT_X` (spec C-4).
    ///
    /// The new name wins wherever it is set, even in a weaker layer.
    pub fn own(&self, suffix: &str) -> Option<(&str, Source)> {
        OWN_PREFIXES.iter().find_map(|prefix| self.get(&format!("{prefix}{suffix}")))
    }

    /// Finds one of our own variables in the environment of the process only.
    ///
    /// Where the state directory is cannot be said by a file in it, nor by a file in whatever
    /// directory one happens to be in.
    pub fn own_in_process(&self, suffix: &str) -> Option<&str> {
        let process = self.layers.get(&Source::Process)?;
        OWN_PREFIXES
            .iter()
            .filter_map(|prefix| process.get(&format!("{prefix}{suffix}")))
            .find(|value| !value.trim().is_empty())
            .map(String::as_str)
    }

    /// Lists the names that are set in any layer, each once.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let all: std::collections::BTreeSet<&str> =
            self.layers.values().flat_map(|layer| layer.keys().map(String::as_str)).collect();
        all.into_iter()
    }
}

const OWN_PREFIXES: [&str; 2] = ["MOLTBOT_", "CLAWDBOT_"];

/// Shows names only: any value may be a key.
impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.layers.iter().map(|(source, layer)| (source, layer.keys()));
        f.debug_map()
            .entries(names.map(|(source, keys)| (source, keys.collect::<Vec<_>>())))
            .finish()
    }
}

/// Tells whether a variable that is a switch is on: `1`, `true`, `yes` or `on`.
pub fn is_truthy(value: &str) -> bool {
    matches!(value.trim().to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")
}

/// Reads the text of a `.env` file.
///
/// A line is `NAME=value`, optionally after `export`. Single quotes take the value as it stands,
/// double quotes know `\n`, `\r`, `\t`, `\"` and `\\`, both may span lines; without quotes the
/// value ends at ` #`. `$NAME` is not replaced: a key may hold a dollar sign. Lines that are none
/// of this are skipped, as other readers of these files do; the last of equal names wins.
///
/// ```
/// let text = "# keys\nexport A='x # y'\nB = \"two\\nlines\" # why\nC=plain # why\nnonsense\n";
/// let read = moltbot_config::parse_dotenv(text);
/// assert_eq!(read["A"], "x # y");
/// assert_eq!(read["B"], "two\nlines");
/// assert_eq!(read["C"], "plain");
/// assert_eq!(read.len(), 3);
/// ```
pub fn parse_dotenv(text: &str) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    while !rest.is_empty() {
        let line_end = rest.find('\n').map_or(rest.len(), |at| at + 1);
        let line = &rest[..line_end];
        let next = &rest[line_end..];
        let assignment = line.trim_start();
        let assignment = match assignment.strip_prefix("export") {
            Some(after) if after.starts_with([' ', '\t']) => after.trim_start(),
            _ => assignment,
        };
        rest = next;
        let Some((name, value)) = assignment.split_once('=') else { continue };
        let name = name.trim_end();
        if !is_name(name) {
            continue;
        }
        let value = value.trim_start_matches([' ', '\t']);
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'' | '`')) => {
                // The value may go on over line ends, so look in the whole remaining text.
                let start = value.as_ptr() as usize - text.as_ptr() as usize + 1;
                match quoted(&text[start..], quote) {
                    Some((value, length)) => {
                        let after = &text[start + length..];
                        rest = after.find('\n').map_or("", |at| &after[at + 1..]);
                        value
                    }
                    // No closing quote: the quote is part of the value.
                    None => value.trim_end().to_string(),
                }
            }
            _ => unquoted(value).to_string(),
        };
        variables.insert(name.to_string(), value);
    }
    variables
}

/// Tells whether a text can name a variable in these files.
fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn unquoted(value: &str) -> &str {
    let comment = value
        .char_indices()
        .find(|(at, c)| *c == '#' && (*at == 0 || value[..*at].ends_with([' ', '\t'])));
    value[..comment.map_or(value.len(), |(at, _)| at)].trim_end()
}

/// Returns the value up to the closing quote and the bytes up to and with it.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Some((value, at + c.len_utf8())),
            '\\' if quote == '"' => match chars.next()?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                c @ ('"' | '\\' | '$') => value.push(c),
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
    None
}

/// What to ask the login shell for, and how long to wait (spec C-11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShellImport {
    /// Longest wait in milliseconds.
    pub timeout_ms: u64,
}

/// The longest output of the shell that is read, in bytes.
pub const SHELL_OUTPUT_LIMIT: usize = 2 * 1024 * 1024;

impl ShellImport {
    /// Decides whether to ask: a variable says so, or `env.shellEnv` in the configuration does.
    pub fn wanted(env: &Env, enabled: Option<bool>, timeout_ms: Option<u32>) -> Option<Self> {
        let switched = env.own("LOAD_SHELL_ENV").is_some_and(|(value, _)| is_truthy(value));
        if !switched && enabled != Some(true) {
            return None;
        }
        let from_env =
            env.own("SHELL_ENV_TIMEOUT_MS").and_then(|(value, _)| value.trim().parse().ok());
        let timeout_ms = from_env.or(timeout_ms.map(u64::from)).unwrap_or(15_000);
        Some(Self { timeout_ms })
    }

    /// Returns the program and its arguments; `shell` is the value of `SHELL`.
    pub fn command(shell: Option<&str>) -> (String, [&'static str; 3]) {
        let shell = shell.map(str::trim).filter(|shell| shell.starts_with('/'));
        (shell.unwrap_or("/bin/sh").to_string(), ["-l", "-c", "env -0"])
    }

    /// Takes from the output of `env -0` the allowed names that are not set yet, each on its own:
    /// one name that is set does not keep the others out.
    pub fn import(output: &[u8], allowed: &[String], env: &Env) -> BTreeMap<String, String> {
        output
            .split(|byte| *byte == 0)
            .filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='))
            // A login script may print a greeting before the first entry.
            .map(|(name, value)| (name.rsplit('\n').next().unwrap_or(name), value))
            .filter(|(name, value)| {
                !value.trim().is_empty()
                    && allowed.iter().any(|allowed| allowed == name)
                    && env.get(name).is_none()
            })
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_win_in_their_order() {
        let mut env = Env::default();
        let order =
            [Source::Shell, Source::Config, Source::StateFile, Source::CwdFile, Source::Process];
        for source in order {
            env = env.with(source, [("K", format!("{source:?}"))]);
            assert_eq!(env.get("K"), Some((format!("{source:?}").as_str(), source)));
        }
        assert_eq!(Source::Shell.label("K"), "shell env: K");
        assert_eq!(Source::Config.label("K"), "env: K");
    }

    #[test]
    fn the_new_name_wins_over_the_old() {
        let env = Env::new([("CLAWDBOT_X", "old"), ("CLAWDBOT_Y", "old"), ("MOLTBOT_Y", " ")])
            .with(Source::Config, [("MOLTBOT_X", "new")]);
        assert_eq!(env.own("X"), Some(("new", Source::Config)));
        assert_eq!(env.own("Y"), Some(("old", Source::Process)));
        assert_eq!(env.own_in_process("X"), Some("old"));
    }

    #[test]
    fn debug_shows_no_value() {
        let shown = format!("{:?}", Env::new([("API_KEY", "FAKE-VALUE")]));
        assert!(shown.contains("API_KEY") && !shown.contains("FAKE"), "{shown}");
    }

    #[test]
    fn dotenv_lines() {
        for (text, value) in [
            ("K=v", "v"),
            ("K=v\r\n", "v"),
            ("  K = v  ", "v"),
            ("export\tK=v", "v"),
            ("K=a#b", "a#b"),
            ("K=a #b", "a"),
            ("K=#b", ""),
            ("K=\"a #b\" # c", "a #b"),
            ("K='a\\n$X'", "a\\n$X"),
            ("K=\"a\nb\"", "a\nb"),
            ("K=\"a\\\"b\\\\c\\qd\"", "a\"b\\c\\qd"),
            ("K='open", "'open"),
            ("K=x\nK=y", "y"),
            ("K=a=b==", "a=b=="),
            ("\u{feff}K=v", "v"),
        ] {
            assert_eq!(parse_dotenv(text).get("K").map(String::as_str), Some(value), "{text:?}");
        }
        assert!(parse_dotenv("#K=v\n=v\n1K=v\nexport\nK v\n").is_empty());
        let both = parse_dotenv("A=\"1\n2\" # x\nB='open\nC=3");
        assert_eq!(
            (both["A"].as_str(), both["B"].as_str(), both["C"].as_str()),
            ("1\n2", "'open", "3")
        );
    }

    proptest::proptest! {
        #[test]
        fn dotenv_takes_any_text(text in "[A-C= '\"`\\\\#\\nä\u{feff}]{0,40}") {
            parse_dotenv(&text);
        }

        #[test]
        fn dotenv_reads_back_a_quoted_value(value in "[ -~\\nä]{0,20}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let read = parse_dotenv(&format!("A=1\nK=\"{escaped}\"\nB=2\n"));
            proptest::prop_assert_eq!(&read["K"], &value);
            proptest::prop_assert_eq!(read.len(), 3);
        }
    }

    #[test]
    fn the_shell_is_asked_only_when_told() {
        let env = Env::default();
        assert_eq!(ShellImport::wanted(&env, None, Some(5)), None);
        assert_eq!(ShellImport::wanted(&env, Some(true), None).unwrap().timeout_ms, 15_000);
        let env =
            Env::new([("CLAWDBOT_LOAD_SHELL_ENV", "yes"), ("MOLTBOT_SHELL_ENV_TIMEOUT_MS", "7")]);
        assert_eq!(ShellImport::wanted(&env, Some(false), Some(5)).unwrap().timeout_ms, 7);
        assert_eq!(ShellImport::command(Some("/bin/zsh")).0, "/bin/zsh");
        assert_eq!(ShellImport::command(Some("zsh; rm")).0, "/bin/sh");
    }

    #[test]
    fn one_variable_that_is_set_keeps_no_other_out() {
        let env = Env::new([("CHAT_TOKEN", "set")]);
        let allowed = ["API_KEY".to_string(), "CHAT_TOKEN".to_string(), "OTHER".to_string()];
        let output = b"Welcome!\nAPI_KEY=FAKE=1\0CHAT_TOKEN=x\0HOME=/h\0OTHER= \0\xff=1\0";
        let imported = ShellImport::import(output, &allowed, &env);
        assert_eq!(imported.into_iter().collect::<Vec<_>>(), [("API_KEY".into(), "FAKE=1".into())]);
    }
}
