//! Where everything is: state, configuration, agents, and the flags that move them (spec C-1 to
//! C-7). Pure: the caller passes home, working directory and a way to ask what exists.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use crate::env::Env;
use crate::schema::{Agent, Config};

/// The id of the agent that is always there.
pub const MAIN_AGENT: &str = "main";

/// What the paths are computed from.
pub struct PathsInput<'a> {
    /// The environment. For the state directory only the layer of the process counts.
    pub env: &'a Env,
    /// The home directory of the user.
    pub home: &'a Path,
    /// The working directory, for relative values.
    pub cwd: &'a Path,
    /// The instance named by `--profile` or `--dev`.
    pub profile: Option<&'a str>,
    /// Tells whether a path exists.
    pub exists: &'a dyn Fn(&Path) -> bool,
}

/// The resolved places.
///
/// ```
/// use std::path::Path;
/// use moltbot_config::{AgentId, Env, Paths, PathsInput};
/// let paths = Paths::resolve(&PathsInput {
///     env: &Env::default(),
///     home: Path::new("/h"),
///     cwd: Path::new("/w"),
///     profile: None,
///     exists: &|path| path == Path::new("/h/.clawdbot"),
/// });
/// assert_eq!(paths.config_file(), Path::new("/h/.clawdbot/moltbot.json"));
/// let dir = paths.agent_dir(&AgentId::normalize("Work Bot"), None);
/// assert_eq!(dir, Path::new("/h/.clawdbot/agents/work-bot/agent"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    home: PathBuf,
    cwd: PathBuf,
    state: PathBuf,
    config: PathBuf,
    oauth: PathBuf,
    main_agent: Option<PathBuf>,
}

impl Paths {
    /// Returns the same places with another configuration file.
    pub fn with_config_file(self, config: PathBuf) -> Self {
        Self { config, ..self }
    }

    /// Resolves all places.
    pub fn resolve(input: &PathsInput<'_>) -> Self {
        let absolute = |text: &str| absolute(text, input.home, input.cwd);
        let state = match input.env.own_in_process("STATE_DIR") {
            Some(dir) => absolute(dir),
            None => default_state_dir(input),
        };
        let config = match input.env.own_in_process("CONFIG_PATH") {
            Some(file) => absolute(file),
            None => {
                let names = ["moltbot.json", "clawdbot.json"].map(|name| state.join(name));
                let found = names.iter().find(|file| (input.exists)(file));
                found.unwrap_or(&names[0]).clone()
            }
        };
        let oauth = input
            .env
            .own_in_process("OAUTH_DIR")
            .map_or_else(|| state.join("credentials"), absolute);
        let plain = |name: &str| {
            let (value, source) = input.env.get(name)?;
            (source == crate::env::Source::Process).then_some(value)
        };
        let main_agent = input
            .env
            .own_in_process("AGENT_DIR")
            .or_else(|| plain("PI_CODING_AGENT_DIR"))
            .map(absolute);
        Self {
            home: input.home.to_path_buf(),
            cwd: input.cwd.to_path_buf(),
            state,
            config,
            oauth,
            main_agent,
        }
    }

    /// Returns the state directory.
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// Returns the configuration file; it need not exist.
    pub fn config_file(&self) -> &Path {
        &self.config
    }

    /// Returns the home directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Returns the two `.env` files in the order of their strength.
    pub fn env_files(&self) -> [PathBuf; 2] {
        [self.cwd.join(".env"), self.state.join(".env")]
    }

    /// Returns the file with credentials of an old version, `oauth.json`.
    pub fn legacy_oauth_file(&self) -> PathBuf {
        self.oauth.join("oauth.json")
    }

    /// Returns the directory with an agent's credentials; `configured` is its `agentDir`.
    ///
    /// A variable moves the directory of the agent `main` and of no other.
    pub fn agent_dir(&self, agent: &AgentId, configured: Option<&str>) -> PathBuf {
        match (&self.main_agent, configured) {
            (Some(dir), _) if agent.as_str() == MAIN_AGENT => dir.clone(),
            (_, Some(dir)) => absolute(dir, &self.home, &self.cwd),
            (_, None) => self.state.join("agents").join(agent.as_str()).join("agent"),
        }
    }

    /// Returns the directory with an agent's sessions.
    pub fn sessions_dir(&self, agent: &AgentId) -> PathBuf {
        self.state.join("agents").join(agent.as_str()).join("sessions")
    }

