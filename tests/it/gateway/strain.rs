//! What a gateway bears: slow clients, monstrous replies, limits of a token, a config that is wrong,
//! and another program that takes over its socket.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde_json::json;

use super::upstream::{Upstream, reply};
use super::{Gate, TOKEN, hello, hello_streamed, one_key, until};
use crate::support::Sandbox;

/// Slow senders, where the system allows so many sockets.
const SLOW: u64 = 2_000;

const OK: &str = r#"{"id":"msg_1","type":"message","role":"assistant","content":[],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#;

/// Clients that send a byte at a time take nothing away from one that does not.
#[test]
fn two_thousand_slow_senders_disturb_nobody() {
    let files = getrlimit(Resource::Nofile);
    // Limits that cannot be raised are the machine's: then there are fewer.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
    let room = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = SLOW.min(room.saturating_sub(500));
    if count < SLOW {
        eprintln!("SCALED DOWN: {count} slow senders, because {room} files may be open");
    }
    let upstream = Upstream::start(|_, stream| reply(stream, "200 OK", "", OK));
    let gate = Gate::start(&one_key(upstream.url(), json!({})));
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: {}\r\nx-api-key: {TOKEN}\r\ncontent-type: \
         application/json\r\ncontent-length: 100000\r\n\r\n",
        gate.addr
    );
    // Half of them dawdle within the head, half within the body.
    let mut slow: Vec<TcpStream> = (0..count)
        .map(|number| {
            let mut stream = TcpStream::connect(&gate.addr).expect("a connection");
            let begun = if number % 2 == 0 { &head[..40] } else { head.as_str() };
            stream.write_all(begun.as_bytes()).expect("the gateway reads");
            stream
        })
        .collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for stream in &mut slow {
                    // The gateway may have had enough of this one: that is its right.
                    let _ = stream.write_all(b" ");
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        let mut took = Vec::new();
        for _ in 0..100 {
            let begun = Instant::now();
            let answer = gate.post("/v1/messages", &hello());
            took.push(begun.elapsed());
            if answer.status != 200 {
                over.store(true, Ordering::Relaxed);
                panic!("{}: {}", answer.head, answer.text());
            }
        }
        over.store(true, Ordering::Relaxed);
        took.sort();
        eprintln!("beside {count} slow senders: p50 {:?}, p99 {:?}", took[50], took[98]);
        // How fast it is depends on the machine; a hang does not.
        assert!(took[98] < Duration::from_secs(60), "{took:?}");
    });
}

/// A reply that would fill the memory passes as the bytes it is.
#[test]
fn monstrous_replies_pass_or_are_refused() {
    let bomb = bomb(100 << 20);
    let (nested, deep) = (nested(), nested());
    let sent = bomb.clone();
    let upstream = Upstream::start(move |request, stream| {
        let path = request.lines().next().unwrap_or_default();
        // A client that has seen enough may hang up: then writing fails, and that is all.
        let _ = match () {
            () if path.contains("beta=gzip") => {
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\n\
                     content-length: {}\r\n\r\n",
                    sent.len()
                );
                stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&sent))
            }
            () if path.contains("beta=line") => line(stream),
            () if path.contains("beta=error") => {
                reply(stream, "400 Bad Request", "", &nested);
                Ok(())
            }
            () => {
                reply(stream, "200 OK", "", &nested);
                Ok(())
            }
        };
    });
    let gate = Gate::start(&one_key(upstream.url(), json!({})));
    let answer = gate.post("/v1/messages?beta=gzip", &hello());
    assert_eq!((answer.status, answer.body.len()), (200, bomb.len()));
    assert!(answer.body == bomb, "the compressed bytes changed");
    for (query, status) in [("?beta=nested", 200), ("?beta=error", 400)] {
        let answer = gate.post(&format!("/v1/messages{query}"), &hello());
        assert_eq!((answer.status, answer.text()), (status, deep.clone()));
    }
    let mut stream = gate.connect();
    let body = hello_streamed().to_string();
    write!(
        stream,
        "POST /v1/messages?beta=line HTTP/1.1\r\nhost: {}\r\nx-api-key: {TOKEN}\r\ncontent-type: \
         application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        gate.addr,
        body.len()
    )
    .unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut letters = 0;
    loop {
        match stream.read(&mut buffer).expect("the stream goes on") {
            0 => break,
            read => letters += buffer[..read].iter().filter(|byte| **byte == b'~').count(),
        }
    }
    assert_eq!(letters, 100 << 20);
    // In requests depth is refused, because somebody behind could choke on it.
    let mut request = String::from(r#"{"messages":"#);
    request += &deep;
    request += r#","model":"claude-opus-4-5"}"#;
    let headers = [("x-api-key", TOKEN), ("content-type", "application/json")];
    let refused = gate.ask("POST", "/v1/messages", &headers, request.as_bytes());
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert_eq!(gate.post("/v1/messages?beta=nested", &hello()).status, 200);
    #[cfg(target_os = "linux")]
    {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gate.child.id())).unwrap();
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: u64 = most.split_whitespace().next().unwrap().parse().unwrap();
        assert!(kib < 200 << 10, "the gateway took {} MiB", kib >> 10);
    }
}

