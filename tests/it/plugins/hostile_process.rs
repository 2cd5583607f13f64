//! Processes that misbehave: each fails alone, and says how.

use std::cell::RefCell;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use moltbot_abi::host::{self, Carried, LoadError};
use moltbot_core::ProviderInfo;

use super::fixtures::{Form, copies, copy, hostile, list, pinned, place, trusted};
use crate::support::{Sandbox, until};

/// What a deed leads to: refused when opened, a complaint when asked, or nothing.
enum Ends {
    Refused(&'static str),
    Complains(&'static str),
    Well,
}

use Ends::{Complains, Refused, Well};

const DEEDS: &[(&str, Ends)] = &[
    ("polite", Well),
    ("forks", Well),
    ("complains", Well),
    ("exit-at-once", Refused("it ended with exit code 0")),
    ("never-reads", Refused("it did not answer within 10 s")),
    ("keeps-descriptors", Refused("it ended with exit code 0")),
    ("closes-stdout", Refused("it closed its pipes")),
    ("prints", Refused("it printed something else than an answer")),
    ("version", Refused("built for moltbot-core 9.0.0")),
    ("no-version", Refused("built for moltbot-core newest")),
    ("no-plugins", Refused("it holds no plugin")),
    ("odd-name", Refused("is no plain name")),
    ("escape-name", Refused("is no plain name")),
    ("panic", Complains("it ended with exit code 101")),
    ("abort", Complains("it was ended by signal")),
    ("exit", Complains("it ended with exit code 0")),
    ("spin", Complains("it did not answer within 10 s")),
    ("out-of-memory", Complains("it was ended by signal")),
    ("allocation", Complains("it was ended by signal")),
    ("stack-overflow", Complains("it was ended by signal")),
    ("segfault", Complains("it was ended by signal")),
    ("bad-json", Complains("cannot be understood")),
    ("wrong-type", Complains("cannot be understood")),
    ("not-utf8", Complains("cannot be understood")),
    ("unknown-step", Complains("of a kind this version does not know")),
    ("waits-for-nothing", Complains("it waits, and asks for nothing")),
    ("effects-in-offers", Complains("cannot be understood")),
    ("endless-need", Complains("it asks the host without end")),
    ("endless-line", Complains("answer")),
    ("complains-and-dies", Complains("it ended with exit code 3; its last words: ")),
    ("dies-after-hello", Complains("it ended with exit code 4")),
    ("odd-flag", Complains("is not of lower-case letters")),
];

/// Deeds that end only because nobody waits any longer.
const IMPATIENT: [&str; 2] = ["never-reads", "spin"];

fn open(dir: &Path, deed: &str) -> Result<Carried, LoadError> {
    let path = copy(hostile(Form::Process), &dir.join(deed));
    let (file, pin) = pinned(&path, Form::Process);
    let mut place = place(dir);
    // The time of a test in which programs start slowly must not count.
    place.window = Duration::from_secs(3_600);
    if IMPATIENT.contains(&deed) {
        place.patience = Duration::from_secs(10);
    }
    host::open(&file, &pin, &place, false).map(|mut all| all.remove(0))
}

#[test]
fn each_fails_alone_and_says_how() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::thread::scope(|scope| {
        for (deed, ends) in DEEDS {
            scope.spawn(move || {
                let opened = open(dir, deed);
                let said = match (&opened, ends) {
                    (Err(error), Refused(_)) => error.to_string(),
                    (Ok(carried), Complains(_) | Well) => {
                        let offers = carried.plugin().auth[0].offers(&ProviderInfo::default());
                        assert!(offers.is_empty(), "{deed}: {offers:?}");
                        carried.complaints().join("\n")
                    }
                    _ => panic!("{deed}: {opened:?}"),
                };
                match ends {
                    Refused(text) | Complains(text) => {
                        assert!(said.contains(text), "{deed}: {said}");
                    }
                    Well => assert_eq!(said, "", "{deed}"),
                }
                assert!(!said.contains("FAKE") && !said.contains('\u{1b}'), "{deed}: {said}");
            });
        }
    });
    assert!(open(dir, "polite").is_ok(), "the host still serves");
    let hostile = DEEDS.iter().filter(|(deed, _)| *deed != "polite").count();
    assert!(hostile >= 25, "the pack has {hostile} deeds");
    println!("{hostile} of {hostile} hostile processes left the host serving");
}

#[test]
fn an_answer_to_nothing_is_the_end() {
    let dir = tempfile::tempdir().unwrap();
    match open(dir.path(), "answers-twice") {
        Err(error) => assert!(error.to_string().contains("without being asked"), "{error}"),
        Ok(carried) => {
            carried.plugin().auth[0].offers(&ProviderInfo::default());
            assert_eq!(carried.complaints().len(), 1, "{:?}", carried.complaints());
        }
    }
}

#[test]
fn it_is_started_again_but_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let carried = open(dir.path(), "dies-after-hello").unwrap();
    for _ in 0..5 {
        carried.plugin().auth[0].offers(&ProviderInfo::default());
    }
    let complaints = carried.complaints();
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    assert!(complaints[1].ends_with("the last of 3 times within 3600 s"), "{complaints:?}");
}

#[test]
fn it_gets_no_environment_but_what_every_program_needs() {
    let dir = tempfile::tempdir().unwrap();
    let names = open(dir.path(), "environment").unwrap().plugin().id;
    let mut names: Vec<_> = names.split('.').collect();
    names.sort_unstable();
    assert_eq!(names, ["MOLTBOT_PLUGIN", "PATH"]);
}

#[test]
fn it_reaches_no_file_of_the_user() {
    if !host::confines() {
        eprintln!("SKIPPED: this kernel cannot confine a process (Landlock is missing)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let found = open(dir.path(), "reads-the-store").unwrap().plugin().id;
    assert_eq!(found, "environment-false.files-false.write-false");
}

#[test]
fn it_opens_no_socket() {
    if !host::refuses_calls() {
        eprintln!("SKIPPED: this kernel cannot refuse calls (seccomp is missing)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let found = open(dir.path(), "opens-a-socket").unwrap().plugin().id;
    assert_eq!(found, "udp-false.unix-false.pair-true");
}

/// A host that is killed leaves the copy of a program that was starting; the next host removes it.
#[test]
fn what_a_killed_host_left_is_swept() {
    let sandbox = Sandbox::new();
    let plugin = trusted(&sandbox, hostile(Form::Process), "never-reads");
    list(&sandbox, &plugin, Form::Process);
    // Where this takes longer than the host waits for the program, the copy is gone: once more.
    let left = (0..100).any(|_| {
        let mut host = sandbox.command(&["plugins", "list"]);
        let host = RefCell::new(host.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
        let ended = || host.borrow_mut().try_wait().unwrap().is_some();
        until(|| !copies(&sandbox).is_empty() || ended());
        host.borrow_mut().kill().unwrap();
        host.borrow_mut().wait().unwrap();
        !copies(&sandbox).is_empty()
    });
    assert!(left, "no host was caught while a program was starting");
    sandbox.write_config("{}");
    let plugin = trusted(&sandbox, hostile(Form::Process), "polite");
    sandbox.run(&["plugins", "trust", &plugin, "--yes"]).exits(0);
    sandbox.run(&["plugins", "doctor"]).exits(0);
    assert_eq!(copies(&sandbox), Vec::<String>::new());
}