    /// Shortens a path below the home directory to `~/...`, for display.
    pub fn display(&self, path: &Path) -> String {
        match path.strip_prefix(&self.home) {
            Ok(rest) if rest.as_os_str().is_empty() => "~".to_string(),
            Ok(rest) => format!("~/{}", rest.display()),
            Err(_) => path.display().to_string(),
        }
    }
}

/// Plans moving the state of the old name to the new one, leaving a link (spec C-3); `None` where
/// that is not wanted: a variable or an instance names the place, or the move was done.
pub fn state_move(
    input: &PathsInput<'_>,
    is_symlink: &dyn Fn(&Path) -> bool,
) -> Option<(PathBuf, PathBuf)> {
    let named = ["STATE_DIR", "CONFIG_PATH"]
        .iter()
        .any(|suffix| input.env.own_in_process(suffix).is_some());
    let (old, new) = (input.home.join(".clawdbot"), input.home.join(".moltbot"));
    let wanted = !named
        && input.profile.is_none()
        && (input.exists)(&old)
        && !is_symlink(&old)
        && !(input.exists)(&new)
        && !is_symlink(&new);
    wanted.then_some((old, new))
}

fn default_state_dir(input: &PathsInput<'_>) -> PathBuf {
    let suffix = match input.profile {
        None | Some("default") => String::new(),
        Some(name) => format!("-{name}"),
    };
    let new = input.home.join(format!(".moltbot{suffix}"));
    let old = input.home.join(format!(".clawdbot{suffix}"));
    // With both there the old one holds the state: the new one alone means that it was moved.
    let named = !suffix.is_empty();
    match ((input.exists)(&new), (input.exists)(&old)) {
        (true, true) if named => new,
        (_, true) => old,
        (_, false) => new,
    }
}

