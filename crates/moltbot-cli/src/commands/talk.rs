//! One turn of a conversation, as `agent` and `chat` take it: the session, its pins, the reply on
//! the screen, and the record in the log, however the turn ends.

use std::io::Write as _;
use std::time::Instant;

use clap::{Arg, ArgAction, ArgMatches, Command};
use moltbot_core::Event;
use moltbot_gateway::{
    ChatError, ChatReply, ChatRequest, Engine, Record, Session, SessionError, Sessions, StopReason,
};
use moltbot_profiles::{PinSource, SessionPin, repin};

use crate::commands::agent_arg;
use crate::front::{self, Answers};
use crate::out::clean;
use crate::prompt::Spinner;
#[cfg(feature = "lab")]
use crate::sandbox::Sandbox;
use crate::{Context, Failure, why};

/// Adds the flags that both commands have.
pub(super) fn with_args(command: Command) -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let command = command
        .arg(agent_arg())
        .arg(text(
            "model",
            "MODEL",
            "Ask this model: an alias, provider/model, or either with @profile",
        ))
        .arg(
            Arg::new("continue")
                .long("continue")
                .action(ArgAction::SetTrue)
                .help("Go on with the agent's last session")
                .conflicts_with("session-id"),
        )
        .arg(text("session-id", "ID", "Go on with this session"));
    #[cfg(feature = "lab")]
    let command = command.arg(
        Arg::new("lab")
            .long("lab")
            .action(ArgAction::SetTrue)
            .help("Ask a lab server on this machine; nothing of yours is read or sent"),
    );
    command
}

/// What a conversation needs: an engine that asks nobody anything, and where sessions are.
pub(super) struct Talk {
    pub(super) engine: Engine,
    sessions: Sessions,
    session: Option<Session>,
    /// The record of the last turn.
    pub(super) last: Option<Record>,
    #[cfg(feature = "lab")]
    _lab: Option<Sandbox>,
}

impl Talk {
    /// Makes the engine, with `--lab` in an empty home. No session is opened yet.
    pub(super) fn start(cx: &mut Context, args: &ArgMatches) -> Result<Self, Failure> {
        #[cfg(feature = "lab")]
        let lab = args.get_flag("lab").then(|| Sandbox::enter(cx)).transpose()?;
        #[cfg(feature = "lab")]
        let upstream = lab.as_ref().map(Sandbox::url);
        #[cfg(not(feature = "lab"))]
        let upstream = None;
        let agent = cx.agent(args)?;
        // A turn asks nobody anything, not even the system for leave to read a login (spec A-14).
        cx.set_front(front::with(Answers::default()));
        let engine = cx.engine_at(&agent, upstream)?;
        Ok(Self {
            engine,
            sessions: Sessions::new(&agent.sessions),
            session: None,
            last: None,
            #[cfg(feature = "lab")]
            _lab: lab,
        })
    }

    /// Opens the session that the flags name, else a new one.
    pub(super) fn open(&mut self, cx: &Context, args: &ArgMatches) -> Result<(), Failure> {
        let id = match args.get_one::<String>("session-id") {
            Some(id) => Some(id.clone()),
            None if args.get_flag("continue") => {
                let last = self.sessions.last().map_err(session_failed)?;
                let none = || {
                    let agent = &self.engine.agent().id;
                    Failure::new(format!("Agent {agent} has no session yet"))
                        .code("session-unknown")
                        .hint("leave out --continue to start one")
                };
                Some(last.ok_or_else(none)?)
            }
            None => None,
        };
        let session = match id {
            Some(id) => self.sessions.load(&id),
            None => self.sessions.create(cx.now()),
        };
        self.session = Some(session.map_err(session_failed)?);
        Ok(())
    }

    /// Begins a new session: what was said and the pinned profile are left behind.
    pub(super) fn renew(&mut self, cx: &Context) -> Result<(), Failure> {
        self.session = Some(self.sessions.create(cx.now()).map_err(session_failed)?);
        self.last = None;
        Ok(())
    }

    /// Returns the session.
    pub(super) fn session(&self) -> &Session {
        self.session.as_ref().expect("opened by every caller before")
    }

    /// Takes one turn: sends the request with what was said before and the session's pins, keeps
    /// the record, and keeps the turn with its reply. What was stopped or failed is not kept.
    ///
    /// The outer error ends the command: Ctrl-C, or a session that cannot be written.
    pub(super) fn turn(
        &mut self,
        cx: &mut Context,
        mut request: ChatRequest,
        json: bool,
    ) -> Result<Result<ChatReply, ChatError>, Failure> {
        request.history = self.session().turns().to_vec();
        request.last_turn = self.session().last_turn();
        request.session = Some(self.session().id().to_string());
        let named = request.model.as_ref().is_some_and(|model| model.contains('@'));
        match self.pin(cx, &request)? {
            Some(pin) if pin.source == PinSource::User && !named => {
                request.profile = Some(pin.profile);
            }
            Some(pin) => request.prefer = Some(pin.profile),
            None => {}
        }
        let ended = converse(cx, &self.engine, request, json);
        self.last = match &ended {
            Ok(Ok(reply)) => Some(reply.record.clone()),
            Ok(Err(error)) => error.record.as_deref().cloned(),
            Err(_) => self.engine.take_dropped().map(|record| *record),
        };
        if let Some(record) = &self.last {
            why::keep(cx, self.engine.agent(), record);
        }
        let reply = match ended {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => return Ok(Err(error)),
            Err(stopped) => {
                let id = self.last.as_ref().map(why::command);
                return Err(Failure { mend: id, ..stopped });
            }
        };
        let pin = next_pin(named, self.session().pin(), &reply);
        let session = self.session.as_mut().expect("opened by every caller before");
        session.append(cx.now(), &reply.turns, pin.as_ref()).map_err(session_failed)?;
        for note in &reply.notes {
            cx.out.warn(clean(&note.text));
        }
        Ok(Ok(reply))
    }
}

