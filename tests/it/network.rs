//! A store on a file system that a program serves for another machine, really mounted: it works,
//! and is warned of. That the number of every other network file system is known is a table in
//! `moltbot-profiles`.

mod fuse;

use std::os::unix::fs::PermissionsExt as _;

use crate::support::{KEY, Sandbox, token};
use fuse::Mounted;

/// A sandbox whose agent's directory is mounted as `kind`; `None` where nothing may be mounted.
fn on(kind: &str) -> Option<(Mounted, Sandbox)> {
    let sandbox = Sandbox::new();
    let dir = sandbox.store_path().parent().unwrap().to_path_buf();
    std::fs::create_dir_all(&dir).unwrap();
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(sandbox.state(""), private).unwrap();
    match Mounted::new(&dir, kind) {
        Ok(mounted) => Some((mounted, sandbox)),
        Err(error) => {
            eprintln!("SKIPPED: mounting needs root and /dev/fuse: {error}");
            None
        }
    }
}

#[test]
fn a_store_on_another_machines_disk_works_and_is_warned_of() {
    let Some((mounted, sandbox)) = on("fuse.sshfs") else { return };
    let paste = ["models", "auth", "paste-token", "--provider", "anthropic"];
    sandbox
        .run_with_input(&paste, &token())
        .exits(0)
        .says("auth-profiles.json lies on sshfs: its locks and writes may not be safe");
    sandbox.run(&["onboard", "--anthropic-api-key", KEY]).exits(0).says("lies on sshfs");
    let profiles = sandbox.store()["profiles"].clone();
    assert_eq!(profiles.as_object().unwrap().len(), 2, "{profiles}");
    assert_eq!(mounted.mode("auth-profiles.json"), Some(0o600));
    let left = mounted.names().into_iter().filter(|name| name.ends_with(".tmp")).count();
    assert_eq!(left, 0, "{:?}", mounted.names());
    let out = sandbox.run(&["doctor", "--non-interactive"]).exits(0).out;
    assert!(out.contains("lies on sshfs: use it from one machine only, or move it"), "{out}");
}

#[test]
fn what_a_program_of_this_machine_serves_is_not_warned_of() {
    let Some((_mounted, sandbox)) = on("fuse.gocryptfs") else { return };
    let done = sandbox.run(&["onboard", "--anthropic-api-key", KEY]).exits(0);
    let doctor = sandbox.run(&["doctor", "--non-interactive"]).exits(0);
    for said in [done.out, done.err, doctor.out, doctor.err] {
        assert!(!said.contains("lies on"), "{said}");
    }
}
