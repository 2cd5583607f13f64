//! `moltbot chat`: a conversation in the terminal, one line a turn (spec S-8 to S-10).
//!
//! The terminal's own line editing is used; what is piped in is a conversation too.

use std::io::{BufRead, Write};
use std::time::Instant;

use clap::{Arg, ArgAction, ArgMatches, Command};
use moltbot_core::Registry;
use moltbot_gateway::{ChatRequest, Engine, Record, Session, Sessions};
use moltbot_profiles::PinSource;
use tokio::sync::mpsc;

use crate::commands::{agent, agent_arg};
use crate::front::{self, Answers};
use crate::out::clean;
#[cfg(feature = "lab")]
use crate::sandbox::Sandbox;
use crate::{Context, Exit, Failure, Outcome, why};

const HELP: &str = "\
/model            show the model
/model X          ask this model from here on: an alias or provider/model
/model X@profile  the same, with this profile and no other until /new
/why              say why the last reply came from where it came
/new              start a new session
/help             show this
//text            say something that begins with /
Ctrl-C stops a reply, Ctrl-D leaves.";

/// Describes the command.
pub(crate) fn command(_: &Registry) -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let command = Command::new("chat")
        .about("Talk in the terminal, line by line")
        .arg(agent_arg())
        .arg(text("model", "MODEL", "Ask this model: an alias or provider/model, or with @profile"))
        .arg(
            Arg::new("continue")
                .long("continue")
                .action(ArgAction::SetTrue)
                .help("Go on with the agent's last session")
                .conflicts_with("session-id"),
        )
        .arg(text("session-id", "ID", "Go on with this session"))
        .after_help("Examples:\n  moltbot chat\n  moltbot chat --continue --model <model>");
    #[cfg(feature = "lab")]
    let command = command.arg(
        Arg::new("lab")
            .long("lab")
            .action(ArgAction::SetTrue)
            .help("Talk to a lab server on this machine; nothing of yours is read or sent"),
    );
    command
}

/// Runs the command.
pub(crate) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    #[cfg(feature = "lab")]
    let lab = args.get_flag("lab").then(|| Sandbox::enter(cx)).transpose()?;
    #[cfg(feature = "lab")]
    let upstream = lab.as_ref().map(Sandbox::url);
    #[cfg(not(feature = "lab"))]
    let upstream = None;
    let paths = cx.agent(args)?;
    // A turn asks nobody anything, as in `moltbot agent`.
    cx.set_front(front::with(Answers::default()));
    let engine = cx.engine_at(&paths, upstream)?;
    let sessions = Sessions::new(&paths.sessions);
    let mut chat = Chat {
        session: agent::session(cx, args, &sessions)?,
        sessions,
        engine,
        model: None,
        last: None,
        failed: false,
    };
    let terminal = cx.out.terminal();
    let person = terminal.stdin && terminal.stdout;
    if let Some(model) = args.get_one::<String>("model") {
        chat.choose(cx, model)?;
    }
    if person {
        cx.out.note("/help shows what can be typed; Ctrl-D leaves");
    }
    let mut lines = lines();
    loop {
        if person {
            cx.out.raw("> ");
            let _ = std::io::stdout().flush();
        }
        match cx.block_on_cancel(lines.recv()) {
            Ok(Some(Ok(line))) => chat.take(cx, line.trim())?,
            Ok(Some(Err(error))) => {
                return Err(Failure::input(format!("standard input cannot be read: {error}")));
            }
            Ok(None) => break,
            // The terminal has thrown away what was typed.
            Err(stopped) if stopped.exit == Exit::CANCELLED.0 && person => cx.out.line(""),
            Err(error) => return Err(error),
        }
    }
    if person {
        cx.out.line("");
    }
    // A person has seen what failed; a script is told.
    Ok(if chat.failed && !person { Exit::NO } else { Exit::OK })
}

/// Reads lines on a thread of its own, for a read cannot be stopped.
fn lines() -> mpsc::UnboundedReceiver<std::io::Result<String>> {
    let (send, receive) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let broken = line.is_err();
            if send.send(line).is_err() || broken {
                break;
            }
        }
    });
    receive
}

