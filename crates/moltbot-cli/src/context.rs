//! What a command works with: the outside world as values, and everything made from it on demand.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ArgMatches;
use moltbot_config::{
    AgentId, Config, Editor, Env, Extensions, LoadInput, Loaded, MAIN_AGENT, NoteKind, Paths,
    PathsInput, Stamp,
};
use moltbot_core::{Registry, Secret, Timestamp, VERSION};
use moltbot_gateway::{AgentPaths, Clock, Engine, EngineParts, Front, Limits};
use moltbot_profiles::{FileHook, FileStore, LEGACY_FILE, LegacyFiles, STORE_FILE};
use tokio::runtime::Runtime;

use crate::commands::plugins::{carried, row};
use crate::environment::Outside;
#[cfg(feature = "lab")]
use crate::lab_clock::{self, LabClock};
use crate::out::{Out, clean};
use crate::tree::{self, Parsed};
use crate::{Exit, Failure, Globals, Outcome, World, extensions, front, logging, prompt};

/// How long another process may hold the config's lock, in milliseconds.
const CONFIG_LOCK_MS: u64 = 10_000;

/// The most that is read from standard input or from a file with a secret, in bytes.
const MAX_SECRET_BYTES: u64 = 1024 * 1024;

/// Everything a command may ask for. What costs something is made at the first question.
pub struct Context {
    /// Where to print.
    pub out: Out,
    /// The plugins of this build.
    pub registry: &'static Registry,
    /// The flags before the command.
    pub globals: Globals,
    process: Vec<(String, String)>,
    cwd: PathBuf,
    clock: Arc<dyn Clock>,
    stdin: Box<dyn Read>,
    paths: Paths,
    extensions: Extensions,
    env: Option<Env>,
    loaded: Option<Arc<Loaded>>,
    front: Option<Arc<dyn Front>>,
    store_hook: Option<Arc<dyn FileHook>>,
    runtime: Option<Runtime>,
    carried: Vec<row::Row>,
    /// The words of the command, for the log of changes.
    command: String,
}

impl Context {
    /// Reads the command line, runs the command, and hands the output streams back for what is
    /// left to print.
    pub(crate) fn start(world: World, registry: &'static Registry) -> (Out, Outcome) {
        let World { args, env, home, cwd, clock, stdin, mut out, front, store_hook } = world;
        let globals = match Globals::take(args) {
            Ok(globals) => globals,
            Err(failure) => return (out, Err(failure)),
        };
        let process = |name: &str| {
            let found = env.iter().find(|(other, _)| other == name);
            found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
        };
        let dull =
            globals.no_color || process("NO_COLOR").is_some() || process("TERM") == Some("dumb");
        out.allow_color(!dull);
        out.repeat_flags(globals.repeated());
        if globals.version {
            out.line(VERSION);
            return (out, Ok(Exit::OK));
        }
        #[cfg(feature = "lab")]
        let clock = match process(lab_clock::VARIABLE).map(LabClock::parse) {
            None => clock,
            Some(Ok(lab)) => {
                out.note(format!("lab: the clock stands at {}", iso(lab.now())));
                Arc::new(lab)
            }
            Some(Err(sentence)) => return (out, Err(Failure::input(sentence))),
        };
        if registry.plugins().is_empty() {
            let failure = Failure::new("this build has no plugins")
                .code("plugin-missing")
                .hint("name them in `main`: moltbot_cli::run(&[&some_plugin::PLUGIN])");
            return (out, Err(failure));
        }
        if let Err(sentence) = logging::start(process("MOLTBOT_LOG")) {
            out.warn(sentence);
        }
        // Flags and choices are grown from the plugins, so that those of the config come first.
        let paths = home.as_ref().map(|home| resolve(&env, home, &cwd, &globals));
        let (registry, carried) = match &paths {
            Some(paths) => {
                let fresh = finds_faults(&globals.instance.rest);
                let extended = carried::extend(registry, &env, paths, fresh);
                (extended.registry, extended.rows)
            }
            None => (registry, Vec::new()),
        };
        if globals.instance.rest.first().is_none_or(|command| command != "plugins") {
            for row in &carried {
                let Some(problem) = &row.problem else { continue };
                let (file, row::Problem { reason, hint }) = (row.path.display(), problem);
                out.warn(format!("the plugin {file} is not used: {reason}; {hint}"));
            }
        }
        let matches = match tree::parse(registry, &globals.instance.rest, out.color()) {
            Ok(Parsed::Run(matches)) => matches,
            Ok(Parsed::Help(text)) => {
                out.raw(&text);
                return (out, Ok(Exit::OK));
            }
            Err(failure) => return (out, Err(failure)),
        };
        let Some(paths) = paths else {
            let failure = Failure::new("The home directory is not known").hint("set HOME");
            return (out, Err(failure));
        };
        let mut context = Self {
            out,
            registry,
            globals,
            process: env,
            cwd,
            clock,
            stdin,
            paths,
            extensions: extensions::of(registry),
            env: None,
            loaded: None,
            front,
            store_hook,
            runtime: None,
            carried,
            command: typed(&matches),
        };
        let outcome = tree::run(&mut context, &matches);
        (context.out, outcome)
    }

