"""Odd JSON, odd names, labels that lie: one honest line, no exception, nothing a terminal would obey."""

import json
import struct
import time
import zlib
from decimal import Decimal
from typing import Any

import pytest

from golden import built_in
from hostile import (
    AWS,
    BEDROCK,
    CLAUDE,
    COUNTED,
    ENDED,
    JSON,
    MIB,
    SSE,
    USAGE,
    answer,
    exchange,
    is_honest,
    prices,
    streamed,
    whole,
)  # fmt: skip
from llmtab.booking import book
from llmtab.cells import plain
from llmtab.events import DEEPEST
from llmtab.extract import MOST_PARTS, MOST_REASONS
from llmtab.profiles.patterns import shown_path
from llmtab.record import encode
from test_eventstream import event as message

# -- odd JSON ----------------------------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize("depth", [DEEPEST + 1, 900, 3000, 9000, 100_000])
@pytest.mark.parametrize("spoilt", [b"", b"\xff"])
def test_deep_nesting(depth: int, spoilt: bytes) -> None:
    """However deep an answer nests, also where it has to be read leniently: no exception, and no usage out of it."""
    usage = b'{"prompt_tokens":7,"completion_tokens":3,"deep":' + nested(depth) + b"}"
    body = b'{"x":"' + spoilt + b'","usage":' + usage + b"}"
    assert is_honest(whole(body))
    assert is_honest(streamed([b"data: " + body + b"\n\n"] * 2 + [b"data: [DONE]\n\n"]))
    assert is_honest(whole(b"[" * depth + body + b"]" * depth))


@pytest.mark.parametrize(
    "value", ["1" + "0" * 5000, "1" + "0" * 1_000_000, "-" + "9" * 4000, "1e999999999", "NaN", "Infinity"]
)
def test_figures_that_are_none(value: str) -> None:
    """Huge numbers, NaN and Infinity as a count: never taken for one, and no sum of money is made without it."""
    line = whole(b'{"model":"gpt-4o","usage":{"prompt_tokens":' + value.encode() + b',"completion_tokens":3}}')
    assert is_honest(line)
    assert line["cost_usd"] is None
    assert line.get("usage", {}).get("input_tokens") is None
    beside = whole(b'{"model":"gpt-4o","x":' + value.encode() + b',"usage":{"prompt_tokens":7,"completion_tokens":3}}')
    assert is_honest(beside) or beside["usage"] == COUNTED


BAD = [-1, True, False, 1e308, 10**16, 0.5e-400 - 1, "7 tokens", "0x10", "1_000", "\uff11\uff12", "", [7], {"n": 7}]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", ["prompt_tokens", "completion_tokens", "prompt_tokens_details"])
def test_one_bad_counter_spoils_the_sum(bad: Any, place: str) -> None:
    """A counter that is no number is flagged, the rest is partial, and the price of the rest is not the cost."""
    value = {"cached_tokens": bad} if place == "prompt_tokens_details" else bad
    line = whole(answer(usage={**USAGE, place: value}))
    assert line["usage_source"] == "partial"
    [flag] = [flag for flag in line["flags"] if flag.startswith("dropped:")]
    assert line["usage_reason"] == flag
    assert (line["cost_usd"], line["cost_reason"]) == (None, flag.replace("dropped", "inconsistent"))


@pytest.mark.parametrize(
    "usage", [[], [1], "x", 7, True, None, {}, {"usage": USAGE}, [USAGE], {"prompt_tokens": {"prompt_tokens": 7}}]
)
def test_usage_of_another_form(usage: Any) -> None:
    """A usage object that is a list, a text or nested wrongly is no usage."""
    line = whole(answer(usage=usage))
    assert line["usage_source"] == "none"
    assert line["cost_usd"] is None


def test_details_of_another_form() -> None:
    """Details that are no object leave the totals as they are."""
    for odd in ([], "x", 3, [{"cached_tokens": 2}]):
        assert whole(answer(usage={**USAGE, "prompt_tokens_details": odd}))["usage"] == COUNTED


def test_duplicate_keys() -> None:
    """Of a member that is there twice the last one counts, as for every client."""
    twice = b'{"model":"gpt-4o","usage":{"prompt_tokens":1,"completion_tokens":1},'
    twice += b'"usage":{"prompt_tokens":5,"prompt_tokens":7,"completion_tokens":3}}'
    assert whole(twice)["usage"] == COUNTED


def test_broken_text() -> None:
    """Invalid UTF-8 and lone surrogates beside the usage do not hide it; in a name they drop that name."""
    line = whole(
        b'{"model":"gpt\\ud83d","id":"\xed\xa0\x80","x":"\xff\xfe","usage":{"prompt_tokens":7,"completion_tokens":3}}'
    )
    assert line["usage"] == COUNTED
    assert line["flags"] == ["dropped:response_model", "dropped:response_id"]


