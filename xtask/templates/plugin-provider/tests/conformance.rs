//! The suite that every plugin passes, and what only this one knows.

use moltbot_core::{DecoderMode, Event};
use moltbot_plugin_template_name::TemplateName;
use moltbot_testkit::decode;

const REPLY: &[u8] = b"data: {\"text\":\"Hel\"}\n\ndata: {\"text\":\"lo\"}\n\ndata: {\"stop\":\"end_turn\"}\n\n";

moltbot_testkit::conformance!(moltbot_plugin_template_name::PLUGIN, |suite| suite
    .chat(r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#)
    .reply(REPLY));

#[test]
fn a_reply_is_its_texts_in_order() {
    let events = decode(&TemplateName, DecoderMode::Full, REPLY);
    let texts: String = events
        .iter()
        .filter_map(|event| match event {
            Event::Text { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(texts, "Hello");
    assert!(matches!(events.last(), Some(Event::TurnEnd { .. })));
}
