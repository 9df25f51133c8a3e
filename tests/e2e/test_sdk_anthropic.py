"""anthropic-python: messages whole, streamed, and left in mid-stream."""

from decimal import Decimal
from pathlib import Path

from proxy import Proxy
from sdk import gate, needs, run
from test_streams import CLAUDE_END, CLAUDE_START, CLAUDE_TEXT
from upstream import Upstream, reply, stream

pytestmark = needs("anthropic")

MESSAGES = "POST api.anthropic.com/v1/messages"
START = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
STOP = {"type": "content_block_stop", "index": 0}
CLIENT = """
import anthropic
client = anthropic.Anthropic(api_key="x", max_retries=0)
asked = {"model": "claude-sonnet-4-5", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}
"""
COUNTED = {
    "input_tokens": 1320, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 300, "output_tokens": 55,
    "total_tokens": 1375,
}  # fmt: skip


def test_messages(proxy: Proxy, upstream: Upstream, tmp_path: Path) -> None:
    """A message, whole or streamed, gives the same counters and the same cost: cached tokens are part of the input."""
    usage = {
        "input_tokens": 20,
        "cache_creation_input_tokens": 300,
        "cache_read_input_tokens": 1000,
        "output_tokens": 55,
    }
    body = {"id": "msg_0", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929",
            "content": [{"type": "text", "text": "Hello"}], "stop_reason": "end_turn", "usage": usage}  # fmt: skip
    upstream.on(MESSAGES, reply(body))
    assert run(proxy, tmp_path, f"{CLIENT}print(client.messages.create(**asked).usage.input_tokens)") == "20"
    upstream.on(MESSAGES, stream(CLAUDE_START, START, CLAUDE_TEXT, STOP, *CLAUDE_END))
    code = f"""{CLIENT}
with client.messages.stream(**asked) as stream:
    print(stream.get_final_message().usage.output_tokens)
"""
    assert run(proxy, tmp_path, code) == "55"
    lines = proxy.settled(2)
    assert [line["usage"] for line in lines] == [COUNTED, COUNTED]
    assert [line["streamed"] for line in lines] == [False, True]
    for line in lines:
        assert (line["outcome"], line["usage_source"], line["finish_reasons"]) == ("ok", "reported", ["end_turn"])
        assert line["cost_usd"] == Decimal("0.00231")


def test_a_client_that_leaves(proxy: Proxy, upstream: Upstream, tmp_path: Path) -> None:
    """A program that ends in mid-stream leaves one line: the prompt's figures as reported, the answer's estimated."""
    code = f"""{CLIENT}
import os
for event in client.messages.create(**asked, stream=True):
    if event.type == "content_block_delta":
        print(event.delta.text, flush=True)
        os._exit(0)
"""
    with gate() as held:
        upstream.on(MESSAGES, stream(CLAUDE_START, START, CLAUDE_TEXT, held, STOP, *CLAUDE_END))
        assert run(proxy, tmp_path, code) == "Hello"
        [line] = proxy.settled(1)
    assert (line["outcome"], line["usage_source"], line["usage_reason"]) == ("aborted", "estimated", "aborted")
    said = line["usage"]["output_tokens"]
    assert 1 < said < 20
    assert line["usage"] == COUNTED | {"output_tokens": said, "total_tokens": 1320 + said}
    assert line["estimated"] == ["output_tokens", "total_tokens"]
    assert line["cost_source"] == "estimated"
