//! A forgiving lexer: nesting depth before any recursive parser runs, and masking of excerpts.
//!
//! It never decides what is valid; it only has to agree with a JSON5 parser on where strings and
//! comments are, for as long as the text is valid, and to be cautious after that.

use std::ops::Range;

/// What a piece of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Open(u8),
    Close(u8),
    Colon,
    Comma,
    /// A quoted string, with or without its closing quote.
    Quoted,
    /// Anything else that is not white space: names, numbers, literals, garbage.
    Word,
    Comment,
    Space,
}

/// Splits `text` into pieces that follow each other without gaps.
pub(crate) fn pieces(text: &str) -> impl Iterator<Item = (Piece, Range<usize>)> + '_ {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        let first = *bytes.get(at)?;
        at += 1;
        let piece = match first {
            b'{' | b'[' => Piece::Open(first),
            b'}' | b']' => Piece::Close(first),
            b':' => Piece::Colon,
            b',' => Piece::Comma,
            b'"' | b'\'' => {
                at = quoted_end(bytes, at, first);
                Piece::Quoted
            }
            b'/' if bytes.get(at) == Some(&b'/') => {
                at = find(bytes, at, |b| b == b'\n' || b == b'\r');
                Piece::Comment
            }
            b'/' if bytes.get(at) == Some(&b'*') => {
                let rest = &bytes[at + 1..];
                let close = rest.windows(2).position(|two| two == b"*/");
                at = close.map_or(bytes.len(), |close| at + 1 + close + 2);
                Piece::Comment
            }
            b if b.is_ascii_whitespace() || b == 0x0b => {
                at = find(bytes, at, |b| !(b.is_ascii_whitespace() || b == 0x0b));
                Piece::Space
            }
            _ => {
                at = find(bytes, at, |b| {
                    b.is_ascii_whitespace()
                        || matches!(b, b'{' | b'}' | b'[' | b']' | b':' | b',')
                        || matches!(b, b'"' | b'\'' | b'/' | 0x0b)
                });
                Piece::Word
            }
        };
        Some((piece, start..at))
    })
}

/// Returns the offset of the first bracket deeper than `limit`.
pub(crate) fn too_deep(text: &str, limit: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (piece, range) in pieces(text) {
        match piece {
            Piece::Open(_) => depth += 1,
            Piece::Close(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > limit {
            return Some(range.start);
        }
    }
    None
}

/// Returns the offset of the innermost bracket that is never closed.
pub(crate) fn unclosed(text: &str) -> Option<usize> {
    let mut open = Vec::new();
    for (piece, range) in pieces(text) {
        match piece {
            Piece::Open(_) => open.push(range.start),
            Piece::Close(_) => {
                open.pop();
            }
            _ => {}
        }
    }
    open.pop()
}

/// Returns the offset of a line separator U+2028 or U+2029 inside a comment.
///
/// It ends a comment for JSON5 but not for the editor; such a file would be read in two ways.
pub(crate) fn separator_in_comment(text: &str) -> Option<usize> {
    pieces(text)
        .filter(|(piece, _)| *piece == Piece::Comment)
        .find_map(|(_, range)| Some(range.start + text[range].find(['\u{2028}', '\u{2029}'])?))
}

/// A string goes on to its quote, over escapes; a bare line end stops it, because there the text
/// is broken and the next line should be read on its own.
fn quoted_end(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'\\' if bytes[at..].starts_with(b"\r\n") => at += 2,
            b'\\' => at += 1,
            b'\n' | b'\r' => return at - 1,
            byte if byte == quote => return at,
            _ => {}
        }
    }
    bytes.len()
}

fn find(bytes: &[u8], from: usize, stop: impl Fn(u8) -> bool) -> usize {
    bytes[from..].iter().position(|b| stop(*b)).map_or(bytes.len(), |found| from + found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_comments_hide_brackets() {
        let text = "{ a: '[{\\'[', // [[[\n /* [[ */ b: [1] }";
        assert_eq!(too_deep(text, 2), None);
        assert_eq!(too_deep(text, 1), Some(text.rfind('[').unwrap()));
        assert_eq!(unclosed(text), None);
        assert_eq!(unclosed("{ a: [1, { b: 2 }"), Some(5));
    }

    #[test]
    fn pieces_cover_the_text() {
        for text in ["", "{a:1}", "'x\ny'", "/*", "//", "\\", "'\\", "ä: 'ß\\\n'", "a/b"] {
            let whole: String = pieces(text).map(|(_, range)| &text[range]).collect();
            assert_eq!(whole, text);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_covered(text in "[ -~\\n\\räß\u{2028}]{0,60}") {
            let whole: String = pieces(&text).map(|(_, range)| &text[range]).collect();
            proptest::prop_assert_eq!(whole, text);
        }
    }
}
