"""What passed of an answer whose figures did not come: raw bytes while the call is open, then counts of its text.

Knows how the frames of a body are found again, where a profile says that text stands, and how little of a large body
has to be looked at. Must not know tokens or prices. Nothing of it outlives the call: bytes and text are dropped as soon
as they are counted.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, Protocol

from llmtab.estimates.asking import Asked
from llmtab.events import parse
from llmtab.extract import Reading
from llmtab.profiles.refs import Scope
from llmtab.profiles.texts import Finder, Texts
from llmtab.wire.decoding import decode_all
from llmtab.wire.scan import frames
from llmtab.wire.sniffing import sniff

LOOKED: Final = 256 * 1024
"""Decoded bytes of one answer whose events are all parsed; of a longer one slices are, together as long."""
SLICES: Final = 16
KEPT: Final = 8
"""Slices kept of a stream that is too long for the tap to keep whole."""
SLICE: Final = 8 * 1024
DECODED: Final = 16 * 1024 * 1024
SNIFFED: Final = 4096
BLOB: Final = 512
"""Characters without a space from which on a text is a file: base64 of a sound or a picture."""
MOST_EVENTS: Final = 20_000
_ENDS: Final[Mapping[str, tuple[bytes, ...]]] = {"sse": (b"\n\n", b"\r\n\r\n", b"\r\r"), "ndjson": (b"\n",)}


class Sampler:
    """Slices of a stream that goes by in pieces: its beginning (`first` bytes) and some of the rest, at most KEPT of
    SLICE bytes, however long it gets. `total`: decoded bytes, where the stream is `coded`: then it has to be shown
    every piece."""

    __slots__ = ("_coded", "_look", "_room", "_stride", "slices", "total")

    def __init__(self, *, coded: bool = False, first: int = SLICE) -> None:
        self.total = 0
        self.slices: list[bytearray] = [bytearray()]
        self._coded = coded
        self._room = first
        self._stride = 16 * SLICE
        self._look = 0

    def take(self, piece: bytes, at: int) -> int:
        """A piece, `at` bytes of the wire having come; returns at how many the next one is wanted."""
        if self._coded:
            self.total += len(piece)
            if at < self._look:
                return 0
        kept = self.slices[-1]
        kept += piece[: self._room - len(kept)]
        if len(kept) == self._room:
            self._room = SLICE
            if len(self.slices) == KEPT:
                self.slices, self._stride = self.slices[::2], self._stride * 2
            self.slices.append(bytearray())
            self._look = at + self._stride
        return 0 if self._coded else self._look


@dataclass(slots=True)
class Passed:
    """The bytes of an answer: `chunks` as they were on the wire, or a `sample` of a stream that was not kept whole."""

    chunks: list[bytes]
    coding: str
    media_type: str
    kind: str = ""
    """The framing, where it is known already."""
    sample: Sampler | None = None
    size: int = 0
    """Bytes of the whole stream on the wire, where it is sampled."""
    asked: Asked | None = None
    """What the request told, where its body is not kept: that of a socket is a frame, of which `request` has the names
    and numbers."""
    request: Any = None


class Head(Protocol):
    """The answer's head: its status (None: no answer came) and headers by lower-case name."""

    status: int | None
    headers: Mapping[str, str]


def keep(head: Head, chunks: list[bytes], kind: str, sample: Sampler | None, size: int) -> Passed | None:
    """What an estimate is made from; None for an error's answer, which costs nothing. `kind`: `http` where the body's
    framing is not known."""
    if head.status is None or head.status >= 400:
        return None
    coding, media_type = head.headers.get("content-encoding", ""), head.headers.get("content-type", "")
    return Passed(chunks, coding, media_type, "" if kind == "http" else kind, sample, size)


@dataclass(slots=True)
class Tally:
    """What an answer consists of. `text` and `thoughts`: as they were shown; `deltas`: in how many pieces; `calls`:
    names of called tools; `sealed`: characters of each piece of encrypted reasoning. All but `covered` is counted from
    the last running figure on. `scale`: how much larger the answer is than what was looked at."""

    text: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    deltas: int = 0
    calls: list[str] = field(default_factory=list)
    sealed: list[int] = field(default_factory=list)
    covered: bool = False
    """Whether a running figure came that counts the text before it."""
    events: int = 0
    scale: float = 1.0

    def __bool__(self) -> bool:
        return bool(self.text or self.thoughts or self.calls or self.sealed)


