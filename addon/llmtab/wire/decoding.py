"""Content codings, undone piece by piece: identity, gzip, deflate, br, zstd, and stacks of them.

Knows compressed bytes. Must not know what they mean, nor who sent them. A label is believed only as far as it is
right: a body that is called gzip and is plainly text is read as text.
"""

import itertools
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final

from llmtab.wire.codings import ENGINES, PIECE, Engine, Identity, looks_like_text

BOMB_FREE: Final = 256 * 1024 * 1024
BOMB_RATIO: Final = 200
"""Past BOMB_FREE bytes of output a coding may not have grown its input more than BOMB_RATIO times. JSON and SSE shrink
5 to 40 times, flushed streams less; deflate can do 1032, br and zstd millions. An honest long stream has no bound, as
identity has none; what is bounded is the time we spend inflating for nobody (256 MiB of zeros: about 0.1 s)."""

MAX_CODINGS: Final = 5
"""Codings stacked on one body, as curl and urllib3 allow: each one multiplies what a few bytes can cost."""

HEAD: Final = 32
"""Bytes of text that are held back before the label is called false: br and raw deflate have no magic number, but 32
random bytes that are all printable do not happen (0.38 ** 31). Bytes that are no text are decoded at once."""

FINE: Final = 512
"""Bytes fed at once where one of them may be bad."""

_ALIASES: Final = {"x-gzip": "gzip", "x-deflate": "deflate", "brotli": "br"}
_TOKEN: Final = re.compile(r"[a-z0-9-]{1,32}")


