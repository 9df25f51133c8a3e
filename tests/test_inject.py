"""Which requests are asked for usage, and that nothing else of them changes."""

import json
from typing import Any

import pytest

from golden import built_in
from llmtab.inject import injected, stripped

ASKED = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": 'say "stream": false {'}]}


def test_one_member_is_put_in() -> None:
    """The body keeps every byte and every member; one is added, in front."""
    body = b' \n { "model":"m", "stream" : true, "temperature": 1.0, "seed": 12345678901234567890 } '
    found = injected(body)
    assert found is not None
    assert found.replace(b'"stream_options":{"include_usage":true},', b"") == body
    assert json.loads(found) == {**json.loads(body), "stream_options": {"include_usage": True}}
    asked = injected(json.dumps(ASKED).encode())
    assert asked is not None
    assert json.loads(asked) == {**ASKED, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize(
    "asked",
    [
        {**ASKED, "stream": False},
        {"model": "m", "messages": ['"stream": true']},
        {**ASKED, "stream": "true"},
        {**ASKED, "stream_options": None},
        {**ASKED, "stream_options": {"include_usage": False}},
        {**ASKED, "stream_options": {"include_obfuscation": False}},
        [ASKED],
        "stream",
    ],
)
def test_other_requests_are_left_alone(asked: Any) -> None:
    """No stream, or a client that says itself what it wants of its stream."""
    assert injected(json.dumps(asked).encode()) is None


@pytest.mark.parametrize("body", [b"", b"{", b'{"stream": true', b"\xff\xfe", b"[" * 500])
def test_bodies_that_are_no_json_are_left_alone(body: bytes) -> None:
    """What we cannot read, we do not change."""
    assert injected(body) is None


def test_an_addon_that_came_first_keeps_its_say() -> None:
    """What another addon makes of a chunk is what is looked at; nothing empty is ever passed on."""
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n'
    stream = stripped(lambda chunk: [chunk.upper() if b"hello" in chunk else chunk, b""])
    assert list(stream(b"data: hello\n\n")) == [b"DATA: HELLO\n\n"]
    assert list(stream(usage)) == []
    assert list(stripped(True)(usage + b"data: [DONE]\n\n")) == [b"data: [DONE]\n\n"]
    last = stripped(False)
    assert list(last(b"data: cut")) == []
    assert list(last(b"")) == [b"data: cut"]


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("api.openai.com/v1/chat/completions", True),
        ("api.openai.com/v1/completions", True),
        ("api.openai.com/v1/responses", False),
        ("me.openai.azure.com/openai/v1/chat/completions", True),
        ("me.openai.azure.com/openai/deployments/d/chat/completions", False),
        ("dashscope.aliyuncs.com/compatible-mode/v1/chat/completions", True),
        ("localhost:11434/v1/chat/completions", True),
        ("api.mistral.ai/v1/chat/completions", False),
        ("somewhere.example.com/v1/chat/completions", False),
    ],
)
def test_profiles_say_which_hosts_take_it(url: str, asked: bool) -> None:
    """Only hosts known to take the member are sent it: others answer 422 to what they do not know."""
    host, _, path = url.partition("/")
    name, _, port = host.partition(":")
    claim = built_in().match(name, int(port or 443), "POST", "/" + path)
    assert claim is not None
    assert bool(claim.binding.dialects[0].spec.get("include_usage")) is asked
