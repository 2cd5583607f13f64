//! Loading, by the numbered acceptance cases and by what a disk can do to a file.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use common::World;
use moltbot_config::{
    AgentId, ConfigError, Env, IssueCode, KeyPath, NoteKind, ShellImport, Source, load,
    shell_import,
};

fn messages(error: &ConfigError) -> Vec<String> {
    error.issues().iter().map(|issue| issue.message.clone()).collect()
}

#[test]
fn a_missing_file_is_an_empty_configuration() {
    let loaded = World::empty().load().unwrap();
    assert!(loaded.files.is_empty() && loaded.notes.is_empty());
    assert_eq!(loaded.config.default_agent(), AgentId::main());
    assert_eq!(loaded.value(), &serde_json::json!({}), "no hidden default (C-28)");
}

/// Case 5: a key in the section `env`, and the process environment over it.
#[test]
fn variables_of_the_configuration() {
    let mut world = World::new("{ env: { vars: { K: 'vars', B: 'b' }, K: 'direct', E: ' ' } }");
    let loaded = world.load().unwrap();
    assert_eq!(loaded.env.get("K"), Some(("direct", Source::Config)));
    assert_eq!(loaded.env.get("B"), Some(("b", Source::Config)));
    assert_eq!(loaded.env.get("E"), None);
    world.env = Env::new([("K", "process")]).with(Source::Shell, [("B", "shell")]);
    let loaded = world.load().unwrap();
    assert_eq!(loaded.env.get("K"), Some(("process", Source::Process)));
    assert_eq!(loaded.env.get("B"), Some(("b", Source::Config)));
    assert!(!format!("{loaded:?}").contains("process\""), "Debug shows no value");
}

/// Case 7: whether the shell is asked; even a file with other mistakes can say so.
#[test]
fn the_login_shell() {
    let world = World::new("{ env: { shellEnv: { enabled: true, timeoutMs: 7 } }, nonsense: 1 }");
    assert_eq!(shell_import(&world.input()), Some(ShellImport { timeout_ms: 7 }));
    let mut world = World::new("{ broken");
    assert_eq!(shell_import(&world.input()), None);
    world.env = Env::new([("CLAWDBOT_LOAD_SHELL_ENV", "1")]);
    assert!(shell_import(&world.input()).is_some());
}

/// Cases 8 and 9: references.
#[test]
fn references_resolve_or_are_named() {
    let world = World::new(
        "{ env: { FOO: 'foo', BAR: '${FOO}-${HOME_X}' }, agents: { list: [
           { id: 'a', name: '${FOO}/${BAR}/$${FOO}/$FOO' } ] } }",
    );
    let error = world.load().unwrap_err();
    assert_eq!(
        messages(&error),
        [
            "Missing env var \"HOME_X\" referenced at config path: env.BAR",
            "Missing env var \"BAR\" referenced at config path: agents.list[0].name"
        ]
    );
    let mut world = world;
    world.env = Env::new([("HOME_X", "x")]);
    let loaded = world.load().unwrap();
    let name = loaded.config.agents.as_ref().unwrap().list[0].name.clone();
    assert_eq!(name.as_deref(), Some("foo/foo-x/${FOO}/$FOO"));
    let path: KeyPath = "agents.list[0].name".parse().unwrap();
    assert_eq!(path.find(loaded.source_value()).unwrap(), "${FOO}/${BAR}/$${FOO}/$FOO");
}

#[test]
fn an_unset_variable_in_a_section_that_is_not_used_is_a_note() {
    let world = World::new("{ channels: { telegram: { botToken: '${NOT_SET_HERE}' } } }");
    let loaded = world.load().unwrap();
    let note = loaded.notes.iter().find(|note| note.kind == NoteKind::UnsetVariable).unwrap();
    assert_eq!(
        note.message,
        "variables that are not set: NOT_SET_HERE at channels.telegram.botToken"
    );
}

