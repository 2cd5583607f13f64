//! The host does what an offer declares, and nothing else.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::Arc;

use moltbot_core::*;
use moltbot_gateway::{EffectHost, HostParts, Keyring, Silent, SystemClock, Vars};
use tempfile::TempDir;

use crate::stage::block_on;

struct Place {
    dir: TempDir,
    parts: HostParts,
}

fn place(vars: &[(&str, &str)]) -> Place {
    let dir = tempfile::tempdir().unwrap();
    let mut known: Vec<(String, String)> =
        vars.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    known.push(("PATH".into(), format!("bin:{}:/usr/bin:/bin", dir.path().display())));
    let vars: Vars = Arc::new(move |name| {
        known.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    });
    let home = Some(dir.path().to_path_buf());
    let parts = HostParts::new(vars, home, Arc::new(Silent), Arc::new(SystemClock));
    Place { dir, parts }
}

fn perform(place: &Place, needs: &Needs, effect: Effect) -> Result<Reply, HostError> {
    block_on(EffectHost::new(&place.parts, needs).perform(effect))
}

fn file(dir_env: Option<&'static str>, dir: &'static str, path: &'static str) -> FileRef {
    FileRef { dir_env: dir_env.map(Into::into), dir: dir.into(), path: path.into() }
}

fn read(place: &Place, file: &FileRef) -> Result<FileState, HostError> {
    let needs = Needs { files: vec![file.clone()], ..Needs::default() };
    match perform(place, &needs, Effect::Read { file: file.clone() })? {
        Reply::File { file } => Ok(file),
        other => panic!("{other:?}"),
    }
}

