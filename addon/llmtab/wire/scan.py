"""The search for the few frames that matter: the first ones, the last ones, and those that name a key.

Knows framings and JSON member names. Must not know what the keys mean; parses no JSON. A stream of a thousand events
has perhaps five that matter, and to parse the others costs more than everything else the meter does.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from llmtab.wire.eventstream import prelude
from llmtab.wire.framing import MAX_FRAME, Framer, framer
from llmtab.wire.lines import BOM
from llmtab.wire.needles import Needles
from llmtab.wire.quick import Lines, Odd

MAX_HELD: Final = 1024 * 1024
"""Bytes of one of the last frames that a Selector holds back; usage and ends of streams are far smaller."""


class Selector:
    """`select` for a body that arrives in chunks, in bounded memory.

    `feed` returns the frames that are wanted already (the first `head`, and hits), `close` the last `tail` that were
    not handed out; of those, frames over MAX_HELD bytes are dropped. Frames that were held back therefore come after
    hits that followed them. `framer` has the flags.
    """

    def __init__(self, kind: str, keys: Sequence[str], head: int, tail: int, limit: int = MAX_FRAME) -> None:
        self.kind = kind
        self.framer = framer(kind, limit)
        self._needles = Needles(keys)
        self._head = head
        self._last: deque[bytes | None] = deque(maxlen=tail)

    def feed(self, data: bytes) -> list[bytes]:
        return self._wanted(self.framer.feed(data))

    def close(self) -> list[bytes]:
        frames = self._wanted(self.framer.close())
        held = [frame for frame in self._last if frame is not None]
        self._last.clear()
        return frames + held

    def _wanted(self, frames: list[bytes]) -> list[bytes]:
        wanted = []
        for frame in frames:
            if self._head > 0 or self._needles.hit(frame):
                self._head -= 1
                wanted.append(frame)
                self._last.append(None)
            else:
                self._last.append(frame if len(frame) <= MAX_HELD else None)
        return wanted


def select(
    body: bytes, kind: str, keys: Sequence[str], head: int, tail: int, reader: Framer | None = None
) -> list[tuple[int, bytes]]:
    """The frames of a whole body that matter, in order, each once: the first `head`, the last `tail`, and all in which
    one of `keys` occurs with a value other than null.

    Each comes with its end: how many bytes of the body had to come before the frame was known whole. Never raises for
    any body; ValueError for an unknown kind. `reader`: a fresh framer of this kind, whose flags tell afterwards whether
    the body was broken (an event stream), partial or overflowed; lines found the quick way leave them as they are.
    """
    needles = Needles(keys)
    if kind in ("sse", "ndjson") and len(body) <= MAX_FRAME and not body.startswith(BOM):
        try:
            return Lines(body, kind).select(needles, head, tail)
        except Odd:
            pass  # the framer reads it
    return _slow(body, kind, needles, head, tail, reader)


def frames(body: bytes, kind: str, reader: Framer | None = None) -> Iterator[tuple[int, bytes]]:
    """Every frame of a whole body with its end, by the framer of that kind (`reader`, if one is given)."""
    reader = reader or framer(kind)
    end = 0
    for piece in _pieces(body, kind):
        end += len(piece)
        for frame in reader.feed(piece):
            yield end, frame
    for frame in reader.close():
        yield len(body), frame


def _slow(
    body: bytes, kind: str, needles: Needles, head: int, tail: int, reader: Framer | None = None
) -> list[tuple[int, bytes]]:
    found = list(frames(body, kind, reader))
    last = len(found) - tail
    return [item for i, item in enumerate(found) if i < head or i >= last or needles.hit(item[1])]


def _pieces(body: bytes, kind: str) -> Iterable[bytes]:
    """The body cut so that each piece ends at most one frame, at its last byte."""
    if kind in ("sse", "ndjson"):
        return body.splitlines(keepends=True)
    if kind == "jsonarray":
        return re.findall(rb"[^}]*+\}|[^}]++", body)
    if kind == "eventstream":
        return _messages(body)
    return (body,)


def _messages(body: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(body):
        try:
            size, _ = prelude(body[start : start + 12])
        except ValueError:
            size = len(body)
        yield body[start : start + size]
        start += size
