//! Looks at a library's bytes before the system's loader does.
//!
//! The loader maps a file without looking at its length: a truncated one ends the program with a
//! signal, and any library's constructors run before its symbols can be asked for. So both are
//! found out from the bytes.

use object::read::File;
use object::{NameOrOrdinal, Object, ObjectKind, ObjectSegment, ObjectSymbol};

use super::LoadError;
use crate::{Descriptor, SYMBOL};

/// Refuses what is no whole shared library for this machine with a descriptor in it.
pub(crate) fn check(bytes: &[u8]) -> Result<(), LoadError> {
    let refused = |reason: &str| LoadError::NotALibrary { reason: reason.to_string() };
    let file = File::parse(bytes).map_err(|error| refused(&error.to_string()))?;
    if file.kind() != ObjectKind::Dynamic {
        return Err(refused("it is another kind of object file"));
    }
    if file.architecture() != architecture() {
        return Err(refused("it was built for another processor"));
    }
    let whole = |(start, len): (u64, u64)| {
        start.checked_add(len).is_some_and(|end| end <= bytes.len() as u64)
    };
    if !file.segments().all(|segment| whole(segment.file_range())) {
        return Err(refused("it is truncated"));
    }
    let named = |name: &[u8]| {
        name == SYMBOL.as_bytes() || name.strip_prefix(b"_") == Some(SYMBOL.as_bytes())
    };
    let mut exports = file.exports().map_err(|error| refused(&error.to_string()))?;
    let ours = |export: object::Export<'_>| match export.name() {
        NameOrOrdinal::Name(name) => named(name),
        NameOrOrdinal::Ordinal(_) => false,
    };
    if !exports.any(|export| export.is_ok_and(ours)) {
        return Err(LoadError::NoSymbol {});
    }
    let mut symbols = file.dynamic_symbols();
    let symbol = symbols.find(|symbol| symbol.name_bytes().is_ok_and(named));
    let size = symbol.map_or(0, |symbol| symbol.size());
    // Formats other than ELF know no sizes.
    if size != 0 && size < size_of::<Descriptor>() as u64 {
        let reason = format!("its descriptor has {size} bytes, too few");
        return Err(LoadError::Layout { reason });
    }
    Ok(())
}

fn architecture() -> object::Architecture {
    match std::env::consts::ARCH {
        "x86_64" => object::Architecture::X86_64,
        "aarch64" => object::Architecture::Aarch64,
        "riscv64" => object::Architecture::Riscv64,
        "powerpc64" => object::Architecture::PowerPc64,
        "s390x" => object::Architecture::S390x,
        "arm" => object::Architecture::Arm,
        "x86" => object::Architecture::I386,
        _ => object::Architecture::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_library_is_refused_with_a_reason() {
        let program = std::fs::read("/proc/self/exe").unwrap_or_default();
        for bytes in [&b""[..], b"#!/bin/sh\n", b"\x7fELF", program.get(..200).unwrap_or_default()]
        {
            assert!(matches!(check(bytes), Err(LoadError::NotALibrary { .. })), "{bytes:?}");
        }
    }
}
