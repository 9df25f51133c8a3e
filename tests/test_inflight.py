"""Calls under way, as the table shows them."""

import gzip
import json
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from golden import built_in
from llmtab.exchange import TAP_LIMIT, Exchange, TapMemory
from llmtab.live.inflight import MOST, Flights
from llmtab.observation import Answer, Call
from llmtab.tap import tapped


def opened(
    number: int = 0, body: bytes = b'{"messages":[],"model":"gpt-asked"}', path: str = "", **headers: str
) -> Exchange:
    host = "generativelanguage.googleapis.com" if path else "api.openai.com"
    claim = built_in().match(host, 443, "POST", path or "/v1/chat/completions")
    assert claim is not None
    call = Call(f"i{number}", host, "POST", "", 100.0 + number, {}, lambda: body, lambda _: None, {"project": "web"})
    found = Exchange(call, claim, TapMemory())
    found.answer = Answer(200, {"content-type": "text/event-stream", **headers}, 100.5)
    return found


def chunk(text: str | None = None, **facts: Any) -> bytes:
    delta = {"role": "assistant"} if text is None else {"content": text}
    event = {"id": "c", "model": "gpt-real", "choices": [{"index": 0, "delta": delta}], **facts}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def test_a_call_that_waits_says_what_was_asked() -> None:
    """Before the first byte: provider, model of the request, project, and nothing that has not happened."""
    [row] = Flights().seen([opened()])
    assert (row.provider, row.model, row.label) == ("openai", "gpt-asked", "web")
    assert (row.began, row.bytes, row.chunks, row.first_ms) == (datetime.fromtimestamp(100, UTC), 0, 0, None)


def test_a_stream_shows_bytes_chunks_and_its_first_token() -> None:
    """The first token is when text came, not when the stream opened; the model is the one that answers."""
    exchange, flights = opened(), Flights()
    exchange.feed(chunk(), 101.0)
    [row] = flights.seen([exchange])
    assert (row.chunks, row.bytes, row.first_ms, row.first_is_token) == (1, len(chunk()), 1000.0, False)
    exchange.feed(chunk("hello"), 102.5)
    exchange.feed(chunk("world"), 103.0)
    [row] = flights.seen([exchange])
    assert (row.model, row.chunks, row.first_ms, row.first_is_token) == ("gpt-real", 3, 2500.0, True)


def test_looking_on_changes_nothing() -> None:
    """A call that was looked at while it ran leaves the same observation as one that was not."""
    plain, watched, flights = opened(), opened(), Flights()
    for number, text in enumerate([None, "a", "b", "c"]):
        for exchange in (plain, watched):
            exchange.feed(chunk(text, usage={"prompt_tokens": 7, "completion_tokens": number}), 101.0 + number)
        flights.seen([watched])
    first, second = (exchange.close("complete", 110.0) for exchange in (plain, watched))
    assert first and second
    assert (first.reading.counters, first.first_token_at, first.response_bytes) == (
        second.reading.counters,
        second.first_token_at,
        second.response_bytes,
    )


def test_bytes_that_the_tap_keeps_by_itself_are_counted() -> None:
    """Between two looks of the exchange the tap appends on its own: what is shown is what has passed all the same."""
    exchange = opened()
    tap = tapped(exchange, None)
    for _ in range(500):
        tap(chunk("x"))
    [row] = Flights().seen([exchange])
    assert (row.chunks, row.bytes) == (500, 500 * len(chunk("x")))


def test_a_long_stream_is_counted_to_its_end() -> None:
    """Past the tap's limit nothing is kept any more; bytes and chunks are counted all the same."""
    exchange = opened()
    piece = chunk("x" * 60_000)
    for _ in range(many := TAP_LIMIT // len(piece) + 2):
        exchange.feed(piece, 101.0)
    [row] = Flights().seen([exchange])
    assert (row.chunks, row.bytes) == (many, many * len(piece))


def test_the_model_may_stand_in_the_path() -> None:
    """Gemini's requests name it there; a request that is still on its way names none."""
    [row] = Flights().seen([opened(path="/v1beta/models/gemini-2.5-pro:streamGenerateContent")])
    assert row.model == "gemini-2.5-pro"
    [row] = Flights().seen([opened(body=b"")])
    assert row.model == "-"


def test_a_coded_stream_shows_its_first_bytes() -> None:
    """Where the text cannot be seen yet, the row shows when the first bytes came, and nothing fails."""
    exchange = opened(**{"content-encoding": "gzip"})
    exchange.feed(gzip.compress(chunk("hello"))[:8], 101.0)
    [row] = Flights().seen([exchange])
    assert (row.first_ms, row.first_is_token) == (1000.0, False)


def test_many_calls_cost_little() -> None:
    """Two thousand open streams are looked at in milliseconds: only the oldest are read at all."""
    exchanges = [opened(number) for number in range(2000)]
    for exchange in exchanges:
        exchange.feed(chunk("hello"), 3000.0)
    flights = Flights()
    began = perf_counter()
    rows = flights.seen(exchanges)
    assert perf_counter() - began < 0.05
    assert len(rows) == 2000
    assert [row.model for row in rows[MOST:]] == ["-"] * (2000 - MOST)
    flights.seen([])
    assert flights._known == {}
