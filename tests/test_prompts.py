"""Prompts counted from their JSON: messages, parts, tools, files, and bodies too large to parse."""

import json
from typing import Any

import pytest

from llmtab.estimates.pieces import family, pieces
from llmtab.estimates.prompts import counted, sampled

GPT = family("gpt-4o")
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "tokens"),
    [
        ([[{"role": "user", "content": "Hello!"}]], 9),
        ([[{"role": "system", "content": "You are helpful."}, {"role": "user", "content": "Hi"}]], 16),
        ([[{"role": "user", "content": [{"type": "text", "text": "Hello!"}]}]], 9),
        (["Hello!"], 9),
    ],
)
def test_messages_are_counted_as_billed(parts: list[Any], tokens: int) -> None:
    """The bytes of JSON around a prompt are not paid for: its texts are, and what the template puts around them."""
    assert abs(counted(parts, pieces, GPT) - tokens) <= 3


def test_tools_are_counted() -> None:
    """What a tool's schema takes is part of the prompt."""
    plain = [[{"role": "user", "content": "Hello!"}]]
    assert 20 < counted([*plain, [TOOL]], pieces, GPT) - counted(plain, pieces, GPT) < 60


def test_files_are_no_text() -> None:
    """A picture in base64 is not counted as if it were prose."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0K" * 10_000}}
    said = {"type": "text", "text": "What is this?"}
    assert counted([[{"role": "user", "content": [picture, said]}]], pieces, GPT) < 20


def test_a_large_body_is_sampled() -> None:
    """A body that is not parsed is judged by slices of its JSON."""
    body = json.dumps({"messages": [{"role": "user", "content": "word " * 100_000}]}).encode()
    assert abs(sampled(body, pieces) / 100_000 - 1) < 0.1


def test_nothing_is_too_deep_or_too_odd() -> None:
    """Whatever a request holds gives a number."""
    deep: Any = "end"
    for _ in range(150):
        deep = {"content": [deep]}
    for part in (deep, [deep], None, 7, [], {}, [[[]]], [None, 1.5, True], {"role": None}):
        assert counted([part], pieces, GPT) >= 0
