//! Every plugin of the workspace over all four carriers: linked, in memory, loaded and spawned, with
//! the same offers, results and transcripts.

use moltbot_abi::host;
use moltbot_core::{Offer, Plugin};
use moltbot_testkit::{Conformance, ScriptedHost, call, fake, headless, login, sample_provider};

use super::fixtures::{Form, bundle, pinned, place};

const LINKED: &[&Plugin] = &[
    &moltbot_plugin_anthropic::PLUGIN,
    &moltbot_plugin_api_key::PLUGIN,
    &moltbot_plugin_claude_cli::PLUGIN,
    &moltbot_plugin_claude_cli_oauth::PLUGIN,
    &moltbot_plugin_command::PLUGIN,
    &moltbot_plugin_keyring::PLUGIN,
    &moltbot_plugin_sdk_profile::PLUGIN,
    &moltbot_plugin_setup_token::PLUGIN,
    &moltbot_plugin_workload_identity::PLUGIN,
];

/// A plugin that is not named here, or not in the bundle, would be missed without a word.
#[test]
fn no_plugin_of_the_workspace_is_missing() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
    let dirs = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let named = |dir: &std::path::PathBuf| dir.file_name().unwrap().to_str().unwrap().to_string();
    let mut there: Vec<_> =
        dirs.filter(|dir| dir.join("Cargo.toml").is_file()).map(|dir| named(&dir)).collect();
    there.sort_unstable();
    let mut here: Vec<_> = LINKED.iter().map(|plugin| plugin.id.to_string()).collect();
    here.sort_unstable();
    assert_eq!(
        here, there,
        "name it in LINKED, in tests/Cargo.toml and in tests/fixtures/bundle (Cargo.toml, lib.rs)"
    );
}

/// Writes down all that a plugin does with people who answer everything, and with nobody there.
fn told(plugin: &'static Plugin) -> String {
    let mut text = String::new();
    let mut infos = vec![sample_provider()];
    // What the vendor's own methods offer themselves to.
    infos.push(moltbot_plugin_anthropic::PLUGIN.providers[0].info());
    infos.extend(plugin.providers.iter().map(|provider| provider.info()));
    for method in plugin.auth {
        text += &format!("{}: {:?}\n", method.id(), method.settings());
        for info in &infos {
            for offer in method.offers(info) {
                text += &format!("{offer:?}\n");
                for (name, call) in
                    [("answered", call(info, &offer)), ("nobody", headless(call(info, &offer)))]
                {
                    let host = answering(&offer);
                    let done = login(*method, &host, &call);
                    text += &format!("{name}: {done:?}\n{}\n", host.transcript());
                }
            }
        }
    }
    text
}

fn answering(offer: &Offer) -> ScriptedHost {
    let fields = offer.fields.iter();
    fields.fold(ScriptedHost::new(), |host, field| host.answer(&field.id, fake("sk-ant-api03-")))
}

/// What the suite finds without the scenes that each plugin's own test adds: nothing, or of some
/// that it needs one, but of each carrier the same.
fn found(plugin: &'static Plugin) -> Vec<String> {
    let chat = r#"{"model":"sample-1","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}"#;
    let suite = Conformance::of(plugin).chat(chat).reply(b"event: ping\ndata: {}\n\n");
    suite.run().iter().map(ToString::to_string).collect()
}

/// The suite carries what it is given in memory, too.
#[test]
fn every_plugin_is_the_same_over_every_carrier() {
    for form in [Form::Library, Form::Process] {
        let dir = tempfile::tempdir().unwrap();
        let (file, pin) = pinned(bundle(form), form);
        let carried = host::open(&file, &pin, &place(dir.path()), false).unwrap();
        let ids: Vec<_> = carried.iter().map(|one| one.plugin().id).collect();
        assert_eq!(ids, LINKED.iter().map(|one| one.id).collect::<Vec<_>>());
        for (linked, carried) in LINKED.iter().zip(&carried) {
            let name = format!("{} as {form:?}", linked.id);
            let (linked, carried) = (*linked, carried.plugin());
            assert!(!linked.auth.is_empty() || !linked.providers.is_empty());
            assert_eq!(told(linked), told(carried), "{name}");
            assert_eq!(found(linked), found(carried), "{name}");
        }
    }
}
