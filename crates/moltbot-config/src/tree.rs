//! The document as a tree in which every key and value knows where it stands.

use std::collections::HashMap;

use jsonc_parser::ast;
use jsonc_parser::common::Ranged as _;
use serde::de::IgnoredAny;
use serde_json::{Number, Value};

use crate::issue::{Issue, IssueCode};
use crate::keypath::{KeyPath, Step};
use crate::lex;
use crate::source::Source;

/// The deepest nesting of the whole document, includes counted in.
pub(crate) const MAX_DEPTH: usize = 128;

/// A range of bytes in one of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) file: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) what: What,
    pub(crate) span: Span,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    Null,
    Bool(bool),
    /// A finite number; integral ones are integers, however they are written.
    Number(Number),
    /// `NaN` or `Infinity`, which JSON5 has and no key wants.
    NotFinite,
    Text(String),
    List(Vec<Node>),
    Map(Vec<Member>),
}

#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) name_span: Span,
    pub(crate) value: Node,
}

impl Node {
    pub(crate) fn empty_map(file: usize) -> Self {
        Self { what: What::Map(Vec::new()), span: Span { file, start: 0, end: 0 } }
    }

    /// Names the type for a message: `a string`.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.what {
            What::Null => "null",
            What::Bool(_) => "a boolean",
            What::Number(_) => "a number",
            What::NotFinite => "NaN or Infinity",
            What::Text(_) => "a string",
            What::List(_) => "an array",
            What::Map(_) => "an object",
        }
    }

    /// The part worth pointing at: the whole of a scalar, the opening bracket of anything else.
    pub(crate) fn caret(&self) -> Span {
        match self.what {
            What::List(_) | What::Map(_) => {
                Span { end: (self.span.start + 1).min(self.span.end), ..self.span }
            }
            _ => self.span,
        }
    }

    pub(crate) fn member(&self, name: &str) -> Option<&Member> {
        match &self.what {
            What::Map(members) => members.iter().find(|member| member.name == name),
            _ => None,
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        self.member(name).map(|member| &member.value)
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.what {
            What::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn step(&self, step: &Step) -> Option<&Node> {
        match (step, &self.what) {
            (Step::Key(key), What::Map(_)) => self.get(key),
            (Step::Key(key), What::List(items)) => items.get(key.parse::<usize>().ok()?),
            (Step::Index(index), What::List(items)) => items.get(*index),
            _ => None,
        }
    }

    pub(crate) fn find(&self, path: &KeyPath) -> Option<&Node> {
        path.steps().iter().try_fold(self, |node, step| node.step(step))
    }

    /// Visits every string with its path, innermost key last.
    pub(crate) fn each_text(
        &mut self,
        path: &KeyPath,
        visit: &mut impl FnMut(&KeyPath, Span, &mut String),
    ) {
        match &mut self.what {
            What::Text(text) => visit(path, self.span, text),
            What::List(items) => {
                for (at, item) in items.iter_mut().enumerate() {
                    item.each_text(&path.index(at), visit);
                }
            }
            What::Map(members) => {
                for member in members {
                    member.value.each_text(&path.key(&member.name), visit);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn to_value(&self) -> Value {
        match &self.what {
            What::Null | What::NotFinite => Value::Null,
            What::Bool(yes) => Value::Bool(*yes),
            What::Number(number) => Value::Number(number.clone()),
            What::Text(text) => Value::String(text.clone()),
            What::List(items) => items.iter().map(Node::to_value).collect(),
            What::Map(members) => {
                members.iter().map(|m| (m.name.clone(), m.value.to_value())).collect()
            }
        }
    }
}

/// Parses one file; also finds keys that stand twice.
///
/// `json5` decides what is valid. The positions come from the parser that the editor uses, so that
/// nothing is accepted that could not be edited later.
pub(crate) fn parse(source: &mut Source, file: usize) -> Result<Node, Vec<Issue>> {
    source.parsed = false;
    let fail = |source: &Source, message: &str, span: std::ops::Range<usize>| {
        vec![Issue::new(IssueCode::Syntax, KeyPath::root(), message).stands_in(source, span)]
    };
    if let Some(at) = lex::too_deep(&source.text, MAX_DEPTH) {
        let message = format!("nested deeper than {MAX_DEPTH} levels");
        return Err(fail(source, &message, at..at + 1));
    }
    if let Err(error) = json5::from_str::<IgnoredAny>(&source.text) {
        return Err(vec![syntax_issue(source, &error)]);
    }
    if let Some(at) = lex::separator_in_comment(&source.text) {
        let message = "a comment holds the line separator U+2028 or U+2029; use a plain line end";
        return Err(fail(source, message, at..at + 3));
    }
    let parsed = jsonc_parser::parse_to_ast(
        &source.text,
        &jsonc_parser::CollectOptions::default(),
        &jsonc_parser::ParseOptions::default(),
    );
    let root = match parsed {
        Ok(parsed) => parsed.value,
        Err(error) => {
            let message = "valid JSON5, but not in a form that can be edited; write plain keys, \
                           strings and numbers";
            let range = error.range();
            return Err(fail(source, message, range.start..range.end));
        }
    };
    let mut duplicates = Vec::new();
    let node = match root {
        Some(root) => convert(&root, file, &KeyPath::root(), &mut duplicates),
        None => Node::empty_map(file),
    };
    source.parsed = true;
    if duplicates.is_empty() {
        return Ok(node);
    }
    let source = &*source;
    Err(duplicates.into_iter().map(|duplicate| duplicate.issue(source)).collect())
}

struct Duplicate {
    path: KeyPath,
    first: Span,
    second: Span,
}

impl Duplicate {
    fn issue(self, source: &Source) -> Issue {
        let (line, column) = source.place(self.first.start);
        let message = format!("this key stands twice, first at {line}:{column}");
        Issue::new(IssueCode::DuplicateKey, self.path, message)
            .stands_in(source, self.second.start..self.second.end)
            .with_suggestion("remove one of the two")
    }
}

fn convert(
    value: &ast::Value<'_>,
    file: usize,
    path: &KeyPath,
    duplicates: &mut Vec<Duplicate>,
) -> Node {
    let span =
        |range: jsonc_parser::common::Range| Span { file, start: range.start, end: range.end };
    let what = match value {
        ast::Value::NullKeyword(_) => What::Null,
        ast::Value::BooleanLit(literal) => What::Bool(literal.value),
        ast::Value::NumberLit(literal) => number(literal.value),
        ast::Value::StringLit(literal) => What::Text(literal.value.to_string()),
        ast::Value::Array(array) => What::List(
            array
                .elements
                .iter()
                .enumerate()
                .map(|(at, element)| convert(element, file, &path.index(at), duplicates))
                .collect(),
        ),
        ast::Value::Object(object) => {
            let mut seen: HashMap<&str, usize> = HashMap::with_capacity(object.properties.len());
            let mut members: Vec<Member> = Vec::with_capacity(object.properties.len());
            for property in &object.properties {
                let name = property.name.as_str();
                let name_span = span(property.name.range());
                let path = path.key(name);
                let value = convert(&property.value, file, &path, duplicates);
                if let Some(&first) = seen.get(name) {
                    let first = members[first].name_span;
                    duplicates.push(Duplicate { path, first, second: name_span });
                } else {
                    seen.insert(name, members.len());
                    members.push(Member { name: name.to_string(), name_span, value });
                }
            }
            What::Map(members)
        }
    };
    Node { what, span: span(value.range()) }
}

/// Reads a JSON5 number; the text is known to be one.
fn number(text: &str) -> What {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let integer = match hex {
        Some(hex) => i128::from_str_radix(hex, 16).ok(),
        None => digits.parse::<i128>().ok(),
    };
    let integer = integer.map(|value| if negative { -value } else { value });
    if let Some(value) = integer.and_then(|value| i64::try_from(value).ok()) {
        return What::Number(value.into());
    }
    if let Some(value) = integer.and_then(|value| u64::try_from(value).ok()) {
        return What::Number(value.into());
    }
    let float = match integer {
        Some(value) => value as f64,
        None => text.strip_prefix('+').unwrap_or(text).parse().unwrap_or(f64::NAN),
    };
    // 18789.0 and 1e3 are whole numbers; beyond 2^53 a float no longer says which.
    if float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0 {
        return What::Number((float as i64).into());
    }
    Number::from_f64(float).map_or(What::NotFinite, What::Number)
}

fn syntax_issue(source: &Source, error: &json5::Error) -> Issue {
    use json5::ErrorCode as C;
    let message = match error.code() {
        Some(C::EofParsingObject) => "the file ends inside an object",
        Some(C::EofParsingArray) => "the file ends inside an array",
        Some(C::EofParsingString | C::EofParsingEscapeSequence) => "the file ends inside a string",
        Some(C::EofParsingComment) => "the file ends inside a comment",
        Some(C::EofParsingValue) if source.text.trim().is_empty() => {
            "the file is empty; it should hold at least {}"
        }
        Some(C::EofParsingValue | C::EofParsingBool | C::EofParsingNull | C::EofParsingNumber) => {
            "the file ends where a value is expected"
        }
        Some(C::EofParsingIdentifier) => "the file ends inside a key",
        Some(C::ExpectedBool | C::ExpectedNull | C::ExpectedNumber | C::ExpectedValue) => {
            "expected a value: text needs quotes around it"
        }
        Some(C::ExpectedString | C::ExpectedStringOrObject) => "expected a string",
        Some(C::ExpectedClosingBrace) => "expected `,` or `}`",
        Some(C::ExpectedClosingBracket) => "expected `,` or `]`",
        Some(C::ExpectedColon) => "expected `:` after the key",
        Some(C::ExpectedComma) => "expected `,` before this",
        Some(C::ExpectedComment) => "a single `/`: a comment begins with `//` or `/*`",
        Some(C::ExpectedIdentifier | C::InvalidKey) => {
            "expected a key: one with other characters than letters, digits, `_` and `$` needs quotes"
        }
        Some(C::ExpectedOpeningBrace) => "expected `{`",
        Some(C::ExpectedOpeningBracket) => "expected `[`",
        Some(C::InvalidBytes | C::InvalidEscapeSequence) => "this is no escape that JSON5 knows",
        Some(C::LeadingZero) => "a number does not begin with 0",
        Some(C::LineTerminatorInString) => "the line ends inside a string; a quote is missing",
        Some(C::OverflowParsingNumber) => "the number is too large",
        Some(C::TrailingCharacters) => "there is more text after the end of the document",
        // The library's own words for a number or an escape; they name no text from the file.
        None => "this number or escape is not valid",
    };
    // The end of the text is where something is missing; what was open there is said below.
    let end = source.text.trim_end().len();
    let at_end = error.code().is_some_and(|code| format!("{code:?}").starts_with("Eof"));
    let position = error.position().filter(|_| !at_end);
    let at = position.map_or(end, |position| offset_of(&source.text, position));
    let message = if source.text[..at].trim().is_empty() && end > 0 {
        "expected `{`: the document is one JSON5 object"
    } else {
        message
    };
    let next = source.text[at..].chars().next().map_or(0, char::len_utf8);
    let issue =
        Issue::new(IssueCode::Syntax, KeyPath::root(), message).stands_in(source, at..at + next);
    match lex::unclosed(&source.text).filter(|_| at_end) {
        Some(open) => {
            let (line, column) = source.place(open);
            let bracket = &source.text[open..=open];
            issue.with_suggestion(format!("`{bracket}` at {line}:{column} is never closed"))
        }
        None => issue,
    }
}

/// Turns the library's line and column, both from 0, into a byte offset.
fn offset_of(text: &str, position: json5::Position) -> usize {
    let (mut line, mut column) = (0, 0);
    let mut chars = text.char_indices().peekable();
    while let Some((offset, c)) = chars.next() {
        if (line, column) >= (position.line, position.column) {
            return offset;
        }
        if matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}') {
            if c == '\r' && chars.peek().is_some_and(|(_, c)| *c == '\n') {
                chars.next();
            }
            line += 1;
            column = 0;
        } else {
            column += 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Node, Vec<Issue>> {
        let source = Source { path: "x".into(), text: text.into(), bom: false, parsed: false };
        parse(&mut { source }, 0)
    }

    #[test]
    fn every_form_of_number() {
        for (text, value) in [
            ("0x10", "16"),
            ("-0x10", "-16"),
            ("+7", "7"),
            (".5", "0.5"),
            ("5.", "5"),
            ("18789.0", "18789"),
            ("1e3", "1000"),
            ("18446744073709551615", "18446744073709551615"),
            ("-1.5e-3", "-0.0015"),
            ("NaN", "null"),
            ("-Infinity", "null"),
        ] {
            assert_eq!(read(text).unwrap().to_value().to_string(), value, "{text}");
        }
    }

    #[test]
    fn positions_are_of_key_and_value() {
        let node = read("{ a: [1, 'x'], 'b c': {} }").unwrap();
        let member = node.member("b c").unwrap();
        assert_eq!((member.name_span.start, member.name_span.end), (15, 20));
        assert_eq!(member.value.caret(), Span { file: 0, start: 22, end: 23 });
    }

    #[test]
    fn depth_is_limited_before_anything_recurses() {
        let text = "[".repeat(10_000) + &"]".repeat(10_000);
        let issues = read(&text).unwrap_err();
        assert_eq!(issues[0].message, "nested deeper than 128 levels");
        assert!(read(&("[".repeat(128) + &"]".repeat(128))).is_ok());
    }

    #[test]
    fn both_places_of_a_duplicate() {
        let issues = read("{ a: { b: 1,\n 'b': 2 }, a: 3 }").unwrap_err();
        assert_eq!(issues[0].path.to_string(), "a.b");
        assert_eq!(issues[0].message, "this key stands twice, first at 1:8");
        assert_eq!((issues[0].line, issues[0].column), (Some(2), Some(2)));
        assert_eq!(issues[1].path.to_string(), "a");
    }

    fn json5_text() -> impl proptest::strategy::Strategy<Value = String> {
        use proptest::prelude::*;
        let leaf = prop_oneof![
            Just("null".to_string()),
            Just("true".into()),
            "[+-]?(0|[1-9][0-9]{0,4})(\\.[0-9]{0,3})?(e[+-]?[0-9])?",
            "0x[0-9a-fA-F]{1,6}",
            "'[a-z\\\\ \"$ß]{0,6}'",
            "\"([a-z'{}]|\\\\n|\\\\u00e9|\\\\x41|\\\\\\n){0,6}\"",
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4)
                    .prop_map(|items| format!("[{}]", items.join(" , "))),
                proptest::collection::vec(("[a-z$_]{1,3}", inner), 0..4).prop_map(|members| {
                    let members: Vec<String> =
                        members.iter().map(|(k, v)| format!("{k} /* c */ : {v}")).collect();
                    format!("{{{} // x\n}}", members.join(","))
                }),
            ]
        })
    }

    proptest::proptest! {
        /// Both parsers must read the same value, or an edit would go to the wrong place.
        #[test]
        fn both_parsers_agree(text in json5_text()) {
            if let (Ok(node), Ok(value)) = (read(&text), json5::from_str::<Value>(&text)) {
                let ours = serde_json::from_str::<Value>(&node.to_value().to_string()).unwrap();
                let close = |a: &Value, b: &Value| a == b || a.as_f64().zip(b.as_f64())
                    .is_some_and(|(a, b)| a == b);
                fn same(a: &Value, b: &Value, close: &dyn Fn(&Value, &Value) -> bool) -> bool {
                    match (a, b) {
                        (Value::Array(a), Value::Array(b)) => a.len() == b.len()
                            && a.iter().zip(b).all(|(a, b)| same(a, b, close)),
                        (Value::Object(a), Value::Object(b)) => a.len() == b.len()
                            && a.iter().all(|(k, a)| b.get(k).is_some_and(|b| same(a, b, close))),
                        _ => close(a, b),
                    }
                }
                proptest::prop_assert!(same(&ours, &value, &close), "{ours} and {value}");
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}:,'\"/*\\\\a-c0-9xe.+\\- \\n\\r\u{2028}\u{feff}ß]{0,40}") {
            let ours = read(&text);
            if json5::from_str::<Value>(&text).is_err() {
                proptest::prop_assert!(ours.is_err(), "only json5 decides what is valid");
            }
        }
    }
}
