//! The programs that `bench gateway` compares, and what the kernel says they cost.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

/// The token of the gateways measured here.
pub(crate) const TOKEN: &str = "mbg_BENCHbenchBENCHbenchBENCHbenchBENCHbench";

/// How long a program may take until it listens.
const START: Duration = Duration::from_secs(20);

/// A running program, ended with this value.
pub(crate) struct Server {
    child: Child,
    pub(crate) addr: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself: then the figures say so.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Returns the processor time used so far, in microseconds.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let rest = stat.rsplit_once(')').context("a stat line")?.1;
        let ticks: Vec<f64> =
            rest.split_whitespace().skip(11).take(2).filter_map(|n| n.parse().ok()).collect();
        ensure!(ticks.len() == 2, "an odd stat line");
        // Linux counts in hundredths of a second towards programs.
        Ok((ticks[0] + ticks[1]) * 1e4)
    }

    /// Returns a line of `/proc/PID/status` in MiB, for example `VmRSS`.
    pub(crate) fn memory(&self, name: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.context("a line of memory")? / 1024.0)
    }
}

/// Tells whether a program can be run; `probe` makes it say its version.
pub(crate) fn has(program: &str, probe: &str) -> bool {
    let mut command = Command::new(program);
    command.arg(probe).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok()
}

/// Starts nginx with one worker in a directory of its own. `servers` gets a free port per entry.
fn nginx(dir: &Path, name: &str, http: &str, ports: &[u16]) -> Result<Server> {
    let path = dir.join(format!("{name}.conf"));
    let text = format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\nworker_rlimit_nofile 65536;\n\
         pid {dir}/{name}.pid;\nerror_log {dir}/{name}.log;\n\
         events {{ worker_connections 16384; }}\n\
         http {{\naccess_log off;\nkeepalive_requests 1000000000;\nclient_max_body_size 64m;\n\
         client_body_buffer_size 1m;\nclient_body_temp_path {dir}/{name}-body;\n\
         proxy_temp_path {dir}/{name}-proxy;\nfastcgi_temp_path {dir}/{name}-fastcgi;\n\
         uwsgi_temp_path {dir}/{name}-uwsgi;\nscgi_temp_path {dir}/{name}-scgi;\n{http}\n}}\n",
        dir = dir.display()
    );
    std::fs::write(&path, text)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(dir).arg("-c").arg(&path).stdin(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().context("nginx")?;
    let addr = SocketAddr::from(([127, 0, 0, 1], ports[0]));
    let server = Server { child, addr };
    listening(addr)?;
    Ok(server)
}

/// Starts the canned service: `?beta=sse` gets the stream, everything else the JSON reply.
pub(crate) fn canned(dir: &Path, json: &str, sse: &str) -> Result<Server> {
    let port = free_port()?;
    // A word of nginx's config is limited, what is put together of several is not.
    let mut sets = String::new();
    let mut names = String::new();
    for (number, piece) in sse.as_bytes().chunks(3_000).enumerate() {
        let piece = std::str::from_utf8(piece)?.replace('\\', "\\\\").replace('\'', "\\'");
        sets += &format!("set $s{number} '{piece}';\n");
        names += &format!("$s{number}");
    }
    // `default_type` belongs to a place, not to a condition: the stream has a place of its own.
    let http = format!(
        "server {{\nlisten 127.0.0.1:{port};\n\
         location = /stream {{\ninternal;\n{sets}default_type text/event-stream;\n\
         return 200 \"{names}\";\n}}\n\
         location / {{\nif ($args = \"beta=sse\") {{ rewrite ^ /stream last; }}\n\
         default_type application/json;\nreturn 200 '{json}';\n}}\n}}"
    );
    nginx(dir, "service", &http, &[port])
}

/// Starts nginx as a reverse proxy; the second address passes streams on unbuffered.
pub(crate) fn proxy(dir: &Path, to: SocketAddr) -> Result<(Server, SocketAddr)> {
    let (plain, stream) = (free_port()?, free_port()?);
    let pass = "location / { proxy_pass http://service; proxy_http_version 1.1; \
                proxy_set_header Connection \"\"; ";
    let http = format!(
        "upstream service {{ server {to}; keepalive 512; keepalive_requests 1000000000; }}\n\
         server {{ listen 127.0.0.1:{plain}; {pass} }} }}\n\
         server {{ listen 127.0.0.1:{stream}; {pass} proxy_buffering off; }} }}"
    );
    let server = nginx(dir, "proxy", &http, &[plain])?;
    Ok((server, SocketAddr::from(([127, 0, 0, 1], stream))))
}

/// Starts the control.
pub(crate) fn bare(xtask: &Path, to: SocketAddr) -> Result<Server> {
    let mut command = Command::new(xtask);
    command.arg("bare-proxy").arg(to.to_string());
    announced(command, "")
}

/// Starts our gateway with one worker; with a rule, every body is read to its end.
pub(crate) fn ours(binary: &Path, home: &Path, to: SocketAddr, rule: bool) -> Result<Server> {
    announced(gateway(binary, home, to, rule, 0)?, "gateway: http://")
}

/// Writes a home and puts the command together.
pub(crate) fn gateway(
    binary: &Path,
    home: &Path,
    to: SocketAddr,
    rule: bool,
    port: u16,
) -> Result<Command> {
    let dir: PathBuf = home.join(".moltbot");
    std::fs::create_dir_all(&dir)?;
    let params = if rule { json!({ "cacheControlTtl": "1h" }) } else { json!({}) };
    let config = json!({
        "gateway": { "mode": "local", "auth": { "token": TOKEN } },
        "agents": { "defaults": { "models": {
            "anthropic/claude-opus-4-5": { "params": params } } } },
        "models": { "providers": { "anthropic": {
            "baseUrl": format!("http://{to}"), "models": [] } } } });
    std::fs::write(dir.join("moltbot.json"), config.to_string())?;
    let mut command = Command::new(binary);
    command
        .args(["gateway", "--workers", "1", "--port", &port.to_string()])
        .env_clear()
        .env("HOME", home)
        .env("PATH", "/usr/bin:/bin")
        .env("ANTHROPIC_API_KEY", "sk-ant-api03-BENCHbenchBENCHbenchBENCHbench01")
        .current_dir(home)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    Ok(command)
}

/// Starts a program that prints its address after `prefix`.
fn announced(mut command: Command, prefix: &str) -> Result<Server> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let addr = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix(prefix)?.parse::<SocketAddr>().ok());
    let Some(addr) = addr else {
        // It has ended, or will be of no use.
        let _ = child.kill();
        let _ = child.wait();
        bail!("{command:?} did not say where it listens");
    };
    Ok(Server { child, addr })
}

/// Finds a port that is free now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn listening(addr: SocketAddr) -> Result<()> {
    let until = Instant::now() + START;
    while TcpStream::connect(addr).is_err() {
        ensure!(Instant::now() < until, "nothing listens on {addr}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
