//! Conversations of one agent, each a file of JSON lines that only grows (decision: sessions).

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use moltbot_core::Timestamp;
use moltbot_profiles::SessionPin;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::turn::Turn;

/// The largest session that is read.
const MAX_SESSION: u64 = 256 << 20;

/// The sessions of one agent: `<dir>/<id>.jsonl`.
#[derive(Clone, Debug)]
pub struct Sessions {
    dir: PathBuf,
}

/// One conversation.
#[derive(Clone, Debug)]
pub struct Session {
    id: String,
    path: PathBuf,
    turns: Vec<Turn>,
    pin: Option<SessionPin>,
    /// When the last turn was added.
    last: Option<Timestamp>,
    /// Whether the file is there.
    written: bool,
    /// How many bytes of it are whole lines.
    whole: u64,
}

/// What a list shows of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionInfo {
    /// Its id.
    pub id: String,
    /// When it was last written.
    pub modified: Timestamp,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Why a session cannot be used; one sentence each, without its content.
#[derive(Debug, Error)]
pub enum SessionError {
    /// There is none of that id.
    #[error("there is no session \"{id}\"")]
    Unknown {
        /// As typed.
        id: String,
    },
    /// The id cannot be one.
    #[error("\"{id}\" is no session id; use letters, digits, \"-\" and \"_\"")]
    Invalid {
        /// As typed.
        id: String,
    },
    /// A line is not what it should be.
    #[error("{}:{line}: this line of the session cannot be understood", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The file refuses.
    #[error("the session {} cannot be used: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SessionError {
    /// Returns the code for `moltbot explain`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "session-unknown",
            _ => "input",
        }
    }
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum Line {
    /// The first one.
    Session { id: String, version: u32, at: Timestamp },
    /// A turn.
    Turn {
        at: Timestamp,
        #[serde(flatten)]
        turn: Turn,
    },
    /// The profile that the session holds on to from here on; `null` lets it go.
    Pin { at: Timestamp, pin: Option<SessionPin> },
    /// Of a newer version.
    #[serde(other)]
    Unknown,
}

impl Sessions {
    /// Looks into a directory, which need not exist.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Starts a session. Nothing is written before its first turn.
    pub fn create(&self, now: Timestamp) -> Result<Session, SessionError> {
        let path = |id: &str| self.dir.join(format!("{id}.jsonl"));
        let mut random = [0; 6];
        getrandom::fill(&mut random).map_err(|error| SessionError::Io {
            path: self.dir.clone(),
            source: io::Error::other(error.to_string()),
        })?;
        let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        // Ids sort by time: twelve hex digits of milliseconds last until the year 10889.
        let id = format!("{:012x}-{random}", now.millis().max(0));
        let path = path(&id);
        Ok(Session { id, path, turns: Vec::new(), pin: None, last: None, written: false, whole: 0 })
    }

    /// Lists the sessions, the last written first.
    pub fn list(&self) -> Result<Vec<SessionInfo>, SessionError> {
        let failed = |source| SessionError::Io { path: self.dir.clone(), source };
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut out = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".jsonl")) else {
                continue;
            };
            let Ok(about) = entry.metadata() else { continue };
            if !about.is_file() || check_id(id).is_err() {
                continue;
            }
            out.push(SessionInfo {
                id: id.to_string(),
                modified: about.modified().map_or(Timestamp::default(), timestamp),
                bytes: about.len(),
            });
        }
        out.sort_by(|a, b| (b.modified, &b.id).cmp(&(a.modified, &a.id)));
        Ok(out)
    }

    /// Returns the id of the session that was written last.
    pub fn last(&self) -> Result<Option<String>, SessionError> {
        Ok(self.list()?.into_iter().next().map(|info| info.id))
    }

    /// Reads a session. A torn last line, as a crash leaves it, is overlooked.
    pub fn load(&self, id: &str) -> Result<Session, SessionError> {
        check_id(id)?;
        let path = self.dir.join(format!("{id}.jsonl"));
        let failed = |source| SessionError::Io { path: path.clone(), source };
        let bytes = match fs::metadata(&path) {
            Ok(about) if about.len() > MAX_SESSION => {
                return Err(failed(io::Error::other("it is larger than 256 MiB")));
            }
            Ok(_) => fs::read(&path).map_err(failed)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(SessionError::Unknown { id: id.to_string() });
            }
            Err(error) => return Err(failed(error)),
        };
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut session = Session {
            id: id.to_string(),
            path: path.clone(),
            turns: Vec::new(),
            pin: None,
            last: None,
            written: true,
            whole: whole as u64,
        };
        for (line, text) in bytes[..whole].split_inclusive(|byte| *byte == b'\n').enumerate() {
            if text.trim_ascii().is_empty() {
                continue;
            }
            match serde_json::from_slice(text) {
                Ok(Line::Turn { at, turn }) => {
                    session.last = Some(at);
                    session.turns.push(turn);
                }
                Ok(Line::Pin { pin, .. }) => session.pin = pin,
                Ok(Line::Session { .. } | Line::Unknown) => {}
                Err(_) => return Err(SessionError::Damaged { path, line: line + 1 }),
            }
        }
        Ok(session)
    }
}

impl Session {
    /// Returns its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns everything said so far.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// Returns when its last turn was added.
    pub fn last_turn(&self) -> Option<Timestamp> {
        self.last
    }

    /// Returns the profile the session holds on to (spec S-8).
    pub fn pin(&self) -> Option<&SessionPin> {
        self.pin.as_ref()
    }

