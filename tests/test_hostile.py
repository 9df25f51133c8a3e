"""Bombs, gigabytes, drips and ten thousand streams: bounded memory and time, and the usage at the end still found."""

import gzip
import json
import struct
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from functools import cache

import brotli
import pytest

import llmtab.reader
from effort import exhaustive, sampled
from hostile import (
    AWS,
    BEDROCK,
    CAME,
    CHAT,
    COUNTED,
    ENDED,
    JSON,
    MIB,
    SSE,
    USAGE,
    answer,
    exchange,
    in_pieces,
    is_honest,
    prices,
    streamed,
    whole,
)  # fmt: skip
from llmtab.booking import book
from llmtab.events import BIG
from llmtab.exchange import TAP_LIMIT, TAP_TOTAL, TapMemory


@pytest.fixture(autouse=True, scope="module")
def read_once() -> None:
    """Profiles and prices are read before anything is measured."""
    whole(answer())


# -- bombs -------------------------------------------------------------------------------------------------------------


@cache
def bombs() -> list[tuple[str, str, bytes]]:
    """(name, Content-Encoding, body): 300 MiB of blanks each, the stacked ones more."""
    blanks, count = b" " * (4 * MIB), 75
    gz = zlib.compressobj(wbits=31)
    zipped = b"".join(gz.compress(blanks) for _ in range(count)) + gz.flush()
    br = brotli.Compressor(quality=1)
    brotlied = b"".join(br.process(blanks) for _ in range(count)) + br.finish()
    zstandard = pytest.importorskip("zstandard")
    zs = zstandard.ZstdCompressor().compressobj()
    zstd = b"".join(zs.compress(blanks) for _ in range(count)) + zs.flush()
    return [
        ("gzip", "gzip", zipped),
        ("deflate", "deflate", zlib.compress(blanks * 8)),
        ("br", "br", brotlied),
        ("zstd", "zstd", zstd),
        ("twice", "gzip, gzip", gzip.compress(zipped)),
        ("three codings", "br, gzip, zstd", zstandard.compress(gzip.compress(brotlied))),
        ("too many codings", ", ".join(["gzip"] * 9), zipped),
    ]


@pytest.mark.parametrize("passed", sampled(["whole", "streamed"], "streamed"))
def test_bombs(passed: str) -> None:
    """A few kilobytes that unfold to hundreds of megabytes cost little memory and time, and are no answer."""
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


@pytest.mark.parametrize("passed", ["whole", "streamed"])
def test_a_bomb_never_holds_the_event_loop(passed: str) -> None:
    """However few bytes a bomb is, what it unfolds to is found out by decoding no more than the loop has time for; an
    honest body is decoded once, and at once."""
    for name, coding, body in bombs():
        found = exchange(content_type=SSE, content_encoding=coding)
        memory = found._memory
        if passed == "streamed":
            for piece in in_pieces(body[: 512 * 1024], 500):
                found.feed(piece, CAME)
        began = time.process_time()
        assert found.needs_thread(body if passed == "whole" else None), name
        assert time.process_time() - began < 0.03, name
        found.hand_over()
        assert memory.used == 0, "what all taps hold is not counted down in a thread"
    for size, left in ((1000, False), (BIG + 1, passed == "whole"), (TAP_LIMIT + 1, True)):
        body = gzip.compress(b"data: " + b"x" * size)
        found = exchange(content_type=SSE, content_encoding="gzip")
        if passed == "streamed":
            found.feed(body, CAME)
        assert found.needs_thread(body if passed == "whole" else None) is left


