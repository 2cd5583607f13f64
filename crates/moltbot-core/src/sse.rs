//! Splits a stream of bytes into server-sent events (WHATWG HTML, "Server-sent events").

use std::borrow::Cow;

/// One event: its name (empty if the stream names none) and its data lines joined by `\n`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SseEvent {
    /// The `event:` field.
    pub name: String,
    /// The `data:` fields.
    pub data: String,
    /// Bytes of the stream up to the end of this event, its blank line included.
    pub end: u64,
}

/// A pure, incremental splitter: every split of the same bytes gives the same events.
///
/// Accepts `\n`, `\r\n` and `\r`, skips comments and unknown fields, drops an unfinished event at
/// the end, and replaces invalid UTF-8. An event above the limit is dropped and counted.
///
/// ```
/// use moltbot_core::SseSplitter;
/// let mut splitter = SseSplitter::new(1 << 20);
/// let mut names = Vec::new();
/// splitter.push(b"event: ping\nda", &mut |event| names.push(event.name));
/// splitter.push(b"ta: {}\n\n", &mut |event| names.push(event.name));
/// assert_eq!(names, ["ping"]);
/// ```
#[derive(Debug)]
pub struct SseSplitter {
    line: Vec<u8>,
    name: String,
    data: String,
    any_data: bool,
    seen: u64,
    held: usize,
    limit: usize,
    oversized: u64,
    too_long: bool,
    after_cr: bool,
    at_start: bool,
    /// The event to report once it is known whether its last `\r` belongs to a `\r\n`.
    ready: Option<(String, String)>,
}

impl SseSplitter {
    /// Makes a splitter that holds at most `limit` bytes of one event.
    pub fn new(limit: usize) -> Self {
        Self {
            line: Vec::new(),
            name: String::new(),
            data: String::new(),
            any_data: false,
            seen: 0,
            held: 0,
            limit,
            oversized: 0,
            too_long: false,
            after_cr: false,
            at_start: true,
            ready: None,
        }
    }

    /// Returns how many events were dropped for their size.
    pub fn oversized(&self) -> u64 {
        self.oversized
    }

    /// Returns how many bytes were taken in.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Tells whether the stream stands between two events.
    pub fn is_between_events(&self) -> bool {
        self.line.is_empty() && !self.any_data && self.name.is_empty() && !self.too_long
    }

