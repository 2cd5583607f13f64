//! `${NAME}` in strings, and the layer of variables that the configuration itself sets.

use crate::env::{Env, Source};
use crate::keypath::KeyPath;
use crate::tree::{Node, Span, What};

/// A variable that a value needs and that is not set.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) path: KeyPath,
    pub(crate) span: Span,
    pub(crate) name: String,
}

/// Replaces `${NAME}` in `text`; `$${NAME}` stands for the text `${NAME}`; any other `$` stays
/// (spec C-14). A name without a value stays as it is and is added to `missing`.
pub(crate) fn substitute<'v>(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<&'v str>,
    missing: &mut Vec<String>,
) -> Option<String> {
    if !text.contains("${") {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some((name, length)) = rest.strip_prefix('$').and_then(reference) {
            match lookup(name) {
                Some(value) => out.push_str(value),
                None => {
                    missing.push(name.to_string());
                    out.push_str(&rest[..length + 1]);
                }
            }
            rest = &rest[length + 1..];
        } else if let Some((_, length)) = rest.strip_prefix("$$").and_then(reference) {
            out.push_str(&rest[1..length + 2]);
            rest = &rest[length + 2..];
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    Some(out)
}

/// Reads `{NAME}` at the start: the name, and the length with both braces.
fn reference(text: &str) -> Option<(&str, usize)> {
    let (name, _) = text.strip_prefix('{')?.split_once('}')?;
    let first = name.chars().next()?;
    let fine = (first.is_ascii_uppercase() || first == '_')
        && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    fine.then_some((name, name.len() + 2))
}

/// Replaces references in every string and reports those without a value.
pub(crate) fn substitute_all(node: &mut Node, env: &Env) -> Vec<Missing> {
    let lookup = |name: &str| env.get(name).map(|(value, _)| value);
    let mut all = Vec::new();
    node.each_text(&KeyPath::root(), &mut |path, span, text| {
        let mut names = Vec::new();
        if let Some(replaced) = substitute(text, &lookup, &mut names) {
            *text = replaced;
        }
        all.extend(names.into_iter().map(|name| Missing { path: path.clone(), span, name }));
    });
    all
}

/// Adds the layer of variables that the section `env` sets (spec C-9, C-10).
///
/// Their values may refer to variables of other layers and to those set above them.
pub(crate) fn with_config_layer(env: &Env, root: &Node) -> Env {
    let mut layer: Vec<(String, String)> = Vec::new();
    let section = root.get("env");
    let members = |node: Option<&Node>| match node.map(|node| &node.what) {
        Some(What::Map(members)) => members.clone(),
        _ => Vec::new(),
    };
    let vars = members(section.and_then(|section| section.get("vars")));
    let direct = members(section).into_iter().filter(|m| m.name != "vars" && m.name != "shellEnv");
    for member in vars.into_iter().chain(direct) {
        let Some(text) = member.value.text() else { continue };
        let lookup = |name: &str| -> Option<&str> {
            let own = layer.iter().rev().find(|(known, _)| known == name);
            env.get(name).map(|(value, _)| value).or(own.map(|(_, value)| value.as_str()))
        };
        let mut missing = Vec::new();
        let value = substitute(text, &lookup, &mut missing);
        // What cannot be resolved is reported when the whole document is substituted.
        if missing.is_empty() {
            let value = value.unwrap_or_else(|| text.to_string());
            if !value.trim().is_empty() {
                layer.push((member.name.clone(), value));
            }
        }
    }
    // A later entry of the same name takes the place of an earlier one: direct keys beat `vars`.
    env.clone().with(Source::Config, layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> (String, Vec<String>) {
        let mut missing = Vec::new();
        let lookup = |name: &str| match name {
            "A" => Some("1"),
            "_B2" => Some("${A}"),
            _ => None,
        };
        let out = substitute(text, &lookup, &mut missing);
        (out.unwrap_or_else(|| text.to_string()), missing)
    }

    #[test]
    fn references() {
        for (text, expected) in [
            ("${A}", "1"),
            ("x${A}y${_B2}z", "x1y${A}z"),
            ("$${A}", "${A}"),
            ("$$${A}", "$${A}"),
            ("$A ${a} ${} ${A ${1A} $", "$A ${a} ${} ${A ${1A} $"),
            ("$${a}", "$${a}"),
            ("ß${A}ß", "ß1ß"),
        ] {
            assert_eq!(run(text), (expected.to_string(), vec![]), "{text}");
        }
        assert_eq!(run("${NOPE}/${NOPE2}").1, ["NOPE", "NOPE2"]);
    }

    proptest::proptest! {
        #[test]
        fn text_without_a_reference_stays(text in "[a-z$ {}ß]{0,30}") {
            proptest::prop_assert_eq!(run(&text), (text.clone(), vec![]));
        }
    }
}
