"""Calls whose provider does not say what they used, through a real mitmdump: every figure that is ours is marked."""

import gzip
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from proxy import Proxy
from upstream import CUT, Answer, Upstream, event, reply, stream

HOST = "api.openai.com"
TARGET, URL = f"POST {HOST}/v1/chat/completions", f"https://{HOST}/v1/chat/completions"
WORDS = ["The", "capital", "of", "France", "is", "Paris,", "on", "the", "river", "Seine."]
MESSAGES = [{"role": "user", "content": "What is the capital of France, and on which river does it lie?"}]


def chunk(text: str, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {"id": "c1", "object": "chat.completion.chunk", "model": "gpt-4o", "choices": [choice], **more}


CHUNKS = [chunk(word if not number else " " + word) for number, word in enumerate(WORDS)]
USAGE = {"prompt_tokens": 21, "completion_tokens": 12, "total_tokens": 33}
FIGURES = {"id": "c1", "object": "chat.completion.chunk", "model": "gpt-4o", "choices": [], "usage": USAGE}
DONE = b"data: [DONE]\n\n"
ASKED = {"model": "gpt-4o", "messages": MESSAGES, "stream": True}


def test_a_stream_without_usage_is_estimated(proxy: Proxy, upstream: Upstream) -> None:
    """Without `include_usage` a call still has figures and a cost; each is marked as ours, and the traffic is as it
    was."""
    upstream.on(TARGET, stream(*CHUNKS, DONE))
    got = proxy.call(URL, ASKED)
    assert got.body == b"".join(map(event, CHUNKS)) + DONE
    [line] = proxy.settled(1)
    assert (line["usage_source"], line["usage_reason"], line["outcome"]) == ("estimated", "no_usage_in_stream", "ok")
    assert line["estimated"] == ["input_tokens", "output_tokens", "total_tokens"]
    assert abs(line["usage"]["output_tokens"] - 12) <= 1
    assert 16 <= line["usage"]["input_tokens"] <= 26
    assert line["usage"]["total_tokens"] == line["usage"]["input_tokens"] + line["usage"]["output_tokens"]
    assert line["cost_source"] == "estimated"
    assert line["cost_usd"] > 0
    assert "Paris" not in json.dumps(line, default=str)


def test_a_finished_call_is_on_the_ledger(proxy: Proxy, upstream: Upstream) -> None:
    """A client that has read its answer to the end finds the line, also where figures are worked out in a thread: no
    kill after that loses the call."""
    large = {**ASKED, "messages": [*MESSAGES, {"role": "user", "content": "word " * 60_000}]}
    proxy.call(URL, ASKED)
    before = len(proxy.settled(1))
    upstream.on(TARGET, stream(*CHUNKS, DONE))
    for number, asked in enumerate([ASKED, large] * 5, 1):
        proxy.call(URL, asked)
        assert len(proxy.lines()) == before + number


def test_a_cut_stream_keeps_what_was_reported(proxy: Proxy, upstream: Upstream) -> None:
    """Anthropic told the input before the break: that stands, and only the output is estimated, from the text."""
    start = {"type": "message_start", "message": {"id": "m", "type": "message", "model": "claude-sonnet-4-5",
             "usage": {"input_tokens": 40, "cache_read_input_tokens": 1000, "output_tokens": 1}}}  # fmt: skip
    texts = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": w + " "}} for w in WORDS
    ]
    upstream.on("POST api.anthropic.com/v1/messages", stream(start, *texts, 0.2, CUT))
    with pytest.raises(Exception):  # noqa: B017 - however the client says that the connection broke
        proxy.call("https://api.anthropic.com/v1/messages", {**ASKED, "model": "claude-sonnet-4-5"})
    [line] = proxy.settled(1)
    assert line["outcome"] == "broken"
    assert (line["usage_source"], line["usage_reason"]) == ("estimated", "broken")
    assert line["estimated"] == ["output_tokens", "total_tokens"]
    assert (line["usage"]["input_tokens"], line["usage"]["cache_read_input_tokens"]) == (1040, 1000)
    assert 11 <= line["usage"]["output_tokens"] <= 20


