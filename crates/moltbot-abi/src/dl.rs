//! The C boundary: the descriptor that a library exports, its two functions, and the host's use of
//! them; also mapping what is loaded, and what has to happen between `fork` and `exec`. The only file
//! with `unsafe`.
//!
//! Six words of C and JSON behind them, so that plugin and host may come from different compilers.
//! The descriptor grows only at its end; its name changes when the layout does.

#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use crate::{Guest, Packet};

/// The name under which a library exports its [`Descriptor`].
pub const SYMBOL: &str = "MOLTBOT_PLUGIN_V1";

/// Begins every descriptor.
pub const MAGIC: [u8; 8] = *b"MOLTBOT\x01";

/// The version of the layout and of the meaning of `call`.
pub const ABI: u32 = 1;

/// Set in `flags` by a library in which a panic unwinds, so that it can be caught.
pub const FLAG_UNWIND: u32 = 1;

/// The one operation there is: one message of the wire in, its answer out.
pub const OP_TURN: u32 = 1;

/// What a library exports as the static [`SYMBOL`].
#[repr(C)]
#[derive(Debug)]
pub struct Descriptor {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`ABI`].
    pub abi: u32,
    /// The size of this structure in bytes; larger ones are of a newer version.
    pub size: u32,
    /// [`FLAG_UNWIND`] or nothing; unknown ones are ignored.
    pub flags: u32,
    /// Zero.
    pub pad: u32,
    /// The version of `moltbot-core`, as UTF-8 that lives as long as the library.
    pub api_ptr: *const u8,
    /// Its length in bytes.
    pub api_len: usize,
    /// Performs `op`; `task` is reserved and zero. Returns 0 and fills `out`, or another number.
    pub call: Call,
    /// Wipes and frees what `call` filled.
    pub free: Free,
}

/// The type of [`Descriptor::call`].
pub type Call =
    unsafe extern "C" fn(op: u32, task: u64, ptr: *const u8, len: usize, out: *mut Buf) -> i32;

/// The type of [`Descriptor::free`].
pub type Free = unsafe extern "C" fn(Buf);

/// Bytes that belong to the side that made them.
#[repr(C)]
#[derive(Debug)]
pub struct Buf {
    /// The first byte.
    pub ptr: *mut u8,
    /// How many.
    pub len: usize,
    /// How many there is room for; meaningful only to the side that made it.
    pub cap: usize,
}

impl Buf {
    /// Holds nothing.
    pub const EMPTY: Self = Self { ptr: std::ptr::null_mut(), len: 0, cap: 0 };
}

// SAFETY: the pointer leads to a constant string and the rest are numbers and functions, so that
// any thread may read a descriptor at any time.
unsafe impl Sync for Descriptor {}
// SAFETY: as above.
unsafe impl Send for Descriptor {}

/// The descriptor of this image. It is defined here and not in the plugin, so that many loadable
/// plugins can be linked into one program.
// SAFETY: the name is ours alone; a second definition in the same image is a linker error.
#[unsafe(no_mangle)]
pub static MOLTBOT_PLUGIN_V1: Descriptor = Descriptor {
    magic: MAGIC,
    abi: ABI,
    size: size_of::<Descriptor>() as u32,
    flags: if cfg!(panic = "unwind") { FLAG_UNWIND } else { 0 },
    pad: 0,
    api_ptr: moltbot_core::VERSION.as_ptr(),
    api_len: moltbot_core::VERSION.len(),
    call: guest_call,
    free: guest_free,
};

/// Makes a crate with `crate-type = ["cdylib"]` loadable: the library exports one symbol, through
/// which the host reaches every plugin linked into it. Once per crate, beside
/// [`plugin!`](moltbot_core::plugin!).
///
/// ```
/// moltbot_abi::export_plugin!();
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! export_plugin {
    () => {
        const _: () = {
            #[used]
            static KEEP: &$crate::Descriptor = &$crate::MOLTBOT_PLUGIN_V1;
        };
    };
}

