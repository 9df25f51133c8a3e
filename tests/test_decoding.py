"""Content codings: each decoded in any cut, bounded, and believed only as far as it is right."""

import gzip
import itertools
import os
import random
import sys
import tracemalloc
import types
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from llmtab.wire import codings, decoding
from llmtab.wire.codings import PIECE
from llmtab.wire.decoding import Body, DecodeError, decode_all, decoder

TEXT = b'data: {"choices":[{"delta":{"content":"hello"}}],"usage":null}\n\n' * 40 + "data: 日本語\n\n".encode()


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-15)


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


CODERS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    "identity": lambda data: data,
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    " GZip ": gzip.compress,
    "gzip, gzip": lambda data: gzip.compress(gzip.compress(data)),
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
    "br": brotli.compress,
    "zstd": zstd,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
    "deflate,identity,zstd,gzip": lambda data: gzip.compress(zstd(zlib.compress(data))),
}


def run(coding: str, chunks: list[bytes]) -> bytes:
    stream = decoder(coding)
    pieces = [piece for chunk in chunks for piece in stream.feed(chunk)]
    pieces += stream.close()
    assert all(0 < len(piece) <= PIECE for piece in pieces)
    return b"".join(pieces)


def split(body: bytes, size: int) -> list[bytes]:
    return [body[i : i + size] for i in range(0, len(body), size)]


@pytest.mark.parametrize("coding", CODERS)
@pytest.mark.parametrize("data", [TEXT, b"", b"{}", b"x", bytes(range(256)) * 5])
def test_every_coding_in_every_cut(coding: str, data: bytes) -> None:
    """What was encoded comes back, however the network cut it."""
    body = CODERS[coding](data)
    for size in (1, 2, 7, 64, len(body) + 1):
        assert run(coding, split(body, size)) == data


@given(st.sampled_from(sorted(CODERS)), st.binary(max_size=400), st.lists(st.integers(0, 300), max_size=6))
def test_any_data_in_any_cut(coding: str, data: bytes, places: list[int]) -> None:
    """The same for any data and any places."""
    body = CODERS[coding](data)
    places = [0, *sorted(places), len(body)]
    assert run(coding, [body[a:b] for a, b in itertools.pairwise(places)]) == data


@pytest.mark.parametrize("coding", CODERS)
def test_truncated_input_gives_what_there_was(coding: str) -> None:
    """A body cut anywhere gives a beginning of its data and no error."""
    body = CODERS[coding](TEXT)
    for end in range(0, len(body), 3):
        assert TEXT.startswith(run(coding, [body[:end]]))


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_flushed_chunk_is_decoded_at_once(coding: str) -> None:
    """An event that the server flushed is there when its chunk is: nothing waits for the next one."""
    stream = decoder(coding)
    chunks = flushed(coding, [b"data: %d\n\n" % i * 5 for i in range(9)])
    for i, chunk in enumerate(chunks):
        assert b"".join(stream.feed(chunk)) == b"data: %d\n\n" % i * 5


def flushed(coding: str, parts: list[bytes]) -> list[bytes]:
    if coding == "br":
        compressor = brotli.Compressor()
        return [compressor.process(part) + compressor.flush() for part in parts]
    if coding == "zstd":
        packer = zstandard.ZstdCompressor().compressobj()
        return [packer.compress(part) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for part in parts]
    deflate = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
    return [deflate.compress(part) + deflate.flush(zlib.Z_SYNC_FLUSH) for part in parts]


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_several_members_are_one_body(coding: str) -> None:
    """gzip members and zstd frames after one another are read on."""
    body = CODERS[coding](TEXT) + CODERS[coding](b"") + CODERS[coding](b"more")
    for size in (1, 5, len(body)):
        assert run(coding, split(body, size)) == TEXT + b"more"


@pytest.mark.parametrize("tail", [b"\0" * 600, b"junk", b"\0\0junk\x1f\x8b", b"{}"])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "Deflate"])
def test_what_follows_the_end_is_ignored(coding: str, tail: bytes) -> None:
    """Zero padding and junk after the end are ignored, as every client does."""
    body = CODERS[coding](TEXT) + tail
    for size in (1, 5, len(body)):
        assert run(coding, split(body, size)) == TEXT


LIES = [
    b'{"a":1}',
    b"[1, 2, 3]" * 9,
    TEXT,
    b"\xef\xbb\xbf{}",
    b"\n\n\n{}",
    b": hi\n\n",
    "{'日本': 1}".encode(),
    b"<html>",
]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, br"])
@pytest.mark.parametrize("text", LIES)
def test_text_under_a_false_label_is_text(coding: str, text: bytes) -> None:
    """A server that says gzip and sends plain JSON or SSE is read all the same."""
    for size in (1, 9, len(text)):
        assert run(coding, split(text, size)) == text


