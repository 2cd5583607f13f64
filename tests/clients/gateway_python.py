"""Checks the official Python packages of both vendors (`anthropic`, `openai`) through a gateway
whose service is a lab; somebody else started both.

Usage: GATEWAY_URL=http://127.0.0.1:PORT GATEWAY_TOKEN=... LAB_URL=... python gateway_python.py
Exits 1 when a check fails, with one line for each. A package that is missing is said and skipped.
"""

import base64
import json
import os
import sys
import urllib.request

try:
    import anthropic
except ImportError:
    anthropic = None
try:
    import openai
except ImportError:
    openai = None

GATEWAY, TOKEN, LAB = (os.environ[name] for name in ("GATEWAY_URL", "GATEWAY_TOKEN", "LAB_URL"))
MODEL = "claude-opus-4-5"
HELLO = [{"role": "user", "content": "hello from python"}]
SAID = "Hello from the lab. You said: hello from python"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
}
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\nFAKE").decode()
checks = []


def check(package):
    def add(function):
        if package is not None:
            checks.append(function)
        return function

    return add


def control(path, value=None):
    data = None if value is None else json.dumps(value).encode()
    request = urllib.request.Request(LAB + path, data=data)
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def last():
    return control("/lab/log")["entries"][-1]


def equal(got, wanted):
    if got != wanted:
        raise AssertionError(f"got {got!r}, wanted {wanted!r}")


def raises(kind, call):
    try:
        call()
    except Exception as error:
        equal(type(error).__name__, kind)
        return error
    raise AssertionError(f"no {kind} was raised")


def messages(**more):
    return ours.messages.create(**{"model": MODEL, "max_tokens": 100, "messages": HELLO, **more})


def chat(**more):
    return theirs.chat.completions.create(**{"model": MODEL, "messages": HELLO, **more})


