//! Performs `Exchange::Run`: starts the program a provider names, keeps it warm between the turns
//! of one conversation, and ends it (decision 16).
//!
//! A warm process is found by everything it depends on: agent, credential and its generation, the
//! provider's own key, and a digest of the conversation the process has seen. So a conversation
//! is never answered by another's process, and one that was changed elsewhere starts a fresh one.

mod history;
mod memory;
mod pool;
mod process;
mod sessions;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use moltbot_core::{
    Credential, DecoderMode, Ended, Event, Exchange, Generation, HostError, Needs, Observed,
    Provider, ProviderError, Registry, Resume, Reuse, Run, Secret, Text,
};

use crate::attempt::{Answer, Stream, Trouble};
use crate::compose::Chat;
use crate::host::{EffectHost, HostParts};
use crate::http::Limits;
use crate::send::SendError;
use crate::setup::ProviderSetup;
use history::History;
pub(crate) use pool::Children;
use pool::Key;
use process::{Process, Running, Start};
use sessions::{Session, Sessions};

/// The status that a finished run is recorded with, for there is none.
const DONE: u16 = 200;

/// The exit code by which shells say that there is no such program.
const NOT_FOUND: i32 = 127;

/// A program, ready to be run.
#[derive(Debug)]
pub(crate) struct PreparedRun {
    program: Text,
    args: Vec<Text>,
    env: Vec<(Text, Secret)>,
    input: String,
    reuse: Option<Reuse>,
    cancel_input: Option<String>,
    idle_ms: u64,
    generation: Generation,
    history: History,
}

impl PreparedRun {
    /// Fills in the credential. Pure; `None` if the exchange is no run.
    pub(crate) fn of(
        chat: &Chat,
        exchange: &Exchange,
        credential: &Credential,
    ) -> Option<Result<Self, SendError>> {
        let Exchange::Run { program, args, env, input, reuse, cancel_input, idle_ms } = exchange
        else {
            return None;
        };
        let filled = env.iter().map(|(name, slot)| match slot.fill(credential) {
            Ok(value) => Ok((name.clone(), value)),
            Err(ProviderError::Credential { message }) => Err(SendError::Credential(message)),
            Err(other) => Err(SendError::Plugin(other.to_string())),
        });
        let env: Result<Vec<_>, _> = filled.collect();
        Some(env.map(|env| Self {
            program: program.clone(),
            args: args.clone(),
            env,
            input: input.clone(),
            reuse: reuse.clone(),
            cancel_input: cancel_input.clone(),
            idle_ms: *idle_ms,
            generation: Generation::of(credential),
            history: History::of(&chat.body),
        }))
    }
}

/// What runs are performed with.
pub(crate) struct Workshop<'a> {
    pub(crate) children: &'a Arc<Children>,
    pub(crate) host: &'a HostParts,
    pub(crate) registry: &'a Registry,
    /// For which agent.
    pub(crate) agent: &'a str,
    /// Where programs are run: a directory of the agent's own.
    pub(crate) directory: PathBuf,
    /// With which credential, in words.
    pub(crate) source: &'a str,
}

