//! `models simulate`: traces against configs, with a virtual clock.

use serde_json::{Value, json};

use crate::support::{KEY, KEY2, Sandbox, lab};

const SAMPLE: &str = include_str!("../samples/traces/noon.jsonl");

fn with_trace(text: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write(&sandbox.cwd().join("trace.jsonl"), text);
    sandbox
}

fn simulated(sandbox: &Sandbox, more: &[&str]) -> Value {
    let args = [&["models", "simulate", "--trace", "trace.jsonl", "--json"], more].concat();
    sandbox.run(&args).exits(0).json()
}

#[test]
fn the_sample_is_replayed_against_two_configs() {
    let sandbox = with_trace(SAMPLE);
    sandbox.write(
        &sandbox.cwd().join("strict.json5"),
        "{ auth: { allowPaidFallback: false, maxWaitSeconds: 0 } }",
    );
    let before = sandbox.snapshot();
    let done = simulated(&sandbox, &["--config", "strict.json5"]);
    let (usual, strict) = (&done["config"], &done["changed"]["result"]);
    for result in [usual, strict] {
        assert_eq!(result["requests"], 80);
        assert_eq!(
            result["served"].as_u64().unwrap() + result["failed"].as_u64().unwrap(),
            80,
            "{result}"
        );
    }
    // The plan serves until noon; then a key does, and the caches are written again.
    // One request falls into the service being too busy, and the budget is spent.
    assert_eq!((&usual["served"], &usual["failures"]["overloaded"]), (&json!(79), &json!(1)));
    assert_eq!(usual["profiles"]["profile:anthropic:plan"]["served"], 40);
    assert!(usual["switched"].as_u64().unwrap() >= 2, "{usual}");
    assert!(usual["cacheRewritten"].as_u64().unwrap() > 30_000, "{usual}");
    assert!(usual["cost"].as_f64().unwrap() > 0.0);
    // Without paid fallback the rest of the day fails, and costs nothing more.
    assert_eq!(strict["served"], 40, "{strict}");
    assert_eq!(strict["profiles"].as_object().unwrap().len(), 1, "{strict}");
    assert!(strict["cost"].as_f64().unwrap() < usual["cost"].as_f64().unwrap());
    // The same again, and nothing was touched.
    assert_eq!(simulated(&sandbox, &["--config", "strict.json5"]), done);
    assert_eq!(sandbox.snapshot(), before);

    let args = ["models", "simulate", "--trace", "trace.jsonl", "--config", "strict.json5"];
    let table = sandbox.run(&args).exits(0).out;
    for part in ["Served", "Switched", "Cache tokens written again", "strict.json5", "Cost"] {
        assert!(table.contains(part), "no {part} in\n{table}");
    }
}

#[test]
fn waiting_and_the_budget_are_the_runtimes() {
    let mut text = String::from("{\"profile\":{\"id\":\"anthropic:a\",\"type\":\"api_key\"}}\n");
    text.push_str("{\"at\":0,\"fault\":{\"class\":\"rate_limit\",\"for\":20,\"retryAfter\":20}}\n");
    for n in 0..5 {
        text.push_str(&format!("{{\"at\":{n},\"request\":{{\"ms\":100}}}}\n"));
    }
    let sandbox = with_trace(&text);
    let waited = simulated(&sandbox, &[])["config"].clone();
    // Four ask again as often as the budget lets them; the fifth gets the service's answer.
    assert_eq!((&waited["served"], &waited["waited"]), (&json!(4), &json!(4)), "{waited}");
    assert!(waited["longestWaitMs"].as_u64().unwrap() <= 30_000, "{waited}");
    sandbox.write_config("{ auth: { maxWaitSeconds: 0 } }");
    let refused = simulated(&sandbox, &[])["config"].clone();
    assert_eq!(refused["failed"], 5, "{refused}");
    assert_eq!(refused["failures"]["all-cooling"], 4, "{refused}");

    // 10,000 requests, all overloaded: at most a tenth more is sent.
    let mut text = String::from(
        "{\"profile\":{\"id\":\"anthropic:a\",\"type\":\"api_key\"}}\n\
         {\"profile\":{\"id\":\"anthropic:b\",\"type\":\"api_key\"}}\n\
         {\"at\":0,\"fault\":{\"class\":\"overloaded\"}}\n",
    );
    (0..10_000).for_each(|n| text.push_str(&format!("{{\"at\":{n},\"request\":{{}}}}\n")));
    let busy = simulated(&with_trace(&text), &[])["config"].clone();
    assert_eq!((&busy["requests"], &busy["failed"]), (&json!(10_000), &json!(10_000)));
    let sent = busy["sent"].as_u64().unwrap();
    assert!((10_001..=11_000).contains(&sent), "{sent}");
}

