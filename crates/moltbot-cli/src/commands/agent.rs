//! `moltbot agent`: one turn of a conversation, streamed.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Instant;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use moltbot_core::{Event, Registry, Usage};
use moltbot_gateway::{
    ChatError, ChatReply, ChatRequest, Engine, Image, Session, SessionError, Sessions, StopReason,
    ThinkingLevel,
};
use moltbot_profiles::{PinSource, SessionPin};
use serde_json::{Value, json};

use crate::commands::{agent_arg, json_arg};
use crate::front::{self, Answers};
use crate::out::clean;
use crate::prompt::Spinner;
#[cfg(feature = "lab")]
use crate::sandbox::Sandbox;
use crate::{Context, Exit, Failure, Outcome, why};

/// Describes the command.
pub(crate) fn command(_registry: &Registry) -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let command = Command::new("agent")
        .about("Send a message and stream the reply")
        .arg(
            text("message", "TEXT", "The message; - reads standard input")
                .short('m')
                .allow_hyphen_values(true),
        )
        .arg(text("file", "FILE", "Read the message from a file").conflicts_with("message"))
        .arg(agent_arg())
        .arg(
            Arg::new("continue")
                .long("continue")
                .action(ArgAction::SetTrue)
                .help("Go on with the agent's last session")
                .conflicts_with("session-id"),
        )
        .arg(text("session-id", "ID", "Go on with this session"))
        .arg(text(
            "model",
            "MODEL",
            "Ask this model: an alias, provider/model, or either with @profile",
        ))
        .arg(text("thinking", "LEVEL", "off, minimal, low, medium, high or xhigh"))
        .arg(text("system", "TEXT", "Instructions that stand before the conversation"))
        .arg(
            text("image", "FILE", "Send an image along (PNG, JPEG, GIF, WebP); may be repeated")
                .action(ArgAction::Append)
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            text("max-tokens", "N", "The longest reply, in tokens")
                .value_parser(value_parser!(u64).range(1..)),
        )
        .arg(
            text("timeout", "SECONDS", "Give up after this many seconds [default: 600]")
                .value_parser(value_parser!(u64).range(1..=86_400)),
        )
        .arg(json_arg())
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .help("Say which model and credential would be used and where to; send nothing"),
        )
        // Accepted because scripts pass it; everything is local here.
        .arg(Arg::new("local").long("local").action(ArgAction::SetTrue).hide(true))
        .after_help(EXAMPLES);
    #[cfg(feature = "lab")]
    let command = command.arg(
        Arg::new("lab")
            .long("lab")
            .action(ArgAction::SetTrue)
            .help("Ask a lab server on this machine; nothing of yours is read or sent"),
    );
    command
}

#[cfg(feature = "lab")]
const EXAMPLES: &str = "Examples:\n  moltbot agent -m \"Hello\"\n  moltbot agent -m \"And in French?\" --continue\n  \
     git diff | moltbot agent -m - --system \"Review this change\"\n  \
     moltbot agent --lab -m \"Hello\"";

#[cfg(not(feature = "lab"))]
const EXAMPLES: &str = "Examples:\n  moltbot agent -m \"Hello\"\n  moltbot agent -m \"And in French?\" --continue\n  \
     git diff | moltbot agent -m - --system \"Review this change\"";

/// Runs the command.
pub(crate) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let started = Instant::now();
    let mut request = request(cx, args)?;
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
    if args.get_flag("dry-run") {
        return dry_run(cx, &engine, &request, args.get_flag("json"));
    }
    let mut session = session(cx, args, &Sessions::new(&agent.sessions))?;
    request.history = session.turns().to_vec();
    match session.pin() {
        Some(pin) if pin.source == PinSource::User => request.profile = Some(pin.profile.clone()),
        Some(pin) => request.prefer = Some(pin.profile.clone()),
        None => {}
    }

    let json = args.get_flag("json");
    let reply = converse(cx, &engine, request, json)?;
    why::keep(cx, &agent, &reply);
    let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    match reply {
        Ok(reply) => {
            let now = cx.now();
            let named = args.get_one::<String>("model").is_some_and(|model| model.contains('@'));
            let pin = pin(named, session.pin(), &reply);
            session.append(now, &reply.turns, pin.as_ref()).map_err(session_failed)?;
            finish(cx, &session, &reply, millis, json)
        }
        Err(error) => {
            if json {
                cx.out.json(&failed_json(&session, &error, millis));
            }
            Err(Failure::from(error))
        }
    }
}

/// Reads the flags that make up the message.
fn request(cx: &mut Context, args: &ArgMatches) -> Result<ChatRequest, Failure> {
    let text = |name: &str| args.get_one::<String>(name).cloned();
    let prompt = match (text("message"), text("file")) {
        (Some(dash), _) if dash == "-" => cx.read_stdin()?.expose().to_string(),
        (Some(message), _) => message,
        (None, Some(path)) => std::fs::read_to_string(cx.cwd().join(&path))
            .map_err(|error| Failure::input(format!("cannot read {path}: {error}")))?,
        (None, None) => {
            return Err(Failure::input("a message is missing")
                .hint("pass -m TEXT, -m - to read standard input, or --file FILE"));
        }
    };
    let images: Vec<Image> = args
        .get_many::<PathBuf>("image")
        .unwrap_or_default()
        .map(|path| read_image(cx, path))
        .collect::<Result<_, _>>()?;
    if prompt.trim().is_empty() && images.is_empty() {
        return Err(Failure::input("the message is empty"));
    }
    let thinking = text("thinking")
        .map(|level| {
            level.parse::<ThinkingLevel>().map_err(|error| Failure::input(error.to_string()))
        })
        .transpose()?;
    Ok(ChatRequest {
        model: text("model"),
        system: text("system"),
        prompt,
        images,
        thinking,
        max_tokens: args.get_one::<u64>("max-tokens").copied(),
        timeout_ms: args.get_one::<u64>("timeout").map(|seconds| seconds * 1000),
        ..ChatRequest::default()
    })
}

