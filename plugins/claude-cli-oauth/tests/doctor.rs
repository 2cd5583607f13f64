//! What `moltbot doctor` says about the link.

mod common;

use common::*;
use moltbot_core::{FileState, Finding, Level, Secret};
use moltbot_testkit::ScriptedHost;

fn told(findings: &[Finding]) -> Vec<(Level, &str)> {
    findings.iter().map(|finding| (finding.level, finding.text.as_str())).collect()
}

#[test]
fn nothing_is_said_or_looked_at_without_a_profile() {
    let host = with_file(LOGGED_OUT);
    assert!(doctor(&host, &at_now(), &[]).is_empty());
    assert_eq!(host.count(), 0);
}

#[test]
fn a_healthy_link_is_not_worth_a_word() {
    let host = with_file(LOGIN).ran("claude", 0, "2.1.197 (Claude Code)");
    assert!(doctor(&host, &at_now(), &[link()]).is_empty());
}

#[test]
fn what_is_wrong_with_the_login() {
    for (text, call, level, words) in [
        (
            LOGIN,
            at(LATER),
            Level::Info,
            "expired 3 h ago; the next use renews it: `claude -p` runs once",
        ),
        (LOGIN, switched_off(LATER), Level::Error, "expired 3 h ago"),
        (TOKEN_ONLY, at(LATER), Level::Error, "has no refresh token"),
        (LOGGED_OUT, at_now(), Level::Error, "Claude Code is logged out"),
        ("{}", at_now(), Level::Error, "holds no Claude Code login"),
        ("{", at_now(), Level::Error, "is cut off or no JSON"),
        ("[]", at_now(), Level::Error, "is not as Claude Code writes it"),
    ] {
        let host = with_file(text).ran("claude", 0, "");
        let findings = doctor(&host, &call, &[link()]);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].level, level);
        assert!(findings[0].text.contains(words), "{findings:?}");
        assert!(findings[0].fix.is_some());
    }
    let findings = doctor(&ScriptedHost::new().ran("claude", 0, ""), &on_mac(false), &[link()]);
    assert_eq!(findings[0].level, Level::Warning, "a headless Mac cannot tell");
}

#[test]
fn what_is_odd_about_the_file() {
    let state = FileState {
        shown: FILE.into(),
        content: Some(Secret::new(LOGIN)),
        problem: None,
        symlink: true,
        exposed: true,
        modified: None,
    };
    let host = ScriptedHost::new().file_state(FILE, state).ran("claude", 0, "");
    let findings = doctor(&host, &at_now(), &[link()]);
    assert_eq!(
        told(&findings),
        [
            (
                Level::Warning,
                "~/.claude/.credentials.json is a symbolic link; Claude Code replaces it by a file when it renews"
            ),
            (Level::Warning, "~/.claude/.credentials.json can be read by other users"),
        ]
    );
    assert_eq!(findings[1].fix.as_deref(), Some("chmod 600 ~/.claude/.credentials.json"));
}

#[test]
fn copies_and_duplicates_are_named() {
    let host = with_file(LOGIN).ran("claude", 0, "");
    let stored = [copy(END), copy(END.plus(1)), link()];
    assert_eq!(
        told(&doctor(&host, &at_now(), &stored)),
        [
            (
                Level::Warning,
                "a stored profile holds a copy of a Claude Code login and stays one, because the login in ~/.claude/.credentials.json is older"
            ),
            (Level::Warning, "3 profiles use the same Claude Code login"),
        ]
    );
}

#[test]
fn a_missing_program_matters_only_if_it_would_run() {
    let missing = "`claude` is not installed here, so an expired login cannot be renewed";
    let findings = doctor(&with_file(LOGIN), &at_now(), &[link()]);
    assert_eq!(told(&findings), [(Level::Warning, missing)]);
    let host = with_file(LOGIN);
    assert!(doctor(&host, &switched_off(END.plus(-1)), &[link()]).is_empty());
    assert_eq!(host.count(), 1, "only the file is looked at");
}
