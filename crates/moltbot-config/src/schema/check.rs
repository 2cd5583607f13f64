//! Validation: walks the document and the table side by side and reports everything at once.

use super::{
    Extensions, FOREIGN_DIALECTS, Field, PluginSettings, Rest, Section, SettingKind, Shape,
};
use crate::issue::IssueCode;
use crate::keypath::KeyPath;
use crate::tree::{Member, Node, Span, What};

/// A problem before it is turned into an [`crate::Issue`] with file and excerpt.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) code: IssueCode,
    pub(crate) path: KeyPath,
    pub(crate) message: String,
    pub(crate) span: Span,
    pub(crate) suggestion: Option<String>,
}

/// Reports everything in `node` that `shape` does not allow, in the order of the document.
pub(crate) fn check(node: &Node, shape: &Shape, extensions: &Extensions) -> Vec<Problem> {
    let mut checker = Checker { extensions, problems: Vec::new() };
    checker.node(node, shape, &KeyPath::root());
    checker.problems
}

struct Checker<'a> {
    extensions: &'a Extensions,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn node(&mut self, node: &Node, shape: &Shape, path: &KeyPath) {
        match (shape, &node.what) {
            (Shape::Any, _) | (Shape::Bool, What::Bool(_)) => {}
            (Shape::Text(rule), What::Text(text)) => {
                if let Some(complaint) = rule.complaint(text) {
                    self.bad_value(node, path, complaint.to_string(), None);
                }
            }
            (Shape::Int(least, most), What::Number(number)) => {
                let fits = number.as_i64().is_some_and(|value| (*least..=*most).contains(&value));
                if !fits {
                    let message = format!("expected a whole number from {least} to {most}");
                    self.bad_value(node, path, message, None);
                }
            }
            (Shape::Number { above, inclusive }, What::Number(number)) => {
                let value = number.as_f64().unwrap_or(f64::NAN);
                if !(value > *above || *inclusive && value == *above) {
                    let bound = if *inclusive { "of at least" } else { "above" };
                    self.bad_value(node, path, format!("expected a number {bound} {above}"), None);
                }
            }
            (Shape::OneOf(words), What::Text(text)) => self.word(node, path, text, words),
            (Shape::Dialect, What::Text(text)) => self.dialect(node, path, text),
            (Shape::List(inner), What::List(items)) => {
                for (at, item) in items.iter().enumerate() {
                    self.node(item, inner, &path.index(at));
                }
            }
            (Shape::Map(inner), What::Map(members)) => {
                for member in members {
                    self.node(&member.value, inner, &path.key(&member.name));
                }
            }
            (Shape::Section(section), What::Map(members)) => {
                self.section(node, members, section, path);
            }
            (Shape::TextOr(_), What::Text(_)) => {}
            (Shape::TextOr(section), What::Map(members)) => {
                self.section(node, members, section, path);
            }
            _ => self.wrong_type(node, path, shape.name()),
        }
    }

    fn section(&mut self, node: &Node, members: &[Member], section: &Section, path: &KeyPath) {
        for member in members {
            let path = path.key(&member.name);
            if let Some(field) = section.fields.iter().find(|field| field.name == member.name) {
                self.node(&member.value, field.shape, &path);
                continue;
            }
            match &section.rest {
                Rest::Unchecked(names) if names.contains(&member.name.as_str()) => {}
                Rest::Each(shape) => self.node(&member.value, shape, &path),
                Rest::PluginSettings => match &self.extensions.auth {
                    None => {}
                    Some(known) => match known.iter().find(|p| p.key == member.name) {
                        Some(plugin) => self.settings(&member.value, plugin, &path),
                        None => self.unknown(member, section, path),
                    },
                },
                Rest::Refused | Rest::Unchecked(_) => self.unknown(member, section, path),
            }
        }
        for Field { name, .. } in section.fields.iter().filter(|field| field.required) {
            if !members.iter().any(|member| member.name == *name) {
                self.problems.push(Problem {
                    code: IssueCode::MissingKey,
                    path: path.clone(),
                    message: format!("`{name}` is missing"),
                    span: node.caret(),
                    suggestion: None,
                });
            }
        }
    }

    fn settings(&mut self, node: &Node, plugin: &PluginSettings, path: &KeyPath) {
        let What::Map(members) = &node.what else {
            return self.wrong_type(node, path, "an object");
        };
        for member in members {
            let path = path.key(&member.name);
            let value = &member.value;
            let Some(setting) = plugin.settings.iter().find(|s| s.name == member.name) else {
                let names = plugin.settings.iter().map(|s| s.name.as_str());
                self.unknown_among(member, names, path);
                continue;
            };
            match (&setting.kind, &value.what) {
                (SettingKind::Flag, What::Bool(_)) | (SettingKind::Text, What::Text(_)) => {}
                (SettingKind::Number, What::Number(n)) if n.as_f64().is_some_and(|n| n >= 0.0) => {}
                (SettingKind::Number, What::Number(_)) => {
                    self.bad_value(value, &path, "expected a number of at least 0".into(), None);
                }
                (SettingKind::OneOf(words), What::Text(text)) => {
                    let words: Vec<&str> = words.iter().map(String::as_str).collect();
                    self.word(value, &path, text, &words);
                }
                (kind, _) => self.wrong_type(value, &path, kind.name()),
            }
        }
    }

    fn word(&mut self, node: &Node, path: &KeyPath, text: &str, words: &[&str]) {
        if words.contains(&text) {
            return;
        }
        let listed = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        let nearest = nearest(text, words.iter().copied());
        let message = format!("expected one of {listed}");
        self.bad_value(
            node,
            path,
            message,
            nearest.map(|word| format!("did you mean \"{word}\"?")),
        );
    }

    fn dialect(&mut self, node: &Node, path: &KeyPath, text: &str) {
        if let Some(ours) = &self.extensions.dialects {
            let mut words: Vec<&str> = ours.iter().map(String::as_str).collect();
            words.extend(FOREIGN_DIALECTS);
            self.word(node, path, text, &words);
        }
    }

    fn unknown(&mut self, member: &Member, section: &Section, path: KeyPath) {
        let others: &[&str] = match section.rest {
            Rest::Unchecked(names) => names,
            _ => &[],
        };
        let plugins = match (&section.rest, &self.extensions.auth) {
            (Rest::PluginSettings, Some(plugins)) => plugins.as_slice(),
            _ => &[],
        };
        let plugins: Vec<String> = plugins.iter().map(|plugin| plugin.key.clone()).collect();
        let names = section.fields.iter().map(|field| field.name).chain(others.iter().copied());
        self.unknown_among(member, names.chain(plugins.iter().map(String::as_str)), path);
    }

    fn unknown_among<'n>(
        &mut self,
        member: &Member,
        names: impl Iterator<Item = &'n str>,
        path: KeyPath,
    ) {
        let suggestion = nearest(&member.name, names)
            .map(|name| format!("did you mean `{name}`?"))
            .or_else(|| Some("`config schema` lists every key".to_string()));
        self.problems.push(Problem {
            code: IssueCode::UnknownKey,
            path,
            message: "unknown key".to_string(),
            span: member.name_span,
            suggestion,
        });
    }

    fn wrong_type(&mut self, node: &Node, path: &KeyPath, expected: &str) {
        self.problems.push(Problem {
            code: IssueCode::WrongType,
            path: path.clone(),
            message: format!("expected {expected}, got {}", node.kind()),
            span: node.caret(),
            suggestion: None,
        });
    }

    fn bad_value(&mut self, node: &Node, path: &KeyPath, message: String, help: Option<String>) {
        self.problems.push(Problem {
            code: IssueCode::BadValue,
            path: path.clone(),
            message,
            span: node.caret(),
            suggestion: help,
        });
    }
}