/// Case 14: a mode that a plugin calls outdated.
#[test]
fn modes_are_rewritten_for_one_profile_only() {
    let world = World::new(
        "{ auth: { profiles: {
           'anthropic:claude-cli': { provider: 'anthropic', mode: 'token' },
           'anthropic:manual': { provider: 'anthropic', mode: 'token' } } } }",
    );
    let loaded = world.load().unwrap();
    let profiles = &loaded.config.auth.as_ref().unwrap().profiles;
    assert_eq!(profiles["anthropic:claude-cli"].mode.as_str(), "oauth");
    assert_eq!(profiles["anthropic:manual"].mode.as_str(), "token");
    let note = loaded.notes.iter().find(|note| note.kind == NoteKind::RewrittenMode).unwrap();
    assert_eq!(note.message, "Updated auth.profiles[\"anthropic:claude-cli\"].mode → \"oauth\".");
    assert!(world.text().contains("mode: 'token' }"), "loading writes nothing");
}

#[test]
fn before_the_plugins_are_known_their_keys_pass() {
    let mut world = World::new(
        "{ auth: { acmeSso: { x: 1 } }, models: { providers: { p: { api: 'acme' } } } }",
    );
    assert_eq!(world.load().unwrap_err().issues().len(), 2);
    world.extensions.auth = None;
    world.extensions.dialects = None;
    assert!(world.load().is_ok());
}

#[test]
fn paths_below_home_are_expanded_where_the_key_says_path() {
    let world = World::new(
        "{ agents: { defaults: { workspace: '~/w' }, list: [{ id: 'a', name: '~/x', agentDir: '~' }] },
           plugins: { load: { paths: ['~/p'] } }, logging: { file: '~other/l' } }",
    );
    let loaded = world.load().unwrap();
    let home = world.path("").display().to_string();
    let home = home.trim_end_matches('/');
    let agents = loaded.config.agents.as_ref().unwrap();
    assert_eq!(agents.defaults.as_ref().unwrap().workspace.as_ref().unwrap(), &format!("{home}/w"));
    assert_eq!(agents.list[0].name.as_deref(), Some("~/x"));
    assert_eq!(agents.list[0].agent_dir.as_ref().unwrap().as_str(), home);
    assert_eq!(
        loaded.config.plugins.as_ref().unwrap().load.as_ref().unwrap().paths[0],
        format!("{home}/p")
    );
    assert_eq!(loaded.value()["logging"]["file"], "~other/l");
}

#[test]
fn the_default_agent() {
    let id = |text: &str| World::new(text).load().unwrap().config.default_agent().to_string();
    assert_eq!(id("{ agents: { list: [{ id: 'B' }, { id: 'c', default: true }] } }"), "c");
    assert_eq!(id("{ agents: { list: [{ id: 'My B' }, { id: 'c' }] } }"), "my-b");
    assert_eq!(id("{ agents: { list: [] } }"), "main");
}

#[test]
fn a_model_choice_says_whether_fallbacks_were_named() {
    let world = World::new(
        "{ agents: { defaults: { model: 'a/b' }, list: [
           { id: 'x', model: { primary: 'c', fallbacks: [] } }, { id: 'y', model: {} } ] } }",
    );
    let agents = world.load().unwrap().config.agents.unwrap();
    let model = agents.defaults.unwrap().model.unwrap();
    assert_eq!((model.primary.as_deref(), model.fallbacks), (Some("a/b"), None));
    assert_eq!(agents.list[0].model.as_ref().unwrap().fallbacks, Some(vec![]));
    assert_eq!(agents.list[1].model.as_ref().unwrap().fallbacks, None);
}

#[test]
fn other_crates_can_point_into_the_file() {
    let world = World::new("{\n  models: { providers: { p: { baseUrl: 'http://a' } } },\n}\n");
    let loaded = world.load().unwrap();
    let path: KeyPath = "models.providers.p.baseUrl".parse().unwrap();
    let issue = loaded.issue(IssueCode::BadValue, path.clone(), "plain http");
    assert_eq!((issue.line, issue.column), (Some(2), Some(40)));
    assert!(issue.excerpt.unwrap().contains("baseUrl: '***'"));
    let missing = loaded.issue(IssueCode::MissingKey, path.key("x").key("y"), "missing");
    assert_eq!(missing.line, Some(2));
}

