//! From a chat to one run of the program: arguments, variables, input lines.
//!
//! Each flag was tried with the real program; what it does stands beside it.

use moltbot_core::{
    ChatView, CredentialKind, CredentialView, Exchange, Op, Origin, ProviderError, Resume, Reuse,
    Slot, Text,
};
use serde_json::{Map, Value, json};

use crate::decoder::NO_SESSION;
use crate::info::{ID, PROGRAM, SERVICE};

/// How long an idle program is kept: the prompt cache of the service lives as long.
const IDLE_MS: u64 = 5 * 60_000;

/// The smallest budget for thinking that the service takes. A reply must be longer than its budget,
/// and the program thinks unless it is told not to: a shorter one would be refused.
const LEAST_BUDGET: u64 = 1_024;

/// The members of a request that can be kept. Anything else is refused by its name.
const MEMBERS: [&str; 7] =
    ["model", "messages", "system", "max_tokens", "stream", "thinking", "output_config"];

/// Variables of every run.
const VARIABLES: [(&str, &str); 11] = [
    // Text with `@path` in it would read that file, also with all tools off.
    ("CLAUDE_CODE_DISABLE_ATTACHMENTS", "1"),
    ("CLAUDE_CODE_DISABLE_AUTO_MEMORY", "1"),
    ("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "1"),
    ("CLAUDE_CODE_DISABLE_CLAUDE_MDS", "1"),
    ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    // A stream that breaks off would be asked for again, and the answer spliced.
    ("CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK", "1"),
    // The host decides what follows a failure; one try is left for a login that renews itself.
    ("CLAUDE_CODE_MAX_RETRIES", "1"),
    // The program belongs to the user, who did not ask for another version of it.
    ("DISABLE_AUTOUPDATER", "1"),
    ("DISABLE_AUTO_COMPACT", "1"),
    ("DISABLE_ERROR_REPORTING", "1"),
    ("DISABLE_TELEMETRY", "1"),
];

/// Translates a chat into one run. Pure.
pub(crate) fn request(
    chat: &ChatView<'_>,
    with: &CredentialView<'_>,
) -> Result<Exchange, ProviderError> {
    let body = body(chat)?;
    let model = model(&chat.model)?;
    let mut env = variables(chat, with)?;
    let mut args: Vec<Text> = [
        "-p",
        "--input-format",
        "stream-json",
        "--output-format",
        "stream-json",
        // Without it stream-json output is refused.
        "--verbose",
        "--include-partial-messages",
        // Empty: neither the user's nor the directory's settings, hence no hooks of theirs.
        "--setting-sources",
        "",
        // Without `--mcp-config` this means no server at all.
        "--strict-mcp-config",
        "--disable-slash-commands",
        "--model",
    ]
    .map(Text::from)
    .to_vec();
    args.push(model.into());
    let resume = match chat.origin {
        Origin::Composed => Some(()),
        // Of what a client of a gateway says nothing is left on the disk.
        Origin::Forwarded => {
            args.push("--no-session-persistence".into());
            None
        }
    };
    reasoning(&body, &mut args, &mut env)?;
    tools(chat, &mut args)?;
    let messages = messages(&body)?;
    let (last, before) = messages.split_last().ok_or_else(|| invalid("messages: at least one"))?;
    if last.role != "user" {
        return Err(invalid("the last message must be the user's: claude cannot continue a reply"));
    }
    let first = json!({
        "type": "control_request",
        "request_id": "start",
        "request": {"subtype": "initialize", "systemPrompt": system(&body)?},
    });
    let mut content = replayed(before);
    content.extend(last.content.iter().cloned());
    // Everything that a process cannot change any more once it runs.
    let key = json!([ID, args, env, first]).to_string();
    let message = line(last.content.clone());
    let resume = resume.map(|()| Resume {
        begin: ["--session-id", "{new}"].map(Text::from).to_vec(),
        // The old session stays as it is: somebody else may go on with it too.
        go_on: ["--resume", "{old}", "--fork-session", "--session-id", "{new}"]
            .map(Text::from)
            .to_vec(),
        input: format!("{first}\n{message}"),
        gone: NO_SESSION.into(),
    });
    Ok(Exchange::Run {
        program: PROGRAM.into(),
        args,
        env,
        input: format!("{first}\n{}", line(content)),
        reuse: Some(Reuse { key, input: message, resume }),
        cancel_input: Some(cancel()),
        idle_ms: IDLE_MS,
    })
}

fn invalid(message: impl Into<String>) -> ProviderError {
    ProviderError::Invalid { message: message.into() }
}

fn body(chat: &ChatView<'_>) -> Result<Map<String, Value>, ProviderError> {
    match chat.op {
        Op::Messages => {}
        Op::CountTokens => return Err(invalid("claude cannot count tokens exactly")),
        _ => return Err(invalid("claude can only answer messages")),
    }
    let beta = chat.headers.iter().any(|h| h.name.eq_ignore_ascii_case("anthropic-beta"));
    if beta && chat.origin == Origin::Forwarded {
        return Err(invalid(
            "anthropic-beta: betas of the client cannot be used with claude-cli; claude sets its own",
        ));
    }
    let text = chat.body.as_deref().unwrap_or_default();
    let body: Map<String, Value> = serde_json::from_str(text)
        .map_err(|error| invalid(format!("the body is not a JSON object: {error}")))?;
    let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    let unknown =
        body.iter().find(|(name, value)| !MEMBERS.contains(&name.as_str()) && !is_empty(value));
    match unknown {
        Some((name, _)) if name == "tools" || name == "tool_choice" => Err(invalid(format!(
            "{name}: tools of the client cannot be used with claude-cli; claude runs its own"
        ))),
        Some((name, _)) => Err(invalid(format!("{name}: not available with claude-cli"))),
        None => Ok(body),
    }
}

/// Takes a model's name; it becomes an argument.
fn model(name: &str) -> Result<String, ProviderError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-[]:@".contains(c);
    if name.is_empty() || name.starts_with('-') || name.len() > 128 || !name.chars().all(plain) {
        return Err(invalid("model: not a name that claude takes"));
    }
    Ok(name.to_string())
}

