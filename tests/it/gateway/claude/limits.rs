//! What a program that the gateway starts may use of the machine.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use super::{Gate, backed, said, text};

/// The gateway takes as many files as it may; the programs that it starts keep to what was usual.
#[test]
fn a_program_has_the_limits_of_who_started_the_gateway() {
    let (sandbox, gate) = backed("ok");
    drop(gate);
    let told = sandbox.root().join("told");
    let link = sandbox.root().join("bin/claude");
    let real = std::fs::canonicalize(&link).expect("a fake program");
    std::fs::remove_file(&link).expect("a link");
    let script = format!(
        "#!/bin/sh\nulimit -Sn >> '{}'\nexec '{}' \"$@\"\n",
        told.display(),
        real.display()
    );
    sandbox.write(&link, &script);
    std::fs::set_permissions(&link, std::fs::Permissions::from_mode(0o755)).expect("a program");
    let own = sandbox.command(&["gateway", "--port", "0"]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -Sn 200; exec \"$0\" \"$@\""]).arg(own.get_program());
    limited.args(own.get_args()).env_clear();
    limited.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited.current_dir(own.get_current_dir().expect("a directory"));
    limited.stdin(Stdio::null()).stdout(Stdio::piped());
    limited.stderr(Stdio::null());
    let gate = Gate::serving(limited.spawn().expect("a shell"));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gate.child.id()));
    if let Some(line) = limits.iter().flat_map(|l| l.lines()).find(|l| l.contains("open files")) {
        assert_ne!(line.split_whitespace().nth(3), Some("200"), "the gateway has taken more");
    }
    text(&gate.post_slowly("/v1/messages", &said(&["limits"])));
    let told = std::fs::read_to_string(told).expect("the program ran");
    assert!(told.lines().all(|limit| limit == "200") && !told.is_empty(), "{told}");
}
