"""What a hostile server or client sends: bounded memory and time, one honest line, nothing a terminal would obey."""

import gzip
import json
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any

import brotli
import pytest

from golden import built_in
from llmtab.booking import book
from llmtab.cells import plain
from llmtab.events import DEEPEST
from llmtab.exchange import TAP_TOTAL, Answer, Call, Exchange, How, TapMemory
from llmtab.extract import MOST_PARTS, MOST_REASONS
from llmtab.pricing import PriceBook
from llmtab.profiles.patterns import shown_path
from llmtab.record import encode
from test_eventstream import event as message

BEGAN, CAME, ENDED = 1_790_000_000.0, 1_790_000_001.0, 1_790_000_002.0
CHAT = "api.openai.com/v1/chat/completions"
CLAUDE = "api.anthropic.com/v1/messages"
BEDROCK = "bedrock-runtime.us-east-1.amazonaws.com/model/m/converse-stream"
JSON, SSE, AWS = "application/json", "text/event-stream", "application/vnd.amazon.eventstream"
MIB = 1024 * 1024
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
COUNTED = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
SECONDS = 2.0
"""One call may take so long here, on a busy machine; on an idle one each takes a tenth."""


@pytest.fixture(scope="module")
def prices() -> PriceBook:
    return PriceBook.load()


def exchange(
    url: str = CHAT, memory: TapMemory | None = None, asked: bytes = b'{"model":"m"}', **headers: str
) -> Exchange:
    host, _, path = url.partition("/")
    claim = built_in().match(host, 443, "POST", f"/{path}")
    assert claim is not None
    call = Call("id", host, "POST", f"/{path}", BEGAN, {}, lambda: asked, lambda name: None)
    found = Exchange(call, claim, memory or TapMemory())
    found.answer = Answer(200, {name.replace("_", "-"): value for name, value in headers.items()}, BEGAN)
    return found


@pytest.fixture
def whole(prices: PriceBook) -> Callable[..., dict[str, Any]]:
    """The one line of a buffered body."""

    def line(body: bytes, url: str = CHAT, kind: str = JSON, **headers: str) -> dict[str, Any]:
        started = time.perf_counter()
        seen = exchange(url, content_type=kind, **headers).close("complete", ENDED, body)
        return timely(book(seen, prices), started)

    return line


@pytest.fixture
def streamed(prices: PriceBook) -> Callable[..., dict[str, Any]]:
    """The one line of a body that passes in these chunks."""

    def line(
        chunks: Iterable[bytes], url: str = CHAT, kind: str = SSE, how: How = "complete", **headers: str
    ) -> dict[str, Any]:
        started = time.perf_counter()
        found = exchange(url, content_type=kind, **headers)
        for chunk in chunks:
            found.feed(chunk, CAME)
        return timely(book(found.close(how, ENDED), prices), started)

    return line


def timely(lines: list[dict[str, Any]], started: float) -> dict[str, Any]:
    assert time.perf_counter() - started < SECONDS
    [line] = lines
    assert len(encode(line)) < 4096
    return line


def in_pieces(body: bytes, size: int = 64 * 1024) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


def answer(**members: Any) -> bytes:
    return json.dumps(
        {"id": "c", "model": "gpt-4o", "choices": [{"finish_reason": "stop"}], "usage": USAGE, **members}
    ).encode()


def is_honest(line: dict[str, Any]) -> bool:
    """Whether a line claims nothing: no usage, or usage that is marked, and never money for certain."""
    if line["usage_source"] == "none":
        return "usage" not in line and line["cost_usd"] is None
    return line["usage_source"] == "partial" and line["cost_source"] in ("estimated", "unpriced")


# -- bombs -------------------------------------------------------------------------------------------------------------


def bombs() -> Iterator[tuple[str, str, bytes]]:
    """(name, Content-Encoding, body): 300 MiB of blanks each, the stacked ones more."""
    blanks, count = b" " * (4 * MIB), 75
    gz = zlib.compressobj(wbits=31)
    zipped = b"".join(gz.compress(blanks) for _ in range(count)) + gz.flush()
    br = brotli.Compressor(quality=1)
    brotlied = b"".join(br.process(blanks) for _ in range(count)) + br.finish()
    zstandard = pytest.importorskip("zstandard")
    zs = zstandard.ZstdCompressor().compressobj()
    zstd = b"".join(zs.compress(blanks) for _ in range(count)) + zs.flush()
    yield from (("gzip", "gzip", zipped), ("deflate", "deflate", zlib.compress(blanks * 8)), ("br", "br", brotlied))
    yield from (("zstd", "zstd", zstd), ("twice", "gzip, gzip", gzip.compress(zipped)))
    yield "three codings", "br, gzip, zstd", zstandard.compress(gzip.compress(brotlied))
    yield "too many codings", ", ".join(["gzip"] * 9), zipped


