//! Checks a file before anything of it runs: who could have changed it, and whether it is the one
//! that was trusted.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{LoadError, private_dir};

/// The most that a plugin's file may hold, in bytes.
const MAX_BYTES: u64 = 256 << 20;

/// A file that was read once; what was summed is what is copied and run.
pub struct Checked {
    /// The file, without symbolic links.
    pub path: PathBuf,
    /// The sum of `bytes`, in lower-case hexadecimal digits.
    pub sha256: String,
    /// What it holds.
    pub(crate) bytes: Vec<u8>,
}

/// Reads a file that only its owner and root can change, and compares its sum.
///
/// Neither the file nor a directory above it may be writable by group or others, unless the
/// directory is sticky, and all of them must belong to root or to this process's user.
pub fn read(path: &Path, expected: Option<&str>) -> Result<Checked, LoadError> {
    let unreadable = |path: &Path, error: std::io::Error| LoadError::Unreadable {
        path: path.display().to_string(),
        reason: error.to_string(),
    };
    if !path.is_absolute() {
        // It would be another file for everybody who stands elsewhere.
        return Err(unreadable(path, std::io::Error::other("the path is not absolute")));
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
        return Err(unreadable(&path, std::io::Error::other("it is no file")));
    }
    check_owner(&path, &found)?;
    let bytes = read_all(file, found.len()).map_err(|error| unreadable(&path, error))?;
    let sha256 = hex(&Sha256::digest(&bytes));
    match expected {
        Some(expected) if !expected.eq_ignore_ascii_case(&sha256) => {
            let expected = expected.to_ascii_lowercase();
            Err(LoadError::WrongSum { expected, found: sha256 })
        }
        _ => Ok(Checked { path, sha256, bytes }),
    }
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

fn read_all(file: File, len: u64) -> std::io::Result<Vec<u8>> {
    // One byte more than there should be, so that the end is seen without growing.
    let mut bytes = Vec::with_capacity(len.min(MAX_BYTES) as usize + 1);
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::other("it holds more than 256 MiB"));
    }
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A copy that only this user can reach; gone when dropped.
pub(crate) struct Copy {
    /// The copy.
    pub(crate) path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Checked {
    /// Writes the bytes to a directory of their own, under the file's name.
    pub(crate) fn copy(&self, below: &Path) -> Result<Copy, LoadError> {
        self.copy_to(below).map_err(|error| LoadError::Unreadable {
            path: below.display().to_string(),
            reason: format!("no private copy can be written there: {error}"),
        })
    }

    fn copy_to(&self, below: &Path) -> std::io::Result<Copy> {
        private_dir(below)?;
        let only_mine = std::fs::Permissions::from_mode(0o700);
        let mut dir = tempfile::Builder::new();
        let dir = dir.prefix(".copy-").permissions(only_mine).tempdir_in(below)?;
        let path = dir.path().join(self.path.file_name().unwrap_or("plugin".as_ref()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path)?;
        file.write_all(&self.bytes)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o500))?;
        Ok(Copy { path, _dir: dir })
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_copy_is_private_and_goes_away() {
        let dir = place();
        let path = dir.path().join("a");
        write(&path, 0o600);
        let copy = read(&path, None).unwrap().copy(&dir.path().join("run")).unwrap();
        let parent = copy.path.parent().unwrap().to_path_buf();
        assert_eq!(parent.metadata().unwrap().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read(&copy.path).unwrap(), b"FAKE");
        drop(copy);
        assert!(!parent.exists());
    }
}