/// How the conversation stands.
struct Chat {
    engine: Engine,
    sessions: Sessions,
    session: Session,
    /// The model as typed; its profile, if one was named, is insisted on.
    model: Option<String>,
    last: Option<Record>,
    failed: bool,
}

impl Chat {
    /// Takes one line: a command or something to say. Only what ends the conversation is an error.
    fn take(&mut self, cx: &mut Context, line: &str) -> Result<(), Failure> {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let done = match word {
            "" => Ok(()),
            "/help" => {
                cx.out.line(HELP);
                Ok(())
            }
            "/new" => self.renew(cx),
            "/why" => {
                self.explain(cx);
                Ok(())
            }
            "/model" => self.choose(cx, rest.trim()),
            _ if line.starts_with("//") => self.say(cx, &line[1..]),
            _ if line.starts_with('/') => {
                let text = format!("\"{word}\" is no command here; /help lists them");
                Err(Failure::new(text))
            }
            _ => self.say(cx, line),
        };
        if let Err(failure) = done {
            self.failed = true;
            cx.out.failure(&failure);
        }
        Ok(())
    }

    /// Sends a turn and keeps it with its reply. What was stopped or failed is not kept.
    fn say(&mut self, cx: &mut Context, text: &str) -> Result<(), Failure> {
        let started = Instant::now();
        let mut request = ChatRequest {
            model: self.model.clone(),
            prompt: text.to_string(),
            history: self.session.turns().to_vec(),
            ..ChatRequest::default()
        };
        let named = self.model.as_ref().is_some_and(|model| model.contains('@'));
        match self.session.pin() {
            Some(pin) if pin.source == PinSource::User && !named => {
                request.profile = Some(pin.profile.clone());
            }
            Some(pin) => request.prefer = Some(pin.profile.clone()),
            None => {}
        }
        let ended = match agent::converse(cx, &self.engine, request, false) {
            Err(stopped) if stopped.exit == Exit::CANCELLED.0 => {
                cx.out.note("Stopped; this turn is forgotten");
                return Ok(());
            }
            ended => ended?,
        };
        let paths = self.engine.agent().clone();
        why::keep(cx, &paths, &ended);
        let reply = ended.map_err(|error| {
            self.last = error.record.as_deref().cloned();
            Failure::from(error)
        })?;
        self.last = Some(reply.record.clone());
        let pin = agent::pin(named, self.session.pin(), &reply);
        self.session.append(cx.now(), &reply.turns, pin.as_ref()).map_err(agent::session_failed)?;
        for note in &reply.notes {
            cx.out.warn(clean(&note.text));
        }
        if cx.out.terminal().stderr {
            let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            cx.out.note(agent::summary(&reply, millis));
        }
        Ok(())
    }

    /// Begins a new session: what was said and the pinned profile are left behind, the model
    /// stays.
    fn renew(&mut self, cx: &mut Context) -> Result<(), Failure> {
        self.session = self.sessions.create(cx.now()).map_err(agent::session_failed)?;
        if let Some(model) = self.model.take() {
            self.model = Some(model.split('@').next().unwrap_or_default().to_string());
        }
        self.last = None;
        cx.out.note("A new session");
        Ok(())
    }

    /// Changes the model, if a request for it could be made, and says who would answer.
    fn choose(&mut self, cx: &mut Context, typed: &str) -> Result<(), Failure> {
        let model = Some(typed.to_string()).filter(|typed| !typed.is_empty());
        let shown = model.clone().or_else(|| self.model.clone());
        let explained = self.engine.explain(shown.as_deref(), None);
        let record = cx.block_on_cancel(explained)??;
        if model.is_some() {
            self.model = model;
        }
        let line = match why::first(&record) {
            Some((model, credential)) => {
                let payer = why::payer(credential.payer);
                format!("{} with {} ({payer})", model.model, credential.source)
            }
            None => "no credential is usable now; /why says more after a try".to_string(),
        };
        cx.out.line(clean(&line));
        Ok(())
    }

    fn explain(&self, cx: &mut Context) {
        let Some(record) = &self.last else {
            cx.out.line("Nothing was sent in this session yet.");
            return;
        };
        for line in why::told(record) {
            cx.out.line(clean(&line));
        }
    }
}