def test_a_stream_that_begins_like_json_is_still_decoded() -> None:
    """brotli of more than 64 KiB begins with the byte `[`; it is no text."""
    data = bytes(i * i % 251 for i in range(100_000))
    body = next(b for q in range(12) if (b := brotli.compress(data, quality=q))[:1] == b"[")
    assert run("br", split(body, 1000)) == data


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_bad_data_is_a_decode_error(coding: str) -> None:
    """Bytes that are neither the coding nor text raise DecodeError with the coding's name, every time."""
    stream = decoder(coding)
    for _ in range(2):
        with pytest.raises(DecodeError) as caught:
            list(stream.feed(b"\xff\xfe\x00\x07" * 20))
        assert caught.value.reason == coding
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(("header", "reason"), [("compress", "compress"), ("gzip, Foo", "foo"), ("\x00 é", "coding")])
def test_an_unknown_coding_is_a_decode_error(header: str, reason: str) -> None:
    """A coding we do not know is named, and only in harmless characters."""
    with pytest.raises(DecodeError, match=reason):
        decoder(header)


def test_too_many_codings_are_refused() -> None:
    """A stack of codings deeper than any honest one is a bomb."""
    with pytest.raises(DecodeError, match="bomb"):
        decoder(", ".join(["gzip"] * 6))