    /// Takes the next bytes and reports the events they complete.
    pub fn push(&mut self, bytes: &[u8], report: &mut dyn FnMut(SseEvent)) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.after_cr {
                self.after_cr = false;
                if rest[0] == b'\n' {
                    self.seen += 1;
                    rest = &rest[1..];
                }
                self.flush(report);
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', rest) else {
                self.hold(rest);
                return;
            };
            self.hold(&rest[..end]);
            self.seen += 1;
            self.line_done();
            if rest[end] == b'\r' {
                self.after_cr = true;
            } else {
                self.flush(report);
            }
            rest = &rest[end + 1..];
        }
    }

    /// Steps over the whole events at the front of `bytes` that begin with `prefix` and consist of
    /// that line and of data, without reading them, and returns how many bytes those are. Nothing is stepped over inside an event, nor
    /// where a line ends in `\r`: those bytes are for [`push`](Self::push).
    ///
    /// ```
    /// use moltbot_core::SseSplitter;
    /// let mut splitter = SseSplitter::new(1 << 20);
    /// let stream = b"event: dull\ndata: 1\n\nevent: dull\ndata: 2\n\nevent: x\n";
    /// assert_eq!(splitter.skip(stream, b"event: dull"), 42);
    /// assert_eq!(splitter.seen(), 42);
    /// ```
    pub fn skip(&mut self, bytes: &[u8], prefix: &[u8]) -> usize {
        if !self.is_between_events() || self.after_cr || self.ready.is_some() {
            return 0;
        }
        let mut at = 0;
        while bytes[at..].starts_with(prefix)
            && let Some(length) = plain_event(&bytes[at..])
        {
            at += length;
        }
        if at > 0 {
            self.seen += at as u64;
            self.at_start = false;
        }
        at
    }

    /// Says that no more bytes come; an event that was complete but for a `\n` is reported.
    pub fn end(&mut self, report: &mut dyn FnMut(SseEvent)) {
        self.after_cr = false;
        self.flush(report);
    }

    fn hold(&mut self, bytes: &[u8]) {
        self.seen += bytes.len() as u64;
        self.held += bytes.len();
        if self.held > self.limit {
            self.too_long = true;
            self.line.clear();
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn line_done(&mut self) {
        let line = std::mem::take(&mut self.line);
        let mut line = line.as_slice();
        if std::mem::take(&mut self.at_start) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        // A blank line ends the event; inside an oversized one lines are not kept, so that only a
        // line without any byte counts as blank.
        if line.is_empty() && (!self.too_long || self.held == 0) {
            self.event_done();
            return;
        }
        if self.too_long {
            // Lines of an event that is dropped anyway: remember only that this one was not blank.
            self.held = 0;
            return;
        }
        // Asked first, because it is nearly always text and that is told quicker.
        let text = match std::str::from_utf8(line) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(line),
        };
        let (field, value) = text.split_once(':').unwrap_or((&text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_string(),
            "data" => {
                if self.any_data {
                    self.data.push('\n');
                }
                self.any_data = true;
                self.data.push_str(value);
            }
            _ => {}
        }
    }

    fn event_done(&mut self) {
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        self.held = 0;
        if std::mem::take(&mut self.too_long) {
            self.any_data = false;
            self.oversized += 1;
        } else if std::mem::take(&mut self.any_data) {
            self.ready = Some((name, data));
        }
    }

    fn flush(&mut self, report: &mut dyn FnMut(SseEvent)) {
        if let Some((name, data)) = self.ready.take() {
            report(SseEvent { name, data, end: self.seen });
        }
    }
}

/// Returns where the first event of `bytes` ends like [`first_event`], if all its lines but the first
/// are data, of which there is some: a later name would be the one that counts.
fn plain_event(bytes: &[u8]) -> Option<usize> {
    let mut line = line_end(bytes, 0)?;
    loop {
        if !bytes[line..].starts_with(b"data:") {
            return None;
        }
        line = line_end(bytes, line)?;
        if *bytes.get(line)? == b'\n' {
            return Some(line + 1);
        }
    }
}

/// Returns where the line after that at `start` begins, unless a `\r` comes first.
fn line_end(bytes: &[u8], start: usize) -> Option<usize> {
    let end = start + memchr::memchr2(b'\n', b'\r', &bytes[start..])?;
    (bytes[end] == b'\n').then_some(end + 1)
}

/// Returns where the first event of `bytes` ends, its blank line included; `None` if it is not all
/// there, or if one of its lines ends in `\r`.
pub fn first_event(bytes: &[u8]) -> Option<usize> {
    let mut line = 0;
    loop {
        let end = line + memchr::memchr2(b'\n', b'\r', &bytes[line..])?;
        match bytes[end] {
            b'\n' if end == line => return Some(end + 1),
            b'\n' => line = end + 1,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]], limit: usize) -> Vec<SseEvent> {
        let mut splitter = SseSplitter::new(limit);
        let mut events = Vec::new();
        for piece in pieces {
            splitter.push(piece, &mut |event| events.push(event));
        }
        splitter.end(&mut |event| events.push(event));
        events
    }

    const SAMPLE: &[u8] = b"\xef\xbb\xbf: hello\nevent: a\ndata: 1\ndata:2\n\nid: 3\n\n\
        event: b\r\ndata: {\"x\":\"\xc3\xa9\"}\r\n\r\ndata\r\rretry: 5\rdata:  y\r\rdata: lost";

    #[test]
    fn all_line_ends_and_fields() {
        let events = split(&[SAMPLE], 1000);
        let seen: Vec<_> = events.iter().map(|e| (e.name.as_str(), e.data.as_str())).collect();
        assert_eq!(seen, [("a", "1\n2"), ("b", "{\"x\":\"é\"}"), ("", ""), ("", " y")]);
        assert_eq!(&SAMPLE[events[0].end as usize..][..5], b"id: 3");
        assert_eq!(&SAMPLE[events[1].end as usize..][..5], b"data\r");
    }

    #[test]
    fn every_split_gives_the_same_events() {
        let whole = split(&[SAMPLE], 1000);
        for at in 0..=SAMPLE.len() {
            let (head, tail) = SAMPLE.split_at(at);
            assert_eq!(split(&[head, tail], 1000), whole, "split at {at}");
        }
        let bytes: Vec<&[u8]> = SAMPLE.chunks(1).collect();
        assert_eq!(split(&bytes, 1000), whole);
    }

    #[test]
    fn what_is_skipped_leaves_the_rest_as_it_was() {
        let dull = "event: dull\ndata: 1\n\n";
        let stream = format!("{dull}{dull}event: a\ndata: 1\n\n{dull}event: dull\r\ndata\r\n\r\n");
        for cut in 0..=stream.len() {
            let mut splitter = SseSplitter::new(1_000);
            let mut events = Vec::new();
            for piece in [&stream[..cut], &stream[cut..]] {
                let mut rest = piece.as_bytes();
                while !rest.is_empty() {
                    let skipped = splitter.skip(rest, b"event: dull");
                    rest = &rest[skipped..];
                    let length = first_event(rest).unwrap_or(rest.len());
                    splitter.push(&rest[..length], &mut |event| events.push(event));
                    rest = &rest[length..];
                }
            }
            splitter.end(&mut |event| events.push(event));
            events.retain(|event| event.name == "a");
            assert_eq!(events.len(), 1, "{cut}");
            assert_eq!(events[0].end, dull.len() as u64 * 2 + 18, "{cut}");
            assert_eq!(splitter.seen(), stream.len() as u64, "{cut}");
        }
    }

    #[test]
    fn nothing_but_data_is_skipped() {
        for odd in
            ["event: dull\nevent: error\ndata: []\n\n", "event: dull\n\n", "event: dull\nid: 1\n\n"]
        {
            assert_eq!(SseSplitter::new(1_000).skip(odd.as_bytes(), b"event: dull"), 0, "{odd}");
        }
    }

    #[test]
    fn an_oversized_event_is_dropped_whole() {
        let stream = b"data: 0123456789\ndata: 0123456789\nevent: x\n\ndata: ok\n\n";
        for size in 1..stream.len() {
            let pieces: Vec<&[u8]> = stream.chunks(size).collect();
            let events = split(&pieces, 20);
            assert_eq!(events.len(), 1, "{size}: {events:?}");
            assert_eq!((events[0].name.as_str(), events[0].data.as_str()), ("", "ok"));
        }
    }
}
