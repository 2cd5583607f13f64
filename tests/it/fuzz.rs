//! The committed inputs of the fuzz targets, run once each, so that targets and inputs do not rot.

// There it is a library of its own.
#[allow(unreachable_pub)]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

/// Runs a target over its corpus, twice over: what is kept between inputs must not matter.
fn replay(name: &str, target: fn(&[u8])) {
    let dir = format!("{}/../fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{dir}: {error}"));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 4, "{name}: {files:?}");
    for file in files.iter().chain(files.iter().rev()) {
        let data = std::fs::read(file).unwrap();
        let run = std::panic::AssertUnwindSafe(|| target(&data));
        assert!(std::panic::catch_unwind(run).is_ok(), "{name} fails on {}", file.display());
    }
}

#[test]
fn every_corpus_passes_its_target() {
    replay("config", targets::config);
    replay("auth_store", targets::auth_store);
    replay("legacy_imports", targets::legacy_imports);
    replay("claude_credentials", targets::claude_credentials);
    replay("token_response", targets::token_response);
    replay("sse_decoder", targets::sse_decoder);
}
