//! Finds the places of a JSON body that a provider asked to see, in one pass and without a tree.
//!
//! Patterns are JSON pointers (RFC 6901) in which `*` stands for any index of an array:
//! `/messages/*/content/*/cache_control`. Everything is checked on the way, so that a body that
//! passes to its end is JSON (RFC 8259); a scan that may stop early says so.

use std::borrow::Cow;
use std::collections::HashSet;

use moltbot_core::{Found, Span, plain_text};
use thiserror::Error;

/// How a body is scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanOptions {
    /// Refuses an object that names a member twice: the service would read the other one.
    pub refuse_duplicates: bool,
    /// How deep arrays and objects may nest.
    pub max_depth: usize,
    /// Returns as soon as every pattern is found; only for patterns without `*`.
    pub stop_early: bool,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self { refuse_duplicates: false, max_depth: 128, stop_early: false }
    }
}

/// Why a body cannot be scanned: where, and what stands there.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the body is not usable: {what} at byte {at}")]
pub struct ScanError {
    /// How many bytes were fine.
    pub at: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// The patterns of one provider, taken apart once.
#[derive(Clone, Debug, Default)]
pub struct Patterns(Vec<Vec<Step>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Any,
    Name(String),
}

impl Patterns {
    /// Takes patterns apart. At most 63 are used, which no provider comes near.
    pub fn new<T: AsRef<str>>(patterns: &[T]) -> Self {
        let steps = |pattern: &T| {
            let pattern = pattern.as_ref();
            pattern.split('/').skip(1).map(Step::parse).collect::<Vec<_>>()
        };
        Self(patterns.iter().take(63).map(steps).collect())
    }

    fn all(&self) -> u64 {
        (1 << self.0.len()) - 1
    }
}

impl Step {
    fn parse(text: &str) -> Self {
        match text {
            "*" => Self::Any,
            name => Self::Name(name.replace("~1", "/").replace("~0", "~")),
        }
    }
}

/// Finds what stands at `patterns` in `body`, in order of appearance.
///
/// ```
/// use moltbot_gateway::{Patterns, ScanOptions, scan};
/// let body = br#"{"system":[{"text":"a","cache_control":{"type":"ephemeral"}}],"model":"m"}"#;
/// let patterns = Patterns::new(&["/model", "/system/*/cache_control"]);
/// let found = scan(body, &patterns, ScanOptions::default()).unwrap();
/// assert_eq!(found[0].path, "/system/0/cache_control");
/// assert_eq!(found[1].value, "\"m\"");
/// ```
pub fn scan<'a>(
    body: &'a [u8],
    patterns: &Patterns,
    options: ScanOptions,
) -> Result<Vec<Found<'a>>, ScanError> {
    let wild = patterns.0.iter().any(|steps| steps.contains(&Step::Any));
    let mut scanner = Scanner {
        body,
        at: 0,
        patterns,
        options,
        found: Vec::new(),
        path: String::new(),
        seen: HashSet::new(),
        objects: 0,
        missing: if options.stop_early && !wild { patterns.all() } else { u64::MAX },
    };
    scanner.space();
    scanner.value(0, patterns.all())?;
    if scanner.missing != 0 {
        scanner.space();
        if scanner.at < body.len() {
            return Err(scanner.error("more than one value"));
        }
    }
    Ok(scanner.found)
}

struct Scanner<'a, 'p> {
    body: &'a [u8],
    at: usize,
    patterns: &'p Patterns,
    options: ScanOptions,
    found: Vec<Found<'a>>,
    /// The pointer of the current value; kept only while a pattern can still match.
    path: String,
    /// Members met, with the number of their object, if duplicates are refused.
    seen: HashSet<(usize, Cow<'a, str>)>,
    objects: usize,
    /// Patterns not found yet; zero stops the scan.
    missing: u64,
}

impl<'a> Scanner<'a, '_> {
    /// Reads one value. `active` has a bit for every pattern that matches down to here.
    fn value(&mut self, depth: usize, active: u64) -> Result<(), ScanError> {
        let start = self.at;
        let hits = self.matching(active, |steps| steps.len() == depth);
        let slot = self.found.len();
        if hits != 0 {
            let path = Cow::Owned(self.path.clone());
            self.found.push(Found { path, span: Span::new(start, start), value: "".into() });
        }
        match self.peek() {
            Some(b'{') => self.object(depth, active)?,
            Some(b'[') => self.array(depth, active)?,
            Some(b'"') => {
                self.string()?;
            }
            Some(b't') => self.word(b"true")?,
            Some(b'f') => self.word(b"false")?,
            Some(b'n') => self.word(b"null")?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(_) => return Err(self.error("no JSON value")),
            None => return Err(self.error("an end too early")),
        }
        if hits != 0 && self.missing != 0 {
            let Ok(text) = std::str::from_utf8(&self.body[start..self.at]) else {
                return Err(ScanError { at: start, what: "text that is not UTF-8" });
            };
            self.found[slot].span = Span::new(start, self.at);
            self.found[slot].value = Cow::Borrowed(text);
            self.missing &= !hits;
        }
        Ok(())
    }

