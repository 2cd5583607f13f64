//! Lets no program outlive this process, however it ends.
//!
//! A program ends when its input closes, which the system does even if this process is killed. One
//! that hangs does not notice; so a small shell beside it reads from this process which process
//! groups there are, and when the pipe closes it kills those that are left. Both are safe code.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keeps a list of process groups, and kills them when its input closes.
const SCRIPT: &str = r#"
groups=" "
while read -r sign group; do
    case $sign in
        +) groups="$groups$group " ;;
        -) case $groups in
            *" $group "*) groups="${groups%%" $group "*} ${groups#*" $group "}" ;;
        esac ;;
    esac
done
for group in $groups; do kill -9 "-$group" 2>/dev/null; done
"#;

/// The shell beside the programs; started with the first of them.
#[derive(Default)]
pub(crate) struct Watch(Mutex<Option<Child>>);

impl Watch {
    /// Puts a process group under watch.
    pub(crate) fn add(&self, group: u32) {
        let mut shell = self.lock();
        if shell.is_none() {
            // Without a shell a program still ends when its input closes.
            *shell = start().ok();
        }
        tell(&mut shell, '+', group);
    }

    /// Says that a process group is gone.
    pub(crate) fn remove(&self, group: u32) {
        tell(&mut self.lock(), '-', group);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(mut shell) = self.lock().take() {
            drop(shell.stdin.take());
            // It has nothing left to do but to end.
            let _ = shell.wait();
        }
    }
}

fn start() -> std::io::Result<Child> {
    Command::new("/bin/sh")
        .args(["-c", SCRIPT])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Whatever kills this process's group must not kill the shell with it.
        .process_group(0)
        .spawn()
}

fn tell(shell: &mut Option<Child>, sign: char, group: u32) {
    let pipe = shell.as_mut().and_then(|shell| shell.stdin.as_mut());
    if let Some(Err(_)) = pipe.map(|pipe| writeln!(pipe, "{sign} {group}")) {
        *shell = None;
    }
}
