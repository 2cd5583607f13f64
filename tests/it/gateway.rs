//! The gateway from outside: real sockets, real signals, the lab or a scripted service behind it
//! (spec cases 72 to 75, spec 08).

mod claude;
mod clients;
mod crowd;
mod doors;
mod openai;
mod owner;
mod passing;
mod records;
mod responses;
mod safety;
mod strain;
mod upstream;
mod vanished;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{KEY, KEY2, Sandbox, until};

/// The owner's token in these tests.
const TOKEN: &str = "mbg_FAKEgatewayTOKENfakeGATEWAYtoken";

/// What the owner sends with a message.
const OWNER: [(&str, &str); 3] = [
    ("x-api-key", TOKEN),
    ("anthropic-version", "2023-06-01"),
    ("content-type", "application/json"),
];

/// A running gateway, ended with its test.
pub(crate) struct Gate {
    child: Child,
    addr: String,
    /// A gateway whose home is deleted writes what it knows into a new one.
    home: Option<std::sync::Arc<tempfile::TempDir>>,
}

/// An answer, read to the end of its connection or of its length.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.head, self.text()))
    }
}

impl Gate {
    /// Starts a gateway on a free port and waits until it serves.
    pub(crate) fn start(sandbox: &Sandbox) -> Self {
        Self::begin(sandbox, &[], Stdio::null())
    }

    /// The same with flags, and its log in a file.
    fn logged(sandbox: &Sandbox, log: &std::path::Path, flags: &[&str]) -> Self {
        Self::begin(sandbox, flags, std::fs::File::create(log).expect("a file").into())
    }

    fn begin(sandbox: &Sandbox, flags: &[&str], log: Stdio) -> Self {
        let child = sandbox
            .command(&[&["gateway", "--port", "0"], flags].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the gateway starts");
        let mut gate = Self::serving(child);
        gate.home = Some(sandbox.keep());
        gate
    }

    /// Waits until a gateway that was started says where it is.
    fn serving(mut child: Child) -> Self {
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = lines
            .find_map(|line| line.ok()?.strip_prefix("gateway: http://").map(ToString::to_string));
        Self { child, addr: line.expect("the gateway says where it is"), home: None }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.addr).expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        stream
    }

    /// Sends bytes as they are and reads until the gateway closes or falls silent.
    fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        stream.set_read_timeout(Some(Duration::from_millis(1_500))).expect("a socket");
        // The gateway may have answered and closed before all of it was written.
        let _ = stream.write_all(request);
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        String::from_utf8_lossy(&reply).into_owned()
    }

    /// Sends one request on a connection of its own, which stays open for what comes back.
    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("host: {}\r\n", self.addr);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() || method == "POST" {
            head += &format!("content-length: {}\r\n", body.len());
        }
        head += "\r\n";
        let mut stream = self.connect();
        stream.write_all(head.as_bytes()).expect("the head is sent");
        // A refusal may come before the body was read.
        let _ = stream.write_all(body);
        stream
    }

    /// Begins to post a message with the owner's token.
    fn begin_post(&self, body: &Value) -> TcpStream {
        self.send("POST", "/v1/messages", &OWNER, body.to_string().as_bytes())
    }

    /// Sends one request and reads all that comes back.
    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let headers = [headers, &[("connection", "close")]].concat();
        let mut stream = self.send(method, path, &headers, body);
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        parse(&reply)
    }

    /// Posts JSON with the owner's token.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, &OWNER, body.to_string().as_bytes())
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[("x-api-key", TOKEN), ("anthropic-version", "2023-06-01")], b"")
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the gateway runs");
    }

    /// Waits for its end and returns its exit code; `None` after a signal.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("the gateway was started here").code()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes a reply apart; chunked ones are put together.
fn parse(reply: &[u8]) -> Answer {
    let end = reply.windows(4).position(|four| four == b"\r\n\r\n");
    let Some(end) = end else {
        panic!("no reply: {:?}", String::from_utf8_lossy(reply));
    };
    let head = String::from_utf8_lossy(&reply[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
    let mut answer = Answer { status, head, body: reply[end + 4..].to_vec() };
    if answer.header("transfer-encoding").is_some() {
        answer.body = unchunk(&answer.body);
    }
    answer
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = String::from_utf8_lossy(&rest[..end]);
        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk size");
        if size == 0 {
            break;
        }
        out.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
    out
}

/// A config whose service is at `url`.
fn config(url: &str, more: Value) -> Value {
    let mut gateway = json!({ "mode": "local", "auth": { "token": TOKEN } });
    if let (Value::Object(gateway), Value::Object(more)) = (&mut gateway, more) {
        gateway.extend(more);
    }
    json!({ "gateway": gateway,
        "models": { "providers": { "anthropic": { "baseUrl": url, "models": [] } } } })
}

/// A home with one key and a service at `url`.
fn one_key(url: &str, more: Value) -> Sandbox {
    let sandbox = Sandbox::new().env("ANTHROPIC_API_KEY", KEY);
    sandbox.write_config(&config(url, more).to_string());
    sandbox
}

/// A home with two keys in a fixed order and a service at `url`.
fn two_keys(url: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write_config(&config(url, json!({})).to_string());
    let key = |key: &str| json!({ "type": "api_key", "provider": "anthropic", "key": key });
    sandbox.write_store(&json!({ "version": 1,
        "profiles": { "anthropic:one": key(KEY), "anthropic:two": key(KEY2) },
        "order": { "anthropic": ["anthropic:one", "anthropic:two"] } }));
    sandbox
}

fn hello() -> Value {
    json!({ "model": "claude-opus-4-5", "max_tokens": 50,
        "messages": [{ "role": "user", "content": "hi" }] })
}

fn hello_streamed() -> Value {
    let mut body = hello();
    body["stream"] = true.into();
    body
}