    /// Reads the clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns the clock.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    /// Returns the home directory.
    pub fn home(&self) -> &Path {
        self.paths.home()
    }

    /// Returns the working directory.
    pub fn cwd(&self) -> &Path {
        &self.cwd
    }

    /// Returns where state, config and agents are.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Looks anew where everything is, after something was moved.
    pub(crate) fn resolve_paths(&mut self) {
        let home = self.home().to_path_buf();
        self.paths = resolve(&self.process, &home, &self.cwd, &self.globals);
        self.env = None;
        self.loaded = None;
    }

    /// Returns what became of the plugins from outside that the config trusts.
    pub(crate) fn carried(&self) -> &[row::Row] {
        &self.carried
    }

    /// Writes a path for people: `~` for home, nothing that could move the cursor.
    pub fn shown(&self, path: &Path) -> String {
        clean(&self.paths.display(path)).into_owned()
    }

    /// Returns what the plugins add to the config's schema.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Finds a variable in the environment of the process alone.
    pub fn process_env(&self, name: &str) -> Option<&str> {
        let found = self.process.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.trim().is_empty())
    }

    /// Returns the environment of the process alone.
    pub fn process_vars(&self) -> Vec<(String, String)> {
        self.process.clone()
    }

    /// Returns the environment without the config's own variables: process, `.env` files, and the
    /// login shell if that is asked for (spec C-8, C-11).
    pub fn outer_env(&mut self) -> &Env {
        if self.env.is_none() {
            let outside = Outside {
                process: &self.process,
                paths: &self.paths,
                extensions: &self.extensions,
                registry: self.registry,
            };
            let (env, warnings) = outside.read();
            for warning in warnings {
                self.out.warn(warning);
            }
            self.env = Some(env);
        }
        self.env.as_ref().expect("set above")
    }

    /// Returns the whole environment, the config's variables included.
    pub fn env(&mut self) -> Result<Env, Failure> {
        Ok(self.loaded()?.env.clone())
    }

    /// Returns the config as loaded, with everything known about its source.
    ///
    /// An invalid config is the failure that spec C-16 describes.
    pub fn loaded(&mut self) -> Result<Arc<Loaded>, Failure> {
        if let Some(loaded) = &self.loaded {
            return Ok(loaded.clone());
        }
        let loaded = Arc::new(self.load()?);
        for note in &loaded.notes {
            if note.kind == NoteKind::NewerVersion {
                self.out.warn(&note.message);
            }
        }
        self.loaded = Some(loaded.clone());
        Ok(loaded)
    }

    /// Returns the config.
    pub fn config(&mut self) -> Result<Arc<Config>, Failure> {
        let loaded = self.loaded()?;
        Ok(Arc::new(loaded.config.clone()))
    }

    /// Loads the config anew, for commands that look at what is wrong with it.
    pub fn load(&mut self) -> Result<Loaded, moltbot_config::ConfigError> {
        self.outer_env();
        moltbot_config::load(&self.load_input())
    }

    /// Changes the config: takes its lock, lets `change` work on the source text, checks the
    /// result and writes it. A failure of `change` or of the check leaves every file as it was.
    ///
    /// Says on standard error which files were written and what else was brought up to date.
    pub fn edit<T>(
        &mut self,
        change: impl FnOnce(&mut Editor<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.outer_env();
        let now = iso(self.now());
        let mut editor = Editor::open(self.load_input(), CONFIG_LOCK_MS)?;
        let value = change(&mut editor)?;
        let changed = editor.commit(Stamp { version: VERSION, now: &now })?;
        for sentence in &changed.changes {
            self.out.note(sentence);
        }
        for file in &changed.files {
            let shown = self.shown(file);
            self.out.note(format!("Updated {shown}"));
        }
        self.loaded = Some(Arc::new(changed.loaded));
        Ok(value)
    }

    /// Returns what loading and editing the config depend on.
    fn load_input(&self) -> LoadInput<'_> {
        LoadInput {
            paths: &self.paths,
            env: self.env.as_ref().expect("read by every caller before"),
            extensions: &self.extensions,
            version: VERSION,
        }
    }

    /// Forgets the config, after its file was moved.
    pub(crate) fn forget_config(&mut self) {
        self.loaded = None;
    }

    /// Moves into another home with nothing but these variables: nothing of the user's is seen
    /// from there.
    #[cfg(feature = "lab")]
    pub(crate) fn move_to(&mut self, home: PathBuf, env: Vec<(String, String)>) {
        self.paths = Paths::resolve(&PathsInput {
            env: &Env::new(env.iter().cloned()),
            home: &home,
            cwd: &home,
            profile: None,
            exists: &|path| path.exists(),
        });
        self.cwd = home;
        self.process = env;
        self.env = None;
        self.loaded = None;
    }

    /// Finds the agent that `--agent` names, else the default one.
    pub fn agent(&mut self, args: &ArgMatches) -> Result<AgentPaths, Failure> {
        let id = args.try_get_one::<String>("agent").ok().flatten();
        self.agent_by_id(id.map(String::as_str))
    }

    /// Finds an agent, the default one without a name.
    pub fn agent_by_id(&mut self, id: Option<&str>) -> Result<AgentPaths, Failure> {
        let config = self.config()?;
        let agent = match id {
            None => config.default_agent(),
            Some(raw) => {
                let id = AgentId::normalize(raw);
                if id.as_str() != MAIN_AGENT && config.agent(&id).is_none() {
                    let message = format!(
                        "Unknown agent id \"{raw}\". Use \"moltbot agents list\" to see configured \
                         agents."
                    );
                    return Err(Failure::new(message).code("agent-unknown"));
                }
                id
            }
        };
        Ok(self.agent_paths(&config, &agent))
    }

    /// Returns where an agent keeps what belongs to it, whether it exists or not.
    pub fn agent_paths(&self, config: &Config, agent: &AgentId) -> AgentPaths {
        let configured = config.agent(agent).and_then(|entry| entry.agent_dir.as_ref());
        let dir = self.paths.agent_dir(agent, configured.map(|dir| dir.as_str()));
        AgentPaths {
            id: agent.as_str().to_string(),
            store: dir.join(STORE_FILE),
            sessions: self.paths.sessions_dir(agent),
            dir,
        }
    }

    /// Returns an agent's credential store. Nothing is read yet.
    pub fn store(&self, agent: &AgentPaths) -> FileStore {
        // Credentials of old versions were everybody's; they become those of `main`, because
        // agents inherit nothing from each other.
        let oauth = (agent.id == MAIN_AGENT).then(|| self.paths.legacy_oauth_file());
        let auth = Some(agent.dir.join(LEGACY_FILE));
        let store = FileStore::new(&agent.store)
            .legacy(LegacyFiles { auth, oauth })
            .sleeper(Arc::new(|wait: Duration| Box::pin(tokio::time::sleep(wait))))
            .command(&self.command);
        match &self.store_hook {
            Some(hook) => store.hook(hook.clone()),
            None => store,
        }
    }

    /// Makes the engine for an agent.
    pub fn engine(&mut self, agent: &AgentPaths) -> Result<Engine, Failure> {
        self.engine_at(agent, None)
    }

    /// Makes the engine for an agent, with every request going to a lab on this machine.
    pub fn engine_at(
        &mut self,
        agent: &AgentPaths,
        lab_base_url: Option<String>,
    ) -> Result<Engine, Failure> {
        let loaded = self.loaded()?;
        Ok(Engine::new(EngineParts {
            registry: self.registry,
            config: Arc::new(loaded.config.clone()),
            env: loaded.env.clone(),
            home: Some(self.home().to_path_buf()),
            agent: agent.clone(),
            store: Arc::new(self.store(agent)),
            front: self.front(),
            clock: self.clock.clone(),
            lab_base_url,
            limits: Limits::default(),
        }))
    }

    /// Makes the engine that an agent would have under another config file, for simulations.
    pub(crate) fn engine_under(
        &mut self,
        agent: &AgentPaths,
        file: &Path,
    ) -> Result<Engine, Failure> {
        self.outer_env();
        let paths = self.paths.clone().with_config_file(file.to_path_buf());
        let loaded = moltbot_config::load(&LoadInput { paths: &paths, ..self.load_input() })?;
        Ok(Engine::new(EngineParts {
            registry: self.registry,
            config: Arc::new(loaded.config),
            env: loaded.env,
            home: Some(self.home().to_path_buf()),
            agent: agent.clone(),
            store: Arc::new(self.store(agent)),
            front: self.front(),
            clock: self.clock.clone(),
            lab_base_url: None,
            limits: Limits::default(),
        }))
    }

    /// Returns who answers questions.
    pub fn front(&mut self) -> Arc<dyn Front> {
        self.front.get_or_insert_with(front::terminal).clone()
    }

    /// Sets who answers questions, for engines made afterwards.
    pub fn set_front(&mut self, front: Arc<dyn Front>) {
        self.front = Some(front);
    }

    /// Waits for a future on this thread.
    pub fn block_on<F: Future>(&mut self, future: F) -> Result<F::Output, Failure> {
        Ok(self.runtime()?.block_on(future))
    }

    /// Waits for a future that Ctrl-C abandons.
    pub fn block_on_cancel<F: Future>(&mut self, future: F) -> Result<F::Output, Failure> {
        self.runtime()?.block_on(async {
            tokio::select! {
                // First, so that the signal is caught before the future does anything.
                biased;
                _ = tokio::signal::ctrl_c() => {
                    // Answered here: no later question must hear of it.
                    prompt::take_interrupt();
                    Err(Failure::cancelled())
                }
                output = future => Ok(output),
            }
        })
    }

    /// Reads standard input to its end, at most 1 MiB.
    pub fn read_stdin(&mut self) -> Result<Secret, Failure> {
        read_secret(&mut self.stdin, "standard input")
    }

    /// Takes the value of a flag that holds a secret: the literal, or standard input for `-`.
    pub fn secret_flag(&mut self, raw: &str) -> Result<Secret, Failure> {
        if raw == "-" { self.read_stdin() } else { Ok(Secret::new(raw)) }
    }

    /// Reads a secret from a file, at most 1 MiB.
    pub fn secret_file(&mut self, path: &Path) -> Result<Secret, Failure> {
        let shown = self.shown(path);
        let path = self.cwd.join(path);
        let mut file = std::fs::File::open(path)
            .map_err(|error| Failure::input(format!("{shown} cannot be read: {error}")))?;
        read_secret(&mut file, &shown)
    }

    fn runtime(&mut self) -> Result<&Runtime, Failure> {
        if self.runtime.is_none() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| Failure::new(format!("The event loop cannot start: {error}")))?;
            self.runtime = Some(runtime);
        }
        Ok(self.runtime.as_ref().expect("set above"))
    }
}

