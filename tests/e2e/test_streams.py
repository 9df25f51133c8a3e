"""Streams: passed on chunk by chunk, and one line however they end."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from proxy import MAIN, PATIENCE, Proxy, until
from upstream import CUT, Answer, Upstream, event, stream

OPENAI = "https://api.openai.com/v1/chat/completions"
ANTHROPIC = "https://api.anthropic.com/v1/messages"
ASKED = {"model": "gpt-4o-mini", "stream": True, "stream_options": {"include_usage": True}, "messages": []}
ASKED_CLAUDE = {"model": "claude-sonnet-4-5", "stream": True, "max_tokens": 100, "messages": []}
USAGE = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}


def piece(text: str | None = None, usage: dict[str, int] | None = None, finish: str | None = None) -> dict[str, Any]:
    """One event of a chat stream: a piece of text, the end, or the usage."""
    choices = [] if usage else [{"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}]
    return {"id": "chatcmpl-S1", "object": "chat.completion.chunk", "model": "gpt-4o-mini-2024-07-18",
            "choices": choices, "usage": usage}  # fmt: skip


CHAT_EVENTS = [piece("Hello"), piece(" there"), piece(finish="stop"), piece(usage=USAGE)]
DONE = b"data: [DONE]\n\n"
CLAUDE_START = {
    "type": "message_start",
    "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929",
                "content": [], "usage": {"input_tokens": 20, "cache_creation_input_tokens": 300,
                                         "cache_read_input_tokens": 1000, "output_tokens": 1}},
}  # fmt: skip
CLAUDE_TEXT = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}
CLAUDE_END = [
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 55}},
    {"type": "message_stop"},
]


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds a stream until the test opens it; open at the end in any case."""
    event = threading.Event()
    yield event
    event.set()


def test_events_arrive_one_by_one(proxy: Proxy, upstream: Upstream, gate: threading.Event) -> None:
    """An event is with the client before the provider sends the next, byte for byte; the line follows the end."""
    upstream.on("POST api.openai.com/v1/chat/completions", stream(CHAT_EVENTS[0], gate, *CHAT_EVENTS[1:], DONE))
    with proxy.open(OPENAI, ASKED) as response:
        assert response.read1() == event(CHAT_EVENTS[0])
        assert proxy.lines() == []
        gate.set()
        assert response.read() == b"".join(event(e) for e in CHAT_EVENTS[1:]) + DONE
    [line] = proxy.settled(1)
    expected = {"streamed": True, "transport": "sse", "outcome": "ok", "usage_source": "reported", "status": 200}
    assert expected.items() <= line.items()
    assert {"input_tokens": 30, "output_tokens": 12}.items() <= line["usage"].items()
    assert line["finish_reasons"] == ["stop"]
    timing = line["timing"]
    assert 0 <= timing["first_byte_ms"] <= timing["first_token_ms"] <= timing["duration_ms"]


def test_a_stream_without_usage_says_so(proxy: Proxy, upstream: Upstream) -> None:
    """A chat stream without a usage event is a line whose usage is unknown or ours, never reported, never free."""
    upstream.on("POST api.openai.com/v1/chat/completions", stream(*CHAT_EVENTS[:3], DONE))
    proxy.call(OPENAI, ASKED)
    [line] = proxy.settled(1)
    assert line["outcome"] == "ok"
    assert line["usage_source"] in ("none", "estimated")
    assert line["usage_reason"] == "no_usage_in_stream"
    assert line["cost_usd"] is None or line["cost_source"] == "estimated"


def test_a_client_that_leaves_is_one_partial_line(proxy: Proxy, upstream: Upstream, gate: threading.Event) -> None:
    """A client that leaves in mid-stream leaves one line: aborted, with what was reported until then marked partial."""
    upstream.on("POST api.anthropic.com/v1/messages", stream(CLAUDE_START, CLAUDE_TEXT, gate, *CLAUDE_END))
    with proxy.open(ANTHROPIC, ASKED_CLAUDE) as response:
        response.read1()
    [line] = proxy.settled(1)
    assert (line["outcome"], line["status"]) == ("aborted", 200)
    assert line["usage_source"] in ("partial", "estimated")
    assert line["usage"]["input_tokens"] == 1320
    assert line["usage"]["cache_read_input_tokens"] == 1000
    assert line["cost_source"] in ("estimated", "unpriced")


