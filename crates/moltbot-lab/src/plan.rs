//! The fault plan: which requests meet which fault, and the scene they are played in.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};

use crate::fault::{Fault, Numbers, ReplySpec};
use crate::keys::labelled;
use crate::oauth::{LoginSpec, TokenRules};

/// A fault plan. Written as an object, or as a bare list of rules.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The rules, asked in order; the first that matches decides.
    pub rules: Vec<Rule>,
    /// What replies look like where no rule says otherwise.
    pub reply: Option<ReplySpec>,
    /// Organization names by credential (whole text or its end); others get one each.
    pub organizations: BTreeMap<String, String>,
    /// Logins that exist from the start.
    pub logins: Vec<LoginSpec>,
    /// How the token endpoint rotates.
    pub tokens: TokenRules,
    /// The only credentials accepted, besides issued logins; absent: as the lab was started.
    pub keys: Option<Vec<String>>,
    /// Whether unknown model ids are 404; absent: as the lab was started.
    pub strict_models: Option<bool>,
}

/// One rule: what it matches and what then happens.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// A name for the log; absent: the rule's place in the list.
    #[serde(default)]
    pub name: Option<String>,
    /// Which requests; absent: all.
    #[serde(rename = "match", default)]
    pub when: Match,
    /// What happens to them.
    pub fault: Fault,
    /// Fires at most so often.
    #[serde(default)]
    pub times: Option<u64>,
}

/// What a rule looks at. All given fields must agree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Match {
    /// The credential: its whole text or its end. At the token endpoint, the refresh token.
    pub key: Option<String>,
    /// The model id; a final `*` matches any rest.
    pub model: Option<String>,
    /// The path without query; a final `*` matches any rest.
    pub path: Option<String>,
    /// Whether the request asks for an event stream.
    pub stream: Option<bool>,
    /// Which of the requests that agree with the other fields, counted from 1, whether or not an
    /// earlier rule took them.
    pub request: Numbers,
}

/// A plan that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}:{line}:{column}: {at}{message}", at = field(path))]
pub struct PlanError {
    /// The name given for the text, usually its file.
    pub name: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// The path of the field, `rules[0].fault.error`; empty when the text is not JSON5.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

/// Reads a plan from JSON5 (or JSON) text; `name` is what errors call it.
///
/// # Errors
/// Returns the place and the field of the first thing that is not a plan.
pub fn parse_plan(text: &str, name: &str) -> Result<Plan, PlanError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let fail = |error: &json5::Error, path: String| {
        let place = error.position().unwrap_or_else(|| json5::Position::from_offset(0, text));
        let shown = error.to_string();
        let message = match error.position() {
            Some(at) => shown.strip_suffix(&format!(" at {at}")).unwrap_or(&shown).to_owned(),
            None => shown,
        };
        let (line, column) = (place.line + 1, place.column + 1);
        PlanError { name: name.to_owned(), line, column, path, message }
    };
    let mut deserializer = json5::Deserializer::from_str(text);
    let plan: Plan = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        fail(error.inner(), if path == "." { String::new() } else { path })
    })?;
    // The first pass stops at the end of the plan; this one sees what stands after it.
    json5::from_str::<de::IgnoredAny>(text).map_err(|error| fail(&error, String::new()))?;
    Ok(plan)
}

/// What a rule can see of a request.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) key: Option<&'a str>,
    pub(crate) model: Option<&'a str>,
    pub(crate) path: &'a str,
    pub(crate) stream: bool,
}

/// A plan at work: the plan and how often each rule was asked and fired.
#[derive(Debug, Default)]
pub(crate) struct ActivePlan {
    pub(crate) plan: Plan,
    counts: Vec<(AtomicU64, AtomicU64)>,
}

impl ActivePlan {
    pub(crate) fn new(plan: Plan) -> Self {
        let counts = plan.rules.iter().map(|_| Default::default()).collect();
        Self { plan, counts }
    }

    /// Returns whether a rule needs to know the model or the stream flag.
    pub(crate) fn looks_into_bodies(&self) -> bool {
        self.plan.rules.iter().any(|rule| rule.when.model.is_some() || rule.when.stream.is_some())
    }

    /// Returns the rule that takes this request, with its name for the log, and counts.
    pub(crate) fn pick(&self, seen: Seen<'_>) -> Option<(&Rule, String)> {
        let mut picked = None;
        for (index, (rule, (asked, fired))) in self.plan.rules.iter().zip(&self.counts).enumerate()
        {
            if !rule.when.agrees(seen) {
                continue;
            }
            let number = asked.fetch_add(1, Ordering::Relaxed) + 1;
            if picked.is_some() {
                continue;
            }
            let wanted = match &rule.when.request {
                Numbers::Every => true,
                Numbers::Only(numbers) => numbers.contains(&number),
            };
            let claim = |count: u64| rule.times.is_none_or(|times| count < times);
            let step = |count| claim(count).then_some(count + 1);
            if wanted && fired.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).is_ok() {
                let name = rule.name.clone().unwrap_or_else(|| format!("rules[{index}]"));
                picked = Some((rule, name));
            }
        }
        picked
    }

    /// Returns the organization a plan gives this credential.
    pub(crate) fn organization(&self, credential: &str) -> Option<&str> {
        let found = self.plan.organizations.iter().find(|(label, _)| labelled(credential, label));
        found.map(|(_, organization)| organization.as_str())
    }
}