impl Shape {
    fn name(&self) -> &'static str {
        match self {
            Self::Any => "a value",
            Self::Bool => "true or false",
            Self::Text(_) | Self::OneOf(_) | Self::Dialect => "a string",
            Self::Int(..) => "a whole number",
            Self::Number { .. } => "a number",
            Self::List(_) => "an array",
            Self::Map(_) | Self::Section(_) => "an object",
            Self::TextOr(_) => "a string or an object",
        }
    }
}

impl SettingKind {
    fn name(&self) -> &'static str {
        match self {
            Self::Flag => "true or false",
            Self::Number => "a number",
            Self::OneOf(_) | Self::Text => "a string",
        }
    }
}

/// Finds the word that was probably meant: the closest, and close enough for its length.
pub(crate) fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    // What nobody types by mistake is not worth the quadratic comparison.
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    known
        .map(|known| (strsim::osa_distance(&lower, &known.to_lowercase()), known))
        .filter(|(distance, known)| *distance <= (word.len().min(known.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_only() {
        let known = ["primary", "fallbacks", "mode"];
        let near = |word| nearest(word, known.iter().copied());
        assert_eq!(near("fallback"), Some("fallbacks"));
        assert_eq!(near("Primary"), Some("primary"));
        assert_eq!(near("moed"), Some("mode"));
        assert_eq!(near("port"), None);
        assert_eq!(near(""), None);
        assert_eq!(near(&"x".repeat(1 << 20)), None);
    }
}
