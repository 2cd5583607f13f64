//! Editing: what changes, what stays, and what is on disk afterwards or after a refusal.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use common::{NOW, VERSION, World};
use moltbot_config::{
    AliasAdded, AuthMode, ConfigError, Editor, IssueCode, KeyPath, ModelSlot, ProfileRecord,
};
use serde_json::{Value, json};

fn path(text: &str) -> KeyPath {
    text.parse().unwrap()
}

fn mode(world: &World, name: &str) -> u32 {
    fs::metadata(world.path(name)).unwrap().permissions().mode() & 0o777
}

/// The file without what every write stamps.
fn unstamped(world: &World) -> String {
    let text = world.text();
    let Some(at) = text.find("meta: {").or_else(|| text.find("\"meta\": {")) else { return text };
    let line = text[..at].rfind('\n').map_or(0, |at| at + 1);
    let end = at + text[at..].find('}').unwrap() + 1;
    let end = end + text[end..].find('\n').map_or(0, |at| at + 1);
    format!("{}{}", &text[..line], &text[end..])
}

const FILE: &str = "\
// mine
{
  $include: './base.json5', // shared
  env: { KEY: '${SECRET_X}' }, // stays a reference
  agents: {
    defaults: {
      model: { primary: 'anthropic/claude-opus-4-5' }, // the big one
    },
  },
}
";

fn with_base() -> World {
    let mut world = World::new(FILE);
    world.write("base.json5", "{ logging: { level: 'info' }, gateway: { port: 1 } }\n");
    world.env = moltbot_config::Env::new([("SECRET_X", "FAKE-secret")]);
    world
}

/// Case 12.
#[test]
fn setting_the_model_keeps_everything_else() {
    let world = with_base();
    fs::set_permissions(&world.file, fs::Permissions::from_mode(0o644)).unwrap();
    let changed = world
        .change(|editor| editor.set_model(ModelSlot::Main, "anthropic/claude-sonnet-4-5"))
        .unwrap();
    assert_eq!(changed.files.as_slice(), std::slice::from_ref(&world.file));
    assert_eq!(unstamped(&world), FILE.replace("opus", "sonnet"));
    assert!(world.text().contains("lastTouchedVersion: '0.1.0'"), "{}", world.text());
    assert_eq!(world.read("moltbot.json.bak"), FILE);
    assert_eq!((mode(&world, "moltbot.json"), mode(&world, "moltbot.json.bak")), (0o600, 0o600));
    assert_eq!(world.names(), ["base.json5", "moltbot.json", "moltbot.json.bak"]);
    assert_eq!(changed.loaded.env.get("KEY").unwrap().0, "FAKE-secret");
}

/// Case 13.
#[test]
fn five_backups_are_kept() {
    let world = World::new("{}");
    for port in 1..=6 {
        world.change(|editor| editor.set(&path("gateway.port"), &json!(port))).unwrap();
    }
    let names = world.names();
    assert_eq!(
        names,
        [
            "moltbot.json",
            "moltbot.json.bak",
            "moltbot.json.bak.1",
            "moltbot.json.bak.2",
            "moltbot.json.bak.3",
            "moltbot.json.bak.4"
        ]
    );
    assert!(
        world.read("moltbot.json.bak").contains("port: 5")
            || world.read("moltbot.json.bak").contains("\"port\": 5")
    );
    assert!(world.read("moltbot.json.bak.4").contains("1"));
}

/// Case 14, second half.
#[test]
fn a_pending_mode_is_written_with_the_next_change() {
    let world = World::new(
        "{ auth: { profiles: { 'anthropic:claude-cli': { provider: 'anthropic', mode: 'token' } } } }",
    );
    let changed = world.change(|editor| editor.set(&path("gateway.port"), &json!(1))).unwrap();
    assert_eq!(
        changed.changes,
        ["Updated auth.profiles[\"anthropic:claude-cli\"].mode → \"oauth\"."]
    );
    assert!(world.text().contains("mode: 'oauth'"), "{}", world.text());
    // Without another change nothing is written.
    let world = World::new(
        "{ auth: { profiles: { 'anthropic:claude-cli': { provider: 'anthropic', mode: 'token' } } } }",
    );
    assert!(world.change(|_| Ok(())).unwrap().files.is_empty());
    assert_eq!(world.names(), ["moltbot.json"]);
}