    /// Adds turns, and the pin if it changed. They are on the disk when this returns.
    pub fn append(
        &mut self,
        now: Timestamp,
        turns: &[Turn],
        pin: Option<&SessionPin>,
    ) -> Result<(), SessionError> {
        let mut text = Vec::new();
        let mut add = |line: &Line| {
            serde_json::to_writer(&mut text, line).expect("a line holds nothing but JSON values");
            text.push(b'\n');
        };
        if !self.written {
            add(&Line::Session { id: self.id.clone(), version: 1, at: now });
        }
        if pin != self.pin.as_ref() {
            add(&Line::Pin { at: now, pin: pin.cloned() });
        }
        for turn in turns {
            add(&Line::Turn { at: now, turn: turn.clone() });
        }
        let failed = |source| SessionError::Io { path: self.path.clone(), source };
        let file = self.open().map_err(failed)?;
        self.whole = append_lines(file, self.whole, &text).map_err(failed)?;
        self.written = true;
        self.pin = pin.cloned();
        self.turns.extend_from_slice(turns);
        if !turns.is_empty() {
            self.last = Some(now);
        }
        Ok(())
    }

    fn open(&self) -> io::Result<File> {
        if let Some(dir) = self.path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600).create_new(!self.written);
        options.open(&self.path)
    }
}

/// Writes after the last whole line and returns the new length. What a crash left behind that line
/// is cut off; whole lines that another process added meanwhile stay.
fn append_lines(mut file: File, known: u64, text: &[u8]) -> io::Result<u64> {
    // Given back when the file is closed.
    file.lock()?;
    if file.metadata()?.len() < known {
        return Err(io::Error::other("it was shortened meanwhile"));
    }
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(known))?;
    file.read_to_end(&mut tail)?;
    let added = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1);
    let end = known + added;
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end))?;
    file.write_all(text)?;
    file.sync_all()?;
    Ok(end + text.len() as u64)
}

fn check_id(id: &str) -> Result<(), SessionError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if id.is_empty() || id.len() > 64 || !id.chars().all(fits) {
        return Err(SessionError::Invalid { id: id.to_string() });
    }
    Ok(())
}

fn timestamp(at: std::time::SystemTime) -> Timestamp {
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use moltbot_profiles::PinSource;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt as _;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn turn(text: &str) -> Turn {
        Turn::user(vec![json!({"type": "text", "text": text})])
    }

    fn pin(profile: &str) -> SessionPin {
        SessionPin { profile: profile.into(), source: PinSource::Auto, compactions: 0 }
    }

    #[test]
    fn a_conversation_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let sessions = Sessions::new(dir.path().join("a/b"));
        let mut session = sessions.create(NOW).unwrap();
        assert!(sessions.list().unwrap().is_empty(), "nothing is written before the first turn");
        session.append(NOW, &[turn("1")], Some(&pin("p:a"))).unwrap();
        session.append(NOW, &[turn("2")], Some(&pin("p:a"))).unwrap();
        let mut again = sessions.load(session.id()).unwrap();
        assert_eq!((again.last_turn(), session.last_turn()), (Some(NOW), Some(NOW)));
        assert_eq!(again.turns(), session.turns());
        again.append(NOW, &[turn("3")], Some(&pin("p:b"))).unwrap();
        let last = sessions.last().unwrap().unwrap();
        let read = sessions.load(&last).unwrap();
        assert_eq!((read.turns().len(), read.pin()), (3, Some(&pin("p:b"))));
        let path = dir.path().join("a/b").join(format!("{last}.jsonl"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(path).unwrap();
        assert_eq!(
            text.matches("authProfileOverride\"").count(),
            2,
            "a pin is written when it changes"
        );
    }

    #[test]
    fn a_torn_last_line_is_overlooked_and_cut() {
        let dir = tempfile::tempdir().unwrap();
        let sessions = Sessions::new(dir.path());
        let mut session = sessions.create(NOW).unwrap();
        session.append(NOW, &[turn("1")], None).unwrap();
        let path = dir.path().join(format!("{}.jsonl", session.id()));
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"type\":\"turn\",\"at\":1,\"ro").unwrap();
        let mut torn = sessions.load(session.id()).unwrap();
        assert_eq!(torn.turns().len(), 1);
        torn.append(NOW, &[turn("2")], None).unwrap();
        assert_eq!(sessions.load(session.id()).unwrap().turns().len(), 2);
    }

    #[test]
    fn what_another_process_added_stays() {
        let dir = tempfile::tempdir().unwrap();
        let sessions = Sessions::new(dir.path());
        let mut one = sessions.create(NOW).unwrap();
        one.append(NOW, &[turn("1")], None).unwrap();
        let mut two = sessions.load(one.id()).unwrap();
        two.append(NOW, &[turn("2")], None).unwrap();
        one.append(NOW, &[turn("3")], None).unwrap();
        let texts: Vec<_> =
            sessions.load(one.id()).unwrap().turns().iter().map(Turn::text).collect();
        assert_eq!(texts, ["1", "2", "3"]);
    }

    #[test]
    fn bad_ids_and_damage_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let sessions = Sessions::new(dir.path());
        for id in ["../x", "", "a/b", "a.b", "\u{e4}"] {
            assert!(matches!(sessions.load(id), Err(SessionError::Invalid { .. })), "{id}");
        }
        assert_eq!(sessions.load("nope").unwrap_err().code(), "session-unknown");
        fs::write(dir.path().join("x.jsonl"), "{\"type\":\"later\"}\n\nnot json\n").unwrap();
        let error = sessions.load("x").unwrap_err();
        assert!(error.to_string().contains("x.jsonl:3:"), "{error}");
    }

    #[test]
    fn ids_sort_by_time() {
        let sessions = Sessions::new("/nowhere");
        let early = sessions.create(NOW).unwrap();
        let late = sessions.create(NOW.plus(1)).unwrap();
        assert!(early.id() < late.id());
        check_id(early.id()).unwrap();
    }
}