/// The largest image the service takes.
const IMAGE_BYTES: u64 = 5 * 1024 * 1024;

fn read_image(cx: &Context, path: &PathBuf) -> Result<Image, Failure> {
    let shown = path.display();
    let failed = |error: std::io::Error| Failure::input(format!("cannot read {shown}: {error}"));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(cx.cwd().join(path)).map_err(failed)?;
    file.take(IMAGE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > IMAGE_BYTES {
        return Err(Failure::input(format!("{shown} is larger than 5 MiB")));
    }
    Image::new(bytes).map_err(|reason| Failure::input(format!("{shown}: {reason}")))
}

/// Opens the session that the flags name, else makes a new one.
pub(crate) fn session(
    cx: &Context,
    args: &ArgMatches,
    sessions: &Sessions,
) -> Result<Session, Failure> {
    let id = match args.get_one::<String>("session-id") {
        Some(id) => Some(id.clone()),
        None if args.get_flag("continue") => {
            let last = sessions.last().map_err(session_failed)?;
            let none = || Failure::new("this agent has no session yet").code("session-unknown");
            Some(last.ok_or_else(none)?)
        }
        None => None,
    };
    match id {
        Some(id) => sessions.load(&id).map_err(session_failed),
        None => sessions.create(cx.now()).map_err(session_failed),
    }
}

/// Decides which profile the session holds on to: the one the user named, else the one that
/// answered (spec S-8 to S-10).
pub(crate) fn pin(named: bool, old: Option<&SessionPin>, reply: &ChatReply) -> Option<SessionPin> {
    let profile = reply.profile.clone()?;
    let kept = old.filter(|pin| pin.profile == profile);
    let source = match kept {
        Some(pin) if !named => pin.source,
        _ if named => PinSource::User,
        _ => PinSource::Auto,
    };
    Some(SessionPin { profile, source, compactions: kept.map_or(0, |pin| pin.compactions) })
}

pub(crate) fn session_failed(error: SessionError) -> Failure {
    Failure::new(error.to_string()).code(error.code())
}

/// Sends the request, and streams the reply to standard output unless it is wanted as JSON.
pub(crate) fn converse(
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

fn finish(
    cx: &mut Context,
    session: &Session,
    reply: &ChatReply,
    millis: u64,
    json: bool,
) -> Outcome {
    for note in &reply.notes {
        cx.out.warn(clean(&note.text));
    }
    let refused = matches!(reply.stop, StopReason::Refusal);
    if json {
        cx.out.json(&json!({
            "payloads": [{ "text": reply.text, "mediaUrl": Value::Null }],
            "isError": refused,
            "meta": {
                "durationMs": millis,
                "agentMeta": {
                    "sessionId": session.id(),
                    "provider": reply.model.provider,
                    "model": reply.model.model,
                    "source": reply.source,
                    "usage": usage_json(&reply.usage),
                    "cost": reply.cost,
                    "record": reply.record.id,
                },
            },
        }));
    } else if cx.out.terminal().stderr {
        let line = summary(reply, millis);
        cx.out.note(line);
    }
    if refused {
        return Err(Failure::new("The model refused to answer").code("refused"));
    }
    Ok(Exit::OK)
}

/// One line: model, tokens, cost, credential, time.
pub(crate) fn summary(reply: &ChatReply, millis: u64) -> String {
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

fn usage_json(usage: &Usage) -> Value {
    json!({
        "input": usage.input.unwrap_or(0),
        "output": usage.output.unwrap_or(0),
        "cacheRead": usage.cache_read.unwrap_or(0),
        "cacheWrite": usage.cache_write.unwrap_or(0),
        "total": usage.total(),
    })
}

fn failed_json(session: &Session, error: &ChatError, millis: u64) -> Value {
    json!({
        "payloads": [{ "text": clean(&error.message), "mediaUrl": Value::Null }],
        "isError": true,
        "meta": {
            "durationMs": millis,
            "agentMeta": {
                "sessionId": session.id(),
                "record": error.record.as_ref().map(|record| &record.id),
            },
            "error": { "code": error.code, "message": clean(&error.message) },
        },
    })
}

/// Explains what a request would do, without sending it.
pub(crate) fn dry_run(
    cx: &mut Context,
    engine: &Engine,
    request: &ChatRequest,
    json: bool,
) -> Outcome {
    let explained = engine.explain(request.model.as_deref(), request.profile.as_deref());
    let record = cx.block_on_cancel(explained)??;
    if json {
        cx.out.json(&record);
        return Ok(Exit::OK);
    }
    for line in why::lines(&record, cx.now()) {
        cx.out.line(clean(&line));
    }
    Ok(Exit::OK)
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
