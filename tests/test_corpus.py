"""Recorded traffic of every provider, where it lies beside the checkout: the meter says what the recordings say.

The recordings are not ours to pass on, so they are no part of this repository and the tests are skipped without them.
"""

import base64
import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from effort import exhaustive
from golden import built_in, compressed, pieces
from llmtab.booking import book
from llmtab.exchange import Exchange, TapMemory
from llmtab.observation import Answer, Call, How
from llmtab.pricing import PriceBook
from llmtab.profiles import Claim
from llmtab.record import encode
from llmtab.tap import tapped
from llmtab.wire.decoding import decode_all

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"
pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="no recorded traffic in ../shared/corpus")

BEGAN, HEAD, ENDED = 1_790_000_000.0, 1_790_000_000.1, 1_790_000_001.0
MANY = 20_000
"""Single bytes that one body is dripped in; a tenth of the recordings is longer, up to a megabyte."""
FIELDS = {
    "input_tokens": "input_tokens",
    "cache_read_tokens": "cache_read_input_tokens",
    "cache_write_tokens": "cache_creation_input_tokens",
    "cache_write_1h_tokens": "cache_creation_1h_input_tokens",
    "output_tokens": "output_tokens",
    "reasoning_tokens": "reasoning_output_tokens",
    "input_audio_tokens": "audio_input_tokens",
    "output_audio_tokens": "audio_output_tokens",
    "input_image_tokens": "image_input_tokens",
    "output_image_tokens": "image_output_tokens",
    "tool_prompt_tokens": "tool_use_input_tokens",
    "web_search_requests": "web_search_requests",
}
"""A recording's word -> the counter."""
BILLED = {"input_tokens": "billed_input_tokens", "output_tokens": "billed_output_tokens"}
FACTS = {"response_id": "response_id", "model_in_response": "response_model", "service_tier": "service_tier"}
BAD = ("wrong", "missing", "unread", "phantom", "double")


@dataclass(frozen=True)
class Recording:
    """One exchange. `body`: the response's, its own content coding undone."""

    id: str
    claim: Claim | None
    call: Call
    answer: Answer
    body: bytes
    streamed: bool
    expected: Mapping[str, Any]


