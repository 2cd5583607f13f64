//! What the owner of a gateway does beside it: commands, several agents behind tokens of their own,
//! a config that changes while streams run (spec L-46, L-47, G-1 to G-5, cases 72 and 73).

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::upstream::{Upstream, reply};
use super::{Gate, TOKEN, config, hello, hello_streamed, one_key, until};
use crate::support::{KEY, KEY2, Sandbox, lab};

const OK: &str = r#"{"id":"msg_1","type":"message","role":"assistant","content":[],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#;

/// Spec case 72, to the letter: refused before any socket is opened.
#[test]
fn case_72_no_open_door_and_never_a_wider_one() {
    let sandbox = Sandbox::new();
    sandbox.write_config("{ gateway: { mode: 'local' } }");
    // A port that is free: had it been opened, the second bind of it could still be answered.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    sandbox
        .run(&["gateway", "--bind", "lan", "--port", &port])
        .exits(1)
        .says("Error: Refusing to bind gateway to lan without auth.");
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = busy.local_addr().unwrap().port().to_string();
    let done = sandbox.run(&["gateway", "--port", &port]).exits(1);
    assert!(done.err.contains("is in use by another program"), "{done:?}");
    assert!(!done.out.contains("gateway: http"), "{done:?}");
    // Nobody listens anywhere else: the run ended, and left no file that says otherwise.
    sandbox.run(&["gateway", "status"]).exits(1);
    assert!(!sandbox.state("gateway.json").exists());
}

/// Spec case 73: without a mode it does not start, and says how; the usual port is 18789.
#[test]
fn case_73_the_mode_is_asked_for_and_the_port_is_known() {
    let missing = "Error: Missing config. Run `moltbot onboard` or set gateway.mode=local (or pass --allow-unconfigured).";
    Sandbox::new().run(&["gateway"]).exits(1).says(missing);
    let sandbox = Sandbox::new();
    sandbox.write_config("{ gateway: { auth: { token: 'mbg_FAKE' } } }");
    let blocked = "Error: Gateway start blocked: set gateway.mode=local (current: unset) or pass --allow-unconfigured.";
    sandbox.run(&["gateway"]).exits(1).says(blocked);
    let env = sandbox.run(&["gateway", "env"]).exits(0).out;
    assert!(env.contains("ANTHROPIC_BASE_URL=http://127.0.0.1:18789\n"), "{env}");
    sandbox.write_config("{ gateway: { port: 18790, auth: { token: 'mbg_FAKE' } } }");
    let env = sandbox.run(&["gateway", "env"]).exits(0).out;
    assert!(env.contains("ANTHROPIC_BASE_URL=http://127.0.0.1:18790\n"), "{env}");
}

/// `gateway env`, `exec` and `token`, with the gateway and without.
#[test]
fn clients_find_the_gateway_by_their_environment() {
    let lab = lab("[]");
    let mut sandbox = one_key(&lab.url(), json!({}));
    let gate = Gate::start(&sandbox);
    let env = sandbox.run(&["gateway", "env"]).exits(0).out;
    assert_eq!(
        env,
        format!(
            "ANTHROPIC_BASE_URL=http://{0}\nANTHROPIC_AUTH_TOKEN={TOKEN}\n\
             OPENAI_BASE_URL=http://{0}/v1\nOPENAI_API_KEY={TOKEN}\n",
            gate.addr
        )
    );
    let shell = sandbox.run(&["gateway", "env", "--shell"]).exits(0).out;
    assert!(shell.starts_with("unset ANTHROPIC_API_KEY\n"), "{shell}");
    let evaluated = std::process::Command::new("sh")
        .args(["-c", &format!("{shell}\nprintf %s \"$OPENAI_API_KEY\"")])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&evaluated.stdout), TOKEN);

    // The program's own words, exit code and arguments; the user's key does not travel along.
    sandbox.set_env("ANTHROPIC_API_KEY", Some(KEY));
    let script = "echo \"$1 $ANTHROPIC_AUTH_TOKEN\" >&2; exit 7";
    let done = sandbox.run(&["gateway", "exec", "--", "sh", "-c", script, "x", "--port"]);
    let done = done.exits(7).says(&format!("--port {TOKEN}"));
    assert_eq!(done.out, "");
    let unset = "echo \"[$ANTHROPIC_API_KEY]\"";
    assert_eq!(sandbox.run(&["gateway", "exec", "--", "sh", "-c", unset]).exits(0).out, "[]\n");
    sandbox.run(&["gateway", "exec", "--", "no-such-program"]).exits(1).says("no-such-program");
    sandbox.run(&["gateway", "exec"]).exits(1);

    assert_eq!(sandbox.run(&["gateway", "token"]).exits(0).out, format!("{TOKEN}\n"));
    let rotated = sandbox.run(&["gateway", "token", "--rotate"]).exits(0).out;
    assert!(rotated.starts_with("mbg_") && rotated.trim().len() >= 40, "{rotated}");
    assert_eq!(gate.get("/readyz").status, 401);
    assert_eq!(gate.ask("GET", "/readyz", &[("x-api-key", rotated.trim())], b"").status, 200);
    let status = sandbox.run(&["gateway", "status", "--json"]).exits(0).json();
    assert_eq!(status["urls"], json!([format!("http://{}", gate.addr)]));
    assert_eq!((&status["running"], &status["ready"]), (&json!(true), &json!(true)));
    sandbox.run(&["gateway", "stop"]).exits(0);
    let status = sandbox.run(&["gateway", "status", "--json"]).exits(1).json();
    assert_eq!(status["running"], false);
    sandbox.run(&["gateway", "stop"]).exits(0);

    let nothing = Sandbox::new();
    nothing.run(&["gateway", "token"]).exits(1).says("no token yet");
}

