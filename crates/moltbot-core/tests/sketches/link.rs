//! A link: somebody else owns the login, it is read live and renewed by its owner only.

use std::sync::atomic::{AtomicUsize, Ordering};

use moltbot_core::*;
use serde_json::Value;

use crate::support::{NOW, World, block_on, call, exposed_wire, file, provider, wire};

struct Link;

fn login_file() -> FileRef {
    FileRef { dir_env: Some("ACME_HOME".into()), dir: "~/.acme".into(), path: "login.json".into() }
}

/// What the owner's file says.
fn read_login(file: &FileState, now: Timestamp) -> Resolved {
    let mut credential = Credential::link(CredentialKind::Oauth, "acme", "acme-tool");
    let verdict = |credential: Credential, state, detail: Option<&str>| Resolved {
        generation: Generation::of(&credential),
        credential,
        state,
        detail: detail.map(String::from),
    };
    let Some(content) = &file.content else {
        return match &file.problem {
            Some(FileProblem::Absent {}) => verdict(credential, CredentialState::Absent, None),
            _ => verdict(credential, CredentialState::Unreadable, Some("cannot be read")),
        };
    };
    let Ok(login) = serde_json::from_str::<Value>(content.expose()) else {
        return verdict(credential, CredentialState::Unreadable, Some("is not JSON"));
    };
    let Some(access) = login["access"].as_str().filter(|text| !text.is_empty()) else {
        return verdict(credential, CredentialState::LoggedOut, None);
    };
    credential.access = Some(Secret::new(access));
    credential.expires = login["expires"].as_i64().map(Timestamp::from_millis);
    Resolved::judged(credential, now)
}

#[async_trait]
impl AuthMethod for Link {
    fn id(&self) -> &str {
        "link"
    }

    fn offers(&self, provider: &ProviderInfo) -> Vec<Offer> {
        vec![Offer {
            choice: "acme-tool".into(),
            label: "The login of acme-tool".into(),
            profile: format!("{}:tool", provider.id).into(),
            kind: CredentialKind::Oauth,
            mode: "oauth".into(),
            accepts: vec![CredentialKind::Oauth, CredentialKind::Token],
            migrates_from: vec!["token".into()],
            caps: AuthCaps { external: true, refresh: true, ..AuthCaps::default() },
            needs: Needs {
                files: vec![login_file()],
                programs: vec!["acme-tool".into()],
                ..Needs::default()
            },
            policy: Some(Policy {
                line: "Acme wants its tool to be used".into(),
                source: "https://acme.example/terms".into(),
                checked: "2026-09-21".into(),
            }),
            payer: Payer::Subscription,
            ..Offer::default()
        }]
    }

    fn settings(&self) -> Option<SettingsSpec> {
        let schema = serde_json::json!({"type": "object", "properties": {"refresh": {"enum": ["owner", "off"]}}});
        Some(SettingsSpec { key: "acmeTool".into(), schema })
    }

    async fn login(&self, cx: &Cx<'_>) -> Result<Login, AuthError> {
        let found = read_login(&cx.read(login_file()).await?, cx.now);
        if matches!(found.state, CredentialState::Absent | CredentialState::LoggedOut) {
            let message = "acme-tool is not logged in; run `acme-tool login`".to_string();
            return Err(AuthError::NotFound { message });
        }
        Ok(Login::new(Credential::link(CredentialKind::Oauth, "acme", "acme-tool")))
    }

    async fn resolve(&self, cx: &Cx<'_>, _: &Credential) -> Result<Resolved, AuthError> {
        Ok(read_login(&cx.read(login_file()).await?, cx.now))
    }

    fn renew(
        &self,
        settings: &RenewSettings,
        old: &Credential,
        now: Timestamp,
    ) -> Result<Renewal, AuthError> {
        if !old.is_expired(now) && !settings.force {
            return Ok(Renewal::NotDue {});
        }
        match settings.policy.as_deref() {
            Some("off") => Err(AuthError::LoginAgain {
                reason: "the login of acme-tool is expired".into(),
                hint: "run `acme-tool login`".into(),
            }),
            _ => Ok(Renewal::Run {}),
        }
    }

    async fn refresh(&self, cx: &Cx<'_>, old: &Credential) -> Result<Credential, AuthError> {
        let run = Run {
            program: "acme-tool".into(),
            args: vec!["whoami".into()],
            env: Vec::new(),
            input: None,
            terminal: false,
            timeout_ms: Some(20_000),
        };
        let ran = cx.run(run).await?;
        let found = read_login(&cx.read(login_file()).await?, cx.clock().await?);
        if found.state == CredentialState::Ready && found.generation != Generation::of(old) {
            return Ok(found.credential);
        }
        let exit = ran.exit.map_or("a signal".to_string(), |code| format!("exit {code}"));
        Err(AuthError::Transient { reason: format!("acme-tool did not renew its login ({exit})") })
    }