    fn object(&mut self, depth: usize, active: u64) -> Result<(), ScanError> {
        self.enter(depth)?;
        let object = self.objects;
        self.objects += 1;
        if self.close(b'}') {
            return Ok(());
        }
        loop {
            self.space();
            let key_at = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.error("no member name"));
            }
            let raw = self.string()?;
            // A name is decoded only if something depends on it.
            let wanted = active != 0 || self.options.refuse_duplicates;
            let name = if wanted { self.decode(raw, key_at)? } else { Cow::Borrowed("") };
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.error("no colon"));
            }
            self.at += 1;
            self.space();
            let below = self.matching(
                active,
                |steps| matches!(steps.get(depth), Some(Step::Name(step)) if *step == name),
            );
            let length = self.path.len();
            if below != 0 {
                self.path.push('/');
                match name.contains(['~', '/']) {
                    true => self.path.push_str(&name.replace('~', "~0").replace('/', "~1")),
                    false => self.path.push_str(&name),
                }
            }
            if self.options.refuse_duplicates && !self.seen.insert((object, name)) {
                return Err(ScanError { at: key_at, what: "a member named twice" });
            }
            self.value(depth + 1, below)?;
            self.path.truncate(length);
            if self.missing == 0 || !self.next_item(b'}')? {
                return Ok(());
            }
        }
    }

    fn array(&mut self, depth: usize, active: u64) -> Result<(), ScanError> {
        self.enter(depth)?;
        if self.close(b']') {
            return Ok(());
        }
        for index in 0usize.. {
            self.space();
            let length = self.path.len();
            let mut below = 0;
            if active != 0 {
                let number = index.to_string();
                below = self.matching(active, |steps| match steps.get(depth) {
                    Some(Step::Any) => true,
                    Some(Step::Name(step)) => *step == number,
                    None => false,
                });
                self.path.push('/');
                self.path.push_str(&number);
            }
            self.value(depth + 1, below)?;
            self.path.truncate(length);
            if self.missing == 0 || !self.next_item(b']')? {
                break;
            }
        }
        Ok(())
    }

    fn matching(&self, active: u64, test: impl Fn(&[Step]) -> bool) -> u64 {
        let mut rest = active;
        let mut out = 0;
        while rest != 0 {
            let bit = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            if test(&self.patterns.0[bit]) {
                out |= 1 << bit;
            }
        }
        out
    }

    fn enter(&mut self, depth: usize) -> Result<(), ScanError> {
        if depth >= self.options.max_depth {
            return Err(self.error("nesting too deep"));
        }
        self.at += 1;
        Ok(())
    }

    fn close(&mut self, bracket: u8) -> bool {
        self.space();
        let closed = self.peek() == Some(bracket);
        self.at += usize::from(closed);
        closed
    }

    /// Steps over a comma, or over the closing bracket.
    fn next_item(&mut self, bracket: u8) -> Result<bool, ScanError> {
        self.space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == bracket => {
                self.at += 1;
                Ok(false)
            }
            Some(_) => Err(self.error("no comma")),
            None => Err(self.error("an end too early")),
        }
    }

    /// Steps over a string and returns what stands between its quotes.
    fn string(&mut self) -> Result<&'a [u8], ScanError> {
        self.at += 1;
        let start = self.at;
        loop {
            self.at += plain_text(&self.body[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(&self.body[start..self.at - 1]);
                }
                Some(b'\\') => self.escape()?,
                Some(_) => return Err(self.error("a control character")),
                None => return Err(self.error("an end too early")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), ScanError> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                let digits = self.body.get(self.at + 1..self.at + 5);
                if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return Err(self.error("no escape"));
                }
                self.at += 5;
            }
            _ => return Err(self.error("no escape")),
        }
        Ok(())
    }

    fn decode(&self, raw: &'a [u8], at: usize) -> Result<Cow<'a, str>, ScanError> {
        let odd = ScanError { at, what: "a member name that is no text" };
        let text = std::str::from_utf8(raw).map_err(|_| odd.clone())?;
        if !text.contains('\\') {
            return Ok(Cow::Borrowed(text));
        }
        serde_json::from_str(&format!("\"{text}\"")).map(Cow::Owned).map_err(|_| odd)
    }

    fn number(&mut self) -> Result<(), ScanError> {
        self.at += usize::from(self.peek() == Some(b'-'));
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return Err(self.error("no number")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), ScanError> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(self.error("no digit")) } else { Ok(()) }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), ScanError> {
        if !self.body[self.at..].starts_with(word) {
            return Err(self.error("no JSON value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn error(&self, what: &'static str) -> ScanError {
        ScanError { at: self.at, what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;
    use serde_json::Value;

    fn paths(body: &str, patterns: &[&str]) -> Vec<(String, String)> {
        let found = scan(body.as_bytes(), &Patterns::new(patterns), ScanOptions::default());
        found.unwrap().into_iter().map(|f| (f.path.into_owned(), f.value.into_owned())).collect()
    }

    fn refuse(body: &str) -> Result<Vec<Found<'_>>, ScanError> {
        let options = ScanOptions { refuse_duplicates: true, ..ScanOptions::default() };
        scan(body.as_bytes(), &Patterns::new(&["/model"]), options)
    }

    #[test]
    fn nested_places_come_in_order_with_their_bytes() {
        let body = r#" {"a":[{"b":1,"c":[2]},{"b":{"x":null}}],"m" : "q\"" } "#;
        let found = paths(body, &["/a/*", "/a/*/b", "/m", "/a/1/b/x"]);
        let seen: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(seen, ["/a/0", "/a/0/b", "/a/1", "/a/1/b", "/a/1/b/x", "/m"]);
        assert_eq!(found[0].1, r#"{"b":1,"c":[2]}"#);
        assert_eq!(found[5].1, r#""q\"""#);
    }

    #[test]
    fn names_are_compared_decoded_and_paths_are_escaped() {
        let found = paths(r#"{"mod\u0065l":1,"a/b":{"~":2}}"#, &["/model", "/a~1b/~0"]);
        assert_eq!(found[0].0, "/model");
        assert_eq!(found[1].0, "/a~1b/~0");
    }

    #[test]
    fn a_star_is_no_member_name() {
        assert!(paths(r#"{"a":{"*":1,"0":2}}"#, &["/a/*"]).is_empty());
    }

    #[test]
    fn duplicates_are_refused_in_every_spelling_and_object() {
        for body in [
            r#"{"model":"a","model":"b"}"#,
            r#"{"model":"a","mod\u0065l":"b"}"#,
            r#"{"x":[{"y":{"a":1,"b":2,"a":3}}]}"#,
        ] {
            assert_eq!(refuse(body).unwrap_err().what, "a member named twice", "{body}");
        }
        assert!(refuse(r#"{"a":{"b":1},"c":{"b":1},"b":1}"#).is_ok());
    }

    #[test]
    fn depth_is_limited() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(paths(&deep(128), &["/x"]).is_empty());
        let body = deep(129);
        let error = scan(body.as_bytes(), &Patterns::default(), ScanOptions::default());
        assert_eq!(error.unwrap_err(), ScanError { at: 128, what: "nesting too deep" });
    }

    #[test]
    fn an_early_stop_reads_no_further() {
        let options = ScanOptions { stop_early: true, ..ScanOptions::default() };
        let body = br#"{"a":{"x":1},"model":"m","rest": this is not JSON"#;
        let found = scan(body, &Patterns::new(&["/model"]), options).unwrap();
        assert_eq!(found[0].value, "\"m\"");
        let wild = scan(body, &Patterns::new(&["/model", "/s/*"]), options);
        assert_eq!(wild.unwrap_err().what, "no JSON value");
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            // Eighths are read back exactly.
            any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
            "[a-c\"\\\\/~é\u{1}]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[ab~/\"]{1,2}", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Every place of a tree that a pattern matches, found the slow way.
    fn expected(value: &Value, steps: &[Step], path: String, out: &mut Vec<(String, Value)>) {
        let Some((step, rest)) = steps.split_first() else {
            out.push((path, value.clone()));
            return;
        };
        match (value, step) {
            (Value::Array(items), step) => {
                for (index, item) in items.iter().enumerate() {
                    if *step == Step::Any || *step == Step::Name(index.to_string()) {
                        expected(item, rest, format!("{path}/{index}"), out);
                    }
                }
            }
            (Value::Object(members), Step::Name(name)) => {
                if let Some(member) = members.get(name) {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    expected(member, rest, format!("{path}/{name}"), out);
                }
            }
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn finds_what_a_tree_walk_finds(value in json(), pretty: bool, pattern in "(/(a|b|\\*|0|~0|aa)){1,3}") {
            let body = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let patterns = Patterns::new(&[&pattern]);
            let mut wanted = Vec::new();
            expected(&value, &patterns.0[0], String::new(), &mut wanted);
            let found = scan(body.as_bytes(), &patterns, ScanOptions::default()).unwrap();
            let seen: Vec<_> = found.iter().map(|f| (f.path.to_string(), serde_json::from_str(&f.value).unwrap())).collect();
            prop_assert_eq!(seen, wanted);
            for place in &found {
                prop_assert_eq!(&body[place.span.start..place.span.end], place.value.as_ref());
            }
        }

        #[test]
        fn accepts_exactly_what_the_parser_accepts(value in json(), at in 0usize..200, byte in prop::sample::select(b"{}[]\",:\\0eE-+.tn u\n".to_vec())) {
            let mut body = serde_json::to_vec(&value).unwrap();
            let at = at % body.len();
            body[at] = byte;
            if let Ok(text) = std::str::from_utf8(&body) {
                let parsed = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
                let scanned = scan(&body, &Patterns::new(&["/zz"]), ScanOptions::default());
                // The parser lets a lone surrogate pass in what it ignores; so does the scan,
                // except in names that are compared.
                if !matches!(&scanned, Err(error) if error.what.contains("no text")) {
                    prop_assert_eq!(scanned.is_ok(), parsed, "{}", text);
                }
            }
        }
    }
}