/// A token that is made is kept, readable by its owner alone, and shown once.
#[test]
fn a_missing_token_is_made_once() {
    let sandbox = Sandbox::new();
    sandbox.write_config("{ gateway: { mode: 'local' } }");
    let log = sandbox.root().join("log");
    drop(Gate::logged(&sandbox, &log, &[]));
    let token = sandbox.run(&["gateway", "token"]).exits(0).out;
    let file = sandbox.state("moltbot.json");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(token.trim()), "{text}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!std::fs::read_to_string(&log).unwrap().contains(token.trim()), "not in the log");
    let gate = Gate::start(&sandbox);
    assert_eq!(gate.ask("GET", "/x", &[("x-api-key", token.trim())], b"").status, 404);
}

/// The unit is written, hardened, started, and removed again; what systemd says is passed on.
#[cfg(target_os = "linux")]
#[test]
fn the_unit_comes_and_goes() {
    let sandbox = Sandbox::new();
    sandbox.write_config("{ gateway: { mode: 'local' } }");
    let calls = sandbox.root().join("calls");
    let fake = sandbox.root().join("bin/systemctl");
    let script = format!("#!/bin/sh\necho \"$@\" >> '{}'\n", calls.display());
    sandbox.write(&fake, &script);
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.run(&["gateway", "install"]).exits(0);
    let dir = sandbox.home().join(".config/systemd/user");
    let unit = std::fs::read_to_string(dir.join("moltbot-gateway.service")).unwrap();
    for line in ["NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes", "UMask=0077"] {
        assert!(unit.lines().any(|own| own == line), "no {line} in\n{unit}");
    }
    assert!(unit.contains(" gateway run"), "{unit}");
    // The programs that it runs for a login are found, and may renew it.
    let login = format!("\"-{}\"", sandbox.home().join(".claude").display());
    let writes = unit.lines().find(|line| line.starts_with("ReadWritePaths=")).unwrap();
    assert!(writes.contains(&login), "{unit}");
    assert!(unit.contains("\nEnvironment=\"PATH="), "{unit}");
    sandbox.run(&["gateway", "uninstall"]).exits(0);
    assert!(!dir.join("moltbot-gateway.service").exists());
    let calls = std::fs::read_to_string(&calls).unwrap();
    for call in ["--user daemon-reload", "--user enable --now", "--user disable --now"] {
        assert!(calls.contains(call), "no {call} in\n{calls}");
    }
    sandbox.run(&["gateway", "uninstall"]).exits(0);
    sandbox.write(&fake, "#!/bin/sh\necho 'no bus here' >&2\nexit 1\n");
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.run(&["gateway", "install"]).exits(1).says("no bus here");
}

