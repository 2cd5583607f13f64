//! Loads every sample under `tests/samples/config`: each bad one must give exactly the text that
//! stands beside it, each good one must load and survive an edit.
//!
//! `MOLTBOT_BLESS=1 cargo test -p moltbot-config --test samples` writes the expected texts anew;
//! read the difference before you keep it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common;

use std::fs;
use std::path::PathBuf;

use common::World;
use moltbot_config::{Env, KeyPath, NoteKind};
use serde_json::Value;

fn samples(kind: &str) -> Vec<PathBuf> {
    let dir =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/samples/config").join(kind);
    let mut files: Vec<PathBuf> = fs::read_dir(fs::canonicalize(dir).unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json5"))
        .collect();
    files.sort();
    files
}

#[test]
fn bad_samples_say_what_is_wrong() {
    let samples = samples("bad");
    assert!(samples.len() >= 50, "{}", samples.len());
    let bless = std::env::var_os("MOLTBOT_BLESS").is_some();
    let mut wrong = Vec::new();
    for sample in samples {
        let dir = sample.parent().unwrap().display().to_string();
        let world = World::at(&sample, "/h");
        let text = match world.load() {
            Ok(_) => "it loads".to_string(),
            Err(error) => {
                assert!(!error.issues().is_empty());
                assert_eq!(error.to_json()["valid"], false);
                error.to_string().replace(&dir, "$DIR") + "\n"
            }
        };
        assert!(!text.contains("FAKE") && !text.contains("0123"), "a secret shows: {text}");
        let expected = sample.with_extension("expected");
        if bless {
            fs::write(&expected, &text).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != text {
            wrong.push(format!("=== {}\n{text}", expected.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn good_samples_load_and_can_be_edited() {
    let samples = samples("good");
    assert!(samples.len() >= 6, "{}", samples.len());
    for sample in samples {
        let name = sample.file_name().unwrap().to_string_lossy().into_owned();
        let mut world = World::copy_of(sample.parent().unwrap(), &name);
        world.env = Env::new([
            ("ANTHROPIC_API_KEY", "sk-ant-api03-FAKE"),
            ("TELEGRAM_BOT_TOKEN", "123:FAKE"),
            ("GATEWAY_TOKEN", "FAKE-gateway"),
        ]);
        let loaded = world.load().unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut before = loaded.value().clone();
        // What the types hold must be what the text says.
        let primary = loaded
            .config
            .agents
            .as_ref()
            .and_then(|agents| agents.defaults.as_ref()?.model.as_ref()?.primary.clone());
        let in_text = ["agents.defaults.model.primary", "agents.defaults.model"]
            .iter()
            .find_map(|path| path.parse::<KeyPath>().unwrap().find(&before)?.as_str());
        assert_eq!(primary.as_deref(), in_text, "{name}");

        let path: KeyPath = "gateway.http.endpoints.chatCompletions.enabled".parse().unwrap();
        let mut editor = world.edit();
        editor.set(&path, &Value::Bool(true)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let changed = common::commit(editor).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!changed.files.is_empty(), "{name}");
        let mut after = changed.loaded.value().clone();
        assert_eq!(path.find(&after), Some(&Value::Bool(true)), "{name}");
        // Everything else is as before, includes and variables too.
        for value in [&mut before, &mut after] {
            value.as_object_mut().unwrap().remove("meta");
            value.as_object_mut().unwrap().remove("gateway");
        }
        assert_eq!(before, after, "{name}");
    }
}

#[test]
fn unused_sections_are_named_once() {
    let sample = samples("good").into_iter().find(|path| path.ends_with("everything.json5"));
    let world = World::at(&sample.expect("a sample with every section"), "/h");
    let loaded = world.load().unwrap_or_else(|error| panic!("{error}"));
    let notes: Vec<_> =
        loaded.notes.iter().filter(|note| note.kind == NoteKind::UncheckedSections).collect();
    assert_eq!(notes.len(), 1);
    assert!(notes[0].message.contains("channels"), "{}", notes[0].message);
    assert!(loaded.notes.iter().any(|note| note.kind == NoteKind::IgnoredPluginPaths));
}
