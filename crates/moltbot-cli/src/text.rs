//! Small pieces of wording: nearest names, paragraphs.

/// Finds the known name that a mistyped one was probably meant to be.
pub fn nearest<'n>(given: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&given.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// Breaks a paragraph into lines of at most `width` characters, where words allow it.
pub fn wrap(text: &str, width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(nearest("no-credentail", ["no-credential", "network"]), Some("no-credential"));
        assert_eq!(nearest("zzz", ["no-credential"]), None);
    }

    #[test]
    fn paragraphs() {
        assert_eq!(wrap("one two  three", 7), "one two\nthree");
        assert_eq!(wrap("extraordinary x", 5), "extraordinary\nx");
        assert_eq!(wrap("", 5), "");
    }
}
