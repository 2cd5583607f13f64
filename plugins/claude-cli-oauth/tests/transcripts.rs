//! Login, resolving and renewing as scripts of effects, with the exact texts.

mod common;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use moltbot_core::*;
use moltbot_plugin_claude_cli_oauth::ClaudeCliOauth;
use moltbot_testkit::{ScriptedHost, block_on, leaks, login, offer};

#[test]
fn the_offer() {
    let offer = offer(&ClaudeCliOauth, &vendor(), "claude-cli");
    assert_eq!((&*offer.profile, &*offer.mode), ("anthropic:claude-cli", "oauth"));
    assert_eq!(offer.accepts, [CredentialKind::Oauth, CredentialKind::Token]);
    assert_eq!(offer.migrates_from, ["token"]);
    assert!(offer.caps.external && offer.caps.refresh && !offer.caps.interactive);
    assert_eq!(offer.payer, Payer::Subscription);
    assert!(offer.policy.unwrap().line.contains("the server may refuse"));
    assert!(ClaudeCliOauth.offers(&ProviderInfo::default()).is_empty());
    let settings = ClaudeCliOauth.settings().unwrap();
    assert_eq!(settings.key, "claudeCli");
    assert_eq!(settings.schema["properties"]["refresh"]["default"], "owner");
    assert_eq!(settings.schema["additionalProperties"], false);
}