/// Compresses zeros into a hundredth and less (RFC 1951, fixed codes: a zero, then copies of 258).
fn bomb(zeros: usize) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let (mut held, mut count) = (0u32, 0);
    let mut bits = |value: u32, many: u32, out: &mut Vec<u8>| {
        for bit in 0..many {
            held |= (value >> bit & 1) << count;
            count += 1;
            if count == 8 {
                out.push(held as u8);
                (held, count) = (0, 0);
            }
        }
    };
    // Last block, fixed codes; the literal 0 is 00110000 from its highest bit.
    bits(0b011, 3, &mut out);
    bits(0b0000_1100, 8, &mut out);
    for _ in 0..zeros / 258 {
        // Length 258 is 11000101, distance 1 is 00000.
        bits(0b1010_0011, 8, &mut out);
        bits(0, 5, &mut out);
    }
    // The end of the block, and room for the last bits.
    bits(0, 7 + 7, &mut out);
    out.extend_from_slice(&[0; 8]);
    out
}

fn nested() -> String {
    "[".repeat(100_000) + &"]".repeat(100_000)
}

/// Sends one line of 100 MB within a stream.
fn line(stream: &mut TcpStream) -> std::io::Result<()> {
    let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{}}}\n\ndata: ";
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{start}\r\n",
        start.len()
    )?;
    let piece = "~".repeat(1 << 20);
    for _ in 0..100 {
        write!(stream, "{:x}\r\n{piece}\r\n", piece.len())?;
    }
    stream.write_all(b"2\r\n\n\n\r\n0\r\n\r\n")
}

/// A token runs as many requests at once as it may, and what is refused costs the service nothing.
#[test]
fn a_token_runs_as_much_as_it_may() {
    let upstream = Upstream::start(|request, stream| {
        if request.contains("hold") {
            let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{}}}\n\n";
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            let _ = stream.write_all(format!("{head}{:x}\r\n{start}\r\n", start.len()).as_bytes());
            // Until the client leaves.
            let _ = stream.read(&mut [0; 1]);
        } else {
            reply(stream, "200 OK", "", OK);
        }
    });
    let tokens = json!({ "tokens": { "ci": { "token": "mbg_FAKE_ci", "agent": "main",
        "limits": { "concurrency": 2 } } } });
    let gate = Gate::start(&one_key(upstream.url(), tokens));
    let ask = || {
        let headers = [("x-api-key", "mbg_FAKE_ci"), ("content-type", "application/json")];
        gate.ask("POST", "/v1/messages", &headers, hello().to_string().as_bytes())
    };
    let hold = || {
        let mut stream = gate.connect();
        let body = hello_streamed().to_string().replace("\"hi\"", "\"hold\"");
        write!(
            stream,
            "POST /v1/messages HTTP/1.1\r\nhost: {}\r\nx-api-key: mbg_FAKE_ci\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n{body}",
            gate.addr,
            body.len()
        )
        .unwrap();
        assert!(stream.read(&mut [0; 32]).unwrap() > 0);
        stream
    };
    let held = [hold(), hold()];
    let refused = ask();
    assert_eq!(refused.status, 429);
    assert!(refused.text().contains("2 requests at the same time"), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    // The owner is not concerned.
    assert_eq!(gate.post("/v1/messages", &hello()).status, 200);
    drop(held);
    until(|| ask().status == 200);
}

