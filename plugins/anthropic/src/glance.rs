//! Reads of a reply only what an observer wants, without a tree of its values. Whatever is not
//! written as the service writes it is left to [`message`](crate::message), which takes anything.

use moltbot_core::{Event, Usage, plain_text};

/// A whole message.
#[derive(Default)]
struct Reply {
    is_message: bool,
    id: Option<String>,
    model: Option<String>,
    stop_reason: Option<String>,
    usage: Usage,
    failed: bool,
}

/// The message of a `message_start` event.
#[derive(Default)]
pub(crate) struct Started {
    pub(crate) id: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) usage: Usage,
}

/// What a `message_delta` event changes.
#[derive(Default)]
pub(crate) struct Change {
    pub(crate) stop: Option<String>,
    pub(crate) usage: Usage,
}

/// Turns one message of `length` bytes into the events an observer gets; `false`, and no event, if
/// it is anything else.
pub(crate) fn whole(text: &[u8], length: u64, events: &mut Vec<Event>) -> bool {
    // Texts are stepped over, hence checked here.
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let mut reply = Reply::default();
    let read = Reader::new(text).whole(|reader, name| {
        match name {
            "type" => reply.is_message = reader.text()?.as_deref() == Some("message"),
            "id" => reply.id = reader.text()?,
            "model" => reply.model = reader.text()?,
            "stop_reason" => reply.stop_reason = reader.text()?,
            "usage" => reply.usage = reader.usage()?,
            "error" => reply.failed = !reader.null_or_any()?,
            _ => return reader.skip(),
        }
        Some(Member::Read)
    });
    if read.is_none() || !reply.is_message || reply.failed {
        return false;
    }
    let Reply { id, model, usage, .. } = reply;
    events.push(Event::Began { at: length, id, model, usage });
    let stop = reply.stop_reason.unwrap_or_default();
    events.push(Event::TurnEnd { at: length, stop, usage });
    true
}

/// Reads a `message_start` event.
pub(crate) fn started(data: &str) -> Option<Started> {
    let mut found = None;
    Reader::new(data).whole(|reader, name| match name {
        "message" => {
            let mut started = Started::default();
            reader.object(|reader, name| {
                match name {
                    "id" => started.id = reader.text()?,
                    "model" => started.model = reader.text()?,
                    "usage" => started.usage = reader.usage()?,
                    _ => return reader.skip(),
                }
                Some(Member::Read)
            })?;
            found = Some(started);
            Some(Member::Read)
        }
        _ => reader.skip(),
    })?;
    found
}

/// Reads a `message_delta` event.
pub(crate) fn change(data: &str) -> Option<Change> {
    let mut change = Change::default();
    Reader::new(data).whole(|reader, name| match name {
        "delta" => {
            reader.object(|reader, name| match name {
                "stop_reason" => {
                    change.stop = reader.text()?;
                    Some(Member::Read)
                }
                _ => reader.skip(),
            })?;
            Some(Member::Read)
        }
        "usage" => {
            change.usage = reader.usage()?;
            Some(Member::Read)
        }
        _ => reader.skip(),
    })?;
    Some(change)
}

/// What became of a member of an object.
#[derive(PartialEq, Eq)]
enum Member {
    Read,
    /// Stepped over: it may repeat itself.
    Skipped,
}

/// How deep what is stepped over may nest.
const DEEPEST: usize = 100;

/// The most members of an object that are read.
const MOST_READ: usize = 6;