extern "C" fn guest_call(op: u32, _task: u64, ptr: *const u8, len: usize, out: *mut Buf) -> i32 {
    static GUEST: OnceLock<Guest> = OnceLock::new();
    if op != OP_TURN || ptr.is_null() || out.is_null() {
        return 1;
    }
    // SAFETY: the host lends `len` bytes at `ptr` until this returns.
    let message = unsafe { std::slice::from_raw_parts(ptr, len) };
    let turn = AssertUnwindSafe(|| {
        let guest = GUEST.get_or_init(|| {
            // The words of a panic may hold a secret and belong on nobody's terminal. This is the
            // hook of the library's own copy of `std`.
            std::panic::set_hook(Box::new(|_| {}));
            Guest::linked()
        });
        guest.turn(message)
    });
    let mut answer = match catch_unwind(turn) {
        Ok(answer) => answer,
        Err(panic) => {
            // Dropping what was thrown may throw again.
            std::mem::forget(panic);
            return 2;
        }
    };
    let mut answer = std::mem::ManuallyDrop::new(std::mem::take(&mut *answer));
    let buf = Buf { ptr: answer.as_mut_ptr(), len: answer.len(), cap: answer.capacity() };
    // SAFETY: `out` is the host's, not null, and valid for one `Buf` until this returns.
    unsafe { out.write(buf) };
    0
}

extern "C" fn guest_free(buf: Buf) {
    if !buf.ptr.is_null() {
        // SAFETY: only buffers of `guest_call` come here, once each, with the parts it took out
        // of a vector.
        drop(Packet::new(unsafe { Vec::from_raw_parts(buf.ptr, buf.len, buf.cap) }));
    }
}

#[cfg(all(feature = "host", target_os = "linux"))]
pub(crate) use host::Sealed;
#[cfg(feature = "host")]
pub(crate) use host::{Image, before_exec};

#[cfg(feature = "host")]
mod host {
    use std::ffi::c_void;
    use std::path::Path;
    use std::process::Command;

    use super::{ABI, Buf, Descriptor, FLAG_UNWIND, MAGIC, OP_TURN, SYMBOL};
    use crate::host::LoadError;
    use crate::{CarrierError, Packet};

    /// The most that one answer may hold, in bytes.
    const MAX_ANSWER: usize = 64 << 20;

    /// A loaded library. It is never unloaded: thread-locals and threads of a Rust library cannot
    /// be taken away soundly.
    pub(crate) struct Image {
        descriptor: &'static Descriptor,
        core: String,
    }

    impl Image {
        /// Loads a library whose bytes were checked and that nobody else can change.
        #[cfg(not(target_feature = "crt-static"))]
        pub(crate) fn load(path: &Path) -> Result<Self, LoadError> {
            use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
            let refused = |error: libloading::Error| LoadError::Loader { reason: chain(&error) };
            // SAFETY: loading runs the library's constructors. They are the code that the user
            // pinned by its sum; nothing can be known about them beyond that (see "Trust").
            let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
            let library = library.map_err(refused)?;
            // SAFETY: the symbol is used as an address only; what is there is checked below.
            let symbol = unsafe { library.get::<*const c_void>(SYMBOL.as_bytes()) };
            let address = match symbol {
                Ok(symbol) => symbol.into_raw().cast::<Descriptor>().cast_const(),
                Err(_) => {
                    std::mem::forget(library);
                    return Err(LoadError::NoSymbol {});
                }
            };
            std::mem::forget(library);
            Self::at(address)
        }

        /// Refuses: a static program has no loader, and calling it crashes.
        #[cfg(target_feature = "crt-static")]
        pub(crate) fn load(_: &Path) -> Result<Self, LoadError> {
            Err(LoadError::Static {})
        }

        #[cfg_attr(target_feature = "crt-static", allow(dead_code))]
        fn at(address: *const Descriptor) -> Result<Self, LoadError> {
            if address.is_null() || !address.is_aligned() {
                return Err(LoadError::Layout { reason: "its descriptor is misplaced".into() });
            }
            // SAFETY: the symbol is there and, as its size in the symbol table was checked before
            // loading, spans at least a descriptor; a smaller one of another system is refused by
            // the magic, which is its first field, or by `size`.
            let head = unsafe {
                (
                    (&raw const (*address).magic).read(),
                    (&raw const (*address).abi).read(),
                    (&raw const (*address).size).read(),
                )
            };
            let (magic, abi, size) = head;
            if magic != MAGIC {
                return Err(LoadError::Magic {});
            }
            if abi != ABI {
                let reason = format!("its layout has version {abi}, this program reads {ABI}");
                return Err(LoadError::Layout { reason });
            }
            if (size as usize) < size_of::<Descriptor>() {
                let reason = format!("its descriptor has {size} bytes, too few");
                return Err(LoadError::Layout { reason });
            }
            // SAFETY: magic, version and size say that this is a descriptor, and it stays: the
            // library is never unloaded. Function pointers that are null would not be a
            // `Descriptor`; whoever writes the magic promises that they are not.
            let descriptor = unsafe { &*address };
            if descriptor.api_ptr.is_null() || descriptor.api_len > 64 {
                let reason = "its version of moltbot-core is missing".to_string();
                return Err(LoadError::Layout { reason });
            }
            // SAFETY: the descriptor lends that many bytes for as long as the library is there.
            let core =
                unsafe { std::slice::from_raw_parts(descriptor.api_ptr, descriptor.api_len) };
            let core = String::from_utf8_lossy(core).into_owned();
            Ok(Self { descriptor, core })
        }

