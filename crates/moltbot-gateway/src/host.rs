//! Performs the effects that plugins ask for, and refuses what their offers do not declare.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use moltbot_core::{
    Credential, Effect, FileProblem, FileRef, FileState, Host, HostError, HttpReply, HttpRequest,
    Needs, Note, Ran, Reply, Run, Secret, Timestamp, async_trait, redact,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::front::{Front, TerminalRun};
use crate::http::{Http, Vars, explain, safe_url};
use crate::keyring::{Keyring, OsKeyring};

const MAX_FILE: u64 = 1 << 20;
const MAX_REPLY: usize = 1 << 20;
const MAX_STDOUT: usize = 1 << 20;
const MAX_STDERR: usize = 64 << 10;
const HTTP_MS: u64 = 30_000;
const RUN_MS: u64 = 120_000;

/// Variables that a child may see without being declared: none of them carries a credential.
const CHILD_ENV: [&str; 27] = [
    "ALL_PROXY",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "LC_MESSAGES",
    "LOGNAME",
    "NODE_EXTRA_CA_CERTS",
    "NO_PROXY",
    "PATH",
    "SHELL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "all_proxy",
    "https_proxy",
    "no_proxy",
];

/// What effects are performed with; shared by all calls.
#[derive(Clone)]
pub struct HostParts {
    pub(crate) http: Arc<Http>,
    pub(crate) vars: Vars,
    pub(crate) home: Option<PathBuf>,
    pub(crate) front: Arc<dyn Front>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) keyring: Arc<dyn Keyring>,
}

impl HostParts {
    /// Puts together what effects need. `vars` answers for every variable, `home` for `~`.
    pub fn new(
        vars: Vars,
        home: Option<PathBuf>,
        front: Arc<dyn Front>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let http = Arc::new(Http::new(vars.clone(), crate::Limits::default().connect_ms));
        Self { http, vars, home, front, clock, keyring: Arc::new(OsKeyring) }
    }

    /// Uses another keyring than the operating system's.
    pub fn with_keyring(self, keyring: Arc<dyn Keyring>) -> Self {
        Self { keyring, ..self }
    }

    /// Writes a path for people: the home directory as `~`.
    pub(crate) fn shown(&self, path: &Path) -> String {
        let inside = self.home.as_ref().and_then(|home| path.strip_prefix(home).ok());
        match inside {
            Some(rest) => Path::new("~").join(rest).display().to_string(),
            None => path.display().to_string(),
        }
    }
}

/// The host of one call: it does what `needs` covers, nothing else.
///
/// Small files are read on the calling thread, so that a link can be judged without a runtime;
/// HTTP, programs and waiting need tokio.
pub struct EffectHost<'a> {
    parts: &'a HostParts,
    needs: &'a Needs,
    /// What the user named: in the profile, then in answers of this call.
    named: Mutex<Vec<String>>,
}

impl<'a> EffectHost<'a> {
    /// Makes a host for a call under `needs`.
    pub fn new(parts: &'a HostParts, needs: &'a Needs) -> Self {
        Self { parts, needs, named: Mutex::default() }
    }

    /// Makes a host for a call about a stored profile, which may name places of the user's choice.
    pub fn of_profile(parts: &'a HostParts, needs: &'a Needs, stored: &Credential) -> Self {
        Self { named: Mutex::new(needs.named_in(stored)), ..Self::new(parts, needs) }
    }

    /// Refuses a profile that names a place which the user did not.
    pub(crate) fn check_named(&self, made: &Credential) -> Result<(), HostError> {
        let known = self.named();
        match self.needs.named_in(made).iter().find(|place| !known.contains(place)) {
            None => Ok(()),
            Some(place) => Err(HostError::Denied {
                reason: format!("a profile that names {}, which nobody answered", redact(place)),
            }),
        }
    }

    fn named(&self) -> Vec<String> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn http(&self, request: HttpRequest) -> Result<HttpReply, HostError> {
        let url = safe_url(&request.url).map_err(|reason| HostError::Denied {
            reason: format!("a request to {}: {reason}", redact(&request.url)),
        })?;
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        if !self.needs.covers_host(host, port, &self.named()) {
            let reason = format!("a request to {host}:{port}, which the offer does not declare");
            return Err(HostError::Denied { reason });
        }
        let limit = request.timeout_ms.unwrap_or(HTTP_MS).min(HTTP_MS);
        exchange(&self.parts.http, url, &request, limit).await
    }

    fn read(&self, file: &FileRef) -> Result<FileState, HostError> {
        if !self.needs.covers_file(file, &self.named()) {
            let reason =
                format!("reading {}/{}, which the offer does not declare", file.dir, file.path);
            return Err(HostError::Denied { reason });
        }
        let path = self.locate(file)?;
        Ok(read_file(&path, self.parts.shown(&path)))
    }