@given(st.sampled_from(["gzip", "deflate", "br", "zstd", "gzip, br"]), st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_raise_nothing_else(coding: str, junk: bytes, size: int) -> None:
    """Any bytes at all give data or a DecodeError."""
    for body in (junk, CODERS[coding](TEXT)[:40] + junk):
        try:
            run(coding, split(body, size))
        except DecodeError:
            continue


BOMBS = {name: CODERS[name](bytes(4 * 1024 * 1024)) for name in ("gzip", "Deflate", "br", "zstd", "gzip, br")}


@pytest.mark.parametrize("coding", BOMBS)
def test_a_bomb_never_stands_in_memory(coding: str) -> None:
    """Output is handed out piece by piece while it is decoded."""
    stream = decoder(coding)
    feed = itertools.chain(stream.feed(BOMBS[coding]), stream.close())
    assert len(next(feed)) <= PIECE
    assert sum(map(len, feed)) > 3 * 1024 * 1024


@pytest.mark.parametrize("coding", BOMBS)
def test_a_bomb_is_given_up(monkeypatch: pytest.MonkeyPatch, coding: str) -> None:
    """Past a free amount, output that is hundreds of times its input is refused."""
    monkeypatch.setattr(decoding, "BOMB_FREE", 1024 * 1024)
    size = 0
    with pytest.raises(DecodeError, match="bomb"):
        for piece in decoder(coding).feed(BOMBS[coding]):
            size += len(piece)
    assert size <= 1024 * 1024
    honest = random.Random(7).randbytes(1024 * 1024).hex().encode()
    assert run("gzip", [gzip.compress(honest)]) == honest


def test_the_window_of_zstd_is_bounded() -> None:
    """A frame that asks for a window of 128 MiB, which RFC 9659 forbids, is refused."""
    params = zstandard.ZstdCompressionParameters(window_log=27, compression_level=1)
    packer = zstandard.ZstdCompressor(compression_params=params).compressobj()
    body = packer.compress(TEXT) + packer.flush()
    with pytest.raises(DecodeError, match="zstd"):
        run("zstd", [body])


class StdlibZstd(types.ModuleType):
    """compression.zstd's interface over zstandard: enough of it to test our use on a Python that has none."""

    ZstdError = zstandard.ZstdError
    DecompressionParameter = types.SimpleNamespace(window_log_max=100)

    class ZstdDecompressor:
        def __init__(self, options: dict[int, int]) -> None:
            self._raw = zstandard.ZstdDecompressor(max_window_size=1 << options[100]).decompressobj()
            self._ready = b""

        @property
        def eof(self) -> bool:
            return self._raw.eof and not self._ready

        @property
        def needs_input(self) -> bool:
            return not self._ready and not self._raw.eof

        @property
        def unused_data(self) -> bytes:
            return self._raw.unused_data

        def decompress(self, data: bytes, max_length: int) -> bytes:
            if self.eof:
                raise EOFError
            if data:
                self._ready += self._raw.decompress(data)
            piece, self._ready = self._ready[:max_length], self._ready[max_length:]
            return piece


@pytest.mark.parametrize("name", ["compression.zstd", "backports.zstd"])
def test_zstd_through_the_standard_module(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Where Python brings zstd, or its backport is there, that is used, with the same result."""
    if name not in sys.modules:
        monkeypatch.setitem(sys.modules, name.partition(".")[0], types.ModuleType(name.partition(".")[0]))
        monkeypatch.setitem(sys.modules, name, StdlibZstd(name))
    codings._zstd_engine.cache_clear()
    try:
        assert type(codings._zstd_engine()()).__name__ == "_Zstd"
        body = zstd(TEXT) + zstd(bytes(PIECE * 3)) + zstd(b"more")
        for size in (1, 100, len(body)):
            assert run("zstd", split(body, size)) == TEXT + bytes(PIECE * 3) + b"more"
    finally:
        codings._zstd_engine.cache_clear()


def test_brotli_without_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old brotli that cannot bound its output is used all the same; pieces stay small."""
    monkeypatch.setattr(codings, "_brotli_limit", dict)
    body = brotli.compress(TEXT * 999)
    assert run("br", split(body, 100)) == TEXT * 999


@pytest.mark.parametrize("coding", CODERS)
def test_a_whole_body_and_which_chunk_brought_what(coding: str) -> None:
    """For every offset of the decoded body, the chunk is known with which it came."""
    chunks = split(CODERS[coding](TEXT), 9)
    body = decode_all(chunks, coding)
    assert (body.data, body.broken) == (TEXT, "")
    stream, grown = decoder(coding), 0
    for i, part in enumerate(chunks):
        size = sum(map(len, stream.feed(part)))
        if size:
            assert body.chunk_at(grown) == i
            assert body.chunk_at(grown + size - 1) == i
        grown += size
    assert body.chunk_at(len(TEXT)) == len(chunks) - 1


def test_a_body_without_chunks() -> None:
    """No body is an empty one."""
    body = decode_all([], "gzip")
    assert (body.data, body.broken, body.chunk_at(0)) == (b"", "", 0)


@pytest.mark.parametrize("coding", ["", "identity", "gzip", "br"])
def test_a_body_longer_than_allowed(coding: str) -> None:
    """Beyond the limit a body is not decoded further, and says so."""
    body = decode_all([CODERS[coding](TEXT)], coding, limit=100)
    assert body.broken == "limit"
    assert TEXT.startswith(body.data)
    assert len(body.data) <= 100


def test_a_body_longer_than_allowed_takes_its_limit_once() -> None:
    """Of a body that a few bytes unfold to, who wants its start pays for the limit, not for twice as much."""
    limit, body = 16 * 1024 * 1024, gzip.compress(TEXT * (20 * 1024 * 1024 // len(TEXT)), 1)
    tracemalloc.start()
    found = decode_all([body], "gzip", limit, 4096)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.broken == "limit"
    assert found.data.startswith(TEXT)
    assert 4096 <= len(found.data) <= PIECE
    assert peak < 1.5 * limit


def test_a_body_that_breaks_keeps_what_came_before() -> None:
    """Of a body with a bad chunk, the chunks before it are there, as they are when decoded one by one."""
    chunks = flushed("gzip", [b"data: %d\n\n" % i * 9 for i in range(3)])
    body = decode_all([*chunks, b"\xff" * 50, b"\xff"], "gzip")
    assert body.broken == "gzip"
    assert body.data == b"".join(b"data: %d\n\n" % i * 9 for i in range(3))
    assert body.chunk_at(9999) == 4
    unknown: Body = decode_all([b"x"], "compress")
    assert (unknown.data, unknown.broken) == (b"", "compress")


def test_a_long_brotli_stream_without_its_end_is_read_to_the_last_flush() -> None:
    """The client leaves after the last event, before the final block: all that was flushed is decoded, however it is
    handed over. brotli gives out less at once than it may, and asks for input all the same."""
    events = [b"data: %d %s\n\n" % (i, os.urandom(8).hex().encode() * 12) for i in range(6000)]
    coder = brotli.Compressor(quality=5)
    chunks = [coder.process(event) + coder.flush() for event in events]
    text = b"".join(events)
    assert len(text) > PIECE
    assert decode_all(chunks, "br").data == text
    assert run("br", [b"".join(chunks)]) == text
    assert run("br", split(b"".join(chunks), 4096)) == text


@pytest.mark.parametrize("pieces", [1, 64, 100_000])
def test_a_false_checksum_takes_nothing_with_it(pieces: int) -> None:
    """gzip's check stands at the end, when a client has read everything: so have we, and it is told."""
    text = b"".join(b"data: %d\n\n" % i for i in range(5000))
    sent = bytearray(gzip.compress(text))
    sent[-8] ^= 0xFF
    found = decode_all(split(bytes(sent), max(len(sent) // pieces, 1)), "gzip")
    assert (found.data, found.broken) == (text, "gzip")