        /// Returns the version of `moltbot-core` the library was built with.
        pub(crate) fn core(&self) -> &str {
            &self.core
        }

        /// Tells whether a panic inside can be caught.
        pub(crate) fn unwinds(&self) -> bool {
            self.descriptor.flags & FLAG_UNWIND != 0
        }

        /// Delivers one message and copies the answer.
        pub(crate) fn turn(&self, message: &[u8]) -> Result<Packet, CarrierError> {
            let mut out = Buf::EMPTY;
            let (ptr, len) = (message.as_ptr(), message.len());
            // SAFETY: the message is lent for the call, `out` is ours; the function is the
            // checked descriptor's.
            let status = unsafe { (self.descriptor.call)(OP_TURN, 0, ptr, len, &raw mut out) };
            let garbled = |reason: &str| CarrierError::Garbled { reason: reason.to_string() };
            if status == 2 {
                return Err(garbled("it panicked"));
            }
            if status != 0 {
                return Err(garbled(&format!("its call returned {status}")));
            }
            if out.ptr.is_null() || out.len > MAX_ANSWER {
                return Err(garbled("its answer is missing or too long"));
            }
            // SAFETY: after success the library lends `len` bytes at `ptr` until they are freed.
            let answer = unsafe { std::slice::from_raw_parts(out.ptr, out.len) };
            let answer = Packet::new(answer.to_vec());
            // SAFETY: what `call` filled goes back, once, and is not used afterwards.
            unsafe { (self.descriptor.free)(out) };
            Ok(answer)
        }
    }

    /// A file in memory that nobody can change any more, mapped.
    #[cfg(target_os = "linux")]
    pub(crate) struct Sealed {
        file: std::sync::Arc<std::fs::File>,
        /// As long as this value; never handed out for longer.
        bytes: &'static [u8],
    }

    #[cfg(target_os = "linux")]
    impl Sealed {
        /// Seals a file in memory as it is now. Errors: it is none, or it is empty.
        pub(crate) fn new(file: std::fs::File) -> std::io::Result<Self> {
            use rustix::fs::{SealFlags, fcntl_add_seals};
            use rustix::mm::{MapFlags, ProtFlags, mmap};
            let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
            fcntl_add_seals(&file, seals)?;
            let len = usize::try_from(file.metadata()?.len()).map_err(std::io::Error::other)?;
            let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
            // SAFETY: a new mapping, placed by the system, of a file that the seals keep from being
            // written and cut off: its bytes never change, and each of them is there.
            let bytes = unsafe {
                let start = mmap(std::ptr::null_mut(), len, ProtFlags::READ, flags, &file, 0)?;
                std::slice::from_raw_parts(start.cast::<u8>().cast_const(), len)
            };
            Ok(Self { file: std::sync::Arc::new(file), bytes })
        }

        /// Returns what it holds.
        pub(crate) fn bytes(&self) -> &[u8] {
            self.bytes
        }

        /// Returns the file.
        pub(crate) fn file(&self) -> &std::sync::Arc<std::fs::File> {
            &self.file
        }
    }

    #[cfg(target_os = "linux")]
    impl Drop for Sealed {
        fn drop(&mut self) {
            let start = self.bytes.as_ptr().cast_mut().cast();
            // SAFETY: the mapping is that of `new`, whole; nobody has its bytes longer than `self`.
            let _ = unsafe { rustix::mm::munmap(start, self.bytes.len()) };
        }
    }

    /// Writes an error with everything behind it; the loader's own text is the last part.
    fn chain(error: &dyn std::error::Error) -> String {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    }

    /// Runs `prepare` in the child, between `fork` and `exec`.
    ///
    /// `prepare` may make system calls and nothing else: no allocation, no lock.
    pub(crate) fn before_exec(command: &mut Command, prepare: fn() -> std::io::Result<()>) {
        use std::os::unix::process::CommandExt;
        // SAFETY: the one caller, `process::prepare`, makes system calls through `rustix` with
        // constants; it takes no lock and allocates nothing.
        unsafe { command.pre_exec(prepare) };
    }
}
