//! A home directory to work on, with a config, a store, and a program that runs in it.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rustix::fs::{StatVfsMountFlags, statvfs};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Plan;
use super::acme::{Server, numbers, token};

/// The third party's login.
pub(super) const LOGIN: &str = "acme:login";

/// A login of somebody else in the same store, which no case may touch.
pub(super) const BYSTANDER: &str = "anthropic:manual";

/// Its secret.
pub(super) const BYSTANDER_SECRET: &str = "sk-ant-oat01-FAKEbystander0000000000000000000000\
                                           00000000000000000000000000000000000000";

/// How the name of a copy begins that a program makes of a library to load it.
pub(super) const COPY: &str = ".copy-";

/// A home directory, deleted afterwards.
pub(super) struct Ground {
    dir: TempDir,
}

impl Ground {
    /// Makes an empty one, in memory where that is possible: a killed process loses nothing that
    /// it wrote, wherever it wrote it.
    pub(super) fn new() -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("moltbot-torture-");
        let memory = Path::new("/dev/shm");
        // A plugin cannot be loaded from where nothing may be run.
        let usable =
            statvfs(memory).is_ok_and(|stat| !stat.f_flag.contains(StatVfsMountFlags::NOEXEC));
        let dir = match usable.then(|| builder.tempdir_in(memory)) {
            Some(Ok(dir)) => dir,
            _ => builder.tempdir()?,
        };
        Ok(Self { dir })
    }

    /// Makes one with a config that trusts the plugin and knows the server.
    pub(super) fn with_config(plan: &Plan, server: &Server) -> Result<Self> {
        let ground = Self::new()?;
        ground.configure(plan, server)?;
        Ok(ground)
    }

    /// Writes that config.
    pub(super) fn configure(&self, plan: &Plan, server: &Server) -> Result<()> {
        write(&self.state().join("moltbot.json"), config(plan, server).to_string().as_bytes())
    }

    /// Makes a copy of everything in it.
    pub(super) fn copy(&self) -> Result<Self> {
        let other = Self::new()?;
        copy(self.home(), other.home())?;
        Ok(other)
    }

    pub(super) fn home(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn state(&self) -> PathBuf {
        self.home().join(".moltbot")
    }

    /// Returns the path of a file of the agent.
    pub(super) fn agent(&self, name: &str) -> PathBuf {
        self.state().join("agents/main/agent").join(name)
    }

    pub(super) fn store_path(&self) -> PathBuf {
        self.agent("auth-profiles.json")
    }

    /// Writes a store.
    pub(super) fn put_store(&self, profiles: &Value) -> Result<()> {
        let store = json!({ "version": 1, "profiles": profiles });
        write(&self.store_path(), (serde_json::to_string_pretty(&store)? + "\n").as_bytes())
    }

    /// Reads the store; `None` if there is none.
    pub(super) fn store(&self) -> Result<Option<Value>, String> {
        let text = match fs::read(self.store_path()) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| format!("torn store: {error}"))
    }

    /// Returns login and generation of the stored third party's login.
    pub(super) fn generation(&self) -> Option<(u64, u64)> {
        let store = self.store().ok()??;
        numbers(store["profiles"][LOGIN]["refresh"].as_str()?, "refresh")
    }

    /// Takes the marks away that a killed program left of a library it was calling, which is what
    /// `moltbot plugins trust PATH --retry` does: that a library is not loaded again before
    /// somebody says so is no loss, but it would hide one. Its copy of that library goes too.
    pub(super) fn forgive(&self) -> Result<()> {
        let Ok(entries) = fs::read_dir(self.state().join("plugins")) else { return Ok(()) };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.ends_with(".mark") {
                fs::remove_file(&path)?;
            } else if name.starts_with(COPY) {
                fs::remove_dir_all(&path)?;
            }
        }
        Ok(())
    }

    /// Makes a command that runs here and sees nothing else.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        self.place(&mut command);
        command
    }

    /// Makes a command run here.
    pub(super) fn place(&self, command: &mut Command) {
        command.env_clear().envs(self.env()).current_dir(self.home());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    }

    pub(super) fn env(&self) -> Vec<(&'static str, String)> {
        let home = self.home().display().to_string();
        vec![("HOME", home), ("PATH", "/usr/bin:/bin".into()), ("LANG", "C.UTF-8".into())]
    }

    /// Runs a command to its end.
    pub(super) fn run<A: AsRef<OsStr>>(
        &self,
        program: &Path,
        args: &[A],
        env: &[(&str, String)],
        input: &str,
    ) -> Result<Output> {
        let mut command = self.command(program);
        command.args(args).envs(env.iter().cloned()).stdin(Stdio::piped());
        finish(command, input)
    }
}

/// Runs a command to its end with that input.
pub(super) fn finish(mut command: Command, input: &str) -> Result<Output> {
    let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read it may be gone already.
        let _ = stdin.write_all(input.as_bytes());
    }
    Ok(child.wait_with_output()?)
}

/// Returns what a program said on standard error, in one line.
pub(super) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().replace('\n', " / ")
}

pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as i64
}

/// The third party's login at a generation, good for so many milliseconds.
pub(super) fn login(login: u64, generation: u64, remaining: i64) -> Value {
    json!({
        "type": "oauth", "provider": "acme", "method": "acme-oauth",
        "access": token("access", login, generation),
        "refresh": token("refresh", login, generation),
        "expires": now_ms() + remaining,
    })
}

/// The third party's login at its first generation, a minute after its end.
pub(super) fn expired(number: u64) -> Value {
    login(number, 1, -60_000)
}

/// The login that no case may touch.
pub(super) fn bystander() -> Value {
    json!({
        "type": "token", "provider": "anthropic", "method": "setup-token",
        "token": BYSTANDER_SECRET,
    })
}

/// Writes a private file and its directories.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().context("a path with a directory")?;
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    fs::write(path, bytes).with_context(|| path.display().to_string())?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
}

fn config(plan: &Plan, server: &Server) -> Value {
    let url = server.url();
    json!({
        "agents": { "defaults": { "model": { "primary": "acme/anvil-1" } } },
        "auth": {
            "maxWaitSeconds": 0,
            "oauth": { "acme": { "tokenUrl": format!("{url}/token"), "clientId": "torture" } },
        },
        "models": { "providers": { "acme": { "baseUrl": url, "models": [] } } },
        "plugins": { "trusted": [{
            "path": plan.programs.plugin, "sha256": plan.programs.sum, "kind": "library",
        }] },
    })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&to)?;
            fs::set_permissions(&to, entry.metadata()?.permissions())?;
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}
