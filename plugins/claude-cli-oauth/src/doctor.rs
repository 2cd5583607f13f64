//! What `moltbot doctor` says about the link.

use moltbot_core::{AuthError, Credential, Cx, Finding, Level, Run};

use crate::login_file::LoginFile;
use crate::{is_copy, offer, owner};

/// Checks the owner's login, its file, the stored profiles and the owner's program. Says nothing
/// to who does not use the link.
pub(crate) async fn check(cx: &Cx<'_>, stored: &[Credential]) -> Result<Vec<Finding>, AuthError> {
    if stored.is_empty() {
        return Ok(Vec::new());
    }
    let reading = owner::read(cx, owner::may_ask_keychain(cx)).await?;
    let runs = !offer::policy_is_off(&cx.settings);
    let words = reading.words(cx.now);
    let mut findings = Vec::new();

    match &reading.file {
        LoginFile::Login(login) if !login.is_expired(cx.now) => {}
        LoginFile::Login(login) if login.renewable && runs => {
            let text = format!("{words}; the next use renews it: {}", offer::COST);
            findings.push(finding(Level::Info, text, Some("run `claude` to renew it now")));
        }
        LoginFile::Absent if reading.keychain_skipped => {
            let fix = "run `moltbot models status` in a terminal to look in the Keychain";
            findings.push(finding(Level::Warning, words.clone(), Some(fix)));
        }
        _ => findings.push(finding(Level::Error, words.clone(), Some(offer::WAYS_OUT))),
    }
    if reading.symlink {
        let text = format!(
            "{} is a symbolic link; Claude Code replaces it by a file when it renews",
            reading.path
        );
        findings.push(finding(Level::Warning, text, None));
    }
    if reading.exposed {
        let text = format!("{} can be read by other users", reading.path);
        let fix = format!("chmod 600 {}", reading.path);
        findings.push(finding(Level::Warning, text, Some(&fix)));
    }

    // A copy that the live login supersedes becomes a link; the host says and does so.
    for _ in stored.iter().filter(|stored| is_copy(stored) && !reading.supersedes(stored)) {
        let text = format!(
            "a stored profile holds a copy of a Claude Code login and stays one, because {}",
            reading.why_not_newer(cx.now)
        );
        let fix = "run `claude` and log in; `moltbot doctor --fix` then makes it a link";
        findings.push(finding(Level::Warning, text, Some(fix)));
    }
    if stored.len() > 1 {
        let text = format!("{} profiles use the same Claude Code login", stored.len());
        let fix = "keep one: `moltbot models auth order set` names the ones to use";
        findings.push(finding(Level::Warning, text, Some(fix)));
    }
    if runs && !claude_is_installed(cx).await? {
        let text = "`claude` is not installed here, so an expired login cannot be renewed";
        let fix = "install Claude Code, or set auth.claudeCli.refresh to \"off\"";
        findings.push(finding(Level::Warning, text, Some(fix)));
    }
    Ok(findings)
}

async fn claude_is_installed(cx: &Cx<'_>) -> Result<bool, AuthError> {
    let run = Run {
        program: offer::PROGRAM.into(),
        args: vec!["--version".into()],
        env: Vec::new(),
        input: None,
        terminal: false,
        timeout_ms: Some(5_000),
    };
    match cx.run(run).await {
        Err(AuthError::NotFound { .. }) => Ok(false),
        Err(AuthError::Cancelled {}) => Err(AuthError::Cancelled {}),
        // It is there; whether it works shows when it is needed.
        _ => Ok(true),
    }
}

fn finding(level: Level, text: impl Into<String>, fix: Option<&str>) -> Finding {
    Finding { level, text: text.into(), fix: fix.map(Into::into) }
}
