//! The sockets a gateway listens on: its own, or those it was given by whoever started it (systemd
//! socket activation: the sockets outlive the program, so that another one can take over).

use std::net::{IpAddr, SocketAddr, TcpListener};

use listenfd::ListenFd;

use super::place::Place;
use crate::Failure;

/// Connections that wait while nobody accepts; the system may allow fewer. The usual 128 overflow
/// when many clients come back at once, and what does not fit waits seconds for its next try.
const WAITING: i32 = 4_096;

/// Takes the addresses; the first must be had. Never another one instead (spec G-4).
pub(super) fn listen(place: &Place) -> Result<Vec<TcpListener>, Failure> {
    let mut out = Vec::new();
    for address in &place.addresses {
        match TcpListener::bind((*address, place.port)) {
            Ok(listener) => {
                deepen(&listener);
                out.push(listener);
            }
            Err(error) if out.is_empty() => {
                let at = SocketAddr::new(*address, place.port);
                return Err(match error.kind() {
                    std::io::ErrorKind::AddrInUse => {
                        Failure::new(format!("{at} is in use by another program"))
                            .hint("`moltbot gateway status` tells whether it is a gateway; --port takes another")
                    }
                    _ => Failure::new(format!("cannot listen on {at}: {error}")),
                });
            }
            // IPv6 may not be there; the address that must be had is.
            Err(_) => debug_assert!(matches!(address, IpAddr::V6(_))),
        }
    }
    Ok(out)
}

/// Takes the sockets that the starting program handed over (`LISTEN_FDS`); mostly none.
pub(super) fn passed() -> Result<Vec<TcpListener>, Failure> {
    let mut given = ListenFd::from_env();
    let mut out = Vec::with_capacity(given.len());
    for number in 0..given.len() {
        match given.take_tcp_listener(number) {
            Ok(Some(listener)) => out.push(listener),
            Ok(None) => {}
            Err(error) => {
                let text = format!("socket {number} of LISTEN_FDS is no TCP listener: {error}");
                return Err(Failure::new(text)
                    .hint("ListenStream= in the .socket unit must be an address and a port"));
            }
        }
    }
    Ok(out)
}

/// Lets more connections wait than the system's library asks for.
fn deepen(listener: &TcpListener) {
    // It listens already; a shorter queue is no reason not to serve.
    let _ = rustix::net::listen(listener, WAITING);
}
