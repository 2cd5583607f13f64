//! Stepping over the strings of a JSON text.

/// How much of a text is looked at word by word: between two escapes there is mostly less.
const NEAR: usize = 64;

/// Counts the bytes before the first quote, backslash or control character: as far as a text within
/// a JSON string is written as it is.
///
/// ```
/// assert_eq!(moltbot_core::plain_text(br#"a "b""#), 2);
/// ```
#[inline]
pub fn plain_text(text: &[u8]) -> usize {
    let (words, rest) = text[..text.len().min(NEAR)].as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        let marks = special(u64::from_le_bytes(*word));
        if marks != 0 {
            return number * 8 + marks.trailing_zeros() as usize / 8;
        }
    }
    let done = words.len() * 8;
    match text.len() <= NEAR {
        true => done + rest.iter().position(is_special).unwrap_or(rest.len()),
        false => done + far(&text[done..]),
    }
}

/// The same in steps of many bytes: long texts are what a body consists of.
#[inline(never)]
fn far(text: &[u8]) -> usize {
    let end = memchr::memchr2(b'"', b'\\', text).unwrap_or(text.len());
    let text = &text[..end];
    match text.iter().fold(false, |odd, byte| odd | (*byte < 0x20)) {
        true => text.iter().position(is_special).unwrap_or(end),
        false => end,
    }
}

fn is_special(byte: &u8) -> bool {
    *byte < 0x20 || matches!(byte, b'"' | b'\\')
}

/// Marks the lowest byte of a word that is a quote, a backslash or a control character, in its
/// highest bit; what is marked above it means nothing.
fn special(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    // With one bit turned round the quote is what follows the control characters.
    let quote_or_control = below(word ^ (ONES * u64::from(b'"' ^ b' ')), 0x21);
    let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
    (quote_or_control | backslash) & HIGH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_at_the_first_special_byte_wherever_it_stands() {
        for length in [0, 1, 7, 8, 9, 63, 64, 65, 72, 200] {
            let mut text = vec![b'x'; length];
            assert_eq!(plain_text(&text), length);
            for at in 0..length {
                for byte in 0..=255u8 {
                    text[at] = byte;
                    let special = byte < 0x20 || byte == b'"' || byte == b'\\';
                    let end = if special { at } else { length };
                    assert_eq!(plain_text(&text), end, "{byte} at {at} of {length}");
                    if at + 1 < length {
                        // Whatever follows does not hide it.
                        text[at + 1] = byte ^ 1;
                        assert!(!special || plain_text(&text) == at, "{byte} at {at} of {length}");
                        text[at + 1] = b'x';
                    }
                }
                text[at] = b'x';
            }
        }
    }
}