NAMES = ["x" * MIB, "\x1b]0;owned\x07", "a\nb", "\u202egpt", "gpt 4", "\x9b2J", "\x00", "é", "[bold]gpt[/bold]\x1b[2J"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_none(name: str) -> None:
    """A megabyte, control characters or terminal escapes as a name: dropped, flagged, and never printed."""
    body = answer(model=name, id=name, service_tier=name, choices=[{"finish_reason": name}])
    line = whole(body)
    assert {"response_model", "response_id", "service_tier", "finish_reasons"}.isdisjoint(line)
    assert {"dropped:response_model", "dropped:response_id"} <= set(line["flags"])
    printed = plain({**line, "response_model": name, "labels": {"project": name}, "cost_reason": name})
    assert printed.isprintable()
    assert len(printed) < 1000


def test_lists_without_end() -> None:
    """Ten thousand reasons to stop, ten thousand shares of other models: a few are kept, and it is told."""
    reasons = [{"finish_reason": f"reason{n}"} for n in range(5000)]
    assert len(whole(answer(choices=reasons))["finish_reasons"]) == MOST_REASONS
    share = {"type": "advisor_message", "model": "claude-opus-4-1", "input_tokens": 5, "output_tokens": 5}
    usage = {"input_tokens": 7, "output_tokens": 3, "iterations": [share] * 10_000}
    body = json.dumps({"model": "claude-sonnet-4-5", "usage": usage}).encode()
    lines = book(exchange(CLAUDE, content_type=JSON).close("complete", ENDED, body), prices())
    assert len(lines) == 1 + MOST_PARTS
    assert (lines[0]["usage_source"], lines[0]["usage_reason"]) == ("partial", "dropped:parts")


@pytest.mark.parametrize(("said", "booked"), [
    ("1" * 41 + "e-40", "1.111111111111"), ("0.5", "0.5"), ("1." + "0" * 60 + "e-10", None),
    (1e308, None), (-1, None), ("NaN", None), ("\uff11", None), (True, None),
])  # fmt: skip
def test_money_that_is_none(said: Any, booked: str | None) -> None:
    """An amount that is too long, too large, negative or no number is no amount; it is never cut to another one."""
    line = whole(answer(usage={**USAGE, "cost": said}), "openrouter.ai/api/v1/chat/completions")
    assert line.get("cost_reported_usd") == (Decimal(booked) if booked else None)


# -- lies --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["", JSON, SSE, AWS, "text/html", "audio/mpeg", "application/grpc", "\x1b[2J", "x" * 5000, "text/plain"]
)
@pytest.mark.parametrize("coding", ["", "gzip", "br", "zstd", "deflate", "identity", "x" * 5000, "\x1b[2J", "gzip;q=1"])
def test_labels_that_lie(kind: str, coding: str) -> None:
    """A plain answer under any media type and coding is read right or not at all; no label is obeyed."""
    for line in (
        whole(answer(), kind=kind, content_encoding=coding),
        streamed([answer()], kind=kind, content_encoding=coding),
    ):
        assert line.get("usage", COUNTED) == COUNTED
        assert line["usage_source"] == "reported" or is_honest(line)
        assert encode(line).isascii()
        assert b"\\u001b" not in encode(line)


def head(total: int, headers: int) -> bytes:
    """A prelude of these lengths with the right checksum."""
    lengths = struct.pack(">II", total, headers)
    return lengths + struct.pack(">I", zlib.crc32(lengths))


LYING = {
    "another prelude sum": lambda good: good[:8] + b"\0\0\0\0" + good[12:],
    "another message sum": lambda good: good[:-4] + b"\0\0\0\0",
    "a gigantic length": lambda good: head(2**32 - 1, 0) + good,
    "gigantic headers": lambda good: head(2**24, 2**24 - 16) + good,
    "no length": lambda good: head(0, 0) + good,
}  # fmt: skip


@pytest.mark.parametrize("lie", LYING)
def test_event_streams_that_lie(lie: str) -> None:
    """False checksums and lengths of an AWS event stream: nothing behind them is believed."""
    usage = {"inputTokens": 7, "outputTokens": 3, "totalTokens": 10}
    good = message("metadata", json.dumps({"usage": usage}).encode())
    start = message("contentBlockDelta", b'{"delta":{"text":"hi"}}')
    line = streamed([start, LYING[lie](good) + b"x" * MIB], BEDROCK, AWS)
    assert line["outcome"] == "broken"
    assert line["usage_source"] == "none"


@pytest.mark.parametrize("agent", ["a" * 100_000, "(" * 50_000, "()" * 50_000, "a/" * 50_000, "x@y " * 20_000])
def test_user_agents_without_end(agent: str) -> None:
    """A user agent of any length is cut in no time."""
    from llmtab.attribution.labels import agent_text

    started = time.process_time()
    assert len(agent_text(agent) or "") <= 64
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize(
    "path", ["/" + "a/" * 30_000, "/v1/" + "a1" * 30_000, "/v1/" + "%41" * 20_000, "/model/" + "a/" * 30_000 + "invoke"]
)
@pytest.mark.parametrize(
    "host", ["api.openai.com", "bedrock-runtime.us-east-1.amazonaws.com", "x" * 5000 + ".example.com"]
)
def test_paths_without_end(path: str, host: str) -> None:
    """A path or host of any length is looked at in no time, and the ledger shows 128 characters of it."""
    started = time.process_time()
    claim = built_in().match(host, 443, "POST", path)
    assert time.process_time() - started < 0.1
    assert claim is None or len(claim.path) <= 128


@pytest.mark.parametrize(
    "word", ["alice%40example.com", "my%20question", "a@b.c", "na\u00efve", "q=secret", "a1b2c3d4e5f6", "report,2024"]
)
def test_what_is_no_plain_word_is_no_part_of_a_path(word: str) -> None:
    """Names, addresses and questions in a path are not shown; words of an interface and models are."""
    assert shown_path(f"/v1/things/{word}/run", {}) == "/v1/things/{id}/run"
    assert shown_path("/v1beta/models/gpt%204:run", {"model": "gpt 4:run"}) == "/v1beta/models/gpt%204:run"
