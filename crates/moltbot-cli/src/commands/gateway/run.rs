//! `moltbot gateway run`: from start to drained end.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use clap::ArgMatches;
use moltbot_config::{AgentId, Config, KeyPath};
use moltbot_core::Secret;
use moltbot_gateway::{Access, Engine, Gateway, Settings, Tuning};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::listen::{listen, passed};
use super::place::{Proof, RUN_FILE, check_mode, place, proof};
use crate::{Context, Exit, Failure, Outcome};

/// How long requests may take to end after a stop, in seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often the config is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Runs the gateway until it is stopped.
pub(super) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    check_mode(cx, args.get_flag("allow-unconfigured"))?;
    let mut place = place(cx, Some(args))?;
    let passed = passed()?;
    place.passed(&passed)?;
    let proof = proof(cx, Some(args), &place)?;
    if args.get_flag("verbose") {
        // A level of the environment, set before, stays.
        let _ = crate::logging::start(Some("debug"));
    }
    harden();
    // Caught from here on: a stop during the start is a stop.
    let mut signals = cx.block_on(async { Signals::new() })??;
    let listeners = if passed.is_empty() { listen(&place)? } else { passed };
    let file = RunFile::take(cx.paths().state_dir(), &cx.shown(cx.paths().state_dir()))?;
    let given = match proof {
        Proof::Given(secret) => secret,
        Proof::Missing => make_token(cx)?,
    };
    // A token of the config may be changed there while the gateway runs.
    let fixed = ["token", "password"].iter().any(|name| args.get_one::<String>(name).is_some());
    let lab = args.get_one::<String>("lab").cloned();
    let (settings, agents) = parts(cx, &given, lab.as_deref())?;
    let workers = args.get_one::<u16>("workers").map_or(0, |count| usize::from(*count));
    let tuning = Tuning { workers, ..Tuning::default() };
    let log: Option<Box<dyn Write + Send>> =
        (!args.get_flag("quiet")).then(|| Box::new(std::io::stderr()) as Box<dyn Write + Send>);
    let addresses: Vec<SocketAddr> =
        listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    let gateway = Gateway::start(listeners, settings, agents, tuning, log)
        .map_err(|error| Failure::new(error.to_string()))?;
    file.write(&addresses)?;
    say(&format!("gateway: http://{}", addresses[0]))?;
    let mut seen = Stamps::of(cx);
    loop {
        match cx.block_on(signals.next())? {
            Next::Stop => break,
            Next::Look(asked) => {
                let now = Stamps::of(cx);
                if !asked && now == seen {
                    continue;
                }
                seen = now;
                let wanted = if fixed { Some(given.clone()) } else { None };
                match reload(cx, args, wanted.as_ref(), lab.as_deref(), &gateway) {
                    Ok(()) => eprintln!("gateway: the config was read again"),
                    Err(failure) => {
                        eprintln!("gateway: the config is not used, the old one stays:");
                        cx.out.failure(&failure);
                    }
                }
            }
        }
    }
    eprintln!("gateway: stopping; requests under way may end");
    let cut = gateway.drain(PATIENCE);
    drop(file);
    if cut > 0 {
        eprintln!("gateway: {cut} connections were cut");
    }
    Ok(Exit::OK)
}

/// Puts together who may come in and the agents behind the door.
fn parts(
    cx: &mut Context,
    owner: &Secret,
    lab: Option<&str>,
) -> Result<(Settings, Vec<Engine>), Failure> {
    let config = cx.config()?;
    let gateway = config.gateway.clone().unwrap_or_default();
    let auth = config.auth.as_ref();
    let mut trusted_proxies = Vec::new();
    for proxy in &gateway.trusted_proxies {
        trusted_proxies.push(proxy.trim().parse().map_err(|_| {
            Failure::new(format!("gateway.trustedProxies has \"{proxy}\", which is no IP address"))
        })?);
    }
    let mut access = vec![Access::owner(owner.clone())];
    for (name, token) in &gateway.tokens {
        let agent = AgentId::normalize(token.agent.as_str());
        if agent != config.default_agent() && config.agent(&agent).is_none() {
            let text = format!("gateway.tokens.{name}.agent is \"{agent}\", which is no agent");
            return Err(Failure::new(text).code("agent-unknown"));
        }
        let limits = token.limits.clone().unwrap_or_default();
        access.push(Access {
            name: name.clone(),
            secret: token.token.clone(),
            agent: Some(agent.as_str().to_string()),
            models: token.models.clone(),
            concurrency: limits.concurrency.map(std::num::NonZero::get),
            per_minute: limits.requests_per_minute.map(std::num::NonZero::get),
        });
    }
    let endpoints = gateway.http.as_ref().and_then(|http| http.endpoints.as_ref());
    let chat = endpoints.and_then(|endpoints| endpoints.chat_completions.as_ref()?.enabled);
    let responses = endpoints.and_then(|endpoints| endpoints.responses.clone()).unwrap_or_default();
    let longest = responses.max_body_bytes.map_or(usize::MAX, |most| most.get() as usize);
    let default_agent = config.default_agent();
    let hosts = gateway.custom_bind_host.iter().map(|host| host.as_str().to_string()).collect();
    let settings = Settings {
        access,
        default_agent: default_agent.as_str().to_string(),
        allow_subscription: gateway.allow_subscription == Some(true),
        passthrough_login: gateway.passthrough_login == Some(true),
        model_fallback: gateway.model_fallback == Some(true),
        chat_completions: chat != Some(false),
        responses: (responses.enabled != Some(false)).then_some(longest),
        trusted_proxies,
        hosts,
        max_wait_ms: u64::from(auth.and_then(|auth| auth.max_wait_seconds).unwrap_or(30)) * 1_000,
        allow_paid_fallback: auth.and_then(|auth| auth.allow_paid_fallback) != Some(false),
    };
    let mut agents = Vec::new();
    for agent in agent_ids(&config) {
        let paths = cx.agent_paths(&config, &agent);
        agents.push(cx.engine_at(&paths, lab.map(String::from))?);
    }
    Ok((settings, agents))
}

