//! What lives on beside single turns: programs over a change of the config, and what they cost.

use rustix::process::Signal;
use serde_json::json;

use super::{backed, said, served, streamed, text, wait};
use crate::gateway::Gate;

/// A program goes on over a change of the config that does not concern it.
#[test]
fn a_program_outlives_a_config_that_is_read_again() {
    let (sandbox, gate) = backed("ok");
    drop(gate);
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("log");
    let gate = Gate::logged(&sandbox, &log, &[]);
    let reads = || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.matches("the config was read again").count()
    };
    let change = |config: &serde_json::Value| {
        let before = reads();
        sandbox.write_config(&config.to_string());
        gate.signal(Signal::HUP);
        wait("the config to be read", || reads() > before);
    };
    let first = text(&gate.post_slowly("/v1/messages", &said(&["hi"])));
    let pid = first.split(':').next().unwrap().to_string();
    let mut config = served("http://127.0.0.1:9", json!({ "modelFallback": true }));
    change(&config);
    let second = text(&gate.post_slowly("/v1/messages", &said(&["hi", &first, "and?"])));
    assert_eq!(second, format!("{pid}:2:and?"), "another process answered");

    // What it would be started with is another thing now: it is not asked again.
    config["env"] = json!({ "TZ": "Europe/Vienna" });
    change(&config);
    let talk = ["hi", &first, "and?", &second, "now?"];
    let third = text(&gate.post_slowly("/v1/messages", &said(&talk)));
    assert!(third.ends_with(":1:now?") && !third.starts_with(&format!("{pid}:")), "{third}");
}

/// The program says itself what a turn costs; nobody else has a price for its models.
#[test]
fn what_the_program_says_it_costs_is_counted() {
    let (_sandbox, gate) = backed("ok");
    let first = text(&gate.post_slowly("/v1/messages", &said(&["hi"])));
    let stream = streamed(said(&["hi", &first, "and?"]));
    assert_eq!(gate.post_slowly("/v1/messages", &stream).status, 200);
    let cost = || {
        let metrics = gate.get("/metrics").text();
        let line = metrics.lines().find_map(|line| {
            line.strip_prefix("moltbot_cost_dollars_total{agent=\"main\"} ").map(String::from)
        });
        line.unwrap_or_else(|| panic!("no cost: {metrics}"))
    };
    // Each turn adds a tenth of a cent to the sum of its process.
    wait("the cost to be counted", || cost() == "0.002000");
}
