//! What people paste when they are asked for a key (spec L-1).

use moltbot_core::Secret;

/// Takes the key out of what was pasted: a bare key, or a line of a shell script (spec L-1).
///
/// A value that shares the beginning of `prefix` but goes on differently is another kind of
/// credential of the same vendor and is refused; so is one that no header could carry.
pub fn normalize_key(text: &str, prefix: &str) -> Result<Secret, String> {
    let key = without_semicolon(without_assignment(text.trim()));
    let key = without_semicolon(without_quotes(key));
    if key.is_empty() {
        return Err("Required".into());
    }
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("An API key is one word of printable ASCII characters".into());
    }
    let family = prefix.trim_end_matches(|c: char| c == '-' || c.is_ascii_digit());
    let vendor = family.rfind('-').map_or("", |dash| &family[..=dash]);
    if !vendor.is_empty() && key.starts_with(vendor) && !key.starts_with(family) {
        return Err(format!(
            "Expected an API key starting with {prefix}; other kinds of {vendor} credentials have their own choice in `moltbot onboard`"
        ));
    }
    Ok(Secret::new(key))
}

fn without_assignment(text: &str) -> &str {
    let line = text.strip_prefix("export ").map_or(text, str::trim_start);
    match line.split_once('=') {
        Some((name, value)) if is_variable(name) => value.trim(),
        _ => text,
    }
}

/// Upper case only: the part of a key before its `=` padding is no variable.
fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

fn without_quotes(text: &str) -> &str {
    ['"', '\'', '`']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(text)
}

fn without_semicolon(text: &str) -> &str {
    text.strip_suffix(';').unwrap_or(text).trim()
}