@cache
def recordings() -> list[Recording]:
    found = {}
    for path in sorted(CORPUS.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            found |= {record["id"]: record for record in map(json.loads, lines)}
    return [_recording(record) for record in found.values()]


@cache
def prices() -> PriceBook:
    return PriceBook.load()


def _recording(record: Mapping[str, Any]) -> Recording:
    asked, answer = record["request"], record["response"]
    url = urlsplit(asked["url"])
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    port = url.port or (443 if url.scheme == "https" else 80)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    request = base64.b64decode(asked.get("body_b64") or "")
    host = url.hostname or ""
    call = Call("id", host, asked["method"], url.path, BEGAN, _headers(asked), lambda: request, query.get)
    headers = _headers(answer)
    body = decode_all([base64.b64decode(answer["body_b64"])], headers.pop("content-encoding", "")).data
    claim = built_in().match(host, port, asked["method"], path)
    return Recording(
        record["id"], claim, call, Answer(answer["status"], headers, HEAD), body, record["streamed"], record["expected"]
    )


def _headers(message: Mapping[str, Any]) -> dict[str, str]:
    return {name.lower(): value for name, value in message["headers"]}


def dripped(body: bytes, size: int) -> Iterator[bytes]:
    """The body in pieces of that size; single bytes only at both ends of a long one, where its figures stand."""
    if size > 1 or len(body) <= MANY:
        return pieces(body, size)
    ends = MANY // 2
    return chain(pieces(body[:ends], 1), pieces(body[ends:-ends], 101), pieces(body[-ends:], 1))


def metered(
    one: Recording, body: bytes, coding: str = "", chunk: int | None = None, how: How = "complete"
) -> list[dict[str, Any]]:
    """The call's lines. Without `chunk` the body passes as the proxy would pass it: a stream event by event, any other
    buffered."""
    if one.claim is None or one.claim.binding.role in ("not_billed", "batch"):
        return []
    exchange = Exchange(one.call, one.claim, TapMemory())
    headers = {**one.answer.headers, "content-encoding": coding} if coding else one.answer.headers
    exchange.answer = Answer(one.answer.status, headers, HEAD)
    buffered = chunk is None and not one.streamed and not one.claim.binding.stream
    tap = tapped(exchange, None)
    for piece in () if buffered else dripped(body, chunk or 500):
        tap(piece)
    assert not exchange.broken_tap
    seen = exchange.close(how, ENDED, body if buffered else None)
    assert seen is not None
    lines = book(seen, prices())
    for line in lines:
        encode(line)
    return lines


def reported(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["usage_source"] == "reported" and any((line.get("usage") or {}).values())]


def verdict(one: Recording, lines: list[dict[str, Any]]) -> tuple[str, list[str]]:
    """What a line is worth against the recording's own account, and why."""
    calls = [line for line in lines if "parent" not in line and "batch" not in line]
    if len(calls) > 1:
        return "double", [f"{len(calls)} lines"]
    found, expect = reported(lines), one.expected["expect"]
    if expect is None:
        return "unchecked", []
    if expect == "no_usage":
        return ("phantom", [str(found[0]["usage"])]) if found else ("quiet", [])
    if not lines:
        return "missing", []
    if not found:
        return "unread", [f"{lines[0]['usage_source']} {lines[0].get('usage_reason')}"]
    why = list(differences(one.expected, found[0]))
    return ("wrong", why) if why else ("exact", [])


def differences(expected: Mapping[str, Any], line: Mapping[str, Any]) -> Iterator[str]:
    """Where a line says something else. What the recording does not say is not checked; 0 and absent are the same."""
    usage = line.get("usage") or {}
    for word, counter in FIELDS.items():
        want, got = expected.get(word), usage.get(counter) or 0
        if want is not None and got != want and got != expected.get(BILLED.get(word, "")):
            yield f"{counter}={got} want {want}"
    for word, key in FACTS.items():
        if expected.get(word) and line.get(key) != expected[word]:
            yield f"{key}={line.get(key)} want {expected[word]}"
    money = expected.get("provider_reported_cost")
    if money is not None:
        got = line.get("cost_reported_usd")
        if got is None or abs(got - Decimal(str(money))) > Decimal("1e-9"):
            yield f"cost_reported_usd={got} want {money}"


def verdicts(coding: str = "", chunk: int | None = None) -> tuple[Counter[str], list[str]]:
    """How many of each verdict, and the bad ones in words."""
    counts, bad = Counter[str](), []
    for one in recordings():
        kind, why = verdict(one, metered(one, compressed(one.body, coding), coding, chunk))
        counts[kind] += 1
        if kind in BAD:
            bad.append(f"{kind} {one.id}: {'; '.join(why)}")
    return counts, bad


@pytest.mark.parametrize(
    "chunk",
    [
        pytest.param(None, id="whole"),
        pytest.param(61, id="dripped"),
        pytest.param(1, id="byte by byte", marks=exhaustive),
        pytest.param(7, id="seven bytes", marks=exhaustive),
    ],
)
def test_recorded_calls_are_read_exactly(chunk: int | None) -> None:
    """Of every recorded call all figures are right, whatever the pieces it came in; where none was billed, none is."""
    counts, bad = verdicts(chunk=chunk)
    assert bad == []
    assert counts["exact"] == sum(one.expected["expect"] == "usage" for one in recordings())


@exhaustive
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_recorded_calls_are_read_in_every_coding(coding: str) -> None:
    """A compressed answer says what the same answer says in plain."""
    assert verdicts(coding)[1] == []


@pytest.mark.parametrize("how", ["aborted", "broken"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_recorded_call_cut_short_is_one_marked_line(share: float, how: How) -> None:
    """A call that ends early has one line, and what it calls reported is what the whole call would have said."""
    bad = []
    for one in recordings():
        cut = one.body[: max(1, int(len(one.body) * share))]
        lines = metered(one, cut, chunk=500, how=how)
        wanted = one.expected["expect"] == "usage"
        calls = [line for line in lines if "parent" not in line]
        if len(calls) > 1 or (wanted and not calls):
            bad.append(f"{len(calls)} lines {one.id}")
        for line in reported(lines)[:1] if wanted else ():
            bad += [f"{one.id}: {why}" for why in differences(one.expected, line)]
        if not wanted and one.expected["expect"] == "no_usage" and reported(lines):
            bad.append(f"phantom {one.id}")
    assert bad == []
