//! Without the feature `bearer` nothing about subscription logins is compiled in.

#![allow(clippy::unwrap_used)] // helpers of tests, not only tests

use std::path::Path;

/// Words that a build without bearer tokens must not hold.
const WORDS: [&str; 4] = ["oauth-2025-04-20", "claude-cli", ".credentials.json", "setup-token"];

#[test]
fn only_one_file_knows_about_subscription_logins() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = 0;
    for entry in std::fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let found: Vec<_> = WORDS.into_iter().filter(|word| text.contains(word)).collect();
        if path.ends_with("bearer.rs") {
            assert!(found.contains(&"oauth-2025-04-20") && found.contains(&"claude-cli"));
        } else {
            assert!(found.is_empty(), "{}: {found:?}", path.display());
        }
        seen += 1;
    }
    assert!(seen > 5, "the sources were not found");
    let root =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    assert!(root.contains("#[cfg(feature = \"bearer\")]\nmod bearer;"));
}