/// Lets a program answer. Events go to `sink` as with a request over HTTP.
///
/// Dropping the future ends the turn: the program is told to stop, and ended soon after.
pub(crate) async fn perform(
    shop: &Workshop<'_>,
    setup: &ProviderSetup,
    run: PreparedRun,
    limits: &(dyn Fn() -> Limits + Send + Sync),
    sink: &mut (dyn FnMut(&Event) + Send),
) -> Result<Answer, Trouble> {
    let key = |history| {
        run.reuse.as_ref().map(|reuse| Key {
            agent: shop.agent.to_string(),
            provider: setup.id.clone(),
            source: shop.source.to_string(),
            generation: run.generation.clone(),
            own: reuse.key.clone(),
            history,
        })
    };
    let here = key(run.history.before());
    let warm = match &here {
        Some(key) => shop.children.take(key).await,
        None => None,
    };
    let sessions = Sessions::new(&shop.directory.with_extension("sessions"));
    let resume = run.reuse.as_ref().and_then(|reuse| reuse.resume.as_ref());
    let mut old = match (&here, resume) {
        (Some(key), Some(_)) if warm.is_none() => sessions.take(&key.digest()),
        _ => None,
    };
    let mut warm = warm;
    let (running, transcript) = loop {
        let went_on = old.take();
        let (process, input) = match (warm.take(), &run.reuse) {
            (Some(process), Some(reuse)) => (process, reuse.input.clone()),
            _ => {
                let session = resume.and_then(|_| sessions.begin());
                match start(shop, setup, &run, session, went_on.as_deref()) {
                    Ok(process) => {
                        let again = resume.filter(|_| went_on.is_some());
                        (process, again.map_or(&run.input, |again| &again.input).clone())
                    }
                    Err(ended) => return Err(trouble(*ended, None)),
                }
            }
        };
        let mut running: Running = process.begin(run.cancel_input.clone());
        let mut stream = Stream::default();
        let ended = running.turn(input, limits, &mut |events| stream.take(events, &[], sink)).await;
        let (transcript, shown) = stream.into_parts();
        match ended {
            Ok(()) => break (running, transcript),
            // The program has forgotten the session: the conversation is told from its beginning.
            Err(ended) if went_on.is_some() && !shown && is_gone(&ended, resume) => {}
            Err(ended) => return Err(trouble(ended, shown.then_some(transcript))),
        }
    };
    let process = running.finish();
    if let Some(key) = key(run.history.after(&transcript.content())) {
        shop.children.keep(key, process, run.idle_ms);
    }
    Ok(Answer { transcript, observed: Observed::default(), status: DONE })
}

/// Tells whether a program says that there is no such session.
fn is_gone(ended: &Ended, resume: Option<&Resume>) -> bool {
    match (ended, resume) {
        (Ended::Child { last_event, .. }, Some(resume)) => last_event["error"] == *resume.gone,
        _ => false,
    }
}

fn trouble(ended: Ended, forwarded: Option<crate::transcript::Transcript>) -> Trouble {
    Trouble { ended, observed: Observed::default(), forwarded }
}

fn start(
    shop: &Workshop<'_>,
    setup: &ProviderSetup,
    run: &PreparedRun,
    session: Option<Session>,
    old: Option<&str>,
) -> Result<Process, Box<Ended>> {
    let failed = |exit, why: String| {
        let last_event = serde_json::Value::Null;
        Box::new(Ended::Child { exit, stderr_tail: why, last_event })
    };
    let call = Run {
        program: run.program.clone(),
        args: run.args.clone(),
        env: run.env.clone(),
        input: None,
        terminal: false,
        timeout_ms: None,
    };
    let needs = needs(shop.registry, &setup.id);
    let host = EffectHost::new(shop.host, &needs);
    let program = host.find_program(&run.program).map_err(|error| match error {
        HostError::NotFound { what } => failed(Some(NOT_FOUND), format!("{what} is not installed")),
        other => failed(None, other.to_string()),
    })?;
    let problem = |error: std::io::Error| {
        failed(None, format!("{} could not be started: {error}", run.program))
    };
    make_private(&shop.directory).map_err(problem)?;
    let provider: &'static dyn Provider = setup.entry.provider;
    let resume = run.reuse.as_ref().and_then(|reuse| reuse.resume.as_ref());
    let of_session = resume.zip(session.as_ref()).map(|(resume, session)| {
        let args = if old.is_some() { &resume.go_on } else { &resume.begin };
        let filled = |arg: &Text| {
            arg.replace("{new}", &session.id).replace("{old}", old.unwrap_or_default())
        };
        args.iter().map(filled).collect::<Vec<_>>()
    });
    let own = run.args.iter().map(ToString::to_string);
    Process::start(Start {
        program,
        args: of_session.into_iter().flatten().chain(own).collect(),
        session,
        env: host.child_env(&call),
        directory: shop.directory.clone(),
        decoder: provider.decoder(DecoderMode::Full),
        watch: shop.children.watch(),
    })
    .map_err(problem)
}

/// The files that the provider's own logins declare: the variables that say where they are reach
/// the program, so that it finds its login.
fn needs(registry: &Registry, provider: &str) -> Needs {
    let offers = registry.offers().iter().filter(|entry| entry.provider.id == provider);
    let files = offers.flat_map(|entry| entry.offer.needs.files.iter().cloned()).collect();
    Needs { files, ..Needs::default() }
}

fn make_private(directory: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}
