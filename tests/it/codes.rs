//! Every code that the source can end a message with has a page, and every page has a message.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::support::Sandbox;

/// What stands right before a code, wherever one is given to a message.
const BEFORE: [&str; 9] = [
    ".code(\"",
    "code: Some(\"",
    "Failed::new(\"",
    "ChatError::new(\"",
    "DoorError::new(\"",
    "code: \"",
    "\"moltbot explain ",
    "`moltbot explain ",
    "hint: moltbot explain ",
];

fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut open = vec![root.join("crates"), root.join("plugins")];
    let mut found = Vec::new();
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                let skipped = ["tests", "target", "fixtures", "examples"];
                if !skipped.iter().any(|skip| name == *skip) {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Returns a source without its tests, which may use codes of nobody, and without comments.
fn code_of(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let kept = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    kept.collect::<Vec<_>>().join("\n")
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(text.len());
    &text[..end]
}

/// Collects the words that stand where codes stand, each with a place.
fn used() -> BTreeMap<String, String> {
    let mut used = BTreeMap::new();
    for path in sources() {
        let code = code_of(&path);
        let shown = path.display().to_string();
        let mut note = |id: &str| {
            if !id.is_empty() {
                used.entry(id.to_string()).or_insert_with(|| shown.clone());
            }
        };
        for before in BEFORE {
            // A call may be broken after its bracket.
            let call = before.trim_end_matches('"');
            for (at, _) in code.match_indices(call) {
                let rest = code[at + call.len()..].trim_start();
                match (before.ends_with('"'), rest.strip_prefix('"')) {
                    (true, Some(rest)) if rest[word(rest).len()..].starts_with('"') => {
                        note(word(rest));
                    }
                    (false, _) if !rest.starts_with('{') => note(word(rest)),
                    _ => {}
                }
            }
        }
        // `fn code(&self) -> &'static str { match .. }`: every literal in it is one.
        for (at, _) in code.match_indices("fn code(&self) -> &'static str {") {
            let body = &code[at..];
            let body = &body[..body.find("\n    }\n").unwrap_or(body.len())];
            for literal in body.split('"').skip(1).step_by(2) {
                note(literal);
            }
        }
    }
    used
}

fn pages() -> BTreeSet<String> {
    let list = Sandbox::new().run(&["explain", "--json"]).exits(0).json();
    let codes = list["codes"].as_array().unwrap().iter();
    codes.map(|code| code["code"].as_str().unwrap().to_string()).collect()
}

#[test]
fn every_code_in_the_source_is_explained() {
    let (used, pages) = (used(), pages());
    assert!(used.len() > 30, "{used:?}");
    for known in ["no-credential", "all-cooling", "store-invalid", "refresh-failed", "system"] {
        assert!(used.contains_key(known), "the walk does not find {known}");
    }
    for (code, place) in &used {
        assert!(pages.contains(code), "{place}: \"{code}\" has no page");
    }
}

#[test]
fn every_page_is_of_a_code_in_the_source() {
    let all: Vec<(PathBuf, String)> =
        sources().into_iter().map(|path| (path.clone(), code_of(&path))).collect();
    for page in pages() {
        let literal = format!("\"{page}\"");
        let is_page = |path: &Path| path.ends_with("code.rs") || path.ends_with("codes.rs");
        let found = all.iter().any(|(path, code)| !is_page(path) && code.contains(&literal));
        assert!(found, "nothing ends in \"{page}\"");
    }
}

/// What a page tells to type is a command that exists.
#[test]
fn pages_name_commands_that_exist() {
    let sandbox = Sandbox::new();
    let list = sandbox.run(&["explain", "--json"]).exits(0).json();
    let mut seen = 0;
    let mut asked = BTreeSet::new();
    for page in list["codes"].as_array().unwrap() {
        for text in [&page["cause"], &page["fix"]] {
            for command in text.as_str().unwrap().split('`').skip(1).step_by(2) {
                let Some(rest) = command.strip_prefix("moltbot ") else { continue };
                let words: Vec<&str> = rest
                    .split_whitespace()
                    .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
                    .take_while(|word| !word.starts_with('-'))
                    .collect();
                // `explain` and `config get` take free words.
                let words: Vec<&str> = match words.as_slice() {
                    ["config", verb, ..] => vec!["config", verb],
                    [first @ ("explain" | "gateway"), ..] => vec![first],
                    words => words.to_vec(),
                };
                seen += 1;
                if !words.is_empty() && asked.insert(words.join(" ")) {
                    let done = sandbox.run(&[&words[..], &["--help"]].concat());
                    assert_eq!(done.code, 0, "{}: `{command}`\n{}", page["code"], done.err);
                }
            }
        }
    }
    assert!(seen > 20, "{seen}");
}
