//! Edits of one source text that leave every other character alone.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{
    CstArray, CstComment, CstContainerNode, CstInputValue, CstLeafNode, CstNode, CstObject,
    CstObjectProp, CstRootNode, ObjectPropName,
};
use serde_json::Value;

use crate::keypath::Step;

/// Sets the value at `steps`, making the objects on the way to it.
///
/// The text is known to parse. An error says why this text has no such place.
pub(crate) fn set(text: &str, steps: &[Step], value: &Value) -> Result<String, String> {
    let root = parse(text)?;
    let style = Style::of(&root);
    insert(&root, &style, steps, value)?;
    Ok(root.to_string())
}

/// Inserts a value before the first element of the array at `steps`.
pub(crate) fn prepend(text: &str, steps: &[Step], value: &Value) -> Result<String, String> {
    let root = parse(text)?;
    let style = Style::of(&root);
    let array = find(&root, steps).and_then(|found| found.value()?.as_array());
    let Some(array) = array else {
        return Err("what should take one more element is not an array".to_string());
    };
    style.apply(&array.insert(0, input(value)));
    Ok(root.to_string())
}

/// Removes the value at `steps`, with the comments that belong to it.
pub(crate) fn unset(text: &str, steps: &[Step]) -> Result<String, String> {
    let root = parse(text)?;
    match find(&root, steps) {
        Some(Found::Property(property)) => {
            drop(take_comments(&property.clone().into()));
            property.remove();
        }
        Some(Found::Element(element)) => element.remove(),
        None => return Err("there is nothing at this place".to_string()),
    }
    Ok(root.to_string())
}

/// Moves the property at `from` to `to` as it is written, with its comments.
pub(crate) fn relocate(text: &str, from: &[Step], to: &[Step]) -> Result<String, String> {
    const MARK: &str = "\u{1}moved\u{1}";
    let root = parse(text)?;
    let style = Style::of(&root);
    let Some(Found::Property(property)) = find(&root, from) else {
        return Err("there is nothing to move".to_string());
    };
    let old_indent = property.indent_text().unwrap_or_default();
    let raw = property.value().map(|value| value.to_string()).unwrap_or_default();
    let comments = take_comments(&property.clone().into());
    property.remove();
    insert(&root, &style, to, &Value::from(MARK))?;
    let text = root.to_string();
    // The mark's control characters are written as escapes.
    let marks = ["\"\\u0001moved\\u0001\"", "'\\u0001moved\\u0001'", &format!("\"{MARK}\"")];
    let Some((at, mark)) = marks.iter().find_map(|mark| Some((text.find(mark)?, mark))) else {
        return Err("the moved value got lost".to_string());
    };
    let line_start = text[..at].rfind('\n').map_or(0, |at| at + 1);
    let line = &text[line_start..at];
    let new_indent = &line[..line.len() - line.trim_start().len()];
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut out = text[..line_start].to_string();
    for comment in comments {
        out.extend([new_indent, &comment, newline]);
    }
    out.push_str(line);
    // A string that goes on over a line end must not be indented anew.
    if raw.contains("\\\n") || raw.contains("\\\r") {
        out.push_str(&raw);
    } else {
        let old = format!("\n{old_indent}");
        out.push_str(&raw.replace(&old, &format!("\n{new_indent}")));
    }
    out.push_str(&text[at + mark.len()..]);
    Ok(out)
}

/// How a file writes keys and strings; what is inserted follows it.
struct Style {
    bare_keys: bool,
    single_quotes: bool,
}

enum Found {
    Property(CstObjectProp),
    Element(CstNode),
}

fn parse(text: &str) -> Result<CstRootNode, String> {
    let text = if text.trim().is_empty() { "{}\n" } else { text };
    CstRootNode::parse(text, &ParseOptions::default())
        .map_err(|_| "the file is not in a form that can be edited".to_string())
}

