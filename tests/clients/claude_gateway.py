"""Asks the user's own `claude` through a gateway with the official Python SDK (PyPI `anthropic`).

Usage: python claude_gateway.py GATEWAY_URL GATEWAY_TOKEN
Exits 1 when a check fails.
"""

import sys

import anthropic

URL, TOKEN = sys.argv[1:]
SAID = "Hello from the lab. You said: hello from python"
ASKED = {
    "model": "claude-cli/sonnet",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hello from python"}],
}

client = anthropic.Anthropic(api_key=TOKEN, base_url=URL, max_retries=0, timeout=120)


def text(message):
    return "".join(block.text for block in message.content if block.type == "text")


reply = client.messages.create(**ASKED)
assert text(reply) == SAID, reply
assert reply.stop_reason == "end_turn" and reply.usage.output_tokens > 0, reply

with client.messages.stream(**ASKED) as stream:
    streamed = "".join(stream.text_stream)
    final = stream.get_final_message()
assert streamed == SAID and text(final) == SAID, (streamed, final)

history = ASKED["messages"] + [
    {"role": "assistant", "content": reply.content},
    {"role": "user", "content": "and again"},
]
again = client.messages.create(**{**ASKED, "messages": history})
assert text(again) == "Hello from the lab. You said: and again", again

# A model that keeps its name and thinks by a budget only, for which this reply is too short.
short = client.messages.create(**{**ASKED, "model": "claude-opus-4-5", "max_tokens": 50})
assert text(short) == SAID, short

for named, asked in (
    ("temperature", {"extra_body": {"temperature": 0.5}}),
    ("stop_sequences", {"stop_sequences": ["x"]}),
):
    try:
        client.messages.create(**ASKED, **asked)
    except anthropic.BadRequestError as error:
        assert named in str(error), error
    else:
        raise AssertionError(f"{named} was not refused")

try:
    client.messages.count_tokens(model=ASKED["model"], messages=ASKED["messages"])
except anthropic.BadRequestError as error:
    assert "count tokens" in str(error), error
else:
    raise AssertionError("count_tokens was not refused")

print("passed")
