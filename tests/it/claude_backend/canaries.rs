//! What the host's environment may hold and the program must not get: other keys, another payer,
//! another service, code of somebody else.

use std::process::Stdio;

use serde_json::json;

use super::{CANARY, SETUP_TOKEN, fake, log, real};
use crate::support::{Sandbox, lab, messages, used};

/// Where nobody listens: a request that goes there fails.
const NOWHERE: &str = "http://127.0.0.1:9";

/// The variables by which the program lets somebody else pay, answer or act.
const CANARIES: [(&str, &str); 27] = [
    ("ANTHROPIC_API_KEY", CANARY),
    ("ANTHROPIC_AUTH_TOKEN", "FAKECANARY-bearer"),
    ("ANTHROPIC_BASE_URL", NOWHERE),
    ("ANTHROPIC_BEDROCK_BASE_URL", NOWHERE),
    ("ANTHROPIC_BETAS", "FAKECANARY-2025-01-01"),
    ("ANTHROPIC_CUSTOM_HEADERS", "x-canary: FAKECANARY"),
    ("ANTHROPIC_FOUNDRY_API_KEY", "FAKECANARY-foundry"),
    ("ANTHROPIC_FOUNDRY_RESOURCE", "FAKECANARY-foundry"),
    ("ANTHROPIC_MODEL", "FAKECANARY-model"),
    ("ANTHROPIC_SMALL_FAST_MODEL", "FAKECANARY-model"),
    ("ANTHROPIC_VERTEX_BASE_URL", NOWHERE),
    ("ANTHROPIC_VERTEX_PROJECT_ID", "FAKECANARY-vertex"),
    ("AWS_ACCESS_KEY_ID", "AKIAFAKECANARY"),
    ("AWS_BEARER_TOKEN_BEDROCK", "FAKECANARY-bedrock"),
    ("AWS_PROFILE", "FAKECANARY-profile"),
    ("AWS_SECRET_ACCESS_KEY", "FAKECANARY-secret"),
    ("CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR", "3"),
    ("CLAUDE_CODE_EXTRA_BODY", "{\"metadata\":\"FAKECANARY\"}"),
    ("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-FAKECANARY"),
    ("CLAUDE_CODE_SKIP_BEDROCK_AUTH", "1"),
    ("CLAUDE_CODE_USE_BEDROCK", "1"),
    ("CLAUDE_CODE_USE_FOUNDRY", "1"),
    ("CLAUDE_CODE_USE_VERTEX", "1"),
    ("CLOUD_ML_REGION", "FAKECANARY-region"),
    ("GOOGLE_APPLICATION_CREDENTIALS", "/FAKECANARY.json"),
    ("MOLTBOT_CANARY", "FAKECANARY-ours"),
    ("NODE_OPTIONS", "--require=/FAKECANARY.js"),
];

const ASK: [&str; 5] = ["agent", "--model", "claude-cli/sonnet", "-m", "hi"];

fn with_canaries(mut sandbox: Sandbox) -> Sandbox {
    for (name, value) in CANARIES {
        sandbox.set_env(name, Some(value));
    }
    sandbox
}

#[test]
fn no_variable_of_another_payer_reaches_the_program() {
    let sandbox = with_canaries(fake("ok"));
    let done = sandbox.run(&ASK).exits(0);
    assert!(done.out.trim_end().ends_with(":1:hi"), "{done:?}");
    let log = log(&sandbox);
    let home = format!("HOME={}", sandbox.home().display());
    assert!(log.lines().any(|line| line == home), "its environment is not in its log: {log}");
    for (name, _) in CANARIES {
        let given = log.lines().find(|line| line.starts_with(&format!("{name}=")));
        assert_eq!(given, None, "the program got {name}");
    }
    assert!(!log.contains("FAKECANARY"), "{log}");
}

/// A stored setup-token comes in its own variable, whatever stands there outside.
#[test]
fn a_stored_token_wins_over_the_one_in_the_environment() {
    let sandbox = with_canaries(fake("ok"));
    sandbox.write_store(&json!({ "version": 1, "profiles": {
        "anthropic:manual": { "type": "token", "provider": "anthropic", "token": SETUP_TOKEN },
    } }));
    sandbox.run(&ASK).exits(0);
    let log = log(&sandbox);
    let given = log.lines().filter(|line| line.starts_with("CLAUDE_CODE_OAUTH_TOKEN="));
    assert_eq!(given.collect::<Vec<_>>(), [format!("CLAUDE_CODE_OAUTH_TOKEN={SETUP_TOKEN}")]);
    assert!(!log.contains("FAKECANARY"), "{log}");
}

/// What the real program sends, as the service sees it; and that the program, started by itself
/// with the same key, would have sent it.
#[test]
fn the_real_program_sends_no_canary() {
    let Some(program) = real() else { return };
    let lab = lab("[]");
    let sandbox = with_canaries(Sandbox::new());
    sandbox.link_program("claude", program.to_str().expect("a path"));
    sandbox.write_config(
        &json!({ "models": { "providers": { "claude-cli": { "baseUrl": lab.url(), "models": [] } } } })
            .to_string(),
    );
    sandbox.write_store(&json!({ "version": 1, "profiles": {
        "anthropic:manual": { "type": "token", "provider": "anthropic", "token": SETUP_TOKEN },
    } }));
    let done = sandbox.run(&ASK).exits(0);
    assert_eq!(done.out.trim(), "Hello from the lab. You said: hi");
    let all = lab.log();
    assert!(!messages(&lab).is_empty());
    for entry in &all {
        assert!(!format!("{:?}{}", entry.headers, entry.body).contains("FAKECANARY"), "{entry:?}");
        for seen in &entry.credentials {
            assert_eq!(seen.sha256, moltbot_lab::fingerprint(SETUP_TOKEN), "{entry:?}");
        }
    }

    let plain = Sandbox::new();
    let output = std::process::Command::new(program)
        .args(["-p", "--setting-sources", "", "hi"])
        .env_clear()
        .env("HOME", plain.home())
        .env("PATH", "/usr/bin:/bin")
        .env("ANTHROPIC_BASE_URL", lab.url())
        .env("ANTHROPIC_API_KEY", CANARY)
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .env("DISABLE_AUTOUPDATER", "1")
        .current_dir(plain.cwd())
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    let seen = messages(&lab);
    let last = seen.last().expect("a request");
    assert_eq!(used(last), moltbot_lab::fingerprint(CANARY), "{output:?}");
}
