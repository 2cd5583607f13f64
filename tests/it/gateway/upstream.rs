//! A service that answers by script and remembers every byte it was sent.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A running scripted service.
pub(super) struct Upstream {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    /// Starts one; `serve` gets each request and its connection.
    pub(super) fn start(serve: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, serve) = (seen.clone(), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, serve) = (kept.clone(), serve.clone());
                std::thread::spawn(move || connection(stream, &kept, &*serve));
            }
        });
        Self { url, seen }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the requests so far, heads and bodies as they came.
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("not poisoned").clone()
    }
}

fn connection(
    mut stream: TcpStream,
    seen: &Mutex<Vec<String>>,
    serve: &(dyn Fn(&str, &mut TcpStream) + Send + Sync),
) {
    let _ = stream.set_nodelay(true);
    let mut bytes = Vec::new();
    let mut buffer = [0; 65_536];
    loop {
        while let Some(end) = whole(&bytes) {
            let request = String::from_utf8_lossy(&bytes[..end]).into_owned();
            bytes.drain(..end);
            seen.lock().expect("not poisoned").push(request.clone());
            serve(&request, &mut stream);
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Returns where the first request ends, if all of it is there.
fn whole(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(0, |length| length.trim().parse().expect("a length"));
    (bytes.len() >= head + length).then_some(head + length)
}

/// Writes a reply with a length.
pub(super) fn reply(stream: &mut TcpStream, status: &str, headers: &str, body: &str) {
    let text = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    // The gateway may be gone: then the test says so.
    let _ = stream.write_all(text.as_bytes());
}