fn insert(root: &CstRootNode, style: &Style, steps: &[Step], value: &Value) -> Result<(), String> {
    let Some((last, _)) = steps.split_last() else {
        root.set_value(input(value));
        if let Some(node) = root.value() {
            style.apply(&node);
        }
        return Ok(());
    };
    if let Some(found) = find(root, steps) {
        replace(&found, style, value);
        return Ok(());
    }
    // The deepest container that exists takes the rest as one new value.
    let mut depth = steps.len() - 1;
    let container = loop {
        let node = match depth {
            0 => root.value(),
            _ => find(root, &steps[..depth]).and_then(|found| found.value()),
        };
        match node {
            Some(node) => break node,
            None if depth == 0 => return Err("the file holds no value".to_string()),
            None => depth -= 1,
        }
    };
    debug_assert!(depth < steps.len(), "{last:?} was not found, so something is missing");
    let missing = &steps[depth + 1..];
    let mut value = value.clone();
    for step in missing.iter().rev() {
        value = match step {
            Step::Key(key) => Value::Object([(key.clone(), value)].into_iter().collect()),
            Step::Index(0) => Value::Array(vec![value]),
            Step::Index(index) => {
                return Err(format!("an array that is not there has no element {index}"));
            }
        };
    }
    match (&steps[depth], container.as_object(), container.as_array()) {
        (Step::Key(key), Some(object), _) => {
            let property = object.append(key, input(&value));
            style.apply(&property.into());
        }
        (Step::Index(index), _, Some(array)) if *index == array.elements().len() => {
            style.apply(&array.append(input(&value)));
        }
        (Step::Index(index), _, Some(array)) => {
            let length = array.elements().len();
            return Err(format!("the array has {length} elements, so {index} is out of reach"));
        }
        (Step::Key(key), ..) => {
            return Err(format!("`{key}` cannot be added: what holds it is not an object"));
        }
        (Step::Index(index), ..) => {
            return Err(format!("[{index}] cannot be added: what holds it is not an array"));
        }
    }
    Ok(())
}

fn replace(found: &Found, style: &Style, value: &Value) {
    let old = found.value();
    // A string keeps its quotes.
    if let (Some(literal), Value::String(text)) =
        (old.as_ref().and_then(CstNode::as_string_lit), value)
    {
        let single = literal.raw_value().starts_with('\'');
        literal.set_raw_value(quote(text, single));
        return;
    }
    match found {
        Found::Property(property) => {
            property.set_value(input(value));
            if let Some(node) = property.value() {
                style.apply(&node);
            }
        }
        Found::Element(node) => {
            if let Some(node) = replace_node(node.clone(), input(value)) {
                style.apply(&node);
            }
        }
    }
}

fn replace_node(node: CstNode, value: CstInputValue) -> Option<CstNode> {
    match node {
        CstNode::Container(CstContainerNode::Object(node)) => node.replace_with(value),
        CstNode::Container(CstContainerNode::Array(node)) => node.replace_with(value),
        CstNode::Leaf(CstLeafNode::StringLit(node)) => node.replace_with(value),
        CstNode::Leaf(CstLeafNode::NumberLit(node)) => node.replace_with(value),
        CstNode::Leaf(CstLeafNode::BooleanLit(node)) => node.replace_with(value),
        CstNode::Leaf(CstLeafNode::NullKeyword(node)) => node.replace_with(value),
        _ => None,
    }
}

fn find(root: &CstRootNode, steps: &[Step]) -> Option<Found> {
    let mut node = root.value()?;
    let mut found = None;
    for step in steps {
        let next = match step {
            Step::Key(key) => {
                let object: CstObject = node.as_object()?;
                Found::Property(object.get(key)?)
            }
            Step::Index(index) => {
                let array: CstArray = node.as_array()?;
                Found::Element(array.elements().into_iter().nth(*index)?)
            }
        };
        node = next.value()?;
        found = Some(next);
    }
    found
}

