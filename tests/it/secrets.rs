//! No secret in any output: the whole command set, with canaries, at the noisiest level.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::support::{Sandbox, lab};

/// Obviously fake, and unlike anything that could appear by itself.
const CANARIES: [&str; 6] = [
    "sk-ant-api03-Kq7Zr2Xw9Lp4Vt8Nb3Mh6Jd1Fs5Gc0FAKE",
    "sk-ant-oat01-Ty6Ui3Op9As2Df7Gh4Jk8Lz1Xc5Vb0NmQw6Er3Ty9Ui2Op7As4Df8Gh1Jk5Lz0Xc6Vb3Nm9QwFAKE",
    "sk-ant-oat01-Wa9Se4Dr7Ft2Gy6Hu1Ji8Ko3Lp5Za0Xs9FAKE",
    "sk-ant-ort01-Mn8Bv5Cx2Zl9Kj6Hg3Fd0Sa7Po4Iu1Yt8FAKE",
    "Rg5Tb2Yh8Nu4Jm1Ik7Ol9Pq3FAKEgatewaytoken0000abcd",
    "sk-ant-api03-Ed1Cr6Fv3Tg9Bh5Yn2Uj8Mi4Ko7Lp0FAKE",
];

/// Every piece of 12 characters of the part that is not a public prefix.
fn pieces(canary: &str) -> impl Iterator<Item = &str> {
    let body = canary.rsplit('-').next().unwrap();
    (0..=body.len() - 12).map(move |at| &body[at..at + 12])
}

