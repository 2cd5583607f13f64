//! A small identity server on loopback: hands out one code and the token for it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// Starts it and returns its address. It ends with the test.
pub(super) fn start() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream);
        }
    });
    address
}

fn answer(mut stream: TcpStream) {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    // The form is short and comes with the head or right after it.
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        request.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&request);
        if text.contains("client=moltbot") || text.contains("device_code=") {
            break;
        }
    }
    let text = String::from_utf8_lossy(&request);
    let (status, body) = if text.starts_with("POST /device ") && text.contains("client=moltbot") {
        ("200 OK", super::DEVICE)
    } else if text.starts_with("POST /token ") && text.contains("device_code=FAKE-device-code-0001")
    {
        ("200 OK", super::TOKEN)
    } else {
        ("400 Bad Request", r#"{"error":"invalid_request"}"#)
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: \
         close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}
