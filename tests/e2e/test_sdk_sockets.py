"""Clients' own sockets: openai-python's Realtime and Responses over WebSocket, google-genai's Live, Codex."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import node
import pytest
from machine import Machine
from proxy import Proxy
from sdk import needs, run
from socket_upstream import CUT, WAIT, SocketUpstream
from way_out import WayOut

REALTIME = "api.openai.com/v1/realtime"
RESPONSES = "api.openai.com/v1/responses"
LIVE = "generativelanguage.googleapis.com/ws/google.ai.generativelanguage.{}.GenerativeService.BidiGenerateContent"


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SocketUpstream]:
    with SocketUpstream(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture(scope="module")
def running(provider: SocketUpstream, conf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy(provider, tmp_path_factory.mktemp("sdk"), conf=conf) as proxy:  # type: ignore[arg-type]
        yield proxy


@pytest.fixture
def proxy(running: Proxy) -> Proxy:
    running.mark()
    return running


def realtime(number: int) -> list[dict[str, Any]]:
    """What the Realtime API says to one `response.create`."""
    ident = f"resp_{number}"
    usage = {
        "input_tokens": 100 * number, "output_tokens": 10, "total_tokens": 100 * number + 10,
        "input_token_details": {"text_tokens": 100 * number, "audio_tokens": 0, "cached_tokens": 0},
        "output_token_details": {"text_tokens": 4, "audio_tokens": 6},
    }  # fmt: skip
    done = {"id": ident, "object": "realtime.response", "status": "completed", "output": [], "usage": usage}
    delta = {"type": "response.output_audio.delta", "event_id": "e", "response_id": ident, "item_id": "i",
             "output_index": 0, "content_index": 0, "delta": "UklGRg=="}  # fmt: skip
    return [
        {
            "type": "response.created",
            "event_id": "e",
            "response": {**done, "status": "in_progress", "usage": None},
        },
        delta,
        {"type": "response.done", "event_id": "e", "response": done},
    ]


def response(number: int) -> list[dict[str, Any]]:
    """What the Responses API says to one `response.create`."""
    usage = {
        "input_tokens": 50, "output_tokens": number, "total_tokens": 50 + number,
        "input_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    body = {"id": f"resp_{number}", "object": "response", "created_at": 1, "model": "o4-mini-2025-04-16",
            "status": "completed", "output": [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
            "service_tier": "default", "usage": usage}  # fmt: skip
    return [
        {
            "type": "response.created",
            "sequence_number": 0,
            "response": {**body, "status": "in_progress", "usage": None},
        },
        {"type": "response.completed", "sequence_number": 1, "response": body},
    ]


@needs("openai.resources.realtime")
def test_openai_realtime(proxy: Proxy, provider: SocketUpstream, tmp_path: Path) -> None:
    """Three spoken answers on one socket are three exact lines, priced by the session's model."""
    session = {
        "type": "session.created",
        "event_id": "e",
        "session": {"type": "realtime", "id": "s", "model": "gpt-realtime"},
    }
    provider.on(REALTIME, [session, *(step for n in (1, 2, 3) for step in (WAIT, *realtime(n)))])
    code = """
import asyncio, openai
async def main():
    async with openai.AsyncOpenAI(api_key="x").realtime.connect(model="gpt-realtime") as connection:
        print((await connection.recv()).type)
        for _ in range(3):
            await connection.response.create()
            async for event in connection:
                if event.type == "response.done":
                    print(event.response.usage.input_tokens)
                    break
asyncio.run(main())
"""
    assert run(proxy, tmp_path, code).split() == ["session.created", "100", "200", "300"]
    found = proxy.settled(3)
    assert [line["usage"] for line in found] == [
        {
            "input_tokens": 100 * n, "cache_read_input_tokens": 0, "audio_input_tokens": 0, "output_tokens": 10,
            "audio_output_tokens": 6, "total_tokens": 100 * n + 10,
        }
        for n in (1, 2, 3)
    ]  # fmt: skip
    for line in found:
        assert (line["api"], line["outcome"], line["usage_source"]) == ("openai.realtime", "ok", "reported")
        assert line["response_model"] == "gpt-realtime"
        assert line["cost_usd"] > 0
        assert line["client"]["key"].startswith("k_")