@check(anthropic)
def messages_whole_streamed_and_counted():
    message = messages()
    equal(message.content[0].text, SAID)
    equal((message.stop_reason, message.usage.output_tokens > 0), ("end_turn", True))
    equal(message._request_id.startswith("req_"), True)
    with ours.messages.stream(model=MODEL, max_tokens=100, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    equal((text, final.usage.output_tokens), (SAID, message.usage.output_tokens))
    counted = ours.messages.count_tokens(model=MODEL, messages=HELLO)
    equal(counted.input_tokens, message.usage.input_tokens)


@check(anthropic)
def both_ways_of_sending_the_token_work():
    bearer = anthropic.Anthropic(auth_token=TOKEN, api_key=None, base_url=GATEWAY, max_retries=0)
    request = {"model": MODEL, "max_tokens": 100, "messages": HELLO}
    equal(bearer.messages.create(**request).content[0].text, SAID)
    wrong = anthropic.Anthropic(api_key="wrong", base_url=GATEWAY, max_retries=0)
    error = raises("AuthenticationError", lambda: wrong.messages.create(**request))
    equal(error.body["error"]["type"], "authentication_error")


@check(anthropic)
def a_tool_is_called_and_answered():
    ask = [{"role": "user", "content": "use tool weather"}]
    tools = [{"name": "weather", "input_schema": SCHEMA}]
    with ours.messages.stream(model=MODEL, max_tokens=200, messages=ask, tools=tools) as stream:
        called = stream.get_final_message()
    equal(called.content[-1].input, {"city": "lab", "days": 1})
    result = {"type": "tool_result", "tool_use_id": called.content[-1].id, "content": "sunny"}
    turns = [*ask, {"role": "assistant", "content": called.content},
             {"role": "user", "content": [result]}]
    equal(messages(messages=turns, tools=tools).content[0].text,
          "Hello from the lab. The tool said: sunny")


@check(anthropic)
def betas_raw_replies_and_models_pass():
    raw = ours.beta.messages.with_raw_response.create(
        model=MODEL, max_tokens=100, messages=HELLO, betas=["context-management-2025-06-27"],
        context_management={"edits": []},
    )
    equal(raw.parse().content[0].text, SAID)
    equal(raw.headers["x-moltbot-request-id"].startswith("mb_"), True)
    entry = last()
    headers = dict(entry["headers"])
    equal(headers["anthropic-beta"], "context-management-2025-06-27")
    equal(headers["user-agent"].startswith("Anthropic/Python"), True)
    equal(len(entry["credentials"]), 1)
    every = [model.id for model in ours.models.list(limit=4)]
    equal("claude-opus-5-5" in every and len(every) > 4, True)
    equal(ours.models.retrieve(MODEL).id, MODEL)
    raises("NotFoundError", lambda: ours.models.retrieve("nope"))


@check(anthropic)
def errors_keep_their_class_and_words():
    rows = {row["name"]: row for row in control("/lab/errors")["errors"]}
    for name, kind in (("overloaded", "OverloadedError"), ("server-error", "InternalServerError")):
        control("/lab/plan", [{"fault": {"error": name}}])
        error = raises(kind, messages)
        equal(error.body["error"]["message"], rows[name]["message"])
    control("/lab/plan", [])
    error = raises("BadRequestError", lambda: messages(extra_body={"colour": 1}))
    equal(error.body["error"]["message"], "colour: Extra inputs are not permitted")


@check(openai)
def completions_whole_and_streamed():
    whole = chat()
    choice = whole.choices[0]
    equal((choice.message.content, choice.finish_reason), (SAID, "stop"))
    equal(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens)
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    equal("".join(c.choices[0].delta.content or "" for c in chunks if c.choices), SAID)
    equal([c.choices[0].finish_reason for c in chunks if c.choices][-1], "stop")
    equal(chunks[-1].usage, whole.usage)
    equal({c.object for c in chunks}, {"chat.completion.chunk"})


@check(openai)
def a_function_is_called_and_answered():
    ask = [{"role": "user", "content": "use tool weather"}]
    tools = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
    message = chat(messages=ask, tools=tools).choices[0].message
    call = message.tool_calls[0]
    equal((call.function.name, json.loads(call.function.arguments)),
          ("weather", {"city": "lab", "days": 1}))
    pieces = [c.choices[0] for c in chat(messages=ask, tools=tools, stream=True) if c.choices]
    arguments = "".join(
        call.function.arguments or "" for c in pieces for call in c.delta.tool_calls or [])
    equal((json.loads(arguments), pieces[-1].finish_reason),
          ({"city": "lab", "days": 1}, "tool_calls"))
    turns = [*ask, message.model_dump(exclude_none=True),
             {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    equal(chat(messages=turns, tools=tools).choices[0].message.content,
          "Hello from the lab. The tool said: sunny")


@check(openai)
def images_stops_formats_and_effort_are_translated():
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    turns = [{"role": "system", "content": "Be brief."},
             {"role": "user", "content": [{"type": "text", "text": "look"}, image]}]
    chat(messages=turns, stop=["END"], temperature=0.5, max_completion_tokens=77)
    body = last()["body"]
    equal(body["messages"][0]["content"][1]["source"],
          {"type": "base64", "media_type": "image/png", "data": PIXEL})
    equal((body["stop_sequences"], body["temperature"], body["max_tokens"]), (["END"], 0.5, 77))
    equal(body["system"][0]["text"], "Be brief.")
    chat(reasoning_effort="medium", max_completion_tokens=9_000)
    equal(last()["body"]["thinking"], {"type": "enabled", "budget_tokens": 8_192})
    chat(model="claude-opus-5-5", reasoning_effort="high")
    body = last()["body"]
    equal((body["thinking"]["type"], body["output_config"]["effort"]), ("adaptive", "high"))
    schema = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA}}
    chat(model="claude-opus-5-5", response_format=schema)
    equal(last()["body"]["output_config"]["format"], {"type": "json_schema", "schema": SCHEMA})
    chat(response_format={"type": "json_object"})


@check(openai)
def errors_and_models_are_in_its_shape():
    raises("AuthenticationError", lambda: openai.OpenAI(
        api_key="wrong", base_url=GATEWAY + "/v1", max_retries=0).chat.completions.create(
            model=MODEL, messages=HELLO))
    error = raises("BadRequestError", lambda: chat(messages=[]))
    equal(error.body["message"], "Missing user message in `messages`.")
    control("/lab/plan", [{"fault": {"sse": {"error": "overloaded", "afterEvents": 4}}}])
    raises("APIError", lambda: list(chat(stream=True)))
    control("/lab/plan", [])
    ids = [model.id for model in theirs.models.list()]
    equal(MODEL in ids, True)
    equal(theirs.models.retrieve(MODEL).object, "model")
    raises("NotFoundError", lambda: theirs.models.retrieve("nope"))


def respond(**more):
    return theirs.responses.create(**{"model": MODEL, "input": HELLO, **more})


@check(openai)
def responses_whole_and_streamed():
    whole = respond(instructions="Be brief.")
    equal((whole.output_text, whole.status, whole.store), (SAID, "completed", False))
    equal(whole.usage.total_tokens, whole.usage.input_tokens + whole.usage.output_tokens)
    equal(last()["body"]["system"][0]["text"], "Be brief.")
    with theirs.responses.stream(
            model=MODEL, input=HELLO, instructions="Be brief.") as stream:
        events = list(stream)
        final = stream.get_final_response()
    equal("".join(e.delta for e in events if e.type == "response.output_text.delta"), SAID)
    equal([e.sequence_number for e in events], list(range(len(events))))
    equal((final.output_text, final.id, final.usage), (SAID, whole.id, whole.usage))
    schema = {"type": "json_schema", "name": "weather", "schema": SCHEMA, "strict": True}
    respond(model="claude-opus-5-5", text={"format": schema}, reasoning={"effort": "low"})
    config = last()["body"]["output_config"]
    equal(config, {"format": {"type": "json_schema", "schema": SCHEMA}, "effort": "low"})


@check(openai)
def an_agent_thinks_calls_and_goes_on():
    turns = [{"role": "user", "content": "use tool weather"}]
    more = {"model": "claude-opus-5-5", "reasoning": {"effort": "high", "summary": "auto"},
            "tools": [{"type": "function", "name": "weather", "parameters": SCHEMA}]}
    with theirs.responses.stream(input=turns, **more) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()
    equal("response.reasoning_summary_text.delta" in kinds, True)
    equal("response.function_call_arguments.done" in kinds, True)
    call = final.output[-1]
    equal((call.name, json.loads(call.arguments)), ("weather", {"city": "lab", "days": 1}))
    turns += [item.model_dump(exclude_none=True) for item in final.output]
    turns += [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    equal(respond(input=turns, **more).output_text, "Hello from the lab. The tool said: sunny")
    equal(last()["body"]["messages"][1]["content"][0]["type"], "thinking")


@check(openai)
def failed_responses_are_in_its_shape():
    error = raises("BadRequestError", lambda: respond(previous_response_id="resp_1"))
    equal("nothing is stored" in error.body["message"], True)
    error = raises("BadRequestError", lambda: respond(tools=[{"type": "web_search"}]))
    equal('"web_search"' in error.body["message"], True)
    raises("NotFoundError", lambda: theirs.responses.retrieve("resp_1"))
    control("/lab/plan", [{"fault": {"sse": {"error": "overloaded", "afterEvents": 4}}}])
    ends = list(respond(stream=True))[-1]
    equal((ends.type, ends.response.error.message), ("response.failed", "Overloaded"))


# The last one: the only credential rests afterwards.
@check(openai)
def a_limit_is_a_limit():
    control("/lab/plan", [{"fault": {"error": "rate-limit", "retryAfter": 600}}])
    equal(bool(raises("RateLimitError", chat).body["message"]), True)
    error = raises("RateLimitError", chat)
    equal(int(error.response.headers["retry-after"]) > 60, True)


if anthropic is not None:
    ours = anthropic.Anthropic(api_key=TOKEN, base_url=GATEWAY, max_retries=0, timeout=60)
if openai is not None:
    theirs = openai.OpenAI(api_key=TOKEN, base_url=GATEWAY + "/v1", max_retries=0, timeout=60)


def main():
    for name, package in (("anthropic", anthropic), ("openai", openai)):
        if package is None:
            print(f"SKIPPED: the Python package {name} is not installed")
    failed = 0
    for function in checks:
        try:
            control("/lab/plan", [])
            function()
        except Exception as error:  # Whatever it is, the other checks go on.
            failed += 1
            name = function.__name__.replace("_", " ")
            print(f"FAILED {name}: {type(error).__name__}: {error}")
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
