//! The doctor's look at the state directory: its old name, and files from before there were agents.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::Path;

use moltbot_config::{Env, PathsInput, state_move};

use super::Doctor;
use crate::{Context, Failure};

/// Moves the state directory to its new name and leaves a link (spec C-3).
pub(super) fn check(cx: &mut Context, doctor: &mut Doctor) -> Result<(), Failure> {
    let process = Env::new(cx.process_vars());
    let input = PathsInput {
        env: &process,
        home: cx.home(),
        cwd: cx.cwd(),
        profile: cx.globals.instance.profile.as_deref(),
        exists: &|path| path.exists(),
    };
    let Some((old, new)) = state_move(&input, &|path| path.is_symlink()) else { return Ok(()) };
    let text = format!("{} → {}", cx.shown(&old), cx.shown(&new));
    if !doctor.fix {
        // The old place works, so this is no problem, only a move that is due.
        doctor.info(cx, &format!("--fix moves the state directory: {text}"));
        return Ok(());
    }
    fs::rename(&old, &new)
        .map_err(|error| Failure::new(format!("{} cannot be moved: {error}", old.display())))?;
    if let Err(error) = symlink(&new, &old) {
        let text = format!("the state directory was moved, but not linked: {error}");
        doctor.warning(cx, &text);
    }
    cx.resolve_paths();
    doctor.repaired(cx, &format!("moved the state directory: {text}"));
    Ok(())
}

/// Moves `<state>/agent/*` to where the default agent keeps its files (spec A-9).
pub(super) fn check_old_agent(cx: &mut Context, doctor: &mut Doctor) -> Result<(), Failure> {
    let old = cx.paths().state_dir().join("agent");
    let Ok(entries) = fs::read_dir(&old) else { return Ok(()) };
    let agent = cx.agent_by_id(None)?;
    let (from, to) = (cx.shown(&old), cx.shown(&agent.dir));
    if !doctor.fix {
        doctor.repairable(cx, &format!("{from} belongs to an older version; its place is {to}"));
        return Ok(());
    }
    let fail = |path: &Path, error: std::io::Error| {
        Failure::new(format!("{} cannot be moved: {error}", path.display()))
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&agent.dir)
        .map_err(|error| fail(&agent.dir, error))?;
    let mut taken = false;
    for entry in entries {
        let entry = entry.map_err(|error| fail(&old, error))?;
        let target = agent.dir.join(entry.file_name());
        if target.exists() {
            taken = true;
            continue;
        }
        fs::rename(entry.path(), &target).map_err(|error| fail(&entry.path(), error))?;
    }
    if taken {
        let text = format!("{from} holds files that exist in {to} too; compare them by hand");
        doctor.problem(cx, &text, None);
        return Ok(());
    }
    fs::remove_dir(&old).map_err(|error| fail(&old, error))?;
    doctor.repaired(cx, &format!("moved {from} to {to}"));
    Ok(())
}
