//! The decision records of one agent on disk: a bounded log of JSON lines (decision 10).

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use moltbot_core::{RecordId, redact};
use serde_json::Value;

use crate::engine::AgentPaths;
use crate::record::Record;

/// The size from which on a new file is begun, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// How many full files are kept beside the current one.
const KEPT: usize = 2;

/// How many credentials of a model are written; those that were tried always are.
pub(crate) const MAX_CANDIDATES: usize = 64;

/// The log of one agent: `requests.jsonl`, and `requests.jsonl.1` and `.2` before it.
///
/// No line holds a secret or text of the conversation: what a service said about a failure may
/// quote the conversation, hence only its class, status and id are written.
#[derive(Clone, Debug)]
pub struct RecordLog {
    path: PathBuf,
    max: u64,
}

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Records {
    /// The records, the oldest first.
    pub records: Vec<Record>,
    /// How many lines could not be understood: torn by a crash, or of a newer version.
    pub damaged: usize,
}

impl AgentPaths {
    /// Returns the directory with the agent's logs.
    pub fn logs(&self) -> PathBuf {
        self.sessions.parent().unwrap_or(&self.dir).join("logs")
    }
}

impl RecordLog {
    /// Names the log in a directory, which need not exist.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { path: dir.into().join("requests.jsonl"), max: MAX_BYTES }
    }

    /// Returns the file that is written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a record, in one write; begins a new file where the old one is full.
    ///
    /// # Errors
    ///
    /// The file or its directory refuses. The log is whole then.
    pub fn append(&self, record: &Record) -> io::Result<()> {
        let line = line(record);
        let mut file = self.locked()?;
        let about = file.metadata()?;
        if about.len() > 0 && about.len() + line.len() as u64 > self.max {
            self.rotate()?;
            file = self.locked()?;
        } else if about.len() > 0 && !ends_with_newline(&mut file)? {
            // A crash tore the last line; it must not take this one along.
            return file.write_all(&[b"\n", line.as_slice()].concat());
        }
        file.write_all(&line)
    }

    /// Adds many records at once, each a line of JSON that may be kept as it is.
    ///
    /// # Errors
    ///
    /// The file or its directory refuses. The log is whole then, as far as it was written.
    pub(crate) fn append_lines(&self, lines: &[u8]) -> io::Result<()> {
        let mut rest = lines;
        while !rest.is_empty() {
            let mut file = self.locked()?;
            let length = file.metadata()?.len();
            let torn = length > 0 && !ends_with_newline(&mut file)?;
            let room = self.max.saturating_sub(length + u64::from(torn));
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(rest.len());
            let fits = rest[..room].iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
            let fits = match fits {
                Some(fits) => fits,
                None if length > 0 => {
                    self.rotate()?;
                    continue;
                }
                // One that is longer than a file may be is a file of its own.
                None => rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |at| at + 1),
            };
            let (now, later) = rest.split_at(fits);
            match torn {
                true => file.write_all(&[b"\n", now].concat())?,
                false => file.write_all(now)?,
            }
            rest = later;
        }
        Ok(())
    }

    /// Reads everything there is.
    ///
    /// # Errors
    ///
    /// A file is there and cannot be read.
    pub fn all(&self) -> io::Result<Records> {
        self.last(usize::MAX)
    }

    /// Reads the last `count` records; older files only if they are needed.
    ///
    /// # Errors
    ///
    /// A file is there and cannot be read.
    pub fn last(&self, count: usize) -> io::Result<Records> {
        let mut found = Records::default();
        // A file that is rotated while this reads would bring its records twice.
        let mut seen = HashSet::new();
        for age in 0..=KEPT {
            let bytes = read(&self.aged(age))?;
            for line in bytes.split(|byte| *byte == b'\n').rev() {
                if found.records.len() >= count {
                    break;
                }
                match serde_json::from_slice::<Record>(line) {
                    Ok(record) if seen.insert(record.id.clone()) => found.records.push(record),
                    Ok(_) => {}
                    Err(_) if line.trim_ascii().is_empty() => {}
                    Err(_) => found.damaged += 1,
                }
            }
        }
        found.records.reverse();
        Ok(found)
    }

    /// Finds the record of one request.
    ///
    /// # Errors
    ///
    /// A file is there and cannot be read.
    pub fn find(&self, id: &RecordId) -> io::Result<Option<Record>> {
        Ok(self.all()?.records.into_iter().find(|record| record.id == *id))
    }

    /// Opens the current file and locks it against other writers until it is closed.
    fn locked(&self) -> io::Result<File> {
        if let Some(dir) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        loop {
            let mut options = OpenOptions::new();
            let file = options.read(true).append(true).create(true).mode(0o600).open(&self.path)?;
            file.lock()?;
            // Another process may have rotated it while this one waited for the lock.
            match fs::metadata(&self.path) {
                Ok(named) if named.ino() == file.metadata()?.ino() => return Ok(file),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Renames every file to the next older name. The caller holds the lock of the current one.
    fn rotate(&self) -> io::Result<()> {
        for age in (0..KEPT).rev() {
            match fs::rename(self.aged(age), self.aged(age + 1)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn aged(&self, age: usize) -> PathBuf {
        match age {
            0 => self.path.clone(),
            age => {
                let mut name = self.path.clone().into_os_string();
                name.push(format!(".{age}"));
                name.into()
            }
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

fn ends_with_newline(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// Writes a record as one line that may be kept.
fn line(record: &Record) -> Vec<u8> {
    let mut record = record.clone();
    for attempt in &mut record.attempts {
        attempt.message = None;
    }
    let tried: HashSet<&str> = record.attempts.iter().map(|tried| tried.source.as_str()).collect();
    for model in &mut record.models {
        let mut place = 0;
        let before = model.candidates.len();
        model.candidates.retain(|candidate| {
            place += 1;
            place <= MAX_CANDIDATES || tried.contains(candidate.source.as_str())
        });
        model.more += before - model.candidates.len();
    }
    let mut value = serde_json::to_value(&record).expect("a record has text keys only");
    mask(&mut value);
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// Masks whatever looks like a secret in any text below `value`: a person may have typed one where
/// a name was meant.
fn mask(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let std::borrow::Cow::Owned(masked) = redact(text) {
                *text = masked;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::Object(members) => members.values_mut().for_each(mask),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Attempt, CredentialChoice, ModelChoice, Outcome};
    use moltbot_core::{Payer, Timestamp};
    use std::os::unix::fs::PermissionsExt as _;

    fn record(number: u64) -> Record {
        let at = Timestamp::from_millis(1_790_000_000_000 + number as i64);
        Record {
            id: RecordId::new(at, number),
            at,
            agent: "main".into(),
            requested: None,
            models: Vec::new(),
            attempts: Vec::new(),
            changed: Vec::new(),
            warnings: Vec::new(),
            outcome: Some(Outcome::Failed { code: "x".into() }),
            usage: None,
            cost: Some(0.25),
            cache: None,
            session: None,
        }
    }

    fn attempt(source: &str) -> Attempt {
        Attempt {
            model: "acme/big".into(),
            source: source.into(),
            class: Some("format".into()),
            status: Some(400),
            request_id: Some("req_1".into()),
            latency_ms: 5,
            message: Some("messages.0: \"my private words\" is too long".into()),
            until: None,
        }
    }

    fn candidate(number: usize) -> CredentialChoice {
        CredentialChoice {
            source: format!("profile:acme:{number}"),
            profile: Some(format!("acme:{number}")),
            mode: "api-key".into(),
            payer: Payer::Metered,
            renew: false,
            skipped: None,
            until: None,
            quota: None,
            rewrite: 0,
        }
    }

    #[test]
    fn records_come_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let log = RecordLog::new(dir.path().join("a/logs"));
        assert_eq!(log.all().unwrap(), Records::default());
        for number in 0..5 {
            log.append(&record(number)).unwrap();
        }
        assert_eq!(log.all().unwrap().records, (0..5).map(record).collect::<Vec<_>>());
        assert_eq!(log.last(2).unwrap().records, [record(3), record(4)]);
        assert_eq!(log.find(&record(1).id).unwrap(), Some(record(1)));
        assert_eq!(log.find(&record(9).id).unwrap(), None);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(log.path()), 0o600);
        assert_eq!(mode(log.path().parent().unwrap()), 0o700);
    }

    #[test]
    fn what_was_said_and_what_is_secret_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let log = RecordLog::new(dir.path());
        let requested = Some("sk-ant-api03-FAKEFAKEFAKE".to_string());
        let attempts = vec![attempt("profile:acme:1")];
        log.append(&Record { requested, attempts, ..record(1) }).unwrap();
        let text = fs::read_to_string(log.path()).unwrap();
        assert!(!text.contains("private") && !text.contains("FAKEFAKE"), "{text}");
        assert!(text.contains("req_1"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn a_torn_line_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let log = RecordLog::new(dir.path());
        log.append(&record(1)).unwrap();
        let mut file = OpenOptions::new().append(true).open(log.path()).unwrap();
        file.write_all(b"{\"id\":\"mb_").unwrap();
        assert_eq!(log.all().unwrap(), Records { records: vec![record(1)], damaged: 1 });
        log.append(&record(2)).unwrap();
        let read = log.all().unwrap();
        assert_eq!(read, Records { records: vec![record(1), record(2)], damaged: 1 });
    }

    #[test]
    fn the_log_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let log = RecordLog { max: 2_000, ..RecordLog::new(dir.path()) };
        for number in 0..200 {
            log.append(&record(number)).unwrap();
        }
        let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap()).collect();
        assert_eq!(files.len(), 1 + KEPT);
        assert!(files.iter().all(|file| file.metadata().unwrap().len() <= 2_000));
        let kept = log.all().unwrap().records;
        let newest: Vec<_> = (200 - kept.len() as u64..200).map(record).collect();
        assert!(kept.len() > 20, "{}", kept.len());
        assert_eq!(kept, newest);
        assert_eq!(log.last(kept.len() - 1).unwrap().records, newest[1..]);
    }

    #[test]
    fn many_lines_at_once_are_cut_between_records() {
        let dir = tempfile::tempdir().unwrap();
        let log = RecordLog { max: 2_000, ..RecordLog::new(dir.path()) };
        log.append(&record(0)).unwrap();
        let mut file = OpenOptions::new().append(true).open(log.path()).unwrap();
        file.write_all(b"{\"id\":").unwrap();
        let lines: Vec<u8> = (1..12).flat_map(|number| line(&record(number))).collect();
        log.append_lines(&lines).unwrap();
        let read = log.all().unwrap();
        assert_eq!(read.records, (0..12).map(record).collect::<Vec<_>>());
        assert_eq!(read.damaged, 1);
        assert!(fs::metadata(log.path()).unwrap().len() <= 2_000);
        let long = RecordLog { max: 10, ..RecordLog::new(dir.path().join("long")) };
        long.append_lines(&lines).unwrap();
        assert_eq!(long.all().unwrap().records, [9, 10, 11].map(record));
    }

    #[test]
    fn writers_at_the_same_time_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let log = RecordLog { max: 8_000, ..RecordLog::new(dir.path()) };
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let log = log.clone();
                scope.spawn(move || {
                    (0..15).for_each(|n| log.append(&record(writer * 100 + n)).unwrap());
                });
            }
        });
        let mut ids: Vec<_> = log.all().unwrap().records.into_iter().map(|r| r.id).collect();
        ids.sort();
        let all = (0..4).flat_map(|writer| (0..15).map(move |n| record(writer * 100 + n).id));
        assert_eq!(ids, all.collect::<Vec<_>>());
        assert_eq!(log.all().unwrap().damaged, 0);
    }

    #[test]
    fn many_profiles_make_no_long_line() {
        let dir = tempfile::tempdir().unwrap();
        let log = RecordLog::new(dir.path());
        let choice = ModelChoice {
            model: "acme/big".into(),
            skipped: None,
            origin: None,
            candidates: (0..10_000).map(candidate).collect(),
            strategy: None,
            more: 0,
        };
        let attempts = vec![attempt("profile:acme:9999")];
        log.append(&Record { models: vec![choice], attempts, ..record(1) }).unwrap();
        let read = log.all().unwrap().records.remove(0);
        let model = &read.models[0];
        assert_eq!((model.candidates.len(), model.more), (MAX_CANDIDATES + 1, 9_935));
        assert_eq!(model.candidates.last().unwrap().source, "profile:acme:9999");
    }
}