impl Talk {
    /// Returns the pin of the session for its next request: what it holds on to, unless the
    /// profile is gone, is another provider's or rests (spec S-8, S-9).
    fn pin(&self, cx: &mut Context, request: &ChatRequest) -> Result<Option<SessionPin>, Failure> {
        let Some(old) = self.session().pin().cloned() else { return Ok(None) };
        let Ok(candidates) = self.engine.models().candidates(request.model.as_deref()) else {
            // The request itself says what is wrong with the model.
            return Ok(None);
        };
        let Some(model) = candidates.models.first() else { return Ok(None) };
        let profiles = cx.store(self.engine.agent()).load_blocking()?.profiles;
        let choice = self.engine.choice(&model.provider, &model.model, profiles);
        let Some(choice) = cx.block_on(choice)? else { return Ok(None) };
        let pin = repin(Some(&old), &choice, false, old.compactions);
        let lost = old.source == PinSource::User
            && pin.as_ref().is_none_or(|pin| pin.profile != old.profile);
        if lost {
            let (id, provider) = (clean(&old.profile), &model.provider);
            cx.out.warn(format!(
                "the session was pinned to {id}, which is no profile in the order of {provider} \
                 any more; the pin is lifted"
            ));
        }
        Ok(pin)
    }
}

/// Decides which profile the session holds on to: the one the user named, else the one that
/// answered (spec S-8 to S-10).
fn next_pin(named: bool, old: Option<&SessionPin>, reply: &ChatReply) -> Option<SessionPin> {
    let profile = reply.profile.clone()?;
    let kept = old.filter(|pin| pin.profile == profile);
    let source = match kept {
        Some(pin) if !named => pin.source,
        _ if named => PinSource::User,
        _ => PinSource::Auto,
    };
    Some(SessionPin { profile, source, compactions: kept.map_or(0, |pin| pin.compactions) })
}

fn session_failed(error: SessionError) -> Failure {
    Failure::new(error.to_string()).code(error.code())
}

/// Sends the request, and streams the reply to standard output unless it is wanted as JSON.
fn converse(
    cx: &mut Context,
    engine: &Engine,
    request: ChatRequest,
    json: bool,
) -> Result<Result<ChatReply, ChatError>, Failure> {
    let terminal = cx.out.terminal();
    let mut spinner = (terminal.stderr && !json).then(|| Spinner::start("Waiting for the reply"));
    let mut last = '\n';
    let mut sink = |event: &Event| {
        if let Some(text) = text_of(event)
            && !json
            && let Some(end) = text.chars().next_back()
        {
            spinner = None;
            last = end;
            print(text, terminal.stdout);
        }
    };
    let ended = cx.block_on_cancel(engine.chat(request, &mut sink));
    drop(spinner);
    if last != '\n' {
        cx.out.raw("\n");
    }
    ended
}

/// Returns the text that an event adds to the reply; a block may bring some when it begins.
fn text_of(event: &Event) -> Option<&str> {
    match event {
        Event::Text { text, .. } => Some(text),
        Event::BlockStart { block, .. } if block["type"] == "text" => block["text"].as_str(),
        _ => None,
    }
}

/// Prints a piece of the reply at once. A terminal gets control characters spelled out; a file or
/// a pipe gets the text as it is. A reader that went away does not end the turn: it is kept in the
/// session.
fn print(text: &str, terminal: bool) {
    let mut stdout = std::io::stdout().lock();
    let written = match terminal {
        true => stdout.write_all(visible(text).as_bytes()),
        false => stdout.write_all(text.as_bytes()),
    };
    let _ = written.and_then(|()| stdout.flush());
}

/// Spells out characters that could move the cursor or reorder text.
fn visible(text: &str) -> String {
    let hidden = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if hidden(c) {
            out.extend(c.escape_unicode())
        } else {
            out.push(c)
        }
        out
    })
}

/// One line: model, tokens, cost, credential, time.
pub(super) fn summary(reply: &ChatReply, millis: u64) -> String {
    let usage = &reply.usage;
    let mut parts = vec![clean(&reply.model.to_string()).into_owned()];
    let mut tokens = format!("{} in, {} out", usage.all_input(), usage.output.unwrap_or(0));
    if let Some(read) = usage.cache_read.filter(|read| *read > 0) {
        tokens.push_str(&format!(", {read} from cache"));
    }
    parts.push(tokens);
    if let Some(cost) = reply.cost {
        parts.push(format!("${cost:.4}"));
    }
    parts.push(clean(&reply.source).into_owned());
    parts.push(format!("{:.1} s", millis as f64 / 1000.0));
    if matches!(reply.stop, StopReason::Length) {
        parts.push("cut off at the token limit".to_string());
    }
    parts.join(" · ")
}

/// Returns how many milliseconds have passed.
pub(super) fn millis_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_moved_by_a_reply() {
        assert_eq!(visible("a\tb\nc"), "a\tb\nc");
        assert_eq!(visible("\u{1b}[2Jx\u{202e}y"), "\\u{1b}[2Jx\\u{202e}y");
    }
}
