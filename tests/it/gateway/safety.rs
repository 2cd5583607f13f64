//! Who gets in, and who does not even get an address to knock at.

use std::net::TcpListener;

use serde_json::json;

use super::upstream::{Upstream, reply};
use super::{Gate, TOKEN, hello, one_key};
use crate::support::{Sandbox, lab};

fn local() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write_config("{ gateway: { mode: 'local' } }");
    sandbox
}

/// Spec cases 72 and 73.
#[test]
fn a_start_that_would_be_wrong_is_refused() {
    let refused = |sandbox: &Sandbox, args: &[&str], words: &str| {
        let all = [&["gateway"], args].concat();
        sandbox.run(&all).exits(1).says(words);
    };
    refused(&local(), &["--bind", "lan"], "Error: Refusing to bind gateway to lan without auth.");
    let missing = "Error: Missing config. Run `moltbot onboard` or set gateway.mode=local (or pass --allow-unconfigured).";
    refused(&Sandbox::new(), &[], missing);
    let blocked = "Error: Gateway start blocked: set gateway.mode=local (current: unset) or pass --allow-unconfigured.";
    let sandbox = Sandbox::new();
    sandbox.write_config("{ gateway: { bind: 'loopback' } }");
    refused(&sandbox, &[], blocked);
    sandbox.write_config("{ gateway: { mode: 'remote' } }");
    refused(&sandbox, &[], "(current: remote)");
    refused(&local(), &["--port", "70000"], "Error: Invalid port");
    refused(&local(), &["--auth", "password"], "no password is configured");
    refused(&local(), &["--tailscale", "funnel"], "tailscale funnel requires");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    refused(&local(), &["--port", &port], "is in use by another program");
}

/// Spec case 75, and a token that is made once.
#[test]
fn health_is_open_and_everything_else_is_not() {
    let lab = lab("[]");
    let sandbox = one_key(&lab.url(), json!({}));
    let gate = Gate::start(&sandbox);
    let health = gate.ask("GET", "/healthz", &[], b"");
    assert_eq!((health.status, health.text().as_str()), (200, "{\"ok\":true}"));
    for path in ["/", "/readyz", "/metrics", "/v1/models", "/v1/messages", "/x", "/healthz/"] {
        let answer = gate.ask("GET", path, &[], b"");
        assert_eq!(answer.status, 401, "{path}");
    }
    assert_eq!(gate.get("/readyz").status, 200);
    assert!(gate.get("/metrics").text().contains("moltbot_requests_total"));
    assert_eq!(gate.get("/x").json()["error"]["type"], "not_found_error");
    let env = sandbox.run(&["gateway", "env"]).exits(0);
    assert!(env.out.contains(&format!("ANTHROPIC_BASE_URL=http://{}\n", gate.addr)), "{}", env.out);
    let ran = sandbox.run(&["gateway", "exec", "--", "sh", "-c", "echo $OPENAI_BASE_URL"]).exits(0);
    assert_eq!(ran.out, format!("http://{}/v1\n", gate.addr));
    assert_eq!(sandbox.run(&["gateway", "status", "--json"]).exits(0).json()["ready"], true);
    sandbox.run(&["gateway"]).exits(1).says("runs already");
    sandbox.run(&["gateway", "stop"]).exits(0);
    sandbox.run(&["gateway", "status"]).exits(1);
}

/// The old token is refused by the first request after the rotation.
#[test]
fn a_rotated_token_is_dead_at_once() {
    let lab = lab("[]");
    let sandbox = one_key(&lab.url(), json!({}));
    let gate = Gate::start(&sandbox);
    assert_eq!(gate.get("/readyz").status, 200);
    let token = sandbox.run(&["gateway", "token", "--rotate"]).exits(0).out;
    assert_eq!(gate.get("/readyz").status, 401);
    assert_eq!(gate.ask("GET", "/readyz", &[("x-api-key", token.trim())], b"").status, 200);
    // A config that is wrong changes nothing.
    sandbox.write_config("{ gateway: { mode: 'loc");
    gate.signal(rustix::process::Signal::HUP);
    assert_eq!(gate.ask("GET", "/readyz", &[("x-api-key", token.trim())], b"").status, 200);
}

