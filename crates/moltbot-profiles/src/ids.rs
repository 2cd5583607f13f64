//! Provider ids and profile ids as people and older versions write them.

use std::borrow::Cow;

/// Other spellings of provider ids (spec A-5).
const SPELLINGS: &[(&str, &str)] =
    &[("z.ai", "zai"), ("z-ai", "zai"), ("opencode-zen", "opencode"), ("qwen", "qwen-portal")];

/// Returns a provider id in its one spelling: trimmed, lower case, old names replaced (spec A-5).
///
/// ```
/// # use moltbot_profiles::normalize_provider;
/// assert_eq!(normalize_provider(" Acme "), "acme");
/// assert_eq!(normalize_provider("Z.AI"), "zai");
/// ```
pub fn normalize_provider(provider: &str) -> String {
    normal(provider).into_owned()
}

/// Puts a profile id together: `<provider>:<name>` (spec A-4).
pub fn profile_id(provider: &str, name: &str) -> String {
    format!("{provider}:{name}")
}

/// [`normalize_provider`] without a copy where the id is fine as it is.
pub(crate) fn normal(provider: &str) -> Cow<'_, str> {
    let trimmed = provider.trim();
    let lower = if trimmed.chars().any(char::is_uppercase) {
        Cow::Owned(trimmed.to_lowercase())
    } else {
        Cow::Borrowed(trimmed)
    };
    match SPELLINGS.iter().find(|(old, _)| *old == lower) {
        Some((_, new)) => Cow::Borrowed(new),
        None => lower,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_meet_in_one() {
        for (written, meant) in [
            ("acme", "acme"),
            ("  ACME\t", "acme"),
            ("z-ai", "zai"),
            ("Z.ai", "zai"),
            ("opencode-zen", "opencode"),
            ("qwen", "qwen-portal"),
            ("qwen-portal", "qwen-portal"),
            ("", ""),
        ] {
            assert_eq!(normalize_provider(written), meant, "{written:?}");
            assert_eq!(normalize_provider(meant), meant, "a second time changes nothing");
        }
    }
}
