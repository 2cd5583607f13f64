//! The load of `bench gateway`: `wrk`, and what it says.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::servers::TOKEN;

/// What one run of `wrk` found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    pub(crate) rps: f64,
    /// Milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) requests: f64,
    /// Replies that were no 2xx, and connections that broke or timed out.
    pub(crate) bad: f64,
}

/// Writes a body of about `size` bytes and the script that posts it; returns the script.
pub(crate) fn script(dir: &Path, size: usize) -> Result<PathBuf> {
    let frame = |text: &str| {
        format!(
            "{{\"model\":\"claude-opus-4-5\",\"max_tokens\":64,\"stream\":true,\"system\":[{{\
             \"type\":\"text\",\"text\":\"You are terse.\",\"cache_control\":{{\"type\":\
             \"ephemeral\"}}}}],\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}"
        )
    };
    let fill = "All work and no play makes a long prompt, \\\"quoted\\\" here and there.\\n";
    let room = size.saturating_sub(frame("").len());
    let mut text = fill.repeat(room / fill.len());
    text.push_str(&"x".repeat(room - text.len()));
    let body = dir.join(format!("body-{size}.json"));
    std::fs::write(&body, frame(&text))?;
    let path = dir.join(format!("post-{size}.lua"));
    let lua = format!(
        "local file = io.open(\"{}\", \"rb\")\nwrk.method = \"POST\"\nwrk.body = \
         file:read(\"*a\")\nfile:close()\nwrk.headers[\"x-api-key\"] = \"{TOKEN}\"\n\
         wrk.headers[\"content-type\"] = \"application/json\"\n\
         wrk.headers[\"anthropic-version\"] = \"2023-06-01\"\n\
         wrk.headers[\"user-agent\"] = \"bench/1\"\n",
        body.display()
    );
    std::fs::write(&path, lua)?;
    Ok(path)
}

/// Loads one address for some seconds over some connections.
pub(crate) fn run(
    addr: SocketAddr,
    sse: bool,
    script: &Path,
    connections: usize,
    seconds: u32,
) -> Result<Load> {
    let query = if sse { "?beta=sse" } else { "" };
    let output = Command::new("wrk")
        .args(["--threads", "1", "--latency", "--timeout", "5s"])
        .args(["--connections", &connections.to_string()])
        .args(["--duration", &format!("{seconds}s")])
        .arg("--script")
        .arg(script)
        .arg(format!("http://{addr}/v1/messages{query}"))
        .output()
        .context("wrk")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "wrk: {text}{}", String::from_utf8_lossy(&output.stderr));
    read(&text).with_context(|| format!("odd words of wrk:\n{text}"))
}

fn read(text: &str) -> Option<Load> {
    let after = |mark: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(mark))?;
        Some(line.trim_start()[mark.len()..].trim().to_string())
    };
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in "))?.0;
    let broken = after("Socket errors:").map_or(0.0, |line| {
        line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<f64>().ok()).sum()
    });
    let refused = after("Non-2xx or 3xx responses:").and_then(|n| n.parse().ok()).unwrap_or(0.0);
    Some(Load {
        rps: after("Requests/sec:")?.parse().ok()?,
        p50: milliseconds(&after("50%")?)?,
        p99: milliseconds(&after("99%")?)?,
        requests: requests.parse().ok()?,
        bad: broken + refused,
    })
}

fn milliseconds(text: &str) -> Option<f64> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..at].parse().ok()?;
    Some(match &text[at..] {
        "us" => number / 1e3,
        "ms" => number,
        "s" => number * 1e3,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_read() {
        let load = read(
            "Running 1s test @ http://127.0.0.1:1/\n  Latency Distribution\n     50%  412.00us\n     \
             75%    0.90ms\n     90%    1.00ms\n     99%    1.20s \n  31337 requests in 1.10s, 6.00MB \
             read\n  Socket errors: connect 0, read 1, write 0, timeout 2\n  Non-2xx or 3xx responses: 4\nRequests/sec:  \
             28488.18\nTransfer/sec:      5.45MB\n",
        )
        .unwrap();
        assert_eq!((load.rps, load.p50, load.p99), (28488.18, 0.412, 1200.0));
        assert_eq!((load.requests, load.bad), (31337.0, 7.0));
    }
}