/// Steps through one JSON text. `None` ends it: something is no JSON, or not written as the service
/// writes it, or named twice.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Reads the object that is the whole text. `member` gets the name of each member and reads its
    /// value.
    fn whole(&mut self, member: impl FnMut(&mut Self, &'a str) -> Option<Member>) -> Option<()> {
        self.space();
        self.object(member)?;
        self.space();
        (self.at == self.text.len()).then_some(())
    }

    fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &'a str) -> Option<Member>,
    ) -> Option<()> {
        self.expect(b'{')?;
        let mut seen = [""; MOST_READ];
        let mut count = 0;
        self.items(b'}', |reader| {
            let name = reader.raw()?;
            reader.colon()?;
            if member(reader, name)? == Member::Read {
                // Which of two counts is for who reads it all.
                if seen[..count].contains(&name) {
                    return None;
                }
                *seen.get_mut(count)? = name;
                count += 1;
            }
            Some(())
        })
    }

    fn colon(&mut self) -> Option<()> {
        self.space();
        self.expect(b':')?;
        self.space();
        Some(())
    }

    /// Reads what stands between commas until `end`, whose opening was read.
    fn items(&mut self, end: u8, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.space();
        if self.peek()? == end {
            self.at += 1;
            return Some(());
        }
        loop {
            self.space();
            item(self)?;
            self.space();
            let next = self.peek()?;
            self.at += 1;
            match next {
                b',' => {}
                _ if next == end => return Some(()),
                _ => return None,
            }
        }
    }

    /// Reads a text or `null`.
    fn text(&mut self) -> Option<Option<String>> {
        if self.peek()? == b'n' {
            self.word("null")?;
            return Some(None);
        }
        self.raw().map(|text| Some(text.to_string()))
    }

    /// Reads a text that is written as it is.
    fn raw(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let start = self.at;
        self.at += plain_text(&self.text.as_bytes()[start..]);
        self.expect(b'"')?;
        self.text.get(start..self.at - 1)
    }

    /// Reads a count or `null`.
    fn count(&mut self) -> Option<Option<u64>> {
        if self.peek()? == b'n' {
            self.word("null")?;
            return Some(None);
        }
        let rest = &self.text.as_bytes()[self.at..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = &self.text[self.at..self.at + digits];
        self.at += digits;
        let is_more = matches!(self.peek(), Some(b'.' | b'e' | b'E'));
        let is_odd = is_more || (digits > 1 && number.starts_with('0'));
        number.parse().ok().filter(|_| !is_odd).map(Some)
    }

    /// Reads an object of figures or `null`.
    fn usage(&mut self) -> Option<Usage> {
        let mut usage = Usage::default();
        if self.peek()? == b'n' {
            self.word("null")?;
            return Some(usage);
        }
        let mut parts = None;
        self.object(|reader, name| {
            match name {
                "input_tokens" => usage.input = reader.count()?,
                "output_tokens" => usage.output = reader.count()?,
                "cache_read_input_tokens" => usage.cache_read = reader.count()?,
                "cache_creation_input_tokens" => usage.cache_write = reader.count()?,
                "cache_creation" => parts = reader.split()?,
                _ => return reader.skip(),
            }
            Some(Member::Read)
        })?;
        if let Some((five, hour)) = parts {
            (usage.cache_write_5m, usage.cache_write_1h) = (five, hour);
            if five.is_some() || hour.is_some() {
                let sum = five.unwrap_or(0).saturating_add(hour.unwrap_or(0));
                usage.cache_write = usage.cache_write.or(Some(sum));
            }
        }
        Some(usage)
    }

    /// Reads how what was written to the cache is split by lifetime.
    fn split(&mut self) -> Option<Option<(Option<u64>, Option<u64>)>> {
        if self.peek()? == b'n' {
            self.word("null")?;
            return Some(None);
        }
        let mut parts = (None, None);
        self.object(|reader, name| {
            match name {
                "ephemeral_5m_input_tokens" => parts.0 = reader.count()?,
                "ephemeral_1h_input_tokens" => parts.1 = reader.count()?,
                _ => return reader.skip(),
            }
            Some(Member::Read)
        })?;
        Some(Some(parts))
    }

    /// Steps over a value and tells whether it was `null`.
    fn null_or_any(&mut self) -> Option<bool> {
        let null = self.peek()? == b'n';
        self.skip()?;
        Some(null)
    }

    /// Steps over the value of a member.
    fn skip(&mut self) -> Option<Member> {
        self.step_over(DEEPEST).map(|()| Member::Skipped)
    }

    fn step_over(&mut self, deep: usize) -> Option<()> {
        let below = deep.checked_sub(1)?;
        match self.peek()? {
            b'"' => self.skip_text(),
            b'{' => {
                self.at += 1;
                self.items(b'}', |reader| {
                    reader.skip_text()?;
                    reader.colon()?;
                    reader.step_over(below)
                })
            }
            b'[' => {
                self.at += 1;
                self.items(b']', |reader| reader.step_over(below))
            }
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.skip_number(),
        }
    }

    fn skip_text(&mut self) -> Option<()> {
        self.expect(b'"')?;
        loop {
            self.at += plain_text(&self.text.as_bytes()[self.at..]);
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(()),
                b'\\' => match self.peek()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
                    // Numbers of characters can be wrong in ways that this does not know.
                    _ => {
                        let hex = self.text.get(self.at..self.at + 5)?.strip_prefix('u')?;
                        let is_hex = hex.bytes().all(|digit| digit.is_ascii_hexdigit());
                        let code = u32::from_str_radix(hex, 16).ok().filter(|_| is_hex)?;
                        char::from_u32(code)?;
                        self.at += 5;
                    }
                },
                _ => return None,
            }
        }
    }

    fn skip_number(&mut self) -> Option<()> {
        let start = self.at;
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        self.at += self.text.as_bytes()[start..].iter().take_while(|byte| is_part(byte)).count();
        let number = &self.text[start..self.at];
        // All but a few are digits.
        let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let easy = plain && (number.len() == 1 || !number.starts_with('0'));
        (easy || serde_json::from_str::<serde_json::Number>(number).is_ok()).then_some(())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let found = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += word.len();
        found.then_some(())
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        let found = self.peek()? == byte;
        self.at += 1;
        found.then_some(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message;

    /// Usual and odd replies; whatever is read at a glance says the same as the tree does.
    const REPLIES: [&str; 26] = [
        r#"{"type":"message","id":"msg_1","model":"m","content":[{"type":"text","text":"\u00e9"}],"stop_reason":"end_turn","usage":{"input_tokens":12,"output_tokens":14,"cache_creation":{"ephemeral_5m_input_tokens":3}}}"#,
        r#"{"type":"message","stop_reason":null,"usage":{"input_tokens":1,"cache_creation_input_tokens":5,"cache_read_input_tokens":2,"service_tier":"x","server_tool_use":null}}"#,
        r#"{"usage":{"output_tokens":1},"type":"message","error":null}"#,
        r#"{"type":"message","error":{"type":"api_error"}}"#,
        r#"{"type":"message","id":7,"usage":{"input_tokens":3}}"#,
        r#"{"type":"message","usage":{"input_tokens":-3,"output_tokens":7.0}}"#,
        r#"{"type":"message","usage":"none"}"#,
        r#"{"type":"message","usage":{"input_tokens":1},"usage":{"input_tokens":2}}"#,
        r#"{"\u0074ype":"message","usage":{"input_tokens":4}}"#,
        r#"{"type":"message","usage":null}"#,
        r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
        r#"{"input_tokens":9}"#,
        r#"{"data":[]}"#,
        r#"{"type":"message""#,
        r#"{"type":"message","usage":{"input_tokens":01}}"#,
        r#"{"type":"message","content":[1,-2.5e+3,true,false,null,{"a":[],"b":{}},""],"usage":{"input_tokens":18446744073709551615}}"#,
        r#"{"type":"message","content":[1,],"usage":{"input_tokens":2}}"#,
        r#"{"type":"message","x":{"type":"other","usage":{"input_tokens":9}},"x":1}"#,
        r#"{"type":"message","x":"\ud83d\ude00 \u0041 \n","usage":{"input_tokens":2}}"#,
        r#"{"type":"message","x":"\u+123","usage":{"input_tokens":2}}"#,
        r#"{"type":"message","x":"\q"}"#,
        r#"{"type":"message","x":00}"#,
        r#"{"type":"message","x":-}"#,
        r#" { "type" : "message" , "usage" : { "input_tokens" : 5 , "cache_creation" : null } } "#,
        r#"{"type":"message"} x"#,
        "[]",
    ];

    #[test]
    fn a_glance_sees_what_a_tree_shows() {
        let mut seen = 0;
        for reply in REPLIES {
            let (mut glance, mut tree) = (Vec::new(), Vec::new());
            message::whole(reply.as_bytes(), 9, false, &mut tree);
            if whole(reply.as_bytes(), 9, &mut glance) {
                assert_eq!(glance, tree, "{reply}");
                seen += 1;
            } else {
                assert!(glance.is_empty(), "{reply}");
            }
        }
        assert_eq!(seen, 7, "usual replies are read at a glance");
        assert!(!whole(b"{\"type\":\"message\",\"id\":\"\xff\"}", 9, &mut Vec::new()));
    }

    #[test]
    fn events_of_a_stream_are_read_at_a_glance() {
        let data = r#"{"type":"message_start","message":{"id":"a","model":"m","usage":{"input_tokens":3,"output_tokens":1}}}"#;
        let started = started(data).unwrap();
        let tree: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(started.usage, message::usage(&tree["message"]["usage"]));
        assert_eq!((started.id.as_deref(), started.model.as_deref()), (Some("a"), Some("m")));
        let data = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":60}}"#;
        let change = change(data).unwrap();
        let tree: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(change.usage, message::usage(&tree["usage"]));
        assert_eq!(change.stop.as_deref(), Some("end_turn"));
        assert!(super::change(r#"{"usage":{"output_tokens":"60"}}"#).is_none());
    }
}