impl Found {
    fn value(&self) -> Option<CstNode> {
        match self {
            Self::Property(property) => property.value(),
            Self::Element(node) => Some(node.clone()),
        }
    }
}

/// Takes the comments out that belong to a property: those on the lines right above it and the
/// one after it on its line.
fn take_comments(node: &CstNode) -> Vec<String> {
    let mut comments: Vec<CstComment> = Vec::new();
    let mut newlines = 0;
    for sibling in node.previous_siblings() {
        if let Some(comment) = sibling.as_comment() {
            comments.push(comment);
            newlines = 0;
        } else if sibling.is_newline() {
            newlines += 1;
            // A blank line parts a comment from what follows.
            if newlines > 1 {
                break;
            }
        } else if !sibling.is_whitespace() {
            // A comment on the line of something else belongs to that.
            if newlines == 0 {
                comments.clear();
            } else if comments.last().is_some_and(follows_on_line) {
                comments.pop();
            }
            break;
        }
    }
    comments.reverse();
    for sibling in node.next_siblings() {
        if let Some(comment) = sibling.as_comment() {
            comments.push(comment);
        } else if sibling.is_newline() || !(sibling.is_whitespace() || sibling.is_comma()) {
            break;
        }
    }
    comments
        .into_iter()
        .map(|comment| {
            let text = comment.raw_value();
            comment.remove();
            text
        })
        .collect()
}

/// Tells whether something other than white space stands before a comment on its line.
fn follows_on_line(comment: &CstComment) -> bool {
    let node: CstNode = comment.clone().into();
    for sibling in node.previous_siblings() {
        if sibling.is_newline() {
            return false;
        }
        if !sibling.is_whitespace() && !sibling.is_comment() {
            // An opening bracket is no owner, but its line is not the property's either.
            return true;
        }
    }
    true
}

impl Style {
    fn of(root: &CstRootNode) -> Self {
        let (mut bare, mut quoted, mut single, mut double) = (0, 0, 0, 0);
        let mut nodes: Vec<CstNode> = root.children();
        while let Some(node) = nodes.pop() {
            if let Some(property) = node.as_object_prop() {
                match property.name() {
                    Some(ObjectPropName::Word(_)) => bare += 1,
                    Some(ObjectPropName::String(_)) => quoted += 1,
                    None => {}
                }
                nodes.extend(property.value());
            } else if let Some(literal) = node.as_string_lit() {
                if literal.raw_value().starts_with('\'') { single += 1 } else { double += 1 }
            } else {
                nodes.extend(node.children());
            }
        }
        Self { bare_keys: bare > quoted, single_quotes: single > double }
    }

    /// Rewrites new keys and strings in the style of the file.
    fn apply(&self, node: &CstNode) {
        if let Some(property) = node.as_object_prop() {
            if let (true, Some(ObjectPropName::String(name))) = (self.bare_keys, property.name())
                && let Ok(text) = name.decoded_value()
                && is_plain_name(&text)
            {
                name.set_raw_value(text);
            }
            if let Some(value) = property.value() {
                self.apply(&value);
            }
        } else if let Some(literal) = node.as_string_lit() {
            if let Ok(text) = literal.decoded_value() {
                literal.set_raw_value(quote(&text, self.single_quotes));
            }
        } else {
            for child in node.children_exclude_trivia_and_tokens() {
                self.apply(&child);
            }
        }
    }
}

fn is_plain_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '$')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
}

