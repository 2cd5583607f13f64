//! How long a door waits for a service and for a client: each wait has an end and an error of its
//! own (spec 06, "Streams").

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use moltbot_core::Secret;
use moltbot_gateway::*;
use serde_json::json;

use crate::stage::{ONE, Stage};

pub(crate) const OWNER: &str = "mbg_FAKE_owner";

/// Short waits, so that the test is; what is asserted is which of them ended.
const SHORT: u64 = 300;
const LONG: u64 = 60_000;

/// Starts a gateway whose service is at `service`.
fn gateway(service: SocketAddr, limits: Limits, body_idle_ms: u64) -> (Stage, Gateway) {
    tuned(service, limits, Tuning { body_idle_ms, ..Tuning::default() })
}

/// The same with one worker and limits of its own.
pub(crate) fn tuned(service: SocketAddr, limits: Limits, tuning: Tuning) -> (Stage, Gateway) {
    let url = format!("http://{service}");
    let mut stage = Stage::new("[]").key("anthropic:one", ONE).config(json!({
        "models": { "providers": { "anthropic": { "baseUrl": url, "models": [] } } } }));
    stage.limits = limits;
    stage.at_lab = false;
    let settings = Settings {
        access: vec![Access::owner(Secret::new(OWNER))],
        default_agent: "main".into(),
        allow_subscription: false,
        passthrough_login: false,
        model_fallback: false,
        chat_completions: true,
        responses: None,
        trusted_proxies: Vec::new(),
        hosts: Vec::new(),
        max_wait_ms: 0,
        allow_paid_fallback: true,
    };
    let tuning = Tuning { workers: 1, ..tuning };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway =
        Gateway::start(vec![listener], settings, vec![stage.engine()], tuning, None).unwrap();
    (stage, gateway)
}

pub(crate) fn limits(connect_ms: u64, first_byte_ms: u64, idle_ms: u64) -> Limits {
    Limits { connect_ms, first_byte_ms, idle_ms }
}

/// Posts a message and reads the answer to the end of the connection. `length` may promise more
/// than is sent.
fn ask(gateway: &Gateway, length: Option<usize>) -> String {
    let addr = gateway.addresses()[0];
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let body = r#"{"model":"claude-opus-4-5","stream":true,"messages":[]}"#;
    write!(
        stream,
        "POST /v1/messages HTTP/1.1\r\nhost: {addr}\r\nx-api-key: {OWNER}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        length.unwrap_or(body.len())
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A service that answers every connection with `head` and then stays silent.
fn silent(head: &str) -> SocketAddr {
    let head = head.to_string();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().flatten() {
            // An answer before the question would be another fault. The other side may be gone: that
            // is what the test is about.
            if !head.is_empty() {
                let _ = stream.read(&mut [0; 1]);
            }
            let _ = stream.write_all(head.as_bytes());
            held.push(stream);
        }
    });
    addr
}

#[test]
fn a_service_that_does_not_answer() {
    let (_stage, gateway) = gateway(silent(""), limits(LONG, SHORT, LONG), LONG);
    let answer = ask(&gateway, None);
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    assert!(answer.contains("timeout_error"), "{answer}");
    assert!(answer.contains("the service did not answer within 1 s"), "{answer}");
}

#[test]
fn a_stream_that_falls_silent() {
    let event =
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{}}}\n\n";
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
         {:x}\r\n{event}\r\n",
        event.len()
    );
    let (_stage, gateway) = gateway(silent(&head), limits(LONG, LONG, SHORT), LONG);
    let answer = ask(&gateway, None);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("event: error"), "{answer}");
    assert!(answer.contains("timeout_error"), "{answer}");
    assert!(answer.contains("the service sent nothing more for 1 s"), "{answer}");
}

/// A listener whose queue is full lets nobody in and refuses nobody.
#[cfg(target_os = "linux")]
#[test]
fn a_service_that_lets_nobody_in() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(500)) {
        held.push(stream);
        if held.len() > 5_000 {
            eprintln!("SKIPPED: this system's queue of connections has no end");
            return;
        }
    }
    let (_stage, gateway) = gateway(addr, limits(SHORT, LONG, LONG), LONG);
    let answer = ask(&gateway, None);
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    assert!(answer.contains("no connection to the service within 1 s"), "{answer}");
}

#[test]
fn a_service_that_is_not_there() {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (_stage, gateway) = gateway(addr, limits(LONG, LONG, LONG), LONG);
    let answer = ask(&gateway, None);
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(answer.contains("no connection to the service"), "{answer}");
}

#[test]
fn a_client_that_pauses_too_long() {
    let (_stage, gateway) = gateway(silent(""), limits(LONG, LONG, LONG), SHORT);
    let answer = ask(&gateway, Some(1_000));
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("the body of the request did not arrive in time"), "{answer}");
}