def test_an_upstream_that_breaks_is_one_partial_line(proxy: Proxy, upstream: Upstream) -> None:
    """A provider that resets the connection in mid-stream leaves one line: broken, its usage marked partial."""
    upstream.on("POST api.anthropic.com/v1/messages", stream(CLAUDE_START, CLAUDE_TEXT, CUT))
    with proxy.open(ANTHROPIC, ASKED_CLAUDE) as response, pytest.raises(Exception):  # noqa: B017
        while response.read1():
            pass
        raise ConnectionResetError  # the client may see a clean end instead
    [line] = proxy.settled(1)
    assert line["outcome"] == "broken"
    assert line["usage_source"] in ("partial", "estimated")
    assert line["usage"]["input_tokens"] == 1320


def test_leaving_after_the_last_event_is_no_abort(proxy: Proxy, upstream: Upstream, gate: threading.Event) -> None:
    """SDKs close the connection at `[DONE]`, before the body's formal end: that call is complete."""
    upstream.on("POST api.openai.com/v1/chat/completions", stream(*CHAT_EVENTS, DONE, gate))
    with proxy.open(OPENAI, ASKED) as response:
        seen = b""
        while not seen.endswith(DONE):
            seen += response.read1()
    [line] = proxy.settled(1)
    assert (line["outcome"], line["usage_source"]) == ("ok", "reported")


def test_an_interrupted_proxy_writes_what_it_saw(own: Proxy, upstream: Upstream, gate: threading.Event) -> None:
    """Control-C in mid-stream: the open call has its line, exactly one, before the process is gone."""
    upstream.on("POST api.anthropic.com/v1/messages", stream(CLAUDE_START, CLAUDE_TEXT, gate, *CLAUDE_END))
    with own.open(ANTHROPIC, ASKED_CLAUDE) as response:
        response.read1()
        own.stop(signal.SIGINT)
    [line] = own.settled(1)
    assert line["outcome"] in ("aborted", "broken")
    assert line["usage_source"] in ("partial", "estimated")
    assert line["usage"]["input_tokens"] == 1320


def test_a_mislabelled_stream_is_streamed_and_read(proxy: Proxy, upstream: Upstream, gate: threading.Event) -> None:
    """Events labelled `application/json` are passed on at once where a stream was asked for, and read as events."""
    answer = stream(CHAT_EVENTS[0], gate, *CHAT_EVENTS[1:], DONE, media_type="application/json")
    upstream.on("POST api.openai.com/v1/chat/completions", answer)
    with proxy.open(OPENAI, ASKED) as response:
        assert response.read1() == event(CHAT_EVENTS[0])
        gate.set()
        response.read()
    [line] = proxy.settled(1)
    assert line["usage"]["input_tokens"] == 30


def test_unclaimed_streams_are_streamed_too(proxy: Proxy, upstream: Upstream, gate: threading.Event) -> None:
    """An event stream on an unknown path of a known host is not held back until its end."""
    upstream.on("POST api.openai.com/v1/new/thing", stream({"n": 1}, gate, {"n": 2}))
    with proxy.open("https://api.openai.com/v1/new/thing", {}) as response:
        assert response.read1() == event({"n": 1})
        gate.set()
        response.read()


@pytest.mark.parametrize("sse", [True, False])
def test_gemini_streams_in_both_framings(proxy: Proxy, upstream: Upstream, gate: threading.Event, sse: bool) -> None:
    """Gemini streams as events and as one long JSON array: both arrive piece by piece and give the same usage."""
    path = "/v1beta/models/gemini-2.5-flash:streamGenerateContent"
    url = f"https://generativelanguage.googleapis.com{path}{'?alt=sse' if sse else ''}"
    meta = {"promptTokenCount": 9, "totalTokenCount": 9}
    full = {"promptTokenCount": 9, "candidatesTokenCount": 5, "thoughtsTokenCount": 7, "totalTokenCount": 21}
    first = {
        "candidates": [{"content": {"parts": [{"text": "Hi"}]}}],
        "usageMetadata": meta,
        "modelVersion": "gemini-2.5-flash",
    }
    last = {"candidates": [{"finishReason": "STOP"}], "usageMetadata": full, "modelVersion": "gemini-2.5-flash"}
    if sse:
        answer = stream(first, gate, last)
    else:
        body = [b"[" + event(first)[6:-2], gate, b",\r\n" + event(last)[6:-2], b"]"]
        answer = Answer(body, headers=[("content-type", "application/json; charset=UTF-8")], framing="chunked")
    upstream.on(f"POST generativelanguage.googleapis.com{path}", answer)
    with proxy.open(url, {"contents": []}) as response:
        assert b"Hi" in response.read1()
        gate.set()
        response.read()
    [line] = proxy.settled(1)
    assert (line["transport"], line["usage_source"]) == ("sse" if sse else "jsonarray", "reported")
    assert {"input_tokens": 9, "output_tokens": 12, "reasoning_output_tokens": 7}.items() <= line["usage"].items()