/// Acceptance case 24, decision 5.
#[test]
fn a_login_becomes_a_link_without_any_secret() {
    for (text, kind) in [(LOGIN, "oauth"), (TOKEN_ONLY, "token")] {
        let host = with_file(text);
        let login = login(&ClaudeCliOauth, &host, &at_now()).unwrap();
        assert!(login.credential.is_link() && login.notes.is_empty());
        assert_eq!(
            serde_json::to_string(&Exposed(&login.credential)).unwrap(),
            format!(r#"{{"type":"{kind}","provider":"anthropic","source":"claude-cli"}}"#)
        );
        assert_eq!(host.count(), 1, "one read: {}", host.transcript());
    }
}

/// Spec L-14, acceptance case 26.
#[test]
fn no_login_headless() {
    let error = login(&ClaudeCliOauth, &ScriptedHost::new(), &at_now()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "No Claude Code CLI credentials found at ~/.claude/.credentials.json"
    );
    let error = login(&ClaudeCliOauth, &ScriptedHost::new(), &on_mac(false)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "No Claude Code CLI credentials found. Run interactive onboarding to approve Keychain access for \"Claude Code-credentials\"."
    );
}

#[test]
fn unusable_logins_are_refused_with_their_reason() {
    for (text, now, words) in [
        (LOGGED_OUT, END, "No Claude Code CLI credentials found at ~/.claude/.credentials.json: Claude Code is logged out: ~/.claude/.credentials.json holds empty tokens".to_string()),
        ("{}", END, "No Claude Code CLI credentials found at ~/.claude/.credentials.json: ~/.claude/.credentials.json holds no Claude Code login".into()),
        ("{", END, "~/.claude/.credentials.json is cut off or no JSON (line 1, column 1); run `claude` to log in again".into()),
        (TOKEN_ONLY, LATER, format!("the Claude Code login in ~/.claude/.credentials.json expired 3 h ago and has no refresh token; {THREE_WAYS}")),
    ] {
        let error = login(&ClaudeCliOauth, &with_file(text), &at(now)).unwrap_err();
        assert_eq!(error.to_string(), words);
    }
}

#[test]
fn an_expired_login_is_linked_and_its_renewal_announced() {
    let login = login(&ClaudeCliOauth, &with_file(LOGIN), &at(LATER)).unwrap();
    assert!(login.credential.is_link());
    assert_eq!(
        login.notes[0].text,
        "the Claude Code login in ~/.claude/.credentials.json expired 3 h ago; the next use renews it: `claude -p` runs once and asks its smallest model for one word, which counts against the plan's allowance for `claude -p`"
    );
}

#[test]
fn the_keychain_comes_first_where_somebody_can_approve_it() {
    let host = with_file("{}").answer("keychain", "true").program("security", |run| {
        assert_eq!(run.args, ["find-generic-password", "-s", "Claude Code-credentials", "-w"]);
        assert_eq!(run.timeout_ms, Some(5_000));
        Ok(Ran { stdout: Secret::new(format!("{LOGIN}\n")), ..ended(Some(0)) })
    });
    assert!(login(&ClaudeCliOauth, &host, &on_mac(true)).unwrap().credential.is_link());
    assert_eq!(resolve(&host, &on_mac(true), &link()).state, CredentialState::Ready);
    let before = host.count();
    assert_eq!(resolve(&host, &on_mac(false), &link()).state, CredentialState::Absent);
    assert_eq!(host.count() - before, 1, "headless: the file only");
}

#[test]
fn a_silent_keychain_leaves_the_file() {
    for answer in [
        Ok(ended(Some(44))),
        Ok(ended(Some(0))),
        Ok(ended(None)),
        Err(HostError::Timeout { ms: 5_000 }),
        Err(HostError::NotFound { what: "security".into() }),
    ] {
        let host = with_file(LOGIN).program("security", move |_| answer.clone());
        assert_eq!(resolve(&host, &on_mac(true), &link()).state, CredentialState::Ready);
    }
    let host = with_file(LOGIN).answer("keychain", "false");
    assert!(login(&ClaudeCliOauth, &host, &on_mac(true)).unwrap().credential.is_link());
    let torn = ScriptedHost::new().ran("security", 0, "{");
    let detail = resolve(&torn, &on_mac(true), &link()).detail.unwrap();
    assert!(
        detail.starts_with("the Keychain item \"Claude Code-credentials\" is cut off"),
        "{detail}"
    );
}

#[test]
fn a_headless_mac_says_that_it_did_not_look() {
    let detail = resolve(&ScriptedHost::new(), &on_mac(false), &link()).detail.unwrap();
    assert!(detail.ends_with("the Keychain was not asked because nobody is there to approve it"));
}

#[test]
fn expiry_is_judged_at_the_start_of_the_call() {
    for (now, state) in [
        (END.plus(-1), CredentialState::Ready),
        (END, CredentialState::Expired),
        (LATER, CredentialState::Expired),
    ] {
        assert_eq!(resolve(&with_file(LOGIN), &at(now), &link()).state, state);
    }
    let resolved = resolve(&with_file(LOGIN), &at(LATER), &link());
    assert_eq!(
        resolved.detail.as_deref(),
        Some("the Claude Code login in ~/.claude/.credentials.json expired 3 h ago")
    );
}

/// Acceptance case 29: nothing is remembered between two reads.
#[test]
fn a_login_made_a_moment_ago_is_seen() {
    let reads = AtomicUsize::new(0);
    let host = ScriptedHost::new().files_by(move |_| {
        let first = reads.fetch_add(1, Ordering::Relaxed) == 0;
        Some(state_of(if first { LOGGED_OUT } else { LOGIN }))
    });
    assert_eq!(resolve(&host, &at_now(), &link()).state, CredentialState::LoggedOut);
    assert_eq!(resolve(&host, &at_now(), &link()).state, CredentialState::Ready);
}

#[test]
fn the_generation_follows_the_owners_token() {
    let first = resolve(&with_file(LOGIN), &at_now(), &link()).generation;
    assert_eq!(resolve(&with_file(LOGIN), &at(LATER), &link()).generation, first);
    let renewed = LOGIN.replace("FAKEaccess", "FAKEsecond");
    assert_ne!(resolve(&with_file(&renewed), &at_now(), &link()).generation, first);
}

/// Decision 5 on stores of older versions.
#[test]
fn a_copy_gives_way_to_a_live_login_that_is_as_new() {
    for expires in [END, END.plus(-1), Timestamp::from_millis(0)] {
        let resolved = resolve(&with_file(LOGIN), &at_now(), &copy(expires));
        assert_eq!(resolved.credential.source.as_deref(), Some("claude-cli"));
        assert!(resolved.credential.refresh.is_none() && resolved.detail.is_none());
    }
}

#[test]
fn a_copy_is_judged_by_itself_otherwise() {
    for (text, reason) in [
        (LOGIN, "the login in ~/.claude/.credentials.json is older"),
        (LOGGED_OUT, "Claude Code is logged out: ~/.claude/.credentials.json holds empty tokens"),
    ] {
        let stored = copy(END.plus(1));
        let resolved = resolve(&with_file(text), &at_now(), &stored);
        assert_eq!(resolved.credential, stored);
        assert_eq!(resolved.state, CredentialState::Ready);
        let detail =
            format!("an old copy of a Claude Code login, judged by itself because {reason}");
        assert_eq!(resolved.detail, Some(detail));
    }
}

/// Decision 5: `owner` lets `claude` run, `off` names the three ways out (A-22, A-25).
#[test]
fn what_renewing_means() {
    let expired = resolve(&with_file(LOGIN), &at(LATER), &link()).credential;
    let token = resolve(&with_file(TOKEN_ONLY), &at(LATER), &link()).credential;
    let settings = |policy: Option<&str>, force| RenewSettings {
        policy: policy.map(Into::into),
        force,
        ..RenewSettings::default()
    };
    let renew = |policy, force, old: &Credential, now| {
        ClaudeCliOauth.renew(&settings(policy, force), old, now)
    };
    assert_eq!(renew(None, false, &expired, END.plus(-1)), Ok(Renewal::NotDue {}));
    assert_eq!(renew(None, false, &expired, END), Ok(Renewal::Run {}));
    assert_eq!(renew(Some("owner"), false, &expired, LATER), Ok(Renewal::Run {}));
    assert_eq!(renew(Some("owner"), true, &expired, END.plus(-1)), Ok(Renewal::Run {}));
    assert_eq!(renew(Some("off"), true, &expired, END.plus(-1)), Ok(Renewal::NotDue {}));
    assert_eq!(
        renew(Some("off"), false, &expired, LATER).unwrap_err().to_string(),
        format!(
            "the Claude Code login has expired and auth.claudeCli.refresh is \"off\"; {THREE_WAYS}"
        )
    );
    assert_eq!(
        renew(None, false, &token, LATER).unwrap_err().to_string(),
        format!("the Claude Code login has expired and has no refresh token; {THREE_WAYS}")
    );
}

/// A machine with `claude` on it: the file, and what a run leaves in it.
fn machine(
    before: &str,
    outcome: Result<Ran, HostError>,
    after: &str,
) -> (ScriptedHost, Arc<Mutex<Vec<Run>>>) {
    let file = Arc::new(Mutex::new(before.to_string()));
    let runs = Arc::new(Mutex::new(Vec::new()));
    let (read, write, log, after) = (file.clone(), file, runs.clone(), after.to_string());
    let host = ScriptedHost::new()
        .clock(LATER)
        .files_by(move |_| Some(state_of(&read.lock().expect("no panic elsewhere"))))
        .program("claude", move |run| {
            log.lock().expect("no panic elsewhere").push(run.clone());
            write.lock().expect("no panic elsewhere").clone_from(&after);
            outcome.clone()
        });
    (host, runs)
}

fn state_of(text: &str) -> FileState {
    FileState {
        shown: FILE.into(),
        content: Some(Secret::new(text)),
        problem: None,
        symlink: false,
        exposed: false,
        modified: None,
    }
}

/// The login after the owner renewed it at `LATER`.
fn renewed() -> String {
    LOGIN.replace("FAKEaccess", "FAKEsecond").replace("1790028800000", "1790068400000")
}

#[test]
fn the_owner_renews_by_one_cheap_run() {
    let (host, runs) = machine(LOGIN, Ok(ended(Some(0))), &renewed());
    let credential = refresh(&host, &at(LATER)).unwrap();
    assert!(credential.access.unwrap().expose().contains("FAKEsecond"));
    assert!(credential.refresh.is_none());
    let runs = runs.lock().expect("no panic elsewhere");
    assert_eq!(runs.len(), 1);
    assert_eq!(
        runs[0].args.join(" "),
        "-p ok --model haiku --system-prompt Answer with the word ok. --no-session-persistence --strict-mcp-config --setting-sources  --tools "
    );
    assert_eq!(runs[0].timeout_ms, Some(60_000));
    assert!(!runs[0].terminal && runs[0].env.is_empty());
    assert!(runs[0].input.as_ref().is_some_and(Secret::is_blank), "its input is closed");
}

/// `claude` can fail at the question and yet have renewed: the login decides.
#[test]
fn a_failed_question_after_a_renewal_does_not_matter() {
    for outcome in [Ok(ended(Some(1))), Ok(ended(None)), Err(HostError::Timeout { ms: 60_000 })] {
        let (host, _) = machine(LOGIN, outcome, &renewed());
        assert!(refresh(&host, &at(LATER)).is_ok());
    }
}

#[test]
fn somebody_else_renewed_meanwhile() {
    let (host, runs) = machine(&renewed(), Ok(ended(Some(0))), LOGGED_OUT);
    assert!(refresh(&host, &at(LATER)).is_ok());
    assert!(runs.lock().expect("no panic elsewhere").is_empty());
}

#[test]
fn what_comes_of_a_run_that_did_not_renew() {
    let login = "the Claude Code login in ~/.claude/.credentials.json expired 3 h ago";
    for (outcome, after, again, words) in [
        (
            Ok(ended(Some(0))),
            LOGIN,
            true,
            format!("{login}, and `claude` ran without renewing it; {THREE_WAYS}"),
        ),
        (
            Ok(ended(Some(1))),
            LOGIN,
            true,
            format!("{login}, and `claude` failed to renew it (exit code 1); {THREE_WAYS}"),
        ),
        (
            Ok(ended(None)),
            LOGIN,
            false,
            format!("{login}, and `claude` was killed while renewing it"),
        ),
        (
            Err(HostError::Timeout { ms: 60_000 }),
            LOGIN,
            false,
            format!("{login}, and `claude` did not renew it: timed out after 60000 ms"),
        ),
        (
            Err(HostError::NotFound { what: "claude".into() }),
            LOGIN,
            true,
            format!(
                "{login}, and `claude`, which could renew it, is not installed here; {THREE_WAYS}"
            ),
        ),
        (
            Ok(ended(Some(1))),
            LOGGED_OUT,
            true,
            format!(
                "Claude Code logged out when it tried to renew its login: its refresh token is not accepted any more; {THREE_WAYS}"
            ),
        ),
        (
            Ok(ended(None)),
            "{\"claude",
            false,
            "~/.claude/.credentials.json is cut off or no JSON (line 1, column 8)".into(),
        ),
    ] {
        let (host, runs) = machine(LOGIN, outcome, after);
        let error = refresh(&host, &at(LATER)).unwrap_err();
        assert_eq!(error.to_string(), words);
        assert_eq!(matches!(error, AuthError::LoginAgain { .. }), again, "{words}");
        assert_eq!(matches!(error, AuthError::Transient { .. }), !again, "{words}");
        assert_eq!(runs.lock().expect("no panic elsewhere").len(), 1, "never twice");
    }
}

#[test]
fn nothing_is_run_where_it_cannot_help() {
    for (before, call, again) in [
        (LOGGED_OUT, at(LATER), true),
        ("{}", at(LATER), true),
        (TOKEN_ONLY, at(LATER), true),
        (LOGIN, switched_off(LATER), true),
        ("{", at(LATER), false),
    ] {
        let (host, runs) = machine(before, Ok(ended(Some(0))), &renewed());
        let error = refresh(&host, &call).unwrap_err();
        assert_eq!(matches!(error, AuthError::LoginAgain { .. }), again, "{error}");
        assert!(runs.lock().expect("no panic elsewhere").is_empty(), "{error}");
    }
}

/// What `claude` prints may hold anything; none of it is repeated.
#[test]
fn the_programs_output_is_not_shown() {
    let noise = Secret::new("error: token CANARYCANARYCANARY refused");
    let outcome = Ran { exit: Some(1), stdout: noise.clone(), stderr: noise };
    let (host, _) = machine(LOGIN, Ok(outcome), LOGIN);
    let error = format!("{0:?} {0}", refresh(&host, &at(LATER)).unwrap_err());
    assert!(!leaks(&error, "CANARYCANARYCANARY"), "{error}");
}

#[test]
fn cancelling_anywhere_ends_everything() {
    let (whole, _) = machine(LOGIN, Ok(ended(Some(0))), &renewed());
    refresh(&whole, &at(LATER)).unwrap();
    for n in 0..whole.count() {
        let (host, _) = machine(LOGIN, Ok(ended(Some(0))), &renewed());
        let result = refresh(&host.cancel_at(n), &at(LATER));
        assert_eq!(result, Err(AuthError::Cancelled {}), "at effect {n}");
    }
    let mac = || with_file(LOGIN).answer("keychain", "true").ran("security", 0, LOGIN);
    for n in 0..3 {
        let result = login(&ClaudeCliOauth, &mac().cancel_at(n), &on_mac(true));
        assert_eq!(result, Err(AuthError::Cancelled {}), "at effect {n}");
    }
    let call = on_mac(true);
    let host = mac().cancel_at(0);
    let resolved = block_on(ClaudeCliOauth.resolve(&Cx::new(&host, &call), &link()));
    assert_eq!(resolved, Err(AuthError::Cancelled {}));
}
