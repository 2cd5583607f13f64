//! Credentials that plugins bring from elsewhere: a command, an exchange of identities, the profiles
//! of other programs; and the way back, `models auth print`.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::support::{KEY, KEY2, Sandbox, lab, messages, now, token, used};

/// Writes a program onto the sandbox's `PATH`.
fn program(sandbox: &Sandbox, name: &str, script: &str) {
    let path = sandbox.root().join("bin").join(name);
    sandbox.write(&path, &format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

const HEADLESS: [&str; 3] = ["onboard", "--non-interactive", "--accept-risk"];

fn onboard<'a>(more: &[&'a str]) -> Vec<&'a str> {
    HEADLESS.into_iter().chain(more.iter().copied()).collect()
}

/// A command prints a key; the key is kept until its end, then the command is asked again.
#[test]
fn a_command_is_asked_once_and_again_when_its_key_ends() {
    let lab = lab("[]");
    let sandbox = Sandbox::new();
    sandbox.use_lab(&lab, json!({}));
    let count = sandbox.cwd().join("count");
    let vault = |key: &str| {
        let count = count.display();
        let line = format!(r#"{{"version":1,"key":"{key}","expiresAt":"2099-01-01T00:00:00Z"}}"#);
        format!("echo x >> '{count}'\n[ \"$VAULT_TOKEN\" = FAKE-vault ] || exit 3\necho '{line}'")
    };
    program(&sandbox, "my-vault", &vault(KEY));
    let asked = || std::fs::read_to_string(&count).unwrap_or_default().lines().count();

    let add = onboard(&["--anthropic-key-command", "my-vault get 'a b'"]);
    sandbox.run(&add).exits(1).says("The key command failed with code 3");
    let mut sandbox = sandbox;
    sandbox.set_env("VAULT_TOKEN", Some("FAKE-vault"));
    let done = sandbox.run(&add).exits(0);
    assert!(
        done.out.contains("Auth profile: anthropic:command (anthropic/api_key)"),
        "{}",
        done.out
    );
    assert!(!done.out.contains(KEY) && !done.err.contains(KEY), "{done:?}");
    assert_eq!(sandbox.store()["profiles"]["anthropic:command"]["command"], "my-vault get 'a b'");

    sandbox.run(&["agent", "-m", "hi"]).exits(0);
    sandbox.run(&["agent", "-m", "hi"]).exits(0);
    assert_eq!(asked(), 2, "the failed attempt, the login, and nothing since");

    program(&sandbox, "my-vault", &vault(KEY2));
    let mut store = sandbox.store();
    store["profiles"]["anthropic:command"]["expires"] = json!(now() - 1_000);
    sandbox.write_store(&store);
    sandbox.run(&["agent", "-m", "hi"]).exits(0);
    assert_eq!(asked(), 3);
    assert_eq!(sandbox.store()["profiles"]["anthropic:command"]["key"], KEY2);
    let sent = messages(&lab);
    assert_eq!(sent.len(), 3);
    assert_eq!(used(&sent[0]), used(&sent[1]));
    assert_eq!(used(&sent[2]), moltbot_lab::fingerprint(KEY2));
}

/// A file with an identity token becomes a bearer token, which is exchanged anew when it ends.
#[test]
fn an_identity_token_is_exchanged_and_exchanged_again() {
    let lab = lab("[]");
    let sandbox = Sandbox::new();
    sandbox.use_lab(&lab, json!({}));
    let identity = sandbox.home().join("identity");
    sandbox.write(&identity, "eyJhbGciOiJub25lIn0.FAKEone.FAKE\n");
    let (url, file) = (format!("{}/v1/oauth/token", lab.url()), identity.display().to_string());
    let add = [
        "--auth-choice",
        "workload-identity",
        "--anthropic-federation-rule-id",
        "fdrl-FAKE",
        "--anthropic-organization-id",
        "org-FAKE",
        "--anthropic-service-account-id",
        "svac-FAKE",
        "--anthropic-token-url",
        &url,
    ];
    let refused = sandbox.run(&onboard(&add)).exits(1);
    assert!(refused.err.contains("--anthropic-identity-token-file"), "{}", refused.err);
    let with_file = [&add[..], &["--anthropic-identity-token-file", &file]].concat();
    let done = sandbox.run(&onboard(&with_file)).exits(0);
    assert!(
        done.out.contains("Auth profile: anthropic:workload-identity (anthropic/token)"),
        "{}",
        done.out
    );
    let stored =
        |sandbox: &Sandbox| sandbox.store()["profiles"]["anthropic:workload-identity"].clone();
    let first = stored(&sandbox);
    assert!(!first.to_string().contains("eyJ"), "the identity token is not kept");
    sandbox.run(&["agent", "-m", "hi"]).exits(0);

    sandbox.write(&identity, "eyJhbGciOiJub25lIn0.FAKEtwo.FAKE\n");
    let mut store = sandbox.store();
    store["profiles"]["anthropic:workload-identity"]["expires"] = json!(now() - 1_000);
    sandbox.write_store(&store);
    sandbox.run(&["agent", "-m", "hi"]).exits(0);
    let second = stored(&sandbox);
    assert_ne!(first["token"], second["token"]);
    assert!(second["expires"].as_i64() > Some(now()), "{}", second["expires"]);
    let sent = messages(&lab);
    assert_eq!(sent.len(), 2);
    assert_eq!(used(&sent[1]), moltbot_lab::fingerprint(second["token"].as_str().unwrap()));

    // Without the file the login cannot be renewed, and says so by its name.
    std::fs::remove_file(&identity).unwrap();
    store["profiles"]["anthropic:workload-identity"]["expires"] = json!(now() - 1_000);
    sandbox.write_store(&store);
    sandbox.run(&["agent", "-m", "hi"]).exits(1).says("identity token cannot be read");
}

/// The profile that Anthropic's SDKs use is used too, as long as it is good, and never written.
#[test]
fn the_profile_of_the_sdks_is_a_live_link() {
    let lab = lab("[]");
    let sandbox = Sandbox::new();
    sandbox.use_lab(&lab, json!({}));
    let add = onboard(&["--auth-choice", "sdk-profile"]);
    sandbox.run(&add).exits(1).says("The Anthropic SDKs have no login at ~/.config/anthropic/");
    let dir = sandbox.home().join(".config/anthropic");
    let file = dir.join("credentials/work.json");
    let tokens = |token: &str, ends: i64| json!({ "access_token": token, "expires_at": ends, "refresh_token": "sk-ant-ort01-FAKE" });
    sandbox.write(&dir.join("active_config"), "work\n");
    sandbox.write(&file, &tokens(&token(), now() / 1_000 + 3_600).to_string());
    sandbox.run(&add).exits(0);
    let stored = sandbox.store()["profiles"]["anthropic:sdk-profile"].to_string();
    assert!(!stored.contains("sk-ant"), "{stored}");
    let before = std::fs::read(&file).unwrap();
    sandbox.run(&["agent", "-m", "hi"]).exits(0);
    assert_eq!(used(&messages(&lab)[0]), moltbot_lab::fingerprint(&token()));
    assert_eq!(std::fs::read(&file).unwrap(), before);

    sandbox.write(&file, &tokens(&token(), now() / 1_000 - 10).to_string());
    sandbox
        .run(&["agent", "-m", "hi"])
        .exits(1)
        .says("the login of the Anthropic SDKs has expired");
}

/// What this program prints, it can be given back as a command.
#[test]
fn a_printed_credential_is_understood_by_the_command_plugin() {
    let sandbox = Sandbox::new();
    sandbox.run(&onboard(&["--anthropic-api-key", KEY])).exits(0);
    let print = ["models", "auth", "print", "--profile", "anthropic:default"];
    sandbox.run(&print).exits(1).says("--yes");
    let raw = sandbox.run(&[&print[..], &["--yes"]].concat()).exits(0);
    assert_eq!(raw.out, KEY);
    let process = [&print[..], &["--format", "credential-process", "--yes"]].concat();
    let printed = sandbox.run(&process).exits(0).out;
    let file = sandbox.cwd().join("printed.json");
    sandbox.write(&file, &printed);
    let command = format!("cat '{}'", file.display());
    sandbox.run(&onboard(&["--anthropic-key-command", &command])).exits(0);
    assert_eq!(sandbox.store()["profiles"]["anthropic:command"]["key"], KEY);

    let paste = ["models", "auth", "paste-token", "--provider", "anthropic"];
    sandbox.run_with_input(&paste, &token()).exits(0);
    let plan = ["models", "auth", "print", "--profile", "anthropic:manual", "--yes"];
    let refused = sandbox.run(&plan).exits(1).says("is not handed out");
    assert_eq!(refused.out, "");
}

/// A store that another build wrote: the plugin that is missing is named, and how to get it.
#[test]
fn a_profile_of_a_missing_plugin_says_which_and_how_to_get_it() {
    let sandbox = Sandbox::new();
    sandbox.write_store(&json!({ "version": 1, "profiles": { "anthropic:vault": {
        "type": "api_key", "provider": "anthropic", "key": KEY, "method": "vault" } } }));
    let ran = sandbox.run(&["agent", "-m", "hi"]).exits(1);
    assert!(ran.err.contains("needs plugin vault, not in this build"), "{}", ran.err);
    assert!(ran.err.contains("moltbot plugins trust"), "{}", ran.err);
    assert!(ran.err.contains("cargo xtask dist --plugins ...,vault"), "{}", ran.err);
}
