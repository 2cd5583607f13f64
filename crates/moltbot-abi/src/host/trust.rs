//! Checks a file before anything of it runs: who could have changed it, and whether it is the one
//! that was trusted.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::LoadError;
use super::copy::{Bytes, MAX_BYTES, too_long};

/// How much of a file is summed at once, in bytes: little enough to stay near the processor.
const PIECE: usize = 64 << 10;

/// A file that was read once; what was summed is what is copied and run.
pub struct Checked {
    /// The file, without symbolic links.
    pub path: PathBuf,
    /// The sum of `bytes`, in lower-case hexadecimal digits.
    pub sha256: String,
    /// What it holds.
    pub(crate) bytes: Arc<Bytes>,
    /// Whether its owner may run it.
    executable: bool,
}

impl Checked {
    /// Refuses what was never meant to be run: the system would hand any text to a shell.
    pub(crate) fn runnable(&self) -> Result<(), LoadError> {
        let refused = |reason: &str| Err(LoadError::Start { reason: reason.to_string() });
        if !self.executable {
            return refused("it is not executable (chmod u+x)");
        }
        if !self.bytes.starts_with(b"#!") && object::FileKind::parse(&**self.bytes).is_err() {
            return refused("it is neither a program nor a script that names its interpreter");
        }
        Ok(())
    }
}

/// A file that was summed where it lies and is still open. Nothing of it is held, so that whatever
/// is to run has to be read, and summed, [once more](Self::again).
pub(crate) struct Summed {
    /// The file, without symbolic links.
    pub(crate) path: PathBuf,
    /// Its sum, in lower-case hexadecimal digits.
    pub(crate) sha256: String,
    /// Whether it begins as a script does: what runs then is another program, with this as its text.
    pub(crate) script: bool,
    /// Whether its owner may run it.
    pub(crate) executable: bool,
    file: File,
}

impl Summed {
    /// Reads the same file again, whatever has its name by now, and compares its sum.
    pub(crate) fn again(mut self) -> Result<Checked, LoadError> {
        let opened = self.file.rewind().and_then(|()| self.file.metadata());
        let found = opened.map_err(|error| unreadable(&self.path, error))?;
        hold(Guarded { path: self.path, file: self.file, found }, Some(&self.sha256))
    }
}

/// Reads a file that only its owner and root can change, and compares its sum.
///
/// Neither the file nor a directory above it may be writable by group or others, unless the
/// directory is sticky, and all of them must belong to root or to this process's user.
pub fn read(path: &Path, expected: Option<&str>) -> Result<Checked, LoadError> {
    hold(guarded(path)?, expected)
}

/// Makes the same checks as [`read`], without holding what was read.
pub(crate) fn sum(path: &Path, expected: &str) -> Result<Summed, LoadError> {
    let Guarded { path, mut file, found } = guarded(path)?;
    let (mut sum, mut total, mut script) = (Sha256::new(), 0, false);
    let mut piece = vec![0; PIECE];
    let mut read = || -> io::Result<()> {
        loop {
            let count = match file.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            script |= total == 0 && piece[..count].starts_with(b"#!");
            total += count as u64;
            if total > MAX_BYTES {
                return Err(too_long());
            }
            sum.update(&piece[..count]);
        }
    };
    read().map_err(|error| unreadable(&path, error))?;
    let sha256 = compared(hex(&sum.finalize()), Some(expected))?;
    Ok(Summed { path, sha256, script, executable: executable(&found), file })
}

/// A file that only its owner and root can change, opened.
struct Guarded {
    path: PathBuf,
    file: File,
    found: Metadata,
}

fn guarded(path: &Path) -> Result<Guarded, LoadError> {
    if !path.is_absolute() {
        // It would be another file for everybody who stands elsewhere.
        return Err(unreadable(path, io::Error::other("the path is not absolute")));
    }
    let path = std::fs::canonicalize(path).map_err(|error| unreadable(path, error))?;
    for dir in path.ancestors().skip(1) {
        let found = std::fs::symlink_metadata(dir).map_err(|error| unreadable(dir, error))?;
        check_owner(dir, &found)?;
    }
    // The name was resolved above; if it is a link by now, somebody swapped it. Opening a pipe
    // must not wait for its other end.
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.cast_signed())
        .open(&path)
        .map_err(|error| unreadable(&path, error))?;
    let found = file.metadata().map_err(|error| unreadable(&path, error))?;
    if !found.is_file() {
        return Err(unreadable(&path, io::Error::other("it is no file")));
    }
    check_owner(&path, &found)?;
    Ok(Guarded { path, file, found })
}