fn agent_ids(config: &Config) -> Vec<AgentId> {
    let mut ids = vec![config.default_agent()];
    let listed = config.agents.iter().flat_map(|agents| &agents.list);
    for id in listed.map(moltbot_config::Agent::agent_id) {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
}

/// Reads the config anew and hands it over; on any trouble everything stays as it is.
fn reload(
    cx: &mut Context,
    args: &ArgMatches,
    fixed: Option<&Secret>,
    lab: Option<&str>,
    gateway: &Gateway,
) -> Result<(), Failure> {
    cx.forget_config();
    let place = place(cx, Some(args))?;
    let owner = match fixed {
        Some(secret) => secret.clone(),
        None => match proof(cx, Some(args), &place)? {
            Proof::Given(secret) => secret,
            Proof::Missing => return Err(Failure::new("the config has no token any more")),
        },
    };
    let (settings, agents) = parts(cx, &owner, lab)?;
    gateway.replace(settings, agents).map_err(|error| Failure::new(error.to_string()))
}

/// Makes a token, keeps it in the config, and shows it once.
fn make_token(cx: &mut Context) -> Result<Secret, Failure> {
    let token = new_token()?;
    store_token(cx, &token)?;
    say(&format!("token: {}", token.expose()))?;
    eprintln!("gateway: this token was made for you; `moltbot gateway token` shows it again");
    Ok(token)
}

/// Makes a token of 256 random bits.
pub(super) fn new_token() -> Result<Secret, Failure> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::new(format!("The system gives no random numbers: {error}")))?;
    let digits = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random);
    Ok(Secret::new(format!("mbg_{digits}")))
}

/// Writes the token into the config.
pub(super) fn store_token(cx: &mut Context, token: &Secret) -> Result<(), Failure> {
    let path = KeyPath::keys(["gateway", "auth", "token"]);
    cx.edit(|editor| Ok(editor.set(&path, &json!(token.expose()))?))
}

/// Lets nobody read this process's memory, and as many connections in as the system allows.
fn harden() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // Limits that cannot be changed are the administrator's; the gateway works within them.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let files = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).is_ok();
    if let Some(before) = files.current.filter(|_| raised && files.current != files.maximum) {
        // Programs that the gateway starts get what it got.
        moltbot_sys::remember_files(before);
    }
}

fn say(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let said = writeln!(out, "{line}").and_then(|()| out.flush());
    said.map_err(|error| Failure::new(format!("cannot write to standard output: {error}")))
}

/// The file by which a running gateway is found; locked for as long as it runs.
struct RunFile {
    file: File,
    path: PathBuf,
}

impl RunFile {
    fn take(dir: &Path, shown: &str) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(format!("cannot write {shown}/{RUN_FILE}: {error}"))
        };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let path = dir.join(RUN_FILE);
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(failed)?;
        if file.try_lock().is_err() {
            return Err(Failure::new("a gateway of this state directory runs already")
                .hint("`moltbot gateway status` says where, `moltbot gateway stop` stops it"));
        }
        file.set_len(0).map_err(failed)?;
        Ok(Self { file, path })
    }

    fn write(&self, addresses: &[SocketAddr]) -> Result<(), Failure> {
        let urls: Vec<String> = addresses.iter().map(|at| format!("http://{at}")).collect();
        let text = json!({ "pid": std::process::id(), "urls": urls }).to_string();
        (&self.file)
            .write_all(text.as_bytes())
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", self.path.display())))
    }
}

impl Drop for RunFile {
    fn drop(&mut self) {
        // Left behind it would only say what its missing lock denies.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What the config is made of, to see that it changed.
#[derive(PartialEq, Eq)]
struct Stamps(Vec<(PathBuf, Option<(SystemTime, u64)>)>);

impl Stamps {
    fn of(cx: &mut Context) -> Self {
        let mut files = vec![cx.paths().config_file().to_path_buf()];
        if let Ok(loaded) = cx.loaded() {
            files.extend(loaded.files.iter().cloned());
        }
        files.dedup();
        let stamp = |path: &PathBuf| {
            let data = std::fs::metadata(path).ok()?;
            Some((data.modified().ok()?, data.len()))
        };
        Self(files.into_iter().map(|path| (path.clone(), stamp(&path))).collect())
    }
}

enum Next {
    Stop,
    /// Look at the config; whether somebody asked for it.
    Look(bool),
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let catch = |kind| {
            signal(kind).map_err(|error| Failure::new(format!("cannot catch signals: {error}")))
        };
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hang_up: catch(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Next {
        tokio::select! {
            _ = self.terminate.recv() => Next::Stop,
            _ = self.interrupt.recv() => Next::Stop,
            _ = self.hang_up.recv() => Next::Look(true),
            () = tokio::time::sleep(LOOK) => Next::Look(false),
        }
    }
}
