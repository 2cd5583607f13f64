//! Where state and config are, what the config may say, and how it is changed (spec cases 1 to 15).

use std::os::unix::fs::PermissionsExt;

use crate::support::{KEY, KEY2, Sandbox};

fn status(sandbox: &Sandbox) -> serde_json::Value {
    sandbox.run(&["models", "status", "--json"]).exits(0).json()
}

/// Case 1.
#[test]
fn the_state_directory_of_the_new_name_wins() {
    let sandbox = Sandbox::new();
    let (a, b) = (sandbox.root().join("a"), sandbox.root().join("b"));
    let sandbox = sandbox
        .env("MOLTBOT_STATE_DIR", a.to_str().unwrap())
        .env("CLAWDBOT_STATE_DIR", b.to_str().unwrap());
    let dir = status(&sandbox)["agentDir"].as_str().unwrap().to_string();
    assert!(dir.starts_with(a.to_str().unwrap()), "{dir}");
}

/// Case 2.
#[test]
fn an_old_state_directory_is_used_as_it_is() {
    let sandbox = Sandbox::new();
    let config = sandbox.home().join(".clawdbot/clawdbot.json");
    sandbox.write(&config, "{ agents: { defaults: { model: 'anthropic/old-model' } } }");
    let status = status(&sandbox);
    assert_eq!(status["configPath"], config.to_str().unwrap());
    assert_eq!(status["resolvedDefault"], "anthropic/old-model");
}

/// Case 3.
#[test]
fn a_profile_has_its_own_state_directory() {
    let sandbox = Sandbox::new();
    let done = sandbox.run(&["--profile=x", "models", "status", "--json"]).exits(0);
    let path = done.json()["configPath"].as_str().unwrap().to_string();
    assert!(path.contains("/.moltbot-x/"), "{path}");
}

/// Case 4.
#[test]
fn global_flags_are_checked_first() {
    let sandbox = Sandbox::new();
    sandbox
        .run(&["--dev", "--profile", "y", "models"])
        .exits(2)
        .says("Cannot combine --dev with --profile");
    sandbox
        .run(&["--profile", "../z", "models"])
        .exits(2)
        .says("Invalid --profile (use letters, numbers, \"_\", \"-\" only)");
    sandbox.run(&["--profile"]).exits(2).says("--profile requires a value");
}

fn env_of(status: &serde_json::Value) -> (String, String) {
    let env = &status["auth"]["providers"][0]["env"];
    let text = |key: &str| env[key].as_str().unwrap_or_default().to_string();
    (text("value"), text("source"))
}

/// Case 5.
#[test]
fn the_config_lends_variables_and_the_process_wins() {
    let mut sandbox = Sandbox::new();
    sandbox.write_config(&format!("{{ env: {{ ANTHROPIC_API_KEY: '{KEY}' }} }}"));
    let (value, source) = env_of(&status(&sandbox));
    assert_eq!((value.as_str(), source.as_str()), ("sk-a...E001", "env: ANTHROPIC_API_KEY"));
    sandbox.set_env("ANTHROPIC_API_KEY", Some(KEY2));
    assert_eq!(env_of(&status(&sandbox)).0, "sk-a...E002");
}

/// Case 6.
#[test]
fn the_working_directorys_env_file_beats_the_states() {
    let sandbox = Sandbox::new();
    sandbox.write(&sandbox.state(".env"), &format!("ANTHROPIC_API_KEY={KEY}\n"));
    assert_eq!(env_of(&status(&sandbox)).0, "sk-a...E001");
    sandbox.write(&sandbox.cwd().join(".env"), &format!("export ANTHROPIC_API_KEY=\"{KEY2}\"\n"));
    assert_eq!(env_of(&status(&sandbox)).0, "sk-a...E002");
}

/// Case 7.
#[test]
fn the_login_shell_is_asked_per_key() {
    let sandbox = Sandbox::new();
    sandbox.program("fakesh", &format!("#!/bin/sh\nprintf 'ANTHROPIC_API_KEY={KEY}\\0X=1\\0'\n"));
    let shell = sandbox.root().join("bin/fakesh").display().to_string();
    let sandbox = sandbox.env("SHELL", &shell).env("TELEGRAM_BOT_TOKEN", "FAKE");
    sandbox.write_config("{ env: { shellEnv: { enabled: true } } }");
    let status = status(&sandbox);
    assert_eq!(env_of(&status).1, "shell env: ANTHROPIC_API_KEY");
    let fallback = &status["auth"]["shellEnvFallback"];
    assert_eq!(fallback["enabled"], true);
    assert_eq!(fallback["appliedKeys"], serde_json::json!(["ANTHROPIC_API_KEY"]));
}

/// Case 8.
#[test]
fn an_unset_variable_is_named_with_its_place() {
    let sandbox = Sandbox::new();
    let config = |key: &str| {
        format!(
            "{{ models: {{ providers: {{ p: {{ baseUrl: 'https://p.example', \
             api: 'anthropic-messages', apiKey: '{key}', models: [] }} }} }} }}"
        )
    };
    sandbox.write_config(&config("${NOPE}"));
    for command in [&["models", "status"][..], &["models", "list"], &["models", "set", "opus"]] {
        sandbox
            .run(command)
            .exits(1)
            .says("Missing env var \"NOPE\" referenced at config path: models.providers.p.apiKey");
    }
    sandbox.write_config(&config("$${NOPE}"));
    sandbox.run(&["models", "status"]).exits(0);
    // Case 8: the config's own text is shown, which stands for a literal `${NOPE}`.
    let line = ["config", "get", "models.providers.p.apiKey", "--show-secrets"];
    assert_eq!(sandbox.run(&line).exits(0).out.trim(), "$${NOPE}");
}