def test_what_was_decoded_to_find_out_is_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking whether a body needs the thread costs nothing extra, and changes nothing of what is read."""
    calls = []
    real = llmtab.reader.decode_all
    monkeypatch.setattr(llmtab.reader, "decode_all", lambda *args: calls.append(args) or real(*args))
    body = gzip.compress(answer())
    found = exchange(content_type=JSON, content_encoding="gzip")
    assert not found.needs_thread(body)
    [line] = book(found.close("complete", ENDED, body), prices())
    assert (line["usage"], len(calls)) == (COUNTED, 1)


@exhaustive
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


END = json.dumps(USAGE).encode() + b"}"
ENDLESS = {
    "a line without an end": (SSE, b"data: ", b"x" * MIB, b""),
    "a JSON text": (JSON, b'{"model":"gpt-4o","text":"', b"x" * MIB, b'","usage":' + END),
    "a JSON array": (
        JSON, b'{"model":"gpt-4o","data":[', b"[0.125,7]," * (MIB // 10), b'0],"usage":' + END,
    ),
    "noise": ("application/octet-stream", b"\0", bytes(range(256)) * 4096, b""),
}  # fmt: skip


@pytest.mark.parametrize("what", sampled(ENDLESS, "a line without an end", "a JSON text"))
def test_a_gigabyte(what: str) -> None:
    """1 GB is watched in the memory of one frame; the usage at the end of a JSON body of that size is found."""
    kind, start, unit, end = ENDLESS[what]
    found = exchange(content_type=kind)
    tracemalloc.start()
    try:
        for chunk in gigabyte(start, unit, end):
            found.feed(chunk, CAME)
        [line] = book(found.close("complete", ENDED), prices())
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
def test_usage_at_the_end_of_50_mb_is_found(middle: str, coding: str) -> None:
    """Past every cap the end of a JSON body still tells its usage: buffered or streamed, plain or compressed."""
    pattern = bytes(33 + at * 7 % 59 for at in range(4096)).replace(b'"', b"_").replace(b"\\", b"_")
    filler = b'"' + pattern * (50 * MIB // 4096) + b'"'
    body = b'{"model":"gpt-4o","x":' + (b"[" + filler + b"]" if middle == "array" else filler)
    body += b',"usage":' + json.dumps(USAGE).encode() + b"}"
    sent = gzip.compress(body, 1) if coding else body
    for line in (whole(sent, content_encoding=coding), streamed(in_pieces(sent), kind=JSON, content_encoding=coding)):
        assert (line["outcome"], line["usage_source"], line["usage"]) == ("ok", "reported", COUNTED)
        assert line["response_model"] == "gpt-4o"


def test_an_event_too_large_is_told() -> None:
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


@pytest.mark.parametrize("what", sampled(DRIPS, "a line", "one message"))
def test_a_drip_of_tiny_chunks_takes_its_bytes_and_no_more(what: str) -> None:
    """60,000 chunks of two bytes: kept in one buffer, not as so many objects of fifty bytes."""
    kind, start, piece = DRIPS[what]
    found = exchange(BEDROCK if kind == AWS else CHAT, content_type=kind)
    tracemalloc.start()
    try:
        found.feed(start + b" " * 5000, CAME)
        for _ in range(60_000):
            found.feed(bytes(bytearray(piece)), CAME)  # an object of its own, as from a socket
        peak = tracemalloc.get_traced_memory()[1]
        [line] = book(found.close("aborted", ENDED), prices())
    finally:
        tracemalloc.stop()
    assert peak < 3 * MIB, f"{peak / MIB:.1f} MiB"
    assert line["outcome"] == "aborted"
    assert is_honest(line)


@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=exhaustive)])
def test_ten_thousand_open_streams(count: int) -> None:
    """10,000 streams of 100 KB open at once stay within the memory that all taps share, and each is read exactly."""
    memory = TapMemory()
    text = b'data: {"model":"gpt-4o","choices":[{"delta":{"content":"' + b"word " * 7000 + b'"}}]}\n\n'
    streams = [exchange(memory=memory, content_type=SSE) for _ in range(count)]
    for _ in range(3):
        for each in streams:
            each.feed(text, CAME)
        assert memory.used <= TAP_TOTAL
    last = b'data: {"choices":[],"usage":' + json.dumps(USAGE).encode() + b"}\n\ndata: [DONE]\n\n"
    for each in streams:
        each.feed(last, CAME)
        [line] = book(each.close("complete", ENDED), prices())
        assert (line["usage_source"], line["usage"]) == ("reported", COUNTED)
    assert memory.used == 0
