//! The guest as a process: one line of JSON in, one line of JSON out.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};

use crate::{Guest, Packet};

/// Set in the environment of a plugin that the host has started.
pub const COOKIE: &str = "MOLTBOT_PLUGIN";

/// Serves every plugin linked into this program, until the host closes standard input: the whole
/// `main` of a plugin that is a process.
///
/// Each line is one message and is answered with one line, in order. What the plugin prints on
/// standard output goes to standard error instead, where the host keeps the last of it. Errors:
/// the program was not started by the host, or the host is gone.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     moltbot_abi::serve()
/// }
/// ```
pub fn serve() -> std::process::ExitCode {
    if std::env::var_os(COOKIE).is_none() {
        eprintln!(
            "This is a plugin of moltbot, which starts it; list it with `moltbot plugins trust`"
        );
        return std::process::ExitCode::FAILURE;
    }
    // The words of a panic may hold a secret; its place tells enough.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        eprintln!("the plugin panicked at {place}");
    }));
    match wire().and_then(|(input, output)| answer_all(&Guest::linked(), input, output)) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the host is gone: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// Takes standard input and output for the wire and leaves nothing of it to the plugin: its input
/// is empty, its output goes to standard error.
fn wire() -> io::Result<(File, File)> {
    let input = File::from(rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?);
    let output = File::from(rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?);
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(io::stderr())?;
    Ok((input, output))
}

fn answer_all(guest: &Guest, input: impl io::Read, mut output: impl Write) -> io::Result<()> {
    let mut input = BufReader::new(input);
    let mut line = Packet::default();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let mut answer = guest.turn(&line);
        answer.push(b'\n');
        output.write_all(&answer)?;
        output.flush()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_answered_in_order() {
        let guest = Guest::new(Vec::new());
        let input = b"{\"op\":\"hello\"}\nnonsense\n{\"op\":\"drop\",\"task\":1}\n";
        let mut output = Vec::new();
        answer_all(&guest, &input[..], &mut output).unwrap();
        let lines: Vec<_> = std::str::from_utf8(&output).unwrap().lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("{\"core\":"), "{}", lines[0]);
        assert!(lines[1].contains("cannot be read"), "{}", lines[1]);
        assert_eq!(lines[2], "{}");
    }
}
