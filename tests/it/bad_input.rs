//! Malformed configs and stores: one clear sentence each, nothing changed on disk.
//!
//! The exact messages stand beside the samples and are checked by the crates that own them; here
//! the built binary meets every sample.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::{Sandbox, until};

fn samples(dir: &str, ending: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(dir);
    let mut found: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == ending))
        .collect();
    found.sort();
    found
}

/// Runs commands that read, and expects a failure that names the file and leaves all as it was.
#[track_caller]
fn refuses(sandbox: &Sandbox, file: &str, what: &str) {
    let before = sandbox.snapshot();
    for line in [&["models", "status"][..], &["agent", "-m", "hi", "--dry-run"]] {
        let done = sandbox.run(line);
        assert_eq!(done.code, 1, "{what} {line:?}\n{}\n{}", done.out, done.err);
        assert!(done.err.contains(file), "{what} {line:?} does not name {file}:\n{}", done.err);
        assert!(
            !done.err.contains("panicked") && !done.err.contains("RUST_BACKTRACE"),
            "{}",
            done.err
        );
        assert!(done.out.is_empty(), "{what}: {}", done.out);
    }
    assert_eq!(sandbox.snapshot(), before, "{what} changed something");
}

#[test]
fn every_malformed_config_is_refused() {
    let samples = samples("config/bad", "json5");
    assert!(samples.len() >= 40, "{}", samples.len());
    for sample in samples {
        let sandbox = Sandbox::new();
        let dir = sample.parent().unwrap();
        // Samples include each other by relative paths.
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            if entry.path().is_file() {
                let bytes = std::fs::read(entry.path()).unwrap();
                let target = sandbox.state(entry.file_name().to_str().unwrap());
                sandbox.write(&target, "");
                std::fs::write(target, bytes).unwrap();
            }
        }
        std::fs::copy(&sample, sandbox.state("moltbot.json")).unwrap();
        refuses(&sandbox, "Config invalid", &sample.display().to_string());
    }
}

#[test]
fn every_malformed_store_is_refused() {
    let samples = samples("store/bad", "json");
    assert!(samples.len() >= 20, "{}", samples.len());
    for sample in samples {
        let expected = std::fs::read_to_string(sample.with_extension("expected")).unwrap();
        if expected.starts_with("kept:") {
            continue; // one bad member; the rest of the store is used
        }
        let sandbox = Sandbox::new();
        sandbox.write(&sandbox.store_path(), "");
        std::fs::copy(&sample, sandbox.store_path()).unwrap();
        std::fs::set_permissions(sandbox.store_path(), std::fs::Permissions::from_mode(0o600))
            .unwrap();
        refuses(&sandbox, "auth-profiles.json", &sample.display().to_string());
    }
}

#[test]
fn sizes_and_depths_that_hurt() {
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    let sandbox = Sandbox::new();
    sandbox.write_config(&format!("{{ agents: {} }}", deep("[", "]")));
    refuses(&sandbox, "Config invalid", "a deep config");
    sandbox.write_config(&deep("{ a: ", "}"));
    refuses(&sandbox, "Config invalid", "a config of deep objects");

    let sandbox = Sandbox::new();
    sandbox.write(&sandbox.store_path(), &deep("[", "]"));
    refuses(&sandbox, "auth-profiles.json", "a deep store");

    // A megabyte of text is only text.
    let sandbox = Sandbox::new();
    sandbox.write_config(&format!("{{ env: {{ BIG: '{}' }} }}", "x".repeat(1 << 20)));
    sandbox.run(&["models", "status", "--plain"]).exits(0);
}

#[test]
fn files_that_are_no_files() {
    let config = |sandbox: &Sandbox| sandbox.state("moltbot.json");
    let store = |sandbox: &Sandbox| sandbox.store_path();
    type Place<'a> = (&'a dyn Fn(&Sandbox) -> PathBuf, &'a str);
    let places: [Place<'_>; 2] = [(&config, "moltbot.json"), (&store, "auth-profiles.json")];
    for (place, name) in places {
        let sandbox = Sandbox::new();
        std::fs::create_dir_all(place(&sandbox)).unwrap();
        refuses(&sandbox, name, "a directory in place of a file");

        let sandbox = Sandbox::new();
        sandbox.write(&place(&sandbox), "");
        std::fs::remove_file(place(&sandbox)).unwrap();
        symlink(place(&sandbox), place(&sandbox)).unwrap();
        refuses(&sandbox, name, "a link to itself");
    }
}

#[test]
fn what_cannot_be_written_is_said_and_stays_as_it_was() {
    let sandbox = Sandbox::new();
    sandbox.write_config("{}");
    let dir = sandbox.state("");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o500)).unwrap();
    let is_root = std::fs::write(dir.join("probe"), "").is_ok();
    if is_root {
        eprintln!("SKIPPED: running as root, a read-only directory does not stop it");
        return;
    }
    let before = sandbox.snapshot();
    sandbox.run(&["models", "set", "sonnet"]).exits(1).says("moltbot.json");
    assert_eq!(sandbox.snapshot(), before);
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn two_agents_in_one_directory() {
    let sandbox = Sandbox::new();
    sandbox.write_config("{ agents: { list: [ { id: 'a', agentDir: '/x/y' }, { id: 'b', agentDir: '/x/../x/y' } ] } }");
    sandbox.run(&["models", "status"]).exits(1).says("Config invalid").says("/x/y");
}

#[test]
fn a_lab_plan_that_is_wrong_is_shown_where() {
    let sandbox = Sandbox::new();
    sandbox.write(&sandbox.cwd().join("plan.json5"), "[{ fault: { eror: 27 } }]");
    sandbox.run(&["lab", "--plan", "plan.json5"]).exits(1).says("plan.json5:1:").says("eror");
    sandbox.run(&["lab", "--port", "99999"]).exits(1);
}

#[test]
fn the_lab_serves_until_it_is_stopped() {
    use std::io::{BufRead, BufReader};
    let sandbox = Sandbox::new();
    let mut child = sandbox
        .command(&["lab"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().rsplit("http://").next().unwrap().to_string();
    until(|| std::net::TcpStream::connect(&address).is_ok());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
