"""Figures that are ours: when they are made, what they leave alone, how they are marked."""

import json
import random
import time
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden import built_in, compressed
from llmtab.booking import book
from llmtab.estimates.guess import Guesser
from llmtab.exchange import Exchange, TapMemory
from llmtab.observation import Answer, Call
from llmtab.pricing import PriceBook
from llmtab.record import encode

PRICES = PriceBook.load()
CHAT = "https://api.openai.com/v1/chat/completions"
CLAUDE = "https://api.anthropic.com/v1/messages"
RESPONSES = "https://api.openai.com/v1/responses"
ASKED = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "Where is Paris?"}]}
DONE = b"data: [DONE]\n\n"


def sse(*events: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def said(text: str, model: str = "gpt-4o") -> dict[str, Any]:
    return {"id": "c", "model": model, "choices": [{"index": 0, "delta": {"content": text}}]}


WORDS = [said(f" word{n}") for n in range(20)]


def booked(
    body: bytes, url: str = CHAT, asked: Any = ASKED, how: Any = "complete", status: int = 200, chunk: int = 500,
    guesser: Guesser | None = None, kind: str = "text/event-stream", **headers: str,
) -> dict[str, Any]:  # fmt: skip
    host, _, path = url.removeprefix("https://").partition("/")
    claim = built_in().match(host, 443, "POST", "/" + path)
    assert claim is not None
    request = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    call = Call("i", host, "POST", "/" + path, 1.0, headers, lambda: request, lambda _: None)
    exchange = Exchange(call, claim, TapMemory())
    exchange.answer = Answer(status, {"content-type": kind}, 1.1)
    whole = kind == "application/json"
    for at in range(0, 0 if whole else len(body), chunk):
        exchange.feed(body[at : at + chunk], 1.2)
    seen = exchange.close(how, 2.0, body if whole else None)
    assert seen is not None
    [line] = book(seen, PRICES, (guesser or Guesser(list)).guess)
    encode(line)
    return line


def test_both_sides_are_estimated_and_marked() -> None:
    """A stream that says nothing: input from the prompt, output from the text, each named as ours, and a cost."""
    line = booked(sse(*WORDS) + DONE)
    assert (line["usage_source"], line["usage_reason"]) == ("estimated", "no_usage_in_stream")
    assert line["estimated"] == ["input_tokens", "output_tokens", "total_tokens"]
    assert line["estimate_method"] == "input:pieces,output:pieces"
    assert line["usage"]["input_tokens"] in range(9, 15)
    assert line["usage"]["output_tokens"] in range(38, 44)  # o200k: 40
    assert line["cost_source"] == "estimated"
    assert line["cost_usd"] > Decimal("0.0003")


@pytest.mark.parametrize("coding", ["", "gzip"])
def test_what_goes_on_without_us_is_not_estimated(coding: str) -> None:
    """A background response whose stream is left is read again later, with its figures: an estimate of it would be paid
    twice."""
    deltas = [{"type": "response.output_text.delta", "delta": f" word{number}"} for number in range(20)]
    asked = {"model": "gpt-4o", "stream": True, "background": True, "input": "Where is Paris?"}
    lines = []
    for request in (asked, {**asked, "background": False}):
        data = json.dumps(request).encode()
        headers = {"content-encoding": coding} if coding else {}
        body = compressed(data, coding) if coding else data
        lines.append(booked(sse(*deltas), RESPONSES, body, "aborted", **headers))
    assert [line["usage_source"] for line in lines] == ["none", "estimated"]
    assert (lines[0]["cost_usd"], lines[0]["cost_reason"]) == (None, "no_usage")


def test_pieces_of_a_stream_are_its_tokens() -> None:
    """Where each piece is one token, as most servers send them, their number is the count."""
    words = ["the", "sun", "is", "up", "and", "so", "are", "we", "all", "day", "long", "in", "the", "warm", "light"]
    line = booked(sse(*(said(" " + word) for word in words)) + DONE)
    assert line["estimate_method"].endswith("output:deltas")
    assert line["usage"]["output_tokens"] == len(words) + 1


def test_final_figures_are_never_touched() -> None:
    """What the provider said at the end stands as it is, however odd; also where the client left right after it."""
    usage = {"id": "c", "model": "gpt-4o", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    for how in ("complete", "aborted"):
        line = booked(sse(*WORDS, usage) + DONE, how=how)
        assert (line["usage_source"], line["usage"]["output_tokens"]) == ("reported", 1)
        assert "estimated" not in line


@pytest.mark.parametrize("how", ["aborted", "broken"])
def test_reported_parts_stand_beside_estimates(how: str) -> None:
    """Of a cut Anthropic stream input and cache are the provider's, the output ours."""
    start = {"type": "message_start", "message": {"model": "claude-sonnet-4-5", "usage": {
        "input_tokens": 10, "cache_read_input_tokens": 500, "output_tokens": 2}}}  # fmt: skip
    text = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "The capital of France is Paris."}}
    line = booked(sse(start, text), CLAUDE, how=how)
    assert (line["usage_source"], line["usage_reason"], line["outcome"]) == ("estimated", how, how)
    assert line["estimated"] == ["output_tokens", "total_tokens"]
    assert (line["usage"]["input_tokens"], line["usage"]["cache_read_input_tokens"]) == (510, 500)
    assert line["usage"]["output_tokens"] in range(9, 13)
    nothing_yet = booked(sse(start), CLAUDE, how=how)
    assert (nothing_yet["usage_source"], nothing_yet["usage"]["output_tokens"]) == ("partial", 2)


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b'{"error": {"message": "slow down"}}', 429, "application/json"),
        (sse(said("Hello"), {"error": {"message": "overloaded"}}), 200, "text/event-stream"),
        (sse(said("Hello")), 500, "text/event-stream"),
        (b'{"id": "r", "object": "response", "status": "queued", "usage": null}', 200, "application/json"),
        (b"\x00\x01\x02 not text", 200, "audio/mpeg"),
        (b"", 200, "text/event-stream"),
    ],
)
def test_what_is_not_billed_or_not_known_is_not_estimated(body: bytes, status: int, kind: str) -> None:
    """Errors, jobs that wait, bodies that cannot be read: no figure is better than an invented one."""
    line = booked(body, RESPONSES if b"queued" in body else CHAT, status=status, kind=kind)
    assert line["usage_source"] == "none"
    assert "estimated" not in line


