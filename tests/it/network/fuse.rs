//! A directory of files in memory, mounted under a type of its own by the kernel's FUSE (its
//! protocol 7.31, fuse(4)): just enough for a credential store.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// The directory's own number.
const ROOT: u64 = 1;

/// The most that is written at once.
const MOST: usize = 128 << 10;

/// A mounted directory, taken down when it goes.
pub(super) struct Mounted {
    at: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Mounted {
    /// Mounts one; fails where that is not allowed.
    pub(super) fn new(at: &Path, kind: &str) -> io::Result<Self> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let options = CString::new(options)?;
        mount("there:/srv", at, kind, MountFlags::NOSUID, options.as_c_str())?;
        let state = Arc::new(Mutex::new(State::default()));
        let served = state.clone();
        // It ends with the mount, which a mount namespace of some other program may keep for a while.
        std::thread::spawn(move || serve(device, &served));
        Ok(Self { at: at.to_path_buf(), state })
    }

    /// Returns the mode of a file.
    pub(super) fn mode(&self, name: &str) -> Option<u32> {
        let state = self.state.lock().unwrap();
        Some(state.files[state.names.get(name)?].mode & 0o777)
    }

    /// Lists the files.
    pub(super) fn names(&self) -> Vec<String> {
        self.state.lock().unwrap().names.keys().cloned().collect()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The device answers no more then, which ends the server.
        let _ = unmount(&self.at, UnmountFlags::DETACH);
    }
}

#[derive(Default)]
struct State {
    names: BTreeMap<String, u64>,
    /// Also those that have no name any more.
    files: BTreeMap<u64, Content>,
}

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    mode: u32,
    /// Counts changes; stands for the time of the last one.
    changes: u64,
}

/// Answers requests until the directory is taken down.
fn serve(mut device: File, state: &Mutex<State>) {
    let mut buffer = vec![0; MOST + (64 << 10)];
    loop {
        let count = match device.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // Taken down.
            Err(_) => return,
        };
        let request = Request(&buffer[..count]);
        let answer = state.lock().unwrap().answer(&request);
        let (error, body) = match answer {
            Some(Ok(body)) => (0, body),
            Some(Err(error)) => (-error.raw_os_error(), Vec::new()),
            None => continue,
        };
        let mut reply = Vec::new();
        reply.extend((16 + body.len() as u32).to_ne_bytes());
        reply.extend(error.to_ne_bytes());
        reply.extend(request.u64(8).to_ne_bytes());
        reply.extend(body);
        // Whoever asked may be gone.
        let _ = device.write(&reply);
    }
}

/// A request: 40 bytes about it, then its arguments.
struct Request<'a>(&'a [u8]);

impl Request<'_> {
    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().unwrap())
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.0[at..at + 8].try_into().unwrap())
    }

    /// Reads names that end in a zero each, from a byte on.
    fn names(&self, at: usize) -> Vec<String> {
        let names = self.0[at..].split(|byte| *byte == 0);
        names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }
}

impl State {
    /// Answers one request; `None` where none is wanted.
    fn answer(&mut self, request: &Request<'_>) -> Option<Result<Vec<u8>, Errno>> {
        /// Where the arguments begin.
        const ARGS: usize = 40;
        let node = request.u64(16);
        Some(match request.u32(4) {
            // FORGET, INTERRUPT, BATCH_FORGET
            2 | 36 | 42 => return None,
            // LOOKUP
            1 => self.find(&request.names(ARGS)[0]).map(|node| self.entry(node)),
            // GETATTR
            3 => self.about(node),
            // SETATTR: mode and size
            4 => self.set(node, request.u32(ARGS), request.u32(ARGS + 68), request.u64(ARGS + 16)),
            // UNLINK
            10 => {
                self.names.remove(&request.names(ARGS)[0]).map_or(Err(Errno::NOENT), |_| Ok(vec![]))
            }
            // RENAME and RENAME2
            12 => self.rename(&request.names(ARGS + 8)),
            45 => self.rename(&request.names(ARGS + 16)),
            // OPEN, OPENDIR
            14 | 27 => Ok(vec![0; 16]),
            // READ
            15 => self.file(node).map(|file| {
                let at = (request.u64(ARGS + 8) as usize).min(file.bytes.len());
                let end = (at + request.u32(ARGS + 16) as usize).min(file.bytes.len());
                file.bytes[at..end].to_vec()
            }),
            // WRITE
            16 => self.write(node, request.u64(ARGS + 8) as usize, &request.0[ARGS + 40..]),
            // STATFS
            17 => Ok(words(&[1 << 20, 1 << 19, 1 << 19, 1 << 20, 1 << 19], &[4096, 255, 4096], 28)),
            // RELEASE, FSYNC, FLUSH, RELEASEDIR, FSYNCDIR
            18 | 20 | 25 | 29 | 30 => Ok(vec![]),
            // INIT
            26 => Ok(words(&[], &[7, 31, 0, 0, 0, MOST as u32, 1, 0], 32)),
            // READDIR
            28 => Ok(self.list(request.u64(ARGS + 8) as usize)),
            // CREATE
            35 => Ok(self.create(&request.names(ARGS + 16)[0], request.u32(ARGS + 4))),
            _ => Err(Errno::NOSYS),
        })
    }

