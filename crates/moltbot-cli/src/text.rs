//! Small pieces of wording: durations, nearest names, paragraphs.

/// Reads a duration such as `365d`, `1.5h` or `30` (then in `unit`) into milliseconds (spec L-4).
pub fn duration(raw: &str, unit: &str) -> Result<i64, String> {
    let wrong = || format!("invalid duration: {}", moltbot_core::redact(raw));
    let text = raw.trim().to_ascii_lowercase();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" => per_unit(unit),
        written => per_unit(written),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !number(whole) || !number(fraction) {
        return Err(wrong());
    }
    let value: f64 = digits.parse().map_err(|_| wrong())?;
    let millis = value * factor.ok_or_else(wrong)?;
    // Beyond this, adding it to any clock would overflow.
    if millis.is_finite() && millis < 9e15 { Ok(millis.round() as i64) } else { Err(wrong()) }
}

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

fn per_unit(unit: &str) -> Option<f64> {
    match unit {
        "ms" => Some(1.0),
        "s" => Some(1e3),
        "m" => Some(60e3),
        "h" => Some(3_600e3),
        "d" => Some(86_400e3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("365d", "d"), Ok(365 * 86_400_000));
        assert_eq!(duration(" 1.5H ", "d"), Ok(5_400_000));
        assert_eq!(duration("2", "d"), Ok(2 * 86_400_000));
        assert_eq!(duration("250ms", "d"), Ok(250));
        for wrong in ["", "d", "1w", "-1d", "1.d", ".5d", "1 d", "1d1h", "9e99", "1e3"] {
            assert_eq!(duration(wrong, "d"), Err(format!("invalid duration: {wrong}")));
        }
        assert!(duration(&"9".repeat(30), "d").is_err());
    }

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
