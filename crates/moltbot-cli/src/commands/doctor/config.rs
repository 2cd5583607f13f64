//! The doctor's look at the config file: old keys, unknown keys, old modes.

use moltbot_config::{ConfigError, KeyPath, NoteKind};

use super::Doctor;
use crate::Context;

/// Checks and repairs the config; returns whether it is valid now.
pub(super) fn check(cx: &mut Context, doctor: &mut Doctor) -> bool {
    match cx.load() {
        Ok(loaded) => {
            let due = |kind| matches!(kind, NoteKind::RewrittenMode | NoteKind::Legacy);
            let repairs = loaded.notes.iter().any(|note| due(note.kind));
            for note in &loaded.notes {
                match note.kind {
                    kind if due(kind) && doctor.fix => {}
                    // Every load does it in memory, so nothing is wrong yet.
                    NoteKind::RewrittenMode => {
                        doctor.info(cx, &format!("--fix writes down: {}", note.message));
                    }
                    NoteKind::NewerVersion | NoteKind::UnsetVariable => {
                        doctor.warning(cx, &note.message);
                    }
                    _ => doctor.info(cx, &note.message),
                }
            }
            if repairs && doctor.fix {
                return repair(cx, doctor, None);
            }
            true
        }
        Err(error) if doctor.fix => repair(cx, doctor, Some(error)),
        Err(error) => {
            report(cx, doctor, &error);
            false
        }
    }
}

/// Repairs the source text. Nothing is written unless the whole result is valid.
fn repair(cx: &mut Context, doctor: &mut Doctor, before: Option<ConfigError>) -> bool {
    // Modes are rewritten in memory on every load; here they are written down.
    let modes = cx.extensions().modes.clone();
    let done = cx.edit(|editor| {
        let mut done = editor.repair()?;
        for migration in &modes {
            let path = KeyPath::keys(["auth", "profiles", &migration.profile, "mode"]);
            let held = editor.get(&path);
            if held.as_ref().and_then(|held| held.as_str()) == Some(&migration.from) {
                editor.set(&path, &migration.to.as_str().into())?;
                done.push(migration.change());
            }
        }
        Ok(done)
    });
    match done {
        Ok(done) => {
            for sentence in done {
                doctor.repaired(cx, &sentence);
            }
            true
        }
        Err(failure) => {
            match before {
                Some(error) => report(cx, doctor, &error),
                None => doctor.problem(cx, &failure.message, None),
            }
            false
        }
    }
}

fn report(cx: &mut Context, doctor: &mut Doctor, error: &ConfigError) {
    cx.out.line(error.to_string());
    cx.out.line("");
    let count = error.issues().len();
    let noun = if count == 1 { "issue" } else { "issues" };
    let text = format!("the config has {count} {noun}, shown above");
    if error.is_repairable() && !doctor.fix {
        doctor.repairable(cx, &text);
    } else {
        doctor.problem(cx, &text, Some("correct the places shown"));
    }
}
