//! `onboard --reset`: moves the old setup aside; nothing is deleted (spec L-20).

use std::path::{Path, PathBuf};

use crate::{Context, Failure};

/// Renames config, credentials, and every agent's store and sessions to `<name>.reset-<time>`.
pub(super) fn run(cx: &mut Context) -> Result<(), Failure> {
    let suffix = format!("reset-{}", cx.now().millis());
    let state = cx.paths().state_dir().to_path_buf();
    let mut aside = vec![cx.paths().config_file().to_path_buf(), state.join("credentials")];
    let agents = std::fs::read_dir(state.join("agents")).into_iter().flatten().flatten();
    for agent in agents {
        aside.push(agent.path().join("agent"));
        aside.push(agent.path().join("sessions"));
    }
    for path in aside {
        move_aside(&path, &suffix).map_err(|error| {
            Failure::new(format!("cannot move {} aside: {error}", path.display()))
                .hint("check the owner of the directory, or move it by hand")
        })?;
    }
    cx.forget_config();
    Ok(())
}

fn move_aside(path: &Path, suffix: &str) -> std::io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".");
    name.push(suffix);
    let target: PathBuf = path.with_file_name(name);
    std::fs::rename(path, target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_move_aside_and_absent_ones_do_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("moltbot.json");
        std::fs::write(&file, "{}").unwrap();
        move_aside(&file, "reset-1").unwrap();
        assert!(!file.exists());
        assert_eq!(std::fs::read_to_string(dir.path().join("moltbot.json.reset-1")).unwrap(), "{}");
        move_aside(&file, "reset-1").unwrap();
    }
}
