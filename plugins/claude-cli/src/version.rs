//! Which versions of the program are accepted.

/// The lowest version that was tested.
pub(crate) const LOWEST: (u32, u32, u32) = (2, 1, 197);

/// Reads `2.1.197` at the beginning of a text such as `2.1.197 (Claude Code)`.
pub(crate) fn parse(text: &str) -> Option<(u32, u32, u32)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let mut parts = text[..end].split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

/// Says what is wrong with a version, if anything.
pub(crate) fn too_old(text: &str) -> Option<String> {
    let known = parse(text).is_some_and(|version| version >= LOWEST);
    let (major, minor, patch) = LOWEST;
    (!known).then(|| {
        let shown: String = text.chars().filter(|c| !c.is_control()).take(32).collect();
        format!("claude {shown} is too old; version {major}.{minor}.{patch} or later is needed")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for good in ["2.1.197", "2.1.330 (Claude Code)", "2.10.0", "10.0.0-beta.1\n"] {
            assert_eq!(too_old(good), None, "{good}");
        }
        for bad in ["2.1.196", "1.9.999", "2.1", "", "garbage", "99999999999.1.1"] {
            assert!(too_old(bad).is_some(), "{bad}");
        }
    }
}
