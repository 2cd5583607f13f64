//! Every shape of the owner's file, as files of `fixtures/`: what it counts as and what is said.

mod common;

use std::path::Path;

use common::{END, FILE, at_now, link, resolve, with_file};
use moltbot_core::{CredentialKind, CredentialState, Exposed, FileProblem, FileState, Secret};
use moltbot_plugin_claude_cli_oauth::LoginFile;
use moltbot_testkit::{ScriptedHost, leaks};

/// File, state, and the detail after the path; `None` where nothing is to be said.
const SHAPES: [(&str, CredentialState, Option<&str>); 27] = {
    use CredentialState::{Absent, LoggedOut, Ready, Unreadable};
    let logged_out = Some("Claude Code is logged out: PATH holds empty tokens");
    let stub = Some("PATH holds no Claude Code login");
    [
        ("blank-access", LoggedOut, logged_out),
        ("empty-refresh", Ready, None),
        ("expires-zero", LoggedOut, logged_out),
        (
            "foreign-access-lines",
            Unreadable,
            Some("PATH is not as Claude Code writes it: claudeAiOauth.accessToken is no token"),
        ),
        (
            "foreign-access-number",
            Unreadable,
            Some("PATH is not as Claude Code writes it: claudeAiOauth.accessToken is no text"),
        ),
        (
            "foreign-array",
            Unreadable,
            Some("PATH is not as Claude Code writes it: it is JSON, but no object"),
        ),
        (
            "foreign-expiry-text",
            Unreadable,
            Some("PATH is not as Claude Code writes it: claudeAiOauth.expiresAt is no number"),
        ),
        (
            "foreign-login",
            Unreadable,
            Some("PATH is not as Claude Code writes it: claudeAiOauth is no object"),
        ),
        (
            "foreign-no-access",
            Unreadable,
            Some("PATH is not as Claude Code writes it: claudeAiOauth.accessToken is missing"),
        ),
        (
            "foreign-no-expiry",
            Unreadable,
            Some("PATH is not as Claude Code writes it: claudeAiOauth.expiresAt is missing"),
        ),
        (
            "foreign-refresh-list",
            Unreadable,
            Some("PATH is not as Claude Code writes it: claudeAiOauth.refreshToken is no text"),
        ),
        (
            "foreign-text",
            Unreadable,
            Some("PATH is not as Claude Code writes it: it is JSON, but no object"),
        ),
        ("fraction", Ready, None),
        ("logged-out", LoggedOut, logged_out),
        ("login", Ready, None),
        ("mcp-only", Absent, stub),
        ("others-too", Ready, None),
        ("stub", Absent, stub),
        ("stub-inner", Absent, stub),
        ("stub-null", Absent, stub),
        ("token-only", Ready, None),
        ("torn-bare", Unreadable, Some("PATH is cut off or no JSON (line 1, column 1)")),
        ("torn-empty", Unreadable, Some("PATH is cut off or no JSON (line 1, column 0)")),
        ("torn-end", Unreadable, Some("PATH is cut off or no JSON (line 1, column 286)")),
        ("torn-nul", Unreadable, Some("PATH is cut off or no JSON (line 1, column 18)")),
        ("torn-start", Unreadable, Some("PATH is cut off or no JSON (line 1, column 63)")),
        ("torn-twice", Unreadable, Some("PATH is cut off or no JSON (line 1, column 289)")),
    ]
};

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.json"));
    std::fs::read_to_string(path).expect("a fixture")
}

#[test]
fn every_shape_has_its_own_words() {
    for (name, state, detail) in SHAPES {
        let text = fixture(name);
        let host = with_file(&text);
        let resolved = resolve(&host, &at_now(), &link());
        assert_eq!(resolved.state, state, "{name}");
        let detail = detail.map(|detail| detail.replace("PATH", FILE));
        assert_eq!(resolved.detail, detail, "{name}");
        let ready = state == CredentialState::Ready;
        assert_eq!(resolved.credential.secret().is_some(), ready, "{name}");
        for canary in host.canaries() {
            assert!(!leaks(&format!("{resolved:?}"), &canary), "{name}");
        }
    }
}

#[test]
fn no_fixture_is_forgotten() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut files: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let mut known = SHAPES.map(|(name, ..)| format!("{name}.json"));
    known.sort();
    assert_eq!(files, known);
}

#[test]
fn nothing_else_of_the_owners_comes_along() {
    for name in ["login", "others-too"] {
        let resolved = resolve(&with_file(&fixture(name)), &at_now(), &link());
        let shown = serde_json::to_string(&Exposed(&resolved.credential)).unwrap();
        for gone in ["FAKErefresh", "FAKE-mcp", "FAKE-id-token", "scopes", "max"] {
            assert!(!shown.contains(gone), "{name}: {gone}");
        }
        assert!(resolved.credential.refresh.is_none() && resolved.credential.rest.is_empty());
        assert_eq!(resolved.credential.expires, Some(END));
        assert_eq!(resolved.credential.source.as_deref(), Some("claude-cli"));
    }
}

/// Acceptance case 25.
#[test]
fn without_a_refresh_token_it_is_a_token() {
    for name in ["token-only", "empty-refresh", "fraction"] {
        let credential = resolve(&with_file(&fixture(name)), &at_now(), &link()).credential;
        assert_eq!(credential.kind, CredentialKind::Token, "{name}");
        assert_eq!(credential.expires, Some(END), "{name}");
        assert!(credential.token.is_some() && credential.access.is_none(), "{name}");
    }
}

#[test]
fn a_file_that_is_cut_anywhere_is_never_a_login() {
    let text = fixture("login");
    for end in 0..text.len() {
        let cut = LoginFile::parse(&text[..end]);
        assert!(matches!(cut, LoginFile::Torn { .. }), "cut at {end}: {cut:?}");
    }
}

#[test]
fn absent_and_unreadable_files_differ() {
    let resolved = resolve(&ScriptedHost::new(), &at_now(), &link());
    assert_eq!(resolved.state, CredentialState::Absent);
    assert_eq!(resolved.detail, Some(format!("there is no {FILE}")));
    let reason = "Permission denied".to_string();
    let host = ScriptedHost::new().file_problem(FILE, FileProblem::Unreadable { reason });
    let resolved = resolve(&host, &at_now(), &link());
    assert_eq!(resolved.state, CredentialState::Unreadable);
    assert_eq!(resolved.detail, Some(format!("{FILE} cannot be read: Permission denied")));
}

#[test]
fn odd_files_are_used_and_named() {
    let state = FileState {
        shown: FILE.into(),
        content: Some(Secret::new(fixture("login"))),
        problem: None,
        symlink: true,
        exposed: true,
        modified: None,
    };
    let resolved = resolve(&ScriptedHost::new().file_state(FILE, state), &at_now(), &link());
    assert_eq!(resolved.state, CredentialState::Ready);
    let detail = format!("{FILE} is a symbolic link; {FILE} can be read by other users");
    assert_eq!(resolved.detail, Some(detail));
}
