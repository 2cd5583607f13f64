//! A lab in this process, and a config that sends everything to it.

use moltbot_lab::{Lab, LabOptions, LogEntry, parse_plan};
use serde_json::{Value, json};

use super::Sandbox;

/// Starts a lab with a plan (`"[]"` for none).
pub(crate) fn lab(plan: &str) -> Lab {
    let plan = parse_plan(plan, "test").expect("a plan");
    Lab::start_on_thread(LabOptions { plan, ..LabOptions::default() }).expect("a lab")
}

impl Sandbox {
    /// Writes a config that sends requests for Anthropic to the lab, and has `more` beside.
    pub(crate) fn use_lab(&self, lab: &Lab, more: Value) {
        let mut config = json!({ "models": { "providers": {
            "anthropic": { "baseUrl": lab.url(), "models": [] } } } });
        merge(&mut config, more);
        self.write_config(&config.to_string());
    }
}

/// Returns the requests for messages that the lab received.
pub(crate) fn messages(lab: &Lab) -> Vec<LogEntry> {
    lab.log().into_iter().filter(|entry| entry.path() == "/v1/messages").collect()
}

/// Returns the fingerprint under which the lab's log shows a credential.
pub(crate) fn used(entry: &LogEntry) -> &str {
    &entry.credentials.first().expect("a credential").sha256
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