def test_running_figures_are_not_second_guessed(proxy: Proxy, upstream: Upstream) -> None:
    """Gemini says with every chunk what was used so far: of a cut stream the last of that stands, marked partial."""
    host = "generativelanguage.googleapis.com"
    path = "/v1beta/models/gemini-2.5-flash:streamGenerateContent"
    events = [
        {"candidates": [{"content": {"parts": [{"text": word + " "}]}}], "modelVersion": "gemini-2.5-flash",
         "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": n + 1, "totalTokenCount": n + 10}}
        for n, word in enumerate(WORDS)
    ]  # fmt: skip
    upstream.on(f"POST {host}{path}", stream(*events, 0.2, CUT))
    with pytest.raises(Exception):  # noqa: B017
        proxy.call(f"https://{host}{path}?alt=sse", {"contents": [{"parts": [{"text": "hi"}]}]})
    [line] = proxy.settled(1)
    assert line["usage_source"] == "partial"
    assert "estimated" not in line
    assert line["usage"]["output_tokens"] == len(WORDS)


def test_errors_are_never_estimated(proxy: Proxy, upstream: Upstream) -> None:
    """What is not billed has no estimate: neither an error answer nor one inside a stream."""
    upstream.on(TARGET, reply({"error": {"message": "no", "type": "invalid_request_error"}}, 400))
    proxy.call(URL, ASKED)
    upstream.on(TARGET, stream(CHUNKS[0], {"error": {"message": "overloaded", "type": "server_error"}}))
    proxy.call(URL, ASKED)
    for line in proxy.settled(2):
        assert (line["outcome"], line["usage_source"], line["cost_source"]) == ("error", "none", "not_billed")