    fn find(&self, name: &str) -> Result<u64, Errno> {
        self.names.get(name).copied().ok_or(Errno::NOENT)
    }

    fn file(&mut self, node: u64) -> Result<&mut Content, Errno> {
        self.files.get_mut(&node).ok_or(Errno::NOENT)
    }

    fn about(&self, node: u64) -> Result<Vec<u8>, Errno> {
        let known = node == ROOT || self.files.contains_key(&node);
        if !known {
            return Err(Errno::NOENT);
        }
        // Valid for no time at all.
        Ok([vec![0; 16], self.attributes(node)].concat())
    }

    fn entry(&self, node: u64) -> Vec<u8> {
        [words(&[node, 1, 0, 0], &[0, 0], 0), self.attributes(node)].concat()
    }

    fn attributes(&self, node: u64) -> Vec<u8> {
        let (size, changes, mode) = match self.files.get(&node) {
            Some(file) => (file.bytes.len() as u64, file.changes, 0o100_000 | file.mode),
            None => (0, 0, 0o040_700),
        };
        let time = 1_790_000_000 + changes;
        words(&[node, size, 1, time, time, time], &[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0], 0)
    }

    fn set(&mut self, node: u64, which: u32, mode: u32, size: u64) -> Result<Vec<u8>, Errno> {
        if let Some(file) = self.files.get_mut(&node) {
            file.changes += 1;
            if which & 1 != 0 {
                file.mode = mode & 0o777;
            }
            if which & 8 != 0 {
                file.bytes.resize(size as usize, 0);
            }
        }
        self.about(node)
    }

    fn create(&mut self, name: &str, mode: u32) -> Vec<u8> {
        let node = self.files.keys().last().map_or(ROOT, |last| *last) + 1;
        self.files.insert(node, Content { mode: mode & 0o777, ..Content::default() });
        self.names.insert(name.into(), node);
        [self.entry(node), vec![0; 16]].concat()
    }

    fn write(&mut self, node: u64, at: usize, bytes: &[u8]) -> Result<Vec<u8>, Errno> {
        let file = self.file(node)?;
        let end = at + bytes.len();
        if file.bytes.len() < end {
            file.bytes.resize(end, 0);
        }
        file.bytes[at..end].copy_from_slice(bytes);
        file.changes += 1;
        Ok(words(&[], &[bytes.len() as u32, 0], 0))
    }

    fn rename(&mut self, names: &[String]) -> Result<Vec<u8>, Errno> {
        let node = self.names.remove(&names[0]).ok_or(Errno::NOENT)?;
        self.names.insert(names[1].clone(), node);
        Ok(Vec::new())
    }

    fn list(&self, from: usize) -> Vec<u8> {
        let mut list = Vec::new();
        for (at, (name, node)) in self.names.iter().enumerate().skip(from) {
            // A regular file.
            list.extend(words(&[*node, at as u64 + 1], &[name.len() as u32, 8], 0));
            list.extend(name.bytes());
            list.resize(list.len().next_multiple_of(8), 0);
            if list.len() > 3 << 10 {
                break;
            }
        }
        list
    }
}

/// Puts numbers one after the other, the long ones first, and so many zeros after them.
fn words(long: &[u64], short: &[u32], zeros: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = long.iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.extend(short.iter().flat_map(|word| word.to_ne_bytes()));
    bytes.resize(bytes.len() + zeros, 0);
    bytes
}