@pytest.mark.parametrize("passed", ["whole", "streamed"])
def test_bombs(passed: str, whole: Callable[..., Any], streamed: Callable[..., Any]) -> None:
    """A few kilobytes that unfold to hundreds of megabytes cost little memory and time, and are never taken for an answer."""
    for name, coding, body in bombs():
        tracemalloc.start()
        try:
            if passed == "whole":
                line = whole(body, content_encoding=coding)
            else:
                line = streamed(in_pieces(body, 500), content_encoding=coding)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert is_honest(line), name
        assert line["usage_reason"].startswith("undecodable:"), name
        assert peak < 70 * MIB, f"{name}: {peak / MIB:.0f} MiB"


def test_stacked_codings_are_one_bomb() -> None:
    """Codings stacked on one another may together grow a body no more than one alone: ratios do not multiply."""
    from llmtab.wire.decoding import BOMB_FREE, BOMB_RATIO, DecodeError, decoder

    inner = zlib.compressobj(wbits=31)
    unit = bytes(range(256)) * 8 + b"\0" * 300_000  # grows about 150 times: no bomb by itself
    body = gzip.compress(b"".join(inner.compress(unit) for _ in range(1400)) + inner.flush())
    stream, size = decoder("gzip, gzip"), 0
    with pytest.raises(DecodeError, match="bomb"):
        for piece in stream.feed(body):
            size += len(piece)
    assert size <= max(BOMB_FREE, BOMB_RATIO * len(body)) + MIB


# -- size --------------------------------------------------------------------------------------------------------------


