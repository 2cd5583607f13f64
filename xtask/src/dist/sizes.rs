//! How much of a binary each plugin is, by the names of its symbols.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use object::{Object, ObjectSymbol, SymbolSection};

/// Sums up, for each of `crates`, the symbols that are named after it. Code that was merged into
/// another crate's, and unnamed data such as texts, count for nobody: the sums are lower bounds.
pub(crate) fn by_crate(binary: &[u8], crates: &[String]) -> Result<BTreeMap<String, u64>> {
    let file = object::File::parse(binary).context("reading the symbols")?;
    let mut symbols: Vec<(u64, u64, SymbolSection, &str)> = file
        .symbols()
        .filter(|symbol| symbol.is_definition())
        .filter_map(|symbol| {
            Some((symbol.address(), symbol.size(), symbol.section(), symbol.name().ok()?))
        })
        .collect();
    symbols.sort_by_key(|(address, ..)| *address);
    symbols.dedup_by_key(|(address, ..)| *address);
    let mut sums: BTreeMap<String, u64> = crates.iter().map(|name| (name.clone(), 0)).collect();
    for (at, (address, size, section, name)) in symbols.iter().enumerate() {
        let Some(owner) = owner(name, crates) else { continue };
        // Some formats have no sizes: there a symbol reaches to the next one of its section.
        let next = symbols[at + 1..].iter().find(|(_, _, other, _)| other == section);
        let size = match (size, next) {
            (0, Some((next, ..))) => next - address,
            (size, _) => *size,
        };
        *sums.entry(owner.to_string()).or_default() += size;
    }
    Ok(sums)
}

/// Finds the crate that a mangled name belongs to: the first of them that it names.
fn owner<'c>(symbol: &str, crates: &'c [String]) -> Option<&'c str> {
    let places = crates.iter().filter_map(|name| Some((place(symbol, name)?, name.as_str())));
    places.min().map(|(_, name)| name)
}

/// Finds a crate's name in a mangled one. There it stands behind its length, or in front of two
/// dots, so that no name is found in a longer one.
fn place(symbol: &str, name: &str) -> Option<usize> {
    let length = name.len().to_string();
    symbol.match_indices(name).map(|(at, _)| at).find(|at| {
        let (before, after) = (&symbol[..*at], &symbol[at + name.len()..]);
        let counted = before
            .strip_suffix(&length)
            .or_else(|| before.strip_suffix('_')?.strip_suffix(&length));
        counted.is_some_and(|rest| !rest.ends_with(|c: char| c.is_ascii_digit()))
            || after.starts_with("..")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_belongs_to_the_first_crate_it_names() {
        let crates = ["plugin_cli", "plugin_cli_oauth", "plugin_x"].map(String::from);
        for (symbol, expected) in [
            ("_ZN10plugin_cli3run17h0123E", Some("plugin_cli")),
            ("_ZN16plugin_cli_oauth3run17h0123E", Some("plugin_cli_oauth")),
            (
                "_ZN56_$LT$plugin_x..Thing$u20$as$u20$plugin_cli..Host$GT$4call17h0E",
                Some("plugin_x"),
            ),
            ("_RNvCs1234_10plugin_cli3run", Some("plugin_cli")),
            (
                "_RNvXs_Cs1234_16plugin_cli_oauthNtB4_5ThingNtCs9_10plugin_cli4Host",
                Some("plugin_cli_oauth"),
            ),
            ("_ZN4core3ptr42drop_in_place$LT$plugin_x..Thing$GT$17h0E", Some("plugin_x")),
            ("_ZN110plugin_cli3run17h0123E", None),
            ("main", None),
        ] {
            assert_eq!(owner(symbol, &crates), expected, "{symbol}");
        }
    }

    #[test]
    fn this_program_has_symbols_of_this_crate() {
        let binary = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let crates = ["xtask".to_string(), "no_such_crate".to_string()];
        let sums = by_crate(&binary, &crates).unwrap();
        assert!(sums["xtask"] > 10_000, "{sums:?}");
        assert_eq!(sums["no_such_crate"], 0);
        assert!(by_crate(b"not a program", &crates).is_err());
    }
}
