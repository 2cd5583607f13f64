//! What of a home decides what a program does next, condensed into a number, so that two kills that
//! left the same are followed up once.

use std::path::{Path, PathBuf};

use anyhow::Result;
use sha2::{Digest as _, Sha256};

use super::ground::COPY;

/// Times of one run are told apart by this many milliseconds only: what it wrote a moment later is
/// the same.
const MOMENT_MS: i64 = 600_000;

/// What differs between two runs that do the same.
pub(super) struct Run {
    /// The number of the process.
    pub(super) pid: i32,
    /// When it began, in milliseconds since 1970.
    pub(super) began: i64,
}

/// Condenses names, kinds, modes and contents of everything below `home`. Process number and times
/// of the run itself are taken out; a time before it counts to the millisecond.
pub(super) fn digest(home: &Path, run: &Run) -> Result<[u8; 32]> {
    use std::os::unix::fs::MetadataExt as _;
    let mut hash = Sha256::new();
    for path in below(home)? {
        let about = std::fs::symlink_metadata(&path)?;
        let name = path.strip_prefix(home)?.to_string_lossy().into_owned();
        part(&mut hash, &mask(name.as_bytes(), run));
        part(&mut hash, &about.mode().to_le_bytes());
        if about.is_symlink() {
            part(&mut hash, std::fs::read_link(&path)?.as_os_str().as_encoded_bytes());
        } else if about.is_file() {
            part(&mut hash, &mask(&std::fs::read(&path)?, run));
        }
    }
    Ok(hash.finalize().into())
}

fn part(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

/// Lists everything below a directory, sorted.
fn below(home: &Path) -> Result<Vec<PathBuf>> {
    let (mut all, mut open) = (Vec::new(), vec![home.to_path_buf()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            // A killed program's copy of a library, under a random name: nobody looks at it again.
            if entry.file_name().to_string_lossy().starts_with(COPY) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
            all.push(entry.path());
        }
    }
    all.sort();
    Ok(all)
}

/// Replaces the numbers that are the run's own.
fn mask(bytes: &[u8], run: &Run) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (piece, after) = rest.split_at(digits.max(1));
        rest = after;
        let number = std::str::from_utf8(piece).ok().and_then(|text| text.parse::<i64>().ok());
        match number {
            Some(number) if number == i64::from(run.pid) => out.extend(b"<pid>"),
            Some(time) if time >= run.began && time - run.began < 100 * MOMENT_MS => {
                out.extend(format!("<{}>", (time - run.began) / MOMENT_MS).bytes());
            }
            _ if digits == 0 => out.push(*first),
            _ => out.extend(piece),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Run = Run { pid: 4_711, began: 1_700_000_000_000 };

    #[test]
    fn only_what_is_the_runs_own_is_taken_out() {
        let masked = |text: &str| String::from_utf8(mask(text.as_bytes(), &RUN)).unwrap();
        assert_eq!(masked("4711 1700000000002"), "<pid> <0>");
        assert_eq!(masked("expires:1700003600009,"), "expires:<6>,");
        assert_eq!(masked("14711 47110 1699999999999 r-2"), "14711 47110 1699999999999 r-2");
        assert_eq!(masked("no é"), "no é");
    }

    #[test]
    fn names_modes_and_contents_count() {
        let dir = tempfile::tempdir().unwrap();
        let state = || digest(dir.path(), &RUN).unwrap();
        let mut seen = vec![state()];
        let mut is_new = |what: &str, wanted: bool| {
            let now = state();
            assert_eq!(!seen.contains(&now), wanted, "{what}");
            seen.push(now);
        };
        std::fs::write(dir.path().join("a.4711-0.tmp"), "x").unwrap();
        is_new("a file", true);
        std::fs::rename(dir.path().join("a.4711-0.tmp"), dir.path().join("b")).unwrap();
        is_new("another name", true);
        std::fs::write(dir.path().join("b"), "y").unwrap();
        is_new("other contents", true);
        std::fs::write(dir.path().join("b"), "y").unwrap();
        is_new("the same again", false);
    }
}