fn variables(
    chat: &ChatView<'_>,
    with: &CredentialView<'_>,
) -> Result<Vec<(Text, Slot)>, ProviderError> {
    let credential = |message: &str| ProviderError::Credential { message: message.into() };
    let mut env: Vec<(Text, Slot)> =
        VARIABLES.map(|(name, value)| (name.into(), Slot::literal(value))).to_vec();
    let elsewhere = chat.base_url.trim_end_matches('/') != SERVICE && !chat.base_url.is_empty();
    match &with.kind {
        CredentialKind::None if elsewhere => {
            return Err(credential(
                "Claude Code's own login is only used with Anthropic's service; store a token for another baseUrl",
            ));
        }
        CredentialKind::None => {}
        CredentialKind::Token if with.has.iter().any(|name| name == "token") => {
            env.push(("CLAUDE_CODE_OAUTH_TOKEN".into(), Slot::secret("", "token")));
        }
        other => {
            return Err(credential(&format!(
                "claude takes its own login or a setup-token, not a credential of type \"{other}\""
            )));
        }
    }
    if elsewhere {
        let url = chat.base_url.to_string();
        if url.contains(char::is_control) {
            return Err(invalid("the base address holds control characters"));
        }
        env.push(("ANTHROPIC_BASE_URL".into(), Slot::literal(url)));
    }
    Ok(env)
}

/// Sets length and reasoning, which are fixed for a process.
fn reasoning(
    body: &Map<String, Value>,
    args: &mut Vec<Text>,
    env: &mut Vec<(Text, Slot)>,
) -> Result<(), ProviderError> {
    let mut set = |name: &'static str, value: String| env.push((name.into(), Slot::literal(value)));
    let mut short = false;
    if let Some(most) = body.get("max_tokens") {
        let most = most.as_u64().filter(|most| *most > 0);
        let most = most.ok_or_else(|| invalid("max_tokens: must be a positive integer"))?;
        set("CLAUDE_CODE_MAX_OUTPUT_TOKENS", most.to_string());
        short = most <= LEAST_BUDGET;
    }
    let thinking = body.get("thinking").unwrap_or(&Value::Null);
    match thinking["type"].as_str() {
        Some("disabled") => set("CLAUDE_CODE_DISABLE_THINKING", "1".into()),
        Some("enabled") => {
            let budget = thinking["budget_tokens"].as_u64().filter(|budget| *budget > 0);
            let budget = budget.ok_or_else(|| invalid("thinking.budget_tokens: required"))?;
            set("MAX_THINKING_TOKENS", budget.to_string());
        }
        Some("adaptive") => {}
        None if thinking.is_null() && short => set("CLAUDE_CODE_DISABLE_THINKING", "1".into()),
        None if thinking.is_null() => {}
        _ => return Err(invalid("thinking.type: unknown")),
    }
    let config = body.get("output_config").and_then(Value::as_object);
    for (name, value) in config.into_iter().flatten() {
        match (name.as_str(), value.as_str()) {
            ("effort", Some(effort @ ("low" | "medium" | "high" | "xhigh" | "max"))) => {
                args.push("--effort".into());
                args.push(effort.to_string().into());
            }
            _ => {
                return Err(invalid(format!(
                    "output_config.{name}: not available with claude-cli"
                )));
            }
        }
    }
    Ok(())
}

