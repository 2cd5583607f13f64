//! What is fuzzed, one function per target: each takes any bytes, must not panic, and checks what
//! must hold for all of them.
//!
//! The project's own tests include this file and run it over the committed corpora, so that neither
//! rots.

use std::cell::RefCell;
use std::path::PathBuf;

use moltbot_config::{Env, Extensions, LoadInput, Paths, PathsInput};
use moltbot_core::{
    AuthMethod, Credential, CredentialKind, DecoderMode, Event, Provider, RenewReply, Secret,
    Timestamp,
};
use moltbot_plugin_anthropic::Anthropic;
use moltbot_plugin_claude_cli_oauth::LoginFile;
use moltbot_profiles::{Profiles, StandardLogin};

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

/// A key as the service makes them, invented.
const SECRET: &str = "sk-ant-api03-Zq8Xw2Lm_N4pRt6Vy-Kd7Fh3Js5Gb";

/// The configuration: loaded, or refused in sentences that show nothing of a key, wherever in the
/// file it stands. The first byte says where; 0 leaves the bytes as they are.
pub fn config(data: &[u8]) {
    let Some((&place, rest)) = data.split_first() else { return };
    let mut text = rest.to_vec();
    if place > 0 {
        let mut whole = String::from_utf8_lossy(rest).into_owned();
        let mut at = whole.len() * usize::from(place - 1) / 254;
        while !whole.is_char_boundary(at) {
            at -= 1;
        }
        whole.insert_str(at, SECRET);
        text = whole.into_bytes();
    }
    HOME.with_borrow(|home| {
        std::fs::write(home.path().join("moltbot.json"), &text).expect("a file");
        let dir = PathBuf::from(home.path());
        let paths = Paths::resolve(&PathsInput {
            env: &Env::new([("MOLTBOT_STATE_DIR", dir.display().to_string())]),
            home: &dir,
            cwd: &dir,
            profile: None,
            exists: &|_| true,
        });
        let (env, extensions) = (Env::default(), Extensions::default());
        let input =
            LoadInput { paths: &paths, env: &env, extensions: &extensions, version: "0.1.0" };
        let _ = moltbot_config::shell_import(&input);
        match moltbot_config::load(&input) {
            Ok(loaded) => loaded.notes.iter().for_each(|note| hides(&note.message)),
            Err(error) => {
                assert!(!error.issues().is_empty());
                hides(&format!("{error}\n{}", error.to_json()));
            }
        }
    });
}

/// The auth store: what is read is written again as it was, but for its layout.
pub fn auth_store(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Profiles::parse(text) {
        Ok(profiles) => settles(&profiles),
        Err(error) => assert!(error.line >= 1 && error.column >= 1),
    }
}

/// The files of older versions, one after the other with a zero byte between them.
pub fn legacy_imports(data: &[u8]) {
    let mut files = data.splitn(2, |byte| *byte == 0).map(std::str::from_utf8);
    let auth = files.next().and_then(Result::ok);
    let oauth = files.next().and_then(Result::ok);
    if let Ok((profiles, _)) = Profiles::from_legacy(auth, oauth) {
        assert!(profiles.iter().all(|(id, _)| id.ends_with(":default")));
        settles(&profiles);
    }
}

/// The file in which Claude Code keeps its login: what counts as a login has a token and an end.
pub fn claude_credentials(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let LoginFile::Login(login) = LoginFile::parse(text) {
        assert!(login.access.expose().bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(!login.access.is_blank() && login.expires > Timestamp::from_millis(0));
    }
}

/// The answer of a token endpoint, its status in the first two bytes: a login that can be used, or
/// an error that shows nothing of the answer but a status and a code.
pub fn token_response(data: &[u8]) {
    let Some((status, body)) = data.split_first_chunk::<2>() else { return };
    let status = u16::from_le_bytes(*status) % 1_000;
    let mut old = Credential::new(CredentialKind::Oauth, "acme");
    old.access = Some(Secret::new("FAKEold"));
    old.refresh = Some(Secret::new("FAKErefresh"));
    let body = String::from_utf8_lossy(body).replace("KEY", SECRET);
    let reply = RenewReply { status, body: Secret::new(body) };
    match StandardLogin.renewed(&old, &reply, NOW) {
        Ok(new) => {
            assert!((200..300).contains(&status));
            for secret in [&new.access, &new.refresh] {
                assert!(secret.as_ref().is_some_and(|secret| !secret.is_blank()));
            }
        }
        Err(error) => hides(&format!("{error} {error:?}")),
    }
}

/// The stream of a reply: the same events however it is cut, one end, and that one last. The first
/// byte says how often it is cut, the next ones where.
pub fn sse_decoder(data: &[u8]) {
    let Some((&count, rest)) = data.split_first() else { return };
    let (places, stream) = rest.split_at(usize::from(count % 16).min(rest.len()));
    let mut cuts: Vec<usize> =
        places.iter().map(|place| stream.len() * usize::from(*place) / 255).collect();
    cuts.sort_unstable();
    for mode in [DecoderMode::Full, DecoderMode::Observe] {
        let whole = decode(mode, &[stream]);
        let mut from = 0;
        let mut pieces: Vec<&[u8]> = Vec::new();
        for cut in &cuts {
            pieces.push(&stream[from..*cut]);
            from = *cut;
        }
        pieces.push(&stream[from..]);
        assert_eq!(decode(mode, &pieces), whole);
        let is_end = |event: &Event| matches!(event, Event::Error { .. } | Event::TurnEnd { .. });
        assert_eq!(whole.iter().position(is_end), Some(whole.len() - 1));
    }
}

thread_local! {
    /// A directory in memory where there is one: a run loads hundreds of thousands of files.
    static HOME: RefCell<tempfile::TempDir> = RefCell::new(
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory"),
    );
}

fn decode(mode: DecoderMode, pieces: &[&[u8]]) -> Vec<Event> {
    let mut decoder = Anthropic.decoder(mode);
    let mut events = Vec::new();
    for piece in pieces {
        decoder.push(piece, &mut events);
    }
    decoder.end(&mut events);
    events
}

/// Checks that writing and reading in turn changes nothing any more.
fn settles(profiles: &Profiles) {
    let written = profiles.to_json(NOW);
    let read = Profiles::parse(written.expose()).expect("what was written is read");
    assert_eq!(read.to_json(NOW).expose(), written.expose());
}

/// Checks that no twelve characters of the key are shown.
fn hides(shown: &str) {
    for piece in SECRET.as_bytes().windows(12) {
        let piece = std::str::from_utf8(piece).expect("ASCII");
        assert!(!shown.contains(piece), "{piece} in {shown}");
    }
}
