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

TAIL: Final = 64 * 1024
"""Bytes at the end of a big JSON body in which `tail_object` looks."""
TRIES: Final = 8
"""Members of one name that it looks at: each may cost a pass over TAIL."""

_SPACE: Final = rb"[ \t\r\n]*+"
_MARKS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[{}\[\]]', re.DOTALL)


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


def tail_object(body: bytes, key: str) -> tuple[int, int] | None:
    """Where the object stands that is the value of `key` in the top-level object, if that is near the end of the body.

    (first byte, byte after the last) of the last such member within TAIL bytes of the end; None if there is none, or
    if what follows it does not lead out of exactly one object at the body's end. Costs the same for a body of any size.
    The body must be whole: in one that was cut, a member of an inner object can look like one of the top level.
    """
    if body[:64].removeprefix(b"\xef\xbb\xbf").lstrip()[:1] != b"{":
        return None
    quoted = b'"' + key.encode() + b'"'
    opening = re.compile(re.escape(quoted) + _SPACE + rb":" + _SPACE + rb"\{")
    position = len(body)
    for _ in range(TRIES):
        position = body.rfind(quoted, max(0, len(body) - TAIL), position)
        if position < 0:
            return None
        match = opening.match(body, position)
        # After a backslash the quote is part of a longer name.
        if match and body[position - 1 : position] != b"\\":
            end = _closing(body, match.end())
            over = end and _closing(body, end)
            if over and not body[over:].strip():
                return match.end() - 1, end
    return None


def _closing(body: bytes, start: int) -> int:
    """The byte after the brace or bracket that closes the level this position stands in; 0 if none does."""
    depth = 1
    for mark in _MARKS.finditer(body, start):
        byte = mark[0]
        if byte in (b"{", b"["):
            depth += 1
        elif byte in (b"}", b"]"):
            depth -= 1
            if not depth:
                return mark.end()
    return 0