    async fn doctor(&self, cx: &Cx<'_>, stored: &[Credential]) -> Result<Vec<Finding>, AuthError> {
        let linked = stored.iter().any(Credential::is_link);
        let found = read_login(&cx.read(login_file()).await?, cx.now);
        Ok((linked && found.state == CredentialState::Absent)
            .then(|| Finding {
                level: Level::Warning,
                text: "a profile points at a login of acme-tool that is gone".into(),
                fix: Some("acme-tool login".into()),
            })
            .into_iter()
            .collect())
    }
}

fn resolve(content: Option<&str>) -> Resolved {
    let host = World::new(|effect| {
        assert_eq!(effect, Effect::Read { file: login_file() });
        Ok(file(content))
    });
    let call = call("acme-tool", Vec::new());
    let stored = Credential::link(CredentialKind::Oauth, "acme", "acme-tool");
    exposed_wire(block_on(Link.resolve(&Cx::new(&host, &call), &stored)).unwrap())
}

const SOUND: &str = r#"{"access":"FAKE-1","refresh":"FAKE-R","expires":1790000000001}"#;

#[test]
fn every_state_of_the_owner_is_told_apart() {
    for (content, state) in [
        (Some(SOUND), CredentialState::Ready),
        (Some(r#"{"access":"FAKE-1","expires":1790000000000}"#), CredentialState::Expired),
        (Some(r#"{"access":"","expires":0}"#), CredentialState::LoggedOut),
        (Some("{"), CredentialState::Unreadable),
        (None, CredentialState::Absent),
    ] {
        assert_eq!(resolve(content).state, state, "{content:?}");
    }
}

#[test]
fn a_link_stores_no_secret_and_hands_out_no_refresh_token() {
    let host = World::new(|_| Ok(file(Some(SOUND))));
    let call = call("acme-tool", Vec::new());
    let login = exposed_wire(block_on(Link.login(&Cx::new(&host, &call))).unwrap());
    let text = serde_json::to_string(&Exposed(&login.credential)).unwrap();
    assert_eq!(text, r#"{"type":"oauth","provider":"acme","source":"acme-tool"}"#);
    assert!(login.credential.is_link());
    let resolved = resolve(Some(SOUND));
    assert!(resolved.credential.refresh.is_none() && resolved.credential.secret().is_some());
    assert!(!resolved.credential.is_link(), "resolved, it holds an access token");
    assert_ne!(resolved.generation, resolve(Some(&SOUND.replace("-1", "-2"))).generation);
}

#[test]
fn the_owner_renews_and_is_read_again() {
    let runs = AtomicUsize::new(0);
    let host = World::new(|effect| match effect {
        Effect::Run { run } => {
            assert_eq!((run.program.as_ref(), run.terminal), ("acme-tool", false));
            runs.fetch_add(1, Ordering::Relaxed);
            Ok(Reply::Ran {
                ran: Ran {
                    exit: Some(0),
                    stdout: "FAKE".to_string().into(),
                    stderr: Secret::default(),
                },
            })
        }
        Effect::Read { .. } => Ok(file(Some(SOUND))),
        Effect::Now {} => Ok(Reply::Now { now: NOW }),
        other => panic!("{other:?}"),
    });
    let call = call("acme-tool", Vec::new());
    let mut old = resolve(Some(SOUND)).credential;
    let cx = Cx::new(&host, &call);
    let unchanged = wire(block_on(Link.refresh(&cx, &old)).unwrap_err());
    assert!(matches!(unchanged, AuthError::Transient { .. }), "the same token is no renewal");
    old.access = Some(Secret::new("FAKE-0"));
    old.expires = Some(NOW);
    let settings = |policy: &str| {
        wire(RenewSettings { policy: Some(policy.into()), ..RenewSettings::default() })
    };
    assert_eq!(exposed_wire(Link.renew(&settings("owner"), &old, NOW).unwrap()), Renewal::Run {});
    assert!(matches!(Link.renew(&settings("off"), &old, NOW), Err(AuthError::LoginAgain { .. })));
    let new = block_on(Link.refresh(&cx, &old)).unwrap();
    assert_eq!(new.access, Some(Secret::new("FAKE-1")));
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}

#[test]
fn a_dangling_link_is_found() {
    let host = World::new(|_| Ok(file(None)));
    let call = call("acme-tool", Vec::new());
    let stored = [Credential::link(CredentialKind::Oauth, "acme", "acme-tool")];
    let findings = wire(block_on(Link.doctor(&Cx::new(&host, &call), &stored)).unwrap());
    assert_eq!(findings.len(), 1);
    assert!(block_on(Link.doctor(&Cx::new(&host, &call), &[])).unwrap().is_empty());
    wire(Link.offers(&provider()));
    wire(Link.settings());
}