/// Expands a leading `~`, makes a path absolute and removes `.` and `..` in it.
pub(crate) fn absolute(text: &str, home: &Path, cwd: &Path) -> PathBuf {
    let text = text.trim();
    let path = expand_tilde(text, home).map_or_else(|| PathBuf::from(text), PathBuf::from);
    let mut clean = PathBuf::new();
    for component in cwd.join(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

/// Returns the text with its leading `~` replaced, if it is one that stands for this user.
pub(crate) fn expand_tilde(text: &str, home: &Path) -> Option<String> {
    let rest = text.strip_prefix('~')?;
    (rest.is_empty() || rest.starts_with('/')).then(|| format!("{}{rest}", home.display()))
}

/// The id of an agent, in its one normal form (spec C-6).
///
/// ```
/// use moltbot_config::AgentId;
/// assert_eq!(AgentId::normalize(" Bot_1 ").as_str(), "bot_1");
/// assert_eq!(AgentId::normalize("my bot!").as_str(), "my-bot");
/// assert_eq!(AgentId::normalize("??").as_str(), "main");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(String);

impl AgentId {
    /// Makes an id out of any text.
    pub fn normalize(text: &str) -> Self {
        let lower = text.trim().to_lowercase();
        if is_name(&lower) {
            return Self(lower);
        }
        let mut id = String::new();
        for c in lower.chars() {
            if c.is_ascii_alphanumeric() || c == '_' || c == '-' {
                id.push(c);
            } else if !id.ends_with('-') {
                id.push('-');
            }
        }
        let id: String = id.trim_matches('-').chars().take(64).collect();
        let id = id.trim_end_matches('-');
        Self(if id.is_empty() { MAIN_AGENT.to_string() } else { id.to_string() })
    }

    /// Returns the id of the agent that is always there.
    pub fn main() -> Self {
        Self(MAIN_AGENT.to_string())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Config {
    /// Returns the agent that is meant when none is named: the first marked `default`, else the
    /// first of the list, else `main` (spec C-6).
    pub fn default_agent(&self) -> AgentId {
        let list = self.agents.as_ref().map(|agents| agents.list.as_slice()).unwrap_or_default();
        let marked = list.iter().find(|agent| agent.default == Some(true));
        marked.or(list.first()).map_or_else(AgentId::main, Agent::agent_id)
    }

    /// Finds an agent of the list by its normal id.
    pub fn agent(&self, id: &AgentId) -> Option<&Agent> {
        self.agents.as_ref()?.list.iter().find(|agent| agent.agent_id() == *id)
    }
}

impl Agent {
    /// Returns the id in its normal form.
    pub fn agent_id(&self) -> AgentId {
        AgentId::normalize(self.id.as_str())
    }
}

/// What the flags before the first argument say about which instance is meant (spec C-7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance {
    /// The name from `--profile`, or `dev`.
    pub profile: Option<String>,
    /// Whether `--dev` was given.
    pub dev: bool,
    /// All other arguments, in order.
    pub rest: Vec<String>,
}

/// Says what is wrong with `--profile` or `--dev`; commands print it and exit with 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceError {
    /// `--profile` without a name after it.
    MissingValue,
    /// A name with other characters, or a long one.
    BadName,
    /// Both flags.
    Both,
}

impl Instance {
    /// Takes `--profile NAME`, `--profile=NAME` and `--dev` out of the arguments, as long as they
    /// stand before the first one that is not a flag. `args` is without the program's name.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, InstanceError> {
        let mut instance = Self::default();
        let mut args = args.into_iter().peekable();
        while let Some(arg) = args.next() {
            if arg == "--dev" {
                instance.dev = true;
            } else if arg == "--profile" {
                let name = args.next_if(|next| !next.starts_with('-'));
                instance.profile = Some(name.ok_or(InstanceError::MissingValue)?);
            } else if let Some(name) = arg.strip_prefix("--profile=") {
                if name.is_empty() {
                    return Err(InstanceError::MissingValue);
                }
                instance.profile = Some(name.to_string());
            } else if arg.starts_with('-') && arg != "-" && arg != "--" {
                instance.rest.push(arg);
            } else {
                instance.rest.push(arg);
                break;
            }
        }
        instance.rest.extend(args);
        match (&instance.profile, instance.dev) {
            (Some(_), true) => return Err(InstanceError::Both),
            (Some(name), false) if !is_name(name) => return Err(InstanceError::BadName),
            (None, true) => instance.profile = Some("dev".to_string()),
            _ => {}
        }
        Ok(instance)
    }

    /// Returns the port that holds if neither flag, variable nor configuration names one.
    pub fn default_port(&self) -> u16 {
        if self.dev { 19001 } else { 18789 }
    }

    /// Writes a command as the user has to type it for this instance.
    ///
    /// ```
    /// # use moltbot_config::Instance;
    /// let instance = Instance::parse(["--profile=work".to_string()]).unwrap();
    /// assert_eq!(instance.hint("doctor --fix"), "moltbot --profile work doctor --fix");
    /// ```
    pub fn hint(&self, command: &str) -> String {
        match &self.profile {
            Some(name) => format!("moltbot --profile {name} {command}"),
            None => format!("moltbot {command}"),
        }
    }
}

impl fmt::Display for InstanceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MissingValue => "--profile requires a value",
            Self::BadName => "Invalid --profile (use letters, numbers, \"_\", \"-\" only)",
            Self::Both => "Cannot combine --dev with --profile",
        })
    }
}

impl std::error::Error for InstanceError {}