class DecodeError(ValueError):
    """The body cannot be decoded. `reason` is a short word: the coding's name, or `bomb`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Stage:
    """One coding of the stack: chooses its engine by the first bytes and watches how much it grows what was sent."""

    def __init__(self, coding: str, wire: list[int]) -> None:
        self._coding = coding
        self._engine: Engine | None = None
        self._head = b""
        self._wire = wire  # bytes sent so far, the same for all stages: together they may grow no more than one alone
        self._given = 0
        self._failed = ""

    def feed(self, data: bytes, last: bool = False) -> Iterator[bytes]:
        if self._failed:
            raise DecodeError(self._failed)
        engine = self._engine
        if engine is None:
            self._head = data = self._head + data
            text = looks_like_text(data[:HEAD])
            # Two bytes tell zlib from raw deflate.
            if not data or (not last and len(data) < (HEAD if text else 2)):
                return
            self._engine = engine = Identity() if text else ENGINES[self._coding](data)
            self._head = b""
        try:
            for piece in engine.decode(data):
                self._given += len(piece)
                if self._given > BOMB_FREE and self._given > BOMB_RATIO * self._wire[0]:
                    self._failed = "bomb"
                    raise DecodeError("bomb")
                yield piece
        except engine.errors:
            self._failed = self._coding
            raise DecodeError(self._coding) from None


def _through(pieces: Iterator[bytes], stage: _Stage, last: bool) -> Iterator[bytes]:
    for piece in pieces:
        yield from stage.feed(piece)
    if last:
        yield from stage.feed(b"", last=True)


def _cut(pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if len(piece) <= PIECE:
            yield piece
        else:
            yield from (piece[i : i + PIECE] for i in range(0, len(piece), PIECE))


class Decoder:
    """Decodes one body as its chunks arrive. Made by `decoder()`.

    `feed` and `close` are lazy: each iterator must be run to its end before the next call. Pieces are never empty and
    at most PIECE bytes long. Bad data raises DecodeError, then and at every later feed; truncation raises nothing:
    what could be decoded has been handed out.
    """

    def __init__(self, codings: Iterable[str] = ()) -> None:
        self._wire = [0]
        self._stages = [_Stage(coding, self._wire) for coding in codings]

    def feed(self, data: bytes) -> Iterator[bytes]:
        return self._run(data, last=False)

    def close(self) -> Iterator[bytes]:
        return self._run(b"", last=True)

    def _run(self, data: bytes, last: bool) -> Iterator[bytes]:
        self._wire[0] += len(data)
        pieces: Iterator[bytes] = iter((data,)) if data else iter(())
        for stage in self._stages:
            pieces = _through(pieces, stage, last)
        return _cut(pieces)


def decoder(content_encoding: str) -> Decoder:
    """A decoder for a Content-Encoding header ("", "gzip", "gzip, br"). DecodeError names a coding we do not know."""
    names = [name.strip().lower() for name in content_encoding.split(",")]
    codings = [_ALIASES.get(name, name) for name in names if name not in ("", "identity")]
    for coding in codings:
        if coding not in ENGINES:
            raise DecodeError(coding if _TOKEN.fullmatch(coding) else "coding")
    if len(codings) > MAX_CODINGS:
        raise DecodeError("bomb")
    return Decoder(reversed(codings))  # the header lists them in the order they were applied


class Body:
    """A whole body, decoded.

    `data` is what could be decoded; `broken` is "" or why that is not all: the reason of a DecodeError, or `limit`
    when it would have been longer than allowed.
    """

    __slots__ = ("_chunks", "_coding", "_ends", "_rest", "broken", "data")

    def __init__(self, data: bytes, broken: str, chunks: list[bytes], coding: str) -> None:
        self.data = data
        self.broken = broken
        self._chunks = chunks
        self._coding = coding
        self._ends: list[int] = []
        self._rest: Iterator[int] | None = None

    def chunk_at(self, offset: int) -> int:
        """Index of the chunk that brought the decoded byte at `offset`; the last one if there is no such byte.

        Encoded chunks are decoded a second time, and only up to that one: it is asked for the first token, which
        stands near the front, and a body decoded in one go is several times cheaper than chunk by chunk.
        """
        if self._rest is None:
            sizes = map(len, self._chunks) if not self._coding else self._sizes()
            self._rest = itertools.accumulate(sizes)
        while not self._ends or self._ends[-1] <= offset:
            end = next(self._rest, None)
            if end is None:
                break
            self._ends.append(end)
        return min(bisect_right(self._ends, offset), max(len(self._chunks) - 1, 0))

    def _sizes(self) -> Iterator[int]:
        stream = decoder(self._coding)
        for chunk in self._chunks:
            size = 0
            try:
                for piece in stream.feed(chunk):
                    size += len(piece)
            except DecodeError:
                pass
            yield size


def _collect(chunks: Iterable[bytes], content_encoding: str, limit: int, start: int) -> tuple[bytes, str]:
    pieces: list[bytes] = []
    size = 0
    try:
        stream = decoder(content_encoding)
        feeds = (piece for chunk in chunks for piece in stream.feed(chunk))
        for piece in itertools.chain(feeds, stream.close()):
            size += len(piece)
            if size > limit:
                return b"".join(_start_of(pieces, start)), "limit"
            pieces.append(piece)
    except DecodeError as error:
        return b"".join(pieces), error.reason
    return b"".join(pieces), ""


def fine(data: bytes) -> Iterator[bytes]:
    """Encoded bytes in pieces so small that one which cannot be decoded takes little with it."""
    return (data[at : at + FINE] for at in range(0, len(data), FINE))


def _up_to_the_fault(data: bytes, content_encoding: str) -> Iterator[bytes]:
    """The bytes of a body that cannot be decoded whole: all before the fault at once, then one by one."""
    good = 0
    try:
        stream = decoder(content_encoding)
        for piece in fine(data):
            for _ in stream.feed(piece):
                pass
            good += len(piece)
    except DecodeError:
        pass
    yield data[:good]
    yield from (data[at : at + 1] for at in range(good, min(good + FINE, len(data))))


def _start_of(pieces: list[bytes], size: int) -> Iterator[bytes]:
    """So many of the pieces as have `size` bytes, or a few more."""
    for piece in pieces:
        if size <= 0:
            return
        size -= len(piece)
        yield piece


def decode_all(
    chunks: Iterable[bytes], content_encoding: str = "", limit: int = 16 * 1024 * 1024, start: int | None = None
) -> Body:
    """Decode a body that is in memory. Never raises: see `Body.broken`. `limit`: bytes of decoded data. `start`: how
    much the caller wants of a coded body that is longer (None: all up to the limit), which is not joined then.

    Identity is one join. Encoded chunks are joined and decoded at once; only when that fails is the bad byte looked
    for, to save all that came before it: an engine keeps back what it had when it met it.
    """
    kept = list(chunks)
    joined = b"".join(kept)
    if not content_encoding or content_encoding == "identity":
        whole = len(joined) <= limit
        return Body(joined if whole else joined[:limit], "" if whole else "limit", kept, "")
    most = limit if start is None else start
    data, broken = _collect((joined,), content_encoding, limit, most)
    if broken not in ("", "limit"):
        data, broken = _collect(_up_to_the_fault(joined, content_encoding), content_encoding, limit, most)
    return Body(data, broken, kept, content_encoding)