/// Case 11, second half.
#[test]
fn repair_removes_unknown_keys_and_moves_old_ones() {
    let world = World::new(
        "{
  auth: { foo: 1, profiles: {}, bar: [1] }, // sign in
  // the old way
  agent: {
    model: 'anthropic/claude-opus-4-5', // big
    modelFallbacks: ['a/b'],
    allowedModels: ['anthropic/claude-opus-4-5'],
    modelAliases: { opus: 'anthropic/claude-opus-4-5' },
    // where it works
    workspace: '${WORK_X}',
    thinkingDefault: 'low',
  },
  identity: { name: 'Clawd' },
  routing: { allowFrom: ['+1'], groupChat: { mentionPatterns: ['@c'] } },
  telegram: { botToken: 'FAKE' },
  gateway: { token: 'FAKE' },
  tools: { bash: { timeoutSec: 5 } },
  messages: { tts: { enabled: true } },
}
",
    );
    let mut world = world;
    world.env = moltbot_config::Env::new([("WORK_X", "/w")]);
    let error = world.load().unwrap_err();
    assert!(error.is_repairable(), "{error}");
    let mut editor = world.edit();
    let done = editor.repair().unwrap();
    let changed = common::commit(editor).unwrap_or_else(|error| panic!("{error}"));
    assert!(done.contains(&"Removed auth.foo.".to_string()), "{done:?}");
    assert!(
        done.contains(&"Moved agent.workspace → agents.defaults.workspace.".into()),
        "{done:?}"
    );
    let mut value = changed.loaded.source_value().clone();
    value.as_object_mut().unwrap().remove("meta");
    assert_eq!(
        value,
        json!({
            "auth": {"profiles": {}},
            "agents": {
                "defaults": {
                    "model": {"primary": "anthropic/claude-opus-4-5", "fallbacks": ["a/b"]},
                    "models": {"anthropic/claude-opus-4-5": {"alias": "opus"}},
                    "workspace": "${WORK_X}",
                    "thinkingDefault": "low",
                },
                "list": [{"id": "main", "identity": {"name": "Clawd"}}],
            },
            "channels": {"whatsapp": {"allowFrom": ["+1"]}, "telegram": {"botToken": "FAKE"}},
            "messages": {"tts": {"auto": "always"}, "groupChat": {"mentionPatterns": ["@c"]}},
            "gateway": {"auth": {"token": "FAKE"}},
            "tools": {"exec": {"timeoutSec": 5}},
        })
    );
    let text = world.text();
    for comment in ["// sign in", "// big", "// where it works", "workspace: '${WORK_X}'"] {
        assert!(text.contains(comment), "{comment} in {text}");
    }
    assert!(world.load().is_ok());
}

#[test]
fn what_cannot_be_repaired_stays_untouched() {
    let text =
        "{ agent: { model: 'a/b' }, agents: { defaults: { model: 'c/d' } }, gateway: { port: 0 } }";
    let world = World::new(text);
    let mut editor = world.edit();
    editor.repair().unwrap();
    let error = common::commit(editor).unwrap_err();
    assert!(error.to_string().starts_with("Config validation failed: "), "{error}");
    assert_eq!(world.text(), text);
    assert_eq!(world.names(), ["moltbot.json"]);
}

#[test]
fn nothing_is_written_that_does_not_pass() {
    let text = "{ gateway: { port: 1 } }";
    let world = World::new(text);
    for (key, value, code) in [
        ("gateway.port", json!(0), IssueCode::BadValue),
        ("gateway.prot", json!(1), IssueCode::UnknownKey),
        ("auth.order", json!([]), IssueCode::WrongType),
        ("gateway.auth.token", json!("${NOT_SET_ANYWHERE}"), IssueCode::MissingVariable),
        ("agents.list", json!([{"id": "a"}, {"id": "A"}]), IssueCode::AgentConflict),
    ] {
        let error = world.change(|editor| editor.set(&path(key), &value)).unwrap_err();
        assert_eq!(error.issues()[0].code, code, "{error}");
        assert!(error.to_string().starts_with("Config validation failed: "), "{error}");
    }
    let error = world.change(|editor| editor.set(&path("gateway.port.x"), &json!(1))).unwrap_err();
    assert_eq!(error.issues()[0].code, IssueCode::Edit);
    assert_eq!((world.text().as_str(), world.names()), (text, vec!["moltbot.json".to_string()]));
}

