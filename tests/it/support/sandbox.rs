//! A temporary home with nothing of the user's in it, and the binary run inside.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

use serde_json::Value;

/// Returns the path of the stock binary, built once by the cargo that runs the tests.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").expect("tests are run by cargo");
        let output = Command::new(cargo)
            .args(["build", "--quiet", "--package", "moltbot", "--message-format=json"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo starts");
        assert!(output.status.success(), "the binary does not build");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|message| message["target"]["name"] == "moltbot")
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .expect("cargo names the executable")
    })
}

/// A home directory of its own, deleted afterwards. Nothing of the real environment gets in.
pub(crate) struct Sandbox {
    dir: Arc<tempfile::TempDir>,
    env: BTreeMap<String, String>,
}

/// What a finished run left.
#[derive(Debug)]
pub(crate) struct Done {
    /// The exit code; -1 after a signal.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Done {
    /// Checks the exit code and returns the run, showing everything if it differs.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "\nstdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    /// Reads standard output as one JSON value.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error}\nstdout: {}\nstderr: {}", self.out, self.err))
    }

    /// Checks that standard error contains `text`.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(
            self.err.contains(text),
            "no {text:?} in\nstderr: {}\nstdout: {}",
            self.err,
            self.out
        );
        self
    }
}

impl Sandbox {
    /// Makes an empty home.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join("home")).expect("a home");
        std::fs::create_dir(dir.path().join("cwd")).expect("a working directory");
        std::fs::create_dir(dir.path().join("bin")).expect("a directory for programs");
        let mut env = BTreeMap::new();
        env.insert("HOME".into(), dir.path().join("home").display().to_string());
        let path = format!("{}:/usr/bin:/bin", dir.path().join("bin").display());
        env.insert("PATH".into(), path);
        env.insert("LANG".into(), "C.UTF-8".into());
        Self { dir: Arc::new(dir), env }
    }

    /// Sets a variable for all runs.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets or unsets a variable for later runs.
    pub(crate) fn set_env(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => self.env.insert(name.into(), value.into()),
            None => self.env.remove(name),
        };
    }

    /// Returns what keeps the directory there, for a program that outlives the sandbox itself.
    pub(crate) fn keep(&self) -> Arc<tempfile::TempDir> {
        self.dir.clone()
    }

    /// Returns the temporary directory itself.
    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the home directory.
    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// Returns the working directory of the runs.
    pub(crate) fn cwd(&self) -> PathBuf {
        self.dir.path().join("cwd")
    }

    /// Returns a path inside the state directory.
    pub(crate) fn state(&self, path: &str) -> PathBuf {
        self.home().join(".moltbot").join(path)
    }

    /// Returns the path of the main agent's store.
    pub(crate) fn store_path(&self) -> PathBuf {
        self.state("agents/main/agent/auth-profiles.json")
    }

    /// Reads the main agent's store.
    #[track_caller]
    pub(crate) fn store(&self) -> Value {
        let text = std::fs::read_to_string(self.store_path()).expect("a store");
        serde_json::from_str(&text).expect("the store is JSON")
    }

    /// Writes the main agent's store.
    pub(crate) fn write_store(&self, store: &Value) {
        self.write(&self.store_path(), &serde_json::to_string_pretty(store).expect("JSON"));
    }

    /// Writes the config as it is.
    pub(crate) fn write_config(&self, text: &str) {
        self.write(&self.state("moltbot.json"), text);
    }

    /// Reads the config as it is; empty if there is none.
    pub(crate) fn config(&self) -> String {
        std::fs::read_to_string(self.state("moltbot.json")).unwrap_or_default()
    }

    /// Writes any file, 0600, with its directories.
    pub(crate) fn write(&self, path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("directories");
        std::fs::write(path, text).expect("a file");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    }

    /// Puts a program on the `PATH` of the runs.
    pub(crate) fn program(&self, name: &str, script: &str) {
        let path = self.dir.path().join("bin").join(name);
        std::fs::write(&path, script).expect("a program");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    }

    /// Puts an existing program on the `PATH` of the runs.
    pub(crate) fn link_program(&self, name: &str, program: &str) {
        let link = self.dir.path().join("bin").join(name);
        std::os::unix::fs::symlink(program, link).expect("a link");
    }

    /// Prepares a run.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.prepare(binary(), args)
    }

    fn prepare(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(&self.env).current_dir(self.cwd());
        command
    }

    /// Runs the binary to its end, without a terminal and with nothing on standard input.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        self.run_with_input(args, "")
    }

    /// Runs the binary to its end with `input` on standard input.
    pub(crate) fn run_with_input(&self, args: &[&str], input: &str) -> Done {
        self.run_program(binary(), args, input)
    }

    /// Runs another program to its end in place of the binary.
    pub(crate) fn run_program(&self, program: &Path, args: &[&str], input: &str) -> Done {
        let mut child = self
            .prepare(program, args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        // A process that never reads closes the pipe; that is its right.
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("the binary ends");
        Done {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Lists every file below the home with its content, to compare before and after. Lock files
    /// do not count: they stay, because removing one is a race.
    pub(crate) fn snapshot(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut open = vec![self.home()];
        while let Some(dir) = open.pop() {
            let Ok(entries) = std::fs::read_dir(&dir) else { continue };
            for entry in entries.flatten() {
                let path = entry.path();
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => open.push(path),
                    _ if path.to_string_lossy().ends_with(".moltbot-lock") => {}
                    _ if path.to_string_lossy().ends_with(".guard") => {}
                    _ => {
                        let content = std::fs::read(&path).unwrap_or_default();
                        files.insert(path, content);
                    }
                }
            }
        }
        files
    }
}