#[test]
fn a_long_string_is_fine_and_a_deep_file_is_not() {
    let long = "x".repeat(1 << 20);
    let loaded = World::new(&format!("{{ env: {{ A: '{long}' }} }}")).load().unwrap();
    assert_eq!(loaded.env.get("A").unwrap().0.len(), 1 << 20);
    // The excerpt of a line with a megabyte in it stays short.
    let error = World::new(&format!("{{ env: {{ A: '{long}', B: 1 }} }}")).load().unwrap_err();
    assert!(error.to_string().len() < 1_000, "{}", error.to_string().len());
    for (open, close) in [("[", "]"), ("{a:", "}")] {
        let text = format!("{{a:{}1{}}}", open.repeat(10_000), close.repeat(10_000));
        let error = World::new(&text).load().unwrap_err();
        assert_eq!(messages(&error), ["nested deeper than 128 levels"]);
        assert!(error.to_string().len() < 1_000, "{error}");
        // Not even closed.
        let error = World::new(&format!("{{a:{}", open.repeat(10_000))).load().unwrap_err();
        assert_eq!(messages(&error), ["nested deeper than 128 levels"]);
    }
    let huge = World::new(&" ".repeat(9 << 20)).load().unwrap_err();
    assert!(messages(&huge)[0].ends_with("is larger than 8 MiB"));
}

#[test]
fn the_excerpt_of_a_long_line_is_short() {
    let keys: String = (0..20_000).map(|n| format!("key{n}: {n}, ")).collect();
    let error = World::new(&format!("{{ channels: {{ {keys} }}, nope: {{ {keys} }} }}"))
        .load()
        .unwrap_err();
    assert_eq!(error.issues().len(), 1);
    assert!(error.to_string().len() < 1_000, "{}", error.to_string().len());
    assert!(error.to_string().contains("nope: {"), "{error}");
}

#[test]
fn what_stands_in_place_of_the_file() {
    let world = World::empty();
    fs::create_dir(&world.file).unwrap();
    let error = world.load().unwrap_err();
    assert_eq!(error.issues()[0].code, IssueCode::Io);
    assert!(messages(&error)[0].ends_with("moltbot.json is a directory, not a file"));
    fs::remove_dir(&world.file).unwrap();

    symlink("moltbot.json", &world.file).unwrap();
    let error = world.load().unwrap_err();
    assert!(
        messages(&error)[0].ends_with("is a symbolic link that leads back to itself"),
        "{error}"
    );
    fs::remove_file(&world.file).unwrap();

    symlink("/dev/null", &world.file).unwrap();
    let error = world.load().unwrap_err();
    assert!(messages(&error)[0].ends_with("it is not a regular file"), "{error}");
    fs::remove_file(&world.file).unwrap();

    world.write("plain", "");
    let below = World::at(&world.path("plain/moltbot.json"), "/h");
    let error = load(&below.input()).unwrap_err();
    assert!(messages(&error)[0].ends_with("a part of the path is not a directory"), "{error}");
}

#[test]
fn an_unreadable_file_is_named() {
    let world = World::new("{}");
    fs::set_permissions(&world.file, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&world.file).is_ok() {
        eprintln!("skipped: this user reads every file");
        return;
    }
    let error = world.load().unwrap_err();
    assert!(
        messages(&error)[0].ends_with("permission denied; check its owner and mode"),
        "{error}"
    );
}

#[test]
fn a_newer_version_is_noted() {
    let kinds = |version: &str| -> Vec<NoteKind> {
        let text = format!("{{ meta: {{ lastTouchedVersion: '{version}' }} }}");
        World::new(&text).load().unwrap().notes.into_iter().map(|note| note.kind).collect()
    };
    assert_eq!(kinds("9.0.0"), [NoteKind::NewerVersion]);
    assert_eq!(kinds("2026.1.24-3"), [], "the original program's versions are years");
}