def gigabyte(start: bytes, unit: bytes, end: bytes = b"") -> Iterator[bytes]:
    yield start
    for _ in range(1024 * MIB // len(unit)):
        yield unit
    yield end


ENDLESS = {
    "a line without an end": (SSE, b"data: ", b"x" * MIB, b""),
    "a JSON text": (JSON, b'{"model":"gpt-4o","text":"', b"x" * MIB, b'","usage":' + json.dumps(USAGE).encode() + b"}"),
    "a JSON array": (JSON, b'{"model":"gpt-4o","data":[', b"[0.125,7]," * (MIB // 10), b'0],"usage":' + json.dumps(USAGE).encode() + b"}"),
    "noise": ("application/octet-stream", b"\0", bytes(range(256)) * 4096, b""),
}  # fmt: skip


@pytest.mark.parametrize("what", ENDLESS)
def test_a_gigabyte(what: str, prices: PriceBook) -> None:
    """A body of 1 GB is watched in the memory of one frame; the usage at the end of a JSON body of that size is found."""
    kind, start, unit, end = ENDLESS[what]
    found = exchange(content_type=kind)
    tracemalloc.start()
    try:
        for chunk in gigabyte(start, unit, end):
            found.feed(chunk, CAME)
        [line] = book(found.close("complete", ENDED), prices)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * MIB, f"{peak / MIB:.0f} MiB"
    assert line["bytes"]["response"] > 1000 * MIB
    if end:
        assert (line["usage_source"], line["usage"], line["response_model"]) == ("reported", COUNTED, "gpt-4o")
    else:
        assert is_honest(line)


@pytest.mark.parametrize("coding", ["", "gzip"])
@pytest.mark.parametrize("middle", ["text", "array"])
def test_usage_at_the_end_of_50_mb_is_found(
    middle: str, coding: str, whole: Callable[..., Any], streamed: Callable[..., Any]
) -> None:
    """Past every cap the end of a JSON body still tells its usage: buffered or streamed, plain or compressed."""
    pattern = bytes(33 + at * 7 % 59 for at in range(4096)).replace(b'"', b"_").replace(b"\\", b"_")
    filler = b'"' + pattern * (50 * MIB // 4096) + b'"'
    body = b'{"model":"gpt-4o","x":' + (b"[" + filler + b"]" if middle == "array" else filler)
    body += b',"usage":' + json.dumps(USAGE).encode() + b"}"
    sent = gzip.compress(body, 1) if coding else body
    for line in (whole(sent, content_encoding=coding), streamed(in_pieces(sent), kind=JSON, content_encoding=coding)):
        assert (line["outcome"], line["usage_source"], line["usage"]) == ("ok", "reported", COUNTED)
        assert line["response_model"] == "gpt-4o"


def test_an_event_too_large_is_told(streamed: Callable[..., Any]) -> None:
    """An event over the cap is lost; if the usage was in it the line says why there is none."""
    event = b'data: {"x":"' + b"y" * (20 * MIB) + b'","usage":' + json.dumps(USAGE).encode() + b"}\n\ndata: [DONE]\n\n"
    line = streamed(in_pieces(event))
    assert (line["usage_source"], line["usage_reason"]) == ("none", "undecodable:limit")


DRIPS = {
    "a line": (SSE, b"", b"ab"),
    "a JSON text": (JSON, b"{", b"ab"),
    "an array": (JSON, b"[{", b"ab"),
    "lines of data": (SSE, b"", b"data:a\n"),
    "one line of NDJSON": ("application/x-ndjson", b"{", b"ab"),
    "one message": (AWS, struct.pack(">III", 20 * MIB, 0, zlib.crc32(struct.pack(">II", 20 * MIB, 0))), b"ab"),
}


@pytest.mark.parametrize("what", DRIPS)
def test_a_drip_of_tiny_chunks_takes_its_bytes_and_no_more(what: str, prices: PriceBook) -> None:
    """120,000 chunks of two bytes: kept in one buffer, not as so many objects of fifty bytes."""
    kind, start, piece = DRIPS[what]
    found = exchange(BEDROCK if kind == AWS else CHAT, content_type=kind)
    tracemalloc.start()
    try:
        found.feed(start + b" " * 5000, CAME)
        for _ in range(120_000):
            found.feed(bytes(bytearray(piece)), CAME)  # an object of its own, as from a socket
        peak = tracemalloc.get_traced_memory()[1]
        [line] = book(found.close("aborted", ENDED), prices)
    finally:
        tracemalloc.stop()
    assert peak < 3 * MIB, f"{peak / MIB:.1f} MiB"
    assert line["outcome"] == "aborted"
    assert is_honest(line)


def test_ten_thousand_open_streams(prices: PriceBook) -> None:
    """10,000 streams of 100 KB open at once stay within the memory that all taps share, and each is read exactly."""
    memory = TapMemory()
    text = b'data: {"model":"gpt-4o","choices":[{"delta":{"content":"' + b"word " * 4000 + b'"}}]}\n\n'
    streams = [exchange(memory=memory, content_type=SSE) for _ in range(10_000)]
    for _ in range(5):
        for each in streams:
            each.feed(text, CAME)
        assert memory.used <= TAP_TOTAL
    last = b'data: {"choices":[],"usage":' + json.dumps(USAGE).encode() + b"}\n\ndata: [DONE]\n\n"
    for each in streams:
        each.feed(last, CAME)
        [line] = book(each.close("complete", ENDED), prices)
        assert (line["usage_source"], line["usage"]) == ("reported", COUNTED)
    assert memory.used == 0


# -- odd JSON ----------------------------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize("depth", [DEEPEST + 1, 900, 3000, 9000, 100_000])
@pytest.mark.parametrize("spoilt", [b"", b"\xff"])
def test_deep_nesting(depth: int, spoilt: bytes, whole: Callable[..., Any], streamed: Callable[..., Any]) -> None:
    """However deep an answer nests, also where it has to be read leniently: no exception, and no usage out of it."""
    usage = b'{"prompt_tokens":7,"completion_tokens":3,"deep":' + nested(depth) + b"}"
    body = b'{"x":"' + spoilt + b'","usage":' + usage + b"}"
    assert is_honest(whole(body))
    assert is_honest(streamed([b"data: " + body + b"\n\n"] * 2 + [b"data: [DONE]\n\n"]))
    assert is_honest(whole(b"[" * depth + body + b"]" * depth))


@pytest.mark.parametrize(
    "value", ["1" + "0" * 5000, "1" + "0" * 1_000_000, "-" + "9" * 4000, "1e999999999", "NaN", "Infinity"]
)
def test_figures_that_are_none(value: str, whole: Callable[..., Any]) -> None:
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
def test_one_bad_counter_spoils_the_sum(bad: Any, place: str, whole: Callable[..., Any]) -> None:
    """A counter that is no number is flagged, what is left is partial, and the price of what is left is not the cost."""
    value = {"cached_tokens": bad} if place == "prompt_tokens_details" else bad
    line = whole(answer(usage={**USAGE, place: value}))
    assert line["usage_source"] == "partial"
    [flag] = [flag for flag in line["flags"] if flag.startswith("dropped:")]
    assert line["usage_reason"] == flag
    assert (line["cost_usd"], line["cost_reason"]) == (None, flag.replace("dropped", "inconsistent"))


@pytest.mark.parametrize(
    "usage", [[], [1], "x", 7, True, None, {}, {"usage": USAGE}, [USAGE], {"prompt_tokens": {"prompt_tokens": 7}}]
)
def test_usage_of_another_form(usage: Any, whole: Callable[..., Any]) -> None:
    """A usage object that is a list, a text or nested wrongly is no usage."""
    line = whole(answer(usage=usage))
    assert line["usage_source"] == "none"
    assert line["cost_usd"] is None


def test_details_of_another_form(whole: Callable[..., Any]) -> None:
    """Details that are no object leave the totals as they are."""
    for odd in ([], "x", 3, [{"cached_tokens": 2}]):
        assert whole(answer(usage={**USAGE, "prompt_tokens_details": odd}))["usage"] == COUNTED


def test_duplicate_keys(whole: Callable[..., Any]) -> None:
    """Of a member that is there twice the last one counts, as for every client."""
    twice = b'{"model":"gpt-4o","usage":{"prompt_tokens":1,"completion_tokens":1},"usage":{"prompt_tokens":5,"prompt_tokens":7,"completion_tokens":3}}'
    assert whole(twice)["usage"] == COUNTED


def test_broken_text(whole: Callable[..., Any]) -> None:
    """Invalid UTF-8 and lone surrogates beside the usage do not hide it; in a name they drop that name."""
    line = whole(
        b'{"model":"gpt\\ud83d","id":"\xed\xa0\x80","x":"\xff\xfe","usage":{"prompt_tokens":7,"completion_tokens":3}}'
    )
    assert line["usage"] == COUNTED
    assert line["flags"] == ["dropped:response_model", "dropped:response_id"]


NAMES = ["x" * MIB, "\x1b]0;owned\x07", "a\nb", "\u202egpt", "gpt 4", "\x9b2J", "\x00", "é", "[bold]gpt[/bold]\x1b[2J"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_none(name: str, whole: Callable[..., Any]) -> None:
    """A megabyte, control characters or terminal escapes as a name: dropped from the line, flagged, and never printed."""
    body = answer(model=name, id=name, service_tier=name, choices=[{"finish_reason": name}])
    line = whole(body)
    assert {"response_model", "response_id", "service_tier", "finish_reasons"}.isdisjoint(line)
    assert {"dropped:response_model", "dropped:response_id"} <= set(line["flags"])
    printed = plain({**line, "response_model": name, "labels": {"project": name}, "cost_reason": name})
    assert printed.isprintable()
    assert len(printed) < 1000


def test_lists_without_end(whole: Callable[..., Any], prices: PriceBook) -> None:
    """Ten thousand reasons to stop, ten thousand shares of other models: a few are kept, and what is missing is told."""
    reasons = [{"finish_reason": f"reason{n}"} for n in range(5000)]
    assert len(whole(answer(choices=reasons))["finish_reasons"]) == MOST_REASONS
    share = {"type": "advisor_message", "model": "claude-opus-4-1", "input_tokens": 5, "output_tokens": 5}
    usage = {"input_tokens": 7, "output_tokens": 3, "iterations": [share] * 10_000}
    body = json.dumps({"model": "claude-sonnet-4-5", "usage": usage}).encode()
    lines = book(exchange(CLAUDE, content_type=JSON).close("complete", ENDED, body), prices)
    assert len(lines) == 1 + MOST_PARTS
    assert (lines[0]["usage_source"], lines[0]["usage_reason"]) == ("partial", "dropped:parts")


@pytest.mark.parametrize(("said", "booked"), [("1" * 41 + "e-40", "1.111111111111"), ("0.5", "0.5"), ("1." + "0" * 60 + "e-10", None),
                                              (1e308, None), (-1, None), ("NaN", None), ("\uff11", None), (True, None)])  # fmt: skip
def test_money_that_is_none(said: Any, booked: str | None, whole: Callable[..., Any]) -> None:
    """An amount that is too long, too large, negative or no number is no amount; it is never cut to another one."""
    line = whole(answer(usage={**USAGE, "cost": said}), "openrouter.ai/api/v1/chat/completions")
    assert line.get("cost_reported_usd") == (Decimal(booked) if booked else None)


# -- lies --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["", JSON, SSE, AWS, "text/html", "audio/mpeg", "application/grpc", "\x1b[2J", "x" * 5000, "text/plain"]
)
@pytest.mark.parametrize("coding", ["", "gzip", "br", "zstd", "deflate", "identity", "x" * 5000, "\x1b[2J", "gzip;q=1"])
def test_labels_that_lie(kind: str, coding: str, whole: Callable[..., Any], streamed: Callable[..., Any]) -> None:
    """A plain answer under any media type and coding is read right or not at all, and nothing of the label is obeyed."""
    for line in (
        whole(answer(), kind=kind, content_encoding=coding),
        streamed([answer()], kind=kind, content_encoding=coding),
    ):
        assert line.get("usage", COUNTED) == COUNTED
        assert line["usage_source"] == "reported" or is_honest(line)
        assert encode(line).isascii()
        assert b"\\u001b" not in encode(line)


LYING = {
    "another prelude sum": lambda good: good[:8] + b"\0\0\0\0" + good[12:],
    "another message sum": lambda good: good[:-4] + b"\0\0\0\0",
    "a gigantic length": lambda good: struct.pack(">II", 2**32 - 1, 0) + struct.pack(">I", zlib.crc32(struct.pack(">II", 2**32 - 1, 0))) + good,
    "gigantic headers": lambda good: struct.pack(">II", 2**24, 2**24 - 16) + struct.pack(">I", zlib.crc32(struct.pack(">II", 2**24, 2**24 - 16))) + good,
    "no length": lambda good: struct.pack(">II", 0, 0) + struct.pack(">I", zlib.crc32(struct.pack(">II", 0, 0))) + good,
}  # fmt: skip


@pytest.mark.parametrize("lie", LYING)
def test_event_streams_that_lie(lie: str, streamed: Callable[..., Any]) -> None:
    """False checksums and lengths of an AWS event stream: nothing behind them is believed, what came before is partial."""
    usage = {"inputTokens": 7, "outputTokens": 3, "totalTokens": 10}
    good = message("metadata", json.dumps({"usage": usage}).encode())
    start = message("contentBlockDelta", b'{"delta":{"text":"hi"}}')
    line = streamed([start, LYING[lie](good) + b"x" * MIB], BEDROCK, AWS)
    assert line["outcome"] == "broken"
    assert line["usage_source"] == "none"


@pytest.mark.parametrize("agent", ["a" * 100_000, "(" * 50_000, "()" * 50_000, "a/" * 50_000, "x@y " * 20_000])
def test_user_agents_without_end(agent: str) -> None:
    """A user agent of any length is cut in no time."""
    from llmtab.attribution import agent_text

    started = time.perf_counter()
    assert len(agent_text(agent) or "") <= 64
    assert time.perf_counter() - started < 0.1


@pytest.mark.parametrize(
    "path", ["/" + "a/" * 30_000, "/v1/" + "a1" * 30_000, "/v1/" + "%41" * 20_000, "/model/" + "a/" * 30_000 + "invoke"]
)
@pytest.mark.parametrize(
    "host", ["api.openai.com", "bedrock-runtime.us-east-1.amazonaws.com", "x" * 5000 + ".example.com"]
)
def test_paths_without_end(path: str, host: str) -> None:
    """A path or host of any length is looked at in no time, and the ledger shows 128 characters of it."""
    started = time.perf_counter()
    claim = built_in().match(host, 443, "POST", path)
    assert time.perf_counter() - started < 0.1
    assert claim is None or len(claim.path) <= 128


@pytest.mark.parametrize(
    "word", ["alice%40example.com", "my%20question", "a@b.c", "na\u00efve", "q=secret", "a1b2c3d4e5f6", "report,2024"]
)
def test_what_is_no_plain_word_is_no_part_of_a_path(word: str) -> None:
    """Names, addresses and questions that somebody put into a path are not shown; words of an interface and models are."""
    assert shown_path(f"/v1/things/{word}/run", {}) == "/v1/things/{id}/run"
    assert shown_path("/v1beta/models/gpt%204:run", {"model": "gpt 4:run"}) == "/v1beta/models/gpt%204:run"
