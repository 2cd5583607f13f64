//! `cargo xtask bench claude`: what the host adds to the user's own `claude`, with a lab as its
//! service: per turn, per start and in memory; and whether anything outlives a killed host.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Arg, ArgMatches};
use moltbot_core::{
    ChatView, Credential, CredentialView, Exchange, Op, Origin, Provider as _, Secret, Slot,
    Timestamp,
};
use moltbot_lab::{Lab, LabOptions};
use moltbot_plugin_claude_cli::ClaudeCli;
use serde_json::{Value, json};

use super::{figure, machine, middle};
use crate::workspace::{cargo, must, root, target_dir};

const SETUP_TOKEN: &str = "sk-ant-oat01-BENCHbenchBENCHbenchBENCHbenchBENCHbenchBENCHbenchBENCHbenchBENCHbenchBENCHbenchBENCHbenchBENCHbe";
const GATEWAY_TOKEN: &str = "mbg_BENCHbenchBENCHbenchBENCHbench";

/// How many idle sessions memory is divided by; the pool keeps as many.
const IDLE: usize = 8;

/// Where the host runs programs: they look around there before their first turn.
const PROGRAMS: &str = ".moltbot/agents/main/agent/programs";

/// How long a program that was started or ended goes on with its own affairs.
const PAUSE: Duration = Duration::from_millis(700);

/// Describes the chore.
pub(crate) fn command() -> clap::Command {
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .default_value(default)
            .value_parser(clap::value_parser!(usize))
            .help(help)
    };
    clap::Command::new("claude")
        .about("Measure what the host adds to the user's own claude program")
        .arg(
            Arg::new("program")
                .long("program")
                .required(true)
                .value_parser(clap::value_parser!(PathBuf))
                .help("The claude program; it only ever talks to a lab on this machine"),
        )
        .arg(number("turns", "40", "Warm turns each way"))
        .arg(number("starts", "20", "First turns each way"))
        .arg(number("kills", "200", "Kills, each with a fake program that hangs"))
        .arg(
            Arg::new("binary")
                .long("binary")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Measure this host; without it the release build of this tree"),
        )
}

/// Prints the figures.
pub(crate) fn bench(args: &ArgMatches) -> Result<()> {
    let program: &PathBuf = args.get_one("program").context("a program")?;
    let program = std::fs::canonicalize(program)?;
    let number = |name: &str| args.get_one::<usize>(name).copied().unwrap_or_default();
    let (turns, starts, kills) = (number("turns"), number("starts"), number("kills"));
    println!("machine: {}", machine());
    let host = match args.get_one::<PathBuf>("binary") {
        Some(binary) => std::fs::canonicalize(binary)?,
        None => {
            must(cargo().args(["build", "--release", "--quiet", "--package", "moltbot"]))?;
            target_dir().join("release/moltbot")
        }
    };
    let lab = Lab::start_on_thread(LabOptions::default())?;

    let home = Home::new(&host, &program, Some(&lab.url()))?;
    let gate = Gate::start(&home)?;
    // Both in turn, so that whatever else the machine does meets both; and neither meets what the
    // one before still does.
    let (mut own_first, mut our_first) = (Vec::new(), Vec::new());
    for round in 0..2 * starts {
        std::thread::sleep(PAUSE);
        // Own, ours, ours, own: each follows each as often.
        match round % 4 {
            0 | 3 => own_first.push(Own::start(&home, &lab.url())?.1),
            _ => our_first.push(gate.turn(&mut vec![])?),
        }
    }
    let (mut own, _) = Own::start(&home, &lab.url())?;
    let mut talk = Vec::new();
    gate.turn(&mut talk)?;
    let (mut own_warm, mut our_warm) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        own_warm.push(own.turn("more")?);
        our_warm.push(gate.turn(&mut talk)?);
    }
    let (own_first, our_first) = (middle(own_first), middle(our_first));
    let (own_warm, our_warm) = (middle(own_warm), middle(our_warm));
    figure("first turn of the program by itself", own_first, "ms", "");
    figure("first turn through the gateway", our_first, "ms", "");
    figure("first turn, added", our_first - own_first, "ms", "20");
    figure("warm turn of the program by itself", own_warm, "ms", "");
    figure("warm turn through the gateway", our_warm, "ms", "");
    figure("warm turn, added", our_warm - own_warm, "ms", "5");
    drop(gate);

    let fake = root().join("tests/fixtures/fake-claude-stream/claude");
    let home = Home::new(&host, &fake, None)?;
    figure("host memory per idle session", memory(&home)?, "KiB", "200");
    std::fs::write(home.path(".claude/fake-stream.plan"), "hang\n")?;
    for (what, kill) in KILLS {
        let count = kills / KILLS.len();
        let mut left = 0;
        for _ in 0..count {
            left += usize::from(kill(&home)?);
        }
        println!("{what:<50} {left:>9} of {count} (aim: 0)");
    }
    Ok(())
}

