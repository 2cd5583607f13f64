//! The text of a store: malformed samples with their messages, and round trips.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::path::PathBuf;

use moltbot_core::Timestamp;
use moltbot_profiles::{FileStore, Profiles};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

/// Every `NAME.json` of the samples is refused with the sentence in `NAME.expected`, in which
/// `FILE` stands for its path, or is taken with the problems listed there, one a line.
#[test]
fn malformed_stores_are_told_apart() {
    let samples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/samples/store/bad");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&samples)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 20, "only {} samples", paths.len());
    let mut wrong = Vec::new();
    for path in paths {
        let before = std::fs::read(&path).unwrap();
        let wanted = std::fs::read_to_string(path.with_extension("expected")).unwrap();
        let got = match FileStore::new(&path).load_blocking() {
            Ok(loaded) => {
                let problems = loaded.profiles.problems();
                let lines = problems.iter().map(|p| format!("kept: {}: {}", p.place, p.reason));
                lines.collect::<Vec<_>>().join("\n")
            }
            Err(error) => error.to_string().replace(&path.display().to_string(), "FILE"),
        };
        assert_eq!(std::fs::read(&path).unwrap(), before, "{} was changed", path.display());
        assert!(!got.is_empty() && !got.contains("FAKE"), "{}: {got}", path.display());
        if got != wanted.trim_end() {
            wrong.push(format!("{}\n got {got}\n not {wanted}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn upstreams_example_is_written_as_it_was_read() {
    let text = r#"{
  "version": 1,
  "profiles": {
    "acme:default": {
      "type": "api_key",
      "provider": "acme",
      "key": "FAKE-KEY",
      "email": "a@example.com"
    },
    "acme:manual": {
      "type": "token",
      "provider": "acme",
      "token": "FAKE-TOKEN",
      "expires": 1790000000000
    },
    "acme:login": {
      "type": "oauth",
      "provider": "acme",
      "access": "FAKE-A",
      "refresh": "FAKE-R",
      "expires": 1790000000000,
      "clientId": "x",
      "enterpriseUrl": "https://example.com"
    }
  },
  "order": {
    "acme": [
      "acme:manual"
    ]
  },
  "lastGood": {
    "acme": "acme:manual"
  },
  "usageStats": {
    "acme:manual": {
      "lastUsed": 1,
      "errorCount": 1,
      "cooldownUntil": 1,
      "disabledUntil": 1,
      "disabledReason": "billing",
      "failureCounts": {
        "rate_limit": 1
      },
      "lastFailureAt": 1,
      "account": "org",
      "models": {
        "big": {
          "errorCount": 2,
          "cooldownUntil": 1790000060000,
          "lastFailureAt": 1789999999000
        }
      }
    }
  }
}
"#;
    assert_eq!(Profiles::parse(text).unwrap().to_json(NOW).expose(), text);
}

#[test]
fn debug_shows_no_content() {
    let text = r#"{"profiles":{"a:b":{"type":"api_key","provider":"a","key":"FAKE","x":"FAKE"},
        "a:c":"FAKE"},"usageStats":{"a:b":{"x":"FAKE"}},"x":"FAKE"}"#;
    let debug = format!("{:?}", Profiles::parse(text).unwrap());
    assert_eq!(debug, "Profiles { profiles: 1, problems: 1, .. }");
}

#[test]
fn lists_are_cleaned_and_empty_ones_dropped() {
    let text = r#"{"version": 1.0, "profiles": {}, "lastGood": {"acme": 5},
        "order": {"acme": [" a ", "", 5, "b"], "none": [], "odd": "a"}, "usageStats": {}}"#;
    let profiles = Profiles::parse(text).unwrap();
    assert_eq!(profiles.order("acme").unwrap(), ["a", "b"]);
    assert_eq!(profiles.order("none"), None);
    let written: Value = serde_json::from_str(profiles.to_json(NOW).expose()).unwrap();
    assert_eq!(
        written,
        json!({"version": 1, "profiles": {}, "order": {"acme": ["a", "b"], "odd": "a"},
               "lastGood": {"acme": 5}})
    );
}

#[test]
fn never_expiring_times_are_read() {
    for expires in ["0", "null", "1e400", "1e300", "-5"] {
        let text = format!(
            r#"{{"profiles":{{"a:b":{{"type":"token","provider":"a","token":"FAKE","expires":{expires}}}}}}}"#
        );
        let profiles = Profiles::parse(&text).unwrap();
        assert!(!profiles.get("a:b").unwrap().is_expired(NOW), "{expires}");
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~äß\\n]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z]{1,5}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Unknown members, wherever they are, and profiles nobody understands come back as they
    /// were.
    #[test]
    fn a_round_trip_keeps_what_is_unknown(
        top in prop::collection::vec(("x[a-z]{1,5}", value()), 0..4),
        inside in prop::collection::vec(("x[a-z]{1,5}", value()), 0..4),
        profiles in prop::collection::vec(("[a-z]{1,4}:[a-zäß@. ]{0,5}", value()), 0..5),
    ) {
        let mut good = json!({"type": "api_key", "provider": "acme", "key": "FAKE"});
        let mut stats = json!({"lastUsed": 3, "errorCount": 1});
        for (name, value) in inside {
            good[&name] = value.clone();
            stats[&name] = value;
        }
        let mut map: Map<String, Value> = profiles.into_iter().collect();
        map.insert("acme:good".into(), good);
        let mut document = json!({"version": 1, "profiles": map,
            "usageStats": {"acme:good": stats}});
        for (name, value) in top {
            document[&name] = value;
        }
        let parsed = Profiles::parse(&document.to_string()).unwrap();
        prop_assert_eq!(parsed.len(), 1);
        let written: Value = serde_json::from_str(parsed.to_json(NOW).expose()).unwrap();
        prop_assert_eq!(&written, &document);
        let order = |value: &Value| -> Vec<String> {
            value["profiles"].as_object().unwrap().keys().cloned().collect()
        };
        prop_assert_eq!(order(&written), order(&document));
    }

    /// Whatever the bytes are, reading them neither panics nor quotes them.
    #[test]
    fn any_text_is_read_or_refused(text in "[\\PC{}\\[\\]\":,0-9\\\\ \n]{0,80}") {
        if let Err(error) = Profiles::parse(&text) {
            prop_assert!(error.line >= 1 && error.column >= 1);
        }
    }
}