impl Match {
    fn agrees(&self, seen: Seen<'_>) -> bool {
        let key = self.key.as_deref();
        let model = self.model.as_deref();
        key.is_none_or(|label| seen.key.is_some_and(|key| labelled(key, label)))
            && model.is_none_or(|glob| seen.model.is_some_and(|model| matches(glob, model)))
            && self.path.as_deref().is_none_or(|glob| matches(glob, seen.path))
            && self.stream.is_none_or(|stream| stream == seen.stream)
    }
}

impl<'de> Deserialize<'de> for Plan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct Wire {
            #[serde(default)]
            rules: Vec<Rule>,
            #[serde(default)]
            reply: Option<ReplySpec>,
            #[serde(default)]
            organizations: BTreeMap<String, String>,
            #[serde(default)]
            logins: Vec<LoginSpec>,
            #[serde(default)]
            tokens: TokenRules,
            #[serde(default)]
            keys: Option<Vec<String>>,
            #[serde(default)]
            strict_models: Option<bool>,
        }
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Plan;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a plan: {rules: [..]} or a list of rules")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Plan, A::Error> {
                let mut rules = Vec::new();
                while let Some(rule) = seq.next_element()? {
                    rules.push(rule);
                }
                Ok(Plan { rules, ..Plan::default() })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Plan, A::Error> {
                let wire = Wire::deserialize(MapAccessDeserializer::new(map))?;
                let Wire { rules, reply, organizations, logins, tokens, keys, strict_models } =
                    wire;
                Ok(Plan { rules, reply, organizations, logins, tokens, keys, strict_models })
            }
        }
        deserializer.deserialize_any(Form)
    }
}

fn field(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}: ") }
}

fn matches(glob: &str, text: &str) -> bool {
    match glob.strip_suffix('*') {
        Some(start) => text.starts_with(start),
        None => glob == text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active(text: &str) -> ActivePlan {
        ActivePlan::new(parse_plan(text, "plan").unwrap())
    }

    fn seen<'a>(key: &'a str, model: &'a str) -> Seen<'a> {
        Seen { key: Some(key), model: Some(model), path: "/v1/messages", stream: false }
    }

    #[test]
    fn an_error_names_file_line_column_and_field() {
        let text = "{\n  rules: [\n    {match: {modell: 'x'}, fault: {}},\n  ],\n}";
        let error = parse_plan(text, "faults.json5").unwrap_err();
        assert_eq!(error.line, 3);
        assert!(error.path.starts_with("rules[0].match"), "{error}");
        assert!(error.to_string().starts_with("faults.json5:3:"), "{error}");
        assert!(error.message.contains("modell"), "{error}");
        assert!(!error.message.contains(" at line"), "{error}");
        let text = "[\n  {fault: {}},\n  {fault: {error: 1, redirect: 'x'}}]";
        let error = parse_plan(text, "p").unwrap_err();
        assert_eq!((error.line, error.path.as_str()), (3, "[1].fault"), "{error}");
        for (bad, says) in [
            ("{rules: 7}", "p:1:9: rules: expected opening bracket"),
            ("[{fault: {error: 99}}]", "no error 99"),
            ("{} {}", "trailing"),
            ("{", "EOF"),
            ("[{match: {}}]", "fault"),
            ("[{fault: {drip: {bytesPerSecond: 0}}}]", "at least 1"),
            ("[{fault: {headers: {'a b': 'c'}}}]", "header"),
        ] {
            let error = parse_plan(bad, "p").unwrap_err();
            assert!(error.to_string().contains(says), "{bad}: {error}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_wins() {
        let plan = active(
            "[{name: 'one', match: {key: 'one'}, fault: {error: 27}},
              {name: 'opus', match: {model: 'claude-opus-*'}, fault: {error: 51}}]",
        );
        let name = |key, model| plan.pick(seen(key, model)).map(|(_, name)| name);
        assert_eq!(name("sk-ant-api03-FAKE-one", "claude-opus-4-5").unwrap(), "one");
        assert_eq!(name("sk-ant-api03-FAKE-two", "claude-opus-4-5").unwrap(), "opus");
        assert_eq!(name("sk-ant-api03-FAKE-two", "claude-haiku-4-5"), None);
    }

    #[test]
    fn requests_are_counted_per_rule_and_times_limits_firing() {
        let plan = active("[{match: {key: 'a', request: [1, 3]}, fault: {error: 49}}]");
        let fired: Vec<_> = (0..4).map(|_| plan.pick(seen("key-a", "m")).is_some()).collect();
        assert_eq!(fired, [true, false, true, false]);
        let plan = active("[{times: 2, fault: {error: 49}}, {fault: {error: 51}}]");
        let names: Vec<_> = (0..3).map(|_| plan.pick(seen("k", "m")).unwrap().1).collect();
        assert_eq!(names, ["rules[0]", "rules[0]", "rules[1]"]);
    }
}