/// A home with a program, and a config that keeps everything on this machine.
struct Home {
    dir: tempfile::TempDir,
    host: PathBuf,
}

impl Home {
    fn new(host: &Path, program: &Path, lab: Option<&str>) -> Result<Self> {
        let home = Self { dir: tempfile::tempdir()?, host: host.to_path_buf() };
        for dir in ["bin", ".claude", PROGRAMS] {
            std::fs::create_dir_all(home.path(dir))?;
        }
        std::os::unix::fs::symlink(program, home.path("bin/claude"))?;
        let mut config = json!({
            "gateway": { "mode": "local", "allowSubscription": true,
                "auth": { "token": GATEWAY_TOKEN } } });
        if let Some(lab) = lab {
            config["models"] =
                json!({ "providers": { "claude-cli": { "baseUrl": lab, "models": [] } } });
            let token = json!({ "type": "token", "provider": "anthropic", "token": SETUP_TOKEN });
            let store = json!({ "version": 1, "profiles": { "anthropic:manual": token } });
            let path = home.path(".moltbot/agents/main/agent/auth-profiles.json");
            std::fs::write(path, store.to_string())?;
        }
        std::fs::write(home.path(".moltbot/moltbot.json"), config.to_string())?;
        Ok(home)
    }

    fn path(&self, inner: &str) -> PathBuf {
        self.dir.path().join(inner)
    }

    /// Starts a single turn.
    fn agent(&self) -> Result<Child> {
        // What was logged before does not count.
        let _ = std::fs::remove_file(self.log());
        Ok(self.moltbot().args(["agent", "--model", "claude-cli/sonnet", "-m", "hi"]).spawn()?)
    }

    fn log(&self) -> PathBuf {
        self.path(".claude/fake-stream.log")
    }

    /// Waits until the fake program hangs in a turn; returns its number, which is its group's.
    fn hanging(&self) -> Result<String> {
        let pid = wait(|| {
            let log = std::fs::read_to_string(self.log()).ok()?;
            let turn = log.lines().find_map(|line| line.strip_prefix("turn "))?;
            Some(turn.split(' ').next()?.to_string())
        });
        pid.context("the program did not start")
    }

    fn env(&self) -> [(&'static str, String); 2] {
        let home = self.dir.path().display();
        [("HOME", home.to_string()), ("PATH", format!("{home}/bin:/usr/bin:/bin"))]
    }

    fn moltbot(&self) -> Command {
        let mut command = Command::new(&self.host);
        command.env_clear().envs(self.env()).current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }
}

/// The program by itself, started exactly as the host starts it.
struct Own {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Own {
    /// Starts it and lets it take its first turn; returns how long both took, in milliseconds.
    fn start(home: &Home, lab: &str) -> Result<(Self, f64)> {
        let token = Secret::new(SETUP_TOKEN);
        let credential = Credential::token("anthropic", token, None);
        let body = body(&[said("user", "hi")]).to_string();
        let view = ChatView {
            op: Op::Messages,
            origin: Origin::Forwarded,
            base_url: lab.into(),
            path: "".into(),
            query: "".into(),
            headers: Vec::new().into(),
            extra: Vec::new().into(),
            model: "sonnet".into(),
            params: std::borrow::Cow::Owned(Value::Null),
            found: Vec::new().into(),
            body: Some(body.into()),
        };
        let now = Timestamp::from_millis(0);
        let exchange = ClaudeCli.request(&view, &CredentialView::of(&credential), now)?;
        let Exchange::Run { args, env, input, .. } = exchange else { bail!("no run") };
        let filled = |(name, slot): &(moltbot_core::Text, Slot)| {
            Ok((name.to_string(), slot.fill(&credential)?.expose().to_string()))
        };
        let env: Vec<(String, String)> = env.iter().map(filled).collect::<Result<_>>()?;
        let began = Instant::now();
        let mut child = Command::new(home.path("bin/claude"))
            .args(args.iter().map(|arg| arg.as_ref()))
            .env_clear()
            .envs(home.env())
            .envs(env)
            .current_dir(home.path(PROGRAMS))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let stdin = child.stdin.take().context("a pipe")?;
        let output = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut own = Self { child, input: stdin, output };
        own.input.write_all(input.as_bytes())?;
        own.result()?;
        Ok((own, began.elapsed().as_secs_f64() * 1e3))
    }

    fn turn(&mut self, text: &str) -> Result<f64> {
        let began = Instant::now();
        let message = json!({ "type": "user", "message": said("user", text) });
        self.input.write_all(format!("{message}\n").as_bytes())?;
        self.result()?;
        Ok(began.elapsed().as_secs_f64() * 1e3)
    }

