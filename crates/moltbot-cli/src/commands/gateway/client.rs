//! What the owner of a gateway does beside it: look, stop, token, and clients that use it.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use moltbot_core::Secret;
use moltbot_gateway::{IN_THE_WAY, client_env};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::place::{Proof, RUN_FILE, place, proof};
use super::run::{new_token, store_token};
use crate::{Context, Exit, Failure, Outcome};

/// How long a gateway may take to end: longer than it lets requests take.
const END: Duration = Duration::from_secs(35);

/// How long it may take to answer a question about itself, or to take over a token.
const ANSWER: Duration = Duration::from_secs(5);

/// What a running gateway says of itself.
#[derive(Clone, Debug, Deserialize)]
struct Running {
    pid: i32,
    urls: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    running: bool,
    pid: Option<i32>,
    urls: Vec<String>,
    ready: bool,
}

/// Says whether the gateway runs; exit code 1 if not.
pub(super) fn status(cx: &mut Context, json: bool) -> Outcome {
    let running = running(cx)?;
    let token = secret(cx)?;
    let ready = running.as_ref().is_some_and(|running| {
        running.urls.first().is_some_and(|url| asks(url, "/readyz", token.as_ref()) == Some(200))
    });
    let status = Status {
        running: running.is_some(),
        pid: running.as_ref().map(|running| running.pid),
        urls: running.map(|running| running.urls).unwrap_or_default(),
        ready,
    };
    let exit = if status.running { Exit::OK } else { Exit::NO };
    if json {
        cx.out.json(&status);
        return Ok(exit);
    }
    match status.pid {
        None => cx.out.line("The gateway does not run"),
        Some(pid) => {
            cx.out.line(format!("The gateway runs (process {pid})"));
            for url in &status.urls {
                cx.out.line(format!("  {url}"));
            }
            let ready = if ready { "ready" } else { "not ready: no usable credential" };
            cx.out.line(format!("  {ready}"));
        }
    }
    Ok(exit)
}

/// How the gateway is doing.
pub(crate) struct Glance {
    /// Whether it runs.
    pub(crate) running: bool,
    /// Whether it has a usable credential.
    pub(crate) ready: bool,
}

/// Looks whether the gateway runs and is ready.
pub(crate) fn glance(cx: &mut Context) -> Result<Glance, Failure> {
    let Some(running) = running(cx)? else { return Ok(Glance { running: false, ready: false }) };
    let token = secret(cx)?;
    let url = running.urls.first();
    let ready = url.is_some_and(|url| asks(url, "/readyz", token.as_ref()) == Some(200));
    Ok(Glance { running: true, ready })
}

/// Makes a token and stores it in the config if there is none; returns whether it did.
pub(crate) fn ensure_token(cx: &mut Context) -> Result<bool, Failure> {
    if secret(cx)?.is_some() {
        return Ok(false);
    }
    store_token(cx, &new_token()?)?;
    Ok(true)
}