/// Reads what will run, and compares its sum.
fn hold(file: Guarded, expected: Option<&str>) -> Result<Checked, LoadError> {
    let Guarded { path, file, found } = file;
    let bytes = Bytes::of(file, found.len()).map_err(|error| unreadable(&path, error))?;
    let sha256 = compared(hex(&Sha256::digest(&*bytes)), expected)?;
    Ok(Checked { path, sha256, bytes: Arc::new(bytes), executable: executable(&found) })
}

fn compared(found: String, expected: Option<&str>) -> Result<String, LoadError> {
    match expected {
        Some(expected) if !expected.eq_ignore_ascii_case(&found) => {
            Err(LoadError::WrongSum { expected: expected.to_ascii_lowercase(), found })
        }
        _ => Ok(found),
    }
}

fn executable(found: &Metadata) -> bool {
    found.mode() & 0o100 != 0
}

fn unreadable(path: &Path, error: io::Error) -> LoadError {
    LoadError::Unreadable { path: path.display().to_string(), reason: error.to_string() }
}

fn check_owner(path: &Path, found: &Metadata) -> Result<(), LoadError> {
    let exposed =
        |reason: String| Err(LoadError::Exposed { path: path.display().to_string(), reason });
    let me = rustix::process::geteuid().as_raw();
    if found.uid() != 0 && found.uid() != me {
        return exposed(format!("it belongs to user {}", found.uid()));
    }
    let mode = found.mode() & 0o7777;
    let sticky = found.is_dir() && mode & 0o1000 != 0;
    if mode & 0o022 != 0 && !sticky {
        return exposed(format!("its mode is {mode:04o}"));
    }
    Ok(())
}

/// Writes bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn place() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn write(path: &Path, mode: u32) {
        std::fs::write(path, "FAKE").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_sum_is_that_of_the_bytes_and_is_compared_in_any_case() {
        let dir = place();
        let path = dir.path().join("a");
        write(&path, 0o600);
        let sum = read(&path, None).unwrap().sha256;
        assert_eq!(sum.len(), 64);
        assert!(read(&path, Some(&sum.to_uppercase())).is_ok());
        let wrong = read(&path, Some(&"0".repeat(64))).err().unwrap();
        assert_eq!(wrong, LoadError::WrongSum { expected: "0".repeat(64), found: sum });
    }

    #[test]
    fn what_others_can_write_is_refused_and_named() {
        let dir = place();
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let path = inner.join("a");
        for mode in [0o620, 0o602] {
            write(&path, mode);
            let error = read(&path, None).err().unwrap().to_string();
            assert!(
                error.contains("/inner/a") && error.contains(&format!("{mode:04o}")),
                "{error}"
            );
        }
        write(&path, 0o644);
        assert!(read(&path, None).is_ok());
        std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o777)).unwrap();
        let error = read(&path, None).err().unwrap().to_string();
        assert!(error.contains("/inner can be changed") && error.contains("0777"), "{error}");
        std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(read(&path, None).is_ok(), "others cannot replace files in a sticky directory");
    }

    #[test]
    fn only_programs_are_run() {
        let dir = place();
        let path = dir.path().join("a");
        let reason = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let file = read(&path, None).unwrap();
            file.runnable().err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(reason("#!/bin/sh\n", 0o700), "");
        assert!(reason("#!/bin/sh\n", 0o600).contains("it is not executable"));
        assert!(reason("echo no\n", 0o700).contains("neither a program nor a script"));
        assert!(reason("", 0o700).contains("neither a program nor a script"));
    }

    #[test]
    fn only_files_are_read() {
        let dir = place();
        assert!(matches!(read(dir.path(), None), Err(LoadError::Unreadable { .. })));
        assert!(matches!(read(&dir.path().join("x"), None), Err(LoadError::Unreadable { .. })));
        let error = read(Path::new("Cargo.toml"), None).err().unwrap().to_string();
        assert!(error.contains("the path is not absolute"), "{error}");
        let pipe = dir.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
        assert!(matches!(read(&pipe, None), Err(LoadError::Unreadable { .. })));
    }
}