/// Tells whether a text is a name: a letter or digit, then up to 63 of these, `_` and `-`.
fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(env: &[(&str, &str)], profile: Option<&str>, existing: &[&str]) -> Paths {
        Paths::resolve(&PathsInput {
            env: &Env::new(env.iter().copied()),
            home: Path::new("/h"),
            cwd: Path::new("/w"),
            profile,
            exists: &|path| existing.iter().any(|e| Path::new(e) == path),
        })
    }

    fn state(env: &[(&str, &str)], profile: Option<&str>, existing: &[&str]) -> String {
        resolve(env, profile, existing).state.display().to_string()
    }

    #[test]
    fn state_directory() {
        assert_eq!(state(&[], None, &[]), "/h/.moltbot");
        assert_eq!(state(&[], None, &["/h/.moltbot"]), "/h/.moltbot");
        assert_eq!(state(&[], None, &["/h/.clawdbot"]), "/h/.clawdbot");
        assert_eq!(state(&[], None, &["/h/.clawdbot", "/h/.moltbot"]), "/h/.clawdbot");
        assert_eq!(state(&[("CLAWDBOT_STATE_DIR", " ~/x ")], None, &[]), "/h/x");
        let both = [("CLAWDBOT_STATE_DIR", "b"), ("MOLTBOT_STATE_DIR", "a/../c")];
        assert_eq!(state(&both, None, &[]), "/w/c");
        assert_eq!(state(&[("MOLTBOT_STATE_DIR", "  ")], None, &[]), "/h/.moltbot");
    }

    #[test]
    fn named_instances() {
        assert_eq!(state(&[], Some("x"), &["/h/.clawdbot"]), "/h/.moltbot-x");
        assert_eq!(state(&[], Some("x"), &["/h/.clawdbot-x"]), "/h/.clawdbot-x");
        assert_eq!(state(&[], Some("x"), &["/h/.clawdbot-x", "/h/.moltbot-x"]), "/h/.moltbot-x");
        assert_eq!(state(&[], Some("default"), &["/h/.clawdbot"]), "/h/.clawdbot");
        assert_eq!(state(&[("MOLTBOT_STATE_DIR", "/s")], Some("x"), &[]), "/s");
    }

    #[test]
    fn configuration_file() {
        let file = |env: &[(&str, &str)], existing: &[&str]| resolve(env, None, existing).config;
        assert_eq!(file(&[], &[]), Path::new("/h/.moltbot/moltbot.json"));
        let old = ["/h/.clawdbot", "/h/.clawdbot/clawdbot.json"];
        assert_eq!(file(&[], &old), Path::new("/h/.clawdbot/clawdbot.json"));
        let both = ["/h/.clawdbot", "/h/.clawdbot/clawdbot.json", "/h/.clawdbot/moltbot.json"];
        assert_eq!(file(&[], &both), Path::new("/h/.clawdbot/moltbot.json"));
        assert_eq!(file(&[("CLAWDBOT_CONFIG_PATH", "~/c.json")], &both), Path::new("/h/c.json"));
    }

    #[test]
    fn a_variable_moves_main_only() {
        let paths = resolve(&[("PI_CODING_AGENT_DIR", "/p")], None, &[]);
        assert_eq!(paths.agent_dir(&AgentId::main(), Some("/c")), Path::new("/p"));
        assert_eq!(paths.agent_dir(&AgentId::normalize("w"), Some("~/c")), Path::new("/h/c"));
        let both = [("PI_CODING_AGENT_DIR", "/p"), ("MOLTBOT_AGENT_DIR", "q")];
        assert_eq!(resolve(&both, None, &[]).agent_dir(&AgentId::main(), None), Path::new("/w/q"));
        assert_eq!(paths.display(Path::new("/h/.moltbot/x")), "~/.moltbot/x");
        assert_eq!(paths.display(Path::new("/hx")), "/hx");
    }

    #[test]
    fn moving_the_state() {
        let input = |env, exists| PathsInput {
            env,
            home: Path::new("/h"),
            cwd: Path::new("/w"),
            profile: None,
            exists,
        };
        let old_only = |path: &Path| path == Path::new("/h/.clawdbot");
        let none = Env::default();
        let moved = state_move(&input(&none, &old_only), &|_| false).unwrap();
        assert_eq!(moved.1, Path::new("/h/.moltbot"));
        assert_eq!(state_move(&input(&none, &old_only), &|path| old_only(path)), None);
        assert_eq!(state_move(&input(&none, &|_| true), &|_| false), None);
        let named = Env::new([("CLAWDBOT_STATE_DIR", "/s")]);
        assert_eq!(state_move(&input(&named, &old_only), &|_| false), None);
    }

    #[test]
    fn flags_before_the_first_argument() {
        let parse = |text: &str| Instance::parse(text.split_whitespace().map(String::from));
        let instance = parse("--no-color --profile x models --profile y").unwrap();
        assert_eq!(instance.profile.as_deref(), Some("x"));
        assert_eq!(instance.rest, ["--no-color", "models", "--profile", "y"]);
        let dev = parse("--dev gateway").unwrap();
        assert_eq!((dev.profile.as_deref(), dev.default_port()), (Some("dev"), 19001));
        assert_eq!(parse("models --dev").unwrap().profile, None);
        for (text, message) in [
            ("--profile", "--profile requires a value"),
            ("--profile --json", "--profile requires a value"),
            ("--profile= x", "--profile requires a value"),
            ("--profile ../z", "Invalid --profile (use letters, numbers, \"_\", \"-\" only)"),
            ("--dev --profile y", "Cannot combine --dev with --profile"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn an_agent_id_is_normal_once_and_for_all(text in "\\PC{0,80}") {
            let id = AgentId::normalize(&text);
            proptest::prop_assert!(!id.as_str().is_empty() && id.as_str().len() <= 64);
            proptest::prop_assert_eq!(AgentId::normalize(id.as_str()), id);
        }
    }
}
