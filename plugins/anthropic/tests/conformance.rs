//! The suite that every plugin passes, linked and through the wire.

moltbot_testkit::conformance!(moltbot_plugin_anthropic::PLUGIN, |suite| suite
    .chat(include_str!("fixtures/chat.json"))
    .reply(include_bytes!("fixtures/sse/text.sse"))
    .reply(include_bytes!("fixtures/sse/tools.sse"))
    .reply(include_bytes!("fixtures/sse/error.sse"))
    .reply(include_bytes!("fixtures/sse/tools.json")));