def lacks(reading: Reading, how: str, *, streamed: bool, whole: bool) -> bool:
    """Whether final figures did not come. `how` the call ended; `whole`: the body could be read to a frame's end."""
    if not reading.counters:
        return True
    if reading.final or reading.ended or not streamed:
        return not whole and how != "complete"
    announced = reading.dialect.final or (reading.dialect.end and not reading.finish_reasons)
    return how != "complete" or not whole or bool(announced)


def tally(passed: Passed, texts: Sequence[Texts], scopes: Sequence[Scope]) -> Tally:
    """Goes through an answer's events once. Never raises, whatever they hold. Work is bounded by LOOKED."""
    slices, kind, scale = _slices(passed)
    found = Tally(scale=scale)
    for data in slices:
        for _, frame in islice(frames(data, kind), MOST_EVENTS):
            event = parse(frame)
            if type(event) is dict:
                found.events += 1
                _event(found, event, kind == "json", texts, scopes)
    return found


def _event(found: Tally, event: Any, whole: bool, texts: Sequence[Texts], scopes: Sequence[Scope]) -> None:
    seen: set[str] = set()
    for words, scope in zip(texts, scopes, strict=True):
        for text in _strings(words.thoughts, scope, event, seen):
            found.thoughts.append(text)
            found.deltas += 1
        for text in _strings((*words.text, *words.whole) if whole else words.text, scope, event, seen):
            found.text.append(text)
            found.deltas += 1
        found.calls += _strings(words.calls, scope, event, seen)
        for finder in words.sealed:
            found.sealed += [len(value) for value in finder(scope, event) if isinstance(value, str)]
    if any(words.running(scope, event) for words, scope in zip(texts, scopes, strict=True)):
        found.covered = found.covered or bool(found)
        found.text, found.thoughts, found.calls, found.sealed, found.deltas = [], [], [], [], 0


def _strings(finders: Sequence[Finder], scope: Scope, event: Any, seen: set[str]) -> Iterator[str]:
    """Each text of an event once, wherever it is repeated: some servers spell their reasoning twice."""
    for finder in finders:
        for value in finder(scope, event):
            text = json.dumps(value, separators=(",", ":"), ensure_ascii=False) if type(value) is dict else value
            if isinstance(text, str) and text and text not in seen and not _is_file(text):
                seen.add(text)
                yield text


def _is_file(text: str) -> bool:
    return len(text) > BLOB and text.isascii() and " " not in text[:BLOB]


def _slices(passed: Passed) -> tuple[list[bytes], str, float]:
    """(bytes to look at, their framing, how much larger the whole is). Only the first slice begins with a frame."""
    if passed.sample is not None:
        kept = [(number, bytes(data)) for number, data in enumerate(passed.sample.slices)]
        total = passed.sample.total or passed.size
    else:
        whole = decode_all(passed.chunks, passed.coding, DECODED).data
        total = len(whole)
        kept = [(0, whole)] if total <= LOOKED else _spread(whole)
    kind = passed.kind or sniff(passed.media_type, kept[0][1][:SNIFFED] if kept else b"")
    if kind not in _ENDS:
        kept = kept[:1]  # of other framings only the beginning can be told from the middle of an event
    pieces = [_aligned(data, kind) if place else data for place, data in kept]
    looked = sum(map(len, pieces))
    return pieces, kind, max(1.0, total / looked) if looked else 1.0


def _spread(whole: bytes) -> list[tuple[int, bytes]]:
    size, step = LOOKED // SLICES, len(whole) // SLICES
    return [(start, whole[start : start + size]) for start in range(0, step * SLICES, step)]


def _aligned(data: bytes, kind: str) -> bytes:
    """A slice from the middle of a body, without the frames that were cut at its ends."""
    for end in _ENDS[kind]:
        first, last = data.find(end), data.rfind(end)
        if first >= 0 and last > first:
            return data[first + len(end) : last + len(end)]
    return b""
