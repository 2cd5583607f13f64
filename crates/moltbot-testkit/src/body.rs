//! What the host shows a provider of a body, and how its decoders are driven.

use std::borrow::Cow;

use moltbot_core::{
    BodyNeed, ChatView, DecoderMode, Event, Found, Op, Origin, Provider, ProviderInfo, Span, Text,
};
use serde_json::Value;

/// Finds the places of a JSON body that `reads` names, in order of appearance, as the host does.
///
/// Each of `reads` is a JSON pointer in which `*` stands for any index. Panics if the body is not
/// JSON.
///
/// ```
/// let body = r#"{"model":"m","system":[{"x":1},{"x":[2]}]}"#;
/// let found = moltbot_testkit::find(body, &["/model".into(), "/system/*/x".into()]);
/// let seen: Vec<_> = found.iter().map(|it| (it.path.as_ref(), it.value.as_ref())).collect();
/// assert_eq!(seen, [("/model", "\"m\""), ("/system/0/x", "1"), ("/system/1/x", "[2]")]);
/// assert_eq!(&body[found[2].span.start..found[2].span.end], "[2]");
/// ```
pub fn find(body: &str, reads: &[Text]) -> Vec<Found<'static>> {
    if let Err(error) = serde_json::from_str::<Value>(body) {
        panic!("the body of the test is not JSON: {error}");
    }
    let patterns = reads.iter().map(|read| read.split('/').skip(1).collect()).collect();
    let mut walk = Walk { body, at: 0, path: Vec::new(), patterns, found: Vec::new() };
    walk.value();
    walk.found
}

/// Makes the view of a chat that this program composed, for the model its body names.
pub fn chat(info: &ProviderInfo, body: &str) -> ChatView<'static> {
    let head: Value = serde_json::from_str(body).expect("the body of a test is JSON");
    let model = head["model"].as_str().unwrap_or(&info.default_model).to_string();
    ChatView {
        op: Op::Messages,
        origin: Origin::Composed,
        base_url: Cow::Owned(info.base_url.trim_end_matches('/').to_string()),
        path: "".into(),
        query: "".into(),
        headers: Cow::Owned(Vec::new()),
        extra: Cow::Owned(Vec::new()),
        model: model.into(),
        params: Cow::Owned(Value::Null),
        found: Cow::Owned(find(body, &info.reads)),
        body: (info.body == BodyNeed::Whole).then(|| body.to_string().into()),
    }
}

/// Decodes a whole reply.
pub fn decode(provider: &dyn Provider, mode: DecoderMode, bytes: &[u8]) -> Vec<Event> {
    decode_pieces(provider, mode, &[bytes])
}

/// Decodes a reply that arrives in pieces.
pub fn decode_pieces(provider: &dyn Provider, mode: DecoderMode, pieces: &[&[u8]]) -> Vec<Event> {
    let mut decoder = provider.decoder(mode);
    let mut events = Vec::new();
    for piece in pieces {
        decoder.push(piece, &mut events);
    }
    decoder.end(&mut events);
    events
}

/// Walks a body that is known to be JSON.
struct Walk<'a> {
    body: &'a str,
    at: usize,
    path: Vec<Step>,
    patterns: Vec<Vec<&'a str>>,
    found: Vec<Found<'static>>,
}

enum Step {
    Member(String),
    Index(usize),
}

impl Step {
    fn is(&self, pattern: &str) -> bool {
        match self {
            Self::Member(name) => escaped(name) == pattern,
            Self::Index(index) => pattern == "*" || pattern == index.to_string(),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Member(name) => escaped(name),
            Self::Index(index) => index.to_string(),
        }
    }
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

impl Walk<'_> {
    fn value(&mut self) {
        self.blank();
        let start = self.at;
        let wanted = self.patterns.iter().any(|pattern| {
            pattern.len() == self.path.len()
                && pattern.iter().zip(&self.path).all(|(pattern, step)| step.is(pattern))
        });
        let place = self.found.len();
        if wanted {
            let path = self.path.iter().map(|step| format!("/{}", step.text())).collect::<String>();
            let span = Span::new(start, start);
            self.found.push(Found { path: path.into(), span, value: "".into() });
        }
        match self.byte() {
            b'{' => self.members(true),
            b'[' => self.members(false),
            b'"' => self.text(),
            _ => {
                let rest = &self.body[self.at..];
                let end = rest.find([',', '}', ']', ' ', '\n', '\r', '\t']);
                self.at += end.unwrap_or(rest.len());
            }
        }
        if wanted {
            self.found[place].span.end = self.at;
            self.found[place].value = self.body[start..self.at].to_string().into();
        }
    }

    fn members(&mut self, named: bool) {
        self.at += 1;
        for index in 0.. {
            self.blank();
            if matches!(self.byte(), b'}' | b']') {
                break;
            }
            if self.byte() == b',' {
                self.at += 1;
                self.blank();
            }
            let step = if named {
                let start = self.at;
                self.text();
                let name = serde_json::from_str(&self.body[start..self.at]);
                self.blank();
                self.at += 1;
                Step::Member(name.expect("the body was checked"))
            } else {
                Step::Index(index)
            };
            self.path.push(step);
            self.value();
            self.path.pop();
        }
        self.at += 1;
    }

    fn text(&mut self) {
        self.at += 1;
        while self.byte() != b'"' {
            self.at += if self.byte() == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
    }

    fn blank(&mut self) {
        while self.byte().is_ascii_whitespace() {
            self.at += 1;
        }
    }

    fn byte(&self) -> u8 {
        self.body.as_bytes().get(self.at).copied().unwrap_or(b'}')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_json_is_walked() {
        let body = " { \"a\\\"/b\" : [ [ ] , {\"k\":-1e5} , \"]\" ] ,\n\"é\":{\"a\":null}}";
        let reads = ["/a\"~1b", "/a\"~1b/*", "/a\"~1b/1/k", "/é/a", ""].map(Text::Borrowed);
        let found = find(body, &reads);
        let seen: Vec<_> = found.iter().map(|it| it.value.as_ref()).collect();
        let list = "[ [ ] , {\"k\":-1e5} , \"]\" ]";
        assert_eq!(seen, [body.trim(), list, "[ ]", "{\"k\":-1e5}", "-1e5", "\"]\"", "null"]);
        for it in &found {
            assert_eq!(&body[it.span.start..it.span.end], it.value);
        }
    }
}
