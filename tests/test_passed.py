"""What passed of an answer: its text found again in every dialect, sampled where it is long, never kept."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from golden import built_in, compressed
from llmtab.estimates.passed import KEPT, SLICE, Passed, Sampler, Tally, lacks, tally
from llmtab.extract import Reading
from llmtab.profiles.texts import Texts

CHAT = ("api.openai.com", "/v1/chat/completions")
CLAUDE = ("api.anthropic.com", "/v1/messages")
RESPONSES = ("api.openai.com", "/v1/responses")
GEMINI = ("generativelanguage.googleapis.com", "/v1beta/models/m:streamGenerateContent")


def found(place: tuple[str, str], passed: Passed) -> Tally:
    claim = built_in().match(place[0], 443, "POST", place[1])
    assert claim is not None
    texts = [Texts(dialect) for dialect in claim.binding.dialects]
    return tally(passed, texts, [words.scope(lambda: None) for words in texts])


def sse(*events: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def delta(**what: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": what}]}


STREAM = sse(
    delta(role="assistant", content=""), delta(reasoning_content="Let me see."), delta(content="It is"),
    delta(content=" sunny."),
    delta(tool_calls=[{"index": 0, "function": {"name": "weather", "arguments": ""}}]),
    delta(tool_calls=[{"index": 0, "function": {"arguments": '{"city":"Paris"}'}}]),
)  # fmt: skip


@pytest.mark.parametrize("coding", ["", "gzip", "br", "zstd"])
def test_all_text_of_a_stream_is_found(coding: str) -> None:
    """Text, reasoning and arguments of tool calls are output; the names of called tools are told apart."""
    told = found(CHAT, Passed([compressed(STREAM, coding)], coding, "text/event-stream"))
    assert "".join(told.text) == 'It is sunny.{"city":"Paris"}'
    assert ("".join(told.thoughts), told.calls, told.deltas) == ("Let me see.", ["weather"], 4)
    assert told.scale == 1.0


def test_a_body_that_is_no_stream_is_read_as_well() -> None:
    """A whole answer without usage has text, too."""
    body = {"choices": [{"message": {"role": "assistant", "content": "Hello there"}}]}
    told = found(CHAT, Passed([json.dumps(body).encode()], "", "application/json", "json"))
    assert told.text == ["Hello there"]


def test_what_is_said_twice_counts_once() -> None:
    """Servers that spell reasoning in two members, and repeat the whole answer at the end, do not pay twice."""
    told = found(CHAT, Passed([sse(delta(reasoning="Hm", reasoning_content="Hm"))], "", "text/event-stream"))
    assert (told.thoughts, told.text) == (["Hm"], [])
    events = [
        {"type": "response.reasoning_summary_text.delta", "delta": "Thinking"},
        {"type": "response.output_text.delta", "delta": "Hello"},
        {"type": "response.output_text.done", "text": "Hello"},
        {"type": "response.completed", "response": {"output": [{"content": [{"text": "Hello"}]}]}},
    ]
    told = found(RESPONSES, Passed([sse(*events)], "", "text/event-stream"))
    assert (told.thoughts, told.text) == (["Thinking"], ["Hello"])


def test_running_figures_cover_what_came_before() -> None:
    """Only the text behind the last figure is counted; a figure that came before any text covers nothing."""

    def part(text: str, **more: Any) -> dict[str, Any]:
        return {"candidates": [{"content": {"parts": [{"text": text}]}}], **more}

    usage = {"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}}
    told = found(GEMINI, Passed([sse(part("One two", **usage), part(" three"))], "", "text/event-stream"))
    assert (told.text, told.covered) == ([" three"], True)
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}}
    words = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}}
    told = found(CLAUDE, Passed([sse(start, words)], "", "text/event-stream"))
    assert (told.text, told.covered) == (["Hi"], False)


def test_a_long_answer_is_looked_at_in_slices() -> None:
    """Of megabytes about half a megabyte is parsed, and the scale tells how much more there was."""
    body = sse(*(delta(content=f" word{n}") for n in range(60_000)))
    told = found(CHAT, Passed([body], "", "text/event-stream"))
    assert len(body) > 3_000_000
    assert told.events < 12_000
    assert abs(told.events * told.scale / 60_000 - 1) < 0.02


@pytest.mark.parametrize("size", [60, 4096, 100_000])
def test_a_stream_too_long_to_keep_is_sampled(size: int) -> None:
    """However long a stream gets, some kilobytes of it are kept until it ends; they tell how much text it had."""
    body = sse(*(delta(content=f" word{n:06}") for n in range(60_000)))
    sampler, look = Sampler(), 0
    for at in range(0, len(body), size):
        if at + size >= look:
            look = sampler.take(body[at : at + size], at + size)
    assert len(sampler.slices) <= KEPT
    assert all(len(kept) <= SLICE for kept in sampler.slices)
    told = found(CHAT, Passed([], "", "text/event-stream", "sse", sampler, len(body)))
    assert abs(told.deltas * told.scale / 60_000 - 1) < 0.05


@pytest.mark.parametrize("place", [CHAT, CLAUDE, RESPONSES, GEMINI])
@pytest.mark.parametrize("media_type", ["text/event-stream", "application/json", "audio/mpeg", ""])
def test_no_bytes_raise_anything(place: tuple[str, str], media_type: str) -> None:
    """Whatever passed, counting it gives numbers."""
    rng = random.Random(7)
    bodies = [
        b"",
        b"\x00" * 50,
        rng.randbytes(5000),
        b"[" * 3000,
        STREAM[:-30],
        b'{"choices":[7]}',
        sse([1], "x", None),
    ]
    for body in bodies:
        for coding in ("", "gzip", "nonsense"):
            told = found(place, Passed([body], coding, media_type))
            assert told.scale >= 1.0


@pytest.mark.parametrize(
    ("reading", "how", "whole", "lacking"),
    [
        ({"counters": {}}, "complete", True, True),
        ({"final": True}, "complete", True, False),
        ({"final": True}, "aborted", True, False),
        ({"final": True}, "broken", False, True),
        ({}, "complete", True, True),
        ({}, "aborted", True, True),
    ],
)
def test_only_what_lacks_figures_is_kept(reading: dict[str, Any], how: str, whole: bool, lacking: bool) -> None:
    """A call whose final figures came keeps nothing; a dialect that announces its end is not final before."""
    claim = built_in().match(*CLAUDE[:1], 443, "POST", CLAUDE[1])
    assert claim is not None
    make: Callable[..., Reading] = Reading
    told = make(claim.binding.dialects[0], **{"counters": {"input_tokens": 1}, **reading})
    assert lacks(told, how, streamed=True, whole=whole) is lacking
