//! Starting and stopping: on a runtime, on a thread, by `run`; connections kept and dropped.

#![allow(clippy::unwrap_used)] // Helpers here are tests too.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use common::{hello, message};
use moltbot_lab::{Lab, LabOptions, RunError, RunOptions, run};
use tokio::sync::oneshot;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_dropped_lab_closes_its_port_and_its_connections() {
    let lab = Lab::start_on_thread(LabOptions::default()).unwrap();
    let mut idle = TcpStream::connect(lab.addr()).unwrap();
    write!(idle, "HEAD / HTTP/1.1\r\nhost: lab\r\n\r\n").unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let addr = lab.addr();
    drop(lab);
    let mut rest = Vec::new();
    // FIN or RST, but an end.
    let _ = idle.read_to_end(&mut rest);
    assert!(TcpStream::connect(addr).is_err());
}

#[test]
fn one_connection_serves_many_requests() {
    let lab = Lab::start_on_thread(LabOptions::default()).unwrap();
    let mut connection = TcpStream::connect(lab.addr()).unwrap();
    for _ in 0..3 {
        write!(connection, "GET /none HTTP/1.1\r\nhost: lab\r\n\r\n").unwrap();
        let mut reply = Vec::new();
        while !reply.ends_with(b"\"}") {
            let mut buffer = [0; 4096];
            let count = connection.read(&mut buffer).unwrap();
            assert!(count > 0, "the connection was closed");
            reply.extend_from_slice(&buffer[..count]);
        }
        assert!(reply.starts_with(b"HTTP/1.1 404"));
    }
    let numbers: Vec<_> = lab.log().iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn logging_can_be_switched_off() {
    let options = LabOptions { log: false, ..LabOptions::default() };
    let lab = Lab::start_on_thread(options).unwrap();
    assert_eq!(message(&lab, &hello()).status, 200);
    assert!(lab.log().is_empty());
}

#[test]
fn it_starts_on_a_running_runtime() {
    let runtime = runtime();
    let lab = runtime.block_on(Lab::start(LabOptions::default())).unwrap();
    assert_eq!(lab.url(), format!("http://{}", lab.addr()));
    assert!(lab.addr().ip().is_loopback());
    let busy = LabOptions { port: lab.addr().port(), ..LabOptions::default() };
    assert!(runtime.block_on(Lab::start(busy.clone())).is_err());
    assert!(Lab::start_on_thread(busy).is_err());
}

#[test]
fn run_serves_until_it_is_told_to_stop() {
    let (ready, wait) = std::sync::mpsc::channel::<SocketAddr>();
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let stop = async { drop(stopped.await) };
        runtime().block_on(run(RunOptions::default(), |addr| ready.send(addr).unwrap(), stop))
    });
    let addr = wait.recv().unwrap();
    assert!(TcpStream::connect(addr).is_ok());
    stop.send(()).unwrap();
    assert!(thread.join().unwrap().is_ok());
    assert!(TcpStream::connect(addr).is_err());
}

#[test]
fn run_says_what_is_wrong_with_its_plan() {
    let directory = std::env::temp_dir().join(format!("lab-plan-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("plan.json5");
    std::fs::write(&file, "{rules: [{fault: {error: 'nope'}}]}").unwrap();
    let ask = |plan: &std::path::Path| {
        let options = RunOptions { port: 0, plan: Some(plan.to_owned()) };
        let never = std::future::pending();
        runtime().block_on(run(options, |_| panic!("it started"), never)).unwrap_err()
    };
    let wrong = ask(&file);
    assert!(
        matches!(&wrong, RunError::Plan(error) if error.path == "rules[0].fault.error"),
        "{wrong}"
    );
    assert!(wrong.to_string().starts_with(&format!("{}:1:", file.display())), "{wrong}");
    let missing = ask(&directory.join("none.json5")).to_string();
    assert!(missing.starts_with("cannot read the plan"), "{missing}");
    std::fs::remove_dir_all(&directory).unwrap();
}