/// The token decides the agent; a header can only narrow it, a model's name as little as that.
#[test]
fn a_token_is_one_agent() {
    let upstream = Upstream::start(|_, stream| reply(stream, "200 OK", "", OK));
    let sandbox = Sandbox::new();
    let tokens = json!({ "tokens": {
        "ci": { "token": "mbg_FAKE_ci", "agent": "work" },
        "few": { "token": "mbg_FAKE_few", "agent": "main", "models": ["claude-haiku-4-5"] } } });
    let mut all = config(upstream.url(), tokens);
    all["agents"] = json!({ "list": [{ "id": "main" }, { "id": "work", "workspace": "~/w" }] });
    sandbox.write_config(&all.to_string());
    let store = |key: &str| {
        json!({ "version": 1, "profiles": { "anthropic:default": {
            "type": "api_key", "provider": "anthropic", "key": key } } })
    };
    sandbox.write_store(&store(KEY));
    let path = sandbox.state("agents/work/agent/auth-profiles.json");
    sandbox.write(&path, &store(KEY2).to_string());
    let gate = Gate::start(&sandbox);
    let ask = |token: &str, agent: &str, body: &serde_json::Value, path: &str| {
        let mut headers = vec![("x-api-key", token), ("content-type", "application/json")];
        if !agent.is_empty() {
            headers.push(("x-moltbot-agent-id", agent));
        }
        gate.ask("POST", path, &headers, body.to_string().as_bytes())
    };
    let count = || upstream.seen().len();
    for (token, agent, key) in [
        (TOKEN, "", Some(KEY)),
        (TOKEN, "work", Some(KEY2)),
        (TOKEN, "nobody", None),
        ("mbg_FAKE_ci", "", Some(KEY2)),
        ("mbg_FAKE_ci", "work", Some(KEY2)),
        ("mbg_FAKE_ci", "main", None),
    ] {
        let before = count();
        let answer = ask(token, agent, &hello(), "/v1/messages");
        match key {
            Some(key) => {
                assert_eq!(answer.status, 200, "{token} {agent}: {}", answer.text());
                assert!(upstream.seen()[before].contains(key), "{token} {agent}");
            }
            None => {
                assert!(matches!(answer.status, 403 | 404), "{token} {agent}");
                assert_eq!(count(), before);
            }
        }
    }
    let mut named = hello();
    named["model"] = "moltbot:main".into();
    let before = count();
    let answer = ask("mbg_FAKE_ci", "", &named, "/v1/chat/completions");
    assert_eq!((answer.status, count()), (403, before), "{}", answer.text());
    named["model"] = "agent:work".into();
    assert_eq!(ask(TOKEN, "", &named, "/v1/chat/completions").status, 200);
    assert!(upstream.seen()[before].contains(KEY2));
    // A list of models binds both doors, and keeps from what has no model.
    for path in ["/v1/messages", "/v1/chat/completions"] {
        assert_eq!(ask("mbg_FAKE_few", "", &hello(), path).status, 403, "{path}");
    }
    for path in ["/v1/files", "/v1/messages/batches"] {
        assert_eq!(ask("mbg_FAKE_few", "", &json!({}), path).status, 403, "{path}");
    }
    let headers = [("x-api-key", "mbg_FAKE_few"), ("anthropic-version", "2023-06-01")];
    let models = gate.ask("GET", "/v1/models", &headers, b"").json();
    assert_eq!(models["data"].as_array().unwrap().len(), 1);
    assert_eq!(models["data"][0]["id"], "claude-haiku-4-5");
}

/// A config that is read again drops no stream; a bad one is said, and the old one stays.
#[test]
fn a_changed_config_drops_no_stream() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let start =
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{}}}\n\n";
    let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let upstream = Upstream::start(move |_, stream| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
        let _ = stream.write_all(format!("{head}{}", chunk(start)).as_bytes());
        let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(60));
        let _ = stream.write_all(format!("{}0\r\n\r\n", chunk(stop)).as_bytes());
    });
    let sandbox = one_key(upstream.url(), json!({}));
    let log = sandbox.root().join("log");
    let gate = Gate::logged(&sandbox, &log, &[]);
    let headers =
        [("x-api-key", TOKEN), ("content-type", "application/json"), ("connection", "close")];
    let body = hello_streamed().to_string();
    let mut client = gate.send("POST", "/v1/messages", &headers, body.as_bytes());
    let mut first = [0; 32];
    assert!(client.read(&mut first).unwrap() > 0);

    let said = |words: &str| std::fs::read_to_string(&log).unwrap_or_default().contains(words);
    sandbox.write_config("{ gateway: { mode: 'loc");
    gate.signal(Signal::HUP);
    until(|| said("the config is not used, the old one stays"));
    assert_eq!(gate.get("/readyz").status, 200, "the old token");
    let text = config(upstream.url(), json!({})).to_string();
    sandbox.write_config(&text.replace(TOKEN, "mbg_FAKE_other"));
    gate.signal(Signal::HUP);
    until(|| gate.get("/readyz").status == 401);
    until(|| said("the config was read again"));
    go.send(()).unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("message_stop"), "{rest}");
}
