//! `moltbot chat`: a conversation in the terminal, one line a turn (spec S-8 to S-10).
//!
//! On a terminal lines can be edited and brought back; what is piped in is a conversation too.

use std::time::Instant;

use clap::{ArgMatches, Command};
use moltbot_core::Registry;
use moltbot_gateway::{ChatRequest, Role};

use super::talk::{self, Talk};
use crate::lines::{Line, Lines};
use crate::out::clean;
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
    talk::with_args(Command::new("chat").about("Talk in the terminal, line by line"))
        .after_help("Examples:\n  moltbot chat\n  moltbot chat --continue --model <model>")
}

/// Runs the command.
pub(crate) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let mut talk = Talk::start(cx, args)?;
    talk.open(cx, args)?;
    let mut chat = Chat { talk, model: None, failed: false };
    let terminal = cx.out.terminal();
    let person = terminal.stdin && terminal.stdout;
    if let Some(model) = args.get_one::<String>("model") {
        chat.choose(cx, model)?;
    }
    if person {
        cx.out.note("/help shows what can be typed; Ctrl-D leaves");
    }
    let broken =
        |error| Failure::new(format!("standard input cannot be read: {error}")).code("input");
    // Between two lines what is typed ahead waits for the next one, unseen; Ctrl-C stays a signal.
    let _quiet = match person {
        true => Some(crate::onboard::quiet(cx)?),
        false => None,
    };
    let mut lines = match person {
        true => Lines::of_terminal("> ", chat.said()).map_err(broken)?,
        false => Lines::of_pipe(),
    };
    loop {
        match cx.block_on_cancel(lines.next()) {
            Ok(Ok(Line::Typed(line))) => chat.take(cx, line.trim())?,
            // What was typed is gone.
            Ok(Ok(Line::Stopped)) => {}
            Ok(Ok(Line::End)) => break,
            Ok(Err(error)) => return Err(broken(error)),
            Err(stopped) if stopped.exit == Exit::CANCELLED.0 && person => {}
            Err(error) => return Err(error),
        }
    }
    // A program of the user's that answered may want to write down the conversation.
    cx.block_on(chat.talk.engine.end_programs())?;
    // A person has seen what failed; a script is told.
    Ok(if chat.failed && !person { Exit::NO } else { Exit::OK })
}

/// How the conversation stands.
struct Chat {
    talk: Talk,
    /// The model as typed; its profile, if one was named, is insisted on.
    model: Option<String>,
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
                Err(Failure::input(text))
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
        let began = Instant::now();
        let request = ChatRequest {
            model: self.model.clone(),
            prompt: text.to_string(),
            ..ChatRequest::default()
        };
        let reply = match self.talk.turn(cx, request, false) {
            Err(stopped) if stopped.exit == Exit::CANCELLED.0 => {
                cx.out.note("Stopped; this turn is forgotten");
                return Ok(());
            }
            ended => ended?.map_err(|error| why::failure(&error))?,
        };
        if cx.out.terminal().stderr {
            cx.out.note(talk::summary(&reply, talk::millis_since(began)));
        }
        Ok(())
    }

    /// Lists what the person said in the session so far, for the arrow keys.
    fn said(&self) -> Vec<String> {
        let turns = self.talk.session().turns().iter().filter(|turn| turn.role == Role::User);
        let texts = turns.flat_map(|turn| &turn.content).filter_map(|block| block["text"].as_str());
        texts.filter(|text| !text.contains('\n')).map(String::from).collect()
    }

    /// Begins a new session: what was said and the pinned profile are left behind, the model
    /// stays.
    fn renew(&mut self, cx: &mut Context) -> Result<(), Failure> {
        self.talk.renew(cx)?;
        if let Some(model) = self.model.take() {
            self.model = Some(model.split('@').next().unwrap_or_default().to_string());
        }
        cx.out.note("A new session");
        Ok(())
    }

    /// Changes the model, if a request for it could be made, and says who would answer.
    fn choose(&mut self, cx: &mut Context, typed: &str) -> Result<(), Failure> {
        let model = Some(typed.to_string()).filter(|typed| !typed.is_empty());
        let shown = model.clone().or_else(|| self.model.clone());
        let explained = self.talk.engine.explain(shown.as_deref(), None);
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
        let Some(record) = &self.talk.last else {
            cx.out.line("Nothing was sent in this session yet.");
            return;
        };
        for line in why::told(record) {
            cx.out.line(clean(&line));
        }
    }
}
