//! Source texts: reading them safely, counting lines, and showing a line without its values.

use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use moltbot_core::redact_shapes;

use crate::lex::{self, Piece};
use crate::schema;

/// The largest file that is read.
pub(crate) const MAX_BYTES: usize = 8 * 1024 * 1024;

/// What the operating system calls a symbolic link that leads back to itself.
const ELOOP: i32 = if cfg!(target_os = "linux") { 40 } else { 62 };

/// One file of the document as it stands on disk or in an unsaved edit, without a byte order mark.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) bom: bool,
    /// Whether the text is JSON5; if not, excerpts trust nothing in it.
    pub(crate) parsed: bool,
}

/// Why a file could not be taken as text; `offset` where there is a text to point into.
pub(crate) struct Unreadable {
    pub(crate) message: String,
    pub(crate) missing: bool,
    pub(crate) nul: Option<(String, usize)>,
}

impl Source {
    /// Reads a regular file; a directory, a pipe, a huge file and other encodings are refused.
    pub(crate) fn read(path: &Path) -> Result<Self, Unreadable> {
        let bytes = read_regular(path).map_err(|error| Unreadable::from_io(path, &error))?;
        Self::from_bytes(path, bytes)
    }

    pub(crate) fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, Unreadable> {
        let shown = path.display();
        let fail = |message| Unreadable { message, missing: false, nul: None };
        if bytes.len() > MAX_BYTES {
            return Err(fail(format!("{shown} is larger than {} MiB", MAX_BYTES >> 20)));
        }
        if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            return Err(fail(format!("{shown} is UTF-16; save it as UTF-8")));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            fail(format!("{shown} is not UTF-8: byte {at} does not belong there"))
        })?;
        let (bom, text) = match text.strip_prefix('\u{feff}') {
            Some(rest) => (true, rest.to_string()),
            None => (false, text),
        };
        if let Some(at) = text.find('\0') {
            let message = "a NUL byte does not belong in a text file".to_string();
            return Err(Unreadable { message, missing: false, nul: Some((text, at)) });
        }
        Ok(Self { path: path.to_path_buf(), text, bom, parsed: false })
    }

    /// Returns the line and the column of a byte, both from 1, the column in characters.
    pub(crate) fn place(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..self.floor(offset)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// Returns the line around `span` with every value hidden, and where the span went.
    pub(crate) fn masked_line(&self, span: Range<usize>) -> (String, Range<usize>) {
        let start = self.floor(span.start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let line_end = if self.text[..line_end].ends_with('\r') && line_end > start {
            line_end - 1
        } else {
            line_end
        };
        let end = self.floor(span.end).clamp(start, line_end.max(start));
        let mut line = String::new();
        let (mut shown_start, mut shown_end) = (None, None);
        let pieces: Vec<_> = lex::pieces(&self.text)
            .skip_while(|(_, range)| range.end <= line_start && range.end < self.text.len())
            .take_while(|(_, range)| range.start < line_end || range.start == line_start)
            .collect();
        for (piece, range) in pieces {
            let from = range.start.max(line_start);
            let to = range.end.min(line_end);
            if from > to {
                continue;
            }
            let shown = self.shown(piece, &range, &self.text[from..to]);
            let verbatim = shown.len() == to - from && shown == self.text[from..to];
            let within = |offset: usize, whole: usize| {
                line.len() + if verbatim { offset - from } else { whole }
            };
            if shown_start.is_none() && start < to.max(from + 1) {
                shown_start = Some(within(start.max(from), 0));
            }
            if shown_end.is_none() && end <= to {
                shown_end = Some(within(end.max(from), shown.len()));
            }
            line.push_str(&shown);
        }
        let from = shown_start.unwrap_or(line.len());
        let to = shown_end.unwrap_or(line.len()).max(from);
        (line, from..to)
    }

    fn shown(&self, piece: Piece, range: &Range<usize>, part: &str) -> String {
        let key = |quoted| self.is_key(range) && self.harmless_key(part, quoted);
        match piece {
            Piece::Comment => {
                let mark: String = part.chars().take_while(|c| matches!(c, '/' | '*')).collect();
                format!("{mark} …")
            }
            Piece::Quoted if key(true) => part.to_string(),
            Piece::Quoted => {
                let quote = self.text[range.clone()].chars().next().unwrap_or('"');
                format!("{quote}***{quote}")
            }
            Piece::Word if key(false) => part.to_string(),
            Piece::Word if schema::is_known_name(part) => part.to_string(),
            Piece::Word if harmless_word(part) && (self.parsed || self.stands_alone(range)) => {
                part.to_string()
            }
            Piece::Word => "***".to_string(),
            _ => part.to_string(),
        }
    }

    fn is_key(&self, range: &Range<usize>) -> bool {
        lex::pieces(&self.text[range.end..])
            .find(|(piece, _)| !matches!(piece, Piece::Space | Piece::Comment))
            .is_some_and(|(piece, _)| piece == Piece::Colon)
    }

    /// In a file that parses a key is a key. In a broken one it may be a value that lost its quotes.
    fn harmless_key(&self, key: &str, quoted: bool) -> bool {
        let name = if quoted { key.trim_matches(['"', '\'']) } else { key };
        if looks_secret(name) {
            return false;
        }
        self.parsed && name.chars().count() <= 80
            || schema::is_known_name(name)
            || harmless_word(name)
    }

    /// In a broken file a value without quotes may fall apart into words that touch each other.
    fn stands_alone(&self, range: &Range<usize>) -> bool {
        let ends = |c: char| c.is_whitespace() || "{}[]:,".contains(c);
        self.text[..range.start].chars().next_back().is_none_or(ends)
            && self.text[range.end..].chars().next().is_none_or(ends)
    }

    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

impl Unreadable {
    fn from_io(path: &Path, error: &io::Error) -> Self {
        let missing = error.kind() == io::ErrorKind::NotFound;
        Self { message: io_sentence("read", path, error), missing, nul: None }
    }
}

/// Tells whether a key is, or holds, a credential that was pasted where it does not belong.
pub(crate) fn looks_secret(key: &str) -> bool {
    // What cannot be seen is no secret, and hides none.
    let seen: String =
        key.chars().filter(|c| c.is_alphanumeric() || c.is_ascii_graphic() || *c == ' ').collect();
    seen.trim_start().starts_with("sk-") || redact_shapes(&seen) != seen
}

/// Tells whether a loose word may be shown: a literal, a short number, a few letters, a known key.
/// A long number may be a password that lost its quotes.
fn harmless_word(word: &str) -> bool {
    let length = word.chars().count();
    let letters = |c: char| c.is_alphabetic() || "_$./\\*+-;=".contains(c);
    length <= 11 && word.chars().all(letters)
        || length <= 6 && word.parse::<f64>().is_ok()
        || length <= 6 && word.starts_with("0x")
        || schema::is_known_name(word)
}

/// Words an operating system error as one sentence with the path and what to do.
pub(crate) fn io_sentence(verb: &str, path: &Path, error: &io::Error) -> String {
    use io::ErrorKind as K;
    let path = path.display();
    match error.kind() {
        K::NotFound => format!("{path} does not exist"),
        K::PermissionDenied => {
            format!("cannot {verb} {path}: permission denied; check its owner and mode")
        }
        K::IsADirectory => format!("{path} is a directory, not a file"),
        K::ReadOnlyFilesystem => format!("cannot {verb} {path}: the file system is read-only"),
        K::StorageFull | K::QuotaExceeded => format!("cannot {verb} {path}: the disk is full"),
        // The library's own name for this kind is not stable yet.
        _ if error.raw_os_error() == Some(ELOOP) => {
            format!("{path} is a symbolic link that leads back to itself")
        }
        K::NotADirectory => format!("cannot {verb} {path}: a part of the path is not a directory"),
        K::InvalidInput => format!("cannot {verb} {path}: {error}"),
        _ => format!("cannot {verb} {path}: {error}"),
    }
}

fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let kind = std::fs::metadata(path)?;
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !kind.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed shows that it is too large, however it grows meanwhile.
    std::fs::File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str, parsed: bool) -> Source {
        Source { path: "x".into(), text: text.to_string(), bom: false, parsed }
    }

    #[test]
    fn lines_and_columns_count_characters() {
        let source = source("{\r\n  ä: 'ß', b: 1\n}", true);
        assert_eq!(source.place(0), (1, 1));
        assert_eq!(source.place(source.text.find('b').unwrap()), (2, 11));
        assert_eq!(source.place(999), (3, 2));
    }

    #[test]
    fn values_and_comments_are_hidden_and_the_span_moves_along() {
        let source = source("{\n  env: { K: 'sk-FAKE-1234567890' }, // FAKE-1234567890\n}", true);
        let at = source.text.find("'sk").unwrap();
        let (line, span) = source.masked_line(at..at + 20);
        assert_eq!(line, "  env: { K: '***' }, // …");
        assert_eq!(&line[span], "'***'");
        let at = source.text.find("K:").unwrap();
        let (line, span) = source.masked_line(at..at + 1);
        assert_eq!(&line[span], "K");
    }

    #[test]
    fn a_broken_file_shows_no_loose_words() {
        for text in [
            "{ apiKey: sk-ant-api03-FAKEFAKE, }",
            "{ apiKey: \"sk-ant-api03-FAKEFAKE, }",
            "{ apiKey\": \"x\", \"sk-ant-api03-FAKEFAKE\": 1 }",
            "{ apiKey: FAKEfakeFAKEfakeFAKE: 1 }",
        ] {
            let (line, _) = source(text, false).masked_line(text.len() - 1..text.len());
            assert!(!line.contains("FAKE"), "{line}");
            assert!(line.contains("apiKey"), "{line}");
        }
    }

    #[test]
    fn a_disk_that_refuses_is_worded() {
        use io::ErrorKind as K;
        let word = |kind: K| io_sentence("write", Path::new("/x"), &kind.into());
        assert_eq!(
            word(K::PermissionDenied),
            "cannot write /x: permission denied; check its owner and mode"
        );
        assert_eq!(word(K::ReadOnlyFilesystem), "cannot write /x: the file system is read-only");
        assert_eq!(word(K::StorageFull), "cannot write /x: the disk is full");
        assert_eq!(word(K::IsADirectory), "/x is a directory, not a file");
    }

    #[test]
    fn a_span_at_the_end_of_the_text() {
        for text in ["", "{", "{\n", "{ a: 1\n"] {
            let (line, span) = source(text, false).masked_line(text.len()..text.len());
            assert_eq!(span.start, line.len(), "{text:?}");
        }
    }
}