#[test]
fn no_command_prints_a_piece_of_a_secret() {
    let [key, token, access, refresh, gateway, env_key] = CANARIES;
    let plan = "[{ match: { request: [2] }, fault: { error: 27 } }, { match: { request: [3] }, fault: { reset: 'headers' } }]";
    let lab = lab(plan);
    let sandbox = Sandbox::new()
        .env("MOLTBOT_LOG", "trace")
        .env("ANTHROPIC_API_KEY", env_key)
        .env("RUST_BACKTRACE", "1");
    sandbox.use_lab(&lab, json!({
        "env": { "OTHER_KEY": key },
        "gateway": { "mode": "local", "auth": { "mode": "token", "token": gateway } },
        "models": { "providers": { "p": { "baseUrl": lab.url(), "api": "anthropic-messages", "apiKey": key, "models": [] } } },
    }));
    sandbox.write_store(&json!({ "version": 1, "profiles": {
        "anthropic:default": { "type": "api_key", "provider": "anthropic", "key": key },
        "anthropic:manual": { "type": "token", "provider": "anthropic", "token": token, "expires": 5 },
        "anthropic:login": { "type": "oauth", "provider": "anthropic", "access": access, "refresh": refresh, "expires": 5, "idToken": token } } }));
    let login = json!({ "claudeAiOauth": { "accessToken": access, "refreshToken": refresh, "expiresAt": 1 } });
    sandbox.write(&sandbox.home().join(".claude/.credentials.json"), &login.to_string());
    let broken = format!("{{\"profiles\": {{\"anthropic:x\": {{\"key\": \"{key}\"");
    sandbox.write(&sandbox.state("agents/torn/agent/auth-profiles.json"), &broken);
    std::fs::set_permissions(sandbox.store_path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    sandbox.write(&sandbox.cwd().join("key.txt"), key);

    let commands: Vec<Vec<&str>> = vec![
        vec!["models", "status"],
        vec!["models", "status", "--json"],
        vec!["models", "status", "--json", "--probe"],
        vec!["models", "list", "--all", "--json"],
        vec!["models", "set", "sonnet"],
        vec!["models", "set", key],
        vec!["models", "auth", "order", "get", "--provider", "anthropic", "--json"],
        vec!["models", "auth", "order", "set", "--provider", "anthropic", key],
        vec![
            "models",
            "auth",
            "paste-token",
            "--provider",
            "anthropic",
            "--profile-id",
            "anthropic:new",
        ],
        vec!["config", "get", "env"],
        vec!["config", "get", "gateway.auth.token"],
        vec!["config", "get", "models", "--json"],
        vec!["config", "get", "."],
        vec!["config", "validate"],
        vec!["config", "set", "gateway.port", key],
        vec!["config", "set", "auth.profiles", token],
        vec!["agents", "list", "--json"],
        vec!["agents", "add", "torn", "--workspace", "d"],
        vec!["models", "status", "--agent", "torn"],
        vec!["agent", "-m", "hi", "--agent", "torn"],
        vec!["agent", "-m", "hi", "--json"],
        vec!["agent", "-m", "hi"],
        vec!["agent", "-m", "hi"],
        vec!["agent", "-m", "hi", "--dry-run"],
        vec!["agent", "-m", "hi", "--model", "p/x"],
        vec!["agent", "-m", "hi", "--model", token],
        vec!["agent", "-m", "hi", "--session-id", token],
        vec!["onboard", "--anthropic-api-key", key, "--json"],
        vec!["onboard", "--anthropic-api-key", token],
        vec!["onboard", "--anthropic-api-key-file", "key.txt"],
        vec!["onboard", "--auth-choice", "token", "--token-provider", "anthropic", "--token", key],
        vec![
            "onboard",
            "--auth-choice",
            "token",
            "--token-provider",
            "anthropic",
            "--token",
            token,
            "--token-expires-in",
            key,
        ],
        vec!["onboard", "--auth-choice", key],
        vec!["onboard", "--auth-choice", "claude-cli"],
        vec!["doctor", "--non-interactive"],
        vec!["doctor", "--fix", "--non-interactive"],
        vec!["plugins", "list", "--json"],
        vec!["explain", key],
        vec!["status", "--json"],
        vec![key],
        vec!["models", "--nonsense", token],
    ];
    for line in &commands {
        let done = sandbox.run_with_input(line, token);
        for canary in CANARIES {
            for piece in pieces(canary) {
                for (stream, text) in [("stdout", &done.out), ("stderr", &done.err)] {
                    assert!(!text.contains(piece), "{line:?} prints {piece} on {stream}:\n{text}");
                }
            }
        }
        assert!(
            done.code == 0 || done.code == 1 || done.code == 2,
            "{line:?}: {}\n{}",
            done.code,
            done.err
        );
        assert!(!done.err.contains("panicked"), "{line:?}: {}", done.err);
    }
}

/// A literal flag is gone from the process's arguments before the command does anything.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn a_literal_secret_is_wiped_from_the_arguments() {
    let sandbox = Sandbox::new();
    let fifo = sandbox.cwd().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
        .unwrap();
    let joined = format!("--gateway-token={}", CANARIES[4]);
    let line =
        ["onboard", &joined, "--gateway-password", CANARIES[0], "--anthropic-api-key-file", "fifo"];
    let mut child = sandbox.command(&line).stdout(std::process::Stdio::null()).spawn().unwrap();
    // The command waits for the key to come through the pipe; opening it waits for the command.
    let mut pipe = std::fs::OpenOptions::new().write(true).open(&fifo).unwrap();
    let shown = std::fs::read_to_string(format!("/proc/{}/cmdline", child.id())).unwrap();
    assert!(shown.contains("--gateway-token=xxx"), "{shown}");
    for canary in [CANARIES[0], CANARIES[4]] {
        assert!(pieces(canary).all(|piece| !shown.contains(piece)), "{shown}");
    }
    std::io::Write::write_all(&mut pipe, CANARIES[0].as_bytes()).unwrap();
    drop(pipe);
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_flag_that_shows_secrets_is_the_only_one() {
    let sandbox = Sandbox::new();
    sandbox.write_config(&format!(
        "{{ gateway: {{ auth: {{ mode: 'token', token: '{}' }} }} }}",
        CANARIES[4]
    ));
    let line = ["config", "get", "gateway.auth.token", "--show-secrets"];
    assert_eq!(sandbox.run(&line).exits(0).out.trim(), CANARIES[4]);
}
