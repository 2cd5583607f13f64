//! How much of a client a door takes: the length of a body and of a head, connections at once
//! (spec 06, "Operation").

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use moltbot_gateway::{Gateway, Tuning};

use crate::patience::{OWNER, limits, tuned};
use crate::stage::Stage;

/// A gateway whose service nobody is.
fn gateway(tuning: Tuning) -> (Stage, Gateway) {
    let nobody: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    tuned(nobody, limits(60_000, 60_000, 60_000), tuning)
}

fn connect(gateway: &Gateway) -> TcpStream {
    let stream = TcpStream::connect(gateway.addresses()[0]).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Sends a head and what follows it, and reads until the gateway has had enough.
fn ask(gateway: &Gateway, lines: &str, body: &[u8]) -> String {
    let addr = gateway.addresses()[0];
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: {addr}\r\nx-api-key: {OWNER}\r\n\
         content-type: application/json\r\n{lines}\r\n"
    );
    let mut stream = connect(gateway);
    let mut sender = stream.try_clone().unwrap();
    let all = [head.as_bytes(), body].concat();
    // The gateway may answer, and close, before it has read all.
    let sending = std::thread::spawn(move || drop(sender.write_all(&all)));
    let mut answer = Vec::new();
    let mut piece = [0; 4_096];
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        answer.extend_from_slice(&piece[..count]);
        if answer.ends_with(b"}") {
            break;
        }
    }
    drop(stream);
    sending.join().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_body_may_have_32_mib_and_no_more() {
    assert_eq!(Tuning::default().max_body, 32 << 20);
    let most = 2 << 20;
    let (_stage, gateway) = gateway(Tuning { max_body: most, ..Tuning::default() });
    let padded = |length: usize| {
        let mut body = br#"{"model":"claude-opus-4-5","messages":[]}"#.to_vec();
        body.resize(length, b' ');
        body
    };
    let fits = padded(most);
    let answer = ask(&gateway, &format!("content-length: {most}\r\n"), &fits);
    assert!(answer.starts_with("HTTP/1.1 502"), "it is sent on: {answer}");
    let announced = ask(&gateway, &format!("content-length: {}\r\n", most + 1), b"");
    let mut chunked = format!("{:x}\r\n", most + 1).into_bytes();
    chunked.extend(padded(most + 1));
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    let counted = ask(&gateway, "transfer-encoding: chunked\r\n", &chunked);
    for answer in [announced, counted] {
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert!(answer.contains("request_too_large"), "{answer}");
        assert!(answer.contains("the body is longer than 2 MiB"), "{answer}");
    }
}

#[test]
fn a_head_that_never_ends_is_refused() {
    let (_stage, gateway) = gateway(Tuning::default());
    let many: String = (0..200).map(|number| format!("x-{number}: y\r\n")).collect();
    let long = format!("x-long: {}\r\n", "y".repeat(4 << 20));
    for lines in [many, long] {
        let answer = ask(&gateway, &lines, b"");
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}

/// What is too many is closed at once, and whoever leaves makes room.
#[test]
fn connections_have_a_number() {
    let (_stage, gateway) = gateway(Tuning { connections: 5, ..Tuning::default() });
    let healthy = || -> Option<TcpStream> {
        let mut stream = connect(&gateway);
        let addr = gateway.addresses()[0];
        write!(stream, "GET /healthz HTTP/1.1\r\nhost: {addr}\r\n\r\n").ok()?;
        let mut answer = [0; 64];
        let count = stream.read(&mut answer).ok()?;
        answer[..count].starts_with(b"HTTP/1.1 200").then_some(stream)
    };
    let held: Vec<TcpStream> = (0..10).filter_map(|_| healthy()).collect();
    assert!((1..=5).contains(&held.len()), "{} of 10", held.len());
    assert!(healthy().is_none());
    drop(held);
    let until = Instant::now() + Duration::from_secs(60);
    while healthy().is_none() {
        assert!(Instant::now() < until, "nobody gets in any more");
        std::thread::sleep(Duration::from_millis(20));
    }
}
