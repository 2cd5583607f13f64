//! The README says what is so.

use std::path::Path;

use crate::support::Sandbox;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn block(readme: &str, language: &str) -> String {
    let start = format!("```{language}\n");
    let rest = &readme[readme.find(&start).expect("a block") + start.len()..];
    rest[..rest.find("\n```").expect("its end")].to_string()
}

#[test]
fn the_plugin_shown_is_the_plugin() {
    let shown = block(&read("README.md"), "rust");
    assert!(read("plugins/api-key/src/lib.rs").contains(&shown), "README.md shows an older plugin");
    assert!(shown.lines().count() <= 70, "{}", shown.lines().count());
}

#[test]
fn the_config_shown_is_valid() {
    let sandbox = Sandbox::new().env("MY_PROXY_KEY", "FAKE");
    sandbox.write_config(&block(&read("README.md"), "json5"));
    sandbox.run(&["config", "validate"]).exits(0);
    assert_eq!(
        sandbox.run(&["models", "status", "--plain"]).exits(0).out,
        "anthropic/claude-opus-4-5\n"
    );
}

#[test]
fn the_codes_shown_exist() {
    let readme = read("README.md");
    let table = &readme[readme.find("| code |").expect("the table")..];
    let sandbox = Sandbox::new();
    let mut seen = 0;
    for line in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let codes = line.split('|').nth(1).expect("a cell");
        for code in codes.split(',').map(|code| code.trim().trim_matches('`')) {
            sandbox.run(&["explain", code]).exits(0);
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen}");
}

#[test]
fn every_crate_is_on_the_map() {
    let readme = read("README.md");
    for dir in ["crates", "plugins"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(dir);
        for entry in std::fs::read_dir(path).unwrap().flatten() {
            if entry.path().join("Cargo.toml").exists() {
                let name = entry.file_name().to_string_lossy().into_owned();
                assert!(
                    readme.contains(&format!("`{name}`"))
                        || readme.contains(&format!("{dir}/{name}")),
                    "{dir}/{name}"
                );
            }
        }
    }
}