@needs("openai.resources.realtime")
def test_openai_responses(proxy: Proxy, provider: SocketUpstream, tmp_path: Path) -> None:
    """An asynchronous client asks twice on one socket; the second answer breaks off."""
    provider.on(RESPONSES, [WAIT, *response(1), WAIT, response(2)[0], CUT])
    code = """
import asyncio, openai
async def main():
    async with openai.AsyncOpenAI(api_key="x") as client:
        async with client.responses.connect() as connection:
            for _ in range(2):
                await connection.response.create(model="o4-mini", input="hi")
                try:
                    async for event in connection:
                        print(event.type)
                        if event.type == "response.completed":
                            break
                except Exception as error:
                    print("broke")
asyncio.run(main())
"""
    said = run(proxy, tmp_path, code).split()
    assert said[:3] == ["response.created", "response.completed", "response.created"]
    whole, cut = proxy.settled(2)
    assert whole["usage"] == {
        "input_tokens": 50, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 0, "output_tokens": 1,
        "reasoning_output_tokens": 0, "total_tokens": 51,
    }  # fmt: skip
    assert (whole["response_id"], whole["outcome"], whole["cost_source"]) == ("resp_1", "ok", "list")
    assert (cut["response_id"], cut["outcome"], cut["usage_source"]) == ("resp_2", "broken", "none")
    assert cut["cost_usd"] is None


@needs("google.genai")
def test_google_live(proxy: Proxy, provider: SocketUpstream, tmp_path: Path) -> None:
    """Two turns in binary frames, the first with a tool call that is charged by itself: three exact lines."""

    def said(value: str) -> bytes:
        return value.encode()

    script = [
        WAIT,
        said('{"setupComplete": {}}'),
        WAIT,
        said('{"toolCall": {"functionCalls": [{"id": "f", "name": "look", "args": {}}]}}'),
        said('{"usageMetadata": {"promptTokenCount": 70, "responseTokenCount": 5, "totalTokenCount": 75}}'),
        WAIT,
        said('{"serverContent": {"modelTurn": {"parts": [{"text": "one"}]}}}'),
        said('{"serverContent": {"turnComplete": true}, "usageMetadata": {"promptTokenCount": 80,'
             ' "responseTokenCount": 9, "totalTokenCount": 89}}'),
        WAIT,
        said('{"serverContent": {"modelTurn": {"parts": [{"text": "two"}]}}}'),
        said('{"serverContent": {"turnComplete": true}, "usageMetadata": {"promptTokenCount": 95,'
             ' "responseTokenCount": 11, "thoughtsTokenCount": 4, "totalTokenCount": 110}}'),
    ]  # fmt: skip
    for version in ("v1", "v1beta"):  # the SDK's default has changed before
        provider.on(LIVE.format(version), script)
    code = """
import asyncio
from google import genai
from google.genai import types
async def main():
    client = genai.Client(api_key="x")
    config = {"response_modalities": ["TEXT"]}
    async with client.aio.live.connect(model="gemini-3.1-flash-live-preview", config=config) as session:
        for text in ("hi", "and"):
            await session.send_client_content(turns={"role": "user", "parts": [{"text": text}]}, turn_complete=True)
            async for message in session.receive():
                if message.tool_call:
                    answer = types.FunctionResponse(id="f", name="look", response={"x": 1})
                    await session.send_tool_response(function_responses=[answer])
                if message.text:
                    print(message.text)
asyncio.run(main())
"""
    assert run(proxy, tmp_path, code).split() == ["one", "two"]
    found = proxy.settled(3)
    assert [line["usage"]["total_tokens"] for line in found] == [75, 89, 110]
    assert found[2]["usage"]["reasoning_output_tokens"] == 4
    for line in found:
        assert (line["api"], line["outcome"], line["usage_source"]) == ("gemini.live", "ok", "reported")
        assert line["request_model"] == "models/gemini-3.1-flash-live-preview"
        assert isinstance(line["cost_usd"], Decimal)
        assert line["cost_usd"] > 0


@node.needs("codex")
def test_codex(provider: SocketUpstream, tmp_path: Path) -> None:
    """Codex on its default transport, compressed: a warm-up of the cache and a turn are two exact lines, however the
    socket ends."""
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": "Hello", "annotations": []}]}  # fmt: skip
    warm, (created, completed) = response(0), response(7)
    turn = [{"type": "response.output_text.delta", "item_id": "msg_1", "delta": "Hello"},
            {"type": "response.output_item.done", "output_index": 0, "item": item}]  # fmt: skip
    provider.on(RESPONSES, [WAIT, *warm, WAIT, created, *turn, completed, CUT])
    with WayOut(provider) as way:  # type: ignore[arg-type]
        machine = Machine(tmp_path, way)
        path = {"CODEX_API_KEY": "sk-x", "PATH": node.path()}
        done = machine.run("codex", "exec", "--skip-git-repo-check", "hi", env=path)
        assert (done.status, "Hello" in done.out) == (0, True), done.err
        found = machine.lines()
    asked = [json.loads(data) for data in provider.heard]
    assert [frame.get("generate", True) for frame in asked] == [False, True]
    assert [(line["response_id"], line["transport"], line["outcome"]) for line in found] == [
        ("resp_0", "ws", "ok"), ("resp_7", "ws", "ok"),
    ]  # fmt: skip
    assert [line["usage"]["output_tokens"] for line in found] == [0, 7]
    assert {line["usage_source"] for line in found} == {"reported"}