def test_what_was_learned_counts_the_next_prompt(own: Proxy, upstream: Upstream) -> None:
    """The prompt of a call without usage is counted by what the ledger's own calls of that model took a byte."""
    asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "word " * 400}], "stream": True}
    size = len(json.dumps(asked))
    usage = {"prompt_tokens": size // 2, "completion_tokens": 12, "total_tokens": size // 2 + 12}
    upstream.on(TARGET, stream(*CHUNKS, {**FIGURES, "usage": usage}, DONE))
    for _ in range(6):
        own.call(URL, asked)
    upstream.on(TARGET, stream(*CHUNKS, DONE))
    own.call(URL, asked)
    line = own.settled(7)[-1]
    assert line["estimate_method"].startswith("input:learned,")
    assert abs(line["usage"]["input_tokens"] - size // 2) < 5


def test_a_client_that_leaves_is_estimated(own: Proxy, upstream: Upstream) -> None:
    """A client that closes in the middle has one line, aborted, with what was said until then; also at shutdown."""
    upstream.on(TARGET, stream(*CHUNKS[:6], 5.0, *CHUNKS[6:], DONE))
    response = own.open(URL, ASKED)
    response.read1(10)
    time.sleep(0.2)
    response.close()
    [line] = own.settled(1)
    assert (line["outcome"], line["usage_source"], line["usage_reason"]) == ("aborted", "estimated", "aborted")
    assert 5 <= line["usage"]["output_tokens"] <= 8
    response = own.open(URL, ASKED)
    response.read1(10)
    time.sleep(0.2)
    own.stop()
    _, line = own.lines()
    assert (line["outcome"], line["usage_source"]) == ("aborted", "estimated")


# -- llmtab_inject_usage -----------------------------------------------------------------------------------------------


@pytest.fixture
def injecting(start: Callable[..., Proxy]) -> Proxy:
    return start("--set", "llmtab_inject_usage=true")


def test_usage_is_asked_for_and_hidden(injecting: Proxy, upstream: Upstream) -> None:
    """The provider is asked for the figures, the line has them exactly, and the client sees no byte of that."""
    shown = b"".join(map(event, CHUNKS)) + DONE
    whole = b"".join(map(event, CHUNKS)) + event(FIGURES) + DONE
    for size in (len(whole), 1000, 97, 7):
        upstream.on(TARGET, stream(*(whole[at : at + size] for at in range(0, len(whole), size))))
        injecting.mark()
        got = injecting.call(URL, ASKED, [("accept-encoding", "gzip, br")])
        assert got.body == shown
        [line] = injecting.settled(1)
        assert (line["usage_source"], line["flags"]) == ("reported", ["usage_injected"])
        assert (line["usage"]["input_tokens"], line["usage"]["output_tokens"]) == (21, 12)
    asked = upstream.seen[-1]
    assert json.loads(asked.body) == {**ASKED, "stream_options": {"include_usage": True}}
    assert asked.headers["accept-encoding"] == "identity"


def test_what_may_not_be_changed_is_not(injecting: Proxy, upstream: Upstream) -> None:
    """No stream, a client with options of its own, another host: their requests leave as they came."""
    elsewhere = "POST api.mistral.ai/v1/chat/completions"
    own_options = {**ASKED, "stream_options": {"include_usage": True}}
    for target, url, asked in [
        (TARGET, URL, {"model": "gpt-4o", "messages": MESSAGES}),
        (TARGET, URL, own_options),
        (elsewhere, "https://api.mistral.ai/v1/chat/completions", ASKED),
    ]:
        upstream.on(target, stream(*CHUNKS, FIGURES, DONE))
        got = injecting.call(url, asked, [("accept-encoding", "gzip, br")])
        assert got.body == b"".join(map(event, [*CHUNKS, FIGURES])) + DONE
        assert json.loads(upstream.seen[-1].body) == asked
        assert upstream.seen[-1].headers["accept-encoding"] == "gzip, br"
    assert all("flags" not in line for line in injecting.settled(3))


def test_a_coded_answer_passes_as_it_is(injecting: Proxy, upstream: Upstream) -> None:
    """A server that compresses although it was asked not to: nothing is taken out, and the line says so."""
    body = gzip.compress(b"".join(map(event, [*CHUNKS, FIGURES])) + DONE)
    headers = [("content-type", "text/event-stream"), ("content-encoding", "gzip")]
    upstream.on(TARGET, Answer([body], 200, headers, "chunked"))
    assert injecting.call(URL, ASKED).body == body
    [line] = injecting.settled(1)
    assert line["flags"] == ["usage_injected:coded"]
    assert line["usage"]["output_tokens"] == 12


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_a_host_that_refuses_is_asked_once(injecting: Proxy, upstream: Upstream, coding: str) -> None:
    """A host that answers 400 because of it is left alone from then on."""
    said = json.dumps({"error": {"message": "unknown parameter: stream_options"}}).encode()
    headers = [("content-type", "application/json"), ("content-encoding", coding)]
    upstream.on(TARGET, Answer([gzip.compress(said) if coding == "gzip" else said], 400, headers))
    assert injecting.call(URL, ASKED).status == 400
    upstream.on(TARGET, stream(*CHUNKS, DONE))
    injecting.call(URL, ASKED)
    assert json.loads(upstream.seen[-1].body) == ASKED
    refused, line = injecting.settled(2)
    assert refused["outcome"] == "error"
    assert line["usage_source"] == "estimated"
    assert "refuses stream_options" in injecting.output()


def test_large_bodies_are_asked_too(injecting: Proxy, upstream: Upstream) -> None:
    """A body too large for the event loop is looked at beside it, and changed all the same."""
    asked = {**ASKED, "messages": [{"role": "user", "content": "word " * 80_000}]}
    upstream.on(TARGET, stream(*CHUNKS, FIGURES, DONE))
    assert injecting.call(URL, asked).body == b"".join(map(event, CHUNKS)) + DONE
    [line] = injecting.settled(1)
    assert line["usage_source"] == "reported"
    assert json.loads(upstream.seen[-1].body)["stream_options"] == {"include_usage": True}