/// Case 9.
#[test]
fn a_variable_of_the_config_resolves_elsewhere_in_it() {
    let sandbox = Sandbox::new();
    sandbox.write_config(
        "{ env: { FOO: 'sonnet' }, agents: { defaults: { model: { primary: 'anthropic/${FOO}' } } } }",
    );
    assert_eq!(status(&sandbox)["defaultModel"], "anthropic/sonnet");
}

/// Case 10.
#[test]
fn includes_merge() {
    let sandbox = Sandbox::new();
    sandbox.write(
        &sandbox.state("a.json5"),
        "{ defaults: { model: { primary: 'anthropic/a', fallbacks: ['anthropic/f1'] } } }",
    );
    sandbox.write(
        &sandbox.state("b.json5"),
        "{ defaults: { model: { primary: 'anthropic/b', fallbacks: ['anthropic/f2'] } } }",
    );
    sandbox.write_config(
        "{ agents: { $include: ['./a.json5', './b.json5'], defaults: { model: { primary: 'anthropic/c' } } } }",
    );
    let status = status(&sandbox);
    assert_eq!(status["resolvedDefault"], "anthropic/c");
    assert_eq!(status["fallbacks"], serde_json::json!(["anthropic/f1", "anthropic/f2"]));

    sandbox.write(&sandbox.state("a.json5"), "{ $include: './a.json5' }");
    sandbox.run(&["models", "status"]).exits(1).says("a.json5");
}

/// Case 11.
#[test]
fn an_unknown_key_stops_everything_but_the_doctor() {
    let sandbox = Sandbox::new();
    sandbox.write_config("{\n  // mine\n  auth: { foo: 1 },\n  agents: {},\n}\n");
    let done = sandbox.run(&["models", "list"]).exits(1).says("Config invalid").says("auth.foo");
    assert!(done.err.contains("moltbot.json:3:"), "{}", done.err);
    sandbox.run(&["doctor", "--fix", "--non-interactive"]).exits(0);
    assert!(!sandbox.config().contains("foo") && sandbox.config().contains("// mine"));
    sandbox.run(&["models", "list"]).exits(0);
}

/// Case 12.
#[test]
fn an_edit_keeps_comments_includes_and_variables() {
    let sandbox = Sandbox::new().env("X", "anthropic/claude-opus-4-5");
    sandbox.write(&sandbox.state("more.json5"), "{ timeoutSeconds: 7 }");
    let old = "// first\n{\n  agents: {\n    defaults: {\n      $include: './more.json5', // why\n      \
               model: { primary: 'opus', fallbacks: ['${X}'] },\n    },\n  },\n}\n";
    sandbox.write_config(old);
    sandbox.run(&["models", "set", "sonnet"]).exits(0);
    let new = sandbox.config();
    for kept in ["// first", "$include: './more.json5', // why", "['${X}']"] {
        assert!(new.contains(kept), "{kept} is gone:\n{new}");
    }
    assert_eq!(std::fs::read_to_string(sandbox.state("moltbot.json.bak")).unwrap(), old);
    let mode = std::fs::metadata(sandbox.state("moltbot.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(status(&sandbox)["resolvedDefault"], "anthropic/claude-sonnet-4-5");
}

/// Case 13.
#[test]
fn five_old_versions_are_kept() {
    let sandbox = Sandbox::new();
    sandbox.write_config("{}");
    for model in ["a", "b", "c", "d", "e", "f"] {
        sandbox.run(&["models", "set", &format!("anthropic/{model}")]).exits(0);
    }
    for (name, there) in [(".bak", true), (".bak.1", true), (".bak.4", true), (".bak.5", false)] {
        let path = sandbox.state(&format!("moltbot.json{name}"));
        assert_eq!(path.exists(), there, "{name}");
    }
}

/// Case 14: the link's old mode is understood on every load and corrected at the next write.
#[test]
fn the_old_mode_of_a_claude_login_is_migrated() {
    let sandbox = Sandbox::new();
    sandbox.write_config(
        "{ auth: { profiles: { 'anthropic:claude-cli': { provider: 'anthropic', mode: 'token' } } } }",
    );
    let expires = 4_102_444_800_000_i64;
    sandbox.write_store(&serde_json::json!({ "version": 1, "profiles": { "anthropic:claude-cli": {
        "type": "oauth", "provider": "anthropic", "access": "sk-ant-oat01-FAKEaccessFAKEaccess",
        "refresh": "FAKErefresh", "expires": expires } } }));
    let explained = sandbox.run(&["agent", "-m", "hi", "--dry-run"]).exits(0);
    assert!(explained.out.contains("profile:anthropic:claude-cli"), "{}", explained.out);
    assert!(sandbox.config().contains("'token'"), "a read changed the file");
    sandbox.run(&["models", "set", "sonnet"]).exits(0);
    let done = sandbox.run(&["config", "get", "auth.profiles", "--json"]).exits(0);
    assert_eq!(done.json()["anthropic:claude-cli"]["mode"], "oauth");
    assert!(sandbox.config().contains("oauth"), "{}", sandbox.config());
}
