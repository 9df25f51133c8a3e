"""The bytes of one batch result file, however they come: whole, again, in ranges, overlapping, out of order.

Knows offsets and lines. Must not know what a line means, who asked, or where items are booked. Each byte of the file is
looked at once, so a second download finds nothing new; kept are the two torn ends of each stretch seen so far.
"""

from typing import Final

LONGEST_LINE: Final = 16 * 1024 * 1024
"""Bytes of one item: an image in base64 inside one answer is about 12 MiB."""
LONGEST_END: Final = 1024 * 1024
"""Bytes of a torn line kept of a stretch away from the file's beginning: ranges must not fill the memory."""
MOST_SPANS: Final = 64
"""Stretches of one file that have not met yet; more are not looked at."""

type Line = tuple[Span, int, bytes | None]
"""(stretch, number of the item in it, the line; None where it was too long to be kept)."""


class Span:
    """A stretch of the file without a gap. Which of the file's items a line is, is known once the stretch has met the
    file's beginning."""

    __slots__ = (
        "_added", "_closed", "_head", "_head_lost", "_into", "_limit", "_lost", "_tail", "_torn", "count", "end",
        "start",
    )  # fmt: skip

    def __init__(self, start: int) -> None:
        self.start = self.end = start
        self.count = 0
        """Items that begin and end in this stretch."""
        self._limit = LONGEST_END if start else LONGEST_LINE
        self._torn = start > 0  # no newline yet: what came may be the middle of a line
        self._head, self._head_lost = b"", False
        self._tail, self._lost = bytearray(), False
        self._closed = False
        self._into: Span | None = None
        self._added = 0

    def item(self, number: int) -> int | None:
        """The file's item that this stretch's item `number` is; None where that is not known yet."""
        span = self
        while span._into is not None:
            number += span._added
            span = span._into
        return None if span.start else number

    def extend(self, data: bytes) -> list[Line]:
        """The bytes that follow, and the lines they end."""
        self.end += len(data)
        first, *others = data.split(b"\n")
        lines: list[Line] = []
        if not others:
            self._keep(first)
            return lines
        if self._torn:
            self._keep(first)
            self._head, self._head_lost = bytes(self._tail), self._lost
            self._tail.clear()
            self._torn = self._lost = False
        else:
            self._finish(lines, first)
        for line in others[:-1]:
            if line and not line.isspace():
                lines.append((self, self.count, line))
                self.count += 1
        self._keep(others[-1])
        return lines

    def _keep(self, piece: bytes) -> None:
        if self._lost or len(self._tail) + len(piece) > self._limit:
            self._lost = True
            self._tail.clear()
        else:
            self._tail += piece

    def _finish(self, lines: list[Line], rest: bytes) -> None:
        """The line under way ends with `rest`."""
        line = bytes(self._tail) + rest
        if self._lost or (line and not line.isspace()):
            lines.append((self, self.count, None if self._lost else line))
            self.count += 1
        self._lost = False
        self._tail.clear()

    def close(self) -> list[Line]:
        """The file ends where this stretch does: a last line without its newline is one all the same."""
        lines: list[Line] = []
        self._closed = True
        if not self._torn:
            self._finish(lines, b"")
        return lines

    def join(self, after: "Span") -> list[Line]:
        """The stretch that begins where this one ends becomes a part of this one. The line that was torn there."""
        end = after.end
        if after._torn:
            lines = self.extend(bytes(after._tail))
            self._lost = self._lost or after._lost
            lines += self.close() if after._closed else []
        else:
            self._lost = self._lost or after._head_lost
            lines = self.extend(after._head + b"\n")
            after._into, after._added = self, self.count
            self.count += after.count
            self._tail, self._lost = after._tail, after._lost
        self.end = end
        return lines


class ResultFile:
    """All that was seen of one file."""

    def __init__(self) -> None:
        self._spans: list[Span] = []

    @property
    def seen(self) -> int:
        """How many of the file's bytes were seen."""
        return sum(span.end - span.start for span in self._spans)

    def feed(self, at: int, data: bytes) -> list[Line]:
        """`data` stands at offset `at`: the lines that are whole now and were not before, in no certain order."""
        lines: list[Line] = []
        while data:
            index = self._index(at)
            span = self._spans[index] if index >= 0 else None
            if span is not None and at < span.end:
                skipped = min(span.end - at, len(data))
                at, data = at + skipped, data[skipped:]
                continue
            if span is None or at > span.end:
                if len(self._spans) >= MOST_SPANS:
                    return lines
                index, span = index + 1, Span(at)
                self._spans.insert(index, span)
            after = self._spans[index + 1] if index + 1 < len(self._spans) else None
            fits = min(after.start - at, len(data)) if after is not None else len(data)
            lines += span.extend(data[:fits])
            at, data = at + fits, data[fits:]
            if after is not None and span.end == after.start:
                lines += span.join(after)
                del self._spans[index + 1]
        return lines

    def close(self, at: int) -> list[Line]:
        """The file is known to end at offset `at`."""
        index = self._index(at)
        span = self._spans[index] if index >= 0 else None
        return span.close() if span is not None and span.end == at else []

    def _index(self, at: int) -> int:
        """The number of the last stretch that begins at or before `at`; -1 where there is none."""
        return next((i for i in range(len(self._spans) - 1, -1, -1) if self._spans[i].start <= at), -1)