/// Stops the gateway and waits for its end.
pub(super) fn stop(cx: &mut Context) -> Outcome {
    let Some(running) = running(cx)? else {
        cx.out.line("The gateway does not run");
        return Ok(Exit::OK);
    };
    signal(&running, Signal::TERM)?;
    let until = Instant::now() + END;
    while self::running(cx)?.is_some() {
        if Instant::now() > until {
            let text = format!("The gateway (process {}) does not end", running.pid);
            return Err(Failure::new(text));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    cx.out.line("The gateway has stopped");
    Ok(Exit::OK)
}

/// Prints the token; makes a new one first if asked to.
pub(super) fn token(cx: &mut Context, rotate: bool) -> Outcome {
    let token = match rotate {
        false => secret(cx)?.ok_or_else(no_token)?,
        true => {
            let token = new_token()?;
            store_token(cx, &token)?;
            if let Some(running) = running(cx)? {
                taken_over(&running, &token)?;
            }
            token
        }
    };
    cx.out.raw(&format!("{}\n", token.expose()));
    Ok(Exit::OK)
}

/// Prints what a client needs.
pub(super) fn env(cx: &mut Context, shell: bool) -> Outcome {
    if shell && cx.process_env(IN_THE_WAY).is_some() {
        cx.out.raw(&format!("unset {IN_THE_WAY}\n"));
    }
    for (name, value) in variables(cx)? {
        let value = value.expose();
        match shell {
            true => cx.out.raw(&format!("export {name}='{}'\n", value.replace('\'', "'\\''"))),
            false => cx.out.raw(&format!("{name}={value}\n")),
        }
    }
    Ok(Exit::OK)
}

/// Becomes another program, which finds the gateway in its environment.
pub(super) fn exec(cx: &mut Context, mut words: impl Iterator<Item = String>) -> Outcome {
    let program = words.next().expect("at least one word is required");
    let mut command = Command::new(&program);
    command.args(words).env_clear().envs(cx.process_vars()).env_remove(IN_THE_WAY);
    for (name, value) in variables(cx)? {
        command.env(name, value.expose());
    }
    let error = command.exec();
    Err(Failure::new(format!("cannot run {program}: {error}")))
}

fn variables(cx: &mut Context) -> Result<Vec<(&'static str, Secret)>, Failure> {
    let token = secret(cx)?.ok_or_else(no_token)?;
    let url = match running(cx)?.and_then(|running| running.urls.into_iter().next()) {
        Some(url) => url,
        None => {
            let place = place(cx, None)?;
            format!("http://{}", SocketAddr::new(place.addresses[0], place.port))
        }
    };
    Ok(client_env(&url.replace("0.0.0.0", "127.0.0.1"), &token))
}

fn secret(cx: &mut Context) -> Result<Option<Secret>, Failure> {
    let place = place(cx, None)?;
    Ok(match proof(cx, None, &place)? {
        Proof::Given(secret) => Some(secret),
        Proof::Missing => None,
    })
}

fn no_token() -> Failure {
    Failure::new("The gateway has no token yet").hint("`moltbot gateway` makes one at its start")
}

/// Finds the gateway of this state directory, if it runs.
fn running(cx: &Context) -> Result<Option<Running>, Failure> {
    let path = cx.paths().state_dir().join(RUN_FILE);
    let Ok(mut file) = File::open(&path) else { return Ok(None) };
    // A lock that can be had is held by nobody: the file was left behind.
    if file.try_lock_shared().is_ok() {
        return Ok(None);
    }
    let mut text = String::new();
    let shown = cx.shown(&path);
    file.read_to_string(&mut text)
        .map_err(|error| Failure::new(format!("cannot read {shown}: {error}")))?;
    // Empty for the moment between taking the file and listening.
    Ok(serde_json::from_str(&text).ok())
}

fn signal(running: &Running, signal: Signal) -> Result<(), Failure> {
    let pid = Pid::from_raw(running.pid)
        .ok_or_else(|| Failure::new("the gateway's file names no process"))?;
    kill_process(pid, signal).map_err(|error| {
        Failure::new(format!("cannot signal the gateway (process {}): {error}", running.pid))
    })
}

/// Lets a running gateway read its config, and waits until it knows the new token.
fn taken_over(running: &Running, token: &Secret) -> Result<(), Failure> {
    signal(running, Signal::HUP)?;
    let Some(url) = running.urls.first() else { return Ok(()) };
    let until = Instant::now() + ANSWER;
    while !matches!(asks(url, "/readyz", Some(token)), Some(200 | 503)) {
        if Instant::now() > until {
            return Err(Failure::new("the running gateway did not take over the new token")
                .hint("it may have been given one on its command line; restart it"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Asks the gateway for something and returns the status of its answer.
fn asks(url: &str, path: &str, token: Option<&Secret>) -> Option<u16> {
    let host = url.strip_prefix("http://")?.replace("0.0.0.0", "127.0.0.1");
    let mut stream = TcpStream::connect(&host).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    let token = token.map_or("", |token| token.expose());
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
         connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut reply = String::new();
    stream.take(4_096).read_to_string(&mut reply).ok()?;
    reply.split(' ').nth(1)?.parse().ok()
}
