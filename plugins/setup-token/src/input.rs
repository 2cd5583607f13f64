//! What may be typed: tokens, profile names, durations. Pure.

use moltbot_core::Secret;

/// How every setup-token begins.
const PREFIX: &str = "sk-ant-oat01-";

/// The shortest whole token.
const LENGTH: usize = 80;

/// What a person pasted where a token was asked for.
pub(crate) enum Pasted {
    Token(Secret),
    ApiKey(Secret),
}

impl Pasted {
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.starts_with("sk-ant-api") && is_one_word(text) {
            return Ok(Self::ApiKey(Secret::new(text)));
        }
        setup_token(text).map(Self::Token)
    }
}

/// Checks a setup-token and returns it trimmed (spec L-2).
///
/// ```
/// use moltbot_plugin_setup_token::setup_token;
/// assert_eq!(setup_token(" ").unwrap_err(), "Required");
/// assert_eq!(setup_token("hunter2").unwrap_err(), "Expected token starting with sk-ant-oat01-");
/// ```
pub fn setup_token(text: &str) -> Result<Secret, String> {
    let token = text.trim();
    if token.is_empty() {
        return Err("Required".into());
    }
    if !token.starts_with(PREFIX) {
        return Err(format!("Expected token starting with {PREFIX}"));
    }
    if token.len() < LENGTH {
        return Err("Token looks too short; paste the full setup-token".into());
    }
    // A terminal that wraps the token makes two words of it; no header could carry them.
    if !is_one_word(token) {
        return Err("Token has spaces or line breaks in it; paste it as one word".into());
    }
    Ok(Secret::new(token))
}

fn is_one_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Makes a profile id of what was typed: a whole id of this provider, or a name that is turned
/// into lower case with runs of other characters as `-` (spec L-3).
///
/// ```
/// use moltbot_plugin_setup_token::profile_id;
/// assert_eq!(profile_id("anthropic", "Work Laptop!").unwrap(), "anthropic:work-laptop");
/// assert_eq!(profile_id("anthropic", "anthropic:ci").unwrap(), "anthropic:ci");
/// assert!(profile_id("anthropic", "acme:ci").is_err());
/// ```
pub fn profile_id(provider: &str, text: &str) -> Result<String, String> {
    let text = text.trim();
    let Some((owner, name)) = text.split_once(':') else {
        return Ok(format!("{provider}:{}", slug(text)));
    };
    if !owner.eq_ignore_ascii_case(provider) {
        return Err(format!("Expected a profile id starting with {provider}:"));
    }
    if name.is_empty() || !is_one_word(name) {
        return Err(format!("Expected {provider}:<name>, the name without spaces"));
    }
    Ok(format!("{provider}:{name}"))
}

fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.trim().to_lowercase().chars() {
        if c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-') {
            slug.push(c);
        } else if !slug.ends_with('-') {
            slug.push('-');
        }
    }
    match slug.trim_matches('-') {
        "" => "default".into(),
        slug => slug.into(),
    }
}

/// Reads a duration in milliseconds: a number and `ms`, `s`, `m`, `h` or `d`, by default days
/// (spec L-4). Nothing, a fraction of a millisecond, and more than 100,000 years are refused.
///
/// ```
/// use moltbot_plugin_setup_token::duration_ms;
/// assert_eq!(duration_ms("1.5h"), Ok(5_400_000));
/// assert_eq!(duration_ms("1y").unwrap_err(), "invalid duration: 1y");
/// ```
pub fn duration_ms(text: &str) -> Result<i64, String> {
    parse_duration(text.trim()).ok_or_else(|| format!("invalid duration: {text}"))
}

fn parse_duration(text: &str) -> Option<i64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 60e3,
        "h" => 3_600e3,
        "" | "d" => 86_400e3,
        _ => return None,
    };
    // `f64` also reads ".5" and "5.", which the grammar does not have.
    let whole_parts = number.split('.').all(|part| !part.is_empty());
    let ms = number.parse::<f64>().ok().filter(|_| whole_parts)? * unit;
    (1.0..=100_000.0 * 366.0 * 86_400e3).contains(&ms).then_some(ms.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spec L-2, acceptance case 60.
    #[test]
    fn tokens() {
        let token = |length: usize| format!("{PREFIX}{}", "F".repeat(length - PREFIX.len()));
        assert_eq!(setup_token(&format!(" {}\n", token(80))).unwrap().expose(), token(80));
        for (text, error) in [
            (String::new(), "Required"),
            (" \t".into(), "Required"),
            ("sk-ant-api03-FAKE".into(), "Expected token starting with sk-ant-oat01-"),
            (token(79), "Token looks too short; paste the full setup-token"),
            (
                format!("{}\n{}", token(80), "F".repeat(28)),
                "Token has spaces or line breaks in it; paste it as one word",
            ),
            (
                format!("{}\u{202e}", token(80)),
                "Token has spaces or line breaks in it; paste it as one word",
            ),
        ] {
            assert_eq!(setup_token(&text).unwrap_err(), error);
        }
    }

    /// Spec L-3.
    #[test]
    fn names() {
        for (text, id) in [
            ("work", "p:work"),
            ("  Work  ", "p:work"),
            ("a b  c", "p:a-b-c"),
            ("Ä", "p:default"),
            ("--", "p:default"),
            ("me@example.com", "p:me-example.com"),
            ("p:me@example.com", "p:me@example.com"),
            ("P:x", "p:x"),
        ] {
            assert_eq!(profile_id("p", text).unwrap(), id, "{text:?}");
        }
        for text in ["q:x", "p:", "p:a b", ":x", "p:a\nb"] {
            assert!(profile_id("p", text).is_err(), "{text:?}");
        }
    }

    /// Spec L-4.
    #[test]
    fn durations() {
        for (text, ms) in [
            ("365d", 365 * 86_400_000),
            ("365", 365 * 86_400_000),
            ("1ms", 1),
            ("2s", 2_000),
            ("1.5m", 90_000),
            ("0.5h", 1_800_000),
            (" 7d ", 7 * 86_400_000),
        ] {
            assert_eq!(duration_ms(text), Ok(ms), "{text:?}");
        }
        for text in [
            "",
            "d",
            "5w",
            "5 d",
            "-5d",
            "+5d",
            ".5d",
            "5.d",
            "1.2.3d",
            "1e3d",
            "5D",
            "0",
            "0.1ms",
            "inf",
            "NaN",
            "99999999999999999999d",
        ] {
            assert_eq!(duration_ms(text), Err(format!("invalid duration: {text}")));
        }
    }
}
