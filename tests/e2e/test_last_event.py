"""The end of a stream is its last event: clients leave there, so the line is on the ledger before they see it."""

import threading
from collections.abc import Iterator

import pytest
from proxy import Proxy
from test_streams import ANTHROPIC, ASKED, ASKED_CLAUDE, CHAT_EVENTS, CLAUDE_END, CLAUDE_START, DONE, OPENAI
from upstream import Step, Upstream, event, stream

RESPONSES = "https://api.openai.com/v1/responses"
COMPLETED = {
    "type": "response.completed",
    "response": {"id": "resp_1", "object": "response", "model": "gpt-4o-mini-2024-07-18", "status": "completed",
                 "usage": {"input_tokens": 30, "output_tokens": 12, "total_tokens": 42}},
}  # fmt: skip


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Keeps the body open behind its last event until the test is over."""
    event = threading.Event()
    yield event
    event.set()


def read_to(proxy: Proxy, url: str, asked: object, last: bytes) -> None:
    """Reads until the last event is there, looks at the ledger at once, and leaves."""
    with proxy.open(url, asked) as response:
        seen = b""
        while not seen.endswith(last):
            seen += response.read1()
        [line] = proxy.lines()
    assert (line["outcome"], line["usage_source"]) == ("ok", "reported")
    assert line["bytes"]["response"] == len(seen)
    assert [other["id"] for other in proxy.settled(1)] == [line["id"]]


@pytest.mark.parametrize("cut", [0, 3, 8])
def test_a_chat_is_on_the_ledger_when_its_client_sees_done(
    proxy: Proxy, upstream: Upstream, gate: threading.Event, cut: int
) -> None:
    """When `[DONE]` arrives, in one piece or in two, the line is there already, and it stays the only one."""
    last: list[Step] = [DONE[:cut], DONE[cut:]] if cut else [DONE]
    upstream.on("POST api.openai.com/v1/chat/completions", stream(*CHAT_EVENTS, *last, gate))
    read_to(proxy, OPENAI, ASKED, DONE)


def test_a_message_is_on_the_ledger_when_it_stops(proxy: Proxy, upstream: Upstream, gate: threading.Event) -> None:
    """The same with Anthropic's `message_stop`."""
    upstream.on("POST api.anthropic.com/v1/messages", stream(CLAUDE_START, *CLAUDE_END, gate))
    read_to(proxy, ANTHROPIC, ASKED_CLAUDE, event(CLAUDE_END[-1]))


def test_a_response_is_on_the_ledger_when_it_is_completed(
    proxy: Proxy, upstream: Upstream, gate: threading.Event
) -> None:
    """The same with OpenAI's `response.completed`, which is long and comes in pieces."""
    whole = event(COMPLETED)
    upstream.on("POST api.openai.com/v1/responses", stream(whole[:90], whole[90:], gate))
    read_to(proxy, RESPONSES, {"model": "gpt-4o-mini", "stream": True, "input": "hi"}, whole)


def test_text_about_the_end_is_not_the_end(proxy: Proxy, upstream: Upstream) -> None:
    """A model that writes about `[DONE]` and `message_stop` ends nothing: the figures that follow are on the line."""
    chatter = [{**CHAT_EVENTS[0], "choices": [{"index": 0, "delta": {"content": "data: [DONE]\n\n"}}]}] * 5
    upstream.on("POST api.openai.com/v1/chat/completions", stream(*chatter, *CHAT_EVENTS, DONE))
    got = proxy.call(OPENAI, ASKED)
    assert got.body.endswith(DONE)
    [line] = proxy.settled(1)
    assert (line["outcome"], line["usage"]["input_tokens"]) == ("ok", 30)
    assert line["bytes"]["response"] == len(got.body)


def test_figures_behind_the_end_are_waited_for(proxy: Proxy, upstream: Upstream) -> None:
    """A gateway that sends the usage after `[DONE]` is read to its end."""
    upstream.on("POST api.openai.com/v1/chat/completions", stream(*CHAT_EVENTS[:3], DONE, CHAT_EVENTS[3]))
    proxy.call(OPENAI, ASKED)
    [line] = proxy.settled(1)
    assert line["usage"]["input_tokens"] == 30
