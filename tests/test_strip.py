"""The chunk of figures is taken out, every other byte goes on, however the stream is cut."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtab.strip import HELD, Stripper


def event(data: Any, end: bytes = b"\n\n") -> bytes:
    return b"data: " + json.dumps(data).encode() + end


USAGE = {"id": "c", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
TEXT = [{"id": "c", "choices": [{"index": 0, "delta": {"content": f"word {n}"}}], "usage": None} for n in range(3)]
AZURE = {"id": "", "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
FINISH = {"id": "c", "choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1}}
DONE = b"data: [DONE]\n\n"


def through(pieces: list[bytes]) -> tuple[bytes, int]:
    stripper = Stripper()
    return b"".join([*map(stripper.feed, pieces), stripper.feed(b"")]), stripper.taken


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_one_chunk_is_taken_and_nothing_else(end: bytes) -> None:
    """Cut at any two places, the client's bytes are the provider's without the chunk."""
    head = b": keep-alive" + end + event(AZURE, end) + b"".join(event(text, end) for text in TEXT)
    tail = DONE.replace(b"\n\n", end)
    whole = head + event(USAGE, end) + tail
    for first in range(0, len(whole), 3):
        for second in (first + 1, first + 2, first + 50):
            assert through([whole[:first], whole[first:second], whole[second:]]) == (head + tail, 1)
    assert through([whole[at : at + 1] for at in range(len(whole))]) == (head + tail, 1)


@pytest.mark.parametrize(
    "kept",
    [
        FINISH,
        AZURE,
        {"choices": [], "usage": None},
        {"choices": [], "usage": 7},
        {"usage": {"prompt_tokens": 1}},
        [],
        "x",
    ],
)
def test_what_a_client_needs_stays(kept: Any) -> None:
    """A chunk that ends the choice, Azure's first one, one without figures: they are the client's, and go on."""
    body = event(TEXT[0]) + event(kept) + DONE
    assert through([body]) == (body, 0)


def test_text_is_not_held_back() -> None:
    """Bytes of an event that brings text go on before it is whole; those that may be the chunk wait for its end."""
    stripper = Stripper()
    begun = b'data: {"id":"c","choices":[{"delta":{"content":"Once upon'
    assert stripper.feed(begun) == begun
    assert stripper.feed(b' a time"}}]}\n') == b' a time"}}]}'
    assert stripper.feed(b"\n" + event(USAGE)[:40]) == b"\n\n"
    assert stripper.feed(event(USAGE)[40:]) == b""
    assert stripper.feed(DONE) == DONE


def test_what_is_held_is_bounded() -> None:
    """An event without an end is no reason to keep it."""
    stripper = Stripper()
    assert stripper.feed(b"data: " + b"x" * HELD) != b""
    assert stripper.feed(b"y" * 1000) == b"y" * 1000


def test_a_stream_that_ends_without_a_blank_line() -> None:
    """The last event may lack its end: the chunk is taken, anything else goes on."""
    assert through([event(TEXT[0]), event(USAGE).rstrip()]) == (event(TEXT[0]), 1)
    assert through([event(TEXT[0]), event(TEXT[1]).rstrip()])[0] == event(TEXT[0]) + event(TEXT[1]).rstrip()


@given(st.lists(st.binary(max_size=60), max_size=12))
def test_no_byte_is_lost(pieces: list[bytes]) -> None:
    """Of bytes that are no chunk of figures all go on, in order."""
    kept = [piece for piece in pieces if piece]
    assert through(kept) == (b"".join(kept), 0)