def test_a_whole_answer_without_usage_is_estimated_by_its_text() -> None:
    """Servers that never tell usage: their answer's text is known, and counted."""
    body = json.dumps({"model": "m", "choices": [{"message": {"content": "Paris is the capital of France."}}]}).encode()
    line = booked(body, kind="application/json")
    assert (line["usage_source"], line["usage_reason"]) == ("estimated", "no_usage")
    assert line["usage"]["output_tokens"] in range(7, 10)


def learned(ratio: float, calls: int = 6) -> Iterable[dict[str, Any]]:
    for _ in range(calls):
        usage = {"input_tokens": int(1000 * ratio), "output_tokens": 5}
        yield {"provider": "openai", "request_model": "gpt-4o", "usage_source": "reported", "usage": usage,
               "bytes": {"request": 1000}}  # fmt: skip


def test_the_ledger_teaches_the_prompt() -> None:
    """What this model's own calls took a byte counts its prompt, from the ledger and from calls since; one call is no
    habit."""
    asked = {**ASKED, "messages": [{"role": "user", "content": "x " * 1000}]}
    size = len(json.dumps(asked))
    old = Guesser(lambda: learned(0.2))
    line = booked(sse(*WORDS), asked=asked, guesser=old)
    assert line["estimate_method"].startswith("input:learned,")
    assert abs(line["usage"]["input_tokens"] - size * 0.2) <= 1
    fresh = Guesser(list)
    for told in learned(0.3):
        fresh.learn(told)
    assert abs(booked(sse(*WORDS), asked=asked, guesser=fresh)["usage"]["input_tokens"] - size * 0.3) <= 1
    few = Guesser(lambda: learned(0.2, 2))
    assert booked(sse(*WORDS), asked=asked, guesser=few)["estimate_method"].startswith("input:pieces,")


def test_a_ledger_that_cannot_be_read_is_none() -> None:
    """Estimates do not depend on the ledger's past."""

    def broken() -> Iterable[dict[str, Any]]:
        yield from learned(0.2, 1)
        raise OSError("gone")

    assert booked(sse(*WORDS), guesser=Guesser(broken))["usage_source"] == "estimated"


