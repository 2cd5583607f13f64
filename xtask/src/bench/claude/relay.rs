//! Stands between a host and the program that it starts, to tell the program's own time from the
//! host's: how a single start turns out differs by more than any host adds.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};

/// How the line begins that ends a turn.
const RESULT: &[u8] = b"{\"type\":\"result\"";

/// Puts a program at `name` that runs `program` through [`run`].
pub(super) fn install(name: &Path, program: &Path, notes: &Path) -> Result<()> {
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "'\\''"));
    let own = quoted(&std::env::current_exe()?);
    let (program, notes) = (quoted(program), quoted(notes));
    let script = format!("#!/bin/sh\nexec {own} measure-turn {notes} -- {program} \"$@\"\n");
    std::fs::write(name, script)?;
    Ok(std::fs::set_permissions(name, std::fs::Permissions::from_mode(0o755))?)
}

/// Runs a program, hands on what it says, and adds to `notes` how many milliseconds passed from its
/// start to the end of its first turn.
pub(crate) fn run(notes: &Path, command: &[String]) -> Result<()> {
    let (program, args) = command.split_first().context("a command")?;
    let began = Instant::now();
    // Input and complaints are the host's own pipes.
    let mut child = Command::new(program).args(args).stdout(Stdio::piped()).spawn()?;
    let mut output = child.stdout.take().context("a pipe")?;
    let mut to = std::io::stdout();
    let mut line: Vec<u8> = Vec::new();
    let mut noted = false;
    let mut piece = vec![0; 64 << 10];
    loop {
        let count = output.read(&mut piece)?;
        if count == 0 {
            break;
        }
        if !noted {
            line.extend(&piece[..count]);
            noted = line
                .split_inclusive(|byte| *byte == b'\n')
                .any(|line| line.starts_with(RESULT) && line.ends_with(b"\n"));
            if noted {
                let took = began.elapsed().as_secs_f64() * 1e3;
                let mut file = std::fs::OpenOptions::new().create(true).append(true).open(notes)?;
                writeln!(file, "{took}")?;
            }
            let whole = line.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            line.drain(..whole);
        }
        to.write_all(&piece[..count])?;
        to.flush()?;
    }
    std::process::exit(child.wait()?.code().unwrap_or(1));
}
