//! A directory with a configuration in it, and everything that loading needs.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::fs;
use std::path::{Path, PathBuf};

use moltbot_config::{
    Changed, ConfigError, Editor, Env, Extensions, LoadInput, Loaded, ModeMigration, Paths,
    PathsInput, PluginSettings, Setting, SettingKind, Stamp, load,
};

pub(crate) const VERSION: &str = "0.1.0";
pub(crate) const NOW: &str = "2026-01-27T10:00:00.000Z";

pub(crate) struct World {
    pub(crate) dir: Option<tempfile::TempDir>,
    pub(crate) file: PathBuf,
    pub(crate) env: Env,
    pub(crate) extensions: Extensions,
    home: PathBuf,
    paths: Paths,
}

/// What a build with one imaginary method and one dialect adds to the schema.
pub(crate) fn extensions() -> Extensions {
    let setting = |name: &str, kind| Setting { name: name.into(), kind, doc: "A setting.".into() };
    let words = vec!["owner".to_string(), "off".to_string()];
    let settings =
        vec![setting("refresh", SettingKind::OneOf(words)), setting("on", SettingKind::Flag)];
    Extensions {
        auth: Some(vec![PluginSettings { key: "acmeSso".into(), settings }]),
        dialects: Some(vec!["anthropic-messages".into()]),
        modes: vec![ModeMigration {
            profile: "anthropic:claude-cli".into(),
            from: "token".into(),
            to: "oauth".into(),
        }],
    }
}

impl World {
    /// A fresh directory whose configuration holds `text`.
    pub(crate) fn new(text: &str) -> Self {
        let world = Self::empty();
        fs::write(&world.file, text).unwrap();
        world
    }

    /// A fresh directory without a configuration.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = fs::canonicalize(dir.path()).unwrap();
        let file = home.join("moltbot.json");
        Self { dir: Some(dir), ..Self::at(&file, &home.display().to_string()) }
    }

    /// A configuration that stands somewhere else.
    pub(crate) fn at(file: &Path, home: &str) -> Self {
        let env = Env::new([("MOLTBOT_CONFIG_PATH", file.display().to_string())]);
        let home = PathBuf::from(home);
        let paths = Paths::resolve(&PathsInput {
            env: &env,
            home: &home,
            cwd: &home,
            profile: None,
            exists: &|_| false,
        });
        Self {
            dir: None,
            file: file.to_path_buf(),
            env: Env::default(),
            extensions: extensions(),
            home,
            paths,
        }
    }

    /// A copy of a directory with samples, so that one can be edited.
    pub(crate) fn copy_of(dir: &Path, name: &str) -> Self {
        let copy = tempfile::tempdir().unwrap();
        let home = fs::canonicalize(copy.path()).unwrap();
        copy_tree(dir, &home);
        Self { dir: Some(copy), ..Self::at(&home.join(name), &home.display().to_string()) }
    }

    pub(crate) fn input(&self) -> LoadInput<'_> {
        LoadInput {
            paths: &self.paths,
            env: &self.env,
            extensions: &self.extensions,
            version: VERSION,
        }
    }

    pub(crate) fn load(&self) -> Result<Loaded, ConfigError> {
        load(&self.input())
    }

    pub(crate) fn edit(&self) -> Editor<'_> {
        Editor::open(self.input(), 0).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Makes one change and writes it.
    pub(crate) fn change(
        &self,
        change: impl FnOnce(&mut Editor<'_>) -> Result<(), ConfigError>,
    ) -> Result<Changed, ConfigError> {
        let mut editor = Editor::open(self.input(), 0)?;
        change(&mut editor)?;
        commit(editor)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.home.join(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.home.join(name)).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    pub(crate) fn text(&self) -> String {
        fs::read_to_string(&self.file).unwrap()
    }

    /// Every file there is, so that a test can say that nothing else appeared.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.home)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| !name.ends_with(".guard"))
            .collect();
        names.sort();
        names
    }
}

pub(crate) fn commit(editor: Editor<'_>) -> Result<Changed, ConfigError> {
    editor.commit(Stamp { version: VERSION, now: NOW })
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