    pub(crate) fn locate(&self, file: &FileRef) -> Result<PathBuf, HostError> {
        let inner = Path::new(file.path.as_ref());
        if !inner.components().all(|part| matches!(part, Component::Normal(_))) {
            let reason = format!("the path {} leaves its directory", file.path);
            return Err(HostError::Denied { reason });
        }
        let named = file.dir_env.as_ref().and_then(|name| (self.parts.vars)(name));
        let named = named.filter(|dir| !dir.trim().is_empty());
        let dir = named.unwrap_or_else(|| file.dir.to_string());
        let dir = match (dir.strip_prefix('~'), &self.parts.home) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
                home.join(rest.trim_start_matches('/'))
            }
            (Some(_), None) => {
                return Err(HostError::NotFound { what: "the home directory".into() });
            }
            _ => PathBuf::from(dir),
        };
        Ok(dir.join(inner))
    }

    async fn run(&self, run: Run) -> Result<Ran, HostError> {
        if !self.needs.programs.contains(&run.program) {
            let reason = format!("running {}, which the offer does not declare", run.program);
            return Err(HostError::Denied { reason });
        }
        for (name, value) in &run.env {
            let declared = self.needs.secret_env.contains(name);
            if !declared && (may_hold_secret(name) || redact(value.expose()) != value.expose()) {
                let reason = format!("a secret in {name}, which the offer does not declare");
                return Err(HostError::Denied { reason });
            }
        }
        let program = self.find_program(&run.program)?;
        let env = self.child_env(&run);
        let args: Vec<String> = run.args.iter().map(ToString::to_string).collect();
        if run.terminal {
            let timeout_ms = run.timeout_ms;
            let front = &self.parts.front;
            let exit =
                front.run_on_terminal(TerminalRun { program, args, env, timeout_ms }).await?;
            return Ok(Ran { exit, stdout: Secret::default(), stderr: Secret::default() });
        }
        let limit = run.timeout_ms.unwrap_or(RUN_MS).min(RUN_MS);
        let ran = timeout(Duration::from_millis(limit), run_to_end(&program, &args, &env, &run));
        // Dropping the child on a timeout kills it.
        ran.await.map_err(|_| HostError::Timeout { ms: limit })?
    }

    pub(crate) fn find_program(&self, program: &str) -> Result<PathBuf, HostError> {
        if program.contains('/') {
            let reason = format!("{program} is not the bare name of a program");
            return Err(HostError::Denied { reason });
        }
        let path = (self.parts.vars)("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .filter(|dir| dir.is_absolute())
            .map(|dir| dir.join(program))
            .find(|candidate| is_executable(candidate))
            .ok_or_else(|| HostError::NotFound { what: format!("the program {program}") })
    }

    /// The whole environment of a child: the allow-list, the variables that say where the declared
    /// files are or that are declared themselves, and what the call adds.
    pub(crate) fn child_env(&self, run: &Run) -> Vec<(String, Secret)> {
        let places = self.needs.files.iter().filter_map(|file| file.dir_env.as_deref());
        let declared = self.needs.secret_env.iter().map(AsRef::as_ref);
        let mut env: Vec<(String, Secret)> = CHILD_ENV
            .into_iter()
            .chain(places)
            .chain(declared)
            .filter_map(|name| Some((name.to_string(), Secret::new((self.parts.vars)(name)?))))
            .collect();
        for (name, value) in &run.env {
            env.retain(|(known, _)| known != name);
            env.push((name.to_string(), value.clone()));
        }
        env
    }
}

#[async_trait]
impl Host for EffectHost<'_> {
    async fn perform(&self, effect: Effect) -> Result<Reply, HostError> {
        let front = &self.parts.front;
        match effect {
            Effect::Ask { field, refused } => {
                let answer = front.ask(&field, refused.as_deref()).await?;
                if self.needs.answers.contains(&field.id) {
                    let named = answer.value.expose().trim().to_string();
                    self.named.lock().unwrap_or_else(PoisonError::into_inner).push(named);
                }
                Ok(Reply::Answer { value: answer.value, typed: answer.typed })
            }
            Effect::Http { request } => Ok(Reply::Http { response: self.http(request).await? }),
            Effect::Keyring { entry, put } => {
                if !self.needs.keyring.contains(&entry.service) {
                    let reason = format!(
                        "the keyring's entries of {}, which the offer does not declare",
                        entry.service
                    );
                    return Err(HostError::Denied { reason });
                }
                Ok(Reply::Kept { secret: self.parts.keyring.entry(&entry, put)? })
            }
            Effect::Now {} => Ok(Reply::Now { now: self.parts.clock.now() }),
            Effect::Open { url } => {
                let refused =
                    |reason| HostError::Denied { reason: format!("showing a page: {reason}") };
                front.open(safe_url(&url).map_err(refused)?.as_str()).await?;
                Ok(Reply::Done {})
            }
            Effect::Read { file } => Ok(Reply::File { file: self.read(&file)? }),
            Effect::Run { run } => Ok(Reply::Ran { ran: self.run(run).await? }),
            Effect::Tell { note } => {
                let text = redact(&note.text).into_owned();
                front.tell(&Note { level: note.level, text }).await?;
                Ok(Reply::Done {})
            }
            _ => Err(HostError::Unsupported { what: "this effect".into() }),
        }
    }
}

