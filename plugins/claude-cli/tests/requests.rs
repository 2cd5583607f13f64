//! Chats as runs of the program: what is passed on, how, and what is refused by its name.

#![allow(clippy::unwrap_used)] // helpers of tests, not only tests

use moltbot_core::{
    ChatView, Credential, CredentialKind, CredentialView, Exchange, Op, Origin, Provider,
    ProviderError, Secret, Slot, Text, Timestamp,
};
use moltbot_plugin_claude_cli::ClaudeCli;
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::from_millis(1_795_370_000_000);

fn login() -> Credential {
    Credential::new(CredentialKind::None, "claude-cli")
}

fn ask_as(view: &ChatView<'_>, credential: &Credential) -> Result<Exchange, ProviderError> {
    ClaudeCli.request(view, &CredentialView::of(credential), NOW)
}

fn view(body: &Value) -> ChatView<'static> {
    let mut view = moltbot_testkit::chat(&ClaudeCli.info(), &body.to_string());
    view.model = "sonnet".into();
    view
}

fn hi() -> Value {
    json!({"model": "sonnet", "max_tokens": 2_000, "messages": [{"role": "user", "content": "hi"}]})
}

fn with(name: &str, value: Value) -> Value {
    let mut body = hi();
    body[name] = value;
    body
}

struct Ran {
    args: Vec<String>,
    env: Vec<(Text, Slot)>,
    input: Vec<Value>,
    warm: Vec<Value>,
    key: String,
}

fn run(exchange: Exchange) -> Ran {
    let Exchange::Run { program, args, env, input, reuse: Some(reuse), .. } = exchange else {
        panic!("{exchange:?}")
    };
    assert_eq!(program, "claude");
    let lines = |text: &str| text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let args = args.iter().map(ToString::to_string).collect();
    let (input, warm) = (lines(&input), lines(&reuse.input));
    Ran { args, env, input, warm, key: reuse.key }
}

fn ask(body: &Value) -> Ran {
    run(ask_as(&view(body), &login()).unwrap())
}

#[test]
fn no_tools_no_settings_no_session_files() {
    let ran = ask(&hi());
    assert_eq!(ran.args.last().unwrap(), "", "`--tools ''` takes all that follows, so it is last");
    assert_eq!(ran.args[ran.args.len() - 2], "--tools");
    for flag in ["--strict-mcp-config", "--disable-slash-commands"] {
        assert!(ran.args.iter().any(|arg| arg == flag), "{flag}");
    }
    // Our own chats go on with the program's session; of a client's nothing stays on the disk.
    let kept = |ran: &Ran| !ran.args.iter().any(|arg| arg == "--no-session-persistence");
    assert!(kept(&ran));
    let body = hi();
    let forwarded = ChatView { origin: Origin::Forwarded, ..view(&body) };
    assert!(!kept(&run(ask_as(&forwarded, &login()).unwrap())));
    let at = ran.args.iter().position(|arg| arg == "--setting-sources").unwrap();
    assert_eq!(ran.args[at + 1], "");
    assert!(!ran.args.iter().any(|arg| arg.contains("dangerously")));
    let attachments = ran.env.iter().find(|(name, _)| name == "CLAUDE_CODE_DISABLE_ATTACHMENTS");
    assert!(attachments.is_some(), "text with @path would read files");
}

#[test]
fn the_conversation_is_not_on_the_command_line() {
    let ran = ask(&with("system", json!([{"type": "text", "text": "SYSTEM-MARK"}])));
    assert!(!ran.args.iter().any(|arg| arg.contains("MARK") || arg.contains("hi")));
    assert_eq!(ran.input[0]["request"]["systemPrompt"], "SYSTEM-MARK");
    assert_eq!(ask(&hi()).input[0]["request"]["systemPrompt"], "", "not the program's own");
}

#[test]
fn a_slash_is_text() {
    let mut body = hi();
    body["messages"][0]["content"] = json!("/clear");
    let ran = ask(&body);
    assert_eq!(ran.warm[0]["message"]["content"][0]["text"], " /clear");
}

#[test]
fn a_warm_process_gets_the_last_message_and_a_fresh_one_all() {
    let mut body = hi();
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}, "cache_control": {"type": "ephemeral"}});
    body["messages"] = json!([
        {"role": "user", "content": [{"type": "text", "text": "ONE"}, image]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "FAKE"}, {"type": "text", "text": "TWO\"}"}]},
        {"role": "user", "content": "THREE"},
    ]);
    let ran = ask(&body);
    assert_eq!(ran.warm.len(), 1);
    assert_eq!(ran.warm[0]["message"]["content"], json!([{"type": "text", "text": "THREE"}]));
    let content = ran.input[1]["message"]["content"].as_array().unwrap();
    assert_eq!(content.last().unwrap()["text"], "THREE");
    assert_eq!(content[1]["type"], "image");
    assert_eq!(content[1].get("cache_control"), None);
    assert!(content[0]["text"].as_str().unwrap().contains("ONE"));
    assert!(content[2]["text"].as_str().unwrap().contains(r#""text":"TWO\"}""#), "{content:?}");
    assert_eq!(ran.key, ask(&hi()).key, "the conversation itself is the host's to compare");
}

#[test]
fn what_a_process_cannot_change_is_in_the_key() {
    let key = |body: Value| ask(&body).key;
    let mut keys = vec![
        key(hi()),
        key(with("system", json!("other"))),
        key(with("max_tokens", json!(101))),
        key(with("thinking", json!({"type": "disabled"}))),
        key(with("output_config", json!({"effort": "low"}))),
    ];
    let mut other = view(&hi());
    other.model = "opus".into();
    keys.push(run(ask_as(&other, &login()).unwrap()).key);
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), count);
}