#[test]
fn recorded_requests_are_replayed_with_their_faults() {
    let plan = "[{ match: { request: 1 }, fault: { error: 'rate-limit', retryAfter: 300 } }]";
    let lab = lab(plan);
    let sandbox = Sandbox::new();
    let key = |key: &str| json!({ "type": "api_key", "provider": "anthropic", "key": key });
    sandbox.write_store(&json!({ "version": 1,
        "profiles": { "anthropic:one": key(KEY), "anthropic:two": key(KEY2) },
        "order": { "anthropic": ["anthropic:one", "anthropic:two"] } }));
    sandbox.use_lab(&lab, json!({}));
    for _ in 0..3 {
        sandbox.run(&["agent", "-m", "hi"]).exits(0);
    }
    let last = ["models", "simulate", "--last", "9", "--json"];
    let result = sandbox.run(&last).exits(0).json()["config"].clone();
    assert_eq!((&result["requests"], &result["served"]), (&json!(3), &json!(3)), "{result}");
    assert_eq!(result["sent"], 4, "the limit is met again: {result}");
    assert_eq!(result["profiles"]["profile:anthropic:two"]["served"], 3);
    // With the other key first nobody meets the limit.
    let order = ["models", "auth", "order", "set", "--provider", "anthropic"];
    sandbox.run(&[&order[..], &["anthropic:two", "anthropic:one"]].concat()).exits(0);
    let result = sandbox.run(&last).exits(0).json()["config"].clone();
    assert_eq!(result["sent"], 3, "{result}");
}

#[test]
fn what_is_wrong_is_refused_with_its_place() {
    for (text, place) in [
        (
            "{\"at\":0,\"request\":{}}\n{\"at\":-1,\"request\":{}}",
            "trace.jsonl:2:8: seconds must be",
        ),
        ("{\"at\":0,\"request\":{\"inputs\":5}}", "trace.jsonl:1:27: unknown field `inputs`"),
        ("{\"at\":0,\"fault\":{\"class\":\"429\"}}", "trace.jsonl:1:31: no class \"429\""),
        ("not a trace", "trace.jsonl:1:2: expected"),
        ("# nothing\n", "trace.jsonl: there is no request in it"),
        (
            "{\"at\":0,\"request\":{}}\n{\"at\":0,\"fault\":{\"class\":\"auth\",\"profile\":\"anthropic:no\"}}",
            "trace.jsonl:2:1: there is no profile \"anthropic:no\"",
        ),
        ("{\"at\":0,\"request\":{\"model\":\"/\"}}", "trace.jsonl:1:1: invalid model: /"),
    ] {
        let sandbox = with_trace(text);
        sandbox.run(&["models", "simulate", "--trace", "trace.jsonl"]).exits(1).says(place);
    }
    let sandbox = with_trace(SAMPLE);
    let run = |more: &[&str]| sandbox.run(&[&["models", "simulate"], more].concat()).exits(1);
    run(&["--trace", "missing.jsonl"]).says("cannot read missing.jsonl");
    run(&["--last", "0"]);
    run(&["--last", "5"]).says("there is no request in it");
    run(&[]);
    run(&["--trace", "trace.jsonl", "--config", "none.json5"]).says("there is no such file");
    sandbox.write(&sandbox.cwd().join("bad.json5"), "{ auth: { maxWaitSeconds: -1 } }");
    run(&["--trace", "trace.jsonl", "--config", "bad.json5"]).says("bad.json5:1:27");
}