/// Sends one small request and takes in the whole reply.
pub(crate) async fn exchange(
    http: &Http,
    url: reqwest::Url,
    request: &HttpRequest,
    limit_ms: u64,
) -> Result<HttpReply, HostError> {
    let network = |message: String| HostError::Network { message };
    let host = url.host_str().unwrap_or_default().to_string();
    let method = reqwest::Method::from_bytes(request.method.as_bytes())
        .map_err(|_| HostError::Other { message: format!("{} is no method", request.method) })?;
    let mut builder = http.client(&url).map_err(network)?.request(method, url);
    for (name, value) in &request.headers {
        builder = builder.header(name.as_ref(), value.expose());
    }
    if let Some(body) = &request.body {
        builder = builder.body(body.expose().to_string());
    }
    let whole = async {
        let mut response = builder.send().await.map_err(|error| explain(&error))?;
        let status = response.status().as_u16();
        let text = |value: &reqwest::header::HeaderValue| {
            Secret::new(String::from_utf8_lossy(value.as_bytes()))
        };
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect();
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| explain(&error))? {
            if body.len() + piece.len() > MAX_REPLY {
                return Err("the reply is larger than 1 MiB".to_string());
            }
            body.extend_from_slice(&piece);
        }
        let body = Secret::new(String::from_utf8_lossy(&body));
        Ok(HttpReply { status, headers, body })
    };
    match timeout(Duration::from_millis(limit_ms), whole).await {
        Ok(reply) => reply.map_err(|message| network(format!("{host}: {message}"))),
        Err(_) => Err(HostError::Timeout { ms: limit_ms }),
    }
}

fn read_file(path: &Path, shown: String) -> FileState {
    let symlink = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_symlink());
    let mut state =
        FileState { shown, content: None, problem: None, symlink, exposed: false, modified: None };
    match read_text(path, &mut state) {
        Ok(text) => state.content = Some(text),
        Err(problem) => state.problem = Some(problem),
    }
    state
}

fn read_text(path: &Path, state: &mut FileState) -> Result<Secret, FileProblem> {
    let unreadable = |reason: &str| FileProblem::Unreadable { reason: reason.to_string() };
    let problem = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => FileProblem::Absent {},
        _ => FileProblem::Unreadable { reason: error.to_string() },
    };
    // Asked before opening: opening a pipe would wait for a writer.
    let about = fs::metadata(path).map_err(problem)?;
    if !about.is_file() {
        return Err(unreadable("not a regular file"));
    }
    state.exposed = readable_by_others(&about);
    state.modified = about.modified().ok().and_then(|at| {
        let since = at.duration_since(UNIX_EPOCH).ok()?;
        i64::try_from(since.as_millis()).ok().map(Timestamp::from_millis)
    });
    let file = fs::File::open(path).map_err(problem)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(problem)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(unreadable("larger than 1 MiB"));
    }
    String::from_utf8(bytes).map(Secret::new).map_err(|_| unreadable("not UTF-8"))
}

fn readable_by_others(about: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    about.permissions().mode() & 0o044 != 0
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn may_hold_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL"].iter().any(|word| name.contains(word))
}

async fn run_to_end(
    program: &Path,
    args: &[String],
    env: &[(String, Secret)],
    run: &Run,
) -> Result<Ran, HostError> {
    let failed = |error: std::io::Error| HostError::Other {
        message: format!("{} could not be run: {error}", run.program),
    };
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(env.iter().map(|(name, value)| (name, value.expose())))
        .stdin(if run.input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    moltbot_sys::restore_files(command.as_std_mut());
    let mut child = command.spawn().map_err(failed)?;
    let stdin = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let feed = async {
        if let (Some(mut stdin), Some(input)) = (stdin, &run.input) {
            // A program that does not read its input is no error.
            let _ = stdin.write_all(input.expose().as_bytes()).await;
        }
    };
    let (_, stdout, stderr) =
        tokio::join!(feed, drain(stdout, MAX_STDOUT), drain(stderr, MAX_STDERR));
    let status = child.wait().await.map_err(failed)?;
    Ok(Ran { exit: status.code(), stdout, stderr })
}

/// Reads to the end and keeps the first `most` bytes, so that a chatty program never blocks.
async fn drain(pipe: Option<impl AsyncRead + Unpin>, most: usize) -> Secret {
    let mut kept = Vec::new();
    let mut piece = [0; 8192];
    if let Some(mut pipe) = pipe {
        while let Ok(count @ 1..) = pipe.read(&mut piece).await {
            let room = most - kept.len();
            kept.extend_from_slice(&piece[..count.min(room)]);
        }
    }
    Secret::new(String::from_utf8_lossy(&kept))
}
