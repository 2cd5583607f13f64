//! The suite that every plugin passes, linked and through the wire.

moltbot_testkit::conformance!(moltbot_plugin_claude_cli::PLUGIN, |suite| suite
    .scene("an installed program", || moltbot_testkit::ScriptedHost::new().ran(
        "claude",
        0,
        "2.1.197 (Claude Code)\n"
    ))
    .chat(include_str!("fixtures/chat.json"))
    .reply(include_bytes!("fixtures/stream/text.jsonl"))
    .reply(include_bytes!("fixtures/stream/limit.jsonl")));
