//! `moltbot agent`: one turn of a conversation, streamed.

use std::io::Read;
use std::path::PathBuf;
use std::time::Instant;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use moltbot_core::{Registry, Usage};
use moltbot_gateway::{
    ChatError, ChatReply, ChatRequest, Engine, Image, StopReason, ThinkingLevel,
};
use serde_json::{Value, json};

use super::talk::{self, Talk};
use crate::commands::json_arg;
use crate::out::clean;
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
        .arg(text("file", "FILE", "Read the message from a file").conflicts_with("message"));
    talk::with_args(command)
        .arg(text("thinking", "LEVEL", "off, minimal, low, medium, high or xhigh"))
        .arg(text("system", "TEXT", "Instructions that stand before the conversation"))
        .arg(
            text("image", "FILE", "Send an image along (PNG, JPEG, GIF, WebP); may be repeated")
                .action(ArgAction::Append)
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            text("max-tokens", "N", "The longest reply, in tokens")
                .allow_negative_numbers(true)
                .value_parser(value_parser!(u64).range(1..)),
        )
        .arg(
            text("timeout", "SECONDS", "Give up after this many seconds [default: 600]")
                .allow_negative_numbers(true)
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
        .after_help(EXAMPLES)
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
    let began = Instant::now();
    let request = request(cx, args)?;
    let mut talk = Talk::start(cx, args)?;
    let json = args.get_flag("json");
    if args.get_flag("dry-run") {
        return dry_run(cx, &talk.engine, &request, json);
    }
    talk.open(cx, args)?;
    let reply = talk.turn(cx, request, json)?;
    let millis = talk::millis_since(began);
    let ended = match reply {
        Ok(reply) => finish(cx, &talk, &reply, millis, json),
        Err(error) => {
            let failure = why::failure(&error);
            if json {
                cx.out.json(&failed_json(&talk, &error, &failure, millis));
            }
            Err(failure)
        }
    };
    // A program of the user's that answered may want to write down the conversation.
    cx.block_on(talk.engine.end_programs())?;
    ended
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

fn finish(cx: &mut Context, talk: &Talk, reply: &ChatReply, millis: u64, json: bool) -> Outcome {
    let refused = matches!(reply.stop, StopReason::Refusal);
    if json {
        cx.out.json(&json!({
            "payloads": [{ "text": reply.text, "mediaUrl": Value::Null }],
            "isError": refused,
            "meta": {
                "durationMs": millis,
                "agentMeta": {
                    "sessionId": talk.session().id(),
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
        let line = talk::summary(reply, millis);
        cx.out.note(line);
    }
    if refused {
        return Err(Failure::new("The model refused to answer").code("refused"));
    }
    Ok(Exit::OK)
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

fn failed_json(talk: &Talk, error: &ChatError, failure: &Failure, millis: u64) -> Value {
    let record = error.record.as_deref();
    json!({
        "payloads": [{ "text": clean(&error.message), "mediaUrl": Value::Null }],
        "isError": true,
        "meta": {
            "durationMs": millis,
            "agentMeta": {
                "sessionId": talk.session().id(),
                "record": record.map(|record| &record.id),
            },
            "error": {
                "code": error.code,
                "message": clean(&error.message),
                "advice": failure.hint,
                "mend": failure.mend,
                "attempts": record.map(|record| &record.attempts),
            },
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
        let indent = if line.starts_with(' ') { 5 } else { 14 };
        cx.out.wrapped(clean(&line), indent);
    }
    Ok(Exit::OK)
}
