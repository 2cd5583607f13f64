//! Finds secrets where none may be.

/// The length from which a piece of a secret counts as leaked.
const PIECE: usize = 12;

/// Tells whether `text` holds the secret or any 12-character piece of it.
///
/// Pieces that lie wholly in the public beginning of a key (up to the last `-` of its first 14
/// characters) do not count: messages may name it.
///
/// ```
/// use moltbot_testkit::leaks;
/// let key = "sk-ant-api03-FAKEFAKEFAKE";
/// assert!(!leaks("expected a key that begins with sk-ant-api03-", key));
/// assert!(leaks("bad key api03-FAKEFAKE", key));
/// ```
pub fn leaks(text: &str, secret: &str) -> bool {
    let characters: Vec<char> = secret.trim().chars().collect();
    if characters.len() < PIECE {
        return characters.len() >= PIECE / 2 && text.contains(secret.trim());
    }
    let head = &characters[..characters.len().min(14)];
    let public = head.iter().rposition(|c| *c == '-').map_or(0, |at| at + 1);
    characters
        .windows(PIECE)
        .skip((public + 1).saturating_sub(PIECE))
        .any(|piece| text.contains(&piece.iter().collect::<String>()))
}

/// Lists the words of `text` that stand for secrets: 12 or more of `A-Za-z0-9_-`, with `FAKE` or
/// `CANARY` in them.
pub fn canaries_in(text: &str) -> Vec<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_')))
        .filter(|word| word.len() >= PIECE && (word.contains("FAKE") || word.contains("CANARY")))
        .map(ToString::to_string)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_counts_and_the_prefix_does_not() {
        let key = "acme-0123456789abcdef";
        assert!(leaks(key, key));
        assert!(leaks("..456789abcdef", key));
        assert!(!leaks("..56789abcdef", key), "eleven characters");
        assert!(leaks("acme-0123456", key));
        assert!(!leaks("acme-012345", key));
        assert!(!leaks("anything", ""));
    }

    #[test]
    fn words_are_found_in_json() {
        let text = r#"{"accessToken":"tok-FAKE-0123456","plan":"FAKE","x":"nothingofthatsort"}"#;
        assert_eq!(canaries_in(text), ["tok-FAKE-0123456"]);
    }
}