def test_an_error_inside_a_stream_is_an_error(proxy: Proxy, upstream: Upstream) -> None:
    """A 200 whose stream ends in an error event is an error with its class, and its usage so far is partial."""
    broke = {"type": "error", "error": {"type": "overloaded_error", "message": "the secret reason"}}
    upstream.on("POST api.anthropic.com/v1/messages", stream(CLAUDE_START, CLAUDE_TEXT, broke))
    proxy.call(ANTHROPIC, ASKED_CLAUDE)
    [line] = proxy.settled(1)
    assert (line["status"], line["outcome"], line["error"]) == (200, "error", "overloaded")
    assert line["usage_source"] in ("partial", "estimated")
    assert "secret" not in proxy.ledger.read_text()


def test_a_finished_claude_stream_is_priced(proxy: Proxy, upstream: Upstream) -> None:
    """Figures from the stream's start and end come together: 20 fresh, 300 written, 1000 cached, 55 out."""
    upstream.on("POST api.anthropic.com/v1/messages", stream(CLAUDE_START, CLAUDE_TEXT, *CLAUDE_END))
    proxy.call(ANTHROPIC, ASKED_CLAUDE)
    [line] = proxy.settled(1)
    assert {"input_tokens": 1320, "cache_creation_input_tokens": 300, "output_tokens": 55}.items() <= line[
        "usage"
    ].items()
    assert line["cost_source"] == "list"
    # 20 x 3 + 300 x 3.75 + 1000 x 0.3 + 55 x 15 USD per million
    assert line["cost_usd"] == Decimal("0.00231")


def test_many_streams_at_once(proxy: Proxy, upstream: Upstream) -> None:
    """Twenty streams at the same time are twenty lines, each complete, each with its own id."""
    steps = [s for e in CHAT_EVENTS for s in (event(e), 0.01)]
    upstream.on("POST api.openai.com/v1/chat/completions", stream(*steps, DONE))
    threads = [threading.Thread(target=proxy.call, args=[OPENAI, ASKED]) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    lines = proxy.settled(20)
    assert {line["usage_source"] for line in lines} == {"reported"}
    assert len({line["id"] for line in lines}) == 20


def test_reloading_the_addon_keeps_open_calls(
    start: Callable[..., Proxy], tmp_path: Path, upstream: Upstream, gate: threading.Event
) -> None:
    """The script is reloaded in mid-stream: the open call goes on and has its one line, as have later ones."""
    checkout = tmp_path / "checkout" / "addon"  # a copy: other proxies watch the real file
    checkout.mkdir(parents=True)
    main = Path(shutil.copy(MAIN, checkout))
    (checkout / "llmtab").symlink_to(MAIN.with_name("llmtab"))
    (checkout.parent / "pricing.yaml").symlink_to(MAIN.parents[1] / "pricing.yaml")
    proxy = start(script=main)
    upstream.on("POST api.openai.com/v1/chat/completions", stream(CHAT_EVENTS[0], gate, *CHAT_EVENTS[1:], DONE))
    with proxy.open(OPENAI, ASKED) as response:
        response.read1()
        before = proxy.output().count("Loading script")
        now = time.time()
        os.utime(main, (now, now))
        until(lambda: proxy.output().count("Loading script") > before, "the reload")
        time.sleep(0.2)
        gate.set()
        response.read()
    [line] = proxy.settled(1)
    assert (line["outcome"], line["usage_source"]) == ("ok", "reported")
    proxy.call(OPENAI, ASKED)
    assert len(proxy.settled(2)) == 2
