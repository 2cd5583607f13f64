//! A client of a few lines for the lab's tests: one request per connection, bytes as they came.

// Each test file uses its own part of this module.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use moltbot_lab::{Lab, LabOptions, parse_plan};
use serde_json::{Value, json};

/// An API key, a second one, and a subscription token; all obviously fake.
pub const KEY: &str = "sk-ant-api03-FAKEFAKEFAKEFAKE-one";
pub const KEY_TWO: &str = "sk-ant-api03-FAKEFAKEFAKEFAKE-two";
pub const TOKEN: &str = "sk-ant-oat01-FAKEFAKEFAKEFAKE-sub";

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By FIN.
    Closed,
    /// By RST.
    Reset,
    /// It was still open when the client's patience ended.
    Open,
}

/// A reply, decoded as far as it came.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body came to its declared end.
    pub whole: bool,
    pub end: End,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    pub fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap().to_owned()
    }

    /// The data of every event, in order.
    pub fn events(&self) -> Vec<Value> {
        let text = self.text();
        let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
        lines.map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

pub fn lab(plan: &str) -> Lab {
    let plan = parse_plan(plan, "test").unwrap();
    Lab::start_on_thread(LabOptions { plan, ..LabOptions::default() }).unwrap()
}

/// A small valid request.
pub fn hello() -> Value {
    json!({
        "model": "claude-opus-4-5",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "hello there"}],
    })
}

/// Sends a message with a key and the usual headers.
pub fn message(lab: &Lab, body: &Value) -> Reply {
    message_as(lab, KEY, body)
}

pub fn message_as(lab: &Lab, key: &str, body: &Value) -> Reply {
    post(lab, "/v1/messages", &[("x-api-key", key)], body)
}

/// Posts JSON with the version header.
pub fn post(lab: &Lab, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
    let mut all = vec![("content-type", "application/json"), ("anthropic-version", "2023-06-01")];
    all.extend_from_slice(headers);
    exchange(lab, "POST", path, &all, body.to_string().as_bytes())
}

pub fn exchange(
    lab: &Lab,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let mut connection = open(lab, method, path, headers, body);
    read(&mut connection)
}

/// Sends a request and returns the connection.
pub fn open(
    lab: &Lab,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> TcpStream {
    let mut connection = TcpStream::connect(lab.addr()).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: lab\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(body).unwrap();
    connection
}

/// Reads to the end of the connection, or for half a second without a byte.
pub fn read(connection: &mut TcpStream) -> Reply {
    connection.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let (mut raw, mut buffer) = (Vec::new(), [0; 65536]);
    let end = loop {
        match connection.read(&mut buffer) {
            Ok(0) => break End::Closed,
            Ok(count) => raw.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break End::Reset,
            Err(_) => break End::Open,
        }
    };
    parse(&raw, end)
}

fn parse(raw: &[u8], end: End) -> Reply {
    let Some(split) = raw.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Reply { status: 0, headers: Vec::new(), body: Vec::new(), whole: false, end };
    };
    let head = std::str::from_utf8(&raw[..split]).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let find = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, v)| v);
    let rest = &raw[split + 4..];
    let (body, whole) = match find("content-length") {
        Some(length) => (rest.to_vec(), rest.len() == length.parse::<usize>().unwrap()),
        None => unchunk(rest),
    };
    Reply { status, headers, body, whole, end }
}

fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&rest[..line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        rest = &rest[line + 2..];
        if size == 0 {
            return (body, true);
        }
        let have = size.min(rest.len());
        body.extend_from_slice(&rest[..have]);
        rest = &rest[(size + 2).min(rest.len())..];
    }
    (body, false)
}
