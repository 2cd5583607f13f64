//! `cargo xtask bench claude`: what the host adds to the user's own `claude`, with a lab as its
//! service: per turn, per start and in memory; and whether anything outlives a killed host.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
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
        .arg(number("starts", "10", "First turns each way"))
        .arg(number("kills", "200", "Hosts to be killed, with a fake program that hangs"))
}

/// Prints the figures.
pub(crate) fn bench(args: &ArgMatches) -> Result<()> {
    let program: &PathBuf = args.get_one("program").context("a program")?;
    let program = std::fs::canonicalize(program)?;
    let number = |name: &str| args.get_one::<usize>(name).copied().unwrap_or_default();
    let (turns, starts, kills) = (number("turns"), number("starts"), number("kills"));
    println!("machine: {}", machine());
    must(cargo().args(["build", "--release", "--quiet", "--package", "moltbot"]))?;
    let lab = Lab::start_on_thread(LabOptions::default())?;

    let home = Home::new(&program, Some(&lab.url()))?;
    let gate = Gate::start(&home)?;
    // Both in turn, so that whatever else the machine does meets both.
    let (mut own_first, mut our_first) = (Vec::new(), Vec::new());
    for _ in 0..starts {
        own_first.push(Own::start(&home, &lab.url())?.1);
        our_first.push(gate.turn(&mut vec![])?);
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
    let home = Home::new(&fake, None)?;
    figure("host memory per idle session", memory(&home)?, "KiB", "200");
    let left = orphans(&home, kills)?;
    println!("{:<50} {left:>9} of {kills} (aim: 0)", "orphans of killed hosts");
    Ok(())
}

/// A home with a program, and a config that keeps everything on this machine.
struct Home(tempfile::TempDir);

impl Home {
    fn new(program: &Path, lab: Option<&str>) -> Result<Self> {
        let home = Self(tempfile::tempdir()?);
        for dir in ["bin", ".claude", ".moltbot/agents/main/agent"] {
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
        self.0.path().join(inner)
    }

    fn env(&self) -> [(&'static str, String); 2] {
        let home = self.0.path().display();
        [("HOME", home.to_string()), ("PATH", format!("{home}/bin:/usr/bin:/bin"))]
    }

    fn moltbot(&self) -> Command {
        let mut command = Command::new(target_dir().join("release/moltbot"));
        command.env_clear().envs(self.env()).current_dir(self.0.path());
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
            .current_dir(home.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
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
        let mut child = home.moltbot().args(["gateway", "--port", "0"]).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        let address = lines
            .find_map(|line| Some(line.ok()?.strip_prefix("gateway: http://")?.to_string()))
            .context("the gateway does not say where it is")?;
        Ok(Self { child, address })
    }

    /// Asks for one more turn of a conversation; returns how long it took, in milliseconds.
    fn turn(&self, talk: &mut Vec<Value>) -> Result<f64> {
        talk.push(said("user", if talk.is_empty() { "hi" } else { "more" }));
        let body = body(talk).to_string();
        let began = Instant::now();
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        let request = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: {}\r\nconnection: close\r\nx-api-key: {GATEWAY_TOKEN}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes())?;
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

/// Kills hosts in the middle of a turn of a program that does not end by itself, and counts the
/// programs that are left.
fn orphans(home: &Home, kills: usize) -> Result<usize> {
    std::fs::write(home.path(".claude/fake-stream.plan"), "hang\n")?;
    let log = home.path(".claude/fake-stream.log");
    let mut seen = BTreeSet::new();
    for _ in 0..kills {
        // What it logged before does not count.
        let _ = std::fs::remove_file(&log);
        let mut host =
            home.moltbot().args(["agent", "--model", "claude-cli/sonnet", "-m", "hi"]).spawn()?;
        let pid = wait(|| {
            let log = std::fs::read_to_string(&log).ok()?;
            let turn = log.lines().find_map(|line| line.strip_prefix("turn "))?;
            Some(turn.split(' ').next()?.to_string())
        });
        host.kill()?;
        host.wait()?;
        seen.insert(pid.context("the program did not start")?);
    }
    let runs = |pid: &String| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
    };
    wait(|| (!seen.iter().any(runs)).then_some(()));
    Ok(seen.iter().filter(|pid| runs(pid)).count())
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