/// Every combination of where a request claims to go, where it comes from, and how it proves
/// itself: only the plain ones get through.
#[test]
fn two_hundred_combinations() {
    let upstream = Upstream::start(|_, stream| reply(stream, "200 OK", "", "{}"));
    let gate = Gate::start(&one_key(upstream.url(), json!({})));
    let port = gate.addr.rsplit_once(':').unwrap().1.to_string();
    let ours = [gate.addr.clone(), format!("localhost:{port}"), format!("LOCALHOST:{port}")];
    let mut hosts: Vec<String> = ours.to_vec();
    for odd in [
        "evil.example",
        "127.0.0.1",
        "localhost",
        "127.0.0.1:1",
        "0.0.0.0:P",
        "127.0.0.2:P",
        "localhost.evil.example:P",
        "127.0.0.1.evil.example:P",
        "evil.example:P",
        "127.1:P",
        "2130706433:P",
        "0x7f000001:P",
        "[::1]:P",
        "[::ffff:127.0.0.1]:P",
        "[::]:P",
        "user@127.0.0.1:P",
        "127.0.0.1:P:P",
        "127.0.0.1:P.",
        "127.0.0.1 :P",
        "127.0.0.1:",
        ":P",
        "",
        "*",
        "localhost.:P",
        "169.254.169.254",
        "metadata.google.internal:P",
        "[fe80::1%25lo]:P",
        "127.0.0.1:0P1",
        "127.0.0.1:+P",
        "localhost:P/",
        "http://127.0.0.1:P",
        "127.0.0.1%00:P",
        "xn--80ak6aa92e.com:P",
        "127.0.0.1:P,evil.example",
        "127.0.0.1:99999",
        "gateway:P",
        "host.docker.internal:P",
    ] {
        hosts.push(odd.replace('P', &port));
    }
    assert_eq!(hosts.len(), 40);
    let (mut asked, mut passed) = (0, 0);
    let body = hello().to_string();
    let mut check = |host: &str, more: &[(&str, &str)], kind: &str, token: bool, good: bool| {
        let mut headers = vec![("host", host), ("content-type", kind)];
        headers.extend_from_slice(more);
        if token {
            headers.push(("x-api-key", TOKEN));
        }
        let answer = gate.ask("POST", "/v1/messages", &headers, body.as_bytes());
        asked += 1;
        assert_eq!(answer.status == 200, good, "{headers:?}\n{}", answer.head);
        assert_eq!(answer.header("access-control-allow-origin"), None);
        passed += usize::from(good);
    };
    let own = format!("http://{}", gate.addr);
    for host in &hosts {
        let fine = ours.contains(host);
        check(host, &[], "application/json", true, fine);
        check(host, &[], "application/json", false, false);
        check(host, &[("origin", "https://evil.example")], "application/json", true, false);
        check(host, &[("sec-fetch-site", "cross-site")], "application/json", true, false);
        check(
            host,
            &[("origin", &own), ("sec-fetch-site", "same-origin")],
            "text/plain",
            true,
            false,
        );
    }
    let here = &gate.addr.clone();
    for (more, good) in [
        (("origin", own.as_str()), true),
        (("origin", "null"), false),
        (("origin", "http://localhost"), false),
        (("sec-fetch-site", "none"), true),
        (("sec-fetch-site", "same-site"), false),
    ] {
        check(here, &[more], "application/json; charset=utf-8", true, good);
    }
    for kind in [
        "",
        "text/plain",
        "multipart/form-data",
        "application/x-www-form-urlencoded",
        "application/jsonp",
    ] {
        check(here, &[], kind, true, false);
    }
    assert!(asked >= 200);
    assert_eq!(upstream.seen().len(), passed);
    for (path, wanted) in
        [("/v1/messages?token=FAKE", 400), ("/v1/messages?beta=true&api_key=FAKE", 400)]
    {
        assert_eq!(gate.post(path, &hello()).status, wanted);
    }
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let answer = gate.ask(method, "/v1/messages", &[("x-api-key", TOKEN)], b"");
        assert_eq!(answer.status, 405, "{method}");
    }
    for (name, value) in [
        ("authorization", format!("Bearer {TOKEN}x")),
        ("authorization", TOKEN.to_string()),
        ("authorization", format!("Basic {TOKEN}")),
        ("x-api-key", TOKEN[..TOKEN.len() - 1].to_string()),
        ("x-api-key", String::new()),
        ("cookie", format!("token={TOKEN}")),
        ("proxy-authorization", format!("Bearer {TOKEN}")),
    ] {
        assert_eq!(gate.ask("GET", "/readyz", &[(name, &value)], b"").status, 401, "{name}");
    }
}

/// However a request's end is disguised, the service never sees a request that was not checked.
#[test]
fn smuggled_requests_reach_nobody() {
    let upstream = Upstream::start(|_, stream| reply(stream, "200 OK", "", "{}"));
    let gate = Gate::start(&one_key(upstream.url(), json!({})));
    let hidden = "POST /v1/messages HTTP/1.1\r\nhost: evil\r\ncontent-type: application/json\r\ncontent-length: 34\r\n\r\n{\"model\":\"smuggled\",\"messages\":[]}";
    let mut samples = 0;
    for framing in [
        "content-length: 0\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "transfer-encoding: xchunked",
        "transfer-encoding : chunked",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: identity, chunked",
        "transfer-encoding:\tchunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: x",
        "transfer-encoding: \"chunked\"",
        " transfer-encoding: chunked",
        "x: y\r\n transfer-encoding: chunked",
        "content-length: 0\r\ncontent-length: 5",
        "content-length: 0, 5",
        "content-length: +0",
        "content-length: -0",
        "content-length: 0x0",
        "content-length: 0 ",
        "content-length: 00000",
        "content-length:\u{b}0",
        "content-length: 99999999999999999999999",
    ] {
        for body in ["0\r\n\r\n", "", "5;ext=\"\r\n\r\n\"\r\n"] {
            samples += 1;
            let request = format!(
                "POST /v1/messages HTTP/1.1\r\nhost: {}\r\nx-api-key: {TOKEN}\r\ncontent-type: application/json\r\n{framing}\r\n\r\n{body}{hidden}",
                gate.addr
            );
            let _ = gate.raw(request.as_bytes());
        }
    }
    assert_eq!(samples, 60);
    let reached = upstream.seen();
    assert!(reached.is_empty(), "{reached:?}");
    assert_eq!(gate.post("/v1/messages", &hello()).status, 200);
}