/// A config that is wrong changes nothing, and the log says so.
#[test]
fn a_wrong_config_keeps_the_old_one_and_says_so() {
    let upstream = Upstream::start(|_, stream| reply(stream, "200 OK", "", OK));
    let sandbox = one_key(upstream.url(), json!({}));
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let gate = Gate::logged(&sandbox, &log, &[]);
    let said = |words: &str| {
        until(|| std::fs::read_to_string(&log).unwrap_or_default().contains(words));
    };
    sandbox.write_config("{ gateway: { mode: 'local', auth: { token: 5 } } }");
    gate.signal(Signal::HUP);
    said("the config is not used, the old one stays");
    assert_eq!(gate.post("/v1/messages", &hello()).status, 200);
    sandbox.write_config(&super::config(upstream.url(), json!({})).to_string());
    gate.signal(Signal::HUP);
    said("the config was read again");
    assert_eq!(gate.post("/v1/messages", &hello()).status, 200);
}

/// The socket outlives the program: while one ends and the next one starts, nobody is refused.
#[cfg(target_os = "linux")]
#[test]
fn another_program_takes_over_without_a_refused_connection() {
    let upstream = Upstream::start(|_, stream| reply(stream, "200 OK", "", OK));
    let sandbox = one_key(upstream.url(), json!({}));
    // This test is what systemd would be: it holds the socket, and starts one after the other.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let start = || {
        let own: OwnedFd = listener.try_clone().unwrap().into();
        let plain = sandbox.command(&["gateway", "run"]);
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg("exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"");
        command.arg("sh").arg(plain.get_program()).args(plain.get_args()).env_clear();
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(plain.get_current_dir().expect("a directory"));
        let child = command.stdin(own).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        Gate::serving(child.expect("a shell"))
    };
    let mut gate = start();
    assert_eq!(gate.addr, addr);
    let over = AtomicBool::new(false);
    let answered = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let body = hello().to_string();
            let mut answered = 0;
            // At least one, whatever the machine does meanwhile.
            while answered == 0 || !over.load(Ordering::Relaxed) {
                let mut stream = TcpStream::connect(&addr).expect("nobody is refused");
                stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                write!(
                    stream,
                    "POST /v1/messages HTTP/1.1\r\nhost: {addr}\r\nx-api-key: {TOKEN}\r\n\
                     content-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                )
                .unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
                answered += 1;
            }
            answered
        });
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(100));
            gate.signal(Signal::TERM);
            assert_eq!(gate.child.wait().unwrap().code(), Some(0));
            gate = start();
        }
        std::thread::sleep(Duration::from_millis(100));
        over.store(true, Ordering::Relaxed);
        client.join().expect("every request was answered")
    });
    assert!(answered > 0);
}

/// Nobody but the system's owner reads the memory of a gateway, and no crash writes it down.
#[cfg(target_os = "linux")]
#[test]
fn its_memory_is_closed() {
    let gate = Gate::start(&one_key("http://127.0.0.1:9", json!({})));
    let of = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", gate.child.id()));
    let limits = of("limits").unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(core.split_whitespace().skip(4).take(2).all(|limit| limit == "0"), "{core}");
    match rustix::process::geteuid().is_root() {
        // The owner of the system reads everything.
        true => eprintln!("SKIPPED: root may read every process"),
        false => assert!(of("environ").is_err()),
    }
}

/// Without anybody's `LISTEN_FDS` being meant for it, a gateway takes sockets of its own.
#[test]
fn sockets_for_somebody_else_are_left_alone() {
    let upstream = Upstream::start(|_, stream| reply(stream, "200 OK", "", OK));
    let sandbox: Sandbox =
        one_key(upstream.url(), json!({})).env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    let gate = Gate::start(&sandbox);
    assert_eq!(gate.post("/v1/messages", &hello()).status, 200);
}
