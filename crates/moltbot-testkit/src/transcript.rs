//! Effects and replies as lines for people. Secrets appear as their length only.

use std::fmt::Write as _;

use moltbot_core::{
    Effect, Field, FieldKind, FileProblem, FileState, HostError, Level, Reply, Secret,
};

/// Writes what was asked, one line, or two if an answer was refused.
pub(crate) fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Ask { field, refused } => {
            let again = refused.as_ref().map_or(String::new(), |why| format!("\n  again: {why}"));
            format!("ask {}{again}", question(field))
        }
        Effect::Http { request } => {
            let names: Vec<_> = request.headers.iter().map(|(name, _)| name.as_ref()).collect();
            let body = request.body.as_ref().map_or("no body".to_string(), secret);
            format!("http {} {} [{}] {body}", request.method, request.url, names.join(", "))
        }
        Effect::Keyring { entry, put } => {
            let put = put.as_ref().map_or(String::new(), |put| format!(" < {}", secret(put)));
            format!("keyring {} {}{put}", entry.service, entry.account)
        }
        Effect::Now {} => "now".to_string(),
        Effect::Open { url } => format!("open {url}"),
        Effect::Read { file } => match &file.dir_env {
            Some(env) => format!("read {}/{} (or ${env})", file.dir, file.path),
            None => format!("read {}/{}", file.dir, file.path),
        },
        Effect::Run { run } => {
            let mut line = format!("run {}", run.program);
            run.args.iter().for_each(|arg| line = format!("{line} {arg}"));
            if run.terminal {
                line.push_str(" (terminal)");
            }
            for (name, value) in &run.env {
                let _ = write!(line, " {name}={}", secret(value));
            }
            if let Some(input) = &run.input {
                let _ = write!(line, " < {}", secret(input));
            }
            line
        }
        Effect::Tell { note } => format!("tell {}: {}", level(note.level), note.text),
        _ => "an effect of a newer version".to_string(),
    }
}

/// Writes what came back, one line.
pub(crate) fn outcome(outcome: &Result<Reply, HostError>) -> String {
    match outcome {
        Ok(Reply::Answer { value, typed }) => {
            format!("{}{}", secret(value), if *typed { ", typed" } else { "" })
        }
        Ok(Reply::Http { response }) => format!("{} {}", response.status, secret(&response.body)),
        Ok(Reply::Now { now }) => now.millis().to_string(),
        Ok(Reply::File { file }) => self::file(file),
        Ok(Reply::Ran { ran }) => {
            let exit = ran.exit.map_or("a signal".to_string(), |code| code.to_string());
            format!("exit {exit}, stdout {}, stderr {}", secret(&ran.stdout), secret(&ran.stderr))
        }
        Ok(Reply::Kept { secret: Some(kept) }) => secret(kept),
        Ok(Reply::Kept { secret: None }) => "no entry".to_string(),
        Ok(Reply::Done {}) => "done".to_string(),
        Ok(_) => "a reply of a newer version".to_string(),
        Err(error) => format!("! {error}"),
    }
}

fn question(field: &Field) -> String {
    let kind = match &field.kind {
        FieldKind::Secret {} => "secret",
        FieldKind::Text {} => "text",
        FieldKind::Duration {} => "duration",
        FieldKind::Confirm {} => "confirm",
        FieldKind::Select { .. } => "select",
        _ => "unknown",
    };
    let mut line = format!("{} ({kind}) \"{}\"", field.id, field.label);
    if let Some(flag) = &field.flag {
        let _ = write!(line, " --{flag}");
    }
    if let Some(env) = &field.env {
        let _ = write!(line, " ${env}");
    }
    if let Some(default) = &field.default {
        let _ = write!(line, " default {default}");
    }
    line
}

fn file(file: &FileState) -> String {
    let state = match (&file.content, &file.problem) {
        (Some(content), _) => secret(content),
        (None, Some(FileProblem::Absent {})) => "absent".to_string(),
        (None, Some(FileProblem::Unreadable { reason })) => format!("unreadable: {reason}"),
        (None, _) => "no text".to_string(),
    };
    let mut line = format!("{} {state}", file.shown);
    for (set, word) in [(file.symlink, "symlink"), (file.exposed, "exposed")] {
        if set {
            let _ = write!(line, ", {word}");
        }
    }
    line
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
    }
}

fn secret(secret: &Secret) -> String {
    format!("<secret {}>", secret.expose().chars().count())
}
