//! The environment around the config: process, `.env` files, and the login shell if that is asked
//! for (spec C-8, C-11).

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use moltbot_config::{
    Env, Extensions, LoadInput, Paths, ShellImport, Source, parse_dotenv, shell_import,
};
use moltbot_core::{Registry, VERSION};

use crate::out::clean;
use crate::shell;

/// The most that is read of a `.env` file, in bytes.
const MAX_DOTENV_BYTES: u64 = 1024 * 1024;

/// What reading the environment depends on.
pub(crate) struct Outside<'a> {
    pub(crate) process: &'a [(String, String)],
    pub(crate) paths: &'a Paths,
    pub(crate) extensions: &'a Extensions,
    pub(crate) registry: &'a Registry,
}

impl Outside<'_> {
    /// Reads every layer; what cannot be read is left out, with a sentence that says so.
    pub(crate) fn read(&self) -> (Env, Vec<String>) {
        let mut warnings = Vec::new();
        let mut env = Env::new(self.process.iter().cloned());
        let files = self.paths.env_files();
        for (source, file) in [Source::CwdFile, Source::StateFile].into_iter().zip(files) {
            match read_text(&file) {
                Ok(Some(text)) => env = env.with(source, parse_dotenv(&text)),
                Ok(None) => {}
                Err(error) => {
                    let shown = self.paths.display(&file);
                    warnings.push(format!("{} is not used: {error}", clean(&shown)));
                }
            }
        }
        let (paths, extensions) = (self.paths, self.extensions);
        let input = LoadInput { paths, env: &env, extensions, version: VERSION };
        if let Some(import) = shell_import(&input) {
            match self.ask_shell(&import, &env) {
                Ok(imported) => env = env.with(Source::Shell, imported),
                Err(sentence) => warnings.push(sentence),
            }
        }
        (env, warnings)
    }

    fn ask_shell(
        &self,
        import: &ShellImport,
        env: &Env,
    ) -> Result<BTreeMap<String, String>, String> {
        let wanted = self.importable();
        if wanted.iter().all(|name| env.get(name).is_some()) {
            return Ok(BTreeMap::new());
        }
        let shell = self.process.iter().find(|(name, _)| name == "SHELL");
        let (program, args) = ShellImport::command(shell.map(|(_, value)| value.as_str()));
        let timeout = Duration::from_millis(import.timeout_ms);
        let output = shell::output(&program, &args, self.process, timeout)?;
        Ok(ShellImport::import(&output, &wanted, env))
    }

    /// Lists what may be taken from the login shell: the variables that providers read, and ours.
    fn importable(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for entry in self.registry.providers() {
            names.extend(entry.info.env.iter().map(|key| key.name.to_string()));
            names.extend(entry.info.api_key.iter().map(|spec| spec.env.to_string()));
        }
        for prefix in ["MOLTBOT", "CLAWDBOT"] {
            names.extend(["TOKEN", "PASSWORD"].map(|name| format!("{prefix}_GATEWAY_{name}")));
        }
        names.sort();
        names.dedup();
        names
    }
}

/// Reads a small text file; `None` if there is none.
fn read_text(path: &Path) -> io::Result<Option<String>> {
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_DOTENV_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_DOTENV_BYTES {
        return Err(io::Error::other("it holds more than 1 MiB"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| io::Error::other("it is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use serde_json::{Value, json};

    use crate::testing::Bench;

    fn env_row(bench: &Bench) -> (Value, String) {
        let ran = bench.run(&["models", "status", "--json"]);
        let value: Value = serde_json::from_str(&ran.stdout).unwrap();
        (value["auth"]["providers"][0]["env"].clone(), ran.stderr)
    }

    fn script(bench: &Bench, text: &str) {
        let path = bench.home().join("shell");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        bench.env("SHELL", &path.display().to_string());
    }

    #[test]
    fn the_layers_in_their_order() {
        let bench = Bench::new();
        bench.config("{ env: { ACME_API_KEY: 'config-FAKE-config' } }");
        assert_eq!(env_row(&bench).0["value"], "conf...nfig");
        fs::write(bench.home().join(".moltbot/.env"), "ACME_API_KEY=state-FAKE-state").unwrap();
        assert_eq!(env_row(&bench).0["value"], "stat...tate");
        fs::write(bench.home().join(".env"), "ACME_API_KEY='cwd00-FAKE-cwd00'").unwrap();
        assert_eq!(env_row(&bench).0["value"], "cwd0...wd00");
        bench.env("ACME_API_KEY", "proc0-FAKE-proc0");
        let shown = json!({ "value": "proc...roc0", "source": "env: ACME_API_KEY" });
        assert_eq!(env_row(&bench).0, shown);
    }

    #[test]
    fn an_unusable_env_file_is_a_warning() {
        let bench = Bench::new();
        fs::create_dir(bench.home().join(".env")).unwrap();
        let (_, stderr) = env_row(&bench);
        assert_eq!(stderr, "warning: ~/.env is not used: it is no regular file\n");
    }

    #[test]
    fn the_login_shell_is_asked_only_when_told_and_one_key_blocks_no_other() {
        let bench = Bench::new();
        script(&bench, "printf 'ACME_API_KEY=shell-FAKE-shell\\0OTHER=1\\0'");
        assert_eq!(env_row(&bench).0, Value::Null);
        bench.env("MOLTBOT_GATEWAY_TOKEN", "set");
        bench.config("{ env: { shellEnv: { enabled: true } } }");
        let shown = json!({ "value": "shel...hell", "source": "shell env: ACME_API_KEY" });
        assert_eq!(env_row(&bench).0, shown);
        let ran = bench.run(&["models", "status", "--json"]);
        let value: Value = serde_json::from_str(&ran.stdout).unwrap();
        let shell = json!({ "enabled": true, "appliedKeys": ["ACME_API_KEY"] });
        assert_eq!(value["auth"]["shellEnvFallback"], shell);
    }

    #[test]
    fn a_shell_that_fails_is_a_warning() {
        let bench = Bench::new();
        script(&bench, "exit 1");
        bench.env("CLAWDBOT_LOAD_SHELL_ENV", "1");
        let (row, stderr) = env_row(&bench);
        assert_eq!(row, Value::Null);
        assert!(stderr.starts_with("warning: shell import: "), "{stderr}");
    }
}