#[test]
fn a_key_in_an_included_file_is_changed_there() {
    let world = with_base();
    let changed = world.change(|editor| editor.set(&path("gateway.port"), &json!(2))).unwrap();
    // The stamp goes to the main file.
    assert_eq!(changed.files.len(), 2);
    assert_eq!(world.read("base.json5"), "{ logging: { level: 'info' }, gateway: { port: 2 } }\n");
    assert_eq!(unstamped(&world), FILE);
    assert_eq!(
        world.read("base.json5.bak"),
        "{ logging: { level: 'info' }, gateway: { port: 1 } }\n"
    );
    world.change(|editor| editor.set(&path("gateway.mode"), &json!("local"))).unwrap();
    assert!(world.read("base.json5").contains("mode"), "the object stands there");
    world.change(|editor| editor.unset(&path("gateway.port")).map(drop)).unwrap();
    assert!(!world.read("base.json5").contains("port"));
}

#[test]
fn a_value_of_several_files_is_refused_unless_the_last_one_decides() {
    let files = |main: &str| {
        let world = World::new(main);
        world.write("a.json5", "{ order: { p: ['a'] }, maxWaitSeconds: 1 }");
        world.write("b.json5", "{ order: { p: ['b'] }, maxWaitSeconds: 2 }");
        world
    };
    let world = files("{ auth: { $include: ['a.json5', 'b.json5'] } }");
    let text = world.text();
    for key in ["auth.order.p", "auth.order.p[0]", "auth.order"] {
        let error = world.change(|editor| editor.set(&path(key), &json!(["c"]))).unwrap_err();
        let message = error.issues()[0].message.clone();
        assert!(message.contains("a.json5") && message.contains("b.json5"), "{key}: {message}");
    }
    assert_eq!(world.text(), text);
    // A scalar: the later file wins, so it is the one to change.
    world.change(|editor| editor.set(&path("auth.maxWaitSeconds"), &json!(9))).unwrap();
    assert!(world.read("b.json5").contains("maxWaitSeconds: 9"));
    assert!(world.read("a.json5").contains("maxWaitSeconds: 1"));
    // Removing it would bring the other one back.
    let error = world.change(|editor| editor.unset(&path("auth.maxWaitSeconds")).map(drop));
    assert_eq!(error.unwrap_err().issues()[0].code, IssueCode::Edit);
}

#[test]
fn a_link_stays_a_link() {
    let world = World::empty();
    fs::create_dir(world.path("dotfiles")).unwrap();
    fs::write(world.path("dotfiles/real.json"), "{ /* here */ }").unwrap();
    symlink("dotfiles/real.json", &world.file).unwrap();
    world.change(|editor| editor.set(&path("gateway.port"), &json!(1))).unwrap();
    assert!(fs::symlink_metadata(&world.file).unwrap().is_symlink());
    assert!(world.read("dotfiles/real.json").contains("/* here */"));
    assert_eq!(world.read("dotfiles/real.json.bak"), "{ /* here */ }");
    // A link to what is not there yet.
    fs::remove_file(&world.file).unwrap();
    symlink("dotfiles/new.json", &world.file).unwrap();
    world.change(|editor| editor.set(&path("gateway.port"), &json!(1))).unwrap();
    assert!(
        world.read("dotfiles/new.json").contains("18789")
            || world.read("dotfiles/new.json").contains("\"port\": 1")
    );
}

