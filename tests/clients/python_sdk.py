"""Checks the official Python SDK (PyPI `anthropic`) against a lab that somebody else started.

Usage: LAB_URL=http://127.0.0.1:PORT python python_sdk.py
Exits 1 when a check fails, with one line for each.
"""

import json
import os
import sys
import urllib.request

import anthropic

LAB = os.environ.get("LAB_URL") or sys.exit("set LAB_URL to the lab's URL, http://127.0.0.1:PORT")
KEY = "sk-ant-api03-FAKEFAKEFAKEFAKE-python"
TOKEN = "sk-ant-oat01-FAKEFAKEFAKEFAKE-python"
MODEL = "claude-opus-4-5"
HELLO = [{"role": "user", "content": "hello from python"}]
SAID = "Hello from the lab. You said: hello from python"
WEATHER = {
    "name": "weather",
    "description": "Tells the weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
    },
}

client = anthropic.Anthropic(api_key=KEY, base_url=LAB, max_retries=0, timeout=10)
checks = []


def check(function):
    checks.append(function)
    return function


def control(path, value=None):
    data = None if value is None else json.dumps(value).encode()
    request = urllib.request.Request(LAB + path, data=data)
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def plan(fault, **more):
    control("/lab/plan", [{"fault": fault, **more}])


def equal(got, wanted):
    if got != wanted:
        raise AssertionError(f"got {got!r}, wanted {wanted!r}")


def raises(kind, call, or_below=False):
    """Returns the error raised; some bodies have a class of their own below their status's."""
    try:
        call()
    except anthropic.APIError as error:
        names = [base.__name__ for base in type(error).__mro__]
        equal(kind if or_below and kind in names else names[0], kind)
        return error
    raise AssertionError(f"no {kind} was raised")


def create(**more):
    return client.messages.create(**{"model": MODEL, "max_tokens": 100, "messages": HELLO, **more})


@check
def create_returns_text_usage_and_request_id():
    message = create()
    equal(message.content[0].text, SAID)
    equal((message.stop_reason, message.model, message.role), ("end_turn", MODEL, "assistant"))
    equal(message.usage.input_tokens > 0 and message.usage.output_tokens > 0, True)
    equal(message._request_id.startswith("req_"), True)


@check
def stream_gives_the_same_message():
    request = {"model": MODEL, "max_tokens": 100, "messages": HELLO}
    with client.messages.stream(**request) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    equal(text, SAID)
    equal(final.usage.output_tokens, create().usage.output_tokens)
    kinds = [event.type for event in create(stream=True)]
    equal((kinds[0], kinds[-1]), ("message_start", "message_stop"))


@check
def thinking_comes_signed_and_goes_back():
    thinking = {"type": "enabled", "budget_tokens": 1024}
    first = create(max_tokens=2000, thinking=thinking)
    equal([block.type for block in first.content], ["thinking", "text"])
    equal(len(first.content[0].signature) > 20, True)
    request = {"model": MODEL, "max_tokens": 2000, "messages": HELLO, "thinking": thinking}
    with client.messages.stream(**request) as stream:
        streamed = stream.get_final_message().content
    equal([streamed[0], streamed[1].text], [first.content[0], first.content[1].text])
    turns = [*HELLO, {"role": "assistant", "content": first.content}, *HELLO]
    equal(create(max_tokens=2000, thinking=thinking, messages=turns).stop_reason, "end_turn")


@check
def a_tool_is_called_and_answered():
    ask = [{"role": "user", "content": "use tool weather"}]
    request = {"model": MODEL, "max_tokens": 200, "messages": ask, "tools": [WEATHER]}
    with client.messages.stream(**request) as stream:
        called = stream.get_final_message()
    equal(called.stop_reason, "tool_use")
    call = called.content[-1]
    equal(call.input, {"city": "lab", "days": 1})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    turns = [
        *ask,
        {"role": "assistant", "content": called.content},
        {"role": "user", "content": [result]},
    ]
    after = create(messages=turns, tools=[WEATHER])
    equal(after.content[0].text, "Hello from the lab. The tool said: sunny")


@check
def cached_prompts_show_in_the_usage():
    control("/lab/reset", {})
    control_1h = {"type": "ephemeral", "ttl": "1h"}
    system = [{"type": "text", "text": "s" * 20_000, "cache_control": control_1h}]
    first, second = create(system=system).usage, create(system=system).usage
    equal(first.cache_creation.ephemeral_1h_input_tokens, 5000)
    equal((second.cache_read_input_tokens, second.input_tokens), (5000, first.input_tokens))


@check
def count_tokens_agrees_with_usage():
    counted = client.messages.count_tokens(model=MODEL, messages=HELLO)
    equal(counted.input_tokens, create().usage.input_tokens)


