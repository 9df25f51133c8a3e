"""The framings made of lines: server-sent events and NDJSON.

Knows lines and fields. Must not know what the payloads mean.
"""

from collections.abc import Iterator
from typing import Final

from llmtab.wire.jsonobjects import JsonObjects

BOM: Final = b"\xef\xbb\xbf"
_CLOSERS: Final = {b"{": b"}", b"[": b"]"}


def whole(frame: bytes) -> bool:
    """Whether a payload that opens as an object or array also ends as one: a cheap sign of truncation."""
    return frame[-1:] == _CLOSERS.get(frame[:1], frame[-1:])


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


class Pending:
    """The line in progress: one buffer, searched once, bounded. (A list of tiny parts takes twenty times their bytes.)

    Users cut chunks longer than the limit first, so that every line over it passes through here.
    """

    __slots__ = ("_limit", "_line", "_size", "lost")

    def __init__(self, limit: int) -> None:
        self.lost = False
        self._limit = limit
        self._line = bytearray()
        self._size = 0

    def keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limit:
            self.lost = True
            self._line.clear()
        else:
            self._line += part

    def take(self, end: bytes = b"") -> bytes:
        """The whole line, which `end` completes. Empty, with `lost` set, if it was too long; the caller clears it."""
        if self._size or end:
            self.keep(end)
        line = bytes(self._line)
        self._line.clear()
        self._size = 0
        return line


class Ndjson:
    """Each line that is not blank is a frame; the last one also without its newline."""

    broken = ""

    def __init__(self, limit: int) -> None:
        self.overflowed = False
        self.partial = False
        self._limit = limit
        self._pending = Pending(limit)
        self._first = True

    def feed(self, data: bytes) -> list[bytes]:
        if len(data) > self._limit:
            return [frame for part in cut(data, self._limit) for frame in self.feed(part)]
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines:
            lines[0] = self._complete(lines[0])
        if rest:
            self._pending.keep(rest)
        return [line for line in map(bytes.strip, lines) if line]

    def close(self) -> list[bytes]:
        line = self._complete(b"").strip()
        self.partial = not whole(line)
        return [line] if line else []

    def _complete(self, end: bytes) -> bytes:
        line = self._pending.take(end)
        if self._pending.lost:
            self.overflowed = True
            self._pending.lost = False
        if self._first:
            self._first = False
            line = line.removeprefix(BOM)
        return line


class Sse:
    """Server-sent events, as the WHATWG standard has them and as they are sent.

    A frame is the data of one event, its lines joined with LF; fields other than data are dropped; an event without
    its blank line is delivered at the close. JSON that stands in the stream without `data:` (Gemini's errors,
    pretty-printed over many lines; NDJSON under an SSE label) comes out object by object. A line that begins with a
    field name ends such JSON: inside it no line can.
    """

    broken = ""

    def __init__(self, limit: int) -> None:
        self.overflowed = False
        self.partial = False
        self._limit = limit
        self._pending = Pending(limit)
        self._bare = JsonObjects(limit)
        self._data = bytearray()
        self._lines = 0  # of data, in the event in progress
        self._size = 0
        self._skip = False  # the event in progress was over the limit
        self._after_cr = False
        self._first = True

    def feed(self, data: bytes) -> list[bytes]:
        if len(data) > self._limit:
            return [frame for part in cut(data, self._limit) for frame in self.feed(part)]
        if self._after_cr and data[:1] == b"\n":
            data = data[1:]
            self._after_cr = False
        if not data:
            return []
        self._after_cr = data[-1:] == b"\r"
        # bytes.splitlines knows LF, CRLF and CR and nothing else (unlike str.splitlines).
        lines = data.splitlines()
        rest = b"" if data[-1] in b"\r\n" else lines.pop()
        if lines:
            lines[0] = self._complete(lines[0])
        frames: list[bytes] = []
        self._take(lines, frames)
        if rest:
            self._pending.keep(rest)
        return frames

    def close(self) -> list[bytes]:
        frames: list[bytes] = []
        last = self._complete(b"")
        if last:
            self._take([last], frames)
        if self._bare.depth:
            frames += self._bare.close()
            self.partial = True
        self._dispatch(frames)
        self.partial = self.partial or bool(frames and not whole(frames[-1]))
        return frames

    def _complete(self, end: bytes) -> bytes:
        """The first line of a chunk with what came before it; an event that loses a line is dropped as a whole."""
        line = self._pending.take(end)
        if self._pending.lost:
            self._pending.lost = False
            self._drop()
            return b":"
        if self._first:
            self._first = False
            return line.removeprefix(BOM)
        return line

    def _take(self, lines: list[bytes], frames: list[bytes]) -> None:
        for line in lines:
            if line[:5] == b"data:":
                self._end_bare(frames)
                self._add(line[6:] if line[5:6] == b" " else line[5:])
            elif self._bare.depth or line[:1] in (b"{", b"["):
                self._take_bare(line, frames)
            elif not line:
                self._dispatch(frames)
            elif line == b"data":
                self._add(b"")

    def _add(self, value: bytes) -> None:
        self._size += len(value)
        if self._size > self._limit:
            self._drop()
        elif not self._skip:
            self._data += b"\n" + value if self._lines else value
            self._lines += 1

    def _drop(self) -> None:
        self.overflowed = self._skip = True
        self._data.clear()
        self._lines = 0
        self._bare = JsonObjects(self._limit)

    def _dispatch(self, frames: list[bytes]) -> None:
        if self._lines:
            if self._data:
                frames.append(bytes(self._data))
            self._data.clear()
            self._lines = 0
        self._size = 0
        self._skip = False

    def _take_bare(self, line: bytes, frames: list[bytes]) -> None:
        if line.startswith((b"event:", b"id:", b"retry:", b":")):
            self._end_bare(frames)
            return
        if self._lines:
            self._dispatch(frames)
        frames += self._bare.feed(line + b"\n")
        self.overflowed = self.overflowed or self._bare.overflowed
        if not self._bare.depth:
            self._bare.close()

    def _end_bare(self, frames: list[bytes]) -> None:
        if self._bare.depth:
            frames += self._bare.close()
