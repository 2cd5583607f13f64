//! A home to measure in, the program by itself, and a gateway.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use moltbot_core::{
    ChatView, Credential, CredentialView, Exchange, Op, Origin, Provider as _, Secret, Slot,
    Timestamp,
};
use moltbot_plugin_claude_cli::ClaudeCli;
use serde_json::{Value, json};

use super::left::wait;
use super::relay;

const SETUP_TOKEN: &str = "sk-ant-oat01-BENCHbenchBENCHbenchBENCHbenchBENCHbenchBENCHbenchBENCHbenchBENCHbenchBENCHbenchBENCHbenchBENCHbe";
const GATEWAY_TOKEN: &str = "mbg_BENCHbenchBENCHbenchBENCHbench";

/// Where a relayed program notes its time.
const INSIDE: &str = "inside";

/// Where the host runs programs: they look around there before their first turn.
const PROGRAMS: &str = ".moltbot/agents/main/agent/programs";

/// A home with a program, and a config that keeps everything on this machine.
pub(super) struct Home {
    dir: tempfile::TempDir,
    host: PathBuf,
}

impl Home {
    /// Makes one. A relayed program notes how long it took for its first turn, see [`relay()`].
    pub(super) fn new(
        host: &Path,
        program: &Path,
        lab: Option<&str>,
        relayed: bool,
    ) -> Result<Self> {
        let home = Self { dir: tempfile::tempdir()?, host: host.to_path_buf() };
        for dir in ["bin", ".claude", PROGRAMS] {
            std::fs::create_dir_all(home.path(dir))?;
        }
        let name = home.path("bin/claude");
        match relayed {
            true => relay::install(&name, program, &home.path(INSIDE))?,
            false => std::os::unix::fs::symlink(program, name)?,
        }
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

    /// Returns how long the program that was started last took from its own start to its first
    /// result, in milliseconds.
    pub(super) fn inside(&self) -> Result<f64> {
        let notes = std::fs::read_to_string(self.path(INSIDE)).context("no note of the program")?;
        Ok(notes.lines().last().context("no note of the program")?.parse()?)
    }

    pub(super) fn path(&self, inner: &str) -> PathBuf {
        self.dir.path().join(inner)
    }

    /// Starts a single turn.
    pub(super) fn agent(&self) -> Result<Child> {
        // What was logged before does not count.
        let _ = std::fs::remove_file(self.log());
        Ok(self.moltbot().args(["agent", "--model", "claude-cli/sonnet", "-m", "hi"]).spawn()?)
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path(".claude/fake-stream.log")
    }

    /// Waits until the fake program hangs in a turn; returns its number, which is its group's.
    pub(super) fn hanging(&self) -> Result<String> {
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
pub(super) struct Own {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Own {
    /// Starts it and lets it take its first turn; returns how long both took, in milliseconds.
    pub(super) fn start(home: &Home, lab: &str) -> Result<(Self, f64)> {
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

    pub(super) fn turn(&mut self, text: &str) -> Result<f64> {
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
pub(super) struct Gate {
    pub(super) child: Child,
    address: String,
}

impl Gate {
    pub(super) fn start(home: &Home) -> Result<Self> {
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
    pub(super) fn ask(&self, talk: &[Value]) -> Result<TcpStream> {
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
    pub(super) fn turn(&self, talk: &mut Vec<Value>) -> Result<f64> {
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

pub(super) fn said(role: &str, text: &str) -> Value {
    json!({ "role": role, "content": [{ "type": "text", "text": text }] })
}

pub(super) fn body(messages: &[Value]) -> Value {
    json!({ "model": "claude-cli/sonnet", "max_tokens": 100, "messages": messages })
}
