//! Wipes secrets that were typed as literal flags from the process's arguments, where every user
//! of the machine could read them (decision "Security defaults").

use std::ffi::OsString;

use moltbot_core::{Field, FieldKind, Registry};

/// The host's own flags that hold a secret.
const OURS: [&str; 3] = ["gateway-token", "gateway-password", "remote-token"];

/// Wipes them. `args` are the arguments without the program, collected before.
pub(crate) fn conceal(registry: &Registry, args: &[OsString]) {
    let flags: Vec<&str> = secret_flags(registry).collect();
    for (index, from) in places(args, &flags) {
        // Argument 0 is the program.
        moltbot_sys::wipe_argument(index + 1, from);
    }
}

fn secret_flags(registry: &Registry) -> impl Iterator<Item = &'static str> + use<'_> {
    let fields = registry.offers().iter().flat_map(|entry| {
        let verbs = entry.offer.verbs.iter().flat_map(|verb| &verb.fields);
        entry.offer.fields.iter().chain(verbs)
    });
    let secret = |field: &&'static Field| matches!(field.kind, FieldKind::Secret {});
    fields.filter(secret).filter_map(|field| field.flag.as_deref()).chain(OURS)
}

/// Finds the values of these flags: which argument, and from which byte on.
fn places(args: &[OsString], flags: &[&str]) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    for (index, arg) in args.iter().enumerate() {
        let Some(flag) = arg.to_str().and_then(|arg| arg.strip_prefix("--")) else { continue };
        match flag.split_once('=') {
            Some((name, _)) if flags.contains(&name) => places.push((index, name.len() + 3)),
            None if flags.contains(&flag) && index + 1 < args.len() => places.push((index + 1, 0)),
            _ => {}
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_in_both_forms() {
        let args: Vec<OsString> =
            ["onboard", "--key", "FAKE", "--key=FAKE", "--other", "x", "--keyed=1", "--key"]
                .iter()
                .map(OsString::from)
                .collect();
        assert_eq!(places(&args, &["key"]), [(2, 0), (3, 6)]);
    }
}
