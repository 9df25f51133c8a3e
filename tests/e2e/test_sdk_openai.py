"""openai-python: chat and responses, whole, streamed, and left in mid-stream."""

from decimal import Decimal
from pathlib import Path
from typing import Any

from proxy import Proxy
from sdk import gate, needs, run
from test_streams import CHAT_EVENTS, DONE
from upstream import Upstream, reply, stream

pytestmark = needs("openai")

CHAT = "POST api.openai.com/v1/chat/completions"
RESPONSES = "POST api.openai.com/v1/responses"
CLIENT = "import openai; client = openai.OpenAI(api_key='x', max_retries=0)\n"
ASKED = "model='gpt-4o-mini', messages=[{'role': 'user', 'content': 'hi'}]"
USAGE = {
    "input_tokens": 2000, "input_tokens_details": {"cached_tokens": 1024}, "output_tokens": 300,
    "output_tokens_details": {"reasoning_tokens": 256}, "total_tokens": 2300,
}  # fmt: skip
COUNTED = {
    "input_tokens": 2000, "cache_read_input_tokens": 1024, "output_tokens": 300, "reasoning_output_tokens": 256,
    "total_tokens": 2300,
}  # fmt: skip


def response(status: str, usage: Any = None) -> dict[str, Any]:
    """A response object as the API gives it."""
    part = {"type": "output_text", "text": "Hi", "annotations": []}
    output = [{"type": "message", "id": "msg_1", "role": "assistant", "status": status, "content": [part]}]
    return {"id": "resp_1", "object": "response", "created_at": 1, "model": "o4-mini-2025-04-16", "status": status,
            "output": output if usage else [], "usage": usage, "service_tier": "default", "parallel_tool_calls": True,
            "tool_choice": "auto", "tools": []}  # fmt: skip


EVENTS = [
    {"type": "response.created", "sequence_number": 0, "response": response("in_progress")},
    {"type": "response.output_text.delta", "sequence_number": 1, "item_id": "msg_1", "output_index": 0,
     "content_index": 0, "delta": "Hi", "logprobs": []},
    {"type": "response.completed", "sequence_number": 2, "response": response("completed", USAGE)},
]  # fmt: skip


def test_chat(proxy: Proxy, upstream: Upstream, tmp_path: Path) -> None:
    """A whole answer and a stream are one exact line each."""
    usage = {"prompt_tokens": 1200, "completion_tokens": 60, "total_tokens": 1260,
             "prompt_tokens_details": {"cached_tokens": 1024}}  # fmt: skip
    said = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o-mini-2024-07-18", "choices": [said]}
    upstream.on(CHAT, reply({**body, "usage": usage}))
    code = f"{CLIENT}print(client.chat.completions.create({ASKED}).usage.prompt_tokens)"
    assert run(proxy, tmp_path, code) == "1200"
    upstream.on(CHAT, stream(*CHAT_EVENTS, DONE))
    options = "stream=True, stream_options={'include_usage': True}"
    streamed = f"client.chat.completions.create({ASKED}, {options})"
    code = f"{CLIENT}print([chunk.usage.completion_tokens for chunk in {streamed} if chunk.usage])"
    assert run(proxy, tmp_path, code) == "[12]"
    whole, other = proxy.settled(2)
    assert whole["usage"] == {
        "input_tokens": 1200, "cache_read_input_tokens": 1024, "output_tokens": 60, "total_tokens": 1260,
    }  # fmt: skip
    assert other["usage"] == {"input_tokens": 30, "output_tokens": 12, "total_tokens": 42}
    for line in (whole, other):
        assert (line["outcome"], line["usage_source"], line["cost_source"]) == ("ok", "reported", "list")
        assert line["client"]["key"].startswith("k_")
        assert "OpenAI/Python" in line["client"]["agent"]
    assert whole["cost_usd"] == Decimal("0.0001392")  # 176 x 0.15 + 1024 x 0.075 + 60 x 0.6 USD per million


def test_responses(proxy: Proxy, upstream: Upstream, tmp_path: Path) -> None:
    """The Responses API, whole and streamed (by an asynchronous client): the same figures, once each."""
    upstream.on(RESPONSES, reply(response("completed", USAGE)))
    code = f"{CLIENT}print(client.responses.create(model='o4-mini', input='hi').usage.output_tokens)"
    assert run(proxy, tmp_path, code) == "300"
    upstream.on(RESPONSES, stream(*EVENTS))
    code = """
import asyncio, openai
async def main():
    async with openai.AsyncOpenAI(api_key="x") as client:
        async for event in await client.responses.create(model="o4-mini", input="hi", stream=True):
            print(event.type)
asyncio.run(main())
"""
    assert run(proxy, tmp_path, code).splitlines()[-1] == "response.completed"
    lines = proxy.settled(2)
    assert [line["usage"] for line in lines] == [COUNTED, COUNTED]
    assert [line["streamed"] for line in lines] == [False, True]
    assert {line["usage_source"] for line in lines} == {"reported"}
    assert lines[0]["cost_usd"] == lines[1]["cost_usd"] > 0


def test_a_client_that_leaves(proxy: Proxy, upstream: Upstream, tmp_path: Path) -> None:
    """A program that has seen enough and closes the stream leaves one line that does not pretend to know the usage."""
    code = f"""{CLIENT}
with client.responses.create(model="o4-mini", input="hi", stream=True) as events:
    print(next(iter(events)).type)
"""
    with gate() as held:
        upstream.on(RESPONSES, stream(*EVENTS[:2], held, EVENTS[2]))
        assert run(proxy, tmp_path, code) == "response.created"
        [line] = proxy.settled(1)
    assert (line["outcome"], line["usage_source"], line["response_id"]) == ("aborted", "estimated", "resp_1")
    assert set(line["usage"]) == set(line["estimated"])
    assert line["cost_source"] == "estimated"