def test_half_a_cost_is_none() -> None:
    """Where the prompt is not at hand the output is estimated all the same, but the cost is not known, only a part."""
    line = booked(sse(*WORDS) + DONE, asked=b"")
    assert line["estimated"] == ["output_tokens"]
    assert (line["cost_usd"], line["cost_source"], line["cost_reason"]) == (None, "unpriced", "no_usage")
    assert line["cost_partial_usd"] > 0


def test_a_stored_context_is_flagged() -> None:
    """A prompt that goes on from what the provider keeps is more than the request says, and the line says so."""
    asked = {"model": "gpt-4o", "stream": True, "input": "And then?", "previous_response_id": "resp_1"}
    line = booked(sse({"type": "response.output_text.delta", "delta": "Well."}), RESPONSES, asked, how="aborted")
    assert line["flags"] == ["context_unseen"]


def test_reasoning_that_is_sealed_counts() -> None:
    """Encrypted reasoning is billed as output; its length tells how much it is."""
    text = {"type": "response.output_text.delta", "delta": "Forty-two."}
    seal = {"type": "response.output_item.done", "item": {"type": "reasoning", "encrypted_content": "gAAA" * 700}}
    plain = booked(sse(text), RESPONSES, how="aborted")
    sealed = booked(sse(seal, text), RESPONSES, how="aborted")
    assert sealed["estimate_method"].endswith("+sealed")
    assert 180 < sealed["usage"]["output_tokens"] - plain["usage"]["output_tokens"] < 320


@pytest.mark.parametrize("chunk", [500, 70_000])
def test_megabytes_are_counted_by_samples(chunk: int) -> None:
    """A stream of megabytes, of which the tap kept some kilobytes: its output is estimated within 10 %, and that takes
    no longer than for one of half a megabyte."""
    body = sse(*(said(f" word{n % 100:02}") for n in range(40_000)))
    exact = booked(body[: body.index(b"\n\n", 400_000) + 2], how="aborted")["usage"]["output_tokens"]
    assert len(body) > 3 * 1024 * 1024
    found = booked(body, how="aborted", chunk=chunk)["usage"]["output_tokens"]
    assert abs(found / (exact * len(body) / 400_000) - 1) < 0.1


def test_a_large_prompt_is_sampled() -> None:
    """A prompt of megabytes is counted in the time of one of kilobytes."""
    asked = {**ASKED, "messages": [{"role": "user", "content": "word " * 500_000}]}
    body = json.dumps(asked).encode()
    guesser = Guesser(list)
    booked(sse(*WORDS), guesser=guesser)
    began = time.perf_counter()
    line = booked(sse(*WORDS), asked=body, guesser=guesser)
    assert time.perf_counter() - began < 0.5
    assert abs(line["usage"]["input_tokens"] / 500_000 - 1) < 0.1


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([CHAT, CLAUDE, RESPONSES]), st.sampled_from(["complete", "aborted"]))
def test_nothing_raises(noise: bytes, url: str, how: str) -> None:
    """Whatever came and whatever was asked: one line, and figures that are whole numbers."""
    rng = random.Random(noise)
    body = sse(*WORDS[:5])
    at = rng.randrange(len(body))
    line = booked(body[:at] + noise + body[at:], url, noise or ASKED, how=how)
    assert all(type(value) is int and value >= 0 for value in (line.get("usage") or {}).values())


def test_a_coded_stream_of_megabytes_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of a compressed stream, whose bytes on the wire tell nothing of how much it says."""
    monkeypatch.setattr("llmtab.exchange.TAP_LIMIT", 50_000)
    body = sse(*(said(f" word{n % 100:02}") for n in range(20_000)))
    plain = booked(body, how="aborted")["usage"]["output_tokens"]
    claim = built_in().match("api.openai.com", 443, "POST", "/v1/chat/completions")
    assert claim is not None
    exchange = Exchange(Call("i", "h", "POST", "/", 1.0, {}, lambda: b"", lambda _: None), claim, TapMemory())
    exchange.answer = Answer(200, {"content-type": "text/event-stream", "content-encoding": "gzip"}, 1.1)
    data = compressed(body, "gzip")
    for at in range(0, len(data), 1000):
        exchange.feed(data[at : at + 1000], 1.2)
    seen = exchange.close("aborted", 2.0)
    assert seen is not None
    [line] = book(seen, PRICES, Guesser(list).guess)
    assert abs(line["usage"]["output_tokens"] / plain - 1) < 0.1