#[test]
fn a_new_file_in_a_new_directory() {
    let world = World::empty();
    let inner = World::at(&world.path("state/moltbot.json"), "/h");
    inner.change(|editor| editor.set(&path("gateway.mode"), &json!("local"))).unwrap();
    let expected = format!(
        "{{\n  \"gateway\": {{\n    \"mode\": \"local\"\n  }},\n  \"meta\": {{\n    \"lastTouchedVersion\": \"{VERSION}\",\n    \"lastTouchedAt\": \"{NOW}\"\n  }}\n}}\n"
    );
    assert_eq!(inner.text(), expected);
    assert_eq!((mode(&world, "state"), mode(&world, "state/moltbot.json")), (0o700, 0o600));
    assert!(!world.path("state/moltbot.json.bak").exists());
}

#[test]
fn byte_order_mark_and_line_ends_stay() {
    let world = World::new("\u{feff}{\r\n  gateway: { port: 1 },\r\n}\r\n");
    world.change(|editor| editor.set(&path("gateway.port"), &json!(2))).unwrap();
    let text = world.text();
    assert!(text.starts_with("\u{feff}{\r\n  gateway: { port: 2 },\r\n"), "{text:?}");
    assert!(!text.replace("\r\n", "").contains('\n'), "{text:?}");
    assert_eq!(world.read("moltbot.json.bak"), "\u{feff}{\r\n  gateway: { port: 1 },\r\n}\r\n");
}

#[test]
fn someone_elses_change_is_not_overwritten() {
    let world = World::new("{ gateway: { port: 1 } }");
    let mut editor = world.edit();
    editor.set(&path("gateway.port"), &json!(2)).unwrap();
    fs::write(&world.file, "{ gateway: { port: 3 } }").unwrap();
    let error = common::commit(editor).unwrap_err();
    assert_eq!(error.issues()[0].code, IssueCode::Busy);
    assert_eq!(world.text(), "{ gateway: { port: 3 } }");
    assert_eq!(world.names(), ["moltbot.json"]);
}

#[test]
fn two_editors_wait_for_each_other() {
    let world = World::new("{}");
    let first = world.edit();
    let Err(error) = Editor::open(world.input(), 0) else { panic!("two editors at once") };
    assert_eq!(error.issues()[0].code, IssueCode::Busy);
    drop(first);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let world = &world;
            scope.spawn(move || {
                let mut editor = Editor::open(world.input(), 60_000).unwrap();
                editor.set(&path(&format!("env.V{n}")), &json!("x")).unwrap();
                common::commit(editor).unwrap();
            });
        }
    });
    assert_eq!(world.load().unwrap().env.names().count(), 8, "{}", world.text());
}

#[test]
fn a_place_that_cannot_be_written() {
    let world = World::empty();
    fs::create_dir(&world.file).unwrap();
    let Err(error) = Editor::open(world.input(), 0) else { panic!("a directory was opened") };
    assert!(error.to_string().contains("is a directory, not a file"), "{error}");
    fs::remove_dir(&world.file).unwrap();
    symlink("moltbot.json", &world.file).unwrap();
    let Err(error) = Editor::open(world.input(), 0) else { panic!("a loop was opened") };
    assert!(error.to_string().contains("leads back to itself"), "{error}");
    fs::remove_file(&world.file).unwrap();

    fs::write(&world.file, "{}").unwrap();
    fs::set_permissions(world.path(""), fs::Permissions::from_mode(0o500)).unwrap();
    let result = world.change(|editor| editor.set(&path("gateway.port"), &json!(1)));
    fs::set_permissions(world.path(""), fs::Permissions::from_mode(0o700)).unwrap();
    match result {
        Ok(_) => eprintln!("skipped: this user writes everywhere"),
        Err(error) => {
            assert!(error.to_string().contains("permission denied"), "{error}");
            assert_eq!(world.text(), "{}");
        }
    }
}

