//! Every code that an error of this crate may carry has a page of `moltbot explain`.

use std::fs;
use std::path::Path;

use crate::stage::registry;

/// Finds the codes in the sources: the first argument of the constructors, and the values of the
/// `code()` functions.
fn codes_in(text: &str) -> Vec<String> {
    let mut codes = Vec::new();
    for start in ["Failed::new(", "ChatError::new("] {
        for (at, _) in text.match_indices(start) {
            let rest = text[at + start.len()..].trim_start();
            if let Some(code) = rest.strip_prefix('"').and_then(|rest| rest.split('"').next()) {
                codes.push(code.to_string());
            }
        }
    }
    for body in text.split("fn code(&self)").skip(1) {
        let body = body.split("\n    }\n").next().unwrap_or_default();
        codes.extend(body.split('"').skip(1).step_by(2).map(String::from));
    }
    codes
}

fn walk(dir: &Path, codes: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => walk(&path, codes),
            false => codes.extend(codes_in(&fs::read_to_string(path).unwrap())),
        }
    }
}

#[test]
fn every_code_is_explained() {
    let mut codes = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut codes);
    codes.sort();
    codes.dedup();
    assert!(codes.len() > 15, "the sources are not read: {codes:?}");
    for code in codes.iter().filter(|code| *code != "x") {
        assert!(registry().code(code).is_some(), "no page for {code}");
    }
}
