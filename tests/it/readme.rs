//! The README says what is so.

use std::path::Path;

use crate::support::{Sandbox, binary};

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

/// Types the section from an empty folder to a login, word for word.
#[test]
fn the_plugin_from_an_empty_folder_logs_in() {
    let readme = read("README.md");
    let section = &readme[readme.find("### From an empty folder").expect("the section")..];
    let script = block(section, "sh").replace(".so", std::env::consts::DLL_SUFFIX);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let sandbox = Sandbox::new();
    let (dir, bin) = (sandbox.cwd(), sandbox.root().join("bin"));
    let link = |to: &Path, at: &Path| std::os::unix::fs::symlink(to, at).unwrap();
    link(&root, &dir.join("moltbot"));
    link(binary(), &bin.join("moltbot"));
    // What others have built already, and the versions that are here already.
    std::fs::create_dir(dir.join("hello")).unwrap();
    let target = std::env::var_os("CARGO_TARGET_DIR").map(|dir| root.join(dir));
    let target = target.unwrap_or_else(|| root.join("target")).join("fixtures");
    std::fs::create_dir_all(&target).unwrap();
    link(&target, &dir.join("hello/target"));
    std::fs::copy(root.join("Cargo.lock"), dir.join("hello/Cargo.lock")).unwrap();

    let cargo = std::env::var_os("CARGO").expect("tests are run by cargo");
    let tools = Path::new(&cargo).parent().unwrap().display().to_string();
    let home = std::env::var("HOME").unwrap_or_default();
    let own = |name: &str, dir: &str| {
        let own = std::env::var(name).unwrap_or_else(|_| format!("{home}/{dir}"));
        (name.to_string(), own)
    };
    let typed = std::process::Command::new("sh")
        .args(["-euc", &script])
        .current_dir(&dir)
        .env_clear()
        .env("HOME", sandbox.home())
        .env("PATH", format!("{}:{tools}:{}", bin.display(), std::env::var("PATH").unwrap()))
        .envs([own("CARGO_HOME", ".cargo"), own("RUSTUP_HOME", ".rustup")])
        .env("CARGO_INCREMENTAL", "0")
        .output()
        .unwrap();
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (shown(&typed.stdout), shown(&typed.stderr));
    assert!(typed.status.success(), "{out}\n{err}");
    assert!(out.contains("Auth profile: anthropic:hello (anthropic/api_key)"), "{out}\n{err}");
    assert_eq!(sandbox.store()["profiles"]["anthropic:hello"]["method"], "hello");
    let help = sandbox.run(&["onboard", "--help"]).exits(0).out;
    assert!(help.contains("anthropic-hello"), "{help}");

    let guide = read("crates/moltbot-core/src/guide.rs");
    let guide: String =
        guide.lines().map(|line| line.trim_start_matches("//!").trim_start_matches(' ')).collect();
    let method = &section[section.find("use moltbot_core::*;").unwrap()..];
    let method = &method[..method.find("moltbot_abi::").unwrap()];
    let method: String = method.lines().map(|line| line.trim_start_matches(' ')).collect();
    assert!(guide.contains(&method), "the guide of moltbot-core shows another plugin");
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
