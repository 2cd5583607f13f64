//! Conversations that a program has written to its own disk: which of its sessions stands for which,
//! so that another process of it can go on (spec T-7).
//!
//! One small file per conversation, named by a digest of all it depends on, holding the session's
//! id. It is written only when the program has ended by itself, hence has written everything; and
//! it is taken away by whoever goes on, so that no session is gone on with twice.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::history::Seen;
use super::make_private;

/// How many conversations are remembered; the oldest are forgotten, and begin anew as text.
const MOST: usize = 256;

/// The remembered sessions of one agent.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    dir: PathBuf,
}

/// One session of a program, while a process is in it.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) sessions: Sessions,
}

impl Sessions {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf() }
    }

    /// Makes the id of a session that begins; `None` if the system gives no random numbers.
    pub(crate) fn begin(&self) -> Option<Session> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).ok()?;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex = hex(&bytes);
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        Some(Session { id: parts.join("-"), sessions: self.clone() })
    }

    /// Takes away the session that stands at a conversation. Nobody else gets it.
    pub(crate) fn take(&self, at: &Seen) -> Option<String> {
        let path = self.dir.join(hex(at));
        let mut own = [0; 8];
        getrandom::fill(&mut own).ok()?;
        let mine = self.dir.join(format!("{}.taken-{}", hex(at), hex(&own)));
        fs::rename(&path, &mine).ok()?;
        let id = fs::read_to_string(&mine);
        // What is left behind is found by nobody, and forgotten with the oldest.
        let _ = fs::remove_file(&mine);
        let id = id.ok()?.trim().to_string();
        is_id(&id).then_some(id)
    }

    /// Remembers that a session stands at a conversation. One that cannot be remembered costs only
    /// that the conversation begins anew as text.
    pub(crate) fn put(&self, at: &Seen, id: &str) {
        let write = || -> std::io::Result<()> {
            make_private(&self.dir)?;
            let path = self.dir.join(hex(at));
            let fresh = path.with_extension("new");
            let mut options = fs::OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            options.open(&fresh)?.write_all(format!("{id}\n").as_bytes())?;
            fs::rename(&fresh, &path)?;
            self.forget_oldest()
        };
        let _ = write();
    }

    fn forget_oldest(&self) -> std::io::Result<()> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            all.push((entry.metadata()?.modified()?, entry.path()));
        }
        all.sort();
        for (_, path) in all.iter().take(all.len().saturating_sub(MOST)) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_id(text: &str) -> bool {
    text.len() == 36 && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_gone_on_with_once_and_the_oldest_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let sessions = Sessions::new(&dir.path().join("sessions"));
        let session = sessions.begin().unwrap();
        assert!(is_id(&session.id) && session.id.as_bytes()[14] == b'4', "{}", session.id);
        assert_eq!(sessions.take(&[1; 32]), None);
        sessions.put(&[1; 32], &session.id);
        assert_eq!(sessions.take(&[2; 32]), None);
        assert_eq!(sessions.take(&[1; 32]), Some(session.id.clone()));
        assert_eq!(sessions.take(&[1; 32]), None);
        for number in 0..300_u32 {
            let mut at = [0; 32];
            at[..4].copy_from_slice(&number.to_le_bytes());
            sessions.put(&at, &session.id);
        }
        assert_eq!(fs::read_dir(dir.path().join("sessions")).unwrap().count(), MOST);
    }

    #[test]
    fn what_somebody_else_wrote_there_never_becomes_an_argument() {
        let dir = tempfile::tempdir().unwrap();
        let sessions = Sessions::new(dir.path());
        sessions.put(&[3; 32], "--dangerous");
        assert_eq!(sessions.take(&[3; 32]), None);
    }
}