fn resolve(env: &[(String, String)], home: &Path, cwd: &Path, globals: &Globals) -> Paths {
    Paths::resolve(&PathsInput {
        env: &Env::new(env.iter().cloned()),
        home,
        cwd,
        profile: globals.instance.profile.as_deref(),
        exists: &|path| path.exists(),
    })
}

/// Writes a time as ISO 8601 in UTC.
pub(crate) fn iso(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.millis())
        .map_or_else(|_| at.millis().to_string(), |at| at.to_string())
}

/// Tells whether the command looks for faults, so that plugins have to show what they are now.
fn finds_faults(words: &[String]) -> bool {
    let mut words = words.iter().map(String::as_str);
    match words.next() {
        Some("doctor") => true,
        Some("plugins") => words.next() == Some("doctor"),
        _ => false,
    }
}

/// Returns the words of the command: `models auth paste-token`.
fn typed(matches: &ArgMatches) -> String {
    let mut words = Vec::new();
    let mut at = matches;
    while let Some((name, inner)) = at.subcommand() {
        words.push(name);
        at = inner;
    }
    words.join(" ")
}

fn read_secret(from: &mut dyn Read, shown: &str) -> Result<Secret, Failure> {
    let mut bytes = Vec::new();
    let read = from.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes);
    let text = String::from_utf8(bytes);
    read.map_err(|error| Failure::input(format!("{shown} cannot be read: {error}")))?;
    // The error of `from_utf8` would carry the bytes; it is dropped unseen.
    let text = text.map_err(|_| Failure::input(format!("{shown} is not UTF-8 text")))?;
    let secret = Secret::new(text);
    if secret.expose().len() as u64 > MAX_SECRET_BYTES {
        return Err(Failure::input(format!("{shown} holds more than 1 MiB")));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    fn config_path(bench: &Bench, args: &[&str]) -> String {
        bench.run(&[args, &["config", "path"]].concat()).stdout.trim_end().to_string()
    }

    #[test]
    fn the_global_flags_move_everything() {
        let bench = Bench::new();
        let home = bench.home().display().to_string();
        let path = config_path(&bench, &["--profile=x"]);
        assert_eq!(path, format!("{home}/.moltbot-x/moltbot.json"));
        let path = config_path(&bench, &["--dev"]);
        assert_eq!(path, format!("{home}/.moltbot-dev/moltbot.json"));
        bench.env("CLAWDBOT_STATE_DIR", "b");
        bench.env("MOLTBOT_STATE_DIR", "a");
        assert_eq!(config_path(&bench, &["--dev"]), format!("{home}/a/moltbot.json"));
        let both = bench.run(&["--dev", "--profile", "y", "models"]);
        assert_eq!((both.code, both.stdout.as_str()), (2, ""));
        assert_eq!(
            both.stderr,
            "Error: Cannot combine --dev with --profile\nhint: moltbot explain input\n"
        );
    }

    #[test]
    fn hints_repeat_the_profile() {
        let bench = Bench::new();
        let ran = bench.run(&["--profile", "x", "models", "status", "--agent", "nobody"]);
        assert!(ran.stderr.contains("Use \"moltbot --profile x agents list\""), "{}", ran.stderr);
        assert!(ran.stderr.contains("hint: moltbot --profile x explain agent-unknown"));
    }

    #[test]
    fn a_level_that_does_not_exist_is_a_warning() {
        let bench = Bench::new();
        bench.env("MOLTBOT_LOG", "loud");
        let ran = bench.run(&["status", "--json"]);
        assert_eq!(ran.code, 0);
        assert!(ran.stderr.starts_with("warning: MOLTBOT_LOG is \"loud\""), "{}", ran.stderr);
    }

    #[test]
    fn the_version_is_all_that_is_printed() {
        for flag in ["--version", "-V", "-v"] {
            let ran = Bench::new().run(&[flag]);
            assert_eq!((ran.code, ran.stdout), (0, format!("{}\n", moltbot_core::VERSION)));
        }
    }
}