fn script(place: &Place, name: &str, text: &str) {
    let path = place.dir.path().join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn run_of(program: &str) -> Run {
    Run {
        program: program.to_string().into(),
        args: vec![],
        env: vec![],
        input: None,
        terminal: false,
        timeout_ms: None,
    }
}

fn run(place: &Place, run: Run) -> Result<Ran, HostError> {
    let needs = Needs {
        programs: vec!["tool".into()],
        secret_env: vec!["TOOL_TOKEN".into()],
        ..Needs::default()
    };
    match perform(place, &needs, Effect::Run { run })? {
        Reply::Ran { ran } => Ok(ran),
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_are_read_with_what_matters_about_them() {
    let place = place(&[("WHERE", "")]);
    let path = place.dir.path().join("a");
    std::fs::write(&path, "FAKE").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let state = read(&place, &file(Some("WHERE"), "~", "a")).unwrap();
    assert_eq!(state.content.as_ref().unwrap().expose(), "FAKE");
    assert_eq!((state.shown.as_str(), state.symlink, state.exposed), ("~/a", false, false));
    assert!(state.modified.is_some());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    symlink(&path, place.dir.path().join("b")).unwrap();
    let state = read(&place, &file(None, "~", "b")).unwrap();
    assert!(state.symlink && state.exposed && state.content.is_some());
}

#[test]
fn files_without_text_say_why() {
    let place = place(&[]);
    std::fs::create_dir(place.dir.path().join("dir")).unwrap();
    std::fs::write(place.dir.path().join("big"), vec![b'x'; (1 << 20) + 1]).unwrap();
    std::fs::write(place.dir.path().join("raw"), [0xff, 0xfe]).unwrap();
    symlink("loop", place.dir.path().join("loop")).unwrap();
    let absent = read(&place, &file(None, "~", "none")).unwrap();
    assert_eq!(absent.problem, Some(FileProblem::Absent {}));
    for (name, word) in [("dir", "regular"), ("big", "1 MiB"), ("raw", "UTF-8"), ("loop", "")] {
        let state = read(&place, &FileRef { path: name.into(), ..file(None, "~", "") }).unwrap();
        let Some(FileProblem::Unreadable { reason }) = state.problem else { panic!("{name}") };
        assert!(reason.contains(word), "{name}: {reason}");
    }
    std::fs::write(place.dir.path().join("just"), vec![b'x'; 1 << 20]).unwrap();
    assert!(read(&place, &file(None, "~", "just")).unwrap().content.is_some());
}

#[test]
fn undeclared_files_and_ways_out_are_refused() {
    let place = place(&[]);
    let effect = Effect::Read { file: file(None, "~", "a") };
    assert!(matches!(perform(&place, &Needs::default(), effect), Err(HostError::Denied { .. })));
    for path in ["../a", "/etc/passwd", "x/../../a"] {
        let error = read(&place, &FileRef { path: path.into(), ..file(None, "~", "") });
        assert!(matches!(error, Err(HostError::Denied { .. })), "{path}");
    }
}

#[test]
fn a_program_sees_its_input_and_an_allowed_environment() {
    let place = place(&[("LANG", "C"), ("OUR_API_KEY", "sk-ant-api03-FAKEFAKE"), ("EXTRA", "1")]);
    script(
        &place,
        "tool",
        "cat; echo \"[$LANG|$OUR_API_KEY|$EXTRA|$TOOL_TOKEN|$MODE]\"; echo bad >&2; exit 4",
    );
    let ran = run(
        &place,
        Run {
            input: Some(Secret::new("in ")),
            env: vec![
                ("TOOL_TOKEN".into(), Secret::new("FAKE")),
                ("MODE".into(), Secret::new("x")),
            ],
            ..run_of("tool")
        },
    );
    let ran = ran.unwrap();
    assert_eq!(ran.exit, Some(4));
    assert_eq!(ran.stdout.expose(), "in [C|||FAKE|x]\n");
    assert_eq!(ran.stderr.expose(), "bad\n");
}

#[test]
fn secrets_go_only_into_declared_variables() {
    let place = place(&[]);
    script(&place, "tool", "exit 0");
    for (name, value) in
        [("MY_TOKEN", "x"), ("PLAIN", "sk-ant-api03-FAKEFAKE"), ("x_password", "y")]
    {
        let env = vec![(name.into(), Secret::new(value))];
        let error = run(&place, Run { env, ..run_of("tool") }).unwrap_err();
        assert!(matches!(&error, HostError::Denied { .. }), "{name}");
        assert!(!error.to_string().contains(value));
    }
}

#[test]
fn programs_are_found_on_the_path_or_named_as_missing() {
    let place = place(&[]);
    let missing = run(&place, run_of("tool")).unwrap_err();
    assert_eq!(missing, HostError::NotFound { what: "the program tool".into() });
    assert!(matches!(run(&place, run_of("other")), Err(HostError::Denied { .. })));
    let needs = Needs { programs: vec!["/bin/sh".into()], ..Needs::default() };
    let effect = Effect::Run { run: run_of("/bin/sh") };
    assert!(matches!(perform(&place, &needs, effect), Err(HostError::Denied { .. })));
    std::fs::write(place.dir.path().join("tool"), "no program").unwrap();
    assert!(matches!(run(&place, run_of("tool")), Err(HostError::NotFound { .. })));
}

#[test]
fn a_program_that_takes_too_long_is_ended() {
    let place = place(&[]);
    let mark = place.dir.path().join("mark");
    script(&place, "tool", &format!("sleep 5; echo late > {}", mark.display()));
    let error = run(&place, Run { timeout_ms: Some(50), ..run_of("tool") }).unwrap_err();
    assert_eq!(error, HostError::Timeout { ms: 50 });
    assert!(!mark.exists());
}

#[test]
fn much_output_is_cut_and_never_blocks() {
    let place = place(&[]);
    script(
        &place,
        "tool",
        "head -c 3000000 /dev/zero | tr '\\0' x; head -c 200000 /dev/zero | tr '\\0' y >&2",
    );
    let ran = run(&place, run_of("tool")).unwrap();
    assert_eq!((ran.stdout.expose().len(), ran.stderr.expose().len()), (1 << 20, 64 << 10));
}

#[test]
fn requests_go_to_declared_hosts_and_follow_nothing() {
    let plan = "{rules: [{match: {path: '/v1/models'}, fault: {redirect: 'http://127.0.0.1:1/'}}]}";
    let stage = crate::stage::Stage::new(plan);
    let place = place(&[]);
    let url = format!("{}/v1/models", stage.lab.url());
    let request = |url: &str| HttpRequest {
        method: "GET".into(),
        url: url.into(),
        headers: vec![("x-a".into(), Secret::new("1"))],
        body: None,
        timeout_ms: None,
    };
    let host = stage.lab.addr().to_string();
    let needs = Needs { hosts: vec![host.into()], ..Needs::default() };
    let reply = perform(&place, &needs, Effect::Http { request: request(&url) }).unwrap();
    let Reply::Http { response } = reply else { panic!() };
    assert_eq!(response.status, 307);
    let elsewhere = Effect::Http { request: request("http://127.0.0.1:9/") };
    assert!(matches!(perform(&place, &needs, elsewhere), Err(HostError::Denied { .. })));
    let open = Needs { hosts: vec!["example.com".into()], ..Needs::default() };
    let plain = Effect::Http { request: request("http://example.com/") };
    assert!(matches!(perform(&place, &open, plain), Err(HostError::Denied { .. })));
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let needs = Needs { hosts: vec!["127.0.0.1".into()], ..Needs::default() };
    let gone = Effect::Http { request: request(&format!("http://{dead}/")) };
    assert!(matches!(perform(&place, &needs, gone), Err(HostError::Network { .. })));
}

#[test]
fn a_silent_service_and_a_huge_reply_have_limits() {
    let huge = "x".repeat((1 << 20) + 1);
    let plan = format!(
        "{{rules: [{{match: {{path: '/v1/models'}}, fault: {{stall: 'headers'}}}}, {{fault: {{body: '{huge}'}}}}]}}"
    );
    let stage = crate::stage::Stage::new(&plan);
    let place = place(&[]);
    let needs = Needs { hosts: vec!["127.0.0.1".into()], ..Needs::default() };
    let ask = |path: &str, timeout_ms| {
        let request = HttpRequest {
            method: "GET".into(),
            url: format!("{}{path}", stage.lab.url()),
            headers: vec![],
            body: None,
            timeout_ms,
        };
        perform(&place, &needs, Effect::Http { request }).unwrap_err()
    };
    assert_eq!(ask("/v1/models", Some(50)), HostError::Timeout { ms: 50 });
    let error = ask("/anything", None).to_string();
    assert_eq!(error, "127.0.0.1: the reply is larger than 1 MiB");
}

#[test]
fn other_effects_reach_the_front_or_the_clock() {
    let place = place(&[]);
    let needs = Needs::default();
    let field = Field { label: "Key".into(), env: Some("X".into()), ..Field::default() };
    let asked = perform(&place, &needs, Effect::Ask { field, refused: None }).unwrap_err();
    assert_eq!(asked.to_string(), "Key is missing: set X");
    assert!(matches!(perform(&place, &needs, Effect::Now {}), Ok(Reply::Now { .. })));
    let open = Effect::Open { url: "javascript:alert(1)".into() };
    assert!(matches!(perform(&place, &needs, open), Err(HostError::Denied { .. })));
    assert!(matches!(perform(&place, &needs, Effect::Unknown), Err(HostError::Unsupported { .. })));
}

/// A keyring with one entry.
struct OneEntry;

impl Keyring for OneEntry {
    fn entry(
        &self,
        entry: &KeyringEntry,
        put: Option<Secret>,
    ) -> Result<Option<Secret>, HostError> {
        let kept = (entry.account == "acme").then(|| Secret::new("FAKE-kept"));
        Ok(put.or(kept))
    }
}

#[test]
fn the_keyring_is_asked_only_for_services_that_are_declared() {
    let mut place = place(&[]);
    place.parts = place.parts.with_keyring(Arc::new(OneEntry));
    let effect = |account: &'static str| Effect::Keyring {
        entry: KeyringEntry { service: "moltbot".into(), account: account.into() },
        put: None,
    };
    let refused = perform(&place, &Needs::default(), effect("acme"));
    assert!(matches!(refused, Err(HostError::Denied { .. })), "{refused:?}");
    let needs = Needs { keyring: vec!["moltbot".into()], ..Needs::default() };
    let kept = Some(Secret::new("FAKE-kept"));
    assert_eq!(perform(&place, &needs, effect("acme")), Ok(Reply::Kept { secret: kept }));
    assert_eq!(perform(&place, &needs, effect("other")), Ok(Reply::Kept { secret: None }));
}

#[test]
fn only_a_file_that_the_profile_names_is_read_beside_those_declared() {
    let place = place(&[]);
    std::fs::write(place.dir.path().join("named"), "FAKE").unwrap();
    std::fs::write(place.dir.path().join("other"), "FAKE").unwrap();
    let needs = Needs { answers: vec!["token-file".into()], ..Needs::default() };
    let mut stored = Credential::new(CredentialKind::Token, "acme");
    stored.rest.insert("token-file".into(), "~/named".into());
    stored.rest.insert("unlisted".into(), "~/other".into());
    let host = EffectHost::of_profile(&place.parts, &needs, &stored);
    let read =
        |name: &'static str| block_on(host.perform(Effect::Read { file: file(None, "~", name) }));
    assert!(matches!(read("named"), Ok(Reply::File { file }) if file.content.is_some()));
    assert!(matches!(read("other"), Err(HostError::Denied { .. })));
}

/// A variable that is declared to carry a secret reaches the program, another does not.
#[test]
fn declared_variables_are_passed_on() {
    let place = place(&[("TOOL_TOKEN", "FAKE-token"), ("OTHER_TOKEN", "FAKE-other")]);
    script(&place, "tool", "echo \"$TOOL_TOKEN,$OTHER_TOKEN\"");
    let ran = run(&place, run_of("tool")).unwrap();
    assert_eq!(ran.stdout.expose(), "FAKE-token,\n");
}