@check
def beta_and_raw_responses_work():
    message = client.beta.messages.create(
        model=MODEL, max_tokens=100, messages=HELLO, betas=["context-management-2025-06-27"],
        context_management={"edits": []},
    )
    equal(message.content[0].text, SAID)
    raw = client.messages.with_raw_response.create(model=MODEL, max_tokens=9, messages=HELLO)
    limit = int(raw.headers["anthropic-ratelimit-requests-limit"])
    equal(int(raw.headers["anthropic-ratelimit-requests-remaining"]) < limit, True)
    equal(len(raw.headers["anthropic-organization-id"]), 36)


@check
def models_are_listed_over_pages():
    every = [model.id for model in client.models.list(limit=4)]
    equal(every, [model["id"] for model in control_models()])
    equal(client.models.retrieve(MODEL).display_name, "Claude Opus 4.5")
    error = raises("NotFoundError", lambda: client.models.retrieve("nope"))
    equal(error.body["error"]["message"], "model: nope")


def control_models():
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
    request = urllib.request.Request(LAB + "/v1/models?limit=1000", headers=headers)
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)["data"]


@check
def a_bearer_token_sees_subscription_headers():
    bearer = anthropic.Anthropic(auth_token=TOKEN, api_key=None, base_url=LAB, max_retries=0)
    raw = bearer.messages.with_raw_response.create(model=MODEL, max_tokens=9, messages=HELLO)
    equal(raw.headers["anthropic-ratelimit-unified-status"], "allowed")


@check
def every_error_has_its_class_and_body():
    classes = {
        400: "BadRequestError", 401: "AuthenticationError", 402: "PaymentRequiredError",
        403: "PermissionDeniedError", 404: "NotFoundError", 409: "ConflictError",
        413: "ContentTooLargeError", 429: "RateLimitError", 500: "InternalServerError",
        503: "ServiceUnavailableError", 504: "GatewayTimeoutError", 529: "OverloadedError",
    }
    for row in control("/lab/errors")["errors"]:
        plan({"error": row["name"], "retryAfter": 3})
        error = raises(classes[row["status"]], create, or_below=True)
        equal(error.status_code, row["status"])
        equal(error.response.headers["retry-after"], "3")
        if row["status"] != 503:
            equal(error.body["error"]["message"], row["message"])
            equal(error.body["error"]["type"], row["type"])


@check
def the_labs_own_checks_raise_bad_request():
    control("/lab/plan", [])
    error = raises("BadRequestError", lambda: create(extra_body={"colour": 1}))
    equal(error.body["error"]["message"], "colour: Extra inputs are not permitted")
    raises("BadRequestError", lambda: create(max_tokens=-1))
    wrong = anthropic.Anthropic(api_key="wrong", base_url=LAB, max_retries=0)
    raises("AuthenticationError", lambda: wrong.models.list())


@check
def an_error_event_in_the_stream_is_raised():
    plan({"sse": {"error": "overloaded", "afterEvents": 4}})
    # The reply's status was 200, so the SDK has no class for it but the general one.
    error = raises("APIStatusError", lambda: list(create(stream=True)))
    equal(error.body["error"]["message"], "Overloaded")


@check
def unknown_events_and_pings_do_no_harm():
    plan({"sse": {"pings": 3, "flushEvents": True}, "drip": {"eventDelayMs": 1}})
    with client.messages.stream(model=MODEL, max_tokens=100, messages=HELLO) as stream:
        equal(stream.get_final_text(), SAID)


@check
def broken_connections_are_connection_errors():
    for fault in ({"reset": "headers"}, {"reset": "request"}):
        plan(fault)
        raises("APIConnectionError", create)
    plan({"stall": "headers"})
    raises("APITimeoutError", lambda: client.with_options(timeout=0.3).messages.create(
        model=MODEL, max_tokens=9, messages=HELLO))


@check
def the_sdk_retries_what_it_should():
    retrying = client.with_options(max_retries=2)
    request = {"model": MODEL, "max_tokens": 100, "messages": HELLO}
    for error, tries in (("overloaded", 2), ("rate-limit", 2), ("server-error", 2)):
        control("/lab/reset", {})
        plan({"error": error, "headers": {"retry-after-ms": "1"}}, times=1)
        equal(retrying.messages.create(**request).content[0].text, SAID)
        entries = control("/lab/log")["entries"]
        equal([entry["status"] == 200 for entry in entries], [False] * (tries - 1) + [True])
    control("/lab/reset", {})
    plan({"error": "credit-balance"})
    raises("BadRequestError", lambda: retrying.messages.create(**request))
    equal(len(control("/lab/log")["entries"]), 1)


@check
def the_log_holds_no_credential():
    log = json.dumps(control("/lab/log"))
    equal(KEY[13:25] in log, False)


def main():
    try:
        control("/lab/reset", {})
    except OSError as error:
        sys.exit(f"no lab answers at {LAB}: {error}")
    failed = 0
    for function in checks:
        name = function.__name__.replace("_", " ")
        try:
            control("/lab/plan", [])
            function()
        except Exception as error:  # Whatever it is, the other checks go on.
            failed += 1
            print(f"FAILED {name}: {type(error).__name__}: {error}")
    control("/lab/plan", [])
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
