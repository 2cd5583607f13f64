//! The whole document, and its small sections.

use std::collections::BTreeMap;

use moltbot_core::Secret;

use super::{
    Agents, Auth, Gateway, Models, NonEmpty, Rest, Sha256, Shape, TextRule, Unchecked, choice,
    section,
};

/// Sections of other parts of the original program: accepted, kept, not looked at (decision 11).
pub const UNCHECKED_SECTIONS: &[&str] = &[
    "$schema",
    "approvals",
    "audio",
    "bindings",
    "broadcast",
    "browser",
    "canvasHost",
    "channels",
    "commands",
    "cron",
    "diagnostics",
    "discovery",
    "hooks",
    "logging",
    "media",
    "memory",
    "messages",
    "nodeHost",
    "session",
    "skills",
    "talk",
    "tools",
    "ui",
    "update",
    "web",
    "wizard",
];

section! {
    /// The configuration, checked and complete. Nothing in it is a hidden default: what is `None`
    /// was not said (spec C-28).
    #[derive(Default)]
    Config {
        /// Variables for this program and for `${NAME}` in this file.
        env "env": Option<EnvSection>,
        /// Which profiles exist and how they are used.
        #[serde(default)]
        auth "auth": Option<Auth>,
        /// Providers and models beyond the built-in ones.
        models "models": Option<Models>,
        /// Agents and what they share.
        agents "agents": Option<Agents>,
        /// The server.
        gateway "gateway": Option<Gateway>,
        /// Plugins.
        plugins "plugins": Option<Plugins>,
        /// Written by the program.
        meta "meta": Option<Meta>,
    } and Rest::Unchecked(UNCHECKED_SECTIONS)
}

section! {
    /// What stands under `env`.
    #[derive(Default)]
    EnvSection {
        /// Whether to ask the login shell for keys.
        shell_env "shellEnv": Option<ShellEnv>,
        /// Variables by name.
        #[serde(default)]
        vars "vars": BTreeMap<String, Secret>,
    } and Rest::Each(&Shape::Text(TextRule::Free)),
    /// Variables that stand directly under `env`; they win over `vars`.
    direct: BTreeMap<String, Secret>
}

section! {
    /// What stands under `env.shellEnv`.
    #[derive(Default)]
    ShellEnv {
        /// Whether to ask; unset: false.
        enabled "enabled": Option<bool>,
        /// How long to wait for the shell; unset: 15000.
        timeout_ms "timeoutMs": Option<u32>,
    }
}

section! {
    /// What stands under `plugins`.
    #[derive(Default)]
    Plugins {
        /// Whether plugins run at all; unset: true.
        enabled "enabled": Option<bool>,
        /// If there are any, only these run.
        #[serde(default)]
        allow "allow": Vec<String>,
        /// These do not run.
        #[serde(default)]
        deny "deny": Vec<String>,
        /// Settings by plugin.
        #[serde(default)]
        entries "entries": BTreeMap<String, PluginEntry>,
        /// Accepted for old files and ignored.
        load "load": Option<Load>,
        /// Plugins outside this program that may be loaded.
        #[serde(default)]
        trusted "trusted": Vec<TrustedPlugin>,
    } and Rest::Unchecked(&["installs", "slots"])
}

section! {
    /// One entry of `plugins.entries`.
    #[derive(Default)]
    PluginEntry {
        /// Whether it runs.
        enabled "enabled": Option<bool>,
        /// Its settings; the plugin checks them.
        config "config": Option<Unchecked>,
    }
}

section! {
    /// What stands under `plugins.load`.
    #[derive(Default)]
    Load {
        /// Where an older version looked for plugins.
        #[serde(default)]
        paths "paths": Vec<String>,
    }
}

section! {
    /// One entry of `plugins.trusted`.
    TrustedPlugin {
        /// The file.
        path "path": NonEmpty,
        /// Its SHA-256 sum; another file is not loaded.
        sha256 "sha256": Sha256,
        /// How it is run.
        kind "kind": PluginKind,
        /// Whether a library that cannot unwind is accepted; unset: false.
        allow_abort "allowAbort": Option<bool>,
    }
}

choice! {
    /// How a plugin is run.
    PluginKind {
        /// Loaded into this process.
        Library "library",
        /// As a process of its own.
        Process "process",
    }
}

section! {
    /// What stands under `meta`.
    #[derive(Default)]
    Meta {
        /// The version that wrote this file last.
        last_touched_version "lastTouchedVersion": Option<String>,
        /// When it did.
        last_touched_at "lastTouchedAt": Option<String>,
    }
}