#[test]
fn profiles_are_recorded_and_forgotten() {
    let world = World::new("{ auth: { order: { p: ['p:a', /* keep */ 'p:b'] } } }");
    let record = |editor: &mut Editor<'_>, id, provider, mode| {
        editor.record_profile(&ProfileRecord { id, provider, mode, email: None })
    };
    world.change(|editor| record(editor, "p:b", "p", AuthMode::ApiKey)).unwrap();
    assert!(world.text().contains("/* keep */"), "{}", world.text());
    let loaded = world.change(|editor| record(editor, "q:x", "q", AuthMode::Token)).unwrap().loaded;
    assert_eq!(loaded.value()["auth"]["order"], json!({"p": ["p:b", "p:a"]}), "never created");
    assert_eq!(
        loaded.value()["auth"]["profiles"]["q:x"],
        json!({"provider": "q", "mode": "token"})
    );
    world.change(|editor| record(editor, "q:x", "q", AuthMode::Oauth)).unwrap();
    let changed = world.change(|editor| {
        assert!(editor.forget_profile("p:b")?);
        assert!(!editor.forget_profile("nobody")?);
        Ok(())
    });
    let value = changed.unwrap().loaded.value().clone();
    assert_eq!(value["auth"]["order"], json!({"p": ["p:a"]}));
    assert_eq!(value["auth"]["profiles"], json!({"q:x": {"provider": "q", "mode": "oauth"}}));
}

#[test]
fn models_aliases_and_fallbacks() {
    let world = World::new("{}");
    let value = |key: &str| path(key).find(world.load().unwrap().value()).cloned();
    world.change(|e| e.set_model(ModelSlot::Main, "p/a")).unwrap();
    world.change(|e| e.set_model(ModelSlot::Image, "p/i")).unwrap();
    assert_eq!(value("agents.defaults.model"), Some(json!({"primary": "p/a"})));
    assert_eq!(value("agents.defaults.models"), None, "no limit where there was none");

    let added = |e: &mut Editor<'_>, alias: &str, model: &str, expected: AliasAdded| {
        e.add_alias(alias, model).map(|added| assert_eq!(added, expected))
    };
    world.change(|e| added(e, "big", "p/a", AliasAdded::AddedAndLimited)).unwrap();
    world.change(|e| added(e, "big", "p/a", AliasAdded::Unchanged)).unwrap();
    let message = |result: Result<_, ConfigError>| {
        result.map(|_: moltbot_config::Changed| ()).unwrap_err().issues()[0].message.clone()
    };
    let taken = world.change(|e| added(e, "Big", "p/b", AliasAdded::Added));
    assert_eq!(message(taken), "Alias big already points to p/a.");
    assert!(
        message(world.change(|e| added(e, "a b", "p/b", AliasAdded::Added))).contains("letters")
    );
    world.change(|e| e.set_model(ModelSlot::Main, "p/b")).unwrap();
    assert_eq!(value("agents.defaults.models"), Some(json!({"p/a": {"alias": "big"}, "p/b": {}})));
    world
        .change(|e| {
            assert_eq!(e.aliases().into_iter().collect::<Vec<_>>(), [("big".into(), "p/a".into())]);
            assert_eq!(e.remove_alias("BIG")?, Some("p/a".into()));
            assert_eq!(e.remove_alias("big")?, None);
            Ok(())
        })
        .unwrap();

    let fallbacks = |expected: &[&str]| {
        let found = world.edit().fallbacks(ModelSlot::Main);
        assert_eq!(found, expected);
    };
    for model in ["x/1", "x/2", "x/3", "x/2"] {
        world.change(|e| e.add_fallback(ModelSlot::Main, model).map(drop)).unwrap();
    }
    fallbacks(&["x/1", "x/2", "x/3"]);
    world.change(|e| e.remove_fallback(ModelSlot::Main, "x/2").map(|was| assert!(was))).unwrap();
    world.change(|e| e.remove_fallback(ModelSlot::Main, "x/2").map(|was| assert!(!was))).unwrap();
    fallbacks(&["x/1", "x/3"]);
    assert_eq!(value("agents.defaults.model.primary"), Some(json!("p/b")));
    world.change(|e| e.clear_fallbacks(ModelSlot::Main)).unwrap();
    fallbacks(&[]);
}

#[test]
fn a_plain_model_stays_plain_until_it_needs_fallbacks() {
    let world = World::new("{ agents: { defaults: { model: 'p/a' } } } // end\n");
    world.change(|e| e.set_model(ModelSlot::Main, "p/b")).unwrap();
    assert!(world.text().contains("model: 'p/b'"), "{}", world.text());
    world.change(|e| e.add_fallback(ModelSlot::Main, "p/c").map(drop)).unwrap();
    let value = world.load().unwrap().value().clone();
    assert_eq!(
        value["agents"]["defaults"]["model"],
        json!({"primary": "p/b", "fallbacks": ["p/c"]})
    );
}