/// The program thinks by itself, with a budget just under the length of the reply, and the service
/// takes no budget under 1,024.
#[test]
fn a_reply_too_short_to_think_for_is_asked_for_without_thinking() {
    let set = |body: &Value| {
        let env = ask(body).env;
        env.contains(&("CLAUDE_CODE_DISABLE_THINKING".into(), Slot::literal("1")))
    };
    for (most, wanted) in [(1, true), (1_024, true), (1_025, false)] {
        assert_eq!(set(&with("max_tokens", json!(most))), wanted, "{most}");
    }
    let mut body = hi();
    body.as_object_mut().unwrap().remove("max_tokens");
    assert!(!set(&body), "as long as the program likes");
    let mut body = with("thinking", json!({"type": "adaptive"}));
    body["max_tokens"] = json!(50);
    assert!(!set(&body), "it was asked for");
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let tool = json!({"name": "t", "input_schema": {}});
    let result = json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]});
    for (name, value) in [
        ("tools", json!([tool])),
        ("tool_choice", json!({"type": "auto"})),
        ("temperature", json!(0.5)),
        ("top_p", json!(0.5)),
        ("top_k", json!(5)),
        ("stop_sequences", json!(["x"])),
        ("metadata", json!({"user_id": "x"})),
        ("a_new_member", json!(1)),
        ("output_config", json!({"format": "json"})),
        ("max_tokens", json!(0)),
        ("system", json!([{"type": "image"}])),
        ("messages", json!([])),
        ("messages", json!([result])),
        ("messages", json!([{"role": "assistant", "content": "x"}])),
        ("messages", json!([{"role": "system", "content": "x"}])),
    ] {
        let error = ask_as(&view(&with(name, value)), &login()).unwrap_err();
        let ProviderError::Invalid { message } = &error else { panic!("{name}: {error:?}") };
        assert!(message.contains(name) || name == "messages", "{name}: {message}");
    }
    let mut counting = view(&hi());
    counting.op = Op::CountTokens;
    let error = ask_as(&counting, &login()).unwrap_err().to_string();
    assert!(error.contains("count tokens"), "{error}");
    for model in ["--dangerously-skip-permissions", "", "a b", "x\ny"] {
        let mut odd = view(&hi());
        odd.model = model.into();
        assert!(ask_as(&odd, &login()).is_err(), "{model:?}");
    }
}

#[test]
fn the_token_reaches_the_program_by_its_own_variable_only() {
    let token = Credential::token("anthropic", Secret::new("sk-ant-oat01-FAKE0123456789"), None);
    let ran = run(ask_as(&view(&hi()), &token).unwrap());
    let secrets: Vec<_> =
        ran.env.iter().filter(|(_, slot)| matches!(slot, Slot::Secret { .. })).collect();
    assert_eq!(secrets, [&("CLAUDE_CODE_OAUTH_TOKEN".into(), Slot::secret("", "token"))]);
    assert!(
        !ask(&hi()).env.iter().any(|(name, _)| name.contains("TOKEN") && name.contains("OAUTH"))
    );
    let key = Credential::api_key("anthropic", Secret::new("sk-ant-api03-FAKE0123456789"));
    assert!(matches!(ask_as(&view(&hi()), &key), Err(ProviderError::Credential { .. })));
}

#[test]
fn the_owners_login_goes_to_its_own_service_only() {
    let mut elsewhere = view(&hi());
    elsewhere.base_url = "http://127.0.0.1:9".into();
    assert!(matches!(ask_as(&elsewhere, &login()), Err(ProviderError::Credential { .. })));
    let token = Credential::token("anthropic", Secret::new("sk-ant-oat01-FAKE0123456789"), None);
    let ran = run(ask_as(&elsewhere, &token).unwrap());
    assert!(ran.env.contains(&("ANTHROPIC_BASE_URL".into(), Slot::literal("http://127.0.0.1:9"))));
    assert!(!ask(&hi()).env.iter().any(|(name, _)| name.starts_with("ANTHROPIC_")));
}

#[test]
fn its_own_tools_run_only_if_the_config_names_them() {
    let mut view = view(&hi());
    view.params = std::borrow::Cow::Owned(json!({"tools": ["WebSearch", "Read"]}));
    let ran = run(ask_as(&view, &login()).unwrap());
    assert_eq!(
        ran.args[ran.args.len() - 4..],
        ["--allowedTools", "WebSearch,Read", "--tools", "WebSearch,Read"]
    );
    for odd in [json!(["--x"]), json!([1]), json!("Read"), json!(["Bash(rm *)"])] {
        view.params = std::borrow::Cow::Owned(json!({"tools": odd}));
        assert!(ask_as(&view, &login()).is_err());
    }
}