    fn result(&mut self) -> Result<()> {
        let mut line = String::new();
        while self.output.read_line(&mut line)? > 0 {
            if line.starts_with("{\"type\":\"result\"") {
                ensure!(!line.contains("\"is_error\":true"), "{line}");
                return Ok(());
            }
            line.clear();
        }
        bail!("the program ended early")
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running gateway.
struct Gate {
    child: Child,
    address: String,
}

impl Gate {
    fn start(home: &Home) -> Result<Self> {
        // What was logged before does not count.
        let _ = std::fs::remove_file(home.log());
        let mut child = home.moltbot().args(["gateway", "--port", "0"]).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        let address = lines
            .find_map(|line| Some(line.ok()?.strip_prefix("gateway: http://")?.to_string()))
            .context("the gateway does not say where it is")?;
        Ok(Self { child, address })
    }

    /// Asks for a turn and leaves the answer in the connection.
    fn ask(&self, talk: &[Value]) -> Result<TcpStream> {
        let body = body(talk).to_string();
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        let request = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: {}\r\nconnection: close\r\nx-api-key: {GATEWAY_TOKEN}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        Ok(stream)
    }

    /// Asks for one more turn of a conversation; returns how long it took, in milliseconds.
    fn turn(&self, talk: &mut Vec<Value>) -> Result<f64> {
        talk.push(said("user", if talk.is_empty() { "hi" } else { "more" }));
        let began = Instant::now();
        let mut stream = self.ask(talk)?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        let took = began.elapsed().as_secs_f64() * 1e3;
        ensure!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        let (_, body) = reply.split_once("\r\n\r\n").context("a body")?;
        let body: Value = serde_json::from_str(body)?;
        talk.push(json!({ "role": "assistant", "content": body["content"] }));
        Ok(took)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn said(role: &str, text: &str) -> Value {
    json!({ "role": role, "content": [{ "type": "text", "text": text }] })
}

fn body(messages: &[Value]) -> Value {
    json!({ "model": "claude-cli/sonnet", "max_tokens": 100, "messages": messages })
}

/// Measures what a session that waits takes of the gateway's memory, in KiB.
fn memory(home: &Home) -> Result<f64> {
    let gate = Gate::start(home)?;
    let resident = || -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gate.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Ok(line.context("a size")?.trim().trim_end_matches(" kB").parse()?)
    };
    gate.turn(&mut vec![])?;
    let before = resident()?;
    for _ in 1..IDLE {
        gate.turn(&mut vec![])?;
    }
    Ok((resident()? - before) / (IDLE - 1) as f64)
}

/// Kills something in the middle of a turn, and tells whether something outlived it.
type Kill = fn(&Home) -> Result<bool>;

/// What is killed in the middle of a turn of a program that does not end by itself.
const KILLS: [(&str, Kill); 4] = [
    ("left of a killed `agent`", kill_agent),
    ("left of a killed gateway", kill_gateway),
    ("left of a killed program, under `agent`", |home| kill_program(home, home.agent()?)),
    ("left of a killed program, under the gateway", |home| {
        let gate = Gate::start(home)?;
        let asker = gate.ask(&[said("user", "hi")])?;
        let left = kill_program_of(home)?;
        drop((asker, gate));
        Ok(left)
    }),
];

fn kill_agent(home: &Home) -> Result<bool> {
    let mut host = home.agent()?;
    let group = home.hanging()?;
    host.kill()?;
    host.wait()?;
    Ok(outlives(&group))
}

fn kill_gateway(home: &Home) -> Result<bool> {
    let gate = Gate::start(home)?;
    let asker = gate.ask(&[said("user", "hi")])?;
    let group = home.hanging()?;
    // By SIGKILL.
    drop(gate);
    drop(asker);
    Ok(outlives(&group))
}

fn kill_program(home: &Home, mut host: Child) -> Result<bool> {
    let left = kill_program_of(home)?;
    // It may have started another one, which hangs too.
    host.kill()?;
    host.wait()?;
    Ok(left)
}

/// Kills the program that hangs, not what it started.
fn kill_program_of(home: &Home) -> Result<bool> {
    let group = home.hanging()?;
    let pid = rustix::process::Pid::from_raw(group.parse()?).context("a number")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    Ok(outlives(&group))
}

/// Tells whether anything of a process group still runs after a while.
fn outlives(group: &str) -> bool {
    wait(|| (!runs(group)).then_some(())).is_none()
}

fn runs(group: &str) -> bool {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok()).any(|stat| {
        // After the name, which may hold anything: state, parent, group.
        let mut rest = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let (state, own) = (rest.next(), rest.nth(1));
        own == Some(group) && !matches!(state, Some("Z" | "X"))
    })
}

fn wait<T>(mut so: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        if let Some(found) = so() {
            return Some(found);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}