/// A document with comments, both kinds of quotes and free keys under `channels`.
fn document() -> impl proptest::strategy::Strategy<Value = (String, Vec<String>)> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just("null".to_string()),
        "-?[1-9][0-9]{0,3}",
        "'[a-z #/]{0,5}'",
        "\"[a-z']{0,5}\"",
        "0x[0-9a-f]{1,3}",
    ];
    let value = leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3)
                .prop_map(|v| format!("[{}]", v.join(", "))),
            proptest::collection::btree_map("[a-d]", inner, 0..3).prop_map(|m| {
                let all: Vec<String> =
                    m.iter().map(|(k, v)| format!("{k}: {v}, /* {k} */")).collect();
                format!("{{ {} }}", all.join(" "))
            }),
        ]
    });
    proptest::collection::btree_map("[a-h]", value, 1..5).prop_map(|members| {
        let lines: Vec<String> = members
            .iter()
            .map(|(k, v)| format!("    // about {k}\n    {k}: {v}, // after {k}\n"))
            .collect();
        let keys = members.keys().cloned().collect();
        (format!("// head\n{{\n  channels: {{\n{}  }},\n}}\n// tail\n", lines.concat()), keys)
    })
}

fn any_value() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[ -~\\n\\tß\u{2028}]{0,12}"
            .prop_filter("references resolve", |s: &String| !s.contains("${"))
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            proptest::collection::btree_map("[ -~]{1,6}", inner, 0..3)
                .prop_map(|m| m.into_iter().filter(|(k, _)| k != "$include").collect()),
        ]
    })
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(150))]

    #[test]
    fn set_then_get_and_unset_then_absent(
        (text, keys) in document(),
        value in any_value(),
        key in "[a-j]",
        below in proptest::option::of("[ -~]{1,6}"),
    ) {
        let world = World::new(&text);
        let before = world.load().unwrap().source_value().clone();
        let mut place = KeyPath::keys(["channels", key.as_str()]);
        let is_object = place.find(&before).is_none_or(Value::is_object);
        if let Some(below) = below.filter(|below| is_object && below != "$include") {
            place = place.key(below);
        }
        let mut editor = world.edit();
        editor.set(&place, &value).unwrap();
        proptest::prop_assert_eq!(editor.get(&place), Some(value.clone()));
        let after = common::commit(editor).unwrap().loaded.source_value().clone();
        proptest::prop_assert_eq!(place.find(&after), Some(&value));
        for other in keys.iter().filter(|other| **other != key) {
            let other = KeyPath::keys(["channels", other.as_str()]);
            proptest::prop_assert_eq!(other.find(&after), other.find(&before));
        }
        let written = world.text();
        for comment in std::iter::once("// head").chain(std::iter::once("// tail")) {
            proptest::prop_assert!(written.contains(comment), "{}", written);
        }
        for other in &keys {
            for comment in [format!("// about {other}\n"), format!("// after {other}\n")] {
                proptest::prop_assert!(written.contains(&comment), "{comment} in {written}");
            }
        }
        let mut editor = world.edit();
        proptest::prop_assert!(editor.unset(&place).unwrap());
        proptest::prop_assert_eq!(editor.get(&place), None);
        common::commit(editor).unwrap();
        let loaded = world.load().unwrap();
        proptest::prop_assert_eq!(place.find(loaded.value()), None);
    }

    /// Replacing a scalar changes its bytes and no others.
    #[test]
    fn an_edit_keeps_all_other_bytes((text, _) in document(), new in 1_u32..9999) {
        let text = text.replacen("channels: {\n", "channels: {\n    target:  /* x */ 'OLD' ,\n", 1);
        let world = World::new(&text);
        let mut editor = world.edit();
        editor.set(&path("channels.target"), &json!(new)).unwrap();
        common::commit(editor).unwrap();
        proptest::prop_assert_eq!(unstamped(&world), text.replacen("'OLD'", &new.to_string(), 1));
    }
}