/// The secret lost its own quotes inside the quotes of a key.
#[test]
fn a_key_with_a_secret_in_it_is_hidden() {
    const SECRET: &str = "sk-ant-api03-Zq8Xw2Lm_N4pRt6Vy-Kd7Fh3Js5Gb";
    for key in [
        format!("\"{SECRET}anthropic:claude-cli"),
        format!("anthropic:clau{SECRET}de-cli"),
        format!("anthropic:{SECRET}.x"),
        SECRET.to_string(),
    ] {
        for text in [
            format!("{{ auth: {{ '{key}': null }} }}"),
            format!("{{ '{key}': {{ a: 1 }} }}"),
            format!("{{ auth: {{ order: {{ '{key}': 5 }} }} }}"),
            format!("{{ models: {{ providers: {{ '{key}': {{ x: 5 }} }} }} }}"),
            format!("{{ auth: {{ '{key}': null"),
        ] {
            let error = World::new(&text).load().unwrap_err();
            let shown = format!("{error}\n{}", error.to_json());
            assert!(!shown.contains("Zq8Xw2Lm"), "{shown}\nfor {text}");
        }
    }
}

fn configuration() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let key = prop_oneof![
        Just("auth"),
        Just("env"),
        Just("agents"),
        Just("list"),
        Just("defaults"),
        Just("models"),
        Just("model"),
        Just("$include"),
        Just("profiles"),
        Just("'anthropic:claude-cli'"),
        Just("mode"),
        Just("id"),
        Just("agent"),
        Just("routing"),
        Just("identity"),
        Just("gateway"),
        Just("token"),
        Just("vars"),
        Just("shellEnv"),
        Just("plugins"),
        Just("x"),
        Just("meta"),
    ];
    let leaf = prop_oneof![
        Just("null".to_string()),
        Just("true".into()),
        Just("NaN".into()),
        "-?[0-9]{1,20}",
        "'[a-z~./${}A-Z]{0,8}'",
        "\"\\$\\{[A-Z]{1,3}\\}\"",
        "[a-z\\[\\]{},:'\"]{0,6}",
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[{}]", items.join(","))),
            proptest::collection::vec((key.clone(), inner), 0..6).prop_map(|members| {
                let members: Vec<String> =
                    members.iter().map(|(k, v)| format!("{k}: {v}")).collect();
                format!("{{ {} }}", members.join(",\n"))
            }),
        ]
    })
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(400))]

    /// Whatever the file holds, loading ends with a configuration or a sentence.
    #[test]
    fn no_text_makes_loading_panic(text in configuration()) {
        let world = World::new(&text);
        if let Err(error) = world.load() {
            proptest::prop_assert!(!error.issues().is_empty());
            let _ = (error.to_string(), error.to_json());
        }
        let _ = shell_import(&world.input());
    }

    /// A secret stays hidden wherever a mistake puts it: no twelve characters of it in any error.
    #[test]
    fn no_error_repeats_a_secret(text in configuration(), at in 0_usize..400, form in 0_usize..8) {
        const SECRET: &str = "sk-ant-api03-Zq8Xw2Lm_N4pRt6Vy-Kd7Fh3Js5Gb";
        let secret = match form {
            0 => format!("'{SECRET}'"),
            1 => format!("\"{SECRET}"),
            2 => format!("{SECRET}'"),
            3 => format!(" // {SECRET}\n"),
            4 => format!("'{SECRET}': "),
            5 => format!("{{ apiKey: {SECRET} }}"),
            6 => format!("'{SECRET}' '{SECRET}'"),
            _ => SECRET.to_string(),
        };
        let mut text = text.replace("$include", "include");
        let at = text.char_indices().map(|(at, _)| at).nth(at).unwrap_or(text.len());
        text.insert_str(at, &secret);
        let world = World::new(&text);
        if let Err(error) = world.load() {
            let shown = format!("{error}\n{}", error.to_json());
            for piece in SECRET.as_bytes().windows(12) {
                let piece = std::str::from_utf8(piece).unwrap();
                proptest::prop_assert!(!shown.contains(piece), "{piece} in {shown}\nfor {text}");
            }
        }
    }

    #[test]
    fn no_bytes_make_loading_panic(bytes in proptest::collection::vec(0_u8..=255, 0..200)) {
        let world = World::empty();
        fs::write(&world.file, &bytes).unwrap();
        if let Err(error) = world.load() {
            let _ = error.to_string();
        }
    }
}