/// Writes a string literal that any JSON5 reader takes.
fn quote(text: &str, single: bool) -> String {
    // JSON's escapes are JSON5's; only the quotes differ.
    let json = Value::from(text).to_string();
    let json = json.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    if !single {
        return json;
    }
    let inner = json[1..json.len() - 1].replace("\\\"", "\"").replace('\'', "\\'");
    format!("'{inner}'")
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(yes) => CstInputValue::Bool(*yes),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(items) => CstInputValue::Array(items.iter().map(input).collect()),
        Value::Object(map) => {
            CstInputValue::Object(map.iter().map(|(k, v)| (k.clone(), input(v))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keypath::KeyPath;

    fn steps(path: &str) -> Vec<Step> {
        path.parse::<KeyPath>().unwrap().steps().to_vec()
    }

    const FILE: &str = "// head\n{\n  // the agents\n  agents: {\n    list: [ 'a', \"b\" ], // two\n  },\n  'x': 0x10, /* hex */\n  y: '${Y}',\n}\n// tail\n";

    #[test]
    fn values_are_replaced_in_place() {
        let out = set(FILE, &steps("x"), &Value::from(1)).unwrap();
        assert_eq!(out, FILE.replace("0x10", "1"));
        let out = set(FILE, &steps("y"), &Value::from("it's \"z\"")).unwrap();
        assert_eq!(out, FILE.replace("'${Y}'", "'it\\'s \"z\"'"));
        let out = set(FILE, &steps("agents.list[1]"), &Value::from("c")).unwrap();
        assert_eq!(out, FILE.replace("\"b\"", "\"c\""));
    }

    #[test]
    fn insertions_follow_the_style_of_the_file() {
        let value = serde_json::json!({"primary": "a/b", "odd-key": [1]});
        let out = set(FILE, &steps("agents.defaults.model"), &value).unwrap();
        let added = "    defaults: {\n      model: {\n        primary: 'a/b',\n        \"odd-key\": [1],\n      },\n    },\n  },\n  'x'";
        assert!(out.contains(added), "{out}");
        assert!(out.contains("// two\n"), "{out}");
    }

    #[test]
    fn a_new_file_is_plain_json() {
        let out = set("", &steps("a.b"), &Value::from("c")).unwrap();
        assert_eq!(out, "{\n  \"a\": {\n    \"b\": \"c\"\n  }\n}\n");
    }

    #[test]
    fn a_removed_key_takes_its_comments_along() {
        let out = unset(FILE, &steps("x")).unwrap();
        assert_eq!(out, FILE.replace("  'x': 0x10, /* hex */\n", ""));
        let out = unset(FILE, &steps("agents")).unwrap();
        assert_eq!(out, "// head\n{\n  'x': 0x10, /* hex */\n  y: '${Y}',\n}\n// tail\n");
        let out = unset(FILE, &steps("agents.list[0]")).unwrap();
        assert!(out.contains("[ \"b\" ], // two"), "{out}");
    }

    #[test]
    fn a_moved_key_keeps_its_text() {
        let text = "{\n  agent: {\n    // why\n    deep: { // in\n      k: '${K}', // hex\n      n: 0x10,\n    }, // after\n  },\n}\n";
        let out = relocate(text, &steps("agent.deep"), &steps("agents.defaults.deep")).unwrap();
        let expected = "  agents: {\n    defaults: {\n      // why\n      // after\n      deep: { // in\n        k: '${K}', // hex\n        n: 0x10,\n      },\n    },\n  },\n}\n";
        assert!(out.ends_with(expected), "{out}");
    }

    #[test]
    fn what_cannot_be_reached_is_said() {
        for (path, message) in [
            ("x.y", "`y` cannot be added: what holds it is not an object"),
            ("agents.list[5]", "the array has 2 elements, so 5 is out of reach"),
            ("x[0]", "[0] cannot be added: what holds it is not an array"),
            ("new[3]", "an array that is not there has no element 3"),
        ] {
            assert_eq!(set(FILE, &steps(path), &Value::Null).unwrap_err(), message, "{path}");
        }
        assert!(unset(FILE, &steps("nope")).is_err());
    }

    #[test]
    fn line_ends_stay() {
        let text = "{\r\n  a: 1,\r\n}\r\n";
        let out = set(text, &steps("b.c"), &Value::from(2)).unwrap();
        assert_eq!(out, "{\r\n  a: 1,\r\n  b: {\r\n    c: 2,\r\n  },\r\n}\r\n");
    }
}
