//! Looks at a library's bytes before the system's loader does.
//!
//! The loader maps a file without looking at its length: a truncated one ends the program with a
//! signal, and any library's constructors run before its symbols can be asked for. So both are
//! found out from the bytes.

use object::read::File;
use object::{Object, ObjectKind, ObjectSegment, ObjectSymbol};

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
    let mut symbols = file.dynamic_symbols().chain(file.symbols());
    let named = |name: &str| name == SYMBOL || name.strip_prefix('_') == Some(SYMBOL);
    let Some(symbol) =
        symbols.find(|symbol| symbol.is_definition() && symbol.name().is_ok_and(named))
    else {
        return Err(LoadError::NoSymbol {});
    };
    // Formats other than ELF know no sizes.
    if symbol.size() != 0 && symbol.size() < size_of::<Descriptor>() as u64 {
        let reason = format!("its descriptor has {} bytes, too few", symbol.size());
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