/// Names the program's own tools. `--tools` takes every word that follows, so it stands last.
fn tools(chat: &ChatView<'_>, args: &mut Vec<Text>) -> Result<(), ProviderError> {
    let listed = &chat.params["tools"];
    let names: Vec<&str> =
        listed.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let plain = |name: &&str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if !listed.is_null()
        && (!names.iter().all(plain)
            || listed.as_array().is_none_or(|all| all.len() != names.len()))
    {
        return Err(invalid("params.tools of the config: a list of names of Claude Code's tools"));
    }
    let names = names.join(",");
    if !names.is_empty() {
        args.push("--allowedTools".into());
        args.push(names.clone().into());
    }
    args.push("--tools".into());
    args.push(names.into());
    Ok(())
}

/// One message, as far as the program can take it.
struct Message {
    role: &'static str,
    content: Vec<Value>,
}

fn messages(body: &Map<String, Value>) -> Result<Vec<Message>, ProviderError> {
    let listed = body.get("messages").and_then(Value::as_array);
    let listed = listed.ok_or_else(|| invalid("messages: required"))?;
    listed
        .iter()
        .enumerate()
        .map(|(n, message)| {
            let role = match message["role"].as_str() {
                Some("user") => "user",
                Some("assistant") => "assistant",
                _ => return Err(invalid(format!("messages.{n}.role: must be user or assistant"))),
            };
            let content = match &message["content"] {
                Value::String(text) => vec![text_block(text)],
                Value::Array(blocks) => {
                    let mut content = Vec::new();
                    for (at, block) in blocks.iter().enumerate() {
                        content.extend(self::block(block, &format!("messages.{n}.content.{at}"))?);
                    }
                    content
                }
                _ => return Err(invalid(format!("messages.{n}.content: required"))),
            };
            Ok(Message { role, content })
        })
        .collect()
}

/// Takes a block without its cache marker, which the program sets itself. Reasoning of earlier
/// turns is left to the process that still knows it.
fn block(block: &Value, place: &str) -> Result<Option<Value>, ProviderError> {
    match block["type"].as_str() {
        Some("text") => Ok(block["text"].as_str().map(text_block)),
        Some("image" | "document") => {
            if block["source"]["type"] == "file" {
                return Err(invalid(format!(
                    "{place}: files of the Files API cannot be sent to claude-cli"
                )));
            }
            let mut block = block.clone();
            if let Some(members) = block.as_object_mut() {
                members.remove("cache_control");
            }
            Ok(Some(block))
        }
        Some("thinking" | "redacted_thinking") => Ok(None),
        Some(kind) => Err(invalid(format!("{place}: {kind} blocks cannot be sent to claude-cli"))),
        None => Err(invalid(format!("{place}.type: required"))),
    }
}

/// A text that begins with a slash would be taken as a command of the program; a space before it
/// keeps it text.
fn text_block(text: &str) -> Value {
    let before = if text.starts_with('/') { " " } else { "" };
    json!({"type": "text", "text": format!("{before}{text}")})
}

fn system(body: &Map<String, Value>) -> Result<String, ProviderError> {
    match body.get("system").unwrap_or(&Value::Null) {
        // Empty, not absent: without one the program would use its own.
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(blocks) => {
            let texts: Option<Vec<&str>> =
                blocks.iter().map(|block| block["text"].as_str()).collect();
            let texts = texts.ok_or_else(|| invalid("system: only text blocks"))?;
            Ok(texts.join("\n\n"))
        }
        _ => Err(invalid("system: text or text blocks")),
    }
}

/// Tells a fresh process what was said before. It takes no replies of an assistant as input, so
/// they come as text, one JSON object per line, images in between.
fn replayed(before: &[Message]) -> Vec<Value> {
    if before.is_empty() {
        return Vec::new();
    }
    let mut text = String::from(
        "The conversation so far, one JSON object per line. Answer only the message after it.\n",
    );
    let mut blocks = Vec::new();
    for message in before {
        for block in &message.content {
            match block["text"].as_str() {
                Some(said) => {
                    text += &json!({"role": message.role, "text": said}).to_string();
                    text.push('\n');
                }
                None => {
                    text +=
                        &json!({"role": message.role, "attached": "the next block"}).to_string();
                    blocks.push(json!({"type": "text", "text": std::mem::take(&mut text)}));
                    blocks.push(block.clone());
                }
            }
        }
    }
    text += "End of the conversation so far.";
    blocks.push(json!({"type": "text", "text": text}));
    blocks
}

fn line(content: Vec<Value>) -> String {
    let message = json!({"type": "user", "message": {"role": "user", "content": content}});
    format!("{message}\n")
}

fn cancel() -> String {
    let request = json!({"subtype": "interrupt"});
    let line = json!({"type": "control_request", "request_id": "stop", "request": request});
    format!("{line}\n")
}
