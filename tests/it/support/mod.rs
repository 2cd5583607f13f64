//! What every test needs: the binary, a sandbox to run it in, a terminal, a lab.

mod lab;
mod pty;
mod sandbox;

pub(crate) use lab::{lab, messages, used};
pub(crate) use pty::{Terminal, until};
pub(crate) use sandbox::{Done, Sandbox, binary};

/// A well-formed, obviously fake API key.
pub(crate) const KEY: &str = "sk-ant-api03-FAKEkeyFAKEkeyFAKEkeyFAKE001";

/// A second one.
pub(crate) const KEY2: &str = "sk-ant-api03-FAKEkeyFAKEkeyFAKEkeyFAKE002";

/// A well-formed, obviously fake setup-token of 108 characters. Its letters are rare in output.
pub(crate) fn token() -> String {
    format!("sk-ant-oat01-{}", "QZXJ7".repeat(19))
}

/// Reads the clock, in milliseconds since 1970, as stores write times.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_millis() as i64
}
