//! `cargo xtask alone -- COMMAND`: runs a command in a network of its own, which has the loopback
//! and nothing else, so that whatever it starts can reach this machine only.
//!
//! It needs Linux and leave to make user namespaces, not root. Where it cannot be had, nothing is
//! run and it fails.

use anyhow::Result;
use clap::{Arg, ArgMatches, Command};

/// Describes the chore.
pub(crate) fn command() -> Command {
    Command::new("alone")
        .about("Run a command in a network namespace that has a loopback and nothing else")
        .arg(
            Arg::new("command")
                .num_args(1..)
                .required(true)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .help("What to run"),
        )
}

/// Becomes the command; returns only if that is not possible.
pub(crate) fn run(args: &ArgMatches) -> Result<()> {
    let words: Vec<&String> = args.get_many("command").unwrap_or_default().collect();
    inside::become_command(&words)
}

#[cfg(target_os = "linux")]
mod inside {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use anyhow::{Context as _, Result, bail, ensure};
    use nix::sched::{CloneFlags, unshare};
    use nix::unistd::{getegid, geteuid};
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, socket};

    /// `RTM_NEWLINK`, `NLM_F_REQUEST | NLM_F_ACK`, `NLMSG_ERROR`, `IFF_UP` of the kernel's headers.
    const NEW_LINK: u16 = 16;
    const WITH_ANSWER: u16 = 5;
    const ANSWER: u16 = 2;
    const UP: u32 = 1;

    /// The loopback is the first device of every network.
    const LOOPBACK: i32 = 1;

    pub(super) fn become_command(words: &[&String]) -> Result<()> {
        let (user, group) = (geteuid(), getegid());
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
            .context("the system allows no namespaces of one's own")?;
        // The same user inside, so that files look the same and root is not pretended.
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
        raise_loopback().context("the loopback cannot be switched on")?;
        check_loopback().context("the loopback does not work")?;
        let (program, args) = words.split_first().context("a command")?;
        Err(Command::new(program).args(args).exec()).context(program.to_string())
    }

    /// Switches the loopback on, by a message to the kernel: no tool is needed for it.
    fn raise_loopback() -> Result<()> {
        let mut message = Vec::new();
        message.extend(32_u32.to_ne_bytes()); // the length of all of it
        message.extend(NEW_LINK.to_ne_bytes());
        message.extend(WITH_ANSWER.to_ne_bytes());
        message.extend([0; 8]); // number and sender
        message.extend([0; 4]); // family and type
        message.extend(LOOPBACK.to_ne_bytes());
        message.extend(UP.to_ne_bytes()); // what is set
        message.extend(UP.to_ne_bytes()); // of what
        let kernel = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
        send(&kernel, &message, SendFlags::empty())?;
        let mut answer = [0; 1024];
        let (length, _) = recv(&kernel, &mut answer[..], RecvFlags::empty())?;
        let kind = u16::from_ne_bytes([answer[4], answer[5]]);
        ensure!(length >= 20 && kind == ANSWER, "the kernel answers something else");
        match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
            0 => Ok(()),
            error => bail!(std::io::Error::from_raw_os_error(-error)),
        }
    }

    fn check_loopback() -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut here = TcpStream::connect(listener.local_addr()?)?;
        here.write_all(b"x")?;
        let mut byte = [0];
        listener.accept()?.0.read_exact(&mut byte)?;
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
mod inside {
    pub(super) fn become_command(_: &[&String]) -> anyhow::Result<()> {
        anyhow::bail!("only Linux has network namespaces")
    }
}
